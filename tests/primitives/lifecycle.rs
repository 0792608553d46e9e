//! Lifecycle of subagents: the SA rows that concern a host of QM2, and messages that are none of QM2's business.

use qm2_core::envelope::{
    DeliveryMode, Envelope, FailureClass, Intent, Outcome as Came, PayloadRef, Priority, Trace,
};
use qm2_core::message::Message;
use qm2_host::lane::{Entry, LaneSet, name};
use qm2_host::lifecycle::{
    Ended, EndedReason, Outcome, Passage, Passed, Phase, RESULT_BYTES_MAX, Spawned, Subagents,
    TargetKind, UnknownRun, ack, kill_request, spawn_request,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;

const GRACE_MS: u64 = 15_000;

fn run(run_id: &str) -> Spawned {
    Spawned {
        run_id: run_id.into(),
        child_session: format!("agent:main:subagent:{run_id}"),
        target_kind: TargetKind::Subagent,
        deadline_ms: None,
        expects_completion: false,
        is_session_mode: false,
    }
}

/// Runs of which one, `r`, was begun at 0.
fn begun(change: impl FnOnce(&mut Spawned)) -> Subagents {
    let mut runs = Subagents::new();
    let mut spawned = run("r");
    change(&mut spawned);
    assert!(runs.spawned(spawned));
    runs
}

fn start(at_ms: u64) -> Phase {
    Phase::Start { started_at: at_ms }
}

fn error(at_ms: u64) -> Phase {
    Phase::Error {
        ended_at: at_ms,
        error: "no tokens left".into(),
    }
}

/// An end, as a host says it.
fn end(at_ms: u64, more: Value) -> Phase {
    let mut said = json!({"phase": "end", "endedAt": at_ms});
    for (name, value) in more.as_object().expect("members") {
        said[name] = value.clone();
    }
    serde_json::from_value(said).expect("a phase")
}

/// What `r` says, and how it ended with that.
fn says(runs: &mut Subagents, phase: Phase, now_ms: u64) -> Option<(Outcome, u64)> {
    let ended = runs.phase("r", phase, now_ms).expect("it is known");
    ended.map(|ended| (ended.outcome, ended.ended_at_ms))
}

fn words<T: Serialize + DeserializeOwned + PartialEq + Debug>(all: &[T], due: &[&str]) {
    for (one, due) in all.iter().zip(due) {
        assert_eq!(json!(one), **due);
        assert_eq!(
            serde_json::from_value::<T>(json!(due)).expect("known"),
            *one
        );
    }
    assert_eq!(all.len(), due.len());
    assert!(serde_json::from_value::<T>(json!("another")).is_err());
}

#[test]
fn sa_01_reasons_of_an_end_have_the_hosts_names() {
    let all = [
        EndedReason::Complete,
        EndedReason::Error,
        EndedReason::Killed,
        EndedReason::SpawnFailed,
    ];
    words(
        &all,
        &[
            "subagent-complete",
            "subagent-error",
            "subagent-killed",
            "spawn-failed",
        ],
    );
    let mut runs = Subagents::new();
    let failed = runs.spawn_failed(run("r"), "no such agent".into(), 7);
    let failed = failed.expect("it ends at once");
    assert_eq!(
        (failed.reason, failed.outcome, failed.ended_at_ms),
        (EndedReason::SpawnFailed, Outcome::Error, 7)
    );
    // Its hook hears of it like that of any other end.
    assert_eq!(runs.begin_hook("r"), Some(failed));
    assert_eq!(runs.spawn_failed(run("r"), "again".into(), 8), None);
}

#[test]
fn sa_02_outcomes_and_kinds_of_target_have_the_hosts_names() {
    let all = [
        Outcome::Ok,
        Outcome::Error,
        Outcome::Timeout,
        Outcome::Killed,
        Outcome::Reset,
        Outcome::Deleted,
    ];
    let due = ["ok", "error", "timeout", "killed", "reset", "deleted"];
    words(&all, &due);
    words(
        &[TargetKind::Subagent, TargetKind::Acp],
        &["subagent", "acp"],
    );
}

#[test]
fn sa_03_a_status_that_is_neither_error_nor_timeout_is_ok() {
    for (status, due) in [
        ("error", Outcome::Error),
        ("timeout", Outcome::Timeout),
        ("ok", Outcome::Ok),
        ("completed", Outcome::Ok),
        ("Error", Outcome::Ok),
        ("", Outcome::Ok),
    ] {
        assert_eq!(Outcome::of_status(status), due, "{status}");
    }
}

#[test]
fn sa_10_an_error_waits_15_s_for_a_start_or_an_end_and_counts_then() {
    let mut runs = begun(|_| {});
    assert_eq!(says(&mut runs, start(1), 1), None);
    assert_eq!(says(&mut runs, error(2), 1_000), None);
    assert_eq!(runs.next_due_ms(), Some(1_000 + GRACE_MS));
    assert_eq!(runs.advance(1_000 + GRACE_MS - 1), []);
    let ended = runs.advance(1_000 + GRACE_MS);
    let [ended] = ended.as_slice() else {
        panic!("{ended:?}")
    };
    assert_eq!(
        (ended.outcome, ended.reason, ended.ended_at_ms),
        (Outcome::Error, EndedReason::Error, 2)
    );
    assert_eq!(ended.error.as_deref(), Some("no tokens left"));
    assert_eq!(runs.next_due_ms(), None);

    // A start calls it off, and so does an end.
    let mut runs = begun(|_| {});
    says(&mut runs, error(2), 2);
    assert_eq!(says(&mut runs, start(3), 3), None);
    assert_eq!(
        (runs.advance(1_000_000), runs.next_due_ms()),
        (vec![], None)
    );
    says(&mut runs, error(4), 4);
    let ok = Some((Outcome::Ok, 5));
    assert_eq!(says(&mut runs, end(5, json!({})), 5), ok);
    // What was ok stays so.
    assert_eq!(says(&mut runs, error(6), 6), None);
    assert_eq!(runs.advance(1_000_000), []);
    assert_eq!(
        runs.ended("r").map(|ended| ended.outcome),
        Some(Outcome::Ok)
    );
    assert_eq!(
        runs.phase("x", start(1), 1),
        Err(UnknownRun("x".to_owned()))
    );
}

#[test]
fn sa_11_an_aborted_end_waits_a_yield_is_a_pause_and_abort_and_blocked_count_at_once() {
    let aborted = || end(5, json!({"aborted": true}));
    let mut runs = begun(|_| {});
    assert_eq!(says(&mut runs, aborted(), 5), None);
    assert_eq!(says(&mut runs, start(6), 6), None, "it goes on after all");
    assert_eq!(says(&mut runs, aborted(), 10), None);
    let ended = runs.advance(10 + GRACE_MS);
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (ended[0].outcome, ended[0].ended_at_ms),
        (Outcome::Timeout, 5)
    );

    let mut runs = begun(|_| {});
    let yielded = end(5, json!({"yielded": true}));
    assert_eq!(says(&mut runs, yielded, 5), None);
    assert_eq!(
        (runs.advance(1_000_000), runs.next_due_ms()),
        (vec![], None)
    );
    let killed = end(6, json!({"aborted": true, "stopReason": "abort"}));
    assert_eq!(says(&mut runs, killed, 6), Some((Outcome::Killed, 6)));
    let ended = runs.ended("r").expect("it ended");
    assert_eq!(ended.reason, EndedReason::Killed);
    assert!(ended.error.is_some());

    let mut runs = begun(|_| {});
    let blocked = end(7, json!({"blocked": true}));
    assert_eq!(says(&mut runs, blocked, 7), Some((Outcome::Error, 7)));

    // Nobody looked for a day; the end is not lost.
    let mut runs = begun(|_| {});
    says(&mut runs, error(1), 1);
    assert_eq!(runs.advance(86_400_000).len(), 1);
}

