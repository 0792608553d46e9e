//! The imports as bare functions, for what the core's own types cannot say: texts that lie in one place, and calls where the
//! contract gives no way out.
//!
//! Holds no harm of its own.

#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "host-imports",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

pub(crate) use bindings::qm2::coordination::types::{
    DeliveryMode, Envelope, HookKind, HookNotice, Intent, Message, Payload, Priority, Trace,
};
pub(crate) use bindings::qm2::coordination::{event_stream, hooks, lanes, queue};

/// An envelope of the first attempt of a step.
pub(crate) fn envelope(coordination_id: &str, step_id: &str) -> Envelope {
    Envelope {
        coordination_id: coordination_id.to_owned(),
        step_id: Some(step_id.to_owned()),
        parent_step_id: None,
        attempt: Some(1),
        source_session: "user:nobody".to_owned(),
        target_session: "nobody:serves:this".to_owned(),
        intent: Intent::Execute,
        priority: Priority::Normal,
        delivery_mode: DeliveryMode::AtLeastOnce,
        deadline_ms: None,
        created_at_ms: 0,
        trace: Trace {
            run_id: None,
            span_id: None,
            causal_ref: None,
            traceparent: None,
        },
        content_type: None,
        payload: Payload::Empty,
        extensions: Vec::new(),
        outcome: None,
        reason: None,
        question: None,
        tokens: Vec::new(),
    }
}

/// The message of it; its key should name the same attempt.
pub(crate) fn message<'a>(key: &'a str, envelope: &'a Envelope) -> Message<'a> {
    Message {
        key,
        delivery: 1,
        lane: "control",
        priority: Priority::Normal,
        delivery_mode: DeliveryMode::AtLeastOnce,
        deadline_ms: None,
        envelope,
    }
}
