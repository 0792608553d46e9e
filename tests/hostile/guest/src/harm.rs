//! What is done to the host around a call: no end, no memory left, traps, refusals without end, and imports with arguments
//! that no component should have.
//!
//! Answers are changed in `lie`.

use crate::imports::{
    HookKind, HookNotice, Intent, Message, envelope, event_stream, hooks, lanes, message, queue,
};
use crate::machine::Machine;
use honest::call::Call;
use honest::digest::sha256_hex;
use honest::receipt::{CallError, Head, LedgerFault, LedgerFaultKind};
use std::hint::black_box;

/// How often an import is called where the contract expects one call.
const OFTEN: usize = 1_000_000;
/// Of a text that is too long.
const LONG: usize = 64 * 1024 * 1024;

/// Done before the real core sees the call; with an error it never does.
pub(crate) fn before(what: &str, call: &Call) -> Option<CallError> {
    let error = match what {
        "loop" => endless(),
        "grow" => grow(),
        "recurse-wide" => {
            black_box(recurse_wide(black_box(1)));
            return None;
        }
        "recurse" => {
            black_box(recurse(black_box(1)));
            return None;
        }
        "trap" => panic!("as it was told"),
        "busy" => CallError::Busy,
        "rebuild" => CallError::Rebuild,
        "unavailable" => CallError::LedgerUnavailable,
        "unknown" => CallError::Unknown("nothing".repeat(1_000)),
        "read-only" => CallError::ReadOnly(LedgerFault {
            seq: u64::MAX,
            kind: LedgerFaultKind::Nondeterminism,
            message: "says so".into(),
        }),
        "effects-first" => {
            let _ = queue::withdraw(&["c:s:1"]);
            return None;
        }
        // The first envelope of a batch that is one of these.
        "trap-on" => {
            let poisoned = matches!(call, Call::Submit { envelopes, .. }
                if envelopes.iter().any(|envelope| envelope.payload.as_deref() == Some("poison")));
            assert!(!poisoned, "it was poisoned");
            return None;
        }
        _ => return None,
    };
    Some(error)
}

/// Done when the real core has said what it says.
pub(crate) fn after(what: &str, machine: &mut Machine, call: &Call) {
    match what {
        "append-twice" => {
            let line = line(&head(machine), "");
            let _ = event_stream::append(&[&line]);
        }
        // Everything that a host says is answered by asking again.
        "echo" => {
            if matches!(
                call,
                Call::Notice { .. } | Call::SubmitPlan { .. } | Call::Verdict { .. }
            ) {
                let envelope = envelope("x", "s");
                let mut probe = message("probe:x:s:1", &envelope);
                probe.delivery = u32::try_from(machine.times).unwrap_or(u32::MAX);
                let _ = queue::enqueue(&[probe]);
                let _ = hooks::ask("h1", HookKind::BeforeDispatch, "{}");
            }
        }
        _ => speak(what, machine),
    }
}

fn endless() -> CallError {
    let mut at = 0_u64;
    loop {
        at = black_box(at.wrapping_add(1));
    }
}

fn grow() -> CallError {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}

/// Not turned into a loop, because something is left to do after it. Ends where the engine's stack does.
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    recurse(depth.wrapping_mul(3) ^ 5).wrapping_mul(7) ^ depth
}

/// As that, and ends where the stack in its own memory does.
#[allow(unconditional_recursion)]
fn recurse_wide(depth: u64) -> u64 {
    let more = black_box([depth; 64]);
    recurse_wide(black_box(depth + 1)).wrapping_add(more[(depth % 64) as usize])
}

fn head(machine: &Machine) -> Head {
    machine.honest.head().unwrap_or_default()
}

/// A record of no known type that follows the head, and has this in it.
pub(crate) fn line(head: &Head, extra: &str) -> String {
    let seq = head.seq + 1;
    let begin =
        format!("{{\"v\":1,\"seq\":{seq},\"atMs\":1,\"type\":\"made.up\",\"data\":{{}}{extra}");
    sealed(&begin, &head.hash)
}

fn sealed(begin: &str, prev: &str) -> String {
    let hashed = format!("{begin},\"prev\":\"{prev}\"}}");
    let hash = sha256_hex(&[hashed.as_bytes()]);
    format!("{},\"hash\":\"{hash}\"}}", &hashed[..hashed.len() - 1])
}

