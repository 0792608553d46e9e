//! Lanes: CQ-1 to CQ-30, LN-1 to LN-6, and 72 hours of them in virtual time.
//!
//! Time stands still unless a test moves it, and everything runs on one thread, so each order here is exact.

use qm2_host::lane::{
    Blocker, Cancelled, Condition, Entry, GroupError, Kept, LaneError, LaneSet, Priority, Queued,
    Signal, Task, Timeout, TimeoutCause, name,
};
use std::fmt::Display;
use std::future::pending;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
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
        log.watch("first", lanes.enqueue("l", first));
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
            None => vec!["second enters, 1 active", "first ended"],
            Some("at once") => vec![
                "ERROR task 2 of lane l failed: the work panicked: it fails at once",
                "second enters, 1 active",
                "first: the work panicked: it fails at once",
            ],
            Some(_) => vec![
                "ERROR task 2 of lane l failed: in its future",
                "second enters, 1 active",
                "first: in its future",
            ],
        };
        assert_eq!(lines, seen);
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

#[tokio::test(start_paused = true)]
async fn cq_21_while_draining_enqueue_is_refused() {
    let (lanes, log) = (lanes(), Log::default());
    let hold = take_slot(&lanes, "l");
    lanes.enqueue("l", log.entry("waited before")).detach();
    lanes
        .enqueue_turn("s", "l", log.entry("turn before"))
        .detach();
    lanes.begin_draining();
    let refused = lanes.enqueue("free", log.entry("refused")).await;
    assert!(matches!(refused, Err(LaneError::Draining)));
    let refused = lanes.enqueue_turn("t", "free", log.entry("refused")).await;
    assert!(matches!(refused, Err(LaneError::Draining)));
    assert!(lanes.is_draining() && lanes.is_empty("free"));
    drop(hold);
    settle().await;
    assert_eq!(log.take(), ["waited before", "turn before"]);
    assert_eq!(lanes.reset_all(), 0);
    lanes
        .enqueue("free", log.entry("taken"))
        .await
        .expect("it runs");
    assert_eq!(log.take(), ["taken"]);
}

#[tokio::test(start_paused = true)]
async fn cq_22_what_is_aborted_while_it_waits_leaves_the_lane() {
    let (lanes, log) = (lanes(), Log::default());
    let hold = take_slot(&lanes, "l");
    let (signal, other) = (Signal::new(), Signal::new());
    let mut aborted = Vec::new();
    for session in ["s", "s", "t"] {
        let entry = log.entry("aborted").session(session).abort_on(&signal);
        aborted.push(lanes.enqueue("l", entry));
    }
    lanes
        .enqueue("l", log.entry("stays").session("s").abort_on(&other))
        .detach();
    assert_eq!(lanes.len("l"), 5);
    signal.raise();
    assert_eq!(lanes.len("l"), 2);
    aborted.push(lanes.enqueue("free", log.entry("aborted").abort_on(&signal)));
    for queued in aborted {
        assert!(matches!(queued.await, Err(LaneError::Aborted { .. })));
    }
    drop(hold);
    settle().await;
    assert_eq!(log.take(), ["stays"]);

    // After the start only the work hears it.
    let entry = Entry::new(|task: Task| async move {
        task.aborted().await;
        sleep(ms(5_000)).await;
        task.has_slot()
    });
    let running = lanes.enqueue("l", entry.abort_on(&other));
    other.raise();
    settle().await;
    assert_eq!(lanes.active_count(), 1);
    assert!(running.await.expect("it ends by itself"));
    assert_eq!(lanes.kept(), Kept::default());
}

