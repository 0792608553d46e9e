//! What the host does when something goes wrong under it: the component traps or takes too long, a commit fails, agents
//! leave children behind, files are damaged.
//!
//! The rules themselves are tested in `rules`, the program in `cli`.

use crate::support::{OWNER, caller, engine, plan, step};
use qm2_core::config::Config;
use qm2_core::plan::Plan;
use qm2_core::receipt::{Head, RejectionCode};
use qm2_host::agent::{AgentTable, Report, Task};
use qm2_host::clock::ManualClock;
use qm2_host::engine::{Answer, Call, Engine, Sandbox};
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::{DeadLetter, Note, Store, Transaction};
use qm2_host::{Domain, DomainBuilder, HostError};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

/// How long something that must happen may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn config() -> Config {
    let mut config = Config::new("d");
    config.phase1.enabled = true;
    config
}

fn builder(directory: &Path) -> DomainBuilder {
    Domain::builder(directory)
        .config(config())
        .engine(engine().clone())
}

async fn done(_: Task) -> Report {
    Report::completed("done")
}

/// A plan of so many steps that nobody is needed for.
fn wide(id: &str, steps: usize) -> String {
    let steps = (0..steps).map(|at| step(&format!("step-{at:05}")));
    plan(steps).set("coordinationId", id).text()
}

async fn digest(domain: &Domain) -> String {
    match domain.call(Call::StateDigest).await {
        Ok(Answer::StateDigest(digest)) => digest,
        other => panic!("state-digest: {other:?}"),
    }
}

async fn lines(domain: &Domain) -> Vec<String> {
    let read = domain.with_store(|store| store.lines(0, usize::MAX >> 1));
    read.await.expect("the ledger is read")
}

/// The state digest of a new instance after these lines.
fn replayed(lines: Vec<String>) -> String {
    let mut instance = engine().instance().expect("an instance");
    let checked = false;
    let replay = instance.call(&Call::Replay { lines, checked });
    replay.expect("no fault").expect("the ledger replays");
    match instance.call(&Call::StateDigest) {
        Ok(Ok(Answer::StateDigest(digest))) => digest,
        other => panic!("state-digest: {other:?}"),
    }
}

// ---- the component fails ----

