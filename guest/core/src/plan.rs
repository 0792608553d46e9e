//! Plans: their form, and what makes one whole.
//!
//! A plan is read once, with every error found; what becomes of its steps is not decided here.

use crate::codec::{object, words};
use crate::config::Config;
use crate::envelope::{self, DeliveryMode, PayloadRef, Priority, Trace};
use crate::id::{check_bytes, check_id, check_session};
use crate::read::{Object, Problems, syntax_problem};
use crate::receipt::Problem;
use crate::{codec, limit, order};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// What happens when steps fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FailurePolicy {
    /// Retries over the whole plan.
    pub retry_budget: u64,
    /// What the end of a step by failure does to the plan.
    pub timeout_policy: TimeoutPolicy,
    /// Waits before the first, second, … retry of a step, in milliseconds; the last one repeats. 1 to 16 entries.
    pub backoff_ms: Vec<u64>,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            retry_budget: 0,
            timeout_policy: TimeoutPolicy::default(),
            backoff_ms: limit::BACKOFF_MS_DEFAULT.to_vec(),
        }
    }
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
    /// Trace identifiers of the host.
    #[serde(default, skip_serializing_if = "Trace::is_empty")]
    pub trace: Trace,
}

words!(On { Success = "success", Failure = "failure", Always = "always", });
words!(Join { All = "all", Any = "any", });
words!(TimeoutPolicy { FailFast = "fail_fast", ContinueWithPartial = "continue_with_partial", });
words!(Reports { End = "end", Failures = "failures", All = "all", });
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
    "priority": req priority,
    "deliveryMode": req delivery_mode,
    "timeoutMs": req timeout_ms,
    "ackTimeoutMs": opt ack_timeout_ms,
    "maxAttempts": opt max_attempts,
    "idempotent": req idempotent,
    "required": req required,
    "cleanup": req cleanup,
    "expectedOutput": opt expected_output,
    "parentStepId": opt parent_step_id,
});
object!(FailurePolicy {
    "retryBudget": req retry_budget,
    "timeoutPolicy": req timeout_policy,
    "backoffMs": req backoff_ms,
});
object!(Plan {
    "coordinationId": req coordination_id,
    "objective": req objective,
    "ownerSession": req owner_session,
    "steps": req steps,
    "failurePolicy": req failure_policy,
    "deadlineMs": opt deadline_ms,
    "cancelGraceMs": opt cancel_grace_ms,
    "cleanupGraceMs": opt cleanup_grace_ms,
    "priority": req priority,
    "reports": req reports,
    "rerunOf": opt rerun_of,
    "trace": set trace,
});

impl Plan {
    /// Reads a plan, fills in its defaults and tests it as a whole.
    ///
    /// # Errors
    /// All problems, those of the plan first, then by step id.
    pub fn parse(text: &str, config: &Config) -> Result<Self, Vec<Problem>> {
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
        let value: Value =
            serde_json::from_str(text).map_err(|error| vec![syntax_problem(&error)])?;
        let problems = Problems::default();
        let plan = Object::new(&value, String::new(), None, &problems)
            .and_then(|object| Self::read(object, config));
        let problems = order::sort(problems.into_inner(), |a, b| a.step_id.cmp(&b.step_id));
        let Some(plan) = plan.filter(|_| problems.is_empty()) else {
            return Err(problems);
        };
        let bytes = codec::canonical(&plan).len() as u64;
        if bytes > config.limits.plan_bytes {
            let says = format!(
                "has {bytes} bytes in canonical form; {} are allowed",
                config.limits.plan_bytes
            );
            return Err(whole("out-of-bound", says));
        }
        Ok(plan)
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
        let steps = Self::read_steps(&object, priority, config);
        let failure_policy = object
            .object("failurePolicy")
            .map_or_else(FailurePolicy::default, FailurePolicy::read);
        let deadline_ms = object.integer("deadlineMs", 0, limit::TIME_MS_MAX);
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
            failure_policy,
            deadline_ms,
            cancel_grace_ms,
            cleanup_grace_ms,
            priority,
            reports,
            rerun_of,
            trace,
        })
    }

    fn read_steps(object: &Object<'_>, priority: Priority, config: &Config) -> Option<Vec<Step>> {
        let values = object.list(
            "steps",
            usize::try_from(config.limits.plan_steps).unwrap_or(usize::MAX),
        )?;
        if values.is_empty() {
            object.problem("steps", "empty", "is empty; a plan has at least one step");
        }
        let mut steps = Vec::with_capacity(values.len());
        let mut graph = Graph::default();
        for (index, value) in values.iter().enumerate() {
            let Some(mut entry) = object.entry("steps", index, value) else {
                continue;
            };
            if let Some(Value::String(step_id)) = value.get("stepId") {
                entry.set_step(step_id);
            }
            if let Some(step) = Step::read(entry, priority, config, &mut graph) {
                steps.push(step);
            }
        }
        graph.check(object);
        Some(steps)
    }
}

