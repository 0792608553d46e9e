//! CQ-21 to CQ-30: draining, aborts, priorities, timeouts, pauses, warnings and groups.

use super::*;

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
    sleep(ms(600)).await;
    settle().await;
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
        Entry::new(|_| sleep(ms(1))).on_wait(move |waited| {
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
    settle().await;
    let second = "WARN lane wait exceeded: second waited 3001 ms in l, queued ahead 1, active ahead 2, active now 1, queued \
                  behind 1; it waited for task 3 (first) in l, which held its slot for 1 ms";
    assert_eq!(log.take(), [second]);

    // A session is a blocker as well, and so is a pause.
    let other_lane = Entry::new(|_| sleep(ms(2_500))).session("s").key("turn");
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
