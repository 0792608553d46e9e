//! A step of a live coordination, and what is kept of it: inputs, grants, contests, hook requests, questions.
//!
//! Holds facts and the questions that they answer by themselves; decides nothing.

use crate::arbitration::OutcomeKind;
use crate::claim::{Claim, Mode, Region};
use crate::codec::{self, Input, Read, name, object, words};
use crate::compact::{Digest, Seldom, Unset};
use crate::envelope::{DeliveryMode, FailureClass, PayloadRef, Priority};
use crate::event::{Class, Detected, EscalationKind, Name, SkipReason};
use crate::message::HookKind;
use crate::order::compare;
use crate::plan::{self, ExpectedOutput, Join, On, Risk};
use std::ops::{Deref, DerefMut};

/// State of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StepState {
    Pending,
    Ready,
    RetryWait,
    WaitingClaim,
    WaitingHook,
    WaitingHuman,
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
    WaitingClaim = "waiting_claim",
    WaitingHook = "waiting_hook",
    WaitingHuman = "waiting_human",
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

    /// The attempt can go out as soon as a slot is free.
    pub(crate) fn is_candidate(self) -> bool {
        matches!(self, Self::Ready | Self::RetryWait)
    }
}

/// What is kept of an input, so that its repeat gets the same receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) digest: Digest,
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

/// A resource that the current attempt holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) token: u64,
    pub(crate) resource: String,
    pub(crate) mode: Mode,
    pub(crate) since_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) base_version: Option<String>,
    pub(crate) regions: Vec<Region>,
}

object!(Grant {
    "token": req token,
    "resource": req resource,
    "mode": req mode,
    "sinceMs": req since_ms,
    "leaseMs": req lease_ms,
    "expiresMs": req expires_ms,
    "baseVersion": opt base_version,
    "regions": set regions,
});

/// A contest that the current attempt met before it went out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepContest {
    pub(crate) seq: u64,
    pub(crate) at_ms: u64,
    pub(crate) detected: Detected,
    /// None while hooks are asked.
    pub(crate) outcome: Option<OutcomeKind>,
}

object!(StepContest {
    "seq": req seq,
    "atMs": req at_ms,
    "detected": req detected,
    "outcome": opt outcome,
});

/// A hook request that is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepHook {
    pub(crate) seq: u64,
    pub(crate) kind: HookKind,
    pub(crate) due_ms: u64,
    /// The contest that it is about.
    pub(crate) contest: Option<u64>,
}

object!(StepHook {
    "seq": req seq,
    "kind": req kind,
    "dueMs": req due_ms,
    "contest": opt contest,
});

/// A question to a person that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Escalation {
    pub(crate) seq: u64,
    pub(crate) at_ms: u64,
    pub(crate) kind: EscalationKind,
    pub(crate) question: String,
    pub(crate) digest: String,
    pub(crate) number: Option<u64>,
    /// The level that is asked, from 1, the record that asked it, and when it is over; none where it stays open.
    pub(crate) level: u32,
    pub(crate) requested_seq: u64,
    pub(crate) due_ms: Option<u64>,
    /// Who approved.
    pub(crate) approvals: Vec<String>,
    /// Of the attempt that ended: how.
    pub(crate) class: Option<Class>,
}

object!(Escalation {
    "seq": req seq,
    "atMs": req at_ms,
    "kind": req kind,
    "question": req question,
    "digest": req digest,
    "number": opt number,
    "level": req level,
    "requestedSeq": req requested_seq,
    "dueMs": opt due_ms,
    "approvals": req approvals,
    "class": opt class,
});

/// A person's answer to a question of the current attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The record that ended the question.
    pub(crate) seq: u64,
    pub(crate) escalation: u64,
    pub(crate) at_ms: u64,
    pub(crate) actor: String,
    pub(crate) text: String,
}

object!(Reply {
    "seq": req seq,
    "escalation": req escalation,
    "atMs": req at_ms,
    "actor": req actor,
    "text": req text,
});

/// A dependency of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The same text in memory as the id of that step.
    pub(crate) step_id: Name,
    pub(crate) on: On,
}

object!(Edge { "stepId": req step_id, "on": req on, });

