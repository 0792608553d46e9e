//! Time and retries: M1, M2, M4 and. Timers, their order, races at a deadline, the budget.

use crate::support::*;
use qm2_core::envelope::{DeliveryMode, Envelope, FailureClass, Intent};
use qm2_core::limit::{TIME_MS_MAX, TIMERS_A_CALL_MAX};
use qm2_core::message::NoticeKind;
use qm2_core::receipt::CallError;
use qm2_host::engine::Call;
use serde_json::{Value, json};

const PERMANENT: FailureClass = FailureClass::Permanent;
const RETRYABLE: FailureClass = FailureClass::Retryable;
const UNKNOWN: FailureClass = FailureClass::Unknown;

#[test]
fn m1_the_first_input_in_ledger_order_wins_whatever_its_time() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]));
    s.now_ms = 500;
    let later = Envelope {
        created_at_ms: 400,
        ..done("a", 1, "first in")
    };
    assert_eq!(brief(&s.submit(later)), "accepted completed");
    // Made earlier and said to be earlier, and still second.
    s.now_ms = 100;
    let earlier = Envelope {
        created_at_ms: 50,
        ..done("a", 1, "second in")
    };
    assert_eq!(brief(&s.submit(earlier)), "content-mismatch - fix");
    assert_eq!(s.data("step.completed a:1")["payload"], "first in");
}

#[test]
fn m1_a_cancel_and_a_report_in_one_call_take_effect_in_their_order() {
    for (order, reason) in [(0, None), (1, Some("cancelled"))] {
        let mut s = Scenario::new();
        s.plan(plan([step("a").set("targetSession", OWNER)]).set("cancelGraceMs", 0));
        let mut inputs = vec![done("a", 1, "").by(OWNER), cancel()];
        inputs.rotate_left(order);
        s.submit_all(caller(OWNER), inputs);
        let terminal = s.data("coordination.terminal");
        assert_eq!(terminal.get("reason").and_then(Value::as_str), reason);
    }
}

#[test]
fn m2_time_is_an_input_and_never_runs_backwards() {
    let mut s = Scenario::new();
    s.now_ms = 1_000;
    s.plan(plan([step("a"), step("b")]));
    s.now_ms = 400;
    s.ack("a", 1);
    assert_eq!(s.record("step.acknowledged a:1")["atMs"], 1_000);
    s.now_ms = 2_000;
    s.ack("b", 1);
    assert_eq!(s.record("step.acknowledged b:1")["atMs"], 2_000);
}

#[test]
fn m2_a_call_that_records_nothing_moves_no_time() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    let before = s.digest();
    s.advance(20_000);
    s.now_ms = 20_000;
    s.submit(ack("a", 1).of("nowhere")).unwrap_err();
    assert_eq!(s.digest(), before);
    s.now_ms = 100;
    s.ack("a", 1);
    assert_eq!(s.record("step.acknowledged a:1")["atMs"], 100);
}

#[test]
fn m2_due_timers_fire_before_an_input_and_their_records_carry_the_effective_now() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 100), step("b")]).retries(1, &[1_000]));
    s.seen();
    s.now_ms = 700;
    s.ack("b", 1);
    s.expect(&["step.retry_scheduled a:1", "step.acknowledged b:1"]);
    let retry = s.record("step.retry_scheduled a:1");
    // New timers count from there.
    assert_eq!(
        (&retry["atMs"], &retry["data"]["dueMs"]),
        (&json!(700), &json!(1_700))
    );
}

