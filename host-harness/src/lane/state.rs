//! What waits and what runs, and which entry is next.
//!
//! A lane is `ready` while it can start something: a start looks at no other lane, and at no entry that cannot start. Runs no
//! code of others and drops none, because all of it happens under the lock of the lanes; what is taken out is handed out.

use super::entry::{Link, Options, Waiting};
use super::group::Group;
use super::name;
use super::session::{Offer, Ranks, Session};
use super::wait::{Blocker, Waited};
use qm2_core::envelope::Priority;
use qm2_core::limit::AGEING_MS;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::ThreadId;
use tokio::sync::oneshot;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct State {
    lanes: Named<Lane>,
    sessions: Named<Session>,
    groups: BTreeMap<Arc<str>, Group>,
    /// Lanes that can start something, the best first.
    ready: BTreeMap<Rank, Arc<str>>,
    /// Lanes of entries by key and number.
    keys: BTreeMap<(Arc<str>, u64), Arc<str>>,
    active: BTreeMap<u64, Active>,
    entries_made: u64,
    tasks_started: u64,
    /// Nothing new is taken.
    pub(super) draining: bool,
    /// Threads that start entries now. What they make startable meanwhile is theirs to start.
    pub(super) starting: Vec<ThreadId>,
    waiters: Vec<Waiter>,
    /// Waiters whose wait is over, to be told outside the lock.
    pub(super) drained: Vec<oneshot::Sender<()>>,
    /// What made startable whatever can start now.
    cause: Cause,
}

/// Things by name. Found by hash, because there may be ten thousand whose names differ only at the end.
type Named<T> = HashMap<Arc<str>, T>;

/// Higher tier first, then who came first; entries differ in that, so lanes never tie.
type Rank = (Reverse<Priority>, u64);

pub(super) struct Lane {
    pub(super) width: usize,
    pub(super) generation: u64,
    pub(super) active: BTreeSet<u64>,
    /// Tasks at work without a slot, since a timeout or a reset.
    pub(super) at_large: usize,
    /// Boxed, so that taking one out moves little.
    pub(super) waiting: BTreeMap<u64, Box<Waiting>>,
    /// What may start as far as sessions go.
    offered: Ranks,
    group: Option<Arc<str>>,
    /// Its place among those that are ready.
    rank: Option<Rank>,
}

/// A task that holds its slot.
pub(super) struct Active {
    pub(super) lane: Arc<str>,
    pub(super) session: Option<Arc<str>>,
    pub(super) key: Option<Arc<str>>,
    pub(super) since: Instant,
    pub(super) link: Arc<Link>,
}

/// An entry that has just got its slot.
pub(super) struct Started {
    pub(super) id: u64,
    pub(super) lane: Arc<str>,
    pub(super) waiting: Waiting,
    /// Where it waited long.
    pub(super) waited: Option<Waited>,
}

#[derive(Default)]
enum Cause {
    #[default]
    Nothing,
    Width,
    Reset,
    Ended {
        id: u64,
        task: Active,
        at: Instant,
    },
}

/// Somebody who waits until none of some tasks is active.
struct Waiter {
    tasks: BTreeSet<u64>,
    done: oneshot::Sender<()>,
}

impl State {
    pub(super) fn lane(&self, lane: &str) -> Option<&Lane> {
        self.lanes.get(lane)
    }

