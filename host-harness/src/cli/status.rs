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
    /// Ids of questions that wait for a person.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    open_escalations: Vec<String>,
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
    output.result(&status, || {
        let command = super::command(directory);
        text_of(&status, arguments.id.is_some(), &command)
    });
    Ok(exit::SUCCESS)
}

fn read(directory: &Path, store: &dyn Store, id: Option<&str>) -> Result<Status, Failure> {
    let Replayed {
        mut instance,
        histories,
    } = match id {
        Some(id) => data::replay_one(store, id)?,
        None => data::replay(store)?,
    };
    let Answer::Head(head) = data::call(&mut instance, &Call::Head)? else {
        return Err(data::wrong_answer("head"));
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
        return Err(data::wrong_answer("describe"));
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
    let asked = description["escalations"].as_array();
    let asked = asked.into_iter().flatten();
    let asked = asked.filter_map(|one| one["escalationId"].as_str());
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
        open_escalations: asked.map(ToOwned::to_owned).collect(),
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
            return Err(data::wrong_answer("explain-wait"));
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
    let mut text = waits["text"].as_str().unwrap_or_default().to_owned();
    let mut times = Vec::new();
    find_times(waits, &mut times);
    for at_ms in times {
        text = text.replace(&at_ms.to_string(), &table::time(at_ms));
    }
    text
}

/// Every time that is named somewhere in a value, by the ending of its name.
fn find_times(value: &Value, times: &mut Vec<u64>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_u64().filter(|_| name.ends_with("Ms")) {
                    // Smaller numbers are no times of day; they may stand for anything in the text.
                    Some(at_ms) if at_ms > 1_000_000_000_000 => times.push(at_ms),
                    Some(_) => {}
                    None => find_times(member, times),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| find_times(item, times)),
        _ => {}
    }
}

/// Who holds the resources that a step waits for, since when, and its place in each queue; a line each.
fn holders(step: &Step) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    for resource in step
        .waits_for
        .iter()
        .flat_map(|waits| list(&waits["resources"]))
    {
        let name = resource["resource"].as_str().unwrap_or_default();
        let place = match resource["place"].as_u64() {
            Some(place) if place > 0 => format!(", place {place} in the queue"),
            _ => String::new(),
        };
        text += &format!("{} waits for {name}{place}\n", step.step_id);
        for holder in list(&resource["holders"]) {
            let word = |member: &str| holder[member].as_str().unwrap_or_default();
            let at = |member: &str| holder[member].as_u64().map(table::time).unwrap_or_default();
            text += &format!(
                "  held by {}:{} ({}) under token {}, since {}, until {} if it is not renewed\n",
                word("coordinationId"),
                word("stepId"),
                word("session"),
                holder["token"].as_u64().unwrap_or_default(),
                at("sinceMs"),
                at("expiresMs")
            );
        }
    }
    text
}

fn text_of(status: &Status, with_steps: bool, command: &str) -> String {
    if status.coordinations.is_empty() {
        return format!(
            "no coordinations; the ledger has {} record(s)",
            status.head_seq
        );
    }
    let mut text = String::new();
    if with_steps {
        for coordination in &status.coordinations {
            text += &with_its_steps(coordination, command);
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
    for one in status.coordinations.iter().filter(|_| !with_steps) {
        for id in &one.open_escalations {
            text += &format!(
                "{id} of {} waits for a person; `{command} escalations show {id}` says what it is about\n",
                one.coordination_id
            );
        }
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

fn with_its_steps(one: &Coordination, command: &str) -> String {
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
    text.extend(one.steps.iter().map(holders));
    for id in &one.open_escalations {
        text += &format!(
            "{id} waits for a person; `{command} escalations show {id}` says what it is about\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(waits: Value) -> Step {
        Step {
            step_id: "build".into(),
            target_session: "agent:b".into(),
            state: "waiting_claim".into(),
            attempt: 1,
            waits_for: Some(waits),
            code: None,
            message: None,
            result: None,
        }
    }

    #[test]
    fn times_in_a_sentence_are_those_that_its_members_name() {
        let waits = json!({"kind": "human", "text": "waits for an answer to e7 until 1709251200000", "dueMs": 1_709_251_200_000_u64});
        assert_eq!(
            waiting(&waits),
            "waits for an answer to e7 until 2024-03-01T00:00:00.000Z"
        );
        assert_eq!(
            waiting(&json!({"text": "attempt 5", "dueMs": 5})),
            "attempt 5"
        );
    }

    #[test]
    fn who_holds_a_resource_since_when_and_the_place_in_its_queue_are_told() {
        let holder = json!({"coordinationId": "c", "stepId": "s", "session": "agent:a", "token": 17,
            "sinceMs": 951_782_399_999_u64, "expiresMs": 951_782_400_000_u64});
        let text = holders(&step(json!({"kind": "claim", "text": "t", "resources": [
            {"resource": "file:a", "place": 2, "holders": [holder]},
        ]})));
        for part in [
            "build waits for file:a, place 2 in the queue",
            "held by c:s (agent:a) under token 17, since 2000-02-28T23:59:59.999Z",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(holders(&step(json!({"kind": "slot", "text": "t"}))), "");
    }
}
