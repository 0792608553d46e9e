//! The state of a domain, as folded from its ledger, and the indexes over it.
//!
//! Nothing here decides. Only [`crate::apply`] changes the state, through the `edit_*` functions, which keep timers and
//! slots in step with it.

use crate::arbitration::Owner;
use crate::claim;
use crate::closed::{Closed, ClosedTable};
use crate::codec::object;
use crate::compact::{Digest, push};
use crate::config::Config;
use crate::event::{CancelledBy, Counts, Name, Record, TerminalReason, TerminalState};
use crate::order::{self, Last, compare, same};
use crate::plan::{EscalationPolicy, Human, On, Plan};
use crate::receipt::Head;
use crate::slot::{Candidate, Slots};
use crate::table::{Numbered, Table};
use crate::timer::{Due, Timer, TimerClass, Timers};
use crate::waiters::{Claims, Facts, Place};

mod step;

pub(crate) use step::*;

/// A report that its owner has not acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The step it is about; none for the end of the coordination.
    pub(crate) step: Option<usize>,
    pub(crate) attempt: u32,
    pub(crate) at_ms: u64,
    pub(crate) delivery: u32,
    /// None once it was given up.
    pub(crate) next_due_ms: Option<u64>,
    /// What a completed step left behind; of others the state of the step tells enough.
    pub(crate) result: Option<crate::event::Completed>,
}

object!(Report {
    "step": opt step,
    "attempt": req attempt,
    "atMs": req at_ms,
    "delivery": req delivery,
    "nextDueMs": opt next_due_ms,
    "result": opt result,
});

/// How a coordination ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) terminal: TerminalState,
    pub(crate) reason: Option<TerminalReason>,
    pub(crate) seq: u64,
}

object!(Ended {
    "terminal": req terminal,
    "reason": opt reason,
    "seq": req seq,
});

/// A coordination that is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Coordination {
    pub(crate) id: Name,
    pub(crate) owner: Name,
    /// The plan without its steps.
    pub(crate) plan: Plan,
    pub(crate) plan_digest: String,
    pub(crate) rules: u32,
    pub(crate) created_seq: u64,
    pub(crate) created_ms: u64,
    pub(crate) cancel_grace_ms: u64,
    pub(crate) cleanup_grace_ms: u64,
    /// When all of it must have ended: the plan's own deadline, cut to that of the plan it belongs to.
    pub(crate) deadline_ms: Option<u64>,
    /// How deep below a plan without a parent.
    pub(crate) depth: u32,
    /// Child plans that have not ended and are not abandoned.
    pub(crate) child_plans: Vec<Name>,
    /// Resources that steps own, in the order of their names, with the sessions.
    pub(crate) owned: Vec<(String, Name)>,
    /// In the order of their ids.
    pub(crate) steps: Vec<Step>,
    /// A cancel of the whole plan.
    pub(crate) cancel: Option<Stop>,
    /// The failure policy.
    pub(crate) trip: Option<Stop>,
    /// The plan's deadline.
    pub(crate) expired: Option<Stop>,
    /// The cancel came with the end of the plan's parent.
    pub(crate) cancel_by_parent: bool,
    /// The cancel of the whole plan ended a step.
    pub(crate) cancel_bit: bool,
    /// A question to a person was open at the deadline.
    pub(crate) unanswered: bool,
    pub(crate) retries_used: u64,
    pub(crate) last_end_seq: u64,
    pub(crate) last_end_ms: u64,
    pub(crate) counts: Counts,
    /// Steps that have not ended: those of the plan proper, and cleanup steps.
    pub(crate) open_work: usize,
    pub(crate) open_cleanup: usize,
    pub(crate) ended: Option<Ended>,
    /// By the number of the reported record.
    pub(crate) reports: Vec<(u64, Report)>,
    pub(crate) payload_bytes: u64,
    /// Pending steps whose join can no longer be satisfied. Empty whenever the core is settled; a snapshot may be taken of an
    /// instance that replayed up to the middle of a call.
    pub(crate) skippable: Vec<usize>,
    pub(crate) last_step: Last,
}

