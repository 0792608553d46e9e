//! How many messages a second the durable queue takes and gives back: enqueue and ack, each durable before it is answered.
//!
//! The entries are those of a queue that keeps one file an entry, so both can be run side by side on one disk:
//! `cargo run --release -p qm2-host --example queue_load [FOLDER [CALLERS…]]`. Sends nothing.

use qm2_host::Result;
use qm2_host::queue::{DurableQueue, NewEntry};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ENTRIES: usize = 20_000;

/// What a chat message looks like in such a queue.
fn payload(number: usize) -> String {
    let text = "x".repeat(200);
    format!(
        "{{\n  \"id\": \"{number}\",\n  \"channel\": \"test\",\n  \"to\": \"user\",\n  \"payloads\": [\n    {{\n      \
         \"text\": \"{text}\"\n    }}\n  ],\n  \"enqueuedAt\": 1790000000000,\n  \"retryCount\": 0\n}}"
    )
}

#[tokio::main]
async fn main() -> Result<()> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = given
        .unwrap_or_else(std::env::temp_dir)
        .join("qm2-queue-load");
    let mut callers: Vec<usize> = std::env::args()
        .skip(2)
        .filter_map(|word| word.parse().ok())
        .collect();
    if callers.is_empty() {
        callers = vec![1, 16];
    }
    for inflight in callers {
        let _ = std::fs::remove_dir_all(&folder);
        run(&folder, inflight).await?;
    }
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}

async fn run(folder: &Path, inflight: usize) -> Result<()> {
    let queue = DurableQueue::open(folder)?;
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..inflight {
        let (queue, next) = (queue.clone(), next.clone());
        callers.push(tokio::spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= ENTRIES {
                    return Ok::<_, qm2_host::HostError>(took);
                }
                let from = Instant::now();
                let new = NewEntry::new("test", "user", payload(number));
                let key = queue.enqueue(new).await?.key;
                queue.ack(&key).await?;
                took.push(from.elapsed());
            }
        }));
    }
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.expect("a caller does not panic")?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert!(queue.load().await?.is_empty(), "everything was acked");
    queue.close().await;
    took.sort_unstable();
    let at = |share: f64| {
        let index = (took.len() as f64 * share) as usize;
        took.get(index)
            .copied()
            .unwrap_or(Duration::ZERO)
            .as_secs_f64()
            * 1e3
    };
    println!(
        "{{\"peer\":\"qm2\",\"w\":\"queue-enqueue+ack\",\"inflight\":{inflight},\"entries\":{},\"per_s\":{:.0},\
         \"p50_ms\":{:.3},\"p99_ms\":{:.3}}}",
        took.len(),
        took.len() as f64 / seconds,
        at(0.5),
        at(0.99)
    );
    Ok(())
}
