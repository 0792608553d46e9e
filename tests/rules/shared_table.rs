//! The step table of SPEC section 5 where claims, hooks and people are at work, cell by cell.
//!
//! | state | how the tests get there |
//! |---|---|
//! | claim | waits for `file:x`, which step `0` holds |
//! | hook | hooks are asked whether it may go out |
//! | contest | hooks are asked about its contest with step `0` |
//! | review | a hook said review, and a person is asked |
//! | conflict | a person is asked about its contest with step `0` |
//! | exhausted | its attempt failed, and a person is asked |
//! | question | it runs, and its agent asked a person |
//!
//! The step is `a`; the other cells are in `table.rs`. What each answer of a person does is in `human.rs`.

use crate::support::*;
use qm2_core::envelope::FailureClass;
use qm2_core::message::{HookKind, HookVerdict, HumanVerdict, NoticeKind};
use serde_json::json;

const PERMANENT: FailureClass = FailureClass::Permanent;
const RETRYABLE: FailureClass = FailureClass::Retryable;

/// Before dispatch.
const WAITING: [&str; 5] = ["claim", "hook", "contest", "review", "conflict"];
/// Of those, where a person is asked.
const ASKED: [&str; 2] = ["review", "conflict"];

/// Step `a` in a state, everything so far seen, at time 2 000. A person has 500 000 to answer.
fn at(state: &str) -> Scenario {
    with(state, |plan| plan)
}

fn with(state: &str, change: impl FnOnce(Json) -> Json) -> Scenario {
    make(state, change, |a| a)
}

fn make(
    state: &str,
    change: impl FnOnce(Json) -> Json,
    step_a: impl FnOnce(Json) -> Json,
) -> Scenario {
    let mut s = Scenario::with(|config| {
        config.max_in_flight = 9;
        config.ack_timeout_ms = 800_000;
        config.hook_timeout_ms = 800_000;
        config.hooks = match state {
            "hook" | "review" => vec![HookKind::BeforeDispatch],
            "contest" => vec![HookKind::BeforeArbitrate],
            _ => Vec::new(),
        };
    });
    let held = |resource: &str, lease_ms: u64| json!({"resource": resource, "leaseMs": lease_ms});
    let a = match state {
        "claim" | "contest" | "conflict" => step("a").claims("file:x"),
        _ => step("a").claim(held("file:y", 10_000)),
    };
    let other = step("0")
        .set("timeoutMs", 900_000)
        .claim(held("file:x", 900_000));
    let human = json!({"levels": [{"sessions": ["user:dana"], "timeoutMs": 500_000}]});
    let base = plan([other, step_a(a)]).human(human);
    let base = match state {
        "conflict" => base.strategy("manual_review"),
        _ => base,
    };
    s.plan(change(base));
    if matches!(state, "hook" | "review") {
        let first = s.asks[0].hook_id.clone();
        s.verdict(&first, "gatekeeper", HookVerdict::NoOpinion);
    }
    match state {
        "review" => drop(s.judge(HookVerdict::Review)),
        "exhausted" => drop(s.fail("a", 1, RETRYABLE, "x")),
        "question" => drop(s.ask("a", 1, 1)),
        _ => {}
    }
    s.advance(2_000);
    assert_eq!(s.step_state("a"), shown(state));
    s.seen();
    s
}

fn shown(state: &str) -> &'static str {
    match state {
        "claim" => "waiting_claim",
        "hook" | "contest" => "waiting_hook",
        _ => "waiting_human",
    }
}

/// Records before the end of a step that waits: the question is over, where there is one.
fn voided(state: &str) -> Vec<&'static str> {
    match state {
        "review" | "conflict" | "exhausted" => vec!["human.expired a:1"],
        _ => Vec::new(),
    }
}

#[track_caller]
fn expect(s: &mut Scenario, state: &str, first: &[&'static str], then: &[&'static str]) {
    let labels: Vec<&str> = first
        .iter()
        .copied()
        .chain(voided(state))
        .chain(then.iter().copied())
        .collect();
    s.expect(&labels);
}

// ---- slot free ----

