//! Waits that were long: what an entry had before it and behind it, and what ended its wait.
//!
//! Said once the wait is over. What waits or runs too long right now is a matter of `diagnosis`.

use std::fmt;
use std::time::Duration;

/// A wait that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waited {
    /// The lane.
    pub lane: String,
    /// The entry's key, where it has one.
    pub key: Option<String>,
    /// How long it waited.
    pub waited: Duration,
    /// Entries that waited in the lane when it came.
    pub queued_ahead: usize,
    /// Entries that ran in the lane when it came.
    pub active_ahead: usize,
    /// Other entries that run in the lane as it starts.
    pub active_now: usize,
    /// Entries that it leaves behind.
    pub queued_behind: usize,
    /// What it waited for last.
    pub blocker: Blocker,
}

/// What kept an entry from starting, until that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blocker {
    /// A task that held its lane, its session or the budget of its group, and gave it back.
    Task {
        /// Its number.
        id: u64,
        /// Its lane.
        lane: String,
        /// Its session, where it has one.
        session: Option<String>,
        /// Its key, where it has one.
        key: Option<String>,
        /// How long it held its slot.
        held: Duration,
    },
    /// The lane was paused or narrower.
    Width,
    /// Tasks that kept their slots until a reset took them away.
    Reset,
    /// Nothing: it could start at once.
    Nothing,
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane wait exceeded: ")?;
        if let Some(key) = &self.key {
            write!(f, "{key} ")?;
        }
        write!(
            f,
            "waited {} ms in {}, queued ahead {}, active ahead {}, active now {}, queued behind {}; {}",
            self.waited.as_millis(),
            self.lane,
            self.queued_ahead,
            self.active_ahead,
            self.active_now,
            self.queued_behind,
            self.blocker
        )
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task {
                id,
                lane,
                session,
                key,
                held,
            } => {
                write!(f, "it waited for task {id}")?;
                if let Some(key) = key {
                    write!(f, " ({key})")?;
                }
                write!(f, " in {lane}")?;
                if let Some(session) = session {
                    write!(f, " of session {session}")?;
                }
                write!(f, ", which held its slot for {} ms", held.as_millis())
            }
            Self::Width => f.write_str("it waited for a wider lane"),
            Self::Reset => f.write_str("it waited for tasks that a reset released"),
            Self::Nothing => f.write_str("nothing held it up"),
        }
    }
}
