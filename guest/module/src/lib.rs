//! The engine as a plain core module, for runtimes without components: the JSON door over linear memory.
//!
//! Off wasm it is empty, so that a native build of the workspace links. What stands here is only how texts cross; see
//! `module.rs`.

#[cfg(target_family = "wasm")]
mod module;
