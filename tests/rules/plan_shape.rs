//! Shape of a plan. What is refused, which edges fire, what stops a plan and what still runs then.

use super::plan_end::ends;
use crate::support::*;
use qm2_core::envelope::FailureClass;
use qm2_core::receipt::Problem;
use serde_json::json;

const PERMANENT: FailureClass = FailureClass::Permanent;
const RETRYABLE: FailureClass = FailureClass::Retryable;

fn problems(refused: &[Problem]) -> Vec<String> {
    let text = |problem: &Problem| {
        let step = problem.step_id.as_deref().unwrap_or("-");
        format!("{step} {} {}", problem.field, problem.code)
    };
    refused.iter().map(text).collect()
}

#[test]
fn r_13_every_error_of_a_plan_is_listed_in_step_order_and_nothing_recorded() {
    let mut s = Scenario::new();
    let broken = plan([
        step("z").set("timeoutMs", "soon").set("colour", "red"),
        step("m").after("gone").after("m").after("z").after("z"),
        step("b").after("c"),
        step("c").after("b"),
        step("m"),
        step("a")
            .set("deliveryMode", "best_effort")
            .set("maxAttempts", 2),
    ])
    .set("objective", "")
    .set("lanes", 3);
    let refused = s.try_plan(broken).unwrap_err();
    assert_eq!(brief_rejection(&refused), "invalid-plan - fix");
    assert_eq!(
        problems(&refused.problems),
        [
            "- objective out-of-bound",
            "- lanes unknown-member",
            "a steps[5].maxAttempts best-effort",
            "b steps[2].dependsOn cycle",
            "m steps[1].dependsOn[1].stepId self-dependency",
            "m steps[1].dependsOn[3].stepId duplicate-dependency",
            "m steps[4].stepId duplicate-step",
            "m steps[1].dependsOn unknown-dependency",
            "z steps[0].timeoutMs wrong-type",
            "z steps[0].colour unknown-member",
        ]
    );
    let cycle = refused
        .problems
        .iter()
        .find(|problem| problem.code == "cycle");
    assert!(cycle.unwrap().message.contains("b -> c -> b"));
    s.expect(&[]);
    s.expect_out(&[]);
}

#[test]
fn r_13_a_plan_without_steps_or_without_what_it_must_have_is_refused() {
    let mut s = Scenario::new();
    let refused = s.try_plan(plan([])).unwrap_err();
    assert_eq!(problems(&refused.problems), ["- steps empty"]);
    let refused = s.submit_plan(OWNER, "{}").unwrap_err();
    assert_eq!(
        problems(&refused.problems),
        [
            "- coordinationId missing",
            "- objective missing",
            "- ownerSession missing",
            "- steps missing"
        ]
    );
    let bare = Json(json!({}));
    let refused = s.try_plan(plan([bare])).unwrap_err();
    assert_eq!(
        problems(&refused.problems),
        [
            "- steps[0].stepId missing",
            "- steps[0].targetSession missing",
            "- steps[0].timeoutMs missing"
        ]
    );
    for (text, code) in [
        ("{", "syntax"),
        ("[]", "wrong-type"),
        ("{} x", "syntax"),
        ("null", "wrong-type"),
    ] {
        let refused = s.submit_plan(OWNER, text).unwrap_err();
        assert_eq!(refused.problems[0].code, code, "{text}");
    }
    let refused = s.submit_plan(OWNER, "{\n  \"objective\": }").unwrap_err();
    assert_eq!(refused.problems[0].field, "line 2 column 16");
    s.expect(&[]);
}