    /// In no order.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (&Arc<str>, &Lane)> {
        self.lanes.iter()
    }

    pub(super) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn key_count(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn active(&self) -> &BTreeMap<u64, Active> {
        &self.active
    }

    pub(super) fn is_active(&self, id: u64) -> bool {
        self.active.contains_key(&id)
    }

    pub(super) fn set_width(&mut self, lane: &str, width: usize) {
        let name = self.make_lane(lane);
        self.lane_mut(&name).width = width;
        self.cause = Cause::Width;
        self.refresh(&name);
    }

    /// Adds an entry at the end of its lane.
    pub(super) fn push(&mut self, lane: &str, mut waiting: Waiting) {
        self.entries_made += 1;
        let number = self.entries_made;
        let name = self.make_lane(lane);
        let options = &waiting.options;
        options.link.number.store(number, Ordering::Release);
        if let Some(key) = &options.key {
            self.keys.insert((key.clone(), number), name.clone());
        }
        let priority = options.priority;
        let is_offered = match &options.session {
            None => true,
            Some(session) => {
                let session = self.sessions.entry(session.clone()).or_default();
                session.insert(&name, priority, number)
            }
        };
        let lane = self.lane_mut(&name);
        waiting.queued_ahead = lane.waiting.len();
        waiting.active_ahead = lane.active.len();
        lane.waiting.insert(number, Box::new(waiting));
        if is_offered {
            lane.offered.insert(priority, number);
            self.refresh(&name);
        }
    }

    /// Takes the next entry that may start, with its slots.
    pub(super) fn start_next(&mut self) -> Option<Started> {
        let name = self.ready.first_key_value()?.1.clone();
        let now = Instant::now();
        let (_, number) = self.lane_mut(&name).best(now)?;
        self.tasks_started += 1;
        let id = self.tasks_started;
        let waiting = self.take_out(&name, number)?;
        let Options {
            session, key, link, ..
        } = &waiting.options;
        if let Some(session) = session {
            self.hold_session(session, id);
        }
        let task = Active {
            lane: name.clone(),
            session: session.clone(),
            key: key.clone(),
            since: now,
            link: link.clone(),
        };
        self.active.insert(id, task);
        let waited = self.waited(&name, &waiting, now);
        self.lane_mut(&name).active.insert(id);
        self.count_in_group(&name, |active| active - 1);
        self.refresh(&name);
        Some(Started {
            id,
            lane: name,
            waiting,
            waited,
        })
    }

    /// Ends a task. One whose slot was taken away frees nothing any more.
    pub(super) fn end(&mut self, id: u64, lane: &Arc<str>) {
        if self.free(id) {
            return;
        }
        if let Some(found) = self.lanes.get_mut(lane) {
            found.at_large -= 1;
            self.refresh(lane);
        }
    }

    /// Takes the slot of a task that goes on; false if it has none.
    pub(super) fn take_away(&mut self, id: u64) -> bool {
        let Some(lane) = self.active.get(&id).map(|task| task.lane.clone()) else {
            return false;
        };
        self.lane_mut(&lane).at_large += 1;
        self.free(id)
    }

    /// Takes the slots of all tasks of a lane and begins its next generation. Starts nothing.
    pub(super) fn reset(&mut self, lane: &str) -> usize {
        let Some((name, lane)) = self.lanes.get_key_value(lane) else {
            return 0;
        };
        let (name, tasks) = (name.clone(), lane.active.clone());
        self.lane_mut(&name).generation += 1;
        for &id in &tasks {
            self.take_away(id);
        }
        self.cause = Cause::Reset;
        self.refresh(&name);
        tasks.len()
    }

    /// [`State::reset`] of every lane.
    pub(super) fn reset_all(&mut self) -> usize {
        // In no order, which nobody can see: nothing starts before the last.
        let names: Vec<Arc<str>> = self.lanes.keys().cloned().collect();
        names.iter().map(|name| self.reset(name)).sum()
    }

    /// Takes a waiting entry out of its lane.
    pub(super) fn remove(&mut self, lane: &str, number: u64) -> Option<Waiting> {
        let name = self.lanes.get_key_value(lane)?.0.clone();
        let waiting = self.take_out(&name, number)?;
        self.refresh(&name);
        Some(waiting)
    }

    /// Takes out everything that waits in a lane, in the order of its coming.
    pub(super) fn clear(&mut self, lane: &str) -> Vec<Waiting> {
        let waiting = self.lanes.get(lane).map(|lane| &lane.waiting);
        let numbers: Vec<u64> = waiting
            .into_iter()
            .flat_map(|w| w.keys().copied())
            .collect();
        let removed = numbers.into_iter().filter_map(|n| self.remove(lane, n));
        removed.collect()
    }

    /// Takes out everything that waits under a key.
    pub(super) fn remove_by_key(&mut self, key: &str) -> Vec<(Arc<str>, Waiting)> {
        let key: Arc<str> = key.into();
        let found = self.keys.range((key.clone(), 0)..=(key, u64::MAX));
        let found: Vec<_> = found.map(|((_, n), lane)| (*n, lane.clone())).collect();
        self.remove_each(found)
    }

    /// Takes out everything of a session that waits, in any lane and in its own.
    pub(super) fn remove_of_session(&mut self, session: &str) -> Vec<(Arc<str>, Waiting)> {
        let own: Arc<str> = name::session(session).into();
        let mut found = Vec::new();
        if let Some(lane) = self.lanes.get(&own) {
            found.extend(lane.waiting.keys().map(|&number| (number, own.clone())));
        }
        let session = self.sessions.get(session).into_iter();
        found.extend(session.flat_map(Session::waiting));
        found.sort();
        self.remove_each(found)
    }

    /// Tasks of a session that hold a slot, in any lane or in its own.
    pub(super) fn active_of_session(&self, session: &str) -> Vec<u64> {
        let holder = self.sessions.get(session).and_then(|found| found.holder);
        let own = self.lanes.get(name::session(session).as_str());
        let mut tasks: BTreeSet<u64> = own.map(|lane| lane.active.clone()).unwrap_or_default();
        tasks.extend(holder);
        tasks.into_iter().collect()
    }

    /// Tells when none of those that are active now is; nothing if none is.
    pub(super) fn when_drained(&mut self) -> Option<oneshot::Receiver<()>> {
        self.waiters.retain(|waiter| !waiter.done.is_closed());
        if self.active.is_empty() {
            return None;
        }
        let (done, drained) = oneshot::channel();
        self.waiters.push(Waiter {
            tasks: self.active.keys().copied().collect(),
            done,
        });
        Some(drained)
    }

    pub(super) fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub(super) fn is_in_group(&self, lane: &str) -> bool {
        self.lanes
            .get(lane)
            .is_some_and(|lane| lane.group.is_some())
    }

    pub(super) fn add_group(&mut self, group: &str, mut added: Group) {
        let group: Arc<str> = group.into();
        let members = added.members();
        for name in &members {
            let name = self.make_lane(name);
            let lane = self.lane_mut(&name);
            lane.group = Some(group.clone());
            added.count(&name, 0, lane.active.len());
        }
        self.groups.insert(group, added);
        for name in &members {
            self.refresh(name);
        }
    }

    fn remove_each(&mut self, found: Vec<(u64, Arc<str>)>) -> Vec<(Arc<str>, Waiting)> {
        let removed = found.into_iter().filter_map(|(number, lane)| {
            let waiting = self.remove(&lane, number)?;
            Some((lane, waiting))
        });
        removed.collect()
    }

    /// Takes an entry out of everything that knows it.
    fn take_out(&mut self, name: &Arc<str>, number: u64) -> Option<Waiting> {
        let lane = self.lanes.get_mut(name)?;
        let waiting = *lane.waiting.remove(&number)?;
        let Options {
            priority,
            session,
            key,
            ..
        } = &waiting.options;
        lane.offered.remove(*priority, number);
        if let Some(key) = key {
            self.keys.remove(&(key.clone(), number));
        }
        if let Some(of) = session
            && let Some(session) = self.sessions.get_mut(of)
        {
            if let Some(next) = session.remove(name, *priority, number) {
                lane.offered.insert(*priority, next);
            }
            if session.is_idle() {
                forget(&mut self.sessions, of);
            }
        }
        Some(waiting)
    }

    /// A session is at work: nothing else of it is on offer.
    fn hold_session(&mut self, of: &Arc<str>, id: u64) {
        let session = self.sessions.entry(of.clone()).or_default();
        session.holder = Some(id);
        for Offer {
            lane: name,
            priority,
            number,
        } in session.offers()
        {
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.offered.remove(priority, number);
            }
            self.refresh(&name);
        }
    }

    /// A session is free: the first of what waits is on offer.
    fn free_session(&mut self, of: &Arc<str>) {
        let Some(session) = self.sessions.get_mut(of) else {
            return;
        };
        session.holder = None;
        let offers = session.offers();
        if session.is_idle() {
            forget(&mut self.sessions, of);
        }
        for Offer {
            lane: name,
            priority,
            number,
        } in offers
        {
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.offered.insert(priority, number);
            }
            self.refresh(&name);
        }
    }

    /// Gives back the slots of a task; false if it has none.
    fn free(&mut self, id: u64) -> bool {
        let Some(task) = self.active.remove(&id) else {
            return false;
        };
        let name = task.lane.clone();
        if let Some(lane) = self.lanes.get_mut(&name) {
            lane.active.remove(&id);
        }
        self.count_in_group(&name, |active| active + 1);
        if let Some(session) = &task.session {
            self.free_session(session);
        }
        let drained = self.waiters.extract_if(.., |waiter| {
            waiter.tasks.remove(&id);
            waiter.tasks.is_empty()
        });
        self.drained.extend(drained.map(|waiter| waiter.done));
        let at = Instant::now();
        self.cause = Cause::Ended { id, task, at };
        self.refresh(&name);
        true
    }

    /// Tells the group of a lane how many tasks the lane has, where it had another number before.
    fn count_in_group(&mut self, name: &Arc<str>, before: impl FnOnce(usize) -> usize) {
        let Some(lane) = self.lanes.get(name) else {
            return;
        };
        let active = lane.active.len();
        let group = lane.group.as_ref();
        let Some(group) = group.and_then(|group| self.groups.get_mut(group)) else {
            return;
        };
        if group.count(name, before(active), active) {
            for member in group.members() {
                self.refresh(&member);
            }
        }
    }

    /// Makes `ready` true again after a lane has changed, and forgets a lane that is as if it had never been named.
    fn refresh(&mut self, name: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        let active = lane.active.len();
        let group = lane.group.as_ref().and_then(|group| self.groups.get(group));
        let has_room =
            active < lane.width && group.is_none_or(|group| group.has_room(name, active));
        let rank = match has_room {
            true => lane.best(Instant::now()),
            false => None,
        };
        if lane.rank != rank {
            if let Some(before) = lane.rank.take() {
                self.ready.remove(&before);
            }
            if let Some(rank) = rank {
                self.ready.insert(rank, name.clone());
            }
            lane.rank = rank;
        }
        if lane.is_blank() {
            forget(&mut self.lanes, name);
        }
    }

    fn waited(&self, name: &Arc<str>, waiting: &Waiting, now: Instant) -> Option<Waited> {
        let warn_after = waiting.options.warn_after?;
        let waited = now.saturating_duration_since(waiting.since);
        if waited < warn_after {
            return None;
        }
        let lane = self.lanes.get(name)?;
        Some(Waited {
            lane: name.to_string(),
            key: waiting.options.key.as_deref().map(str::to_owned),
            waited,
            queued_ahead: waiting.queued_ahead,
            active_ahead: waiting.active_ahead,
            active_now: lane.active.len(),
            queued_behind: lane.waiting.len(),
            blocker: match &self.cause {
                _ if waited.is_zero() => Blocker::Nothing,
                cause => cause.blocker(),
            },
        })
    }

    fn make_lane(&mut self, lane: &str) -> Arc<str> {
        if let Some((name, _)) = self.lanes.get_key_value(lane) {
            return name.clone();
        }
        let name: Arc<str> = lane.into();
        self.lanes.insert(name.clone(), Lane::default());
        name
    }

    fn lane_mut(&mut self, name: &Arc<str>) -> &mut Lane {
        self.lanes.entry(name.clone()).or_default()
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            width: 1,
            generation: 0,
            active: BTreeSet::new(),
            at_large: 0,
            waiting: BTreeMap::new(),
            offered: Ranks::default(),
            group: None,
            rank: None,
        }
    }
}

