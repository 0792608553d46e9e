//! The envelope: one instruction between agents, its form, its content and its identity.
//!
//! Does not know plans or states; whether an envelope may be said now is decided in `step.rs`.

use crate::claim::Token;
use crate::codec::{self, Write, name, object, words};
use crate::id::{check_bytes, check_digest, check_id, check_session};
use crate::limit;
use crate::take::{At, Take, take};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What an envelope asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Do the work.
    Execute,
    /// The outcome of an attempt.
    Report,
    /// End the plan or a step.
    Cancel,
    /// A question to a person.
    Escalate,
    /// The attempt was taken up.
    Ack,
}

/// Priorities in rising order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Below everything.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Above normal; waiting steps rise as far as this.
    High,
    /// Above everything; only a plan gives it.
    Critical,
}

/// How a message may be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// One delivery, one attempt.
    BestEffort,
    /// Redelivered under the same key until taken.
    #[default]
    AtLeastOnce,
}

/// What is known of the effect of a failed attempt, as a reporter says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A new attempt may succeed.
    Retryable,
    /// No attempt can succeed.
    Permanent,
    /// Nobody knows whether the effect happened.
    Unknown,
}

/// Trace identifiers of the host, carried untouched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trace {
    /// Id of the host's run; at most 128 bytes, like every field here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Id of the span within the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// What caused this, in the host's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal_ref: Option<String>,
    /// W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl crate::codec::Absent for Trace {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Trace {
    /// Nothing to carry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields().iter().all(|(_, text)| text.is_none())
    }

    /// The fields with their JSON names.
    pub fn fields(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("runId", self.run_id.as_deref()),
            ("spanId", self.span_id.as_deref()),
            ("causalRef", self.causal_ref.as_deref()),
            ("traceparent", self.traceparent.as_deref()),
        ]
    }
}

/// Content that is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PayloadRef {
    /// Where it is; 1..1024 bytes.
    pub uri: String,
    /// SHA-256 of the content, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Size of the content in bytes.
    pub bytes: u64,
}

/// A name and a text that are carried through untouched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// 1..64 bytes.
    pub name: String,
    /// At most 1 KiB.
    pub text: String,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The work is done.
    Completed,
    /// The work failed.
    Failed {
        /// What is known of the effect.
        class: FailureClass,
        /// Short machine-readable reason, in the form of an id.
        code: String,
        /// A sentence for people; at most 1 KiB.
        message: String,
    },
    /// Still running.
    Progress {
        /// Identifies the progress message within its attempt.
        number: u64,
    },
}

/// A question to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Identifies the question within its attempt.
    pub number: u64,
    /// What is asked; 1 byte to 1 KiB.
    pub text: String,
}

/// One instruction between agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// The coordination it belongs to.
    pub coordination_id: String,
    /// The step; absent in a cancel of the whole plan and in a report of the end of a coordination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
    /// Causal parent; never orders anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_step_id: Option<String>,
    /// The attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The session that says this.
    pub source_session: String,
    /// The session it is said to.
    pub target_session: String,
    /// What it asks for.
    pub intent: Intent,
    /// Priority; coming in it never raises that of a step.
    #[serde(default)]
    pub priority: Priority,
    /// How it may be delivered.
    #[serde(default)]
    pub delivery_mode: DeliveryMode,
    /// When it is of no more use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// When the sender made it, by the sender's clock.
    #[serde(default)]
    pub created_at_ms: u64,
    /// Trace identifiers.
    #[serde(default, skip_serializing_if = "Trace::is_empty")]
    pub trace: Trace,
    /// Media type of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Inline content; at most 64 KiB. Not beside `payloadRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Content kept elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_ref: Option<PayloadRef>,
    /// Carried through untouched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<Extension>,
    /// In a report what came of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// In a cancel why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In an escalate what is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
    /// In an execute that leaves QM2 the fencing tokens of what the step holds; coming in empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Token>,
}

