//! The step table of SPEC section 5: every input in every state that this version has, cell by cell.
//!
//! | state | how the tests get there |
//! |---|---|
//! | pending | depends on a step that runs |
//! | ready | the only slot is taken |
//! | retry_wait | failed, and its retry is not due |
//! | due | failed, its retry is due, and the only slot is taken |
//! | dispatched, acknowledged | out |
//! | the five finals | ended so |
//!
//! The step is `a`; step `0` keeps the coordination open and, where it must, the slot taken.

use crate::support::*;
use qm2_core::envelope::FailureClass;
use qm2_core::message::NoticeKind;
use serde_json::json;

const PERMANENT: FailureClass = FailureClass::Permanent;
const RETRYABLE: FailureClass = FailureClass::Retryable;

const NOT_OUT: [&str; 4] = ["pending", "ready", "retry_wait", "due"];
const OUT: [&str; 2] = ["dispatched", "acknowledged"];
const FINAL: [&str; 5] = ["completed", "failed", "timed_out", "cancelled", "skipped"];

/// Step `a` in a state, everything so far seen, at time 2 000. Its attempt deadline, where it is out, is 60 000.
fn at(state: &str) -> Scenario {
    with(state, |plan| plan)
}

fn with(state: &str, change: impl FnOnce(Json) -> Json) -> Scenario {
    let narrow = matches!(state, "ready" | "due");
    let mut s = Scenario::with(|config| config.max_in_flight = if narrow { 1 } else { 9 });
    let long = |id: &str| {
        step(id)
            .set("timeoutMs", 900_000)
            .set("ackTimeoutMs", 800_000)
    };
    let a = step("a").set("ackTimeoutMs", 20_000);
    let a = match state {
        "pending" => a.after("0"),
        "skipped" => a.on("1", "failure"),
        "timed_out" => a.set("timeoutMs", 2_000).set("maxAttempts", 1),
        // First, for the only slot.
        "due" => a.set("priority", "high"),
        _ => a,
    };
    // In the narrow states it comes last for the slot.
    let other = if narrow {
        long("1").set("priority", "low")
    } else {
        long("1")
    };
    let base = plan([long("0"), other, a]).retries(9, &[if state == "due" { 1 } else { 5_000 }]);
    s.plan(change(base));
    match state {
        "retry_wait" | "due" => drop(s.fail("a", 1, RETRYABLE, "x")),
        "acknowledged" => drop(s.ack("a", 1)),
        "completed" => drop(s.done("a", 1, "out")),
        "failed" => drop(s.fail("a", 1, PERMANENT, "x")),
        "cancelled" => {
            s.cancel_step("a");
            s.fail("a", 1, PERMANENT, "x");
        }
        "skipped" => drop(s.done("1", 1, "")),
        _ => {}
    }
    s.advance(2_000);
    let shown = if state == "due" { "retry_wait" } else { state };
    assert_eq!(s.step_state("a"), shown);
    s.seen();
    s
}

/// The current attempt in a state of [`at`].
fn attempt(state: &str) -> u32 {
    if matches!(state, "retry_wait" | "due") {
        2
    } else {
        1
    }
}

// ---- edges, slots ----

#[test]
fn table_edges_satisfied_or_impossible_in_pending() {
    let mut s = at("pending");
    s.done("0", 1, "");
    s.expect(&["step.completed 0:1", "step.dispatched a:1"]);
    let mut s = at("pending");
    s.fail("0", 1, PERMANENT, "x");
    s.expect(&["step.failed 0:1", "step.skipped a:1"]);
}

#[test]
fn table_slot_free_in_ready_and_retry_due() {
    for state in ["ready", "due"] {
        let mut s = at(state);
        s.done("0", 1, "");
        let label = format!("step.dispatched a:{}", attempt(state));
        assert_eq!(s.record(&label)["type"], "step.dispatched");
        let cause = if state == "ready" {
            "coordination.created"
        } else {
            "step.retry_scheduled a:1"
        };
        assert_eq!(s.cause(&label), cause);
    }
}

// ---- ack ----

#[test]
fn table_ack_before_dispatch_is_not_dispatched() {
    for state in NOT_OUT {
        let mut s = at(state);
        let attempt = attempt(state);
        assert_eq!(
            s.ack("a", attempt),
            "not-dispatched attempt stop",
            "{state}"
        );
        s.expect(&[&format!("input.rejected a:{attempt}")]);
        // A refusal is no identity: the same again is refused again.
        assert_eq!(
            s.ack("a", attempt),
            "not-dispatched attempt stop",
            "{state}"
        );
        s.expect(&[&format!("input.rejected a:{attempt}")]);
        s.expect_out(&[]);
    }
}

