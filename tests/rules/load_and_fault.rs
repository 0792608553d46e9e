//! Load, faults, versions: M3, M5, R-60 to R-65.

use crate::support::*;
use qm2_core::envelope::FailureClass;
use qm2_core::event::Record;
use qm2_core::message::{Notice, NoticeKind};
use qm2_core::receipt::{CallError, LedgerFault, LedgerFaultKind};
use qm2_host::engine::{Answer, Call};
use serde_json::{Value, json};

const PERMANENT: FailureClass = FailureClass::Permanent;

/// A ledger with most types of records, and the scenario that wrote it.
fn ledger() -> Vec<String> {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a"), step("z")]).retries(2, &[1_000]));
    s.ack("a", 1);
    s.progress("a", 1, 1);
    s.fail("a", 1, FailureClass::Retryable, "x");
    s.advance(1_000);
    s.done("a", 2, "out");
    s.cancel();
    s.advance(16_000);
    s.read_all();
    s.lines.clone()
}

#[test]
fn m3_every_effect_follows_the_records_that_led_to_it_in_one_call() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]));
    // One append for everything of a call, then what is to be done.
    s.expect(&["coordination.created", "step.dispatched a:1"]);
    s.expect_out(&["c:a:1#1 control"]);
    s.done("a", 1, "");
    s.expect(&["step.completed a:1", "step.dispatched b:1"]);
    s.expect_out(&["c:b:1#1 control", "-c:a:1"]);
}

/// One call of each kind that records something, on a domain in which `c:a:1` is out.
fn recording_calls() -> [Call; 5] {
    let now_ms = 2_000;
    [
        Call::Configure {
            config: r#"{"domain":"d","phase1":{"enabled":true},"maxInFlight":9}"#.into(),
        },
        Call::SubmitPlan {
            caller: caller(OWNER),
            now_ms,
            plan: plan([step("x")]).set("coordinationId", "n").text(),
        },
        Call::Submit {
            caller: caller("agent:a"),
            now_ms,
            envelopes: vec![done("a", 1, "out")],
        },
        Call::Notice {
            now_ms,
            notices: vec![Notice {
                key: "c:a:1".into(),
                kind: NoticeKind::HostLost,
            }],
        },
        Call::Advance { now_ms: 60_000 },
    ]
}

fn one_out() -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]).retries(1, &[0]));
    s.advance(1_000);
    s.seen();
    s
}

#[test]
fn r_60_m3_a_refused_append_hands_nothing_out_and_spends_the_machine() {
    for call in recording_calls() {
        let name = call.name();
        let mut s = one_out();
        let (head, digest) = (s.call(&Call::Head), s.digest());
        s.refuse_appends();
        assert_eq!(s.call(&call), Err(CallError::LedgerUnavailable), "{name}");
        // No record, no effect.
        s.expect(&[]);
        s.expect_out(&[]);
        // Spent: everything answers rebuild.
        for other in [
            &call,
            &Call::Head,
            &Call::StateDigest,
            &Call::NextDeadline,
            &Call::Reconcile,
            &Call::Describe { id: "c".into() },
        ] {
            assert_eq!(s.call(other), Err(CallError::Rebuild), "{}", other.name());
        }
        // The rebuilt one is where it was before the call, and takes the same call.
        s.rebuild();
        assert_eq!((s.call(&Call::Head), s.digest()), (head, digest), "{name}");
        let lines = s.lines.len();
        assert!(s.call(&call).is_ok(), "{name}");
        assert!(s.lines.len() > lines, "{name}");
    }
}

#[test]
fn r_60_a_call_without_records_appends_nothing() {
    let mut s = one_out();
    s.refuse_appends();
    s.now_ms = 2_000;
    assert_eq!(s.ack("nobody", 1), "unknown-step stepId fix");
    s.advance(2_000);
    // What it hands out again was kept before.
    s.reconcile();
    s.expect_out(&["c:a:1#1 control"]);
    assert_eq!(s.step_state("a"), "dispatched");
}