object!(Coordination {
    "id": req id,
    "owner": req owner,
    "plan": req plan,
    "planDigest": req plan_digest,
    "rules": req rules,
    "createdSeq": req created_seq,
    "createdMs": req created_ms,
    "cancelGraceMs": req cancel_grace_ms,
    "cleanupGraceMs": req cleanup_grace_ms,
    "deadlineMs": opt deadline_ms,
    "depth": set depth,
    "childPlans": set child_plans,
    "owned": set owned,
    "steps": req steps,
    "cancel": opt cancel,
    "trip": opt trip,
    "expired": opt expired,
    "cancelByParent": set cancel_by_parent,
    "cancelBit": req cancel_bit,
    "unanswered": set unanswered,
    "retriesUsed": req retries_used,
    "lastEndSeq": req last_end_seq,
    "lastEndMs": req last_end_ms,
    "counts": req counts,
    "openWork": req open_work,
    "openCleanup": req open_cleanup,
    "ended": opt ended,
    "reports": req reports,
    "payloadBytes": req payload_bytes,
    "skippable": set skippable,
    "": skip last_step,
});

impl Coordination {
    pub(crate) fn step_index(&self, step_id: &str) -> Option<usize> {
        let last = self.last_step.get();
        if self
            .steps
            .get(last)
            .is_some_and(|step| same(&step.id, step_id))
        {
            return Some(last);
        }
        let found = self
            .steps
            .binary_search_by(|step| compare(&step.id, step_id));
        let place = found.ok()?;
        self.last_step.set(place);
        Some(place)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.cancel.is_some() || self.trip.is_some() || self.expired.is_some()
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match (&self.ended, self.is_stopping()) {
            (Some(_), _) => "final",
            (None, true) => "stopping",
            (None, false) => "open",
        }
    }

    /// The cancel or policy stop that began first, and what it ends steps by.
    pub(crate) fn stop_at_work(&self) -> Option<(Stop, CancelledBy)> {
        let by = if self.cancel_by_parent {
            CancelledBy::Parent
        } else {
            CancelledBy::Cancel
        };
        let cancel = self.cancel.map(|stop| (stop, by));
        let trip = self.trip.map(|stop| (stop, CancelledBy::FailFast));
        cancel
            .into_iter()
            .chain(trip)
            .min_by_key(|(stop, _)| stop.seq)
    }

    /// What is ending this step, where something is.
    pub(crate) fn stop_of(&self, step: &Step) -> Option<(Stop, CancelledBy)> {
        let own = step.cancel.map(|stop| (stop, CancelledBy::Cancel));
        own.or_else(|| self.stop_at_work().filter(|_| !step.def.cleanup))
    }

    /// When cleanup steps must have ended: the grace counts from the first of cancel, trip and plan deadline.
    pub(crate) fn cleanup_until_ms(&self) -> Option<u64> {
        let stops = [self.cancel, self.trip]
            .into_iter()
            .flatten()
            .map(|stop| stop.at_ms);
        stops
            .chain(self.deadline_ms)
            .min()
            .map(|at_ms| at_ms + self.cleanup_grace_ms)
    }

    /// When this attempt must have ended if it went out now.
    pub(crate) fn attempt_deadline_ms(&self, step: &Step, now_ms: u64) -> u64 {
        let own = now_ms + step.def.timeout_ms;
        match (step.def.cleanup, self.deadline_ms) {
            (false, Some(deadline_ms)) => own.min(deadline_ms),
            (true, deadline_ms)
                if self.is_stopping() || deadline_ms.is_some_and(|plan| plan <= own) =>
            {
                self.cleanup_until_ms().unwrap_or(own)
            }
            _ => own,
        }
    }

    /// The time that no retry of this step may reach.
    pub(crate) fn retry_limit_ms(&self, step: &Step) -> Option<u64> {
        if step.def.cleanup {
            self.cleanup_until_ms()
        } else {
            self.deadline_ms
        }
    }

    /// Whether a failure edge leaves this step.
    pub(crate) fn has_fallback(&self, step: &Step) -> bool {
        step.children.iter().any(|(_, on)| *on == On::Failure)
    }

