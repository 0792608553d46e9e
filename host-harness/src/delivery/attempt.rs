//! One attempt at work: its ack, unless its report stands for that, the agent, its report.
//!
//! Does not decide whether it may start; the parent module does, and the component by its answer to the ack.

use super::{Answers, Attempt, Delivery};
use crate::agent::{Agent, CommandAgent, Function, Task};
use crate::error::HostError;
use crate::payload;
use crate::process::{Ended, NotSpawned, Process};
use crate::report::{Report, reply};
use crate::submit::{Input, Side};
use qm2_core::envelope::{Envelope, FailureClass, Intent};
use qm2_core::id::attempt_key;
use qm2_core::message::Message;
use qm2_core::receipt::{Receipt, ReceiptStatus, Rejection, RejectionCode};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;

/// How long a cancelled in-process agent may take to return before it is dropped.
const RETURN_GRACE: Duration = Duration::from_secs(2);

/// Wait before a command is started again for which the host had no disk, process or open file.
const SPAWN_AGAIN: Duration = Duration::from_secs(1);

/// What came of starting a command.
pub(super) enum Spawned {
    Runs(Box<Process>),
    /// It cannot be started, and why.
    Never(String),
    /// It is not wanted any more.
    Cancelled,
}

/// The component's word on an ack.
#[derive(PartialEq, Eq)]
pub(super) enum Admitted {
    Yes,
    /// The attempt is over, or was never its own.
    No,
}

impl Delivery {
    /// Runs one attempt from its start to its settled report.
    pub(super) async fn run(
        self: Arc<Self>,
        message: Arc<Message>,
        agent: Agent,
        cancel: watch::Receiver<bool>,
    ) {
        let key = message.key.clone();
        if !self.start(&key) {
            return;
        }
        let owned = |message: Arc<Message>| Message::clone(&message);
        let agent = match agent {
            Agent::Channel(channel) => {
                return Box::pin(self.send_out(owned(message), channel, cancel)).await;
            }
            agent => agent,
        };
        // Dropped last, also when an agent panics.
        let _at_work = AtWork {
            delivery: self.clone(),
            key,
        };
        match agent {
            // On the heap each, so that thousands of functions do not take the room of commands.
            Agent::Function(function) => {
                Box::pin(self.run_function(message, &function, cancel)).await;
            }
            Agent::Command(agent) => {
                Box::pin(self.run_command(owned(message), &agent, cancel)).await;
            }
            Agent::Staying(agent) => {
                Box::pin(self.run_staying(owned(message), &agent, cancel)).await;
            }
            // Sent above.
            Agent::Channel(_) => {}
        }
    }

    async fn run_function(
        self: &Arc<Self>,
        message: Arc<Message>,
        function: &Arc<Function>,
        cancel: watch::Receiver<bool>,
    ) {
        let (key, execute) = (&message.key, &message.envelope);
        // After a crash an attempt without a durable ack is handed out again. So nothing begins before it but what may run
        // again; that reports, which is its ack too, unless it takes a while.
        if !self.begin_unsaid(&message) && self.ack(execute, Side::default()).await != Admitted::Yes
        {
            return;
        }
        let task = Task {
            key: key.clone(),
            delivery: message.delivery,
            envelope: execute.clone(),
            cancelled: cancel.clone(),
            answers: self.answers_to(key),
            submitter: self.submitter.clone(),
        };
        let mut work = catching(|| function(task));
        let report = tokio::select! {
            biased;
            report = &mut work => Some(report),
            () = until(cancel) => tokio::time::timeout(RETURN_GRACE, &mut work).await.ok(),
        };
        drop(work);
        let report = match report {
            Some(Some(report)) => report,
            Some(None) => Report::failed(FailureClass::Unknown, "panic", "the agent panicked"),
            None => Report::retryable("cancelled", "the agent was dropped after a cancel"),
        };
        self.end_unsaid(key);
        self.report(execute, report, Side::default()).await;
    }

