//! Who comes first, as the core carries decisions out.
//!
//! The pure function has a table of its own in guest/core/tests/arbitration.rs.

use crate::support::*;
use qm2_core::arbitration::{Contender, Contest, Owner, Policy, Strategy};
use qm2_core::claim::Mode;
use qm2_core::envelope::{FailureClass, Priority};
use qm2_core::message::NoticeKind;
use qm2_host::engine::{Answer, Call};
use serde_json::{Value, json};

/// Steps that want `file:x`, after `0`, which has it until it is done, is.
fn line(steps: impl IntoIterator<Item = Json>, change: impl FnOnce(Json) -> Json) -> Scenario {
    let mut s = Scenario::with(|config| config.max_in_flight = 20);
    let first = step("0").claims("file:x");
    let steps = steps.into_iter().map(|step| step.claims("file:x"));
    s.plan(change(plan(std::iter::once(first).chain(steps))));
    s.ack("0", 1);
    s.seen();
    s
}

/// The order in which steps get `file:x` when each gives it back at once.
fn order(s: &mut Scenario) -> Vec<String> {
    let mut order = Vec::new();
    let mut current = "0".to_owned();
    loop {
        s.seen();
        s.done(&current, 1, "");
        let labels = s.labels();
        let next = labels
            .iter()
            .rev()
            .take_while(|label| !label.starts_with("step.completed"));
        let Some(next) = next.into_iter().find_map(|label| {
            let of = label.strip_prefix("step.dispatched ")?;
            Some(of.split(':').next().unwrap_or_default().to_owned())
        }) else {
            return order;
        };
        order.push(next.clone());
        current = next;
    }
}

#[test]
fn r_44_without_an_owner_the_holder_keeps_and_waiters_go_in_claim_order() {
    let priority = |id: &str, priority: &str| step(id).set("priority", priority);
    // Priority decides who goes out first where there is a slot, and so who claims first; the order is that of the claims.
    let mut s = line([step("c"), step("b"), step("a")], |plan| plan);
    assert_eq!(s.step_state("0"), "acknowledged");
    assert_eq!(order(&mut s), ["a", "b", "c"]);
    // One who comes later does not pass, whatever its priority.
    let mut s = line([step("b"), priority("z", "critical").after("t")], |plan| {
        let mut plan = plan;
        plan.0["steps"]
            .as_array_mut()
            .expect("steps")
            .push(step("t").0);
        plan
    });
    s.done("t", 1, "");
    assert_eq!(order(&mut s), ["b", "z"]);
}

#[test]
fn r_44_the_owner_is_first_among_those_that_wait() {
    // By the policy, and by the step that declares it.
    let mut s = line([step("a"), step("b")], |plan| {
        plan.owner("file:*", "agent:b")
    });
    assert_eq!(s.data("conflict.resolved b:1")["stage"], "lease");
    assert_eq!(order(&mut s), ["b", "a"]);
    let owns = || step("b").set("owns", json!(["file:x"]));
    let mut s = line([step("a"), owns()], |plan| plan);
    assert_eq!(order(&mut s), ["b", "a"]);
    // What a step owns holds what lies in it.
    let mut s = line(
        [step("a"), step("b").set("owns", json!(["file:"]))],
        |plan| plan,
    );
    assert_eq!(order(&mut s), ["b", "a"]);
}

#[test]
fn r_45_priority_then_claim_then_coordination_then_step() {
    let priority = |id: &str, priority: &str| step(id).set("priority", priority);
    let steps = || {
        [
            priority("a", "low").after("1"),
            priority("b", "normal").after("1"),
            priority("d", "normal").after("1"),
            priority("e", "high").after("2"),
            priority("f", "critical").after("3"),
        ]
    };
    let gates = |plan: Json| {
        let mut plan = plan.strategy("priority_wins");
        for gate in ["1", "2", "3"] {
            plan.0["steps"]
                .as_array_mut()
                .expect("steps")
                .push(step(gate).0);
        }
        plan
    };
    let mut s = line(steps(), gates);
    // The lowest claim first.
    for gate in ["1", "2", "3"] {
        s.done(gate, 1, "");
    }
    assert_eq!(order(&mut s), ["f", "e", "b", "d", "a"]);
    assert_eq!(
        s.data("conflict.detected f:1")["policy"]["default"],
        "priority_wins"
    );
}

#[test]
fn r_45_priority_wins_leaves_a_live_lease() {
    let mut s = Scenario::new();
    let late = step("a")
        .set("priority", "critical")
        .claims("file:x")
        .after("1");
    s.plan(plan([step("0").claims("file:x"), step("1"), late]).strategy("priority_wins"));
    s.ack("0", 1);
    s.done("1", 1, "");
    s.seen();
    assert_eq!(s.step_state("a"), "waiting_claim");
    s.advance(1_000);
    s.expect(&[]);
}

