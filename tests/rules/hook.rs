//! Hooks: R-52, and what hooks are told.

use crate::support::*;
use qm2_core::digest::sha256_hex;
use qm2_core::envelope::FailureClass;
use qm2_core::message::{HookKind, HookVerdict};
use qm2_host::engine::Call;
use serde_json::json;

const NO_OPINION: HookVerdict = HookVerdict::NoOpinion;
const REVIEW: HookVerdict = HookVerdict::Review;

fn deny() -> HookVerdict {
    HookVerdict::Deny("too late in the day".into())
}

fn with_hooks(kinds: &[HookKind]) -> Scenario {
    Scenario::with(|config| config.hooks = kinds.to_vec())
}

/// Step `a` is about to go out.
fn before_dispatch(hitl: bool) -> Scenario {
    let mut s = with_hooks(&[HookKind::BeforeDispatch]);
    let plan = plan([step("a").claims("file:x")]);
    s.plan(if hitl { plan.hitl() } else { plan });
    let id = s.asks[0].hook_id.clone();
    s.expect(&["coordination.created", "hook.requested a:1"]);
    s.expect_out(&[&format!("?{id} before_dispatch")]);
    assert_eq!(s.step_state("a"), "waiting_hook");
    s
}

/// Step `b` meets step `a` on `file:x`.
fn before_arbitrate(change: impl Fn(Json) -> Json) -> Scenario {
    let mut s = with_hooks(&[HookKind::BeforeArbitrate]);
    s.plan(change(plan([
        step("a").claims("file:x"),
        step("b").claims("file:x"),
    ])));
    s.expect(&[
        "coordination.created",
        "claim.granted a:1",
        "step.dispatched a:1",
        "conflict.detected b:1",
        "hook.requested b:1",
    ]);
    assert_eq!(s.step_state("b"), "waiting_hook");
    s.expect_out(&[
        "c:a:1#1 control",
        &format!("?{} before_arbitrate", s.asks[0].hook_id),
    ]);
    s
}

#[test]
fn r_52_before_dispatch_is_asked_once_an_attempt_before_claims() {
    let mut s = before_dispatch(false);
    let (ask, requested) = (s.asks[0].clone(), s.data("hook.requested a:1"));
    assert_eq!(
        requested,
        json!({"hookId": ask.hook_id, "kind": "before_dispatch",
            "subjectDigest": sha256_hex(&[ask.subject.as_bytes()]), "dueMs": 15_000})
    );
    assert_eq!(ask.hook_id, format!("h{}", s.seq("hook.requested a:1")));
    assert_eq!(s.cause("hook.requested a:1"), "coordination.created");
    let subject = parse(&ask.subject);
    assert_eq!(subject["stepId"], "a");
    assert_eq!(subject["claims"][0]["resource"], "file:x");
    s.now_ms = 100;
    assert_eq!(s.judge(NO_OPINION), "accepted dispatched");
    s.expect(&[
        "hook.verdict a:1",
        "claim.granted a:1",
        "step.dispatched a:1",
    ]);
    assert_eq!(s.cause("hook.verdict a:1"), "hook.requested a:1");
    assert_eq!(
        s.data("hook.verdict a:1"),
        json!({"hookId": ask.hook_id, "handler": "gatekeeper", "verdict": "no_opinion"})
    );
    // The first answer stands.
    assert_eq!(s.judge(deny()), "replayed answered");
    s.expect(&[]);
}

#[test]
fn r_52_the_next_attempt_is_asked_about_again() {
    let mut s = with_hooks(&[HookKind::BeforeDispatch]);
    s.plan(plan([step("a")]).retries(1, &[0]));
    s.judge(NO_OPINION);
    s.seen();
    s.fail("a", 1, FailureClass::Retryable, "x");
    s.expect(&["step.retry_scheduled a:1", "hook.requested a:2"]);
    assert_eq!(s.cause("hook.requested a:2"), "step.retry_scheduled a:1");
    s.judge(NO_OPINION);
    s.expect(&["hook.verdict a:2", "step.dispatched a:2"]);
}

