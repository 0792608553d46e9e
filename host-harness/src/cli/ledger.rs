//! `qm2 ledger`: the records for people, as they were hashed, verified, and by cause.
//!
//! Reads the store directly and changes nothing; works while another process runs the data directory.

use super::failure::Failure;
use super::output::Output;
use super::table::{first_line, time};
use super::{data, exit};
use clap::Subcommand;
use qm2_core::digest::ZERO;
use qm2_core::receipt::{LedgerFault, LedgerFaultKind};
use qm2_host::engine::Engine;
use qm2_host::store::Store;
use qm2_host::verify::{self, Verified};
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Commands of `ledger`.
#[derive(Subcommand)]
pub enum Command {
    /// Records for people, one a line: number, time, type, step, what led to it, content.
    Show {
        /// Only those of this coordination.
        id: Option<String>,
    },
    /// Records as JSON lines, exactly as they were hashed.
    #[command(after_help = "\
Example, the chain verified without qm2:
  qm2 ledger export | sh tests/verify-chain.sh")]
    Export {
        /// Only those of this coordination; these alone are no chain.
        id: Option<String>,
    },
    /// Recomputes the hash chain and replays it through the component.
    #[command(after_help = "\
Note the head that this prints somewhere else; --head then finds a ledger whose end was cut off.

Exit codes: 0 the ledger holds, 5 it is broken (the first bad record is named), 6 it cannot be read.")]
    Verify {
        /// Hash of a record that must be there.
        #[arg(long, value_name = "HASH", value_parser = hash)]
        head: Option<String>,
    },
    /// What led to a record: the chain of causes up to the plan.
    #[command(after_help = "Example:\n  qm2 ledger why 17")]
    Why {
        /// Number of the record.
        seq: u64,
    },
}

/// Runs one of them.
pub fn run(directory: &Path, command: &Command, output: &Output) -> Result<u8, Failure> {
    let store = data::open(directory)?;
    match command {
        Command::Show { id } => show(directory, &store, id.as_deref(), output),
        Command::Export { id } => export(directory, &store, id.as_deref(), output),
        Command::Verify { head } => verify(&store, head.as_deref(), output),
        Command::Why { seq } => why(&store, *seq, output),
    }
}

/// A hash as it is written in the ledger.
fn hash(text: &str) -> Result<String, String> {
    if text.len() == ZERO.len() && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a hash has 64 hexadecimal digits; `qm2 ledger verify` prints that of the head".into())
    }
}

fn export(
    directory: &Path,
    store: &dyn Store,
    id: Option<&str>,
    output: &Output,
) -> Result<u8, Failure> {
    match id {
        Some(id) => output.lines(coordination_lines(directory, store, id)?),
        None => data::each_chunk(store, |lines| {
            output.lines(lines);
            Ok(())
        })?,
    }
    Ok(exit::SUCCESS)
}

fn show(
    directory: &Path,
    store: &dyn Store,
    id: Option<&str>,
    output: &Output,
) -> Result<u8, Failure> {
    let mut records = Vec::new();
    let mut take = |lines: &[String]| {
        let chunk = lines.iter().map(|line| parse(line));
        if output.is_json() {
            records.extend(chunk);
        } else {
            output.lines(chunk.map(|record| readable(&record)));
        }
        Ok(())
    };
    match id {
        Some(id) => take(&coordination_lines(directory, store, id)?)?,
        None => data::each_chunk(store, take)?,
    }
    if output.is_json() {
        output.result(&records, String::new);
    }
    Ok(exit::SUCCESS)
}

fn coordination_lines(
    directory: &Path,
    store: &dyn Store,
    id: &str,
) -> Result<Vec<String>, Failure> {
    let lines = store.coordination_lines(id)?;
    if lines.is_empty() {
        Err(data::unknown(directory, id))
    } else {
        Ok(lines)
    }
}

/// A line as JSON; a damaged one as its text, so that the rest can still be seen.
pub fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()))
}

