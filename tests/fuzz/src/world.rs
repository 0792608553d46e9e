//! A domain that calls are made of, natively, and what must hold for it whatever was called.
//!
//! Calls may leave blanks that only a running domain can fill in, such as the digest of a question: see [`World::resolve`].
//! Decides nothing that the core decides.

use qm2_core::call::{Answer, Call};
use qm2_core::config::Config;
use qm2_core::envelope::{Envelope, Intent};
use qm2_core::event::{Event, Record};
use qm2_core::machine::Machine;
use qm2_core::message::{Caller, Message};
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use std::collections::BTreeMap;

/// Larger times in a call are meant as they are; smaller ones are how much later it is.
const DELTA_MS_MAX: u64 = 1 << 42;
/// How often time goes on to the next deadline at most.
const DEADLINES_MAX: usize = 500;

/// A domain, its ledger, and what it has said that calls may need to name.
#[derive(Debug, Default)]
pub struct World {
    machine: Machine,
    staged: Staged,
    /// The whole ledger.
    pub lines: Vec<String>,
    /// The time of the last call that had one.
    pub now_ms: u64,
    /// Attempts that were handed out last, by coordination and step.
    attempts: BTreeMap<(String, String), Envelope>,
    /// Id and digest of the last question.
    question: (String, String),
    hook_id: String,
    report_keys: Vec<String>,
    /// Fencing tokens of further claims.
    tokens: Vec<u64>,
    shows: bool,
}