#[test]
fn sa_13_a_completion_after_the_deadline_is_a_timeout_at_the_deadline() {
    let ok = || end(10_000, json!({}));
    // Said up to 250 ms late it still counts as what it is; one more, and it does not.
    for (now_ms, due) in [
        (10_250, (Outcome::Ok, 10_000)),
        (10_251, (Outcome::Timeout, 10_000)),
    ] {
        let mut runs = begun(|spawned| spawned.deadline_ms = Some(10_000));
        assert_eq!(says(&mut runs, ok(), now_ms), Some(due));
        assert_eq!(runs.advance(1_000_000), []);
        assert_eq!(runs.next_due_ms(), None);
    }
    // A run that says nothing ends, too; a pending error that comes later than the deadline does not put that off.
    let mut runs = begun(|spawned| spawned.deadline_ms = Some(10_000));
    says(&mut runs, error(9_999), 9_999);
    assert_eq!(runs.next_due_ms(), Some(10_251));
    let ended = runs.advance(10_251);
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (ended[0].outcome, ended[0].ended_at_ms),
        (Outcome::Timeout, 10_000)
    );
    assert_eq!(
        (runs.advance(1_000_000), runs.next_due_ms()),
        (vec![], None)
    );
}

#[test]
fn sa_14_the_hook_of_an_end_is_told_at_most_once_and_again_only_if_it_failed() {
    let mut runs = begun(|_| {});
    assert_eq!(runs.begin_hook("r"), None, "it has not ended");
    says(&mut runs, end(5, json!({})), 5);
    let ended = runs.ended("r").cloned();
    assert_eq!(runs.begin_hook("r"), ended);
    assert_eq!(runs.begin_hook("r"), None, "another one is telling it");
    runs.end_hook("r", false);
    assert_eq!(runs.begin_hook("r"), ended, "it failed");
    runs.end_hook("r", true);
    assert_eq!(runs.begin_hook("r"), None, "it was told");
    // Whatever is said afterwards.
    assert_eq!(says(&mut runs, error(6), 6), None);
    assert_eq!(runs.kill("r", None, 7), None);
    assert_eq!(runs.begin_hook("r"), None);

    // After the announcement, where one is waited for.
    let mut runs = begun(|spawned| spawned.expects_completion = true);
    says(&mut runs, end(5, json!({})), 5);
    assert_eq!(runs.begin_hook("r"), None);
    runs.announced("r");
    assert!(runs.begin_hook("r").is_some());

    // A session that stays has not ended with its run, unless it was killed.
    let mut runs = begun(|spawned| spawned.is_session_mode = true);
    says(&mut runs, end(5, json!({})), 5);
    assert_eq!(runs.begin_hook("r"), None);
    let mut runs = begun(|spawned| spawned.is_session_mode = true);
    assert!(runs.kill("r", None, 5).is_some());
    assert!(runs.begin_hook("r").is_some());
}

