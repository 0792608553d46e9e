//! END(class): what follows when an attempt ends other than by success.
//!
//! | first that applies | record |
//! |---|---|
//! | a cancel or fail_fast is at work on the step | step.cancelled; by a deadline step.timed_out |
//! | the failure is permanent | step.failed |
//! | a retry is allowed | step.retry_scheduled |
//! | the plan asks people | coordination.escalated, human.requested |
//! | else | step.failed; by a deadline step.timed_out |
//!
//! Does not say what ends an attempt; reports, notices and timers do.

use crate::draft::Draft;
use crate::envelope::{DeliveryMode, PayloadRef};
use crate::escalation::{self, Extra};
use crate::event::{
    Cancelled, Class, EscalationKind, Event, ExpiredReason, Failed, HumanExpired, ReleaseReason,
    RetryScheduled, TimedOut, Which,
};
use crate::limit::{FREE_RETRIES_MAX, TEXT_BYTES_MAX};
use crate::state::{Coordination, Step, StepState};

/// Why an attempt ended, and what the report said that ended it, where one did.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) class: Class,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) payload: Option<String>,
    pub(crate) payload_ref: Option<PayloadRef>,
    pub(crate) content_digest: Option<String>,
}

impl Ending {
    /// An end that no report made.
    pub(crate) fn found(class: Class, code: &str, message: String) -> Self {
        Self {
            class,
            code: code.to_owned(),
            message,
            payload: None,
            payload_ref: None,
            content_digest: None,
        }
    }
}

/// The record that the end of an attempt which is out leads to.
pub(crate) fn decide_end(
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
    ending: Ending,
    seq: u64,
) -> Vec<Draft> {
    let timeout = ending.class == Class::Timeout;
    let timed_out = TimedOut {
        deadline_ms: step.deadline_ms,
        which: Which::Attempt,
        attempts: step.attempt,
    };
    if let Some((stop, by)) = coordination.stop_of(step) {
        if timeout {
            let cause = step.dispatched_seq;
            return vec![Draft::of_step(coordination, step, cause, timed_out)];
        }
        let cancelled = Cancelled {
            by,
            grace_used: true,
            content_digest: ending.content_digest,
        };
        return vec![Draft::of_step(coordination, step, stop.seq, cancelled)];
    }
    // Only a report says that somebody worked on it without having said so before.
    let implicit_ack = ending.content_digest.is_some() && step.state == StepState::Dispatched;
    if ending.class != Class::Permanent
        && let Some(retry) = decide_retry(coordination, step, now_ms, implicit_ack, &ending)
    {
        return vec![Draft::of_step(coordination, step, step.last_seq, retry)];
    }
    if ending.class != Class::Permanent && coordination.asks() {
        return ask(coordination, step, now_ms, ending, seq);
    }
    if timeout {
        let cause = step.dispatched_seq;
        return vec![Draft::of_step(coordination, step, cause, timed_out)];
    }
    let (code, message) = if ending.class == Class::Unknown && !step.def.idempotent {
        (
            "unknown_effect".to_owned(),
            shorten(format!("{}: {}", ending.code, ending.message)),
        )
    } else {
        (ending.code, ending.message)
    };
    let failed = Failed {
        implicit_ack,
        class: ending.class,
        code,
        message,
        payload: ending.payload,
        payload_ref: ending.payload_ref,
        content_digest: ending.content_digest,
        attempts: step.attempt,
    };
    vec![Draft::of_step(coordination, step, step.last_seq, failed)]
}

