//! The real program under fire: kill -9, power cuts, disks that are full, broken or read-only, and two processes in one data
//! directory. Whatever somebody outside was told must be in the ledger afterwards, the ledger must verify, and the same
//! command must bring the plan to its end without running anything twice.
//!
//! How much of it is done is set by the environment; without it, what fits into a run of all tests:
//!
//! | variable | figure | without it |
//! |---|---|---|
//! | `QM2_KILLS` | kills of the running program (`kill`, and half of them in `tests/kill.rs`) | 100 |
//! | `QM2_CUTS` | power cuts (`power`) | 200 |
//! | `QM2_RESUMED_OF` | after one power cut of so many the plans are also brought to their end | 1 |
//! | `QM2_FAULT_STRIDE` | of the operations of a run one of so many fails (`fault`) | 8 |
//! | `QM2_FIRE_SEED` | the first seed; a failing round prints its own | 1 |
//! | `QM2_FIRE_WORKERS` | rounds side by side; they mostly sleep | 6 |
//!
//! For the long figures: `QM2_KILLS=2000 QM2_CUTS=5000 cargo test --test qm2 -- fire:: kill:: --nocapture`.

mod audit;
mod disk;
mod fault;
mod kill;
mod pair;
mod power;
mod site;
mod sync;

use crate::support::random::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// In the place of an error, the layer kills the process.
const KILL: i32 = 9999;

/// A figure that the environment may set.
pub fn figure(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => otherwise,
    }
}

/// Draws from a seed, the same every time.
#[derive(Clone, Debug)]
pub struct Draw(Random);

impl Draw {
    /// The draws of one round.
    pub fn new(round: u64) -> Self {
        let seed = figure("QM2_FIRE_SEED", 1);
        let of_seed = seed.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self(Random::new(
            of_seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ))
    }

    /// Less than the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
}

/// Does all rounds, some of them at the same time. One that fails says so and does not stop the others.
pub fn side_by_side(rounds: u64, work: impl Fn(u64) + Sync) {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let do_rounds = || {
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= rounds {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| work(round))).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            // A long one shows that it goes on.
            if (round + 1) % 50 == 0 {
                println!("round {} of {rounds}, {failed:?} failed", round + 1);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..figure("QM2_FIRE_WORKERS", 6) {
            scope.spawn(do_rounds);
        }
    });
    let failed = failed.into_inner();
    assert_eq!(
        failed, 0,
        "rounds of {rounds} that failed; each has said why"
    );
}