impl FailurePolicy {
    fn read(object: Object<'_>) -> Self {
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
            backoff_ms: object
                .integers("backoffMs", limit::BACKOFF_MAX, 0, limit::DURATION_MS_MAX)
                .unwrap_or(default.backoff_ms),
        };
        if policy.backoff_ms.is_empty() {
            object.problem(
                "backoffMs",
                "empty",
                "is empty; leave it out for the default waits",
            );
        }
        object.done();
        policy
    }
}

impl Step {
    fn read(
        object: Object<'_>,
        plan_priority: Priority,
        config: &Config,
        graph: &mut Graph,
    ) -> Option<Self> {
        for name in ["stepId", "targetSession", "timeoutMs"] {
            object.require(name);
        }
        let step_id = object.text("stepId", &check_id);
        let target_session = object.text("targetSession", &check_session);
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
        let depends_on = read_dependencies(&object);
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
        if let Some(step_id) = &step_id {
            graph.add(&object, step_id, &depends_on);
        }
        object.done();
        Some(Self {
            step_id: step_id?,
            target_session: target_session?,
            payload,
            payload_ref,
            content_type,
            depends_on,
            join,
            priority,
            delivery_mode,
            timeout_ms: timeout_ms?,
            ack_timeout_ms,
            max_attempts: max_attempts.and_then(|attempts| u32::try_from(attempts).ok()),
            idempotent,
            required,
            cleanup,
            expected_output,
            parent_step_id,
        })
    }

    /// SHA-256 over the canonical JSON of its payload or payload reference.
    #[must_use]
    pub fn payload_digest(&self) -> String {
        match &self.payload_ref {
            Some(reference) => codec::digest(reference),
            None => codec::digest(self.payload.as_deref().unwrap_or_default()),
        }
    }

    /// Bytes of inline payload.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload.as_ref().map_or(0, |text| text.len() as u64)
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

fn read_dependencies(object: &Object<'_>) -> Vec<Dependency> {
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
        dependencies.extend(step_id.map(|step_id| Dependency { step_id, on }));
    }
    dependencies
}

/// Where each step stands in the text and what it waits for.
#[derive(Default)]
struct Graph {
    nodes: Vec<Node>,
    /// Places in `nodes`, by step id; of those with one id only the first. Made by `check`.
    by_id: Vec<usize>,
    dependencies: usize,
}

/// A step of the graph.
struct Node {
    step_id: String,
    path: String,
    waits_for: Vec<String>,
}

impl Graph {
    fn add(&mut self, object: &Object<'_>, step_id: &str, dependencies: &[Dependency]) {
        self.dependencies += dependencies.len();
        let mut seen: Vec<(&str, u8)> = Vec::new();
        for (index, dependency) in dependencies.iter().enumerate() {
            let member = format!("dependsOn[{index}].stepId");
            if dependency.step_id == step_id {
                object.problem(
                    &member,
                    "self-dependency",
                    format!("is {step_id}, the step itself"),
                );
            } else if !order::insert(&mut seen, (&dependency.step_id, dependency.on as u8)) {
                object.problem(
                    &member,
                    "duplicate-dependency",
                    format!("is {} again", dependency.step_id),
                );
            }
        }
        let others = dependencies
            .iter()
            .map(|dependency| dependency.step_id.clone());
        let waits_for = others.filter(|other| other != step_id).collect();
        self.nodes.push(Node {
            step_id: step_id.to_owned(),
            path: object.path_of(""),
            waits_for,
        });
    }

