//! Sending a ready step out when a slot is free.
//!
//! Which step it is, [`crate::slot`] knows; what message leaves, [`crate::effect`].

use crate::draft::Draft;
use crate::envelope::DeliveryMode;
use crate::event::{Dispatched, TimedOut, Which};
use crate::message::LANE_CONTROL;
use crate::state::{Coordination, State, Step};

/// The record that sends a step out.
pub(crate) fn decide_dispatch(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
) -> Draft {
    let deadline_ms = coordination.attempt_deadline_ms(step, now_ms);
    if deadline_ms <= now_ms {
        // More timers were due than one call may fire, and this one's plan deadline is among those left.
        let which = if step.def.cleanup {
            Which::Cleanup
        } else {
            Which::Plan
        };
        let event = TimedOut {
            deadline_ms,
            which,
            attempts: step.attempt - 1,
        };
        return Draft::of_step(coordination, step, coordination.created_seq, event);
    }
    let ack_timeout_ms = step
        .def
        .ack_timeout_ms
        .or_else(|| state.config().map(|config| config.ack_timeout_ms));
    let redelivered = step.def.delivery_mode == DeliveryMode::AtLeastOnce;
    let event = Dispatched {
        lane: LANE_CONTROL.into(),
        target_session: step.def.target_session.clone(),
        delivery_mode: step.def.delivery_mode,
        priority: step.def.priority,
        deadline_ms,
        ack_deadline_ms: ack_timeout_ms
            .filter(|_| redelivered)
            .map(|wait_ms| now_ms + wait_ms),
        payload_digest: step.def.payload_digest(),
    };
    Draft::of_step(coordination, step, step.ready_seq, event)
}
