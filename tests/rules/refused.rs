//! Every member of a plan, as any host sees it (R-1, R-13): at its bound it is taken, one past it, of a wrong type or unknown
//! it is refused by its name.
//!
//! Small enough for vectors. What takes long texts or many entries is in `bounds.rs` and `shared_bounds.rs`, what is no plan in
//! `refused_input.rs`.

use crate::support::*;
use qm2_core::limit::{INTEGER_MAX, TIME_MS_MAX};
use serde_json::{Value, json};

pub(super) const DAYS_400: u64 = 400 * 86_400_000;

pub(super) fn text(bytes: usize) -> Value {
    "x".repeat(bytes).into()
}

pub(super) fn list(entry: Value, count: usize) -> Value {
    vec![entry; count].into()
}

/// Sets what is at a path such as `steps/0/claims/0/leaseMs`; what is missing on the way there is made.
pub(super) fn put(value: &mut Value, path: &str, new: Value) {
    let mut at = value;
    for name in path.split('/') {
        at = match name.parse::<usize>() {
            Ok(index) => {
                if !at.is_array() {
                    *at = json!([]);
                }
                let list = at.as_array_mut().expect("a list");
                list.resize(list.len().max(index + 1), json!({}));
                &mut list[index]
            }
            Err(_) => {
                if !at.is_object() {
                    *at = json!({});
                }
                at.as_object_mut()
                    .expect("an object")
                    .entry(name)
                    .or_insert(json!({}))
            }
        };
    }
    *at = new;
}

/// The path as a refusal names it: `steps[0].claims[0].leaseMs`.
pub(super) fn field(path: &str) -> String {
    let mut field = String::new();
    for name in path.split('/') {
        match name.parse::<usize>() {
            Ok(index) => field += &format!("[{index}]"),
            Err(_) if field.is_empty() => field += name,
            Err(_) => field += &format!(".{name}"),
        }
    }
    field
}

/// A path and a value that is too much, or a word for what is wrong and the value.
type Wrong<'a> = (&'a str, &'a str, Value);

/// Each of these alone in a plan is refused, by its own name and for its own reason, and nothing is recorded.
fn refuse_plans(base: &Json, rows: Vec<Wrong<'_>>) {
    let mut s = Scenario::new();
    s.seen();
    for (path, code, value) in rows {
        let mut plan = base.clone();
        put(&mut plan.0, path, value);
        let refused = s.submit_plan(OWNER, &plan.text()).expect_err(path);
        assert_eq!(brief_rejection(&refused), "invalid-plan - fix", "{path}");
        let found = refused.problems.iter();
        let found: Vec<String> = found
            .map(|problem| {
                let of = problem.step_id.as_deref().unwrap_or("-");
                format!("{of} {} {}", problem.field, problem.code)
            })
            .collect();
        let of = if path.starts_with("steps/") && path != "steps/0/stepId" {
            "a"
        } else if path == "steps/0/stepId" {
            plan.0["steps"][0]["stepId"].as_str().unwrap_or("-")
        } else {
            "-"
        };
        assert_eq!(found, [format!("{of} {} {code}", field(path))], "{path}");
        // A sentence that says what would be right.
        assert!(refused.problems[0].message.len() > 8, "{refused:?}");
    }
    s.expect(&[]);
    s.expect_out(&[]);
}

/// All of these together in a plan are taken.
fn take_plan(base: &Json, rows: &[(&str, Value)]) {
    let mut s = Scenario::new();
    let mut plan = base.clone();
    for (path, value) in rows {
        put(&mut plan.0, path, value.clone());
    }
    let owner = plan.text_of("ownerSession");
    let taken = s.submit_plan(&owner, &plan.text());
    assert!(taken.is_ok(), "{taken:?}");
    let created = s.record(&format!(
        "coordination.created {}",
        plan.text_of("coordinationId")
    ));
    for (path, value) in rows {
        let place = format!("/data/plan/{path}");
        assert_eq!(created.pointer(&place), Some(value), "{path}");
    }
}

