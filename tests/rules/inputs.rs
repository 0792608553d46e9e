//! Every input of plans, envelopes and time in its four cases: happy, wrong, repeated, and too late.
//!
//! What each means is read off the step table and rules of SPEC section 5. Hosts', hooks' and people's words and claims are in
//! `inputs_host.rs`; `tests/vectors.rs` tests that no input lacks a case.

use crate::support::*;
use qm2_core::envelope::{Envelope, FailureClass};
use qm2_core::limit::TIME_MS_MAX;
use qm2_core::receipt::CallError;
use qm2_host::engine::Call;
use serde_json::json;

const PERMANENT: FailureClass = FailureClass::Permanent;
const RETRYABLE: FailureClass = FailureClass::Retryable;

const FOREIGN: &str = "unauthorized-session sourceSession ask";
const MISMATCH: &str = "content-mismatch - fix";

/// Step `a` is out with a deadline at 1 000, `b` waits for it, `z` keeps the plan open; everything so far is seen.
fn running() -> Scenario {
    let mut s = Scenario::new();
    let a = step("a").set("timeoutMs", 1_000).set("maxAttempts", 2);
    s.plan(plan([a, step("b").after("a"), step("z")]).retries(1, &[500]));
    s.seen();
    s
}

/// Somebody else says it.
fn foreign(s: &mut Scenario, envelope: Envelope) -> String {
    brief(&s.submit(envelope.by("agent:x")))
}

#[track_caller]
fn refused_on(s: &mut Scenario, step: &str, code: &str) {
    let label = format!("input.rejected {step}:1");
    s.expect(&[&label]);
    s.expect_out(&[]);
    assert_eq!(s.data(&label)["code"], code);
}

#[track_caller]
fn nothing(s: &mut Scenario) {
    s.expect(&[]);
    s.expect_out(&[]);
}

// ---- configure ----

#[test]
fn configure_happy() {
    let mut s = Scenario::blank();
    assert_eq!(s.configure(|_| {}), Ok(()));
    s.expect(&["ledger.genesis"]);
    assert_eq!(s.data("ledger.genesis")["domain"], "d");
    assert_eq!(s.record("ledger.genesis")["atMs"], 0);
    assert_eq!(s.configure(|config| config.max_in_flight = 1), Ok(()));
    s.expect(&["domain.configured"]);
    assert_eq!(s.cause("domain.configured"), "ledger.genesis");
    // It is in force for the next plan.
    s.plan(plan([step("a"), step("b")]));
    s.expect(&["coordination.created", "step.dispatched a:1"]);
}

#[test]
fn configure_wrong() {
    let mut s = Scenario::blank();
    for text in [
        "",
        "[]",
        r#"{"phase1":{"enabled":true}}"#,
        r#"{"domain":"a:b"}"#,
        r#"{"domain":"d","colour":1}"#,
        r#"{"domain":"d","maxInFlight":0}"#,
        r#"{"domain":"d","hooks":["before_lunch"]}"#,
    ] {
        let refused = s.configure_text(text);
        assert!(
            matches!(refused, Err(CallError::InvalidConfig(_))),
            "{text}: {refused:?}"
        );
    }
    s.expect(&[]);
    assert_eq!(s.call(&Call::NextDeadline), Err(CallError::Disabled));
}

#[test]
fn configure_repeated() {
    let mut s = Scenario::blank();
    s.configure(|config| config.session_in_flight = 2).unwrap();
    s.seen();
    s.configure(|config| config.session_in_flight = 2).unwrap();
    s.expect(&[]);
}

