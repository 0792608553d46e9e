//! Answers: who may say what, what a repeat gets, and that every receipt names the record that it speaks of.
//!
//! Looks at calls and their answers; the records that they led to are audited elsewhere.

use super::claim::regions;
use super::plan::text;
use super::{Audit, Done, require};
use qm2_core::call::{Answer, Call};
use qm2_core::claim::Access;
use qm2_core::envelope::{Envelope, Intent, Outcome};
use qm2_core::message::Caller;
use qm2_core::receipt::{Receipt, ReceiptStatus, Rejection, RejectionCode};
use serde_json::{Value, json};

/// The identity of an input within its step, where it has one.
fn identity(envelope: &Envelope) -> Option<String> {
    let part = match (&envelope.intent, &envelope.outcome) {
        (Intent::Ack, _) => String::new(),
        (Intent::Report, Some(Outcome::Progress { number })) => format!("progress:{number}"),
        (Intent::Report, _) => "end".to_owned(),
        (Intent::Escalate, _) => {
            format!(
                "escalate:{}",
                envelope
                    .question
                    .as_ref()
                    .map_or(0, |question| question.number)
            )
        }
        _ => return None,
    };
    Some(format!(
        "{}:{:?}:{part}",
        envelope.attempt.unwrap_or_default(),
        envelope.intent
    ))
}

/// What SPEC section 5 says is the content of an input.
fn content(envelope: &Envelope) -> String {
    let content = json!([
        envelope.source_session,
        envelope.target_session,
        envelope.outcome,
        envelope.question,
        envelope.content_type,
        envelope.payload.as_deref().unwrap_or_default(),
        envelope.payload_ref,
        envelope.deadline_ms,
        envelope.priority,
        envelope.delivery_mode,
        envelope.extensions,
    ]);
    content.to_string()
}

impl Audit {
    pub(super) fn check_answer(
        &mut self,
        done: &Done,
        before: u64,
        records: &[Value],
    ) -> Result<(), String> {
        let Some(Ok(answer)) = &done.answer else {
            let nothing = done.answer.is_none() || records.is_empty();
            return require(nothing, || {
                format!("{:?} and {} records", done.answer, records.len())
            });
        };
        if done.call.is_reading() {
            let silent = records.is_empty() && done.staged.messages.is_empty();
            require(silent, || {
                "a reading call recorded or sent something".into()
            })?;
        }
        match (&done.call, answer) {
            (
                Call::Submit {
                    caller, envelopes, ..
                },
                Answer::Submit(answers),
            ) => {
                require(answers.len() == envelopes.len(), || {
                    "one answer each".into()
                })?;
                for (envelope, answer) in envelopes.iter().zip(answers) {
                    let is_joined = envelopes.len() > 1;
                    self.check_input(caller, envelope, answer, before, records, is_joined)?;
                }
                Ok(())
            }
            (Call::SubmitPlan { caller, plan, .. }, Answer::SubmitPlan(Ok(receipt))) => {
                let id = &receipt.coordination_id;
                let known = self.plans.get(id);
                let known = known.ok_or_else(|| format!("{id} is taken and not recorded"))?;
                require(known.created_seq == receipt.created_seq, || {
                    format!("{id}: another record")
                })?;
                require(receipt.replayed == (receipt.created_seq <= before), || {
                    format!("{id} replayed: {}", receipt.replayed)
                })?;
                let owner = serde_json::from_str::<Value>(plan).unwrap_or_default();
                require(text(&owner, "ownerSession") == caller.session, || {
                    format!("{} starts a plan of another", caller.session)
                })
            }
            (
                Call::Check {
                    now_ms,
                    resource,
                    session,
                    token,
                    mode,
                    regions: asked,
                    base_version,
                },
                Answer::Check(verdict),
            ) => {
                let asked = regions(&json!({ "regions": asked }));
                let now_ms = self.at_ms.max(*now_ms);
                let due = self.grants.allows(
                    now_ms,
                    resource,
                    session,
                    *token,
                    *mode == Access::Write,
                    &asked,
                    base_version.as_deref(),
                );
                require(verdict.allowed == due, || {
                    format!(
                        "the guard says {verdict:?}; {due} is due for {:?}",
                        done.call
                    )
                })
            }
            (
                Call::Claim {
                    request, caller, ..
                },
                Answer::Claim(Ok(grant)),
            ) => {
                let held = self.grants.get(grant.token);
                let fits = held.is_some_and(|held| {
                    held.resource == grant.resource
                        && held.session == caller.session
                        && held.place == (request.coordination_id.clone(), request.step_id.clone())
                });
                require(fits, || {
                    format!("the claim answers {grant:?} and holds {held:?}")
                })
            }
            (Call::Head, Answer::Head(head)) => require(
                (head.seq, head.hash.as_str()) == self.head() || self.seq == 0,
                || format!("the head is {head:?}, the ledger's {:?}", self.head()),
            ),
            _ => Ok(()),
        }
    }

