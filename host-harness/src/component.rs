//! The only file that knows the generated bindings' imports: what the component says during a call is staged here.
//!
//! Never blocks, never calls back: an import only pushes, and refuses ledger lines only where that is tried out. Does not
//! decide what becomes of what was staged; see [`crate::transaction`].

use crate::convert;
use qm2_core::staged::{HookRequest, Staged};
use wasmtime::StoreLimits;

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

/// State of a wasmtime store: what was staged, and the memory limit.
pub(crate) struct HostState {
    pub(crate) staged: Staged,
    pub(crate) limits: StoreLimits,
    /// Imports of this call so far, and the one that fails.
    pub(crate) imports: u32,
    pub(crate) fault: Option<ImportFault>,
    pub(crate) fault_struck: bool,
}

impl HostState {
    pub(crate) fn new(limits: StoreLimits) -> Self {
        Self {
            staged: Staged::default(),
            limits,
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
        let messages = messages.into_iter().map(convert::message_from_wit);
        self.staged.messages.extend(messages);
        Ok(Ok(()))
    }

    fn withdraw(&mut self, mut keys: Vec<String>) -> wasmtime::Result<Result<(), types::Busy>> {
        if self.refuses()? {
            return Ok(Err(types::Busy::Busy));
        }
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
        let message = convert::message_from_wit(message);
        self.staged.lane_messages.push((lane, priority, message));
        Ok(Ok(()))
    }

    fn cancel(&mut self, mut keys: Vec<String>) -> wasmtime::Result<Result<(), types::Busy>> {
        if self.refuses()? {
            return Ok(Err(types::Busy::Busy));
        }
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
        let kind = convert::hook_notice_from_wit(kind);
        self.staged.notifications.push((kind, subject));
        Ok(Ok(()))
    }
}