/// The members that make the content of an input; what is not here is not part of its identity.
struct Content<'a> {
    source_session: &'a str,
    target_session: &'a str,
    outcome: Option<&'a Outcome>,
    question: Option<&'a Question>,
    content_type: Option<&'a String>,
    payload: Option<&'a String>,
    payload_ref: Option<&'a PayloadRef>,
    deadline_ms: Option<u64>,
    priority: Priority,
    delivery_mode: DeliveryMode,
    extensions: &'a [Extension],
}

object!(write Content<'a> {
    "sourceSession": req source_session,
    "targetSession": req target_session,
    "outcome": opt outcome,
    "question": opt question,
    "contentType": opt content_type,
    "payload": opt payload,
    "payloadRef": opt payload_ref,
    "deadlineMs": opt deadline_ms,
    "priority": req priority,
    "deliveryMode": req delivery_mode,
    "extensions": req extensions,
});

words!(Intent { Execute = "execute", Report = "report", Cancel = "cancel", Escalate = "escalate", Ack = "ack", });
words!(Priority { Low = "low", Normal = "normal", High = "high", Critical = "critical", });
words!(DeliveryMode { BestEffort = "best_effort", AtLeastOnce = "at_least_once", });
words!(FailureClass { Retryable = "retryable", Permanent = "permanent", Unknown = "unknown", });
object!(taken Trace {
    "runId": opt run_id,
    "spanId": opt span_id,
    "causalRef": opt causal_ref,
    "traceparent": opt traceparent,
});
object!(taken PayloadRef { "uri": req uri, "sha256": req sha256, "bytes": req bytes, });
object!(taken Question { "number": req number, "text": req text, });
object!(taken Extension { "name": req name, "text": req text, });

// Left out while they are empty, and never part of a record.
object!(taken write Envelope {
    "coordinationId": req coordination_id,
    "stepId": opt step_id,
    "parentStepId": opt parent_step_id,
    "attempt": opt attempt,
    "sourceSession": req source_session,
    "targetSession": req target_session,
    "intent": req intent,
    "priority": def priority,
    "deliveryMode": def delivery_mode,
    "deadlineMs": opt deadline_ms,
    "createdAtMs": def created_at_ms,
    "trace": set trace,
    "contentType": opt content_type,
    "payload": opt payload,
    "payloadRef": opt payload_ref,
    "extensions": set extensions,
    "outcome": opt outcome,
    "reason": opt reason,
    "question": opt question,
    "tokens": set tokens,
});

impl Take for Outcome {
    fn take(at: &At<'_, '_>) -> Self {
        match at.case(&["completed", "failed", "progress"]) {
            (1, Some(case)) => {
                let failure = case.take::<Failure>("failed");
                Self::Failed {
                    class: failure.class,
                    code: failure.code,
                    message: failure.message,
                }
            }
            (2, Some(case)) => case.take::<Progress>("progress").into(),
            (place, case) => {
                if place > 0 || case.is_some() {
                    at.wrong("\"completed\", or an object of failed or progress");
                }
                Self::Completed
            }
        }
    }
}

/// What stands in an outcome that failed.
struct Failure {
    class: FailureClass,
    code: String,
    message: String,
}

/// What stands in an outcome of one that goes on.
struct Progress {
    number: u64,
}

impl From<Progress> for Outcome {
    fn from(progress: Progress) -> Self {
        Self::Progress {
            number: progress.number,
        }
    }
}

take!(Failure { "class": req class, "code": req code, "message": req message, });
take!(Progress { "number": req number, });

impl Write for Outcome {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Completed => "completed".write(out),
            Self::Failed {
                class,
                code,
                message,
            } => {
                out.extend_from_slice(b"{\"failed\":{");
                codec::write_req(out, name!("class"), class);
                codec::write_req(out, name!("code"), code);
                codec::write_req(out, name!("message"), message);
                out.extend_from_slice(b"}}");
            }
            Self::Progress { number } => {
                out.extend_from_slice(b"{\"progress\":{");
                codec::write_req(out, name!("number"), number);
                out.extend_from_slice(b"}}");
            }
        }
    }
}

