//! Races, each in both orders: the input that comes first wins (M1), and a timer that is due comes before any input (M2).
//!
//! Others stand where their nouns are: two ends in `identity.rs`, expiry of leases in `lease.rs`, answers in `human.rs`, release
//! and newcomer in `claim.rs`. `tests/vectors.rs` lists all of them.

use crate::support::*;
use qm2_core::envelope::FailureClass;
use qm2_core::message::{HookKind, HookVerdict, NoticeKind};
use qm2_host::engine::Call;
use serde_json::json;

const PERMANENT: FailureClass = FailureClass::Permanent;
const RETRYABLE: FailureClass = FailureClass::Retryable;

/// Steps `a` and `z` are out; everything so far is seen.
fn out(change: impl Fn(Json) -> Json) -> Scenario {
    let mut s = Scenario::new();
    s.plan(change(plan([step("a"), step("z")])));
    s.seen();
    s
}

/// what comes after the deadline is kept.
#[test]
fn r_27_race_of_report_and_attempt_deadline_in_both_orders() {
    let mut s = out(|plan| plan);
    s.now_ms = 59_999;
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.expect(&[
        "message.redelivered a:1",
        "message.redelivered z:1",
        "step.completed a:1",
    ]);
    s.advance(60_000);
    s.expect(&["step.timed_out z:1", "coordination.terminal"]);
    let mut s = out(|plan| plan);
    s.now_ms = 60_000;
    assert_eq!(s.done("a", 1, "out"), "late timed_out");
    s.expect(&[
        "message.redelivered a:1",
        "message.redelivered z:1",
        "step.timed_out a:1",
        "step.timed_out z:1",
        "coordination.terminal",
        "input.late a:1",
    ]);
    assert_eq!(s.data("input.late a:1")["payload"], "out");
}

#[test]
fn r_26_race_of_report_and_plan_deadline_in_both_orders() {
    let deadline = |plan: Json| plan.set("deadlineMs", 10_000);
    let mut s = out(deadline);
    s.now_ms = 9_999;
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.advance(10_000);
    s.expect(&[
        "step.completed a:1",
        "step.timed_out z:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("coordination.terminal")["terminal"], "partial");
    let mut s = out(deadline);
    s.now_ms = 10_000;
    assert_eq!(s.done("a", 1, "out"), "late timed_out");
    s.expect(&[
        "step.timed_out a:1",
        "step.timed_out z:1",
        "coordination.terminal",
        "input.late a:1",
    ]);
    assert_eq!(s.data("coordination.terminal")["terminal"], "failed");
}

#[test]
fn r_31_race_of_ack_and_ack_deadline_in_both_orders() {
    let mut s = out(|plan| plan);
    s.ack("z", 1);
    s.now_ms = 29_999;
    s.seen();
    assert_eq!(s.ack("a", 1), "accepted acknowledged");
    s.advance(30_000);
    s.expect(&["step.acknowledged a:1"]);
    s.expect_out(&[]);
    let mut s = out(|plan| plan);
    s.ack("z", 1);
    s.now_ms = 30_000;
    s.seen();
    // Sent again, and acknowledged all the same.
    assert_eq!(s.ack("a", 1), "accepted acknowledged");
    s.expect(&["message.redelivered a:1", "step.acknowledged a:1"]);
    s.expect_out(&["c:a:1#2 control"]);
    s.advance(59_999);
    s.expect(&[]);
}

#[test]
fn r_37_race_of_cancel_and_report_in_both_orders() {
    let mut s = out(|plan| plan);
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "accepted failed");
    assert_eq!(s.cancel(), "accepted stopping");
    s.expect(&["step.failed a:1", "coordination.cancel_requested"]);
    let mut s = out(|plan| plan);
    assert_eq!(s.cancel(), "accepted stopping");
    // A success within the grace stands, a failure is a cancelled step.
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "accepted cancelled");
    assert_eq!(s.done("z", 1, ""), "accepted completed");
    s.expect(&[
        "coordination.cancel_requested",
        "step.cancelled a:1",
        "step.completed z:1",
        "coordination.terminal",
    ]);
}

#[test]
fn r_37_race_of_report_and_cancel_grace_in_both_orders() {
    let mut s = out(|plan| plan);
    s.cancel();
    s.now_ms = 14_999;
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    let mut s = out(|plan| plan);
    s.cancel();
    s.seen();
    s.now_ms = 15_000;
    assert_eq!(s.done("a", 1, "out"), "late cancelled");
    s.expect(&[
        "step.cancelled a:1",
        "step.cancelled z:1",
        "coordination.terminal",
        "input.late a:1",
    ]);
}

