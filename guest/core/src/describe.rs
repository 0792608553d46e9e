//! What the state looks like from outside, and its digest.
//!
//! Changes nothing. What a step waits for may depend on other coordinations; it is in `explain_wait` and not in
//! `describe`, so that the digest of a coordination depends on that coordination alone.

use crate::arbitration::OutcomeKind;
use crate::codec::{canonical, object};
use crate::contest;
use crate::digest::sha256_hex;
use crate::envelope::Priority;
use crate::event::{Counts, EscalationKind, Name, RULES, TerminalReason, TerminalState};
use crate::id::report_key;
use crate::plan::{Fallback, Level};
use crate::receipt::Head;
use crate::state::{Coordination, Escalation, Identity, State, Step, StepState};

struct DomainView<'a> {
    v: u32,
    domain: Option<&'a str>,
    enabled: bool,
    head: &'a Head,
    in_flight: u64,
    max_in_flight: u64,
    coordinations: Vec<EntryView<'a>>,
}

object!(write DomainView<'a> {
    "v": req v,
    "domain": opt domain,
    "enabled": req enabled,
    "head": req head,
    "inFlight": req in_flight,
    "maxInFlight": req max_in_flight,
    "coordinations": req coordinations,
});

struct EntryView<'a> {
    coordination_id: Name,
    state: &'a str,
    terminal: Option<TerminalState>,
    terminal_seq: Option<u64>,
}

object!(write EntryView<'a> {
    "coordinationId": req coordination_id,
    "state": req state,
    "terminal": opt terminal,
    "terminalSeq": opt terminal_seq,
});

struct ClosedView<'a> {
    v: u32,
    coordination_id: &'a str,
    state: &'a str,
    plan_digest: &'a str,
    created_seq: u64,
    terminal: TerminalState,
    terminal_seq: u64,
    reports: Vec<ReportView>,
}

object!(write ClosedView<'a> {
    "v": req v,
    "coordinationId": req coordination_id,
    "state": req state,
    "planDigest": req plan_digest,
    "createdSeq": req created_seq,
    "terminal": req terminal,
    "terminalSeq": req terminal_seq,
    "reports": req reports,
});

struct CoordinationView<'a> {
    v: u32,
    coordination_id: &'a str,
    state: &'a str,
    objective: &'a str,
    owner_session: &'a str,
    plan_digest: &'a str,
    created_seq: u64,
    created_at_ms: u64,
    deadline_ms: Option<u64>,
    priority: Priority,
    retries_used: u64,
    retry_budget: u64,
    terminal: Option<TerminalState>,
    reason: Option<TerminalReason>,
    counts: Counts,
    steps: Vec<StepView<'a>>,
    escalations: Vec<EscalationView<'a>>,
    child_plans: &'a [Name],
    reports: Vec<ReportView>,
}

object!(write CoordinationView<'a> {
    "v": req v,
    "coordinationId": req coordination_id,
    "state": req state,
    "objective": req objective,
    "ownerSession": req owner_session,
    "planDigest": req plan_digest,
    "createdSeq": req created_seq,
    "createdAtMs": req created_at_ms,
    "deadlineMs": opt deadline_ms,
    "priority": req priority,
    "retriesUsed": req retries_used,
    "retryBudget": req retry_budget,
    "terminal": opt terminal,
    "reason": opt reason,
    "counts": req counts,
    "steps": req steps,
    "escalations": req escalations,
    "childPlans": req child_plans,
    "reports": req reports,
});

struct StepView<'a> {
    step_id: &'a str,
    target_session: &'a str,
    state: &'a str,
    attempt: u32,
    deadline_ms: Option<u64>,
    ack_deadline_ms: Option<u64>,
    due_ms: Option<u64>,
    grace_until_ms: Option<u64>,
    code: Option<&'a str>,
    message: Option<&'a str>,
    added_by: Option<&'a str>,
    grants: Vec<GrantView<'a>>,
    contests: Vec<ContestView<'a>>,
}

object!(write StepView<'a> {
    "stepId": req step_id,
    "targetSession": req target_session,
    "state": req state,
    "attempt": req attempt,
    "deadlineMs": opt deadline_ms,
    "ackDeadlineMs": opt ack_deadline_ms,
    "dueMs": opt due_ms,
    "graceUntilMs": opt grace_until_ms,
    "code": opt code,
    "message": opt message,
    "addedBy": opt added_by,
    "grants": set grants,
    "contests": set contests,
});