impl Envelope {
    /// The part of its identity that tells the inputs of one attempt and intent apart.
    #[must_use]
    pub fn part(&self) -> Cow<'static, str> {
        match &self.outcome {
            Some(Outcome::Completed | Outcome::Failed { .. }) => "end".into(),
            Some(Outcome::Progress { number }) => format!("progress:{number}").into(),
            None => match &self.question {
                Some(question) => format!("escalate:{}", question.number).into(),
                None => "".into(),
            },
        }
    }

    fn content(&self) -> Content<'_> {
        Content {
            source_session: &self.source_session,
            target_session: &self.target_session,
            outcome: self.outcome.as_ref(),
            question: self.question.as_ref(),
            content_type: self.content_type.as_ref(),
            payload: self.payload.as_ref(),
            payload_ref: self.payload_ref.as_ref(),
            deadline_ms: self.deadline_ms,
            priority: self.priority,
            delivery_mode: self.delivery_mode,
            extensions: &self.extensions,
        }
    }

    /// SHA-256 over its content.
    #[must_use]
    pub fn content_digest(&self) -> String {
        codec::digest(&self.content())
    }

    /// Tests every member against its form and bound.
    ///
    /// # Errors
    /// The first offending member, and a sentence with the offence and the bound.
    pub fn check(&self, payload_bytes_max: u64) -> Result<(), (String, String)> {
        let at = |field: &str, result: Result<(), String>| {
            result.map_err(|says| (field.to_owned(), says))
        };
        at("coordinationId", check_id(&self.coordination_id))?;
        for (field, id) in [
            ("stepId", &self.step_id),
            ("parentStepId", &self.parent_step_id),
        ] {
            at(field, id.as_deref().map_or(Ok(()), check_id))?;
        }
        at("sourceSession", check_session(&self.source_session))?;
        at("targetSession", check_session(&self.target_session))?;
        for (field, value) in [
            ("createdAtMs", Some(self.created_at_ms)),
            ("deadlineMs", self.deadline_ms),
        ] {
            at(field, check_integer(value.unwrap_or(0)))?;
        }
        check_trace(&self.trace).map_err(|(field, says)| (format!("trace.{field}"), says))?;
        at(
            "contentType",
            check_content_type(self.content_type.as_deref()),
        )?;
        check_payload(
            self.payload.as_deref(),
            self.payload_ref.as_ref(),
            payload_bytes_max,
        )?;
        if self.extensions.len() > limit::EXTENSIONS_MAX {
            let says = format!(
                "has {} entries; {} are allowed",
                self.extensions.len(),
                limit::EXTENSIONS_MAX
            );
            return Err(("extensions".into(), says));
        }
        for (index, extension) in self.extensions.iter().enumerate() {
            let name = check_bytes(&extension.name, 1, limit::EXTENSION_NAME_BYTES_MAX);
            at(&format!("extensions[{index}].name"), name)?;
            let text = check_bytes(&extension.text, 0, limit::EXTENSION_TEXT_BYTES_MAX);
            at(&format!("extensions[{index}].text"), text)?;
        }
        self.check_shape()
    }

    /// Tests which members go with which intent.
    fn check_shape(&self) -> Result<(), (String, String)> {
        let no = |field: &str, says: &str| Err((field.to_owned(), says.to_owned()));
        if self.intent != Intent::Cancel && self.step_id.is_none() {
            return no(
                "stepId",
                "is absent; only a cancel of the whole plan goes without it",
            );
        }
        if self.intent != Intent::Cancel && self.attempt.is_none_or(|attempt| attempt == 0) {
            return no("attempt", "is absent or 0; attempts count from 1");
        }
        if self.intent == Intent::Cancel && self.attempt.is_some() {
            return no(
                "attempt",
                "does not go with a cancel, which stops the step whatever its attempt",
            );
        }
        if (self.intent == Intent::Report) != self.outcome.is_some() {
            return no("outcome", "goes with a report and with nothing else");
        }
        if self.reason.is_some() && self.intent != Intent::Cancel {
            return no("reason", "goes with a cancel and with nothing else");
        }
        if let Some(reason) = &self.reason {
            check_bytes(reason, 0, limit::TEXT_BYTES_MAX)
                .map_err(|says| ("reason".to_owned(), says))?;
        }
        if (self.intent == Intent::Escalate) != self.question.is_some() {
            return no("question", "goes with an escalate and with nothing else");
        }
        if let Some(question) = &self.question {
            check_integer(question.number).map_err(|says| ("question.number".to_owned(), says))?;
            check_bytes(&question.text, 1, limit::TEXT_BYTES_MAX)
                .map_err(|says| ("question.text".to_owned(), says))?;
        }
        if !self.tokens.is_empty() {
            return no("tokens", "do not come in; they go with a dispatch");
        }
        if self.intent == Intent::Execute && self.parent_step_id.is_none() {
            return no(
                "parentStepId",
                "is absent; a running step adds steps under itself",
            );
        }
        if self.intent == Intent::Execute && self.attempt != Some(1) {
            return no("attempt", "is not 1, the first attempt of a new step");
        }
        match &self.outcome {
            Some(Outcome::Failed { code, message, .. }) => {
                check_id(code).map_err(|says| ("outcome.failed.code".to_owned(), says))?;
                check_bytes(message, 0, limit::TEXT_BYTES_MAX)
                    .map_err(|says| ("outcome.failed.message".to_owned(), says))
            }
            Some(Outcome::Progress { number }) => {
                check_integer(*number).map_err(|says| ("outcome.progress.number".to_owned(), says))
            }
            Some(Outcome::Completed) | None => Ok(()),
        }
    }
}

