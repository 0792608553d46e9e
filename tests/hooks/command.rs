//! Commands of an agents file as handlers of hooks, with the real program.
//!
//! The order of handlers and what becomes of their verdicts is tested beside this file.

use super::{data, failure, verdict};
use crate::program::{Directory, Output, SHELL, is_alive, one_step, until};
use qm2_host::hook::Hook;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// An agents file with the shell agent and these hooks: kind, shell script, further members.
fn file(hooks: &[(&str, &str, &str)]) -> String {
    let mut text = SHELL.to_owned();
    for (kind, script, members) in hooks {
        let _ = write!(
            text,
            "[[hooks]]\nkind = \"{kind}\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n{members}\n"
        );
    }
    text
}

/// Runs a plan of one step, that prints `worked`, with an agents file.
fn run_file(directory: &Directory, hooks: &[(&str, &str, &str)]) -> Output {
    let plan = directory.write("plan.json", &one_step("c", "echo worked"));
    let agents = directory.write("agents.toml", &file(hooks));
    directory.run(&["--json", "run", &plan, "--agents", &agents])
}

fn names(directory: &Directory) -> Vec<String> {
    let records = directory.records();
    let names = records.iter().filter_map(|record| record["type"].as_str());
    names.map(str::to_owned).collect()
}

#[test]
fn command_gets_the_subject_on_stdin_and_its_silence_is_no_opinion() {
    let directory = Directory::new();
    let script =
        "cat > subject.json; echo \"$QM2_HOOK_KIND $QM2_HOOK_ID $QM2_HOOK_NAME\" > variables";
    let output = run_file(&directory, &[("before_dispatch", script, "name = 'check'")]);
    assert_eq!(output.code, 0, "{output:?}");
    let read = |name: &str| std::fs::read_to_string(directory.folder().join(name)).unwrap();
    let subject: Value = serde_json::from_str(&read("subject.json")).unwrap();
    assert_eq!(
        (&subject["coordinationId"], &subject["stepId"]),
        (&"c".into(), &"only".into())
    );
    assert_eq!(subject["payload"], "echo worked");
    let requested = data(&directory.records(), "hook.requested");
    let id = requested["hookId"].as_str().unwrap();
    assert_eq!(read("variables"), format!("before_dispatch {id} check\n"));
    let verdict = verdict(&directory.records());
    assert_eq!(
        verdict,
        ["check", "no_opinion", ""].map(str::to_owned).into()
    );
}

#[test]
fn command_that_denies_ends_the_step_with_its_name_in_the_ledger() {
    let directory = Directory::new();
    let deny = r#"echo '{"verdict": "deny", "reason": "frozen until Monday"}'"#;
    let output = run_file(&directory, &[("before_dispatch", deny, "name = 'freeze'")]);
    assert_eq!(output.code, 1, "{output:?}");
    let records = directory.records();
    let says = ["freeze", "deny", "frozen until Monday"].map(str::to_owned);
    assert_eq!(verdict(&records), says.into());
    let (code, message) = failure(&records);
    assert_eq!(code, "denied");
    assert!(message.contains("freeze"), "{message}");
    assert!(!names(&directory).contains(&"step.dispatched".into()));
}

#[test]
fn command_that_fails_or_babbles_or_is_not_there_denies() {
    for (script, reason) in [
        (
            "echo first >&2; echo no policy server >&2; exit 3",
            "no policy server (exit code 3)",
        ),
        ("echo yes", "printed something else than a verdict"),
        ("kill -9 $$", "signal 9"),
    ] {
        let directory = Directory::new();
        let output = run_file(&directory, &[("before_dispatch", script, "name = 'h'")]);
        assert_eq!(output.code, 1, "{output:?}");
        let (_, said, says) = verdict(&directory.records());
        assert_eq!(said, "deny");
        assert!(says.starts_with(reason), "{says}");
    }
    let directory = Directory::new();
    let plan = directory.write("plan.json", &one_step("c", "echo worked"));
    let missing = "[[hooks]]\nkind = \"before_dispatch\"\ncommand = [\"./not-there\"]\n";
    let agents = directory.write("agents.toml", &format!("{SHELL}{missing}"));
    let output = directory.run(&["--json", "run", &plan, "--agents", &agents]);
    assert_eq!(output.code, 1, "{output:?}");
    let (handler, said, says) = verdict(&directory.records());
    assert_eq!((&*handler, &*said), ("./not-there", "deny"));
    assert!(says.contains("could not be started"), "{says}");
}

