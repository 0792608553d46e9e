//! Makes a failing list of actions small: drops what the failure does not need.
//!
//! Delta debugging over whole actions; does not change the calls themselves.

use crate::action::Action;
use crate::runner::{Mode, replay};
use crate::target::Maker;

/// What a violation is about, without the ids and numbers that change when actions are left out.
fn kind(violation: &str) -> String {
    let first = violation.lines().next().unwrap_or_default();
    first.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The smallest list found that fails in the same way, with its violation.
#[must_use]
pub fn shrink(
    maker: &Maker,
    mode: Mode,
    actions: &[Action],
    violation: &str,
) -> (Vec<Action>, String) {
    let wanted = kind(violation);
    let mut best = (actions.to_vec(), violation.to_owned());
    let fails = |actions: &[Action]| {
        replay(maker, mode, actions)
            .err()
            .filter(|says| kind(says) == wanted)
    };
    if fails(&best.0).is_none() {
        // Only the whole run shows it, such as what never ends.
        return best;
    }
    let mut size = best.0.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < best.0.len() {
            let to = (from + size).min(best.0.len());
            let mut fewer = best.0.clone();
            fewer.drain(from..to);
            match fails(&fewer) {
                Some(says) => best = (fewer, says),
                None => from = to,
            }
        }
        size /= 2;
    }
    best
}
