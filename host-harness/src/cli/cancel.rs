//! `qm2 cancel`: asks for the end of a coordination and waits until nothing of it runs any more.
//!
//! Over the socket where a process runs the data directory; else this process runs it, so that what is still out ends
//! and cleanup steps run.

use super::failure::Failure;
use super::output::Output;
use super::run::{builder, close, ended, interrupts, runtime};
use super::{data, exit, status};
use qm2_core::codec::canonical;
use qm2_core::event::{Event, Record, TerminalState};
use qm2_core::message::{Caller, Role};
use qm2_core::receipt::{LedgerFault, LedgerFaultKind, RejectionCode};
use qm2_host::HostError;
use qm2_host::agents_file::AgentsFile;
use qm2_host::engine::{Answer, Call};
use qm2_host::history::{History, word};
use qm2_host::owner::cancel_envelope;
use qm2_host::socket;
use qm2_host::store::Store;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The session of whoever types the command; the data directory's permissions say who can.
const SESSION: &str = "cli:local";
/// What the ledger says of why.
const REASON: &str = "qm2 cancel";

/// Arguments of `cancel`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Id of the coordination.
    id: String,
}

/// Cancels it.
pub fn run(directory: &Path, arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let id = arguments.id.as_str();
    let mut history = read(directory, id)?;
    if !is_over(directory, &history)? {
        runtime()?.block_on(async {
            let mut interrupts = interrupts()?;
            while !is_over(directory, &history)? {
                match socket::connect(directory).await {
                    Some(client) => {
                        over_the_socket(client, directory, &history, &mut interrupts).await?
                    }
                    None if alone(directory, &history, &mut interrupts, output).await? => break,
                    // Somebody else took the directory just now; ask there.
                    None => tokio::time::sleep(LOOK_EVERY).await,
                }
                history = read(directory, id)?;
            }
            Ok::<_, Failure>(())
        })?;
        history = read(directory, id)?;
    }
    let terminal = history
        .terminal
        .map(TerminalState::name)
        .unwrap_or_default();
    let reason = history.reason.as_ref().map(word);
    let mut value = json!({ "coordinationId": id, "terminal": terminal });
    if let Some(reason) = &reason {
        value["reason"] = json!(reason);
    }
    output.result(&value, || {
        format!(
            "{id}: {}; nothing of it runs any more",
            status::ending(terminal, reason.as_deref())
        )
    });
    Ok(exit::SUCCESS)
}

fn read(directory: &Path, id: &str) -> Result<History, Failure> {
    if !directory.exists() {
        return Err(data::unknown(directory, id));
    }
    ended(&data::open(directory)?, directory, id)
}

/// Whether it has ended and no process of it is noted any more.
fn is_over(directory: &Path, history: &History) -> Result<bool, Failure> {
    if history.terminal.is_none() {
        return Ok(false);
    }
    let of_it = format!("{}:", history.coordination_id);
    Ok(!data::open(directory)?
        .notes()?
        .iter()
        .any(|note| note.key.starts_with(&of_it)))
}

fn caller() -> Caller {
    Caller {
        session: SESSION.to_owned(),
        role: Some(Role::Operator),
    }
}

/// Asks the process that runs the directory, and waits until nothing of the coordination runs there. Comes back early when
/// that process goes away.
async fn over_the_socket(
    mut client: socket::Client,
    directory: &Path,
    history: &History,
    interrupts: &mut mpsc::UnboundedReceiver<()>,
) -> Result<(), Failure> {
    let id = history.coordination_id.as_str();
    let envelopes = vec![cancel_envelope(
        &caller(),
        id,
        None,
        Some(REASON.to_owned()),
    )];
    let answer = match client
        .call(&Call::Submit {
            caller: caller(),
            now_ms: 0,
            envelopes,
        })
        .await
    {
        Ok(answer) => answer,
        // It goes away, or asks to be asked again.
        Err(error) if error.retryable() || matches!(error, HostError::Closed) => {
            tokio::time::sleep(LOOK_EVERY).await;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if let Answer::Submit(mut receipts) = answer
        && let Some(Err(rejection)) = receipts.pop()
        && rejection.code != RejectionCode::Closed
    {
        return Err(rejection.into());
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = interrupts.recv() => return Err(interrupted(id)),
        }
        if is_over(directory, &read(directory, id)?)? || client.call(&Call::Head).await.is_err() {
            return Ok(());
        }
    }
}

/// Runs the directory until the coordination has ended, with the agents that it was last run with; false where another
/// process was faster.
async fn alone(
    directory: &Path,
    history: &History,
    interrupts: &mut mpsc::UnboundedReceiver<()>,
    output: &Output,
) -> Result<bool, Failure> {
    let id = history.coordination_id.as_str();
    let store = data::open(directory)?;
    let plan = plan_text(&store, history)?;
    let path = data::remembered_agents(&store, id)?;
    drop(store);
    let file = path
        .as_deref()
        .map(AgentsFile::read)
        .transpose()
        .unwrap_or_else(|error| {
            output.note(&format!(
                "{error}; cleanup steps of {id} cannot run without it"
            ));
            None
        });
    let (builder, _) = builder(directory, id, file.as_ref().zip(path.as_deref()))?;
    let domain = match builder.open().await {
        Ok(domain) => domain,
        Err(HostError::Locked { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let done = match domain
        .cancel(caller(), id, None, Some(REASON.to_owned()))
        .await
    {
        Err(HostError::Rejected(rejection)) if rejection.code == RejectionCode::Closed => Ok(()),
        Err(error) => Err(error.into()),
        // As the owner, so that its reports are taken and the coordination can be closed.
        Ok(_) => tokio::select! {
            ended = domain.run(&plan) => ended.map(|_| ()).map_err(Failure::from),
            _ = interrupts.recv() => Err(interrupted(id)),
        },
    };
    close(&domain, interrupts, output).await;
    done.map(|()| true)
}

/// The plan as it was recorded; the same plan again is never another one.
fn plan_text(store: &dyn Store, history: &History) -> Result<String, Failure> {
    let line = store.line(history.created_seq)?.unwrap_or_default();
    match Record::parse(&line).map(|record| record.event) {
        Ok(Event::Created(created)) => Ok(canonical(&created.plan)),
        _ => Err(data::broken(&LedgerFault {
            seq: history.created_seq,
            kind: LedgerFaultKind::BrokenChain,
            message: "is no longer the record of a plan".into(),
        })),
    }
}

fn interrupted(id: &str) -> Failure {
    let message = format!(
        "interrupted; the cancel of {id} was taken and goes on, `qm2 cancel {id}` waits for it again"
    );
    Failure::new(exit::INTERRUPTED, "interrupted", message)
}
