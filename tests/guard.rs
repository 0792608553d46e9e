//! The guard and the claims of running steps: `qm2 guard`, `claim`, `renew`, `release`, guarded commands that end with their
//! grants. With the real program; the library's part at the end.
//!
//! Who gets what is tested in `rules`.

use crate::program::{Directory, Output, Running, is_alive, until};
use qm2_core::claim::{ClaimRequest, Mode};
use qm2_core::config::Config;
use qm2_core::message::Caller;
use qm2_host::agent::{Report, Task};
use qm2_host::clock::ManualClock;
use qm2_host::engine::{Answer, Call};
use qm2_host::guard::{GuardRequest, Guarded};
use qm2_host::{Domain, HostError};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// An agent that works until the test lets its step go, or is over.
const HOLD: &str =
    "until [ -e \"$QM2_DATA/go-$QM2_STEP_ID\" ] || [ ! -d \"$QM2_DATA\" ]; do sleep 0.05; done";
/// A command that starts a child, one that hears no signal, and one that leaves the group, says their ids, and stays.
const STAY: &str = "echo $$ >\"$1\"; sleep 300 & echo $! >>\"$1\"; (trap '' TERM; exec sleep 300) & echo $! >>\"$1\"
    setsid sleep 300 & echo $! >>\"$1\"; echo ready >>\"$1\"; wait";
/// A lease that ends within no test.
const LONG_MS: &str = "600000";

/// A run of a plan whose steps wait; each session is `agent:shell:` and the step's id.
struct Steps {
    directory: Directory,
    run: Running,
}

impl Steps {
    /// Starts steps with these claims, and waits until all of them run.
    fn start(steps: &[(&str, Value)]) -> Self {
        let steps: Vec<_> = steps
            .iter()
            .map(|(id, claims)| (*id, claims.clone(), HOLD))
            .collect();
        Self::launch(&steps, steps.len())
    }

    /// Starts steps with these claims and scripts, and waits until so many of them run.
    fn launch(steps: &[(&str, Value, &str)], running: usize) -> Self {
        let directory = Directory::new();
        let steps: Vec<Value> = steps
            .iter()
            .map(|(step_id, claims, script)| {
                json!({
                    "stepId": step_id, "targetSession": session(step_id), "payload": script, "timeoutMs": 600_000,
                    "claims": claims,
                })
            })
            .collect();
        let plan = json!({
            "coordinationId": "c", "objective": "A test.", "ownerSession": "user:test", "steps": steps,
        });
        let plan = directory.write("plan.json", &plan.to_string());
        let agents = directory.write("agents.toml", crate::program::SHELL);
        let run = directory.begin(&["--json", "run", &plan, "--agents", &agents]);
        let this = Self { directory, run };
        until("the steps run", || {
            this.records("step.acknowledged").len() == running
        });
        this
    }

    /// A step without claims.
    fn one() -> Self {
        Self::start(&[("a", json!([]))])
    }

    fn records(&self, type_name: &str) -> Vec<Value> {
        let records = self.directory.records().into_iter();
        records
            .filter(|record| record["type"] == type_name)
            .collect()
    }

    /// A command of a step's own process.
    fn of_step(&self, step_id: &str, arguments: &[&str]) -> Command {
        let mut command = self.directory.command(arguments);
        command
            .env("QM2_COORDINATION_ID", "c")
            .env("QM2_STEP_ID", step_id)
            .env("QM2_ATTEMPT", "1")
            .env("QM2_SESSION", session(step_id));
        command
    }

    fn run_of_step(&self, step_id: &str, arguments: &[&str]) -> Output {
        self.of_step(step_id, arguments)
            .output()
            .expect("the program starts")
            .into()
    }

    /// Claims a resource, and gives the token as the program printed it.
    fn claim(&self, step_id: &str, resource: &str, more: &[&str]) -> String {
        let arguments = [&["claim", resource, "--lease-ms", LONG_MS], more].concat();
        let output = self.run_of_step(step_id, &arguments);
        assert_eq!(output.code, 0, "{output:?}");
        let token = output.stdout.trim().to_owned();
        assert!(token.parse::<u64>().is_ok(), "{output:?}");
        token
    }

