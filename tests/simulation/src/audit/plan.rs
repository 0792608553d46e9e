//! The model's own picture of coordinations and their steps, and what must come of them at their end.
//!
//! Written from the specification and from nothing else: it shares no code with the core that it audits.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Where a step is, as far as the ledger says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not out: pending, ready, waiting for a slot, a claim, a hook, or a retry.
    Idle,
    /// Asked of a person before it went out, or after its attempt ended.
    Asked,
    Dispatched,
    Acknowledged,
    Completed,
    Failed,
    TimedOut,
    Cancelled,
    Skipped,
}

impl Phase {
    pub fn is_final(self) -> bool {
        !matches!(
            self,
            Self::Idle | Self::Asked | Self::Dispatched | Self::Acknowledged
        )
    }

    pub fn is_out(self) -> bool {
        matches!(self, Self::Dispatched | Self::Acknowledged)
    }
}

/// A question to people.
#[derive(Clone, Debug)]
pub struct Question {
    pub id: String,
    pub kind: String,
    pub level: u64,
    pub due_ms: u64,
    pub min_role: String,
    pub approvals: BTreeSet<String>,
    /// Its last level is over, and the plan's deadline is waited for.
    pub is_blocked: bool,
}

/// A hook request without an answer.
#[derive(Clone, Debug)]
pub struct HookRequest {
    pub due_ms: u64,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    pub def: Value,
    pub session: String,
    pub added_by: Option<String>,
    pub phase: Phase,
    pub attempt: u64,
    /// When the current attempt must have ended, and since when its clock rests.
    pub deadline_ms: u64,
    pub rests_since_ms: Option<u64>,
    pub ack_due_ms: Option<u64>,
    pub delivery: u64,
    pub retries: u64,
    pub free_retries: u64,
    /// Attempts that answers, or what stands for them, gave it beside its retries.
    pub beyond: u64,
    pub due_ms: u64,
    pub skip_reason: String,
    /// The record that made it final.
    pub ended_seq: u64,
    pub question: Option<Question>,
    pub hooks: BTreeMap<String, HookRequest>,
    /// Hooks were asked of this attempt, and what they said.
    pub was_asked: bool,
    pub is_denied: bool,
    /// The last end of an attempt, before a person is asked about it.
    pub last_class: String,
    /// Grace of a cancel of this step alone, and of a pre-emption.
    pub cancel_until_ms: Option<u64>,
    pub preempt_until_ms: Option<u64>,
    pub grants: BTreeSet<u64>,
    /// What the identities of its inputs were taken with.
    pub identities: BTreeMap<String, String>,
    pub late: BTreeMap<u64, u64>,
    pub rejected: BTreeMap<u64, u64>,
    /// Its attempt ended in a question about that end.
    pub is_over: bool,
}

/// The text of a member, or nothing.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The number of a member, or 0.
pub fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

/// The flag of a member; absent is false.
pub fn flag(value: &Value, name: &str) -> bool {
    value[name].as_bool().unwrap_or_default()
}

/// The list of a member, or an empty one.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

impl Step {
    pub fn new(def: Value) -> Self {
        Self {
            session: text(&def, "targetSession").to_owned(),
            def,
            added_by: None,
            phase: Phase::Idle,
            attempt: 1,
            deadline_ms: 0,
            rests_since_ms: None,
            ack_due_ms: None,
            delivery: 0,
            retries: 0,
            free_retries: 0,
            beyond: 0,
            due_ms: 0,
            skip_reason: String::new(),
            ended_seq: 0,
            question: None,
            hooks: BTreeMap::new(),
            was_asked: false,
            is_denied: false,
            last_class: String::new(),
            cancel_until_ms: None,
            preempt_until_ms: None,
            grants: BTreeSet::new(),
            identities: BTreeMap::new(),
            late: BTreeMap::new(),
            rejected: BTreeMap::new(),
            is_over: false,
        }
    }

    pub fn is_cleanup(&self) -> bool {
        flag(&self.def, "cleanup")
    }

    pub fn is_best_effort(&self) -> bool {
        text(&self.def, "deliveryMode") == "best_effort"
    }

