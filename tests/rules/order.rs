//! Who comes first among those that wait for a resource, when the plans, strategies and modes among them change: R-42, R-45,
//! R-50, R-66.
//!
//! Contests and what decides them are in `arbitration.rs` and `claim.rs`, circles in `corner.rs`.

use crate::support::*;
use serde_json::json;

fn reads(id: &str, priority: &str) -> Json {
    step(id)
        .claim(json!({"resource": "file:x", "mode": "shared"}))
        .set("priority", priority)
}

/// What goes out when a step of plan `c` completes.
fn next_after(s: &mut Scenario, ends: &str) -> Vec<String> {
    let before = s.lines.len();
    s.done(ends, 1, "");
    let labels = s.labels().split_off(before).into_iter();
    labels
        .filter_map(|label| Some(label.strip_prefix("step.dispatched ")?.to_owned()))
        .collect()
}

#[test]
fn r_45_readers_and_a_writer_of_several_priorities_go_in_their_order() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let writes = |id: &str| step(id).claims("file:x");
    let steps = [
        writes("0").set("priority", "critical"),
        reads("a", "normal").after("1"),
        reads("b", "critical").after("2"),
        writes("w").set("priority", "high").after("3"),
        reads("d", "low").after("4"),
        step("1"),
        step("2"),
        step("3"),
        step("4"),
    ];
    s.plan(plan(steps).strategy("priority_wins"));
    for id in ["1", "2", "3", "4"] {
        s.done(id, 1, "");
    }
    assert_eq!(next_after(&mut s, "0"), ["b:1"]);
    assert_eq!(next_after(&mut s, "b"), ["w:1"]);
    assert_eq!(next_after(&mut s, "w"), ["a:1", "d:1"]);
}

/// A writer does not pass a reader that waits for something else as well.
#[test]
fn r_50_a_writer_waits_behind_a_reader_on_a_free_resource() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let steps = [
        step("0").claims("file:y"),
        reads("a", "normal").claims("file:y"),
        step("w").claims("file:x").after("1"),
        reads("r", "normal").after("2"),
        step("1"),
        step("2"),
    ];
    s.plan(plan(steps));
    assert_eq!(next_after(&mut s, "1"), [""; 0]);
    assert_eq!(s.step_state("w"), "waiting_claim");
    // Another reader would stand behind the writer.
    assert_eq!(next_after(&mut s, "2"), [""; 0]);
    assert_eq!(next_after(&mut s, "0"), ["a:1"]);
    assert_eq!(next_after(&mut s, "a"), ["w:1"]);
    assert_eq!(next_after(&mut s, "w"), ["r:1"]);
}

/// `0` of plan `c` holds `file:x`. Then `a` and `b` of plan `c` wait for it, and `d` of another plan between them.
fn two_plans(of_c: impl Fn(Json) -> Json, b_priority: &str) -> Scenario {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    let writes = |id: &str| step(id).claims("file:x");
    let steps = [
        writes("0").set("priority", "critical"),
        writes("a").after("1"),
        writes("b").set("priority", b_priority).after("2"),
        step("1"),
        step("2"),
    ];
    s.plan(of_c(plan(steps)).set("priority", "normal"));
    s.done("1", 1, "");
    s.plan(plan([writes("d")]).set("coordinationId", "other"));
    s.done("2", 1, "");
    for waiting in ["a", "b"] {
        assert_eq!(s.step_state(waiting), "waiting_claim");
    }
    s
}

fn cancel_other(s: &mut Scenario) {
    s.submit(cancel().of("other")).unwrap();
}

/// R-66: the owners that a plan names count only among its own steps.
#[test]
fn r_50_an_owner_of_one_plan_counts_while_no_other_plan_waits() {
    let mut s = two_plans(|plan| plan.owner("file:x", "agent:b"), "normal");
    s.cancel_step("a");
    assert_eq!(next_after(&mut s, "0"), ["other/d:1"]);
    s.done_of("other", "d", 1);
    assert_eq!(s.step_state("b"), "dispatched");
}

/// R-66: alone again, its own owner comes first.
#[test]
fn r_50_an_owner_of_a_plan_counts_again_once_the_other_plan_is_gone() {
    let mut s = two_plans(|plan| plan.owner("file:x", "agent:b"), "normal");
    cancel_other(&mut s);
    assert_eq!(next_after(&mut s, "0"), ["b:1"]);
}

/// R-66: the strictest strategy of those that wait orders them.
#[test]
fn r_50_the_strategy_of_a_plan_counts_while_no_stricter_one_waits() {
    let mut s = two_plans(|plan| plan.strategy("priority_wins"), "high");
    assert_eq!(next_after(&mut s, "0"), ["a:1"]);
}

