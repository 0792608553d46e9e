//! Authority, and the order of the tests of an input (M6). Who may say what, and what is kept of a refusal.

use crate::support::*;
use qm2_core::envelope::{Envelope, FailureClass, Intent, Priority};
use qm2_core::limit::KEPT_INPUTS_AN_ATTEMPT_MAX;
use qm2_core::message::{Notice, NoticeKind, Role};
use serde_json::json;

fn running() -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a"), step("z")]));
    s.seen();
    s
}

#[test]
fn m6_the_first_test_that_fails_answers() {
    let mut s = running();
    s.done("a", 1, "out");
    s.seen();
    // Each row breaks everything that the rows after it break, and one thing more.
    let ok = done("b", 1, "out");
    let foreign = ok.clone().by("agent:x");
    let above = Envelope {
        attempt: Some(9),
        ..foreign.clone()
    };
    let step = Envelope {
        step_id: Some("nobody".into()),
        ..above.clone()
    };
    let coordination = step.clone().of("nowhere");
    let bound = Envelope {
        content_type: Some(String::new()),
        ..coordination.clone()
    };
    let rows = [
        (bound, "invalid-field contentType fix"),
        (coordination, "unknown-coordination coordinationId fix"),
        (step, "unknown-step stepId fix"),
        (above.clone(), "unauthorized-session sourceSession ask"),
        (above.by("agent:b"), "unknown-attempt attempt fix"),
        (done("a", 1, "other"), "content-mismatch - fix"),
        (progress("a", 1, 1), "late completed"),
    ];
    for (envelope, says) in rows {
        assert_eq!(brief(&s.submit(envelope)), says);
    }
    // The gate comes before everything.
    s.configure(|config| config.phase1.enabled = false).unwrap();
    let call = qm2_host::engine::Call::Submit {
        caller: caller("agent:b"),
        now_ms: 0,
        envelopes: vec![ok],
    };
    assert_eq!(s.call(&call), Err(qm2_core::receipt::CallError::Disabled));
}

#[test]
fn r_8_the_caller_must_be_the_source_and_the_target_of_the_step() {
    let mut s = running();
    for envelope in [ack("a", 1), progress("a", 1, 1), done("a", 1, "out")] {
        // Somebody speaks for the step's session.
        let answer = s.submit_as(caller("agent:x"), envelope.clone());
        assert_eq!(brief(&answer), "unauthorized-session sourceSession ask");
        // The owner, and even an operator, is not who does the step.
        let answer = s.submit_as(caller_as(OWNER, Role::Owner), envelope.by(OWNER));
        assert_eq!(brief(&answer), "unauthorized-session sourceSession ask");
        s.expect(&["input.rejected a:1", "input.rejected a:1"]);
    }
    s.expect_out(&[]);
    let data = s.data("input.rejected a:1");
    assert_eq!(data["sourceSession"], OWNER);
    assert_eq!(data["code"], "unauthorized-session");
    assert_eq!(data["part"], "end");
    assert_eq!(s.step_state("a"), "dispatched");
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
}

#[test]
fn r_8_an_agent_cannot_claim_host_lost() {
    for class in ["host_lost", "timeout", "preempted"] {
        let mut report = serde_json::to_value(failed("a", 1, FailureClass::Unknown, "x")).unwrap();
        report["outcome"]["failed"]["class"] = json!(class);
        let read = serde_json::from_value::<Envelope>(report);
        assert!(read.is_err(), "{class}");
    }
}

#[test]
fn r_9_cancel_is_for_the_owner_and_for_operators_and_above() {
    let by = |session: &str| cancel().by(session);
    let mut s = running();
    let refused = "unauthorized-session sourceSession ask";
    assert_eq!(brief(&s.submit(by("agent:a"))), refused);
    let user = caller_as("user:x", Role::User);
    assert_eq!(brief(&s.submit_as(user, by("user:x"))), refused);
    // Not in another's name, whatever the role.
    let admin = caller_as("user:x", Role::Admin);
    assert_eq!(brief(&s.submit_as(admin, by(OWNER))), refused);
    s.expect(&[]);
    // A refused cancel of a step is a refused input on a known step.
    let answer = s.submit(cancel_step("a").by("agent:a"));
    assert_eq!(brief(&answer), refused);
    s.expect(&["input.rejected a:1"]);
    assert_eq!(s.data("input.rejected a:1")["intent"], "cancel");

    for role in [Role::Operator, Role::Admin, Role::Owner] {
        let mut s = running();
        let answer = s.submit_as(caller_as("user:x", role), by("user:x"));
        assert_eq!(brief(&answer), "accepted stopping");
        let data = s.data("coordination.cancel_requested");
        assert_eq!(data["by"], "user:x");
        assert_eq!(data["role"], serde_json::to_value(role).unwrap());
    }
    assert_eq!(running().cancel(), "accepted stopping");
}

#[test]
fn r_9_a_plan_is_submitted_by_its_owner() {
    let mut s = Scenario::new();
    let refused = s
        .submit_plan("user:x", &plan([step("a")]).text())
        .unwrap_err();
    assert_eq!(
        brief_rejection(&refused),
        "unauthorized-session ownerSession ask"
    );
    s.expect(&[]);
}

