//! The only file that knows the bindings: it turns WIT types into those of the core and back.
//!
//! Holds no logic.

#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({ path: "../wit", world: "coordinator", pub_export_macro: false });
    use super::Component;
    export!(Component);
}

use bindings::exports::qm2::coordination::{arbitration, coordination, json, recovery};
use bindings::qm2::coordination::{event_stream, hooks, lanes, queue, types as wit};
use qm2_core::arbitration as contest;
use qm2_core::claim;
use qm2_core::envelope::{self as core, Envelope};
use qm2_core::machine::Machine;
use qm2_core::message::{
    Caller, HookKind, HookVerdict, Host, HumanVerdict, Message, Notice, NoticeKind, Refused, Role,
};
use qm2_core::receipt::{self, CallError, Remedy};
use std::cell::{RefCell, RefMut};

thread_local! {
    // It lives as long as the component, so nothing has to be kept ready for its end.
    static MACHINE: &'static RefCell<Machine> = Box::leak(Box::default());
}

struct Component;

impl coordination::Guest for Component {
    fn configure(config: String) -> Result<(), wit::CallError> {
        with(|machine| machine.configure(&mut Imports, &config))
    }

    fn submit_plan(
        caller: wit::Caller,
        now_ms: u64,
        plan: String,
    ) -> Result<Result<wit::PlanReceipt, wit::Rejection>, wit::CallError> {
        let answer =
            with(|machine| machine.submit_plan(&mut Imports, &to_caller(caller), now_ms, &plan))?;
        Ok(answer.map(from_plan_receipt).map_err(from_rejection))
    }

    fn submit(caller: wit::Caller, now_ms: u64, envelopes: Vec<wit::Envelope>) -> Answers {
        let envelopes: Vec<Envelope> = envelopes.into_iter().map(to_envelope).collect();
        with(|machine| machine.submit(&mut Imports, &to_caller(caller), now_ms, &envelopes))
            .map(from_answers)
    }

    fn acknowledge(caller: wit::Caller, now_ms: u64, keys: Vec<String>) -> Answers {
        with(|machine| machine.acknowledge(&mut Imports, &to_caller(caller), now_ms, &keys))
            .map(from_answers)
    }

    fn advance(now_ms: u64) -> Result<bool, wit::CallError> {
        with(|machine| machine.advance(&mut Imports, now_ms))
    }

    fn next_deadline() -> Result<Option<u64>, wit::CallError> {
        with(|machine| machine.next_deadline())
    }

    fn notice(now_ms: u64, notices: Vec<wit::Notice>) -> Answers {
        let notices: Vec<Notice> = notices.into_iter().map(to_notice).collect();
        with(|machine| machine.notice(&mut Imports, now_ms, &notices)).map(from_answers)
    }

    fn verdict(
        now_ms: u64,
        hook_id: String,
        handler: String,
        verdict: wit::HookVerdict,
    ) -> OneAnswer {
        let verdict = match verdict {
            wit::HookVerdict::NoOpinion => HookVerdict::NoOpinion,
            wit::HookVerdict::Deny(reason) => HookVerdict::Deny(reason),
            wit::HookVerdict::Review => HookVerdict::Review,
        };
        with(|machine| machine.verdict(&mut Imports, now_ms, &hook_id, &handler, &verdict))
            .map(from_answer)
    }

    fn answer(
        actor: wit::Caller,
        now_ms: u64,
        escalation_id: String,
        digest: String,
        verdict: wit::HumanVerdict,
        text: Option<String>,
    ) -> OneAnswer {
        let verdict = match verdict {
            wit::HumanVerdict::Approve => HumanVerdict::Approve,
            wit::HumanVerdict::Deny => HumanVerdict::Deny,
            wit::HumanVerdict::Completed => HumanVerdict::Completed,
        };
        let (actor, text) = (to_caller(actor), text.as_deref());
        with(|machine| {
            machine.answer(
                &mut Imports,
                &actor,
                now_ms,
                &escalation_id,
                &digest,
                verdict,
                text,
            )
        })
        .map(from_answer)
    }

    fn describe(id: String) -> Result<String, wit::CallError> {
        with(|machine| machine.describe(&id))
    }

