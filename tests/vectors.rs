//! Runs the vectors through the core itself and through the component in its sandbox, and tests that they are complete.
//!
//! Knows nothing of the tests that wrote them: whatever a vector says must come again, byte for byte.

use crate::support::{Native, engine, vector};
use qm2_core::call::{Answer, Call};
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use qm2_host::engine::Instance;

/// The component as a host runs it.
struct Component(Instance);

impl vector::Instance for Component {
    fn fresh() -> Self {
        Self(engine().instance().expect("an instance can be made"))
    }

    fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        let answered = self.0.call(call);
        answered.unwrap_or_else(|fault| panic!("{}: {fault}", call.name()))
    }

    fn take_staged(&mut self) -> Staged {
        self.0.take_staged()
    }

    fn refuse_appends(&mut self) {
        self.0.refuse_appends();
    }
}

fn files() -> Vec<(String, String)> {
    vector::files(&vector::folder(env!("CARGO_MANIFEST_DIR")))
}

/// What is wrong with each vector of which anything is.
fn failed<I: vector::Instance>(files: &[(String, String)]) -> Vec<String> {
    let checked = files.iter().filter_map(|(name, text)| {
        let failed = vector::check::<I>(text).err()?;
        Some(format!("{name}: {failed}"))
    });
    checked.collect()
}

#[test]
fn every_vector_holds_in_the_core() {
    let failed = failed::<Native>(&files());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_vector_holds_in_the_component() {
    let failed = failed::<Component>(&files());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
