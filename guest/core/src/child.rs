//! Child plans: plans that belong to a running step of another plan.
//!
//! A child is cancelled when its parent step ends other than completed, or when nothing else is left to do in its parent's
//! coordination, unless it is abandoned. The parent waits for it, at most for the cancel grace. Cutting deadlines to the
//! parent's is in [`crate::apply`].

use crate::draft::Draft;
use crate::event::CancelRequested;
use crate::limit::DEPTH_MAX;
use crate::message::Caller;
use crate::plan::{OnClose, Parent};
use crate::receipt::{Rejection, RejectionCode};
use crate::state::{Coordination, State, Step, StepState};
use crate::step::{find_coordination, find_step};

/// Tests the parent of a plan that is submitted; the record that dispatched it.
pub(crate) fn check_parent(
    state: &State,
    caller: &Caller,
    parent: &Parent,
    now_ms: u64,
) -> Result<u64, Rejection> {
    let coordination = find_coordination(state, &parent.coordination_id)?;
    let step = find_step(coordination, &parent.step_id)?;
    if *caller.session != *step.session && *caller.session != *coordination.owner {
        let says = format!(
            "is {} of {}; {} neither does that step nor owns that plan",
            step.id, coordination.id, caller.session
        );
        let code = RejectionCode::UnauthorizedSession;
        return Err(Rejection::new(code, "parent", says));
    }
    if coordination.is_stopping() || coordination.stop_of(step).is_some() {
        let says = format!("{} is being stopped and takes no new work", coordination.id);
        let code = RejectionCode::CoordinationStopping;
        return Err(Rejection::new(code, "parent", says));
    }
    if !matches!(step.state, StepState::Dispatched | StepState::Acknowledged) {
        let says = format!("{} is {}, not running", step.id, step.state.name());
        let code = RejectionCode::NotRunning;
        return Err(Rejection::new(code, "parent.stepId", says));
    }
    // it would be cut to a deadline that is over. Cleanup may still run then, and takes no new work.
    if let Some(deadline_ms) = coordination.deadline_ms.filter(|due_ms| *due_ms <= now_ms) {
        let says = format!("has the deadline {deadline_ms}; now is {now_ms}");
        return Err(Rejection::new(RejectionCode::DeadlinePast, "parent", says));
    }
    if coordination.depth + step.depth >= DEPTH_MAX {
        let says = format!("would be {} deep; {DEPTH_MAX} are allowed", DEPTH_MAX + 1);
        return Err(Rejection::new(RejectionCode::Bound, "parent", says));
    }
    Ok(step.dispatched_seq)
}

/// Whether this step, whose coordination is live, no longer carries its children; with the record that says so.
fn gave_up(parent: &Coordination, step: &Step) -> Option<u64> {
    let ended = step.state.is_final() && step.state != StepState::Completed;
    let over = parent.open_work + parent.open_cleanup == 0;
    match (ended, over) {
        (true, _) => step.ended.last().copied(),
        (false, true) => Some(parent.last_end_seq),
        (false, false) => None,
    }
}

/// Cancels of child plans whose parent step or coordination is over.
pub(crate) fn decide_cancels(state: &State, parent: &Coordination, now_ms: u64) -> Vec<Draft> {
    let cancel = |id: &crate::event::Name| {
        let child = state.live.get(id)?;
        let link = child.plan.parent.as_ref()?;
        let open =
            child.cancel.is_none() && child.ended.is_none() && link.on_close == OnClose::Cancel;
        let step = parent.step_index(&link.step_id)?;
        let cause = gave_up(parent, &parent.steps[step]).filter(|_| open)?;
        let request = CancelRequested {
            by: (*parent.owner).to_owned(),
            role: None,
            reason: Some(format!("{} of {} is over", link.step_id, parent.id)),
            grace_until_ms: now_ms + child.cancel_grace_ms,
        };
        Some(Draft::of_coordination(child, cause, request))
    };
    parent.child_plans.iter().filter_map(cancel).collect()
}

/// Until when a coordination without open steps waits for its children; none if it waits for nobody.
pub(crate) fn waits_until_ms(parent: &Coordination) -> Option<u64> {
    let waits = !parent.child_plans.is_empty()
        && parent.ended.is_none()
        && parent.open_work + parent.open_cleanup == 0;
    waits.then(|| parent.last_end_ms + parent.cancel_grace_ms)
}