/// R-61, R-67: a crash, a commit that failed, or a trap; the host says `component-fault` of an input that traps again.
#[test]
fn r_60_what_an_instance_said_in_a_call_that_was_lost_never_happened() {
    for call in recording_calls() {
        let mut s = one_out();
        s.lose(&call);
        s.lose(&call);
        s.expect(&[]);
        s.expect_out(&[]);
        // Others are taken as before, and so is this one, as for the first time.
        assert_eq!(s.ack("a", 1), "accepted acknowledged");
        let lines = s.lines.len();
        assert!(s.call(&call).is_ok(), "{}", call.name());
        assert!(s.lines.len() > lines, "{}", call.name());
    }
}

#[test]
fn m5_every_final_absorbs_what_comes_after_it() {
    type End = fn(&mut Scenario);
    let ends: [(&str, End); 5] = [
        ("completed", |s| drop(s.done("a", 1, "out"))),
        ("failed", |s| drop(s.fail("a", 1, PERMANENT, "x"))),
        ("timed_out", |s| s.advance(1_000)),
        ("cancelled", |s| {
            s.cancel_step("a");
            s.advance(500);
        }),
        ("skipped", |s| drop(s.fail("0", 1, PERMANENT, "x"))),
    ];
    for (state, end) in ends {
        let mut s = Scenario::new();
        let a = step("a").set("timeoutMs", 1_000).set("maxAttempts", 1);
        let a = if state == "skipped" { a.after("0") } else { a };
        s.plan(
            plan([step("0"), a, step("z")])
                .retries(9, &[0])
                .set("cancelGraceMs", 500),
        );
        end(&mut s);
        assert_eq!(s.step_state("a"), state);
        let counts = s.describe("c")["counts"].clone();
        s.progress("a", 1, 77);
        s.done("a", 1, "after all");
        s.fail("a", 1, PERMANENT, "late");
        s.ack("a", 1);
        s.notice("a", 1, NoticeKind::HostLost);
        s.notice("a", 1, NoticeKind::UnknownTarget);
        s.cancel_step("a");
        s.cancel();
        s.now_ms += 499;
        s.advance(s.now_ms);
        assert_eq!(s.step_state("a"), state);
        assert_eq!(s.describe("c")["counts"], counts);
    }
}

#[test]
fn r_61_after_a_restart_everything_that_is_out_is_handed_out_again_under_its_key() {
    let mut s = Scenario::with(|config| config.max_in_flight = 100);
    s.plan(
        plan([
            step("acked"),
            step("done"),
            step("lane").set("deliveryMode", "best_effort"),
            step("sent").set("payload", "in"),
            step("waits").after("acked"),
        ])
        .set("reports", "all"),
    );
    s.ack("acked", 1);
    s.done("done", 1, "out");
    s.advance(30_000);
    s.cancel_step("sent");
    let before = s.message("c:sent:1").clone();
    let report = format!("report:{}", s.seq("step.completed done:1"));
    s.restart();
    s.seen();
    s.reconcile();
    s.expect(&[]);
    s.expect_out(&[
        "probe:c:acked:1#1 control",
        "probe:c:lane:1#1 control",
        "c:sent:1#2 control",
        "cancel:c:sent:1#1 control",
        &format!("{report}#2 data"),
    ]);
    assert_eq!(s.message("c:sent:1"), &before);
    assert_eq!(s.message(&report).envelope.payload.as_deref(), Some("out"));
    // Asking twice is the same.
    s.reconcile();
    s.expect_out(&[
        "probe:c:acked:1#1 control",
        "probe:c:lane:1#1 control",
        "c:sent:1#2 control",
        "cancel:c:sent:1#1 control",
        &format!("{report}#2 data"),
    ]);
}

#[test]
fn r_61_a_probe_is_answered_by_a_report_by_taken_or_by_host_lost() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b"), step("d")]));
    for step in ["a", "b", "d"] {
        s.ack(step, 1);
    }
    s.restart();
    s.reconcile();
    s.seen();
    let probe = |step: &str, kind| Notice {
        key: format!("probe:c:{step}:1"),
        kind,
    };
    // Taken records nothing.
    let answer = s.notices(&[probe("a", NoticeKind::Taken)]);
    assert_eq!(brief(&answer[0]), "replayed acknowledged");
    s.expect(&[]);
    assert_eq!(s.done("b", 1, ""), "accepted completed");
    let answer = s.notices(&[probe("d", NoticeKind::HostLost)]);
    assert_eq!(brief(&answer[0]), "accepted retry_wait");
    s.expect(&[
        "step.completed b:1",
        "step.retry_scheduled d:1",
        "step.dispatched d:2",
    ]);
    assert_eq!(s.describe("c")["retriesUsed"], 0);
    // Said again, and for an attempt that has ended: nothing.
    let answer = s.notices(&[
        probe("d", NoticeKind::HostLost),
        probe("b", NoticeKind::HostLost),
    ]);
    assert_eq!(
        answer.iter().map(brief).collect::<Vec<_>>(),
        ["replayed dispatched", "replayed completed"]
    );
    s.expect(&[]);
}

