//! Records of one step: its way from idle to one of its five ends, and what each record asks of the state before it.
//!
//! What people answer is in [`super::person`], who holds what in [`super::claim`].

use super::plan::{HookRequest, Phase, Plan, Question, Step, flag, list, number, text};
use super::record::Record;
use super::{Audit, require};
use serde_json::Value;
use std::collections::BTreeSet;

/// Retries outside the budget, a step together.
pub(super) const FREE_RETRIES_MAX: u64 = 3;

impl Audit {
    pub(super) fn step(&mut self, record: &Record<'_>) -> Result<(), String> {
        let place = format!("{}/{}:{}", record.id, record.step, record.attempt);
        let (at_ms, data) = (record.at_ms, record.data);
        if record.kind == "step.dispatched" {
            self.has_room(record)?;
        }
        let plan = self
            .plans
            .get(record.id)
            .ok_or("a step of no coordination")?;
        let step = plan.steps.get(record.step).ok_or("no such step")?;
        require(plan.terminal.is_none(), || {
            format!("{place}: {} after the end", record.kind)
        })?;
        require(record.attempt == step.attempt, || {
            format!(
                "{place}: {} while attempt {} is current",
                record.kind, step.attempt
            )
        })?;
        require(!step.phase.is_final(), || {
            format!("{place}: {} after {:?}", record.kind, step.phase)
        })?;
        let (phase, rests) = (step.phase, step.rests());
        let policy = &plan.def["failurePolicy"];
        let out = phase.is_out();
        let ends_attempt = |step: &Step| {
            require(out, || {
                format!("{place}: {} of what is not out", record.kind)
            })?;
            // R-27 and the order of timers: what is due at the deadline or after it is the deadline's.
            let late = !step.rests() && at_ms >= step.deadline_ms;
            require(!late || step.is_cleanup(), || {
                format!(
                    "{place}: {} at {at_ms}, the deadline was {}",
                    record.kind, step.deadline_ms
                )
            })
        };
        let mut next = step.clone();
        let mut renewal = false;
        match record.kind {
            "step.dispatched" => {
                require(!out, || format!("{place} is dispatched twice"))?;
                require(
                    plan.join(step) == Some(true) || step.added_by.is_some(),
                    || format!("{place} is dispatched before its dependencies"),
                )?;
                require(!plan.is_stopping() || step.is_cleanup(), || {
                    format!("{place} is dispatched although its plan stops")
                })?;
                require(step.hooks.is_empty() && !step.is_denied, || {
                    format!("{place} is dispatched without the hooks' word")
                })?;
                require(phase == Phase::Idle, || {
                    format!("{place} is dispatched while a person is asked")
                })?;
                require(step.due_ms <= at_ms, || format!("{place} is retried early"))?;
                next.deadline_ms = number(data, "deadlineMs");
                let longest = at_ms + number(&step.def, "timeoutMs");
                // from the stop on the grace stands in place of the deadlines of cleanup.
                let by_grace =
                    plan.is_stopping() || plan.deadline_ms.is_some_and(|due| due <= longest);
                let within = next.deadline_ms <= longest || step.is_cleanup() && by_grace;
                require(at_ms < next.deadline_ms && within, || {
                    format!("{place} has the deadline {}", next.deadline_ms)
                })?;
                if let (Some(plan_ms), false) = (plan.deadline_ms, step.is_cleanup()) {
                    require(next.deadline_ms <= plan_ms, || {
                        format!("{place} outlives its plan")
                    })?;
                }
                let held: Vec<(String, u64)> = step
                    .grants
                    .iter()
                    .filter_map(|token| Some((self.grants.get(*token)?.resource.clone(), *token)))
                    .collect();
                let mut wanted: Vec<&str> = list(&step.def, "claims")
                    .iter()
                    .map(|claim| text(claim, "resource"))
                    .collect();
                wanted.sort_unstable();
                let tokens: Vec<(String, u64)> = list(data, "tokens")
                    .iter()
                    .map(|token| (text(token, "resource").to_owned(), number(token, "token")))
                    .collect();
                let mut sorted = held.clone();
                sorted.sort();
                require(tokens == sorted, || {
                    format!("{place} goes with {tokens:?}, holds {held:?}")
                })?;
                let names: Vec<&str> = tokens.iter().map(|(name, _)| name.as_str()).collect();
                require(names == wanted, || {
                    format!("{place} holds {names:?}, wants {wanted:?}")
                })?;
                let wait_ms = step.def["ackTimeoutMs"].as_u64();
                let wait_ms = wait_ms.unwrap_or_else(|| number(&self.config, "ackTimeoutMs"));
                let due = (!step.is_best_effort()).then_some(at_ms + wait_ms);
                require(data["ackDeadlineMs"].as_u64() == due, || {
                    format!("{place}: the ack is awaited until {due:?}")
                })?;
                next.phase = Phase::Dispatched;
                next.delivery = 1;
                next.ack_due_ms = data["ackDeadlineMs"].as_u64();
            }
            "step.acknowledged" => {
                require(phase == Phase::Dispatched && !rests, || {
                    format!("{place} is acknowledged as {phase:?}")
                })?;
                require(text(data, "sourceSession") == step.session, || {
                    "by another session".into()
                })?;
                next.phase = Phase::Acknowledged;
                next.ack_due_ms = None;
            }
            "step.progress" => {
                ends_attempt(step)?;
                next.phase = Phase::Acknowledged;
                next.ack_due_ms = None;
                renewal = !step.rests() && !step.grants.is_empty();
            }
            "step.completed" => {
                if text(data, "by") == "answer" {
                    let asked = step
                        .question
                        .as_ref()
                        .map(|question| question.kind.as_str());
                    // The record of the answer has closed the question already.
                    let kind =
                        asked.map_or_else(|| self.last_question.borrow().clone(), str::to_owned);
                    require(kind == "unknown_effect", || {
                        format!("{place} is completed by an answer")
                    })?;
                } else {
                    ends_attempt(step)?;
                    require(step.question.is_none(), || {
                        format!("{place} ends with a question open")
                    })?;
                }
                next.phase = Phase::Completed;
                next.leave();
            }
            "step.failed" => {
                let permanent = text(data, "class") == "permanent";
                let harmless = flag(&step.def, "idempotent") || text(data, "class") == "retryable";
                if out
                    && !permanent
                    && harmless
                    && step.question.is_none()
                    && plan.stop_of(step).is_none()
                {
                    let class = text(data, "class");
                    require(!self.may_retry(plan, step, at_ms, class), || {
                        format!("{place} fails although a retry is left")
                    })?;
                }
                if out && !permanent {
                    let asked =
                        self.last_question_of == (record.id.to_owned(), record.step.to_owned());
                    require(!plan.asks() || asked, || {
                        format!("{place} fails and nobody is asked")
                    })?;
                }
                next.phase = Phase::Failed;
                next.leave();
            }
            "step.timed_out" => {
                match text(data, "which") {
                    "attempt" if out => {
                        require(!rests && step.deadline_ms <= at_ms, || {
                            format!("{place} times out early")
                        })?;
                    }
                    "attempt" => require(step.is_over, || {
                        format!("{place} times out before it is out")
                    })?,
                    "plan" => {
                        let due = plan.deadline_ms.is_some_and(|due| due <= at_ms);
                        require(due && !step.is_cleanup(), || {
                            format!("{place} times out early")
                        })?;
                    }
                    _ => {
                        let due = plan.cleanup_until_ms().is_some_and(|due| due <= at_ms);
                        require(due && step.is_cleanup(), || {
                            format!("{place} times out early")
                        })?;
                    }
                }
                next.phase = Phase::TimedOut;
                next.leave();
            }
            "step.retry_scheduled" => {
                require(out, || format!("{place} is retried and was not out"))?;
                require(plan.stop_of(step).is_none(), || {
                    format!("{place} is retried in a plan that stops")
                })?;
                let class = text(data, "class");
                require(class != "permanent", || {
                    format!("{place} is retried after a permanent failure")
                })?;
                require(
                    class == "retryable" || flag(&step.def, "idempotent"),
                    || format!("{place} is run again after {class} and is not idempotent"),
                )?;
                require(!step.is_best_effort(), || format!("{place} is best_effort"))?;
                let free = flag(data, "free");
                require(free == matches!(class, "host_lost" | "preempted"), || {
                    format!("{place}: free {free}")
                })?;
                if class == "preempted" {
                    require(step.preempt_until_ms.is_some(), || {
                        format!("{place} was not pre-empted")
                    })?;
                }
                if class == "timeout" {
                    require(step.deadline_ms <= at_ms, || {
                        format!("{place} times out early")
                    })?;
                }
                require(self.may_retry(plan, step, at_ms, class), || {
                    format!("{place} is retried though no retry is left: {data}")
                })?;
                let waits = list(policy, "backoffMs");
                let wait = waits.get(step.retries.min(waits.len() as u64 - 1) as usize);
                let wait_ms = if free {
                    0
                } else {
                    wait.and_then(Value::as_u64).unwrap_or(0)
                };
                require(number(data, "dueMs") == at_ms + wait_ms, || {
                    format!("{place} waits {wait_ms}")
                })?;
                require(number(data, "nextAttempt") == step.attempt + 1, || {
                    "counts otherwise".into()
                })?;
                let left = plan.budget.saturating_sub(plan.used + u64::from(!free));
                require(number(data, "budgetLeft") == left, || {
                    format!("{place}: {left} is left")
                })?;
                next.due_ms = at_ms + wait_ms;
                next.attempt += 1;
                next.phase = Phase::Idle;
                next.was_asked = false;
                if free {
                    next.free_retries += 1;
                } else {
                    next.retries += 1;
                }
                next.leave();
            }
            "step.cancelled" => {
                require(plan.stop_of(step).is_some(), || {
                    format!("{place} is cancelled by nobody")
                })?;
                require(flag(data, "graceUsed") == out, || {
                    format!("{place}: grace used")
                })?;
                next.phase = Phase::Cancelled;
                next.leave();
            }
            "step.skipped" => {
                require(!out, || format!("{place} is skipped while it is out"))?;
                let reason = text(data, "reason");
                match reason {
                    "condition" | "upstream_failed" => {
                        require(plan.join(step) == Some(false), || {
                            format!("{place} could still run")
                        })?;
                        let due = plan.reason_to_skip(step, record.cause);
                        require(reason == due, || {
                            format!("{place} is skipped by {reason}; {due} is due")
                        })?;
                    }
                    "fail_fast" => {
                        require(plan.trip.is_some(), || format!("{place}: nothing tripped"))?
                    }
                    _ => {
                        let due_ms = if step.is_cleanup() {
                            plan.cleanup_until_ms()
                        } else {
                            plan.deadline_ms
                        };
                        let due = due_ms.is_some_and(|due| due <= at_ms);
                        require(due, || format!("{place} is skipped before the deadline"))?;
                    }
                }
                next.phase = Phase::Skipped;
                next.skip_reason = reason.to_owned();
            }
            "hook.requested" => {
                let kind = text(data, "kind");
                let registered = list(&self.config, "hooks").iter().any(|hook| hook == kind);
                require(registered && !out, || format!("{place}: {kind} is asked"))?;
                require(
                    number(data, "dueMs") == at_ms + number(&self.config, "hookTimeoutMs"),
                    || format!("{place}: the hook has until {}", data["dueMs"]),
                )?;
                if kind == "before_dispatch" {
                    require(!step.was_asked, || format!("{place} asks its hooks twice"))?;
                    next.was_asked = true;
                }
                let due_ms = number(data, "dueMs");
                let request = HookRequest { due_ms };
                next.hooks.insert(text(data, "hookId").to_owned(), request);
            }
            "hook.verdict" => {
                let hook = next.hooks.remove(text(data, "hookId"));
                let hook =
                    hook.ok_or_else(|| format!("{place}: nobody asked {}", data["hookId"]))?;
                let in_time = at_ms < hook.due_ms || text(data, "handler") == "hook-timeout";
                require(in_time, || format!("{place}: a verdict after its time"))?;
                next.is_denied |= text(data, "verdict") == "deny";
            }
            "coordination.escalated" => {
                require(plan.asks(), || {
                    format!("{place} asks where nobody is to be asked")
                })?;
                require(plan.stop_of(step).is_none(), || {
                    format!("{place} asks while it is stopped")
                })?;
                require(step.question.is_none(), || format!("{place} asks twice"))?;
                let kind = text(data, "kind");
                next.question = Some(Question {
                    id: text(data, "escalationId").to_owned(),
                    kind: kind.to_owned(),
                    level: 0,
                    due_ms: 0,
                    min_role: String::new(),
                    approvals: BTreeSet::new(),
                    is_blocked: false,
                });
                match kind {
                    "question" => {
                        ends_attempt(step)?;
                        next.rests_since_ms = Some(at_ms);
                        // it implies the ack.
                        next.phase = Phase::Acknowledged;
                        next.ack_due_ms = None;
                    }
                    "exhausted" | "unknown_effect" => {
                        require(out, || format!("{place}: {kind} of what is not out"))?;
                        let class = text(data, "class");
                        if kind == "exhausted" {
                            let left = self.may_retry(plan, step, at_ms, class);
                            let harmless = class == "retryable" || flag(&step.def, "idempotent");
                            require(!(left && harmless), || {
                                format!("{place} asks although a retry is left")
                            })?;
                        }
                        next.last_class = class.to_owned();
                        next.phase = Phase::Asked;
                        next.is_over = true;
                        next.leave();
                    }
                    _ => {
                        require(!out, || format!("{place}: {kind} of what is out"))?;
                        next.phase = Phase::Asked;
                    }
                }
            }
            "human.requested" => {
                let levels = list(&policy["human"], "levels");
                let question = next.question.as_mut().ok_or("nobody asks")?;
                question.level += 1;
                let level = levels
                    .get(question.level as usize - 1)
                    .ok_or("no such level")?;
                question.due_ms = at_ms + number(level, "timeoutMs");
                question.min_role = text(level, "minRole").to_owned();
                let said = (number(data, "level"), number(data, "dueMs"));
                require(said == (question.level, question.due_ms), || {
                    format!("{place} asks {said:?}")
                })?;
            }
            "human.decided" => self.decided(record, plan, step, &mut next, &place)?,
            "human.expired" => self.expired(record, plan, step, &mut next, &place)?,
            other => return Err(format!("{other} is no type of record")),
        }
        if renewal {
            self.due_renewal = Some((record.id.to_owned(), record.step.to_owned()));
        }
        let is_final = next.phase.is_final();
        if is_final {
            next.ended_seq = record.seq;
            next.hooks.clear();
        }
        let rests_since_ms = next.rests_since_ms;
        let grants = next.grants.clone();
        if is_final && !phase.is_final() {
            require(next.question.is_none(), || {
                format!("{place} is final with a question open")
            })?;
        }
        let plan = self.plans.get_mut(record.id).ok_or("gone")?;
        if record.kind == "step.retry_scheduled" && !flag(data, "free") {
            plan.used += 1;
            require(plan.used <= plan.budget, || {
                format!("{} uses more than its budget", record.id)
            })?;
        }
        plan.steps.insert(record.step.to_owned(), next);
        if record.kind == "step.cancelled" && plan.cancel.is_some() {
            let step = &plan.steps[record.step];
            let by_plan = step.cancel_until_ms.is_none() && text(data, "by") != "fail_fast";
            plan.is_cut |= by_plan && !step.is_cleanup();
        }
        let by_plan = text(data, "which") == "plan" || text(data, "reason") == "plan_deadline";
        plan.is_expired |= is_final && by_plan && !plan.steps[record.step].is_cleanup();
        if plan.trip.is_none()
            && is_final
            && matches!(record.kind, "step.failed" | "step.timed_out")
            && plan.cancel.is_none()
            && text(data, "which") != "plan"
            && plan.trips(record.step)
            && text(data, "by") != "fail_fast"
        {
            plan.trip = Some((record.step.to_owned(), at_ms));
        }
        for token in grants {
            if let Some(grant) = self.grants.get_mut(token) {
                grant.rests_since_ms = rests_since_ms;
            }
        }
        if is_final {
            self.step_ended(record);
        }
        if matches!(record.kind, "human.decided" | "human.expired") {
            self.last_question_of = (record.id.to_owned(), record.step.to_owned());
        }
        Ok(())
    }

