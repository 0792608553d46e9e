//! Arbitration: who gets a resource that several steps claim, as a pure function of the contest and the policy.
//!
//! In this order: ownership puts the owner first; a live lease stays, unless the policy lets it be pre-empted; the
//! strategy orders those that wait, merges claims that cannot hurt each other, or asks a person.
//!
//! | strategy | a claim that meets another one |
//! |---|---|
//! | owner_wins | waits: the owner first, then in claim order |
//! | priority_wins | waits: the owner first, then by priority, then in claim order |
//! | merge_if_safe | is granted beside it if both have the same base version and disjoint regions; else as manual_review |
//! | manual_review | is put to a person; the owner of the resource waits at the head of the order instead |
//!
//! Knows no state, and gives the same decision whatever order contenders and holders are listed in. What a decision does
//! to steps is in `contest.rs`.

use crate::claim::{self, Mode, Region};
use crate::codec::{object, words};
use crate::envelope::Priority;
use crate::order;
use crate::take::take;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// What decides between claims that overlap. Declared from the strictest on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A person.
    ManualReview,
    /// The owner first, then in claim order.
    #[default]
    OwnerWins,
    /// Both, where that is safe; else a person.
    MergeIfSafe,
    /// The owner first, then the higher priority, then in claim order.
    PriorityWins,
}

/// The strategy of the resources of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `kind:path` with `*` within a segment and `**` across segments; at most 512 bytes.
    pub resource: String,
    /// The strategy.
    pub strategy: Strategy,
}

/// The owner of the resources of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// As in a rule.
    pub resource: String,
    /// The session that owns them.
    pub session: String,
}

/// What decides contests. The first rule, and the first owner, whose pattern fits the resource counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// Where no rule fits.
    pub default: Strategy,
    /// At most 256.
    pub rules: Vec<Rule>,
    /// At most 256.
    pub owners: Vec<Owner>,
    /// Patterns of resources whose contests a person decides, whatever the rules say; at most 256.
    pub high_risk: Vec<String>,
    /// Whether the owner, or under priority_wins a higher priority, may end the attempt of a holder.
    pub preempt: bool,
}

/// A claim in a contest: one to decide, or one that was decided before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contender {
    /// Its coordination.
    pub coordination_id: String,
    /// Its step.
    pub step_id: String,
    /// Its attempt.
    pub attempt: u32,
    /// The session that the step runs in; ownership goes by it.
    pub session: String,
    /// Priority of the step.
    pub priority: Priority,
    /// Number of the step's first conflict.detected or claim.granted record; lower is earlier.
    pub claim_number: u64,
    /// How it claims the resource.
    pub mode: Mode,
    /// What it is based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<String>,
    /// Which parts; empty for all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Region>,
    /// Of a holder the token of its grant; none for one that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Of a holder when its lease ends; none for one that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Of a holder whether its attempt may be ended in favour of another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preemptible: bool,
}

/// Claims that overlap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contest {
    /// The resource.
    pub resource: String,
    /// When; leases that end at or before this are over.
    pub at_ms: u64,
    /// Claims to decide.
    pub contenders: Vec<Contender>,
    /// Claims decided before: grants, with their tokens, and one that waits ahead.
    #[serde(default)]
    pub holders: Vec<Contender>,
}

/// Which rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The owner comes first.
    Ownership,
    /// A live lease stays.
    Lease,
    /// The strategy.
    Strategy,
    /// A hook said so.
    Hook,
    /// A person said so.
    Human,
}

/// What a contender gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// The resource.
    Granted,
    /// A place in the order.
    Waits,
    /// Nothing.
    Refused,
    /// A person's decision.
    Review,
    /// The resource, once the holders' attempts were ended.
    Preempts,
}

/// The outcome of one contender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContenderOutcome {
    /// Its coordination.
    pub coordination_id: String,
    /// Its step.
    pub step_id: String,
    /// What it gets.
    pub outcome: OutcomeKind,
    /// Its place among the contenders, from 1; 0 where it has none.
    pub order: u32,
}

/// What arbitration answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decision {
    /// The rule that decided for the first contender in the order.
    pub stage: Stage,
    /// The strategy in force.
    pub strategy: Strategy,
    /// One for each contender, in their order.
    pub outcomes: Vec<ContenderOutcome>,
    /// A sentence for people.
    pub reason: String,
}

