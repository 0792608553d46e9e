//! The work that is measured: scenarios of whole runs, the calls that make them, and the ledger that they leave.
//!
//! Shared by what measures the core and by what measures the component. A scenario is prepared once, with agents that are
//! done at once; what is measured are its calls alone, and whoever measured them says [`Work::check`] afterwards, so that a
//! figure is never that of refused calls. The same name is the same work, byte for byte. Measures nothing by itself.

mod domain;
pub mod plans;

pub use domain::Domain;
use domain::{attempts_that_fail, done, reported};
use qm2_core::call::Call;
use qm2_core::ledger::Chain;
use qm2_core::machine::Machine;
use qm2_core::receipt::Head;
use qm2_core::staged::Staged;
use std::hint::black_box;

/// The scenarios, by name.
pub const SCENARIOS: [&str; 10] = [
    "fanout", "report", "chain", "claims", "retry", "empty", "live", "replay", "verify", "snapshot",
];

/// Lines of one replay call.
const REPLAYED: usize = 512;
/// Bytes of a piece of a snapshot.
const PIECE_BYTES: u64 = 256 * 1024;
/// Coordinations that live already where it is measured what that costs.
const LIVE: usize = 2_000;
/// Coordinations of which a snapshot is taken.
const SNAPSHOT: usize = 200;
/// Plans that come to a domain with and without these.
const NEWCOMERS: usize = 40;

/// A scenario, ready to be run any number of times.
pub struct Work {
    /// Its name.
    pub name: &'static str,
    /// Envelopes that come in; none where what comes in are lines or pieces.
    pub envelopes: usize,
    /// Steps that are done, or that a snapshot holds; none where records are what counts.
    pub steps: usize,
    /// Records that are made, or read; none where the state is what counts.
    pub records: usize,
    /// What each run begins with, and the ledger of that.
    before: Machine,
    lines_before: Vec<String>,
    job: Job,
    /// What each run ends with.
    head: Head,
    digest: String,
}

/// What a run does.
enum Job {
    /// Makes these calls.
    Calls(Vec<Call>),
    /// Verifies the chain of these lines.
    Verify(Vec<String>),
    /// Takes this state out in pieces and into an empty machine.
    Snapshot(Box<Machine>),
}

impl Work {
    /// Prepares a scenario.
    ///
    /// # Panics
    /// Without a scenario of this name, or where the core does not do what the scenario is about.
    pub fn new(name: &str) -> Self {
        match name {
            "fanout" => Self::run_of("fanout", fanout),
            "report" => Self::run_of("report", report),
            "chain" => Self::run_of("chain", chain),
            "claims" => Self::run_of("claims", claims),
            "retry" => Self::run_of("retry", retry),
            "empty" => Self::run_of("empty", newcomers),
            "live" => Self::run_in("live", inhabited(LIVE), newcomers),
            "replay" => Self::replay(),
            "verify" => Self::verify(),
            "snapshot" => Self::snapshot(),
            _ => panic!("{name} is no scenario; there are {SCENARIOS:?}"),
        }
    }

    /// What a run begins with; making it is not part of the work.
    pub fn begin(&self) -> Machine {
        self.before.clone()
    }

    /// Does the work: this is what is measured.
    pub fn run(&self, machine: &mut Machine) -> Head {
        match &self.job {
            Job::Calls(calls) => {
                let mut staged = Staged::default();
                for call in calls {
                    let answer = machine.call(&mut staged, call);
                    black_box(answer.expect("it was taken before"));
                    black_box(staged.take());
                }
                machine.head().expect("every call came to its end")
            }
            Job::Verify(lines) => {
                let mut chain = Chain::default();
                for line in lines {
                    chain.push(line).expect("the chain holds");
                }
                chain.head
            }
            Job::Snapshot(from) => copy(from, machine),
        }
    }

    /// Whether a run did all of the work.
    ///
    /// # Panics
    /// If it ended with anything else than the first one.
    pub fn check(&self, machine: &Machine, head: &Head) {
        self.check_digest(head, &machine.state_digest().expect("it is usable"));
    }

    /// As [`Work::check`], of a machine that is elsewhere.
    ///
    /// # Panics
    /// As [`Work::check`].
    pub fn check_digest(&self, head: &Head, digest: &str) {
        assert_eq!(*head, self.head, "{}: the last record", self.name);
        assert_eq!(digest, self.digest, "{}: the state", self.name);
    }

    /// The ledger of what a run begins with.
    pub fn lines_before(&self) -> &[String] {
        &self.lines_before
    }

    /// The calls of a scenario that makes some, those that only prepare it not among them.
    pub fn calls(&self) -> &[Call] {
        match &self.job {
            Job::Calls(calls) => calls,
            _ => &[],
        }
    }

    fn run_of(name: &'static str, live: fn(&mut Domain) -> usize) -> Self {
        Self::run_in(name, Domain::new(), live)
    }

    /// What comes to a domain, and what becomes of it; whoever brings it answers how many steps that is.
    fn run_in(name: &'static str, mut domain: Domain, live: fn(&mut Domain) -> usize) -> Self {
        let before = domain.machine.clone();
        let lines_before = domain.forget();
        let steps = live(&mut domain);
        Self {
            name,
            envelopes: domain.envelopes,
            steps,
            records: domain.lines.len(),
            before,
            lines_before,
            job: Job::Calls(domain.calls),
            head: head_of(&domain.machine),
            digest: digest_of(&domain.machine),
        }
    }

    /// The ledger of several scenarios in one, so that all kinds of record are in it.
    fn recorded() -> Domain {
        let mut domain = Domain::new();
        for live in [fanout, report, chain, claims, retry] {
            live(&mut domain);
        }
        domain
    }

