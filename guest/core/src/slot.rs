//! Slots: which ready step goes out next.
//!
//! An index over the ready steps of a domain and the sessions that are busy. It follows from the state of the steps and
//! the time alone and can be made anew from them; dispatching is decided in [`crate::dispatch`].
//!
//! Order: tier, then the owner session after the last one served, then the number of the record that made the step
//! ready, then its id. Of each target session with room, only the best step of each tier and owner stands in `heads`, so
//! that a busy session costs nothing however many steps wait for it.

use crate::envelope::Priority;
use crate::event::Name;
use crate::limit::AGEING_MS;
use crate::table::Table;
use crate::timer::{Timer, TimerClass};
use std::collections::{BTreeMap, BTreeSet};

/// A step that can go out, or can from its due time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) coordination: Name,
    pub(crate) step: Name,
    pub(crate) owner: Name,
    pub(crate) session: Name,
    pub(crate) priority: Priority,
    /// Number of the record that made it ready.
    pub(crate) ready_seq: u64,
    /// When it became or becomes ready; the due time of a retry.
    pub(crate) ready_ms: u64,
}

type Place = (Name, Name);

/// The order in which steps go out; the fields are compared from the first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// 0 is critical, 3 is low.
    tier: u8,
    owner: Name,
    ready_seq: u64,
    step: Name,
    coordination: Name,
    session: Name,
}

#[derive(Debug, Default)]
struct Session {
    out: u64,
    waiting: BTreeSet<Rank>,
}

/// The slots of a domain and what waits for them.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    in_flight: u64,
    max_in_flight: u64,
    session_in_flight: u64,
    /// The time that tiers were last worked out for.
    now_ms: u64,
    candidates: BTreeMap<Place, (Candidate, Option<Rank>)>,
    /// Candidates that are not due yet.
    later: BTreeSet<Timer>,
    /// When candidates rise a tier.
    rising: BTreeSet<Timer>,
    sessions: Table<Session>,
    heads: BTreeSet<Rank>,
}

impl Slots {
    /// Sets the widths of the domain.
    pub(crate) fn set_widths(&mut self, max_in_flight: u64, session_in_flight: u64) {
        self.max_in_flight = max_in_flight;
        if self.session_in_flight != session_in_flight {
            self.session_in_flight = session_in_flight;
            let names: Vec<Name> = self.sessions.iter().map(|(name, _)| name.clone()).collect();
            for name in names {
                self.unpublish(&name);
                self.publish(&name);
            }
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(crate) fn is_full(&self) -> bool {
        self.in_flight >= self.max_in_flight
    }

    /// Steps of a session that are out.
    pub(crate) fn session_out(&self, session: &str) -> u64 {
        self.sessions.get(session).map_or(0, |session| session.out)
    }

    pub(crate) fn session_has_room(&self, session: &str) -> bool {
        self.session_out(session) < self.session_in_flight
    }

    /// A step of this session went out.
    pub(crate) fn take(&mut self, session: &Name) {
        self.in_flight += 1;
        let entry = session_of(&mut self.sessions, session);
        entry.out += 1;
        if entry.out == self.session_in_flight {
            self.unpublish(session);
        }
    }

    /// A step of this session came back.
    pub(crate) fn give(&mut self, session: &Name) {
        self.in_flight -= 1;
        let entry = self
            .sessions
            .get_mut(session)
            .expect("a session gives only what it took");
        entry.out -= 1;
        let has_room = entry.out < self.session_in_flight;
        if has_room {
            self.publish(session);
        }
        self.forget_idle(session);
    }

    pub(crate) fn insert(&mut self, candidate: Candidate) {
        let place = (candidate.coordination.clone(), candidate.step.clone());
        if candidate.ready_ms > self.now_ms {
            self.later.insert(note(candidate.ready_ms, &place));
            self.candidates.insert(place, (candidate, None));
        } else {
            self.candidates.insert(place.clone(), (candidate, None));
            self.place(&place);
        }
    }

    pub(crate) fn remove(&mut self, coordination: &Name, step: &Name) {
        let place = (coordination.clone(), step.clone());
        let Some((candidate, rank)) = self.candidates.remove(&place) else {
            return;
        };
        match rank {
            None => {
                self.later.remove(&note(candidate.ready_ms, &place));
            }
            Some(rank) => {
                if let Some(rises_ms) = rises_ms(&candidate, rank.tier) {
                    self.rising.remove(&note(rises_ms, &place));
                }
                self.withdraw(&candidate.session, &rank);
                self.forget_idle(&candidate.session);
            }
        }
    }

    /// The step to send out now, if there is a free slot for one.
    pub(crate) fn pick(&mut self, now_ms: u64, last_owner: Option<&Name>) -> Option<(Name, Name)> {
        if self.is_full() {
            return None;
        }
        self.refresh(now_ms);
        let tier = self.heads.first()?.tier;
        let after = last_owner.and_then(|owner| {
            self.heads
                .range(edge(tier, owner, u64::MAX)..)
                .next()
                .filter(|rank| rank.tier == tier)
        });
        let rank = after.or_else(|| self.heads.first())?;
        Some((rank.coordination.clone(), rank.step.clone()))
    }

    /// When the next candidate becomes due; none while every slot is taken, since a slot is awaited then and no time.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        if self.is_full() {
            return None;
        }
        self.later.first().map(|timer| timer.due_ms)
    }

