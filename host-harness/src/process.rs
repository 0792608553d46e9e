//! One run of a command agent: the process, its environment, what its end means.
//!
//! The command does nothing before [`Process::open_gate`]: a shell waits for one line on stdin first, and goes away without
//! running the command if the host dies before it says so. Does not talk to the component.

mod group;

pub(crate) use self::group::Group;
use crate::agent::CommandAgent;
use crate::answer::{self, ANSWERS_VARIABLE};
use crate::error::{HostError, Result};
use crate::report::Report;
use crate::store::Note;
use crate::survivor::{self, DATA_VARIABLE, KEY_VARIABLE};
use crate::{paths, payload};
use qm2_core::envelope::Envelope;
use qm2_core::limit::TEXT_BYTES_MAX;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Waits for a line, then becomes the command. Reads byte by byte, as a shell must on a pipe, so the envelope stays unread.
const GATE: &str = r#"IFS= read -r qm2_go && unset qm2_go && exec "$@""#;
/// How long the output of a process that has ended may be silent: a child of it may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Longest payload that is also given in the environment.
const PAYLOAD_VARIABLE_BYTES_MAX: usize = 32 * 1024;
/// Names the resources that the attempt was dispatched with, and their fencing tokens, as one JSON object.
const TOKENS_VARIABLE: &str = "QM2_TOKENS";
/// Longest such object that is given; the system takes 128 KiB in one variable.
const TOKENS_VARIABLE_BYTES_MAX: usize = 96 * 1024;
/// Longest output of an agent that is taken.
const OUTPUT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What all processes of a domain share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Absolute path of the data directory.
    pub(crate) data: PathBuf,
    /// Where the host was started.
    pub(crate) work_folder: PathBuf,
    /// Longest inline payload.
    pub(crate) payload_bytes_max: u64,
    /// What the host sets beside the variables of an attempt.
    pub(crate) variables: Vec<(String, OsString)>,
}

/// A command that waits at its gate, or runs.
pub(crate) struct Process {
    context: Context,
    group: Group,
    stdin: Option<ChildStdin>,
    stdout: Reader,
    stderr: Reader,
    /// Where it finds answers to its questions; goes with it.
    _answers: answer::Folder,
}

/// A pipe that is being read.
pub(crate) struct Reader {
    output: Arc<Mutex<Output>>,
    task: JoinHandle<()>,
}

/// What came out of a pipe.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    pub(crate) too_large: bool,
}

/// How a process ended.
pub(crate) enum Ended {
    /// By itself.
    Itself(Report),
    /// Because it was told to.
    Cancelled(Report),
}

/// Why a command does not run.
pub(crate) enum NotSpawned {
    /// It never will: a folder that is not there, more arguments than the system takes.
    Ever(std::io::Error),
    /// The host is out of something, such as disk, processes or open files. That is not the agent's failure, and another
    /// attempt would do no better.
    Yet(std::io::Error),
}

impl From<std::io::Error> for NotSpawned {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidInput
            | ErrorKind::ArgumentListTooLong => Self::Ever(error),
            _ => Self::Yet(error),
        }
    }
}

