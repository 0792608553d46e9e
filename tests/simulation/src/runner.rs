//! Does actions: calls with faults, commits, crashes, rebuilds; and shows everything that becomes durable to the audit.
//!
//! The rules of the two kinds of host are here: one commits what many calls said in one transaction and only then answers
//! and sends; the other appends first and sends as the component speaks. Decides nothing about what is done next.

use crate::action::{Action, Fault, FaultKind, Way};
use crate::audit::{Audit, Done};
use crate::target::{Called, Maker, Target};
use qm2_core::call::{Answer, Call};
use qm2_core::ledger::Chain;
use qm2_core::machine::Machine;
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;

/// How the host makes things durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Records and messages of many calls in one transaction.
    Transaction,
    /// Records at the append, messages as they come.
    AppendFirst,
}

/// A domain and everything that is durable of it.
pub struct Runner<'a> {
    maker: &'a Maker,
    target: Box<dyn Target>,
    mode: Mode,
    /// The durable ledger.
    pub lines: Vec<String>,
    pending: Vec<Done>,
    /// The model.
    pub audit: Audit,
    /// The fold of the durable ledger; made natively.
    shadow: Machine,
    /// The instance is spent or dead.
    pub is_down: bool,
    /// It is down because an append was refused, and still answers.
    pub is_spent: bool,
    /// Everything done so far.
    pub log: Vec<Action>,
    keeps_log: bool,
}

impl<'a> Runner<'a> {
    /// An empty domain.
    #[must_use]
    pub fn new(maker: &'a Maker, mode: Mode, keeps_log: bool) -> Self {
        Self {
            target: maker(),
            maker,
            mode,
            lines: Vec::new(),
            pending: Vec::new(),
            audit: Audit::default(),
            shadow: Machine::new(),
            is_down: false,
            is_spent: false,
            log: Vec::new(),
            keeps_log,
        }
    }

    /// Does one action. What became durable by it is given back.
    ///
    /// # Errors
    /// A violation.
    pub fn act(&mut self, action: Action) -> Result<Vec<Done>, String> {
        if self.keeps_log {
            self.log.push(action.clone());
        }
        match action {
            Action::Call { call, fault } => self.call(call, fault),
            Action::Commit => self.commit(),
            Action::Crash => {
                self.pending.clear();
                self.is_down = true;
                Ok(Vec::new())
            }
            Action::Rebuild { way } => self.rebuild(way).map(|()| Vec::new()),
        }
    }

    fn call(&mut self, call: Call, fault: Option<Fault>) -> Result<Vec<Done>, String> {
        let Called {
            answer,
            staged,
            is_busy,
        } = self.target.call(&call, fault)?;
        let mut done = Done {
            call,
            answer,
            staged,
            is_busy,
        };
        let refused = done.answer == Some(Err(CallError::LedgerUnavailable));
        if self.is_down {
            let spent = matches!(done.answer, None | Some(Err(CallError::Rebuild)));
            if !spent && !matches!(done.call, Call::Arbitrate { .. }) {
                return Err(format!(
                    "{} of a spent instance: {:?}",
                    done.call.name(),
                    done.answer
                ));
            }
            return Ok(Vec::new());
        }
        if refused || done.answer.is_none() && self.mode == Mode::Transaction {
            // nothing of this call happened.
            if refused && !done.staged.is_empty() {
                return Err(format!(
                    "{} handed out what is not durable",
                    done.call.name()
                ));
            }
            self.is_down = true;
            self.is_spent = refused;
            done.staged = Staged::default();
            return self.commit();
        }
        if done.answer == Some(Err(CallError::Rebuild)) {
            return Err(format!(
                "{}: the instance says that it is spent",
                done.call.name()
            ));
        }
        if done.answer.is_none() {
            self.is_down = true;
        }
        self.pending.push(done);
        match self.mode {
            Mode::Transaction => Ok(Vec::new()),
            Mode::AppendFirst => self.commit(),
        }
    }