/// An integer that every host language holds exactly.
pub(crate) fn check_integer(value: u64) -> Result<(), String> {
    if value <= limit::INTEGER_MAX {
        return Ok(());
    }
    Err(format!("is {value}; 0..{} are allowed", limit::INTEGER_MAX))
}

/// The fields of a trace; names the offending one.
pub(crate) fn check_trace(trace: &Trace) -> Result<(), (&'static str, String)> {
    for (field, value) in trace.fields() {
        check_bytes(value.unwrap_or(""), 0, limit::TRACE_BYTES_MAX)
            .map_err(|says| (field, says))?;
    }
    Ok(())
}

/// A media type.
pub(crate) fn check_content_type(value: Option<&str>) -> Result<(), String> {
    value.map_or(Ok(()), |text| {
        check_bytes(text, 1, limit::CONTENT_TYPE_BYTES_MAX)
    })
}

/// Inline content or a reference, not both, within their bounds; names the offending member.
pub(crate) fn check_payload(
    payload: Option<&str>,
    payload_ref: Option<&PayloadRef>,
    payload_bytes_max: u64,
) -> Result<(), (String, String)> {
    if payload.is_some() && payload_ref.is_some() {
        return Err((
            "payloadRef".into(),
            "stands beside payload; one of the two is allowed".into(),
        ));
    }
    if let Some(text) = payload
        && text.len() as u64 > payload_bytes_max
    {
        let says = format!(
            "has {} bytes; {payload_bytes_max} are allowed: use payloadRef",
            text.len()
        );
        return Err(("payload".into(), says));
    }
    if let Some(reference) = payload_ref {
        let uri = check_bytes(&reference.uri, 1, limit::URI_BYTES_MAX);
        uri.map_err(|says| ("payloadRef.uri".to_owned(), says))?;
        check_digest(&reference.sha256).map_err(|says| ("payloadRef.sha256".to_owned(), says))?;
        check_integer(reference.bytes).map_err(|says| ("payloadRef.bytes".to_owned(), says))?;
    }
    Ok(())
}