impl Process {
    /// Starts the gate. The command itself has not run when this returns.
    ///
    /// # Errors
    /// What the system said, and whether it is for want of something that may come back.
    pub(crate) fn spawn(
        context: &Context,
        agent: &CommandAgent,
        key: &str,
        envelope: &Envelope,
    ) -> Result<Self, NotSpawned> {
        let answers = answer::Folder::make(&context.data, key).map_err(|e| {
            let says = format!("no folder for answers in {}: {e}", context.data.display());
            NotSpawned::Yet(std::io::Error::new(e.kind(), says))
        })?;
        let mut command = Command::new("sh");
        command
            .args(["-c", GATE, "sh"])
            .args(&agent.command)
            .current_dir(&agent.folder)
            .env("QM2_COORDINATION_ID", &envelope.coordination_id)
            .env(
                "QM2_STEP_ID",
                envelope.step_id.as_deref().unwrap_or_default(),
            )
            .env(
                "QM2_ATTEMPT",
                envelope.attempt.unwrap_or_default().to_string(),
            )
            .env(KEY_VARIABLE, key)
            .env("QM2_SESSION", &envelope.target_session)
            .env(DATA_VARIABLE, &context.data)
            .env("QM2_WORKDIR", &context.work_folder)
            .env(ANSWERS_VARIABLE, answers.path())
            .envs(context.variables.iter().map(|(name, value)| (name, value)))
            .env_remove(TOKENS_VARIABLE)
            .env_remove("QM2_DEADLINE_MS")
            .env_remove("QM2_PAYLOAD")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(deadline_ms) = envelope.deadline_ms {
            command.env("QM2_DEADLINE_MS", deadline_ms.to_string());
        }
        // Of what would not fit, the envelope on stdin has all.
        if let Some(tokens) = tokens(envelope) {
            command.env(TOKENS_VARIABLE, tokens);
        }
        // It may be relative to another folder than the agent's.
        if std::env::var_os("QM2_DATA_DIR").is_some() {
            command.env("QM2_DATA_DIR", &context.data);
        }
        let payload = envelope.payload.as_deref();
        if let Some(text) = payload.filter(|text| fits_environment(text)) {
            command.env("QM2_PAYLOAD", text);
        }
        let mut child = command.spawn().map_err(NotSpawned::from)?;
        let ended = || NotSpawned::Yet(std::io::Error::other("it ended at once"));
        let pid = child.id().ok_or_else(ended)?;
        Ok(Self {
            context: context.clone(),
            stdin: child.stdin.take(),
            stdout: Reader::start(child.stdout.take(), OUTPUT_BYTES_MAX, true),
            stderr: Reader::start(child.stderr.take(), TEXT_BYTES_MAX, false),
            group: Group {
                data: context.data.clone(),
                key: key.to_owned(),
                pid,
                child,
            },
            _answers: answers,
        })
    }

    /// What must be durable before the gate opens.
    pub(crate) fn note(&self) -> Note {
        Note {
            key: self.group.key.clone(),
            pid: self.group.pid,
            // A process that is gone already matches no later one.
            start_time: survivor::start_time(self.group.pid).unwrap_or(0),
        }
    }

    /// Lets the command run, and gives it its envelope. An agent that does not read it is fine.
    pub(crate) fn open_gate(&mut self, envelope: &Envelope) {
        let Some(mut stdin) = self.stdin.take() else {
            return;
        };
        // Contract types hold no map with keys that are not text, so this cannot fail.
        let json = serde_json::to_string(envelope).unwrap_or_default();
        let text = format!("\n{json}\n");
        // Beside the run, because an agent may write before it reads. Ends when the agent does.
        tokio::spawn(async move {
            let _ = stdin.write_all(text.as_bytes()).await;
        });
    }

    /// Waits for the end. When `cancelled` resolves, the process and everything that it started is ended.
    pub(crate) async fn run(mut self, cancelled: impl Future<Output = ()>) -> Ended {
        // Its end and its output: a child that it left behind may go on writing, and is ended too.
        let end = async {
            let status = self.group.child.wait().await;
            self.report(status).await
        };
        tokio::select! {
            report = end => Ended::Itself(report),
            () = cancelled => {
                let ended = self.end().await;
                let message = match ended {
                    Ok(()) => "the agent and its children were ended after a cancel".to_owned(),
                    Err(e) => format!("the agent was cancelled, but: {e}"),
                };
                Ended::Cancelled(Report::retryable("cancelled", message))
            }
        }
    }

    /// Ends it before it ran or while it runs: asks, waits two seconds, then kills, until nothing of it is left.
    ///
    /// # Errors
    /// Something of it does not go.
    pub(crate) async fn end(&mut self) -> Result<()> {
        // A gate that is closed for good ends by itself.
        drop(self.stdin.take());
        self.group.end().await
    }

    /// The report of a process that succeeded. Where its result cannot be kept, because the disk is full, it is tried again
    /// until it can be: the work is done, and is not thrown away for want of a disk.
    async fn completed(&self, stdout: Output) -> Report {
        let output = Arc::new(stdout);
        loop {
            let (data, output) = (self.context.data.clone(), output.clone());
            let bytes_max = self.context.payload_bytes_max;
            // Writing and syncing a large result is not for the runtime's threads.
            let report = tokio::task::spawn_blocking(move || completed(&data, &output, bytes_max));
            match report.await {
                Ok(Ok(report)) => return report,
                Ok(Err(e)) => tracing::error!(
                    "the result of {} is not kept yet: {e}; trying again",
                    self.group.key
                ),
                Err(e) => return Report::retryable("payload-not-kept", e.to_string()),
            }
            sleep(payload::KEEP_AGAIN).await;
        }
    }

