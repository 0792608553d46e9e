//! What must hold after the fire, whatever it was.
//!
//! What was acknowledged is known from outside of the data directory: what agents wrote into a journal, and what the program
//! printed. What the ledger must say of it is worked out here.

use super::disk::Entry;
use super::site::{BESIDE, LOAD, Site};
use qm2_core::digest::sha256_hex;
use serde_json::Value;
use std::collections::BTreeMap;

/// Attempts that a step may lose with its host without using the budget.
const FREE: usize = 3;

/// Something that somebody outside was told, or did because of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Acknowledged {
    /// A command runs: coordination, step, attempt.
    Started(String),
    /// A claim was granted to an attempt, or a command ran under one.
    Granted(String, u64),
    /// A question of this attempt was answered.
    Answered(String),
    /// A person was told that the answer counts.
    Decided(String),
    /// Progress of a run: coordination, step, type of the record.
    Shown(String, String, &'static str),
    /// The result of a run: number and hash of the last record.
    Ended(u64, String),
}

/// What the journal says.
pub fn of_journal(journal: &str) -> Vec<Acknowledged> {
    let mut found = Vec::new();
    for line in journal.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        found.push(match words[..] {
            ["start", key] => Acknowledged::Started(key.into()),
            ["claimed" | "guarded", key, token] => {
                Acknowledged::Granted(key.into(), token.parse().expect("a token"))
            }
            ["answered", key] => Acknowledged::Answered(key.into()),
            _ => panic!("the journal says {line:?}"),
        });
    }
    found
}

/// What the entries of a trace say: the journal and everything printed, as far as it came in whole lines.
pub fn of_trace(entries: &[Entry]) -> Vec<Acknowledged> {
    let mut journal = String::new();
    let mut printed: BTreeMap<(u32, u64), (String, String)> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Journal(text) => journal += text,
            Entry::Said {
                by,
                pid,
                stream,
                text,
            } => {
                let (known, all) = printed.entry((*pid, *stream)).or_default();
                known.clone_from(by);
                *all += text;
            }
            _ => {}
        }
    }
    let mut found = of_journal(&journal);
    for ((_, stream), (by, text)) in &printed {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            found.extend(of_line(by, *stream, line));
        }
    }
    found
}

fn of_line(by: &str, stream: u64, line: &str) -> Option<Acknowledged> {
    let run = [LOAD, BESIDE]
        .into_iter()
        .find(|plan| by.contains(" run ") && by.contains(&format!("{plan}.json")));
    match (run, stream) {
        (Some(_), 1) => {
            let result: Value = serde_json::from_str(line).ok()?;
            let hash = result["headHash"].as_str()?;
            Some(Acknowledged::Ended(
                result["headSeq"].as_u64()?,
                hash.into(),
            ))
        }
        (Some(plan), 2) => {
            let (step, says) = line.split_once(": ")?;
            let type_name = match says {
                "completed" => "step.completed",
                _ if says.starts_with("started") => "step.dispatched",
                _ if says.starts_with("waits for a person") => "human.requested",
                _ if says.contains("is approved by") => "human.decided",
                _ => return None,
            };
            Some(Acknowledged::Shown(plan.into(), step.into(), type_name))
        }
        (None, 1) if by.contains(" escalations approve ") => Some(Acknowledged::Decided(
            line.split_once(": approved")?.0.into(),
        )),
        _ => None,
    }
}

/// What of it the ledger does not say.
pub fn missing(acknowledged: &[Acknowledged], records: &[Value]) -> Vec<Acknowledged> {
    let is = |record: &Value, type_name: &str, coordination: &str, step: &str| {
        record["type"] == type_name
            && record["coordinationId"] == coordination
            && record["stepId"] == step
    };
    let holds = |one: &&Acknowledged| !match one {
        Acknowledged::Started(key) => {
            let (coordination, step, attempt) = parts(key);
            ["step.dispatched", "step.acknowledged"]
                .iter()
                .all(|type_name| {
                    let mut records = records.iter();
                    records.any(|record| {
                        is(record, type_name, coordination, step) && record["attempt"] == attempt
                    })
                })
        }
        Acknowledged::Granted(key, token) => {
            let (coordination, step, attempt) = parts(key);
            let record = token
                .checked_sub(1)
                .and_then(|index| records.get(index as usize));
            record.is_some_and(|record| {
                is(record, "claim.granted", coordination, step) && record["attempt"] == attempt
            })
        }
        Acknowledged::Answered(key) => {
            let (coordination, step, _) = parts(key);
            records
                .iter()
                .any(|record| is(record, "human.decided", coordination, step))
        }
        Acknowledged::Decided(id) => records.iter().any(|record| {
            record["type"] == "human.decided" && record["data"]["escalationId"] == id.as_str()
        }),
        Acknowledged::Shown(coordination, step, type_name) => records
            .iter()
            .any(|record| is(record, type_name, coordination, step)),
        Acknowledged::Ended(seq, hash) => {
            let record = seq
                .checked_sub(1)
                .and_then(|index| records.get(index as usize));
            record.is_some_and(|record| record["hash"] == hash.as_str())
        }
    };
    acknowledged.iter().filter(holds).cloned().collect()
}

