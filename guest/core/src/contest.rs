//! Contests: a step meets the resources that it claims.
//!
//! | at the moment a step would go out | records |
//! |---|---|
//! | nothing that it claims is held or awaited | claim.granted for each, step.dispatched |
//! | something is | a conflict.detected and a conflict.resolved for each such resource, in name order; then what the outcomes say |
//! | it waited, and nobody stands before it any more | claim.granted for each, step.dispatched |
//!
//! Any refused: the step fails. Else any review: a person is asked. Else any that waits: the step waits. Who gets what is
//! decided by [`crate::arbitration`]; the order of those that wait is kept in [`crate::waiters`].

use crate::arbitration::{self, Contender, Decision, OutcomeKind, Owner, Policy, Strategy};
use crate::claim::{self, Claim};
use crate::dispatch::decide_dispatch;
use crate::draft::Draft;
use crate::escalation::{self, Extra};
use crate::event::{
    Class, Detected, EscalationKind, Event, Failed, Granted, Name, Outcome, Resolved,
};
use crate::hook;
use crate::limit::{CONTEST_HOLDERS_MAX, FREE_RETRIES_MAX};
use crate::message::HookKind;
use crate::order;
use crate::settle;
use crate::state::{Coordination, Grant, State, Step, StepContest};
use crate::waiters::{Place, Waiter};

/// The claims of a step in the order of their resources' names.
fn by_name(step: &Step) -> Vec<&Claim> {
    order::sort(step.def.claims.iter().collect(), |a, b| {
        a.resource.cmp(&b.resource)
    })
}

fn place(coordination: &Coordination, step: &Step) -> Place {
    (coordination.id.clone(), step.id.clone())
}

/// A claim of a step as arbitration sees it.
fn contender(coordination: &Coordination, step: &Step, claim: &Claim, number: u64) -> Contender {
    Contender {
        coordination_id: (*coordination.id).to_owned(),
        step_id: (*step.id).to_owned(),
        attempt: step.attempt,
        session: (*step.session).to_owned(),
        priority: step.def.priority,
        claim_number: step.claim_number.unwrap_or(number),
        mode: claim.mode,
        base_version: claim.base_version.clone(),
        regions: claim.regions.clone(),
        token: None,
        expires_ms: None,
        preemptible: false,
    }
}

/// only attempts that can run again for nothing may be ended in favour of others.
fn is_preemptible(coordination: &Coordination, step: &Step) -> bool {
    step.is_out()
        && step.def.idempotent
        && step.free_retries < FREE_RETRIES_MAX
        && coordination.stop_of(step).is_none()
}

/// A grant as arbitration sees it.
fn holder(coordination: &Coordination, step: &Step, grant: &Grant, now_ms: u64) -> Contender {
    // A lease that rests, or whose end was not recorded yet, is live whatever its time says.
    let runs = !step.is_suspended() && grant.expires_ms > now_ms;
    Contender {
        coordination_id: (*coordination.id).to_owned(),
        step_id: (*step.id).to_owned(),
        attempt: step.attempt,
        session: (*step.session).to_owned(),
        priority: step.def.priority,
        claim_number: step.claim_number.unwrap_or(grant.token),
        mode: grant.mode,
        base_version: grant.base_version.clone(),
        regions: grant.regions.clone(),
        token: Some(grant.token),
        expires_ms: runs.then_some(grant.expires_ms),
        preemptible: is_preemptible(coordination, step),
    }
}

/// The step at a place, which is live.
pub(crate) fn step_at<'a>(
    state: &'a State,
    (id, step): &Place,
) -> Option<(&'a Coordination, &'a Step)> {
    let coordination = state.live.get(id)?;
    let index = coordination.step_index(step)?;
    Some((coordination, &coordination.steps[index]))
}

/// Grants of others that a claim gets in the way of, with whoever holds them.
fn grants_met<'a>(
    state: &'a State,
    own: &Place,
    claim: &Claim,
) -> Vec<(&'a Coordination, &'a Step, &'a Grant)> {
    let met = state
        .index
        .claims
        .grants_met(&claim.resource, claim.mode, own, CONTEST_HOLDERS_MAX);
    let found = |(token, place): (u64, Place)| {
        let (coordination, step) = step_at(state, &place)?;
        let grant = step.grants.iter().find(|grant| grant.token == token)?;
        Some((coordination, step, grant))
    };
    met.into_iter().filter_map(found).collect()
}

