//! The configuration of a domain.
//!
//! Lane widths are not here: they belong to the host.

use crate::arbitration::Owner;
use crate::codec::object;
use crate::id::{check_digest, check_id};
use crate::message::HookKind;
use crate::policy::{read_owners, read_patterns};
use crate::read::{Object, Problems, blame, syntax_problem};
use crate::receipt::Blame;
use crate::{codec, json, limit, order};
use serde::{Deserialize, Serialize};

/// The feature gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase1 {
    /// Off: only `configure` and the reading exports work.
    pub enabled: bool,
}

/// Bounds of the domain; each lowers one of [`crate::limit`] and none raises it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of an inline payload.
    pub payload_bytes: u64,
    /// Bytes of a plan in canonical form.
    pub plan_bytes: u64,
    /// Steps of a plan.
    pub plan_steps: u64,
    /// Envelopes, keys or notices of one call.
    pub batch: u64,
    /// Coordinations that are not closed.
    pub live_coordinations: u64,
    /// Steps of all live coordinations.
    pub live_steps: u64,
    /// Bytes of payload of all live coordinations.
    pub live_payload_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: limit::PAYLOAD_BYTES_MAX,
            plan_bytes: limit::PLAN_BYTES_MAX,
            plan_steps: limit::PLAN_STEPS_MAX,
            batch: limit::BATCH_MAX,
            live_coordinations: limit::LIVE_COORDINATIONS_MAX,
            live_steps: limit::LIVE_STEPS_MAX,
            live_payload_bytes: limit::LIVE_PAYLOAD_BYTES_MAX,
        }
    }
}

/// The configuration of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Name of the domain, in the form of an id; fixed by the first configuration.
    pub domain: String,
    /// The feature gate.
    pub phase1: Phase1,
    /// Steps out at once, 1..100 000.
    pub max_in_flight: u64,
    /// Steps out at once of one target session, 1..100 000.
    pub session_in_flight: u64,
    /// How long the first delivery of a message waits for its ack; a duration, from 1.
    pub ack_timeout_ms: u64,
    /// How long a cancelled attempt may still end by itself; a duration.
    pub cancel_grace_ms: u64,
    /// How long cleanup steps may run after a stop; a duration.
    pub cleanup_grace_ms: u64,
    /// How long a hook may take to answer; a duration, from 1.
    pub hook_timeout_ms: u64,
    /// Kinds of hook that are registered: those that are asked, and those that are told.
    pub hooks: Vec<HookKind>,
    /// Who comes first when coordinations contest a resource; at most 256.
    pub owners: Vec<Owner>,
    /// Patterns of resources whose contests between coordinations a person decides; at most 256.
    pub high_risk: Vec<String>,
    /// Bounds of the domain.
    pub limits: Limits,
    /// Hash of the last record of the domain that this one continues; only in the first configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_domain_head: Option<String>,
}

object!(Phase1 { "enabled": req enabled, });
object!(Limits {
    "payloadBytes": req payload_bytes,
    "planBytes": req plan_bytes,
    "planSteps": req plan_steps,
    "batch": req batch,
    "liveCoordinations": req live_coordinations,
    "liveSteps": req live_steps,
    "livePayloadBytes": req live_payload_bytes,
});
object!(Config {
    "domain": req domain,
    "phase1": req phase1,
    "maxInFlight": req max_in_flight,
    "sessionInFlight": req session_in_flight,
    "ackTimeoutMs": req ack_timeout_ms,
    "cancelGraceMs": req cancel_grace_ms,
    "cleanupGraceMs": req cleanup_grace_ms,
    "hookTimeoutMs": req hook_timeout_ms,
    "hooks": req hooks,
    "owners": req owners,
    "highRisk": req high_risk,
    "limits": req limits,
    "prevDomainHead": opt prev_domain_head,
});