#[test]
fn configure_too_late() {
    // What the first configuration fixed.
    let mut s = Scenario::new();
    for text in [
        r#"{"domain":"other","phase1":{"enabled":true}}"#.to_owned(),
        format!(r#"{{"domain":"d","prevDomainHead":"{}"}}"#, "0".repeat(64)),
    ] {
        let refused = s.configure_text(&text);
        assert!(
            matches!(refused, Err(CallError::InvalidConfig(_))),
            "{refused:?}"
        );
    }
    s.expect(&[]);
    assert_eq!(s.describe("")["domain"], "d");
}

// ---- submit-plan ----

#[test]
fn submit_plan_happy() {
    let mut s = Scenario::new();
    let receipt = s.plan(plan([step("a"), step("b").after("a")]));
    assert_eq!((receipt.state.as_str(), receipt.replayed), ("open", false));
    s.expect(&["coordination.created", "step.dispatched a:1"]);
    s.expect_out(&["c:a:1#1 control"]);
    assert_eq!(receipt.created_seq, s.seq("coordination.created"));
}

#[test]
fn submit_plan_wrong() {
    let mut s = Scenario::new();
    let twice = plan([step("b").after("b"), step("a").after("nobody"), step("a")]);
    let refused = s.try_plan(twice).unwrap_err();
    assert_eq!(brief_rejection(&refused), "invalid-plan - fix");
    let steps: Vec<_> = refused
        .problems
        .iter()
        .map(|problem| &problem.step_id)
        .collect();
    assert!(steps.len() >= 3 && steps.is_sorted(), "{steps:?}");
    let refused = s
        .submit_plan("user:x", &plan([step("a")]).text())
        .unwrap_err();
    assert_eq!(
        brief_rejection(&refused),
        "unauthorized-session ownerSession ask"
    );
    nothing(&mut s);
}

#[test]
fn submit_plan_repeated() {
    let mut s = running();
    let the_plan = plan([step("n")]).set("coordinationId", "n");
    let first = s.plan(the_plan.clone());
    s.seen();
    let again = s.plan(the_plan);
    assert!(again.replayed && again.created_seq == first.created_seq);
    nothing(&mut s);
}

#[test]
fn submit_plan_too_late() {
    let mut s = Scenario::new();
    s.now_ms = 1_000;
    let refused = s
        .try_plan(plan([step("a")]).set("deadlineMs", 1_000))
        .unwrap_err();
    assert_eq!(brief_rejection(&refused), "deadline-past deadlineMs stop");
    nothing(&mut s);
    // After its end: the handle of the one that ended, and the id stays taken.
    s.plan(plan([step("a")]).set("deadlineMs", 1_001));
    s.done("a", 1, "");
    s.read_all();
    s.now_ms = 5_000;
    s.seen();
    let again = s.plan(plan([step("a")]).set("deadlineMs", 1_001));
    assert_eq!(again.state, "closed");
    assert_eq!(again.terminal.as_deref(), Some("success"));
    let refused = s.try_plan(plan([step("other")])).unwrap_err();
    assert_eq!(
        brief_rejection(&refused),
        "plan-conflict coordinationId fix"
    );
    nothing(&mut s);
}

// ---- ack ----

#[test]
fn ack_happy() {
    let mut s = running();
    assert_eq!(s.ack("a", 1), "accepted acknowledged");
    s.expect(&["step.acknowledged a:1"]);
    assert_eq!(s.cause("step.acknowledged a:1"), "step.dispatched a:1");
}

#[test]
fn ack_wrong() {
    let mut s = running();
    assert_eq!(foreign(&mut s, ack("a", 1)), FOREIGN);
    refused_on(&mut s, "a", "unauthorized-session");
    assert_eq!(s.ack("a", 2), "unknown-attempt attempt fix");
    refused_on(&mut s, "a", "unknown-attempt");
    assert_eq!(s.ack("b", 1), "not-dispatched attempt stop");
    refused_on(&mut s, "b", "not-dispatched");
    assert_eq!(s.ack("nobody", 1), "unknown-step stepId fix");
    nothing(&mut s);
}

#[test]
fn ack_repeated() {
    let mut s = running();
    s.ack("a", 1);
    s.seen();
    assert_eq!(s.ack("a", 1), "replayed acknowledged");
    nothing(&mut s);
    let other = Envelope {
        payload: Some("x".into()),
        ..ack("a", 1)
    };
    assert_eq!(brief(&s.submit(other)), MISMATCH);
    refused_on(&mut s, "a", "content-mismatch");
}

#[test]
fn ack_too_late() {
    // Of an attempt that has ended, and of a step that has.
    let mut s = running();
    s.fail("a", 1, RETRYABLE, "x");
    s.seen();
    assert_eq!(s.ack("a", 1), "late retry_wait");
    s.expect(&["input.late a:1"]);
    s.done("z", 1, "");
    s.seen();
    assert_eq!(s.ack("z", 1), "late completed");
    s.expect(&["input.late z:1"]);
    s.expect_out(&[]);
}

// ---- reports ----

#[test]
fn report_completed_happy() {
    let mut s = running();
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.expect(&["step.completed a:1", "step.dispatched b:1"]);
    s.expect_out(&["c:b:1#1 control", "-c:a:1"]);
    let data = s.data("step.completed a:1");
    assert_eq!(
        (&data["payload"], &data["implicitAck"]),
        (&json!("out"), &json!(true))
    );
    assert_eq!(s.cause("step.dispatched b:1"), "step.completed a:1");
}

#[test]
fn report_completed_wrong() {
    let mut s = running();
    assert_eq!(foreign(&mut s, done("a", 1, "")), FOREIGN);
    refused_on(&mut s, "a", "unauthorized-session");
    assert_eq!(s.done("b", 1, ""), "not-dispatched attempt stop");
    refused_on(&mut s, "b", "not-dispatched");
    // Not as expected: the attempt ends, and may be retried.
    let mut s = Scenario::new();
    let a = step("a").set("expectedOutput", json!({"requiredFields": ["url"]}));
    s.plan(plan([a]).retries(1, &[500]));
    s.seen();
    assert_eq!(s.done("a", 1, r#"{"uri":1}"#), "accepted retry_wait");
    s.expect(&["step.retry_scheduled a:1"]);
    assert_eq!(
        s.data("step.retry_scheduled a:1")["code"],
        "output-mismatch"
    );
}

#[test]
fn report_completed_repeated() {
    let mut s = running();
    s.done("a", 1, "out");
    s.seen();
    assert_eq!(s.done("a", 1, "out"), "replayed completed");
    nothing(&mut s);
    assert_eq!(s.done("a", 1, "other"), MISMATCH);
    refused_on(&mut s, "a", "content-mismatch");
}

#[test]
fn report_completed_too_late() {
    let mut s = running();
    s.now_ms = 1_000;
    assert_eq!(s.done("a", 1, "out"), "late retry_wait");
    s.expect(&["step.retry_scheduled a:1", "input.late a:1"]);
    assert_eq!(s.data("input.late a:1")["payload"], "out");
    assert_eq!(s.cause("input.late a:1"), "step.retry_scheduled a:1");
    // It is known from then on.
    assert_eq!(s.done("a", 1, "out"), "replayed retry_wait");
    s.expect(&[]);
}

#[test]
fn report_failed_happy() {
    let mut s = running();
    assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "accepted retry_wait");
    s.expect(&["step.retry_scheduled a:1"]);
    let retry = s.data("step.retry_scheduled a:1");
    assert_eq!(
        (&retry["dueMs"], &retry["budgetLeft"]),
        (&json!(500), &json!(0))
    );
    s.advance(500);
    s.expect(&["step.dispatched a:2"]);
    // maxAttempts and budget are used up.
    assert_eq!(s.fail("a", 2, RETRYABLE, "y"), "accepted failed");
    s.expect(&["step.failed a:2", "step.skipped b:1"]);
    assert_eq!(s.data("step.failed a:2")["attempts"], 2);
}

#[test]
fn report_failed_wrong() {
    let mut s = running();
    assert_eq!(foreign(&mut s, failed("a", 1, PERMANENT, "x")), FOREIGN);
    refused_on(&mut s, "a", "unauthorized-session");
    assert_eq!(
        s.fail("a", 2, PERMANENT, "x"),
        "unknown-attempt attempt fix"
    );
    refused_on(&mut s, "a", "unknown-attempt");
    assert_eq!(
        s.fail("a", 1, PERMANENT, "no id"),
        "invalid-field outcome.failed.code fix"
    );
    nothing(&mut s);
    assert_eq!(
        s.fail("b", 1, PERMANENT, "x"),
        "not-dispatched attempt stop"
    );
    refused_on(&mut s, "b", "not-dispatched");
}

#[test]
fn report_failed_repeated() {
    let mut s = running();
    s.fail("a", 1, RETRYABLE, "x");
    s.seen();
    assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "replayed retry_wait");
    nothing(&mut s);
    assert_eq!(s.fail("a", 1, RETRYABLE, "y"), MISMATCH);
    s.expect(&["input.rejected a:2"]);
}

#[test]
fn report_failed_too_late() {
    let mut s = running();
    s.advance(1_000);
    s.advance(1_500);
    s.seen();
    // Of the attempt before: the one that runs is not touched.
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "late dispatched");
    s.expect(&["input.late a:1"]);
    s.advance(2_500);
    s.expect(&["step.timed_out a:2", "step.skipped b:1"]);
    assert_eq!(s.fail("a", 2, PERMANENT, "x"), "late timed_out");
    s.expect(&["input.late a:2"]);
}

