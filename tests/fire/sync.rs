//! Syncs that never came, and syncs that failed: each of a run in turn, and then the power goes.
//!
//! What a killed host has written but not synced is there for the next host to read, and is not durable; after a sync that
//! failed the system may say of the next one that it succeeded, and what the first one should have kept is lost all the
//! same (see `disk`). Nobody may be told anything that rests on either. So here the power goes after each single thing that
//! somebody was told, and everything that was not synced goes with it.

use super::disk::{Disk, Entry, Loss};
use super::power::{History, after};
use super::site::{LOAD, Site};
use super::{Draw, KILL, audit, side_by_side};
use std::sync::atomic::{AtomicU64, Ordering};

/// The error of a disk.
const EIO: i32 = 5;

#[test]
fn nothing_that_a_killed_host_left_unsynced_is_believed() {
    each_sync(KILL);
}

#[test]
fn sync_that_failed_once_is_not_believed_later() {
    each_sync(EIO);
}

/// Has each sync of a run fail in turn, takes the run up again, and cuts the power wherever somebody was told something.
fn each_sync(error: i32) {
    // How many there are in a run that nothing happens to.
    let site = Site::new();
    let output = site.finish(site.traced(site.run_of(LOAD)));
    assert_eq!(output.code, 0, "{output:?}");
    let syncs = site.trace(0).0;
    let syncs = syncs
        .iter()
        .filter(|entry| matches!(entry, Entry::Synced { .. }))
        .count() as u64;
    assert!(syncs > 30, "{syncs}");
    let (cuts, told) = (AtomicU64::new(0), AtomicU64::new(0));
    side_by_side(2 * syncs, |round| {
        // Each fails alone and with those after it, such as those of the checkpoint when the store is opened anew.
        let first = round / 2 + 1;
        let last = first + round % 2 * (1 + first % 3);
        let says = format!("syncs {first} to {last} fail with {error}");
        let site = Site::new();
        let (disk, journal) = (Disk::new(&site.look()), site.journal());
        let mut command = site.traced(site.run_of(LOAD));
        command.env("QM2_DISK_FAULT", format!("s {first} {last} {error}"));
        let mut run = command.spawn().expect("the program starts");
        let status = run.wait().expect("it was started here");
        site.kill(&mut run);
        assert!(
            error == KILL || matches!(status.code(), Some(0 | 6)),
            "{says}: {status:?}"
        );
        let (mut entries, place) = site.trace(0);
        entries.push(Entry::Found(site.look()));
        let output = site.finish(site.traced(site.run_of(LOAD)));
        assert_eq!(output.code, 0, "{says}: {output:?}");
        entries.extend(site.trace(place).0);
        let history = History {
            disk,
            journal,
            entries,
        };
        let mut is_told = false;
        for moment in 0..=history.entries.len() {
            // Between two syncs more is told, and nothing becomes durable: the last moment before a sync has it all.
            match history.entries.get(moment) {
                Some(Entry::Said { .. } | Entry::Journal(_)) => {
                    is_told = true;
                    continue;
                }
                Some(Entry::Synced { .. }) | None if is_told => is_told = false,
                _ => continue,
            }
            let entries = &history.entries[..moment];
            let site = after(
                &history.disk,
                &history,
                entries,
                Loss::All,
                &mut Draw::new(round),
            );
            let acknowledged = audit::of_trace(entries);
            let missing = audit::missing(&acknowledged, &site.directory.records());
            assert_eq!(
                missing,
                [],
                "{says}, power cut after operation {moment}: lost"
            );
            cuts.fetch_add(1, Ordering::Relaxed);
            told.fetch_add(acknowledged.len() as u64, Ordering::Relaxed);
        }
        audit::settled(&site, &[], &says);
    });
    let (cuts, told) = (cuts.into_inner(), told.into_inner());
    println!(
        "{syncs} syncs in turn, alone and with others, with error {error}: {cuts} power cuts, {told} acknowledgements, none lost"
    );
}