/// A step as its plan has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Def {
    pub(crate) step_id: Name,
    pub(crate) target_session: Name,
    pub(crate) payload: Option<String>,
    pub(crate) depends_on: Vec<Edge>,
    pub(crate) join: Join,
    pub(crate) priority: Priority,
    pub(crate) delivery_mode: DeliveryMode,
    pub(crate) timeout_ms: u64,
    pub(crate) idempotent: bool,
    pub(crate) required: bool,
    pub(crate) cleanup: bool,
    pub(crate) risk: Risk,
    seldom: Seldom<SeldomDef>,
}

/// What most steps of plans do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeldomDef {
    pub(crate) payload_ref: Option<PayloadRef>,
    pub(crate) content_type: Option<String>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) owns: Vec<String>,
    pub(crate) ack_timeout_ms: Option<u64>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) expected_output: Option<ExpectedOutput>,
    pub(crate) parent_step_id: Option<String>,
}

impl Unset for SeldomDef {
    const UNSET: &'static Self = &Self {
        payload_ref: None,
        content_type: None,
        claims: Vec::new(),
        owns: Vec::new(),
        ack_timeout_ms: None,
        max_attempts: None,
        expected_output: None,
        parent_step_id: None,
    };

    fn is_unset(&self) -> bool {
        let Self {
            payload_ref: None,
            content_type: None,
            claims,
            owns,
            ack_timeout_ms: None,
            max_attempts: None,
            expected_output: None,
            parent_step_id: None,
        } = self
        else {
            return false;
        };
        claims.is_empty() && owns.is_empty()
    }
}

impl Deref for Def {
    type Target = SeldomDef;

    fn deref(&self) -> &SeldomDef {
        &self.seldom
    }
}

object!(write Def {
    "stepId": req step_id,
    "targetSession": req target_session,
    "payload": opt payload,
    "payloadRef": opt payload_ref,
    "contentType": opt content_type,
    "dependsOn": req depends_on,
    "join": req join,
    "claims": req claims,
    "owns": req owns,
    "priority": req priority,
    "deliveryMode": req delivery_mode,
    "timeoutMs": req timeout_ms,
    "ackTimeoutMs": opt ack_timeout_ms,
    "maxAttempts": opt max_attempts,
    "idempotent": req idempotent,
    "required": req required,
    "cleanup": req cleanup,
    "risk": req risk,
    "expectedOutput": opt expected_output,
    "parentStepId": opt parent_step_id,
});

impl Read for Def {
    fn read(input: &mut Input<'_>) -> Self {
        plan::Step::read(input).into()
    }
}

impl From<plan::Step> for Def {
    fn from(def: plan::Step) -> Self {
        let edge = |dependency: &plan::Dependency| Edge {
            step_id: Name::from(&*dependency.step_id),
            on: dependency.on,
        };
        let edges = def.depends_on.iter().map(edge).collect();
        let id = Name::from(&*def.step_id);
        Self::new(def, id, edges)
    }
}

impl Def {
    /// A step of a plan under its id, with its dependencies.
    #[inline(never)]
    pub(crate) fn new(def: plan::Step, step_id: Name, depends_on: Vec<Edge>) -> Self {
        // All by name, so that none that a plan gets later is forgotten here.
        let plan::Step {
            step_id: _,
            target_session,
            payload,
            payload_ref,
            content_type,
            depends_on: _,
            join,
            claims,
            owns,
            priority,
            delivery_mode,
            timeout_ms,
            ack_timeout_ms,
            max_attempts,
            idempotent,
            required,
            cleanup,
            risk,
            expected_output,
            parent_step_id,
        } = def;
        Self {
            step_id,
            target_session: target_session.into(),
            payload,
            depends_on,
            join,
            priority,
            delivery_mode,
            timeout_ms,
            idempotent,
            required,
            cleanup,
            risk,
            seldom: Seldom::new(SeldomDef {
                payload_ref,
                content_type,
                claims,
                owns,
                ack_timeout_ms,
                max_attempts,
                expected_output,
                parent_step_id,
            }),
        }
    }

    pub(crate) fn payload_digest(&self) -> String {
        plan::payload_digest(self.payload.as_deref(), self.payload_ref.as_ref())
    }

    /// Bytes of inline payload.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload.as_ref().map_or(0, |text| text.len() as u64)
    }
}

/// One step of a live coordination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) def: Def,
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
    /// The record that ended each attempt so far.
    pub(crate) ended: Vec<u64>,
    /// Why it was skipped, where it was.
    pub(crate) skipped: Option<SkipReason>,
    /// The last failure.
    pub(crate) class: Option<FailureClass>,
    /// By `attempt:intent:part`, sorted.
    pub(crate) identities: Vec<(String, Identity)>,
    /// Whatever only few steps have; read and set as if it stood here.
    pub(crate) seldom: Seldom<SeldomStep>,
}

