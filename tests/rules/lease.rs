//! Leases of running attempts, and the guard: where they are about leases.

use crate::support::*;
use qm2_core::claim::{Access, Region};
use qm2_core::envelope::FailureClass;
use qm2_core::message::NoticeKind;
use qm2_host::engine::{Answer, Call};
use serde_json::{Value, json};

const WRITE: Access = Access::Write;

/// What ends an attempt.
type End = fn(&mut Scenario);

fn lease(resource: &str, lease_ms: u64) -> Value {
    json!({"resource": resource, "leaseMs": lease_ms})
}

/// Step `a` holds `file:x` for five seconds; it may run again without harm.
fn held() -> Scenario {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claim(lease("file:x", 5_000))]).retries(3, &[1_000]));
    s.ack("a", 1);
    s.seen();
    s
}

fn reason(s: &mut Scenario, resource: &str, session: &str, token: u64, mode: Access) -> String {
    let verdict = s.check(resource, session, token, mode);
    assert!(!verdict.allowed);
    verdict.reason
}

#[test]
fn r_51_a_lease_ends_exactly_at_its_time_and_not_a_millisecond_before() {
    let mut s = held();
    let token = s.token("a", 1);
    s.advance(4_999);
    s.expect(&[]);
    assert!(s.check("file:x", "agent:a", token, WRITE).allowed);
    assert_eq!(s.next_deadline(), Some(5_000));
    s.advance(5_000);
    s.expect(&["claim.expired a:1", "step.retry_scheduled a:1"]);
    s.expect_out(&["cancel:c:a:1#1 control", "-c:a:1"]);
    assert_eq!(
        s.data("claim.expired a:1"),
        json!({"token": token, "resource": "file:x"})
    );
    assert_eq!(s.cause("claim.expired a:1"), "claim.granted a:1");
    let retry = s.data("step.retry_scheduled a:1");
    assert_eq!(
        (&retry["class"], &retry["code"], &retry["free"]),
        (&json!("retryable"), &json!("lease_lost"), &json!(false))
    );
    // A new attempt has a new token; the old one is worth nothing any more.
    s.advance(6_000);
    assert!(s.token("a", 2) > token);
    let says = reason(&mut s, "file:x", "agent:a", token, WRITE);
    assert!(says.contains("is not live"), "{says}");
}

#[test]
fn r_51_the_guard_sees_the_end_of_a_lease_before_it_is_recorded() {
    let mut s = held();
    let token = s.token("a", 1);
    for (now_ms, allowed) in [(4_999, true), (5_000, false), (4_999, true)] {
        s.now_ms = now_ms;
        assert_eq!(
            s.check("file:x", "agent:a", token, WRITE).allowed,
            allowed,
            "{now_ms}"
        );
    }
    s.now_ms = 5_000;
    let says = reason(&mut s, "file:x", "agent:a", token, WRITE);
    assert_eq!(says, format!("the lease of token {token} ran out at 5000"));
    // It records nothing.
    s.expect(&[]);
}

#[test]
fn r_51_race_of_expiry_and_end_in_both_orders() {
    // A report before the lease ends stands; at its end the expiry is first, and the report is late.
    let mut s = held();
    s.now_ms = 4_999;
    assert_eq!(s.done("a", 1, "out"), "accepted completed");
    s.expect(&[
        "step.completed a:1",
        "claim.released a:1",
        "coordination.terminal",
    ]);
    let mut s = held();
    s.now_ms = 5_000;
    assert_eq!(s.done("a", 1, "out"), "late retry_wait");
    s.expect(&[
        "claim.expired a:1",
        "step.retry_scheduled a:1",
        "input.late a:1",
    ]);
}