fn one() -> Json {
    plan([step("a")])
}

fn short() -> Json {
    plan([step("a")]).set("coordinationId", "n")
}

// ---- plans ----

#[test]
fn r_1_members_of_a_plan_at_their_bounds() {
    let sha256 = json!("0123456789abcdef".repeat(4));
    let mut fields = list(text(1), 64);
    fields[63] = text(128);
    take_plan(
        &one(),
        &[
            ("coordinationId", text(128)),
            ("objective", text(4_096)),
            ("ownerSession", text(256)),
            ("rerunOf", text(128)),
            ("deadlineMs", TIME_MS_MAX.into()),
            ("cancelGraceMs", 15_000.into()),
            ("cleanupGraceMs", 60_000.into()),
            ("trace/runId", text(128)),
            ("trace/spanId", text(128)),
            ("trace/causalRef", text(128)),
            ("trace/traceparent", text(128)),
            ("failurePolicy/retryBudget", INTEGER_MAX.into()),
            ("failurePolicy/backoffMs", list(DAYS_400.into(), 16)),
            ("priority", "critical".into()),
            ("reports", "all".into()),
            ("steps/0/stepId", text(128)),
            ("steps/0/parentStepId", text(128)),
            ("steps/0/targetSession", text(256)),
            ("steps/0/contentType", text(128)),
            ("steps/0/payloadRef/uri", text(1_024)),
            ("steps/0/payloadRef/sha256", sha256),
            ("steps/0/payloadRef/bytes", INTEGER_MAX.into()),
            ("steps/0/timeoutMs", DAYS_400.into()),
            ("steps/0/ackTimeoutMs", DAYS_400.into()),
            ("steps/0/maxAttempts", u32::MAX.into()),
            ("steps/0/expectedOutput/requiredFields", fields),
            ("steps/0/expectedOutput/maxBytes", INTEGER_MAX.into()),
            ("steps/0/expectedOutput/allowEmpty", true.into()),
        ],
    );
    // The smallest of everything.
    take_plan(
        &short(),
        &[
            ("objective", text(1)),
            ("ownerSession", text(1)),
            ("deadlineMs", 1.into()),
            ("cancelGraceMs", 0.into()),
            ("cleanupGraceMs", 0.into()),
            ("failurePolicy/backoffMs", list(0.into(), 1)),
            ("steps/0/timeoutMs", 1.into()),
            ("steps/0/ackTimeoutMs", 1.into()),
            ("steps/0/maxAttempts", 1.into()),
        ],
    );
}

#[test]
fn r_1_members_of_a_plan_past_their_bounds() {
    let over = "out-of-bound";
    refuse_plans(
        &one(),
        vec![
            ("coordinationId", over, text(129)),
            ("coordinationId", over, text(0)),
            ("coordinationId", over, json!("a:b")),
            ("coordinationId", over, json!("ä")),
            ("objective", over, text(4_097)),
            ("objective", over, text(0)),
            ("ownerSession", over, text(257)),
            ("ownerSession", over, json!("a b")),
            ("rerunOf", over, text(129)),
            ("deadlineMs", over, (TIME_MS_MAX + 1).into()),
            ("cancelGraceMs", over, 15_001.into()),
            ("cleanupGraceMs", over, 60_001.into()),
            ("trace/runId", over, text(129)),
            ("trace/spanId", over, text(129)),
            ("trace/causalRef", over, text(129)),
            ("trace/traceparent", over, text(129)),
            ("priority", over, json!("urgent")),
            ("reports", over, json!("some")),
            ("failurePolicy/retryBudget", over, (INTEGER_MAX + 1).into()),
            ("failurePolicy/backoffMs", over, list(1.into(), 17)),
            ("failurePolicy/backoffMs/0", over, (DAYS_400 + 1).into()),
            ("failurePolicy/backoffMs", "empty", json!([])),
            ("failurePolicy/timeoutPolicy", over, json!("wait")),
            ("failurePolicy/escalationPolicy", over, json!("shout")),
            ("steps", "empty", json!([])),
        ],
    );
}

