//! Inputs on one step: ack, report and the host's notices.
//!
//! | input | not out | dispatched | acknowledged | final, or an older attempt |
//! |---|---|---|---|---|
//! | ack | `not-dispatched` | step.acknowledged | replay | late |
//! | progress | `not-dispatched` | step.progress | step.progress | late |
//! | completed, as expected | `not-dispatched` | step.completed | step.completed | late |
//! | failed, or not as expected | `not-dispatched` | END | END | late |
//! | escalate | `not-running` | coordination.escalated | coordination.escalated | late |
//! | notice unknown-target, dropped | - | END(permanent) | - | - |
//! | notice host-lost | - | END(host_lost) | END(host_lost) | - |
//!
//! What END leads to is in [`crate::ending`]; cancels are in [`crate::cancel`].

use crate::apply::identity_key;
use crate::decision::{Answer, Decision};
use crate::draft::Draft;
use crate::ending::{Ending, decide_end};
use crate::envelope::{Envelope, FailureClass, Intent, Outcome, PayloadRef};
use crate::escalation::{self, Extra};
use crate::event::{
    Acknowledged, Class, Completed, EscalationKind, InputLate, InputRejected, Progress,
};
use crate::id::split_attempt_key;
use crate::json::{self, Json};
use crate::lease;
use crate::limit::KEPT_INPUTS_AN_ATTEMPT_MAX;
use crate::message::{Caller, Notice, NoticeKind, PROBE_PREFIX};
use crate::order::same;
use crate::plan::ExpectedOutput;
use crate::receipt::{Receipt, ReceiptStatus, Rejection, RejectionCode};
use crate::state::{Coordination, State, Step, StepState};

/// Finds the live coordination of an input.
pub(crate) fn find_coordination<'a>(
    state: &'a State,
    id: &str,
) -> Result<&'a Coordination, Rejection> {
    if let Some(coordination) = state.live.get(id) {
        return Ok(coordination);
    }
    Err(match state.closed.get(id) {
        Some(closed) => {
            let says = format!(
                "{id} is closed; it ended in {} at record {}",
                closed.terminal.name(),
                closed.terminal_seq
            );
            Rejection::new(RejectionCode::Closed, "coordinationId", says)
        }
        None => Rejection::new(
            RejectionCode::UnknownCoordination,
            "coordinationId",
            format!("{id} is not known"),
        ),
    })
}

/// Finds the step of an input.
pub(crate) fn find_step<'a>(
    coordination: &'a Coordination,
    step_id: &str,
) -> Result<&'a Step, Rejection> {
    match coordination.step_index(step_id) {
        Some(index) => Ok(&coordination.steps[index]),
        None => {
            let says = format!("{step_id} is no step of {}", coordination.id);
            Err(Rejection::new(RejectionCode::UnknownStep, "stepId", says))
        }
    }
}

/// Decides an ack, a report or a question, test by test in the order of M6: authority, attempt, identity (R-2,
/// R-3, and of two ends R-7), what is final (M5). Its form was tested, so it has a step and an attempt.
pub(crate) fn decide_input(
    state: &State,
    now_ms: u64,
    caller: &Caller,
    envelope: &Envelope,
) -> Decision {
    let step_id = envelope.step_id.as_deref().unwrap_or_default();
    let found = find_coordination(state, &envelope.coordination_id)
        .and_then(|coordination| Ok((coordination, find_step(coordination, step_id)?)));
    let (coordination, step) = match found {
        Ok(found) => found,
        Err(rejection) => return Decision::refuse(rejection),
    };
    let input = Input {
        coordination,
        step,
        envelope,
        attempt: envelope.attempt.unwrap_or_default(),
        seq: state.next_seq(),
    };
    if !same(&caller.session, &envelope.source_session) {
        let says = format!(
            "{} is not the caller, {}",
            envelope.source_session, caller.session
        );
        return input.reject(RejectionCode::UnauthorizedSession, "sourceSession", says);
    }
    if envelope.source_session != *step.session {
        let says = format!(
            "{} does not do {step_id}; {} does",
            envelope.source_session, step.session
        );
        return input.reject(RejectionCode::UnauthorizedSession, "sourceSession", says);
    }
    if input.attempt > step.attempt {
        let says = format!(
            "is {}; the current attempt is {}",
            input.attempt, step.attempt
        );
        return input.reject(RejectionCode::UnknownAttempt, "attempt", says);
    }
    let digest = envelope.content_digest();
    let key = || identity_key(input.attempt, envelope.intent.name(), &envelope.part());
    let known = if step.identities.is_empty() {
        None
    } else {
        step.identity(&key())
    };
    if let Some(known) = known {
        if known.digest != digest {
            let says = format!(
                "the same input came before with other content, at record {}",
                known.seq
            );
            return input.reject(RejectionCode::ContentMismatch, "", says);
        }
        let (status, seq) = (ReceiptStatus::Replayed, Some(known.seq));
        let receipt = Receipt {
            status,
            seq,
            state: known.state.name().to_owned(),
        };
        return Decision {
            drafts: Vec::new(),
            answer: Answer::Known(receipt),
        };
    }
    // An attempt that ended in a question about it is over, though the step is not.
    let ended = step.escalation.is_some() && step.ended.len() >= input.attempt as usize;
    if input.attempt < step.attempt || step.state.is_final() || ended {
        return input.late(digest);
    }
    if envelope.intent == Intent::Escalate {
        return input.escalate(now_ms, digest);
    }
    if !step.is_out() {
        let says = format!(
            "attempt {} is {} and was not handed out",
            step.attempt,
            step.state.name()
        );
        return input.reject(RejectionCode::NotDispatched, "attempt", says);
    }
    match &envelope.outcome {
        None if step.state != StepState::Dispatched => Decision::replay(step.state.name()),
        None => {
            let event = Acknowledged {
                source_session: envelope.source_session.clone(),
                content_digest: digest,
            };
            input.accept(Draft::of_step(
                coordination,
                step,
                step.dispatched_seq,
                event,
            ))
        }
        Some(outcome) => input.report(outcome, now_ms, digest),
    }
}

