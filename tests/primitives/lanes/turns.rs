//! LN-1 to LN-6: names and widths, turns of sessions, and what is long-running, stalled or stuck.

use super::*;

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
        ["s1", "t1", "s2", "s1 ended", "t1 ended", "s2 ended"]
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
        assert!(lanes.release(finding.task) && !lanes.release(finding.task));
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
