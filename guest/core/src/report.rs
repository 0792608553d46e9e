//! Reports to owners: an owner says that it has read one.
//!
//! When a report arises is in [`crate::apply`], how it is sent in [`crate::effect`], and when it is sent again in
//! [`crate::deadline`].

use crate::decision::Decision;
use crate::draft::Draft;
use crate::event::MessageAcknowledged;
use crate::id::split_report_key;
use crate::message::Caller;
use crate::receipt::{Rejection, RejectionCode};
use crate::state::State;

/// Decides one acknowledged key.
pub(crate) fn decide_acknowledge(state: &State, caller: &Caller, key: &str) -> Decision {
    let unknown = || {
        let says = format!("{key} is not the key of a report");
        Decision::refuse(Rejection::new(RejectionCode::UnknownKey, "key", says))
    };
    let Some(seq) = split_report_key(key) else {
        return unknown();
    };
    let Some(id) = state.index.reports.get(&seq) else {
        // What is not awaited any more was acknowledged before, or never was a report; both change nothing.
        return if seq <= state.head.seq && seq > 0 {
            Decision::replay("acknowledged")
        } else {
            unknown()
        };
    };
    let live = state
        .live
        .get(id)
        .map(|live| (live.told_by(seq).to_owned(), live.plan.trace.clone()));
    let Some((owner, trace)) = live.or_else(|| {
        state
            .closed
            .get(id)
            .map(|closed| (closed.told_by(seq).to_owned(), Default::default()))
    }) else {
        return unknown();
    };
    if owner != caller.session {
        let says = format!("{key} is for {owner}; the caller is {}", caller.session);
        return Decision::refuse(Rejection::new(
            RejectionCode::UnauthorizedSession,
            "key",
            says,
        ));
    }
    let event = MessageAcknowledged {
        key: key.to_owned(),
        session: caller.session.clone(),
    };
    let (coordination, cause) = (Some(id.clone()), Some(seq));
    Decision::accept(vec![Draft {
        coordination,
        step: None,
        attempt: None,
        cause,
        trace,
        event: event.into(),
    }])
}
