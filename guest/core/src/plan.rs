//! Plans: their form, and what makes one whole.
//!
//! A plan is read once, with every error found; what becomes of its steps is not decided here.

use crate::arbitration::Policy;
use crate::claim::Claim;
use crate::codec::{object, words};
use crate::config::Config;
use crate::envelope::{self, DeliveryMode, PayloadRef, Priority, Trace};
use crate::graph::Graph;
use crate::id::{check_bytes, check_id, check_session};
pub use crate::policy::{EscalationPolicy, FailurePolicy, Fallback, Human, Level, TimeoutPolicy};
use crate::policy::{read_claims, read_conflict_policy, read_resources};
use crate::read::{Object, Problems, syntax_problem};
use crate::receipt::Problem;
use crate::{codec, json, limit, order};
use serde::{Deserialize, Serialize};

/// When a dependency fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// On completed.
    #[default]
    Success,
    /// On failed or timed_out.
    Failure,
    /// On any end.
    Always,
}

/// How many dependencies a step needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// Every one.
    #[default]
    All,
    /// The first.
    Any,
}

/// Of what the owner gets a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reports {
    /// The end of the coordination.
    End,
    /// That, and steps that failed or timed out.
    #[default]
    Failures,
    /// That, and the end of every step.
    All,
}

/// What a wrong dispatch of a step could do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Nothing that matters: a timeout may stand for an approval, where the plan says so.
    Low,
    /// Harm: a person approves or nobody does.
    #[default]
    High,
}

/// What becomes of a child plan when what it belongs to ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnClose {
    /// It is cancelled, and waited for.
    #[default]
    Cancel,
    /// It goes on alone.
    Abandon,
}

/// The running step that a child plan belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parent {
    /// Its coordination.
    pub coordination_id: String,
    /// The step; dispatched or acknowledged when the child plan is submitted.
    pub step_id: String,
    /// What becomes of the child plan when the step ends other than completed, or its coordination ends.
    #[serde(default)]
    pub on_close: OnClose,
}

/// A dependency of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// The step it waits for.
    pub step_id: String,
    /// When it fires.
    #[serde(default)]
    pub on: On,
}

/// What a result must look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedOutput {
    /// Media type that the report must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Members that the payload, a JSON object, must have; at most 64.
    #[serde(default)]
    pub required_fields: Vec<String>,
    /// Bytes of the result at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Whether an empty result is fine.
    #[serde(default)]
    pub allow_empty: bool,
}

/// One dispatchable unit of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Id, unique within the plan: 1..128 bytes of `[A-Za-z0-9._-]`.
    pub step_id: String,
    /// The session that does it: 1..256 bytes without spaces or control characters.
    pub target_session: String,
    /// Its input, at most 64 KiB of text; empty if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Its input, kept elsewhere; not beside `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_ref: Option<PayloadRef>,
    /// Media type of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// What it waits for; at most 4 096.
    #[serde(default)]
    pub depends_on: Vec<Dependency>,
    /// How many of those it needs.
    #[serde(default)]
    pub join: Join,
    /// Shared resources that it needs; all of them or none are taken when it goes out. At most 2 048.
    #[serde(default)]
    pub claims: Vec<Claim>,
    /// Resources, `kind:path`, that it owns: in contests inside the plan its session comes first. At most 2 048.
    #[serde(default)]
    pub owns: Vec<String>,
    /// Priority; that of the plan if absent.
    #[serde(default)]
    pub priority: Priority,
    /// How its dispatch is delivered.
    #[serde(default)]
    pub delivery_mode: DeliveryMode,
    /// How long one attempt may take; milliseconds from 1 to 400 days.
    pub timeout_ms: u64,
    /// How long the first delivery waits for an ack; that of the domain if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_timeout_ms: Option<u64>,
    /// Attempts at most; bounded only by the retry budget if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Whether running it again does no harm; true for at_least_once and false for best_effort if absent.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// Its failure stops the plan, whatever the timeout policy.
    #[serde(default)]
    pub required: bool,
    /// It still runs after the plan was stopped.
    #[serde(default)]
    pub cleanup: bool,
    /// Whether an approval may be given for it by a timeout; high if absent.
    #[serde(default)]
    pub risk: Risk,
    /// What its result must look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_output: Option<ExpectedOutput>,
    /// Causal parent; never orders anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_step_id: Option<String>,
}

fn yes() -> bool {
    true
}

