//! The types of shared resources, between the WIT and the core: claims, contests, policies, decisions, grants.
//!
//! Tests nothing, like its parent.

use super::{priority_to_wit, rejection_from_wit};
use crate::component::bindings::qm2::coordination::types as wit;
use qm2_core::arbitration::{
    Contender, ContenderOutcome, Contest, Decision, OutcomeKind, Policy, Stage, Strategy,
};
use qm2_core::claim::{Access, ClaimRequest, Mode, Region};
use qm2_core::receipt::{GrantReceipt, GuardVerdict, Rejection};

pub(crate) fn access_to_wit(value: Access) -> wit::Access {
    match value {
        Access::Read => wit::Access::Read,
        Access::Write => wit::Access::Write,
    }
}

fn mode_to_wit(value: Mode) -> wit::ClaimMode {
    match value {
        Mode::Shared => wit::ClaimMode::Shared,
        Mode::Exclusive => wit::ClaimMode::Exclusive,
    }
}

pub(crate) fn regions_to_wit(value: &[Region]) -> Vec<wit::Region> {
    let region = |region: &Region| wit::Region {
        start: region.start,
        end: region.end,
    };
    value.iter().map(region).collect()
}

fn strategy_to_wit(value: Strategy) -> wit::Strategy {
    match value {
        Strategy::OwnerWins => wit::Strategy::OwnerWins,
        Strategy::PriorityWins => wit::Strategy::PriorityWins,
        Strategy::MergeIfSafe => wit::Strategy::MergeIfSafe,
        Strategy::ManualReview => wit::Strategy::ManualReview,
    }
}

pub(crate) fn policy_to_wit(value: &Policy) -> wit::ArbiterPolicy {
    wit::ArbiterPolicy {
        default_strategy: strategy_to_wit(value.default),
        rules: value
            .rules
            .iter()
            .map(|rule| wit::PolicyRule {
                resource: rule.resource.clone(),
                strategy: strategy_to_wit(rule.strategy),
            })
            .collect(),
        owners: value
            .owners
            .iter()
            .map(|owner| wit::PolicyOwner {
                resource: owner.resource.clone(),
                session: owner.session.clone(),
            })
            .collect(),
        high_risk: value.high_risk.clone(),
        preempt: value.preempt,
    }
}

fn contender_to_wit(value: &Contender) -> wit::Contender {
    wit::Contender {
        coordination_id: value.coordination_id.clone(),
        step_id: value.step_id.clone(),
        attempt: value.attempt,
        session: value.session.clone(),
        priority: priority_to_wit(value.priority),
        claim_number: value.claim_number,
        mode: mode_to_wit(value.mode),
        base_version: value.base_version.clone(),
        regions: regions_to_wit(&value.regions),
        token: value.token,
        expires_ms: value.expires_ms,
        preemptible: value.preemptible,
    }
}

pub(crate) fn contest_to_wit(value: &Contest) -> wit::Contest {
    wit::Contest {
        resource: value.resource.clone(),
        at_ms: value.at_ms,
        contenders: value.contenders.iter().map(contender_to_wit).collect(),
        holders: value.holders.iter().map(contender_to_wit).collect(),
    }
}

pub(crate) fn decision_from_wit(value: wit::Decision) -> Decision {
    Decision {
        stage: match value.stage {
            wit::DecisionStage::Ownership => Stage::Ownership,
            wit::DecisionStage::Lease => Stage::Lease,
            wit::DecisionStage::Strategy => Stage::Strategy,
            wit::DecisionStage::Hook => Stage::Hook,
            wit::DecisionStage::Human => Stage::Human,
        },
        strategy: match value.strategy {
            wit::Strategy::OwnerWins => Strategy::OwnerWins,
            wit::Strategy::PriorityWins => Strategy::PriorityWins,
            wit::Strategy::MergeIfSafe => Strategy::MergeIfSafe,
            wit::Strategy::ManualReview => Strategy::ManualReview,
        },
        outcomes: value
            .outcomes
            .into_iter()
            .map(|outcome| ContenderOutcome {
                coordination_id: outcome.coordination_id,
                step_id: outcome.step_id,
                outcome: match outcome.outcome {
                    wit::OutcomeKind::Granted => OutcomeKind::Granted,
                    wit::OutcomeKind::Waits => OutcomeKind::Waits,
                    wit::OutcomeKind::Refused => OutcomeKind::Refused,
                    wit::OutcomeKind::Review => OutcomeKind::Review,
                    wit::OutcomeKind::Preempts => OutcomeKind::Preempts,
                },
                order: outcome.order,
            })
            .collect(),
        reason: value.reason,
    }
}

pub(crate) fn claim_request_to_wit(value: &ClaimRequest) -> wit::ClaimRequest {
    wit::ClaimRequest {
        coordination_id: value.coordination_id.clone(),
        step_id: value.step_id.clone(),
        attempt: value.attempt,
        resource: value.resource.clone(),
        mode: mode_to_wit(value.mode),
        lease_ms: value.lease_ms,
        base_version: value.base_version.clone(),
        regions: regions_to_wit(&value.regions),
    }
}

fn grant(value: wit::Grant) -> GrantReceipt {
    GrantReceipt {
        resource: value.resource,
        token: value.token,
        expires_ms: value.expires_ms,
    }
}

pub(crate) fn grant_from_wit(
    value: Result<wit::Grant, wit::Rejection>,
) -> Result<GrantReceipt, Rejection> {
    value.map(grant).map_err(rejection_from_wit)
}

pub(crate) fn grants_from_wit(
    value: Result<Vec<wit::Grant>, wit::Rejection>,
) -> Result<Vec<GrantReceipt>, Rejection> {
    value
        .map(|grants| grants.into_iter().map(grant).collect())
        .map_err(rejection_from_wit)
}

pub(crate) fn guard_verdict_from_wit(value: wit::GuardVerdict) -> GuardVerdict {
    GuardVerdict {
        allowed: value.allowed,
        reason: value.reason,
        expires_ms: value.expires_ms,
    }
}
