//! Short words for what hooks and people are asked and answer, and for what steps hold.

use super::{Scenario, caller, dana};
use qm2_core::message::{Caller, HookVerdict, HumanVerdict};
use serde_json::Value;

impl Scenario {
    /// The last question about a step of plan `c`: its id and digest.
    #[track_caller]
    pub fn question(&self, step: &str) -> (String, String) {
        let asked = self.lines.iter().rev().map(|line| super::parse(line));
        let mut asked = asked.filter(|record| {
            record["type"] == "coordination.escalated"
                && record["stepId"] == step
                && record["coordinationId"] == "c"
        });
        let asked = asked.next().expect("somebody was asked");
        let text = |name: &str| asked["data"][name].as_str().unwrap_or_default().to_owned();
        (text("escalationId"), text("digest"))
    }

    /// Somebody's answer to the last question about a step of plan `c`.
    #[track_caller]
    pub fn say(
        &mut self,
        actor: Caller,
        step: &str,
        verdict: HumanVerdict,
        text: Option<&str>,
    ) -> String {
        let (id, digest) = self.question(step);
        self.answer(actor, &id, &digest, verdict, text)
    }

    /// The operator approves.
    #[track_caller]
    pub fn approve(&mut self, step: &str) -> String {
        self.say(dana(), step, HumanVerdict::Approve, None)
    }

    /// The operator denies.
    #[track_caller]
    pub fn deny(&mut self, step: &str) -> String {
        self.say(dana(), step, HumanVerdict::Deny, None)
    }

    /// An agent's question.
    pub fn ask(&mut self, step: &str, attempt: u32, number: u64) -> String {
        let question = super::escalate(step, attempt, number, "which one?");
        super::brief(&self.submit(question))
    }

    /// The hooks' answer to what they were asked last.
    pub fn judge(&mut self, verdict: HookVerdict) -> String {
        let id = self.asks.last().expect("hooks were asked").hook_id.clone();
        self.verdict(&id, "gatekeeper", verdict)
    }

    /// The token of the last grant of an attempt of plan `c`.
    #[track_caller]
    pub fn token(&self, step: &str, attempt: u32) -> u64 {
        self.seq(&format!("claim.granted {step}:{attempt}"))
    }

    /// Resources that a step of plan `c` holds.
    pub fn holds(&mut self, step: &str) -> Vec<String> {
        let view = self.describe("c");
        let steps = view["steps"].as_array().expect("a live coordination");
        let found = steps.iter().find(|entry| entry["stepId"] == step);
        let grants = found.expect("the step is there")["grants"].as_array();
        let name = |grant: &Value| grant["resource"].as_str().unwrap_or_default().to_owned();
        grants.map_or(Vec::new(), |grants| grants.iter().map(name).collect())
    }

    /// A step of another plan than `c` completes.
    pub fn done_of(&mut self, id: &str, step: &str, attempt: u32) -> String {
        let mut report = super::done(step, attempt, "");
        report.coordination_id = id.to_owned();
        let session = report.source_session.clone();
        super::brief(&self.submit_as(caller(&session), report))
    }
}