#[tokio::test(flavor = "multi_thread")]
async fn input_that_traps_twice_is_refused_and_nobody_else_notices() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sandbox = Sandbox {
        memory_bytes_max: 16 * 1024 * 1024,
        ..Sandbox::default()
    };
    let small_engine = Engine::with(sandbox, None).expect("an engine");
    let domain = builder(folder.path())
        .engine(small_engine)
        .agent("agent:*", done);
    let domain = domain.open().await.expect("the domain opens");
    let plans = [wide("before", 3), wide("huge", 10_000), wide("after", 3)];
    let (before, huge, after) = tokio::join!(
        domain.run(&plans[0]),
        domain.submit_plan(&plans[1]),
        domain.run(&plans[2]),
    );
    let refused = huge.expect("it is answered").expect_err("it is refused");
    assert_eq!(refused.code, RejectionCode::ComponentFault, "{refused}");
    assert!(refused.message.contains("report it"), "{refused}");
    for ended in [before, after] {
        assert_eq!(ended.expect("it runs").terminal, "success");
    }
    assert_eq!(digest(&domain).await, replayed(lines(&domain).await));
    domain.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn call_that_overruns_its_deadline_is_ended_and_the_domain_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sandbox = Sandbox {
        call_deadline: Duration::from_millis(150),
        ..Sandbox::default()
    };
    let hasty = Engine::with(sandbox, None).expect("an engine");
    let domain = builder(folder.path()).engine(hasty).agent("agent:*", done);
    let domain = domain.open().await.expect("the domain opens");
    // Ten thousand steps in a net of a hundred thousand dependencies.
    let steps = (0..10_000).map(|at| {
        let id = |at: usize| format!("step-{at:05}");
        (1..=10).fold(step(&id(at)), |step, back| match at.checked_sub(back * 7) {
            Some(before) => step.on(&id(before), "always"),
            None => step,
        })
    });
    let huge = plan(steps).set("coordinationId", "huge").text();
    let refused = domain.submit_plan(&huge).await.expect("it is answered");
    let refused = refused.expect_err("it is refused");
    assert_eq!(refused.code, RejectionCode::ComponentFault, "{refused}");
    assert!(
        refused.message.contains("longer than its deadline"),
        "{refused}"
    );
    let ended = domain.run(&wide("small", 3)).await;
    assert_eq!(ended.expect("it runs").terminal, "success");
    domain.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timer_that_traps_twice_leaves_the_domain_for_reading_and_says_how_to_report_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Enough for ten plans one after another, by half; not for the end of all of them at once.
    let sandbox = Sandbox {
        memory_bytes_max: 18 * 1024 * 1024,
        ..Sandbox::default()
    };
    let small_engine = Engine::with(sandbox, None).expect("an engine");
    let clock = ManualClock::at(1);
    let open = |engine| {
        let builder = builder(folder.path()).engine(engine).clock(clock.clone());
        builder.agents_for("nobody", AgentTable::new()).open()
    };
    let domain = open(small_engine.clone()).await.expect("the domain opens");
    let mut plans = Vec::new();
    for at in 0..10 {
        let steps = (0..1_000).map(|at| step(&format!("step-{at:05}")));
        let plan = plan(steps).set("coordinationId", format!("c{at}"));
        plans.push(plan.set("deadlineMs", 1_000).set("reports", "all").text());
        let taken = domain.submit_plan(&plans[at]).await;
        taken.expect("it is answered").expect("it is taken");
    }
    let before = lines(&domain).await;
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let waiting = {
        let (domain, plan) = (domain.clone(), plans[0].clone());
        tokio::spawn(async move {
            let run = domain.run(&plan);
            tokio::pin!(run);
            tokio::select! {
                biased;
                ended = &mut run => return ended,
                () = async {} => {}
            }
            let _ = begun.send(());
            run.await
        })
    };
    // Its plan is on its way to the loop, and what is asked now is answered after it.
    has_begun.await.expect("the run has begun");
    lines(&domain).await;
    clock.forward(2_000);
    // Who waits for the end of a plan hears of it, now and later.
    let ended = timeout(PATIENCE, waiting).await.expect("it does not hang");
    let says = |error: HostError| match error {
        HostError::ReadOnly { reason } => reason,
        other => panic!("{other:?}"),
    };
    let reason = says(ended.expect("no panic").expect_err("it did not end"));
    assert!(
        reason.contains("report it") && reason.contains("qm2 ledger export"),
        "{reason}"
    );
    assert_eq!(
        says(domain.run(&plans[1]).await.expect_err("read-only")),
        reason
    );
    // It still answers what is read, and nothing was recorded.
    assert_eq!(digest(&domain).await, replayed(before.clone()));
    assert_eq!(lines(&domain).await, before);
    domain.close().await;

    // Opened again it is no better, until the component is.
    let domain = open(small_engine).await.expect("it opens for reading");
    assert_eq!(digest(&domain).await, replayed(before));
    assert!(says(domain.run(&plans[1]).await.expect_err("read-only")).contains("report it"));
    domain.close().await;
    let domain = open(engine().clone()).await.expect("it opens");
    let ended = domain.ended("c0").await.expect("its time was over");
    assert_eq!(ended.terminal, "failed");
    domain.close().await;
}

// ---- the store fails ----

/// A store of which one commit fails, before or after everything was kept, or all from some moment on.
struct Failing {
    store: SqliteStore,
    commits: Arc<AtomicU64>,
    fails: u64,
    keeps: bool,
    /// Once set all of them fail.
    away: Arc<AtomicBool>,
    /// What is found when it is opened anew.
    damage: Option<&'static str>,
}

