//! Tasks: entries that were started, the slot that each holds, and how it ends.
//!
//! Does not decide what starts; `state` does.

use super::LaneSet;
use super::entry::{Link, Watch};
use super::error::LaneError;
use super::name;
use super::timeout::overdue;
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A started entry, for its own work; cheap to clone.
#[derive(Clone)]
pub struct Task {
    pub(super) id: u64,
    pub(super) lane: Arc<str>,
    pub(super) set: LaneSet,
    pub(super) link: Arc<Link>,
    pub(super) watch: Option<Arc<Watch>>,
}

/// What a task holds: a slot of its lane, and of its session where it has one. Given back when dropped.
pub(super) struct Slot {
    pub(super) task: Task,
    /// Failures are logged elsewhere.
    pub(super) quiet: bool,
    pub(super) ended: bool,
}

impl Task {
    /// Its number: tasks are counted from 1 as they start.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its lane.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane
    }

    /// Says that the work gets on.
    pub fn progress(&self) {
        let nanos = self.set.shared.born.elapsed().as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        self.link.progress.store(nanos, Ordering::Relaxed);
    }

    /// Whether it is to stop.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        let watch = self.watch.as_ref();
        let signal = watch.and_then(|watch| watch.abort.as_ref());
        self.link.abort.is_raised() || signal.is_some_and(super::Signal::is_raised)
    }

    /// Waits until it is to stop.
    pub async fn aborted(&self) {
        let signal = async {
            match self.watch.as_ref().and_then(|watch| watch.abort.as_ref()) {
                Some(signal) => signal.raised().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.link.abort.raised() => {}
            () = signal => {}
        }
    }

    /// Whether it still holds its slot: a timeout or a reset takes it away.
    #[must_use]
    pub fn has_slot(&self) -> bool {
        self.set.shared.lock().is_active(self.id)
    }

    pub(super) fn last_progress(&self) -> Option<Instant> {
        last_progress(&self.link, self.set.shared.born)
    }
}

pub(super) fn last_progress(link: &Link, born: Instant) -> Option<Instant> {
    match link.progress.load(Ordering::Relaxed) {
        0 => None,
        nanos => born.checked_add(Duration::from_nanos(nanos)),
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

impl Slot {
    /// Enters the work, and leaves the rest of it to the runtime.
    pub(super) fn run<T, W, F>(self, work: W, done: oneshot::Sender<Result<T, LaneError>>)
    where
        T: Send + 'static,
        W: FnOnce(Task) -> F,
        F: Future<Output = Result<T, LaneError>> + Send + 'static,
    {
        let task = self.task.clone();
        let work = catch_unwind(AssertUnwindSafe(|| work(task)));
        let runtime = self.task.set.shared.runtime.clone();
        // A runtime that shuts down drops it at once, with the slot.
        runtime.spawn(self.drive(work, done));
    }

    /// In this order: a failure is logged, the slot is free, the next work has started, the owner is told.
    async fn drive<T>(
        mut self,
        work: thread::Result<impl Future<Output = Result<T, LaneError>>>,
        done: oneshot::Sender<Result<T, LaneError>>,
    ) {
        let result = match work {
            Err(payload) => Err(LaneError::panicked(&*payload)),
            Ok(work) => match self.task.watch.clone() {
                None => caught(work).await,
                Some(watch) => {
                    let mut work = pin!(caught(work));
                    let cause = tokio::select! {
                        biased;
                        result = &mut work => Err(result),
                        cause = overdue(&self.task, &watch) => Ok(cause),
                    };
                    match cause {
                        Err(result) => result,
                        Ok(cause) => {
                            let lane = self.task.lane.to_string();
                            let error = LaneError::TimedOut { lane, cause };
                            self.log("failed", &error);
                            self.task.set.release(self.task.id);
                            let _ = done.send(Err(error));
                            if let Err(error) = work.await {
                                self.log("failed after its slot was taken away", &error);
                            }
                            return;
                        }
                    }
                }
            },
        };
        if let Err(error) = &result {
            self.log("failed", error);
        }
        self.end();
        let _ = done.send(result);
    }

    fn log(&self, what: &str, error: &LaneError) {
        if !self.quiet && !name::is_probe(&self.task.lane) {
            let Task { id, lane, .. } = &self.task;
            tracing::error!("task {id} of lane {lane} {what}: {error}");
        }
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.task.set.give_back(self.task.id, &self.task.lane);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.end();
    }
}

/// The end of work, whatever it is. The work is dropped by then.
async fn caught<T>(work: impl Future<Output = Result<T, LaneError>>) -> Result<T, LaneError> {
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.unwrap_or_else(|payload| Poll::Ready(Err(LaneError::panicked(&*payload))))
    })
    .await
}