#[derive(Default, PartialEq)]
struct GrantView<'a> {
    resource: &'a str,
    token: u64,
    mode: &'a str,
    since_ms: u64,
    expires_ms: u64,
}

object!(write GrantView<'a> {
    "resource": req resource,
    "token": req token,
    "mode": req mode,
    "sinceMs": req since_ms,
    "expiresMs": req expires_ms,
});

#[derive(Default, PartialEq)]
struct ContestView<'a> {
    contest_id: &'a str,
    resource: &'a str,
    outcome: Option<&'a str>,
}

object!(write ContestView<'a> {
    "contestId": req contest_id,
    "resource": req resource,
    "outcome": opt outcome,
});

/// A question that is open, as people and their tools see it.
#[derive(PartialEq)]
struct EscalationView<'a> {
    escalation_id: String,
    coordination_id: &'a str,
    step_id: &'a str,
    attempt: u32,
    kind: EscalationKind,
    question: &'a str,
    digest: &'a str,
    level: u32,
    levels: &'a [Level],
    required: u32,
    approvals: &'a [String],
    fallback: Fallback,
    requested_ms: u64,
    due_ms: Option<u64>,
    number: Option<u64>,
}

object!(write EscalationView<'a> {
    "escalationId": req escalation_id,
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "attempt": req attempt,
    "kind": req kind,
    "question": req question,
    "digest": req digest,
    "level": req level,
    "levels": req levels,
    "required": req required,
    "approvals": req approvals,
    "fallback": req fallback,
    "requestedMs": req requested_ms,
    "dueMs": opt due_ms,
    "number": opt number,
});

fn escalation_view<'a>(
    live: &'a Coordination,
    step: &'a Step,
    open: &'a Escalation,
) -> EscalationView<'a> {
    let human = live.human();
    EscalationView {
        escalation_id: format!("e{}", open.seq),
        coordination_id: &live.id,
        step_id: &step.id,
        attempt: step.attempt,
        kind: open.kind,
        question: &open.question,
        digest: &open.digest,
        level: open.level,
        levels: human.map_or(&[], |human| &human.levels),
        required: human.map_or(1, |human| human.required_approvals),
        approvals: &open.approvals,
        fallback: human.map_or(Fallback::Deny, |human| human.fallback),
        requested_ms: open.at_ms,
        due_ms: open.due_ms,
        number: open.number,
    }
}

/// An open question as canonical JSON.
pub(crate) fn escalation(live: &Coordination, step: &Step, open: &Escalation) -> String {
    canonical(&escalation_view(live, step, open))
}

struct ReportView {
    key: String,
    delivery: u32,
    next_due_ms: Option<u64>,
    undelivered: bool,
}

object!(write ReportView {
    "key": req key,
    "delivery": req delivery,
    "nextDueMs": opt next_due_ms,
    "undelivered": set undelivered,
});

/// A coordination, or with an empty id the domain.
pub(crate) fn describe(state: &State, id: &str) -> Option<String> {
    if id.is_empty() {
        return Some(canonical(&domain_view(state)));
    }
    if let Some(live) = state.live.get(id) {
        return Some(canonical(&coordination_view(live)));
    }
    let closed = state.closed.get(id)?;
    let undelivered = |(seq, delivery): &(u64, u32)| ReportView {
        key: report_key(*seq),
        delivery: *delivery,
        next_due_ms: None,
        undelivered: true,
    };
    Some(canonical(&ClosedView {
        v: 1,
        coordination_id: id,
        state: "closed",
        plan_digest: &closed.plan_digest.text(),
        created_seq: closed.created_seq,
        terminal: closed.terminal,
        terminal_seq: closed.terminal_seq,
        reports: closed.undelivered.iter().map(undelivered).collect(),
    }))
}

