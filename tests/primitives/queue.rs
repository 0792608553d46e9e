//! Durable queue: DQ-1 to DQ-19, and what the queue promises beside them.
//!
//! Recipients here say what their script says; the queue, its file and its thread are the real ones.

mod bounds;
mod crash;
mod damage;
mod settle;

use qm2_host::HostError;
use qm2_host::clock::ManualClock;
use qm2_host::queue::{
    Channel, Channels, DeadEntry, Delivered, Doing, Drain, DurableQueue, Entry, NewEntry, Options,
    Place, Policy, Reason, Reconciled, SendError, SendState, Sent, Summary, beside, is_permanent,
    wait,
};
use rusqlite::Connection;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// When every test begins.
const BEGIN_MS: u64 = 1_000_000_000;

type Seen = Box<dyn FnMut(&Entry) + Send>;

/// A recipient behind a channel called `chat`.
#[derive(Default)]
struct Recipient {
    /// Keys and payloads that were sent, in order.
    sent: Mutex<Vec<(String, String)>>,
    /// Keys that it was asked about.
    asked: Mutex<Vec<String>>,
    /// What it says to the next sends; after that it takes everything.
    says: Mutex<VecDeque<SendError>>,
    /// What it knows of earlier sends; without it nothing was sent.
    knows: Mutex<VecDeque<Reconciled>>,
    /// Called with each entry while it is being sent.
    seen: Mutex<Option<Seen>>,
    /// Closed while it is being sent, so that the ack fails.
    closes: Mutex<Option<DurableQueue>>,
}

impl Recipient {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn saying(errors: impl IntoIterator<Item = SendError>) -> Arc<Self> {
        let says = Mutex::new(errors.into_iter().collect());
        Arc::new(Self {
            says,
            ..Self::default()
        })
    }

    fn knowing(answers: impl IntoIterator<Item = Reconciled>) -> Arc<Self> {
        let knows = Mutex::new(answers.into_iter().collect());
        Arc::new(Self {
            knows,
            ..Self::default()
        })
    }

    fn on_send(self: &Arc<Self>, seen: impl FnMut(&Entry) + Send + 'static) {
        *self.seen.lock().unwrap() = Some(Box::new(seen));
    }

    /// Keys that were sent, in order.
    fn keys(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        sent.iter().map(|(key, _)| key.clone()).collect()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Channel for Recipient {
    fn send<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            let sent = (entry.key.clone(), entry.payload.clone());
            self.sent.lock().unwrap().push(sent);
            if let Some(seen) = &mut *self.seen.lock().unwrap() {
                seen(entry);
            }
            let closes = self.closes.lock().unwrap().take();
            if let Some(queue) = closes {
                queue.close().await;
            }
            let says = self.says.lock().unwrap().pop_front();
            says.map_or(Ok(Sent), Err)
        })
    }

    fn reconcile<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Reconciled> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(entry.key.clone());
            let knows = self.knows.lock().unwrap().pop_front();
            knows.unwrap_or(Reconciled::NotSent)
        })
    }
}

/// A queue in a folder of its own, with a clock that stands still.
struct Outbox {
    folder: tempfile::TempDir,
    clock: ManualClock,
    queue: DurableQueue,
}

