//! Lanes: how much runs at once, and in which order.
//!
//! A lane starts its entries by priority, first come first served within one, up to its width. Under the lanes lies one lane a
//! session, width 1: an entry with a session waits for it without holding a slot of its lane. Nothing is kept over a
//! restart; the durable queue is. Entries must not wait inside a lane for another entry of it.

pub use crate::agents_file::Lanes;
use qm2_core::envelope::Priority;
use qm2_core::limit::AGEING_MS;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

const PRIORITIES: [Priority; 4] = [
    Priority::Low,
    Priority::Normal,
    Priority::High,
    Priority::Critical,
];

/// What a lane runs; cheap to clone.
#[derive(Clone)]
pub struct LaneSet {
    state: Arc<Mutex<State>>,
    runtime: Handle,
}

/// An entry of a lane; resolves when its work is done, and to nothing if it was dropped before it started.
pub type Queued<T> = oneshot::Receiver<T>;

#[derive(Default)]
struct State {
    lanes: BTreeMap<String, Lane>,
    sessions_at_work: HashSet<String>,
    entries_made: u64,
    /// Somebody starts entries; who frees a slot meanwhile leaves it to them.
    draining: bool,
}

struct Lane {
    width: usize,
    active: usize,
    /// By priority and number. Within one priority who came first is also who has risen furthest.
    waiting: BTreeMap<(Priority, u64), Entry>,
}

struct Entry {
    since: Instant,
    session: Option<String>,
    key: Option<String>,
    start: Box<dyn FnOnce(Slot) + Send>,
}

/// A slot of a lane, and of a session where the entry has one; given back when dropped.
struct Slot {
    set: LaneSet,
    lane: String,
    session: Option<String>,
}

impl LaneSet {
    pub(crate) fn new(widths: Lanes, runtime: Handle) -> Self {
        let set = Self {
            state: Arc::default(),
            runtime,
        };
        set.set_width("control", widths.control);
        set.set_width("data", widths.data);
        set.set_width("escalation", widths.escalation);
        set
    }

    /// Puts a host's own message, which has no envelope, into a lane. It goes there exactly as it would without QM2, with
    /// the feature gate on or off. A lane that nobody has named yet has width 1; a blank name means `main`.
    pub fn enqueue<T: Send + 'static>(
        &self,
        lane: &str,
        priority: Priority,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Queued<T> {
        self.push(lane, priority, None, None, work)
    }

    /// As [`LaneSet::enqueue`], and also one at a time with everything else of this session, steps included.
    pub fn enqueue_for_session<T: Send + 'static>(
        &self,
        lane: &str,
        session: &str,
        priority: Priority,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Queued<T> {
        self.push(lane, priority, Some(session.to_owned()), None, work)
    }

    /// Sets how many entries of a lane run at once, at least 1. What runs already is never stopped.
    pub fn set_width(&self, lane: &str, width: usize) {
        self.lock().lane(name(lane)).width = width.max(1);
        self.drain();
    }

    /// Entries of a lane that wait or run.
    #[must_use]
    pub fn len(&self, lane: &str) -> usize {
        let state = self.lock();
        state
            .lanes
            .get(name(lane))
            .map_or(0, |lane| lane.active + lane.waiting.len())
    }

    /// Whether no entry of a lane waits or runs.
    #[must_use]
    pub fn is_empty(&self, lane: &str) -> bool {
        self.len(lane) == 0
    }

    /// Work of a message, which can be dropped by its key while it waits.
    pub(crate) fn enqueue_message(
        &self,
        lane: &str,
        session: &str,
        priority: Priority,
        key: &str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let (session, key) = (Some(session.to_owned()), Some(key.to_owned()));
        drop(self.push(lane, priority, session, key, work));
    }

    /// Drops the waiting entry of a key; false if none waits.
    pub(crate) fn drop_waiting(&self, key: &str) -> bool {
        let mut dropped = Vec::new();
        for lane in self.lock().lanes.values_mut() {
            let mut waiting = lane.waiting.iter();
            let found = waiting.find(|(_, entry)| entry.key.as_deref() == Some(key));
            let found = found.map(|(place, _)| *place);
            dropped.extend(found.and_then(|place| lane.waiting.remove(&place)));
        }
        // Dropped outside the lock: the work may hold anything.
        !dropped.is_empty()
    }

    fn push<T: Send + 'static>(
        &self,
        lane: &str,
        priority: Priority,
        session: Option<String>,
        key: Option<String>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Queued<T> {
        let (done, queued) = oneshot::channel();
        let runtime = self.runtime.clone();
        let start = Box::new(move |slot: Slot| {
            runtime.spawn(async move {
                let result = work.await;
                // The slot first, so that who waits for the result finds it free. A panic gives it back too.
                drop(slot);
                let _ = done.send(result);
            });
        });
        let mut state = self.lock();
        state.entries_made += 1;
        let number = state.entries_made;
        let since = Instant::now();
        let entry = Entry {
            since,
            session,
            key,
            start,
        };
        let waiting = &mut state.lane(name(lane)).waiting;
        waiting.insert((priority, number), entry);
        drop(state);
        self.drain();
        queued
    }

