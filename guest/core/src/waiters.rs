//! Who holds which resource and who waits for it, in the order in which they get it.
//!
//! An index over the state, by resource: it follows from the grants and the waiting steps and is kept in step with them.
//! Finding whom a claim meets costs the depth of its path and a logarithm of those that wait, not their number. Decides
//! nothing; see [`crate::contest`].
//!
//! The order on a resource: those that a person put first, then the owner, then by priority where every party says
//! priority_wins, then in claim order. Owners are those of the plan while one coordination is alone on the resource,
//! and those of the domain otherwise.

use crate::arbitration::{Owner, Strategy};
use crate::claim::{self, Claim, Mode};
use crate::envelope::Priority;
use crate::event::Name;
use crate::order;
use crate::state::{Coordination, Grant, Step};
use crate::table::{Numbered, Table};

/// A step by its coordination and id.
pub(crate) type Place = (Name, Name);

/// A claim as the order sees it.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) coordination: Name,
    /// The claim number.
    pub(crate) number: u64,
    pub(crate) mode: Mode,
    approved: bool,
    owner: bool,
    domain_owner: bool,
    strategy: Strategy,
    /// 0 is critical, 3 is low.
    tier: u8,
}

/// What an order has of a step that may be another thing when it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    approved: bool,
    claim_number: Option<u64>,
}

impl Facts {
    pub(crate) fn of(step: &Step) -> Self {
        Self {
            approved: step.approved,
            claim_number: step.claim_number,
        }
    }
}

/// Place in an order; less is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    class: u8,
    tier: u8,
    pub(crate) number: u64,
}

/// The parties of an order.
#[derive(Clone, Copy, PartialEq)]
struct Parties {
    /// Of more than one coordination.
    mixed: bool,
    strategy: Strategy,
}

/// One resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// Tokens and their steps, ascending.
    exclusive: Vec<(u64, Place)>,
    shared: Vec<(u64, Place)>,
    /// Those that wait, as keys of several lists; see [`key`].
    waiting: Numbered<()>,
    /// Waiters by coordination and by strategy.
    coordinations: Table<u32>,
    strategies: [u32; 4],
}

/// All resources of a domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    nodes: Table<Node>,
    owners: Vec<Owner>,
    /// Steps by the tokens that they hold, and by the numbers under which they wait.
    held: Numbered<Place>,
    waiting: Numbered<Place>,
    /// Resources that somebody left since they were last looked at, and whether all that wait may go now: whoever leaves
    /// an exclusive place makes way for many, and one who shared it for one that wants it alone.
    freed: Vec<(Name, bool)>,
    /// Steps that began to wait since then.
    fresh: Vec<Place>,
}

const APPROVED: u8 = 0;
const OWNER: u8 = 1;
const DOMAIN_OWNER: u8 = 2;
const ANY: u8 = 3;

/// The strategy under which a step waits for a resource itself, where it does.
fn own_strategy(live: &Coordination, step: &Step, resource: &str) -> Option<Strategy> {
    let waits = step.is_waiter() && step.def.claims.iter().any(|own| own.resource == resource);
    waits.then(|| live.plan.conflict_policy.strategy_of(resource))
}

/// A list of waiters, by class, mode and order, and a place in it: one number, so that one tree holds all lists.
fn key(class: u8, mode: Mode, by_priority: bool, tier: u8, number: u64) -> u64 {
    let list = class * 4 + u8::from(mode == Mode::Shared) * 2 + u8::from(by_priority);
    let tier = if by_priority { tier } else { 0 };
    // Numbers of records are below 2^53.
    u64::from(list) << 60 | u64::from(tier) << 58 | number
}

const NUMBER_MASK: u64 = (1 << 58) - 1;

fn tier_of(priority: Priority) -> u8 {
    match priority {
        Priority::Critical => 0,
        Priority::High => 1,
        Priority::Normal => 2,
        Priority::Low => 3,
    }
}

impl Waiter {
    /// All keys under which it waits.
    fn keys(&self) -> Vec<u64> {
        let mut keys = Vec::with_capacity(8);
        for (class, holds) in [
            (APPROVED, self.approved),
            (OWNER, self.owner),
            (DOMAIN_OWNER, self.domain_owner),
            (ANY, true),
        ] {
            if holds {
                for by_priority in [false, true] {
                    keys.push(key(class, self.mode, by_priority, self.tier, self.number));
                }
            }
        }
        keys
    }

