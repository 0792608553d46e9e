//! Between the types of the WIT and those of the core: same nouns, field by field.
//!
//! Tests nothing: what comes from the component was made by the core, and what goes in is tested there.

pub(crate) mod contested;

use crate::component::bindings::qm2::coordination::types as wit;
use qm2_core::claim::Token;
use qm2_core::envelope::{
    DeliveryMode, Envelope, Extension, FailureClass, Intent, Outcome, PayloadRef, Priority,
    Question, Trace,
};
use qm2_core::message::{
    Caller, HookKind, HookVerdict, HumanVerdict, Message, Notice, NoticeKind, Role,
};
use qm2_core::receipt::{
    Blame, CallError, Head, LedgerFault, LedgerFaultKind, PlanReceipt, Problem, Receipt,
    ReceiptStatus, Rejection, RejectionCode, Remedy, SnapshotChunk,
};

/// One line an enum whose cases have the same names on both sides, in the directions that are used.
macro_rules! enum_from_wit {
    ($name:ident, $type:ident, $($case:ident),+) => {
        pub(crate) fn $name(value: wit::$type) -> $type {
            match value { $(wit::$type::$case => $type::$case),+ }
        }
    };
}
macro_rules! enum_to_wit {
    ($name:ident, $type:ident, $($case:ident),+) => {
        pub(crate) fn $name(value: $type) -> wit::$type {
            match value { $($type::$case => wit::$type::$case),+ }
        }
    };
}

enum_from_wit!(priority_from_wit, Priority, Low, Normal, High, Critical);
enum_to_wit!(priority_to_wit, Priority, Low, Normal, High, Critical);
enum_from_wit!(
    intent_from_wit,
    Intent,
    Execute,
    Report,
    Cancel,
    Escalate,
    Ack
);
enum_to_wit!(
    intent_to_wit,
    Intent,
    Execute,
    Report,
    Cancel,
    Escalate,
    Ack
);
enum_from_wit!(mode_from_wit, DeliveryMode, BestEffort, AtLeastOnce);
enum_to_wit!(mode_to_wit, DeliveryMode, BestEffort, AtLeastOnce);
enum_from_wit!(class_from_wit, FailureClass, Retryable, Permanent, Unknown);
enum_to_wit!(class_to_wit, FailureClass, Retryable, Permanent, Unknown);
enum_to_wit!(role_to_wit, Role, User, Operator, Admin, Owner);
enum_to_wit!(
    notice_kind_to_wit,
    NoticeKind,
    UnknownTarget,
    Dropped,
    HostLost,
    Taken,
    Unreachable
);
enum_to_wit!(human_verdict_to_wit, HumanVerdict, Approve, Deny, Completed);
enum_from_wit!(
    hook_kind_from_wit,
    HookKind,
    BeforeDispatch,
    BeforeArbitrate
);
enum_from_wit!(status_from_wit, ReceiptStatus, Accepted, Replayed, Late);
enum_from_wit!(
    fault_kind_from_wit,
    LedgerFaultKind,
    BrokenChain,
    Nondeterminism,
    Unsupported
);
enum_from_wit!(
    code_from_wit,
    RejectionCode,
    InvalidField,
    InvalidPlan,
    PlanConflict,
    UnknownCoordination,
    UnknownStep,
    UnknownAttempt,
    UnknownKey,
    UnauthorizedSession,
    ContentMismatch,
    NotDispatched,
    NotRunning,
    StaleQuestion,
    NotEligible,
    NoHuman,
    ClaimRefused,
    Bound,
    DeadlinePast,
    CoordinationStopping,
    Closed,
    DomainFull,
    ComponentFault
);

pub(crate) fn message_from_wit(value: wit::Message) -> Message {
    Message {
        key: value.key,
        delivery: value.delivery,
        lane: value.lane,
        priority: priority_from_wit(value.priority),
        delivery_mode: mode_from_wit(value.delivery_mode),
        deadline_ms: value.deadline_ms,
        envelope: envelope_from_wit(value.envelope),
    }
}

