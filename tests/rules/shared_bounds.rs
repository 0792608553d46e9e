//! Every bound of what claims, policies, hooks and people bring, at the bound and one past it, and what R-13 says of them.
//!
//! The other bounds are in `bounds.rs`.

use crate::support::*;
use qm2_core::claim::{ClaimRequest, Region};
use qm2_core::config::Config;
use qm2_core::limit;
use qm2_core::plan::Plan;
use serde_json::{Value, json};

/// What a plan is refused for: `step field code` of each problem.
fn problems(plan: &Json) -> Vec<String> {
    let Err(found) = Plan::parse(&plan.text(), &Config::new("d")) else {
        return Vec::new();
    };
    let text = |problem: &qm2_core::receipt::Problem| {
        let step = problem.step_id.as_deref().unwrap_or("-");
        format!("{step} {} {}", problem.field, problem.code)
    };
    found.iter().map(text).collect()
}

/// The same plan at a bound and one past it.
fn bound(place: &str, at: impl Fn(usize) -> Json, max: usize) {
    assert_eq!(problems(&at(max)), [""; 0], "{place} at {max}");
    let past = problems(&at(max + 1));
    assert_eq!(past, [format!("{place} out-of-bound")], "one past {max}");
}

fn one(claim: Value) -> Json {
    plan([step("a").claim(claim)])
}

#[test]
fn bounds_of_claims_of_a_plan() {
    let text = |n: usize| "x".repeat(n);
    let claims = |n: usize| {
        let all = (0..n).map(|n| json!({"resource": format!("file:{n}")}));
        plan([step("a").set("claims", all.collect::<Vec<_>>())])
    };
    bound("a steps[0].claims", claims, 2_048);
    let owns = |n: usize| {
        let all = (0..n).map(|n| json!(format!("file:{n}")));
        plan([step("a").set("owns", all.collect::<Vec<_>>())])
    };
    bound("a steps[0].owns", owns, 2_048);
    let resource = |n: usize| one(json!({"resource": format!("file:{}", text(n - 5))}));
    bound("a steps[0].claims[0].resource", resource, 512);
    let owned = |n: usize| plan([step("a").set("owns", json!([format!("file:{}", text(n - 5))]))]);
    bound("a steps[0].owns[0]", owned, 512);
    let version = |n: usize| one(json!({"resource": "file:x", "baseVersion": text(n)}));
    bound("a steps[0].claims[0].baseVersion", version, 256);
    let regions = |n: usize| {
        let all = (0..n).map(|n| json!({"start": 2 * n, "end": 2 * n + 1}));
        one(json!({"resource": "file:x", "regions": all.collect::<Vec<_>>()}))
    };
    bound("a steps[0].claims[0].regions", regions, 64);
    let days_400 = 400 * 86_400_000;
    let lease = |n: usize| one(json!({"resource": "file:x", "leaseMs": n}));
    bound("a steps[0].claims[0].leaseMs", lease, days_400);
    for (claim, place) in [
        (
            json!({"resource": "file:x", "leaseMs": 0}),
            "leaseMs out-of-bound",
        ),
        (
            json!({"resource": "file:x", "baseVersion": ""}),
            "baseVersion out-of-bound",
        ),
        (json!({"resource": ""}), "resource out-of-bound"),
        (json!({"resource": "x"}), "resource out-of-bound"),
        (json!({"resource": "File:x"}), "resource out-of-bound"),
        (json!({"resource": "1:x"}), "resource out-of-bound"),
        (json!({"resource": "file:a/../b"}), "resource out-of-bound"),
        (json!({"resource": "file:a\u{1}"}), "resource out-of-bound"),
        (json!({"leaseMs": 5}), "resource missing"),
        (
            json!({"resource": "file:x", "mode": "alone"}),
            "mode out-of-bound",
        ),
        (
            json!({"resource": "file:x", "regions": [{"start": 5, "end": 5}]}),
            "regions out-of-bound",
        ),
        (
            json!({"resource": "file:x", "regions": [{"start": 0}]}),
            "regions[0].end missing",
        ),
        (
            json!({"resource": "file:x", "until": 5}),
            "until unknown-member",
        ),
    ] {
        let found = problems(&one(claim.clone()));
        assert_eq!(found, [format!("a steps[0].claims[0].{place}")], "{claim}");
    }
    // A lease lasts as long as an attempt if nothing is said.
    let plan = Plan::parse(
        &one(json!({"resource": "file:x"})).text(),
        &Config::new("d"),
    )
    .unwrap();
    let claim = &plan.steps[0].claims[0];
    assert_eq!((claim.lease_ms, claim.mode.name()), (60_000, "exclusive"));
}