    fn explain_wait(id: String, step_id: String) -> Result<String, wit::CallError> {
        with(|machine| machine.explain_wait(&id, &step_id))
    }

    fn head() -> Result<wit::LedgerHead, wit::CallError> {
        with(|machine| machine.head()).map(from_head)
    }
}

impl arbitration::Guest for Component {
    fn arbitrate(
        contest: wit::Contest,
        policy: wit::ArbiterPolicy,
    ) -> Result<wit::Decision, wit::CallError> {
        let (contest, policy) = (to_contest(contest), to_policy(policy));
        with(|machine| machine.arbitrate(&contest, &policy)).map(from_decision)
    }

    fn claim(
        caller: wit::Caller,
        now_ms: u64,
        request: wit::ClaimRequest,
    ) -> Result<Result<wit::Grant, wit::Rejection>, wit::CallError> {
        let (caller, request) = (to_caller(caller), to_claim_request(request));
        let answer = with(|machine| machine.claim(&mut Imports, &caller, now_ms, &request))?;
        Ok(answer.map(from_grant).map_err(from_rejection))
    }

    fn renew(
        caller: wit::Caller,
        now_ms: u64,
        id: String,
        step_id: String,
        attempt: u32,
        tokens: Vec<u64>,
    ) -> Result<Result<Vec<wit::Grant>, wit::Rejection>, wit::CallError> {
        let caller = to_caller(caller);
        let answer = with(|machine| {
            machine.renew(
                &mut Imports,
                &caller,
                now_ms,
                &id,
                &step_id,
                attempt,
                &tokens,
            )
        })?;
        Ok(answer
            .map(|grants| grants.into_iter().map(from_grant).collect())
            .map_err(from_rejection))
    }

    fn release(
        caller: wit::Caller,
        now_ms: u64,
        id: String,
        step_id: String,
        attempt: u32,
        tokens: Vec<u64>,
    ) -> OneAnswer {
        let caller = to_caller(caller);
        with(|machine| {
            machine.release(
                &mut Imports,
                &caller,
                now_ms,
                &id,
                &step_id,
                attempt,
                &tokens,
            )
        })
        .map(from_answer)
    }

    fn check(
        now_ms: u64,
        resource: String,
        session: String,
        token: u64,
        mode: wit::Access,
        regions: Vec<wit::Region>,
        base_version: Option<String>,
    ) -> Result<wit::GuardVerdict, wit::CallError> {
        let mode = match mode {
            wit::Access::Read => claim::Access::Read,
            wit::Access::Write => claim::Access::Write,
        };
        let (regions, base_version) = (to_regions(regions), base_version.as_deref());
        let verdict = with(|machine| {
            machine.check(
                now_ms,
                &resource,
                &session,
                token,
                mode,
                &regions,
                base_version,
            )
        })?;
        Ok(wit::GuardVerdict {
            allowed: verdict.allowed,
            reason: verdict.reason,
            expires_ms: verdict.expires_ms,
        })
    }
}

impl recovery::Guest for Component {
    fn replay(lines: Vec<String>, checked: bool) -> Result<wit::LedgerHead, wit::CallError> {
        with(|machine| machine.replay(&lines, checked)).map(from_head)
    }

    fn snapshot(
        cursor: Option<String>,
        max_bytes: u64,
    ) -> Result<wit::SnapshotChunk, wit::CallError> {
        let piece = with(|machine| machine.snapshot(cursor.as_deref(), max_bytes))?;
        Ok(wit::SnapshotChunk {
            chunk: piece.chunk,
            next: piece.next,
        })
    }

    fn restore(chunk: String, last: bool) -> Result<wit::LedgerHead, wit::CallError> {
        with(|machine| machine.restore(&chunk, last)).map(from_head)
    }

    fn reconcile() -> Result<(), wit::CallError> {
        with(|machine| machine.reconcile(&mut Imports))
    }

    fn state_digest() -> Result<String, wit::CallError> {
        with(|machine| machine.state_digest())
    }
}

/// Every function of the JSON door is the same one under its name.
macro_rules! doors {
    ($($function:ident $name:literal)*) => {
        impl json::Guest for Component { $(
            fn $function(request: String) -> String {
                door($name, &request)
            }
        )* }
    };
}