/// An ack or report on a known step.
struct Input<'a> {
    coordination: &'a Coordination,
    step: &'a Step,
    envelope: &'a Envelope,
    attempt: u32,
    /// Number of the next record.
    seq: u64,
}

impl Input<'_> {
    fn accept(&self, draft: Draft) -> Decision {
        Decision::accept(vec![draft.traced(&self.envelope.trace)])
    }

    /// What came of the attempt: progress, a result as expected or not, a failure.
    fn report(&self, outcome: &Outcome, now_ms: u64, digest: String) -> Decision {
        let (coordination, step, envelope) = (self.coordination, self.step, self.envelope);
        let ending = match outcome {
            Outcome::Progress { number } => {
                let event = Progress {
                    number: *number,
                    content_digest: digest,
                    payload: envelope.payload.clone(),
                    payload_ref: envelope.payload_ref.clone(),
                };
                let ack = step.identity(&identity_key(step.attempt, Intent::Ack.name(), ""));
                let cause = ack.map_or(step.dispatched_seq, |ack| ack.seq);
                let progress = Draft::of_step(coordination, step, cause, event);
                let mut drafts = vec![progress.traced(&envelope.trace)];
                // While a person is asked leases rest, and there is nothing to begin anew.
                if !step.is_suspended() {
                    let cause = Some(self.seq);
                    drafts.extend(lease::renewals(coordination, step, &[], now_ms, cause));
                }
                return Decision::accept(drafts);
            }
            Outcome::Completed => match unexpected(step.def.expected_output.as_ref(), envelope) {
                None => {
                    let event = Completed {
                        implicit_ack: step.state == StepState::Dispatched,
                        content_type: envelope.content_type.clone(),
                        payload: envelope.payload.clone(),
                        payload_ref: envelope.payload_ref.clone(),
                        content_digest: digest,
                        by: "report".into(),
                    };
                    return self.accept(Draft::of_step(coordination, step, step.last_seq, event));
                }
                Some(says) => Ending {
                    class: Class::Retryable,
                    code: "output-mismatch".into(),
                    message: says,
                    payload: envelope.payload.clone(),
                    payload_ref: envelope.payload_ref.clone(),
                    content_digest: Some(digest),
                },
            },
            Outcome::Failed {
                class,
                code,
                message,
            } => Ending {
                class: match class {
                    FailureClass::Retryable => Class::Retryable,
                    FailureClass::Permanent => Class::Permanent,
                    FailureClass::Unknown => Class::Unknown,
                },
                code: code.clone(),
                message: message.clone(),
                payload: envelope.payload.clone(),
                payload_ref: envelope.payload_ref.clone(),
                content_digest: Some(digest),
            },
        };
        let drafts = decide_end(coordination, step, now_ms, ending, self.seq);
        let traced = |draft: Draft| draft.traced(&envelope.trace);
        Decision::accept(drafts.into_iter().map(traced).collect())
    }

    /// A question of the agent to a person.
    fn escalate(&self, now_ms: u64, digest: String) -> Decision {
        let (coordination, step) = (self.coordination, self.step);
        let Some(question) = &self.envelope.question else {
            let says = "is absent".into();
            return self.reject(RejectionCode::InvalidField, "question", says);
        };
        if !matches!(step.state, StepState::Dispatched | StepState::Acknowledged) {
            let says = format!("{} is {}, not running", step.id, step.state.name());
            return self.reject(RejectionCode::NotRunning, "stepId", says);
        }
        if coordination.human().is_none() {
            let says = "the plan asks nobody; its escalationPolicy is none";
            return Decision::refuse(Rejection::new(RejectionCode::NoHuman, "", says));
        }
        let stops = coordination.stop_of(step).is_some() || coordination.cancel.is_some();
        if stops || step.preempted.is_some() {
            let says = format!("{} is being ended; nothing is asked any more", step.id);
            let code = RejectionCode::CoordinationStopping;
            return Decision::refuse(Rejection::new(code, "", says));
        }
        let extra = Extra {
            number: Some(question.number),
            content_digest: Some(digest),
            ..Extra::default()
        };
        let (kind, text) = (EscalationKind::Question, question.text.clone());
        let (cause, seq) = (step.last_seq, self.seq);
        let drafts =
            escalation::open_with(coordination, step, kind, text, now_ms, cause, seq, extra);
        let traced = |draft: Draft| draft.traced(&self.envelope.trace);
        Decision::accept(drafts.into_iter().map(traced).collect())
    }

    /// It came after the end: kept, without effect.
    fn late(&self, digest: String) -> Decision {
        let ended = self.step.ended.get(self.attempt as usize - 1);
        let cause = ended.copied().unwrap_or(self.step.last_seq);
        let input = Unheeded::of(self.envelope, digest);
        let payload = (
            self.envelope.payload.clone(),
            self.envelope.payload_ref.clone(),
        );
        let draft = input.late(self.coordination, self.step, self.attempt, cause, payload);
        Decision {
            drafts: draft
                .map(|draft| draft.traced(&self.envelope.trace))
                .into_iter()
                .collect(),
            answer: Answer::Took(ReceiptStatus::Late),
        }
    }

    fn reject(&self, code: RejectionCode, field: &str, says: String) -> Decision {
        reject_on_step(
            self.coordination,
            self.step,
            self.envelope,
            code,
            field,
            says,
        )
    }
}

