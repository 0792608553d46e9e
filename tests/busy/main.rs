//! Three days of a busy host in virtual time: plans, a host's own messages in lanes, the durable queue, the event stream and
//! subagents, with restarts. In the end nothing is held, nothing was tried too often or too late, and memory is what it was.
//!
//! A process of its own, because it measures its memory. The component, the store and the queue are the real ones; only the
//! clock is moved by hand, and the recipients of messages are random.

#[path = "../support/random.rs"]
mod random;

use qm2_core::config::Config;
use qm2_core::envelope::{Envelope, Intent, Outcome, Priority};
use qm2_core::message::Caller;
use qm2_host::agent::{Report, Task};
use qm2_host::clock::{Clock, ManualClock};
use qm2_host::engine::{Call, Engine};
use qm2_host::event_stream::{Event, EventStream, RunContext};
use qm2_host::lane::{Entry as LaneEntry, name};
use qm2_host::lifecycle::{Phase, Spawned, Subagents, TargetKind};
use qm2_host::queue::{
    Channel, Channels, Doing, Drain, DurableQueue, Entry, NewEntry, Options, Reason, Reconciled,
    SendError, Sent,
};
use qm2_host::{Domain, DomainBuilder};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const HOURS: u64 = 72;
/// Virtual time between two looks.
const STEP_MS: u64 = 30_000;
/// Real time for what such a step starts.
const PAUSE: Duration = Duration::from_millis(3);
/// Real time in which what is due at the end has to have happened, however busy the machine is.
const SETTLE: Duration = Duration::from_secs(60);
const START_MS: u64 = 1_800_000_000_000;
/// The domain sends while the clock moves: four looks between two instructions.
const REMOTE_LEEWAY_MS: u64 = 4 * STEP_MS;
/// Tries of an entry: the first one and five more.
const TRIES_MAX: usize = 6;

/// Random numbers that everybody draws from.
#[derive(Clone)]
struct Random(Arc<Mutex<random::Random>>);

impl Random {
    fn below(&self, bound: u64) -> u64 {
        self.0.lock().expect("no panic").below(bound)
    }
}

/// A recipient that is often away. Notes when each entry was tried, and what it has.
struct Away {
    random: Random,
    clock: ManualClock,
    /// How far the clock may move between the queue's last look at it and the send: nothing where its mover waits for the send.
    leeway_ms: u64,
    tried: Mutex<BTreeMap<String, Vec<u64>>>,
    has: Mutex<BTreeSet<String>>,
    late: AtomicUsize,
}

impl Away {
    fn new(random: &Random, clock: &ManualClock, leeway_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            random: random.clone(),
            clock: clock.clone(),
            leeway_ms,
            tried: Mutex::default(),
            has: Mutex::default(),
            late: AtomicUsize::new(0),
        })
    }

    fn takes(&self, entry: &Entry) -> bool {
        self.has.lock().expect("no panic").insert(entry.key.clone())
    }
}

impl Channel for Away {
    fn send<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Result<Sent, SendError>> {
        let now_ms = self.clock.now_ms();
        let mut tried = self.tried.lock().expect("no panic");
        tried.entry(entry.key.clone()).or_default().push(now_ms);
        drop(tried);
        let is_late = |at_ms| at_ms + self.leeway_ms <= now_ms;
        if entry.deadline_ms.is_some_and(is_late) {
            self.late.fetch_add(1, Ordering::SeqCst);
        }
        let came = match self.random.below(10) {
            0..=4 => {
                assert!(self.takes(entry), "{} was sent twice", entry.key);
                Ok(Sent)
            }
            5 | 6 => Err(SendError::NotConnected("no route to host".into())),
            7 => Err(SendError::Permanent("chat not found".into())),
            8 => Err(SendError::Retryable("timed out".into())),
            // It came through, and nobody here heard of that.
            _ => {
                assert!(self.takes(entry), "{} was sent twice", entry.key);
                Err(SendError::Retryable("connection reset".into()))
            }
        };
        Box::pin(async move { came })
    }

