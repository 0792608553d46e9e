//! `bench mixed`: a day in the life. Plans that fail and are retried, want the same resources, tell of their progress, and are
//! cancelled half-way, all at once.
//!
//! What fails and what is cancelled follows from the numbers of plan and step, so that two runs do the same work.

use super::measure::{self, Spread, ms, per_second, shown};
use super::{Failure, Output, Place, Workplace, plans, probed, runtime};
use clap::Args;
use qm2_core::message::Caller;
use qm2_host::agent::{Report, Task};
use qm2_host::store::Store;
use qm2_host::{Domain, Ended, HostError};
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Steps of a plan, two by two in rows of four.
const STEPS: usize = 8;

/// Arguments of `bench mixed`.
#[derive(Args)]
pub struct Arguments {
    /// Plans that live at once.
    #[arg(long, default_value_t = 2_000)]
    plans: usize,
    /// Resources that their steps claim.
    #[arg(long, default_value_t = 200)]
    resources: usize,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mixed {
    plans: usize,
    success: usize,
    cancelled: usize,
    steps_per_second: u64,
    records_per_second: u64,
    wall_ms: f64,
    plan: Spread,
    flushes: Option<u64>,
    ledger_bytes_per_step: u64,
}

/// Measures it.
pub fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let place = Workplace::new(&arguments.place, "mixed")?;
    let measure = || {
        runtime()?.block_on(async {
            let data = place.data("data");
            let domain = plans::builder(&data).agent("agent:*", work).open().await?;
            let flushes = measure::flushes(&data);
            let started = Instant::now();
            let mut running = JoinSet::new();
            for number in 0..arguments.plans {
                running.spawn(live(domain.clone(), number, arguments.resources));
            }
            let (mut success, mut cancelled, mut took) = (0, 0, Vec::new());
            while let Some(ended) = running.join_next().await {
                let failed = |error| Failure::host("io", format!("a plan's task: {error}"));
                let (ended, lasted) = ended.map_err(failed)??;
                took.push(lasted);
                success += usize::from(ended.terminal == "success");
                cancelled += usize::from(ended.counts.cancelled > 0);
            }
            let elapsed = started.elapsed();
            let flushes = measure::flushes_since(&data, flushes);
            let records = domain.with_store(|store: &mut dyn Store| Ok(store.head()?.seq));
            let records = usize::try_from(records.await?).unwrap_or(usize::MAX);
            domain.close().await;
            let steps = arguments.plans * STEPS;
            Ok(Mixed {
                plans: arguments.plans,
                success,
                cancelled,
                steps_per_second: per_second(steps, elapsed),
                records_per_second: per_second(records, elapsed),
                wall_ms: ms(elapsed),
                plan: Spread::of(&mut took),
                flushes,
                ledger_bytes_per_step: measure::bytes_of(&data) / steps.max(1) as u64,
            })
        })
    };
    probed("mixed", &place.0, output, measure, |result| {
        format!(
            "at once        {} plans in {} ms: {} steps/s, {} records/s, {} flushes; {} succeeded, {} were cancelled\n\
             a plan         {}\nstore          {} bytes a step",
            result.plans,
            result.wall_ms,
            result.steps_per_second,
            result.records_per_second,
            shown(result.flushes),
            result.success,
            result.cancelled,
            result.plan,
            result.ledger_bytes_per_step,
        )
    })
}

/// One plan from its submission to its end; one of twenty is cancelled soon after it began.
async fn live(
    domain: Domain,
    number: usize,
    resources: usize,
) -> Result<(Ended, Duration), HostError> {
    let id = format!("m-{number}");
    let started = Instant::now();
    let canceller = domain.clone();
    let named = id.clone();
    let cancels = async move {
        if number % 20 == 7 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let session = plans::OWNER.to_owned();
            let caller = Caller {
                session,
                role: None,
            };
            // It may have ended by now.
            let _ = canceller.cancel(caller, &named, None, None).await;
        }
    };
    let plan = plan(&id, number, resources);
    let (ended, ()) = tokio::join!(domain.run(&plan), cancels);
    Ok((ended?, started.elapsed()))
}

fn plan(id: &str, number: usize, resources: usize) -> String {
    let steps = (0..STEPS).map(|place| {
        let row = place / 2;
        let after: Vec<String> = match row.checked_sub(1) {
            Some(before) => vec![format!("s{}", 2 * before), format!("s{}", 2 * before + 1)],
            None => Vec::new(),
        };
        let after: Vec<&str> = after.iter().map(String::as_str).collect();
        let mut step = plans::step(id, &format!("s{place}"), &after);
        step["maxAttempts"] = json!(3);
        step["idempotent"] = json!(true);
        if place % 4 == 1 {
            let resource = (number * 31 + place) % resources.max(1);
            step["claims"] = json!([{"resource": format!("file:hot/{resource}")}]);
        }
        step
    });
    let mut plan: serde_json::Value = serde_json::from_str(&plans::plan(id, steps.collect()))
        .unwrap_or_else(|e| unreachable!("a plan is JSON: {e}"));
    plan["failurePolicy"] = json!({"retryBudget": 8, "backoffMs": [10]});
    plan.to_string()
}

/// Tells of progress; of ten first attempts one fails and is retried.
async fn work(task: Task) -> Report {
    // Whoever is cancelled meanwhile is told elsewhere.
    let _ = task.progress(1, None).await;
    let is_first = task.envelope.attempt == Some(1);
    let sum: u32 = task.key.bytes().map(u32::from).sum();
    if is_first && sum % 10 == 3 {
        return Report::retryable("odd", "of ten first attempts one fails");
    }
    Report::completed("")
}
