//! Plans and envelopes in few words. The coordination is `c`, its owner `user:owner`, the session of step `a` is `agent:a`.

use qm2_core::claim::{ClaimRequest, Mode};
use qm2_core::config::Config;
use qm2_core::envelope::{
    DeliveryMode, Envelope, FailureClass, Intent, Outcome, Priority, Question, Trace,
};
use qm2_core::message::{Caller, Role};
use serde_json::{Value, json};

/// Who owns the plans of the tests.
pub const OWNER: &str = "user:owner";

/// A JSON object that is being built.
#[derive(Clone, Debug)]
pub struct Json(pub Value);

impl Json {
    /// Sets a member.
    pub fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0[name] = value.into();
        self
    }

    /// Of a step: depends on another one's success.
    pub fn after(self, step: &str) -> Self {
        self.on(step, "success")
    }

    /// Of a step: depends on another one's end.
    pub fn on(mut self, step: &str, on: &str) -> Self {
        let dependency = json!({"stepId": step, "on": on});
        match self.0["dependsOn"].as_array_mut() {
            Some(list) => list.push(dependency),
            None => self.0["dependsOn"] = json!([dependency]),
        }
        self
    }

    /// Of a plan: retries over the whole plan, and the waits before them.
    pub fn retries(mut self, budget: u64, backoff_ms: &[u64]) -> Self {
        self.0["failurePolicy"]["retryBudget"] = budget.into();
        self.0["failurePolicy"]["backoffMs"] = backoff_ms.into();
        self
    }

    /// Of a plan: stops when a step fails for good.
    pub fn fail_fast(mut self) -> Self {
        self.0["failurePolicy"]["timeoutPolicy"] = "fail_fast".into();
        self
    }

    /// Of a step: needs a resource alone, for a minute.
    pub fn claims(self, resource: &str) -> Self {
        self.claim(json!({"resource": resource, "leaseMs": 60_000}))
    }

    /// Of a step: needs a resource, as this claim says.
    pub fn claim(mut self, claim: Value) -> Self {
        match self.0["claims"].as_array_mut() {
            Some(list) => list.push(claim),
            None => self.0["claims"] = json!([claim]),
        }
        self
    }

    /// Of a plan: what decides contests.
    pub fn strategy(mut self, strategy: &str) -> Self {
        self.0["conflictPolicy"]["default"] = strategy.into();
        self
    }

    /// Of a plan: the session that owns a resource.
    pub fn owner(mut self, resource: &str, session: &str) -> Self {
        let owner = json!({"resource": resource, "session": session});
        match self.0["conflictPolicy"]["owners"].as_array_mut() {
            Some(list) => list.push(owner),
            None => self.0["conflictPolicy"]["owners"] = json!([owner]),
        }
        self
    }

    /// Of a plan: holders may be ended in favour of others.
    pub fn preempt(mut self) -> Self {
        self.0["conflictPolicy"]["preempt"] = true.into();
        self
    }

    /// Of a plan: an operator is asked, for ten seconds; nobody's answer is a denial.
    pub fn hitl(self) -> Self {
        self.human(json!({"levels": [{"sessions": ["user:dana"], "timeoutMs": 10_000}]}))
    }

    /// Of a plan: who is asked.
    pub fn human(mut self, human: Value) -> Self {
        self.0["failurePolicy"]["escalationPolicy"] = "hitl".into();
        self.0["failurePolicy"]["human"] = human;
        self
    }

    /// Of a plan: a member of who is asked.
    pub fn human_set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0["failurePolicy"]["human"][name] = value.into();
        self
    }

    pub fn text(&self) -> String {
        self.0.to_string()
    }

    pub fn text_of(&self, name: &str) -> String {
        self.0[name].as_str().unwrap_or_default().to_owned()
    }
}

/// A configuration as somebody would write it: without the members that are the default's.
pub fn config_text(config: &Config) -> String {
    fn without(value: &mut Value, default: &Value) {
        let (Some(members), Some(defaults)) = (value.as_object_mut(), default.as_object()) else {
            return;
        };
        members.retain(|name, member| defaults.get(name) != Some(member) || name == "domain");
        for (name, member) in members {
            without(member, defaults.get(name).unwrap_or(&Value::Null));
        }
    }
    let value = |config: &Config| serde_json::from_str(&config.to_json()).expect("it is JSON");
    let (mut text, default): (Value, Value) = (value(config), value(&Config::new("d")));
    without(&mut text, &default);
    text.to_string()
}

