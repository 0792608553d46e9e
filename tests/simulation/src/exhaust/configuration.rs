//! The small configurations that are explored, and what can happen in each.
//!
//! Durations and all other numbers stay clear of those that records have; see [`super::normal::FROM`].

use super::scope::Input::{self, *};
use super::scope::Scope;
use super::situation::BEGIN_MS;
use serde_json::{Value, json};

const OWNER: &str = "user:own";

/// A configuration of a domain in which little happens by itself.
fn config(more: Value) -> Value {
    let mut config = json!({
        "domain": "sim",
        "phase1": {"enabled": true},
        "ackTimeoutMs": 60_000,
        "cancelGraceMs": 500,
        "cleanupGraceMs": 900,
        "hookTimeoutMs": 300,
    });
    merge(&mut config, more);
    config
}

fn merge(value: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    for (name, member) in more {
        value[name] = member;
    }
}

/// A plan `c` of these steps, without a person to ask.
fn plan(steps: Vec<Value>, more: Value) -> Value {
    let mut plan = json!({
        "coordinationId": "c",
        "objective": "be explored",
        "ownerSession": OWNER,
        "reports": "end",
        "steps": steps,
        "failurePolicy": {"backoffMs": [400]},
    });
    merge(&mut plan, more);
    plan
}

/// A step with a session of its own.
fn step(id: &str, more: Value) -> Value {
    let mut step = json!({
        "stepId": id,
        "targetSession": format!("agent:{id}"),
        "timeoutMs": 1_500,
        "payload": "work",
    });
    merge(&mut step, more);
    step
}

fn after(edges: &[(&str, &str)]) -> Value {
    edges
        .iter()
        .map(|(id, on)| json!({"stepId": id, "on": on}))
        .collect()
}

/// A failure policy with two people at two levels, so many of whom have to approve, and this fallback.
fn people(fallback: &str, required: u64) -> Value {
    let level =
        |session: &str| json!({"sessions": [session], "minRole": "operator", "timeoutMs": 800});
    json!({"failurePolicy": {
        "backoffMs": [400],
        "escalationPolicy": "hitl",
        "human": {
            "levels": [level("user:a"), level("user:b")],
            "requiredApprovals": required,
            "fallback": fallback,
        },
    }})
}

/// One retry for all, after 400 ms.
fn one_retry() -> Value {
    json!({"failurePolicy": {"retryBudget": 1, "backoffMs": [400]}})
}

fn with(mut value: Value, more: Value) -> Value {
    merge(&mut value, more);
    value
}

fn claim(resource: &str, lease_ms: u64) -> Value {
    json!({"claims": [{"resource": resource, "leaseMs": lease_ms}]})
}

/// Other inputs where more is to happen.
fn more(scope: Scope, is_deep: bool, inputs: impl IntoIterator<Item = Input>) -> Scope {
    if is_deep { scope.once(inputs) } else { scope }
}

const YES: [Input; 2] = [
    Answer(0, "user:a=operator", "approve"),
    Answer(0, "user:b=operator", "approve"),
];
const NO: Input = Answer(0, "user:b=operator", "deny");

/// All of them, in their order; `is_deep` lets more happen.
#[must_use]
pub fn all(is_deep: bool) -> Vec<Scope> {
    let mut all = vec![retry(is_deep), redelivery(is_deep), plan_again(is_deep)];
    for join in ["all", "any"] {
        all.push(fan_in(join, is_deep));
    }
    all.push(plan_deadline(is_deep));
    for strategy in [
        "owner_wins",
        "priority_wins",
        "merge_if_safe",
        "manual_review",
    ] {
        all.push(contenders(strategy, is_deep));
    }
    all.extend([unsafe_merge(is_deep), shared(is_deep), circle(is_deep)]);
    all.extend([preemption(is_deep), lease(is_deep)]);
    for fallback in ["deny", "allow", "block"] {
        all.push(exhausted(fallback, is_deep));
        all.push(question(fallback, is_deep));
    }
    all.extend([unknown_effect(is_deep), review(is_deep)]);
    all.extend([cancel_plan(is_deep), cancel_step(is_deep)]);
    for on_close in ["cancel", "abandon"] {
        all.push(child(on_close, is_deep));
    }
    all.extend([
        added(is_deep),
        hook_dispatch(is_deep),
        hook_arbitrate(is_deep),
    ]);
    all.extend([best_effort(is_deep), slots(is_deep)]);
    all
}

