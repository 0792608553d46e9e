//! What a person decides, in full: the question, what it is about, who may answer, what each answer does, and how long is
//! left.
//!
//! Gathers it from records; asks nobody and decides nothing.

use super::table::{self, duration, time};
use qm2_core::message::Role;
use qm2_core::plan::Fallback;
use qm2_host::escalation::{Escalation, QuestionState};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Lines of a step's input that are shown; with `--json` all of them are.
const INPUT_LINES_MAX: usize = 16;
/// Characters of one such line.
const INPUT_LINE_MAX: usize = 160;

/// A question with everything that a person needs to answer it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The question itself.
    #[serde(flatten)]
    pub escalation: Escalation,
    /// What the coordination is for.
    objective: String,
    owner_session: String,
    /// The session that does the step.
    target_session: String,
    /// Who raised it: a session, a hook, or the rules.
    asked_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_ref: Option<Value>,
    contests: Vec<Contest>,
    min_role: Role,
    /// Sessions whose answers never count.
    not_eligible: Vec<String>,
    answers: Vec<Consequence>,
    /// What happens when nobody answers in time.
    otherwise: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_deadline_ms: Option<u64>,
}

/// Claims that overlap, as the ledger has them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Contest {
    contest_id: String,
    resource: String,
    reason: String,
    contenders: Value,
    holders: Value,
}

/// What an answer does.
#[derive(Serialize)]
struct Consequence {
    verdict: &'static str,
    effect: String,
}

impl View {
    /// Gathers it; `records` are all of its coordination, and `now_ms` is the time on the wall.
    pub fn gather(escalation: Escalation, records: &[Value], now_ms: u64) -> Self {
        let plan = records
            .iter()
            .find(|record| record["type"] == "coordination.created")
            .map_or(&Value::Null, |record| &record["data"]["plan"]);
        let step = step_of(records, &escalation.step_id);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let owner_session = text(&plan["ownerSession"]);
        let target_session = text(&step["targetSession"]);
        let fallback = serde_json::from_value(plan["failurePolicy"]["human"]["fallback"].clone());
        let left = |due_ms: u64| due_ms.saturating_sub(now_ms);
        let mut not_eligible = vec![owner_session.clone(), target_session.clone()];
        not_eligible.dedup();
        Self {
            objective: text(&plan["objective"]),
            asked_by: asked_by(&escalation, records, &target_session),
            input: step["payload"].as_str().map(str::to_owned),
            input_ref: step.get("payloadRef").cloned(),
            contests: contests_of(&escalation, records),
            min_role: escalation.role_min(),
            not_eligible,
            answers: consequences(&escalation.kind),
            otherwise: otherwise(&escalation, fallback.unwrap_or_default()),
            left_ms: escalation.deadline_ms.map(left),
            plan_deadline_ms: plan["deadlineMs"].as_u64(),
            owner_session,
            target_session,
            escalation,
        }
    }

    /// For people; `command` is the command line up to the command.
    pub fn text(&self, command: &str) -> String {
        let one = &self.escalation;
        let mut rows = Rows::default();
        rows.add("question", &clean(&one.question, INPUT_LINES_MAX));
        let objective = table::first_line(&self.objective);
        rows.add("plan", &format!("{}: {objective}", one.coordination_id));
        let step = format!(
            "{}, attempt {}, done by {}",
            one.step_id, one.attempt, self.target_session
        );
        rows.add("step", &step);
        rows.add("asked by", &self.asked_by);
        if let Some(message) = &one.message {
            let class = one.class.as_deref().unwrap_or_default();
            let code = one.code.as_deref().unwrap_or_default();
            let message = clean(message, INPUT_LINES_MAX);
            rows.add("last error", &format!("{class} {code}: {message}"));
        }
        match (&self.input, &self.input_ref) {
            (Some(input), _) => rows.add("its input", &clean(input, INPUT_LINES_MAX)),
            (None, Some(reference)) => rows.add(
                "its input",
                &format!("kept in {}", reference["uri"].as_str().unwrap_or_default()),
            ),
            (None, None) => rows.add("its input", "none"),
        }
        for contest in &self.contests {
            rows.add("resource", &contest.text());
        }
        let answers: Vec<String> = self
            .answers
            .iter()
            .map(|answer| format!("{:<9} {}", answer.verdict, answer.effect))
            .collect();
        rows.add("answers", &answers.join("\n"));
        rows.add("approvals", &self.approvals());
        if one.is_open() {
            rows.add("who", &self.who());
            rows.add("time left", &self.time_left());
        } else {
            rows.add("decided", &self.decided());
        }
        rows.add("digest", &one.digest);
        let mut text = format!("{}: {}, {}\n{}", one.id, one.state.name(), one.kind, rows.0);
        if one.is_open() {
            text += &format!(
                "\nAnswer it:\n  {command} escalations approve {} --as SESSION [--text TEXT]\n",
                one.id
            );
            if one.kind == "unknown_effect" {
                text += &format!(
                    "  {command} escalations complete {} --as SESSION --text RESULT\n",
                    one.id
                );
            }
            text += &format!("  {command} escalations deny {} --as SESSION\n", one.id);
        }
        text
    }