    fn check_input(
        &mut self,
        caller: &Caller,
        envelope: &Envelope,
        answer: &Result<Receipt, Rejection>,
        before: u64,
        records: &[Value],
        is_joined: bool,
    ) -> Result<(), String> {
        let says =
            |what: &str| format!("{what}: {envelope:?} of {} got {answer:?}", caller.session);
        let seq = match answer {
            Ok(receipt) => receipt.seq,
            Err(rejection) => rejection.seq,
        };
        let record =
            seq.and_then(|seq| records.get(usize::try_from(seq.checked_sub(before + 1)?).ok()?));
        let is_of_envelope = |record: &Value| {
            text(record, "coordinationId") == envelope.coordination_id
                && (record["stepId"].as_str() == envelope.step_id.as_deref()
                    // What is refused of an execute is kept with the step that said it.
                    || envelope.intent == Intent::Execute && record["stepId"].as_str() == envelope.parent_step_id.as_deref())
        };
        let is_new = match answer {
            Ok(receipt) => {
                receipt.status == ReceiptStatus::Accepted
                    || receipt.status == ReceiptStatus::Late && record.is_some()
            }
            Err(_) => seq.is_some(),
        };
        if is_new && envelope.intent != Intent::Cancel {
            let fits = record.is_some_and(is_of_envelope);
            require(fits, || says("the receipt names no record of this call"))?;
        }
        let authentic = caller.session == envelope.source_session;
        if let Ok(receipt) = answer {
            require(authentic || envelope.intent == Intent::Cancel, || {
                says("in another's name")
            })?;
            if receipt.status == ReceiptStatus::Accepted
                && let Some(record) = record
            {
                let kind = text(record, "type");
                let fits = match (&envelope.intent, &envelope.outcome) {
                    (Intent::Ack, _) => kind == "step.acknowledged",
                    (Intent::Report, Some(Outcome::Progress { .. })) => {
                        matches!(kind, "step.progress" | "human.expired")
                    }
                    (Intent::Report, Some(Outcome::Completed)) => {
                        let done =
                            matches!(kind, "step.completed" | "step.cancelled" | "human.expired");
                        // Not as expected is a failure.
                        done || matches!(
                            kind,
                            "step.failed" | "step.retry_scheduled" | "coordination.escalated"
                        )
                    }
                    (Intent::Report, _) => !matches!(kind, "step.completed" | "step.acknowledged"),
                    (Intent::Escalate, _) => kind == "coordination.escalated",
                    (Intent::Execute, _) => kind == "step.added",
                    (Intent::Cancel, _) => kind == "coordination.cancel_requested",
                };
                require(fits, || says(&format!("{kind} came of it")))?;
            }
        }
        let Some(plan) = self.plans.get_mut(&envelope.coordination_id) else {
            return require(answer.is_err(), || says("taken for no coordination"));
        };
        if plan.is_closed {
            return Ok(());
        }
        let step = envelope
            .step_id
            .as_deref()
            .and_then(|id| plan.steps.get_mut(id));
        let (Some(step), Some(identity)) = (step, identity(envelope)) else {
            return Ok(());
        };
        if answer.is_ok() {
            require(caller.session == step.session, || {
                says("by another than the step's session")
            })?;
        }
        let content = content(envelope);
        match (step.identities.get(&identity), answer) {
            (Some(known), Ok(receipt)) => {
                require(*known == content, || says("other content is taken"))?;
                require(receipt.status == ReceiptStatus::Replayed, || {
                    says("a repeat takes effect")
                })
            }
            (Some(known), Err(rejection)) => {
                let other = *known != content || !authentic;
                require(other, || {
                    says(&format!("a repeat is refused as {}", rejection.code.name()))
                })
            }
            (None, Ok(receipt)) => {
                if receipt.status != ReceiptStatus::Replayed && receipt.seq.is_some() {
                    step.identities.insert(identity, content);
                }
                Ok(())
            }
            (None, Err(rejection)) => {
                let attempt = u64::from(envelope.attempt.unwrap_or_default());
                let over = attempt < step.attempt
                    || attempt == step.attempt && (step.phase.is_final() || step.is_over);
                let refused = matches!(
                    rejection.code,
                    RejectionCode::NotDispatched | RejectionCode::NotRunning
                );
                require(!(over && refused) || is_joined, || {
                    says("what comes too late is refused")
                })
            }
        }
    }
}
