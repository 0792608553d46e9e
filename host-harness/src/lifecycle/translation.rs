//! Messages of QM2 as a host's own requests, and ends of runs as reports.
//!
//! What ties a run to an attempt is the attempt's idempotency key, which the host gives to the run as its own. Does not
//! submit anything.

use super::{Ended, EndedReason, Outcome};
use crate::report::{Report, reply};
use qm2_core::envelope::{Envelope, FailureClass, Intent, PayloadRef};
use qm2_core::message::{CANCEL_PREFIX, Message};
use std::fmt;

/// A subagent that a host is asked to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnRequest {
    /// The same for every delivery of the attempt: a host that knows it starts nothing.
    pub idempotency_key: String,
    /// Session that is to do it.
    pub child_session: String,
    /// Session that asks.
    pub requester_session: String,
    /// What is to be done.
    pub task: String,
    /// When its time is over, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
}

/// A subagent that a host is asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillRequest {
    /// The key that it was started under.
    pub idempotency_key: String,
    /// Why.
    pub reason: Option<String>,
}

/// The message asks for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotThat(
    /// Its key.
    pub String,
);

impl fmt::Display for NotThat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} asks for something else", self.0)
    }
}

impl std::error::Error for NotThat {}

/// An execute message as a request to start a subagent.
///
/// # Errors
/// [`NotThat`] if it asks for anything else.
pub fn spawn_request(message: &Message) -> Result<SpawnRequest, NotThat> {
    let envelope = &message.envelope;
    if envelope.intent != Intent::Execute {
        return Err(NotThat(message.key.clone()));
    }
    Ok(SpawnRequest {
        idempotency_key: message.key.clone(),
        child_session: envelope.target_session.clone(),
        requester_session: envelope.source_session.clone(),
        task: envelope.payload.clone().unwrap_or_default(),
        deadline_ms: message.deadline_ms,
    })
}

/// A cancel message as a request to end one.
///
/// # Errors
/// [`NotThat`] if it asks for anything else.
pub fn kill_request(message: &Message) -> Result<KillRequest, NotThat> {
    match message.key.strip_prefix(CANCEL_PREFIX) {
        Some(key) => Ok(KillRequest {
            idempotency_key: key.to_owned(),
            reason: message.envelope.reason.clone(),
        }),
        None => Err(NotThat(message.key.clone())),
    }
}

/// What a spawn says to QM2: the attempt was taken up.
#[must_use]
pub fn ack(execute: &Envelope) -> Envelope {
    reply(execute, Intent::Ack)
}

impl Ended {
    /// The same for every announcement of this end, however often it is tried.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("announce:v1:{}:{}", self.child_session, self.run_id)
    }

    /// What this end says to QM2. A run that may have done something before it was lost has an unknown effect, so that
    /// a step that must not run twice is not run again blindly. `keep` puts a result elsewhere that is longer than
    /// `payload_bytes_max`, which is the configuration's.
    ///
    /// # Errors
    /// Those of `keep`.
    pub fn report<E>(
        &self,
        execute: &Envelope,
        payload_bytes_max: u64,
        keep: impl FnOnce(&[u8]) -> Result<PayloadRef, E>,
    ) -> Result<Envelope, E> {
        let says = || self.error.clone().unwrap_or_default();
        let failed = |class, code, otherwise: &str| {
            let says = self.error.clone().unwrap_or_else(|| otherwise.to_owned());
            Report::failed(class, code, says)
        };
        let mut report = match (self.reason, self.outcome) {
            (EndedReason::SpawnFailed, _) => Report::retryable("spawn-failed", says()),
            (EndedReason::Killed, _) | (_, Outcome::Killed) => {
                failed(FailureClass::Unknown, "subagent-killed", "killed")
            }
            (_, Outcome::Ok) => Report::completed(self.result.clone().unwrap_or_default()),
            (_, Outcome::Error) => failed(FailureClass::Retryable, "subagent-error", "it failed"),
            (_, Outcome::Timeout) => {
                let says = "its time was over";
                failed(FailureClass::Unknown, "subagent-timeout", says)
            }
            (_, Outcome::Reset) => {
                let says = "its session was begun anew";
                failed(FailureClass::Unknown, "session-reset", says)
            }
            (_, Outcome::Deleted) => {
                let says = "its session was deleted";
                failed(FailureClass::Unknown, "session-deleted", says)
            }
        };
        report.bound(payload_bytes_max, keep)?;
        Ok(report.into_envelope(execute))
    }
}
