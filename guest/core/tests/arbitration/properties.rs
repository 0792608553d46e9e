//! What holds for every contest, however odd. PROPTEST_CASES asks for more cases.

use proptest::prelude::*;
use qm2_core::arbitration::{
    Contender, Contest, OutcomeKind, Owner, Policy, Rule, Stage, Strategy as Kind, arbitrate,
};
use qm2_core::claim::{Mode, Region, fits};
use qm2_core::envelope::Priority;
use qm2_core::{codec, limit};
use std::cmp::Reverse;

/// Few values, so that claims tie and meet; and the odd ones.
fn any_text() -> impl Strategy<Value = String> {
    let texts = [
        "a",
        "b",
        "c",
        "",
        "file:a",
        "**",
        "\u{0}",
        "é\u{202e}",
        "a:b/../c",
    ];
    prop::sample::select(texts.to_vec()).prop_map(str::to_owned)
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..6_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn any_regions() -> impl Strategy<Value = Vec<Region>> {
    // Empty and inverted ones too: the function itself checks nothing.
    let region = (any_number(), any_number()).prop_map(|(start, end)| Region { start, end });
    prop::collection::vec(region, 0..3)
}

fn any_claim() -> impl Strategy<Value = Contender> {
    let ids = (
        any_text(),
        any_text(),
        prop_oneof![8 => Just(1), 1 => any::<u32>()],
        any_text(),
    );
    let rank = (
        prop::sample::select(vec![
            Priority::Low,
            Priority::Normal,
            Priority::High,
            Priority::Critical,
        ]),
        any_number(),
        any::<bool>(),
    );
    let base = (prop::option::of(any_text()), any_regions());
    let grant = (
        prop::option::of(any_number()),
        prop::option::of(any_number()),
        any::<bool>(),
    );
    (ids, rank, base, grant).prop_map(|(ids, rank, base, grant)| Contender {
        coordination_id: ids.0,
        step_id: ids.1,
        attempt: ids.2,
        session: ids.3,
        priority: rank.0,
        claim_number: rank.1,
        mode: if rank.2 {
            Mode::Shared
        } else {
            Mode::Exclusive
        },
        base_version: base.0,
        regions: base.1,
        token: grant.0,
        expires_ms: grant.1,
        preemptible: grant.2,
    })
}

/// Claims that look like those of the core: one a step, in few regions of one base, mostly.
fn likely_claim() -> impl Strategy<Value = Contender> {
    let sort = (0..4_usize, 0..4_u64, prop::bool::weighted(0.3), 0..3_usize);
    let where_ = (prop::bool::weighted(0.9), 0..10_u64, 1..4_u64);
    let grant = (any::<bool>(), 0..4_u64, prop::bool::weighted(0.8));
    (0..26_u8, sort, where_, grant).prop_map(|(step, sort, (based, start, long), grant)| {
        Contender {
            coordination_id: "k".to_owned(),
            step_id: char::from(b'a' + step).to_string(),
            attempt: 1,
            session: ["a", "b", "c"][sort.3].to_owned(),
            priority: [
                Priority::Low,
                Priority::Normal,
                Priority::High,
                Priority::Critical,
            ][sort.0],
            claim_number: sort.1,
            mode: if sort.2 {
                Mode::Shared
            } else {
                Mode::Exclusive
            },
            base_version: based.then(|| "v1".to_owned()),
            regions: vec![Region {
                start,
                end: start + long,
            }],
            token: grant.0.then_some(sort.1),
            expires_ms: Some(grant.1),
            preemptible: grant.2,
        }
    })
}

fn any_contest() -> impl Strategy<Value = Contest> {
    let claims = |max| {
        prop_oneof![
            prop::collection::vec(any_claim(), 0..max),
            prop::collection::vec(likely_claim(), 0..max),
        ]
    };
    (
        prop_oneof![Just("file:a".to_owned()), any_text()],
        any_number(),
        claims(8),
        claims(5),
    )
        .prop_map(|(resource, at_ms, contenders, holders)| Contest {
            resource,
            at_ms,
            contenders,
            holders,
        })
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::ManualReview,
        Kind::OwnerWins,
        Kind::MergeIfSafe,
        Kind::PriorityWins,
    ])
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let rules = prop::collection::vec((any_text(), any_kind()), 0..3);
    let owners = prop::collection::vec(
        (
            prop_oneof![3 => Just("**".to_owned()), 1 => any_text()],
            any_text(),
        ),
        0..3,
    );
    let high_risk =
        prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any_text(), 1..3)];
    (
        any_kind(),
        rules,
        owners,
        high_risk,
        prop::bool::weighted(0.7),
    )
        .prop_map(|(default, rules, owners, high_risk, preempt)| Policy {
            default,
            rules: rules
                .into_iter()
                .map(|(resource, strategy)| Rule { resource, strategy })
                .collect(),
            owners: owners
                .into_iter()
                .map(|(resource, session)| Owner { resource, session })
                .collect(),
            high_risk,
            preempt,
        })
}

