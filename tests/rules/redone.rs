//! Decisions made again: a ledger whose chain holds but that decides otherwise than its policy is not followed (R-43, R-64).
//!
//! Records of other kinds are forged in `load_and_fault.rs`, rows of a store in `tests/ledger.rs`.

use crate::support::*;
use qm2_core::message::{Caller, HumanVerdict, Role};
use qm2_core::receipt::{CallError, LedgerFaultKind};
use qm2_host::engine::Call;
use serde_json::{Value, json};

/// A contest that is lost, one that a person decides, a renewed lease, and one that ran out.
fn ledger() -> Vec<String> {
    let mut s = Scenario::new();
    let human = json!({"levels": [{"minRole": "operator", "timeoutMs": 9_000}]});
    s.plan(
        plan([
            step("a").set(
                "claims",
                json!([{"resource": "file:x", "leaseMs": 5_000}, {"resource": "file:y"}]),
            ),
            step("b").claims("file:x"),
            step("c").claims("file:y"),
        ])
        .set(
            "conflictPolicy",
            json!({"rules": [{"resource": "file:y", "strategy": "manual_review"}]}),
        )
        .set(
            "failurePolicy",
            json!({"escalationPolicy": "hitl", "human": human}),
        ),
    );
    let asked = s.data("coordination.escalated c:1");
    let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    s.now_ms = 100;
    s.answer(
        Caller {
            session: "user:dana".into(),
            role: Some(Role::Operator),
        },
        &text("escalationId"),
        &text("digest"),
        HumanVerdict::Approve,
        None,
    );
    s.now_ms = 200;
    s.progress("a", 1, 1);
    s.advance(5_200);
    s.lines.clone()
}

/// What replay says of lines.
fn fault_of(lines: &[String]) -> Option<(u64, LedgerFaultKind)> {
    let mut s = Scenario::blank();
    for line in lines {
        let (lines, checked) = (vec![line.clone()], false);
        match s.call(&Call::Replay { lines, checked }) {
            Err(CallError::ReadOnly(fault)) => return Some((fault.seq, fault.kind)),
            Err(other) => panic!("{other}"),
            Ok(_) => s.lines.push(line.clone()),
        }
    }
    None
}

#[test]
fn every_forged_decision_grant_and_answer_is_found_although_the_hashes_are_right() {
    let lines = ledger();
    assert_eq!(fault_of(&lines), None);
    let rows = [
        (
            "conflict.detected b:1",
            r#""priority":"normal""#,
            r#""priority":"high""#,
        ),
        ("conflict.detected b:1", r#""token":3"#, r#""token":4"#),
        (
            "conflict.detected b:1",
            r#""default":"owner_wins""#,
            r#""default":"priority_wins""#,
        ),
        (
            "conflict.detected b:1",
            r#""preempt":false"#,
            r#""preempt":true"#,
        ),
        (
            "conflict.resolved b:1",
            r#""outcome":"waits""#,
            r#""outcome":"granted""#,
        ),
        ("conflict.resolved b:1", r#""order":1"#, r#""order":2"#),
        (
            "conflict.resolved b:1",
            r#""stage":"strategy""#,
            r#""stage":"ownership""#,
        ),
        (
            "conflict.resolved c:1",
            r#""outcome":"review""#,
            r#""outcome":"refused""#,
        ),
        (
            "claim.granted a:1",
            r#""expiresMs":5000"#,
            r#""expiresMs":9000"#,
        ),
        (
            "claim.granted a:1",
            r#""session":"agent:a""#,
            r#""session":"agent:b""#,
        ),
        ("step.dispatched a:1", r#""token":3"#, r#""token":4"#),
        (
            "claim.renewed a:1",
            r#""expiresMs":5200"#,
            r#""expiresMs":5201"#,
        ),
        ("claim.expired a:1", r#""token":3"#, r#""token":4"#),
        (
            "coordination.escalated c:1",
            r#""escalationId":"e"#,
            r#""escalationId":"e1"#,
        ),
        (
            "human.requested c:1",
            r#""minRole":"operator""#,
            r#""minRole":"user""#,
        ),
        ("human.decided c:1", r#""final":true"#, r#""final":false"#),
    ];
    for (wanted, from, to) in rows {
        let at = lines.iter().position(|line| {
            let record: Value = parse(line);
            label(&record) == wanted
        });
        let seq = at.unwrap_or_else(|| panic!("no {wanted} in {lines:#?}")) + 1;
        let forged = forge(&lines, seq, |line| {
            assert!(line.contains(from), "{from} in {line}");
            line.replacen(from, to, 1)
        });
        let fault = Some((seq as u64, LedgerFaultKind::Nondeterminism));
        assert_eq!(fault_of(&forged), fault, "{wanted}: {from} to {to}");
    }
}