#[test]
fn r_13_unknown_members_are_errors_wherever_they_stand() {
    let rows: Vec<(Json, &str)> = vec![
        (plan([step("a")]).set("hooks", json!([])), "- hooks"),
        (
            plan([step("a").set("claims", json!([{"resource": "file:a", "lock": 1}]))]),
            "a steps[0].claims[0].lock",
        ),
        (
            plan([
                step("a"),
                step("b").set("dependsOn", json!([{"stepId": "a", "when": "x"}])),
            ]),
            "b steps[1].dependsOn[0].when",
        ),
        (
            plan([step("a").set("expectedOutput", json!({"max": 1}))]),
            "a steps[0].expectedOutput.max",
        ),
        (
            plan([step("a").set(
                "payloadRef",
                json!({"uri": "u", "sha256": "0".repeat(64), "bytes": 1, "x": 1}),
            )]),
            "a steps[0].payloadRef.x",
        ),
        (
            plan([step("a")]).set("failurePolicy", json!({"retries": 1})),
            "- failurePolicy.retries",
        ),
        (
            plan([step("a")]).set("trace", json!({"id": "x"})),
            "- trace.id",
        ),
    ];
    let mut s = Scenario::new();
    for (broken, place) in rows {
        let refused = s.try_plan(broken).unwrap_err();
        assert_eq!(
            problems(&refused.problems),
            [format!("{place} unknown-member")]
        );
    }
    s.expect(&[]);
}

#[test]
fn r_13_longer_cycles_and_several_of_them_are_named_once_each() {
    let mut s = Scenario::new();
    let broken = plan([
        step("a").after("c"),
        step("b").after("a"),
        step("c").after("b"),
        step("d").after("c"),
        step("e").on("f", "always"),
        step("f").on("e", "failure"),
    ]);
    let refused = s.try_plan(broken).unwrap_err();
    assert_eq!(
        problems(&refused.problems),
        ["a steps[0].dependsOn cycle", "e steps[4].dependsOn cycle"]
    );
    assert!(
        refused.problems[0].message.contains("a -> c -> b -> a"),
        "{:?}",
        refused.problems
    );
}

/// How step `a` ends, and how its three children on success, failure and always begin.
#[test]
fn r_14_an_edge_fires_by_the_end_of_its_parent() {
    let ends: [(&str, [bool; 3]); 5] = [
        ("completed", [true, false, true]),
        ("failed", [false, true, true]),
        ("timed_out", [false, true, true]),
        ("cancelled", [false, false, true]),
        ("skipped", [false, false, true]),
    ];
    for (end, fires) in ends {
        let mut s = Scenario::with(|config| config.max_in_flight = 100);
        let a = step("a").set("timeoutMs", 1_000);
        let a = if end == "skipped" { a.after("0") } else { a };
        s.plan(plan([
            step("0"),
            a,
            step("on-success").on("a", "success"),
            step("on-failure").on("a", "failure"),
            step("on-always").on("a", "always"),
            step("z"),
        ]));
        match end {
            "completed" => s.done("a", 1, ""),
            "failed" => s.fail("a", 1, PERMANENT, "x"),
            "cancelled" => {
                s.cancel_step("a");
                s.fail("a", 1, PERMANENT, "x")
            }
            "skipped" => s.fail("0", 1, PERMANENT, "x"),
            _ => {
                s.advance(1_000);
                String::new()
            }
        };
        assert_eq!(s.step_state("a"), end);
        for (child, fires) in ["on-success", "on-failure", "on-always"].iter().zip(fires) {
            let state = if fires { "dispatched" } else { "skipped" };
            assert_eq!(s.step_state(child), state, "{child} of {end}");
        }
    }
}

#[test]
fn r_15_join_all_needs_every_edge_and_join_any_the_first() {
    let mut s = Scenario::with(|config| config.max_in_flight = 100);
    s.plan(plan([
        step("a"),
        step("b"),
        step("all").after("a").after("b"),
        step("any").after("a").after("b").set("join", "any"),
    ]));
    s.seen();
    s.done("a", 1, "");
    s.expect(&["step.completed a:1", "step.dispatched any:1"]);
    assert_eq!(s.waits_for("all")["steps"], json!(["b"]));
    s.done("b", 1, "");
    s.expect(&["step.completed b:1", "step.dispatched all:1"]);
    assert_eq!(s.cause("step.dispatched all:1"), "step.completed b:1");
    assert_eq!(s.cause("step.dispatched any:1"), "step.completed a:1");
}

#[test]
fn r_15_join_any_is_skipped_only_when_its_last_edge_is_dead() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b"),
        step("any").after("a").after("b").set("join", "any"),
    ]));
    s.seen();
    s.fail("a", 1, PERMANENT, "x");
    s.expect(&["step.failed a:1"]);
    s.fail("b", 1, PERMANENT, "x");
    s.expect(&[
        "step.failed b:1",
        "step.skipped any:1",
        "coordination.terminal",
    ]);
    assert_eq!(
        s.data("step.skipped any:1"),
        json!({"reason": "upstream_failed", "dependsOn": ["a", "b"]})
    );
    assert_eq!(s.cause("step.skipped any:1"), "step.failed b:1");
}

