//! Attempts whose agent is elsewhere: into the durable queue, through a channel, and taken back when they end.
//!
//! The send is the ack; whoever has the attempt reports its end by a call of its own. Only what was handed out in this
//! process is sent, so an attempt that has ended never is. Does not decide how often or when to try; the queue does.

use super::attempt::Admitted;
use super::{Delivery, Stage};
use crate::agent::Agent;
use crate::error::HostError;
use crate::queue::{
    COORDINATION, Channel, DurableQueue, Enqueued, NewEntry, Place, RETRIES_MAX, Tried, unkept,
};
use crate::report::Report;
use crate::submit::Side;
use qm2_core::envelope::{DeliveryMode, Envelope};
use qm2_core::message::{Message, NoticeKind};
use std::sync::Arc;
use tokio::sync::watch;

/// Wait before the store of the queue is tried again.
const STORE_AGAIN_MS: u64 = 1_000;

/// What comes after a try.
enum Next {
    /// Nothing more from here.
    Settled,
    /// Another try, not before this time.
    Again(u64),
}

impl Delivery {
    /// One try of an attempt, which was started. What is to be tried again gives its lane free meanwhile.
    pub(super) async fn send_out(
        self: Arc<Self>,
        message: Message,
        channel: Arc<dyn Channel>,
        cancel: watch::Receiver<bool>,
    ) {
        let mut sending = Sending {
            delivery: self.clone(),
            key: message.key.clone(),
            stays: false,
        };
        // A send that is given up half way is noted as begun, and is asked about should it matter again.
        let next = tokio::select! {
            next = self.try_to_send(&message, &*channel) => next,
            () = self.over(&message.key, cancel.clone()) => Next::Settled,
        };
        let is_cancelled = *cancel.borrow();
        let mut is_ended = false;
        if let Some(attempt) = self.lock().attempts.get_mut(&message.key) {
            is_ended = attempt.ended;
            if matches!(next, Next::Again(_)) && !is_ended && !is_cancelled {
                attempt.stage = Stage::Waiting;
                sending.stays = true;
            }
        }
        match next {
            // The next owner of the data directory goes on from what the queue says.
            _ if self.lock().closing => {}
            _ if is_ended => self.take_back(&message.key),
            Next::Again(_) if is_cancelled => {
                self.take_back(&message.key);
                let says = "it was cancelled before it was known to be sent";
                let report = Report::retryable("cancelled", says);
                self.report(&message.envelope, report, Side::default())
                    .await;
            }
            Next::Again(at_ms) => self.send_again(message, channel, cancel, at_ms),
            Next::Settled => {}
        }
    }

