//! The end of a plan and of its results: R-20 and R-22.

use crate::support::*;
use qm2_core::envelope::{Envelope, FailureClass, PayloadRef};
use serde_json::{Value, json};

const PERMANENT: FailureClass = FailureClass::Permanent;

fn terminal(s: &Scenario) -> (String, Option<String>) {
    let data = s.data("coordination.terminal");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    (text(&data["terminal"]).unwrap(), text(&data["reason"]))
}

/// Asserts how the coordination ended.
#[track_caller]
pub fn ends(s: &Scenario, state: &str, reason: Option<&str>) {
    assert_eq!(terminal(s), (state.to_owned(), reason.map(str::to_owned)));
}

#[test]
fn r_20_success_if_all_completed() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]));
    s.done("a", 1, "");
    s.done("b", 1, "");
    ends(&s, "success", None);
    assert_eq!(s.cause("coordination.terminal"), "step.completed b:1");
    let plan_digest = &s.data("coordination.created")["planDigest"];
    assert_eq!(&s.data("coordination.terminal")["planDigest"], plan_digest);
}

#[test]
fn r_20_a_failure_whose_fallback_completed_is_handled() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("f").on("a", "failure"),
        step("b").after("a"),
        step("c").after("b"),
    ]));
    s.fail("a", 1, PERMANENT, "x");
    assert_eq!(s.data("step.skipped b:1")["reason"], "upstream_failed");
    s.done("f", 1, "");
    // What was skipped because of it counts as if by condition.
    ends(&s, "success", None);
}

#[test]
fn r_20_handled_is_passed_on_along_failure_edges() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").set("timeoutMs", 5),
        step("f").on("a", "failure"),
        step("g").on("f", "failure"),
    ]));
    s.advance(5);
    s.fail("f", 1, PERMANENT, "x");
    s.done("g", 1, "");
    ends(&s, "success", None);
}

#[test]
fn r_20_a_skip_with_two_causes_is_spoiled_by_the_one_that_is_not_handled() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("f").on("a", "failure"),
        step("x").set("timeoutMs", 9_000),
        step("both").after("a").after("x").set("join", "any"),
    ]));
    s.fail("a", 1, PERMANENT, "x");
    s.fail("x", 1, PERMANENT, "x");
    s.done("f", 1, "");
    ends(&s, "partial", Some("steps_failed"));
}

#[test]
fn r_20_partial_if_something_completed_else_failed() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]));
    s.done("a", 1, "");
    s.fail("b", 1, PERMANENT, "x");
    ends(&s, "partial", Some("steps_failed"));

    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]));
    s.fail("a", 1, PERMANENT, "x");
    ends(&s, "failed", Some("steps_failed"));
}

#[test]
fn r_20_a_cancel_that_ended_a_step_is_failed_and_one_that_ended_none_is_not() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]));
    s.done("a", 1, "");
    s.cancel();
    s.advance(15_000);
    ends(&s, "failed", Some("cancelled"));

    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]));
    s.cancel();
    s.done("a", 1, "");
    s.done("b", 1, "");
    ends(&s, "success", None);
}

#[test]
fn r_20_cleanup_counts_in_no_test() {
    let mut s = Scenario::new();
    s.plan(
        plan([
            step("a"),
            step("sweep").on("a", "always").set("cleanup", true),
        ])
        .fail_fast(),
    );
    s.done("a", 1, "");
    s.fail("sweep", 1, PERMANENT, "x");
    ends(&s, "success", None);
    assert_eq!(s.data("coordination.terminal")["counts"]["failed"], 1);

    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("sweep").on("a", "always").set("cleanup", true),
    ]));
    s.fail("a", 1, PERMANENT, "x");
    s.done("sweep", 1, "");
    ends(&s, "failed", Some("steps_failed"));
}

/// `b` and `c` wait, one behind the other, for cleanup that fails.
fn behind_cleanup(more: Option<Json>) -> Scenario {
    let mut s = Scenario::new();
    let steps = [
        step("a"),
        step("sweep").set("cleanup", true),
        step("b").after("sweep"),
        step("c").after("b"),
    ];
    s.plan(plan(steps.into_iter().chain(more)));
    s.done("a", 1, "");
    s.fail("sweep", 1, PERMANENT, "x");
    s
}

/// R-15: what waited for cleanup that failed was not done.
#[test]
fn r_20_a_skip_behind_failed_cleanup_is_spoiled() {
    let s = behind_cleanup(None);
    assert_eq!(s.data("step.skipped c:1")["reason"], "upstream_failed");
    ends(&s, "partial", Some("steps_failed"));
}

#[test]
fn r_20_a_skip_behind_cleanup_whose_failure_is_handled_is_not() {
    let mut s = behind_cleanup(Some(step("f").on("sweep", "failure")));
    s.done("f", 1, "");
    ends(&s, "success", None);
}

