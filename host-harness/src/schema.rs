//! JSON Schema of the files that people write, from the very types that parse them.
//!
//! Says the form and not the rules: whether a plan holds together is tested when it is checked or submitted.

use crate::agents_file::AgentsFile;
use qm2_core::plan::Plan;
use schemars::{Schema, schema_for};
use serde_json::Value;

/// Of a plan.
#[must_use]
pub fn plan() -> Value {
    without_null(schema_for!(Plan))
}

/// Of an agents file, as it would be in JSON.
#[must_use]
pub fn agents() -> Value {
    without_null(schema_for!(AgentsFile))
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