#[test]
fn m2_timers_fire_by_due_time_then_class_then_coordination_step_and_attempt() {
    let mut s = Scenario::with(|config| config.max_in_flight = 100);
    let slow = |id: &str, timeout_ms: u64| {
        step(id)
            .set("timeoutMs", timeout_ms)
            .set("ackTimeoutMs", 900)
    };
    s.plan(plan([slow("y", 1_000), slow("x", 1_000), slow("w", 999)]).set("coordinationId", "c2"));
    let two = plan([
        slow("b", 1_000),
        step("k").set("ackTimeoutMs", 1_000),
        step("cleans")
            .set("cleanup", true)
            .set("ackTimeoutMs", 5_000),
        step("cancelled").set("ackTimeoutMs", 5_000),
        step("open").set("ackTimeoutMs", 5_000),
    ]);
    s.plan(two.set("deadlineMs", 1_000).set("cancelGraceMs", 500));
    s.now_ms = 400;
    s.cancel_step("cancelled");
    s.seen();
    s.now_ms = 0;
    assert_eq!(s.advance_once(5_000), Ok(false));
    s.expect(&[
        // 900: the ack deadlines of c, then those of c2.
        "message.redelivered b:1",
        "message.redelivered c2/w:1",
        "message.redelivered c2/x:1",
        "message.redelivered c2/y:1",
        "step.cancelled cancelled:1",
        "step.timed_out c2/w:1",
        // 1000: attempt deadlines before all others.
        "step.timed_out c2/x:1",
        "step.timed_out c2/y:1",
        "coordination.terminal c2",
        // then the plan deadline.
        "step.timed_out b:1",
        "step.timed_out k:1",
        "step.timed_out open:1",
        // What still runs has its own timers, later.
        "message.redelivered cleans:1",
    ]);
    for label in [
        "message.redelivered b:1",
        "step.timed_out c2/w:1",
        "step.timed_out open:1",
    ] {
        assert_eq!(s.record(label)["atMs"], 5_000);
    }
}

#[test]
fn m2_at_most_4096_timers_fire_in_a_call_and_others_are_busy_until_then() {
    let count = TIMERS_A_CALL_MAX + 1;
    assert_eq!(count, 4_097);
    let mut s = Scenario::with(|config| config.max_in_flight = 100_000);
    let one = |n: usize| step(&format!("s{n:04}")).set("timeoutMs", 1_000);
    s.plan(plan((0..count).map(one)).set("reports", "end"));
    assert_eq!(s.lines.len(), count + 2);
    let busy = |s: &mut Scenario, now_ms| {
        let (caller, envelopes) = (caller("agent:s0000"), vec![ack("s0000", 1)]);
        s.call(&Call::Submit {
            caller,
            now_ms,
            envelopes,
        })
    };
    s.seen();
    assert_eq!(busy(&mut s, 1_000), Err(CallError::Busy));
    let (caller, plan) = (
        caller(OWNER),
        plan([step("a")]).set("coordinationId", "c2").text(),
    );
    let submit = Call::SubmitPlan {
        caller,
        now_ms: 1_000,
        plan,
    };
    assert_eq!(s.call(&submit), Err(CallError::Busy));
    s.expect(&[]);
    assert_eq!(s.advance_once(1_000), Ok(true));
    assert_eq!(s.lines.len(), 2 * count + 1);
    s.now_ms = 1_000;
    assert_eq!(s.ack("s4096", 1), "late timed_out");
    s.seen();
    assert_eq!(s.advance_once(1_000), Ok(false));
    s.expect(&[]);
}

#[test]
fn m2_exactly_4096_due_timers_fire_in_any_call() {
    let mut s = Scenario::with(|config| config.max_in_flight = 100_000);
    let one = |n: usize| step(&format!("s{n:04}")).set("timeoutMs", 1_000);
    s.plan(plan((0..TIMERS_A_CALL_MAX).map(one)).set("reports", "end"));
    s.now_ms = 1_000;
    assert_eq!(s.ack("s0000", 1), "late timed_out");
    assert_eq!(s.state(), "final");
}

#[test]
fn m2_after_an_input_that_changes_nothing_the_core_still_settles() {
    let inputs: [fn(&mut Scenario) -> String; 4] = [
        |s| s.progress("b", 1, 1),
        |s| s.ack("b", 7),
        |s| brief(&s.submit(ack("nobody", 1))),
        |s| brief_rejection(&s.submit_plan(OWNER, "{}").unwrap_err()),
    ];
    let says = [
        "replayed acknowledged",
        "unknown-attempt attempt fix",
        "unknown-step stepId fix",
        "invalid-plan - fix",
    ];
    for (input, says) in inputs.into_iter().zip(says) {
        let mut s = Scenario::new();
        s.plan(plan([step("a"), step("b")]).retries(1, &[1_000]));
        s.progress("b", 1, 1);
        s.fail("a", 1, RETRYABLE, "x");
        s.now_ms = 1_000;
        assert_eq!(input(&mut s), says);
        // The retry that has become due goes out.
        assert_eq!(s.record("step.dispatched a:2")["atMs"], 1_000);
    }
}

