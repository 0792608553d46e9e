//! Agents: who does the work of a session, and what they are given.
//!
//! What they say at the end is in `report`. Does not run commands (`process` does) and does not decide when an agent runs
//! (`delivery` does).

use crate::delivery::Answers;
use crate::error::{HostError, Result};
use crate::queue::Channel;
pub use crate::report::Report;
use crate::report::reply;
use crate::session_glob;
use crate::stay::StayingAgent;
use crate::submit::Submitter;
use globset::GlobMatcher;
use qm2_core::envelope::{Envelope, Intent, Outcome, Question};
use qm2_core::receipt::{Receipt, ReceiptStatus};
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
    Staying(Arc<StayingAgent>),
    /// Somebody elsewhere, to whom attempts are sent through the durable queue.
    Channel(Arc<dyn Channel>),
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
    /// May begin as soon as its dispatch is durable where every step of the plan is idempotent: its report is the ack then, and
    /// after a crash before it the attempt runs again under the same key. Else its ack is durable first.
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
        session_glob::check_command(glob, &command)?;
        let folder = folder.into();
        self.push(glob, Agent::Command(CommandAgent { command, folder }))?;
        Ok(self)
    }

    /// Adds a command that stays for the sessions that a glob matches: so many processes of it, from 1 to 64, each taking one
    /// dispatch after another as JSON lines. They are started when they are needed and end with the domain.
    ///
    /// # Errors
    /// [`HostError::Glob`], also where the command is empty or the number is out of bounds.
    pub fn staying_agent(
        mut self,
        glob: &str,
        command: Vec<String>,
        folder: impl Into<PathBuf>,
        processes: u32,
    ) -> Result<Self> {
        session_glob::check_command(glob, &command)?;
        session_glob::check_processes(glob, processes)?;
        let folder = folder.into();
        let agent = StayingAgent::new(CommandAgent { command, folder }, processes);
        self.push(glob, Agent::Staying(Arc::new(agent)))?;
        Ok(self)
    }

    /// Adds a channel for the sessions that a glob matches: an attempt is put into the durable queue and sent, which is its
    /// ack. Whoever has it reports its end as the session, through a call of its own.
    ///
    /// # Errors
    /// [`HostError::Glob`].
    pub fn channel_agent(mut self, glob: &str, channel: Arc<dyn Channel>) -> Result<Self> {
        self.push(glob, Agent::Channel(channel))?;
        Ok(self)
    }

    pub(crate) fn has_channel(&self) -> bool {
        self.0
            .iter()
            .any(|(_, agent)| matches!(agent, Agent::Channel(_)))
    }

    fn push(&mut self, glob: &str, agent: Agent) -> Result<()> {
        self.0.push((session_glob::matcher(glob)?, agent));
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
                Agent::Staying(agent) => agent.command.command.join(" "),
                Agent::Channel(_) => "channel".to_owned(),
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
}