doors! {
    configure "configure"
    submit_plan "submit-plan"
    submit "submit"
    acknowledge "acknowledge"
    advance "advance"
    next_deadline "next-deadline"
    notice "notice"
    verdict "verdict"
    answer "answer"
    arbitrate "arbitrate"
    claim "claim"
    renew "renew"
    release "release"
    check "check"
    describe "describe"
    explain_wait "explain-wait"
    head "head"
    replay "replay"
    snapshot "snapshot"
    restore "restore"
    reconcile "reconcile"
    state_digest "state-digest"
}

#[inline(never)]
fn door(function: &str, request: &str) -> String {
    qm2_core::door::answer(function, request, &mut |call| {
        machine().call(&mut Imports, call)
    })
}

type OneAnswer = Result<Result<wit::Receipt, wit::Rejection>, wit::CallError>;
type Answers = Result<Vec<Result<wit::Receipt, wit::Rejection>>, wit::CallError>;

fn with<T>(call: impl FnOnce(&mut Machine) -> Result<T, CallError>) -> Result<T, wit::CallError> {
    call(&mut machine()).map_err(from_call_error)
}

// One copy of the way to it.
#[inline(never)]
fn machine() -> RefMut<'static, Machine> {
    MACHINE.with(|machine| machine.borrow_mut())
}

/// The host's side, as the core sees it.
struct Imports;

impl Host for Imports {
    fn append(&mut self, lines: Vec<String>) -> Result<(), Refused> {
        event_stream::append(&lines).map_err(|_| Refused)
    }

    fn enqueue(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        let messages: Vec<wit::Message> = messages.into_iter().map(from_message).collect();
        queue::enqueue(&messages).map_err(|_| Refused)
    }

    fn withdraw(&mut self, keys: Vec<String>) -> Result<(), Refused> {
        queue::withdraw(&keys).map_err(|_| Refused)
    }

    fn enqueue_in_lane(&mut self, message: Message) -> Result<(), Refused> {
        let priority = from_priority(message.priority);
        let lane = message.lane.clone();
        lanes::enqueue_in_lane(&lane, priority, &from_message(message)).map_err(|_| Refused)
    }

    fn cancel(&mut self, keys: Vec<String>) -> Result<(), Refused> {
        lanes::cancel(&keys).map_err(|_| Refused)
    }

    fn ask(&mut self, hook_id: &str, kind: HookKind, subject: &str) -> Result<(), Refused> {
        let kind = match kind {
            HookKind::BeforeDispatch => wit::HookKind::BeforeDispatch,
            HookKind::BeforeArbitrate => wit::HookKind::BeforeArbitrate,
            // The others are told, never asked.
            _ => return Err(Refused),
        };
        hooks::ask(hook_id, kind, subject).map_err(|_| Refused)
    }

    fn notify(&mut self, kind: HookKind, subject: &str) -> Result<(), Refused> {
        let kind = match kind {
            HookKind::EscalationRequested => wit::HookNotice::EscalationRequested,
            HookKind::StepEnded => wit::HookNotice::StepEnded,
            HookKind::CoordinationEnded => wit::HookNotice::CoordinationEnded,
            HookKind::MessageUndelivered => wit::HookNotice::MessageUndelivered,
            // The others are asked, never told.
            _ => return Err(Refused),
        };
        hooks::notify(kind, subject).map_err(|_| Refused)
    }
}

fn to_caller(caller: wit::Caller) -> Caller {
    let role = caller.role.map(|role| match role {
        wit::Role::User => Role::User,
        wit::Role::Operator => Role::Operator,
        wit::Role::Admin => Role::Admin,
        wit::Role::Owner => Role::Owner,
    });
    Caller {
        session: caller.session,
        role,
    }
}

fn to_notice(notice: wit::Notice) -> Notice {
    let kind = match notice.kind {
        wit::NoticeKind::UnknownTarget => NoticeKind::UnknownTarget,
        wit::NoticeKind::Dropped => NoticeKind::Dropped,
        wit::NoticeKind::HostLost => NoticeKind::HostLost,
        wit::NoticeKind::Taken => NoticeKind::Taken,
        wit::NoticeKind::Unreachable => NoticeKind::Unreachable,
    };
    Notice {
        key: notice.key,
        kind,
    }
}

