//! What records about shared things do: grants, contests, hook requests, questions to people.
//!
//! The other half of [`crate::apply`]; decides nothing either.

use super::*;

/// Applies a record about what steps share: resources, hooks, people.
pub(crate) fn apply_shared(state: &mut State, record: &Record) {
    let id = record.coordination_id.as_deref().unwrap_or_default();
    let step_id = record.step_id.as_deref().unwrap_or_default();
    let Some(index) = state.coordination(id).step_index(step_id) else {
        return;
    };
    let (seq, at_ms) = (record.seq, record.at_ms);
    match &record.event {
        Event::Granted(data) => {
            let grant = Grant {
                token: seq,
                resource: data.resource.clone(),
                mode: data.mode,
                since_ms: at_ms,
                lease_ms: data.lease_ms,
                expires_ms: data.expires_ms,
                base_version: data.base_version.clone(),
                regions: data.regions.clone(),
            };
            state.add_grant(id, index, &grant);
        }
        Event::Renewed(data) => state.edit_step(id, index, &mut |step| {
            for grant in &mut step.grants {
                if data.tokens.contains(&grant.token) {
                    grant.expires_ms = data.expires_ms;
                }
            }
        }),
        Event::Released(data) => state.remove_grants(id, index, &data.tokens),
        Event::Expired(data) => state.remove_grants(id, index, &[data.token]),
        Event::Detected(data) => state.edit_step(id, index, &mut |step| {
            step.claim_number.get_or_insert(seq);
            let contest = StepContest {
                seq,
                at_ms,
                detected: Detected::clone(data),
                outcome: None,
            };
            step.contests.push(contest);
        }),
        Event::Resolved(data) => resolve(state, id, index, record, data),
        Event::HookRequested(data) => {
            let step = &state.coordination(id).steps[index];
            let contest = step.contests.last().map(|contest| contest.seq);
            let hook = StepHook {
                seq,
                kind: data.kind,
                due_ms: data.due_ms,
                contest: contest.filter(|_| data.kind == HookKind::BeforeArbitrate),
            };
            let place = (Name::from(id), step.id.clone());
            state.index.hooks.insert(seq, place);
            state.edit_step(id, index, &mut |step| {
                step.hooks.push(hook.clone());
                step.state = StepState::WaitingHook;
            });
        }
        Event::HookAnswered(data) => {
            let hook = split_number(&data.hook_id, 'h').unwrap_or_default();
            state.index.hooks.remove(&hook);
            let go_on = data.verdict == "no_opinion";
            state.edit_step(id, index, &mut |step| {
                step.hooks.retain(|open| open.seq != hook);
                if step.contests.is_empty() && go_on {
                    step.cleared = true;
                    step.state = StepState::Ready;
                }
            });
        }
        Event::Escalated(data) => escalate(state, id, index, record, data),
        Event::HumanRequested(data) => state.edit_step(id, index, &mut |step| {
            if let Some(escalation) = &mut step.escalation {
                escalation.level = data.level;
                escalation.requested_seq = seq;
                escalation.due_ms = Some(data.due_ms);
            }
        }),
        Event::HumanDecided(data) => decided(state, id, index, record, data),
        Event::HumanExpired(data) => expired(state, id, index, record, data),
        _ => {}
    }
}