#[test]
fn m2_a_due_retry_is_readiness_and_awaited_only_while_a_slot_is_free() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    s.plan(plan([step("a"), step("b")]).retries(1, &[5_000]));
    s.fail("a", 1, RETRYABLE, "x");
    // The only slot went to b: its deadlines are awaited, no slot is.
    assert_eq!(s.next_deadline(), Some(30_000));
    s.ack("b", 1);
    assert_eq!(s.next_deadline(), Some(60_000));
    s.seen();
    s.advance(6_000);
    s.expect(&[]);
    assert_eq!(s.done("b", 1, ""), "accepted completed");
    s.expect(&["step.completed b:1", "step.dispatched a:2"]);
}

#[test]
fn m4_a_redelivery_keeps_the_key_and_a_retry_has_a_new_one() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("payload", "in")]).retries(1, &[0]));
    s.expect_out(&["c:a:1#1 control"]);
    let first = s.message("c:a:1").clone();
    s.advance(30_000);
    s.expect(&[
        "coordination.created",
        "step.dispatched a:1",
        "message.redelivered a:1",
    ]);
    s.expect_out(&["c:a:1#2 control"]);
    let again = s.message("c:a:1").clone();
    assert_eq!(again.envelope, first.envelope);
    s.fail("a", 1, RETRYABLE, "x");
    s.expect_out(&["c:a:2#1 control", "-c:a:1"]);
    assert_eq!(s.message("c:a:2").envelope.attempt, Some(2));
}

#[test]
fn r_26_the_attempt_deadline_is_dispatch_plus_timeout_cut_to_that_of_the_plan() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    s.plan(plan([step("a"), step("b"), step("d")]).set("deadlineMs", 70_000));
    assert_eq!(s.data("step.dispatched a:1")["deadlineMs"], 60_000);
    s.now_ms = 9_000;
    s.done("a", 1, "");
    assert_eq!(s.data("step.dispatched b:1")["deadlineMs"], 69_000);
    s.now_ms = 20_000;
    s.done("b", 1, "");
    assert_eq!(s.data("step.dispatched d:1")["deadlineMs"], 70_000);
    assert_eq!(s.message("c:d:1").deadline_ms, Some(70_000));
    assert_eq!(s.message("c:d:1").envelope.deadline_ms, Some(70_000));
}

#[test]
fn r_26_what_the_plan_deadline_ends_is_ended_by_the_plan_deadline() {
    let mut s = Scenario::with(|config| config.max_in_flight = 2);
    s.plan(
        plan([
            step("a"),
            step("acked"),
            step("ready"),
            step("later").after("a"),
        ])
        .fail_fast()
        .retries(5, &[0])
        .set("deadlineMs", 30_000),
    );
    s.ack("acked", 1);
    s.seen();
    s.advance(29_999);
    s.expect(&[]);
    s.advance(30_000);
    s.expect(&[
        "step.timed_out a:1",
        "step.timed_out acked:1",
        "step.skipped later:1",
        "step.timed_out ready:1",
        "coordination.terminal",
    ]);
    let out = json!({"deadlineMs": 30_000, "which": "plan", "attempts": 1});
    assert_eq!(s.data("step.timed_out a:1"), out);
    assert_eq!(s.data("step.timed_out acked:1"), out);
    assert_eq!(s.data("step.timed_out ready:1")["attempts"], 0);
    assert_eq!(
        s.data("step.skipped later:1"),
        json!({"reason": "plan_deadline", "dependsOn": []})
    );
    assert_eq!(s.data("coordination.terminal")["reason"], "plan_deadline");
    assert_eq!(s.data("coordination.terminal")["terminal"], "failed");
    assert_eq!(s.cause("step.timed_out a:1"), "step.dispatched a:1");
    assert_eq!(s.cause("step.timed_out ready:1"), "coordination.created");
}

