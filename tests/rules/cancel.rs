//! Cancellation. Of a plan, of one step, within the grace and after it, twice, and over a restart.

use crate::support::*;
use qm2_core::envelope::{DeliveryMode, Envelope, FailureClass, Intent, Priority};
use qm2_core::message::NoticeKind;
use serde_json::json;

const PERMANENT: FailureClass = FailureClass::Permanent;
const RETRYABLE: FailureClass = FailureClass::Retryable;

/// a is out, acked too, later waits for a, ready waits for a slot, retrying for its time.
fn mixed() -> Scenario {
    let mut s = Scenario::with(|config| config.max_in_flight = 3);
    s.plan(
        plan([
            step("a"),
            step("acked"),
            step("later").after("a"),
            step("ready0"),
            step("ready1"),
        ])
        .retries(9, &[40_000]),
    );
    s.ack("acked", 1);
    s.fail("ready0", 1, RETRYABLE, "x");
    s.seen();
    s
}

#[test]
fn r_37_what_is_not_out_is_cancelled_at_once_and_what_is_out_gets_a_message_and_the_grace() {
    let mut s = mixed();
    s.now_ms = 1_000;
    let reason = Some("changed my mind".to_owned());
    assert_eq!(
        brief(&s.submit(Envelope { reason, ..cancel() })),
        "accepted stopping"
    );
    s.expect(&[
        "coordination.cancel_requested",
        "step.cancelled later:1",
        "step.cancelled ready0:2",
    ]);
    let requested = json!({"by": OWNER, "reason": "changed my mind", "graceUntilMs": 16_000});
    assert_eq!(s.data("coordination.cancel_requested"), requested);
    assert_eq!(
        s.cause("coordination.cancel_requested"),
        "coordination.created"
    );
    for idle in ["step.cancelled later:1", "step.cancelled ready0:2"] {
        assert_eq!(s.data(idle), json!({"by": "cancel", "graceUsed": false}));
        assert_eq!(s.cause(idle), "coordination.cancel_requested");
    }
    let out = ["a:1", "acked:1", "ready1:1"].map(|step| format!("cancel:c:{step}#1 control"));
    s.expect_out(&out.each_ref().map(String::as_str));
    let message = s.message("cancel:c:a:1");
    assert_eq!(
        (message.priority, message.delivery_mode),
        (Priority::Critical, DeliveryMode::AtLeastOnce)
    );
    assert_eq!(message.envelope.intent, Intent::Cancel);
    assert_eq!(message.envelope.attempt, Some(1));
    assert_eq!(message.envelope.target_session, "agent:a");
    assert_eq!(s.describe("c")["steps"][0]["graceUntilMs"], 16_000);
    assert_eq!(s.waits_for("a")["kind"], "grace");

    // An end within the grace stands.
    assert_eq!(s.done("a", 1, ""), "accepted completed");
    s.expect(&["step.completed a:1"]);
    s.advance(15_999);
    s.expect(&[]);
    s.advance(16_000);
    s.expect(&[
        "step.cancelled acked:1",
        "step.cancelled ready1:1",
        "coordination.terminal",
    ]);
    assert_eq!(
        s.data("step.cancelled acked:1"),
        json!({"by": "cancel", "graceUsed": true})
    );
    assert_eq!(s.data("coordination.terminal")["reason"], "cancelled");
    assert_eq!(s.done("acked", 1, "late"), "late cancelled");
}

#[test]
fn r_37_a_failure_within_the_grace_is_a_cancelled_step_and_its_report_is_known() {
    let mut s = mixed();
    s.cancel();
    s.seen();
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "accepted cancelled");
    s.expect(&["step.cancelled a:1"]);
    s.expect_out(&["cancel:c:a:1#1 control", "-c:a:1"]);
    assert_eq!(s.data("step.cancelled a:1")["graceUsed"], true);
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "replayed cancelled");
    assert_eq!(s.fail("a", 1, PERMANENT, "y"), "content-mismatch - fix");
}

#[test]
fn r_37_a_plan_may_lower_the_grace() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).set("cancelGraceMs", 200));
    s.cancel();
    assert_eq!(s.data("coordination.cancel_requested")["graceUntilMs"], 200);
    s.advance(200);
    assert_eq!(s.data("coordination.terminal")["terminal"], "failed");
    let refused = s.try_plan(
        plan([step("a")])
            .set("coordinationId", "c2")
            .set("cancelGraceMs", 15_001),
    );
    assert_eq!(refused.unwrap_err().problems[0].field, "cancelGraceMs");
}

#[test]
fn r_38_deadlines_keep_running_under_a_cancel() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").set("timeoutMs", 5_000),
        step("b").set("ackTimeoutMs", 3_000),
    ]));
    s.cancel();
    s.seen();
    s.advance(3_000);
    s.expect(&["message.redelivered b:1"]);
    s.advance(5_000);
    s.expect(&["step.timed_out a:1"]);
    assert_eq!(s.data("step.timed_out a:1")["which"], "attempt");
}