    /// Works the tiers out for this time.
    fn refresh(&mut self, now_ms: u64) {
        if now_ms < self.now_ms {
            // A call with a later time recorded nothing, so that time never was: start over.
            self.now_ms = now_ms;
            let all: Vec<Candidate> = self
                .candidates
                .values()
                .map(|(candidate, _)| candidate.clone())
                .collect();
            for candidate in all {
                self.remove(&candidate.coordination, &candidate.step);
                self.insert(candidate);
            }
            return;
        }
        self.now_ms = now_ms;
        while let Some(timer) = self
            .later
            .first()
            .filter(|timer| timer.due_ms <= now_ms)
            .cloned()
        {
            self.later.remove(&timer);
            self.place(&(timer.coordination, timer.step));
        }
        while let Some(timer) = self
            .rising
            .first()
            .filter(|timer| timer.due_ms <= now_ms)
            .cloned()
        {
            self.rising.remove(&timer);
            let place = (timer.coordination, timer.step);
            let Some((candidate, Some(rank))) = self.candidates.get(&place).cloned() else {
                continue;
            };
            self.withdraw(&candidate.session, &rank);
            self.place(&place);
        }
    }

    /// Gives a due candidate its rank at the present time.
    fn place(&mut self, place: &Place) {
        let now_ms = self.now_ms;
        let Some((candidate, rank)) = self.candidates.get_mut(place) else {
            return;
        };
        let tier = tier_at(candidate, now_ms);
        let new = Rank {
            tier,
            owner: candidate.owner.clone(),
            ready_seq: candidate.ready_seq,
            step: candidate.step.clone(),
            coordination: candidate.coordination.clone(),
            session: candidate.session.clone(),
        };
        *rank = Some(new.clone());
        if let Some(rises_ms) = rises_ms(candidate, tier) {
            self.rising.insert(note(rises_ms, place));
        }
        let name = candidate.session.clone();
        let session = session_of(&mut self.sessions, &name);
        let old = head_of(&session.waiting, tier, &new.owner);
        session.waiting.insert(new.clone());
        if session.out < self.session_in_flight && old.as_ref().is_none_or(|old| new < *old) {
            if let Some(old) = old {
                self.heads.remove(&old);
            }
            self.heads.insert(new);
        }
    }

    /// Takes a rank out of its session.
    fn withdraw(&mut self, name: &Name, rank: &Rank) {
        let Some(session) = self.sessions.get_mut(name) else {
            return;
        };
        session.waiting.remove(rank);
        if self.heads.remove(rank)
            && let Some(next) = head_of(&session.waiting, rank.tier, &rank.owner)
        {
            self.heads.insert(next);
        }
    }

    fn publish(&mut self, name: &Name) {
        let Some(session) = self.sessions.get(name) else {
            return;
        };
        if session.out < self.session_in_flight {
            for rank in heads_of(&session.waiting) {
                self.heads.insert(rank);
            }
        }
    }

    fn unpublish(&mut self, name: &Name) {
        let Some(session) = self.sessions.get(name) else {
            return;
        };
        for rank in heads_of(&session.waiting) {
            self.heads.remove(&rank);
        }
    }

    fn forget_idle(&mut self, name: &Name) {
        if self
            .sessions
            .get(name)
            .is_some_and(|session| session.out == 0 && session.waiting.is_empty())
        {
            self.sessions.remove(name);
        }
    }
}

/// The session of this name, which is made where it is missing.
fn session_of<'a>(sessions: &'a mut Table<Session>, name: &Name) -> &'a mut Session {
    if !sessions.contains(name) {
        sessions.insert(name.clone(), Session::default());
    }
    sessions
        .get_mut(name)
        .expect("it was made where it was missing")
}

/// The tier of a candidate: each full 30 s of waiting raises it by one, at most to high.
fn tier_at(candidate: &Candidate, now_ms: u64) -> u8 {
    let base = base_tier(candidate.priority);
    let risen = now_ms.saturating_sub(candidate.ready_ms) / AGEING_MS;
    base.saturating_sub(u8::try_from(risen).unwrap_or(u8::MAX))
        .max(base.min(1))
}

/// A time at which something happens to a candidate.
fn note(due_ms: u64, (coordination, step): &Place) -> Timer {
    let class = TimerClass::Slot;
    Timer {
        due_ms,
        class,
        coordination: coordination.clone(),
        step: step.clone(),
        number: 0,
    }
}

/// When a candidate rises from this tier, if it still can.
fn rises_ms(candidate: &Candidate, tier: u8) -> Option<u64> {
    let risen = base_tier(candidate.priority) - tier;
    (tier > 1).then(|| candidate.ready_ms + (u64::from(risen) + 1) * AGEING_MS)
}

