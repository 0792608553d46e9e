//! The state of a domain, as folded from its ledger, and the indexes over it.
//!
//! Nothing here decides. Only [`crate::apply`] changes the state, through the `edit_*` functions, which keep timers and
//! slots in step with it.

use crate::codec::{object, words};
use crate::config::Config;
use crate::envelope::FailureClass;
use crate::event::{CancelledBy, Counts, Name, SkipReason, TerminalReason, TerminalState};
use crate::order;
use crate::plan::{self, On, Plan};
use crate::receipt::Head;
use crate::slot::{Candidate, Slots};
use crate::table::Table;
use crate::timer::{Timer, TimerClass, Timers};
use std::collections::BTreeMap;

/// State of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StepState {
    Pending,
    Ready,
    RetryWait,
    Dispatched,
    Acknowledged,
    Completed,
    Failed,
    TimedOut,
    Cancelled,
    Skipped,
}

words!(StepState {
    Pending = "pending",
    Ready = "ready",
    RetryWait = "retry_wait",
    Dispatched = "dispatched",
    Acknowledged = "acknowledged",
    Completed = "completed",
    Failed = "failed",
    TimedOut = "timed_out",
    Cancelled = "cancelled",
    Skipped = "skipped",
});

impl StepState {
    pub(crate) fn is_final(self) -> bool {
        self >= Self::Completed
    }

    /// The attempt is with an agent.
    pub(crate) fn is_out(self) -> bool {
        matches!(self, Self::Dispatched | Self::Acknowledged)
    }

    /// The attempt can go out as soon as a slot is free.
    pub(crate) fn is_candidate(self) -> bool {
        matches!(self, Self::Ready | Self::RetryWait)
    }
}

/// What is kept of an input, so that its repeat gets the same receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) digest: String,
    pub(crate) seq: u64,
    pub(crate) state: StepState,
}

object!(Identity {
    "digest": req digest,
    "seq": req seq,
    "state": req state,
});

/// A stop at work on a plan or on one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// The record that began it.
    pub(crate) seq: u64,
    pub(crate) at_ms: u64,
    /// Until when attempts that are out may end by themselves.
    pub(crate) grace_until_ms: u64,
}

object!(Stop {
    "seq": req seq,
    "atMs": req at_ms,
    "graceUntilMs": req grace_until_ms,
});

/// Inputs without effect that an attempt has in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) late: u32,
    pub(crate) rejected: u32,
}

object!(Kept {
    "late": req late,
    "rejected": req rejected,
});

/// One step of a live coordination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) def: plan::Step,
    pub(crate) id: Name,
    pub(crate) session: Name,
    /// Steps that depend on this one, by index.
    pub(crate) children: Vec<(usize, On)>,
    /// Dependencies that fired, and that no longer can.
    pub(crate) fired: usize,
    pub(crate) dead: usize,
    pub(crate) state: StepState,
    /// The current attempt, from 1 on from the start.
    pub(crate) attempt: u32,
    /// The record that made it ready, and since when or from when on it can go out.
    pub(crate) ready_seq: u64,
    pub(crate) ready_ms: u64,
    /// Of the current attempt: its step.dispatched, its last record, its deadline, its deliveries.
    pub(crate) dispatched_seq: u64,
    pub(crate) dispatched_ms: u64,
    pub(crate) last_seq: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) ack_due_ms: Option<u64>,
    pub(crate) delivery: u32,
    /// Retries that used the budget, and that did not.
    pub(crate) retries: u32,
    pub(crate) free_retries: u32,
    /// The record that ended each attempt so far.
    pub(crate) ended: Vec<u64>,
    /// Why it was skipped, where it was.
    pub(crate) skipped: Option<SkipReason>,
    /// The last failure.
    pub(crate) class: Option<FailureClass>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// A cancel of this one step.
    pub(crate) cancel: Option<Stop>,
    /// By `attempt:intent:part`, sorted.
    pub(crate) identities: Vec<(String, Identity)>,
    /// By attempt; only attempts that have such inputs.
    pub(crate) kept: Vec<(u32, Kept)>,
}

