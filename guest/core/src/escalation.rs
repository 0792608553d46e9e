//! Questions to people: asked level by level, and always over at some time.
//!
//! | kind | approve | deny, or nobody answered and the fallback is deny |
//! |---|---|---|
//! | review | on to claims and dispatch | step.failed(denied) |
//! | conflict | first in the order; a live holder keeps unless it may be pre-empted | step.failed(conflict_unresolved) |
//! | exhausted | one more attempt, outside the budget | step.failed or step.timed_out with the last error |
//! | unknown_effect | it did not happen: a new attempt; `completed`: it did, step.completed | step.failed(unknown_effect) |
//! | question | back to work; the text goes to the session | END(permanent, denied) |
//!
//! Who a person is and which role they have is the host's word. Nothing here waits; timers and answers come in.

use crate::apply::{ANSWER, answer_digest, answer_key};
use crate::arbitration::{OutcomeKind, Stage};
use crate::codec::{self, object};
use crate::contest;
use crate::decision::{Answer, Decision};
use crate::draft::Draft;
use crate::ending::{Ending, decide_end, shorten};
use crate::event::{
    Class, Completed, Escalated, EscalationKind, ExpiredReason, Failed, HumanDecided, HumanExpired,
    HumanRequested, TimedOut, Which,
};
use crate::id::{check_bytes, check_session, split_number};
use crate::limit;
use crate::message::{Caller, HumanVerdict};
use crate::plan::{Fallback, Human, Level, Risk};
use crate::receipt::{Receipt, ReceiptStatus, Rejection, RejectionCode};
use crate::state::{Coordination, Escalation, State, Step};
use crate::step::Unheeded;

/// What a person decides about; its digest comes back with the answer.
struct Subject<'a> {
    coordination_id: &'a str,
    step_id: &'a str,
    attempt: u32,
    kind: EscalationKind,
    question: &'a str,
    payload_digest: String,
    claims: &'a [crate::claim::Claim],
    plan_digest: &'a str,
    tokens: Vec<u64>,
}

object!(write Subject<'a> {
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "attempt": req attempt,
    "kind": req kind,
    "question": req question,
    "payloadDigest": req payload_digest,
    "claims": req claims,
    "planDigest": req plan_digest,
    "tokens": req tokens,
});

/// What the end of an attempt adds to the question that it raises.
#[derive(Default)]
pub(crate) struct Extra {
    /// Tokens of those whom the step contests.
    pub(crate) met: Vec<u64>,
    pub(crate) number: Option<u64>,
    pub(crate) class: Option<Class>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) content_digest: Option<String>,
}

/// Opens a question. `seq` is the number of its first record.
pub(crate) fn open(
    coordination: &Coordination,
    step: &Step,
    kind: EscalationKind,
    question: String,
    now_ms: u64,
    cause: u64,
    seq: u64,
) -> Vec<Draft> {
    open_with(
        coordination,
        step,
        kind,
        question,
        now_ms,
        cause,
        seq,
        Extra::default(),
    )
}

/// Opens a question with what is known of the attempt that ended, or of the envelope that asked.
#[allow(clippy::too_many_arguments)]
pub(crate) fn open_with(
    coordination: &Coordination,
    step: &Step,
    kind: EscalationKind,
    question: String,
    now_ms: u64,
    cause: u64,
    seq: u64,
    extra: Extra,
) -> Vec<Draft> {
    let levels: &[Level] = coordination.human().map_or(&[], |human| &human.levels);
    let question = shorten(question);
    let held = step.grants.iter().map(|grant| grant.token);
    let digest = codec::digest(&Subject {
        coordination_id: &coordination.id,
        step_id: &step.id,
        attempt: step.attempt,
        kind,
        question: &question,
        payload_digest: step.def.payload_digest(),
        claims: &step.def.claims,
        plan_digest: &coordination.plan_digest,
        tokens: held.chain(extra.met).collect(),
    });
    let escalated = Escalated {
        escalation_id: format!("e{seq}"),
        kind,
        question,
        digest,
        levels: levels.to_vec(),
        number: extra.number,
        class: extra.class,
        code: extra.code,
        message: extra.message,
        content_digest: extra.content_digest,
    };
    vec![
        Draft::of_step(coordination, step, cause, escalated),
        ask(coordination, step, seq, 1, now_ms, seq),
    ]
}

/// Asks one level.
fn ask(
    coordination: &Coordination,
    step: &Step,
    escalation: u64,
    level: u32,
    now_ms: u64,
    cause: u64,
) -> Draft {
    let human = coordination.human();
    let asked = human.and_then(|human| human.levels.get(level as usize - 1));
    let event = HumanRequested {
        escalation_id: format!("e{escalation}"),
        level,
        min_role: asked.map_or(crate::message::Role::Owner, |level| level.min_role),
        required: human.map_or(1, |human| human.required_approvals),
        due_ms: now_ms + asked.map_or(0, |level| level.timeout_ms),
    };
    Draft::of_step(coordination, step, cause, event)
}