    /// The session that owns a resource inside this plan: that of the step that owns it or what it lies in, else that of
    /// the policy.
    pub(crate) fn owner_of(&self, resource: &str) -> Option<&str> {
        let place = |resource: &str| {
            let found = self
                .owned
                .binary_search_by(|(known, _)| compare(known, resource));
            found.ok().map(|place| &*self.owned[place].1)
        };
        if self.owned.is_empty() {
            return self.plan.conflict_policy.owner_of(resource);
        }
        place(resource)
            .or_else(|| claim::ancestors(resource).find_map(place))
            .or_else(|| self.plan.conflict_policy.owner_of(resource))
    }

    /// Whether people are asked.
    pub(crate) fn human(&self) -> Option<&Human> {
        let policy = &self.plan.failure_policy;
        let asks = policy.escalation_policy == EscalationPolicy::Hitl;
        policy.human.as_ref().filter(|_| asks)
    }

    /// Whether a person is asked what comes up now. R-38: with a cancel at work nobody is, also about cleanup.
    pub(crate) fn asks(&self) -> bool {
        self.cancel.is_none() && self.human().is_some()
    }

    /// The timers of a step: deadlines keep running under a cancel, and rest while a person is asked. None is left
    /// when it has ended.
    fn step_timers(&self, step: &Step, timers: &mut Vec<Due>) {
        if step.state.is_final() {
            return;
        }
        let timer = |class, due_ms| Due {
            class,
            due_ms,
            number: u64::from(step.attempt),
        };
        for hook in &step.hooks {
            timers.push(Due {
                number: hook.seq,
                ..timer(TimerClass::Hook, hook.due_ms)
            });
        }
        let escalation = step.escalation.as_ref();
        if let Some(due_ms) = escalation.and_then(|escalation| escalation.due_ms) {
            timers.push(timer(TimerClass::Human, due_ms));
        }
        if !step.is_out() || step.is_suspended() {
            return;
        }
        // An attempt that is cut to the plan's deadline is ended by that one, with everything else that is open then. The
        // cleanup grace stands in place of the deadlines of cleanup steps once a stop is at work.
        let plan_comes_first = self
            .deadline_ms
            .is_some_and(|plan_ms| plan_ms <= step.deadline_ms);
        let replaced = plan_comes_first || step.def.cleanup && self.is_stopping();
        if !replaced {
            timers.push(timer(TimerClass::Attempt, step.deadline_ms));
        }
        // What would come at the end of the attempt or later never comes.
        let in_time = |due_ms: &u64| step.def.cleanup || *due_ms < step.deadline_ms;
        let ack = step
            .ack_due_ms
            .filter(|_| step.state == StepState::Dispatched);
        let stop = self.stop_of(step).map(|(stop, _)| stop).or(step.preempted);
        let grace = stop.map(|stop| stop.grace_until_ms);
        for (class, due_ms) in [(TimerClass::Ack, ack), (TimerClass::CancelGrace, grace)] {
            if let Some(due_ms) = due_ms.filter(in_time) {
                timers.push(timer(class, due_ms));
            }
        }
        // One for all: whatever is due with the first is expired with it.
        let first = step.grants.iter().map(|grant| grant.expires_ms).min();
        if let Some(due_ms) = first {
            timers.push(timer(TimerClass::ClaimExpiry, due_ms));
        }
    }

    /// The timers of no step.
    fn own_timers(&self, timers: &mut Vec<Due>) {
        let plan = self.deadline_ms.filter(|_| self.open_work > 0);
        let cleanup = self.cleanup_until_ms().filter(|_| self.open_cleanup > 0);
        let children = crate::child::waits_until_ms(self);
        for (class, due_ms) in [
            (TimerClass::Plan, plan),
            (TimerClass::CleanupGrace, cleanup),
            (TimerClass::CancelGrace, children),
        ] {
            if let Some(due_ms) = due_ms {
                timers.push(Due {
                    class,
                    due_ms,
                    number: 0,
                });
            }
        }
    }

