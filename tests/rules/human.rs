//! Human review: R-53 to R-56, and what each answer does to each kind of question.
//!
//! Waiting, crashes and the plan's end are in `human_wait.rs`, cells of the step table in `shared_table.rs`.

use crate::support::*;
use qm2_core::digest::sha256_hex;
use qm2_core::envelope::FailureClass;
use qm2_core::message::{HookKind, HookVerdict, HumanVerdict, NoticeKind, Role};
use serde_json::{Value, json};

const RETRYABLE: FailureClass = FailureClass::Retryable;
const UNKNOWN: FailureClass = FailureClass::Unknown;
const APPROVE: HumanVerdict = HumanVerdict::Approve;
const DENY: HumanVerdict = HumanVerdict::Deny;
const COMPLETED: HumanVerdict = HumanVerdict::Completed;

pub(super) const KINDS: [&str; 5] = [
    "review",
    "conflict",
    "exhausted",
    "unknown_effect",
    "question",
];

/// A question of a kind about step `a` is open since 1 000; everything so far is seen. Step `0` has what `a` contests.
pub(super) fn asked(kind: &str) -> Scenario {
    asked_with(kind, |plan| plan)
}

pub(super) fn asked_with(kind: &str, change: impl FnOnce(Json) -> Json) -> Scenario {
    let mut s = Scenario::with(|config| {
        config.ack_timeout_ms = 600_000;
        if kind == "review" {
            config.hooks = vec![HookKind::BeforeDispatch];
        }
    });
    let a = match kind {
        "conflict" => step("a").claims("file:x").after("1"),
        "unknown_effect" => step("a").set("idempotent", false),
        _ => step("a"),
    };
    let long = |step: Json| step.set("timeoutMs", 900_000);
    let mut steps = vec![long(a.set("risk", "low"))];
    if kind == "conflict" {
        let held = json!({"resource": "file:x", "leaseMs": 900_000});
        steps.extend([long(step("0").claim(held)), long(step("1"))]);
    }
    let plan = change(plan(steps).hitl().strategy("manual_review"));
    s.plan(plan);
    s.now_ms = 1_000;
    match kind {
        "review" => drop(s.judge(HookVerdict::Review)),
        "conflict" => drop(s.done("1", 1, "")),
        "exhausted" => drop(s.fail("a", 1, RETRYABLE, "x")),
        "unknown_effect" => drop(s.fail("a", 1, UNKNOWN, "x")),
        _ => drop(s.ask("a", 1, 7)),
    }
    assert_eq!(s.step_state("a"), "waiting_human");
    assert_eq!(s.data("coordination.escalated a:1")["kind"], kind);
    s.seen();
    s
}

/// What a denial leads to, by kind, without the coordination's end.
fn denied(kind: &str) -> (&'static str, &'static str, &'static str) {
    match kind {
        "review" => ("step.failed a:1", "permanent", "denied"),
        "conflict" => ("step.failed a:1", "permanent", "conflict_unresolved"),
        "exhausted" => ("step.failed a:1", "retryable", "x"),
        "unknown_effect" => ("step.failed a:1", "unknown", "unknown_effect"),
        _ => ("step.failed a:1", "permanent", "denied"),
    }
}

/// The records since the last look are these, and perhaps the end of the coordination.
#[track_caller]
fn expect_end(s: &mut Scenario, kind: &str, labels: &[&str]) {
    let mut labels = labels.to_vec();
    if kind != "conflict" {
        labels.push("coordination.terminal");
    }
    s.expect(&labels);
}

#[track_caller]
fn assert_failed(s: &Scenario, kind: &str, cause: &str) {
    let (label, class, code) = denied(kind);
    let data = s.data(label);
    assert_eq!(
        (&data["class"], &data["code"]),
        (&json!(class), &json!(code)),
        "{kind}"
    );
    let attempts = u32::from(!matches!(kind, "review" | "conflict"));
    assert_eq!(data["attempts"], attempts, "{kind}");
    assert_eq!(s.cause(label), cause, "{kind}");
}

// ---- the table of answers ----