    /// Starts everything that may start. Never under the lock: starting may drop, and dropping gives slots back. Nor from
    /// within itself: a runtime that shuts down drops at once whatever is started, one entry after another.
    fn drain(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.draining, true) {
            return;
        }
        while let Some((lane, entry)) = state.next() {
            drop(state);
            let slot = Slot {
                set: self.clone(),
                lane,
                session: entry.session,
            };
            (entry.start)(slot);
            state = self.lock();
        }
        state.draining = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.set.lock();
        if let Some(lane) = state.lanes.get_mut(&self.lane) {
            lane.active -= 1;
        }
        if let Some(session) = &self.session {
            state.sessions_at_work.remove(session);
        }
        drop(state);
        self.set.drain();
    }
}

impl State {
    fn lane(&mut self, name: &str) -> &mut Lane {
        self.lanes.entry(name.to_owned()).or_insert_with(|| Lane {
            width: 1,
            active: 0,
            waiting: BTreeMap::new(),
        })
    }

    /// Takes the next entry that may start, with its slots.
    fn next(&mut self) -> Option<(String, Entry)> {
        let sessions = &self.sessions_at_work;
        let now = Instant::now();
        for (name, lane) in &mut self.lanes {
            if lane.active >= lane.width {
                continue;
            }
            let free = |entry: &Entry| entry.session.as_ref().is_none_or(|s| !sessions.contains(s));
            let first = |priority| {
                let mut waiting = lane.waiting.range((priority, 0)..=(priority, u64::MAX));
                let (place, entry) = waiting.find(|(_, entry)| free(entry))?;
                Some((Reverse(entry.tier(priority, now)), place.1, *place))
            };
            let best = PRIORITIES.into_iter().filter_map(first).min();
            let entry = best.and_then(|(_, _, place)| lane.waiting.remove(&place));
            if let Some(entry) = entry {
                lane.active += 1;
                let name = name.clone();
                self.sessions_at_work.extend(entry.session.clone());
                return Some((name, entry));
            }
        }
        None
    }
}

impl Entry {
    /// Its priority, one higher for each full 30 seconds that it waits, at most high.
    fn tier(&self, priority: Priority, now: Instant) -> Priority {
        let waited = now.saturating_duration_since(self.since).as_millis();
        let rises = waited / u128::from(AGEING_MS);
        match (priority, rises) {
            (priority, 0) | (priority @ (Priority::High | Priority::Critical), _) => priority,
            (Priority::Low, 1) => Priority::Normal,
            (Priority::Low | Priority::Normal, _) => Priority::High,
        }
    }
}

fn name(lane: &str) -> &str {
    match lane.trim() {
        "" => "main",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_start_by_priority_then_in_order_and_one_a_session() {
        let set = LaneSet::new(Lanes::default(), Handle::current());
        let order = Arc::new(Mutex::new(Vec::new()));
        let (open, gate) = oneshot::channel::<()>();
        let first = set.enqueue(" ", Priority::Low, async move { gate.await.is_ok() });
        let note = |text: &'static str| {
            let order = order.clone();
            async move { order.lock().unwrap().push(text) }
        };
        let mut queued = vec![set.enqueue("main", Priority::Normal, note("b"))];
        queued.push(set.enqueue("main", Priority::Normal, note("c")));
        queued.push(set.enqueue("main", Priority::Critical, note("a")));
        assert_eq!(set.len("main"), 4);
        open.send(()).unwrap();
        assert!(first.await.unwrap());
        for queued in queued {
            queued.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["a", "b", "c"]);
        assert!(set.is_empty("main") && set.is_empty("nobody"));

        let (open, gate) = oneshot::channel::<()>();
        let work = async move { gate.await.is_ok() };
        let first = set.enqueue_for_session("control", "s", Priority::Normal, work);
        let second = set.enqueue_for_session("control", "s", Priority::Normal, async {});
        // Another session passes, although it came later.
        let other = set.enqueue_for_session("control", "t", Priority::Low, async {});
        other.await.unwrap();
        assert_eq!(set.len("control"), 2);
        open.send(()).unwrap();
        assert!(first.await.unwrap());
        second.await.unwrap();
    }

    #[tokio::test]
    async fn waiting_entry_is_dropped_by_key_and_a_panic_frees_its_slot() {
        let set = LaneSet::new(Lanes::default(), Handle::current());
        set.set_width("control", 1);
        let (open, gate) = oneshot::channel::<()>();
        let panics = set.enqueue("control", Priority::Normal, async move {
            let _ = gate.await;
            panic!("agents may panic");
        });
        set.enqueue_message("control", "s", Priority::Normal, "k", async {});
        assert!(set.drop_waiting("k"));
        assert!(!set.drop_waiting("k"));
        open.send(()).unwrap();
        let result: Result<(), _> = panics.await;
        assert!(result.is_err());
        assert!(set.is_empty("control"));
    }
}
