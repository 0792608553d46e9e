//! A coordination as its records tell it: what a person asks for after the component has dropped a closed one, and what
//! a live display shows while records come in.
//!
//! Folds committed ledger lines and nothing else. It decides nothing and tests nothing: states that have no record,
//! such as ready, are told by the component.

use qm2_core::arbitration::OutcomeKind;
use qm2_core::event::{Event, ExpiredReason, Record, SkipReason, TerminalReason, TerminalState};
use qm2_core::plan::{Fallback, On, Plan, Step};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// State of a step as far as records tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// No attempt went out yet.
    Pending,
    /// It waits for a resource that another step holds.
    WaitingClaim,
    /// It waits for a hook to answer.
    WaitingHook,
    /// It waits for a person to answer, before or after it went out.
    WaitingHuman,
    /// An attempt went out.
    Dispatched,
    /// An attempt is being worked on.
    Acknowledged,
    /// The last attempt failed and another one follows.
    RetryWait,
    /// Done.
    Completed,
    /// Failed for good.
    Failed,
    /// Ended by a deadline.
    TimedOut,
    /// Ended by a cancel or the failure policy.
    Cancelled,
    /// Will not run.
    Skipped,
}

impl StepState {
    /// The word that the ledger and the component use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::WaitingClaim => "waiting_claim",
            Self::WaitingHook => "waiting_hook",
            Self::WaitingHuman => "waiting_human",
            Self::Dispatched => "dispatched",
            Self::Acknowledged => "acknowledged",
            Self::RetryWait => "retry_wait",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::TimedOut | Self::Cancelled | Self::Skipped
        )
    }

    /// Whether an attempt is out.
    #[must_use]
    pub fn is_running(self) -> bool {
        matches!(self, Self::Dispatched | Self::Acknowledged)
    }
}

/// One step of a [`History`].
#[derive(Clone, Debug)]
pub struct StepHistory {
    /// Its id.
    pub step_id: String,
    /// The session that does it.
    pub target_session: String,
    /// Its state.
    pub state: StepState,
    /// The current attempt, from 1; of an ended step the last one.
    pub attempt: u32,
    /// When its first attempt went out, in milliseconds since the epoch.
    pub first_dispatched_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// When its next attempt may go out, while it waits for that.
    pub due_ms: Option<u64>,
    /// Code of its last failure, or why it was skipped or cancelled.
    pub code: Option<String>,
    /// Sentence to that code.
    pub message: Option<String>,
    /// Its result, where that is inline.
    pub result: Option<String>,
    /// Number of the record that ended it.
    pub ended_seq: Option<u64>,
    /// What it waits for: ids of steps and when each edge fires.
    pub depends_on: Vec<(String, On)>,
    /// The resource that it waits for, while it does.
    pub resource: Option<String>,
    /// What it was before a person was asked.
    state_before: StepState,
}

/// One coordination, folded from its records.
#[derive(Clone, Debug)]
pub struct History {
    /// Its id.
    pub coordination_id: String,
    /// What it is for.
    pub objective: String,
    /// Who owns it.
    pub owner_session: String,
    /// SHA-256 of its canonical plan.
    pub plan_digest: String,
    /// Number of its first record.
    pub created_seq: u64,
    /// When that was, in milliseconds since the epoch.
    pub created_at_ms: u64,
    /// The coordination that this one runs again.
    pub rerun_of: Option<String>,
    /// Its steps in the order of the plan.
    pub steps: Vec<StepHistory>,
    /// How it ended.
    pub terminal: Option<TerminalState>,
    /// Why, if not in success.
    pub reason: Option<TerminalReason>,
    /// Number of the record that says so.
    pub terminal_seq: Option<u64>,
    /// Whether a cancel of the whole plan came.
    pub cancel_requested: bool,
    /// Reports to the owner that were given up and not acknowledged since.
    pub undelivered: BTreeSet<String>,
    /// Number of the last record folded.
    pub last_seq: u64,
    places: BTreeMap<String, usize>,
}

impl History {
    /// Begins with a `coordination.created` record; none for any other.
    #[must_use]
    pub fn begin(record: &Record) -> Option<Self> {
        let Event::Created(created) = &record.event else {
            return None;
        };
        let Plan {
            coordination_id,
            objective,
            owner_session,
            steps,
            rerun_of,
            ..
        } = &created.plan;
        let steps: Vec<StepHistory> = steps.iter().map(StepHistory::begin).collect();
        Some(Self {
            coordination_id: coordination_id.clone(),
            objective: objective.clone(),
            owner_session: owner_session.clone(),
            plan_digest: created.plan_digest.clone(),
            created_seq: record.seq,
            created_at_ms: record.at_ms,
            rerun_of: rerun_of.clone(),
            places: steps
                .iter()
                .enumerate()
                .map(|(place, step)| (step.step_id.clone(), place))
                .collect(),
            steps,
            terminal: None,
            reason: None,
            terminal_seq: None,
            cancel_requested: false,
            undelivered: BTreeSet::new(),
            last_seq: record.seq,
        })
    }

