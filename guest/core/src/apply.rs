//! `apply`: what a record does to the state. It cannot refuse, and it is the only way in which state changes.
//!
//! Live and on replay the same code runs. Whether a record is allowed is tested before, in [`crate::legal`].

mod shared;

use shared::apply_shared;
pub(crate) use shared::{answer_digest, answer_key};

use crate::arbitration::OutcomeKind;
use crate::codec::Part::{Number, Text};
use crate::codec::{self, concat};
use crate::compact::{Seldom, push};
use crate::envelope::FailureClass;
use crate::event::{
    CancelledBy, Class, Completed, Counts, Created, Detected, Escalated, EscalationKind, Event,
    ExpiredReason, HumanDecided, HumanExpired, Name, Record, Resolved, RetryScheduled, SkipReason,
    Which,
};
use crate::id::{split_attempt_key, split_number, split_report_key};
use crate::message::{HookKind, HumanVerdict};
use crate::order::{self, Last, compare, same};
use crate::plan::{self, Fallback, Join, On, OnClose, Reports, TimeoutPolicy};
use crate::state::{
    Configured, Coordination, Def, Edge, Ended, Escalation, Grant, Reply, Report, State, Step,
    StepContest, StepHook, StepState, Stop,
};

const REPORT: &str = "report";
const ACK: &str = "ack";
const ESCALATE: &str = "escalate";
pub(crate) const EXECUTE: &str = "execute";
/// Who answers where a timeout stands for an approval.
const NOBODY: &str = "qm2:timeout";
/// What stands for the intent of a person's answer.
pub(crate) const ANSWER: &str = "answer";

/// Key of an identity within its step.
pub(crate) fn identity_key(attempt: u32, intent: &str, part: &str) -> String {
    concat(&[
        Number(attempt.into()),
        Text(":"),
        Text(intent),
        Text(":"),
        Text(part),
    ])
}

/// Applies a record whose line hashes to `hash`. The steps of a plan are taken out of it, since they are most of the state and
/// nobody asks the record for them again.
pub(crate) fn apply(state: &mut State, record: &mut Record, hash: String) {
    let steps = match &mut record.event {
        Event::Created(data) => std::mem::take(&mut data.plan.steps),
        _ => Vec::new(),
    };
    apply_rest(state, record, steps, hash);
}

/// The same, of a record without the steps of its plan.
fn apply_rest(state: &mut State, record: &Record, steps: Vec<plan::Step>, hash: String) {
    state.head.seq = record.seq;
    state.head.hash = hash;
    state.now_ms = record.at_ms;
    match &record.event {
        Event::Genesis(data) => configure(state, record, &data.config, &data.config_digest),
        Event::Configured(data) => configure(state, record, &data.config, &data.config_digest),
        Event::Created(data) => create(state, record, data, steps),
        Event::MessageAcknowledged(data) => acknowledge_report(state, record, &data.key),
        Event::Undelivered(data) => give_up_report(state, record, &data.key),
        Event::Redelivered(data) => {
            redeliver(state, record, &data.key, data.delivery, data.next_due_ms)
        }
        Event::CancelRequested(data) => request_cancel(state, record, data.grace_until_ms),
        Event::Terminal(data) => {
            let id = record.coordination_id.as_deref().unwrap_or_default();
            let ended = Ended {
                terminal: data.terminal,
                reason: data.reason,
                seq: record.seq,
            };
            state.edit_coordination(id, &mut |coordination| {
                coordination.ended = Some(ended.clone())
            });
            leave_parent(state, id);
            add_report(state, id, record, None, None);
        }
        Event::Added(data) => crate::added::apply(state, record, data),
        Event::Granted(_)
        | Event::Renewed(_)
        | Event::Released(_)
        | Event::Expired(_)
        | Event::Detected(_)
        | Event::Resolved(_)
        | Event::HookRequested(_)
        | Event::HookAnswered(_)
        | Event::Escalated(_)
        | Event::HumanRequested(_)
        | Event::HumanDecided(_)
        | Event::HumanExpired(_) => apply_shared(state, record),
        Event::Dispatched(_)
        | Event::Acknowledged(_)
        | Event::Progress(_)
        | Event::Completed(_)
        | Event::Failed(_)
        | Event::TimedOut(_)
        | Event::RetryScheduled(_)
        | Event::Cancelled(_)
        | Event::Skipped(_)
        | Event::InputLate(_)
        | Event::InputRejected(_) => apply_step(state, record),
    }
}

