//! Why an entry of a lane has no result.
//!
//! Wrong set-ups of capacity groups are in `group`.

use super::timeout::TimeoutCause;
use std::any::Any;
use std::error::Error;
use std::fmt;

/// Why an entry has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum LaneError {
    /// Its lane was cleared before it started.
    Cleared {
        /// The lane.
        lane: String,
    },
    /// The host drains and takes nothing new.
    Draining,
    /// It was aborted, dropped by its key, or its session was cancelled, before it started.
    Aborted {
        /// The lane.
        lane: String,
    },
    /// It ran out of time. Its slot is free again; the work may still go on.
    TimedOut {
        /// The lane.
        lane: String,
        /// Which time it was.
        cause: TimeoutCause,
    },
    /// The work failed; this is its own error.
    Failed(Box<dyn Error + Send + Sync>),
    /// The work panicked.
    Panicked {
        /// What it said.
        message: String,
    },
    /// The work is gone: its runtime shut down, or the lanes were dropped while it waited.
    Dropped,
}

impl LaneError {
    pub(super) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let said = payload.downcast_ref::<&str>().copied();
        let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked {
            message: said.unwrap_or("without a message").to_owned(),
        }
    }
}

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cleared { lane } => write!(f, "lane {lane} was cleared"),
            Self::Draining => f.write_str("the host drains and takes nothing new"),
            Self::Aborted { lane } => write!(f, "aborted while waiting in lane {lane}"),
            Self::TimedOut { lane, cause } => write!(f, "timed out in lane {lane}: {cause}"),
            Self::Failed(error) => error.fmt(f),
            Self::Panicked { message } => write!(f, "the work panicked: {message}"),
            Self::Dropped => f.write_str("the work was dropped"),
        }
    }
}

impl Error for LaneError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // Its own words are said above.
            Self::Failed(error) => error.source(),
            _ => None,
        }
    }
}
