//! What the fuzz targets do: each takes bytes as they could come from outside, and panics where something does not hold.
//!
//! | module | what it holds |
//! |---|---|
//! | [`target`] | the seven targets |
//! | [`world`] | a domain that calls are made of, and what holds for it after any of them |
//! | [`mutate`], [`json`] | new inputs from old ones, as documents rather than as bytes |
//!
//! Everything goes through the public API of the core, and through the modules of the host that read text; those are
//! compiled in from where they stand, because the host itself brings a WebAssembly engine along. Holds no rule of its own.

pub mod json;
pub mod mutate;
pub mod target;
pub mod world;

// The host's own files. Their crate is another one, so what they offer to it is not all used here.
#[path = "../../../host-harness/src/agents_file.rs"]
#[allow(dead_code)]
mod agents_file;
#[path = "../../../host-harness/src/error.rs"]
#[allow(dead_code, rustdoc::broken_intra_doc_links)]
mod error;
mod hook;
#[path = "../../../host-harness/src/people.rs"]
#[allow(dead_code)]
mod people;
#[path = "../../../host-harness/src/report.rs"]
#[allow(dead_code)]
mod report;
#[path = "../../../host-harness/src/session_glob.rs"]
mod session_glob;