words!(Strategy {
    ManualReview = "manual_review",
    OwnerWins = "owner_wins",
    MergeIfSafe = "merge_if_safe",
    PriorityWins = "priority_wins",
});
words!(Stage {
    Ownership = "ownership",
    Lease = "lease",
    Strategy = "strategy",
    Hook = "hook",
    Human = "human",
});
words!(OutcomeKind {
    Granted = "granted",
    Waits = "waits",
    Refused = "refused",
    Review = "review",
    Preempts = "preempts",
});
object!(taken Rule { "resource": req resource, "strategy": req strategy, });
object!(taken Owner { "resource": req resource, "session": req session, });
take!(Contest {
    "resource": req resource,
    "atMs": req at_ms,
    "contenders": req contenders,
    "holders": def holders,
});
object!(write ContenderOutcome {
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "outcome": req outcome,
    "order": req order,
});
object!(write Decision {
    "stage": req stage,
    "strategy": req strategy,
    "outcomes": req outcomes,
    "reason": req reason,
});
object!(taken Policy {
    "default": def default,
    "rules": def rules,
    "owners": def owners,
    "highRisk": def high_risk,
    "preempt": def preempt,
});
object!(taken Contender {
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "attempt": req attempt,
    "session": req session,
    "priority": req priority,
    "claimNumber": req claim_number,
    "mode": req mode,
    "baseVersion": opt base_version,
    "regions": set regions,
    "token": opt token,
    "expiresMs": opt expires_ms,
    "preemptible": set preemptible,
});

impl Policy {
    /// The strategy for a resource: manual_review for a high-risk one, else that of the first rule that fits.
    #[must_use]
    pub fn strategy_of(&self, resource: &str) -> Strategy {
        if self.is_high_risk(resource) {
            return Strategy::ManualReview;
        }
        let rule = self
            .rules
            .iter()
            .find(|rule| claim::fits(&rule.resource, resource));
        rule.map_or(self.default, |rule| rule.strategy)
    }

    /// Whether a pattern of high risk fits a resource.
    #[must_use]
    pub fn is_high_risk(&self, resource: &str) -> bool {
        self.high_risk
            .iter()
            .any(|pattern| claim::fits(pattern, resource))
    }

    /// The session that owns a resource.
    #[must_use]
    pub fn owner_of(&self, resource: &str) -> Option<&str> {
        let owner = self
            .owners
            .iter()
            .find(|owner| claim::fits(&owner.resource, resource));
        owner.map(|owner| owner.session.as_str())
    }
}

/// Whether two claims on overlapping resources get in each other's way.
#[must_use]
pub fn conflict(a: Mode, b: Mode) -> bool {
    a == Mode::Exclusive || b == Mode::Exclusive
}

/// the same base version, and no unit touched by both.
pub(crate) fn is_safe(a: &Contender, b: &Contender) -> bool {
    a.base_version.is_some()
        && a.base_version == b.base_version
        && claim::are_disjoint(&a.regions, &b.regions)
}

fn is_same(a: &Contender, b: &Contender) -> bool {
    a.coordination_id == b.coordination_id && a.step_id == b.step_id
}

/// What a contest looks like under its policy.
struct Rules<'a> {
    strategy: Strategy,
    owner: Option<&'a str>,
    preempt: bool,
}

impl Rules<'_> {
    fn owns(&self, claim: &Contender) -> bool {
        self.owner == Some(claim.session.as_str())
    }

    /// Which of two claims comes first.
    fn order(&self, a: &Contender, b: &Contender) -> Ordering {
        let by_priority = match self.strategy {
            Strategy::PriorityWins => b.priority.cmp(&a.priority),
            _ => Ordering::Equal,
        };
        self.owns(b)
            .cmp(&self.owns(a))
            .then(by_priority)
            .then(a.claim_number.cmp(&b.claim_number))
            .then_with(|| a.coordination_id.cmp(&b.coordination_id))
            .then_with(|| a.step_id.cmp(&b.step_id))
            .then(a.attempt.cmp(&b.attempt))
            // Two claims of one step: whatever else the outcome depends on, so that the order given never counts.
            .then(a.mode.cmp(&b.mode))
            .then_with(|| a.base_version.cmp(&b.base_version))
            .then_with(|| a.regions.cmp(&b.regions))
    }

    /// Whether the attempt of a holder may be ended for this claim.
    fn may_preempt(&self, claim: &Contender, holder: &Contender) -> bool {
        let outranks = match self.strategy {
            Strategy::PriorityWins => claim.priority > holder.priority,
            _ => false,
        };
        self.preempt && holder.preemptible && !self.owns(holder) && (self.owns(claim) || outranks)
    }

    /// What one claim gets against those that were there before it.
    fn decide(&self, claim: &Contender, scene: &Scene) -> OutcomeKind {
        let held = scene.held.stops(claim);
        let granted = scene.granted.stops(claim);
        let waits = scene.waiting.stops(claim);
        if !held && !granted && !waits {
            return OutcomeKind::Granted;
        }
        let safe = self.strategy == Strategy::MergeIfSafe && scene.is_safe(claim);
        if safe && !waits {
            return OutcomeKind::Granted;
        }
        if self.preempt && held && !granted && !waits {
            let mut holders = scene.holders.iter().filter(|held| meet(claim, held));
            if holders.all(|held| self.may_preempt(claim, held)) {
                return OutcomeKind::Preempts;
            }
        }
        let asks = match self.strategy {
            Strategy::ManualReview => true,
            Strategy::MergeIfSafe => !safe,
            Strategy::OwnerWins | Strategy::PriorityWins => false,
        };
        if asks && !self.owns(claim) {
            OutcomeKind::Review
        } else {
            OutcomeKind::Waits
        }
    }

    /// Which rule gave a claim its outcome.
    fn stage(&self, claim: &Contender, outcome: OutcomeKind, scene: &Scene) -> Stage {
        let held = scene.held.stops(claim);
        match outcome {
            OutcomeKind::Review => Stage::Strategy,
            OutcomeKind::Granted if held => Stage::Strategy,
            OutcomeKind::Waits if held && self.owns(claim) => Stage::Lease,
            _ if self.owns(claim) => Stage::Ownership,
            _ if scene
                .others()
                .any(|other| self.owns(other) && meet(claim, other)) =>
            {
                Stage::Ownership
            }
            _ => Stage::Strategy,
        }
    }
}

