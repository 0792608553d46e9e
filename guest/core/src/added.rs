//! Steps that a running step adds under itself.
//!
//! An added step depends on nothing and claims nothing; its timeout, risk, and whether it may run twice are those of the
//! step that added it. Every hop of a subagent is such a step. Its end is reported to the session that added it.

use crate::apply::{EXECUTE, identity_key, new_step};
use crate::decision::{Answer, Decision};
use crate::draft::Draft;
use crate::envelope::{DeliveryMode, Envelope};
use crate::event::{Added, Name, Record};
use crate::id::{check_id, check_session};
use crate::limit::DEPTH_MAX;
use crate::message::Caller;
use crate::plan::{Join, Step as Def};
use crate::receipt::{Receipt, ReceiptStatus, Rejection, RejectionCode};
use crate::state::{Coordination, State, Step, StepState};
use crate::step::{find_coordination, find_step, reject_on_step};

/// Decides an execute that comes in. Its form was tested.
pub(crate) fn decide_execute(
    state: &State,
    now_ms: u64,
    caller: &Caller,
    envelope: &Envelope,
) -> Decision {
    let step_id = envelope.step_id.as_deref().unwrap_or_default();
    let parent_id = envelope.parent_step_id.as_deref().unwrap_or_default();
    let found = find_coordination(state, &envelope.coordination_id)
        .and_then(|coordination| Ok((coordination, find_step(coordination, parent_id)?)));
    let (coordination, parent) = match found {
        Ok(found) => found,
        Err(rejection) => return Decision::refuse(rejection),
    };
    let reject = |code, field: &str, says: String| {
        reject_on_step(coordination, parent, envelope, code, field, says)
    };
    let source = &envelope.source_session;
    if caller.session != *source || *source != *parent.session {
        let says = format!(
            "{source} does not do {parent_id}; {} does, and the caller is {}",
            parent.session, caller.session
        );
        return reject(RejectionCode::UnauthorizedSession, "sourceSession", says);
    }
    if let Some(index) = coordination.step_index(step_id) {
        let known = &coordination.steps[index];
        return repeat(coordination, known, envelope);
    }
    if coordination.is_stopping() || coordination.stop_of(parent).is_some() {
        let says = format!("{} is being stopped and takes no new work", coordination.id);
        return Decision::refuse(Rejection::new(
            RejectionCode::CoordinationStopping,
            "",
            says,
        ));
    }
    if !matches!(
        parent.state,
        StepState::Dispatched | StepState::Acknowledged
    ) {
        let says = format!("{parent_id} is {}, not running", parent.state.name());
        return reject(RejectionCode::NotRunning, "parentStepId", says);
    }
    let at = |code, field: &str, says: String| Decision::refuse(Rejection::new(code, field, says));
    if let Some(deadline_ms) = envelope.deadline_ms.filter(|due_ms| *due_ms <= now_ms) {
        let says = format!("is {deadline_ms}; now is {now_ms}");
        return at(RejectionCode::DeadlinePast, "deadlineMs", says);
    }
    if coordination.depth + parent.depth >= DEPTH_MAX {
        let says = format!("would be {} deep; {DEPTH_MAX} are allowed", DEPTH_MAX + 1);
        return at(RejectionCode::Bound, "parentStepId", says);
    }
    let def = def_of(parent, envelope);
    if let Some((what, bound)) = full(state, coordination, &def) {
        let says = format!("one step more is too many {what}; {bound} are allowed");
        return at(RejectionCode::DomainFull, "", says);
    }
    let event = Added {
        step: def,
        source_session: source.clone(),
        content_digest: envelope.content_digest(),
    };
    let mut draft = Draft::of_step(coordination, parent, parent.last_seq, event);
    draft.step = Some(Name::from(step_id));
    Decision::accept(vec![draft.for_attempt(1).traced(&envelope.trace)])
}