/// Who holds what a claim wants; for people.
pub(crate) fn holders_of<'a>(
    state: &'a State,
    coordination: &Coordination,
    step: &Step,
    claim: &Claim,
) -> Vec<(&'a Coordination, &'a Step, &'a Grant)> {
    grants_met(state, &place(coordination, step), claim)
}

/// The contest that a claim is in at this moment, if it meets anything; `number` is that of the record to come.
pub(crate) fn detect(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    claim: &Claim,
    now_ms: u64,
    number: u64,
) -> Option<Detected> {
    let claims = &state.index.claims;
    let waiter = claims.waiter(coordination, step, claim);
    let granted = grants_met(state, &place(coordination, step), claim);
    let met = claims.waiters_met(&claim.resource, &waiter, coordination, step);
    let first = met.iter().find(|(_, ahead)| *ahead).or(met.first());
    let waits = first
        .and_then(|(rank, _)| claims.waiting(rank.number))
        .and_then(|place| step_at(state, place));
    if granted.is_empty() && waits.is_none() {
        return None;
    }
    let mut parties: Vec<&Coordination> = granted.iter().map(|(party, _, _)| *party).collect();
    let mut holders: Vec<Contender> = granted
        .iter()
        .map(|(party, step, grant)| {
            let mut held = holder(party, step, grant, now_ms);
            // What is held of another resource counts whole: its units are others.
            if grant.resource != claim.resource {
                held.regions.clear();
            }
            held
        })
        .collect();
    if let Some((party, other)) = waits {
        parties.push(party);
        // Which of its claims is met does not matter for its place; how it claims it does.
        let met = other
            .def
            .claims
            .iter()
            .filter(|other| claim::overlap(&other.resource, &claim.resource))
            .max_by_key(|other| other.mode);
        holders.extend(met.map(|claim| contender(party, other, claim, 0)));
    }
    Some(Detected {
        contest_id: format!("c{number}"),
        resource: claim.resource.clone(),
        contenders: vec![contender(coordination, step, claim, number)],
        holders,
        policy: policy(
            state,
            coordination,
            step,
            &claim.resource,
            &waiter,
            &parties,
        ),
    })
}

/// inside one coordination its own policy; between several the domain's owners and high-risk resources, the
/// strictest strategy of the parties, and pre-emption only if all of them allow it.
fn policy(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    resource: &str,
    waiter: &Waiter,
    parties: &[&Coordination],
) -> Policy {
    let (waiting_mixed, strategy) =
        state
            .index
            .claims
            .parties_of(resource, waiter, coordination, step);
    let mixed = waiting_mixed || parties.iter().any(|party| party.id != coordination.id);
    let own = &coordination.plan.conflict_policy;
    let strictest = parties
        .iter()
        .map(|party| party.plan.conflict_policy.strategy_of(resource))
        .chain([strategy])
        .min();
    let config = state.config().filter(|_| mixed);
    let high_risk = match config {
        Some(config) => config
            .high_risk
            .iter()
            .any(|pattern| claim::fits(pattern, resource)),
        None => own.is_high_risk(resource),
    };
    let owner = match config {
        Some(config) => config
            .owners
            .iter()
            .find(|owner| claim::fits(&owner.resource, resource))
            .map(|owner| owner.session.as_str()),
        None => coordination.owner_of(resource),
    };
    let agreed = parties
        .iter()
        .all(|party| party.plan.conflict_policy.preempt);
    Policy {
        default: strictest.unwrap_or_default(),
        rules: Vec::new(),
        owners: owner
            .map(|session| Owner {
                resource: resource.to_owned(),
                session: session.to_owned(),
            })
            .into_iter()
            .collect(),
        high_risk: if high_risk {
            vec![resource.to_owned()]
        } else {
            Vec::new()
        },
        preempt: own.preempt && agreed,
    }
}

/// The decision of a contest as it was detected.
pub(crate) fn decide(detected: &Detected, at_ms: u64) -> Decision {
    arbitration::decide(
        &detected.resource,
        at_ms,
        &detected.contenders,
        &detected.holders,
        &detected.policy,
    )
}

/// What a decision means for its one contender: R-48, where nobody can be asked a review is a refusal.
pub(crate) fn outcome(coordination: &Coordination, decision: &Decision) -> OutcomeKind {
    let outcome = decision.outcomes.first().map(|outcome| outcome.outcome);
    match outcome.unwrap_or(OutcomeKind::Refused) {
        OutcomeKind::Review if !coordination.asks() => OutcomeKind::Refused,
        outcome => outcome,
    }
}