impl Store for Failing {
    fn commit(&mut self, transaction: &Transaction) -> qm2_host::Result<()> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst);
        let fails = number == self.fails || self.away.load(Ordering::SeqCst);
        if !fails || self.keeps {
            self.store.commit(transaction)?;
        }
        match fails {
            true => Err(HostError::Store {
                doing: "commit",
                message: "the test says so".into(),
            }),
            false => Ok(()),
        }
    }
    fn reopen(&mut self) -> qm2_host::Result<()> {
        if let Some(says) = self.damage {
            return Err(HostError::Damaged {
                path: "ledger.db".into(),
                message: says.into(),
            });
        }
        self.store.reopen()
    }
    fn head(&self) -> qm2_host::Result<Head> {
        self.store.head()
    }
    fn lines(&self, after_seq: u64, max_count: usize) -> qm2_host::Result<Vec<String>> {
        self.store.lines(after_seq, max_count)
    }
    fn coordination_lines(&self, coordination_id: &str) -> qm2_host::Result<Vec<String>> {
        self.store.coordination_lines(coordination_id)
    }
    fn line(&self, seq: u64) -> qm2_host::Result<Option<String>> {
        self.store.line(seq)
    }
    fn meta(&self, key: &str) -> qm2_host::Result<Option<String>> {
        self.store.meta(key)
    }
    fn set_meta(&mut self, key: &str, value: &str) -> qm2_host::Result<()> {
        self.store.set_meta(key, value)
    }
    fn notes(&self) -> qm2_host::Result<Vec<Note>> {
        self.store.notes()
    }
    fn dead_letters(&self) -> qm2_host::Result<Vec<DeadLetter>> {
        self.store.dead_letters()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn domain_whose_store_does_not_come_back_closes_although_a_report_waits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (commits, away) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let store = Failing {
        store: SqliteStore::open(folder.path()).expect("a store"),
        commits: commits.clone(),
        fails: u64::MAX,
        keeps: false,
        away: away.clone(),
        damage: None,
    };
    let (go, gate) = tokio::sync::watch::channel(false);
    let domain = builder(folder.path()).store(store);
    let domain = domain.agent("agent:*", move |task: Task| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|open| *open).await;
            done(task).await
        }
    });
    let domain = domain.open().await.expect("the domain opens");
    let mut told = domain.subscribe();
    let taken = domain.submit_plan(&wide("c", 1)).await;
    taken.expect("it is answered").expect("it is taken");
    while !told
        .recv()
        .await
        .expect("a record")
        .contains("step.acknowledged")
    {}
    away.store(true, Ordering::SeqCst);
    let before = commits.load(Ordering::SeqCst);
    go.send_replace(true);
    let tried = async {
        // The report was sent, and is sent again.
        while commits.load(Ordering::SeqCst) < before + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, tried).await.expect("it is sent again");
    timeout(PATIENCE, domain.close()).await.expect("it closes");
    // The work is done once more, which costs no retry.
    let again = builder(folder.path()).agent("agent:*", done).open().await;
    let again = again.expect("the domain opens");
    let ended = timeout(PATIENCE, again.run(&wide("c", 1))).await;
    assert_eq!(
        ended.expect("it ends").expect("it runs").terminal,
        "success"
    );
    again.close().await;
}

