//! The real program running plans: what it prints, its exit codes, and what it leaves behind.
//!
//! Kills are in `kill`, wrong input is in `usage`, the ledger is in `ledger`, the library is in `host`.

use crate::program::{Directory, SHELL, is_alive, one_step, plan, root, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;

#[test]
fn repository_health_succeeds_and_a_second_run_starts_nothing_and_prints_the_same() {
    let directory = Directory::new();
    let first = directory.run_plan("repository-health.json");
    assert_eq!(first.code, 0, "{first:?}");
    let value = first.json();
    assert_eq!(value["terminal"], "success");
    assert_eq!(value["coordinationId"], "repository-health");
    let counts = json!({"total": 12, "completed": 11, "failed": 1, "timedOut": 0, "cancelled": 0, "skipped": 0});
    assert_eq!(value["steps"], counts);
    // In a pipe the progress is plain lines beside the result.
    for part in ["tools: started again, attempt 2", "report: completed"] {
        assert!(first.stderr.contains(part), "{part} in {first:?}");
    }
    assert!(!first.stderr.contains('\u{1b}'), "{first:?}");
    let lines = directory.lines();
    assert_eq!(value["headSeq"], lines.len());
    let records = directory.records();
    assert_eq!(
        records.last().map(|last| &last["hash"]),
        Some(&value["headHash"])
    );
    let retried: Vec<&Value> = records
        .iter()
        .filter(|record| record["type"] == "step.retry_scheduled")
        .map(|record| &record["stepId"])
        .collect();
    assert_eq!(retried, ["tools"]);

    let second = directory.run_plan("repository-health.json");
    assert_eq!((second.code, &second.stdout), (0, &first.stdout));
    assert_eq!(directory.lines(), lines);

    // For people: a table, and the path of the report.
    let people = directory.run(&["run", &plan("repository-health.json")]);
    assert_eq!(people.code, 0);
    let report = root().join("target/repository-health.md");
    let says = format!("report: {}", report.display());
    assert!(people.stdout.contains(&says), "{people:?}");
    let report = fs::read_to_string(report).expect("the report is there");
    for part in [
        "## commit activity",
        "## wit surface",
        "## languages fallback",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
    assert!(!report.contains("gave no result"), "{report}");
    assert_eq!(directory.lines(), lines);
}

#[test]
fn plans_that_fail_or_end_partial_say_so_with_their_exit_codes() {
    let directory = Directory::new();
    for (name, code, terminal, reason) in [
        ("ends-failed.json", 1, "failed", "fail_fast"),
        ("ends-partial.json", 3, "partial", "steps_failed"),
    ] {
        let first = directory.run_plan(name);
        assert_eq!(first.code, code, "{first:?}");
        assert_eq!(first.json()["terminal"], terminal);
        assert_eq!(first.json()["reason"], reason);
        let again = directory.run_plan(name);
        assert_eq!((again.code, again.stdout), (code, first.stdout));
    }
}

#[test]
fn rerun_is_a_new_coordination_under_the_next_free_id() {
    let directory = Directory::new();
    assert_eq!(directory.run_plan("ends-failed.json").code, 1);
    for number in 1..=2 {
        let again = directory.run(&["--json", "run", "--rerun", &plan("ends-failed.json")]);
        assert_eq!(again.code, 1, "{again:?}");
        let id = format!("ends-failed.rerun-{number}");
        assert_eq!(again.json()["coordinationId"], id.as_str());
        let status = directory.run(&["--json", "status", &id]).json();
        assert_eq!(status["coordinations"][0]["rerunOf"], "ends-failed");
    }
    let status = directory.run(&["--json", "status"]).json();
    assert_eq!(status["coordinations"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_second_process_cancels_while_a_third_looks_and_cleanup_still_runs() {
    let directory = Directory::new();
    let running = directory.begin(&["--json", "run", &plan("ends-cancelled.json")]);
    until("the step works", || {
        !directory.text("works-long.pid").is_empty()
    });

    let status = directory.run(&["--json", "status", "ends-cancelled"]);
    assert_eq!(status.code, 0, "{status:?}");
    let coordination = &status.json()["coordinations"][0];
    assert_eq!(coordination["state"], "open");
    let step = |step_id: &str| {
        let steps = coordination["steps"].as_array().expect("steps");
        let found = steps.iter().find(|step| step["stepId"] == step_id);
        found.unwrap_or_else(|| panic!("{step_id} in {coordination}"))
    };
    assert_eq!(step("works-long")["state"], "acknowledged");
    assert_eq!(step("works-long")["attempt"], 1);
    assert_eq!(step("after")["waitsFor"]["kind"], "dependencies");
    assert_eq!(step("after")["waitsFor"]["steps"], json!(["works-long"]));
    let people = directory.run(&["status", "ends-cancelled"]);
    assert!(people.stdout.contains("works-long"), "{people:?}");

    let cancel = directory.run(&["--json", "cancel", "ends-cancelled"]);
    assert_eq!(cancel.code, 0, "{cancel:?}");
    assert_eq!(cancel.json()["terminal"], "failed");
    assert_eq!(directory.processes(), Vec::<String>::new());
    let ended = running.wait();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(ended.json()["terminal"], "failed");
    assert_eq!(ended.json()["reason"], "cancelled");
    assert_eq!(directory.text("cleaned"), "cleaned\n");

    // Again: of a plan that has ended nothing changes.
    let lines = directory.lines();
    assert_eq!(
        directory.run_plan("ends-cancelled.json").stdout,
        ended.stdout
    );
    let again = directory.run(&["--json", "cancel", "ends-cancelled"]);
    assert_eq!((again.code, again.stdout), (0, cancel.stdout));
    assert_eq!(directory.lines(), lines);
}

#[test]
fn a_plan_that_nobody_runs_any_more_is_cancelled_all_the_same() {
    let directory = Directory::new();
    let running = directory.begin(&["run", &plan("ends-cancelled.json")]);
    until("the step works", || {
        !directory.text("works-long.pid").is_empty()
    });
    running.signal(Signal::KILL);
    running.wait();
    let cancel = directory.run(&["--json", "cancel", "ends-cancelled"]);
    assert_eq!(cancel.code, 0, "{cancel:?}");
    assert_eq!(cancel.json()["reason"], "cancelled");
    assert_eq!(directory.processes(), Vec::<String>::new());
    assert_eq!(directory.text("cleaned"), "cleaned\n");
    assert_eq!(directory.run_plan("ends-cancelled.json").code, 1);
}

#[test]
fn ctrl_c_ends_agents_with_their_children_and_the_next_run_resumes() {
    let directory = Directory::new();
    directory.write("qm2.toml", SHELL);
    // One child in the agent's group, one in a session of its own, one without the environment that marks it.
    let script = "if [ -e \"$QM2_DATA/go\" ]; then echo resumed; exit; fi
        sleep 300 & echo $! >>\"$QM2_DATA/pids\"
        setsid sleep 300 & echo $! >>\"$QM2_DATA/pids\"
        env -i setsid sleep 300 & echo $! >>\"$QM2_DATA/pids\"
        echo $$ >>\"$QM2_DATA/pids\"; wait";
    let plan = directory.write("plan.json", &one_step("interrupted", script));
    let running = directory.begin(&["--json", "run", &plan]);
    let pids = || -> Vec<u32> {
        let text = directory.text("pids");
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    until("the agent and its children work", || {
        pids().len() == 4 && pids().iter().all(|pid| is_alive(*pid))
    });
    running.signal(Signal::INT);
    let interrupted = running.wait();
    assert_eq!(interrupted.code, 130, "{interrupted:?}");
    assert_eq!(interrupted.error_code(), "interrupted");
    let living: Vec<u32> = pids().into_iter().filter(|pid| is_alive(*pid)).collect();
    assert_eq!(living, Vec::<u32>::new(), "after {interrupted:?}");
    let ends = ["step.failed", "step.completed", "coordination.terminal"];
    let records = directory.records();
    assert!(
        !records
            .iter()
            .any(|record| ends.iter().any(|end| record["type"] == *end)),
        "{records:?}"
    );

    fs::write(directory.data().join("go"), "").expect("the data directory is there");
    let resumed = directory.run(&["--json", "run", &plan]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    assert_eq!(resumed.json()["terminal"], "success");
    let records = directory.records();
    let retried = records
        .iter()
        .find(|record| record["type"] == "step.retry_scheduled");
    // It is not the step's fault, so it costs nothing.
    assert_eq!(
        retried.map(|record| &record["data"]["free"]),
        Some(&json!(true))
    );
}

#[test]
fn an_agent_that_does_not_listen_is_ended_too() {
    let directory = Directory::new();
    directory.write("qm2.toml", SHELL);
    let script = "trap '' TERM INT HUP; echo $$ >\"$QM2_DATA/pid\"; while :; do sleep 300; done";
    let plan = directory.write("plan.json", &one_step("deaf", script));
    let running = directory.begin(&["--json", "run", &plan]);
    until("the agent works", || !directory.text("pid").is_empty());
    running.signal(Signal::TERM);
    let interrupted = running.wait();
    assert_eq!(interrupted.code, 130, "{interrupted:?}");
    assert_eq!(directory.processes(), Vec::<String>::new());
}

#[test]
fn a_second_owner_is_refused_and_told_who_the_first_is() {
    let directory = Directory::new();
    let mut first = directory.begin(&["run", &plan("ends-cancelled.json")]);
    until("the step works", || {
        !directory.text("works-long.pid").is_empty()
    });
    let lines = directory.lines();
    let second = directory.run_plan("ends-failed.json");
    assert_eq!(second.code, 6, "{second:?}");
    assert_eq!(second.error_code(), "locked");
    let pid = format!("pid {}", first.pid());
    assert!(second.stdout.contains(&pid), "{pid} in {second:?}");
    assert!(first.is_running());
    assert_eq!(directory.lines(), lines);
    first.signal(Signal::INT);
    assert_eq!(first.wait().code, 130);
}

#[test]
fn a_coordination_whose_agents_file_is_gone_is_named_and_can_be_cancelled() {
    let directory = Directory::new();
    directory.write("gone.toml", SHELL);
    let agents = directory.folder().join("gone.toml").display().to_string();
    let script = "echo $$ >\"$QM2_DATA/pid\"; sleep 300";
    let plan_path = directory.write("plan.json", &one_step("unfinished", script));
    let running = directory.begin(&["run", &plan_path, "--agents", &agents]);
    until("the step works", || !directory.text("pid").is_empty());
    running.signal(Signal::INT);
    assert_eq!(running.wait().code, 130);
    fs::remove_file(&agents).expect("the agents file");
    // It would go on beside any other plan of the directory, so that is not started.
    let lines = directory.lines();
    let other = directory.run_plan("ends-failed.json");
    assert_eq!(
        (other.code, other.error_code().as_str()),
        (2, "invalid-agents")
    );
    for part in ["unfinished", "gone.toml", "qm2 cancel unfinished"] {
        assert!(other.stdout.contains(part), "{part} in {other:?}");
    }
    assert_eq!(directory.lines(), lines);
    let cancel = directory.run(&["--json", "cancel", "unfinished"]);
    assert_eq!(cancel.code, 0, "{cancel:?}");
    assert_eq!(cancel.json()["reason"], "cancelled");
    assert_eq!(directory.run_plan("ends-failed.json").code, 1);
}

#[test]
fn a_session_without_an_agent_fails_its_step_for_good_and_is_named() {
    let directory = Directory::new();
    directory.write("qm2.toml", SHELL);
    let text = json!({
        "coordinationId": "nobody", "objective": "One of two has no agent.", "ownerSession": "user:test",
        "steps": [
            {"stepId": "served", "targetSession": "agent:shell:a", "payload": "echo done", "timeoutMs": 60_000},
            {"stepId": "unserved", "targetSession": "agent:nobody:b", "timeoutMs": 60_000, "maxAttempts": 3},
        ],
        "failurePolicy": {"retryBudget": 3, "backoffMs": [10]},
    });
    let plan = directory.write("plan.json", &text.to_string());
    let check = directory.run(&["--json", "check", &plan]);
    assert_eq!(check.code, 0, "{check:?}");
    let warning = &check.json()["warnings"][0];
    assert_eq!(warning["code"], "unserved-session");
    assert_eq!(warning["stepId"], "unserved");

    let output = directory.run(&["--json", "run", &plan]);
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.stderr.contains("agent:nobody:b"), "{output:?}");
    let records = directory.records();
    let failed = records
        .iter()
        .find(|record| record["type"] == "step.failed");
    let failed = failed.expect("the step failed");
    assert_eq!(failed["stepId"], "unserved");
    assert_eq!(failed["attempt"], 1);
    assert_eq!(failed["data"]["class"], "permanent");
    let status = directory.run(&["--json", "status", "nobody"]).json();
    let step = &status["coordinations"][0]["steps"][1];
    assert_eq!(step["state"], "failed");
    let message = step["message"].as_str().unwrap_or_default();
    assert!(message.contains("agent:nobody:b"), "{message}");
}

#[test]
fn the_same_id_with_another_plan_is_refused() {
    let directory = Directory::new();
    directory.write("qm2.toml", SHELL);
    let plan = directory.write("plan.json", &one_step("c", "echo one"));
    assert_eq!(directory.run(&["--json", "run", &plan]).code, 0);
    let lines = directory.lines();
    let other = directory.write("other.json", &one_step("c", "echo two"));
    let output = directory.run(&["--json", "run", &other]);
    assert_eq!(
        (output.code, output.error_code().as_str()),
        (1, "plan-conflict")
    );
    assert_eq!(directory.lines(), lines);
}
