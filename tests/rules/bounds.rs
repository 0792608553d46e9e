//! Every bound of `guest/core/src/limit.rs` at the bound and one past it, the defaults, and the canonical form.
//!
//! Bounds of a single envelope or plan are asked of the core alone where the text is large; the others go through both.

use crate::support::*;
use qm2_core::codec;
use qm2_core::config::Config;
use qm2_core::envelope::{Envelope, Extension, FailureClass, Outcome, PayloadRef, Trace};
use qm2_core::event::Event;
use qm2_core::limit;
use qm2_core::message::{Notice, NoticeKind};
use qm2_core::plan::Plan;
use qm2_core::receipt::CallError;
use qm2_host::engine::Call;
use serde_json::{Value, json};

/// What a plan is refused for: `field code` of its first problem.
fn check(plan: &Json) -> Result<Plan, String> {
    check_text(&plan.text())
}

fn check_text(text: &str) -> Result<Plan, String> {
    let refused = Plan::parse(text, &Config::new("d"));
    refused.map_err(|problems| format!("{} {}", problems[0].field, problems[0].code))
}

/// The same plan at a bound and one past it.
fn bound(field: &str, at: impl Fn(usize) -> Json, max: usize) {
    assert_eq!(check(&at(max)).err(), None, "{field} at {max}");
    let refused = check(&at(max + 1)).err();
    assert_eq!(
        refused,
        Some(format!("{field} out-of-bound")),
        "one past {max}"
    );
}

fn one(change: impl Fn(Json) -> Json) -> Json {
    plan([change(step("a"))])
}

#[test]
fn bounds_of_ids_sessions_and_texts_of_a_plan() {
    let text = |n: usize| "x".repeat(n);
    bound(
        "coordinationId",
        |n| one(|s| s).set("coordinationId", text(n)),
        128,
    );
    bound(
        "ownerSession",
        |n| one(|s| s).set("ownerSession", text(n)),
        256,
    );
    bound(
        "objective",
        |n| one(|s| s).set("objective", text(n)),
        4 * 1024,
    );
    bound("rerunOf", |n| one(|s| s).set("rerunOf", text(n)), 128);
    bound(
        "steps[0].stepId",
        |n| one(|s| s.set("stepId", text(n))),
        128,
    );
    bound(
        "steps[0].parentStepId",
        |n| one(|s| s.set("parentStepId", text(n))),
        128,
    );
    bound(
        "steps[0].targetSession",
        |n| one(|s| s.set("targetSession", text(n))),
        256,
    );
    bound(
        "steps[0].contentType",
        |n| one(|s| s.set("contentType", text(n))),
        128,
    );
    bound(
        "steps[0].payload",
        |n| one(|s| s.set("payload", text(n))),
        64 * 1024,
    );
    for field in ["runId", "spanId", "causalRef", "traceparent"] {
        bound(
            &format!("trace.{field}"),
            |n| one(|s| s).set("trace", json!({field: text(n)})),
            128,
        );
    }
    let reference = |uri: usize| json!({"uri": text(uri), "sha256": "0".repeat(64), "bytes": 1});
    bound(
        "steps[0].payloadRef.uri",
        |n| one(|s| s.set("payloadRef", reference(n))),
        1024,
    );
    let expected = |n: usize| json!({"requiredFields": [text(n)]});
    bound(
        "steps[0].expectedOutput.requiredFields[0]",
        |n| one(|s| s.set("expectedOutput", expected(n))),
        128,
    );
    // The lower end.
    for (broken, field) in [
        (one(|s| s).set("coordinationId", ""), "coordinationId"),
        (one(|s| s).set("objective", ""), "objective"),
        (one(|s| s.set("stepId", "a:b")), "steps[0].stepId"),
        (one(|s| s.set("stepId", "a b")), "steps[0].stepId"),
        (
            one(|s| s.set("targetSession", "a\u{7}b")),
            "steps[0].targetSession",
        ),
        (
            one(|s| s.set("targetSession", "")),
            "steps[0].targetSession",
        ),
        (one(|s| s.set("contentType", "")), "steps[0].contentType"),
    ] {
        assert_eq!(check(&broken).unwrap_err(), format!("{field} out-of-bound"));
    }
}