impl Outbox {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(BEGIN_MS);
        let queue = open(folder.path(), &clock);
        Self {
            folder,
            clock,
            queue,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// As a process that was started anew.
    async fn again(&mut self) {
        self.queue.close().await;
        self.queue = open(self.path(), &self.clock);
    }

    async fn put(&self, key: &str) {
        let enqueued = self.queue.enqueue(new(key)).await.unwrap();
        assert_eq!(enqueued.place, Place::New, "{key}");
    }

    async fn drain(&self, recipient: &Arc<Recipient>) -> Summary {
        drain(&self.queue, recipient).await
    }

    async fn entry(&self, key: &str) -> Entry {
        let entry = self.queue.entry(key).await.unwrap();
        entry.unwrap_or_else(|| panic!("{key} is not there"))
    }

    async fn dead(&self) -> Vec<DeadEntry> {
        self.queue.dead_letters().await.unwrap()
    }
}

fn open(folder: &Path, clock: &ManualClock) -> DurableQueue {
    let options = Options::new().clock(clock.clone());
    options.open(folder).expect("the queue opens")
}

fn new(key: &str) -> NewEntry {
    NewEntry::new("chat", "user:dana", format!("{{\"text\": \"{key}\"}}")).key(key)
}

fn chat(recipient: &Arc<Recipient>) -> Channels {
    Channels::new().channel("chat", recipient.clone())
}

async fn drain(queue: &DurableQueue, recipient: &Arc<Recipient>) -> Summary {
    let drain = Drain::all().pacing(Duration::ZERO);
    let done = queue.drain(&chat(recipient), &drain).await;
    done.unwrap().expect("no other drain is under way")
}

fn summary(recovered: u64, failed: u64, skipped: u64, deferred: u64) -> Summary {
    Summary {
        recovered,
        failed,
        skipped_max_retries: skipped,
        deferred_backoff: deferred,
    }
}

fn down() -> SendError {
    SendError::Retryable("503".into())
}

fn unconnected() -> SendError {
    SendError::NotConnected("connection refused".into())
}

/// The files of a queue, as a crash at this moment would leave them.
fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["outbox.db", "outbox.db-wal"] {
        if folder.join(name).exists() {
            fs::copy(folder.join(name), copy.path().join(name)).unwrap();
        }
    }
    copy
}

/// The database of a queue that nobody has open.
fn raw(folder: &Path) -> Connection {
    Connection::open(folder.join("outbox.db")).unwrap()
}

