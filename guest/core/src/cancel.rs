//! Cancelling a plan or one of its steps.
//!
//! | input | not out | out | final |
//! |---|---|---|---|
//! | cancel | step.cancelled; cleanup steps stay | cancel message and grace | same status |
//! | cancel of one step | step.cancelled | cancel message and grace | same status |
//!
//! What the failure policy cancels is in [`crate::settle`].

use crate::decision::Decision;
use crate::draft::Draft;
use crate::envelope::Envelope;
use crate::event::{CancelRequested, Cancelled, CancelledBy};
use crate::message::{Caller, Role};
use crate::receipt::{Rejection, RejectionCode};
use crate::settle;
use crate::state::State;
use crate::step::{find_coordination, find_step, reject_on_step};

/// Decides a cancel. Its form was tested.
pub(crate) fn decide_cancel(
    state: &State,
    now_ms: u64,
    caller: &Caller,
    envelope: &Envelope,
) -> Decision {
    let coordination = match find_coordination(state, &envelope.coordination_id) {
        Ok(coordination) => coordination,
        Err(rejection) => return Decision::refuse(rejection),
    };
    let step = match envelope
        .step_id
        .as_deref()
        .map(|step_id| find_step(coordination, step_id))
        .transpose()
    {
        Ok(step) => step,
        Err(rejection) => return Decision::refuse(rejection),
    };
    let above = coordination
        .plan
        .parent
        .as_ref()
        .and_then(|parent| state.live.get(&parent.coordination_id));
    let own = *coordination.owner == *caller.session
        || above.is_some_and(|above| *above.owner == *caller.session);
    if caller.session != envelope.source_session || !(own || caller.role >= Some(Role::Operator)) {
        let says = format!(
            "{} neither owns {} nor is an operator",
            caller.session, coordination.id
        );
        let code = RejectionCode::UnauthorizedSession;
        return match step {
            Some(step) => reject_on_step(coordination, step, envelope, code, "sourceSession", says),
            None => Decision::refuse(Rejection::new(code, "sourceSession", says)),
        };
    }
    let request = CancelRequested {
        by: caller.session.clone(),
        role: caller.role,
        reason: envelope.reason.clone(),
        grace_until_ms: now_ms + coordination.cancel_grace_ms,
    };
    let Some(step) = step else {
        if coordination.ended.is_some() || coordination.cancel.is_some() {
            return Decision::replay(coordination.state_name());
        }
        let draft = Draft::of_coordination(coordination, coordination.created_seq, request);
        return Decision::accept(vec![draft.traced(&envelope.trace)]);
    };
    if step.state.is_final() || coordination.stop_of(step).is_some() {
        return Decision::replay(step.state.name());
    }
    let cause = state.next_seq();
    let mut drafts = vec![
        Draft::of_step(coordination, step, coordination.created_seq, request)
            .traced(&envelope.trace),
    ];
    if step.is_out() && step.escalation.is_some() {
        drafts.push(settle::void(coordination, step));
    }
    if !step.is_out() {
        let event = Cancelled {
            by: CancelledBy::Cancel,
            grace_used: false,
            content_digest: None,
        };
        drafts.push(Draft::of_step(coordination, step, cause, event).traced(&envelope.trace));
    }
    Decision::accept(drafts)
}
