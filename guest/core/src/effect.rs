//! Effects: what the host is to do after a record is durable.
//!
//! They follow from the record and the state after it, so replay, which hands out none, and `reconcile`, which hands
//! out again what is still out, need nothing but the ledger.

use crate::claim::Token;
use crate::codec::{self, object};
use crate::contest;
use crate::describe;
use crate::envelope::{DeliveryMode, Envelope, FailureClass, Intent, Outcome, Priority, Question};
use crate::event::{Event, Record};
use crate::hook;
use crate::id::{
    attempt_key, prefixed_attempt_key, report_key, split_attempt_key, split_number,
    split_report_key,
};
use crate::message::{
    CANCEL_PREFIX, HookKind, Host, LANE_CONTROL, LANE_DATA, LANE_ESCALATION, Message, PROBE_PREFIX,
};
use crate::state::{Coordination, Reply, Report, State, Step, StepHook, StepState};

/// What is handed to the host after one call.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    messages: Vec<Message>,
    lane_messages: Vec<Message>,
    withdrawn: Vec<String>,
    cancelled: Vec<String>,
    /// Hook requests with their kinds and subjects, and what hooks are told.
    asked: Vec<(String, HookKind, String)>,
    told: Vec<(HookKind, String)>,
}

impl Effects {
    /// Best effort goes straight to a lane.
    fn send(&mut self, message: Message) {
        match message.delivery_mode {
            DeliveryMode::AtLeastOnce => self.messages.push(message),
            DeliveryMode::BestEffort => self.lane_messages.push(message),
        }
    }

    /// Hands everything out. A host that is busy gets it again from the next `reconcile` (M3).
    pub(crate) fn hand_out(self, host: &mut dyn Host) {
        if !self.messages.is_empty() {
            let _busy = host.enqueue(self.messages);
        }
        for message in self.lane_messages {
            let _busy = host.enqueue_in_lane(message);
        }
        if !self.withdrawn.is_empty() {
            let _busy = host.withdraw(self.withdrawn);
        }
        if !self.cancelled.is_empty() {
            let _busy = host.cancel(self.cancelled);
        }
        for (id, kind, subject) in &self.asked {
            let _busy = host.ask(id, *kind, subject);
        }
        for (kind, subject) in &self.told {
            let _busy = host.notify(*kind, subject);
        }
    }

    /// Adds what a record that was just applied asks for.
    pub(crate) fn add(&mut self, state: &State, record: &Record, line: &str) {
        self.tell(state, record, line);
        let Some(coordination) = record
            .coordination_id
            .as_deref()
            .and_then(|id| state.live.get(id))
        else {
            return;
        };
        let index = record
            .step_id
            .as_deref()
            .and_then(|step_id| coordination.step_index(step_id));
        let step = index.map(|index| &coordination.steps[index]);
        match (&record.event, step) {
            (Event::Dispatched(_), Some(step)) => self.send(execute(coordination, step)),
            (Event::Redelivered(data), _) => self.redeliver(state, coordination, &data.key),
            (Event::RetryScheduled(data), Some(step)) => {
                let calls_back = calls_back(data.content_digest.as_ref(), &data.code);
                let attempt = record.attempt.unwrap_or(1);
                self.end_attempt(coordination, step, attempt, record.at_ms, calls_back);
            }
            (Event::Completed(_) | Event::Failed(_), Some(step)) if step.delivery > 0 => {
                let unheard = matches!(&record.event, Event::Failed(data)
                    if calls_back(data.content_digest.as_ref(), &data.code));
                self.end_attempt(coordination, step, step.attempt, record.at_ms, unheard);
            }
            (Event::Escalated(data), Some(step)) if data.class.is_some() => {
                let code = data.code.as_deref().unwrap_or_default();
                let unheard = calls_back(data.content_digest.as_ref(), code);
                self.end_attempt(coordination, step, step.attempt, record.at_ms, unheard);
            }
            (Event::Resolved(_), Some(step)) => self.preempt(state, step, record),
            (Event::HookRequested(_), Some(step)) => {
                let hook = step.hooks.iter().find(|hook| hook.seq == record.seq);
                self.ask(coordination, step, hook);
            }
            (Event::HumanRequested(_), Some(step)) => self.question(coordination, step),
            (Event::HumanDecided(data), Some(step)) if data.is_final => {
                self.question_over(coordination, step, &data.escalation_id, record.seq);
            }
            (Event::HumanExpired(data), Some(step)) => {
                self.question_over(coordination, step, &data.escalation_id, record.seq);
            }
            (Event::TimedOut(_) | Event::Cancelled(_), Some(step)) if step.delivery > 0 => {
                self.end_attempt(coordination, step, step.attempt, record.at_ms, true);
            }
            (Event::CancelRequested(_), Some(step)) if step.is_out() => {
                self.send(cancel(coordination, step, step.attempt, record.at_ms));
            }
            (Event::CancelRequested(_), None) => self.cancel_all(coordination, record.at_ms),
            _ => {}
        }
        if coordination.trip.is_some_and(|stop| stop.seq == record.seq) {
            self.cancel_all(coordination, record.at_ms);
        }
        if let Some(report) = coordination.report(record.seq) {
            self.send(report_message(state, coordination, record.seq, report));
        }
    }

