//! Leases of running steps: one more claim, renewal, release, expiry, and the guard.
//!
//! What a plan declares is taken at dispatch; see [`crate::contest`]. Nothing here waits: a resource that is taken is
//! refused, with its holder's name.

use crate::arbitration::{Contender, OutcomeKind};
use crate::claim::{self, Access, Claim, ClaimRequest, Mode, Region};
use crate::contest;
use crate::decision::Decision;
use crate::draft::Draft;
use crate::ending::{Ending, decide_end};
use crate::event::{Class, Expired, ReleaseReason, Released, Renewed};
use crate::id::check_bytes;
use crate::limit;
use crate::message::Caller;
use crate::order;
use crate::receipt::{GrantReceipt, GuardVerdict, Rejection, RejectionCode, Remedy};
use crate::state::{Coordination, Grant, State, Step, StepState};
use crate::step::{find_coordination, find_step};

/// The running attempt that a caller speaks for.
fn find_running<'a>(
    state: &'a State,
    caller: &Caller,
    id: &str,
    step_id: &str,
    attempt: u32,
) -> Result<(&'a Coordination, &'a Step), Rejection> {
    let coordination = find_coordination(state, id)?;
    let step = find_step(coordination, step_id)?;
    if caller.session != *step.session {
        let says = format!(
            "{} does not do {step_id}; {} does",
            caller.session, step.session
        );
        return Err(Rejection::new(
            RejectionCode::UnauthorizedSession,
            "caller",
            says,
        ));
    }
    if attempt > step.attempt {
        let says = format!("is {attempt}; the current attempt is {}", step.attempt);
        return Err(Rejection::new(
            RejectionCode::UnknownAttempt,
            "attempt",
            says,
        ));
    }
    let runs = matches!(step.state, StepState::Dispatched | StepState::Acknowledged);
    if attempt < step.attempt || !runs {
        let says = format!(
            "attempt {attempt} does not run; {step_id} is {} at attempt {}",
            step.state.name(),
            step.attempt
        );
        return Err(Rejection::new(RejectionCode::NotRunning, "attempt", says));
    }
    Ok((coordination, step))
}

/// Tests the form of a request; its claim with the resource in its normal form.
fn check_request(request: &ClaimRequest) -> Result<Claim, Rejection> {
    let invalid = |field: &str, says| Rejection::new(RejectionCode::InvalidField, field, says);
    let resource =
        claim::normal_form(&request.resource).map_err(|says| invalid("resource", says))?;
    if !(1..=limit::DURATION_MS_MAX).contains(&request.lease_ms) {
        let says = format!(
            "is {}; 1..{} are allowed",
            request.lease_ms,
            limit::DURATION_MS_MAX
        );
        return Err(invalid("leaseMs", says));
    }
    if let Some(version) = &request.base_version {
        check_bytes(version, 1, limit::BASE_VERSION_BYTES_MAX)
            .map_err(|says| invalid("baseVersion", says))?;
    }
    claim::check_regions(&request.regions).map_err(|says| invalid("regions", says))?;
    Ok(Claim {
        resource,
        mode: request.mode,
        lease_ms: request.lease_ms,
        base_version: request.base_version.clone(),
        regions: request.regions.clone(),
    })
}

fn same(grant: &Grant, claim: &Claim) -> bool {
    grant.resource == claim.resource
        && grant.mode == claim.mode
        && grant.base_version == claim.base_version
        && grant.regions == claim.regions
}

/// Decides one more claim of a running step.
pub(crate) fn decide_claim(
    state: &State,
    now_ms: u64,
    caller: &Caller,
    request: &ClaimRequest,
) -> Decision {
    let found = check_request(request).and_then(|claim| {
        let (id, step_id) = (&request.coordination_id, &request.step_id);
        let (coordination, step) = find_running(state, caller, id, step_id, request.attempt)?;
        Ok((claim, coordination, step))
    });
    let (claim, coordination, step) = match found {
        Ok(found) => found,
        Err(rejection) => return Decision::refuse(rejection),
    };
    if step.grants.iter().any(|grant| same(grant, &claim)) {
        return Decision::replay(step.state.name());
    }
    if step.grants.len() >= limit::STEP_CLAIMS_MAX {
        let says = format!(
            "{} holds {} grants; {} are allowed",
            step.id,
            step.grants.len(),
            limit::STEP_CLAIMS_MAX
        );
        return Decision::refuse(Rejection::new(RejectionCode::Bound, "resource", says));
    }
    let seq = state.next_seq();
    let Some(detected) = contest::detect(state, coordination, step, &claim, now_ms, seq) else {
        let draft = contest::granted(coordination, step, &claim, now_ms, seq, step.last_seq);
        return Decision::accept(vec![draft]);
    };
    let decision = contest::decide(&detected, now_ms);
    if contest::outcome(coordination, &decision) != OutcomeKind::Granted {
        return Decision::refuse(refusal(&claim, &detected.holders, now_ms));
    }
    let outcome = OutcomeKind::Granted;
    let record = contest::resolved(step, &detected.contest_id, decision, outcome);
    Decision::accept(vec![
        Draft::of_step(coordination, step, step.last_seq, detected),
        Draft::of_step(coordination, step, seq, record),
        contest::granted(coordination, step, &claim, now_ms, seq, seq + 1),
    ])
}