#[test]
fn r_51_race_of_expiry_and_renewal_in_both_orders() {
    let mut s = held();
    let token = s.token("a", 1);
    s.now_ms = 4_999;
    let renewed = s.renew("a", 1, &[token]).unwrap();
    assert_eq!((renewed[0].token, renewed[0].expires_ms), (token, 9_999));
    s.expect(&["claim.renewed a:1"]);
    s.advance(9_998);
    s.expect(&[]);
    s.advance(9_999);
    s.expect(&["claim.expired a:1", "step.retry_scheduled a:1"]);
    let mut s = held();
    s.now_ms = 5_000;
    let refused = s.renew("a", 1, &[token]).unwrap_err();
    assert_eq!(brief_rejection(&refused), "not-running attempt stop");
    s.expect(&["claim.expired a:1", "step.retry_scheduled a:1"]);
}

#[test]
fn r_51_all_leases_that_are_due_expire_and_the_rest_is_given_back() {
    let mut s = Scenario::new();
    let a = step("a")
        .claim(lease("file:x", 5_000))
        .claim(lease("file:y", 5_000))
        .claim(lease("file:z", 9_000))
        .claim(lease("file:w", 9_000));
    s.plan(plan([a]));
    s.seen();
    s.advance(5_000);
    s.expect(&[
        "claim.expired a:1",
        "claim.expired a:1",
        "step.failed a:1",
        "claim.released a:1",
        "coordination.terminal",
    ]);
    let failed = s.data("step.failed a:1");
    assert_eq!(
        (&failed["class"], &failed["code"]),
        (&json!("retryable"), &json!("lease_lost"))
    );
    let left = s.data("claim.released a:1")["tokens"].clone();
    let left: Vec<u64> = left
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    assert!(left.len() == 2 && left[0] < left[1]);
}