#[test]
fn bounds_of_numbers_of_a_plan() {
    let days_400 = 400 * 86_400_000_u64;
    assert_eq!(limit::DURATION_MS_MAX, days_400);
    let integer = usize::try_from(limit::INTEGER_MAX).unwrap();
    assert_eq!(limit::INTEGER_MAX, (1 << 53) - 1);
    let days = usize::try_from(days_400).unwrap();
    // What counts from a deadline stays an integer of the contract.
    let latest = integer - 2 * days;
    assert_eq!(limit::TIME_MS_MAX, latest as u64);
    bound("deadlineMs", |n| one(|s| s).set("deadlineMs", n), latest);
    bound(
        "cancelGraceMs",
        |n| one(|s| s).set("cancelGraceMs", n),
        15_000,
    );
    bound(
        "cleanupGraceMs",
        |n| one(|s| s).set("cleanupGraceMs", n),
        60_000,
    );
    bound(
        "failurePolicy.retryBudget",
        |n| one(|s| s).set("failurePolicy", json!({"retryBudget": n})),
        integer,
    );
    bound(
        "failurePolicy.backoffMs[0]",
        |n| one(|s| s).set("failurePolicy", json!({"backoffMs": [n]})),
        days,
    );
    bound(
        "steps[0].timeoutMs",
        |n| one(|s| s.set("timeoutMs", n)),
        days,
    );
    bound(
        "steps[0].ackTimeoutMs",
        |n| one(|s| s.set("ackTimeoutMs", n)),
        days,
    );
    bound(
        "steps[0].maxAttempts",
        |n| one(|s| s.set("maxAttempts", n)),
        u32::MAX as usize,
    );
    bound(
        "steps[0].expectedOutput.maxBytes",
        |n| one(|s| s.set("expectedOutput", json!({"maxBytes": n}))),
        integer,
    );
    let reference = |n: usize| json!({"uri": "u", "sha256": "0".repeat(64), "bytes": n});
    bound(
        "steps[0].payloadRef.bytes",
        |n| one(|s| s.set("payloadRef", reference(n))),
        integer,
    );
    for (name, wrong) in [
        ("timeoutMs", json!(0)),
        ("ackTimeoutMs", json!(0)),
        ("maxAttempts", json!(0)),
        ("timeoutMs", json!(1.5)),
        ("timeoutMs", json!(-1)),
        ("timeoutMs", json!(1e3)),
    ] {
        let refused = check(&one(|s| s.set(name, wrong.clone()))).unwrap_err();
        assert_eq!(refused, format!("steps[0].{name} out-of-bound"), "{wrong}");
    }
    assert!(check(&one(|s| s.set("timeoutMs", 1))).is_ok());
}

#[test]
fn bounds_of_lists_of_a_plan() {
    bound(
        "failurePolicy.backoffMs",
        |n| one(|s| s).set("failurePolicy", json!({"backoffMs": vec![1; n]})),
        16,
    );
    let fields = |n: usize| json!({"requiredFields": vec!["x"; n]});
    bound(
        "steps[0].expectedOutput.requiredFields",
        |n| one(|s| s.set("expectedOutput", fields(n))),
        64,
    );
    let empty = check(&one(|s| s).set("failurePolicy", json!({"backoffMs": []})));
    assert_eq!(empty.unwrap_err(), "failurePolicy.backoffMs empty");
    bound(
        "steps",
        |n| plan((0..n).map(|n| step(&n.to_string()))),
        10_000,
    );
    let wide = |n: usize| {
        let all = (0..n)
            .map(|n| json!({"stepId": n.to_string()}))
            .collect::<Vec<_>>();
        let steps = (0..n).map(|n| step(&n.to_string()));
        plan(std::iter::once(step("all").set("dependsOn", all)).chain(steps))
    };
    bound("steps[0].dependsOn", wide, 4_096);
    // 25 steps with 4 000 dependencies each.
    let many = |more: usize| {
        let all = |count: usize| {
            (0..count)
                .map(|n| json!({"stepId": format!("p{n}")}))
                .collect::<Vec<_>>()
        };
        let parents = (0..4_000).map(|n| step(&format!("p{n}")));
        let children = (0..25).map(|n| step(&format!("c{n}")).set("dependsOn", all(4_000)));
        let last = step("last").set("dependsOn", all(more));
        plan(parents.chain(children).chain([last]))
    };
    assert_eq!(check(&many(0)).err(), None);
    assert_eq!(check(&many(1)).unwrap_err(), "steps out-of-bound");
}

