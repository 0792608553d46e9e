//! Snapshots: what is opened from one is what a full replay gives, and one that is not sound changes nothing.

use crate::program::Directory;
use crate::support::{Change as _, Json, OWNER, ack, caller, done, engine, plan, step};
use qm2_core::config::Config;
use qm2_host::agent::{Report, Task};
use qm2_host::engine::{Answer, Call, Engine, Instance};
use qm2_host::reading;
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::{PartKept, Snapshot, Store, Transaction};
use qm2_host::{Domain, DomainBuilder, HostError};
use rusqlite::Connection;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Records between two snapshots here.
const EVERY: u64 = 40;

fn config() -> Config {
    let mut config = Config::new("d");
    config.phase1.enabled = true;
    config.max_in_flight = 64;
    config
}

/// Agents that are done at once, except those that only a cancel ends.
async fn work(task: Task) -> Report {
    if task.envelope.target_session.starts_with("agent:stuck") {
        task.cancelled().await;
    }
    Report::completed("done")
}

fn builder(directory: &Path) -> DomainBuilder {
    Domain::builder(directory)
        .config(config())
        .engine(engine().clone())
        .snapshot_every(EVERY)
}

fn small(id: &str) -> String {
    plan((0..6).map(|at| step(&format!("s{at}"))))
        .set("coordinationId", id)
        .text()
}

/// A plan that stays open, and is larger than a piece of a snapshot.
fn large() -> Json {
    let payload = "x".repeat(60_000);
    let steps = (0..20).map(|at| step(&format!("stuck{at}")).set("payload", payload.clone()));
    plan(steps).set("coordinationId", "large")
}

/// A data directory with closed and live coordinations, records after its snapshot, and nobody who works there.
async fn made(directory: &Path) {
    let domain = builder(directory).agent("agent:*", work).open().await;
    let domain = domain.expect("a new domain opens");
    let receipt = domain.submit_plan(&large().text()).await;
    receipt.expect("it is heard").expect("the plan is taken");
    for at in 0.. {
        let ended = domain.run(&small(&format!("c{at}"))).await;
        assert_eq!(ended.expect("the plan runs").terminal, "success");
        // One that closed coordinations are in, and behind which there is more.
        let snapshot = domain.with_store(|store| store.snapshot()).await;
        if let Some(snapshot) = snapshot.expect("the store answers")
            && snapshot.head.seq > 2 * EVERY
            && domain_head(&domain).await > snapshot.head.seq
        {
            break;
        }
        assert!(at < 10_000, "no snapshot is made");
    }
    domain.close().await;
}

async fn domain_head(domain: &Domain) -> u64 {
    match domain.call(Call::Head).await {
        Ok(Answer::Head(head)) => head.seq,
        other => panic!("head: {other:?}"),
    }
}

async fn domain_digest(domain: &Domain) -> String {
    match domain.call(Call::StateDigest).await {
        Ok(Answer::StateDigest(digest)) => digest,
        other => panic!("state digest: {other:?}"),
    }
}

/// Opens the directory with nobody who serves it, and compares its state with that of a full replay of its ledger.
async fn opens_as_replayed(directory: &Path) {
    let nobody = qm2_host::agent::AgentTable::new();
    let domain = builder(directory).snapshot_every(0);
    let domain = domain.agents_for("nobody", nobody).open().await;
    let domain = domain.expect("the domain opens");
    let digest = match domain.call(Call::StateDigest).await {
        Ok(Answer::StateDigest(digest)) => digest,
        other => panic!("state-digest: {other:?}"),
    };
    let lines = domain
        .with_store(|store| store.lines(0, usize::MAX >> 1))
        .await;
    domain.close().await;
    assert_eq!(digest, replayed(lines.expect("the ledger is read")));
}

/// The state digest of a new instance after these lines.
fn replayed(lines: Vec<String>) -> String {
    let mut instance = engine().instance().expect("an instance");
    let checked = false;
    call(&mut instance, &Call::Replay { lines, checked });
    match call(&mut instance, &Call::StateDigest) {
        Answer::StateDigest(digest) => digest,
        other => panic!("state-digest: {other:?}"),
    }
}

fn call(instance: &mut Instance, call: &Call) -> Answer {
    let answer = instance.call(call).expect("no fault");
    answer.unwrap_or_else(|error| panic!("{}: {error}", call.name()))
}

