//! `qm2 schema`: JSON Schema for editors, from the very types that parse the files.

use super::exit;
use super::failure::Failure;
use super::output::Output;
use clap::ValueEnum;
use qm2_core::plan::Plan;
use qm2_host::agents_file::AgentsFile;
use schemars::{Schema, schema_for};
use serde_json::Value;

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
    let schema = without_null(match arguments.what {
        What::Plan => schema_for!(Plan),
        What::Agents => schema_for!(AgentsFile),
    });
    output.result(&schema, || {
        serde_json::to_string_pretty(&schema).unwrap_or_default()
    });
    Ok(exit::SUCCESS)
}

/// A member that may be absent is left out, as the files want it, and never null.
fn without_null(schema: Schema) -> Value {
    let mut value = schema.to_value();
    drop_null(&mut value);
    value
}

fn drop_null(value: &mut Value) {
    let Value::Object(members) = value else {
        if let Value::Array(values) = value {
            values.iter_mut().for_each(drop_null);
        }
        return;
    };
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [name] = types.as_slice() {
            let name = name.clone();
            members.insert("type".into(), name);
        }
    }
    if let Some(Value::Array(cases)) = members.get_mut("anyOf") {
        cases.retain(|case| case["type"] != "null");
        if let [Value::Object(case)] = cases.as_slice() {
            let case = case.clone();
            members.remove("anyOf");
            members.extend(case);
        }
    }
    members.values_mut().for_each(drop_null);
}