    /// Asks the guard, as anybody; the answer must agree with the exit code and say something.
    fn guard(&self, arguments: &[&str]) -> (bool, String) {
        let output = self
            .directory
            .run(&[&["--json", "guard"], arguments].concat());
        let (allowed, reason) = (
            output.json()["allowed"].clone(),
            output.json()["reason"].clone(),
        );
        let allowed = allowed.as_bool().unwrap_or_else(|| panic!("{output:?}"));
        assert_eq!(output.code, i32::from(!allowed), "{output:?}");
        let reason = reason.as_str().unwrap_or_default().to_owned();
        assert!(reason.len() > 10, "{output:?}");
        (allowed, reason)
    }

    /// Starts a guarded command that stays, and waits until it and its children run; gives their ids.
    fn begin_guarded(&self, resource: &str, session: &str, token: &str) -> (Running, Vec<u32>) {
        let pids = self.directory.folder().join(format!("pids-{token}"));
        let _ = fs::remove_file(&pids);
        let path = pids.display().to_string();
        let guard = ["guard", resource, "--session", session, "--token", token];
        let arguments = [&guard[..], &["--", "sh", "-c", STAY, "sh", &path]].concat();
        let running = self.directory.begin(&arguments);
        let text = || fs::read_to_string(&pids).unwrap_or_default();
        until("the guarded command runs", || text().contains("ready"));
        let pids: Vec<u32> = text()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect();
        assert_eq!(pids.len(), 4);
        assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
        (running, pids)
    }

    /// Lets a step complete.
    fn go(&self, step_id: &str) {
        fs::write(self.directory.data().join(format!("go-{step_id}")), "").expect("a file");
    }
}

fn session(step_id: &str) -> String {
    format!("agent:shell:{step_id}")
}

fn any_alive(pids: &[u32]) -> bool {
    pids.iter().any(|pid| is_alive(*pid))
}

fn exclusive(resource: &str) -> Value {
    json!({"resource": resource, "mode": "exclusive", "leaseMs": 600_000})
}

// ---- the guard's answers ----

