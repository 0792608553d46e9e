//! Every member of an envelope and of a configuration, and the times of calls, as any host sees them (R-1): at the bound taken,
//! past it refused by name.
//!
//! Plans are in `refused.rs`.

use super::refused::{DAYS_400, field, list, put, text};
use crate::support::*;
use qm2_core::envelope::{Envelope, FailureClass};
use qm2_core::limit::{INTEGER_MAX, TIME_MS_MAX};
use qm2_core::receipt::CallError;
use qm2_host::engine::Call;
use serde_json::{Value, json};

// ---- envelopes ----

/// An envelope changed at some paths.
fn changed(envelope: &Envelope, changes: &[(&str, Value)]) -> Envelope {
    let mut value = serde_json::to_value(envelope).expect("an envelope is JSON");
    for (path, new) in changes {
        put(&mut value, path, new.clone());
    }
    serde_json::from_value(value).expect("it is an envelope still")
}

#[test]
fn r_1_members_of_an_envelope_at_their_bounds() {
    let mut s = Scenario::new();
    let long = step("a")
        .set("stepId", text(128))
        .set("targetSession", text(256));
    s.plan(plan([long]).set("coordinationId", text(128)).hitl());
    s.seen();
    let id = "x".repeat(128);
    let by = "x".repeat(256);
    let of = |envelope: Envelope| envelope.of(&id).by(&by);
    let extension = json!({"name": "n".repeat(64), "text": "t".repeat(32)});
    let all = [
        ("parentStepId", text(128)),
        ("targetSession", text(256)),
        ("createdAtMs", INTEGER_MAX.into()),
        ("deadlineMs", INTEGER_MAX.into()),
        ("trace/runId", text(128)),
        ("trace/spanId", text(128)),
        ("trace/causalRef", text(128)),
        ("trace/traceparent", text(128)),
        ("contentType", text(128)),
        ("extensions", list(extension, 32)),
        ("outcome", json!({"progress": {"number": INTEGER_MAX}})),
    ];
    let progress = of(changed(&progress(&id, 1, 1), &all));
    assert_eq!(brief(&s.submit(progress)), "accepted acknowledged");
    let question = [(
        "question",
        json!({"number": INTEGER_MAX, "text": "q".repeat(1_024)}),
    )];
    let ask = of(changed(&escalate(&id, 1, 1, "?"), &question));
    assert_eq!(brief(&s.submit(ask)), "accepted waiting_human");
    let message = "m".repeat(1_024);
    let outcome = json!({"failed": {"class": "permanent", "code": id, "message": message}});
    let end = changed(
        &of(done(&id, 1, "")),
        &[
            ("outcome", outcome),
            (
                "extensions",
                json!([{"name": "n", "text": "t".repeat(1_024)}]),
            ),
        ],
    );
    assert_eq!(brief(&s.submit(end)), "accepted failed");
    let reason = Envelope {
        reason: Some("r".repeat(1_024)),
        ..cancel().of(&id)
    };
    assert_eq!(brief(&s.submit(reason)), "replayed final");
}

#[test]
fn r_1_members_of_an_envelope_past_their_bounds() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]));
    s.seen();
    let past = INTEGER_MAX + 1;
    let extension =
        |name: usize, text: usize| json!({"name": "n".repeat(name), "text": "t".repeat(text)});
    let report = done("a", 1, "out");
    let failed = failed("a", 1, FailureClass::Permanent, "x");
    let question = escalate("a", 1, 1, "?");
    let rows: Vec<(&Envelope, &str, Value, &str)> = vec![
        (&report, "coordinationId", text(129), "coordinationId"),
        (&report, "coordinationId", json!("a:b"), "coordinationId"),
        (&report, "stepId", text(0), "stepId"),
        (&report, "stepId", Value::Null, "stepId"),
        (&report, "parentStepId", text(129), "parentStepId"),
        (&report, "sourceSession", json!("a b"), "sourceSession"),
        (&report, "targetSession", text(257), "targetSession"),
        (&report, "createdAtMs", past.into(), "createdAtMs"),
        (&report, "deadlineMs", past.into(), "deadlineMs"),
        (&report, "trace/runId", text(129), "trace.runId"),
        (&report, "trace/spanId", text(129), "trace.spanId"),
        (&report, "trace/causalRef", text(129), "trace.causalRef"),
        (&report, "trace/traceparent", text(129), "trace.traceparent"),
        (&report, "contentType", text(129), "contentType"),
        (&report, "contentType", text(0), "contentType"),
        (
            &report,
            "extensions",
            list(extension(1, 0), 33),
            "extensions",
        ),
        (
            &report,
            "extensions/0",
            extension(65, 0),
            "extensions[0].name",
        ),
        (
            &report,
            "extensions/0",
            extension(0, 0),
            "extensions[0].name",
        ),
        (
            &report,
            "extensions/0",
            extension(1, 1_025),
            "extensions[0].text",
        ),
        (&report, "attempt", Value::Null, "attempt"),
        (&report, "attempt", 0.into(), "attempt"),
        (&report, "outcome", Value::Null, "outcome"),
        (&report, "reason", json!("r"), "reason"),
        (
            &report,
            "question",
            json!({"number": 1, "text": "?"}),
            "question",
        ),
        (
            &report,
            "tokens",
            json!([{"resource": "file:x", "token": 1}]),
            "tokens",
        ),
        (
            &failed,
            "outcome/failed/code",
            json!("no id"),
            "outcome.failed.code",
        ),
        (
            &failed,
            "outcome/failed/code",
            text(129),
            "outcome.failed.code",
        ),
        (
            &failed,
            "outcome/failed/message",
            text(1_025),
            "outcome.failed.message",
        ),
        (&question, "question/text", text(0), "question.text"),
        (&question, "question/text", text(1_025), "question.text"),
        (&question, "question/number", past.into(), "question.number"),
        (&question, "question", Value::Null, "question"),
    ];
    for (envelope, path, value, field) in rows {
        let wrong = changed(envelope, &[(path, value)]);
        let said = brief(&s.submit_as(caller("agent:a"), wrong));
        assert_eq!(said, format!("invalid-field {field} fix"), "{path}");
    }
    s.expect(&[]);
    s.expect_out(&[]);
}

