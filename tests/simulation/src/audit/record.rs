//! Records one by one: what the specification allows at each, and what follows for the model.
//!
//! Looks at one record and the model before it. What must hold at the end of a call is in [`super`].

use super::plan::{Phase, Plan, Question, Report, Step, flag, list, number, text};
use super::{Audit, require};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Delays before the redeliveries of a message, as R-31 has them.
const REDELIVERY_MS: [u64; 5] = [5_000, 25_000, 120_000, 600_000, 600_000];
/// Retries outside the budget, a step together.
const FREE_RETRIES_MAX: u64 = 3;
/// Late inputs of an attempt that are kept, and so many refused ones.
const KEPT_MAX: u64 = 16;

/// One record as the model reads it.
pub struct Record<'a> {
    pub seq: u64,
    pub at_ms: u64,
    pub kind: &'a str,
    pub id: &'a str,
    pub step: &'a str,
    pub attempt: u64,
    pub cause: u64,
    pub data: &'a Value,
}

impl Audit {
    /// Takes one record in.
    pub(super) fn record(&mut self, record: &Record<'_>) -> Result<(), String> {
        // progress renews what the attempt holds.
        if let Some((id, step)) = self.due_renewal.take() {
            let renewed = record.kind == "claim.renewed" && record.id == id && record.step == step;
            require(renewed, || {
                format!("{id}/{step} made progress and its leases are not renewed")
            })?;
        }
        match record.kind {
            "ledger.genesis" | "domain.configured" => {
                self.config = record.data["config"].clone();
                Ok(())
            }
            "coordination.created" => self.created(record),
            "claim.granted" | "claim.renewed" | "claim.released" | "claim.expired" => {
                self.claim(record)
            }
            "coordination.cancel_requested" => self.cancel_requested(record),
            "coordination.terminal" => self.terminal(record),
            "message.redelivered" | "message.acknowledged" | "message.undelivered" => {
                self.message(record)
            }
            "step.added" => self.added(record),
            "input.late" | "input.rejected" => self.kept(record),
            "conflict.detected" | "conflict.resolved" => self.contest(record),
            _ => self.step(record),
        }
    }

    fn plan(&mut self, id: &str) -> Result<&mut Plan, String> {
        let unknown = || format!("{id} is no coordination");
        self.plans.get_mut(id).ok_or_else(unknown)
    }

    fn created(&mut self, record: &Record<'_>) -> Result<(), String> {
        let def = &record.data["plan"];
        let id = text(def, "coordinationId");
        require(!self.plans.contains_key(id), || {
            format!("{id} is created twice")
        })?;
        require(id == record.id, || {
            format!("{id} is created in the name of {}", record.id)
        })?;
        let grace = |name: &str| {
            let domain = number(&self.config, name);
            def[name].as_u64().map_or(domain, |own| own.min(domain))
        };
        let parent = &def["parent"];
        let mut deadline_ms = def["deadlineMs"].as_u64();
        if parent.is_object() {
            let above = self.plans.get(text(parent, "coordinationId"));
            let above = above.ok_or("a child of nobody")?;
            let step = above.steps.get(text(parent, "stepId"));
            let runs = step.is_some_and(|step| step.phase.is_out());
            require(runs, || {
                format!("{id} is a child of a step that does not run")
            })?;
            let cut = [deadline_ms, above.deadline_ms].into_iter().flatten().min();
            // R-24 cuts it to the parent's: to the plan's and to that of its attempt, as far as the record shows.
            deadline_ms = cut;
        }
        let step = |step: &Value| (text(step, "stepId").to_owned(), Step::new(step.clone()));
        let plan = Plan {
            owner: text(def, "ownerSession").to_owned(),
            created_seq: record.seq,
            deadline_ms,
            cancel_grace_ms: grace("cancelGraceMs"),
            cleanup_grace_ms: grace("cleanupGraceMs"),
            budget: number(&def["failurePolicy"], "retryBudget"),
            used: 0,
            steps: list(def, "steps").iter().map(step).collect(),
            cancel: None,
            trip: None,
            is_expired: false,
            is_unanswered: false,
            is_cut: false,
            terminal: None,
            reports: BTreeMap::new(),
            is_closed: false,
            children: BTreeSet::new(),
            def: def.clone(),
        };
        if parent.is_object() {
            let above = self.plan(text(parent, "coordinationId"))?;
            above.children.insert(id.to_owned());
        }
        self.plans.insert(id.to_owned(), plan);
        Ok(())
    }