#[test]
fn the_guard_says_no_for_every_cause_and_yes_only_for_a_live_grant() {
    let claims = json!([
        exclusive("file:src"),
        {"resource": "file:read", "mode": "shared", "leaseMs": 600_000},
        {"resource": "file:part", "mode": "exclusive", "leaseMs": 600_000, "baseVersion": "v7",
         "regions": [{"start": 10, "end": 20}, {"start": 20, "end": 25}]},
    ]);
    let steps = Steps::start(&[("a", claims), ("b", json!([exclusive("file:other")]))]);
    let token = |resource: &str| {
        let granted = steps.records("claim.granted");
        let granted = granted
            .iter()
            .find(|record| record["data"]["resource"] == resource);
        granted.expect("a grant")["seq"].to_string()
    };
    let (src, read, part, other) = (
        token("file:src"),
        token("file:read"),
        token("file:part"),
        token("file:other"),
    );
    let (a, b) = (session("a"), session("b"));
    let cases: [(&str, &str, &str, &[&str], bool); 23] = [
        ("file:src", &a, &src, &[], true),
        ("file:src", &a, &src, &["--mode", "read"], true),
        // Within the granted resource, in another spelling; beside it; around it; of another kind.
        ("file:src//lib/./a.rs", &a, &src, &[], true),
        ("file:src2", &a, &src, &[], false),
        ("file:", &a, &src, &[], false),
        ("queue:src", &a, &src, &[], false),
        // Another session, another's token, one that was never given, one of another type of record.
        ("file:src", &b, &src, &[], false),
        ("file:src", &a, &other, &[], false),
        ("file:src", &a, "999999", &[], false),
        ("file:src", &a, "1", &[], false),
        // Shared is for reading.
        ("file:read", &a, &read, &["--mode", "read"], true),
        ("file:read", &a, &read, &[], false),
        // Regions: within one, over two that touch, past the end, all of it.
        ("file:part", &a, &part, &["--region", "10..20"], true),
        ("file:part", &a, &part, &["--region", "12..25"], true),
        (
            "file:part",
            &a,
            &part,
            &["--region", "11..12", "--region", "24..25"],
            true,
        ),
        ("file:part", &a, &part, &["--region", "12..26"], false),
        (
            "file:part",
            &a,
            &part,
            &["--region", "11..12", "--region", "30..31"],
            false,
        ),
        ("file:part", &a, &part, &[], false),
        ("file:src", &a, &src, &["--region", "5..9"], true),
        // The version that the grant was for, and another; of a grant that has none.
        (
            "file:part",
            &a,
            &part,
            &["--region", "10..20", "--base-version", "v7"],
            true,
        ),
        (
            "file:part",
            &a,
            &part,
            &["--region", "10..20", "--base-version", "v8"],
            false,
        ),
        ("file:src", &a, &src, &["--base-version", "v7"], false),
        ("file:other", &b, &other, &[], true),
    ];
    let records = steps.directory.lines();
    for (resource, session, token, more, allowed) in cases {
        let arguments = [&[resource, "--session", session, "--token", token], more].concat();
        let (found, reason) = steps.guard(&arguments);
        assert_eq!(found, allowed, "{arguments:?}: {reason}");
    }
    assert_eq!(steps.directory.lines(), records, "asking records nothing");

    // For people: a yes on stdout, a no on stderr.
    let ask = |resource: &str| {
        steps
            .directory
            .run(&["guard", resource, "--session", &a, "--token", &src])
    };
    let (yes, no) = (ask("file:src"), ask("file:read"));
    assert!(
        yes.stdout.starts_with("allowed: ") && yes.stderr.is_empty(),
        "{yes:?}"
    );
    assert!(
        no.stderr.starts_with("refused: ") && no.stdout.is_empty(),
        "{no:?}"
    );

    // Released, and after the end of the attempt.
    let taken = steps.claim("a", "file:extra", &[]);
    let extra = ["file:extra", "--session", &a, "--token", &taken];
    assert!(steps.guard(&extra).0);
    assert_eq!(steps.run_of_step("a", &["release", "file:extra"]).code, 0);
    assert!(!steps.guard(&extra).0);
    steps.go("a");
    until("the step ends", || {
        !steps.records("step.completed").is_empty()
    });
    assert!(
        !steps
            .guard(&["file:src", "--session", &a, "--token", &src])
            .0
    );
    assert!(
        steps
            .guard(&["file:other", "--session", &b, "--token", &other])
            .0
    );

    // No process runs the data directory.
    steps.go("b");
    let Steps { directory, run } = steps;
    assert_eq!(run.wait().code, 0);
    let output = directory.run(&[
        "--json",
        "guard",
        "file:other",
        "--session",
        &b,
        "--token",
        &other,
    ]);
    assert_eq!(
        (output.code, &output.json()["allowed"]),
        (1, &json!(false)),
        "{output:?}"
    );
    assert!(output.stdout.contains("no process runs"), "{output:?}");
}

