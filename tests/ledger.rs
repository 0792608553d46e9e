//! The ledger on disk against somebody who changes it: what `qm2 ledger` finds, and which record it names.
//!
//! That the core writes the right records is tested in `rules`.

use crate::program::{Directory, plan, root};
use crate::support::{forge, reseal};
use qm2_core::config::Config;
use qm2_core::ledger::Chain;
use qm2_host::Domain;
use qm2_host::agent::{Report, Task};
use qm2_host::agents_file::Lanes;
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::Store;
use rusqlite::params;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// A ledger of some plans, with text of more than one byte a character and the character that stands for broken text.
fn ledger() -> Directory {
    let directory = Directory::new();
    directory.write("qm2.toml", crate::program::SHELL);
    let odd = json!({
        "coordinationId": "odd-text",
        "objective": "Ünïcode, \u{fffd} and \u{7f}\t\"quoted\".",
        "ownerSession": "user:test",
        "steps": [{
            "stepId": "say", "targetSession": "agent:shell:say", "timeoutMs": 60_000,
            "payload": "printf 'caf\u{e9} \u{fffd}\u{fffd} \\177 \\001 \u{1f980}'",
        }],
    });
    let odd = directory.write("odd.json", &odd.to_string());
    for (plan, code) in [(plan("ends-failed.json"), 1), (odd, 0)] {
        let output = directory.run(&["--json", "run", &plan]);
        assert_eq!(output.code, code, "{output:?}");
    }
    directory
}

/// Replaces the whole ledger.
fn replace(directory: &Directory, lines: &[String]) {
    let mut sql = directory.sql();
    let sql = sql.transaction().expect("SQL");
    for (seq, line) in (1..).zip(lines) {
        let changed = sql.execute(
            "UPDATE ledger SET line = ?2 WHERE seq = ?1",
            params![row(seq), line],
        );
        assert_eq!(changed.expect("SQL"), 1);
    }
    sql.commit().expect("SQL");
}

/// A record's number as SQLite has it.
fn row(seq: usize) -> i64 {
    i64::try_from(seq).expect("a small number")
}

fn execute(directory: &Directory, sql: &str) {
    directory.sql().execute_batch(sql).expect("SQL");
}

/// Asserts that `ledger verify` names this record as the first bad one.
fn broken_at(directory: &Directory, seq: usize, what: &str) -> Value {
    let output = directory.run(&["--json", "ledger", "verify"]);
    assert_eq!(output.code, 5, "{what}: {output:?}");
    let value = output.json();
    assert_eq!(value["ok"], false, "{what}: {value}");
    assert_eq!(value["firstBadSeq"], seq, "{what}: {value}");
    assert!(value["reason"].is_string(), "{what}: {value}");
    value
}

#[test]
fn an_untouched_ledger_holds_and_its_head_is_known() {
    let directory = ledger();
    let output = directory.run(&["--json", "ledger", "verify"]);
    assert_eq!(output.code, 0, "{output:?}");
    let value = output.json();
    let records = directory.records();
    assert_eq!(value["ok"], true);
    assert_eq!(value["records"], records.len());
    assert_eq!(value["headSeq"], records.len());
    assert_eq!(value["headHash"], records[records.len() - 1]["hash"]);
    assert_eq!(value["stateDigest"].as_str().map(str::len), Some(64));
    // Of the head, and of every record before it: the ledger grows after somebody noted its head.
    for record in &records {
        let hash = record["hash"].as_str().expect("a hash");
        let output = directory.run(&["ledger", "verify", "--head", &hash.to_uppercase()]);
        assert_eq!(output.code, 0, "{output:?}");
    }
    let output = directory.run(&["ledger", "verify", "--head", "abc"]);
    assert_eq!(output.code, 2, "{output:?}");
}