#[test]
fn table_slot_free_in_ready_asks_hooks_takes_claims_or_contests() {
    let ready = |hooks: &[HookKind], steps: Vec<Json>| {
        let mut s = Scenario::with(|config| {
            config.max_in_flight = 1;
            config.hooks = hooks.to_vec();
        });
        let mut all = vec![step("0")];
        all.extend(steps);
        s.plan(plan(all));
        s
    };
    let mut s = ready(&[], vec![step("a").claims("file:x")]);
    assert_eq!(s.step_state("a"), "ready");
    s.seen();
    s.done("0", 1, "");
    s.expect(&[
        "step.completed 0:1",
        "claim.granted a:1",
        "step.dispatched a:1",
    ]);
    let mut s = ready(
        &[HookKind::BeforeDispatch],
        vec![step("a").claims("file:x")],
    );
    s.judge(HookVerdict::NoOpinion);
    s.seen();
    s.done("0", 1, "");
    s.expect(&["step.completed 0:1", "hook.requested a:1"]);
    // Contested: it waits, and holds no slot.
    let mut s = at("claim");
    assert_eq!(s.describe("")["inFlight"], 1);
    s.done("0", 1, "");
    s.expect(&[
        "step.completed 0:1",
        "claim.released 0:1",
        "claim.granted a:1",
        "step.dispatched a:1",
    ]);
    assert_eq!(s.cause("claim.granted a:1"), "conflict.detected a:1");
    assert_eq!(s.cause("step.dispatched a:1"), "coordination.created");
}

#[test]
fn table_slot_free_changes_nothing_for_what_waits_for_hooks_or_people() {
    for state in [
        "hook",
        "contest",
        "review",
        "conflict",
        "exhausted",
        "question",
    ] {
        let mut s = at(state);
        s.done("0", 1, "");
        let released = ["step.completed 0:1", "claim.released 0:1"];
        s.expect(&released);
        assert_eq!(s.step_state("a"), shown(state));
    }
}

#[test]
fn table_a_waiting_step_needs_a_slot_as_well() {
    let mut s = Scenario::with(|config| config.max_in_flight = 2);
    s.plan(plan([
        step("0").claims("file:x"),
        step("1"),
        step("a").claims("file:x"),
    ]));
    assert_eq!(s.step_state("a"), "ready");
    s.done("1", 1, "");
    assert_eq!(s.step_state("a"), "waiting_claim");
    s.plan(plan([step("z"), step("y")]).set("coordinationId", "e"));
    s.seen();
    // The resource is free, and so is one slot; the step that was ready first gets it.
    s.done("0", 1, "");
    s.expect(&[
        "step.completed 0:1",
        "claim.released 0:1",
        "claim.granted a:1",
        "step.dispatched a:1",
    ]);
}

// ---- verdict ----

#[test]
fn table_verdict_after_the_answer_is_a_replay() {
    let run = |then: &dyn Fn(&mut Scenario)| {
        let mut s = at("hook");
        let id = s.asks[1].hook_id.clone();
        s.verdict(&id, "gatekeeper", HookVerdict::NoOpinion);
        then(&mut s);
        s.seen();
        for verdict in [
            HookVerdict::NoOpinion,
            HookVerdict::Deny("x".into()),
            HookVerdict::Review,
        ] {
            assert_eq!(s.verdict(&id, "late", verdict), "replayed answered");
        }
        s.expect(&[]);
        s.step_state("a")
    };
    assert_eq!(run(&|_| {}), "dispatched");
    assert_eq!(run(&|s| drop(s.ack("a", 1))), "acknowledged");
    assert_eq!(run(&|s| drop(s.ask("a", 1, 1))), "waiting_human");
    assert_eq!(run(&|s| drop(s.done("a", 1, ""))), "completed");
    let mut s = at("review");
    let id = s.asks[1].hook_id.clone();
    assert_eq!(
        s.verdict(&id, "late", HookVerdict::NoOpinion),
        "replayed answered"
    );
    s.expect(&[]);
}

// ---- ack and reports ----

#[test]
fn table_ack_and_reports_before_dispatch_are_not_dispatched() {
    let refused = "not-dispatched attempt stop";
    for state in WAITING {
        let mut s = at(state);
        assert_eq!(s.ack("a", 1), refused, "{state}");
        assert_eq!(s.progress("a", 1, 1), refused, "{state}");
        assert_eq!(s.done("a", 1, ""), refused, "{state}");
        assert_eq!(s.fail("a", 1, PERMANENT, "x"), refused, "{state}");
        s.expect(&["input.rejected a:1"; 4]);
        assert_eq!(s.step_state("a"), shown(state));
        s.expect_out(&[]);
    }
}

