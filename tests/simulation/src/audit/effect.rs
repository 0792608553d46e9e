//! What was handed out: what the records of a call ask for must be in it, and nothing else may be.
//!
//! Does not know what becomes of a message afterwards.

use super::plan::{Phase, list, text};
use super::{Audit, Done, require};
use qm2_core::call::Call;
use qm2_core::envelope::Intent;
use qm2_core::message::Message;
use serde_json::Value;
use std::collections::BTreeSet;

impl Audit {
    pub(super) fn check_effects(&mut self, done: &Done, records: &[Value]) -> Result<(), String> {
        let staged = &done.staged;
        let lanes = staged.lane_messages.iter().map(|(_, _, message)| message);
        let messages: Vec<&Message> = staged.messages.iter().chain(lanes).collect();
        let withdrawn: BTreeSet<&str> = staged
            .withdrawn
            .iter()
            .chain(&staged.lane_cancelled)
            .map(String::as_str)
            .collect();
        for message in &messages {
            // Where the withdrawal itself was not taken it may go out all the same, and is refused when it comes back.
            let is_over =
                done.is_busy || done.answer.is_none() || withdrawn.contains(message.key.as_str());
            self.check_message(message, is_over)?;
        }
        if matches!(done.call, Call::Reconcile) && done.answer.as_ref().is_some_and(Result::is_ok) {
            self.check_reconciled(done, &messages)?;
        }
        self.is_owing |= done.is_busy || done.answer.is_none();
        if done.is_busy || done.answer.is_none() {
            return Ok(());
        }
        let keys: BTreeSet<(&str, u32)> = messages
            .iter()
            .map(|message| (message.key.as_str(), message.delivery))
            .collect();
        for record in records {
            self.check_record_sent(record, &keys, &withdrawn, done)?;
        }
        for seq in &self.due_reports {
            let key = format!("report:{seq}");
            require(keys.contains(&(&key, 1)), || format!("{key} is not sent"))?;
        }
        Ok(())
    }

    /// The same key and delivery is the same message, and an execute belongs to an attempt that is out.
    fn check_message(&mut self, message: &Message, is_withdrawn: bool) -> Result<(), String> {
        let (key, delivery) = (&message.key, message.delivery);
        let bytes = serde_json::to_string(message).map_err(|error| error.to_string())?;
        let known = self
            .sent
            .entry((key.clone(), delivery))
            .or_insert_with(|| bytes.clone());
        // A deadline moves while a person is asked, a level can be asked again; what is asked for stays the same.
        let is_alike = *known == bytes
            || message.envelope.intent == Intent::Cancel
            || key.starts_with("probe:")
            || key.starts_with("escalation:")
            || strip(known) == strip(&bytes);
        require(is_alike, || {
            format!("{key}#{delivery} is\n{bytes}\nand was\n{known}")
        })?;
        if message.envelope.intent != Intent::Execute || key.starts_with("probe:") || is_withdrawn {
            return Ok(());
        }
        let envelope = &message.envelope;
        let plan = self.plans.get(&envelope.coordination_id);
        let step = plan.and_then(|plan| plan.steps.get(envelope.step_id.as_deref()?));
        let step = step.ok_or_else(|| format!("{key} is sent for no step"))?;
        let out = step.phase.is_out() && Some(step.attempt) == envelope.attempt.map(u64::from);
        require(out, || format!("{key} is sent and is not out"))?;
        require(u64::from(delivery) == step.delivery, || {
            format!(
                "{key} is sent as delivery {delivery}; it is {}",
                step.delivery
            )
        })?;
        require(envelope.target_session == step.session, || {
            format!("{key} goes to another session")
        })?;
        let held: BTreeSet<u64> = envelope.tokens.iter().map(|token| token.token).collect();
        // What was given back later in the same call was held when the message was made.
        let due = |token: &u64| step.grants.contains(token) || self.given_back.contains(token);
        require(held.iter().all(due) || step.grants.is_empty(), || {
            format!("{key} goes with {held:?} and holds {:?}", step.grants)
        })
    }

