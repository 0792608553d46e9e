//! The policies of a plan: what failures lead to, who is asked, and what decides contests.
//!
//! Reads them and tests their form; what they lead to is decided elsewhere.

use crate::arbitration::{Owner, Policy, Rule, Strategy};
use crate::claim::{self, Claim, Mode, Region};
use crate::codec::{object, words};
use crate::id::{check_bytes, check_session};
use crate::message::Role;
use crate::read::Object;
use crate::{limit, order};
use serde::{Deserialize, Serialize};

/// What the end of a step by failure does to the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TimeoutPolicy {
    /// Stops the plan.
    FailFast,
    /// Steps that do not need it go on.
    #[default]
    ContinueWithPartial,
}

/// Whether people are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EscalationPolicy {
    /// Nobody is: what a person would decide ends as if it was denied.
    #[default]
    None,
    /// Those that `human` names.
    Hitl,
}

/// What happens when nobody answered at any level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// As if somebody had denied.
    #[default]
    Deny,
    /// The question stays open until the plan's deadline; the plan ends escalated.
    Block,
    /// As if it was approved; only for exhausted steps and agents' questions, on steps of low risk without high-risk
    /// resources. Else as `deny`.
    Allow,
}

/// One level of human review.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Level {
    /// Sessions that are told of the question; at most 16. Whoever has the role may answer.
    #[serde(default)]
    pub sessions: Vec<String>,
    /// Role that an answer needs.
    #[serde(default = "operator")]
    pub min_role: Role,
    /// How long this level is waited for; milliseconds from 1 to 400 days.
    pub timeout_ms: u64,
}

fn operator() -> Role {
    Role::Operator
}

/// Who is asked, and what happens when nobody answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Human {
    /// Asked one after another; 1 to 8.
    pub levels: Vec<Level>,
    /// Different people who must approve, over all levels; 1 to 16. One denial is enough to deny.
    #[serde(default = "one")]
    pub required_approvals: u32,
    /// When nobody answered at any level.
    #[serde(default)]
    pub fallback: Fallback,
}

fn one() -> u32 {
    1
}

/// What happens when steps fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FailurePolicy {
    /// Retries over the whole plan.
    pub retry_budget: u64,
    /// What the end of a step by failure does to the plan.
    pub timeout_policy: TimeoutPolicy,
    /// Whether people are asked.
    pub escalation_policy: EscalationPolicy,
    /// Waits before the first, second, … retry of a step, in milliseconds; the last one repeats. 1 to 16 entries.
    pub backoff_ms: Vec<u64>,
    /// Who is asked, and what happens when nobody answers; goes with `hitl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human: Option<Human>,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            retry_budget: 0,
            timeout_policy: TimeoutPolicy::default(),
            escalation_policy: EscalationPolicy::default(),
            backoff_ms: limit::BACKOFF_MS_DEFAULT.to_vec(),
            human: None,
        }
    }
}

words!(TimeoutPolicy { FailFast = "fail_fast", ContinueWithPartial = "continue_with_partial", });
words!(EscalationPolicy { None = "none", Hitl = "hitl", });
words!(Fallback { Deny = "deny", Block = "block", Allow = "allow", });
object!(Level {
    "sessions": req sessions,
    "minRole": req min_role,
    "timeoutMs": req timeout_ms,
});
object!(Human {
    "levels": req levels,
    "requiredApprovals": req required_approvals,
    "fallback": req fallback,
});
object!(FailurePolicy {
    "retryBudget": req retry_budget,
    "timeoutPolicy": req timeout_policy,
    "escalationPolicy": req escalation_policy,
    "backoffMs": req backoff_ms,
    "human": opt human,
});

