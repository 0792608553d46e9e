//! The instance and the store, moved together: many calls, one commit, and one way back when anything fails.
//!
//! Answers are held until the commit that covers them. While a large group is committed beside it the instance goes on with
//! the next; if that commit fails, nothing of either has happened. A call that traps loses only what it had staged itself.
//! Does not know where calls come from; see [`crate::domain`].

use crate::committer::{Beside, Group, Keeper, Said};
use crate::contract;
use crate::engine::{Engine, Fault, Instance};
use crate::error::{HostError, Result};
use crate::replay::{self, Older};
use crate::store::{DeadLetter, Store};
use crate::submit::{Input, Reply, Side};
use qm2_core::call::{Answer, Call};
use qm2_core::envelope::{Envelope, Intent};
use qm2_core::ledger::Chain;
use qm2_core::limit::RETRY_AFTER_MS;
use qm2_core::message::Caller;
use qm2_core::receipt::{CallError, LedgerFault, Receipt, Rejection, RejectionCode, Remedy};
use std::sync::mpsc::Sender;
use std::time::Instant;

/// Timers fire in calls of 4 096; so many calls without an end would be a fault of the component.
const ADVANCES_MAX: usize = 10_000;
/// Ledger lines, and bytes of all that was said, after which a group is committed although calls wait.
const GROUP_LINES_MAX: usize = 8_192;
const GROUP_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Envelopes of a batch that are tried one by one once so many of them have failed: each may take two call deadlines.
const FAULTS_A_BATCH_MAX: usize = 4;

/// Ledger lines from which on a group is committed beside: less is quicker done than handed over.
const BESIDE_LINES_MIN: usize = 32;

/// The live instance, its store, and the group of calls that the next commit covers.
pub(crate) struct Writer {
    engine: Engine,
    /// Most lines that are verified although a snapshot covers them.
    verified_at_once: u64,
    older: Option<Older>,
    /// None while a group is committed beside.
    keeper: Option<Keeper>,
    /// Started with the first group that is large enough.
    beside: Option<Beside>,
    inputs: Sender<Input>,
    /// None between a failed commit and the store's return.
    instance: Option<Instance>,
    /// Why only reading calls are answered.
    read_only: Option<String>,
    /// The last record that is durable.
    head_seq: u64,
    /// The last record that a snapshot had covered at the last replay, and the length of that.
    snapshot: (u64, usize),
    /// The ledger with the lines of the group: what the component says is held against it.
    chain: Chain,
    group: Group,
    /// Why the last commit that failed did.
    failure: String,
}

impl Writer {
    /// Verifies the stored ledger and replays it.
    ///
    /// # Errors
    /// [`HostError::LedgerBroken`] with the first bad record; others of the store and the component.
    pub(crate) fn open(
        engine: Engine,
        keeper: Keeper,
        inputs: Sender<Input>,
        verified_at_once: u64,
    ) -> Result<Self> {
        let mut writer = Self {
            engine,
            verified_at_once,
            older: None,
            keeper: Some(keeper),
            beside: None,
            inputs,
            instance: None,
            read_only: None,
            head_seq: 0,
            snapshot: (0, 0),
            chain: Chain::default(),
            group: Group::default(),
            failure: String::new(),
        };
        writer.replay()?;
        Ok(writer)
    }

    /// The store, after what is committed beside.
    pub(crate) fn store(&mut self) -> &mut dyn Store {
        self.settle();
        &mut *self.keeper().store
    }

