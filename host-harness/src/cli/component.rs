//! `qm2 component`: what the embedded component is, what it wants, what it offers; and the file itself for another host.
//!
//! Reads the component's own type; starts no instance.

use super::exit;
use super::failure::Failure;
use super::output::Output;
use clap::Subcommand;
use qm2_core::digest::sha256_hex;
use qm2_host::{COMPONENT, CORE_MODULE};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Commands of `component`.
#[derive(Subcommand)]
pub enum Command {
    /// Prints its size, SHA-256, imports and exports.
    Inspect,
    /// Writes it to a file, for another host.
    Export {
        /// The file; it must not be there yet.
        path: PathBuf,
        /// The plain core module instead of the component, for a runtime without components.
        #[arg(long)]
        core: bool,
    },
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
    match command {
        Command::Inspect => inspect(output),
        Command::Export { path, core } => export(path, *core, output),
    }
}

#[derive(Serialize)]
struct Exported<'a> {
    path: &'a Path,
    bytes: usize,
    sha256: String,
}

fn export(path: &Path, core: bool, output: &Output) -> Result<u8, Failure> {
    let content = if core { CORE_MODULE } else { COMPONENT };
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(content));
    written.map_err(|error| {
        Failure::usage(
            "not-written",
            format!("{} cannot be written: {error}", path.display()),
        )
    })?;
    let exported = Exported {
        path,
        bytes: content.len(),
        sha256: sha256_hex(&[content]),
    };
    output.result(&exported, || {
        format!(
            "{}  {}  {} bytes",
            exported.sha256,
            path.display(),
            exported.bytes
        )
    });
    Ok(exit::SUCCESS)
}

fn inspect(output: &Output) -> Result<u8, Failure> {
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
