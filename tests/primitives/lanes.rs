//! Lanes: CQ-1 to CQ-18 here; CQ-21 to CQ-30 in `later`, LN-1 to LN-6 in `turns`, and 72 hours of lanes in `endurance`.
//!
//! Time stands still unless a test moves it, and everything runs on one thread, so each order here is exact.

mod endurance;
mod later;
mod turns;

use qm2_host::lane::{
    Blocker, Cancelled, Condition, Entry, GroupError, Kept, LaneError, LaneSet, Priority, Queued,
    Signal, Task, Timeout, TimeoutCause, name,
};
use std::fmt::Display;
use std::future::pending;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};
use tracing::subscriber::DefaultGuard;

/// What happened, in order: notes of a test, and what was logged where it asked for that.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, text: impl Display) {
        self.lines().push(text.to_string());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines())
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("nobody panics with it")
    }

    /// Also takes what this thread logs.
    fn listen(&self) -> DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || log.clone())
            .without_time()
            .with_target(false)
            .with_ansi(false);
        tracing::subscriber::set_default(subscriber.finish())
    }

    /// Work that only notes something.
    fn entry(&self, text: &'static str) -> Entry<()> {
        let log = self.clone();
        Entry::new(move |_| {
            log.note(text);
            async {}
        })
    }

    /// Notes how an entry ends.
    fn watch<T: Send + 'static>(&self, text: &'static str, queued: Queued<T>) {
        let log = self.clone();
        tokio::spawn(async move {
            match queued.await {
                Ok(_) => log.note(format_args!("{text} ended")),
                Err(e) => log.note(format_args!("{text}: {e}")),
            }
        });
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.note(String::from_utf8_lossy(bytes).trim());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lanes() -> LaneSet {
    LaneSet::new(Handle::current())
}

/// Work that ends when its other half is dropped.
fn held() -> (oneshot::Sender<()>, Entry<()>) {
    let (open, gate) = oneshot::channel();
    let entry = Entry::new(|_| async {
        let _ = gate.await;
    });
    (open, entry)
}

/// Takes a slot of a lane until the result is dropped.
fn take_slot(lanes: &LaneSet, lane: &str) -> oneshot::Sender<()> {
    let (open, entry) = held();
    lanes.enqueue(lane, entry).detach();
    open
}

/// Lets everything run that can, without moving time.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn cq_01_a_lane_is_made_on_first_use_with_width_1_and_nothing_in_it() {
    let lanes = lanes();
    assert_eq!(lanes.kept(), Kept::default());
    assert_eq!(
        (
            lanes.width("new"),
            lanes.generation("new"),
            lanes.len("new")
        ),
        (1, 0, 0)
    );
    let holds = [take_slot(&lanes, "new"), take_slot(&lanes, "new")];
    assert_eq!((lanes.len("new"), lanes.active_count()), (2, 1));
    assert_eq!(lanes.kept().lanes, 1);
    drop(holds);
    settle().await;
    assert_eq!(lanes.kept(), Kept::default());
}

#[tokio::test(start_paused = true)]
async fn cq_02_names_are_trimmed_and_a_blank_one_is_main() {
    let lanes = lanes();
    let _holds = ["", " \t", "main ", " a"].map(|lane| take_slot(&lanes, lane));
    assert_eq!(
        (lanes.len("main"), lanes.len(" "), lanes.len("a ")),
        (3, 3, 1)
    );
    lanes.set_width("\n", 2);
    assert_eq!((lanes.width("main"), lanes.active_count()), (2, 3));
    assert_eq!((lanes.clear("  "), lanes.len("main")), (1, 2));
    assert_eq!((lanes.reset(" main"), lanes.generation(" ")), (2, 1));
    let entry = Entry::new(|task: Task| async move { task.lane().to_owned() });
    assert_eq!(lanes.enqueue(" b ", entry).await.expect("it runs"), "b");
}

