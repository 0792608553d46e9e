//! Whether the tables allow a record in a state. Tested before each record of a replay is applied.
//!
//! A ledger whose chain holds but that says something impossible was written by other rules, or by somebody who could
//! compute hashes. Either way this component must not follow it.

use crate::added;
use crate::apply::ANSWER;
use crate::arbitration::{OutcomeKind, Stage};
use crate::claim::Token;
use crate::codec::canonical;
use crate::config::Config;
use crate::contest;
use crate::digest::sha256_hex;
use crate::escalation::fallback;
use crate::event::{
    Created, Detected, EscalationKind, Event, ExpiredReason, RULES, Record, Resolved, SkipReason,
    Which,
};
use crate::hook;
use crate::id::{attempt_key, split_attempt_key, split_number, split_report_key};
use crate::limit::{FREE_RETRIES_MAX, KEPT_INPUTS_AN_ATTEMPT_MAX};
use crate::message::{HookKind, HumanVerdict};
use crate::plan::Plan;
use crate::receipt::LedgerFaultKind;
use crate::settle::decide_terminal;
use crate::state::{Coordination, State, Step, StepHook, StepState};

/// Why a record is not allowed.
pub(crate) type Objection = (LedgerFaultKind, String);

fn no<T>(says: impl Into<String>) -> Result<T, Objection> {
    Err((LedgerFaultKind::Nondeterminism, says.into()))
}

fn need(holds: bool, says: impl FnOnce() -> String) -> Result<(), Objection> {
    if holds { Ok(()) } else { no(says()) }
}

/// Rules are pinned.
fn known_rules(rules: u32) -> Result<(), Objection> {
    if rules == RULES {
        return Ok(());
    }
    let says = format!(
        "follows rules {rules}; this component knows rules {RULES}: use the component that wrote it"
    );
    Err((LedgerFaultKind::Unsupported, says))
}

/// What of the state a record is about, where there is that.
#[derive(Clone, Copy, Default)]
pub(crate) struct Found<'a> {
    pub(crate) coordination: Option<&'a Coordination>,
    pub(crate) step: Option<&'a Step>,
}

impl<'a> Found<'a> {
    /// Looked up by the ids of a record.
    pub(crate) fn of(state: &'a State, id: Option<&str>, step_id: Option<&str>) -> Self {
        let coordination = id.and_then(|id| state.live.get(id));
        let step = coordination.zip(step_id).and_then(|(coordination, id)| {
            let index = coordination.step_index(id)?;
            Some(&coordination.steps[index])
        });
        Self { coordination, step }
    }
}

/// Tests a record that was just made, as if it were replayed.
pub(crate) fn test(state: &State, record: &Record) -> Result<(), Objection> {
    let (id, step_id) = (&record.coordination_id, &record.step_id);
    let found = Found::of(state, id.as_deref(), step_id.as_deref());
    check(state, record, &found, false)
}

