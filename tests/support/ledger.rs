//! Ledger lines as SPEC section 4 wants them, and lines that somebody changed.
//!
//! The table of members is written down here a second time on purpose: it pins what the core writes.

use qm2_core::digest::{ZERO, sha256_hex};
use qm2_core::ledger::Chain;
use qm2_core::receipt::{Head, LedgerFault};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// Members of a line, in order.
const LINE: &str = "v seq atMs type coordinationId? stepId? attempt? cause? trace? data prev hash";

/// Members of `data` by type, in order; `?` may be absent.
const DATA: &[(&str, &str)] = &[
    (
        "ledger.genesis",
        "domain rules config configDigest prevDomainHead?",
    ),
    ("domain.configured", "config configDigest"),
    ("coordination.created", "rules plan planDigest caller"),
    ("step.added", "step sourceSession contentDigest"),
    (
        "step.dispatched",
        "lane targetSession deliveryMode priority deadlineMs ackDeadlineMs? tokens payloadDigest",
    ),
    ("step.acknowledged", "sourceSession contentDigest"),
    ("step.progress", "number contentDigest payload? payloadRef?"),
    (
        "step.completed",
        "implicitAck? contentType? payload? payloadRef? contentDigest by",
    ),
    (
        "step.failed",
        "implicitAck? class code message payload? payloadRef? contentDigest? attempts",
    ),
    ("step.timed_out", "deadlineMs which attempts"),
    (
        "step.retry_scheduled",
        "implicitAck? class code message contentDigest? dueMs nextAttempt free budgetLeft",
    ),
    ("step.cancelled", "by graceUsed contentDigest?"),
    ("step.skipped", "reason dependsOn"),
    (
        "claim.granted",
        "resource mode session leaseMs expiresMs claimNumber baseVersion? regions?",
    ),
    ("claim.renewed", "tokens expiresMs"),
    ("claim.released", "tokens reason"),
    ("claim.expired", "token resource"),
    (
        "conflict.detected",
        "contestId resource contenders holders policy",
    ),
    (
        "conflict.resolved",
        "contestId stage strategy outcomes reason",
    ),
    ("hook.requested", "hookId kind subjectDigest dueMs"),
    ("hook.verdict", "hookId handler verdict reason?"),
    // What stands behind the levels tells how the attempt ended, or which question of the agent it is.
    (
        "coordination.escalated",
        "escalationId kind question digest levels number? class? code? message? contentDigest?",
    ),
    (
        "human.requested",
        "escalationId level minRole required dueMs",
    ),
    (
        "human.decided",
        "escalationId actor role verdict text? final",
    ),
    ("human.expired", "escalationId level fallback? reason"),
    ("message.redelivered", "key delivery nextDueMs"),
    ("message.acknowledged", "key session"),
    ("message.undelivered", "key deliveries"),
    (
        "coordination.cancel_requested",
        "by role? reason? graceUntilMs",
    ),
    (
        "coordination.terminal",
        "terminal reason? counts planDigest",
    ),
    (
        "input.late",
        "intent part sourceSession code contentDigest payload? payloadRef?",
    ),
    (
        "input.rejected",
        "intent part sourceSession code contentDigest payload?",
    ),
];

/// Members, in order, of the objects in the lists of `data`, by type and list, and of the object `policy`.
const NESTED: &[(&str, &str, &str)] = &[
    ("step.dispatched", "tokens", "resource token"),
    ("claim.granted", "regions", "start end"),
    ("conflict.detected", "contenders", CONTENDER),
    ("conflict.detected", "holders", HOLDER),
    (
        "conflict.detected",
        "policy",
        "default rules owners highRisk preempt",
    ),
    ("conflict.resolved", "outcomes", "stepId outcome order"),
    (
        "coordination.escalated",
        "levels",
        "sessions minRole timeoutMs",
    ),
];
const CONTENDER: &str =
    "coordinationId stepId attempt session priority claimNumber mode baseVersion? regions?";
/// Without a token it waits.
const HOLDER: &str = "coordinationId stepId attempt session priority claimNumber mode baseVersion? regions? token? \
    expiresMs? preemptible?";

/// The members of a JSON object in the order of its text.
pub fn members(json: &str) -> Vec<(String, Box<RawValue>)> {
    struct Members(Vec<(String, Box<RawValue>)>);
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Members;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(Members(members))
        }
    }
    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(InOrder)
        }
    }
    let read: Members = serde_json::from_str(json).expect("an object");
    read.0
}

/// The types that SPEC section 4 names and that this version writes.
pub fn types() -> Vec<&'static str> {
    DATA.iter().map(|(type_name, _)| *type_name).collect()
}