    /// Who is told of the end of a step.
    fn step_ended(&mut self, record: &Record<'_>) {
        let Some(plan) = self.plans.get(record.id) else {
            return;
        };
        let step = &plan.steps[record.step];
        let failed = matches!(step.phase, Phase::Failed | Phase::TimedOut);
        let told = step.added_by.is_some()
            || match text(&plan.def, "reports") {
                "all" => true,
                "failures" => failed,
                _ => false,
            };
        if told {
            let to = step.added_by.clone().unwrap_or_else(|| plan.owner.clone());
            self.report(record, &to);
        }
    }

    /// a slot of the domain and one of the session are free.
    fn has_room(&self, record: &Record<'_>) -> Result<(), String> {
        let session = self
            .plans
            .get(record.id)
            .and_then(|plan| plan.steps.get(record.step));
        let session = session.map_or("", |step| step.session.as_str());
        let (mut slots, mut sessions) = (0, 0);
        for (id, plan) in &self.plans {
            for (step_id, step) in &plan.steps {
                if id == record.id && step_id == record.step {
                    continue;
                }
                slots += u64::from(step.holds_slot());
                sessions += u64::from(step.holds_session() && step.session == session);
            }
        }
        let (width, session_width) = (
            number(&self.config, "maxInFlight"),
            number(&self.config, "sessionInFlight"),
        );
        require(slots < width, || {
            format!(
                "{} goes out as number {} of {width}",
                record.step,
                slots + 1
            )
        })?;
        require(sessions < session_width, || {
            format!(
                "{} goes out as number {} of {session_width} of {session}",
                record.step,
                sessions + 1
            )
        })
    }

