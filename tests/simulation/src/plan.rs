//! Random plans and configurations: shapes, policies, claims, deadlines, priorities, people.
//!
//! Every plan drawn is whole; what is refused is drawn in [`crate::world`].

use crate::random::Random;
use serde_json::{Value, json};

/// Resources that steps contend for: some lie in others.
pub const RESOURCES: [&str; 7] = [
    "file:a",
    "file:a/b",
    "file:a/c",
    "file:a/b/d",
    "queue:q",
    "file:e",
    "session:s",
];
const STRATEGIES: [&str; 4] = [
    "owner_wins",
    "priority_wins",
    "merge_if_safe",
    "manual_review",
];
const PRIORITIES: [&str; 4] = ["low", "normal", "high", "critical"];

/// What kind of runs are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Taste {
    /// Steps of a plan at most.
    pub steps: u64,
    /// Per mille of steps that claim something.
    pub claims: u64,
    /// Per mille of plans that ask people.
    pub people: u64,
    /// Per mille of work that dies with its host, which says so.
    pub deaths: u64,
}

/// A configuration of a domain, with the gate on.
#[must_use]
pub fn config(random: &mut Random) -> Value {
    let hooks: Vec<&str> = [
        ("before_dispatch", 150),
        ("before_arbitrate", 150),
        ("escalation_requested", 300),
        ("step_ended", 300),
        ("coordination_ended", 300),
        ("message_undelivered", 300),
    ]
    .iter()
    .filter(|(_, chance)| random.chance(*chance))
    .map(|(kind, _)| *kind)
    .collect();
    let mut config = json!({
        "domain": "sim",
        "phase1": {"enabled": true},
        "maxInFlight": random.within(1, 6),
        "sessionInFlight": random.within(1, 2),
        "ackTimeoutMs": random.pick(&[400, 5_000, 30_000]),
        "cancelGraceMs": random.pick(&[0, 900, 15_000]),
        "cleanupGraceMs": random.pick(&[0, 2_000, 60_000]),
        "hookTimeoutMs": random.pick(&[300, 15_000]),
        "hooks": hooks,
    });
    if random.chance(200) {
        let session = format!("agent:{}", random.below(4));
        config["owners"] = json!([{"resource": "file:a/**", "session": session}]);
    }
    if random.chance(150) {
        config["highRisk"] = json!(["queue:*"]);
    }
    config
}

fn claims(random: &mut Random) -> Vec<Value> {
    let mut claims: Vec<Value> = Vec::new();
    for resource in RESOURCES {
        if !random.chance(280) || claims.len() > 2 {
            continue;
        }
        let mut claim = json!({
            "resource": resource,
            "mode": random.pick(&["exclusive", "exclusive", "shared"]),
            "leaseMs": random.pick(&[300, 4_000, 30_000, 120_000]),
        });
        if random.chance(400) {
            claim["baseVersion"] = format!("v{}", random.below(2)).into();
            let start = random.below(3) * 10;
            claim["regions"] = json!([{"start": start, "end": start + 10}]);
        }
        claims.push(claim);
    }
    claims
}

fn step(random: &mut Random, index: u64, taste: Taste) -> Value {
    let mut edges: Vec<Value> = Vec::new();
    for parent in 0..index {
        if random.chance(300) {
            let on = random.pick(&["success", "success", "success", "failure", "always"]);
            edges.push(json!({"stepId": format!("s{parent}"), "on": on}));
        }
    }
    let best_effort = random.chance(120);
    let mut step = json!({
        "stepId": format!("s{index}"),
        "targetSession": format!("agent:{}", random.below(4)),
        "dependsOn": edges,
        "join": random.pick(&["all", "all", "any"]),
        "timeoutMs": random.pick(&[400, 3_000, 20_000, 60_000, 300_000]),
        "payload": format!("work {index}"),
    });
    if best_effort {
        step["deliveryMode"] = "best_effort".into();
    } else {
        step["idempotent"] = random.chance(750).into();
    }
    if random.chance(300) {
        step["priority"] = random.pick(&PRIORITIES).into();
    }
    if random.chance(300) {
        step["ackTimeoutMs"] = random.pick(&[200, 2_000]).into();
    }
    if random.chance(300) && !best_effort {
        step["maxAttempts"] = random.within(1, 3).into();
    }
    if random.chance(80) {
        step["required"] = true.into();
    }
    if random.chance(100) {
        step["cleanup"] = true.into();
    }
    if random.chance(300) {
        step["risk"] = "low".into();
    }
    if random.chance(120) {
        let fields: Vec<&str> = if random.chance(500) {
            vec!["ok"]
        } else {
            vec![]
        };
        step["expectedOutput"] =
            json!({"requiredFields": fields, "allowEmpty": random.chance(500)});
    }
    if random.chance(taste.claims) {
        step["claims"] = claims(random).into();
    }
    step
}

fn conflict_policy(random: &mut Random) -> Value {
    let mut policy = json!({
        "default": random.pick(&STRATEGIES),
        "preempt": random.chance(300),
    });
    if random.chance(300) {
        policy["rules"] = json!([{"resource": "file:a/*", "strategy": random.pick(&STRATEGIES)}]);
    }
    if random.chance(200) {
        let session = format!("agent:{}", random.below(4));
        policy["owners"] = json!([{"resource": "file:**", "session": session}]);
    }
    if random.chance(80) {
        policy["highRisk"] = json!(["queue:*"]);
    }
    policy
}

/// A plan of this id, owned by this session.
#[must_use]
pub fn plan(random: &mut Random, id: &str, owner: &str, now_ms: u64, taste: Taste) -> Value {
    let count = random.within(1, taste.steps);
    let steps: Vec<Value> = (0..count).map(|index| step(random, index, taste)).collect();
    let mut plan = json!({
        "coordinationId": id,
        "objective": "be simulated",
        "ownerSession": owner,
        "steps": steps,
        "priority": random.pick(&PRIORITIES),
        "reports": random.pick(&["end", "failures", "all"]),
        "conflictPolicy": conflict_policy(random),
        "failurePolicy": {
            "retryBudget": random.pick(&[0, 1, 2, 5]),
            "timeoutPolicy": random.pick(&["fail_fast", "continue_with_partial"]),
            "backoffMs": random.pick(&[vec![0], vec![500, 4_000], vec![5_000, 25_000, 120_000]]),
        },
    });
    let has_deadline = random.chance(450);
    if has_deadline {
        plan["deadlineMs"] = (now_ms + random.pick(&[900, 12_000, 90_000, 900_000])).into();
    }
    if random.chance(250) {
        plan["cancelGraceMs"] = random.pick(&[0, 500]).into();
        plan["cleanupGraceMs"] = random.pick(&[0, 1_500]).into();
    }
    if random.chance(taste.people) {
        let level = |random: &mut Random| {
            let sessions = ["user:a", "user:b"][..random.below(3) as usize].to_vec();
            json!({
                "sessions": sessions,
                "minRole": random.pick(&["operator", "admin"]),
                "timeoutMs": random.pick(&[700, 20_000, 120_000]),
            })
        };
        let levels: Vec<Value> = (0..random.within(1, 2)).map(|_| level(random)).collect();
        let fallbacks: &[&str] = match has_deadline {
            true => &["deny", "allow", "block"],
            false => &["deny", "allow"],
        };
        plan["failurePolicy"]["escalationPolicy"] = "hitl".into();
        plan["failurePolicy"]["human"] = json!({
            "levels": levels,
            "requiredApprovals": random.within(1, 2),
            "fallback": random.pick(fallbacks),
        });
    }
    plan
}
