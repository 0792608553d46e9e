//! Claims at dispatch and their order.
//!
//! Who comes first under which policy is in `arbitration.rs`, what becomes of a lease in `lease.rs`.

use crate::support::*;
use qm2_core::claim::{ClaimRequest, Mode};
use qm2_core::envelope::FailureClass;
use qm2_core::receipt::Remedy;
use serde_json::json;

const RETRYABLE: FailureClass = FailureClass::Retryable;

/// What takes a step out of the order.
type Leave = fn(&mut Scenario);

/// Two steps that want the same file; `a` has it.
fn contested() -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").claims("file:x"),
        step("b").claims("file:x"),
    ]));
    s.expect(&[
        "coordination.created",
        "claim.granted a:1",
        "step.dispatched a:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
    ]);
    s.expect_out(&["c:a:1#1 control"]);
    s
}

#[test]
fn r_41_claims_are_taken_at_dispatch_and_travel_with_the_step() {
    let mut s = contested();
    let granted = s.data("claim.granted a:1");
    let token = s.token("a", 1);
    assert_eq!(
        granted,
        json!({"resource": "file:x", "mode": "exclusive", "session": "agent:a", "leaseMs": 60_000,
            "expiresMs": 60_000, "claimNumber": token})
    );
    assert_eq!(s.cause("claim.granted a:1"), "coordination.created");
    let tokens = json!([{"resource": "file:x", "token": token}]);
    assert_eq!(s.data("step.dispatched a:1")["tokens"], tokens);
    let sent = &s.message("c:a:1").envelope.tokens;
    assert_eq!(
        (sent[0].resource.as_str(), sent[0].token),
        ("file:x", token)
    );
    assert_eq!(s.step_state("b"), "waiting_claim");
    // The end gives it back, and the next in the order has it with no contest of its own.
    s.done("a", 1, "");
    s.expect(&[
        "step.completed a:1",
        "claim.released a:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
    assert_eq!(
        s.data("claim.released a:1"),
        json!({"tokens": [token], "reason": "ended"})
    );
    assert_eq!(s.cause("claim.released a:1"), "step.completed a:1");
    assert_eq!(s.cause("claim.granted b:1"), "conflict.detected b:1");
    assert!(s.token("b", 1) > token);
}

#[test]
fn r_41_all_or_nothing_over_sorted_names() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").claims("file:m"),
        step("b").claims("file:z").claims("file:m").claims("file:b"),
        step("c").claims("file:z"),
    ]));
    // b takes none of the two that are free, and c does not pass it.
    assert_eq!(s.holds("b"), [""; 0]);
    assert_eq!(s.step_state("b"), "waiting_claim");
    assert_eq!(s.step_state("c"), "waiting_claim");
    let met = &s.data("conflict.detected c:1")["holders"];
    assert_eq!(met[0]["stepId"], "b");
    assert!(met[0].get("token").is_none(), "b waits");
    s.seen();
    s.done("a", 1, "");
    s.expect(&[
        "step.completed a:1",
        "claim.released a:1",
        "claim.granted b:1",
        "claim.granted b:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
    assert_eq!(s.holds("b"), ["file:b", "file:m", "file:z"]);
    let tokens = s.data("step.dispatched b:1")["tokens"].clone();
    let tokens = tokens.as_array().expect("a list");
    let names: Vec<&str> = tokens
        .iter()
        .filter_map(|t| t["resource"].as_str())
        .collect();
    assert_eq!(names, ["file:b", "file:m", "file:z"]);
    assert!(tokens[0]["token"].as_u64() < tokens[2]["token"].as_u64());
    assert_eq!(s.step_state("c"), "waiting_claim");
    s.done("b", 1, "");
    s.expect(&[
        "step.completed b:1",
        "claim.released b:1",
        "claim.granted c:1",
        "step.dispatched c:1",
    ]);
    let released = s.data("claim.released b:1")["tokens"].clone();
    assert_eq!(released.as_array().map(Vec::len), Some(3));
}

#[test]
fn r_41_a_running_step_claims_more_and_only_tries() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x"), step("b")]));
    s.ack("a", 1);
    s.ack("b", 1);
    s.now_ms = 59_500;
    s.seen();
    let refused = s.claim(request("b", 1, "file:x")).unwrap_err();
    // Until the lease ends; and never longer than a second.
    assert_eq!(
        brief_rejection(&refused),
        "claim-refused resource retry(500)"
    );
    assert!(
        refused
            .message
            .contains("held by a of c in session agent:a"),
        "{refused}"
    );
    s.expect(&[]);
    s.now_ms = 1_000;
    let refused = s.claim(request("b", 1, "file:x")).unwrap_err();
    assert_eq!(refused.next, Remedy::Retry { after_ms: 1_000 });
    // What is free is granted at once, under the same number ever after.
    let granted = s.claim(request("b", 1, "file:y")).unwrap();
    s.expect(&["claim.granted b:1"]);
    s.expect_out(&[]);
    assert_eq!(
        (granted.token, granted.expires_ms),
        (s.token("b", 1), 61_000)
    );
    assert_eq!(s.cause("claim.granted b:1"), "step.acknowledged b:1");
    let number = s.data("claim.granted b:1")["claimNumber"].clone();
    assert_eq!(number, granted.token);
    s.claim(request("b", 1, "file:z")).unwrap();
    s.seen();
    assert_eq!(s.data("claim.granted b:1")["claimNumber"], number);
    s.done("b", 1, "");
    s.expect(&["step.completed b:1", "claim.released b:1"]);
}

