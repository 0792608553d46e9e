//! `qm2 schema`: JSON Schema for editors, from the very types that parse the files.

use super::exit;
use super::failure::Failure;
use super::output::Output;
use clap::ValueEnum;
use qm2_host::schema;

/// Arguments of `schema`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Of which file.
    what: What,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// A plan.
    Plan,
    /// An agents file, as it would be in JSON.
    Agents,
}

/// Prints it.
pub fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let schema = match arguments.what {
        What::Plan => schema::plan(),
        What::Agents => schema::agents(),
    };
    output.result(&schema, || {
        serde_json::to_string_pretty(&schema).unwrap_or_default()
    });
    Ok(exit::SUCCESS)
}
