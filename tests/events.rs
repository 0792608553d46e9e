//! Following the ledger with the real program: no gap, no repeat, whoever is killed, and nobody is slowed.
//!
//! Rows of the event stream itself are in `primitives/events.rs`.

use crate::program::Directory;
use crate::support::random::Random;
use crate::support::{engine, plan, step};
use qm2_core::config::Config;
use qm2_host::agent::{Report, Task};
use qm2_host::event_stream::{COORDINATION, Emitted, EventStream};
use qm2_host::{Domain, DomainBuilder};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn builder(directory: &Path) -> DomainBuilder {
    let mut config = Config::new("events");
    config.phase1.enabled = true;
    Domain::builder(directory)
        .config(config)
        .engine(engine().clone())
        .agent("agent:*", async |task: Task| {
            Report::completed(task.payload())
        })
}

/// Runs plans until somebody says stop.
async fn busy(domain: Domain, stop: Arc<std::sync::atomic::AtomicBool>) {
    let mut number = 0;
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        number += 1;
        let steps = [step("a"), step("b"), step("c").after("a").after("b")];
        let plan = plan(steps).set("coordinationId", format!("p{number}"));
        domain.run(&plan.text()).await.expect("it runs");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn follow(data: &Path, from: u64, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_qm2"))
        .args(["--data".as_ref(), data.as_os_str()])
        .args(["events", "--follow", "--from", &from.to_string()])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("qm2 starts")
}

fn seq(line: &str) -> u64 {
    let record: Value = serde_json::from_str(line).expect("a record");
    record["seq"].as_u64().expect("a number")
}

async fn all(domain: &Domain) -> Vec<String> {
    let read = domain.with_store(|store| store.lines(0, usize::MAX >> 1));
    read.await.expect("it is read")
}

/// A follower that is killed 200 times, each time after some number of records, and comes back after the last that it had.
#[test]
fn follower_that_is_killed_and_comes_back_sees_every_record_once_and_in_order() {
    let directory = Directory::new();
    let data = directory.data();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let domain = runtime.block_on(builder(&data).open()).expect("it opens");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let work = runtime.spawn(busy(domain.clone(), stop.clone()));
    let (mut seen, mut random, mut cut) = (Vec::<String>::new(), Random::new(7), 0);
    for _ in 0..200 {
        let mut follower = follow(&data, seen.len() as u64 + 1, &["--json"]);
        let mut lines = BufReader::new(follower.stdout.take().expect("it is piped"));
        let wanted = random.below(40);
        for _ in 0..wanted {
            let mut line = String::new();
            lines.read_line(&mut line).expect("UTF-8");
            seen.push(line.trim_end().to_owned());
        }
        follower.kill().expect("it is killed");
        follower.wait().expect("it ends");
        // What it had written before it died; a line that was cut off is none.
        for line in lines.split(b'\n') {
            let line = String::from_utf8(line.expect("it is read")).expect("UTF-8");
            match line.ends_with('}') {
                true => seen.push(line),
                false => cut += 1,
            }
        }
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    runtime.block_on(work).expect("no panic");
    let last = follow_to_end(&data, seen.len() as u64 + 1);
    seen.extend(last);
    let written = runtime.block_on(all(&domain));
    assert_eq!(seen.len(), written.len());
    assert!(seen == written, "the same bytes in the same order");
    println!("{} records, {cut} lines cut off", seen.len());
    runtime.block_on(domain.close());
}

/// The rest, without `--follow`.
fn follow_to_end(data: &Path, from: u64) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_qm2"))
        .args(["--data".as_ref(), data.as_os_str()])
        .args(["events", "--json", "--from", &from.to_string()])
        .output()
        .expect("qm2 runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

/// A pipe that nobody reads holds its follower, and nobody else.
#[test]
fn follower_that_nobody_reads_does_not_slow_the_writer() {
    let directory = Directory::new();
    let data = directory.data();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let domain = runtime.block_on(builder(&data).open()).expect("it opens");
    let mut stuck = follow(&data, 1, &["--json"]);
    // More than any pipe holds.
    let big = "x".repeat(60_000);
    for number in 0..40 {
        let plan = plan([step("a").set("payload", big.as_str())])
            .set("coordinationId", format!("p{number}"));
        let ended = runtime.block_on(domain.run(&plan.text()));
        assert_eq!(ended.expect("it runs").terminal, "success");
    }
    let written = runtime.block_on(all(&domain));
    runtime.block_on(domain.close());
    // It was there all the time, and has everything when somebody reads at last.
    let lines = BufReader::new(stuck.stdout.take().expect("it is piped")).lines();
    let seen: Vec<String> = lines
        .map(|line| line.expect("UTF-8"))
        .take(written.len())
        .collect();
    stuck.kill().expect("it is killed");
    stuck.wait().expect("it ends");
    assert!(seen == written);
}

#[test]
fn events_of_one_coordination_as_cloud_events_and_for_people() {
    let directory = Directory::new();
    let data = directory.data();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let domain = runtime.block_on(builder(&data).open()).expect("it opens");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for id in ["one", "two"] {
        let plan = plan([step("a")])
            .set("coordinationId", id)
            .set("trace", serde_json::json!({"traceparent": parent}));
        runtime.block_on(domain.run(&plan.text())).expect("it runs");
    }
    let written = runtime.block_on(all(&domain));
    runtime.block_on(domain.close());
    let events = directory.run(&["events", "--cloudevents"]);
    assert_eq!(events.code, 0, "{events:?}");
    let lines: Vec<&str> = events.stdout.lines().collect();
    assert_eq!(lines.len(), written.len());
    for (event, line) in lines.iter().zip(&written) {
        let event: Value = serde_json::from_str(event).expect("JSON");
        let record: Value = serde_json::from_str(line).expect("JSON");
        let seq = record["seq"].as_u64().expect("a number");
        let id = record["coordinationId"].as_str();
        let due = serde_json::json!({
            "specversion": "1.0",
            "id": format!("coordination/{seq}"),
            "source": id.map_or("/qm2".into(), |id| format!("/qm2/runs/{id}")),
            "type": format!("dev.qm2.{}.v1", record["type"].as_str().expect("a type")),
            "datacontenttype": "application/json",
            "sequence": format!("{seq:020}"),
            "hash": record["hash"],
            "data": record["data"],
        });
        for (member, value) in due.as_object().expect("members") {
            assert_eq!(event[member], *value, "{member} of {event}");
        }
        // Names of CloudEvents: lower-case letters and digits.
        let names = event.as_object().expect("members").keys();
        let strange: Vec<&String> = names
            .filter(|name| {
                !name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            })
            .collect();
        assert_eq!(strange, [""; 0]);
        if record["type"] == "step.dispatched" {
            assert_eq!(event["subject"], "agent:a");
            assert_eq!(
                (&event["stepid"], &event["attempt"]),
                (&"a".into(), &1.into())
            );
            assert_eq!(event["traceparent"], parent);
            assert_eq!(event["runid"], record["coordinationId"]);
            assert_eq!(event["time"].as_str().map(str::len), Some(24));
        }
    }
    let one = directory.run(&["events", "one", "--json"]);
    let due: Vec<&String> = written
        .iter()
        .filter(|line| line.contains(r#""coordinationId":"one""#))
        .collect();
    assert_eq!(one.stdout.lines().collect::<Vec<_>>(), due);
    let people = directory.run(&["events", "--from", "3"]);
    assert_eq!(people.stdout.lines().count(), written.len() - 2);
    assert!(people.stdout.contains("step.completed"), "{people:?}");
    // Behind the end there is nothing, and that is no error.
    let behind = directory.run(&["events", "--from", "100000"]);
    assert_eq!((behind.code, behind.stdout.as_str()), (0, ""));
}

#[test]
fn follower_waits_for_a_ledger_and_says_what_is_broken() {
    let directory = Directory::new();
    let data = directory.data();
    let missing = directory.run(&["events"]);
    assert_eq!(missing.code, 6, "{missing:?}");
    let mut early = follow(&data, 2, &["--json"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let domain = runtime.block_on(builder(&data).open()).expect("it opens");
    let plan = plan([step("a")]).text();
    runtime.block_on(domain.run(&plan)).expect("it runs");
    let mut line = String::new();
    BufReader::new(early.stdout.take().expect("it is piped"))
        .read_line(&mut line)
        .expect("UTF-8");
    assert_eq!(seq(&line), 2);
    early.kill().expect("it is killed");
    early.wait().expect("it ends");
    runtime.block_on(domain.close());
    let store = rusqlite::Connection::open(data.join("ledger.db")).expect("a store");
    let sql = "UPDATE ledger SET line = replace(line, 'agent:a', 'agent:b') WHERE seq = 3";
    assert_eq!(store.execute(sql, []).expect("SQL"), 1);
    drop(store);
    let broken = directory.run(&["events", "--json"]);
    assert_eq!(broken.code, 5, "{broken:?}");
    assert!(
        broken.stderr.is_empty() && broken.stdout.contains("record 3"),
        "{broken:?}"
    );
    // What comes after it can still be followed.
    assert_eq!(directory.run(&["events", "--from", "4"]).code, 0);
}

#[test]
fn domain_tells_an_event_stream_of_every_record() {
    let directory = Directory::new();
    let stream = EventStream::default();
    let heard = Arc::new(Mutex::new(Vec::<Emitted>::new()));
    let listening = heard.clone();
    stream.listen(Arc::new(move |event| {
        listening.lock().expect("no panic").push(event.clone());
    }));
    // One that always fails, and is slow, is its own trouble.
    stream.listen(Arc::new(|_| {
        std::thread::sleep(Duration::from_millis(1));
        panic!("listeners may panic")
    }));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let opening = builder(&directory.data()).event_stream(stream).open();
    let domain = runtime.block_on(opening).expect("it opens");
    let plan = plan([step("a"), step("b").after("a")]).text();
    runtime.block_on(domain.run(&plan)).expect("it runs");
    let written = runtime.block_on(all(&domain));
    while heard.lock().expect("no panic").len() < written.len() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let heard = heard.lock().expect("no panic");
    let mut numbers = std::collections::HashMap::new();
    for (event, line) in heard.iter().zip(&written) {
        let record: Value = serde_json::from_str(line).expect("a record");
        assert_eq!(
            (event.stream.as_str(), &event.data),
            (COORDINATION, &record)
        );
        assert_eq!(
            event.run_id,
            record["coordinationId"].as_str().unwrap_or_default()
        );
        let number = numbers.entry(event.run_id.clone()).or_insert(0);
        *number += 1;
        assert_eq!(event.seq, *number);
    }
    runtime.block_on(domain.close());
}
