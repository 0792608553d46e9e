//! Arbitration, from outside: decisions worked out by hand, what holds for every contest, and the rules by name.
//!
//! Looks at the pure function only; what a decision does to steps is tested elsewhere.

#[path = "arbitration/properties.rs"]
mod properties;
#[path = "arbitration/rows.rs"]
mod rows;

use qm2_core::arbitration::{
    Contender, Contest, Policy, Stage, Strategy as Kind, arbitrate, conflict,
};
use qm2_core::claim::{Mode, overlap};
use rows::{claim, claims, policy, written};

const NOW: u64 = 1_000;
const RESOURCE: &str = "file:src/lib.rs";

/// The outcomes of a contest written as in the table.
fn decided(policy_text: &str, owner: &str, holders: &str, contenders: &str) -> (String, String) {
    let contest = Contest {
        resource: RESOURCE.to_owned(),
        at_ms: NOW,
        holders: claims(holders),
        contenders: claims(contenders),
    };
    written(&arbitrate(&contest, &policy(policy_text, owner)))
}

#[test]
fn r42_equal_and_nested_paths_overlap_and_shared_is_beside_shared() {
    assert!(overlap("file:src", "file:src/lib.rs") && overlap("file:src/lib.rs", "file:src"));
    assert!(overlap(RESOURCE, RESOURCE));
    assert!(!overlap("file:src", "file:srcs") && !overlap("file:src", "queue:src"));
    assert!(!conflict(Mode::Shared, Mode::Shared));
    assert!(conflict(Mode::Shared, Mode::Exclusive) && conflict(Mode::Exclusive, Mode::Shared));
    assert!(conflict(Mode::Exclusive, Mode::Exclusive));
    assert_eq!(
        decided("own", "-", "h:ns1#10<2000", "a:ns2 b:ns3").1,
        "a=G1 b=G2"
    );
}

#[test]
fn r43_ownership_then_lease_then_strategy() {
    assert_eq!(decided("pri", "b", "-", "a:cx1 b:lx2").0, "ownership");
    assert_eq!(
        decided("pri", "b", "h:lx1#10<2000", "a:cx1 b:lx2").0,
        "lease"
    );
    assert_eq!(
        decided("pri", "-", "h:lx1#10<2000", "a:cx1 b:lx2").0,
        "strategy"
    );
}

#[test]
fn r44_without_an_owner_the_holder_keeps_and_others_wait_in_claim_order() {
    let waits = ("strategy".to_owned(), "b=W1 c=W2 a=W3".to_owned());
    assert_eq!(
        decided("own", "-", "h:lx9#10<2000", "a:cx4 b:lx2 c:nx3"),
        waits
    );
    assert_eq!(
        decided("own+p", "-", "h:lx9#10<2000~", "a:cx4 b:lx2 c:nx3"),
        waits
    );
}

#[test]
fn r45_priority_then_claim_number_then_coordination_then_step() {
    let order = "e=G1 d=W2 c=W3 a=W4 b=W5";
    let claims = "z/b:nx2 z/a:nx2 k/c:nx2 z/d:nx1 z/e:hx9";
    assert_eq!(decided("pri", "-", "-", claims).1, order);
    let outcome = |holder: &str, claim: &str| decided("pri+p", "-", holder, claim).1;
    assert_eq!(outcome("h:nx1#10<2000~", "a:hx2"), "a=P1");
    assert_eq!(
        outcome("h:nx1#10<2000~", "a:nx2"),
        "a=W1",
        "strictly higher only"
    );
    assert_eq!(
        outcome("h:nx1#10<2000", "a:cx2"),
        "a=W1",
        "preemptible only"
    );
}

#[test]
fn r46_one_base_and_disjoint_regions_are_granted_together() {
    let second = |second: &str| {
        let claims = format!("a:nx1@v1[0-5,10-15] {second}");
        decided("mrg", "-", "-", &claims).1
    };
    assert_eq!(second("b:nx2@v1[5-10,15-20]"), "a=G1 b=G2");
    for unsafe_ in [
        "b:nx2@v1[5-11]",
        "b:nx2@v2[5-10]",
        "b:nx2[5-10]",
        "b:nx2@v1",
        "b:ns2@v1[14-15]",
    ] {
        assert_eq!(second(unsafe_), "a=G1 b=R", "{unsafe_}");
    }
}