#[test]
fn r_61_an_input_that_waited_over_a_restart_counts_from_its_arrival() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000), step("z")]));
    s.restart();
    s.now_ms = 999;
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.seen();
    s.advance(5_000);
    s.expect(&[]);
}

#[test]
fn r_62_at_a_bound_of_the_domain_a_plan_is_refused_with_a_time_to_come_again() {
    let other = |id: &str, payload: &str| {
        plan([step("a").set("payload", payload), step("b")]).set("coordinationId", id)
    };
    type Lower = fn(&mut qm2_core::config::Limits);
    let bounds: [(&str, Lower); 3] = [
        ("coordinations", |limits| limits.live_coordinations = 1),
        ("steps", |limits| limits.live_steps = 3),
        ("bytes of payload", |limits| limits.live_payload_bytes = 5),
    ];
    for (what, lower) in bounds {
        let mut s = Scenario::with(|config| lower(&mut config.limits));
        s.plan(other("c", "123"));
        s.seen();
        let refused = s.try_plan(other("c2", "123")).unwrap_err();
        assert_eq!(brief_rejection(&refused), "domain-full - retry(1000)");
        assert!(refused.message.contains(what), "{}", refused.message);
        s.expect(&[]);
        // Nothing else is refused for it.
        assert!(s.plan(other("c", "123")).replayed);
        assert_eq!(s.ack("a", 1), "accepted acknowledged");
        assert_eq!(s.done("a", 1, ""), "accepted completed");
        assert_eq!(s.cancel(), "accepted stopping");
        assert_eq!(s.notice("b", 1, NoticeKind::HostLost), "accepted cancelled");
        // A closed coordination makes room.
        s.read_all();
        assert_eq!(s.describe("c")["state"], "closed");
        assert!(!s.plan(other("c2", "123")).replayed);
    }
}

fn dispatched(s: &Scenario) -> Vec<String> {
    let labels = s.labels().into_iter();
    let out = labels.filter_map(|label| label.strip_prefix("step.dispatched ").map(str::to_owned));
    out.collect()
}

#[test]
fn r_63_no_more_than_max_in_flight_are_out_and_one_of_a_session() {
    let mut s = Scenario::new();
    let same = |id: &str| step(id).set("targetSession", "agent:same");
    s.plan(plan([
        step("a"),
        same("b"),
        same("c"),
        step("d"),
        step("e"),
        step("f"),
    ]));
    assert_eq!(dispatched(&s), ["a:1", "b:1", "d:1", "e:1"]);
    assert_eq!(s.waits_for("c")["kind"], "session");
    assert_eq!(s.waits_for("f")["kind"], "slot");
    assert_eq!(s.describe("")["inFlight"], 4);
    s.done("a", 1, "");
    assert_eq!(dispatched(&s).last().unwrap(), "f:1");
    // c is behind b, not behind the width.
    s.done("d", 1, "");
    assert_eq!(dispatched(&s).len(), 5);
    s.done("b", 1, "");
    assert_eq!(dispatched(&s).last().unwrap(), "c:1");
}

#[test]
fn r_63_a_wider_session_runs_more_at_once() {
    let mut s = Scenario::with(|config| config.session_in_flight = 2);
    let same = |id: &str| step(id).set("targetSession", "agent:same");
    s.plan(plan([same("a"), same("b"), same("d")]));
    assert_eq!(dispatched(&s), ["a:1", "b:1"]);
}

#[test]
fn r_63_the_higher_tier_goes_first_then_the_earlier_then_the_step_id() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    s.plan(plan([
        step("0first").set("priority", "critical"),
        step("low").set("priority", "low"),
        step("n2"),
        step("n1"),
        step("high").set("priority", "high"),
        step("top").set("priority", "critical"),
        step("after").on("0first", "always"),
    ]));
    let order = ["0first", "top", "high", "n1", "n2", "after", "low"];
    for step in order {
        s.done(step, 1, "");
    }
    assert_eq!(dispatched(&s), order.map(|step| format!("{step}:1")));
}

