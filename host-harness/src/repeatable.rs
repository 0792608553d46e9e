//! Which coordinations have only attempts that may run again, learnt from their ledger lines.
//!
//! An attempt that was begun and has no durable ack is handed out again after a crash. Where every step of a plan is
//! idempotent that does no harm, so its functions may begin before their ack. What is not known to be so may not: the answer
//! is no for whatever was not seen. Does not look at how a single message is delivered.

use crate::line_head::LineHead;
use std::collections::BTreeSet;

/// What a plan that has a step which may not run again says of it. Inside a text its quotes would be escaped.
const NOT_IDEMPOTENT: &str = "\"idempotent\":false";

/// Ids of live coordinations all of whose attempts may run again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeatable(BTreeSet<String>);

impl Repeatable {
    /// Learns from a record, if it says anything about this.
    pub(crate) fn learn(&mut self, line: &str) {
        let Some(LineHead {
            kind,
            coordination_id: Some(id),
            ..
        }) = LineHead::of(line)
        else {
            return;
        };
        match kind {
            // Steps that are added later take it from their parents.
            "coordination.created" if !line.contains(NOT_IDEMPOTENT) => {
                self.0.insert(id.to_owned());
            }
            "coordination.terminal" => {
                self.0.remove(id);
            }
            _ => {}
        }
    }

    /// Whether every attempt of a coordination may run again.
    pub(crate) fn holds(&self, coordination_id: &str) -> bool {
        self.0.contains(coordination_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plan_that_was_seen_and_has_nothing_that_may_not_run_again_is_repeatable() {
        let line = |kind: &str, id: &str, data: &str| {
            format!(
                r#"{{"v":1,"seq":7,"atMs":1,"type":"{kind}","coordinationId":"{id}","data":{data}}}"#
            )
        };
        let mut known = Repeatable::default();
        known.learn(&line(
            "coordination.created",
            "all",
            r#"{"plan":{"objective":"\"idempotent\":false","steps":[{"idempotent":true}]}}"#,
        ));
        known.learn(&line(
            "coordination.created",
            "not-all",
            r#"{"plan":{"steps":[{"idempotent":true},{"idempotent":false}]}}"#,
        ));
        known.learn(&line("step.dispatched", "unseen", "{}"));
        // Another writer's order of members: nothing is learnt from it.
        known.learn(r#"{"type":"coordination.created","coordinationId":"odd","v":1}"#);
        let holds = ["all", "not-all", "unseen", "odd"].map(|id| known.holds(id));
        assert_eq!(holds, [true, false, false, false]);
        known.learn(&line("coordination.terminal", "all", "{}"));
        assert!(!known.holds("all"));
    }
}
