//! Questions to people as the records of the ledger tell them: who asked what, who has answered, and what became of it.
//!
//! Folds committed lines and nothing else; which answer counts is decided in the component. Reads records as any other
//! reader of an exported ledger would, by their JSON.

use qm2_core::message::Role;
use qm2_core::plan::{Fallback, Level};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionState {
    /// It waits for an answer.
    Open,
    /// Enough people approved.
    Approved,
    /// Somebody denied.
    Denied,
    /// Somebody said that the effect had happened.
    Completed,
    /// Nobody answered at any level; the fallback stands.
    Expired,
    /// Nobody answered until the plan's deadline.
    Unanswered,
    /// The step ended otherwise; there is nothing to decide any more.
    Voided,
}

impl QuestionState {
    /// The word for it in JSON and to people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Unanswered => "unanswered",
            Self::Voided => "voided",
        }
    }
}

/// One answer that counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    /// Who gave it.
    pub actor: String,
    /// The role under which it counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// approve, deny or completed.
    pub verdict: String,
    /// What was said with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
}

/// A question to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Escalation {
    /// `e` and the number of its first record.
    pub id: String,
    /// The coordination.
    pub coordination_id: String,
    /// The step that waits for it.
    pub step_id: String,
    /// The attempt that it is about.
    pub attempt: u32,
    /// review, conflict, exhausted, unknown_effect or question.
    pub kind: String,
    /// What is asked.
    pub question: String,
    /// What became of it.
    pub state: QuestionState,
    /// Until when the present level waits, in milliseconds since the epoch; absent when it waits no more, and under
    /// fallback block after the last level, when the plan's deadline ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Sessions that have approved.
    pub approvals: Vec<String>,
    /// How many must approve.
    pub required: u32,
    /// The present level, from 1.
    pub level: u32,
    /// All levels.
    pub levels: Vec<Level>,
    /// What an answer must name: it stands for everything that the question is about.
    pub digest: String,
    /// When it was asked, in milliseconds since the epoch.
    pub asked_ms: u64,
    /// Every answer that counted, in order.
    pub decisions: Vec<Decided>,
    /// What stood when nobody answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Number that the agent gave its question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Class of the failure that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Code of that failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Sentence to that failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Number of its first record.
    pub seq: u64,
    /// The record that raised it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<u64>,
}

impl Escalation {
    /// Begins with its first record; none for any other.
    fn begin(record: &Value) -> Option<Self> {
        if record["type"] != "coordination.escalated" {
            return None;
        }
        let data = &record["data"];
        let text = |name: &str| data[name].as_str().map(str::to_owned);
        Some(Self {
            id: text("escalationId")?,
            coordination_id: record["coordinationId"].as_str()?.to_owned(),
            step_id: record["stepId"].as_str()?.to_owned(),
            attempt: u32::try_from(record["attempt"].as_u64().unwrap_or(1)).ok()?,
            kind: text("kind")?,
            question: text("question").unwrap_or_default(),
            state: QuestionState::Open,
            deadline_ms: None,
            approvals: Vec::new(),
            required: 1,
            level: 1,
            levels: serde_json::from_value(data["levels"].clone()).unwrap_or_default(),
            digest: text("digest").unwrap_or_default(),
            asked_ms: record["atMs"].as_u64().unwrap_or_default(),
            decisions: Vec::new(),
            fallback: None,
            number: data["number"].as_u64(),
            class: text("class"),
            code: text("code"),
            message: text("message"),
            seq: record["seq"].as_u64()?,
            cause: record["cause"].as_u64(),
        })
    }

    /// Takes in what follows.
    fn apply(&mut self, record: &Value) {
        let data = &record["data"];
        match record["type"].as_str() {
            Some("human.requested") => {
                self.level = number(&data["level"]).unwrap_or(self.level);
                self.required = number(&data["required"]).unwrap_or(self.required);
                self.deadline_ms = data["dueMs"].as_u64();
            }
            Some("human.decided") => self.decide(record),
            Some("human.expired") => {
                self.level = number(&data["level"]).unwrap_or(self.level);
                self.deadline_ms = None;
                self.fallback = serde_json::from_value(data["fallback"].clone())
                    .ok()
                    .or(self.fallback);
                self.state = match (data["reason"].as_str(), self.fallback) {
                    (Some("voided"), _) => QuestionState::Voided,
                    (Some("unanswered"), _) => QuestionState::Unanswered,
                    (_, Some(Fallback::Deny | Fallback::Allow)) => QuestionState::Expired,
                    // The next level follows, or the plan's deadline.
                    (_, Some(Fallback::Block) | None) => QuestionState::Open,
                };
            }
            _ => {}
        }
    }

