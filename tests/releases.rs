//! What earlier releases promised, kept by the present component: their vectors hold, their ledgers replay, their snapshots restore, each
//! to what was recorded then.
//!
//! The files are in `tests/releases/VERSION/` and are never changed once the version is out; the README there says how they are made.
//! Whether the WIT still fits is tested by `.ci/dist --contract`.

use crate::support::{Native, rule, vector};
use crate::vectors::Component;
use lzma_rust2::XzReader;
use qm2_core::call::{Answer, Call};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

/// Names and texts.
type Files = BTreeMap<String, String>;

/// Where an instance must be.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Place {
    head: Head,
    state_digest: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Head {
    seq: u64,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    snapshot: Place,
    end: Place,
}

/// A ledger that a release has left.
struct Ledger {
    name: String,
    lines: Vec<String>,
    snapshot: Vec<String>,
    expected: Expected,
}

/// The folder of each release.
fn releases() -> Vec<PathBuf> {
    let folder = rule::root().join("tests/releases");
    let entries = fs::read_dir(&folder).expect("the folder of releases is readable");
    let paths = entries.map(|entry| entry.expect("it is readable").path());
    let mut folders: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "no release is kept");
    folders
}

/// The files of an archive of a release.
fn unpacked(path: PathBuf) -> Files {
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut tar = tar::Archive::new(XzReader::new(bytes.as_slice(), true));
    let entries = tar.entries().expect("it is an archive");
    let files = entries.map(|entry| {
        let mut entry = entry.expect("the archive is whole");
        let name = entry.path().expect("it has a name");
        let name = name.to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("it is a text");
        (name, text)
    });
    files.collect()
}

fn vectors() -> Files {
    let mut all = Files::new();
    for release in releases() {
        let files = unpacked(release.join("vectors.tar.xz"));
        assert!(files.len() > 300, "{}: {}", release.display(), files.len());
        let version = release.file_name().unwrap_or_default().to_string_lossy();
        let named = files.into_iter();
        all.extend(named.map(|(name, text)| (format!("{version}/{name}"), text)));
    }
    all
}

fn ledgers() -> Vec<Ledger> {
    let mut ledgers = Vec::new();
    for release in releases() {
        let files = unpacked(release.join("ledgers.tar.xz"));
        let names = files
            .keys()
            .filter_map(|name| name.strip_suffix("/ledger.jsonl"));
        for name in names {
            let file = |file: &str| files[&format!("{name}/{file}")].as_str();
            let pieces = file("snapshot.jsonl").lines();
            let piece = |line| serde_json::from_str(line).expect("a piece is a string");
            let expected = serde_json::from_str(file("expected.json"));
            ledgers.push(Ledger {
                name: format!("{}: {name}", release.display()),
                lines: file("ledger.jsonl").lines().map(str::to_owned).collect(),
                snapshot: pieces.map(piece).collect(),
                expected: expected.expect("it says what is expected"),
            });
        }
    }
    ledgers
}

/// What is wrong with each vector of which anything is.
fn failed<I: vector::Instance>() -> Vec<String> {
    let checked = vectors().into_iter().filter_map(|(name, text)| {
        let failed = vector::check::<I>(&text).err()?;
        Some(format!("{name}: {failed}"))
    });
    checked.collect()
}

#[test]
fn every_vector_of_every_release_holds_in_the_core() {
    let failed = failed::<Native>();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_vector_of_every_release_holds_in_the_component() {
    let failed = failed::<Component>();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn call<I: vector::Instance>(instance: &mut I, name: &str, call: &Call) -> Answer {
    let answer = instance.call(call);
    let answer = answer.unwrap_or_else(|error| panic!("{name}: {}: {error}", call.name()));
    let staged = instance.take_staged();
    assert!(
        staged.is_empty(),
        "{name}: {} hands something out",
        call.name()
    );
    answer
}

fn replay<I: vector::Instance>(instance: &mut I, name: &str, lines: &[String]) {
    // In pieces, as a host gives them.
    for lines in lines.chunks(50) {
        let (lines, checked) = (lines.to_vec(), false);
        call(instance, name, &Call::Replay { lines, checked });
    }
}

fn place<I: vector::Instance>(instance: &mut I, name: &str) -> Place {
    let head = match call(instance, name, &Call::Head) {
        Answer::Head(head) => Head {
            seq: head.seq,
            hash: head.hash,
        },
        other => panic!("{name}: {other:?}"),
    };
    match call(instance, name, &Call::StateDigest) {
        Answer::StateDigest(state_digest) => Place { head, state_digest },
        other => panic!("{name}: {other:?}"),
    }
}

/// A ledger replays to what was recorded, and so it does from the snapshot on.
fn leads_where_it_led<I: vector::Instance>(ledger: &Ledger) {
    let Ledger {
        name,
        lines,
        snapshot,
        expected,
    } = ledger;
    let at = usize::try_from(expected.snapshot.head.seq).expect("a number of lines");
    assert!(0 < at && at < lines.len(), "{name}: a snapshot at {at}");
    let mut replayed = I::fresh();
    replay(&mut replayed, name, &lines[..at]);
    assert_eq!(place(&mut replayed, name), expected.snapshot, "{name}");
    replay(&mut replayed, name, &lines[at..]);
    assert_eq!(place(&mut replayed, name), expected.end, "{name}");

    let mut restored = I::fresh();
    for (index, chunk) in snapshot.iter().enumerate() {
        let (chunk, last) = (chunk.clone(), index + 1 == snapshot.len());
        call(&mut restored, name, &Call::Restore { chunk, last });
    }
    assert_eq!(place(&mut restored, name), expected.snapshot, "{name}");
    replay(&mut restored, name, &lines[at..]);
    assert_eq!(place(&mut restored, name), expected.end, "{name}");
}

#[test]
fn r_65_every_ledger_and_snapshot_of_every_release_leads_where_it_led_in_the_core() {
    ledgers().iter().for_each(leads_where_it_led::<Native>);
}

#[test]
fn r_65_every_ledger_and_snapshot_of_every_release_leads_where_it_led_in_the_component() {
    ledgers().iter().for_each(leads_where_it_led::<Component>);
}

#[test]
#[should_panic(expected = "replay")]
fn ledger_with_another_record_in_it_is_found() {
    let mut ledger = ledgers().remove(0);
    ledger.lines.swap(1, 2);
    leads_where_it_led::<Native>(&ledger);
}

/// The kinds of records in these lines.
fn kinds<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let kinds = lines.filter_map(|line| {
        let (_, rest) = line.split_once(r#""type":""#)?;
        Some(rest.split_once('"')?.0)
    });
    kinds.collect()
}

/// The lines that vectors expect are strings in them, each on a line of its own.
#[test]
fn ledgers_of_a_release_have_every_kind_of_record_that_its_vectors_have() {
    for release in releases() {
        let (ledgers, vectors) = (
            unpacked(release.join("ledgers.tar.xz")),
            unpacked(release.join("vectors.tar.xz")),
        );
        let ledgers = ledgers
            .iter()
            .filter(|(name, _)| name.ends_with("ledger.jsonl"));
        let kept = kinds(ledgers.flat_map(|(_, text)| text.lines()));
        let expected = vectors.values().flat_map(|text| text.lines());
        let expected = expected.filter(|line| line.starts_with(r#""{\"v\":1,"#));
        let plain: Vec<String> = expected.map(|line| line.replace('\\', "")).collect();
        let wanted = kinds(plain.iter().map(String::as_str));
        assert!(wanted.len() > 20, "{wanted:?}");
        let missing: Vec<_> = wanted.difference(&kept).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", release.display());
    }
}
