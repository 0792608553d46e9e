//! The core without a component around it, called through the same [`Call`]s.
//!
//! Its host keeps what it is handed, and refuses to append where a test says so.

use super::vector;
use qm2_core::call::{Answer, Call};
use qm2_core::machine::Machine;
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;

/// A machine and its host.
#[derive(Default)]
pub struct Native {
    machine: Machine,
    staged: Staged,
}

impl Native {
    pub fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        self.machine.call(&mut self.staged, call)
    }

    pub fn take_staged(&mut self) -> Staged {
        self.staged.take()
    }

    /// From here on the host does not take ledger lines.
    pub fn refuse_appends(&mut self) {
        self.staged.refuses_append = true;
    }

    /// Whether calls still do something: it is neither spent nor read-only.
    pub fn is_usable(&mut self) -> bool {
        self.machine.snapshot(None, 1).is_ok()
    }

    pub fn replay(&mut self, lines: &[String], checked: bool) {
        let replayed = self.machine.replay(lines, checked);
        replayed.expect("the ledger replays");
    }

    pub fn digest(&self) -> String {
        self.machine.state_digest().expect("there is a state")
    }
}

impl vector::Instance for Native {
    fn fresh() -> Self {
        Self::default()
    }

    fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        self.call(call)
    }

    fn take_staged(&mut self) -> Staged {
        self.take_staged()
    }

    fn refuse_appends(&mut self) {
        self.refuse_appends();
    }
}
