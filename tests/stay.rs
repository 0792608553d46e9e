//! Agents that stay: real processes that take one dispatch after another over stdin and stdout.
//!
//! What they are told to do is in `stay/agent.py`.

use crate::program::{Directory, is_alive, root, until};
use crate::support::{caller_as, plan, step};
use qm2_core::config::Config;
use qm2_core::message::{HumanVerdict, Role};
use qm2_host::agent::AgentTable;
use qm2_host::engine::Call;
use qm2_host::owner::cancel_envelope;
use qm2_host::{Domain, Ended};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long something that must happen may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

fn command() -> Vec<String> {
    let agent = root().join("tests/stay/agent.py");
    vec!["python3".into(), agent.display().to_string()]
}

async fn open(directory: &Directory, processes: u32) -> Domain {
    let mut config = Config::new("stay");
    config.phase1.enabled = true;
    let builder = Domain::builder(directory.data()).config(config);
    let builder = builder.staying_agent("agent:*", command(), directory.folder(), processes);
    builder.open().await.expect("the domain opens")
}

/// Steps with these payloads, one after another or all at once.
fn steps(payloads: &[&str], in_a_row: bool) -> crate::support::Json {
    let steps = payloads.iter().enumerate().map(|(at, payload)| {
        let one = step(&format!("s{at}"))
            .set("payload", *payload)
            .set("timeoutMs", 600_000);
        match at.checked_sub(1).filter(|_| in_a_row) {
            Some(before) => one.after(&format!("s{before}")),
            None => one,
        }
    });
    plan(steps.collect::<Vec<_>>())
}

async fn run(domain: &Domain, plan: &str) -> Ended {
    let ended = timeout(PATIENCE, domain.run(plan)).await;
    ended.expect("it ends").expect("it runs")
}

async fn records(domain: &Domain) -> Vec<Value> {
    let read = domain.with_store(|store| store.lines(0, usize::MAX >> 1));
    let lines = read.await.expect("the ledger is read");
    let parse = |line: &String| serde_json::from_str(line).expect("a record");
    lines.iter().map(parse).collect()
}