#[test]
fn bounds_of_the_conflict_policy() {
    let many = |name: &str, entry: &dyn Fn(usize) -> Value, n: usize| {
        let all: Vec<Value> = (0..n).map(entry).collect();
        plan([step("a")]).set("conflictPolicy", json!({name: all}))
    };
    let rule = |n: usize| json!({"resource": format!("file:{n}"), "strategy": "owner_wins"});
    let owner = |n: usize| json!({"resource": format!("file:{n}"), "session": "s"});
    let pattern = |n: usize| json!(format!("file:{n}"));
    bound("- conflictPolicy.rules", |n| many("rules", &rule, n), 256);
    bound(
        "- conflictPolicy.owners",
        |n| many("owners", &owner, n),
        256,
    );
    bound(
        "- conflictPolicy.highRisk",
        |n| many("highRisk", &pattern, n),
        256,
    );
    let text = |n: usize| "x".repeat(n);
    let sized = |name: &'static str, entry: fn(String) -> Value| {
        move |n: usize| plan([step("a")]).set("conflictPolicy", json!({name: [entry(text(n))]}))
    };
    let rule = |text: String| json!({"resource": text, "strategy": "owner_wins"});
    bound(
        "- conflictPolicy.rules[0].resource",
        sized("rules", rule),
        512,
    );
    let owner = |text: String| json!({"resource": text, "session": "s"});
    bound(
        "- conflictPolicy.owners[0].resource",
        sized("owners", owner),
        512,
    );
    let session = |text: String| json!({"resource": "file:x", "session": text});
    bound(
        "- conflictPolicy.owners[0].session",
        sized("owners", session),
        256,
    );
    bound(
        "- conflictPolicy.highRisk[0]",
        sized("highRisk", |text| json!(text)),
        512,
    );
    for (policy, place) in [
        (json!({"default": "loudest_wins"}), "default out-of-bound"),
        (
            json!({"rules": [{"resource": "file:x"}]}),
            "rules[0].strategy missing",
        ),
        (
            json!({"owners": [{"resource": "file:x"}]}),
            "owners[0].session missing",
        ),
        (json!({"preempt": 1}), "preempt wrong-type"),
        (json!({"strategy": "owner_wins"}), "strategy unknown-member"),
    ] {
        let found = problems(&plan([step("a")]).set("conflictPolicy", policy));
        assert_eq!(found, [format!("- conflictPolicy.{place}")]);
    }
}

#[test]
fn bounds_of_human_review() {
    let human = |human: Value| plan([step("a")]).human(human);
    let levels = |n: usize| human(json!({"levels": vec![json!({"timeoutMs": 1}); n]}));
    bound("- failurePolicy.human.levels", levels, 8);
    let sessions =
        |n: usize| human(json!({"levels": [{"timeoutMs": 1, "sessions": vec!["s"; n]}]}));
    bound("- failurePolicy.human.levels[0].sessions", sessions, 16);
    let session =
        |n: usize| human(json!({"levels": [{"timeoutMs": 1, "sessions": ["s".repeat(n)]}]}));
    bound("- failurePolicy.human.levels[0].sessions[0]", session, 256);
    let approvals = |n: usize| human(json!({"levels": [{"timeoutMs": 1}], "requiredApprovals": n}));
    bound("- failurePolicy.human.requiredApprovals", approvals, 16);
    let timeout = |n: usize| human(json!({"levels": [{"timeoutMs": n}]}));
    bound(
        "- failurePolicy.human.levels[0].timeoutMs",
        timeout,
        400 * 86_400_000,
    );
    for (value, place) in [
        (json!({}), "levels missing"),
        (json!({"levels": []}), "levels empty"),
        (json!({"levels": [{}]}), "levels[0].timeoutMs missing"),
        (
            json!({"levels": [{"timeoutMs": 0}]}),
            "levels[0].timeoutMs out-of-bound",
        ),
        (
            json!({"levels": [{"timeoutMs": 1}], "requiredApprovals": 0}),
            "requiredApprovals out-of-bound",
        ),
        (
            json!({"levels": [{"timeoutMs": 1, "minRole": "king"}]}),
            "levels[0].minRole out-of-bound",
        ),
        (
            json!({"levels": [{"timeoutMs": 1, "role": "user"}]}),
            "levels[0].role unknown-member",
        ),
        (
            json!({"levels": [{"timeoutMs": 1}], "fallback": "maybe"}),
            "fallback out-of-bound",
        ),
        (
            json!({"levels": [{"timeoutMs": 1}], "quorum": 1}),
            "quorum unknown-member",
        ),
    ] {
        let found = problems(&human(value));
        assert_eq!(found, [format!("- failurePolicy.human.{place}")]);
    }
}