#[test]
fn r_1_members_of_a_step_past_their_bounds() {
    let over = "out-of-bound";
    refuse_plans(
        &one(),
        vec![
            ("steps/0/stepId", over, text(129)),
            ("steps/0/stepId", over, json!("a:b")),
            ("steps/0/parentStepId", over, text(129)),
            ("steps/0/targetSession", over, text(257)),
            ("steps/0/targetSession", over, json!("a\u{7f}b")),
            ("steps/0/contentType", over, text(129)),
            ("steps/0/contentType", over, text(0)),
            ("steps/0/join", over, json!("most")),
            ("steps/0/priority", over, json!("urgent")),
            ("steps/0/deliveryMode", over, json!("exactly_once")),
            ("steps/0/risk", over, json!("medium")),
            ("steps/0/timeoutMs", over, (DAYS_400 + 1).into()),
            ("steps/0/timeoutMs", over, 0.into()),
            ("steps/0/timeoutMs", over, json!(-1)),
            ("steps/0/timeoutMs", over, json!(1.5)),
            ("steps/0/ackTimeoutMs", over, (DAYS_400 + 1).into()),
            ("steps/0/ackTimeoutMs", over, 0.into()),
            ("steps/0/maxAttempts", over, 0.into()),
            (
                "steps/0/maxAttempts",
                over,
                (u64::from(u32::MAX) + 1).into(),
            ),
            (
                "steps/0/expectedOutput/requiredFields",
                over,
                list(json!("x"), 65),
            ),
            ("steps/0/expectedOutput/requiredFields/0", over, text(129)),
            (
                "steps/0/expectedOutput/maxBytes",
                over,
                (INTEGER_MAX + 1).into(),
            ),
            ("steps/0/expectedOutput/contentType", over, text(129)),
            ("steps/0/dependsOn/0/stepId", over, text(129)),
        ],
    );
    let reference = |change: Value| {
        let mut reference = json!({"uri": "u", "sha256": "0".repeat(64), "bytes": 1});
        for (name, value) in change.as_object().expect("members") {
            reference[name] = value.clone();
        }
        step("a").set("payloadRef", reference)
    };
    for (change, at) in [
        (json!({"uri": ""}), "uri"),
        (json!({"uri": "x".repeat(1_025)}), "uri"),
        (json!({"sha256": "0".repeat(63)}), "sha256"),
        (json!({"sha256": "A".repeat(64)}), "sha256"),
        (json!({"bytes": INTEGER_MAX + 1}), "bytes"),
    ] {
        refuse_plans(
            &plan([reference(change.clone())]),
            vec![(
                &format!("steps/0/payloadRef/{at}"),
                "out-of-bound",
                change[at].clone(),
            )],
        );
    }
}

#[test]
fn r_13_members_of_a_plan_of_a_wrong_type() {
    let wrong = "wrong-type";
    refuse_plans(
        &one(),
        vec![
            ("coordinationId", wrong, 1.into()),
            ("objective", wrong, Value::Null),
            ("deadlineMs", wrong, json!("tomorrow")),
            ("conflictPolicy", wrong, json!([])),
            ("failurePolicy", wrong, json!("none")),
            ("failurePolicy/backoffMs", wrong, 5.into()),
            ("failurePolicy/backoffMs/0", wrong, json!("5")),
            ("trace", wrong, json!([])),
            ("parent", wrong, json!("p")),
            ("reports", wrong, true.into()),
            ("steps", wrong, json!({})),
            ("steps/0/required", wrong, 1.into()),
            ("steps/0/cleanup", wrong, json!("yes")),
            ("steps/0/idempotent", wrong, Value::Null),
            ("steps/0/dependsOn", wrong, json!("b")),
            ("steps/0/dependsOn/0", wrong, json!("b")),
            ("steps/0/claims", wrong, json!({})),
            ("steps/0/claims/0", wrong, json!("file:x")),
            ("steps/0/owns", wrong, json!("file:x")),
            ("steps/0/owns/0", wrong, 1.into()),
            ("steps/0/expectedOutput", wrong, true.into()),
            ("steps/0/expectedOutput/allowEmpty", wrong, 1.into()),
        ],
    );
    // No object, and no JSON, at all.
    let mut s = Scenario::new();
    for (text, place) in [
        ("[]", "$ wrong-type"),
        ("", "line 1 column 0 syntax"),
        ("{\"a\":1,}", "line 1 column 8 syntax"),
    ] {
        let refused = s.submit_plan(OWNER, text).unwrap_err();
        let problem = &refused.problems[0];
        assert_eq!(format!("{} {}", problem.field, problem.code), place);
    }
    let mut not_a_step = one();
    put(&mut not_a_step.0, "steps/1", json!("b"));
    let refused = s.try_plan(not_a_step).unwrap_err();
    assert_eq!(refused.problems[0].field, "steps[1]");
}