#[test]
fn report_progress_happy() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").claim(json!({"resource": "file:x", "leaseMs": 5_000}))
    ]));
    s.now_ms = 4_000;
    s.seen();
    assert_eq!(s.progress("a", 1, 7), "accepted acknowledged");
    s.expect(&["step.progress a:1", "claim.renewed a:1"]);
    assert_eq!(s.data("claim.renewed a:1")["expiresMs"], 9_000);
    assert_eq!(s.data("step.progress a:1")["number"], 7);
}

#[test]
fn report_progress_wrong() {
    let mut s = running();
    assert_eq!(foreign(&mut s, progress("a", 1, 1)), FOREIGN);
    refused_on(&mut s, "a", "unauthorized-session");
    assert_eq!(s.progress("a", 2, 1), "unknown-attempt attempt fix");
    refused_on(&mut s, "a", "unknown-attempt");
    assert_eq!(s.progress("b", 1, 1), "not-dispatched attempt stop");
    refused_on(&mut s, "b", "not-dispatched");
}

#[test]
fn report_progress_repeated() {
    let mut s = running();
    s.progress("a", 1, 1);
    s.seen();
    assert_eq!(s.progress("a", 1, 1), "replayed acknowledged");
    nothing(&mut s);
    let other = Envelope {
        payload: Some("half".into()),
        ..progress("a", 1, 1)
    };
    assert_eq!(brief(&s.submit(other)), MISMATCH);
    refused_on(&mut s, "a", "content-mismatch");
    // Another number is another report.
    assert_eq!(s.progress("a", 1, 2), "accepted acknowledged");
    s.expect(&["step.progress a:1"]);
}