fn to_envelope(envelope: wit::Envelope) -> Envelope {
    let (payload, payload_ref) = match envelope.payload {
        wit::Payload::Empty => (None, None),
        wit::Payload::Text(text) => (Some(text), None),
        wit::Payload::Reference(wit::PayloadRef { uri, sha256, bytes }) => {
            (None, Some(core::PayloadRef { uri, sha256, bytes }))
        }
    };
    Envelope {
        coordination_id: envelope.coordination_id,
        step_id: envelope.step_id,
        parent_step_id: envelope.parent_step_id,
        attempt: envelope.attempt,
        source_session: envelope.source_session,
        target_session: envelope.target_session,
        intent: match envelope.intent {
            wit::Intent::Execute => core::Intent::Execute,
            wit::Intent::Report => core::Intent::Report,
            wit::Intent::Cancel => core::Intent::Cancel,
            wit::Intent::Escalate => core::Intent::Escalate,
            wit::Intent::Ack => core::Intent::Ack,
        },
        priority: to_priority(envelope.priority),
        delivery_mode: match envelope.delivery_mode {
            wit::DeliveryMode::BestEffort => core::DeliveryMode::BestEffort,
            wit::DeliveryMode::AtLeastOnce => core::DeliveryMode::AtLeastOnce,
        },
        deadline_ms: envelope.deadline_ms,
        created_at_ms: envelope.created_at_ms,
        trace: core::Trace {
            run_id: envelope.trace.run_id,
            span_id: envelope.trace.span_id,
            causal_ref: envelope.trace.causal_ref,
            traceparent: envelope.trace.traceparent,
        },
        content_type: envelope.content_type,
        payload,
        payload_ref,
        extensions: envelope
            .extensions
            .into_iter()
            .map(|extension| core::Extension {
                name: extension.name,
                text: extension.text,
            })
            .collect(),
        outcome: envelope.outcome.map(|outcome| match outcome {
            wit::Outcome::Completed => core::Outcome::Completed,
            wit::Outcome::Failed(failure) => core::Outcome::Failed {
                class: match failure.class {
                    wit::FailureClass::Retryable => core::FailureClass::Retryable,
                    wit::FailureClass::Permanent => core::FailureClass::Permanent,
                    wit::FailureClass::Unknown => core::FailureClass::Unknown,
                },
                code: failure.code,
                message: failure.message,
            },
            wit::Outcome::Progress(number) => core::Outcome::Progress { number },
        }),
        reason: envelope.reason,
        question: envelope.question.map(|question| core::Question {
            number: question.number,
            text: question.text,
        }),
        tokens: envelope
            .tokens
            .into_iter()
            .map(|token| claim::Token {
                resource: token.resource,
                token: token.token,
            })
            .collect(),
    }
}

fn to_priority(priority: wit::Priority) -> core::Priority {
    match priority {
        wit::Priority::Low => core::Priority::Low,
        wit::Priority::Normal => core::Priority::Normal,
        wit::Priority::High => core::Priority::High,
        wit::Priority::Critical => core::Priority::Critical,
    }
}

fn to_mode(mode: wit::ClaimMode) -> claim::Mode {
    match mode {
        wit::ClaimMode::Shared => claim::Mode::Shared,
        wit::ClaimMode::Exclusive => claim::Mode::Exclusive,
    }
}

fn to_regions(regions: Vec<wit::Region>) -> Vec<claim::Region> {
    regions
        .into_iter()
        .map(|wit::Region { start, end }| claim::Region { start, end })
        .collect()
}

fn to_strategy(strategy: wit::Strategy) -> contest::Strategy {
    match strategy {
        wit::Strategy::OwnerWins => contest::Strategy::OwnerWins,
        wit::Strategy::PriorityWins => contest::Strategy::PriorityWins,
        wit::Strategy::MergeIfSafe => contest::Strategy::MergeIfSafe,
        wit::Strategy::ManualReview => contest::Strategy::ManualReview,
    }
}