/// The record of a decision.
pub(crate) fn resolved(
    step: &Step,
    contest_id: &str,
    decision: Decision,
    outcome: OutcomeKind,
) -> Resolved {
    let placed = !matches!(outcome, OutcomeKind::Refused | OutcomeKind::Review);
    Resolved {
        contest_id: contest_id.to_owned(),
        stage: decision.stage,
        strategy: decision.strategy,
        outcomes: vec![Outcome {
            step_id: (*step.id).to_owned(),
            outcome,
            order: u32::from(placed),
        }],
        reason: decision.reason,
    }
}

/// A step that nothing holds back meets its resources. `seq` is the number of the first record.
pub(crate) fn meet(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
    mut seq: u64,
) -> Vec<Draft> {
    let number = step.claim_number.unwrap_or(seq);
    let mut found: Vec<Detected> = by_name(step)
        .into_iter()
        .filter_map(|claim| detect(state, coordination, step, claim, now_ms, number))
        .collect();
    if found.is_empty() {
        return grant_all(state, coordination, step, now_ms, seq, number);
    }
    let asks = hook::is_registered(state, HookKind::BeforeArbitrate);
    let decisions: Vec<(Decision, OutcomeKind)> = found
        .iter()
        .map(|detected| {
            let decision = decide(detected, now_ms);
            let outcome = outcome(coordination, &decision);
            (decision, outcome)
        })
        .collect();
    let stuck = decisions
        .iter()
        .any(|(_, outcome)| matches!(outcome, OutcomeKind::Refused | OutcomeKind::Review));
    // What follows each of them.
    let mut records = Vec::with_capacity(found.len());
    let mut outcomes = Vec::new();
    let mut cause = step.ready_seq;
    let mut voided = Vec::new();
    for (detected, (decision, outcome)) in found.iter_mut().zip(decisions) {
        let contest = seq;
        detected.contest_id = format!("c{contest}");
        seq += 2;
        if asks {
            let subject = hook::contest_subject(coordination, step, detected);
            let kind = HookKind::BeforeArbitrate;
            records.push(hook::request(
                state,
                coordination,
                step,
                kind,
                &subject,
                now_ms,
                contest,
                contest + 1,
            ));
            continue;
        }
        cause = contest + 1;
        // Nobody's work is ended for a step that cannot go on anyway.
        let outcome = match outcome {
            OutcomeKind::Preempts if stuck => OutcomeKind::Waits,
            outcome => outcome,
        };
        outcomes.push(outcome);
        let record = resolved(step, &detected.contest_id, decision, outcome);
        records.push(Draft::of_step(coordination, step, contest, record));
        if outcome == OutcomeKind::Preempts {
            void_questions(state, detected, &mut voided);
        }
    }
    seq += voided.len() as u64;
    let mut after = Vec::new();
    if !asks {
        let resources: Vec<&str> = found.iter().map(|found| found.resource.as_str()).collect();
        after = follow(
            state,
            coordination,
            step,
            &outcomes,
            &resources,
            &tokens_met(&found),
            now_ms,
            cause,
            seq,
            number,
        );
    }
    let mut drafts = Vec::with_capacity(2 * records.len() + voided.len() + after.len());
    for (detected, record) in found.into_iter().zip(records) {
        let cause = step.ready_seq;
        drafts.push(Draft::of_step(coordination, step, cause, detected));
        drafts.push(record);
    }
    drafts.extend(voided);
    drafts.extend(after);
    drafts
}

/// Questions of attempts that are being ended are not waited for. An attempt may hold several of what is contested.
pub(crate) fn void_questions(state: &State, detected: &Detected, drafts: &mut Vec<Draft>) {
    for holder in detected.holders.iter().filter(|held| held.token.is_some()) {
        let place = (
            Name::from(holder.coordination_id.as_str()),
            Name::from(holder.step_id.as_str()),
        );
        let Some((coordination, step)) = step_at(state, &place).filter(|(_, step)| step.is_out())
        else {
            continue;
        };
        let void = settle::void(coordination, step);
        let known = drafts
            .iter()
            .any(|draft| match (&draft.event, &void.event) {
                (Event::HumanExpired(known), Event::HumanExpired(void)) => known == void,
                _ => false,
            });
        if step.escalation.is_some() && !known {
            drafts.push(void);
        }
    }
}