#[test]
fn a_step_finds_its_session_and_tokens_in_its_environment() {
    let directory = Directory::new();
    let script = "echo \"$QM2_TOKENS\"; \"$QM2_BIN\" guard file:src/deep/a.rs -- echo written || exit 64
        \"$QM2_BIN\" guard file:src2 && exit 64; \"$QM2_BIN\" guard file:src/deep -- sh -c 'exit 7'; echo $?";
    let plan = json!({
        "coordinationId": "c", "objective": "A step with claims.", "ownerSession": "user:test",
        "steps": [
            {"stepId": "a", "targetSession": "agent:shell:a", "payload": script, "timeoutMs": 60_000,
             "claims": [{"resource": "file:src", "mode": "shared", "leaseMs": 60_000}, exclusive("file:src/deep")]},
            {"stepId": "b", "targetSession": "agent:shell:b", "payload": "echo \"$QM2_TOKENS\"", "timeoutMs": 60_000},
        ],
    });
    let plan = directory.write("plan.json", &plan.to_string());
    let agents = directory.write("agents.toml", crate::program::SHELL);
    let output = directory.run(&["--json", "run", &plan, "--agents", &agents]);
    assert_eq!(output.code, 0, "{output:?}");
    let records = directory.records();
    let of = |type_name: &str, step_id: &str| {
        let mut records = records.iter();
        let record = records.find(|one| one["type"] == type_name && one["stepId"] == step_id);
        record.unwrap_or_else(|| panic!("{type_name} of {step_id}"))["data"].clone()
    };
    let tokens = of("step.dispatched", "a")["tokens"].clone();
    let tokens = tokens.as_array().expect("tokens").iter();
    let tokens: serde_json::Map<_, _> = tokens
        .map(|token| {
            (
                token["resource"].as_str().unwrap_or_default().to_owned(),
                token["token"].clone(),
            )
        })
        .collect();
    assert_eq!(tokens.len(), 2);
    let payload = of("step.completed", "a")["payload"].clone();
    let lines: Vec<&str> = payload.as_str().unwrap_or_default().lines().collect();
    let given: Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!(given, Value::Object(tokens));
    // The token of the smallest resource that contains it; the exit code of the command.
    assert_eq!(lines[1..], ["written", "7"]);
    assert_eq!(of("step.completed", "b")["payload"], "{}\n");
}

#[test]
fn wrong_arguments_and_missing_variables_are_usage_errors_that_say_what_to_do() {
    let directory = Directory::new();
    for (arguments, part) in [
        (&["guard", "file:a"][..], "--session"),
        (&["guard", "file:a", "--session", "s"], "--token"),
        (
            &["guard", "nonsense", "--session", "s", "--token", "1"],
            "kind:path",
        ),
        (
            &["guard", "file:../a", "--session", "s", "--token", "1"],
            "'..'",
        ),
        (
            &[
                "guard",
                "file:a",
                "--session",
                "s",
                "--token",
                "1",
                "--region",
                "9..3",
            ],
            "START..END",
        ),
        (&["claim", "file:a"], "QM2_ATTEMPT"),
        (&["renew"], "QM2_ATTEMPT"),
        (&["release", "--all"], "QM2_ATTEMPT"),
        (&["release"], "RESOURCES"),
    ] {
        let output = directory.run(arguments);
        assert_eq!(output.code, 2, "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(part), "{part} in {output:?}");
    }
    assert!(!directory.data().exists());
}

// ---- claims of a step's own process ----

#[test]
fn two_claims_compete_and_the_loser_is_told_who_holds_it() {
    let steps = Steps::start(&[("a", json!([])), ("b", json!([]))]);
    let token = steps.claim("a", "file:notes", &[]);
    // Again is the same grant, in any spelling, and records nothing.
    let lines = steps.directory.lines();
    assert_eq!(steps.claim("a", "file:./notes", &[]), token);
    let refused = steps.run_of_step("b", &["--json", "claim", "file:notes/deep"]);
    assert_eq!(
        (refused.code, refused.error_code().as_str()),
        (1, "claim-refused"),
        "{refused:?}"
    );
    let message = refused.json()["error"]["message"].clone();
    assert!(
        message.as_str().unwrap_or_default().contains(&session("a")),
        "{message}"
    );
    assert_eq!(
        steps.directory.lines(),
        lines,
        "a refused claim records nothing"
    );

    // Who waits gets it when it is given back, with a larger token.
    let waiting = steps
        .of_step("b", &["--json", "claim", "file:notes", "--wait", "100"])
        .spawn()
        .expect("the program starts");
    assert_eq!(steps.run_of_step("a", &["release", "file:notes"]).code, 0);
    let granted: Output = waiting
        .wait_with_output()
        .expect("it was started here")
        .into();
    assert_eq!(granted.code, 0, "{granted:?}");
    assert!(
        granted.json()["token"].as_u64() > token.parse().ok(),
        "{granted:?}"
    );
    assert!(granted.json()["expiresMs"].is_u64() && granted.json()["resource"] == "file:notes");

    // What is not held is not given back, and nobody gives back what another holds.
    let output = steps.run_of_step("a", &["--json", "release", "file:notes"]);
    assert_eq!((output.code, output.error_code().as_str()), (1, "not-held"));
    // Several at once, and shared ones beside each other.
    steps.claim("a", "file:x", &["--mode", "shared"]);
    steps.claim("b", "file:x", &["--mode", "shared"]);
    steps.claim("a", "file:y", &["--region", "0..9", "--base-version", "v1"]);
    let output = steps.run_of_step("a", &["--json", "release", "--all"]);
    assert_eq!(
        output.json()["released"].as_array().map(Vec::len),
        Some(2),
        "{output:?}"
    );
    steps.claim("b", "file:y", &[]);
    steps.go("a");
    steps.go("b");
    let Steps { directory, run } = steps;
    assert_eq!(run.wait().code, 0);

    // Nobody runs the directory any more.
    let mut command = directory.command(&["claim", "file:z"]);
    for (name, value) in [
        ("COORDINATION_ID", "c"),
        ("STEP_ID", "a"),
        ("ATTEMPT", "1"),
        ("SESSION", "s"),
    ] {
        command.env(format!("QM2_{name}"), value);
    }
    let output: Output = command.output().expect("the program starts").into();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("no process runs"), "{output:?}");
}