#[test]
fn report_progress_too_late() {
    let mut s = running();
    s.now_ms = 1_000;
    assert_eq!(s.progress("a", 1, 1), "late retry_wait");
    s.expect(&["step.retry_scheduled a:1", "input.late a:1"]);
    assert_eq!(s.data("input.late a:1")["part"], "progress:1");
}

// ---- cancel ----

#[test]
fn cancel_plan_happy() {
    let mut s = running();
    assert_eq!(s.cancel(), "accepted stopping");
    s.expect(&["coordination.cancel_requested", "step.cancelled b:1"]);
    s.expect_out(&["cancel:c:a:1#1 control", "cancel:c:z:1#1 control"]);
    // An end within the grace stands; what does not end is ended.
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.advance(15_000);
    s.expect(&[
        "step.completed a:1",
        "step.cancelled z:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("coordination.terminal")["reason"], "cancelled");
}

#[test]
fn cancel_plan_wrong() {
    let mut s = running();
    assert_eq!(foreign(&mut s, cancel()), FOREIGN);
    let unknown = "unknown-coordination coordinationId fix";
    assert_eq!(brief(&s.submit(cancel().of("nowhere"))), unknown);
    let numbered = Envelope {
        attempt: Some(1),
        ..cancel()
    };
    assert_eq!(brief(&s.submit(numbered)), "invalid-field attempt fix");
    nothing(&mut s);
}

#[test]
fn cancel_plan_repeated() {
    let mut s = running();
    s.cancel();
    s.seen();
    assert_eq!(s.cancel(), "replayed stopping");
    let other = Envelope {
        reason: Some("other".into()),
        ..cancel()
    };
    assert_eq!(brief(&s.submit(other)), "replayed stopping");
    nothing(&mut s);
}

#[test]
fn cancel_plan_too_late() {
    let mut s = running();
    s.done("a", 1, "");
    s.done("b", 1, "");
    s.done("z", 1, "");
    s.seen();
    assert_eq!(s.cancel(), "replayed final");
    nothing(&mut s);
    s.read_all();
    s.seen();
    assert_eq!(s.cancel(), "closed coordinationId stop");
    nothing(&mut s);
}

#[test]
fn cancel_step_happy() {
    let mut s = running();
    assert_eq!(s.cancel_step("a"), "accepted dispatched");
    s.expect(&["coordination.cancel_requested a:1"]);
    s.expect_out(&["cancel:c:a:1#1 control"]);
    assert_eq!(s.cancel_step("b"), "accepted cancelled");
    s.expect(&["coordination.cancel_requested b:1", "step.cancelled b:1"]);
    // Its deadline keeps running, and is before the grace is over (R-38).
    s.advance(15_000);
    s.expect(&["step.timed_out a:1"]);
    assert_eq!(s.state(), "open");
}

#[test]
fn cancel_step_wrong() {
    let mut s = running();
    assert_eq!(foreign(&mut s, cancel_step("a")), FOREIGN);
    refused_on(&mut s, "a", "unauthorized-session");
    assert_eq!(s.cancel_step("nobody"), "unknown-step stepId fix");
    nothing(&mut s);
}

#[test]
fn cancel_step_repeated() {
    let mut s = running();
    s.cancel_step("a");
    s.cancel_step("b");
    s.seen();
    assert_eq!(s.cancel_step("a"), "replayed dispatched");
    assert_eq!(s.cancel_step("b"), "replayed cancelled");
    nothing(&mut s);
}

#[test]
fn cancel_step_too_late() {
    let mut s = running();
    s.done("a", 1, "out");
    s.seen();
    assert_eq!(s.cancel_step("a"), "replayed completed");
    nothing(&mut s);
    assert_eq!(s.step_state("b"), "dispatched");
}

// ---- escalate ----

/// Step `a` runs in a plan that asks people, with a deadline at 60 000.
fn asking() -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]).hitl());
    s.ack("a", 1);
    s.seen();
    s
}