/// Tests a record against the state before it, of which is known what it is about. Of one whose plan is known to be
/// sound that is not tested again.
pub(crate) fn check(
    state: &State,
    record: &Record,
    found: &Found<'_>,
    sound: bool,
) -> Result<(), Objection> {
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
        Event::Genesis(data) => {
            known_rules(data.rules)?;
            let same = data.domain == data.config.domain
                && data.prev_domain_head == data.config.prev_domain_head;
            need(same, || "begins another domain than it configures".into())?;
            return check_config(&data.config, &data.config_digest);
        }
        Event::Configured(data) => {
            let same = state.config().is_some_and(|config| {
                config.domain == data.config.domain
                    && config.prev_domain_head == data.config.prev_domain_head
            });
            need(same, || "configures another domain".into())?;
            return check_config(&data.config, &data.config_digest);
        }
        Event::Created(data) => {
            known_rules(data.rules)?;
            let id = data.plan.coordination_id.as_str();
            let new = !state.live.contains(id) && !state.closed.contains(id);
            need(new && record.coordination_id.as_deref() == Some(id), || {
                format!("{id} exists already")
            })?;
            return if sound {
                Ok(())
            } else {
                check_plan(state, data)
            };
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
    let Some(coordination) = found.coordination else {
        return no(format!(
            "{type_name} of '{id}', which is no live coordination"
        ));
    };
    check_live(state, coordination, found.step, record)
}

/// A configuration is one that `configure` takes.
fn check_config(config: &Config, digest: &str) -> Result<(), Objection> {
    let text = canonical(config);
    let parsed = Config::parse(&text).ok().map(|parsed| canonical(&parsed));
    check_text(&text, parsed, digest)
}

/// A plan is one that `submit-plan` takes: what follows from it relies on its ids, its graph and its bounds.
fn check_plan(state: &State, data: &Created) -> Result<(), Objection> {
    let text = canonical(&data.plan);
    let parsed = state
        .config()
        .and_then(|config| Plan::parse_canonical(&text, config).ok())
        .map(|(_, canonical)| canonical);
    check_text(&text, parsed, &data.plan_digest)
}

/// What the rules read out of a text is that text, and it has this digest.
fn check_text(text: &str, parsed: Option<String>, digest: &str) -> Result<(), Objection> {
    let sound = parsed.as_deref() == Some(text) && sha256_hex(&[text.as_bytes()]) == *digest;
    need(sound, || {
        "holds what no call can have brought in, or has another digest".into()
    })
}

fn check_live(
    state: &State,
    coordination: &Coordination,
    step: Option<&Step>,
    record: &Record,
) -> Result<(), Objection> {
    let type_name = record.event.type_name();
    if let (Some(step_id), None) = (&record.step_id, step)
        && !matches!(record.event, Event::Added(_))
    {
        return no(format!("{step_id} is no step of {}", coordination.id));
    }
    match (&record.event, step) {
        (Event::Terminal(data), None) => {
            // Not whole events: the component has no other comparison of those.
            let due = decide_terminal(coordination, record.at_ms).map(|draft| draft.event);
            let same = matches!(&due, Some(Event::Terminal(due)) if due == data);
            need(same, || {
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
        (Event::Added(data), None) => {
            let parent = data.step.parent_step_id.as_deref();
            let parent = parent.and_then(|parent| coordination.step_index(parent));
            let runs = parent.is_some_and(|parent| coordination.steps[parent].is_out());
            need(
                runs && record.step_id.as_deref() == Some(&data.step.step_id),
                || format!("adds {} under a step that does not run", data.step.step_id),
            )?;
            let sound = parent.is_some_and(|parent| {
                added::could_be(coordination, &coordination.steps[parent], &data.step)
            });
            need(sound, || {
                format!("adds {} as a step that cannot be", data.step.step_id)
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
        let answer = matches!(&record.event, Event::InputLate(data) if data.intent == ANSWER);
        let over = step.escalation.is_some() && step.ended.len() >= attempt as usize;
        let ended = answer
            || over
            || attempt >= 1
                && (attempt < step.attempt || attempt == step.attempt && step.state.is_final());
        return need(ended && kept < KEPT_INPUTS_AN_ATTEMPT_MAX, || {
            format!("attempt {attempt} has not ended")
        });
    }
    if let Event::Released(data) = &record.event {
        let held = |token: &u64| step.grants.iter().any(|grant| grant.token == *token);
        let known = !data.tokens.is_empty() && data.tokens.iter().all(held);
        let rest = step.is_out() || data.tokens.len() == step.grants.len();
        return need(known && rest && attempt <= step.attempt, || {
            format!("gives back what {} does not hold", step.id)
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
            (step.state.is_candidate() || step.state == StepState::WaitingClaim)
                && step.ready_ms <= now_ms
                && !state.index.slots.is_full()
                && state.index.slots.session_has_room(&step.session)
                && (step.def.cleanup || !coordination.is_stopping())
                && data.deadline_ms == coordination.attempt_deadline_ms(step, now_ms)
                && holds_all(step, &data.tokens)
        }
        Event::Acknowledged(_) => step.state == StepState::Dispatched,
        Event::Progress(_) => step.is_out(),
        Event::Completed(data) if data.by == ANSWER => step.state == StepState::WaitingHuman,
        Event::Completed(data) => {
            step.is_out() && data.implicit_ack == (step.state == StepState::Dispatched)
        }
        Event::Failed(data) if !step.is_out() => {
            // Only what hooks, people and contests refuse fails without having run.
            let refused = matches!(data.code.as_str(), "denied" | "conflict_unresolved");
            let asked = step.state == StepState::WaitingHuman;
            let met = step.state == StepState::WaitingClaim || step.state == StepState::WaitingHook;
            asked || refused && met
        }
        Event::Failed(_) => coordination.stop_of(step).is_none(),
        Event::TimedOut(data) => {
            let begun = !step.state.is_final() && step.state != StepState::Pending;
            match data.which {
                Which::Attempt => step.is_out() || step.state == StepState::WaitingHuman,
                Which::Plan => !step.def.cleanup && begun,
                Which::Cleanup => step.def.cleanup && begun,
            }
        }
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
            step.is_out()
                && within
                && in_time
                && data.next_attempt == step.attempt + 1
                && coordination.stop_of(step).is_none()
        }
        Event::Cancelled(data) => {
            let stopped = coordination
                .stop_of(step)
                .is_some_and(|(_, by)| by == data.by);
            stopped && !step.state.is_final() && data.grace_used == step.is_out()
        }
        Event::Skipped(data) => match data.reason {
            SkipReason::Condition | SkipReason::UpstreamFailed => {
                let index = coordination.step_index(&step.id);
                index.is_some_and(|index| coordination.skippable.contains(&index))
            }
            SkipReason::FailFast => {
                let idle = !step.state.is_final() && !step.is_out();
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
        Event::Granted(data) => {
            let wanted = |claim: &crate::claim::Claim| {
                claim.resource == data.resource && claim.mode == data.mode
            };
            let due = step.is_out()
                || (step.state.is_candidate() || step.state == StepState::WaitingClaim)
                    && step.def.claims.iter().any(wanted);
            due && data.expires_ms == record.at_ms + data.lease_ms
                && data.session == *step.session
                && data.claim_number == step.claim_number.unwrap_or(record.seq)
                && contest::is_free(state, coordination, step, data)
        }
        Event::Renewed(data) => {
            let ends = |token: &u64| {
                let held = step.grants.iter().find(|grant| grant.token == *token);
                held.is_some_and(|grant| data.expires_ms == record.at_ms + grant.lease_ms)
            };
            step.is_out() && !step.is_suspended() && data.tokens.iter().all(ends)
        }
        Event::Expired(data) => step.grants.iter().any(|grant| {
            let due = grant.expires_ms <= record.at_ms && !step.is_suspended();
            grant.token == data.token && grant.resource == data.resource && due
        }),
        Event::Detected(data) => return check_contest(state, coordination, step, record, data),
        Event::Resolved(data) => return check_decision(coordination, step, data),
        Event::HookRequested(data) => {
            let kind = hook::is_registered(state, data.kind);
            let hook = StepHook {
                seq: record.seq,
                kind: data.kind,
                due_ms: data.due_ms,
                contest: step
                    .contests
                    .last()
                    .map(|contest| contest.seq)
                    .filter(|_| data.kind == HookKind::BeforeArbitrate),
            };
            let subject = hook::subject(coordination, step, &hook);
            let waits = step.state.is_candidate() || step.state == StepState::WaitingHook;
            let wait_ms = state.config().map_or(0, |config| config.hook_timeout_ms);
            kind && waits
                && data.due_ms == record.at_ms + wait_ms
                && data.hook_id == format!("h{}", record.seq)
                && data.subject_digest == sha256_hex(&[subject.as_bytes()])
        }
        Event::HookAnswered(data) => {
            let seq = split_number(&data.hook_id, 'h');
            step.hooks.iter().any(|hook| Some(hook.seq) == seq)
        }
        Event::Escalated(data) => {
            let asks = coordination.asks() && coordination.stop_of(step).is_none();
            let from = match data.kind {
                EscalationKind::Review => step.state == StepState::WaitingHook,
                EscalationKind::Conflict => step.state == StepState::WaitingClaim,
                _ => step.is_out(),
            };
            asks && from && data.escalation_id == format!("e{}", record.seq)
        }
        Event::HumanRequested(data) => {
            let human = coordination.human();
            let place = (data.level as usize).checked_sub(1);
            let level = human.zip(place);
            let level = level.and_then(|(human, place)| human.levels.get(place));
            let open = step.escalation.as_ref();
            open.is_some_and(|open| {
                data.escalation_id == format!("e{}", open.seq) && data.level == open.level + 1
            }) && level.is_some_and(|level| {
                data.due_ms == record.at_ms + level.timeout_ms && data.min_role == level.min_role
            })
        }
        Event::HumanDecided(data) => step.escalation.as_ref().is_some_and(|open| {
            let required = coordination
                .human()
                .map_or(1, |human| human.required_approvals as usize);
            let enough = open.approvals.len() + 1 >= required;
            data.escalation_id == format!("e{}", open.seq)
                && !open.approvals.contains(&data.actor)
                && data.is_final == (data.verdict != HumanVerdict::Approve || enough)
        }),
        Event::HumanExpired(data) => step.escalation.as_ref().is_some_and(|open| {
            // What closes a question from outside takes no fallback; what a timeout stands for is not a matter of choice.
            let outside = matches!(
                data.reason,
                ExpiredReason::Voided | ExpiredReason::Unanswered
            );
            let due = coordination.human().filter(|_| !outside);
            let due = due.and_then(|human| fallback(state, coordination, human, step, open));
            data.escalation_id == format!("e{}", open.seq)
                && data.level == open.level
                && data.fallback == due
        }),
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

/// all claims or none; the tokens are those of the grants, in the order of the resources' names.
fn holds_all(step: &Step, tokens: &[Token]) -> bool {
    let same = |token: &Token| {
        step.grants
            .iter()
            .any(|grant| grant.token == token.token && grant.resource == token.resource)
    };
    tokens.len() == step.def.claims.len()
        && tokens.iter().all(same)
        && tokens
            .windows(2)
            .all(|pair| pair[0].resource < pair[1].resource)
}

/// A contest must be the one that the state of this moment gives.
fn check_contest(
    state: &State,
    coordination: &Coordination,
    step: &Step,
    record: &Record,
    data: &Detected,
) -> Result<(), Objection> {
    let meets = matches!(step.state, StepState::WaitingHook | StepState::WaitingClaim);
    let due = step.state.is_candidate() || meets || step.is_out();
    let seq = record.seq;
    let found = data.contenders.first().and_then(|newcomer| {
        let claim = crate::claim::Claim {
            resource: data.resource.clone(),
            mode: newcomer.mode,
            lease_ms: 0,
            base_version: newcomer.base_version.clone(),
            regions: newcomer.regions.clone(),
        };
        contest::detect(state, coordination, step, &claim, record.at_ms, seq)
    });
    need(due && found.as_ref() == Some(data), || {
        format!("is not what {} meets on {}", step.id, data.resource)
    })
}

/// Every decision is made again.
fn check_decision(
    coordination: &Coordination,
    step: &Step,
    data: &Resolved,
) -> Result<(), Objection> {
    let seq = split_number(&data.contest_id, 'c');
    let known = step
        .contests
        .iter()
        .find(|contest| Some(contest.seq) == seq);
    let Some(known) = known else {
        return no(format!("{} is no contest of {}", data.contest_id, step.id));
    };
    let mut decision = contest::decide(&known.detected, known.at_ms);
    let said = data.outcomes.first().map(|outcome| outcome.outcome);
    let mut outcome = contest::outcome(coordination, &decision);
    let free = match data.stage {
        // A hook can only refuse or ask, and a person only put first.
        Stage::Hook => {
            matches!(said, Some(OutcomeKind::Refused | OutcomeKind::Review))
                && known.outcome.is_none()
        }
        Stage::Human => {
            matches!(said, Some(OutcomeKind::Waits | OutcomeKind::Preempts))
                && known.outcome == Some(OutcomeKind::Review)
        }
        // Nobody is ended for a step that cannot go on over another contest.
        _ => outcome == OutcomeKind::Preempts && said == Some(OutcomeKind::Waits),
    };
    if free {
        outcome = said.unwrap_or(outcome);
        decision.stage = data.stage;
        decision.reason.clone_from(&data.reason);
    }
    let again = contest::resolved(step, &data.contest_id, decision, outcome);
    need(again == *data, || {
        format!("decides {} otherwise than its policy", data.contest_id)
    })
}
