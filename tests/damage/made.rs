//! A data directory worth damaging: retries, claims and contests, hooks, people, a child plan, steps that are still out,
//! snapshots, a queue, notes of processes, a dead letter.
//!
//! Made once a run by a real domain, and kept as bytes.

use crate::support::{Change as _, caller, caller_as, done, engine, plan, step};
use qm2_core::config::Config;
use qm2_core::message::{HookVerdict, HumanVerdict, Role};
use qm2_host::agent::{Report, Task};
use qm2_host::engine::Call;
use qm2_host::hook::{Hook, HookKind};
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::Store;
use qm2_host::{Domain, DomainBuilder, verify};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

pub const STORE: &str = "ledger.db";
pub const WAL: &str = "ledger.db-wal";

/// The files of a data directory, and what is in them.
pub struct Made {
    pub store: Vec<u8>,
    /// What is not in the store yet; empty where everything is.
    pub wal: Vec<u8>,
    pub lines: Vec<String>,
    /// The coordination of each line.
    pub of: Vec<Option<String>>,
    pub head_hash: String,
    pub state_digest: String,
}

/// With everything in the database file.
pub fn whole() -> &'static Made {
    &both().0
}

/// With the last plan in the write-ahead log, as a killed process leaves it.
pub fn with_wal() -> &'static Made {
    &both().1
}

fn both() -> &'static (Made, Made) {
    static MADE: OnceLock<(Made, Made)> = OnceLock::new();
    MADE.get_or_init(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(make())
    })
}

impl Made {
    /// What is in the files of a directory.
    fn read(data: &Path) -> Self {
        let (store, wal) = (data.join(STORE), data.join(WAL));
        let (store, wal) = (
            fs::read(store).expect("a store"),
            fs::read(wal).unwrap_or_default(),
        );
        let reader = SqliteStore::open_read_only(data).expect("it is read");
        let lines = reader.lines(0, usize::MAX >> 1).expect("it is read");
        let verified = verify::verify(engine(), &reader, None).expect("it is read");
        assert_eq!(verified.fault, None);
        let of = lines.iter().map(|line| {
            let record: Value = serde_json::from_str(line).expect("a record");
            record["coordinationId"].as_str().map(str::to_owned)
        });
        Self {
            of: of.collect(),
            store,
            wal,
            lines,
            head_hash: verified.head.hash,
            state_digest: verified.state_digest.expect("it holds"),
        }
    }

    /// Writes the files; nothing else of them is left there.
    pub fn write(&self, data: &Path, store: &[u8], wal: &[u8]) {
        for name in [STORE, WAL, "ledger.db-shm", "ledger.db-journal"] {
            let _ = fs::remove_file(data.join(name));
        }
        fs::write(data.join(STORE), store).expect("a file");
        if !self.wal.is_empty() {
            fs::write(data.join(WAL), wal).expect("a file");
        }
    }
}

async fn work(task: Task) -> Report {
    let session = task.envelope.target_session.as_str();
    match (session, task.envelope.attempt) {
        ("agent:retry" | "agent:asks", Some(1)) => {
            Report::retryable("once", "not at the first attempt")
        }
        ("agent:fails", _) => Report::permanent("never", "never works"),
        ("agent:progress", _) => {
            let told = task.progress(1, Some("half \u{fffd} way".into())).await;
            Report::completed(format!("{}\n\"{}\"", task.key, told.is_ok()))
        }
        _ => Report::completed("x".repeat(700)),
    }
}

/// Opens a directory as it was made.
pub fn builder(data: &Path) -> DomainBuilder {
    let mut config = Config::new("damaged");
    config.phase1.enabled = true;
    config.max_in_flight = 16;
    Domain::builder(data)
        .config(config)
        .engine(engine().clone())
        .agent("agent:*", work)
        .agent("stays:*", async |_: Task| std::future::pending().await)
        .command_agent("command:*", vec!["sleep".into(), "600".into()], ".")
        .hook(
            HookKind::BeforeDispatch,
            Hook::asked("nobody-objects", async |_| {
                Ok::<_, String>(HookVerdict::NoOpinion)
            }),
        )
        .snapshot_every(30)
}

async fn run(domain: &Domain, id: &str, plan: crate::support::Json) -> String {
    let plan = plan.set("coordinationId", id).text();
    domain.run(&plan).await.expect("it runs").terminal
}

