//! kill -9 of the real program under load: several plans, claims, guarded commands, questions, large results, and snapshots
//! being made. Each round kills a run, and the run that takes it up again, at a random moment or in front of a random system
//! call on the data directory; the agents live on, as they do. The third run brings the plans to their end.
//!
//! Of `QM2_KILLS` kills these are one half; the other half is in `tests/kill.rs`, with a plan that only starts commands.

use super::audit;
use super::site::{Busy, HOLD, LOAD, Site};
use super::{Draw, KILL, figure, side_by_side};
use crate::program::until;
use crate::support::{engine, plan, step};
use qm2_core::config::Config;
use qm2_host::Domain;
use qm2_host::agent::Report;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A run of the load takes about as long.
const SPAN_MS: u64 = 700;
/// A run of the load has about as many system calls of each kind on the data directory, and a run that makes a snapshot
/// comes to that later.
const CALLS: [(&str, u64); 5] = [("w", 160), ("s", 45), ("o", 50), ("n", 25), ("u", 12)];
/// Kills of a round.
const OF_ROUND: u64 = 2;
/// One kill more for so many of the others is in a ledger that is due for a snapshot.
const SNAPSHOT_OF: u64 = 50;
/// The program makes a snapshot after as many records.
const SNAPSHOT_EVERY: u64 = 50_000;

#[test]
fn run_killed_under_load_is_taken_up_again_and_loses_and_repeats_nothing() {
    let kills = figure("QM2_KILLS", 100) / 2;
    let counts: [AtomicU64; 3] = Default::default();
    let [done, acknowledged, lost] = &counts;
    let busy = Busy::default();
    side_by_side(kills.div_ceil(OF_ROUND), |round| {
        let mut draw = Draw::new(round);
        let site = match round % 2 {
            0 => Site::new(),
            _ => busy.site(),
        };
        let mut says = format!("round {round}");
        let mut before = site.directory.records();
        let mut told = audit::of_journal(&site.journal());
        let mut place = 0;
        for _ in 0..OF_ROUND {
            let mut command = site.traced(site.run_of(LOAD));
            let (call, count) = CALLS[draw.below(CALLS.len() as u64) as usize];
            let (number, after_ms) = (1 + draw.below(count), draw.below(SPAN_MS));
            if draw.below(2) == 0 {
                says += &format!(", killed in front of call {number} of {call:?}");
                command.env("QM2_DISK_FAULT", format!("{call} {number} {number} {KILL}"));
                // Where it has fewer, it ends by itself.
                let mut run = site.start(&mut command);
                run.wait().expect("it was started here");
            } else {
                says += &format!(", killed after {after_ms} ms");
                let mut run = site.start(&mut command);
                std::thread::sleep(Duration::from_millis(after_ms));
                site.kill_host(&mut run);
            }
            done.fetch_add(1, Ordering::Relaxed);
            let (entries, next) = site.trace(place);
            place = next;
            told.extend(audit::of_trace(&entries));
            let after = site.directory.records();
            assert_eq!(
                after.get(..before.len()),
                Some(&before[..]),
                "{says}: the ledger only grows"
            );
            let missing = audit::missing(&told, &after);
            assert_eq!(missing, [], "{says}: lost");
            before = after;
        }
        acknowledged.fetch_add(told.len() as u64, Ordering::Relaxed);
        let gone = audit::recovers(&site, &before, &says, |_, command| command);
        lost.fetch_add(gone as u64, Ordering::Relaxed);
    });
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{} kills under load: {} acknowledgements, none lost; {} attempts lost in flight and taken up again",
        of(done),
        of(acknowledged),
        of(lost)
    );
    assert!(
        of(lost) > 0,
        "not one kill hit an attempt in flight, so nothing was shown"
    );
}

#[test]
fn run_killed_while_it_makes_a_snapshot_goes_on_from_whatever_is_there() {
    let kills = figure("QM2_KILLS", 100) / SNAPSHOT_OF;
    let large = large();
    let (already, not_yet) = (AtomicU64::new(0), AtomicU64::new(0));
    side_by_side(kills, |round| {
        let mut draw = Draw::new(round);
        let site = Site::after(&large);
        let snapshots = || -> i64 {
            let sql = site.directory.sql();
            let count = "SELECT count(*) FROM snapshot";
            sql.query_row(count, [], |row| row.get(0))
                .expect("a number")
        };
        // Of the writes of such a run most are those of the snapshot, or come after it.
        let number = 10 + draw.below(60);
        let says = format!("round {round}, killed in front of write {number}");
        let mut command = site.watched(site.run_of(HOLD));
        command.env("QM2_DISK_FAULT", format!("w {number} {number} {KILL}"));
        let mut run = site.start(&mut command);
        until("it is killed, or has come to the end of its writes", || {
            run.try_wait().expect("it was started here").is_some() || snapshots() > 0
        });
        site.kill_host(&mut run);
        match snapshots() {
            0 => not_yet.fetch_add(1, Ordering::Relaxed),
            _ => already.fetch_add(1, Ordering::Relaxed),
        };
        let before = site.directory.records();
        // The next one makes it, and the one after that opens from it.
        let mut run = site.run_of(HOLD).spawn().expect("the program starts");
        until("the snapshot is there", || snapshots() > 0);
        site.kill_host(&mut run);
        site.let_go();
        let output = site.finish(site.run_of(HOLD));
        assert_eq!(output.code, 0, "{says}: {output:?}");
        audit::settled(&site, &before, &says);
    });
    println!(
        "{kills} kills on the way to a snapshot: {} before it was kept, {} after",
        not_yet.into_inner(),
        already.into_inner()
    );
}

/// A ledger that is long enough for a snapshot and has none.
fn large() -> Site {
    let site = Site::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut config = Config::new("local");
        config.phase1.enabled = true;
        let builder = Domain::builder(site.directory.data()).config(config);
        let builder = builder.engine(engine().clone()).snapshot_every(0);
        let builder = builder.agent("agent:*", async |_| Report::permanent("no", "no"));
        let domain = builder.open().await.expect("the domain opens");
        for number in 0.. {
            // All but the first are skipped at once.
            let first = step("first");
            let others = (0..9_990).map(|at| step(&format!("s{at}")).after("first"));
            let plan = plan(std::iter::once(first).chain(others));
            let plan = plan.set("coordinationId", format!("large-{number}")).text();
            let ended = domain.run(&plan).await.expect("the plan runs");
            if ended.head.seq > SNAPSHOT_EVERY {
                break;
            }
        }
        domain.close().await;
    });
    site
}
