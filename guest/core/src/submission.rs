//! Taking a configuration and a plan.
//!
//! What a plan must look like is in [`crate::plan`].

use crate::child;
use crate::config::Config;
use crate::digest::sha256_hex;
use crate::draft::Draft;
use crate::event::{Configured, Created, Genesis, RULES};
use crate::message::Caller;
use crate::plan::Plan;
use crate::receipt::{Blame, CallError, PlanReceipt, Rejection, RejectionCode};
use crate::state::State;
use crate::{codec, id};

/// Decides a configuration; nothing to record where the content is the same.
pub(crate) fn decide_configure(state: &State, text: &str) -> Result<Option<Draft>, CallError> {
    let config = Config::parse(text).map_err(CallError::InvalidConfig)?;
    let config_digest = codec::digest(&config);
    let Some(present) = &state.configured else {
        let prev_domain_head = config.prev_domain_head.clone();
        let domain = config.domain.clone();
        let event = Genesis {
            domain,
            rules: RULES,
            config,
            config_digest,
            prev_domain_head,
        };
        return Ok(Some(Draft::of_domain(None, event)));
    };
    if present.digest == config_digest {
        return Ok(None);
    }
    if present.config.domain != config.domain {
        let says = format!(
            "domain is {}; this ledger is that of {}",
            config.domain, present.config.domain
        );
        return Err(CallError::InvalidConfig(Blame::new("domain", says)));
    }
    if present.config.prev_domain_head != config.prev_domain_head {
        return Err(CallError::InvalidConfig(Blame::new(
            "prevDomainHead",
            "prevDomainHead is fixed by the first configuration",
        )));
    }
    Ok(Some(Draft::of_domain(
        Some(present.seq),
        Configured {
            config,
            config_digest,
        },
    )))
}

/// What a plan gets: a record, or an answer without one.
pub(crate) enum PlanDecision {
    /// It is new.
    Create(Box<Draft>),
    /// It is known.
    Known(PlanReceipt),
    /// It is refused.
    Refused(Rejection),
}

/// Decides a plan: known, in conflict with another, too late, too much for the domain, or new.
pub(crate) fn decide_plan(state: &State, now_ms: u64, caller: &Caller, text: &str) -> PlanDecision {
    let Some(config) = state.config() else {
        return PlanDecision::Refused(Rejection::new(
            RejectionCode::InvalidPlan,
            "",
            "the domain is not configured",
        ));
    };
    let (plan, canonical) = match Plan::parse_canonical(text, config) {
        Ok(parsed) => parsed,
        Err(problems) => {
            let says = format!(
                "the plan has {} error(s); nothing was recorded",
                problems.len()
            );
            let rejection = Rejection {
                problems,
                ..Rejection::new(RejectionCode::InvalidPlan, "", says)
            };
            return PlanDecision::Refused(rejection);
        }
    };
    if id::check_session(&caller.session).is_err() || caller.session != plan.owner_session {
        let says = format!(
            "is {}; the caller is {}",
            plan.owner_session, caller.session
        );
        return PlanDecision::Refused(Rejection::new(
            RejectionCode::UnauthorizedSession,
            "ownerSession",
            says,
        ));
    }
    let plan_digest = sha256_hex(&[canonical.as_bytes()]);
    if let Some(known) = plan_receipt(state, &plan.coordination_id, true) {
        if known.plan_digest == plan_digest {
            return PlanDecision::Known(known);
        }
        let says = format!(
            "{} is the id of another plan, whose digest is {}",
            plan.coordination_id, known.plan_digest
        );
        return PlanDecision::Refused(Rejection::new(
            RejectionCode::PlanConflict,
            "coordinationId",
            says,
        ));
    }
    if let Some(deadline_ms) = plan
        .deadline_ms
        .filter(|deadline_ms| *deadline_ms <= now_ms)
    {
        let says = format!("is {deadline_ms}; now is {now_ms}");
        return PlanDecision::Refused(Rejection::new(
            RejectionCode::DeadlinePast,
            "deadlineMs",
            says,
        ));
    }
    let cause = match plan
        .parent
        .as_ref()
        .map(|parent| child::check_parent(state, caller, parent, now_ms))
        .transpose()
    {
        Ok(cause) => cause,
        Err(rejection) => return PlanDecision::Refused(rejection),
    };
    let limits = &config.limits;
    let payload_bytes: u64 = plan
        .steps
        .iter()
        .map(crate::plan::Step::payload_bytes)
        .sum();
    let index = &state.index;
    for (what, live, more, bound) in [
        (
            "coordinations",
            state.live.len() as u64,
            1,
            limits.live_coordinations,
        ),
        (
            "steps",
            index.live_steps,
            plan.steps.len() as u64,
            limits.live_steps,
        ),
        (
            "bytes of payload",
            index.live_payload_bytes,
            payload_bytes,
            limits.live_payload_bytes,
        ),
    ] {
        if live + more > bound {
            let says = format!("{live} live {what} and {more} more; {bound} are allowed");
            return PlanDecision::Refused(Rejection::new(RejectionCode::DomainFull, "", says));
        }
    }
    let event = Created {
        rules: RULES,
        plan,
        plan_digest,
        caller: caller.clone(),
    };
    let trace = event.plan.trace.clone();
    let draft = Draft {
        coordination: Some(event.plan.coordination_id.as_str().into()),
        step: None,
        attempt: None,
        cause,
        trace,
        event: event.into(),
    };
    PlanDecision::Create(Box::new(draft))
}

/// The handle of a plan that is known, with its present status.
pub(crate) fn plan_receipt(state: &State, id: &str, replayed: bool) -> Option<PlanReceipt> {
    if let Some(live) = state.live.get(id) {
        return Some(PlanReceipt {
            coordination_id: id.to_owned(),
            plan_digest: live.plan_digest.clone(),
            created_seq: live.created_seq,
            replayed,
            state: live.state_name().to_owned(),
            terminal: live
                .ended
                .as_ref()
                .map(|ended| ended.terminal.name().to_owned()),
        });
    }
    state.closed.get(id).map(|closed| PlanReceipt {
        coordination_id: id.to_owned(),
        plan_digest: closed.plan_digest.text(),
        created_seq: closed.created_seq,
        replayed,
        state: "closed".to_owned(),
        terminal: Some(closed.terminal.name().to_owned()),
    })
}