#[test]
fn command_that_takes_too_long_is_ended_with_its_children_and_denies() {
    let directory = Directory::new();
    let script = "sleep 600 & setsid sleep 601 & sleep 602";
    let slow = ("before_dispatch", script, "name = 'slow'\ntimeoutMs = 500");
    let output = run_file(&directory, &[slow]);
    assert_eq!(output.code, 1, "{output:?}");
    let says = ["slow", "deny", "did not answer within 500 ms"].map(str::to_owned);
    assert_eq!(verdict(&directory.records()), says.into());
    assert_eq!(directory.processes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn children_of_a_command_that_takes_too_long_are_ended_before_its_verdict() {
    // In a domain that stays open, because closing one ends everything.
    let directory = Directory::new();
    let mark = format!("6{}", std::process::id());
    let script = format!(
        "sleep {mark}1 & setsid sleep {mark}2 & setsid env -i sleep {mark}3 & sleep {mark}4"
    );
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let hook = Hook::command("slow", command, directory.folder());
    let hook = hook.time_limit(Duration::from_millis(500));
    let domain = super::builder(&directory.data()).hook(super::BEFORE, hook);
    let domain = domain.open().await.expect("the domain opens");
    assert_eq!(super::run(&domain).await.terminal, "failed");
    let all = std::fs::read_dir("/proc")
        .expect("a Linux system")
        .flatten();
    let left: Vec<Vec<u8>> = all
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .filter(|line| line.starts_with(format!("sleep\0{mark}").as_bytes()))
        .collect();
    assert_eq!(left, [[0; 0]; 0]);
    let says = ["slow", "deny", "did not answer within 500 ms"].map(str::to_owned);
    assert_eq!(verdict(&super::records(&domain).await), says.into());
    domain.close().await;
}

#[test]
fn limit_above_that_of_the_domain_raises_it() {
    let directory = Directory::new();
    let slow = ("before_dispatch", "true", "timeoutMs = 60000");
    assert_eq!(run_file(&directory, &[slow]).code, 0);
    let records = directory.records();
    let due = data(&records, "hook.requested")["dueMs"].as_u64().unwrap();
    let asked = records
        .iter()
        .find(|record| record["type"] == "hook.requested");
    let at = asked.unwrap()["atMs"].as_u64().unwrap();
    assert_eq!(due - at, 61_000);
}

#[test]
fn review_of_a_command_becomes_a_question_to_people() {
    let directory = Directory::new();
    let mut with_people: Value = serde_json::from_str(&one_step("c", "echo worked")).unwrap();
    with_people["failurePolicy"] = json!({
        "escalationPolicy": "hitl",
        "human": {"levels": [{"sessions": ["user:dana"], "minRole": "operator", "timeoutMs": 600_000}]},
    });
    let plan = directory.write("plan.json", &with_people.to_string());
    let review = r#"echo '{"verdict": "review"}'"#;
    let people = "[[people]]\nsession = \"user:dana\"\nrole = \"operator\"\n";
    let text = file(&[("before_dispatch", review, "name = 'careful'")]) + people;
    let agents = directory.write("agents.toml", &text);
    let running = directory.begin(&["--json", "run", &plan, "--agents", &agents]);
    let asked = || names(&directory).contains(&"human.requested".into());
    until("a person is asked", asked);
    let escalated = data(&directory.records(), "coordination.escalated");
    assert_eq!(escalated["kind"], "review");
    let question = escalated["question"].as_str().unwrap();
    assert!(question.contains("careful"), "{question}");
    let id = escalated["escalationId"].as_str().unwrap();
    let answer = directory.run(&["escalations", "approve", id, "--as", "user:dana"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let output = running.wait();
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(verdict(&directory.records()).1, "review");
    // Once an attempt: it is not asked again after the approval.
    let asked = names(&directory);
    assert_eq!(
        asked
            .iter()
            .filter(|name| *name == "hook.requested")
            .count(),
        1
    );
}

#[test]
fn commands_are_told_of_ends_before_the_run_is_over() {
    let directory = Directory::new();
    let told = "sleep 0.2; cat >> told; echo >> told";
    let output = run_file(
        &directory,
        &[
            ("step_ended", told, ""),
            ("coordination_ended", told, ""),
            ("step_ended", "exit 1", ""),
        ],
    );
    assert_eq!(output.code, 0, "{output:?}");
    let text = std::fs::read_to_string(directory.folder().join("told")).unwrap();
    let told: Vec<Value> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 2, "{text}");
    assert!(
        told.iter().all(|subject| subject["coordinationId"] == "c"),
        "{text}"
    );
    assert!(
        told.iter().any(|subject| subject["stepId"] == "only"),
        "{text}"
    );
    // A hook that is told is no record.
    assert!(
        !names(&directory)
            .iter()
            .any(|name| name.starts_with("hook."))
    );
}

#[test]
fn hooks_that_left_the_agents_file_are_not_asked_any_more() {
    let directory = Directory::new();
    let output = run_file(&directory, &[("before_dispatch", "true", "")]);
    assert_eq!(output.code, 0, "{output:?}");
    let plan = directory.write("plan.json", &one_step("d", "echo worked"));
    let agents = directory.write("agents.toml", &file(&[]));
    let output = directory.run(&["--json", "run", &plan, "--agents", &agents]);
    assert_eq!(output.code, 0, "{output:?}");
    // Only the first run has asked.
    let requested: Vec<Value> = directory
        .records()
        .into_iter()
        .filter(|record| record["type"] == "hook.requested")
        .collect();
    assert_eq!(requested.len(), 1);
    assert_eq!(requested[0]["coordinationId"], "c");
}

#[test]
fn killed_host_asks_again_under_the_same_id_and_ends_the_handler_that_outlived_it() {
    let directory = Directory::new();
    // Notes that it runs, then waits for a word.
    let script = "echo \"$$ $QM2_HOOK_ID\" >> started; until [ -e go ]; do sleep 0.05; done";
    let hook = (
        "before_dispatch",
        script,
        "name = 'slow'\ntimeoutMs = 500000",
    );
    let plan = directory.write("plan.json", &one_step("c", "echo worked"));
    let agents = directory.write("agents.toml", &file(&[hook]));
    let started = || -> Vec<(u32, String)> {
        let text = std::fs::read_to_string(directory.folder().join("started"));
        let text = text.unwrap_or_default();
        let of = |line: &str| {
            let (pid, id) = line.split_once(' ')?;
            Some((pid.parse().ok()?, id.to_owned()))
        };
        text.lines().filter_map(of).collect()
    };
    let arguments = ["--json", "run", &plan, "--agents", &agents];
    let running = directory.begin(&arguments);
    until("the handler runs", || started().len() == 1);
    running.signal(rustix::process::Signal::KILL);
    running.wait();
    let running = directory.begin(&arguments);
    until("the handler runs again", || started().len() == 2);
    let alive: Vec<bool> = started().iter().map(|(pid, _)| is_alive(*pid)).collect();
    assert_eq!(alive, [false, true]);
    directory.write("go", "");
    let output = running.wait();
    assert_eq!(output.code, 0, "{output:?}");
    let records = directory.records();
    let id = data(&records, "hook.requested")["hookId"].clone();
    assert!(started().iter().all(|(_, asked)| id == asked.as_str()));
    let verdict = verdict(&records);
    assert_eq!(
        verdict,
        ["slow", "no_opinion", ""].map(str::to_owned).into()
    );
}

#[test]
fn interrupted_run_leaves_the_request_open_and_its_handler_ended() {
    let directory = Directory::new();
    let script = "echo >> started; until [ -e go ]; do sleep 0.05; done";
    let hook = ("before_dispatch", script, "timeoutMs = 500000");
    let plan = directory.write("plan.json", &one_step("c", "echo worked"));
    let agents = directory.write("agents.toml", &file(&[hook]));
    let arguments = ["--json", "run", &plan, "--agents", &agents];
    let running = directory.begin(&arguments);
    let started = directory.folder().join("started");
    until("the handler runs", || started.exists());
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait().code, 130);
    assert_eq!(directory.processes(), [""; 0]);
    assert!(!names(&directory).contains(&"hook.verdict".into()));
    directory.write("go", "");
    let output = directory.run(&arguments);
    assert_eq!(output.code, 0, "{output:?}");
    data(&directory.records(), "hook.requested");
}

#[test]
fn wrong_hooks_of_an_agents_file_are_said_with_their_line() {
    let directory = Directory::new();
    let plan = directory.write("plan.json", &one_step("c", "true"));
    for (hook, part) in [
        ("kind = \"before_lunch\"\ncommand = [\"x\"]", "before_lunch"),
        (
            "kind = \"step_ended\"\ncommand = []",
            "its command is empty",
        ),
        (
            "kind = \"step_ended\"\ncommand = [\"x\"]\ntimeoutMs = 0",
            "0 ms; 1 to 600000",
        ),
        (
            "kind = \"step_ended\"\ncommand = [\"x\"]\ntimeout = 5",
            "timeout",
        ),
    ] {
        let agents = directory.write("agents.toml", &format!("{SHELL}[[hooks]]\n{hook}\n"));
        for command in ["run", "check"] {
            let output = directory.run(&[command, &plan, "--agents", &agents]);
            assert_eq!(output.code, 2, "{output:?}");
            let says = output.stdout.clone() + &output.stderr;
            assert!(says.contains(part) && says.contains("line "), "{says}");
            assert!(says.contains("agents.toml"), "{says}");
        }
    }
}