#[test]
fn table_ack_and_progress_while_an_agents_question_is_open() {
    let mut s = at("question");
    assert_eq!(s.ack("a", 1), "replayed waiting_human");
    s.expect(&[]);
    // Leases rest, so there is nothing to renew.
    assert_eq!(s.progress("a", 1, 1), "accepted waiting_human");
    s.expect(&["step.progress a:1"]);
    assert_eq!(s.progress("a", 1, 1), "replayed waiting_human");
    s.expect(&[]);
}

#[test]
fn table_progress_in_dispatched_and_acknowledged_renews() {
    for acked in [false, true] {
        let mut s = Scenario::new();
        s.plan(plan([step("a").claims("file:x")]));
        if acked {
            s.ack("a", 1);
        }
        s.seen();
        s.now_ms = 10;
        assert_eq!(s.progress("a", 1, 1), "accepted acknowledged");
        s.expect(&["step.progress a:1", "claim.renewed a:1"]);
        let token = s.token("a", 1);
        assert_eq!(
            s.data("claim.renewed a:1"),
            json!({"tokens": [token], "expiresMs": 60_010})
        );
    }
}

#[test]
fn table_completed_while_a_question_is_open_voids_it() {
    let mut s = at("question");
    let (id, _) = s.question("a");
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.expect(&[
        "human.expired a:1",
        "step.completed a:1",
        "claim.released a:1",
    ]);
    assert_eq!(
        s.data("human.expired a:1"),
        json!({"escalationId": id, "level": 1, "reason": "voided"})
    );
    s.expect_out(&[&format!("-escalation:{id}:1:1"), "-c:a:1"]);
    assert_eq!(s.approve("a"), "late completed");
    s.expect(&["input.late a:1"]);
}

#[test]
fn table_failed_while_a_question_is_open_voids_it_and_ends_the_attempt() {
    let mut s = at("question");
    assert_eq!(s.fail("a", 1, PERMANENT, "x"), "accepted failed");
    s.expect(&["human.expired a:1", "step.failed a:1", "claim.released a:1"]);
    let mut s = with("question", |plan| plan.retries(1, &[0]));
    s.fail("a", 1, RETRYABLE, "x");
    s.expect(&[
        "human.expired a:1",
        "step.retry_scheduled a:1",
        "claim.released a:1",
        "claim.granted a:2",
        "step.dispatched a:2",
    ]);
    // Exhausted, which is another question under another id.
    let mut s = at("question");
    let (first, _) = s.question("a");
    s.fail("a", 1, RETRYABLE, "x");
    s.expect(&[
        "human.expired a:1",
        "coordination.escalated a:1",
        "claim.released a:1",
        "human.requested a:1",
    ]);
    let (second, _) = s.question("a");
    assert_ne!(first, second);
    assert_eq!(second, format!("e{}", s.seq("coordination.escalated a:1")));
    assert_eq!(s.data("coordination.escalated a:1")["kind"], "exhausted");
    assert_eq!(s.deny("a"), "accepted failed");
}

#[test]
fn table_inputs_for_an_attempt_that_ended_in_a_question_about_it_are_late() {
    let mut s = at("exhausted");
    assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "replayed waiting_human");
    s.expect(&[]);
    assert_eq!(s.done("a", 1, ""), "content-mismatch - fix");
    s.expect(&["input.rejected a:1"]);
    assert_eq!(s.ack("a", 1), "late waiting_human");
    assert_eq!(s.progress("a", 1, 3), "late waiting_human");
    assert_eq!(s.ask("a", 1, 3), "late waiting_human");
    s.expect(&["input.late a:1"; 3]);
}

// ---- notices ----

#[test]
fn table_host_lost_ends_a_running_attempt_whose_question_is_open_and_nothing_else() {
    let mut s = at("question");
    assert_eq!(
        s.notice("a", 1, NoticeKind::HostLost),
        "accepted retry_wait"
    );
    s.expect(&[
        "human.expired a:1",
        "step.retry_scheduled a:1",
        "claim.released a:1",
        "claim.granted a:2",
        "step.dispatched a:2",
    ]);
    assert_eq!(s.data("human.expired a:1")["reason"], "voided");
    for state in WAITING.into_iter().chain(["exhausted"]) {
        for kind in [
            NoticeKind::HostLost,
            NoticeKind::UnknownTarget,
            NoticeKind::Dropped,
            NoticeKind::Taken,
        ] {
            let mut s = at(state);
            assert_eq!(s.notice("a", 1, kind), format!("replayed {}", shown(state)));
            s.expect(&[]);
        }
    }
    for kind in [
        NoticeKind::UnknownTarget,
        NoticeKind::Dropped,
        NoticeKind::Taken,
    ] {
        let mut s = at("question");
        assert_eq!(s.notice("a", 1, kind), "replayed waiting_human");
        s.expect(&[]);
    }
}