#[test]
fn answers_approve_does_what_the_kind_says() {
    for kind in KINDS {
        let mut s = asked(kind);
        s.now_ms = 5_000;
        let (said, records): (&str, &[&str]) = match kind {
            "review" => ("ready", &["human.decided a:1", "step.dispatched a:1"]),
            "conflict" => (
                "waiting_claim",
                &["human.decided a:1", "conflict.resolved a:1"],
            ),
            "exhausted" | "unknown_effect" => {
                ("ready", &["human.decided a:1", "step.dispatched a:2"])
            }
            _ => ("acknowledged", &["human.decided a:1"]),
        };
        assert_eq!(s.approve("a"), format!("accepted {said}"), "{kind}");
        s.expect(records);
        let (id, _) = s.question("a");
        assert_eq!(
            s.data("human.decided a:1"),
            json!({"escalationId": id, "actor": "user:dana", "role": "operator", "verdict": "approve",
                "final": true})
        );
        assert_eq!(s.cause("human.decided a:1"), "human.requested a:1");
    }
}

#[test]
fn answers_deny_does_what_the_kind_says() {
    for kind in KINDS {
        let mut s = asked(kind);
        assert_eq!(s.deny("a"), "accepted failed", "{kind}");
        expect_end(&mut s, kind, &["human.decided a:1", "step.failed a:1"]);
        let cause = if kind == "question" {
            // END of the attempt that asked.
            s.cause("step.failed a:1")
        } else {
            "human.decided a:1".to_owned()
        };
        assert_failed(&s, kind, &cause);
    }
}

#[test]
fn answers_timeout_with_fallback_deny_is_as_a_denial_exactly_at_the_time() {
    for kind in KINDS {
        let mut s = asked(kind);
        s.advance(10_999);
        s.expect(&[]);
        s.advance(11_000);
        expect_end(&mut s, kind, &["human.expired a:1", "step.failed a:1"]);
        let (id, _) = s.question("a");
        assert_eq!(
            s.data("human.expired a:1"),
            json!({"escalationId": id, "level": 1, "fallback": "deny", "reason": "timeout"})
        );
        assert_eq!(s.cause("human.expired a:1"), "human.requested a:1");
        let cause = s.cause("step.failed a:1");
        assert_failed(&s, kind, &cause);
    }
}

#[test]
fn r_56_block_stays_open_until_the_plan_deadline_and_ends_escalated() {
    for kind in KINDS {
        let block = |plan: Json| {
            plan.human_set("fallback", "block")
                .set("deadlineMs", 100_000)
        };
        let mut s = asked_with(kind, block);
        s.advance(11_000);
        s.expect(&["human.expired a:1"]);
        assert_eq!(s.data("human.expired a:1")["fallback"], "block");
        assert_eq!(s.state(), "open");
        // Still open, so still answered: here it is not.
        s.advance(99_999);
        s.expect(&[]);
        s.advance(100_000);
        let ends = s.labels();
        let at = |label: &str| ends.iter().rposition(|found| found == label);
        assert!(
            at("human.expired a:1") < at("step.timed_out a:1"),
            "{kind}: {ends:?}"
        );
        let expired = s.data("human.expired a:1");
        assert_eq!(expired["reason"], "unanswered", "{kind}");
        assert!(expired.get("fallback").is_none());
        let end = s.data("coordination.terminal");
        assert_eq!(
            (&end["terminal"], &end["reason"]),
            (&json!("escalated"), &json!("unanswered")),
            "{kind}"
        );
        s.seen();
    }
}

#[test]
fn r_56_a_blocked_question_can_still_be_answered() {
    for kind in KINDS {
        let block = |plan: Json| {
            plan.human_set("fallback", "block")
                .set("deadlineMs", 100_000)
        };
        let mut s = asked_with(kind, block);
        s.advance(50_000);
        s.seen();
        assert!(s.approve("a").starts_with("accepted"), "{kind}");
        assert_ne!(s.step_state("a"), "waiting_human");
    }
}

