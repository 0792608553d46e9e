//! Entries: work for a lane, how it ranks, what it waits for, and the future of its result.
//!
//! An entry knows nothing of the others; `state` has them in order.

use super::error::LaneError;
use super::signal::{Due, Flag, Signal};
use super::task::{Slot, Task};
use super::timeout::Timeout;
use super::wait::Waited;
use qm2_core::envelope::Priority;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// From this wait on somebody is told, unless the entry says otherwise.
pub const WARN_AFTER: Duration = Duration::from_secs(2);

/// Work for a lane.
///
/// Work is a function that gets a [`Task`] and returns a future. The function is called where the entry is started: with a
/// free slot inside [`super::LaneSet::enqueue`], so it must not block. The future runs on the lanes' runtime.
#[must_use = "nothing runs before it is enqueued"]
pub struct Entry<T> {
    pub(super) begin: Begin,
    pub(super) options: Options,
    pub(super) queued: Queued<T>,
}

/// The result of an entry, once there is one.
///
/// Dropping it stops nothing, but the task has no owner any more, which [`super::LaneSet::diagnose`] counts against it.
/// [`Queued::detach`] is for entries that nobody waits for.
pub struct Queued<T> {
    result: oneshot::Receiver<Result<T, LaneError>>,
    link: Arc<Link>,
    detached: bool,
}

/// Starts the work, or says that it never starts.
pub(super) type Begin = Box<dyn FnOnce(Go) + Send>;

pub(super) enum Go {
    Run(Slot),
    Reject(LaneError),
}

type OnWait = Arc<dyn Fn(&Waited) + Send + Sync>;

/// All of an entry but its work.
pub(super) struct Options {
    pub(super) priority: Priority,
    pub(super) session: Option<Arc<str>>,
    pub(super) key: Option<Arc<str>>,
    pub(super) warn_after: Option<Duration>,
    pub(super) on_wait: Option<OnWait>,
    /// Absent where the entry only runs.
    pub(super) watch: Option<Arc<Watch>>,
    /// Failures are logged elsewhere.
    pub(super) quiet: bool,
    pub(super) link: Arc<Link>,
}

/// What can happen to an entry from outside.
#[derive(Clone, Default)]
pub(super) struct Watch {
    pub(super) timeout: Timeout,
    pub(super) abort: Option<Signal>,
    pub(super) release: Option<Signal>,
}

/// What the owner, the task and the lanes share of an entry.
#[derive(Default)]
pub(super) struct Link {
    /// Place in its lane; 0 before it has one.
    pub(super) number: AtomicU64,
    /// Its own abort, beside the signal that it may share with others.
    pub(super) abort: Flag,
    pub(super) ownerless: AtomicBool,
    /// Nanoseconds from the birth of the lanes to the last progress; 0 before any.
    pub(super) progress: AtomicU64,
}

/// An entry that waits.
pub(super) struct Waiting {
    pub(super) begin: Begin,
    pub(super) options: Options,
    pub(super) since: Instant,
    pub(super) queued_ahead: usize,
    pub(super) active_ahead: usize,
    /// Keeps the call of its signal due while it waits.
    pub(super) due: Option<Due>,
}

impl<T: Send + 'static> Entry<T> {
    /// Work that cannot fail.
    pub fn new<W, F>(work: W) -> Self
    where
        W: FnOnce(Task) -> F + Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        Self::with(move |task| {
            let work = work(task);
            async move { Ok(work.await) }
        })
    }

    /// Work that can fail. Its error is logged, and its owner gets it as [`LaneError::Failed`].
    pub fn fallible<W, F, E>(work: W) -> Self
    where
        W: FnOnce(Task) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::with(move |task| {
            let work = work(task);
            async move { work.await.map_err(|e| LaneError::Failed(e.into())) }
        })
    }

    /// Work that cannot fail and does not care for its [`Task`].
    pub fn of(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self::new(|_| work)
    }

    pub(super) fn with<W, F>(work: W) -> Self
    where
        W: FnOnce(Task) -> F + Send + 'static,
        F: Future<Output = Result<T, LaneError>> + Send + 'static,
    {
        let link = Arc::<Link>::default();
        let (done, result) = oneshot::channel();
        let begin = move |go| match go {
            Go::Run(slot) => slot.run(work, done),
            Go::Reject(error) => {
                // Its owner hears of it even if dropping the work panics.
                let _ = done.send(Err(error));
            }
        };
        Self {
            begin: Box::new(begin),
            queued: Queued {
                result,
                link: link.clone(),
                detached: false,
            },
            options: Options {
                priority: Priority::default(),
                session: None,
                key: None,
                warn_after: Some(WARN_AFTER),
                on_wait: None,
                watch: None,
                quiet: false,
                link,
            },
        }
    }
}

impl<T> Entry<T> {
    /// How it ranks: [`Priority::Critical`] is the foreground, [`Priority::Low`] the background.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// One at a time with everything else of this session, in all lanes. It waits for its session without a slot of its lane.
    pub fn session(mut self, session: &str) -> Self {
        self.options.session = Some(session.into());
        self
    }

    /// A name, by which it is told from others and can be dropped while it waits.
    pub fn key(mut self, key: &str) -> Self {
        self.options.key = Some(key.into());
        self
    }

    /// The wait that is worth a warning; none is never. By default [`WARN_AFTER`].
    pub fn warn_after(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.options.warn_after = wait.into();
        self
    }

    /// Is told of a long wait before it is logged. May not block.
    pub fn on_wait(mut self, told: impl Fn(&Waited) + Send + Sync + 'static) -> Self {
        self.options.on_wait = Some(Arc::new(told));
        self
    }

    /// How long it may keep its slot.
    pub fn timeout(mut self, timeout: Timeout) -> Self {
        self.watch().timeout = timeout;
        self
    }

    /// While it waits, takes it out of its lane when the signal is raised. Later only the work itself hears it, see
    /// [`Task::aborted`], and the grace of its timeout begins.
    pub fn abort_on(mut self, signal: &Signal) -> Self {
        self.watch().abort = Some(signal.clone());
        self
    }

    /// While it runs, takes its slot away when the signal is raised.
    pub fn release_on(mut self, signal: &Signal) -> Self {
        self.watch().release = Some(signal.clone());
        self
    }

    /// Makes it one with another entry of the same work.
    pub(super) fn share(&mut self, link: Arc<Link>) {
        self.queued.link = link.clone();
        self.options.link = link;
    }

    fn watch(&mut self) -> &mut Watch {
        Arc::make_mut(self.options.watch.get_or_insert_default())
    }
}

impl<T> Queued<T> {
    /// Nobody waits for the result, and that is as it should be.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl<T> Future for Queued<T> {
    type Output = Result<T, LaneError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.result).poll(context));
        Poll::Ready(result.unwrap_or(Err(LaneError::Dropped)))
    }
}

impl<T> Drop for Queued<T> {
    fn drop(&mut self) {
        if !self.detached {
            self.link.ownerless.store(true, Ordering::Relaxed);
        }
    }
}

impl<T> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("priority", &self.options.priority)
            .field("session", &self.options.session)
            .field("key", &self.options.key)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Queued<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").finish_non_exhaustive()
    }
}

impl Options {
    /// The signal that takes it out of its lane while it waits.
    pub(super) fn abort(&self) -> Option<&Signal> {
        self.watch.as_ref()?.abort.as_ref()
    }
}
