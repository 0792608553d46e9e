//! `qm2-simulation`: runs seeds, prints what they showed, and shrinks what fails.
//!
//! Exit code 0 without a violation, 1 with one, 2 for usage.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use qm2_simulation::runner::{Mode, Trace, replay};
use qm2_simulation::shrink::shrink;
use qm2_simulation::target::{Maker, Native};
use qm2_simulation::{exhaust, mutation, vector, world};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

#[derive(Parser)]
#[command(about = "Deterministic simulation of QM2 domains", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs domains of consecutive seeds until so many coordinations were simulated, or one fails
    Simulate {
        /// The first seed; each seed is one domain
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Coordinations to simulate at least
        #[arg(long, default_value_t = 20_000)]
        count: u64,
        /// Domains to simulate at most
        #[arg(long, default_value_t = u64::MAX)]
        seeds: u64,
        /// Of so many domains one is done again through the component, and every byte compared; 0 for none
        #[arg(long, default_value_t = 50)]
        component_every: u64,
        /// Threads
        #[arg(long, default_value_t = 2)]
        jobs: u64,
        /// Where a failing run is kept, made small; none is kept without it
        #[arg(long)]
        keep: Option<PathBuf>,
    },
    /// Shows that the audit bites: builds a copy of the core with one wrong line at a time and looks for it
    Mutations {
        /// Only those whose name has this in it
        #[arg(long)]
        only: Option<String>,
    },
    /// Explores every interleaving of small configurations, and prints how many states that were
    Exhaust {
        /// Only the configurations whose name begins like this
        #[arg(long, default_value = "")]
        config: String,
        /// More inputs in each
        #[arg(long)]
        deep: bool,
        /// Threads
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Prints the ledger of a seed, and what was violated at its end
    Show {
        /// The seed
        #[arg(long)]
        seed: u64,
    },
}

/// What all threads found together.
#[derive(Default)]
struct Totals {
    seeds: AtomicU64,
    coordinations: AtomicU64,
    records: AtomicU64,
    rebuilds: AtomicU64,
    compared: AtomicU64,
    has_failed: AtomicBool,
    failure: Mutex<Option<(u64, String)>>,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Simulate {
            seed,
            count,
            seeds,
            component_every,
            jobs,
            keep,
        } => simulate(seed, count, seeds, component_every, jobs, keep),
        Command::Mutations { only } => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../..")
                .canonicalize()?;
            mutation::run(&root, only.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Exhaust { config, deep, jobs } => Ok(exhausted(&config, deep, jobs)),
        Command::Show { seed } => Ok(show(seed)),
    }
}

/// Every interleaving of the configurations of this name.
fn exhausted(config: &str, is_deep: bool, jobs: usize) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let mut scopes = exhaust::configuration::all(is_deep);
    scopes.retain(|scope| scope.name.starts_with(config));
    if scopes.is_empty() {
        println!("no configuration is called {config}");
        return ExitCode::from(2);
    }
    let Err(shown) = exhaust::run(&native(), &scopes, jobs) else {
        return ExitCode::SUCCESS;
    };
    println!("{}", shown.says);
    println!("moves: {}", shown.moves.join(", "));
    let what = match shown.is_shrunk {
        true => "these actions show it",
        false => "the walk alone shows it; the actions were",
    };
    println!("{what}:");
    for action in &shown.actions {
        println!("{}", serde_json::json!(action));
    }
    ExitCode::FAILURE
}