/// What most steps never have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeldomStep {
    /// Retries that used the budget, and that did not.
    pub(crate) retries: u32,
    pub(crate) free_retries: u32,
    /// The last failure.
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// A cancel of this one step.
    pub(crate) cancel: Option<Stop>,
    /// Its attempt is being ended in favour of another step.
    pub(crate) preempted: Option<Stop>,
    /// Its place in claim order, from its first claim on.
    pub(crate) claim_number: Option<u64>,
    /// By token, ascending.
    pub(crate) grants: Vec<Grant>,
    pub(crate) contests: Vec<StepContest>,
    pub(crate) hooks: Vec<StepHook>,
    /// Hooks, or a person in their place, let this attempt go out.
    pub(crate) cleared: bool,
    /// A person put it first where it contests resources.
    pub(crate) approved: bool,
    pub(crate) escalation: Option<Escalation>,
    /// All questions that were ever asked about it.
    pub(crate) asked: Vec<u64>,
    pub(crate) replies: Vec<Reply>,
    /// Who added it while the plan ran, and how deep below the plan.
    pub(crate) added_by: Option<Name>,
    pub(crate) depth: u32,
    /// By attempt; only attempts that have such inputs.
    pub(crate) kept: Vec<(u32, Kept)>,
}

impl Unset for SeldomStep {
    const UNSET: &'static Self = &Self {
        retries: 0,
        free_retries: 0,
        code: None,
        message: None,
        cancel: None,
        preempted: None,
        claim_number: None,
        grants: Vec::new(),
        contests: Vec::new(),
        hooks: Vec::new(),
        cleared: false,
        approved: false,
        escalation: None,
        asked: Vec::new(),
        replies: Vec::new(),
        added_by: None,
        depth: 0,
        kept: Vec::new(),
    };

    fn is_unset(&self) -> bool {
        let Self {
            retries: 0,
            free_retries: 0,
            code: None,
            message: None,
            cancel: None,
            preempted: None,
            claim_number: None,
            grants,
            contests,
            hooks,
            cleared: false,
            approved: false,
            escalation: None,
            asked,
            replies,
            added_by: None,
            depth: 0,
            kept,
        } = self
        else {
            return false;
        };
        let requests = contests.is_empty() && hooks.is_empty();
        let words = asked.is_empty() && replies.is_empty();
        grants.is_empty() && requests && words && kept.is_empty()
    }
}

impl Deref for Step {
    type Target = SeldomStep;

    fn deref(&self) -> &SeldomStep {
        &self.seldom
    }
}

impl DerefMut for Step {
    fn deref_mut(&mut self) -> &mut SeldomStep {
        self.seldom.edit()
    }
}

object!(write Step {
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
    "preempted": opt preempted,
    "claimNumber": opt claim_number,
    "grants": set grants,
    "contests": set contests,
    "hooks": set hooks,
    "cleared": set cleared,
    "approved": set approved,
    "escalation": opt escalation,
    "asked": set asked,
    "replies": set replies,
    "addedBy": opt added_by,
    "depth": set depth,
    "identities": req identities,
    "kept": req kept,
});