    fn added(&mut self, record: &Record<'_>) -> Result<(), String> {
        let (source, data) = (text(record.data, "sourceSession").to_owned(), record.data);
        let plan = self.plan(record.id)?;
        require(!plan.is_stopping(), || {
            "a step is added to a plan that stops".into()
        })?;
        require(!plan.steps.contains_key(record.step), || {
            format!("{} is added twice", record.step)
        })?;
        let parent = plan.steps.get(text(&data["step"], "parentStepId"));
        let parent = parent.ok_or("a step is added under none")?;
        require(parent.phase.is_out(), || "its parent does not run".into())?;
        require(parent.session == source, || {
            format!("{source} does not run its parent")
        })?;
        for name in ["timeoutMs", "idempotent", "risk"] {
            let same = parent.def[name] == data["step"][name];
            require(same, || {
                format!("{name} of an added step is not its parent's")
            })?;
        }
        let mut step = Step::new(data["step"].clone());
        step.added_by = Some(source);
        // adding a step implies the ack.
        if let Some(parent) = plan.steps.get_mut(text(&data["step"], "parentStepId")) {
            parent.phase = Phase::Acknowledged;
            parent.ack_due_ms = None;
        }
        plan.steps.insert(record.step.to_owned(), step);
        Ok(())
    }

    fn cancel_requested(&mut self, record: &Record<'_>) -> Result<(), String> {
        let until_ms = number(record.data, "graceUntilMs");
        let plan = self.plan(record.id)?;
        let due_ms = record.at_ms + plan.cancel_grace_ms;
        require(plan.terminal.is_none(), || {
            "a final plan is cancelled".into()
        })?;
        require(until_ms == due_ms, || {
            format!("the grace lasts until {due_ms}, not {until_ms}")
        })?;
        if record.step.is_empty() {
            require(plan.cancel.is_none(), || "cancelled twice".into())?;
            plan.cancel = Some((record.at_ms, until_ms));
        } else {
            let step = plan.steps.get_mut(record.step).ok_or("no such step")?;
            require(!step.phase.is_final(), || {
                "a final step is cancelled".into()
            })?;
            require(step.cancel_until_ms.is_none(), || "cancelled twice".into())?;
            step.cancel_until_ms = Some(until_ms);
        }
        Ok(())
    }

    fn terminal(&mut self, record: &Record<'_>) -> Result<(), String> {
        let plan = self.plan(record.id)?;
        require(plan.terminal.is_none(), || {
            format!("{} ends twice", record.id)
        })?;
        let open = plan.steps.iter().find(|(_, step)| !step.phase.is_final());
        require(open.is_none(), || {
            format!(
                "{} ends while {} is open",
                record.id,
                open.map_or("", |(id, _)| id)
            )
        })?;
        let (terminal, reason) = plan.verdict();
        let said = (
            text(record.data, "terminal"),
            record.data["reason"].as_str(),
        );
        require(said == (terminal, reason), || {
            format!(
                "{} ends as {said:?}; {terminal} {reason:?} is due",
                record.id
            )
        })?;
        let count = |phase: Phase| {
            plan.steps
                .values()
                .filter(|step| step.phase == phase)
                .count()
        };
        for (name, phase) in [
            ("completed", Phase::Completed),
            ("failed", Phase::Failed),
            ("timedOut", Phase::TimedOut),
            ("cancelled", Phase::Cancelled),
            ("skipped", Phase::Skipped),
        ] {
            let (said, is) = (number(&record.data["counts"], name), count(phase) as u64);
            require(said == is, || format!("{name} is {said}; {is} steps are"))?;
        }
        plan.terminal = Some(terminal.to_owned());
        let owner = plan.owner.clone();
        self.report(record, &owner);
        Ok(())
    }

    /// A report to a session is due from here on.
    fn report(&mut self, record: &Record<'_>, to: &str) {
        let due_ms = Some(record.at_ms + number(&self.config, "ackTimeoutMs"));
        if let Some(plan) = self.plans.get_mut(record.id) {
            let (deliveries, to) = (1, to.to_owned());
            plan.reports.insert(
                record.seq,
                Report {
                    deliveries,
                    due_ms,
                    to,
                },
            );
        }
        self.due_reports.insert(record.seq);
    }