/// Two steps in a row, one retry: reports that race with each other, with their repeats and with deadlines.
fn retry(is_deep: bool) -> Scope {
    let steps = vec![
        step("a", json!({})),
        step("b", json!({"dependsOn": after(&[("a", "success")])})),
    ];
    let scope = Scope::new("retry", config(json!({})), vec![plan(steps, one_retry())])
        .unheard()
        .twice([Done("c:a:1", "x")])
        .once([
            Failed("c:a:1", "retryable"),
            Done("c:a:1", "y"),
            Done("c:a:2", "x"),
        ])
        .once([Done("c:b:1", "x"), Due]);
    if !is_deep {
        return scope;
    }
    scope
        .once([Forged("c:a:1"), Acknowledge(OWNER)])
        .early([Done("c:b:1", "x")])
}

/// One step that is not heard of: redeliveries, their ends, and acks and reports between them.
fn redelivery(is_deep: bool) -> Scope {
    let one = step("a", json!({"timeoutMs": 9_000_000, "ackTimeoutMs": 700}));
    let scope = Scope::new(
        "redelivery",
        config(json!({})),
        vec![plan(vec![one], json!({}))],
    )
    .unheard()
    .twice([Ack("c:a:1")])
    .once([
        Done("c:a:1", "x"),
        Failed("c:a:1", "unknown"),
        Due,
        Acknowledge(OWNER),
    ]);
    more(scope, is_deep, [Progress("c:a:1", 1), HostLost("c:a:1")])
}

/// A plan that is submitted at any time, again, and with other content.
fn plan_again(is_deep: bool) -> Scope {
    let one = plan(vec![step("a", json!({}))], one_retry());
    let other = with(one.clone(), json!({"objective": "be another"}));
    let scope = Scope::new("plan-again", config(json!({})), vec![one, other])
        .opening(0)
        .unheard()
        .twice([Plan(0)])
        .once([
            Plan(1),
            Done("c:a:1", "x"),
            Failed("c:a:1", "retryable"),
            Acknowledge(OWNER),
        ])
        .early([Done("c:a:2", "x")]);
    more(scope, is_deep, [Cancel("c", None, OWNER), Due])
}

/// Fan-in of two steps, under fail_fast, with cleanup behind it.
fn fan_in(join: &str, is_deep: bool) -> Scope {
    let edges = after(&[("a", "success"), ("b", "success")]);
    let steps = vec![
        step("a", json!({})),
        step("b", json!({})),
        step("j", json!({"dependsOn": edges, "join": join})),
        step(
            "z",
            json!({"dependsOn": after(&[("j", "always")]), "cleanup": true}),
        ),
    ];
    let policy = json!({"failurePolicy": {"timeoutPolicy": "fail_fast", "backoffMs": [400]}});
    let name = format!("fan-in-{join}");
    let scope = Scope::new(&name, config(json!({})), vec![plan(steps, policy)])
        .once([
            Done("c:a:1", "x"),
            Failed("c:a:1", "permanent"),
            Done("c:b:1", "x"),
        ])
        .once([
            Failed("c:b:1", "permanent"),
            Done("c:j:1", "x"),
            Done("c:z:1", "x"),
            Due,
        ]);
    let more_of_it = [
        Failed("c:j:1", "retryable"),
        Ack("c:z:1"),
        Cancel("c", None, OWNER),
    ];
    more(scope, is_deep, more_of_it)
}

/// The plan's deadline comes before those of its steps, and cleanup after it.
fn plan_deadline(is_deep: bool) -> Scope {
    let steps = vec![
        step("a", json!({})),
        step("b", json!({"dependsOn": after(&[("a", "always")])})),
        step(
            "z",
            json!({"dependsOn": after(&[("b", "always")]), "cleanup": true}),
        ),
    ];
    let policy = with(one_retry(), json!({"deadlineMs": BEGIN_MS + 900}));
    let scope = Scope::new(
        "plan-deadline",
        config(json!({})),
        vec![plan(steps, policy)],
    )
    .once([
        Done("c:a:1", "x"),
        Failed("c:a:1", "retryable"),
        Done("c:b:1", "x"),
    ])
    .once([
        Done("c:z:1", "x"),
        Failed("c:z:1", "retryable"),
        Later(300),
        Due,
    ]);
    more(
        scope,
        is_deep,
        [Cancel("c", None, OWNER), Ack("c:a:1"), Done("c:z:2", "x")],
    )
}