/// The step and question of an id; the question only while it is open.
fn find<'a>(
    state: &'a State,
    id: &str,
) -> Option<(&'a Coordination, &'a Step, Option<&'a Escalation>)> {
    let seq = split_number(id, 'e')?;
    let place = state.index.escalations.get(&seq)?;
    let (coordination, step) = contest::step_at(state, place)?;
    let open = step.escalation.as_ref().filter(|open| open.seq == seq);
    Some((coordination, step, open))
}

/// Decides a person's answer: who may give it, to what was shown, and once.
pub(crate) fn decide_answer(
    state: &State,
    now_ms: u64,
    actor: &Caller,
    id: &str,
    digest: &str,
    verdict: HumanVerdict,
    text: Option<&str>,
) -> Decision {
    let refuse =
        |code, field: &str, says: String| Decision::refuse(Rejection::new(code, field, says));
    let invalid = RejectionCode::InvalidField;
    if let Err(says) = check_session(&actor.session) {
        return refuse(invalid, "actor.session", says);
    }
    let bound = usize::try_from(limit::PAYLOAD_BYTES_MAX).unwrap_or(usize::MAX);
    if let Err(says) = check_bytes(text.unwrap_or_default(), 0, bound) {
        return refuse(invalid, "text", says);
    }
    let Some((coordination, step, open)) = find(state, id) else {
        let says = format!("{id} is no question of a live coordination");
        return refuse(RejectionCode::UnknownKey, "escalationId", says);
    };
    let answer = Input {
        coordination,
        step,
        actor,
        id,
        digest: answer_digest(verdict, text),
    };
    if let Err(says) = eligible(coordination, step, open, actor) {
        return answer.reject(RejectionCode::NotEligible, "actor", says);
    }
    for attempt in (1..=step.attempt).rev() {
        let Some(known) = step.identity(&answer_key(attempt, id, &actor.session)) else {
            continue;
        };
        if known.digest != answer.digest {
            let says = format!(
                "{} answered otherwise before, at record {}",
                actor.session, known.seq
            );
            return refuse(RejectionCode::ContentMismatch, "", says);
        }
        let (status, seq) = (ReceiptStatus::Replayed, Some(known.seq));
        let state = known.state.name().to_owned();
        return Decision {
            drafts: Vec::new(),
            answer: Answer::Known(Receipt { status, seq, state }),
        };
    }
    let Some(open) = open else {
        return answer.late();
    };
    if open.digest != digest {
        let says = format!("is {digest}; what is asked now has {}", open.digest);
        return answer.reject(RejectionCode::StaleQuestion, "digest", says);
    }
    if verdict == HumanVerdict::Completed && open.kind != EscalationKind::UnknownEffect {
        let says = format!(
            "is completed, which goes with unknown_effect; this question is of kind {}",
            open.kind.name()
        );
        return refuse(invalid, "verdict", says);
    }
    let required = coordination
        .human()
        .map_or(1, |human| human.required_approvals as usize);
    let is_final = verdict != HumanVerdict::Approve || open.approvals.len() + 1 >= required;
    let seq = state.next_seq();
    let event = HumanDecided {
        escalation_id: id.to_owned(),
        actor: actor.session.clone(),
        role: actor.role.unwrap_or(crate::message::Role::User),
        verdict,
        text: text.map(str::to_owned),
        is_final,
    };
    let mut drafts = vec![Draft::of_step(
        coordination,
        step,
        open.requested_seq,
        event,
    )];
    if is_final {
        let after = match verdict {
            HumanVerdict::Approve => approved(state, coordination, step, open, seq),
            HumanVerdict::Deny => {
                let says = match text.filter(|text| !text.is_empty()) {
                    Some(text) => format!("{} denied it: {text}", actor.session),
                    None => format!("{} denied it", actor.session),
                };
                denied(coordination, step, open, says, now_ms, seq, seq + 1)
            }
            HumanVerdict::Completed => {
                let event = Completed {
                    implicit_ack: false,
                    content_type: None,
                    payload: Some(text.unwrap_or_default().to_owned()),
                    payload_ref: None,
                    content_digest: answer.digest.clone(),
                    by: ANSWER.into(),
                };
                vec![Draft::of_step(coordination, step, seq, event)]
            }
        };
        drafts.extend(after);
    }
    Decision::accept(drafts)
}

