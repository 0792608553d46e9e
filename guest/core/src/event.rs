//! Records: the events of the ledger, their members and their one text form.
//!
//! Does not know when an event happens or what it does; see [`crate::machine`] and `apply.rs`.

use crate::arbitration::{Contender, OutcomeKind, Policy, Stage, Strategy};
use crate::claim::{Mode, Region, Token};
use crate::codec::{self, Input, Malformed, Read, Write, name, object, words};
use crate::config::Config;
use crate::digest::sha256_hex;
use crate::envelope::{DeliveryMode, PayloadRef, Priority, Trace};
use crate::message::{Caller, HookKind, HumanVerdict, Role};
use crate::plan::{Fallback, Level, Plan, Step};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Version of the line format.
pub const LINE_VERSION: u32 = 1;
/// The rules that this component follows; pinned in every plan.
pub const RULES: u32 = 1;

/// A shared id or session name.
pub type Name = Arc<str>;

/// Class of a failure as the ledger says it: what a reporter knew, or what the core found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A new attempt may succeed.
    Retryable,
    /// No attempt can succeed.
    Permanent,
    /// Nobody knows whether the effect happened.
    Unknown,
    /// The attempt's deadline passed.
    Timeout,
    /// What ran the attempt is gone.
    HostLost,
    /// It was ended in favour of another step.
    Preempted,
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// That of the attempt.
    Attempt,
    /// That of the plan.
    Plan,
    /// The end of the cleanup grace.
    Cleanup,
}

/// What ended a step as cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelledBy {
    /// A cancel of the plan or the step.
    Cancel,
    /// The plan's failure policy.
    FailFast,
    /// What the plan belongs to ended.
    Parent,
}

/// Why a step was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its dependencies went another way than it waited for.
    Condition,
    /// A step that it depends on failed.
    UpstreamFailed,
    /// The plan's failure policy.
    FailFast,
    /// The plan's deadline passed.
    PlanDeadline,
}

/// How a coordination ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TerminalState {
    /// Everything that had to be done was done.
    Success,
    /// Something was done.
    Partial,
    /// Nothing was done, or the plan was stopped.
    Failed,
    /// A question to a person was still open at the plan's deadline.
    Escalated,
}

/// Why a coordination did not end in success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TerminalReason {
    /// A cancel of the whole plan.
    Cancelled,
    /// A question to a person was not answered.
    Unanswered,
    /// The plan's failure policy.
    FailFast,
    /// The plan's deadline.
    PlanDeadline,
    /// Steps that failed.
    StepsFailed,
}

/// Why grants were given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// The attempt ended.
    Ended,
    /// The step gave them back.
    Released,
    /// The attempt was ended in favour of another step.
    Preempted,
}

/// What a question to a person is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EscalationKind {
    /// A hook wants a person to look at it.
    Review,
    /// A contest that no rule decides.
    Conflict,
    /// A step that failed and may not be retried any more.
    Exhausted,
    /// An attempt of which nobody knows whether its effect happened.
    UnknownEffect,
    /// What an agent wants to know.
    Question,
}

/// Why a question, or one level of it, is over without a final answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiredReason {
    /// Nobody answered in time.
    Timeout,
    /// It did not reach its person.
    Unreachable,
    /// The plan's deadline came first.
    Unanswered,
    /// The step ended.
    Voided,
}

/// What a contender got, as the ledger says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its step; of the coordination of the line.
    pub step_id: String,
    /// What it got.
    pub outcome: OutcomeKind,
    /// Its place, from 1; 0 where it has none.
    pub order: u32,
}

/// Steps by the way they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Steps that ended completed.
    pub completed: u64,
    /// Steps that ended failed.
    pub failed: u64,
    /// Steps that ended timed_out.
    pub timed_out: u64,
    /// Steps that ended cancelled.
    pub cancelled: u64,
    /// Steps that were skipped.
    pub skipped: u64,
}