#[test]
fn r_38_race_of_cancel_and_plan_deadline_in_both_orders() {
    let deadline = |plan: Json| plan.set("deadlineMs", 10_000);
    // The deadline keeps running, and is before the end of the grace; no cancel ended a step.
    let mut s = out(deadline);
    s.now_ms = 9_999;
    assert_eq!(s.cancel(), "accepted stopping");
    s.advance(10_000);
    s.expect(&[
        "coordination.cancel_requested",
        "step.timed_out a:1",
        "step.timed_out z:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("coordination.terminal")["reason"], "plan_deadline");
    let mut s = out(deadline);
    s.now_ms = 10_000;
    assert_eq!(s.cancel(), "replayed final");
    s.expect(&[
        "step.timed_out a:1",
        "step.timed_out z:1",
        "coordination.terminal",
    ]);
}

#[test]
fn r_39_race_of_cancel_of_a_step_and_its_end_in_both_orders() {
    let mut s = out(|plan| plan);
    s.done("a", 1, "");
    assert_eq!(s.cancel_step("a"), "replayed completed");
    s.expect(&["step.completed a:1"]);
    let mut s = out(|plan| plan);
    assert_eq!(s.cancel_step("a"), "accepted dispatched");
    assert_eq!(s.done("a", 1, ""), "accepted completed");
    s.expect(&["coordination.cancel_requested a:1", "step.completed a:1"]);
    s.done("z", 1, "");
    assert_eq!(s.data("coordination.terminal")["terminal"], "success");
}

#[test]
fn r_38_race_of_cancel_and_due_retry_in_both_orders() {
    let retried = |plan: Json| plan.retries(1, &[500]);
    let mut s = out(retried);
    s.fail("a", 1, RETRYABLE, "x");
    s.seen();
    s.now_ms = 499;
    assert_eq!(s.cancel(), "accepted stopping");
    s.expect(&["coordination.cancel_requested", "step.cancelled a:2"]);
    let mut s = out(retried);
    s.fail("a", 1, RETRYABLE, "x");
    s.seen();
    // The cancel comes first in its call, and what has become due by then is not sent out any more.
    s.now_ms = 500;
    assert_eq!(s.cancel(), "accepted stopping");
    s.expect(&["coordination.cancel_requested", "step.cancelled a:2"]);
    let mut s = out(retried);
    s.fail("a", 1, RETRYABLE, "x");
    s.advance(500);
    s.seen();
    assert_eq!(s.cancel(), "accepted stopping");
    s.expect(&["coordination.cancel_requested"]);
    s.expect_out(&["cancel:c:a:2#1 control", "cancel:c:z:1#1 control"]);
}

#[test]
fn r_17_race_of_fail_fast_and_report_in_both_orders() {
    let mut s = out(Json::fail_fast);
    assert_eq!(s.done("z", 1, "out"), "accepted completed");
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "accepted failed");
    s.expect(&[
        "step.completed z:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    // After the trip an end within the grace still stands, and what comes after it is late.
    let mut s = out(Json::fail_fast);
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "accepted failed");
    s.expect(&["step.failed a:1"]);
    assert_eq!(s.state(), "stopping");
    s.now_ms = 14_999;
    assert_eq!(s.done("z", 1, "out"), "accepted completed");
    s.expect(&["step.completed z:1", "coordination.terminal"]);
    let mut s = out(Json::fail_fast);
    s.fail("a", 1, PERMANENT, "x");
    s.seen();
    s.now_ms = 15_000;
    assert_eq!(s.done("z", 1, "out"), "late cancelled");
    s.expect(&[
        "step.cancelled z:1",
        "coordination.terminal",
        "input.late z:1",
    ]);
    assert_eq!(s.data("step.cancelled z:1")["by"], "fail_fast");
}

#[test]
fn r_30_race_of_host_lost_and_report_in_both_orders() {
    let mut s = out(|plan| plan);
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    assert_eq!(s.notice("a", 1, NoticeKind::HostLost), "replayed completed");
    s.expect(&["step.completed a:1"]);
    let mut s = out(|plan| plan);
    assert_eq!(
        s.notice("a", 1, NoticeKind::HostLost),
        "accepted retry_wait"
    );
    assert_eq!(s.done("a", 1, "out"), "late dispatched");
    s.expect(&[
        "step.retry_scheduled a:1",
        "step.dispatched a:2",
        "input.late a:1",
    ]);
}

#[test]
fn r_12_race_of_unknown_target_and_ack_in_both_orders() {
    let mut s = out(|plan| plan);
    assert_eq!(s.ack("a", 1), "accepted acknowledged");
    assert_eq!(
        s.notice("a", 1, NoticeKind::UnknownTarget),
        "replayed acknowledged"
    );
    s.expect(&["step.acknowledged a:1"]);
    let mut s = out(|plan| plan);
    assert_eq!(
        s.notice("a", 1, NoticeKind::UnknownTarget),
        "accepted failed"
    );
    assert_eq!(s.ack("a", 1), "late failed");
    s.expect(&["step.failed a:1", "input.late a:1"]);
}

#[test]
fn r_41_race_of_release_and_claim_in_both_orders() {
    let held = || {
        let mut s = Scenario::new();
        s.plan(plan([step("a").claims("file:x"), step("z")]));
        s.seen();
        s
    };
    let mut s = held();
    assert_eq!(s.release("a", 1, &[]), "accepted dispatched");
    assert!(s.claim(request("z", 1, "file:x")).is_ok());
    s.expect(&["claim.released a:1", "claim.granted z:1"]);
    let mut s = held();
    let refused = s.claim(request("z", 1, "file:x")).unwrap_err();
    assert_eq!(
        brief_rejection(&refused),
        "claim-refused resource retry(1000)"
    );
    assert_eq!(s.release("a", 1, &[]), "accepted dispatched");
    s.expect(&["claim.released a:1"]);
}

#[test]
fn r_43_race_of_two_newcomers_in_both_orders() {
    for order in [["c", "e"], ["e", "c"]] {
        let mut s = Scenario::new();
        for id in order {
            let session = format!("agent:{id}");
            let a = step("a").claims("file:x").set("targetSession", session);
            s.plan(plan([a]).set("coordinationId", id));
        }
        let [first, second] = order;
        let of = |id: &str, state: &str| {
            let of = if id == "c" {
                String::new()
            } else {
                format!("{id}/")
            };
            format!("{state} {of}a:1")
        };
        let labels = s.labels();
        assert!(labels.contains(&of(first, "claim.granted")), "{labels:?}");
        assert!(
            labels.contains(&of(second, "conflict.resolved")),
            "{labels:?}"
        );
        assert_eq!(labels.last(), Some(&of(second, "conflict.resolved")));
    }
}

#[test]
fn r_52_race_of_verdict_and_hook_deadline_in_both_orders() {
    let hooked = || {
        let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeDispatch]);
        s.plan(plan([step("a")]));
        s.seen();
        s
    };
    let mut s = hooked();
    s.now_ms = 14_999;
    assert_eq!(s.judge(HookVerdict::NoOpinion), "accepted dispatched");
    s.expect(&["hook.verdict a:1", "step.dispatched a:1"]);
    let mut s = hooked();
    s.now_ms = 15_000;
    assert_eq!(s.judge(HookVerdict::NoOpinion), "replayed answered");
    s.expect(&[
        "hook.verdict a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("step.failed a:1")["code"], "denied");
}

#[test]
fn r_52_race_of_two_verdicts_in_both_orders() {
    let deny = || HookVerdict::Deny("no".into());
    for (first, second, state) in [
        (HookVerdict::NoOpinion, deny(), "dispatched"),
        (deny(), HookVerdict::NoOpinion, "failed"),
    ] {
        let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeDispatch]);
        s.plan(plan([step("a")]));
        assert_eq!(s.judge(first), format!("accepted {state}"));
        s.seen();
        assert_eq!(s.judge(second), "replayed answered");
        s.expect(&[]);
        assert_eq!(s.step_state("a"), state);
    }
}

