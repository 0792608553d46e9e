//! Corners of rules where two of them meet: circles of waiters behind waiters, hooks between contests, steps that are added
//! among others, skips behind skips, questions that outlive what they are about.
//!
//! Each rule by itself is in the file of its noun.

use crate::support::*;
use qm2_core::envelope::{DeliveryMode, Envelope, FailureClass, PayloadRef};
use qm2_core::message::{HookKind, HookVerdict, Notice, NoticeKind};
use serde_json::{Value, json};

const PERMANENT: FailureClass = FailureClass::Permanent;
const NO_OPINION: HookVerdict = HookVerdict::NoOpinion;

/// `b` and `c` hold each other back on `file:x` and `file:y`, which `a` holds, as it does `file:v`. `b` came first, and `c` is looked at first.
fn circle(more: impl IntoIterator<Item = Json>) -> Scenario {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let both = |id: &str| step(id).claims("file:x").claims("file:y");
    let steps = [
        both("a").claims("file:v").set("priority", "critical"),
        both("b"),
        both("c").set("priority", "high").after("9"),
        step("9"),
    ];
    // Whoever is first on one of them is second on the other.
    let base = plan(steps.into_iter().chain(more));
    s.plan(base.owner("file:x", "agent:b").owner("file:y", "agent:c"));
    s.done("9", 1, "");
    for waiting in ["b", "c"] {
        assert_eq!(s.step_state(waiting), "waiting_claim", "{waiting}");
    }
    s
}

#[test]
fn r_50_whoever_of_a_circle_is_looked_at_first_the_lowest_number_goes() {
    let mut s = circle([]);
    s.seen();
    s.done("a", 1, "");
    s.expect(&[
        "step.completed a:1",
        "claim.released a:1",
        "claim.granted b:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
    s.done("b", 1, "");
    assert_eq!(s.step_state("c"), "dispatched");
}

#[test]
fn r_50_who_waits_behind_a_circle_does_not_pass_it() {
    // e waits behind the circle on x, f behind e on w, and f, the most urgent, is looked at first: it is the first on v.
    let e = step("e").claims("file:x").claims("file:w");
    let f = step("f").claims("file:v").claims("file:w");
    let mut s = circle([
        e.after("1"),
        f.set("priority", "critical").after("2"),
        step("1"),
        step("2"),
    ]);
    s.done("1", 1, "");
    s.done("2", 1, "");
    for waiting in ["b", "c", "e", "f"] {
        assert_eq!(s.step_state(waiting), "waiting_claim", "{waiting}");
    }
    for (ends, next) in [("a", "b"), ("b", "c"), ("c", "e"), ("e", "f")] {
        s.seen();
        s.done(ends, 1, "");
        let out = s.labels().pop();
        assert_eq!(out, Some(format!("step.dispatched {next}:1")));
    }
    s.done("f", 1, "");
    assert_eq!(s.state(), "final");
}

#[test]
fn r_45_waiters_of_every_priority_go_in_its_order() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let of = |id: &str, priority: &str| step(id).claims("file:x").set("priority", priority);
    let steps = [
        of("0", "critical"),
        of("a", "low"),
        of("b", "normal"),
        of("c", "high"),
        of("d", "critical"),
    ];
    s.plan(plan(steps).strategy("priority_wins"));
    let granted = |s: &Scenario| {
        let labels = s.labels().into_iter();
        let mut granted = labels.filter(|label| label.starts_with("claim.granted"));
        granted.next_back().unwrap_or_default()
    };
    for (ends, next) in [("0", "d"), ("d", "c"), ("c", "b"), ("b", "a")] {
        s.done(ends, 1, "");
        assert_eq!(granted(&s), format!("claim.granted {next}:1"));
    }
}

#[test]
fn r_42_what_lies_within_the_root_is_within_it() {
    for (held, wanted, meets) in [
        ("file:/", "file:/etc", true),
        ("file:/etc", "file:/", true),
        ("file:", "file:src", true),
        ("file:/", "file:src", false),
    ] {
        let mut s = Scenario::new();
        s.plan(plan([step("a").claims(held), step("b").claims(wanted)]));
        let state = if meets { "waiting_claim" } else { "dispatched" };
        assert_eq!(s.step_state("b"), state, "{held} {wanted}");
    }
}

// ---- hooks between contests ----

#[test]
fn r_52_nobody_is_ended_for_a_step_that_may_fail_over_another_contest() {
    let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeArbitrate]);
    let low = |id: &str, resource: &str| step(id).claims(resource).set("priority", "low");
    let both = step("z")
        .claims("file:x")
        .claims("file:y")
        .set("priority", "high");
    let steps = [
        low("a", "file:x"),
        low("b", "file:y"),
        both.after("0"),
        step("0"),
    ];
    s.plan(plan(steps).strategy("priority_wins").preempt().hitl());
    s.done("0", 1, "");
    let ids: Vec<String> = s.asks.iter().map(|ask| ask.hook_id.clone()).collect();
    assert_eq!(ids.len(), 2);
    s.seen();
    for id in &ids {
        s.verdict(id, "gate", NO_OPINION);
    }
    s.expect(&[
        "hook.verdict z:1",
        "conflict.resolved z:1",
        "hook.verdict z:1",
        "conflict.resolved z:1",
    ]);
    s.expect_out(&[]);
    assert_eq!(s.step_state("z"), "waiting_claim");
    assert_eq!(
        (s.step_state("a"), s.step_state("b")),
        ("dispatched".into(), "dispatched".into())
    );
}

