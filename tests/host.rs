//! The library: the feature gate, lanes, agents inside and outside the process, dead letters, and the deadline of a call.
//!
//! The rules are tested in `rules`, the program in `cli`, faults under a running domain in `runtime`.

use crate::program::{Directory, root};
use qm2_core::config::Config;
use qm2_core::digest::sha256_hex;
use qm2_core::envelope::{Envelope, Intent, Outcome, Priority};
use qm2_core::message::Caller;
use qm2_core::receipt::{CallError, RejectionCode};
use qm2_host::agent::{Report, Task};
use qm2_host::engine::{Answer, Call, Engine, Fault, Sandbox};
use qm2_host::lane::Entry;
use qm2_host::owner::cancel_envelope;
use qm2_host::{Domain, DomainBuilder, HostError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// Owner of all plans here.
const OWNER: &str = "user:test";
/// How long one wait of these tests may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

fn config(enabled: bool) -> Config {
    let mut config = Config::new("test");
    config.phase1.enabled = enabled;
    config
}

fn builder(directory: &Directory) -> DomainBuilder {
    Domain::builder(directory.data()).config(config(true))
}

/// A domain whose agents run the payload of their step as a shell script.
async fn shell(directory: &Directory) -> Domain {
    let command = ["sh", "-c", "exec sh -c \"$QM2_PAYLOAD\""].map(str::to_owned);
    let builder = builder(directory).command_agent("agent:*", command.to_vec(), root());
    builder.open().await.expect("the domain opens")
}

/// A plan of independent steps: id and payload. No step is retried.
fn plan(id: &str, steps: &[(&str, &str)]) -> String {
    let step = |(step_id, payload): &(&str, &str)| {
        json!({
            "stepId": step_id, "targetSession": format!("agent:{step_id}"), "payload": payload, "timeoutMs": 600_000,
        })
    };
    json!({
        "coordinationId": id, "objective": "A test.", "ownerSession": OWNER,
        "steps": steps.iter().map(step).collect::<Vec<_>>(),
    })
    .to_string()
}

fn caller(session: &str) -> Caller {
    Caller {
        session: session.to_owned(),
        role: None,
    }
}

/// The data of the last record of a type, by step.
fn data_of(directory: &Directory, type_name: &str) -> BTreeMap<String, Value> {
    let records = directory.records().into_iter();
    let of_type = records.filter(|record| record["type"] == type_name);
    of_type
        .map(|record| {
            let step_id = record["stepId"].as_str().unwrap_or_default().to_owned();
            (step_id, record["data"].clone())
        })
        .collect()
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, work).await;
    ended.expect("it ends within the patience of these tests")
}

#[tokio::test]
async fn gate_off_everything_but_reading_is_disabled_and_nothing_is_recorded() {
    let directory = Directory::new();
    // Off is the default of the library.
    let domain = Domain::builder(directory.data())
        .agent("*", async |_: Task| Report::completed("never"))
        .open()
        .await
        .expect("the domain opens");
    assert!(!domain.config().phase1.enabled);
    let lines = directory.lines();
    assert_eq!(lines.len(), 1, "only the genesis: {lines:?}");
    let text = plan("c", &[("a", "x")]);
    let cancel = cancel_envelope(&caller(OWNER), "c", None, None);
    let calls = [
        Call::SubmitPlan {
            caller: caller(OWNER),
            now_ms: 0,
            plan: text.clone(),
        },
        Call::Submit {
            caller: caller(OWNER),
            now_ms: 0,
            envelopes: vec![cancel],
        },
        Call::Acknowledge {
            caller: caller(OWNER),
            now_ms: 0,
            keys: vec!["report:1".into()],
        },
        // Timers rest.
        Call::NextDeadline,
    ];
    for call in calls {
        let name = call.name();
        let answer = domain.call(call).await;
        assert!(
            matches!(answer, Err(HostError::Call(CallError::Disabled))),
            "{name}: {answer:?}"
        );
    }
    let answer = soon(domain.run(&text)).await;
    assert!(
        matches!(answer, Err(HostError::Call(CallError::Disabled))),
        "{answer:?}"
    );
    for call in [
        Call::Head,
        Call::StateDigest,
        Call::Describe { id: String::new() },
        Call::Snapshot {
            cursor: None,
            max_bytes: 1_000,
        },
    ] {
        let name = call.name();
        let answer = domain.call(call).await;
        assert!(answer.is_ok(), "{name}: {answer:?}");
    }
    // What only the host itself may say is refused before the component sees it.
    let advance = domain.call(Call::Advance { now_ms: 0 }).await;
    assert!(
        matches!(advance, Err(HostError::HostOnly { .. })),
        "{advance:?}"
    );
    domain.close().await;
    assert_eq!(directory.lines(), lines);

    // On from here: the same plan runs.
    let mut config = Config::new("qm2");
    config.phase1.enabled = true;
    let domain = Domain::builder(directory.data())
        .config(config)
        .agent("*", async |_: Task| Report::completed("done"))
        .open()
        .await
        .expect("the domain opens");
    let ended = soon(domain.run(&text)).await.expect("the plan runs");
    assert_eq!(ended.terminal, "success");
    domain.close().await;
}