#[test]
fn r_15_a_step_that_can_no_longer_run_is_skipped_at_once_and_transitively() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("z"),
        step("b").after("a").after("z"),
        step("c").after("b"),
        step("d").after("c"),
    ]));
    s.seen();
    s.fail("a", 1, PERMANENT, "x");
    s.expect(&[
        "step.failed a:1",
        "step.skipped b:1",
        "step.skipped c:1",
        "step.skipped d:1",
    ]);
    assert_eq!(s.cause("step.skipped d:1"), "step.skipped c:1");
    assert_eq!(s.data("step.skipped b:1")["dependsOn"], json!(["a"]));
    assert_eq!(
        s.data("step.skipped d:1"),
        json!({"reason": "upstream_failed", "dependsOn": ["c"]})
    );
}

#[test]
fn r_15_skipped_by_condition_if_every_dead_edge_comes_from_one_that_completed_or_was_so_skipped() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b").on("a", "failure"),
        step("c").after("b"),
        step("mixed").after("b").after("z"),
        step("z"),
    ]));
    s.fail("z", 1, PERMANENT, "x");
    assert_eq!(s.data("step.skipped mixed:1")["reason"], "upstream_failed");
    s.done("a", 1, "");
    assert_eq!(
        s.data("step.skipped b:1"),
        json!({"reason": "condition", "dependsOn": ["a"]})
    );
    assert_eq!(
        s.data("step.skipped c:1"),
        json!({"reason": "condition", "dependsOn": ["b"]})
    );

    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("z"),
        step("b").on("a", "failure"),
        step("mixed")
            .on("b", "success")
            .on("z", "success")
            .set("join", "any"),
    ]));
    s.done("a", 1, "");
    s.fail("z", 1, PERMANENT, "x");
    assert_eq!(
        s.data("step.skipped mixed:1"),
        json!({"reason": "upstream_failed", "dependsOn": ["b", "z"]})
    );
}

#[test]
fn r_16_a_skip_by_condition_does_not_spoil_success() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b").on("a", "failure"),
        step("c").after("b"),
    ]));
    s.done("a", 1, "");
    ends(&s, "success", None);
    let counts = json!({"completed": 1, "failed": 0, "timedOut": 0, "cancelled": 0, "skipped": 2});
    assert_eq!(s.data("coordination.terminal")["counts"], counts);
}

#[test]
fn r_17_fail_fast_trips_when_a_step_is_exhausted_not_at_its_first_failure() {
    let mut s = Scenario::new();
    s.plan(
        plan([step("a"), step("b").after("a"), step("z")])
            .retries(1, &[0])
            .fail_fast(),
    );
    s.seen();
    s.fail("a", 1, RETRYABLE, "x");
    s.expect(&["step.retry_scheduled a:1", "step.dispatched a:2"]);
    assert_eq!(s.state(), "open");
    s.expect_out(&["c:a:2#1 control", "-c:a:1"]);
    s.fail("a", 2, RETRYABLE, "x");
    s.expect(&["step.failed a:2", "step.skipped b:1"]);
    s.expect_out(&["cancel:c:z:1#1 control", "report:7#1 data", "-c:a:2"]);
    assert_eq!(s.state(), "stopping");
    s.advance(14_999);
    s.expect(&[]);
    s.advance(15_000);
    s.expect(&["step.cancelled z:1", "coordination.terminal"]);
    assert_eq!(
        s.data("step.cancelled z:1"),
        json!({"by": "fail_fast", "graceUsed": true})
    );
    assert_eq!(s.cause("step.cancelled z:1"), "step.failed a:2");
    ends(&s, "failed", Some("fail_fast"));
}

