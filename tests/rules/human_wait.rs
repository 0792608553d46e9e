//! Questions to people while they are open, and what approval does to a contest.
//!
//! Who may answer what, and what each answer does, is in `human.rs`.

use super::human::{KINDS, asked, asked_with, two_levels};
use crate::support::*;
use qm2_core::envelope::FailureClass;
use qm2_core::message::{Notice, NoticeKind};
use serde_json::json;

const RETRYABLE: FailureClass = FailureClass::Retryable;

fn unreachable(s: &mut Scenario, key: &str) -> String {
    let key = key.to_owned();
    let kind = NoticeKind::Unreachable;
    brief(&s.notices(&[Notice { key, kind }])[0])
}

#[test]
fn r_57_unreachable_expires_the_level_at_once() {
    let mut s = asked_with("exhausted", two_levels);
    let (id, _) = s.question("a");
    s.now_ms = 2_000;
    assert_eq!(
        unreachable(&mut s, &format!("escalation:{id}:1:2")),
        "accepted waiting_human"
    );
    s.expect(&["human.expired a:1", "human.requested a:1"]);
    assert_eq!(s.data("human.expired a:1")["reason"], "unreachable");
    assert_eq!(s.data("human.requested a:1")["dueMs"], 22_000);
    // A level that is over is over once.
    assert_eq!(
        unreachable(&mut s, &format!("escalation:{id}:1:1")),
        "replayed waiting_human"
    );
    s.expect(&[]);
    assert_eq!(
        unreachable(&mut s, &format!("escalation:{id}:2:1")),
        "accepted failed"
    );
    s.expect(&[
        "human.expired a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    let expired = s.data("human.expired a:1");
    assert_eq!(
        (&expired["fallback"], &expired["reason"]),
        (&json!("deny"), &json!("unreachable"))
    );
    for key in [
        "escalation:e999:1:1",
        "escalation:x",
        "c:a:1",
        "escalation:e2:1:1:1",
    ] {
        assert_eq!(unreachable(&mut s, key), "unknown-key key fix", "{key}");
    }
}

#[test]
fn r_58_a_question_survives_a_crash_and_is_handed_out_again() {
    for kind in KINDS {
        let mut s = asked(kind);
        let (id, _) = s.question("a");
        let key = format!("escalation:{id}:1:1");
        let before = s.message(&key).clone();
        s.restart();
        s.seen();
        s.reconcile();
        assert_eq!(*s.message(&key), before, "{kind}");
        s.expect(&[]);
        assert!(s.approve("a").starts_with("accepted"), "{kind}");
    }
}

#[test]
fn r_58_an_answer_is_handed_out_again_while_its_attempt_runs() {
    let mut s = asked("question");
    let (id, _) = s.question("a");
    s.approve("a");
    s.restart();
    s.seen();
    s.reconcile();
    s.expect_out(&[&format!("answer:{id}#1 data"), "probe:c:a:1#1 control"]);
    s.done("a", 1, "");
    s.seen();
    s.reconcile();
    assert!(s.message(&format!("answer:{id}")).delivery == 1);
    let report = format!("report:{}#1 data", s.seq("coordination.terminal"));
    s.expect_out(&[&report]);
}

#[test]
fn r_59_the_attempts_clock_rests_and_the_plans_does_not() {
    // Asked at 1 000 with 4 000 left of the attempt; answered at 9 000.
    let run = |deadline: Option<u64>| {
        let mut s = Scenario::new();
        let plan = plan([step("a").set("timeoutMs", 5_000)]).hitl();
        s.plan(match deadline {
            Some(deadline) => plan.set("deadlineMs", deadline),
            None => plan,
        });
        s.now_ms = 1_000;
        s.ask("a", 1, 1);
        s.seen();
        s
    };
    let mut s = run(None);
    s.advance(9_000);
    s.expect(&[]);
    s.approve("a");
    s.seen();
    assert_eq!(s.describe("c")["steps"][0]["deadlineMs"], 13_000);
    s.advance(12_999);
    s.expect(&[]);
    s.advance(13_000);
    assert_eq!(s.data("coordination.escalated a:1")["class"], "timeout");
    // Cut to the plan's.
    let mut s = run(Some(10_500));
    s.now_ms = 9_000;
    s.approve("a");
    assert_eq!(s.describe("c")["steps"][0]["deadlineMs"], 10_500);
    s.advance(10_500);
    assert_eq!(s.data("step.timed_out a:1")["which"], "plan");
    // The plan's deadline comes while the person is asked.
    let mut s = run(Some(7_000));
    s.advance(7_000);
    s.expect(&[
        "human.expired a:1",
        "step.timed_out a:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("human.expired a:1")["reason"], "unanswered");
    assert_eq!(s.data("coordination.terminal")["terminal"], "escalated");
    assert_eq!(s.data("coordination.terminal")["reason"], "unanswered");
}

#[test]
fn r_21_a_coordination_that_waits_for_a_person_is_not_terminal() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]).hitl());
    s.fail("a", 1, RETRYABLE, "x");
    s.advance(9_999);
    assert_eq!(s.state(), "open");
    assert_eq!(s.step_state("b"), "pending");
    s.advance(10_000);
    assert_eq!(s.state(), "final");
    // By the plan's deadline it is, at the latest.
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).hitl().set("deadlineMs", 5_000));
    s.fail("a", 1, RETRYABLE, "x");
    s.advance(4_999);
    assert_eq!(s.state(), "open");
    s.advance(5_000);
    assert_eq!(s.data("coordination.terminal")["reason"], "unanswered");
}