#[test]
fn r_26_no_retry_is_scheduled_at_or_past_the_plan_deadline() {
    for (deadline_ms, retried) in [(5_001, true), (5_000, false)] {
        let mut s = Scenario::new();
        s.plan(
            plan([step("a"), step("z")])
                .retries(9, &[5_000])
                .set("deadlineMs", deadline_ms),
        );
        let state = if retried {
            "accepted retry_wait"
        } else {
            "accepted failed"
        };
        assert_eq!(s.fail("a", 1, RETRYABLE, "x"), state);
    }
}

#[test]
fn r_27_exactly_at_the_deadline_the_timeout_wins() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000), step("z")]));
    s.seen();
    s.now_ms = 1_000;
    assert_eq!(s.done("a", 1, "out"), "late timed_out");
    s.expect(&["step.timed_out a:1", "input.late a:1"]);
    let timed_out = json!({"deadlineMs": 1_000, "which": "attempt", "attempts": 1});
    assert_eq!(s.data("step.timed_out a:1"), timed_out);
    s.expect_out(&["cancel:c:a:1#1 control", "report:5#1 data", "-c:a:1"]);
}

#[test]
fn r_27_one_millisecond_before_the_deadline_the_report_wins() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000), step("z")]));
    s.seen();
    s.now_ms = 999;
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.advance(1_000);
    s.expect(&["step.completed a:1"]);
}

#[test]
fn r_28_after_the_deadline_a_report_is_kept_without_effect() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000)]));
    s.advance(1_000);
    s.seen();
    assert_eq!(s.done("a", 1, "precious"), "late timed_out");
    s.expect(&["input.late a:1"]);
    assert_eq!(s.data("input.late a:1")["payload"], "precious");
    assert_eq!(s.cause("input.late a:1"), "step.timed_out a:1");
    assert_eq!(s.data("coordination.terminal")["terminal"], "failed");
    s.read_all();
    s.seen();
    assert_eq!(s.done("a", 1, "more"), "closed coordinationId stop");
    s.expect(&[]);
}

#[test]
fn r_29_a_clock_that_goes_backwards_is_clamped() {
    let mut s = Scenario::new();
    s.now_ms = 10_000;
    s.plan(plan([step("a").set("timeoutMs", 1_000), step("z")]));
    s.seen();
    s.advance(3_000);
    s.expect(&[]);
    s.now_ms = 5;
    s.ack("a", 1);
    assert_eq!(s.record("step.acknowledged a:1")["atMs"], 10_000);
    s.seen();
    s.advance(11_000);
    s.expect(&["step.timed_out a:1"]);
}

#[test]
fn r_29_times_beyond_the_integers_of_the_contract_are_refused() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000)]));
    let before = s.digest();
    for now_ms in [TIME_MS_MAX + 1, u64::MAX] {
        assert!(matches!(s.advance_once(now_ms), Err(CallError::Bound(_))));
        let (caller, envelopes) = (caller("agent:a"), vec![ack("a", 1)]);
        let answer = s.call(&Call::Submit {
            caller,
            now_ms,
            envelopes,
        });
        assert!(matches!(answer, Err(CallError::Bound(_))), "{answer:?}");
    }
    assert_eq!(s.digest(), before);
    // At the bound everything still fits, deadlines and graces included.
    s.advance(TIME_MS_MAX);
    s.plan(
        plan([step("late").set("timeoutMs", 1_000).set("cleanup", true)])
            .set("coordinationId", "other"),
    );
}

#[test]
fn r_30_the_budget_is_that_of_the_plan_and_never_given_back() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]).retries(2, &[0]));
    s.fail("a", 1, RETRYABLE, "x");
    assert_eq!(s.data("step.retry_scheduled a:1")["budgetLeft"], 1);
    assert_eq!(s.done("a", 2, ""), "accepted completed");
    s.fail("b", 1, RETRYABLE, "x");
    assert_eq!(s.data("step.retry_scheduled b:1")["budgetLeft"], 0);
    assert_eq!(s.fail("b", 2, RETRYABLE, "x"), "accepted failed");
    assert_eq!(s.data("step.failed b:2")["attempts"], 2);
}

