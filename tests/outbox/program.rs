//! `qm2 queue`: what a person sees of it, and may do about it.

use super::{BEGIN_MS, Elsewhere, Says, config, open, plan, run};
use crate::program::{Directory, SHELL, one_step, until};
use qm2_core::envelope::{Envelope, Intent, Outcome};
use qm2_host::clock::ManualClock;
use qm2_host::queue::{Channels, Drain, DurableQueue, NewEntry, Place, SendError, beside};
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::{DeadLetter, Store, Transaction};
use qm2_host::{Domain, queue};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A queue with an entry that waits and two dead letters.
async fn fill(directory: &Directory) {
    let queue = DurableQueue::open(directory.data()).unwrap();
    let no = || Says::Fails(SendError::Permanent("400: no such chat".into()));
    let down = Says::Fails(SendError::Retryable("503".into()));
    let channel = Elsewhere::new([no(), no(), down]);
    let channels = Channels::new().channel("chat", channel);
    for key in ["dead-1", "dead-2", "waits"] {
        let new = NewEntry::new("chat", "user:dana", format!("text of {key}")).key(key);
        queue.enqueue(new).await.unwrap();
    }
    let drain = Drain::all().pacing(Duration::ZERO);
    queue.drain(&channels, &drain).await.unwrap();
    queue.close().await;
}