fn to_policy(policy: wit::ArbiterPolicy) -> contest::Policy {
    contest::Policy {
        default: to_strategy(policy.default_strategy),
        rules: policy
            .rules
            .into_iter()
            .map(|rule| contest::Rule {
                resource: rule.resource,
                strategy: to_strategy(rule.strategy),
            })
            .collect(),
        owners: policy
            .owners
            .into_iter()
            .map(|owner| contest::Owner {
                resource: owner.resource,
                session: owner.session,
            })
            .collect(),
        high_risk: policy.high_risk,
        preempt: policy.preempt,
    }
}

fn to_contender(contender: wit::Contender) -> contest::Contender {
    contest::Contender {
        coordination_id: contender.coordination_id,
        step_id: contender.step_id,
        attempt: contender.attempt,
        session: contender.session,
        priority: to_priority(contender.priority),
        claim_number: contender.claim_number,
        mode: to_mode(contender.mode),
        base_version: contender.base_version,
        regions: to_regions(contender.regions),
        token: contender.token,
        expires_ms: contender.expires_ms,
        preemptible: contender.preemptible,
    }
}

fn to_contest(value: wit::Contest) -> contest::Contest {
    contest::Contest {
        resource: value.resource,
        at_ms: value.at_ms,
        contenders: value.contenders.into_iter().map(to_contender).collect(),
        holders: value.holders.into_iter().map(to_contender).collect(),
    }
}

fn from_decision(decision: contest::Decision) -> wit::Decision {
    wit::Decision {
        stage: match decision.stage {
            contest::Stage::Ownership => wit::DecisionStage::Ownership,
            contest::Stage::Lease => wit::DecisionStage::Lease,
            contest::Stage::Strategy => wit::DecisionStage::Strategy,
            contest::Stage::Hook => wit::DecisionStage::Hook,
            contest::Stage::Human => wit::DecisionStage::Human,
        },
        strategy: match decision.strategy {
            contest::Strategy::OwnerWins => wit::Strategy::OwnerWins,
            contest::Strategy::PriorityWins => wit::Strategy::PriorityWins,
            contest::Strategy::MergeIfSafe => wit::Strategy::MergeIfSafe,
            contest::Strategy::ManualReview => wit::Strategy::ManualReview,
        },
        outcomes: decision.outcomes.into_iter().map(from_outcome).collect(),
        reason: decision.reason,
    }
}

fn from_outcome(outcome: contest::ContenderOutcome) -> wit::ContenderOutcome {
    wit::ContenderOutcome {
        coordination_id: outcome.coordination_id,
        step_id: outcome.step_id,
        outcome: match outcome.outcome {
            contest::OutcomeKind::Granted => wit::OutcomeKind::Granted,
            contest::OutcomeKind::Waits => wit::OutcomeKind::Waits,
            contest::OutcomeKind::Refused => wit::OutcomeKind::Refused,
            contest::OutcomeKind::Review => wit::OutcomeKind::Review,
            contest::OutcomeKind::Preempts => wit::OutcomeKind::Preempts,
        },
        order: outcome.order,
    }
}

fn to_claim_request(request: wit::ClaimRequest) -> claim::ClaimRequest {
    claim::ClaimRequest {
        coordination_id: request.coordination_id,
        step_id: request.step_id,
        attempt: request.attempt,
        resource: request.resource,
        mode: to_mode(request.mode),
        lease_ms: request.lease_ms,
        base_version: request.base_version,
        regions: to_regions(request.regions),
    }
}

fn from_grant(grant: receipt::GrantReceipt) -> wit::Grant {
    wit::Grant {
        resource: grant.resource,
        token: grant.token,
        expires_ms: grant.expires_ms,
    }
}

fn from_priority(priority: core::Priority) -> wit::Priority {
    match priority {
        core::Priority::Low => wit::Priority::Low,
        core::Priority::Normal => wit::Priority::Normal,
        core::Priority::High => wit::Priority::High,
        core::Priority::Critical => wit::Priority::Critical,
    }
}