/// Tokens of those whom contests are with; a person decides about these and no others.
pub(crate) fn tokens_met<'a>(contests: impl IntoIterator<Item = &'a Detected>) -> Vec<u64> {
    let holders = contests.into_iter().flat_map(|contest| &contest.holders);
    holders.filter_map(|holder| holder.token).collect()
}

/// What the outcomes of all contests of a step lead to; `met` are the tokens of those whom they are with.
#[allow(clippy::too_many_arguments)]
pub(crate) fn follow(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    outcomes: &[OutcomeKind],
    resources: &[&str],
    met: &[u64],
    now_ms: u64,
    cause: u64,
    seq: u64,
    number: u64,
) -> Vec<Draft> {
    let has = |kind| outcomes.contains(&kind);
    if has(OutcomeKind::Refused) {
        return vec![refuse(coordination, step, cause, resources)];
    }
    if has(OutcomeKind::Review) {
        let question = format!(
            "{} wants {}, which others hold or await; no rule decides. May it come first?",
            step.id,
            resources.join(", ")
        );
        let kind = EscalationKind::Conflict;
        let extra = Extra {
            met: met.to_vec(),
            ..Extra::default()
        };
        return escalation::open_with(
            coordination,
            step,
            kind,
            question,
            now_ms,
            cause,
            seq,
            extra,
        );
    }
    if has(OutcomeKind::Waits) || has(OutcomeKind::Preempts) {
        return Vec::new();
    }
    grant_all(state, coordination, step, now_ms, seq, number)
}

/// The step fails, since nobody may or will put it first.
pub(crate) fn refuse(
    coordination: &Coordination,
    step: &Step,
    cause: u64,
    resources: &[&str],
) -> Draft {
    let message = format!(
        "{} is contested, and nobody put this step first",
        resources.join(", ")
    );
    fail(coordination, step, cause, "conflict_unresolved", message)
}

/// The step fails before it went out.
pub(crate) fn fail(
    coordination: &Coordination,
    step: &Step,
    cause: u64,
    code: &str,
    message: String,
) -> Draft {
    let failed = Failed {
        implicit_ack: false,
        class: Class::Permanent,
        code: code.to_owned(),
        message: crate::ending::shorten(message),
        payload: None,
        payload_ref: None,
        content_digest: None,
        attempts: step.attempts_made(),
    };
    Draft::of_step(coordination, step, cause, failed)
}

/// The record of one grant.
pub(crate) fn granted(
    coordination: &Coordination,
    step: &Step,
    claim: &Claim,
    now_ms: u64,
    number: u64,
    cause: u64,
) -> Draft {
    let event = Granted {
        resource: claim.resource.clone(),
        mode: claim.mode,
        session: (*step.session).to_owned(),
        lease_ms: claim.lease_ms,
        expires_ms: now_ms + claim.lease_ms,
        claim_number: step.claim_number.unwrap_or(number),
        base_version: claim.base_version.clone(),
        regions: claim.regions.clone(),
    };
    Draft::of_step(coordination, step, cause, event)
}

/// All claims of a step, and the step itself.
fn grant_all(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
    seq: u64,
    number: u64,
) -> Vec<Draft> {
    let decided = |resource: &str| {
        let of = |contest: &&StepContest| contest.detected.resource == resource;
        step.contests.iter().find(of).map(|contest| contest.seq)
    };
    let mut drafts = Vec::new();
    let mut tokens = Vec::new();
    for (place, claim) in by_name(step).into_iter().enumerate() {
        let cause = decided(&claim.resource).unwrap_or(step.ready_seq);
        tokens.push(claim::Token {
            resource: claim.resource.clone(),
            token: seq + place as u64,
        });
        drafts.push(granted(coordination, step, claim, now_ms, number, cause));
    }
    drafts.push(decide_dispatch(state, coordination, step, now_ms, tokens));
    drafts
}

/// Whether no grant of another attempt stands in the way of one.
pub(crate) fn is_free(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    data: &Granted,
) -> bool {
    let claim = Claim {
        resource: data.resource.clone(),
        mode: data.mode,
        lease_ms: data.lease_ms,
        base_version: data.base_version.clone(),
        regions: data.regions.clone(),
    };
    grants_met(state, &place(coordination, step), &claim)
        .into_iter()
        .all(|(other, holder, grant)| {
            // The strictest of all parties decided, which may be stricter than that of these two.
            strategy_between(coordination, other, &claim) >= Strategy::MergeIfSafe
                && is_safe_beside(coordination, step, &claim, other, holder, grant)
        })
}