#[test]
fn r_63_owners_take_turns_in_byte_order() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    let of = |id: &str, owner: &str, session: &str| {
        let one =
            |n: usize| step(&format!("{id}{n}")).set("targetSession", format!("{session}{n}"));
        plan((1..=3).map(one))
            .set("coordinationId", id)
            .set("ownerSession", owner)
    };
    s.plan(of("x", "user:b", "s:x"));
    s.plan(of("y", "user:a", "s:y"));
    s.plan(of("w", "user:c", "s:w"));
    let mut last = 0;
    while let Some(at) = dispatched(&s).get(last).cloned() {
        let (id, step) = at.split_once('/').unwrap();
        let step = step.trim_end_matches(":1");
        let session = format!("s:{step}");
        s.submit(done(step, 1, "").of(id).by(&session)).unwrap();
        last += 1;
    }
    let order = [
        "x/x1", "w/w1", "y/y1", "x/x2", "w/w2", "y/y2", "x/x3", "w/w3", "y/y3",
    ];
    assert_eq!(dispatched(&s), order.map(|step| format!("{step}:1")));
}

#[test]
fn r_63_each_full_30_s_of_waiting_raises_one_tier_at_most_to_high() {
    // low becomes ready at 0; normal, at `ready_ms`, has the lower step id. The slot frees at `free_ms`.
    let first_at = |free_ms: u64, priority: &str| {
        let mut s = Scenario::with(|config| config.max_in_flight = 1);
        let long = |id: &str| {
            step(id)
                .set("timeoutMs", 900_000)
                .set("ackTimeoutMs", 800_000)
        };
        s.plan(plan([
            long("0").set("priority", "critical"),
            long("low").set("priority", "low"),
        ]));
        s.now_ms = free_ms;
        s.plan(plan([long("new").set("priority", priority)]).set("coordinationId", "c2"));
        s.done("0", 1, "");
        dispatched(&s)[1].clone()
    };
    assert_eq!(first_at(29_999, "normal"), "c2/new:1");
    assert_eq!(first_at(30_000, "normal"), "low:1");
    assert_eq!(first_at(59_999, "high"), "c2/new:1");
    assert_eq!(first_at(60_000, "high"), "low:1");
    assert_eq!(first_at(600_000, "critical"), "c2/new:1");
}

#[test]
fn r_63_a_retry_ages_from_its_due_time() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    let long = |id: &str| {
        step(id)
            .set("timeoutMs", 900_000)
            .set("ackTimeoutMs", 800_000)
    };
    s.plan(
        plan([long("a"), long("b")])
            .retries(1, &[10_000])
            .set("priority", "normal"),
    );
    s.fail("a", 1, FailureClass::Retryable, "x");
    s.now_ms = 39_999;
    s.plan(plan([long("new").set("priority", "high")]).set("coordinationId", "c2"));
    s.done("b", 1, "");
    assert_eq!(dispatched(&s).last().unwrap(), "c2/new:1");
}

/// What replay says of lines, one a call, and that the instance is for reading only after it.
fn fault_of(lines: Vec<String>, checked: bool) -> LedgerFault {
    let mut s = Scenario::blank();
    for line in lines {
        let lines = vec![line];
        let fault = match s.call(&Call::Replay { lines, checked }) {
            Ok(_) => continue,
            Err(CallError::ReadOnly(fault)) => fault,
            other => panic!("{other:?}"),
        };
        // Read-only from here on: reading works, nothing else does.
        let again = Err(CallError::ReadOnly(fault.clone()));
        assert_eq!(s.call(&Call::Advance { now_ms: 1 }), again);
        assert_eq!(s.configure(|_| {}).map(|()| Answer::Configure), again);
        assert!(s.call(&Call::Head).is_ok());
        assert!(s.call(&Call::Describe { id: String::new() }).is_ok());
        assert!(s.call(&Call::StateDigest).is_ok());
        return fault;
    }
    panic!("every line was followed")
}

