//! The wasmtime host of QM2: it embeds the coordination component and gives it a durable store, a queue, lanes, and
//! agents to work for it.
//!
//! All rules of coordination are inside the component ([`COMPONENT`]); this library keeps what it says, runs what it hands
//! out, and tells it the time and what came of the work. It does not interpret plans.
//!
//! A whole host in thirty lines, with an agent inside this process, is in the README.
//!
//! | module | what it holds |
//! |---|---|
//! | [`domain`], [`owner`] | a running domain: calls, reports, running a plan to its end |
//! | [`agent`], [`agents_file`] | who does the work |
//! | [`people`], [`escalation`] | who answers questions, and the questions as records tell them |
//! | [`guard`] | commands that run only while a grant lives |
//! | [`hook`] | who is asked before something happens, and told afterwards |
//! | [`engine`] | the component itself, or another one, for hosts that bring their own loop |
//! | [`store`], [`sqlite`] | where everything is kept |
//! | [`queue`] | a durable delivery queue, also for messages of a host's own |
//! | [`lane`] | how much runs at once; of use without the rest |
//! | [`event_stream`] | what runs say while they run |
//! | [`follow`], [`cloud_event`] | records as they come, from any number on, also in another form |
//! | [`lifecycle`] | subagents of an agent host, and what of them is said to QM2 |
//! | [`socket`] | reaching the process that owns a data directory |
//! | [`history`] | a coordination as its records tell it |
//! | [`schema`] | the form of plans and agents files, for editors |
//! | [`verify`], [`reading`], [`outgoing`] | whether a stored ledger holds, what is in it, and what is out as it says |
//! | [`clock`], [`error`] | time, and what can go wrong |

pub mod agent;
pub mod agents_file;
mod answer;
mod cache;
pub mod clock;
pub mod cloud_event;
mod committer;
mod component;
mod contract;
mod convert;
mod delivery;
pub mod domain;
pub mod engine;
pub mod error;
pub mod escalation;
pub mod event_stream;
pub mod follow;
pub mod guard;
pub mod history;
pub mod hook;
pub mod lane;
mod ledger_lines;
pub mod lifecycle;
mod line_head;
mod older_lines;
mod opening;
pub mod outgoing;
pub mod owner;
mod paths;
mod payload;
pub mod people;
mod process;
pub mod queue;
pub mod reading;
mod repeatable;
mod replay;
mod report;
mod route;
pub mod schema;
mod session_glob;
mod snapshot;
pub mod socket;
pub mod sqlite;
mod stay;
pub mod store;
mod submit;
mod survivor;
mod tables;
mod transaction;
pub mod verify;

pub use domain::Domain;
pub use error::{HostError, Result};
pub use opening::DomainBuilder;
pub use owner::Ended;

/// The embedded component.
pub const COMPONENT: &[u8] = include_bytes!(env!("QM2_WASM"));

/// The same engine as a plain core module, for runtimes without components; this host does not use it.
pub const CORE_MODULE: &[u8] = include_bytes!(env!("QM2_CORE_WASM"));

/// Compiles and runs the host that the README shows.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