#[tokio::test]
async fn dq_01_entry_is_durable_before_its_first_send() {
    let place = Outbox::new();
    let recipient = Recipient::new();
    let (folder, found) = (place.path().to_owned(), Arc::new(Mutex::new(None)));
    let seen = found.clone();
    recipient.on_send(move |entry| {
        // What somebody finds who comes after a crash in the middle of the send.
        let left = beside::read(copy(&folder).path()).unwrap().entries;
        *seen.lock().unwrap() = Some((entry.clone(), left));
    });
    let sent = place.queue.send(new("a"), &*recipient, Policy::Required);
    let key = "a".to_owned();
    assert_eq!(sent.await.unwrap(), Delivered::Sent { key });
    let (entry, left) = found.lock().unwrap().take().expect("it was sent");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0], entry);
    assert_eq!(entry.state, SendState::SendStarted);
    assert_eq!(place.queue.load().await.unwrap(), []);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(place.path().to_owned()), 0o700);
    for name in ["outbox.db", "outbox.db-wal", "outbox.lock"] {
        assert_eq!(mode(place.path().join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn dq_01_torn_write_is_never_loaded() {
    let place = Outbox::new();
    place.put("before").await;
    let from = fs::metadata(place.path().join("outbox.db-wal"))
        .unwrap()
        .len();
    place.put("torn").await;
    let whole = copy(place.path());
    let log = fs::read(whole.path().join("outbox.db-wal")).unwrap();
    let from = usize::try_from(from).unwrap();
    assert!(from < log.len(), "the second entry is in the log");
    // Everywhere in what the second one has written, and at its end.
    let mut cuts: Vec<usize> = (from..log.len()).step_by(97).collect();
    cuts.push(log.len());
    for cut in cuts {
        fs::write(whole.path().join("outbox.db-wal"), &log[..cut]).unwrap();
        let _ = fs::remove_file(whole.path().join("outbox.db-shm"));
        let entries = beside::read(whole.path()).unwrap().entries;
        let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        match cut == log.len() {
            true => assert_eq!(keys, ["before", "torn"]),
            false => assert_eq!(keys, ["before"], "cut at {cut}"),
        }
    }
}

#[tokio::test]
async fn dq_02_new_entry_has_no_retries_and_its_payload_as_given() {
    let mut place = Outbox::new();
    let payload = " {\"b\":1,  \"a\": \"\u{1F980}\\u0041\"}\n not even JSON ";
    let given = NewEntry::new("chat", "user:dana", payload).key("a");
    place.queue.enqueue(given).await.unwrap();
    let entry = place.entry("a").await;
    let due = Entry {
        key: "a".into(),
        channel: "chat".into(),
        target: "user:dana".into(),
        payload: payload.into(),
        enqueued_at_ms: BEGIN_MS,
        retry_count: 0,
        last_attempt_at_ms: None,
        last_error: None,
        state: SendState::None,
        deadline_ms: None,
    };
    assert_eq!(entry, due);
    // The replay after a failure and a restart sends the very same.
    let recipient = Recipient::saying([unconnected()]);
    assert_eq!(place.drain(&recipient).await, summary(0, 1, 0, 0));
    place.again().await;
    place.clock.forward(25_000);
    assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
    let sent = recipient.sent.lock().unwrap().clone();
    let due = ("a".to_owned(), payload.to_owned());
    assert_eq!(sent, [due.clone(), due]);
    // Without a key of the caller's each is an entry of its own.
    let unnamed = || NewEntry::new("chat", "user:dana", "x");
    let first = place.queue.enqueue(unnamed()).await.unwrap();
    let second = place.queue.enqueue(unnamed()).await.unwrap();
    assert_eq!((first.place, second.place), (Place::New, Place::New));
    assert_ne!(first.key, second.key);
    assert_eq!(first.key.len(), 36, "a UUID: {}", first.key);
}

#[tokio::test]
async fn dq_03_ack_takes_the_entry_away_and_a_second_one_is_nothing() {
    let mut place = Outbox::new();
    place.put("a").await;
    place.put("b").await;
    assert!(place.queue.ack("a").await.unwrap());
    assert!(!place.queue.ack("a").await.unwrap());
    assert!(!place.queue.ack("never there").await.unwrap());
    place.again().await;
    let keys: Vec<String> = place
        .queue
        .load()
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.key)
        .collect();
    assert_eq!(keys, ["b"]);
    // That it could not be kept is no such nothing.
    place.queue.close().await;
    let closed = place.queue.ack("b").await;
    assert!(matches!(closed, Err(HostError::Closed)), "{closed:?}");
}

#[tokio::test]
async fn dq_04_crash_around_the_ack_never_delivers_again_what_was_acked() {
    let place = Outbox::new();
    let recipient = Recipient::new();
    let (log, size) = (place.path().join("outbox.db-wal"), Arc::new(Mutex::new(0)));
    let (log_then, size_then) = (log.clone(), size.clone());
    recipient.on_send(move |_| {
        *size_then.lock().unwrap() = fs::metadata(&log_then).unwrap().len();
    });
    let sent = place.queue.send(new("a"), &*recipient, Policy::Required);
    sent.await.unwrap();
    let left = copy(place.path());
    let whole = fs::read(&log).unwrap();
    let database = fs::read(left.path().join("outbox.db")).unwrap();
    let from = usize::try_from(*size.lock().unwrap()).unwrap();
    assert!(from < whole.len(), "the ack is in the log");
    let mut cuts: Vec<usize> = (from..whole.len()).step_by(311).collect();
    cuts.push(whole.len());
    let (mut acked, mut unacked) = (0, 0);
    for cut in cuts {
        let after = tempfile::tempdir().unwrap();
        fs::write(after.path().join("outbox.db"), &database).unwrap();
        fs::write(after.path().join("outbox.db-wal"), &whole[..cut]).unwrap();
        let queue = open(after.path(), &place.clock);
        let other = Recipient::knowing([Reconciled::Sent]);
        let done = drain(&queue, &other).await;
        assert_eq!(other.keys(), [""; 0], "cut at {cut}: sent again");
        match done {
            done if done == summary(1, 0, 0, 0) => unacked += 1,
            done => {
                assert_eq!(done, summary(0, 0, 0, 0), "cut at {cut}");
                assert_eq!(
                    other.asked(),
                    [""; 0],
                    "an acked one is not even asked about"
                );
                acked += 1;
            }
        }
        assert_eq!(queue.load().await.unwrap(), [], "cut at {cut}");
        queue.close().await;
    }
    assert_eq!(acked, 1, "only the whole ack is one");
    assert!(unacked > 3, "{unacked}");
}

#[tokio::test]
async fn dq_05_failure_counts_and_says_what_and_when() {
    let mut place = Outbox::new();
    place.put("a").await;
    place.clock.forward(7);
    assert_eq!(place.queue.fail("a", "first").await.unwrap(), 1);
    place.clock.forward(7);
    assert_eq!(place.queue.fail("a", "second").await.unwrap(), 2);
    place.again().await;
    let entry = place.entry("a").await;
    assert_eq!(entry.retry_count, 2);
    assert_eq!(entry.last_error.as_deref(), Some("second"));
    assert_eq!(entry.last_attempt_at_ms, Some(BEGIN_MS + 14));
    assert_eq!(entry.enqueued_at_ms, BEGIN_MS);
    let unknown = place.queue.fail("b", "x").await.unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "queue entry \"b\": is not in the queue"
    );
}

#[tokio::test]
async fn dq_06_what_cannot_be_read_is_left_out_and_stops_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("never made");
    assert_eq!(beside::read(&nowhere).unwrap(), beside::Contents::default());
    assert!(!nowhere.exists(), "looking makes nothing");
    let mut place = Outbox::new();
    for key in ["a", "b", "c", "d", "e"] {
        place.put(key).await;
    }
    place.queue.close().await;
    let sql = raw(place.path());
    for damage in [
        "UPDATE entry SET payload = x'ff00' WHERE key = 'a'",
        "UPDATE entry SET state = 'half sent' WHERE key = 'b'",
        "UPDATE entry SET retry_count = -1 WHERE key = 'd'",
    ] {
        assert_eq!(sql.execute(damage, []).unwrap(), 1);
    }
    drop(sql);
    place.queue = open(place.path(), &place.clock);
    let recipient = Recipient::new();
    assert_eq!(place.drain(&recipient).await, summary(2, 0, 0, 0));
    assert_eq!(recipient.keys(), ["c", "e"]);
    assert_eq!(place.queue.load().await.unwrap(), []);
}

