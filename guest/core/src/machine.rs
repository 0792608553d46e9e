//! The machine: one export call after another over one state.
//!
//! Order of every call that changes something: fire the timers that are due, decide and apply each input, settle, append
//! all records at once, hand out effects. An append that is refused, or a panic, spends the machine: it must be made
//! anew by replay. Holds no rule; the `decide_*` functions do. Settling is in `machine/follow.rs`.

mod follow;

use crate::apply::apply;
use crate::arbitration::{self, Contest, Policy};
use crate::claim::{Access, ClaimRequest, Region};
use crate::deadline::decide_timer;
use crate::decision::{Answer, Decision};
use crate::draft::Draft;
use crate::effect::Effects;
use crate::envelope::Envelope;
use crate::event::{Name, Record};
use crate::legal;
use crate::limit;
use crate::message::{Caller, HookVerdict, Host, HumanVerdict, Notice};
use crate::receipt::{
    CallError, GrantReceipt, GuardVerdict, Head, LedgerFault, PlanReceipt, Receipt, Rejection,
    RejectionCode, SnapshotChunk,
};
use crate::report::decide_acknowledge;
use crate::snapshot::Restore;
use crate::state::State;
use crate::step::{decide_envelope, decide_notice};
use crate::submission::{PlanDecision, decide_configure, decide_plan, plan_receipt};
use crate::{contest, ending, escalation, hook, lease};
use crate::{describe, ledger, replay, snapshot};
use std::borrow::Cow;

/// Result of one input.
pub type Answered<T> = Result<T, Rejection>;

/// A domain's coordinator.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    state: State,
    /// A call failed half-way, or is under way.
    spent: bool,
    /// The ledger could not be followed.
    fault: Option<LedgerFault>,
    restore: Option<Restore>,
}

/// Decides the input at a place of a batch, and says which coordination and step it is about.
type Decide<'a> = dyn Fn(&State, u64, usize) -> (Cow<'a, str>, Option<Cow<'a, str>>, Decision) + 'a;

/// What one call has made so far.
#[derive(Default)]
struct Call {
    lines: Vec<String>,
    effects: Effects,
    /// Memory for the coordinations that are being settled.
    dirty: Vec<Name>,
}

impl Machine {
    /// An empty domain.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // ---- coordination ----

    /// Sets the configuration; see the WIT.
    ///
    /// # Errors
    /// `invalid-config`, and what every call may answer.
    pub fn configure(&mut self, host: &mut dyn Host, config: &str) -> Result<(), CallError> {
        self.usable()?;
        if let Some(draft) = decide_configure(&self.state, config)? {
            let mut call = Call::default();
            self.spent = true;
            self.record(&mut call, self.state.now_ms, draft);
            self.finish(host, call)?;
        }
        Ok(())
    }

