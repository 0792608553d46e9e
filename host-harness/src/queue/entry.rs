//! What lies in the queue: entries on their way, dead letters, and the bounds of both.
//!
//! Keeps nothing; `table` does.

use super::policy;
use crate::error::{HostError, Result};
use serde::Serialize;
use std::fmt;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest name of a channel, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 128;
/// Longest name of a recipient, in bytes.
pub const TARGET_BYTES_MAX: usize = 512;
/// Largest payload, in bytes: an envelope with the largest payload and all its tokens fits.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest error that is kept, in bytes; a longer one is cut.
pub const ERROR_BYTES_MAX: usize = 1024;

/// Channel of the entries that belong to attempts of steps. Only the domain sends them.
pub const COORDINATION: &str = "coordination";

/// What is to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct NewEntry {
    pub(super) key: Option<String>,
    pub(super) channel: String,
    pub(super) target: String,
    pub(super) payload: String,
    pub(super) deadline_ms: Option<u64>,
}

impl NewEntry {
    /// A payload, which is kept as it is, for a recipient that a channel knows.
    pub fn new(
        channel: impl Into<String>,
        target: impl Into<String>,
        payload: impl Into<String>,
    ) -> Self {
        Self {
            key: None,
            channel: channel.into(),
            target: target.into(),
            payload: payload.into(),
            deadline_ms: None,
        }
    }

    /// Sets the idempotency key: the same key again is the same entry, also for a time after it was settled. Without it the
    /// entry gets a random one.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the time in milliseconds since the epoch from which on it is not sent any more.
    pub fn deadline_ms(mut self, at_ms: u64) -> Self {
        self.deadline_ms = Some(at_ms);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let key = self.key.as_deref();
        let fields = [
            ("key", key.unwrap_or("-"), KEY_BYTES_MAX),
            ("channel", &self.channel, CHANNEL_BYTES_MAX),
            ("target", &self.target, TARGET_BYTES_MAX),
            ("payload", &self.payload, PAYLOAD_BYTES_MAX),
        ];
        for (name, text, bytes_max) in fields {
            let (bytes, least) = (text.len(), usize::from(name != "payload"));
            if !(least..=bytes_max).contains(&bytes) {
                let key: String = key.unwrap_or_default().chars().take(64).collect();
                let message =
                    format!("its {name} has {bytes} bytes; {least} to {bytes_max} are allowed");
                return Err(HostError::Entry { key, message });
            }
        }
        Ok(())
    }
}

/// What is known of the send of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SendState {
    /// Nothing was sent.
    None,
    /// A send was begun; whether it came through is not known.
    SendStarted,
    /// It, or some of it, may well be with the recipient.
    UnknownAfterSend,
}

impl SendState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::SendStarted, Self::UnknownAfterSend];

    /// Its name in JSON, and in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SendStarted => "send_started",
            Self::UnknownAfterSend => "unknown_after_send",
        }
    }
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The caller's idempotency key, or a random one.
    pub key: String,
    /// Which adapter sends it.
    pub channel: String,
    /// Whom the adapter sends it to.
    pub target: String,
    /// What is sent, as it was given.
    pub payload: String,
    /// When it was put here.
    pub enqueued_at_ms: u64,
    /// How often it has failed.
    pub retry_count: u32,
    /// When it last failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt_at_ms: Option<u64>,
    /// Why it last failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What is known of its send.
    pub state: SendState,
    /// From then on it is not sent any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

impl Entry {
    /// When it may be tried next: at once as long as it has not failed, else after its wait.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        if self.retry_count == 0 && self.last_attempt_at_ms.is_none() {
            return 0;
        }
        let since = self.last_attempt_at_ms.unwrap_or(self.enqueued_at_ms);
        let wait = policy::wait(u64::from(self.retry_count) + 1);
        since.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether its deadline has come.
    #[must_use]
    pub fn is_late(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }
}

/// Why an entry was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It has failed as often as it may.
    MaxRetries,
    /// The channel said that it can never be delivered.
    Permanent,
    /// Its deadline has come.
    Deadline,
    /// It may have been sent, and nobody can say whether it was.
    Unresolved,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::MaxRetries,
        Self::Permanent,
        Self::Deadline,
        Self::Unresolved,
    ];

    /// Its name in JSON, and in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxRetries => "max_retries",
            Self::Permanent => "permanent",
            Self::Deadline => "deadline",
            Self::Unresolved => "unresolved",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxRetries => "it has failed as often as it may",
            Self::Permanent => "the channel can never deliver it",
            Self::Deadline => "its deadline has passed",
            Self::Unresolved => "it may have been sent, and nobody can say whether it was",
        })
    }
}

/// An entry that was given up. It stays until somebody replays or drops it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadEntry {
    /// As it was last.
    #[serde(flatten)]
    pub entry: Entry,
    /// When it was given up.
    pub died_at_ms: u64,
    /// Why.
    pub reason: Reason,
}

/// What came of putting an entry into the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// Its key.
    pub key: String,
    /// Whether it was new, or else where its key is already.
    pub place: Place,
}

/// Where a key was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere before: it is new.
    New,
    /// In the queue.
    Waiting,
    /// Among the dead letters.
    Dead,
    /// It was acked, withdrawn or dropped.
    Settled,
}