    fn replay() -> Self {
        let domain = Self::recorded();
        let replay = |lines: &[String]| Call::Replay {
            lines: lines.to_vec(),
            checked: true,
        };
        Self {
            name: "replay",
            envelopes: 0,
            steps: 0,
            records: domain.lines.len(),
            before: Machine::new(),
            lines_before: Vec::new(),
            job: Job::Calls(domain.lines.chunks(REPLAYED).map(replay).collect()),
            head: head_of(&domain.machine),
            digest: digest_of(&domain.machine),
        }
    }

    fn verify() -> Self {
        let domain = Self::recorded();
        Self {
            name: "verify",
            envelopes: 0,
            steps: 0,
            records: domain.lines.len(),
            before: Machine::new(),
            lines_before: Vec::new(),
            job: Job::Verify(domain.lines),
            head: head_of(&domain.machine),
            digest: digest_of(&Machine::new()),
        }
    }

    fn snapshot() -> Self {
        let domain = inhabited(SNAPSHOT);
        Self {
            name: "snapshot",
            envelopes: 0,
            steps: SNAPSHOT * plans::SMALL_STEPS,
            records: 0,
            before: Machine::new(),
            lines_before: Vec::new(),
            head: head_of(&domain.machine),
            digest: digest_of(&domain.machine),
            job: Job::Snapshot(Box::new(domain.machine)),
        }
    }
}

/// A domain with so many steps out, and the one call that reports the end of all of them.
pub fn one_call(steps: usize) -> (Domain, Call) {
    let mut domain = Domain::new();
    let messages = domain.submit(&plans::wide("w", steps));
    assert_eq!(messages.len(), steps, "all are out");
    let envelopes: Vec<_> = messages
        .iter()
        .flat_map(|message| reported(&message.envelope))
        .collect();
    let session = plans::SESSION;
    let call = Call::Submit {
        caller: domain::caller(session),
        now_ms: domain.now_ms(),
        envelopes,
    };
    (domain, call)
}

/// All of a state in pieces, each taken in as it comes.
fn copy(from: &Machine, to: &mut Machine) -> Head {
    let mut cursor = None;
    loop {
        let piece = from.snapshot(cursor.as_deref(), PIECE_BYTES);
        let piece = piece.expect("the cursor is that of the last piece");
        let head = to.restore(&piece.chunk, piece.next.is_none());
        let head = head.expect("a piece that was given is taken");
        match piece.next {
            Some(next) => cursor = Some(next),
            None => return head,
        }
    }
}

fn head_of(machine: &Machine) -> Head {
    machine.head().expect("it is usable")
}

fn digest_of(machine: &Machine) -> String {
    machine.state_digest().expect("it is usable")
}

/// Plans of one step, 64 after it, and one after these; every agent says that it began, and that it is done.
fn fanout(domain: &mut Domain) -> usize {
    const PLANS: usize = 8;
    const WIDTH: usize = 64;
    let plans = (0..PLANS).map(|number| plans::fanout(&format!("fanout-{number}"), WIDTH));
    domain.run(plans, done);
    PLANS * (WIDTH + 2)
}

/// The same, of agents that only say that they are done.
fn report(domain: &mut Domain) -> usize {
    const PLANS: usize = 8;
    const WIDTH: usize = 64;
    let plans = (0..PLANS).map(|number| plans::fanout(&format!("report-{number}"), WIDTH));
    domain.run(plans, reported);
    PLANS * (WIDTH + 2)
}

/// A hundred steps in a row.
fn chain(domain: &mut Domain) -> usize {
    const PLANS: usize = 4;
    const LENGTH: usize = 100;
    let plans = (0..PLANS).map(|number| plans::chain(&format!("chain-{number}"), LENGTH));
    domain.run(plans, done);
    PLANS * LENGTH
}

/// Steps of several plans, all of which want one or two of few resources for themselves.
fn claims(domain: &mut Domain) -> usize {
    const PLANS: usize = 16;
    const STEPS: usize = 8;
    let plans = (0..PLANS).map(|number| plans::claims(&format!("claims-{number:02}"), STEPS));
    domain.run(plans, done);
    assert!(domain.has("conflict.resolved"), "they contend");
    PLANS * STEPS
}

/// Steps whose first two attempts fail, and are tried again when that is due.
fn retry(domain: &mut Domain) -> usize {
    const PLANS: usize = 16;
    const STEPS: usize = 8;
    let plans = (0..PLANS).map(|number| plans::retried(&format!("retry-{number:02}"), STEPS));
    domain.run(plans, attempts_that_fail);
    assert!(domain.has("step.retry_scheduled"), "they are retried");
    PLANS * STEPS
}

/// Plans that come to whatever lives already, their ids in between, and are done.
fn newcomers(domain: &mut Domain) -> usize {
    let number = |index| index * (LIVE / NEWCOMERS);
    let plans = (0..NEWCOMERS).map(|index| plans::small(&format!("c-{:05}-new", number(index))));
    domain.run(plans, done);
    NEWCOMERS * plans::SMALL_STEPS
}

/// A domain with so many coordinations, one half just begun and of the other the first step done.
fn inhabited(count: usize) -> Domain {
    let mut domain = Domain::new();
    for number in 0..count {
        let begun = domain.submit(&plans::small(&format!("c-{number:05}")));
        if number % 2 == 0 {
            for message in begun {
                let out = domain.say(&message, done);
                assert_eq!(out.len(), plans::SMALL_STEPS - 2, "the next are out");
            }
        }
    }
    domain
}