    fn reconcile<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Reconciled> {
        let has = self.has.lock().expect("no panic").contains(&entry.key);
        let came = match (has, self.random.below(4)) {
            (_, 0) => Reconciled::Unresolved {
                retryable: true,
                error: "no answer".into(),
            },
            (true, _) => Reconciled::Sent,
            (false, _) => Reconciled::NotSent,
        };
        Box::pin(async move { came })
    }
}

/// Does what its payload says.
async fn agent(task: Task) -> Report {
    match (task.payload(), task.envelope.attempt.unwrap_or(1)) {
        ("hangs", _) => {
            task.cancelled().await;
            Report::retryable("cancelled", "it was told to stop")
        }
        ("fails", 1 | 2) => Report::retryable("once-more", "not yet"),
        ("breaks", _) => Report::permanent("broken", "it cannot be done"),
        (text, _) => Report::completed(text.to_owned()),
    }
}

struct Host {
    folder: tempfile::TempDir,
    clock: ManualClock,
    engine: Engine,
    stream: EventStream,
    /// Where attempts of remote steps are sent.
    remote: Arc<Away>,
}

impl Host {
    fn builder(&self) -> DomainBuilder {
        let mut config = Config::new("busy");
        config.phase1.enabled = true;
        config.max_in_flight = 64;
        Domain::builder(self.folder.path().join("data"))
            .config(config)
            .engine(self.engine.clone())
            .clock(self.clock.clone())
            .event_stream(self.stream.clone())
            .snapshot_every(2_000)
            .agent("agent:*", agent)
            .channel_agent("remote:*", self.remote.clone())
    }

    async fn open(&self) -> Domain {
        self.builder().open().await.expect("the domain opens")
    }

    fn queue(&self) -> DurableQueue {
        let folder = self.folder.path().join("own");
        std::fs::create_dir_all(&folder).expect("a folder");
        let options = Options::new().clock(self.clock.clone());
        options.open(&folder).expect("the queue opens")
    }
}

/// A plan of everything that takes time: retries, timeouts, a resource that others want, a recipient that is away.
fn plan(number: u64, now_ms: u64) -> String {
    let step = |id: &str, session: &str, payload: &str| json!({"stepId": id, "targetSession": session, "payload": payload, "timeoutMs": 10 * MINUTE_MS});
    let mut held = step("held", "agent:held", "held");
    held["claims"] = json!([{"resource": "file:shared", "leaseMs": 5 * MINUTE_MS}]);
    let mut joined = step("joined", "agent:joined", "joined");
    joined["dependsOn"] =
        json!([{"stepId": "held", "on": "always"}, {"stepId": "fails", "on": "always"}]);
    let session = format!("remote:{}", number % 5);
    let mut steps = vec![
        held,
        step("fails", &format!("agent:{}", number % 7), "fails"),
        joined,
    ];
    steps.push(step("remote", &session, "over there"));
    if number.is_multiple_of(3) {
        steps.push(step("hangs", "agent:hangs", "hangs"));
    }
    if number.is_multiple_of(5) {
        steps.push(step("breaks", "agent:breaks", "breaks"));
    }
    json!({
        "coordinationId": format!("p{number}"), "objective": "Busy.", "ownerSession": format!("user:{}", number % 3),
        "deadlineMs": now_ms + 3 * HOUR_MS, "steps": steps,
        "failurePolicy": {"retryBudget": 20},
    })
    .to_string()
}