words!(Class {
    Retryable = "retryable",
    Permanent = "permanent",
    Unknown = "unknown",
    Timeout = "timeout",
    HostLost = "host_lost",
    Preempted = "preempted",
});
words!(Which { Attempt = "attempt", Plan = "plan", Cleanup = "cleanup", });
words!(CancelledBy { Cancel = "cancel", FailFast = "fail_fast", Parent = "parent", });
words!(ReleaseReason { Ended = "ended", Released = "released", Preempted = "preempted", });
words!(EscalationKind {
    Review = "review",
    Conflict = "conflict",
    Exhausted = "exhausted",
    UnknownEffect = "unknown_effect",
    Question = "question",
});
words!(ExpiredReason {
    Timeout = "timeout",
    Unreachable = "unreachable",
    Unanswered = "unanswered",
    Voided = "voided",
});
object!(Outcome { "stepId": req step_id, "outcome": req outcome, "order": req order, });
words!(SkipReason {
    Condition = "condition",
    UpstreamFailed = "upstream_failed",
    FailFast = "fail_fast",
    PlanDeadline = "plan_deadline",
});
words!(TerminalState {
    Success = "success",
    Partial = "partial",
    Failed = "failed",
    Escalated = "escalated",
});
words!(TerminalReason {
    Cancelled = "cancelled",
    Unanswered = "unanswered",
    FailFast = "fail_fast",
    PlanDeadline = "plan_deadline",
    StepsFailed = "steps_failed",
});
object!(Counts {
    "completed": req completed,
    "failed": req failed,
    "timedOut": req timed_out,
    "cancelled": req cancelled,
    "skipped": req skipped,
});

/// Declares the record types: their names, and their members in the order of the line, each with its name in JSON and
/// how it is written (see [`crate::codec`]).
macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $name:literal { $($(#[$member_doc:meta])* $json:literal: $mode:ident $member:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $variant { $($(#[$member_doc])* pub $member: $type,)* }

            object!($variant { $($json: $mode $member,)* });

            impl From<$variant> for Event {
                fn from(data: $variant) -> Self { Self::$variant(Box::new(data)) }
            }
        )*

        /// What a record says happened, one variant a record type. Each in a box: an event is moved often, and with its
        /// content beside the others a move would be as long as the largest of them.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event { $($(#[$doc])* $variant(Box<$variant>),)* }

        impl Event {
            /// The types of records, in the order of SPEC section 4.
            pub const TYPES: &[&str] = &[$($name),*];

            /// The type as lines carry it.
            #[must_use]
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            fn write_data(&self, out: &mut Vec<u8>) {
                match self { $(Self::$variant(data) => data.write(out),)* }
            }

            fn read_data(type_name: &str, input: &mut Input<'_>) -> Result<Self, ReadError> {
                match type_name {
                    $($name => Ok(Self::$variant(Box::new($variant::read(input)))),)*
                    _ => Err(ReadError::Unsupported(format!("record type {type_name} is not known"))),
                }
            }
        }
    };
}

