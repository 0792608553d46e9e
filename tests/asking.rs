//! Questions of running steps, how they reach people and how the answer comes back; what is said of people who cannot
//! be asked.
//!
//! What a person can answer to the rules' own questions is in `escalations`.

use crate::escalations::{Case, LONG_MS, PEOPLE, operator, plan, refused, text};
use crate::program::{Directory, SHELL, until};
use qm2_core::config::Config;
use qm2_core::message::{Caller, HumanVerdict, Role};
use qm2_host::agent::{Report, Task};
use qm2_host::engine::{Answer, Call};
use qm2_host::people::Person;
use qm2_host::{Domain, HostError};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// Asks, and says what was answered; the answer is also in the attempt's folder.
const ASKS: &str = "said=$(\"$QM2_BIN\" escalate 'Version 2 is out. Upgrade?') || exit 70\n\
     until cat \"$QM2_ANSWERS\"/e* 2>/dev/null; do sleep 0.05; done\n\
     echo \" and $said\"";

#[test]
fn a_shell_step_asks_and_gets_the_text_of_the_answer() {
    let case = Case::new(&plan("asks", &operator(LONG_MS), &[("upgrade", ASKS)]));
    let running = case.begin();
    let id = case.asked();
    let question = case.question(&id);
    assert_eq!(question["kind"], "question");
    assert_eq!(question["question"], "Version 2 is out. Upgrade?");
    assert_eq!(question["number"], 1);
    let shown = case.directory.run(&["escalations", "show", &id]);
    for part in [
        "agent:shell:upgrade, which waits for the answer",
        "--text goes to it as the answer",
    ] {
        assert!(shown.stdout.contains(part), "{part} in {shown:?}");
    }
    let said = case.people(&[
        "approve",
        &id,
        "--as",
        "user:dana",
        "--text",
        "yes, tonight",
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    let completed = &case.records("step.completed")[0]["data"];
    assert_eq!(completed["payload"], "yes, tonight and yes, tonight\n");
    // The folder of answers goes with the attempt.
    let left = std::fs::read_dir(case.directory.data().join("answers"));
    assert_eq!(left.map_or(0, Iterator::count), 0);
}

#[test]
fn a_step_asks_one_question_after_the_other() {
    let script = "for n in 1 2; do \"$QM2_BIN\" escalate \"Question $n?\" || exit 70; done";
    let case = Case::new(&plan("twice", &operator(LONG_MS), &[("asks", script)]));
    let running = case.begin();
    for number in 1..=2 {
        let escalated = case.until("coordination.escalated", number);
        let one = &escalated[number - 1]["data"];
        assert_eq!(one["number"].as_u64(), u64::try_from(number).ok());
        assert_eq!(one["question"], format!("Question {number}?"));
        let said = format!("answer {number}");
        let id = text(&one["escalationId"]);
        let answer = case.people(&["approve", &id, "--as", "user:dana", "--text", &said]);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
    assert_eq!(running.wait().code, 0);
    let completed = &case.records("step.completed")[0]["data"];
    assert_eq!(completed["payload"], "answer 1\nanswer 2\n");
}

#[test]
fn a_shell_step_that_is_denied_fails_for_good_and_is_ended() {
    let script = "\"$QM2_BIN\" escalate 'May I?' || sleep 600";
    let case = Case::new(&plan("refused", &operator(LONG_MS), &[("asks", script)]));
    let running = case.begin();
    let id = case.asked();
    let denied = case.people(&["deny", &id, "--as", "user:dana", "--text", "not today"]);
    assert_eq!(denied.code, 0, "{denied:?}");
    let ended = running.wait();
    assert_eq!(ended.code, 1, "{ended:?}");
    let failed = &case.records("step.failed")[0]["data"];
    let found = (&failed["class"], &failed["code"]);
    assert_eq!(found, (&json!("permanent"), &json!("denied")));
    assert!(text(&failed["message"]).contains("not today"), "{failed}");
    assert_eq!(case.directory.processes(), Vec::<String>::new());
}

#[test]
fn a_plan_that_asks_nobody_says_so_at_once() {
    let mut plan = plan(
        "nobody",
        &operator(LONG_MS),
        &[("asks", "\"$QM2_BIN\" --json escalate 'May I?'; echo $?")],
    );
    plan["failurePolicy"] = json!({});
    let case = Case::new(&plan);
    let ended = case.begin().wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    let said = text(&case.records("step.completed")[0]["data"]["payload"]);
    assert!(
        said.contains("\"no-human\"") && said.ends_with("\n1\n"),
        "{said}"
    );
    // Outside of a step there is nobody who could ask.
    let outside = case.directory.run(&["--json", "escalate", "May I?"]);
    assert_eq!(refused(&outside), (2, "not-an-agent".into()));
}

#[test]
fn the_process_of_a_step_cannot_answer_questions() {
    let tries = "until id=$(cat \"$QM2_DATA/asked\" 2>/dev/null); do sleep 0.05; done\n\
        \"$QM2_BIN\" --json --data \"$QM2_DATA\" escalations approve \"$id\" --as user:dana; echo $?";
    let steps = [("risky", "exit 3"), ("tries", tries)];
    let case = Case::new(&plan("inside", &operator(LONG_MS), &steps));
    let running = case.begin();
    let id = case.asked();
    std::fs::write(case.directory.data().join("asked.new"), &id).expect("a file");
    let data = case.directory.data();
    std::fs::rename(data.join("asked.new"), data.join("asked")).expect("a file");
    let said = text(&case.until("step.completed", 1)[0]["data"]["payload"]);
    assert!(
        said.contains("not-eligible") && said.ends_with("\n1\n"),
        "{said}"
    );
    assert_eq!(case.question(&id)["state"], "open");
    assert_eq!(case.says("deny", &id, "user:dana").code, 0);
    assert_eq!(running.wait().code, 3);
}

#[test]
fn a_notifier_gets_the_question_and_may_bring_the_answer_in() {
    let human = json!({"levels": [{"sessions": ["notify:chat"], "minRole": "operator", "timeoutMs": LONG_MS}]});
    let notifier = "[[agents]]\nsession = \"notify:*\"\ncommand = [\"sh\", \"notify.sh\"]\n";
    let case = Case::with(
        &plan(
            "notified",
            &human,
            &[("risky", "test \"$QM2_ATTEMPT\" -gt 1")],
        ),
        notifier,
    );
    // What a bridge to a chat does: shows the question, and answers in the name of who replied.
    case.directory.write(
        "notify.sh",
        "cat >\"$QM2_DATA/envelope\"\nid=${QM2_KEY#escalation:}; id=${id%%:*}\n\
         \"$QM2_BIN\" --data \"$QM2_DATA\" escalations approve \"$id\" --as user:dana --text 'said in the chat'\n",
    );
    let ended = case.begin().wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    let envelope: Value =
        serde_json::from_str(&case.directory.text("envelope")).expect("an envelope");
    assert_eq!(envelope["intent"], "escalate");
    assert!(envelope["question"]["text"].is_string(), "{envelope}");
    let view: Value = serde_json::from_str(&text(&envelope["payload"])).expect("a question");
    assert_eq!(view["escalationId"], case.asked());
    assert_eq!(view["kind"], "exhausted");
    let decided = &case.records("human.decided")[0]["data"];
    assert_eq!(decided["text"], "said in the chat");
}

#[test]
fn a_question_that_reaches_nobody_is_over_at_once() {
    // A notifier that fails.
    let human = json!({"levels": [{"sessions": ["notify:chat"], "minRole": "operator", "timeoutMs": LONG_MS}]});
    let notifier = "[[agents]]\nsession = \"notify:*\"\ncommand = [\"sh\", \"-c\", \"exit 1\"]\n";
    let failing = Case::with(&plan("down", &human, &[("risky", "exit 3")]), notifier);
    // Nobody of that name, and nobody of the role.
    let human = json!({"levels": [{"sessions": ["user:who"], "minRole": "operator", "timeoutMs": LONG_MS}]});
    let unknown = Case::new(&plan("unknown", &human, &[("risky", "exit 3")]));
    unknown.directory.write("qm2.toml", SHELL);
    for case in [failing, unknown] {
        let ended = case.begin().wait();
        assert_eq!(ended.code, 1, "{ended:?}");
        let expired = &case.records("human.expired")[0]["data"];
        assert_eq!(
            (&expired["reason"], &expired["fallback"]),
            (&json!("unreachable"), &json!("deny"))
        );
    }
    // The notifier fails, but another one of the level was shown the question.
    let human = json!({"levels": [{"sessions": ["notify:chat", "user:dana"], "minRole": "operator", "timeoutMs": LONG_MS}]});
    let steps = [("risky", "test \"$QM2_ATTEMPT\" -gt 1")];
    let notifier = "[[agents]]\nsession = \"notify:*\"\ncommand = [\"sh\", \"-c\", \"echo >$QM2_DATA/down; exit 1\"]\n";
    let case = Case::with(&plan("half", &human, &steps), notifier);
    let running = case.begin();
    let id = case.asked();
    until("the notifier failed", || {
        !case.directory.text("down").is_empty() && case.directory.processes().is_empty()
    });
    assert_eq!(case.says("approve", &id, "user:dana").code, 0);
    assert_eq!(running.wait().code, 0);
    assert_eq!(case.records("human.expired"), Vec::<Value>::new());
    // Nobody of that name, but somebody of the role: they can answer.
    let human = json!({"levels": [{"sessions": ["user:who"], "minRole": "operator", "timeoutMs": LONG_MS}]});
    let case = Case::new(&plan(
        "others",
        &human,
        &[("risky", "test \"$QM2_ATTEMPT\" -gt 1")],
    ));
    let running = case.begin();
    let id = case.asked();
    assert_eq!(case.says("approve", &id, "user:eve").code, 0);
    assert_eq!(running.wait().code, 0);
    assert_eq!(case.records("human.expired"), Vec::<Value>::new());
}

#[test]
fn check_warns_of_questions_that_nobody_could_answer() {
    let directory = Directory::new();
    let mut human = operator(1_000);
    human["requiredApprovals"] = json!(3);
    human["levels"][0]["sessions"] = json!(["user:dana", "user:who"]);
    let path = directory.write(
        "plan.json",
        &plan("warned", &human, &[("risky", "exit 3")]).to_string(),
    );
    let warnings = |agents: &str| {
        directory.write("qm2.toml", &format!("{SHELL}{agents}"));
        let checked = directory.run(&["--json", "check", &path]);
        assert_eq!(checked.code, 0, "{checked:?}");
        let warnings = checked.json()["warnings"]
            .as_array()
            .cloned()
            .expect("a list");
        let found = warnings
            .iter()
            .map(|one| (text(&one["field"]), text(&one["code"])));
        found.collect::<Vec<_>>()
    };
    let field = |name: &str| format!("failurePolicy.human.{name}");
    assert_eq!(
        warnings(PEOPLE),
        [
            (field("levels[0].sessions[1]"), "unknown-person".into()),
            // The agent counts here, because the file says that it is a person too; the owner does not.
        ]
    );
    let one = "[[people]]\nsession = \"user:dana\"\nrole = \"operator\"\n";
    assert_eq!(
        warnings(one),
        [
            (field("levels[0].sessions[1]"), "unknown-person".into()),
            (field("requiredApprovals"), "too-few-people".into()),
        ]
    );
    let owner = "[[people]]\nsession = \"user:test\"\nrole = \"owner\"\n";
    let codes: Vec<String> = warnings(owner).into_iter().map(|(_, code)| code).collect();
    assert_eq!(
        codes,
        ["nobody-to-answer", "unknown-person", "unknown-person"]
    );
    // Twice the same person is an error, for run too.
    directory.write("qm2.toml", &format!("{SHELL}{one}{one}"));
    for command in ["check", "run"] {
        let output = directory.run(&["--json", command, &path]);
        assert_eq!(output.code, 2, "{output:?}");
        for part in ["qm2.toml", "line 7", "user:dana is there twice"] {
            assert!(output.stdout.contains(part), "{part} in {output:?}");
        }
    }
}

#[test]
fn what_is_not_there_waits_for_nobody() {
    let directory = Directory::new();
    let listed = directory.run(&["--json", "escalations", "list"]);
    assert_eq!(
        (listed.code, listed.json()),
        (0, json!({"escalations": []}))
    );
    let people = directory.run(&["escalations", "list"]);
    assert!(
        people.stdout.contains("nothing waits for a person"),
        "{people:?}"
    );
    for arguments in [&["show", "e1"][..], &["deny", "e1", "--as", "user:dana"]] {
        let output = directory.run(&[&["--json", "escalations"], arguments].concat());
        assert_eq!(refused(&output), (2, "unknown-escalation".into()));
    }
    assert!(!directory.data().exists());
}

/// The question that a coordination has open.
async fn open_question(domain: &Domain, id: &str) -> Value {
    loop {
        let describe = Call::Describe { id: id.into() };
        if let Ok(Answer::Describe(text)) = domain.call(describe).await {
            let described: Value = serde_json::from_str(&text).expect("JSON");
            if let Some(one) = described["escalations"].get(0) {
                return one.clone();
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_the_process_asks_and_hears_what_was_answered() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let asks = move |task: Task| {
        let hears = hears.clone();
        async move {
            let answer = task.ask(1, "Which colour?").await.expect("a question");
            hears.lock().expect("no panic").push(answer.clone());
            Report::completed(answer.unwrap_or_default())
        }
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut config = Config::new("asks");
    config.phase1.enabled = true;
    let dana = Person {
        session: "user:dana".into(),
        role: Role::Operator,
    };
    let builder = Domain::builder(folder.path()).config(config);
    let builder = builder.agent("agent:shell:*", asks).people(vec![dana]);
    let domain = builder.open().await.expect("a domain");
    let actor = |role| Caller {
        session: "user:dana".into(),
        role: Some(role),
    };
    for (name, verdict, terminal) in [
        ("approved", HumanVerdict::Approve, "success"),
        ("denied", HumanVerdict::Deny, "failed"),
    ] {
        let plan = plan(name, &operator(LONG_MS), &[("asks", "")]).to_string();
        let running = {
            let domain = domain.clone();
            tokio::spawn(async move { domain.run(&plan).await })
        };
        let question = open_question(&domain, name).await;
        assert_eq!(question["question"], "Which colour?");
        let (id, digest) = (text(&question["escalationId"]), text(&question["digest"]));
        let low = domain.answer(actor(Role::User), &id, &digest, verdict, None);
        let low = low.await;
        assert!(matches!(low, Err(HostError::Rejected(_))), "{low:?}");
        let said = Some("blue".to_owned());
        let answer = domain.answer(actor(Role::Operator), &id, &digest, verdict, said);
        answer.await.expect("an answer that counts");
        let ended = running.await.expect("no panic").expect("an end");
        assert_eq!(ended.terminal, terminal);
    }
    let heard = heard.lock().expect("no panic").clone();
    assert_eq!(heard, [Some("blue".to_owned()), None]);
    domain.close().await;
}

#[test]
fn the_release_of_the_examples_waits_for_a_person() {
    let directory = Directory::new();
    let checked = directory.run(&["--json", "check", &crate::program::plan("release.json")]);
    assert_eq!(checked.json()["warnings"], json!([]), "{checked:?}");
    let running = directory.begin(&["--json", "run", &crate::program::plan("release.json")]);
    let open = || {
        let listed = directory.run(&["--json", "escalations", "list"]);
        text(&listed.json()["escalations"][0]["id"])
    };
    until("somebody is asked", || !open().is_empty());
    let arguments = ["--as", "user:dana", "--text", "go ahead"];
    let id = open();
    let said = directory.run(&[&["escalations", "approve", &id], &arguments[..]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    let ended = running.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    let status = directory.run(&["status", "release"]);
    assert!(status.stdout.contains("published: go ahead"), "{status:?}");
}

#[test]
fn a_notifier_that_hangs_is_ended_when_its_question_is_answered() {
    let human = json!({"levels": [{"sessions": ["notify:chat"], "minRole": "operator", "timeoutMs": LONG_MS}]});
    let notifier =
        "[[agents]]\nsession = \"notify:*\"\ncommand = [\"sh\", \"-c\", \"sleep 4711\"]\n";
    let holds = "until [ -e \"$QM2_DATA/go\" ]; do sleep 0.05; done";
    let steps = [("risky", "test \"$QM2_ATTEMPT\" -gt 1"), ("holds", holds)];
    let case = Case::with(&plan("hangs", &human, &steps), notifier);
    let running = case.begin();
    let id = case.asked();
    let notifies = || {
        let all = case.directory.processes();
        all.iter().any(|line| line.contains("sleep 4711"))
    };
    until("it is notified", notifies);
    assert_eq!(case.says("approve", &id, "user:dana").code, 0);
    until("the notifier is ended", || !notifies());
    assert_eq!(case.records("human.expired"), Vec::<Value>::new());
    case.go();
    assert_eq!(running.wait().code, 0);
}