    /// Folds the lines of one coordination, in order; none where its first record is not among them.
    ///
    /// # Errors
    /// A sentence about the first line that is no record.
    pub fn fold<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Result<Option<Self>, String> {
        let mut history: Option<Self> = None;
        for line in lines {
            let record = Record::parse(line.as_ref()).map_err(|error| error.to_string())?;
            match &mut history {
                Some(history) => history.apply(&record),
                None => history = Self::begin(&record),
            }
        }
        Ok(history)
    }

    /// Takes the next record in; one of another coordination, or one taken in before, changes nothing.
    pub fn apply(&mut self, record: &Record) {
        if record.coordination_id.as_deref() != Some(&self.coordination_id)
            || record.seq <= self.last_seq
        {
            return;
        }
        self.last_seq = record.seq;
        match &record.event {
            Event::Terminal(end) => {
                self.terminal = Some(end.terminal);
                self.reason = end.reason;
                self.terminal_seq = Some(record.seq);
            }
            Event::CancelRequested(_) if record.step_id.is_none() => self.cancel_requested = true,
            Event::Added(added) => {
                let place = self.steps.len();
                self.places.insert(added.step.step_id.clone(), place);
                self.steps.push(StepHistory::begin(&added.step));
            }
            Event::Undelivered(report) => {
                self.undelivered.insert(report.key.clone());
            }
            Event::MessageAcknowledged(report) => {
                self.undelivered.remove(&report.key);
            }
            _ => {
                let place = record
                    .step_id
                    .as_deref()
                    .and_then(|step_id| self.places.get(step_id));
                if let Some(step) = place.and_then(|place| self.steps.get_mut(*place)) {
                    step.apply(record);
                }
            }
        }
    }

    /// The step of that id.
    #[must_use]
    pub fn step(&self, step_id: &str) -> Option<&StepHistory> {
        self.places.get(step_id).map(|place| &self.steps[*place])
    }

    /// How many steps are in a state.
    #[must_use]
    pub fn count(&self, state: StepState) -> usize {
        self.steps.iter().filter(|step| step.state == state).count()
    }

    /// Dependencies of a step that have not ended.
    #[must_use]
    pub fn open_dependencies<'a>(&'a self, step: &'a StepHistory) -> Vec<&'a str> {
        let open = |step_id: &str| {
            self.step(step_id)
                .is_some_and(|other| !other.state.is_final())
        };
        step.depends_on
            .iter()
            .map(|(step_id, _)| step_id.as_str())
            .filter(|step_id| open(step_id))
            .collect()
    }
}

impl StepHistory {
    fn begin(step: &Step) -> Self {
        Self {
            step_id: step.step_id.clone(),
            target_session: step.target_session.clone(),
            state: StepState::Pending,
            attempt: 1,
            first_dispatched_ms: None,
            ended_ms: None,
            due_ms: None,
            code: None,
            message: None,
            result: None,
            ended_seq: None,
            depends_on: step
                .depends_on
                .iter()
                .map(|edge| (edge.step_id.clone(), edge.on))
                .collect(),
            resource: None,
            state_before: StepState::Pending,
        }
    }

