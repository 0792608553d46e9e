//! The coordination core of QM2.
//!
//! A functional core: `decide` looks at the state and an input and answers with events or a rejection, `apply` changes
//! the state by an event, and folding the events of the ledger gives the state, bit for bit. [`machine::Machine`] drives
//! both for one domain, one export call after another.
//!
//! What is absent: clocks, randomness, floating point, hash-ordered maps, files, network. Time comes in with each call,
//! everything that leaves goes through [`message::Host`]. The component shell around this crate adds bindings only.

mod added;
mod apply;
pub mod arbitration;
pub mod call;
mod cancel;
mod child;
pub mod claim;
mod closed;
pub mod codec;
mod compact;
pub mod config;
mod contest;
mod deadline;
mod decision;
mod describe;
pub mod digest;
mod dispatch;
pub mod door;
mod draft;
mod effect;
mod ending;
pub mod envelope;
mod escalation;
pub mod event;
mod graph;
mod hook;
pub mod id;
mod json;
mod lease;
pub mod ledger;
mod legal;
pub mod limit;
pub mod machine;
pub mod message;
mod order;
pub mod outline;
pub mod plan;
mod policy;
mod read;
pub mod receipt;
mod replay;
mod report;
mod settle;
mod slot;
mod snapshot;
pub mod staged;
mod state;
mod step;
mod submission;
mod table;
mod take;
mod timer;
mod waiters;