/// A record in one line for people.
pub fn readable(record: &Value) -> String {
    let Some(members) = record.as_object() else {
        return format!("damaged: {record}");
    };
    let text = |name: &str| {
        members
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let number = |name: &str| members.get(name).and_then(Value::as_u64);
    let mut about = text("coordinationId").to_owned();
    if let Some(step_id) = members.get("stepId").and_then(Value::as_str) {
        about += &format!(":{step_id}:{}", number("attempt").unwrap_or_default());
    }
    let cause = number("cause")
        .map(|seq| format!("by {seq}"))
        .unwrap_or_default();
    let content = members
        .get("data")
        .and_then(Value::as_object)
        .map(summary)
        .unwrap_or_default();
    let (seq, at, kind) = (
        number("seq").unwrap_or_default(),
        time(number("atMs").unwrap_or_default()),
        text("type"),
    );
    format!("{seq:>6}  {at}  {kind:<24}  {about}  {cause:<8}  {content}")
        .trim_end()
        .to_owned()
}

/// The members of a record that say something to people: no digests, no plans.
fn summary(members: &Map<String, Value>) -> String {
    let say = |(name, value): (&String, &Value)| match value {
        _ if name.ends_with("Digest") || name == "lane" => None,
        Value::String(text) => Some(format!("{name}={}", first_line(text))),
        // The one member of a record that is a duration and no moment.
        Value::Number(ms) if name == "leaseMs" => Some(format!("{name}={ms}")),
        Value::Number(at) if name.ends_with("Ms") => Some(format!("{name}={}", time(at.as_u64()?))),
        Value::Number(_) | Value::Bool(_) => Some(format!("{name}={value}")),
        Value::Array(items)
            if items.len() <= 8 && items.iter().all(|item| item.is_string() || item.is_u64()) =>
        {
            Some(format!("{name}={value}"))
        }
        Value::Object(counts) if counts.values().all(Value::is_u64) => {
            Some(format!("{name}={value}"))
        }
        _ => None,
    };
    members.iter().filter_map(say).collect::<Vec<_>>().join(" ")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    ok: bool,
    records: u64,
    head_seq: u64,
    head_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_bad_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<LedgerFaultKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn verify(store: &dyn Store, head: Option<&str>, output: &Output) -> Result<u8, Failure> {
    let Verified {
        head,
        fault,
        state_digest,
    } = verify::verify(&Engine::new()?, store, head)?;
    let verdict = Verdict {
        ok: fault.is_none(),
        records: head.seq,
        head_seq: head.seq,
        head_hash: head.hash,
        state_digest,
        first_bad_seq: fault.as_ref().map(|fault| fault.seq),
        kind: fault.as_ref().map(|fault| fault.kind),
        reason: fault.map(|fault| fault.message),
    };
    output.result(&verdict, || {
        match (&verdict.first_bad_seq, &verdict.reason) {
            (Some(seq), Some(reason)) => format!(
                "broken at record {seq}: {reason}\n{} record(s) before it hold",
                seq - 1
            ),
            _ => format!(
                "ok, {} records\nhead          {}\nstate digest  {}",
                verdict.records,
                verdict.head_hash,
                verdict.state_digest.as_deref().unwrap_or("-")
            ),
        }
    });
    Ok(if verdict.ok {
        exit::SUCCESS
    } else {
        exit::LEDGER_BROKEN
    })
}

#[derive(Serialize)]
struct Chained {
    chain: Vec<Value>,
}

fn why(store: &dyn Store, seq: u64, output: &Output) -> Result<u8, Failure> {
    let mut chain = Vec::new();
    let mut next = Some(seq);
    while let Some(seq) = next {
        let Some(line) = store.line(seq)? else {
            return Err(match chain.len() {
                0 => Failure::usage(
                    "unknown-record",
                    format!("there is no record {seq}; `qm2 ledger show` lists them"),
                ),
                _ => data::broken(&LedgerFault {
                    seq,
                    kind: LedgerFaultKind::BrokenChain,
                    message: "is the cause of a record, but it is missing".into(),
                }),
            });
        };
        let record = parse(&line);
        let cause = record["cause"]
            .as_u64()
            .filter(|_| record["type"] != "coordination.created");
        if cause.is_some_and(|cause| cause >= seq) {
            let message = "names a cause that does not lie before it".into();
            return Err(data::broken(&LedgerFault {
                seq,
                kind: LedgerFaultKind::BrokenChain,
                message,
            }));
        }
        chain.push(record);
        next = cause;
    }
    let chained = Chained { chain };
    output.result(&chained, || {
        chained
            .chain
            .iter()
            .map(readable)
            .collect::<Vec<_>>()
            .join("\n")
    });
    Ok(exit::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_is_one_readable_line() {
        let record = json!({
            "seq": 7, "atMs": 0, "type": "step.failed", "coordinationId": "c", "stepId": "s", "attempt": 2, "cause": 6,
            "data": {"class": "permanent", "message": "no\nyes", "contentDigest": "00", "attempts": 2},
        });
        let line = readable(&record);
        for part in [
            "     7  1970-",
            "step.failed",
            "c:s:2",
            "by 6",
            "class=permanent",
            "message=no",
            "attempts=2",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("Digest"), "{line}");
        assert!(readable(&parse("x\u{1}")).starts_with("damaged"));
    }
}
