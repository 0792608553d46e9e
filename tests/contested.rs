//! The contested-file plans, with the real program: agents that share a file under claims, without them, and past a lease.
//!
//! What the guard answers and when a guarded command ends is in `guard`.

use crate::program::Directory;
use serde_json::json;

fn counter(directory: &Directory, name: &str) -> u64 {
    let text = directory.text(&format!("contested/{name}.txt"));
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("the counter file says {text:?}"))
}

#[test]
fn sixteen_agents_under_claims_and_guard_lose_no_increment() {
    let directory = Directory::new();
    let output = directory.run_plan("contested-file.json");
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(counter(&directory, "contested-file"), 400);
    // One grant at a time, each with a larger token than the one before.
    let mut last = 0;
    let mut held = None;
    let mut grants = 0;
    for record in directory.records() {
        let data = &record["data"];
        match record["type"].as_str() {
            Some("claim.granted") => {
                let token = record["seq"].as_u64().expect("a number");
                assert!(
                    token > last && held.is_none(),
                    "{record} while {held:?} is held"
                );
                (last, held, grants) = (token, Some(token), grants + 1);
            }
            Some("claim.released") => {
                assert_eq!(data["tokens"], json!([held.expect("a grant")]), "{record}");
                held = None;
            }
            Some("claim.expired") => panic!("{record}"),
            _ => {}
        }
    }
    assert_eq!((grants, held), (400, None));
    assert_eq!(directory.run(&["ledger", "verify"]).code, 0);
}

#[test]
fn the_same_agents_without_claims_lose_increments() {
    let directory = Directory::new();
    let output = directory.run_plan("contested-file-unguarded.json");
    assert_eq!(output.code, 0, "{output:?}");
    let counter = counter(&directory, "contested-file-unguarded");
    assert!(counter < 400, "nothing was lost, so nothing was shown");
}

#[test]
fn an_agent_that_outlives_its_lease_is_refused_and_its_write_never_lands() {
    let directory = Directory::new();
    let output = directory.run_plan("contested-file-outlived.json");
    assert_eq!(output.code, 3, "{output:?}");
    let notes = "contested/contested-file-outlived.txt";
    assert_eq!(directory.text(notes), "slow\nnext\n");
    let says = directory.text(&format!("{notes}.says"));
    assert!(
        says.starts_with("refused: ") && says.ends_with("exit 1\n"),
        "{says}"
    );
    let records = directory.records();
    let expired = records
        .iter()
        .find(|record| record["type"] == "claim.expired");
    assert_eq!(expired.expect("the lease ends")["stepId"], "a-slow");
}
