//! kill -9 of the real program at random moments, and what must hold afterwards.
//!
//! Half of `QM2_KILLS` kills (see `fire`); the other half, in `fire::kill`, is under load.
//!
//! Times nothing: a moment is only when the signal is sent, and every check is on what is in the ledger, in the lines that
//! the steps wrote, and among the processes.

use crate::fire::{Draw, figure, side_by_side};
use crate::program::{Directory, plan};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a run that nobody kills takes, roughly; moments are drawn from this span.
const SPAN_MS: u64 = 1_600;

#[test]
fn a_killed_run_is_taken_up_again_and_loses_and_repeats_nothing() {
    let kills = figure("QM2_KILLS", 100) / 2;
    let lost = AtomicUsize::new(0);
    side_by_side(kills, |round| {
        let retried = kill_once(round, Draw::new(round).below(SPAN_MS));
        lost.fetch_add(retried, Ordering::Relaxed);
    });
    let lost = lost.into_inner();
    println!("{kills} kills, {lost} attempts lost in flight and taken up again");
    assert!(
        lost > 0,
        "not one kill hit an attempt in flight, so nothing was shown"
    );
}

/// One kill; answers how many attempts it cost.
fn kill_once(round: u64, after_ms: u64) -> usize {
    let says = format!("round {round}, killed after {after_ms} ms");
    let directory = Directory::new();
    let mut killed = directory.start(&["--json", "run", &plan("kill.json")]);
    std::thread::sleep(Duration::from_millis(after_ms));
    killed.kill().expect("the program can be killed");
    killed.wait().expect("the program was started here");
    let before = records(&directory);
    let completed_before = ids(&before, "step.completed");

    let output = directory.run(&["--json", "run", &plan("kill.json")]);
    assert_eq!(output.code, 0, "{says}: {}", output.stderr);
    assert_eq!(output.json()["terminal"], "success", "{says}");

    let after = records(&directory);
    assert_eq!(
        after[..before.len()],
        before[..],
        "{says}: the ledger only grows"
    );
    assert_eq!(
        ids(&after, "step.completed").values().sum::<usize>(),
        12,
        "{says}"
    );
    let dispatched = ids(&after, "step.dispatched");
    let dispatched_before = ids(&before, "step.dispatched");
    for step in completed_before.keys() {
        assert_eq!(
            dispatched[step], dispatched_before[step],
            "{says}: {step} was finished and ran again"
        );
    }
    let retries = || {
        after
            .iter()
            .filter(|record| record["type"] == "step.retry_scheduled")
    };
    for record in retries() {
        assert_eq!(
            record["data"]["free"], true,
            "{says}: a retry used the budget: {record}"
        );
        assert_eq!(record["data"]["class"], "host_lost", "{says}");
    }
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for line in directory.text("lines").lines() {
        let step = line.split(' ').next().unwrap_or_default();
        *lines.entry(step.to_owned()).or_default() += 1;
    }
    for (step, count) in &lines {
        assert!(
            *count <= dispatched[step],
            "{says}: {step} wrote {count} lines for {} dispatches",
            dispatched[step]
        );
    }
    assert_eq!(lines.len(), 12, "{says}: every step ran");
    assert_eq!(
        directory.processes(),
        Vec::<String>::new(),
        "{says}: an agent outlived its run"
    );
    assert_eq!(directory.run(&["ledger", "verify"]).code, 0, "{says}");
    retries().count()
}

/// The records so far; none where the kill came before there was a ledger.
fn records(directory: &Directory) -> Vec<Value> {
    let output = directory.run(&["ledger", "export"]);
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a record is JSON"))
        .collect()
}

/// How often each step has a record of this type.
fn ids(records: &[Value], type_name: &str) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for record in records.iter().filter(|record| record["type"] == type_name) {
        *ids.entry(record["stepId"].as_str().unwrap_or_default().to_owned())
            .or_default() += 1;
    }
    ids
}
