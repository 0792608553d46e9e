//! One scenario once, for a profiler that counts instructions: `counts SCENARIO`; without one, their names.
//!
//! What is counted is [`measured_work`] alone; the scenario is prepared before and checked after it. Prints as JSON how much
//! work it was. `.ci/counts` counts all of them. Measures nothing by itself.

#[allow(dead_code)] // What other benchmarks of the same work use.
mod workload;

use qm2_core::machine::Machine;
use qm2_core::receipt::Head;
use serde_json::json;
use std::hint::black_box;
use workload::{SCENARIOS, Work};

/// Callgrind is told this name. No other function has it in its own, and nothing in it is a closure: entering any of these
/// would end the count.
#[inline(never)]
fn measured_work(work: &Work, machine: &mut Machine) -> Head {
    black_box(work.run(machine))
}

fn main() {
    // `cargo bench` passes a flag of its own.
    let scenario = std::env::args()
        .skip(1)
        .find(|name| !name.starts_with("--"));
    let Some(scenario) = scenario else {
        println!("{}", SCENARIOS.join("\n"));
        return;
    };
    let work = Work::new(&scenario);
    let mut machine = work.begin();
    let head = measured_work(&work, &mut machine);
    work.check(&machine, &head);
    let did = json!({
        "scenario": work.name,
        "envelopes": work.envelopes,
        "steps": work.steps,
        "records": work.records,
    });
    println!("{did}");
}
