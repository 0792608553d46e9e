//! Records of questions to people: who may answer, what an answer or its lack leads to, and what that does to the clock.
//!
//! When a question may be asked is in [`super::step`].

use super::plan::{Phase, Plan, Question, Step, flag, list, number, text};
use super::record::Record;
use super::{Audit, require};
use serde_json::Value;

/// attempts beside its retries up to which silence gives a step another.
const SILENT_ATTEMPTS_MAX: u64 = 3;

impl Audit {
    pub(super) fn decided(
        &self,
        record: &Record<'_>,
        plan: &Plan,
        step: &Step,
        next: &mut Step,
        place: &str,
    ) -> Result<(), String> {
        let (at_ms, data) = (record.at_ms, record.data);
        let question = open_question(next, data, place)?;
        let in_time = question.is_blocked || at_ms < question.due_ms;
        require(in_time, || format!("{place}: an answer after its time"))?;
        let (actor, verdict) = (text(data, "actor"), text(data, "verdict"));
        let own =
            actor == plan.owner || actor == step.session || step.added_by.as_deref() == Some(actor);
        require(!own, || format!("{place}: {actor} decides on its own work"))?;
        let ranks = ["user", "operator", "admin", "owner"];
        let rank = |role: &str| ranks.iter().position(|known| *known == role);
        require(rank(text(data, "role")) >= rank(&question.min_role), || {
            format!("{place}: {actor} has no right to decide")
        })?;
        if verdict == "approve" {
            require(question.approvals.insert(actor.to_owned()), || {
                format!("{place}: {actor} twice")
            })?;
        }
        require(
            verdict != "completed" || question.kind == "unknown_effect",
            || format!("{place}: completed answers {}", question.kind),
        )?;
        let required = plan.def["failurePolicy"]["human"]["requiredApprovals"]
            .as_u64()
            .unwrap_or(1);
        let due = verdict != "approve" || question.approvals.len() as u64 >= required;
        require(flag(data, "final") == due, || {
            format!("{place}: final is {due}")
        })?;
        if !due {
            return Ok(());
        }
        let kind = question.kind.clone();
        self.last_question.replace(kind.clone());
        next.question = None;
        self.go_on(next, plan, at_ms, &kind, verdict == "approve");
        Ok(())
    }

    /// What an answer does to the clock and the attempt; a denial is followed by the record that ends the step.
    fn go_on(&self, next: &mut Step, plan: &Plan, at_ms: u64, kind: &str, is_approved: bool) {
        match kind {
            "question" => {
                if let Some(since_ms) = next.rests_since_ms.take() {
                    let moved = next.deadline_ms + (at_ms - since_ms);
                    let cut = plan.deadline_ms.filter(|_| !next.is_cleanup());
                    next.deadline_ms = cut.map_or(moved, |cut| moved.min(cut));
                    self.moved
                        .borrow_mut()
                        .push((next.grants.clone(), at_ms - since_ms));
                    if next.is_cleanup() && plan.is_stopping() {
                        next.deadline_ms = u64::MAX;
                    }
                }
            }
            "exhausted" | "unknown_effect" if is_approved => {
                next.attempt += 1;
                next.beyond += 1;
                next.phase = Phase::Idle;
                next.is_over = false;
                next.was_asked = false;
                next.due_ms = at_ms;
            }
            _ if is_approved => next.phase = Phase::Idle,
            _ => {}
        }
    }

    pub(super) fn expired(
        &self,
        record: &Record<'_>,
        plan: &Plan,
        step: &Step,
        next: &mut Step,
        place: &str,
    ) -> Result<(), String> {
        let (at_ms, data) = (record.at_ms, record.data);
        let question = open_question(next, data, place)?;
        require(number(data, "level") == question.level, || {
            format!("{place}: another level")
        })?;
        let human = &plan.def["failurePolicy"]["human"];
        let kind = question.kind.clone();
        match text(data, "reason") {
            reason @ ("timeout" | "unreachable") => {
                let due = reason == "unreachable" || question.due_ms <= at_ms;
                require(due, || format!("{place}: a level is over early"))?;
                if (question.level as usize) < list(human, "levels").len() {
                    return require(data["fallback"].is_null(), || "a level is left".into());
                }
                let fallback = text(data, "fallback");
                let wanted = human["fallback"].as_str().unwrap_or("deny");
                match fallback {
                    "allow" => {
                        let may = wanted == "allow"
                            && matches!(kind.as_str(), "exhausted" | "question")
                            && text(&step.def, "risk") == "low"
                            && (kind != "exhausted" || next.beyond < SILENT_ATTEMPTS_MAX);
                        require(may, || format!("{place}: {kind} is allowed by a timeout"))?;
                        next.question = None;
                        self.go_on(next, plan, at_ms, &kind, true);
                    }
                    "block" => {
                        require(wanted == "block", || {
                            format!("{place}: {wanted} is the fallback")
                        })?;
                        question.is_blocked = true;
                    }
                    _ => {
                        require(wanted != "block", || {
                            format!("{place}: {wanted} is the fallback")
                        })?;
                        next.question = None;
                        self.go_on(next, plan, at_ms, &kind, false);
                    }
                }
            }
            "unanswered" => {
                let due = plan.deadline_ms.is_some_and(|due| due <= at_ms);
                require(due, || {
                    format!("{place} is unanswered before the plan's deadline")
                })?;
                next.question = None;
                next.rests_since_ms = None;
                self.unanswered.borrow_mut().insert(record.id.to_owned());
            }
            _ => {
                next.question = None;
                if kind == "question" {
                    self.go_on(next, plan, at_ms, &kind, false);
                }
            }
        }
        Ok(())
    }
}

/// The question that a record is about.
fn open_question<'a>(
    step: &'a mut Step,
    data: &Value,
    place: &str,
) -> Result<&'a mut Question, String> {
    let question = step.question.as_mut();
    let question = question.ok_or_else(|| format!("{place}: nobody asks"))?;
    require(text(data, "escalationId") == question.id, || {
        format!("{place}: another question")
    })?;
    Ok(question)
}