#[test]
fn table_ack_in_dispatched_is_acknowledged() {
    let mut s = at("dispatched");
    assert_eq!(s.ack("a", 1), "accepted acknowledged");
    s.expect(&["step.acknowledged a:1"]);
    s.expect_out(&[]);
    assert_eq!(s.cause("step.acknowledged a:1"), "step.dispatched a:1");
    assert_eq!(s.data("step.acknowledged a:1")["sourceSession"], "agent:a");
}

#[test]
fn table_ack_in_acknowledged_is_a_replay() {
    let mut s = at("acknowledged");
    assert_eq!(s.ack("a", 1), "replayed acknowledged");
    s.expect(&[]);
    // After an implied ack there is no identity; the present state is shown and nothing kept.
    let mut s = at("dispatched");
    s.progress("a", 1, 1);
    s.seen();
    for priority in [
        qm2_core::envelope::Priority::Low,
        qm2_core::envelope::Priority::High,
    ] {
        let envelope = qm2_core::envelope::Envelope {
            priority,
            ..ack("a", 1)
        };
        assert_eq!(brief(&s.submit(envelope)), "replayed acknowledged");
    }
    s.expect(&[]);
}

#[test]
fn table_ack_in_final_is_late() {
    for state in FINAL {
        let mut s = at(state);
        assert_eq!(s.ack("a", 1), format!("late {state}"));
        s.expect(&["input.late a:1"]);
        assert_eq!(s.ack("a", 1), format!("replayed {state}"));
        s.expect(&[]);
    }
}

// ---- reports ----

#[test]
fn table_reports_before_dispatch_are_not_dispatched() {
    for state in NOT_OUT {
        let mut s = at(state);
        let attempt = attempt(state);
        let refused = "not-dispatched attempt stop";
        assert_eq!(s.progress("a", attempt, 1), refused, "{state}");
        assert_eq!(s.done("a", attempt, ""), refused, "{state}");
        assert_eq!(s.fail("a", attempt, PERMANENT, "x"), refused, "{state}");
        s.expect(&[format!("input.rejected a:{attempt}").as_str(); 3]);
        assert_eq!(
            s.data(&format!("input.rejected a:{attempt}"))["part"],
            "end"
        );
    }
}

#[test]
fn table_progress_while_out_is_recorded_each_number_once() {
    for state in OUT {
        let mut s = at(state);
        assert_eq!(s.progress("a", 1, 5), "accepted acknowledged");
        assert_eq!(s.progress("a", 1, 6), "accepted acknowledged");
        s.expect(&["step.progress a:1", "step.progress a:1"]);
        assert_eq!(s.data("step.progress a:1")["number"], 6);
        let began = if state == "dispatched" {
            "step.dispatched a:1"
        } else {
            "step.acknowledged a:1"
        };
        assert_eq!(s.cause("step.progress a:1"), began);
        assert_eq!(s.progress("a", 1, 5), "replayed acknowledged");
        s.expect(&[]);
        s.expect_out(&[]);
    }
}

#[test]
fn table_completed_while_out_completes() {
    for state in OUT {
        let mut s = at(state);
        assert_eq!(s.done("a", 1, "out"), "accepted completed");
        s.expect(&["step.completed a:1"]);
        s.expect_out(&["-c:a:1"]);
        let data = s.data("step.completed a:1");
        assert_eq!(
            (&data["payload"], &data["by"]),
            (&json!("out"), &json!("report"))
        );
        assert_eq!(data.get("implicitAck").is_some(), state == "dispatched");
        let cause = if state == "dispatched" {
            "step.dispatched a:1"
        } else {
            "step.acknowledged a:1"
        };
        assert_eq!(s.cause("step.completed a:1"), cause);
        assert_eq!(s.done("a", 1, "out"), "replayed completed");
        s.expect(&[]);
    }
}

#[test]
fn table_failed_while_out_ends_the_attempt() {
    for state in OUT {
        let mut s = at(state);
        assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "accepted retry_wait");
        s.expect(&["step.retry_scheduled a:1"]);
        s.expect_out(&["-c:a:1"]);
        let data = s.data("step.retry_scheduled a:1");
        assert_eq!(
            (&data["dueMs"], &data["nextAttempt"]),
            (&json!(7_000), &json!(2))
        );
        assert_eq!(
            (&data["budgetLeft"], &data["free"]),
            (&json!(8), &json!(false))
        );
        assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "replayed retry_wait");

        let mut s = at(state);
        assert_eq!(s.fail("a", 1, PERMANENT, "x"), "accepted failed");
        s.expect(&["step.failed a:1"]);
        assert_eq!(s.data("step.failed a:1")["attempts"], 1);
    }
}