    async fn run_command(
        self: &Arc<Self>,
        message: Message,
        agent: &CommandAgent,
        cancel: watch::Receiver<bool>,
    ) {
        let (key, execute) = (message.key, message.envelope);
        let mut process = match self.spawn(agent, &key, &execute, cancel.clone()).await {
            Spawned::Runs(process) => process,
            Spawned::Never(says) => {
                let report = Report::permanent("spawn-failed", says);
                self.report(&execute, report, Side::default()).await;
                return;
            }
            Spawned::Cancelled => {
                let says = "it was cancelled before it could be started";
                let report = Report::retryable("cancelled", says);
                self.report(&execute, report, Side::default()).await;
                return;
            }
        };
        let noted = Some(process.note());
        let message_key = key.clone();
        let forgotten = Some(key);
        // One commit says that it was taken up and which process it is; only then may it do anything.
        if self
            .ack(
                &execute,
                Side {
                    noted,
                    forgotten: None,
                },
            )
            .await
            != Admitted::Yes
        {
            if let Err(e) = process.end().await {
                tracing::error!("{e}");
            }
            if !self.lock().closing {
                self.submitter.send(Input::Gone(message_key));
            }
            return;
        }
        process.open_gate(&execute);
        let (Ended::Itself(report) | Ended::Cancelled(report)) = process.run(until(cancel)).await;
        let side = Side {
            noted: None,
            forgotten,
        };
        self.report(&execute, report, side).await;
    }

    /// Starts a command at its gate. Where the host has nothing to start it with, again and again: nothing was taken up
    /// yet, so the message is out until then, and what ends it meanwhile says so.
    pub(super) async fn spawn(
        &self,
        agent: &CommandAgent,
        key: &str,
        envelope: &Envelope,
        cancel: watch::Receiver<bool>,
    ) -> Spawned {
        let says = |e| {
            format!(
                "could not start {:?} in {}: {e}",
                agent.command,
                agent.folder.display()
            )
        };
        loop {
            match Process::spawn(&self.context, agent, key, envelope) {
                Ok(process) => return Spawned::Runs(Box::new(process)),
                Err(NotSpawned::Ever(e)) => return Spawned::Never(says(e)),
                Err(NotSpawned::Yet(e)) => tracing::error!("{key}: {}; trying again", says(e)),
            }
            tokio::select! {
                () = tokio::time::sleep(SPAWN_AGAIN) => {}
                () = until(cancel.clone()) => return Spawned::Cancelled,
            }
        }
    }

    /// What people answer to the questions of an attempt that is at work.
    pub(super) fn answers_to(&self, key: &str) -> watch::Receiver<Answers> {
        let state = self.lock();
        match state.attempts.get(key) {
            Some(attempt) => attempt.answers.subscribe(),
            None => watch::channel(Answers::default()).1,
        }
    }

    /// Says that an attempt was taken up, and waits for the commit.
    pub(super) async fn ack(&self, execute: &Envelope, side: Side) -> Admitted {
        if self.lock().closing {
            return Admitted::No;
        }
        let ack = reply(execute, Intent::Ack);
        let is_over = || self.is_over(execute, |attempt| *attempt.cancelled.borrow());
        let answer = self.submitter.submit_until_answered(ack, side, &is_over);
        let answer = answer.await;
        match answer {
            // Closing meanwhile: the note and the ack stand, and the next owner says host-lost.
            Ok(Ok(_)) if self.lock().closing => Admitted::No,
            Ok(Ok(Receipt {
                status: ReceiptStatus::Accepted | ReceiptStatus::Replayed,
                ..
            })) => Admitted::Yes,
            Ok(Ok(Receipt {
                status: ReceiptStatus::Late,
                ..
            })) => Admitted::No,
            Ok(Err(rejection)) => {
                self.log(execute, "ack", &rejection);
                Admitted::No
            }
            Err(e) => {
                self.log_error(execute, &e);
                Admitted::No
            }
        }
    }