    /// Tells hooks of ends, where they want to know.
    fn tell(&mut self, state: &State, record: &Record, line: &str) {
        let kind = match &record.event {
            Event::Completed(_)
            | Event::Failed(_)
            | Event::TimedOut(_)
            | Event::Cancelled(_)
            | Event::Skipped(_) => HookKind::StepEnded,
            Event::Terminal(_) => HookKind::CoordinationEnded,
            Event::Undelivered(_) => HookKind::MessageUndelivered,
            Event::HumanRequested(_) => HookKind::EscalationRequested,
            _ => return,
        };
        if hook::is_registered(state, kind) {
            // The record itself, as the ledger has it, says all there is.
            self.told.push((kind, line.to_owned()));
        }
    }

    fn ask(&mut self, coordination: &Coordination, step: &Step, hook: Option<&StepHook>) {
        if let Some(hook) = hook {
            let subject = hook::subject(coordination, step, hook);
            self.asked
                .push((format!("h{}", hook.seq), hook.kind, subject));
        }
    }

    /// Cancel messages for attempts that are ended in favour of this step.
    fn preempt(&mut self, state: &State, step: &Step, record: &Record) {
        let decided = step
            .contests
            .iter()
            .flat_map(|contest| &contest.detected.holders);
        for token in decided.filter_map(|holder| holder.token) {
            let place = state.index.claims.holder(token);
            let victim = place.and_then(|place| contest::step_at(state, place));
            if let Some((coordination, victim)) = victim
                && victim.preempted.is_some_and(|stop| stop.seq == record.seq)
            {
                let cancel = cancel(coordination, victim, victim.attempt, record.at_ms);
                if !self.messages.contains(&cancel) {
                    self.send(cancel);
                }
            }
        }
    }

    /// Messages to the people of the level that is asked.
    fn question(&mut self, coordination: &Coordination, step: &Step) {
        let Some(open) = step
            .escalation
            .as_ref()
            .filter(|open| open.due_ms.is_some())
        else {
            return;
        };
        for (number, session) in sessions_of(coordination, open.level).iter().enumerate() {
            let key = escalation_key(open.seq, open.level, number);
            let question = Question {
                number: open.number.unwrap_or_default(),
                text: open.question.clone(),
            };
            let envelope = Envelope {
                target_session: session.clone(),
                delivery_mode: DeliveryMode::AtLeastOnce,
                deadline_ms: open.due_ms,
                content_type: Some("application/json".into()),
                payload: Some(describe::escalation(coordination, step, open)),
                question: Some(question),
                ..to_session(
                    coordination,
                    step,
                    Intent::Escalate,
                    step.attempt,
                    open.at_ms,
                )
            };
            self.send(Message {
                lane: LANE_ESCALATION.into(),
                ..control_as(key, 1, step.def.priority, envelope)
            });
        }
    }

