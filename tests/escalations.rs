//! Human review with the real program: `qm2 run` waits in one process, people answer from others.
//!
//! Questions that agents ask and how they reach people are in `asking`. Waits for what is in the ledger, never for a
//! moment.

use crate::program::{Directory, Output, Running, SHELL, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};

/// The people of these tests; `user:test` owns the plans.
pub const PEOPLE: &str = "
[[people]]
session = \"user:dana\"
role = \"operator\"

[[people]]
session = \"user:eve\"
role = \"admin\"

[[people]]
session = \"user:otto\"
role = \"user\"

[[people]]
session = \"user:test\"
role = \"owner\"

[[people]]
session = \"agent:shell:risky\"
role = \"owner\"
";

/// Fails at its first attempt and is done at its second, which only a person can allow.
const SECOND_TIME: &str = "test \"$QM2_ATTEMPT\" -gt 1 && echo done at last";
/// Goes on until the test says so; keeps the coordination alive.
const HOLDS: &str = "until [ -e \"$QM2_DATA/go\" ]; do sleep 0.05; done; echo held";

/// Long enough for every test; nobody waits for it.
pub const LONG_MS: u64 = 600_000;

/// One level that an operator may answer.
pub fn operator(timeout_ms: u64) -> Value {
    json!({"levels": [{"sessions": ["user:dana"], "minRole": "operator", "timeoutMs": timeout_ms}]})
}

/// A plan of shell steps whose failures are left to people.
pub fn plan(id: &str, human: &Value, steps: &[(&str, &str)]) -> Value {
    let steps: Vec<Value> = steps
        .iter()
        .map(|(step_id, script)| {
            json!({
                "stepId": step_id, "targetSession": format!("agent:shell:{step_id}"), "payload": script,
                "timeoutMs": LONG_MS,
            })
        })
        .collect();
    json!({
        "coordinationId": id, "objective": "Something that people decide.", "ownerSession": "user:test",
        "steps": steps, "failurePolicy": {"escalationPolicy": "hitl", "human": human},
    })
}

/// The time on the wall, in milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    u64::try_from(since.as_millis()).expect("a time")
}

/// A data directory with a plan and an agents file beside each other.
pub struct Case {
    pub directory: Directory,
    plan: String,
}

impl Case {
    /// With these agents beside the shell, and the people.
    pub fn with(plan: &Value, agents: &str) -> Self {
        let directory = Directory::new();
        directory.write("qm2.toml", &format!("{agents}{SHELL}{PEOPLE}"));
        let plan = directory.write("plan.json", &plan.to_string());
        Self { directory, plan }
    }

    pub fn new(plan: &Value) -> Self {
        Self::with(plan, "")
    }

    /// Begins to run the plan.
    pub fn begin(&self) -> Running {
        self.directory.begin(&["--json", "run", &self.plan])
    }

    /// `qm2 --json escalations` with these arguments.
    pub fn people(&self, arguments: &[&str]) -> Output {
        self.directory
            .run(&[&["--json", "escalations"], arguments].concat())
    }

    /// An answer of a person.
    pub fn says(&self, verdict: &str, id: &str, actor: &str) -> Output {
        self.people(&[verdict, id, "--as", actor])
    }

    /// Records of a type.
    pub fn records(&self, type_name: &str) -> Vec<Value> {
        let mut records = self.directory.records();
        records.retain(|record| record["type"] == type_name);
        records
    }

    /// Waits until there are so many records of a type.
    pub fn until(&self, type_name: &str, count: usize) -> Vec<Value> {
        until(type_name, || self.records(type_name).len() >= count);
        self.records(type_name)
    }

    /// Waits until somebody is asked, and gives the id of the question.
    pub fn asked(&self) -> String {
        text(&self.until("human.requested", 1)[0]["data"]["escalationId"])
    }

    /// A question in the list of all.
    pub fn question(&self, id: &str) -> Value {
        let all = self.people(&["list", "--all"]).json();
        let all = all["escalations"].as_array().cloned().expect("a list");
        let found = all.into_iter().find(|one| one["id"] == id);
        found.unwrap_or_else(|| panic!("{id} is not listed"))
    }

    /// Waits until a process that runs the directory can be reached.
    pub fn reached(&self) {
        let socket = self.directory.data().join("qm2.sock");
        until("somebody runs it", || UnixStream::connect(&socket).is_ok());
    }

