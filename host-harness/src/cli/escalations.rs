//! `qm2 escalations`: what waits for a person, what it is about, and the person's answer.
//!
//! Reads the store; what is open is asked of the process that runs the data directory, where there is one, and of an
//! instance of its own where there is none. Answers go the same way. Roles come from the agents file; whether an answer
//! counts is decided in the component.

use super::data;
use super::failure::Failure;
use super::output::Output;
use super::question::View;
use super::run::{close, interrupts, now_ms, resting_builder, runtime};
use super::{agent_env, exit, table};
use clap::Subcommand;
use qm2_core::message::{Caller, HumanVerdict, Role};
use qm2_core::receipt::{Receipt, ReceiptStatus, Rejection, RejectionCode};
use qm2_host::agents_file::AgentsFile;
use qm2_host::engine::{Answer, Call};
use qm2_host::escalation::{Escalation, Escalations, QuestionState};
use qm2_host::reading;
use qm2_host::store::Store;
use qm2_host::{Domain, HostError, socket};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait before asking again somebody who could not answer just now.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Shown after the help.
pub const HELP: &str = "\
Examples:
  qm2 escalations list
  qm2 escalations show e17
  qm2 escalations approve e17 --as user:dana --text 'yes, once more'
  qm2 escalations deny e17 --as user:dana
  qm2 escalations complete e17 --as user:dana --text 'sent at 10:04'

People and their roles are the [[people]] of the agents file that the coordination was last run with. A `qm2 run` in
another terminal sees an answer at once; without one the answer is kept and the next run goes on from it.
Exit codes: 0 answered, 1 refused (not eligible, stale, late, unknown person), 2 no such question, 5, 6.";

/// What to do with questions.
#[derive(Subcommand)]
pub enum Command {
    /// Lists the questions that wait for a person.
    List(ListArguments),
    /// Shows a question, what it is about, and what each answer does.
    Show(ShowArguments),
    /// Says yes.
    Approve(AnswerArguments),
    /// Says no; one denial is enough.
    Deny(AnswerArguments),
    /// Says of an attempt whose effect nobody knows that it happened; the text is its result.
    Complete(AnswerArguments),
}

/// Arguments of `list`.
#[derive(clap::Args)]
pub struct ListArguments {
    /// Also those that have been answered or have ended otherwise.
    #[arg(long)]
    all: bool,
}

/// Arguments of `show`.
#[derive(clap::Args)]
pub struct ShowArguments {
    /// Id of the question.
    id: String,
}