impl FailurePolicy {
    pub(crate) fn read(object: Object<'_>) -> Self {
        let default = Self::default();
        let policy = Self {
            retry_budget: object
                .integer("retryBudget", 0, limit::INTEGER_MAX)
                .unwrap_or(default.retry_budget),
            timeout_policy: object
                .choice(
                    "timeoutPolicy",
                    TimeoutPolicy::WORDS,
                    TimeoutPolicy::from_name,
                )
                .unwrap_or(default.timeout_policy),
            escalation_policy: object
                .choice(
                    "escalationPolicy",
                    EscalationPolicy::WORDS,
                    EscalationPolicy::from_name,
                )
                .unwrap_or(default.escalation_policy),
            backoff_ms: object
                .integers("backoffMs", limit::BACKOFF_MAX, 0, limit::DURATION_MS_MAX)
                .unwrap_or(default.backoff_ms),
            human: object.object("human").map(Human::read),
        };
        if object.is_empty_list("backoffMs") {
            object.problem(
                "backoffMs",
                "empty",
                "is empty; leave it out for the default waits",
            );
        }
        let asks = policy.escalation_policy == EscalationPolicy::Hitl;
        if asks && policy.human.is_none() {
            object.problem(
                "human",
                "missing",
                "is missing; escalationPolicy hitl needs somebody to ask",
            );
        }
        object.done();
        policy
    }
}

impl Human {
    fn read(object: Object<'_>) -> Self {
        object.require("levels");
        let values = object.list("levels", limit::LEVELS_MAX);
        if values.is_some_and(<[_]>::is_empty) {
            object.problem("levels", "empty", "is empty; somebody has to be asked");
        }
        let mut levels = Vec::new();
        for (index, value) in values.unwrap_or_default().iter().enumerate() {
            let Some(entry) = object.entry("levels", index, value) else {
                continue;
            };
            entry.require("timeoutMs");
            let level = Level {
                sessions: entry
                    .texts("sessions", limit::LEVEL_SESSIONS_MAX, &check_session)
                    .unwrap_or_default(),
                min_role: entry
                    .choice("minRole", Role::WORDS, Role::from_name)
                    .unwrap_or_else(operator),
                timeout_ms: entry
                    .integer("timeoutMs", 1, limit::DURATION_MS_MAX)
                    .unwrap_or(1),
            };
            entry.done();
            levels.push(level);
        }
        let required = object.integer("requiredApprovals", 1, limit::APPROVALS_MAX);
        let human = Self {
            levels,
            required_approvals: required
                .and_then(|required| u32::try_from(required).ok())
                .unwrap_or_else(one),
            fallback: object
                .choice("fallback", Fallback::WORDS, Fallback::from_name)
                .unwrap_or_default(),
        };
        object.done();
        human
    }
}

/// A pattern over resources.
fn check_pattern(text: &str) -> Result<(), String> {
    check_bytes(text, 1, limit::RESOURCE_BYTES_MAX)
}

/// A list of patterns.
pub(crate) fn read_patterns(object: &Object<'_>, name: &'static str) -> Vec<String> {
    object
        .texts(name, limit::POLICY_ENTRIES_MAX, &check_pattern)
        .unwrap_or_default()
}

/// Owners by pattern; the same pattern never has two.
pub(crate) fn read_owners(object: &Object<'_>) -> Vec<Owner> {
    let values = object.list("owners", limit::POLICY_ENTRIES_MAX);
    let mut owners: Vec<Owner> = Vec::new();
    for (index, value) in values.unwrap_or_default().iter().enumerate() {
        let Some(entry) = object.entry("owners", index, value) else {
            continue;
        };
        entry.require("resource");
        entry.require("session");
        let resource = entry.text("resource", &check_pattern);
        let session = entry.text("session", &check_session);
        if let (Some(resource), Some(session)) = (resource, session) {
            let other = owners
                .iter()
                .find(|owner| owner.resource == resource && owner.session != session);
            if let Some(other) = other {
                let says = format!("is {resource}, which {} owns already", other.session);
                entry.problem("resource", "two-owners", says);
            }
            owners.push(Owner { resource, session });
        }
        entry.done();
    }
    owners
}