#[test]
fn r_51_the_one_who_waits_gets_what_ran_out_in_the_same_call() {
    let mut s = Scenario::new();
    let steps = [
        step("a").claim(lease("file:x", 5_000)),
        step("b").claims("file:x"),
    ];
    s.plan(plan(steps));
    s.ack("a", 1);
    s.seen();
    s.advance(5_000);
    s.expect(&[
        "claim.expired a:1",
        "step.failed a:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
}

#[test]
fn r_51_the_guard_allows_exactly_live_grants() {
    let mut s = Scenario::new();
    let part = json!({"resource": "file:d", "leaseMs": 5_000, "baseVersion": "v1",
        "regions": [{"start": 0, "end": 10}, {"start": 10, "end": 20}]});
    let reads = json!({"resource": "queue:q", "mode": "shared", "leaseMs": 5_000});
    s.plan(plan([step("a").claim(part).claim(reads).claims("file:x")]));
    let view = s.describe("c");
    let token = |resource: &str| {
        let grants = view["steps"][0]["grants"].as_array().unwrap();
        let of = grants.iter().find(|grant| grant["resource"] == resource);
        of.unwrap()["token"].as_u64().unwrap()
    };
    let (file, queue, parts) = (token("file:x"), token("queue:q"), token("file:d"));
    s.seen();
    let verdict = s.check("file:x", "agent:a", file, WRITE);
    assert!(
        verdict.allowed && verdict.expires_ms == Some(60_000),
        "{verdict:?}"
    );
    // What lies within it, and what is written otherwise.
    assert!(s.check("file:x/y", "agent:a", file, WRITE).allowed);
    assert!(s.check("file:./x//", "agent:a", file, WRITE).allowed);
    assert!(s.check("queue:q", "agent:a", queue, Access::Read).allowed);
    for (resource, session, token, says) in [
        ("file:x", "agent:b", file, "is not that of session agent:b"),
        ("file:x", "agent:a", file + 9_999, "is not live"),
        ("file:x", "agent:a", 0, "is not live"),
        ("file:y", "agent:a", file, "is for file:x, not file:y"),
        ("file:", "agent:a", file, "is for file:x, not file:"),
        (
            "queue:q",
            "agent:a",
            queue,
            "is shared; to write takes an exclusive one",
        ),
        ("file:d", "agent:a", parts, "does not cover these regions"),
        ("file:../x", "agent:a", file, "has '..'"),
        ("x", "agent:a", file, "has no kind"),
    ] {
        let reason = reason(&mut s, resource, session, token, WRITE);
        assert!(reason.contains(says), "{resource}: {reason}");
    }
    // Regions and base version.
    let mut check = |regions: &[(u64, u64)], base: Option<&str>| {
        let call = Call::Check {
            now_ms: 0,
            resource: "file:d".into(),
            session: "agent:a".into(),
            token: parts,
            mode: WRITE,
            regions: regions
                .iter()
                .map(|&(start, end)| Region { start, end })
                .collect(),
            base_version: base.map(str::to_owned),
        };
        match s.call(&call) {
            Ok(Answer::Check(verdict)) => verdict,
            other => panic!("check: {other:?}"),
        }
    };
    assert!(
        check(&[(0, 20)], Some("v1")).allowed,
        "two parts that touch cover what lies across"
    );
    assert!(check(&[(3, 4)], None).allowed);
    assert!(!check(&[(3, 21)], None).allowed);
    assert!(!check(&[(3, 4), (30, 31)], None).allowed);
    let other = check(&[(3, 4)], Some("v2"));
    assert_eq!(other.reason, "the grant is based on v1, not v2");
    assert!(check(&[(5, 5)], None).reason.starts_with("regions"));
    s.expect(&[]);
    s.expect_out(&[]);
}

#[test]
fn r_51_the_guard_refuses_after_the_end_of_an_attempt_and_after_a_release() {
    let mut s = held();
    let token = s.token("a", 1);
    assert_eq!(s.release("a", 1, &[token]), "accepted acknowledged");
    s.expect(&["claim.released a:1"]);
    assert_eq!(
        s.data("claim.released a:1"),
        json!({"tokens": [token], "reason": "released"})
    );
    assert_eq!(s.cause("claim.released a:1"), "claim.granted a:1");
    assert!(!s.check("file:x", "agent:a", token, Access::Read).allowed);
    // Without its grant the attempt goes on, and nothing expires.
    s.advance(5_000);
    s.expect(&[]);
    let mut s = held();
    s.notice("a", 1, NoticeKind::HostLost);
    s.expect(&[
        "step.retry_scheduled a:1",
        "claim.released a:1",
        "claim.granted a:2",
        "step.dispatched a:2",
    ]);
    assert!(!s.check("file:x", "agent:a", token, Access::Read).allowed);
}

#[test]
fn r_51_a_release_lets_the_next_one_in() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a").claims("file:x"),
        step("b").claims("file:x"),
    ]));
    s.seen();
    assert_eq!(s.release("a", 1, &[]), "accepted dispatched");
    s.expect(&[
        "claim.released a:1",
        "claim.granted b:1",
        "step.dispatched b:1",
    ]);
    // Nothing is left to give back or to renew; a token that it does not hold is a mistake.
    assert_eq!(s.release("a", 1, &[]), "replayed dispatched");
    assert_eq!(s.release("a", 1, &[3]), "unknown-key tokens fix");
    assert_eq!(s.renew("a", 1, &[]).unwrap(), []);
    s.expect(&[]);
}

#[test]
fn r_35_progress_renews_leases_and_never_a_deadline() {
    let mut s = Scenario::new();
    let a = step("a")
        .claim(lease("file:x", 5_000))
        .claim(lease("file:y", 5_000));
    s.plan(plan([a.claim(lease("file:z", 9_000))]));
    s.ack("a", 1);
    s.now_ms = 4_000;
    s.seen();
    s.progress("a", 1, 1);
    // One record for each end that they get.
    s.expect(&[
        "step.progress a:1",
        "claim.renewed a:1",
        "claim.renewed a:1",
    ]);
    assert_eq!(s.cause("claim.renewed a:1"), "step.progress a:1");
    let renewed = s.data("claim.renewed a:1");
    assert_eq!(renewed["expiresMs"], 13_000);
    assert_eq!(renewed["tokens"].as_array().map(Vec::len), Some(1));
    s.advance(8_999);
    s.expect(&[]);
    assert_eq!(s.describe("c")["steps"][0]["deadlineMs"], 60_000);
    s.advance(9_000);
    assert_eq!(s.step_state("a"), "failed");
}