    /// Submits a plan; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    pub fn submit_plan(
        &mut self,
        host: &mut dyn Host,
        caller: &Caller,
        now_ms: u64,
        plan: &str,
    ) -> Result<Answered<PlanReceipt>, CallError> {
        let mut call = self.begin(now_ms)?;
        let now_ms = self.fire(&mut call, now_ms);
        let answer = match decide_plan(&self.state, now_ms, caller, plan) {
            PlanDecision::Refused(rejection) => {
                self.settle(&mut call, now_ms);
                Err(rejection)
            }
            PlanDecision::Known(receipt) => {
                self.settle(&mut call, now_ms);
                Ok(receipt)
            }
            PlanDecision::Create(draft) => {
                let id = draft.coordination.clone().unwrap_or_default();
                self.record(&mut call, now_ms, *draft);
                self.settle(&mut call, now_ms);
                let missing = || {
                    Rejection::new(
                        RejectionCode::UnknownCoordination,
                        "coordinationId",
                        "is not known",
                    )
                };
                plan_receipt(&self.state, &id, false).ok_or_else(missing)
            }
        };
        self.finish(host, call)?;
        Ok(answer)
    }

    /// Submits envelopes; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    pub fn submit(
        &mut self,
        host: &mut dyn Host,
        caller: &Caller,
        now_ms: u64,
        envelopes: &[Envelope],
    ) -> Result<Vec<Answered<Receipt>>, CallError> {
        let most = self
            .state
            .config()
            .map_or(limit::PAYLOAD_BYTES_MAX, |config| {
                config.limits.payload_bytes
            });
        self.batch(
            host,
            now_ms,
            ("envelopes", envelopes.len()),
            &|state, now_ms, index| {
                let envelope = &envelopes[index];
                (
                    envelope.coordination_id.as_str().into(),
                    envelope.step_id.as_deref().map(Cow::from),
                    decide_envelope(state, now_ms, caller, envelope, most),
                )
            },
        )
    }

    /// Acknowledges reports; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    pub fn acknowledge(
        &mut self,
        host: &mut dyn Host,
        caller: &Caller,
        now_ms: u64,
        keys: &[String],
    ) -> Result<Vec<Answered<Receipt>>, CallError> {
        self.batch(host, now_ms, ("keys", keys.len()), &|state, _, index| {
            let key = &keys[index];
            let seq = crate::id::split_report_key(key);
            let id = seq.and_then(|seq| state.index.reports.get(&seq));
            (
                owned(id.cloned().unwrap_or_default()),
                None,
                decide_acknowledge(state, caller, key),
            )
        })
    }

    /// Takes a host's notices; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    pub fn notice(
        &mut self,
        host: &mut dyn Host,
        now_ms: u64,
        notices: &[Notice],
    ) -> Result<Vec<Answered<Receipt>>, CallError> {
        self.batch(
            host,
            now_ms,
            ("notices", notices.len()),
            &|state, now_ms, index| {
                let notice = &notices[index];
                if let Some((id, step)) = escalation::place_of(state, &notice.key) {
                    let decision = decide_notice(state, now_ms, notice);
                    return (owned(id), Some(owned(step)), decision);
                }
                let key = notice
                    .key
                    .strip_prefix(crate::message::PROBE_PREFIX)
                    .unwrap_or(&notice.key);
                let (id, step, _) = crate::id::split_attempt_key(key).unwrap_or_default();
                (
                    id.into(),
                    Some(step.into()),
                    decide_notice(state, now_ms, notice),
                )
            },
        )
    }

    /// Takes the answer of the hooks; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    pub fn verdict(
        &mut self,
        host: &mut dyn Host,
        now_ms: u64,
        hook_id: &str,
        handler: &str,
        verdict: &HookVerdict,
    ) -> Result<Answered<Receipt>, CallError> {
        self.single(host, now_ms, &|state, now_ms, _| {
            let seq = crate::id::split_number(hook_id, 'h').unwrap_or_default();
            let (id, step) = state.index.hooks.get(&seq).cloned().unwrap_or_default();
            let decision = hook::decide_verdict(state, now_ms, hook_id, handler, verdict);
            (owned(id), Some(owned(step)), decision)
        })
    }

    /// Takes a person's answer; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    #[allow(clippy::too_many_arguments)]
    pub fn answer(
        &mut self,
        host: &mut dyn Host,
        actor: &Caller,
        now_ms: u64,
        escalation_id: &str,
        digest: &str,
        verdict: HumanVerdict,
        text: Option<&str>,
    ) -> Result<Answered<Receipt>, CallError> {
        self.single(host, now_ms, &|state, now_ms, _| {
            let (id, step) = escalation::place_of(state, escalation_id).unwrap_or_default();
            let decision = escalation::decide_answer(
                state,
                now_ms,
                actor,
                escalation_id,
                digest,
                verdict,
                text,
            );
            (owned(id), Some(owned(step)), decision)
        })
    }

    // ---- arbitration ----

    /// Decides a contest; see the WIT.
    ///
    /// # Errors
    /// `rebuild`.
    pub fn arbitrate(
        &self,
        contest: &Contest,
        policy: &Policy,
    ) -> Result<arbitration::Decision, CallError> {
        self.readable()?;
        Ok(arbitration::arbitrate(contest, policy))
    }

    /// Takes an extra claim of a running step; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    pub fn claim(
        &mut self,
        host: &mut dyn Host,
        caller: &Caller,
        now_ms: u64,
        request: &ClaimRequest,
    ) -> Result<Answered<GrantReceipt>, CallError> {
        let answer = self.single(host, now_ms, &|state, now_ms, _| {
            (
                request.coordination_id.as_str().into(),
                Some(request.step_id.as_str().into()),
                lease::decide_claim(state, now_ms, caller, request),
            )
        })?;
        let gone = || {
            let says = "is not held any more";
            Rejection::new(RejectionCode::NotRunning, "resource", says)
        };
        Ok(answer.and_then(|_| lease::grant_of(&self.state, request).ok_or_else(gone)))
    }

    /// Begins leases anew; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    #[allow(clippy::too_many_arguments)]
    pub fn renew(
        &mut self,
        host: &mut dyn Host,
        caller: &Caller,
        now_ms: u64,
        coordination_id: &str,
        step_id: &str,
        attempt: u32,
        tokens: &[u64],
    ) -> Result<Answered<Vec<GrantReceipt>>, CallError> {
        let answer = self.lease(
            host,
            caller,
            now_ms,
            (coordination_id, step_id, attempt),
            tokens,
            false,
        )?;
        let held = |_| lease::grants_of(&self.state, coordination_id, step_id, tokens);
        Ok(answer.map(held))
    }

    /// Gives grants back; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    #[allow(clippy::too_many_arguments)]
    pub fn release(
        &mut self,
        host: &mut dyn Host,
        caller: &Caller,
        now_ms: u64,
        coordination_id: &str,
        step_id: &str,
        attempt: u32,
        tokens: &[u64],
    ) -> Result<Answered<Receipt>, CallError> {
        let of = (coordination_id, step_id, attempt);
        self.lease(host, caller, now_ms, of, tokens, true)
    }

    fn lease(
        &mut self,
        host: &mut dyn Host,
        caller: &Caller,
        now_ms: u64,
        (id, step_id, attempt): (&str, &str, u32),
        tokens: &[u64],
        give_back: bool,
    ) -> Result<Answered<Receipt>, CallError> {
        self.single(host, now_ms, &|state, now_ms, _| {
            let decision = lease::decide_lease(
                state, now_ms, caller, id, step_id, attempt, tokens, give_back,
            );
            (id.into(), Some(step_id.into()), decision)
        })
    }

    /// The guard; see the WIT.
    ///
    /// # Errors
    /// `disabled`, `rebuild`, `bound`.
    #[allow(clippy::too_many_arguments)]
    pub fn check(
        &self,
        now_ms: u64,
        resource: &str,
        session: &str,
        token: u64,
        mode: Access,
        regions: &[Region],
        base_version: Option<&str>,
    ) -> Result<GuardVerdict, CallError> {
        self.usable()?;
        self.gate()?;
        check_now(now_ms)?;
        let now_ms = self.state.now_ms.max(now_ms);
        Ok(lease::check(
            &self.state,
            now_ms,
            resource,
            session,
            token,
            mode,
            regions,
            base_version,
        ))
    }

    // ---- time ----

    /// Tells the time; see the WIT (M2).
    ///
    /// # Errors
    /// What every gated call but `busy` may answer.
    pub fn advance(&mut self, host: &mut dyn Host, now_ms: u64) -> Result<bool, CallError> {
        self.usable()?;
        self.gate()?;
        check_now(now_ms)?;
        self.spent = true;
        let mut call = Call::default();
        let now_ms = self.fire(&mut call, now_ms);
        self.settle(&mut call, now_ms);
        let more = self.state.index.timers.first_due(now_ms).is_some();
        self.finish(host, call)?;
        Ok(more)
    }

    /// When time is awaited next; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    pub fn next_deadline(&self) -> Result<Option<u64>, CallError> {
        self.usable()?;
        self.gate()?;
        let index = &self.state.index;
        // A wider limit has no time of its own: what it allows begins with the next call, which is due.
        let waits = index.slots.has_next().then_some(self.state.now_ms);
        let next = [index.timers.next_due_ms(), index.slots.next_due_ms(), waits];
        Ok(next.into_iter().flatten().min())
    }

    /// A coordination, or with an empty id the domain, as canonical JSON; see the WIT.
    ///
    /// # Errors
    /// `unknown`, `rebuild`.
    pub fn describe(&self, id: &str) -> Result<String, CallError> {
        self.readable()?;
        describe::describe(&self.state, id)
            .ok_or_else(|| CallError::Unknown(format!("coordination {id}")))
    }

    /// What a step waits for, as canonical JSON; see the WIT.
    ///
    /// # Errors
    /// `unknown`, `rebuild`.
    pub fn explain_wait(&self, id: &str, step_id: &str) -> Result<String, CallError> {
        self.readable()?;
        let unknown =
            || CallError::Unknown(format!("step {step_id} of {id}, among those that are live"));
        describe::explain_wait(&self.state, id, step_id).ok_or_else(unknown)
    }

    /// Number and hash of the last record.
    ///
    /// # Errors
    /// `rebuild`.
    pub fn head(&self) -> Result<Head, CallError> {
        self.readable()?;
        Ok(self.state.head.clone())
    }

    // ---- recovery ----

    /// Applies ledger lines; see the WIT.
    ///
    /// # Errors
    /// `read-only` with the first bad record.
    pub fn replay(&mut self, lines: &[String], checked: bool) -> Result<Head, CallError> {
        self.usable()?;
        let mut chain = ledger::Chain {
            head: self.state.head.clone(),
        };
        for line in lines {
            if let Err(fault) = self.replay_line(&mut chain, line, checked) {
                self.fault = Some(fault.clone());
                return Err(CallError::ReadOnly(fault));
            }
        }
        self.state.index.slots.refresh(self.state.now_ms);
        Ok(self.state.head.clone())
    }

    /// One line: its chain, its form, and whether the tables allow it.
    fn replay_line(
        &mut self,
        chain: &mut ledger::Chain,
        line: &str,
        checked: bool,
    ) -> Result<(), LedgerFault> {
        if !checked {
            chain.push(line)?;
        }
        replay::follow(&mut self.state, line)
    }

    /// A piece of the state; see the WIT.
    ///
    /// # Errors
    /// `bound` for a cursor that is none.
    pub fn snapshot(
        &self,
        cursor: Option<&str>,
        max_bytes: u64,
    ) -> Result<SnapshotChunk, CallError> {
        self.usable()?;
        snapshot::snapshot(&self.state, cursor, max_bytes)
    }

    /// Takes a piece of a snapshot in; see the WIT.
    ///
    /// # Errors
    /// `bound` for a piece that does not fit; the machine is spent then.
    pub fn restore(&mut self, chunk: &str, last: bool) -> Result<Head, CallError> {
        self.usable()?;
        if self.state.head.seq > 0 {
            return Err(CallError::bound(
                "chunk",
                "restore into an instance that has records",
            ));
        }
        self.spent = true;
        let mut restore = self.restore.take().unwrap_or_default();
        restore.push(chunk)?;
        if last {
            self.state = restore.finish()?;
            self.state.index.slots.refresh(self.state.now_ms);
        } else {
            self.restore = Some(restore);
        }
        self.spent = false;
        Ok(self.state.head.clone())
    }

    /// Hands out again what is out; see the WIT.
    ///
    /// # Errors
    /// What every gated call may answer.
    pub fn reconcile(&mut self, host: &mut dyn Host) -> Result<(), CallError> {
        self.usable()?;
        self.gate()?;
        Effects::reconcile(&self.state).hand_out(host);
        Ok(())
    }

    /// SHA-256 over the whole state; see the WIT.
    ///
    /// # Errors
    /// `rebuild`.
    pub fn state_digest(&self) -> Result<String, CallError> {
        self.readable()?;
        Ok(describe::state_digest(&self.state))
    }

    // ---- the parts of a call ----

    fn readable(&self) -> Result<(), CallError> {
        // A restore that is not finished has no state to show.
        if self.spent || self.restore.is_some() {
            Err(CallError::Rebuild)
        } else {
            Ok(())
        }
    }

    fn usable(&self) -> Result<(), CallError> {
        if self.spent {
            return Err(CallError::Rebuild);
        }
        self.fault
            .clone()
            .map_or(Ok(()), |fault| Err(CallError::ReadOnly(fault)))
    }

    /// The first test of every input (M6).
    fn gate(&self) -> Result<(), CallError> {
        let enabled = self
            .state
            .config()
            .is_some_and(|config| config.phase1.enabled);
        if enabled && self.restore.is_none() {
            Ok(())
        } else {
            Err(CallError::Disabled)
        }
    }

    /// Begins a call that may change something. Until it finishes the machine counts as spent (M2).
    fn begin(&mut self, now_ms: u64) -> Result<Call, CallError> {
        self.usable()?;
        self.gate()?;
        check_now(now_ms)?;
        let now_ms = self.state.now_ms.max(now_ms);
        if self
            .state
            .index
            .timers
            .more_due_than(limit::TIMERS_A_CALL_MAX, now_ms)
        {
            return Err(CallError::Busy);
        }
        self.spent = true;
        Ok(Call::default())
    }

    /// One call with one input.
    fn single(
        &mut self,
        host: &mut dyn Host,
        now_ms: u64,
        decide: &Decide<'_>,
    ) -> Result<Answered<Receipt>, CallError> {
        let mut answers = self.batch(host, now_ms, ("", 1), decide)?;
        answers.pop().ok_or(CallError::Rebuild)
    }

    /// One call with many inputs (M1).
    fn batch(
        &mut self,
        host: &mut dyn Host,
        now_ms: u64,
        (inputs, count): (&str, usize),
        decide: &Decide<'_>,
    ) -> Result<Vec<Answered<Receipt>>, CallError> {
        self.usable()?;
        self.gate()?;
        let most = self
            .state
            .config()
            .map_or(limit::BATCH_MAX, |config| config.limits.batch);
        if count as u64 > most {
            let says = format!("{count} inputs in one call; {most} are allowed");
            return Err(CallError::bound(inputs, says));
        }
        let mut call = self.begin(now_ms)?;
        let mut answers = Vec::with_capacity(count);
        for index in 0..count {
            let now_ms = self.fire(&mut call, now_ms);
            let (id, step, decision) = decide(&self.state, now_ms, index);
            answers.push(self.take(&mut call, now_ms, &id, step.as_deref(), decision));
        }
        self.finish(host, call)?;
        Ok(answers)
    }

    /// Carries a decision out and gives its answer numbers.
    fn take(
        &mut self,
        call: &mut Call,
        now_ms: u64,
        id: &str,
        step_id: Option<&str>,
        decision: Decision,
    ) -> Answered<Receipt> {
        let seq = (!decision.drafts.is_empty()).then(|| self.state.next_seq());
        for draft in decision.drafts {
            self.record(call, now_ms, draft);
        }
        let status = match decision.answer {
            Answer::Known(receipt) => {
                self.settle(call, now_ms);
                return Ok(receipt);
            }
            Answer::Refused(rejection) => {
                self.settle(call, now_ms);
                return Err(Rejection { seq, ..rejection });
            }
            Answer::Took(status) => status,
        };
        // The state of the receipt is that right after the input, as a replay of it finds it.
        let step_state = |live: &crate::state::Coordination| {
            let index = step_id.and_then(|step_id| live.step_index(step_id))?;
            Some(live.steps[index].state.name())
        };
        let state = match self.state.live.get(id) {
            Some(live) => step_state(live).unwrap_or_else(|| live.state_name()),
            None => "closed",
        };
        let receipt = Receipt {
            status,
            seq,
            state: state.to_owned(),
        };
        self.settle(call, now_ms);
        Ok(receipt)
    }

    /// Fires what is due, at most as many as a call may, and answers the effective time (M2, R-27, R-29).
    fn fire(&mut self, call: &mut Call, now_ms: u64) -> u64 {
        let now_ms = self.state.now_ms.max(now_ms);
        for _ in 0..limit::TIMERS_A_CALL_MAX {
            let Some(timer) = self.state.index.timers.first_due(now_ms).cloned() else {
                break;
            };
            for draft in decide_timer(&self.state, &timer, now_ms) {
                self.record(call, now_ms, draft);
            }
            self.state.index.touch(&timer.coordination);
            self.settle(call, now_ms);
        }
        now_ms
    }

    /// Records a draft, before it what it makes void, and after it the leases that end with it.
    fn record(&mut self, call: &mut Call, now_ms: u64, draft: Draft) {
        let place = draft.coordination.clone().zip(draft.step.clone());
        let Some((place, reason)) = place.zip(ending::release_reason(&draft.event)) else {
            self.write(call, now_ms, draft);
            return;
        };
        let found = contest::step_at(&self.state, &place);
        let before = found.and_then(|(live, step)| ending::before(live, step, &draft.event));
        if let Some(before) = before {
            self.write(call, now_ms, before);
        }
        let seq = self.state.next_seq();
        let attempt = draft.attempt.unwrap_or_default();
        self.write(call, now_ms, draft);
        let found = contest::step_at(&self.state, &place).filter(|(_, step)| !step.is_out());
        let after =
            found.and_then(|(live, step)| lease::release_rest(live, step, attempt, seq, reason));
        if let Some(after) = after {
            self.write(call, now_ms, after);
        }
    }

    /// Numbers, hashes and applies one record.
    fn write(&mut self, call: &mut Call, now_ms: u64, draft: Draft) {
        let mut record = Record {
            seq: self.state.next_seq(),
            at_ms: self.state.now_ms.max(now_ms),
            coordination_id: draft.coordination,
            step_id: draft.step,
            attempt: draft.attempt,
            cause: draft.cause,
            trace: draft.trace,
            event: draft.event,
        };
        debug_assert_eq!(
            legal::test(&self.state, &record),
            Ok(()),
            "a live record that replay would refuse"
        );
        let (line, hash) = record.line(&self.state.head.hash);
        apply(&mut self.state, &mut record, hash);
        call.effects.add(&self.state, &record, &line);
        call.lines.push(line);
    }

    /// One append for the whole call, and only then its effects (M3, R-60).
    fn finish(&mut self, host: &mut dyn Host, call: Call) -> Result<(), CallError> {
        if !call.lines.is_empty() && host.append(call.lines).is_err() {
            return Err(CallError::LedgerUnavailable);
        }
        call.effects.hand_out(host);
        self.spent = false;
        Ok(())
    }
}

fn owned(name: Name) -> Cow<'static, str> {
    Cow::Owned(name.to_string())
}

/// A later time would make deadlines that are no integers of the contract any more.
fn check_now(now_ms: u64) -> Result<(), CallError> {
    if now_ms <= limit::TIME_MS_MAX {
        return Ok(());
    }
    let says = format!("now-ms is {now_ms}; 0..{} are allowed", limit::TIME_MS_MAX);
    Err(CallError::bound("nowMs", says))
}