/// Two steps want one resource for themselves.
fn contenders(strategy: &str, is_deep: bool) -> Scope {
    let part = |start: u64| {
        let regions = json!([{"start": start, "end": start + 10}]);
        json!({"claims": [
            {"resource": "file:x", "leaseMs": 900, "baseVersion": "v", "regions": regions}
        ]})
    };
    let (one, other) = match strategy {
        "merge_if_safe" => (part(0), part(10)),
        "priority_wins" => (
            claim("file:x", 900),
            with(claim("file:x", 900), json!({"priority": "high"})),
        ),
        _ => (claim("file:x", 900), claim("file:x", 900)),
    };
    let policy = json!({"conflictPolicy": {
        "default": strategy,
        "owners": [{"resource": "file:*", "session": "agent:b"}],
    }});
    let mut whole = plan(
        vec![step("a", one), step("b", other)],
        with(one_retry(), policy),
    );
    if strategy == "manual_review" {
        merge(&mut whole, people("deny", 1));
        whole["failurePolicy"]["retryBudget"] = 1.into();
    }
    let name = format!("contenders-{}", strategy.replace('_', "-"));
    let scope = Scope::new(&name, config(json!({})), vec![whole])
        .once([Done("c:a:1", "x"), Failed("c:a:1", "retryable")])
        .once([Done("c:b:1", "x")]);
    let scope = match strategy {
        "manual_review" => more(scope.once([YES[0].clone(), NO]), is_deep, [Due]),
        _ => scope
            .once([Renew("c:a:1"), Release("c:a:1")])
            .once([Done("c:a:2", "x"), Due]),
    };
    let more_of_it = [
        Progress("c:a:1", 1),
        Later(100),
        Failed("c:b:1", "retryable"),
    ];
    more(scope, is_deep && strategy != "manual_review", more_of_it)
}

/// Two steps whose parts of a resource meet, and nobody to ask; and a plan that does ask.
fn unsafe_merge(is_deep: bool) -> Scope {
    let part = |start: u64| {
        let regions = json!([{"start": start, "end": start + 10}]);
        json!({"claims": [
            {"resource": "file:x", "leaseMs": 900, "baseVersion": "v", "regions": regions}
        ]})
    };
    let policy = json!({"conflictPolicy": {"default": "merge_if_safe"}});
    let steps = vec![step("a", part(0)), step("b", part(5)), step("d", part(10))];
    let whole = plan(steps, with(people("deny", 1), policy));
    let scope = Scope::new("merge-unsafe", config(json!({})), vec![whole])
        .once([Done("c:a:1", "x"), Done("c:b:1", "x"), Done("c:d:1", "x")])
        .once([YES[0].clone(), NO, Due]);
    more(
        scope,
        is_deep,
        [Later(100), Cancel("c", None, OWNER), Unreachable(0, 1)],
    )
}

/// Those that share a resource, one that wants it alone, and one that wants a part of it alone.
fn shared(is_deep: bool) -> Scope {
    let share = json!({"claims": [{"resource": "file:x", "mode": "shared", "leaseMs": 900}]});
    let steps = vec![
        step("a", share.clone()),
        step("b", claim("file:x", 900)),
        step("d", claim("file:x/y", 900)),
        step(
            "e",
            with(share, json!({"dependsOn": after(&[("a", "always")])})),
        ),
    ];
    let scope = Scope::new("shared", config(json!({})), vec![plan(steps, json!({}))])
        .once([
            Done("c:a:1", "x"),
            Done("c:b:1", "x"),
            Done("c:d:1", "x"),
            Done("c:e:1", "x"),
        ])
        .once([Renew("c:a:1"), Due]);
    more(
        scope,
        is_deep,
        [Later(100), Release("c:b:1"), Cancel("c", Some("b"), OWNER)],
    )
}

/// Two steps that each come first on one of two resources that both want.
fn circle(is_deep: bool) -> Scope {
    let both = || {
        json!({"claims": [
            {"resource": "file:x", "leaseMs": 900},
            {"resource": "file:y", "leaseMs": 900},
        ]})
    };
    let policy = json!({"conflictPolicy": {"owners": [
        {"resource": "file:x", "session": "agent:d"},
        {"resource": "file:y", "session": "agent:b"},
    ]}});
    let steps = vec![step("a", both()), step("b", both()), step("d", both())];
    let scope = Scope::new(
        "circle",
        config(json!({})),
        vec![plan(steps, with(one_retry(), policy))],
    )
    .once([Done("c:a:1", "x"), Done("c:b:1", "x"), Done("c:d:1", "x")])
    .once([Failed("c:a:1", "retryable"), Renew("c:a:1"), Due]);
    more(
        scope,
        is_deep,
        [Later(100), Release("c:a:1"), Cancel("c", Some("b"), OWNER)],
    )
}