// ---- deadlines of the attempt, leases ----

#[test]
fn table_attempt_deadline_and_lease_expiry_are_suspended_while_a_person_is_asked() {
    for state in WAITING.into_iter().chain(["exhausted", "question"]) {
        let mut s = at(state);
        s.advance(400_000);
        s.expect(&[]);
        assert_eq!(s.step_state("a"), shown(state));
    }
}

#[test]
fn table_attempt_deadline_ends_an_attempt_and_its_leases() {
    for acked in [false, true] {
        let mut s = Scenario::with(|config| config.ack_timeout_ms = 800_000);
        s.plan(plan([
            step("a").claims("file:x").set("timeoutMs", 5_000),
            step("b"),
        ]));
        if acked {
            s.ack("a", 1);
        }
        s.seen();
        s.advance(5_000);
        s.expect(&["step.timed_out a:1", "claim.released a:1"]);
        assert_eq!(s.cause("claim.released a:1"), "step.timed_out a:1");
    }
}

#[test]
fn table_lease_expiry_ends_what_is_out() {
    for acked in [false, true] {
        let mut s = Scenario::with(|config| config.ack_timeout_ms = 800_000);
        let claim = json!({"resource": "file:x", "leaseMs": 5_000});
        s.plan(plan([step("a").claim(claim)]).hitl());
        if acked {
            s.ack("a", 1);
        }
        s.seen();
        s.advance(5_000);
        // END(retryable), which under hitl asks.
        s.expect(&[
            "claim.expired a:1",
            "coordination.escalated a:1",
            "human.requested a:1",
        ]);
        let asked = s.data("coordination.escalated a:1");
        assert_eq!(
            (&asked["kind"], &asked["code"]),
            (&json!("exhausted"), &json!("lease_lost"))
        );
        assert_eq!(
            asked["escalationId"],
            format!("e{}", s.seq("coordination.escalated a:1"))
        );
    }
}

// ---- escalate ----

#[test]
fn table_escalate_runs_only_from_dispatched_and_acknowledged() {
    for state in WAITING.into_iter().chain(["question"]) {
        let mut s = at(state);
        assert_eq!(s.ask("a", 1, 9), "not-running stepId stop", "{state}");
        s.expect(&["input.rejected a:1"]);
        assert_eq!(s.data("input.rejected a:1")["part"], "escalate:9");
    }
    for acked in [false, true] {
        let mut s = Scenario::new();
        s.plan(plan([step("a"), step("b").after("a")]).hitl());
        if acked {
            s.ack("a", 1);
        }
        s.seen();
        assert_eq!(s.ask("b", 1, 1), "not-running stepId stop");
        s.expect(&["input.rejected b:1"]);
        assert_eq!(s.ask("a", 1, 1), "accepted waiting_human");
        s.expect(&["coordination.escalated a:1", "human.requested a:1"]);
        let began = if acked {
            "step.acknowledged a:1"
        } else {
            "step.dispatched a:1"
        };
        assert_eq!(s.cause("coordination.escalated a:1"), began);
        // It implies the ack.
        s.approve("a");
        assert_eq!(s.step_state("a"), "acknowledged");
    }
    // Ready, waiting for its retry, and final.
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    s.plan(plan([step("a"), step("b")]).hitl().retries(1, &[60_000]));
    assert_eq!(s.ask("b", 1, 1), "not-running stepId stop");
    s.fail("a", 1, RETRYABLE, "x");
    assert_eq!(s.ask("a", 2, 1), "not-running stepId stop");
    s.done("b", 1, "");
    s.seen();
    assert_eq!(s.ask("b", 1, 2), "late completed");
    s.expect(&["input.late b:1"]);
}

// ---- answers where nothing is asked ----