    /// Every timer but those of reports.
    fn each_timer(&self, each: &mut dyn FnMut(Timer)) {
        let mut timers = Vec::new();
        for step in &self.steps {
            self.step_timers(step, &mut timers);
            for due in timers.drain(..) {
                each(due.of(&self.id, Some(&step.id)));
            }
        }
        self.own_timers(&mut timers);
        for due in timers {
            each(due.of(&self.id, None));
        }
    }

    fn report_place(&self, seq: u64) -> Result<usize, usize> {
        self.reports.binary_search_by_key(&seq, |(seq, _)| *seq)
    }

    /// A report that is not acknowledged.
    pub(crate) fn report(&self, seq: u64) -> Option<&Report> {
        self.report_place(seq)
            .ok()
            .map(|place| &self.reports[place].1)
    }

    /// Who is told of a record: the session that added the step, else the owner.
    pub(crate) fn told_by(&self, seq: u64) -> &str {
        let step = self.report(seq).and_then(|report| report.step);
        let added_by = step.and_then(|index| self.steps[index].added_by.as_deref());
        added_by.unwrap_or(&self.owner)
    }

    /// The timer of a report.
    pub(crate) fn report_timer(&self, seq: u64, report: &Report) -> Option<Timer> {
        let (coordination, step) = (self.id.clone(), Name::from(""));
        report.next_due_ms.map(|due_ms| Timer {
            due_ms,
            class: TimerClass::Report,
            coordination,
            step,
            number: seq,
        })
    }

    /// All timers of the coordination, for its digest.
    pub(crate) fn timers(&self) -> Vec<Timer> {
        let reports = self
            .reports
            .iter()
            .filter_map(|(seq, report)| self.report_timer(*seq, report));
        let mut all: Vec<Timer> = reports.collect();
        self.each_timer(&mut |timer| all.push(timer));
        order::sort(all, Timer::cmp)
    }

    /// Lets go of room that nothing will need, and of second copies of ids.
    pub(crate) fn compact(&mut self) {
        let ids: Vec<Name> = self.steps.iter().map(|step| step.id.clone()).collect();
        self.steps.shrink_to_fit();
        for step in &mut self.steps {
            step.children.shrink_to_fit();
            for edge in &mut step.def.depends_on {
                if let Ok(at) = ids.binary_search_by(|id| compare(id, &edge.step_id)) {
                    edge.step_id = ids[at].clone();
                }
            }
        }
    }

    /// Tests what a snapshot says of this coordination's own order, so that no index in it leads astray.
    pub(crate) fn check_indexes(&self) -> Result<(), String> {
        let count = self.steps.len();
        let sorted = self.steps.windows(2).all(|pair| pair[0].id < pair[1].id);
        let within = self
            .steps
            .iter()
            .all(|step| step.children.iter().all(|(child, _)| *child < count));
        let reports = self
            .reports
            .iter()
            .all(|(_, report)| report.step.is_none_or(|index| index < count));
        let open = |cleanup| {
            self.steps
                .iter()
                .filter(|step| step.def.cleanup == cleanup && !step.state.is_final())
                .count()
        };
        let skips = self.skippable.iter().all(|index| *index < count);
        let counted = open(true) == self.open_cleanup && open(false) == self.open_work;
        if sorted && within && reports && skips && counted {
            return Ok(());
        }
        Err(format!("the snapshot of {} contradicts itself", self.id))
    }

    /// A step as one that can go out as soon as a slot is free.
    pub(crate) fn candidate(&self, step: &Step) -> Candidate {
        Candidate {
            coordination: self.id.clone(),
            step: step.id.clone(),
            owner: self.owner.clone(),
            session: step.session.clone(),
            priority: step.def.priority,
            ready_seq: step.ready_seq,
            ready_ms: step.ready_ms,
        }
    }
}

/// The configuration and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configured {
    pub(crate) config: Config,
    pub(crate) digest: String,
    pub(crate) seq: u64,
}

object!(Configured {
    "config": req config,
    "digest": req digest,
    "seq": req seq,
});