    /// What the end of the process means.
    async fn report(&mut self, status: std::io::Result<ExitStatus>) -> Report {
        let (stdout, stderr) = tokio::join!(self.stdout.finish(), self.stderr.finish());
        let status = match status {
            Ok(status) => status,
            Err(e) => return Report::retryable("lost", format!("its end could not be read: {e}")),
        };
        if status.success() {
            return self.completed(stdout).await;
        }
        Report::of_failure(status, &stderr.bytes)
    }
}

/// What an agent that succeeded said: a report of its own making, or the result.
fn completed(data: &std::path::Path, output: &Output, bytes_max: u64) -> Result<Report, HostError> {
    if output.too_large {
        let says = format!(
            "it wrote more than {OUTPUT_BYTES_MAX} bytes; write a file in {} and name it",
            paths::PAYLOADS
        );
        return Ok(Report::permanent("output-too-large", says));
    }
    match std::str::from_utf8(&output.bytes) {
        Ok(text) => {
            let mut report = Report::of_output(text.to_owned());
            payload::bound(data, &mut report, bytes_max)?;
            Ok(report)
        }
        // Not text: kept byte for byte.
        Err(_) => Ok(Report::kept(payload::keep(data, &output.bytes)?)),
    }
}

/// The tokens of an envelope, where they fit in a variable.
fn tokens(envelope: &Envelope) -> Option<String> {
    let tokens: BTreeMap<&str, u64> = envelope
        .tokens
        .iter()
        .map(|token| (token.resource.as_str(), token.token))
        .collect();
    let json = serde_json::to_string(&tokens).ok()?;
    (json.len() <= TOKENS_VARIABLE_BYTES_MAX).then_some(json)
}

fn fits_environment(text: &str) -> bool {
    text.len() < PAYLOAD_VARIABLE_BYTES_MAX && !text.contains('\0')
}

impl Reader {
    /// Reads a pipe to its end: all of it up to a bound, or only its last bytes.
    pub(crate) fn start(
        pipe: Option<impl AsyncRead + Unpin + Send + 'static>,
        bytes_max: usize,
        all: bool,
    ) -> Self {
        let output = Arc::<Mutex<Output>>::default();
        let into = output.clone();
        let task = tokio::spawn(async move {
            let Some(mut pipe) = pipe else {
                return;
            };
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
                let mut output = lock(&into);
                if !all {
                    output.bytes.extend_from_slice(&buffer[..count]);
                    let over = output.bytes.len().saturating_sub(bytes_max);
                    output.bytes.drain(..over);
                } else if output.bytes.len() + count <= bytes_max {
                    output.bytes.extend_from_slice(&buffer[..count]);
                } else {
                    output.too_large = true;
                }
            }
        });
        Self { output, task }
    }

    /// What was read, after the process has ended.
    pub(crate) async fn finish(&mut self) -> Output {
        loop {
            let before = lock(&self.output).bytes.len();
            if timeout(OUTPUT_GRACE, &mut self.task).await.is_ok() {
                break;
            }
            if lock(&self.output).bytes.len() == before {
                self.task.abort();
                break;
            }
        }
        std::mem::take(&mut lock(&self.output))
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    // Nobody panics while holding it.
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qm2_core::claim::Token;
    use serde_json::json;

    #[test]
    fn tokens_are_one_object_and_more_than_a_variable_takes_are_left_out() {
        let envelope = json!({
            "coordinationId": "c", "stepId": "s", "attempt": 1, "sourceSession": "qm2:local", "targetSession": "agent:a",
            "intent": "execute",
        });
        let mut envelope: Envelope = serde_json::from_value(envelope).unwrap();
        assert_eq!(tokens(&envelope).as_deref(), Some("{}"));
        let token = |resource: String, token| Token { resource, token };
        envelope.tokens = vec![token("file:b".into(), 9), token("file:a\"".into(), 7)];
        let expected = r#"{"file:a\"":7,"file:b":9}"#;
        assert_eq!(tokens(&envelope).as_deref(), Some(expected));
        // As many as a step may have, with names as long as they may be.
        let long = |number: u64| token(format!("file:{number:0507}"), number);
        envelope.tokens = (0..2_048).map(long).collect();
        assert_eq!(tokens(&envelope), None);
    }
}
