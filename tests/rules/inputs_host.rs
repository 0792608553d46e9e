//! Every word of hosts, hooks and people, and every call about claims, in its four cases: happy, wrong, repeated, and too late.
//!
//! Plans, envelopes and time are in `inputs.rs`.

use super::human::{asked, two_levels};
use crate::support::*;
use qm2_core::claim::{Access, ClaimRequest};
use qm2_core::envelope::FailureClass;
use qm2_core::message::{Caller, HookKind, HookVerdict, HumanVerdict, Notice, NoticeKind, Role};
use serde_json::json;

const WRITE: Access = Access::Write;

#[track_caller]
fn nothing(s: &mut Scenario) {
    s.expect(&[]);
    s.expect_out(&[]);
}

// ---- notices ----

/// Steps `a` and `z` are out, the retry of `a` is not due before 500 after its end; everything so far is seen.
fn out() -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("z")]).retries(3, &[500]));
    s.seen();
    s
}

/// Step `a` went straight to a lane.
fn in_lane() -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").set("deliveryMode", "best_effort"),
        step("z"),
    ]));
    s.seen();
    s
}

fn notice_of(s: &mut Scenario, key: &str, kind: NoticeKind) -> String {
    let key = key.to_owned();
    brief(&s.notices(&[Notice { key, kind }])[0])
}

/// No such attempt, step, plan or key.
fn wrong_keys(s: &mut Scenario, kind: NoticeKind) {
    for (key, says) in [
        ("c:a:2", "unknown-attempt key fix"),
        ("c:nobody:1", "unknown-step stepId fix"),
        ("nowhere:a:1", "unknown-coordination coordinationId fix"),
        ("c:a", "unknown-key key fix"),
        ("report:2", "unknown-key key fix"),
    ] {
        assert_eq!(notice_of(s, key, kind), says, "{key}");
    }
    nothing(s);
}

#[test]
fn notice_unknown_target_happy() {
    let mut s = out();
    assert_eq!(
        s.notice("a", 1, NoticeKind::UnknownTarget),
        "accepted failed"
    );
    s.expect(&["step.failed a:1"]);
    let failed = s.data("step.failed a:1");
    assert_eq!(
        (&failed["class"], &failed["code"]),
        (&json!("permanent"), &json!("unknown-target"))
    );
    // Nobody works on it, so nobody is called back.
    let report = format!("report:{}#1 data", s.seq("step.failed a:1"));
    s.expect_out(&[&report, "-c:a:1"]);
}

#[test]
fn notice_unknown_target_wrong() {
    wrong_keys(&mut out(), NoticeKind::UnknownTarget);
}

#[test]
fn notice_unknown_target_repeated() {
    let mut s = out();
    s.notice("a", 1, NoticeKind::UnknownTarget);
    s.seen();
    assert_eq!(
        s.notice("a", 1, NoticeKind::UnknownTarget),
        "replayed failed"
    );
    nothing(&mut s);
}

#[test]
fn notice_unknown_target_too_late() {
    // Somebody took it up; it has ended.
    let mut s = out();
    s.ack("a", 1);
    s.seen();
    assert_eq!(
        s.notice("a", 1, NoticeKind::UnknownTarget),
        "replayed acknowledged"
    );
    s.done("z", 1, "");
    s.seen();
    assert_eq!(
        s.notice("z", 1, NoticeKind::UnknownTarget),
        "replayed completed"
    );
    nothing(&mut s);
}

#[test]
fn notice_dropped_happy() {
    let mut s = in_lane();
    assert_eq!(s.notice("a", 1, NoticeKind::Dropped), "accepted failed");
    s.expect(&["step.failed a:1"]);
    assert_eq!(s.data("step.failed a:1")["code"], "dropped");
}

#[test]
fn notice_dropped_wrong() {
    wrong_keys(&mut in_lane(), NoticeKind::Dropped);
}