#[test]
fn directory_without_a_queue_has_nothing_in_it() {
    let directory = Directory::new();
    let output = directory.run(&["queue", "list"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output.stdout.starts_with("nothing is on its way"),
        "{output:?}"
    );
    let listed = directory.run(&["--json", "queue", "list"]).json();
    let due = json!({"messages": [], "entries": [], "deadLetters": [], "lateReports": []});
    assert_eq!(listed, due);
    assert!(!directory.data().exists(), "looking makes nothing");
    for verb in ["show", "retry", "drop"] {
        let output = directory.run(&["--json", "queue", verb, "k"]);
        assert_eq!(
            (output.code, &*output.error_code()),
            (2, "unknown-key"),
            "{verb}"
        );
    }
}

#[tokio::test]
async fn dead_letters_are_listed_shown_retried_and_dropped() {
    let directory = Directory::new();
    fill(&directory).await;
    let output = directory.run(&["queue", "list"]);
    for part in [
        "dead-1",
        "waits",
        "dead letter",
        "permanent",
        "400: no such chat",
        "503",
        "send_started",
    ] {
        assert!(output.stdout.contains(part), "{part} in {}", output.stdout);
    }
    let listed = directory.run(&["--json", "queue", "list"]).json();
    assert_eq!(listed["entries"][0]["key"], "waits");
    assert_eq!(listed["entries"][0]["retryCount"], 1);
    assert_eq!(listed["deadLetters"][1]["key"], "dead-2");
    assert_eq!(listed["deadLetters"][1]["reason"], "permanent");
    let shown = directory.run(&["queue", "show", "dead-1"]).stdout;
    for part in [
        "text of dead-1",
        "the channel can never deliver it",
        "queue retry dead-1",
        "queue drop dead-1",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let shown = directory.run(&["--json", "queue", "show", "waits"]).json();
    assert_eq!(shown["payload"], "text of waits");
    let shown = directory.run(&["queue", "show", "waits"]).stdout;
    assert!(shown.contains("next try: not before"), "{shown}");
    // Somebody sends from it meanwhile.
    let sender = DurableQueue::open(directory.data()).unwrap();
    let done = directory.run(&["--json", "queue", "retry", "dead-1"]);
    assert_eq!(done.json(), json!({"key": "dead-1", "done": "retried"}));
    let done = directory.run(&["queue", "drop", "dead-2"]);
    assert_eq!((done.code, &*done.stdout), (0, "dead-2 is gone\n"));
    let entry = sender.entry("dead-1").await.unwrap().unwrap();
    assert_eq!(
        (entry.retry_count, entry.state),
        (0, queue::SendState::SendStarted)
    );
    assert_eq!(sender.dead_letters().await.unwrap(), []);
    assert_eq!(sender.place("dead-2").await.unwrap(), Place::Settled);
    // What is on its way is not settled by hand, and what is gone is not there.
    for (verb, key, code, word) in [
        ("retry", "waits", 1, "on-its-way"),
        ("drop", "waits", 1, "on-its-way"),
        ("retry", "dead-2", 2, "unknown-key"),
        ("drop", "dead-2", 2, "unknown-key"),
    ] {
        let output = directory.run(&["--json", "queue", verb, key]);
        assert_eq!(
            (output.code, &*output.error_code()),
            (code, word),
            "{verb} {key}"
        );
    }
}

#[tokio::test]
async fn person_who_has_made_sure_says_so() {
    let directory = Directory::new();
    fill(&directory).await;
    let done = directory.run(&["queue", "retry", "dead-1", "--not-sent"]);
    assert_eq!(done.code, 0, "{done:?}");
    // Of entries of one millisecond, one that was put back comes last.
    let entries = beside::read(&directory.data()).unwrap().entries;
    let entry = entries.iter().find(|entry| entry.key == "dead-1");
    assert_eq!(entry.unwrap().state, queue::SendState::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_a_step_is_not_dropped_by_hand() {
    let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
    let refused = Says::Fails(SendError::NotConnected("refused".into()));
    let elsewhere = Elsewhere::new([refused]);
    let domain = open(&directory.data(), &clock, elsewhere).await;
    let running = run(&domain, plan("c", 600_000));
    until("the failure is kept", || {
        let contents = beside::read(&directory.data()).unwrap_or_default();
        contents.entries.iter().any(|entry| entry.retry_count == 1)
    });
    // While the domain runs: the message of the component and its entry are both there.
    let listed = directory.run(&["--json", "queue", "list"]).json();
    assert_eq!(listed["messages"][0]["key"], "c:only:1");
    assert_eq!(listed["entries"][0]["key"], "c:only:1");
    for verb in ["drop", "retry"] {
        let output = directory.run(&["queue", verb, "c:only:1"]);
        assert_eq!(output.code, 1, "{verb}: {output:?}");
    }
    let says = directory.run(&["queue", "drop", "c:only:1"]).stderr;
    assert!(says.contains("cancel c` stops the step"), "{says}");
    domain.close().await;
    let _ = running.await;
    let says = directory.run(&["--json", "queue", "drop", "c:only:1"]);
    assert_eq!(says.error_code(), "of-coordination");
    // Nobody runs it, and the message is out all the same; while the domain is switched off nothing is.
    let keys = || {
        let listed = directory.run(&["--json", "queue", "list"]).json();
        let messages = listed["messages"].as_array().expect("a list");
        messages
            .iter()
            .map(|message| message["key"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(), ["c:only:1"]);
    let mut off = config();
    off.phase1.enabled = false;
    let builder = Domain::builder(directory.data()).config(off).clock(clock);
    builder.open().await.expect("it opens").close().await;
    assert_eq!(keys(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letter_of_an_attempt_can_be_dropped_and_not_retried() {
    let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
    let bad = Says::Fails(SendError::Permanent("gone".into()));
    let elsewhere = Elsewhere::new([bad]);
    let domain = open(&directory.data(), &clock, elsewhere).await;
    super::ended(run(&domain, plan("c", 600_000))).await;
    let output = directory.run(&["--json", "queue", "retry", "c:only:1"]);
    assert_eq!((output.code, &*output.error_code()), (1, "not-settled"));
    let says = directory.run(&["queue", "retry", "c:only:1"]).stderr;
    assert!(says.contains("--rerun"), "{says}");
    assert_eq!(directory.run(&["queue", "drop", "c:only:1"]).code, 0);
    domain.close().await;
    assert_eq!(
        beside::read(&directory.data()).unwrap(),
        beside::Contents::default()
    );
}

/// A report that came too late, as a domain keeps it.
fn late(directory: &Directory) -> String {
    let envelope: Envelope = serde_json::from_value(json!({
        "coordinationId": "closed", "stepId": "only", "attempt": 1, "sourceSession": "agent:shell:only",
        "targetSession": "user:test", "intent": "report", "payload": "too late",
    }))
    .unwrap();
    let envelope = Envelope {
        outcome: Some(Outcome::Completed),
        intent: Intent::Report,
        ..envelope
    };
    let letter = DeadLetter {
        at_ms: 1,
        envelope,
        reason: "closed is closed".into(),
    };
    let id = letter.id();
    let mut store = SqliteStore::open(&directory.data()).unwrap();
    let transaction = Transaction {
        dead_letters: vec![letter],
        ..Transaction::default()
    };
    store.commit(&transaction).unwrap();
    id
}

#[test]
fn late_report_is_listed_and_dropped_unless_somebody_runs_the_directory() {
    let directory = Directory::new();
    let agents = directory.write("qm2.toml", SHELL);
    let first = directory.write("first.json", &one_step("first", "true"));
    assert_eq!(directory.run(&["run", &first, "--agents", &agents]).code, 0);
    let id = late(&directory);
    let listed = directory.run(&["--json", "queue", "list"]).json();
    assert_eq!(listed["lateReports"][0]["key"], Value::from(id.clone()));
    assert_eq!(listed["lateReports"][0]["reason"], "closed is closed");
    let short = &id[..12];
    let text = directory.run(&["queue", "list"]).stdout;
    assert!(
        text.contains(short) && text.contains("late report"),
        "{text}"
    );
    let shown = directory.run(&["queue", "show", short]).stdout;
    assert!(shown.contains("too late"), "{shown}");
    let retried = directory.run(&["--json", "queue", "retry", short]);
    assert_eq!((retried.code, &*retried.error_code()), (1, "not-retryable"));
    // Somebody runs it.
    let wait = "until [ -e \"$QM2_DATA/go\" ]; do sleep 0.05; done";
    let second = directory.write("second.json", &one_step("second", wait));
    let running = directory.begin(&["run", &second, "--agents", &agents]);
    until("it runs", || {
        directory.run(&["status"]).stdout.contains("second")
    });
    let locked = directory.run(&["--json", "queue", "drop", short]);
    assert_eq!((locked.code, &*locked.error_code()), (6, "locked"));
    std::fs::write(directory.data().join("go"), "").unwrap();
    assert_eq!(running.wait().code, 0);
    assert_eq!(directory.run(&["queue", "drop", short]).code, 0);
    let listed = directory.run(&["--json", "queue", "list"]).json();
    assert_eq!(listed["lateReports"], json!([]));
}

#[tokio::test]
async fn damaged_queue_is_said_and_ends_with_6() {
    let directory = Directory::new();
    fill(&directory).await;
    std::fs::write(directory.data().join("outbox.db"), "").unwrap();
    for arguments in [&["queue", "list"][..], &["queue", "drop", "dead-1"]] {
        let output = directory.run(arguments);
        assert_eq!(output.code, 6, "{output:?}");
        assert!(
            output.stderr.contains("is empty; it is damaged"),
            "{output:?}"
        );
    }
    // Nor does a domain begin on it.
    let channel: Arc<dyn queue::Channel> = Elsewhere::new([]);
    let builder = Domain::builder(directory.data()).config(config());
    let opened = builder.channel_agent("agent:*", channel).open().await;
    let says = opened.err().expect("it does not open").to_string();
    assert!(says.contains("is empty; it is damaged"), "{says}");
}
