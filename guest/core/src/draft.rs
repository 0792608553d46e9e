//! A record before it has a number, a time and a hash.
//!
//! `decide_*` functions make drafts from a state that they do not change; [`crate::machine`] turns them into records.

use crate::envelope::Trace;
use crate::event::{Event, Name};
use crate::state::{Coordination, Step};

/// What is to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) coordination: Option<Name>,
    pub(crate) step: Option<Name>,
    pub(crate) attempt: Option<u32>,
    pub(crate) cause: Option<u64>,
    pub(crate) trace: Trace,
    pub(crate) event: Event,
}

impl Draft {
    /// A record of the domain.
    pub(crate) fn of_domain(cause: Option<u64>, event: impl Into<Event>) -> Self {
        let event = event.into();
        Self {
            coordination: None,
            step: None,
            attempt: None,
            cause,
            trace: Trace::default(),
            event,
        }
    }

    /// A record of a coordination, under the trace of its plan.
    pub(crate) fn of_coordination(
        coordination: &Coordination,
        cause: u64,
        event: impl Into<Event>,
    ) -> Self {
        Self::of(coordination, None, cause, event.into())
    }

    // One copy for all types of events.
    #[inline(never)]
    fn of(coordination: &Coordination, step: Option<&Step>, cause: u64, event: Event) -> Self {
        Self {
            coordination: Some(coordination.id.clone()),
            step: step.map(|step| step.id.clone()),
            attempt: step.map(|step| step.attempt),
            cause: Some(cause),
            trace: coordination.plan.trace.clone(),
            event,
        }
    }

    /// A record of the current attempt of a step, under the trace of its plan.
    pub(crate) fn of_step(
        coordination: &Coordination,
        step: &Step,
        cause: u64,
        event: impl Into<Event>,
    ) -> Self {
        Self::of(coordination, Some(step), cause, event.into())
    }

    /// Under the trace of the envelope that led here, where it has one.
    pub(crate) fn traced(mut self, trace: &Trace) -> Self {
        if !trace.is_empty() {
            self.trace = trace.clone();
        }
        self
    }

    /// For another attempt than the current one.
    pub(crate) fn for_attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }
}
