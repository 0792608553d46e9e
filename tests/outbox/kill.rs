//! kill -9 of a process that sends attempts through a channel, and the next process of the same domain.
//!
//! The process is this test itself, started anew; what it has sent stands in a file outside.

use super::{config, report};
use crate::program::Directory;
use qm2_host::Domain;
use qm2_host::queue::{Channel, Doing, Entry, Reconciled, SendError, Sent, beside};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names the folder, and says that this is the process to be killed.
const FOLDER: &str = "QM2_TEST_CHANNEL";
const KILLS: u64 = 10;
const STEPS: usize = 24;

/// Somebody elsewhere: every send is a line of a file, which is also what is known of it.
struct Lines {
    file: PathBuf,
}

impl Lines {
    fn entries(&self) -> Vec<Entry> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let entry = |line: &str| {
            let (key, payload) = line.split_once(' ').expect("a key and an envelope");
            Entry {
                key: key.to_owned(),
                channel: String::new(),
                target: String::new(),
                payload: payload.to_owned(),
                enqueued_at_ms: 0,
                retry_count: 0,
                last_attempt_at_ms: None,
                last_error: None,
                state: qm2_host::queue::SendState::None,
                deadline_ms: None,
            }
        };
        text.lines().map(entry).collect()
    }
}

impl Channel for Lines {
    fn send<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let line = format!("{} {}\n", entry.key, entry.payload);
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true).open(&self.file);
            file.unwrap().write_all(line.as_bytes()).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(Sent)
        })
    }

    fn reconcile<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Reconciled> {
        Box::pin(async move {
            match self.entries().iter().any(|sent| sent.key == entry.key) {
                true => Reconciled::Sent,
                false => Reconciled::NotSent,
            }
        })
    }
}

fn plan() -> String {
    let step = |number: usize| {
        json!({
            "stepId": format!("s{number}"), "targetSession": format!("agent:{number}"), "timeoutMs": 600_000,
        })
    };
    json!({
        "coordinationId": "c", "objective": "A test.", "ownerSession": super::OWNER,
        "steps": (0..STEPS).map(step).collect::<Vec<_>>(),
    })
    .to_string()
}

async fn open(folder: PathBuf, lines: Arc<Lines>) -> Domain {
    let mut config = config();
    config.max_in_flight = STEPS as u64;
    let builder = Domain::builder(folder.join("data")).config(config);
    let opened = builder.channel_agent("agent:*", lines).open().await;
    opened.expect("the domain opens")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn child(folder: PathBuf) {
    let file = folder.join("sent");
    let domain = open(folder, Arc::new(Lines { file })).await;
    let _ = domain.run(plan().as_str()).await;
}

#[test]
fn killed_around_a_send_no_attempt_is_lost_and_none_is_sent_twice() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(folder.into());
    }
    let mut in_flight = 0;
    for round in 0..KILLS {
        let directory = Directory::new();
        let file = directory.folder().join("sent");
        let lines = Arc::new(Lines { file });
        let mut killed = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("outbox::kill::killed_around_a_send_no_attempt_is_lost_and_none_is_sent_twice")
            .env(FOLDER, directory.folder())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At another number of sends each time, so wherever that is between the first and the last.
        let end = Instant::now() + Duration::from_secs(120);
        let at = 1 + (round as usize * 7) % (STEPS - 1);
        while lines.entries().len() < at {
            assert!(Instant::now() < end, "round {round}: it sends nothing");
            assert_eq!(killed.try_wait().unwrap(), None, "round {round}");
            std::thread::sleep(Duration::from_micros(200));
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        let left = beside::read(&directory.data()).unwrap().entries;
        in_flight += usize::from(!left.is_empty());
        settle(&directory, lines, round);
    }
    assert!(
        in_flight > 0,
        "no kill left anything on its way, so nothing was shown"
    );
}

/// The next process sends the rest, and whoever has the attempts ends them.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn settle(directory: &Directory, lines: Arc<Lines>, round: u64) {
    let domain = open(directory.folder().to_owned(), lines.clone()).await;
    let running = super::run(&domain, plan());
    crate::program::until("every step is acknowledged", || {
        let records = directory.records().into_iter();
        let acks = records.filter(|record| record["type"] == "step.acknowledged");
        acks.count() == STEPS
    });
    let entries = lines.entries();
    let mut sent: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &entries {
        *sent.entry(&entry.key).or_default() += 1;
    }
    assert_eq!(sent.len(), STEPS, "round {round}: {sent:?}");
    assert!(
        sent.values().all(|&count| count == 1),
        "round {round}: {sent:?}"
    );
    for entry in &entries {
        report(&domain, entry, "done").await.unwrap();
    }
    assert_eq!(super::ended(running).await.terminal, "success");
    domain.close().await;
    let retries = directory.records().into_iter();
    let mut retries = retries.filter(|record| record["type"] == "step.retry_scheduled");
    assert_eq!(retries.next(), None, "round {round}");
    let contents = beside::read(&directory.data()).unwrap();
    assert_eq!(contents, beside::Contents::default(), "round {round}");
}
