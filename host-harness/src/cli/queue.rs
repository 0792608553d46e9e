//! `qm2 queue`: what is on its way, what could not be delivered, and what a person does about it.
//!
//! Three places: the messages that the component has out, the outbox of channels, and the dead letters of both. Messages of
//! the component and entries on their way are not settled by hand. Reads the files, also while another process runs the
//! data directory.

use super::failure::Failure;
use super::output::Output;
use super::run::{close, interrupts, now_ms, resting_builder, runtime};
use super::{data, exit, table};
use clap::Subcommand;
use qm2_core::message::Message;
use qm2_host::HostError;
use qm2_host::outgoing;
use qm2_host::queue::beside::{self, Contents};
use qm2_host::queue::{COORDINATION, DeadEntry, Entry, Evidence};
use qm2_host::store::{DeadLetter, Store, Transaction};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// Shown after the help.
pub const HELP: &str = "\
Examples:
  qm2 queue list                  messages, entries and dead letters, each with its key
  qm2 queue show KEY              all of one, with its payload
  qm2 queue retry KEY             puts a dead letter of the outbox back, as if it had never failed
  qm2 queue retry KEY --not-sent  as well, and you have made sure that the recipient does not have it
  qm2 queue drop KEY              removes a dead letter for good

What has no dead letter is still on its way and is not settled by hand: a message of a step ends with the step, so cancel
that. A late report is a dead letter, too; it can be dropped, but not while another process runs the data directory.
Everything else works meanwhile. Exit codes: 0, 1 refused, 2 no such key, 5, 6.";

/// The component's own file; without it there was never a plan here.
const LEDGER: &str = "ledger.db";
/// First characters of a late report's id in a list; as many as git shows, and some more.
const ID_CHARS: usize = 12;

/// What to do with it.
#[derive(Subcommand)]
pub enum Command {
    /// Lists messages, entries and dead letters.
    List,
    /// Shows one of them with its payload.
    Show(KeyArguments),
    /// Puts a dead letter of the outbox back, as if it had never failed.
    Retry(RetryArguments),
    /// Removes a dead letter for good.
    Drop(KeyArguments),
}

/// Arguments of `show` and `drop`.
#[derive(clap::Args)]
pub struct KeyArguments {
    /// Its key as `list` shows it.
    key: String,
}

/// Arguments of `retry`.
#[derive(clap::Args)]
pub struct RetryArguments {
    /// Its key as `list` shows it.
    key: String,
    /// You have made sure that the recipient does not have it; otherwise the channel is asked before it is sent.
    #[arg(long)]
    not_sent: bool,
}

/// Everything that there is.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    /// What the component has out.
    messages: Vec<Message>,
    /// What is on its way to a channel.
    entries: Vec<Entry>,
    /// What no channel took.
    dead_letters: Vec<DeadEntry>,
    /// Reports that came when their coordination was closed.
    late_reports: Vec<LateReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LateReport {
    key: String,
    #[serde(flatten)]
    letter: DeadLetter,
}