#[test]
fn r_56_allow_counts_only_for_exhausted_and_question() {
    for kind in KINDS {
        let mut s = asked_with(kind, |plan| plan.human_set("fallback", "allow"));
        s.advance(11_000);
        match kind {
            "exhausted" => s.expect(&["human.expired a:1", "step.dispatched a:2"]),
            "question" => s.expect(&["human.expired a:1"]),
            _ => expect_end(&mut s, kind, &["human.expired a:1", "step.failed a:1"]),
        }
        let allowed = matches!(kind, "exhausted" | "question");
        let fallback = if allowed { "allow" } else { "deny" };
        assert_eq!(s.data("human.expired a:1")["fallback"], fallback, "{kind}");
        if kind == "question" {
            assert_eq!(s.step_state("a"), "acknowledged");
            assert_eq!(s.message("answer:e4").envelope.payload.as_deref(), Some(""));
        }
    }
}

#[test]
fn r_56_allow_needs_a_low_risk_step_without_high_risk_resources() {
    let run = |risk: &str, claim: Option<&str>, plan_risk: &[&str], domain_risk: &[&str]| {
        let mut s = Scenario::with(|config| {
            config.high_risk = domain_risk.iter().map(|name| (*name).to_owned()).collect();
        });
        let a = step("a").set("risk", risk);
        let a = match claim {
            Some(resource) => a.claims(resource),
            None => a,
        };
        let policy = json!({"highRisk": plan_risk});
        s.plan(
            plan([a])
                .hitl()
                .human_set("fallback", "allow")
                .set("conflictPolicy", policy),
        );
        s.fail("a", 1, RETRYABLE, "x");
        s.advance(10_000);
        s.data("human.expired a:1")["fallback"].clone()
    };
    assert_eq!(run("low", None, &[], &[]), "allow");
    assert_eq!(
        run("low", Some("file:x"), &["file:y"], &["queue:**"]),
        "allow"
    );
    assert_eq!(run("high", None, &[], &[]), "deny");
    assert_eq!(run("low", Some("file:x"), &["file:*"], &[]), "deny");
    assert_eq!(run("low", Some("file:x"), &[], &["file:x"]), "deny");
}

#[test]
fn answers_completed_goes_with_unknown_effect_only() {
    for kind in KINDS {
        let mut s = asked(kind);
        let said = s.say(dana(), "a", COMPLETED, Some("it is there"));
        if kind != "unknown_effect" {
            assert_eq!(said, "invalid-field verdict fix", "{kind}");
            s.expect(&[]);
            continue;
        }
        assert_eq!(said, "accepted completed");
        s.expect(&[
            "human.decided a:1",
            "step.completed a:1",
            "coordination.terminal",
        ]);
        let completed = s.data("step.completed a:1");
        assert_eq!(
            (&completed["payload"], &completed["by"]),
            (&json!("it is there"), &json!("answer"))
        );
        assert!(completed.get("implicitAck").is_none());
        assert_eq!(s.cause("step.completed a:1"), "human.decided a:1");
        assert_eq!(s.data("coordination.terminal")["terminal"], "success");
    }
}

#[test]
fn answers_an_approved_attempt_is_outside_the_budget() {
    let mut s = asked_with("exhausted", |plan| plan);
    s.approve("a");
    assert_eq!(s.describe("c")["retriesUsed"], 0);
    assert_eq!(s.message("c:a:2").delivery, 1);
    // Exhausted again: asked again.
    s.seen();
    s.fail("a", 2, RETRYABLE, "y");
    s.expect(&["coordination.escalated a:2", "human.requested a:2"]);
    s.deny("a");
    assert_eq!(s.data("step.failed a:2")["code"], "y");
    assert_eq!(s.data("step.failed a:2")["attempts"], 2);
}

#[test]
fn answers_a_denial_says_who_denied_and_why() {
    for (text, says) in [
        (Some("no money"), "user:dana denied it: no money"),
        (Some(""), "user:dana denied it"),
        (None, "user:dana denied it"),
    ] {
        let mut s = asked("question");
        s.say(dana(), "a", DENY, text);
        assert_eq!(s.data("step.failed a:1")["message"], says);
    }
}