    /// Duplicate ids, unknown dependencies, cycles, and the bound over all steps.
    fn check(&mut self, object: &Object<'_>) {
        let id = |place: &usize| self.nodes[*place].step_id.as_str();
        let sorted = order::sort((0..self.nodes.len()).collect(), |a, b| id(a).cmp(id(b)));
        let mut by_id: Vec<usize> = Vec::with_capacity(sorted.len());
        for place in sorted {
            match by_id.last().filter(|first| id(first) == id(&place)) {
                Some(first) => {
                    let says = format!(
                        "is {} again; the first is {}stepId",
                        id(&place),
                        self.nodes[*first].path
                    );
                    let field = format!("{}stepId", self.nodes[place].path);
                    object.problem_of(id(&place), field, "duplicate-step", says);
                }
                None => by_id.push(place),
            }
        }
        self.by_id = by_id;
        if self.dependencies > limit::PLAN_DEPENDENCIES_MAX {
            let bound = limit::PLAN_DEPENDENCIES_MAX;
            let says = format!(
                "have {} dependencies together; {bound} are allowed",
                self.dependencies
            );
            object.problem("steps", "out-of-bound", says);
        }
        for node in &self.nodes {
            for other in node
                .waits_for
                .iter()
                .filter(|other| self.place(other).is_none())
            {
                let says = format!("names {other}, which is no step of the plan");
                Self::problem(object, node, "unknown-dependency", says);
            }
        }
        for cycle in self.cycles() {
            let ids: Vec<&str> = cycle
                .iter()
                .chain(cycle.first())
                .map(|at| &*self.nodes[*at].step_id)
                .collect();
            Self::problem(
                object,
                &self.nodes[cycle[0]],
                "cycle",
                format!("waits for itself: {}", ids.join(" -> ")),
            );
        }
    }

    fn problem(object: &Object<'_>, node: &Node, code: &str, says: String) {
        object.problem_of(&node.step_id, format!("{}dependsOn", node.path), code, says);
    }

    fn parents(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        self.nodes[at]
            .waits_for
            .iter()
            .filter_map(|other| self.place(other))
    }

    fn place(&self, step_id: &str) -> Option<usize> {
        let found = self
            .by_id
            .binary_search_by(|place| self.nodes[*place].step_id.as_str().cmp(step_id));
        found.ok().map(|at| self.by_id[at])
    }

    /// One cycle for every knot of steps that wait for each other, smallest id first.
    fn cycles(&self) -> Vec<Vec<usize>> {
        let count = self.nodes.len();
        let mut waiting: Vec<usize> = vec![0; count];
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (at, waits) in waiting.iter_mut().enumerate() {
            for parent in self.parents(at) {
                children[parent].push(at);
                *waits += 1;
            }
        }
        let mut free: Vec<usize> = (0..count).filter(|at| waiting[*at] == 0).collect();
        while let Some(at) = free.pop() {
            for child in &children[at] {
                waiting[*child] -= 1;
                if waiting[*child] == 0 {
                    free.push(*child);
                }
            }
        }
        // Whoever is left waits, directly or not, for a cycle: follow the first such dependency until it repeats.
        let mut cycles = Vec::new();
        let mut seen = vec![false; count];
        for start in (0..count).filter(|at| waiting[*at] > 0) {
            let mut walk = Vec::new();
            let mut at = start;
            while !std::mem::replace(&mut seen[at], true) {
                walk.push(at);
                let next = self.parents(at).find(|parent| waiting[*parent] > 0);
                at = next.expect("who is left waits for one who is left");
            }
            if let Some(from) = walk.iter().position(|step| *step == at) {
                let mut cycle = walk.split_off(from);
                let smallest = (0..cycle.len())
                    .min_by_key(|index| &self.nodes[cycle[*index]].step_id)
                    .unwrap_or(0);
                cycle.rotate_left(smallest);
                cycles.push(cycle);
            }
        }
        cycles
    }
}