#[test]
fn r_59_leases_rest_while_a_person_is_asked() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").claim(lease("file:x", 5_000))]).hitl());
    s.now_ms = 3_000;
    s.ask("a", 1, 1);
    s.seen();
    let token = s.token("a", 1);
    s.advance(9_000);
    s.expect(&[]);
    let verdict = s.check("file:x", "agent:a", token, WRITE);
    assert!(
        verdict.allowed && verdict.expires_ms.is_none(),
        "{verdict:?}"
    );
    // What was left of them is left when the answer comes.
    s.approve("a");
    s.seen();
    assert_eq!(
        s.check("file:x", "agent:a", token, WRITE).expires_ms,
        Some(11_000)
    );
    s.advance(10_999);
    s.expect(&[]);
    s.advance(11_000);
    s.expect(&[
        "claim.expired a:1",
        "coordination.escalated a:1",
        "human.requested a:1",
    ]);
}

#[test]
fn r_50_every_end_of_an_attempt_gives_its_leases_back() {
    let ends: [(&str, End); 5] = [
        ("step.failed a:1", |s| {
            s.fail("a", 1, FailureClass::Permanent, "x");
        }),
        ("step.failed a:1", |s| {
            s.notice("a", 1, NoticeKind::UnknownTarget);
        }),
        ("step.timed_out a:1", |s| s.advance(30_000)),
        ("step.cancelled a:1", |s| {
            s.cancel();
            s.advance(15_000);
        }),
        ("step.completed a:1", |s| {
            s.done("a", 1, "");
        }),
    ];
    for (ended, end) in ends {
        let mut s = Scenario::new();
        s.plan(plan([step("a")
            .claims("file:x")
            .set("timeoutMs", 30_000)
            .set("ackTimeoutMs", 50_000)]));
        let token = s.token("a", 1);
        end(&mut s);
        assert_eq!(s.cause("claim.released a:1"), ended);
        assert_eq!(
            s.data("claim.released a:1"),
            json!({"tokens": [token], "reason": "ended"})
        );
        assert!(!s.check("file:x", "agent:a", token, Access::Read).allowed);
    }
}

#[test]
fn m2_timers_of_one_time_fire_by_class_whatever_their_steps_are_called() {
    use qm2_core::message::{HookKind, HookVerdict};
    let mut s = Scenario::with(|config| {
        config.max_in_flight = 9;
        config.hook_timeout_ms = 5_000;
        config.hooks = vec![HookKind::BeforeDispatch];
    });
    let human = json!({"levels": [{"timeoutMs": 5_000}]});
    // Its lease ends, its person does not answer, its hook does not, its attempt is over: all at 5 000.
    let steps = [
        step("a").claim(lease("file:x", 5_000)),
        step("b"),
        step("c"),
        step("d").set("timeoutMs", 5_000),
    ];
    s.plan(plan(steps).human(human));
    let ids: Vec<String> = s.asks.iter().map(|ask| ask.hook_id.clone()).collect();
    for id in [&ids[0], &ids[1], &ids[3]] {
        s.verdict(id, "gatekeeper", HookVerdict::NoOpinion);
    }
    s.ask("b", 1, 1);
    s.seen();
    s.advance(5_000);
    s.expect(&[
        "coordination.escalated d:1",
        "human.requested d:1",
        "hook.verdict c:1",
        "step.failed c:1",
        "human.expired b:1",
        "step.failed b:1",
        "claim.expired a:1",
        "coordination.escalated a:1",
        "human.requested a:1",
    ]);
}

#[test]
fn r_50_leases_of_extra_claims_end_with_the_attempt_as_well() {
    let mut s = held();
    let first = s.token("a", 1);
    let extra = s.claim(request("a", 1, "queue:q")).unwrap().token;
    s.seen();
    s.fail("a", 1, FailureClass::Retryable, "x");
    s.expect(&["step.retry_scheduled a:1", "claim.released a:1"]);
    assert_eq!(
        s.data("claim.released a:1")["tokens"],
        json!([first, extra])
    );
    // The retry takes what the plan declares, and no more.
    s.advance(1_000);
    assert_eq!(s.holds("a"), ["file:x"]);
}