    fn message(&mut self, record: &Record<'_>) -> Result<(), String> {
        let key = text(record.data, "key").to_owned();
        let at_ms = record.at_ms;
        let Some(seq) = key.strip_prefix("report:") else {
            let plan = self.plan(record.id)?;
            let step = plan.steps.get_mut(record.step).ok_or("no such step")?;
            require(record.kind == "message.redelivered", || {
                format!("{key} is {}", record.kind)
            })?;
            require(step.phase == Phase::Dispatched, || {
                format!("{key} is not out unheard")
            })?;
            require(step.ack_due_ms.is_some_and(|due| due <= at_ms), || {
                format!("{key} goes early")
            })?;
            let delivery = number(record.data, "delivery");
            require(delivery == step.delivery + 1 && delivery <= 6, || {
                format!("{key} has delivery {delivery} after {}", step.delivery)
            })?;
            let due_ms = at_ms + REDELIVERY_MS[delivery as usize - 2];
            require(number(record.data, "nextDueMs") == due_ms, || {
                format!("{key}: {due_ms} is due")
            })?;
            step.delivery = delivery;
            step.ack_due_ms = Some(due_ms);
            return Ok(());
        };
        let seq: u64 = seq.parse().map_err(|_| format!("{key} is no key"))?;
        let plan = self.plan(record.id)?;
        let report = plan.reports.get_mut(&seq);
        let report = report.ok_or_else(|| format!("{key} is not open"))?;
        match record.kind {
            "message.acknowledged" => {
                require(text(record.data, "session") == report.to, || {
                    format!("{key} is for {}", report.to)
                })?;
                plan.reports.remove(&seq);
            }
            "message.redelivered" => {
                require(report.due_ms.is_some_and(|due| due <= at_ms), || {
                    format!("{key} goes early")
                })?;
                report.deliveries += 1;
                let said = number(record.data, "delivery");
                require(said == report.deliveries && said <= 6, || {
                    format!("{key}: delivery {said}")
                })?;
                let due_ms = at_ms + REDELIVERY_MS[said as usize - 2];
                require(number(record.data, "nextDueMs") == due_ms, || {
                    format!("{key}: {due_ms}")
                })?;
                report.due_ms = Some(due_ms);
            }
            _ => {
                require(report.deliveries == 6, || {
                    format!("{key} is given up early")
                })?;
                require(report.due_ms.is_some_and(|due| due <= at_ms), || {
                    format!("{key} goes early")
                })?;
                report.due_ms = None;
            }
        }
        Ok(())
    }

    fn kept(&mut self, record: &Record<'_>) -> Result<(), String> {
        let plan = self.plan(record.id)?;
        let step = plan.steps.get_mut(record.step).ok_or("no such step")?;
        let is_late = record.kind == "input.late";
        if is_late {
            let ended = record.attempt < step.attempt
                || step.phase.is_final()
                || step.is_over
                || text(record.data, "intent") == "answer";
            require(ended, || format!("{} is late before its end", record.step))?;
        }
        let counts = if is_late {
            &mut step.late
        } else {
            &mut step.rejected
        };
        let count = counts.entry(record.attempt).or_default();
        *count += 1;
        require(*count <= KEPT_MAX, || {
            format!("{} keeps {count} inputs", record.step)
        })
    }

    fn contest(&mut self, record: &Record<'_>) -> Result<(), String> {
        if record.kind == "conflict.detected" {
            for holder in list(record.data, "holders") {
                let Some(token) = holder["token"].as_u64() else {
                    continue;
                };
                require(self.grants.get(token).is_some(), || {
                    format!("{token} is met and not held")
                })?;
            }
            self.contests.insert(
                text(record.data, "contestId").to_owned(),
                record.data.clone(),
            );
            return Ok(());
        }
        let contest = self.contests.get(text(record.data, "contestId"));
        let contest = contest
            .ok_or("a contest that was not detected is decided")?
            .clone();
        let preempts = list(record.data, "outcomes").first();
        if preempts.is_some_and(|outcome| text(outcome, "outcome") == "preempts") {
            for holder in list(&contest, "holders") {
                let (id, step) = (text(holder, "coordinationId"), text(holder, "stepId"));
                if holder["token"].is_null() {
                    continue;
                }
                let plan = self.plan(id)?;
                let until_ms = record.at_ms + plan.cancel_grace_ms;
                if let Some(step) = plan.steps.get_mut(step)
                    && step.phase.is_out()
                    && step.preempt_until_ms.is_none()
                {
                    let may = flag(&step.def, "idempotent") && step.free_retries < FREE_RETRIES_MAX;
                    require(may, || {
                        format!(
                            "{id}/{} is pre-empted and must not be",
                            text(holder, "stepId")
                        )
                    })?;
                    step.preempt_until_ms = Some(until_ms);
                }
            }
        }
        Ok(())
    }