#[test]
fn r_30_redelivery_uses_no_budget() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 900_000)]).retries(1, &[0]));
    s.advance(30_000);
    s.advance(35_000);
    assert_eq!(s.describe("c")["retriesUsed"], 0);
    s.fail("a", 1, RETRYABLE, "x");
    assert_eq!(s.describe("c")["retriesUsed"], 1);
}

#[test]
fn r_30_host_lost_is_retried_free_at_once_and_at_most_3_times() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("maxAttempts", 1), step("z")]));
    for attempt in 1..=3 {
        s.seen();
        s.now_ms += 10;
        assert_eq!(
            s.notice("a", attempt, NoticeKind::HostLost),
            "accepted retry_wait"
        );
        let (retry, next) = (format!("step.retry_scheduled a:{attempt}"), attempt + 1);
        s.expect(&[&retry, &format!("step.dispatched a:{next}")]);
        s.expect_out(&[&format!("c:a:{next}#1 control"), &format!("-c:a:{attempt}")]);
        let data = s.data(&retry);
        assert_eq!(
            (&data["class"], &data["free"]),
            (&json!("host_lost"), &json!(true))
        );
        assert_eq!(
            (&data["dueMs"], &data["budgetLeft"]),
            (&json!(s.now_ms), &json!(0))
        );
    }
    assert_eq!(s.notice("a", 4, NoticeKind::HostLost), "accepted failed");
    let data = s.data("step.failed a:4");
    assert_eq!(
        (&data["class"], &data["attempts"]),
        (&json!("host_lost"), &json!(4))
    );
}

#[test]
fn r_30_a_free_retry_counts_neither_for_max_attempts_nor_for_the_backoff() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("maxAttempts", 2), step("z")]).retries(9, &[100, 200]));
    s.notice("a", 1, NoticeKind::HostLost);
    s.fail("a", 2, RETRYABLE, "x");
    assert_eq!(s.data("step.retry_scheduled a:2")["dueMs"], 100);
    s.advance(100);
    assert_eq!(s.fail("a", 3, RETRYABLE, "x"), "accepted failed");
    assert_eq!(s.describe("c")["retriesUsed"], 1);
}

#[test]
fn r_30_host_lost_work_that_must_not_run_again_fails() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("idempotent", false), step("z")]).retries(9, &[0]));
    assert_eq!(s.notice("a", 1, NoticeKind::HostLost), "accepted failed");
    assert_eq!(s.data("step.failed a:1")["class"], "host_lost");
}

#[test]
fn r_31_five_redeliveries_follow_and_then_the_attempt_ends_undelivered() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 9_000_000)]));
    s.seen();
    assert_eq!(s.data("step.dispatched a:1")["ackDeadlineMs"], 30_000);
    let waits = [30_000, 5_000, 25_000, 120_000, 600_000];
    let mut at_ms = 0;
    for (wait, delivery) in waits.into_iter().zip(2_u64..) {
        at_ms += wait;
        s.advance(at_ms - 1);
        s.expect(&[]);
        s.advance(at_ms);
        s.expect(&["message.redelivered a:1"]);
        s.expect_out(&[&format!("c:a:1#{delivery} control")]);
        let next = at_ms + [5_000, 25_000, 120_000, 600_000, 600_000][delivery as usize - 2];
        let data = json!({"key": "c:a:1", "delivery": delivery, "nextDueMs": next});
        assert_eq!(s.data("message.redelivered a:1"), data);
        assert_eq!(s.cause("message.redelivered a:1"), "step.dispatched a:1");
    }
    s.advance(at_ms + 600_000);
    s.expect(&["step.failed a:1", "coordination.terminal"]);
    let data = s.data("step.failed a:1");
    assert_eq!(
        (&data["class"], &data["code"]),
        (&json!("unknown"), &json!("undelivered"))
    );
    // Somebody may have it all the same.
    s.expect_out(&[
        "cancel:c:a:1#1 control",
        "report:9#1 data",
        "report:10#1 data",
        "-c:a:1",
    ]);
}

