//! What leaves the core and what a host says back about it.
//!
//! Does not decide when a message leaves; see `effect.rs`.

use crate::codec::{object, words};
use crate::envelope::{DeliveryMode, Envelope, Priority};
use serde::{Deserialize, Serialize};

/// Lane of execute, cancel and probe.
pub const LANE_CONTROL: &str = "control";
/// Lane of reports and acks.
pub const LANE_DATA: &str = "data";
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
}

/// A host's word on a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Idempotency key of the attempt.
    pub key: String,
    /// What happened.
    pub kind: NoticeKind,
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

words!(Role { User = "user", Operator = "operator", Admin = "admin", Owner = "owner", });
object!(Caller { "session": req session, "role": opt role, });

/// The imports of the component, as the core sees them.
///
/// An `Err` of `append` means that nothing was kept; an `Err` elsewhere that the host is busy and the next `reconcile`
/// hands the message out again.
pub trait Host {
    /// All ledger lines of this call.
    ///
    /// # Errors
    /// Nothing was kept.
    fn append(&mut self, lines: &[String]) -> Result<(), Refused>;
    /// Messages to deliver at least once.
    ///
    /// # Errors
    /// Not taken now.
    fn enqueue(&mut self, messages: &[Message]) -> Result<(), Refused>;
    /// Attempts that have ended.
    ///
    /// # Errors
    /// Not taken now.
    fn withdraw(&mut self, keys: &[String]) -> Result<(), Refused>;
    /// One best-effort message.
    ///
    /// # Errors
    /// Not taken now.
    fn enqueue_in_lane(&mut self, message: &Message) -> Result<(), Refused>;
    /// Best-effort attempts that have ended.
    ///
    /// # Errors
    /// Not taken now.
    fn cancel(&mut self, keys: &[String]) -> Result<(), Refused>;
}

/// The host did not take what it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;