    /// A question, or a level of it, is over: its messages are, and whoever asked gets the answer.
    fn question_over(&mut self, coordination: &Coordination, step: &Step, id: &str, seq: u64) {
        let Some(number) = split_number(id, 'e') else {
            return;
        };
        let levels = coordination.human().map_or(0, |human| human.levels.len());
        for level in (1..=levels).filter_map(|level| u32::try_from(level).ok()) {
            let open = step.escalation.as_ref();
            if open.is_some_and(|open| open.seq == number && level > open.level) {
                continue;
            }
            for place in 0..sessions_of(coordination, level).len() {
                self.withdrawn.push(escalation_key(number, level, place));
            }
        }
        let reply = step.replies.last().filter(|reply| reply.seq == seq);
        if let Some(reply) = reply {
            self.send(answer(coordination, step, reply));
        }
    }

    fn redeliver(&mut self, state: &State, coordination: &Coordination, key: &str) {
        if let Some(seq) = split_report_key(key) {
            if let Some(report) = coordination.report(seq) {
                self.send(report_message(state, coordination, seq, report));
            }
            return;
        }
        let index =
            split_attempt_key(key).and_then(|(_, step_id, _)| coordination.step_index(step_id));
        if let Some(index) = index {
            self.send(execute(coordination, &coordination.steps[index]));
        }
    }

    /// The attempt is over: its message must not be sent any more, and who may still work on it is told.
    fn end_attempt(
        &mut self,
        coordination: &Coordination,
        step: &Step,
        attempt: u32,
        at_ms: u64,
        calls_back: bool,
    ) {
        let key = attempt_key(&coordination.id, &step.id, attempt);
        match step.def.delivery_mode {
            DeliveryMode::AtLeastOnce => self.withdrawn.push(key),
            DeliveryMode::BestEffort => self.cancelled.push(key),
        }
        if calls_back {
            self.send(cancel(coordination, step, attempt, at_ms));
        }
    }

    /// Cancel messages for everything that is out and is not cleanup.
    fn cancel_all(&mut self, coordination: &Coordination, at_ms: u64) {
        let out = coordination
            .steps
            .iter()
            .filter(|step| step.is_out() && !step.def.cleanup);
        for step in out {
            self.send(cancel(coordination, step, step.attempt, at_ms));
        }
    }

    /// Everything that is out, again, under the same keys and deliveries.
    pub(crate) fn reconcile(state: &State) -> Self {
        let mut effects = Self::default();
        for (_, coordination) in state.live.iter() {
            for step in &coordination.steps {
                for hook in &step.hooks {
                    effects.ask(coordination, step, Some(hook));
                }
                effects.question(coordination, step);
                if !step.is_out() {
                    continue;
                }
                for reply in &step.replies {
                    effects.send(answer(coordination, step, reply));
                }
                let durable = step.def.delivery_mode == DeliveryMode::AtLeastOnce;
                if durable && step.state == StepState::Dispatched {
                    effects.send(execute(coordination, step));
                } else {
                    effects.send(probe(coordination, step));
                }
                let stop = coordination.stop_of(step).map(|(stop, _)| stop);
                if let Some(stop) = stop.or(step.preempted) {
                    effects.send(cancel(coordination, step, step.attempt, stop.at_ms));
                }
            }
            for (seq, report) in coordination
                .reports
                .iter()
                .filter(|(_, report)| report.next_due_ms.is_some())
            {
                effects.send(report_message(state, coordination, *seq, report));
            }
        }
        effects
    }
}