#[test]
fn r_13_members_of_a_plan_that_are_missing_or_unknown() {
    let unknown = "unknown-member";
    refuse_plans(
        &plan([step("a").claims("file:x")]),
        vec![
            ("colour", unknown, 1.into()),
            ("steps/0/colour", unknown, 1.into()),
            ("steps/0/claims/0/colour", unknown, 1.into()),
            ("steps/0/expectedOutput/colour", unknown, 1.into()),
            ("conflictPolicy/colour", unknown, 1.into()),
            ("failurePolicy/colour", unknown, 1.into()),
            ("trace/colour", unknown, 1.into()),
        ],
    );
    let mut s = Scenario::new();
    for name in ["coordinationId", "objective", "ownerSession", "steps"] {
        let mut plan = one();
        plan.0.as_object_mut().expect("an object").remove(name);
        let refused = s.submit_plan(OWNER, &plan.text()).unwrap_err();
        let problem = &refused.problems[0];
        assert_eq!((&*problem.field, &*problem.code), (name, "missing"));
    }
    for name in ["stepId", "targetSession", "timeoutMs"] {
        let mut plan = one();
        let step = plan.0["steps"][0].as_object_mut().expect("an object");
        step.remove(name);
        let refused = s.submit_plan(OWNER, &plan.text()).unwrap_err();
        let problem = &refused.problems[0];
        let wanted = format!("steps[0].{name}");
        assert_eq!((&problem.field, &*problem.code), (&wanted, "missing"));
    }
    for (path, missing) in [
        ("steps/0/dependsOn", json!([{}])),
        ("steps/0/claims", json!([{"leaseMs": 5}])),
        ("steps/0/payloadRef", json!({"uri": "u"})),
        ("parent", json!({})),
    ] {
        let mut plan = one();
        put(&mut plan.0, path, missing);
        let refused = s.submit_plan(OWNER, &plan.text()).unwrap_err();
        let mut codes = refused.problems.iter().map(|problem| &*problem.code);
        assert!(codes.all(|code| code == "missing"), "{path}: {refused:?}");
    }
}

