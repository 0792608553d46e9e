//! A component that harms its host: the shell of the real one, the real core, and between them a machine that does what the
//! domain's name says, where it says so.
//!
//! For the tests only. Off wasm it is empty, so that a native build of the workspace links.

#![cfg(target_family = "wasm")]

// The shell names its core `qm2_core`; here that is this crate, whose machine stands around the real one.
extern crate self as qm2_core;

pub use honest::{
    arbitration, call, claim, codec, config, digest, door, envelope, event, id, ledger, limit,
    message, plan, receipt, staged,
};

#[path = "../../../../guest/src/component.rs"]
mod component;
mod harm;
mod imports;
mod lie;
pub mod machine;
#[cfg(feature = "loops-at-start")]
mod start;
