//! The feature gate, configure, and the reading exports.

use crate::support::*;
use qm2_core::arbitration::{Contest, Policy};
use qm2_core::claim::Access;
use qm2_core::envelope::FailureClass;
use qm2_core::message::{HookVerdict, HumanVerdict};
use qm2_core::receipt::{CallError, Head};
use qm2_host::engine::{Answer, Call};
use serde_json::json;

#[test]
fn gate_off_only_configure_and_the_reading_exports_work() {
    let mut s = Scenario::blank();
    let id = String::new();
    let (caller, now_ms) = (caller(OWNER), 1);
    let gated = [
        Call::SubmitPlan {
            caller: caller.clone(),
            now_ms,
            plan: plan([step("a")]).text(),
        },
        Call::Submit {
            caller: caller.clone(),
            now_ms,
            envelopes: vec![ack("a", 1)],
        },
        Call::Acknowledge {
            caller,
            now_ms,
            keys: vec!["report:1".into()],
        },
        Call::Advance { now_ms },
        Call::NextDeadline,
        Call::Verdict {
            now_ms,
            hook_id: "h1".into(),
            handler: "g".into(),
            verdict: HookVerdict::NoOpinion,
        },
        Call::Answer {
            actor: dana(),
            now_ms,
            escalation_id: "e1".into(),
            digest: String::new(),
            verdict: HumanVerdict::Approve,
            text: None,
        },
        Call::Claim {
            caller: dana(),
            now_ms,
            request: request("a", 1, "file:x"),
        },
        Call::Renew {
            caller: dana(),
            now_ms,
            coordination_id: "c".into(),
            step_id: "a".into(),
            attempt: 1,
            tokens: Vec::new(),
        },
        Call::Release {
            caller: dana(),
            now_ms,
            coordination_id: "c".into(),
            step_id: "a".into(),
            attempt: 1,
            tokens: Vec::new(),
        },
        Call::Check {
            now_ms,
            resource: "file:x".into(),
            session: "agent:a".into(),
            token: 1,
            mode: Access::Write,
            regions: Vec::new(),
            base_version: None,
        },
        Call::Notice {
            now_ms,
            notices: Vec::new(),
        },
        Call::Reconcile,
    ];
    let arbitrate = Call::Arbitrate {
        contest: Contest {
            resource: "file:x".into(),
            at_ms: 0,
            contenders: Vec::new(),
            holders: Vec::new(),
        },
        policy: Policy::default(),
    };
    let disabled = |s: &mut Scenario| {
        for call in &gated {
            assert_eq!(s.call(call), Err(CallError::Disabled), "{}", call.name());
        }
        assert!(s.call(&Call::Head).is_ok());
        assert!(s.call(&Call::StateDigest).is_ok());
        // A pure function, which knows no state.
        assert!(s.call(&arbitrate).is_ok());
        assert!(s.call(&Call::Describe { id: id.clone() }).is_ok());
        assert!(
            s.call(&Call::Snapshot {
                cursor: None,
                max_bytes: 1
            })
            .is_ok()
        );
    };
    // Never configured, and configured with the default, which is off.
    disabled(&mut s);
    assert_eq!(s.call(&Call::Head), Ok(Answer::Head(Head::default())));
    s.configure_text(r#"{"domain":"d"}"#).unwrap();
    s.expect(&["ledger.genesis"]);
    assert_eq!(
        s.data("ledger.genesis")["config"]["phase1"]["enabled"],
        false
    );
    disabled(&mut s);
    s.expect(&[]);
}

#[test]
fn gate_off_timers_rest_and_go_on_when_it_is_on_again() {
    let mut s = Scenario::new();
    s.plan(plan([step("a").set("timeoutMs", 1_000)]));
    s.configure(|config| config.phase1.enabled = false).unwrap();
    s.seen();
    assert_eq!(s.advance_once(5_000), Err(CallError::Disabled));
    assert_eq!(s.describe("c")["state"], "open");
    assert!(
        s.call(&Call::ExplainWait {
            id: "c".into(),
            step_id: "a".into()
        })
        .is_ok()
    );
    s.expect(&[]);
    s.configure(|_| {}).unwrap();
    s.advance(6_000);
    s.expect(&[
        "domain.configured",
        "step.timed_out a:1",
        "coordination.terminal",
    ]);
}

#[test]
fn configure_opens_the_ledger_once_and_records_only_changes() {
    let mut s = Scenario::blank();
    s.configure(|_| {}).unwrap();
    s.expect(&["ledger.genesis"]);
    let genesis = s.data("ledger.genesis");
    assert_eq!(
        (&genesis["domain"], &genesis["rules"]),
        (&json!("d"), &json!(1))
    );
    s.configure(|_| {}).unwrap();
    // Defaults that are written out are the same content.
    s.configure_text(r#"{"maxInFlight":4,"phase1":{"enabled":true},"domain":"d"}"#)
        .unwrap();
    s.expect(&[]);
    s.configure(|config| config.max_in_flight = 9).unwrap();
    s.configure(|config| config.max_in_flight = 8).unwrap();
    s.expect(&["domain.configured", "domain.configured"]);
    assert_eq!(s.cause("domain.configured"), "domain.configured");
    assert_eq!(s.data("domain.configured")["config"]["maxInFlight"], 8);
    let before = s.digest();
    for wrong in [
        r#"{"domain":"other"}"#,
        r#"{"domain":"d","colour":1}"#,
        "{",
        r#"{"domain":"d","maxInFlight":0}"#,
    ] {
        let refused = s.configure_text(wrong);
        assert!(
            matches!(refused, Err(CallError::InvalidConfig(_))),
            "{wrong}: {refused:?}"
        );
    }
    assert_eq!(s.digest(), before);
    s.expect(&[]);
}

#[test]
fn configure_can_continue_another_ledger_and_only_from_its_start() {
    let hash = "ab".repeat(32);
    let mut s = Scenario::blank();
    s.configure(|config| config.prev_domain_head = Some(hash.clone()))
        .unwrap();
    assert_eq!(s.data("ledger.genesis")["prevDomainHead"], json!(hash));
    let refused = s.configure(|_| {});
    assert!(
        matches!(refused, Err(CallError::InvalidConfig(_))),
        "{refused:?}"
    );
}

#[test]
fn describe_and_explain_wait_say_what_there_is_and_what_is_unknown() {
    let mut s = Scenario::new();
    s.plan(
        plan([step("a"), step("b").after("a")])
            .set("deadlineMs", 100_000)
            .retries(3, &[7_000]),
    );
    let view = s.describe("c");
    assert_eq!(view["objective"], "show a rule");
    assert_eq!(
        (
            &view["createdSeq"],
            &view["deadlineMs"],
            &view["retryBudget"]
        ),
        (&json!(2), &json!(100_000), &json!(3))
    );
    let a = json!({"stepId": "a", "targetSession": "agent:a", "state": "dispatched", "attempt": 1,
        "deadlineMs": 60_000, "ackDeadlineMs": 30_000});
    assert_eq!(view["steps"][0], a);
    assert_eq!(s.waits_for("a")["kind"], "ack");
    assert_eq!(s.waits_for("b")["kind"], "dependencies");
    s.ack("a", 1);
    assert_eq!(s.waits_for("a")["kind"], "report");
    s.fail("a", 1, FailureClass::Retryable, "x");
    let wait = s.waits_for("a");
    assert_eq!(
        (&wait["kind"], &wait["dueMs"]),
        (&json!("retry"), &json!(7_000))
    );
    assert!(wait["text"].as_str().unwrap().contains("x happened"));
    s.advance(7_000);
    s.done("a", 2, "");
    assert_eq!(s.waits_for("a")["kind"], "nothing");
    let domain = s.describe("");
    assert_eq!(
        domain["coordinations"],
        json!([{"coordinationId": "c", "state": "open"}])
    );
    for (id, step_id) in [("c", "nobody"), ("nowhere", "a")] {
        let (id, step_id) = (id.to_owned(), step_id.to_owned());
        let answer = s.call(&Call::ExplainWait { id, step_id });
        assert!(matches!(answer, Err(CallError::Unknown(_))), "{answer:?}");
    }
    let answer = s.call(&Call::Describe {
        id: "nowhere".into(),
    });
    assert!(matches!(answer, Err(CallError::Unknown(_))), "{answer:?}");
}

#[test]
fn gate_off_leases_hooks_and_questions_rest() {
    let mut s = Scenario::new();
    let claim = json!({"resource": "file:x", "leaseMs": 1_000});
    s.plan(plan([step("a").claim(claim), step("b")]).hitl());
    s.ask("b", 1, 1);
    s.configure(|config| config.phase1.enabled = false).unwrap();
    s.seen();
    assert_eq!(s.advance_once(20_000), Err(CallError::Disabled));
    assert_eq!(s.step_state("b"), "waiting_human");
    s.configure(|_| {}).unwrap();
    s.seen();
    s.advance(20_000);
    s.expect(&[
        "claim.expired a:1",
        "coordination.escalated a:1",
        "human.requested a:1",
        "human.expired b:1",
        "step.failed b:1",
    ]);
}