/// The conflict policy of a plan.
pub(crate) fn read_conflict_policy(object: Object<'_>) -> Policy {
    let mut rules = Vec::new();
    let values = object.list("rules", limit::POLICY_ENTRIES_MAX);
    for (index, value) in values.unwrap_or_default().iter().enumerate() {
        let Some(entry) = object.entry("rules", index, value) else {
            continue;
        };
        entry.require("resource");
        entry.require("strategy");
        let resource = entry.text("resource", &check_pattern);
        let strategy = entry.choice("strategy", Strategy::WORDS, Strategy::from_name);
        entry.done();
        if let (Some(resource), Some(strategy)) = (resource, strategy) {
            rules.push(Rule { resource, strategy });
        }
    }
    let policy = Policy {
        default: object
            .choice("default", Strategy::WORDS, Strategy::from_name)
            .unwrap_or_default(),
        rules,
        owners: read_owners(&object),
        high_risk: read_patterns(&object, "highRisk"),
        preempt: object.boolean("preempt").unwrap_or(false),
    };
    object.done();
    policy
}

/// A resource in its normal form; notes a problem where it has none.
fn read_resource(object: &Object<'_>, member: &str, text: &str) -> Option<String> {
    match claim::normal_form(text) {
        Ok(form) => Some(form),
        Err(says) => {
            object.problem(member, "out-of-bound", says);
            None
        }
    }
}

/// A list of resources in their normal form.
pub(crate) fn read_resources(
    object: &Object<'_>,
    name: &'static str,
    count_max: usize,
) -> Vec<String> {
    let texts = object.texts(name, count_max, &|_| Ok(()));
    let form =
        |(index, text): (usize, &String)| read_resource(object, &format!("{name}[{index}]"), text);
    texts
        .unwrap_or_default()
        .iter()
        .enumerate()
        .filter_map(form)
        .collect()
}

/// The claims of a step, in the order of their resources' names; a lease lasts as long as an attempt if not told otherwise.
pub(crate) fn read_claims(object: &Object<'_>, timeout_ms: u64) -> Vec<Claim> {
    let values = object.list("claims", limit::STEP_CLAIMS_MAX);
    let mut claims: Vec<Claim> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (index, value) in values.unwrap_or_default().iter().enumerate() {
        let Some(entry) = object.entry("claims", index, value) else {
            continue;
        };
        entry.require("resource");
        let text = entry.text("resource", &|_| Ok(()));
        let resource = text.and_then(|text| read_resource(&entry, "resource", &text));
        let check_version = |text: &str| check_bytes(text, 1, limit::BASE_VERSION_BYTES_MAX);
        let mode = entry.choice("mode", Mode::WORDS, Mode::from_name);
        let lease_ms = entry.integer("leaseMs", 1, limit::DURATION_MS_MAX);
        let base_version = entry.text("baseVersion", &check_version);
        let regions = read_regions(&entry);
        if let Some(resource) = resource {
            if !order::insert(&mut seen, resource.clone()) {
                let says = format!("is {resource} again; one claim for each resource is allowed");
                entry.problem("resource", "duplicate-resource", says);
            }
            claims.push(Claim {
                resource,
                mode: mode.unwrap_or_default(),
                lease_ms: lease_ms.unwrap_or(timeout_ms),
                base_version,
                regions,
            });
        }
        entry.done();
    }
    claims
}

fn read_regions(object: &Object<'_>) -> Vec<Region> {
    let values = object.list("regions", limit::REGIONS_MAX);
    let mut regions = Vec::new();
    for (index, value) in values.unwrap_or_default().iter().enumerate() {
        let Some(entry) = object.entry("regions", index, value) else {
            continue;
        };
        entry.require("start");
        entry.require("end");
        let start = entry.integer("start", 0, limit::INTEGER_MAX);
        let end = entry.integer("end", 1, limit::INTEGER_MAX);
        entry.done();
        if let (Some(start), Some(end)) = (start, end) {
            regions.push(Region { start, end });
        }
    }
    if let Err(says) = claim::check_regions(&regions) {
        object.problem("regions", "out-of-bound", says);
    }
    regions
}