    /// whether the end of this attempt may be followed by another one.
    fn may_retry(&self, plan: &Plan, step: &Step, at_ms: u64, class: &str) -> bool {
        if step.is_best_effort() {
            return false;
        }
        let free = matches!(class, "host_lost" | "preempted");
        let waits = list(&plan.def["failurePolicy"], "backoffMs");
        let wait = waits.get(step.retries.min(waits.len() as u64 - 1) as usize);
        let wait_ms = if free {
            0
        } else {
            wait.and_then(Value::as_u64).unwrap_or(0)
        };
        let limit_ms = if step.is_cleanup() {
            plan.cleanup_until_ms()
        } else {
            plan.deadline_ms
        };
        let in_time = limit_ms.is_none_or(|limit_ms| at_ms + wait_ms < limit_ms);
        let left = if free {
            step.free_retries < FREE_RETRIES_MAX
        } else {
            let most = step.def["maxAttempts"].as_u64();
            plan.used < plan.budget && most.is_none_or(|most| 1 + step.retries < most)
        };
        in_time && left
    }
}

impl Plan {
    /// Whether a cancel or a trip ends this step.
    pub fn stop_of(&self, step: &Step) -> Option<u64> {
        let plan = self.cancel.map(|(_, until_ms)| until_ms);
        let trip = self
            .trip
            .as_ref()
            .map(|(_, at_ms)| at_ms + self.cancel_grace_ms);
        let whole = [plan, trip].into_iter().flatten().min();
        step.cancel_until_ms
            .or(whole.filter(|_| !step.is_cleanup()))
    }
}
