//! Lanes: how much runs at once, and in which order. Usable without QM2: needs a tokio runtime and nothing else.
//!
//! A lane starts its entries by priority, first come first served within one, up to its width; who waits for 30 s rises a
//! priority, at most to high, so that [`Priority::Critical`] stays a foreground that nothing grows into. Under the lanes lies
//! one lane a session, width 1: an entry with a session waits for it without holding a slot of its lane. Nothing is kept over
//! a restart, and nothing of a lane or session that is idle and as wide as any: memory is flat.
//!
//! Entries must not wait inside a lane for another entry of it. `tests/PRIMITIVES.md` has it all row by row.
//!
//! ```
//! use qm2_host::lane::{Entry, LaneError, LaneSet, Priority, Timeout};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), LaneError> {
//! let lanes = LaneSet::new(tokio::runtime::Handle::current());
//! lanes.set_width("builds", 2);
//! let build = Entry::new(|task| async move {
//!     task.progress();
//!     task.id()
//! });
//! let build = build
//!     .priority(Priority::High)
//!     .session("repository")
//!     .timeout(Timeout::idle(Duration::from_secs(60)));
//! assert_eq!(lanes.enqueue("builds", build).await?, 1);
//! # Ok(())
//! # }
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `entry`, `task` | work before and after its start |
//! | `state`, `session`, `group` | who is next |
//! | `signal`, `timeout` | what ends a wait or takes a slot away |
//! | `wait`, `diagnosis` | what took long and why |
//! | [`name`] | names that hosts have in common, and widths |

mod diagnosis;
mod entry;
mod error;
mod group;
pub mod name;
mod session;
mod signal;
mod state;
mod task;
mod timeout;
mod wait;

pub use self::diagnosis::{Condition, Finding};
pub use self::entry::{Entry, Queued, WARN_AFTER};
pub use self::error::LaneError;
pub use self::group::GroupError;
pub use self::signal::Signal;
pub use self::task::Task;
pub use self::timeout::{Timeout, TimeoutCause};
pub use self::wait::{Blocker, Waited};
pub use qm2_core::envelope::Priority;

use self::entry::{Go, Waiting};
use self::group::Group;
use self::state::{Started, State};
use self::task::Slot;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Lanes and what they run; cheap to clone, and all clones are the same lanes.
#[derive(Clone)]
pub struct LaneSet {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    runtime: Handle,
    born: Instant,
}

/// How many things lanes keep in memory. Back to what it was when everything is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Lanes that are in use, wider or narrower than 1, or in a group.
    pub lanes: usize,
    /// Sessions of which something waits or runs.
    pub sessions: usize,
    /// Entries that wait.
    pub waiting: usize,
    /// Those of them that have a key.
    pub keys: usize,
    /// Tasks that hold a slot.
    pub active: usize,
    /// Tasks at work whose slot was taken away.
    pub at_large: usize,
}

/// What [`LaneSet::cancel_session`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// Entries that waited, and never start.
    pub dropped: usize,
    /// Tasks at work, which were told to stop.
    pub aborted: usize,
}

