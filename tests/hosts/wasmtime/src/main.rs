//! What every host of `tests/hosts` does, for wasmtime from Rust: all vectors through each door, and how many envelopes a
//! second go in; and for all of them the workload of the rates.
//!
//! Prints a JSON object a line, which `.ci/hosts` puts into one table. Judges no rate.

mod core_module;
mod door;
mod rebuild;
#[allow(dead_code)] // It writes vectors, too.
#[path = "../../../support/vector.rs"]
mod vector;
mod workload;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
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
const MEASURED: Duration = Duration::from_millis(1_500);

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every vector through every door, as it is and with a host that dies in it and comes back.
    Vectors {
        /// Folder of the vectors.
        #[arg(long)]
        vectors: PathBuf,
    },
    /// Measures envelopes a second through every door.
    Rate {
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
        Command::Vectors { vectors } => {
            let files = vector::files(&vectors);
            if files.is_empty() {
                bail!("{} holds no vectors", vectors.display());
            }
            let native = [
                check::<Records<false>>("wasmtime", &files),
                check::<Json<false>>("wasmtime", &files),
                check::<CoreModule<false>>("wasmtime", &files),
            ];
            let interpreted = [
                check::<Records<true>>("wasmtime pulley", &files),
                check::<Json<true>>("wasmtime pulley", &files),
                check::<CoreModule<true>>("wasmtime pulley", &files),
            ];
            let all = native.iter().chain(&interpreted);
            Ok(ExitCode::from(u8::from(!all.into_iter().all(|held| *held))))
        }
        Command::Rate { workload } => {
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

/// Runs the vectors through a door; says on standard error which of them do not hold, and answers whether all do.
fn check<D: Door>(host: &str, files: &[(String, String)]) -> bool {
    let (started, before) = (Instant::now(), rebuild::count());
    let mut passed = 0;
    for (name, text) in files {
        let as_it_is = || {
            rebuild::spare();
            vector::check::<Rebuilding<D>>(text)
        };
        let with_a_death = || {
            rebuild::choose(name);
            vector::check::<Rebuilding<D>>(text)
        };
        match as_it_is().and_then(|()| with_a_death()) {
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
    let mut is_warm = false;
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
            match answer? {
                Answer::Submit(receipts) => {
                    taken += receipts.len();
                    round += elapsed;
                }
                _ => {}
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