/// An envelope to the session of a step, without content.
fn to_session(
    coordination: &Coordination,
    step: &Step,
    intent: Intent,
    attempt: u32,
    at_ms: u64,
) -> Envelope {
    Envelope {
        coordination_id: (*coordination.id).to_owned(),
        step_id: Some((*step.id).to_owned()),
        parent_step_id: step.def.parent_step_id.clone(),
        attempt: Some(attempt),
        source_session: (*coordination.owner).to_owned(),
        target_session: (*step.session).to_owned(),
        intent,
        priority: step.def.priority,
        delivery_mode: step.def.delivery_mode,
        deadline_ms: None,
        created_at_ms: at_ms,
        trace: coordination.plan.trace.clone(),
        content_type: None,
        payload: None,
        payload_ref: None,
        extensions: Vec::new(),
        outcome: None,
        reason: None,
        question: None,
        tokens: Vec::new(),
    }
}

/// Somebody may still be at work on an attempt that ended without a word from it or from its host.
fn calls_back(content_digest: Option<&String>, code: &str) -> bool {
    content_digest.is_none() && !matches!(code, "host-lost" | "unknown-target" | "dropped")
}

/// Who is told of a question at a level.
fn sessions_of(coordination: &Coordination, level: u32) -> &[String] {
    let level = coordination
        .human()
        .and_then(|human| human.levels.get(level as usize - 1));
    level.map_or(&[], |level| &level.sessions)
}

/// Key of a question's message to the session at a place of a level.
fn escalation_key(seq: u64, level: u32, place: usize) -> String {
    format!("escalation:e{seq}:{level}:{}", place + 1)
}

/// A person's words to the session that asked.
fn answer(coordination: &Coordination, step: &Step, reply: &Reply) -> Message {
    let envelope = Envelope {
        source_session: reply.actor.clone(),
        delivery_mode: DeliveryMode::AtLeastOnce,
        payload: Some(reply.text.clone()),
        outcome: Some(Outcome::Completed),
        ..to_session(
            coordination,
            step,
            Intent::Report,
            step.attempt,
            reply.at_ms,
        )
    };
    Message {
        lane: LANE_DATA.into(),
        ..control_as(
            format!("answer:e{}", reply.escalation),
            1,
            step.def.priority,
            envelope,
        )
    }
}

fn control_as(key: String, delivery: u32, priority: Priority, envelope: Envelope) -> Message {
    Message {
        key,
        delivery,
        lane: LANE_CONTROL.into(),
        priority,
        delivery_mode: envelope.delivery_mode,
        deadline_ms: envelope.deadline_ms,
        envelope,
    }
}

fn control(prefix: &str, delivery: u32, priority: Priority, envelope: Envelope) -> Message {
    let (id, step_id) = (
        &envelope.coordination_id,
        envelope.step_id.as_deref().unwrap_or_default(),
    );
    let attempt = envelope.attempt.unwrap_or_default();
    let key = prefixed_attempt_key(prefix, id, step_id, attempt);
    control_as(key, delivery, priority, envelope)
}

/// The message of an attempt, under the same key in every delivery (M4).
fn execute(coordination: &Coordination, step: &Step) -> Message {
    let envelope = Envelope {
        deadline_ms: Some(step.deadline_ms),
        content_type: step.def.content_type.clone(),
        payload: step.def.payload.clone(),
        payload_ref: step.def.payload_ref.clone(),
        tokens: step
            .grants
            .iter()
            .map(|grant| Token {
                resource: grant.resource.clone(),
                token: grant.token,
            })
            .collect(),
        ..to_session(
            coordination,
            step,
            Intent::Execute,
            step.attempt,
            step.dispatched_ms,
        )
    };
    control("", step.delivery, step.def.priority, envelope)
}

fn probe(coordination: &Coordination, step: &Step) -> Message {
    let envelope = Envelope {
        delivery_mode: DeliveryMode::AtLeastOnce,
        ..to_session(
            coordination,
            step,
            Intent::Execute,
            step.attempt,
            step.dispatched_ms,
        )
    };
    control(PROBE_PREFIX, step.delivery, step.def.priority, envelope)
}