/// R-56: what a high risk is may be said by the plan or by the domain.
#[test]
fn answers_silence_is_no_approval_of_what_either_calls_a_high_risk() {
    for (plan_says, domain_says) in [("file:*", "queue:**"), ("queue:**", "file:x")] {
        let mut s = Scenario::with(|config| config.high_risk = vec![domain_says.into()]);
        let a = step("a").set("risk", "low").claims("file:x");
        let plan = plan([a]).hitl().human_set("fallback", "allow");
        s.plan(plan.set("conflictPolicy", json!({"highRisk": [plan_says]})));
        s.fail("a", 1, RETRYABLE, "x");
        s.advance(10_000);
        assert_eq!(s.data("human.expired a:1")["fallback"], "deny");
    }
}

/// R-56: attempts that the plan has itself do not count.
#[test]
fn answers_silence_gives_three_attempts_beside_those_of_the_plan() {
    let mut s = Scenario::new();
    let plan = plan([step("a").set("risk", "low")]).retries(2, &[0]);
    s.plan(plan.hitl().human_set("fallback", "allow"));
    s.notice("a", 1, NoticeKind::HostLost);
    for attempt in 2..=3 {
        s.fail("a", attempt, RETRYABLE, "x");
    }
    for attempt in 4..=7 {
        s.fail("a", attempt, RETRYABLE, "x");
        s.seen();
        s.advance(s.now_ms + 10_000);
        let wanted = if attempt < 7 { "allow" } else { "deny" };
        let expired = s.data(&format!("human.expired a:{attempt}"));
        assert_eq!(expired["fallback"], wanted, "{attempt}");
    }
    assert_eq!(s.state(), "final");
}

#[test]
fn answers_a_denied_timeout_is_a_timeout() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000)]).hitl());
    s.advance(1_000);
    s.expect(&[
        "coordination.created",
        "step.dispatched a:1",
        "coordination.escalated a:1",
        "human.requested a:1",
    ]);
    s.expect_out(&[
        "c:a:1#1 control",
        "cancel:c:a:1#1 control",
        "escalation:e4:1:1#1 escalation",
        "-c:a:1",
    ]);
    let asked = s.data("coordination.escalated a:1");
    assert_eq!(
        (&asked["kind"], &asked["class"], &asked["code"]),
        (&json!("exhausted"), &json!("timeout"), &json!("timeout"))
    );
    s.deny("a");
    s.expect(&[
        "human.decided a:1",
        "step.timed_out a:1",
        "coordination.terminal",
    ]);
    assert_eq!(
        s.data("step.timed_out a:1"),
        json!({"deadlineMs": 1_000, "which": "attempt", "attempts": 1})
    );
}

#[test]
fn r_34_unknown_is_retried_if_idempotent_else_a_person_is_asked_or_it_fails() {
    let run = |idempotent: bool, hitl: bool| {
        let mut s = Scenario::new();
        let plan = plan([step("a").set("idempotent", idempotent)]).retries(1, &[0]);
        s.plan(if hitl { plan.hitl() } else { plan });
        s.seen();
        s.fail("a", 1, UNKNOWN, "x");
        s
    };
    let mut s = run(true, true);
    s.expect(&["step.retry_scheduled a:1", "step.dispatched a:2"]);
    let mut s = run(false, true);
    s.expect(&["coordination.escalated a:1", "human.requested a:1"]);
    let asked = s.data("coordination.escalated a:1");
    assert_eq!(asked["kind"], "unknown_effect");
    assert_eq!(
        (&asked["class"], &asked["code"], &asked["message"]),
        (&json!("unknown"), &json!("x"), &json!("x happened"))
    );
    let mut s = run(false, false);
    s.expect(&["step.failed a:1", "coordination.terminal"]);
    assert_eq!(s.data("step.failed a:1")["code"], "unknown_effect");
}

#[test]
fn answers_permanent_failures_ask_nobody() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).hitl());
    s.seen();
    s.fail("a", 1, FailureClass::Permanent, "x");
    s.expect(&["step.failed a:1", "coordination.terminal"]);
}

