//! Agents elsewhere: attempts that go through the durable queue and a channel, and `qm2 queue`.
//!
//! The queue by itself is tested in `primitives`; here it is what a domain does with it.

mod kill;
mod program;

use crate::program::{Directory, until};
use qm2_core::config::Config;
use qm2_core::envelope::{Envelope, Intent, Outcome};
use qm2_core::message::Caller;
use qm2_core::receipt::{Receipt, ReceiptStatus, Rejection};
use qm2_host::clock::ManualClock;
use qm2_host::engine::{Answer, Call};
use qm2_host::owner::cancel_envelope;
use qm2_host::queue::{
    COORDINATION, Channel, Doing, Entry, Reason, Reconciled, SendError, SendState, Sent, beside,
};
use qm2_host::{Domain, Ended, HostError};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Owner of all plans here.
const OWNER: &str = "user:test";
/// How long one wait of these tests may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
const BEGIN_MS: u64 = 1_000_000_000;

/// What one send comes to.
enum Says {
    Sent,
    Fails(SendError),
    /// It never ends.
    Hangs,
}

/// Somebody elsewhere who takes what is sent, and does nothing of itself.
#[derive(Default)]
struct Elsewhere {
    sent: Mutex<Vec<Entry>>,
    asked: Mutex<Vec<String>>,
    /// What the next sends come to; after that everything is taken.
    says: Mutex<VecDeque<Says>>,
    /// What is known of earlier sends.
    knows: Option<Reconciled>,
}

impl Elsewhere {
    fn new(says: impl IntoIterator<Item = Says>) -> Arc<Self> {
        Arc::new(Self {
            says: Mutex::new(says.into_iter().collect()),
            ..Self::default()
        })
    }

    fn knowing(knows: Reconciled) -> Arc<Self> {
        Arc::new(Self {
            knows: Some(knows),
            ..Self::default()
        })
    }

    fn keys(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        sent.iter().map(|entry| entry.key.clone()).collect()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until so many sends have begun.
    fn until_sent(&self, count: usize) {
        until("it is sent", || self.sent.lock().unwrap().len() >= count);
    }
}

impl Channel for Elsewhere {
    fn send<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            self.sent.lock().unwrap().push(entry.clone());
            let says = self.says.lock().unwrap().pop_front();
            match says.unwrap_or(Says::Sent) {
                Says::Sent => Ok(Sent),
                Says::Fails(error) => Err(error),
                Says::Hangs => std::future::pending().await,
            }
        })
    }

    fn reconcile<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Reconciled> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(entry.key.clone());
            self.knows.clone().unwrap_or(Reconciled::NotSent)
        })
    }
}

fn unconnected() -> Says {
    Says::Fails(SendError::NotConnected("connection refused".into()))
}

fn config() -> Config {
    let mut config = Config::new("test");
    config.phase1.enabled = true;
    config
}

async fn open(data: &Path, clock: &ManualClock, channel: Arc<dyn Channel>) -> Domain {
    let builder = Domain::builder(data).config(config()).clock(clock.clone());
    let opened = builder.channel_agent("agent:*", channel).open().await;
    opened.expect("the domain opens")
}

/// A plan of one step that is elsewhere.
fn plan(id: &str, timeout_ms: u64) -> String {
    json!({
        "coordinationId": id, "objective": "A test.", "ownerSession": OWNER,
        "steps": [{"stepId": "only", "targetSession": "agent:a", "payload": "do it", "timeoutMs": timeout_ms}],
    })
    .to_string()
}

fn run(domain: &Domain, plan: String) -> JoinHandle<Result<Ended, HostError>> {
    let domain = domain.clone();
    tokio::spawn(async move { domain.run(plan.as_str()).await })
}

async fn ended(run: JoinHandle<Result<Ended, HostError>>) -> Ended {
    let ended = tokio::time::timeout(PATIENCE, run).await;
    ended.expect("it ends").expect("no panic").expect("an end")
}