#[tokio::test(start_paused = true)]
async fn cq_23_priority_goes_first_then_sequence() {
    let (lanes, log) = (lanes(), Log::default());
    let hold = take_slot(&lanes, "l");
    for (text, priority) in [
        ("background", Priority::Low),
        ("normal 1", Priority::Normal),
        ("foreground 1", Priority::Critical),
        ("normal 2", Priority::Normal),
        ("high", Priority::High),
        ("foreground 2", Priority::Critical),
    ] {
        lanes
            .enqueue("l", log.entry(text).priority(priority))
            .detach();
    }
    drop(hold);
    settle().await;
    let seen = [
        "foreground 1",
        "foreground 2",
        "high",
        "normal 1",
        "normal 2",
        "background",
    ];
    assert_eq!(log.take(), seen);
}

#[tokio::test(start_paused = true)]
async fn cq_24_who_waits_30_s_rises_a_tier_and_never_to_the_foreground() {
    let (lanes, log) = (lanes(), Log::default());
    for (waits, seen) in [
        (29_999, ["foreground", "high", "normal", "old"]),
        (30_000, ["foreground", "high", "old", "normal"]),
        (60_000, ["foreground", "old", "high", "normal"]),
        (86_400_000, ["foreground", "old", "high", "normal"]),
    ] {
        let hold = take_slot(&lanes, "l");
        let note = |text, priority| {
            let entry = log.entry(text).priority(priority).warn_after(None);
            lanes.enqueue("l", entry).detach();
        };
        note("old", Priority::Low);
        advance(ms(waits)).await;
        note("normal", Priority::Normal);
        note("high", Priority::High);
        note("foreground", Priority::Critical);
        drop(hold);
        settle().await;
        assert_eq!(log.take(), seen, "after {waits} ms");
    }
}

/// An entry with a timeout, which fails when it is let go, and how it ended before that.
async fn timed_out(
    timeout: Timeout,
    abort: &Signal,
    release: &Signal,
) -> Option<(TimeoutCause, Duration)> {
    let (lanes, log) = (lanes(), Log::default());
    let _listening = log.listen();
    let begun = Instant::now();
    let (open, gate) = oneshot::channel::<()>();
    let entry = Entry::fallible(|task: Task| async move {
        sleep(ms(600)).await;
        task.progress();
        let _ = gate.await;
        Err::<(), _>(format!("late, with slot {}", task.has_slot()))
    });
    let entry = entry.timeout(timeout).abort_on(abort).release_on(release);
    let mut queued = lanes.enqueue("l", entry);
    lanes.enqueue("l", log.entry("next")).detach();
    let ended = tokio::time::timeout(ms(1_000_000), &mut queued).await;
    let Ok(ended) = ended else {
        assert_eq!((lanes.len("l"), log.take().len()), (2, 0));
        return None;
    };
    let Err(LaneError::TimedOut { lane, cause }) = ended else {
        panic!("{ended:?}");
    };
    settle().await;
    // The slot is free although the work is not done; what it says late is only logged.
    assert_eq!(
        (lane.as_str(), lanes.len("l"), lanes.kept().at_large),
        ("l", 0, 1)
    );
    let took = begun.elapsed();
    drop(open);
    settle().await;
    sleep(ms(600)).await;
    let says = format!("ERROR task 1 of lane l failed: timed out in lane l: {cause}");
    let late = "ERROR task 1 of lane l failed after its slot was taken away: late, with slot false";
    let mut lines = log.take();
    lines.retain(|line| !line.starts_with("WARN"));
    assert_eq!(lines, [says.as_str(), "next", late]);
    assert_eq!(lanes.kept(), Kept::default());
    Some((cause, took))
}

