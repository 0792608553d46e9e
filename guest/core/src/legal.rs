//! Whether the tables allow a record in a state. Tested before each record of a replay is applied.
//!
//! A ledger whose chain holds but that says something impossible was written by other rules, or by somebody who could
//! compute hashes. Either way this component must not follow it.

use crate::event::{Event, RULES, Record, SkipReason, Which};
use crate::id::{attempt_key, split_attempt_key, split_report_key};
use crate::limit::{FREE_RETRIES_MAX, KEPT_INPUTS_AN_ATTEMPT_MAX};
use crate::receipt::LedgerFaultKind;
use crate::settle::decide_terminal;
use crate::state::{Coordination, State, Step, StepState};

/// Why a record is not allowed.
pub(crate) type Objection = (LedgerFaultKind, String);

fn no<T>(says: impl Into<String>) -> Result<T, Objection> {
    Err((LedgerFaultKind::Nondeterminism, says.into()))
}

fn need(holds: bool, says: impl FnOnce() -> String) -> Result<(), Objection> {
    if holds { Ok(()) } else { no(says()) }
}

fn known_rules(rules: u32) -> Result<(), Objection> {
    if rules == RULES {
        return Ok(());
    }
    let says = format!(
        "follows rules {rules}; this component knows rules {RULES}: use the component that wrote it"
    );
    Err((LedgerFaultKind::Unsupported, says))
}

/// Tests a record against the state before it.
pub(crate) fn check(state: &State, record: &Record) -> Result<(), Objection> {
    let type_name = record.event.type_name();
    need(record.at_ms >= state.now_ms, || {
        format!("is at {}, before the record before it", record.at_ms)
    })?;
    need(record.cause.is_none_or(|cause| cause < record.seq), || {
        "names itself or a later record as its cause".into()
    })?;
    let first = matches!(record.event, Event::Genesis(_));
    need(first == state.configured.is_none(), || {
        format!("{type_name} is out of place at the head of the ledger")
    })?;
    match &record.event {
        Event::Genesis(data) => return known_rules(data.rules),
        Event::Configured(data) => {
            let same = state
                .config()
                .is_some_and(|config| config.domain == data.config.domain);
            return need(same, || "configures another domain".into());
        }
        Event::Created(data) => {
            known_rules(data.rules)?;
            let id = data.plan.coordination_id.as_str();
            let new = !state.live.contains(id) && !state.closed.contains(id);
            return need(new && record.coordination_id.as_deref() == Some(id), || {
                format!("{id} exists already")
            });
        }
        Event::MessageAcknowledged(data) => {
            let known = split_report_key(&data.key).and_then(|seq| state.index.reports.get(&seq));
            let same =
                known.is_some() && known.map(|id| &**id) == record.coordination_id.as_deref();
            return need(same, || format!("no report {} is awaited", data.key));
        }
        _ => {}
    }
    let id = record.coordination_id.as_deref().unwrap_or_default();
    let Some(coordination) = state.live.get(id) else {
        return no(format!(
            "{type_name} of {id:?}, which is no live coordination"
        ));
    };
    check_live(state, coordination, record)
}

fn check_live(
    state: &State,
    coordination: &Coordination,
    record: &Record,
) -> Result<(), Objection> {
    let type_name = record.event.type_name();
    let step = match record.step_id.as_deref() {
        None => None,
        Some(step_id) => match coordination.step_index(step_id) {
            Some(index) => Some(&coordination.steps[index]),
            None => return no(format!("{step_id} is no step of {}", coordination.id)),
        },
    };
    match (&record.event, step) {
        (Event::Terminal(_), None) => {
            let due = decide_terminal(coordination).map(|draft| draft.event);
            need(due.as_ref() == Some(&record.event), || {
                "ends a coordination that is not at its end, or not like this".into()
            })
        }
        (Event::CancelRequested(_), None) => {
            let open = coordination.cancel.is_none() && coordination.ended.is_none();
            need(open, || {
                "cancels a coordination that is final or cancelled".into()
            })
        }
        (Event::CancelRequested(_), Some(step)) => {
            let open = !step.state.is_final() && coordination.stop_of(step).is_none();
            need(open, || {
                format!("cancels {}, which is final or being ended", step.id)
            })
        }
        (Event::Undelivered(data), None) => check_report(coordination, &data.key, data.deliveries),
        (Event::Redelivered(data), None) => {
            check_report(coordination, &data.key, data.delivery.saturating_sub(1))
        }
        (_, Some(step)) => check_step(state, coordination, step, record),
        (_, None) => no(format!("{type_name} without a step")),
    }
}