object!(Step {
    "def": req def,
    "id": req id,
    "session": req session,
    "children": req children,
    "fired": req fired,
    "dead": req dead,
    "state": req state,
    "attempt": req attempt,
    "readySeq": req ready_seq,
    "readyMs": req ready_ms,
    "dispatchedSeq": req dispatched_seq,
    "dispatchedMs": req dispatched_ms,
    "lastSeq": req last_seq,
    "deadlineMs": req deadline_ms,
    "ackDueMs": opt ack_due_ms,
    "delivery": req delivery,
    "retries": req retries,
    "freeRetries": req free_retries,
    "ended": req ended,
    "skipped": opt skipped,
    "class": opt class,
    "code": opt code,
    "message": opt message,
    "cancel": opt cancel,
    "identities": req identities,
    "kept": req kept,
});

impl Step {
    /// What is kept of the input with this key.
    pub(crate) fn identity(&self, key: &str) -> Option<&Identity> {
        let place = self
            .identities
            .binary_search_by(|(known, _)| known.as_str().cmp(key));
        place.ok().map(|place| &self.identities[place].1)
    }

    /// Keeps an input, with the present state for its receipt.
    pub(crate) fn remember(&mut self, key: String, digest: &str, seq: u64) {
        let identity = Identity {
            digest: digest.to_owned(),
            seq,
            state: self.state,
        };
        match self
            .identities
            .binary_search_by(|(known, _)| known.cmp(&key))
        {
            Ok(place) => self.identities[place].1 = identity,
            Err(place) => self.identities.insert(place, (key, identity)),
        }
    }

    /// The inputs without effect of an attempt.
    pub(crate) fn kept(&self, attempt: u32) -> Kept {
        self.kept
            .iter()
            .find(|(of, _)| *of == attempt)
            .map(|(_, kept)| *kept)
            .unwrap_or_default()
    }

    /// Counts an input without effect.
    pub(crate) fn keep(&mut self, attempt: u32, count: impl FnOnce(&mut Kept)) {
        let mut kept = self.kept(attempt);
        count(&mut kept);
        self.kept.retain(|(of, _)| *of != attempt);
        self.kept.push((attempt, kept));
    }
}

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
    /// In the order of their ids.
    pub(crate) steps: Vec<Step>,
    /// A cancel of the whole plan.
    pub(crate) cancel: Option<Stop>,
    /// The failure policy.
    pub(crate) trip: Option<Stop>,
    /// The plan's deadline.
    pub(crate) expired: Option<Stop>,
    /// The cancel of the whole plan ended a step.
    pub(crate) cancel_bit: bool,
    pub(crate) retries_used: u64,
    pub(crate) last_end_seq: u64,
    pub(crate) counts: Counts,
    /// Steps that have not ended: those of the plan proper, and cleanup steps.
    pub(crate) open_work: usize,
    pub(crate) open_cleanup: usize,
    pub(crate) ended: Option<Ended>,
    /// By the number of the reported record.
    pub(crate) reports: Vec<(u64, Report)>,
    pub(crate) payload_bytes: u64,
    /// Pending steps whose join can no longer be satisfied. Empty whenever the core is settled.
    pub(crate) skippable: Vec<usize>,
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
    "steps": req steps,
    "cancel": opt cancel,
    "trip": opt trip,
    "expired": opt expired,
    "cancelBit": req cancel_bit,
    "retriesUsed": req retries_used,
    "lastEndSeq": req last_end_seq,
    "counts": req counts,
    "openWork": req open_work,
    "openCleanup": req open_cleanup,
    "ended": opt ended,
    "reports": req reports,
    "payloadBytes": req payload_bytes,
    "skippable": skip skippable,
});

impl Coordination {
    pub(crate) fn step_index(&self, step_id: &str) -> Option<usize> {
        self.steps
            .binary_search_by(|step| (*step.id).cmp(step_id))
            .ok()
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
        let cancel = self.cancel.map(|stop| (stop, CancelledBy::Cancel));
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
            .chain(self.plan.deadline_ms)
            .min()
            .map(|at_ms| at_ms + self.cleanup_grace_ms)
    }