/// Arguments of the answers.
#[derive(clap::Args)]
pub struct AnswerArguments {
    /// Id of the question.
    id: String,
    /// Session of the person who answers.
    #[arg(long = "as", value_name = "SESSION")]
    actor: String,
    /// What to say with it, at most 64 KiB.
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Digest of what was seen; the answer is refused if the question is about something else by now [default: what it is
    /// about now].
    #[arg(long, value_name = "SHA256")]
    digest: Option<String>,
    /// Whose `[[people]]` say who has which role [default: the file that the coordination was last run with].
    #[arg(long, value_name = "FILE")]
    agents: Option<PathBuf>,
}

#[derive(Serialize)]
struct List<'a> {
    escalations: Vec<&'a Escalation>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    id: &'a str,
    coordination_id: &'a str,
    step_id: &'a str,
    verdict: HumanVerdict,
    /// Whether it was new, or the same as before.
    status: ReceiptStatus,
    /// Whether nothing more is needed.
    r#final: bool,
    state: QuestionState,
    approvals: &'a [String],
    required: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

/// Runs one of them.
pub fn run(directory: &Path, command: &Command, output: &Output) -> Result<u8, Failure> {
    match command {
        Command::List(arguments) => list(directory, arguments, output),
        Command::Show(arguments) => show(directory, arguments, output),
        Command::Approve(arguments) => answer(directory, arguments, HumanVerdict::Approve, output),
        Command::Deny(arguments) => answer(directory, arguments, HumanVerdict::Deny, output),
        Command::Complete(arguments) => {
            answer(directory, arguments, HumanVerdict::Completed, output)
        }
    }
}

fn list(directory: &Path, arguments: &ListArguments, output: &Output) -> Result<u8, Failure> {
    let all = match directory.exists() {
        true => read(directory, &data::open(directory)?)?.into_vec(),
        false => Vec::new(),
    };
    let wanted = all.iter().filter(|one| arguments.all || one.is_open());
    let listed = List {
        escalations: wanted.collect(),
    };
    output.result(&listed, || text_of(&listed.escalations, arguments.all));
    Ok(exit::SUCCESS)
}

fn text_of(escalations: &[&Escalation], all: bool) -> String {
    if escalations.is_empty() {
        return match all {
            true => "nothing was ever asked".into(),
            false => "nothing waits for a person".into(),
        };
    }
    let mut table = table::new([
        "id",
        "state",
        "kind",
        "step",
        "approvals",
        "until",
        "question",
    ]);
    for one in escalations {
        let until = one.deadline_ms.map_or_else(|| "-".into(), table::time);
        table.add_row([
            one.id.clone(),
            one.state.name().into(),
            one.kind.clone(),
            format!("{}:{}", one.coordination_id, one.step_id),
            format!("{} of {}", one.approvals.len(), one.required),
            until,
            table::first_line(&one.question),
        ]);
    }
    table.trim_fmt()
}

fn show(directory: &Path, arguments: &ShowArguments, output: &Output) -> Result<u8, Failure> {
    let (store, found) = find(directory, &arguments.id)?;
    let view = View::gather(found.clone(), &records(&store, &found)?, now_ms());
    output.result(&view, || view.text(&super::command(directory)));
    Ok(exit::SUCCESS)
}

/// All questions, the open ones as the component knows them now.
fn read(directory: &Path, store: &dyn Store) -> Result<Escalations, Failure> {
    let mut all = Escalations::default();
    data::each_chunk(store, |lines| {
        for line in lines {
            all.take(line);
        }
        Ok(())
    })?;
    let ids: BTreeSet<String> = all.open().map(|one| one.coordination_id.clone()).collect();
    if !ids.is_empty() {
        let views = views(directory, store, &ids)?;
        all.overlay(&views);
    }
    Ok(all)
}

/// The open questions of these coordinations by their ids: asked of the owner of the directory, or of the ledger.
fn views(
    directory: &Path,
    store: &dyn Store,
    ids: &BTreeSet<String>,
) -> Result<BTreeMap<String, Value>, Failure> {
    let asked = runtime()?.block_on(async {
        let mut client = socket::connect(directory).await?;
        let mut texts = Vec::new();
        for id in ids {
            match client.call(&Call::Describe { id: id.clone() }).await {
                Ok(Answer::Describe(text)) => texts.push(text),
                // It goes away just now; the ledger has all that it knew.
                _ => return None,
            }
        }
        Some(texts)
    });
    let texts = match asked {
        Some(texts) => texts,
        None => {
            let mut instance = reading::instance(store)?;
            let describe = |id: &String| match data::call(
                &mut instance,
                &Call::Describe { id: id.clone() },
            )? {
                Answer::Describe(text) => Ok::<_, Failure>(text),
                _ => Ok(String::new()),
            };
            ids.iter().map(describe).collect::<Result<_, _>>()?
        }
    };
    let mut views = BTreeMap::new();
    for text in texts {
        let description: Value = serde_json::from_str(&text).unwrap_or_default();
        for view in description["escalations"].as_array().into_iter().flatten() {
            if let Some(id) = view["escalationId"].as_str() {
                views.insert(id.to_owned(), view.clone());
            }
        }
    }
    Ok(views)
}

/// A question and the store that it is in.
fn find(directory: &Path, id: &str) -> Result<(impl Store, Escalation), Failure> {
    let unknown = || {
        let message = format!(
            "{} has no question {id}; `{} escalations list --all` lists those it has",
            directory.display(),
            super::command(directory)
        );
        Failure::usage("unknown-escalation", message)
    };
    if !directory.exists() {
        return Err(unknown());
    }
    let store = data::open(directory)?;
    let all = read(directory, &store)?;
    let found = all.get(id).cloned().ok_or_else(unknown)?;
    Ok((store, found))
}

/// The records of its coordination.
fn records(store: &dyn Store, escalation: &Escalation) -> Result<Vec<Value>, Failure> {
    let lines = store.coordination_lines(&escalation.coordination_id)?;
    let parsed = lines.iter().map(|line| serde_json::from_str(line));
    Ok(parsed.map(Result::unwrap_or_default).collect())
}

fn answer(
    directory: &Path,
    arguments: &AnswerArguments,
    verdict: HumanVerdict,
    output: &Output,
) -> Result<u8, Failure> {
    refuse_to_a_step(directory)?;
    let (store, found) = find(directory, &arguments.id)?;
    let role = role(&store, &found, arguments)?;
    drop(store);
    let call = Call::Answer {
        actor: Caller {
            session: arguments.actor.clone(),
            role: Some(role),
        },
        now_ms: 0,
        escalation_id: found.id.clone(),
        digest: arguments
            .digest
            .clone()
            .unwrap_or_else(|| found.digest.clone()),
        verdict,
        text: arguments.text.clone(),
    };
    let (receipt, is_run) = match runtime()?.block_on(send(directory, &found, &call, output)) {
        // The plan has ended since it was looked at.
        Err(failure) if failure.code == RejectionCode::UnknownKey.name() => {
            let (_, now) = find(directory, &arguments.id)?;
            return Err(if now.is_open() { failure } else { late(&now) });
        }
        sent => sent?,
    };
    // What it led to is durable by now.
    let (_, now) = find(directory, &arguments.id)?;
    if receipt.status == ReceiptStatus::Late {
        return Err(late(&now));
    }
    let answered = Answered {
        id: &now.id,
        coordination_id: &now.coordination_id,
        step_id: &now.step_id,
        verdict,
        status: receipt.status,
        r#final: !now.is_open(),
        state: now.state,
        approvals: &now.approvals,
        required: now.required,
        seq: receipt.seq,
    };
    output.result(&answered, || {
        let mut text = format!("{}: {}", now.id, became(&now));
        if !is_run {
            text += &format!(
                "\nnobody runs {} now; resume it with `{} run PLAN`",
                now.coordination_id,
                super::command(directory)
            );
        }
        text
    });
    Ok(exit::SUCCESS)
}

/// What an answer led to.
fn became(now: &Escalation) -> String {
    match now.state {
        QuestionState::Open => format!(
            "counted, {} of {} approvals{}",
            now.approvals.len(),
            now.required,
            now.deadline_ms
                .map(|due_ms| format!("; it waits for the rest until {}", table::time(due_ms)))
                .unwrap_or_default()
        ),
        state => {
            let does = match state {
                QuestionState::Approved => "goes on",
                QuestionState::Completed => "is completed",
                _ => "ends",
            };
            let (name, step) = (state.name(), &now.step_id);
            format!("{name}; step {step} of {} {does}", now.coordination_id)
        }
    }
}

/// An answer that came when there was nothing to decide any more.
fn late(now: &Escalation) -> Failure {
    let by = match (now.state, now.decisions.last()) {
        (
            QuestionState::Approved | QuestionState::Denied | QuestionState::Completed,
            Some(last),
        ) => {
            format!(
                "{} by {} at {}",
                now.state.name(),
                last.actor,
                table::time(last.at_ms)
            )
        }
        (QuestionState::Voided, _) => "void, because the step ended otherwise".into(),
        (state, _) => state.name().to_owned(),
    };
    let message = format!("too late: {} is {by}; what came first stands", now.id);
    Failure::new(exit::FAILED, "late", message)
}

/// An agent must not give itself what it asked a person for. A notifier may bring an answer in.
fn refuse_to_a_step(directory: &Path) -> Result<(), Failure> {
    let of_this_directory = agent_env::variable("QM2_DATA")
        .and_then(|data| Path::new(&data).canonicalize().ok())
        .is_some_and(|data| {
            directory
                .canonicalize()
                .is_ok_and(|directory| directory == data)
        });
    match agent_env::variable("QM2_KEY") {
        Some(key) if of_this_directory && !key.starts_with("escalation:") => {
            let message = format!(
                "this is the process of the step attempt {key}; questions are answered by people, outside of the steps \
                 that they are about"
            );
            Err(Failure::new(exit::FAILED, "not-eligible", message))
        }
        _ => Ok(()),
    }
}

/// The role of who answers.
fn role(
    store: &dyn Store,
    escalation: &Escalation,
    arguments: &AnswerArguments,
) -> Result<Role, Failure> {
    let id = &escalation.coordination_id;
    let path = match &arguments.agents {
        Some(path) => path.clone(),
        None => data::remembered_agents(store, id)?.ok_or_else(|| {
            let message = format!(
                "no run of {id} has left word of its agents file, whose [[people]] say who may answer; name it with --agents"
            );
            Failure::usage("invalid-agents", message)
        })?,
    };
    let actor = &arguments.actor;
    AgentsFile::read(&path)?.role(actor).ok_or_else(|| {
        let message = format!(
            "{actor} is not one of the [[people]] of {}; to let {actor} answer, add to it:\n\n[[people]]\nsession = \
             {actor:?}\nrole = \"operator\"\n\nor name another file with --agents",
            path.display()
        );
        Failure::new(exit::FAILED, "unknown-person", message)
    })
}

/// Gives the answer to the process that runs the directory, or takes the directory for as long as that takes; says also
/// whether somebody runs it.
async fn send(
    directory: &Path,
    escalation: &Escalation,
    call: &Call,
    output: &Output,
) -> Result<(Receipt, bool), Failure> {
    let mut interrupts = interrupts()?;
    loop {
        let (answer, is_run) = match socket::connect(directory).await {
            Some(mut client) => (client.call(call).await, true),
            // There is nothing to decide, so there is nothing to open the directory for.
            None if !escalation.is_open() => return Err(late(escalation)),
            None => match resting_builder(directory)?.open().await {
                Ok(domain) => {
                    let answer = domain.call(call.clone()).await;
                    hooks_answered(&domain, &escalation.coordination_id).await;
                    close(&domain, &mut interrupts, output).await;
                    (answer, false)
                }
                Err(error) => (Err(error), false),
            },
        };
        match answer {
            Ok(Answer::Answer(receipt)) => {
                let receipt = receipt.map_err(|rejection| refused(escalation, rejection))?;
                return Ok((receipt, is_run));
            }
            Ok(_) => {
                return Err(Failure::host(
                    "component-fault",
                    "the component answered another question than answer",
                ));
            }
            // It goes away, comes up, or asks to be asked again.
            Err(HostError::Closed | HostError::Locked { .. }) => {}
            Err(error) if error.retryable() => {}
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN) => {}
            _ = interrupts.recv() => {
                let message = format!("interrupted; `qm2 escalations show {}` says whether it was answered", escalation.id);
                return Err(Failure::new(exit::INTERRUPTED, "interrupted", message));
            }
        }
    }
}

/// Waits until no step waits for a hook any more: one that is left without an answer is a deny.
async fn hooks_answered(domain: &Domain, coordination_id: &str) {
    let id = coordination_id.to_owned();
    let describe = Call::Describe { id };
    while let Ok(Answer::Describe(text)) = domain.call(describe.clone()).await {
        let description: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut steps = description["steps"].as_array().into_iter().flatten();
        if !steps.any(|step| step["state"] == "waiting_hook") {
            return;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// A refusal by the rules, which is no wrong usage.
fn refused(escalation: &Escalation, rejection: Rejection) -> Failure {
    let failure = Failure::from(rejection);
    let exit = match failure.exit {
        exit::HOST => exit::HOST,
        _ => exit::FAILED,
    };
    let message = format!("{} was not answered: {}", escalation.id, failure.message);
    Failure {
        exit,
        message,
        ..failure
    }
}
