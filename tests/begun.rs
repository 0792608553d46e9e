//! Functions that begin before their ack: which may, what the ledger says of them, and what a process that dies leaves.
//!
//! Commands, agents that stay and channels are acknowledged before they begin; `cli`, `stay`, `outbox` and `fire` have those.

use crate::program::Directory;
use crate::support::{Json, plan, step};
use qm2_core::config::Config;
use qm2_host::agent::{Report, Task};
use qm2_host::{Domain, DomainBuilder, Ended};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long something that must happen may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the process that dies works.
const DIES_IN: &str = "QM2_TEST_DIES_IN";

fn builder(directory: &Path) -> DomainBuilder {
    let mut config = Config::new("d");
    config.phase1.enabled = true;
    Domain::builder(directory).config(config)
}

async fn run(domain: &Domain, plan: Json) -> Ended {
    let ended = timeout(PATIENCE, domain.run(&plan.text())).await;
    ended.expect("it ends").expect("it runs")
}

fn types(directory: &Directory) -> Vec<String> {
    let records = directory.records().into_iter();
    let types = records.map(|record| record["type"].as_str().unwrap_or_default().to_owned());
    types.filter(|name| name.starts_with("step.")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn report_of_a_quick_function_that_may_run_again_is_its_ack() {
    let directory = Directory::new();
    let domain = builder(&directory.data()).agent("agent:*", async |_| Report::completed("done"));
    let domain = domain.open().await.expect("it opens");
    let steps = (0..50).map(|at| step(&format!("s{at}")));
    run(&domain, plan(steps)).await;
    domain.close().await;
    let acknowledged = types(&directory)
        .iter()
        .filter(|name| *name == "step.acknowledged")
        .count();
    let records = directory.records();
    let implied = |record: &&serde_json::Value| record["data"]["implicitAck"] == true;
    // A machine that stands still for a while makes a function slow, but not all of them.
    assert!(acknowledged < 50, "{acknowledged}");
    let implied = records.iter().filter(implied).count();
    assert_eq!(implied, 50 - acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn function_that_takes_a_while_is_acknowledged_meanwhile() {
    let directory = Directory::new();
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let domain = builder(&directory.data()).agent("agent:*", move |_: Task| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Report::completed("done")
        }
    });
    let domain = domain.open().await.expect("it opens");
    let mut told = domain.subscribe();
    let running = {
        let domain = domain.clone();
        tokio::spawn(async move { run(&domain, plan([step("a")])).await })
    };
    let acknowledged = async {
        while !told
            .recv()
            .await
            .expect("a record")
            .contains("\"step.acknowledged\"")
        {}
    };
    timeout(PATIENCE, acknowledged)
        .await
        .expect("its ack is said while it is at work");
    go.notify_one();
    assert_eq!(running.await.expect("no panic").terminal, "success");
    domain.close().await;
    let due = ["step.dispatched", "step.acknowledged", "step.completed"];
    assert_eq!(types(&directory), due);
    let records = directory.records();
    let completed = records
        .iter()
        .find(|record| record["type"] == "step.completed");
    assert!(completed.expect("it")["data"]["implicitAck"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn function_that_may_not_run_again_begins_after_its_durable_ack() {
    let not_idempotent = step("a").set("idempotent", false);
    let best_effort = step("a").set("deliveryMode", "best_effort");
    // Not retried, but said to be harmless: it is delivered once all the same.
    let harmless = best_effort.clone().set("idempotent", true);
    for step in [not_idempotent, best_effort, harmless] {
        let directory = Directory::new();
        let data = directory.data();
        let domain = builder(&directory.data()).agent("agent:*", move |_: Task| {
            let data = data.clone();
            async move { Report::completed(kept(&data).to_string()) }
        });
        let domain = domain.open().await.expect("it opens");
        let ended = run(&domain, plan([step.clone()])).await;
        assert_eq!(ended.terminal, "success");
        domain.close().await;
        let records = directory.records();
        let completed = records
            .iter()
            .find(|record| record["type"] == "step.completed");
        let completed = completed.expect("it completed");
        assert_eq!(completed["data"]["payload"], "true", "{}", step.text());
    }
}

/// Whether the ack is in the store.
fn kept(data: &Path) -> bool {
    use qm2_host::sqlite::SqliteStore;
    use qm2_host::store::Store;
    let store = SqliteStore::open_read_only(data).expect("the store opens");
    let lines = store.lines(0, 1_000).expect("it is read");
    lines.iter().any(|line| line.contains("step.acknowledged"))
}

#[test]
fn process_that_dies_in_a_function_runs_it_again_only_where_it_may() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Some(data) = std::env::var_os(DIES_IN) {
        // This is the process that dies: at once, with all that it has not made durable.
        runtime.block_on(begin(&PathBuf::from(data), true));
        panic!("it was to die in its function");
    }
    for (id, may) in [("again", true), ("once", false)] {
        let directory = Directory::new();
        let dies = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "begun::process_that_dies_in_a_function_runs_it_again_only_where_it_may",
            ])
            .env(DIES_IN, directory.data())
            .env("QM2_TEST_PLAN", id)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("it starts");
        // SIGABRT: it did not panic on its way there.
        assert_eq!(dies.signal(), Some(6));
        let key = format!("{id}:a:1");
        assert_eq!(journal(&directory.data()), [&*key], "it died in it");
        let ended = runtime.block_on(async {
            let domain = open(&directory.data(), false).await;
            let ended = run(&domain, dying(id)).await;
            domain.close().await;
            ended
        });
        if may {
            assert_eq!(ended.terminal, "success");
            assert_eq!(journal(&directory.data()), [&*key, &*key]);
            let due = ["step.dispatched", "step.completed"];
            let mut types = types(&directory);
            // As above: it may be acknowledged where the machine is slow.
            types.retain(|name| name != "step.acknowledged");
            assert_eq!(types, due, "under the same key, without a retry");
        } else {
            assert_eq!(ended.terminal, "failed");
            assert_eq!(journal(&directory.data()), [&*key], "never twice");
            let records = directory.records();
            let failed = records
                .iter()
                .find(|record| record["type"] == "step.failed");
            assert_eq!(failed.expect("it")["data"]["class"], "host_lost");
        }
    }
}

fn dying(id: &str) -> Json {
    plan([step("a").set("idempotent", id == "again")]).set("coordinationId", id)
}

async fn begin(data: &Path, dies: bool) {
    let id = std::env::var("QM2_TEST_PLAN").expect("which plan");
    let domain = open(data, dies).await;
    run(&domain, dying(&id)).await;
}

async fn open(data: &Path, dies: bool) -> Domain {
    let path = data.to_path_buf();
    let domain = builder(data).agent("agent:*", move |task: Task| {
        let path = path.join("journal");
        async move {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let mut file = file.expect("a journal");
            writeln!(file, "{}", task.key).expect("it is written");
            if dies {
                std::process::abort();
            }
            Report::completed("done")
        }
    });
    domain.open().await.expect("it opens")
}

fn journal(data: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(data.join("journal")).expect("a journal");
    text.lines().map(str::to_owned).collect()
}
