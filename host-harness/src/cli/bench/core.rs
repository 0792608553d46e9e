//! `bench core`: the same calls through the core natively and through the component, and the ledger that they leave replayed.
//!
//! Without a store and without agents: what is measured is the engine and the boundary around it.

use super::measure::{Spread, per_second};
use super::{Failure, Output, Place, Workplace, plans, probed};
use crate::cli::data;
use clap::Args;
use qm2_core::call::{Answer, Call};
use qm2_core::envelope::{Envelope, Intent, Outcome};
use qm2_core::ledger::Chain;
use qm2_core::machine::Machine;
use qm2_core::message::{Caller, Message};
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use qm2_host::engine::{Engine, Instance};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Lines of one replay call.
const REPLAYED: usize = 512;
/// Instances that are made to see how long that takes.
const INSTANCES: usize = 100;

/// Arguments of `bench core`.
#[derive(Args)]
pub struct Arguments {
    /// Plans at once, each of one step, many side by side, and one.
    #[arg(long, default_value_t = 200)]
    plans: usize,
    /// Steps side by side.
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// Each is measured so often; the quickest counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared {
    steps: usize,
    calls: usize,
    envelopes: usize,
    records: usize,
    ledger_bytes_per_step: usize,
    native: Engineered,
    component: Engineered,
    /// The component's time by that of the core.
    ratio: f64,
    replay_ratio: f64,
    /// What a new instance takes, the component being compiled already.
    instance: Spread,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Engineered {
    steps_per_second: u64,
    envelopes_per_second: u64,
    replayed_per_second: u64,
    #[serde(skip)]
    took: Duration,
    #[serde(skip)]
    replay_took: Duration,
}

/// Compares them.
pub fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let place = Workplace::new(&arguments.place, "core")?;
    let measure = || {
        let work = Work::new(arguments)?;
        let engine = Engine::new()?;
        let native = work.measure(arguments.rounds, || Ok(Native::default()))?;
        let component = work.measure(arguments.rounds, || Ok(engine.instance()?))?;
        let instance = Spread::of(&mut instances(&engine)?);
        let ratio = |component: Duration, native: Duration| {
            (component.as_secs_f64() / native.as_secs_f64() * 100.0).round() / 100.0
        };
        let bytes: usize = work.lines.iter().map(String::len).sum();
        Ok(Compared {
            steps: work.steps,
            calls: work.calls.len(),
            envelopes: work.envelopes,
            records: work.lines.len(),
            ledger_bytes_per_step: bytes / work.steps.max(1),
            ratio: ratio(component.took, native.took),
            replay_ratio: ratio(component.replay_took, native.replay_took),
            native,
            component,
            instance,
        })
    };
    probed("core", &place.0, output, measure, |result| {
        let line = |name: &str, of: &Engineered| {
            format!(
                "{name:<14} {} steps/s, {} envelopes/s, {} records/s replayed, chain checked",
                of.steps_per_second, of.envelopes_per_second, of.replayed_per_second
            )
        };
        format!(
            "work           {} steps, {} calls, {} envelopes, {} records, {} bytes of ledger a step\n{}\n{}\n\
             component      {} times the core's time, {} times in replay\n\
             an instance    {}",
            result.steps,
            result.calls,
            result.envelopes,
            result.records,
            result.ledger_bytes_per_step,
            line("native", &result.native),
            line("component", &result.component),
            result.ratio,
            result.replay_ratio,
            result.instance
        )
    })
}

/// How long each of some new instances takes to be made; dropping it is not part of that.
fn instances(engine: &Engine) -> Result<Vec<Duration>, Failure> {
    let mut took = Vec::new();
    for _ in 0..INSTANCES {
        let started = Instant::now();
        let instance = engine.instance()?;
        took.push(started.elapsed());
        drop(instance);
    }
    Ok(took)
}

/// Something that takes calls.
pub(super) trait Takes {
    fn take(&mut self, call: &Call) -> Result<Answer, Failure>;
    fn said(&mut self) -> Staged;
}

#[derive(Default)]
pub(super) struct Native {
    machine: Machine,
    staged: Staged,
}

impl Takes for Native {
    fn take(&mut self, call: &Call) -> Result<Answer, Failure> {
        self.machine.call(&mut self.staged, call).map_err(refused)
    }

    fn said(&mut self) -> Staged {
        self.staged.take()
    }
}

impl Takes for Instance {
    fn take(&mut self, call: &Call) -> Result<Answer, Failure> {
        let answer = self.call(call);
        let answer = answer.map_err(|fault| Failure::host("component-fault", fault.to_string()))?;
        answer.map_err(refused)
    }