/// The state of a domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) head: Head,
    /// Time of the last record.
    pub(crate) now_ms: u64,
    pub(crate) configured: Option<Configured>,
    pub(crate) live: Table<Coordination>,
    pub(crate) closed: ClosedTable,
    /// Owner of the last dispatched step, for the round-robin of R-63.
    pub(crate) last_owner: Option<Name>,
    pub(crate) index: Index,
}

/// What follows from the state and is kept at hand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub(crate) timers: Timers,
    pub(crate) slots: Slots,
    /// Reports that are not acknowledged, by the number of the reported record.
    pub(crate) reports: Numbered<Name>,
    pub(crate) claims: Claims,
    /// Hook requests that are open, and questions to people that ever were, by the number of their record.
    pub(crate) hooks: Numbered<Place>,
    pub(crate) escalations: Numbered<Place>,
    /// Coordinations that may have something to settle.
    pub(crate) dirty: Vec<Name>,
    pub(crate) live_steps: u64,
    pub(crate) live_payload_bytes: u64,
}

impl State {
    pub(crate) fn config(&self) -> Option<&Config> {
        self.configured
            .as_ref()
            .map(|configured| &configured.config)
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.head.seq + 1
    }

    /// The coordination that a record or timer names; that it is live was tested before.
    pub(crate) fn coordination(&self, id: &str) -> &Coordination {
        self.live.get(id).expect("the coordination is live")
    }

    /// Changes one step, and keeps the indexes in step.
    pub(crate) fn edit_step(&mut self, id: &str, index: usize, edit: &mut dyn FnMut(&mut Step)) {
        let (live, own) = (&mut self.live, &mut self.index);
        let coordination = live.get_mut(id).expect("the coordination is live");
        own.edit_step(coordination, index, edit);
        own.touch(&coordination.id);
    }

    /// Changes the coordination itself, in a way that may move the timers of all its steps.
    pub(crate) fn edit_coordination(&mut self, id: &str, edit: &mut dyn FnMut(&mut Coordination)) {
        let coordination = self.live.get_mut(id).expect("the coordination is live");
        let index = &mut self.index;
        index.disarm_all(coordination);
        edit(coordination);
        index.arm_all(coordination);
        index.touch(&coordination.id);
    }

    /// Takes in a step that was added while the plan runs.
    pub(crate) fn add_step(&mut self, id: &str, step: Step) {
        let coordination = self.live.get_mut(id).expect("the coordination is live");
        let index = &mut self.index;
        let Err(place) = coordination
            .steps
            .binary_search_by(|known| compare(&known.id, &step.id))
        else {
            return;
        };
        let mut timers = index.timers.lists();
        coordination.own_timers(&mut timers[0]);
        // Steps are named by their places elsewhere; those behind move up by one.
        let moved = |at: usize| if at >= place { at + 1 } else { at };
        for known in &mut coordination.steps {
            for (child, _) in &mut known.children {
                *child = moved(*child);
            }
        }
        for at in &mut coordination.skippable {
            *at = moved(*at);
        }
        for (_, report) in &mut coordination.reports {
            report.step = report.step.map(moved);
        }
        let bytes = step.def.payload_bytes();
        coordination.payload_bytes += bytes;
        index.live_payload_bytes += bytes;
        index.live_steps += 1;
        if step.def.cleanup {
            coordination.open_cleanup += 1;
        } else {
            coordination.open_work += 1;
        }
        index.slots.insert(coordination.candidate(&step));
        coordination.steps.insert(place, step);
        coordination.own_timers(&mut timers[1]);
        index.timers.rearm(&coordination.id, None, timers);
        index.touch(&coordination.id);
    }

    /// Gives a step a resource.
    pub(crate) fn add_grant(&mut self, id: &str, index: usize, grant: &Grant) {
        let coordination = self.coordination(id);
        let place = (
            coordination.id.clone(),
            coordination.steps[index].id.clone(),
        );
        self.index.claims.add_grant(place, grant);
        self.edit_step(id, index, &mut |step| {
            step.claim_number.get_or_insert(grant.token);
            push(&mut step.grants, grant.clone());
        });
    }