events! {
    /// The first record of a domain.
    Genesis = "ledger.genesis" {
        /// Name of the domain.
        "domain": req domain: String,
        /// Rules of the component that opened it.
        "rules": req rules: u32,
        /// The first configuration.
        "config": req config: Config,
        /// SHA-256 over its canonical JSON.
        "configDigest": req config_digest: String,
        /// Hash of the last record of the domain that this one continues.
        "prevDomainHead": opt prev_domain_head: Option<String>,
    }
    /// Another configuration.
    Configured = "domain.configured" {
        /// The configuration from here on.
        "config": req config: Config,
        /// SHA-256 over its canonical JSON.
        "configDigest": req config_digest: String,
    }
    /// A plan was taken.
    Created = "coordination.created" {
        /// Rules that it follows to its end.
        "rules": req rules: u32,
        /// The plan with its defaults filled in.
        "plan": req plan: Plan,
        /// SHA-256 over its canonical JSON.
        "planDigest": req plan_digest: String,
        /// Who submitted it.
        "caller": req caller: Caller,
    }
    /// A running step added a step under itself. The line is that of the new step.
    Added = "step.added" {
        /// The new step, with its defaults filled in.
        "step": req step: Step,
        /// The session that added it and is told of its end.
        "sourceSession": req source_session: String,
        /// SHA-256 over the content of the envelope.
        "contentDigest": req content_digest: String,
    }
    /// An attempt went out.
    Dispatched = "step.dispatched" {
        /// Lane of the message.
        "lane": req lane: String,
        /// Session that is to do it.
        "targetSession": req target_session: String,
        /// How the message is delivered.
        "deliveryMode": req delivery_mode: DeliveryMode,
        /// Priority of the message.
        "priority": req priority: Priority,
        /// When the attempt must have ended.
        "deadlineMs": req deadline_ms: u64,
        /// When its ack is due; absent for best_effort.
        "ackDeadlineMs": opt ack_deadline_ms: Option<u64>,
        /// What it holds, in the order of the resources' names.
        "tokens": req tokens: Vec<Token>,
        /// SHA-256 over the step's payload.
        "payloadDigest": req payload_digest: String,
    }
    /// The attempt was taken up.
    Acknowledged = "step.acknowledged" {
        /// Who said so.
        "sourceSession": req source_session: String,
        /// SHA-256 over the content of the envelope.
        "contentDigest": req content_digest: String,
    }
    /// The attempt is still running.
    Progress = "step.progress" {
        /// Number of the progress message.
        "number": req number: u64,
        /// SHA-256 over the content of the envelope.
        "contentDigest": req content_digest: String,
        /// Its text.
        "payload": opt payload: Option<String>,
        /// Its content, kept elsewhere.
        "payloadRef": opt payload_ref: Option<PayloadRef>,
    }
    /// The step is done.
    Completed = "step.completed" {
        /// No ack came before.
        "implicitAck": set implicit_ack: bool,
        /// Media type of the result.
        "contentType": opt content_type: Option<String>,
        /// The result.
        "payload": opt payload: Option<String>,
        /// The result, kept elsewhere.
        "payloadRef": opt payload_ref: Option<PayloadRef>,
        /// SHA-256 over the content of the envelope.
        "contentDigest": req content_digest: String,
        /// `report`, or `answer` where a person said that it happened.
        "by": req by: String,
    }
    /// The step failed for good.
    Failed = "step.failed" {
        /// No ack came before.
        "implicitAck": set implicit_ack: bool,
        /// Class of the last failure.
        "class": req class: Class,
        /// Its code.
        "code": req code: String,
        /// Its sentence.
        "message": req message: String,
        /// What the report carried.
        "payload": opt payload: Option<String>,
        /// What the report carried, kept elsewhere.
        "payloadRef": opt payload_ref: Option<PayloadRef>,
        /// SHA-256 over the content of the report, where there was one.
        "contentDigest": opt content_digest: Option<String>,
        /// Attempts made.
        "attempts": req attempts: u32,
    }
    /// A deadline ended the step.
    TimedOut = "step.timed_out" {
        /// The deadline.
        "deadlineMs": req deadline_ms: u64,
        /// Whose deadline it was.
        "which": req which: Which,
        /// Attempts made.
        "attempts": req attempts: u32,
    }
    /// The attempt ended, and another one follows.
    RetryScheduled = "step.retry_scheduled" {
        /// No ack came before.
        "implicitAck": set implicit_ack: bool,
        /// Class of the failure.
        "class": req class: Class,
        /// Its code.
        "code": req code: String,
        /// Its sentence.
        "message": req message: String,
        /// SHA-256 over the content of the report, where there was one.
        "contentDigest": opt content_digest: Option<String>,
        /// When the next attempt may go out.
        "dueMs": req due_ms: u64,
        /// Its number.
        "nextAttempt": req next_attempt: u32,
        /// It does not use the budget.
        "free": req free: bool,
        /// Retries left in the plan.
        "budgetLeft": req budget_left: u64,
    }
    /// A cancel or the failure policy ended the step.
    Cancelled = "step.cancelled" {
        /// What ended it.
        "by": req by: CancelledBy,
        /// It was out, and had the grace to end by itself.
        "graceUsed": req grace_used: bool,
        /// SHA-256 over the content of the report that ended it, where there was one.
        "contentDigest": opt content_digest: Option<String>,
    }
    /// The step will not run.
    Skipped = "step.skipped" {
        /// Why.
        "reason": req reason: SkipReason,
        /// The dependencies that can no longer fire.
        "dependsOn": req depends_on: Vec<String>,
    }
    /// A step got a resource. The number of this record is the fencing token.
    Granted = "claim.granted" {
        /// The resource.
        "resource": req resource: String,
        /// How.
        "mode": req mode: Mode,
        /// The session that holds it.
        "session": req session: String,
        /// How long it is held without progress or renewal.
        "leaseMs": req lease_ms: u64,
        /// When it ends.
        "expiresMs": req expires_ms: u64,
        /// Number of the step's first conflict.detected or claim.granted record.
        "claimNumber": req claim_number: u64,
        /// What the work is based on.
        "baseVersion": opt base_version: Option<String>,
        /// Which parts; absent for all of it.
        "regions": set regions: Vec<Region>,
    }
    /// Leases began anew.
    Renewed = "claim.renewed" {
        /// Their tokens, ascending.
        "tokens": req tokens: Vec<u64>,
        /// When they end.
        "expiresMs": req expires_ms: u64,
    }
    /// Grants were given back.
    Released = "claim.released" {
        /// Their tokens, ascending.
        "tokens": req tokens: Vec<u64>,
        /// Why.
        "reason": req reason: ReleaseReason,
    }
    /// A lease ran out.
    Expired = "claim.expired" {
        /// Token of the grant.
        "token": req token: u64,
        /// The resource.
        "resource": req resource: String,
    }
    /// A claim met another one. With everything that the decision needs.
    Detected = "conflict.detected" {
        /// `c` and the number of this record.
        "contestId": req contest_id: String,
        /// The resource of the newcomer's claim.
        "resource": req resource: String,
        /// The newcomer.
        "contenders": req contenders: Vec<Contender>,
        /// Whom it overlaps: at most 16 grants, and the first of those that wait, which has no token.
        "holders": req holders: Vec<Contender>,
        /// What decides here.
        "policy": req policy: Policy,
    }
    /// A contest was decided.
    Resolved = "conflict.resolved" {
        /// Which.
        "contestId": req contest_id: String,
        /// The rule that decided.
        "stage": req stage: Stage,
        /// The strategy in force.
        "strategy": req strategy: Strategy,
        /// What the newcomer got.
        "outcomes": req outcomes: Vec<Outcome>,
        /// A sentence for people.
        "reason": req reason: String,
    }
    /// Hooks were asked.
    HookRequested = "hook.requested" {
        /// `h` and the number of this record.
        "hookId": req hook_id: String,
        /// The kind.
        "kind": req kind: HookKind,
        /// SHA-256 over what they are asked about.
        "subjectDigest": req subject_digest: String,
        /// When no answer counts as deny.
        "dueMs": req due_ms: u64,
    }
    /// Hooks answered, or were too late.
    HookAnswered = "hook.verdict" {
        /// Which request.
        "hookId": req hook_id: String,
        /// The handler that decided.
        "handler": req handler: String,
        /// `no_opinion`, `deny` or `review`.
        "verdict": req verdict: String,
        /// Why.
        "reason": opt reason: Option<String>,
    }
    /// A person is needed.
    Escalated = "coordination.escalated" {
        /// `e` and the number of this record.
        "escalationId": req escalation_id: String,
        /// What it is about.
        "kind": req kind: EscalationKind,
        /// The question.
        "question": req question: String,
        /// SHA-256 over what is decided; an answer must name it.
        "digest": req digest: String,
        /// Who is asked, level by level.
        "levels": req levels: Vec<Level>,
        /// Number that the agent gave its question.
        "number": opt number: Option<u64>,
        /// Of an attempt that ended the class of its failure.
        "class": opt class: Option<Class>,
        /// Its code.
        "code": opt code: Option<String>,
        /// Its sentence.
        "message": opt message: Option<String>,
        /// SHA-256 over the content of the envelope, where there was one.
        "contentDigest": opt content_digest: Option<String>,
    }
    /// The people of a level were asked.
    HumanRequested = "human.requested" {
        /// Which question.
        "escalationId": req escalation_id: String,
        /// The level, from 1.
        "level": req level: u32,
        /// Role that an answer needs.
        "minRole": req min_role: Role,
        /// Approvals that are needed, over all levels.
        "required": req required: u32,
        /// When the level is over.
        "dueMs": req due_ms: u64,
    }
    /// A person answered.
    HumanDecided = "human.decided" {
        /// Which question.
        "escalationId": req escalation_id: String,
        /// Who.
        "actor": req actor: String,
        /// In which role.
        "role": req role: Role,
        /// What.
        "verdict": req verdict: HumanVerdict,
        /// The words that go with it.
        "text": opt text: Option<String>,
        /// Whether this ends the question.
        "final": req is_final: bool,
    }
    /// A question, or a level of it, is over without a final answer.
    HumanExpired = "human.expired" {
        /// Which question.
        "escalationId": req escalation_id: String,
        /// The level.
        "level": req level: u32,
        /// What happens instead of an answer, where no level is left.
        "fallback": opt fallback: Option<Fallback>,
        /// Why.
        "reason": req reason: ExpiredReason,
    }
    /// A message went out again under its key.
    Redelivered = "message.redelivered" {
        /// Its key.
        "key": req key: String,
        /// Number of this delivery.
        "delivery": req delivery: u32,
        /// When the next step is due.
        "nextDueMs": req next_due_ms: u64,
    }
    /// An owner has read a report.
    MessageAcknowledged = "message.acknowledged" {
        /// Key of the report.
        "key": req key: String,
        /// Who read it.
        "session": req session: String,
    }
    /// A report was given up: listed until acknowledged, not sent again.
    Undelivered = "message.undelivered" {
        /// Key of the report.
        "key": req key: String,
        /// Deliveries made.
        "deliveries": req deliveries: u32,
    }
    /// Somebody wants the plan, or the step of the line, to stop.
    CancelRequested = "coordination.cancel_requested" {
        /// Who.
        "by": req by: String,
        /// Role of who.
        "role": opt role: Option<Role>,
        /// Why.
        "reason": opt reason: Option<String>,
        /// Until when attempts that are out may end by themselves.
        "graceUntilMs": req grace_until_ms: u64,
    }
    /// The coordination ended.
    Terminal = "coordination.terminal" {
        /// How.
        "terminal": req terminal: TerminalState,
        /// Why, if not in success.
        "reason": opt reason: Option<TerminalReason>,
        /// Its steps by the way they ended.
        "counts": req counts: Counts,
        /// SHA-256 over the canonical plan.
        "planDigest": req plan_digest: String,
    }
    /// An input came after the end of its attempt. The line carries the attempt that the input named.
    InputLate = "input.late" {
        /// Its intent; `answer` for a person's answer.
        "intent": req intent: String,
        /// Its part.
        "part": req part: String,
        /// Who said it.
        "sourceSession": req source_session: String,
        /// `late`.
        "code": req code: String,
        /// SHA-256 over its content.
        "contentDigest": req content_digest: String,
        /// What it carried, so that nothing is lost.
        "payload": opt payload: Option<String>,
        /// What it carried, kept elsewhere.
        "payloadRef": opt payload_ref: Option<PayloadRef>,
    }
    /// An input on a known step was refused.
    InputRejected = "input.rejected" {
        /// Its intent; `answer` for a person's answer.
        "intent": req intent: String,
        /// Its part.
        "part": req part: String,
        /// Who said it.
        "sourceSession": req source_session: String,
        /// Code of the rejection.
        "code": req code: String,
        /// SHA-256 over its content.
        "contentDigest": req content_digest: String,
    }
}