#[test]
fn r_52_nobody_is_asked_before_the_hooks_have_spoken_on_every_contest() {
    let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeArbitrate]);
    let both = step("z").claims("file:x").claims("file:y").after("0");
    let steps = [
        step("a").claims("file:x"),
        step("b").claims("file:y"),
        both,
        step("0"),
    ];
    s.plan(plan(steps).hitl());
    s.done("0", 1, "");
    let ids: Vec<String> = s.asks.iter().map(|ask| ask.hook_id.clone()).collect();
    assert_eq!(ids.len(), 2);
    s.seen();
    s.verdict(&ids[1], "gate", HookVerdict::Review);
    s.expect(&["hook.verdict z:1", "conflict.resolved z:1"]);
    s.verdict(&ids[0], "gate", NO_OPINION);
    s.expect(&[
        "hook.verdict z:1",
        "conflict.resolved z:1",
        "coordination.escalated z:1",
        "human.requested z:1",
    ]);
}

#[test]
fn r_45_a_holder_that_asks_a_person_is_preempted_after_the_hooks_as_well() {
    let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeArbitrate]);
    let a = step("a").claims("file:x").set("priority", "low");
    let b = step("b").claims("file:x").set("priority", "high");
    s.plan(
        plan([a, b.after("0"), step("0")])
            .strategy("priority_wins")
            .preempt()
            .hitl(),
    );
    s.ask("a", 1, 1);
    s.done("0", 1, "");
    s.seen();
    s.judge(NO_OPINION);
    // The question is void, and the attempt gets its cancel message and the grace.
    s.expect(&[
        "hook.verdict b:1",
        "conflict.resolved b:1",
        "human.expired a:1",
    ]);
    assert_eq!(
        s.data("conflict.resolved b:1")["outcomes"][0]["outcome"],
        "preempts"
    );
    assert_eq!(s.data("human.expired a:1")["reason"], "voided");
    assert_eq!(s.message("cancel:c:a:1").lane, "control");
    s.advance(15_000);
    assert_eq!(s.data("step.retry_scheduled a:1")["class"], "preempted");
    assert_eq!(s.step_state("b"), "dispatched");
}