#[test]
fn table_answers_after_the_end_are_late() {
    for state in ["review", "conflict", "exhausted", "question"] {
        let mut s = at(state);
        s.deny("a");
        s.seen();
        let eve = caller_as("user:eve", qm2_core::message::Role::Admin);
        assert_eq!(
            s.say(eve, "a", HumanVerdict::Approve, None),
            "late failed",
            "{state}"
        );
        s.expect(&["input.late a:1"]);
        // The deadline of the question does nothing any more.
        s.advance(502_000);
        assert!(!s.labels().contains(&"human.expired a:1".to_owned()));
    }
}

// ---- cancel and fail_fast ----

#[test]
fn table_cancel_ends_what_waits_and_voids_its_question() {
    for state in WAITING.into_iter().chain(["exhausted"]) {
        let mut s = at(state);
        s.cancel();
        expect(
            &mut s,
            state,
            &["coordination.cancel_requested"],
            &["step.cancelled a:1"],
        );
        assert_eq!(s.data("step.cancelled a:1")["graceUsed"], false);
        assert_eq!(
            s.cause("step.cancelled a:1"),
            "coordination.cancel_requested"
        );
        if !voided(state).is_empty() {
            assert_eq!(s.data("human.expired a:1")["reason"], "voided");
        }
        // Of this one step.
        let mut s = at(state);
        assert_eq!(s.cancel_step("a"), "accepted cancelled", "{state}");
        expect(
            &mut s,
            state,
            &["coordination.cancel_requested a:1"],
            &["step.cancelled a:1"],
        );
    }
}

#[test]
fn table_cancel_voids_a_running_attempts_question_and_gives_it_the_grace() {
    for whole in [true, false] {
        let mut s = at("question");
        let (id, _) = s.question("a");
        if whole {
            s.cancel();
            s.expect(&["coordination.cancel_requested", "human.expired a:1"]);
        } else {
            s.cancel_step("a");
            s.expect(&["coordination.cancel_requested a:1", "human.expired a:1"]);
        }
        assert_eq!(s.data("human.expired a:1")["reason"], "voided");
        assert_eq!(s.step_state("a"), "acknowledged");
        assert_eq!(s.message("cancel:c:a:1").envelope.attempt, Some(1));
        // Nothing is asked any more.
        s.seen();
        assert_eq!(s.ask("a", 1, 2), "coordination-stopping - stop");
        assert_eq!(s.approve("a"), "late acknowledged");
        s.expect(&["input.late a:1"]);
        assert!(!id.is_empty());
        s.advance(16_999);
        // Its lease, of which 8 000 were left, ran out before the grace did: the step is cancelled with it.
        let labels = s.labels();
        assert!(
            labels.contains(&"step.cancelled a:1".to_owned()),
            "{labels:?}"
        );
    }
}

#[test]
fn table_cancel_grace_over_ends_an_attempt_whose_question_was_void() {
    let mut s = make("question", |plan| plan, |a| a.set("claims", json!([])));
    s.cancel_step("a");
    s.seen();
    s.advance(16_999);
    s.expect(&[]);
    s.advance(17_000);
    s.expect(&["step.cancelled a:1"]);
    assert_eq!(
        s.data("step.cancelled a:1"),
        json!({"by": "cancel", "graceUsed": true})
    );
}

#[test]
fn table_fail_fast_skips_what_waits_and_voids_its_question() {
    for state in WAITING.into_iter().chain(["exhausted"]) {
        let mut s = with(state, Json::fail_fast);
        s.fail("0", 1, PERMANENT, "x");
        let then = ["step.skipped a:1", "coordination.terminal"];
        expect(
            &mut s,
            state,
            &["step.failed 0:1", "claim.released 0:1"],
            &then,
        );
        assert_eq!(s.data("step.skipped a:1")["reason"], "fail_fast");
    }
    let mut s = with("question", Json::fail_fast);
    s.fail("0", 1, PERMANENT, "x");
    s.expect(&["step.failed 0:1", "claim.released 0:1", "human.expired a:1"]);
    s.done("a", 1, "");
    s.expect(&[
        "step.completed a:1",
        "claim.released a:1",
        "coordination.terminal",
    ]);
}