/// What a key names.
enum Found<'a> {
    Message(&'a Message),
    Entry(&'a Entry),
    Dead(&'a DeadEntry),
    Late(&'a LateReport),
}

#[derive(Serialize)]
struct Done<'a> {
    key: &'a str,
    done: &'static str,
}

/// Runs one of them.
pub fn run(directory: &Path, command: &Command, output: &Output) -> Result<u8, Failure> {
    match command {
        Command::List => list(directory, output),
        Command::Show(arguments) => show(directory, &arguments.key, output),
        Command::Retry(arguments) => retry(directory, arguments, output),
        Command::Drop(arguments) => drop_letter(directory, &arguments.key, output),
    }
}

/// Reads all of it; a directory that holds only one of the two files is as good.
fn read(directory: &Path) -> Result<Listed, Failure> {
    let Contents {
        entries,
        dead_letters,
    } = beside::read(directory)?;
    let mut listed = Listed {
        entries,
        dead_letters,
        ..Listed::default()
    };
    if directory.join(LEDGER).exists() {
        let store = data::open(directory)?;
        listed.messages = outgoing::messages(&store)?;
        let letters = store.dead_letters()?.into_iter();
        let late = letters.map(|letter| LateReport {
            key: letter.id(),
            letter,
        });
        listed.late_reports = late.collect();
    }
    Ok(listed)
}

fn list(directory: &Path, output: &Output) -> Result<u8, Failure> {
    let listed = read(directory)?;
    output.result(&listed, || listed.text());
    Ok(exit::SUCCESS)
}

impl Listed {
    fn text(&self) -> String {
        let mut table = table::new(["key", "is", "to", "state", "failed", "since", "says"]);
        for message in &self.messages {
            table.add_row([
                message.key.clone(),
                "message".into(),
                message.envelope.target_session.clone(),
                format!("delivery {}", message.delivery),
                "-".into(),
                table::time(message.envelope.created_at_ms),
                String::new(),
            ]);
        }
        for entry in &self.entries {
            table.add_row(row(
                entry,
                "entry",
                entry.state.name(),
                entry.enqueued_at_ms,
                "",
            ));
        }
        for dead in &self.dead_letters {
            let (reason, at_ms) = (dead.reason.to_string(), dead.died_at_ms);
            table.add_row(row(
                &dead.entry,
                "dead letter",
                dead.reason.name(),
                at_ms,
                &reason,
            ));
        }
        for late in &self.late_reports {
            table.add_row([
                late.key[..ID_CHARS].to_owned(),
                "late report".into(),
                late.letter.envelope.target_session.clone(),
                "closed".into(),
                "-".into(),
                table::time(late.letter.at_ms),
                table::first_line(&late.letter.reason),
            ]);
        }
        match table.is_empty() {
            true => "nothing is on its way, and nothing was left undelivered".into(),
            false => table.trim_fmt(),
        }
    }

    /// What a key names; a late report also by the beginning of its own.
    fn find(&self, directory: &Path, key: &str) -> Result<Found<'_>, Failure> {
        let message = self.messages.iter().find(|message| message.key == key);
        let entry = self.entries.iter().find(|entry| entry.key == key);
        let dead = self.dead_letters.iter().find(|dead| dead.entry.key == key);
        let is_late = |late: &&LateReport| key.len() >= ID_CHARS && late.key.starts_with(key);
        let late = self.late_reports.iter().find(is_late);
        // An entry of an attempt is told as such: its channel says more than its message.
        let found = dead
            .map(Found::Dead)
            .or(entry.map(Found::Entry))
            .or(message.map(Found::Message))
            .or(late.map(Found::Late));
        found.ok_or_else(|| {
            let message = format!(
                "{} has nothing under the key {key}; `{} queue list` lists what it has",
                directory.display(),
                super::command(directory)
            );
            Failure::usage("unknown-key", message)
        })
    }
}

fn row(entry: &Entry, is: &str, state: &str, at_ms: u64, says: &str) -> [String; 7] {
    let says = entry.last_error.as_deref().unwrap_or(says);
    [
        entry.key.clone(),
        is.into(),
        entry.target.clone(),
        state.into(),
        entry.retry_count.to_string(),
        table::time(at_ms),
        table::first_line(says),
    ]
}

fn show(directory: &Path, key: &str, output: &Output) -> Result<u8, Failure> {
    let listed = read(directory)?;
    let command = super::command(directory);
    match listed.find(directory, key)? {
        Found::Message(message) => output.result(message, || text_of_message(message, &command)),
        Found::Entry(entry) => output.result(entry, || text_of_entry(entry)),
        Found::Dead(dead) => output.result(dead, || text_of_dead(dead, &command)),
        Found::Late(late) => output.result(late, || text_of_late(late, &command)),
    }
    Ok(exit::SUCCESS)
}

fn text_of_message(message: &Message, command: &str) -> String {
    let envelope = &message.envelope;
    format!(
        "{}: a message to {}, delivery {}, of the step that made it\n{} stops it with its step\n\n{}",
        message.key,
        envelope.target_session,
        message.delivery,
        cancel(command, envelope.coordination_id.as_str()),
        envelope.payload.as_deref().unwrap_or("(no payload inline)")
    )
}

fn text_of_entry(entry: &Entry) -> String {
    let mut text = format!(
        "{}: on its way to {} through {} since {}\n",
        entry.key,
        entry.target,
        entry.channel,
        table::time(entry.enqueued_at_ms)
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "send: {}; failed {} time(s)",
        entry.state.name(),
        entry.retry_count
    );
    if let Some(error) = &entry.last_error {
        let at = entry.last_attempt_at_ms.map(table::time);
        let _ = writeln!(
            text,
            "last error ({}): {error}",
            at.unwrap_or_else(|| "-".into())
        );
    }
    if entry.retry_count > 0 {
        let _ = writeln!(text, "next try: not before {}", table::time(entry.due_ms()));
    }
    if let Some(at_ms) = entry.deadline_ms {
        let _ = writeln!(text, "never sent after {}", table::time(at_ms));
    }
    let _ = write!(text, "\n{}", entry.payload);
    text
}

fn text_of_dead(dead: &DeadEntry, command: &str) -> String {
    let DeadEntry { entry, .. } = dead;
    let what_to_do = match entry.channel == COORDINATION {
        true => format!(
            "the attempt has ended with it; `{command} queue drop {}` removes it",
            entry.key
        ),
        false => format!(
            "`{command} queue retry {0}` puts it back, `{command} queue drop {0}` removes it",
            entry.key
        ),
    };
    format!(
        "{}: a dead letter to {} through {} since {}: {}\nsend: {}; failed {} time(s); last error: {}\n{what_to_do}\n\n{}",
        entry.key,
        entry.target,
        entry.channel,
        table::time(dead.died_at_ms),
        dead.reason,
        entry.state.name(),
        entry.retry_count,
        entry.last_error.as_deref().unwrap_or("-"),
        entry.payload
    )
}

fn text_of_late(late: &LateReport, command: &str) -> String {
    let envelope = &late.letter.envelope;
    format!(
        "{}: a report of {} that came at {}: {}\n`{command} queue drop {}` removes it\n\n{}",
        late.key,
        envelope.source_session,
        table::time(late.letter.at_ms),
        late.letter.reason,
        &late.key[..ID_CHARS],
        envelope.payload.as_deref().unwrap_or("(no payload inline)")
    )
}

fn cancel(command: &str, coordination_id: &str) -> String {
    format!("`{command} cancel {coordination_id}`")
}

fn retry(directory: &Path, arguments: &RetryArguments, output: &Output) -> Result<u8, Failure> {
    let key = &arguments.key;
    let listed = read(directory)?;
    let command = super::command(directory);
    match listed.find(directory, key)? {
        Found::Dead(_) => {}
        Found::Late(_) => {
            let message = format!(
                "{key} is a report that came too late, and its coordination is closed: there is nobody to give it to; \
                 `{command} queue drop {key}` removes it"
            );
            return Err(refused("not-retryable", message));
        }
        Found::Entry(_) | Found::Message(_) => {
            let message = format!("{key} is still on its way and is tried again by itself");
            return Err(refused("on-its-way", message));
        }
    }
    let evidence = match arguments.not_sent {
        true => Evidence::NotSent,
        false => Evidence::Kept,
    };
    beside::replay(directory, key, evidence, now_ms()).map_err(not_settled)?;
    let done = Done {
        key,
        done: "retried",
    };
    output.result(&done, || {
        format!("{key} is on its way again; the next drain of the queue sends it")
    });
    Ok(exit::SUCCESS)
}

fn drop_letter(directory: &Path, key: &str, output: &Output) -> Result<u8, Failure> {
    let listed = read(directory)?;
    match listed.find(directory, key)? {
        Found::Dead(_) => beside::drop_dead(directory, key).map_err(not_settled)?,
        Found::Late(late) => drop_late(directory, &late.key, output)?,
        Found::Message(message) => {
            return Err(of_component(
                directory,
                key,
                &message.envelope.coordination_id,
            ));
        }
        Found::Entry(entry) if entry.channel == COORDINATION => {
            let id = entry.key.split(':').next().unwrap_or_default();
            return Err(of_component(directory, key, id));
        }
        Found::Entry(_) => {
            let message = format!(
                "{key} is still on its way; only the host that put it there can withdraw it, and once it is a dead letter \
                 it can be dropped"
            );
            return Err(refused("on-its-way", message));
        }
    }
    let done = Done {
        key,
        done: "dropped",
    };
    output.result(&done, || format!("{key} is gone"));
    Ok(exit::SUCCESS)
}

/// What the component has out is not dropped by hand: it would be handed out again, or its step would wait for ever.
fn of_component(directory: &Path, key: &str, coordination_id: &str) -> Failure {
    let message = format!(
        "{key} is a message of a step, and belongs to the coordination {coordination_id}: it is not dropped by hand; {} \
         stops the step, and the message with it",
        cancel(&super::command(directory), coordination_id)
    );
    refused("of-coordination", message)
}

/// Only the owner of the directory writes the ledger's file.
fn drop_late(directory: &Path, id: &str, output: &Output) -> Result<(), Failure> {
    let dropped = Transaction {
        dropped_letters: vec![id.to_owned()],
        ..Transaction::default()
    };
    runtime()?.block_on(async {
        let mut interrupts = interrupts()?;
        let domain = match resting_builder(directory)?.open().await {
            Ok(domain) => domain,
            Err(error @ HostError::Locked { .. }) => {
                let message = format!("{error}; a late report is dropped when it has ended");
                return Err(Failure::host("locked", message));
            }
            Err(error) => return Err(error.into()),
        };
        let done = domain.with_store(move |store| store.commit(&dropped)).await;
        close(&domain, &mut interrupts, output).await;
        Ok(done?)
    })
}

fn refused(code: &str, message: String) -> Failure {
    Failure::new(exit::FAILED, code, message)
}

/// Somebody else was faster, or the rules of the queue say no.
fn not_settled(error: HostError) -> Failure {
    match error {
        HostError::Entry { .. } => refused("not-settled", error.to_string()),
        error => error.into(),
    }
}
