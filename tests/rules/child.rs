//! Child plans: R-24, and the parts of that are about them.

use crate::support::*;
use qm2_core::envelope::{Envelope, FailureClass};
use qm2_core::message::Role;
use serde_json::json;

const PERMANENT: FailureClass = FailureClass::Permanent;

/// A plan `k` under step `a` of plan `c`, with the step `x`.
fn child(on_close: &str) -> Json {
    plan([step("x").set("targetSession", "agent:x")])
        .set("coordinationId", "k")
        .set("ownerSession", "agent:a")
        .set(
            "parent",
            json!({"coordinationId": "c", "stepId": "a", "onClose": on_close}),
        )
}

/// Plan `c` runs its steps `a` and `b`, and `k` runs under `a`.
fn family(on_close: &str) -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]));
    s.plan(child(on_close));
    for (id, session) in [("a", "agent:a"), ("b", "agent:b")] {
        s.submit(ack(id, 1).by(session)).unwrap();
    }
    s.submit(ack("x", 1).of("k")).unwrap();
    s.seen();
    s
}

#[test]
fn r_24_a_child_plan_comes_from_the_dispatch_of_its_parent_step() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.seen();
    s.plan(child("cancel"));
    s.expect(&["coordination.created k", "step.dispatched k/x:1"]);
    assert_eq!(s.cause("coordination.created k"), "step.dispatched a:1");
    assert_eq!(s.describe("c")["childPlans"], json!(["k"]));
    assert_eq!(
        s.data("coordination.created k")["plan"]["parent"],
        json!({"coordinationId": "c", "stepId": "a", "onClose": "cancel"})
    );
}

#[test]
fn r_24_it_is_submitted_by_the_steps_session_or_the_parents_owner() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]));
    s.seen();
    let text = child("cancel").text();
    let other = child("cancel").set("ownerSession", "agent:b").text();
    let refused = s.submit_plan("agent:b", &other).unwrap_err();
    assert_eq!(brief_rejection(&refused), "unauthorized-session parent ask");
    s.expect(&[]);
    assert!(s.submit_plan("agent:a", &text).is_ok());
    let own = child("cancel")
        .set("ownerSession", OWNER)
        .set("coordinationId", "k2");
    assert!(s.submit_plan(OWNER, &own.text()).is_ok());
}

#[test]
fn r_24_a_parent_that_does_not_run_or_is_not_known_is_refused() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]));
    let under = |parent: &str, step: &str| {
        child("cancel")
            .set("ownerSession", OWNER)
            .set("parent", json!({"coordinationId": parent, "stepId": step}))
    };
    s.seen();
    let refuse = |s: &mut Scenario, plan: Json| brief_rejection(&s.try_plan(plan).unwrap_err());
    assert_eq!(
        refuse(&mut s, under("c", "b")),
        "not-running parent.stepId stop"
    );
    assert_eq!(refuse(&mut s, under("c", "z")), "unknown-step stepId fix");
    assert_eq!(
        refuse(&mut s, under("z", "a")),
        "unknown-coordination coordinationId fix"
    );
    s.cancel();
    s.seen();
    assert_eq!(
        refuse(&mut s, under("c", "a")),
        "coordination-stopping parent stop"
    );
    s.expect(&[]);
}

#[test]
fn r_24_the_same_child_again_is_the_same_handle_also_after_its_parent_step() {
    let mut s = family("abandon");
    s.done("a", 1, "");
    s.seen();
    let again = s.try_plan(child("abandon")).unwrap();
    assert!(again.replayed);
    s.expect(&[]);
}

