//! How long a task may keep its slot.
//!
//! A slot is taken away, never the work: that may go on, and what it says then is only logged.

use super::entry::Watch;
use super::task::Task;
use std::fmt;
use std::future::pending;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a task may keep its slot; by default for ever. A time of zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeout {
    /// From its start.
    pub task: Option<Duration>,
    /// From its last progress, or its start before any.
    pub idle: Option<Duration>,
    /// From its abort; where this is absent, as long as `task`, else as long as `idle`.
    pub abort_grace: Option<Duration>,
}

/// Which time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutCause {
    /// The time of the whole task.
    TaskBudget,
    /// The time without progress.
    ProgressIdle,
    /// The time to stop after an abort.
    AbortGrace,
    /// The entry's release signal was raised.
    ReleaseSignal,
}

impl Timeout {
    /// One for the whole task.
    #[must_use]
    pub fn task(limit: Duration) -> Self {
        Self {
            task: Some(limit),
            ..Self::default()
        }
    }

    /// One for its silence.
    #[must_use]
    pub fn idle(limit: Duration) -> Self {
        Self {
            idle: Some(limit),
            ..Self::default()
        }
    }

    fn grace(&self) -> Option<Duration> {
        let set = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        set(self.abort_grace).or(set(self.task)).or(set(self.idle))
    }
}

impl fmt::Display for TimeoutCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TaskBudget => "task-budget",
            Self::ProgressIdle => "progress-idle",
            Self::AbortGrace => "abort-grace",
            Self::ReleaseSignal => "release-signal",
        })
    }
}

/// Waits until a task has to give its slot back.
pub(super) async fn overdue(task: &Task, watch: &Watch) -> TimeoutCause {
    let timeout = &watch.timeout;
    tokio::select! {
        // Of two that end at once always the same.
        biased;
        () = raised(watch) => TimeoutCause::ReleaseSignal,
        () = over(timeout.task) => TimeoutCause::TaskBudget,
        () = silent(task, timeout.idle) => TimeoutCause::ProgressIdle,
        () = async { task.aborted().await; over(timeout.grace()).await } => TimeoutCause::AbortGrace,
    }
}

async fn raised(watch: &Watch) {
    match &watch.release {
        Some(signal) => signal.raised().await,
        None => pending().await,
    }
}

async fn over(limit: Option<Duration>) {
    match limit {
        Some(limit) if !limit.is_zero() => sleep(limit).await,
        _ => pending().await,
    }
}

async fn silent(task: &Task, limit: Option<Duration>) {
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return pending().await;
    };
    let started = Instant::now();
    loop {
        let heard = task.last_progress().unwrap_or(started);
        match heard.checked_add(limit) {
            Some(at) if at > Instant::now() => sleep_until(at).await,
            Some(_) => return,
            None => return pending().await,
        }
    }
}
