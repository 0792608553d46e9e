//! A file that is none of ours, and a disk that does not take a write.

use super::{Outbox, new, open};
use qm2_host::HostError;
use qm2_host::clock::ManualClock;
use qm2_host::queue::{DurableQueue, Place, beside};
use qm2_host::sqlite::SqliteStore;
use rusqlite::Connection;
use std::fs;
use std::path::Path;

fn says(folder: &Path) -> String {
    let opened = DurableQueue::open(folder).err().expect("it does not open");
    let read = beside::read(folder).unwrap_err();
    assert_eq!(opened.to_string(), read.to_string());
    opened.to_string()
}

#[tokio::test]
async fn damaged_foreign_or_newer_file_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    fs::write(&path, "no database, only some text that is long enough").unwrap();
    assert!(says(folder.path()).contains("not a qm2 outbox"));
    fs::write(&path, "").unwrap();
    assert!(says(folder.path()).contains("is empty; it is damaged"));
    fs::remove_file(&path).unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    fs::copy(folder.path().join("ledger.db"), &path).unwrap();
    assert!(says(folder.path()).contains("is a database, but not a qm2 outbox"));
    fs::remove_file(&path).unwrap();
    DurableQueue::open(folder.path()).unwrap().close().await;
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch("ALTER TABLE entry ADD COLUMN more TEXT")
        .unwrap();
    assert!(says(folder.path()).contains("its entry is not as qm2 makes it"));
    sql.pragma_update(None, "user_version", 2).unwrap();
    assert!(
        says(folder.path()).contains("schema version 2, but this program knows versions up to 1")
    );
    drop(sql);
    fs::remove_file(&path).unwrap();
    fs::write(folder.path().join("outbox.db-wal"), "a log").unwrap();
    let opened = DurableQueue::open(folder.path()).err().unwrap();
    assert!(opened.to_string().contains("its log is there"), "{opened}");
}

#[tokio::test]
async fn second_sender_is_told_the_pid_of_the_first() {
    let place = Outbox::new();
    match DurableQueue::open(place.path()).err() {
        Some(HostError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    place.queue.close().await;
    // Free as soon as it is closed.
    open(place.path(), &place.clock).close().await;
}

#[tokio::test]
async fn commit_that_fails_is_told_to_all_its_callers_and_the_next_one_is_made() {
    let place = Outbox::new();
    place.put("before").await;
    // Another program holds the file longer than anybody waits for it.
    let other = Connection::open(place.path().join("outbox.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let callers: Vec<_> = ["a", "b"]
        .map(|key| {
            let queue = place.queue.clone();
            tokio::spawn(async move { queue.enqueue(new(key)).await })
        })
        .into();
    for caller in callers {
        let failed = caller.await.unwrap().unwrap_err();
        assert!(failed.retryable(), "{failed}");
        assert!(failed.to_string().contains("holds it locked"), "{failed}");
    }
    other.execute_batch("ROLLBACK").unwrap();
    for (key, due) in [
        ("before", Place::Waiting),
        ("a", Place::New),
        ("b", Place::New),
    ] {
        let enqueued = place.queue.enqueue(new(key)).await.unwrap();
        assert_eq!(enqueued.place, due, "{key}");
    }
}

/// Commits in the log: a frame that ends one says how large the database is.
fn commits(folder: &Path) -> usize {
    let log = fs::read(folder.join("outbox.db-wal")).unwrap();
    let page = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    let salt = log[16..24].to_vec();
    let frames = log[32..].chunks_exact(24 + page);
    // What is left of an earlier round of the log has other salts.
    let frames = frames.take_while(|frame| frame[8..16] == salt[..]);
    frames.filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn many_callers_share_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), &ManualClock::at(1));
    queue.enqueue(new("first")).await.unwrap();
    let before = commits(folder.path());
    // While nothing can be written, all of them come.
    let other = Connection::open(folder.path().join("outbox.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let callers: Vec<_> = (0..64)
        .map(|number| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.enqueue(new(&format!("{number}"))).await })
        })
        .collect();
    // On this runtime of one thread each has been polled by then, and has handed in its job.
    tokio::task::yield_now().await;
    other.execute_batch("ROLLBACK").unwrap();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().place, Place::New);
    }
    let commits = commits(folder.path()) - before;
    assert!(
        (1..=2).contains(&commits),
        "{commits} commits for 64 callers"
    );
    assert_eq!(queue.load().await.unwrap().len(), 65);
}
