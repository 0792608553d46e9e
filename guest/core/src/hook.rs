//! Hooks: a host is asked before an attempt goes out and before a contest is decided, and answers later.
//!
//! | verdict | before_dispatch | before_arbitrate |
//! |---|---|---|
//! | no_opinion | on to claims and dispatch | the contest is decided as the policy says |
//! | deny, no answer in time | step.failed(denied) | conflict.resolved(refused), step.failed(denied) |
//! | review | a person is asked; where nobody is, as deny | conflict.resolved(review), a person is asked |
//!
//! Which handlers there are, and their order, is the host's; see the harness.

use crate::arbitration::{OutcomeKind, Stage};
use crate::codec::{canonical, object};
use crate::contest;
use crate::decision::Decision;
use crate::digest::sha256_hex;
use crate::dispatch;
use crate::draft::Draft;
use crate::envelope::{PayloadRef, Priority};
use crate::escalation;
use crate::event::{Detected, EscalationKind, HookAnswered, HookRequested};
use crate::id::{check_bytes, split_number};
use crate::limit::{SESSION_BYTES_MAX, TEXT_BYTES_MAX};
use crate::message::{HookKind, HookVerdict};
use crate::plan::Risk;
use crate::receipt::{Rejection, RejectionCode};
use crate::state::{Coordination, State, Step, StepHook};

/// Whether the configuration names a kind.
pub(crate) fn is_registered(state: &State, kind: HookKind) -> bool {
    state
        .config()
        .is_some_and(|config| config.hooks.contains(&kind))
}

struct DispatchSubject<'a> {
    coordination_id: &'a str,
    step_id: &'a str,
    attempt: u32,
    owner_session: &'a str,
    target_session: &'a str,
    objective: &'a str,
    priority: Priority,
    risk: Risk,
    content_type: Option<&'a String>,
    payload: Option<&'a String>,
    payload_ref: Option<&'a PayloadRef>,
    claims: &'a [crate::claim::Claim],
    plan_digest: &'a str,
}

object!(write DispatchSubject<'a> {
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "attempt": req attempt,
    "ownerSession": req owner_session,
    "targetSession": req target_session,
    "objective": req objective,
    "priority": req priority,
    "risk": req risk,
    "contentType": opt content_type,
    "payload": opt payload,
    "payloadRef": opt payload_ref,
    "claims": req claims,
    "planDigest": req plan_digest,
});

/// What before_dispatch is asked about.
fn dispatch_subject(coordination: &Coordination, step: &Step) -> String {
    canonical(&DispatchSubject {
        coordination_id: &coordination.id,
        step_id: &step.id,
        attempt: step.attempt,
        owner_session: &coordination.owner,
        target_session: &step.session,
        objective: &coordination.plan.objective,
        priority: step.def.priority,
        risk: step.def.risk,
        content_type: step.def.content_type.as_ref(),
        payload: step.def.payload.as_ref(),
        payload_ref: step.def.payload_ref.as_ref(),
        claims: &step.def.claims,
        plan_digest: &coordination.plan_digest,
    })
}

struct ContestSubject<'a> {
    coordination_id: &'a str,
    step_id: &'a str,
    attempt: u32,
    contest: &'a Detected,
}

object!(write ContestSubject<'a> {
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "attempt": req attempt,
    "contest": req contest,
});

/// What before_arbitrate is asked about.
pub(crate) fn contest_subject(
    coordination: &Coordination,
    step: &Step,
    contest: &Detected,
) -> String {
    canonical(&ContestSubject {
        coordination_id: &coordination.id,
        step_id: &step.id,
        attempt: step.attempt,
        contest,
    })
}

/// What an open request is about.
pub(crate) fn subject(coordination: &Coordination, step: &Step, hook: &StepHook) -> String {
    let known = step
        .contests
        .iter()
        .find(|contest| Some(contest.seq) == hook.contest);
    match known {
        Some(contest) => contest_subject(coordination, step, &contest.detected),
        None => dispatch_subject(coordination, step),
    }
}

/// The record that asks. `seq` is its own number.
#[allow(clippy::too_many_arguments)]
pub(crate) fn request(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    kind: HookKind,
    subject: &str,
    now_ms: u64,
    cause: u64,
    seq: u64,
) -> Draft {
    let wait_ms = state.config().map_or(0, |config| config.hook_timeout_ms);
    let event = HookRequested {
        hook_id: format!("h{seq}"),
        kind,
        subject_digest: sha256_hex(&[subject.as_bytes()]),
        due_ms: now_ms + wait_ms,
    };
    Draft::of_step(coordination, step, cause, event)
}

/// Asks whether a step may go out.
pub(crate) fn ask_dispatch(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    now_ms: u64,
) -> Draft {
    let subject = dispatch_subject(coordination, step);
    let (kind, cause) = (HookKind::BeforeDispatch, step.ready_seq);
    let seq = state.next_seq();
    request(
        state,
        coordination,
        step,
        kind,
        &subject,
        now_ms,
        cause,
        seq,
    )
}