    /// Its clock and its leases rest: a person is asked while the attempt is out.
    pub fn rests(&self) -> bool {
        self.rests_since_ms.is_some()
    }

    /// Takes one of the slots of the domain.
    pub fn holds_slot(&self) -> bool {
        !self.hooks.is_empty() && !self.phase.is_out() || self.phase.is_out() && !self.rests()
    }

    /// Takes one of the slots of its session.
    pub fn holds_session(&self) -> bool {
        self.holds_slot() || self.phase.is_out()
    }

    /// The attempt is over; the next one is not yet out.
    pub fn leave(&mut self) {
        self.rests_since_ms = None;
        self.ack_due_ms = None;
        self.preempt_until_ms = None;
        self.delivery = 0;
    }
}

/// One coordination.
#[derive(Clone, Debug)]
pub struct Plan {
    pub def: Value,
    pub owner: String,
    pub created_seq: u64,
    pub deadline_ms: Option<u64>,
    pub cancel_grace_ms: u64,
    pub cleanup_grace_ms: u64,
    pub budget: u64,
    pub used: u64,
    pub steps: BTreeMap<String, Step>,
    /// Cancel of the whole plan: when, until when the grace lasts, and whether the parent asked for it.
    pub cancel: Option<(u64, u64)>,
    /// The step whose end trips fail_fast, and when.
    pub trip: Option<(String, u64)>,
    pub is_expired: bool,
    pub is_unanswered: bool,
    pub is_cut: bool,
    pub terminal: Option<String>,
    /// Reports that are not acknowledged: deliveries, when the next is due, and to whom.
    pub reports: BTreeMap<u64, Report>,
    pub is_closed: bool,
    pub children: BTreeSet<String>,
}

/// A report to an owner.
#[derive(Clone, Debug)]
pub struct Report {
    pub deliveries: u64,
    pub due_ms: Option<u64>,
    pub to: String,
}

impl Plan {
    pub fn asks(&self) -> bool {
        text(&self.def["failurePolicy"], "escalationPolicy") == "hitl" && self.cancel.is_none()
    }

    pub fn is_stopping(&self) -> bool {
        self.cancel.is_some() || self.trip.is_some() || self.is_expired
    }

    /// When cleanup must be over.
    pub fn cleanup_until_ms(&self) -> Option<u64> {
        let cancel = self.cancel.map(|(at_ms, _)| at_ms);
        let trip = self.trip.as_ref().map(|(_, at_ms)| *at_ms);
        let first = [cancel, trip, self.deadline_ms].into_iter().flatten().min();
        first.map(|at_ms| at_ms + self.cleanup_grace_ms)
    }

    /// Whether a dependency has fired, or can no longer; none while its step is not at its end.
    pub fn edge(&self, dependency: &Value) -> Option<bool> {
        let parent = &self.steps[text(dependency, "stepId")];
        if !parent.phase.is_final() {
            return None;
        }
        Some(match text(dependency, "on") {
            "success" => parent.phase == Phase::Completed,
            "failure" => matches!(parent.phase, Phase::Failed | Phase::TimedOut),
            _ => true,
        })
    }

    /// Whether a step's join is satisfied, can no longer be, or is open.
    pub fn join(&self, step: &Step) -> Option<bool> {
        let edges = list(&step.def, "dependsOn");
        if edges.is_empty() {
            return Some(true);
        }
        let fired: Vec<Option<bool>> = edges.iter().map(|edge| self.edge(edge)).collect();
        if text(&step.def, "join") == "any" {
            if fired.contains(&Some(true)) {
                return Some(true);
            }
            return fired
                .iter()
                .all(|edge| *edge == Some(false))
                .then_some(false);
        }
        if fired.contains(&Some(false)) {
            return Some(false);
        }
        fired.iter().all(|edge| *edge == Some(true)).then_some(true)
    }