#[test]
fn under_none_nobody_is_asked() {
    // review and conflict are in hook.rs and claim.rs.
    let mut s = Scenario::new();
    let unknown = step("b").set("idempotent", false);
    s.plan(plan([step("a"), unknown, step("d")]));
    s.seen();
    s.fail("a", 1, RETRYABLE, "x");
    s.fail("b", 1, UNKNOWN, "x");
    s.expect(&["step.failed a:1", "step.failed b:1"]);
    assert_eq!(s.ask("d", 1, 1), "no-human - stop");
    s.expect(&[]);
    assert_eq!(s.step_state("d"), "dispatched");
}

// ---- the question ----

#[test]
fn r_54_the_record_and_the_message_say_what_is_asked() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x").set("payload", "in")]).hitl());
    s.seen();
    s.ask("a", 1, 7);
    let seq = s.seq("coordination.escalated a:1");
    let (id, digest) = s.question("a");
    assert_eq!(id, format!("e{seq}"));
    s.expect(&["coordination.escalated a:1", "human.requested a:1"]);
    s.expect_out(&[&format!("escalation:{id}:1:1#1 escalation")]);
    let token = s.token("a", 1);
    let plan_digest = s.data("coordination.created")["planDigest"].clone();
    let canonical = format!(
        r#"{{"coordinationId":"c","stepId":"a","attempt":1,"kind":"question","question":"which one?","payloadDigest":"{}","claims":[{{"resource":"file:x","mode":"exclusive","leaseMs":60000,"regions":[]}}],"planDigest":{plan_digest},"tokens":[{token}]}}"#,
        sha256_hex(&[b"\"in\""])
    );
    assert_eq!(digest, sha256_hex(&[canonical.as_bytes()]));
    let asked = s.data("coordination.escalated a:1");
    assert_eq!(
        (&asked["number"], &asked["question"]),
        (&json!(7), &json!("which one?"))
    );
    assert_eq!(
        asked["levels"],
        json!([{"sessions": ["user:dana"], "minRole": "operator", "timeoutMs": 10_000}])
    );
    assert_eq!(
        s.data("human.requested a:1"),
        json!({"escalationId": id, "level": 1, "minRole": "operator", "required": 1, "dueMs": 10_000})
    );
    assert_eq!(s.cause("human.requested a:1"), "coordination.escalated a:1");
    let message = s.message(&format!("escalation:{id}:1:1")).clone();
    assert_eq!(message.envelope.target_session, "user:dana");
    let view: Value = serde_json::from_str(message.envelope.payload.as_deref().unwrap()).unwrap();
    assert_eq!(view, s.describe("c")["escalations"][0]);
    assert_eq!(
        (
            &view["digest"],
            &view["approvals"],
            &view["fallback"],
            &view["dueMs"]
        ),
        (&json!(digest), &json!([]), &json!("deny"), &json!(10_000))
    );
    let waits = s.waits_for("a");
    assert_eq!(
        (&waits["kind"], &waits["escalationId"], &waits["dueMs"]),
        (&json!("human"), &json!(id), &json!(10_000))
    );
}

#[test]
fn r_54_another_digest_is_a_stale_question() {
    for kind in KINDS {
        let mut s = asked(kind);
        let (id, _) = s.question("a");
        let other = "0".repeat(64);
        let said = s.answer(dana(), &id, &other, APPROVE, None);
        assert_eq!(said, "stale-question digest fix", "{kind}");
        s.expect(&["input.rejected a:1"]);
        let rejected = s.data("input.rejected a:1");
        assert_eq!(
            (&rejected["intent"], &rejected["code"], &rejected["part"]),
            (
                &json!("answer"),
                &json!("stale-question"),
                &json!(format!("{id}:user:dana"))
            )
        );
        // It is no answer: the right one still counts.
        assert!(s.approve("a").starts_with("accepted"));
    }
}