fn same_step(a: &Contender, b: &Contender) -> bool {
    (&a.coordination_id, &a.step_id) == (&b.coordination_id, &b.step_id)
}

fn meet(a: &Contender, b: &Contender) -> bool {
    (a.mode == Mode::Exclusive || b.mode == Mode::Exclusive) && !same_step(a, b)
}

/// R-46, said in another way than in the core.
fn safe(a: &Contender, b: &Contender) -> bool {
    let apart = |x: &Region, y: &Region| x.end <= y.start || x.start >= y.end;
    let pairs = || {
        a.regions
            .iter()
            .flat_map(|x| b.regions.iter().map(move |y| (x, y)))
    };
    matches!((&a.base_version, &b.base_version), (Some(a), Some(b)) if a == b)
        && pairs().next().is_some()
        && pairs().all(|(x, y)| apart(x, y))
}

/// What orders claims; for those of one step the rest of what they are decides.
fn rank<'a>(claim: &'a Contender, resource: &str, policy: &Policy) -> impl Ord + use<'a> {
    let by_priority = policy.strategy_of(resource) == Kind::PriorityWins;
    (
        policy.owner_of(resource) != Some(claim.session.as_str()),
        by_priority.then_some(Reverse(claim.priority)),
        (
            claim.claim_number,
            &claim.coordination_id,
            &claim.step_id,
            claim.attempt,
        ),
        (claim.mode, &claim.base_version, &claim.regions),
    )
}