/// One event with its place in the hash chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number in the ledger, from 1.
    pub seq: u64,
    /// When, by the host's clock; never before the record before it.
    pub at_ms: u64,
    /// The coordination it belongs to.
    pub coordination_id: Option<Name>,
    /// The step it belongs to.
    pub step_id: Option<Name>,
    /// The attempt it belongs to.
    pub attempt: Option<u32>,
    /// Number of the record that led to this one.
    pub cause: Option<u64>,
    /// Trace identifiers of what led here.
    pub trace: Trace,
    /// What happened.
    pub event: Event,
}

/// Why a line could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It is not a record.
    Malformed(String),
    /// It is one of a version or type that is not known.
    Unsupported(String),
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.to_string())
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(says) | Self::Unsupported(says) => f.write_str(says),
        }
    }
}

impl std::error::Error for ReadError {}

impl Record {
    /// The line of this record after `prev`, and its hash.
    #[must_use]
    pub fn line(&self, prev: &str) -> (String, String) {
        let mut bytes = Vec::with_capacity(1024);
        let out = &mut bytes;
        out.push(b'{');
        codec::write_req(out, name!("v"), &LINE_VERSION);
        codec::write_req(out, name!("seq"), &self.seq);
        codec::write_req(out, name!("atMs"), &self.at_ms);
        codec::write_next(out, name!("type"));
        codec::write_word(out, self.event.type_name());
        codec::write_opt(out, name!("coordinationId"), &self.coordination_id);
        codec::write_opt(out, name!("stepId"), &self.step_id);
        codec::write_opt(out, name!("attempt"), &self.attempt);
        codec::write_opt(out, name!("cause"), &self.cause);
        if !self.trace.is_empty() {
            codec::write_req(out, name!("trace"), &self.trace);
        }
        codec::write_next(out, name!("data"));
        self.event.write_data(out);
        bytes.extend_from_slice(b",\"prev\":\"");
        bytes.extend_from_slice(prev.as_bytes());
        bytes.extend_from_slice(b"\"}");
        let hash = sha256_hex(&[&bytes]);
        bytes.pop();
        bytes.extend_from_slice(b",\"hash\":\"");
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(b"\"}");
        (codec::text_of(bytes), hash)
    }