/// An input is refused, and the refusal is recorded on its step.
pub(crate) fn reject_on_step(
    coordination: &Coordination,
    step: &Step,
    envelope: &Envelope,
    code: RejectionCode,
    field: &str,
    says: String,
) -> Decision {
    let input = Unheeded::of(envelope, envelope.content_digest());
    let draft = input.rejected(coordination, step, code);
    Decision {
        drafts: draft
            .map(|draft| draft.traced(&envelope.trace))
            .into_iter()
            .collect(),
        answer: Answer::Refused(Rejection::new(code, field, says)),
    }
}

/// An input that changes nothing, as the ledger keeps it: so many an attempt, and no more.
pub(crate) struct Unheeded {
    pub(crate) intent: String,
    pub(crate) part: String,
    pub(crate) source_session: String,
    pub(crate) content_digest: String,
}

impl Unheeded {
    fn of(envelope: &Envelope, content_digest: String) -> Self {
        Self {
            intent: envelope.intent.name().into(),
            part: envelope.part().into_owned(),
            source_session: envelope.source_session.clone(),
            content_digest,
        }
    }

    /// The record that it came too late for an attempt.
    pub(crate) fn late(
        self,
        coordination: &Coordination,
        step: &Step,
        attempt: u32,
        cause: u64,
        (payload, payload_ref): (Option<String>, Option<PayloadRef>),
    ) -> Option<Draft> {
        let event = InputLate {
            intent: self.intent,
            part: self.part,
            source_session: self.source_session,
            code: "late".into(),
            content_digest: self.content_digest,
            payload,
            payload_ref,
        };
        let room = step.kept(attempt).late < KEPT_INPUTS_AN_ATTEMPT_MAX;
        room.then(|| Draft::of_step(coordination, step, cause, event).for_attempt(attempt))
    }