#[test]
fn bounds_of_the_plan_as_a_whole() {
    // 300 steps of 55.8 KB are about 16 MiB; the last payload makes up the rest.
    let sized = |bytes: usize| {
        let steps = (0..299).map(|n| step(&format!("s{n:03}")).set("payload", "x".repeat(55_800)));
        let with = |rest: usize| {
            plan(
                steps
                    .clone()
                    .chain([step("last").set("payload", "x".repeat(rest))]),
            )
        };
        let empty = codec::canonical(&check(&with(0)).unwrap()).len();
        (with(bytes - empty), bytes)
    };
    let (at, max) = sized(16 * 1024 * 1024);
    assert_eq!(codec::canonical(&check(&at).unwrap()).len(), max);
    assert_eq!(check(&sized(max + 1).0).unwrap_err(), "$ out-of-bound");
    // The text may be longer than the canonical form, to a bound.
    let small = one(|s| s).text();
    let padded = |bytes: usize| format!("{small}{}", " ".repeat(bytes - small.len()));
    assert!(check_text(&padded(32 * 1024 * 1024)).is_ok());
    assert_eq!(
        check_text(&padded(32 * 1024 * 1024 + 1)).unwrap_err(),
        "$ out-of-bound"
    );
}

#[test]
fn bounds_of_an_envelope() {
    let text = |n: usize| "x".repeat(n);
    let ok = |envelope: Envelope| {
        envelope
            .check(limit::PAYLOAD_BYTES_MAX)
            .map_err(|(field, _)| field)
    };
    let sha256 = "0".repeat(64);
    let reference = |uri: usize, bytes: u64| PayloadRef {
        uri: text(uri),
        sha256: sha256.clone(),
        bytes,
    };
    let failed_with = |code: usize, message: usize| {
        let (class, code, message) = (FailureClass::Unknown, text(code), text(message));
        Envelope {
            outcome: Some(Outcome::Failed {
                class,
                code,
                message,
            }),
            ..done("a", 1, "")
        }
    };
    let extended = |count: usize, name: usize, value: usize| Envelope {
        extensions: vec![
            Extension {
                name: text(name),
                text: text(value)
            };
            count
        ],
        ..ack("a", 1)
    };
    type Make<'a> = Box<dyn Fn(usize) -> Envelope + 'a>;
    let rows: Vec<(&str, usize, Make<'_>)> = vec![
        (
            "coordinationId",
            128,
            Box::new(|n| ack("a", 1).of(&text(n))),
        ),
        ("stepId", 128, Box::new(|n| ack(&text(n), 1).by("s"))),
        (
            "parentStepId",
            128,
            Box::new(|n| Envelope {
                parent_step_id: Some(text(n)),
                ..ack("a", 1)
            }),
        ),
        ("sourceSession", 256, Box::new(|n| ack("a", 1).by(&text(n)))),
        (
            "targetSession",
            256,
            Box::new(|n| Envelope {
                target_session: text(n),
                ..ack("a", 1)
            }),
        ),
        (
            "contentType",
            128,
            Box::new(|n| Envelope {
                content_type: Some(text(n)),
                ..ack("a", 1)
            }),
        ),
        ("payload", 65_536, Box::new(|n| done("a", 1, &text(n)))),
        (
            "payloadRef.uri",
            1_024,
            Box::new(|n| Envelope {
                payload_ref: Some(reference(n, 1)),
                ..ack("a", 1)
            }),
        ),
        ("extensions", 32, Box::new(|n| extended(n, 1, 0))),
        ("extensions[0].name", 64, Box::new(|n| extended(1, n, 0))),
        ("extensions[0].text", 1_024, Box::new(|n| extended(1, 1, n))),
        (
            "trace.runId",
            128,
            Box::new(|n| Envelope {
                trace: Trace {
                    run_id: Some(text(n)),
                    ..Trace::default()
                },
                ..ack("a", 1)
            }),
        ),
        ("outcome.failed.code", 128, Box::new(|n| failed_with(n, 0))),
        (
            "outcome.failed.message",
            1_024,
            Box::new(|n| failed_with(1, n)),
        ),
        (
            "reason",
            1_024,
            Box::new(|n| Envelope {
                reason: Some(text(n)),
                ..cancel()
            }),
        ),
        (
            "outcome.progress.number",
            (1 << 53) - 1,
            Box::new(|n| progress("a", 1, n as u64)),
        ),
        (
            "createdAtMs",
            (1 << 53) - 1,
            Box::new(|n| Envelope {
                created_at_ms: n as u64,
                ..ack("a", 1)
            }),
        ),
        (
            "deadlineMs",
            (1 << 53) - 1,
            Box::new(|n| Envelope {
                deadline_ms: Some(n as u64),
                ..ack("a", 1)
            }),
        ),
        (
            "payloadRef.bytes",
            (1 << 53) - 1,
            Box::new(|n| Envelope {
                payload_ref: Some(reference(1, n as u64)),
                ..ack("a", 1)
            }),
        ),
    ];
    for (field, max, make) in rows {
        assert_eq!(ok(make(max)), Ok(()), "{field} at {max}");
        assert_eq!(ok(make(max + 1)), Err(field.to_owned()), "one past {max}");
    }
}