/// enough of a role, and neither the owner, nor who asked, nor who does the work.
fn eligible(
    coordination: &Coordination,
    step: &Step,
    open: Option<&Escalation>,
    actor: &Caller,
) -> Result<(), String> {
    let own = [
        (&*coordination.owner, "owns the plan"),
        (&*step.session, "does the step"),
        (
            step.added_by.as_deref().unwrap_or_default(),
            "added the step",
        ),
    ];
    if let Some((_, why)) = own.iter().find(|(session, _)| **session == *actor.session) {
        return Err(format!("{} {why}; somebody else decides", actor.session));
    }
    let levels = coordination.human().map_or(&[][..], |human| &human.levels);
    let level = match open {
        Some(open) => levels.get(open.level.max(1) as usize - 1),
        None => levels.first(),
    };
    let needed = level.map_or(crate::message::Role::Owner, |level| level.min_role);
    if actor.role < Some(needed) {
        let has = actor.role.map_or("no role", crate::message::Role::name);
        return Err(format!(
            "{} has {has}; {} or above is needed",
            actor.session,
            needed.name()
        ));
    }
    Ok(())
}

/// What follows an approval. `cause` is its record.
fn approved(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    open: &Escalation,
    cause: u64,
) -> Vec<Draft> {
    if open.kind != EscalationKind::Conflict {
        return Vec::new();
    }
    let mut drafts = Vec::new();
    let asked: Vec<_> = step
        .contests
        .iter()
        .filter(|contest| contest.outcome == Some(OutcomeKind::Review))
        .collect();
    for known in &asked {
        let detected = &known.detected;
        let live: Vec<_> = detected
            .holders
            .iter()
            .filter_map(|held| held.token)
            .filter(|token| state.index.claims.holder(*token).is_some())
            .collect();
        // A policy that lets others be pre-empted also lets a person do it.
        let may = detected.policy.preempt
            && asked.len() == 1
            && detected
                .holders
                .iter()
                .filter(|held| held.token.is_some_and(|token| live.contains(&token)))
                .all(|held| held.preemptible);
        let outcome = match (live.is_empty(), may) {
            (false, true) => OutcomeKind::Preempts,
            _ => OutcomeKind::Waits,
        };
        let mut decision = contest::decide(detected, known.at_ms);
        decision.stage = Stage::Human;
        decision.reason = format!("a person put {} first", step.id);
        let record = contest::resolved(step, &detected.contest_id, decision, outcome);
        drafts.push(Draft::of_step(coordination, step, cause, record));
        if outcome == OutcomeKind::Preempts {
            contest::void_questions(state, detected, &mut drafts);
        }
    }
    drafts
}

/// What follows a denial, or what stands for one. `cause` is its record, `seq` the number of the next.
fn denied(
    coordination: &Coordination,
    step: &Step,
    open: &Escalation,
    says: String,
    now_ms: u64,
    cause: u64,
    seq: u64,
) -> Vec<Draft> {
    let failed = |class, code: &str, message: String| Failed {
        implicit_ack: false,
        class,
        code: code.to_owned(),
        message: shorten(message),
        payload: None,
        payload_ref: None,
        content_digest: None,
        attempts: step.attempts_made(),
    };
    let event = match open.kind {
        EscalationKind::Review => failed(Class::Permanent, "denied", says),
        EscalationKind::Conflict => failed(Class::Permanent, "conflict_unresolved", says),
        EscalationKind::UnknownEffect => failed(
            Class::Unknown,
            "unknown_effect",
            format!(
                "{}: {}",
                step.code.as_deref().unwrap_or_default(),
                step.message.as_deref().unwrap_or_default()
            ),
        ),
        EscalationKind::Exhausted if open.class == Some(Class::Timeout) => {
            let event = TimedOut {
                deadline_ms: step.deadline_ms,
                which: Which::Attempt,
                attempts: step.attempts_made(),
            };
            return vec![Draft::of_step(coordination, step, cause, event)];
        }
        EscalationKind::Exhausted => failed(
            open.class.unwrap_or(Class::Unknown),
            step.code.as_deref().unwrap_or_default(),
            step.message.clone().unwrap_or_default(),
        ),
        EscalationKind::Question => {
            let ending = Ending::found(Class::Permanent, "denied", shorten(says));
            return decide_end(coordination, step, now_ms, ending, seq);
        }
    };
    vec![Draft::of_step(coordination, step, cause, event)]
}

