//! A command as a handler: the subject on its stdin, its verdict on its stdout.
//!
//! Ends the command with everything that it started when its time is over. Does not know other handlers.

use super::{Subject, is_asked};
use crate::process::{Context, Reader};
use crate::survivor::{self, DATA_VARIABLE, KEY_VARIABLE, Of};
use qm2_core::limit::TEXT_BYTES_MAX;
use qm2_core::message::HookVerdict;
use rustix::process::Signal;
use serde::Deserialize;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Longest output of a handler that is taken.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Tells apart the runs of this process, so that one can be ended without the others.
static RUNS: AtomicU64 = AtomicU64::new(1);

/// A program with its arguments, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) command: Vec<String>,
    pub(super) folder: PathBuf,
}

/// What a command prints.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    verdict: Word,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    NoOpinion,
    Deny,
    Review,
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
                subject,
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

/// What the end of a command means.
fn verdict(
    subject: &Subject,
    status: ExitStatus,
    stdout: &[u8],
    too_large: bool,
    stderr: &[u8],
) -> Result<HookVerdict, String> {
    if !status.success() {
        let says = String::from_utf8_lossy(stderr);
        let says = says.lines().map(str::trim).rfind(|line| !line.is_empty());
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        return Err(match says {
            Some(says) => format!("{says} ({how})"),
            None => how,
        });
    }
    if !is_asked(subject.kind) {
        return Ok(HookVerdict::NoOpinion);
    }
    if too_large {
        return Err(format!("printed more than {OUTPUT_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8_lossy(stdout);
    if text.trim().is_empty() {
        return Ok(HookVerdict::NoOpinion);
    }
    match serde_json::from_str(&text) {
        Ok(Printed { verdict, reason }) => Ok(match verdict {
            Word::NoOpinion => HookVerdict::NoOpinion,
            Word::Deny => HookVerdict::Deny(reason),
            Word::Review => HookVerdict::Review,
        }),
        Err(e) => Err(format!(
            "printed something else than a verdict such as {{\"verdict\": \"no_opinion\"}}: {e}"
        )),
    }
}

/// A process group that goes with whoever waits for it: also what a handler left behind, and when the domain closes.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        survivor::signal_group(self.0, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qm2_core::message::HookKind;

    #[test]
    fn end_and_output_of_a_command_are_its_verdict() {
        let asked = |code: i32, stdout: &str, stderr: &str| {
            let subject = Subject {
                kind: HookKind::BeforeDispatch,
                hook_id: None,
                json: "{}".into(),
            };
            // The code is in the second byte of what the system says.
            let status = ExitStatus::from_raw(code << 8);
            verdict(
                &subject,
                status,
                stdout.as_bytes(),
                false,
                stderr.as_bytes(),
            )
        };
        assert_eq!(asked(0, " \n", "x"), Ok(HookVerdict::NoOpinion));
        assert_eq!(
            asked(0, "{\"verdict\":\"review\"}\n", ""),
            Ok(HookVerdict::Review)
        );
        let deny = r#"{"verdict": "deny", "reason": "not today"}"#;
        assert_eq!(
            asked(0, deny, ""),
            Ok(HookVerdict::Deny("not today".into()))
        );
        assert_eq!(asked(3, deny, "a\nb \n\n"), Err("b (exit code 3)".into()));
        assert_eq!(asked(9, "", ""), Err("exit code 9".into()));
        for wrong in [
            "yes",
            "{}",
            r#"{"verdict":"allow"}"#,
            r#"{"verdict":"deny","x":1}"#,
        ] {
            let says = asked(0, wrong, "").unwrap_err();
            assert!(says.contains("something else"), "{says}");
        }
    }
}