#[test]
fn bounds_of_a_batch() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.seen();
    for (count, fits) in [
        (limit::BATCH_MAX as usize, true),
        (limit::BATCH_MAX as usize + 1, false),
    ] {
        let (caller, now_ms) = (caller("agent:a"), 0);
        let notice = Notice {
            key: "c:a:1".into(),
            kind: NoticeKind::Taken,
        };
        let calls = [
            Call::Submit {
                caller: caller.clone(),
                now_ms,
                envelopes: vec![ack("nobody", 1); count],
            },
            Call::Acknowledge {
                caller,
                now_ms,
                keys: vec!["report:1".into(); count],
            },
            Call::Notice {
                now_ms,
                notices: vec![notice; count],
            },
        ];
        for call in calls {
            let answer = s.call(&call);
            assert_eq!(answer.is_ok(), fits, "{count} of {}", call.name());
            assert!(
                fits || matches!(answer, Err(CallError::Bound(_))),
                "{answer:?}"
            );
        }
    }
    s.expect(&[]);
}

#[test]
fn bounds_of_a_configuration() {
    let parse =
        |name: &str, value: Value| Config::parse(&json!({"domain": "d", name: value}).to_string());
    let days_400 = 400 * 86_400_000_u64;
    for (name, min, max) in [
        ("maxInFlight", 1_u64, 100_000),
        ("sessionInFlight", 1, 100_000),
        ("ackTimeoutMs", 1, days_400),
        ("cancelGraceMs", 0, days_400),
        ("cleanupGraceMs", 0, days_400),
    ] {
        assert!(
            parse(name, json!(min)).is_ok() && parse(name, json!(max)).is_ok(),
            "{name}"
        );
        let past = parse(name, json!(max + 1)).unwrap_err();
        assert!(
            past.field == name && past.message.contains(&format!("{min}..{max}")),
            "{past:?}"
        );
        assert!(parse(name, json!(min as i64 - 1)).is_err(), "{name}");
    }
    for (name, max) in [
        ("payloadBytes", 64 * 1024),
        ("planBytes", 16 * 1024 * 1024),
        ("planSteps", 10_000),
        ("batch", 1_024),
        ("liveCoordinations", 100_000),
        ("liveSteps", 2_000_000),
        ("livePayloadBytes", 1_u64 << 30),
    ] {
        // The configuration lowers a bound and never raises one.
        assert!(
            parse("limits", json!({name: max})).is_ok()
                && parse("limits", json!({name: 1})).is_ok()
        );
        for wrong in [0, max + 1] {
            let refused = parse("limits", json!({name: wrong})).unwrap_err();
            assert!(
                refused
                    .message
                    .contains(&format!("limits.{name} is {wrong}")),
                "{refused:?}"
            );
        }
    }
    let padded = |bytes: usize| {
        let text = r#"{"domain":"d"}"#;
        format!("{text}{}", " ".repeat(bytes - text.len()))
    };
    assert!(Config::parse(&padded(limit::CONFIG_BYTES_MAX)).is_ok());
    assert!(Config::parse(&padded(limit::CONFIG_BYTES_MAX + 1)).is_err());
    assert!(parse("prevDomainHead", json!("ab".repeat(32))).is_ok());
    assert!(parse("prevDomainHead", json!("AB".repeat(32))).is_err());
}