    fn apply(&mut self, record: &Record) {
        let attempt = record.attempt.unwrap_or(self.attempt);
        match &record.event {
            Event::Dispatched(_) => {
                self.state = StepState::Dispatched;
                self.attempt = attempt;
                self.due_ms = None;
                self.resource = None;
                self.first_dispatched_ms.get_or_insert(record.at_ms);
            }
            Event::Acknowledged(_) => self.state = StepState::Acknowledged,
            Event::RetryScheduled(retry) => {
                self.state = StepState::RetryWait;
                self.attempt = retry.next_attempt;
                self.due_ms = Some(retry.due_ms);
                self.fail(&retry.code, &retry.message);
            }
            Event::Completed(done) => {
                self.end(StepState::Completed, record);
                (self.code, self.message) = (None, None);
                self.result = done.payload.clone();
            }
            Event::Failed(failed) => {
                self.end(StepState::Failed, record);
                self.fail(&failed.code, &failed.message);
            }
            Event::TimedOut(end) => {
                self.end(StepState::TimedOut, record);
                let whose = word(&end.which);
                self.message = Some(format!("the deadline of the {whose} passed"));
                self.code = Some(whose);
            }
            Event::Cancelled(end) => {
                self.end(StepState::Cancelled, record);
                self.code = Some(word(&end.by));
                self.message = None;
            }
            Event::Skipped(skipped) => {
                self.end(StepState::Skipped, record);
                self.code = Some(word(&skipped.reason));
                self.message = Some(match skipped.reason {
                    SkipReason::Condition => {
                        format!("not needed after {}", skipped.depends_on.join(", "))
                    }
                    SkipReason::UpstreamFailed => {
                        format!("needed {}", skipped.depends_on.join(", "))
                    }
                    SkipReason::FailFast => "the plan was stopped by a failure".to_owned(),
                    SkipReason::PlanDeadline => "the plan's deadline passed".to_owned(),
                });
            }
            Event::HookRequested(_) if !self.state.is_running() => {
                self.state = StepState::WaitingHook;
                self.attempt = attempt;
            }
            Event::HookAnswered(_) if self.state == StepState::WaitingHook => {
                self.state = StepState::Pending;
            }
            Event::Detected(contest) => {
                self.resource = Some(contest.resource.clone());
                self.attempt = attempt;
            }
            Event::Resolved(decision) if !self.state.is_running() => {
                let mine = decision.outcomes.iter();
                let mut mine = mine.filter(|outcome| outcome.step_id == self.step_id);
                let waits = mine.any(|outcome| {
                    matches!(outcome.outcome, OutcomeKind::Waits | OutcomeKind::Preempts)
                });
                if waits && !self.state.is_final() {
                    self.state = StepState::WaitingClaim;
                }
            }
            Event::Escalated(_) => {
                if self.state != StepState::WaitingHuman {
                    self.state_before = self.state;
                }
                self.state = StepState::WaitingHuman;
            }
            Event::HumanDecided(decided) if decided.is_final => self.answered(),
            Event::HumanExpired(expired)
                if expired.fallback == Some(Fallback::Allow)
                    || expired.reason == ExpiredReason::Voided =>
            {
                self.answered();
            }
            // What came late, was refused, or is only on its way changes no state.
            _ => {}
        }
    }

    /// Back to work where it was out when the question was asked; else the next record says what follows.
    fn answered(&mut self) {
        if self.state == StepState::WaitingHuman {
            self.state = match self.state_before.is_running() {
                true => self.state_before,
                false => StepState::Pending,
            };
        }
    }

    fn end(&mut self, state: StepState, record: &Record) {
        self.state = state;
        self.due_ms = None;
        self.ended_ms = Some(record.at_ms);
        self.ended_seq = Some(record.seq);
    }

    fn fail(&mut self, code: &str, message: &str) {
        self.code = Some(code.to_owned());
        self.message = Some(message.to_owned());
    }
}