fn configure(state: &mut State, record: &Record, config: &crate::config::Config, digest: &str) {
    state
        .index
        .slots
        .set_widths(config.max_in_flight, config.session_in_flight);
    let known = state.config().map(|config| config.owners.as_slice());
    if known.unwrap_or_default() != config.owners {
        state.set_owners(&config.owners);
    }
    state.configured = Some(Configured {
        config: config.clone(),
        digest: digest.to_owned(),
        seq: record.seq,
    });
}

/// A plan comes to life. The deadline of a child is cut to its parent's.
fn create(state: &mut State, record: &Record, data: &Created, steps: Vec<plan::Step>) {
    let plan = data.plan.clone();
    let defs = order::sort(steps, |a, b| compare(&a.step_id, &b.step_id));
    let ids: Vec<Name> = defs.iter().map(|def| Name::from(&*def.step_id)).collect();
    // What the edges of each step lead to, and how many come to each.
    let mut edges: Vec<Vec<Edge>> = Vec::with_capacity(defs.len());
    let mut parents: Vec<(usize, usize, On)> = Vec::new();
    let mut counts = vec![0; defs.len()];
    for (child, def) in defs.iter().enumerate() {
        let edge = |dependency: &plan::Dependency| {
            let found = place_of(
                &ids,
                parents.last().map_or(0, |(parent, ..)| parent + 1),
                &dependency.step_id,
            );
            let step_id = match found {
                Some(parent) => {
                    counts[parent] += 1;
                    parents.push((parent, child, dependency.on));
                    ids[parent].clone()
                }
                None => Name::from(&*dependency.step_id),
            };
            Edge {
                step_id,
                on: dependency.on,
            }
        };
        edges.push(def.depends_on.iter().map(edge).collect());
    }
    let mut children: Vec<Vec<(usize, On)>> = counts.into_iter().map(Vec::with_capacity).collect();
    for (parent, child, on) in parents {
        children[parent].push((child, on));
    }
    let payload_bytes = defs.iter().map(plan::Step::payload_bytes).sum();
    let mut owned = Vec::new();
    for def in &defs {
        for resource in &def.owns {
            let session = Name::from(def.target_session.as_str());
            order::insert(&mut owned, (resource.clone(), session));
        }
    }
    let parent = plan.parent.as_ref();
    let above = parent.and_then(|parent| state.live.get(&parent.coordination_id));
    let deadline_ms = plan
        .deadline_ms
        .into_iter()
        .chain(above.and_then(|above| above.deadline_ms))
        .min();
    let depth = parent.zip(above).map_or(0, |(parent, above)| {
        let step = above.step_index(&parent.step_id);
        above.depth + 1 + step.map_or(0, |index| above.steps[index].depth)
    });
    let waited_for = parent
        .filter(|parent| parent.on_close == OnClose::Cancel)
        .map(|parent| parent.coordination_id.clone());
    let open_cleanup = defs.iter().filter(|def| def.cleanup).count();
    let open_work = defs.len() - open_cleanup;
    // Not collected: that would go into the room of the plan's steps, which are half as large again, and keep all of it.
    let mut steps = Vec::with_capacity(defs.len());
    let parts = defs.into_iter().zip(ids).zip(edges).zip(children);
    steps.extend(parts.map(|(((def, id), edges), children)| {
        new_step(Def::new(def, id, edges), children, record)
    }));
    let config = state.config();
    let coordination = Coordination {
        id: Name::from(plan.coordination_id.as_str()),
        owner: Name::from(plan.owner_session.as_str()),
        cancel_grace_ms: plan
            .cancel_grace_ms
            .or(config.map(|c| c.cancel_grace_ms))
            .unwrap_or_default(),
        cleanup_grace_ms: plan
            .cleanup_grace_ms
            .or(config.map(|c| c.cleanup_grace_ms))
            .unwrap_or_default(),
        plan,
        plan_digest: data.plan_digest.clone(),
        rules: data.rules,
        created_seq: record.seq,
        created_ms: record.at_ms,
        deadline_ms,
        depth,
        child_plans: Vec::new(),
        owned,
        steps,
        cancel: None,
        trip: None,
        expired: None,
        cancel_by_parent: false,
        cancel_bit: false,
        unanswered: false,
        retries_used: 0,
        last_end_seq: record.seq,
        last_end_ms: record.at_ms,
        counts: Counts::default(),
        open_work,
        open_cleanup,
        ended: None,
        reports: Vec::new(),
        payload_bytes,
        skippable: Vec::new(),
        last_step: Last::default(),
    };
    let id = coordination.id.clone();
    state.insert(coordination);
    if let Some(above) = waited_for.and_then(|above| state.live.get_mut(&above)) {
        order::insert(&mut above.child_plans, id);
    }
}