impl World {
    /// A domain that was never configured. With `QM2_FUZZ_SHOW` in the environment it prints every call as it is made.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shows: std::env::var_os("QM2_FUZZ_SHOW").is_some(),
            ..Self::default()
        }
    }

    /// A domain with the default configuration and the gate on.
    #[must_use]
    pub fn open(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::new();
        let mut config = Config::new("d");
        config.phase1.enabled = true;
        change(&mut config);
        let config = config.to_json();
        let answer = world.call(&Call::Configure { config });
        assert_eq!(answer, Ok(Answer::Configure));
        world
    }

    /// A domain that was never configured, with a machine that came into its state in some other way.
    #[must_use]
    pub fn of(machine: Machine, now_ms: u64) -> Self {
        Self {
            machine,
            now_ms,
            ..Self::new()
        }
    }

    /// Makes a call as it is.
    ///
    /// # Errors
    /// Those of the call.
    pub fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        if self.shows {
            println!("{}", serde_json::to_string(call).unwrap_or_default());
        }
        let answer = self.machine.call(&mut self.staged, call);
        if self.shows {
            println!("  {answer:?}");
        }
        // Nothing refuses an append here, so nothing may spend the machine.
        assert_ne!(answer, Err(CallError::Rebuild), "{}", call.name());
        assert_ne!(answer, Err(CallError::LedgerUnavailable), "{}", call.name());
        let staged = self.staged.take();
        for ask in &staged.asks {
            self.hook_id.clone_from(&ask.hook_id);
        }
        let in_lanes = staged
            .lane_messages
            .into_iter()
            .map(|(_, _, message)| message);
        for message in staged.messages.into_iter().chain(in_lanes) {
            self.note(message);
        }
        for line in &staged.lines {
            if line.contains("\"type\":\"coordination.escalated\"") {
                self.note_question(line);
            }
        }
        if let Ok(Answer::Claim(Ok(grant))) = &answer {
            self.tokens.push(grant.token);
        }
        self.lines.extend(staged.lines);
        answer
    }

    fn note(&mut self, message: Message) {
        if message.envelope.intent == Intent::Execute {
            let step_id = message.envelope.step_id.clone().unwrap_or_default();
            let place = (message.envelope.coordination_id.clone(), step_id);
            self.attempts.insert(place, message.envelope);
        } else if message.key.starts_with("report:") {
            self.report_keys.push(message.key);
        }
    }

    fn note_question(&mut self, line: &str) {
        let record = Record::parse(line).expect("the core reads what it writes");
        if let Event::Escalated(escalated) = record.event {
            self.question = (escalated.escalation_id, escalated.digest);
        }
    }

    /// The attempt of a step that was handed out last.
    #[must_use]
    pub fn attempt(&self, coordination_id: &str, step_id: &str) -> Option<&Envelope> {
        let place = (coordination_id.to_owned(), step_id.to_owned());
        self.attempts.get(&place)
    }

    /// Id of the last request to hooks; empty where there was none.
    #[must_use]
    pub fn hook_id(&self) -> &str {
        &self.hook_id
    }

    /// Fills in the blanks of a call:
    ///
    /// | blank | becomes |
    /// |---|---|
    /// | a time below 2^42 | so many milliseconds after the last one; of an `advance` with 0 the next deadline |
    /// | attempt 0 | the attempt of the step that was handed out last |
    /// | an empty digest or escalation id, an empty hook id | those of the last question, of the last request |
    /// | a report key without number | all that were sent |
    /// | token 0 | the tokens that the step was dispatched with, and those of further claims |
    pub fn resolve(&mut self, call: &mut Call) {
        if let Some(now_ms) = call.now() {
            if matches!(call, Call::Advance { now_ms: 0 }) {
                if let Ok(Some(due_ms)) = self.machine.next_deadline() {
                    self.now_ms = self.now_ms.max(due_ms);
                }
                call.set_now(self.now_ms);
            } else if now_ms < DELTA_MS_MAX {
                self.now_ms = self.now_ms.saturating_add(now_ms);
                call.set_now(self.now_ms);
            }
        }
        match call {
            Call::Submit { envelopes, .. } => {
                for envelope in envelopes {
                    let step_id = envelope.step_id.clone().unwrap_or_default();
                    if envelope.attempt == Some(0)
                        && let Some(execute) = self.attempt(&envelope.coordination_id, &step_id)
                    {
                        envelope.attempt = execute.attempt;
                    }
                }
            }
            Call::Acknowledge { keys, .. } if keys.iter().any(|key| key == "report:") => {
                keys.clone_from(&self.report_keys);
                keys.truncate(1_024);
            }
            Call::Verdict { hook_id, .. } if hook_id.is_empty() => {
                hook_id.clone_from(&self.hook_id);
            }
            Call::Answer {
                escalation_id,
                digest,
                ..
            } => {
                if escalation_id.is_empty() {
                    escalation_id.clone_from(&self.question.0);
                }
                if digest.is_empty() {
                    digest.clone_from(&self.question.1);
                }
            }
            Call::Claim { request, .. } if request.attempt == 0 => {
                let execute = self.attempt(&request.coordination_id, &request.step_id);
                request.attempt = execute.and_then(|execute| execute.attempt).unwrap_or(0);
            }
            Call::Renew {
                coordination_id,
                step_id,
                attempt,
                tokens,
                ..
            }
            | Call::Release {
                coordination_id,
                step_id,
                attempt,
                tokens,
                ..
            } => {
                let execute = self.attempt(coordination_id, step_id);
                if *attempt == 0 {
                    *attempt = execute.and_then(|execute| execute.attempt).unwrap_or(0);
                }
                if tokens.contains(&0) {
                    let held = execute.map(|execute| execute.tokens.as_slice());
                    let held = held.unwrap_or_default().iter().map(|token| token.token);
                    *tokens = held.chain(self.tokens.iter().copied()).collect();
                }
            }
            Call::Check {
                resource, token, ..
            } if *token == 0 => {
                let mut held = self.attempts.values().flat_map(|execute| &execute.tokens);
                let held = held.find(|held| held.resource == *resource);
                let other = self.tokens.last().copied().unwrap_or(0);
                *token = held.map_or(other, |held| held.token);
            }
            _ => {}
        }
    }

    /// A crash and the way back: made anew from the ledger.
    pub fn replay(&mut self) {
        let machine = replayed(&self.lines);
        assert_eq!(
            machine.state_digest(),
            self.machine.state_digest(),
            "the folded ledger is another state"
        );
        self.machine = machine;
    }

    /// Made anew from a snapshot in pieces of about this size.
    pub fn restore(&mut self, max_bytes: u64) {
        let chunks = chunks(&self.machine, max_bytes);
        let machine = restored(&chunks).expect("a snapshot that was taken can be taken in");
        assert_eq!(
            machine.state_digest(),
            self.machine.state_digest(),
            "the restored snapshot is another state"
        );
        assert_eq!(self::chunks(&machine, max_bytes), chunks);
        self.machine = machine;
    }

    /// The snapshot in pieces of about this size.
    #[must_use]
    pub fn chunks(&self, max_bytes: u64) -> Vec<String> {
        chunks(&self.machine, max_bytes)
    }

    /// What can be asked of a domain is answered, in JSON where that is said.
    ///
    /// # Panics
    /// Where it is not.
    pub fn ask_everything(&mut self) {
        let Ok(Answer::Describe(text)) = self.call(&Call::Describe { id: String::new() }) else {
            panic!("the domain is not described")
        };
        let domain: serde_json::Value = serde_json::from_str(&text).expect("describe is JSON");
        for entry in domain["coordinations"].as_array().into_iter().flatten() {
            let id = entry["coordinationId"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let Ok(Answer::Describe(text)) = self.call(&Call::Describe { id: id.clone() }) else {
                panic!("{id} is not described")
            };
            let live: serde_json::Value = serde_json::from_str(&text).expect("describe is JSON");
            for step in live["steps"].as_array().into_iter().flatten() {
                let step_id = step["stepId"].as_str().unwrap_or_default().to_owned();
                let id = id.clone();
                match self.call(&Call::ExplainWait { id, step_id }) {
                    Ok(Answer::ExplainWait(text)) => {
                        let view: Result<serde_json::Value, _> = serde_json::from_str(&text);
                        assert!(view.is_ok(), "explain-wait is JSON: {text}");
                    }
                    other => panic!("explain-wait: {other:?}"),
                }
            }
        }
        let _ = self.call(&Call::Reconcile);
        let _ = self.call(&Call::NextDeadline);
    }

    /// Left alone, everything ends by its deadlines: time goes on to the next one, and on, as long as there is one. A plan
    /// may be allowed more retries than there is time for here; then it gets as far as it does.
    ///
    /// # Panics
    /// Where nothing is due any more and something has not ended.
    pub fn run_out(&mut self) {
        if self.pass_deadlines(DEADLINES_MAX) {
            self.assert_ended();
        }
    }

    /// Time goes on to the next deadline, so many times or as long as there is one; whether none is left.
    ///
    /// # Panics
    /// Where what was due is still due afterwards.
    pub fn pass_deadlines(&mut self, times: usize) -> bool {
        let mut passed_ms = None;
        for _ in 0..times {
            let due_ms = match self.call(&Call::NextDeadline) {
                Ok(Answer::NextDeadline(Some(due_ms))) => due_ms,
                Ok(_) => return true,
                // The gate is off.
                Err(_) => return false,
            };
            assert!(
                passed_ms < Some(due_ms),
                "what was due at {due_ms} still is"
            );
            self.now_ms = self.now_ms.max(due_ms);
            let now_ms = self.now_ms;
            match self.call(&Call::Advance { now_ms }) {
                Ok(Answer::Advance(false)) => passed_ms = Some(now_ms),
                Ok(_) => passed_ms = None,
                // Later than time goes.
                Err(_) => return false,
            }
        }
        false
    }

    fn assert_ended(&mut self) {
        let Ok(Answer::Describe(text)) = self.call(&Call::Describe { id: String::new() }) else {
            panic!("the domain is not described")
        };
        let domain: serde_json::Value = serde_json::from_str(&text).expect("describe is JSON");
        for entry in domain["coordinations"].as_array().into_iter().flatten() {
            assert_eq!(
                entry["state"], "closed",
                "nothing is due, and it has not ended"
            );
        }
    }
}