/// What is to be done, by whom, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Id of the coordination: 1..128 bytes of `[A-Za-z0-9._-]`. The same id is never started twice.
    pub coordination_id: String,
    /// What it is for, in words; 1 byte to 4 KiB.
    pub objective: String,
    /// The session that owns it, may cancel it and gets its reports.
    pub owner_session: String,
    /// What is to be done; 1 to 10 000.
    pub steps: Vec<Step>,
    /// What decides when steps claim the same resource.
    #[serde(default)]
    pub conflict_policy: Policy,
    /// What happens when steps fail.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// When all of it must have ended; milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Lowers the domain's cancel grace; milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_grace_ms: Option<u64>,
    /// Lowers the domain's cleanup grace; milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_grace_ms: Option<u64>,
    /// Priority of its steps.
    #[serde(default)]
    pub priority: Priority,
    /// Of what the owner gets a report.
    #[serde(default)]
    pub reports: Reports,
    /// The coordination that this one runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<String>,
    /// The running step of another plan that this one belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Trace identifiers of the host.
    #[serde(default, skip_serializing_if = "Trace::is_empty")]
    pub trace: Trace,
}

words!(On { Success = "success", Failure = "failure", Always = "always", });
words!(Join { All = "all", Any = "any", });
words!(Reports { End = "end", Failures = "failures", All = "all", });
words!(Risk { Low = "low", High = "high", });
words!(OnClose { Cancel = "cancel", Abandon = "abandon", });
object!(Parent {
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "onClose": req on_close,
});
object!(Dependency { "stepId": req step_id, "on": req on, });
object!(ExpectedOutput {
    "contentType": opt content_type,
    "requiredFields": req required_fields,
    "maxBytes": opt max_bytes,
    "allowEmpty": req allow_empty,
});
object!(Step {
    "stepId": req step_id,
    "targetSession": req target_session,
    "payload": opt payload,
    "payloadRef": opt payload_ref,
    "contentType": opt content_type,
    "dependsOn": req depends_on,
    "join": req join,
    "claims": req claims,
    "owns": req owns,
    "priority": req priority,
    "deliveryMode": req delivery_mode,
    "timeoutMs": req timeout_ms,
    "ackTimeoutMs": opt ack_timeout_ms,
    "maxAttempts": opt max_attempts,
    "idempotent": req idempotent,
    "required": req required,
    "cleanup": req cleanup,
    "risk": req risk,
    "expectedOutput": opt expected_output,
    "parentStepId": opt parent_step_id,
});
object!(Plan {
    "coordinationId": req coordination_id,
    "objective": req objective,
    "ownerSession": req owner_session,
    "steps": req steps,
    "conflictPolicy": req conflict_policy,
    "failurePolicy": req failure_policy,
    "deadlineMs": opt deadline_ms,
    "cancelGraceMs": opt cancel_grace_ms,
    "cleanupGraceMs": opt cleanup_grace_ms,
    "priority": req priority,
    "reports": req reports,
    "rerunOf": opt rerun_of,
    "parent": opt parent,
    "trace": set trace,
});

impl Plan {
    /// Reads a plan, fills in its defaults and tests it as a whole.
    ///
    /// # Errors
    /// All problems, those of the plan first, then by step id.
    pub fn parse(text: &str, config: &Config) -> Result<Self, Vec<Problem>> {
        Self::parse_canonical(text, config).map(|(plan, _)| plan)
    }

    /// As [`Plan::parse`], with the canonical text of the plan.
    pub(crate) fn parse_canonical(
        text: &str,
        config: &Config,
    ) -> Result<(Self, String), Vec<Problem>> {
        let whole = |code: &str, message: String| {
            vec![Problem {
                step_id: None,
                field: "$".into(),
                code: code.into(),
                message,
            }]
        };
        if text.len() > limit::PLAN_TEXT_BYTES_MAX {
            let says = format!(
                "has {} bytes; {} are allowed",
                text.len(),
                limit::PLAN_TEXT_BYTES_MAX
            );
            return Err(whole("out-of-bound", says));
        }
        let value = json::parse(text).map_err(|error| vec![syntax_problem(&error)])?;
        let problems = Problems::default();
        let plan = Object::new(&value, &problems).and_then(|object| Self::read(object, config));
        let problems = order::sort(problems.into_inner(), |a, b| a.step_id.cmp(&b.step_id));
        let Some(plan) = plan.filter(|_| problems.is_empty()) else {
            return Err(problems);
        };
        let canonical = codec::canonical(&plan);
        let bytes = canonical.len() as u64;
        if bytes > config.limits.plan_bytes {
            let says = format!(
                "has {bytes} bytes in canonical form; {} are allowed",
                config.limits.plan_bytes
            );
            return Err(whole("out-of-bound", says));
        }
        Ok((plan, canonical))
    }