#[test]
fn r_24_it_is_cancelled_when_its_parent_step_ends_other_than_completed() {
    let mut s = family("cancel");
    s.fail("a", 1, PERMANENT, "x");
    s.expect(&["step.failed a:1", "coordination.cancel_requested k"]);
    let report = format!("report:{}#1 data", s.seq("step.failed a:1"));
    s.expect_out(&[&report, "cancel:k:x:1#1 control", "-c:a:1"]);
    assert_eq!(
        s.cause("coordination.cancel_requested k"),
        "step.failed a:1"
    );
    s.advance(15_000);
    s.expect(&["step.cancelled k/x:1", "coordination.terminal k"]);
    assert_eq!(s.data("step.cancelled k/x:1")["by"], "parent");
    assert_eq!(s.data("coordination.terminal k")["reason"], "cancelled");
    assert_eq!(s.state(), "open");
}

#[test]
fn r_24_a_retry_of_the_parent_step_is_no_end() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).retries(1, &[0]));
    s.plan(child("cancel"));
    s.seen();
    s.fail("a", 1, FailureClass::Retryable, "x");
    s.expect(&["step.retry_scheduled a:1", "step.dispatched a:2"]);
}

#[test]
fn r_24_when_its_parent_step_completed_it_runs_on_until_the_rest_is_done() {
    let mut s = family("cancel");
    s.done("a", 1, "");
    s.expect(&["step.completed a:1"]);
    // The last step of the parent ends: the child is cancelled, and waited for within the grace.
    s.now_ms = 1_000;
    s.done("b", 1, "");
    s.expect(&["step.completed b:1", "coordination.cancel_requested k"]);
    assert_eq!(
        s.cause("coordination.cancel_requested k"),
        "step.completed b:1"
    );
    assert_eq!(s.state(), "open");
    s.now_ms = 2_000;
    s.done_of("k", "x", 1);
    // Its end within the grace stands, and then the parent ends.
    let labels = s.labels();
    let tail = &labels[labels.len() - 3..];
    assert_eq!(
        tail,
        [
            "step.completed k/x:1",
            "coordination.terminal k",
            "coordination.terminal"
        ]
    );
    assert_eq!(s.data("coordination.terminal")["terminal"], "success");
}

#[test]
fn r_24_the_parent_waits_at_most_the_cancel_grace() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).set("cancelGraceMs", 1_000));
    s.plan(child("cancel"));
    s.done("a", 1, "");
    assert_eq!(s.state(), "open");
    s.seen();
    assert_eq!(s.next_deadline(), Some(1_000));
    s.advance(999);
    s.expect(&[]);
    s.advance(1_000);
    s.expect(&["coordination.terminal"]);
    // The child has its own grace.
    assert_eq!(s.describe("k")["state"], "stopping");
    s.advance(15_000);
    s.expect(&["step.cancelled k/x:1", "coordination.terminal k"]);
}

#[test]
fn r_24_an_abandoned_child_goes_on_alone() {
    let mut s = family("abandon");
    s.fail("a", 1, PERMANENT, "x");
    s.done("b", 1, "");
    s.expect(&[
        "step.failed a:1",
        "step.completed b:1",
        "coordination.terminal",
    ]);
    s.done_of("k", "x", 1);
    s.expect(&["step.completed k/x:1", "coordination.terminal k"]);
    assert_eq!(s.data("coordination.terminal k")["terminal"], "success");
}

#[test]
fn r_24_a_cancel_of_the_parent_cancels_the_child() {
    let mut s = family("cancel");
    s.cancel();
    s.expect(&["coordination.cancel_requested"]);
    s.advance(15_000);
    s.expect(&[
        "step.cancelled a:1",
        "coordination.cancel_requested k",
        "step.cancelled b:1",
    ]);
    s.advance(29_999);
    s.expect(&[]);
    s.advance(30_000);
    let labels = s.labels();
    let tail = &labels[labels.len() - 3..];
    assert!(
        tail.contains(&"step.cancelled k/x:1".to_owned()),
        "{tail:?}"
    );
    assert!(
        tail.contains(&"coordination.terminal".to_owned()),
        "{tail:?}"
    );
    s.seen();
}