#[test]
fn escalate_happy() {
    let mut s = asking();
    s.now_ms = 100;
    assert_eq!(s.ask("a", 1, 1), "accepted waiting_human");
    s.expect(&["coordination.escalated a:1", "human.requested a:1"]);
    let (id, _) = s.question("a");
    s.expect_out(&[&format!("escalation:{id}:1:1#1 escalation")]);
    assert_eq!(
        s.cause("coordination.escalated a:1"),
        "step.acknowledged a:1"
    );
    assert_eq!(s.data("human.requested a:1")["dueMs"], 10_100);
}

#[test]
fn escalate_wrong() {
    let mut s = asking();
    assert_eq!(foreign(&mut s, escalate("a", 1, 1, "?")), FOREIGN);
    refused_on(&mut s, "a", "unauthorized-session");
    assert_eq!(s.ask("b", 1, 1), "not-running stepId stop");
    refused_on(&mut s, "b", "not-running");
    let empty = escalate("a", 1, 1, "");
    assert_eq!(brief(&s.submit(empty)), "invalid-field question.text fix");
    nothing(&mut s);
    // Another one while one is open.
    s.ask("a", 1, 1);
    s.seen();
    assert_eq!(s.ask("a", 1, 2), "not-running stepId stop");
    refused_on(&mut s, "a", "not-running");
    // Under none nobody is asked.
    let mut s = running();
    assert_eq!(s.ask("a", 1, 1), "no-human - stop");
    nothing(&mut s);
}

