//! Keeps of a release what all later ones are tested with: its contract, its vectors, and ledgers with every kind of record.
//!
//! The ledgers are those of simulated domains, each with a snapshot from its middle, and with what an instance must say after it took
//! them in. They are made by the core, without a component: `tests/releases.rs` shows that the component gives the same.

use crate::archive::{Files, tar_xz};
use crate::checkout::{Checkout, git};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use qm2_core::call::{Answer, Call};
use qm2_core::machine::Machine;
use qm2_core::receipt::Head;
use qm2_core::staged::Staged;
use qm2_simulation::target::Native;
use qm2_simulation::world;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// Seeds of domains that are looked through.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=400;
/// Wished size of the pieces of a snapshot, so that there are several.
const SNAPSHOT_BYTES: u64 = 2_000;

/// Where an instance is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    head: Head,
    state_digest: String,
}

/// What `expected.json` of a ledger holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    /// After the snapshot.
    snapshot: Place,
    /// After the whole ledger.
    end: Place,
}

/// Writes `tests/releases/VERSION/`. Gives the names and bytes of what was written.
///
/// # Errors
/// The version is tagged already, so that what is kept of it must not change any more.
pub fn freeze(checkout: &Checkout, contract: &str) -> Result<Files> {
    let version = &checkout.version;
    for tag in [version.clone(), format!("v{version}")] {
        let found = git(checkout.root(), &["tag", "--list", &tag])?;
        ensure!(
            found.is_empty(),
            "{version} is released as {tag}; raise the version"
        );
    }
    let vectors = vectors(checkout)?;
    let wanted = kinds_of(vectors.values().flat_map(|bytes| recorded(bytes)));
    ensure!(
        wanted.len() > 20,
        "the vectors have other records: {wanted:?}"
    );
    let files = Files::from([
        ("contract.wit".to_owned(), contract.as_bytes().to_vec()),
        ("vectors.tar.xz".to_owned(), tar_xz(&vectors)?),
        (
            "ledgers.tar.xz".to_owned(),
            tar_xz(&ledgers(wanted, &vectors)?)?,
        ),
    ]);
    let folder = checkout.path("tests/releases").join(version);
    fs::create_dir_all(&folder)?;
    for (name, bytes) in &files {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(files)
}

fn vectors(checkout: &Checkout) -> Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(checkout.path("tests/vectors"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".json") {
            files.insert(name.into_owned(), fs::read(&path)?);
        }
    }
    ensure!(files.len() > 300, "the vectors are not where they were");
    Ok(files)
}

/// Ledgers of as few domains as have every one of these kinds of records between them.
fn ledgers(mut wanted: BTreeSet<String>, vectors: &Files) -> Result<Files> {
    let mut domains = simulated()?;
    // What simulation does not come across, scenarios do.
    domains.extend(vectors.iter().filter_map(|(name, bytes)| {
        let lines = first_run(bytes)?;
        Some((name.trim_end_matches(".json").to_owned(), lines))
    }));
    let mut files = Files::new();
    while !wanted.is_empty() {
        let new = |lines: &[String]| wanted.intersection(&kinds_of(lines.iter())).count();
        // Most of what is missing; of those with as much, the shortest, and then the first.
        let mut best: Option<&(String, Vec<String>)> = None;
        for domain in &domains {
            let rank = |(_, lines): &(String, Vec<String>)| (new(lines), usize::MAX - lines.len());
            if best.is_none_or(|best| rank(domain) > rank(best)) {
                best = Some(domain);
            }
        }
        let (name, lines) = best.context("there is no domain")?;
        ensure!(new(lines) > 0, "no domain has records of {wanted:?}");
        for kind in kinds_of(lines.iter()) {
            wanted.remove(&kind);
        }
        for (file, bytes) in ledger(lines)? {
            files.insert(format!("{name}/{file}"), bytes);
        }
    }
    Ok(files)
}

/// Names and ledgers of simulated domains.
fn simulated() -> Result<Vec<(String, Vec<String>)>> {
    let domains = SEEDS.map(|seed| {
        let run = world::run(&|| Box::new(Native::default()), seed, false);
        match run.violation {
            None => Ok((format!("seed-{seed}"), run.lines)),
            Some(violation) => Err(anyhow!("seed {seed}: {violation}")),
        }
    });
    domains.collect()
}