    fn rank(&self, parties: Parties) -> Rank {
        let owns = if parties.mixed {
            self.domain_owner
        } else {
            self.owner
        };
        let by_priority = parties.strategy == Strategy::PriorityWins;
        Rank {
            class: if self.approved {
                0
            } else if owns {
                1
            } else {
                2
            },
            tier: if by_priority { self.tier } else { 0 },
            number: self.number,
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.exclusive.is_empty() && self.shared.is_empty() && self.waiting.len() == 0
    }

    fn grants(&mut self, mode: Mode) -> &mut Vec<(u64, Place)> {
        match mode {
            Mode::Exclusive => &mut self.exclusive,
            Mode::Shared => &mut self.shared,
        }
    }

    /// The parties of the order here, with one more where one is given, whose step may wait here already under another
    /// strategy, which does not count.
    fn parties(&self, also: Option<&Waiter>, not: Option<Strategy>) -> Parties {
        let others = also.map_or(1, |waiter| {
            usize::from(self.coordinations.contains(&waiter.coordination))
        });
        let words = [
            Strategy::ManualReview,
            Strategy::OwnerWins,
            Strategy::MergeIfSafe,
            Strategy::PriorityWins,
        ];
        let here = words.into_iter().find(|strategy| {
            let own = u32::from(not == Some(*strategy));
            self.strategies[*strategy as usize] > own
        });
        let own = also.map(|waiter| waiter.strategy);
        Parties {
            mixed: self.coordinations.len() > others,
            strategy: here.into_iter().chain(own).min().unwrap_or_default(),
        }
    }

    /// The waiters of a list after a number, in order.
    fn list(&self, class: u8, mode: Mode, by_priority: bool) -> impl Iterator<Item = (u8, u64)> {
        let from = key(class, mode, by_priority, 0, 0);
        let until = from | ((1 << 60) - 1);
        self.waiting
            .range_from(from)
            .take_while(move |(key, ())| *key <= until)
            .map(|(key, ())| {
                let tier = u8::try_from(key >> 58 & 3).unwrap_or_default();
                (tier, key & NUMBER_MASK)
            })
    }

    /// The first waiter of a mode other than one.
    fn first(&self, mode: Mode, parties: Parties, other_than: u64) -> Option<Rank> {
        // Most resources that are held nobody waits for.
        if self.waiting.len() == 0 {
            return None;
        }
        let by_priority = parties.strategy == Strategy::PriorityWins;
        let owner = if parties.mixed { DOMAIN_OWNER } else { OWNER };
        for (class, list) in [(0, APPROVED), (1, owner), (2, ANY)] {
            let found = self
                .list(list, mode, by_priority)
                .find(|(_, number)| *number != other_than);
            if let Some((tier, number)) = found {
                return Some(Rank {
                    class,
                    tier,
                    number,
                });
            }
        }
        None
    }

    /// Those that nobody who waits here stands before; if not `all` only one that wants it alone.
    fn heads(&self, all: bool) -> Vec<u64> {
        if self.waiting.len() == 0 {
            return Vec::new();
        }
        let parties = self.parties(None, None);
        let by_priority = parties.strategy == Strategy::PriorityWins;
        let owner = if parties.mixed { DOMAIN_OWNER } else { OWNER };
        let alone = self.first(Mode::Exclusive, parties, u64::MAX);
        let mut heads: Vec<u64> = Vec::new();
        let lists = [(0, APPROVED), (1, owner), (2, ANY)];
        for (class, list) in lists.into_iter().filter(|_| all) {
            for (tier, number) in self.list(list, Mode::Shared, by_priority) {
                let rank = Rank {
                    class,
                    tier,
                    number,
                };
                if alone.is_some_and(|alone| alone < rank) {
                    break;
                }
                heads.push(number);
            }
        }
        let shared = self.first(Mode::Shared, parties, u64::MAX);
        if let Some(alone) = alone.filter(|alone| shared.is_none_or(|shared| *alone < shared)) {
            heads.push(alone.number);
        }
        heads
    }
}

impl Claims {
    /// Sets who owns what between coordinations. The index must be built anew after it.
    pub(crate) fn set_owners(&mut self, owners: &[Owner]) {
        *self = Self {
            owners: owners.to_vec(),
            ..Self::default()
        };
    }