#[test]
fn renew_moves_the_expiry() {
    let steps = Steps::one();
    let token = steps.claim("a", "file:notes", &[]);
    steps.claim("a", "file:more", &[]);
    let expires = || {
        let (a, arguments) = (session("a"), ["--json", "guard", "file:notes"]);
        let arguments = [&arguments[..], &["--session", &a, "--token", &token]].concat();
        steps.directory.run(&arguments).json()["expiresMs"]
            .as_u64()
            .expect("a time")
    };
    let before = expires();
    let renewed = steps.run_of_step("a", &["--json", "renew", "file:notes"]);
    assert_eq!(
        renewed.json()["renewed"].as_array().map(Vec::len),
        Some(1),
        "{renewed:?}"
    );
    assert!(expires() > before);
    let renewed = steps.run_of_step("a", &["--json", "renew"]);
    assert_eq!(
        renewed.json()["renewed"].as_array().map(Vec::len),
        Some(2),
        "{renewed:?}"
    );
    assert_eq!(steps.run_of_step("a", &["renew", "file:nothing"]).code, 1);
}

// ---- guarded commands ----

#[test]
fn a_guarded_command_ends_with_its_lease_before_anybody_else_is_granted_the_resource() {
    let steps = Steps::start(&[("a", json!([])), ("b", json!([]))]);
    let token = steps.claim("a", "file:notes", &[]);
    let (guard, pids) = steps.begin_guarded("file:notes", &session("a"), &token);
    // The other waits already when the lease is cut short by a second claim's: the attempt ends with any of its leases.
    let waiting = steps
        .of_step("b", &["claim", "file:notes", "--wait", "100"])
        .spawn()
        .expect("the program starts");
    let output = steps.run_of_step("a", &["claim", "file:short", "--lease-ms", "200"]);
    assert_eq!(output.code, 0, "{output:?}");
    let granted: Output = waiting
        .wait_with_output()
        .expect("it was started here")
        .into();
    // No waiting: the command was gone before the other was answered.
    assert!(!any_alive(&pids), "the command outlives its grant");
    assert_eq!(granted.code, 0, "{granted:?}");
    let output = guard.wait();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.starts_with("ended: "), "{output:?}");
    assert_eq!(steps.records("claim.expired").len(), 1);

    // A lease of its own that ends is told as such.
    let output = steps.run_of_step("b", &["claim", "file:own", "--lease-ms", "2000"]);
    let (guard, pids) = steps.begin_guarded("file:own", &session("b"), output.stdout.trim());
    let output = guard.wait();
    assert!(!any_alive(&pids));
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.stderr.contains("file:own") && output.stderr.contains("expired"),
        "{output:?}"
    );
}

