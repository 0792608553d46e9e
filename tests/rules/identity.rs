//! Identity: R-1 to R-7. The same input twice, other content under the same identity, plans under one id.

use crate::support::*;
use qm2_core::envelope::{Envelope, Extension, FailureClass, Outcome, PayloadRef, Trace};
use qm2_core::receipt::RejectionCode;
use serde_json::json;

fn running() -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]));
    s.seen();
    s
}

#[test]
fn r_1_a_value_outside_its_bound_is_refused_with_field_offence_and_bound() {
    let mut s = running();
    let reference = |uri: &str, sha256: &str, bytes| PayloadRef {
        uri: uri.into(),
        sha256: sha256.into(),
        bytes,
    };
    let with = |change: &dyn Fn(&mut Envelope)| {
        let mut envelope = done("a", 1, "out");
        change(&mut envelope);
        envelope
    };
    let sha = "0".repeat(64);
    let extension = |name: usize, text: usize| Extension {
        name: "n".repeat(name),
        text: "t".repeat(text),
    };
    let rows: Vec<(Envelope, &str, &str)> = vec![
        (
            with(&|e| e.coordination_id = "a:b".into()),
            "coordinationId",
            "':'",
        ),
        (
            with(&|e| e.coordination_id = "c".repeat(129)),
            "coordinationId",
            "129 bytes; 1..128",
        ),
        (
            with(&|e| e.step_id = Some(String::new())),
            "stepId",
            "0 bytes; 1..128",
        ),
        (
            with(&|e| e.parent_step_id = Some("ä".into())),
            "parentStepId",
            "'ä'",
        ),
        (
            with(&|e| e.source_session = "a b".into()),
            "sourceSession",
            "' '",
        ),
        (
            with(&|e| e.target_session = "s".repeat(257)),
            "targetSession",
            "257 bytes; 1..256",
        ),
        (
            with(&|e| e.created_at_ms = 1 << 53),
            "createdAtMs",
            "0..9007199254740991",
        ),
        (
            with(&|e| e.deadline_ms = Some(1 << 53)),
            "deadlineMs",
            "0..9007199254740991",
        ),
        (
            with(&|e| e.trace.span_id = Some("s".repeat(129))),
            "trace.spanId",
            "129 bytes; 0..128",
        ),
        (
            with(&|e| e.content_type = Some("t".repeat(129))),
            "contentType",
            "129 bytes; 1..128",
        ),
        (
            with(&|e| e.payload = Some("p".repeat(65_537))),
            "payload",
            "65537 bytes; 65536",
        ),
        (
            with(&|e| (e.payload, e.payload_ref) = (None, Some(reference("", &sha, 1)))),
            "payloadRef.uri",
            "0 bytes; 1..1024",
        ),
        (
            with(&|e| (e.payload, e.payload_ref) = (None, Some(reference("u", "A", 1)))),
            "payloadRef.sha256",
            "64 lower-case",
        ),
        (
            with(&|e| (e.payload, e.payload_ref) = (None, Some(reference("u", &sha, 1 << 53)))),
            "payloadRef.bytes",
            "0..9007199254740991",
        ),
        (
            with(&|e| e.extensions = vec![extension(1, 0); 33]),
            "extensions",
            "33 entries; 32",
        ),
        (
            with(&|e| e.extensions = vec![extension(65, 0)]),
            "extensions[0].name",
            "65 bytes; 1..64",
        ),
        (
            with(&|e| e.extensions = vec![extension(1, 0), extension(1, 1_025)]),
            "extensions[1].text",
            "1025 bytes; 0..1024",
        ),
        (with(&|e| e.step_id = None), "stepId", "absent"),
        (with(&|e| e.attempt = None), "attempt", "absent"),
        (with(&|e| e.attempt = Some(0)), "attempt", "from 1"),
        (with(&|e| e.outcome = None), "outcome", "goes with a report"),
        (
            with(&|e| e.reason = Some("r".into())),
            "reason",
            "goes with a cancel",
        ),
        (
            progress("a", 1, 1 << 53),
            "outcome.progress.number",
            "0..9007199254740991",
        ),
        (
            failed("a", 1, FailureClass::Retryable, "not an id"),
            "outcome.failed.code",
            "' '",
        ),
        (
            Envelope {
                reason: Some("r".repeat(1_025)),
                ..cancel()
            },
            "reason",
            "1025 bytes; 0..1024",
        ),
        (
            Envelope {
                attempt: Some(1),
                ..cancel()
            },
            "attempt",
            "does not go with a cancel",
        ),
    ];
    for (envelope, field, says) in rows {
        let refused = s.submit(envelope).expect_err(field);
        assert_eq!(
            brief_rejection(&refused),
            format!("invalid-field {field} fix")
        );
        assert!(
            refused.message.contains(says),
            "{says} in {}",
            refused.message
        );
    }
    // The WIT has no place for both kinds of payload, so only the core itself can be asked.
    let both = with(&|e| e.payload_ref = Some(reference("u", &sha, 1)));
    let (field, says) = both.check(65_536).unwrap_err();
    assert!(
        field == "payloadRef" && says.contains("beside payload"),
        "{says}"
    );
    let message = "m".repeat(1_025);
    let (class, code) = (FailureClass::Retryable, "code".to_owned());
    let outcome = Some(Outcome::Failed {
        class,
        code,
        message,
    });
    let refused = s.submit(Envelope {
        outcome,
        ..done("a", 1, "")
    });
    assert_eq!(refused.unwrap_err().field, "outcome.failed.message");
    s.expect(&[]);
    s.expect_out(&[]);
}