    /// Says how an attempt ended, and waits for the commit.
    pub(super) async fn report(&self, execute: &Envelope, mut report: Report, side: Side) {
        loop {
            if self.lock().closing {
                // The note stays: the next owner says host-lost.
                return;
            }
            let bytes_max = self.context.payload_bytes_max;
            match payload::bound(&self.context.data, &mut report, bytes_max) {
                Ok(()) => break,
                // The work is done, and is not thrown away for want of a disk.
                Err(e) => {
                    tracing::error!("the result of an attempt is not kept yet: {e}; trying again")
                }
            }
            tokio::time::sleep(payload::KEEP_AGAIN).await;
        }
        let envelope = report.into_envelope(execute);
        let refusal = match self.submit_report(execute, envelope, side.clone()).await {
            Some(refusal) if refusal.code == RejectionCode::InvalidField => refusal,
            _ => return,
        };
        // What the agent said cannot be said: that is how it failed, rather than that nobody ever hears of it.
        let says = format!("its report was refused: {refusal}");
        let envelope = Report::bad(says).into_envelope(execute);
        self.submit_report(execute, envelope, side).await;
    }

    async fn submit_report(
        &self,
        execute: &Envelope,
        envelope: Envelope,
        side: Side,
    ) -> Option<Rejection> {
        let is_over = || self.is_over(execute, |_| false);
        let answer = self
            .submitter
            .submit_until_answered(envelope, side, &is_over);
        match answer.await {
            Ok(Ok(_)) => None,
            Ok(Err(rejection)) => {
                self.log(execute, "report", &rejection);
                Some(rejection)
            }
            Err(e) => {
                self.log_error(execute, &e);
                None
            }
        }
    }

    /// Whether the component has ended an attempt, or something else has.
    fn is_over(&self, execute: &Envelope, or: impl Fn(&Attempt) -> bool) -> bool {
        let key = attempt_key(
            &execute.coordination_id,
            execute.step_id.as_deref().unwrap_or_default(),
            execute.attempt.unwrap_or_default(),
        );
        let state = self.lock();
        let attempt = state.attempts.get(&key);
        attempt.is_none_or(|attempt| attempt.ended || or(attempt))
    }

    fn log(&self, execute: &Envelope, what: &str, rejection: &Rejection) {
        let step = execute.step_id.as_deref().unwrap_or_default();
        tracing::warn!(
            "{what} of {}:{step} was refused: {rejection}",
            execute.coordination_id
        );
    }

    fn log_error(&self, execute: &Envelope, error: &HostError) {
        if matches!(error, HostError::Closed) {
            return;
        }
        let step = execute.step_id.as_deref().unwrap_or_default();
        tracing::error!("{}:{step}: {error}", execute.coordination_id);
    }
}

/// Takes an attempt off when its work is settled, whatever way that came.
struct AtWork {
    delivery: Arc<Delivery>,
    key: String,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.delivery.lock().attempts.remove(&self.key);
        self.delivery.at_work.send_modify(|count| *count -= 1);
    }
}

/// Work that ends with nothing where it panics, so that a panic ends the attempt and nothing else.
fn catching(
    function: impl FnOnce() -> Pin<Box<dyn Future<Output = Report> + Send>>,
) -> impl Future<Output = Option<Report>> + Send + Unpin {
    let mut work = catch_unwind(AssertUnwindSafe(function)).ok();
    poll_fn(move |context| {
        let Some(running) = &mut work else {
            return Poll::Ready(None);
        };
        match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
            Ok(polled) => polled.map(Some),
            Err(_) => {
                work = None;
                Poll::Ready(None)
            }
        }
    })
}

/// Resolves when the value becomes true, and never if nobody is left who could make it so.
pub(super) async fn until(mut value: watch::Receiver<bool>) {
    if value.wait_for(|&yes| yes).await.is_err() {
        std::future::pending::<()>().await;
    }
}