#[test]
fn r_13_what_members_of_a_plan_say_together() {
    let mut s = Scenario::new();
    let of = |refused: &qm2_core::receipt::Rejection| -> Vec<String> {
        let problems = refused.problems.iter();
        let text = |problem: &qm2_core::receipt::Problem| {
            let step = problem.step_id.as_deref().unwrap_or("-");
            format!("{step} {} {}", problem.field, problem.code)
        };
        problems.map(text).collect()
    };
    let owns = |id: &str, resource: &str| step(id).set("owns", json!([resource]));
    let best_effort = step("a").set("deliveryMode", "best_effort");
    for (plan, wanted) in [
        (
            plan([step("a").after("a")]),
            vec!["a steps[0].dependsOn[0].stepId self-dependency"],
        ),
        (
            plan([step("a").after("b")]),
            vec!["a steps[0].dependsOn unknown-dependency"],
        ),
        (
            plan([step("a").after("b").after("b"), step("b")]),
            vec!["a steps[0].dependsOn[1].stepId duplicate-dependency"],
        ),
        (
            plan([step("a"), step("a")]),
            vec!["a steps[1].stepId duplicate-step"],
        ),
        (
            plan([step("c").after("b"), step("b").after("c"), step("a")]),
            vec!["b steps[1].dependsOn cycle"],
        ),
        (
            plan([owns("b", "file:x"), owns("a", "file:./x")]),
            vec!["a steps[1].owns two-owners"],
        ),
        (
            plan([owns("a", "file:x")]).owner("file:*", "agent:z"),
            vec!["a steps[0].owns two-owners"],
        ),
        (
            plan([step("a")]).owner("file:x", "s").owner("file:x", "t"),
            vec!["- conflictPolicy.owners[1].resource two-owners"],
        ),
        (
            plan([step("a").set("owns", json!(["file:x", "file:/../x"]))]),
            vec!["a steps[0].owns[1] out-of-bound"],
        ),
        (
            plan([step("a").set("owns", json!(["file:x", "file:x//"]))]),
            vec!["a steps[0].owns[1] duplicate-resource"],
        ),
        (
            plan([step("a").claims("file:x/y").claims("file:x//./y")]),
            vec!["a steps[0].claims[1].resource duplicate-resource"],
        ),
        (
            plan([best_effort.set("maxAttempts", 2)]),
            vec!["a steps[0].maxAttempts best-effort"],
        ),
        (
            plan([step("a").set("payload", "x").set(
                "payloadRef",
                json!({"uri": "u", "sha256": "0".repeat(64), "bytes": 1}),
            )]),
            vec!["a steps[0].payloadRef out-of-bound"],
        ),
        (
            plan([step("a")]).set("failurePolicy", json!({"escalationPolicy": "hitl"})),
            vec!["- failurePolicy.human missing"],
        ),
        (
            plan([step("a")]).hitl().human_set("fallback", "block"),
            vec!["- failurePolicy.human.fallback no-deadline"],
        ),
    ] {
        let refused = s.try_plan(plan).unwrap_err();
        assert_eq!(of(&refused), wanted);
    }
    s.expect(&["ledger.genesis"][1..]);
}

// ---- claims, policies, people, parents ----

#[test]
fn r_1_claims_and_policies_at_their_bounds() {
    let regions = (0..64).map(|n| json!({"start": 2 * n, "end": 2 * n + 1}));
    let resource = json!(format!("file:{}", "x".repeat(507)));
    take_plan(
        &plan([step("a").claims("file:x")]).set("coordinationId", "n"),
        &[
            ("steps/0/claims/0/resource", resource.clone()),
            ("steps/0/claims/0/mode", "shared".into()),
            ("steps/0/claims/0/leaseMs", DAYS_400.into()),
            ("steps/0/claims/0/baseVersion", text(256)),
            (
                "steps/0/claims/0/regions",
                regions.collect::<Vec<_>>().into(),
            ),
            ("steps/0/owns/0", resource),
            ("conflictPolicy/default", "merge_if_safe".into()),
            ("conflictPolicy/rules/0/resource", text(512)),
            ("conflictPolicy/rules/0/strategy", "priority_wins".into()),
            ("conflictPolicy/owners/0/resource", text(512)),
            ("conflictPolicy/owners/0/session", text(256)),
            ("conflictPolicy/highRisk/0", text(512)),
            ("conflictPolicy/preempt", true.into()),
        ],
    );
}