#[test]
fn r_54_the_digest_goes_with_the_holders_tokens() {
    // The same contest against another grant is another question.
    let digest = |extra: bool| {
        let mut s = Scenario::new();
        let steps = [
            step("a").claims("file:x"),
            step("b").claims("file:x").after("d"),
            step("d"),
        ];
        s.plan(
            plan(steps)
                .hitl()
                .strategy("manual_review")
                .retries(9, &[0]),
        );
        if extra {
            s.fail("a", 1, RETRYABLE, "x");
        }
        s.done("d", 1, "");
        s.question("b").1
    };
    assert_ne!(digest(false), digest(true));
}

#[test]
fn answers_a_question_goes_back_to_work_with_the_text() {
    let mut s = asked("question");
    let (id, _) = s.question("a");
    s.now_ms = 4_000;
    assert_eq!(
        s.say(dana(), "a", APPROVE, Some("the left one")),
        "accepted acknowledged"
    );
    s.expect_out(&[
        &format!("answer:{id}#1 data"),
        &format!("-escalation:{id}:1:1"),
    ]);
    let answer = s.message(&format!("answer:{id}")).envelope.clone();
    assert_eq!(answer.target_session, "agent:a");
    assert_eq!(answer.payload.as_deref(), Some("the left one"));
    assert_eq!(s.data("human.decided a:1")["text"], "the left one");
    // A question that was answered is known; another one can be asked.
    assert_eq!(s.ask("a", 1, 7), "replayed waiting_human");
    assert_eq!(s.ask("a", 1, 8), "accepted waiting_human");
}

#[test]
fn answers_while_a_question_is_open_no_other_is_asked() {
    let mut s = asked("question");
    assert_eq!(s.ask("a", 1, 8), "not-running stepId stop");
    s.expect(&["input.rejected a:1"]);
    assert_eq!(s.ask("a", 1, 7), "replayed waiting_human");
    let other = escalate("a", 1, 7, "something else?");
    assert_eq!(brief(&s.submit(other)), "content-mismatch - fix");
    s.expect(&["input.rejected a:1"]);
}

// ---- R-53 ----

#[test]
fn r_53_owner_executing_session_requester_and_low_roles_do_not_count() {
    for (actor, why) in [
        (caller_as(OWNER, Role::Owner), "owns the plan"),
        (caller_as("agent:a", Role::Owner), "does the step"),
        (
            caller_as("user:eve", Role::User),
            "operator or above is needed",
        ),
        (caller("user:eve"), "no role"),
    ] {
        let mut s = asked("question");
        let (id, digest) = s.question("a");
        for verdict in [APPROVE, DENY] {
            let said = s.answer(actor.clone(), &id, &digest, verdict, None);
            assert_eq!(said, "not-eligible actor ask", "{why}");
            s.expect(&["input.rejected a:1"]);
            assert_eq!(s.data("input.rejected a:1")["code"], "not-eligible");
            assert_eq!(s.data("input.rejected a:1")["sourceSession"], actor.session);
        }
        assert_eq!(s.step_state("a"), "waiting_human");
    }
    for role in [Role::Operator, Role::Admin, Role::Owner] {
        let mut s = asked("question");
        // Whoever has the role, also if the question was not sent to them.
        let said = s.say(caller_as("user:eve", role), "a", APPROVE, None);
        assert_eq!(said, "accepted acknowledged");
    }
}

#[test]
fn r_53_whoever_added_a_step_does_not_decide_about_it() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).hitl());
    s.submit(execute("n", "a")).unwrap();
    s.fail("n", 1, RETRYABLE, "x");
    assert_eq!(s.step_state("n"), "waiting_human");
    let said = s.say(caller_as("agent:a", Role::Owner), "n", APPROVE, None);
    assert_eq!(said, "not-eligible actor ask");
    assert_eq!(s.approve("n"), "accepted ready");
}

