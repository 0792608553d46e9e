//! What leaves the core and what a host says back about it.
//!
//! Does not decide when a message leaves; see `effect.rs`.

use crate::codec::{object, words};
use crate::envelope::{DeliveryMode, Envelope, Priority};
use crate::take::{At, Take, take};
use serde::{Deserialize, Serialize};

/// Lane of execute, cancel and probe.
pub const LANE_CONTROL: &str = "control";
/// Lane of reports and acks.
pub const LANE_DATA: &str = "data";
/// Lane of questions to people.
pub const LANE_ESCALATION: &str = "escalation";
/// Before the key of an attempt: end this attempt.
pub const CANCEL_PREFIX: &str = "cancel:";
/// Before the key of an attempt: is this attempt still alive?
pub const PROBE_PREFIX: &str = "probe:";

/// What leaves through queue and lanes; idempotent by (key, delivery).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Message {
    /// What it is about; see [`crate::id`].
    pub key: String,
    /// From 1.
    pub delivery: u32,
    /// Lane to run it in.
    pub lane: String,
    /// Priority within the lane.
    pub priority: Priority,
    /// Through the queue or straight to a lane.
    pub delivery_mode: DeliveryMode,
    /// When it is of no more use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The instruction.
    pub envelope: Envelope,
}

/// What a host says of a message, on its own authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// Nobody serves the target session.
    UnknownTarget,
    /// A best-effort message was dropped.
    Dropped,
    /// The work is dead for certain.
    HostLost,
    /// It was taken and is being worked on.
    Taken,
    /// A question cannot reach its person.
    Unreachable,
}

/// A host's word on a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Idempotency key of the attempt; for `unreachable` the key of the question's message.
    pub key: String,
    /// What happened.
    pub kind: NoticeKind,
}

/// Kinds of hook: the first two are asked, the others told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// Before an attempt takes its claims and goes out; once an attempt.
    BeforeDispatch,
    /// After a contest was found and before it is decided.
    BeforeArbitrate,
    /// A person is asked.
    EscalationRequested,
    /// A step reached one of its five finals.
    StepEnded,
    /// A coordination ended.
    CoordinationEnded,
    /// A message was given up.
    MessageUndelivered,
}

/// A hook's answer. It can stop or ask, never allow more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HookVerdict {
    /// Go on.
    NoOpinion,
    /// The step fails; why.
    Deny(String),
    /// A person decides.
    Review,
}

/// A person's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HumanVerdict {
    /// Yes.
    Approve,
    /// No; one is enough.
    Deny,
    /// Of an attempt whose effect is not known: it happened.
    Completed,
}

/// Roles in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May use what is given to it.
    User,
    /// May cancel plans of others.
    Operator,
    /// Above operator.
    Admin,
    /// Above everything.
    Owner,
}

/// Who makes a call, as the host authenticated it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Session name.
    pub session: String,
    /// Role, where the host knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

words!(HookKind {
    BeforeDispatch = "before_dispatch",
    BeforeArbitrate = "before_arbitrate",
    EscalationRequested = "escalation_requested",
    StepEnded = "step_ended",
    CoordinationEnded = "coordination_ended",
    MessageUndelivered = "message_undelivered",
});
words!(NoticeKind {
    UnknownTarget = "unknown-target",
    Dropped = "dropped",
    HostLost = "host-lost",
    Taken = "taken",
    Unreachable = "unreachable",
});
words!(HumanVerdict { Approve = "approve", Deny = "deny", Completed = "completed", });
words!(Role { User = "user", Operator = "operator", Admin = "admin", Owner = "owner", });
take!(Notice { "key": req key, "kind": req kind, });
object!(write Message {
    "key": req key,
    "delivery": req delivery,
    "lane": req lane,
    "priority": req priority,
    "deliveryMode": req delivery_mode,
    "deadlineMs": opt deadline_ms,
    "envelope": req envelope,
});
object!(taken Caller { "session": req session, "role": opt role, });

impl Take for HookVerdict {
    fn take(at: &At<'_, '_>) -> Self {
        match at.case(&["no_opinion", "deny", "review"]) {
            (1, Some(case)) => Self::Deny(case.take("deny")),
            (2, None) => Self::Review,
            (place, case) => {
                if place > 0 || case.is_some() {
                    at.wrong("\"no_opinion\", \"review\", or an object of deny");
                }
                Self::NoOpinion
            }
        }
    }
}

/// The imports of the component, as the core sees them.
///
/// An `Err` of `append` means that nothing was kept; an `Err` elsewhere that the host is busy and the next `reconcile`
/// hands the message out again.
pub trait Host {
    /// All ledger lines of this call.
    ///
    /// # Errors
    /// Nothing was kept.
    fn append(&mut self, lines: Vec<String>) -> Result<(), Refused>;
    /// Messages to deliver at least once.
    ///
    /// # Errors
    /// Not taken now.
    fn enqueue(&mut self, messages: Vec<Message>) -> Result<(), Refused>;
    /// Attempts that have ended.
    ///
    /// # Errors
    /// Not taken now.
    fn withdraw(&mut self, keys: Vec<String>) -> Result<(), Refused>;
    /// One best-effort message.
    ///
    /// # Errors
    /// Not taken now.
    fn enqueue_in_lane(&mut self, message: Message) -> Result<(), Refused>;
    /// Best-effort attempts that have ended.
    ///
    /// # Errors
    /// Not taken now.
    fn cancel(&mut self, keys: Vec<String>) -> Result<(), Refused>;
    /// A question to the hooks of a kind; the answer comes later.
    ///
    /// # Errors
    /// Not taken now.
    fn ask(&mut self, hook_id: &str, kind: HookKind, subject: &str) -> Result<(), Refused>;
    /// Word to the hooks of a kind.
    ///
    /// # Errors
    /// Not taken; it is not told again.
    fn notify(&mut self, kind: HookKind, subject: &str) -> Result<(), Refused>;
}

/// The host did not take what it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;