#[test]
fn r_46_what_may_go_beside_others_waits_for_the_hooks_and_then_its_turn() {
    let part = |start: u64| {
        json!({"resource": "file:x", "leaseMs": 60_000, "baseVersion": "v1",
            "regions": [{"start": start, "end": start + 10}]})
    };
    let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeArbitrate]);
    s.plan(plan([step("a").claim(part(0)), step("b").claim(part(10))]).strategy("merge_if_safe"));
    s.seen();
    s.judge(NO_OPINION);
    s.expect(&[
        "hook.verdict b:1",
        "conflict.resolved b:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
    assert_eq!(
        s.data("conflict.resolved b:1")["outcomes"][0]["outcome"],
        "granted"
    );
}

#[test]
fn r_52_a_step_that_waits_for_hooks_says_until_when() {
    let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeDispatch]);
    s.plan(plan([step("a")]));
    let wait = s.waits_for("a");
    let id = s.asks[0].hook_id.clone();
    assert_eq!(
        (&wait["kind"], &wait["hookId"], &wait["dueMs"]),
        (&json!("hook"), &json!(id), &json!(15_000))
    );
}

#[test]
fn r_66_owners_of_the_domain_that_change_change_the_order_of_those_who_wait() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    for id in ["c", "d", "e"] {
        let a = step("a")
            .claims("file:x")
            .set("targetSession", format!("agent:{id}"));
        s.plan(plan([a]).set("coordinationId", id));
    }
    s.seen();
    s.configure(|config| {
        config.max_in_flight = 9;
        config.owners = vec![qm2_core::arbitration::Owner {
            resource: "file:*".into(),
            session: "agent:e".into(),
        }];
    })
    .unwrap();
    s.expect(&["domain.configured"]);
    let end = |id: &str| done("a", 1, "").of(id).by(&format!("agent:{id}"));
    s.submit(end("c")).unwrap();
    s.seen();
    s.submit(end("e")).unwrap();
    assert_eq!(s.data("claim.granted d/a:1")["session"], "agent:d");
    assert!(s.seq("claim.granted e/a:1") < s.seq("claim.granted d/a:1"));
}

// ---- added steps ----

#[test]
fn r_23_a_step_among_others_leaves_their_places_as_they_were() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    // The report of p, the edges of q and r, all behind the place of the new one.
    s.plan(plan([
        step("b"),
        step("p"),
        step("q").on("p", "failure"),
        step("r").after("q"),
    ]));
    s.fail("p", 1, PERMANENT, "x");
    let key = format!("report:{}", s.seq("step.failed p:1"));
    s.seen();
    assert_eq!(brief(&s.submit(execute("n", "b"))), "accepted ready");
    s.expect(&["step.added n:1", "step.dispatched n:1"]);
    s.advance(30_000);
    assert_eq!(s.message(&key).envelope.step_id.as_deref(), Some("p"));
    s.done("q", 1, "");
    assert_eq!(s.step_state("r"), "dispatched");
    for step in ["r", "n", "b"] {
        s.done(step, 1, "");
    }
    assert_eq!(s.data("coordination.terminal")["terminal"], "success");
}

/// R-23: what a cleanup step adds is cleanup as well.
#[test]
fn r_18_a_step_that_cleanup_adds_still_runs_after_a_cancel() {
    let mut s = Scenario::new();
    s.plan(plan([step("sweep").set("cleanup", true), step("z")]));
    assert_eq!(brief(&s.submit(execute("n", "sweep"))), "accepted ready");
    s.cancel();
    s.advance(15_000);
    assert_eq!(s.step_state("n"), "dispatched");
    assert_eq!(s.done("n", 1, ""), "accepted completed");
    s.done("sweep", 1, "");
    assert_eq!(s.data("coordination.terminal")["reason"], "cancelled");
}

#[test]
fn r_25_a_report_to_whoever_added_a_step_outlives_its_coordination() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.submit(execute("n", "a")).unwrap();
    s.done("n", 1, "found");
    let key = format!("report:{}", s.seq("step.completed n:1"));
    s.done("a", 1, "");
    let last = format!("report:{}", s.seq("coordination.terminal"));
    s.read(&[&last]);
    while let Some(at_ms) = s.next_deadline() {
        s.advance(at_ms);
    }
    // Closed, since it was given up; and still that session's to read.
    assert_eq!(s.describe("c")["state"], "closed");
    let domain = s.describe("");
    assert_eq!(
        domain["coordinations"],
        json!([{"coordinationId": "c", "state": "closed", "terminal": "success",
            "terminalSeq": s.seq("coordination.terminal")}])
    );
    s.restart();
    assert_eq!(s.read(&[&key]), ["unauthorized-session key ask"]);
    assert_eq!(s.read_as("agent:a", &[&key]), ["accepted closed"]);
}