#[tokio::test]
async fn messages_without_an_envelope_take_the_same_way_with_the_gate_on_and_off() {
    let off = order_of_messages(false).await;
    assert_eq!(
        off,
        [
            "first",
            "critical",
            "high",
            "normal 1",
            "normal 2",
            "low",
            "other lane"
        ]
    );
    assert_eq!(order_of_messages(true).await, off);
}

/// In which order messages of a host run that come while its lane is taken.
async fn order_of_messages(enabled: bool) -> Vec<&'static str> {
    let directory = Directory::new();
    let domain = Domain::builder(directory.data()).config(config(enabled));
    let domain = domain.open().await.expect("the domain opens");
    let order = Arc::new(Mutex::new(Vec::new()));
    let says = |text: &'static str| {
        let order = order.clone();
        async move { order.lock().expect("nobody panics").push(text) }
    };
    let lanes = domain.lanes();
    let (open, gate) = oneshot::channel::<()>();
    let first = says("first");
    let first = Entry::of(async move {
        let _ = gate.await;
        first.await;
    });
    let mut queued = vec![lanes.enqueue("main", first)];
    for (priority, text) in [
        (Priority::Low, "low"),
        (Priority::Normal, "normal 1"),
        (Priority::High, "high"),
        (Priority::Normal, "normal 2"),
        (Priority::Critical, "critical"),
    ] {
        let entry = Entry::of(says(text)).session("agent:x").priority(priority);
        queued.push(lanes.enqueue("main", entry));
    }
    assert_eq!(lanes.len("main"), 6);
    open.send(()).expect("the first message waits for it");
    for message in queued {
        soon(message).await.expect("it runs");
    }
    soon(lanes.enqueue("other", Entry::of(says("other lane"))))
        .await
        .expect("it runs");
    assert_eq!(
        directory.lines().len(),
        1,
        "a message without an envelope was recorded"
    );
    domain.close().await;
    order.lock().expect("nobody panics").clone()
}

#[tokio::test]
async fn agents_in_the_process_report_progress_fail_panic_and_succeed() {
    let directory = Directory::new();
    let domain = builder(&directory)
        .agent("agent:progress", async |task: Task| {
            let receipt = task.progress(1, Some("half way".into())).await;
            Report::completed(format!("{} {}", task.key, receipt.is_ok()))
        })
        .agent("agent:fails", async |_| {
            Report::permanent("no-way", "never works")
        })
        .agent("agent:panics", async |_| panic!("an agent may panic"))
        .agent("agent:bad-code", async |_| {
            Report::permanent("not an id", "x".repeat(5_000))
        })
        .open()
        .await
        .expect("the domain opens");
    let steps = [
        ("progress", ""),
        ("fails", ""),
        ("panics", ""),
        ("bad-code", ""),
    ];
    let ended = soon(domain.run(&plan("c", &steps)))
        .await
        .expect("the plan runs");
    assert_eq!(
        (ended.terminal.as_str(), ended.counts.completed),
        ("partial", 1)
    );
    assert_eq!(ended.counts.failed, 3);
    domain.close().await;
    let progress = data_of(&directory, "step.progress");
    assert_eq!(progress["progress"]["payload"], "half way");
    assert_eq!(progress["progress"]["number"], 1);
    let completed = data_of(&directory, "step.completed");
    assert_eq!(completed["progress"]["payload"], "c:progress:1 true");
    let failed = data_of(&directory, "step.failed");
    let of = |step_id: &str| {
        let data = &failed[step_id];
        (
            data["class"].as_str().unwrap_or("-"),
            data["code"].as_str().unwrap_or("-"),
        )
    };
    assert_eq!(of("fails"), ("permanent", "no-way"));
    assert_eq!(of("panics").1, "panic");
    assert_eq!(of("bad-code"), ("permanent", "failed"));
    // Cut to its bound, not refused.
    let message = failed["bad-code"]["message"].as_str().unwrap_or_default();
    assert_eq!(message.len(), 1_024);
}