#[test]
fn notice_dropped_repeated() {
    let mut s = in_lane();
    s.notice("a", 1, NoticeKind::Dropped);
    s.seen();
    assert_eq!(s.notice("a", 1, NoticeKind::Dropped), "replayed failed");
    nothing(&mut s);
}

#[test]
fn notice_dropped_too_late() {
    let mut s = in_lane();
    s.progress("a", 1, 1);
    s.seen();
    assert_eq!(
        s.notice("a", 1, NoticeKind::Dropped),
        "replayed acknowledged"
    );
    nothing(&mut s);
}

#[test]
fn notice_host_lost_happy() {
    let mut s = out();
    s.ack("a", 1);
    s.seen();
    assert_eq!(
        s.notice("a", 1, NoticeKind::HostLost),
        "accepted retry_wait"
    );
    // Free, and due at once.
    s.expect(&["step.retry_scheduled a:1", "step.dispatched a:2"]);
    let retry = s.data("step.retry_scheduled a:1");
    assert_eq!(
        (&retry["free"], &retry["budgetLeft"], &retry["dueMs"]),
        (&json!(true), &json!(3), &json!(0))
    );
}

#[test]
fn notice_host_lost_wrong() {
    wrong_keys(&mut out(), NoticeKind::HostLost);
}

#[test]
fn notice_host_lost_repeated() {
    let mut s = out();
    s.notice("a", 1, NoticeKind::HostLost);
    s.seen();
    // Of the attempt before, also where it answers a probe.
    assert_eq!(
        s.notice("a", 1, NoticeKind::HostLost),
        "replayed dispatched"
    );
    assert_eq!(
        notice_of(&mut s, "probe:c:a:1", NoticeKind::HostLost),
        "replayed dispatched"
    );
    nothing(&mut s);
}

#[test]
fn notice_host_lost_too_late() {
    let mut s = out();
    s.done("a", 1, "");
    s.seen();
    assert_eq!(s.notice("a", 1, NoticeKind::HostLost), "replayed completed");
    nothing(&mut s);
}

/// Two levels are asked about step `a`; the id of the question.
fn two_level_question() -> (Scenario, String) {
    let s = super::human::asked_with("exhausted", two_levels);
    let (id, _) = s.question("a");
    (s, id)
}

#[test]
fn notice_unreachable_happy() {
    let (mut s, id) = two_level_question();
    s.now_ms = 3_000;
    let said = notice_of(
        &mut s,
        &format!("escalation:{id}:1:1"),
        NoticeKind::Unreachable,
    );
    assert_eq!(said, "accepted waiting_human");
    s.expect(&["human.expired a:1", "human.requested a:1"]);
    assert_eq!(s.data("human.expired a:1")["reason"], "unreachable");
    let next = s.data("human.requested a:1");
    assert_eq!(
        (&next["level"], &next["dueMs"]),
        (&json!(2), &json!(23_000))
    );
}

#[test]
fn notice_unreachable_wrong() {
    let (mut s, id) = two_level_question();
    for key in [
        "c:a:1",
        "escalation:e999:1:1",
        &format!("escalation:{id}:1"),
    ] {
        let said = notice_of(&mut s, key, NoticeKind::Unreachable);
        assert_eq!(said, "unknown-key key fix", "{key}");
    }
    nothing(&mut s);
}

#[test]
fn notice_unreachable_repeated() {
    let (mut s, id) = two_level_question();
    let key = format!("escalation:{id}:1:1");
    notice_of(&mut s, &key, NoticeKind::Unreachable);
    s.seen();
    let said = notice_of(&mut s, &key, NoticeKind::Unreachable);
    assert_eq!(said, "replayed waiting_human");
    nothing(&mut s);
}

#[test]
fn notice_unreachable_too_late() {
    let (mut s, id) = two_level_question();
    s.deny("a");
    s.seen();
    let said = notice_of(
        &mut s,
        &format!("escalation:{id}:1:1"),
        NoticeKind::Unreachable,
    );
    assert_eq!(said, "replayed failed");
    nothing(&mut s);
}

