//! What the world around a domain knows: the time, what reached whom, and what can still happen.
//!
//! Makes calls of inputs, the same ones whether a state is explored or a path is done again from the start. Audits nothing.

use super::scope::{Input, Scope};
use crate::audit::Done;
use crate::world::{caller, envelope};
use qm2_core::call::{Answer, Call};
use qm2_core::claim::{ClaimRequest, Mode};
use qm2_core::envelope::{Envelope, FailureClass, Intent, Outcome, Question};
use qm2_core::message::{Caller, HookVerdict, HumanVerdict, Message, Notice, NoticeKind, Role};
use std::collections::BTreeMap;

/// When a scope begins; above every duration and every number of a record.
pub const BEGIN_MS: u64 = 1_000_000;

/// One thing that happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The time of the next deadline is told.
    Deadline,
    /// The input at this place of the scope.
    Input(usize),
}

/// What is known outside of the domain.
#[derive(Clone, Debug)]
pub struct Situation {
    now_ms: u64,
    /// Attempts whose message went out, with the tokens in it.
    heard: BTreeMap<String, Vec<u64>>,
    /// Questions that were ever asked, with what was shown.
    questions: Vec<(String, String)>,
    hooks: Vec<String>,
    /// Reports that their receivers have and did not acknowledge.
    reports: BTreeMap<String, String>,
    /// How often each input can still happen.
    left: Vec<u8>,
}

/// What a move does.
#[derive(Debug)]
pub enum Act {
    /// A call.
    Call(Call),
    /// Only the host's clock moves.
    Clock,
}

