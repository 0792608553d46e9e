//! Hooks as a host sees them: the rows HK-1 to HK-8 and HM-4 of HOST-PRIMITIVES as QM2 uses them, with handlers inside the
//! process; in `command` the handlers of an agents file, with the real program.
//!
//! What a verdict does to a step in every state is in `rules`.

mod command;

use crate::support::store::Committing;
use crate::support::{engine, parse, plan, step};
use qm2_core::config::Config;
use qm2_host::agent::{Report, Task};
use qm2_host::clock::ManualClock;
use qm2_host::hook::{Hook, HookKind, HookTable, HookVerdict, Subject};
use qm2_host::store::Store;
use qm2_host::{Domain, DomainBuilder, Ended, HostError};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::future::pending;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Barrier, Notify};
use tokio::time::timeout;

/// How long something that must happen may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
const BEFORE: HookKind = HookKind::BeforeDispatch;

// ---- a domain in this process ----

/// A domain whose clock stands still, so that only the limits of handlers run.
fn builder(directory: &Path) -> DomainBuilder {
    let mut config = Config::new("d");
    config.phase1.enabled = true;
    Domain::builder(directory)
        .config(config)
        .engine(engine().clone())
        .clock(ManualClock::at(1_000_000))
        .agent("agent:*", done)
}

async fn done(_: Task) -> Report {
    Report::completed("done")
}

/// Runs a plan of one step with these handlers.
async fn run_with(change: impl FnOnce(DomainBuilder) -> DomainBuilder) -> (Ended, Vec<Value>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = change(builder(folder.path())).open().await;
    let domain = domain.expect("the domain opens");
    let ended = run(&domain).await;
    let records = records(&domain).await;
    timeout(PATIENCE, domain.close()).await.expect("it closes");
    (ended, records)
}

async fn run(domain: &Domain) -> Ended {
    let plan = plan([step("a")]).text();
    let ended = timeout(PATIENCE, domain.run(&plan)).await;
    ended.expect("it ends").expect("it runs")
}

async fn records(domain: &Domain) -> Vec<Value> {
    let read = domain.with_store(|store| store.lines(0, usize::MAX >> 1));
    let lines = read.await.expect("the ledger is read");
    lines.iter().map(|line| parse(line)).collect()
}