async fn lines(domain: &Domain) -> Vec<String> {
    let read = domain.with_store(|store| store.lines(0, usize::MAX >> 1));
    read.await.expect("it is read")
}

/// The data of the last record of a type, once there is one.
async fn last(domain: &Domain, type_name: &str) -> Value {
    let mark = format!("\"type\":\"{type_name}\"");
    loop {
        if let Some(line) = lines(domain)
            .await
            .iter()
            .rfind(|line| line.contains(&mark))
        {
            let record: Value = serde_json::from_str(line).expect("a record");
            return record["data"].clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn make() -> (Made, Made) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let domain = builder(&data).open().await.expect("it opens");
    let steps = [
        step("retry"),
        step("fails"),
        step("progress").after("retry"),
        step("instead").on("fails", "failure"),
        step("one").claims("file:src").after("retry"),
        step("two").claims("file:src/lib.rs").after("retry"),
    ];
    let ended = run(&domain, "mixed", plan(steps).retries(3, &[1])).await;
    assert_eq!(ended, "success");
    // Out for good: an in-process agent, a command, which leaves a note, and a contest that waits for the first.
    let steps = [
        step("stays")
            .set("targetSession", "stays:1")
            .claims("file:doc"),
        step("command").set("targetSession", "command:1"),
        step("waits")
            .claims("file:doc/a")
            .set("payload", "p".repeat(3_000)),
    ];
    let open = plan(steps).set("coordinationId", "open").text();
    domain
        .submit_plan(&open)
        .await
        .expect("heard")
        .expect("taken");
    let child = plan([step("a")]).set(
        "parent",
        json!({"coordinationId": "open", "stepId": "stays"}),
    );
    while !lines(&domain)
        .await
        .iter()
        .any(|line| line.contains("step.acknowledged") && line.contains("\"stepId\":\"stays\""))
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(run(&domain, "child", child).await, "success");
    // A person approves one more attempt.
    let asks = plan([step("asks")])
        .hitl()
        .set("coordinationId", "asks")
        .text();
    let asked = {
        let (domain, asks) = (domain.clone(), asks);
        tokio::spawn(async move { domain.run(&asks).await })
    };
    let question = last(&domain, "coordination.escalated").await;
    last(&domain, "human.requested").await;
    let text = |name: &str| question[name].as_str().unwrap_or_default().to_owned();
    let (id, digest) = (text("escalationId"), text("digest"));
    let dana = caller_as("user:dana", Role::Operator);
    let said = Some("go on".to_owned());
    let answered = domain.answer(dana, &id, &digest, HumanVerdict::Approve, said);
    answered.await.expect("the answer counts");
    let ended = asked.await.expect("no panic").expect("it runs");
    assert_eq!(ended.terminal, "success");
    // Too late, and kept.
    let late = done("retry", 2, "late").of("mixed").by("agent:retry");
    let late = Call::Submit {
        caller: caller("agent:retry"),
        now_ms: 0,
        envelopes: vec![late],
    };
    domain.call(late).await.expect("it is answered");
    let meta = domain.with_store(|store| store.set_meta("agents:mixed", "qm2.toml"));
    meta.await.expect("it is kept");
    while domain
        .with_store(|store| store.snapshot())
        .await
        .expect("it is read")
        .is_none()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kept = domain.with_store(|store| Ok((store.notes()?.len(), store.dead_letters()?.len())));
    assert_eq!(kept.await.expect("it is read"), (1, 1));
    // What comes from here on stays in the log.
    let connection = Connection::open(data.join(STORE)).expect("the store");
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, i64>(0)
    });
    assert_eq!(checkpoint.expect("SQL"), 0);
    drop(connection);
    let ended = run(&domain, "last", plan([step("a"), step("b").after("a")])).await;
    assert_eq!(ended, "success");
    let copied = folder.path().join("copied");
    fs::create_dir(&copied).expect("a folder");
    let (from, to) = (data.clone(), copied.clone());
    // Between two commits.
    let copy = domain.with_store(move |_| {
        for name in [STORE, WAL] {
            fs::copy(from.join(name), to.join(name)).expect("a file");
        }
        Ok(())
    });
    copy.await.expect("it is copied");
    let wal = Made::read(&copied);
    assert!(wal.wal.len() > 4_096);
    domain.close().await;
    let whole = Made::read(&data);
    assert!(whole.wal.is_empty(), "the log stayed behind");
    assert!(whole.lines.len() > 80 && wal.lines.len() > 80);
    (whole, wal)
}
