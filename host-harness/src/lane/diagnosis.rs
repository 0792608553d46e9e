//! Diagnosis: which tasks hold their slots for long, and whether that is as it should be.
//!
//! Recovers nothing; [`super::LaneSet::cancel_session`], [`super::LaneSet::release`] and [`super::LaneSet::reset`] do.

use super::state::State;
use super::task::last_progress;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A task that has held its slot for long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Its number.
    pub task: u64,
    /// Its lane.
    pub lane: String,
    /// Its session, where it has one.
    pub session: Option<String>,
    /// Its key, where it has one.
    pub key: Option<String>,
    /// How long it has held its slot.
    pub held: Duration,
    /// How long it has said nothing.
    pub silent: Duration,
    /// Entries that wait in its lane.
    pub queued: usize,
    /// What that means.
    pub condition: Condition,
}

/// What holding a slot for long means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It gets on.
    LongRunning,
    /// It does not get on.
    Stalled,
    /// It does not get on, and nobody waits for its result any more.
    Stuck,
}

impl Condition {
    /// Whether something should be done about it.
    #[must_use]
    pub fn needs_recovery(self) -> bool {
        self != Self::LongRunning
    }
}

pub(super) fn findings(
    state: &State,
    born: Instant,
    held: Duration,
    silent: Duration,
) -> Vec<Finding> {
    let now = Instant::now();
    let long = |since: Instant| now.saturating_duration_since(since);
    let tasks = state.active().iter();
    tasks
        .filter(|(_, task)| long(task.since) >= held)
        .map(|(&id, task)| {
            let heard = last_progress(&task.link, born).unwrap_or(task.since);
            let is_silent = long(heard) >= silent;
            let condition = match (is_silent, task.link.ownerless.load(Ordering::Relaxed)) {
                (false, _) => Condition::LongRunning,
                (true, false) => Condition::Stalled,
                (true, true) => Condition::Stuck,
            };
            Finding {
                task: id,
                lane: task.lane.to_string(),
                session: task.session.as_deref().map(str::to_owned),
                key: task.key.as_deref().map(str::to_owned),
                held: long(task.since),
                silent: long(heard),
                queued: state.lane(&task.lane).map_or(0, |lane| lane.waiting.len()),
                condition,
            }
        })
        .collect()
}