#[test]
fn limits_of_a_configuration_lower_what_an_input_may_be() {
    let mut s = Scenario::with(|config| {
        config.limits.payload_bytes = 10;
        config.limits.plan_steps = 2;
        config.limits.plan_bytes = 900;
        config.limits.batch = 2;
    });
    let of = |count: usize, payload: usize| {
        plan((0..count).map(|n| step(&n.to_string()).set("payload", "x".repeat(payload))))
    };
    assert_eq!(
        s.try_plan(of(1, 11)).unwrap_err().problems[0].field,
        "steps[0].payload"
    );
    assert_eq!(s.try_plan(of(3, 1)).unwrap_err().problems[0].field, "steps");
    let objective = of(1, 1).set("objective", "o".repeat(900));
    assert_eq!(s.try_plan(objective).unwrap_err().problems[0].field, "$");
    s.plan(of(2, 10));
    let long = s.submit(done("0", 1, "12345678901")).unwrap_err();
    assert_eq!(
        (long.field.as_str(), long.message.contains("11 bytes; 10")),
        ("payload", true)
    );
    assert_eq!(s.done("0", 1, "1234567890"), "accepted completed");
    let envelopes = vec![ack("1", 1); 3];
    let answer = s.call(&Call::Submit {
        caller: caller("agent:1"),
        now_ms: 0,
        envelopes,
    });
    assert!(matches!(answer, Err(CallError::Bound(_))), "{answer:?}");
}