fn ranked<'a>(claims: &'a [Contender], resource: &str, policy: &Policy) -> Vec<&'a Contender> {
    let mut ranked: Vec<&Contender> = claims.iter().collect();
    ranked.sort_by_key(|claim| rank(claim, resource, policy));
    ranked
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every contest has a decision: of its own strategy, for each contender one outcome.
    #[test]
    fn every_contest_is_decided(contest in any_contest(), policy in any_policy()) {
        let decision = arbitrate(&contest, &policy);
        prop_assert_eq!(decision.outcomes.len(), contest.contenders.len());
        prop_assert_eq!(decision.strategy, policy.strategy_of(&contest.resource));
        prop_assert!(!decision.reason.is_empty());
        prop_assert!(!matches!(decision.stage, Stage::Hook | Stage::Human));
        let empty = Contest { contenders: Vec::new(), ..contest };
        prop_assert_eq!(arbitrate(&empty, &policy).outcomes, vec![]);
    }

    /// the order given does not matter.
    #[test]
    fn no_list_order_matters(
        (contest, other) in any_contest().prop_flat_map(|contest| {
            let contenders = Just(contest.contenders.clone()).prop_shuffle();
            let holders = Just(contest.holders.clone()).prop_shuffle();
            (Just(contest), (contenders, holders))
        }),
        policy in any_policy(),
    ) {
        let decision = arbitrate(&contest, &policy);
        let shuffled = Contest { contenders: other.0, holders: other.1, ..contest.clone() };
        prop_assert_eq!(&arbitrate(&shuffled, &policy), &decision);
        let mut reversed = contest;
        reversed.contenders.reverse();
        reversed.holders.reverse();
        prop_assert_eq!(&arbitrate(&reversed, &policy), &decision);
    }

    /// Outcomes are listed by rank, and the places 1, 2, 3 … go in that order to all but those under review.
    #[test]
    fn places_follow_the_rank(contest in any_contest(), policy in any_policy()) {
        let decision = arbitrate(&contest, &policy);
        let mut place = 0;
        for (claim, outcome) in ranked(&contest.contenders, &contest.resource, &policy).iter().zip(&decision.outcomes) {
            prop_assert_eq!(&outcome.coordination_id, &claim.coordination_id);
            prop_assert_eq!(&outcome.step_id, &claim.step_id);
            if outcome.outcome == OutcomeKind::Review {
                prop_assert_eq!(outcome.order, 0);
            } else {
                place += 1;
                prop_assert_eq!(outcome.order, place);
            }
        }
    }

    /// Nothing is granted over what it meets, nor past what waits before it; and each outcome is the one that the claims
    /// before it, looked at one by one, ask for.
    #[test]
    fn no_grant_hurts_another(contest in any_contest(), policy in any_policy()) {
        let decision = arbitrate(&contest, &policy);
        let merges = decision.strategy == Kind::MergeIfSafe;
        let owner = policy.owner_of(&contest.resource);
        let owns = |claim: &Contender| owner == Some(claim.session.as_str());
        let rank = |claim| rank(claim, &contest.resource, &policy);
        let line = ranked(&contest.contenders, &contest.resource, &policy);
        for (at, claim) in line.iter().enumerate() {
            let held = |grants: bool| {
                contest.holders.iter().filter(move |held| {
                    held.token.is_some() == grants
                        && held.expires_ms.is_none_or(|ms| ms > contest.at_ms)
                        && meet(claim, held)
                })
            };
            let ahead = |outcomes: &'static [OutcomeKind]| {
                let before = line[..at].iter().zip(&decision.outcomes);
                before.filter(move |(_, its)| outcomes.contains(&its.outcome)).map(|(other, _)| *other)
            };
            let holders: Vec<&Contender> = held(true).collect();
            let granted: Vec<&Contender> =
                ahead(&[OutcomeKind::Granted]).filter(|other| meet(claim, other)).collect();
            let waiting: Vec<&Contender> = ahead(&[OutcomeKind::Waits, OutcomeKind::Preempts])
                .filter(|other| meet(claim, other))
                .chain(held(false).filter(|held| rank(held) < rank(claim)))
                .collect();
            let met = || holders.iter().chain(&granted).chain(&waiting);
            let safe = merges && met().all(|other| safe(claim, other));
            let preempts = |held: &&Contender| {
                let outranks = decision.strategy == Kind::PriorityWins && claim.priority > held.priority;
                policy.preempt && held.preemptible && !owns(held) && (owns(claim) || outranks)
            };
            let expected = if met().next().is_none() || safe && waiting.is_empty() {
                OutcomeKind::Granted
            } else if granted.is_empty() && waiting.is_empty() && holders.iter().all(preempts) {
                OutcomeKind::Preempts
            } else if owns(claim) || safe {
                OutcomeKind::Waits
            } else if merges || decision.strategy == Kind::ManualReview {
                OutcomeKind::Review
            } else {
                OutcomeKind::Waits
            };
            prop_assert_eq!(decision.outcomes[at].outcome, expected, "{:?}", claim);
        }
    }

    /// all at once is as one after the other, in rank order. Holds without exception: a claim that was granted can
    /// be pre-empted by none that ranks after it, and one that pre-empts waits.
    #[test]
    fn all_at_once_is_as_one_after_the_other(contest in any_contest(), policy in any_policy()) {
        let whole = arbitrate(&contest, &policy);
        let mut holders = contest.holders.clone();
        for (at, claim) in ranked(&contest.contenders, &contest.resource, &policy).into_iter().enumerate() {
            let alone = Contest { contenders: vec![claim.clone()], holders: holders.clone(), ..contest.clone() };
            let decision = arbitrate(&alone, &policy);
            let outcome = &decision.outcomes[0];
            prop_assert_eq!(outcome.outcome, whole.outcomes[at].outcome, "{:?}", claim);
            prop_assert_eq!(outcome.order, u32::from(outcome.outcome != OutcomeKind::Review));
            if at == 0 {
                prop_assert_eq!((decision.stage, &decision.reason), (whole.stage, &whole.reason));
            }
            let token = (outcome.outcome == OutcomeKind::Granted).then_some(100 + at as u64);
            if outcome.outcome != OutcomeKind::Review {
                holders.push(Contender { token, expires_ms: None, ..claim.clone() });
            }
        }
    }

    /// What is gone changes nothing: expired holders, in whatever number.
    #[test]
    fn expired_holders_count_for_nothing(contest in any_contest(), policy in any_policy()) {
        let mut kept = contest.clone();
        kept.holders.retain(|held| held.expires_ms.is_none_or(|ms| ms > contest.at_ms));
        prop_assert_eq!(arbitrate(&kept, &policy), arbitrate(&contest, &policy));
    }

    /// The two forms of a claim and of a policy, that of the ledger and that of serde, are one and lose nothing.
    #[test]
    fn forms_keep_every_value(contest in any_contest(), policy in any_policy()) {
        let small = |number: u64| number <= limit::INTEGER_MAX;
        for claim in &contest.contenders {
            let text = codec::canonical(claim);
            prop_assert_eq!(&serde_json::from_str::<Contender>(&text).unwrap(), claim);
            let numbers = [Some(claim.claim_number), claim.token, claim.expires_ms];
            let in_parts = claim.regions.iter().all(|part| small(part.start) && small(part.end));
            if in_parts && numbers.into_iter().flatten().all(small) {
                prop_assert_eq!(&codec::parse::<Contender>(&text).unwrap(), claim);
            }
        }
        let text = codec::canonical(&policy);
        prop_assert_eq!(&serde_json::from_str::<Policy>(&text).unwrap(), &policy);
        prop_assert_eq!(codec::parse::<Policy>(&text).unwrap(), policy);
    }

    /// Patterns fit as a matcher says that tries every split.
    #[test]
    fn patterns_fit_as_by_trial(pattern in "[ab/*]{0,8}", resource in "[ab/]{0,10}") {
        prop_assert_eq!(fits(&pattern, &resource), fits_by_trial(pattern.as_bytes(), resource.as_bytes()));
    }
}

fn fits_by_trial(pattern: &[u8], text: &[u8]) -> bool {
    let ends = |rest: &[u8], of: &dyn Fn(u8) -> bool| {
        let most = text.iter().take_while(|b| of(**b)).count();
        (0..=most).any(|n| fits_by_trial(rest, &text[n..]))
    };
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => ends(rest, &|_| true),
        [b'*', rest @ ..] => ends(rest, &|b| b != b'/'),
        [first, rest @ ..] => text
            .split_first()
            .is_some_and(|(b, text)| b == first && fits_by_trial(rest, text)),
    }
}