fn envelope_from_wit(value: wit::Envelope) -> Envelope {
    let (payload, payload_ref) = match value.payload {
        wit::Payload::Empty => (None, None),
        wit::Payload::Text(text) => (Some(text), None),
        wit::Payload::Reference(reference) => (
            None,
            Some(PayloadRef {
                uri: reference.uri,
                sha256: reference.sha256,
                bytes: reference.bytes,
            }),
        ),
    };
    Envelope {
        coordination_id: value.coordination_id,
        step_id: value.step_id,
        parent_step_id: value.parent_step_id,
        attempt: value.attempt,
        source_session: value.source_session,
        target_session: value.target_session,
        intent: intent_from_wit(value.intent),
        priority: priority_from_wit(value.priority),
        delivery_mode: mode_from_wit(value.delivery_mode),
        deadline_ms: value.deadline_ms,
        created_at_ms: value.created_at_ms,
        trace: Trace {
            run_id: value.trace.run_id,
            span_id: value.trace.span_id,
            causal_ref: value.trace.causal_ref,
            traceparent: value.trace.traceparent,
        },
        content_type: value.content_type,
        payload,
        payload_ref,
        extensions: value
            .extensions
            .into_iter()
            .map(|extension| Extension {
                name: extension.name,
                text: extension.text,
            })
            .collect(),
        outcome: value.outcome.map(|outcome| match outcome {
            wit::Outcome::Completed => Outcome::Completed,
            wit::Outcome::Failed(failure) => Outcome::Failed {
                class: class_from_wit(failure.class),
                code: failure.code,
                message: failure.message,
            },
            wit::Outcome::Progress(number) => Outcome::Progress { number },
        }),
        reason: value.reason,
        question: value.question.map(|question| Question {
            number: question.number,
            text: question.text,
        }),
        tokens: value
            .tokens
            .into_iter()
            .map(|token| Token {
                resource: token.resource,
                token: token.token,
            })
            .collect(),
    }
}

/// A payload beside a reference cannot be said in the WIT; the engine refuses such a call before it comes here.
pub(crate) fn envelope_to_wit(value: &Envelope) -> wit::Envelope {
    let payload = match (&value.payload_ref, &value.payload) {
        (Some(reference), _) => wit::Payload::Reference(wit::PayloadRef {
            uri: reference.uri.clone(),
            sha256: reference.sha256.clone(),
            bytes: reference.bytes,
        }),
        (None, Some(text)) => wit::Payload::Text(text.clone()),
        (None, None) => wit::Payload::Empty,
    };
    wit::Envelope {
        coordination_id: value.coordination_id.clone(),
        step_id: value.step_id.clone(),
        parent_step_id: value.parent_step_id.clone(),
        attempt: value.attempt,
        source_session: value.source_session.clone(),
        target_session: value.target_session.clone(),
        intent: intent_to_wit(value.intent),
        priority: priority_to_wit(value.priority),
        delivery_mode: mode_to_wit(value.delivery_mode),
        deadline_ms: value.deadline_ms,
        created_at_ms: value.created_at_ms,
        trace: wit::Trace {
            run_id: value.trace.run_id.clone(),
            span_id: value.trace.span_id.clone(),
            causal_ref: value.trace.causal_ref.clone(),
            traceparent: value.trace.traceparent.clone(),
        },
        content_type: value.content_type.clone(),
        payload,
        extensions: value
            .extensions
            .iter()
            .map(|extension| wit::Extension {
                name: extension.name.clone(),
                text: extension.text.clone(),
            })
            .collect(),
        outcome: value.outcome.as_ref().map(|outcome| match outcome {
            Outcome::Completed => wit::Outcome::Completed,
            Outcome::Failed {
                class,
                code,
                message,
            } => wit::Outcome::Failed(wit::Failure {
                class: class_to_wit(*class),
                code: code.clone(),
                message: message.clone(),
            }),
            Outcome::Progress { number } => wit::Outcome::Progress(*number),
        }),
        reason: value.reason.clone(),
        question: value.question.as_ref().map(|question| wit::Question {
            number: question.number,
            text: question.text.clone(),
        }),
        tokens: value
            .tokens
            .iter()
            .map(|token| wit::FencingToken {
                resource: token.resource.clone(),
                token: token.token,
            })
            .collect(),
    }
}