#[test]
fn defaults_are_those_of_the_spec_and_filled_in() {
    let mut s = Scenario::blank();
    s.configure_text(r#"{"domain":"d","phase1":{"enabled":true}}"#)
        .unwrap();
    let config = s.data("ledger.genesis")["config"].clone();
    for (name, value) in [
        ("maxInFlight", 4),
        ("sessionInFlight", 1),
        ("ackTimeoutMs", 30_000),
        ("cancelGraceMs", 15_000),
        ("cleanupGraceMs", 60_000),
        ("hookTimeoutMs", 15_000),
    ] {
        assert_eq!(config[name], value, "{name}");
    }
    let bare = json!({
        "coordinationId": "c", "objective": "o", "ownerSession": OWNER, "priority": "high",
        "steps": [
            {"stepId": "a", "targetSession": "agent:a", "timeoutMs": 5},
            {"stepId": "b", "targetSession": "agent:b", "timeoutMs": 5, "deliveryMode": "best_effort",
             "dependsOn": [{"stepId": "a"}]},
        ],
    });
    s.plan(Json(bare));
    let recorded = s.data("coordination.created")["plan"].clone();
    assert_eq!(recorded["reports"], "failures");
    let policy = json!({"retryBudget": 0, "timeoutPolicy": "continue_with_partial", "escalationPolicy": "none", "backoffMs": [5_000, 25_000, 120_000, 600_000]});
    assert_eq!(recorded["failurePolicy"], policy);
    let policy = json!({"default": "owner_wins", "rules": [], "owners": [], "highRisk": [], "preempt": false});
    assert_eq!(recorded["conflictPolicy"], policy);
    let (a, b) = (&recorded["steps"][0], &recorded["steps"][1]);
    for (name, value) in [
        ("payload", json!("")),
        ("dependsOn", json!([])),
        ("join", json!("all")),
        ("claims", json!([])),
        ("owns", json!([])),
        ("risk", json!("high")),
        // That of the plan.
        ("priority", json!("high")),
        ("deliveryMode", json!("at_least_once")),
        ("idempotent", json!(true)),
        ("required", json!(false)),
        ("cleanup", json!(false)),
    ] {
        assert_eq!(a[name], value, "{name}");
    }
    assert_eq!(
        (&b["idempotent"], &b["dependsOn"][0]["on"]),
        (&json!(false), &json!("success"))
    );
}

/// Names of the members of a canonical object, in order.
fn names(json: &str) -> Vec<String> {
    members(json).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn canonical_plans_have_their_members_in_the_order_of_the_spec() {
    let reference = json!({"bytes": 1, "sha256": "0".repeat(64), "uri": "u"});
    let full = plan([
        step("p"),
        step("a")
            .set("payloadRef", reference)
            .set("contentType", "t")
            .set("dependsOn", json!([{"on": "always", "stepId": "p"}]))
            .set("ackTimeoutMs", 1)
            .set("maxAttempts", 1)
            .set(
                "expectedOutput",
                json!({"allowEmpty": true, "maxBytes": 1, "contentType": "t"}),
            )
            .set("parentStepId", "p"),
    ])
    .set("deadlineMs", 9)
    .set("cancelGraceMs", 1)
    .set("cleanupGraceMs", 1)
    .set("rerunOf", "x")
    .set(
        "parent",
        json!({"onClose": "abandon", "stepId": "s", "coordinationId": "up"}),
    )
    .set(
        "failurePolicy",
        json!({"human": {"levels": [{"timeoutMs": 1}]}, "escalationPolicy": "hitl"}),
    )
    .set(
        "trace",
        json!({"traceparent": "t", "causalRef": "c", "spanId": "s", "runId": "r"}),
    );
    let text = codec::canonical(&check(&full).unwrap());
    let of = |text: &str, name: &str| {
        let found = members(text).into_iter().find(|(member, _)| member == name);
        found.unwrap().1.get().to_owned()
    };
    assert_eq!(
        names(&text).join(" "),
        "coordinationId objective ownerSession steps conflictPolicy failurePolicy deadlineMs cancelGraceMs \
         cleanupGraceMs priority reports rerunOf parent trace"
    );
    assert_eq!(
        names(&of(&text, "failurePolicy")).join(" "),
        "retryBudget timeoutPolicy escalationPolicy backoffMs human"
    );
    assert_eq!(
        names(&of(&text, "trace")).join(" "),
        "runId spanId causalRef traceparent"
    );
    let steps: Vec<Box<serde_json::value::RawValue>> =
        serde_json::from_str(&of(&text, "steps")).unwrap();
    let a = steps[1].get();
    assert_eq!(
        names(a).join(" "),
        "stepId targetSession payloadRef contentType dependsOn join claims owns priority deliveryMode timeoutMs \
         ackTimeoutMs maxAttempts idempotent required cleanup risk expectedOutput parentStepId"
    );
    assert_eq!(names(&of(a, "payloadRef")).join(" "), "uri sha256 bytes");
    assert_eq!(of(a, "dependsOn"), r#"[{"stepId":"p","on":"always"}]"#);
    assert_eq!(
        names(&of(a, "expectedOutput")).join(" "),
        "contentType requiredFields maxBytes allowEmpty"
    );
    // Read again it is the same.
    assert_eq!(codec::canonical(&check_text(&text).unwrap()), text);
}

#[test]
fn digests_are_those_of_the_canonical_json_of_what_they_name() {
    let sha256 = |text: &str| qm2_core::digest::sha256_hex(&[text.as_bytes()]);
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("payload", "in \"quotes\"\u{7f}")]));
    let line = s.lines[1].clone();
    let data = members(&line)
        .into_iter()
        .find(|(name, _)| name == "data")
        .unwrap()
        .1;
    let canonical_plan = members(data.get())
        .into_iter()
        .find(|(name, _)| name == "plan")
        .unwrap()
        .1;
    assert_eq!(
        s.data("coordination.created")["planDigest"],
        sha256(canonical_plan.get())
    );
    let payload_digest = sha256("\"in \\\"quotes\\\"\\u007f\"");
    assert_eq!(
        s.data("step.dispatched a:1")["payloadDigest"],
        payload_digest
    );
    let mut report = done("a", 1, "out");
    report.content_type = Some("text/plain".into());
    report.extensions = vec![Extension {
        name: "n".into(),
        text: "t".into(),
    }];
    s.submit(report).unwrap();
    let content = r#"{"sourceSession":"agent:a","targetSession":"user:owner","outcome":"completed","contentType":"text/plain","payload":"out","priority":"normal","deliveryMode":"at_least_once","extensions":[{"name":"n","text":"t"}]}"#;
    assert_eq!(
        s.data("step.completed a:1")["contentDigest"],
        sha256(content)
    );
    let config = members(&s.lines[0])
        .into_iter()
        .find(|(name, _)| name == "data")
        .unwrap()
        .1;
    let config = members(config.get())
        .into_iter()
        .find(|(name, _)| name == "config")
        .unwrap()
        .1;
    assert_eq!(
        s.data("ledger.genesis")["configDigest"],
        sha256(config.get())
    );
}