#[test]
fn table_cleanup_that_waits_stays_under_cancel_and_fail_fast() {
    for state in WAITING.into_iter().chain(["exhausted", "question"]) {
        let cleanup = |a: Json| a.set("cleanup", true);
        let mut s = make(state, |plan| plan, cleanup);
        s.cancel();
        s.expect(&["coordination.cancel_requested"]);
        assert_eq!(s.step_state("a"), shown(state), "{state}");
        let mut s = make(state, Json::fail_fast, cleanup);
        s.fail("0", 1, PERMANENT, "x");
        let labels = s.labels();
        let mine = [
            "step.skipped a:1",
            "step.cancelled a:1",
            "human.expired a:1",
        ];
        assert!(
            !labels.iter().any(|label| mine.contains(&label.as_str())),
            "{state}: {labels:?}"
        );
    }
}

// ---- plan deadline, cleanup grace ----

#[test]
fn table_plan_deadline_times_out_what_waits_and_leaves_questions_unanswered() {
    for state in WAITING.into_iter().chain(["exhausted", "question"]) {
        let mut s = with(state, |plan| plan.set("deadlineMs", 100_000));
        s.advance(99_999);
        s.expect(&[]);
        s.advance(100_000);
        let asks = ASKED.contains(&state) || matches!(state, "exhausted" | "question");
        let mut labels = vec!["step.timed_out 0:1", "claim.released 0:1"];
        if asks {
            labels.push("human.expired a:1");
        }
        labels.push("step.timed_out a:1");
        if state == "question" {
            labels.push("claim.released a:1");
        }
        labels.push("coordination.terminal");
        s.expect(&labels);
        let end = s.data("coordination.terminal");
        if asks {
            assert_eq!(
                s.data("human.expired a:1")["reason"],
                "unanswered",
                "{state}"
            );
            assert_eq!(
                (&end["terminal"], &end["reason"]),
                (&json!("escalated"), &json!("unanswered"))
            );
        } else {
            assert_eq!(end["reason"], "plan_deadline");
        }
        let timed_out = s.data("step.timed_out a:1");
        assert_eq!(timed_out["which"], "plan");
        let out = u64::from(matches!(state, "exhausted" | "question"));
        assert_eq!(timed_out["attempts"], out, "{state}");
        // Whoever may still work on it is told.
        if state == "question" {
            assert_eq!(s.message("cancel:c:a:1").envelope.attempt, Some(1));
        }
    }
}

#[test]
fn table_cleanup_grace_over_times_out_cleanup_that_waits_and_voids_its_question() {
    for state in WAITING.into_iter().chain(["exhausted", "question"]) {
        let mut s = make(
            state,
            |plan| plan.set("cleanupGraceMs", 20_000),
            |a| a.set("cleanup", true),
        );
        s.cancel();
        s.done("0", 1, "");
        s.seen();
        let waits = s.step_state("a") == shown(state);
        if !waits {
            // What it waited for came free.
            assert_eq!(state, "claim");
            continue;
        }
        s.advance(21_999);
        s.expect(&[]);
        s.advance(22_000);
        let mut labels = voided(state);
        if state == "question" {
            labels.push("human.expired a:1");
        }
        labels.push("step.timed_out a:1");
        if state == "question" {
            labels.push("claim.released a:1");
        }
        labels.push("coordination.terminal");
        s.expect(&labels);
        assert_eq!(s.data("step.timed_out a:1")["which"], "cleanup", "{state}");
        if labels[0] == "human.expired a:1" {
            assert_eq!(s.data("human.expired a:1")["reason"], "voided", "{state}");
        }
    }
}

#[test]
fn table_cleanup_grace_over_ends_cleanup_that_waits_for_a_claim() {
    let mut s = Scenario::with(|config| config.ack_timeout_ms = 800_000);
    let long = json!({"resource": "file:x", "leaseMs": 900_000});
    let holder = step("z").set("timeoutMs", 900_000).claim(long);
    s.plan(plan([holder]).set("coordinationId", "e"));
    s.plan(plan([
        step("0"),
        step("a").claims("file:x").set("cleanup", true),
    ]));
    assert_eq!(s.step_state("a"), "waiting_claim");
    s.cancel();
    s.done("0", 1, "");
    s.seen();
    s.advance(60_000);
    s.expect(&["step.timed_out a:1", "coordination.terminal"]);
}

// ---- slots of what waits ----