/// The place of an id in a sorted list. It is looked for at a likely place first: a step depends on steps that stand side by side.
fn place_of(ids: &[Name], likely: usize, id: &str) -> Option<usize> {
    if ids.get(likely).is_some_and(|known| same(known, id)) {
        return Some(likely);
    }
    ids.binary_search_by(|known| compare(known, id)).ok()
}

pub(crate) fn new_step(def: Def, children: Vec<(usize, On)>, record: &Record) -> Step {
    let state = if def.depends_on.is_empty() {
        StepState::Ready
    } else {
        StepState::Pending
    };
    Step {
        id: def.step_id.clone(),
        session: def.target_session.clone(),
        def,
        children,
        fired: 0,
        dead: 0,
        state,
        attempt: 1,
        ready_seq: record.seq,
        ready_ms: record.at_ms,
        dispatched_seq: 0,
        dispatched_ms: 0,
        last_seq: record.seq,
        deadline_ms: 0,
        ack_due_ms: None,
        delivery: 0,
        ended: Vec::new(),
        skipped: None,
        class: None,
        identities: Vec::new(),
        seldom: Seldom::default(),
    }
}

/// Applies a record of one step.
fn apply_step(state: &mut State, record: &Record) {
    let id = record.coordination_id.as_deref().unwrap_or_default();
    let step_id = record.step_id.as_deref().unwrap_or_default();
    let Some(index) = state.coordination(id).step_index(step_id) else {
        return;
    };
    let attempt = record.attempt.unwrap_or(1);
    let seq = record.seq;
    let remember = |step: &mut Step, part: &str, digest: &str| {
        step.remember(identity_key(attempt, REPORT, part), digest, seq);
    };
    match &record.event {
        Event::Dispatched(data) => {
            state.last_owner = Some(state.coordination(id).owner.clone());
            state.edit_step(id, index, &mut |step| {
                step.state = StepState::Dispatched;
                step.dispatched_seq = seq;
                step.dispatched_ms = record.at_ms;
                step.last_seq = seq;
                step.deadline_ms = data.deadline_ms;
                step.ack_due_ms = data.ack_deadline_ms;
                step.delivery = 1;
                if let Some(seldom) = step.seldom.set() {
                    seldom.contests.clear();
                }
            });
        }
        Event::Acknowledged(data) => state.edit_step(id, index, &mut |step| {
            step.state = StepState::Acknowledged;
            step.last_seq = seq;
            step.remember(identity_key(attempt, ACK, ""), &data.content_digest, seq);
        }),
        Event::Progress(data) => state.edit_step(id, index, &mut |step| {
            // whoever reports has begun.
            if step.state == StepState::Dispatched {
                step.state = StepState::Acknowledged;
            }
            step.last_seq = seq;
            remember(
                step,
                &format!("progress:{}", data.number),
                &data.content_digest,
            );
        }),
        Event::Completed(data) => {
            let end = |step: &mut Step| {
                step.state = StepState::Completed;
                // A person's word is no report: what the agent itself said of this attempt, if anything, stays its end.
                if data.by != ANSWER {
                    remember(step, "end", &data.content_digest);
                }
            };
            end_step(
                state,
                id,
                index,
                record,
                &end,
                &|counts| counts.completed += 1,
                Some(data),
            );
        }
        Event::Failed(data) => {
            let end = |step: &mut Step| {
                step.state = StepState::Failed;
                step.class = Some(match data.class {
                    Class::Retryable => FailureClass::Retryable,
                    Class::Permanent => FailureClass::Permanent,
                    _ => FailureClass::Unknown,
                });
                step.code = Some(data.code.clone());
                step.message = Some(data.message.clone());
                if let Some(digest) = &data.content_digest {
                    remember(step, "end", digest);
                }
            };
            end_step(
                state,
                id,
                index,
                record,
                &end,
                &|counts| counts.failed += 1,
                None,
            );
        }
        Event::TimedOut(data) => {
            let end = |step: &mut Step| {
                step.state = StepState::TimedOut;
                step.code = Some("timeout".into());
                step.message = Some(format!("no end before {}", data.deadline_ms));
            };
            end_step(
                state,
                id,
                index,
                record,
                &end,
                &|counts| counts.timed_out += 1,
                None,
            );
        }
        Event::Cancelled(data) => {
            let end = |step: &mut Step| {
                step.state = StepState::Cancelled;
                if let Some(digest) = &data.content_digest {
                    remember(step, "end", digest);
                }
            };
            end_step(
                state,
                id,
                index,
                record,
                &end,
                &|counts| counts.cancelled += 1,
                None,
            );
        }
        Event::Skipped(data) => {
            let end = |step: &mut Step| {
                step.state = StepState::Skipped;
                step.skipped = Some(data.reason);
            };
            end_step(
                state,
                id,
                index,
                record,
                &end,
                &|counts| counts.skipped += 1,
                None,
            );
        }
        Event::RetryScheduled(data) => schedule_retry(state, id, index, record, data),
        Event::InputLate(data) => state.edit_step(id, index, &mut |step| {
            step.keep(attempt, |kept| kept.late += 1);
            step.remember(
                identity_key(attempt, &data.intent, &data.part),
                &data.content_digest,
                seq,
            );
        }),
        Event::InputRejected(_) => state.edit_step(id, index, &mut |step| {
            step.keep(attempt, |kept| kept.rejected += 1);
        }),
        _ => {}
    }
}