/// A contest was decided for this step; and perhaps against those that hold the resource.
fn resolve(state: &mut State, id: &str, index: usize, record: &Record, data: &Resolved) {
    let outcome = data.outcomes.first().map(|outcome| outcome.outcome);
    let contest = split_number(&data.contest_id, 'c').unwrap_or_default();
    let mut victims = Vec::new();
    state.edit_step(id, index, &mut |step| {
        for known in step
            .contests
            .iter_mut()
            .filter(|known| known.seq == contest)
        {
            known.outcome = outcome;
            if outcome == Some(OutcomeKind::Preempts) {
                victims = known.detected.holders.clone();
            }
        }
        let waits = outcome != Some(OutcomeKind::Granted) || step.state == StepState::WaitingHook;
        if step.hooks.is_empty() && waits && step.state != StepState::WaitingClaim {
            step.state = StepState::WaitingClaim;
        }
    });
    for victim in victims {
        let Some(token) = victim.token else { continue };
        let Some((id, step_id)) = state.index.claims.holder(token).cloned() else {
            continue;
        };
        let coordination = state.coordination(&id);
        let Some(index) = coordination.step_index(&step_id) else {
            continue;
        };
        if coordination.steps[index].preempted.is_some() {
            continue;
        }
        let stop = Stop {
            seq: record.seq,
            at_ms: record.at_ms,
            grace_until_ms: record.at_ms + coordination.cancel_grace_ms,
        };
        state.edit_step(&id, index, &mut |step| step.preempted = Some(stop));
    }
}

/// A question was opened; perhaps by the end of an attempt.
fn escalate(state: &mut State, id: &str, index: usize, record: &Record, data: &Escalated) {
    let seq = record.seq;
    let attempt = record.attempt.unwrap_or(1);
    let place = (
        Name::from(id),
        state.coordination(id).steps[index].id.clone(),
    );
    state.index.escalations.insert(seq, place);
    let ended = matches!(
        data.kind,
        EscalationKind::Exhausted | EscalationKind::UnknownEffect
    );
    state.edit_step(id, index, &mut |step| {
        step.state = StepState::WaitingHuman;
        step.asked.push(seq);
        step.escalation = Some(Escalation {
            seq,
            at_ms: record.at_ms,
            kind: data.kind,
            question: data.question.clone(),
            digest: data.digest.clone(),
            number: data.number,
            level: 0,
            requested_seq: seq,
            due_ms: None,
            approvals: Vec::new(),
            class: data.class,
        });
        if ended {
            step.ended.push(seq);
            step.delivery = 0;
            step.ack_due_ms = None;
            step.preempted = None;
            step.code.clone_from(&data.code);
            step.message.clone_from(&data.message);
        }
        step.last_seq = seq;
        let part = data.number.map(|number| format!("escalate:{number}"));
        let (intent, part) = match &part {
            Some(part) => (ESCALATE, part.as_str()),
            None => (REPORT, "end"),
        };
        if let Some(digest) = &data.content_digest {
            step.remember(identity_key(attempt, intent, part), digest, seq);
        }
    });
}

/// The step goes on after its question.
fn go_on(step: &mut Step, record: &Record, plan_deadline_ms: Option<u64>) {
    let Some(escalation) = step.escalation.take() else {
        return;
    };
    match escalation.kind {
        EscalationKind::Review => {
            step.cleared = true;
            step.state = StepState::Ready;
            step.ready_seq = record.seq;
            step.ready_ms = record.at_ms;
        }
        EscalationKind::Conflict => {
            step.approved = true;
            step.state = StepState::WaitingClaim;
        }
        EscalationKind::Exhausted | EscalationKind::UnknownEffect => {
            step.attempt += 1;
            begin_attempt(step);
            step.state = StepState::Ready;
            step.ready_seq = record.seq;
            step.ready_ms = record.at_ms;
            step.last_seq = record.seq;
        }
        EscalationKind::Question => resume(step, &escalation, record, plan_deadline_ms),
    }
}

/// the attempt's clock and its leases go on where they stood when the question was asked.
fn resume(
    step: &mut Step,
    escalation: &Escalation,
    record: &Record,
    plan_deadline_ms: Option<u64>,
) {
    let waited_ms = record.at_ms - escalation.at_ms;
    step.state = StepState::Acknowledged;
    let deadline_ms = step.deadline_ms + waited_ms;
    step.deadline_ms = plan_deadline_ms.map_or(deadline_ms, |plan| {
        // A cleanup step may already stand past the plan's deadline.
        deadline_ms.min(plan.max(step.deadline_ms))
    });
    for grant in &mut step.grants {
        grant.expires_ms += waited_ms;
    }
}