    fn claim(&mut self, record: &Record<'_>) -> Result<(), String> {
        let place = (record.id.to_owned(), record.step.to_owned());
        let plan = self
            .plans
            .get_mut(record.id)
            .ok_or("a claim of no coordination")?;
        let step = plan
            .steps
            .get_mut(record.step)
            .ok_or("a claim of no step")?;
        let data = record.data;
        match record.kind {
            "claim.granted" => {
                let open = !step.phase.is_final() && !step.is_over;
                require(open, || {
                    format!("{place:?} is granted something after its end")
                })?;
                require(text(data, "session") == step.session, || {
                    "granted to another session".into()
                })?;
                let expires_ms = record.at_ms + number(data, "leaseMs");
                require(number(data, "expiresMs") == expires_ms, || {
                    "the lease is of another length".into()
                })?;
                step.grants.insert(record.seq);
                self.grants.grant(record.seq, place, data)
            }
            "claim.renewed" => {
                for token in list(data, "tokens").iter().filter_map(Value::as_u64) {
                    let held = step.grants.contains(&token);
                    require(held, || format!("{token} is renewed and not held"))?;
                    let grant = self.grants.get_mut(token).ok_or("not held")?;
                    grant.expires_ms = record.at_ms + grant.lease_ms;
                    require(grant.expires_ms == number(data, "expiresMs"), || {
                        "another length".into()
                    })?;
                }
                Ok(())
            }
            "claim.released" => {
                let tokens: Vec<u64> = list(data, "tokens")
                    .iter()
                    .filter_map(Value::as_u64)
                    .collect();
                require(tokens.windows(2).all(|pair| pair[0] < pair[1]), || {
                    "tokens in disorder".into()
                })?;
                if text(data, "reason") != "released" {
                    let all: Vec<u64> = step.grants.iter().copied().collect();
                    require(tokens == all, || {
                        format!("{tokens:?} end where {all:?} are held")
                    })?;
                }
                for token in tokens {
                    require(step.grants.remove(&token), || {
                        format!("{token} is not held")
                    })?;
                    self.grants.remove(token)?;
                }
                Ok(())
            }
            _ => {
                let token = number(data, "token");
                require(step.grants.remove(&token), || {
                    format!("{token} is not held")
                })?;
                let grant = self.grants.remove(token)?;
                require(grant.rests_since_ms.is_none(), || {
                    format!("{token} ends while it rests")
                })?;
                require(grant.expires_ms <= record.at_ms, || {
                    format!("{token} ends early")
                })
            }
        }
    }

    fn step(&mut self, record: &Record<'_>) -> Result<(), String> {
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
                let request = super::plan::HookRequest { due_ms };
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

    fn decided(
        &self,
        record: &Record<'_>,
        plan: &Plan,
        step: &Step,
        next: &mut Step,
        place: &str,
    ) -> Result<(), String> {
        let (at_ms, data) = (record.at_ms, record.data);
        let question = next
            .question
            .as_mut()
            .ok_or_else(|| format!("{place}: nobody asks"))?;
        require(text(data, "escalationId") == question.id, || {
            format!("{place}: another question")
        })?;
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
                next.phase = Phase::Idle;
                next.is_over = false;
                next.was_asked = false;
                next.due_ms = at_ms;
            }
            _ if is_approved => next.phase = Phase::Idle,
            _ => {}
        }
    }

    fn expired(
        &self,
        record: &Record<'_>,
        plan: &Plan,
        step: &Step,
        next: &mut Step,
        place: &str,
    ) -> Result<(), String> {
        let (at_ms, data) = (record.at_ms, record.data);
        let question = next
            .question
            .as_mut()
            .ok_or_else(|| format!("{place}: nobody asks"))?;
        require(text(data, "escalationId") == question.id, || {
            format!("{place}: another question")
        })?;
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
                            && text(&step.def, "risk") == "low";
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