#[test]
fn r_13_two_owners_of_one_resource() {
    let owns = |id: &str, resource: &str| step(id).set("owns", json!([resource]));
    let found = problems(&plan([owns("b", "file:x"), owns("a", "file:./x")]));
    assert_eq!(found, ["a steps[1].owns two-owners"]);
    // One session may own it twice; one within the other is another resource.
    let same = owns("b", "file:x").set("targetSession", "agent:a");
    assert_eq!(problems(&plan([owns("a", "file:x"), same])), [""; 0]);
    assert_eq!(
        problems(&plan([owns("a", "file:x"), owns("b", "file:x/y")])),
        [""; 0]
    );
    // Against the policy, and within it.
    let plan_of = plan([owns("a", "file:x")]).owner("file:*", "agent:z");
    assert_eq!(problems(&plan_of), ["a steps[0].owns two-owners"]);
    let twice = plan([step("a")]).owner("file:x", "s").owner("file:x", "t");
    assert_eq!(
        problems(&twice),
        ["- conflictPolicy.owners[1].resource two-owners"]
    );
}

#[test]
fn r_13_a_resource_is_claimed_once_a_step() {
    let twice = step("b")
        .claims("file:x/y")
        .claims("file:x//./y")
        .claims("file:x");
    assert_eq!(
        problems(&plan([step("a").claims("file:x/y"), twice])),
        ["b steps[1].claims[1].resource duplicate-resource"]
    );
}

#[test]
fn r_13_hitl_needs_somebody_and_block_needs_a_deadline() {
    let hitl = plan([step("a")]).set("failurePolicy", json!({"escalationPolicy": "hitl"}));
    assert_eq!(problems(&hitl), ["- failurePolicy.human missing"]);
    let block = plan([step("a")]).hitl().human_set("fallback", "block");
    assert_eq!(
        problems(&block),
        ["- failurePolicy.human.fallback no-deadline"]
    );
    assert_eq!(problems(&block.set("deadlineMs", 5)), [""; 0]);
    // All of them at once, nothing recorded.
    let mut s = Scenario::new();
    let broken = plan([
        step("b").set("owns", json!(["file:x"])),
        step("a").set("owns", json!(["file:x"])).claims("y"),
    ])
    .hitl()
    .human_set("fallback", "block");
    let refused = s.try_plan(broken).unwrap_err();
    let of: Vec<Option<&str>> = refused
        .problems
        .iter()
        .map(|p| p.step_id.as_deref())
        .collect();
    assert_eq!(of, [None, Some("a"), Some("a")]);
    s.expect(&[]);
}

#[test]
fn r_13_the_parent_of_a_plan() {
    let under = |parent: Value| plan([step("a")]).set("parent", parent);
    for (parent, place) in [
        (json!({"coordinationId": "p"}), "stepId missing"),
        (json!({"stepId": "p"}), "coordinationId missing"),
        (
            json!({"coordinationId": "a:b", "stepId": "p"}),
            "coordinationId out-of-bound",
        ),
        (
            json!({"coordinationId": "p", "stepId": "p", "onClose": "wait"}),
            "onClose out-of-bound",
        ),
        (
            json!({"coordinationId": "p", "stepId": "p", "depth": 1}),
            "depth unknown-member",
        ),
    ] {
        assert_eq!(problems(&under(parent)), [format!("- parent.{place}")]);
    }
}

#[test]
fn bounds_of_the_configuration_of_hooks_and_owners() {
    let parse =
        |name: &str, value: Value| Config::parse(&json!({"domain": "d", name: value}).to_string());
    let days_400 = 400 * 86_400_000_u64;
    for (value, fine) in [
        (1, true),
        (days_400, true),
        (0, false),
        (days_400 + 1, false),
    ] {
        assert_eq!(
            parse("hookTimeoutMs", json!(value)).is_ok(),
            fine,
            "{value}"
        );
    }
    let owner = |n: usize| json!({"resource": format!("file:{n}"), "session": "s"});
    let owners = |n: usize| json!((0..n).map(owner).collect::<Vec<_>>());
    let patterns = |n: usize| json!((0..n).map(|n| format!("file:{n}")).collect::<Vec<_>>());
    for (name, at, past) in [
        ("owners", owners(256), owners(257)),
        ("highRisk", patterns(256), patterns(257)),
    ] {
        assert!(parse(name, at).is_ok(), "{name}");
        let says = parse(name, past).unwrap_err();
        assert!(
            says.field.starts_with(name) && says.message.contains("256"),
            "{says:?}"
        );
    }
    let two =
        json!([{"resource": "file:x", "session": "s"}, {"resource": "file:x", "session": "t"}]);
    assert!(
        parse("owners", two)
            .unwrap_err()
            .message
            .contains("owns already")
    );
    // Each kind once and in their own order.
    let config = parse(
        "hooks",
        json!(["step_ended", "before_dispatch", "step_ended"]),
    )
    .unwrap();
    let names: Vec<&str> = config.hooks.iter().map(|kind| kind.name()).collect();
    assert_eq!(names, ["before_dispatch", "step_ended"]);
    let says = parse("hooks", json!(["before_breakfast"])).unwrap_err();
    assert!(
        says.message.contains("hooks[0] is before_breakfast"),
        "{says:?}"
    );
}