    /// A claim of a step as the order sees it; one without a number yet comes after all that have one.
    pub(crate) fn waiter(&self, live: &Coordination, step: &Step, claim: &Claim) -> Waiter {
        self.waiter_as(live, step, claim, Facts::of(step))
    }

    fn waiter_as(&self, live: &Coordination, step: &Step, claim: &Claim, facts: Facts) -> Waiter {
        let session = Some(&*step.session);
        let domain_owner = self
            .owners
            .iter()
            .find(|owner| claim::fits(&owner.resource, &claim.resource));
        Waiter {
            coordination: live.id.clone(),
            number: facts.claim_number.unwrap_or(NUMBER_MASK),
            mode: claim.mode,
            approved: facts.approved,
            owner: live.owner_of(&claim.resource) == session,
            domain_owner: domain_owner.map(|owner| owner.session.as_str()) == session,
            strategy: live.plan.conflict_policy.strategy_of(&claim.resource),
            tier: tier_of(step.def.priority),
        }
    }

    /// Takes a waiting step in, with all its claims.
    pub(crate) fn add_waiter(&mut self, live: &Coordination, step: &Step) {
        for claim in &step.def.claims {
            let waiter = self.waiter(live, step, claim);
            let node = self.node(&claim.resource);
            let parties = node.parties(None, None);
            for key in waiter.keys() {
                node.waiting.insert(key, ());
            }
            node.strategies[waiter.strategy as usize] += 1;
            match node.coordinations.get_mut(&live.id) {
                Some(count) => *count += 1,
                None => node.coordinations.insert(live.id.clone(), 1),
            }
            // Other parties may mean another order.
            if node.parties(None, None) != parties {
                self.freed(&claim.resource, true);
            }
        }
        let place = (live.id.clone(), step.id.clone());
        self.fresh.push(place.clone());
        if let Some(number) = step.claim_number {
            self.waiting.insert(number, place);
        }
    }

    /// Takes a step that no longer waits out, by what was true of it while it waited.
    pub(crate) fn remove_waiter(&mut self, live: &Coordination, step: &Step, facts: Facts) {
        for claim in &step.def.claims {
            let waiter = self.waiter_as(live, step, claim, facts);
            let node = self.node(&claim.resource);
            let parties = node.parties(None, None);
            for key in waiter.keys() {
                node.waiting.remove(&key);
            }
            node.strategies[waiter.strategy as usize] -= 1;
            if let Some(count) = node.coordinations.get_mut(&live.id) {
                *count -= 1;
                if *count == 0 {
                    node.coordinations.remove(&live.id);
                }
            }
            let all = waiter.mode == Mode::Exclusive || node.parties(None, None) != parties;
            self.freed(&claim.resource, all);
        }
        if let Some(number) = facts.claim_number {
            self.waiting.remove(&number);
        }
    }

    /// A step that stood in the order already may go out from now on.
    pub(crate) fn look_again(&mut self, place: Place) {
        self.fresh.push(place);
    }

    /// Takes a grant in.
    pub(crate) fn add_grant(&mut self, place: Place, grant: &Grant) {
        let entry = (grant.token, place.clone());
        order::insert(self.node(&grant.resource).grants(grant.mode), entry);
        self.held.insert(grant.token, place);
    }

    /// Takes a grant out that was given back or ran out.
    pub(crate) fn remove_grant(&mut self, grant: &Grant) {
        let grants = self.node(&grant.resource).grants(grant.mode);
        grants.retain(|(token, _)| *token != grant.token);
        self.held.remove(&grant.token);
        self.freed(&grant.resource, grant.mode == Mode::Exclusive);
    }

    fn node(&mut self, resource: &str) -> &mut Node {
        if !self.nodes.contains(resource) {
            self.nodes.insert(resource.into(), Node::default());
        }
        self.nodes.get_mut(resource).expect("it was just made")
    }

    /// Notes that a resource has to be looked at, and drops it where nobody is left.
    fn freed(&mut self, resource: &str, all: bool) {
        if self.nodes.get(resource).is_some_and(Node::is_empty) {
            self.nodes.remove(resource);
        }
        order::insert(&mut self.freed, (Name::from(resource), all));
    }

    /// The step that holds a token.
    pub(crate) fn holder(&self, token: u64) -> Option<&Place> {
        self.held.get(&token)
    }

