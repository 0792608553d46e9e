//! Disks that fail: full, read-only, and broken at one operation after another. The program never panics; it goes on, or ends
//! with code 6 and says what, where, and what to do. Nothing that was acknowledged is lost, no step fails because of its host's
//! disk, and when the fault is over the same command brings the plan to its end.
//!
//! A run whose disk fails for longer while agents are at work does not end: what they did is kept in memory, the reason is
//! on stderr, and it goes on as soon as the disk does.
//!
//! The faults come from the layer of `disk.c`, into the real system calls of the real program. `QM2_FAULT_STRIDE` says how many
//! operations lie between two that are tried (8 without it; 1 tries each one).

use super::audit;
use super::site::{Busy, LOAD, Site};
use super::{figure, side_by_side};
use crate::program::{Output, until};
use qm2_host::store::Store;
use serde_json::Value;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Operations of the layer, and what they fail with: EIO, ENOSPC, EMFILE; 0 cuts a write short.
const FAULTS: [(&str, i32); 11] = [
    ("o", 5),
    ("o", 24),
    ("r", 5),
    ("w", 28),
    ("w", 5),
    ("w", 0),
    ("s", 5),
    ("t", 5),
    ("n", 28),
    ("n", 5),
    ("u", 5),
];
/// More operations of a kind than a run has.
const OPERATIONS_MAX: u64 = 400;

#[test]
fn disk_that_fails_once_ends_no_step_and_loses_nothing() {
    let stride = figure("QM2_FAULT_STRIDE", 8);
    let (tried, went_on, ended) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    // Past the last operation of a kind there is nothing to try.
    let over: [AtomicU64; FAULTS.len()] = Default::default();
    let kinds = FAULTS.len() as u64;
    side_by_side(OPERATIONS_MAX / stride * kinds, |round| {
        let kind = (round % kinds) as usize;
        let (operation, error) = FAULTS[kind];
        if over[kind].load(Ordering::Relaxed) > 0 {
            return;
        }
        // Kinds begin at different places.
        let number = 1 + round / kinds * stride + kind as u64 % stride;
        let says = format!("operation {number} of {operation:?} fails with {error}");
        let site = Site::new();
        let mut command = site.watched(site.run_of(LOAD));
        command.env(
            "QM2_DISK_FAULT",
            format!("{operation} {number} {number} {error}"),
        );
        let output = site.finish(command);
        if !site.fired_path().exists() {
            over[kind].store(1, Ordering::Relaxed);
            return;
        }
        tried.fetch_add(1, Ordering::Relaxed);
        match output.code {
            0 => &went_on,
            _ => &ended,
        }
        .fetch_add(1, Ordering::Relaxed);
        check_word(&site, &output, &says);
        recovers(&site, &says);
    });
    println!(
        "{} operations that failed once: {} runs went on, {} ended and were taken up again",
        tried.into_inner(),
        went_on.into_inner(),
        ended.into_inner()
    );
    for (kind, over) in FAULTS.iter().zip(over) {
        assert_eq!(
            over.into_inner(),
            1,
            "not all operations of kind {kind:?} were tried"
        );
    }
}

