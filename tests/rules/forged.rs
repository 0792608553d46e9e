//! Records that a call could have led to, each with one member changed and every hash right: replay finds it at that record
//! (R-64).
//!
//! Records written by hand are in `replay.rs`, and forged decisions of contests among `redone.rs` as well.

use crate::support::*;
use qm2_core::digest::sha256_hex;
use qm2_core::envelope::{Envelope, FailureClass};
use qm2_core::message::{HookKind, HookVerdict, HumanVerdict, NoticeKind};
use qm2_core::receipt::{CallError, LedgerFaultKind};
use qm2_host::engine::Call;
use serde_json::json;

const DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn submit(s: &Scenario, envelopes: Vec<Envelope>) -> Call {
    Call::Submit {
        caller: caller(&envelopes[0].source_session),
        now_ms: s.now_ms,
        envelopes,
    }
}

fn submit_plan(s: &Scenario, plan: &Json) -> Call {
    Call::SubmitPlan {
        caller: caller(OWNER),
        now_ms: s.now_ms,
        plan: plan.text(),
    }
}

fn answer(s: &Scenario, session: &str, verdict: HumanVerdict) -> Call {
    let (escalation_id, digest) = s.question("a");
    Call::Answer {
        actor: caller_as(session, qm2_core::message::Role::Operator),
        now_ms: s.now_ms,
        escalation_id,
        digest,
        verdict,
        text: None,
    }
}

/// The records that a call leads to from here.
fn next_lines(s: &Scenario, call: &Call) -> Vec<String> {
    let mut beside = Native::default();
    beside.replay(&s.lines, true);
    beside.call(call).expect("the call is taken");
    beside.take_staged().lines
}

/// This record behind those that are there, and `before`, is found. The scenario is as it was, and has to be rebuilt.
#[track_caller]
fn refuse(s: &mut Scenario, before: &[String], last: &str) {
    let lines = reseal(&[&s.lines[..], before, &[last.to_owned()]].concat());
    assert!(chain_of(&lines).is_ok(), "only the rules can tell");
    let seq = lines.len() as u64;
    s.rebuild();
    let (lines, checked) = (lines[s.lines.len()..].to_vec(), false);
    match s.call(&Call::Replay { lines, checked }) {
        Err(CallError::ReadOnly(fault)) => {
            let found = (fault.seq, fault.kind);
            let wanted = (seq, LedgerFaultKind::Nondeterminism);
            assert_eq!(found, wanted, "{fault:?} of {last}");
        }
        other => panic!("{other:?} of {last}"),
    }
}

/// Each of these changes of a record that the call leads to is found, and the record as it is followed.
#[track_caller]
fn find(s: &mut Scenario, call: &Call, wanted: &str, rows: &[(&str, &str)]) {
    let next = next_lines(s, call);
    let mut labels = next.iter().map(|line| label(&parse(line)));
    let at = labels.position(|label| label == wanted);
    let at = at.unwrap_or_else(|| panic!("no {wanted} in {next:#?}"));
    for (from, to) in rows {
        assert!(next[at].contains(from), "{from} in {}", next[at]);
        refuse(s, &next[..at], &next[at].replace(from, to));
    }
    s.rebuild();
}

/// A record of an attempt by hand.
fn line(s: &Scenario, type_name: &str, step: &str, attempt: u32, data: &str) -> String {
    let (seq, at_ms) = (s.lines.len() + 1, s.now_ms);
    format!(
        r#"{{"v":1,"seq":{seq},"atMs":{at_ms},"type":"{type_name}","coordinationId":"c","stepId":"{step}","attempt":{attempt},"cause":2,"data":{{{data}}},"prev":"","hash":""}}"#
    )
}

/// These records by hand are found.
#[track_caller]
fn refuse_all(s: &mut Scenario, rows: &[(&str, &str, u32, &str)]) {
    for (type_name, step, attempt, data) in rows {
        let last = line(s, type_name, step, *attempt, data);
        refuse(s, &[], &last);
    }
    s.rebuild();
}