/// A disk may come back; what is damaged does not, and nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn domain_whose_store_turns_out_to_be_damaged_is_read_only_and_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let away = Arc::<AtomicBool>::default();
    let store = Failing {
        store: SqliteStore::open(folder.path()).expect("a store"),
        commits: Arc::default(),
        fails: u64::MAX,
        keeps: false,
        away: away.clone(),
        damage: Some("does not hold together"),
    };
    let domain = builder(folder.path()).store(store).agent("agent:*", done);
    let domain = domain.open().await.expect("the domain opens");
    away.store(true, Ordering::SeqCst);
    let plan = wide("c", 1);
    let says = async {
        loop {
            match domain.run(&plan).await.expect_err("nothing is kept") {
                HostError::Retry => {}
                error => return error.to_string(),
            }
        }
    };
    let says = timeout(PATIENCE, says).await.expect("it does not wait");
    assert!(says.contains("restore it from a copy"), "{says}");
    domain.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_of_unknown_result_loses_nothing_and_runs_nothing_twice() {
    // Each commit of a small run in turn, from the first one after opening on.
    for (fails, keeps) in (1..).flat_map(|fails| [(fails, false), (fails, true)]) {
        let says = format!("commit {fails} fails, kept: {keeps}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let commits = Arc::<AtomicU64>::default();
        let store = Failing {
            store: SqliteStore::open(folder.path()).expect("a store"),
            commits: commits.clone(),
            fails,
            keeps,
            away: Arc::default(),
            damage: None,
        };
        let runs = Arc::<Mutex<BTreeMap<String, u32>>>::default();
        let noted = runs.clone();
        let domain = builder(folder.path()).store(store);
        let domain = domain.agent("agent:*", move |task: Task| {
            let mut noted = noted.lock().expect("no panic");
            *noted.entry(task.key.clone()).or_default() += 1;
            done(task)
        });
        let domain = domain.open().await.expect("the domain opens");
        let plan = plan([step("a"), step("b").after("a"), step("c").after("b")]).text();
        let ended = loop {
            match timeout(PATIENCE, domain.run(&plan)).await.expect(&says) {
                Ok(ended) => break ended,
                // Told to send the same again.
                Err(HostError::Retry) => {}
                Err(other) => panic!("{says}: {other}"),
            }
        };
        assert_eq!(
            (ended.terminal.as_str(), ended.counts.completed),
            ("success", 3),
            "{says}"
        );
        let once: BTreeMap<String, u32> = ["c:a:1", "c:b:1", "c:c:1"]
            .map(|key| (key.into(), 1))
            .into();
        assert_eq!(*runs.lock().expect("no panic"), once, "{says}");
        assert_eq!(
            digest(&domain).await,
            replayed(lines(&domain).await),
            "{says}"
        );
        domain.close().await;
        if commits.load(Ordering::SeqCst) <= fails {
            // It never came to that: the run has no more of them.
            assert!(fails > 5, "{says}: that was no test");
            return;
        }
    }
}

#[test]
fn line_that_is_not_utf_8_any_more_is_where_the_ledger_is_broken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // A lossy reading of what is written over it would be the very same text.
    let plan = plan([step("a").set("payload", "\u{fffd}")]).text();
    runtime.block_on(async {
        let domain = builder(folder.path()).agent("agent:*", done);
        let domain = domain.open().await.expect("the domain opens");
        domain.run(&plan).await.expect("it runs");
        domain.close().await;
    });
    let sql = Connection::open(folder.path().join("ledger.db")).expect("the store");
    let last: i64 = sql
        .query_row("SELECT max(seq) FROM ledger", [], |row| row.get(0))
        .expect("records");
    let hex = |seq: i64| -> String {
        let read = "SELECT hex(line) FROM ledger WHERE seq = ?1";
        sql.query_row(read, [seq], |row| row.get(0))
            .expect("a line")
    };
    let write = |seq: i64, hex: &str| {
        let write = format!("UPDATE ledger SET line = CAST(x'{hex}' AS TEXT) WHERE seq = {seq}");
        assert_eq!(sql.execute(&write, []).expect("it is changed"), 1);
    };
    let created = (1..=last).find(|&seq| hex(seq).contains("EFBFBD"));
    for seq in [created.expect("the plan is recorded"), last] {
        let line = hex(seq);
        let damaged = match line.contains("EFBFBD") {
            true => line.replacen("EFBFBD", "FF", 1),
            false => format!("{}FF{}", &line[..40], &line[42..]),
        };
        write(seq, &damaged);
        let opened = runtime.block_on(builder(folder.path()).open());
        match opened.map(|_| ()) {
            Err(HostError::LedgerBroken { seq: found, .. }) => assert_eq!(found, seq as u64),
            other => panic!("{other:?}"),
        }
        let mut verify = program(folder.path(), &["--json", "ledger", "verify"]);
        let output = verify.output().expect("the program starts");
        let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(output.status.code(), Some(5), "{verdict}");
        assert_eq!(verdict["firstBadSeq"], seq, "{verdict}");
        write(seq, &line);
    }
    // What the column says of a record decides nothing.
    sql.execute("UPDATE ledger SET coordination_id = 'other'", [])
        .expect("it is changed");
    let store = SqliteStore::open_read_only(folder.path()).expect("a store");
    assert_eq!(
        store.coordination_lines("other").expect("it is read"),
        Vec::<String>::new()
    );
    runtime.block_on(async {
        let domain = builder(folder.path())
            .open()
            .await
            .expect("the ledger holds");
        domain.close().await;
    });
}

// ---- processes and files ----