#[test]
fn table_reports_in_final_are_late_or_mismatched() {
    for state in FINAL {
        let mut s = at(state);
        assert_eq!(s.progress("a", 1, 1), format!("late {state}"));
        s.expect(&["input.late a:1"]);
        let known = matches!(state, "completed" | "failed" | "cancelled");
        let said = if known {
            "content-mismatch - fix".to_owned()
        } else {
            format!("late {state}")
        };
        assert_eq!(s.done("a", 1, "other"), said);
        s.expect(&[if known {
            "input.rejected a:1"
        } else {
            "input.late a:1"
        }]);
        assert_eq!(s.step_state("a"), state);
        s.expect_out(&[]);
    }
}

// ---- notices ----

#[test]
fn table_notices_change_nothing_where_the_attempt_is_not_out() {
    for state in NOT_OUT.into_iter().chain(FINAL) {
        for kind in [
            NoticeKind::UnknownTarget,
            NoticeKind::Dropped,
            NoticeKind::HostLost,
            NoticeKind::Taken,
        ] {
            let mut s = at(state);
            let shown = if state == "due" { "retry_wait" } else { state };
            assert_eq!(
                s.notice("a", attempt(state), kind),
                format!("replayed {shown}")
            );
            s.expect(&[]);
        }
    }
}

#[test]
fn table_unknown_target_and_dropped_end_a_dispatched_attempt_only() {
    for (kind, code) in [
        (NoticeKind::UnknownTarget, "unknown-target"),
        (NoticeKind::Dropped, "dropped"),
    ] {
        let mut s = at("dispatched");
        assert_eq!(s.notice("a", 1, kind), "accepted failed");
        s.expect(&["step.failed a:1"]);
        let data = s.data("step.failed a:1");
        assert_eq!(
            (&data["code"], &data["class"]),
            (&json!(code), &json!("permanent"))
        );
        assert!(data.get("implicitAck").is_none() && data.get("contentDigest").is_none());
        let mut s = at("acknowledged");
        assert_eq!(s.notice("a", 1, kind), "replayed acknowledged");
        s.expect(&[]);
    }
}

#[test]
fn table_host_lost_ends_an_attempt_that_is_out() {
    for state in OUT {
        let mut s = at(state);
        assert_eq!(
            s.notice("a", 1, NoticeKind::HostLost),
            "accepted retry_wait"
        );
        s.expect(&["step.retry_scheduled a:1", "step.dispatched a:2"]);
        s.expect_out(&["c:a:2#1 control", "-c:a:1"]);
        // Said again it is of an older attempt.
        assert_eq!(
            s.notice("a", 1, NoticeKind::HostLost),
            "replayed dispatched"
        );
        s.expect(&[]);
    }
}

#[test]
fn table_taken_records_nothing() {
    for state in OUT {
        let mut s = at(state);
        assert_eq!(
            s.notice("a", 1, NoticeKind::Taken),
            format!("replayed {state}")
        );
        s.expect(&[]);
    }
}

// ---- timers ----

#[test]
fn table_ack_deadline_redelivers_a_dispatched_attempt_and_no_other() {
    let mut s = at("dispatched");
    s.advance(20_000);
    s.expect(&["message.redelivered a:1"]);
    for state in NOT_OUT.into_iter().chain(["acknowledged"]).chain(FINAL) {
        let mut s = at(state);
        s.advance(20_000);
        let redelivered = s
            .labels()
            .iter()
            .any(|label| label == "message.redelivered a:1");
        assert!(!redelivered, "{state}");
    }
}

#[test]
fn table_attempt_deadline_ends_what_is_out() {
    for state in OUT {
        let mut s = at(state);
        s.advance(60_000);
        assert_eq!(s.data("step.retry_scheduled a:1")["class"], "timeout");
        assert_eq!(s.message("cancel:c:a:1").lane, "control");
        let mut s = with(state, |plan| plan.retries(0, &[1]));
        s.advance(60_000);
        let timed_out = json!({"deadlineMs": 60_000, "which": "attempt", "attempts": 1});
        assert_eq!(s.data("step.timed_out a:1"), timed_out);
        assert_eq!(s.cause("step.timed_out a:1"), "step.dispatched a:1");
    }
    for state in ["pending", "ready"] {
        let mut s = at(state);
        s.advance(61_000);
        s.expect(&[]);
    }
}