#[test]
fn bounds_of_a_question_and_of_an_extra_claim() {
    let question = |number: u64, bytes: usize| {
        let asked = escalate("a", 1, number, &"x".repeat(bytes));
        asked
            .check(limit::PAYLOAD_BYTES_MAX)
            .map_err(|(field, _)| field)
    };
    assert_eq!(question(limit::INTEGER_MAX, 1_024), Ok(()));
    assert_eq!(question(0, 1), Ok(()));
    assert_eq!(
        question(limit::INTEGER_MAX + 1, 1),
        Err("question.number".into())
    );
    assert_eq!(question(1, 1_025), Err("question.text".into()));
    assert_eq!(question(1, 0), Err("question.text".into()));

    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    let mut claim = |request: ClaimRequest| match s.claim(request) {
        Ok(_) => "granted".to_owned(),
        Err(refused) => brief_rejection(&refused),
    };
    let ask = |name: &str| request("a", 1, &format!("file:{name}"));
    assert_eq!(claim(ask(&"x".repeat(507))), "granted");
    assert_eq!(claim(ask(&"x".repeat(508))), "invalid-field resource fix");
    let lease = |lease_ms: u64| ClaimRequest {
        lease_ms,
        ..ask("l")
    };
    assert_eq!(claim(lease(0)), "invalid-field leaseMs fix");
    assert_eq!(
        claim(lease(limit::DURATION_MS_MAX + 1)),
        "invalid-field leaseMs fix"
    );
    assert_eq!(claim(lease(limit::DURATION_MS_MAX)), "granted");
    let base = |bytes: usize| ClaimRequest {
        base_version: Some("v".repeat(bytes)),
        ..ask("b")
    };
    assert_eq!(claim(base(0)), "invalid-field baseVersion fix");
    assert_eq!(claim(base(257)), "invalid-field baseVersion fix");
    assert_eq!(claim(base(256)), "granted");
    let parts = |count: u64| ClaimRequest {
        regions: (0..count)
            .map(|n| Region {
                start: 2 * n,
                end: 2 * n + 1,
            })
            .collect(),
        ..ask("r")
    };
    assert_eq!(claim(parts(65)), "invalid-field regions fix");
    assert_eq!(claim(parts(64)), "granted");
}

#[test]
fn bounds_of_the_grants_of_a_step() {
    let mut s = Scenario::new();
    let all: Vec<Value> = (0..2_047)
        .map(|n| json!({"resource": format!("file:{n}"), "leaseMs": 60_000}))
        .collect();
    s.plan(plan([step("a").set("claims", all)]));
    s.seen();
    assert!(s.claim(request("a", 1, "queue:one")).is_ok());
    s.expect(&["claim.granted a:1"]);
    let refused = s.claim(request("a", 1, "queue:two")).unwrap_err();
    assert_eq!(brief_rejection(&refused), "bound resource retry(1000)");
    // What it has already it gets again.
    assert!(s.claim(request("a", 1, "queue:one")).is_ok());
    s.expect(&[]);
}

#[test]
fn bounds_of_the_holders_that_a_contest_names() {
    let mut s = Scenario::with(|config| config.max_in_flight = 100);
    let reads =
        |n: u32| step(&format!("a{n:02}")).claim(json!({"resource": "file:x", "mode": "shared"}));
    let readers = (0..20).map(reads);
    s.plan(plan(readers.chain([step("b").claims("file:x")])));
    let named = s.data("conflict.detected b:1")["holders"]
        .as_array()
        .map(Vec::len);
    assert_eq!(named, Some(limit::CONTEST_HOLDERS_MAX));
    // The others bar it all the same.
    for n in 0..20 {
        assert_eq!(s.step_state("b"), "waiting_claim");
        s.done(&format!("a{n:02}"), 1, "");
    }
    assert_eq!(s.step_state("b"), "dispatched");
}

#[test]
fn the_bounds_of_shared_things_are_those_of_the_spec() {
    assert_eq!(limit::STEP_CLAIMS_MAX, 2_048);
    assert_eq!(limit::REGIONS_MAX, 64);
    assert_eq!(limit::RESOURCE_BYTES_MAX, 512);
    assert_eq!(limit::BASE_VERSION_BYTES_MAX, 256);
    assert_eq!(limit::POLICY_ENTRIES_MAX, 256);
    assert_eq!((limit::LEVELS_MAX, limit::LEVEL_SESSIONS_MAX), (8, 16));
    assert_eq!(limit::APPROVALS_MAX, 16);
    assert_eq!(limit::DEPTH_MAX, 5);
}
