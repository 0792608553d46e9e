//! Steps that a running step adds under itself: R-23.

use crate::support::*;
use qm2_core::envelope::{DeliveryMode, Envelope, FailureClass, Priority};
use serde_json::{Value, json};

/// Step `a` runs and may add others.
fn running(change: impl Fn(Json) -> Json) -> Scenario {
    let mut s = Scenario::with(|config| config.max_in_flight = 20);
    s.plan(plan([change(step("a"))]));
    s.ack("a", 1);
    s.seen();
    s
}

fn add(s: &mut Scenario, step: &str, parent: &str) -> String {
    brief(&s.submit(execute(step, parent)))
}

#[test]
fn r_23_a_running_step_adds_a_step_that_goes_out_like_any_other() {
    for acked in [false, true] {
        let mut s = Scenario::new();
        s.plan(plan([step("a").claims("file:x").set("risk", "low")]));
        if acked {
            s.ack("a", 1);
        }
        s.seen();
        assert_eq!(add(&mut s, "n", "a"), "accepted ready");
        s.expect(&["step.added n:1", "step.dispatched n:1"]);
        s.expect_out(&["c:n:1#1 control"]);
        let began = if acked {
            "step.acknowledged a:1"
        } else {
            "step.dispatched a:1"
        };
        assert_eq!(s.cause("step.added n:1"), began);
        assert_eq!(s.cause("step.dispatched n:1"), "step.added n:1");
        // Timeout, idempotence and risk are those of its parent; it depends on nothing and claims nothing.
        let added = s.data("step.added n:1");
        assert_eq!(
            added["step"],
            json!({"stepId": "n", "targetSession": "agent:n", "payload": "more", "dependsOn": [],
                "join": "all", "claims": [], "owns": [], "priority": "normal",
                "deliveryMode": "at_least_once", "timeoutMs": 60_000, "idempotent": true,
                "required": false, "cleanup": false, "risk": "low", "parentStepId": "a"})
        );
        assert_eq!(added["sourceSession"], "agent:a");
        let sent = &s.message("c:n:1").envelope;
        assert_eq!(sent.parent_step_id.as_deref(), Some("a"));
        assert_eq!(sent.payload.as_deref(), Some("more"));
    }
}

#[test]
fn r_19_a_step_that_is_added_before_the_ack_implies_it() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    add(&mut s, "n", "a");
    assert_eq!(s.step_state("a"), "acknowledged");
    s.ack("n", 1);
    s.seen();
    s.advance(30_000);
    s.expect(&[]);
    // No record of its own, and no identity of an ack.
    assert_eq!(s.ack("a", 1), "replayed acknowledged");
    s.done("a", 1, "");
    assert!(s.data("step.completed a:1").get("implicitAck").is_none());
}

#[test]
fn r_23_its_end_is_reported_to_the_session_that_added_it() {
    let mut s = running(|step| step);
    add(&mut s, "n", "a");
    s.seen();
    s.done("n", 1, "found");
    let seq = s.seq("step.completed n:1");
    let key = format!("report:{seq}");
    s.expect(&["step.completed n:1"]);
    let report = s.message(&key).envelope.clone();
    assert_eq!(
        (report.target_session.as_str(), report.payload.as_deref()),
        ("agent:a", Some("found"))
    );
    assert_eq!(report.step_id.as_deref(), Some("n"));
    // That session acknowledges it, and nobody else.
    assert_eq!(s.read(&[&key]), ["unauthorized-session key ask"]);
    assert_eq!(s.read_as("agent:a", &[&key]), ["accepted open"]);
    s.expect(&[&format!("message.acknowledged {key}")]);
}

#[test]
fn r_23_a_failure_of_it_is_reported_as_well_and_counts_for_the_plan() {
    let mut s = running(|step| step);
    add(&mut s, "n", "a");
    s.fail("n", 1, FailureClass::Permanent, "x");
    let key = format!("report:{}", s.seq("step.failed n:1"));
    assert_eq!(s.message(&key).envelope.target_session, "agent:a");
    s.done("a", 1, "");
    assert_eq!(s.data("coordination.terminal")["terminal"], "partial");
}

#[test]
fn r_23_the_plan_waits_for_it() {
    let mut s = running(|step| step);
    add(&mut s, "n", "a");
    s.seen();
    s.done("a", 1, "");
    s.expect(&["step.completed a:1"]);
    s.done("n", 1, "");
    s.expect(&["step.completed n:1", "coordination.terminal"]);
    assert_eq!(s.data("coordination.terminal")["counts"]["completed"], 2);
}