#[test]
fn r_17_after_a_trip_the_rest_is_skipped_by_fail_fast() {
    let mut s = Scenario::with(|config| config.max_in_flight = 2);
    s.plan(
        plan([
            step("a"),
            step("b"),
            step("ready"),
            step("pending").after("b"),
        ])
        .fail_fast(),
    );
    s.seen();
    s.fail("a", 1, PERMANENT, "x");
    s.expect(&[
        "step.failed a:1",
        "step.skipped pending:1",
        "step.skipped ready:1",
    ]);
    for skipped in ["step.skipped pending:1", "step.skipped ready:1"] {
        assert_eq!(
            s.data(skipped),
            json!({"reason": "fail_fast", "dependsOn": []})
        );
        assert_eq!(s.cause(skipped), "step.failed a:1");
    }
    // An end within the grace stands.
    assert_eq!(s.done("b", 1, ""), "accepted completed");
    ends(&s, "failed", Some("fail_fast"));
}

#[test]
fn r_17_a_timeout_trips_as_well() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 5), step("z")]).fail_fast());
    s.advance(5);
    assert_eq!(s.state(), "stopping");
    s.done("z", 1, "");
    ends(&s, "failed", Some("fail_fast"));
}

#[test]
fn r_17_a_required_step_trips_under_continue_with_partial_and_others_do_not() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b"),
        step("must").set("required", true),
        step("z"),
    ]));
    s.fail("a", 1, PERMANENT, "x");
    assert_eq!(s.state(), "open");
    s.fail("must", 1, PERMANENT, "x");
    assert_eq!(s.state(), "stopping");
    s.done("b", 1, "");
    s.done("z", 1, "");
    ends(&s, "failed", Some("fail_fast"));
}

#[test]
fn r_17_a_step_with_a_failure_edge_does_not_trip_but_its_fallback_does() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("f").on("a", "failure"), step("z")]).fail_fast());
    s.fail("a", 1, PERMANENT, "x");
    assert_eq!(
        (s.state(), s.step_state("f")),
        ("open".into(), "dispatched".into())
    );
    s.fail("f", 1, PERMANENT, "x");
    assert_eq!(s.state(), "stopping");

    // The fallback of a required step stands in for it, also over two hops.
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").set("required", true),
        step("f").on("a", "failure"),
        step("g").on("f", "failure"),
        step("z"),
    ]));
    s.fail("a", 1, PERMANENT, "x");
    s.fail("f", 1, PERMANENT, "x");
    assert_eq!(s.state(), "open");
    s.fail("g", 1, PERMANENT, "x");
    assert_eq!(s.state(), "stopping");
    assert_eq!(s.cause("step.failed g:1"), "step.dispatched g:1");
}

fn with_cleanup() -> Json {
    plan([
        step("a"),
        step("b"),
        step("sweep").on("a", "always").set("cleanup", true),
        step("late").after("b"),
    ])
}

#[test]
fn r_18_cleanup_still_runs_after_a_cancel() {
    let mut s = Scenario::new();
    s.plan(with_cleanup());
    s.seen();
    s.now_ms = 1_000;
    s.cancel();
    s.expect(&["coordination.cancel_requested", "step.cancelled late:1"]);
    s.expect_out(&["cancel:c:a:1#1 control", "cancel:c:b:1#1 control"]);
    s.advance(16_000);
    s.expect(&[
        "step.cancelled a:1",
        "step.dispatched sweep:1",
        "step.cancelled b:1",
    ]);
    // 60 s from the cancel, in place of its own timeout.
    assert_eq!(s.data("step.dispatched sweep:1")["deadlineMs"], 61_000);
    s.seen();
    assert_eq!(s.done("sweep", 1, ""), "accepted completed");
    s.expect(&["step.completed sweep:1", "coordination.terminal"]);
    ends(&s, "failed", Some("cancelled"));
}

#[test]
fn r_18_cleanup_still_runs_after_fail_fast() {
    let mut s = Scenario::new();
    s.plan(with_cleanup().fail_fast());
    s.now_ms = 1_000;
    s.fail("a", 1, PERMANENT, "x");
    assert_eq!(s.data("step.dispatched sweep:1")["deadlineMs"], 61_000);
    s.done("b", 1, "");
    s.done("sweep", 1, "");
    ends(&s, "failed", Some("fail_fast"));
}

