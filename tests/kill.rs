//! kill -9 of the real program at random moments, and what must hold afterwards.
//!
//! Times nothing: a moment is only when the signal is sent, and every check is on what is in the ledger, in the lines that
//! the steps wrote, and among the processes.

use crate::program::{Directory, plan};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Moments at which the program is killed.
const KILLS: u64 = 50;
/// Runs side by side; the steps mostly sleep.
const SIDE_BY_SIDE: u64 = 5;
/// How long a run that nobody kills takes, roughly; moments are drawn from this span.
const SPAN_MS: u64 = 1_600;

#[test]
fn a_killed_run_is_taken_up_again_and_loses_and_repeats_nothing() {
    let seed = 0x5eed_0002_u64;
    let lost = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let lost = &lost;
        for worker in 0..SIDE_BY_SIDE {
            scope.spawn(move || {
                for round in (worker..KILLS).step_by(SIDE_BY_SIDE as usize) {
                    // A fixed sequence of moments; splitmix64.
                    let mut draw =
                        seed.wrapping_add((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    draw = (draw ^ (draw >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    draw = (draw ^ (draw >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    let retried = kill_once(round, (draw ^ (draw >> 31)) % SPAN_MS);
                    lost.fetch_add(retried, Ordering::Relaxed);
                }
            });
        }
    });
    let lost = lost.into_inner();
    println!("{KILLS} kills, {lost} attempts lost in flight and taken up again");
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
