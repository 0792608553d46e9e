//! `bench growth`: what a domain that holds much does in comparison with an empty one, and what it holds costs.
//!
//! Both domains are open at once and get the same work in turns, so that whatever else the machine does meets both. Guest
//! memory is measured on an instance alone.

use super::core::{Native, Takes, caller, ends, replay};
use super::load::is_success;
use super::measure::{self, Spread, ms};
use super::{Failure, Output, Place, Workplace, plans, probed, runtime};
use clap::Args;
use qm2_core::call::Call;
use qm2_core::limit;
use qm2_host::agent::{Report, Task};
use qm2_host::clock::{Clock, SystemClock};
use qm2_host::engine::{Engine, Instance};
use qm2_host::event_stream::{Emitted, EventStream};
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::{Store, Transaction};
use qm2_host::{Domain, HostError};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What `--help` says of it.
pub const ABOUT: &str = "\
W1 and W2 with many live coordinations, and after many closed ones, by those of an empty domain.

Of the live ones every other has its step out with an agent that has acknowledged and does not answer, and the rest failed \
once and wait for a retry that is not due for 400 days: so half of the slots of the domain are taken, and W1 does not wait \
for one. The closed ones were plans of one step, or of --closed-steps in a row; their ledger is made by the core natively, put into the store in large \
transactions, and the domain opened from it, at first without a snapshot, and measured after it was opened once more with one.

Memory is the linear memory of an instance: what it grew by, divided by the coordinations that came. It grows in pages of \
64 KiB, so small numbers say little.";

/// Live coordinations whose memory is measured, with and without steps that are out side by side.
const WEIGHED_LIVE: usize = 1_000;
/// Closed ones at most; they cost the same however many there are.
const WEIGHED_CLOSED: usize = 250_000;
/// Lines of one transaction, and of one replay call.
const LINES: usize = 4_096;
/// Domains that are opened to see when the first step goes out.
const STARTS: usize = 20;
/// Chains in the ledger that these are opened from.
const PAST_CHAINS: usize = 5;
/// Records after which a domain makes a snapshot, as it is without saying so.
const SNAPSHOT_EVERY: u64 = 50_000;