    /// why a step that can no longer run is skipped, judged at the record that made it so.
    pub fn reason_to_skip(&self, step: &Step, cause: u64) -> &'static str {
        let parent = |edge: &Value| &self.steps[text(edge, "stepId")];
        let dead =
            |edge: &&Value| self.edge(edge) == Some(false) && parent(edge).ended_seq <= cause;
        let by_condition = |edge: &Value| {
            let parent = parent(edge);
            parent.phase == Phase::Completed || parent.skip_reason == "condition"
        };
        let mut dead = list(&step.def, "dependsOn").iter().filter(dead);
        if dead.all(by_condition) {
            "condition"
        } else {
            "upstream_failed"
        }
    }

    fn is_handled(&self, id: &str) -> bool {
        let fallback = |step: &Step| {
            list(&step.def, "dependsOn")
                .iter()
                .any(|edge| text(edge, "stepId") == id && text(edge, "on") == "failure")
        };
        self.steps
            .iter()
            .filter(|(_, step)| fallback(step))
            .any(|(id, step)| match step.phase {
                Phase::Completed => true,
                Phase::Failed | Phase::TimedOut => self.is_handled(id),
                _ => false,
            })
    }

    /// Whether every failed step that caused a skip is handled.
    fn is_excused(&self, step: &Step) -> bool {
        list(&step.def, "dependsOn")
            .iter()
            .filter(|edge| self.edge(edge) == Some(false))
            .all(|edge| {
                let id = text(edge, "stepId");
                let parent = &self.steps[id];
                match parent.phase {
                    Phase::Completed => true,
                    Phase::Failed | Phase::TimedOut => self.is_handled(id),
                    Phase::Skipped => match parent.skip_reason.as_str() {
                        "condition" => true,
                        "upstream_failed" => self.is_excused(parent),
                        _ => false,
                    },
                    _ => false,
                }
            })
    }

    /// whether the failure of this step stops the plan: not while a fallback is left, then for itself or for what it
    /// falls back for.
    pub fn trips(&self, id: &str) -> bool {
        let step = &self.steps[id];
        let falls_back_for = |other: &Step, id: &str| {
            list(&other.def, "dependsOn")
                .iter()
                .any(|edge| text(edge, "stepId") == id && text(edge, "on") == "failure")
        };
        let has_fallback = self.steps.values().any(|other| falls_back_for(other, id));
        let fail_fast = text(&self.def["failurePolicy"], "timeoutPolicy") == "fail_fast";
        let is_own = step.cancel_until_ms.is_none() && !step.is_cleanup() && !has_fallback;
        is_own && !self.is_stopping() && (fail_fast || self.is_needed(id))
    }

    fn is_needed(&self, id: &str) -> bool {
        let step = &self.steps[id];
        let stands_in = |edge: &Value| {
            let parent = text(edge, "stepId");
            let failed = matches!(self.steps[parent].phase, Phase::Failed | Phase::TimedOut);
            text(edge, "on") == "failure" && failed && self.is_needed(parent)
        };
        flag(&step.def, "required") || list(&step.def, "dependsOn").iter().any(stands_in)
    }

    /// how the coordination must end, and why.
    pub fn verdict(&self) -> (&'static str, Option<&'static str>) {
        let work = || self.steps.iter().filter(|(_, step)| !step.is_cleanup());
        let good = work().all(|(id, step)| match step.phase {
            Phase::Completed => true,
            Phase::Failed | Phase::TimedOut => self.is_handled(id),
            Phase::Skipped => match step.skip_reason.as_str() {
                "condition" => true,
                "upstream_failed" => self.is_excused(step),
                _ => false,
            },
            _ => false,
        });
        let some = work().any(|(_, step)| step.phase == Phase::Completed);
        let terminal = if self.is_cut {
            "failed"
        } else if self.is_unanswered {
            "escalated"
        } else if good {
            return ("success", None);
        } else if self.trip.is_some() || !some {
            "failed"
        } else {
            "partial"
        };
        let reason = if self.is_cut {
            "cancelled"
        } else if self.is_unanswered {
            "unanswered"
        } else if self.trip.is_some() {
            "fail_fast"
        } else if self.is_expired {
            "plan_deadline"
        } else {
            "steps_failed"
        };
        (terminal, Some(reason))
    }
}