fn domain_view(state: &State) -> DomainView<'_> {
    let live = state.live.iter().map(|(_, live)| EntryView {
        coordination_id: live.id.clone(),
        state: live.state_name(),
        terminal: live.ended.as_ref().map(|ended| ended.terminal),
        terminal_seq: live.ended.as_ref().map(|ended| ended.seq),
    });
    let closed = state.closed.iter().map(|(id, closed)| EntryView {
        coordination_id: id,
        state: "closed",
        terminal: Some(closed.terminal),
        terminal_seq: Some(closed.terminal_seq),
    });
    let coordinations = live.chain(closed).collect();
    let config = state.config();
    DomainView {
        v: 1,
        domain: config.map(|config| config.domain.as_str()),
        enabled: config.is_some_and(|config| config.phase1.enabled),
        head: &state.head,
        in_flight: state.index.slots.in_flight(),
        max_in_flight: config.map_or(0, |config| config.max_in_flight),
        coordinations,
    }
}

fn coordination_view(live: &Coordination) -> CoordinationView<'_> {
    let report = |(seq, report): &(u64, crate::state::Report)| ReportView {
        key: report_key(*seq),
        delivery: report.delivery,
        next_due_ms: report.next_due_ms,
        undelivered: report.next_due_ms.is_none(),
    };
    CoordinationView {
        v: 1,
        coordination_id: &live.id,
        state: live.state_name(),
        objective: &live.plan.objective,
        owner_session: &live.owner,
        plan_digest: &live.plan_digest,
        created_seq: live.created_seq,
        created_at_ms: live.created_ms,
        deadline_ms: live.deadline_ms,
        priority: live.plan.priority,
        retries_used: live.retries_used,
        retry_budget: live.plan.failure_policy.retry_budget,
        terminal: live.ended.as_ref().map(|ended| ended.terminal),
        reason: live.ended.as_ref().and_then(|ended| ended.reason),
        counts: live.counts,
        steps: live
            .steps
            .iter()
            .map(|step| step_view(live, step))
            .collect(),
        escalations: live
            .steps
            .iter()
            .filter_map(|step| Some(escalation_view(live, step, step.escalation.as_ref()?)))
            .collect(),
        child_plans: &live.child_plans,
        reports: live.reports.iter().map(report).collect(),
    }
}

fn step_view<'a>(live: &Coordination, step: &'a Step) -> StepView<'a> {
    let out = step.is_out();
    StepView {
        step_id: &step.id,
        target_session: &step.session,
        state: step.state.name(),
        attempt: step.attempt,
        deadline_ms: out.then_some(step.deadline_ms),
        ack_deadline_ms: step
            .ack_due_ms
            .filter(|_| step.state == StepState::Dispatched),
        due_ms: (step.state == StepState::RetryWait).then_some(step.ready_ms),
        grace_until_ms: live
            .stop_of(step)
            .filter(|_| out)
            .map(|(stop, _)| stop.grace_until_ms),
        code: step.code.as_deref(),
        message: step.message.as_deref(),
        added_by: step.added_by.as_deref(),
        grants: step
            .grants
            .iter()
            .map(|grant| GrantView {
                resource: &grant.resource,
                token: grant.token,
                mode: grant.mode.name(),
                since_ms: grant.since_ms,
                expires_ms: grant.expires_ms,
            })
            .collect(),
        contests: step
            .contests
            .iter()
            .map(|contest| ContestView {
                contest_id: &contest.detected.contest_id,
                resource: &contest.detected.resource,
                outcome: contest.outcome.map(OutcomeKind::name),
            })
            .collect(),
    }
}

struct WaitView<'a> {
    v: u32,
    coordination_id: &'a str,
    step_id: &'a str,
    state: &'a str,
    waits_for: Wait<'a>,
}

object!(write WaitView<'a> {
    "v": req v,
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "state": req state,
    "waitsFor": req waits_for,
});

#[derive(Default)]
struct Wait<'a> {
    kind: &'a str,
    steps: Vec<&'a str>,
    due_ms: Option<u64>,
    session: Option<&'a str>,
    in_flight: Option<u64>,
    hook_id: Option<String>,
    escalation_id: Option<String>,
    resources: Vec<ResourceView<'a>>,
    text: String,
}

/// A resource that a step waits for.
#[derive(Default, PartialEq)]
struct ResourceView<'a> {
    resource: &'a str,
    /// How many come before it, and itself.
    place: u64,
    holders: Vec<HolderView<'a>>,
}

object!(write ResourceView<'a> {
    "resource": req resource,
    "place": req place,
    "holders": req holders,
});