#[test]
fn table_plan_deadline_ends_everything_that_is_open() {
    let deadline = |plan: Json| plan.set("deadlineMs", 10_000);
    for (state, label, attempts) in [
        ("pending", "step.skipped a:1", 0),
        ("ready", "step.timed_out a:1", 0),
        ("retry_wait", "step.timed_out a:2", 1),
        ("due", "step.timed_out a:2", 1),
        ("dispatched", "step.timed_out a:1", 1),
        ("acknowledged", "step.timed_out a:1", 1),
    ] {
        // A retry at 7 000 would go out before the deadline.
        let mut s = with(state, |plan| {
            deadline(plan).retries(9, &[if state == "due" { 1 } else { 9_000 }])
        });
        s.advance(10_000);
        let data = s.data(label);
        match state {
            "pending" => assert_eq!(data["reason"], "plan_deadline"),
            _ => assert_eq!(
                data,
                json!({"deadlineMs": 10_000, "which": "plan", "attempts": attempts}),
                "{state}"
            ),
        }
        let told = s.labels().len();
        assert_eq!(s.state(), "final", "{state} {told}");
        let cancelled = OUT.contains(&state);
        let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            s.message("cancel:c:a:1").delivery
        }));
        assert_eq!(sent.is_ok(), cancelled, "{state}");
    }
}

#[test]
fn table_cleanup_grace_over_ends_cleanup_steps() {
    for (state, label) in [
        ("pending", "step.skipped a:1"),
        ("ready", "step.timed_out a:1"),
        ("dispatched", "step.timed_out a:1"),
        ("acknowledged", "step.timed_out a:1"),
    ] {
        let mut s = with(state, |mut plan| {
            for index in 0..3 {
                plan.0["steps"][index]["cleanup"] = json!(true);
            }
            plan.set("deadlineMs", 10_000).set("cleanupGraceMs", 5_000)
        });
        s.advance(14_999);
        assert_eq!(s.step_state("a"), state);
        s.advance(15_000);
        let data = s.data(label);
        match state {
            "pending" => assert_eq!(data["reason"], "plan_deadline"),
            _ => assert_eq!(
                (&data["which"], &data["deadlineMs"]),
                (&json!("cleanup"), &json!(15_000))
            ),
        }
    }
}

// ---- stops ----

#[test]
fn table_cancel_ends_what_is_not_out_and_gives_the_rest_the_grace() {
    for state in NOT_OUT {
        let mut s = at(state);
        s.cancel();
        let label = format!("step.cancelled a:{}", attempt(state));
        assert_eq!(
            s.data(&label),
            json!({"by": "cancel", "graceUsed": false}),
            "{state}"
        );
    }
    for state in OUT {
        let mut s = at(state);
        s.cancel();
        assert_eq!(s.step_state("a"), state);
        assert_eq!(s.message("cancel:c:a:1").delivery, 1);
        s.seen();
        s.advance(17_000);
        assert_eq!(
            s.data("step.cancelled a:1"),
            json!({"by": "cancel", "graceUsed": true})
        );
    }
    for state in FINAL {
        let mut s = at(state);
        s.cancel();
        assert_eq!(s.step_state("a"), state);
    }
}

#[test]
fn table_fail_fast_skips_what_is_not_out_and_gives_the_rest_the_grace() {
    let required = |mut plan: Json| {
        plan.0["steps"][1]["required"] = json!(true);
        plan
    };
    // In the narrow states step 1 waits as well, so that the trip comes from step 0.
    for state in NOT_OUT {
        let tripping = if matches!(state, "ready" | "due") {
            0
        } else {
            1
        };
        let mut s = with(state, |mut plan| {
            plan.0["steps"][tripping]["required"] = json!(true);
            plan
        });
        s.fail(&tripping.to_string(), 1, PERMANENT, "x");
        let label = format!("step.skipped a:{}", attempt(state));
        assert_eq!(
            s.data(&label),
            json!({"reason": "fail_fast", "dependsOn": []}),
            "{state}"
        );
    }
    for state in OUT {
        let mut s = with(state, required);
        s.fail("1", 1, PERMANENT, "x");
        assert_eq!(s.step_state("a"), state);
        assert_eq!(s.message("cancel:c:a:1").delivery, 1);
        s.advance(17_000);
        assert_eq!(
            s.data("step.cancelled a:1"),
            json!({"by": "fail_fast", "graceUsed": true})
        );
    }
}

#[test]
fn table_cleanup_stays_under_cancel_and_fail_fast() {
    let cleanup = |mut plan: Json| {
        plan.0["steps"][2]["cleanup"] = json!(true);
        plan.0["steps"][1]["required"] = json!(true);
        plan
    };
    for state in OUT {
        let mut s = with(state, cleanup);
        s.cancel();
        s.advance(50_000);
        assert_eq!(s.step_state("a"), state);
        let mut s = with(state, cleanup);
        s.fail("1", 1, PERMANENT, "x");
        s.advance(50_000);
        assert_eq!(s.step_state("a"), state);
    }
}
