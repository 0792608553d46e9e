//! A step of a live coordination, and what is kept of it: inputs, grants, contests, hook requests, questions.
//!
//! Holds facts and the questions that they answer by themselves; decides nothing.

use crate::arbitration::OutcomeKind;
use crate::claim::{Mode, Region};
use crate::codec::{object, words};
use crate::envelope::FailureClass;
use crate::event::{Class, Detected, EscalationKind, Name, SkipReason};
use crate::message::HookKind;
use crate::plan::{self, On};

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
            .binary_search_by(|(known, _)| known.as_str().cmp(key));
        place.ok().map(|place| &self.identities[place].1)
    }

    /// Keeps an input, with the present state for its receipt.
    pub(crate) fn remember(&mut self, key: String, digest: &str, seq: u64) {
        self.remember_as(key, digest, seq, self.state);
    }

    /// Keeps an input, with the state that its receipt has.
    pub(crate) fn remember_as(&mut self, key: String, digest: &str, seq: u64, state: StepState) {
        let identity = Identity {
            digest: digest.to_owned(),
            seq,
            state,
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