// ---- ends behind ends ----

#[test]
fn r_20_a_skip_behind_a_skip_behind_a_handled_failure_does_not_spoil_success() {
    // q and r are skipped because p failed, which its fallback made good.
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    s.plan(plan([
        step("0"),
        step("p"),
        step("fallback").on("p", "failure"),
        step("q").after("p"),
        step("r").on("q", "failure").on("0", "always"),
        // Looked at before those that it stands behind.
        step("1t").after("r").on("q", "always"),
    ]));
    s.done("0", 1, "");
    s.seen();
    s.fail("p", 1, PERMANENT, "x");
    s.expect(&[
        "step.failed p:1",
        "step.skipped q:1",
        "step.skipped r:1",
        "step.skipped 1t:1",
        "step.dispatched fallback:1",
    ]);
    for step in ["q", "r", "1t"] {
        assert_eq!(
            s.data(&format!("step.skipped {step}:1"))["reason"],
            "upstream_failed"
        );
    }
    s.done("fallback", 1, "");
    assert_eq!(s.data("coordination.terminal")["terminal"], "success");
}

#[test]
fn r_22_a_result_that_is_kept_elsewhere_is_as_long_as_it_says_and_shows_no_fields() {
    let reference = |bytes: u64| Envelope {
        payload: None,
        payload_ref: Some(PayloadRef {
            uri: "file:out".into(),
            sha256: "0".repeat(64),
            bytes,
        }),
        ..done("a", 1, "")
    };
    for (expected, bytes, says) in [
        (json!({"maxBytes": 9}), 9, None),
        (
            json!({"maxBytes": 9}),
            10,
            Some("the result has 10 bytes; 9 are allowed"),
        ),
        (json!({}), 0, Some("the result is empty")),
        (json!({"allowEmpty": true}), 0, None),
        (
            json!({"requiredFields": ["url"]}),
            9,
            Some("is kept elsewhere"),
        ),
    ] {
        let mut s = Scenario::new();
        s.plan(plan([step("a").set("expectedOutput", expected), step("z")]));
        let said = brief(&s.submit(reference(bytes)));
        match says {
            None => assert_eq!(said, "accepted completed"),
            Some(says) => {
                assert_eq!(said, "accepted failed");
                let failed = s.data("step.failed a:1");
                assert_eq!(failed["code"], "output-mismatch");
                let message = failed["message"].as_str().unwrap_or_default();
                assert!(message.contains(says), "{message}");
            }
        }
    }
}

/// R-34: the words of a failure are cut to their bound at a character.
#[test]
fn r_34_a_long_message_of_an_unknown_effect_is_cut_at_a_character() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("idempotent", false)]));
    let mut report = failed("a", 1, FailureClass::Unknown, "x");
    // With `x: ` before it the bound falls into the last character.
    let message = "ä".repeat(512);
    report.outcome = Some(qm2_core::envelope::Outcome::Failed {
        class: FailureClass::Unknown,
        code: "x".into(),
        message,
    });
    assert_eq!(brief(&s.submit(report)), "accepted failed");
    let says = s.data("step.failed a:1")["message"].clone();
    assert_eq!(says, json!(format!("x: {}", "ä".repeat(510))));
}

/// Steps that share a session, behind one that keeps the only slot of the domain or of the session.
fn aged(max_in_flight: u64, first_session: &str) -> Scenario {
    let mut s = Scenario::with(|config| config.max_in_flight = max_in_flight);
    let long = |id: &str, priority: &str| {
        step(id)
            .set("timeoutMs", 900_000)
            .set("ackTimeoutMs", 800_000)
            .set("priority", priority)
            .set("targetSession", "agent:s")
    };
    let first = long("0", "critical").set("targetSession", first_session);
    s.plan(plan([first, long("low", "low")]));
    s.now_ms = 100;
    s.plan(plan([long("normal", "normal")]).set("coordinationId", "d"));
    s
}