#[test]
fn r_53_a_quorum_needs_distinct_people() {
    let mut s = asked_with("exhausted", |plan| plan.human_set("requiredApprovals", 2));
    assert_eq!(s.data("human.requested a:1")["required"], 2);
    assert_eq!(s.approve("a"), "accepted waiting_human");
    s.expect(&["human.decided a:1"]);
    assert_eq!(s.data("human.decided a:1")["final"], false);
    // The same person twice is one.
    assert_eq!(s.approve("a"), "replayed waiting_human");
    s.expect(&[]);
    assert_eq!(
        s.describe("c")["escalations"][0]["approvals"],
        json!(["user:dana"])
    );
    let said = s.say(caller_as("user:eve", Role::Admin), "a", APPROVE, None);
    assert_eq!(said, "accepted ready");
    s.expect(&["human.decided a:1", "step.dispatched a:2"]);
    assert_eq!(s.data("human.decided a:1")["final"], true);
}

#[test]
fn r_53_one_denial_denies_whatever_the_quorum() {
    let mut s = asked_with("exhausted", |plan| plan.human_set("requiredApprovals", 3));
    s.approve("a");
    s.seen();
    let said = s.say(caller_as("user:eve", Role::Admin), "a", DENY, Some("no"));
    assert_eq!(said, "accepted failed");
    s.expect(&[
        "human.decided a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("human.decided a:1")["final"], true);
}

pub(super) fn two_levels(plan: Json) -> Json {
    plan.human(json!({
        "levels": [
            {"sessions": ["user:dana", "user:finn"], "minRole": "operator", "timeoutMs": 10_000},
            {"sessions": ["user:boss"], "minRole": "admin", "timeoutMs": 20_000},
        ],
        "requiredApprovals": 2,
    }))
}

#[test]
fn r_56_the_next_level_is_asked_and_approvals_count_across_levels() {
    let mut s = asked_with("exhausted", two_levels);
    let (id, _) = s.question("a");
    s.approve("a");
    s.seen();
    s.advance(11_000);
    s.expect(&["human.expired a:1", "human.requested a:1"]);
    let (one, two) = (
        format!("-escalation:{id}:1:1"),
        format!("-escalation:{id}:1:2"),
    );
    s.expect_out(&[&format!("escalation:{id}:2:1#1 escalation"), &one, &two]);
    assert_eq!(
        s.data("human.expired a:1"),
        json!({"escalationId": id, "level": 1, "reason": "timeout"})
    );
    assert_eq!(
        s.data("human.requested a:1"),
        json!({"escalationId": id, "level": 2, "minRole": "admin", "required": 2, "dueMs": 31_000})
    );
    // An operator is too low for this level.
    let said = s.say(caller_as("user:finn", Role::Operator), "a", APPROVE, None);
    assert_eq!(said, "not-eligible actor ask");
    let said = s.say(caller_as("user:boss", Role::Admin), "a", APPROVE, None);
    assert_eq!(said, "accepted ready");
}

#[test]
fn r_56_only_after_the_last_level_the_fallback_counts() {
    let mut s = asked_with("exhausted", two_levels);
    s.advance(11_000);
    s.advance(30_999);
    s.expect(&["human.expired a:1", "human.requested a:1"]);
    s.advance(31_000);
    s.expect(&[
        "human.expired a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    let expired = s.data("human.expired a:1");
    assert_eq!(
        (&expired["level"], &expired["fallback"]),
        (&json!(2), &json!("deny"))
    );
}

// ---- R-55 ----

#[test]
fn r_55_the_first_final_answer_stands_in_both_orders() {
    let eve = || caller_as("user:eve", Role::Admin);
    let mut s = asked("exhausted");
    assert_eq!(s.approve("a"), "accepted ready");
    s.seen();
    assert_eq!(s.say(eve(), "a", DENY, None), "late dispatched");
    s.expect(&["input.late a:2"]);
    assert_eq!(s.data("input.late a:2")["intent"], "answer");
    assert_eq!(s.step_state("a"), "dispatched");
    // Kept once.
    assert_eq!(s.say(eve(), "a", DENY, None), "replayed dispatched");
    s.expect(&[]);

    let mut s = asked("exhausted");
    assert_eq!(s.say(eve(), "a", DENY, None), "accepted failed");
    s.seen();
    assert_eq!(s.approve("a"), "late failed");
    s.expect(&["input.late a:1"]);
    assert_eq!(s.step_state("a"), "failed");
}

#[test]
fn r_55_race_of_answer_and_deadline_in_both_orders() {
    let mut s = asked("exhausted");
    s.now_ms = 10_999;
    assert_eq!(s.approve("a"), "accepted ready");
    s.expect(&["human.decided a:1", "step.dispatched a:2"]);
    let mut s = asked("exhausted");
    s.now_ms = 11_000;
    assert_eq!(s.approve("a"), "late failed");
    s.expect(&[
        "human.expired a:1",
        "step.failed a:1",
        "coordination.terminal",
        "input.late a:1",
    ]);
}

#[test]
fn r_55_a_repeated_answer_is_replayed_and_another_one_a_mismatch() {
    let mut s = asked("question");
    assert_eq!(s.approve("a"), "accepted acknowledged");
    s.seen();
    assert_eq!(s.approve("a"), "replayed acknowledged");
    assert_eq!(s.deny("a"), "content-mismatch - fix");
    assert_eq!(
        s.say(dana(), "a", APPROVE, Some("x")),
        "content-mismatch - fix"
    );
    assert_eq!(s.step_state("a"), "acknowledged");
}

/// R-2: the stored receipt is the one that the answer got, whatever its records led to.
#[test]
fn r_55_the_receipt_of_a_repeated_answer_has_the_state_that_the_answer_led_to() {
    for kind in KINDS {
        for verdict in [APPROVE, DENY, COMPLETED] {
            let mut s = asked(kind);
            let said = s.say(dana(), "a", verdict, None);
            let Some(state) = said.strip_prefix("accepted ") else {
                assert!(verdict == COMPLETED && kind != "unknown_effect", "{said}");
                continue;
            };
            s.restart();
            let again = s.say(dana(), "a", verdict, None);
            assert_eq!(again, format!("replayed {state}"), "{kind}");
        }
    }
    // A timeout that is denied stays a timeout.
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000)]).hitl());
    s.advance(1_000);
    assert_eq!(s.deny("a"), "accepted timed_out");
    assert_eq!(s.deny("a"), "replayed timed_out");
}

