//! A list of actions as a vector of which only the steps are given: what the host calls, and what happens to it.
//!
//! What must come of them is written by the tests (`QM2_BLESS=1 cargo test --test qm2 vectors::`), once it is right. The format is
//! described in `tests/vectors/README.md`.

use crate::action::{Action, Fault, FaultKind};
use crate::runner::Mode;
use qm2_core::call::Call;
use serde_json::{Value, json};

/// Steps of a vector.
#[derive(Default)]
struct Steps {
    steps: Vec<Value>,
    /// Calls of a transaction that is not committed; a crash takes them with it.
    pending: Vec<Value>,
    /// The instance is gone, and the step that says so makes the next one.
    is_replaced: bool,
}

/// The vector of these actions.
#[must_use]
pub fn of(actions: &[Action], mode: Mode, title: &str) -> Value {
    let mut steps = Steps::default();
    for action in actions {
        match action {
            Action::Call { call, fault } => steps.call(call, *fault, mode),
            Action::Commit => steps.commit(),
            Action::Crash => {
                steps.pending.clear();
                steps.replace(json!({"restart": true}));
            }
            Action::Rebuild { .. } => {
                steps.commit();
                if !std::mem::take(&mut steps.is_replaced) {
                    steps.steps.push(json!({"restart": true}));
                }
            }
        }
    }
    steps.commit();
    json!({"format": 1, "title": title, "rules": [], "runs": [{"run": 1, "steps": steps.steps}]})
}

impl Steps {
    fn commit(&mut self) {
        self.steps.append(&mut self.pending);
    }

    fn replace(&mut self, step: Value) {
        self.steps.push(step);
        self.is_replaced = true;
    }

    fn call(&mut self, call: &Call, fault: Option<Fault>, mode: Mode) {
        let step = json!({"call": call});
        match fault {
            // A call on a dead instance has no place in a vector.
            _ if self.is_replaced => {}
            // What was appended stays, and the host dies after it.
            Some(Fault {
                import,
                kind: FaultKind::Crash,
            }) if mode == Mode::AppendFirst && import > 0 => {
                self.steps.push(step);
                self.replace(json!({"restart": true}));
            }
            Some(Fault {
                kind: FaultKind::Crash,
                ..
            }) => {
                self.commit();
                self.replace(json!({"lost": call}));
            }
            Some(Fault {
                import: 0,
                kind: FaultKind::Refuse,
            }) => {
                self.commit();
                self.steps.extend([json!({"refuseAppends": true}), step]);
            }
            // Where an effect is not taken, the component says the same.
            _ => self.pending.push(step),
        }
        if mode == Mode::AppendFirst {
            self.commit();
        }
    }
}