fn check_report(coordination: &Coordination, key: &str, deliveries: u32) -> Result<(), Objection> {
    let report = split_report_key(key).and_then(|seq| coordination.report(seq));
    let awaited =
        report.is_some_and(|report| report.next_due_ms.is_some() && report.delivery == deliveries);
    need(awaited, || {
        format!("no report {key} with {deliveries} deliveries is awaited")
    })
}

fn check_step(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    record: &Record,
) -> Result<(), Objection> {
    let type_name = record.event.type_name();
    let attempt = record.attempt.unwrap_or_default();
    if matches!(record.event, Event::InputLate(_)) {
        let kept = step.kept(attempt).late;
        let ended = attempt >= 1
            && (attempt < step.attempt || attempt == step.attempt && step.state.is_final());
        return need(ended && kept < KEPT_INPUTS_AN_ATTEMPT_MAX, || {
            format!("attempt {attempt} has not ended")
        });
    }
    need(attempt == step.attempt, || {
        format!(
            "is of attempt {attempt}; the current one is {}",
            step.attempt
        )
    })?;
    let allowed = match &record.event {
        Event::Dispatched(data) => {
            let now_ms = record.at_ms;
            step.state.is_candidate()
                && step.ready_ms <= now_ms
                && !state.index.slots.is_full()
                && state.index.slots.session_has_room(&step.session)
                && (step.def.cleanup || !coordination.is_stopping())
                && data.deadline_ms == coordination.attempt_deadline_ms(step, now_ms)
        }
        Event::Acknowledged(_) => step.state == StepState::Dispatched,
        Event::Progress(_) => step.state.is_out(),
        Event::Completed(data) => {
            step.state.is_out() && data.implicit_ack == (step.state == StepState::Dispatched)
        }
        Event::Failed(_) => step.state.is_out() && coordination.stop_of(step).is_none(),
        Event::TimedOut(data) => match data.which {
            Which::Attempt => step.state.is_out(),
            Which::Plan => !step.def.cleanup && (step.state.is_out() || step.state.is_candidate()),
            Which::Cleanup => {
                step.def.cleanup && (step.state.is_out() || step.state.is_candidate())
            }
        },
        Event::RetryScheduled(data) => {
            let budget = coordination.plan.failure_policy.retry_budget;
            let left = budget.saturating_sub(coordination.retries_used);
            let within = if data.free {
                step.free_retries < FREE_RETRIES_MAX && data.budget_left == left
            } else {
                left > 0 && data.budget_left == left - 1
            };
            let in_time = coordination
                .retry_limit_ms(step)
                .is_none_or(|limit_ms| data.due_ms < limit_ms);
            step.state.is_out()
                && within
                && in_time
                && data.next_attempt == step.attempt + 1
                && coordination.stop_of(step).is_none()
        }
        Event::Cancelled(data) => {
            let stopped = coordination
                .stop_of(step)
                .is_some_and(|(_, by)| by == data.by);
            stopped && !step.state.is_final() && data.grace_used == step.state.is_out()
        }
        Event::Skipped(data) => match data.reason {
            SkipReason::Condition | SkipReason::UpstreamFailed => {
                let index = coordination.step_index(&step.id);
                index.is_some_and(|index| coordination.skippable.contains(&index))
            }
            SkipReason::FailFast => {
                let idle = !step.state.is_final() && !step.state.is_out();
                idle && coordination.trip.is_some() && !step.def.cleanup
            }
            SkipReason::PlanDeadline => step.state == StepState::Pending,
        },
        Event::Redelivered(data) => {
            let key = attempt_key(&coordination.id, &step.id, step.attempt);
            step.state == StepState::Dispatched
                && split_attempt_key(&data.key).is_some()
                && data.key == key
                && data.delivery == step.delivery + 1
        }
        Event::InputRejected(_) => step.kept(attempt).rejected < KEPT_INPUTS_AN_ATTEMPT_MAX,
        _ => false,
    };
    need(allowed, || {
        format!(
            "{type_name} is not allowed for {} while it is {}",
            step.id,
            step.state.name()
        )
    })
}