fn end_first(s: &mut Scenario, session: &str) -> String {
    brief(&s.submit(done("0", 1, "").by(session)))
}

#[test]
fn r_63_a_clock_that_steps_back_undoes_tiers_that_were_never_recorded() {
    let mut s = aged(9, "agent:s");
    // At 60 000 low would stand above normal; nothing is recorded then.
    s.advance(60_000);
    s.now_ms = 200;
    assert_eq!(end_first(&mut s, "agent:s"), "accepted completed");
    assert_eq!(s.labels().pop(), Some("step.dispatched d/normal:1".into()));
}

#[test]
fn r_63_of_one_session_the_older_goes_first_once_it_stands_as_high() {
    for (at_ms, wins) in [(29_999, "d/normal"), (30_000, "low")] {
        let mut s = aged(1, "agent:0");
        s.now_ms = at_ms;
        assert_eq!(end_first(&mut s, "agent:0"), "accepted completed");
        assert_eq!(s.labels().pop(), Some(format!("step.dispatched {wins}:1")));
    }
}

// ---- questions and messages ----

/// R-37, M3: whatever is asked, answered or cancelled goes out at least once, however the step itself is delivered.
#[test]
fn r_36_words_about_a_best_effort_step_are_delivered_at_least_once() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("deliveryMode", "best_effort")]).hitl());
    s.ask("a", 1, 1);
    let (id, _) = s.question("a");
    s.approve("a");
    s.cancel();
    let asked = format!("escalation:{id}:1:1");
    for key in [asked.as_str(), &format!("answer:{id}"), "cancel:c:a:1"] {
        let mode = s.message(key).envelope.delivery_mode;
        assert_eq!(mode, DeliveryMode::AtLeastOnce, "{key}");
    }
    let mode = s.message("c:a:1").envelope.delivery_mode;
    assert_eq!(mode, DeliveryMode::BestEffort);
}

