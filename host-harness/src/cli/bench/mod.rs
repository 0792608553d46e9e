//! `qm2 bench`: how fast this host is on this disk, on the work that durable engines are compared with.
//!
//! Every figure comes from the default store with full durability and from agents that do nothing. Judges nothing: the
//! disk's own rate is measured before and after, so that a figure can be.

mod core;
mod growth;
mod load;
mod measure;
mod mixed;
mod plans;
mod recover;

use super::failure::Failure;
use super::output::Output;
use super::{exit, run};
use clap::{Args, Subcommand};
use measure::Disk;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// What `--help` says after the commands.
pub const HELP: &str = "\
Examples:
  qm2 bench fanout                     200 plans of 1 + 64 + 1 steps at once, and one alone
  qm2 bench chain                      100 steps in a row
  qm2 bench recover                    1,000 plans half done, kill -9, and all of them to their end
  qm2 bench core                       the same calls in the core natively and in the component
  qm2 bench mixed                      retries, contested resources, progress and cancels at once
  qm2 bench growth                     the same with 100,000 live plans, and after 1,000,000 closed ones
  qm2 --json bench fanout --in /mnt/disk | jq .stepsPerSecond

Works in a folder of its own, which it makes below --in and removes. Compare only runs whose disk probes agree.";

/// Where a benchmark works.
#[derive(Args)]
pub struct Place {
    /// Folder on the disk that is measured; a folder of its own is made in it, and removed.
    #[arg(long = "in", value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

/// The benchmarks.
#[derive(Subcommand)]
pub enum Command {
    /// W1: plans of one step, many at once, and one that waits for all; all at once, and one alone.
    Fanout(load::FanoutArguments),
    /// W2: steps in a row, one plan after another.
    Chain(load::ChainArguments),
    /// W3: plans half done, kill -9, and how long until all have ended.
    Recover(recover::Arguments),
    /// The same calls through the core natively and through the component.
    Core(core::Arguments),
    /// A day in the life: plans with retries, claims on contested resources, progress and cancels.
    Mixed(mixed::Arguments),
    /// W1 and W2 with many live coordinations, and after many closed ones, by those of an empty domain.
    #[command(long_about = growth::ABOUT)]
    Growth(growth::Arguments),
}

/// Runs one of them.
pub fn run(command: &Command, output: &Output) -> Result<u8, Failure> {
    match command {
        Command::Fanout(arguments) => load::fanout(arguments, output),
        Command::Chain(arguments) => load::chain(arguments, output),
        Command::Recover(arguments) => recover::run(arguments, output),
        Command::Core(arguments) => core::run(arguments, output),
        Command::Mixed(arguments) => mixed::run(arguments, output),
        Command::Growth(arguments) => growth::run(arguments, output),
    }
}

/// A folder that is gone after the benchmark.
struct Workplace(PathBuf);

impl Workplace {
    fn new(place: &Place, name: &str) -> Result<Self, Failure> {
        let path = place
            .folder
            .join(format!(".qm2-bench-{name}-{}", std::process::id()));
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(Failure::host(
                "io",
                format!("{} cannot be made: {error}", path.display()),
            )),
        }
    }

    /// A data directory in it.
    fn data(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A result between two probes of the disk.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probed<T> {
    bench: &'static str,
    #[serde(flatten)]
    result: T,
    #[serde(rename = "peakMiB")]
    peak_mib: Option<u64>,
    disk_before: Disk,
    disk_after: Disk,
}

/// Measures between two probes and prints what came of it.
fn probed<T: Serialize>(
    name: &'static str,
    folder: &Path,
    output: &Output,
    measure: impl FnOnce() -> Result<T, Failure>,
    text: impl FnOnce(&T) -> String,
) -> Result<u8, Failure> {
    let disk_before = measure::probe(folder)?;
    let result = measure()?;
    let probed = Probed {
        bench: name,
        result,
        peak_mib: measure::peak_mib(),
        disk_before,
        disk_after: measure::probe(folder)?,
    };
    output.result(&probed, || {
        let peak = probed
            .peak_mib
            .map_or("unknown".to_owned(), |mib| format!("{mib} MiB"));
        format!(
            "{}\npeak memory    {peak}\ndisk before    {}\ndisk after     {}",
            text(&probed.result),
            probed.disk_before,
            probed.disk_after
        )
    });
    Ok(exit::SUCCESS)
}

/// A runtime as `qm2 run` has it.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    run::runtime()
}