#[test]
fn notice_taken_happy() {
    let mut s = out();
    assert_eq!(s.notice("a", 1, NoticeKind::Taken), "replayed dispatched");
    assert_eq!(
        notice_of(&mut s, "probe:c:a:1", NoticeKind::Taken),
        "replayed dispatched"
    );
    // It records nothing: no ack.
    nothing(&mut s);
    s.advance(30_000);
    s.expect(&["message.redelivered a:1", "message.redelivered z:1"]);
}

#[test]
fn notice_taken_wrong() {
    wrong_keys(&mut out(), NoticeKind::Taken);
}

#[test]
fn notice_taken_repeated() {
    let mut s = out();
    let digest = s.digest();
    for _ in 0..2 {
        assert_eq!(s.notice("a", 1, NoticeKind::Taken), "replayed dispatched");
    }
    nothing(&mut s);
    assert_eq!(s.digest(), digest);
}

#[test]
fn notice_taken_too_late() {
    let mut s = out();
    s.fail("a", 1, FailureClass::Retryable, "x");
    s.seen();
    assert_eq!(s.notice("a", 1, NoticeKind::Taken), "replayed retry_wait");
    nothing(&mut s);
}

// ---- verdicts ----

/// Hooks are asked about step `a` since 0; the id of the request.
fn hooked() -> (Scenario, String) {
    let mut s = Scenario::with(|config| config.hooks = vec![HookKind::BeforeDispatch]);
    s.plan(plan([step("a")]).hitl());
    s.expect(&["coordination.created", "hook.requested a:1"]);
    s.seen();
    let id = s.asks[0].hook_id.clone();
    (s, id)
}

/// Every verdict is refused for the same reasons.
fn wrong_verdicts(verdict: HookVerdict) {
    let (mut s, id) = hooked();
    assert_eq!(
        s.verdict("h999", "gate", verdict.clone()),
        "unknown-key hookId fix"
    );
    assert_eq!(
        s.verdict("", "gate", verdict.clone()),
        "unknown-key hookId fix"
    );
    assert_eq!(s.verdict(&id, "", verdict), "invalid-field handler fix");
    nothing(&mut s);
    assert_eq!(s.step_state("a"), "waiting_hook");
}

/// The first word stands, whatever comes after it.
fn repeated_verdicts(verdict: HookVerdict) {
    let (mut s, id) = hooked();
    s.verdict(&id, "gate", verdict.clone());
    let state = s.step_state("a");
    s.seen();
    for again in [
        verdict,
        HookVerdict::NoOpinion,
        HookVerdict::Deny("no".into()),
    ] {
        assert_eq!(s.verdict(&id, "gate", again), "replayed answered");
    }
    nothing(&mut s);
    assert_eq!(s.step_state("a"), state);
}