    fn decide(&mut self, record: &Value) {
        let data = &record["data"];
        let text = |name: &str| data[name].as_str().map(str::to_owned);
        let decided = Decided {
            actor: text("actor").unwrap_or_default(),
            role: serde_json::from_value(data["role"].clone()).ok(),
            verdict: text("verdict").unwrap_or_default(),
            text: text("text"),
            at_ms: record["atMs"].as_u64().unwrap_or_default(),
        };
        if decided.verdict == "approve" {
            self.approvals.push(decided.actor.clone());
        }
        if data["final"].as_bool() == Some(true) {
            self.deadline_ms = None;
            self.state = match decided.verdict.as_str() {
                "approve" => QuestionState::Approved,
                "completed" => QuestionState::Completed,
                _ => QuestionState::Denied,
            };
        }
        self.decisions.push(decided);
    }

    /// Whether it waits for an answer.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == QuestionState::Open
    }

    /// Role that an answer at the present level needs.
    #[must_use]
    pub fn role_min(&self) -> Role {
        let level = self.levels.get((self.level as usize).saturating_sub(1));
        level.map_or(Role::Operator, |level| level.min_role)
    }

    fn overlay(&mut self, view: &Value) {
        if let Some(digest) = view["digest"].as_str() {
            digest.clone_into(&mut self.digest);
        }
        self.level = number(&view["level"]).unwrap_or(self.level);
        self.required = number(&view["required"]).unwrap_or(self.required);
        self.deadline_ms = view["dueMs"].as_u64();
        if let Ok(approvals) = serde_json::from_value(view["approvals"].clone()) {
            self.approvals = approvals;
        }
    }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

/// All questions of the lines that it was given.
#[derive(Clone, Debug, Default)]
pub struct Escalations(BTreeMap<u64, Escalation>);

impl Escalations {
    /// Folds lines of one coordination or of a whole ledger, in order. Lines that are no records tell nothing.
    pub fn fold<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Self {
        let mut all = Self::default();
        for line in lines {
            all.take(line.as_ref());
        }
        all
    }

    /// Takes a line in and gives the question that it is about, if it is about one. Lines must come in order.
    pub fn take(&mut self, line: &str) -> Option<&Escalation> {
        // Most lines are about something else; the type stands near the beginning.
        let (_, rest) = line.split_once("\"type\":\"")?;
        if !rest.starts_with("coordination.escalated\"") && !rest.starts_with("human.") {
            return None;
        }
        let record: Value = serde_json::from_str(line).ok()?;
        if let Some(begun) = Escalation::begin(&record) {
            let seq = begun.seq;
            // One that is there already is not begun anew.
            return Some(self.0.entry(seq).or_insert(begun));
        }
        let id = record["data"]["escalationId"].as_str()?;
        let found = self.0.get_mut(&seq_of(id)?)?;
        found.apply(&record);
        Some(found)
    }

    /// The question of that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Escalation> {
        self.0.get(&seq_of(id)?).filter(|found| found.id == id)
    }

    /// Those of all, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Escalation> {
        self.0.values()
    }

    /// Those that wait for an answer, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Escalation> {
        self.iter().filter(|one| one.is_open())
    }

    /// Takes in what the component says of open questions now, by their ids: members of `escalations` in its `describe`.
    /// That is the word on the digest that must come back with an answer.
    pub fn overlay(&mut self, views: &BTreeMap<String, Value>) {
        for one in self.0.values_mut().filter(|one| one.is_open()) {
            if let Some(view) = views.get(&one.id) {
                one.overlay(view);
            }
        }
    }

    /// Gives them away, oldest first.
    pub fn into_vec(self) -> Vec<Escalation> {
        self.0.into_values().collect()
    }
}

