//! One domain with a component that means harm, and two beside it that mean well: one of the same engine, one of another.
//!
//! Knows no kind of harm; the rows do.

use super::component;
use crate::support::{OWNER, caller, engine, plan, step};
use qm2_core::config::Config;
use qm2_core::ledger::Chain;
use qm2_core::receipt::RejectionCode;
use qm2_host::agent::{Report, Task};
use qm2_host::clock::ManualClock;
use qm2_host::engine::{Call, Engine, Sandbox};
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::Store;
use qm2_host::{Domain, DomainBuilder, HostError};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// How long something that must end may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(180);
/// The plan's own deadline, on the clock that is set by hand.
const DEADLINE_MS: u64 = 60_000;

/// The component that means harm, in sandboxes.
pub struct Engines {
    /// Calls end after half a second; those that matter would never.
    pub hasty: Engine,
    /// Calls have the usual time; everything else is narrow.
    pub patient: Engine,
}

/// What the sandboxes of the tests allow.
pub fn narrow() -> Sandbox {
    Sandbox {
        memory_bytes_max: 192 * 1024 * 1024,
        staged_bytes_max: 256 * 1024 * 1024,
        staged_count_max: 1_100_000,
        ..Sandbox::default()
    }
}

pub fn engines() -> &'static Engines {
    static ENGINES: OnceLock<Engines> = OnceLock::new();
    ENGINES.get_or_init(|| {
        let of = |sandbox| {
            Engine::of_component(component::told(), sandbox, None).expect("the component loads")
        };
        Engines {
            hasty: of(Sandbox {
                call_deadline: Duration::from_millis(500),
                ..narrow()
            }),
            patient: of(narrow()),
        }
    })
}

