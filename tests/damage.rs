//! A store that is damaged in any way: cut off anywhere, changed bytes and pages, changed tables, another schema. Opening and
//! verifying it ends in a clear error, in the first bad record, or, where nothing of the ledger was hit, in the whole
//! ledger; never in a panic, never in another ledger.
//!
//! What should be said is found out by SQLite alone, in `seen`. Environment: `QM2_DAMAGE_COUNT`, how many corruptions (10 000
//! without it); `QM2_DAMAGE_SEED`, the number that they all follow from; `QM2_DAMAGE_TRUNCATIONS=all`, every length of the files
//! instead of those around pages and some more; `QM2_DAMAGE_OWNED`, after how many corruptions the directory is also
//! opened by an owner that goes on with it (100 without it). A component that means harm is in `hostile`.

mod change;
mod made;
mod seen;

use crate::program::Directory;
use change::{PAGE, Random};
use made::{Made, STORE, WAL};
use seen::{Came, Views};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}"))
    })
}

/// Lengths that are tried beside those around pages.
const LENGTHS: usize = 2_000;

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long one case may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(600);

/// Plays cases in parallel, each in a folder that only its thread uses, and counts what came of them. One that hangs is
/// named, and ends the process: nothing else ends a thread.
fn play(
    count: usize,
    case: impl Fn(usize, &Path) -> Result<Came, String> + Sync,
) -> BTreeMap<Came, usize> {
    let (next, counted) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let at_work: Vec<Mutex<Option<(usize, Instant)>>> =
        (0..threads).map(|_| Mutex::default()).collect();
    let begin = |thread: usize, case: Option<usize>| {
        *at_work[thread].lock().expect("no panic") = case.map(|at| (at, Instant::now()));
    };
    let work = |thread: usize| {
        let folder = folder();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return begin(thread, None);
            }
            begin(thread, Some(at));
            let came = case(at, folder.path()).unwrap_or_else(|says| panic!("{says}"));
            *counted.lock().expect("no panic").entry(came).or_insert(0) += 1;
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(LOOK_EVERY);
            for (thread, place) in threads.iter().zip(&at_work) {
                let begun = *place.lock().expect("no panic");
                if let Some((at, since)) = begun
                    && since.elapsed() > PATIENCE
                    && !thread.is_finished()
                {
                    eprintln!("case {at} of {count} hangs");
                    std::process::abort();
                }
            }
        }
    });
    counted.into_inner().expect("no panic")
}

/// In memory where that is possible: nothing here is about what a disk keeps.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary folder")
}

/// Reads a directory, and now and then also opens it as its owner.
fn check(data: &Path, made: &Made, is_owned: bool) -> Result<Came, String> {
    let views = Views::read(data, made);
    let came = seen::read(data, made, &views)?;
    if is_owned {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let came = runtime.block_on(seen::own(data, made, &views));
        // Without waiting for what may hang there.
        runtime.shutdown_background();
        came?;
    }
    Ok(came)
}

/// Lengths of a file to cut it to.
fn lengths(len: usize) -> Vec<usize> {
    if std::env::var("QM2_DAMAGE_TRUNCATIONS").is_ok_and(|which| which == "all") {
        return (0..len).collect();
    }
    let around = (0..len)
        .step_by(PAGE)
        .flat_map(|at| at.saturating_sub(2)..(at + 3).min(len));
    let mut random = Random::new(number("QM2_DAMAGE_SEED", 1));
    let some = (0..LENGTHS).map(|_| random.below(len));
    let all: BTreeSet<usize> = around
        .chain(0..600)
        .chain(some)
        .filter(|at| *at < len)
        .collect();
    all.into_iter().collect()
}

#[test]
fn a_store_that_is_cut_off_anywhere_is_an_error_or_names_the_first_record_that_is_gone() {
    let owned = usize::try_from(number("QM2_DAMAGE_OWNED", 100)).expect("a small number");
    for made in [made::whole(), made::with_wal()] {
        let lengths = lengths(made.store.len());
        let counted = play(lengths.len(), |at, data| {
            let len = lengths[at];
            made.write(data, &made.store[..len], &made.wal);
            let came = check(data, made, at % owned == 0);
            came.map_err(|says| format!("{STORE} cut to {len} bytes: {says}"))
        });
        println!(
            "{STORE} of {} bytes cut to {} lengths: {counted:?}",
            made.store.len(),
            lengths.len()
        );
    }
}