/// A plan of higher priority takes a resource from one of lower.
fn preemption(is_deep: bool) -> Scope {
    let policy = |priority: &str| {
        json!({
            "priority": priority,
            "conflictPolicy": {"default": "priority_wins", "preempt": true},
        })
    };
    let low = plan(vec![step("a", claim("file:x", 900))], policy("low"));
    let high = plan(vec![step("b", claim("file:x", 900))], policy("critical"));
    let high = with(high, json!({"coordinationId": "d"}));
    let scope = Scope::new("preemption", config(json!({})), vec![low, high])
        .opening(1)
        .once([
            Plan(1),
            Ack("c:a:1"),
            Done("c:a:1", "x"),
            Failed("c:a:1", "retryable"),
        ])
        .once([
            HostLost("c:a:1"),
            Done("d:b:1", "x"),
            Done("c:a:2", "x"),
            Due,
        ]);
    let more_of_it = [
        Cancel("d", None, OWNER),
        Cancel("c", None, OWNER),
        Later(100),
    ];
    more(scope, is_deep, more_of_it)
}

/// A lease that is renewed, given back, lost, and wanted by another step.
fn lease(is_deep: bool) -> Scope {
    let steps = vec![
        step("a", claim("file:x", 600)),
        step("b", claim("file:x", 600)),
    ];
    let scope = Scope::new("lease", config(json!({})), vec![plan(steps, one_retry())])
        .once([
            Renew("c:a:1"),
            Done("c:a:1", "x"),
            Claim("c:a:1", "file:y", 300),
        ])
        .once([Done("c:b:1", "x"), Later(250), Due]);
    let more_of_it = [
        Renew("c:a:1"),
        Progress("c:a:1", 1),
        Release("c:a:1"),
        Done("c:a:2", "x"),
        Claim("c:b:1", "file:y", 300),
    ];
    more(scope, is_deep, more_of_it)
}

/// A person decides whether there is another attempt.
fn exhausted(fallback: &str, is_deep: bool) -> Scope {
    let name = format!("human-exhausted-{fallback}");
    let scope = asking(&name, fallback, json!({"risk": "low"}), json!({}))
        .once([Failed("c:a:1", "retryable"), Done("c:a:2", "x")])
        .once([NO, Unreachable(0, 1), Due]);
    let more_of_it = [
        Done("c:a:1", "x"),
        StaleAnswer(0, "user:a=operator"),
        Cancel("c", None, OWNER),
        Later(100),
    ];
    more(scope, is_deep, more_of_it)
}

/// A running step asks a person.
fn question(fallback: &str, is_deep: bool) -> Scope {
    let step = with(claim("file:x", 900), json!({"risk": "low"}));
    let name = format!("human-question-{fallback}");
    let scope = asking(&name, fallback, step, json!({}))
        .once([Ask("c:a:1", 1), Done("c:a:1", "x"), NO, Due])
        .once([Cancel("c", None, OWNER)]);
    let more_of_it = [Renew("c:a:1"), Unreachable(0, 1), HostLost("c:a:1")];
    more(scope, is_deep, more_of_it)
}

/// A person says whether what nobody knows of has happened.
fn unknown_effect(is_deep: bool) -> Scope {
    let scope = asking(
        "human-unknown",
        "deny",
        json!({"idempotent": false}),
        json!({}),
    )
    .once([
        Failed("c:a:1", "unknown"),
        HostLost("c:a:1"),
        Done("c:a:1", "x"),
    ])
    .once([
        Answer(0, "user:a=operator", "completed"),
        YES[1].clone(),
        NO,
    ])
    .once([Done("c:a:2", "x"), Due]);
    let more_of_it = [Unreachable(0, 1), Cancel("c", None, OWNER), Later(100)];
    more(scope, is_deep, more_of_it)
}