#[tokio::test(start_paused = true)]
async fn cq_03_first_come_first_served_inside_a_lane_and_lanes_do_not_wait_for_each_other() {
    let (lanes, log) = (lanes(), Log::default());
    let hold = take_slot(&lanes, "a");
    for text in ["a1", "a2", "a3"] {
        lanes.enqueue("a", log.entry(text)).detach();
    }
    lanes.enqueue("b", log.entry("b1")).detach();
    assert_eq!(log.take(), ["b1"]);
    drop(hold);
    settle().await;
    assert_eq!(log.take(), ["a1", "a2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn cq_04_with_a_free_slot_the_task_is_entered_before_enqueue_returns() {
    let (lanes, log) = (lanes(), Log::default());
    lanes.set_width("l", 2);
    let first = log.clone();
    let first = Entry::new(move |_| {
        first.note("first");
        pending::<()>()
    });
    lanes.enqueue("l", first).detach();
    log.note("returned");
    let _hold = take_slot(&lanes, "l");
    lanes.enqueue("l", log.entry("no slot")).detach();
    assert_eq!(log.take(), ["first", "returned"]);
}

#[tokio::test(start_paused = true)]
async fn cq_05_enqueueing_from_inside_a_task_does_not_nest() {
    let (lanes, log) = (lanes(), Log::default());
    lanes.set_width("l", 3);
    let (inside, notes) = (lanes.clone(), log.clone());
    let entry = Entry::new(move |_| {
        notes.note("outer begins");
        inside.enqueue("l", notes.entry("inner")).detach();
        inside
            .enqueue("other", notes.entry("inner, other lane"))
            .detach();
        notes.note("outer ends");
        async {}
    });
    lanes.enqueue("l", entry).detach();
    log.note("returned");
    let seen = [
        "outer begins",
        "outer ends",
        "inner",
        "inner, other lane",
        "returned",
    ];
    assert_eq!(log.take(), seen);

    // However long the chain is, the stack stays as it is.
    fn chain(lanes: &LaneSet, left: u32) -> Entry<()> {
        let lanes = lanes.clone();
        Entry::new(move |_| {
            if left > 0 {
                lanes.enqueue("chain", chain(&lanes, left - 1)).detach();
            }
            async {}
        })
    }
    lanes.set_width("chain", 100_000);
    lanes.enqueue("chain", chain(&lanes, 50_000)).detach();
    assert_eq!(lanes.len("chain"), 50_001);
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn cq_06_a_lower_width_stops_nothing_and_a_higher_one_starts_at_once() {
    let (lanes, log) = (lanes(), Log::default());
    lanes.set_width("l", 3);
    let mut holds: Vec<_> = (0..3).map(|_| take_slot(&lanes, "l")).collect();
    lanes.enqueue("l", log.entry("fourth")).detach();
    lanes.enqueue("l", log.entry("fifth")).detach();
    lanes.set_width("l", 1);
    assert_eq!(lanes.active_count(), 3);
    holds.truncate(1);
    settle().await;
    assert_eq!((lanes.active_count(), log.take().len()), (1, 0));
    lanes.set_width("l", 2);
    assert_eq!(log.take(), ["fourth"]);
    settle().await;
    assert_eq!(log.take(), ["fifth"]);
}

#[tokio::test(start_paused = true)]
async fn cq_07_task_ids_start_at_1_and_count_what_is_started() {
    let lanes = lanes();
    let id = || Entry::new(|task: Task| async move { task.id() });
    let hold = take_slot(&lanes, "a");
    let dropped = lanes.enqueue("a", id().key("k"));
    let second = lanes.enqueue("a", id());
    assert_eq!(lanes.enqueue("b", id()).await.expect("it runs"), 2);
    assert_eq!(lanes.drop_waiting("k"), 1);
    drop(hold);
    assert_eq!(second.await.expect("it runs"), 3);
    assert!(matches!(dropped.await, Err(LaneError::Aborted { lane }) if lane == "a"));
}

#[tokio::test(start_paused = true)]
async fn cq_08_a_long_wait_is_told_to_the_caller_and_then_logged() {
    let (lanes, log) = (lanes(), Log::default());
    let _listening = log.listen();
    let hold = take_slot(&lanes, "l");
    let told = log.clone();
    let entry = log.entry("entered").on_wait(move |waited| {
        let (ms, behind) = (waited.waited.as_millis(), waited.queued_behind);
        told.note(format_args!("waited {ms}, behind {behind}"));
    });
    lanes.enqueue("l", entry).detach();
    advance(ms(1)).await;
    lanes.enqueue("l", log.entry("a little later")).detach();
    let never = log.entry("does not warn").warn_after(None);
    lanes.enqueue("l", never).detach();
    advance(ms(1_999)).await;
    drop(hold);
    settle().await;
    let mut lines = log.take();
    let warning = lines.remove(1);
    let seen = [
        "waited 2000, behind 2",
        "entered",
        "a little later",
        "does not warn",
    ];
    assert_eq!(lines, seen);
    assert!(
        warning.starts_with("WARN lane wait exceeded: waited 2000 ms in l,"),
        "{warning}"
    );
    assert!(warning.contains("queued behind 2"), "{warning}");
}

#[tokio::test(start_paused = true)]
async fn cq_09_a_panic_of_the_wait_callback_stops_no_lane() {
    let (lanes, log) = (lanes(), Log::default());
    let _listening = log.listen();
    let hold = take_slot(&lanes, "l");
    let entry = log.entry("first").warn_after(Duration::ZERO);
    lanes
        .enqueue("l", entry.on_wait(|_| panic!("callbacks may panic")))
        .detach();
    lanes.enqueue("l", log.entry("second")).detach();
    drop(hold);
    settle().await;
    let lines = log.take();
    assert_eq!(lines[0], "ERROR who is told of waits in lane l panicked");
    assert_eq!(lines[2..], ["first", "second"]);
    assert!(lanes.is_empty("l"));
}

#[tokio::test(start_paused = true)]
async fn cq_10_the_slot_is_free_then_the_next_starts_then_the_owner_is_told() {
    for fails in [None, Some("in its future"), Some("at once")] {
        let (lanes, log) = (lanes(), Log::default());
        let _listening = log.listen();
        let (open, gate) = oneshot::channel::<()>();
        let blocking = take_slot(&lanes, "l");
        let first = Entry::fallible(move |_| {
            assert!(fails != Some("at once"), "it fails at once");
            async move {
                let _ = gate.await;
                fails.map_or(Ok(()), Err)
            }
        });
        let mut first = lanes.enqueue("l", first);
        // The very moment in which the owner is told, which is before it runs.
        let told = Waker::from(Arc::new(Told(log.clone())));
        let mut told = Context::from_waker(&told);
        assert!(Pin::new(&mut first).poll(&mut told).is_pending());
        let (inside, notes) = (lanes.clone(), log.clone());
        let second = Entry::new(move |_| {
            notes.note(format_args!(
                "second enters, {} active",
                inside.active_count()
            ));
            async {}
        });
        lanes.enqueue("l", second).detach();
        drop(blocking);
        settle().await;
        drop(open);
        settle().await;
        let lines = log.take();
        let seen = match fails {
            None => vec!["second enters, 1 active", "the owner is told"],
            Some("at once") => vec![
                "ERROR task 2 of lane l failed: the work panicked: it fails at once",
                "second enters, 1 active",
                "the owner is told",
            ],
            Some(_) => vec![
                "ERROR task 2 of lane l failed: in its future",
                "second enters, 1 active",
                "the owner is told",
            ],
        };
        assert_eq!(lines, seen);
        assert_eq!(first.await.is_err(), fails.is_some());
    }
}

/// Notes when it is woken.
struct Told(Log);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.note("the owner is told");
    }
}

#[derive(Debug, PartialEq)]
struct OwnError(u32);

impl Display for OwnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error {}", self.0)
    }
}