/// R-66: alone again, its own strategy orders its steps.
#[test]
fn r_50_the_strategy_of_a_plan_counts_again_once_the_stricter_one_is_gone() {
    let mut s = two_plans(|plan| plan.strategy("priority_wins"), "high");
    cancel_other(&mut s);
    assert_eq!(next_after(&mut s, "0"), ["b:1"]);
}

/// Between plans the owners of the domain count, among the steps of one plan those of the plan.
#[test]
fn r_66_an_owner_of_the_domain_comes_first_among_several_plans() {
    let mut s = Scenario::with(|config| {
        config.max_in_flight = 9;
        config.owners = vec![qm2_core::arbitration::Owner {
            resource: "file:*".into(),
            session: "agent:e".into(),
        }];
    });
    let writes = |id: &str| step(id).claims("file:x");
    s.plan(plan([writes("0"), writes("a").after("1"), step("1")]));
    s.done("1", 1, "");
    for id in ["d", "e"] {
        let other = plan([reads(id, "normal")]);
        s.plan(other.set("coordinationId", format!("of-{id}")));
    }
    assert_eq!(next_after(&mut s, "0"), ["of-e/e:1"]);
    s.done_of("of-e", "e", 1);
    assert_eq!(s.step_state("a"), "dispatched");
}

#[test]
fn r_44_a_reader_goes_before_a_more_urgent_writer_that_came_later() {
    let mut s = Scenario::with(|config| config.max_in_flight = 9);
    s.plan(plan([
        step("0").claims("file:x").set("priority", "critical"),
        reads("a", "low"),
        step("w")
            .claims("file:x")
            .set("priority", "high")
            .after("1"),
        step("1").set("priority", "critical"),
    ]));
    assert_eq!(s.step_state("a"), "waiting_claim");
    assert_eq!(next_after(&mut s, "1"), [""; 0]);
    assert_eq!(next_after(&mut s, "0"), ["a:1"]);
    assert_eq!(next_after(&mut s, "a"), ["w:1"]);
}

/// R-63: who is out stays out, and the next one waits until there is room again.
#[test]
fn r_63_a_narrower_session_takes_no_more_until_it_has_room() {
    let mut s = Scenario::with(|config| config.session_in_flight = 2);
    let of = |id: &str| step(id).set("targetSession", "agent:a");
    s.plan(plan(["a", "b", "c"].map(of)));
    assert_eq!(s.step_state("c"), "ready");
    s.configure(|config| config.session_in_flight = 1).unwrap();
    assert_eq!(s.step_state("c"), "ready");
    assert_eq!(next_after(&mut s, "a"), [""; 0]);
    assert_eq!(next_after(&mut s, "b"), ["c:1"]);
}

/// R-63: what only the domain held back is then held back by its session.
#[test]
fn r_63_a_session_that_a_new_width_makes_full_takes_no_more() {
    let mut s = Scenario::with(|config| {
        (config.max_in_flight, config.session_in_flight) = (2, 3);
    });
    let of = |id: &str| step(id).set("targetSession", "agent:a");
    s.plan(plan(["a", "b", "c"].map(of)));
    assert_eq!(s.step_state("c"), "ready");
    s.configure(|config| config.session_in_flight = 2).unwrap();
    s.advance(1);
    assert_eq!(s.step_state("c"), "ready");
    assert_eq!(next_after(&mut s, "a"), ["c:1"]);
}

/// R-63: the next of a session takes the place in line of the first one.
#[test]
fn r_63_who_stood_behind_a_cancelled_step_is_next() {
    let mut s = Scenario::with(|config| config.max_in_flight = 1);
    let of = |id: &str| step(id).set("targetSession", "agent:s");
    s.plan(plan([step("0"), of("a"), of("b"), of("c")]));
    s.cancel_step("a");
    assert_eq!(next_after(&mut s, "0"), ["b:1"]);
}

/// R-51, M2: a lease is live until its end is recorded, also at its last millisecond.
#[test]
fn r_43_who_comes_at_the_end_of_a_lease_waits_for_its_record() {
    let mut s = Scenario::with(|config| config.max_in_flight = 2);
    let leased = json!({"resource": "file:x", "leaseMs": 5_000});
    s.plan(plan([
        step("a").claim(leased),
        step("b").set("timeoutMs", 5_000),
        step("c").claims("file:x"),
    ]));
    for id in ["a", "b"] {
        s.ack(id, 1);
    }
    assert_eq!(s.step_state("c"), "ready");
    s.seen();
    s.advance(5_000);
    let labels = s.labels();
    let place = |wanted: &str| labels.iter().position(|label| label == wanted);
    let met = place("conflict.detected c:1").expect("it meets the holder");
    assert!(place("step.timed_out b:1").expect("at its deadline") < met);
    assert!(met < place("claim.expired a:1").expect("then"));
    assert_eq!(s.step_state("c"), "dispatched");
}