/// The word of a value that the ledger writes as one.
pub fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qm2_core::codec::canonical;
    use qm2_core::config::Config;
    use qm2_core::digest::ZERO;

    /// Lines of a plan of two steps, the first of which is retried; the hashes are not those of a chain.
    fn lines() -> Vec<String> {
        let plan = r#"{"coordinationId":"c","objective":"o","ownerSession":"u","steps":[
            {"stepId":"a","targetSession":"s","timeoutMs":1},
            {"stepId":"b","targetSession":"s","timeoutMs":1,"dependsOn":[{"stepId":"a","on":"failure"}]}]}"#;
        let plan = canonical(&Plan::parse(plan, &Config::new("d")).unwrap());
        let digest = ZERO;
        let records = [
            ("coordination.created", "", format!(r#"{{"rules":1,"plan":{plan},"planDigest":"{digest}","caller":{{"session":"u"}}}}"#)),
            ("step.dispatched", r#""stepId":"a","attempt":1,"#, format!(r#"{{"lane":"control","targetSession":"s","deliveryMode":"at_least_once","priority":"normal","deadlineMs":9,"tokens":[],"payloadDigest":"{digest}"}}"#)),
            ("step.retry_scheduled", r#""stepId":"a","attempt":1,"#, r#"{"class":"retryable","code":"exit-75","message":"busy","dueMs":30,"nextAttempt":2,"free":false,"budgetLeft":0}"#.to_owned()),
            ("step.completed", r#""stepId":"a","attempt":2,"#, format!(r#"{{"payload":"done","contentDigest":"{digest}","by":"report"}}"#)),
            ("step.skipped", r#""stepId":"b","attempt":1,"#, r#"{"reason":"condition","dependsOn":["a"]}"#.to_owned()),
            ("coordination.terminal", "", format!(r#"{{"terminal":"success","counts":{{"completed":1,"failed":0,"timedOut":0,"cancelled":0,"skipped":1}},"planDigest":"{digest}"}}"#)),
        ];
        let line = |(index, (name, ids, data)): (usize, (&str, &str, String))| {
            let seq = index + 2;
            format!(
                r#"{{"v":1,"seq":{seq},"atMs":{seq}0,"type":"{name}","coordinationId":"c",{ids}"data":{data},"prev":"{ZERO}","hash":"{ZERO}"}}"#
            )
        };
        records.into_iter().enumerate().map(line).collect()
    }

    #[test]
    fn a_retry_shows_its_cause_until_the_step_completes() {
        let lines = lines();
        let half = History::fold(&lines[..3]).unwrap().unwrap();
        let step = half.step("a").unwrap();
        assert_eq!(
            (step.state, step.attempt, step.due_ms),
            (StepState::RetryWait, 2, Some(30))
        );
        assert_eq!(step.message.as_deref(), Some("busy"));
        assert_eq!(half.open_dependencies(half.step("b").unwrap()), ["a"]);

        let whole = History::fold(&lines).unwrap().unwrap();
        let step = whole.step("a").unwrap();
        assert_eq!(
            (step.state, step.result.as_deref(), step.message.as_deref()),
            (StepState::Completed, Some("done"), None)
        );
        assert_eq!(whole.step("b").unwrap().code.as_deref(), Some("condition"));
        assert_eq!(whole.terminal, Some(TerminalState::Success));
        assert_eq!(
            (whole.count(StepState::Completed), whole.terminal_seq),
            (1, Some(7))
        );
    }

    #[test]
    fn a_record_taken_in_twice_or_of_another_coordination_changes_nothing() {
        let lines = lines();
        let mut history = History::fold(&lines).unwrap().unwrap();
        history.apply(&Record::parse(&lines[1]).unwrap());
        let other = lines[1]
            .replace("\"seq\":3", "\"seq\":99")
            .replace("\"coordinationId\":\"c\"", "\"coordinationId\":\"d\"");
        history.apply(&Record::parse(&other).unwrap());
        assert_eq!(history.step("a").unwrap().state, StepState::Completed);
        assert_eq!(history.last_seq, 7);
    }

    #[test]
    fn what_a_step_waits_for_before_and_after_it_went_out_is_told() {
        let mut lines = lines();
        lines.truncate(2);
        let mut history = History::fold(&lines).unwrap().unwrap();
        let mut seq = 3;
        let mut then = |step_id: &str, name: &str, data: &str| {
            seq += 1;
            let line = format!(
                r#"{{"v":1,"seq":{seq},"atMs":{seq}0,"type":"{name}","coordinationId":"c","stepId":"{step_id}","attempt":1,"data":{data},"prev":"{ZERO}","hash":"{ZERO}"}}"#
            );
            history.apply(&Record::parse(&line).unwrap());
            history.step(step_id).unwrap().state
        };
        let escalated = |kind: &str| {
            format!(
                r#"{{"escalationId":"e4","kind":"{kind}","question":"?","digest":"{ZERO}","levels":[]}}"#
            )
        };
        let decided = r#"{"escalationId":"e4","actor":"u","role":"operator","verdict":"approve","final":true}"#;
        // A question of a running step: it is at work again when that is answered.
        let state = then("a", "coordination.escalated", &escalated("question"));
        assert_eq!(state, StepState::WaitingHuman);
        assert_eq!(then("a", "human.decided", decided), StepState::Dispatched);
        // Before it went out.
        let hook = format!(
            r#"{{"hookId":"h6","kind":"before_dispatch","subjectDigest":"{ZERO}","dueMs":9}}"#
        );
        assert_eq!(then("b", "hook.requested", &hook), StepState::WaitingHook);
        let verdict = r#"{"hookId":"h6","handler":"h","verdict":"review"}"#;
        assert_eq!(then("b", "hook.verdict", verdict), StepState::Pending);
        let state = then("b", "coordination.escalated", &escalated("review"));
        assert_eq!(state, StepState::WaitingHuman);
        assert_eq!(then("b", "human.decided", decided), StepState::Pending);
        let waits = r#"{"contestId":"c9","stage":"lease","strategy":"owner_wins","outcomes":[{"stepId":"b","outcome":"waits","order":1}],"reason":"r"}"#;
        assert_eq!(
            then("b", "conflict.resolved", waits),
            StepState::WaitingClaim
        );
    }

    #[test]
    fn lines_without_a_beginning_tell_nothing() {
        assert!(History::fold(&lines()[1..]).unwrap().is_none());
        assert!(History::fold(["{}"]).is_err());
    }
}
