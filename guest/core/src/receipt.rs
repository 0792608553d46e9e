//! Answers: receipts, rejections and call errors.
//!
//! Does not decide which one an input gets.

use crate::codec::{Write, object, words};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What became of an input that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptStatus {
    /// It took effect.
    Accepted,
    /// It was known, or the state had nothing left for it to do.
    Replayed,
    /// It came after the end; kept, without effect.
    Late,
}

/// Answer to an input that was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// What became of it.
    pub status: ReceiptStatus,
    /// Number of the record that it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// State of the step, or of the coordination where the input names no step.
    pub state: String,
}

/// Answer to a plan that was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReceipt {
    /// The plan's own id.
    pub coordination_id: String,
    /// SHA-256 of the canonical plan.
    pub plan_digest: String,
    /// Number of the coordination.created record.
    pub created_seq: u64,
    /// The same plan was known; nothing was started.
    pub replayed: bool,
    /// open, stopping, final or closed.
    pub state: String,
    /// success, partial or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
}

/// A resource that a step holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantReceipt {
    /// The resource in its normal form.
    pub resource: String,
    /// The fencing token.
    pub token: u64,
    /// When it ends unless it is renewed.
    pub expires_ms: u64,
}

/// What the guard answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardVerdict {
    /// Whether it may be done now.
    pub allowed: bool,
    /// Why not, or under which grant.
    pub reason: String,
    /// When the grant ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// Why an input was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectionCode {
    /// A member is outside its bound or of the wrong form.
    InvalidField,
    /// The plan has errors.
    InvalidPlan,
    /// The coordination id is taken by another plan.
    PlanConflict,
    /// No such coordination.
    UnknownCoordination,
    /// No such step.
    UnknownStep,
    /// No such attempt yet.
    UnknownAttempt,
    /// No such message.
    UnknownKey,
    /// The caller may not say this.
    UnauthorizedSession,
    /// The same identity came before with other content.
    ContentMismatch,
    /// The attempt was not handed out.
    NotDispatched,
    /// The step is not running, or has a question open.
    NotRunning,
    /// The answer is about something else than what is asked now.
    StaleQuestion,
    /// This person may not answer this question.
    NotEligible,
    /// The plan asks nobody.
    NoHuman,
    /// The resource is taken.
    ClaimRefused,
    /// A bound of the plan is reached.
    Bound,
    /// The deadline is at or before now.
    DeadlinePast,
    /// The coordination takes no new work.
    CoordinationStopping,
    /// The coordination is closed.
    Closed,
    /// A bound of the domain is reached.
    DomainFull,
    /// The input trapped the component twice; said by the host.
    ComponentFault,
}

impl RejectionCode {
    /// What a caller can do about it.
    #[must_use]
    pub fn remedy(self) -> Remedy {
        match self {
            Self::DomainFull | Self::ClaimRefused | Self::Bound => Remedy::Retry {
                after_ms: crate::limit::RETRY_AFTER_MS,
            },
            Self::NotDispatched
            | Self::NotRunning
            | Self::NoHuman
            | Self::Closed
            | Self::CoordinationStopping
            | Self::DeadlinePast => Remedy::Stop,
            Self::UnauthorizedSession | Self::NotEligible | Self::ComponentFault => Remedy::Ask,
            _ => Remedy::Fix,
        }
    }
}

/// What a caller can do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Remedy {
    /// Correct the input and send it again.
    Fix,
    /// Send the same again later.
    Retry {
        /// After so many milliseconds.
        after_ms: u64,
    },
    /// Nothing will make this succeed.
    Stop,
    /// Ask a person or the owner of the plan.
    Ask,
}