/// At the hooks' time the answer is a denial, and what comes then changes nothing.
fn late_verdicts(verdict: HookVerdict) {
    let (mut s, id) = hooked();
    s.now_ms = 15_000;
    assert_eq!(s.verdict(&id, "gate", verdict), "replayed answered");
    s.expect(&[
        "hook.verdict a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    let said = s.data("hook.verdict a:1");
    assert_eq!(
        (&said["handler"], &said["verdict"]),
        (&json!("hook-timeout"), &json!("deny"))
    );
}

#[test]
fn verdict_no_opinion_happy() {
    let (mut s, id) = hooked();
    s.now_ms = 14_999;
    assert_eq!(
        s.verdict(&id, "gate", HookVerdict::NoOpinion),
        "accepted dispatched"
    );
    s.expect(&["hook.verdict a:1", "step.dispatched a:1"]);
    s.expect_out(&["c:a:1#1 control"]);
    // The attempt's time runs from its dispatch.
    assert_eq!(s.data("step.dispatched a:1")["deadlineMs"], 74_999);
}

#[test]
fn verdict_no_opinion_wrong() {
    wrong_verdicts(HookVerdict::NoOpinion);
}

#[test]
fn verdict_no_opinion_repeated() {
    repeated_verdicts(HookVerdict::NoOpinion);
}

#[test]
fn verdict_no_opinion_too_late() {
    late_verdicts(HookVerdict::NoOpinion);
}

#[test]
fn verdict_deny_happy() {
    let (mut s, id) = hooked();
    let deny = HookVerdict::Deny("frozen".into());
    assert_eq!(s.verdict(&id, "gate", deny), "accepted failed");
    s.expect(&[
        "hook.verdict a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("step.failed a:1")["code"], "denied");
    assert_eq!(s.data("hook.verdict a:1")["reason"], "frozen");
    assert_eq!(s.cause("step.failed a:1"), "hook.verdict a:1");
}

#[test]
fn verdict_deny_wrong() {
    wrong_verdicts(HookVerdict::Deny("no".into()));
    let (mut s, id) = hooked();
    let long = HookVerdict::Deny("x".repeat(1_025));
    assert_eq!(
        s.verdict(&id, "gate", long),
        "invalid-field verdict.deny fix"
    );
    nothing(&mut s);
}

#[test]
fn verdict_deny_repeated() {
    repeated_verdicts(HookVerdict::Deny("no".into()));
}

#[test]
fn verdict_deny_too_late() {
    late_verdicts(HookVerdict::Deny("no".into()));
}

#[test]
fn verdict_review_happy() {
    let (mut s, id) = hooked();
    assert_eq!(
        s.verdict(&id, "gate", HookVerdict::Review),
        "accepted waiting_human"
    );
    s.expect(&[
        "hook.verdict a:1",
        "coordination.escalated a:1",
        "human.requested a:1",
    ]);
    assert_eq!(s.data("coordination.escalated a:1")["kind"], "review");
    // A review has no slot and no attempt yet; approved it goes out without asking the hooks again.
    assert_eq!(s.approve("a"), "accepted ready");
    s.expect(&["human.decided a:1", "step.dispatched a:1"]);
}

#[test]
fn verdict_review_wrong() {
    wrong_verdicts(HookVerdict::Review);
}

#[test]
fn verdict_review_repeated() {
    repeated_verdicts(HookVerdict::Review);
}

#[test]
fn verdict_review_too_late() {
    late_verdicts(HookVerdict::Review);
}

// ---- answers ----

const APPROVE: HumanVerdict = HumanVerdict::Approve;
const DENY: HumanVerdict = HumanVerdict::Deny;
const COMPLETED: HumanVerdict = HumanVerdict::Completed;

/// Every answer is refused for the same reasons; the question is of kind unknown_effect, so that all three could be given.
fn wrong_answers(verdict: HumanVerdict) {
    let mut s = asked("unknown_effect");
    let (id, digest) = s.question("a");
    let other = "0".repeat(64);
    let rows: [(Caller, &str, &str, &str, Option<&str>); 4] = [
        (
            dana(),
            &id,
            &other,
            "stale-question digest fix",
            Some("stale-question"),
        ),
        (
            caller_as("user:dana", Role::User),
            &id,
            &digest,
            "not-eligible actor ask",
            Some("not-eligible"),
        ),
        (
            caller_as(OWNER, Role::Owner),
            &id,
            &digest,
            "not-eligible actor ask",
            Some("not-eligible"),
        ),
        (
            dana(),
            "e999",
            &digest,
            "unknown-key escalationId fix",
            None,
        ),
    ];
    for (actor, id, digest, says, recorded) in rows {
        assert_eq!(s.answer(actor, id, digest, verdict, None), says);
        match recorded {
            Some(code) => {
                s.expect(&["input.rejected a:1"]);
                let rejected = s.data("input.rejected a:1");
                assert_eq!(
                    (&rejected["intent"], &rejected["code"]),
                    (&json!("answer"), &json!(code))
                );
            }
            None => s.expect(&[]),
        }
    }
    s.expect_out(&[]);
    assert_eq!(s.step_state("a"), "waiting_human");
}

/// The same again is known; another answer of the same person is not taken.
fn repeated_answers(verdict: HumanVerdict, other: HumanVerdict) {
    let mut s = asked("unknown_effect");
    let said = s.say(dana(), "a", verdict, None);
    let first = said
        .strip_prefix("accepted ")
        .expect("it is taken")
        .to_owned();
    s.seen();
    assert_eq!(
        s.say(dana(), "a", verdict, None),
        format!("replayed {first}")
    );
    assert_eq!(s.say(dana(), "a", other, None), "content-mismatch - fix");
    nothing(&mut s);
}

/// At the person's time the fallback stands, and the answer is kept without effect.
fn late_answers(verdict: HumanVerdict) {
    let mut s = asked("unknown_effect");
    s.now_ms = 11_000;
    assert_eq!(s.say(dana(), "a", verdict, None), "late failed");
    s.expect(&[
        "human.expired a:1",
        "step.failed a:1",
        "coordination.terminal",
        "input.late a:1",
    ]);
    assert_eq!(s.data("input.late a:1")["intent"], "answer");
    assert_eq!(s.say(dana(), "a", verdict, None), "replayed failed");
    s.expect(&[]);
}

#[test]
fn answer_approve_happy() {
    let mut s = asked("unknown_effect");
    s.now_ms = 10_999;
    // It did not happen: a new attempt.
    assert_eq!(s.approve("a"), "accepted ready");
    s.expect(&["human.decided a:1", "step.dispatched a:2"]);
    assert_eq!(s.data("human.decided a:1")["final"], true);
    assert_eq!(s.cause("human.decided a:1"), "human.requested a:1");
}

#[test]
fn answer_approve_wrong() {
    wrong_answers(APPROVE);
}

#[test]
fn answer_approve_repeated() {
    repeated_answers(APPROVE, DENY);
}

#[test]
fn answer_approve_too_late() {
    late_answers(APPROVE);
}

#[test]
fn answer_deny_happy() {
    let mut s = asked("unknown_effect");
    assert_eq!(
        s.say(dana(), "a", DENY, Some("ask the bank")),
        "accepted failed"
    );
    s.expect(&[
        "human.decided a:1",
        "step.failed a:1",
        "coordination.terminal",
    ]);
    assert_eq!(s.data("human.decided a:1")["text"], "ask the bank");
    assert_eq!(s.data("step.failed a:1")["code"], "unknown_effect");
}

#[test]
fn answer_deny_wrong() {
    wrong_answers(DENY);
}

#[test]
fn answer_deny_repeated() {
    repeated_answers(DENY, APPROVE);
}

#[test]
fn answer_deny_too_late() {
    late_answers(DENY);
}

#[test]
fn answer_completed_happy() {
    let mut s = asked("unknown_effect");
    assert_eq!(
        s.say(dana(), "a", COMPLETED, Some("paid")),
        "accepted completed"
    );
    s.expect(&[
        "human.decided a:1",
        "step.completed a:1",
        "coordination.terminal",
    ]);
    let completed = s.data("step.completed a:1");
    assert_eq!(
        (&completed["payload"], &completed["by"]),
        (&json!("paid"), &json!("answer"))
    );
}

#[test]
fn answer_completed_wrong() {
    wrong_answers(COMPLETED);
    // Of any other kind nobody can say that it happened.
    let mut s = asked("exhausted");
    assert_eq!(
        s.say(dana(), "a", COMPLETED, Some("paid")),
        "invalid-field verdict fix"
    );
    nothing(&mut s);
}

#[test]
fn answer_completed_repeated() {
    repeated_answers(COMPLETED, DENY);
}

#[test]
fn answer_completed_too_late() {
    late_answers(COMPLETED);
}

// ---- claims ----

/// Step `a` holds `file:x` until 5 000, `z` runs as well, `b` waits for `a`; everything so far is seen.
fn holding() -> (Scenario, u64) {
    let mut s = Scenario::new();
    let held = json!({"resource": "file:x", "leaseMs": 5_000});
    s.plan(plan([step("a").claim(held), step("b").after("a"), step("z")]).retries(1, &[500]));
    s.seen();
    let token = s.token("a", 1);
    (s, token)
}

fn refused(s: &mut Scenario, session: &str, request: ClaimRequest) -> String {
    brief_rejection(&s.claim_as(session, request).unwrap_err())
}

#[test]
fn claim_happy() {
    let (mut s, token) = holding();
    s.now_ms = 1_000;
    let granted = s.claim(request("a", 1, "file:./y/")).unwrap();
    assert_eq!(
        (granted.resource.as_str(), granted.expires_ms),
        ("file:y", 61_000)
    );
    assert!(granted.token > token);
    s.expect(&["claim.granted a:1"]);
    s.expect_out(&[]);
    assert_eq!(granted.token, s.seq("claim.granted a:1"));
    assert!(s.check("file:y/z", "agent:a", granted.token, WRITE).allowed);
}

#[test]
fn claim_wrong() {
    let (mut s, _) = holding();
    // What is taken is refused, with no record and a time to try again.
    let taken = s.claim(request("z", 1, "file:x/y")).unwrap_err();
    assert_eq!(
        brief_rejection(&taken),
        "claim-refused resource retry(1000)"
    );
    assert!(taken.message.contains("held by a of c"), "{taken}");
    let says = refused(&mut s, "agent:z", request("a", 1, "file:y"));
    assert_eq!(says, "unauthorized-session caller ask");
    let says = refused(&mut s, "agent:a", request("a", 2, "file:y"));
    assert_eq!(says, "unknown-attempt attempt fix");
    let says = refused(&mut s, "agent:b", request("b", 1, "file:y"));
    assert_eq!(says, "not-running attempt stop");
    let says = refused(&mut s, "agent:a", request("a", 1, "file:../y"));
    assert_eq!(says, "invalid-field resource fix");
    nothing(&mut s);
}

#[test]
fn claim_repeated() {
    let (mut s, _) = holding();
    let first = s.claim(request("a", 1, "file:y")).unwrap();
    s.seen();
    s.now_ms = 1_000;
    assert_eq!(s.claim(request("a", 1, "file:y")).unwrap(), first);
    nothing(&mut s);
}

#[test]
fn claim_too_late() {
    let (mut s, _) = holding();
    s.now_ms = 5_000;
    let says = refused(&mut s, "agent:a", request("a", 1, "file:y"));
    assert_eq!(says, "not-running attempt stop");
    s.expect(&["claim.expired a:1", "step.retry_scheduled a:1"]);
    s.done("z", 1, "");
    s.seen();
    let says = refused(&mut s, "agent:z", request("z", 1, "file:y"));
    assert_eq!(says, "not-running attempt stop");
    nothing(&mut s);
}

fn renewed(s: &mut Scenario, step: &str, attempt: u32, tokens: &[u64]) -> String {
    brief_rejection(&s.renew(step, attempt, tokens).unwrap_err())
}

#[test]
fn renew_happy() {
    let (mut s, token) = holding();
    s.now_ms = 4_999;
    let grants = s.renew("a", 1, &[]).unwrap();
    assert_eq!((grants[0].token, grants[0].expires_ms), (token, 9_999));
    s.expect(&["claim.renewed a:1"]);
    assert_eq!(s.cause("claim.renewed a:1"), "claim.granted a:1");
    s.advance(9_998);
    s.expect(&[]);
}

#[test]
fn renew_wrong() {
    let (mut s, token) = holding();
    assert_eq!(
        renewed(&mut s, "a", 1, &[token + 1]),
        "unknown-key tokens fix"
    );
    assert_eq!(renewed(&mut s, "a", 2, &[]), "unknown-attempt attempt fix");
    assert_eq!(renewed(&mut s, "b", 1, &[]), "not-running attempt stop");
    assert_eq!(renewed(&mut s, "z", 1, &[token]), "unknown-key tokens fix");
    nothing(&mut s);
}

#[test]
fn renew_repeated() {
    // Each begins the lease anew, at its own time.
    let (mut s, token) = holding();
    for now_ms in [1_000, 2_000] {
        s.now_ms = now_ms;
        assert_eq!(
            s.renew("a", 1, &[token]).unwrap()[0].expires_ms,
            now_ms + 5_000
        );
        s.expect(&["claim.renewed a:1"]);
    }
}

#[test]
fn renew_too_late() {
    let (mut s, token) = holding();
    s.now_ms = 5_000;
    assert_eq!(
        renewed(&mut s, "a", 1, &[token]),
        "not-running attempt stop"
    );
    s.expect(&["claim.expired a:1", "step.retry_scheduled a:1"]);
    assert!(!s.check("file:x", "agent:a", token, WRITE).allowed);
}

#[test]
fn release_happy() {
    let (mut s, token) = holding();
    assert_eq!(s.release("a", 1, &[token]), "accepted dispatched");
    s.expect(&["claim.released a:1"]);
    assert_eq!(s.data("claim.released a:1")["reason"], "released");
    // What is free is anybody's; the attempt goes on.
    assert!(s.claim(request("z", 1, "file:x")).is_ok());
    s.seen();
    s.advance(5_000);
    s.expect(&[]);
}

#[test]
fn release_wrong() {
    let (mut s, token) = holding();
    assert_eq!(s.release("a", 1, &[token + 1]), "unknown-key tokens fix");
    assert_eq!(s.release("a", 2, &[]), "unknown-attempt attempt fix");
    assert_eq!(s.release("b", 1, &[]), "not-running attempt stop");
    assert_eq!(s.release("z", 1, &[token]), "unknown-key tokens fix");
    nothing(&mut s);
    assert!(s.check("file:x", "agent:a", token, WRITE).allowed);
}

#[test]
fn release_repeated() {
    let (mut s, token) = holding();
    s.release("a", 1, &[]);
    s.seen();
    assert_eq!(s.release("a", 1, &[]), "replayed dispatched");
    // By its token it is no grant any more.
    assert_eq!(s.release("a", 1, &[token]), "unknown-key tokens fix");
    nothing(&mut s);
}

#[test]
fn release_too_late() {
    let (mut s, token) = holding();
    s.done("a", 1, "");
    s.seen();
    assert_eq!(s.release("a", 1, &[token]), "not-running attempt stop");
    nothing(&mut s);
}

#[test]
fn check_happy() {
    let (mut s, token) = holding();
    let verdict = s.check("file:x", "agent:a", token, WRITE);
    assert_eq!((verdict.allowed, verdict.expires_ms), (true, Some(5_000)));
    assert!(
        s.check("file:x/deeper", "agent:a", token, Access::Read)
            .allowed
    );
    nothing(&mut s);
}

#[test]
fn check_wrong() {
    let (mut s, token) = holding();
    for (resource, session, token) in [
        ("file:x", "agent:z", token),
        ("file:x", "agent:a", token + 1),
        ("file:y", "agent:a", token),
        ("file:", "agent:a", token),
        ("x", "agent:a", token),
    ] {
        let verdict = s.check(resource, session, token, WRITE);
        assert!(!verdict.allowed, "{resource} {session} {token}");
    }
    nothing(&mut s);
}

#[test]
fn check_repeated() {
    let (mut s, token) = holding();
    let digest = s.digest();
    let first = s.check("file:x", "agent:a", token, WRITE);
    assert_eq!(s.check("file:x", "agent:a", token, WRITE), first);
    nothing(&mut s);
    assert_eq!(s.digest(), digest);
}

#[test]
fn check_too_late() {
    // Exactly at the end of the lease, before any record says so; and once the attempt has ended.
    let (mut s, token) = holding();
    s.now_ms = 5_000;
    assert!(!s.check("file:x", "agent:a", token, WRITE).allowed);
    nothing(&mut s);
    let (mut s, token) = holding();
    s.done("a", 1, "");
    assert!(!s.check("file:x", "agent:a", token, WRITE).allowed);
}