fn base_tier(priority: Priority) -> u8 {
    match priority {
        Priority::Critical => 0,
        Priority::High => 1,
        Priority::Normal => 2,
        Priority::Low => 3,
    }
}

/// Before, with 0, or past, with the largest number, every rank of one tier and owner.
fn edge(tier: u8, owner: &Name, ready_seq: u64) -> Rank {
    let none = Name::from("");
    Rank {
        tier,
        owner: owner.clone(),
        ready_seq,
        step: none.clone(),
        coordination: none.clone(),
        session: none,
    }
}

/// The best rank of one tier and owner.
fn head_of(waiting: &BTreeSet<Rank>, tier: u8, owner: &Name) -> Option<Rank> {
    waiting
        .range(edge(tier, owner, 0)..)
        .next()
        .filter(|rank| rank.tier == tier && rank.owner == *owner)
        .cloned()
}

/// The best rank of each tier and owner.
fn heads_of(waiting: &BTreeSet<Rank>) -> impl Iterator<Item = Rank> + '_ {
    let mut next = waiting.first().cloned();
    std::iter::from_fn(move || {
        let head = next.take()?;
        next = waiting
            .range(edge(head.tier, &head.owner, u64::MAX)..)
            .next()
            .cloned();
        Some(head)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(
        step: &str,
        owner: &str,
        session: &str,
        priority: Priority,
        seq: u64,
        ready_ms: u64,
    ) -> Candidate {
        let name = |text: &str| Name::from(text);
        Candidate {
            coordination: name("c"),
            step: name(step),
            owner: name(owner),
            session: name(session),
            priority,
            ready_seq: seq,
            ready_ms,
        }
    }

    fn slots(max: u64) -> Slots {
        let mut slots = Slots::default();
        slots.set_widths(max, 1);
        slots
    }

    fn picked(slots: &mut Slots, now_ms: u64, last: Option<&str>) -> Option<String> {
        slots
            .pick(now_ms, last.map(Name::from).as_ref())
            .map(|(_, step)| step.to_string())
    }

    #[test]
    fn tier_then_owner_after_the_last_then_seq() {
        let mut slots = slots(9);
        slots.insert(candidate("low", "a", "1", Priority::Low, 1, 0));
        slots.insert(candidate("a2", "a", "2", Priority::High, 3, 0));
        slots.insert(candidate("a1", "a", "3", Priority::High, 2, 0));
        slots.insert(candidate("b1", "b", "4", Priority::High, 9, 0));
        assert_eq!(picked(&mut slots, 0, None).as_deref(), Some("a1"));
        assert_eq!(picked(&mut slots, 0, Some("a")).as_deref(), Some("b1"));
        assert_eq!(picked(&mut slots, 0, Some("b")).as_deref(), Some("a1"));
    }

    #[test]
    fn a_busy_session_is_passed_over_until_it_gives_back() {
        let mut slots = slots(9);
        slots.insert(candidate("x", "a", "s", Priority::High, 1, 0));
        slots.insert(candidate("y", "a", "t", Priority::Low, 2, 0));
        slots.take(&Name::from("s"));
        assert_eq!(picked(&mut slots, 0, None).as_deref(), Some("y"));
        slots.give(&Name::from("s"));
        assert_eq!(picked(&mut slots, 0, None).as_deref(), Some("x"));
    }

    #[test]
    fn waiting_raises_a_tier_each_full_30_s_and_never_to_critical() {
        let mut slots = slots(9);
        slots.insert(candidate("old", "a", "s", Priority::Low, 9, 0));
        slots.insert(candidate("new", "a", "t", Priority::Normal, 1, 59_999));
        assert_eq!(
            picked(&mut slots, 59_999, None).as_deref(),
            Some("new"),
            "both normal, lower seq first"
        );
        assert_eq!(
            picked(&mut slots, 60_000, None).as_deref(),
            Some("old"),
            "high before normal"
        );
        slots.insert(candidate("top", "z", "u", Priority::Critical, 10, 60_000));
        assert_eq!(picked(&mut slots, 999_999, None).as_deref(), Some("top"));
    }

    #[test]
    fn a_clock_that_steps_back_undoes_tiers_that_were_never_recorded() {
        let mut slots = slots(9);
        slots.insert(candidate("old", "a", "s", Priority::Low, 9, 0));
        slots.insert(candidate("new", "a", "t", Priority::Normal, 1, 0));
        slots.insert(candidate("retry", "a", "u", Priority::Critical, 2, 50_000));
        assert_eq!(picked(&mut slots, 60_000, None).as_deref(), Some("retry"));
        assert_eq!(picked(&mut slots, 10, None).as_deref(), Some("new"));
        assert_eq!(slots.next_due_ms(), Some(50_000));
    }

    #[test]
    fn a_full_domain_picks_nothing_and_awaits_no_time() {
        let mut slots = slots(1);
        slots.insert(candidate("x", "a", "s", Priority::High, 1, 5));
        assert_eq!(slots.next_due_ms(), Some(5));
        slots.take(&Name::from("t"));
        assert_eq!(
            (picked(&mut slots, 9, None), slots.next_due_ms()),
            (None, None)
        );
    }
}