/// What comes of a plan of one step, each with a part of what is said.
pub enum Came {
    /// The domain does not open.
    NotOpened(&'static str),
    /// A ledger of the real component does not open with this one.
    NotOpenedAgain(&'static str),
    /// The plan is refused with `component-fault`.
    Refused(&'static str),
    /// The domain is left for reading.
    ReadOnly(&'static str),
    /// A call of the host is answered with another error.
    Failed(&'static str),
    /// It ends so; where it fails, at its own deadline.
    Ended(&'static str),
}

/// The domains that mean well.
pub struct Scene<'a> {
    engine: &'a Engine,
    beside: [Domain; 2],
    _folders: [tempfile::TempDir; 2],
    plans: AtomicU64,
}

async fn done(_: Task) -> Report {
    Report::completed("done")
}

/// A domain whose name says what its component does.
pub fn builder(data: &Path, name: &str, engine: &Engine) -> DomainBuilder {
    let mut config = Config::new(name);
    config.phase1.enabled = true;
    Domain::builder(data)
        .config(config)
        .engine(engine.clone())
        .agent("agent:*", done)
}

/// The end of something that must end.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = timeout(PATIENCE, work).await;
    ended.unwrap_or_else(|_| panic!("{what} hangs"))
}

impl<'a> Scene<'a> {
    pub async fn open(harmful: &'a Engine) -> Self {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
        let open = async |at: usize, engine: &Engine| {
            let opened = builder(folders[at].path(), "means-well", engine).open();
            opened.await.expect("it opens")
        };
        let beside = [open(0, harmful).await, open(1, engine()).await];
        Self {
            engine: harmful,
            beside,
            _folders: folders,
            plans: AtomicU64::new(0),
        }
    }

    pub async fn close(&self) {
        for domain in &self.beside {
            domain.close().await;
        }
    }

    /// Plays one kind of harm, with plans beside it.
    pub async fn play(&self, name: &str, came: &Came) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        if let Came::NotOpenedAgain(_) = came {
            // Made by the real component, to which the name means nothing.
            let real = builder(&data, name, engine()).open().await;
            let real = real.expect("it opens");
            let ended = real.run(&small("before")).await.expect("it runs");
            assert_eq!(ended.terminal, "success", "{name}");
            real.close().await;
        }
        let (came_of_it, (), ()) = tokio::join!(
            soon(name, self.harm(&data, name, came)),
            self.run_beside(0, name),
            self.run_beside(1, name),
        );
        assert!(came_of_it.is(came), "{name}: {came_of_it:?}");
        // Nothing was written outside of the data directory, and the ledger in it holds.
        let written: Vec<_> = std::fs::read_dir(folder.path())
            .expect("it is read")
            .collect();
        assert_eq!(written.len(), 1, "{name}: {written:?}");
        holds(&data, name);
        // Whatever it is that it does: opened again it is an error or a domain, and never a panic.
        match soon(name, builder(&data, name, self.engine).open()).await {
            Ok(domain) => soon(name, domain.close()).await,
            Err(e) => assert!(!e.to_string().contains("panic"), "{name}: {e}"),
        }
    }

    /// Runs a plan where nobody means harm.
    async fn run_beside(&self, at: usize, name: &str) {
        let number = self.plans.fetch_add(1, Ordering::SeqCst);
        let run = self.beside[at].clone();
        let ended = soon(name, run.run(&small(&format!("p{number}")))).await;
        let ended = ended.unwrap_or_else(|e| panic!("beside {name}: {e}"));
        assert_eq!(ended.terminal, "success", "beside {name}");
    }

    /// What comes of one plan.
    async fn harm(&self, data: &Path, name: &str, came: &Came) -> CameOfIt {
        let clock = ManualClock::at(1);
        let opened = builder(data, name, self.engine)
            .clock(clock.clone())
            .snapshot_every(1)
            .open()
            .await;
        let domain = match opened {
            Ok(domain) => domain,
            Err(e) => return CameOfIt::NotOpened(e.to_string()),
        };
        // A session that nobody serves makes the host say so.
        let session = match name.ends_with(".notice") {
            true => "ghost:a",
            false => "agent:a",
        };
        let plan = plan([step("a").set("targetSession", session)]);
        let plan = plan.set("deadlineMs", DEADLINE_MS).text();
        let fails = matches!(came, Came::Ended("failed"));
        let run = async {
            let run = domain.run(&plan);
            tokio::pin!(run);
            if !fails {
                return run.await;
            }
            // The step never gets through, so that only its deadline ends the plan.
            tokio::select! {
                ended = &mut run => return ended,
                () = is_out(&domain) => {}
            }
            clock.forward(DEADLINE_MS);
            run.await
        };
        let mut ended = run.await;
        // A plan that began here is run without it, so it is asked for.
        if name.ends_with(".describe") && ended.is_ok() {
            let id = String::from("c");
            let described = domain.call(Call::Describe { id }).await;
            ended = described.and(ended);
        }
        let came = match ended {
            Ok(ended) => CameOfIt::Ended(ended.terminal),
            Err(HostError::ReadOnly { reason }) => CameOfIt::ReadOnly(reason),
            Err(HostError::Rejected(rejection))
                if rejection.code == RejectionCode::ComponentFault =>
            {
                CameOfIt::Refused(rejection.to_string())
            }
            Err(e) => CameOfIt::Failed(e.to_string()),
        };
        // Everything that can be asked is answered.
        for call in [
            Call::Head,
            Call::StateDigest,
            Call::Describe { id: String::new() },
            Call::Acknowledge {
                caller: caller(OWNER),
                now_ms: 0,
                keys: Vec::new(),
            },
        ] {
            let _ = domain.call(call).await;
        }
        domain.close().await;
        came
    }
}

/// Waits until the step of the plan is out.
async fn is_out(domain: &Domain) {
    let is_out = || async {
        let read = domain.with_store(|store| store.coordination_lines("c"));
        let lines = read.await.unwrap_or_default();
        lines.iter().any(|line| line.contains("step.dispatched"))
    };
    while !is_out().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn small(id: &str) -> String {
    plan([step("a"), step("b").after("a")])
        .set("coordinationId", id)
        .text()
}

/// The chain of a ledger, where there is one.
fn holds(data: &Path, name: &str) {
    let Ok(store) = SqliteStore::open_read_only(data) else {
        return;
    };
    let mut chain = Chain::default();
    for line in store.lines(0, usize::MAX >> 1).expect("it is read") {
        let pushed = chain.push(&line);
        pushed.unwrap_or_else(|fault| panic!("{name}: record {}: {}", fault.seq, fault.message));
    }
    assert_eq!(chain.head, store.head().expect("it is read"), "{name}");
}

/// What came of one plan, in words.
#[derive(Debug)]
enum CameOfIt {
    NotOpened(String),
    Refused(String),
    ReadOnly(String),
    Failed(String),
    Ended(String),
}

impl CameOfIt {
    fn is(&self, came: &Came) -> bool {
        match (self, came) {
            (Self::NotOpened(says), Came::NotOpened(part) | Came::NotOpenedAgain(part))
            | (Self::Refused(says), Came::Refused(part))
            | (Self::ReadOnly(says), Came::ReadOnly(part))
            | (Self::Failed(says), Came::Failed(part)) => says.contains(part),
            (Self::Ended(terminal), Came::Ended(due)) => terminal == due,
            _ => false,
        }
    }
}
