//! The plans that are measured, and the domain that runs them.

use super::Failure;
use qm2_core::config::Config;
use qm2_core::limit;
use qm2_host::agent::{Report, Task};
use qm2_host::agents_file::Lanes;
use qm2_host::{Domain, DomainBuilder};
use serde_json::{Value, json};
use std::path::Path;

/// Who owns all plans.
pub const OWNER: &str = "user:bench";

/// Wide enough that only the plans decide what runs at once.
pub fn config() -> Config {
    let mut config = Config::new("bench");
    config.phase1.enabled = true;
    config.max_in_flight = limit::IN_FLIGHT_MAX;
    config
}

/// A domain as wide as [`config`] says.
pub fn builder(data: &Path) -> DomainBuilder {
    builder_of_width(data, limit::IN_FLIGHT_MAX)
}

/// A domain with at most so many steps out at once.
pub fn builder_of_width(data: &Path, in_flight: u64) -> DomainBuilder {
    let lanes = Lanes {
        control: usize::try_from(in_flight).unwrap_or(usize::MAX),
        data: 1_024,
        ..Lanes::default()
    };
    Domain::builder(data).config(config()).lanes(lanes)
}

/// Steps that are out at once unless a benchmark says otherwise: enough to fill every commit, and as much as fits into little
/// memory.
pub const IN_FLIGHT: u64 = 512;

/// A domain whose agents do nothing.
pub async fn idle_domain(data: &Path) -> Result<Domain, Failure> {
    idle_domain_of_width(data, IN_FLIGHT).await
}

/// As [`idle_domain`], with at most so many steps out at once.
pub async fn idle_domain_of_width(data: &Path, in_flight: u64) -> Result<Domain, Failure> {
    let nothing = |_: Task| async { Report::completed("") };
    let builder = builder_of_width(data, in_flight);
    Ok(builder.agent("agent:*", nothing).open().await?)
}

/// One step, so many after it, and one after all of these.
pub fn fanout(id: &str, width: usize) -> String {
    let mut steps = vec![step(id, "first", &[])];
    let parallel: Vec<String> = (0..width).map(|number| format!("p{number}")).collect();
    steps.extend(parallel.iter().map(|name| step(id, name, &["first"])));
    let all: Vec<&str> = parallel.iter().map(String::as_str).collect();
    steps.push(step(id, "last", &all));
    plan(id, steps)
}

/// Steps in a row.
pub fn chain(id: &str, length: usize) -> String {
    let names: Vec<String> = (0..length).map(|number| format!("s{number}")).collect();
    let steps = (0..length).map(|number| match number.checked_sub(1) {
        Some(before) => step(id, &names[number], &[&names[before]]),
        None => step(id, &names[number], &[]),
    });
    plan(id, steps.collect())
}

/// A plan of these steps.
pub fn plan(id: &str, steps: Vec<Value>) -> String {
    json!({"coordinationId": id, "objective": "Measure.", "ownerSession": OWNER, "steps": steps})
        .to_string()
}

/// A step in a session of its own.
pub fn step(id: &str, name: &str, after: &[&str]) -> Value {
    let mut step = json!({"stepId": name, "targetSession": format!("agent:{id}:{name}"), "timeoutMs": 600_000});
    if !after.is_empty() {
        let after: Vec<Value> = after.iter().map(|name| json!({"stepId": name})).collect();
        step["dependsOn"] = after.into();
    }
    step
}