#[test]
fn r47_any_number_at_once_whatever_the_order() {
    let mut claims: Vec<Contender> = (0..50)
        .map(|n| claim(&format!("s{n}:nx{}", n * 7 % 50)))
        .collect();
    let contest = |contenders: &[Contender]| Contest {
        resource: RESOURCE.to_owned(),
        at_ms: NOW,
        contenders: contenders.to_vec(),
        holders: Vec::new(),
    };
    let first = arbitrate(&contest(&claims), &Policy::default());
    assert_eq!(first.outcomes.len(), 50);
    assert_eq!(first.outcomes[0].step_id, "s0");
    assert!(
        first
            .outcomes
            .iter()
            .zip(1..)
            .all(|(outcome, place)| outcome.order == place)
    );
    for turn in 0..50 {
        claims.rotate_left(1);
        assert_eq!(
            arbitrate(&contest(&claims), &Policy::default()),
            first,
            "turned by {turn}"
        );
    }
    let nobody = arbitrate(&contest(&[]), &Policy::default());
    assert_eq!((nobody.stage, nobody.outcomes.len()), (Stage::Strategy, 0));
}

#[test]
fn r47_the_claims_of_one_step_have_an_order_too() {
    let (exclusive, shared) = (claim("a:nx1"), claim("a:ns1"));
    let contest = |contenders: Vec<Contender>| Contest {
        resource: RESOURCE.to_owned(),
        at_ms: NOW,
        contenders,
        holders: vec![claim("h:ns0#10<2000")],
    };
    let one = arbitrate(
        &contest(vec![exclusive.clone(), shared.clone()]),
        &Policy::default(),
    );
    let other = arbitrate(&contest(vec![shared, exclusive]), &Policy::default());
    assert_eq!(one, other);
    assert_eq!(written(&one).1, "a=G1 a=W2");
}

#[test]
fn r48_manual_review_gives_no_place_and_bars_nobody() {
    assert_eq!(
        decided("man", "-", "h:ns1#10<2000", "a:nx2 b:ns3 c:nx4").1,
        "a=R b=G1 c=R"
    );
    assert_eq!(decided("man", "-", "h:nx1#10<2000", "a:nx2").1, "a=R");
}

#[test]
fn r49_owner_wins_unless_told_and_manual_review_for_high_risk() {
    assert_eq!(Policy::default().strategy_of(RESOURCE), Kind::OwnerWins);
    for kind in ["own", "pri", "mrg", "man"] {
        for how in ["h", "hr"] {
            let policy = policy(&format!("{how}:{kind}"), "-");
            assert!(policy.is_high_risk(RESOURCE));
            assert_eq!(
                policy.strategy_of(RESOURCE),
                Kind::ManualReview,
                "{how}:{kind}"
            );
        }
    }
}

#[test]
fn r50_never_past_an_earlier_one_that_waits() {
    // b could share with h, but a was first; and a safe merge is no exception.
    assert_eq!(
        decided("own", "-", "h:ns1#10<2000", "a:nx2 b:ns3").1,
        "a=W1 b=W2"
    );
    assert_eq!(
        decided("mrg", "-", "h:nx1@v1[0-5]", "a:nx2@v1[5-9]").1,
        "a=W1"
    );
}

#[test]
fn r66_strategies_are_ordered_from_the_strictest() {
    let all = [
        Kind::ManualReview,
        Kind::OwnerWins,
        Kind::MergeIfSafe,
        Kind::PriorityWins,
    ];
    assert!(all.is_sorted());
    assert_eq!(all.iter().min(), Some(&Kind::ManualReview));
}

#[test]
fn ten_thousand_contenders_are_decided_in_time() {
    const MANY: u64 = 10_000;
    // Every third claim is exclusive, all, none; all are safe beside each other; the later half is not safe beside the
    // last of the earlier; and one is for the whole of another base.
    for (policy_text, sort, all) in [
        ("own", "ns", false),
        ("own", "ns", true),
        ("pri", "nx", true),
        ("man", "ns", false),
        ("mrg", "nx", true),
        ("mrg late", "nx", true),
        ("mrg mixed", "ns", false),
    ] {
        let (policy_text, how) = policy_text.split_once(' ').unwrap_or((policy_text, ""));
        let contenders: Vec<Contender> = (0..MANY)
            .map(|n| {
                let sort = if !all && n % 3 == 2 { "nx" } else { sort };
                let start = if how == "late" {
                    n.min(MANY / 2) * 10
                } else {
                    n * 10
                };
                let base = if how == "mixed" && n == 0 { "v2" } else { "v1" };
                claim(&format!("s{n}:{sort}{n}@{base}[{start}-{}]", start + 10))
            })
            .collect();
        let contest = Contest {
            resource: RESOURCE.to_owned(),
            at_ms: NOW,
            contenders,
            holders: claims("h:ns0@v1[900000-900001]#10<2000"),
        };
        let decision = arbitrate(&contest, &policy(policy_text, "-"));
        assert_eq!(decision.outcomes.len(), contest.contenders.len());
    }
}