/// Key of a person's answer among the identities of its step.
pub(crate) fn answer_key(attempt: u32, escalation_id: &str, actor: &str) -> String {
    identity_key(attempt, ANSWER, &format!("{escalation_id}:{actor}"))
}

/// SHA-256 over what a person said.
pub(crate) fn answer_digest(verdict: HumanVerdict, text: Option<&str>) -> String {
    codec::digest(&(verdict, text.unwrap_or_default()))
}

fn decided(state: &mut State, id: &str, index: usize, record: &Record, data: &HumanDecided) {
    let plan_deadline_ms = state.coordination(id).deadline_ms;
    let attempt = record.attempt.unwrap_or(1);
    let digest = answer_digest(data.verdict, data.text.as_deref());
    let key = answer_key(attempt, &data.escalation_id, &data.actor);
    state.edit_step(id, index, &mut |step| {
        let Some(escalation) = &mut step.escalation else {
            return;
        };
        if data.verdict == HumanVerdict::Approve {
            escalation.approvals.push(data.actor.clone());
        }
        let (kind, class) = (escalation.kind, escalation.class);
        let question = kind == EscalationKind::Question;
        // The words of a denial are in the failure; only an approval goes to the session.
        let approved = data.verdict == HumanVerdict::Approve;
        if data.is_final && question && approved {
            let escalation = step.asked.last().copied().unwrap_or_default();
            step.replies.push(Reply {
                seq: record.seq,
                escalation,
                at_ms: record.at_ms,
                actor: data.actor.clone(),
                text: data.text.clone().unwrap_or_default(),
            });
        }
        match data.verdict {
            HumanVerdict::Approve if data.is_final => go_on(step, record, plan_deadline_ms),
            HumanVerdict::Approve => {}
            // What was denied, or had happened, ends with the next record.
            HumanVerdict::Deny | HumanVerdict::Completed => {
                if let Some(escalation) = step.escalation.take().filter(|_| question) {
                    resume(step, &escalation, record, plan_deadline_ms);
                }
            }
        }
        // The receipt has the state after all records of the answer.
        let after = match data.verdict {
            HumanVerdict::Approve => step.state,
            HumanVerdict::Completed => StepState::Completed,
            HumanVerdict::Deny
                if kind == EscalationKind::Exhausted && class == Some(Class::Timeout) =>
            {
                StepState::TimedOut
            }
            HumanVerdict::Deny => StepState::Failed,
        };
        step.remember_as(key.clone(), &digest, record.seq, after);
    });
}

fn expired(state: &mut State, id: &str, index: usize, record: &Record, data: &HumanExpired) {
    let plan_deadline_ms = state.coordination(id).deadline_ms;
    state.edit_step(id, index, &mut |step| {
        let out = step.is_out();
        let Some(escalation) = &mut step.escalation else {
            return;
        };
        let (kind, escalation_seq) = (escalation.kind, escalation.seq);
        match (data.reason, data.fallback) {
            (_, Some(Fallback::Allow)) => {
                if kind == EscalationKind::Question {
                    step.replies.push(Reply {
                        seq: record.seq,
                        escalation: escalation_seq,
                        at_ms: record.at_ms,
                        actor: NOBODY.into(),
                        text: String::new(),
                    });
                }
                go_on(step, record, plan_deadline_ms);
            }
            (_, Some(Fallback::Block)) => escalation.due_ms = None,
            (_, Some(Fallback::Deny))
            | (ExpiredReason::Voided | ExpiredReason::Unanswered, None) => {
                if let Some(escalation) = step.escalation.take().filter(|_| out) {
                    resume(step, &escalation, record, plan_deadline_ms);
                }
            }
            // The next level is asked, or what was denied ends with the next record.
            _ => {}
        }
    });
    if data.reason == ExpiredReason::Unanswered {
        state
            .live
            .get_mut(id)
            .expect("the coordination is live")
            .unanswered = true;
    }
}
