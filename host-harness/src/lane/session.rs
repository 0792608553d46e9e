//! Sessions: under the lanes, one entry of a session at a time.
//!
//! Entries of a session wait here by lane; only the first of each lane and priority is offered to its lane, and only while
//! the session is free. So a start moves a handful of entries, however many wait.

use qm2_core::envelope::Priority;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Numbers of entries by priority, each in the order of their coming.
#[derive(Default)]
pub(super) struct Ranks([BTreeSet<u64>; 4]);

#[derive(Default)]
pub(super) struct Session {
    /// The task at work.
    pub(super) holder: Option<u64>,
    waiting: BTreeMap<Arc<str>, Ranks>,
}

/// A change to what a lane is offered.
pub(super) struct Offer {
    pub(super) lane: Arc<str>,
    pub(super) priority: Priority,
    pub(super) number: u64,
}

const PRIORITIES: [Priority; 4] = [
    Priority::Low,
    Priority::Normal,
    Priority::High,
    Priority::Critical,
];

impl Ranks {
    pub(super) fn insert(&mut self, priority: Priority, number: u64) {
        self.0[priority as usize].insert(number);
    }

    pub(super) fn remove(&mut self, priority: Priority, number: u64) {
        self.0[priority as usize].remove(&number);
    }

    /// The first of a priority.
    pub(super) fn first(&self, priority: Priority) -> Option<u64> {
        self.0[priority as usize].first().copied()
    }

    /// The first of each priority.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (Priority, u64)> {
        PRIORITIES
            .into_iter()
            .filter_map(|priority| Some((priority, self.first(priority)?)))
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(BTreeSet::is_empty)
    }
}

impl Session {
    /// Adds an entry that came last; true if its lane is to be offered it.
    pub(super) fn insert(&mut self, lane: &Arc<str>, priority: Priority, number: u64) -> bool {
        let ranks = match self.waiting.get_mut(lane) {
            Some(ranks) => ranks,
            None => self.waiting.entry(lane.clone()).or_default(),
        };
        ranks.insert(priority, number);
        self.holder.is_none() && ranks.first(priority) == Some(number)
    }

    /// Takes an entry out; where it was on offer, what is to be offered instead.
    pub(super) fn remove(&mut self, lane: &str, priority: Priority, number: u64) -> Option<u64> {
        let ranks = self.waiting.get_mut(lane)?;
        let was_first = ranks.first(priority) == Some(number);
        ranks.remove(priority, number);
        let next = ranks.first(priority);
        if ranks.is_empty() {
            self.waiting.remove(lane);
        }
        next.filter(|_| was_first && self.holder.is_none())
    }

    /// What is offered while it is free.
    pub(super) fn offers(&self) -> Vec<Offer> {
        let mut offers = Vec::new();
        for (lane, ranks) in &self.waiting {
            offers.extend(ranks.firsts().map(|(priority, number)| Offer {
                lane: lane.clone(),
                priority,
                number,
            }));
        }
        offers
    }

    /// Everything of it that waits, with its lane.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, Arc<str>)> {
        self.waiting.iter().flat_map(|(lane, ranks)| {
            let numbers = ranks.0.iter().flatten();
            numbers.map(|&number| (number, lane.clone()))
        })
    }

    /// Whether nothing of it waits or runs.
    pub(super) fn is_idle(&self) -> bool {
        self.holder.is_none() && self.waiting.is_empty()
    }
}
