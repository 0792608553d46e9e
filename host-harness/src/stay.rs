//! Agents that stay: a process that keeps running and takes one dispatch after another, as JSON lines over its stdin and
//! stdout.
//!
//! | host to agent | |
//! |---|---|
//! | `{"type":"dispatch","key":…,"delivery":1,"envelope":{…}}` | work; the attempt is acknowledged to QM2 already |
//! | `{"type":"cancel","key":…}` | stop, and report; after two seconds the process is ended |
//! | `{"type":"reply","id":…,"ok":…}`, `…"error":{"code":…,"message":…}}` | the answer to what had that id |
//! | `{"type":"refused","message":…}` | a line was not understood, or not accepted |
//!
//! | agent to host | |
//! |---|---|
//! | `{"type":"ack","key":…}` | it has begun; said once more, that changes nothing |
//! | `{"type":"progress","key":…,"number":1,"payload":"…"}` | it goes on; renews its leases |
//! | `{"type":"claim","key":…,"id":1,"resource":"file:a","leaseMs":30000,…}` | one more resource; `ok` has its token |
//! | `{"type":"renew","key":…,"id":2,"tokens":[]}` | its leases begin anew; all of them where none is named |
//! | `{"type":"release","key":…,"id":3,"tokens":[7]}` | grants that it does not need any more |
//! | `{"type":"ask","key":…,"id":4,"number":1,"text":"…"}` | a question to people; `ok` has the answer, null if it is over |
//! | `{"type":"report","key":…,"report":{"outcome":"completed","payload":"…"}}` | the end of the attempt |
//!
//! What it writes on stderr goes to the host's log. A process that dies is started again with the next dispatch; the attempt
//! that it had in hand ends as lost, and that costs no retry. Does not talk to the component: `delivery` does.

use crate::agent::CommandAgent;
use crate::process::{Context, Group, NotSpawned};
use crate::report::Report;
use crate::survivor::{DATA_VARIABLE, KEY_VARIABLE};
use qm2_core::claim::{Mode, Region};
use qm2_core::envelope::Envelope;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Longest line that is taken of an agent, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Lines of an agent that are read before they are looked at.
const LINES_AHEAD: usize = 16;
/// How long the output of a process that has ended may be silent.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// The variable that tells a process that it is to stay, with the version of these lines.
const STAY_VARIABLE: &str = "QM2_STAY";

/// What the host says.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToAgent<'a> {
    Dispatch {
        key: &'a str,
        delivery: u32,
        envelope: &'a Envelope,
    },
    Cancel {
        key: &'a str,
    },
    Reply {
        id: u64,
        #[serde(flatten)]
        answer: Answer,
    },
    Refused {
        message: String,
    },
}

/// What became of a request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Ok(Value),
    Error { code: String, message: String },
}

/// What an agent says.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum FromAgent {
    Ack {
        key: String,
    },
    Progress {
        key: String,
        number: u64,
        #[serde(default)]
        payload: Option<String>,
    },
    Claim {
        key: String,
        id: u64,
        resource: String,
        #[serde(default)]
        mode: Mode,
        lease_ms: u64,
        #[serde(default)]
        base_version: Option<String>,
        #[serde(default)]
        regions: Vec<Region>,
    },
    Renew {
        key: String,
        id: u64,
        #[serde(default)]
        tokens: Vec<u64>,
    },
    Release {
        key: String,
        id: u64,
        tokens: Vec<u64>,
    },
    Ask {
        key: String,
        id: u64,
        number: u64,
        text: String,
    },
    Report {
        key: String,
        report: Report,
    },
}

impl FromAgent {
    /// The attempt that it speaks of.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Ack { key }
            | Self::Progress { key, .. }
            | Self::Claim { key, .. }
            | Self::Renew { key, .. }
            | Self::Release { key, .. }
            | Self::Ask { key, .. }
            | Self::Report { key, .. } => key,
        }
    }

    /// Id of the request, where it is one.
    pub(crate) fn id(&self) -> Option<u64> {
        match self {
            Self::Claim { id, .. }
            | Self::Renew { id, .. }
            | Self::Release { id, .. }
            | Self::Ask { id, .. } => Some(*id),
            _ => None,
        }
    }
}

/// One line of an agent.
pub(crate) enum Line {
    Said(FromAgent),
    /// It is no line of these, and why.
    Strange(String),
    /// It has no end within the bound.
    TooLong,
}

/// A command whose processes stay, and those of them that wait for work.
pub(crate) struct StayingAgent {
    pub(crate) command: CommandAgent,
    /// As many as processes.
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Staying>>,
}

/// A process that stays.
pub(crate) struct Staying {
    group: Group,
    stdin: ChildStdin,
    lines: mpsc::Receiver<Line>,
}

/// Counts processes, so that each has a key of its own.
static STARTED: AtomicU64 = AtomicU64::new(0);

