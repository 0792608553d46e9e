//! `qm2 escalate`: a running step asks a person, and waits for the answer.
//!
//! For the process of a step, from its `QM2_*` variables. Who is asked, and until when, is in the plan.

use super::agent_env::AgentEnv;
use super::failure::Failure;
use super::output::Output;
use super::question::step_of;
use super::run::runtime;
use super::{data, exit, table};
use qm2_core::envelope::{DeliveryMode, Envelope, Intent, Priority, Question, Trace};
use qm2_core::plan::Fallback;
use qm2_core::receipt::{Receipt, ReceiptStatus};
use qm2_host::engine::{Answer, Call};
use qm2_host::escalation::{Escalation, Escalations, QuestionState};
use qm2_host::socket::{self, Client};
use qm2_host::store::Store;
use qm2_host::{HostError, sqlite::SqliteStore};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// How often the answer is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Shown after the help.
pub const HELP: &str = "\
Example, in the script of a step:
  if text=$(\"$QM2_BIN\" escalate 'Version 2 is out. Upgrade?'); then echo \"they said: $text\"; fi

Prints what the person said. The step's clock stands still while it waits. A question with the same text that is open
already is waited for, not asked again. A denial, also by silence, fails the step for good: its process is ended.
Exit codes: 0 approved, 1 denied, not answered in time, or the plan asks nobody, 2 not in a running step, 5, 6.";

/// Arguments of `escalate`.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to ask; 1 byte to 1 KiB.
    question: String,
    /// Number of the question within the attempt; the same number and text again is the same question [default: the next
    /// free one].
    #[arg(long, value_name = "N")]
    number: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    id: &'a str,
    state: QuestionState,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    approvals: &'a [String],
}

/// Asks, and waits.
pub fn run(directory: &Path, arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let step = AgentEnv::read("escalate")?;
    let store = data::open(directory)?;
    let answered = runtime()?.block_on(async {
        let mut client = connect(directory).await?;
        let id = match open_question(&store, &step, arguments)? {
            Some(id) => id,
            None => ask(&mut client, &store, &step, arguments).await?,
        };
        output.note(&format!("{id} waits for a person: {}", arguments.question));
        wait(&mut client, directory, &store, &step, &id).await
    })?;
    let is_yes = match answered.state {
        QuestionState::Approved | QuestionState::Completed => true,
        QuestionState::Expired => answered.fallback == Some(Fallback::Allow),
        _ => false,
    };
    let said = answered.decisions.last();
    let text = said.and_then(|said| said.text.as_deref());
    if !is_yes {
        return Err(no(&answered));
    }
    let value = Answered {
        id: &answered.id,
        state: answered.state,
        text,
        approvals: &answered.approvals,
    };
    output.result(&value, || text.unwrap_or_default().to_owned());
    Ok(exit::SUCCESS)
}

/// Why the answer is no.
fn no(one: &Escalation) -> Failure {
    let (code, message) = match (one.state, one.decisions.last()) {
        (QuestionState::Denied, Some(last)) => {
            let text = last.text.as_deref().map(table::first_line);
            let text = text.filter(|text| !text.is_empty());
            let text = text.map(|text| format!(": {text}")).unwrap_or_default();
            (
                "denied",
                format!("{} was denied by {}{text}", one.id, last.actor),
            )
        }
        (QuestionState::Denied | QuestionState::Expired, _) => (
            "denied",
            format!(
                "{} was not answered in time, which counts as denied",
                one.id
            ),
        ),
        (state, _) => (
            "not-answered",
            format!("{} is {}: the step is over", one.id, state.name()),
        ),
    };
    Failure::new(exit::FAILED, code, message)
}

async fn connect(directory: &Path) -> Result<Client, Failure> {
    socket::connect(directory).await.ok_or_else(|| {
        let message = format!(
            "no process runs {}; a step asks while `qm2 run` runs it",
            directory.display()
        );
        Failure::host("not-running", message)
    })
}

/// The questions of the coordination so far.
fn questions(store: &SqliteStore, step: &AgentEnv) -> Result<Escalations, Failure> {
    let lines = store.coordination_lines(&step.coordination_id)?;
    Ok(Escalations::fold(lines))
}

fn of_attempt<'a>(
    all: &'a Escalations,
    step: &'a AgentEnv,
) -> impl Iterator<Item = &'a Escalation> {
    all.iter().filter(|one| {
        one.step_id == step.step_id && one.attempt == step.attempt && one.kind == "question"
    })
}

