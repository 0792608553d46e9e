//! `qm2 status`: coordinations, their steps, what each waits for, and what nobody took.
//!
//! Reads the store and asks an instance of its own; works while another process runs the data directory.

use super::data::{self, Replayed};
use super::failure::Failure;
use super::output::Output;
use super::{exit, table};
use qm2_host::engine::{Answer, Call, Instance};
use qm2_host::history::{History, StepHistory, word};
use qm2_host::store::{DeadLetter, Store};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Arguments of `status`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Of this coordination only.
    id: Option<String>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    head_seq: u64,
    head_hash: String,
    coordinations: Vec<Coordination>,
    dead_letters: Vec<DeadLetter>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Coordination {
    coordination_id: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    objective: String,
    owner_session: String,
    created_seq: u64,
    created_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminal_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rerun_of: Option<String>,
    steps: Vec<Step>,
    /// Keys of reports that the owner did not take in time; they stay until it does.
    undelivered_reports: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    step_id: String,
    target_session: String,
    state: String,
    attempt: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
}

/// Shows it.
pub fn run(directory: &Path, arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    if !directory.exists() && arguments.id.is_none() {
        let text = || {
            format!(
                "{} does not exist yet; `qm2 run PLAN` makes it",
                directory.display()
            )
        };
        output.result(&Status::default(), text);
        return Ok(exit::SUCCESS);
    }
    let store = data::open(directory)?;
    let status = read(directory, &store, arguments.id.as_deref())?;
    output.result(&status, || text_of(&status, arguments.id.is_some()));
    Ok(exit::SUCCESS)
}

fn read(directory: &Path, store: &dyn Store, id: Option<&str>) -> Result<Status, Failure> {
    let Replayed {
        mut instance,
        histories,
    } = data::replay(store)?;
    let Answer::Head(head) = data::call(&mut instance, &Call::Head)? else {
        return Err(wrong_answer("head"));
    };
    let wanted: Vec<&History> = match id {
        Some(id) => vec![
            histories
                .get(id)
                .ok_or_else(|| data::unknown(directory, id))?,
        ],
        None => histories.values().collect(),
    };
    let mut coordinations = wanted
        .into_iter()
        .map(|history| coordination(&mut instance, history))
        .collect::<Result<Vec<_>, _>>()?;
    coordinations.sort_by_key(|coordination| coordination.created_seq);
    let mut dead_letters = store.dead_letters()?;
    dead_letters.retain(|letter| id.is_none_or(|id| letter.envelope.coordination_id == id));
    Ok(Status {
        head_seq: head.seq,
        head_hash: head.hash,
        coordinations,
        dead_letters,
    })
}

