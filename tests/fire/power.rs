//! Power cuts: the real program runs on a disk that is watched, the power goes at a random moment of what it did, and what
//! was not synced by then is lost or torn; see `disk`. Then the real program finds what is left.
//!
//! A history is a run to the end, or one in which the host is killed half-way and the next run goes on from files that were
//! never synced; in some of them another plan is under way. Several moments of each history are tried, and of every third
//! recovery, which is traced itself, one more.

use super::audit::{self, Acknowledged};
use super::disk::{Disk, Entry, Loss};
use super::site::{Busy, LOAD, Site};
use super::{Draw, figure, side_by_side};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Moments of one history.
const MOMENTS: u64 = 6;
/// A run of the load takes about as long; kills come within it.
const SPAN_MS: u64 = 500;

/// What was done on a disk, from what was there before.
pub struct History {
    /// What the files were, and what was known outside, at first.
    pub disk: Disk,
    pub journal: String,
    pub entries: Vec<Entry>,
}

#[derive(Default)]
struct Totals {
    cuts: AtomicU64,
    /// Cuts after which something had been acknowledged, and how much all in all.
    told: AtomicU64,
    acknowledged: AtomicU64,
    /// Cuts after which the plans were brought to their end.
    resumed: AtomicU64,
    /// Attempts that were in flight.
    lost: AtomicU64,
    /// Cuts after which a disk that only says that it syncs had lost something.
    lied: AtomicU64,
}

#[test]
fn power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    let cuts = figure("QM2_CUTS", 200);
    let (totals, busy) = (Totals::default(), Busy::default());
    side_by_side(cuts.div_ceil(MOMENTS), |round| {
        let mut draw = Draw::new(round);
        let (history, says) = history(round, &busy, &mut draw);
        for moment in 0..MOMENTS {
            if totals.cuts.fetch_add(1, Ordering::Relaxed) >= cuts {
                return;
            }
            let is_traced = moment % 3 == 2;
            let again = cut(&history, &says, is_traced, &mut draw, &totals);
            if let Some(again) = again
                && totals.cuts.fetch_add(1, Ordering::Relaxed) < cuts
            {
                let says = format!("{says}, and once more after that");
                cut(&again, &says, false, &mut draw, &totals);
            }
        }
    });
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{cuts} power cuts: {} acknowledgements before {} of them, none lost; taken up again after {} of them, with \
         {} attempts that were lost in flight; \
         a disk that only says that it syncs lost some in {} of them",
        of(&totals.acknowledged),
        of(&totals.told),
        of(&totals.resumed),
        of(&totals.lost),
        of(&totals.lied),
    );
    // The layer bites: the same cuts on a disk that lies about syncing lose what was acknowledged, in at least a quarter
    // of them.
    assert!(
        of(&totals.lied) * 4 >= cuts,
        "{} of {cuts}",
        of(&totals.lied)
    );
    assert!(
        of(&totals.lost) > 0,
        "not one cut hit an attempt in flight, so nothing was shown"
    );
}

/// Runs the load on a watched disk.
fn history(round: u64, busy: &Busy, draw: &mut Draw) -> (History, String) {
    let site = match round % 2 {
        0 => Site::new(),
        _ => busy.site(),
    };
    let mut says = format!("round {round}");
    let (disk, journal) = (Disk::new(&site.look()), site.journal());
    let mut entries = Vec::new();
    let mut place = 0;
    if round % 3 == 1 {
        let after_ms = draw.below(SPAN_MS);
        says += &format!(", host killed after {after_ms} ms");
        let mut run = site.start(&mut site.traced(site.run_of(LOAD)));
        std::thread::sleep(Duration::from_millis(after_ms));
        site.kill(&mut run);
        let (more, next) = site.trace(place);
        entries.extend(more);
        entries.push(Entry::Found(site.look()));
        place = next;
    }
    // The second one only says again what the first one said.
    for _ in 0..1 + round % 2 {
        let output = site.finish(site.traced(site.run_of(LOAD)));
        assert_eq!(output.code, 0, "{says}: {output:?}");
    }
    entries.extend(site.trace(place).0);
    let history = History {
        disk,
        journal,
        entries,
    };
    // The layer has seen everything that was done.
    let mut whole = history.disk.clone();
    history.entries.iter().for_each(|entry| whole.apply(entry));
    let found = site
        .look()
        .files
        .into_iter()
        .map(|(name, (_, content))| (name, content));
    let mut live = whole.live();
    live.retain(|name, _| !name.ends_with("-shm"));
    assert!(
        live == found.collect(),
        "{says}: the layer has missed something"
    );
    (history, says)
}

/// One cut. Gives the history of its recovery, where that was to be traced.
fn cut(
    history: &History,
    says: &str,
    is_traced: bool,
    draw: &mut Draw,
    totals: &Totals,
) -> Option<History> {
    let moment = draw.below(history.entries.len() as u64 + 1) as usize;
    let loss = [
        Loss::All,
        Loss::All,
        Loss::Parts,
        Loss::Parts,
        Loss::Parts,
        Loss::Tail,
        Loss::Nothing,
    ][draw.below(7) as usize];
    let says = format!(
        "{says}, power cut after {moment} of {} operations, {loss:?} of what was not synced lost",
        history.entries.len()
    );
    let entries = &history.entries[..moment];
    let mut acknowledged = audit::of_journal(&history.journal);
    acknowledged.extend(audit::of_trace(entries));
    if !acknowledged.is_empty() {
        totals.told.fetch_add(1, Ordering::Relaxed);
        totals
            .acknowledged
            .fetch_add(acknowledged.len() as u64, Ordering::Relaxed);
    }

    // The control.
    let lied = after(
        &history.disk.clone().lying(),
        history,
        entries,
        Loss::All,
        draw,
    );
    if !audit::missing(&acknowledged, &lied.directory.records()).is_empty() {
        totals.lied.fetch_add(1, Ordering::Relaxed);
    }

    let site = after(&history.disk, history, entries, loss, draw);
    let before = site.directory.records();
    let missing = audit::missing(&acknowledged, &before);
    assert_eq!(missing, [] as [Acknowledged; 0], "{says}: lost");
    if !before.is_empty() {
        let verified = site.directory.run(&["ledger", "verify"]);
        assert_eq!(verified.code, 0, "{says}: {verified:?}");
    }
    if draw.below(figure("QM2_RESUMED_OF", 1)) != 0 {
        return None;
    }
    totals.resumed.fetch_add(1, Ordering::Relaxed);
    let (disk, journal) = (Disk::new(&site.look()), site.journal());
    let layer = |site: &Site, command: Command| match is_traced {
        true => site.traced(command),
        false => command,
    };
    let lost = audit::recovers(&site, &before, &says, layer);
    totals.lost.fetch_add(lost as u64, Ordering::Relaxed);
    is_traced.then(|| History {
        disk,
        journal,
        entries: site.trace(0).0,
    })
}

/// What a cut leaves.
pub fn after(
    disk: &Disk,
    history: &History,
    entries: &[Entry],
    loss: Loss,
    draw: &mut Draw,
) -> Site {
    let mut disk = disk.clone();
    entries.iter().for_each(|entry| disk.apply(entry));
    let site = Site::new();
    disk.cut_power(loss, draw, site.root());
    let mut journal = history.journal.clone();
    for entry in entries {
        if let Entry::Journal(text) = entry {
            journal += text;
        }
    }
    site.set_journal(&journal);
    site
}