/// R-57: only the key of a message that was sent names a question.
#[test]
fn r_57_a_key_that_only_looks_like_one_of_a_question_is_unknown() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).hitl());
    s.ask("a", 1, 1);
    let (id, _) = s.question("a");
    s.seen();
    for key in [
        format!("escalation:{id}:1:x"),
        format!("escalation:{id}:1:1:1"),
        format!("escalation:{id}:x:1"),
        format!("escalation:{id}:1"),
    ] {
        let kind = NoticeKind::Unreachable;
        let answer = &s.notices(&[Notice { key, kind }])[0];
        assert_eq!(brief(answer), "unknown-key key fix");
    }
    s.expect(&[]);
    let key = format!("escalation:{id}:1:1");
    let kind = NoticeKind::Unreachable;
    assert!(s.notices(&[Notice { key, kind }])[0].is_ok());
    s.expect(&[
        "human.expired a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
}

/// R-34: only an end that says nothing of the effect of what must not run again leaves the effect open.
#[test]
fn r_34_the_kind_of_a_question_goes_by_class_and_step() {
    for (class, idempotent, kind) in [
        (FailureClass::Retryable, false, "exhausted"),
        (FailureClass::Unknown, true, "exhausted"),
        (FailureClass::Unknown, false, "unknown_effect"),
    ] {
        let mut s = Scenario::new();
        s.plan(plan([step("a").set("idempotent", idempotent)]).hitl());
        s.fail("a", 1, class, "x");
        assert_eq!(s.data("coordination.escalated a:1")["kind"], kind);
    }
}

/// R-59: the cleanup grace is not the deadline of the plan, at which a question counts as unanswered.
#[test]
fn r_18_a_question_of_cleanup_is_void_when_its_grace_is_over() {
    let mut s = Scenario::new();
    let k = step("k").set("cleanup", true).set("timeoutMs", 900_000);
    s.plan(
        plan([step("a"), k])
            .human(json!({"levels": [{"sessions": ["user:dana"], "timeoutMs": 900_000}]})),
    );
    s.ask("k", 1, 1);
    s.cancel();
    s.done("a", 1, "");
    s.seen();
    s.advance(60_000);
    s.expect(&[
        "human.expired k:1",
        "step.timed_out k:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("human.expired k:1")["reason"], "voided");
    assert_eq!(s.data("coordination.terminal")["terminal"], "success");
}

/// R-32: a retry that has become due waits for a slot like any other step.
#[test]
fn r_63_a_due_retry_waits_for_its_session_and_not_for_its_time() {
    let mut s = Scenario::new();
    let b = step("b").set("targetSession", "agent:a");
    s.plan(plan([step("a"), b]).retries(1, &[1_000]));
    s.fail("a", 1, FailureClass::Retryable, "x");
    assert_eq!(s.step_state("b"), "dispatched");
    s.ack("b", 1);
    s.now_ms = 999;
    s.progress("b", 1, 1);
    assert_eq!(s.waits_for("a")["kind"], "retry");
    s.now_ms = 1_000;
    s.progress("b", 1, 2);
    assert_eq!(s.waits_for("a")["kind"], "session");
    s.done("b", 1, "");
    assert_eq!(s.step_state("a"), "dispatched");
}

/// R-43: who is only put first in the order ends nobody, and so answers nobody's question.
#[test]
fn r_45_a_question_of_a_holder_is_void_only_when_a_person_ends_its_attempt() {
    for (preempts, label) in [(false, "waits"), (true, "preempts")] {
        let mut s = Scenario::new();
        let base = plan([
            step("0").claims("file:x").set("timeoutMs", 900_000),
            step("1"),
            step("a").claims("file:x").after("1"),
        ]);
        let base = base.hitl().strategy("manual_review");
        s.plan(if preempts { base.preempt() } else { base });
        s.done("1", 1, "");
        s.ask("0", 1, 1);
        s.seen();
        s.approve("a");
        let decided = s.data("conflict.resolved a:1");
        assert_eq!(decided["outcomes"][0]["outcome"], label);
        let state = s.step_state("0");
        assert_eq!(state == "waiting_human", !preempts, "{state}");
    }
}

/// R-43: a holder stays where the newcomer has to be looked at over another resource.
#[test]
fn r_45_nobody_is_ended_for_a_step_that_a_person_has_to_let_go_first() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let low = |id: &str, resource: &str| step(id).claims(resource).set("priority", "low");
    let z = step("z").claims("file:x").claims("file:y").after("0");
    let base = plan([
        low("a", "file:x"),
        low("b", "file:y"),
        z.set("priority", "high"),
        step("0"),
    ]);
    let policy = json!({"default": "priority_wins", "preempt": true,
        "rules": [{"resource": "file:y", "strategy": "manual_review"}]});
    s.plan(base.hitl().set("conflictPolicy", policy));
    s.seen();
    s.done("0", 1, "");
    s.expect(&[
        "step.completed 0:1",
        "conflict.detected z:1",
        "conflict.resolved z:1",
        "conflict.detected z:1",
        "conflict.resolved z:1",
        "coordination.escalated z:1",
        "human.requested z:1",
    ]);
    let outcomes = s.lines.iter().map(|line| parse(line));
    let outcomes: Vec<Value> = outcomes
        .filter(|record| record["type"] == "conflict.resolved")
        .map(|record| record["data"]["outcomes"][0]["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["waits", "review"]);
    assert_eq!(s.step_state("a"), "dispatched");
}

/// R-17: what did not fail is not what a fallback stands in for.
#[test]
fn r_17_a_fallback_stands_only_for_those_that_failed() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    s.plan(plan([
        step("a"),
        step("b").set("required", true),
        step("f")
            .on("a", "failure")
            .on("b", "failure")
            .set("join", "any"),
        step("g"),
    ]));
    s.fail("a", 1, PERMANENT, "x");
    s.fail("f", 1, PERMANENT, "x");
    assert_eq!(s.state(), "open");
    assert_eq!(s.step_state("g"), "dispatched");
}

/// Plans come one after the other, each as large as the domain allows.
fn one_at_a_time(change: impl FnOnce(&mut qm2_core::config::Config)) {
    let mut s = Scenario::with(change);
    for id in ["c", "d", "e"] {
        let plan_of = |id: &str| {
            let a = step("a").set("payload", "ab");
            plan([a]).set("coordinationId", id)
        };
        s.plan(plan_of(id));
        s.submit(execute("n", "a").of(id)).unwrap();
        let full = s.try_plan(plan_of("z")).unwrap_err();
        assert_eq!(brief_rejection(&full), "domain-full - retry(1000)");
        for step in ["a", "n"] {
            s.done_of(id, step, 1);
        }
        s.read_all();
    }
}

#[test]
fn r_62_steps_of_closed_plans_no_longer_count() {
    one_at_a_time(|config| config.limits.live_steps = 2);
}

#[test]
fn r_62_payload_of_closed_plans_no_longer_counts() {
    one_at_a_time(|config| config.limits.live_payload_bytes = 6);
}

/// R-41: leases are those of the current attempt.
#[test]
fn r_50_an_attempt_that_ended_renews_and_claims_nothing() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claims("file:x")]).retries(1, &[0]));
    s.fail("a", 1, FailureClass::Retryable, "x");
    assert_eq!(s.step_state("a"), "dispatched");
    s.seen();
    let token = s.token("a", 2);
    let refused = s.renew("a", 1, &[token]).unwrap_err();
    assert_eq!(brief_rejection(&refused), "not-running attempt stop");
    let refused = s.claim(request("a", 1, "file:y")).unwrap_err();
    assert_eq!(brief_rejection(&refused), "not-running attempt stop");
    assert_eq!(s.release("a", 1, &[token]), "not-running attempt stop");
    s.expect(&[]);
}

