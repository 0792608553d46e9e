//! What is simulated: the core natively, or the component in wasmtime, with faults at its imports.
//!
//! Keeps what the imports of one call were handed. What is durable and what goes out is up to [`crate::runner`].

use crate::action::{Fault, FaultKind};
use qm2_core::call::{Answer, Call};
use qm2_core::machine::Machine;
use qm2_core::message::{HookKind, Host, Message, Refused};
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What came of a call.
#[derive(Debug)]
pub struct Called {
    /// None where the host died in it.
    pub answer: Option<Result<Answer, CallError>>,
    /// What the imports took before that.
    pub staged: Staged,
    /// An import other than the append was refused.
    pub is_busy: bool,
}

/// An instance.
pub trait Target {
    /// Makes a call.
    ///
    /// # Errors
    /// A panic or a trap that nobody ordered.
    fn call(&mut self, call: &Call, fault: Option<Fault>) -> Result<Called, String>;
}

/// Makes instances without records.
pub type Maker = dyn Fn() -> Box<dyn Target>;

/// The core without a component around it.
#[derive(Clone, Default)]
pub struct Native {
    machine: Machine,
}

/// Counts imports and fails the one that is to fail.
#[derive(Default)]
struct Imports {
    staged: Staged,
    count: u32,
    fault: Option<Fault>,
    is_busy: bool,
}

/// Unwinds out of the core where the host is to die; nothing of it is looked at afterwards.
struct Died;

impl Imports {
    fn enter(&mut self) -> Result<(), Refused> {
        let here = self.count;
        self.count += 1;
        match self.fault.filter(|fault| fault.import == here) {
            None => Ok(()),
            Some(fault) => match fault.kind {
                FaultKind::Refuse => Err(Refused),
                FaultKind::Crash => resume_unwind(Box::new(Died)),
            },
        }
    }

    fn take(&mut self) -> Result<(), Refused> {
        let taken = self.enter();
        self.is_busy |= taken.is_err();
        taken
    }
}

impl Host for Imports {
    fn append(&mut self, lines: Vec<String>) -> Result<(), Refused> {
        self.enter()?;
        Host::append(&mut self.staged, lines)
    }
    fn enqueue(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        self.take()?;
        self.staged.enqueue(messages)
    }
    fn withdraw(&mut self, keys: Vec<String>) -> Result<(), Refused> {
        self.take()?;
        self.staged.withdraw(keys)
    }
    fn enqueue_in_lane(&mut self, message: Message) -> Result<(), Refused> {
        self.take()?;
        self.staged.enqueue_in_lane(message)
    }
    fn cancel(&mut self, keys: Vec<String>) -> Result<(), Refused> {
        self.take()?;
        self.staged.cancel(keys)
    }
    fn ask(&mut self, hook_id: &str, kind: HookKind, subject: &str) -> Result<(), Refused> {
        self.take()?;
        self.staged.ask(hook_id, kind, subject)
    }
    fn notify(&mut self, kind: HookKind, subject: &str) -> Result<(), Refused> {
        self.take()?;
        self.staged.notify(kind, subject)
    }
}

impl Target for Native {
    fn call(&mut self, call: &Call, fault: Option<Fault>) -> Result<Called, String> {
        let mut imports = Imports {
            fault,
            ..Imports::default()
        };
        let machine = &mut self.machine;
        let done = catch_unwind(AssertUnwindSafe(|| machine.call(&mut imports, call)));
        let answer = match done {
            Ok(answer) => Some(answer),
            Err(cause) if cause.is::<Died>() => None,
            Err(cause) => {
                let says = cause.downcast_ref::<String>().cloned();
                let says = says.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                let says = says.unwrap_or_default();
                return Err(format!("the core panicked in {}: {says}", call.name()));
            }
        };
        Ok(Called {
            answer,
            staged: imports.staged,
            is_busy: imports.is_busy,
        })
    }
}

#[cfg(feature = "component")]
pub use component::Component;

#[cfg(feature = "component")]
mod component {
    use super::{Called, Fault, FaultKind, Target};
    use qm2_core::call::Call;
    use qm2_core::receipt::CallError;
    use qm2_host::engine::{Engine, ImportFault, Instance};

    /// The component in wasmtime.
    pub struct Component {
        instance: Instance,
    }

    impl Component {
        /// A new instance.
        ///
        /// # Errors
        /// It cannot be made.
        pub fn new(engine: &Engine) -> Result<Self, String> {
            let instance = engine.instance().map_err(|error| error.to_string())?;
            Ok(Self { instance })
        }
    }

    impl Target for Component {
        fn call(&mut self, call: &Call, fault: Option<Fault>) -> Result<Called, String> {
            let refuses = fault.is_some_and(|fault| fault.kind == FaultKind::Refuse);
            let fault = fault.map(|fault| match fault.kind {
                FaultKind::Refuse => ImportFault::refuse(fault.import),
                FaultKind::Crash => ImportFault::trap(fault.import),
            });
            self.instance.fail_import(fault);
            let answer = match self.instance.call(call) {
                Ok(answer) => Some(answer),
                Err(died) if self.instance.import_fault_struck() => {
                    let _ordered = died;
                    None
                }
                Err(died) => return Err(format!("{}: {died}", call.name())),
            };
            let refused_append = matches!(answer, Some(Err(CallError::LedgerUnavailable)));
            Ok(Called {
                answer,
                staged: self.instance.take_staged(),
                is_busy: refuses && self.instance.import_fault_struck() && !refused_append,
            })
        }
    }
}