    fn said(&mut self) -> Staged {
        self.take_staged()
    }
}

fn refused(error: CallError) -> Failure {
    Failure::host("bench", error.to_string())
}

/// Calls of a whole run, and the ledger that they leave.
struct Work {
    calls: Vec<Call>,
    lines: Vec<String>,
    steps: usize,
    envelopes: usize,
}

impl Work {
    /// Runs plans natively with agents that are done at once, and keeps what was called.
    fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let mut work = Self {
            calls: Vec::new(),
            lines: Vec::new(),
            steps: arguments.plans * (arguments.width + 2),
            envelopes: 0,
        };
        let mut native = Native::default();
        let config = plans::config().to_json();
        work.call(&mut native, Call::Configure { config })?;
        let mut messages = Vec::new();
        for number in 0..arguments.plans {
            let call = Call::SubmitPlan {
                caller: caller(plans::OWNER),
                now_ms: work.now(),
                plan: plans::fanout(&format!("w-{number}"), arguments.width),
            };
            messages.extend(work.call(&mut native, call)?.messages);
        }
        while !messages.is_empty() {
            for message in std::mem::take(&mut messages) {
                let call = ends(&message, work.now());
                if let Call::Submit { envelopes, .. } = &call {
                    work.envelopes += envelopes.len();
                }
                messages.extend(work.call(&mut native, call)?.messages);
            }
        }
        Ok(work)
    }

    fn now(&self) -> u64 {
        self.calls.len() as u64
    }

    fn call(&mut self, native: &mut Native, call: Call) -> Result<Staged, Failure> {
        native.take(&call)?;
        self.calls.push(call);
        let staged = native.said();
        self.lines.extend_from_slice(&staged.lines);
        Ok(staged)
    }

    /// Makes all calls of a new one, and replays the ledger in another; so many times, of which the quickest counts.
    fn measure<T: Takes>(
        &self,
        rounds: usize,
        new: impl Fn() -> Result<T, Failure>,
    ) -> Result<Engineered, Failure> {
        let (mut took, mut replay_took) = (Duration::MAX, Duration::MAX);
        let replays: Vec<Call> = self.lines.chunks(REPLAYED).map(replay).collect();
        for _ in 0..rounds.max(1) {
            let mut live = new()?;
            let started = Instant::now();
            for call in &self.calls {
                live.take(call)?;
                live.said();
            }
            took = took.min(started.elapsed());
            let mut replayed = new()?;
            let mut chain = Chain::default();
            let started = Instant::now();
            for (lines, call) in self.lines.chunks(REPLAYED).zip(&replays) {
                // As a host does it, whatever replays them.
                for line in lines {
                    chain.push(line).map_err(|fault| data::broken(&fault))?;
                }
                replayed.take(call)?;
            }
            replay_took = replay_took.min(started.elapsed());
            if replayed.take(&Call::StateDigest)? != live.take(&Call::StateDigest)? {
                let says = "the ledger replays to another state";
                return Err(Failure::host("bench", says));
            }
        }
        Ok(Engineered {
            steps_per_second: per_second(self.steps, took),
            envelopes_per_second: per_second(self.envelopes, took),
            replayed_per_second: per_second(self.lines.len(), replay_took),
            took,
            replay_took,
        })
    }
}

/// The chain of hashes is verified by the host, as it is when a domain opens.
pub(super) fn replay(lines: &[String]) -> Call {
    Call::Replay {
        lines: lines.to_vec(),
        checked: true,
    }
}

pub(super) fn caller(session: &str) -> Caller {
    Caller {
        session: session.to_owned(),
        role: None,
    }
}

/// What ends a message: an agent that is done at once, or an owner that has read its report.
pub(super) fn ends(message: &Message, now_ms: u64) -> Call {
    let envelope = &message.envelope;
    let caller = caller(&envelope.target_session);
    match envelope.intent {
        Intent::Execute => Call::Submit {
            caller,
            now_ms,
            envelopes: done(envelope).into(),
        },
        _ => Call::Acknowledge {
            caller,
            now_ms,
            keys: vec![message.key.clone()],
        },
    }
}

/// What an agent says that is done at once: the ack and the report.
fn done(execute: &Envelope) -> [Envelope; 2] {
    let say = |intent, outcome| Envelope {
        source_session: execute.target_session.clone(),
        target_session: execute.source_session.clone(),
        intent,
        outcome,
        deadline_ms: None,
        payload: None,
        payload_ref: None,
        tokens: Vec::new(),
        ..execute.clone()
    };
    [
        say(Intent::Ack, None),
        say(Intent::Report, Some(Outcome::Completed)),
    ]
}