    /// For where no commit runs beside.
    fn keeper(&mut self) -> &mut Keeper {
        match &mut self.keeper {
            Some(keeper) => keeper,
            None => unreachable!("whoever needs it has waited for the commit that has it"),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Number of the last record that is durable.
    pub(crate) fn head_seq(&self) -> u64 {
        self.head_seq
    }

    /// What the store said of the last commit that failed.
    pub(crate) fn failure(&self) -> &str {
        &self.failure
    }

    /// Number of the last record that the last replay took from a snapshot, and the length of that.
    pub(crate) fn snapshot(&self) -> (u64, usize) {
        self.snapshot
    }

    /// What the last replay has left to verify.
    pub(crate) fn take_older(&mut self) -> Option<Older> {
        self.older.take()
    }

    /// What the state rests on does not hold: nothing is recorded any more.
    pub(crate) fn end_for_broken(&mut self, fault: LedgerFault) {
        let (seq, reason) = (fault.seq, fault.message);
        self.commit();
        self.end_writing(HostError::LedgerBroken { seq, reason }.to_string());
    }

    /// Makes a call; its answer goes out with the next commit.
    pub(crate) fn apply(&mut self, call: Call, side: Side, reply: Option<Reply>) {
        let answer = self.run(&call);
        self.note_dead_letters(&call, &answer);
        self.note_acknowledged(&call, &answer);
        self.group.transaction.noted.extend(side.noted);
        self.group.transaction.forgotten.extend(side.forgotten);
        if let Some(reply) = reply {
            self.group.answers.push((reply, answer));
        } else if let Err(e) = answer {
            tracing::debug!("{}: {e}", call.name());
        }
    }

    /// Makes a call of the host's own.
    pub(crate) fn run(&mut self, call: &Call) -> Result<Answer> {
        let unanswerable = self.instance.is_none() || !call.is_reading();
        if let Some(reason) = self.read_only.clone().filter(|_| unanswerable) {
            return Err(HostError::ReadOnly { reason });
        }
        self.run_twice(call)
            .unwrap_or_else(|fault| self.component_fault(call, &fault))
    }

    /// Fires what is due, or begins to: where that takes longer than a call may, inputs come in between. A timer that traps
    /// twice leaves the domain for reading only.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        let begun = Instant::now();
        for _ in 0..ADVANCES_MAX {
            match self.run(&Call::Advance { now_ms }) {
                Ok(Answer::Advance(true)) => {
                    if self.is_group_full() {
                        self.commit();
                    }
                    if begun.elapsed() > self.engine.sandbox().call_deadline {
                        return;
                    }
                }
                Ok(_) => return,
                Err(HostError::ComponentFault { message, .. }) => {
                    self.end_for_fault(&format!("a timer that was due at {now_ms}"), &message);
                    return;
                }
                Err(e) => {
                    tracing::debug!("advance: {e}");
                    return;
                }
            }
        }
        let says = format!("it says after {ADVANCES_MAX} calls that more is due");
        self.end_for_fault(&format!("what was due at {now_ms}"), &says);
    }

    /// When to advance next; nothing while the gate is off or only reading is possible.
    pub(crate) fn next_deadline(&mut self) -> Option<u64> {
        if self.read_only.is_some() {
            return None;
        }
        match self.run(&Call::NextDeadline) {
            Ok(Answer::NextDeadline(at_ms)) => at_ms,
            Err(HostError::ComponentFault { message, .. }) => {
                // Without it no timer would ever fire again.
                self.end_for_fault("the question when the next timer is due", &message);
                None
            }
            _ => None,
        }
    }

    /// Hands out everything that is out again.
    pub(crate) fn reconcile(&mut self) -> Result<Answer> {
        self.run(&Call::Reconcile)
    }

    /// Forgets a process with the next commit, but does not cause one.
    pub(crate) fn gone(&mut self, key: String) {
        self.group.gone.push(key);
    }

    /// Forgets a process with the next commit.
    pub(crate) fn forget(&mut self, key: String) {
        self.group.transaction.forgotten.push(key);
    }

    /// Whether the group is to be committed before anything is added to it.
    pub(crate) fn is_group_full(&self) -> bool {
        self.group.staged.lines.len() >= GROUP_LINES_MAX || self.group.bytes >= GROUP_BYTES_MAX
    }

    /// Makes the group durable, after what is committed beside; see [`Keeper::commit`]. If one of them fails false is answered:
    /// then what is out is in the next group.
    pub(crate) fn commit(&mut self) -> bool {
        if !self.settle() {
            return false;
        }
        let group = self.take_group();
        let result = self.keeper().commit(group);
        self.committed(result)
    }

    /// As [`Writer::commit`], but a large group is committed beside, and what comes while one is stays in the group. False is
    /// answered where an earlier one has failed.
    pub(crate) fn commit_in_turn(&mut self) -> bool {
        if self.is_group_full() {
            return self.commit();
        }
        if self.keeper.is_none() {
            let done = self.beside.as_mut().and_then(Beside::look);
            match done {
                // Its end is an input, too.
                None => return true,
                Some((keeper, result)) => {
                    self.keeper = Some(keeper);
                    if !self.committed(result) {
                        return false;
                    }
                }
            }
        }
        if self.group.staged.lines.len() < BESIDE_LINES_MIN || !self.has_beside() {
            return self.commit();
        }
        let group = self.take_group();
        if let (Some(beside), Some(keeper)) = (&mut self.beside, self.keeper.take()) {
            beside.begin(keeper, group);
        }
        true
    }

    /// Waits for what is committed beside; false if that has failed.
    fn settle(&mut self) -> bool {
        match &mut self.beside {
            Some(beside) if self.keeper.is_none() => {
                let (keeper, result) = beside.wait();
                self.keeper = Some(keeper);
                self.committed(result)
            }
            _ => true,
        }
    }

    fn has_beside(&mut self) -> bool {
        if self.beside.is_none() {
            match Beside::start(self.inputs.clone()) {
                Ok(beside) => self.beside = Some(beside),
                Err(e) => tracing::debug!("no thread to commit beside: {e}"),
            }
        }
        self.beside.is_some()
    }

    /// What is to be committed now. What may wait stays where there is nothing else.
    fn take_group(&mut self) -> Group {
        let mut group = std::mem::take(&mut self.group);
        if !group.has_something_to_keep() {
            self.group.gone = std::mem::take(&mut group.gone);
        }
        group
    }

    /// After a commit. Where it failed, all that was done since it began is undone, and its callers are told to retry.
    fn committed(&mut self, result: Result<u64>) -> bool {
        match result {
            Ok(count) => {
                self.head_seq += count;
                true
            }
            Err(e) => {
                tracing::error!("{e}; the store is opened anew");
                self.failure = e.to_string();
                std::mem::take(&mut self.group).send_back();
                self.instance = None;
                self.return_to_stored();
                false
            }
        }
    }

    /// Whether the store is away, and [`Writer::return_to_stored`] should be tried again later.
    pub(crate) fn is_away(&self) -> bool {
        self.instance.is_none() && self.read_only.is_none()
    }

    /// After a commit whose result is unknown: what is stored counts, and what is out goes out again with the next commit.
    pub(crate) fn return_to_stored(&mut self) {
        match self.keeper().store.reopen().and_then(|()| self.replay()) {
            Ok(()) => match self.reconcile() {
                Ok(_) => {}
                Err(HostError::ComponentFault { message, .. }) => {
                    // What is out would never go out again.
                    self.end_for_fault("what is to go out again", &message);
                }
                // With the gate off nothing is out.
                Err(e) => tracing::debug!("reconcile: {e}"),
            },
            Err(e) => self.stay_away(&e),
        }
    }

    fn replay(&mut self) -> Result<()> {
        let (engine, verified_at_once) = (self.engine.clone(), self.verified_at_once);
        let keeper = self.keeper();
        let replayed = replay::from_store(&engine, &mut *keeper.store, verified_at_once)?;
        (keeper.sink)(Said::Replayed(replayed.repeatable));
        self.instance = Some(replayed.instance);
        self.older = replayed.older;
        (self.head_seq, self.snapshot) = (replayed.head.seq, replayed.snapshot);
        self.chain = Chain {
            head: replayed.head,
        };
        Ok(())
    }

    /// Without an instance: for good if the ledger or the component is to blame, else until the store is back.
    fn stay_away(&mut self, error: &HostError) {
        match error {
            HostError::LedgerBroken { .. }
            | HostError::Damaged { .. }
            | HostError::Component(_)
            | HostError::Call(_) => {
                self.end_writing(error.to_string());
            }
            _ => tracing::error!("{error}; trying again later"),
        }
    }

    /// The component fails where nobody could be told, and the domain cannot go on without.
    fn end_for_fault(&mut self, what: &str, message: &str) {
        self.end_writing(format!(
            "{what} failed twice in the component: {message}; please report it with the output of `qm2 ledger export`"
        ));
    }

    fn end_writing(&mut self, reason: String) {
        tracing::error!("the domain is read-only from here on: {reason}");
        self.read_only = Some(reason);
        self.settle();
        (self.keeper().sink)(Said::ReadOnly);
    }

    /// A call, and after a trap once more on a rebuilt instance.
    fn run_twice(&mut self, call: &Call) -> Result<Result<Answer>, Fault> {
        match self.attempt(call) {
            Err(fault) => {
                tracing::error!(
                    "{} {fault}; the instance is rebuilt and the input tried once more",
                    call.name()
                );
                if let Err(e) = self.rebuild() {
                    return Ok(Err(e));
                }
            }
            answer => return answer,
        }
        match self.attempt(call) {
            Err(fault) => {
                if let Err(e) = self.rebuild() {
                    return Ok(Err(e));
                }
                Err(fault)
            }
            answer => answer,
        }
    }

    fn attempt(&mut self, call: &Call) -> Result<Result<Answer>, Fault> {
        let begun = Instant::now();
        loop {
            match self.call(call)? {
                Err(HostError::Call(CallError::Busy)) if !matches!(call, Call::Advance { .. }) => {
                    let head_seq = self.chain.head.seq;
                    let now_ms = call.now().unwrap_or(0);
                    if let Err(e) = self.call(&Call::Advance { now_ms })? {
                        return Ok(Err(e));
                    }
                    if self.chain.head.seq == head_seq {
                        let says = "it is busy with what is due, but records nothing of it";
                        return Err(Fault::Trap(says.into()));
                    }
                }
                answer => return Ok(answer),
            }
            if begun.elapsed() > self.engine.sandbox().call_deadline {
                // The next attempt goes on with what is due.
                return Ok(Err(HostError::Call(CallError::Busy)));
            }
            if self.is_group_full() && !self.commit() {
                return Ok(Err(HostError::Retry));
            }
        }
    }

    /// One call; what it said goes into the group if the contract allows it and it goes with the ledger.
    fn call(&mut self, call: &Call) -> Result<Result<Answer>, Fault> {
        let Some(instance) = &mut self.instance else {
            return Ok(Err(HostError::Retry));
        };
        let answer = instance.call(call)?;
        let bytes = instance.staged_bytes();
        let staged = instance.take_staged();
        match answer {
            Ok(answer) => {
                let mut chain = self.chain.clone();
                contract::follow(&mut chain, &staged.lines)
                    .and_then(|()| {
                        let recorded = !staged.lines.is_empty();
                        contract::check_answer(call, &answer, recorded, &chain.head)
                    })
                    .map_err(Fault::Trap)?;
                self.chain = chain;
                self.group.bytes += bytes;
                self.group.staged.extend(staged);
                Ok(Ok(answer))
            }
            Err(CallError::Rebuild | CallError::LedgerUnavailable) => Err(Fault::Dead),
            Err(e) => Ok(Err(HostError::Call(e))),
        }
    }

    /// A new instance in the place of a dead one. What earlier calls of the group had staged is committed first: the dead
    /// instance is their only other home.
    fn rebuild(&mut self) -> Result<()> {
        if !self.commit() {
            return Err(HostError::Retry);
        }
        self.instance = None;
        self.replay().inspect_err(|e| self.stay_away(e))
    }

    /// The second trap on one input. Envelopes of a batch are told apart; other inputs are refused as a whole.
    fn component_fault(&mut self, call: &Call, fault: &Fault) -> Result<Answer> {
        let says = format!(
            "the component failed twice on this input ({fault}); it was not recorded, please report it"
        );
        let refused = || Rejection::new(RejectionCode::ComponentFault, "", says.clone());
        match call {
            Call::SubmitPlan { .. } => Ok(Answer::SubmitPlan(Err(refused()))),
            Call::Submit { envelopes, .. } if envelopes.len() == 1 => {
                Ok(Answer::Submit(vec![Err(refused())]))
            }
            Call::Submit {
                caller,
                now_ms,
                envelopes,
            } => {
                let mut receipts = Vec::with_capacity(envelopes.len());
                let mut faults = 0;
                for envelope in envelopes {
                    if faults == FAULTS_A_BATCH_MAX {
                        receipts.push(Err(untried()));
                        continue;
                    }
                    let receipt = self.submit_one(caller, *now_ms, envelope, &refused())?;
                    faults += usize::from(receipt.as_ref().is_err_and(is_component_fault));
                    receipts.push(receipt);
                }
                Ok(Answer::Submit(receipts))
            }
            Call::Acknowledge { keys, .. } => Ok(Answer::Acknowledge(
                keys.iter().map(|_| Err(refused())).collect(),
            )),
            Call::Verdict { .. } => Ok(Answer::Verdict(Err(refused()))),
            Call::Answer { .. } => Ok(Answer::Answer(Err(refused()))),
            Call::Claim { .. } => Ok(Answer::Claim(Err(refused()))),
            Call::Renew { .. } => Ok(Answer::Renew(Err(refused()))),
            Call::Release { .. } => Ok(Answer::Release(Err(refused()))),
            _ => Err(HostError::ComponentFault {
                call: call.name(),
                message: fault.to_string(),
            }),
        }
    }

    fn submit_one(
        &mut self,
        caller: &Caller,
        now_ms: u64,
        envelope: &Envelope,
        refused: &Rejection,
    ) -> Result<Result<Receipt, Rejection>> {
        let (caller, envelopes) = (caller.clone(), vec![envelope.clone()]);
        match self.run_twice(&Call::Submit {
            caller,
            now_ms,
            envelopes,
        }) {
            Ok(Ok(Answer::Submit(mut receipts))) => {
                Ok(receipts.pop().unwrap_or(Err(refused.clone())))
            }
            Ok(Ok(_)) | Err(_) => Ok(Err(refused.clone())),
            Ok(Err(e)) => Err(e),
        }
    }

    /// Reports that came when everything was over are kept, not lost.
    fn note_dead_letters(&mut self, call: &Call, answer: &Result<Answer>) {
        let (
            Call::Submit {
                envelopes, now_ms, ..
            },
            Ok(Answer::Submit(receipts)),
        ) = (call, answer)
        else {
            return;
        };
        for (envelope, receipt) in envelopes.iter().zip(receipts) {
            if let Err(rejection) = receipt
                && rejection.code == RejectionCode::Closed
                && envelope.intent == Intent::Report
            {
                self.group.transaction.dead_letters.push(DeadLetter {
                    at_ms: *now_ms,
                    envelope: envelope.clone(),
                    reason: rejection.message.clone(),
                });
            }
        }
    }

    /// Reports that their owner has acknowledged leave the queue.
    fn note_acknowledged(&mut self, call: &Call, answer: &Result<Answer>) {
        if let (Call::Acknowledge { keys, .. }, Ok(Answer::Acknowledge(receipts))) = (call, answer)
        {
            let acknowledged = keys
                .iter()
                .zip(receipts)
                .filter(|(_, receipt)| receipt.is_ok());
            let keys = acknowledged.map(|(key, _)| key.clone());
            self.group.staged.withdrawn.extend(keys);
        }
    }
}

fn is_component_fault(rejection: &Rejection) -> bool {
    rejection.code == RejectionCode::ComponentFault
}

/// The refusal of an envelope beside others that the component failed on.
fn untried() -> Rejection {
    let says = "the component failed on other envelopes of this call, and this one was not tried; send it again";
    let after_ms = RETRY_AFTER_MS;
    Rejection {
        next: Remedy::Retry { after_ms },
        ..Rejection::new(RejectionCode::ComponentFault, "", says)
    }
}