impl Config {
    /// The defaults, with the feature gate off.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            phase1: Phase1::default(),
            max_in_flight: 4,
            session_in_flight: 1,
            ack_timeout_ms: 30_000,
            cancel_grace_ms: 15_000,
            cleanup_grace_ms: 60_000,
            hook_timeout_ms: 15_000,
            hooks: Vec::new(),
            owners: Vec::new(),
            high_risk: Vec::new(),
            limits: Limits::default(),
            prev_domain_head: None,
        }
    }

    /// Canonical JSON, as `configure` takes it.
    #[must_use]
    pub fn to_json(&self) -> String {
        codec::canonical(self)
    }

    /// Reads a configuration; members other than `domain` have defaults.
    ///
    /// # Errors
    /// All problems in one sentence each, separated by `; `; the first one's member is to blame.
    pub fn parse(text: &str) -> Result<Self, Blame> {
        if text.len() > limit::CONFIG_BYTES_MAX {
            let says = format!(
                "has {} bytes; {} are allowed",
                text.len(),
                limit::CONFIG_BYTES_MAX
            );
            return Err(Blame::new("$", says));
        }
        let value = json::parse(text).map_err(|error| {
            let problem = syntax_problem(&error);
            Blame::new("$", format!("{} {}", problem.field, problem.message))
        })?;
        let problems = Problems::default();
        let config = Object::new(&value, &problems).map(Self::read);
        let problems = problems.into_inner();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(blame(&problems)),
        }
    }

    fn read(object: Object<'_>) -> Self {
        let duration = |name, min, default| {
            object
                .integer(name, min, limit::DURATION_MS_MAX)
                .unwrap_or(default)
        };
        let width = |name, default| {
            object
                .integer(name, 1, limit::IN_FLIGHT_MAX)
                .unwrap_or(default)
        };
        object.require("domain");
        let mut config = Self::new(&object.text("domain", &check_id).unwrap_or_default());
        if let Some(phase1) = object.object("phase1") {
            config.phase1.enabled = phase1.boolean("enabled").unwrap_or(false);
            phase1.done();
        }
        config.max_in_flight = width("maxInFlight", config.max_in_flight);
        config.session_in_flight = width("sessionInFlight", config.session_in_flight);
        config.ack_timeout_ms = duration("ackTimeoutMs", 1, config.ack_timeout_ms);
        config.cancel_grace_ms = duration("cancelGraceMs", 0, config.cancel_grace_ms);
        config.cleanup_grace_ms = duration("cleanupGraceMs", 0, config.cleanup_grace_ms);
        config.hook_timeout_ms = duration("hookTimeoutMs", 1, config.hook_timeout_ms);
        config.hooks = read_hooks(&object);
        config.owners = read_owners(&object);
        config.high_risk = read_patterns(&object, "highRisk");
        if let Some(limits) = object.object("limits") {
            config.limits = Limits::read(limits);
        }
        config.prev_domain_head = object.text("prevDomainHead", &check_digest);
        object.done();
        config
    }
}

/// The registered kinds, each once and in their own order.
fn read_hooks(object: &Object<'_>) -> Vec<HookKind> {
    let mut hooks = Vec::new();
    let known = |text: &str| match HookKind::from_name(text) {
        Some(_) => Ok(()),
        None => Err(format!(
            "is {text}; one of {} is expected",
            HookKind::WORDS.join(", ")
        )),
    };
    let names = object.texts("hooks", HookKind::WORDS.len(), &known);
    for name in names.unwrap_or_default() {
        if let Some(kind) = HookKind::from_name(&name) {
            order::insert(&mut hooks, kind);
        }
    }
    hooks
}

impl Limits {
    fn read(object: Object<'_>) -> Self {
        let most = Self::default();
        let bound = |name, max| object.integer(name, 1, max).unwrap_or(max);
        let limits = Self {
            payload_bytes: bound("payloadBytes", most.payload_bytes),
            plan_bytes: bound("planBytes", most.plan_bytes),
            plan_steps: bound("planSteps", most.plan_steps),
            batch: bound("batch", most.batch),
            live_coordinations: bound("liveCoordinations", most.live_coordinations),
            live_steps: bound("liveSteps", most.live_steps),
            live_payload_bytes: bound("livePayloadBytes", most.live_payload_bytes),
        };
        object.done();
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in_and_read_back_unchanged() {
        let config = Config::parse(r#"{"domain":"d"}"#).unwrap();
        assert_eq!(config, Config::new("d"));
        assert_eq!(Config::parse(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn every_problem_is_named_with_its_bound() {
        let says =
            Config::parse(r#"{"maxInFlight":0,"limits":{"batch":1025},"lanes":1}"#).unwrap_err();
        assert_eq!(says.field, "domain");
        let says = says.message;
        for part in [
            "domain is missing",
            "maxInFlight is 0",
            "1..100000",
            "limits.batch is 1025",
            "lanes is unknown",
        ] {
            assert!(says.contains(part), "{part} in {says}");
        }
    }
}