/// The ledger of the first run of a vector, where that is all lines that are recorded in it.
fn first_run(vector: &[u8]) -> Option<Vec<String>> {
    let vector: Value = serde_json::from_slice(vector).ok()?;
    let mut ledger = Vec::new();
    for step in vector["runs"][0]["steps"].as_array()? {
        let given = ["replay", "restore"].map(Value::from);
        if step["call"].is_null() || given.contains(&step["call"]["call"]) {
            return None;
        }
        let lines = step["lines"].as_array().into_iter().flatten();
        ledger.extend(lines.filter_map(Value::as_str).map(str::to_owned));
    }
    Some(ledger)
}

/// The files of one ledger.
fn ledger(lines: &[String]) -> Result<Files> {
    // Where most is under way, so that a snapshot is not one of what is over.
    let mut machine = Machine::new();
    let mut largest = (0, 0);
    for (index, line) in lines.iter().enumerate() {
        replay(&mut machine, std::slice::from_ref(line))?;
        let size: usize = pieces(&mut machine)?.iter().map(String::len).sum();
        if size > largest.0 {
            largest = (size, index + 1);
        }
    }
    let mut machine = Machine::new();
    replay(&mut machine, &lines[..largest.1])?;
    let snapshot = pieces(&mut machine)?;
    let at_snapshot = place(&mut machine)?;
    replay(&mut machine, &lines[largest.1..])?;
    let expected = Expected {
        snapshot: at_snapshot,
        end: place(&mut machine)?,
    };
    let pieces: Vec<String> = snapshot
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()?;
    let expected = serde_json::to_string_pretty(&expected)? + "\n";
    Ok(Files::from([
        (
            "ledger.jsonl".to_owned(),
            (lines.join("\n") + "\n").into_bytes(),
        ),
        (
            "snapshot.jsonl".to_owned(),
            (pieces.join("\n") + "\n").into_bytes(),
        ),
        ("expected.json".to_owned(), expected.into_bytes()),
    ]))
}

fn call(machine: &mut Machine, call: &Call) -> Result<Answer> {
    let answer = machine.call(&mut Staged::default(), call);
    answer.map_err(|error| anyhow!("{}: {error}", call.name()))
}

fn replay(machine: &mut Machine, lines: &[String]) -> Result<()> {
    let (lines, checked) = (lines.to_vec(), false);
    call(machine, &Call::Replay { lines, checked }).map(|_| ())
}

fn pieces(machine: &mut Machine) -> Result<Vec<String>> {
    let (mut pieces, mut cursor) = (Vec::new(), None);
    loop {
        let max_bytes = SNAPSHOT_BYTES;
        let Answer::Snapshot(piece) = call(machine, &Call::Snapshot { cursor, max_bytes })? else {
            bail!("snapshot answers something else");
        };
        pieces.push(piece.chunk);
        cursor = piece.next;
        if cursor.is_none() {
            return Ok(pieces);
        }
    }
}

fn place(machine: &mut Machine) -> Result<Place> {
    let head = call(machine, &Call::Head)?;
    let digest = call(machine, &Call::StateDigest)?;
    match (head, digest) {
        (Answer::Head(head), Answer::StateDigest(state_digest)) => Ok(Place { head, state_digest }),
        other => bail!("{other:?}"),
    }
}

/// The kinds of records in these lines.
fn kinds_of(lines: impl Iterator<Item = impl AsRef<str>>) -> BTreeSet<String> {
    let kind = |line: &str| {
        let (_, rest) = line.split_once(r#""type":""#)?;
        let (kind, _) = rest.split_once('"')?;
        Some(kind.to_owned())
    };
    lines.filter_map(|line| kind(line.as_ref())).collect()
}

/// The ledger lines that a vector expects: each is a string on a line of its own.
fn recorded(vector: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(vector).unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| line.starts_with(r#""{\"v\":1,"#));
    let lines = lines.filter_map(|line| serde_json::from_str(line.trim_end_matches(',')).ok());
    lines.collect()
}