#[test]
fn the_next_step_starts_only_when_the_command_is_gone() {
    // What the command writes grows until it is killed; the next step looks twice.
    let look = "f=\"${QM2_DATA%/*}/ticks\"; one=$(wc -c <\"$f\"); sleep 0.5; two=$(wc -c <\"$f\")
        [ \"$one\" = \"$two\" ] || exit 64";
    let tick = "trap '' TERM; while :; do echo tick >>\"$1\"; sleep 0.02; done";
    let claims = json!([exclusive("file:notes")]);
    let steps = Steps::launch(&[("a", claims.clone(), HOLD), ("b", claims, look)], 1);
    let token = steps.records("claim.granted")[0]["seq"].to_string();
    let ticks = steps.directory.folder().join("ticks");
    let (a, path) = (session("a"), ticks.display().to_string());
    let guard = ["guard", "file:notes", "--session", &a, "--token", &token];
    let arguments = [&guard[..], &["--", "sh", "-c", tick, "sh", &path]].concat();
    let guard = steps.directory.begin(&arguments);
    until("the guarded command writes", || ticks.exists());
    assert_eq!(steps.run_of_step("a", &["release", "file:notes"]).code, 0);
    assert_eq!(guard.wait().code, 1);
    steps.go("a");
    let Steps { directory, run } = steps;
    let output = run.wait();
    assert_eq!(output.code, 0, "{output:?} {:?}", directory.records());
}

#[test]
fn a_guarded_command_ends_with_a_release_and_with_the_attempt() {
    let steps = Steps::start(&[("a", json!([exclusive("file:a")])), ("b", json!([]))]);
    let token = steps.claim("b", "file:notes", &[]);
    let (guard, pids) = steps.begin_guarded("file:notes", &session("b"), &token);
    assert_eq!(steps.run_of_step("b", &["release", "file:notes"]).code, 0);
    assert!(!any_alive(&pids), "the command outlives its grant");
    let output = guard.wait();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("given back"), "{output:?}");

    // The attempt's own report.
    let token = steps.records("claim.granted")[0]["seq"].to_string();
    let (guard, pids) = steps.begin_guarded("file:a", &session("a"), &token);
    steps.go("a");
    until("the step ends", || {
        !steps.records("step.completed").is_empty()
    });
    assert!(!any_alive(&pids), "the command outlives its attempt");
    assert_eq!(guard.wait().code, 1);

    // A cancel.
    let token = steps.claim("b", "file:notes", &[]);
    let (guard, pids) = steps.begin_guarded("file:notes", &session("b"), &token);
    assert_eq!(steps.directory.run(&["cancel", "c"]).code, 0);
    assert!(!any_alive(&pids), "the command outlives its attempt");
    assert_eq!(guard.wait().code, 1);
}

#[test]
fn a_guarded_command_ends_when_the_process_that_runs_the_directory_is_killed() {
    let steps = Steps::one();
    let token = steps.claim("a", "file:notes", &[]);
    let (guard, pids) = steps.begin_guarded("file:notes", &session("a"), &token);
    steps.run.signal(Signal::KILL);
    let output = guard.wait();
    assert!(!any_alive(&pids));
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("is gone"), "{output:?}");
}

#[test]
fn a_command_whose_guard_is_killed_is_ended_by_the_domain() {
    let steps = Steps::one();
    let token = steps.claim("a", "file:notes", &[]);
    let (guard, pids) = steps.begin_guarded("file:notes", &session("a"), &token);
    guard.signal(Signal::KILL);
    until("the command is ended", || !any_alive(&pids));
    // The domain waits for it also where the end of the grant comes at the same time.
    let (guard, pids) = steps.begin_guarded("file:notes", &session("a"), &token);
    guard.signal(Signal::KILL);
    assert_eq!(steps.run_of_step("a", &["release", "file:notes"]).code, 0);
    assert!(!any_alive(&pids));
}

#[test]
fn a_guard_that_stands_still_holds_up_nobody_for_ever() {
    let steps = Steps::one();
    let token = steps.claim("a", "file:notes", &[]);
    let (guard, pids) = steps.begin_guarded("file:notes", &session("a"), &token);
    guard.signal(Signal::STOP);
    assert_eq!(steps.run_of_step("a", &["release", "file:notes"]).code, 0);
    assert!(!any_alive(&pids));
    assert_eq!(guard.wait().code, -1, "it was killed");
}

