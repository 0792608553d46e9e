//! Many lanes and many hours: whatever happens, nothing is held and nothing is kept.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

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
    assert_eq!(lanes.kept().sessions, 10_000);
    for queued in queued {
        queued.await.expect("it runs");
    }
    assert_eq!(lanes.kept(), before);
}

/// How many are inside at once, and the most that ever were.
#[derive(Default)]
struct Inside(AtomicUsize, AtomicUsize);

impl Inside {
    fn enter(&self) {
        let now = self.0.fetch_add(1, SeqCst) + 1;
        self.1.fetch_max(now, SeqCst);
    }

    fn leave(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    fn most(&self) -> usize {
        self.1.load(SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads_no_lane_is_wider_than_it_is_and_no_session_does_two_things() {
    const LANES: usize = 8;
    let lanes = lanes();
    let in_lanes: Arc<Vec<Inside>> = Arc::new((0..LANES).map(|_| Inside::default()).collect());
    let in_sessions: Arc<Vec<Inside>> = Arc::new((0..20).map(|_| Inside::default()).collect());
    for lane in 0..LANES {
        lanes.set_width(&lane.to_string(), 1 + lane % 3);
    }
    let before = lanes.kept();
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (lanes, in_lanes) = (lanes.clone(), in_lanes.clone());
            let in_sessions = in_sessions.clone();
            tokio::spawn(async move {
                let mut dice = Dice(caller);
                let (mut queued, mut aborted) = (Vec::new(), 0);
                for _ in 0..3_000 {
                    let (lane, session) = (dice.roll(8) as usize, dice.roll(20) as usize);
                    let (in_lanes, in_sessions) = (in_lanes.clone(), in_sessions.clone());
                    let entry = Entry::of(async move {
                        in_lanes[lane].enter();
                        in_sessions[session].enter();
                        yield_now().await;
                        in_sessions[session].leave();
                        in_lanes[lane].leave();
                    });
                    let signal = Signal::new();
                    let entry = entry.session(&session.to_string()).abort_on(&signal);
                    queued.push(lanes.enqueue(&lane.to_string(), entry.warn_after(None)));
                    if dice.roll(10) == 0 {
                        signal.raise();
                    }
                    if dice.roll(50) == 0 {
                        yield_now().await;
                    }
                }
                for queued in queued {
                    match queued.await {
                        Ok(()) => {}
                        Err(LaneError::Aborted { .. }) => aborted += 1,
                        Err(e) => panic!("{e}"),
                    }
                }
                aborted
            })
        })
        .collect();
    let mut aborted = 0;
    for caller in callers {
        aborted += caller.await.expect("no caller panics");
    }
    assert!((1..=1_500).contains(&aborted), "{aborted} were aborted");
    for (lane, inside) in in_lanes.iter().enumerate() {
        assert!(
            (1..=1 + lane % 3).contains(&inside.most()),
            "lane {lane}: {}",
            inside.most()
        );
    }
    assert!(in_sessions.iter().all(|inside| inside.most() == 1));
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
            assert!(fails != 0, "one in ten panics");
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