#[test]
fn r_64_a_broken_chain_is_read_only_with_the_first_bad_record() {
    let lines = ledger();
    for seq in 1..=lines.len() {
        // One byte changed, one line lost, two lines swapped.
        let mut changed = lines.clone();
        let at = changed[seq - 1].find("\"atMs\":").unwrap() + 7;
        let digit = if changed[seq - 1].as_bytes()[at] == b'7' {
            "8"
        } else {
            "7"
        };
        changed[seq - 1].replace_range(at..=at, digit);
        let mut lost = lines.clone();
        lost.remove(seq - 1);
        let mut swapped = lines.clone();
        if seq < lines.len() {
            swapped.swap(seq - 1, seq);
        }
        for broken in [changed, lost, swapped] {
            if broken == lines || broken == lines[..lines.len() - 1] {
                continue;
            }
            let fault = chain_of(&broken).unwrap_err();
            assert_eq!(
                (fault.seq, fault.kind),
                (seq as u64, LedgerFaultKind::BrokenChain)
            );
            let fault = fault_of(broken, false);
            assert_eq!(
                (fault.seq, fault.kind),
                (seq as u64, LedgerFaultKind::BrokenChain)
            );
        }
    }
    for garbage in ["", "{}", "not a line"] {
        let mut broken = lines.clone();
        broken[3] = garbage.to_owned();
        assert_eq!(fault_of(broken, true).seq, 4);
    }
}

/// A ledger in which one record was changed and all hashes were made right again.
fn changed(
    lines: &[String],
    label_wanted: &str,
    change: impl Fn(&str) -> String,
) -> (u64, Vec<String>) {
    let at = lines
        .iter()
        .position(|line| label(&parse(line)) == label_wanted);
    let seq = at.unwrap_or_else(|| panic!("no {label_wanted}")) + 1;
    (seq as u64, forge(lines, seq, change))
}

#[test]
fn r_64_a_record_that_the_tables_do_not_allow_is_nondeterminism() {
    let lines = ledger();
    let swap = |from: &'static str, to: &'static str| {
        move |line: &str| {
            assert!(line.contains(from), "{from} in {line}");
            line.replace(from, to)
        }
    };
    type Change = Box<dyn Fn(&str) -> String>;
    let rows: Vec<(&str, Change)> = vec![
        // Another step, an attempt that is not out, a state that it is not in.
        (
            "step.acknowledged a:1",
            Box::new(swap("\"stepId\":\"a\"", "\"stepId\":\"b\"")),
        ),
        (
            "step.acknowledged a:1",
            Box::new(swap("\"attempt\":1", "\"attempt\":2")),
        ),
        (
            "step.completed a:2",
            Box::new(swap("\"stepId\":\"a\"", "\"stepId\":\"nobody\"")),
        ),
        (
            "step.completed a:2",
            Box::new(swap("\"implicitAck\":true,", "")),
        ),
        (
            "coordination.created",
            Box::new(swap(
                "\"coordinationId\":\"c\",\"data\"",
                "\"coordinationId\":\"x\",\"data\"",
            )),
        ),
        (
            "step.retry_scheduled a:1",
            Box::new(swap("\"nextAttempt\":2", "\"nextAttempt\":3")),
        ),
        (
            "step.retry_scheduled a:1",
            Box::new(swap("\"budgetLeft\":1", "\"budgetLeft\":2")),
        ),
        (
            "step.dispatched a:2",
            Box::new(swap("\"deadlineMs\":61000", "\"deadlineMs\":61001")),
        ),
        (
            "coordination.terminal",
            Box::new(swap("\"completed\":1", "\"completed\":2")),
        ),
        // Before its time, and after what it led to.
        (
            "step.dispatched a:2",
            Box::new(swap("\"atMs\":1000", "\"atMs\":999")),
        ),
        (
            "step.acknowledged a:1",
            Box::new(swap("\"cause\":3", "\"cause\":9")),
        ),
    ];
    for (wanted, change) in rows {
        let (seq, forged) = changed(&lines, wanted, change);
        assert!(chain_of(&forged).is_ok(), "only the rules can tell");
        for checked in [false, true] {
            let fault = fault_of(forged.clone(), checked);
            assert_eq!(
                (fault.seq, fault.kind),
                (seq, LedgerFaultKind::Nondeterminism),
                "{wanted}: {}",
                fault.message
            );
        }
    }
    // A record twice, and a coordination out of nothing.
    let mut twice = lines.clone();
    twice.insert(5, lines[4].replace("\"seq\":5", "\"seq\":6"));
    let twice = reseal(&twice[..6]);
    assert_eq!(fault_of(twice, false).kind, LedgerFaultKind::Nondeterminism);
    let first = reseal(&[lines[1].replace("\"seq\":2", "\"seq\":1")]);
    assert_eq!(fault_of(first, false).kind, LedgerFaultKind::Nondeterminism);
}