#[test]
fn sa_15_a_kill_ends_what_has_not_ended_and_its_session_hears_of_it_once() {
    let mut runs = Subagents::new();
    for id in ["a", "b", "c"] {
        let child_session = "s".to_owned();
        let expects_completion = true;
        assert!(runs.spawned(Spawned {
            child_session,
            expects_completion,
            ..run(id)
        }));
    }
    assert!(!runs.spawned(run("a")), "it is known");
    let done = runs.phase("a", end(1, json!({})), 1).expect("known");
    assert!(done.is_some());
    let killed = runs.kill_session("s", Some("the user said stop"), 9);
    let told: Vec<(&str, EndedReason, Outcome, u64, bool)> = killed
        .iter()
        .map(|one| {
            assert_eq!(one.error.as_deref(), Some("the user said stop"));
            let Ended {
                reason,
                outcome,
                ended_at_ms,
                is_announced,
                ..
            } = *one;
            (
                one.run_id.as_str(),
                reason,
                outcome,
                ended_at_ms,
                is_announced,
            )
        })
        .collect();
    let due = (EndedReason::Killed, Outcome::Error, 9, false);
    assert_eq!(
        told,
        [
            ("b", due.0, due.1, due.2, due.3),
            ("c", due.0, due.1, due.2, due.3)
        ]
    );
    assert!(runs.begin_hook("b").is_some());
    assert_eq!(runs.begin_hook("c"), None, "one hook a session");
    // Its error is ignored.
    runs.end_hook("b", false);
    assert_eq!(runs.begin_hook("b"), None);
    assert_eq!(runs.kill_session("s", None, 10), []);
    let ended = runs.ended("a").expect("it ended");
    assert_eq!((ended.outcome, ended.is_announced), (Outcome::Ok, true));
    // Without a reason it says so in a word. Nothing is kept of runs that are forgotten.
    let mut one = begun(|_| {});
    assert!(!one.forget("r"), "it has not ended");
    let killed = one.kill("r", None, 1).expect("it ends");
    assert_eq!(killed.error.as_deref(), Some("killed"));
    assert!(one.forget("r") && one.is_empty());
}