/// One coordination: as the component knows it while it is live, as its records tell it once it is closed.
fn coordination(instance: &mut Instance, history: &History) -> Result<Coordination, Failure> {
    let id = &history.coordination_id;
    let Answer::Describe(text) = data::call(instance, &Call::Describe { id: id.clone() })? else {
        return Err(wrong_answer("describe"));
    };
    let description: Value = serde_json::from_str(&text).unwrap_or_default();
    let live = description["steps"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let live: BTreeMap<&str, &Value> = live
        .iter()
        .filter_map(|step| Some((step["stepId"].as_str()?, step)))
        .collect();
    // In the order of the plan, which the component does not keep.
    let steps = history
        .steps
        .iter()
        .map(|told| match live.get(told.step_id.as_str()) {
            Some(step) => live_step(instance, id, told, step),
            None => Ok(closed_step(told)),
        });
    let steps = steps.collect::<Result<_, _>>()?;
    Ok(Coordination {
        coordination_id: id.clone(),
        state: description["state"].as_str().unwrap_or("closed").to_owned(),
        terminal: history.terminal.map(qm2_core::event::TerminalState::name),
        reason: history.reason.as_ref().map(word),
        objective: history.objective.clone(),
        owner_session: history.owner_session.clone(),
        created_seq: history.created_seq,
        created_at_ms: history.created_at_ms,
        terminal_seq: history.terminal_seq,
        rerun_of: history.rerun_of.clone(),
        steps,
        undelivered_reports: history.undelivered.iter().cloned().collect(),
    })
}

fn live_step(
    instance: &mut Instance,
    id: &str,
    told: &StepHistory,
    live: &Value,
) -> Result<Step, Failure> {
    let mut step = closed_step(told);
    if let Some(state) = live["state"].as_str() {
        state.clone_into(&mut step.state);
    }
    step.attempt = live["attempt"].as_u64().unwrap_or(step.attempt);
    if !told.state.is_final() {
        let (id, step_id) = (id.to_owned(), told.step_id.clone());
        let answer = data::call(instance, &Call::ExplainWait { id, step_id })?;
        let Answer::ExplainWait(text) = answer else {
            return Err(wrong_answer("explain-wait"));
        };
        let explained: Value = serde_json::from_str(&text).unwrap_or_default();
        step.waits_for = explained
            .get("waitsFor")
            .filter(|waits| waits["kind"] != "nothing")
            .cloned();
    }
    Ok(step)
}

/// A step as its records tell it.
fn closed_step(step: &StepHistory) -> Step {
    Step {
        step_id: step.step_id.clone(),
        target_session: step.target_session.clone(),
        state: step.state.name().to_owned(),
        attempt: u64::from(step.attempt),
        waits_for: None,
        code: step.code.clone(),
        message: step.message.clone(),
        result: step.result.clone(),
    }
}

/// What a step waits for, with times as people read them.
fn waiting(waits: &Value) -> String {
    let text = waits["text"].as_str().unwrap_or_default();
    match waits["dueMs"].as_u64() {
        Some(due_ms) => text.replace(&due_ms.to_string(), &table::time(due_ms)),
        None => text.to_owned(),
    }
}

fn wrong_answer(question: &str) -> Failure {
    Failure::host(
        "component-fault",
        format!("the component answered another question than {question}"),
    )
}

fn text_of(status: &Status, with_steps: bool) -> String {
    if status.coordinations.is_empty() {
        return format!(
            "no coordinations; the ledger has {} record(s)",
            status.head_seq
        );
    }
    let mut text = String::new();
    if with_steps {
        for coordination in &status.coordinations {
            text += &with_its_steps(coordination);
        }
    } else {
        let mut table = table::new(["coordination", "state", "ended", "steps", "objective"]);
        for one in &status.coordinations {
            let ended = one
                .terminal
                .map(|terminal| ending(terminal, one.reason.as_deref()))
                .unwrap_or_default();
            let done = one
                .steps
                .iter()
                .filter(|step| step.state == "completed")
                .count();
            let steps = format!("{done}/{} completed", one.steps.len());
            let objective = table::first_line(&one.objective);
            table.add_row([
                one.coordination_id.clone(),
                one.state.clone(),
                ended,
                steps,
                objective,
            ]);
        }
        text += &format!("{}\n", table.trim_fmt());
    }
    for one in &status.coordinations {
        for key in &one.undelivered_reports {
            text += &format!(
                "undelivered: {key} of {}, its owner {} did not take it\n",
                one.coordination_id, one.owner_session
            );
        }
    }
    for letter in &status.dead_letters {
        let step_id = letter.envelope.step_id.as_deref().unwrap_or("-");
        let id = &letter.envelope.coordination_id;
        text += &format!(
            "dead letter: a report of {id}:{step_id} from {}: {}\n",
            letter.envelope.source_session, letter.reason
        );
    }
    text
}

/// How a coordination ended, and why.
pub fn ending(terminal: &str, reason: Option<&str>) -> String {
    reason.map_or_else(
        || terminal.to_owned(),
        |reason| format!("{terminal} ({reason})"),
    )
}

fn with_its_steps(one: &Coordination) -> String {
    let ended = one
        .terminal
        .map(|terminal| format!(", {}", ending(terminal, one.reason.as_deref())));
    let mut text = format!(
        "{}: {}{}\n",
        one.coordination_id,
        one.state,
        ended.unwrap_or_default()
    );
    let mut table = table::new(["step", "state", "attempt", "waits for / result"]);
    for step in &one.steps {
        let waits = step.waits_for.as_ref().map(waiting);
        let says = waits
            .as_deref()
            .or(step.result.as_deref())
            .or(step.message.as_deref())
            .or(step.code.as_deref());
        let says = table::first_line(says.unwrap_or_default());
        table.add_row([
            step.step_id.clone(),
            step.state.clone(),
            step.attempt.to_string(),
            says,
        ]);
    }
    text += &format!("{}\n", table.trim_fmt());
    text
}