impl Situation {
    /// Before anything has happened.
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        Self {
            now_ms: BEGIN_MS,
            heard: BTreeMap::new(),
            questions: Vec::new(),
            hooks: Vec::new(),
            reports: BTreeMap::new(),
            left: scope.entries.iter().map(|entry| entry.times).collect(),
        }
    }

    /// The calls that every path begins with.
    #[must_use]
    pub fn opening(scope: &Scope) -> Vec<Call> {
        let config = scope.configs[0].to_string();
        let plans = (0..scope.opening).map(|place| submit_plan(scope, place, BEGIN_MS));
        std::iter::once(Call::Configure { config })
            .chain(plans)
            .collect()
    }

    /// As text, for the normal form; without what can still happen.
    #[must_use]
    pub fn text(&self) -> String {
        let (now_ms, heard) = (self.now_ms, &self.heard);
        let (questions, hooks, reports) = (&self.questions, &self.hooks, &self.reports);
        format!("{now_ms} {heard:?} {questions:?} {hooks:?} {reports:?}")
    }

    /// How often each input can still happen.
    #[must_use]
    pub fn left(&self) -> &[u8] {
        &self.left
    }

    /// What is said at once, before anything else can happen.
    #[must_use]
    pub fn prompt(&self, scope: &Scope) -> Option<Call> {
        let to = self.reports.values().next().filter(|_| scope.is_prompt)?;
        let mut call = self.acknowledge(to);
        call.set_now(self.now_ms);
        Some(call)
    }

    fn acknowledge(&self, session: &str) -> Call {
        let own = self.reports.iter().filter(|(_, to)| *to == session);
        Call::Acknowledge {
            caller: caller(session),
            now_ms: 0,
            keys: own.map(|(key, _)| key.clone()).collect(),
        }
    }

    /// Hashes that stand for what was shown with questions.
    #[must_use]
    pub fn digests(&self) -> Vec<&str> {
        self.questions
            .iter()
            .map(|(_, digest)| digest.as_str())
            .collect()
    }

    /// What the host's clock shows.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Everything that can happen next.
    #[must_use]
    pub fn moves(&self, scope: &Scope, due_ms: Option<u64>) -> Vec<Move> {
        let mut moves: Vec<Move> = due_ms.map(|_| Move::Deadline).into_iter().collect();
        let inputs = scope.entries.iter().enumerate().filter(|(place, entry)| {
            self.left[*place] > 0 && (entry.is_early || self.can(&entry.input, due_ms))
        });
        moves.extend(inputs.map(|(place, _)| Move::Input(place)));
        moves
    }

    /// Whether whoever says it can know what it is about.
    fn can(&self, input: &Input, due_ms: Option<u64>) -> bool {
        match input {
            Input::Ack(key)
            | Input::Done(key, _)
            | Input::Failed(key, _)
            | Input::Progress(key, _)
            | Input::Ask(key, _)
            | Input::Forged(key)
            | Input::Add(key, ..)
            | Input::Claim(key, ..)
            | Input::Renew(key)
            | Input::UnknownTarget(key)
            | Input::Dropped(key)
            | Input::HostLost(key) => self.heard.contains_key(*key),
            Input::Release(key) => self.heard.get(*key).is_some_and(|held| !held.is_empty()),
            Input::Answer(place, ..)
            | Input::StaleAnswer(place, _)
            | Input::Unreachable(place, _) => *place < self.questions.len(),
            Input::Verdict(place, _) => *place < self.hooks.len(),
            Input::Acknowledge(session) => self.reports.values().any(|to| to == session),
            Input::Due => due_ms.is_some_and(|due_ms| due_ms > self.now_ms),
            Input::Cancel(..)
            | Input::Plan(_)
            | Input::Configure(_)
            | Input::Later(_)
            | Input::Back(_)
            | Input::Tell => true,
        }
    }

    /// Makes a move: what has to be called, if anything.
    pub fn act(&mut self, scope: &Scope, this: Move, due_ms: Option<u64>) -> Act {
        let place = match this {
            Move::Deadline => {
                self.now_ms = self.now_ms.max(due_ms.unwrap_or(self.now_ms));
                return Act::Call(Call::Advance {
                    now_ms: self.now_ms,
                });
            }
            Move::Input(place) => place,
        };
        self.left[place] -= 1;
        let input = &scope.entries[place].input;
        match input {
            Input::Later(by_ms) => self.now_ms += by_ms,
            Input::Back(by_ms) => self.now_ms -= by_ms,
            Input::Due => self.now_ms = self.now_ms.max(due_ms.unwrap_or(self.now_ms)),
            _ => {
                let mut call = self.call(scope, input);
                call.set_now(self.now_ms);
                return Act::Call(call);
            }
        }
        Act::Clock
    }

    fn call(&self, scope: &Scope, input: &Input) -> Call {
        match input {
            Input::Cancel(id, step, by) => {
                let by = session_with_role(by);
                let cancel = Envelope {
                    reason: Some("changed my mind".into()),
                    ..envelope(id, *step, None, &by.session, Intent::Cancel)
                };
                submit(by, cancel)
            }
            Input::Answer(place, by, verdict) => {
                let (id, digest) = &self.questions[*place];
                answer(by, id, digest, verdict)
            }
            Input::StaleAnswer(place, by) => {
                answer(by, &self.questions[*place].0, &"0".repeat(64), "approve")
            }
            Input::Unreachable(place, level) => {
                let id = &self.questions[*place].0;
                notice(
                    format!("escalation:{id}:{level}:1"),
                    NoticeKind::Unreachable,
                )
            }
            Input::Verdict(place, verdict) => Call::Verdict {
                now_ms: 0,
                hook_id: self.hooks[*place].clone(),
                handler: "handler".into(),
                verdict: match *verdict {
                    "deny" => HookVerdict::Deny("no".into()),
                    "review" => HookVerdict::Review,
                    _ => HookVerdict::NoOpinion,
                },
            },
            Input::Acknowledge(session) => self.acknowledge(session),
            Input::Plan(place) => submit_plan(scope, *place, 0),
            Input::Configure(place) => Call::Configure {
                config: scope.configs[*place].to_string(),
            },
            Input::Tell | Input::Later(_) | Input::Back(_) | Input::Due => {
                Call::Advance { now_ms: 0 }
            }
            Input::Ack(key)
            | Input::Done(key, _)
            | Input::Failed(key, _)
            | Input::Progress(key, _)
            | Input::Ask(key, _)
            | Input::Forged(key)
            | Input::Add(key, ..)
            | Input::Claim(key, ..)
            | Input::Renew(key)
            | Input::Release(key)
            | Input::UnknownTarget(key)
            | Input::Dropped(key)
            | Input::HostLost(key) => self.of_attempt(scope, input, key),
        }
    }

    fn of_attempt(&self, scope: &Scope, input: &Input, key: &str) -> Call {
        let mut parts = key.split(':');
        let id = parts.next().unwrap_or_default();
        let step = parts.next().unwrap_or_default();
        let attempt: u32 = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
        let session = scope.session(id, step);
        let say = |intent| envelope(id, Some(step), Some(attempt), session, intent);
        let report = |outcome, payload: Option<&str>| Envelope {
            outcome: Some(outcome),
            payload: payload.map(str::to_owned),
            ..say(Intent::Report)
        };
        let (coordination_id, step_id) = (id.to_owned(), step.to_owned());
        let by = caller(session);
        match input {
            Input::Done(_, payload) => submit(by, report(Outcome::Completed, Some(payload))),
            Input::Failed(_, class) => {
                let class = match *class {
                    "permanent" => FailureClass::Permanent,
                    "unknown" => FailureClass::Unknown,
                    _ => FailureClass::Retryable,
                };
                let (code, message) = ("broken".to_owned(), "did not work".to_owned());
                let outcome = Outcome::Failed {
                    class,
                    code,
                    message,
                };
                submit(by, report(outcome, None))
            }
            Input::Progress(_, number) => {
                submit(by, report(Outcome::Progress { number: *number }, None))
            }
            Input::Ask(_, number) => {
                let (number, text) = (*number, "may I?".to_owned());
                let question = Some(Question { number, text });
                submit(
                    by,
                    Envelope {
                        question,
                        ..say(Intent::Escalate)
                    },
                )
            }
            Input::Forged(_) => submit(
                caller("agent:liar"),
                report(Outcome::Completed, Some("stolen")),
            ),
            Input::Add(_, new, to, payload) => submit(
                by,
                Envelope {
                    step_id: Some((*new).to_owned()),
                    parent_step_id: Some(step_id),
                    attempt: Some(1),
                    target_session: (*to).to_owned(),
                    payload: Some((*payload).to_owned()),
                    ..say(Intent::Execute)
                },
            ),
            Input::Claim(_, resource, lease_ms) => Call::Claim {
                caller: by,
                now_ms: 0,
                request: ClaimRequest {
                    coordination_id,
                    step_id,
                    attempt,
                    resource: (*resource).to_owned(),
                    mode: Mode::Exclusive,
                    lease_ms: *lease_ms,
                    base_version: None,
                    regions: Vec::new(),
                },
            },
            Input::Renew(_) => Call::Renew {
                caller: by,
                now_ms: 0,
                coordination_id,
                step_id,
                attempt,
                tokens: Vec::new(),
            },
            Input::Release(_) => Call::Release {
                caller: by,
                now_ms: 0,
                coordination_id,
                step_id,
                attempt,
                tokens: self.heard.get(key).cloned().unwrap_or_default(),
            },
            Input::UnknownTarget(_) => notice(key.to_owned(), NoticeKind::UnknownTarget),
            Input::Dropped(_) => notice(key.to_owned(), NoticeKind::Dropped),
            Input::HostLost(_) => notice(key.to_owned(), NoticeKind::HostLost),
            _ => submit(by, say(Intent::Ack)),
        }
    }

    /// Takes in what came of a call.
    pub fn take(&mut self, done: &Done) {
        let lanes = done.staged.lane_messages.iter();
        let lanes = lanes.map(|(_, _, message)| message);
        for message in done.staged.messages.iter().chain(lanes) {
            self.receive(message);
        }
        for ask in &done.staged.asks {
            if !self.hooks.contains(&ask.hook_id) {
                self.hooks.push(ask.hook_id.clone());
            }
        }
        if let (Call::Acknowledge { keys, .. }, Some(Ok(Answer::Acknowledge(_)))) =
            (&done.call, &done.answer)
        {
            self.reports.retain(|key, _| !keys.contains(key));
        }
        for line in &done.staged.lines {
            if let Some((id, digest)) = question(line) {
                self.questions.push((id, digest));
            }
        }
    }

    fn receive(&mut self, message: &Message) {
        let key = &message.key;
        if key.starts_with("report:") {
            let to = message.envelope.target_session.clone();
            self.reports.insert(key.clone(), to);
        } else if message.envelope.intent == Intent::Execute && !key.starts_with("probe:") {
            let tokens = message.envelope.tokens.iter().map(|token| token.token);
            self.heard.insert(key.clone(), tokens.collect());
        }
    }
}