#[test]
fn dq_07_waits_of_5_s_25_s_2_min_and_10_min() {
    let seconds: Vec<u64> = (0..=8).map(|retry| wait(retry).as_secs()).collect();
    assert_eq!(seconds, [0, 5, 25, 120, 600, 600, 600, 600, 600]);
    assert_eq!(wait(u64::MAX).as_secs(), 600);
}

#[tokio::test]
async fn dq_08_entry_is_a_dead_letter_after_five_retries() {
    let mut place = Outbox::new();
    place.put("four").await;
    place.put("five").await;
    for _ in 0..4 {
        place.queue.fail("four", "503").await.unwrap();
        place.queue.fail("five", "503").await.unwrap();
    }
    assert_eq!(place.queue.fail("five", "504").await.unwrap(), 5);
    // Not due, but given up at once; the other waits.
    let recipient = Recipient::new();
    assert_eq!(place.drain(&recipient).await, summary(0, 0, 1, 1));
    assert_eq!(recipient.keys(), [""; 0]);
    place.again().await;
    let dead = place.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, Reason::MaxRetries);
    assert_eq!(dead[0].entry.key, "five");
    assert_eq!(dead[0].entry.retry_count, 5);
    assert_eq!(dead[0].entry.last_error.as_deref(), Some("504"));
    // At the bound: four failures, and the fifth try may still succeed.
    place.clock.forward(600_000);
    assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
    assert_eq!(recipient.keys(), ["four"]);
}