#[test]
fn sa_25_a_completion_has_one_key_and_its_text_is_frozen_once_and_cut_at_100_kib() {
    let mut runs = begun(|_| {});
    let most = "x".repeat(RESULT_BYTES_MAX);
    assert_eq!(runs.freeze_result("r", &most), Ok(most.as_str()));
    assert_eq!(runs.freeze_result("r", "another"), Ok(most.as_str()));
    assert!(runs.freeze_result("x", "").is_err());
    says(&mut runs, end(5, json!({})), 5);
    let ended = runs.ended("r").cloned().expect("it ended");
    assert_eq!(ended.result.as_ref(), Some(&most));
    let due = "announce:v1:agent:main:subagent:r:r";
    assert_eq!(ended.idempotency_key(), due);

    // One byte too many, and where that would cut a character.
    for (text, kept) in [
        ("x".repeat(RESULT_BYTES_MAX + 1), RESULT_BYTES_MAX),
        ("é".repeat(RESULT_BYTES_MAX / 2 + 1), RESULT_BYTES_MAX),
        (
            format!("x{}", "é".repeat(RESULT_BYTES_MAX)),
            RESULT_BYTES_MAX - 1,
        ),
    ] {
        let mut runs = begun(|_| {});
        // Also of a run that has ended already.
        says(&mut runs, end(5, json!({})), 5);
        let frozen = runs.freeze_result("r", &text).expect("known").to_owned();
        assert_eq!(frozen, text[..kept]);
        assert_eq!(
            runs.ended("r").and_then(|ended| ended.result.clone()),
            Some(frozen)
        );
    }
}

// ---- to QM2 and back ----

fn execute() -> Envelope {
    serde_json::from_value(json!({
        "coordinationId": "c", "stepId": "s", "attempt": 2, "sourceSession": "agent:main",
        "targetSession": "agent:child", "intent": "execute", "payload": "do it", "priority": "high",
    }))
    .expect("an envelope")
}

fn message(key: &str, envelope: Envelope) -> Message {
    Message {
        key: key.into(),
        delivery: 1,
        lane: "control".into(),
        priority: Priority::High,
        delivery_mode: DeliveryMode::AtLeastOnce,
        deadline_ms: Some(9),
        envelope,
    }
}

#[test]
fn execute_asks_for_a_subagent_cancel_for_its_end_and_nothing_else_for_either() {
    let asked = spawn_request(&message("c:s:2", execute())).expect("an execute");
    assert_eq!(asked.idempotency_key, "c:s:2");
    assert_eq!(asked.child_session, "agent:child");
    assert_eq!(asked.requester_session, "agent:main");
    assert_eq!((asked.task.as_str(), asked.deadline_ms), ("do it", Some(9)));
    let cancel = Envelope {
        intent: Intent::Cancel,
        reason: Some("enough".into()),
        ..execute()
    };
    let kill = kill_request(&message("cancel:c:s:2", cancel.clone())).expect("a cancel");
    assert_eq!(kill.idempotency_key, asked.idempotency_key);
    assert_eq!(kill.reason.as_deref(), Some("enough"));
    assert!(spawn_request(&message("cancel:c:s:2", cancel)).is_err());
    assert!(kill_request(&message("c:s:2", execute())).is_err());
}