fn program(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qm2"));
    command.arg("--data").arg(data).args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn child_that_keeps_writing_after_its_agent_left_does_not_hold_up_a_cancel() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let leaves =
        "(while :; do echo still here; sleep 0.1; done) & echo $! > \"$QM2_DATA/left\"; exit 0";
    let command = ["sh", "-c", leaves].map(String::from).to_vec();
    let domain = builder(folder.path()).command_agent("agent:*", command, folder.path());
    let domain = domain.open().await.expect("the domain opens");
    let taken = domain.submit_plan(&plan([step("a")]).text()).await;
    taken.expect("it is answered").expect("it is taken");
    let left = folder.path().join("left");
    let pid = timeout(PATIENCE, async {
        loop {
            match fs::read_to_string(&left) {
                Ok(pid) if pid.ends_with('\n') => return pid.trim().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let pid = pid.await.expect("the agent starts");
    let owner = caller(OWNER);
    let cancelled = domain.cancel(owner, "c", None, None).await;
    cancelled.expect("the cancel is taken");
    timeout(PATIENCE, domain.idle("c"))
        .await
        .expect("its attempt ends");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let gone = stat.is_empty() || stat.contains(") Z ");
    assert!(gone, "the child was ended: {stat}");
    timeout(PATIENCE, domain.close()).await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_for_its_user_only_also_in_a_folder_that_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mode = |path: &Path| {
        let found = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        found.permissions().mode() & 0o777
    };
    let (own, shared) = (folder.path().join("own"), folder.path().join("shared"));
    fs::create_dir(&shared).expect("a folder");
    fs::write(shared.join("notes.txt"), "mine").expect("a file");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).expect("it is opened");
    for (data, expected) in [(&own, 0o700), (&shared, 0o755)] {
        let domain = builder(data).agent("agent:*", done).open().await;
        let domain = domain.expect("the domain opens");
        domain.run(&wide("c", 2)).await.expect("it runs");
        assert_eq!(mode(data), expected);
        for name in [
            "ledger.db",
            "ledger.db-wal",
            "ledger.db-shm",
            "lock",
            "qm2.sock",
        ] {
            assert_eq!(mode(&data.join(name)), 0o600, "{name}");
        }
        domain.close().await;
    }
}

#[test]
fn first_starts_at_once_share_a_cache_and_a_damaged_one_is_made_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("cache");
    let data = folder.path().join("data");
    drop(SqliteStore::open(&data).expect("a store"));
    let start = || {
        let mut command = program(&data, &["--json", "ledger", "verify"]);
        command
            .env("QM2_CACHE_DIR", &cache)
            .env("RUST_LOG", "qm2_host=warn");
        command.spawn().expect("the program starts")
    };
    let is_fine = |child: std::process::Child| {
        let output = child.wait_with_output().expect("it ends");
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{says}");
        says
    };
    let children: Vec<_> = (0..3).map(|_| start()).collect();
    for child in children {
        assert_eq!(is_fine(child), "");
    }
    let files = || -> Vec<_> {
        let entries = fs::read_dir(&cache).expect("the cache");
        entries.flatten().map(|entry| entry.path()).collect()
    };
    let [file] = &files()[..] else {
        panic!("one file, and nothing half written: {:?}", files());
    };
    assert_eq!(is_fine(start()), "", "it is used");
    let whole = fs::read(file).expect("it is read");
    for damaged in [&whole[..whole.len() / 2], &[]] {
        fs::write(file, damaged).expect("it is damaged");
        assert!(is_fine(start()).contains("is not used"), "it is said");
        assert_eq!(fs::read(file).expect("it is read"), whole, "and made anew");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_that_does_not_hold_is_refused_with_all_that_is_wrong_whoever_reads_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let domain = builder(folder.path()).open().await.expect("it opens");
    let whole = wide("whole", 3);
    // The last two are long: with room for what is allowed around a plan, and with more.
    let blanks = " ".repeat(2 << 20);
    let bad = [
        whole.replace("step-00001", "step-00000"),
        whole
            .replace("step-00001", "not an id")
            .replace("step-00002", "x y"),
        whole.replace("ownerSession", "owner"),
        whole.replace('{', "["),
        format!("{}{blanks}", whole.replace("step-00001", "step-00000")),
        format!("{whole}{}", blanks.repeat(20)),
    ];
    for plan in &bad {
        let what = &plan[..plan.len().min(200)];
        let due = Plan::parse(plan, &config()).expect_err(what);
        let handed_in = domain.submit_plan(plan).await.map(|_| ());
        let run = domain.run(plan).await.map(|_| ());
        for said in [handed_in, run] {
            match said {
                Err(HostError::InvalidPlan(problems)) => assert_eq!(problems, due, "{what}"),
                other => panic!("{other:?} of {what}"),
            }
        }
    }
    // The ledger has its first record, and nothing of these.
    assert_eq!(lines(&domain).await.len(), 1);
    // Those that are no worse for their length, or for a member that comes twice, are taken as what they are.
    let twice = whole.replacen('{', "{\"coordinationId\":\"twice\",", 1);
    for (plan, replayed) in [(format!("{whole}{blanks}"), false), (twice, true)] {
        let receipt = domain.submit_plan(&plan).await.expect("it is heard");
        let receipt = receipt.expect("it is taken");
        assert_eq!(
            (&*receipt.coordination_id, receipt.replayed),
            ("whole", replayed)
        );
    }
    domain.close().await;
}
