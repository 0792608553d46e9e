//! `bench fanout` and `bench chain`: how many durable steps a second, and how long one takes.

use super::measure::{self, Spread, ms, per_second, shown};
use super::{Failure, Output, Place, Workplace, plans, probed, runtime};
use clap::Args;
use qm2_core::limit;
use qm2_host::{Domain, HostError};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Arguments of `bench fanout`.
#[derive(Args)]
pub struct FanoutArguments {
    /// Plans at once.
    #[arg(long, default_value_t = 200)]
    plans: usize,
    /// Plans alone, one after another.
    #[arg(long, default_value_t = 100)]
    alone: usize,
    /// Steps of a plan that run side by side; two more are before and after them.
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// Steps that are out at once, over all plans: the width of the lane `control`.
    #[arg(long, default_value_t = plans::IN_FLIGHT, value_parser = clap::value_parser!(u64).range(1..=limit::IN_FLIGHT_MAX))]
    in_flight: u64,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `bench chain`.
#[derive(Args)]
pub struct ChainArguments {
    /// Plans, one after another.
    #[arg(long, default_value_t = 20)]
    plans: usize,
    /// Steps of a plan.
    #[arg(long, default_value_t = 100)]
    length: usize,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fanout {
    plans: usize,
    steps: usize,
    steps_per_second: u64,
    wall_ms: f64,
    flushes: Option<u64>,
    alone: Alone,
    store_bytes_per_step: u64,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alone {
    plans: usize,
    #[serde(flatten)]
    spread: Spread,
    /// On average, with those of the log being written into the database now and then.
    flushes_per_plan: Option<f64>,
    flushes_p50: Option<u64>,
}

/// W1.
pub fn fanout(arguments: &FanoutArguments, output: &Output) -> Result<u8, Failure> {
    let place = Workplace::new(&arguments.place, "fanout")?;
    let measure = || {
        runtime()?.block_on(async {
            let data = place.data("data");
            let domain = plans::idle_domain_of_width(&data, arguments.in_flight).await?;
            // Code, caches and tables are warm then.
            domain.run(&plans::fanout("warm", arguments.width)).await?;
            let alone = alone(&domain, arguments, &data).await?;
            let flushes = measure::flushes(&data);
            let started = Instant::now();
            let mut running = JoinSet::new();
            for number in 0..arguments.plans {
                let plan = plans::fanout(&format!("w1-{number}"), arguments.width);
                let domain = domain.clone();
                running.spawn(async move { domain.run(&plan).await });
            }
            while let Some(ended) = running.join_next().await {
                is_success(ended)?;
            }
            let elapsed = started.elapsed();
            let flushes = measure::flushes_since(&data, flushes);
            domain.close().await;
            let steps = arguments.plans * (arguments.width + 2);
            let all = steps + (arguments.alone + 1) * (arguments.width + 2);
            Ok(Fanout {
                plans: arguments.plans,
                steps,
                steps_per_second: per_second(steps, elapsed),
                wall_ms: ms(elapsed),
                flushes,
                alone,
                store_bytes_per_step: measure::bytes_of(&data) / all.max(1) as u64,
            })
        })
    };
    probed("fanout", &place.0, output, measure, |result| {
        format!(
            "at once        {} steps of {} plans in {} ms: {} steps/s, {} flushes\n\
             alone          {}; {} flushes a plan at p50, {} on average\n\
             store          {} bytes a step",
            result.steps,
            result.plans,
            result.wall_ms,
            result.steps_per_second,
            shown(result.flushes),
            result.alone.spread,
            shown(result.alone.flushes_p50),
            result
                .alone
                .flushes_per_plan
                .map_or("unknown".to_owned(), |count| format!("{count:.1}")),
            result.store_bytes_per_step,
        )
    })
}

async fn alone(
    domain: &Domain,
    arguments: &FanoutArguments,
    data: &Path,
) -> Result<Alone, Failure> {
    let (mut took, mut flushes) = (Vec::new(), Vec::new());
    for number in 0..arguments.alone {
        let plan = plans::fanout(&format!("alone-{number}"), arguments.width);
        let before = measure::flushes(data);
        let started = Instant::now();
        domain.run(&plan).await?;
        took.push(started.elapsed());
        flushes.extend(measure::flushes_since(data, before));
    }
    flushes.sort_unstable();
    let per_plan = flushes.iter().sum::<u64>() as f64 / flushes.len().max(1) as f64;
    Ok(Alone {
        plans: arguments.alone,
        spread: Spread::of(&mut took),
        flushes_per_plan: (!flushes.is_empty()).then_some(per_plan),
        flushes_p50: flushes.get(flushes.len() / 2).copied(),
    })
}

pub(super) fn is_success(
    ended: Result<Result<qm2_host::Ended, HostError>, tokio::task::JoinError>,
) -> Result<(), Failure> {
    let ended = ended.map_err(|error| Failure::host("io", format!("a plan's task: {error}")))??;
    if ended.terminal == "success" {
        return Ok(());
    }
    let says = format!("plan {} ended {}", ended.coordination_id, ended.terminal);
    Err(Failure::host("bench", says))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Chain {
    plans: usize,
    steps: usize,
    ms_per_step: f64,
    #[serde(flatten)]
    spread: Spread,
    flushes_per_step: Option<f64>,
    store_bytes_per_step: u64,
}

/// W2.
pub fn chain(arguments: &ChainArguments, output: &Output) -> Result<u8, Failure> {
    let place = Workplace::new(&arguments.place, "chain")?;
    let measure = || {
        runtime()?.block_on(async {
            let data = place.data("data");
            let domain = plans::idle_domain(&data).await?;
            domain.run(&plans::chain("warm", arguments.length)).await?;
            let flushes = measure::flushes(&data);
            let (mut took, mut all) = (Vec::new(), Duration::ZERO);
            for number in 0..arguments.plans {
                let plan = plans::chain(&format!("w2-{number}"), arguments.length);
                let started = Instant::now();
                domain.run(&plan).await?;
                let elapsed = started.elapsed();
                all += elapsed;
                took.push(elapsed / u32::try_from(arguments.length).unwrap_or(u32::MAX).max(1));
            }
            let flushes = measure::flushes_since(&data, flushes);
            domain.close().await;
            let steps = arguments.plans * arguments.length;
            let per_step = |count: u64| count as f64 / steps.max(1) as f64;
            Ok(Chain {
                plans: arguments.plans,
                steps,
                ms_per_step: (ms(all) / steps.max(1) as f64 * 1_000.0).round() / 1_000.0,
                spread: Spread::of(&mut took),
                flushes_per_step: flushes.map(per_step),
                store_bytes_per_step: measure::bytes_of(&data)
                    / (steps + arguments.length).max(1) as u64,
            })
        })
    };
    probed("chain", &place.0, output, measure, |result| {
        format!(
            "a step         {} ms on average, of a plan's average {}; {} flushes\nstore          {} bytes a step",
            result.ms_per_step,
            result.spread,
            result
                .flushes_per_step
                .map_or("unknown".to_owned(), |count| format!("{count:.2}")),
            result.store_bytes_per_step,
        )
    })
}