/// A step that one attempt may work on for a minute.
pub fn step(id: &str) -> Json {
    let session = format!("agent:{id}");
    Json(json!({"stepId": id, "targetSession": session, "timeoutMs": 60_000}))
}

/// A plan of these steps.
pub fn plan(steps: impl IntoIterator<Item = Json>) -> Json {
    let steps: Vec<Value> = steps.into_iter().map(|step| step.0).collect();
    Json(json!({
        "coordinationId": "c",
        "objective": "show a rule",
        "ownerSession": OWNER,
        "steps": steps,
        "failurePolicy": {},
    }))
}

/// A caller without a role.
pub fn caller(session: &str) -> Caller {
    Caller {
        session: session.to_owned(),
        role: None,
    }
}

pub fn caller_as(session: &str, role: Role) -> Caller {
    Caller {
        role: Some(role),
        ..caller(session)
    }
}

fn envelope(intent: Intent, step: &str, attempt: u32) -> Envelope {
    Envelope {
        coordination_id: "c".into(),
        step_id: Some(step.into()),
        parent_step_id: None,
        attempt: Some(attempt),
        source_session: format!("agent:{step}"),
        target_session: OWNER.into(),
        intent,
        priority: Priority::Normal,
        delivery_mode: DeliveryMode::AtLeastOnce,
        deadline_ms: None,
        created_at_ms: 0,
        trace: Trace::default(),
        content_type: None,
        payload: None,
        payload_ref: None,
        extensions: Vec::new(),
        outcome: None,
        reason: None,
        question: None,
        tokens: Vec::new(),
    }
}

pub fn ack(step: &str, attempt: u32) -> Envelope {
    envelope(Intent::Ack, step, attempt)
}

pub fn progress(step: &str, attempt: u32, number: u64) -> Envelope {
    Envelope {
        outcome: Some(Outcome::Progress { number }),
        ..envelope(Intent::Report, step, attempt)
    }
}

pub fn done(step: &str, attempt: u32, payload: &str) -> Envelope {
    Envelope {
        outcome: Some(Outcome::Completed),
        payload: Some(payload.into()),
        ..envelope(Intent::Report, step, attempt)
    }
}

pub fn failed(step: &str, attempt: u32, class: FailureClass, code: &str) -> Envelope {
    let (code, message) = (code.to_owned(), format!("{code} happened"));
    Envelope {
        outcome: Some(Outcome::Failed {
            class,
            code,
            message,
        }),
        ..envelope(Intent::Report, step, attempt)
    }
}

/// A question of the agent of a step to a person.
pub fn escalate(step: &str, attempt: u32, number: u64, text: &str) -> Envelope {
    let text = text.to_owned();
    Envelope {
        question: Some(Question { number, text }),
        ..envelope(Intent::Escalate, step, attempt)
    }
}

/// A step that the agent of a running step adds under it.
pub fn execute(step: &str, parent: &str) -> Envelope {
    Envelope {
        parent_step_id: Some(parent.into()),
        source_session: format!("agent:{parent}"),
        target_session: format!("agent:{step}"),
        payload: Some("more".into()),
        ..envelope(Intent::Execute, step, 1)
    }
}

/// One more claim, alone and for a minute, of a running step of plan `c`.
pub fn request(step: &str, attempt: u32, resource: &str) -> ClaimRequest {
    ClaimRequest {
        coordination_id: "c".into(),
        step_id: step.into(),
        attempt,
        resource: resource.into(),
        mode: Mode::Exclusive,
        lease_ms: 60_000,
        base_version: None,
        regions: Vec::new(),
    }
}

/// A person who may answer what [`Json::hitl`] asks.
pub fn dana() -> Caller {
    caller_as("user:dana", Role::Operator)
}

/// A cancel of the whole plan by its owner.
pub fn cancel() -> Envelope {
    Envelope {
        step_id: None,
        ..cancel_step("")
    }
}

/// A cancel of one step by the owner of the plan.
pub fn cancel_step(step: &str) -> Envelope {
    Envelope {
        attempt: None,
        source_session: OWNER.into(),
        target_session: "qm2:d".into(),
        ..envelope(Intent::Cancel, step, 1)
    }
}

/// Small changes of an envelope.
pub trait Change {
    /// From another session.
    fn by(self, session: &str) -> Self;
    /// For another coordination.
    fn of(self, id: &str) -> Self;
}

impl Change for Envelope {
    fn by(mut self, session: &str) -> Self {
        self.source_session = session.to_owned();
        self
    }

    fn of(mut self, id: &str) -> Self {
        self.coordination_id = id.to_owned();
        self
    }
}
