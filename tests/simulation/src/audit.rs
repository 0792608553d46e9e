//! A model of a domain apart from the core: it reads what became durable and what went out, and says what must not be.
//!
//! Written from the specification: states of steps, who may hold what, what a retry needs, how a plan ends, what must have
//! been handed out. Shares no code with the core. Makes no calls and draws nothing by chance.

mod claim;
mod effect;
mod input;
mod person;
mod plan;
mod record;
mod step;

use claim::Grants;
use plan::{Phase, Plan, list, number, text};
use qm2_core::call::{Answer, Call};
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use record::Record;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The model and everything that it has seen.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    seq: u64,
    hash: String,
    at_ms: u64,
    config: Value,
    plans: BTreeMap<String, Plan>,
    grants: Grants,
    contests: BTreeMap<String, Value>,
    /// Kind of the question that was answered last, and whose it was.
    last_question: RefCell<String>,
    last_question_of: (String, String),
    unanswered: RefCell<BTreeSet<String>>,
    /// Leases that ran out later because a person was asked: which, and by how much.
    moved: RefCell<Vec<(BTreeSet<u64>, u64)>>,
    /// The step whose leases the next record has to renew.
    due_renewal: Option<(String, String)>,
    /// Tokens that the records of this call gave back.
    given_back: BTreeSet<u64>,
    /// Reports that the records of this call made due.
    due_reports: BTreeSet<u64>,
    /// What was handed out under a key and delivery, until the coordination is closed.
    sent: BTreeMap<(String, u32), String>,
    /// Keys that a receiver that remembers has started.
    started: BTreeSet<String>,
    /// An effect was refused, so the host has to reconcile.
    is_owing: bool,
    /// Records seen.
    pub records: u64,
}

/// Holds or says why not.
fn require(holds: bool, says: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(says()) }
}

/// One call that is durable, or of which at least the records are.
#[derive(Debug)]
pub struct Done {
    /// The call.
    pub call: Call,
    /// Its answer; none where the host died before it was given.
    pub answer: Option<Result<Answer, CallError>>,
    /// What its imports took.
    pub staged: Staged,
    /// Not everything that it handed out was taken.
    pub is_busy: bool,
}

impl Audit {
    /// Takes a call in, with everything that came of it.
    ///
    /// # Errors
    /// The first thing that must not be.
    pub fn observe(&mut self, done: &Done) -> Result<(), String> {
        let before = self.seq;
        let mut records = Vec::with_capacity(done.staged.lines.len());
        for line in &done.staged.lines {
            records.push(self.line(line)?);
        }
        require(self.due_renewal.is_none(), || {
            "progress renews no lease".into()
        })?;
        let says = |error: String| format!("{}: {error}", done.call.name());
        self.check_end_of_call(done).map_err(says)?;
        self.check_effects(done, &records).map_err(says)?;
        self.due_reports.clear();
        self.given_back.clear();
        // Before the answer: a timer of this very call may have given up the last report.
        self.forget_closed();
        self.check_answer(done, before, &records).map_err(says)
    }

    fn line(&mut self, line: &str) -> Result<Value, String> {
        let says = |error: String| format!("{error}\nin {line}");
        let value: Value = serde_json::from_str(line).map_err(|error| says(error.to_string()))?;
        let (seq, at_ms) = (number(&value, "seq"), number(&value, "atMs"));
        require(seq == self.seq + 1, || {
            says(format!("record {} is due", self.seq + 1))
        })?;
        require(at_ms >= self.at_ms, || says("time goes back".into()))?;
        let prev = text(&value, "prev");
        let zero = "0".repeat(64);
        let expected = if self.seq == 0 { &zero } else { &self.hash };
        require(prev == expected, || {
            says("does not follow the record before".into())
        })?;
        let body = line
            .rfind(",\"hash\":\"")
            .map(|at| &line[..at])
            .unwrap_or_default();
        let digest = Sha256::new_with_prefix(body.as_bytes())
            .chain_update(b"}")
            .finalize();
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        require(text(&value, "hash") == hash, || {
            says("has another hash".into())
        })?;
        let cause = value["cause"].as_u64();
        require(cause.is_none_or(|cause| 0 < cause && cause < seq), || {
            says("has no cause".into())
        })?;
        (self.seq, self.at_ms, self.hash) = (seq, at_ms, hash);
        self.records += 1;
        let record = Record {
            seq,
            at_ms,
            kind: text(&value, "type"),
            id: text(&value, "coordinationId"),
            step: text(&value, "stepId"),
            attempt: number(&value, "attempt"),
            cause: cause.unwrap_or_default(),
            data: &value["data"],
        };
        self.record(&record).map_err(says)?;
        for (tokens, by_ms) in self.moved.take() {
            for token in tokens {
                if let Some(grant) = self.grants.get_mut(token) {
                    grant.expires_ms += by_ms;
                }
            }
        }
        for id in self.unanswered.take() {
            if let Some(plan) = self.plans.get_mut(&id) {
                plan.is_unanswered = true;
            }
        }
        Ok(value)
    }