    /// Reads a line without testing its place in the chain.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, ReadError> {
        Self::parse_linked(line).map(|(record, _, _)| record)
    }

    /// Reads a line; also its `prev` and `hash`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_linked(line: &str) -> Result<(Self, String, String), ReadError> {
        let names = &mut |id: Option<&str>, step_id: Option<&str>| {
            (id.map(Name::from), step_id.map(Name::from))
        };
        let linked = Self::parse_by(line, None, names)?;
        Ok((linked.record, linked.prev.into(), linked.hash.into()))
    }

    /// As [`Record::parse_linked`]. A plan that the rules read as it stands is read by them alone; the coordination and the
    /// step get the names that are given for their ids.
    pub(crate) fn parse_by<'a>(
        line: &'a str,
        rules: Option<&Config>,
        names: &mut Names<'_>,
    ) -> Result<Linked<'a>, ReadError> {
        let mut input = Input::new(line);
        input.open_as("a record");
        input.required(name!("v"));
        let version = u32::read(&mut input);
        if version != LINE_VERSION {
            let says = format!("line version {version} is not known");
            return input
                .failed()
                .map_or(Err(ReadError::Unsupported(says)), |malformed| {
                    Err(malformed.into())
                });
        }
        input.required(name!("seq"));
        let seq = u64::read(&mut input);
        input.required(name!("atMs"));
        let at_ms = u64::read(&mut input);
        input.required(name!("type"));
        let type_name = input.string();
        let id = input.next(name!("coordinationId"));
        let id = id.then(|| input.string());
        let step_id = input.next(name!("stepId"));
        let step_id = step_id.then(|| input.string());
        let (coordination_id, step_id) = names(id.as_deref(), step_id.as_deref());
        let attempt = codec::read_opt(&mut input, name!("attempt"));
        let cause = codec::read_opt(&mut input, name!("cause"));
        let trace = codec::read_opt(&mut input, name!("trace"));
        let trace = codec::set_or_default(&mut input, trace);
        input.required(name!("data"));
        if let Some(malformed) = input.failed() {
            return Err(malformed.into());
        }
        let created = (type_name == Created::TYPE).then_some(rules).flatten();
        let created = created.and_then(|rules| Created::read_by(&input, rules));
        let sound = created.is_some();
        let event = match created {
            Some((created, after)) => {
                input = after;
                created.into()
            }
            None => Event::read_data(&type_name, &mut input)?,
        };
        input.required(name!("prev"));
        let prev = input.string();
        input.required(name!("hash"));
        let hash = input.string();
        input.close_as("the end of the record");
        input.end()?;
        Ok(Linked {
            record: Self {
                seq,
                at_ms,
                coordination_id,
                step_id,
                attempt,
                cause,
                trace,
                event,
            },
            prev,
            hash,
            sound,
        })
    }
}