#[test]
fn r_63_what_waits_for_claims_or_people_holds_no_slot_and_a_running_question_its_sessions_only() {
    for (state, in_flight) in [
        ("claim", 1),
        ("hook", 2),
        ("contest", 2),
        ("review", 1),
        ("conflict", 1),
        ("exhausted", 1),
        ("question", 1),
    ] {
        let mut s = at(state);
        assert_eq!(s.describe("")["inFlight"], in_flight, "{state}");
        // The session of a question that is open takes nothing else meanwhile.
        s.plan(plan([step("z").set("targetSession", "agent:a")]).set("coordinationId", "e"));
        if state == "hook" || state == "review" {
            continue;
        }
        let busy = matches!(state, "question" | "contest");
        let view = s.describe("e");
        let shown = if busy { "ready" } else { "dispatched" };
        assert_eq!(view["steps"][0]["state"], shown, "{state}");
    }
}

#[test]
fn r_63_an_answered_question_may_exceed_the_width_on_its_return() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    s.plan(plan([step("a"), step("b")]).hitl());
    s.seen();
    s.ask("a", 1, 1);
    s.expect(&[
        "coordination.escalated a:1",
        "human.requested a:1",
        "step.dispatched b:1",
    ]);
    s.approve("a");
    assert_eq!(s.describe("")["inFlight"], 2);
}

// ---- R-38 ----

#[test]
fn r_38_with_a_cancel_at_work_nothing_is_escalated_not_even_of_cleanup() {
    let cleanup = |a: Json| a.set("cleanup", true);
    // An attempt of a cleanup step that is exhausted, or whose agent asks.
    let mut s = Scenario::new();
    s.plan(plan([step("0"), cleanup(step("a"))]).hitl());
    s.cancel();
    s.seen();
    assert_eq!(s.ask("a", 1, 1), "coordination-stopping - stop");
    assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "accepted failed");
    s.expect(&["step.failed a:1"]);
    // A hook that says review, and a contest that nobody decides.
    let mut s = make("hook", |plan| plan, cleanup);
    s.cancel();
    s.seen();
    assert_eq!(s.judge(HookVerdict::Review), "accepted failed");
    s.expect(&["hook.verdict a:1", "step.failed a:1"]);
    assert_eq!(s.data("step.failed a:1")["code"], "denied");
    let mut s = make("contest", |plan| plan, cleanup);
    s.cancel();
    s.seen();
    s.judge(HookVerdict::Review);
    s.expect(&[
        "hook.verdict a:1",
        "conflict.resolved a:1",
        "step.failed a:1",
    ]);
    assert_eq!(
        s.data("conflict.resolved a:1")["outcomes"][0]["outcome"],
        "refused"
    );
    // What was asked before is still open, and an answer counts.
    let mut s = make("exhausted", |plan| plan, cleanup);
    s.cancel();
    s.seen();
    assert_eq!(s.approve("a"), "accepted ready");
    s.expect(&[
        "human.decided a:1",
        "claim.granted a:2",
        "step.dispatched a:2",
    ]);
}

#[test]
fn under_none_the_people_that_a_plan_names_are_not_asked() {
    let mut s = Scenario::new();
    let plan = plan([step("a")]).hitl();
    let mut plan = plan;
    plan.0["failurePolicy"]["escalationPolicy"] = "none".into();
    s.plan(plan);
    assert_eq!(s.ask("a", 1, 1), "no-human - stop");
    assert_eq!(s.fail("a", 1, RETRYABLE, "x"), "accepted failed");
}

#[test]
fn r_50_an_approved_attempt_keeps_the_claim_number_of_the_first() {
    let mut s = at("exhausted");
    let number = s.data("claim.granted a:1")["claimNumber"].clone();
    s.approve("a");
    assert_eq!(s.data("claim.granted a:2")["claimNumber"], number);
    assert!(s.token("a", 2) > s.token("a", 1));
}

// ---- snapshots ----

#[test]
fn r_61_every_waiting_state_goes_on_after_replay_and_after_a_snapshot() {
    for state in WAITING.into_iter().chain(["exhausted", "question"]) {
        for restored in [true, false] {
            let mut s = at(state);
            if restored {
                s.shadow_restored();
            } else {
                s.shadow_replayed();
            }
            s.reconcile();
            s.done("0", 1, "");
            match state {
                "claim" => {}
                "hook" | "contest" => drop(s.judge(HookVerdict::NoOpinion)),
                _ => drop(s.approve("a")),
            }
            let attempt = if state == "exhausted" { 2 } else { 1 };
            s.progress("a", attempt, 1);
            assert_eq!(s.step_state("a"), "acknowledged", "{state}");
            s.advance(20_000);
            s.advance(900_000);
        }
    }
}