#[test]
fn escalate_repeated() {
    let mut s = asking();
    s.ask("a", 1, 1);
    s.seen();
    assert_eq!(s.ask("a", 1, 1), "replayed waiting_human");
    nothing(&mut s);
    let other = escalate("a", 1, 1, "another one?");
    assert_eq!(brief(&s.submit(other)), MISMATCH);
    refused_on(&mut s, "a", "content-mismatch");
    // Also once it is answered.
    s.approve("a");
    s.seen();
    assert_eq!(s.ask("a", 1, 1), "replayed waiting_human");
    nothing(&mut s);
}

#[test]
fn escalate_too_late() {
    let mut s = asking();
    s.done("a", 1, "");
    s.seen();
    assert_eq!(s.ask("a", 1, 1), "late completed");
    s.expect(&["input.late a:1"]);
    s.expect_out(&[]);
    assert_eq!(s.data("input.late a:1")["part"], "escalate:1");
}

// ---- execute ----

#[test]
fn execute_happy() {
    let mut s = running();
    assert_eq!(brief(&s.submit(execute("n", "a"))), "accepted ready");
    s.expect(&["step.added n:1", "step.dispatched n:1"]);
    s.expect_out(&["c:n:1#1 control"]);
    assert_eq!(s.data("step.added n:1")["step"]["timeoutMs"], 1_000);
    s.done("n", 1, "found");
    let key = format!("report:{}", s.seq("step.completed n:1"));
    assert_eq!(s.message(&key).envelope.target_session, "agent:a");
}

#[test]
fn execute_wrong() {
    let mut s = running();
    assert_eq!(foreign(&mut s, execute("n", "a")), FOREIGN);
    refused_on(&mut s, "a", "unauthorized-session");
    let waiting = execute("n", "b");
    assert_eq!(brief(&s.submit(waiting)), "not-running parentStepId stop");
    refused_on(&mut s, "b", "not-running");
    let second = Envelope {
        attempt: Some(2),
        ..execute("n", "a")
    };
    assert_eq!(brief(&s.submit(second)), "invalid-field attempt fix");
    nothing(&mut s);
    // The id of a step of the plan.
    let taken = execute("z", "a");
    assert_eq!(brief(&s.submit(taken)), "content-mismatch stepId fix");
    refused_on(&mut s, "z", "content-mismatch");
}

#[test]
fn execute_repeated() {
    let mut s = running();
    s.submit(execute("n", "a")).unwrap();
    s.seen();
    assert_eq!(brief(&s.submit(execute("n", "a"))), "replayed ready");
    nothing(&mut s);
    let other = Envelope {
        payload: Some("else".into()),
        ..execute("n", "a")
    };
    assert_eq!(brief(&s.submit(other)), "content-mismatch stepId fix");
    refused_on(&mut s, "n", "content-mismatch");
}

#[test]
fn execute_too_late() {
    // Its parent has ended; the plan is being stopped.
    let mut s = running();
    s.done("a", 1, "");
    s.seen();
    assert_eq!(
        brief(&s.submit(execute("n", "a"))),
        "not-running parentStepId stop"
    );
    refused_on(&mut s, "a", "not-running");
    s.cancel();
    s.seen();
    assert_eq!(
        brief(&s.submit(execute("n", "z"))),
        "coordination-stopping - stop"
    );
    nothing(&mut s);
}