    fn check_record_sent(
        &self,
        record: &Value,
        keys: &BTreeSet<(&str, u32)>,
        withdrawn: &BTreeSet<&str>,
        done: &Done,
    ) -> Result<(), String> {
        let (id, step) = (text(record, "coordinationId"), text(record, "stepId"));
        let key = format!("{id}:{step}:{}", record["attempt"]);
        let data = &record["data"];
        let cancelled = || keys.contains(&(&format!("cancel:{key}"), 1));
        match text(record, "type") {
            "step.dispatched" => require(keys.contains(&(&key, 1)), || {
                format!("{key} is dispatched and not sent")
            }),
            "message.redelivered" => {
                let delivery = data["delivery"].as_u64().unwrap_or_default();
                let sent =
                    u32::try_from(delivery).is_ok_and(|n| keys.contains(&(text(data, "key"), n)));
                require(sent, || format!("{} is not sent again", text(data, "key")))
            }
            "step.retry_scheduled" => {
                require(withdrawn.contains(&*key), || {
                    format!("{key} ended and is not withdrawn")
                })?;
                let unheard = matches!(text(data, "class"), "timeout" | "preempted")
                    || matches!(text(data, "code"), "lease_lost" | "undelivered");
                require(!unheard || cancelled(), || {
                    format!("{key} is not called back")
                })
            }
            "step.completed" if text(data, "by") != "answer" => {
                require(withdrawn.contains(&*key), || {
                    format!("{key} ended and is not withdrawn")
                })
            }
            "step.cancelled" if data["graceUsed"] == true => {
                require(withdrawn.contains(&*key), || {
                    format!("{key} ended and is not withdrawn")
                })?;
                require(cancelled(), || format!("{key} is not called back"))
            }
            "human.requested" => {
                let level = data["level"].as_u64().unwrap_or_default();
                let plan = self.plans.get(id);
                let levels = plan.map(|plan| list(&plan.def["failurePolicy"]["human"], "levels"));
                let level_def = levels.and_then(|levels| levels.get(level as usize - 1));
                let sessions = level_def.map_or(0, |level| list(level, "sessions").len());
                let open = plan
                    .and_then(|plan| plan.steps.get(step))
                    .and_then(|step| step.question.as_ref())
                    .is_some_and(|question| question.level == level);
                for place in 1..=sessions {
                    let key = format!("escalation:{}:{level}:{place}", text(data, "escalationId"));
                    let sent = keys.contains(&(&key, 1)) || !open;
                    require(sent, || format!("{key} is not sent"))?;
                }
                Ok(())
            }
            "hook.requested" => {
                let id = text(data, "hookId");
                let asked = done.staged.asks.iter().any(|ask| ask.hook_id == id);
                require(asked, || format!("{id} is not asked"))
            }
            _ => Ok(()),
        }
    }

    /// everything that is out is handed out again, under the same keys and deliveries, and nothing else.
    fn check_reconciled(&mut self, done: &Done, messages: &[&Message]) -> Result<(), String> {
        let mut due = BTreeSet::new();
        let mut asked = BTreeSet::new();
        for (id, plan) in &self.plans {
            for (step_id, step) in &plan.steps {
                let key = format!("{id}:{step_id}:{}", step.attempt);
                asked.extend(step.hooks.keys().cloned());
                if let Some(question) = step.question.as_ref().filter(|open| !open.is_blocked) {
                    let levels = list(&plan.def["failurePolicy"]["human"], "levels");
                    let sessions = list(&levels[question.level as usize - 1], "sessions").len();
                    for place in 1..=sessions {
                        due.insert((
                            format!("escalation:{}:{}:{place}", question.id, question.level),
                            1,
                        ));
                    }
                }
                if !step.phase.is_out() {
                    continue;
                }
                let delivery = u32::try_from(step.delivery).unwrap_or_default();
                if step.phase == Phase::Dispatched && !step.is_best_effort() && !step.rests() {
                    due.insert((key.clone(), delivery));
                } else {
                    due.insert((format!("probe:{key}"), delivery));
                }
                if plan.stop_of(step).is_some() || step.preempt_until_ms.is_some() {
                    due.insert((format!("cancel:{key}"), 1));
                }
            }
            for (seq, report) in plan
                .reports
                .iter()
                .filter(|(_, report)| report.due_ms.is_some())
            {
                let delivery = u32::try_from(report.deliveries).unwrap_or_default();
                due.insert((format!("report:{seq}"), delivery));
            }
        }
        if done.is_busy {
            return Ok(());
        }
        let sent: BTreeSet<(String, u32)> = messages
            .iter()
            .map(|message| (message.key.clone(), message.delivery))
            .filter(|(key, _)| !key.starts_with("answer:"))
            .collect();
        require(sent == due, || {
            let missing: Vec<_> = due.difference(&sent).collect();
            let surplus: Vec<_> = sent.difference(&due).collect();
            format!("reconcile leaves out {missing:?} and hands out {surplus:?}")
        })?;
        let asks: BTreeSet<String> = done
            .staged
            .asks
            .iter()
            .map(|ask| ask.hook_id.clone())
            .collect();
        require(asks == asked, || {
            format!("reconcile asks {asks:?}; {asked:?} are open")
        })?;
        self.is_owing = false;
        Ok(())
    }
}

/// A message without what may change between two sendings under one key and delivery.
fn strip(message: &str) -> Option<Value> {
    let mut value: Value = serde_json::from_str(message).ok()?;
    value.as_object_mut()?.remove("deadlineMs");
    let envelope = value["envelope"].as_object_mut()?;
    envelope.remove("deadlineMs");
    // What a step claims while it runs joins its tokens.
    envelope.remove("tokens");
    Some(value)
}
