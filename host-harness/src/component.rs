//! The only file that knows the generated bindings' imports: what the component says during a call is staged here.
//!
//! Never blocks and never calls back: an import only pushes. It refuses nothing that the contract allows, unless that is being
//! tried out; what breaks the contract ends the instance there and then, see [`crate::contract`]. Does not decide what
//! becomes of what was staged; see [`crate::transaction`].

use crate::contract::Allowance;
use crate::convert;
use qm2_core::staged::{HookRequest, Staged};
use wasmtime::{ResourceLimiter, StoreLimits};

/// Generated from `wit/`; a module of its own, because the names of the world collide with those of wasmtime.
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "coordinator",
        imports: { default: trappable },
    });
}

use bindings::qm2::coordination::{event_stream, hooks, lanes, queue, types};

/// A fault at one import of one call: how a component bears a host that refuses or dies is tried out with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportFault {
    /// Which import of the call, from 0.
    import: u32,
    traps: bool,
}

impl ImportFault {
    /// The import is not taken: `unavailable` of an append, `busy` of all else.
    #[must_use]
    pub fn refuse(import: u32) -> Self {
        let traps = false;
        Self { import, traps }
    }

    /// The host dies in the import.
    #[must_use]
    pub fn trap(import: u32) -> Self {
        let traps = true;
        Self { import, traps }
    }
}

/// State of a wasmtime store: what was staged, what may still be, and the memory limit.
pub(crate) struct HostState {
    pub(crate) staged: Staged,
    pub(crate) allowance: Allowance,
    pub(crate) limits: Limits,
    /// Imports of this call so far, and the one that fails.
    pub(crate) imports: u32,
    pub(crate) fault: Option<ImportFault>,
    pub(crate) fault_struck: bool,
}

/// What an instance may have, and how much memory it has got of that.
pub(crate) struct Limits {
    bounds: StoreLimits,
    pub(crate) memory_bytes: usize,
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let may = self.bounds.memory_growing(current, desired, maximum)?;
        if may {
            self.memory_bytes = desired;
        }
        Ok(may)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.bounds.memory_grow_failed(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.bounds.table_growing(current, desired, maximum)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.bounds.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.bounds.instances()
    }

    fn tables(&self) -> usize {
        self.bounds.tables()
    }

    fn memories(&self) -> usize {
        self.bounds.memories()
    }
}

impl HostState {
    pub(crate) fn new(bounds: StoreLimits, allowance: Allowance) -> Self {
        Self {
            staged: Staged::default(),
            allowance,
            limits: Limits {
                bounds,
                memory_bytes: 0,
            },
            imports: 0,
            fault: None,
            fault_struck: false,
        }
    }

    /// Whether the import that begins is refused.
    fn refuses(&mut self) -> wasmtime::Result<bool> {
        let here = self.imports;
        self.imports += 1;
        let Some(fault) = self.fault.filter(|fault| fault.import == here) else {
            return Ok(false);
        };
        self.fault_struck = true;
        if fault.traps {
            wasmtime::bail!("the host died in import {here} of the call, as it was told to");
        }
        Ok(true)
    }
}

/// The end of an instance that breaks the contract, with what it did.
fn broken(says: String) -> wasmtime::Error {
    wasmtime::Error::msg(says)
}

// Wanted by the bindings although it holds only types.
impl types::Host for HostState {}

impl event_stream::Host for HostState {
    fn append(
        &mut self,
        mut lines: Vec<String>,
    ) -> wasmtime::Result<Result<(), event_stream::Unavailable>> {
        if self.refuses()? || self.staged.refuses_append {
            return Ok(Err(event_stream::Unavailable::Unavailable));
        }
        self.allowance.append(&lines).map_err(broken)?;
        self.staged.lines.append(&mut lines);
        Ok(Ok(()))
    }
}

impl queue::Host for HostState {
    fn enqueue(
        &mut self,
        messages: Vec<types::Message>,
    ) -> wasmtime::Result<Result<(), types::Busy>> {
        if self.refuses()? {
            return Ok(Err(types::Busy::Busy));
        }
        let messages: Vec<_> = messages
            .into_iter()
            .map(convert::message_from_wit)
            .collect();
        self.allowance.messages(&messages).map_err(broken)?;
        self.staged.messages.extend(messages);
        Ok(Ok(()))
    }

    fn withdraw(&mut self, mut keys: Vec<String>) -> wasmtime::Result<Result<(), types::Busy>> {
        if self.refuses()? {
            return Ok(Err(types::Busy::Busy));
        }
        self.allowance.keys(&keys).map_err(broken)?;
        self.staged.withdrawn.append(&mut keys);
        Ok(Ok(()))
    }
}

impl lanes::Host for HostState {
    fn enqueue_in_lane(
        &mut self,
        lane: String,
        priority: types::Priority,
        message: types::Message,
    ) -> wasmtime::Result<Result<(), types::Busy>> {
        if self.refuses()? {
            return Ok(Err(types::Busy::Busy));
        }
        let priority = convert::priority_from_wit(priority);
        let mut message = convert::message_from_wit(message);
        // The one that it goes to.
        message.lane.clone_from(&lane);
        let said = std::slice::from_ref(&message);
        self.allowance.messages(said).map_err(broken)?;
        self.staged.lane_messages.push((lane, priority, message));
        Ok(Ok(()))
    }

    fn cancel(&mut self, mut keys: Vec<String>) -> wasmtime::Result<Result<(), types::Busy>> {
        if self.refuses()? {
            return Ok(Err(types::Busy::Busy));
        }
        self.allowance.keys(&keys).map_err(broken)?;
        self.staged.lane_cancelled.append(&mut keys);
        Ok(Ok(()))
    }
}

impl hooks::Host for HostState {
    fn ask(
        &mut self,
        hook_id: String,
        kind: types::HookKind,
        subject: String,
    ) -> wasmtime::Result<Result<(), types::Busy>> {
        if self.refuses()? {
            return Ok(Err(types::Busy::Busy));
        }
        self.allowance.ask(&hook_id, &subject).map_err(broken)?;
        self.staged.asks.push(HookRequest {
            hook_id,
            kind: convert::hook_kind_from_wit(kind),
            subject,
        });
        Ok(Ok(()))
    }

    fn notify(
        &mut self,
        kind: types::HookNotice,
        subject: String,
    ) -> wasmtime::Result<Result<(), types::Busy>> {
        if self.refuses()? {
            return Ok(Err(types::Busy::Busy));
        }
        self.allowance.notify(&subject).map_err(broken)?;
        let kind = convert::hook_notice_from_wit(kind);
        self.staged.notifications.push((kind, subject));
        Ok(Ok(()))
    }
}