/// No retry is left: a person says what becomes of the step.
fn ask(
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
    ending: Ending,
    seq: u64,
) -> Vec<Draft> {
    let unknown = ending.class == Class::Unknown && !step.def.idempotent;
    let (kind, what) = if unknown {
        (
            EscalationKind::UnknownEffect,
            "ended without a word on its effect. Did it happen?",
        )
    } else {
        (
            EscalationKind::Exhausted,
            "failed, and no retry is left. One more attempt?",
        )
    };
    let question = format!(
        "Attempt {} of {} {what} {}: {}",
        step.attempt, step.id, ending.code, ending.message
    );
    // An open question of this step is voided first, in a record of its own.
    let seq = seq + u64::from(step.escalation.is_some());
    let extra = Extra {
        met: Vec::new(),
        number: None,
        class: Some(ending.class),
        code: Some(ending.code),
        message: Some(ending.message),
        content_digest: ending.content_digest,
    };
    let cause = step.last_seq;
    escalation::open_with(
        coordination,
        step,
        kind,
        question,
        now_ms,
        cause,
        seq,
        extra,
    )
}

/// What comes before the record that ends an attempt: a question that it leaves open is over.
pub(crate) fn before(coordination: &Coordination, step: &Step, event: &Event) -> Option<Draft> {
    let open = step.escalation.as_ref()?;
    let reason = match event {
        Event::TimedOut(data) if data.which == Which::Plan => ExpiredReason::Unanswered,
        Event::Completed(_)
        | Event::Failed(_)
        | Event::TimedOut(_)
        | Event::RetryScheduled(_)
        | Event::Cancelled(_)
        | Event::Skipped(_)
        | Event::Escalated(_) => ExpiredReason::Voided,
        _ => return None,
    };
    let expired = HumanExpired {
        escalation_id: format!("e{}", open.seq),
        level: open.level,
        fallback: None,
        reason,
    };
    Some(Draft::of_step(
        coordination,
        step,
        open.requested_seq,
        expired,
    ))
}

/// Why the leases of an attempt end with a record, where it may end one.
pub(crate) fn release_reason(event: &Event) -> Option<ReleaseReason> {
    match event {
        Event::RetryScheduled(data) if data.class == Class::Preempted => {
            Some(ReleaseReason::Preempted)
        }
        Event::RetryScheduled(_)
        | Event::Escalated(_)
        | Event::Completed(_)
        | Event::Failed(_)
        | Event::TimedOut(_)
        | Event::Cancelled(_)
        | Event::Skipped(_) => Some(ReleaseReason::Ended),
        _ => None,
    }
}

/// The retry of an attempt, where one is allowed, and before the deadline R-26.
fn decide_retry(
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
    implicit_ack: bool,
    ending: &Ending,
) -> Option<RetryScheduled> {
    let policy = &coordination.plan.failure_policy;
    let harmless = ending.class == Class::Retryable || step.def.idempotent;
    if !harmless || step.def.delivery_mode == DeliveryMode::BestEffort {
        return None;
    }
    let free = matches!(ending.class, Class::HostLost | Class::Preempted);
    let budget_left = policy
        .retry_budget
        .saturating_sub(coordination.retries_used);
    let within = if free {
        step.free_retries < FREE_RETRIES_MAX
    } else {
        // Attempts that a person allowed are outside maxAttempts as well as outside the budget.
        let counted = 1 + step.retries;
        budget_left > 0 && step.def.max_attempts.is_none_or(|max| counted < max)
    };
    let wait_ms = if free {
        0
    } else {
        backoff_ms(&policy.backoff_ms, step.retries)
    };
    let due_ms = now_ms + wait_ms;
    let in_time = coordination
        .retry_limit_ms(step)
        .is_none_or(|limit_ms| due_ms < limit_ms);
    (within && in_time).then(|| RetryScheduled {
        implicit_ack,
        class: ending.class,
        code: ending.code.clone(),
        message: ending.message.clone(),
        content_digest: ending.content_digest.clone(),
        due_ms,
        next_attempt: step.attempt + 1,
        free,
        budget_left: budget_left - u64::from(!free),
    })
}

/// Wait before the retry after `retries` earlier ones; the last entry repeats.
fn backoff_ms(table: &[u64], retries: u32) -> u64 {
    let last = table.len().saturating_sub(1);
    table.get(last.min(retries as usize)).copied().unwrap_or(0)
}

/// Cuts a message to its bound, at a character.
pub(crate) fn shorten(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