#[test]
fn r_41_claiming_again_gives_the_same_grant() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x")]));
    let token = s.token("a", 1);
    s.seen();
    s.now_ms = 10;
    let again = s.claim(request("a", 1, "file:./x")).unwrap();
    assert_eq!((again.token, again.expires_ms), (token, 60_000));
    s.expect(&[]);
    // A part of what it holds in another way is another grant.
    let shared = ClaimRequest {
        mode: Mode::Shared,
        ..request("a", 1, "file:x")
    };
    let other = s.claim(shared).unwrap();
    assert!(other.token > token);
    s.expect(&["claim.granted a:1"]);
}

#[test]
fn r_41_an_extra_claim_passes_nobody_who_waits() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").claims("file:x"),
        step("b").claims("file:x").claims("file:y"),
        step("c"),
    ]));
    let refused = s.claim(request("c", 1, "file:y")).unwrap_err();
    assert!(refused.message.contains("awaited by b of c"), "{refused}");
    assert_eq!(
        brief_rejection(&refused),
        "claim-refused resource retry(1000)"
    );
}

#[test]
fn r_41_only_the_running_attempts_session_claims_more() {
    let mut s = contested();
    let refuse = |s: &mut Scenario, session: &str, request: ClaimRequest| {
        brief_rejection(&s.claim_as(session, request).unwrap_err())
    };
    let ask = || request("a", 1, "file:q");
    assert_eq!(
        refuse(&mut s, "agent:b", ask()),
        "unauthorized-session caller ask"
    );
    let later = ClaimRequest {
        attempt: 2,
        ..ask()
    };
    assert_eq!(
        refuse(&mut s, "agent:a", later),
        "unknown-attempt attempt fix"
    );
    let waiting = request("b", 1, "file:q");
    assert_eq!(
        refuse(&mut s, "agent:b", waiting),
        "not-running attempt stop"
    );
    let other = ClaimRequest {
        coordination_id: "d".into(),
        ..ask()
    };
    assert_eq!(
        refuse(&mut s, "agent:a", other),
        "unknown-coordination coordinationId fix"
    );
    assert_eq!(
        refuse(&mut s, "agent:a", request("a", 1, "x")),
        "invalid-field resource fix"
    );
    s.expect(&[]);
    s.done("a", 1, "");
    s.seen();
    assert_eq!(refuse(&mut s, "agent:a", ask()), "not-running attempt stop");
    s.expect(&[]);
}

#[test]
fn r_42_same_kind_and_equal_or_containing_paths_overlap() {
    for (a, b, overlap) in [
        ("file:src/lib.rs", "file:src/lib.rs", true),
        ("file:src//./lib.rs", "file:src/lib.rs", true),
        ("file:src", "file:src/lib.rs", true),
        ("file:src/lib.rs", "file:src", true),
        ("file:src/", "file:src/a/b/c", true),
        ("file:", "file:src/lib.rs", true),
        ("file:/", "file:/etc/passwd", true),
        ("file:src", "file:srclib", false),
        ("file:src/a", "file:src/b", false),
        ("file:src/a", "file:src/ab/c", false),
        ("file:SRC", "file:src", false),
        ("queue:src", "file:src", false),
        ("file:/src", "file:src", false),
        ("file:/", "file:src", false),
    ] {
        let mut s = Scenario::new();
        s.plan(plan([step("a").claims(a), step("b").claims(b)]));
        let state = if overlap {
            "waiting_claim"
        } else {
            "dispatched"
        };
        assert_eq!(s.step_state("b"), state, "{a} and {b}");
    }
}

