//! What a component may say: the parts of the contract that its types cannot hold.
//!
//! A component that breaks one is at fault as if it had trapped: nothing of the call is kept. So neither a damaged component
//! nor one that means harm gets a line into the ledger that would break it, a key into a path, or more into memory than its
//! host allows. Does not judge what it decides; `qm2 ledger verify` does.

use qm2_core::call::{self, Answer, Call};
use qm2_core::envelope::{Envelope, Intent};
use qm2_core::id::{check_id, check_session, split_attempt_key, split_number, split_report_key};
use qm2_core::ledger::Chain;
use qm2_core::limit;
use qm2_core::message::{
    CANCEL_PREFIX, LANE_CONTROL, LANE_DATA, LANE_ESCALATION, Message, PROBE_PREFIX,
};
use qm2_core::outline;
use qm2_core::receipt::{Head, Receipt, Rejection};

/// Before the id of an escalation, the level and the number of the session: a question.
pub(crate) const QUESTION_PREFIX: &str = "escalation:";
/// Before the id of an escalation: its answer.
pub(crate) const ANSWER_PREFIX: &str = "answer:";

/// Longest ledger line: the longest plan, and as much again for what stands around it.
pub(crate) const LINE_BYTES_MAX: usize = 2 * limit::PLAN_BYTES_MAX as usize;
/// What keeping something costs beside its text, such as its place in a list and in a table.
const ITEM_BYTES: usize = 128;

/// What a call may say, and what it has said so far.
#[derive(Debug)]
pub(crate) struct Allowance {
    bytes_max: usize,
    count_max: usize,
    bytes: usize,
    count: usize,
    /// The call that is being made, if it may say nothing.
    silent: Option<&'static str>,
    /// Whether this call has appended lines, and whether it has said anything else.
    appended: bool,
    acted: bool,
}

impl Allowance {
    pub(crate) fn new(bytes_max: usize, count_max: usize) -> Self {
        Self {
            bytes_max,
            count_max,
            bytes: 0,
            count: 0,
            silent: None,
            appended: false,
            acted: false,
        }
    }

    /// Begins a call of a function.
    pub(crate) fn begin(&mut self, function: &'static str) {
        let silent = call::reads(function) || ["replay", "restore"].contains(&function);
        self.silent = silent.then_some(function);
        (self.appended, self.acted) = (false, false);
    }

    /// What was said was taken.
    pub(crate) fn taken(&mut self) {
        (self.bytes, self.count) = (0, 0);
    }

    /// Bytes that are kept for what was said and not taken.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The ledger lines of a call.
    pub(crate) fn append(&mut self, lines: &[String]) -> Result<(), String> {
        if std::mem::replace(&mut self.appended, true) {
            return Err("it appended twice in one call".into());
        }
        if self.acted {
            return Err("it appended after it had handed effects out".into());
        }
        for line in lines {
            if line.len() > LINE_BYTES_MAX {
                return Err(format!(
                    "it appended a line of {} bytes; {LINE_BYTES_MAX} are allowed",
                    line.len()
                ));
            }
            self.say(line.len())?;
        }
        Ok(())
    }

    /// Messages, through the queue or straight to a lane.
    pub(crate) fn messages(&mut self, messages: &[Message]) -> Result<(), String> {
        self.acted = true;
        for message in messages {
            self.say(size_of_message(message))?;
            check_message(message)
                .map_err(|says| format!("its message {:?} {says}", shown(&message.key)))?;
        }
        Ok(())
    }

    /// Keys of attempts that have ended; any text may stand there, because it is only looked for.
    pub(crate) fn keys(&mut self, keys: &[String]) -> Result<(), String> {
        self.acted = true;
        keys.iter().try_for_each(|key| self.say(key.len()))
    }