/// The same question of this attempt, where it waits already: a script that is interrupted may ask again.
fn open_question(
    store: &SqliteStore,
    step: &AgentEnv,
    arguments: &Arguments,
) -> Result<Option<String>, Failure> {
    let all = questions(store, step)?;
    let mut open = of_attempt(&all, step).filter(|one| one.is_open());
    let same = open.find(|one| {
        one.question == arguments.question
            && (arguments.number.is_none() || one.number == arguments.number)
    });
    Ok(same.map(|one| one.id.clone()))
}

/// Asks it, and gives its id.
async fn ask(
    client: &mut Client,
    store: &SqliteStore,
    step: &AgentEnv,
    arguments: &Arguments,
) -> Result<String, Failure> {
    let number = match arguments.number {
        Some(number) => number,
        None => {
            let all = questions(store, step)?;
            let used = of_attempt(&all, step).filter_map(|one| one.number).max();
            used.map_or(1, |used| used + 1)
        }
    };
    let call = Call::Submit {
        caller: step.caller(),
        now_ms: 0,
        envelopes: vec![envelope(store, step, number, &arguments.question)?],
    };
    let receipt = loop {
        match client.call(&call).await {
            Ok(Answer::Submit(mut receipts)) => match receipts.pop() {
                Some(receipt) => break receipt?,
                None => {
                    return Err(Failure::host(
                        "component-fault",
                        "no receipt for a question",
                    ));
                }
            },
            Ok(_) => {
                let message = "the component answered another question than submit";
                return Err(Failure::host("component-fault", message));
            }
            // The same number and text again is the same question.
            Err(error) if error.retryable() => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) => return Err(error.into()),
        }
    };
    match receipt {
        Receipt {
            status: ReceiptStatus::Accepted | ReceiptStatus::Replayed,
            seq: Some(seq),
            ..
        } => Ok(format!("e{seq}")),
        Receipt { state, .. } => {
            let message = format!(
                "attempt {} of step {}:{} is over, the step is {state}; there is nothing to ask any more",
                step.attempt, step.coordination_id, step.step_id
            );
            Err(Failure::new(exit::FAILED, "late", message))
        }
    }
}

fn envelope(
    store: &SqliteStore,
    step: &AgentEnv,
    number: u64,
    text: &str,
) -> Result<Envelope, Failure> {
    let lines = store.coordination_lines(&step.coordination_id)?;
    let records = lines.iter().map(|line| serde_json::from_str(line));
    let records: Vec<Value> = records.map(Result::unwrap_or_default).collect();
    // An envelope may lower the priority of its step; this one must not.
    let priority = step_of(&records, &step.step_id)["priority"].as_str();
    let owner = records
        .first()
        .map(|created| &created["data"]["plan"]["ownerSession"]);
    let owner = owner.and_then(Value::as_str).unwrap_or(&step.session);
    Ok(Envelope {
        coordination_id: step.coordination_id.clone(),
        step_id: Some(step.step_id.clone()),
        parent_step_id: None,
        attempt: Some(step.attempt),
        source_session: step.session.clone(),
        target_session: owner.to_owned(),
        intent: Intent::Escalate,
        priority: priority.and_then(Priority::from_name).unwrap_or_default(),
        delivery_mode: DeliveryMode::default(),
        deadline_ms: None,
        created_at_ms: super::run::now_ms(),
        trace: Trace::default(),
        content_type: None,
        payload: None,
        payload_ref: None,
        extensions: Vec::new(),
        outcome: None,
        reason: None,
        question: Some(Question {
            number,
            text: text.to_owned(),
        }),
        tokens: Vec::new(),
    })
}

/// Waits until the question is settled. The ledger tells of that before anybody else does.
async fn wait(
    client: &mut Client,
    directory: &Path,
    store: &SqliteStore,
    step: &AgentEnv,
    id: &str,
) -> Result<Escalation, Failure> {
    let mut all = questions(store, step)?;
    let mut after = store.head()?.seq;
    loop {
        match all.get(id) {
            Some(one) if !one.is_open() => return Ok(one.clone()),
            _ => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
        match client.call(&Call::Head).await {
            Ok(Answer::Head(head)) if head.seq <= after => continue,
            Ok(_) => {}
            Err(error) if error.retryable() => continue,
            Err(HostError::Closed) => {
                let message = format!(
                    "the process that ran {} went away; {id} stays open, and the next run takes the step up again",
                    directory.display()
                );
                return Err(Failure::host("not-running", message));
            }
            Err(error) => return Err(error.into()),
        }
        let lines = store.lines(after, data::CHUNK)?;
        after += lines.len() as u64;
        for line in &lines {
            all.take(line);
        }
    }
}