/// Whether two claims on overlapping resources are of different steps and in conflict.
fn meet(a: &Contender, b: &Contender) -> bool {
    conflict(a.mode, b.mode) && !is_same(a, b)
}

/// Of which steps there are claims: no more than it takes to tell whether there is one of another step.
#[derive(Clone, Copy, Default)]
enum Steps<'a> {
    #[default]
    None,
    One(&'a Contender),
    Several,
}

impl<'a> Steps<'a> {
    fn add(&mut self, claim: &'a Contender) {
        *self = match *self {
            Self::None => Self::One(claim),
            Self::One(first) if is_same(first, claim) => Self::One(first),
            _ => Self::Several,
        };
    }

    fn has_other_than(self, claim: &Contender) -> bool {
        match self {
            Self::None => false,
            Self::One(first) => !is_same(first, claim),
            Self::Several => true,
        }
    }
}

/// The claims of one kind; summed up, so that a contest of many takes no time in the square of their number.
#[derive(Default)]
struct Crowd<'a> {
    all: Steps<'a>,
    exclusive: Steps<'a>,
}

impl<'a> Crowd<'a> {
    fn add(&mut self, claim: &'a Contender) {
        self.all.add(claim);
        if claim.mode == Mode::Exclusive {
            self.exclusive.add(claim);
        }
    }

    /// Whether one of them meets this claim.
    fn stops(&self, claim: &Contender) -> bool {
        match claim.mode {
            Mode::Exclusive => self.all,
            Mode::Shared => self.exclusive,
        }
        .has_other_than(claim)
    }
}

/// The parts taken, where all claims are for parts of one base: whoever takes none of them is safe beside all.
#[derive(Default)]
struct Parts<'a> {
    base: Option<&'a str>,
    /// Sorted, and none touches the next.
    taken: Vec<Region>,
    /// There was a claim of another base, without a base, or without proper regions.
    mixed: bool,
}

impl<'a> Parts<'a> {
    /// The base of a claim for proper parts of it.
    fn base_of(claim: &Contender) -> Option<&str> {
        let proper = claim.regions.iter().all(|part| part.start < part.end);
        let base = claim.base_version.as_deref();
        base.filter(|_| proper && !claim.regions.is_empty())
    }

    fn add(&mut self, claim: &'a Contender) {
        let base = Self::base_of(claim);
        self.mixed |= base.is_none() || self.base.is_some() && self.base != base;
        if self.mixed {
            return;
        }
        self.base = base;
        for part in &claim.regions {
            let from = self.taken.partition_point(|taken| taken.end < part.start);
            let to = self.taken.partition_point(|taken| taken.start <= part.end);
            let mut whole = *part;
            for touched in &self.taken[from..to] {
                whole.start = whole.start.min(touched.start);
                whole.end = whole.end.max(touched.end);
            }
            self.taken.splice(from..to, [whole]);
        }
    }

    /// Whether a claim is safe beside all, as far as that shows without looking at each.
    fn are_free(&self, claim: &Contender) -> bool {
        let is_free = |part: &Region| {
            let next = self.taken.partition_point(|taken| taken.end <= part.start);
            self.taken
                .get(next)
                .is_none_or(|taken| taken.start >= part.end)
        };
        let base = Self::base_of(claim);
        !self.mixed && base.is_some() && self.base == base && claim.regions.iter().all(is_free)
    }
}

