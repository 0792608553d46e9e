//! kill -9 of a process that sends, at random moments around send and ack, and what must hold afterwards.
//!
//! The process is this test itself, started anew. What left the process stands in a file that every send is appended to,
//! and is also what the channel is asked about; so it can be told exactly what was sent and how often.

use qm2_host::clock::ManualClock;
use qm2_host::queue::{
    Channel, Channels, Doing, Drain, DurableQueue, Entry, NewEntry, Options, Place, Reconciled,
    SendError, Sent, beside,
};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Names the folder, and says that this is the process to be killed.
const FOLDER: &str = "QM2_TEST_OUTBOX";
/// Says from which number on it makes entries.
const FROM: &str = "QM2_TEST_FROM";
const KILLS: u64 = 40;
/// Entries that one process makes at most: more than it comes to.
const ENTRIES_A_PROCESS: u64 = 100_000;
/// How many send at once.
const CALLERS: u64 = 8;

/// A file that lines are appended to, each in one write: what was written is there after a kill.
fn append(path: &Path, line: &str) {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).open(path).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Lines of such a file.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The world outside: what was sent stands in a file.
struct World {
    folder: PathBuf,
}

impl Channel for World {
    fn send<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            append(&self.folder.join("sent"), &entry.key);
            tokio::task::yield_now().await;
            // Of some the answer is lost on its way back, although the message came through.
            match entry.payload.ends_with("lost") {
                true => Err(SendError::Retryable("no answer".into())),
                false => Ok(Sent),
            }
        })
    }

    fn reconcile<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Reconciled> {
        Box::pin(async move {
            append(&self.folder.join("asked"), &entry.key);
            match lines(&self.folder.join("sent")).contains(&entry.key) {
                true => Reconciled::Sent,
                false => Reconciled::NotSent,
            }
        })
    }
}

/// The process that is killed: what is left is drained, then entries are made, sent and withdrawn until the end.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn child(folder: PathBuf, from: u64) {
    let queue = DurableQueue::open(folder.join("data")).unwrap();
    let world = Arc::new(World {
        folder: folder.clone(),
    });
    let channels = Channels::new().channel("world", world.clone());
    let next = Arc::new(AtomicU64::new(from));
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let (queue, folder, next) = (queue.clone(), folder.clone(), next.clone());
        callers.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                assert!(number < from + ENTRIES_A_PROCESS);
                make(&queue, &folder, number).await;
            }
        }));
    }
    let drain = Drain::all().pacing(Duration::ZERO);
    loop {
        queue.drain(&channels, &drain).await.unwrap();
        for caller in &callers {
            assert!(!caller.is_finished(), "a caller has failed");
        }
        tokio::task::yield_now().await;
    }
}

/// Puts one entry in, or takes it back; what was answered is written down.
async fn make(queue: &DurableQueue, folder: &Path, number: u64) {
    let key = format!("k{number}");
    let payload = match number % 5 {
        0 => "lost",
        _ => "answered",
    };
    let new = NewEntry::new("world", "somebody", payload).key(&key);
    let place = queue.enqueue(new).await.unwrap().place;
    assert_eq!(place, Place::New);
    append(&folder.join("enqueued"), &key);
    if number.is_multiple_of(7) {
        // Whether a pass had it in hand already shows in what was sent before the answer.
        let was_there = queue.withdraw(&key).await.unwrap();
        let sent = lines(&folder.join("sent")).contains(&key);
        let in_hand = sent || !was_there;
        append(
            &folder.join(if in_hand { "too late" } else { "withdrawn" }),
            &key,
        );
    }
}

#[test]
fn killed_at_any_moment_it_loses_nothing_and_sends_nothing_twice() {
    if let (Ok(folder), Ok(from)) = (std::env::var(FOLDER), std::env::var(FROM)) {
        return child(folder.into(), from.parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut in_flight = 0;
    for round in 0..KILLS {
        let before = lines(&folder.path().join("sent")).len();
        let mut killed = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("queue::crash::killed_at_any_moment_it_loses_nothing_and_sends_nothing_twice")
            .env(FOLDER, folder.path())
            .env(FROM, (round * ENTRIES_A_PROCESS).to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // From when it has begun to send, so that no kill is wasted on its start.
        let end = Instant::now() + Duration::from_secs(120);
        while lines(&folder.path().join("sent")).len() == before {
            let ended = killed.try_wait().unwrap();
            assert_eq!(ended, None, "round {round}: it ended by itself");
            assert!(Instant::now() < end, "round {round}: it sends nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(draw(60_000)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        in_flight += usize::from(check_left(folder.path(), round));
    }
    assert!(
        in_flight > 0,
        "no kill hit a send in flight, so nothing was shown"
    );
    settle(folder.path());
    let path = |name: &str| folder.path().join(name);
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for key in lines(&path("sent")) {
        *sent.entry(key).or_default() += 1;
    }
    let twice: Vec<_> = sent.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!(twice, [], "sent again");
    let withdrawn = lines(&path("withdrawn"));
    let enqueued = lines(&path("enqueued"));
    for key in &withdrawn {
        assert!(!sent.contains_key(key), "{key} was withdrawn and sent");
    }
    // One that was answered is sent or withdrawn. A withdrawal whose answer nobody has seen may stand, too.
    for key in &enqueued {
        let number: u64 = key[1..].parse().unwrap();
        let is_sent = sent.contains_key(key);
        let may_be_withdrawn = number.is_multiple_of(7);
        assert!(is_sent || may_be_withdrawn, "{key} is lost");
    }
    println!(
        "{KILLS} kills, {in_flight} with a send in flight: {} put in, {} sent, {} withdrawn, {} asked about",
        enqueued.len(),
        sent.len(),
        withdrawn.len(),
        lines(&path("asked")).len()
    );
}

/// What a killed process has left, before anybody goes on: nothing that was sent is as if it had not been. Says whether
/// there is one whose end nobody has seen.
fn check_left(folder: &Path, round: u64) -> bool {
    let left = beside::read(&folder.join("data")).unwrap();
    assert_eq!(left.dead_letters, [], "round {round}");
    let sent = lines(&folder.join("sent"));
    let mut seen = false;
    for entry in &left.entries {
        let is_sent = sent.contains(&entry.key);
        let is_noted = entry.state != qm2_host::queue::SendState::None;
        assert!(is_noted || !is_sent, "round {round}: {entry:?} was sent");
        seen |= is_noted;
    }
    seen
}

/// Drains what is left, in a process that nobody kills and that waits for nothing.
#[tokio::main(flavor = "current_thread")]
async fn settle(folder: &Path) {
    let clock = ManualClock::at(u64::MAX >> 12);
    let options = Options::new().clock(clock.clone());
    let queue = options.open(&folder.join("data")).unwrap();
    let world = Arc::new(World {
        folder: folder.to_owned(),
    });
    let channels = Channels::new().channel("world", world);
    let drain = Drain::all().pacing(Duration::ZERO);
    // Twice, because a lost answer is asked about after a wait.
    for _ in 0..2 {
        queue.drain(&channels, &drain).await.unwrap();
        clock.forward(600_000);
    }
    assert_eq!(queue.load().await.unwrap(), []);
    assert_eq!(queue.dead_letters().await.unwrap(), []);
    queue.close().await;
}