/// A hook wants a person to look first.
fn review(is_deep: bool) -> Scope {
    let hooks = json!({"hooks": ["before_dispatch"]});
    let scope = asking("human-review", "deny", json!({}), hooks)
        .once([Verdict(0, "review"), Done("c:a:1", "x"), YES[0].clone(), NO])
        .once([Cancel("c", None, OWNER), Unreachable(0, 1), Due]);
    let more_of_it = [
        Answer(0, OWNER, "approve"),
        Answer(0, "user:d=user", "approve"),
        Later(100),
    ];
    more(scope, is_deep, more_of_it)
}

/// One step about which two people are asked; both have to approve where a denial is the fallback.
fn asking(name: &str, fallback: &str, of_step: Value, of_domain: Value) -> Scope {
    let required = if fallback == "deny" { 2 } else { 1 };
    let mut whole = plan(vec![step("a", of_step)], people(fallback, required));
    // Where nobody denies, the plan's deadline alone ends it.
    if fallback != "deny" {
        whole["deadlineMs"] = (BEGIN_MS + 3_500).into();
    }
    let enough = usize::try_from(required).unwrap_or(YES.len());
    let scope = Scope::new(name, config(of_domain), vec![whole]);
    match name {
        // They say something else there.
        "human-unknown" | "human-review" => scope,
        _ => scope.once(YES[..enough].iter().cloned()),
    }
}

/// A cancel of the whole plan, by its owner and by others, against everything else.
fn cancel_plan(is_deep: bool) -> Scope {
    let steps = vec![
        step("a", json!({})),
        step("b", json!({"dependsOn": after(&[("a", "success")])})),
        step(
            "z",
            json!({"dependsOn": after(&[("b", "always")]), "cleanup": true}),
        ),
    ];
    let scope = Scope::new(
        "cancel-plan",
        config(json!({})),
        vec![plan(steps, one_retry())],
    )
    .once([
        Cancel("c", None, OWNER),
        Cancel("c", None, "user:op=operator"),
    ])
    .once([
        Done("c:a:1", "x"),
        Failed("c:a:1", "retryable"),
        Done("c:b:1", "x"),
    ])
    .once([Done("c:z:1", "x"), Due]);
    let more_of_it = [
        Cancel("c", None, "user:stranger"),
        Ack("c:a:1"),
        Failed("c:z:1", "retryable"),
        Done("c:a:2", "x"),
    ];
    more(scope, is_deep, more_of_it)
}

/// A cancel of one step that has a fallback and one that depends on it.
fn cancel_step(is_deep: bool) -> Scope {
    let steps = vec![
        step("a", json!({})),
        step("b", json!({"dependsOn": after(&[("a", "failure")])})),
        step("d", json!({"dependsOn": after(&[("a", "success")])})),
    ];
    let scope = Scope::new(
        "cancel-step",
        config(json!({})),
        vec![plan(steps, one_retry())],
    )
    .once([Cancel("c", Some("a"), OWNER), Cancel("c", Some("b"), OWNER)])
    .once([
        Done("c:a:1", "x"),
        Failed("c:a:1", "retryable"),
        Done("c:a:2", "x"),
    ])
    .once([Done("c:b:1", "x"), Done("c:d:1", "x"), Due]);
    let more_of_it = [
        Cancel("c", None, OWNER),
        Failed("c:a:1", "permanent"),
        Later(100),
    ];
    more(scope, is_deep, more_of_it)
}

/// A plan under a running step of another one.
fn child(on_close: &str, is_deep: bool) -> Scope {
    let above = plan(vec![step("a", json!({})), step("b", json!({}))], json!({}));
    let parent = json!({"coordinationId": "c", "stepId": "a", "onClose": on_close});
    let below = plan(
        vec![step("x", json!({}))],
        json!({"coordinationId": "k", "ownerSession": "agent:a", "parent": parent}),
    );
    let scope = Scope::new(
        &format!("child-{on_close}"),
        config(json!({})),
        vec![above, below],
    )
    .opening(1)
    .once([
        Plan(1),
        Done("c:a:1", "x"),
        Failed("c:a:1", "permanent"),
        Done("c:b:1", "x"),
    ])
    .once([
        Done("k:x:1", "x"),
        Cancel("c", None, OWNER),
        Cancel("k", None, "agent:a"),
        Due,
    ]);
    more(
        scope,
        is_deep,
        [
            Cancel("k", None, OWNER),
            Failed("k:x:1", "permanent"),
            Later(100),
        ],
    )
}