/// Step `h`, of high priority, comes when `1` is done, and `0` holds what it wants.
fn preemption(change: impl Fn(Json) -> Json) -> Scenario {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let high = step("h")
        .set("priority", "high")
        .claims("file:x")
        .after("1");
    s.plan(
        plan([change(step("0").claims("file:x")), step("1"), high])
            .strategy("priority_wins")
            .preempt(),
    );
    s.ack("0", 1);
    s.seen();
    s.now_ms = 1_000;
    s.done("1", 1, "");
    s
}

#[test]
fn r_45_preempt_ends_the_holder_with_grace_and_retries_it_free_with_its_number() {
    let mut s = preemption(|step| step);
    let (token, number) = (
        s.token("0", 1),
        s.data("claim.granted 0:1")["claimNumber"].clone(),
    );
    s.expect(&[
        "step.completed 1:1",
        "conflict.detected h:1",
        "conflict.resolved h:1",
    ]);
    s.expect_out(&["cancel:c:0:1#1 control", "-c:1:1"]);
    assert_eq!(
        s.data("conflict.resolved h:1")["outcomes"][0]["outcome"],
        "preempts"
    );
    assert_eq!(s.message("cancel:c:0:1").envelope.attempt, Some(1));
    // The lease lives through the grace.
    assert!(
        s.check("file:x", "agent:0", token, qm2_core::claim::Access::Write)
            .allowed
    );
    s.advance(15_999);
    s.expect(&[]);
    s.advance(16_000);
    s.expect(&[
        "step.retry_scheduled 0:1",
        "claim.released 0:1",
        "claim.granted h:1",
        "step.dispatched h:1",
        "conflict.detected 0:2",
        "conflict.resolved 0:2",
    ]);
    let retry = s.data("step.retry_scheduled 0:1");
    assert_eq!(
        (
            &retry["class"],
            &retry["code"],
            &retry["free"],
            &retry["dueMs"]
        ),
        (
            &json!("preempted"),
            &json!("preempted"),
            &json!(true),
            &json!(16_000)
        )
    );
    assert_eq!(
        s.data("claim.released 0:1"),
        json!({"tokens": [token], "reason": "preempted"})
    );
    assert_eq!(
        s.data("conflict.detected 0:2")["contenders"][0]["claimNumber"],
        number
    );
    assert_eq!(s.describe("c")["retriesUsed"], 0);
    s.done("h", 1, "");
    assert_eq!(s.data("claim.granted 0:2")["claimNumber"], number);
}

#[test]
fn r_45_a_lease_that_ends_within_the_grace_costs_the_victim_nothing() {
    let mut s =
        preemption(|step| step.set("claims", json!([{"resource": "file:x", "leaseMs": 5_000}])));
    s.seen();
    s.advance(5_000);
    s.expect(&[
        "claim.expired 0:1",
        "step.retry_scheduled 0:1",
        "claim.granted h:1",
        "step.dispatched h:1",
        "conflict.detected 0:2",
        "conflict.resolved 0:2",
    ]);
    let retry = s.data("step.retry_scheduled 0:1");
    assert_eq!(
        (&retry["class"], &retry["free"]),
        (&json!("preempted"), &json!(true))
    );
    assert_eq!(s.describe("c")["retriesUsed"], 0);
}

#[test]
fn r_45_a_question_of_a_preempted_attempt_is_void() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let high = step("h")
        .set("priority", "high")
        .claims("file:x")
        .after("1");
    let plan = plan([step("0").claims("file:x"), step("1"), high]);
    s.plan(plan.strategy("priority_wins").preempt().hitl());
    s.ask("0", 1, 1);
    s.seen();
    s.now_ms = 1_000;
    s.done("1", 1, "");
    s.expect(&[
        "step.completed 1:1",
        "conflict.detected h:1",
        "conflict.resolved h:1",
        "human.expired 0:1",
    ]);
    assert_eq!(s.data("human.expired 0:1")["reason"], "voided");
    assert_eq!(s.cause("human.expired 0:1"), "human.requested 0:1");
    s.advance(16_000);
    assert_eq!(s.step_state("h"), "dispatched");
}

#[test]
fn r_45_an_end_within_the_grace_stands() {
    let mut s = preemption(|step| step);
    s.seen();
    s.now_ms = 2_000;
    assert_eq!(s.done("0", 1, "out"), "accepted completed");
    s.expect(&[
        "step.completed 0:1",
        "claim.released 0:1",
        "claim.granted h:1",
        "step.dispatched h:1",
    ]);
    s.advance(16_000);
    assert_eq!(s.step_state("0"), "completed");
}

