//! Large groups that are committed beside the loop: what is applied meanwhile waits for them, and is undone with them.

use crate::support::store::Committing;
use crate::support::{engine, plan, step};
use qm2_core::call::{Answer, Call};
use qm2_core::config::Config;
use qm2_core::message::Caller;
use qm2_host::agent::{Report, Task};
use qm2_host::clock::{Clock, SystemClock};
use qm2_host::store::Store;
use qm2_host::{Domain, HostError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long something that must happen may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than a group must have to be committed beside the loop.
const WIDE: usize = 100;

/// The wall clock; counts how often a loop is about to wait for inputs.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl Clock for Counting {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms()
    }

    fn sleep_until(&self, at_ms: Option<u64>) -> Duration {
        self.0.fetch_add(1, Ordering::SeqCst);
        SystemClock.sleep_until(at_ms)
    }
}

/// What becomes of the first large commit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Kept,
    Failed,
    /// It is kept, and nobody hears of it.
    KeptUnheard,
}

struct Scene {
    _folder: tempfile::TempDir,
    domain: Domain,
    clock: Counting,
    /// The first large commit has begun.
    begun: Receiver<()>,
    /// Lets it end.
    end: Sender<End>,
    /// How often each attempt ran.
    runs: Arc<Mutex<BTreeMap<String, u32>>>,
}

async fn scene() -> Scene {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (say_begun, begun) = channel();
    let (end, ends) = channel();
    let mut ends = Some(ends);
    let store = Committing::with(folder.path(), move |store, transaction| {
        if transaction.lines.len() <= WIDE {
            return store.commit(transaction);
        }
        let Some(ends) = ends.take() else {
            return store.commit(transaction);
        };
        say_begun.send(()).expect("the test waits");
        let end = ends.recv().expect("the test goes on");
        if end != End::Failed {
            store.commit(transaction)?;
        }
        match end {
            End::Kept => Ok(()),
            _ => Err(HostError::Store {
                doing: "commit",
                message: "the test says so".into(),
            }),
        }
    });
    let mut config = Config::new("d");
    config.phase1.enabled = true;
    config.max_in_flight = 2 * WIDE as u64;
    let (clock, runs) = (Counting::default(), Arc::<Mutex<BTreeMap<_, _>>>::default());
    let noted = runs.clone();
    let domain = Domain::builder(folder.path())
        .config(config)
        .engine(engine().clone())
        .clock(clock.clone())
        .store(store)
        .agent("agent:*", move |task: Task| {
            *noted.lock().expect("no panic").entry(task.key).or_default() += 1;
            async { Report::completed("done") }
        });
    Scene {
        domain: domain.open().await.expect("it opens"),
        _folder: folder,
        clock,
        begun,
        end,
        runs,
    }
}

impl Scene {
    fn run(&self, id: &str, steps: usize) -> JoinHandle<()> {
        let steps = (0..steps).map(|at| step(&format!("s{at}")));
        let plan = plan(steps).set("coordinationId", id).text();
        let domain = self.domain.clone();
        tokio::spawn(async move {
            loop {
                match domain.run(&plan).await {
                    Ok(ended) => return assert_eq!(ended.terminal, "success"),
                    // Told to send the same again.
                    Err(HostError::Retry) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        })
    }

    /// Waits until the loop has applied everything that was sent before this call, which it does while a commit is held up
    /// only if it does not wait for it.
    async fn applied(&self) {
        let before = self.clock.0.load(Ordering::SeqCst);
        let applied = async {
            // It may be on its way to one wait; before the second it has taken what lay there.
            while self.clock.0.load(Ordering::SeqCst) < before + 2 {
                let domain = self.domain.clone();
                tokio::spawn(async move { domain.call(Call::Head).await });
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, applied)
            .await
            .expect("the loop goes on while a commit is held up");
    }

    async fn first_large_commit(&self) {
        let begun = async {
            while self.begun.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, begun).await.expect("there is one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_while_a_group_is_committed_shares_its_fate() {
    for end in [End::Kept, End::Failed, End::KeptUnheard] {
        let scene = scene().await;
        let large = scene.run("large", WIDE);
        scene.first_large_commit().await;
        let small = Call::SubmitPlan {
            caller: Caller {
                session: "user:owner".into(),
                role: None,
            },
            now_ms: 0,
            plan: plan([step("s0")]).set("coordinationId", "small").text(),
        };
        let (domain, call) = (scene.domain.clone(), small.clone());
        let said = tokio::spawn(async move { domain.call(call).await });
        scene.applied().await;
        assert!(!said.is_finished(), "{end:?}: it rests on the held commit");
        scene.end.send(end).expect("the commit waits");
        let said = timeout(PATIENCE, said).await.expect("an answer");
        let said = said.expect("no panic");
        match end {
            End::Kept => assert!(matches!(said, Ok(Answer::SubmitPlan(Ok(_)))), "{said:?}"),
            _ => assert!(matches!(said, Err(HostError::Retry)), "{end:?}: {said:?}"),
        }
        let small = scene.run("small", 1);
        for running in [large, small] {
            let ended = timeout(PATIENCE, running).await.expect("it ends");
            ended.expect("it succeeds");
        }
        let runs = scene.runs.lock().expect("no panic").clone();
        assert_eq!(runs.len(), WIDE + 1, "{end:?}");
        assert!(runs.values().all(|count| *count == 1), "{end:?}: {runs:?}");
        let read = scene
            .domain
            .with_store(|store| store.lines(0, usize::MAX >> 1));
        let lines = read.await.expect("the ledger is read");
        let mut instance = engine().instance().expect("an instance");
        let checked = false;
        let replayed = instance.call(&Call::Replay { lines, checked });
        replayed.expect("no fault").expect("the ledger holds");
        scene.domain.close().await;
    }
}

/// Whoever opens the directory next has it all, although nobody waited for the commit.
#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_what_is_committed_beside() {
    let scene = scene().await;
    let large = scene.run("large", WIDE);
    scene.first_large_commit().await;
    let domain = scene.domain.clone();
    let closing = tokio::spawn(async move { domain.close().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!closing.is_finished());
    scene.end.send(End::Kept).expect("the commit waits");
    timeout(PATIENCE, closing)
        .await
        .expect("it closes")
        .expect("no panic");
    large.abort();
    let opened = Domain::builder(scene.domain.directory())
        .open()
        .await
        .expect("it opens");
    let read = opened.with_store(|store| store.lines(0, 1)).await;
    assert_eq!(read.expect("the ledger is read").len(), 1);
    let said = opened.call(Call::Describe { id: "large".into() }).await;
    let Ok(Answer::Describe(said)) = said else {
        panic!("{said:?}");
    };
    assert!(said.contains("\"s99\""), "{said}");
    opened.close().await;
}
