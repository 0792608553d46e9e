//! What every host of `tests/hosts` does, for wasmtime from Rust: all vectors through each door, and how many envelopes a
//! second go in; and for all of them the workload of the rates.
//!
//! Prints a JSON object a line, which `.ci/hosts` puts into one table. Judges no rate.

mod artifact;
mod core_module;
mod door;
#[path = "../../../support/handed.rs"]
mod handed;
mod rebuild;
#[allow(dead_code)] // It writes vectors, too.
#[path = "../../../support/vector.rs"]
mod vector;
mod workload;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use core_module::CoreModule;
use door::{Door, Json, Records};
use qm2_core::call::{Answer, Call};
use rebuild::Rebuilding;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use workload::Workload;

/// How long is measured at least, without the first round.
const MEASURED: Duration = Duration::from_millis(1_000);

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The files of a release.
#[derive(Args)]
struct Files {
    /// The component; the embedded one if it is left out.
    #[arg(long)]
    component: Option<PathBuf>,
    /// The plain core module; the embedded one if it is left out.
    #[arg(long)]
    core: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every vector through every door, as it is and with a host that dies in it and comes back.
    Vectors {
        #[command(flatten)]
        files: Files,
        /// Folder of the vectors.
        #[arg(long)]
        vectors: PathBuf,
    },
    /// Measures envelopes a second through every door.
    Rate {
        #[command(flatten)]
        files: Files,
        /// Folder that `workload` wrote.
        #[arg(long)]
        workload: PathBuf,
    },
    /// Writes the calls that all hosts are measured with.
    Workload {
        /// Where to; the folder is made.
        folder: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Vectors { files, vectors } => {
            artifact::choose(files.component.as_deref(), files.core.as_deref())?;
            let files = vector::files(&vectors);
            if files.is_empty() {
                bail!("{} holds no vectors", vectors.display());
            }
            let both = [false, true];
            // The interpreter takes its time; a vector with a death in it is the whole vector all the same.
            let one = [true];
            let held = [
                check::<Records<false>>("wasmtime", &files, &both),
                check::<Json<false>>("wasmtime", &files, &both),
                check::<CoreModule<false>>("wasmtime", &files, &both),
                check::<Records<true>>("wasmtime pulley", &files, &one),
                check::<Json<true>>("wasmtime pulley", &files, &one),
                check::<CoreModule<true>>("wasmtime pulley", &files, &one),
            ];
            Ok(ExitCode::from(u8::from(!held.iter().all(|held| *held))))
        }
        Command::Rate { files, workload } => {
            artifact::choose(files.component.as_deref(), files.core.as_deref())?;
            for batch in workload::BATCHES {
                let workload = Workload::read(&workload, batch)?;
                rate::<Records<false>>("wasmtime", batch, &workload)?;
                rate::<Json<false>>("wasmtime", batch, &workload)?;
                rate::<CoreModule<false>>("wasmtime", batch, &workload)?;
                rate::<Records<true>>("wasmtime pulley", batch, &workload)?;
                rate::<Json<true>>("wasmtime pulley", batch, &workload)?;
                rate::<CoreModule<true>>("wasmtime pulley", batch, &workload)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Workload { folder } => {
            workload::write(&folder)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs the vectors through a door, without and with a death in each; says on standard error which of them do not hold, and
/// answers whether all do.
fn check<D: Door>(host: &str, files: &[(String, String)], deaths: &[bool]) -> bool {
    let (started, before) = (Instant::now(), rebuild::count());
    let mut passed = 0;
    for (name, text) in files {
        let run = |dies: &bool| {
            if *dies {
                rebuild::choose(name);
            } else {
                rebuild::spare();
            }
            vector::check::<Rebuilding<D>>(text)
        };
        match deaths.iter().try_for_each(run) {
            Ok(()) => passed += 1,
            Err(says) => eprintln!("{host}, {}: {name}: {says}", D::NAME),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let line = json!({
        "host": host, "door": D::NAME, "vectors": files.len(), "passed": passed,
        "rebuilds": rebuild::count() - before, "seconds": (seconds * 10.0).round() / 10.0,
    });
    println!("{line}");
    passed == files.len()
}

/// Measures a door: from a typed call to a typed answer and typed messages, whatever lies between.
fn rate<D: Door>(host: &str, batch: usize, workload: &Workload) -> Result<()> {
    let (mut measured, mut envelopes) = (Duration::ZERO, 0);
    // The interpreter does not get any warmer.
    let mut is_warm = host != "wasmtime";
    while measured < MEASURED {
        let mut door = D::open();
        let mut taken = 0;
        let mut round = Duration::ZERO;
        for call in &workload.calls {
            let started = Instant::now();
            let answer = door.try_call(call)?;
            let staged = door.take_staged();
            let elapsed = started.elapsed();
            drop(staged);
            if let Answer::Submit(receipts) = answer? {
                taken += receipts.len();
                round += elapsed;
            }
        }
        match door.try_call(&Call::StateDigest)?? {
            Answer::StateDigest(digest) if digest == workload.state_digest => {}
            other => bail!("{host}, {}: it ended at {other:?}", D::NAME),
        }
        // The first round warms up.
        if is_warm {
            (measured, envelopes) = (measured + round, envelopes + taken);
        }
        is_warm = true;
    }
    let per_second = (envelopes as f64 / measured.as_secs_f64()).round();
    let line = json!({
        "host": host, "door": D::NAME, "batch": batch, "envelopesPerSecond": per_second as u64,
    });
    println!("{line}");
    Ok(())
}