    fn read(object: Object<'_>, config: &Config) -> Option<Self> {
        for name in ["coordinationId", "objective", "ownerSession", "steps"] {
            object.require(name);
        }
        let coordination_id = object.text("coordinationId", &check_id);
        let objective = object.text("objective", &|text| {
            check_bytes(text, 1, limit::OBJECTIVE_BYTES_MAX)
        });
        let owner_session = object.text("ownerSession", &check_session);
        let priority = object
            .choice("priority", Priority::WORDS, Priority::from_name)
            .unwrap_or_default();
        let conflict_policy = object
            .object("conflictPolicy")
            .map_or_else(Policy::default, read_conflict_policy);
        let steps = Self::read_steps(&object, priority, &conflict_policy, config);
        let failure_policy = object
            .object("failurePolicy")
            .map_or_else(FailurePolicy::default, FailurePolicy::read);
        let deadline_ms = object.integer("deadlineMs", 0, limit::TIME_MS_MAX);
        let parent = object.object("parent").and_then(read_parent);
        let blocks = failure_policy
            .human
            .as_ref()
            .is_some_and(|human| human.fallback == Fallback::Block);
        if blocks && deadline_ms.is_none() {
            object.problem(
                "failurePolicy.human.fallback",
                "no-deadline",
                "is block, which ends at the plan's deadline; the plan has no deadlineMs",
            );
        }
        let cancel_grace_ms = object.integer("cancelGraceMs", 0, config.cancel_grace_ms);
        let cleanup_grace_ms = object.integer("cleanupGraceMs", 0, config.cleanup_grace_ms);
        let reports = object
            .choice("reports", Reports::WORDS, Reports::from_name)
            .unwrap_or_default();
        let rerun_of = object.text("rerunOf", &check_id);
        let trace = object.object("trace").map(read_trace).unwrap_or_default();
        object.done();
        Some(Self {
            coordination_id: coordination_id?,
            objective: objective?,
            owner_session: owner_session?,
            steps: steps?,
            conflict_policy,
            failure_policy,
            deadline_ms,
            cancel_grace_ms,
            cleanup_grace_ms,
            priority,
            reports,
            rerun_of,
            parent,
            trace,
        })
    }

    fn read_steps(
        object: &Object<'_>,
        priority: Priority,
        policy: &Policy,
        config: &Config,
    ) -> Option<Vec<Step>> {
        let values = object.list(
            "steps",
            usize::try_from(config.limits.plan_steps).unwrap_or(usize::MAX),
        )?;
        if values.is_empty() {
            object.problem("steps", "empty", "is empty; a plan has at least one step");
        }
        let mut steps = Vec::with_capacity(values.len());
        let mut graph = Graph::new(values.len());
        for (index, value) in values.iter().enumerate() {
            let Some(mut entry) = object.entry("steps", index, value) else {
                continue;
            };
            if let Some(step_id) = json::text_of(value, "stepId") {
                entry.set_step(step_id);
            }
            if let Some(step) = Step::read(entry, priority, config, &mut graph) {
                steps.push(step);
            }
        }
        graph.check(object);
        graph.check_owners(object, policy);
        Some(steps)
    }
}

impl Step {
    fn read<'a>(
        object: Object<'a>,
        plan_priority: Priority,
        config: &Config,
        graph: &mut Graph<'a>,
    ) -> Option<Self> {
        for name in ["stepId", "targetSession", "timeoutMs"] {
            object.require(name);
        }
        let step_id = object.borrowed("stepId", &check_id);
        let target_session = object.borrowed("targetSession", &check_session);
        let payload = object.text("payload", &|_| Ok(()));
        let payload_ref = object.object("payloadRef").and_then(read_payload_ref);
        if let Err((member, says)) = envelope::check_payload(
            payload.as_deref(),
            payload_ref.as_ref(),
            config.limits.payload_bytes,
        ) {
            object.problem(&member, "out-of-bound", says);
        }
        let payload = payload.or_else(|| payload_ref.is_none().then(String::new));
        let content_type = object.text("contentType", &|text| {
            envelope::check_content_type(Some(text))
        });
        let depends_on = read_dependencies(&object, graph);
        let join = object
            .choice("join", Join::WORDS, Join::from_name)
            .unwrap_or_default();
        let priority = object
            .choice("priority", Priority::WORDS, Priority::from_name)
            .unwrap_or(plan_priority);
        let delivery_mode = object
            .choice("deliveryMode", DeliveryMode::WORDS, DeliveryMode::from_name)
            .unwrap_or_default();
        let timeout_ms = object.integer("timeoutMs", 1, limit::DURATION_MS_MAX);
        let claims = read_claims(&object, timeout_ms.unwrap_or(1));
        let owns = read_resources(&object, "owns", limit::STEP_CLAIMS_MAX);
        let risk = object
            .choice("risk", Risk::WORDS, Risk::from_name)
            .unwrap_or_default();
        let ack_timeout_ms = object.integer("ackTimeoutMs", 1, limit::DURATION_MS_MAX);
        let max_attempts = object.integer("maxAttempts", 1, u64::from(u32::MAX));
        let idempotent = object
            .boolean("idempotent")
            .unwrap_or(delivery_mode == DeliveryMode::AtLeastOnce);
        let required = object.boolean("required").unwrap_or(false);
        let cleanup = object.boolean("cleanup").unwrap_or(false);
        let expected_output = object.object("expectedOutput").map(ExpectedOutput::read);
        let parent_step_id = object.text("parentStepId", &check_id);
        if delivery_mode == DeliveryMode::BestEffort
            && max_attempts.is_some_and(|attempts| attempts > 1)
        {
            object.problem(
                "maxAttempts",
                "best-effort",
                "is above 1; a best_effort step has one attempt",
            );
        }
        if let Some(step_id) = step_id {
            graph.add(&object, step_id);
            graph.add_owned(&object, target_session.unwrap_or_default(), &owns);
        } else {
            graph.forget();
        }
        object.done();
        Some(Self {
            step_id: step_id?.to_owned(),
            target_session: target_session?.to_owned(),
            payload,
            payload_ref,
            content_type,
            depends_on,
            join,
            claims,
            owns,
            priority,
            delivery_mode,
            timeout_ms: timeout_ms?,
            ack_timeout_ms,
            max_attempts: max_attempts.and_then(|attempts| u32::try_from(attempts).ok()),
            idempotent,
            required,
            cleanup,
            risk,
            expected_output,
            parent_step_id,
        })
    }

    /// SHA-256 over the canonical JSON of its payload or payload reference.
    #[must_use]
    pub fn payload_digest(&self) -> String {
        payload_digest(self.payload.as_deref(), self.payload_ref.as_ref())
    }

    /// Bytes of inline payload.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload.as_ref().map_or(0, |text| text.len() as u64)
    }
}

