//! The component shell: bindings around `qm2-core`, and nothing else.
//!
//! Off wasm it is empty, so that a native build of the workspace links.

#[cfg(target_family = "wasm")]
mod component;