#[test]
fn a_log_that_is_cut_off_anywhere_loses_its_end_and_that_is_seen() {
    let owned = usize::try_from(number("QM2_DAMAGE_OWNED", 100)).expect("a small number");
    let made = made::with_wal();
    let lengths = lengths(made.wal.len());
    let counted = play(lengths.len(), |at, data| {
        let len = lengths[at];
        made.write(data, &made.store, &made.wal[..len]);
        let came = check(data, made, at % owned == 0);
        came.map_err(|says| format!("{WAL} cut to {len} bytes: {says}"))
    });
    println!(
        "{WAL} of {} bytes cut to {} lengths: {counted:?}",
        made.wal.len(),
        lengths.len()
    );
    assert!(counted[&Came::FirstBad] > 0, "{counted:?}");
}

#[test]
fn a_store_that_is_changed_in_any_way_is_an_error_or_names_its_first_bad_record() {
    let count = usize::try_from(number("QM2_DAMAGE_COUNT", 10_000)).expect("a number of cases");
    let owned = usize::try_from(number("QM2_DAMAGE_OWNED", 100)).expect("a small number");
    let seed = number("QM2_DAMAGE_SEED", 1);
    let counted = play(count, |at, data| {
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(at as u64));
        // Most in the bytes of the file, some of the log, the rest in the tables.
        let (made, what) = match at % 10 {
            0..=5 => {
                let made = made::whole();
                let mut store = made.store.clone();
                let what = change::bytes(&mut random, &mut store);
                made.write(data, &store, &[]);
                (made, what)
            }
            6 => {
                let made = made::with_wal();
                let (mut store, mut wal) = (made.store.clone(), made.wal.clone());
                let what = match random.below(3) {
                    0 => change::bytes(&mut random, &mut store),
                    _ => change::bytes(&mut random, &mut wal),
                };
                made.write(data, &store, &wal);
                (made, what)
            }
            _ => {
                let made = made::whole();
                made.write(data, &made.store, &[]);
                let what = change::tables(&mut random, made, data);
                (made, what)
            }
        };
        // One more, so that every kind has its turn.
        let is_owned = at % (owned + 1) == 0;
        let came = check(data, made, is_owned);
        came.map_err(|says| format!("case {at} of QM2_DAMAGE_SEED={seed}, {what}: {says}"))
    });
    println!("{count} corruptions: {counted:?}");
    for came in [Came::Whole, Came::FirstBad, Came::Error] {
        assert!(
            counted.get(&came).is_some_and(|n| *n * 100 > count),
            "{counted:?}"
        );
    }
}

/// In the header of the first page of the ledger stands where its content begins. SQLite believes that, and whoever went on
/// with such a store wrote over all records at once.
#[test]
fn a_page_whose_header_lies_is_found_before_anything_is_written() {
    let made = made::whole();
    let begins = PAGE + 5;
    for at in [begins, begins + 1] {
        for bit in 0..8 {
            let mut store = made.store.clone();
            store[at] ^= 1 << bit;
            let folder = folder();
            made.write(folder.path(), &store, &[]);
            let says = format!("bit {bit} of byte {at}");
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let opened = runtime.block_on(made::builder(folder.path()).open());
            let error = opened.err().map(|e| e.to_string());
            let is_said = error.is_some_and(|e| e.contains("does not hold together"));
            assert!(is_said, "{says}");
            let after = std::fs::read(folder.path().join(STORE)).expect("a store");
            assert_eq!(after, store, "{says}: nothing was written");
        }
    }
}

#[test]
fn the_program_says_the_same_of_a_damaged_store() {
    let made = made::whole();
    for at in 0..12 {
        let mut random = Random::new(at);
        let directory = Directory::new();
        let data = directory.data();
        std::fs::create_dir(&data).expect("a folder");
        made.write(&data, &made.store, &[]);
        let what = match at % 2 {
            0 => {
                let mut store = made.store.clone();
                let what = change::bytes(&mut random, &mut store);
                made.write(&data, &store, &[]);
                what
            }
            _ => change::tables(&mut random, made, &data),
        };
        let views = Views::read(&data, made);
        let verified = directory.run(&["--json", "ledger", "verify", "--head", &made.head_hash]);
        let value = verified.json();
        let fits = match verified.code {
            0 => views.any(|stands| *stands == seen::Stands::AsWritten),
            5 => value["firstBadSeq"]
                .as_u64()
                .is_some_and(|seq| views.names(seq)),
            code => code == 6,
        };
        assert!(fits, "{what}: {views:?}: {verified:?}");
        for command in [
            &["status"][..],
            &["ledger", "show"],
            &["ledger", "export"],
            &["escalations", "list"],
        ] {
            let output = directory.run(command);
            assert!(
                [0, 5, 6].contains(&output.code),
                "{what}: {command:?}: {output:?}"
            );
        }
    }
}
