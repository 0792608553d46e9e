//! A host that dies in the middle of a call and comes back: a new instance, a replay, and the same call again.
//!
//! Every vector must end the same with it as without. Where a vector takes a snapshot in, or has no kept ledger, nothing dies.

use crate::door::Door;
use crate::vector;
use qm2_core::call::{Answer, Call};
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use std::cell::Cell;

thread_local! {
    /// Which call, and which import of it, of the vector that is being run; none lets everything live.
    static DEATH: Cell<Option<(u32, u32)>> = const { Cell::new(None) };
    static REBUILDS: Cell<u32> = const { Cell::new(0) };
}

/// Chooses where a host dies in the vector of this name.
pub fn choose(name: &str) {
    // FNV-1a, written out so that every host can choose the same.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    DEATH.set(Some((hash % 8, hash / 8 % 3)));
}

/// Nothing dies any more.
pub fn spare() {
    DEATH.set(None);
}

/// How often an instance was made anew on this thread.
pub fn count() -> u32 {
    REBUILDS.get()
}

/// A door whose host may die once.
pub struct Rebuilding<D> {
    door: D,
    /// Every line that was kept; none where it is not the whole ledger.
    ledger: Option<Vec<String>>,
    calls: u32,
    staged: Staged,
    refuses: bool,
}

impl<D: Door> Rebuilding<D> {
    fn dies_now(&self) -> Option<u32> {
        let (call, import) = DEATH.get()?;
        (self.calls > call && !self.refuses && self.ledger.is_some()).then_some(import)
    }

    /// A spent instance that the vector itself left is not made anew: the vector says what comes next.
    fn rebuild(&mut self) {
        let lines = self.ledger.clone().unwrap_or_default();
        self.door = D::open();
        let checked = false;
        let replayed = self.door.try_call(&Call::Replay { lines, checked });
        assert!(matches!(replayed, Ok(Ok(_))), "replay: {replayed:?}");
        REBUILDS.set(REBUILDS.get() + 1);
        spare();
    }
}

impl<D: Door> vector::Instance for Rebuilding<D> {
    fn fresh() -> Self {
        Self {
            door: D::open(),
            ledger: Some(Vec::new()),
            calls: 0,
            staged: Staged::default(),
            refuses: false,
        }
    }

    fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        self.calls += 1;
        let dies = self.dies_now();
        self.door.die_at(dies);
        let mut answer = self.door.try_call(call);
        if dies.is_some() && self.door.died() {
            assert!(answer.is_err(), "a host died and nobody noticed");
            self.rebuild();
            answer = self.door.try_call(call);
        }
        let answer = answer.unwrap_or_else(|fault| panic!("{}: {fault}: {call:?}", call.name()));
        let staged = self.door.take_staged();
        match (&mut self.ledger, call, &answer) {
            (_, Call::Restore { .. }, _) | (_, Call::Replay { .. }, Err(_)) => self.ledger = None,
            (Some(ledger), Call::Replay { lines, .. }, Ok(_)) => ledger.extend_from_slice(lines),
            (Some(ledger), _, _) => ledger.extend_from_slice(&staged.lines),
            _ => {}
        }
        self.staged = staged;
        answer
    }

    fn take_staged(&mut self) -> Staged {
        std::mem::take(&mut self.staged)
    }

    fn refuse_appends(&mut self) {
        self.refuses = true;
        self.door.refuse_appends();
    }
}