#[test]
fn r_23_authority_is_that_of_the_parents_session() {
    let mut s = running(|step| step);
    let other = execute("n", "a").by("agent:z");
    assert_eq!(
        brief(&s.submit(other)),
        "unauthorized-session sourceSession ask"
    );
    s.expect(&["input.rejected a:1"]);
    assert_eq!(s.data("input.rejected a:1")["intent"], "execute");
    let answer = s.submit_as(caller("agent:z"), execute("n", "a"));
    assert_eq!(brief(&answer), "unauthorized-session sourceSession ask");
    let answer = s.submit_as(caller(OWNER), execute("n", "a").by(OWNER));
    assert_eq!(brief(&answer), "unauthorized-session sourceSession ask");
    s.seen();
    assert_eq!(add(&mut s, "n", "gone"), "unknown-step stepId fix");
    let answer = s.submit(execute("n", "a").of("e"));
    assert_eq!(brief(&answer), "unknown-coordination coordinationId fix");
    s.expect(&[]);
}

#[test]
fn r_23_a_parent_that_does_not_run_is_not_running() {
    let mut s = Scenario::new();
    let steps = [
        step("a"),
        step("b").after("a"),
        step("g").claims("file:x"),
        step("h").claims("file:x"),
        step("z"),
    ];
    s.plan(plan(steps).hitl());
    s.fail("z", 1, FailureClass::Permanent, "x");
    s.ask("g", 1, 1);
    s.seen();
    // Pending, waiting for a claim, waiting for a person, final.
    for parent in ["b", "h", "g", "z"] {
        assert_eq!(
            add(&mut s, "n", parent),
            "not-running parentStepId stop",
            "{parent}"
        );
        s.expect(&[&format!("input.rejected {parent}:1")]);
    }
    s.cancel();
    s.seen();
    assert_eq!(add(&mut s, "n", "a"), "coordination-stopping - stop");
    s.expect(&[]);
}

#[test]
fn r_23_its_id_is_new_and_the_same_again_is_a_replay() {
    let mut s = running(|step| step);
    s.submit(execute("n", "a")).unwrap();
    s.seen();
    assert_eq!(add(&mut s, "n", "a"), "replayed ready");
    s.expect(&[]);
    let other = Envelope {
        payload: Some("else".into()),
        ..execute("n", "a")
    };
    assert_eq!(brief(&s.submit(other)), "content-mismatch stepId fix");
    s.expect(&["input.rejected n:1"]);
    // A step of the plan.
    assert_eq!(add(&mut s, "a", "a"), "content-mismatch stepId fix");
    s.expect(&["input.rejected a:1"]);
    // Also once the parent is over.
    s.done("a", 1, "");
    s.seen();
    assert_eq!(add(&mut s, "n", "a"), "replayed ready");
    s.expect(&[]);
}

#[test]
fn r_23_its_priority_is_at_most_the_parents() {
    for (asked, given) in [
        (Priority::Low, "low"),
        (Priority::High, "high"),
        (Priority::Critical, "high"),
    ] {
        let mut s = running(|step| step.set("priority", "high"));
        s.submit(Envelope {
            priority: asked,
            ..execute("n", "a")
        })
        .unwrap();
        assert_eq!(s.data("step.added n:1")["step"]["priority"], given);
        assert_eq!(s.data("step.dispatched n:1")["priority"], given);
    }
}

#[test]
fn r_23_it_may_run_twice_only_if_its_parent_may_and_it_is_delivered_at_least_once() {
    let mut s = running(|step| step.set("idempotent", false));
    add(&mut s, "n", "a");
    assert_eq!(s.data("step.added n:1")["step"]["idempotent"], false);
    let mut s = running(|step| step);
    s.submit(Envelope {
        delivery_mode: DeliveryMode::BestEffort,
        ..execute("n", "a")
    })
    .unwrap();
    assert_eq!(s.data("step.added n:1")["step"]["idempotent"], false);
}

#[test]
fn r_23_its_form_is_tested() {
    let mut s = running(|step| step);
    let mut refuse = |envelope: Envelope| brief(&s.submit(envelope));
    let ask = || execute("n", "a");
    assert_eq!(
        refuse(Envelope {
            parent_step_id: None,
            ..ask()
        }),
        "invalid-field parentStepId fix"
    );
    assert_eq!(
        refuse(Envelope {
            attempt: Some(2),
            ..ask()
        }),
        "invalid-field attempt fix"
    );
    assert_eq!(
        refuse(Envelope {
            deadline_ms: Some(0),
            ..ask()
        }),
        "deadline-past deadlineMs stop"
    );
    assert_eq!(
        refuse(Envelope {
            step_id: Some("a:b".into()),
            ..ask()
        }),
        "invalid-field stepId fix"
    );
    s.expect(&[]);
}

#[test]
fn r_23_depth_5_is_allowed_and_6_is_not() {
    let mut s = running(|step| step);
    let mut parent = "a".to_owned();
    for depth in 1..=5 {
        let id = format!("n{depth}");
        assert_eq!(add(&mut s, &id, &parent), "accepted ready", "{depth}");
        parent = id;
    }
    s.seen();
    assert_eq!(add(&mut s, "n6", &parent), "bound parentStepId retry(1000)");
    s.expect(&[]);
}