    /// Takes resources from a step.
    pub(crate) fn remove_grants(&mut self, id: &str, index: usize, tokens: &[u64]) {
        let step = &self.live.get(id).expect("the coordination is live").steps[index];
        for grant in &step.grants {
            if tokens.contains(&grant.token) {
                self.index.claims.remove_grant(grant);
            }
        }
        self.edit_step(id, index, &mut |step| {
            step.grants.retain(|grant| !tokens.contains(&grant.token));
        });
    }

    /// Builds anew what follows from who owns what in the domain.
    pub(crate) fn set_owners(&mut self, owners: &[Owner]) {
        self.index.claims.set_owners(owners);
        let (live, index) = (&self.live, &mut self.index);
        for (_, coordination) in live.iter() {
            index.add_claims(coordination);
        }
    }

    /// Counts a step as ended.
    pub(crate) fn step_ended(
        &mut self,
        id: &str,
        index: usize,
        record: &Record,
        count: &dyn Fn(&mut Counts),
    ) {
        let coordination = self.live.get_mut(id).expect("the coordination is live");
        let mut timers = self.index.timers.lists();
        coordination.own_timers(&mut timers[0]);
        order::remove(&mut coordination.skippable, &index);
        if coordination.steps[index].def.cleanup {
            coordination.open_cleanup -= 1;
        } else {
            coordination.open_work -= 1;
        }
        coordination.last_end_seq = record.seq;
        coordination.last_end_ms = record.at_ms;
        count(&mut coordination.counts);
        coordination.own_timers(&mut timers[1]);
        self.index.timers.rearm(&coordination.id, None, timers);
    }

    /// Changes a report, adds it or takes it away.
    pub(crate) fn edit_report(
        &mut self,
        id: &str,
        seq: u64,
        edit: &mut dyn FnMut(Option<Report>) -> Option<Report>,
    ) {
        let coordination = self.live.get_mut(id).expect("the coordination is live");
        let place = coordination.report_place(seq);
        let old = place.ok().map(|place| coordination.reports.remove(place).1);
        if let Some(timer) = old
            .as_ref()
            .and_then(|old| coordination.report_timer(seq, old))
        {
            self.index.timers.disarm(&timer);
        }
        match edit(old) {
            Some(new) => {
                if let Some(timer) = coordination.report_timer(seq, &new) {
                    self.index.timers.arm(timer);
                }
                self.index.reports.insert(seq, coordination.id.clone());
                let place = place.unwrap_or_else(|place| place);
                coordination.reports.insert(place, (seq, new));
            }
            None => {
                self.index.reports.remove(&seq);
            }
        }
    }

    /// Takes a coordination in, with everything that follows from it.
    pub(crate) fn insert(&mut self, coordination: Coordination) {
        let index = &mut self.index;
        index.live_steps += coordination.steps.len() as u64;
        index.live_payload_bytes += coordination.payload_bytes;
        index.arm_all(&coordination);
        for (seq, report) in &coordination.reports {
            index.reports.insert(*seq, coordination.id.clone());
            if let Some(timer) = coordination.report_timer(*seq, report) {
                index.timers.arm(timer);
            }
        }
        for step in &coordination.steps {
            if step.state.is_candidate() {
                index.slots.insert(coordination.candidate(step));
            }
            if step.holds_slot() {
                index.slots.take_slot();
            }
            if step.holds_session() {
                index.slots.take_session(&step.session);
            }
        }
        index.add_claims(&coordination);
        index.touch(&coordination.id);
        self.live.insert(coordination.id.clone(), coordination);
    }