#[test]
fn spawned_is_an_ack_and_ended_a_report_of_the_attempt() {
    let taken = ack(&execute());
    let of_attempt = |envelope: &Envelope| {
        let Envelope {
            source_session,
            target_session,
            attempt,
            ..
        } = envelope;
        (source_session.clone(), target_session.clone(), *attempt)
    };
    let due = ("agent:child".to_owned(), "agent:main".to_owned(), Some(2));
    assert_eq!(
        (taken.intent, of_attempt(&taken)),
        (Intent::Ack, due.clone())
    );

    let ended = |reason, outcome| Ended {
        run_id: "r".into(),
        child_session: "agent:child".into(),
        target_kind: TargetKind::Subagent,
        reason,
        outcome,
        error: None,
        ended_at_ms: 5,
        result: Some("done".into()),
        is_announced: true,
    };
    let nowhere = |_: &[u8]| Err::<PayloadRef, String>("no place".into());
    let report = |reason, outcome| {
        let report = ended(reason, outcome).report(&execute(), 64 * 1024, nowhere);
        let report = report.expect("it is short");
        assert_eq!(
            (report.intent, of_attempt(&report)),
            (Intent::Report, due.clone())
        );
        match report.outcome.expect("a report has one") {
            Came::Failed {
                class,
                code,
                message,
            } => {
                assert!(report.payload.is_none());
                (code, Some(class), message)
            }
            _ => (report.payload.expect("a result"), None, String::new()),
        }
    };
    let (retryable, unknown) = (Some(FailureClass::Retryable), Some(FailureClass::Unknown));
    for (reason, outcome, code, class) in [
        (EndedReason::Complete, Outcome::Ok, "done", None),
        (
            EndedReason::Complete,
            Outcome::Timeout,
            "subagent-timeout",
            unknown,
        ),
        (
            EndedReason::Error,
            Outcome::Error,
            "subagent-error",
            retryable,
        ),
        (
            EndedReason::Killed,
            Outcome::Error,
            "subagent-killed",
            unknown,
        ),
        (
            EndedReason::Killed,
            Outcome::Killed,
            "subagent-killed",
            unknown,
        ),
        (
            EndedReason::SpawnFailed,
            Outcome::Error,
            "spawn-failed",
            retryable,
        ),
        (
            EndedReason::Killed,
            Outcome::Reset,
            "subagent-killed",
            unknown,
        ),
        (
            EndedReason::Complete,
            Outcome::Reset,
            "session-reset",
            unknown,
        ),
        (
            EndedReason::Complete,
            Outcome::Deleted,
            "session-deleted",
            unknown,
        ),
    ] {
        let (found, found_class, _) = report(reason, outcome);
        assert_eq!(
            (found.as_str(), found_class),
            (code, class),
            "{reason:?} {outcome:?}"
        );
    }
    // The host's own words go along.
    let mut failed = ended(EndedReason::Error, Outcome::Error);
    failed.error = Some("no tokens left".into());
    let report = failed
        .report(&execute(), 64 * 1024, nowhere)
        .expect("short");
    let Some(Came::Failed { message, .. }) = report.outcome else {
        panic!("{report:?}")
    };
    assert_eq!(message, "no tokens left");
    assert_eq!(report.trace, Trace::default());

    // At the bound it is inline, one byte past it elsewhere.
    let done = ended(EndedReason::Complete, Outcome::Ok);
    assert!(done.report(&execute(), 4, nowhere).is_ok());
    assert_eq!(
        done.report(&execute(), 3, nowhere).err().as_deref(),
        Some("no place")
    );
    let kept = done.report(&execute(), 3, |content| {
        Ok::<_, String>(PayloadRef {
            uri: "file:x".into(),
            sha256: "0".repeat(64),
            bytes: content.len() as u64,
        })
    });
    let kept = kept.expect("there is a place");
    assert_eq!(
        (kept.payload, kept.payload_ref.map(|kept| kept.bytes)),
        (None, Some(4))
    );
}

// ---- messages that are none of QM2's business ----

fn recorded() -> Vec<u8> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.parent().expect("the workspace");
    std::fs::read(root.join("tests/primitives/messages.bin")).expect("the recorded messages")
}

/// A thousand messages, one a line: chat, tools, phases, envelopes, broken ones, and bytes that are no text.
fn messages(recorded: &[u8]) -> Vec<&[u8]> {
    let lines = recorded.strip_suffix(b"\n").expect("a last line");
    let messages: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').collect();
    assert_eq!(messages.len(), 1_000);
    messages
}