/// Calls an import as no component should.
fn speak(what: &str, machine: &mut Machine) {
    let head = head(machine);
    let append = |line: &str| {
        let _ = event_stream::append(&[line]);
    };
    match what {
        "line-not-json" => append("this is no JSON"),
        "line-empty" => append(""),
        "line-seq" => {
            let seq = head.seq + 5;
            append(&line(
                &Head {
                    seq,
                    ..head.clone()
                },
                "",
            ));
        }
        "line-prev" => {
            let hash = "f".repeat(64);
            append(&line(
                &Head {
                    hash,
                    ..head.clone()
                },
                "",
            ));
        }
        "line-hash" => append(&line(&head, "").replace("made.up", "made.app")),
        // The chain holds; the rest does not.
        "line-inside" => append(&line(&head, ",\"x\":garbage")),
        "line-twice" => append(&line(&head, ",\"seq\":1")),
        "line-newline" => append(&line(&head, "\n")),
        "line-long" => append(&line(&head, &format!(",\"x\":\"{}\"", "x".repeat(LONG)))),
        "lines-many" => {
            // One text, named a million times.
            let _ = event_stream::append(&vec!["{}"; OFTEN]);
        }
        "lines-aliased" => {
            let text = "x".repeat(LONG);
            let _ = event_stream::append(&vec![&*text; OFTEN]);
        }
        "messages-aliased" => {
            let text = "x".repeat(LONG);
            let one = envelope(&text, "s");
            let _ = queue::enqueue(&vec![message(&text, &one); 10_000]);
        }
        "messages-many" => {
            let ids: Vec<String> = (0..100_000).map(|at| format!("s{at}")).collect();
            let all: Vec<_> = ids
                .iter()
                .map(|id| (format!("x:{id}:1"), envelope("x", id)))
                .collect();
            let all: Vec<Message<'_>> = all.iter().map(|(key, one)| message(key, one)).collect();
            let _ = queue::enqueue(&all);
        }
        "withdraw-many" => {
            let keys: Vec<String> = (0..OFTEN).map(|at| format!("c:s{at}:1")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let _ = queue::withdraw(&keys);
            let _ = lanes::cancel(&keys[..10]);
        }
        "say-endlessly" => loop {
            let _ = queue::withdraw(&[""]);
        },
        "notify-endlessly" => loop {
            let _ = hooks::notify(HookNotice::StepEnded, "");
        },
        "hook-unregistered" => {
            for at in 1..1_000 {
                let _ = hooks::ask(&format!("h{at}"), HookKind::BeforeArbitrate, "no JSON");
                let _ = hooks::notify(HookNotice::MessageUndelivered, "no JSON");
            }
        }
        "hook-id" => {
            let _ = hooks::ask("../h1", HookKind::BeforeDispatch, "{}");
        }
        _ => send(what),
    }
}

/// One message that is no message.
fn send(what: &str) {
    let mut about = envelope("x", "s");
    match what {
        "key-nul" => about.coordination_id = "x\0".to_owned(),
        "key-path" => about.intent = Intent::Report,
        "key-question" => about.intent = Intent::Escalate,
        "intent" => about.intent = Intent::Report,
        "session" => about.target_session = "a b\n".to_owned(),
        _ => {}
    }
    let mut sent = message("x:s:1", &about);
    match what {
        "intent" | "session" => {}
        "key-empty" => sent.key = "",
        "key-newline" => sent.key = "x:s\n:1",
        "key-nul" => sent.key = "x\0:s:1",
        "key-of-another" => sent.key = "y:s:1",
        "key-path" => (sent.key, sent.lane) = ("answer:/../../../escaped", "data"),
        "key-question" => (sent.key, sent.lane) = ("escalation:e1:0:/etc", "escalation"),
        "lane-unknown" => sent.lane = "no such lane",
        "lane-best-effort" => {
            let _ = lanes::enqueue_in_lane("no such lane", sent.priority, sent);
            return;
        }
        "delivery-0" => sent.delivery = 0,
        "delivery-max" => sent.delivery = u32::MAX,
        "deadline-max" => sent.deadline_ms = Some(u64::MAX),
        _ => return,
    }
    let _ = queue::enqueue(&[sent]);
}