    /// When this attempt must have ended if it went out now.
    pub(crate) fn attempt_deadline_ms(&self, step: &Step, now_ms: u64) -> u64 {
        let own = now_ms + step.def.timeout_ms;
        match (step.def.cleanup, self.plan.deadline_ms) {
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
            self.plan.deadline_ms
        }
    }

    /// Whether a failure edge leaves this step.
    pub(crate) fn has_fallback(&self, step: &Step) -> bool {
        step.children.iter().any(|(_, on)| *on == On::Failure)
    }

    fn step_timers(&self, step: &Step) -> impl Iterator<Item = Timer> + use<> {
        let timer = |class, due_ms| Timer {
            due_ms,
            class,
            coordination: self.id.clone(),
            step: step.id.clone(),
            number: u64::from(step.attempt),
        };
        let out = step.state.is_out();
        // An attempt that is cut to the plan's deadline is ended by that one, with everything else that is open then. The
        // cleanup grace stands in place of the deadlines of cleanup steps once a stop is at work.
        let plan_comes_first = self
            .plan
            .deadline_ms
            .is_some_and(|plan_ms| plan_ms <= step.deadline_ms);
        let replaced = plan_comes_first || step.def.cleanup && self.is_stopping();
        let attempt = (out && !replaced).then(|| timer(TimerClass::Attempt, step.deadline_ms));
        // What would come at the end of the attempt or later never comes.
        let in_time = |due_ms: u64| step.def.cleanup || due_ms < step.deadline_ms;
        let unacknowledged = step.state == StepState::Dispatched;
        let ack = step
            .ack_due_ms
            .filter(|due_ms| unacknowledged && in_time(*due_ms))
            .map(|due_ms| timer(TimerClass::Ack, due_ms));
        let stop = self.stop_of(step).filter(|_| out);
        let grace = stop
            .map(|(stop, _)| stop.grace_until_ms)
            .filter(|due_ms| in_time(*due_ms))
            .map(|due_ms| timer(TimerClass::CancelGrace, due_ms));
        attempt.into_iter().chain(ack).chain(grace)
    }

    fn own_timers(&self) -> impl Iterator<Item = Timer> + use<> {
        let timer = |class, due_ms| Timer {
            due_ms,
            class,
            coordination: self.id.clone(),
            step: "".into(),
            number: 0,
        };
        let plan = self.plan.deadline_ms.filter(|_| self.open_work > 0);
        let cleanup = self.cleanup_until_ms().filter(|_| self.open_cleanup > 0);
        let plan = plan.map(|due_ms| timer(TimerClass::Plan, due_ms));
        let cleanup = cleanup.map(|due_ms| timer(TimerClass::CleanupGrace, due_ms));
        plan.into_iter().chain(cleanup)
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
        let steps = self
            .steps
            .iter()
            .filter(|step| !step.state.is_final())
            .flat_map(|step| self.step_timers(step));
        let reports = self
            .reports
            .iter()
            .filter_map(|(seq, report)| self.report_timer(*seq, report));
        let mut all = std::collections::BTreeSet::new();
        for timer in self.own_timers().chain(steps).chain(reports) {
            all.insert(timer);
        }
        all.into_iter().collect()
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
        let counted = open(true) == self.open_cleanup && open(false) == self.open_work;
        if sorted && within && reports && counted {
            return Ok(());
        }
        Err(format!("the snapshot of {} contradicts itself", self.id))
    }

    fn candidate(&self, step: &Step) -> Option<Candidate> {
        step.state.is_candidate().then(|| Candidate {
            coordination: self.id.clone(),
            step: step.id.clone(),
            owner: self.owner.clone(),
            session: step.session.clone(),
            priority: step.def.priority,
            ready_seq: step.ready_seq,
            ready_ms: step.ready_ms,
        })
    }
}

/// What is kept of a closed coordination for the life of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) owner: Name,
    pub(crate) plan_digest: String,
    pub(crate) created_seq: u64,
    pub(crate) terminal: TerminalState,
    pub(crate) terminal_seq: u64,
    /// Reports that were given up, by the number of the reported record, with the deliveries made.
    pub(crate) undelivered: Vec<(u64, u32)>,
}