    /// Lets the step that holds go.
    pub fn go(&self) {
        std::fs::write(self.directory.data().join("go"), "").expect("a file");
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a refused command said, and its code.
pub fn refused(output: &Output) -> (i32, String) {
    (output.code, output.error_code())
}

#[test]
fn approval_from_another_process_lets_the_run_go_on() {
    let case = Case::new(&plan(
        "approved",
        &operator(LONG_MS),
        &[("risky", SECOND_TIME)],
    ));
    let running = case.begin();
    let id = case.asked();

    let listed = case.people(&["list"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    let one = listed.json()["escalations"][0].clone();
    assert_eq!((&one["id"], &one["state"]), (&json!(id), &json!("open")));
    assert_eq!(one["coordinationId"], "approved");
    assert_eq!(
        (&one["stepId"], &one["kind"]),
        (&json!("risky"), &json!("exhausted"))
    );
    assert_eq!(
        (&one["approvals"], &one["required"]),
        (&json!([]), &json!(1))
    );
    assert!(one["deadlineMs"].as_u64() > Some(now_ms()), "{one}");
    assert!(one["question"].is_string(), "{one}");

    let shown = case.directory.run(&["escalations", "show", &id]);
    assert_eq!(shown.code, 0, "{shown:?}");
    let digest = text(&one["digest"]);
    for part in [
        &id,
        "risky, attempt 1, done by agent:shell:risky",
        SECOND_TIME,
        "approve   one more attempt, outside the retry budget",
        "deny      the step ends with its last error",
        "0 of 1",
        "operator or above; asked: user:dana; never user:test or agent:shell:risky",
        "then it counts as denied",
        &digest,
    ] {
        assert!(shown.stdout.contains(part), "{part} in {}", shown.stdout);
    }
    let value = case.people(&["show", &id]).json();
    assert!(value["leftMs"].as_u64() > Some(0), "{value}");
    assert_eq!(value["answers"][0]["verdict"], "approve");

    let status = case.directory.run(&["--json", "status", "approved"]).json();
    let coordination = &status["coordinations"][0];
    assert_eq!(coordination["openEscalations"], json!([id]));
    let step = &coordination["steps"][0];
    assert_eq!(
        (&step["state"], &step["waitsFor"]["kind"]),
        (&json!("waiting_human"), &json!("human"))
    );
    let status = case.directory.run(&["status", "approved"]);
    assert!(
        status.stdout.contains(&format!("escalations show {id}")),
        "{status:?}"
    );

    let approved = case.people(&["approve", &id, "--as", "user:dana", "--text", "once more"]);
    assert_eq!(approved.code, 0, "{approved:?}");
    let value = approved.json();
    assert_eq!(
        (&value["final"], &value["state"]),
        (&json!(true), &json!("approved"))
    );
    assert_eq!(value["approvals"], json!(["user:dana"]));

    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.json()["terminal"], "success");
    let shows = "risky: waits for a person (operator or above) until 2";
    for part in [
        shows,
        &format!("escalations show {id}"),
        "approved by user:dana",
    ] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    assert_eq!(case.people(&["list"]).json()["escalations"], json!([]));
    let question = case.question(&id);
    assert_eq!(question["state"], "approved");
    assert_eq!(question["decisions"][0]["text"], "once more");
    let verified = case.directory.run(&["ledger", "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[test]
fn denial_ends_the_step_with_its_last_error() {
    let case = Case::new(&plan(
        "denied",
        &operator(LONG_MS),
        &[("risky", "echo no luck >&2; exit 3")],
    ));
    let running = case.begin();
    let id = case.asked();
    assert_eq!(case.says("deny", &id, "user:dana").code, 0);
    let ended = running.wait();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(case.question(&id)["state"], "denied");
    let failed = &case.records("step.failed")[0]["data"];
    assert_eq!(
        (&failed["code"], &failed["message"]),
        (&json!("exit-3"), &json!("no luck"))
    );
    assert!(ended.stderr.contains("is denied by user:dana"), "{ended:?}");
}

#[test]
fn nobody_answers_level_after_level_and_the_fallback_denies() {
    let human = json!({"levels": [
        {"sessions": ["user:dana"], "minRole": "operator", "timeoutMs": 200},
        {"sessions": ["user:eve"], "minRole": "admin", "timeoutMs": 200},
    ]});
    let case = Case::new(&plan("timeout", &human, &[("risky", "exit 3")]));
    let ended = case.begin().wait();
    assert_eq!(ended.code, 1, "{ended:?}");
    let asked: Vec<_> = case
        .records("human.requested")
        .iter()
        .map(|record| record["data"]["level"].clone())
        .collect();
    assert_eq!(asked, [json!(1), json!(2)]);
    let expired = case.records("human.expired");
    assert_eq!(expired.len(), 2, "{expired:?}");
    assert_eq!(expired[0]["data"]["fallback"], Value::Null);
    assert_eq!(expired[1]["data"]["fallback"], "deny");
    let id = text(&expired[0]["data"]["escalationId"]);
    assert_eq!(case.question(&id)["state"], "expired");
    let shown = case.directory.run(&["escalations", "show", &id]);
    assert!(
        shown
            .stdout
            .contains("nobody answered in time; that counts as a denial"),
        "{shown:?}"
    );
}

#[test]
fn two_approvals_are_needed_and_one_person_gives_only_one() {
    let mut human = operator(LONG_MS);
    human["requiredApprovals"] = json!(2);
    let case = Case::new(&plan("quorum", &human, &[("risky", SECOND_TIME)]));
    let mut running = case.begin();
    let id = case.asked();
    for status in ["accepted", "replayed"] {
        let first = case.says("approve", &id, "user:dana");
        assert_eq!(first.code, 0, "{first:?}");
        let value = first.json();
        assert_eq!(
            (&value["status"], &value["final"]),
            (&json!(status), &json!(false))
        );
        assert_eq!(
            (&value["approvals"], &value["required"]),
            (&json!(["user:dana"]), &json!(2))
        );
    }
    assert!(running.is_running());
    let people = case.directory.run(&["escalations", "list"]);
    assert!(people.stdout.contains("1 of 2"), "{people:?}");
    let second = case.says("approve", &id, "user:eve");
    assert_eq!(second.json()["final"], true, "{second:?}");
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("user:dana approved"), "{ended:?}");
}

#[test]
fn who_owns_the_plan_or_does_the_step_or_has_too_low_a_role_cannot_answer() {
    let case = Case::new(&plan("self", &operator(LONG_MS), &[("risky", SECOND_TIME)]));
    let running = case.begin();
    let id = case.asked();
    for actor in ["user:test", "agent:shell:risky", "user:otto"] {
        let answer = case.says("approve", &id, actor);
        assert_eq!(
            refused(&answer),
            (1, "not-eligible".into()),
            "{actor}: {answer:?}"
        );
        let denial = case.says("deny", &id, actor);
        assert_eq!(
            refused(&denial),
            (1, "not-eligible".into()),
            "{actor}: {denial:?}"
        );
    }
    // Somebody whom the agents file does not know.
    let unknown = case.says("approve", &id, "user:nobody");
    assert_eq!(refused(&unknown), (1, "unknown-person".into()));
    for part in ["user:nobody", "qm2.toml", "[[people]]"] {
        assert!(unknown.stdout.contains(part), "{part} in {unknown:?}");
    }
    assert_eq!(case.question(&id)["state"], "open");
    let other = "[[people]]\nsession = \"user:nobody\"\nrole = \"operator\"\n";
    let other = case.directory.write("other.toml", other);
    let known = case.people(&["approve", &id, "--as", "user:nobody", "--agents", &other]);
    assert_eq!(known.code, 0, "{known:?}");
    assert_eq!(running.wait().code, 0);
}

#[test]
fn an_answer_to_something_else_than_what_is_asked_is_stale() {
    let case = Case::new(&plan(
        "stale",
        &operator(LONG_MS),
        &[("risky", SECOND_TIME)],
    ));
    let running = case.begin();
    let id = case.asked();
    let other = "0".repeat(64);
    let stale = case.people(&["approve", &id, "--as", "user:dana", "--digest", &other]);
    assert_eq!(refused(&stale), (1, "stale-question".into()), "{stale:?}");
    let wrong = case.says("complete", &id, "user:dana");
    assert_eq!(wrong.code, 1, "complete is for unknown effects: {wrong:?}");
    let unknown = case.says("approve", "e99999", "user:dana");
    assert_eq!(refused(&unknown), (2, "unknown-escalation".into()));
    let digest = text(&case.question(&id)["digest"]);
    let seen = case.people(&["approve", &id, "--as", "user:dana", "--digest", &digest]);
    assert_eq!(seen.code, 0, "{seen:?}");
    assert_eq!(running.wait().code, 0);
}

#[test]
fn the_second_answer_is_late_while_the_plan_runs_and_after_it() {
    let steps = [("risky", SECOND_TIME), ("holds", HOLDS)];
    let case = Case::new(&plan("second", &operator(LONG_MS), &steps));
    let running = case.begin();
    let id = case.asked();
    assert_eq!(case.says("approve", &id, "user:dana").code, 0);
    let second = case.says("deny", &id, "user:eve");
    assert_eq!(refused(&second), (1, "late".into()), "{second:?}");
    assert!(
        second.stdout.contains("approved by user:dana"),
        "{second:?}"
    );
    assert_eq!(case.question(&id)["state"], "approved");
    case.go();
    assert_eq!(running.wait().code, 0);
    let third = case.says("deny", &id, "user:eve");
    assert_eq!(refused(&third), (1, "late".into()), "{third:?}");
}

#[test]
fn an_answer_after_the_deadline_is_late() {
    let steps = [("risky", SECOND_TIME), ("holds", HOLDS)];
    let case = Case::new(&plan("after", &operator(100), &steps));
    let running = case.begin();
    let expired = case.until("human.expired", 1);
    let id = text(&expired[0]["data"]["escalationId"]);
    let late = case.says("approve", &id, "user:dana");
    assert_eq!(refused(&late), (1, "late".into()), "{late:?}");
    assert!(late.stdout.contains("expired"), "{late:?}");
    case.go();
    assert_eq!(running.wait().code, 3, "one of two steps is done");
}

#[test]
fn a_question_survives_kill_and_is_open_under_its_id_after_the_restart() {
    let case = Case::new(&plan(
        "killed",
        &operator(LONG_MS),
        &[("risky", SECOND_TIME)],
    ));
    let running = case.begin();
    let id = case.asked();
    running.signal(Signal::KILL);
    running.wait();
    // Nobody runs it, and everything can still be read.
    let listed = case.people(&["list"]).json();
    assert_eq!(listed["escalations"][0]["id"], id.as_str());
    assert_eq!(case.people(&["show", &id]).code, 0);

    let running = case.begin();
    case.reached();
    assert_eq!(case.question(&id)["state"], "open");
    assert_eq!(case.says("approve", &id, "user:dana").code, 0);
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    let says = format!("escalations show {id}");
    assert!(
        ended.stderr.contains(&says),
        "a resumed run says what it waits for: {ended:?}"
    );
    assert_eq!(case.records("coordination.escalated").len(), 1);
}

#[test]
fn an_answer_while_nobody_runs_the_plan_is_kept_for_the_next_run() {
    let hook = "[[hooks]]\nkind = \"before_dispatch\"\nname = \"counts\"\n\
         command = [\"sh\", \"-c\", \"cat >/dev/null; echo asked >>hooked\"]\n";
    let steps = [("risky", SECOND_TIME)];
    let case = Case::with(&plan("alone", &operator(LONG_MS), &steps), hook);
    let running = case.begin();
    let id = case.asked();
    running.signal(Signal::KILL);
    running.wait();
    let approved = case
        .directory
        .run(&["escalations", "approve", &id, "--as", "user:dana"]);
    assert_eq!(approved.code, 0, "{approved:?}");
    let says = "nobody runs alone now";
    assert!(approved.stdout.contains(says), "{approved:?}");
    assert_eq!(case.question(&id)["state"], "approved");
    // Hooks were asked; that nobody was there to answer would have been a deny. No work was begun.
    let verdicts = case.records("hook.verdict");
    let said: Vec<_> = verdicts.iter().map(|one| &one["data"]["verdict"]).collect();
    assert_eq!(said, ["no_opinion", "no_opinion"]);
    assert_eq!(case.directory.processes(), Vec::<String>::new());
    assert_eq!(case.records("step.completed"), Vec::<Value>::new());
    let ended = case.begin().wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(case.records("step.completed")[0]["attempt"], 2);
}

#[test]
fn under_fallback_block_the_plan_ends_escalated_with_exit_4_at_its_deadline() {
    let mut human = operator(100);
    human["fallback"] = json!("block");
    let mut plan = plan("blocked", &human, &[("risky", SECOND_TIME)]);
    let case = Case::new(&plan);
    // The first look at the component compiles it, which may take longer than what is left after it.
    assert_eq!(case.directory.run(&["check", &case.plan]).code, 2);
    plan["deadlineMs"] = json!(now_ms() + 8_000);
    case.directory.write("plan.json", &plan.to_string());
    let running = case.begin();
    case.until("human.expired", 1);
    let id = case.asked();
    assert_eq!(case.question(&id)["state"], "open");
    let ended = running.wait();
    assert_eq!(ended.code, 4, "{ended:?}");
    let value = ended.json();
    assert_eq!(
        (&value["terminal"], &value["reason"]),
        (&json!("escalated"), &json!("unanswered"))
    );
    assert_eq!(case.question(&id)["state"], "unanswered");
    // Again: the same result, and nothing is started.
    assert_eq!(case.begin().wait().code, 4);
}

#[test]
fn what_nobody_knows_is_said_by_a_person() {
    let report =
        json!({"outcome": {"failed": {"class": "unknown", "code": "lost", "message": "no reply"}}});
    let script = format!("echo '{report}'");
    let mut plan = plan("unknown", &operator(LONG_MS), &[("risky", &script)]);
    plan["steps"][0]["idempotent"] = json!(false);
    let case = Case::new(&plan);
    let running = case.begin();
    let id = case.asked();
    assert_eq!(case.question(&id)["kind"], "unknown_effect");
    let shown = case.directory.run(&["escalations", "show", &id]);
    for part in [
        "complete  it did happen",
        "no reply",
        &format!("escalations complete {id}"),
    ] {
        assert!(shown.stdout.contains(part), "{part} in {shown:?}");
    }
    let said = case.people(&[
        "complete",
        &id,
        "--as",
        "user:dana",
        "--text",
        "sent at 10:04",
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    let completed = &case.records("step.completed")[0]["data"];
    assert_eq!(
        (&completed["payload"], &completed["by"]),
        (&json!("sent at 10:04"), &json!("answer"))
    );
}

#[test]
fn a_contest_for_a_resource_is_shown_with_who_has_it_and_status_says_who_is_waited_for() {
    let mut plan = plan(
        "contest",
        &operator(LONG_MS),
        &[("first", HOLDS), ("risky", "echo mine")],
    );
    plan["conflictPolicy"] = json!({"default": "manual_review"});
    for at in 0..2 {
        plan["steps"][at]["claims"] = json!([{"resource": "file:a.txt", "mode": "exclusive"}]);
    }
    // The first one has it before the other one asks.
    plan["steps"][1]["dependsOn"] = json!([{"stepId": "early"}]);
    let early = json!({"stepId": "early", "targetSession": "agent:shell:early", "timeoutMs": LONG_MS,
        "payload": "until [ -e \"$QM2_DATA/first\" ]; do sleep 0.05; done"});
    plan["steps"].as_array_mut().expect("steps").push(early);
    plan["steps"][0]["payload"] = json!(format!("touch \"$QM2_DATA/first\"; {HOLDS}"));
    let case = Case::new(&plan);
    let running = case.begin();
    let id = case.asked();
    assert_eq!(case.question(&id)["kind"], "conflict");
    let shown = case.directory.run(&["escalations", "show", &id]);
    for part in [
        "file:a.txt",
        "wants it: contest:risky:1 (agent:shell:risky) exclusive",
        "has it under token",
        "contest:first:1 (agent:shell:first) exclusive",
        "the step fails (conflict_unresolved)",
    ] {
        assert!(shown.stdout.contains(part), "{part} in {}", shown.stdout);
    }
    assert_eq!(case.says("approve", &id, "user:dana").code, 0);
    // Next in the queue, but the holder keeps it until its end.
    let status = case.directory.run(&["status", "contest"]);
    for part in [
        "waiting_claim",
        "risky waits for file:a.txt, place 1",
        "held by contest:first (agent:shell:first) under token",
    ] {
        assert!(status.stdout.contains(part), "{part} in {}", status.stdout);
    }
    case.go();
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn a_cancel_voids_the_question_and_its_answer_is_late() {
    let case = Case::new(&plan(
        "stopped",
        &operator(LONG_MS),
        &[("risky", SECOND_TIME)],
    ));
    let running = case.begin();
    let id = case.asked();
    let cancelled = case.directory.run(&["--json", "cancel", "stopped"]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    assert_eq!(running.wait().code, 1);
    assert_eq!(case.question(&id)["state"], "voided");
    let late = case.says("approve", &id, "user:dana");
    assert_eq!(refused(&late), (1, "late".into()), "{late:?}");
    let shown = case.directory.run(&["escalations", "show", &id]);
    assert!(
        shown.stdout.contains("the step ended otherwise"),
        "{shown:?}"
    );
}