// ---- plans and what is added to them ----

/// R-23: what is added is what an execute can have asked for.
#[test]
fn r_64_an_added_step_that_no_envelope_asks_for_is_found() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]));
    let call = submit(&s, vec![execute("n", "a")]);
    let rows = [
        (
            r#""dependsOn":[]"#,
            r#""dependsOn":[{"stepId":"a","on":"success"}]"#,
        ),
        (r#""join":"all""#, r#""join":"any""#),
        (
            r#""claims":[]"#,
            r#""claims":[{"resource":"file:x","mode":"exclusive","leaseMs":5,"regions":[]}]"#,
        ),
        (r#""owns":[]"#, r#""owns":["file:x"]"#),
        (r#""priority":"normal""#, r#""priority":"high""#),
        (r#""timeoutMs":60000"#, r#""timeoutMs":60001"#),
        (
            r#""timeoutMs":60000"#,
            r#""timeoutMs":60000,"ackTimeoutMs":5"#,
        ),
        (
            r#""timeoutMs":60000"#,
            r#""timeoutMs":60000,"maxAttempts":2"#,
        ),
        (r#""idempotent":true"#, r#""idempotent":false"#),
        (r#""required":false"#, r#""required":true"#),
        (r#""cleanup":false"#, r#""cleanup":true"#),
        (r#""risk":"high""#, r#""risk":"low""#),
        (
            r#""risk":"high""#,
            r#""risk":"high","expectedOutput":{"requiredFields":[],"allowEmpty":true}"#,
        ),
        (r#""stepId":"n""#, r#""stepId":"n n""#),
        (
            r#""targetSession":"agent:n""#,
            r#""targetSession":"agent n""#,
        ),
        (r#""payload":"more","#, ""),
        (
            r#""payload":"more","#,
            r#""payload":"more","payloadRef":{"uri":"u","sha256":"0000000000000000000000000000000000000000000000000000000000000000","bytes":1},"#,
        ),
        (r#""parentStepId":"a""#, r#""parentStepId":"b""#),
        (
            r#""data":{"step":{"stepId":"n""#,
            r#""data":{"step":{"stepId":"m""#,
        ),
    ];
    find(&mut s, &call, "step.added n:1", &rows);
}

#[test]
fn r_64_an_added_step_that_is_too_deep_is_found() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    s.plan(plan([step("0")]));
    for depth in 0..4 {
        let add = execute(&(depth + 1).to_string(), &depth.to_string());
        assert_eq!(brief(&s.submit(add)), "accepted ready");
    }
    // Five deep is followed, six are not.
    s.submit(execute("5", "4")).unwrap();
    let last = s.lines[s.lines.len() - 2].clone();
    assert_eq!(label(&parse(&last)), "step.added 5:1");
    let seq = s.lines.len() + 1;
    let deeper = last
        .replace(&format!("\"seq\":{}", seq - 2), &format!("\"seq\":{seq}"))
        .replace(r#""parentStepId":"4""#, r#""parentStepId":"5""#)
        .replace(r#""stepId":"5""#, r#""stepId":"6""#);
    refuse(&mut s, &[], &deeper);
    s.rebuild();
}

/// Texts that no call brings in, and texts with another digest than theirs.
#[test]
fn r_64_configurations_and_plans_that_no_call_takes_are_found() {
    let mut s = Scenario::new();
    let with_digest = |line: &str, name: &str, from: &str, to: &str| {
        let begin = line.find(&format!("\"{name}\":{{")).expect("it is there");
        let end = line
            .find(&format!(",\"{name}Digest\""))
            .expect("it has one");
        let begin = begin + name.len() + 3;
        let text = line[begin..end].replace(from, to);
        assert_ne!(text, line[begin..end], "{from}");
        let digest = sha256_hex(&[text.as_bytes()]);
        let rest = &line[end..];
        let old = rest.find("Digest\":\"").expect("it has one") + 9;
        let rest = [&rest[..old], &digest, &rest[old + 64..]].concat();
        [&line[..begin], &text, &rest].concat()
    };
    let other = |line: &str, name: &str| {
        let at = line
            .find(&format!("\"{name}Digest\":\""))
            .expect("it has one");
        let at = at + name.len() + 10;
        [&line[..at], DIGEST, &line[at + 64..]].concat()
    };
    let genesis = s.lines[0].clone();
    let head = format!(",\"prevDomainHead\":\"{DIGEST}\"}},\"prev\"");
    let mut blank = Scenario::blank();
    for changed in [
        other(&genesis, "config"),
        with_digest(&genesis, "config", "\"maxInFlight\":4", "\"maxInFlight\":0"),
        genesis.replace("},\"prev\"", &head),
    ] {
        refuse(&mut blank, &[], &changed);
    }
    let config = config_text(&{
        let mut config = qm2_core::config::Config::new("d");
        config.phase1.enabled = true;
        config.max_in_flight = 5;
        config
    });
    let next = next_lines(&s, &Call::Configure { config });
    for changed in [
        other(&next[0], "config"),
        with_digest(&next[0], "config", "\"maxInFlight\":5", "\"maxInFlight\":0"),
        with_digest(&next[0], "config", "\"domain\":\"d\"", "\"domain\":\"e\""),
    ] {
        refuse(&mut s, &[], &changed);
    }
    let call = submit_plan(&s, &plan([step("a"), step("b").after("a")]));
    let next = next_lines(&s, &call);
    for changed in [
        other(&next[0], "plan"),
        // It waits for itself.
        with_digest(
            &next[0],
            "plan",
            r#""dependsOn":[{"stepId":"a""#,
            r#""dependsOn":[{"stepId":"b""#,
        ),
    ] {
        refuse(&mut s, &[], &changed);
    }
    s.rebuild();
}

// ---- claims ----

#[test]
fn r_64_grants_and_dispatches_that_the_state_does_not_give_are_found() {
    let mut s = Scenario::new();
    let a = step("a").claims("file:x").claims("file:y");
    let call = submit_plan(&s, &plan([a, step("b").claims("file:z").after("a")]));
    let rows = [
        ("file:x", "file:z"),
        (r#""mode":"exclusive""#, r#""mode":"shared""#),
        (r#""session":"agent:a""#, r#""session":"agent:b""#),
        (r#""expiresMs":60000"#, r#""expiresMs":60001"#),
        (r#""leaseMs":60000"#, r#""leaseMs":60001"#),
        (r#""claimNumber":3"#, r#""claimNumber":2"#),
        (r#""stepId":"a""#, r#""stepId":"b""#),
        (r#""attempt":1"#, r#""attempt":2"#),
    ];
    find(&mut s, &call, "claim.granted a:1", &rows);
    let (x, y) = (
        r#"{"resource":"file:x","token":3}"#,
        r#"{"resource":"file:y","token":4}"#,
    );
    let both = format!("[{x},{y}]");
    let rows = [
        format!("[{y},{x}]"),
        format!("[{x},{x}]"),
        format!("[{x}]"),
        format!("[{x},{}]", y.replace('4', "3")),
        format!("[{},{y}]", x.replace("file:x", "file:w")),
    ];
    let rows = rows.each_ref().map(|to| (both.as_str(), to.as_str()));
    find(&mut s, &call, "step.dispatched a:1", &rows);
}

#[test]
fn r_64_renewals_releases_and_ends_of_leases_that_are_none_are_found() {
    let mut s = Scenario::new();
    let of = |resource: &str, lease_ms: u64| json!({"resource": resource, "leaseMs": lease_ms});
    let a = step("a")
        .claim(of("file:x", 5_000))
        .claim(of("file:y", 9_000));
    s.plan(plan([a, step("b").claims("file:z")]));
    let (x, y) = (s.seq("claim.granted a:1") - 1, s.seq("claim.granted a:1"));
    let z = s.token("b", 1);
    s.ack("a", 1);
    s.now_ms = 100;
    let call = submit(&s, vec![progress("a", 1, 1)]);
    let tokens = format!(r#""tokens":[{x}]"#);
    let (both, other) = (
        format!(r#""tokens":[{x},{y}]"#),
        format!(r#""tokens":[{z}]"#),
    );
    let rows = [
        (r#""expiresMs":5100"#, r#""expiresMs":5101"#),
        (tokens.as_str(), both.as_str()),
        (tokens.as_str(), other.as_str()),
    ];
    find(&mut s, &call, "claim.renewed a:1", &rows);
    let call = Call::Advance { now_ms: 5_000 };
    let token = format!(r#""token":{x}"#);
    let (next, foreign) = (format!(r#""token":{y}"#), format!(r#""token":{z}"#));
    let rows = [
        (token.as_str(), next.as_str()),
        (token.as_str(), foreign.as_str()),
        ("file:x", "file:y"),
        (r#""atMs":5000"#, r#""atMs":4999"#),
    ];
    find(&mut s, &call, "claim.expired a:1", &rows);
    let call = submit(&s, vec![done("a", 1, "")]);
    let rows = [
        (both.as_str(), other.as_str()),
        (both.as_str(), tokens.as_str()),
        (both.as_str(), r#""tokens":[]"#),
        (r#""attempt":1"#, r#""attempt":2"#),
    ];
    find(&mut s, &call, "claim.released a:1", &rows);
    // While a person is asked, leases neither run out nor begin anew.
    s.plan(plan([step("d").claims("file:d")]).set("coordinationId", "d"));
    let mut s = Scenario::new();
    s.plan(plan([step("a").claim(of("file:x", 5_000))]).hitl());
    s.ask("a", 1, 1);
    s.now_ms = 6_000;
    let rows = [
        ("claim.expired", "a", 1, r#""token":3,"resource":"file:x""#),
        ("claim.renewed", "a", 1, r#""tokens":[3],"expiresMs":11000"#),
    ];
    refuse_all(&mut s, &rows);
}

fn both() -> [Json; 2] {
    [step("a").claims("file:x"), step("b").claims("file:x")]
}

/// R-42, R-46: nothing is granted beside what bars it.
#[test]
fn r_64_grants_beside_others_that_bar_them_are_found() {
    let part = |id: &str, base: &str, from: u64, to: u64| {
        let regions = json!([{"start": from, "end": to}]);
        let claim = json!({"resource": "file:x", "leaseMs": 60_000, "baseVersion": base, "regions": regions});
        step(id).claim(claim)
    };
    let merges = "merge_if_safe";
    for (strategy, b) in [
        ("owner_wins", part("b", "1", 10, 20)),
        (merges, part("b", "1", 5, 20)),
        (merges, part("b", "2", 10, 20)),
    ] {
        let mut s = Scenario::new();
        s.plan(
            plan([part("a", "1", 0, 10), b.clone()])
                .strategy(strategy)
                .owner("file:x", "agent:b"),
        );
        assert_eq!(s.step_state("b"), "waiting_claim");
        let number = s.seq("conflict.detected b:1");
        let claim = &b.0["claims"][0];
        let (base, regions) = (&claim["baseVersion"], &claim["regions"]);
        let data = format!(
            r#""resource":"file:x","mode":"exclusive","session":"agent:b","leaseMs":60000,"expiresMs":60000,"claimNumber":{number},"baseVersion":{base},"regions":[{{"start":{},"end":20}}]"#,
            regions[0]["start"]
        );
        refuse_all(&mut s, &[("claim.granted", "b", 1, &data)]);
    }
}

/// R-43: a person can only put first what was under review.
#[test]
fn r_64_decisions_of_people_that_are_none_of_theirs_are_found() {
    let mut s = Scenario::new();
    let call = submit_plan(&s, &plan(both()));
    let rows = [
        (r#""stage":"strategy""#, r#""stage":"human""#),
        (r#""stage":"strategy""#, r#""stage":"hook""#),
        (r#""outcome":"waits""#, r#""outcome":"preempts""#),
        (
            r#""strategy":"owner_wins""#,
            r#""strategy":"priority_wins""#,
        ),
    ];
    find(&mut s, &call, "conflict.resolved b:1", &rows);
    let call = submit_plan(&s, &plan(both()).hitl().strategy("manual_review"));
    let review = r#""outcome":"review","order":0"#;
    let rows = [
        (review, r#""outcome":"waits","order":0"#),
        (review, r#""outcome":"waits","order":1"#),
        (review, r#""outcome":"preempts","order":1"#),
    ];
    find(&mut s, &call, "conflict.resolved b:1", &rows);
}

/// R-43: a hook can only refuse or ask.
#[test]
fn r_64_decisions_of_hooks_that_are_none_of_theirs_are_found() {
    let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeArbitrate]);
    s.plan(plan(both()));
    let hook_id = s.asks[0].hook_id.clone();
    let call = Call::Verdict {
        now_ms: 5,
        hook_id,
        handler: "g".into(),
        verdict: HookVerdict::Deny("no".into()),
    };
    let refused = r#""outcome":"refused","order":0"#;
    let rows = [
        (refused, r#""outcome":"waits","order":1"#),
        (refused, r#""outcome":"waits","order":0"#),
        (refused, r#""outcome":"granted","order":1"#),
    ];
    find(&mut s, &call, "conflict.resolved b:1", &rows);
}

// ---- hooks and people ----

#[test]
fn r_64_requests_to_hooks_that_the_state_does_not_give_are_found() {
    let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeDispatch]);
    let call = submit_plan(&s, &plan([step("a"), step("b").after("a")]));
    let next = next_lines(&s, &call);
    let digest = parse(&next[1])["data"]["subjectDigest"].clone();
    let digest = digest.as_str().expect("it has one").to_owned();
    let rows = [
        (r#""hookId":"h3""#, r#""hookId":"h2""#),
        (
            r#""kind":"before_dispatch""#,
            r#""kind":"before_arbitrate""#,
        ),
        (digest.as_str(), DIGEST),
        (r#""dueMs":15000"#, r#""dueMs":15001"#),
        (r#""stepId":"a""#, r#""stepId":"b""#),
    ];
    find(&mut s, &call, "hook.requested a:1", &rows);
    s.plan(plan([step("a"), step("b").after("a")]));
    let call = Call::Verdict {
        now_ms: 5,
        hook_id: "h3".into(),
        handler: "g".into(),
        verdict: HookVerdict::NoOpinion,
    };
    let rows = [
        (r#""hookId":"h3""#, r#""hookId":"h4""#),
        (r#""stepId":"a""#, r#""stepId":"b""#),
    ];
    find(&mut s, &call, "hook.verdict a:1", &rows);
}

/// Step `a` fails for good, and two people of two levels are asked one after the other.
fn levels() -> Scenario {
    let mut s = Scenario::new();
    let levels = json!([
        {"sessions": ["user:dana"], "minRole": "operator", "timeoutMs": 10_000},
        {"sessions": ["user:eve"], "minRole": "admin", "timeoutMs": 20_000},
    ]);
    let human = json!({"levels": levels, "requiredApprovals": 2});
    s.plan(plan([step("a"), step("b")]).human(human));
    s.now_ms = 100;
    s
}

#[test]
fn r_64_questions_that_the_plan_does_not_ask_are_found() {
    let mut s = levels();
    let call = submit(&s, vec![failed("a", 1, FailureClass::Retryable, "x")]);
    let next = next_lines(&s, &call);
    let seq = parse(&next[0])["seq"].clone();
    let id = format!(r#""escalationId":"e{seq}""#);
    let rows = [
        (id.as_str(), r#""escalationId":"e2""#),
        (r#""kind":"exhausted""#, r#""kind":"review""#),
        (r#""kind":"exhausted""#, r#""kind":"conflict""#),
    ];
    find(&mut s, &call, "coordination.escalated a:1", &rows);
    let rows = [
        (id.as_str(), r#""escalationId":"e2""#),
        (r#""level":1"#, r#""level":2"#),
        (r#""level":1"#, r#""level":0"#),
        (r#""minRole":"operator""#, r#""minRole":"admin""#),
        (r#""dueMs":10100"#, r#""dueMs":10101"#),
        (r#""stepId":"a""#, r#""stepId":"b""#),
    ];
    find(&mut s, &call, "human.requested a:1", &rows);
    // Nobody is asked under none, nor about what is stopped.
    let rows = |s: &Scenario| {
        let id = s.lines.len() + 1;
        format!(
            r#""escalationId":"e{id}","kind":"exhausted","question":"?","digest":"{DIGEST}","levels":[]"#
        )
    };
    let mut none = Scenario::new();
    none.plan(plan([step("a")]));
    let data = rows(&none);
    refuse_all(&mut none, &[("coordination.escalated", "a", 1, &data)]);
    s.cancel_step("a");
    let data = rows(&s);
    refuse_all(&mut s, &[("coordination.escalated", "a", 1, &data)]);
}

#[test]
fn r_64_answers_and_silence_that_say_something_else_are_found() {
    let mut s = levels();
    s.fail("a", 1, FailureClass::Retryable, "x");
    let (id, _) = s.question("a");
    let id = format!(r#""escalationId":"{id}""#);
    let call = answer(&s, "user:dana", HumanVerdict::Approve);
    let rows = [
        (id.as_str(), r#""escalationId":"e2""#),
        (r#""final":false"#, r#""final":true"#),
        (r#""verdict":"approve""#, r#""verdict":"deny""#),
        (r#""stepId":"a""#, r#""stepId":"b""#),
    ];
    find(&mut s, &call, "human.decided a:1", &rows);
    let advance = Call::Advance { now_ms: 10_100 };
    let rows = [
        (id.as_str(), r#""escalationId":"e2""#),
        (r#""level":1"#, r#""level":2"#),
        (r#""level":1"#, r#""level":1,"fallback":"deny""#),
        (r#""stepId":"a""#, r#""stepId":"b""#),
    ];
    find(&mut s, &advance, "human.expired a:1", &rows);
    s.say(
        caller_as("user:dana", qm2_core::message::Role::Operator),
        "a",
        HumanVerdict::Approve,
        None,
    );
    let call = answer(&s, "user:fay", HumanVerdict::Approve);
    let rows = [
        (r#""actor":"user:fay""#, r#""actor":"user:dana""#),
        (r#""final":true"#, r#""final":false"#),
    ];
    find(&mut s, &call, "human.decided a:1", &rows);
    s.advance(10_100);
    let advance = Call::Advance { now_ms: 30_100 };
    let rows = [
        (r#""fallback":"deny""#, r#""fallback":"allow""#),
        (r#""fallback":"deny","#, ""),
        (r#""level":2"#, r#""level":1"#),
    ];
    find(&mut s, &advance, "human.expired a:1", &rows);
}

// ---- ends, retries and reports ----

#[test]
fn r_64_retries_that_the_plan_does_not_have_are_found() {
    let retry = |free: bool, due_ms: u64, next: u32, left: u32| {
        format!(
            r#""class":"host_lost","code":"host_lost","message":"","dueMs":{due_ms},"nextAttempt":{next},"free":{free},"budgetLeft":{left}"#
        )
    };
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).set("deadlineMs", 5_000));
    s.now_ms = 10;
    let rows = [
        retry(false, 10, 2, 0),
        retry(true, 5_000, 2, 0),
        retry(true, 10, 2, 1),
        retry(true, 10, 3, 0),
    ];
    let rows = rows
        .each_ref()
        .map(|data| ("step.retry_scheduled", "a", 1, data.as_str()));
    refuse_all(&mut s, &rows);
    for attempt in 1..=3 {
        s.notice("a", attempt, NoticeKind::HostLost);
    }
    let fourth = retry(true, 10, 5, 0);
    refuse_all(&mut s, &[("step.retry_scheduled", "a", 4, &fourth)]);
}

#[test]
fn r_64_stops_that_are_none_are_found() {
    let mut s = Scenario::with(|config| config.max_in_flight = 2);
    let steps = [
        step("a"),
        step("b"),
        step("c").after("b"),
        step("k").after("b").set("cleanup", true),
        step("r"),
    ];
    s.plan(plan(steps).fail_fast());
    let skip = r#""reason":"fail_fast","dependsOn":[]"#;
    refuse_all(&mut s, &[("step.skipped", "r", 1, skip)]);
    let call = submit(&s, vec![failed("a", 1, FailureClass::Permanent, "x")]);
    let rows = [
        (r#""stepId":"c""#, r#""stepId":"b""#),
        (r#""stepId":"c""#, r#""stepId":"k""#),
        (r#""stepId":"c""#, r#""stepId":"a""#),
    ];
    find(&mut s, &call, "step.skipped c:1", &rows);
    s.fail("a", 1, FailureClass::Permanent, "x");
    let call = Call::Advance { now_ms: 15_000 };
    let rows = [
        (r#""by":"fail_fast""#, r#""by":"cancel""#),
        (r#""graceUsed":true"#, r#""graceUsed":false"#),
        (r#""stepId":"b""#, r#""stepId":"a""#),
    ];
    find(&mut s, &call, "step.cancelled b:1", &rows);
}

#[test]
fn r_64_words_on_reports_that_are_not_awaited_like_that_are_found() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.plan(plan([step("z")]).set("coordinationId", "d"));
    s.done("a", 1, "");
    let key = format!("report:{}", s.lines.len());
    let call = Call::Acknowledge {
        caller: caller(OWNER),
        now_ms: 0,
        keys: vec![key.clone()],
    };
    let wanted = format!("message.acknowledged {key}");
    let rows = [
        (r#""coordinationId":"c""#, r#""coordinationId":"d""#),
        (key.as_str(), "report:2"),
    ];
    find(&mut s, &call, &wanted, &rows);
    let call = Call::Advance { now_ms: 30_000 };
    let wanted = format!("message.redelivered {key}");
    let next = next_lines(&s, &call);
    let at = next.iter().position(|line| label(&parse(line)) == wanted);
    let at = at.expect("it is sent again");
    for (from, to) in [
        (r#""delivery":2"#, r#""delivery":3"#),
        (r#""coordinationId":"c""#, r#""coordinationId":"d""#),
    ] {
        refuse(&mut s, &next[..at], &next[at].replace(from, to));
    }
    s.rebuild();
}

/// R-10: at most sixteen are kept an attempt.
#[test]
fn r_64_more_inputs_kept_than_an_attempt_may_keep_are_found() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]).hitl());
    s.ask("b", 1, 1);
    // The attempt that asks goes on.
    let late = |step: &str, number: usize| {
        format!(
            r#""intent":"report","part":"progress:{number}","sourceSession":"agent:{step}","code":"late","contentDigest":"{DIGEST}""#
        )
    };
    let ask = late("b", 1);
    refuse_all(&mut s, &[("input.late", "b", 1, &ask)]);
    let others = (0..16).map(|_| ack("a", 1).by("agent:z")).collect();
    let answers = s.submit_all(caller("agent:z"), others);
    assert!(answers.iter().all(Result::is_err));
    let rejected = format!(
        r#""intent":"ack","part":"","sourceSession":"agent:z","code":"unauthorized-session","contentDigest":"{DIGEST}""#
    );
    refuse_all(&mut s, &[("input.rejected", "a", 1, &rejected)]);
    s.done("a", 1, "");
    let others = (1..=16).map(|number| progress("a", 1, number)).collect();
    s.submit_all(caller("agent:a"), others);
    let data = late("a", 17);
    refuse_all(&mut s, &[("input.late", "a", 1, &data)]);
}