#[test]
fn lines_escape_exactly_what_the_spec_says() {
    let text: String = (0..=0x7f_u8)
        .map(char::from)
        .chain("é\u{80}\u{2028}😀".chars())
        .collect();
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\u{8}' => escaped.push_str("\\b"),
            '\u{c}' => escaped.push_str("\\f"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                escaped.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => escaped.push(c),
        }
    }
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).set("objective", text.as_str()));
    assert!(
        s.lines[1].contains(&format!("\"objective\":\"{escaped}\"")),
        "{}",
        s.lines[1]
    );
    s.done("a", 1, &text);
    let completed = s
        .lines
        .iter()
        .find(|line| line.contains("step.completed"))
        .unwrap();
    assert!(completed.contains(&format!("\"payload\":\"{escaped}\"")));
    assert_eq!(s.data("step.completed a:1")["payload"], text);
}

#[test]
fn the_trace_of_a_record_is_that_of_the_envelope_that_led_here_else_that_of_the_plan() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b").after("a")]).set("trace", json!({"runId": "plan"})));
    let trace = Trace {
        run_id: Some("report".into()),
        ..Trace::default()
    };
    s.submit(Envelope {
        trace,
        ..ack("a", 1)
    })
    .unwrap();
    s.done("a", 1, "");
    let of = |s: &Scenario, label: &str| s.record(label)["trace"]["runId"].clone();
    assert_eq!(of(&s, "coordination.created"), "plan");
    assert_eq!(of(&s, "step.dispatched a:1"), "plan");
    assert_eq!(of(&s, "step.acknowledged a:1"), "report");
    assert_eq!(of(&s, "step.completed a:1"), "plan");
    assert_eq!(
        s.message("c:a:1").envelope.trace.run_id.as_deref(),
        Some("plan")
    );
    // Without either there is none.
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    assert!(s.record("step.dispatched a:1").get("trace").is_none());
}

#[test]
fn the_first_lines_of_a_ledger_are_pinned_byte_for_byte() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("payload", "in")]));
    s.now_ms = 7;
    s.done("a", 1, "out");
    let pinned = include_str!("../vectors/first-lines.jsonl");
    assert_eq!(s.lines.join("\n"), pinned.trim_end());
}

#[test]
fn every_record_type_of_the_spec_is_written_and_no_other() {
    let mut ours = Event::TYPES.to_vec();
    ours.sort_unstable();
    let mut spec = types();
    spec.sort_unstable();
    assert_eq!(ours, spec);
}

#[test]
fn the_other_bounds_are_those_of_the_spec() {
    // Each has its own test of behaviour; here are the figures.
    assert_eq!(limit::TIMERS_A_CALL_MAX, 4_096);
    assert_eq!(limit::KEPT_INPUTS_AN_ATTEMPT_MAX, 16);
    assert_eq!(limit::FREE_RETRIES_MAX, 3);
    // Not the spec's, which has none: without it a step could go on for ever.
    assert_eq!(limit::SILENT_ATTEMPTS_MAX, 3);
    assert_eq!(limit::RETRY_AFTER_MS, 1_000);
    assert_eq!(
        limit::REDELIVERY_MS,
        [5_000, 25_000, 120_000, 600_000, 600_000]
    );
    assert_eq!(limit::AGEING_MS, 30_000);
    assert_eq!(limit::BACKOFF_MS_DEFAULT, [5_000, 25_000, 120_000, 600_000]);
    assert_eq!(limit::LIVE_COORDINATIONS_MAX, 100_000);
    assert_eq!(limit::LIVE_STEPS_MAX, 2_000_000);
    assert_eq!(limit::LIVE_PAYLOAD_BYTES_MAX, 1 << 30);
    assert_eq!(limit::IN_FLIGHT_MAX, 100_000);
    assert_eq!(limit::BATCH_MAX, 1_024);
    assert_eq!(limit::PLAN_BYTES_MAX, 16 << 20);
    assert_eq!(limit::PLAN_TEXT_BYTES_MAX, 32 << 20);
}
