//! A command as a handler: the subject on its stdin, its verdict on its stdout.
//!
//! Ends the command with everything that it started when its time is over. Does not know other handlers.

use super::printed::{OUTPUT_BYTES_MAX, verdict};
use super::{Subject, is_asked};
use crate::process::{Context, Reader};
use crate::survivor::{self, DATA_VARIABLE, KEY_VARIABLE, Of};
use qm2_core::limit::TEXT_BYTES_MAX;
use qm2_core::message::HookVerdict;
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Tells apart the runs of this process, so that one can be ended without the others.
static RUNS: AtomicU64 = AtomicU64::new(1);

/// A program with its arguments, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) command: Vec<String>,
    pub(super) folder: PathBuf,
}

/// Runs a command; none if it took longer than it may.
pub(super) async fn run(
    command: &Command,
    context: &Context,
    name: &str,
    subject: &Subject,
    limit: Duration,
) -> Option<Result<HookVerdict, String>> {
    // Like that of an attempt, whose key never begins so: ids have no colon, and no coordination is named `hook:`.
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let key = format!(
        "hook:{}:{}.{run}",
        subject.hook_id.as_deref().unwrap_or(subject.kind.name()),
        std::process::id()
    );
    let mut process = tokio::process::Command::new(&command.command[0]);
    process
        .args(&command.command[1..])
        .current_dir(&command.folder)
        .env("QM2_HOOK_KIND", subject.kind.name())
        .env("QM2_HOOK_NAME", name)
        .env(KEY_VARIABLE, &key)
        .env(DATA_VARIABLE, &context.data)
        .env("QM2_WORKDIR", &context.work_folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    match &subject.hook_id {
        Some(id) => process.env("QM2_HOOK_ID", id),
        None => process.env_remove("QM2_HOOK_ID"),
    };
    let mut child = match process.spawn() {
        Ok(child) => child,
        Err(e) => {
            let folder = command.folder.display();
            let program = &command.command[0];
            return Some(Err(format!(
                "{program} could not be started in {folder}: {e}"
            )));
        }
    };
    let group = child.id().map(Group);
    if let Some(mut stdin) = child.stdin.take() {
        let text = format!("{}\n", subject.json);
        // Beside the run, because a handler need not read it.
        tokio::spawn(async move {
            let _ = stdin.write_all(text.as_bytes()).await;
        });
    }
    let mut stdout = Reader::start(child.stdout.take(), OUTPUT_BYTES_MAX, true);
    let mut stderr = Reader::start(child.stderr.take(), TEXT_BYTES_MAX, false);
    let end = async {
        let status = child.wait().await;
        let (stdout, stderr) = tokio::join!(stdout.finish(), stderr.finish());
        match status {
            Ok(status) => verdict(
                is_asked(subject.kind),
                status,
                &stdout.bytes,
                stdout.too_large,
                &stderr.bytes,
            ),
            Err(e) => Err(format!("its end could not be read: {e}")),
        }
    };
    match timeout(limit, end).await {
        Ok(verdict) => Some(verdict),
        Err(_) => {
            let data = context.data.clone();
            let ended = tokio::task::spawn_blocking(move || {
                let of = Of::Attempt(&key);
                // Before the first signal: once its parent is gone, a child that left the group and cleaned its
                // environment can no longer be told from others.
                let found = survivor::find(&data, of)?;
                drop(group);
                for pid in found {
                    survivor::signal(pid, Signal::KILL);
                }
                survivor::end(&data, of)
            });
            if let Ok(Err(e)) = ended.await {
                tracing::error!("hook {name}: {e}");
            }
            let _ = child.wait().await;
            None
        }
    }
}

/// A process group that goes with whoever waits for it: also what a handler left behind, and when the domain closes.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        survivor::signal_group(self.0, Signal::KILL);
    }
}
