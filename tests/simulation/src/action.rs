//! What was done to a domain, in order: the whole of a run, without who did it and why.
//!
//! A list of actions can be done again, natively or through the component, and gives the same bytes; so it is also what a
//! failing run is shrunk as. Does nothing itself; see [`crate::runner`].

use qm2_core::call::Call;
use serde::{Deserialize, Serialize};

/// What happens to an import while a call is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// It is not taken: `unavailable` of an append, `busy` of all else.
    Refuse,
    /// The host dies in it.
    Crash,
}

/// A fault at an import of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which import of the call, from 0; one that does not come about is no fault.
    pub import: u32,
    /// What happens there.
    pub kind: FaultKind,
}

/// How a new instance is brought to where the old one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Replay of all lines; the component verifies the chain.
    Replay,
    /// Replay of all lines; the host verified the chain.
    ReplayChecked,
    /// A snapshot of an instance that replayed the first half, and replay of the rest.
    Snapshot,
}

/// One thing that is done to a domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A call, perhaps with a fault.
    Call {
        /// The call.
        call: Call,
        /// What goes wrong in it.
        fault: Option<Fault>,
    },
    /// What was said so far becomes durable, and the answers go out.
    Commit,
    /// The host dies between two calls: what is not durable is gone.
    Crash,
    /// A new instance is made of what is durable.
    Rebuild {
        /// How.
        way: Way,
    },
}
