//! The text of a plan, submitted by the owner that it names.
//!
//! Must hold: a refusal names at least one problem, or says what else stands against it; the canonical form of an accepted
//! plan reads back as itself and counts as the same plan; its ledger replays; and left alone, it ends.

use crate::world::{World, caller};
use qm2_core::call::{Answer, Call};
use qm2_core::codec::canonical;
use qm2_core::config::Config;
use qm2_core::event::{Event, Record};
use qm2_core::plan::Plan;
use qm2_core::receipt::RejectionCode;

/// Submits the plan.
///
/// # Panics
/// Where something does not hold.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut world = World::open(|_| {});
    let owner = owner_of(text).unwrap_or_else(|| "user:owner".to_owned());
    match submit(&mut world, &owner, text) {
        Ok(replayed) => assert!(!replayed, "nothing was there before"),
        Err((code, problems)) => {
            assert!(code != RejectionCode::InvalidPlan || problems > 0);
            return;
        }
    }
    let read = |line: &String| match Record::parse(line).ok()?.event {
        Event::Created(created) => Some(created.plan),
        _ => None,
    };
    let created = world.lines.iter().find_map(read);
    let plan = created.expect("an accepted plan is in the ledger");
    let written = canonical(&plan);
    let again = Plan::parse(&written, &Config::new("d")).expect("a canonical plan is a plan");
    assert_eq!(
        canonical(&again),
        written,
        "a canonical plan reads back as itself"
    );
    let known = submit(&mut world, &owner, &written);
    assert_eq!(
        known,
        Ok(true),
        "a canonical plan is the plan that it came from"
    );
    world.ask_everything();
    world.replay();
    world.restore(1_000);
    world.run_out();
    world.replay();
}

/// Whether the plan was known before; else why it was refused, and the number of problems.
fn submit(world: &mut World, owner: &str, plan: &str) -> Result<bool, (RejectionCode, usize)> {
    let call = Call::SubmitPlan {
        caller: caller(owner),
        now_ms: world.now_ms,
        plan: plan.to_owned(),
    };
    match world.call(&call) {
        Ok(Answer::SubmitPlan(Ok(receipt))) => Ok(receipt.replayed),
        Ok(Answer::SubmitPlan(Err(rejection))) => Err((rejection.code, rejection.problems.len())),
        other => panic!("submit-plan: {other:?}"),
    }
}

fn owner_of(text: &str) -> Option<String> {
    let plan: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(plan["ownerSession"].as_str()?.to_owned())
}