#[test]
fn r_31_an_ack_ends_the_redeliveries_and_a_step_may_set_its_own_wait() {
    let mut s = Scenario::with(|config| config.ack_timeout_ms = 7_000);
    s.plan(plan([step("a").set("ackTimeoutMs", 1_000), step("b")]));
    assert_eq!(s.data("step.dispatched b:1")["ackDeadlineMs"], 7_000);
    s.advance(1_000);
    s.ack("a", 1);
    s.seen();
    s.advance(6_999);
    s.expect(&[]);
    s.advance(7_000);
    s.expect(&["message.redelivered b:1"]);
}

#[test]
fn r_31_an_undelivered_attempt_is_retried_like_an_unknown_one() {
    for (idempotent, state) in [(true, "retry_wait"), (false, "failed")] {
        let mut s = Scenario::new();
        let a = step("a")
            .set("timeoutMs", 9_000_000)
            .set("idempotent", idempotent);
        s.plan(
            plan([
                a,
                step("z")
                    .set("timeoutMs", 9_000_000)
                    .set("ackTimeoutMs", 8_000_000),
            ])
            .retries(1, &[50]),
        );
        while s.step_state("a") == "dispatched" {
            let next = s.next_deadline().unwrap();
            s.advance(next);
        }
        assert_eq!(s.step_state("a"), state);
        match idempotent {
            true => assert_eq!(s.data("step.retry_scheduled a:1")["code"], "undelivered"),
            false => assert_eq!(s.data("step.failed a:1")["code"], "unknown_effect"),
        }
        assert_eq!(s.message("cancel:c:a:1").envelope.intent, Intent::Cancel);
    }
}

#[test]
fn r_32_the_nth_retry_waits_the_nth_entry_and_the_last_one_repeats() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).retries(9, &[10, 200]));
    let mut due = Vec::new();
    for attempt in 1..=4 {
        s.fail("a", attempt, RETRYABLE, "x");
        let due_ms = s.data(&format!("step.retry_scheduled a:{attempt}"))["dueMs"]
            .as_u64()
            .unwrap();
        due.push(due_ms - s.now_ms);
        assert_eq!(s.next_deadline(), Some(due_ms));
        s.advance(due_ms - 1);
        assert_eq!(s.step_state("a"), "retry_wait");
        s.advance(due_ms);
        assert_eq!(s.step_state("a"), "dispatched");
    }
    assert_eq!(due, [10, 200, 200, 200]);
}

#[test]
fn r_32_without_a_table_the_waits_are_5_s_25_s_2_min_10_min() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).set("failurePolicy", json!({"retryBudget": 9})));
    for (attempt, wait) in [5_000, 25_000, 120_000, 600_000, 600_000]
        .into_iter()
        .enumerate()
    {
        s.fail("a", attempt as u32 + 1, RETRYABLE, "x");
        s.advance(s.now_ms + wait - 1);
        assert_eq!(s.step_state("a"), "retry_wait", "{wait}");
        s.advance(s.now_ms + 1);
    }
}

#[test]
fn r_33_a_deadline_at_or_before_now_is_refused_at_submission() {
    let mut s = Scenario::new();
    s.now_ms = 1_000;
    for deadline_ms in [1_000, 999, 0] {
        let refused = s
            .try_plan(plan([step("a")]).set("deadlineMs", deadline_ms))
            .unwrap_err();
        assert_eq!(brief_rejection(&refused), "deadline-past deadlineMs stop");
    }
    s.expect(&[]);
    let soon = plan([step("a")]).set("deadlineMs", 1_001);
    s.plan(soon.clone());
    // A plan that is known is known, also after its deadline.
    s.advance(5_000);
    assert!(s.plan(soon).replayed);
}

#[test]
fn r_33_what_is_ready_when_the_deadline_passes_times_out_without_dispatch() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    s.plan(plan([step("a"), step("b")]).set("deadlineMs", 500));
    s.seen();
    s.advance(500);
    s.expect(&[
        "step.timed_out a:1",
        "step.timed_out b:1",
        "coordination.terminal",
    ]);
    assert!(!s.labels().contains(&"step.dispatched b:1".to_owned()));
}

