//! Settling: what follows from the state by itself, until nothing follows any more.
//!
//! In this order: steps whose dependencies can no longer fire are skipped; what a stop ends at once is ended; free slots
//! are filled; coordinations without open steps become terminal. Ties by coordinationId, then stepId.
//! Takes no input and fires no timer.

use crate::child;
use crate::draft::Draft;
use crate::event::{
    Cancelled, CancelledBy, ExpiredReason, HumanExpired, SkipReason, Skipped, Terminal,
    TerminalReason, TerminalState,
};
use crate::plan::On;
use crate::state::{Coordination, Step, StepState};

/// Skips of steps that can no longer run.
pub(crate) fn decide_skips(coordination: &Coordination) -> Vec<Draft> {
    coordination
        .skippable
        .iter()
        .map(|index| decide_skip(coordination, &coordination.steps[*index]))
        .collect()
}

/// a skip is by condition if every dead dependency comes from a step that completed or was so skipped itself.
fn decide_skip(coordination: &Coordination, step: &Step) -> Draft {
    let mut dead = Vec::new();
    let mut cause = coordination.created_seq;
    let mut reason = SkipReason::Condition;
    for dependency in &step.def.depends_on {
        let Some(index) = coordination.step_index(&dependency.step_id) else {
            continue;
        };
        let parent = &coordination.steps[index];
        let fires = match dependency.on {
            On::Success => parent.state == StepState::Completed,
            On::Failure => matches!(parent.state, StepState::Failed | StepState::TimedOut),
            On::Always => true,
        };
        if !parent.state.is_final() || fires {
            continue;
        }
        dead.push(dependency.step_id.to_string());
        cause = cause.max(parent.ended.last().copied().unwrap_or(cause));
        if parent.state != StepState::Completed && parent.skipped != Some(SkipReason::Condition) {
            reason = SkipReason::UpstreamFailed;
        }
    }
    Draft::of_step(
        coordination,
        step,
        cause,
        Skipped {
            reason,
            depends_on: dead,
        },
    )
}

/// What a cancel of the plan or its failure policy ends at once: everything that is not out, except cleanup.
///
pub(crate) fn decide_stops(coordination: &Coordination) -> Vec<Draft> {
    let Some((stop, by)) = coordination
        .stop_at_work()
        .filter(|_| coordination.open_work > 0)
    else {
        return Vec::new();
    };
    let idle = |step: &&Step| {
        let asks = step.escalation.is_some();
        !step.def.cleanup && !step.state.is_final() && (asks || !step.is_out())
    };
    let end = |step: &Step| match by {
        // Out with a question: it goes on into its grace, and the question is over.
        _ if step.is_out() => void(coordination, step),
        CancelledBy::Cancel | CancelledBy::Parent => {
            let event = Cancelled {
                by,
                grace_used: false,
                content_digest: None,
            };
            Draft::of_step(coordination, step, stop.seq, event)
        }
        CancelledBy::FailFast => {
            let event = Skipped {
                reason: SkipReason::FailFast,
                depends_on: Vec::new(),
            };
            Draft::of_step(coordination, step, stop.seq, event)
        }
    };
    coordination.steps.iter().filter(idle).map(end).collect()
}

/// A question that is not waited for any more.
pub(crate) fn void(coordination: &Coordination, step: &Step) -> Draft {
    let open = step.escalation.as_ref();
    let event = HumanExpired {
        escalation_id: format!("e{}", open.map_or(0, |open| open.seq)),
        level: open.map_or(0, |open| open.level),
        fallback: None,
        reason: ExpiredReason::Voided,
    };
    let cause = open.map_or(step.last_seq, |open| open.requested_seq);
    Draft::of_step(coordination, step, cause, event)
}

/// the end of a coordination without open steps. One that waits for a person has an open step.
pub(crate) fn decide_terminal(coordination: &Coordination, now_ms: u64) -> Option<Draft> {
    if child::waits_until_ms(coordination).is_some_and(|until_ms| now_ms < until_ms) {
        return None;
    }
    if coordination.ended.is_some() || coordination.open_work + coordination.open_cleanup > 0 {
        return None;
    }
    let mut judge = Judge {
        coordination,
        handled: vec![None; coordination.steps.len()],
        spoiled: vec![None; coordination.steps.len()],
    };
    let work: Vec<usize> = (0..coordination.steps.len())
        .filter(|index| !coordination.steps[*index].def.cleanup)
        .collect();
    let good = work.iter().all(|index| judge.is_good(*index));
    let some = work
        .iter()
        .any(|index| coordination.steps[*index].state == StepState::Completed);
    let terminal = if coordination.cancel_bit {
        TerminalState::Failed
    } else if coordination.unanswered {
        TerminalState::Escalated
    } else if good {
        TerminalState::Success
    } else if coordination.trip.is_some() || !some {
        TerminalState::Failed
    } else {
        TerminalState::Partial
    };
    let reason = if coordination.cancel_bit {
        TerminalReason::Cancelled
    } else if coordination.unanswered {
        TerminalReason::Unanswered
    } else if coordination.trip.is_some() {
        TerminalReason::FailFast
    } else if coordination.expired.is_some() {
        TerminalReason::PlanDeadline
    } else {
        TerminalReason::StepsFailed
    };
    let event = Terminal {
        terminal,
        reason: (terminal != TerminalState::Success).then_some(reason),
        counts: coordination.counts,
        plan_digest: coordination.plan_digest.clone(),
    };
    Some(Draft::of_coordination(
        coordination,
        coordination.last_end_seq,
        event,
    ))
}