/// R-25: numbers of reports begin with that of a record.
#[test]
fn r_25_report_0_is_no_report() {
    let mut s = Scenario::new();
    assert_eq!(
        s.read(&["report:0", "report:1", "report:2"]),
        [
            "unknown-key key fix",
            "replayed acknowledged",
            "unknown-key key fix",
        ]
    );
}

/// R-36: one attempt is what such a step has anyway.
#[test]
fn r_13_a_best_effort_step_may_say_that_it_has_one_attempt() {
    let with = |attempts: u64| {
        let a = step("a").set("deliveryMode", "best_effort");
        plan([a.set("maxAttempts", attempts)])
    };
    let mut s = Scenario::new();
    assert!(s.try_plan(with(2)).is_err());
    s.plan(with(1));
}

#[test]
fn r_13_a_cycle_is_found_behind_a_step_that_waits_for_others_as_well() {
    let mut s = Scenario::new();
    let steps = [
        step("a").after("free").after("b"),
        step("b").after("free").after("a"),
        step("free"),
    ];
    let refused = s.try_plan(plan(steps)).unwrap_err();
    let codes: Vec<&str> = refused
        .problems
        .iter()
        .map(|problem| &*problem.code)
        .collect();
    assert_eq!(codes, ["cycle"]);
    assert!(refused.problems[0].message.contains("a -> b -> a"));
}

#[test]
fn r_1_a_plan_may_be_as_long_as_the_domain_allows() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    let created = s.lines[1].as_str();
    let begin = created.find("\"plan\":").expect("it holds the plan") + 7;
    let end = created.find(",\"planDigest\"").expect("and its digest");
    let bytes = (end - begin) as u64;
    for (limit, taken) in [(bytes - 1, false), (bytes, true)] {
        let mut s = Scenario::with(|config| config.limits.plan_bytes = limit);
        assert_eq!(s.try_plan(plan([step("a")])).is_ok(), taken, "{limit}");
    }
}