/// Whoever has a remote step says that it is done.
async fn report_remote(domain: &Domain, has: &[String]) {
    for key in has {
        let parts: Vec<&str> = key.split(':').collect();
        let [coordination, step, attempt] = parts[..] else {
            panic!("{key}")
        };
        let number: u64 = coordination[1..].parse().expect("a number");
        let session = format!("remote:{}", number % 5);
        let said: Envelope = serde_json::from_value(json!({
            "coordinationId": coordination, "stepId": step, "attempt": attempt.parse::<u32>().expect("a number"),
            "sourceSession": session, "targetSession": format!("user:{}", number % 3), "intent": "report",
            "outcome": "completed", "payload": "done",
        }))
        .expect("an envelope");
        assert!(said.intent == Intent::Report && said.outcome == Some(Outcome::Completed));
        let call = Call::Submit {
            caller: Caller {
                session,
                role: None,
            },
            now_ms: 0,
            envelopes: vec![said],
        };
        // One that comes too late is kept as such.
        domain.call(call).await.expect("it is heard");
    }
}

/// Resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits: String = line
        .expect("a line")
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().expect("a number")
}

/// Ids of coordinations with a record of a type.
async fn with_record(domain: &Domain, type_name: &str) -> BTreeSet<String> {
    let read = domain.with_store(|store| store.lines(0, usize::MAX >> 1));
    let mark = format!("\"type\":\"{type_name}\"");
    let lines = read.await.expect("the ledger is read");
    let of_type = lines.iter().filter(|line| line.contains(&mark));
    of_type
        .map(|line| {
            let record: Value = serde_json::from_str(line).expect("a record");
            record["coordinationId"].as_str().expect("an id").to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_72_hours_nothing_is_held_or_tried_too_often_and_memory_is_flat() {
    let random = Random(Arc::new(Mutex::new(random::Random::new(72))));
    let clock = ManualClock::at(START_MS);
    let host = Host {
        folder: tempfile::tempdir().expect("a temporary folder"),
        clock: clock.clone(),
        engine: Engine::new().expect("the component loads"),
        stream: EventStream::new(clock.clone()),
        remote: Away::new(&random, &clock, REMOTE_LEEWAY_MS),
    };
    let chat = Away::new(&random, &clock, 0);
    let channels = Channels::new().channel("chat", chat.clone());
    let mut queue = host.queue();
    let mut domain = host.open().await;
    let mut runs = Subagents::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let hearing = heard.clone();
    host.stream.listen(Arc::new(move |_| {
        hearing.fetch_add(1, Ordering::Relaxed);
    }));
    let (mut number, mut restarts, mut memory) = (0, 0, Vec::new());
    let steps = HOURS * HOUR_MS / STEP_MS;
    // And six hours in which nothing new comes.
    for step in 0..steps + 6 * HOUR_MS / STEP_MS {
        clock.forward(STEP_MS);
        let now_ms = clock.now_ms();
        if step < steps && step.is_multiple_of(20) {
            number += 1;
            let taken = domain.submit_plan(&plan(number, now_ms)).await;
            taken.expect("it is heard").expect("it is taken");
            for part in 0..4 {
                let text = format!("message {number}.{part}");
                let mut entry =
                    NewEntry::new("chat", "somebody", text).key(format!("m{number}-{part}"));
                if random.below(3) == 0 {
                    entry = entry.deadline_ms(now_ms + random.below(30 * MINUTE_MS) + 1);
                }
                queue.enqueue(entry).await.expect("it is kept");
            }
            let run_id = format!("run-{number}");
            host.stream.register(&run_id, RunContext::default());
            runs.spawned(Spawned {
                run_id: run_id.clone(),
                child_session: format!("child-{number}"),
                target_kind: TargetKind::Subagent,
                deadline_ms: Some(now_ms + HOUR_MS),
                expects_completion: false,
                is_session_mode: false,
            });
            let phase = match random.below(4) {
                0 => None,
                1 => Some(Phase::Error {
                    ended_at: now_ms,
                    error: "no".into(),
                }),
                _ => Some(Phase::Start { started_at: now_ms }),
            };
            if let Some(phase) = phase {
                runs.phase(&run_id, phase, now_ms).expect("it is known");
            }
        }
        // A host's own messages, in their sessions' lanes.
        let session = format!("s{}", random.below(50));
        let lanes = domain.lanes();
        let entry = LaneEntry::of(async {}).priority(Priority::Low);
        lanes.enqueue_turn(&session, name::MAIN, entry).detach();
        host.stream.emit(Event {
            run_id: format!("run-{number}"),
            stream: "assistant".into(),
            ..Event::default()
        });
        queue
            .drain(&channels, &Drain::all().pacing(Duration::ZERO))
            .await
            .expect("it drains");
        for ended in runs.advance(now_ms) {
            assert!(runs.begin_hook(&ended.run_id).is_some(), "each end once");
            runs.end_hook(&ended.run_id, true);
            assert!(runs.forget(&ended.run_id));
        }
        host.stream.sweep();
        tokio::time::sleep(PAUSE).await;
        let has = std::mem::take(&mut *host.remote.has.lock().expect("no panic"));
        let (has, rest): (Vec<String>, Vec<String>) =
            has.into_iter().partition(|_| random.below(20) > 0);
        report_remote(&domain, &has).await;
        // What is not reported stays with the recipient; most of it is reported later.
        host.remote.has.lock().expect("no panic").extend(rest);
        if step > 0 && (step * STEP_MS).is_multiple_of(6 * HOUR_MS) {
            restarts += 1;
            domain.close().await;
            queue.close().await;
            drop((domain, queue));
            memory.push(resident_kib());
            (domain, queue) = (host.open().await, host.queue());
            host.stream.rotate();
        }
    }
    // Coordinations: each has ended. All their times are over, but a machine that was busy with something else may still owe
    // the domain the real time for it.
    let waiting = Instant::now();
    let open = loop {
        let created = with_record(&domain, "coordination.created").await;
        let ended = with_record(&domain, "coordination.terminal").await;
        assert_eq!(created.len() as u64, number);
        let open: Vec<String> = created.difference(&ended).cloned().collect();
        if open.is_empty() || waiting.elapsed() > SETTLE {
            break open;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(open, Vec::<String>::new());
    // Lanes: nothing is held, nothing is kept but what is set.
    let lanes = domain.lanes();
    let is_idle = || {
        let kept = lanes.kept();
        (lanes.len_total(), lanes.active_lanes().len()) == (0, 0)
            && (kept.sessions, kept.keys) == (0, 0)
    };
    while !is_idle() && waiting.elapsed() < SETTLE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        (lanes.len_total(), lanes.active_lanes()),
        (0, Vec::<String>::new())
    );
    let kept = lanes.kept();
    assert_eq!((kept.sessions, kept.keys), (0, 0), "{kept:?}");
    // Entries: none tried too often, none after its deadline, and none is left.
    for away in [&chat, &host.remote] {
        let tried = away.tried.lock().expect("no panic");
        let most = tried.values().map(Vec::len).max().unwrap_or_default();
        assert!((2..=TRIES_MAX).contains(&most), "{most} tries");
        assert_eq!(away.late.load(Ordering::SeqCst), 0);
    }
    assert_eq!(queue.load().await.expect("it is read"), []);
    let dead = queue.dead_letters().await.expect("it is read");
    let reasons: BTreeSet<&str> = dead.iter().map(|dead| dead.reason.name()).collect();
    assert!(reasons.contains(Reason::Permanent.name()), "{reasons:?}");
    assert!(reasons.contains(Reason::Deadline.name()), "{reasons:?}");
    // The rest of the host forgets as well.
    assert!(runs.is_empty());
    clock.forward(HOUR_MS);
    host.stream.sweep();
    assert_eq!(host.stream.run_count(), 0);
    assert!(heard.load(Ordering::Relaxed) > 1_000);
    println!(
        "{HOURS} h: {number} plans, {} records' events, {} dead letters, {restarts} restarts, KiB resident at each: {memory:?}",
        heard.load(Ordering::Relaxed),
        dead.len()
    );
    // Half as much again as after the first day is room for what the allocator keeps.
    let (early, late) = (memory[3], *memory.last().expect("restarts"));
    assert!(late < early + early / 2, "memory grows: {memory:?}");
    domain.close().await;
    queue.close().await;
}
