//! Timers: what is awaited, and in which order what is due fires.
//!
//! A timer is not state of its own. It follows from the state of a step, a report or a coordination, and this is the
//! index over them; what happens when one fires is decided in [`crate::deadline`].

use crate::event::Name;
use std::collections::BTreeSet;

/// What a timer is for, in the order in which those due at the same time fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerClass {
    Attempt,
    Ack,
    CancelGrace,
    CleanupGrace,
    Plan,
    Report,
    /// Not a timer that fires: a time of which [`crate::slot`] keeps note.
    Slot,
}

impl TimerClass {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Ack => "ack",
            Self::CancelGrace => "cancel_grace",
            Self::CleanupGrace => "cleanup_grace",
            Self::Plan => "plan",
            Self::Report => "report",
            Self::Slot => "slot",
        }
    }
}

/// One awaited time. Declared in the order in which timers fire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    pub(crate) due_ms: u64,
    pub(crate) class: TimerClass,
    pub(crate) coordination: Name,
    /// Empty where the timer is not that of a step.
    pub(crate) step: Name,
    /// The attempt, or the number of the reported record.
    pub(crate) number: u64,
}

/// All awaited times of a domain.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    all: BTreeSet<Timer>,
}

impl Timers {
    pub(crate) fn arm(&mut self, timer: Timer) {
        self.all.insert(timer);
    }

    pub(crate) fn disarm(&mut self, timer: &Timer) {
        self.all.remove(timer);
    }

    /// The timer to fire first at this time.
    pub(crate) fn first_due(&self, now_ms: u64) -> Option<&Timer> {
        self.all.first().filter(|timer| timer.due_ms <= now_ms)
    }

    /// Whether more than `count` timers are due.
    pub(crate) fn more_due_than(&self, count: usize, now_ms: u64) -> bool {
        self.all
            .iter()
            .take(count + 1)
            .take_while(|timer| timer.due_ms <= now_ms)
            .count()
            > count
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.all.first().map(|timer| timer.due_ms)
    }
}
