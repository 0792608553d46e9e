//! Records one by one: what the specification allows at each, and what follows for the model.
//!
//! Looks at one record and the model before it. What must hold at the end of a call is in [`super`].

use super::plan::{Phase, Plan, Report, Step, flag, list, number, text};
use super::step::FREE_RETRIES_MAX;
use super::{Audit, require};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Delays before the redeliveries of a message, as R-31 has them.
const REDELIVERY_MS: [u64; 5] = [5_000, 25_000, 120_000, 600_000, 600_000];
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
    pub(super) fn report(&mut self, record: &Record<'_>, to: &str) {
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
                    self.given_back.insert(token);
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
}
