//! What happens when a timer fires.
//!
//! | timer | effect |
//! |---|---|
//! | attempt deadline | END(timeout) |
//! | ack deadline | message.redelivered; used up: END(unknown, undelivered) |
//! | hook deadline | hook.verdict(deny), step.failed(denied) |
//! | human deadline | human.expired; the next level, or the fallback |
//! | cancel grace | step.cancelled; of a pre-empted attempt END(preempted) |
//! | claim expiry | claim.expired, END(retryable, lease_lost) |
//! | cleanup grace | cleanup steps: step.skipped(plan_deadline) or step.timed_out |
//! | plan deadline | other steps: step.skipped(plan_deadline) or step.timed_out |
//! | report redelivery | message.redelivered; used up: message.undelivered |
//!
//! Which timers there are follows from the state; see [`crate::state`].

use crate::draft::Draft;
use crate::ending::{Ending, decide_end};
use crate::escalation;
use crate::event::{
    Cancelled, Class, ExpiredReason, Redelivered, SkipReason, Skipped, TimedOut, Undelivered, Which,
};
use crate::hook;
use crate::id::{attempt_key, report_key};
use crate::lease;
use crate::limit::REDELIVERY_MS;
use crate::message::HookVerdict;
use crate::state::{Coordination, State, Step, StepState};
use crate::timer::{Timer, TimerClass};

/// The records of a timer that is due.
pub(crate) fn decide_timer(state: &State, timer: &Timer, now_ms: u64) -> Vec<Draft> {
    let coordination = state.coordination(&timer.coordination);
    match timer.class {
        TimerClass::Plan => {
            expire_steps(coordination, false, coordination.deadline_ms, Which::Plan)
        }
        TimerClass::CleanupGrace => expire_steps(
            coordination,
            true,
            coordination.cleanup_until_ms(),
            Which::Cleanup,
        ),
        TimerClass::Report => vec![redeliver_report(coordination, timer.number, now_ms)],
        // A plan that waited for its children long enough ends when it settles.
        TimerClass::CancelGrace if timer.step.is_empty() => Vec::new(),
        TimerClass::Attempt
        | TimerClass::Ack
        | TimerClass::Hook
        | TimerClass::Human
        | TimerClass::ClaimExpiry
        | TimerClass::CancelGrace => {
            let index = coordination
                .step_index(&timer.step)
                .expect("a timer names a step");
            decide_step_timer(
                state,
                coordination,
                &coordination.steps[index],
                timer,
                now_ms,
            )
        }
    }
}

/// A timer of one step; the end of a cancel's grace is R-37.
fn decide_step_timer(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    timer: &Timer,
    now_ms: u64,
) -> Vec<Draft> {
    let seq = state.next_seq();
    match timer.class {
        TimerClass::Ack => redeliver_step(coordination, step, now_ms, seq),
        TimerClass::Hook => {
            let hook = step.hooks.iter().find(|hook| hook.seq == timer.number);
            let late = HookVerdict::Deny("no answer in time".into());
            hook.map_or_else(Vec::new, |hook| {
                hook::answered(
                    state,
                    coordination,
                    step,
                    hook,
                    "hook-timeout",
                    &late,
                    now_ms,
                )
            })
        }
        TimerClass::Human => {
            escalation::expire(state, coordination, step, ExpiredReason::Timeout, now_ms)
        }
        TimerClass::ClaimExpiry => lease::decide_expiry(state, coordination, step, now_ms),
        TimerClass::CancelGrace => {
            let Some((stop, by)) = coordination.stop_of(step) else {
                let says = "ended in favour of another step".to_owned();
                let ending = Ending::found(Class::Preempted, "preempted", says);
                return decide_end(coordination, step, now_ms, ending, seq);
            };
            let event = Cancelled {
                by,
                grace_used: true,
                content_digest: None,
            };
            vec![Draft::of_step(coordination, step, stop.seq, event)]
        }
        _ => {
            let says = format!("no end before the deadline, {}", step.deadline_ms);
            let ending = Ending::found(Class::Timeout, "timeout", says);
            decide_end(coordination, step, now_ms, ending, seq)
        }
    }
}

/// No ack came: the same attempt again under the same key (M4), or its end.
fn redeliver_step(coordination: &Coordination, step: &Step, now_ms: u64, seq: u64) -> Vec<Draft> {
    match wait_after(step.delivery) {
        Some(wait_ms) => {
            let key = attempt_key(&coordination.id, &step.id, step.attempt);
            let event = Redelivered {
                key,
                delivery: step.delivery + 1,
                next_due_ms: now_ms + wait_ms,
            };
            let cause = step.dispatched_seq;
            vec![Draft::of_step(coordination, step, cause, event)]
        }
        None => {
            let says = format!("no ack after {} deliveries", step.delivery);
            let ending = Ending::found(Class::Unknown, "undelivered", says);
            decide_end(coordination, step, now_ms, ending, seq)
        }
    }
}

/// Nobody read it: the report again, or given up.
fn redeliver_report(coordination: &Coordination, seq: u64, now_ms: u64) -> Draft {
    let deliveries = coordination.report(seq).map_or(0, |report| report.delivery);
    let key = report_key(seq);
    match wait_after(deliveries) {
        Some(wait_ms) => {
            let event = Redelivered {
                key,
                delivery: deliveries + 1,
                next_due_ms: now_ms + wait_ms,
            };
            Draft::of_coordination(coordination, seq, event)
        }
        None => Draft::of_coordination(coordination, seq, Undelivered { key, deliveries }),
    }
}

/// How long to wait after the redelivery that follows so many deliveries; none when they are used up.
fn wait_after(deliveries: u32) -> Option<u64> {
    REDELIVERY_MS
        .get((deliveries as usize).saturating_sub(1))
        .copied()
}

/// Ends what is left when the time of the plan, or of its cleanup, is over.
fn expire_steps(
    coordination: &Coordination,
    cleanup: bool,
    deadline_ms: Option<u64>,
    which: Which,
) -> Vec<Draft> {
    let open = coordination
        .steps
        .iter()
        .filter(|step| step.def.cleanup == cleanup && !step.state.is_final());
    let end = |step: &Step| {
        if step.state == StepState::Pending {
            let event = Skipped {
                reason: SkipReason::PlanDeadline,
                depends_on: Vec::new(),
            };
            return Draft::of_step(coordination, step, coordination.created_seq, event);
        }
        let event = TimedOut {
            deadline_ms: deadline_ms.unwrap_or_default(),
            which,
            attempts: step.attempts_made(),
        };
        let cause = if step.is_out() {
            step.dispatched_seq
        } else {
            coordination.created_seq
        };
        Draft::of_step(coordination, step, cause, event)
    };
    open.map(end).collect()
}