#[test]
fn r_10_input_for_an_older_attempt_is_late_and_kept() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).retries(1, &[0]));
    s.fail("a", 1, FailureClass::Retryable, "x");
    s.seen();
    assert_eq!(s.progress("a", 1, 3), "late dispatched");
    s.expect(&["input.late a:1"]);
    assert_eq!(s.cause("input.late a:1"), "step.retry_scheduled a:1");
    let late = Envelope {
        payload: Some("kept".into()),
        ..progress("a", 1, 4)
    };
    assert_eq!(brief(&s.submit(late)), "late dispatched");
    let data = s.data("input.late a:1");
    assert_eq!(
        (&data["code"], &data["payload"]),
        (&json!("late"), &json!("kept"))
    );
    assert_eq!(
        (&data["part"], &data["intent"]),
        (&json!("progress:4"), &json!("report"))
    );
    assert_eq!(s.ack("a", 1), "late dispatched");
    s.expect(&["input.late a:1", "input.late a:1"]);
    // It is known now.
    assert_eq!(s.ack("a", 1), "replayed dispatched");
    assert_eq!(
        brief(&s.submit(Envelope {
            payload: Some("x".into()),
            ..progress("a", 1, 4)
        })),
        "content-mismatch - fix"
    );
    s.expect(&["input.rejected a:2"]);
    s.expect_out(&[]);
}

#[test]
fn r_10_an_attempt_above_the_current_one_is_unknown() {
    let mut s = running();
    assert_eq!(s.ack("a", 2), "unknown-attempt attempt fix");
    s.expect(&["input.rejected a:1"]);
    assert_eq!(s.cause("input.rejected a:1"), "step.dispatched a:1");
    // A notice is the host's and writes no refusal.
    assert_eq!(
        s.notice("a", 2, NoticeKind::HostLost),
        "unknown-attempt key fix"
    );
    s.expect(&[]);
}

#[test]
fn r_10_unknown_plans_and_steps_are_refused_without_a_record() {
    let mut s = running();
    assert_eq!(
        brief(&s.submit(ack("nobody", 1))),
        "unknown-step stepId fix"
    );
    assert_eq!(
        brief(&s.submit(cancel_step("nobody"))),
        "unknown-step stepId fix"
    );
    let unknown = "unknown-coordination coordinationId fix";
    assert_eq!(brief(&s.submit(ack("a", 1).of("nowhere"))), unknown);
    assert_eq!(brief(&s.submit(cancel().of("nowhere"))), unknown);
    for (key, says) in [
        ("nowhere:a:1", unknown),
        ("c:nobody:1", "unknown-step stepId fix"),
        ("report:1", "unknown-key key fix"),
        ("c:a:01", "unknown-key key fix"),
    ] {
        let (key, kind) = (key.to_owned(), NoticeKind::HostLost);
        assert_eq!(brief(&s.notices(&[Notice { key, kind }])[0]), says);
    }
    s.expect(&[]);
}

#[test]
fn r_10_at_most_16_refusals_and_16_late_inputs_of_an_attempt_are_recorded() {
    let mut s = running();
    let most = KEPT_INPUTS_AN_ATTEMPT_MAX as usize;
    assert_eq!(most, 16);
    for _ in 0..most + 3 {
        let answer = s.submit(ack("a", 1).by("agent:x"));
        assert_eq!(brief(&answer), "unauthorized-session sourceSession ask");
    }
    s.expect(&["input.rejected a:1"; 16]);
    s.done("a", 1, "out");
    s.seen();
    for number in 0..most as u64 + 3 {
        assert_eq!(s.progress("a", 1, number), "late completed");
    }
    s.expect(&["input.late a:1"; 16]);
    // What was not recorded left no identity behind.
    assert_eq!(s.progress("a", 1, 0), "replayed completed");
    assert_eq!(s.progress("a", 1, most as u64), "late completed");
    s.expect(&[]);
    // Another attempt counts anew.
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).retries(1, &[0]));
    for _ in 0..20 {
        s.ack("a", 5);
    }
    s.fail("a", 1, FailureClass::Retryable, "x");
    s.seen();
    s.ack("a", 5);
    s.expect(&["input.rejected a:2"]);
}

#[test]
fn r_11_an_envelope_never_raises_the_priority_of_a_step() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("priority", "low"), step("z")]).retries(1, &[0]));
    assert_eq!(s.message("c:a:1").priority, Priority::Low);
    let report = failed("a", 1, FailureClass::Retryable, "x");
    let report = Envelope {
        priority: Priority::Critical,
        ..report
    };
    assert_eq!(brief(&s.submit(report)), "accepted retry_wait");
    assert_eq!(s.message("c:a:2").priority, Priority::Low);
    assert_eq!(s.message("c:a:2").envelope.priority, Priority::Low);
    assert_eq!(s.data("step.dispatched a:2")["priority"], "low");
}

#[test]
fn r_12_an_unknown_target_fails_the_attempt_permanently() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]).retries(5, &[0]));
    s.seen();
    assert_eq!(
        s.notice("a", 1, NoticeKind::UnknownTarget),
        "accepted failed"
    );
    s.expect(&["step.failed a:1"]);
    s.expect_out(&["report:5#1 data", "-c:a:1"]);
    let data = s.data("step.failed a:1");
    assert_eq!(
        (&data["class"], &data["code"]),
        (&json!("permanent"), &json!("unknown-target"))
    );
    let message = data["message"].as_str().unwrap();
    assert!(message.contains("agent:a"), "says which session: {message}");
    assert_eq!(
        s.notice("a", 1, NoticeKind::UnknownTarget),
        "replayed failed"
    );
    s.expect(&[]);
}

#[test]
fn execute_envelopes_without_a_running_parent_are_refused_since_work_comes_in_as_a_plan() {
    let mut s = running();
    let execute = Envelope {
        intent: Intent::Execute,
        ..ack("a", 1)
    };
    assert_eq!(brief(&s.submit(execute)), "invalid-field parentStepId fix");
    s.expect(&[]);
}