#[derive(Default, PartialEq)]
struct HolderView<'a> {
    coordination_id: &'a str,
    step_id: &'a str,
    session: &'a str,
    token: u64,
    since_ms: u64,
    expires_ms: u64,
}

object!(write HolderView<'a> {
    "coordinationId": req coordination_id,
    "stepId": req step_id,
    "session": req session,
    "token": req token,
    "sinceMs": req since_ms,
    "expiresMs": req expires_ms,
});

/// Who holds what a step waits for, since when, and its place in the order.
fn claim_wait<'a>(state: &'a State, live: &Coordination, step: &'a Step) -> Wait<'a> {
    let mut text = Vec::new();
    let mut resources = Vec::new();
    for claim in &step.def.claims {
        let claims = &state.index.claims;
        let waiter = claims.waiter(live, step, claim);
        let place = claims.place_of(&claim.resource, &waiter) as u64 + 1;
        let holders: Vec<HolderView<'_>> = contest::holders_of(state, live, step, claim)
            .into_iter()
            .map(|(other, holder, grant)| HolderView {
                coordination_id: &other.id,
                step_id: &holder.id,
                session: &holder.session,
                token: grant.token,
                since_ms: grant.since_ms,
                expires_ms: grant.expires_ms,
            })
            .collect();
        let held = match holders.first() {
            Some(first) => format!(
                "held by {} of {} in session {} since {}",
                first.step_id, first.coordination_id, first.session, first.since_ms
            ),
            None => "free".to_owned(),
        };
        text.push(format!("{} ({held}; place {place})", claim.resource));
        resources.push(ResourceView {
            resource: &claim.resource,
            place,
            holders,
        });
    }
    Wait {
        kind: "claim",
        resources,
        text: format!("waits for {}", text.join(", ")),
        ..Wait::default()
    }
}

object!(write Wait<'a> {
    "kind": req kind,
    "steps": set steps,
    "dueMs": opt due_ms,
    "session": opt session,
    "inFlight": opt in_flight,
    "hookId": opt hook_id,
    "escalationId": opt escalation_id,
    "resources": set resources,
    "text": req text,
});

/// What a step of a live coordination waits for.
pub(crate) fn explain_wait(state: &State, id: &str, step_id: &str) -> Option<String> {
    let live = state.live.get(id)?;
    let step = &live.steps[live.step_index(step_id)?];
    let waits_for = wait_of(state, live, step);
    Some(canonical(&WaitView {
        v: 1,
        coordination_id: &live.id,
        step_id: &step.id,
        state: step.state.name(),
        waits_for,
    }))
}

fn wait_of<'a>(state: &'a State, live: &'a Coordination, step: &'a Step) -> Wait<'a> {
    let slots = &state.index.slots;
    match step.state {
        StepState::Pending => {
            let open = |step_id: &&str| {
                live.step_index(step_id)
                    .is_some_and(|at| !live.steps[at].state.is_final())
            };
            let steps: Vec<&str> = step
                .def
                .depends_on
                .iter()
                .map(|dependency| &*dependency.step_id)
                .filter(open)
                .collect();
            let text = format!("waits for the end of {}", steps.join(", "));
            Wait {
                kind: "dependencies",
                steps,
                text,
                ..Wait::default()
            }
        }
        StepState::RetryWait if step.ready_ms > state.now_ms => {
            let why = step.message.as_deref().unwrap_or_default();
            let text = format!(
                "attempt {} goes out at {}, since the last one failed: {why}",
                step.attempt, step.ready_ms
            );
            Wait {
                kind: "retry",
                due_ms: Some(step.ready_ms),
                text,
                ..Wait::default()
            }
        }
        StepState::Ready | StepState::RetryWait if !slots.session_has_room(&step.session) => {
            let text = format!(
                "session {} is busy with {} other step(s)",
                step.session,
                slots.session_out(&step.session)
            );
            Wait {
                kind: "session",
                session: Some(&step.session),
                text,
                ..Wait::default()
            }
        }
        StepState::Ready | StepState::RetryWait => {
            let text = format!(
                "waits for one of the {} slots of the domain",
                slots.in_flight()
            );
            Wait {
                kind: "slot",
                in_flight: Some(slots.in_flight()),
                text,
                ..Wait::default()
            }
        }
        StepState::WaitingClaim => claim_wait(state, live, step),
        StepState::WaitingHook => {
            let hook = step.hooks.first();
            let due_ms = hook.map(|hook| hook.due_ms);
            Wait {
                kind: "hook",
                due_ms,
                hook_id: hook.map(|hook| format!("h{}", hook.seq)),
                text: format!(
                    "waits for the hooks, at the latest until {}",
                    due_ms.unwrap_or_default()
                ),
                ..Wait::default()
            }
        }
        StepState::WaitingHuman => {
            let open = step.escalation.as_ref();
            let due_ms = open.and_then(|open| open.due_ms).or(live.deadline_ms);
            Wait {
                kind: "human",
                due_ms,
                escalation_id: open.map(|open| format!("e{}", open.seq)),
                text: format!(
                    "waits for a person, at the latest until {}: {}",
                    due_ms.unwrap_or_default(),
                    open.map_or("", |open| &open.question)
                ),
                ..Wait::default()
            }
        }
        StepState::Dispatched | StepState::Acknowledged => {
            if let Some((stop, _)) = live.stop_of(step) {
                let text = format!(
                    "is being cancelled; it may end by itself until {}",
                    stop.grace_until_ms
                );
                return Wait {
                    kind: "grace",
                    due_ms: Some(stop.grace_until_ms),
                    text,
                    ..Wait::default()
                };
            }
            let (kind, what) = if step.state == StepState::Dispatched {
                ("ack", "an ack")
            } else {
                ("report", "a report")
            };
            let text = format!(
                "waits for {what} from {}, at the latest until {}",
                step.session, step.deadline_ms
            );
            Wait {
                kind,
                due_ms: Some(step.deadline_ms),
                session: Some(&step.session),
                text,
                ..Wait::default()
            }
        }
        _ => Wait {
            kind: "nothing",
            text: format!("is {}", step.state.name()),
            ..Wait::default()
        },
    }
}

