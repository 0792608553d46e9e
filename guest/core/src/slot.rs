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
use crate::order::{Key, Ordered, Part};
use crate::table::Table;

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

/// Under which a candidate is kept.
fn place_of(coordination: &Name, step: &Name) -> Key {
    Key::of(&[Part::Text(coordination), Part::Text(step)])
}

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

impl Rank {
    fn new(tier: u8, candidate: &Candidate) -> Self {
        Self {
            tier,
            owner: candidate.owner.clone(),
            ready_seq: candidate.ready_seq,
            step: candidate.step.clone(),
            coordination: candidate.coordination.clone(),
            session: candidate.session.clone(),
        }
    }

    /// Its place among others, in the declared order.
    fn key(&self) -> Key {
        Key::of(&[
            Part::Byte(self.tier),
            Part::Text(&self.owner),
            Part::Number(self.ready_seq),
            Part::Text(&self.step),
            Part::Text(&self.coordination),
            Part::Text(&self.session),
        ])
    }
}

#[derive(Clone, Debug, Default)]
struct Session {
    out: u64,
    waiting: Ordered<Rank>,
}

impl Session {
    fn is_idle(&self) -> bool {
        self.out == 0 && self.waiting.is_empty()
    }
}

/// A time at which something happens to a candidate.
#[derive(Clone, Debug)]
struct Note {
    due_ms: u64,
    coordination: Name,
    step: Name,
}

impl Note {
    fn new(due_ms: u64, candidate: &Candidate) -> Self {
        let coordination = candidate.coordination.clone();
        let step = candidate.step.clone();
        Self {
            due_ms,
            coordination,
            step,
        }
    }

    fn key(&self) -> Key {
        Key::of(&[
            Part::Number(self.due_ms),
            Part::Text(&self.coordination),
            Part::Text(&self.step),
        ])
    }
}