#[test]
fn r_18_cleanup_still_runs_after_the_plan_deadline_and_ends_with_the_cleanup_grace() {
    let mut s = Scenario::new();
    s.plan(
        with_cleanup()
            .set("deadlineMs", 10_000)
            .set("cleanupGraceMs", 20_000),
    );
    s.done("a", 1, "");
    // A deadline of its own that reaches past the plan's gives way to the grace.
    assert_eq!(s.data("step.dispatched sweep:1")["deadlineMs"], 30_000);
    s.seen();
    s.advance(10_000);
    s.expect(&["step.timed_out b:1", "step.skipped late:1"]);
    assert_eq!(s.step_state("sweep"), "dispatched");
    s.ack("sweep", 1);
    s.seen();
    s.advance(29_999);
    s.expect(&[]);
    s.advance(30_000);
    s.expect(&["step.timed_out sweep:1", "coordination.terminal"]);
    let timed_out = json!({"deadlineMs": 30_000, "which": "cleanup", "attempts": 1});
    assert_eq!(s.data("step.timed_out sweep:1"), timed_out);
    ends(&s, "partial", Some("plan_deadline"));
}

#[test]
fn r_18_the_cleanup_grace_counts_from_the_first_stop_and_ends_what_waits() {
    let mut s = Scenario::new();
    s.plan(
        plan([
            step("a"),
            step("sweep").on("a", "always").set("cleanup", true),
            step("then").after("sweep").set("cleanup", true),
        ])
        .set("deadlineMs", 50_000),
    );
    s.now_ms = 5_000;
    s.cancel();
    s.fail("a", 1, RETRYABLE, "x");
    assert_eq!(s.data("step.dispatched sweep:1")["deadlineMs"], 65_000);
    s.ack("sweep", 1);
    s.seen();
    s.advance(50_000);
    s.expect(&[]);
    s.advance(65_000);
    s.expect(&[
        "step.timed_out sweep:1",
        "step.skipped then:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("step.skipped then:1")["reason"], "plan_deadline");
    s.expect_out(&[
        "cancel:c:sweep:1#1 control",
        "report:8#1 data",
        "report:10#1 data",
        "-c:sweep:1",
    ]);
}

#[test]
fn r_18_a_cleanup_step_is_retried_under_a_cancel_and_only_within_its_grace() {
    let mut s = Scenario::new();
    s.plan(
        plan([
            step("a"),
            step("sweep").on("a", "always").set("cleanup", true),
        ])
        .retries(9, &[10_000, 60_000]),
    );
    s.cancel();
    s.fail("a", 1, RETRYABLE, "x");
    s.seen();
    s.fail("sweep", 1, RETRYABLE, "x");
    s.expect(&["step.retry_scheduled sweep:1"]);
    s.advance(10_000);
    s.fail("sweep", 2, RETRYABLE, "x");
    s.expect(&[
        "step.dispatched sweep:2",
        "step.failed sweep:2",
        "coordination.terminal",
    ]);
}

#[test]
fn r_19_an_end_before_the_ack_implies_it() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b"), step("d"), step("e")]).retries(1, &[0]));
    s.seen();
    s.done("a", 1, "");
    s.fail("b", 1, PERMANENT, "x");
    s.fail("d", 1, RETRYABLE, "x");
    s.expect(&[
        "step.completed a:1",
        "step.failed b:1",
        "step.retry_scheduled d:1",
        "step.dispatched d:2",
    ]);
    for label in [
        "step.completed a:1",
        "step.failed b:1",
        "step.retry_scheduled d:1",
    ] {
        assert_eq!(s.data(label)["implicitAck"], true, "{label}");
    }
    s.ack("e", 1);
    s.done("e", 1, "");
    assert!(s.data("step.completed e:1").get("implicitAck").is_none());
}

#[test]
fn r_19_progress_before_the_ack_implies_it_and_no_redelivery_follows() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("ackTimeoutMs", 1_000)]));
    s.seen();
    assert_eq!(s.progress("a", 1, 1), "accepted acknowledged");
    s.expect(&["step.progress a:1"]);
    s.advance(2_000);
    s.expect(&[]);
    assert_eq!(s.cause("step.progress a:1"), "step.dispatched a:1");
    // The ack that comes after all changes nothing.
    assert_eq!(s.ack("a", 1), "replayed acknowledged");
    s.done("a", 1, "");
    s.expect(&["step.completed a:1", "coordination.terminal"]);
    assert!(s.data("step.completed a:1").get("implicitAck").is_none());
    assert_eq!(s.cause("step.completed a:1"), "step.progress a:1");
}