    fn approvals(&self) -> String {
        let one = &self.escalation;
        let mut text = format!("{} of {}", one.approvals.len(), one.required);
        if !one.approvals.is_empty() {
            text += &format!(": {}", one.approvals.join(", "));
        }
        text
    }

    fn who(&self) -> String {
        let one = &self.escalation;
        let asked = one
            .levels
            .get((one.level as usize).saturating_sub(1))
            .filter(|level| !level.sessions.is_empty())
            .map(|level| format!("; asked: {}", level.sessions.join(", ")));
        format!(
            "level {} of {}, whoever is {} or above{}; never {}",
            one.level,
            one.levels.len(),
            self.min_role.name(),
            asked.unwrap_or_default(),
            self.not_eligible.join(" or ")
        )
    }

    fn time_left(&self) -> String {
        match (self.escalation.deadline_ms, self.left_ms) {
            (Some(due_ms), Some(left_ms)) => format!(
                "{}, until {}; then {}",
                duration(left_ms),
                time(due_ms),
                self.otherwise
            ),
            _ => match self.plan_deadline_ms {
                Some(due_ms) => format!("until the plan's deadline, {}", time(due_ms)),
                None => "no limit is known".into(),
            },
        }
    }

    fn decided(&self) -> String {
        let one = &self.escalation;
        let said: Vec<String> = one
            .decisions
            .iter()
            .map(|said| {
                let text = said.text.as_deref().map(table::first_line);
                let text = text.filter(|text| !text.is_empty());
                format!(
                    "{} by {} at {}{}",
                    said.verdict,
                    said.actor,
                    time(said.at_ms),
                    text.map(|text| format!(": {text}")).unwrap_or_default()
                )
            })
            .collect();
        match (one.state, said.is_empty()) {
            (QuestionState::Expired, _) => {
                format!("nobody answered in time; {}", fallback_word(one))
            }
            (QuestionState::Unanswered, _) => "nobody answered before the plan's deadline".into(),
            (QuestionState::Voided, _) => "the step ended otherwise".into(),
            (_, false) => said.join("\n"),
            (_, true) => one.state.name().into(),
        }
    }
}

/// What stood in the place of an answer.
fn fallback_word(one: &Escalation) -> &'static str {
    match one.fallback {
        Some(Fallback::Allow) => "its fallback approved",
        _ => "that counts as a denial",
    }
}

impl Contest {
    fn text(&self) -> String {
        let mut text = self.resource.clone();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for (what, claims) in [
            ("wants it", list(&self.contenders)),
            ("has it", list(&self.holders)),
        ] {
            for claim in claims {
                let word = |name: &str| claim[name].as_str().unwrap_or_default().to_owned();
                let expires = claim["expiresMs"]
                    .as_u64()
                    .map(|at_ms| format!(", until {}", time(at_ms)));
                // Those that wait ahead are holders without a token.
                let what = match (what, claim["token"].as_u64()) {
                    ("has it", None) => "waits ahead".to_owned(),
                    ("has it", Some(token)) => format!("has it under token {token}"),
                    _ => what.to_owned(),
                };
                let parts: Vec<String> = list(&claim["regions"])
                    .iter()
                    .map(|part| format!("{}..{}", part["start"], part["end"]))
                    .collect();
                let parts = match parts.is_empty() {
                    true => String::new(),
                    false => format!(", parts {}", parts.join(" ")),
                };
                let based = claim["baseVersion"]
                    .as_str()
                    .map(|version| format!(", based on {}", table::first_line(version)));
                text += &format!(
                    "\n{what}: {}:{}:{} ({}) {}, priority {}{parts}{}{}",
                    word("coordinationId"),
                    word("stepId"),
                    claim["attempt"].as_u64().unwrap_or(1),
                    word("session"),
                    word("mode"),
                    word("priority"),
                    based.unwrap_or_default(),
                    expires.unwrap_or_default()
                );
            }
        }
        if !self.reason.is_empty() {
            text += &format!("\nwhy a person: {}", table::first_line(&self.reason));
        }
        text
    }
}