#[test]
fn r_2_the_same_content_again_gets_the_stored_receipt_and_no_record() {
    let mut s = running();
    let inputs = [
        ack("a", 1),
        progress("a", 1, 7),
        done("a", 1, "out"),
        progress("a", 1, 8),
    ];
    let said = [
        "accepted acknowledged",
        "accepted acknowledged",
        "accepted completed",
        "late completed",
    ];
    for (input, said) in inputs.into_iter().zip(said) {
        let first = s.submit(input.clone()).unwrap();
        assert_eq!(brief(&Ok(first.clone())), said);
        s.seen();
        s.now_ms += 10;
        // Neither the time it was made nor its trace belongs to the content.
        let trace = Trace {
            run_id: Some("r".into()),
            ..Trace::default()
        };
        let again = s
            .submit(Envelope {
                created_at_ms: 99,
                trace,
                ..input
            })
            .unwrap();
        assert_eq!(
            brief(&Ok(again.clone())),
            format!("replayed {}", first.state)
        );
        assert_eq!(again.seq, first.seq);
        s.expect(&[]);
        s.expect_out(&[]);
    }
}

#[test]
fn r_2_the_stored_receipt_has_the_state_of_its_own_time() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]).retries(3, &[0]));
    let retryable = FailureClass::Retryable;
    assert_eq!(s.fail("a", 1, retryable, "x"), "accepted retry_wait");
    assert_eq!(s.done("a", 2, "out"), "accepted completed");
    assert_eq!(s.fail("a", 1, retryable, "x"), "replayed retry_wait");
}

#[test]
fn r_2_a_report_that_ended_a_step_under_cancel_is_known_too() {
    let mut s = running();
    s.cancel();
    let first = s.fail("a", 1, FailureClass::Retryable, "x");
    assert_eq!(first, "accepted cancelled");
    s.seen();
    assert_eq!(
        s.fail("a", 1, FailureClass::Retryable, "x"),
        "replayed cancelled"
    );
    s.expect(&[]);
}

#[test]
fn r_3_other_content_under_a_known_identity_is_a_mismatch_and_changes_nothing() {
    let mut s = running();
    s.ack("a", 1);
    s.progress("a", 1, 1);
    s.done("a", 1, "out");
    s.seen();
    let before = s.describe("c");
    let others = [
        Envelope {
            extensions: vec![Extension {
                name: "n".into(),
                text: String::new(),
            }],
            ..ack("a", 1)
        },
        Envelope {
            payload: Some("other".into()),
            ..progress("a", 1, 1)
        },
        done("a", 1, "other"),
        Envelope {
            content_type: Some("text/plain".into()),
            ..done("a", 1, "out")
        },
        Envelope {
            deadline_ms: Some(5),
            ..done("a", 1, "out")
        },
        Envelope {
            priority: qm2_core::envelope::Priority::High,
            ..done("a", 1, "out")
        },
        Envelope {
            target_session: "user:other".into(),
            ..done("a", 1, "out")
        },
    ];
    for other in others {
        let part = other.part();
        assert_eq!(brief(&s.submit(other)), "content-mismatch - fix");
        s.expect(&["input.rejected a:1"]);
        s.expect_out(&[]);
        let data = s.data("input.rejected a:1");
        assert_eq!(
            (&data["code"], &data["part"]),
            (&json!("content-mismatch"), &json!(part))
        );
    }
    assert_eq!(s.cause("input.rejected a:1"), "step.completed a:1");
    assert_eq!(s.describe("c"), before);
}

