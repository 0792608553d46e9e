//! What happens when a timer fires.
//!
//! | timer | effect |
//! |---|---|
//! | attempt deadline | END(timeout) |
//! | ack deadline | message.redelivered; used up: END(unknown, undelivered) |
//! | cancel grace | step.cancelled |
//! | cleanup grace | cleanup steps: step.skipped(plan_deadline) or step.timed_out |
//! | plan deadline | other steps: step.skipped(plan_deadline) or step.timed_out |
//! | report redelivery | message.redelivered; used up: message.undelivered |
//!
//! Which timers there are follows from the state; see [`crate::state`].

use crate::draft::Draft;
use crate::ending::{Ending, decide_end};
use crate::event::{
    Cancelled, Class, Redelivered, SkipReason, Skipped, TimedOut, Undelivered, Which,
};
use crate::id::{attempt_key, report_key};
use crate::limit::REDELIVERY_MS;
use crate::state::{Coordination, State, Step, StepState};
use crate::timer::{Timer, TimerClass};

/// The records of a timer that is due.
pub(crate) fn decide_timer(state: &State, timer: &Timer, now_ms: u64) -> Vec<Draft> {
    let coordination = state.coordination(&timer.coordination);
    match timer.class {
        TimerClass::Plan => expire_steps(
            coordination,
            false,
            coordination.plan.deadline_ms,
            Which::Plan,
        ),
        TimerClass::CleanupGrace => expire_steps(
            coordination,
            true,
            coordination.cleanup_until_ms(),
            Which::Cleanup,
        ),
        TimerClass::Report => vec![redeliver_report(coordination, timer.number, now_ms)],
        TimerClass::Slot => Vec::new(),
        TimerClass::Attempt | TimerClass::Ack | TimerClass::CancelGrace => {
            let index = coordination
                .step_index(&timer.step)
                .expect("a timer names a step");
            vec![decide_step_timer(
                coordination,
                &coordination.steps[index],
                timer.class,
                now_ms,
            )]
        }
    }
}

fn decide_step_timer(
    coordination: &Coordination,
    step: &Step,
    class: TimerClass,
    now_ms: u64,
) -> Draft {
    match class {
        TimerClass::Ack => redeliver_step(coordination, step, now_ms),
        TimerClass::CancelGrace => {
            let (stop, by) = coordination
                .stop_of(step)
                .expect("a grace runs only under a stop");
            let event = Cancelled {
                by,
                grace_used: true,
                content_digest: None,
            };
            Draft::of_step(coordination, step, stop.seq, event)
        }
        _ => {
            let says = format!("no end before the deadline, {}", step.deadline_ms);
            decide_end(
                coordination,
                step,
                now_ms,
                Ending::found(Class::Timeout, "timeout", says),
            )
        }
    }
}

fn redeliver_step(coordination: &Coordination, step: &Step, now_ms: u64) -> Draft {
    match wait_after(step.delivery) {
        Some(wait_ms) => {
            let key = attempt_key(&coordination.id, &step.id, step.attempt);
            let event = Redelivered {
                key,
                delivery: step.delivery + 1,
                next_due_ms: now_ms + wait_ms,
            };
            Draft::of_step(coordination, step, step.dispatched_seq, event)
        }
        None => {
            let says = format!("no ack after {} deliveries", step.delivery);
            decide_end(
                coordination,
                step,
                now_ms,
                Ending::found(Class::Unknown, "undelivered", says),
            )
        }
    }
}

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
        let made = if step.state.is_out() {
            step.attempt
        } else {
            step.attempt - 1
        };
        let event = TimedOut {
            deadline_ms: deadline_ms.unwrap_or_default(),
            which,
            attempts: made,
        };
        let cause = if step.state.is_out() {
            step.dispatched_seq
        } else {
            coordination.created_seq
        };
        Draft::of_step(coordination, step, cause, event)
    };
    open.map(end).collect()
}