#[test]
fn r_1_claims_and_policies_past_their_bounds() {
    let over = "out-of-bound";
    let claim = |name: &str| format!("steps/0/claims/0/{name}");
    let rows = [
        ("resource", json!(format!("file:{}", "x".repeat(508)))),
        ("resource", json!("")),
        ("resource", json!("x")),
        ("resource", json!("File:x")),
        ("resource", json!("1:x")),
        ("resource", json!("file:a/../b")),
        ("resource", json!("file:a\u{1}")),
        ("mode", json!("alone")),
        ("leaseMs", json!(0)),
        ("leaseMs", json!(DAYS_400 + 1)),
        ("baseVersion", text(0)),
        ("baseVersion", text(257)),
        ("regions", list(json!({"start": 0, "end": 1}), 65)),
        ("regions", json!([{"start": 5, "end": 5}])),
        ("regions", json!([{"start": 9, "end": 5}])),
    ];
    let paths: Vec<(String, Value)> = rows.map(|(name, value)| (claim(name), value)).into();
    let rows = paths
        .iter()
        .map(|(path, value)| (&**path, over, value.clone()));
    let base = plan([step("a").claims("file:x")])
        .owner("file:o", "s")
        .strategy("owner_wins");
    refuse_plans(&base, rows.collect());
    let mut ruled = base.clone();
    put(
        &mut ruled.0,
        "conflictPolicy/rules",
        json!([{"resource": "file:r", "strategy": "owner_wins"}]),
    );
    refuse_plans(
        &ruled,
        vec![
            ("conflictPolicy/default", over, json!("loudest_wins")),
            ("conflictPolicy/rules/0/resource", over, text(513)),
            ("conflictPolicy/rules/0/resource", over, text(0)),
            ("conflictPolicy/rules/0/strategy", over, json!("first")),
            ("conflictPolicy/owners/0/resource", over, text(513)),
            ("conflictPolicy/owners/0/session", over, text(257)),
            ("conflictPolicy/owners/0/session", over, json!("a b")),
            ("conflictPolicy/highRisk/0", over, text(513)),
            ("conflictPolicy/preempt", "wrong-type", 1.into()),
            ("conflictPolicy/rules/0/colour", "unknown-member", 1.into()),
            ("conflictPolicy/owners/0/colour", "unknown-member", 1.into()),
        ],
    );
}

#[test]
fn r_1_people_and_parents_at_and_past_their_bounds() {
    let levels = list(
        json!({"sessions": list(json!("s"), 16), "minRole": "owner", "timeoutMs": DAYS_400}),
        8,
    );
    take_plan(
        &short().hitl(),
        &[
            ("failurePolicy/human/levels", levels),
            ("failurePolicy/human/requiredApprovals", 16.into()),
            ("failurePolicy/human/fallback", "allow".into()),
        ],
    );
    let over = "out-of-bound";
    let human = |name: &str| format!("failurePolicy/human/{name}");
    let rows = [
        ("levels", over, list(json!({"timeoutMs": 1}), 9)),
        ("levels", "empty", json!([])),
        ("levels/0/sessions", over, list(json!("s"), 17)),
        ("levels/0/sessions/0", over, text(257)),
        ("levels/0/timeoutMs", over, json!(0)),
        ("levels/0/timeoutMs", over, json!(DAYS_400 + 1)),
        ("levels/0/minRole", over, json!("king")),
        ("levels/0/role", "unknown-member", json!("user")),
        ("requiredApprovals", over, json!(0)),
        ("requiredApprovals", over, json!(17)),
        ("fallback", over, json!("maybe")),
        ("quorum", "unknown-member", json!(1)),
    ];
    let paths: Vec<_> = rows
        .map(|(name, code, value)| (human(name), code, value))
        .into();
    let rows = paths
        .iter()
        .map(|(path, code, value)| (&**path, *code, value.clone()));
    refuse_plans(&one().hitl(), rows.collect());
    let parent = json!({"coordinationId": "p", "stepId": "p", "onClose": "cancel"});
    refuse_plans(
        &one().set("parent", parent),
        vec![
            ("parent/coordinationId", over, text(129)),
            ("parent/stepId", over, json!("a:b")),
            ("parent/onClose", over, json!("wait")),
            ("parent/depth", "unknown-member", json!(1)),
        ],
    );
}
