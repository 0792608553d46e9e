//! What simulation found: each a history that once went wrong, named for what must hold.
//!
//! Histories are added, never changed. The rule that each shows is told with its siblings in the other modules.

use super::human::asked;
use crate::support::*;
use qm2_core::call::{Answer, Call};
use qm2_core::envelope::FailureClass;
use qm2_core::message::HumanVerdict;
use serde_json::json;

/// a person's word that it happened is not the agent's report, which stays what it was.
#[test]
fn r_02_a_failure_that_a_person_overruled_is_replayed_when_it_is_repeated() {
    let mut s = asked("unknown_effect");
    s.say(dana(), "a", HumanVerdict::Completed, Some("it is there"));
    assert_eq!(s.step_state("a"), "completed");
    assert_eq!(
        s.fail("a", 1, FailureClass::Unknown, "x"),
        "replayed waiting_human"
    );
    assert_eq!(s.done("a", 1, "now"), "content-mismatch - fix");
}

/// an attempt that said nothing before a person spoke for it comes too late, and its repeat is known.
#[test]
fn r_02_a_report_after_a_person_said_that_it_happened_is_late() {
    let mut s = Scenario::with(|config| config.ack_timeout_ms = 1_000);
    let a = step("a")
        .set("idempotent", false)
        .set("timeoutMs", 9_000_000);
    s.plan(plan([a]).hitl());
    // Six deliveries that nobody acknowledges: nobody knows whether it happened.
    for _ in 0..6 {
        let at_ms = s.next_deadline().expect("a redelivery is awaited");
        s.advance(at_ms);
    }
    assert_eq!(
        s.data("coordination.escalated a:1")["kind"],
        "unknown_effect"
    );
    s.say(dana(), "a", HumanVerdict::Completed, Some("it is there"));
    assert_eq!(s.done("a", 1, "now"), "late completed");
    assert_eq!(s.done("a", 1, "now"), "replayed completed");
}

/// a snapshot may be taken of an instance that replayed up to any record, also between two of one call.
#[test]
fn r_64_a_snapshot_between_two_records_of_a_call_goes_on_like_the_whole() {
    let mut s = Scenario::new();
    let chain = [
        step("a"),
        step("b").after("a"),
        step("c").after("b"),
        step("d").after("a"),
    ];
    s.plan(plan(chain));
    s.fail("a", 1, FailureClass::Permanent, "x");
    s.expect(&[
        "coordination.created",
        "step.dispatched a:1",
        "step.failed a:1",
        "step.skipped b:1",
        "step.skipped d:1",
        "step.skipped c:1",
        "coordination.terminal",
    ]);
    let digest = s.digest();
    for cut in 1..s.lines.len() {
        let (first, rest) = s.lines.split_at(cut);
        let mut half = Native::default();
        half.replay(first, true);
        let mut whole = Native::default();
        let mut cursor = None;
        loop {
            let taken = half.call(&Call::Snapshot {
                cursor,
                max_bytes: 1,
            });
            let Ok(Answer::Snapshot(piece)) = taken else {
                panic!("a snapshot can be taken after record {cut}");
            };
            let (chunk, last) = (piece.chunk, piece.next.is_none());
            whole
                .call(&Call::Restore { chunk, last })
                .expect("it is taken in");
            cursor = piece.next;
            if last {
                break;
            }
        }
        whole.replay(rest, true);
        assert_eq!(whole.digest(), digest, "cut after record {cut}");
    }
}

/// a child plan would be cut to its parent's deadline, so it is refused when that is over; cleanup still runs then.
#[test]
fn r_33_a_child_of_a_plan_that_is_past_its_deadline_is_refused() {
    let mut s = Scenario::new();
    let sweep = step("sweep").set("cleanup", true);
    s.plan(plan([sweep]).set("deadlineMs", 1_000));
    let child = |id: &str| {
        let parent = json!({"coordinationId": "c", "stepId": "sweep"});
        plan([step("a")])
            .set("coordinationId", id)
            .set("ownerSession", "agent:sweep")
            .set("parent", parent)
    };
    s.now_ms = 999;
    assert!(!s.plan(child("in-time")).replayed);
    s.now_ms = 1_000;
    let refused = s.try_plan(child("late")).unwrap_err();
    assert_eq!(brief_rejection(&refused), "deadline-past parent stop");
}

/// what is recorded of a step that waits for its session alone does not cost it its turn.
#[test]
fn r_63_a_refused_input_does_not_cost_a_waiting_step_its_turn() {
    let mut s = Scenario::new();
    let busy = |id: &str| step(id).set("targetSession", "agent:s");
    // `b` meets `a` on the resource and waits; `c` then takes the session that `b` needs as well.
    s.plan(plan([
        step("a").claims("file:x"),
        busy("b").claims("file:x"),
        busy("c"),
    ]));
    assert_eq!(
        (s.step_state("b"), s.step_state("c")),
        ("waiting_claim".into(), "dispatched".into())
    );
    s.done("a", 1, "");
    s.seen();
    // Nobody handed `b` out, so this is refused and kept.
    assert_eq!(s.done("b", 1, "early"), "not-dispatched attempt stop");
    s.expect(&["input.rejected b:1"]);
    s.done("c", 1, "");
    assert_eq!(s.step_state("b"), "dispatched");
}

/// the question of an attempt that is ended for another step is over once, however much of what is contested it holds.
#[test]
fn r_45_a_question_of_a_preempted_attempt_is_voided_once_for_all_that_it_holds() {
    let mut s = Scenario::new();
    let held = step("a").claims("file:x/1").claims("file:x/2");
    // `b` wants all of it, and its session owns it, when `0` makes way for it.
    let wants = step("b").claims("file:x").after("0");
    s.plan(
        plan([step("0"), held, wants])
            .hitl()
            .owner("file:x", "agent:b")
            .preempt(),
    );
    s.ask("a", 1, 7);
    s.seen();
    s.done("0", 1, "");
    s.expect(&[
        "step.completed 0:1",
        "conflict.detected b:1",
        "conflict.resolved b:1",
        "human.expired a:1",
    ]);
    assert_eq!(s.data("human.expired a:1")["reason"], "voided");
}

/// what a wider limit allows begins with the next call, and that call is due at once, not with the next deadline.
#[test]
fn r_63_a_limit_that_was_widened_is_awaited_at_once() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    s.now_ms = 1_000;
    s.plan(plan([step("a"), step("b")]));
    let before = s.next_deadline().expect("an ack is awaited");
    assert!(before > 1_000);
    s.configure(|config| config.max_in_flight = 2).unwrap();
    assert_eq!(s.next_deadline(), Some(1_000));
    s.restart();
    assert_eq!(s.next_deadline(), Some(1_000), "also of a rebuilt instance");
    s.seen();
    s.advance(1_000);
    s.expect(&["step.dispatched b:1"]);
    assert_eq!(s.next_deadline(), Some(before));
}

/// silence gives an exhausted step three more attempts, not one after another for ever.
#[test]
fn r_56_what_silence_allows_has_an_end() {
    let mut s = Scenario::new();
    let a = step("a").set("risk", "low");
    s.plan(plan([a]).hitl().human_set("fallback", "allow"));
    let mut silent = |attempt: u32| {
        s.fail("a", attempt, FailureClass::Retryable, "x");
        s.seen();
        s.advance(s.now_ms + 11_000);
        s.data(&format!("human.expired a:{attempt}"))["fallback"].clone()
    };
    assert_eq!([silent(1), silent(2), silent(3)], ["allow"; 3]);
    assert_eq!(silent(4), "deny");
    assert_eq!(s.step_state("a"), "failed");
}
