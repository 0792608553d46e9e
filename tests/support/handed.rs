//! What the engine hands out as text, by the JSON door's own way out: read, and staged as a host with records stages it.
//!
//! Shared by all tests of the core module and of the door; strict, since a host of another language relies on the form.

use qm2_core::envelope::Priority;
use qm2_core::message::{HookKind, Host, Message, Refused};
use qm2_core::staged::Staged;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(
    tag = "call",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
enum Handed {
    Append {
        lines: Vec<String>,
    },
    Enqueue {
        messages: Vec<Message>,
    },
    Withdraw {
        keys: Vec<String>,
    },
    EnqueueInLane {
        lane: String,
        priority: Priority,
        message: Box<Message>,
    },
    Cancel {
        keys: Vec<String>,
    },
    Ask {
        hook_id: String,
        kind: HookKind,
        subject: String,
    },
    Notify {
        kind: HookKind,
        subject: String,
    },
}

/// Takes a text in; the inner answer is that of the host.
///
/// # Errors
/// It is not of the form.
pub fn stage(staged: &mut Staged, text: &str) -> Result<Result<(), Refused>, String> {
    let handed = serde_json::from_str(text)
        .map_err(|e| format!("it hands out what has no form: {e}: {text}"))?;
    Ok(match handed {
        Handed::Append { lines } => staged.append(lines),
        Handed::Enqueue { messages } => staged.enqueue(messages),
        Handed::Withdraw { keys } => staged.withdraw(keys),
        Handed::EnqueueInLane {
            lane,
            priority,
            message,
        } => {
            if (&lane, priority) != (&message.lane, message.priority) {
                return Err(format!("lane and priority are not the message's: {text}"));
            }
            staged.enqueue_in_lane(*message)
        }
        Handed::Cancel { keys } => staged.cancel(keys),
        Handed::Ask {
            hook_id,
            kind,
            subject,
        } => staged.ask(&hook_id, kind, &subject),
        Handed::Notify { kind, subject } => staged.notify(kind, &subject),
    })
}
