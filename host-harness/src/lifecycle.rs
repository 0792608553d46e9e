//! The life of subagents as an agent host tells it, and what of it is said to QM2: a spawn is an ack, an end is a report.
//!
//! | a host's own | QM2 |
//! |---|---|
//! | asks for a subagent | an execute message ([`spawn_request`]) |
//! | spawned | ack ([`ack`]) |
//! | ended | report ([`Ended::report`]) |
//! | kill | a cancel message ([`kill_request`]) |
//! | any other message | passes as it is ([`Passage`]) |
//!
//! [`Subagents`] decides when a run has ended, and how: errors have a grace, deadlines are hard, an end counts once. It has
//! no clock and starts nothing; the caller says the time and looks again when [`Subagents::next_due_ms`] has come.

mod passage;
mod run;
mod translation;

pub use self::passage::{BadMessage, Passage, Passed};
pub use self::run::{Ended, RESULT_BYTES_MAX, Spawned, Subagents, UnknownRun};
pub use self::translation::{KillRequest, NotThat, SpawnRequest, ack, kill_request, spawn_request};
use serde::{Deserialize, Serialize};

/// Why a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndedReason {
    /// It came to its end.
    #[serde(rename = "subagent-complete")]
    Complete,
    /// It failed.
    #[serde(rename = "subagent-error")]
    Error,
    /// It was killed.
    #[serde(rename = "subagent-killed")]
    Killed,
    /// It never began.
    #[serde(rename = "spawn-failed")]
    SpawnFailed,
}

/// What came of a run. Hooks also know sessions that were reset or deleted under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did what it was to do.
    Ok,
    /// It failed.
    Error,
    /// Its time was over.
    Timeout,
    /// It was killed.
    Killed,
    /// Its session was begun anew.
    Reset,
    /// Its session was deleted.
    Deleted,
}

impl Outcome {
    /// The outcome of a run whose status a host names: `error` and `timeout` are what they say, anything else is ok.
    #[must_use]
    pub fn of_status(status: &str) -> Self {
        match status {
            "error" => Self::Error,
            "timeout" => Self::Timeout,
            _ => Self::Ok,
        }
    }
}

/// What kind of agent a run is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// A subagent of the host itself.
    Subagent,
    /// An agent behind the agent client protocol.
    Acp,
}

/// What a run says of itself on the lifecycle stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "phase",
    rename_all = "lowercase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Phase {
    /// It begins, or goes on after all.
    Start {
        /// When, in milliseconds since the Unix epoch.
        started_at: u64,
    },
    /// It is over.
    End {
        /// When.
        ended_at: u64,
        /// It did not come to its own end.
        #[serde(default)]
        aborted: bool,
        /// Why it stopped; `abort` says that somebody ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop_reason: Option<String>,
        /// It only waits for something and goes on later.
        #[serde(default)]
        yielded: bool,
        /// Nothing can make it go on.
        #[serde(default)]
        blocked: bool,
    },
    /// It failed, unless it is tried again at once.
    Error {
        /// When.
        ended_at: u64,
        /// What went wrong.
        error: String,
    },
}