#[test]
fn the_chain_is_confirmed_without_qm2_by_jq_and_sha256sum() {
    let directory = ledger();
    let export = directory.run(&["ledger", "export"]);
    assert_eq!(export.code, 0, "{export:?}");
    assert_eq!(export.stdout.lines().collect::<Vec<_>>(), directory.lines());
    let says = script(&export.stdout);
    let records = directory.records();
    let head = records[records.len() - 1]["hash"].as_str().expect("a hash");
    assert_eq!(says, Ok(format!("ok {} records {head}\n", records.len())));
    // And it does look: a word of a record in the middle, changed.
    let changed = export
        .stdout
        .replacen("\"step.failed\"", "\"step.fooled\"", 1);
    let failed = records
        .iter()
        .find(|record| record["type"] == "step.failed");
    let seq = &failed.expect("a step failed")["seq"];
    let says = script(&changed).expect_err("a changed ledger");
    assert!(says.starts_with(&format!("bad record {seq}: ")), "{says}");
}

/// Runs `verify-chain.sh`.
fn script(lines: &str) -> Result<String, String> {
    let mut command = Command::new("sh");
    command
        .arg(root().join("tests/verify-chain.sh"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("sh runs");
    let mut stdin = child.stdin.take().expect("its stdin");
    stdin.write_all(lines.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("sh runs");
    let says = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(says)
    } else {
        Err(says)
    }
}

/// Bytes that could stand in place of this one: other bits, and beginnings of other characters.
fn others(byte: u8) -> impl Iterator<Item = u8> {
    let others = [
        byte ^ 0x01,
        byte ^ 0x20,
        byte ^ 0x80,
        0xf0,
        0xff,
        0x00,
        b' ',
    ];
    others.into_iter().filter(move |other| *other != byte)
}

#[test]
fn any_changed_byte_of_any_line_is_found_at_its_record() {
    let directory = ledger();
    let lines = directory.lines();
    let sql = directory.sql();
    sql.execute_batch("PRAGMA synchronous = OFF").expect("SQL");
    let mut put = sql
        .prepare("UPDATE ledger SET line = CAST(?2 AS TEXT) WHERE seq = ?1")
        .expect("SQL");
    let store = SqliteStore::open_read_only(&directory.data()).expect("the store");
    let mut chain = Chain::default();
    let mut changes = 0;
    for (seq, line) in (1..).zip(&lines) {
        // As bytes, because most changes make it something that is no text any more.
        let mut bytes = line.clone().into_bytes();
        for at in 0..bytes.len() {
            // All of them around text beyond ASCII, one elsewhere; another one at each place.
            let window = &line.as_bytes()[at.saturating_sub(4)..(at + 4).min(bytes.len())];
            let count = if window.is_ascii() { 1 } else { 7 };
            let byte = bytes[at];
            let skip = if count == 1 { at % 3 } else { 0 };
            for other in others(byte).skip(skip).take(count) {
                bytes[at] = other;
                put.execute(params![row(seq), bytes]).expect("SQL");
                let read = store
                    .line(seq as u64)
                    .expect("the store reads")
                    .expect("a line");
                let found = chain.clone().push(&read).map_err(|fault| fault.seq);
                assert_eq!(found, Err(seq as u64), "byte {at} of {line} as {other:#x}");
                changes += 1;
            }
            bytes[at] = byte;
        }
        put.execute(params![row(seq), bytes]).expect("SQL");
        chain.push(line).expect("the line as it was");
    }
    assert!(changes > 5_000, "only {changes} changes were tried");
}

#[test]
fn verify_names_the_record_of_a_changed_byte() {
    let directory = ledger();
    let lines = directory.lines();
    let mut draw = 0x5eed_u64;
    for (seq, line) in (1..).zip(&lines) {
        // Somewhere in the line, another place for each; a linear congruence is random enough for that.
        draw = draw
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (draw >> 33) as usize % line.len();
        let mut bytes = line.clone().into_bytes();
        bytes[at] = others(bytes[at]).nth(seq % 3).expect("another byte");
        let put = "UPDATE ledger SET line = CAST(?2 AS TEXT) WHERE seq = ?1";
        directory
            .sql()
            .execute(put, params![row(seq), bytes])
            .expect("SQL");
        broken_at(&directory, seq, &format!("byte {at} of {line}"));
        directory
            .sql()
            .execute(put, params![row(seq), line])
            .expect("SQL");
    }
    assert_eq!(directory.run(&["ledger", "verify"]).code, 0);
}

#[test]
fn text_that_is_broken_is_not_read_as_the_character_that_stands_for_it() {
    let directory = ledger();
    let lines = directory.lines();
    let seq = 1 + lines
        .iter()
        .position(|line| line.contains('\u{fffd}'))
        .expect("such a line");
    // The first three bytes of a character of four are shown as one U+FFFD, which is three bytes too.
    let mut bytes = lines[seq - 1].clone().into_bytes();
    let at = lines[seq - 1].find('\u{fffd}').expect("it");
    bytes[at] = 0xf0;
    let put = "UPDATE ledger SET line = CAST(?2 AS TEXT) WHERE seq = ?1";
    directory
        .sql()
        .execute(put, params![row(seq), bytes])
        .expect("SQL");
    broken_at(&directory, seq, "a broken character");
}

#[test]
fn a_tail_that_was_cut_off_is_found_by_the_head() {
    let directory = ledger();
    let records = directory.records();
    let head = records[records.len() - 1]["hash"].as_str().expect("a hash");
    for last in [records.len() - 1, records.len() - 5, 1] {
        execute(
            &directory,
            &format!("DELETE FROM ledger WHERE seq > {last}"),
        );
        assert_eq!(directory.run(&["ledger", "verify"]).code, 0);
        let output = directory.run(&["--json", "ledger", "verify", "--head", head]);
        assert_eq!(output.code, 5, "{output:?}");
        assert_eq!(output.json()["firstBadSeq"], last + 1, "{output:?}");
    }
}

#[test]
fn rows_that_were_deleted_moved_or_added_are_found() {
    let directory = ledger();
    let lines = directory.lines();
    let last = lines.len();
    let middle = last / 2;
    for (first_bad, change) in [
        (1, "DELETE FROM ledger WHERE seq = 1".to_owned()),
        (middle, format!("DELETE FROM ledger WHERE seq = {middle}")),
        (
            middle,
            format!("UPDATE ledger SET seq = -{middle} WHERE seq = {middle}"),
        ),
        (
            middle,
            format!("UPDATE ledger SET seq = {last} + 1 WHERE seq = {middle}"),
        ),
        (
            last,
            format!("UPDATE ledger SET seq = {last} + 1 WHERE seq = {last}"),
        ),
        (
            last,
            format!("UPDATE ledger SET seq = {last} + 1000 WHERE seq = {last}"),
        ),
        (
            last,
            format!("UPDATE ledger SET seq = 9223372036854775807 WHERE seq = {last}"),
        ),
        (
            last,
            format!("UPDATE ledger SET seq = 0 WHERE seq = {last}"),
        ),
        (
            last,
            format!("UPDATE ledger SET seq = -7 WHERE seq = {last}"),
        ),
        (
            last + 1,
            format!(
                "INSERT INTO ledger SELECT {last} + 1, coordination_id, line FROM ledger WHERE seq = {last}"
            ),
        ),
        (
            middle,
            format!(
                "UPDATE ledger SET line = CASE seq
                   WHEN {middle} THEN (SELECT line FROM ledger WHERE seq = {middle} + 1)
                   ELSE (SELECT line FROM ledger WHERE seq = {middle}) END
                 WHERE seq IN ({middle}, {middle} + 1)"
            ),
        ),
        // What stands beside a line decides what is read of a coordination.
        (
            middle,
            format!("UPDATE ledger SET coordination_id = 'x' WHERE seq = {middle}"),
        ),
        (
            middle,
            format!("UPDATE ledger SET coordination_id = NULL WHERE seq = {middle}"),
        ),
        (
            middle,
            format!("UPDATE ledger SET line = x'00' WHERE seq = {middle}"),
        ),
        (
            middle,
            format!("UPDATE ledger SET line = 17 WHERE seq = {middle}"),
        ),
        (
            middle,
            format!("UPDATE ledger SET line = '' WHERE seq = {middle}"),
        ),
        (
            middle,
            format!("UPDATE ledger SET line = line || ' ' WHERE seq = {middle}"),
        ),
    ] {
        execute(&directory, "CREATE TABLE kept AS SELECT * FROM ledger");
        execute(&directory, &change);
        broken_at(&directory, first_bad, &change);
        // Nothing that reads falls over, and what is there is shown once.
        for command in ["show", "export"] {
            let output = directory.run(&["ledger", command]);
            assert_eq!(output.code, 0, "{command} after {change}: {output:?}");
        }
        execute(
            &directory,
            "DELETE FROM ledger; INSERT INTO ledger SELECT * FROM kept; DROP TABLE kept",
        );
    }
    assert_eq!(directory.run(&["ledger", "verify"]).code, 0);
    assert_eq!(directory.lines(), lines);
}

#[test]
fn a_broken_ledger_is_not_gone_on_with() {
    let directory = ledger();
    let seq = directory.lines().len() - 3;
    let sql = format!("UPDATE ledger SET line = replace(line, 'step', 'stop') WHERE seq = {seq}");
    execute(&directory, &sql);
    execute(
        &directory,
        &format!("UPDATE ledger SET line = replace(line, '\"v\":1', '\"v\":2') WHERE seq = {seq}"),
    );
    let lines = directory.lines();
    let plan = plan("ends-failed.json");
    for arguments in [&["status"][..], &["run", &plan], &["status", "odd-text"]] {
        let output = directory.run(&[&["--json"], arguments].concat());
        assert_eq!(output.code, 5, "{arguments:?}: {output:?}");
        let value = output.json();
        assert_eq!(value["error"]["code"], "ledger-broken");
        let message = value["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("record {seq}")), "{message}");
    }
    assert_eq!(directory.lines(), lines);
}

#[test]
fn lines_that_the_rules_do_not_allow_are_found_although_their_hashes_are_right() {
    let directory = ledger();
    let lines = directory.lines();
    let of_type = |type_name: &str| {
        let mark = format!("\"type\":\"{type_name}\"");
        1 + lines
            .iter()
            .position(|line| line.contains(&mark))
            .expect("such a record")
    };
    let (completed, acknowledged) = (of_type("step.completed"), of_type("step.acknowledged"));
    let terminal = of_type("coordination.terminal");
    let forged = |seq: usize, from: &str, to: &str| {
        assert!(
            lines[seq - 1].contains(from),
            "{from} in {}",
            lines[seq - 1]
        );
        forge(&lines, seq, |line| line.replacen(from, to, 1))
    };
    for (first_bad, kind, changed) in [
        // Ends a step that has not begun.
        (
            completed,
            "nondeterminism",
            forged(completed, "\"stepId\":\"prepare\"", "\"stepId\":\"breaks\""),
        ),
        (
            completed,
            "nondeterminism",
            forged(completed, "\"attempt\":1", "\"attempt\":2"),
        ),
        (
            terminal,
            "nondeterminism",
            forged(terminal, "\"completed\":1", "\"completed\":2"),
        ),
        (
            completed,
            "nondeterminism",
            forged(
                completed,
                &format!("\"cause\":{acknowledged}"),
                "\"cause\":999",
            ),
        ),
        (
            acknowledged,
            "unsupported",
            forged(acknowledged, "step.acknowledged", "step.completed_again"),
        ),
    ] {
        replace(&directory, &reseal(&changed));
        let value = broken_at(&directory, first_bad, &changed[first_bad - 1]);
        assert_eq!(value["kind"], kind, "{value} of {}", changed[first_bad - 1]);
    }
    // Without QM2 such a ledger cannot be told from a right one.
    assert!(script(&directory.run(&["ledger", "export"]).stdout).is_ok());
    replace(&directory, &lines);
    assert_eq!(directory.run(&["ledger", "verify"]).code, 0);
}

#[test]
fn the_cause_of_every_completed_step_ends_at_the_plan() {
    let directory = ledger();
    let output = directory.run(&["--json", "run", &plan("ends-partial.json")]);
    assert_eq!(output.code, 3, "{output:?}");
    let records = directory.records();
    let completed = records
        .iter()
        .filter(|record| record["type"] == "step.completed");
    let mut count = 0;
    for record in completed {
        let seq = record["seq"].to_string();
        let output = directory.run(&["--json", "ledger", "why", &seq]);
        assert_eq!(output.code, 0, "{output:?}");
        let value = output.json();
        let chain = value["chain"].as_array().expect("a chain");
        assert_eq!(chain[0], *record);
        for pair in chain.windows(2) {
            assert_eq!(pair[0]["cause"], pair[1]["seq"]);
        }
        let first = &chain[chain.len() - 1];
        assert_eq!(first["type"], "coordination.created");
        assert_eq!(first["coordinationId"], record["coordinationId"]);
        let people = directory.run(&["ledger", "why", &seq]);
        assert_eq!(people.stdout.lines().count(), chain.len(), "{people:?}");
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn one_coordination_is_shown_and_exported_alone() {
    let directory = ledger();
    let of_it: Vec<String> = directory
        .lines()
        .into_iter()
        .filter(|line| line.contains("\"coordinationId\":\"odd-text\""))
        .collect();
    let export = directory.run(&["ledger", "export", "odd-text"]);
    assert_eq!(export.stdout.lines().collect::<Vec<_>>(), of_it);
    let show = directory
        .run(&["--json", "ledger", "show", "odd-text"])
        .json();
    assert_eq!(show.as_array().map(Vec::len), Some(of_it.len()));
    let people = directory.run(&["ledger", "show", "odd-text"]);
    assert_eq!(people.stdout.lines().count(), of_it.len());
    // Nothing that an agent printed reaches the terminal as a control character.
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!people.stdout.contains(control), "{people:?}");
}

#[tokio::test]
async fn a_long_ledger_with_a_hole_is_read_once_and_the_hole_is_named() {
    let directory = Directory::new();
    let mut config = Config::new("long");
    config.phase1.enabled = true;
    let domain = Domain::builder(directory.data())
        .config(config)
        .lanes(Lanes {
            control: 64,
            ..Lanes::default()
        })
        .agent("*", async |_: Task| Report::completed("done"))
        .open()
        .await
        .expect("the domain opens");
    let step = |number: usize| json!({"stepId": format!("s{number}"), "targetSession": format!("agent:{number}"), "timeoutMs": 600_000});
    let plan = json!({
        "coordinationId": "long", "objective": "More lines than are read at once.", "ownerSession": "user:test",
        "steps": (0..600).map(step).collect::<Vec<_>>(),
    });
    let ended = domain.run(&plan.to_string()).await.expect("the plan runs");
    assert_eq!(ended.counts.completed, 600);
    domain.close().await;
    let lines = directory.lines();
    assert!(lines.len() > 1_100, "{} lines", lines.len());
    assert_eq!(directory.run(&["ledger", "verify"]).code, 0);
    // Later ones first, so that each is the first hole of its turn.
    for hole in [1_030, 600, 3] {
        execute(
            &directory,
            &format!("DELETE FROM ledger WHERE seq = {hole}"),
        );
        broken_at(&directory, hole, "a hole");
        let export = directory.run(&["ledger", "export"]);
        assert_eq!(export.code, 0, "{export:?}");
        let there = directory.lines();
        assert_eq!(
            export.stdout.lines().collect::<Vec<_>>(),
            there,
            "each once"
        );
    }
    // So far away that nobody can look at every number up to there.
    execute(
        &directory,
        "UPDATE ledger SET seq = seq + 1000000000000000 WHERE seq > 10",
    );
    broken_at(&directory, 3, "far away");
    let export = directory.run(&["--json", "ledger", "export"]);
    assert_eq!(export.code, 5, "{}", export.stderr);
}