impl StayingAgent {
    pub(crate) fn new(command: CommandAgent, processes: u32) -> Self {
        Self {
            command,
            slots: Arc::new(Semaphore::new(processes as usize)),
            idle: Mutex::default(),
        }
    }

    /// Waits until one process fewer than all is at work.
    pub(crate) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.slots.clone().acquire_owned().await.ok()
    }

    /// A process that waits for work and lives. What those that died meanwhile have left behind is ended.
    pub(crate) async fn take(&self) -> Option<Staying> {
        loop {
            let mut staying = self.pop()?;
            let has_ended = !matches!(staying.group.child.try_wait(), Ok(None));
            // One that closed its output cannot report any more.
            if !has_ended && !staying.lines.is_closed() {
                return Some(staying);
            }
            staying.end().await;
        }
    }

    fn pop(&self) -> Option<Staying> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    /// Keeps a process for the next dispatch.
    pub(crate) fn put_back(&self, staying: Staying) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(staying);
    }

    /// Starts one. It has nothing to do before it is told.
    ///
    /// # Errors
    /// What the system said, and whether it is for want of something that may come back.
    pub(crate) fn start(&self, context: &Context) -> Result<Staying, NotSpawned> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let key = format!("stay:{}:{number}", std::process::id());
        let [program, arguments @ ..] = self.command.command.as_slice() else {
            let says = "the command is empty";
            let kind = std::io::ErrorKind::InvalidInput;
            return Err(NotSpawned::Ever(std::io::Error::new(kind, says)));
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.command.folder)
            .env(STAY_VARIABLE, "1")
            .env(KEY_VARIABLE, &key)
            .env(DATA_VARIABLE, &context.data)
            .env("QM2_WORKDIR", &context.work_folder)
            .envs(context.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if std::env::var_os("QM2_DATA_DIR").is_some() {
            command.env("QM2_DATA_DIR", &context.data);
        }
        let mut child = command.spawn().map_err(NotSpawned::from)?;
        let ended = || NotSpawned::Yet(std::io::Error::other("it ended at once"));
        let (Some(pid), Some(stdin), Some(stdout), Some(stderr)) = (
            child.id(),
            child.stdin.take(),
            child.stdout.take(),
            child.stderr.take(),
        ) else {
            return Err(ended());
        };
        let (sender, lines) = mpsc::channel(LINES_AHEAD);
        tokio::spawn(read(stdout, sender));
        tokio::spawn(log(stderr, program.clone(), pid));
        tracing::debug!("{program} stays as process {pid}");
        let data = context.data.clone();
        let group = Group {
            data,
            key,
            pid,
            child,
        };
        Ok(Staying {
            group,
            stdin,
            lines,
        })
    }
}

impl Staying {
    /// Its next line; none once it has ended or closed its output. What it said before its end is still read; a child that it
    /// left behind may hold the pipe open.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        tokio::select! {
            biased;
            line = self.lines.recv() => line,
            _ = self.group.child.wait() => {
                timeout(OUTPUT_GRACE, self.lines.recv()).await.ok().flatten()
            }
        }
    }

    /// Says something to it; false if it does not hear any more.
    pub(crate) async fn say(&mut self, what: &ToAgent<'_>) -> bool {
        // These types hold no map with keys that are not text, so this cannot fail.
        let mut line = serde_json::to_string(what).unwrap_or_default();
        line.push('\n');
        let written = self.stdin.write_all(line.as_bytes()).await;
        written.is_ok() && self.stdin.flush().await.is_ok()
    }

    /// Ends it and everything that it started.
    pub(crate) async fn end(mut self) {
        if let Err(e) = self.group.end().await {
            tracing::error!("{e}");
        }
    }
}

/// Reads lines until the end of the pipe, or one without an end.
async fn read(pipe: impl AsyncRead + Unpin, lines: mpsc::Sender<Line>) {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut bytes = Vec::new();
        let mut bounded = (&mut pipe).take(LINE_BYTES_MAX as u64 + 1);
        match bounded.read_until(b'\n', &mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let is_whole = bytes.pop_if(|byte| *byte == b'\n').is_some();
        if bytes.len() > LINE_BYTES_MAX {
            let _ = lines.send(Line::TooLong).await;
            return;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let line = match serde_json::from_slice(&bytes) {
            Ok(said) => Line::Said(said),
            // It died in the middle of it.
            Err(_) if !is_whole => return,
            Err(e) => Line::Strange(e.to_string()),
        };
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

/// Passes what an agent says on stderr to the log of the host.
async fn log(pipe: impl AsyncRead + Unpin, program: String, pid: u32) {
    let mut pipe = BufReader::new(pipe);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut bounded = (&mut pipe).take(4_096);
        match bounded.read_until(b'\n', &mut bytes).await {
            Ok(1..) => {
                let text = String::from_utf8_lossy(&bytes);
                tracing::info!("{program} ({pid}): {}", text.trim_end());
            }
            Ok(0) | Err(_) => return,
        }
    }
}
