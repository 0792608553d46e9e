//! The way into a domain's loop: inputs with their arrival times, and answers that come after the commit.
//!
//! Does not know what an input does.

use crate::clock::Clock;
use crate::error::{HostError, Result};
use crate::store::{Note, Store};
use qm2_core::call::{Answer, Call};
use qm2_core::envelope::Envelope;
use qm2_core::message::{Caller, Notice, NoticeKind};
use qm2_core::receipt::{LedgerFault, Receipt, Rejection, Remedy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::oneshot;

/// Wait before an input is sent again after a commit failed.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Longest wait before an input is sent again, whatever the component says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Gets the answer after the commit that covers it.
pub(crate) type Reply = oneshot::Sender<Result<Answer>>;

/// What becomes durable together with an input, whatever the component answers to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    /// A process about to run.
    pub(crate) noted: Option<Note>,
    /// Key of a process whose end this input settles.
    pub(crate) forgotten: Option<String>,
}

/// Work on the store between two groups of inputs.
pub(crate) type StoreWork = Box<dyn FnOnce(&mut dyn Store) + Send>;

/// What the loop takes.
pub(crate) enum Input {
    /// A call of the component.
    Call {
        /// Elsewhere, because most inputs are far smaller.
        call: Box<Call>,
        side: Side,
        reply: Option<Reply>,
    },
    /// Key of a process that was never let run, and is gone; durable with whatever comes next, because losing it costs nothing.
    Gone(String),
    /// Reading or writing the store.
    Store(StoreWork),
    /// A stored line that does not hold was found.
    Broken(LedgerFault),
    /// What was committed beside the loop is durable, or has failed.
    Committed,
    /// The last input.
    Close,
}

/// Sends inputs; cheap to clone.
#[derive(Clone)]
pub(crate) struct Submitter {
    pub(crate) inputs: Sender<Input>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Set once the domain closes: nothing is sent again, whatever came of it.
    closing: Arc<AtomicBool>,
}

impl Submitter {
    pub(crate) fn new(inputs: Sender<Input>, clock: Arc<dyn Clock>) -> Self {
        let closing = Arc::default();
        Self {
            inputs,
            clock,
            closing,
        }
    }

    /// Who sends again and again gives up with [`HostError::Closed`].
    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Waits before something is sent again.
    ///
    /// # Errors
    /// [`HostError::Closed`] if the domain closes meanwhile.
    async fn wait(&self, mut left: Duration, is_over: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        while !self.closing.load(Ordering::SeqCst) {
            if left.is_zero() || is_over() {
                return Ok(());
            }
            let next = left.min(RETRY_AFTER);
            tokio::time::sleep(next).await;
            left -= next;
        }
        Err(HostError::Closed)
    }

    /// Makes a call at the present time.
    pub(crate) async fn call(&self, mut call: Call, side: Side) -> Result<Answer> {
        call.set_now(self.clock.now_ms());
        let call = Box::new(call);
        let (reply, answer) = oneshot::channel();
        let reply = Some(reply);
        let input = Input::Call { call, side, reply };
        self.inputs.send(input).map_err(|_| HostError::Closed)?;
        answer.await.unwrap_or(Err(HostError::Closed))
    }

    /// Submits one envelope as its source session says it.
    pub(crate) async fn submit(&self, envelope: Envelope) -> Result<Result<Receipt, Rejection>> {
        self.submit_until_answered(envelope, Side::default(), &|| false)
            .await
    }

    /// As [`Submitter::submit`], again and again while the store or the domain is too busy: an accepted input is not lost.
    /// Gives up when the domain closes, so that a store that is away does not keep it open, and takes the component's
    /// `retry` for its last word once `is_over`.
    pub(crate) async fn submit_until_answered(
        &self,
        mut envelope: Envelope,
        side: Side,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> Result<Result<Receipt, Rejection>> {
        envelope.created_at_ms = self.clock.now_ms();
        let session = envelope.source_session.clone();
        let caller = Caller {
            session,
            role: None,
        };
        let envelopes = vec![envelope];
        let call = Call::Submit {
            caller,
            now_ms: 0,
            envelopes,
        };
        loop {
            match self.call(call.clone(), side.clone()).await {
                Ok(Answer::Submit(mut receipts)) => match receipts.pop() {
                    Some(Err(Rejection {
                        next: Remedy::Retry { after_ms },
                        ..
                    })) if !is_over() => {
                        let after = Duration::from_millis(after_ms);
                        self.wait(after.clamp(RETRY_AFTER, RETRY_AFTER_MAX), is_over)
                            .await?;
                    }
                    Some(receipt) => return Ok(receipt),
                    None => return Err(HostError::Component("no receipt for an envelope".into())),
                },
                Err(e) if e.retryable() => self.wait(RETRY_AFTER, &|| false).await?,
                Err(e) => return Err(e),
                Ok(_) => return Err(HostError::Component("the answer of another call".into())),
            }
        }
    }

    /// Says the host's own word on a message; nobody waits for the answer.
    pub(crate) fn notice(&self, key: &str, kind: NoticeKind) {
        let key = key.to_owned();
        let notices = vec![Notice { key, kind }];
        let now_ms = self.clock.now_ms();
        let call = Call::Notice { now_ms, notices };
        self.send(Input::Call {
            call: Box::new(call),
            side: Side::default(),
            reply: None,
        });
    }

    /// Sends an input that a closed domain need not see.
    pub(crate) fn send(&self, input: Input) {
        let _ = self.inputs.send(input);
    }
}