#[test]
fn r_1_envelopes_of_a_wrong_shape() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]));
    s.seen();
    let past = INTEGER_MAX + 1;
    let report = done("a", 1, "out");
    let number = changed(
        &progress("a", 1, 1),
        &[("outcome/progress/number", past.into())],
    );
    assert_eq!(
        brief(&s.submit(number)),
        "invalid-field outcome.progress.number fix"
    );
    let shapes = [
        (
            Envelope {
                reason: Some("r".repeat(1_025)),
                ..cancel()
            },
            "reason",
        ),
        (
            Envelope {
                attempt: Some(1),
                ..cancel()
            },
            "attempt",
        ),
        (
            Envelope {
                outcome: report.outcome.clone(),
                ..ack("a", 1)
            },
            "outcome",
        ),
        (
            Envelope {
                parent_step_id: None,
                ..execute("n", "a")
            },
            "parentStepId",
        ),
        (
            Envelope {
                attempt: Some(2),
                ..execute("n", "a")
            },
            "attempt",
        ),
    ];
    for (wrong, field) in shapes {
        assert_eq!(
            brief(&s.submit(wrong)),
            format!("invalid-field {field} fix")
        );
    }
    // References are tested as in a plan.
    for (name, value) in [
        ("uri", text(0)),
        ("uri", text(1_025)),
        ("sha256", text(64)),
        ("bytes", past.into()),
    ] {
        let mut reference = json!({"uri": "u", "sha256": "0".repeat(64), "bytes": 1});
        reference[name] = value;
        let wrong = changed(
            &report,
            &[("payload", Value::Null), ("payloadRef", reference)],
        );
        let said = brief(&s.submit(wrong));
        assert_eq!(said, format!("invalid-field payloadRef.{name} fix"));
    }
    s.expect(&[]);
    s.expect_out(&[]);
}

// ---- configurations and times ----

#[test]
fn r_1_members_of_a_configuration_at_and_past_their_bounds() {
    let mut s = Scenario::blank();
    for (name, min, max) in [
        ("maxInFlight", 1, 100_000),
        ("sessionInFlight", 1, 100_000),
        ("ackTimeoutMs", 1, DAYS_400),
        ("cancelGraceMs", 0, DAYS_400),
        ("cleanupGraceMs", 0, DAYS_400),
        ("hookTimeoutMs", 1, DAYS_400),
        ("limits/payloadBytes", 1, 65_536),
        ("limits/planBytes", 1, 16 * 1024 * 1024),
        ("limits/planSteps", 1, 10_000),
        ("limits/batch", 1, 1_024),
        ("limits/liveCoordinations", 1, 100_000),
        ("limits/liveSteps", 1, 2_000_000),
        ("limits/livePayloadBytes", 1, 1_073_741_824_u64),
    ] {
        let with = |value: Value| {
            let mut config = json!({"domain": "d"});
            put(&mut config, name, value);
            config.to_string()
        };
        let mut wrong = vec![json!(max + 1), json!("1"), Value::Null];
        wrong.extend((min == 1).then(|| json!(0)));
        for value in wrong {
            let refused = s.configure_text(&with(value));
            let Err(CallError::InvalidConfig(says)) = refused else {
                panic!("{name}: {refused:?}")
            };
            assert!(says.message.starts_with(&field(name)), "{name}: {says:?}");
            assert!(says.field.starts_with(&field(name)), "{name}: {says:?}");
        }
    }
    for (name, value) in [
        ("domain", text(129)),
        ("domain", json!("a:b")),
        ("phase1", json!(true)),
        ("phase1/enabled", json!("yes")),
        ("phase1/on", json!(true)),
        ("hooks", json!(["before_lunch"])),
        ("hooks", list(json!("step_ended"), 7)),
        ("owners", json!([{"resource": "file:x"}])),
        ("owners/0", json!({"resource": "file:x", "session": "a b"})),
        ("highRisk/0", text(513)),
        ("limits/steps", json!(1)),
        ("prevDomainHead", json!("0".repeat(63))),
        ("colour", json!(1)),
    ] {
        let mut config = json!({"domain": "d"});
        put(&mut config, name, value);
        let refused = s.configure_text(&config.to_string());
        let Err(CallError::InvalidConfig(says)) = refused else {
            panic!("{name}: {refused:?}")
        };
        let blamed = name.split('/').next().unwrap_or_default();
        assert!(says.message.starts_with(blamed), "{name}: {says:?}");
        assert!(says.field.starts_with(blamed), "{name}: {says:?}");
    }
    s.expect(&[]);
    let most = json!({
        "domain": "d".repeat(128), "maxInFlight": 100_000, "sessionInFlight": 100_000, "ackTimeoutMs": DAYS_400,
        "cancelGraceMs": DAYS_400, "cleanupGraceMs": DAYS_400, "hookTimeoutMs": DAYS_400,
        "hooks": ["message_undelivered", "before_dispatch", "step_ended", "before_arbitrate", "escalation_requested",
            "coordination_ended"],
        "owners": [{"resource": "file:**", "session": "s".repeat(256)}], "highRisk": ["x".repeat(512)],
    });
    assert_eq!(s.configure_text(&most.to_string()), Ok(()));
    s.expect(&["ledger.genesis"]);
    // Kinds are written in their own order, each once.
    let hooks = s.data("ledger.genesis")["config"]["hooks"].clone();
    assert_eq!(hooks[0], "before_dispatch");
    assert_eq!(hooks.as_array().map(Vec::len), Some(6));
}

