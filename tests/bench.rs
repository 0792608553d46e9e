//! `qm2 bench`, small: every benchmark does its work with the real program and says what it measured.
//!
//! Judges no figure: how fast a machine is, is no test.

use crate::program::Directory;
use serde_json::Value;

/// Runs a benchmark in a folder of its own, and sees that nothing of it stays.
fn bench(arguments: &[&str]) -> Value {
    let directory = Directory::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().to_str().expect("text");
    let mut all = vec!["--json", "bench"];
    all.extend(arguments);
    all.extend(["--in", place]);
    let ran = directory.run(&all);
    assert_eq!(ran.code, 0, "{ran:?}");
    let left = std::fs::read_dir(folder.path())
        .expect("the folder")
        .count();
    assert_eq!(left, 0, "{arguments:?} leaves something behind");
    let value = ran.json();
    assert_eq!(value["bench"], arguments[0]);
    for disk in ["diskBefore", "diskAfter"] {
        assert!(value[disk]["perSecond"].as_u64() > Some(0), "{value}");
    }
    value
}

fn is_positive(value: &Value, names: &[&str]) {
    for name in names {
        let number = value.pointer(name).and_then(Value::as_f64);
        assert!(number > Some(0.0), "{name} in {value}");
    }
}

#[test]
fn fanout_runs_plans_at_once_and_alone() {
    let value = bench(&["fanout", "--plans", "3", "--alone", "2", "--width", "5"]);
    assert_eq!((&value["plans"], &value["steps"]), (&3.into(), &21.into()));
    is_positive(
        &value,
        &["/stepsPerSecond", "/alone/p50Ms", "/storeBytesPerStep"],
    );
}

#[test]
fn chain_runs_steps_in_a_row() {
    let value = bench(&["chain", "--plans", "2", "--length", "5"]);
    assert_eq!(value["steps"], 10);
    is_positive(&value, &["/msPerStep", "/p50Ms"]);
}

#[test]
fn recover_ends_what_a_killed_process_left() {
    let value = bench(&["recover", "--plans", "5"]);
    assert_eq!(value["plans"], 5);
    is_positive(&value, &["/recoverMs"]);
}

#[test]
fn core_makes_the_same_calls_natively_and_in_the_component() {
    let value = bench(&["core", "--plans", "2", "--width", "4", "--rounds", "1"]);
    assert_eq!(
        (&value["steps"], &value["envelopes"]),
        (&12.into(), &24.into())
    );
    is_positive(
        &value,
        &[
            "/ratio",
            "/native/stepsPerSecond",
            "/component/replayedPerSecond",
        ],
    );
}

#[test]
fn mixed_retries_claims_and_cancels() {
    let value = bench(&["mixed", "--plans", "40", "--resources", "4"]);
    assert_eq!(value["plans"], 40);
    is_positive(&value, &["/success", "/stepsPerSecond", "/plan/p50Ms"]);
}

#[test]
fn growth_compares_a_domain_that_holds_much_with_an_empty_one() {
    let value = bench(&[
        "growth", "--live", "50", "--closed", "50", "--plans", "2", "--chains", "1", "--length",
        "5", "--rounds", "1",
    ]);
    // Pages of linear memory, so the same on every machine.
    assert_eq!(value["memory"]["steps"], 66, "{value}");
    let waiting = value["memory"]["waitingBytes"].as_u64().expect("a number");
    assert!(waiting <= 24 * 1024, "{waiting} bytes of a live plan");
    for grown in ["live", "closed"] {
        assert_eq!(value[grown]["coordinations"], 50, "{value}");
        for work in ["fanout", "chain"] {
            let at = format!("/{grown}/{work}");
            let names = ["emptyStepsPerSecond", "stepsPerSecond", "ratio"];
            let names = names.map(|name| format!("{at}/{name}"));
            is_positive(&value, &names.each_ref().map(String::as_str));
        }
    }
    is_positive(
        &value,
        &[
            "/firstDispatch/p50Ms",
            "/memory/waitingBytes",
            "/memory/runningBytes",
            "/closed/records",
            "/closed/openMs",
        ],
    );
}