/// The slots of a domain and what waits for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    in_flight: u64,
    max_in_flight: u64,
    session_in_flight: u64,
    /// The time that tiers were last worked out for.
    now_ms: u64,
    /// With the tier in which each stands; none for those that are not due yet.
    candidates: Ordered<(Candidate, Option<u8>)>,
    /// Candidates that are not due yet.
    later: Ordered<Note>,
    /// When candidates rise a tier.
    rising: Ordered<Note>,
    sessions: Table<Session>,
    heads: Ordered<Rank>,
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

    /// Whether a step that holds a slot and one of its session would get them again if it gave them back: not where those
    /// that came back from a person, or a narrower configuration, have passed the width.
    pub(crate) fn keeps_room(&self, session: &str) -> bool {
        self.in_flight <= self.max_in_flight && self.session_out(session) <= self.session_in_flight
    }

    /// A slot of the domain is used, even where none was free.
    pub(crate) fn take_slot(&mut self) {
        self.in_flight += 1;
    }

    pub(crate) fn give_slot(&mut self) {
        self.in_flight -= 1;
    }

    /// One of the session's width is used, even where none was free.
    pub(crate) fn take_session(&mut self, session: &Name) {
        let entry = self.sessions.get_or_insert(session, Session::default);
        entry.out += 1;
        if entry.out == self.session_in_flight && !entry.waiting.is_empty() {
            self.unpublish(session);
        }
    }

    pub(crate) fn give_session(&mut self, session: &Name) {
        let entry = self
            .sessions
            .get_mut(session)
            .expect("a session gives only what it took");
        entry.out -= 1;
        if entry.is_idle() {
            self.sessions.remove(session);
        } else if entry.out < self.session_in_flight {
            self.publish(session);
        }
    }

    /// Whether a step is a candidate, due or not.
    pub(crate) fn contains(&self, coordination: &Name, step: &Name) -> bool {
        self.candidates.contains(&place_of(coordination, step))
    }

    /// Takes a candidate in, in the place of what was known of the same step.
    pub(crate) fn insert(&mut self, candidate: Candidate) {
        let place = place_of(&candidate.coordination, &candidate.step);
        if let Some((known, tier)) = self.candidates.remove(&place) {
            self.leave(&known, tier);
        }
        let tier = if candidate.ready_ms <= self.now_ms {
            Some(self.enter(&candidate))
        } else {
            let note = Note::new(candidate.ready_ms, &candidate);
            self.later.insert(&note.key(), note);
            None
        };
        self.candidates.insert(&place, (candidate, tier));
    }

    pub(crate) fn remove(&mut self, coordination: &Name, step: &Name) {
        if let Some((known, tier)) = self.candidates.remove(&place_of(coordination, step)) {
            self.leave(&known, tier);
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
                .from(&edge(tier, owner, u64::MAX))
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
        self.later.first().map(|note| note.due_ms)
    }

    /// A candidate that is due could go out, as after the limits were widened.
    pub(crate) fn has_next(&self) -> bool {
        !self.is_full() && !self.heads.is_empty()
    }

    /// Works the tiers out for this time.
    pub(crate) fn refresh(&mut self, now_ms: u64) {
        if now_ms < self.now_ms {
            // A call with a later time recorded nothing, so that time never was: start over.
            self.now_ms = now_ms;
            let all: Vec<Candidate> = self
                .candidates
                .iter()
                .map(|(candidate, _)| candidate.clone())
                .collect();
            for candidate in all {
                self.remove(&candidate.coordination, &candidate.step);
                self.insert(candidate);
            }
            return;
        }
        self.now_ms = now_ms;
        while let Some(note) = first_due(&mut self.later, now_ms) {
            self.enter_again(&note);
        }
        while let Some(note) = first_due(&mut self.rising, now_ms) {
            self.enter_again(&note);
        }
    }

    /// Gives a candidate of which a time has come its tier at the present time.
    fn enter_again(&mut self, note: &Note) {
        let place = place_of(&note.coordination, &note.step);
        let Some((candidate, tier)) = self.candidates.get(&place).cloned() else {
            return;
        };
        if let Some(tier) = tier {
            self.withdraw(&candidate, tier);
        }
        let tier = self.enter(&candidate);
        self.candidates.insert(&place, (candidate, Some(tier)));
    }

    /// Puts a due candidate among those that wait for its session, and answers its tier at the present time.
    fn enter(&mut self, candidate: &Candidate) -> u8 {
        let tier = tier_at(candidate, self.now_ms);
        if let Some(rises_ms) = rises_ms(candidate, tier) {
            let note = Note::new(rises_ms, candidate);
            self.rising.insert(&note.key(), note);
        }
        let rank = Rank::new(tier, candidate);
        let key = rank.key();
        let session = self
            .sessions
            .get_or_insert(&candidate.session, Session::default);
        let old = head_of(&session.waiting, tier, &rank.owner);
        if session.out < self.session_in_flight && old.as_ref().is_none_or(|old| rank < *old) {
            if let Some(old) = old {
                self.heads.remove(&old.key());
            }
            self.heads.insert(&key, rank.clone());
        }
        session.waiting.insert(&key, rank);
        tier
    }

    /// Takes what is known of a candidate out of wherever it stands besides the candidates themselves.
    fn leave(&mut self, candidate: &Candidate, tier: Option<u8>) {
        let Some(tier) = tier else {
            let note = Note::new(candidate.ready_ms, candidate);
            self.later.remove(&note.key());
            return;
        };
        if let Some(rises_ms) = rises_ms(candidate, tier) {
            self.rising.remove(&Note::new(rises_ms, candidate).key());
        }
        if self.withdraw(candidate, tier) {
            self.sessions.remove(&candidate.session);
        }
    }

    /// Takes a candidate out of its session; whether that is idle now.
    fn withdraw(&mut self, candidate: &Candidate, tier: u8) -> bool {
        let Some(session) = self.sessions.get_mut(&candidate.session) else {
            return false;
        };
        let key = Rank::new(tier, candidate).key();
        session.waiting.remove(&key);
        if session.waiting.is_empty() {
            // Most sessions have one step, and none waits while it is out.
            session.waiting = Ordered::default();
        }
        if self.heads.remove(&key).is_some()
            && let Some(next) = head_of(&session.waiting, tier, &candidate.owner)
        {
            self.heads.insert(&next.key(), next);
        }
        session.is_idle()
    }

    fn publish(&mut self, name: &Name) {
        let Some(session) = self.sessions.get(name) else {
            return;
        };
        if session.out < self.session_in_flight {
            for rank in heads_of(&session.waiting) {
                self.heads.insert(&rank.key(), rank);
            }
        }
    }

    fn unpublish(&mut self, name: &Name) {
        let Some(session) = self.sessions.get(name) else {
            return;
        };
        for rank in heads_of(&session.waiting) {
            self.heads.remove(&rank.key());
        }
    }
}

/// The tier of a candidate: each full 30 s of waiting raises it by one, at most to high.
fn tier_at(candidate: &Candidate, now_ms: u64) -> u8 {
    let base = base_tier(candidate.priority);
    let risen = now_ms.saturating_sub(candidate.ready_ms) / AGEING_MS;
    base.saturating_sub(u8::try_from(risen).unwrap_or(u8::MAX))
        .max(base.min(1))
}