/// The id is taken: by the same input, or by something else.
fn repeat(coordination: &Coordination, known: &Step, envelope: &Envelope) -> Decision {
    let digest = envelope.content_digest();
    let identity = known.identity(&identity_key(1, EXECUTE, ""));
    match identity.filter(|identity| identity.digest == digest) {
        Some(identity) => Decision {
            drafts: Vec::new(),
            answer: Answer::Known(Receipt {
                status: ReceiptStatus::Replayed,
                seq: Some(identity.seq),
                state: identity.state.name().to_owned(),
            }),
        },
        None => {
            let says = format!("{} is another step already", known.id);
            let code = RejectionCode::ContentMismatch;
            reject_on_step(coordination, known, envelope, code, "stepId", says)
        }
    }
}

/// The step that an envelope asks for, as a plan would declare it.
fn def_of(parent: &Step, envelope: &Envelope) -> Def {
    let empty = envelope.payload_ref.is_none().then(String::new);
    Def {
        step_id: envelope.step_id.clone().unwrap_or_default(),
        target_session: envelope.target_session.clone(),
        payload: envelope.payload.clone().or(empty),
        payload_ref: envelope.payload_ref.clone(),
        content_type: envelope.content_type.clone(),
        depends_on: Vec::new(),
        join: Join::default(),
        claims: Vec::new(),
        owns: Vec::new(),
        priority: envelope.priority.min(parent.def.priority),
        delivery_mode: envelope.delivery_mode,
        timeout_ms: parent.def.timeout_ms,
        ack_timeout_ms: None,
        max_attempts: None,
        idempotent: parent.def.idempotent && envelope.delivery_mode == DeliveryMode::AtLeastOnce,
        required: false,
        cleanup: parent.def.cleanup,
        risk: parent.def.risk,
        expected_output: None,
        parent_step_id: envelope.parent_step_id.clone(),
    }
}

/// Whether an envelope can have asked for this step under that parent.
pub(crate) fn could_be(coordination: &Coordination, parent: &Step, def: &Def) -> bool {
    let at_least_once = def.delivery_mode == DeliveryMode::AtLeastOnce;
    let asks_for_nothing = def.depends_on.is_empty()
        && def.join == Join::default()
        && def.claims.is_empty()
        && def.owns.is_empty()
        && def.ack_timeout_ms.is_none()
        && def.max_attempts.is_none()
        && !def.required
        && def.expected_output.is_none();
    asks_for_nothing
        && def.priority <= parent.def.priority
        && def.timeout_ms == parent.def.timeout_ms
        && def.idempotent == (parent.def.idempotent && at_least_once)
        && def.cleanup == parent.def.cleanup
        && def.risk == parent.def.risk
        && check_id(&def.step_id).is_ok()
        && check_session(&def.target_session).is_ok()
        && def.payload.is_some() != def.payload_ref.is_some()
        && coordination.depth + parent.depth < DEPTH_MAX
}

/// Which bound one more step would pass.
fn full(state: &State, coordination: &Coordination, def: &Def) -> Option<(&'static str, u64)> {
    let limits = &state.config()?.limits;
    let index = &state.index;
    [
        (
            "steps of the plan",
            coordination.steps.len() as u64 + 1,
            limits.plan_steps,
        ),
        ("live steps", index.live_steps + 1, limits.live_steps),
        (
            "bytes of live payload",
            index.live_payload_bytes + def.payload_bytes(),
            limits.live_payload_bytes,
        ),
    ]
    .into_iter()
    .find(|(_, count, bound)| count > bound)
    .map(|(what, _, bound)| (what, bound))
}

/// Takes the step in.
pub(crate) fn apply(state: &mut State, record: &Record, data: &Added) {
    let id = record.coordination_id.as_deref().unwrap_or_default();
    let coordination = state.coordination(id);
    let parent = data
        .step
        .parent_step_id
        .as_deref()
        .and_then(|parent| coordination.step_index(parent));
    if let Some(parent) = parent {
        // whoever adds work has begun.
        state.edit_step(id, parent, &mut |step| {
            if step.state == StepState::Dispatched {
                step.state = StepState::Acknowledged;
            }
        });
    }
    let coordination = state.coordination(id);
    let mut step = new_step(data.step.clone().into(), Vec::new(), record);
    step.depth = 1 + parent.map_or(0, |parent| coordination.steps[parent].depth);
    step.added_by = Some(Name::from(data.source_session.as_str()));
    step.remember(
        identity_key(1, EXECUTE, ""),
        &data.content_digest,
        record.seq,
    );
    state.add_step(id, step);
}