/// Decides the word of the hooks.
pub(crate) fn decide_verdict(
    state: &State,
    now_ms: u64,
    hook_id: &str,
    handler: &str,
    verdict: &HookVerdict,
) -> Decision {
    let refuse = |field: &str, says: String| {
        Decision::refuse(Rejection::new(RejectionCode::InvalidField, field, says))
    };
    if let Err(says) = check_bytes(handler, 1, SESSION_BYTES_MAX) {
        return refuse("handler", says);
    }
    if let HookVerdict::Deny(reason) = verdict
        && let Err(says) = check_bytes(reason, 0, TEXT_BYTES_MAX)
    {
        return refuse("verdict.deny", says);
    }
    let seq = split_number(hook_id, 'h').unwrap_or_default();
    let Some((coordination, step)) = state
        .index
        .hooks
        .get(&seq)
        .and_then(|place| contest::step_at(state, place))
    else {
        // What is not awaited any more was answered, was too late, or never was; all of that changes nothing.
        if (1..=state.head.seq).contains(&seq) {
            return Decision::replay("answered");
        }
        let says = format!("{hook_id} is no request of a hook");
        return Decision::refuse(Rejection::new(RejectionCode::UnknownKey, "hookId", says));
    };
    match step.hooks.iter().find(|hook| hook.seq == seq) {
        Some(hook) => Decision::accept(answered(
            state,
            coordination,
            step,
            hook,
            handler,
            verdict,
            now_ms,
        )),
        None => Decision::replay(step.state.name()),
    }
}

/// The records of a verdict and of what follows.
pub(crate) fn answered(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    hook: &StepHook,
    handler: &str,
    verdict: &HookVerdict,
    now_ms: u64,
) -> Vec<Draft> {
    let seq = state.next_seq();
    let (word, reason) = match verdict {
        HookVerdict::NoOpinion => ("no_opinion", None),
        HookVerdict::Deny(reason) => ("deny", Some(reason.clone())),
        HookVerdict::Review => ("review", None),
    };
    let event = HookAnswered {
        hook_id: format!("h{}", hook.seq),
        handler: handler.to_owned(),
        verdict: word.to_owned(),
        reason,
    };
    let mut drafts = vec![Draft::of_step(coordination, step, hook.seq, event)];
    let denied = |says: &str| {
        let message = format!("{handler} says: {says}");
        contest::fail(coordination, step, seq, "denied", message)
    };
    let known = step
        .contests
        .iter()
        .find(|contest| Some(contest.seq) == hook.contest);
    let Some(known) = known else {
        match verdict {
            // Where too many are out already it stands in line again, cleared.
            HookVerdict::NoOpinion if !state.index.slots.keeps_room(&step.session) => {}
            HookVerdict::NoOpinion => {
                let after = dispatch::go_on(state, coordination, step, now_ms, seq + 1);
                drafts.extend(after);
            }
            HookVerdict::Deny(says) => drafts.push(denied(says)),
            HookVerdict::Review if !coordination.asks() => {
                drafts.push(denied(
                    "a person has to look at it, and the plan asks nobody",
                ));
            }
            HookVerdict::Review => {
                let question = format!(
                    "{handler} wants a person to look at {}. May it run?",
                    step.id
                );
                let kind = EscalationKind::Review;
                let asked =
                    escalation::open(coordination, step, kind, question, now_ms, seq, seq + 1);
                drafts.extend(asked);
            }
        }
        return drafts;
    };
    let mut decision = contest::decide(&known.detected, known.at_ms);
    let outcome = match verdict {
        HookVerdict::NoOpinion => contest::outcome(coordination, &decision),
        HookVerdict::Deny(_) => OutcomeKind::Refused,
        HookVerdict::Review if !coordination.asks() => OutcomeKind::Refused,
        HookVerdict::Review => OutcomeKind::Review,
    };
    if !matches!(verdict, HookVerdict::NoOpinion) {
        decision.stage = Stage::Hook;
        decision.reason = format!("{handler} says {word}");
    }
    // Nobody's work is ended for a step that may yet fail over another contest.
    let outcome = match outcome {
        OutcomeKind::Preempts if step.contests.len() > 1 => OutcomeKind::Waits,
        outcome => outcome,
    };
    let record = contest::resolved(step, &known.detected.contest_id, decision, outcome);
    drafts.push(Draft::of_step(coordination, step, seq, record));
    if outcome == OutcomeKind::Preempts {
        contest::void_questions(state, &known.detected, &mut drafts);
    }
    if let HookVerdict::Deny(says) = verdict {
        drafts.push(denied(says));
        return drafts;
    }
    if step.hooks.len() > 1 {
        return drafts;
    }
    let mut outcomes: Vec<OutcomeKind> = step
        .contests
        .iter()
        .filter_map(|contest| contest.outcome)
        .collect();
    outcomes.push(outcome);
    // It has stood in the order since; whether it is its turn is seen there, also for what was granted beside others.
    for outcome in &mut outcomes {
        if *outcome == OutcomeKind::Granted {
            *outcome = OutcomeKind::Waits;
        }
    }
    let resources: Vec<&str> = step
        .contests
        .iter()
        .map(|contest| contest.detected.resource.as_str())
        .collect();
    let met = contest::tokens_met(step.contests.iter().map(|contest| &contest.detected));
    let after = contest::follow(
        state,
        coordination,
        step,
        &outcomes,
        &resources,
        &met,
        now_ms,
        seq + 1,
        seq + drafts.len() as u64,
        seq,
    );
    drafts.extend(after);
    drafts
}