impl std::error::Error for OwnError {}

#[tokio::test(start_paused = true)]
async fn cq_11_a_failure_is_its_callers_alone() {
    let lanes = lanes();
    let hold = take_slot(&lanes, "l");
    let fails = lanes.enqueue(
        "l",
        Entry::fallible(|_| async { Err::<(), _>(OwnError(7)) }),
    );
    let panics = lanes.enqueue("l", Entry::<()>::of(async { panic!("it {}", "panics") }));
    let panics_at_once = Entry::<()>::new(|_| -> std::future::Ready<()> { panic!("at once") });
    let panics_at_once = lanes.enqueue("l", panics_at_once);
    let works = lanes.enqueue("l", Entry::fallible(|_| async { Ok::<_, OwnError>(8) }));
    drop(hold);
    assert_eq!(works.await.expect("it works"), 8);
    match fails.await {
        Err(LaneError::Failed(e)) => assert_eq!(e.downcast_ref(), Some(&OwnError(7))),
        other => panic!("{other:?}"),
    }
    for (queued, says) in [(panics, "it panics"), (panics_at_once, "at once")] {
        match queued.await {
            Err(LaneError::Panicked { message }) => assert_eq!(message, says),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lanes.kept(), Kept::default());
}

#[tokio::test(start_paused = true)]
async fn cq_12_failures_in_probe_lanes_are_not_logged() {
    let (lanes, log) = (lanes(), Log::default());
    let _listening = log.listen();
    for lane in ["auth-probe:x", "session:probe-1", "session:a", "probe"] {
        let entry = Entry::fallible(|_| async { Err::<(), _>("no") });
        let failed = lanes.enqueue(lane, entry).await;
        assert!(matches!(failed, Err(LaneError::Failed(_))), "{lane}");
    }
    let seen = ["session:a", "probe"].into_iter().zip([3, 4]);
    let seen: Vec<String> = seen
        .map(|(lane, id)| format!("ERROR task {id} of lane {lane} failed: no"))
        .collect();
    assert_eq!(log.take(), seen);
}

#[tokio::test(start_paused = true)]
async fn cq_13_sizes_count_what_waits_and_runs_and_asking_makes_no_lane() {
    let lanes = lanes();
    lanes.set_width("b", 2);
    let _holds = ["a", "a", "a", "b", "b", "c"].map(|lane| take_slot(&lanes, lane));
    lanes.set_width("paused", 0);
    let _waits = take_slot(&lanes, "paused");
    assert_eq!(
        (lanes.len("a"), lanes.len("b"), lanes.len("nobody")),
        (3, 2, 0)
    );
    assert_eq!((lanes.len_total(), lanes.active_count()), (7, 4));
    assert_eq!(lanes.active_lanes(), ["a", "b", "c"]);
    assert!(!lanes.is_empty("paused") && lanes.is_empty("nobody"));
    assert_eq!(lanes.kept().lanes, 4);
}

#[tokio::test(start_paused = true)]
async fn cq_14_clearing_rejects_what_waits_in_order_and_touches_nothing_that_runs() {
    let (lanes, log) = (lanes(), Log::default());
    let hold = take_slot(&lanes, "l");
    let other = take_slot(&lanes, "other");
    for (text, priority, session) in [
        ("first", Priority::Low, "s"),
        ("second", Priority::Critical, "t"),
        ("third", Priority::Normal, "s"),
    ] {
        let entry = Entry::of(async {}).priority(priority).session(session);
        log.watch(text, lanes.enqueue("l", entry));
    }
    settle().await;
    assert_eq!((lanes.clear("l"), lanes.len("l")), (3, 1));
    settle().await;
    let seen = ["first", "second", "third"].map(|text| format!("{text}: lane l was cleared"));
    assert_eq!(log.take(), seen);
    assert_eq!((lanes.clear("l"), lanes.clear("nobody")), (0, 0));
    assert_eq!(lanes.active_count(), 2);
    drop((hold, other));
    settle().await;
    assert_eq!(lanes.kept(), Kept::default());
}

#[tokio::test(start_paused = true)]
async fn cq_15_a_reset_of_all_keeps_what_waits_and_starts_it_after_all_are_reset() {
    let (lanes, log) = (lanes(), Log::default());
    let mut holds = Vec::new();
    for lane in ["a", "b"] {
        holds.push(take_slot(&lanes, lane));
        let (inside, notes) = (lanes.clone(), log.clone());
        let entry = Entry::new(move |_| {
            let generations = ["a", "b"].map(|lane| inside.generation(lane));
            notes.note(format_args!("{lane} {generations:?}"));
            pending::<()>()
        });
        lanes.enqueue(lane, entry).detach();
        lanes.enqueue(lane, log.entry("waits on")).detach();
    }
    lanes.begin_draining();
    assert_eq!(lanes.reset_all(), 2);
    assert_eq!(log.take(), ["a [1, 1]", "b [1, 1]"]);
    assert_eq!(
        (lanes.len("a"), lanes.len("b"), lanes.is_draining()),
        (2, 2, false)
    );
}

#[tokio::test(start_paused = true)]
async fn cq_16_a_completion_of_an_older_generation_frees_nothing_and_reaches_its_caller() {
    let (lanes, log) = (lanes(), Log::default());
    let _listening = log.listen();
    let (open, gate) = oneshot::channel::<()>();
    let old = Entry::fallible(|task: Task| async move {
        let _ = gate.await;
        match task.has_slot() {
            true => Ok(()),
            false => Err("too late"),
        }
    });
    log.watch("old", lanes.enqueue("l", old));
    let new = take_slot(&lanes, "l");
    lanes.enqueue("l", log.entry("third")).detach();
    assert_eq!((lanes.reset("l"), lanes.len("l")), (1, 2));
    assert_eq!((lanes.kept().at_large, lanes.generation("l")), (1, 1));
    drop(open);
    settle().await;
    let seen = ["ERROR task 1 of lane l failed: too late", "old: too late"];
    assert_eq!(log.take(), seen);
    assert_eq!((lanes.len("l"), lanes.active_count()), (2, 1));
    drop(new);
    settle().await;
    assert_eq!(log.take(), ["third"]);
    assert_eq!(lanes.kept(), Kept::default());
}

#[tokio::test(start_paused = true)]
async fn cq_17_a_drain_wait_looks_only_at_what_runs_when_it_begins() {
    let lanes = lanes();
    assert!(lanes.wait_for_active(Duration::ZERO).await);
    let first = take_slot(&lanes, "a");
    let waits = take_slot(&lanes, "a");
    let drained = lanes.wait_for_active(ms(1_000));
    let later = take_slot(&lanes, "b");
    drop(first);
    assert!(drained.await);
    assert_eq!(lanes.active_lanes(), ["a", "b"]);

    let begun = Instant::now();
    assert!(!lanes.wait_for_active(ms(1_000)).await);
    assert_eq!(begun.elapsed(), ms(1_000));
    // A reset counts.
    let drained = lanes.wait_for_active(ms(1_000));
    assert_eq!(lanes.reset_all(), 2);
    assert!(drained.await);
    drop((waits, later));
}

#[test]
fn cq_18_lanes_keep_nothing_over_a_restart() {
    let runtime = || Builder::new_current_thread().build().expect("a runtime");
    let first = runtime();
    let lanes = LaneSet::new(first.handle().clone());
    let log = Log::default();
    let mut lost = vec![lanes.enqueue("l", Entry::of(pending::<()>()))];
    lost.push(lanes.enqueue("l", Entry::of(async {})));
    for _ in 0..10_000 {
        // All of these are dropped one after another as soon as the runtime is gone, and none inside another.
        lanes.enqueue("l", log.entry("entered")).detach();
    }
    drop(first);
    assert_eq!(lanes.kept(), Kept::default());
    runtime().block_on(async {
        for queued in lost {
            assert!(matches!(queued.await, Err(LaneError::Dropped)));
        }
    });
    // What waits in lanes that are gone is gone with them.
    let second = runtime();
    let lanes = LaneSet::new(second.handle().clone());
    lanes.set_width("l", 0);
    let waits = lanes.enqueue("l", Entry::of(async {}));
    drop(lanes);
    assert!(matches!(second.block_on(waits), Err(LaneError::Dropped)));
}