/// Asserts that a line has its members, no others, in their order, and no null and no float.
pub fn check_form(line: &str) {
    let head = members(line);
    check_order(line, &head, LINE);
    let of = |name: &str| head.iter().find(|(member, _)| member == name);
    let type_name = of("type").map(|(_, value)| value.get().trim_matches('"').to_owned());
    let type_name = type_name.unwrap_or_default();
    let wanted = DATA.iter().find(|(name, _)| *name == type_name);
    let (_, wanted) = wanted.unwrap_or_else(|| panic!("{type_name} is no type of the SPEC"));
    let data = of("data").map(|(_, value)| value.get()).unwrap_or("{}");
    let data = members(data);
    check_order(line, &data, wanted);
    for (_, list, wanted) in NESTED.iter().filter(|(name, ..)| *name == type_name) {
        let found = data.iter().find(|(member, _)| member == list);
        let Some(text) = found.map(|(_, value)| value.get()) else {
            continue;
        };
        let entries: Vec<Box<RawValue>> = match text.starts_with('[') {
            true => serde_json::from_str(text).expect("a list"),
            false => vec![RawValue::from_string(text.to_owned()).expect("an object")],
        };
        for entry in entries {
            check_order(line, &members(entry.get()), wanted);
        }
    }
    assert_eq!(of("stepId").is_some(), of("attempt").is_some(), "{line}");
    check_values(line, &serde_json::from_str(line).expect("a line is JSON"));
}

fn check_order(line: &str, members: &[(String, Box<RawValue>)], wanted: &str) {
    let mut rest = members.iter().map(|(name, _)| name.as_str()).peekable();
    for name in wanted.split(' ') {
        let bare = name.trim_end_matches('?');
        if rest.peek() == Some(&bare) {
            rest.next();
        } else {
            assert!(name.ends_with('?'), "{bare} is not in its place in {line}");
        }
    }
    assert_eq!(rest.next(), None, "out of place in {line}");
}

fn check_values(line: &str, value: &Value) {
    match value {
        Value::Null => panic!("null in {line}"),
        Value::Number(number) => {
            let whole = number.as_u64().is_some_and(|number| number < 1 << 53);
            assert!(whole, "{number} in {line}");
        }
        Value::Array(values) => values.iter().for_each(|value| check_values(line, value)),
        Value::Object(members) => members.values().for_each(|value| check_values(line, value)),
        Value::Bool(_) | Value::String(_) => {}
    }
}

/// Asserts that following the causes up from any record of a coordination ends at its plan, or at that of the plan above it,
/// and that its records carry its id.
pub fn check_causes(lines: &[String]) {
    let records: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    for record in &records {
        let mut at = record;
        while let Some(cause) = at["cause"].as_u64() {
            assert!(
                cause >= 1 && cause < at["seq"].as_u64().unwrap_or(0),
                "{at}"
            );
            let parent = &records[cause as usize - 1];
            // A child plan, and its cancel by its parent, come from records of the plan above it.
            let crosses = matches!(
                at["type"].as_str(),
                Some("coordination.created" | "coordination.cancel_requested")
            );
            let same = parent["coordinationId"] == at["coordinationId"];
            assert!(same || crosses, "{at} comes from {parent}");
            at = parent;
        }
        let root = match record["coordinationId"].is_string() {
            true => "coordination.created",
            false => "ledger.genesis",
        };
        assert_eq!(at["type"], root, "the chain of causes of {record}");
    }
}

/// Verifies a ledger natively.
pub fn chain_of(lines: &[String]) -> Result<Head, LedgerFault> {
    let mut chain = Chain::default();
    for line in lines {
        chain.push(line)?;
    }
    Ok(chain.head)
}

/// Changes one line and makes all hashes right again, as somebody could who wants to deceive.
pub fn forge(lines: &[String], seq: usize, change: impl FnOnce(&str) -> String) -> Vec<String> {
    let mut forged = lines.to_vec();
    forged[seq - 1] = change(&forged[seq - 1]);
    reseal(&forged)
}

/// Gives every line the right `prev` and `hash`.
pub fn reseal(lines: &[String]) -> Vec<String> {
    let mut prev = ZERO.to_owned();
    let reseal = |line: &String| {
        let at = line.rfind(",\"prev\":").expect("a line has a prev");
        let body = format!("{},\"prev\":\"{prev}\"", &line[..at]);
        let hash = sha256_hex(&[body.as_bytes(), b"}"]);
        prev.clone_from(&hash);
        format!("{body},\"hash\":\"{hash}\"}}")
    };
    lines.iter().map(reseal).collect()
}