#[test]
fn r_34_permanent_ends_the_step_at_once() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).retries(9, &[0]));
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "accepted failed");
    assert_eq!(s.data("step.failed a:1")["class"], "permanent");
    assert_eq!(s.data("step.failed a:1")["message"], "x happened");
}

#[test]
fn r_34_unknown_is_retried_only_if_running_again_does_no_harm() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").set("idempotent", false)]).retries(9, &[5]));
    assert_eq!(s.fail("a", 1, UNKNOWN, "x"), "accepted retry_wait");
    assert_eq!(s.data("step.retry_scheduled a:1")["class"], "unknown");
    assert_eq!(s.fail("b", 1, UNKNOWN, "x"), "accepted failed");
    let data = s.data("step.failed b:1");
    assert_eq!(
        (&data["class"], &data["code"]),
        (&json!("unknown"), &json!("unknown_effect"))
    );
    assert!(data["message"].as_str().unwrap().contains("x happened"));
    // What is known not to have happened can be retried all the same.
    let mut s = Scenario::new();
    s.plan(plan([step("b").set("idempotent", false)]).retries(9, &[5]));
    assert_eq!(s.fail("b", 1, RETRYABLE, "x"), "accepted retry_wait");
}

#[test]
fn r_34_a_timeout_is_retried_only_if_running_again_does_no_harm() {
    let mut s = Scenario::new();
    let b = step("b").set("idempotent", false).set("timeoutMs", 100);
    s.plan(plan([step("a").set("timeoutMs", 100), b]).retries(9, &[5]));
    s.seen();
    s.advance(100);
    s.expect(&["step.retry_scheduled a:1", "step.timed_out b:1"]);
    assert_eq!(s.data("step.retry_scheduled a:1")["class"], "timeout");
    s.expect_out(&[
        "cancel:c:a:1#1 control",
        "cancel:c:b:1#1 control",
        "report:6#1 data",
        "-c:a:1",
        "-c:b:1",
    ]);
}

#[test]
fn r_34_max_attempts_bounds_the_retries_of_a_step() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("maxAttempts", 2)]).retries(9, &[0]));
    assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "accepted retry_wait");
    assert_eq!(s.fail("a", 2, RETRYABLE, "x"), "accepted failed");
}

#[test]
fn r_35_progress_never_moves_a_deadline() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000), step("z")]));
    for number in 1..=9 {
        s.now_ms = number * 100;
        assert_eq!(s.progress("a", 1, number), "accepted acknowledged");
    }
    s.seen();
    s.advance(1_000);
    s.expect(&["step.timed_out a:1"]);
}

#[test]
fn r_36_best_effort_goes_straight_to_a_lane_once() {
    let mut s = Scenario::new();
    let a = step("a")
        .set("deliveryMode", "best_effort")
        .set("timeoutMs", 90_000);
    s.plan(plan([a]).retries(9, &[0]));
    s.expect_out(&["c:a:1#1 control best_effort"]);
    let data = s.data("step.dispatched a:1");
    assert_eq!(data["deliveryMode"], "best_effort");
    assert!(data.get("ackDeadlineMs").is_none());
    assert_eq!(s.message("c:a:1").delivery_mode, DeliveryMode::BestEffort);
    s.seen();
    s.advance(89_999);
    s.expect(&[]);
    // One attempt, whatever the budget.
    assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "accepted failed");
    s.expect_out(&["report:4#1 data", "report:5#1 data", "-c:a:1 best_effort"]);
}

#[test]
fn r_36_a_drop_is_a_notice_and_ends_the_attempt() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("deliveryMode", "best_effort"), step("z")]).retries(9, &[0]));
    s.seen();
    assert_eq!(s.notice("a", 1, NoticeKind::Dropped), "accepted failed");
    s.expect(&["step.failed a:1"]);
    let data = s.data("step.failed a:1");
    assert_eq!(
        (&data["class"], &data["code"]),
        (&json!("permanent"), &json!("dropped"))
    );
}