#[tokio::test]
async fn dq_08_is_counted_as_skipped_even_if_it_cannot_be_moved() {
    let place = Outbox::new();
    place.put("first").await;
    place.put("spent").await;
    for _ in 0..5 {
        place.queue.fail("spent", "503").await.unwrap();
    }
    let recipient = Recipient::new();
    *recipient.closes.lock().unwrap() = Some(place.queue.clone());
    // The first is sent and cannot be acked, the other cannot be moved.
    assert_eq!(place.drain(&recipient).await, summary(0, 1, 1, 0));
}

#[tokio::test]
async fn dq_09_recovery_goes_from_the_oldest_on_within_its_budget() {
    let place = Outbox::new();
    let recipient = Recipient::new();
    assert_eq!(place.drain(&recipient).await, Summary::default());
    place.clock.set(BEGIN_MS + 50);
    place.put("young").await;
    place.clock.set(BEGIN_MS);
    place.put("old 2").await;
    place.put("old 1").await;
    place.clock.set(BEGIN_MS + 100);
    let clock = place.clock.clone();
    recipient.on_send(move |_| clock.forward(30_000));
    // The first two use the minute up, to the millisecond.
    assert_eq!(place.drain(&recipient).await, summary(2, 0, 0, 0));
    assert_eq!(recipient.keys(), ["old 2", "old 1"]);
    let left = place.entry("young").await;
    assert_eq!((left.retry_count, left.last_error), (0, None));
    let longer = Drain::all()
        .pacing(Duration::ZERO)
        .budget(Duration::from_millis(60_001));
    for key in ["x", "y"] {
        place.put(key).await;
    }
    let done = place.queue.drain(&chat(&recipient), &longer).await.unwrap();
    assert_eq!(done, Some(summary(3, 0, 0, 0)));
}

#[tokio::test]
async fn dq_10_head_that_waits_does_not_keep_the_others_back() {
    let place = Outbox::new();
    place.put("head").await;
    for _ in 0..3 {
        place.queue.fail("head", "503").await.unwrap();
    }
    place.put("young 1").await;
    place.put("young 2").await;
    let recipient = Recipient::new();
    // It waits ten minutes, which is far past the budget of the whole pass.
    assert_eq!(place.drain(&recipient).await, summary(2, 0, 0, 1));
    assert_eq!(recipient.keys(), ["young 1", "young 2"]);
}

#[tokio::test]
async fn dq_11_sent_and_not_acked_counts_as_failed_and_is_sent_again_at_most_after_asking() {
    for (knows, sent_again) in [(Reconciled::NotSent, true), (Reconciled::Sent, false)] {
        let mut place = Outbox::new();
        place.put("a").await;
        let recipient = Recipient::knowing([knows]);
        *recipient.closes.lock().unwrap() = Some(place.queue.clone());
        assert_eq!(place.drain(&recipient).await, summary(0, 1, 0, 0));
        place.again().await;
        assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
        assert_eq!(recipient.asked(), ["a"]);
        assert_eq!(recipient.keys().len(), 1 + usize::from(sent_again));
        assert_eq!(place.queue.load().await.unwrap(), []);
    }
}

#[tokio::test]
async fn dq_12_entry_is_passed_over_until_it_is_due() {
    let mut place = Outbox::new();
    place.put("a").await;
    let recipient = Recipient::saying([unconnected(), unconnected(), unconnected()]);
    // The first replay is due at once. After that: 25 s, 2 min.
    assert_eq!(place.drain(&recipient).await, summary(0, 1, 0, 0));
    for wait_ms in [25_000, 120_000] {
        place.clock.forward(wait_ms - 1);
        place.again().await;
        assert_eq!(place.drain(&recipient).await, summary(0, 0, 0, 1));
        place.clock.forward(1);
        assert_eq!(place.drain(&recipient).await, summary(0, 1, 0, 0));
    }
    let entry = place.entry("a").await;
    assert_eq!(entry.retry_count, 3, "waiting costs no retry");
    assert_eq!(entry.due_ms(), entry.last_attempt_at_ms.unwrap() + 600_000);
}