pub(crate) fn payload_digest(payload: Option<&str>, reference: Option<&PayloadRef>) -> String {
    match reference {
        Some(reference) => codec::digest(reference),
        None => codec::digest(payload.unwrap_or_default()),
    }
}

impl ExpectedOutput {
    fn read(object: Object<'_>) -> Self {
        let check_field = |text: &str| check_bytes(text, 1, limit::REQUIRED_FIELD_BYTES_MAX);
        let expected = Self {
            content_type: object.text("contentType", &|text| {
                envelope::check_content_type(Some(text))
            }),
            required_fields: object
                .texts("requiredFields", limit::REQUIRED_FIELDS_MAX, &check_field)
                .unwrap_or_default(),
            max_bytes: object.integer("maxBytes", 0, limit::INTEGER_MAX),
            allow_empty: object.boolean("allowEmpty").unwrap_or(false),
        };
        object.done();
        expected
    }
}

fn read_parent(object: Object<'_>) -> Option<Parent> {
    for name in ["coordinationId", "stepId"] {
        object.require(name);
    }
    let coordination_id = object.text("coordinationId", &check_id);
    let step_id = object.text("stepId", &check_id);
    let on_close = object
        .choice("onClose", OnClose::WORDS, OnClose::from_name)
        .unwrap_or_default();
    object.done();
    Some(Parent {
        coordination_id: coordination_id?,
        step_id: step_id?,
        on_close,
    })
}

fn read_trace(object: Object<'_>) -> Trace {
    let field = |name| object.text(name, &|text| check_bytes(text, 0, limit::TRACE_BYTES_MAX));
    let trace = Trace {
        run_id: field("runId"),
        span_id: field("spanId"),
        causal_ref: field("causalRef"),
        traceparent: field("traceparent"),
    };
    object.done();
    trace
}

fn read_payload_ref(object: Object<'_>) -> Option<PayloadRef> {
    for name in ["uri", "sha256", "bytes"] {
        object.require(name);
    }
    // Their bounds are tested where those of an envelope are; here only that they are there.
    let uri = object.text("uri", &|_| Ok(()));
    let sha256 = object.text("sha256", &|_| Ok(()));
    let bytes = object.integer("bytes", 0, limit::INTEGER_MAX);
    object.done();
    Some(PayloadRef {
        uri: uri?,
        sha256: sha256?,
        bytes: bytes?,
    })
}

/// The dependencies of a step; the graph is told of each.
fn read_dependencies<'a>(object: &Object<'a>, graph: &mut Graph<'a>) -> Vec<Dependency> {
    let values = object
        .list("dependsOn", limit::STEP_DEPENDENCIES_MAX)
        .unwrap_or_default();
    let mut dependencies = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let Some(entry) = object.entry("dependsOn", index, value) else {
            continue;
        };
        entry.require("stepId");
        let step_id = entry.text("stepId", &check_id);
        let on = entry
            .choice("on", On::WORDS, On::from_name)
            .unwrap_or_default();
        entry.done();
        if let (Some(step_id), Some(name)) = (step_id, json::text_of(value, "stepId")) {
            graph.waits_for(name, on);
            dependencies.push(Dependency { step_id, on });
        }
    }
    dependencies
}