#[test]
fn r_42_shared_with_shared_does_not_conflict() {
    for (a, b, conflict) in [
        ("shared", "shared", false),
        ("shared", "exclusive", true),
        ("exclusive", "shared", true),
        ("exclusive", "exclusive", true),
    ] {
        let claim = |mode: &str| json!({"resource": "file:x", "mode": mode, "leaseMs": 60_000});
        let mut s = Scenario::new();
        s.plan(plan([step("a").claim(claim(a)), step("b").claim(claim(b))]));
        let state = if conflict {
            "waiting_claim"
        } else {
            "dispatched"
        };
        assert_eq!(s.step_state("b"), state, "{a} and {b}");
    }
}

#[test]
fn r_42_readers_go_together_and_pass_no_writer_who_waits() {
    let reads = |id: &str| {
        step(id).claim(json!({"resource": "file:x", "mode": "shared", "leaseMs": 60_000}))
    };
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    s.plan(plan([
        reads("a"),
        reads("b"),
        step("c").claims("file:x"),
        reads("d"),
        reads("e"),
    ]));
    let states: Vec<String> = ["a", "b", "c", "d", "e"].map(|id| s.step_state(id)).into();
    assert_eq!(
        states,
        [
            "dispatched",
            "dispatched",
            "waiting_claim",
            "waiting_claim",
            "waiting_claim"
        ]
    );
    s.seen();
    s.done("a", 1, "");
    s.expect(&["step.completed a:1", "claim.released a:1"]);
    s.done("b", 1, "");
    s.expect(&[
        "step.completed b:1",
        "claim.released b:1",
        "claim.granted c:1",
        "step.dispatched c:1",
    ]);
    s.done("c", 1, "");
    s.expect(&[
        "step.completed c:1",
        "claim.released c:1",
        "claim.granted d:1",
        "step.dispatched d:1",
        "claim.granted e:1",
        "step.dispatched e:1",
    ]);
}

#[test]
fn r_43_the_newcomer_contends_with_whom_it_overlaps() {
    let mut s = contested();
    let token = s.token("a", 1);
    let detected = s.data("conflict.detected b:1");
    let number = s.seq("conflict.detected b:1");
    assert_eq!(
        detected,
        json!({
            "contestId": format!("c{number}"),
            "resource": "file:x",
            "contenders": [{"coordinationId": "c", "stepId": "b", "attempt": 1, "session": "agent:b",
                "priority": "normal", "claimNumber": number, "mode": "exclusive"}],
            "holders": [{"coordinationId": "c", "stepId": "a", "attempt": 1, "session": "agent:a",
                "priority": "normal", "claimNumber": token, "mode": "exclusive", "token": token,
                "expiresMs": 60_000, "preemptible": true}],
            "policy": {"default": "owner_wins", "rules": [], "owners": [], "highRisk": [], "preempt": false},
        })
    );
    assert_eq!(s.cause("conflict.detected b:1"), "coordination.created");
    assert_eq!(s.cause("conflict.resolved b:1"), "conflict.detected b:1");
    let resolved = s.data("conflict.resolved b:1");
    assert_eq!(resolved["contestId"], detected["contestId"]);
    assert_eq!(
        (&resolved["stage"], &resolved["strategy"]),
        (&json!("strategy"), &json!("owner_wins"))
    );
    assert_eq!(
        resolved["outcomes"],
        json!([{"stepId": "b", "outcome": "waits", "order": 1}])
    );
    s.seen();
}

#[test]
fn r_43_the_first_to_meet_a_free_resource_has_no_contest() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x")]));
    s.expect(&[
        "coordination.created",
        "claim.granted a:1",
        "step.dispatched a:1",
    ]);
}

#[test]
fn r_43_one_adjacent_pair_a_contested_resource_in_name_order() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").claims("file:z").claims("file:b").claims("file:m"),
        step("b").claims("file:z").claims("file:f").claims("file:b"),
    ]));
    s.expect(&[
        "coordination.created",
        "claim.granted a:1",
        "claim.granted a:1",
        "claim.granted a:1",
        "step.dispatched a:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
    ]);
    let detected: Vec<serde_json::Value> = s
        .lines
        .iter()
        .map(|line| parse(line))
        .filter(|record| record["type"] == "conflict.detected")
        .collect();
    assert_eq!(detected[0]["data"]["resource"], "file:b");
    assert_eq!(detected[1]["data"]["resource"], "file:z");
    // Both under the number of the first.
    let number = &detected[0]["data"]["contenders"][0]["claimNumber"];
    assert_eq!(&detected[1]["data"]["contenders"][0]["claimNumber"], number);
    assert_eq!(*number, detected[0]["seq"]);
}