#[test]
fn full_or_broken_disk_stops_no_run_for_good_and_loses_nothing() {
    let faults: Vec<String> = [
        100, 4_000, 20_000, 45_000, 70_000, 100_000, 140_000, 200_000, 300_000, 400_000,
    ]
    .iter()
    .map(|bytes| format!("space {bytes}"))
    .chain(
        [
            ("w", 5, 5),
            ("w", 40, 28),
            ("w", 70, 5),
            ("s", 9, 5),
            ("s", 20, 5),
            ("s", 30, 5),
        ]
        .map(|(operation, first, error)| format!("{operation} {first} 1000000 {error}")),
    )
    .chain(
        [
            ("o", 10, 24),
            ("r", 9, 5),
            ("n", 9, 28),
            ("n", 12, 28),
            ("t", 2, 5),
        ]
        .map(|(operation, first, error)| format!("{operation} {first} 1000000 {error}")),
    )
    .collect();
    let waited = Mutex::new(Vec::new());
    side_by_side(faults.len() as u64, |round| {
        let fault = &faults[round as usize];
        let site = Site::new();
        let mut command = site.watched(site.run_of(LOAD));
        let (out, err) = (site.outside("stdout"), site.outside("stderr"));
        command
            .env("QM2_DISK_FAULT", fault)
            .stdout(fs::File::create(&out).expect("a file"))
            .stderr(fs::File::create(&err).expect("a file"));
        let mut run = command.spawn().expect("the program starts");
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let mut is_over = false;
        until("it ends, or says what is wrong", || {
            is_over = run.try_wait().expect("it was started here").is_some();
            // More than once: it is being tried again.
            is_over || text(&err).matches("ERROR").count() >= 3
        });
        if !is_over {
            waited.lock().expect("no panic").push(fault.clone());
        }
        let errors = text(&err);
        fs::write(site.healed_path(), "").expect("the fault is over");
        let status = run.wait().expect("it was started here");
        let output = Output {
            code: status.code().unwrap_or(-1),
            stdout: text(&out),
            stderr: text(&err),
        };
        assert!(!output.stderr.contains("panicked"), "{fault}: {output:?}");
        if !is_over {
            let data = site.directory.data().display().to_string();
            assert!(
                errors.contains(&data),
                "{fault}: it does not say where: {errors}"
            );
        }
        check_word(&site, &output, fault);
        recovers(&site, fault);
    });
    let waited = waited.into_inner().expect("no panic");
    println!(
        "{} faults that last: {} runs waited for their end and went on",
        faults.len(),
        waited.len()
    );
    assert!(
        !waited.is_empty() && waited.len() < faults.len(),
        "{waited:?}"
    );
}

#[test]
fn read_only_directory_is_read_and_nothing_else() {
    let busy = Busy::default();
    // EROFS, EACCES.
    for error in [30, 13] {
        let site = busy.site();
        let before = site.look().files;
        let read_only = |command| {
            let mut command = site.watched(command);
            command.env("QM2_DISK_FAULT", format!("readonly {error}"));
            site.finish(command)
        };
        let output = read_only(site.run_of(LOAD));
        assert_eq!(output.code, 6, "{output:?}");
        check_word(&site, &output, "read-only");
        for arguments in [
            &["status"][..],
            &["ledger", "verify"],
            &["ledger", "export"],
            &["escalations", "list"],
        ] {
            let output = read_only(site.command(arguments));
            assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
        }
        let contents = |files: std::collections::BTreeMap<String, (u64, Vec<u8>)>| -> Vec<_> {
            files
                .into_iter()
                .map(|(name, (_, content))| (name, content))
                .collect()
        };
        assert!(
            contents(site.look().files) == contents(before),
            "something was written"
        );
        let records = site.directory.records();
        audit::recovers(&site, &records, "after a read-only disk", |_, command| {
            command
        });
    }
}

/// A run that was hit goes on to its end, or ends with code 6 and a sentence.
fn check_word(site: &Site, output: &Output, says: &str) {
    let data = site.root().display().to_string();
    match output.code {
        0 => assert_eq!(output.json()["terminal"], "success", "{says}: {output:?}"),
        6 => {
            let message = output.json()["error"]["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            assert!(
                message.contains(&data),
                "{says}: it does not say where: {message}"
            );
            let advice = [
                "make room",
                "check that",
                "try again",
                "open files",
                "resume with",
                "name another",
            ];
            assert!(
                advice.iter().any(|advice| message.contains(advice)),
                "{says}: it does not say what to do: {message}"
            );
        }
        code => panic!("{says}: exit code {code}: {output:?}"),
    }
}

/// The fault is over.
fn recovers(site: &Site, says: &str) {
    let records: Vec<Value> = site.directory.records();
    let missing = audit::missing(&audit::of_journal(&site.journal()), &records);
    assert_eq!(missing, [], "{says}: lost");
    audit::recovers(site, &records, says, |_, command| command);
    // Not one step has failed, also none that was taken up again.
    let store =
        qm2_host::sqlite::SqliteStore::open_read_only(&site.directory.data()).expect("the store");
    assert_eq!(store.notes().expect("it is read"), [], "{says}");
    let failed = audit::counts(&site.directory.records(), "step.failed");
    assert_eq!(failed, Default::default(), "{says}");
}