    /// A question to hooks.
    pub(crate) fn ask(&mut self, hook_id: &str, subject: &str) -> Result<(), String> {
        self.acted = true;
        self.say(hook_id.len() + subject.len())?;
        if split_number(hook_id, 'h').is_none() {
            return Err(format!(
                "its hook request {:?} has no such id",
                shown(hook_id)
            ));
        }
        Ok(())
    }

    /// What hooks are told.
    pub(crate) fn notify(&mut self, subject: &str) -> Result<(), String> {
        self.acted = true;
        self.say(subject.len())
    }

    fn say(&mut self, bytes: usize) -> Result<(), String> {
        if let Some(call) = self.silent {
            return Err(format!("it spoke to its host in {call}, which only reads"));
        }
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(ITEM_BYTES);
        self.count += 1;
        if self.count > self.count_max || self.bytes > self.bytes_max {
            return Err(format!(
                "it said more in one call than its host keeps: {} things of {} bytes, and {} of {} are allowed",
                self.count, self.bytes, self.count_max, self.bytes_max
            ));
        }
        Ok(())
    }
}

/// What a message keeps in memory.
fn size_of_message(message: &Message) -> usize {
    let Envelope {
        coordination_id,
        step_id,
        parent_step_id,
        source_session,
        target_session,
        trace,
        content_type,
        payload,
        payload_ref,
        extensions,
        reason,
        question,
        tokens,
        ..
    } = &message.envelope;
    let texts = [step_id, parent_step_id, content_type, payload, reason];
    let optional: usize = texts.into_iter().flatten().map(String::len).sum();
    let trace = trace.fields().into_iter();
    let trace: usize = trace.filter_map(|(_, text)| text.map(str::len)).sum();
    let extensions = extensions
        .iter()
        .map(|extension| extension.name.len() + extension.text.len() + ITEM_BYTES);
    let tokens = tokens.iter().map(|token| token.resource.len() + ITEM_BYTES);
    size_of::<Message>()
        + message.key.len()
        + message.lane.len()
        + coordination_id.len()
        + source_session.len()
        + target_session.len()
        + optional
        + trace
        + payload_ref
            .as_ref()
            .map_or(0, |at| at.uri.len() + at.sha256.len())
        + question.as_ref().map_or(0, |question| question.text.len())
        + extensions.sum::<usize>()
        + tokens.sum::<usize>()
}

/// Whether a message is one that the contract knows: its key says what it is, and goes into maps, tables, variables of
/// processes and names of files.
fn check_message(message: &Message) -> Result<(), String> {
    let Message {
        key,
        delivery,
        lane,
        deadline_ms,
        envelope,
        ..
    } = message;
    let of_attempt = |key: &str, intent| {
        let (id, step_id, attempt) = split_attempt_key(key)?;
        let named = id == envelope.coordination_id
            && Some(step_id) == envelope.step_id.as_deref()
            && Some(attempt) == envelope.attempt;
        named.then_some((intent, LANE_CONTROL))
    };
    let is_question = |key: &str| {
        let mut parts = key.split(':');
        let id = parts.next().and_then(|id| split_number(id, 'e'));
        let mut number = || parts.next()?.parse::<u32>().ok();
        id.is_some() && number().is_some() && number().is_some() && parts.next().is_none()
    };
    let known = if let Some(key) = key.strip_prefix(CANCEL_PREFIX) {
        of_attempt(key, Intent::Cancel)
    } else if let Some(key) = key.strip_prefix(PROBE_PREFIX) {
        of_attempt(key, Intent::Execute)
    } else if let Some(key) = key.strip_prefix(QUESTION_PREFIX) {
        is_question(key).then_some((Intent::Escalate, LANE_ESCALATION))
    } else if let Some(id) = key.strip_prefix(ANSWER_PREFIX) {
        split_number(id, 'e').map(|_| (Intent::Report, LANE_DATA))
    } else if split_report_key(key).is_some() {
        Some((Intent::Report, LANE_DATA))
    } else {
        of_attempt(key, Intent::Execute)
    };
    let Some((intent, due_lane)) = known else {
        return Err("has a key of no known form, or one that is not its envelope's".into());
    };
    if envelope.intent != intent {
        return Err("has an intent that does not go with its key".into());
    }
    if lane != due_lane {
        return Err(format!("is for lane {:?}; {due_lane} is due", shown(lane)));
    }
    if *delivery == 0 {
        return Err("has delivery 0; they count from 1".into());
    }
    if deadline_ms.is_some_and(|at_ms| at_ms > limit::INTEGER_MAX) {
        return Err("has a deadline past every time".into());
    }
    check_id(&envelope.coordination_id)
        .map_err(|says| format!("has a coordinationId that {says}"))?;
    if let Some(step_id) = &envelope.step_id {
        check_id(step_id).map_err(|says| format!("has a stepId that {says}"))?;
    }
    for session in [&envelope.source_session, &envelope.target_session] {
        check_session(session).map_err(|says| format!("has a session that {says}"))?;
    }
    Ok(())
}