#[test]
fn r_45_only_idempotent_attempts_with_quota_left_are_preempted() {
    let mut s = preemption(|step| step.set("idempotent", false));
    s.expect(&[
        "step.completed 1:1",
        "conflict.detected h:1",
        "conflict.resolved h:1",
    ]);
    s.expect_out(&["-c:1:1"]);
    assert_eq!(
        s.data("conflict.resolved h:1")["outcomes"][0]["outcome"],
        "waits"
    );
    assert!(
        s.data("conflict.detected h:1")["holders"][0]
            .get("preemptible")
            .is_none()
    );
    // Three free retries are all that a step has.
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let high = step("h")
        .set("priority", "high")
        .claims("file:x")
        .after("1");
    s.plan(
        plan([step("0").claims("file:x"), step("1"), high])
            .strategy("priority_wins")
            .preempt(),
    );
    for attempt in 1..=3 {
        s.notice("0", attempt, NoticeKind::HostLost);
    }
    s.done("1", 1, "");
    assert_eq!(
        s.data("conflict.resolved h:1")["outcomes"][0]["outcome"],
        "waits"
    );
}

#[test]
fn r_45_nobody_of_the_same_priority_preempts_and_the_owner_is_not_preempted() {
    let run = |priority: &str, owner: &str| {
        let mut s = Scenario::with(|config| config.max_in_flight = 9);
        let high = step("h")
            .set("priority", priority)
            .claims("file:x")
            .after("1");
        let plan = plan([step("0").claims("file:x"), step("1"), high]);
        s.plan(
            plan.strategy("priority_wins")
                .preempt()
                .owner("file:x", owner),
        );
        s.done("1", 1, "");
        s.data("conflict.resolved h:1")["outcomes"][0]["outcome"].clone()
    };
    assert_eq!(run("normal", "agent:z"), "waits");
    assert_eq!(run("high", "agent:z"), "preempts");
    assert_eq!(run("high", "agent:0"), "waits");
    // The owner preempts whatever its priority.
    assert_eq!(run("low", "agent:h"), "preempts");
}

fn part(id: &str, base: Option<&str>, from: u64, to: u64) -> Json {
    let regions = json!([{"start": from, "end": to}]);
    let mut claim = json!({"resource": "file:x", "leaseMs": 60_000, "regions": regions});
    if let Some(base) = base {
        claim["baseVersion"] = base.into();
    }
    step(id).claim(claim)
}