#[tokio::test(start_paused = true)]
async fn cq_25_a_timeout_releases_the_slot_while_the_work_may_go_on() {
    let (unused, raised) = (Signal::new(), Signal::new());
    raised.raise();
    let times_out = |timeout| timed_out(timeout, &unused, &unused);
    let seen = times_out(Timeout::task(ms(1_000))).await;
    assert_eq!(seen, Some((TimeoutCause::TaskBudget, ms(1_000))));
    // Idle counts from the progress at 600 ms.
    let seen = times_out(Timeout::idle(ms(700))).await;
    assert_eq!(seen, Some((TimeoutCause::ProgressIdle, ms(1_300))));
    let seen = times_out(Timeout::idle(ms(500))).await;
    assert_eq!(seen, Some((TimeoutCause::ProgressIdle, ms(500))));
    let seen = timed_out(Timeout::default(), &unused, &raised).await;
    assert_eq!(seen, Some((TimeoutCause::ReleaseSignal, ms(0))));

    // The grace after an abort is that of the task, unless it has one.
    for (abort_grace, at) in [(None, 2_000), (Some(ms(50)), 1_050), (Some(ms(0)), 2_000)] {
        let timeout = Timeout {
            idle: Some(ms(1_000)),
            abort_grace,
            ..Timeout::default()
        };
        let (abort, aborting) = (Signal::new(), Signal::new());
        let raise = abort.clone();
        tokio::spawn(async move {
            sleep(ms(1_000)).await;
            raise.raise();
        });
        let seen = timed_out(timeout, &abort, &aborting).await;
        // Idle ends at 1,600 where the grace does not end first.
        let cause = match at < 1_600 {
            true => (TimeoutCause::AbortGrace, ms(at)),
            false => (TimeoutCause::ProgressIdle, ms(1_600)),
        };
        assert_eq!(seen, Some(cause), "{abort_grace:?}");
    }
    let abort = Signal::new();
    let raise = abort.clone();
    tokio::spawn(async move {
        sleep(ms(100)).await;
        raise.raise();
    });
    let timeout = Timeout {
        task: Some(ms(2_000)),
        abort_grace: Some(ms(300)),
        ..Timeout::default()
    };
    let seen = timed_out(timeout, &abort, &unused).await;
    assert_eq!(seen, Some((TimeoutCause::AbortGrace, ms(400))));

    // No time, and more than there is, are none.
    let none = Timeout {
        task: Some(ms(0)),
        idle: Some(Duration::MAX),
        abort_grace: Some(ms(0)),
    };
    assert_eq!(timed_out(none, &unused, &unused).await, None);
}

#[tokio::test(start_paused = true)]
async fn cq_26_width_0_pauses_a_lane_but_not_that_of_a_probe() {
    let (lanes, log) = (lanes(), Log::default());
    let hold = take_slot(&lanes, "l");
    lanes.set_width("l", 0);
    lanes.enqueue("l", log.entry("first")).detach();
    lanes.enqueue("l", log.entry("second")).detach();
    drop(hold);
    settle().await;
    assert_eq!((lanes.len("l"), lanes.active_count()), (2, 0));
    lanes.set_width("l", 1);
    settle().await;
    assert_eq!(log.take(), ["first", "second"]);
    for lane in ["auth-probe:x", " session:probe-1"] {
        lanes.set_width(lane, 0);
        assert_eq!(lanes.width(lane), 1);
        lanes
            .enqueue(lane, log.entry("probe"))
            .await
            .expect("it runs");
    }
    assert_eq!(lanes.kept(), Kept::default());
}

#[tokio::test(start_paused = true)]
async fn cq_27_a_reset_of_one_lane_says_how_much_it_released() {
    let (lanes, log) = (lanes(), Log::default());
    lanes.set_width("a", 2);
    let holds = ["a", "a", "b"].map(|lane| take_slot(&lanes, lane));
    lanes.enqueue("a", log.entry("a")).detach();
    lanes.enqueue("b", log.entry("b")).detach();
    assert_eq!((lanes.reset("a"), lanes.reset("nobody")), (2, 0));
    assert_eq!(log.take(), ["a"]);
    assert_eq!((lanes.generation("a"), lanes.generation("b")), (1, 0));
    assert_eq!((lanes.len("b"), lanes.kept().at_large), (2, 2));
    drop(holds);
}