#[tokio::test]
async fn dq_13_entry_with_retries_and_no_attempt_time_gets_its_enqueue_time() {
    let mut place = Outbox::new();
    place.put("a").await;
    place.queue.close().await;
    let sql = raw(place.path());
    sql.execute("UPDATE entry SET retry_count = 1", []).unwrap();
    drop(sql);
    place.clock.forward(24_999);
    place.queue = open(place.path(), &place.clock);
    let recipient = Recipient::new();
    assert_eq!(place.drain(&recipient).await, summary(0, 0, 0, 1));
    place.again().await;
    assert_eq!(place.entry("a").await.last_attempt_at_ms, Some(BEGIN_MS));
    place.clock.forward(1);
    assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
}

#[tokio::test]
async fn dq_14_bad_address_burns_no_retries() {
    let place = Outbox::new();
    place.put("a").await;
    let recipient = Recipient::saying([SendError::Retryable("400: chat not found".into())]);
    assert_eq!(place.drain(&recipient).await, summary(0, 1, 0, 0));
    for _ in 0..5 {
        place.clock.forward(600_000);
        assert_eq!(place.drain(&recipient).await, Summary::default());
    }
    assert_eq!(recipient.keys(), ["a"]);
}

#[tokio::test]
async fn dq_15_permanent_error_is_a_dead_letter_at_once() {
    let permanent = [
        "No conversation reference found for x",
        "400: Bad Request: chat not found",
        "User not found",
        "Forbidden: bot was BLOCKED by the user",
        "Forbidden: bot was kicked from the group",
        "Forbidden: bot is not a member of the channel",
        "chat_id is empty",
        "Recipient is not a valid address",
        "Outbound not configured for channel: x",
        "Ambiguous Discord recipient \"1\"",
        "ambiguous recipient",
        "Ambiguous Slack recipient: 2 match",
        "M_FORBIDDEN: user not in room",
    ];
    let place = Outbox::new();
    for (index, says) in permanent.iter().enumerate() {
        assert!(is_permanent(says), "{says}");
        place.put(&index.to_string()).await;
    }
    place.put("by its kind").await;
    let mut says: Vec<SendError> = permanent
        .iter()
        .map(|&says| SendError::NotConnected(says.into()))
        .collect();
    says.push(SendError::Permanent("gone".into()));
    let count = says.len() as u64;
    let recipient = Recipient::saying(says);
    assert_eq!(place.drain(&recipient).await, summary(0, count, 0, 0));
    let dead = place.dead().await;
    assert_eq!(dead.len() as u64, count);
    for (one, says) in dead.iter().zip(permanent.iter().chain(&["gone"])) {
        assert_eq!(one.reason, Reason::Permanent);
        assert_eq!(one.entry.retry_count, 0);
        assert_eq!(one.entry.last_error.as_deref(), Some(*says));
    }
    for says in [
        "503",
        "chat was not found yet",
        "timeout",
        "ambiguous answer of the recipient",
        "the user is busy",
        "",
    ] {
        assert!(!is_permanent(says), "{says}");
    }
}

#[tokio::test]
async fn dq_16_what_a_recovery_did_is_summed_up() {
    let place = Outbox::new();
    for key in ["sent", "down", "bad", "spent", "waits", "last"] {
        place.put(key).await;
        place.clock.forward(1);
    }
    for _ in 0..5 {
        place.queue.fail("spent", "503").await.unwrap();
    }
    place.queue.fail("waits", "503").await.unwrap();
    let recipient = Recipient::new();
    let says = [down(), SendError::Permanent("no".into())];
    let (says, clock) = (Mutex::new(VecDeque::from(says)), place.clock.clone());
    let script = recipient.clone();
    recipient.on_send(move |entry| {
        if ["down", "bad"].contains(&entry.key.as_str()) {
            let next = says.lock().unwrap().pop_front().unwrap();
            script.says.lock().unwrap().push_back(next);
        }
        clock.forward(1_000);
    });
    let brief = Drain::all()
        .pacing(Duration::ZERO)
        .budget(Duration::from_millis(3_001));
    let done = place.queue.drain(&chat(&recipient), &brief).await.unwrap();
    let done = done.unwrap();
    // The last one is reached one millisecond before the budget ends.
    assert_eq!(done, summary(2, 2, 1, 1));
    let json = serde_json::to_string(&done).unwrap();
    let due = r#"{"recovered":2,"failed":2,"skippedMaxRetries":1,"deferredBackoff":1}"#;
    assert_eq!(json, due);
    place.put("a").await;
    place.put("b").await;
    let none = brief.budget(Duration::ZERO);
    let done = place.queue.drain(&chat(&recipient), &none).await.unwrap();
    assert_eq!(done, Some(Summary::default()));
    assert_eq!(place.entry("a").await.retry_count, 0);
}