#[test]
fn r_4_the_same_plan_again_gets_the_same_handle_and_never_restarts() {
    let mut s = Scenario::new();
    let the_plan = plan([step("a").set("payload", "in")]);
    let first = s.plan(the_plan.clone());
    assert!(!first.replayed);
    s.expect(&["coordination.created", "step.dispatched a:1"]);
    assert_eq!(
        s.data("coordination.created")["planDigest"],
        json!(first.plan_digest)
    );
    s.seen();
    let again = s.plan(the_plan.clone());
    assert!(again.replayed);
    assert_eq!(
        (&again.plan_digest, again.created_seq),
        (&first.plan_digest, first.created_seq)
    );
    assert_eq!((again.state.as_str(), again.terminal), ("open", None));
    // Defaults that are written out and white space do not make another plan.
    let spelled = the_plan
        .clone()
        .set("priority", "normal")
        .set("reports", "failures");
    assert!(s.plan(spelled).replayed);
    s.expect(&[]);
    s.expect_out(&[]);

    s.done("a", 1, "out");
    let ended = s.plan(the_plan.clone());
    assert_eq!(
        (ended.state.as_str(), ended.terminal.as_deref()),
        ("final", Some("success"))
    );
    s.read_all();
    s.seen();
    let closed = s.plan(the_plan);
    assert_eq!(
        (closed.state.as_str(), closed.terminal.as_deref()),
        ("closed", Some("success"))
    );
    assert_eq!(
        (closed.created_seq, closed.replayed),
        (first.created_seq, true)
    );
    s.expect(&[]);
}

#[test]
fn r_5_another_plan_under_a_known_id_is_a_conflict() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.seen();
    let other = || plan([step("a").set("payload", "other")]);
    let refused = s.try_plan(other()).unwrap_err();
    assert_eq!(
        brief_rejection(&refused),
        "plan-conflict coordinationId fix"
    );
    s.done("a", 1, "");
    s.read_all();
    s.seen();
    assert_eq!(
        s.try_plan(other()).unwrap_err().code,
        RejectionCode::PlanConflict
    );
    s.expect(&[]);
}

#[test]
fn r_6_identities_live_as_long_as_their_coordination_whatever_the_time() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("z").set("timeoutMs", 34_560_000_000_u64),
    ]));
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.ack("z", 1);
    s.advance(30_000_000_000);
    s.restart();
    assert_eq!(s.done("a", 1, "out"), "replayed completed");
    assert_eq!(s.done("a", 1, "other"), "content-mismatch - fix");
    // Final, and a report still open: not closed yet.
    s.done("z", 1, "");
    assert_eq!(s.state(), "final");
    assert_eq!(s.done("a", 1, "out"), "replayed completed");
}

#[test]
fn r_6_a_closed_coordination_keeps_its_end_and_answers_closed_for_ever() {
    let mut s = Scenario::new();
    let the_plan = plan([step("a")]);
    s.plan(the_plan.clone());
    s.done("a", 1, "out");
    let terminal_seq = s.seq("coordination.terminal");
    assert_eq!(
        s.read(&[&format!("report:{terminal_seq}")]),
        ["accepted closed"]
    );
    s.seen();
    s.restart();
    s.seen();
    s.now_ms = 40_000_000_000_000;
    for input in [
        ack("a", 1),
        progress("a", 1, 1),
        done("a", 1, "out"),
        cancel(),
        cancel_step("a"),
    ] {
        let refused = s.submit(input).unwrap_err();
        assert_eq!(brief_rejection(&refused), "closed coordinationId stop");
        assert!(refused.message.contains("success"), "{}", refused.message);
    }
    s.expect(&[]);
    let view = s.describe("c");
    assert_eq!(view["state"], "closed");
    assert_eq!(
        (&view["terminal"], &view["terminalSeq"]),
        (&json!("success"), &json!(terminal_seq))
    );
}

#[test]
fn r_7_of_two_different_ends_the_first_stands() {
    for order in [0, 1] {
        let mut s = running();
        let mut ends = [
            done("a", 1, "out"),
            failed("a", 1, FailureClass::Permanent, "x"),
        ];
        ends.rotate_left(order);
        let [first, second] = ends;
        let state = ["completed", "failed"][order];
        assert_eq!(brief(&s.submit(first)), format!("accepted {state}"));
        s.seen();
        assert_eq!(brief(&s.submit(second)), "content-mismatch - fix");
        s.expect(&["input.rejected a:1"]);
        assert_eq!(s.step_state("a"), state);
    }
}