/// One error of a plan or configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The step it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
    /// Path of the member.
    pub field: String,
    /// Short machine-readable reason.
    pub code: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why an input was refused, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The reason to branch on.
    pub code: RejectionCode,
    /// The offending member; empty where none is to blame.
    pub field: String,
    /// A sentence for people.
    pub message: String,
    /// What the caller can do next.
    pub next: Remedy,
    /// Number of the input.rejected record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// All errors of a refused plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl Rejection {
    /// A refusal with the remedy that goes with its code.
    #[must_use]
    pub fn new(code: RejectionCode, field: &str, message: impl Into<String>) -> Self {
        let (field, message) = (field.to_owned(), message.into());
        Self {
            code,
            field,
            message,
            next: code.remedy(),
            seq: None,
            problems: Vec::new(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code.name())?;
        if !self.field.is_empty() {
            write!(f, "{} ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Where and why a ledger stopped making sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerFault {
    /// The first bad record.
    pub seq: u64,
    /// What kind of fault.
    pub kind: LedgerFaultKind,
    /// A sentence for people.
    pub message: String,
}

/// Kinds of ledger fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerFaultKind {
    /// A line was changed, lost or added.
    BrokenChain,
    /// The rules do not allow this record here.
    Nondeterminism,
    /// A version or rules that this component does not know.
    Unsupported,
}

/// Why a whole call was refused. Nothing was recorded. In JSON `{code, message, field}`, and with `read-only` the `seq` and `kind`
/// of the fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "CallErrorJson", try_from = "CallErrorJson")]
pub enum CallError {
    /// Not configured yet, or the feature gate is off.
    Disabled,
    /// The configuration is wrong.
    InvalidConfig(Blame),
    /// The call itself is outside a bound.
    Bound(Blame),
    /// More timers are due than one call may fire.
    Busy,
    /// The host did not take the ledger lines.
    LedgerUnavailable,
    /// The instance is spent.
    Rebuild,
    /// The ledger did not verify or could not be followed.
    ReadOnly(LedgerFault),
    /// Nothing of that name.
    Unknown(String),
}

/// What is to blame for a refusal, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// Path of the member; `$` for the whole.
    pub field: String,
    /// A sentence for people, which stands by itself.
    pub message: String,
}

impl Blame {
    /// A member and a sentence.
    #[must_use]
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        let (field, message) = (field.to_owned(), message.into());
        Self { field, message }
    }
}

impl CallError {
    /// A call outside a bound.
    #[must_use]
    pub fn bound(field: &str, message: impl Into<String>) -> Self {
        Self::Bound(Blame::new(field, message))
    }

    /// The member that is to blame; empty where none is.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::InvalidConfig(blame) | Self::Bound(blame) => &blame.field,
            _ => "",
        }
    }

    /// The reason to branch on, as the WIT names it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::InvalidConfig(_) => "invalid-config",
            Self::Bound(_) => "bound",
            Self::Busy => "busy",
            Self::LedgerUnavailable => "ledger-unavailable",
            Self::Rebuild => "rebuild",
            Self::ReadOnly(_) => "read-only",
            Self::Unknown(_) => "unknown",
        }
    }

    /// A sentence for people.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Disabled => "the domain is not configured or coordination.phase1.enabled is off",
            Self::Busy => {
                "more timers are due than one call may fire; advance until there are no more"
            }
            Self::LedgerUnavailable => "the host did not take the records",
            Self::Rebuild => "the instance is spent; make a new one and replay the ledger",
            Self::ReadOnly(fault) => &fault.message,
            Self::InvalidConfig(blame) | Self::Bound(blame) => &blame.message,
            Self::Unknown(says) => says,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code())?;
        if let Self::ReadOnly(fault) = self {
            write!(f, "record {}: ", fault.seq)?;
        }
        f.write_str(self.message())
    }
}

/// JSON of a [`CallError`]: the members of a rejection where it has them.
#[derive(Serialize, Deserialize)]
struct CallErrorJson {
    code: String,
    message: String,
    field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<LedgerFaultKind>,
}

impl From<CallError> for CallErrorJson {
    fn from(error: CallError) -> Self {
        let fault = match &error {
            CallError::ReadOnly(fault) => Some(fault),
            _ => None,
        };
        Self {
            code: error.code().to_owned(),
            message: error.message().to_owned(),
            field: error.field().to_owned(),
            seq: fault.map(|fault| fault.seq),
            kind: fault.map(|fault| fault.kind),
        }
    }
}

impl TryFrom<CallErrorJson> for CallError {
    type Error = String;

    fn try_from(json: CallErrorJson) -> Result<Self, String> {
        let (field, message) = (json.field, json.message);
        let blame = |message| Blame { field, message };
        Ok(match json.code.as_str() {
            "disabled" => Self::Disabled,
            "invalid-config" => Self::InvalidConfig(blame(message)),
            "bound" => Self::Bound(blame(message)),
            "busy" => Self::Busy,
            "ledger-unavailable" => Self::LedgerUnavailable,
            "rebuild" => Self::Rebuild,
            "read-only" => {
                let (Some(seq), Some(kind)) = (json.seq, json.kind) else {
                    return Err("a read-only without the record that is at fault".into());
                };
                Self::ReadOnly(LedgerFault { seq, kind, message })
            }
            "unknown" => Self::Unknown(message),
            code => return Err(format!("{code} is no error of a call")),
        })
    }
}

impl std::error::Error for CallError {}

/// Place in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last record; 0 for an empty ledger.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: crate::digest::ZERO.to_owned(),
        }
    }
}