fn snapshot(directory: &Path) -> Option<Snapshot> {
    let store = SqliteStore::open_read_only(directory).expect("a store");
    store.snapshot().expect("it is read")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for name in ["ledger.db", "ledger.db-wal"] {
        let _ = std::fs::copy(from.join(name), to.join(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn domain_opened_from_a_snapshot_is_the_replayed_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    made(folder.path()).await;
    let kept = snapshot(folder.path()).expect("a snapshot");
    assert!(kept.chunks.len() > 1, "it has pieces");
    opens_as_replayed(folder.path()).await;
    // One that had not been taken would have been dropped.
    assert_eq!(snapshot(folder.path()), Some(kept));

    // And what it covers is still verified.
    let sql = Connection::open(folder.path().join("ledger.db")).expect("the store");
    let change =
        "UPDATE ledger SET line = replace(line, 'show a rule', 'show a role') WHERE seq = 2";
    assert_eq!(sql.execute(change, []).expect("it is changed"), 1);
    match builder(folder.path()).open().await.map(|_| ()) {
        Err(HostError::LedgerBroken { seq: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(snapshot(folder.path()).is_some(), "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_that_is_not_sound_is_dropped_and_everything_replayed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made_there = folder.path().join("made");
    made(&made_there).await;
    let kept = snapshot(&made_there).expect("a snapshot");
    let [at_once, by_parts] = ["at-once", "by-parts"].map(|name| {
        let directory = folder.path().join(name);
        copy(&made_there, &directory);
        let mut store = SqliteStore::open(&directory).expect("a store");
        store.set_snapshot(None).expect("it is dropped");
        match name {
            "at-once" => store.set_snapshot(Some(&kept)).expect("it is kept"),
            _ => (0..=kept.chunks.len()).for_each(|part| {
                let done = store.keep_snapshot_part(&kept, part).expect("it is kept");
                assert_eq!(done == PartKept::Done, part == kept.chunks.len());
            }),
        }
        assert_eq!(store.snapshot().expect("it is read").as_ref(), Some(&kept));
        directory
    });
    let changes = [
        // Still JSON, and still a state, but another one.
        "UPDATE snapshot SET chunk = replace(chunk, 'xxxxxxxx', 'xxxxxxxy')",
        "UPDATE snapshot SET chunk = CAST(x'ff' AS TEXT) WHERE part = 2",
        "UPDATE snapshot SET chunk = x'00' WHERE part = 1",
        "UPDATE snapshot SET digest = ''",
        "UPDATE snapshot SET hash = (SELECT substr(line, -66, 64) FROM ledger WHERE seq = 3), seq = 3",
        "UPDATE snapshot SET seq = seq + 100000",
        "UPDATE snapshot SET seq = 'no number' WHERE part = 1",
        "DELETE FROM snapshot WHERE part = 1",
        "DELETE FROM snapshot WHERE part = (SELECT max(part) FROM snapshot)",
    ];
    for (at, change) in (0..).zip(changes.iter().flat_map(|change| [change; 2])) {
        let directory = folder.path().join(format!("{at}"));
        copy([&at_once, &by_parts][at % 2], &directory);
        let sql = Connection::open(directory.join("ledger.db")).expect("the store");
        let changed = sql.execute(change, []).expect(change);
        assert!(changed > 0, "{change}");
        drop(sql);
        opens_as_replayed(&directory).await;
        assert_eq!(snapshot(&directory), None, "{change}");
    }
    let directory = folder.path().join("none");
    copy(&at_once, &directory);
    let sql = Connection::open(directory.join("ledger.db")).expect("the store");
    sql.execute("DROP TABLE snapshot", []).expect("it goes");
    opens_as_replayed(&directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_records_that_are_verified_behind_an_open_domain_end_its_writing_where_they_do_not_hold()
 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    std::fs::create_dir_all(&whole).expect("a folder");
    made(&whole).await;
    copy(&whole, &broken);
    let seq = 7;
    assert!(snapshot(&whole).expect("a snapshot").head.seq > seq);
    let behind = |directory: &Path| {
        let builder = builder(directory).agent("agent:*", work).snapshot_every(0);
        builder.verify_at_once(seq)
    };

    // What holds opens as ever, and goes on.
    let domain = behind(&whole).open().await.expect("it opens");
    let (id, before) = ("after".to_owned(), domain_head(&domain).await);
    let ended = domain.run(&small(&id)).await.expect("it runs");
    assert_eq!(ended.terminal, "success");
    assert!(domain_head(&domain).await > before);
    domain.close().await;
    opens_as_replayed(&whole).await;

    let sql = Connection::open(broken.join("ledger.db")).expect("the store");
    let change = "UPDATE ledger SET line = replace(line, '\"v\":1', '\"v\":2') WHERE seq = ?1";
    assert_eq!(
        sql.execute(change, [seq.cast_signed()])
            .expect("it is changed"),
        1
    );
    drop(sql);
    // At once: it does not open.
    let refused = builder(&broken).open().await.map(|_| ());
    match refused.expect_err("a record does not hold") {
        HostError::LedgerBroken { seq: at, .. } => assert_eq!(at, seq),
        other => panic!("{other}"),
    }
    // Behind it: nothing is recorded from the moment on when that is found, and it still answers what is read.
    let domain = behind(&broken).open().await.expect("it opens");
    let found = async {
        for at in 0.. {
            match domain.run(&small(&format!("late{at}"))).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(e) => return e.to_string(),
            }
        }
        unreachable!("it goes on for ever")
    };
    let says = tokio::time::timeout(Duration::from_secs(60), found).await;
    let says = says.expect("it is found");
    assert!(says.contains(&format!("record {seq}:")), "{says}");
    let head = domain_head(&domain).await;
    let refused = domain.submit_plan(&small("later")).await;
    assert!(
        matches!(refused, Err(HostError::ReadOnly { .. })),
        "{refused:?}"
    );
    assert_eq!(domain_head(&domain).await, head);
    domain.close().await;
}

/// The record that a snapshot ends with is what the rest rests on, and is looked at by itself.
#[tokio::test(flavor = "multi_thread")]
async fn snapshot_whose_last_record_was_changed_is_not_used() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    made(folder.path()).await;
    let seq = snapshot(folder.path()).expect("a snapshot").head.seq;
    let sql = Connection::open(folder.path().join("ledger.db")).expect("the store");
    let change = "UPDATE ledger SET line = replace(line, '\"atMs\":', '\"atMs\":9') WHERE seq = ?1";
    assert_eq!(
        sql.execute(change, [seq.cast_signed()])
            .expect("it is changed"),
        1
    );
    drop(sql);
    let refused = builder(folder.path()).verify_at_once(0).open().await;
    match refused.map(|_| ()).expect_err("a record does not hold") {
        HostError::LedgerBroken { seq: at, .. } => assert_eq!(at, seq),
        other => panic!("{other}"),
    }
}

/// Prints what opening takes, and asserts only that a snapshot changes nothing else. With `QM2_RECORDS=100000`, `--release`
/// and `--nocapture` it measures.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_opens_to_the_same_state_with_and_without_a_snapshot() {
    let records =
        std::env::var("QM2_RECORDS").map_or(4_000, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    fill(folder.path(), records);
    let open = |every| {
        let builder = Domain::builder(folder.path()).engine(engine().clone());
        let nobody = qm2_host::agent::AgentTable::new();
        builder.agents_for("nobody", nobody).snapshot_every(every)
    };
    let mut digests = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let domain = open(0).open().await.expect("it opens");
        println!("{records} records, no snapshot: {:?}", begun.elapsed());
        digests.push(domain_digest(&domain).await);
        domain.close().await;
    }
    let domain = open(records / 2).open().await.expect("it opens");
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    while snapshot(folder.path()).is_none() {
        let asked = Instant::now();
        domain_head(&domain).await;
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "a snapshot took {:?}; slowest call meanwhile {slowest:?}",
        begun.elapsed()
    );
    domain.close().await;
    let chunks = snapshot(folder.path()).expect("a snapshot").chunks;
    let bytes: usize = chunks.iter().map(String::len).sum();
    println!("{} pieces, {bytes} bytes", chunks.len());
    for _ in 0..3 {
        let begun = Instant::now();
        let domain = open(0).open().await.expect("it opens");
        println!("{records} records, snapshot: {:?}", begun.elapsed());
        digests.push(domain_digest(&domain).await);
        domain.close().await;
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "one state, however it is opened");
}

/// A ledger of about so many records: plans of 300 steps, all done and read.
fn fill(directory: &Path, records: u64) {
    let engine: &Engine = engine();
    let mut instance = engine.instance().expect("an instance");
    let mut store = SqliteStore::open(directory).expect("a store");
    let mut config = config();
    config.max_in_flight = 300;
    let config = config.to_json();
    call(&mut instance, &Call::Configure { config });
    let (mut now_ms, mut lines) = (0, 0);
    for number in 0.. {
        now_ms += 1;
        let id = format!("c{number}");
        let steps: Vec<String> = (0..300).map(|at| format!("s{at}")).collect();
        let plan = plan(steps.iter().map(|id| step(id))).set("coordinationId", id.as_str());
        let (owner, plan) = (caller(OWNER), plan.text());
        call(
            &mut instance,
            &Call::SubmitPlan {
                caller: owner,
                now_ms,
                plan,
            },
        );
        for id_of_step in &steps {
            let session = format!("agent:{id_of_step}");
            let of = |mut envelope: qm2_core::envelope::Envelope| {
                envelope.coordination_id.clone_from(&id);
                envelope
            };
            let acked = of(ack(id_of_step, 1).by(&session));
            let ended = of(done(id_of_step, 1, "a result of some length").by(&session));
            let envelopes = vec![acked, ended];
            let caller = caller(&session);
            call(
                &mut instance,
                &Call::Submit {
                    caller,
                    now_ms,
                    envelopes,
                },
            );
        }
        let staged = instance.take_staged();
        let reports = staged.messages.iter().map(|message| message.key.clone());
        let keys: Vec<String> = reports.filter(|key| key.starts_with("report:")).collect();
        let owner = caller(OWNER);
        call(
            &mut instance,
            &Call::Acknowledge {
                caller: owner,
                now_ms,
                keys,
            },
        );
        let mut transaction = Transaction {
            lines: staged.lines,
            ..Transaction::default()
        };
        transaction.lines.extend(instance.take_staged().lines);
        lines += transaction.lines.len() as u64;
        store.commit(&transaction).expect("it is kept");
        if lines >= records {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_of_one_says_from_a_snapshot_what_it_says_from_the_whole_ledger() {
    let directory = Directory::new();
    made(&directory.data()).await;
    let all = directory.run(&["--json", "status"]).json();
    let all = all["coordinations"].as_array().expect("a list");
    assert!(all.len() > 2);
    // Closed before the snapshot, closed after it, and live.
    for one in [&all[1], all.last().expect("the last"), &all[0]] {
        let id = one["coordinationId"].as_str().expect("an id");
        let said = directory.run(&["--json", "status", id]).json();
        assert_eq!(said["coordinations"], json!([one]), "{id}");
    }
    assert_eq!(all[0]["state"], "open");
    let nobody = directory.run(&["--json", "status", "nobody"]);
    assert_eq!(
        (nobody.code, &*nobody.error_code()),
        (2, "unknown-coordination")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_one_are_tested_each_by_itself_and_end_where_they_are_wanted_to() {
    let folder = tempfile::tempdir().expect("a folder");
    made(folder.path()).await;
    let store = SqliteStore::open_read_only(folder.path()).expect("a store");
    let records = |until| reading::records(&store, "c0", until);
    let all = records(u64::MAX).expect("they hold");
    let seqs: Vec<u64> = all.iter().map(|record| record.seq).collect();
    assert!(seqs.len() > 6 && seqs.is_sorted());
    let until = records(seqs[4]).expect("they hold");
    assert_eq!(until, all[..5]);
    assert_eq!(records(seqs[0] - 1).expect("there are none"), []);
    let damage = "UPDATE ledger SET line = replace(line, '\"atMs\":', '\"atMs\":1') WHERE seq = ?1";
    let sql = Connection::open(folder.path().join("ledger.db")).expect("the store is there");
    assert_eq!(
        sql.execute(damage, [seqs[4].cast_signed()])
            .expect("it is changed"),
        1
    );
    assert_eq!(records(seqs[3]).expect("those hold"), all[..4]);
    match records(u64::MAX) {
        Err(HostError::LedgerBroken { seq, .. }) => assert_eq!(seq, seqs[4]),
        other => panic!("it is not what was hashed: {other:?}"),
    }
}
