//! `qm2 component`: what the embedded component is, what it wants, and what it offers.
//!
//! Reads the component's own type; starts no instance.

use super::exit;
use super::failure::Failure;
use super::output::Output;
use clap::Subcommand;
use qm2_core::digest::sha256_hex;
use qm2_host::COMPONENT;
use serde::Serialize;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Commands of `component`.
#[derive(Subcommand)]
pub enum Command {
    /// Prints its size, SHA-256, imports and exports.
    Inspect,
}

#[derive(Serialize)]
struct Inspection {
    bytes: usize,
    sha256: String,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Runs one of them.
pub fn run(command: &Command, output: &Output) -> Result<u8, Failure> {
    let Command::Inspect = command;
    let engine = Engine::default();
    let component = Component::new(&engine, COMPONENT).map_err(|error| {
        Failure::host(
            "component-fault",
            format!("the embedded component does not load: {error:#}"),
        )
    })?;
    let of = component.component_type();
    let inspection = Inspection {
        bytes: COMPONENT.len(),
        sha256: sha256_hex(&[COMPONENT]),
        imports: of
            .imports(&engine)
            .map(|(name, _)| name.to_owned())
            .collect(),
        exports: of
            .exports(&engine)
            .map(|(name, _)| name.to_owned())
            .collect(),
    };
    output.result(&inspection, || {
        format!(
            "bytes    {}\nsha256   {}\nimports  {}\nexports  {}",
            inspection.bytes,
            inspection.sha256,
            inspection.imports.join("\n         "),
            inspection.exports.join("\n         "),
        )
    });
    Ok(exit::SUCCESS)
}
