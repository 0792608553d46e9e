//! Agents: who does the work of a session, what they are given and what they say at the end.
//!
//! Does not run commands (`process` does) and does not decide when an agent runs (`delivery` does).

use crate::delivery::Answers;
use crate::error::{HostError, Result};
use crate::submit::Submitter;
use globset::{Glob, GlobMatcher};
use qm2_core::envelope::{
    Envelope, Extension, FailureClass, Intent, Outcome, PayloadRef, Question,
};
use qm2_core::id::check_id;
use qm2_core::limit;
use qm2_core::receipt::{Receipt, ReceiptStatus};
use serde::Deserialize;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

/// One attempt of a step, as an in-process agent gets it.
#[derive(Clone)]
pub struct Task {
    /// Idempotency key of the attempt: `coordinationId:stepId:attempt`.
    pub key: String,
    /// From 1; a redelivery has the same key.
    pub delivery: u32,
    /// The instruction.
    pub envelope: Envelope,
    pub(crate) cancelled: watch::Receiver<bool>,
    pub(crate) answers: watch::Receiver<Answers>,
    pub(crate) submitter: Submitter,
}

impl Task {
    /// The inline payload, or nothing.
    #[must_use]
    pub fn payload(&self) -> &str {
        self.envelope.payload.as_deref().unwrap_or_default()
    }

    /// Waits until this attempt is cancelled. An agent that does not return within two seconds of that is dropped at
    /// its next await.
    pub async fn cancelled(&self) {
        let mut cancelled = self.cancelled.clone();
        if cancelled.wait_for(|&yes| yes).await.is_err() {
            // Nobody is left who could cancel.
            std::future::pending::<()>().await;
        }
    }

    /// Reports that the work goes on. The number identifies the message within its attempt.
    ///
    /// # Errors
    /// The refusal, or that the domain is closed.
    pub async fn progress(&self, number: u64, payload: Option<String>) -> Result<Receipt> {
        let mut envelope = reply(&self.envelope, Intent::Report);
        envelope.outcome = Some(Outcome::Progress { number });
        envelope.payload = payload;
        self.submitter
            .submit(envelope)
            .await?
            .map_err(HostError::from)
    }

    /// Asks the people that the plan names, and waits for their answer; the attempt's clock stands still meanwhile. The
    /// number identifies the question within its attempt, and a step has one question open at a time. The text, 1 byte
    /// to 1 KiB, is what a person reads.
    ///
    /// Gives the text of the approval, which may be empty. None says that the attempt is over, because it was denied, nobody
    /// answered in time, or otherwise: what the agent still says is late, and it should return.
    ///
    /// # Errors
    /// The refusal, such as `no-human` from a plan that asks nobody, or that the domain is closed.
    pub async fn ask(&self, number: u64, text: impl Into<String>) -> Result<Option<String>> {
        let mut envelope = reply(&self.envelope, Intent::Escalate);
        let text = text.into();
        envelope.question = Some(Question { number, text });
        let receipt = self.submitter.submit(envelope).await?;
        let receipt = receipt.map_err(HostError::from)?;
        let Some(seq) = receipt
            .seq
            .filter(|_| receipt.status != ReceiptStatus::Late)
        else {
            return Ok(None);
        };
        let id = format!("e{seq}");
        let mut answers = self.answers.clone();
        let settled = answers
            .wait_for(|answers| answers.ended || answers.texts.contains_key(&id))
            .await;
        match settled {
            Ok(answers) => Ok(answers.texts.get(&id).cloned()),
            Err(_) => Err(HostError::Closed),
        }
    }
}

/// What an agent says at the end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Completed or failed.
    pub outcome: Outcome,
    /// Media type of the payload.
    #[serde(default)]
    pub content_type: Option<String>,
    /// The result as text. What is too large for an envelope is put into the data directory and referred to.
    #[serde(default)]
    pub payload: Option<String>,
    /// A result that is kept elsewhere.
    #[serde(default)]
    pub payload_ref: Option<PayloadRef>,
    /// Carried through untouched.
    #[serde(default)]
    pub extensions: Vec<Extension>,
}

impl Report {
    /// The work is done, with this result.
    #[must_use]
    pub fn completed(payload: impl Into<String>) -> Self {
        let payload = Some(payload.into());
        Self {
            outcome: Outcome::Completed,
            content_type: None,
            payload,
            payload_ref: None,
            extensions: Vec::new(),
        }
    }

    /// The work failed. The code must have the form of an id; a message over 1 KiB is cut.
    #[must_use]
    pub fn failed(class: FailureClass, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Self {
            outcome: Outcome::Failed {
                class,
                code,
                message,
            },
            content_type: None,
            payload: None,
            payload_ref: None,
            extensions: Vec::new(),
        }
    }

    /// A new attempt may succeed.
    #[must_use]
    pub fn retryable(code: &str, message: impl Into<String>) -> Self {
        Self::failed(FailureClass::Retryable, code, message)
    }

    /// No attempt can succeed.
    #[must_use]
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self::failed(FailureClass::Permanent, code, message)
    }

    /// The envelope of this report, within the bounds that do not depend on what the agent had to say.
    pub(crate) fn into_envelope(mut self, execute: &Envelope) -> Envelope {
        if let Outcome::Failed { code, message, .. } = &mut self.outcome {
            if check_id(code).is_err() {
                tracing::warn!(
                    "the failure code {code:?} is not in the form of an id; reported as `failed`"
                );
                "failed".clone_into(code);
            }
            cut_to_tail(message, limit::TEXT_BYTES_MAX);
        }
        Envelope {
            outcome: Some(self.outcome),
            content_type: self.content_type,
            payload: self.payload,
            payload_ref: self.payload_ref,
            extensions: self.extensions,
            ..reply(execute, Intent::Report)
        }
    }
}

