//! The only file that knows the generated bindings' imports: what the component says during a call is staged here.
//!
//! Never blocks, never refuses, never calls back: an import only pushes. Does not decide what becomes of what was
//! staged; see [`crate::transaction`].

use crate::convert;
use qm2_core::envelope::Priority;
use qm2_core::message::{HookKind, Message};
use std::collections::HashSet;
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

/// A question to the hooks of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRequest {
    /// `h` and the number of the hook.requested record; the verdict names it.
    pub hook_id: String,
    /// One of the kinds that are asked.
    pub kind: HookKind,
    /// Canonical JSON of what is asked about.
    pub subject: String,
}

/// What the component said during one call, in the order in which it said it. Nothing of it has happened yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Staged {
    /// Ledger lines, without newlines.
    pub lines: Vec<String>,
    /// At-least-once messages.
    pub messages: Vec<Message>,
    /// Keys of the durable queue whose attempts have ended.
    pub withdrawn: Vec<String>,
    /// Best-effort messages with the lane and priority to run them in.
    pub lane_messages: Vec<(String, Priority, Message)>,
    /// Keys of best-effort messages whose attempts have ended.
    pub lane_cancelled: Vec<String>,
    /// Questions to hooks, which want an answer.
    pub asks: Vec<HookRequest>,
    /// Kind and subject of what hooks are told.
    pub notifications: Vec<(HookKind, String)>,
}

impl Staged {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
            && self.messages.is_empty()
            && self.withdrawn.is_empty()
            && self.lane_messages.is_empty()
            && self.lane_cancelled.is_empty()
            && self.asks.is_empty()
            && self.notifications.is_empty()
    }

    /// Puts what was said later behind what was said before.
    pub(crate) fn append(&mut self, mut later: Self) {
        self.lines.append(&mut later.lines);
        self.messages.append(&mut later.messages);
        self.withdrawn.append(&mut later.withdrawn);
        self.lane_messages.append(&mut later.lane_messages);
        self.lane_cancelled.append(&mut later.lane_cancelled);
        self.asks.append(&mut later.asks);
        self.notifications.append(&mut later.notifications);
    }

    /// Drops messages whose attempt ended before they could go out; an ended attempt never comes back.
    pub(crate) fn drop_withdrawn(&mut self) {
        if !self.withdrawn.is_empty() {
            let withdrawn: HashSet<&str> = self.withdrawn.iter().map(String::as_str).collect();
            self.messages
                .retain(|message| !withdrawn.contains(message.key.as_str()));
        }
        if !self.lane_cancelled.is_empty() {
            let ended: HashSet<&str> = self.lane_cancelled.iter().map(String::as_str).collect();
            self.lane_messages
                .retain(|(_, _, message)| !ended.contains(message.key.as_str()));
        }
    }
}

/// State of a wasmtime store: what was staged, and the memory limit.
pub(crate) struct HostState {
    pub(crate) staged: Staged,
    pub(crate) limits: StoreLimits,
}

// Wanted by the bindings although it holds only types.
impl types::Host for HostState {}

impl event_stream::Host for HostState {
    fn append(
        &mut self,
        mut lines: Vec<String>,
    ) -> wasmtime::Result<Result<(), event_stream::Unavailable>> {
        self.staged.lines.append(&mut lines);
        Ok(Ok(()))
    }
}

impl queue::Host for HostState {
    fn enqueue(
        &mut self,
        messages: Vec<types::Message>,
    ) -> wasmtime::Result<Result<(), types::Busy>> {
        let messages = messages.into_iter().map(convert::message_from_wit);
        self.staged.messages.extend(messages);
        Ok(Ok(()))
    }

    fn withdraw(&mut self, mut keys: Vec<String>) -> wasmtime::Result<Result<(), types::Busy>> {
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
        let priority = convert::priority_from_wit(priority);
        let message = convert::message_from_wit(message);
        self.staged.lane_messages.push((lane, priority, message));
        Ok(Ok(()))
    }

    fn cancel(&mut self, mut keys: Vec<String>) -> wasmtime::Result<Result<(), types::Busy>> {
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
        let kind = convert::hook_notice_from_wit(kind);
        self.staged.notifications.push((kind, subject));
        Ok(Ok(()))
    }
}