    /// What must hold between two calls: nothing that was due has been left, nothing that can go on waits for nothing. What
    /// a call itself makes due at once fires in the next one.
    fn check_end_of_call(&self, done: &Done) -> Result<(), String> {
        let settled = match &done.answer {
            Some(Ok(Answer::Advance(more))) => !more,
            // It is told no time, so what follows from it comes with the next call.
            Some(Ok(Answer::Configure)) => false,
            Some(Ok(_)) => !done.call.is_reading(),
            _ => false,
        };
        if !settled || done.staged.lines.is_empty() {
            return Ok(());
        }
        let (mut slots, mut sessions) = (0, BTreeMap::new());
        for step in self.plans.values().flat_map(|plan| plan.steps.values()) {
            slots += u64::from(step.holds_slot());
            *sessions.entry(step.session.as_str()).or_insert(0) += u64::from(step.holds_session());
        }
        let has_slot = slots < number(&self.config, "maxInFlight");
        let width = number(&self.config, "sessionInFlight");
        let asks_first = list(&self.config, "hooks")
            .iter()
            .any(|kind| kind == "before_dispatch");
        for (id, plan) in self
            .plans
            .iter()
            .filter(|(_, plan)| plan.terminal.is_none())
        {
            let now_ms = self.at_ms;
            for (step_id, step) in &plan.steps {
                let place = || format!("{id}/{step_id}:{}", step.attempt);
                let out = step.phase.is_out();
                if out && !step.rests() {
                    let due =
                        step.deadline_ms < now_ms && !(step.is_cleanup() && plan.is_stopping());
                    require(!due, || {
                        format!("{} is past its deadline {}", place(), step.deadline_ms)
                    })?;
                    for token in &step.grants {
                        let grant = self.grants.get(*token);
                        let due = grant.is_some_and(|grant| grant.expires_ms < now_ms);
                        require(!due, || format!("{} holds {token} past its lease", place()))?;
                    }
                    let grace = plan.stop_of(step).or(step.preempt_until_ms);
                    let due = grace.is_some_and(|until| until < now_ms && until < step.deadline_ms);
                    require(!due, || format!("{} is out past its grace", place()))?;
                }
                if step.phase == Phase::Dispatched && !step.rests() {
                    let due = step
                        .ack_due_ms
                        .is_some_and(|due| due < now_ms && due < step.deadline_ms);
                    require(!due || step.is_cleanup(), || {
                        format!("{} is not redelivered", place())
                    })?;
                }
                let stopped = plan.cancel.is_some() || plan.trip.is_some();
                if stopped && !step.is_cleanup() {
                    require(step.phase.is_final() || out, || {
                        format!("{} waits in a plan that stops", place())
                    })?;
                }
                if step.phase == Phase::Idle && step.added_by.is_none() {
                    let join = plan.join(step);
                    // Cleanup that is past its grace is ended by that.
                    let over = plan.cleanup_until_ms().is_some_and(|until| until <= now_ms);
                    require(join != Some(false) || step.is_cleanup() && over, || {
                        format!("{} can no longer run", place())
                    })?;
                    let can = join == Some(true)
                        && step.due_ms <= now_ms
                        && list(&step.def, "claims").is_empty()
                        && step.hooks.is_empty()
                        && !asks_first
                        && has_slot
                        && sessions[step.session.as_str()] < width
                        && !plan.is_stopping();
                    require(!can, || format!("{} could go out and does not", place()))?;
                }
                if let Some(question) = &step.question {
                    let due = !question.is_blocked && question.due_ms < now_ms;
                    require(!due, || {
                        format!("{} waits for a person past its time", place())
                    })?;
                }
                let late = step.hooks.values().any(|hook| hook.due_ms < now_ms);
                require(!late, || {
                    format!("{} waits for a hook past its time", place())
                })?;
            }
            let open = plan.steps.values().any(|step| !step.phase.is_final());
            let children = plan.children.iter().any(|child| {
                let child = &self.plans[child];
                child.terminal.is_none() && text(&child.def["parent"], "onClose") != "abandon"
            });
            require(open || children, || {
                format!("{id} has nothing left to do and does not end")
            })?;
            let parent = &plan.def["parent"];
            if parent.is_object() && text(parent, "onClose") != "abandon" {
                let above = &self.plans[text(parent, "coordinationId")];
                let gone = above.terminal.is_some()
                    || above.steps.get(text(parent, "stepId")).is_some_and(|step| {
                        step.phase.is_final() && step.phase != Phase::Completed
                    });
                require(!gone || plan.cancel.is_some(), || {
                    format!("{id} goes on although its parent is over")
                })?;
            }
            let late = plan.deadline_ms.is_some_and(|due| due < now_ms);
            let work = plan
                .steps
                .values()
                .any(|step| !step.phase.is_final() && !step.is_cleanup());
            require(!late || !work, || format!("{id} works past its deadline"))?;
        }
        for plan in self.plans.values() {
            for (seq, report) in &plan.reports {
                let due = report.due_ms.is_some_and(|due| due < self.at_ms);
                require(!due, || format!("report:{seq} is not redelivered"))?;
            }
        }
        Ok(())
    }

