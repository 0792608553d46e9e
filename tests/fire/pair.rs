//! Two and more processes in one data directory: one owns it, the others wait for it or are told who does, readers read, and
//! nothing is started twice, also when the owner is killed in the middle.

use super::audit;
use super::site::{BESIDE, Busy, HOLD, LOAD, Site};
use super::{Draw, side_by_side};
use crate::program::{Output, until};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Rounds of each test that draws moments.
const ROUNDS: u64 = 16;
/// The owner is killed within this time; a run of the load takes about as long.
const SPAN_MS: u64 = 500;

fn begin(mut command: Command) -> Child {
    command.spawn().expect("the program starts")
}

fn end(run: Child) -> Output {
    run.wait_with_output().expect("it was started here").into()
}

/// A run that had its turn, or was told that it has none; says which.
fn had_its_turn(output: &Output, says: &str) -> bool {
    if output.code == 6 {
        assert_eq!(output.error_code(), "locked", "{says}: {output:?}");
        for part in [
            "in use by another process",
            "end it, or use another data directory",
        ] {
            assert!(output.stdout.contains(part), "{says}: {output:?}");
        }
        return false;
    }
    assert_eq!(output.code, 0, "{says}: {output:?}");
    assert_eq!(output.json()["terminal"], "success", "{says}: {output:?}");
    true
}

#[test]
fn runs_that_start_at_once_take_turns_and_start_nothing_twice() {
    let (turns, refused, reads) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let busy = Busy::default();
    side_by_side(ROUNDS, |round| {
        let says = format!("round {round}");
        let site = match round % 2 {
            0 => Site::new(),
            _ => busy.site(),
        };
        let before = site.directory.records();
        // The same plan, and another.
        let plans = [LOAD, LOAD, if round % 4 < 2 { BESIDE } else { LOAD }];
        let runs = plans.map(|plan| begin(site.run_of(plan)));
        let is_over = AtomicBool::new(false);
        let outputs = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    for arguments in [
                        &["status"][..],
                        &["ledger", "verify"],
                        &["ledger", "export"],
                        &["escalations", "list"],
                    ] {
                        let output = site.finish(site.command(arguments));
                        let is_new = output.code == 6
                            && output
                                .stderr
                                .contains("run a plan with this data directory first");
                        assert!(
                            output.code == 0 || is_new,
                            "{says}: {arguments:?}: {output:?}"
                        );
                        reads.fetch_add(u64::from(output.code == 0), Ordering::Relaxed);
                    }
                }
            });
            let outputs = runs.map(end);
            is_over.store(true, Ordering::Relaxed);
            outputs
        });
        let mut results = Vec::new();
        for (plan, output) in plans.iter().zip(&outputs) {
            match had_its_turn(output, &says) {
                true => turns.fetch_add(1, Ordering::Relaxed),
                false => refused.fetch_add(1, Ordering::Relaxed),
            };
            if output.code == 0 && *plan == LOAD {
                results.push(output.json()["steps"].clone());
            }
        }
        assert!(
            outputs.iter().any(|output| output.code == 0),
            "{says}: nobody had a turn: {outputs:?}"
        );
        assert!(
            results.windows(2).all(|two| two[0] == two[1]),
            "{says}: {results:?}"
        );
        audit::recovers(&site, &before, &says, |_, command| command);
    });
    let (turns, refused, reads) = (turns.into_inner(), refused.into_inner(), reads.into_inner());
    println!(
        "{ROUNDS} times three runs at once: {turns} had a turn, {refused} were refused; {reads} readers meanwhile"
    );
    assert!(reads > 0, "nobody could read");
}

#[test]
fn run_that_waits_takes_over_when_the_owner_is_killed() {
    let over = AtomicU64::new(0);
    side_by_side(ROUNDS, |round| {
        let mut draw = Draw::new(round);
        let after_ms = draw.below(SPAN_MS);
        let says = format!("round {round}, owner killed after {after_ms} ms");
        let site = Site::new();
        let mut owner = begin(site.run_of(LOAD));
        until("it owns the directory", || {
            site.directory.data().join("lock").exists()
        });
        let waiting =
            [LOAD, [LOAD, BESIDE][(round % 2) as usize]].map(|plan| begin(site.run_of(plan)));
        std::thread::sleep(Duration::from_millis(after_ms));
        // It may have come to its end, or one of the others may have been faster.
        site.kill_host(&mut owner);
        for output in waiting.map(end) {
            over.fetch_add(u64::from(had_its_turn(&output, &says)), Ordering::Relaxed);
        }
        let before = site.directory.records();
        audit::recovers(&site, &before, &says, |_, command| command);
    });
    let over = over.into_inner();
    println!(
        "{ROUNDS} owners killed: {over} of {} that waited had their turn",
        2 * ROUNDS
    );
    // How many depends on how busy the machine is: they wait for seconds only.
    assert!(over > 0, "nobody took over");
}

#[test]
fn second_run_is_refused_by_name_and_other_commands_work_meanwhile() {
    let site = Site::new();
    let owner = begin(site.run_of(HOLD));
    until("the step works", || {
        site.journal().contains("start hold:only:1")
    });
    for plan in [HOLD, LOAD] {
        let output = site.finish(site.run_of(plan));
        assert!(!had_its_turn(&output, "second"), "{output:?}");
        assert!(
            output.stdout.contains(&format!("(pid {})", owner.id())),
            "{output:?}"
        );
    }
    for arguments in [
        &["status"][..],
        &["ledger", "verify"],
        &["ledger", "show"],
        &["escalations", "list"],
    ] {
        let output = site.finish(site.command(arguments));
        assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
    }
    // Through the owner's socket.
    let output = site.finish(site.command(&["--json", "cancel", HOLD]));
    assert_eq!(output.code, 0, "{output:?}");
    let owner = end(owner);
    assert_eq!(
        (owner.code, &owner.json()["reason"]),
        (1, &"cancelled".into()),
        "{owner:?}"
    );
    assert_eq!(site.journal(), "start hold:only:1\n");
    let records = site.directory.records();
    audit::settled(&site, &records, "after a cancel");
}

#[test]
fn lock_and_socket_of_an_owner_that_is_gone_are_in_nobodys_way() {
    let busy = Busy::default();
    // The process id of somebody else, of nobody, and no process id.
    for owner in ["1\n", "4194304\n", "", "not a number, and longer than one"] {
        let site = busy.site();
        let data = site.directory.data();
        let before = site.directory.records();
        std::fs::write(data.join("lock"), owner).expect("the lock is written");
        let _ = std::fs::remove_file(data.join("qm2.sock"));
        drop(UnixListener::bind(data.join("qm2.sock")).expect("a socket that nobody listens on"));
        for arguments in [
            &["status"][..],
            &["ledger", "verify"],
            &["escalations", "list"],
        ] {
            let output = site.finish(site.command(arguments));
            assert_eq!(output.code, 0, "{owner:?}: {arguments:?}: {output:?}");
        }
        // Not a step's: nobody runs the directory.
        let mut claim = site.command(&["claim", "file:a"]);
        claim
            .env("QM2_COORDINATION_ID", BESIDE)
            .env("QM2_STEP_ID", "one")
            .env("QM2_ATTEMPT", "1")
            .env("QM2_SESSION", "agent:work:one");
        let output = site.finish(claim);
        assert_eq!(output.code, 1, "{owner:?}: {output:?}");
        assert!(
            output.stderr.contains("no process runs"),
            "{owner:?}: {output:?}"
        );
        audit::recovers(&site, &before, &format!("{owner:?}"), |_, command| command);
    }
}