/// Whether a waiting step can go out.
pub(crate) enum Chance {
    /// Nothing holds it back.
    Yes,
    /// Something does.
    No,
    /// This one can, which holds it back in a circle.
    Other(Place),
}

/// Claim numbers of those that hold a waiting step back; none at all if a grant does.
fn held_back_by(state: &State, coordination: &Coordination, step: &Step) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    for claim in &step.def.claims {
        for (other, holder_step, grant) in grants_met(state, &place(coordination, step), claim) {
            let merges = strategy_between(coordination, other, claim) == Strategy::MergeIfSafe;
            if !merges || !is_safe_beside(coordination, step, claim, other, holder_step, grant) {
                return None;
            }
        }
        let claims = &state.index.claims;
        let waiter = claims.waiter(coordination, step, claim);
        for (rank, ahead) in claims.waiters_met(&claim.resource, &waiter, coordination, step) {
            if ahead {
                order::insert(&mut numbers, rank.number);
            }
        }
    }
    Some(numbers)
}

/// The strictest strategy of two parties.
fn strategy_between(a: &Coordination, b: &Coordination, claim: &Claim) -> Strategy {
    let of = |party: &Coordination| party.plan.conflict_policy.strategy_of(&claim.resource);
    of(a).min(of(b))
}

/// whether a claim and a grant cannot hurt each other. Regions of different resources have no units in common.
fn is_safe_beside(
    coordination: &Coordination,
    step: &Step,
    claim: &Claim,
    other: &Coordination,
    holder_step: &Step,
    grant: &Grant,
) -> bool {
    grant.resource == claim.resource
        && arbitration::is_safe(
            &contender(coordination, step, claim, 0),
            &holder(other, holder_step, grant, 0),
        )
}

/// a waiting step goes out when no grant and no earlier waiter stands in its way. Where the orders of several
/// resources cross, so that a circle of waiters holds itself back, the lowest claim number of the circle goes.
pub(crate) fn chance(state: &State, coordination: &Coordination, step: &Step) -> Chance {
    let own = step.claim_number.unwrap_or_default();
    let Some(circle) = circle(state, coordination, step) else {
        return Chance::No;
    };
    let Some(lowest) = circle.first().copied().filter(|lowest| *lowest != own) else {
        return Chance::Yes;
    };
    match state.index.claims.waiting(lowest) {
        Some(place) => Chance::Other(place.clone()),
        None => Chance::No,
    }
}

/// The waiters that hold each other back behind which this one stands: itself alone if nothing holds it back, none if a
/// grant does.
fn circle(state: &State, coordination: &Coordination, step: &Step) -> Option<Vec<u64>> {
    let own = step.claim_number.unwrap_or_default();
    let barriers = |number: u64| {
        let (coordination, step) = step_at(state, state.index.claims.waiting(number)?)?;
        held_back_by(state, coordination, step)
    };
    let first = held_back_by(state, coordination, step)?;
    if first.is_empty() {
        return Some(vec![own]);
    }
    // Everything that stands before a waiter, directly or not.
    let reach = |from: u64| {
        let mut seen = Vec::new();
        let mut open = vec![from];
        while let Some(number) = open.pop() {
            let found = barriers(number)?;
            if found.is_empty() && number != own {
                // It can go out by itself, and is looked at by itself.
                return None;
            }
            for next in found {
                if order::insert(&mut seen, next) {
                    open.push(next);
                }
            }
        }
        Some(seen)
    };
    // Whoever reaches the fewest stands in a circle that nobody outside holds back.
    let mut best = reach(own)?;
    let mut rest = best.clone();
    while let Some(number) = rest.pop() {
        let reached = reach(number)?;
        if reached.len() < best.len() {
            rest.clone_from(&reached);
            best = reached;
        }
    }
    Some(best)
}

/// A waiting step whose turn it may be; nothing where it is not.
pub(crate) fn retry(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
) -> Result<Vec<Draft>, Option<Place>> {
    match chance(state, coordination, step) {
        Chance::Yes => {
            let seq = state.next_seq();
            Ok(grant_all(state, coordination, step, now_ms, seq, seq))
        }
        Chance::No => Err(None),
        Chance::Other(place) => Err(Some(place)),
    }
}