/// What became of the one entry of a test.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Acked,
    Kept(SendState, u32),
    Dead(Reason),
}

#[tokio::test]
async fn dq_17_what_may_have_been_sent_is_reconciled_and_never_sent_blindly() {
    let unresolved = |retryable| Reconciled::Unresolved {
        retryable,
        error: "who knows".into(),
    };
    let partly = || SendError::PartlySent("2 of 3 parts".into());
    // How the first send ended, what the channel knows of it, whether it is sent again, and what becomes of it.
    let rows: [(Option<SendError>, Reconciled, bool, Became); 9] = [
        (None, Reconciled::Sent, false, Became::Acked),
        (None, Reconciled::NotSent, true, Became::Acked),
        (
            None,
            unresolved(true),
            false,
            Became::Kept(SendState::SendStarted, 1),
        ),
        (
            None,
            unresolved(false),
            false,
            Became::Dead(Reason::Unresolved),
        ),
        (Some(down()), Reconciled::Sent, false, Became::Acked),
        (Some(down()), Reconciled::NotSent, true, Became::Acked),
        (Some(partly()), Reconciled::Sent, false, Became::Acked),
        // The channel contradicts the evidence.
        (
            Some(partly()),
            Reconciled::NotSent,
            false,
            Became::Dead(Reason::Unresolved),
        ),
        (
            Some(partly()),
            unresolved(true),
            false,
            Became::Kept(SendState::UnknownAfterSend, 2),
        ),
    ];
    for (index, (ended, knows, sent_again, became)) in rows.into_iter().enumerate() {
        let mut place = Outbox::new();
        place.put("a").await;
        let first = Recipient::saying(ended.clone());
        if ended.is_none() {
            // The process dies in the middle of the send.
            *first.closes.lock().unwrap() = Some(place.queue.clone());
        }
        assert_eq!(
            place.drain(&first).await,
            summary(0, 1, 0, 0),
            "row {index}"
        );
        place.again().await;
        place.clock.forward(25_000);
        // Without its adapter it waits, and that costs nothing.
        let before = place.entry("a").await;
        let missing = place.queue.drain(&Channels::new(), &Drain::all()).await;
        assert_eq!(missing.unwrap(), Some(summary(0, 0, 0, 1)), "row {index}");
        assert_eq!(place.entry("a").await, before, "row {index}");
        let second = Recipient::knowing([knows]);
        place.drain(&second).await;
        assert_eq!(second.asked(), ["a"], "row {index}");
        assert_eq!(second.keys().len(), usize::from(sent_again), "row {index}");
        let is = match (
            place.queue.load().await.unwrap().pop(),
            place.dead().await.pop(),
        ) {
            (Some(entry), None) => Became::Kept(entry.state, entry.retry_count),
            (None, Some(dead)) => Became::Dead(dead.reason),
            (None, None) => Became::Acked,
            both => panic!("row {index}: {both:?}"),
        };
        assert_eq!(is, became, "row {index}");
    }
}

#[tokio::test]
async fn dq_17_error_before_the_connection_clears_the_evidence() {
    let place = Outbox::new();
    place.put("a").await;
    let recipient = Recipient::saying([down(), unconnected()]);
    place.drain(&recipient).await;
    assert_eq!(place.entry("a").await.state, SendState::SendStarted);
    place.clock.forward(25_000);
    place.drain(&recipient).await;
    assert_eq!(recipient.asked(), ["a"], "the first may have come through");
    assert_eq!(place.entry("a").await.state, SendState::None);
    place.clock.forward(120_000);
    assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
    assert_eq!(recipient.asked(), ["a"], "of the second nothing had left");
    assert_eq!(recipient.keys(), ["a", "a", "a"]);
}