#[tokio::test]
async fn the_exit_code_of_a_command_says_whether_a_retry_can_help() {
    let directory = Directory::new();
    let domain = shell(&directory).await;
    let permanent = [64, 65, 77, 78, 126, 127];
    let retryable = [1, 2, 63, 66, 75, 125, 128, 255];
    let mut steps = vec![("signal".to_owned(), "kill -KILL $$".to_owned())];
    steps.push(("exit-0".to_owned(), "printf done".to_owned()));
    for code in permanent.into_iter().chain(retryable) {
        steps.push((
            format!("exit-{code}"),
            format!("echo why {code} >&2; exit {code}"),
        ));
    }
    let steps: Vec<(&str, &str)> = steps
        .iter()
        .map(|(id, script)| (&**id, &**script))
        .collect();
    let ended = soon(domain.run(&plan("c", &steps)))
        .await
        .expect("the plan runs");
    assert_eq!((ended.counts.completed, ended.counts.failed), (1, 15));
    domain.close().await;
    let completed = data_of(&directory, "step.completed");
    assert_eq!(completed["exit-0"]["payload"], "done");
    let failed = data_of(&directory, "step.failed");
    for (codes, class) in [(&permanent[..], "permanent"), (&retryable[..], "retryable")] {
        for code in codes {
            let data = &failed[&format!("exit-{code}")];
            assert_eq!(data["class"], class, "{code}: {data}");
            assert_eq!(data["code"], format!("exit-{code}"));
            assert_eq!(data["message"], format!("why {code}"));
        }
    }
    assert_eq!(failed["signal"]["class"], "retryable");
    assert_eq!(failed["signal"]["code"], "signal-9");
}

#[tokio::test]
async fn a_command_gets_its_envelope_on_stdin_and_its_members_as_variables() {
    let directory = Directory::new();
    let domain = shell(&directory).await;
    let script = "cat; echo \"$QM2_COORDINATION_ID|$QM2_STEP_ID|$QM2_ATTEMPT|$QM2_KEY|$QM2_SESSION|$QM2_DATA\"";
    soon(domain.run(&plan("c", &[("a", script)])))
        .await
        .expect("the plan runs");
    let data = domain.directory().display().to_string();
    domain.close().await;
    let completed = data_of(&directory, "step.completed");
    let text = completed["a"]["payload"]
        .as_str()
        .expect("a payload")
        .to_owned();
    let (envelope, variables) = text.split_once('\n').expect("two lines");
    let envelope: Envelope = serde_json::from_str(envelope).expect("an envelope");
    assert_eq!(envelope.intent, Intent::Execute);
    assert_eq!(envelope.payload.as_deref(), Some(script));
    assert_eq!(envelope.target_session, "agent:a");
    assert_eq!(variables, format!("c|a|1|c:a:1|agent:a|{data}\n"));
}