#[test]
fn r_59_race_of_answer_and_report_in_both_orders() {
    let asked = || {
        let mut s = Scenario::new();
        s.plan(plan([step("a"), step("z")]).hitl());
        s.ask("a", 1, 1);
        s.seen();
        s
    };
    let mut s = asked();
    assert_eq!(s.approve("a"), "accepted acknowledged");
    assert_eq!(s.done("a", 1, ""), "accepted completed");
    s.expect(&["human.decided a:1", "step.completed a:1"]);
    // The report makes the question void.
    let mut s = asked();
    assert_eq!(s.done("a", 1, ""), "accepted completed");
    assert_eq!(s.approve("a"), "late completed");
    s.expect(&["human.expired a:1", "step.completed a:1", "input.late a:1"]);
    assert_eq!(s.data("human.expired a:1")["reason"], "voided");
}

#[test]
fn r_59_race_of_question_and_attempt_deadline_in_both_orders() {
    let short = || {
        let mut s = Scenario::new();
        s.plan(plan([step("a").set("timeoutMs", 1_000), step("z")]).hitl());
        s.seen();
        s
    };
    // Asked before it, the attempt's clock rests with a millisecond left.
    let mut s = short();
    s.now_ms = 999;
    assert_eq!(s.ask("a", 1, 1), "accepted waiting_human");
    s.advance(5_000);
    s.expect(&["coordination.escalated a:1", "human.requested a:1"]);
    assert_eq!(s.approve("a"), "accepted acknowledged");
    assert_eq!(s.next_deadline(), Some(5_001));
    let mut s = short();
    s.now_ms = 1_000;
    assert_eq!(s.ask("a", 1, 1), "late waiting_human");
    s.expect(&[
        "coordination.escalated a:1",
        "human.requested a:1",
        "input.late a:1",
    ]);
    assert_eq!(s.data("coordination.escalated a:1")["kind"], "exhausted");
}