    /// Drops a coordination that is final and whose reports are all acknowledged or given up.
    pub(crate) fn close_if_done(&mut self, id: &str) {
        let coordination = self.coordination(id);
        let waits = coordination
            .reports
            .iter()
            .any(|(_, report)| report.next_due_ms.is_some());
        let Some(ended) = coordination.ended.clone().filter(|_| !waits) else {
            return;
        };
        let Some((id, coordination)) = self.live.remove(id) else {
            return;
        };
        self.index.live_steps -= coordination.steps.len() as u64;
        self.index.live_payload_bytes -= coordination.payload_bytes;
        for seq in coordination.steps.iter().flat_map(|step| &step.asked) {
            self.index.escalations.remove(seq);
        }
        order::remove(&mut self.index.dirty, &id);
        let undelivered = coordination
            .reports
            .iter()
            .map(|(seq, report)| (*seq, report.delivery))
            .collect();
        let others = coordination.reports.iter().filter_map(|(seq, report)| {
            let session = coordination.steps[report.step?].added_by.clone()?;
            Some((*seq, session))
        });
        let for_others = others.collect();
        let closed = Closed {
            for_others,
            owner: coordination.owner,
            plan_digest: Digest::of(&coordination.plan_digest),
            created_seq: coordination.created_seq,
            terminal: ended.terminal,
            terminal_seq: ended.seq,
            undelivered,
        };
        self.closed.insert(id, closed);
    }
}

impl Index {
    /// A coordination may have something to settle.
    pub(crate) fn touch(&mut self, id: &Name) {
        let known = self.dirty.last().is_some_and(|last| same(last, id));
        if !known {
            order::insert(&mut self.dirty, id.clone());
        }
    }

    fn edit_step(
        &mut self,
        coordination: &mut Coordination,
        index: usize,
        edit: &mut dyn FnMut(&mut Step),
    ) {
        let step = &coordination.steps[index];
        let (was, slot, session) = (step.state, step.holds_slot(), step.holds_session());
        let waiter = step.is_waiter();
        let mut timers = self.timers.lists();
        coordination.step_timers(step, &mut timers[0]);
        // A waiting step that was put up for a slot stays so until it gets one or what it waits for is taken.
        let put_up =
            was == StepState::WaitingClaim && self.slots.contains(&coordination.id, &step.id);
        // The order is left under the same facts under which it was entered.
        let before = waiter.then(|| Facts::of(step));
        edit(&mut coordination.steps[index]);
        let step = &coordination.steps[index];
        match (slot, step.holds_slot()) {
            (true, false) => self.slots.give_slot(),
            (false, true) => self.slots.take_slot(),
            _ => {}
        }
        match (session, step.holds_session()) {
            (true, false) => self.slots.give_session(&step.session),
            (false, true) => self.slots.take_session(&step.session),
            _ => {}
        }
        if step.state.is_candidate() || put_up && step.state == StepState::WaitingClaim {
            self.slots.insert(coordination.candidate(step));
        } else if was.is_candidate() || put_up {
            // Only now: a session that its step has taken meanwhile does not have to be forgotten and made anew.
            self.slots.remove(&coordination.id, &step.id);
        }
        coordination.step_timers(step, &mut timers[1]);
        self.timers.rearm(&coordination.id, Some(&step.id), timers);
        match before.filter(|_| !step.is_waiter()) {
            Some(before) => self.claims.remove_waiter(coordination, step, before),
            None if !waiter && step.is_waiter() => self.claims.add_waiter(coordination, step),
            // It stood in the order already while hooks were asked, and what it waits for may have become free since.
            None if was != step.state && step.state == StepState::WaitingClaim => {
                let place = (coordination.id.clone(), step.id.clone());
                self.claims.look_again(place);
            }
            None => {}
        }
    }

    /// Takes in what a coordination's steps hold, await, and ask.
    fn add_claims(&mut self, coordination: &Coordination) {
        for step in &coordination.steps {
            let place = || (coordination.id.clone(), step.id.clone());
            for grant in &step.grants {
                self.claims.add_grant(place(), grant);
            }
            if step.is_waiter() {
                self.claims.add_waiter(coordination, step);
            }
            for hook in &step.hooks {
                self.hooks.insert(hook.seq, place());
            }
            for seq in &step.asked {
                self.escalations.insert(*seq, place());
            }
        }
    }

    fn disarm_all(&mut self, coordination: &Coordination) {
        coordination.each_timer(&mut |timer| self.timers.disarm(&timer));
    }

    fn arm_all(&mut self, coordination: &Coordination) {
        coordination.each_timer(&mut |timer| self.timers.arm(timer));
    }
}