/// R-29: nothing that counts from a time may leave the integers of the contract.
#[test]
fn r_1_times_of_calls_at_and_past_their_bound() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    let past = TIME_MS_MAX + 1;
    let calls = [
        Call::Advance { now_ms: past },
        Call::SubmitPlan {
            caller: caller(OWNER),
            now_ms: past,
            plan: plan([step("a")]).set("coordinationId", "n").text(),
        },
        Call::Submit {
            caller: caller("agent:a"),
            now_ms: past,
            envelopes: vec![ack("a", 1)],
        },
        Call::Acknowledge {
            caller: caller(OWNER),
            now_ms: past,
            keys: Vec::new(),
        },
        Call::Notice {
            now_ms: past,
            notices: Vec::new(),
        },
        Call::Check {
            now_ms: past,
            resource: "file:x".into(),
            session: "agent:a".into(),
            token: 1,
            mode: qm2_core::claim::Access::Read,
            regions: Vec::new(),
            base_version: None,
        },
    ];
    s.seen();
    for call in calls {
        let refused = s.call(&call);
        assert!(matches!(refused, Err(CallError::Bound(_))), "{refused:?}");
    }
    s.expect(&[]);
    assert_eq!(s.ack("a", 1), "accepted acknowledged");
    s.seen();
    s.advance(TIME_MS_MAX);
    s.expect(&["step.timed_out a:1", "coordination.terminal"]);
    assert_eq!(s.record("step.timed_out a:1")["atMs"], TIME_MS_MAX);
}

/// R-62: a domain may lower what one call, one plan and one payload may be.
#[test]
fn r_1_limits_of_a_domain_at_and_past_them() {
    let mut s = Scenario::with(|config| {
        config.limits.batch = 2;
        config.limits.payload_bytes = 3;
        config.limits.plan_steps = 2;
        config.limits.plan_bytes = 2_000;
    });
    let with = |payload: &str| plan([step("a").set("payload", payload)]);
    let refused = s.try_plan(with("1234")).unwrap_err();
    assert_eq!(refused.problems[0].field, "steps[0].payload");
    let refused = s
        .try_plan(plan([step("a"), step("b"), step("d")]))
        .unwrap_err();
    assert_eq!(refused.problems[0].field, "steps");
    let refused = s
        .try_plan(with("123").set("objective", text(2_000)))
        .unwrap_err();
    assert_eq!(
        (&*refused.problems[0].field, &*refused.problems[0].code),
        ("$", "out-of-bound")
    );
    s.seen();
    s.plan(with("123"));
    s.expect(&["coordination.created", "step.dispatched a:1"]);
    assert_eq!(s.done("a", 1, "1234"), "invalid-field payload fix");
    let three = vec![ack("a", 1), ack("a", 1), ack("a", 1)];
    let call = |envelopes: Vec<Envelope>| Call::Submit {
        caller: caller("agent:a"),
        now_ms: 0,
        envelopes,
    };
    let refused = s.call(&call(three.clone()));
    assert!(matches!(refused, Err(CallError::Bound(_))), "{refused:?}");
    s.expect(&[]);
    assert!(s.call(&call(three[..2].to_vec())).is_ok());
    s.expect(&["step.acknowledged a:1"]);
    assert_eq!(s.done("a", 1, "123"), "accepted completed");
}
