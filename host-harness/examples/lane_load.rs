//! Load on the lanes alone: what one does in a second, and how much memory its entries take at most.
//!
//! `cargo run --release --example lane_load [TASKS]` prints a line of JSON for each workload, once with one thread and once
//! with as many as there are processors. Tasks do nothing, so this is what a lane costs and not what work costs. Every result
//! is waited for. Compares nothing by itself.

use qm2_host::lane::{Entry, Kept, LaneSet, Queued};
use serde_json::json;
use std::fs;
use std::time::Instant;
use tokio::runtime::{Builder, Handle};

/// Sessions, and lanes, that are busy at once.
const SESSIONS: usize = 10_000;
const WIDTH: usize = 4;

fn main() {
    let tasks = std::env::args().nth(1).map_or(100_000, |tasks| {
        tasks.parse().expect("the number of tasks is a number")
    });
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, processors] {
        let mut builder = match threads {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        let runtime = builder.build().expect("a runtime");
        for workload in [bulk, one_at_a_time, session_lanes, sessions_of_a_lane] {
            runtime.block_on(async {
                // On the runtime's threads, as work that enqueues work is.
                let ended = tokio::spawn(workload(tasks, threads)).await;
                ended.expect("no workload panics");
            });
        }
    }
}

type Ended = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// All into one lane, then all results.
fn bulk(tasks: usize, threads: usize) -> Ended {
    measured("lane-bulk", tasks, threads, async move |lanes| {
        lanes.set_width("l", WIDTH);
        all((0..tasks).map(|_| lanes.enqueue("l", noop()))).await;
        lanes.set_width("l", 1);
    })
}

/// The next once the last has ended.
fn one_at_a_time(tasks: usize, threads: usize) -> Ended {
    measured("lane-one-at-a-time", tasks, threads, async move |lanes| {
        for _ in 0..tasks {
            lanes.enqueue("l", noop()).await.expect("it runs");
        }
    })
}

/// In turn into as many lanes as there are sessions.
fn session_lanes(tasks: usize, threads: usize) -> Ended {
    measured("lane-per-session", tasks, threads, async move |lanes| {
        let names: Vec<String> = (0..SESSIONS).map(|n| format!("session:{n}")).collect();
        let names = names.iter().cycle().take(tasks);
        all(names.map(|name| lanes.enqueue(name, noop()))).await;
    })
}

/// All into one lane, in turn for as many sessions, each of which runs one at a time.
fn sessions_of_a_lane(tasks: usize, threads: usize) -> Ended {
    measured("lane-with-sessions", tasks, threads, async move |lanes| {
        lanes.set_width("l", WIDTH);
        let names: Vec<String> = (0..SESSIONS).map(|n| format!("session:{n}")).collect();
        let names = names.iter().cycle().take(tasks);
        all(names.map(|name| lanes.enqueue("l", noop().session(name)))).await;
        lanes.set_width("l", 1);
    })
}

fn noop() -> Entry<()> {
    Entry::of(async {}).warn_after(None)
}

async fn all(queued: impl Iterator<Item = Queued<()>>) {
    let queued: Vec<_> = queued.collect();
    for queued in queued {
        queued.await.expect("it runs");
    }
}

fn measured<W, F>(name: &'static str, tasks: usize, threads: usize, work: W) -> Ended
where
    W: FnOnce(LaneSet) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    Box::pin(async move {
        let lanes = LaneSet::new(Handle::current());
        forget_peak();
        let before_mib = memory_mib("VmRSS:");
        let (begun, cpu) = (Instant::now(), cpu_ms());
        work(lanes.clone()).await;
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(lanes.kept(), Kept::default(), "something is left");
        let figures = json!({
            "w": name,
            "tasks": tasks,
            "threads": threads,
            "per_s": (tasks as f64 / took).round(),
            "cpu_us_per_task": (cpu_ms() - cpu) * 1e3 / tasks as f64,
            "before_mib": before_mib,
            "peak_mib": memory_mib("VmHWM:"),
        });
        println!("{figures}");
    })
}

/// What this process has had of the processors so far, in steps of 10 ms; a busy machine changes it less than the clock.
fn cpu_ms() -> f64 {
    const MS_PER_TICK: u64 = 10;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program may hold anything, up to the last bracket.
    let fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
    let ticks = fields
        .skip(12)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok());
    (ticks.sum::<u64>() * MS_PER_TICK) as f64
}

/// Begins a new peak; where the system does not, the peak is that since the program's start.
fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn memory_mib(line: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let found = status.lines().find_map(|text| text.strip_prefix(line))?;
    let kib: u64 = found.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1_024)
}