fn from_delivery_mode(mode: core::DeliveryMode) -> wit::DeliveryMode {
    match mode {
        core::DeliveryMode::BestEffort => wit::DeliveryMode::BestEffort,
        core::DeliveryMode::AtLeastOnce => wit::DeliveryMode::AtLeastOnce,
    }
}

fn from_message(message: Message) -> wit::Message {
    wit::Message {
        key: message.key,
        delivery: message.delivery,
        lane: message.lane,
        priority: from_priority(message.priority),
        delivery_mode: from_delivery_mode(message.delivery_mode),
        deadline_ms: message.deadline_ms,
        envelope: from_envelope(message.envelope),
    }
}

fn from_envelope(envelope: Envelope) -> wit::Envelope {
    let payload = match (envelope.payload, envelope.payload_ref) {
        (_, Some(core::PayloadRef { uri, sha256, bytes })) => {
            wit::Payload::Reference(wit::PayloadRef { uri, sha256, bytes })
        }
        (Some(text), None) => wit::Payload::Text(text),
        (None, None) => wit::Payload::Empty,
    };
    wit::Envelope {
        coordination_id: envelope.coordination_id,
        step_id: envelope.step_id,
        parent_step_id: envelope.parent_step_id,
        attempt: envelope.attempt,
        source_session: envelope.source_session,
        target_session: envelope.target_session,
        intent: match envelope.intent {
            core::Intent::Execute => wit::Intent::Execute,
            core::Intent::Report => wit::Intent::Report,
            core::Intent::Cancel => wit::Intent::Cancel,
            core::Intent::Escalate => wit::Intent::Escalate,
            core::Intent::Ack => wit::Intent::Ack,
        },
        priority: from_priority(envelope.priority),
        delivery_mode: from_delivery_mode(envelope.delivery_mode),
        deadline_ms: envelope.deadline_ms,
        created_at_ms: envelope.created_at_ms,
        trace: wit::Trace {
            run_id: envelope.trace.run_id,
            span_id: envelope.trace.span_id,
            causal_ref: envelope.trace.causal_ref,
            traceparent: envelope.trace.traceparent,
        },
        content_type: envelope.content_type,
        payload,
        extensions: envelope
            .extensions
            .into_iter()
            .map(|extension| wit::Extension {
                name: extension.name,
                text: extension.text,
            })
            .collect(),
        outcome: envelope.outcome.map(|outcome| match outcome {
            core::Outcome::Completed => wit::Outcome::Completed,
            core::Outcome::Failed {
                class,
                code,
                message,
            } => wit::Outcome::Failed(wit::Failure {
                class: match class {
                    core::FailureClass::Retryable => wit::FailureClass::Retryable,
                    core::FailureClass::Permanent => wit::FailureClass::Permanent,
                    core::FailureClass::Unknown => wit::FailureClass::Unknown,
                },
                code,
                message,
            }),
            core::Outcome::Progress { number } => wit::Outcome::Progress(number),
        }),
        reason: envelope.reason,
        question: envelope.question.map(|question| wit::Question {
            number: question.number,
            text: question.text,
        }),
        tokens: envelope
            .tokens
            .into_iter()
            .map(|token| wit::FencingToken {
                resource: token.resource,
                token: token.token,
            })
            .collect(),
    }
}

fn from_head(head: receipt::Head) -> wit::LedgerHead {
    wit::LedgerHead {
        seq: head.seq,
        hash: head.hash,
    }
}

fn from_plan_receipt(receipt: receipt::PlanReceipt) -> wit::PlanReceipt {
    wit::PlanReceipt {
        coordination_id: receipt.coordination_id,
        plan_digest: receipt.plan_digest,
        created_seq: receipt.created_seq,
        replayed: receipt.replayed,
        state: receipt.state,
        terminal: receipt.terminal,
    }
}

fn from_answers(
    answers: Vec<Result<receipt::Receipt, receipt::Rejection>>,
) -> Vec<Result<wit::Receipt, wit::Rejection>> {
    answers.into_iter().map(from_answer).collect()
}

fn from_answer(
    answer: Result<receipt::Receipt, receipt::Rejection>,
) -> Result<wit::Receipt, wit::Rejection> {
    answer.map(from_receipt).map_err(from_rejection)
}