    fn commit(&mut self) -> Result<Vec<Done>, String> {
        let dones = std::mem::take(&mut self.pending);
        let mut staged = false;
        for done in &dones {
            self.lines.extend_from_slice(&done.staged.lines);
            self.audit.observe(done)?;
            if !done.staged.lines.is_empty() {
                staged = true;
                let folded = self.shadow.replay(&done.staged.lines, true);
                folded.map_err(|error| {
                    format!("replay refuses what {} recorded: {error}", done.call.name())
                })?;
            }
        }
        if staged && !self.is_down {
            self.compare()?;
        }
        Ok(dones)
    }

    /// The fold of the ledger is the live state.
    fn compare(&mut self) -> Result<(), String> {
        let called = self.target.call(&Call::StateDigest, None)?;
        let folded = self
            .shadow
            .state_digest()
            .map_err(|error| error.to_string())?;
        match called.answer {
            Some(Ok(Answer::StateDigest(live))) if live == folded => Ok(()),
            other => Err(format!(
                "the fold of the ledger is {folded}, the live state {other:?}"
            )),
        }
    }

    fn must(&mut self, call: &Call) -> Result<Answer, String> {
        match self.target.call(call, None)?.answer {
            Some(Ok(answer)) => Ok(answer),
            other => Err(format!("{} answers {other:?}", call.name())),
        }
    }

    fn rebuild(&mut self, way: Way) -> Result<(), String> {
        let mut chain = Chain::default();
        for line in &self.lines {
            chain
                .push(line)
                .map_err(|fault| format!("the chain breaks: {fault:?}"))?;
        }
        let mut from = 0;
        let mut pieces = Vec::new();
        if way == Way::Snapshot {
            from = self.lines.len() / 2;
            let mut second = (self.maker)();
            let lines = self.lines[..from].to_vec();
            std::mem::swap(&mut self.target, &mut second);
            self.must(&Call::Replay {
                lines,
                checked: true,
            })?;
            let mut cursor = None;
            loop {
                let call = Call::Snapshot {
                    cursor,
                    max_bytes: 700,
                };
                let Answer::Snapshot(piece) = self.must(&call)? else {
                    return Err("no piece of a snapshot".into());
                };
                pieces.push((piece.chunk, piece.next.is_none()));
                cursor = piece.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        self.target = (self.maker)();
        self.pending.clear();
        for (chunk, last) in pieces {
            self.must(&Call::Restore { chunk, last })?;
        }
        let checked = way == Way::ReplayChecked;
        let lines = self.lines[from..].to_vec();
        let Answer::Replay(head) = self.must(&Call::Replay { lines, checked })? else {
            return Err("no head".into());
        };
        if head != chain.head {
            return Err(format!(
                "rebuilt to {head:?}; the ledger ends at {:?}",
                chain.head
            ));
        }
        self.is_down = false;
        self.is_spent = false;
        if self.lines.is_empty() {
            Ok(())
        } else {
            self.compare()
        }
    }

    /// A call that only reads, past the transaction.
    ///
    /// # Errors
    /// It is refused.
    pub fn read(&mut self, call: &Call) -> Result<Answer, String> {
        self.must(call)
    }
}

/// The answers of another run of the same actions, for comparing native and component byte for byte.
#[derive(Debug, Default)]
pub struct Trace {
    /// The durable ledger.
    pub lines: Vec<String>,
    /// Everything that became durable, as text.
    pub dones: Vec<String>,
}

/// Does a list of actions.
///
/// # Errors
/// The first violation.
pub fn replay(maker: &Maker, mode: Mode, actions: &[Action]) -> Result<Trace, String> {
    let mut runner = Runner::new(maker, mode, false);
    let mut trace = Trace::default();
    for action in actions {
        let dones = runner.act(action.clone())?;
        trace
            .dones
            .extend(dones.iter().map(|done| format!("{done:?}")));
    }
    trace.lines = runner.lines;
    Ok(trace)
}

/// A fault that refuses.
#[must_use]
pub fn refuse(import: u32) -> Option<Fault> {
    let kind = FaultKind::Refuse;
    Some(Fault { import, kind })
}

/// A fault that kills.
#[must_use]
pub fn crash(import: u32) -> Option<Fault> {
    let kind = FaultKind::Crash;
    Some(Fault { import, kind })
}