#[test]
fn r_43_any_refused_refuses_the_step_else_any_review_asks() {
    // file:h is reviewed, which is a refusal where nobody can be asked; file:x alone would only wait.
    let steps = || {
        [
            step("a").claims("file:h").claims("file:x"),
            step("b").claims("file:h").claims("file:x"),
        ]
    };
    let policy = json!({"highRisk": ["file:h"]});
    let mut s = Scenario::new();
    s.plan(plan(steps()).set("conflictPolicy", policy.clone()));
    s.expect(&[
        "coordination.created",
        "claim.granted a:1",
        "claim.granted a:1",
        "step.dispatched a:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
        "step.failed b:1",
    ]);
    assert_eq!(s.data("step.failed b:1")["code"], "conflict_unresolved");
    assert_eq!(s.cause("step.failed b:1"), "conflict.resolved b:1");
    let mut s = Scenario::new();
    s.plan(plan(steps()).set("conflictPolicy", policy).hitl());
    s.expect(&[
        "coordination.created",
        "claim.granted a:1",
        "claim.granted a:1",
        "step.dispatched a:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
        "coordination.escalated b:1",
        "human.requested b:1",
    ]);
    assert_eq!(s.step_state("b"), "waiting_human");
    assert_eq!(s.data("coordination.escalated b:1")["kind"], "conflict");
    assert_eq!(
        s.cause("coordination.escalated b:1"),
        "conflict.resolved b:1"
    );
}

#[test]
fn r_43_the_newcomers_plan_asks() {
    let high = json!({"highRisk": ["file:h"]});
    let mut s = Scenario::with(|config| config.high_risk = vec!["file:h".into()]);
    s.plan(
        plan([step("a").claims("file:h")])
            .set("conflictPolicy", high.clone())
            .hitl(),
    );
    let other = plan([step("b").claims("file:h").set("targetSession", "agent:z")])
        .set("coordinationId", "e")
        .set("conflictPolicy", high);
    s.seen();
    // The first plan asks people, the newcomer's does not.
    s.plan(other);
    s.expect(&[
        "coordination.created e",
        "conflict.detected e/b:1",
        "conflict.resolved e/b:1",
        "step.failed e/b:1",
        "coordination.terminal e",
    ]);
}

#[test]
fn r_48_manual_review_where_nobody_is_asked_fails_the_contender() {
    let mut s = Scenario::new();
    let steps = [step("a").claims("file:x"), step("b").claims("file:x")];
    s.plan(plan(steps).strategy("manual_review"));
    assert_eq!(
        s.data("conflict.resolved b:1")["outcomes"],
        json!([{"stepId": "b", "outcome": "refused", "order": 0}])
    );
    let failed = s.data("step.failed b:1");
    assert_eq!(
        (&failed["class"], &failed["code"], &failed["attempts"]),
        (
            &json!("permanent"),
            &json!("conflict_unresolved"),
            &json!(0)
        )
    );
    assert_eq!(s.step_state("a"), "dispatched");
}

#[test]
fn r_49_owner_wins_is_the_default_and_high_risk_is_reviewed() {
    let steps = || [step("a").claims("file:p/x"), step("b").claims("file:p/x")];
    let mut s = Scenario::new();
    s.plan(plan(steps()));
    assert_eq!(s.data("conflict.resolved b:1")["strategy"], "owner_wins");
    for (pattern, strategy) in [
        ("file:p/*", "manual_review"),
        ("file:**", "manual_review"),
        ("file:*", "priority_wins"),
    ] {
        let mut s = Scenario::new();
        // What a rule says does not count for what is of high risk.
        let policy = json!({"default": "owner_wins", "highRisk": [pattern],
            "rules": [{"resource": "file:p/x", "strategy": "priority_wins"}]});
        s.plan(plan(steps()).set("conflictPolicy", policy).hitl());
        assert_eq!(
            s.data("conflict.resolved b:1")["strategy"],
            strategy,
            "{pattern}"
        );
    }
}

// ---- R-50 ----