/// Id and digest of the question that a line opens.
fn question(line: &str) -> Option<(String, String)> {
    if !line.contains("\"type\":\"coordination.escalated\"") {
        return None;
    }
    let record: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| record["data"][name].as_str().map(str::to_owned);
    text("escalationId").zip(text("digest"))
}

fn submit_plan(scope: &Scope, place: usize, now_ms: u64) -> Call {
    let plan = &scope.plans[place];
    Call::SubmitPlan {
        caller: caller(plan["ownerSession"].as_str().unwrap_or_default()),
        now_ms,
        plan: plan.to_string(),
    }
}

fn submit(by: Caller, envelope: Envelope) -> Call {
    Call::Submit {
        caller: by,
        now_ms: 0,
        envelopes: vec![envelope],
    }
}

fn notice(key: String, kind: NoticeKind) -> Call {
    Call::Notice {
        now_ms: 0,
        notices: vec![Notice { key, kind }],
    }
}

/// `session` or `session=role`.
fn session_with_role(text: &str) -> Caller {
    let (session, role) = text.split_once('=').unwrap_or((text, ""));
    let role = match role {
        "user" => Some(Role::User),
        "operator" => Some(Role::Operator),
        "admin" => Some(Role::Admin),
        "owner" => Some(Role::Owner),
        _ => None,
    };
    Caller {
        role,
        ..caller(session)
    }
}

fn answer(by: &str, id: &str, digest: &str, verdict: &str) -> Call {
    Call::Answer {
        actor: session_with_role(by),
        now_ms: 0,
        escalation_id: id.to_owned(),
        digest: digest.to_owned(),
        verdict: match verdict {
            "deny" => HumanVerdict::Deny,
            "completed" => HumanVerdict::Completed,
            _ => HumanVerdict::Approve,
        },
        text: Some("as you like".into()),
    }
}