#[tokio::test(start_paused = true)]
async fn cq_28_a_wait_warning_names_what_is_before_and_behind_and_the_blocker() {
    let (lanes, log) = (lanes(), Log::default());
    let _listening = log.listen();
    lanes.set_width("l", 2);
    let told = log.clone();
    let waits = || {
        let told = told.clone();
        Entry::of(sleep(ms(1))).on_wait(move |waited| {
            if waited.blocker == Blocker::Width {
                told.note("by width");
            }
        })
    };
    let (open, gate) = oneshot::channel::<()>();
    let slow = Entry::of(async {
        let _ = gate.await;
    });
    lanes.enqueue("l", slow.key("build").session("s")).detach();
    let other = take_slot(&lanes, "l");
    lanes.enqueue("l", waits().key("first")).detach();
    lanes.enqueue("l", waits().key("second")).detach();
    lanes
        .enqueue("l", Entry::of(async {}).warn_after(None))
        .detach();
    advance(ms(3_000)).await;
    drop(open);
    settle().await;
    let first = "WARN lane wait exceeded: first waited 3000 ms in l, queued ahead 0, active ahead 2, active now 1, queued \
                 behind 2; it waited for task 1 (build) in l of session s, which held its slot for 3000 ms";
    assert_eq!(log.take(), [first]);
    sleep(ms(2)).await;
    let second = "WARN lane wait exceeded: second waited 3001 ms in l, queued ahead 1, active ahead 2, active now 1, queued \
                  behind 1; it waited for task 3 (first) in l, which held its slot for 1 ms";
    assert_eq!(log.take(), [second]);

    // A session is a blocker as well, and so is a pause.
    let other_lane = Entry::of(sleep(ms(2_500))).session("s").key("turn");
    lanes.enqueue("other", other_lane).detach();
    lanes.enqueue("l", waits().session("s")).detach();
    lanes.set_width("paused", 0);
    lanes.enqueue("paused", waits()).detach();
    sleep(ms(3_000)).await;
    let by_session = "WARN lane wait exceeded: waited 2500 ms in l, queued ahead 0, active ahead 1, active now 1, queued \
                      behind 0; it waited for task 6 (turn) in other of session s, which held its slot for 2500 ms";
    assert_eq!(log.take(), [by_session]);
    lanes.set_width("paused", 1);
    let lines = log.take();
    assert_eq!(lines[0], "by width");
    assert!(
        lines[1].ends_with("queued behind 0; it waited for a wider lane"),
        "{lines:?}"
    );
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn cq_29_a_drain_wait_is_told_and_does_not_poll() {
    let lanes = lanes();
    lanes.enqueue("a", Entry::of(sleep(ms(17)))).detach();
    lanes.enqueue("b", Entry::of(sleep(ms(23)))).detach();
    assert!(!lanes.wait_for_active(Duration::ZERO).await);
    let begun = Instant::now();
    assert!(lanes.wait_for_active(Duration::from_secs(3_600)).await);
    assert_eq!(begun.elapsed(), ms(23));
    // Without time, so without a timer that could look.
    let hold = take_slot(&lanes, "a");
    let drained = tokio::spawn(lanes.wait_for_active(Duration::MAX));
    settle().await;
    assert!(!drained.is_finished());
    drop(hold);
    settle().await;
    assert!(drained.await.expect("it does not panic"));
}

#[tokio::test(start_paused = true)]
async fn cq_30_capacity_groups_share_a_budget_with_reservations() {
    let (lanes, log) = (lanes(), Log::default());
    for lane in ["a", "b", "c"] {
        lanes.set_width(lane, 10);
    }
    lanes
        .add_group("g", 4, [("a", 2), (" b", 1), ("c", 0)])
        .expect("it fits");
    // Two of its own and the one that nobody reserved.
    let mut a: Vec<_> = (0..5).map(|_| take_slot(&lanes, "a")).collect();
    assert_eq!(lanes.active_count(), 3);
    let b = take_slot(&lanes, "b");
    assert_eq!(lanes.active_count(), 4);
    for (lane, text, priority) in [
        ("c", "c normal", Priority::Normal),
        ("b", "b normal", Priority::Normal),
        ("b", "b high", Priority::High),
    ] {
        let entry = log.entry(text).priority(priority);
        lanes.enqueue(lane, entry).detach();
    }
    assert_eq!(log.take(), [""; 0]);
    // Across lanes by priority, then by age: two of a waited before the other normal ones.
    a.remove(0);
    settle().await;
    assert_eq!(log.take(), ["b high"]);
    assert_eq!((lanes.len("a"), lanes.len("b"), lanes.len("c")), (4, 2, 1));
    a.truncate(1);
    settle().await;
    assert_eq!(log.take(), ["c normal", "b normal"]);
    // A pause and a reset count as everywhere.
    lanes.set_width("c", 0);
    lanes.enqueue("c", log.entry("paused")).detach();
    assert_eq!(log.take(), [""; 0]);
    assert_eq!(lanes.reset("a"), 1);
    lanes.set_width("c", 1);
    assert_eq!(log.take(), ["paused"]);
    drop((a, b));

    for lane in [
        "main",
        "",
        "cron",
        "subagent",
        "nested",
        "session:x",
        "nested:x",
        "nested-session:x",
    ] {
        let refused = lanes.add_group("h", 2, [("d", 1), (lane, 1)]);
        let lane = if lane.is_empty() { "main" } else { lane }.to_owned();
        assert_eq!(refused, Err(GroupError::WaitedOn { lane }));
    }
    let (group, lane) = ("h".to_owned(), "d".to_owned());
    let over = lanes.add_group("h", 2, [("d", 2), ("e", 1)]);
    let (budget, reserved) = (2, 3);
    assert_eq!(
        over,
        Err(GroupError::OverBudget {
            group,
            budget,
            reserved
        })
    );
    let twice = lanes.add_group("h", 2, [("d", 1), ("d ", 1)]);
    assert_eq!(twice, Err(GroupError::Member { lane: lane.clone() }));
    let starved = lanes.add_group("h", 2, [("d", 0), ("e", 2)]);
    assert_eq!(starved, Err(GroupError::Starved { lane }));
    let taken = lanes.add_group("h", 2, [("d", 1), ("a", 1)]);
    assert_eq!(taken, Err(GroupError::Member { lane: "a".into() }));
    let again = lanes.add_group("g", 2, [("d", 1)]);
    assert_eq!(again, Err(GroupError::Exists { group: "g".into() }));
    lanes
        .add_group("h", 1, [("d", 1)])
        .expect("nothing is left of those that were refused");
}

#[test]
fn ln_01_the_names_of_the_common_lanes() {
    let names = [name::MAIN, name::CRON, name::SUBAGENT, name::NESTED];
    assert_eq!(names, ["main", "cron", "subagent", "nested"]);
    let later = [
        name::CRON_DISPATCH,
        name::CRON_NESTED,
        name::SYSTEM_AGENT,
        name::REVIEW,
    ];
    assert_eq!(
        later,
        ["cron-dispatch", "cron-nested", "system-agent", "review"]
    );
    assert_eq!(name::session(" agent:a "), "session:agent:a");
    assert_eq!(
        (name::session("session:x"), name::session("")),
        ("session:x".into(), "session:main".into())
    );
}

#[tokio::test(start_paused = true)]
async fn ln_02_a_turn_passes_its_sessions_lane_first() {
    let (lanes, log) = (lanes(), Log::default());
    let hold = take_slot(&lanes, "main");
    for text in ["s1", "s2"] {
        log.watch(text, lanes.enqueue_turn("s", "main", log.entry(text)));
    }
    settle().await;
    // The first holds the session's lane and waits for the other; the second waits for the session alone.
    assert_eq!((lanes.len("session:s"), lanes.len("main")), (2, 2));
    assert_eq!(lanes.active_lanes(), ["main", "session:s"]);
    log.watch("t1", lanes.enqueue_turn("t", "main", log.entry("t1")));
    // A step of the session takes part in "one at a time" as well.
    let step = take_slot(&lanes, "control");
    lanes
        .enqueue("control", log.entry("step").session("s"))
        .detach();
    drop(hold);
    settle().await;
    assert_eq!(
        log.take(),
        ["s1", "t1", "s1 ended", "t1 ended", "s2", "s2 ended"]
    );
    drop(step);
    settle().await;
    assert_eq!(log.take(), ["step"]);

    let fails = Entry::fallible(|_| async { Err::<(), _>(OwnError(1)) });
    match lanes.enqueue_turn("s", "main", fails).await {
        Err(LaneError::Failed(e)) => assert_eq!(e.downcast_ref(), Some(&OwnError(1))),
        other => panic!("{other:?}"),
    }
    assert_eq!(lanes.kept(), Kept::default());
}

#[tokio::test(start_paused = true)]
async fn ln_03_default_widths() {
    let lanes = LaneSet::with_default_widths(Handle::current());
    let widths = ["main", "subagent", "cron", "nested", "session:x"].map(|lane| lanes.width(lane));
    assert_eq!(widths, [4, 8, 1, 1, 1]);
    let _holds: Vec<_> = (0..9).map(|_| take_slot(&lanes, "main")).collect();
    assert_eq!(lanes.active_count(), 4);
    // A host may follow its processors.
    lanes.set_width("main", 8);
    assert_eq!((lanes.active_count(), name::default_width(" ")), (8, 4));
}

#[tokio::test(start_paused = true)]
async fn ln_05_cancelling_a_session_drops_what_waits_then_stops_what_runs() {
    let (lanes, log) = (lanes(), Log::default());
    lanes.set_width("main", 4);
    let notes = log.clone();
    let running = Entry::new(move |task: Task| async move {
        task.aborted().await;
        notes.note(format_args!("aborted: {}", task.is_aborted()));
    });
    log.watch("running", lanes.enqueue_turn("s", "main", running));
    settle().await;
    log.watch("turn", lanes.enqueue_turn("s", "main", log.entry("never")));
    log.watch(
        "step",
        lanes.enqueue("control", log.entry("never").session("s")),
    );
    let (_other, entry) = held();
    let untouched = lanes.enqueue("main", entry.session("t"));
    settle().await;
    let cancelled = Cancelled {
        dropped: 2,
        aborted: 1,
    };
    assert_eq!(lanes.cancel_session("s"), cancelled);
    settle().await;
    let seen = [
        "turn: aborted while waiting in lane session:s",
        "step: aborted while waiting in lane control",
        "aborted: true",
        "running ended",
    ];
    assert_eq!(log.take(), seen);
    assert_eq!(
        (lanes.active_lanes(), lanes.kept().sessions),
        (vec!["main".to_owned()], 1)
    );
    assert_eq!(lanes.cancel_session("s"), Cancelled::default());
    drop(untouched);

    // A turn that has passed its session's lane and waits for the other is dropped, once.
    lanes.set_width("main", 0);
    log.watch("turn", lanes.enqueue_turn("u", "main", log.entry("never")));
    settle().await;
    assert_eq!(
        lanes.cancel_session("u"),
        Cancelled {
            dropped: 1,
            aborted: 0
        }
    );
    settle().await;
    assert_eq!(log.take(), ["turn: aborted while waiting in lane main"]);
    assert!(lanes.is_empty("session:u"));
}

#[tokio::test(start_paused = true)]
async fn ln_06_long_running_stalled_and_stuck_are_told_apart() {
    let lanes = lanes();
    let progressing = Entry::new(|task: Task| async move {
        loop {
            sleep(ms(10_000)).await;
            task.progress();
        }
    });
    let progressing: Queued<()> = lanes.enqueue("a", progressing.key("k").session("s"));
    let stalled = lanes.enqueue("b", Entry::of(pending::<()>()));
    drop(lanes.enqueue("c", Entry::of(pending::<()>())));
    lanes.enqueue("d", Entry::of(pending::<()>())).detach();
    lanes.enqueue("d", Entry::of(async {})).detach();
    let (held, silent) = (ms(60_000), ms(30_000));
    assert_eq!(lanes.diagnose(held, silent), []);
    sleep(ms(65_000)).await;
    let _young = take_slot(&lanes, "e");
    let found = lanes.diagnose(held, silent);
    let conditions: Vec<_> = found
        .iter()
        .map(|f| (f.lane.as_str(), f.condition))
        .collect();
    let seen = [
        ("a", Condition::LongRunning),
        ("b", Condition::Stalled),
        ("c", Condition::Stuck),
        ("d", Condition::Stalled),
    ];
    assert_eq!(conditions, seen);
    assert_eq!(
        (found[0].key.as_deref(), found[0].session.as_deref()),
        (Some("k"), Some("s"))
    );
    assert_eq!((found[0].held, found[0].silent), (ms(65_000), ms(5_000)));
    assert_eq!((found[3].task, found[3].queued), (4, 1));
    let recover = found.iter().filter(|f| f.condition.needs_recovery());
    for finding in recover {
        assert_eq!(lanes.reset(&finding.lane), 1);
    }
    settle().await;
    assert_eq!(lanes.active_lanes(), ["a", "e"]);
    drop((progressing, stalled));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_one_at_a_time_in_all_lanes_and_waits_without_a_slot() {
    let (lanes, log) = (lanes(), Log::default());
    let (hold, entry) = held();
    lanes.enqueue("a", entry.session("s")).detach();
    for (lane, text) in [("b", "b s"), ("c", "c s"), ("b", "b s again")] {
        lanes.enqueue(lane, log.entry(text).session("s")).detach();
    }
    let urgent = log
        .entry("b s urgent")
        .session("s")
        .priority(Priority::Critical);
    lanes.enqueue("b", urgent).detach();
    // Others pass in the same lanes.
    lanes.enqueue("b", log.entry("b t").session("t")).detach();
    lanes.enqueue("c", log.entry("c")).detach();
    assert_eq!(log.take(), ["b t", "c"]);
    settle().await;
    drop(hold);
    settle().await;
    assert_eq!(log.take(), ["b s urgent", "b s", "c s", "b s again"]);
    assert_eq!(lanes.kept(), Kept::default());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_lanes_and_sessions_leave_nothing_behind() {
    let lanes = lanes();
    lanes.set_width("wide", 4);
    let before = lanes.kept();
    let mut queued = Vec::new();
    for number in 0..10_000 {
        let session = format!("s{number}");
        for _ in 0..2 {
            queued.push(lanes.enqueue("wide", Entry::of(async {}).session(&session)));
            queued.push(lanes.enqueue(&session, Entry::of(async {}).key("k")));
            queued.push(lanes.enqueue_turn(&session, "wide", Entry::of(async {})));
        }
    }
    assert_eq!(lanes.kept().sessions, 9_996);
    for queued in queued {
        queued.await.expect("it runs");
    }
    assert_eq!(lanes.kept(), before);
}

/// A small generator, so that each run is the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(start_paused = true)]
async fn after_72_hours_of_everything_nothing_is_held_and_nothing_is_kept() {
    const NAMES: [&str; 6] = [
        "main",
        "subagent",
        "cron",
        "session:x",
        "auth-probe:y",
        "shared-1",
    ];
    let lanes = LaneSet::with_default_widths(Handle::current());
    lanes
        .add_group("g", 3, [("shared-1", 1), ("shared-2", 1)])
        .expect("it fits");
    let before = lanes.kept();
    let begun = Instant::now();
    let (mut dice, mut entries) = (Dice(1), 0_u64);
    let ended = Arc::new(Mutex::new(std::collections::BTreeMap::<String, u64>::new()));
    while begun.elapsed() < Duration::from_secs(72 * 3_600) {
        let lane = NAMES[dice.roll(6) as usize];
        let session = format!("session {}", dice.roll(40));
        let (long, fails, progress) = (dice.roll(90_000), dice.roll(10), dice.roll(2) == 0);
        let signal = Signal::new();
        let entry = Entry::fallible(move |task: Task| async move {
            sleep(ms(long / 2)).await;
            if progress {
                task.progress();
            }
            tokio::select! {
                () = sleep(ms(long / 2)) => {}
                // Half of them do not listen.
                () = task.aborted(), if long % 2 == 0 => {}
            }
            assert_ne!(fails, 0, "one in ten panics");
            if fails == 1 {
                Err("one in ten fails")
            } else {
                Ok(())
            }
        });
        let priority = [
            Priority::Low,
            Priority::Normal,
            Priority::High,
            Priority::Critical,
        ];
        let entry = entry
            .priority(priority[dice.roll(4) as usize])
            .abort_on(&signal);
        let entry = match dice.roll(4) {
            0 => entry.timeout(Timeout::task(ms(40_000))),
            1 => entry.timeout(Timeout::idle(ms(30_000))),
            2 => entry.session(&session).key(&session).release_on(&signal),
            _ => entry,
        };
        let queued = match dice.roll(3) {
            0 => lanes.enqueue_turn(&session, lane, entry),
            1 => lanes.enqueue("shared-2", entry),
            _ => lanes.enqueue(lane, entry),
        };
        entries += 1;
        let ended = ended.clone();
        tokio::spawn(async move {
            let how = match queued.await {
                Ok(()) => "ended".to_owned(),
                Err(LaneError::TimedOut { cause, .. }) => cause.to_string(),
                Err(e) => e
                    .to_string()
                    .split(" lane ")
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            };
            *ended
                .lock()
                .expect("nobody panics with it")
                .entry(how)
                .or_default() += 1;
        });
        match dice.roll(60) {
            0 => lanes.set_width(lane, 0),
            1..8 => lanes.set_width(lane, name::default_width(lane)),
            8 => drop(lanes.reset(lane)),
            9 => drop(lanes.clear(lane)),
            10 => drop(lanes.cancel_session(&session)),
            11 => drop(lanes.drop_waiting(&session)),
            12..18 => signal.raise(),
            18 if dice.roll(10) == 0 => lanes.begin_draining(),
            19 => drop(lanes.reset_all()),
            20 => drop(lanes.diagnose(ms(60_000), ms(30_000))),
            21 => drop(lanes.wait_for_active(ms(1))),
            _ => {}
        }
        sleep(ms(dice.roll(30_000))).await;
    }
    for lane in NAMES {
        lanes.set_width(lane, name::default_width(lane));
    }
    while lanes.kept() != before {
        // Nothing but the work itself is left to wait for: it ends, or time does.
        assert!(
            begun.elapsed() < Duration::from_secs(80 * 3_600),
            "{:?}",
            lanes.kept()
        );
        sleep(ms(60_000)).await;
    }
    assert_eq!(
        (
            lanes.len_total(),
            lanes.active_count(),
            lanes.active_lanes()
        ),
        (0, 0, vec![])
    );
    settle().await;
    let ended = ended.lock().expect("nobody panics with it");
    assert_eq!(ended.values().sum::<u64>(), entries, "{ended:?}");
    for how in [
        "ended",
        "task-budget",
        "progress-idle",
        "abort-grace",
        "release-signal",
    ] {
        assert!(ended.contains_key(how), "{ended:?}");
    }
    for how in [
        "one in ten fails",
        "the work panicked: one in ten panics",
        "the host drains and takes nothing new",
    ] {
        assert!(
            ended.keys().any(|found| found.contains(how)),
            "{how}: {ended:?}"
        );
    }
    assert!(
        entries > 15_000 && ended["ended"] > 5_000,
        "{entries}: {ended:?}"
    );
}