#[test]
fn r_50_a_lease_ends_with_its_attempt_and_the_retry_keeps_its_claim_number() {
    let mut s = Scenario::new();
    let steps = [
        step("a").claims("file:x"),
        step("b").claims("file:x"),
        step("c").claims("file:x"),
    ];
    s.plan(plan(steps).retries(3, &[0]));
    let (token, number) = (
        s.token("a", 1),
        s.data("claim.granted a:1")["claimNumber"].clone(),
    );
    s.seen();
    s.fail("a", 1, RETRYABLE, "x");
    s.expect(&[
        "step.retry_scheduled a:1",
        "claim.released a:1",
        "claim.granted b:1",
        "step.dispatched b:1",
        "conflict.detected a:2",
        "conflict.resolved a:2",
    ]);
    assert_eq!(s.cause("claim.released a:1"), "step.retry_scheduled a:1");
    assert_eq!(
        s.data("claim.released a:1"),
        json!({"tokens": [token], "reason": "ended"})
    );
    let newcomer = s.data("conflict.detected a:2")["contenders"][0].clone();
    assert_eq!(newcomer["claimNumber"], number);
    s.done("b", 1, "");
    assert_eq!(s.step_state("a"), "dispatched");
    assert_eq!(s.data("claim.granted a:2")["claimNumber"], number);
    assert!(s.token("a", 2) > s.token("b", 1));
    // It came back after c, and goes before it.
    assert_eq!(s.step_state("c"), "waiting_claim");
}

#[test]
fn r_50_race_of_release_and_newcomer_in_both_orders() {
    // First the end of the holder, then the newcomer: no contest. First the newcomer: it waits for the end.
    let newcomer = || plan([step("z").claims("file:x")]).set("coordinationId", "e");
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x")]));
    s.done("a", 1, "");
    s.seen();
    s.plan(newcomer());
    s.expect(&[
        "coordination.created e",
        "claim.granted e/z:1",
        "step.dispatched e/z:1",
    ]);

    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x")]));
    s.seen();
    s.plan(newcomer());
    s.expect(&[
        "coordination.created e",
        "conflict.detected e/z:1",
        "conflict.resolved e/z:1",
    ]);
    s.done("a", 1, "");
    s.expect(&[
        "step.completed a:1",
        "claim.released a:1",
        "claim.granted e/z:1",
        "step.dispatched e/z:1",
        "coordination.terminal",
    ]);
}

#[test]
fn r_50_nothing_is_granted_past_an_earlier_waiter_in_both_orders() {
    // b waits for both; c wants only what is free. Whoever comes first is first.
    let wide = || step("b").claims("file:x").claims("file:y");
    let narrow = || step("c").claims("file:y");
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x"), wide(), narrow()]));
    assert_eq!(s.step_state("c"), "waiting_claim");
    s.done("a", 1, "");
    assert_eq!(
        (s.step_state("b"), s.step_state("c")),
        ("dispatched".into(), "waiting_claim".into())
    );

    let mut s = Scenario::new();
    s.plan(plan([
        step("a").claims("file:x"),
        wide().after("d"),
        narrow(),
        step("d"),
    ]));
    assert_eq!(s.step_state("c"), "dispatched");
    s.done("d", 1, "");
    assert_eq!(s.step_state("b"), "waiting_claim");
    s.done("a", 1, "");
    assert_eq!(s.step_state("b"), "waiting_claim");
    s.done("c", 1, "");
    assert_eq!(s.step_state("b"), "dispatched");
}

#[test]
fn r_50_where_orders_cross_the_lowest_claim_number_of_the_circle_goes() {
    for first in ["b", "c"] {
        // b owns x, c owns y: each stands before the other on one of them.
        let wants = |id: &str| step(id).claims("file:x").claims("file:y");
        let (b, c) = if first == "b" {
            (wants("b"), wants("c").after("0"))
        } else {
            (wants("b").after("0"), wants("c"))
        };
        let mut s = Scenario::with(|config| config.max_in_flight = 9);
        let base = plan([step("0"), step("a").claims("file:x").claims("file:y"), b, c]);
        s.plan(base.owner("file:x", "agent:b").owner("file:y", "agent:c"));
        s.done("0", 1, "");
        assert_eq!(
            (s.step_state("b"), s.step_state("c")),
            ("waiting_claim".into(), "waiting_claim".into())
        );
        s.seen();
        s.done("a", 1, "");
        let (granted, out) = (
            format!("claim.granted {first}:1"),
            format!("step.dispatched {first}:1"),
        );
        s.expect(&[
            "step.completed a:1",
            "claim.released a:1",
            &granted,
            &granted,
            &out,
        ]);
        s.done(first, 1, "");
        let second = if first == "b" { "c" } else { "b" };
        assert_eq!(s.step_state(second), "dispatched");
    }
}