#[test]
fn r_25_race_of_acknowledge_and_redelivery_in_both_orders() {
    let ended = || {
        let mut s = Scenario::new();
        s.plan(plan([step("a")]));
        s.done("a", 1, "");
        let key = format!("report:{}", s.seq("coordination.terminal"));
        s.seen();
        (s, key)
    };
    let (mut s, key) = ended();
    s.now_ms = 29_999;
    assert_eq!(s.read(&[&key]), ["accepted closed"]);
    s.advance(30_000);
    s.expect(&[&format!("message.acknowledged {key}")]);
    let (mut s, key) = ended();
    s.now_ms = 30_000;
    assert_eq!(s.read(&[&key]), ["accepted closed"]);
    s.expect(&[
        &format!("message.redelivered {key}"),
        &format!("message.acknowledged {key}"),
    ]);
}

#[test]
fn r_23_race_of_execute_and_parents_end_in_both_orders() {
    let mut s = out(|plan| plan);
    assert_eq!(brief(&s.submit(execute("n", "a"))), "accepted ready");
    s.done("a", 1, "");
    s.expect(&[
        "step.added n:1",
        "step.dispatched n:1",
        "step.completed a:1",
    ]);
    let mut s = out(|plan| plan);
    s.done("a", 1, "");
    let refused = brief(&s.submit(execute("n", "a")));
    assert_eq!(refused, "not-running parentStepId stop");
    s.expect(&["step.completed a:1", "input.rejected a:1"]);
}

#[test]
fn r_24_race_of_a_childs_end_and_its_parents_in_both_orders() {
    let family = || {
        let mut s = Scenario::new();
        s.plan(plan([step("a"), step("z")]));
        let parent = json!({"coordinationId": "c", "stepId": "a", "onClose": "cancel"});
        let child = plan([step("k")])
            .set("coordinationId", "e")
            .set("parent", parent);
        s.plan(child);
        s.seen();
        s
    };
    let mut s = family();
    s.done_of("e", "k", 1);
    s.fail("a", 1, PERMANENT, "x");
    s.expect(&[
        "step.completed e/k:1",
        "coordination.terminal e",
        "step.failed a:1",
    ]);
    let mut s = family();
    s.fail("a", 1, PERMANENT, "x");
    s.expect(&["step.failed a:1", "coordination.cancel_requested e"]);
    // Within the grace its end stands.
    assert_eq!(s.done_of("e", "k", 1), "accepted completed");
    s.expect(&["step.completed e/k:1", "coordination.terminal e"]);
    assert_eq!(s.data("coordination.terminal e")["terminal"], "success");
}

#[test]
fn r_18_race_of_report_and_cleanup_grace_in_both_orders() {
    let sweeping = || {
        let mut s = Scenario::new();
        let sweep = step("sweep").set("cleanup", true).set("timeoutMs", 900_000);
        s.plan(plan([sweep, step("z")]).set("cleanupGraceMs", 20_000));
        s.ack("sweep", 1);
        s.cancel();
        s.seen();
        s
    };
    let mut s = sweeping();
    s.now_ms = 19_999;
    assert_eq!(s.done("sweep", 1, ""), "accepted completed");
    let mut s = sweeping();
    s.now_ms = 20_000;
    assert_eq!(s.done("sweep", 1, ""), "late timed_out");
    assert_eq!(s.data("step.timed_out sweep:1")["which"], "cleanup");
}

/// Whatever order two plans come in, each is told of its own; only the numbers differ.
#[test]
fn r_63_race_of_two_plans_for_the_last_slot_in_both_orders() {
    for order in [["c", "e"], ["e", "c"]] {
        let mut s = Scenario::with(|config| config.max_in_flight = 1);
        for id in order {
            let a = step("a").set("targetSession", format!("agent:{id}"));
            s.plan(plan([a]).set("coordinationId", id));
        }
        let wait = |id: &str| Call::ExplainWait {
            id: id.into(),
            step_id: "a".into(),
        };
        let kinds = order.map(|id| match s.call(&wait(id)) {
            Ok(qm2_host::engine::Answer::ExplainWait(text)) => {
                parse(&text)["waitsFor"]["kind"].clone()
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(kinds, [json!("ack"), json!("slot")]);
        for id in order {
            let report = done("a", 1, "").of(id).by(&format!("agent:{id}"));
            assert_eq!(brief(&s.submit(report)), "accepted completed");
        }
    }
}