#[test]
fn a_guarded_command_ends_when_its_guard_is_interrupted() {
    let steps = Steps::one();
    let token = steps.claim("a", "file:notes", &[]);
    let (guard, pids) = steps.begin_guarded("file:notes", &session("a"), &token);
    guard.signal(Signal::TERM);
    let output = guard.wait();
    assert!(!any_alive(&pids));
    assert_eq!(output.code, 130, "{output:?}");
}

#[test]
fn a_guarded_command_that_ends_by_itself_keeps_its_streams_and_its_code() {
    let steps = Steps::one();
    let (a, token) = (session("a"), steps.claim("a", "file:notes", &[]));
    let guard = |json: &[&str], script: &str| {
        let guard = [
            "guard",
            "file:notes",
            "--session",
            &a,
            "--token",
            &token,
            "--",
            "sh",
            "-c",
            script,
        ];
        steps.directory.run(&[json, &guard].concat())
    };
    let output = guard(&[], "echo out; echo err >&2; exit 42");
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (42, "out\n", "err\n")
    );
    assert_eq!(guard(&[], "kill -9 $$").code, 128 + 9);
    let output = guard(&["--json"], "echo out");
    assert_eq!(
        (output.code, &output.json()["allowed"]),
        (0, &json!(true)),
        "{output:?}"
    );
    assert_eq!(output.stderr, "out\n");
    // What it leaves behind would write under no grant.
    let left = steps.directory.folder().join("left");
    let script = format!(
        "sleep 300 >/dev/null & echo $! >{0}; setsid sleep 300 >/dev/null & echo $! >>{0}",
        left.display()
    );
    assert_eq!(guard(&[], &script).code, 0);
    let pids: Vec<u32> = fs::read_to_string(left)
        .expect("a file")
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    assert!(pids.len() == 2 && !any_alive(&pids), "{pids:?}");
    let missing = [
        "guard",
        "file:notes",
        "--session",
        &a,
        "--token",
        &token,
        "--",
        "qm2-no-such-program",
    ];
    let output = steps.directory.run(&missing);
    assert_eq!(output.code, 127, "{output:?}");
    // A refused one never starts.
    let refused = [
        "guard",
        "file:b",
        "--session",
        &a,
        "--token",
        &token,
        "--",
        "touch",
        "never",
    ];
    let mut command = steps.directory.command(&refused);
    let output: Output = command
        .current_dir(steps.directory.folder())
        .output()
        .expect("the program starts")
        .into();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(!steps.directory.folder().join("never").exists());
}

// ---- the library ----

fn write(path: &Path, script: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", script, "sh"]).arg(path);
    command
}

fn caller(step_id: &str) -> Caller {
    Caller {
        session: session(step_id),
        role: None,
    }
}

async fn claim(domain: &Domain, step_id: &str, lease_ms: u64) -> u64 {
    let caller = caller(step_id);
    let request = ClaimRequest {
        coordination_id: "c".into(),
        step_id: step_id.into(),
        attempt: 1,
        resource: "file:notes".into(),
        mode: Mode::Exclusive,
        lease_ms,
        base_version: None,
        regions: Vec::new(),
    };
    let call = Call::Claim {
        caller,
        now_ms: 0,
        request,
    };
    match domain.call(call).await {
        Ok(Answer::Claim(Ok(grant))) => grant.token,
        other => panic!("{other:?}"),
    }
}