impl From<String> for Report {
    fn from(payload: String) -> Self {
        Self::completed(payload)
    }
}

impl From<&str> for Report {
    fn from(payload: &str) -> Self {
        Self::completed(payload)
    }
}

/// An envelope back to who sent this one, under its priority.
pub(crate) fn reply(execute: &Envelope, intent: Intent) -> Envelope {
    Envelope {
        coordination_id: execute.coordination_id.clone(),
        step_id: execute.step_id.clone(),
        parent_step_id: None,
        attempt: execute.attempt,
        source_session: execute.target_session.clone(),
        target_session: execute.source_session.clone(),
        intent,
        priority: execute.priority,
        delivery_mode: execute.delivery_mode,
        deadline_ms: None,
        created_at_ms: 0,
        trace: execute.trace.clone(),
        content_type: None,
        payload: None,
        payload_ref: None,
        extensions: Vec::new(),
        outcome: None,
        reason: None,
        question: None,
        tokens: Vec::new(),
    }
}

/// Keeps the last bytes of a text, from a character's beginning on.
pub(crate) fn cut_to_tail(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let from = text.ceil_char_boundary(text.len() - bytes_max);
        text.drain(..from);
    }
}

/// What an in-process agent is.
pub(crate) type Function =
    dyn Fn(Task) -> Pin<Box<dyn Future<Output = Report> + Send>> + Send + Sync;

/// A command that is run for each attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandAgent {
    /// Program and arguments; never empty.
    pub(crate) command: Vec<String>,
    /// Where it runs.
    pub(crate) folder: PathBuf,
}

#[derive(Clone)]
pub(crate) enum Agent {
    Function(Arc<Function>),
    Command(CommandAgent),
}

/// Which agent serves which sessions; the first match wins.
#[derive(Clone, Default)]
pub struct AgentTable(Vec<(GlobMatcher, Agent)>);

impl AgentTable {
    /// Nobody serves anything: every step fails, naming its session.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an in-process agent for the sessions that a glob matches. `*` matches any characters.
    ///
    /// # Errors
    /// [`HostError::Glob`].
    pub fn agent<F, Fut>(mut self, glob: &str, agent: F) -> Result<Self>
    where
        F: Fn(Task) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Report> + Send + 'static,
    {
        let function: Arc<Function> = Arc::new(move |task| Box::pin(agent(task)));
        self.push(glob, Agent::Function(function))?;
        Ok(self)
    }

    /// Adds a command for the sessions that a glob matches; it runs in the given folder.
    ///
    /// # Errors
    /// [`HostError::Glob`], also where the command is empty.
    pub fn command_agent(
        mut self,
        glob: &str,
        command: Vec<String>,
        folder: impl Into<PathBuf>,
    ) -> Result<Self> {
        if command.first().is_none_or(String::is_empty) {
            return Err(HostError::Glob {
                glob: glob.to_owned(),
                message: "its command is empty; name at least a program".into(),
            });
        }
        let folder = folder.into();
        self.push(glob, Agent::Command(CommandAgent { command, folder }))?;
        Ok(self)
    }

    fn push(&mut self, glob: &str, agent: Agent) -> Result<()> {
        let compiled = Glob::new(glob).map_err(|e| HostError::Glob {
            glob: glob.to_owned(),
            message: e.kind().to_string(),
        })?;
        self.0.push((compiled.compile_matcher(), agent));
        Ok(())
    }

    pub(crate) fn find(&self, session: &str) -> Option<&Agent> {
        self.0
            .iter()
            .find_map(|(glob, agent)| glob.is_match(session).then_some(agent))
    }
}

impl fmt::Debug for AgentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let globs = self.0.iter().map(|(glob, agent)| {
            let kind = match agent {
                Agent::Function(_) => "function".to_owned(),
                Agent::Command(command) => command.command.join(" "),
            };
            (glob.glob().to_string(), kind)
        });
        f.debug_map().entries(globs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_matching_glob_serves_a_session() {
        let command = |name: &str| vec![name.to_owned()];
        let table = AgentTable::new()
            .command_agent("agent:lint:*", command("lint"), ".")
            .and_then(|table| table.command_agent("agent:*", command("other"), "."))
            .unwrap();
        let served = |session: &str| match table.find(session) {
            Some(Agent::Command(agent)) => agent.command[0].clone(),
            _ => String::new(),
        };
        assert_eq!(served("agent:lint:src/a.rs"), "lint");
        assert_eq!(served("agent:x"), "other");
        assert_eq!(served("user:dana"), "");
        assert!(
            AgentTable::new()
                .command_agent("a[", command("x"), ".")
                .is_err()
        );
        assert!(
            AgentTable::new()
                .command_agent("a", Vec::new(), ".")
                .is_err()
        );
    }

    #[test]
    fn text_keeps_its_tail_from_a_whole_character_on() {
        let mut text = "aéé".to_owned();
        cut_to_tail(&mut text, 3);
        assert_eq!(text, "é");
        cut_to_tail(&mut text, 2);
        assert_eq!(text, "é");
    }
}