/// Takes the first note out, if its time has come.
fn first_due(notes: &mut Ordered<Note>, now_ms: u64) -> Option<Note> {
    let note = notes.first().filter(|note| note.due_ms <= now_ms)?;
    let key = note.key();
    notes.remove(&key)
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
fn edge(tier: u8, owner: &Name, ready_seq: u64) -> Key {
    Key::of(&[Part::Byte(tier), Part::Text(owner), Part::Number(ready_seq)])
}

/// The best rank of one tier and owner.
fn head_of(waiting: &Ordered<Rank>, tier: u8, owner: &Name) -> Option<Rank> {
    // Most sessions have one step.
    if waiting.is_empty() {
        return None;
    }
    waiting
        .from(&edge(tier, owner, 0))
        .next()
        .filter(|rank| rank.tier == tier && rank.owner == *owner)
        .cloned()
}

/// The best rank of each tier and owner.
fn heads_of(waiting: &Ordered<Rank>) -> Vec<Rank> {
    let mut heads = Vec::new();
    let mut next = waiting.first();
    while let Some(head) = next {
        heads.push(head.clone());
        next = waiting.from(&edge(head.tier, &head.owner, u64::MAX)).next();
    }
    heads
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

    impl Slots {
        fn take_both(&mut self, session: &Name) {
            self.take_slot();
            self.take_session(session);
        }

        fn give_both(&mut self, session: &Name) {
            self.give_slot();
            self.give_session(session);
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
        slots.take_both(&Name::from("s"));
        assert_eq!(picked(&mut slots, 0, None).as_deref(), Some("y"));
        slots.give_both(&Name::from("s"));
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
        slots.take_both(&Name::from("t"));
        assert_eq!(
            (picked(&mut slots, 9, None), slots.next_due_ms()),
            (None, None)
        );
    }

    #[test]
    fn ranks_are_kept_in_the_declared_order() {
        let name = |text: &str| Name::from(text);
        let mut ranks = Vec::new();
        for tier in [0, 3] {
            for owner in ["a", "a b", "ab", "ü"] {
                for ready_seq in [0, 255, 256, u64::MAX - 1] {
                    for (step, coordination) in [("s", "c"), ("s.1", "a"), ("s1", "a")] {
                        for session in ["", "x", "x "] {
                            ranks.push(Rank {
                                tier,
                                owner: name(owner),
                                ready_seq,
                                step: name(step),
                                coordination: name(coordination),
                                session: name(session),
                            });
                        }
                    }
                }
            }
        }
        for a in &ranks {
            for b in &ranks {
                assert_eq!(
                    a.cmp(b),
                    a.key().words().cmp(b.key().words()),
                    "{a:?} {b:?}"
                );
            }
        }
        assert_eq!(head_of(&Ordered::default(), 0, &name("a")), None);
    }

    #[test]
    fn a_candidate_that_is_there_already_is_replaced() {
        let mut slots = slots(9);
        slots.insert(candidate("x", "a", "s", Priority::Low, 1, 0));
        slots.insert(candidate("x", "b", "t", Priority::High, 2, 0));
        slots.insert(candidate("y", "a", "s", Priority::Normal, 3, 0));
        let (x, y, c) = (Name::from("x"), Name::from("y"), Name::from("c"));
        assert!(slots.contains(&c, &x) && !slots.contains(&x, &c));
        assert_eq!(picked(&mut slots, 0, None).as_deref(), Some("x"));
        slots.insert(candidate("x", "b", "t", Priority::High, 2, 900));
        assert_eq!(picked(&mut slots, 0, None).as_deref(), Some("y"));
        assert_eq!(slots.next_due_ms(), Some(900));
        slots.insert(candidate("x", "b", "t", Priority::High, 2, 0));
        assert_eq!(slots.next_due_ms(), None);
        slots.remove(&c, &x);
        slots.remove(&c, &y);
        assert!(!slots.contains(&c, &x));
        assert_eq!(picked(&mut slots, 999_999, None), None);
        assert!(slots.rising.is_empty() && slots.heads.is_empty() && slots.sessions.len() == 0);
    }

    #[test]
    fn slots_and_sessions_are_taken_each_for_itself() {
        let mut slots = slots(1);
        let name = Name::from("s");
        slots.insert(candidate("x", "a", "s", Priority::High, 1, 0));
        slots.take_session(&name);
        assert_eq!((slots.in_flight(), slots.session_out("s")), (0, 1));
        assert_eq!(picked(&mut slots, 0, None), None, "the session is busy");
        slots.give_session(&name);
        slots.take_slot();
        slots.take_slot();
        assert_eq!((slots.in_flight(), slots.session_out("s")), (2, 0));
        slots.give_slot();
        assert!(slots.is_full());
        slots.give_slot();
        assert_eq!(picked(&mut slots, 0, None).as_deref(), Some("x"));
    }

    #[test]
    fn a_session_may_be_taken_past_its_width_and_comes_back() {
        let mut slots = slots(9);
        let name = Name::from("s");
        slots.insert(candidate("x", "a", "s", Priority::High, 1, 0));
        slots.take_session(&name);
        slots.take_session(&name);
        slots.give_session(&name);
        assert_eq!(picked(&mut slots, 0, None), None);
        slots.give_session(&name);
        assert_eq!(picked(&mut slots, 0, None).as_deref(), Some("x"));
    }
}