    /// What is over needs no memory of its steps; its id and its end stay.
    fn forget_closed(&mut self) {
        let mut closed = Vec::new();
        for (id, plan) in &mut self.plans {
            let open = plan.reports.values().any(|report| report.due_ms.is_some());
            if !plan.is_closed && plan.terminal.is_some() && !open {
                plan.is_closed = true;
                plan.steps.clear();
                closed.push(format!("{id}:"));
            }
        }
        for id in closed {
            self.sent.retain(|(key, _), _| {
                let of = key
                    .split_once(':')
                    .map_or("", |(prefix, rest)| match prefix {
                        "cancel" | "probe" => rest,
                        _ => key,
                    });
                !of.starts_with(&id)
            });
        }
    }

    /// A receiver that remembers begins work under a key. Nothing may begin twice, and nothing that is not durable.
    ///
    /// # Errors
    /// It must not begin.
    pub fn started(&mut self, key: &str) -> Result<(), String> {
        require(self.started.insert(key.to_owned()), || {
            format!("{key} begins twice")
        })?;
        let mut parts = key.split(':');
        let (id, step, attempt) = (parts.next(), parts.next(), parts.next());
        let plan = id.and_then(|id| self.plans.get(id));
        let plan = plan.ok_or_else(|| format!("{key} begins and its plan is not durable"))?;
        if plan.is_closed {
            // A message that was on its way for that long; the receiver's word will be refused.
            return Ok(());
        }
        let step = step.and_then(|step| plan.steps.get(step));
        let step = step.ok_or_else(|| format!("{key} begins and its step is not known"))?;
        let attempt: u64 = attempt
            .and_then(|attempt| attempt.parse().ok())
            .unwrap_or(0);
        let known = attempt < step.attempt
            || attempt == step.attempt && (step.phase != Phase::Idle || step.is_over);
        require(known, || {
            format!("{key} begins before its dispatch is durable")
        })
    }

    /// Everything that must hold when nothing is left to happen.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check_end(&self) -> Result<(), String> {
        for (id, plan) in &self.plans {
            require(plan.is_closed, || {
                format!("{id} never ends: {:?}", plan.terminal)
            })?;
        }
        let held = self.grants.iter().next();
        require(held.is_none(), || format!("{held:?} is held for ever"))
    }

    /// Steps that are not at their end.
    #[must_use]
    pub fn open_steps(&self) -> Vec<(String, String)> {
        let open = |(id, plan): (&String, &Plan)| {
            let steps = plan.steps.iter().filter(|(_, step)| !step.phase.is_final());
            steps
                .map(|(step, _)| (id.clone(), step.clone()))
                .collect::<Vec<_>>()
        };
        self.plans.iter().flat_map(open).collect()
    }

    /// Coordinations that were ever taken.
    #[must_use]
    pub fn coordinations(&self) -> u64 {
        self.plans.len() as u64
    }

    /// Everything that it goes by from here on, as text: all but the place where the ledger ends.
    #[must_use]
    pub fn picture(&mut self) -> String {
        let end = (self.seq, std::mem::take(&mut self.hash), self.records);
        (self.seq, self.records) = (0, 0);
        let text = format!("{self:?}");
        (self.seq, self.hash, self.records) = end;
        text
    }

    /// Grants that live: token, resource, session, and when each lease ends.
    pub fn held(&self) -> impl Iterator<Item = (u64, &str, &str, u64)> {
        self.grants.iter().map(|(token, grant)| {
            let (resource, session) = (grant.resource.as_str(), grant.session.as_str());
            (*token, resource, session, grant.expires_ms)
        })
    }

    /// The last record.
    #[must_use]
    pub fn head(&self) -> (u64, &str) {
        (self.seq, &self.hash)
    }
}