/// Waits until a condition holds.
async fn holds(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The data of the only record of a type.
#[track_caller]
fn data(records: &[Value], type_name: &str) -> Value {
    let of_type: Vec<&Value> = records
        .iter()
        .filter(|record| record["type"] == type_name)
        .collect();
    let [record] = of_type.as_slice() else {
        panic!("{} records {type_name} in {records:#?}", of_type.len());
    };
    record["data"].clone()
}

/// Handler, verdict and reason of the only verdict.
#[track_caller]
fn verdict(records: &[Value]) -> (String, String, String) {
    let data = data(records, "hook.verdict");
    let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    (text("handler"), text("verdict"), text("reason"))
}

/// How the only step failed.
#[track_caller]
fn failure(records: &[Value]) -> (String, String) {
    let data = data(records, "step.failed");
    let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    (text("code"), text("message"))
}

type Log = Arc<Mutex<Vec<String>>>;

fn logged(log: &Log) -> Vec<String> {
    log.lock().expect("no panic").clone()
}

/// A handler that notes its name and says always the same.
fn says(log: &Log, name: &str, verdict: HookVerdict) -> Hook {
    let (log, noted) = (log.clone(), name.to_owned());
    Hook::asked(name, move |_| {
        log.lock().expect("no panic").push(noted.clone());
        let verdict = verdict.clone();
        async move { Ok::<_, String>(verdict) }
    })
}

fn falls<T>() -> T {
    panic!("the test says so")
}

fn deny(reason: &str) -> HookVerdict {
    HookVerdict::Deny(reason.into())
}

// ---- HK and HM rows ----

#[tokio::test(flavor = "multi_thread")]
async fn hk_01_handlers_run_by_priority_and_ties_as_they_were_added() {
    let log = Log::default();
    let (ended, records) = run_with(|builder| {
        let hooks = [("a", 0), ("b", 5), ("c", 0), ("d", -1), ("e", 5)];
        hooks
            .into_iter()
            .fold(builder, |builder, (name, priority)| {
                let hook = says(&log, name, HookVerdict::NoOpinion);
                builder.hook(BEFORE, hook.priority(priority))
            })
    })
    .await;
    assert_eq!(ended.terminal, "success");
    assert_eq!(logged(&log), ["b", "e", "a", "c", "d"]);
    let (handler, verdict, _) = verdict(&records);
    assert_eq!((&*handler, &*verdict), ("d", "no_opinion"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hk_02_told_handlers_start_together_and_all_are_awaited_each_for_itself() {
    // Nobody comes past the barrier before all three are there.
    let barrier = Arc::new(Barrier::new(3));
    let finished = Arc::new(AtomicBool::new(false));
    let meet = |name: &str| {
        let barrier = barrier.clone();
        Hook::told(name, move |_| {
            let barrier = barrier.clone();
            async move {
                barrier.wait().await;
                Err("it does not like it")
            }
        })
    };
    let falling = {
        let barrier = barrier.clone();
        Hook::told("falls", move |_| {
            let barrier = barrier.clone();
            async move {
                barrier.wait().await;
                falls::<Result<(), String>>()
            }
        })
    };
    let last = {
        let (barrier, finished) = (barrier.clone(), finished.clone());
        Hook::told("last", move |_| {
            let (barrier, finished) = (barrier.clone(), finished.clone());
            async move {
                barrier.wait().await;
                tokio::time::sleep(Duration::from_millis(300)).await;
                finished.store(true, Ordering::SeqCst);
                Ok::<_, String>(())
            }
        })
    };
    let kind = HookKind::CoordinationEnded;
    let (ended, _) = run_with(|builder| {
        let builder = builder.hook(kind, meet("fails")).hook(kind, falling);
        builder.hook(kind, last)
    })
    .await;
    assert_eq!(ended.terminal, "success");
    assert!(finished.load(Ordering::SeqCst), "the last was not awaited");
}

#[tokio::test(flavor = "multi_thread")]
async fn hk_03_asked_handlers_run_one_after_another_each_with_its_own_copy() {
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Log::default();
    let (ended, records) = run_with(|builder| {
        (0..4).fold(builder, |builder, at| {
            let (at_once, most, seen) = (at_once.clone(), most.clone(), seen.clone());
            let hook = Hook::asked(format!("h{at}"), move |subject: Subject| {
                let (at_once, most, seen) = (at_once.clone(), most.clone(), seen.clone());
                async move {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    seen.lock().expect("no panic").push(subject.json);
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, String>(HookVerdict::NoOpinion)
                }
            });
            builder.hook(BEFORE, hook)
        })
    })
    .await;
    assert_eq!(ended.terminal, "success");
    assert_eq!(most.load(Ordering::SeqCst), 1, "two ran at once");
    let seen = logged(&seen);
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|json| *json == seen[0]), "{seen:?}");
    let subject: Value = parse(&seen[0]);
    assert_eq!(subject["coordinationId"], "c");
    assert_eq!(
        (&subject["stepId"], &subject["attempt"]),
        (&"a".into(), &1.into())
    );
    // What was asked is told by its digest.
    let digest = qm2_core::digest::sha256_hex(&[seen[0].as_bytes()]);
    assert_eq!(data(&records, "hook.requested")["subjectDigest"], digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn hk_04_first_deny_ends_the_chain() {
    let log = Log::default();
    let (ended, records) = run_with(|builder| {
        builder
            .hook(BEFORE, says(&log, "first", HookVerdict::NoOpinion))
            .hook(BEFORE, says(&log, "second", deny("not on a Friday")))
            .hook(BEFORE, says(&log, "third", HookVerdict::Review))
    })
    .await;
    assert_eq!(ended.terminal, "failed");
    assert_eq!(logged(&log), ["first", "second"]);
    let says = ["second", "deny", "not on a Friday"].map(str::to_owned);
    assert_eq!(verdict(&records), says.into());
    let (code, message) = failure(&records);
    assert_eq!(code, "denied");
    assert!(message.contains("second"), "{message}");
    assert!(message.contains("not on a Friday"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hk_05_errors_of_told_handlers_change_nothing() {
    let log = Log::default();
    let (ended, records) = run_with(|builder| {
        let told = |name: &str| {
            let log = log.clone();
            Hook::told(name, move |subject: Subject| {
                log.lock().expect("no panic").push(subject.json);
                async { Err("it does not like it") }
            })
        };
        let kinds = [HookKind::StepEnded, HookKind::CoordinationEnded];
        kinds.into_iter().fold(builder, |builder, kind| {
            builder.hook(kind, told("one")).hook(kind, told("other"))
        })
    })
    .await;
    assert_eq!(ended.terminal, "success");
    assert_eq!(logged(&log).len(), 4, "each was told both");
    let types: Vec<&str> = records.iter().filter_map(|r| r["type"].as_str()).collect();
    assert!(
        !types.iter().any(|name| name.starts_with("hook.")),
        "{types:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hk_06_handler_that_never_settles_blocks_nothing() {
    let limit = Duration::from_millis(200);
    let hangs = |_| pending::<Result<HookVerdict, String>>();
    let hangs_told = |_| pending::<Result<(), String>>();
    let (ended, records) = run_with(|builder| {
        builder
            .hook(BEFORE, Hook::asked("hangs", hangs).time_limit(limit))
            .hook(
                HookKind::CoordinationEnded,
                Hook::told("hangs", hangs_told).time_limit(limit),
            )
    })
    .await;
    assert_eq!(ended.terminal, "failed");
    let says = ["hangs", "deny", "did not answer within 200 ms"].map(str::to_owned);
    assert_eq!(verdict(&records), says.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn hk_07_limit_is_the_domains_unless_a_registration_says_less_and_600_s_at_most() {
    let hangs = |_| pending::<Result<HookVerdict, String>>();
    let quick = |builder: DomainBuilder| {
        let mut config = Config::new("d");
        config.phase1.enabled = true;
        config.hook_timeout_ms = 2_000;
        builder.config(config)
    };
    // The domain's: a little less, so that the verdict comes before the component's own deadline and has a name.
    let (_, records) =
        run_with(|builder| quick(builder).hook(BEFORE, Hook::asked("hangs", hangs))).await;
    let requested = data(&records, "hook.requested");
    assert_eq!(requested["dueMs"], 1_002_000);
    let (handler, _, reason) = verdict(&records);
    assert_eq!(handler, "hangs");
    assert_eq!(
        reason,
        "did not answer before the domain's hookTimeoutMs of 2000 was over"
    );
    // All handlers have it together, whatever one of them was promised.
    let log = Log::default();
    let (_, records) = run_with(|builder| {
        let longest = Hook::asked("hangs", hangs).time_limit(Duration::from_secs(600));
        quick(builder)
            .hook(BEFORE, says(&log, "first", HookVerdict::NoOpinion))
            .hook(BEFORE, longest)
            .hook(BEFORE, says(&log, "third", HookVerdict::NoOpinion))
    })
    .await;
    assert_eq!(logged(&log), ["first"]);
    let (handler, _, reason) = verdict(&records);
    assert_eq!(handler, "hangs");
    assert!(
        reason.ends_with("hookTimeoutMs of 2000 was over"),
        "{reason}"
    );

    let folder = tempfile::tempdir().expect("a temporary folder");
    let too_long = Hook::asked("slow", hangs).time_limit(Duration::from_millis(600_001));
    let opened = builder(folder.path()).hook(BEFORE, too_long).open().await;
    match opened.map(|_| ()) {
        Err(error @ HostError::Hook { .. }) => {
            let says = error.to_string();
            assert!(says.contains("600001 ms; 1 to 600000"), "{says}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hk_08_errors_and_panics_of_asked_handlers_are_a_deny_in_their_name() {
    let fails = Hook::asked("fails", |_| async {
        Err("no connection to the policy server")
    });
    let (ended, records) = run_with(|builder| builder.hook(BEFORE, fails)).await;
    assert_eq!(ended.terminal, "failed");
    let says = ["fails", "deny", "no connection to the policy server"].map(str::to_owned);
    assert_eq!(verdict(&records), says.into());

    let falling = Hook::asked("falls", |_| {
        let verdict = falls();
        async move { Ok::<_, String>(verdict) }
    });
    let (ended, records) = run_with(|builder| builder.hook(BEFORE, falling)).await;
    assert_eq!(ended.terminal, "failed");
    let says = ["falls", "deny", "panicked"].map(str::to_owned);
    assert_eq!(verdict(&records), says.into());
    assert_eq!(failure(&records).0, "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn hm_04_first_review_stands_until_somebody_denies_and_no_opinion_undoes_nothing() {
    let log = Log::default();
    let (ended, records) = run_with(|builder| {
        builder
            .hook(BEFORE, says(&log, "one", HookVerdict::Review))
            .hook(BEFORE, says(&log, "two", HookVerdict::NoOpinion))
            .hook(BEFORE, says(&log, "three", HookVerdict::Review))
    })
    .await;
    assert_eq!(logged(&log), ["one", "two", "three"]);
    assert_eq!(
        (&*verdict(&records).0, &*verdict(&records).1),
        ("one", "review")
    );
    // The plan asks nobody, so nobody can let it pass.
    assert_eq!(
        (&*ended.terminal, &*failure(&records).0),
        ("failed", "denied")
    );

    let (_, records) = run_with(|builder| {
        builder
            .hook(BEFORE, says(&log, "one", HookVerdict::Review))
            .hook(BEFORE, says(&log, "two", deny("no")))
    })
    .await;
    assert_eq!(
        verdict(&records),
        ["two", "deny", "no"].map(str::to_owned).into()
    );
}

/// A later handler, of whatever priority, has no word that undoes a deny: it is not even asked.
#[tokio::test(flavor = "multi_thread")]
async fn hm_03_no_later_handler_undoes_a_deny() {
    let log = Log::default();
    let (ended, records) = run_with(|builder| {
        builder
            .hook(
                BEFORE,
                says(&log, "late", HookVerdict::NoOpinion).priority(-1),
            )
            .hook(BEFORE, says(&log, "first", deny("no")).priority(1))
            .hook(BEFORE, says(&log, "review", HookVerdict::Review))
    })
    .await;
    assert_eq!(ended.terminal, "failed");
    assert_eq!(logged(&log), ["first"]);
    assert_eq!(verdict(&records).0, "first");
}

/// What a host tells its handlers of subagents, a domain tells of steps, questions and coordinations: each handler once, and
/// whatever they say or do, it happens to nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn hm_09_told_handlers_hear_of_every_end_and_their_errors_are_ignored() {
    let log = Log::default();
    let (ended, _) = run_with(|builder| {
        let heard = log.clone();
        let hears = Hook::told("hears", move |subject: Subject| {
            let mut heard = heard.lock().expect("no panic");
            heard.push(subject.kind.name().to_owned());
            async { Ok::<_, String>(()) }
        });
        let fails = Hook::told("fails", |_| async { Err("no") }).priority(1);
        let falling = Hook::told("falls", |_| {
            let fallen: () = falls();
            async move { Ok::<_, String>(fallen) }
        });
        let kinds = [HookKind::StepEnded, HookKind::CoordinationEnded];
        kinds.into_iter().fold(builder, |builder, kind| {
            builder
                .hook(kind, fails.clone())
                .hook(kind, falling.clone().priority(1))
                .hook(kind, hears.clone())
        })
    })
    .await;
    assert_eq!(ended.terminal, "success");
    // Those of one commit are told side by side.
    let heard: BTreeSet<String> = logged(&log).into_iter().collect();
    assert_eq!((logged(&log).len(), heard.len()), (2, 2), "{heard:?}");
}

/// Deny before review before no opinion, in whatever order they are said, and one that fails forbids.
#[tokio::test(flavor = "multi_thread")]
async fn hm_10_the_most_restrictive_word_counts_and_who_fails_forbids() {
    let words = [
        ("none", HookVerdict::NoOpinion),
        ("review", HookVerdict::Review),
        ("deny", deny("no")),
    ];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let log = Log::default();
        let (_, records) = run_with(|builder| {
            order.into_iter().fold(builder, |builder, at| {
                let (name, verdict) = words[at].clone();
                builder.hook(BEFORE, says(&log, name, verdict))
            })
        })
        .await;
        assert_eq!(verdict(&records).0, "deny", "{order:?}");
    }
    let (ended, records) = run_with(|builder| {
        let fails = Hook::asked("fails", |_| async { Err::<HookVerdict, _>("away") });
        let log = Log::default();
        builder
            .hook(BEFORE, says(&log, "review", HookVerdict::Review))
            .hook(BEFORE, fails)
    })
    .await;
    assert_eq!(ended.terminal, "failed");
    assert_eq!(
        verdict(&records),
        ["fails", "deny", "away"].map(str::to_owned).into()
    );
}

// ---- what is asked, and by whom ----

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_handlers_are_registered_by_themselves_and_handlers_need_a_configuration() {
    let log = Log::default();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hook = says(&log, "a", HookVerdict::NoOpinion);
    let domain = builder(folder.path()).hook(BEFORE, hook.clone());
    let domain = domain.open().await.expect("the domain opens");
    assert_eq!(domain.config().hooks, [BEFORE]);
    domain.close().await;
    let without = Domain::builder(folder.path()).hook(BEFORE, hook);
    match without.open().await.map(|_| ()) {
        Err(error @ HostError::Hook { .. }) => {
            let says = error.to_string();
            assert!(says.contains("DomainBuilder::config"), "{says}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coordination_without_handlers_passes_and_one_that_nobody_knows_is_denied_in_time() {
    let log = Log::default();
    let table = HookTable::new().hook(BEFORE, says(&log, "a", deny("no")));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = ManualClock::at(1_000_000);
    let domain = builder(folder.path())
        .clock(clock.clone())
        .hooks_for("guarded", table.expect("a handler"))
        .hooks_for("free", HookTable::new());
    let domain = domain.open().await.expect("the domain opens");
    let one = |id: &str| plan([step("a")]).set("coordinationId", id).text();
    let ended = domain.run(&one("guarded")).await.expect("it runs");
    assert_eq!(ended.terminal, "failed");
    let ended = domain.run(&one("free")).await.expect("it runs");
    assert_eq!(ended.terminal, "success");
    let unknown = one("unknown");
    let (ended, ()) = tokio::join!(domain.run(&unknown), async {
        let asked = async {
            while !records(&domain).await.iter().any(|record| {
                record["type"] == "hook.requested" && record["coordinationId"] == "unknown"
            }) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("it is asked");
        clock.forward(20_000);
    });
    assert_eq!(ended.expect("it runs").terminal, "failed");
    let verdicts: Vec<(String, String)> = records(&domain)
        .await
        .iter()
        .filter(|record| record["type"] == "hook.verdict")
        .map(|record| {
            let id = record["coordinationId"].as_str().unwrap_or_default();
            let verdict = record["data"]["verdict"].as_str().unwrap_or_default();
            (id.to_owned(), verdict.to_owned())
        })
        .collect();
    let expected = [
        ("guarded", "deny"),
        ("free", "no_opinion"),
        ("unknown", "deny"),
    ];
    assert_eq!(
        verdicts,
        expected.map(|(id, v)| (id.to_owned(), v.to_owned()))
    );
    domain.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_handlers_of_every_kind_get_the_record_as_the_ledger_has_it() {
    let told = Log::default();
    let kinds = [
        HookKind::EscalationRequested,
        HookKind::StepEnded,
        HookKind::CoordinationEnded,
        HookKind::MessageUndelivered,
    ];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = ManualClock::at(1_000_000);
    let domain = kinds.into_iter().fold(
        builder(folder.path()).clock(clock.clone()),
        |builder, kind| {
            let told = told.clone();
            let note = Hook::told("note", move |subject: Subject| {
                let mut told = told.lock().expect("no panic");
                told.push(subject.json);
                async { Ok::<_, String>(()) }
            });
            builder.hook(kind, note)
        },
    );
    let careful = Hook::asked("careful", |_| async {
        Ok::<_, String>(HookVerdict::Review)
    });
    let domain = domain.hook(BEFORE, careful).open().await;
    let domain = domain.expect("the domain opens");
    let plan = plan([step("a")]).set(
        "failurePolicy",
        json!({
            "escalationPolicy": "hitl",
            "human": {"levels": [{"sessions": ["user:dana"], "minRole": "user", "timeoutMs": 1_000}]},
        }),
    );
    // Nobody plays the owner, so that its report is given up in the end; and nobody answers.
    let submitted = domain.submit_plan(&plan.text()).await;
    submitted.expect("it is answered").expect("it is taken");
    let types = || {
        let told = logged(&told);
        let types = told.iter().map(|line| parse(line)["type"].clone());
        types.collect::<Vec<Value>>()
    };
    let wanted = [
        "human.requested",
        "step.failed",
        "coordination.terminal",
        "message.undelivered",
    ];
    let all = async {
        while !wanted
            .iter()
            .all(|wanted| types().contains(&(*wanted).into()))
        {
            clock.forward(500);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, all).await.expect("all are told");
    let lines = domain.with_store(|store| store.lines(0, usize::MAX >> 1));
    let lines = lines.await.expect("the ledger is read");
    for line in logged(&told) {
        assert!(lines.contains(&line), "{line} is not in {lines:#?}");
    }
    domain.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_arbitrate_is_asked_about_the_contest_and_its_deny_fails_the_newcomer() {
    let seen = Log::default();
    let noted = seen.clone();
    let hook = Hook::asked("referee", move |subject: Subject| {
        noted.lock().expect("no panic").push(subject.json);
        async { Ok::<_, String>(deny("one at a time, and never again")) }
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let go = Arc::new(Notify::new());
    let waits = go.clone();
    let domain = builder(folder.path())
        .agent("slow:*", move |_| {
            let waits = waits.clone();
            async move {
                waits.notified().await;
                Report::completed("done")
            }
        })
        .hook(HookKind::BeforeArbitrate, hook);
    let domain = domain.open().await.expect("the domain opens");
    let claims = json!([{"resource": "file:a.txt"}]);
    let steps = ["a", "b"].map(|id| {
        let session = format!("slow:{id}");
        step(id)
            .set("targetSession", session)
            .set("claims", claims.clone())
    });
    let plan = plan(steps).text();
    let (ended, ()) = tokio::join!(domain.run(&plan), async {
        holds("the hook is asked", || !logged(&seen).is_empty()).await;
        go.notify_one();
    });
    assert_eq!(ended.expect("it runs").terminal, "partial");
    let subject = parse(&logged(&seen)[0]);
    assert_eq!(
        (&subject["coordinationId"], &subject["stepId"]),
        (&"c".into(), &"b".into())
    );
    assert_eq!(subject["contest"]["resource"], "file:a.txt");
    let records = records(&domain).await;
    let says = ["referee", "deny", "one at a time, and never again"].map(str::to_owned);
    assert_eq!(verdict(&records), says.into());
    assert_eq!(data(&records, "conflict.resolved")["stage"], "hook");
    assert_eq!(failure(&records).0, "denied");
    domain.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_is_handed_out_again_while_it_runs_is_not_started_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fails = Arc::new(AtomicBool::new(false));
    // One commit fails after it has kept everything.
    let strikes = fails.clone();
    let store = Committing::with(folder.path(), move |store, transaction| {
        store.commit(transaction)?;
        match strikes.swap(false, Ordering::SeqCst) {
            true => Err(HostError::Store {
                doing: "commit",
                message: "the test says so".into(),
            }),
            false => Ok(()),
        }
    });
    let (runs, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, waits) = (runs.clone(), go.clone());
    let hook = Hook::asked("slow", move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let waits = waits.clone();
        async move {
            waits.notified().await;
            Ok::<_, String>(HookVerdict::NoOpinion)
        }
    });
    let domain = builder(folder.path()).store(store).hook(BEFORE, hook);
    let domain = domain.open().await.expect("the domain opens");
    let (ended, ()) = tokio::join!(run(&domain), async {
        holds("it runs", || runs.load(Ordering::SeqCst) == 1).await;
        // The next commit fails, the instance is rebuilt, and everything that is out goes out again.
        fails.store(true, Ordering::SeqCst);
        let other = plan([step("b")]).set("coordinationId", "other").text();
        let refused = domain.submit_plan(&other).await;
        assert!(matches!(refused, Err(HostError::Retry)), "{refused:?}");
        // Of the other plan the hook is asked as well, once.
        holds("both run", || runs.load(Ordering::SeqCst) == 2).await;
        // Both wait; each is let go once.
        go.notify_waiters();
        go.notify_one();
        go.notify_one();
    });
    assert_eq!(ended.terminal, "success");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    domain.close().await;
}