#[test]
fn r_64_more_steps_out_than_the_widths_allow_is_nondeterminism() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").set("targetSession", "agent:a")]));
    s.done("a", 1, "");
    // The dispatch of b before the end of a.
    let mut lines = s.lines.clone();
    lines.remove(3);
    lines[3] = lines[3]
        .replace("\"seq\":5", "\"seq\":4")
        .replace("\"cause\":4", "\"cause\":2");
    let fault = fault_of(reseal(&lines), false);
    assert_eq!(
        (fault.seq, fault.kind),
        (4, LedgerFaultKind::Nondeterminism)
    );
}

#[test]
fn r_65_rules_versions_and_types_that_are_not_known_are_refused() {
    let lines = ledger();
    let rows = [
        ("ledger.genesis", "\"rules\":1", "\"rules\":2"),
        ("coordination.created", "\"rules\":1", "\"rules\":2"),
        ("step.acknowledged a:1", "\"v\":1", "\"v\":2"),
        (
            "step.acknowledged a:1",
            "\"step.acknowledged\"",
            "\"step.dreamt\"",
        ),
    ];
    for (wanted, from, to) in rows {
        let (seq, forged) = changed(&lines, wanted, |line| line.replacen(from, to, 1));
        let fault = fault_of(forged, false);
        assert_eq!(
            (fault.seq, fault.kind),
            (seq, LedgerFaultKind::Unsupported),
            "{to}"
        );
    }
    // Pinned in every plan.
    let created: Value = parse(&lines[1]);
    assert_eq!(
        (&created["type"], &created["data"]["rules"]),
        (&json!("coordination.created"), &json!(1))
    );
}

#[test]
fn replay_in_chunks_continues_where_it_was_and_restore_needs_an_empty_instance() {
    let lines = ledger();
    let mut s = Scenario::blank();
    for line in &lines {
        let call = Call::Replay {
            lines: vec![line.clone()],
            checked: false,
        };
        assert!(s.call(&call).is_ok());
    }
    let head = chain_of(&lines).unwrap();
    assert_eq!(s.call(&Call::Head), Ok(Answer::Head(head)));
    let chunk = match s.call(&Call::Snapshot {
        cursor: None,
        max_bytes: 1 << 20,
    }) {
        Ok(Answer::Snapshot(piece)) => piece.chunk,
        other => panic!("{other:?}"),
    };
    let restore = s.call(&Call::Restore { chunk, last: true });
    assert!(matches!(restore, Err(CallError::Bound(_))), "{restore:?}");
    let cursor = Some("nonsense".to_owned());
    let wrong = s.call(&Call::Snapshot {
        cursor,
        max_bytes: 1,
    });
    assert!(matches!(wrong, Err(CallError::Bound(_))), "{wrong:?}");
    s.lines = lines;
}

#[test]
fn a_broken_snapshot_is_refused_and_spends_the_instance() {
    for chunk in ["", "{}", r#"{"v":2}"#, r#"{"v":1,"live":[{}]}"#] {
        let mut s = Scenario::blank();
        let (chunk, last) = (chunk.to_owned(), true);
        let refused = s.call(&Call::Restore { chunk, last });
        assert!(matches!(refused, Err(CallError::Bound(_))), "{refused:?}");
        assert_eq!(s.call(&Call::Head), Err(CallError::Rebuild));
    }
}

#[test]
fn the_digest_of_two_states_differs_and_records_read_back() {
    let lines = ledger();
    let mut digests = Vec::new();
    for count in 1..=lines.len() {
        let mut native = Native::default();
        native.replay(&lines[..count], false);
        digests.push(native.digest());
        let (record, prev, hash) = Record::parse_linked(&lines[count - 1]).unwrap();
        assert_eq!(record.line(&prev), (lines[count - 1].clone(), hash));
    }
    let count = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count);
}
