//! Questions on their way to people, and answers on their way back to the step that asked.
//!
//! A person is not sent anything: a question is shown wherever the host shows questions. A notifier, an agent that serves
//! the session of a question, is run with it and passes it on; what counts is that it did not fail. A level is said to be
//! unreachable when none of its sessions was reached: a chat that is down must not deny what somebody else was shown.
//! Whether an answer counts is decided in the component.

use super::Delivery;
use super::attempt::Spawned;
use crate::agent::{Agent, CommandAgent, Function, Task};
use crate::answer;
use crate::contract::ANSWER_PREFIX;
use crate::process::Ended;
use crate::route::Asked;
use qm2_core::envelope::{Envelope, Outcome};
use qm2_core::id::attempt_key;
use qm2_core::message::{Message, NoticeKind, Role};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// What people answered to the questions of one attempt.
#[derive(Default)]
pub(crate) struct Answers {
    /// Texts of approvals, by the id of the question.
    pub(crate) texts: BTreeMap<String, String>,
    /// The attempt is over: no more will come.
    pub(crate) ended: bool,
}

/// A question that was handed out and is not settled.
pub(super) struct Question {
    delivery: u32,
    /// Ends its notifier.
    pub(super) cancelled: watch::Sender<bool>,
}

impl Delivery {
    /// Hands a question out, once a delivery.
    pub(super) fn ask(self: &Arc<Self>, message: Message) {
        let (cancelled, cancel) = watch::channel(false);
        let delivery = message.delivery;
        let mut state = self.lock();
        let known = state.questions.get(&message.key);
        if state.closing || known.is_some_and(|known| known.delivery >= delivery) {
            return;
        }
        let question = Question {
            delivery,
            cancelled,
        };
        if let Some(before) = state.questions.insert(message.key.clone(), question) {
            before.cancelled.send_replace(true);
        }
        drop(state);
        let Envelope {
            coordination_id,
            source_session: owner,
            target_session: session,
            ..
        } = &message.envelope;
        let asked = self
            .routes
            .ask(coordination_id, owner, session, role_min(&message));
        match asked {
            // Who shows it to people looks for it.
            Asked::Person => {}
            Asked::Others => {
                tracing::info!(
                    "{} is for {session}, whom the agents file does not know; others can answer it",
                    message.key
                );
            }
            Asked::Nobody => {
                tracing::warn!(
                    "{} reaches nobody: {session} is neither an agent nor one of the [[people]], and none of those has \
                     the role that it needs",
                    message.key
                );
                self.not_reached(&message);
            }
            Asked::NotServedHere => {
                tracing::info!("{} waits: this process asks nobody for it", message.key);
            }
            Asked::Notifier(agent) => {
                let this = self.clone();
                self.enqueue(&message.clone(), async move {
                    this.notify(message, agent, cancel).await;
                });
            }
        }
    }

    /// Runs the notifier of a question to its end, or to that of the question.
    async fn notify(
        self: Arc<Self>,
        message: Message,
        agent: Agent,
        cancel: watch::Receiver<bool>,
    ) {
        let Some(_at_work) = self.begin_to_notify(&message) else {
            return;
        };
        let failure = match agent {
            Agent::Command(agent) => self.run_notifier(&message, &agent, cancel).await,
            Agent::Function(function) => self.call_notifier(&message, &function, cancel).await,
            // It takes work and nothing else.
            Agent::Staying(_) => Some(
                "its agent stays, and people need a command of their own that tells them"
                    .to_owned(),
            ),
            Agent::Channel(channel) => self.send_question(&message, &*channel).await,
        };
        if self.lock().closing {
            // The next owner of the data directory asks again.
            return;
        }
        if let Some(says) = failure {
            tracing::warn!("{} was not passed on: {says}", message.key);
            self.not_reached(&message);
        }
    }

    /// Says that a level is unreachable once nobody of it was reached.
    fn not_reached(&self, message: &Message) {
        let level = level_in(message);
        let sessions = level["sessions"].as_array().map_or(1, Vec::len);
        let mut state = self.lock();
        let level = level_of(&message.key).to_owned();
        let unreached = state.unreached.entry(level).or_default();
        unreached.insert(message.key.clone());
        if unreached.len() >= sessions {
            self.submitter.notice(&message.key, NoticeKind::Unreachable);
        }
    }