object!(Closed {
    "owner": req owner,
    "planDigest": req plan_digest,
    "createdSeq": req created_seq,
    "terminal": req terminal,
    "terminalSeq": req terminal_seq,
    "undelivered": req undelivered,
});

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
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) head: Head,
    /// Time of the last record.
    pub(crate) now_ms: u64,
    pub(crate) configured: Option<Configured>,
    pub(crate) live: Table<Coordination>,
    pub(crate) closed: Table<Closed>,
    /// Owner of the last dispatched step, for the round-robin of R-63.
    pub(crate) last_owner: Option<Name>,
    pub(crate) index: Index,
}

/// What follows from the state and is kept at hand.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) timers: Timers,
    pub(crate) slots: Slots,
    /// Reports that are not acknowledged, by the number of the reported record.
    pub(crate) reports: BTreeMap<u64, Name>,
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
        order::insert(&mut own.dirty, coordination.id.clone());
    }

    /// Changes the coordination itself, in a way that may move the timers of all its steps.
    pub(crate) fn edit_coordination(&mut self, id: &str, edit: &mut dyn FnMut(&mut Coordination)) {
        let coordination = self.live.get_mut(id).expect("the coordination is live");
        let index = &mut self.index;
        index.disarm_all(coordination);
        edit(coordination);
        index.arm_all(coordination);
        order::insert(&mut index.dirty, coordination.id.clone());
    }

    /// Counts a step as ended.
    pub(crate) fn step_ended(&mut self, id: &str, cleanup: bool, count: &dyn Fn(&mut Counts)) {
        let coordination = self.live.get_mut(id).expect("the coordination is live");
        for timer in coordination.own_timers() {
            self.index.timers.disarm(&timer);
        }
        if cleanup {
            coordination.open_cleanup -= 1;
        } else {
            coordination.open_work -= 1;
        }
        count(&mut coordination.counts);
        for timer in coordination.own_timers() {
            self.index.timers.arm(timer);
        }
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
            if let Some(candidate) = coordination.candidate(step) {
                index.slots.insert(candidate);
            }
            if step.state.is_out() {
                index.slots.take(&step.session);
            }
        }
        order::insert(&mut index.dirty, coordination.id.clone());
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
        order::remove(&mut self.index.dirty, &id);
        let undelivered = coordination
            .reports
            .iter()
            .map(|(seq, report)| (*seq, report.delivery))
            .collect();
        let closed = Closed {
            owner: coordination.owner,
            plan_digest: coordination.plan_digest,
            created_seq: coordination.created_seq,
            terminal: ended.terminal,
            terminal_seq: ended.seq,
            undelivered,
        };
        self.closed.insert(id, closed);
    }
}

impl Index {
    fn edit_step(
        &mut self,
        coordination: &mut Coordination,
        index: usize,
        edit: &mut dyn FnMut(&mut Step),
    ) {
        let step = &coordination.steps[index];
        let was = step.state;
        if !was.is_final() {
            for timer in coordination.step_timers(step) {
                self.timers.disarm(&timer);
            }
        }
        if was.is_candidate() {
            self.slots.remove(&coordination.id, &step.id);
        }
        edit(&mut coordination.steps[index]);
        let step = &coordination.steps[index];
        let is = step.state;
        if was.is_out() && !is.is_out() {
            self.slots.give(&step.session);
        }
        if is.is_out() && !was.is_out() {
            self.slots.take(&step.session);
        }
        if let Some(candidate) = coordination.candidate(step) {
            self.slots.insert(candidate);
        }
        if !is.is_final() {
            for timer in coordination.step_timers(step) {
                self.timers.arm(timer);
            }
        }
    }

    fn disarm_all(&mut self, coordination: &Coordination) {
        let open = coordination
            .steps
            .iter()
            .filter(|step| !step.state.is_final());
        for timer in open
            .flat_map(|step| coordination.step_timers(step))
            .chain(coordination.own_timers())
        {
            self.timers.disarm(&timer);
        }
    }

    fn arm_all(&mut self, coordination: &Coordination) {
        let open = coordination
            .steps
            .iter()
            .filter(|step| !step.state.is_final());
        for timer in open
            .flat_map(|step| coordination.step_timers(step))
            .chain(coordination.own_timers())
        {
            self.timers.arm(timer);
        }
    }
}