fn seq_of(id: &str) -> Option<u64> {
    id.strip_prefix('e')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(seq: u64, name: &str, data: Value) -> String {
        json!({
            "v": 1, "seq": seq, "atMs": seq * 10, "type": name, "coordinationId": "c", "stepId": "s", "attempt": 2,
            "data": data,
        })
        .to_string()
        // As records are written: the type before the data.
        .replacen('{', &format!("{{\"v\":1,\"type\":\"{name}\","), 1)
    }

    fn asked() -> Vec<String> {
        let levels = json!([
            {"sessions": ["user:a"], "minRole": "operator", "timeoutMs": 5},
            {"sessions": [], "minRole": "admin", "timeoutMs": 5},
        ]);
        let escalated = json!({
            "escalationId": "e7", "kind": "exhausted", "question": "Again?", "digest": "d", "levels": levels,
            "class": "retryable", "code": "exit-1", "message": "no",
        });
        let requested = json!({"escalationId": "e7", "level": 1, "minRole": "operator", "required": 2, "dueMs": 90});
        vec![
            line(7, "coordination.escalated", escalated),
            line(8, "human.requested", requested),
        ]
    }

    #[test]
    fn approvals_are_counted_across_levels_until_one_is_final() {
        let mut lines = asked();
        let one = Escalations::fold(&lines).get("e7").unwrap().clone();
        assert_eq!((one.deadline_ms, one.required, one.level), (Some(90), 2, 1));
        assert_eq!((one.step_id.as_str(), one.attempt), ("s", 2));
        let decided = |actor: &str, is_final: bool| {
            json!({
                "escalationId": "e7", "actor": actor, "role": "operator", "verdict": "approve", "text": "ok", "final": is_final,
            })
        };
        lines.push(line(9, "human.decided", decided("user:a", false)));
        lines.push(line(
            10,
            "human.expired",
            json!({"escalationId": "e7", "level": 1, "reason": "timeout"}),
        ));
        lines.push(line(
            11,
            "human.requested",
            json!({"escalationId": "e7", "level": 2, "minRole": "admin", "required": 2, "dueMs": 120}),
        ));
        let one = Escalations::fold(&lines).get("e7").unwrap().clone();
        assert!(one.is_open());
        assert_eq!(
            (one.level, one.role_min(), one.deadline_ms),
            (2, Role::Admin, Some(120))
        );
        assert_eq!(one.approvals, ["user:a"]);
        lines.push(line(12, "human.decided", decided("user:b", true)));
        let all = Escalations::fold(&lines);
        let one = all.get("e7").unwrap();
        assert_eq!(one.state, QuestionState::Approved);
        assert_eq!(one.approvals, ["user:a", "user:b"]);
        assert_eq!(one.decisions[1].text.as_deref(), Some("ok"));
        assert_eq!((one.deadline_ms, all.open().count()), (None, 0));
    }

    #[test]
    fn what_nobody_answers_ends_as_its_fallback_says() {
        let end = |fallback: Option<&str>, reason: &str| {
            let mut data = json!({"escalationId": "e7", "level": 2, "reason": reason});
            if let Some(fallback) = fallback {
                data["fallback"] = fallback.into();
            }
            let mut lines = asked();
            lines.push(line(9, "human.expired", data));
            Escalations::fold(&lines).get("e7").unwrap().state
        };
        assert_eq!(end(Some("deny"), "timeout"), QuestionState::Expired);
        assert_eq!(end(Some("allow"), "unreachable"), QuestionState::Expired);
        assert_eq!(end(Some("block"), "timeout"), QuestionState::Open);
        assert_eq!(end(None, "unanswered"), QuestionState::Unanswered);
        assert_eq!(end(None, "voided"), QuestionState::Voided);
    }

    #[test]
    fn other_lines_and_unknown_ids_tell_nothing() {
        let mut all = Escalations::default();
        assert!(all.take("{\"type\":\"step.failed\"}").is_none());
        assert!(
            all.take("{\"type\":\"human.decided\",\"data\":{\"escalationId\":\"e9\"}}")
                .is_none()
        );
        assert!(all.take("\"type\":\"human.").is_none());
        assert!(all.get("7").is_none() && all.get("e7").is_none());
    }
}
