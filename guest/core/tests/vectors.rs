//! Runs every vector in the core itself, without a component around it, by its functions and by the text of the JSON door: a
//! quick proof that it still says the same.
//!
//! The component in a sandbox runs the same files in `tests/vectors.rs`.

// Both serve other tests as well, so that here a part of them is idle.
#[allow(dead_code)]
#[path = "../../../tests/support/native.rs"]
mod native;
#[allow(dead_code)]
#[path = "../../../tests/support/vector.rs"]
mod vector;

#[path = "../../../tests/support/handed.rs"]
mod handed;

use qm2_core::call::{Answer, Call};
use qm2_core::door::{self, TextHost};
use qm2_core::machine::Machine;
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;

/// Everything as text, in and out, as the core module has it.
#[derive(Default)]
struct Texts {
    machine: Machine,
    staged: Staged,
}

impl vector::Instance for Texts {
    fn fresh() -> Self {
        Self::default()
    }

    fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        let request = serde_json::to_string(call).expect("a call has a JSON form");
        let (machine, staged) = (&mut self.machine, &mut self.staged);
        let mut host = TextHost(|text: &str| {
            let staged = handed::stage(staged, text);
            staged.unwrap_or_else(|says| panic!("{says}")).is_ok()
        });
        // What the core itself answered, for comparison.
        let mut made = None;
        let text = door::answer_named(&request, &mut |read| {
            assert_eq!(read, call, "read from {request}");
            made.insert(machine.call(&mut host, read)).clone()
        });
        let made = made.unwrap_or_else(|| panic!("{request} is not read: {text}"));
        let wanted = match &made {
            Ok(answer) => serde_json::to_string(answer),
            Err(error) => {
                serde_json::to_string(error).map(|error| format!("{{\"error\":{error}}}"))
            }
        };
        assert_eq!(text, wanted.expect("an answer has a JSON form"));
        made
    }

    fn take_staged(&mut self) -> Staged {
        self.staged.take()
    }

    fn refuse_appends(&mut self) {
        self.staged.refuses_append = true;
    }
}

fn failed<I: vector::Instance>() -> Vec<String> {
    let files = vector::files(&vector::folder(env!("CARGO_MANIFEST_DIR")));
    assert!(files.len() > 300, "the vectors are not where they were");
    let failed = files.iter().filter_map(|(name, text)| {
        let failed = vector::check::<I>(text).err()?;
        Some(format!("{name}: {failed}"))
    });
    failed.collect()
}

#[test]
fn every_vector_holds_in_the_core() {
    assert_eq!(failed::<native::Native>(), [""; 0]);
}

#[test]
fn every_vector_holds_as_text() {
    assert_eq!(failed::<Texts>(), [""; 0]);
}