/// What was there before a claim.
#[derive(Default)]
struct Scene<'a> {
    /// Live grants.
    held: Crowd<'a>,
    /// Contenders before it that are granted.
    granted: Crowd<'a>,
    /// What waits before it.
    waiting: Crowd<'a>,
    /// The parts of all of them.
    parts: Parts<'a>,
    /// Live grants, one by one.
    holders: Vec<&'a Contender>,
    /// What is granted or waits before it, one by one.
    ahead: Vec<&'a Contender>,
}

impl<'a> Scene<'a> {
    fn hold(&mut self, held: &'a Contender) {
        self.held.add(held);
        self.parts.add(held);
        self.holders.push(held);
    }

    /// Puts a claim into the order: with the resource, or waiting for it.
    fn add(&mut self, claim: &'a Contender, granted: bool) {
        let crowd = if granted {
            &mut self.granted
        } else {
            &mut self.waiting
        };
        crowd.add(claim);
        self.parts.add(claim);
        self.ahead.push(claim);
    }

    /// All that are neither gone nor under review.
    fn others(&self) -> impl Iterator<Item = &'a Contender> {
        self.holders.iter().chain(&self.ahead).copied()
    }

    /// R-46, for all that this claim meets.
    fn is_safe(&self, claim: &Contender) -> bool {
        let is_fine = |other: &Contender| {
            !conflict(claim.mode, other.mode) || is_safe(claim, other) || is_same(claim, other)
        };
        self.parts.are_free(claim) || self.others().all(is_fine)
    }
}

/// Decides a contest. Every contest has a decision.
#[must_use]
pub fn arbitrate(contest: &Contest, policy: &Policy) -> Decision {
    decide(
        &contest.resource,
        contest.at_ms,
        &contest.contenders,
        &contest.holders,
        policy,
    )
}

/// The same, of a contest whose parts stand elsewhere.
pub(crate) fn decide(
    resource: &str,
    at_ms: u64,
    contenders: &[Contender],
    holders: &[Contender],
    policy: &Policy,
) -> Decision {
    let rules = Rules {
        strategy: policy.strategy_of(resource),
        owner: policy.owner_of(resource),
        preempt: policy.preempt,
    };
    let live = holders
        .iter()
        .filter(|held| held.expires_ms.is_none_or(|expires| expires > at_ms));
    let mut scene = Scene::default();
    // Those to decide, and among them, in their place, those that wait already.
    let mut line: Vec<(&Contender, bool)> = Vec::with_capacity(contenders.len());
    line.extend(contenders.iter().map(|claim| (claim, true)));
    for held in live {
        if held.token.is_some() {
            scene.hold(held);
        } else {
            line.push((held, false));
        }
    }
    let mut outcomes = Vec::with_capacity(contenders.len());
    let mut first = None;
    let mut place = 0;
    for (claim, open) in order::sort(line, |a, b| rules.order(a.0, b.0)) {
        if !open {
            scene.add(claim, false);
            continue;
        }
        let outcome = rules.decide(claim, &scene);
        first.get_or_insert_with(|| (outcome, rules.stage(claim, outcome, &scene), claim));
        let placed = outcome != OutcomeKind::Review;
        if placed {
            scene.add(claim, outcome == OutcomeKind::Granted);
        }
        place += u32::from(placed);
        outcomes.push(ContenderOutcome {
            coordination_id: claim.coordination_id.clone(),
            step_id: claim.step_id.clone(),
            outcome,
            order: if placed { place } else { 0 },
        });
    }
    let (stage, reason) = match first {
        Some((outcome, stage, claim)) => (stage, rules.reason(outcome, stage, claim)),
        None => (Stage::Strategy, "nothing to decide".to_owned()),
    };
    Decision {
        stage,
        strategy: rules.strategy,
        outcomes,
        reason,
    }
}

impl Rules<'_> {
    fn reason(&self, outcome: OutcomeKind, stage: Stage, claim: &Contender) -> String {
        let step = &claim.step_id;
        let strategy = self.strategy.name();
        match (outcome, stage) {
            (OutcomeKind::Granted, Stage::Ownership) if self.owns(claim) => {
                format!("{step} runs in the session that owns the resource")
            }
            (OutcomeKind::Granted, _) => {
                format!("nothing stands in the way of {step} under {strategy}")
            }
            (OutcomeKind::Preempts, _) => {
                format!("{step} outranks what holds the resource, whose attempt is ended")
            }
            (OutcomeKind::Review, _) => format!("{strategy} asks a person about {step}"),
            (_, Stage::Lease) => {
                format!("{step} owns the resource and is first, but a live lease stays")
            }
            (_, Stage::Ownership) => format!("{step} waits for the owner of the resource"),
            _ => format!("{step} waits under {strategy}"),
        }
    }
}