/// A domain with one running step `a`, on a clock that the test moves.
async fn one_step(directory: &Directory, clock: ManualClock) -> Domain {
    let mut config = Config::new("test");
    config.phase1.enabled = true;
    let agent = async |task: Task| {
        task.cancelled().await;
        Report::completed("cancelled")
    };
    let builder = Domain::builder(directory.data())
        .config(config)
        .clock(clock)
        .agent("agent:*", agent);
    let domain = builder.open().await.expect("the domain opens");
    let plan = json!({
        "coordinationId": "c", "objective": "A step that waits.", "ownerSession": "user:test",
        "steps": [{"stepId": "a", "targetSession": session("a"), "timeoutMs": 600_000}],
    });
    domain
        .submit_plan(&plan.to_string())
        .await
        .expect("a call")
        .expect("a plan");
    while !directory
        .records()
        .iter()
        .any(|record| record["type"] == "step.acknowledged")
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    domain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_runs_commands_under_grants_of_its_own_domain() {
    let directory = Directory::new();
    let clock = ManualClock::at(1_000_000);
    let domain = one_step(&directory, clock.clone()).await;
    let token = claim(&domain, "a", 60_000).await;
    let request = GuardRequest::write("file:notes", &session("a"), token);
    let verdict = domain.check(&request).await.expect("a call");
    assert!(
        verdict.allowed && verdict.expires_ms == Some(1_060_000),
        "{verdict:?}"
    );

    let path: PathBuf = directory.folder().join("notes");
    let done = domain
        .guarded(&request, write(&path, "echo 1 >\"$1\""))
        .await
        .expect("it starts");
    assert!(matches!(done, Guarded::Finished(status) if status.success()));
    let other = GuardRequest::write("file:other", &session("a"), token);
    let done = domain
        .guarded(&other, write(&path, "echo 2 >\"$1\""))
        .await
        .expect("a call");
    assert!(matches!(done, Guarded::Refused(verdict) if !verdict.allowed));
    assert_eq!(fs::read_to_string(&path).expect("the file"), "1\n");

    // Up to the lease's end and not past it: what the command wrote is there before the record of the end is.
    let running = tokio::spawn({
        let (domain, path) = (domain.clone(), path.clone());
        async move {
            let script = "trap 'echo gone >>\"$1\"; exit' TERM; echo begun >>\"$1\"; while :; do sleep 0.05; done";
            domain.guarded(&request, write(&path, script)).await
        }
    });
    let text = || fs::read_to_string(&path).unwrap_or_default();
    while !text().contains("begun") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut lines = domain.subscribe();
    // A renewed lease moves the end.
    clock.forward(50_000);
    let renewed = domain.call(Call::Renew {
        caller: caller("a"),
        now_ms: 0,
        coordination_id: "c".into(),
        step_id: "a".into(),
        attempt: 1,
        tokens: vec![token],
    });
    let renewed = renewed.await.expect("a call");
    assert!(matches!(&renewed, Answer::Renew(Ok(grants)) if grants[0].expires_ms == 1_110_000));
    clock.forward(59_999);
    let verdict = domain
        .check(&GuardRequest::write("file:notes", &session("a"), token))
        .await;
    assert!(verdict.expect("a call").allowed);
    clock.forward(1);
    loop {
        let line = lines.recv().await.expect("a record");
        if line.contains("\"claim.expired\"") {
            break;
        }
    }
    assert!(text().ends_with("gone\n"), "{}", text());
    assert!(
        matches!(running.await.expect("a task"), Ok(Guarded::Stopped(why)) if why.contains("expired"))
    );
    let verdict = domain
        .check(&GuardRequest::write("file:notes", &session("a"), token))
        .await;
    assert!(!verdict.expect("a call").allowed);
    domain.close().await;
    let verdict = domain
        .check(&GuardRequest::write("file:notes", &session("a"), token))
        .await;
    assert!(matches!(verdict, Err(HostError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_domain_ends_guarded_commands() {
    let directory = Directory::new();
    let domain = one_step(&directory, ManualClock::at(1_000_000)).await;
    let token = claim(&domain, "a", 60_000).await;
    let request = GuardRequest::write("file:notes", &session("a"), token);
    let path = directory.folder().join("pids");
    let running = tokio::spawn({
        let (domain, path) = (domain.clone(), path.clone());
        async move { domain.guarded(&request, write(&path, STAY)).await }
    });
    let text = || fs::read_to_string(&path).unwrap_or_default();
    while !text().contains("ready") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    domain.close().await;
    let pids: Vec<u32> = text()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    assert!(pids.len() == 4 && !any_alive(&pids), "{pids:?}");
    assert!(matches!(
        running.await.expect("a task"),
        Ok(Guarded::Stopped(_))
    ));
}