#[test]
fn r_46_same_base_and_disjoint_regions_are_both_granted() {
    let mut s = Scenario::new();
    let steps = [part("a", Some("v1"), 0, 10), part("b", Some("v1"), 10, 20)];
    s.plan(plan(steps).strategy("merge_if_safe"));
    s.expect(&[
        "coordination.created",
        "claim.granted a:1",
        "step.dispatched a:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
    assert_eq!(
        s.data("conflict.resolved b:1")["outcomes"][0]["outcome"],
        "granted"
    );
    let granted = s.data("claim.granted b:1");
    assert_eq!(granted["regions"], json!([{"start": 10, "end": 20}]));
    assert_eq!(granted["baseVersion"], "v1");
}

#[test]
fn r_46_otherwise_it_is_manual_review() {
    for (b, hitl) in [
        (part("b", Some("v1"), 9, 20), true),
        (part("b", Some("v2"), 10, 20), true),
        (part("b", None, 10, 20), true),
        (step("b").claims("file:x"), true),
        (part("b", Some("v1"), 9, 20), false),
    ] {
        let mut s = Scenario::new();
        let plan = plan([part("a", Some("v1"), 0, 10), b]).strategy("merge_if_safe");
        s.plan(if hitl { plan.hitl() } else { plan });
        let state = if hitl { "waiting_human" } else { "failed" };
        assert_eq!(s.step_state("b"), state);
        if hitl {
            assert_eq!(s.data("coordination.escalated b:1")["kind"], "conflict");
        }
    }
}

#[test]
fn r_46_an_extra_claim_merges_too_and_is_refused_where_it_would_be_reviewed() {
    let mut s = Scenario::new();
    s.plan(
        plan([part("a", Some("v1"), 0, 10), step("b")])
            .strategy("merge_if_safe")
            .hitl(),
    );
    let ask = |from, to| qm2_core::claim::ClaimRequest {
        base_version: Some("v1".into()),
        regions: vec![qm2_core::claim::Region {
            start: from,
            end: to,
        }],
        ..request("b", 1, "file:x")
    };
    s.seen();
    let refused = s.claim(ask(9, 20)).unwrap_err();
    assert_eq!(
        brief_rejection(&refused),
        "claim-refused resource retry(1000)"
    );
    s.expect(&[]);
    s.claim(ask(10, 20)).unwrap();
    s.expect(&[
        "conflict.detected b:1",
        "conflict.resolved b:1",
        "claim.granted b:1",
    ]);
}

#[test]
fn r_47_any_number_of_contenders_and_the_order_given_does_not_matter() {
    let contender = |id: &str, priority, number| Contender {
        coordination_id: "c".into(),
        step_id: id.into(),
        attempt: 1,
        session: format!("agent:{id}"),
        priority,
        claim_number: number,
        mode: Mode::Exclusive,
        base_version: None,
        regions: Vec::new(),
        token: None,
        expires_ms: None,
        preemptible: false,
    };
    let all = [
        contender("a", Priority::Low, 5),
        contender("b", Priority::Critical, 9),
        contender("d", Priority::Normal, 7),
        contender("e", Priority::Normal, 6),
    ];
    let policy = Policy {
        default: Strategy::PriorityWins,
        owners: vec![Owner {
            resource: "file:x".into(),
            session: "agent:a".into(),
        }],
        ..Policy::default()
    };
    let mut s = Scenario::new();
    let mut decide = |order: [usize; 4]| {
        let contest = Contest {
            resource: "file:x".into(),
            at_ms: 0,
            contenders: order.map(|index| all[index].clone()).into(),
            holders: Vec::new(),
        };
        let call = Call::Arbitrate {
            contest,
            policy: policy.clone(),
        };
        match s.call(&call) {
            Ok(Answer::Arbitrate(decision)) => decision,
            other => panic!("arbitrate: {other:?}"),
        }
    };
    let decision = decide([0, 1, 2, 3]);
    let brief: Vec<String> = decision
        .outcomes
        .iter()
        .map(|outcome| {
            format!(
                "{} {} {}",
                outcome.step_id,
                outcome.outcome.name(),
                outcome.order
            )
        })
        .collect();
    assert_eq!(
        brief,
        ["a granted 1", "b waits 2", "e waits 3", "d waits 4"]
    );
    for order in [[3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        assert_eq!(decide(order), decision);
    }
    s.expect(&[]);
}

#[test]
fn r_47_one_decision_over_all_gives_the_order_of_one_at_a_time() {
    let mut s = line([step("a"), step("b"), step("d")], |plan| {
        plan.owner("file:x", "agent:d")
    });
    let mut contenders: Vec<Contender> = Vec::new();
    let mut policy = Policy::default();
    for id in ["a", "b", "d"] {
        let data = s.data(&format!("conflict.detected {id}:1"));
        contenders.push(serde_json::from_value(data["contenders"][0].clone()).unwrap());
        policy = serde_json::from_value(data["policy"].clone()).unwrap();
    }
    let holder = s.data("conflict.detected a:1")["holders"][0].clone();
    let contest = Contest {
        resource: "file:x".into(),
        at_ms: 0,
        contenders,
        holders: vec![serde_json::from_value(holder).unwrap()],
    };
    let Ok(Answer::Arbitrate(decision)) = s.call(&Call::Arbitrate { contest, policy }) else {
        panic!("arbitrate")
    };
    let all: Vec<String> = decision
        .outcomes
        .iter()
        .map(|outcome| outcome.step_id.clone())
        .collect();
    assert_eq!(all, order(&mut s));
}

// ---- R-66 ----

/// Plan `c` has `file:x` with step `a`; plan `e` wants it with `z`.
fn across(
    domain: impl FnOnce(&mut qm2_core::config::Config),
    ours: impl FnOnce(Json) -> Json,
    theirs: impl FnOnce(Json) -> Json,
) -> (Scenario, Value) {
    let mut s = Scenario::with(|config| {
        config.max_in_flight = 20;
        domain(config);
    });
    s.plan(ours(plan([step("a").claims("file:x")])));
    let other = plan([step("z").claims("file:x").set("priority", "high")])
        .set("coordinationId", "e")
        .set("ownerSession", "user:else");
    s.plan(theirs(other));
    let policy = s.data("conflict.detected e/z:1")["policy"].clone();
    s.seen();
    (s, policy)
}

#[test]
fn r_66_the_strictest_strategy_of_the_parties_counts() {
    let ordered = [
        "manual_review",
        "owner_wins",
        "merge_if_safe",
        "priority_wins",
    ];
    for (i, ours) in ordered.iter().enumerate() {
        for (j, theirs) in ordered.iter().enumerate() {
            let set = |strategy: &'static str| move |plan: Json| plan.strategy(strategy).hitl();
            let (s, policy) = across(|_| {}, set(ours), set(theirs));
            assert_eq!(policy["default"], ordered[i.min(j)], "{ours} and {theirs}");
            assert_eq!(
                s.data("conflict.resolved e/z:1")["strategy"],
                ordered[i.min(j)]
            );
        }
    }
}

#[test]
fn r_66_owners_are_those_of_the_domain() {
    let ours = |plan: Json| plan.owner("file:x", "agent:a");
    let theirs = |plan: Json| plan.owner("file:x", "agent:z");
    let (_, policy) = across(|_| {}, ours, theirs);
    assert_eq!(policy["owners"], json!([]));
    let domain = |config: &mut qm2_core::config::Config| {
        config.owners = vec![Owner {
            resource: "file:**".into(),
            session: "agent:y".into(),
        }];
    };
    let (mut s, policy) = across(domain, ours, theirs);
    assert_eq!(
        policy["owners"],
        json!([{"resource": "file:x", "session": "agent:y"}])
    );
    // It comes last, and goes first.
    let last = plan([step("y").claims("file:x")]).set("coordinationId", "f");
    s.plan(last);
    s.seen();
    s.done("a", 1, "");
    assert_eq!(
        s.labels().last().map(String::as_str),
        Some("coordination.terminal")
    );
    assert_eq!(s.record("step.dispatched f/y:1")["type"], "step.dispatched");
    s.done_of("f", "y", 1);
    assert_eq!(s.record("step.dispatched e/z:1")["type"], "step.dispatched");
}

#[test]
fn r_66_inside_one_coordination_its_own_policy_counts() {
    let mut s = Scenario::with(|config| {
        config.owners = vec![Owner {
            resource: "file:x".into(),
            session: "agent:a".into(),
        }];
        config.high_risk = vec!["file:x".into()];
    });
    let steps = [
        step("0").claims("file:x"),
        step("a").claims("file:x"),
        step("b").claims("file:x"),
    ];
    s.plan(plan(steps).owner("file:x", "agent:b"));
    let policy = s.data("conflict.detected b:1")["policy"].clone();
    assert_eq!(
        policy["owners"],
        json!([{"resource": "file:x", "session": "agent:b"}])
    );
    assert_eq!(
        (&policy["highRisk"], &policy["default"]),
        (&json!([]), &json!("owner_wins"))
    );
    s.done("0", 1, "");
    assert_eq!(s.step_state("b"), "dispatched");
}

#[test]
fn r_66_high_risk_of_the_domain_counts_between_coordinations() {
    let domain = |config: &mut qm2_core::config::Config| config.high_risk = vec!["file:*".into()];
    let (s, policy) = across(domain, |plan| plan, |plan| plan.hitl());
    assert_eq!(policy["highRisk"], json!(["file:x"]));
    assert_eq!(
        s.data("conflict.resolved e/z:1")["strategy"],
        "manual_review"
    );
    assert_eq!(s.data("coordination.escalated e/z:1")["kind"], "conflict");
}

#[test]
fn r_66_preempt_only_if_every_party_allows_it() {
    for (ours, theirs) in [(true, true), (true, false), (false, true), (false, false)] {
        let set = |may: bool| {
            move |plan: Json| {
                let plan = plan.strategy("priority_wins");
                if may { plan.preempt() } else { plan }
            }
        };
        let (s, policy) = across(|_| {}, set(ours), set(theirs));
        assert_eq!(policy["preempt"], ours && theirs);
        let outcome = if ours && theirs { "preempts" } else { "waits" };
        assert_eq!(
            s.data("conflict.resolved e/z:1")["outcomes"][0]["outcome"],
            outcome
        );
    }
}

#[test]
fn r_66_a_preempted_attempt_of_another_plan_is_retried_there() {
    let set = |plan: Json| plan.strategy("priority_wins").preempt();
    let (mut s, _) = across(|_| {}, set, set);
    s.ack("a", 1);
    s.seen();
    s.advance(15_000);
    s.expect(&[
        "step.retry_scheduled a:1",
        "claim.released a:1",
        "claim.granted e/z:1",
        "step.dispatched e/z:1",
        "conflict.detected a:2",
        "conflict.resolved a:2",
    ]);
    assert_eq!(
        s.data("conflict.detected a:2")["holders"][0]["coordinationId"],
        "e"
    );
    s.fail("a", 2, FailureClass::Permanent, "x");
    assert_eq!(s.step_state("a"), "waiting_claim");
}