#[test]
fn with_the_gate_off_every_message_passes_byte_for_byte_and_in_order() {
    let recorded = recorded();
    let gate = Passage { is_open: false };
    let mut out = Vec::new();
    for message in messages(&recorded) {
        match gate.pass(message) {
            Ok(Passed::Untouched(same)) => {
                assert!(std::ptr::eq(same, message), "not even copied");
                out.extend_from_slice(same);
                out.push(b'\n');
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(out == recorded);
}

/// Through the lanes of a host, each message in that of its session: with QM2 in front and the gate off they do what they do
/// without it.
#[tokio::test]
async fn with_the_gate_off_lanes_run_the_same_messages_in_the_same_order() {
    let recorded = recorded();
    let mut ran = Vec::new();
    for gate in [None, Some(Passage { is_open: false })] {
        let lanes = LaneSet::with_default_widths(Handle::current());
        let out = Arc::<Mutex<Vec<(String, Vec<u8>)>>>::default();
        let mut queued = Vec::new();
        for message in messages(&recorded) {
            let message = match gate.map(|gate| gate.pass(message)) {
                None => message,
                Some(Ok(Passed::Untouched(same))) => same,
                other => panic!("{other:?}"),
            };
            let value = serde_json::from_slice::<Value>(message).unwrap_or_default();
            let session = value["session"].as_str().unwrap_or("nobody").to_owned();
            let (out, bytes) = (out.clone(), message.to_vec());
            let entry = Entry::of({
                let session = session.clone();
                async move {
                    tokio::task::yield_now().await;
                    out.lock().expect("no panic").push((session, bytes));
                }
            });
            queued.push(lanes.enqueue_turn(&session, name::MAIN, entry));
        }
        for queued in queued {
            queued.await.expect("it runs");
        }
        ran.push(std::mem::take(&mut *out.lock().expect("no panic")));
    }
    assert_eq!(ran[0].len(), 1_000);
    assert!(ran[0] == ran[1], "the same bytes in the same order");
    // And within a session in the order in which they came.
    let of = |all: &[(String, Vec<u8>)], wanted: &str| -> Vec<Vec<u8>> {
        let own = all.iter().filter(|(session, _)| session == wanted);
        own.map(|(_, bytes)| bytes.clone()).collect()
    };
    let came: Vec<(String, Vec<u8>)> = messages(&recorded)
        .iter()
        .map(|message| {
            let value = serde_json::from_slice::<Value>(message).unwrap_or_default();
            let session = value["session"].as_str().unwrap_or("nobody").to_owned();
            (session, message.to_vec())
        })
        .collect();
    for session in ["nobody", "session:1", "session:20"] {
        assert!(!of(&came, session).is_empty(), "{session}");
        assert!(of(&came, session) == of(&ran[1], session), "{session}");
    }
}

#[test]
fn with_the_gate_on_only_envelopes_leave_the_stream() {
    let recorded = recorded();
    let gate = Passage { is_open: true };
    let (mut out, mut left, mut envelopes, mut refused) = (Vec::new(), Vec::new(), 0, 0);
    for message in messages(&recorded) {
        // What a JSON reader of its own finds in it.
        let object = serde_json::from_slice::<Value>(message).ok();
        let carried = object
            .as_ref()
            .and_then(|object| object.as_object()?.get("qm2"));
        match (gate.pass(message), carried) {
            (Ok(Passed::Untouched(same)), None) => {
                out.push(same);
                left.push(message);
            }
            (Ok(Passed::Envelope(envelope)), Some(carried)) => {
                envelopes += 1;
                let due: Envelope = serde_json::from_value(carried.clone()).expect("an envelope");
                assert_eq!(*envelope, due);
            }
            (Err(bad), Some(carried)) => {
                refused += 1;
                assert!(serde_json::from_value::<Envelope>(carried.clone()).is_err());
                assert!(bad.to_string().contains("missing field"), "{bad}");
            }
            other => panic!("{other:?}: {}", String::from_utf8_lossy(message)),
        }
    }
    assert!(out == left);
    assert_eq!(out.len() + envelopes + refused, 1_000);
    assert!(
        out.len() > 500 && envelopes > 100 && refused > 10,
        "{envelopes} {refused}"
    );
}
