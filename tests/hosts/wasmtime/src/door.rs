//! The ways into the engine: records and JSON of the component, JSON of the core module, natively compiled or interpreted.
//!
//! All take the same calls and give the same answers; that they do is what the vectors show.

use crate::artifact;
use qm2_core::call::{Answer, Call};
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use qm2_host::engine::{Engine, Fault, ImportFault, Instance, Sandbox};
use serde::Deserialize;
use std::sync::OnceLock;

/// A way into an instance, with a host that stages what is handed out.
pub trait Door: Sized {
    /// As the other hosts call it.
    const NAME: &str;

    /// A new instance without records.
    fn open() -> Self;

    /// Makes a call.
    ///
    /// # Errors
    /// The instance is spent.
    fn try_call(&mut self, call: &Call) -> Result<Result<Answer, CallError>, Fault>;

    /// What was handed out since the last time.
    fn take_staged(&mut self) -> Staged;

    /// From here on its host does not take ledger lines.
    fn refuse_appends(&mut self);

    /// From here on its host dies in this import of a call, from 0.
    fn die_at(&mut self, import: Option<u32>);

    /// Whether it died in the last call.
    fn died(&self) -> bool;
}

/// The compiled component, for all instances.
pub fn engine(interpreted: bool) -> &'static Engine {
    static ENGINES: [OnceLock<Engine>; 2] = [OnceLock::new(), OnceLock::new()];
    ENGINES[usize::from(interpreted)].get_or_init(|| {
        let sandbox = Sandbox {
            interpreted,
            ..Sandbox::default()
        };
        Engine::of_component(artifact::component(), sandbox, None).expect("the component compiles")
    })
}

fn instance(interpreted: bool) -> Instance {
    let made = engine(interpreted).instance();
    made.expect("an instance of the component")
}

/// An answer as text.
///
/// # Errors
/// It has no form that is known; the instance would be no use then.
pub fn parse(text: &str) -> Result<Result<Answer, CallError>, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Refused {
        error: CallError,
    }
    let wrong = |e: serde_json::Error| Fault::Trap(format!("{e}: {text}"));
    if text.starts_with("{\"error\":") {
        let refused: Refused = serde_json::from_str(text).map_err(wrong)?;
        return Ok(Err(refused.error));
    }
    serde_json::from_str(text).map(Ok).map_err(wrong)
}

/// The typed interfaces.
pub struct Records<const INTERPRETED: bool>(Instance);

/// The JSON interface; what it hands out still comes as records.
pub struct Json<const INTERPRETED: bool>(Instance);

macro_rules! doors {
    ($($door:ident $name:literal |$this:ident, $call:ident| $answer:expr;)*) => { $(
        impl<const INTERPRETED: bool> Door for $door<INTERPRETED> {
            const NAME: &str = $name;

            fn open() -> Self {
                Self(instance(INTERPRETED))
            }

            fn try_call(&mut self, $call: &Call) -> Result<Result<Answer, CallError>, Fault> {
                let $this = &mut self.0;
                $answer
            }

            fn take_staged(&mut self) -> Staged {
                self.0.take_staged()
            }

            fn refuse_appends(&mut self) {
                self.0.refuse_appends();
            }

            fn die_at(&mut self, import: Option<u32>) {
                self.0.fail_import(import.map(ImportFault::trap));
            }

            fn died(&self) -> bool {
                self.0.import_fault_struck()
            }
        }
    )* };
}

doors! {
    Records "records" |instance, call| instance.call(call);
    Json "json" |instance, call| {
        let request = serde_json::to_string(call).map_err(|e| Fault::Trap(e.to_string()))?;
        parse(&instance.call_json(call.name(), &request)?)
    };
}