struct DomainDigest<'a> {
    rules: u32,
    config_digest: Option<&'a str>,
    config_seq: Option<u64>,
    head: &'a Head,
    now_ms: u64,
    last_owner: Option<&'a str>,
    in_flight: u64,
}

object!(write DomainDigest<'a> {
    "rules": req rules,
    "configDigest": opt config_digest,
    "configSeq": opt config_seq,
    "head": req head,
    "nowMs": req now_ms,
    "lastOwner": opt last_owner,
    "inFlight": req in_flight,
});

struct TimerView {
    due_ms: u64,
    class: &'static str,
    step_id: Name,
    number: u64,
}

object!(write TimerView {
    "dueMs": req due_ms,
    "class": req class,
    "stepId": req step_id,
    "number": req number,
});

struct CoordinationDigest<'a> {
    describe: CoordinationView<'a>,
    rules: u32,
    identities: Vec<(&'a str, &'a Vec<(String, Identity)>)>,
    timers: Vec<TimerView>,
}

object!(write CoordinationDigest<'a> {
    "describe": req describe,
    "rules": req rules,
    "identities": req identities,
    "timers": req timers,
});

/// SHA-256 over one line for the domain and one for each coordination, in the order of their ids, live ones first.
pub(crate) fn state_digest(state: &State) -> String {
    let configured = state.configured.as_ref();
    let mut lines = canonical(&DomainDigest {
        rules: RULES,
        config_digest: configured.map(|configured| configured.digest.as_str()),
        config_seq: configured.map(|configured| configured.seq),
        head: &state.head,
        now_ms: state.now_ms,
        last_owner: state.last_owner.as_deref(),
        in_flight: state.index.slots.in_flight(),
    });
    for (_, live) in state.live.iter() {
        let known = live.steps.iter().filter(|step| !step.identities.is_empty());
        let timer = |timer: crate::timer::Timer| TimerView {
            due_ms: timer.due_ms,
            class: timer.class.name(),
            step_id: timer.step,
            number: timer.number,
        };
        lines.push('\n');
        lines.push_str(&canonical(&CoordinationDigest {
            describe: coordination_view(live),
            rules: live.rules,
            identities: known.map(|step| (&*step.id, &step.identities)).collect(),
            timers: live.timers().into_iter().map(timer).collect(),
        }));
    }
    for (id, closed) in state.closed.iter() {
        lines.push('\n');
        lines.push_str(&canonical(&(id, closed)));
    }
    sha256_hex(&[lines.as_bytes()])
}