/// Forgets the hook requests of a step that no longer waits for them; whether there were any.
fn drop_requests(state: &mut State, id: &str, index: usize) -> bool {
    let hooks = &state.live.get(id).expect("the coordination is live").steps[index].hooks;
    for hook in hooks {
        state.index.hooks.remove(&hook.seq);
    }
    !hooks.is_empty()
}

/// A step reached one of its five finals (M5, R-25).
fn end_step(
    state: &mut State,
    id: &str,
    index: usize,
    record: &Record,
    end: &dyn Fn(&mut Step),
    count: &dyn Fn(&mut Counts),
    result: Option<&Completed>,
) {
    let open = drop_requests(state, id, index);
    state.edit_step(id, index, &mut |step| {
        end(step);
        push(&mut step.ended, record.seq);
        step.last_seq = record.seq;
        let Some(seldom) = step.seldom.set() else {
            return;
        };
        seldom.preempted = None;
        if open {
            seldom.hooks.clear();
        }
        seldom.contests.clear();
        seldom.replies.clear();
        seldom.escalation = None;
    });
    state.step_ended(id, index, record, count);
    note_stop(state, id, index, record);
    resolve_edges(state, id, index, record);
    let coordination = state.coordination(id);
    let step = &coordination.steps[index];
    let wanted = match coordination.plan.reports {
        _ if step.added_by.is_some() => true,
        Reports::End => false,
        Reports::Failures => matches!(step.state, StepState::Failed | StepState::TimedOut),
        Reports::All => true,
    };
    if wanted {
        add_report(state, id, record, Some(index), result);
    }
}

/// A step's end may be the first sign of a stop: the failure policy trips, or the plan's deadline has passed.
///
fn note_stop(state: &mut State, id: &str, index: usize, record: &Record) {
    let coordination = state.coordination(id);
    let step = &coordination.steps[index];
    let at = |grace_ms: u64| {
        Some(Stop {
            seq: record.seq,
            at_ms: record.at_ms,
            grace_until_ms: record.at_ms.saturating_add(grace_ms),
        })
    };
    match &record.event {
        Event::Cancelled(data)
            if data.by != CancelledBy::FailFast && step.cancel.is_none() && !step.def.cleanup =>
        {
            state.edit_coordination(id, &mut |coordination| coordination.cancel_bit = true);
        }
        Event::TimedOut(data) if data.which == Which::Plan => expire(state, id, at(0)),
        Event::Skipped(data) if data.reason == SkipReason::PlanDeadline && !step.def.cleanup => {
            expire(state, id, at(0))
        }
        Event::Failed(_) | Event::TimedOut(_) if trips(coordination, index) => {
            let stop = at(coordination.cancel_grace_ms);
            state.edit_coordination(id, &mut |coordination| coordination.trip = stop);
        }
        _ => {}
    }
}