/// A member of the data of all records of a type.
fn all(records: &[Value], type_name: &str, member: &str) -> Vec<String> {
    let of_type = records.iter().filter(|record| record["type"] == type_name);
    of_type
        .map(|record| match &record["data"][member] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect()
}

fn pids(file: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace()
        .map(|pid| pid.parse().expect("a process id"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_takes_one_dispatch_after_another_and_ends_with_the_domain() {
    let directory = Directory::new();
    let domain = open(&directory, 1).await;
    let ended = run(&domain, &steps(&["pid"; 5], false).text()).await;
    assert_eq!(ended.terminal, "success");
    let records = records(&domain).await;
    let said: BTreeSet<String> = all(&records, "step.completed", "payload")
        .into_iter()
        .collect();
    let pid: Vec<u32> = said.iter().map(|pid| pid.parse().expect("a pid")).collect();
    assert_eq!(pid.len(), 1, "{said:?}");
    assert_eq!(all(&records, "step.progress", "payload"), ["half way"; 5]);
    assert_eq!(all(&records, "step.acknowledged", "sourceSession").len(), 5);
    assert!(is_alive(pid[0]));
    timeout(PATIENCE, domain.close()).await.expect("it closes");
    assert!(!is_alive(pid[0]), "nothing stays behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_processes_than_are_to_stay_work_at_once() {
    let directory = Directory::new();
    let domain = open(&directory, 2).await;
    let ended = run(&domain, &steps(&["pid"; 12], false).text()).await;
    assert_eq!(ended.terminal, "success");
    let records = records(&domain).await;
    let said: BTreeSet<String> = all(&records, "step.completed", "payload")
        .into_iter()
        .collect();
    assert!((1..=2).contains(&said.len()), "{said:?}");
    timeout(PATIENCE, domain.close()).await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_claims_renews_releases_and_asks() {
    let directory = Directory::new();
    let domain = open(&directory, 1).await;
    let ended = run(&domain, &steps(&["claims file:notes.md"], false).text()).await;
    let said = all(&records(&domain).await, "step.completed", "payload");
    assert_eq!(ended.terminal, "success", "{:?}", records(&domain).await);
    let said: Value = serde_json::from_str(&said[0]).expect("JSON");
    let due = json!({"same": true, "freed": "accepted", "bad": "invalid-field"});
    assert_eq!(said, due);

    let asks = steps(&["asks which one?"], false)
        .hitl()
        .set("coordinationId", "asks");
    let running = {
        let (domain, asks) = (domain.clone(), asks.text());
        tokio::spawn(async move { run(&domain, &asks).await })
    };
    let question = loop {
        let records = records(&domain).await;
        if let Some(asked) = records
            .iter()
            .find(|record| record["type"] == "coordination.escalated")
        {
            break asked["data"].clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let text = |name: &str| question[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("question"), "which one?");
    let said = Some("the first".to_owned());
    let dana = caller_as("user:dana", Role::Operator);
    let (id, digest) = (text("escalationId"), text("digest"));
    let answered = domain.answer(dana, &id, &digest, HumanVerdict::Approve, said);
    answered.await.expect("the answer counts");
    assert_eq!(running.await.expect("no panic").terminal, "success");
    let said = all(&records(&domain).await, "step.completed", "payload");
    assert_eq!(said.last().map(String::as_str), Some("the first"));
    timeout(PATIENCE, domain.close()).await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_dies_loses_its_attempt_and_is_started_again() {
    let directory = Directory::new();
    let file = directory.folder().join("pids");
    let domain = open(&directory, 1).await;
    let dies = format!("dies {}", file.display());
    let payloads = ["pid", &dies, "pid"];
    let ended = run(&domain, &steps(&payloads, true).text()).await;
    let records = records(&domain).await;
    assert_eq!(ended.terminal, "success", "{records:?}");
    assert_eq!(
        all(&records, "step.retry_scheduled", "class"),
        ["host_lost"]
    );
    assert_eq!(all(&records, "step.retry_scheduled", "free"), ["true"]);
    let said = all(&records, "step.completed", "payload");
    let died = pids(&file);
    assert_eq!(said[0], died[0].to_string());
    assert_ne!(said[1], said[0]);
    assert_eq!(said[1], said[2], "the new one stays as well");
    // What it had started does not outlive it.
    assert!(!is_alive(died[0]) && !is_alive(died[1]));
    timeout(PATIENCE, domain.close()).await.expect("it closes");
}

/// It dies when it has nothing to do: nobody notices before the next dispatch, and what it left behind ends then.
#[tokio::test(flavor = "multi_thread")]
async fn agent_that_dies_idle_loses_nothing_and_leaves_nothing_behind() {
    let directory = Directory::new();
    let domain = open(&directory, 1).await;
    let ended = run(&domain, &steps(&["leaves"], false).text()).await;
    assert_eq!(ended.terminal, "success");
    let said = all(&records(&domain).await, "step.completed", "payload");
    let left: Vec<u32> = said[0]
        .split(' ')
        .map(|pid| pid.parse().expect("a process id"))
        .collect();
    let [agent, child] = left[..] else {
        panic!("{said:?}")
    };
    let is_gone = tokio::task::spawn_blocking(move || until("it died", || !is_alive(agent)));
    is_gone.await.expect("no panic");
    assert!(is_alive(child));
    let next = steps(&["pid"], false).set("coordinationId", "next");
    let ended = run(&domain, &next.text()).await;
    assert_eq!(ended.terminal, "success");
    let said = all(&records(&domain).await, "step.completed", "payload");
    assert_ne!(said[1], agent.to_string());
    assert!(!is_alive(child));
    let retries = all(&records(&domain).await, "step.retry_scheduled", "class");
    assert_eq!(retries, [""; 0], "nothing was lost");
    timeout(PATIENCE, domain.close()).await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_reaches_an_agent_and_one_that_does_not_listen_is_ended_with_its_children() {
    let directory = Directory::new();
    let (stops, hangs) = (
        directory.folder().join("stops"),
        directory.folder().join("hangs"),
    );
    let domain = open(&directory, 2).await;
    let payloads = [
        format!("stops {}", stops.display()),
        format!("hangs {}", hangs.display()),
    ];
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    let plan = steps(&payloads, false);
    let running = {
        let (domain, plan) = (domain.clone(), plan.text());
        tokio::spawn(async move { run(&domain, &plan).await })
    };
    let both = tokio::task::spawn_blocking(move || {
        until("both work", || stops.exists() && hangs.exists());
        pids(&hangs)
    });
    let hanging = both.await.expect("no panic");
    let owner = crate::support::caller(&plan.text_of("ownerSession"));
    let id = plan.text_of("coordinationId");
    let cancel = cancel_envelope(&owner, &id, None, Some("enough".into()));
    let call = Call::Submit {
        caller: owner,
        now_ms: 0,
        envelopes: vec![cancel],
    };
    domain.call(call).await.expect("it is heard");
    let ended = running.await.expect("no panic");
    let records = records(&domain).await;
    assert_eq!(ended.terminal, "failed", "{records:?}");
    assert_eq!(all(&records, "step.cancelled", "by"), ["cancel"; 2]);
    assert!(!hanging.is_empty() && !hanging.iter().any(|pid| is_alive(*pid)));
    timeout(PATIENCE, domain.close()).await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_none_are_refused_and_a_flood_ends_the_attempt() {
    let directory = Directory::new();
    let domain = open(&directory, 1).await;
    let plan = steps(&["babbles", "floods", "pid", "sings"], false);
    let ended = run(&domain, &plan.text()).await;
    assert_eq!(ended.terminal, "partial");
    let records = records(&domain).await;
    let said = all(&records, "step.completed", "payload");
    let refused: Vec<&str> = said
        .iter()
        .find(|said| said.contains('\n'))
        .map_or_else(Vec::new, |said| said.lines().collect());
    assert_eq!(refused.len(), 3, "{said:?}");
    assert!(
        refused[0].contains("sing") && refused[2].contains("c:other:1"),
        "{refused:?}"
    );
    let codes: BTreeSet<String> = all(&records, "step.failed", "code").into_iter().collect();
    assert_eq!(codes, ["bad-report", "what"].map(str::to_owned).into());
    timeout(PATIENCE, domain.close()).await.expect("it closes");
}

#[test]
fn bounds_of_processes_and_a_command_that_is_not_there() {
    for (processes, is_allowed) in [(0, false), (1, true), (64, true), (65, false)] {
        let table = AgentTable::new().staying_agent("agent:*", command(), ".", processes);
        assert_eq!(table.is_ok(), is_allowed, "{processes}");
        if let Err(e) = table {
            assert!(e.to_string().contains("1 to 64"), "{e}");
        }
    }
    assert!(
        AgentTable::new()
            .staying_agent("agent:*", Vec::new(), ".", 1)
            .is_err()
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let directory = Directory::new();
        let mut config = Config::new("stay");
        config.phase1.enabled = true;
        let command = vec!["/nowhere/agent".to_owned()];
        let builder = Domain::builder(directory.data()).config(config);
        let builder = builder.staying_agent("agent:*", command, directory.folder(), 1);
        let domain = builder.open().await.expect("it opens");
        let ended = run(&domain, &steps(&["pid"], false).text()).await;
        assert_eq!(ended.terminal, "failed");
        let records = records(&domain).await;
        assert_eq!(all(&records, "step.failed", "code"), ["spawn-failed"]);
        domain.close().await;
    });
}

/// The real program with `stay` in its agents file, killed while an agent works: the next run ends what outlived it, and
/// the attempt is lost and done again.
#[test]
fn killed_host_leaves_no_agent_behind_that_works() {
    let directory = Directory::new();
    let hangs = directory.folder().join("hangs");
    let [program, script] = &command()[..] else {
        unreachable!()
    };
    let agents = format!(
        "[[agents]]\nsession = \"agent:*\"\ncommand = [{program:?}, {script:?}]\nstay = 1\n"
    );
    directory.write("qm2.toml", &agents);
    // It hangs for as long as the file is not there; then it is another's turn.
    let one = steps(&[&format!("hangs {}", hangs.display())], false);
    let plan = directory.write("plan.json", &one.text());
    let running = directory.begin(&["run", &plan]);
    until("it works", || hangs.exists());
    let before = pids(&hangs);
    running.signal(Signal::KILL);
    drop(running);
    std::fs::remove_file(&hangs).expect("it is there");
    let mut again = directory.begin(&["run", &plan]);
    until("it works again", || hangs.exists());
    assert!(again.is_running());
    let after = pids(&hangs);
    assert!(
        before
            .iter()
            .all(|pid| !is_alive(*pid) && !after.contains(pid)),
        "{before:?}"
    );
    again.signal(Signal::INT);
    until("it ends", || !again.is_running());
    until("nothing is left", || {
        !after.iter().any(|pid| is_alive(*pid))
    });
    let lines = directory.run(&["ledger", "export"]).stdout;
    assert!(lines.contains("\"class\":\"host_lost\""), "{lines}");
}