fn cancel(coordination: &Coordination, step: &Step, attempt: u32, at_ms: u64) -> Message {
    let envelope = Envelope {
        delivery_mode: DeliveryMode::AtLeastOnce,
        priority: Priority::Critical,
        ..to_session(coordination, step, Intent::Cancel, attempt, at_ms)
    };
    control(CANCEL_PREFIX, 1, Priority::Critical, envelope)
}

/// What a report of the end of a coordination carries.
struct EndPayload<'a> {
    terminal: crate::event::TerminalState,
    reason: Option<crate::event::TerminalReason>,
    counts: crate::event::Counts,
    plan_digest: &'a str,
}

object!(write EndPayload<'a> {
    "terminal": req terminal,
    "reason": opt reason,
    "counts": req counts,
    "planDigest": req plan_digest,
});

fn report_message(
    state: &State,
    coordination: &Coordination,
    seq: u64,
    report: &Report,
) -> Message {
    let failed = |class, code: &str, message: &str| {
        Some(Outcome::Failed {
            class,
            code: code.to_owned(),
            message: message.to_owned(),
        })
    };
    let mut envelope = Envelope {
        coordination_id: (*coordination.id).to_owned(),
        step_id: None,
        parent_step_id: None,
        attempt: None,
        source_session: format!("qm2:{}", state.config().map_or("", |config| &config.domain)),
        target_session: coordination.told_by(seq).to_owned(),
        intent: Intent::Report,
        priority: coordination.plan.priority,
        delivery_mode: DeliveryMode::AtLeastOnce,
        deadline_ms: None,
        created_at_ms: report.at_ms,
        trace: coordination.plan.trace.clone(),
        content_type: None,
        payload: None,
        payload_ref: None,
        extensions: Vec::new(),
        outcome: Some(Outcome::Completed),
        reason: None,
        question: None,
        tokens: Vec::new(),
    };
    if let Some(step) = report.step.map(|index| &coordination.steps[index]) {
        envelope.step_id = Some((*step.id).to_owned());
        envelope.parent_step_id.clone_from(&step.def.parent_step_id);
        envelope.attempt = Some(report.attempt);
        envelope.source_session = (*step.session).to_owned();
        envelope.priority = step.def.priority;
        let (code, message) = (
            step.code.as_deref().unwrap_or_default(),
            step.message.as_deref().unwrap_or_default(),
        );
        envelope.outcome = match step.state {
            StepState::Completed => Some(Outcome::Completed),
            StepState::Failed => failed(step.class.unwrap_or(FailureClass::Unknown), code, message),
            StepState::TimedOut => failed(FailureClass::Unknown, code, message),
            state => failed(
                FailureClass::Permanent,
                state.name(),
                "the step did not run to its end",
            ),
        };
        if let Some(result) = &report.result {
            envelope.content_type.clone_from(&result.content_type);
            envelope.payload.clone_from(&result.payload);
            envelope.payload_ref.clone_from(&result.payload_ref);
        }
    } else if let Some(ended) = &coordination.ended {
        let (terminal, reason) = (ended.terminal, ended.reason);
        let counts = coordination.counts;
        let payload = EndPayload {
            terminal,
            reason,
            counts,
            plan_digest: &coordination.plan_digest,
        };
        envelope.content_type = Some("application/json".into());
        envelope.payload = Some(codec::canonical(&payload));
        if terminal != crate::event::TerminalState::Success {
            envelope.outcome = failed(
                FailureClass::Permanent,
                terminal.name(),
                "the coordination did not succeed",
            );
        }
    }
    Message {
        key: report_key(seq),
        delivery: report.delivery,
        lane: LANE_DATA.into(),
        priority: envelope.priority,
        delivery_mode: DeliveryMode::AtLeastOnce,
        deadline_ms: None,
        envelope,
    }
}