/// Who has it, and when to try again.
fn refusal(claim: &Claim, holders: &[Contender], now_ms: u64) -> Rejection {
    let ends = holders.iter().filter_map(|held| held.expires_ms).min();
    let after_ms = ends.map_or(limit::RETRY_AFTER_MS, |ends| {
        ends.saturating_sub(now_ms).clamp(1, limit::RETRY_AFTER_MS)
    });
    let says = match holders.first() {
        Some(held) if held.token.is_some() => {
            let until = ends.map_or(String::new(), |ends| {
                format!(", until {ends} at the latest")
            });
            format!(
                "{} is held by {} of {} in session {}{until}",
                claim.resource, held.step_id, held.coordination_id, held.session
            )
        }
        Some(held) => format!(
            "{} is awaited by {} of {}, which came first",
            claim.resource, held.step_id, held.coordination_id
        ),
        None => format!("{} is taken", claim.resource),
    };
    Rejection {
        next: Remedy::Retry { after_ms },
        ..Rejection::new(RejectionCode::ClaimRefused, "resource", says)
    }
}

/// The grant of a claim that was just taken, or was there.
pub(crate) fn grant_of(state: &State, request: &ClaimRequest) -> Option<GrantReceipt> {
    let claim = check_request(request).ok()?;
    let coordination = state.live.get(&request.coordination_id)?;
    let index = coordination.step_index(&request.step_id)?;
    let grants = &coordination.steps[index].grants;
    grants
        .iter()
        .rfind(|grant| same(grant, &claim))
        .map(receipt)
}

fn receipt(grant: &Grant) -> GrantReceipt {
    GrantReceipt {
        resource: grant.resource.clone(),
        token: grant.token,
        expires_ms: grant.expires_ms,
    }
}

/// The grants of a live attempt with these tokens, or all.
pub(crate) fn grants_of(
    state: &State,
    id: &str,
    step_id: &str,
    tokens: &[u64],
) -> Vec<GrantReceipt> {
    let Some(coordination) = state.live.get(id) else {
        return Vec::new();
    };
    let Some(index) = coordination.step_index(step_id) else {
        return Vec::new();
    };
    coordination.steps[index]
        .grants
        .iter()
        .filter(|grant| tokens.is_empty() || tokens.contains(&grant.token))
        .map(receipt)
        .collect()
}

/// leases begin anew, with one record for each end that they get.
pub(crate) fn renewals(
    coordination: &Coordination,
    step: &Step,
    tokens: &[u64],
    now_ms: u64,
    cause: Option<u64>,
) -> Vec<Draft> {
    let wanted = |grant: &&Grant| tokens.is_empty() || tokens.contains(&grant.token);
    let mut leases: Vec<u64> = Vec::new();
    for grant in step.grants.iter().filter(wanted) {
        order::insert(&mut leases, grant.lease_ms);
    }
    let renew = |lease_ms: u64| {
        let of = step.grants.iter().filter(wanted);
        let of: Vec<u64> = of
            .filter(|grant| grant.lease_ms == lease_ms)
            .map(|grant| grant.token)
            .collect();
        let first = of.first().copied().unwrap_or_default();
        let event = Renewed {
            tokens: of,
            expires_ms: now_ms + lease_ms,
        };
        Draft::of_step(coordination, step, cause.unwrap_or(first), event)
    };
    leases.into_iter().map(renew).collect()
}

/// Decides a renewal or, with `give_back`, a release.
#[allow(clippy::too_many_arguments)]
pub(crate) fn decide_lease(
    state: &State,
    now_ms: u64,
    caller: &Caller,
    id: &str,
    step_id: &str,
    attempt: u32,
    tokens: &[u64],
    give_back: bool,
) -> Decision {
    let (coordination, step) = match find_running(state, caller, id, step_id, attempt) {
        Ok(found) => found,
        Err(rejection) => return Decision::refuse(rejection),
    };
    let held = |token: &u64| step.grants.iter().any(|grant| grant.token == *token);
    if let Some(token) = tokens.iter().find(|token| !held(token)) {
        let says = format!("{token} is no token that attempt {attempt} of {step_id} holds");
        return Decision::refuse(Rejection::new(RejectionCode::UnknownKey, "tokens", says));
    }
    if step.grants.is_empty() {
        return Decision::replay(step.state.name());
    }
    if !give_back {
        return Decision::accept(renewals(coordination, step, tokens, now_ms, None));
    }
    let tokens = step
        .grants
        .iter()
        .map(|grant| grant.token)
        .filter(|token| tokens.is_empty() || tokens.contains(token));
    let tokens: Vec<u64> = tokens.collect();
    let cause = tokens.first().copied().unwrap_or(step.last_seq);
    let reason = ReleaseReason::Released;
    Decision::accept(vec![Draft::of_step(
        coordination,
        step,
        cause,
        Released { tokens, reason },
    )])
}

