//! Sending a ready step out when a slot is free.
//!
//! Which step it is, [`crate::slot`] knows; what message leaves, [`crate::effect`].

use crate::claim::Token;
use crate::contest;
use crate::draft::Draft;
use crate::envelope::DeliveryMode;
use crate::event::{Dispatched, TimedOut, Which};
use crate::hook;
use crate::message::{HookKind, LANE_CONTROL};
use crate::state::{Coordination, State, Step, StepState};
use crate::waiters::Place;

/// A slot is free for a step: the hooks are asked, or it goes on. Where it waits for a resource and it is not its turn,
/// the place, if there is one, of the step whose turn it is.
pub(crate) fn decide_slot(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
) -> Result<Vec<Draft>, Option<Place>> {
    if step.state == StepState::WaitingClaim {
        return contest::retry(state, coordination, step, now_ms);
    }
    let late = coordination.attempt_deadline_ms(step, now_ms) <= now_ms;
    if !late && !step.cleared && hook::is_registered(state, HookKind::BeforeDispatch) {
        return Ok(vec![hook::ask_dispatch(state, coordination, step, now_ms)]);
    }
    Ok(go_on(state, coordination, step, now_ms, state.next_seq()))
}

/// Nothing but its claims holds the step back. `seq` is the number of the first record.
pub(crate) fn go_on(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
    seq: u64,
) -> Vec<Draft> {
    let late = coordination.attempt_deadline_ms(step, now_ms) <= now_ms;
    if late || step.def.claims.is_empty() {
        return vec![decide_dispatch(
            state,
            coordination,
            step,
            now_ms,
            Vec::new(),
        )];
    }
    contest::meet(state, coordination, step, now_ms, seq)
}

/// The record that sends a step out, with its deadline and, where it is redelivered, the wait for its ack.
/// Past the plan's deadline it ends without going out.
pub(crate) fn decide_dispatch(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
    tokens: Vec<Token>,
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
            attempts: step.attempts_made(),
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
        target_session: step.def.target_session.to_string(),
        delivery_mode: step.def.delivery_mode,
        priority: step.def.priority,
        deadline_ms,
        ack_deadline_ms: ack_timeout_ms
            .filter(|_| redelivered)
            .map(|wait_ms| now_ms + wait_ms),
        tokens,
        payload_digest: step.def.payload_digest(),
    };
    Draft::of_step(coordination, step, step.ready_seq, event)
}