/// Neither a completed step, nor one that was skipped by condition, nor one whose end was all that counted is to blame.
#[test]
fn r_20_only_dead_edges_spoil_a_skip() {
    let mut s = Scenario::new();
    let late = step("late").after("sweep").after("not").after("a");
    s.plan(plan([
        step("a"),
        step("sweep").set("cleanup", true),
        step("tidy").set("cleanup", true),
        step("f").on("sweep", "failure"),
        step("not").on("a", "failure"),
        late.on("tidy", "always").on("a", "failure"),
    ]));
    s.fail("tidy", 1, PERMANENT, "x");
    s.fail("sweep", 1, PERMANENT, "x");
    assert_eq!(s.data("step.skipped late:1")["reason"], "upstream_failed");
    s.done("a", 1, "");
    s.done("f", 1, "");
    ends(&s, "success", None);
}

/// R-18: the deadline ends what had not begun as well, and cleanup goes on within its grace.
#[test]
fn r_20_a_deadline_at_which_only_cleanup_is_at_work_stops_the_plan() {
    let mut s = Scenario::new();
    s.plan(
        plan([
            step("k").set("cleanup", true).set("timeoutMs", 900_000),
            step("b").after("k"),
        ])
        .set("deadlineMs", 1_000),
    );
    s.ack("k", 1);
    s.seen();
    s.advance(1_000);
    s.expect(&["step.skipped b:1"]);
    assert_eq!(s.data("step.skipped b:1")["reason"], "plan_deadline");
    assert_eq!(s.state(), "stopping");
    s.advance(60_999);
    s.expect(&[]);
    s.advance(61_000);
    s.expect(&["step.timed_out k:1", "coordination.terminal"]);
    ends(&s, "failed", Some("plan_deadline"));
}

#[test]
fn r_22_an_empty_result_completes_where_it_is_allowed() {
    let mut s = Scenario::new();
    let allowed =
        json!({"allowEmpty": true, "contentType": "application/json", "requiredFields": ["x"]});
    s.plan(plan([
        step("a"),
        step("b").set("expectedOutput", allowed),
        step("d").set("expectedOutput", json!({})),
    ]));
    assert_eq!(s.done("a", 1, ""), "accepted completed");
    assert_eq!(s.done("b", 1, ""), "accepted completed");
    let none = Envelope {
        payload: None,
        ..done("d", 1, "")
    };
    assert_eq!(brief(&s.submit(none)), "accepted failed");
    let data = s.data("step.failed d:1");
    assert_eq!(
        (&data["code"], &data["class"]),
        (&json!("output-mismatch"), &json!("retryable"))
    );
}

#[test]
fn r_22_a_result_that_is_not_as_expected_is_a_retryable_mismatch() {
    let expected =
        json!({"contentType": "application/json", "requiredFields": ["x", "y"], "maxBytes": 20});
    let with = |payload: &str, content_type: Option<&str>| Envelope {
        content_type: content_type.map(str::to_owned),
        ..done("a", 1, payload)
    };
    let json_type = Some("application/json");
    let rows = [
        (with(r#"{"x":1,"y":2}"#, json_type), None),
        (with(r#"{"x":1,"y":2}"#, None), Some("content type is none")),
        (
            with(r#"{"x":1,"y":2}"#, Some("text/plain")),
            Some("content type is text/plain"),
        ),
        (
            with(r#"{"x":1,"y":"aaaaaaaa"}"#, json_type),
            Some("has 22 bytes; 20 are allowed"),
        ),
        (with(r#"{"x":1}"#, json_type), Some("no member y")),
        (with("[1]", json_type), Some("not a JSON object")),
        (with("", json_type), Some("empty")),
    ];
    for (report, mismatch) in rows {
        let mut s = Scenario::new();
        s.plan(plan([step("a").set("expectedOutput", expected.clone())]).retries(1, &[7]));
        match mismatch {
            None => assert_eq!(brief(&s.submit(report)), "accepted completed"),
            Some(says) => {
                assert_eq!(brief(&s.submit(report.clone())), "accepted retry_wait");
                let data = s.data("step.retry_scheduled a:1");
                assert_eq!(
                    (&data["code"], &data["class"]),
                    (&json!("output-mismatch"), &json!("retryable"))
                );
                let message = data["message"].as_str().unwrap();
                assert!(message.contains(says), "{says} in {message}");
                assert_eq!(brief(&s.submit(report)), "replayed retry_wait");
            }
        }
    }
    // What is kept elsewhere is measured by its reference.
    let reference = PayloadRef {
        uri: "u".into(),
        sha256: "0".repeat(64),
        bytes: 21,
    };
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").set("expectedOutput", json!({"maxBytes": 20}))
    ]));
    let report = Envelope {
        payload: None,
        payload_ref: Some(reference),
        ..done("a", 1, "")
    };
    assert_eq!(brief(&s.submit(report)), "accepted failed");
}

#[test]
fn r_22_late_and_wrong_is_late() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a")
            .set("expectedOutput", json!({}))
            .set("timeoutMs", 100),
        step("z"),
    ]));
    s.seen();
    s.now_ms = 100;
    assert_eq!(s.done("a", 1, ""), "late timed_out");
    s.expect(&["step.timed_out a:1", "input.late a:1"]);
}