    /// The step that waits under a claim number.
    pub(crate) fn waiting(&self, number: u64) -> Option<&Place> {
        self.waiting.get(&number)
    }

    /// The resource itself, those that contain it and those within it, as far as somebody holds or awaits them.
    fn overlapping<'a>(&'a self, resource: &'a str) -> Vec<(&'a str, &'a Node)> {
        let known = |name: &'a str| Some((name, self.nodes.get(name)?));
        let mut found: Vec<(&str, &Node)> = known(resource).into_iter().collect();
        found.extend(claim::ancestors(resource).filter_map(known));
        let prefix = claim::inner_prefix(resource);
        let inner = self
            .nodes
            .after(Some(&prefix))
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter(|(name, _)| claim::contains(resource, name));
        found.extend(inner.map(|(name, node)| (&**name, node)));
        found
    }

    /// Grants of others that a claim gets in the way of, by token: at most so many, the first ones.
    pub(crate) fn grants_met(
        &self,
        resource: &str,
        mode: Mode,
        own: &Place,
        most: usize,
    ) -> Vec<(u64, Place)> {
        let mut met: Vec<(u64, Place)> = Vec::new();
        for (_, node) in self.overlapping(resource) {
            let shared = node
                .shared
                .iter()
                .filter(|_| mode == Mode::Exclusive)
                .filter(|(_, place)| place != own)
                .take(most);
            let alone = node.exclusive.iter().filter(|(_, place)| place != own);
            for entry in alone.take(most).chain(shared) {
                order::insert(&mut met, entry.clone());
            }
        }
        met.truncate(most);
        met
    }

    /// Those that wait and that a claim gets in the way of: the first on each overlapping resource, with whether it
    /// comes before the claim.
    pub(crate) fn waiters_met(
        &self,
        resource: &str,
        waiter: &Waiter,
        live: &Coordination,
        step: &Step,
    ) -> Vec<(Rank, bool)> {
        let mut met = Vec::new();
        for (name, node) in self.overlapping(resource) {
            let parties = node.parties(Some(waiter), own_strategy(live, step, name));
            let own = waiter.rank(parties);
            for mode in [Mode::Exclusive, Mode::Shared] {
                if mode == Mode::Shared && waiter.mode == Mode::Shared {
                    continue;
                }
                if let Some(first) = node.first(mode, parties, waiter.number) {
                    order::insert(&mut met, (first, first < own));
                }
            }
        }
        met
    }

    /// Whether those that wait for a resource, and one more, are of several coordinations, and their strictest strategy.
    pub(crate) fn parties_of(
        &self,
        resource: &str,
        waiter: &Waiter,
        live: &Coordination,
        step: &Step,
    ) -> (bool, Strategy) {
        match self.nodes.get(resource) {
            Some(node) => {
                let parties = node.parties(Some(waiter), own_strategy(live, step, resource));
                (parties.mixed, parties.strategy)
            }
            None => (false, waiter.strategy),
        }
    }

    /// The steps that may have come to the head of an order since this was asked last.
    pub(crate) fn take_heads(&mut self) -> Vec<Place> {
        let mut places = std::mem::take(&mut self.fresh);
        for (resource, all) in std::mem::take(&mut self.freed) {
            for (_, node) in self.overlapping(&resource) {
                let place = |number| self.waiting.get(&number).cloned();
                places.extend(node.heads(all).into_iter().filter_map(place));
            }
        }
        places
    }

    /// How many stand before a waiting claim on its resource; for people, who count.
    pub(crate) fn place_of(&self, resource: &str, waiter: &Waiter) -> usize {
        let Some(node) = self.nodes.get(resource) else {
            return 0;
        };
        let parties = node.parties(Some(waiter), None);
        let own = waiter.rank(parties);
        let by_priority = parties.strategy == Strategy::PriorityWins;
        let owner = if parties.mixed { DOMAIN_OWNER } else { OWNER };
        let mut before: Vec<u64> = Vec::new();
        for (class, list) in [(0, APPROVED), (1, owner), (2, ANY)] {
            for mode in [Mode::Exclusive, Mode::Shared] {
                for (tier, number) in node.list(list, mode, by_priority) {
                    let rank = Rank {
                        class,
                        tier,
                        number,
                    };
                    if rank >= own {
                        break;
                    }
                    order::insert(&mut before, number);
                }
            }
        }
        before.retain(|number| *number != waiter.number);
        before.len()
    }
}