#[test]
fn r_20_an_unanswered_question_is_escalated_and_a_cancel_comes_before_it() {
    let mut s = asked_with("exhausted", |plan| {
        plan.human_set("fallback", "block")
            .set("deadlineMs", 100_000)
    });
    s.cancel();
    let end = s.data("coordination.terminal");
    assert_eq!(
        (&end["terminal"], &end["reason"]),
        (&json!("failed"), &json!("cancelled"))
    );
    assert_eq!(s.data("human.expired a:1")["reason"], "voided");
}

#[test]
fn r_53_to_56_the_approved_contender_comes_first_in_the_order() {
    let mut s = asked("conflict");
    let resolved = |s: &Scenario| s.data("conflict.resolved a:1");
    assert_eq!(resolved(&s)["outcomes"][0]["outcome"], "review");
    assert_eq!(s.approve("a"), "accepted waiting_claim");
    assert_eq!(
        (
            &resolved(&s)["stage"],
            &resolved(&s)["outcomes"][0]["outcome"]
        ),
        (&json!("human"), &json!("waits"))
    );
    assert_eq!(s.cause("conflict.resolved a:1"), "human.decided a:1");
    // The live holder keeps until its end.
    s.seen();
    s.done("0", 1, "");
    s.expect(&[
        "step.completed 0:1",
        "claim.released 0:1",
        "claim.granted a:1",
        "step.dispatched a:1",
    ]);
}

#[test]
fn r_56_an_approved_contender_preempts_where_the_policy_lets_it() {
    let mut s = asked_with("conflict", Json::preempt);
    assert_eq!(s.approve("a"), "accepted waiting_claim");
    s.expect(&["human.decided a:1", "conflict.resolved a:1"]);
    assert_eq!(
        s.data("conflict.resolved a:1")["outcomes"][0]["outcome"],
        "preempts"
    );
    let (id, _) = s.question("a");
    s.expect_out(&["cancel:c:0:1#1 control", &format!("-escalation:{id}:1:1")]);
    s.advance(16_000);
    s.expect(&[
        "step.retry_scheduled 0:1",
        "claim.released 0:1",
        "claim.granted a:1",
        "step.dispatched a:1",
        "conflict.detected 0:2",
        "conflict.resolved 0:2",
        "coordination.escalated 0:2",
        "human.requested 0:2",
    ]);
}