/// Gives names for ids.
type Names<'a> = dyn FnMut(Option<&str>, Option<&str>) -> (Option<Name>, Option<Name>) + 'a;

/// A record as its line has it.
pub(crate) struct Linked<'a> {
    pub(crate) record: Record,
    pub(crate) prev: Cow<'a, str>,
    pub(crate) hash: Cow<'a, str>,
    /// The plan in it is one that the rules take, and has the digest that the record says.
    pub(crate) sound: bool,
}

impl Created {
    const TYPE: &'static str = "coordination.created";

    /// Reads the plan by its rules, and what stands around it: where that is all in order the second reading is saved that
    /// would say so. What is wrong otherwise others say.
    fn read_by<'a>(input: &Input<'a>, rules: &Config) -> Option<(Self, Input<'a>)> {
        let mut input = input.clone();
        input.open();
        let version = codec::read_req(&mut input, name!("rules"));
        input.required(name!("plan"));
        let text = input.take_before(concat!(",", name!("planDigest")))?;
        let plan_digest: String = codec::read_req(&mut input, name!("planDigest"));
        let caller = codec::read_req(&mut input, name!("caller"));
        input.close();
        let (plan, canonical) = Plan::parse_canonical(text, rules).ok()?;
        let sound = codec::same(canonical.as_bytes(), text.as_bytes())
            && sha256_hex(&[text.as_bytes()]) == plan_digest;
        let created = Self {
            rules: version,
            plan,
            plan_digest,
            caller,
        };
        (sound && input.failed().is_none()).then_some((created, input))
    }
}

/// What is left of a line when its `hash` member is cut off, as two pieces that follow each other; none where the
/// line does not end in one.
#[must_use]
pub fn hashed_part(line: &str) -> Option<[&[u8]; 2]> {
    const HASH_MEMBER: usize = ",\"hash\":\"\"}".len() + 64;
    let cut = line.len().checked_sub(HASH_MEMBER)?;
    let tail = line.as_bytes().get(cut..)?;
    if !tail.starts_with(b",\"hash\":\"") || !tail.ends_with(b"\"}") {
        return None;
    }
    Some([&line.as_bytes()[..cut], b"}"])
}