#[test]
fn r_55_an_answer_to_nothing_is_refused() {
    let mut s = asked("question");
    let digest = "0".repeat(64);
    for id in ["e999", "h4", "x", ""] {
        let said = s.answer(dana(), id, &digest, APPROVE, None);
        assert_eq!(said, "unknown-key escalationId fix", "{id}");
    }
    s.expect(&[]);
    // Once the plan is closed nothing is known of its questions.
    s.approve("a");
    s.done("a", 1, "");
    s.read_all();
    s.seen();
    assert_eq!(s.approve("a"), "unknown-key escalationId fix");
}

#[test]
fn r_55_the_bounds_of_an_answer() {
    let mut s = asked("unknown_effect");
    let (id, digest) = s.question("a");
    let text = "x".repeat(64 * 1024 + 1);
    assert_eq!(
        s.answer(dana(), &id, &digest, COMPLETED, Some(&text)),
        "invalid-field text fix"
    );
    let nobody = caller_as("", Role::Owner);
    assert_eq!(
        s.answer(nobody, &id, &digest, APPROVE, None),
        "invalid-field actor.session fix"
    );
    assert_eq!(
        s.answer(dana(), &id, &digest, COMPLETED, Some(&text[1..])),
        "accepted completed"
    );
}

#[test]
fn r_55_late_and_refused_answers_are_kept_sixteen_times() {
    let mut s = asked("question");
    let (id, digest) = s.question("a");
    for n in 0..20 {
        let said = s.answer(caller(&format!("user:u{n}")), &id, &digest, APPROVE, None);
        assert_eq!(said, "not-eligible actor ask");
    }
    s.expect(&["input.rejected a:1"; 16]);
    s.approve("a");
    s.seen();
    for n in 0..20 {
        let actor = caller_as(&format!("user:u{n}"), Role::Admin);
        assert_eq!(
            s.answer(actor, &id, &digest, APPROVE, None),
            "late acknowledged"
        );
    }
    s.expect(&["input.late a:1"; 16]);
}