#[tokio::test]
async fn a_command_that_prints_a_report_has_said_how_it_ended() {
    let directory = Directory::new();
    let domain = shell(&directory).await;
    let steps = [
        (
            "completed",
            r#"echo '{"outcome":"completed","contentType":"text/markdown","payload":"good"}'"#,
        ),
        (
            "failed",
            r#"echo '{"outcome":{"failed":{"class":"permanent","code":"no-disk","message":"full"}}}'"#,
        ),
        (
            "unknown-member",
            r#"echo '{"outcome":"completed","payloud":"x"}'"#,
        ),
        (
            "progress",
            r#"echo '{"outcome":{"progress":{"number":1}}}'"#,
        ),
        // JSON, but no report.
        ("json", r#"echo '{"result":1}'"#),
        ("list", "echo '[1]'"),
    ];
    soon(domain.run(&plan("c", &steps)))
        .await
        .expect("the plan runs");
    domain.close().await;
    let completed = data_of(&directory, "step.completed");
    assert_eq!(completed["completed"]["payload"], "good");
    assert_eq!(completed["completed"]["contentType"], "text/markdown");
    assert_eq!(completed["json"]["payload"], "{\"result\":1}\n");
    assert_eq!(completed["list"]["payload"], "[1]\n");
    let failed = data_of(&directory, "step.failed");
    assert_eq!(failed["failed"]["class"], "permanent");
    assert_eq!(failed["failed"]["code"], "no-disk");
    for step_id in ["unknown-member", "progress"] {
        assert_eq!(failed[step_id]["code"], "bad-report", "{}", failed[step_id]);
        assert_eq!(failed[step_id]["class"], "permanent");
    }
}

#[tokio::test]
async fn a_result_past_the_bound_or_not_text_is_kept_beside_the_ledger_and_referred_to() {
    let directory = Directory::new();
    let domain = shell(&directory).await;
    let make = |bytes: usize| format!("head -c {bytes} /dev/zero | tr '\\0' a");
    let (at, past, large) = (make(65_536), make(65_537), make(1_000_000));
    let steps = [
        ("at", &*at),
        ("past", &*past),
        ("large", &*large),
        ("binary", "printf '\\377\\000x'"),
    ];
    let ended = soon(domain.run(&plan("c", &steps)))
        .await
        .expect("the plan runs");
    assert_eq!(ended.terminal, "success");
    domain.close().await;
    let completed = data_of(&directory, "step.completed");
    assert_eq!(
        completed["at"]["payload"].as_str().map(str::len),
        Some(65_536)
    );
    for (step_id, content) in [
        ("past", vec![b'a'; 65_537]),
        ("large", vec![b'a'; 1_000_000]),
        ("binary", vec![0xff, 0, b'x']),
    ] {
        let data = &completed[step_id];
        assert!(data["payload"].is_null(), "{step_id}");
        let reference = &data["payloadRef"];
        assert_eq!(reference["bytes"], content.len(), "{step_id}");
        let sha256 = sha256_hex(&[&content]);
        assert_eq!(reference["sha256"], sha256.as_str(), "{step_id}");
        let uri = reference["uri"].as_str().unwrap_or_default();
        let path = uri
            .strip_prefix("file:")
            .expect("a path in the data directory");
        let kept = std::fs::read(directory.data().join(path)).expect("the content is kept");
        assert_eq!(sha256_hex(&[&kept]), sha256, "{step_id}");
    }
}

#[tokio::test]
async fn a_report_for_a_closed_coordination_is_a_dead_letter_that_status_shows() {
    let directory = Directory::new();
    let domain = shell(&directory).await;
    soon(domain.run(&plan("c", &[("a", "printf done")])))
        .await
        .expect("the plan runs");
    let lines = directory.lines();
    let mut late = cancel_envelope(&caller("agent:a"), "c", Some("a"), None);
    late.intent = Intent::Report;
    late.attempt = Some(1);
    late.target_session = OWNER.to_owned();
    late.outcome = Some(Outcome::Completed);
    late.payload = Some("too late".to_owned());
    let call = Call::Submit {
        caller: caller("agent:a"),
        now_ms: 0,
        envelopes: vec![late],
    };
    // Twice is the same letter.
    for _ in 0..2 {
        let Ok(Answer::Submit(answers)) = domain.call(call.clone()).await else {
            panic!("the call is answered");
        };
        let rejection = answers[0].as_ref().expect_err("it is over");
        assert_eq!(rejection.code, RejectionCode::Closed);
    }
    // While the domain runs, and after it.
    for running in [true, false] {
        let status = directory.run(&["--json", "status"]);
        assert_eq!(status.code, 0, "{status:?}");
        let value = status.json();
        let letters = value["deadLetters"].as_array().expect("dead letters");
        assert_eq!(letters.len(), 1, "{value}");
        assert_eq!(letters[0]["envelope"]["payload"], "too late");
        assert_eq!(letters[0]["envelope"]["sourceSession"], "agent:a");
        assert!(letters[0]["reason"].is_string());
        let people = directory.run(&["status", "c"]);
        assert!(
            people
                .stdout
                .contains("dead letter: a report of c:a from agent:a"),
            "{people:?}"
        );
        if running {
            domain.close().await;
        }
    }
    assert_eq!(directory.lines(), lines);
}

#[test]
fn an_instance_is_ended_in_a_call_past_its_deadline_and_dead_after_it() {
    let sandbox = Sandbox {
        call_deadline: Duration::from_millis(1),
        ..Sandbox::default()
    };
    let engine = Engine::with(sandbox, None).expect("the component loads");
    // On a machine that stalls, making the instance may already take longer, and then the first call.
    let mut instances = (0..1_000).map(|_| engine.instance());
    let mut instance = instances.find_map(Result::ok).expect("an instance");
    let config = config(true).to_json();
    if instance.call(&Call::Configure { config }).is_ok() {
        let call = Call::SubmitPlan {
            caller: caller(OWNER),
            now_ms: 1,
            plan: heavy_chain("slow", 10_000),
        };
        instance.take_staged();
        assert_eq!(instance.call(&call), Err(Fault::Deadline));
    }
    assert_eq!(instance.call(&Call::Head), Err(Fault::Dead));
    assert!(instance.take_staged().is_empty());
}

/// A plan of so many steps, each of which waits for up to ten before it: the component has a lot to do with it.
fn heavy_chain(id: &str, steps: usize) -> String {
    let step = |number: usize| {
        let from = number.saturating_sub(10);
        let before: Vec<Value> = (from..number)
            .map(|other| json!({"stepId": format!("s{other}")}))
            .collect();
        json!({
            "stepId": format!("s{number}"), "targetSession": "agent:a", "timeoutMs": 1_000, "dependsOn": before,
        })
    };
    json!({
        "coordinationId": id, "objective": "Large.", "ownerSession": OWNER,
        "steps": (0..steps).map(step).collect::<Vec<_>>(),
    })
    .to_string()
}