fn parts(key: &str) -> (&str, &str, u64) {
    let mut parts = key.split(':');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next().parse().unwrap_or_default())
}

fn step_of(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    format!("{}:{}", text("coordinationId"), text("stepId"))
}

/// How often each step has a record of this type.
pub fn counts(records: &[Value], type_name: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records.iter().filter(|record| record["type"] == type_name) {
        *counts.entry(step_of(record)).or_default() += 1;
    }
    counts
}

/// Runs the plans to their end and looks at everything; `before` is the ledger as it was after the fire, `says` what the
/// fire was. The commands go through `layer` on their way. Answers how many attempts were lost in flight.
pub fn recovers(
    site: &Site,
    before: &[Value],
    says: &str,
    layer: impl Fn(&Site, std::process::Command) -> std::process::Command,
) -> usize {
    let is_known = |plan: &str| before.iter().any(|record| record["coordinationId"] == plan);
    let mut plans = vec![LOAD];
    plans.extend(is_known(BESIDE).then_some(BESIDE));
    for plan in plans {
        let output = site.finish(layer(site, site.run_of(plan)));
        assert_eq!(output.code, 0, "{says}: {plan}: {output:?}");
        assert_eq!(output.json()["terminal"], "success", "{says}: {output:?}");
    }
    settled(site, before, says)
}

/// Looks at everything after the plans have ended.
pub fn settled(site: &Site, before: &[Value], says: &str) -> usize {
    let after = site.directory.records();
    assert_eq!(
        after.get(..before.len()),
        Some(before),
        "{says}: the ledger only grows"
    );
    let (dispatched_before, dispatched) = (
        counts(before, "step.dispatched"),
        counts(&after, "step.dispatched"),
    );
    for step in counts(before, "step.completed").keys() {
        assert_eq!(
            dispatched[step], dispatched_before[step],
            "{says}: {step} was finished and ran again"
        );
    }
    for (step, count) in counts(&after, "step.completed") {
        assert_eq!(count, 1, "{says}: {step} was completed twice");
    }
    let mut starts = BTreeMap::new();
    for one in of_journal(&site.journal()) {
        if let Acknowledged::Started(key) = one {
            *starts.entry(key).or_insert(0) += 1;
        }
    }
    let twice: Vec<_> = starts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        twice.is_empty(),
        "{says}: started twice under one key: {twice:?}"
    );
    let journal = of_journal(&site.journal());
    assert_eq!(
        missing(&journal, &after),
        [],
        "{says}: what agents did is not in the ledger"
    );
    for record in &after {
        if let (Some(uri), Some(sha256)) = (
            record["data"]["payloadRef"]["uri"].as_str(),
            record["data"]["payloadRef"]["sha256"].as_str(),
        ) {
            let path = site.directory.data().join(uri.trim_start_matches("file:"));
            let kept = std::fs::read(&path).unwrap_or_default();
            assert_eq!(
                sha256_hex(&[&kept]),
                sha256,
                "{says}: what record {} refers to is not there",
                record["seq"]
            );
        }
    }
    // Up to three for each step; after that they are retries like others, and a person is asked when these are used up.
    let mut lost = BTreeMap::new();
    for record in &after {
        if record["type"] == "step.retry_scheduled" && record["data"]["class"] == "host_lost" {
            let count = lost.entry(step_of(record)).or_insert(0);
            *count += 1;
            assert!(
                *count > FREE || record["data"]["free"] == true,
                "{says}: it used the budget: {record}"
            );
        }
    }
    let lost = lost.values().sum();
    assert_eq!(
        site.directory.processes(),
        Vec::<String>::new(),
        "{says}: an agent outlived its run"
    );
    let verified = site.directory.run(&["ledger", "verify"]);
    assert_eq!(verified.code, 0, "{says}: {verified:?}");
    lost
}