fn expire(state: &mut State, id: &str, stop: Option<Stop>) {
    if state.coordination(id).expired.is_none() {
        state.edit_coordination(id, &mut |coordination| coordination.expired = stop);
    }
}

/// whether the failure of this step stops the plan.
fn trips(coordination: &Coordination, index: usize) -> bool {
    let step = &coordination.steps[index];
    // A cancel of one step stops that step and nothing else.
    let cancelled = step.cancel.is_some();
    if coordination.is_stopping()
        || cancelled
        || step.def.cleanup
        || coordination.has_fallback(step)
    {
        return false;
    }
    // A fallback stands in for the step that it falls back for, however many of them follow each other.
    let mut seen = vec![false; coordination.steps.len()];
    let mut open = vec![index];
    while let Some(index) = open.pop() {
        let step = &coordination.steps[index];
        if coordination.plan.failure_policy.timeout_policy == TimeoutPolicy::FailFast
            || step.def.required
        {
            return true;
        }
        for dependency in step
            .def
            .depends_on
            .iter()
            .filter(|dependency| dependency.on == On::Failure)
        {
            let Some(parent) = coordination.step_index(&dependency.step_id) else {
                continue;
            };
            let failed = matches!(
                coordination.steps[parent].state,
                StepState::Failed | StepState::TimedOut
            );
            if failed && !std::mem::replace(&mut seen[parent], true) {
                open.push(parent);
            }
        }
    }
    false
}

/// Tells the steps that depend on this one how it ended.
fn resolve_edges(state: &mut State, id: &str, index: usize, record: &Record) {
    let ended = state.coordination(id).steps[index].state;
    let mut next = 0;
    while let Some((child, on)) = state.coordination(id).steps[index]
        .children
        .get(next)
        .copied()
    {
        next += 1;
        let fires = match on {
            On::Success => ended == StepState::Completed,
            On::Failure => matches!(ended, StepState::Failed | StepState::TimedOut),
            On::Always => true,
        };
        let coordination = state.coordination(id);
        let step = &coordination.steps[child];
        // What a stop ends is ended by it, and not by the ends of others that it brings about.
        let open = if step.def.cleanup {
            let until_ms = coordination.cleanup_until_ms();
            until_ms.is_none_or(|until_ms| record.at_ms < until_ms)
        } else {
            !coordination.is_stopping()
        };
        let (fired, dead) = (
            step.fired + usize::from(fires),
            step.dead + usize::from(!fires),
        );
        let all = step.def.depends_on.len();
        let pending = step.state == StepState::Pending && open;
        let (ready, hopeless) = match step.def.join {
            Join::All => (fired == all, dead > 0),
            Join::Any => (fired > 0, dead == all),
        };
        state.edit_step(id, child, &mut |step| {
            (step.fired, step.dead) = (fired, dead);
            if pending && ready {
                step.state = StepState::Ready;
                step.ready_seq = record.seq;
                step.ready_ms = record.at_ms;
            }
        });
        if pending && hopeless {
            let coordination = state.live.get_mut(id).expect("the coordination is live");
            order::insert(&mut coordination.skippable, child);
        }
    }
}

/// The next attempt under a new key (M4). Only what is not free counts.
fn schedule_retry(
    state: &mut State,
    id: &str,
    index: usize,
    record: &Record,
    data: &RetryScheduled,
) {
    let attempt = record.attempt.unwrap_or(1);
    if !data.free {
        state
            .live
            .get_mut(id)
            .expect("the coordination is live")
            .retries_used += 1;
    }
    state.edit_step(id, index, &mut |step| {
        step.state = StepState::RetryWait;
        push(&mut step.ended, record.seq);
        step.last_seq = record.seq;
        step.attempt = data.next_attempt;
        step.ready_seq = record.seq;
        step.ready_ms = data.due_ms;
        begin_attempt(step);
        step.code = Some(data.code.clone());
        step.message = Some(data.message.clone());
        if data.free {
            step.free_retries += 1;
        } else {
            step.retries += 1;
        }
        if let Some(digest) = &data.content_digest {
            step.remember(identity_key(attempt, REPORT, "end"), digest, record.seq);
        }
    });
}