#[test]
fn r_38_nothing_but_cleanup_is_retried_under_a_cancel() {
    let mut s = Scenario::new();
    let sweep = step("sweep").on("a", "always").set("cleanup", true);
    s.plan(plan([step("a"), step("b"), step("d"), sweep]).retries(9, &[0]));
    s.cancel();
    assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "accepted cancelled");
    assert_eq!(
        s.fail("b", 1, FailureClass::Unknown, "x"),
        "accepted cancelled"
    );
    assert_eq!(s.notice("d", 1, NoticeKind::HostLost), "accepted cancelled");
    assert_eq!(s.fail("sweep", 1, RETRYABLE, "x"), "accepted retry_wait");
    assert_eq!(s.done("sweep", 2, ""), "accepted completed");
}

#[test]
fn r_39_a_second_cancel_and_one_of_a_final_plan_change_nothing() {
    let mut s = mixed();
    s.cancel();
    s.seen();
    assert_eq!(s.cancel(), "replayed stopping");
    // Cancel has no identity: other content is the same cancel.
    let other = Envelope {
        reason: Some("other".into()),
        ..cancel()
    };
    assert_eq!(brief(&s.submit(other)), "replayed stopping");
    assert_eq!(s.cancel_step("a"), "replayed dispatched");
    assert_eq!(s.cancel_step("later"), "replayed cancelled");
    s.expect(&[]);
    s.expect_out(&[]);
    s.advance(15_000);
    s.seen();
    assert_eq!(s.cancel(), "replayed final");
    s.expect(&[]);
}

#[test]
fn r_39_a_cancel_of_one_step_stops_only_that_step_and_counts_as_failed() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b"),
        step("after-a").after("a"),
        step("fallback").on("a", "failure"),
    ]));
    s.seen();
    assert_eq!(s.cancel_step("a"), "accepted dispatched");
    s.expect(&["coordination.cancel_requested a:1"]);
    s.expect_out(&["cancel:c:a:1#1 control"]);
    assert_eq!(s.cancel_step("a"), "replayed dispatched");
    assert_eq!(s.state(), "open");
    s.advance(15_000);
    // Cancelled is neither success nor failure.
    s.expect(&[
        "step.cancelled a:1",
        "step.skipped after-a:1",
        "step.skipped fallback:1",
    ]);
    assert_eq!(
        s.cause("step.cancelled a:1"),
        "coordination.cancel_requested a:1"
    );
    s.done("b", 1, "");
    let terminal = s.data("coordination.terminal");
    assert_eq!(
        (&terminal["terminal"], &terminal["reason"]),
        (&json!("partial"), &json!("steps_failed"))
    );
}

#[test]
fn r_39_a_cancel_of_one_step_that_is_not_out_ends_it_at_once() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b").after("a"),
        step("sweep").after("a").set("cleanup", true),
    ]));
    s.seen();
    assert_eq!(s.cancel_step("b"), "accepted cancelled");
    s.expect(&["coordination.cancel_requested b:1", "step.cancelled b:1"]);
    s.expect_out(&[]);
    // Named by itself also a cleanup step stops.
    assert_eq!(s.cancel_step("sweep"), "accepted cancelled");
    assert_eq!(s.cancel_step("b"), "replayed cancelled");
    s.done("a", 1, "");
    assert_eq!(s.data("coordination.terminal")["terminal"], "partial");
}

#[test]
fn r_40_a_cancel_is_sticky_across_a_restart() {
    let mut s = mixed();
    s.now_ms = 1_000;
    s.cancel();
    s.restart();
    s.seen();
    assert_eq!(s.state(), "stopping");
    s.reconcile();
    // What is out is asked for or sent again, and cancelled again.
    s.expect_out(&[
        "c:a:1#1 control",
        "cancel:c:a:1#1 control",
        "probe:c:acked:1#1 control",
        "cancel:c:acked:1#1 control",
        "c:ready1:1#1 control",
        "cancel:c:ready1:1#1 control",
    ]);
    assert_eq!(s.cancel(), "replayed stopping");
    s.advance(16_000);
    s.expect(&[
        "step.cancelled a:1",
        "step.cancelled acked:1",
        "step.cancelled ready1:1",
        "coordination.terminal",
    ]);
}

#[test]
fn r_40_no_new_step_starts_under_a_cancel_except_cleanup_of_the_plan() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("work").on("a", "always"),
        step("sweep").on("a", "always").set("cleanup", true),
    ]));
    s.cancel();
    s.done("a", 1, "");
    s.advance(15_000);
    assert_eq!(s.step_state("work"), "cancelled");
    assert_eq!(s.step_state("sweep"), "dispatched");
    // The id stays taken: the plan is not started anew by submitting it again.
    assert_eq!(s.describe("c")["state"], "stopping");
}