#[test]
fn r_52_a_denied_dispatch_fails_the_step() {
    for hitl in [false, true] {
        let mut s = before_dispatch(hitl);
        assert_eq!(s.judge(deny()), "accepted failed");
        s.expect(&[
            "hook.verdict a:1",
            "step.failed a:1",
            "coordination.terminal",
        ]);
        assert_eq!(s.data("hook.verdict a:1")["reason"], "too late in the day");
        assert_eq!(
            s.data("step.failed a:1"),
            json!({"class": "permanent", "code": "denied",
                "message": "gatekeeper says: too late in the day", "attempts": 0})
        );
        assert_eq!(s.cause("step.failed a:1"), "hook.verdict a:1");
    }
}

#[test]
fn r_52_no_answer_in_time_is_a_deny_exactly_at_the_time() {
    let mut s = before_dispatch(true);
    s.advance(14_999);
    s.expect(&[]);
    s.advance(15_000);
    s.expect(&[
        "hook.verdict a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    let said = s.data("hook.verdict a:1");
    assert_eq!(
        (&said["handler"], &said["verdict"], &said["reason"]),
        (
            &json!("hook-timeout"),
            &json!("deny"),
            &json!("no answer in time")
        )
    );
    assert_eq!(s.judge(NO_OPINION), "replayed answered");
}

#[test]
fn r_52_the_time_limit_is_that_of_the_configuration() {
    let mut s = Scenario::with(|config| {
        config.hooks = vec![HookKind::BeforeDispatch];
        config.hook_timeout_ms = 7;
    });
    s.plan(plan([step("a")]));
    assert_eq!(s.data("hook.requested a:1")["dueMs"], 7);
    s.advance(7);
    assert_eq!(s.data("step.failed a:1")["code"], "denied");
}

#[test]
fn r_52_review_of_a_dispatch_asks_a_person_and_denies_where_there_is_none() {
    let mut s = before_dispatch(true);
    assert_eq!(s.judge(REVIEW), "accepted waiting_human");
    s.expect(&[
        "hook.verdict a:1",
        "coordination.escalated a:1",
        "human.requested a:1",
    ]);
    assert_eq!(s.cause("coordination.escalated a:1"), "hook.verdict a:1");
    assert_eq!(s.data("coordination.escalated a:1")["kind"], "review");
    s.approve("a");
    // The hooks are not asked again.
    s.expect(&[
        "human.decided a:1",
        "claim.granted a:1",
        "step.dispatched a:1",
    ]);
    let mut s = before_dispatch(false);
    assert_eq!(s.judge(REVIEW), "accepted failed");
    s.expect(&[
        "hook.verdict a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("hook.verdict a:1")["verdict"], "review");
    assert_eq!(s.data("step.failed a:1")["code"], "denied");
}

#[test]
fn r_52_a_step_that_waits_for_hooks_holds_its_slot() {
    let mut s = Scenario::with(|config| {
        config.hooks = vec![HookKind::BeforeDispatch];
        config.max_in_flight = 1;
    });
    s.plan(plan([step("a"), step("b")]));
    s.expect(&["coordination.created", "hook.requested a:1"]);
    s.judge(deny());
    s.expect(&["hook.verdict a:1", "step.failed a:1", "hook.requested b:1"]);
}

#[test]
fn r_52_before_arbitrate_is_asked_after_the_contest_and_the_newcomer_ranks_meanwhile() {
    let mut s = before_arbitrate(|plan| plan);
    let ask = s.asks[0].clone();
    assert_eq!(s.cause("hook.requested b:1"), "conflict.detected b:1");
    let subject = parse(&ask.subject);
    assert_eq!(subject["contest"], s.data("conflict.detected b:1"));
    // Another one comes after it, though the hooks have not spoken.
    s.plan(plan([step("z").claims("file:x")]).set("coordinationId", "e"));
    s.seen();
    s.done("a", 1, "");
    s.expect(&["step.completed a:1", "claim.released a:1"]);
    s.verdict(&ask.hook_id, "gatekeeper", NO_OPINION);
    s.expect(&[
        "hook.verdict b:1",
        "conflict.resolved b:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
    assert_eq!(s.cause("conflict.resolved b:1"), "hook.verdict b:1");
    assert_eq!(s.data("conflict.resolved b:1")["stage"], "strategy");
}

#[test]
fn r_52_a_contest_without_opinion_is_decided_by_the_policy() {
    let mut s = before_arbitrate(|plan| plan);
    assert_eq!(s.judge(NO_OPINION), "accepted waiting_claim");
    s.expect(&["hook.verdict b:1", "conflict.resolved b:1"]);
    s.done("a", 1, "");
    assert_eq!(s.step_state("b"), "dispatched");
    // And a review by the policy stays one.
    let mut s = before_arbitrate(|plan| plan.strategy("manual_review").hitl());
    s.judge(NO_OPINION);
    s.expect(&[
        "hook.verdict b:1",
        "conflict.resolved b:1",
        "coordination.escalated b:1",
        "human.requested b:1",
    ]);
    assert_eq!(s.data("conflict.resolved b:1")["stage"], "strategy");
}

#[test]
fn r_52_a_denied_contest_fails_the_newcomer() {
    for hitl in [false, true] {
        let mut s = before_arbitrate(|plan| if hitl { plan.hitl() } else { plan });
        s.judge(deny());
        s.expect(&[
            "hook.verdict b:1",
            "conflict.resolved b:1",
            "step.failed b:1",
        ]);
        let resolved = s.data("conflict.resolved b:1");
        assert_eq!(resolved["stage"], "hook");
        assert_eq!(resolved["outcomes"][0]["outcome"], "refused");
        assert_eq!(s.data("step.failed b:1")["code"], "denied");
        assert_eq!(s.step_state("a"), "dispatched");
    }
}

#[test]
fn r_52_no_answer_to_a_contest_is_a_deny() {
    let mut s = before_arbitrate(|plan| plan.hitl());
    s.ack("a", 1);
    s.seen();
    s.advance(15_000);
    s.expect(&[
        "hook.verdict b:1",
        "conflict.resolved b:1",
        "step.failed b:1",
    ]);
    assert_eq!(s.data("conflict.resolved b:1")["stage"], "hook");
}

#[test]
fn r_52_review_of_a_contest_asks_a_person_and_is_a_refusal_where_there_is_none() {
    let mut s = before_arbitrate(|plan| plan.hitl());
    assert_eq!(s.judge(REVIEW), "accepted waiting_human");
    s.expect(&[
        "hook.verdict b:1",
        "conflict.resolved b:1",
        "coordination.escalated b:1",
        "human.requested b:1",
    ]);
    let resolved = s.data("conflict.resolved b:1");
    assert_eq!(
        (&resolved["stage"], &resolved["outcomes"][0]["outcome"]),
        (&json!("hook"), &json!("review"))
    );
    assert_eq!(s.data("coordination.escalated b:1")["kind"], "conflict");
    let mut s = before_arbitrate(|plan| plan);
    s.judge(REVIEW);
    s.expect(&[
        "hook.verdict b:1",
        "conflict.resolved b:1",
        "step.failed b:1",
    ]);
    assert_eq!(
        s.data("conflict.resolved b:1")["outcomes"][0]["outcome"],
        "refused"
    );
}

#[test]
fn r_52_a_newcomer_that_is_denied_makes_way_for_the_next() {
    let mut s = before_arbitrate(|plan| plan);
    s.plan(plan([step("z").claims("file:x")]).set("coordinationId", "e"));
    let (first, second) = (s.asks[0].hook_id.clone(), s.asks[1].hook_id.clone());
    s.done("a", 1, "");
    s.verdict(&second, "gatekeeper", NO_OPINION);
    assert_eq!(s.describe("e")["steps"][0]["state"], "waiting_claim");
    s.seen();
    s.verdict(&first, "gatekeeper", deny());
    s.expect(&[
        "hook.verdict b:1",
        "conflict.resolved b:1",
        "step.failed b:1",
        "claim.granted e/z:1",
        "step.dispatched e/z:1",
        "coordination.terminal",
    ]);
}

#[test]
fn r_52_both_kinds_are_asked_one_after_the_other_and_once() {
    let mut s = with_hooks(&[HookKind::BeforeDispatch, HookKind::BeforeArbitrate]);
    s.plan(plan([
        step("a").claims("file:x"),
        step("b").claims("file:x"),
    ]));
    let (a, b) = (s.asks[0].hook_id.clone(), s.asks[1].hook_id.clone());
    s.verdict(&a, "gatekeeper", NO_OPINION);
    s.seen();
    s.verdict(&b, "gatekeeper", NO_OPINION);
    s.expect(&[
        "hook.verdict b:1",
        "conflict.detected b:1",
        "hook.requested b:1",
    ]);
    assert_eq!(s.data("hook.requested b:1")["kind"], "before_arbitrate");
    s.judge(NO_OPINION);
    s.expect(&["hook.verdict b:1", "conflict.resolved b:1"]);
    s.done("a", 1, "");
    s.expect(&[
        "step.completed a:1",
        "claim.released a:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
}

#[test]
fn r_52_every_contested_resource_is_asked_about() {
    let mut s = with_hooks(&[HookKind::BeforeArbitrate]);
    let both = |id: &str| step(id).claims("file:x").claims("file:y");
    s.plan(plan([both("a"), both("b")]));
    s.expect(&[
        "coordination.created",
        "claim.granted a:1",
        "claim.granted a:1",
        "step.dispatched a:1",
        "conflict.detected b:1",
        "hook.requested b:1",
        "conflict.detected b:1",
        "hook.requested b:1",
    ]);
    let ids = [s.asks[0].hook_id.clone(), s.asks[1].hook_id.clone()];
    // In any order; the step waits for the last.
    s.verdict(&ids[1], "gatekeeper", NO_OPINION);
    s.expect(&["hook.verdict b:1", "conflict.resolved b:1"]);
    assert_eq!(s.step_state("b"), "waiting_hook");
    s.verdict(&ids[0], "gatekeeper", NO_OPINION);
    s.expect(&["hook.verdict b:1", "conflict.resolved b:1"]);
    assert_eq!(s.step_state("b"), "waiting_claim");
    s.done("a", 1, "");
    assert_eq!(s.step_state("b"), "dispatched");
}

#[test]
fn r_52_a_verdict_has_its_bounds_and_an_unknown_one_is_refused() {
    let mut s = before_dispatch(false);
    let id = s.asks[0].hook_id.clone();
    let text = |n: usize| "x".repeat(n);
    assert_eq!(s.verdict("h999", "g", NO_OPINION), "unknown-key hookId fix");
    assert_eq!(s.verdict("e2", "g", NO_OPINION), "unknown-key hookId fix");
    assert_eq!(s.verdict(&id, "", NO_OPINION), "invalid-field handler fix");
    assert_eq!(
        s.verdict(&id, &text(257), NO_OPINION),
        "invalid-field handler fix"
    );
    let long = HookVerdict::Deny(text(1_025));
    assert_eq!(s.verdict(&id, "g", long), "invalid-field verdict.deny fix");
    s.expect(&[]);
    let most = HookVerdict::Deny(text(1_024));
    assert_eq!(s.verdict(&id, &text(256), most), "accepted failed");
}

#[test]
fn r_52_what_waits_for_hooks_ends_with_its_plan() {
    let mut s = before_dispatch(false);
    s.cancel();
    s.expect(&[
        "coordination.cancel_requested",
        "step.cancelled a:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.judge(NO_OPINION), "replayed answered");
    s.expect(&[]);
}

#[test]
fn r_52_open_requests_are_handed_out_again() {
    let mut s = before_dispatch(false);
    let id = s.asks[0].hook_id.clone();
    s.restart();
    s.reconcile();
    s.expect_out(&[&format!("?{id} before_dispatch")]);
    assert_eq!(s.asks[0].subject, s.asks[1].subject);
    s.judge(NO_OPINION);
    assert_eq!(s.step_state("a"), "dispatched");
}

// ---- what they are told ----

#[test]
fn hooks_are_told_of_ends_and_questions_where_they_are_registered() {
    let mut s = with_hooks(&[
        HookKind::EscalationRequested,
        HookKind::StepEnded,
        HookKind::CoordinationEnded,
        HookKind::MessageUndelivered,
    ]);
    s.plan(plan([step("a"), step("b").after("a")]).hitl());
    s.ask("a", 1, 1);
    let kinds = |s: &Scenario| -> Vec<&'static str> {
        s.told.iter().map(|(kind, _)| kind.name()).collect()
    };
    assert_eq!(kinds(&s), ["escalation_requested"]);
    assert_eq!(s.told[0].1["type"], "human.requested");
    assert_eq!(s.told[0].1["stepId"], "a");
    s.deny("a");
    assert_eq!(
        kinds(&s)[1..],
        ["step_ended", "step_ended", "coordination_ended"]
    );
    // The record itself, with its hash.
    let line = s.lines.iter().rev().map(|line| parse(line));
    let line = line
        .into_iter()
        .find(|line| line["type"] == "coordination.terminal");
    let (told, line) = (&s.told[3].1, line.unwrap());
    assert_eq!((&told["seq"], &told["data"]), (&line["seq"], &line["data"]));
    for at_ms in [30_000, 35_000, 60_000, 180_000, 780_000, 1_380_000] {
        s.advance(at_ms);
    }
    assert_eq!(kinds(&s).last(), Some(&"message_undelivered"));
}

#[test]
fn hooks_that_are_not_registered_are_neither_asked_nor_told() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b").claims("file:x"),
        step("d").claims("file:x"),
    ]));
    s.fail("a", 1, FailureClass::Permanent, "x");
    s.cancel();
    assert!(s.asks.is_empty() && s.told.is_empty());
}

#[test]
fn a_kind_that_is_no_longer_registered_is_not_asked_any_more() {
    let mut s = before_dispatch(false);
    s.configure(|_| {}).expect("it holds");
    s.judge(NO_OPINION);
    assert_eq!(s.step_state("a"), "dispatched");
    s.plan(plan([step("z")]).set("coordinationId", "e"));
    assert_eq!(s.asks.len(), 1);
    let call = Call::Describe { id: "e".into() };
    assert!(s.call(&call).is_ok());
}

#[test]
fn r_63_a_step_that_the_hooks_let_go_stands_in_line_where_the_width_is_passed() {
    let mut s = Scenario::with(|config| {
        config.hooks = vec![HookKind::BeforeDispatch];
        config.max_in_flight = 1;
    });
    s.plan(plan([step("a"), step("b")]).hitl());
    s.judge(NO_OPINION);
    // The question gives the slot to b; the answer brings a back beside it, past the width.
    s.ask("a", 1, 1);
    assert_eq!(s.step_state("b"), "waiting_hook");
    s.approve("a");
    s.seen();
    assert_eq!(s.judge(NO_OPINION), "accepted ready");
    s.expect(&["hook.verdict b:1"]);
    s.done("a", 1, "");
    s.expect(&["step.completed a:1", "step.dispatched b:1"]);
}
