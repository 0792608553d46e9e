//! Who carries messages out: an adapter of a chat, a mail server, another host.
//!
//! Decides nothing; what an adapter answers is judged in `drain`.

use super::entry::Entry;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What an adapter does, to be waited for.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An adapter that delivers entries.
pub trait Channel: Send + Sync {
    /// Delivers an entry. It is durable, and noted as begun, before this is called.
    fn send<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Result<Sent, SendError>>;

    /// Finds out what became of an entry whose send was begun and whose end nobody has seen.
    fn reconcile<'a>(&'a self, entry: &'a Entry) -> Doing<'a, Reconciled>;
}

/// The recipient has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent;

/// Why an entry was not delivered. Whatever the variant, a text that is known to be for ever makes it permanent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Nothing has left this host: there was no connection.
    NotConnected(String),
    /// It failed, and may or may not have come through. It is reconciled before it is sent again.
    Retryable(String),
    /// It failed, and some of it is with the recipient: it is never sent again unless a person says so.
    PartlySent(String),
    /// It can never be delivered.
    Permanent(String),
}

impl SendError {
    /// What happened.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::NotConnected(says)
            | Self::Retryable(says)
            | Self::PartlySent(says)
            | Self::Permanent(says) => says,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

/// What became of a send whose end nobody has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// The recipient has it.
    Sent,
    /// The recipient does not have it.
    NotSent,
    /// It cannot be found out.
    Unresolved {
        /// Whether asking again later can help.
        retryable: bool,
        /// Why not.
        error: String,
    },
}

/// Adapters by the names that entries call them.
#[derive(Clone, Default)]
#[must_use]
pub struct Channels(BTreeMap<String, Arc<dyn Channel>>);

impl Channels {
    /// None: every entry is left for later.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an adapter, in the place of one of the same name.
    pub fn channel(mut self, name: impl Into<String>, channel: Arc<dyn Channel>) -> Self {
        self.0.insert(name.into(), channel);
        self
    }

    pub(super) fn find(&self, name: &str) -> Option<&dyn Channel> {
        self.0.get(name).map(|channel| &**channel)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