/// leases of an attempt ran out, and the attempt with them.
pub(crate) fn decide_expiry(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
) -> Vec<Draft> {
    let due = step
        .grants
        .iter()
        .filter(|grant| grant.expires_ms <= now_ms);
    let mut drafts: Vec<Draft> = due
        .map(|grant| {
            let event = Expired {
                token: grant.token,
                resource: grant.resource.clone(),
            };
            Draft::of_step(coordination, step, grant.token, event)
        })
        .collect();
    let says = format!("{} lease(s) ran out at {now_ms}", drafts.len());
    // whoever is being ended in favour of another is retried for nothing, also when its lease ends first.
    let ending = match step.preempted {
        Some(_) => Ending::found(Class::Preempted, "preempted", says),
        None => Ending::found(Class::Retryable, "lease_lost", says),
    };
    let seq = state.next_seq() + drafts.len() as u64;
    drafts.extend(decide_end(coordination, step, now_ms, ending, seq));
    drafts
}

/// What is left of the grants of an attempt that has ended.
pub(crate) fn release_rest(
    coordination: &Coordination,
    step: &Step,
    attempt: u32,
    cause: u64,
    reason: ReleaseReason,
) -> Option<Draft> {
    let tokens: Vec<u64> = step.grants.iter().map(|grant| grant.token).collect();
    let released = Released { tokens, reason };
    (!released.tokens.is_empty())
        .then(|| Draft::of_step(coordination, step, cause, released).for_attempt(attempt))
}

/// The guard: whether a session may do something with a resource under a token now.
#[allow(clippy::too_many_arguments)]
pub(crate) fn check(
    state: &State,
    now_ms: u64,
    resource: &str,
    session: &str,
    token: u64,
    mode: Access,
    regions: &[Region],
    base_version: Option<&str>,
) -> GuardVerdict {
    let mut expires_ms = None;
    let reason = refused(
        state,
        now_ms,
        resource,
        session,
        token,
        mode,
        regions,
        base_version,
        &mut expires_ms,
    );
    GuardVerdict {
        allowed: reason.is_none(),
        reason: reason.unwrap_or_else(|| format!("token {token} is live and covers {resource}")),
        expires_ms,
    }
}

#[allow(clippy::too_many_arguments)]
fn refused(
    state: &State,
    now_ms: u64,
    resource: &str,
    session: &str,
    token: u64,
    mode: Access,
    regions: &[Region],
    base_version: Option<&str>,
    expires_ms: &mut Option<u64>,
) -> Option<String> {
    let form = match claim::normal_form(resource) {
        Ok(form) => form,
        Err(says) => return Some(format!("resource {says}")),
    };
    if let Err(says) = claim::check_regions(regions) {
        return Some(format!("regions {says}"));
    }
    let found = state.index.claims.holder(token);
    let found = found.and_then(|place| contest::step_at(state, place));
    let held = found.and_then(|(_, step)| {
        let grant = step.grants.iter().find(|grant| grant.token == token)?;
        Some((step, grant))
    });
    let Some((step, grant)) = held else {
        return Some(format!(
            "token {token} is not live: it was given back, ran out, or never was"
        ));
    };
    if *step.session != *session {
        return Some(format!("token {token} is not that of session {session}"));
    }
    if !step.is_suspended() {
        *expires_ms = Some(grant.expires_ms);
        if grant.expires_ms <= now_ms {
            return Some(format!(
                "the lease of token {token} ran out at {}",
                grant.expires_ms
            ));
        }
    }
    if !claim::contains(&grant.resource, &form) {
        return Some(format!(
            "token {token} is for {}, not {form}",
            grant.resource
        ));
    }
    if mode == Access::Write && grant.mode == Mode::Shared {
        return Some(format!(
            "token {token} is shared; to write takes an exclusive one"
        ));
    }
    if !claim::covers(&grant.regions, regions) {
        return Some(format!("token {token} does not cover these regions"));
    }
    match base_version {
        Some(version) if grant.base_version.as_deref() != Some(version) => Some(format!(
            "the grant is based on {}, not {version}",
            grant.base_version.as_deref().unwrap_or("no version")
        )),
        _ => None,
    }
}
