//! `qm2 events`: records as they come, from any number on.
//!
//! Reads the store directly and changes nothing; works while another process runs the data directory, and never slows it.

use super::failure::Failure;
use super::ledger::{parse, readable};
use super::output::Output;
use super::{data, exit};
use clap::Args;
use qm2_host::cloud_event::cloud_event;
use qm2_host::follow::Follower;
use std::path::Path;
use std::time::Duration;

/// Wait between two looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub const HELP: &str = "\
Examples:
  qm2 events                             all records, for people
  qm2 events --follow --from 18 --json   as they were hashed, from record 18 on, and those that come
  qm2 events --follow --cloudevents      as CloudEvents 1.0, one a line, for a broker

A follower that was stopped or killed goes on at the number after the last that it has: nothing is missing and nothing
comes twice. Each line is out before the next is read. A slow reader slows nobody else. With --follow it waits for a
data directory that is not there yet, and ends by Ctrl-C or when its reader goes away.

Exit codes: 0, 5 a record does not follow the one before it, 6 the ledger cannot be read, 130 Ctrl-C.";

#[derive(Args)]
pub struct Arguments {
    /// Only those of this coordination.
    id: Option<String>,
    /// Goes on with the records that come.
    #[arg(long, short)]
    follow: bool,
    /// Number of the first record.
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
    /// One CloudEvents 1.0 object a line.
    #[arg(long)]
    cloudevents: bool,
}

/// Runs it.
pub fn run(directory: &Path, arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let mut follower = open(directory, arguments, output)?;
    loop {
        let lines = follower.batch()?;
        if lines.is_empty() {
            if !arguments.follow {
                return Ok(exit::SUCCESS);
            }
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        let wanted = lines
            .iter()
            .filter(|line| is_of(line, arguments.id.as_deref()));
        if arguments.cloudevents {
            let events: Result<Vec<String>, _> = wanted.map(|line| cloud_event(line)).collect();
            let says = |e| Failure::host("store", format!("a line is no record: {e}"));
            output.lines(events.map_err(says)?);
        } else if output.is_json() {
            output.lines(wanted);
        } else {
            output.lines(wanted.map(|line| readable(&parse(line))));
        }
    }
}

/// Opens the store; with `--follow` waits until there is one.
fn open(directory: &Path, arguments: &Arguments, output: &Output) -> Result<Follower, Failure> {
    let mut is_told = false;
    while arguments.follow && !data::exists(directory) {
        if !is_told && output.is_watched() {
            output.note(&format!("waiting for a ledger in {}", directory.display()));
            is_told = true;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let store = data::open(directory)?;
    Ok(Follower::new(Box::new(store), arguments.from)?)
}

/// Whether a record belongs to a coordination; each does where none is named.
fn is_of(line: &str, id: Option<&str>) -> bool {
    id.is_none_or(|id| data::member(line, "coordinationId") == Some(id))
}