/// The definition of a step: of the plan, or of the record that added it.
pub fn step_of<'a>(records: &'a [Value], step_id: &str) -> &'a Value {
    let is_it = |step: &&Value| step["stepId"] == step_id;
    let find = |record: &'a Value| match record["type"].as_str() {
        Some("coordination.created") => record["data"]["plan"]["steps"]
            .as_array()?
            .iter()
            .find(is_it),
        Some("step.added") => Some(&record["data"]["step"]).filter(is_it),
        _ => None,
    };
    records.iter().find_map(find).unwrap_or(&Value::Null)
}

fn asked_by(escalation: &Escalation, records: &[Value], target_session: &str) -> String {
    let cause = records
        .iter()
        .find(|record| escalation.cause.is_some() && record["seq"].as_u64() == escalation.cause);
    match escalation.kind.as_str() {
        "question" => format!("{target_session}, which waits for the answer"),
        "review" => match cause.and_then(|cause| cause["data"]["handler"].as_str()) {
            Some(handler) => format!("the hook {}", table::first_line(handler)),
            None => "a hook".into(),
        },
        "conflict" => "arbitration of a resource".into(),
        "exhausted" => "the rules: no retry is left".into(),
        "unknown_effect" => "the rules: nobody knows whether it happened".into(),
        other => other.to_owned(),
    }
}

/// Contests of the attempt that are left to a person, the last of each resource.
fn contests_of(escalation: &Escalation, records: &[Value]) -> Vec<Contest> {
    if escalation.kind != "conflict" {
        return Vec::new();
    }
    let mine = |record: &&Value| {
        record["stepId"] == escalation.step_id
            && record["attempt"].as_u64() == Some(u64::from(escalation.attempt))
            && record["seq"]
                .as_u64()
                .is_some_and(|seq| seq < escalation.seq)
    };
    let mut contests: BTreeMap<String, Contest> = BTreeMap::new();
    for record in records.iter().filter(mine) {
        let data = &record["data"];
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        match record["type"].as_str() {
            Some("conflict.detected") => {
                let contest = Contest {
                    contest_id: text("contestId"),
                    resource: text("resource"),
                    reason: String::new(),
                    contenders: data["contenders"].clone(),
                    holders: data["holders"].clone(),
                };
                contests.insert(contest.resource.clone(), contest);
            }
            Some("conflict.resolved") => {
                let id = text("contestId");
                let outcomes = data["outcomes"].as_array();
                let is_asked = outcomes.into_iter().flatten().any(|outcome| {
                    outcome["stepId"] == escalation.step_id && outcome["outcome"] == "review"
                });
                let reason = text("reason");
                contests.retain(|_, contest| {
                    if contest.contest_id != id {
                        return true;
                    }
                    contest.reason.clone_from(&reason);
                    is_asked
                });
            }
            _ => {}
        }
    }
    contests.into_values().collect()
}

fn consequences(kind: &str) -> Vec<Consequence> {
    let rows: &[(&str, &str)] = match kind {
        "review" => &[
            ("approve", "the step goes on to its claims and goes out"),
            ("deny", "the step fails (denied)"),
        ],
        "conflict" => &[
            (
                "approve",
                "the step comes first for the resource; who holds it keeps it until its end, unless the policy preempts",
            ),
            ("deny", "the step fails (conflict_unresolved)"),
        ],
        "exhausted" => &[
            ("approve", "one more attempt, outside the retry budget"),
            ("deny", "the step ends with its last error"),
        ],
        "unknown_effect" => &[
            (
                "approve",
                "it did not happen: the step runs again, as a new attempt",
            ),
            (
                "complete",
                "it did happen: the step is completed, with --text as its result",
            ),
            ("deny", "the step fails (unknown_effect)"),
        ],
        "question" => &[
            (
                "approve",
                "the step goes on; --text goes to it as the answer",
            ),
            ("deny", "the step fails (denied)"),
        ],
        _ => &[],
    };
    let row = |&(verdict, effect): &(&'static str, &str)| Consequence {
        verdict,
        effect: effect.to_owned(),
    };
    rows.iter().map(row).collect()
}

fn otherwise(escalation: &Escalation, fallback: Fallback) -> String {
    if let Some(next) = escalation.levels.get(escalation.level as usize) {
        return format!(
            "level {} is asked ({} or above)",
            escalation.level + 1,
            next.min_role.name()
        );
    }
    match fallback {
        Fallback::Deny => "it counts as denied".into(),
        Fallback::Block => "it stays open until the plan's deadline".into(),
        Fallback::Allow if matches!(escalation.kind.as_str(), "exhausted" | "question") => {
            "it counts as approved if the step and its resources are of low risk, else as denied"
                .into()
        }
        Fallback::Allow => "it counts as denied".into(),
    }
}

