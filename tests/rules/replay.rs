//! Records that replay does not follow, one by one and by hand, and pieces of snapshots that are not taken in (R-64, R-65).
//!
//! Records of a real ledger that somebody changed are in `load_and_fault.rs` and `redone.rs`.

use crate::support::*;
use qm2_core::receipt::{CallError, LedgerFaultKind};
use qm2_host::engine::{Answer, Call};
use serde_json::Value;

/// Steps `a` and `z` are out, `z` has said so at 10, and `b` waits for `a`: five records.
fn ledger() -> Vec<String> {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a"), step("z")]).retries(2, &[1_000]));
    s.now_ms = 10;
    s.ack("z", 1);
    assert_eq!(s.lines.len(), 5);
    s.lines.clone()
}

/// A line by hand: `place` is what stands before `data`, apart from `v`, `seq`, `atMs` and `type`.
fn line(at_ms: u64, type_name: &str, place: &str, data: &str) -> String {
    format!(
        r#"{{"v":1,"seq":6,"atMs":{at_ms},"type":"{type_name}",{place}"data":{{{data}}},"prev":"","hash":""}}"#
    )
}

/// What stands before the data of a record of an attempt of plan `c`.
fn of(step: &str, attempt: u32) -> String {
    format!(r#""coordinationId":"c","stepId":"{step}","attempt":{attempt},"cause":2,"#)
}

const OF_C: &str = r#""coordinationId":"c","cause":2,"#;

/// The ledger with this line behind it is not followed, for this reason.
#[track_caller]
fn refuse(ledger: &[String], last: String, kind: LedgerFaultKind, says: &str) {
    let lines = [ledger, &[last]].concat();
    let lines = reseal(&lines);
    assert!(chain_of(&lines).is_ok(), "only the rules can tell");
    let mut s = Scenario::blank();
    for line in ledger {
        let (lines, checked) = (vec![line.clone()], true);
        s.call(&Call::Replay { lines, checked })
            .expect("it is followed");
    }
    let (last, checked) = (lines[ledger.len()].clone(), false);
    let lines = vec![last];
    match s.call(&Call::Replay { lines, checked }) {
        Err(CallError::ReadOnly(fault)) => {
            assert_eq!(
                (fault.seq, fault.kind),
                (ledger.len() as u64 + 1, kind),
                "{fault:?}"
            );
            assert!(fault.message.contains(says), "{says} in {fault:?}");
        }
        other => panic!("{says}: {other:?}"),
    }
}

fn refuse_all(ledger: &[String], rows: &[(&str, String, String, &str)]) {
    for (type_name, place, data, says) in rows {
        let last = line(10, type_name, place, data);
        refuse(ledger, last, LedgerFaultKind::Nondeterminism, says);
    }
}

const DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn r_64_records_out_of_their_place_are_not_followed() {
    let ledger = ledger();
    let again = |index: usize, from: &str, to: &str| {
        let text = &ledger[index];
        let data = text.find(",\"data\":{").expect("it has data") + 9;
        let end = text.find("},\"prev\":").expect("it is linked");
        let data = text[data..end].replace(from, to);
        let type_name = parse(text)["type"].as_str().unwrap_or_default().to_owned();
        (type_name, data)
    };
    let ack = format!(r#""sourceSession":"agent:a","contentDigest":"{DIGEST}""#);
    let kind = LedgerFaultKind::Nondeterminism;
    let early = line(9, "step.acknowledged", &of("a", 1), &ack);
    refuse(&ledger, early, kind, "is at 9, before the record before it");
    let caused = of("a", 1).replace("\"cause\":2", "\"cause\":6");
    let itself = line(10, "step.acknowledged", &caused, &ack);
    refuse(&ledger, itself, kind, "names itself");
    let (genesis, data) = again(0, "", "");
    refuse(&ledger, line(10, &genesis, "", &data), kind, "out of place");
    let (_, other) = again(0, r#""domain":"d""#, r#""domain":"e""#);
    let config = other.find(r#""config":"#).expect("it has a configuration");
    let configured = line(10, "domain.configured", r#""cause":1,"#, &other[config..]);
    refuse(&ledger, configured, kind, "configures another domain");
    let (created, data) = again(1, "", "");
    let twice = line(10, &created, r#""coordinationId":"c","#, &data);
    refuse(&ledger, twice, kind, "c exists already");
    let rows = [
        (
            "step.acknowledged",
            of("a", 1).replace("\"c\"", "\"x\""),
            ack.clone(),
            "no live coordination",
        ),
        (
            "step.acknowledged",
            of("nobody", 1),
            ack.clone(),
            "nobody is no step of c",
        ),
        (
            "step.acknowledged",
            OF_C.into(),
            ack.clone(),
            "without a step",
        ),
        (
            "step.acknowledged",
            of("a", 2),
            ack.clone(),
            "is of attempt 2; the current one is 1",
        ),
        (
            "step.acknowledged",
            of("z", 1),
            ack.clone(),
            "while it is acknowledged",
        ),
        ("step.acknowledged", of("b", 1), ack, "while it is pending"),
        (
            "message.acknowledged",
            OF_C.into(),
            r#""key":"report:3","session":"user:owner""#.into(),
            "no report report:3 is awaited",
        ),
        (
            "message.redelivered",
            OF_C.into(),
            r#""key":"report:3","delivery":2,"nextDueMs":99"#.into(),
            "no report report:3 with 1 deliveries",
        ),
        (
            "message.undelivered",
            OF_C.into(),
            r#""key":"report:3","deliveries":6"#.into(),
            "no report report:3 with 6 deliveries",
        ),
        (
            "coordination.terminal",
            OF_C.into(),
            format!(
                r#""terminal":"success","counts":{{"completed":3,"failed":0,"timedOut":0,"cancelled":0,"skipped":0}},"planDigest":"{DIGEST}""#
            ),
            "not at its end",
        ),
        (
            "input.late",
            of("a", 1),
            format!(
                r#""intent":"ack","part":"","sourceSession":"agent:a","code":"late","contentDigest":"{DIGEST}""#
            ),
            "attempt 1 has not ended",
        ),
    ];
    refuse_all(&ledger, &rows);
}

#[test]
fn r_64_ends_of_attempts_that_the_table_does_not_allow_are_not_followed() {
    let ledger = ledger();
    let completed =
        |rest: &str| format!(r#"{rest}"payload":"","contentDigest":"{DIGEST}","by":"report""#);
    let failed =
        |code: &str| format!(r#""class":"permanent","code":"{code}","message":"","attempts":1"#);
    let timed_out = |which: &str| format!(r#""deadlineMs":60000,"which":"{which}","attempts":1"#);
    let retry = |next: u32, left: u32| {
        format!(
            r#""class":"timeout","code":"timeout","message":"","dueMs":1010,"nextAttempt":{next},"free":false,"budgetLeft":{left}"#
        )
    };
    let free = retry(2, 1).replace("\"free\":false", "\"free\":true");
    let skipped = |reason: &str| format!(r#""reason":"{reason}","dependsOn":[]"#);
    let cancelled = |used: bool| format!(r#""by":"cancel","graceUsed":{used}"#);
    let pending = "not allowed for b while it is pending";
    let out = "not allowed for a while it is dispatched";
    refuse_all(
        &ledger,
        &[
            ("step.completed", of("b", 1), completed(""), pending),
            ("step.completed", of("a", 1), completed(""), out),
            (
                "step.completed",
                of("z", 1),
                completed(r#""implicitAck":true,"#),
                "not allowed for z while it is acknowledged",
            ),
            (
                "step.completed",
                of("a", 1),
                completed("").replace("report", "answer"),
                out,
            ),
            ("step.failed", of("b", 1), failed("x"), pending),
            ("step.failed", of("b", 1), failed("denied"), pending),
            ("step.timed_out", of("b", 1), timed_out("attempt"), pending),
            ("step.timed_out", of("b", 1), timed_out("plan"), pending),
            ("step.timed_out", of("a", 1), timed_out("cleanup"), out),
            ("step.retry_scheduled", of("b", 1), retry(2, 1), pending),
            ("step.retry_scheduled", of("a", 1), retry(3, 1), out),
            ("step.retry_scheduled", of("a", 1), retry(2, 2), out),
            ("step.retry_scheduled", of("a", 1), free, out),
            ("step.cancelled", of("a", 1), cancelled(true), out),
            ("step.cancelled", of("b", 1), cancelled(false), pending),
            ("step.skipped", of("b", 1), skipped("condition"), pending),
            (
                "step.skipped",
                of("b", 1),
                skipped("upstream_failed"),
                pending,
            ),
            ("step.skipped", of("b", 1), skipped("fail_fast"), pending),
            ("step.skipped", of("a", 1), skipped("plan_deadline"), out),
        ],
    );
}

#[test]
fn r_64_dispatches_and_progress_that_the_table_does_not_allow_are_not_followed() {
    let ledger = ledger();
    let dispatched = |deadline_ms: u64, tokens: &str| {
        format!(
            r#""lane":"control","targetSession":"agent:b","deliveryMode":"at_least_once","priority":"normal","deadlineMs":{deadline_ms},"ackDeadlineMs":30010,"tokens":[{tokens}],"payloadDigest":"{DIGEST}""#
        )
    };
    let redelivered = |key: &str, delivery: u32| {
        format!(r#""key":"{key}","delivery":{delivery},"nextDueMs":40000"#)
    };
    let progress = format!(r#""number":1,"contentDigest":"{DIGEST}""#);
    let out = "not allowed for a while it is dispatched";
    let pending = "not allowed for b while it is pending";
    refuse_all(
        &ledger,
        &[
            (
                "step.dispatched",
                of("b", 1),
                dispatched(60_010, ""),
                pending,
            ),
            ("step.dispatched", of("a", 1), dispatched(60_010, ""), out),
            ("step.progress", of("b", 1), progress, pending),
            (
                "message.redelivered",
                of("a", 1),
                redelivered("c:a:1", 3),
                out,
            ),
            (
                "message.redelivered",
                of("a", 1),
                redelivered("c:z:1", 2),
                out,
            ),
            ("message.redelivered", of("a", 1), redelivered("x", 2), out),
            (
                "message.redelivered",
                of("z", 1),
                redelivered("c:z:1", 2),
                "not allowed for z while it is acknowledged",
            ),
        ],
    );
    // Ready, and not like this.
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    s.plan(plan([step("a"), step("b")]));
    s.now_ms = 10;
    s.ack("a", 1);
    s.seen();
    let full = s.lines.clone();
    assert_eq!(full.len(), 4);
    let ready = "not allowed for b while it is ready";
    let last = line(10, "step.dispatched", &of("b", 1), &dispatched(60_010, ""));
    let last = last.replace("\"seq\":6", "\"seq\":5");
    refuse(&full, last, LedgerFaultKind::Nondeterminism, ready);
    // A wider domain: only its deadline, or its tokens, are wrong.
    s.configure(|config| config.max_in_flight = 2).unwrap();
    let wide = s.lines.clone();
    assert_eq!(wide.len(), 5);
    for (deadline_ms, tokens) in [(60_011, ""), (60_010, r#"{"resource":"file:x","token":3}"#)] {
        let last = line(
            10,
            "step.dispatched",
            &of("b", 1),
            &dispatched(deadline_ms, tokens),
        );
        refuse(&wide, last, LedgerFaultKind::Nondeterminism, ready);
    }
    let last = line(10, "step.dispatched", &of("b", 1), &dispatched(60_010, ""));
    let lines = reseal(&[&wide[..], &[last]].concat());
    let mut s = Scenario::blank();
    let checked = false;
    assert!(
        s.call(&Call::Replay {
            lines: lines.clone(),
            checked
        })
        .is_ok()
    );
    s.lines = lines;
}

#[test]
fn r_64_records_about_shared_things_that_are_not_there_are_not_followed() {
    let ledger = ledger();
    let contender = r#"{"coordinationId":"c","stepId":"b","attempt":1,"session":"agent:b","priority":"normal","claimNumber":6,"mode":"exclusive"}"#;
    let policy = r#"{"default":"owner_wins","rules":[],"owners":[],"highRisk":[],"preempt":false}"#;
    let out = "not allowed for a while it is dispatched";
    let pending = "not allowed for b while it is pending";
    let added = r#"{"stepId":"n","targetSession":"agent:n","payload":"","dependsOn":[],"join":"all","claims":[],"owns":[],"priority":"normal","deliveryMode":"at_least_once","timeoutMs":1000,"idempotent":true,"required":false,"cleanup":false,"risk":"high","parentStepId":"b"}"#;
    refuse_all(
        &ledger,
        &[
            (
                "step.added",
                of("n", 1),
                format!(r#""step":{added},"sourceSession":"agent:b","contentDigest":"{DIGEST}""#),
                "adds n under a step that does not run",
            ),
            (
                "claim.granted",
                of("b", 1),
                r#""resource":"file:x","mode":"exclusive","session":"agent:b","leaseMs":5,"expiresMs":15,"claimNumber":6"#.into(),
                pending,
            ),
            (
                "claim.granted",
                of("a", 1),
                r#""resource":"file:x","mode":"exclusive","session":"agent:a","leaseMs":5,"expiresMs":16,"claimNumber":6"#.into(),
                out,
            ),
            ("claim.renewed", of("a", 1), r#""tokens":[3],"expiresMs":99"#.into(), out),
            (
                "claim.released",
                of("a", 1),
                r#""tokens":[3],"reason":"released""#.into(),
                "gives back what a does not hold",
            ),
            ("claim.expired", of("a", 1), r#""token":3,"resource":"file:x""#.into(), out),
            (
                "conflict.detected",
                of("b", 1),
                format!(
                    r#""contestId":"c6","resource":"file:x","contenders":[{contender}],"holders":[],"policy":{policy}"#
                ),
                "is not what b meets on file:x",
            ),
            (
                "conflict.resolved",
                of("b", 1),
                r#""contestId":"c6","stage":"strategy","strategy":"owner_wins","outcomes":[],"reason":"""#.into(),
                "c6 is no contest of b",
            ),
            (
                "hook.requested",
                of("a", 1),
                format!(r#""hookId":"h6","kind":"before_dispatch","subjectDigest":"{DIGEST}","dueMs":15010"#),
                out,
            ),
            (
                "hook.verdict",
                of("a", 1),
                r#""hookId":"h3","handler":"g","verdict":"no_opinion""#.into(),
                out,
            ),
            (
                "coordination.escalated",
                of("a", 1),
                format!(r#""escalationId":"e6","kind":"question","question":"?","digest":"{DIGEST}","levels":[]"#),
                out,
            ),
            (
                "human.requested",
                of("a", 1),
                r#""escalationId":"e3","level":1,"minRole":"operator","required":1,"dueMs":99"#.into(),
                out,
            ),
            (
                "human.decided",
                of("a", 1),
                r#""escalationId":"e3","actor":"user:dana","role":"operator","verdict":"approve","final":true"#.into(),
                out,
            ),
            (
                "human.expired",
                of("a", 1),
                r#""escalationId":"e3","level":1,"fallback":"deny","reason":"timeout""#.into(),
                out,
            ),
        ],
    );
}

#[test]
fn r_64_what_ends_or_stops_twice_is_not_followed() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]));
    s.now_ms = 10;
    s.cancel_step("a");
    s.seen();
    let lines = s.lines.clone();
    assert_eq!(lines.len(), 5);
    let stop = r#""by":"user:owner","graceUntilMs":15010"#.to_owned();
    let rows = [
        (
            "coordination.cancel_requested",
            of("a", 1),
            stop.clone(),
            "cancels a, which is final or being ended",
        ),
        (
            "step.failed",
            of("a", 1),
            r#""class":"permanent","code":"x","message":"","attempts":1"#.into(),
            "not allowed for a",
        ),
        (
            "step.cancelled",
            of("a", 1),
            r#""by":"fail_fast","graceUsed":true"#.into(),
            "not allowed for a",
        ),
        (
            "step.cancelled",
            of("a", 1),
            r#""by":"cancel","graceUsed":false"#.into(),
            "not allowed for a",
        ),
    ];
    refuse_all(&lines, &rows);
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]));
    s.now_ms = 10;
    s.cancel();
    s.seen();
    let twice = line(10, "coordination.cancel_requested", OF_C, &stop);
    refuse(
        &s.lines,
        twice,
        LedgerFaultKind::Nondeterminism,
        "final or cancelled",
    );
}

#[test]
fn r_65_what_is_no_record_of_these_rules_is_not_followed() {
    let ledger = ledger();
    let ack = |data: &str| line(10, "step.acknowledged", &of("a", 1), data);
    let good = format!(r#""sourceSession":"agent:a","contentDigest":"{DIGEST}""#);
    let unsupported = LedgerFaultKind::Unsupported;
    let version = ack(&good).replace("\"v\":1", "\"v\":2");
    refuse(&ledger, version, unsupported, "line version 2 is not known");
    let dreamt = ack(&good).replace("step.acknowledged", "step.dreamt");
    refuse(
        &ledger,
        dreamt,
        unsupported,
        "record type step.dreamt is not known",
    );
    let broken = LedgerFaultKind::BrokenChain;
    for data in [
        // Missing, unknown, in another order, null, of another type, with white space.
        r#""sourceSession":"agent:a""#.to_owned(),
        format!(r#"{good},"colour":1"#),
        format!(r#""contentDigest":"{DIGEST}","sourceSession":"agent:a""#),
        format!(r#""sourceSession":null,"contentDigest":"{DIGEST}""#),
        format!(r#""sourceSession":1,"contentDigest":"{DIGEST}""#),
        good.replace(',', ", "),
        // An escape that is not the one form of its character.
        good.replace("agent", "\\u0061gent"),
    ] {
        refuse(&ledger, ack(&data), broken, "is not a record");
    }
}

#[test]
fn r_64_a_line_that_does_not_follow_the_one_before_is_the_first_bad_one() {
    let ledger = ledger();
    let last = ledger[4].clone();
    let hash = last.rfind("\"hash\":\"").expect("it has a hash") + 8;
    let prev = last.rfind("\"prev\":\"").expect("it is linked") + 8;
    let other = |at: usize| {
        let mut line = last.clone();
        let digit = if line.as_bytes()[at] == b'0' {
            "1"
        } else {
            "0"
        };
        line.replace_range(at..=at, digit);
        line
    };
    for (line, checked, says) in [
        (other(hash), false, "its content has"),
        (other(prev), false, "prev is not the hash"),
        (other(prev), true, "does not follow the one before"),
        (
            last.replace("\"seq\":5", "\"seq\":7"),
            false,
            "says seq 7 where 5 is due",
        ),
        (
            last.replace("\"seq\":5", "\"seq\":7"),
            true,
            "is record 7 where 5 is due",
        ),
        (
            last.replace("\"atMs\":10", "\"atMs\":11"),
            false,
            "its content has",
        ),
        (format!("{}00\"}}", &last[..hash]), false, "is not a record"),
        (String::new(), false, "is not a record"),
        ("{}".into(), true, "is not a record"),
        (last.trim_end_matches('}').into(), false, "is not a record"),
    ] {
        let mut s = Scenario::blank();
        for line in &ledger[..4] {
            let (lines, checked) = (vec![line.clone()], false);
            s.call(&Call::Replay { lines, checked })
                .expect("it is followed");
        }
        let lines = vec![line];
        match s.call(&Call::Replay { lines, checked }) {
            Err(CallError::ReadOnly(fault)) => {
                assert_eq!((fault.seq, fault.kind), (5, LedgerFaultKind::BrokenChain));
                assert!(fault.message.contains(says), "{says} in {fault:?}");
            }
            other => panic!("{says}: {other:?}"),
        }
    }
}

/// All pieces of a snapshot of this size.
fn pieces(s: &mut Scenario, max_bytes: u64) -> Vec<String> {
    let (mut pieces, mut cursor) = (Vec::new(), None);
    loop {
        match s.call(&Call::Snapshot { cursor, max_bytes }) {
            Ok(Answer::Snapshot(piece)) => {
                pieces.push(piece.chunk);
                cursor = piece.next;
                if cursor.is_none() {
                    return pieces;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn restore(s: &mut Scenario, pieces: &[String]) -> Result<Answer, CallError> {
    let mut answer = Ok(Answer::Reconcile);
    for (index, chunk) in pieces.iter().enumerate() {
        let last = index + 1 == pieces.len();
        let chunk = chunk.clone();
        answer = s.call(&Call::Restore { chunk, last });
    }
    answer
}

/// R-61: a snapshot and what came after it stand for the whole ledger.
#[test]
fn r_64_a_snapshot_is_taken_in_piece_by_piece_and_goes_on() {
    let mut s = Scenario::new();
    for id in ["c", "d", "e", "f"] {
        let a = step("a").set("targetSession", format!("agent:{id}"));
        s.plan(plan([a]).set("coordinationId", id));
    }
    for id in ["d", "f"] {
        let end = done("a", 1, "").of(id).by(&format!("agent:{id}"));
        assert_eq!(brief(&s.submit(end)), "accepted completed");
    }
    s.read_all();
    // One coordination a piece, and an empty one between those that are live and those that are closed.
    let small = pieces(&mut s, 1);
    assert_eq!(small.len(), 5);
    assert_eq!(pieces(&mut s, 1 << 20).len(), 2);
    let (digest, head) = (s.digest(), s.call(&Call::Head));
    let mut fresh = Scenario::blank();
    // Its ledger begins before it.
    fresh.lines = s.lines.clone();
    let Ok(Answer::Restore(restored)) = restore(&mut fresh, &small) else {
        panic!("the snapshot is taken in")
    };
    assert_eq!((Ok(Answer::Head(restored)), fresh.digest()), (head, digest));
    let said = brief(&fresh.submit(ack("a", 1).by("agent:c")));
    assert_eq!(said, "accepted acknowledged");
    // Closed ones are closed still.
    let says = brief(&fresh.submit(ack("a", 1).of("d").by("agent:d")));
    assert_eq!(says, "closed coordinationId stop");
}

#[test]
fn r_64_pieces_out_of_their_order_are_not_taken_in() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.plan(plan([step("b")]).set("coordinationId", "d"));
    let good = pieces(&mut s, 1);
    assert_eq!(good.len(), 3);
    let bad = [
        vec![good[1].clone()],
        vec![good[0].clone(), good[0].clone()],
        vec![String::new()],
        vec![r#"{"v":2}"#.into()],
        vec![r#"{"v":1}"#.into(), good[0].replace("\"v\":1", "\"v\": 1")],
        // Two steps that are one, and one that is there without being counted.
        vec![good[0].replace("\"openWork\":1", "\"openWork\":2")],
    ];
    for pieces in bad {
        let mut fresh = Scenario::blank();
        let refused = restore(&mut fresh, &pieces);
        assert!(
            matches!(refused, Err(CallError::Bound(_) | CallError::Rebuild)),
            "{refused:?}"
        );
        // Spent: it must be made anew.
        assert_eq!(fresh.call(&Call::Head), Err(CallError::Rebuild));
    }
    // Half of one is no state to look at, and no state to go on from.
    let mut half = Scenario::blank();
    let chunk = good[0].clone();
    assert!(half.call(&Call::Restore { chunk, last: false }).is_ok());
    for call in [
        Call::Head,
        Call::StateDigest,
        Call::Describe { id: String::new() },
    ] {
        assert_eq!(half.call(&call), Err(CallError::Rebuild), "{}", call.name());
    }
    assert_eq!(
        half.call(&Call::Advance { now_ms: 1 }),
        Err(CallError::Disabled)
    );
    for (chunk, last) in [(good[1].clone(), false), (good[2].clone(), true)] {
        assert!(half.call(&Call::Restore { chunk, last }).is_ok());
    }
    assert_eq!(half.digest(), s.digest());
    half.lines = s.lines.clone();
    let cursor = Some("nowhere".to_owned());
    let refused = half.call(&Call::Snapshot {
        cursor,
        max_bytes: 1,
    });
    assert!(matches!(refused, Err(CallError::Bound(_))), "{refused:?}");
    let value: Value = parse(&good[0]);
    assert_eq!(value["v"], 1);
}

/// Each coordination once, in the order of a snapshot: the live ones by id, then the closed ones by id.
#[test]
fn r_64_coordinations_of_a_snapshot_out_of_their_order_are_not_taken_in() {
    let mut s = Scenario::new();
    for id in ["c", "d", "e", "f"] {
        let a = step("a").set("targetSession", format!("agent:{id}"));
        s.plan(plan([a]).set("coordinationId", id));
    }
    for id in ["e", "f"] {
        s.submit(done("a", 1, "").of(id).by(&format!("agent:{id}")))
            .unwrap();
    }
    s.read_all();
    let good = pieces(&mut s, 1);
    assert_eq!(good.len(), 5);
    let pick = |order: &[usize]| -> Vec<String> {
        order.iter().map(|index| good[*index].clone()).collect()
    };
    let bad = [
        pick(&[0, 1, 1]),
        pick(&[0, 2, 3, 1]),
        pick(&[0, 1, 2, 4, 3]),
        pick(&[0, 1, 2, 3, 3]),
        // A closed one under the name of a live one, and one without a name.
        vec![good[0].clone(), good[3].replace("\"e\"", "\"c\"")],
        vec![good[0].clone(), good[3].replace("\"e\"", "\"\"")],
    ];
    for pieces in bad {
        let refused = restore(&mut Scenario::blank(), &pieces);
        let Err(CallError::Bound(says)) = &refused else {
            panic!("{refused:?} of {pieces:#?}")
        };
        assert!(says.message.contains("is not in its place"), "{says:?}");
    }
    // None holds the domain.
    let none = r#"{"v":1,"live":[],"closed":[]}"#.to_owned();
    let refused = restore(&mut Scenario::blank(), &[none]);
    assert!(matches!(refused, Err(CallError::Bound(_))), "{refused:?}");
}

/// What points to places of steps points to steps, and what counts them is right.
#[test]
fn r_64_a_coordination_of_a_snapshot_that_contradicts_itself_is_not_taken_in() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]).set("reports", "all"));
    s.fail("a", 1, qm2_core::envelope::FailureClass::Permanent, "x");
    let good = pieces(&mut s, 1);
    for (from, to) in [
        (r#""openWork":0"#, r#""openWork":1"#),
        (r#""openCleanup":0"#, r#""openCleanup":1"#),
        (r#""id":"b""#, r#""id":"a""#),
        (r#""children":[[1,"#, r#""children":[[2,"#),
        (r#"{"step":1,"#, r#"{"step":2,"#),
    ] {
        assert!(good[0].contains(from), "{from} in {}", good[0]);
        let changed = vec![good[0].replacen(from, to, 1)];
        let refused = restore(&mut Scenario::blank(), &changed);
        let Err(CallError::Bound(says)) = &refused else {
            panic!("{refused:?} of {from} to {to}")
        };
        assert!(says.message.contains("contradicts itself"), "{says:?}");
    }
}

/// A host may replay up to any record and take a snapshot there, also where a call had more to say.
#[test]
fn r_64_a_snapshot_between_the_records_of_a_call_goes_on_as_the_ledger_does() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a"), step("z")]));
    s.fail("a", 1, qm2_core::envelope::FailureClass::Permanent, "x");
    let (digest, lines) = (s.digest(), s.lines.clone());
    let at = lines.iter().position(|line| line.contains("step.skipped"));
    let at = at.expect("b cannot run any more");
    let mut half = Scenario::blank();
    let replay = |lines: &[String]| Call::Replay {
        lines: lines.to_vec(),
        checked: false,
    };
    half.call(&replay(&lines[..at])).expect("they are followed");
    let Ok(Answer::Snapshot(piece)) = half.call(&Call::Snapshot {
        cursor: None,
        max_bytes: 1 << 20,
    }) else {
        panic!("a snapshot can be taken")
    };
    half.call(&replay(&lines[at..]))
        .expect("the rest is followed");
    half.lines = lines.clone();
    let mut rest = piece.next.into_iter().collect::<Vec<_>>();
    assert!(rest.len() < 2);
    let mut pieces = vec![piece.chunk];
    while let Some(cursor) = rest.pop() {
        let call = Call::Snapshot {
            cursor: Some(cursor),
            max_bytes: 1 << 20,
        };
        let mut again = Scenario::blank();
        again
            .call(&replay(&lines[..at]))
            .expect("they are followed");
        let Ok(Answer::Snapshot(piece)) = again.call(&call) else {
            panic!("it goes on")
        };
        again.lines = lines[..at].to_vec();
        pieces.push(piece.chunk);
        rest.extend(piece.next);
    }
    let skippable = r#""skippable":[1]"#;
    assert!(pieces[0].contains(skippable), "{}", pieces[0]);
    let mut wrong = pieces.clone();
    wrong[0] = wrong[0].replace(skippable, r#""skippable":[3]"#);
    let refused = restore(&mut Scenario::blank(), &wrong);
    assert!(matches!(refused, Err(CallError::Bound(_))), "{refused:?}");
    let mut fresh = Scenario::blank();
    restore(&mut fresh, &pieces).expect("the snapshot is taken in");
    fresh
        .call(&replay(&lines[at..]))
        .expect("the rest is followed");
    fresh.lines = lines;
    assert_eq!(fresh.digest(), digest);
}

#[test]
fn r_64_closed_coordinations_come_in_pieces_of_the_wished_size() {
    let mut s = Scenario::new();
    for id in ["c", "d", "e"] {
        s.plan(plan([step("a")]).set("coordinationId", id));
        assert_eq!(s.done_of(id, "a", 1), "accepted completed");
    }
    s.read_all();
    // What is live, here nothing, and what is closed never share a piece.
    assert_eq!(pieces(&mut s, 1 << 20).len(), 2);
    let small = pieces(&mut s, 1);
    assert_eq!(small.len(), 4);
    for (piece, id) in small[1..].iter().zip(["c", "d", "e"]) {
        assert!(piece.contains(&format!("[\"{id}\",")), "{piece}");
    }
}