// ---- acknowledge ----

/// A plan that ended at 0, and the key of its report.
fn ended() -> (Scenario, String) {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.done("a", 1, "");
    let key = format!("report:{}", s.seq("coordination.terminal"));
    s.seen();
    (s, key)
}

#[test]
fn acknowledge_happy() {
    let (mut s, key) = ended();
    assert_eq!(s.read(&[&key]), ["accepted closed"]);
    s.expect(&[&format!("message.acknowledged {key}")]);
    assert_eq!(
        s.cause(&format!("message.acknowledged {key}")),
        "coordination.terminal"
    );
    assert_eq!(s.describe("c")["state"], "closed");
}

#[test]
fn acknowledge_wrong() {
    let (mut s, key) = ended();
    assert_eq!(
        s.read_as("user:x", &[&key]),
        ["unauthorized-session key ask"]
    );
    let wrong = ["report:999", "report:0", "c:a:1", "report:"];
    assert_eq!(s.read(&wrong), ["unknown-key key fix"; 4]);
    nothing(&mut s);
    assert_eq!(s.state(), "final");
}

#[test]
fn acknowledge_repeated() {
    let (mut s, key) = ended();
    assert_eq!(
        s.read(&[&key, &key]),
        ["accepted closed", "replayed acknowledged"]
    );
    s.seen();
    assert_eq!(s.read(&[&key]), ["replayed acknowledged"]);
    nothing(&mut s);
}

#[test]
fn acknowledge_too_late() {
    // Given up after its redeliveries it stays listed until it is read (R-25).
    let (mut s, key) = ended();
    while let Some(at_ms) = s.next_deadline() {
        s.advance(at_ms);
    }
    assert_eq!(s.describe("c")["reports"][0]["undelivered"], true);
    s.seen();
    assert_eq!(s.read(&[&key]), ["accepted closed"]);
    s.expect(&[&format!("message.acknowledged {key}")]);
    assert_eq!(s.describe("c")["reports"], json!([]));
}

// ---- advance ----

#[test]
fn advance_happy() {
    let mut s = running();
    assert_eq!(s.next_deadline(), Some(1_000));
    assert_eq!(s.advance_once(999), Ok(false));
    nothing(&mut s);
    assert_eq!(s.advance_once(1_000), Ok(false));
    s.expect(&["step.retry_scheduled a:1"]);
    s.expect_out(&["cancel:c:a:1#1 control", "-c:a:1"]);
    // A due retry is readiness.
    assert_eq!(s.next_deadline(), Some(1_500));
    assert_eq!(s.advance_once(1_500), Ok(false));
    s.expect(&["step.dispatched a:2"]);
}

#[test]
fn advance_wrong() {
    let mut s = running();
    let refused = s.advance_once(TIME_MS_MAX + 1);
    assert!(matches!(refused, Err(CallError::Bound(_))), "{refused:?}");
    nothing(&mut s);
    assert_eq!(s.ack("a", 1), "accepted acknowledged");
}

#[test]
fn advance_repeated() {
    let mut s = running();
    s.advance(1_000);
    s.seen();
    let digest = s.digest();
    assert_eq!(s.advance_once(1_000), Ok(false));
    nothing(&mut s);
    assert_eq!(s.digest(), digest);
}

#[test]
fn advance_too_late() {
    // Backwards is the time of the last record; after the end there is nothing to tell.
    let mut s = running();
    s.advance(1_000);
    s.seen();
    assert_eq!(s.advance_once(5), Ok(false));
    nothing(&mut s);
    s.now_ms = 5;
    s.ack("z", 1);
    assert_eq!(s.record("step.acknowledged z:1")["atMs"], 1_000);
    let (mut s, key) = ended();
    s.read(&[&key]);
    s.seen();
    assert_eq!(s.next_deadline(), None);
    assert_eq!(s.advance_once(9_000_000), Ok(false));
    nothing(&mut s);
}