#[test]
fn r_50_a_circle_of_three_begins_with_its_lowest_number() {
    let wants = |id: &str, one: &str, two: &str| step(id).claims(one).claims(two);
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let all = step("a").claims("file:x").claims("file:y").claims("file:z");
    let base = plan([
        all,
        wants("b", "file:x", "file:y"),
        wants("c", "file:y", "file:z"),
        wants("d", "file:z", "file:x"),
    ]);
    let owned = base.owner("file:x", "agent:b").owner("file:y", "agent:c");
    s.plan(owned.owner("file:z", "agent:d"));
    s.done("a", 1, "");
    let states = |s: &mut Scenario| ["b", "c", "d"].map(|id| s.step_state(id));
    assert_eq!(
        states(&mut s),
        ["dispatched", "waiting_claim", "waiting_claim"]
    );
    // Now nobody stands before d, which stands before c.
    s.done("b", 1, "");
    assert_eq!(states(&mut s), ["completed", "waiting_claim", "dispatched"]);
    s.done("d", 1, "");
    assert_eq!(states(&mut s), ["completed", "dispatched", "completed"]);
}

#[test]
fn r_50_who_leaves_the_order_makes_way() {
    let leave: [(&str, Leave); 2] = [
        ("cancelled", |s| {
            s.cancel_step("b");
        }),
        ("timed_out", |s| s.advance(5_000)),
    ];
    for (ended, leave) in leave {
        let mut s = Scenario::new();
        // b bars y, which z of another plan wants.
        s.plan(plan([step("a").claims("file:x")]).set("coordinationId", "e"));
        let b = step("b").claims("file:x").claims("file:y");
        s.plan(plan([b, step("0")]).set("deadlineMs", 5_000));
        s.plan(plan([step("z").claims("file:y")]).set("coordinationId", "f"));
        assert_eq!(s.describe("f")["steps"][0]["state"], "waiting_claim");
        leave(&mut s);
        assert_eq!(s.step_state("b"), ended);
        assert_eq!(s.describe("f")["steps"][0]["state"], "dispatched");
    }
}

#[test]
fn r_41_while_a_person_is_asked_nothing_is_claimed_renewed_or_released() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x")]).hitl());
    s.ask("a", 1, 1);
    s.seen();
    let refused = s.claim(request("a", 1, "file:y")).unwrap_err();
    assert_eq!(brief_rejection(&refused), "not-running attempt stop");
    let refused = s.renew("a", 1, &[]).unwrap_err();
    assert_eq!(brief_rejection(&refused), "not-running attempt stop");
    assert_eq!(s.release("a", 1, &[]), "not-running attempt stop");
    s.expect(&[]);
}

#[test]
fn r_50_tokens_only_grow() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x"), step("b").claims("file:x")]).retries(9, &[0]));
    let mut last = 0;
    for attempt in 1..=3 {
        for id in ["a", "b"] {
            let token = s.token(id, attempt);
            assert!(token > last, "{id} {attempt}");
            last = token;
            s.fail(id, attempt, RETRYABLE, "x");
        }
    }
}

#[test]
fn explain_wait_says_who_holds_what_a_step_waits_for_and_its_place() {
    let mut s = Scenario::new();
    s.now_ms = 7;
    s.plan(plan([
        step("a").claims("file:x"),
        step("b").claims("file:x"),
        step("c").claims("file:x"),
    ]));
    let waits = s.waits_for("c");
    assert_eq!(waits["kind"], "claim");
    let token = s.token("a", 1);
    assert_eq!(
        waits["resources"],
        json!([{"resource": "file:x", "place": 2, "holders": [{"coordinationId": "c", "stepId": "a",
            "session": "agent:a", "token": token, "sinceMs": 7, "expiresMs": 60_007}]}])
    );
    assert_eq!(s.waits_for("b")["resources"][0]["place"], 1);
    let view = s.describe("c");
    let of = |id: &str| {
        let steps = view["steps"].as_array().expect("steps");
        steps
            .iter()
            .find(|entry| entry["stepId"] == id)
            .expect("it is there")
            .clone()
    };
    assert_eq!(
        of("a")["grants"],
        json!([{"resource": "file:x", "token": token, "mode": "exclusive",
        "sinceMs": 7, "expiresMs": 60_007}])
    );
    assert_eq!(of("b")["contests"][0]["outcome"], "waits");
}