    /// Counts a notifier as at work, so that closing waits for it; none if its question is not wanted any more.
    fn begin_to_notify(self: &Arc<Self>, message: &Message) -> Option<Notifying> {
        let state = self.lock();
        let question = state.questions.get(&message.key)?;
        if state.closing || question.delivery != message.delivery {
            return None;
        }
        self.at_work.send_modify(|count| *count += 1);
        Some(Notifying(self.clone()))
    }

    /// Why a command did not pass a question on.
    async fn run_notifier(
        &self,
        message: &Message,
        agent: &CommandAgent,
        cancel: watch::Receiver<bool>,
    ) -> Option<String> {
        // Not noted: it is of no attempt, and one that outlives a killed host is found by its environment.
        let (key, envelope) = (&message.key, &message.envelope);
        let mut process = match self.spawn(agent, key, envelope, cancel.clone()).await {
            Spawned::Runs(process) => process,
            Spawned::Never(says) => return Some(says),
            Spawned::Cancelled => return None,
        };
        process.open_gate(&message.envelope);
        match process.run(super::attempt::until(cancel)).await {
            Ended::Itself(report) => failure(report.outcome),
            Ended::Cancelled(_) => None,
        }
    }

    /// Why an agent of this process did not pass a question on.
    async fn call_notifier(
        &self,
        message: &Message,
        function: &Arc<Function>,
        cancel: watch::Receiver<bool>,
    ) -> Option<String> {
        let (_, answers) = watch::channel(Answers::default());
        let task = Task {
            key: message.key.clone(),
            delivery: message.delivery,
            envelope: message.envelope.clone(),
            cancelled: cancel.clone(),
            answers,
            submitter: self.submitter.clone(),
        };
        let mut work = tokio::spawn(function(task));
        tokio::select! {
            report = &mut work => match report {
                Ok(report) => failure(report.outcome),
                Err(e) => Some(format!("it panicked: {e}")),
            },
            () = super::attempt::until(cancel) => {
                work.abort();
                let _ = work.await;
                None
            }
        }
    }

    /// Gives an answer to the attempt that asked, where that is at work here.
    pub(super) fn answer(&self, message: Message) {
        let envelope = message.envelope;
        let id = message.key.strip_prefix(ANSWER_PREFIX).unwrap_or_default();
        let id = id.to_owned();
        let key = attempt_key(
            &envelope.coordination_id,
            envelope.step_id.as_deref().unwrap_or_default(),
            envelope.attempt.unwrap_or_default(),
        );
        let text = envelope.payload.unwrap_or_default();
        let state = self.lock();
        // One that is over, as after a denial, must not take what was said with that for a yes.
        let Some(attempt) = state.attempts.get(&key).filter(|attempt| !attempt.ended) else {
            return;
        };
        attempt.answers.send_modify(|answers| {
            answers.texts.insert(id.clone(), text.clone());
        });
        drop(state);
        let data = self.context.data.clone();
        // Handing out must not wait for the disk.
        self.runtime.spawn_blocking(move || {
            if let Err(e) = answer::put(&data, &key, &id, &text) {
                tracing::error!("the answer to {id} did not reach {key}: {e}; `qm2 escalations show {id}` has it");
            }
        });
    }
}

/// The question and level of a question's key, without the number of the session.
pub(super) fn level_of(key: &str) -> &str {
    key.rsplit_once(':').map_or(key, |(level, _)| level)
}

/// What a question says of its level.
fn level_in(message: &Message) -> Value {
    let level = level_of(&message.key).rsplit(':').next();
    let level = level.and_then(|level| level.parse::<usize>().ok());
    let payload = message.envelope.payload.as_deref();
    let view: Value = payload
        .and_then(|payload| serde_json::from_str(payload).ok())
        .unwrap_or_default();
    view["levels"][level.unwrap_or(1).saturating_sub(1)].clone()
}

/// The role that an answer at the level of a question needs.
fn role_min(message: &Message) -> Role {
    let level = level_in(message);
    level["minRole"]
        .as_str()
        .and_then(Role::from_name)
        .unwrap_or(Role::Operator)
}

fn failure(outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Failed { code, message, .. } => Some(format!("{code}: {message}")),
        Outcome::Completed | Outcome::Progress { .. } => None,
    }
}

/// A notifier at work; counted off when dropped, also when it panics.
struct Notifying(Arc<Delivery>);

impl Drop for Notifying {
    fn drop(&mut self) {
        self.0.at_work.send_modify(|count| *count -= 1);
    }
}