/// A machine that has replayed this ledger.
///
/// # Panics
/// Where the ledger is refused.
#[must_use]
pub fn replayed(lines: &[String]) -> Machine {
    let mut machine = Machine::new();
    let head = machine.replay(lines, false).expect("the ledger replays");
    assert_eq!(head.seq, lines.len() as u64);
    machine
}

/// A machine that has taken these pieces in.
///
/// # Errors
/// Why it has not.
pub fn restored(chunks: &[String]) -> Result<Machine, CallError> {
    let mut machine = Machine::new();
    for (index, chunk) in chunks.iter().enumerate() {
        machine.restore(chunk, index + 1 == chunks.len())?;
    }
    Ok(machine)
}

/// The snapshot of a machine.
///
/// # Panics
/// Where it gives none, or where it does not end.
#[must_use]
pub fn chunks(machine: &Machine, max_bytes: u64) -> Vec<String> {
    let (mut chunks, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let piece = machine.snapshot(cursor.as_deref(), max_bytes);
        let piece = piece.expect("a snapshot can be taken");
        chunks.push(piece.chunk);
        assert!(chunks.len() <= 10_000, "the snapshot does not end");
        assert!(piece.next.is_none() || piece.next != cursor);
        match piece.next {
            Some(next) => cursor = Some(next),
            None => return chunks,
        }
    }
}

/// A caller without a role.
#[must_use]
pub fn caller(session: &str) -> Caller {
    Caller {
        session: session.to_owned(),
        role: None,
    }
}
