//! A domain whose agents answer at once, in the order in which they are asked; it keeps every call and every line.
//!
//! Time goes on by a millisecond a call, and further only when everything waits for it.

use super::plans;
use qm2_core::call::{Answer, Call};
use qm2_core::config::Config;
use qm2_core::envelope::{Envelope, FailureClass, Intent, Outcome};
use qm2_core::limit;
use qm2_core::machine::Machine;
use qm2_core::message::{Caller, Message};
use qm2_core::receipt::Rejection;
use qm2_core::staged::Staged;

/// What an agent says to an instruction.
pub type Agent = fn(&Envelope) -> Vec<Envelope>;

/// The domain, and what was said to it.
pub struct Domain {
    pub machine: Machine,
    staged: Staged,
    pub calls: Vec<Call>,
    pub lines: Vec<String>,
    pub envelopes: usize,
    now_ms: u64,
}

impl Domain {
    /// One that is configured, and so wide that only the plans decide what is out at once.
    pub fn new() -> Self {
        let mut config = Config::new("bench");
        config.phase1.enabled = true;
        config.max_in_flight = limit::IN_FLIGHT_MAX;
        config.session_in_flight = limit::IN_FLIGHT_MAX;
        let mut domain = Self {
            machine: Machine::new(),
            staged: Staged::default(),
            calls: Vec::new(),
            lines: Vec::new(),
            envelopes: 0,
            now_ms: 1_000,
        };
        domain.call(Call::Configure {
            config: config.to_json(),
        });
        domain
    }

    /// Keeps what the domain is, and not how it came about: answers with the ledger of that.
    pub fn forget(&mut self) -> Vec<String> {
        self.calls.clear();
        self.envelopes = 0;
        std::mem::take(&mut self.lines)
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Whether there is a record of a type.
    pub fn has(&self, kind: &str) -> bool {
        let member = format!(r#""type":"{kind}""#);
        self.lines.iter().any(|line| line.contains(&member))
    }

    /// Submits plans and has agents do them; all end in success.
    pub fn run(&mut self, plans: impl Iterator<Item = String>, agent: Agent) {
        let first = self.lines.len();
        let mut messages = Vec::new();
        let mut count = 0;
        for plan in plans {
            messages.extend(self.submit(&plan));
            count += 1;
        }
        loop {
            while !messages.is_empty() {
                for message in std::mem::take(&mut messages) {
                    messages.extend(self.say(&message, agent));
                }
            }
            let ended = self.lines[first..]
                .iter()
                .filter(|line| line.contains(r#""type":"coordination.terminal""#));
            let ended: Vec<&String> = ended.collect();
            if ended.len() == count {
                let is_success = |line: &&String| line.contains(r#""terminal":"success""#);
                assert!(ended.iter().all(is_success), "they all succeed");
                return;
            }
            messages = self.wait();
        }
    }

    /// Submits a plan; what goes out.
    pub fn submit(&mut self, plan: &str) -> Vec<Message> {
        let call = Call::SubmitPlan {
            caller: caller(plans::OWNER),
            now_ms: self.now_ms,
            plan: plan.to_owned(),
        };
        self.call(call)
    }

    /// What the receiver of a message says to it; what goes out then.
    pub fn say(&mut self, message: &Message, agent: Agent) -> Vec<Message> {
        let envelope = &message.envelope;
        let caller = caller(&envelope.target_session);
        let now_ms = self.now_ms;
        let call = match envelope.intent {
            Intent::Execute => {
                let envelopes = agent(envelope);
                self.envelopes += envelopes.len();
                Call::Submit {
                    caller,
                    now_ms,
                    envelopes,
                }
            }
            _ => Call::Acknowledge {
                caller,
                now_ms,
                keys: vec![message.key.clone()],
            },
        };
        self.call(call)
    }

    /// Asks until when nothing happens, as a host does, and lets that time come; what goes out then.
    fn wait(&mut self) -> Vec<Message> {
        self.call(Call::NextDeadline);
        let due_ms = self.machine.next_deadline().expect("it is usable");
        self.now_ms = due_ms.expect("something is still waited for");
        self.call(Call::Advance {
            now_ms: self.now_ms,
        })
    }

    fn call(&mut self, call: Call) -> Vec<Message> {
        let answer = self.machine.call(&mut self.staged, &call);
        check(answer.expect("the call is within its bounds"));
        self.calls.push(call);
        self.now_ms += 1;
        let mut said = self.staged.take();
        self.lines.append(&mut said.lines);
        said.messages
    }
}

/// A scenario has no input that is refused.
fn check(answer: Answer) {
    let refused: Option<Rejection> = match answer {
        Answer::SubmitPlan(result) => result.err(),
        Answer::Submit(results) | Answer::Acknowledge(results) => {
            results.into_iter().find_map(Result::err)
        }
        _ => None,
    };
    assert_eq!(refused, None);
}

pub fn caller(session: &str) -> Caller {
    Caller {
        session: session.to_owned(),
        role: None,
    }
}

/// The ack and the report.
pub fn done(execute: &Envelope) -> Vec<Envelope> {
    let mut said = vec![reply(execute, Intent::Ack, None)];
    said.extend(reported(execute));
    said
}

/// The report, which stands for the ack.
pub fn reported(execute: &Envelope) -> Vec<Envelope> {
    let mut report = reply(execute, Intent::Report, Some(Outcome::Completed));
    report.content_type = Some("application/json".into());
    report.payload = Some(r#"{"changed":["src/lib.rs","src/main.rs"],"tests":17}"#.into());
    vec![report]
}

/// The first two attempts fail and may be made again; the third one is done.
pub fn attempts_that_fail(execute: &Envelope) -> Vec<Envelope> {
    if execute.attempt.is_some_and(|attempt| attempt > 2) {
        return done(execute);
    }
    let failed = Outcome::Failed {
        class: FailureClass::Retryable,
        code: "busy".into(),
        message: "the service did not answer".into(),
    };
    vec![
        reply(execute, Intent::Ack, None),
        reply(execute, Intent::Report, Some(failed)),
    ]
}

fn reply(execute: &Envelope, intent: Intent, outcome: Option<Outcome>) -> Envelope {
    Envelope {
        source_session: execute.target_session.clone(),
        target_session: execute.source_session.clone(),
        intent,
        outcome,
        deadline_ms: None,
        content_type: None,
        payload: None,
        payload_ref: None,
        tokens: Vec::new(),
        ..execute.clone()
    }
}