/// Whether the end of a step speaks against success.
struct Judge<'a> {
    coordination: &'a Coordination,
    handled: Vec<Option<bool>>,
    spoiled: Vec<Option<bool>>,
}

impl Judge<'_> {
    /// Completed, skipped by condition, or handled.
    fn is_good(&mut self, index: usize) -> bool {
        let step = &self.coordination.steps[index];
        match step.state {
            StepState::Completed => true,
            StepState::Failed | StepState::TimedOut => self.is_handled(index),
            StepState::Skipped => match step.skipped {
                Some(SkipReason::Condition) => true,
                Some(SkipReason::UpstreamFailed) => !self.is_spoiled(index),
                _ => false,
            },
            _ => false,
        }
    }

    /// A failed step is handled if a step on its failure edge completed or is itself handled.
    ///
    /// Walks without recursion: a plan may be a chain of ten thousand fallbacks, and the stack is small.
    fn is_handled(&mut self, index: usize) -> bool {
        let mut walk = vec![index];
        while let Some(&index) = walk.last() {
            if self.handled[index].is_some() {
                walk.pop();
                continue;
            }
            let fallbacks = self.fallbacks(index);
            let open: Vec<usize> = fallbacks
                .iter()
                .copied()
                .filter(|fallback| self.is_failed(*fallback) && self.handled[*fallback].is_none())
                .collect();
            if open.is_empty() {
                let handled = fallbacks.iter().any(|fallback| {
                    let completed =
                        self.coordination.steps[*fallback].state == StepState::Completed;
                    completed || self.handled[*fallback] == Some(true)
                });
                self.handled[index] = Some(handled);
                walk.pop();
            } else {
                walk.extend(open);
            }
        }
        self.handled[index].unwrap_or(false)
    }

    fn is_failed(&self, index: usize) -> bool {
        matches!(
            self.coordination.steps[index].state,
            StepState::Failed | StepState::TimedOut
        )
    }

    fn fallbacks(&self, index: usize) -> Vec<usize> {
        let children = &self.coordination.steps[index].children;
        children
            .iter()
            .filter(|(_, on)| *on == On::Failure)
            .map(|(child, _)| *child)
            .collect()
    }

    /// A skipped step is spoiled if a failed step that caused the skip is not handled. Without recursion, as above.
    fn is_spoiled(&mut self, index: usize) -> bool {
        let mut walk = vec![index];
        while let Some(&index) = walk.last() {
            if self.spoiled[index].is_some() {
                walk.pop();
                continue;
            }
            let causes = self.causes(index);
            let skipped = |step: &Step| step.skipped == Some(SkipReason::UpstreamFailed);
            let open: Vec<usize> = causes
                .iter()
                .copied()
                .filter(|cause| {
                    skipped(&self.coordination.steps[*cause]) && self.spoiled[*cause].is_none()
                })
                .collect();
            if open.is_empty() {
                let spoiled =
                    causes
                        .iter()
                        .any(|cause| match self.coordination.steps[*cause].state {
                            StepState::Failed | StepState::TimedOut => !self.is_handled(*cause),
                            StepState::Skipped => self.spoiled[*cause].unwrap_or(true),
                            _ => true,
                        });
                self.spoiled[index] = Some(spoiled);
                walk.pop();
            } else {
                walk.extend(open);
            }
        }
        self.spoiled[index].unwrap_or(true)
    }

    /// The steps whose end made this one impossible, other than by condition.
    fn causes(&self, index: usize) -> Vec<usize> {
        let step = &self.coordination.steps[index];
        let parents = step.def.depends_on.iter().filter_map(|dependency| {
            let parent = self.coordination.step_index(&dependency.step_id)?;
            let state = &self.coordination.steps[parent];
            let failed = matches!(state.state, StepState::Failed | StepState::TimedOut);
            let dead = match dependency.on {
                On::Success => state.state != StepState::Completed,
                On::Failure => !failed,
                On::Always => false,
            };
            let condition =
                state.state == StepState::Completed || state.skipped == Some(SkipReason::Condition);
            (dead && state.state.is_final() && !condition).then_some(parent)
        });
        parents.collect()
    }
}