/// Forgets what belonged to the attempt before (M4).
fn begin_attempt(step: &mut Step) {
    step.ack_due_ms = None;
    step.delivery = 0;
    step.preempted = None;
    step.cleared = false;
    step.approved = false;
    step.contests.clear();
    step.replies.clear();
}

/// From here on the plan, or the step, is being stopped, also after a restart.
fn request_cancel(state: &mut State, record: &Record, grace_until_ms: u64) {
    let id = record.coordination_id.as_deref().unwrap_or_default();
    let stop = Some(Stop {
        seq: record.seq,
        at_ms: record.at_ms,
        grace_until_ms,
    });
    match record
        .step_id
        .as_deref()
        .and_then(|step_id| state.coordination(id).step_index(step_id))
    {
        Some(index) => state.edit_step(id, index, &mut |step| step.cancel = stop),
        None => state.edit_coordination(id, &mut |coordination| {
            coordination.cancel = stop;
            // Its owner's cancel follows from the plan itself; that of a parent from a record of the parent.
            coordination.cancel_by_parent = record.cause != Some(coordination.created_seq);
        }),
    }
}

fn redeliver(state: &mut State, record: &Record, key: &str, delivery: u32, next_due_ms: u64) {
    let id = record.coordination_id.as_deref().unwrap_or_default();
    if let Some(seq) = split_report_key(key) {
        state.edit_report(id, seq, &mut |report| {
            report.map(|report| Report {
                delivery,
                next_due_ms: Some(next_due_ms),
                ..report
            })
        });
        return;
    }
    let index = split_attempt_key(key)
        .and_then(|(_, step_id, _)| state.coordination(id).step_index(step_id));
    if let Some(index) = index {
        state.edit_step(id, index, &mut |step| {
            step.delivery = delivery;
            step.ack_due_ms = Some(next_due_ms);
        });
    }
}

/// Notes that the owner is to be told of this record.
fn add_report(
    state: &mut State,
    id: &str,
    record: &Record,
    step: Option<usize>,
    result: Option<&Completed>,
) {
    let wait_ms = state.config().map_or(0, |config| config.ack_timeout_ms);
    let report = Report {
        step,
        attempt: record.attempt.unwrap_or_default(),
        at_ms: record.at_ms,
        delivery: 1,
        next_due_ms: Some(record.at_ms + wait_ms),
        result: result.cloned(),
    };
    state.edit_report(id, record.seq, &mut |_| Some(report.clone()));
}

fn acknowledge_report(state: &mut State, record: &Record, key: &str) {
    let id = record.coordination_id.as_deref().unwrap_or_default();
    let Some(seq) = split_report_key(key) else {
        return;
    };
    if state.closed.acknowledge(id, seq) {
        state.index.reports.remove(&seq);
        return;
    }
    state.edit_report(id, seq, &mut |_| None);
    state.close_if_done(id);
}

fn give_up_report(state: &mut State, record: &Record, key: &str) {
    let id = record.coordination_id.as_deref().unwrap_or_default();
    let Some(seq) = split_report_key(key) else {
        return;
    };
    state.edit_report(id, seq, &mut |report| {
        report.map(|report| Report {
            next_due_ms: None,
            ..report
        })
    });
    state.close_if_done(id);
}

/// A plan that has ended is waited for no longer.
fn leave_parent(state: &mut State, id: &str) {
    let plan = &state.coordination(id).plan;
    let Some(above) = plan
        .parent
        .as_ref()
        .map(|parent| parent.coordination_id.clone())
    else {
        return;
    };
    let name = state.coordination(id).id.clone();
    if state.live.contains(&above) {
        state.edit_coordination(&above, &mut |above| {
            order::remove(&mut above.child_plans, &name)
        });
    }
}