/// Whoever has the attempt says that it is done.
async fn report(domain: &Domain, entry: &Entry, text: &str) -> Result<Receipt, Rejection> {
    let execute: Envelope = serde_json::from_str(&entry.payload).expect("an envelope");
    let session = execute.target_session.clone();
    let report = Envelope {
        source_session: session.clone(),
        target_session: execute.source_session.clone(),
        intent: Intent::Report,
        outcome: Some(Outcome::Completed),
        payload: Some(text.to_owned()),
        deadline_ms: None,
        tokens: Vec::new(),
        ..execute
    };
    submit(domain, &session, report).await
}

async fn submit(domain: &Domain, session: &str, envelope: Envelope) -> Result<Receipt, Rejection> {
    let caller = Caller {
        session: session.to_owned(),
        role: None,
    };
    let envelopes = vec![envelope];
    let call = Call::Submit {
        caller,
        now_ms: 0,
        envelopes,
    };
    match domain.call(call).await {
        Ok(Answer::Submit(mut receipts)) => receipts.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Types of the records of the step.
fn types(directory: &Directory) -> Vec<String> {
    let records = directory.records().into_iter();
    let of_step = records.filter(|record| record["stepId"] == "only");
    of_step
        .map(|record| record["type"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn last(directory: &Directory, type_name: &str) -> Value {
    let mut records = directory.records().into_iter();
    let found = records.rfind(|record| record["type"] == type_name);
    found.unwrap_or_else(|| panic!("no {type_name}"))
}

fn until_empty(directory: &Directory) {
    until("nothing is on its way", || {
        beside::read(&directory.data()).is_ok_and(|contents| contents.entries.is_empty())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempt_is_sent_through_its_channel_and_ends_with_a_later_report() {
    let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
    let elsewhere = Elsewhere::new([]);
    let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
    let run = run(&domain, plan("c", 600_000));
    until("it is acknowledged", || {
        types(&directory).contains(&"step.acknowledged".to_owned())
    });
    until_empty(&directory);
    let entry = elsewhere.sent.lock().unwrap()[0].clone();
    assert_eq!(entry.key, "c:only:1");
    assert_eq!((&*entry.channel, &*entry.target), (COORDINATION, "agent:a"));
    assert_eq!(
        entry.state,
        SendState::SendStarted,
        "noted before it was sent"
    );
    assert_eq!(entry.deadline_ms, Some(BEGIN_MS + 600_000));
    // It is at work elsewhere and holds nothing here.
    assert!(domain.lanes().is_empty("control"));
    let receipt = report(&domain, &entry, "done").await.unwrap();
    assert_eq!(receipt.status, ReceiptStatus::Accepted);
    let ended = ended(run).await;
    assert_eq!((&*ended.terminal, ended.counts.completed), ("success", 1));
    let due = ["step.dispatched", "step.acknowledged", "step.completed"];
    assert_eq!(types(&directory), due);
    domain.close().await;
    assert_eq!(elsewhere.keys(), ["c:only:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permanent_error_ends_the_step_and_leaves_a_dead_letter() {
    let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
    let bad = Says::Fails(SendError::Retryable("400: chat not found".into()));
    let elsewhere = Elsewhere::new([bad]);
    let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
    let ended = ended(run(&domain, plan("c", 600_000))).await;
    assert_eq!(ended.terminal, "failed");
    let failed = last(&directory, "step.failed");
    assert_eq!(
        (&failed["data"]["class"], &failed["data"]["code"]),
        (&json!("permanent"), &json!("dropped"))
    );
    domain.close().await;
    let contents = beside::read(&directory.data()).unwrap();
    assert_eq!(contents.entries, []);
    let dead = &contents.dead_letters[0];
    assert_eq!(
        (&*dead.entry.key, dead.reason),
        ("c:only:1", Reason::Permanent)
    );
    assert_eq!(elsewhere.keys(), ["c:only:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempt_that_fails_too_often_is_given_up_and_ends_its_step() {
    let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
    let elsewhere = Elsewhere::new((0..10).map(|_| unconnected()));
    let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
    let run = run(&domain, plan("c", 86_400_000));
    for (tries, wait_ms) in [(1, 25_000), (2, 120_000), (3, 600_000), (4, 600_000)] {
        elsewhere.until_sent(tries);
        // It waits in the queue and not in a lane.
        until("the failure is kept", || {
            let contents = beside::read(&directory.data()).unwrap();
            contents
                .entries
                .iter()
                .any(|entry| entry.retry_count as usize == tries)
        });
        until("its lane is free", || domain.lanes().is_empty("control"));
        clock.forward(wait_ms);
    }
    let ended = ended(run).await;
    assert_eq!(ended.terminal, "failed");
    assert_eq!(last(&directory, "step.failed")["data"]["code"], "dropped");
    domain.close().await;
    assert_eq!(elsewhere.keys().len(), 5);
    let contents = beside::read(&directory.data()).unwrap();
    assert_eq!(contents.dead_letters[0].reason, Reason::MaxRetries);
    assert_eq!(contents.dead_letters[0].entry.retry_count, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_attempt_is_withdrawn_and_never_sent() {
    for cancels in [true, false] {
        let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
        let elsewhere = Elsewhere::new([unconnected()]);
        let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
        let run = run(&domain, plan("c", 20_000));
        until("the failure is kept", || {
            let contents = beside::read(&directory.data()).unwrap_or_default();
            contents.entries.iter().any(|entry| entry.retry_count == 1)
        });
        until("its lane is free", || domain.lanes().is_empty("control"));
        if cancels {
            let caller = Caller {
                session: OWNER.into(),
                role: None,
            };
            let cancel = cancel_envelope(&caller, "c", None, None);
            submit(&domain, OWNER, cancel).await.unwrap();
        } else {
            // The deadline of the attempt comes before the next try.
            clock.forward(20_000);
        }
        let ended = ended(run).await;
        assert_eq!(ended.terminal, "failed");
        let reason = if cancels { "cancelled" } else { "steps_failed" };
        let says = format!("{:?}", last(&directory, "coordination.terminal"));
        assert!(says.contains(reason), "{says}");
        until_empty(&directory);
        clock.forward(3_600_000);
        domain.close().await;
        // Nor by the next process.
        let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
        clock.forward(3_600_000);
        domain.close().await;
        assert_eq!(elsewhere.keys(), ["c:only:1"], "cancels: {cancels}");
        let contents = beside::read(&directory.data()).unwrap();
        assert_eq!(contents, beside::Contents::default());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_under_way_when_the_process_ends_is_reconciled_by_the_next_one() {
    let unresolved = Reconciled::Unresolved {
        retryable: false,
        error: "no such record".into(),
    };
    for (knows, sent_again, ends) in [
        (Reconciled::Sent, false, "success"),
        (Reconciled::NotSent, true, "success"),
        (unresolved, false, "failed"),
    ] {
        let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
        let first = Elsewhere::new([Says::Hangs]);
        let domain = open(&directory.data(), &clock, first.clone()).await;
        let running = run(&domain, plan("c", 600_000));
        first.until_sent(1);
        domain.close().await;
        assert!(running.await.unwrap().is_err());
        let left = beside::read(&directory.data()).unwrap().entries;
        assert_eq!(left[0].state, SendState::SendStarted);
        // A process that serves nobody changes nothing.
        let resting = Domain::builder(directory.data()).config(config());
        let resting = resting.clock(clock.clone()).open().await.unwrap();
        resting.close().await;
        let left_by_resting = beside::read(&directory.data()).unwrap().entries;
        assert_eq!(left_by_resting, left);
        let second = Elsewhere::knowing(knows);
        let domain = open(&directory.data(), &clock, second.clone()).await;
        let running = run(&domain, plan("c", 600_000));
        if ends == "success" {
            until("it is acknowledged", || {
                types(&directory).contains(&"step.acknowledged".to_owned())
            });
            report(&domain, &left[0], "done").await.unwrap();
        }
        assert_eq!(ended(running).await.terminal, ends);
        domain.close().await;
        assert_eq!(second.asked(), ["c:only:1"]);
        assert_eq!(second.keys().len(), usize::from(sent_again));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempt_that_was_given_up_just_before_a_crash_ends_its_step_after_it() {
    let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
    let first = Elsewhere::new([Says::Hangs]);
    let domain = open(&directory.data(), &clock, first.clone()).await;
    let running = run(&domain, plan("c", 600_000));
    first.until_sent(1);
    domain.close().await;
    assert!(running.await.unwrap().is_err());
    // As if it had been given up, and the process had died before the component heard of it.
    let sql = rusqlite::Connection::open(directory.data().join("outbox.db")).unwrap();
    sql.execute_batch(
        "INSERT INTO dead_letter SELECT *, 1, 'permanent' FROM entry; DELETE FROM entry",
    )
    .unwrap();
    drop(sql);
    let second = Elsewhere::new([]);
    let domain = open(&directory.data(), &clock, second.clone()).await;
    let ended = ended(run(&domain, plan("c", 600_000))).await;
    assert_eq!(ended.terminal, "failed");
    assert_eq!(last(&directory, "step.failed")["data"]["code"], "dropped");
    domain.close().await;
    assert_eq!((second.keys().len(), second.asked().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sent_attempt_outlives_the_process_that_sent_it() {
    let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
    let elsewhere = Elsewhere::new([]);
    let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
    let running = run(&domain, plan("c", 600_000));
    until("it is acknowledged", || {
        types(&directory).contains(&"step.acknowledged".to_owned())
    });
    let entry = elsewhere.sent.lock().unwrap()[0].clone();
    domain.close().await;
    assert!(running.await.unwrap().is_err());
    // Not even a process that knows no channels takes it for lost.
    for _ in 0..2 {
        let resting = Domain::builder(directory.data()).config(config());
        let resting = resting.clock(clock.clone()).open().await.unwrap();
        resting.close().await;
    }
    let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
    let running = run(&domain, plan("c", 600_000));
    report(&domain, &entry, "done").await.unwrap();
    assert_eq!(ended(running).await.terminal, "success");
    domain.close().await;
    assert_eq!(elsewhere.keys(), ["c:only:1"]);
    assert_eq!(elsewhere.asked(), [""; 0]);
    assert!(!types(&directory).contains(&"step.retry_scheduled".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn best_effort_message_is_sent_once_and_kept_nowhere() {
    for (says, ends) in [(Says::Sent, "success"), (unconnected(), "failed")] {
        let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
        let elsewhere = Elsewhere::new([says]);
        let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
        let mut plan: Value = serde_json::from_str(&plan("c", 600_000)).unwrap();
        plan["steps"][0]["deliveryMode"] = json!("best_effort");
        let running = run(&domain, plan.to_string());
        elsewhere.until_sent(1);
        let entry = elsewhere.sent.lock().unwrap()[0].clone();
        if ends == "success" {
            report(&domain, &entry, "done").await.unwrap();
        }
        assert_eq!(ended(running).await.terminal, ends);
        domain.close().await;
        assert_eq!(elsewhere.keys(), ["c:only:1"]);
        let contents = beside::read(&directory.data()).unwrap();
        assert_eq!(contents, beside::Contents::default());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_sends_messages_of_its_own_beside_those_of_steps() {
    use qm2_host::queue::{Channels, Drain, NewEntry};
    let (directory, clock) = (Directory::new(), ManualClock::at(BEGIN_MS));
    let elsewhere = Elsewhere::new([unconnected()]);
    let domain = open(&directory.data(), &clock, elsewhere.clone()).await;
    let running = run(&domain, plan("c", 600_000));
    until("the failure is kept", || {
        let contents = beside::read(&directory.data()).unwrap_or_default();
        contents.entries.iter().any(|entry| entry.retry_count == 1)
    });
    let queue = domain.queue().expect("there is a channel").clone();
    queue
        .enqueue(NewEntry::new("chat", "user:dana", "hello").key("own"))
        .await
        .unwrap();
    clock.forward(24_000);
    // A drain of the host's does not touch what belongs to the domain, whatever it calls its channel.
    let chat = Elsewhere::new([]);
    let channels = Channels::new()
        .channel("chat", chat.clone())
        .channel(COORDINATION, chat.clone());
    let done = queue
        .drain(&channels, &Drain::all())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((done.recovered, done.deferred_backoff), (1, 0));
    assert_eq!(chat.keys(), ["own"]);
    clock.forward(1_000);
    elsewhere.until_sent(2);
    let entry = elsewhere.sent.lock().unwrap()[1].clone();
    report(&domain, &entry, "done").await.unwrap();
    assert_eq!(ended(running).await.terminal, "success");
    domain.close().await;
    let closed = queue.load().await;
    assert!(matches!(closed, Err(HostError::Closed)), "{closed:?}");
}