object!(Head { "seq": req seq, "hash": req hash, });

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Canonical JSON with a version.
    pub chunk: String,
    /// Cursor of the next piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

words!(RejectionCode {
    InvalidField = "invalid-field",
    InvalidPlan = "invalid-plan",
    PlanConflict = "plan-conflict",
    UnknownCoordination = "unknown-coordination",
    UnknownStep = "unknown-step",
    UnknownAttempt = "unknown-attempt",
    UnknownKey = "unknown-key",
    UnauthorizedSession = "unauthorized-session",
    ContentMismatch = "content-mismatch",
    NotDispatched = "not-dispatched",
    NotRunning = "not-running",
    StaleQuestion = "stale-question",
    NotEligible = "not-eligible",
    NoHuman = "no-human",
    ClaimRefused = "claim-refused",
    Bound = "bound",
    DeadlinePast = "deadline-past",
    CoordinationStopping = "coordination-stopping",
    Closed = "closed",
    DomainFull = "domain-full",
    ComponentFault = "component-fault",
});
words!(ReceiptStatus { Accepted = "accepted", Replayed = "replayed", Late = "late", });
words!(LedgerFaultKind {
    BrokenChain = "broken-chain",
    Nondeterminism = "nondeterminism",
    Unsupported = "unsupported",
});
object!(write Receipt { "status": req status, "seq": opt seq, "state": req state, });
object!(write PlanReceipt {
    "coordinationId": req coordination_id,
    "planDigest": req plan_digest,
    "createdSeq": req created_seq,
    "replayed": req replayed,
    "state": req state,
    "terminal": opt terminal,
});
object!(write GrantReceipt { "resource": req resource, "token": req token, "expiresMs": req expires_ms, });
object!(write GuardVerdict { "allowed": req allowed, "reason": req reason, "expiresMs": opt expires_ms, });
object!(write Problem { "stepId": opt step_id, "field": req field, "code": req code, "message": req message, });
object!(write Rejection {
    "code": req code,
    "field": req field,
    "message": req message,
    "next": req next,
    "seq": opt seq,
    "problems": set problems,
});
object!(write CallErrorJson {
    "code": req code,
    "message": req message,
    "field": req field,
    "seq": opt seq,
    "kind": opt kind,
});
object!(write SnapshotChunk { "chunk": req chunk, "next": opt next, });

impl Write for Remedy {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Fix => "fix".write(out),
            Self::Stop => "stop".write(out),
            Self::Ask => "ask".write(out),
            Self::Retry { after_ms } => {
                out.extend_from_slice(b"{\"retry\":{\"afterMs\":");
                after_ms.write(out);
                out.extend_from_slice(b"}}");
            }
        }
    }
}

impl Write for CallError {
    fn write(&self, out: &mut Vec<u8>) {
        CallErrorJson::from(self.clone()).write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_errors_cross_as_code_and_message() {
        let fault = LedgerFault {
            seq: 7,
            kind: LedgerFaultKind::BrokenChain,
            message: "is lost".into(),
        };
        let all = [
            CallError::Disabled,
            CallError::InvalidConfig(Blame::new("domain", "domain is absent")),
            CallError::bound("keys", "too much"),
            CallError::Busy,
            CallError::LedgerUnavailable,
            CallError::Rebuild,
            CallError::ReadOnly(fault),
            CallError::Unknown("coordination x".into()),
        ];
        for error in all {
            let line = serde_json::to_string(&error).unwrap();
            let start = format!(r#"{{"code":"{}","message":"#, error.code());
            assert!(line.starts_with(&start), "{line}");
            let field = format!(r#","field":"{}""#, error.field());
            assert!(line.contains(&field), "{line}");
            assert_eq!(serde_json::from_str::<CallError>(&line).unwrap(), error);
        }
        let line =
            r#"{"code":"read-only","message":"is lost","field":"","seq":7,"kind":"broken-chain"}"#;
        let error: CallError = serde_json::from_str(line).unwrap();
        assert_eq!(error.to_string(), "read-only: record 7: is lost");
        for wrong in [
            r#"{"code":"dreamt","message":"","field":""}"#,
            r#"{"code":"read-only","message":"","field":""}"#,
        ] {
            assert!(serde_json::from_str::<CallError>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rejection_names_its_code_and_the_field_that_is_to_blame() {
        let with = Rejection::new(RejectionCode::Bound, "resource", "is one too many");
        assert_eq!(with.to_string(), "bound: resource is one too many");
        let without = Rejection::new(RejectionCode::DomainFull, "", "no more fits");
        assert_eq!(without.to_string(), "domain-full: no more fits");
    }
}