/// A text of the component for a sentence.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown += "…";
    }
    shown
}

/// Follows the chain over the lines of a call.
///
/// # Errors
/// What is wrong with the first line that would break the ledger; the chain has then moved on to it.
pub(crate) fn follow(chain: &mut Chain, lines: &[String]) -> Result<(), String> {
    for line in lines {
        chain.push(line).map_err(|fault| {
            format!(
                "it appended a line as record {} that {}",
                fault.seq, fault.message
            )
        })?;
        let refused = |says: &str| {
            format!(
                "it appended a line as record {} that {says}",
                chain.head.seq
            )
        };
        outline::check(line).map_err(|e| refused(&format!("is no record: {e}")))?;
    }
    Ok(())
}

/// Whether an answer goes with its call and with the ledger, whose last record is `head`; `recorded` says whether the call
/// appended anything.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_answer(
    call: &Call,
    answer: &Answer,
    recorded: bool,
    head: &Head,
) -> Result<(), String> {
    let (asked, receipts) = match (call, answer) {
        (Call::Submit { envelopes, .. }, Answer::Submit(items)) => (envelopes.len(), &items[..]),
        (Call::Acknowledge { keys, .. }, Answer::Acknowledge(items)) => (keys.len(), &items[..]),
        (Call::Notice { notices, .. }, Answer::Notice(items)) => (notices.len(), &items[..]),
        (_, Answer::Verdict(item) | Answer::Answer(item) | Answer::Release(item)) => {
            (1, std::slice::from_ref(item))
        }
        (_, Answer::SubmitPlan(Ok(receipt))) => return exists(receipt.created_seq, head),
        // A token is the number of the record that grants it.
        (_, Answer::Claim(Ok(grant))) => return exists(grant.token, head),
        (_, Answer::Renew(Ok(grants))) => {
            return grants
                .iter()
                .try_for_each(|grant| exists(grant.token, head));
        }
        (_, Answer::Advance(true)) if !recorded => {
            // A timer that fires has a record, so this would go on for ever.
            return Err(
                "it says that more timers are due, but none of those that were is recorded".into(),
            );
        }
        (_, Answer::Head(said)) if said != head => {
            return Err(format!(
                "it says that record {} is its last; {} is, or its hash is another",
                said.seq, head.seq
            ));
        }
        _ => return Ok(()),
    };
    if asked != receipts.len() {
        return Err(format!(
            "it gave {} answers to {asked} inputs",
            receipts.len()
        ));
    }
    receipts
        .iter()
        .filter_map(seq_in)
        .try_for_each(|seq| exists(seq, head))
}

fn seq_in(item: &Result<Receipt, Rejection>) -> Option<u64> {
    match item {
        Ok(receipt) => receipt.seq,
        Err(rejection) => rejection.seq,
    }
}

fn exists(seq: u64, head: &Head) -> Result<(), String> {
    if seq <= head.seq {
        return Ok(());
    }
    Err(format!(
        "its answer names record {seq}, and the last one is {}",
        head.seq
    ))
}