#[test]
fn r_23_it_is_cancelled_and_times_out_with_its_plan() {
    let mut s = running(|step| step);
    add(&mut s, "n", "a");
    s.seen();
    s.cancel();
    s.expect(&["coordination.cancel_requested"]);
    s.advance(15_000);
    s.expect(&[
        "step.cancelled a:1",
        "step.cancelled n:1",
        "coordination.terminal",
    ]);
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).set("deadlineMs", 1_000));
    add(&mut s, "n", "a");
    assert_eq!(s.data("step.dispatched n:1")["deadlineMs"], 1_000);
    s.seen();
    s.advance(1_000);
    s.expect(&[
        "step.timed_out a:1",
        "step.timed_out n:1",
        "coordination.terminal",
    ]);
}

#[test]
fn r_23_it_survives_a_restart_with_its_identity() {
    let mut s = running(|step| step);
    add(&mut s, "n", "a");
    s.shadow_restored();
    s.restart();
    s.seen();
    assert_eq!(add(&mut s, "n", "a"), "replayed ready");
    add(&mut s, "m", "n");
    s.expect(&["step.added m:1", "step.dispatched m:1"]);
    let view = s.describe("c");
    let of: Vec<Value> = view["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["addedBy"].clone())
        .collect();
    assert_eq!(of, [json!(null), json!("agent:n"), json!("agent:a")]);
}

#[test]
fn r_23_the_bounds_of_the_domain_count_for_it() {
    let mut s = Scenario::with(|config| config.limits.plan_steps = 2);
    s.plan(plan([step("a")]));
    assert_eq!(add(&mut s, "n", "a"), "accepted ready");
    s.seen();
    assert_eq!(add(&mut s, "m", "a"), "domain-full - retry(1000)");
    s.expect(&[]);
}

#[test]
fn r_23_nothing_is_added_under_what_is_being_stopped() {
    // The step alone, and cleanup of a plan that is being stopped.
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("k").set("cleanup", true)]));
    let under = |above: &str| {
        let parent = json!({"coordinationId": "c", "stepId": above});
        let child = plan([step("x")]);
        child.set("coordinationId", "d").set("parent", parent)
    };
    let refused = |s: &mut Scenario, parent: &str| {
        s.seen();
        let child = s.try_plan(under(parent)).expect_err("it is stopped");
        assert_eq!(brief_rejection(&child), "coordination-stopping parent stop");
        assert_eq!(add(s, "n", parent), "coordination-stopping - stop");
        s.expect(&[]);
    };
    s.cancel_step("a");
    refused(&mut s, "a");
    assert_eq!(add(&mut s, "m", "k"), "accepted ready");
    s.cancel();
    refused(&mut s, "k");
}

/// every bound of the domain.
#[test]
fn r_23_live_steps_and_payload_count_for_it() {
    let mut s = Scenario::with(|config| config.limits.live_steps = 3);
    s.plan(plan([step("a")]));
    s.plan(plan([step("b")]).set("coordinationId", "d"));
    assert_eq!(add(&mut s, "n", "a"), "accepted ready");
    s.seen();
    assert_eq!(add(&mut s, "m", "a"), "domain-full - retry(1000)");
    s.expect(&[]);
    let mut s = Scenario::with(|config| config.limits.live_payload_bytes = 9);
    s.plan(plan([step("a").set("payload", "x")]));
    for id in ["m", "n"] {
        assert_eq!(add(&mut s, id, "a"), "accepted ready");
    }
    s.seen();
    assert_eq!(add(&mut s, "o", "a"), "domain-full - retry(1000)");
    s.expect(&[]);
}

/// a child plan counts the steps above it as well.
#[test]
fn r_23_depth_counts_through_added_steps_and_child_plans() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    s.plan(plan([step("a")]));
    for (id, parent) in [("n1", "a"), ("n2", "n1")] {
        assert_eq!(add(&mut s, id, parent), "accepted ready");
    }
    let under = |id: &str, of: &str, above: &str| {
        let parent = json!({"coordinationId": of, "stepId": above});
        let child = plan([step(&format!("{id}0"))]);
        child.set("coordinationId", id).set("parent", parent)
    };
    // Three deep, and what is added there four and five.
    s.plan(under("d", "c", "n2"));
    for (id, parent) in [("d1", "d0"), ("d2", "d1")] {
        let answer = s.submit(execute(id, parent).of("d"));
        assert_eq!(brief(&answer), "accepted ready");
    }
    let answer = s.submit(execute("d3", "d2").of("d"));
    assert_eq!(brief(&answer), "bound parentStepId retry(1000)");
    let refused = s.try_plan(under("e", "d", "d2")).expect_err("too deep");
    assert_eq!(brief_rejection(&refused), "bound parent retry(1000)");
    s.plan(under("e", "d", "d1"));
}