/// the level is over; the next one is asked, or the fallback counts.
pub(crate) fn expire(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    reason: ExpiredReason,
    now_ms: u64,
) -> Vec<Draft> {
    let (Some(open), Some(human)) = (&step.escalation, coordination.human()) else {
        return Vec::new();
    };
    let seq = state.next_seq();
    let next = open.level + 1;
    let fallback = fallback(state, coordination, human, step, open);
    let event = HumanExpired {
        escalation_id: format!("e{}", open.seq),
        level: open.level,
        fallback,
        reason,
    };
    let mut drafts = vec![Draft::of_step(
        coordination,
        step,
        open.requested_seq,
        event,
    )];
    if fallback.is_none() {
        drafts.push(ask(coordination, step, open.seq, next, now_ms, seq));
    } else if fallback == Some(Fallback::Deny) {
        let says = "nobody answered in time".to_owned();
        drafts.extend(denied(coordination, step, open, says, now_ms, seq, seq + 1));
    }
    drafts
}

/// what a timeout of the level that is asked stands for; `None` where another level is left.
pub(crate) fn fallback(
    state: &State,
    coordination: &Coordination,
    human: &Human,
    step: &Step,
    open: &Escalation,
) -> Option<Fallback> {
    if (open.level as usize) < human.levels.len() {
        return None;
    }
    Some(match human.fallback {
        Fallback::Allow if !may_allow(state, coordination, step, open) => Fallback::Deny,
        fallback => fallback,
    })
}

/// a timeout stands for an approval only where little can go wrong, and not for ever: a step that only ever fails,
/// whose plan has no deadline and whose people never answer, has to end as well.
fn may_allow(state: &State, coordination: &Coordination, step: &Step, open: &Escalation) -> bool {
    let outside = step.attempt - 1 - step.retries - step.free_retries;
    if open.kind == EscalationKind::Exhausted && outside >= limit::SILENT_ATTEMPTS_MAX {
        return false;
    }
    let kind = matches!(
        open.kind,
        EscalationKind::Exhausted | EscalationKind::Question
    );
    let risky = |resource: &str| {
        let config = state.config();
        coordination.plan.conflict_policy.is_high_risk(resource)
            || config.is_some_and(|config| {
                config
                    .high_risk
                    .iter()
                    .any(|pattern| crate::claim::fits(pattern, resource))
            })
    };
    let claims = step.def.claims.iter().map(|claim| &claim.resource);
    let held = step.grants.iter().map(|grant| &grant.resource);
    kind && step.def.risk == Risk::Low && !claims.chain(held).any(|resource| risky(resource))
}

/// the message of a question did not reach its person.
pub(crate) fn decide_unreachable(state: &State, now_ms: u64, key: &str) -> Decision {
    let unknown = || {
        let says = format!("{key} is not the key of a question's message");
        Decision::refuse(Rejection::new(RejectionCode::UnknownKey, "key", says))
    };
    let Some((id, level)) = split_key(key) else {
        return unknown();
    };
    let Some((coordination, step, open)) = find(state, id) else {
        return unknown();
    };
    match open {
        Some(open) if open.level == level && open.due_ms.is_some() => Decision::accept(expire(
            state,
            coordination,
            step,
            ExpiredReason::Unreachable,
            now_ms,
        )),
        _ => Decision::replay(step.state.name()),
    }
}

/// The question and level of `escalation:ID:LEVEL:N`.
fn split_key(key: &str) -> Option<(&str, u32)> {
    let mut parts = key.strip_prefix("escalation:")?.split(':');
    let (id, level, number) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || number.parse::<u32>().is_err() {
        return None;
    }
    Some((id, level.parse().ok()?))
}

/// The step of a question's id or of the key of its message, for receipts.
pub(crate) fn place_of(state: &State, id: &str) -> Option<crate::waiters::Place> {
    let id = split_key(id).map_or(id, |(id, _)| id);
    let seq = split_number(id, 'e')?;
    state.index.escalations.get(&seq).cloned()
}

/// An answer on a known question.
struct Input<'a> {
    coordination: &'a Coordination,
    step: &'a Step,
    actor: &'a Caller,
    id: &'a str,
    digest: String,
}

impl Input<'_> {
    fn unheeded(&self) -> Unheeded {
        Unheeded {
            intent: ANSWER.into(),
            part: format!("{}:{}", self.id, self.actor.session),
            source_session: self.actor.session.clone(),
            content_digest: self.digest.clone(),
        }
    }

    /// The question is over: kept, without effect.
    fn late(&self) -> Decision {
        let (step, cause) = (self.step, self.step.last_seq);
        let nothing = (None, None);
        let input = self.unheeded();
        let draft = input.late(self.coordination, step, step.attempt, cause, nothing);
        Decision {
            drafts: draft.into_iter().collect(),
            answer: Answer::Took(ReceiptStatus::Late),
        }
    }

    fn reject(&self, code: RejectionCode, field: &str, says: String) -> Decision {
        let draft = self.unheeded().rejected(self.coordination, self.step, code);
        Decision {
            drafts: draft.into_iter().collect(),
            answer: Answer::Refused(Rejection::new(code, field, says)),
        }
    }
}