impl LaneSet {
    /// Lanes that run their work on a runtime. It needs time enabled where entries have timeouts.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                runtime,
                born: Instant::now(),
            }),
        }
    }

    /// Lanes as wide as agent hosts have them, see [`name::default_width`].
    #[must_use]
    pub fn with_default_widths(runtime: Handle) -> Self {
        let set = Self::new(runtime);
        for lane in [name::MAIN, name::SUBAGENT] {
            set.set_width(lane, name::default_width(lane));
        }
        set
    }

    /// Puts an entry into a lane. With a free slot its work is entered before this returns, except from within the entering
    /// of another, which is ended first. A lane that nobody has named yet has width 1; a blank name means `main`.
    ///
    /// A host's own message goes into a lane exactly as it would without QM2, with the feature gate on or off.
    pub fn enqueue<T>(&self, lane: &str, entry: Entry<T>) -> Queued<T> {
        self.push(lane, entry, false)
    }

    /// Puts a turn of a session into a lane: first into the session's own, one at a time, and from its slot there into
    /// `lane`. It also excludes everything else of the session, as [`Entry::session`] does.
    pub fn enqueue_turn<T: Send + 'static>(
        &self,
        session: &str,
        lane: &str,
        entry: Entry<T>,
    ) -> Queued<T> {
        let entry = entry.session(session);
        let lane = lane.to_owned();
        let options = &entry.options;
        let (priority, warn_after) = (options.priority, options.warn_after);
        let (key, on_wait) = (options.key.clone(), options.on_wait.clone());
        let abort = options.abort().cloned();
        // One owner, one abort and one progress in both lanes.
        let link = options.link.clone();
        // Whoever was let in is let through, though the host may drain meanwhile.
        let mut turn =
            Entry::with(move |task| async move { task.set.push(&lane, entry, true).await });
        turn.share(link);
        turn.options.priority = priority;
        turn.options.warn_after = warn_after;
        (turn.options.key, turn.options.on_wait) = (key, on_wait);
        // Logged where it happens.
        turn.options.quiet = true;
        if let Some(signal) = abort {
            turn = turn.abort_on(&signal);
        }
        self.push(&name::session(session), turn, false)
    }

    /// Sets how many entries of a lane run at once; 0 pauses it. What runs already is never stopped. Lanes of probes keep at
    /// least 1.
    pub fn set_width(&self, lane: &str, width: usize) {
        let lane = name::normal(lane);
        let width = width.max(usize::from(name::is_probe(lane)));
        let mut state = self.shared.lock();
        state.set_width(lane, width);
        self.start_ready(state);
    }

    /// Lets lanes share a budget: a member has its reserved slots always, and more while others leave some. The next entry
    /// across members is that of the highest priority, then the oldest.
    ///
    /// # Errors
    /// [`GroupError`] if reservations do not fit, a lane is in a group already, could never start anything, or is one that a
    /// running task may be waiting for.
    pub fn add_group<L: AsRef<str>>(
        &self,
        group: &str,
        budget: usize,
        members: impl IntoIterator<Item = (L, usize)>,
    ) -> Result<(), GroupError> {
        let mut reserved = BTreeMap::<Arc<str>, usize>::new();
        for (lane, own) in members {
            let lane = name::normal(lane.as_ref());
            if reserved.insert(lane.into(), own).is_some() {
                let lane = lane.to_owned();
                return Err(GroupError::Member { lane });
            }
        }
        let added = Group::new(group, budget, reserved)?;
        let mut state = self.shared.lock();
        if state.has_group(group) {
            let group = group.to_owned();
            return Err(GroupError::Exists { group });
        }
        let members = added.members();
        if let Some(lane) = members.iter().find(|lane| state.is_in_group(lane)) {
            let lane = lane.to_string();
            return Err(GroupError::Member { lane });
        }
        state.add_group(group, added);
        self.start_ready(state);
        Ok(())
    }

    /// Takes out everything that waits in a lane; its owners get [`LaneError::Cleared`] in the order of their coming. Returns
    /// how many. What runs is not touched.
    pub fn clear(&self, lane: &str) -> usize {
        let lane = name::normal(lane);
        let cleared = self.shared.lock().clear(lane);
        let count = cleared.len();
        for waiting in cleared {
            let lane = lane.to_owned();
            waiting.reject(LaneError::Cleared { lane });
        }
        count
    }

    /// Takes out what waits under a key, in any lane; its owners get [`LaneError::Aborted`]. Returns how many.
    pub fn drop_waiting(&self, key: &str) -> usize {
        let dropped = self.shared.lock().remove_by_key(key);
        abort_all(dropped)
    }

    /// Drops what waits of a session, then tells what runs of it to stop, see [`Task::aborted`].
    pub fn cancel_session(&self, session: &str) -> Cancelled {
        let waiting = self.shared.lock().remove_of_session(session);
        // A turn shares one link between its session's lane and the other.
        let link = |(_, waiting): &(_, Waiting)| waiting.options.link.clone();
        let mut links: Vec<_> = waiting.iter().map(link).collect();
        let dropped = abort_all(waiting);
        let state = self.shared.lock();
        for id in state.active_of_session(session) {
            let task = state.active().get(&id);
            let new = task.filter(|task| !links.iter().any(|link| Arc::ptr_eq(link, &task.link)));
            links.extend(new.map(|task| task.link.clone()));
        }
        drop(state);
        for link in &links {
            link.abort.raise();
        }
        let aborted = links.len() - dropped;
        Cancelled { dropped, aborted }
    }

    /// Takes the slots of all tasks of a lane, which go on without, and starts what waits there. Returns how many.
    pub fn reset(&self, lane: &str) -> usize {
        let mut state = self.shared.lock();
        let released = state.reset(name::normal(lane));
        self.start_ready(state);
        released
    }

    /// [`LaneSet::reset`] of all lanes, before any of them starts something, and the end of draining. Returns how many slots
    /// it took.
    pub fn reset_all(&self) -> usize {
        let mut state = self.shared.lock();
        let released = state.reset_all();
        state.draining = false;
        self.start_ready(state);
        released
    }

    /// Takes the slot of one task, which goes on without; false if it has none any more.
    pub fn release(&self, task: u64) -> bool {
        let mut state = self.shared.lock();
        let released = state.take_away(task);
        self.start_ready(state);
        released
    }

    /// From now on nothing new is taken: owners get [`LaneError::Draining`]. What waits still runs.
    pub fn begin_draining(&self) {
        self.shared.lock().draining = true;
    }

    /// Whether nothing new is taken.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.lock().draining
    }

    /// Waits until none of the tasks that hold a slot now holds it any more; false if that takes longer.
    pub fn wait_for_active(&self, timeout: Duration) -> impl Future<Output = bool> + Send + use<> {
        // Now, and not when it is first polled.
        let drained = self.shared.lock().when_drained();
        async move {
            match drained {
                None => true,
                Some(_) if timeout.is_zero() => false,
                Some(drained) => tokio::time::timeout(timeout, drained).await.is_ok(),
            }
        }
    }

    /// Entries of a lane that wait or run.
    #[must_use]
    pub fn len(&self, lane: &str) -> usize {
        let state = self.shared.lock();
        let lane = state.lane(name::normal(lane));
        lane.map_or(0, |lane| lane.active.len() + lane.waiting.len())
    }

    /// Whether no entry of a lane waits or runs.
    #[must_use]
    pub fn is_empty(&self, lane: &str) -> bool {
        self.len(lane) == 0
    }

    /// Entries of all lanes that wait or run.
    #[must_use]
    pub fn len_total(&self) -> usize {
        let kept = self.kept();
        kept.active + kept.waiting
    }

    /// Tasks of all lanes that hold a slot.
    #[must_use]
    pub fn active_count(&self) -> usize {
        self.shared.lock().active().len()
    }

    /// Lanes in which a task holds a slot, by name.
    #[must_use]
    pub fn active_lanes(&self) -> Vec<String> {
        let state = self.shared.lock();
        let lanes = state.lanes().filter(|(_, lane)| !lane.active.is_empty());
        let mut names: Vec<String> = lanes.map(|(name, _)| name.to_string()).collect();
        names.sort();
        names
    }

    /// How wide a lane is.
    #[must_use]
    pub fn width(&self, lane: &str) -> usize {
        let state = self.shared.lock();
        state.lane(name::normal(lane)).map_or(1, |lane| lane.width)
    }

    /// How often a lane was reset since it was made. An idle lane that is nothing special is made anew when it is next used.
    #[must_use]
    pub fn generation(&self, lane: &str) -> u64 {
        let state = self.shared.lock();
        state
            .lane(name::normal(lane))
            .map_or(0, |lane| lane.generation)
    }

    /// What is kept in memory.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let state = self.shared.lock();
        let mut kept = Kept {
            sessions: state.session_count(),
            keys: state.key_count(),
            ..Kept::default()
        };
        for (_, lane) in state.lanes() {
            kept.lanes += 1;
            kept.waiting += lane.waiting.len();
            kept.active += lane.active.len();
            kept.at_large += lane.at_large;
        }
        kept
    }

    /// Tasks that have held their slots at least so long, oldest first, and whether they said something in the last `silent`.
    #[must_use]
    pub fn diagnose(&self, held: Duration, silent: Duration) -> Vec<Finding> {
        let state = self.shared.lock();
        diagnosis::findings(&state, self.shared.born, held, silent)
    }

    fn push<T>(&self, lane: &str, entry: Entry<T>, is_let_in: bool) -> Queued<T> {
        let lane = name::normal(lane);
        let Entry {
            begin,
            options,
            queued,
        } = entry;
        let signal = options.abort().cloned();
        let due = signal.as_ref().map(|signal| {
            let (shared, link) = (Arc::downgrade(&self.shared), options.link.clone());
            let lane = lane.to_owned();
            signal.on_raise(move || {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                let number = link.number.load(Ordering::Acquire);
                let aborted = shared.lock().remove(&lane, number);
                if let Some(waiting) = aborted {
                    waiting.reject(LaneError::Aborted { lane });
                }
            })
        });
        let waiting = Waiting {
            begin,
            options,
            since: Instant::now(),
            queued_ahead: 0,
            active_ahead: 0,
            due,
        };
        let mut state = self.shared.lock();
        if state.draining && !is_let_in {
            drop(state);
            waiting.reject(LaneError::Draining);
            return queued;
        }
        // Asked under the lock: a signal that is raised from here on finds the entry in its lane.
        if signal.is_some_and(|signal| signal.is_raised()) {
            drop(state);
            let lane = lane.to_owned();
            waiting.reject(LaneError::Aborted { lane });
            return queued;
        }
        state.push(lane, waiting);
        self.start_ready(state);
        queued
    }

    /// Starts everything that may start, and tells those who waited for the end of tasks. Not under the lock: all of that runs
    /// code of others. Nor from within itself, however deep: what a task does while it is entered, or a runtime that shuts
    /// down and drops whatever it gets, only leaves more to the loop that is at it already.
    fn start_ready<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        let thread = thread::current().id();
        if state.starting.contains(&thread) {
            return;
        }
        state.starting.push(thread);
        let mut starting = Starting {
            shared: &self.shared,
            is_at_it: true,
        };
        loop {
            let started = state.start_next();
            let drained = std::mem::take(&mut state.drained);
            if started.is_none() && drained.is_empty() {
                state.starting.retain(|starting| *starting != thread);
                starting.is_at_it = false;
                return;
            }
            drop(state);
            if let Some(started) = started {
                self.start(started);
            }
            for waiter in drained {
                let _ = waiter.send(());
            }
            state = self.shared.lock();
        }
    }

    fn start(&self, started: Started) {
        let Waiting {
            begin,
            options,
            due,
            ..
        } = started.waiting;
        let slot = Slot {
            task: Task {
                id: started.id,
                lane: started.lane,
                set: self.clone(),
                link: options.link,
                watch: options.watch,
            },
            quiet: options.quiet,
            ended: false,
        };
        drop(due);
        if let Some(waited) = started.waited {
            if let Some(on_wait) = options.on_wait
                && catch_unwind(AssertUnwindSafe(|| on_wait(&waited))).is_err()
            {
                tracing::error!("who is told of waits in lane {} panicked", waited.lane);
            }
            tracing::warn!("{waited}");
        }
        begin(Go::Run(slot));
    }

    fn give_back(&self, id: u64, lane: &Arc<str>) {
        let mut state = self.shared.lock();
        state.end(id, lane);
        self.start_ready(state);
    }
}

impl fmt::Debug for LaneSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSet")
            .field("kept", &self.kept())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn reject(self, error: LaneError) {
        let Self { begin, due, .. } = self;
        drop(due);
        begin(Go::Reject(error));
    }
}

/// This thread starts entries. Drops the mark of that if code of others panics where it must not.
struct Starting<'a> {
    shared: &'a Shared,
    is_at_it: bool,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if self.is_at_it {
            let thread = thread::current().id();
            let mut state = self.shared.lock();
            state.starting.retain(|starting| *starting != thread);
        }
    }
}

fn abort_all(dropped: Vec<(Arc<str>, Waiting)>) -> usize {
    let count = dropped.len();
    for (lane, waiting) in dropped {
        let lane = lane.to_string();
        waiting.reject(LaneError::Aborted { lane });
    }
    count
}