#[tokio::test]
async fn dq_18_one_drain_at_a_time_and_one_claim_an_entry() {
    let place = Outbox::new();
    place.put("a").await;
    place.put("b").await;
    let recipient = Recipient::new();
    let (go, gate) = tokio::sync::watch::channel(false);
    let slow = Arc::new(Slow {
        inner: recipient.clone(),
        begun: tokio::sync::Notify::new(),
        gate,
    });
    let slow_chat = Channels::new().channel("chat", slow.clone());
    let one = Drain::channel("chat").pacing(Duration::ZERO);
    let first = {
        let (queue, channels, one) = (place.queue.clone(), slow_chat.clone(), one.clone());
        tokio::spawn(async move { queue.drain(&channels, &one).await })
    };
    slow.begun.notified().await;
    // The same drain is not begun again; another one passes over the entry that is in hand.
    assert_eq!(place.queue.drain(&slow_chat, &one).await.unwrap(), None);
    assert_eq!(place.drain(&recipient).await, summary(1, 0, 0, 0));
    assert_eq!(recipient.keys(), ["b"]);
    go.send_replace(true);
    // The second entry is gone when the first drain comes to it.
    assert_eq!(first.await.unwrap().unwrap(), Some(summary(1, 0, 0, 0)));
    assert_eq!(recipient.keys(), ["b", "a"]);
    let again = place.queue.drain(&slow_chat, &one).await.unwrap();
    assert_eq!(again, Some(Summary::default()), "the key is free again");
}

#[tokio::test]
async fn dq_18_replays_are_paced() {
    let place = Outbox::new();
    for key in ["a", "b", "c"] {
        place.put(key).await;
    }
    place.put("waits").await;
    place.queue.fail("waits", "503").await.unwrap();
    let recipient = Recipient::new();
    let pause = Duration::from_millis(30);
    let begun = Instant::now();
    let paced = Drain::all().pacing(pause);
    let done = place.queue.drain(&chat(&recipient), &paced).await.unwrap();
    assert_eq!(done, Some(summary(3, 0, 0, 1)));
    // Between three there are two; a sleep is never shorter than it was asked to be.
    assert!(begun.elapsed() >= 2 * pause);
}

#[tokio::test]
async fn dq_19_caller_chooses_whether_a_failed_enqueue_fails_the_send() {
    let place = Outbox::new();
    let recipient = Recipient::new();
    place.queue.close().await;
    let required = place.queue.send(new("a"), &*recipient, Policy::Required);
    let required = required.await;
    assert!(matches!(required, Err(HostError::Closed)), "{required:?}");
    assert_eq!(recipient.keys(), [""; 0]);
    let effort = place.queue.send(new("a"), &*recipient, Policy::BestEffort);
    let key = "a".to_owned();
    assert_eq!(effort.await.unwrap(), Delivered::Sent { key });
    assert_eq!(recipient.keys(), ["a"]);
    recipient.says.lock().unwrap().push_back(down());
    let effort = place.queue.send(new("b"), &*recipient, Policy::BestEffort);
    let error = "503".to_owned();
    assert_eq!(effort.await.unwrap(), Delivered::Lost { error });
}

/// A recipient that takes its time.
struct Slow {
    inner: Arc<Recipient>,
    begun: tokio::sync::Notify,
    gate: tokio::sync::watch::Receiver<bool>,
}

impl Channel for Slow {
    fn send<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            self.begun.notify_one();
            let mut gate = self.gate.clone();
            gate.wait_for(|&open| open)
                .await
                .expect("the test opens it");
            self.inner.send(entry).await
        })
    }

    fn reconcile<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Reconciled> {
        self.inner.reconcile(entry)
    }
}