#[test]
fn r_24_its_deadline_is_cut_to_the_parents() {
    for (own, cut) in [(None, 5_000), (Some(9_000), 5_000), (Some(3_000), 3_000)] {
        let mut s = Scenario::new();
        s.plan(plan([step("a")]).set("deadlineMs", 5_000));
        let plan = child("abandon");
        s.plan(match own {
            Some(own) => plan.set("deadlineMs", own),
            None => plan,
        });
        assert_eq!(s.data("step.dispatched k/x:1")["deadlineMs"], cut);
        assert_eq!(s.describe("k")["deadlineMs"], cut);
        s.advance(cut);
        assert_eq!(s.data("coordination.terminal k")["reason"], "plan_deadline");
    }
}

#[test]
fn r_24_depth_5_is_allowed_and_6_is_not() {
    let mut s = Scenario::with(|config| config.max_in_flight = 20);
    s.plan(plan([step("a")]));
    let under = |depth: usize| {
        let (above, parent) = match depth {
            1 => ("c".to_owned(), "a".to_owned()),
            _ => (format!("k{}", depth - 1), format!("x{}", depth - 1)),
        };
        plan([step(&format!("x{depth}"))])
            .set("coordinationId", format!("k{depth}"))
            .set("ownerSession", format!("agent:{parent}"))
            .set("parent", json!({"coordinationId": above, "stepId": parent}))
    };
    for depth in 1..=5 {
        s.plan(under(depth));
    }
    s.seen();
    let refused = s.try_plan(under(6)).unwrap_err();
    assert_eq!(brief_rejection(&refused), "bound parent retry(1000)");
    s.expect(&[]);
    // Added steps and child plans count together.
    let mut added = execute("n", "x5").of("k5");
    assert_eq!(
        brief(&s.submit(added.clone())),
        "bound parentStepId retry(1000)"
    );
    added = execute("n", "x4").of("k4");
    assert_eq!(brief(&s.submit(added)), "accepted ready");
    let below = plan([step("y")])
        .set("coordinationId", "m")
        .set("ownerSession", "agent:n")
        .set("parent", json!({"coordinationId": "k4", "stepId": "n"}));
    assert_eq!(
        brief_rejection(&s.try_plan(below).unwrap_err()),
        "bound parent retry(1000)"
    );
}

#[test]
fn r_9_the_parents_owner_cancels_a_child_and_others_do_not() {
    let cancel_k = |by: &str| {
        Envelope {
            source_session: by.to_owned(),
            ..cancel()
        }
        .of("k")
    };
    let mut s = family("cancel");
    let answer = s.submit(cancel_k("agent:b"));
    assert_eq!(brief(&answer), "unauthorized-session sourceSession ask");
    s.expect(&[]);
    assert_eq!(brief(&s.submit(cancel_k(OWNER))), "accepted stopping");
    s.expect(&["coordination.cancel_requested k"]);
    s.advance(15_000);
    // Asked for as any cancel is; `parent` is what follows from the end of the parent.
    assert_eq!(s.data("step.cancelled k/x:1")["by"], "cancel");
    let mut s = family("cancel");
    let answer = s.submit_as(caller_as("user:op", Role::Operator), cancel_k("user:op"));
    assert_eq!(brief(&answer), "accepted stopping");
}

#[test]
fn r_24_children_survive_a_restart() {
    let mut s = family("cancel");
    s.shadow_replayed();
    s.restart();
    s.fail("a", 1, PERMANENT, "x");
    assert_eq!(
        s.cause("coordination.cancel_requested k"),
        "step.failed a:1"
    );
    s.shadow_restored();
    s.advance(15_000);
    assert_eq!(s.data("step.cancelled k/x:1")["by"], "parent");
}

#[test]
fn r_24_a_child_runs_on_while_work_and_cleanup_of_its_parent_are_open() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b"),
        step("k").on("b", "always").set("cleanup", true),
    ]));
    s.plan(child("cancel"));
    s.done("a", 1, "");
    s.seen();
    s.done("b", 1, "");
    s.expect(&["step.completed b:1", "step.dispatched k:1"]);
    s.done("k", 1, "");
    s.expect(&["step.completed k:1", "coordination.cancel_requested k"]);
}