/// Arguments of `bench growth`.
#[derive(Args)]
pub struct Arguments {
    /// Live coordinations, those of W1 not among them; fewer where a domain may not hold both.
    #[arg(long, default_value_t = 100_000)]
    live: usize,
    /// Closed coordinations.
    #[arg(long, default_value_t = 1_000_000)]
    closed: usize,
    /// Steps in a row of each of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=limit::PLAN_STEPS_MAX))]
    closed_steps: u64,
    /// Plans of W1 at once.
    #[arg(long, default_value_t = 200)]
    plans: usize,
    /// Steps of them that run side by side.
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// Plans of W2, one after another.
    #[arg(long, default_value_t = 5)]
    chains: usize,
    /// Steps of them.
    #[arg(long, default_value_t = 100)]
    length: usize,
    /// How often each domain gets that work.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Growth {
    /// From the beginning of opening a domain with a small ledger to the first step of a new plan, dispatched and durable.
    first_dispatch: Spread,
    memory: Memory,
    live: Live,
    closed: Closed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    /// Steps of a live coordination.
    steps: usize,
    /// Of one whose first step is out.
    waiting_bytes: usize,
    /// Of one whose steps are out side by side.
    running_bytes: usize,
    closed_bytes: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Live {
    coordinations: usize,
    #[serde(flatten)]
    rates: Rates,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Closed {
    coordinations: usize,
    records: u64,
    store_bytes: u64,
    /// From the ledger alone, and with a snapshot.
    open_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reopen_ms: Option<f64>,
    #[serde(flatten)]
    rates: Rates,
}

/// W1 and W2 beside an empty domain.
#[derive(Serialize)]
struct Rates {
    fanout: Rate,
    chain: Rate,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rate {
    empty_steps_per_second: u64,
    steps_per_second: u64,
    ratio: f64,
}

impl Rate {
    /// So many steps in each of two sums of time.
    fn of(steps: usize, empty: Duration, grown: Duration) -> Self {
        let ratio = empty.as_secs_f64() / grown.as_secs_f64();
        Self {
            empty_steps_per_second: measure::per_second(steps, empty),
            steps_per_second: measure::per_second(steps, grown),
            ratio: (ratio * 1_000.0).round() / 1_000.0,
        }
    }
}

/// Measures all of it.
pub fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let place = Workplace::new(&arguments.place, "growth")?;
    let measure = || {
        let past = Past::default();
        runtime()?.block_on(async {
            let first_dispatch = first_dispatch(&place.data("start")).await?;
            let mut memory = live_memory(arguments.width)?;
            let live = live(arguments, &place).await?;
            let closed = closed(arguments, &place, past, &mut memory).await?;
            Ok(Growth {
                first_dispatch,
                memory,
                live,
                closed,
            })
        })
    };
    probed("growth", &place.0, output, measure, text)
}

fn text(result: &Growth) -> String {
    let rates = |rates: &Rates| {
        let rate = |rate: &Rate| {
            format!(
                "{} steps/s, {} of the {} of an empty domain",
                rate.steps_per_second, rate.ratio, rate.empty_steps_per_second
            )
        };
        format!(
            "  W1           {}\n  W2           {}",
            rate(&rates.fanout),
            rate(&rates.chain)
        )
    };
    let Growth {
        first_dispatch,
        memory,
        live,
        closed,
    } = result;
    let reopened = closed.reopen_ms.map_or(String::new(), |took| {
        format!(", with a snapshot in {took} ms")
    });
    format!(
        "first dispatch {first_dispatch} after opening began\n\
         memory         a live one of {} steps {} bytes, {} while they are out; a closed one {} bytes\n\
         live           {} coordinations\n{}\n\
         closed         {} coordinations, {} records in {} bytes, opened in {} ms{reopened}\n{}",
        memory.steps,
        memory.waiting_bytes,
        memory.running_bytes,
        memory.closed_bytes,
        live.coordinations,
        rates(&live.rates),
        closed.coordinations,
        closed.records,
        closed.store_bytes,
        closed.open_ms,
        rates(&closed.rates),
    )
}

/// How long domains take to get their first step out. The compiled component is in the cache by then.
async fn first_dispatch(data: &Path) -> Result<Spread, Failure> {
    let domain = plans::idle_domain(data).await?;
    for number in 0..PAST_CHAINS {
        let id = format!("past-{number}");
        domain.run(&plans::chain(&id, 100)).await?;
    }
    domain.close().await;
    let mut took = Vec::new();
    for number in 0..STARTS {
        let id = format!("start-{number}");
        let (dispatched, mut comes) = mpsc::unbounded_channel();
        let stream = EventStream::default();
        let of = id.clone();
        stream.listen(Arc::new(move |event: &Emitted| {
            if event.data["type"] == "step.dispatched" && event.run_id == of {
                let _ = dispatched.send(Instant::now());
            }
        }));
        let nothing = |_: Task| async { Report::completed("") };
        let plan = plans::chain(&id, 2);
        let started = Instant::now();
        let builder = plans::builder(data).agent("agent:*", nothing);
        let domain = builder.event_stream(stream).open().await?;
        domain.submit_plan(&plan).await??;
        let at = comes.recv().await.ok_or(HostError::Closed)?;
        took.push(at - started);
        domain.run(&plan).await?;
        domain.close().await;
    }
    Ok(Spread::of(&mut took))
}

/// What a live coordination of so many steps side by side, one before and one after them, costs in an instance.
fn live_memory(width: usize) -> Result<Memory, Failure> {
    let mut instance = Engine::new()?.instance()?;
    let config = plans::config().to_json();
    instance.take(&Call::Configure { config })?;
    let mut now_ms = 0;
    let mut submit = |instance: &mut Instance, numbers: std::ops::Range<usize>| {
        let mut messages = Vec::new();
        for number in numbers {
            now_ms += 1;
            let plan = plans::fanout(&format!("weighed-{number:05}"), width);
            let caller = caller(plans::OWNER);
            instance.take(&Call::SubmitPlan {
                caller,
                now_ms,
                plan,
            })?;
            messages.extend(instance.said().messages);
        }
        Ok::<_, Failure>(messages)
    };
    // Tables and lists have their first length then.
    submit(&mut instance, 0..WEIGHED_LIVE / 10)?;
    let before = instance.memory_bytes();
    let messages = submit(&mut instance, WEIGHED_LIVE / 10..WEIGHED_LIVE)?;
    let count = messages.len();
    let waiting = instance.memory_bytes();
    for message in &messages {
        instance.take(&ends(message, 10_000))?;
        instance.said();
    }
    let running = instance.memory_bytes();
    Ok(Memory {
        steps: width + 2,
        waiting_bytes: (waiting - before) / count,
        running_bytes: (running - before) / count,
        closed_bytes: 0,
    })
}

/// W1 and W2 in turns on an empty domain and on a grown one.
async fn compare(arguments: &Arguments, empty: &Domain, grown: &Domain) -> Result<Rates, Failure> {
    let both = [empty, grown];
    let (mut fanout, mut chain) = ([Duration::ZERO; 2], [Duration::ZERO; 2]);
    // Code, caches and tables are warm then.
    for domain in both {
        domain.run(&plans::fanout("warm", arguments.width)).await?;
        domain
            .run(&plans::chain("warm-2", arguments.length))
            .await?;
    }
    for round in 0..arguments.rounds {
        for (domain, all) in both.into_iter().zip(&mut fanout) {
            let started = Instant::now();
            let mut running = JoinSet::new();
            for number in 0..arguments.plans {
                let plan = plans::fanout(&format!("w1-{round}-{number}"), arguments.width);
                let domain = domain.clone();
                running.spawn(async move { domain.run(&plan).await });
            }
            while let Some(ended) = running.join_next().await {
                is_success(ended)?;
            }
            *all += started.elapsed();
        }
        for number in 0..arguments.chains {
            let plan = plans::chain(&format!("w2-{round}-{number}"), arguments.length);
            for (domain, all) in both.into_iter().zip(&mut chain) {
                let started = Instant::now();
                domain.run(&plan).await?;
                *all += started.elapsed();
            }
        }
    }
    let steps = arguments.rounds * arguments.plans * (arguments.width + 2);
    let links = arguments.rounds * arguments.chains * arguments.length;
    Ok(Rates {
        fanout: Rate::of(steps, fanout[0], fanout[1]),
        chain: Rate::of(links, chain[0], chain[1]),
    })
}

/// An empty domain, and one with many coordinations that live.
async fn live(arguments: &Arguments, place: &Workplace) -> Result<Live, Failure> {
    let most = usize::try_from(limit::LIVE_COORDINATIONS_MAX).unwrap_or(usize::MAX);
    let count = arguments.live.min(most.saturating_sub(arguments.plans + 1));
    let empty = plans::idle_domain_of_width(&place.data("empty-1"), limit::IN_FLIGHT_MAX).await?;
    let begun = Arc::new(AtomicUsize::new(0));
    let (out, failed) = (begun.clone(), begun.clone());
    let grown = plans::builder(&place.data("live"))
        .agent("agent:out-*", move |_: Task| {
            out.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        })
        .agent("agent:fails-*", move |_: Task| {
            failed.fetch_add(1, Ordering::Relaxed);
            async { Report::retryable("later", "it is tried again another day") }
        })
        .agent("agent:*", |_: Task| async { Report::completed("") })
        .open()
        .await?;
    let mut submitted = JoinSet::new();
    for number in 0..count {
        let (domain, plan) = (grown.clone(), resting(number));
        submitted.spawn(async move { domain.submit_plan(&plan).await });
    }
    while let Some(receipt) = submitted.join_next().await {
        receipt.map_err(|e| Failure::host("io", format!("a plan's task: {e}")))???;
    }
    while begun.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rest(&grown).await?;
    let rates = compare(arguments, &empty, &grown).await?;
    empty.close().await;
    grown.close().await;
    Ok(Live {
        coordinations: count,
        rates,
    })
}

/// A plan of one step that does not end.
fn resting(number: usize) -> String {
    let id = format!("resting-{number:06}");
    let what = if number.is_multiple_of(2) {
        "out"
    } else {
        "fails"
    };
    let step = json!({
        "stepId": "rests",
        "targetSession": format!("agent:{what}-{number}"),
        "timeoutMs": limit::DURATION_MS_MAX,
    });
    let mut plan: Value = serde_json::from_str(&plans::plan(&id, vec![step]))
        .unwrap_or_else(|e| unreachable!("a plan is JSON: {e}"));
    plan["failurePolicy"] = json!({"retryBudget": 1, "backoffMs": [limit::DURATION_MS_MAX]});
    plan.to_string()
}

/// Waits until a domain has recorded nothing for a while.
async fn rest(domain: &Domain) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let seq = domain
            .with_store(|store: &mut dyn Store| Ok(store.head()?.seq))
            .await?;
        if last == Some(seq) {
            return Ok(());
        }
        last = Some(seq);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// An empty domain, and one with many coordinations that are closed.
async fn closed(
    arguments: &Arguments,
    place: &Workplace,
    past: Past,
    memory: &mut Memory,
) -> Result<Closed, Failure> {
    let data = place.data("closed");
    let records = past.write(&data, arguments, memory)?;
    let started = Instant::now();
    let mut grown = plans::idle_domain(&data).await?;
    let open_ms = ms(started.elapsed());
    let mut reopen_ms = None;
    if records >= SNAPSHOT_EVERY {
        // Made in the background once the domain is open.
        while !has_snapshot(&grown).await? {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        grown.close().await;
        let started = Instant::now();
        grown = plans::idle_domain(&data).await?;
        reopen_ms = Some(ms(started.elapsed()));
    }
    let empty = plans::idle_domain(&place.data("empty-2")).await?;
    let rates = compare(arguments, &empty, &grown).await?;
    empty.close().await;
    grown.close().await;
    Ok(Closed {
        coordinations: arguments.closed,
        records,
        store_bytes: measure::bytes_of(&data),
        open_ms,
        reopen_ms,
        rates,
    })
}

async fn has_snapshot(domain: &Domain) -> Result<bool, HostError> {
    domain
        .with_store(|store: &mut dyn Store| Ok(store.snapshot()?.is_some()))
        .await
}

/// A ledger of plans that have ended, made without a domain.
#[derive(Default)]
struct Past {
    native: Native,
    lines: Vec<String>,
    records: u64,
}

impl Past {
    /// Puts it into a new store; on the way an instance follows it, which says what a closed coordination costs.
    fn write(
        mut self,
        data: &Path,
        arguments: &Arguments,
        memory: &mut Memory,
    ) -> Result<u64, Failure> {
        let count = arguments.closed;
        let steps = usize::try_from(arguments.closed_steps).unwrap_or(usize::MAX);
        let mut store = SqliteStore::open(data)?;
        let mut instance = Engine::new()?.instance()?;
        let now_ms = SystemClock.now_ms();
        let config = plans::config().to_json();
        self.call(Call::Configure { config })?;
        let weighed = count.min(WEIGHED_CLOSED);
        // The first ones make the instance as large as it is while it works.
        let first = weighed / 10;
        let mut before = 0;
        for number in 0..count {
            self.run_one(number, steps, now_ms)?;
            let edge = number + 1 == first || number + 1 == weighed;
            if self.lines.len() >= LINES || edge || number + 1 == count {
                let lines = std::mem::take(&mut self.lines);
                if number < weighed {
                    instance.take(&replay(&lines))?;
                }
                self.records += lines.len() as u64;
                store.commit(&Transaction {
                    lines,
                    ..Transaction::default()
                })?;
            }
            if number + 1 == first {
                before = instance.memory_bytes();
            }
            if number + 1 == weighed {
                memory.closed_bytes = (instance.memory_bytes() - before) / (weighed - first).max(1);
            }
        }
        Ok(self.records)
    }

    /// One plan from its submission until its owner has acknowledged its end.
    fn run_one(&mut self, number: usize, steps: usize, now_ms: u64) -> Result<(), Failure> {
        let id = format!("closed-{number:07}");
        let plan = plans::chain(&id, steps);
        let caller = caller(plans::OWNER);
        let mut messages = self.call(Call::SubmitPlan {
            caller,
            now_ms,
            plan,
        })?;
        while let Some(message) = messages.pop() {
            messages.extend(self.call(ends(&message, now_ms))?);
        }
        Ok(())
    }

    fn call(&mut self, call: Call) -> Result<Vec<qm2_core::message::Message>, Failure> {
        self.native.take(&call)?;
        let said = self.native.said();
        self.lines.extend(said.lines);
        Ok(said.messages)
    }
}