impl Lane {
    /// The entry that is next. Within a priority who came first has also risen furthest.
    fn best(&self, now: Instant) -> Option<Rank> {
        let ranks = self.offered.firsts().filter_map(|(priority, number)| {
            let since = self.waiting.get(&number)?.since;
            Some((Reverse(tier(priority, since, now)), number))
        });
        ranks.min()
    }

    /// Whether a new lane of its name would be the same. Its generation only tells tasks apart that are at work.
    fn is_blank(&self) -> bool {
        self.active.is_empty()
            && self.waiting.is_empty()
            && self.at_large == 0
            && self.width == 1
            && self.group.is_none()
    }
}

impl Cause {
    fn blocker(&self) -> Blocker {
        match self {
            Self::Nothing => Blocker::Nothing,
            Self::Width => Blocker::Width,
            Self::Reset => Blocker::Reset,
            Self::Ended { id, task, at } => Blocker::Task {
                id: *id,
                lane: task.lane.to_string(),
                session: task.session.as_deref().map(str::to_owned),
                key: task.key.as_deref().map(str::to_owned),
                held: at.saturating_duration_since(task.since),
            },
        }
    }
}

/// Takes something out, and gives memory back once most of it is free.
fn forget<T>(named: &mut Named<T>, name: &str) {
    named.remove(name);
    if named.capacity() > 64 && named.len() < named.capacity() / 8 {
        named.shrink_to(named.len() * 2);
    }
}

/// The priority of an entry, one higher for each full 30 seconds that it waits, at most high.
fn tier(priority: Priority, since: Instant, now: Instant) -> Priority {
    if matches!(priority, Priority::High | Priority::Critical) {
        return priority;
    }
    let waited = now.saturating_duration_since(since).as_millis();
    match (priority, waited / u128::from(AGEING_MS)) {
        (priority, 0) => priority,
        (Priority::Low, 1) => Priority::Normal,
        _ => Priority::High,
    }
}