    /// The record that it was refused.
    pub(crate) fn rejected(
        self,
        coordination: &Coordination,
        step: &Step,
        code: RejectionCode,
    ) -> Option<Draft> {
        let event = InputRejected {
            intent: self.intent,
            part: self.part,
            source_session: self.source_session,
            code: code.name().into(),
            content_digest: self.content_digest,
        };
        let room = step.kept(step.attempt).rejected < KEPT_INPUTS_AN_ATTEMPT_MAX;
        room.then(|| Draft::of_step(coordination, step, step.last_seq, event))
    }
}

/// what is wrong with a result, if anything.
fn unexpected(expected: Option<&ExpectedOutput>, envelope: &Envelope) -> Option<String> {
    let expected = expected?;
    let text = envelope.payload.as_deref();
    let bytes = match (&envelope.payload_ref, text) {
        (Some(reference), _) => reference.bytes,
        (None, text) => text.map_or(0, |text| text.len() as u64),
    };
    if bytes == 0 {
        return (!expected.allow_empty).then(|| "the result is empty".into());
    }
    if let Some(content_type) = &expected.content_type
        && envelope.content_type.as_ref() != Some(content_type)
    {
        let got = envelope.content_type.as_deref().unwrap_or("none");
        return Some(format!(
            "the content type is {got}; {content_type} is expected"
        ));
    }
    if let Some(max_bytes) = expected.max_bytes.filter(|max_bytes| bytes > *max_bytes) {
        return Some(format!(
            "the result has {bytes} bytes; {max_bytes} are allowed"
        ));
    }
    if expected.required_fields.is_empty() {
        return None;
    }
    let Some(text) = text else {
        return Some("the result is kept elsewhere, so its required fields cannot be seen".into());
    };
    let Ok(Json::Object(members)) = json::parse(text) else {
        return Some("the result is not a JSON object".into());
    };
    let missing = expected
        .required_fields
        .iter()
        .find(|field| json::place_of(&members, 0, field).is_none());
    missing.map(|field| format!("the result has no member {field}"))
}

/// Decides a host's word on a message.
pub(crate) fn decide_notice(state: &State, now_ms: u64, notice: &Notice) -> Decision {
    if notice.kind == NoticeKind::Unreachable {
        return escalation::decide_unreachable(state, now_ms, &notice.key);
    }
    let key = notice.key.strip_prefix(PROBE_PREFIX).unwrap_or(&notice.key);
    let Some((id, step_id, attempt)) = split_attempt_key(key) else {
        let says = format!("{} is not the key of an attempt", notice.key);
        return Decision::refuse(Rejection::new(RejectionCode::UnknownKey, "key", says));
    };
    let found = find_coordination(state, id)
        .and_then(|coordination| Ok((coordination, find_step(coordination, step_id)?)));
    let (coordination, step) = match found {
        Ok(found) => found,
        Err(rejection) => return Decision::refuse(rejection),
    };
    if attempt > step.attempt {
        let says = format!(
            "names attempt {attempt}; the current one is {}",
            step.attempt
        );
        return Decision::refuse(Rejection::new(RejectionCode::UnknownAttempt, "key", says));
    }
    let current = attempt == step.attempt && step.is_out();
    let ending = match notice.kind {
        NoticeKind::HostLost if current => Ending::found(
            Class::HostLost,
            "host-lost",
            "the host lost what ran the attempt".into(),
        ),
        NoticeKind::UnknownTarget if current && step.state == StepState::Dispatched => {
            let says = format!("no agent serves session {}", step.session);
            Ending::found(Class::Permanent, "unknown-target", says)
        }
        NoticeKind::Dropped if current && step.state == StepState::Dispatched => Ending::found(
            Class::Permanent,
            "dropped",
            "the lane dropped the message".into(),
        ),
        _ => return Decision::replay(step.state.name()),
    };
    let drafts = decide_end(coordination, step, now_ms, ending, state.next_seq());
    Decision::accept(drafts)
}

/// Decides any envelope.
pub(crate) fn decide_envelope(
    state: &State,
    now_ms: u64,
    caller: &Caller,
    envelope: &Envelope,
    payload_bytes_max: u64,
) -> Decision {
    if let Err((field, says)) = envelope.check(payload_bytes_max) {
        return Decision::refuse(Rejection::new(RejectionCode::InvalidField, &field, says));
    }
    match envelope.intent {
        Intent::Ack | Intent::Report | Intent::Escalate => {
            decide_input(state, now_ms, caller, envelope)
        }
        Intent::Cancel => crate::cancel::decide_cancel(state, now_ms, caller, envelope),
        Intent::Execute => crate::added::decide_execute(state, now_ms, caller, envelope),
    }
}