fn from_receipt(receipt: receipt::Receipt) -> wit::Receipt {
    let status = match receipt.status {
        receipt::ReceiptStatus::Accepted => wit::ReceiptStatus::Accepted,
        receipt::ReceiptStatus::Replayed => wit::ReceiptStatus::Replayed,
        receipt::ReceiptStatus::Late => wit::ReceiptStatus::Late,
    };
    wit::Receipt {
        status,
        seq: receipt.seq,
        state: receipt.state,
    }
}

fn from_rejection(rejection: receipt::Rejection) -> wit::Rejection {
    use receipt::RejectionCode as Code;
    let code = match rejection.code {
        Code::InvalidField => wit::RejectionCode::InvalidField,
        Code::InvalidPlan => wit::RejectionCode::InvalidPlan,
        Code::PlanConflict => wit::RejectionCode::PlanConflict,
        Code::UnknownCoordination => wit::RejectionCode::UnknownCoordination,
        Code::UnknownStep => wit::RejectionCode::UnknownStep,
        Code::UnknownAttempt => wit::RejectionCode::UnknownAttempt,
        Code::UnknownKey => wit::RejectionCode::UnknownKey,
        Code::UnauthorizedSession => wit::RejectionCode::UnauthorizedSession,
        Code::ContentMismatch => wit::RejectionCode::ContentMismatch,
        Code::NotDispatched => wit::RejectionCode::NotDispatched,
        Code::NotRunning => wit::RejectionCode::NotRunning,
        Code::StaleQuestion => wit::RejectionCode::StaleQuestion,
        Code::NotEligible => wit::RejectionCode::NotEligible,
        Code::NoHuman => wit::RejectionCode::NoHuman,
        Code::ClaimRefused => wit::RejectionCode::ClaimRefused,
        Code::Bound => wit::RejectionCode::Bound,
        Code::DeadlinePast => wit::RejectionCode::DeadlinePast,
        Code::CoordinationStopping => wit::RejectionCode::CoordinationStopping,
        Code::Closed => wit::RejectionCode::Closed,
        Code::DomainFull => wit::RejectionCode::DomainFull,
        Code::ComponentFault => wit::RejectionCode::ComponentFault,
    };
    let next = match rejection.next {
        Remedy::Fix => wit::Remedy::Fix,
        Remedy::Retry { after_ms } => wit::Remedy::Retry(after_ms),
        Remedy::Stop => wit::Remedy::Stop,
        Remedy::Ask => wit::Remedy::Ask,
    };
    let problem = |problem: receipt::Problem| wit::Problem {
        step_id: problem.step_id,
        field: problem.field,
        code: problem.code,
        message: problem.message,
    };
    wit::Rejection {
        code,
        field: rejection.field,
        message: rejection.message,
        next,
        seq: rejection.seq,
        problems: rejection.problems.into_iter().map(problem).collect(),
    }
}

fn from_call_error(error: CallError) -> wit::CallError {
    match error {
        CallError::Disabled => wit::CallError::Disabled,
        CallError::InvalidConfig(blame) => wit::CallError::InvalidConfig(from_blame(blame)),
        CallError::Bound(blame) => wit::CallError::Bound(from_blame(blame)),
        CallError::Busy => wit::CallError::Busy,
        CallError::LedgerUnavailable => wit::CallError::LedgerUnavailable,
        CallError::Rebuild => wit::CallError::Rebuild,
        CallError::ReadOnly(fault) => wit::CallError::ReadOnly(wit::LedgerFault {
            seq: fault.seq,
            kind: match fault.kind {
                receipt::LedgerFaultKind::BrokenChain => wit::LedgerFaultKind::BrokenChain,
                receipt::LedgerFaultKind::Nondeterminism => wit::LedgerFaultKind::Nondeterminism,
                receipt::LedgerFaultKind::Unsupported => wit::LedgerFaultKind::Unsupported,
            },
            message: fault.message,
        }),
        CallError::Unknown(what) => wit::CallError::Unknown(what),
    }
}

fn from_blame(blame: receipt::Blame) -> wit::Blame {
    let receipt::Blame { field, message } = blame;
    wit::Blame { field, message }
}