    /// Resolves when the component has ended an attempt, or this process ends.
    async fn over(&self, key: &str, mut cancel: watch::Receiver<bool>) {
        let mut answers = self.answers_to(key);
        let closing = async {
            while !self.lock().closing {
                // A cancel does not stop what may already be on its way.
                if cancel.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = answers.wait_for(|answers| answers.ended) => {}
            () = closing => {}
        }
    }

    /// Puts an attempt into its lane again at a time.
    fn send_again(
        self: &Arc<Self>,
        message: Message,
        channel: Arc<dyn Channel>,
        mut cancel: watch::Receiver<bool>,
        at_ms: u64,
    ) {
        let this = self.clone();
        self.runtime.spawn(async move {
            let clock = this.submitter.clock.clone();
            while clock.now_ms() < at_ms {
                tokio::select! {
                    () = tokio::time::sleep(clock.sleep_until(Some(at_ms))) => {}
                    // It has ended, or this process does.
                    _ = cancel.changed() => return,
                }
            }
            let (queued, delivery) = (message.clone(), this.clone());
            let work = async move {
                this.run(message.into(), Agent::Channel(channel), cancel)
                    .await
            };
            delivery.enqueue(&queued, work);
        });
    }

    async fn try_to_send(&self, message: &Message, channel: &dyn Channel) -> Next {
        let (key, execute) = (&message.key, &message.envelope);
        let outbox = match &self.outbox {
            Some(outbox) if message.delivery_mode == DeliveryMode::AtLeastOnce => outbox,
            _ => {
                self.send_once(message, channel).await;
                return Next::Settled;
            }
        };
        let again = Next::Again(outbox.now_ms() + STORE_AGAIN_MS);
        match outbox.put(entry(message)).await {
            Ok(Enqueued {
                place: Place::New | Place::Waiting,
                ..
            }) => {}
            // Given up by an earlier process that could not say so any more.
            Ok(_) => return self.undeliverable(key, "it is given up in the queue"),
            Err(HostError::Closed) => return Next::Settled,
            Err(e @ HostError::Entry { .. }) => return self.undeliverable(key, &e.to_string()),
            Err(e) => {
                tracing::error!("{key} is not in the queue yet: {e}; trying again");
                return again;
            }
        }
        match outbox.try_entry(key, Some(channel)).await {
            Ok(Tried::Sent) => {
                // First the ack: an attempt without one is handed out again after a crash, and its entry must then say
                // that it may have been sent.
                if self.ack(execute, Side::default()).await == Admitted::Yes
                    && let Err(e) = outbox.ack(key).await
                {
                    tracing::error!("{key} stays in the queue, although it was sent: {e}");
                }
                Next::Settled
            }
            Ok(Tried::Dead(reason, error)) => {
                self.undeliverable(key, &format!("{reason} ({error})"))
            }
            Ok(Tried::Failed(error)) => {
                tracing::warn!("{key} was not sent: {error}");
                self.due(outbox, key).await
            }
            Ok(Tried::Deferred) => self.due(outbox, key).await,
            Ok(Tried::Gone) => Next::Settled,
            Err(e) => {
                tracing::error!("{key}: {e}; trying again");
                again
            }
        }
    }

    /// When an entry is to be tried next.
    async fn due(&self, outbox: &DurableQueue, key: &str) -> Next {
        match outbox.entry(key).await {
            // The next try gives it up.
            Ok(Some(entry)) if entry.retry_count >= RETRIES_MAX => Next::Again(0),
            Ok(Some(entry)) => Next::Again(entry.due_ms()),
            Ok(None) => Next::Settled,
            Err(_) => Next::Again(outbox.now_ms() + STORE_AGAIN_MS),
        }
    }

    /// A best-effort message: one try, of which nothing is kept.
    async fn send_once(&self, message: &Message, channel: &dyn Channel) {
        let entry = unkept(entry(message), self.submitter.clock.now_ms());
        match channel.send(&entry).await {
            Ok(_) => {
                self.ack(&message.envelope, Side::default()).await;
            }
            Err(e) => {
                self.undeliverable(&message.key, e.message());
            }
        }
    }

    fn undeliverable(&self, key: &str, says: &str) -> Next {
        tracing::warn!("{key} is not sent: {says}");
        self.submitter.notice(key, NoticeKind::Dropped);
        Next::Settled
    }

    /// Takes an ended attempt out of the queue. Whether that is durable before a crash does not matter: what is not handed
    /// out is not sent, and opening takes the rest back.
    pub(super) fn take_back(&self, key: &str) {
        let Some(outbox) = self.outbox.clone() else {
            return;
        };
        let key = key.to_owned();
        self.runtime.spawn(async move {
            match outbox.withdraw(&key).await {
                Ok(_) | Err(HostError::Closed) => {}
                Err(e) => tracing::error!("{key} has ended and is still in the queue: {e}"),
            }
        });
    }

    /// Takes back what has ended while nobody was there to do it: everything that was not handed out again.
    pub(crate) async fn take_back_ended(&self) {
        let Some(outbox) = &self.outbox else {
            return;
        };
        let entries = match outbox.load().await {
            Ok(entries) => entries,
            Err(e) => return tracing::error!("the queue cannot be looked through: {e}"),
        };
        for entry in entries {
            let is_out = || self.lock().attempts.contains_key(&entry.key);
            if entry.channel == COORDINATION && !is_out() {
                self.take_back(&entry.key);
            }
        }
    }

    /// Says the host's word on an attempt that is not known in this process, unless a channel has brought it elsewhere. The
    /// queue knows that also where this process serves nobody.
    pub(super) fn lost_unless_elsewhere(self: &Arc<Self>, key: &str, envelope: &Envelope) {
        let (id, session) = (&envelope.coordination_id, &envelope.target_session);
        if self.routes.is_channel(id, session) {
            return;
        }
        let Some(outbox) = self.outbox.clone() else {
            return self.submitter.notice(key, NoticeKind::HostLost);
        };
        let (key, submitter) = (key.to_owned(), self.submitter.clone());
        self.runtime.spawn(async move {
            match outbox.place(&key).await {
                Ok(Place::New) => submitter.notice(&key, NoticeKind::HostLost),
                Ok(_) => {}
                // Not said without being sure; the attempt has its deadline.
                Err(e) => tracing::error!("it is not known whether {key} was sent: {e}"),
            }
        });
    }

    /// Sends a question to a session that is served through a channel; why it did not arrive.
    pub(super) async fn send_question(
        &self,
        message: &Message,
        channel: &dyn Channel,
    ) -> Option<String> {
        let entry = unkept(entry(message), self.submitter.clock.now_ms());
        let sent = channel.send(&entry).await;
        sent.err().map(|e| e.to_string())
    }
}

fn entry(message: &Message) -> NewEntry {
    let session = &message.envelope.target_session;
    // Contract types hold no map with keys that are not text, so this cannot fail.
    let envelope = serde_json::to_string(&message.envelope).unwrap_or_default();
    let new = NewEntry::new(COORDINATION, session, envelope).key(&message.key);
    match message.deadline_ms {
        Some(at_ms) => new.deadline_ms(at_ms),
        None => new,
    }
}

/// A try under way; counted off when dropped, also when the channel panics.
struct Sending {
    delivery: Arc<Delivery>,
    key: String,
    /// Another try follows.
    stays: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.stays {
            self.delivery.lock().attempts.remove(&self.key);
        }
        self.delivery.at_work.send_modify(|count| *count -= 1);
    }
}
