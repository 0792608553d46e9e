//! The plans of the scenarios. What becomes of them is not said here.

use serde_json::{Value, json};

/// Who owns all plans.
pub const OWNER: &str = "user:bench";
/// Who does all steps of [`wide`].
pub const SESSION: &str = "agent:wide";
/// Resources that the steps of [`claims`] contend for.
const RESOURCES: usize = 4;
/// Steps of [`small`].
pub const SMALL_STEPS: usize = 6;

/// One step, so many after it, and one after all of these.
pub fn fanout(id: &str, width: usize) -> String {
    let mut steps = vec![step(id, "first", &[])];
    let parallel: Vec<String> = (0..width).map(|number| format!("p{number}")).collect();
    steps.extend(parallel.iter().map(|name| step(id, name, &["first"])));
    let all: Vec<&str> = parallel.iter().map(String::as_str).collect();
    steps.push(step(id, "last", &all));
    plan(id, steps).to_string()
}

/// A plan of the usual size.
pub fn small(id: &str) -> String {
    fanout(id, SMALL_STEPS - 2)
}

/// Steps in a row.
pub fn chain(id: &str, length: usize) -> String {
    let names: Vec<String> = (0..length).map(|number| format!("s{number}")).collect();
    let steps = (0..length).map(|number| match number.checked_sub(1) {
        Some(before) => step(id, &names[number], &[&names[before]]),
        None => step(id, &names[number], &[]),
    });
    plan(id, steps.collect()).to_string()
}

/// Steps side by side, all of one session.
pub fn wide(id: &str, count: usize) -> String {
    let steps = (0..count).map(|number| {
        let mut step = step(id, &format!("s{number}"), &[]);
        step["targetSession"] = SESSION.into();
        step
    });
    plan(id, steps.collect()).to_string()
}

/// Steps side by side that each want one of the resources, every third of them another one too.
pub fn claims(id: &str, count: usize) -> String {
    let resource = |number: usize| json!({"resource": format!("file:hot/{}", number % RESOURCES)});
    let steps = (0..count).map(|number| {
        let mut step = step(id, &format!("s{number}"), &[]);
        let mut claims = vec![resource(number)];
        if number % 3 == 0 {
            claims.push(resource(number + 1));
        }
        step["claims"] = claims.into();
        step
    });
    plan(id, steps.collect()).to_string()
}

/// Steps side by side that may be tried three times.
pub fn retried(id: &str, count: usize) -> String {
    let steps = (0..count).map(|number| {
        let mut step = step(id, &format!("s{number}"), &[]);
        step["maxAttempts"] = json!(3);
        step
    });
    let mut plan = plan(id, steps.collect());
    plan["failurePolicy"] = json!({"retryBudget": 2 * count, "backoffMs": [1_000, 5_000]});
    plan.to_string()
}

fn plan(id: &str, steps: Vec<Value>) -> Value {
    json!({"coordinationId": id, "objective": "Measure.", "ownerSession": OWNER, "steps": steps})
}

/// A step in a session of its own, with some content.
fn step(id: &str, name: &str, after: &[&str]) -> Value {
    let mut step = json!({
        "stepId": name,
        "targetSession": format!("agent:{id}:{name}"),
        "timeoutMs": 600_000,
        "payload": format!("Look at part {name} of {id}, and say what is to be changed there."),
    });
    if !after.is_empty() {
        let after: Vec<Value> = after.iter().map(|name| json!({"stepId": name})).collect();
        step["dependsOn"] = after.into();
    }
    step
}