/// The ledger of a seed, a line a record.
fn show(seed: u64) -> ExitCode {
    let run = world::run(&native(), seed, true);
    for line in &run.lines {
        println!("{line}");
    }
    match run.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(
    seed: u64,
    count: u64,
    seeds: u64,
    component_every: u64,
    jobs: u64,
    keep: Option<PathBuf>,
) -> Result<ExitCode> {
    // A panic of the core is a violation and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let totals = Totals::default();
    let next = AtomicU64::new(seed);
    let compare = comparer()?;
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let this = next.fetch_add(1, Ordering::Relaxed);
                    let enough = totals.coordinations.load(Ordering::Relaxed) >= count
                        || this - seed >= seeds;
                    if enough || totals.has_failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let with_component =
                        component_every > 0 && this.is_multiple_of(component_every);
                    one(this, with_component.then_some(&*compare), &totals);
                }
            });
        }
    });
    let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} coordinations in {} domains, {} records, {} rebuilds, {} domains again through the component; {} violations; \
         {:.0} coordinations/s",
        read(&totals.coordinations),
        read(&totals.seeds),
        read(&totals.records),
        read(&totals.rebuilds),
        read(&totals.compared),
        u64::from(totals.has_failed.load(Ordering::Relaxed)),
        read(&totals.coordinations) as f64 / seconds,
    );
    let failure = totals.failure.into_inner().unwrap_or_default();
    let Some((seed, violation)) = failure else {
        return Ok(ExitCode::SUCCESS);
    };
    println!("seed {seed}: {violation}");
    println!("again: qm2-simulation simulate --seed {seed} --seeds 1 --component-every 1");
    if let Some(path) = keep {
        let run = world::run(&native(), seed, true);
        let (actions, says) = shrink(&native(), run.mode, &run.log, &violation);
        let title = says.lines().next().unwrap_or_default();
        let vector = vector::of(&actions, run.mode, &format!("seed {seed}: {title}"));
        std::fs::write(&path, serde_json::to_string_pretty(&vector)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!(
            "{} of {} actions show it: {}; put it into tests/vectors as seed-{seed}.json and bless it when it is mended",
            actions.len(),
            run.log.len(),
            path.display()
        );
    }
    Ok(ExitCode::FAILURE)
}

fn native() -> Box<Maker> {
    Box::new(|| Box::new(Native::default()))
}

/// Does a run again through something else.
type Comparer = dyn Fn() -> Result<Box<Maker>, String> + Sync;

fn one(seed: u64, compare: Option<&Comparer>, totals: &Totals) {
    let maker = native();
    let run = world::run(&maker, seed, compare.is_some());
    let mut violation = run.violation;
    if let (None, Some(compare)) = (&violation, compare) {
        violation = compared(&maker, compare, run.mode, &run.log).err();
        totals.compared.fetch_add(1, Ordering::Relaxed);
    }
    totals.seeds.fetch_add(1, Ordering::Relaxed);
    totals
        .coordinations
        .fetch_add(run.coordinations, Ordering::Relaxed);
    totals.records.fetch_add(run.records, Ordering::Relaxed);
    totals.rebuilds.fetch_add(run.rebuilds, Ordering::Relaxed);
    if let Some(violation) = violation {
        totals.has_failed.store(true, Ordering::Relaxed);
        if let Ok(mut failure) = totals.failure.lock()
            && failure.as_ref().is_none_or(|(other, _)| seed < *other)
        {
            *failure = Some((seed, violation));
        }
    }
}

/// The same actions natively and through the component: the same bytes.
fn compared(
    maker: &Maker,
    compare: &Comparer,
    mode: Mode,
    log: &[qm2_simulation::action::Action],
) -> Result<(), String> {
    let native = replay(maker, mode, log)?;
    let component = compare()?;
    same(&native, &replay(&*component, mode, log)?)?;
    // Swapped at every rebuild: what one began the other goes on with.
    let (other, turn) = (compare()?, AtomicU64::new(0));
    let swapping: Box<Maker> = Box::new(move || match turn.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => Box::new(Native::default()),
        _ => other(),
    });
    same(&native, &replay(&*swapping, mode, log)?)
}

fn same(native: &Trace, component: &Trace) -> Result<(), String> {
    if native.lines != component.lines {
        return Err("the component writes another ledger".into());
    }
    for (ours, theirs) in native.dones.iter().zip(&component.dones) {
        if ours != theirs {
            return Err(format!(
                "the component says\n{theirs}\nwhere the core says\n{ours}"
            ));
        }
    }
    Ok(())
}

#[cfg(feature = "component")]
fn comparer() -> Result<Box<Comparer>> {
    use qm2_simulation::target::{Component, Target};
    let engine = qm2_host::engine::Engine::new()?;
    Ok(Box::new(move || {
        let engine = engine.clone();
        Component::new(&engine)?;
        let maker: Box<Maker> = Box::new(move || -> Box<dyn Target> {
            Box::new(Component::new(&engine).expect("an instance can be made"))
        });
        Ok(maker)
    }))
}

/// Without the component a run done again still has to give the same bytes.
#[cfg(not(feature = "component"))]
fn comparer() -> Result<Box<Comparer>> {
    Ok(Box::new(|| Ok(native())))
}