/// The kinds that are told; the world has them as a type of their own.
pub(crate) fn hook_notice_from_wit(value: wit::HookNotice) -> HookKind {
    match value {
        wit::HookNotice::EscalationRequested => HookKind::EscalationRequested,
        wit::HookNotice::StepEnded => HookKind::StepEnded,
        wit::HookNotice::CoordinationEnded => HookKind::CoordinationEnded,
        wit::HookNotice::MessageUndelivered => HookKind::MessageUndelivered,
    }
}

pub(crate) fn hook_verdict_to_wit(value: &HookVerdict) -> wit::HookVerdict {
    match value {
        HookVerdict::NoOpinion => wit::HookVerdict::NoOpinion,
        HookVerdict::Deny(reason) => wit::HookVerdict::Deny(reason.clone()),
        HookVerdict::Review => wit::HookVerdict::Review,
    }
}

pub(crate) fn caller_to_wit(value: &Caller) -> wit::Caller {
    wit::Caller {
        session: value.session.clone(),
        role: value.role.map(role_to_wit),
    }
}

pub(crate) fn notice_to_wit(value: &Notice) -> wit::Notice {
    wit::Notice {
        key: value.key.clone(),
        kind: notice_kind_to_wit(value.kind),
    }
}

pub(crate) fn receipt_from_wit(
    value: Result<wit::Receipt, wit::Rejection>,
) -> Result<Receipt, Rejection> {
    value
        .map(|receipt| Receipt {
            status: status_from_wit(receipt.status),
            seq: receipt.seq,
            state: receipt.state,
        })
        .map_err(rejection_from_wit)
}

pub(crate) fn plan_receipt_from_wit(
    value: Result<wit::PlanReceipt, wit::Rejection>,
) -> Result<PlanReceipt, Rejection> {
    value
        .map(|receipt| PlanReceipt {
            coordination_id: receipt.coordination_id,
            plan_digest: receipt.plan_digest,
            created_seq: receipt.created_seq,
            replayed: receipt.replayed,
            state: receipt.state,
            terminal: receipt.terminal,
        })
        .map_err(rejection_from_wit)
}

pub(crate) fn rejection_from_wit(value: wit::Rejection) -> Rejection {
    Rejection {
        code: code_from_wit(value.code),
        field: value.field,
        message: value.message,
        next: match value.next {
            wit::Remedy::Fix => Remedy::Fix,
            wit::Remedy::Retry(after_ms) => Remedy::Retry { after_ms },
            wit::Remedy::Stop => Remedy::Stop,
            wit::Remedy::Ask => Remedy::Ask,
        },
        seq: value.seq,
        problems: value
            .problems
            .into_iter()
            .map(|problem| Problem {
                step_id: problem.step_id,
                field: problem.field,
                code: problem.code,
                message: problem.message,
            })
            .collect(),
    }
}

pub(crate) fn call_error_from_wit(value: wit::CallError) -> CallError {
    match value {
        wit::CallError::Disabled => CallError::Disabled,
        wit::CallError::InvalidConfig(blame) => CallError::InvalidConfig(blame_from_wit(blame)),
        wit::CallError::Bound(blame) => CallError::Bound(blame_from_wit(blame)),
        wit::CallError::Busy => CallError::Busy,
        wit::CallError::LedgerUnavailable => CallError::LedgerUnavailable,
        wit::CallError::Rebuild => CallError::Rebuild,
        wit::CallError::ReadOnly(fault) => CallError::ReadOnly(LedgerFault {
            seq: fault.seq,
            kind: fault_kind_from_wit(fault.kind),
            message: fault.message,
        }),
        wit::CallError::Unknown(what) => CallError::Unknown(what),
    }
}

fn blame_from_wit(value: wit::Blame) -> Blame {
    Blame {
        field: value.field,
        message: value.message,
    }
}

pub(crate) fn head_from_wit(value: wit::LedgerHead) -> Head {
    Head {
        seq: value.seq,
        hash: value.hash,
    }
}

pub(crate) fn chunk_from_wit(value: wit::SnapshotChunk) -> SnapshotChunk {
    SnapshotChunk {
        chunk: value.chunk,
        next: value.next,
    }
}