/// A step that a running step adds.
fn added(is_deep: bool) -> Scope {
    let scope = Scope::new(
        "added",
        config(json!({})),
        vec![plan(vec![step("a", json!({}))], one_retry())],
    )
    .twice([Add("c:a:1", "x", "agent:x", "more")])
    .once([
        Add("c:a:1", "x", "agent:x", "other"),
        Done("c:a:1", "x"),
        Done("c:x:1", "x"),
    ])
    .once([Failed("c:x:1", "retryable"), Cancel("c", None, OWNER)]);
    let more_of_it = [Due, Done("c:x:2", "x"), Failed("c:a:1", "retryable")];
    more(scope, is_deep, more_of_it)
}

/// Hooks are asked before each attempt.
fn hook_dispatch(is_deep: bool) -> Scope {
    let hooks = json!({"hooks": ["before_dispatch"]});
    let scope = Scope::new(
        "hook-dispatch",
        config(hooks),
        vec![plan(vec![step("a", claim("file:x", 900))], one_retry())],
    )
    .twice([Verdict(0, "no-opinion")])
    .once([
        Verdict(0, "deny"),
        Verdict(0, "review"),
        Verdict(1, "no-opinion"),
    ])
    .once([
        Failed("c:a:1", "retryable"),
        Done("c:a:1", "x"),
        Done("c:a:2", "x"),
        Due,
    ]);
    more(
        scope,
        is_deep,
        [Cancel("c", None, OWNER), Verdict(1, "deny"), Later(100)],
    )
}

/// Hooks are asked before a contest is decided.
fn hook_arbitrate(is_deep: bool) -> Scope {
    let steps = vec![
        step("a", claim("file:x", 900)),
        step("b", claim("file:x", 900)),
    ];
    let scope = Scope::new(
        "hook-arbitrate",
        config(json!({"hooks": ["before_arbitrate"]})),
        vec![plan(steps, with(people("deny", 1), json!({})))],
    )
    .once([
        Verdict(0, "no-opinion"),
        Verdict(0, "deny"),
        Verdict(0, "review"),
    ])
    .once([Done("c:a:1", "x"), Done("c:b:1", "x")])
    .once([YES[0].clone(), Due]);
    let more_of_it = [
        Failed("c:a:1", "permanent"),
        Cancel("c", None, OWNER),
        Renew("c:a:1"),
    ];
    more(scope, is_deep, more_of_it)
}

/// A message that may be dropped, goes to nobody, or is lost with its host; and the step that stands in.
fn best_effort(is_deep: bool) -> Scope {
    let steps = vec![
        step("a", json!({"deliveryMode": "best_effort"})),
        step("b", json!({"dependsOn": after(&[("a", "failure")])})),
    ];
    let scope = Scope::new(
        "best-effort",
        config(json!({})),
        vec![plan(steps, one_retry())],
    )
    .unheard()
    .once([
        Ack("c:a:1"),
        Done("c:a:1", "x"),
        Dropped("c:a:1"),
        UnknownTarget("c:a:1"),
    ])
    .once([HostLost("c:a:1"), UnknownTarget("c:b:1"), HostLost("c:b:1")]);
    let more_of_it = [
        Due,
        Failed("c:a:1", "retryable"),
        Done("c:b:1", "x"),
        Acknowledge(OWNER),
    ];
    more(scope, is_deep, more_of_it)
}

/// One slot for three steps of two owners, a clock that jumps, and a width that changes.
fn slots(is_deep: bool) -> Scope {
    let long = |id: &str, priority: &str| {
        step(
            id,
            json!({"timeoutMs": 100_000, "ackTimeoutMs": 100_000, "priority": priority}),
        )
    };
    let one = plan(vec![long("a", "normal"), long("b", "low")], json!({}));
    let other = plan(
        vec![long("d", "normal")],
        json!({"coordinationId": "d", "ownerSession": "user:other"}),
    );
    let scope = Scope::new("slots", config(json!({"maxInFlight": 1})), vec![one, other])
        .config(config(json!({"maxInFlight": 2})))
        .once([Done("c:a:1", "x"), Done("c:b:1", "x"), Done("d:d:1", "x")])
        .once([Later(31_000), Tell, Back(31_000), Configure(1)]);
    more(
        scope,
        is_deep,
        [
            Later(30_000),
            Failed("c:a:1", "permanent"),
            Cancel("c", None, OWNER),
            Due,
        ],
    )
}