/// Names and values below each other, values of several lines indented.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn add(&mut self, name: &str, value: &str) {
        let value = value.replace('\n', "\n              ");
        self.0 += &format!("  {name:<11} {value}\n");
    }
}

/// Text of others for a terminal: no escape sequences, nothing that changes the order of what is read, not too much.
pub fn clean(text: &str, lines_max: usize) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text = text.trim();
    let mut lines: Vec<String> = text
        .lines()
        .take(lines_max)
        .map(|line| {
            let line = line.trim_end();
            let shown = line.chars().take(INPUT_LINE_MAX);
            let mut shown: String = shown.map(|c| if is_odd(c) { ' ' } else { c }).collect();
            if line.chars().count() > INPUT_LINE_MAX {
                shown.push('…');
            }
            shown
        })
        .collect();
    let more = text.lines().count().saturating_sub(lines_max);
    if more > 0 {
        lines.push(format!("… {more} more line(s); --json has all of it"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use qm2_host::escalation::Escalations;
    use serde_json::json;

    fn record(seq: u64, name: &str, data: Value) -> Value {
        json!({"seq": seq, "type": name, "atMs": 0, "coordinationId": "c", "stepId": "s", "attempt": 1, "cause": seq - 1, "data": data})
    }

    #[test]
    fn a_contest_is_shown_with_who_wants_and_who_has_the_resource() {
        let plan = json!({"coordinationId": "c", "objective": "o", "ownerSession": "user:me", "deadlineMs": 99_000,
            "steps": [{"stepId": "s", "targetSession": "agent:a", "payload": "write\u{1b}[2J it"}],
            "failurePolicy": {"human": {"fallback": "deny"}}});
        let contender = json!({"coordinationId": "c", "stepId": "s", "attempt": 1, "priority": "high", "claimNumber": 3, "mode": "exclusive", "session": "agent:a",
            "baseVersion": "v1", "regions": [{"start": 0, "end": 9}]});
        let holder = json!({"coordinationId": "d", "stepId": "t", "attempt": 2, "priority": "low", "claimNumber": 2,
            "mode": "shared", "token": 2, "expiresMs": 5_000, "session": "agent:d"});
        let records = vec![
            record(1, "coordination.created", json!({"plan": plan})),
            record(
                3,
                "conflict.detected",
                json!({"contestId": "c3", "resource": "file:a", "contenders": [contender], "holders": [holder]}),
            ),
            record(
                4,
                "conflict.resolved",
                json!({"contestId": "c3", "reason": "manual_review",
                "outcomes": [{"stepId": "s", "outcome": "review", "order": 0}]}),
            ),
            record(
                5,
                "coordination.escalated",
                json!({"escalationId": "e5", "kind": "conflict", "question": "Who?", "digest": "dd",
                "levels": [{"sessions": ["user:b"], "minRole": "operator", "timeoutMs": 60_000}]}),
            ),
            record(
                6,
                "human.requested",
                json!({"escalationId": "e5", "level": 1, "minRole": "operator", "required": 1, "dueMs": 60_000}),
            ),
        ];
        let lines = records
            .iter()
            .map(|record| format!("{{\"type\":{},{}", record["type"], &record.to_string()[1..]));
        let one = Escalations::fold(lines).get("e5").unwrap().clone();
        let view = View::gather(one, &records, 0);
        assert_eq!((view.contests.len(), view.left_ms), (1, Some(60_000)));
        let text = view.text("qm2");
        for part in [
            "e5: open, conflict",
            "Who?",
            "file:a",
            "wants it: c:s:1 (agent:a) exclusive, priority high, parts 0..9, based on v1",
            "has it under token 2: d:t:2 (agent:d) shared, priority low, until 1970-01-01T00:00:05.000Z",
            "write [2J it",
            "approve   the step comes first",
            "deny      the step fails (conflict_unresolved)",
            "0 of 1",
            "never user:me or agent:a",
            "1 min 0 s, until 1970-01-01T00:01:00.000Z; then it counts as denied",
            "dd",
            "qm2 escalations approve e5 --as SESSION",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("complete"), "{text}");
    }

    #[test]
    fn text_of_others_cannot_change_what_is_read() {
        assert_eq!(clean("a\u{1b}[31m\u{202e}b\nc", 4), "a [31m b\nc");
        assert_eq!(
            clean("1\n2\n3", 2),
            "1\n2\n… 1 more line(s); --json has all of it"
        );
        assert_eq!(
            clean(&"x".repeat(200), 1).chars().count(),
            INPUT_LINE_MAX + 1
        );
    }
}