// In the order in which it is written; the members of a struct expression are read in the order in which they stand there.
impl Read for Step {
    fn read(input: &mut Input<'_>) -> Self {
        input.open();
        let def: Def = codec::read_req(input, name!("def"));
        // Both are kept twice, and in memory once.
        let shared = |kept: &Name, read: Name| if *kept == read { kept.clone() } else { read };
        let mut step = Self {
            id: shared(&def.step_id, codec::read_req(input, name!("id"))),
            session: shared(
                &def.target_session,
                codec::read_req(input, name!("session")),
            ),
            def,
            children: codec::read_req(input, name!("children")),
            fired: codec::read_req(input, name!("fired")),
            dead: codec::read_req(input, name!("dead")),
            state: codec::read_req(input, name!("state")),
            attempt: codec::read_req(input, name!("attempt")),
            ready_seq: codec::read_req(input, name!("readySeq")),
            ready_ms: codec::read_req(input, name!("readyMs")),
            dispatched_seq: codec::read_req(input, name!("dispatchedSeq")),
            dispatched_ms: codec::read_req(input, name!("dispatchedMs")),
            last_seq: codec::read_req(input, name!("lastSeq")),
            deadline_ms: codec::read_req(input, name!("deadlineMs")),
            ack_due_ms: codec::read_opt(input, name!("ackDueMs")),
            delivery: codec::read_req(input, name!("delivery")),
            ended: Vec::new(),
            skipped: None,
            class: None,
            identities: Vec::new(),
            seldom: Seldom::default(),
        };
        let (retries, free_retries) = (
            codec::read_req(input, name!("retries")),
            codec::read_req(input, name!("freeRetries")),
        );
        step.ended = codec::read_req(input, name!("ended"));
        step.skipped = codec::read_opt(input, name!("skipped"));
        step.class = codec::read_opt(input, name!("class"));
        let mut seldom = SeldomStep {
            retries,
            free_retries,
            code: codec::read_opt(input, name!("code")),
            message: codec::read_opt(input, name!("message")),
            cancel: codec::read_opt(input, name!("cancel")),
            preempted: codec::read_opt(input, name!("preempted")),
            claim_number: codec::read_opt(input, name!("claimNumber")),
            grants: codec::read_set(input, name!("grants")),
            contests: codec::read_set(input, name!("contests")),
            hooks: codec::read_set(input, name!("hooks")),
            cleared: codec::read_set(input, name!("cleared")),
            approved: codec::read_set(input, name!("approved")),
            escalation: codec::read_opt(input, name!("escalation")),
            asked: codec::read_set(input, name!("asked")),
            replies: codec::read_set(input, name!("replies")),
            added_by: codec::read_opt(input, name!("addedBy")),
            depth: codec::read_set(input, name!("depth")),
            kept: Vec::new(),
        };
        step.identities = codec::read_req(input, name!("identities"));
        seldom.kept = codec::read_req(input, name!("kept"));
        input.close();
        step.seldom = Seldom::new(seldom);
        step
    }
}

impl Step {
    /// The attempt is with an agent.
    pub(crate) fn is_out(&self) -> bool {
        match self.state {
            StepState::Dispatched | StepState::Acknowledged => true,
            // Only what went out was delivered; what waits before that, or after its attempt ended, was not.
            StepState::WaitingHuman => self.delivery > 0,
            _ => false,
        }
    }

    /// It takes one of the domain's slots.
    pub(crate) fn holds_slot(&self) -> bool {
        matches!(
            self.state,
            StepState::Dispatched | StepState::Acknowledged | StepState::WaitingHook
        )
    }

    /// It takes one of its session's slots.
    pub(crate) fn holds_session(&self) -> bool {
        self.holds_slot() || self.is_out()
    }

    /// It stands in the order of the resources that it claims.
    pub(crate) fn is_waiter(&self) -> bool {
        match self.state {
            StepState::WaitingClaim => true,
            StepState::WaitingHook => !self.contests.is_empty(),
            _ => false,
        }
    }

    /// Its clock and its leases rest while a person is asked.
    pub(crate) fn is_suspended(&self) -> bool {
        self.state == StepState::WaitingHuman
    }

    /// Attempts that went out so far.
    pub(crate) fn attempts_made(&self) -> u32 {
        let asked = self.escalation.as_ref().map(|escalation| escalation.kind);
        let ended = matches!(
            asked,
            Some(EscalationKind::Exhausted | EscalationKind::UnknownEffect)
        );
        if self.is_out() || ended {
            self.attempt
        } else {
            self.attempt - 1
        }
    }

    /// What is kept of the input with this key.
    pub(crate) fn identity(&self, key: &str) -> Option<&Identity> {
        let place = self
            .identities
            .binary_search_by(|(known, _)| compare(known, key));
        place.ok().map(|place| &self.identities[place].1)
    }

    /// Keeps an input, with the present state for its receipt.
    pub(crate) fn remember(&mut self, key: String, digest: &str, seq: u64) {
        self.remember_as(key, digest, seq, self.state);
    }

    /// Keeps an input, with the state that its receipt has.
    pub(crate) fn remember_as(&mut self, key: String, digest: &str, seq: u64, state: StepState) {
        let identity = Identity {
            digest: Digest::of(digest),
            seq,
            state,
        };
        match self
            .identities
            .binary_search_by(|(known, _)| compare(known, &key))
        {
            Ok(place) => self.identities[place].1 = identity,
            Err(place) => {
                self.identities.reserve_exact(1);
                self.identities.insert(place, (key, identity));
            }
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
