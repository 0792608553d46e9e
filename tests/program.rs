//! The real program in a data directory of its own, as a person or a script would use it.
//!
//! Holds no expectation; the tests do.

use qm2_host::sqlite::SqliteStore;
use qm2_host::store::Store;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long something that must happen may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An agent that runs the payload of its step as a shell script.
pub const SHELL: &str = "[[agents]]\nsession = \"agent:shell:*\"\n\
     command = [\"sh\", \"-c\", \"exec sh -c \\\"$QM2_PAYLOAD\\\"\"]\n";

/// Waits until a condition holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether a process runs; one that only waits for its parent to look does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state.flatten().is_some_and(|state| !"ZX".contains(state))
}

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the harness is in the checkout")
        .to_path_buf()
}

/// A plan of `tests/plans`.
pub fn plan(name: &str) -> String {
    root().join("tests/plans").join(name).display().to_string()
}

/// A plan of one step that the shell agent runs.
pub fn one_step(id: &str, script: &str) -> String {
    json!({
        "coordinationId": id,
        "objective": "One step.",
        "ownerSession": "user:test",
        "steps": [{"stepId": "only", "targetSession": "agent:shell:only", "payload": script, "timeoutMs": 600_000}],
    })
    .to_string()
}

/// What the program said.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; none after a signal.
    pub code: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Output {
    /// Its stdout, which must be exactly one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The code of its error.
    pub fn error_code(&self) -> String {
        let code = &self.json()["error"]["code"];
        code.as_str().unwrap_or_default().to_owned()
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        let output = Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        // Whatever a test is about: nothing that comes from outside may make the program panic.
        assert!(!output.stderr.contains("panicked"), "{output:?}");
        output
    }
}

/// The program while it runs; ended with the test.
pub struct Running(Option<Child>);

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.as_ref().expect("it was not waited for yet").id()
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        let child = self.0.as_mut().expect("it was not waited for yet");
        child.try_wait().expect("it was started here").is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill_process(Pid::from_raw(pid).expect("a process id"), signal).expect("it runs");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Output {
        let child = self.0.take().expect("it was not waited for yet");
        child
            .wait_with_output()
            .expect("it was started here")
            .into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Only where a test failed; its agents stay for as long as they sleep.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A data directory that goes away with the test.
pub struct Directory {
    folder: tempfile::TempDir,
}

impl Directory {
    /// A new one; the program makes the data directory itself.
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder around it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A text file in the data directory; empty if there is none.
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.data().join(name)).unwrap_or_default()
    }

    /// The program with its data directory and arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qm2"));
        command
            .current_dir(root())
            .arg("--data")
            .arg(self.data())
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the program starts")
            .into()
    }

    /// Runs a plan of `tests/plans` with `--json`.
    pub fn run_plan(&self, name: &str) -> Output {
        self.run(&["--json", "run", &plan(name)])
    }

    /// Starts it; its output is there when it is waited for.
    pub fn begin(&self, arguments: &[&str]) -> Running {
        Running(Some(
            self.command(arguments).spawn().expect("the program starts"),
        ))
    }

    /// Writes a file beside the data directory and gives its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder().join(name);
        std::fs::write(&path, text).expect("a file in a temporary folder");
        path.display().to_string()
    }

    /// Lines of the ledger so far; none where there is no ledger yet.
    pub fn lines(&self) -> Vec<String> {
        let store = SqliteStore::open_read_only(&self.data());
        store
            .and_then(|store| store.lines(0, 1_000_000))
            .unwrap_or_default()
    }

    /// Records of the ledger so far.
    pub fn records(&self) -> Vec<Value> {
        let lines = self.lines();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("a record is JSON"))
            .collect()
    }

    /// The store, past everything that guards it.
    pub fn sql(&self) -> Connection {
        Connection::open(self.data().join("ledger.db")).expect("the store is there")
    }

    /// Starts it and goes on.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program starts")
    }

    /// Command lines of the processes that were started for this data directory and still live.
    pub fn processes(&self) -> Vec<String> {
        let found = self.process_ids().into_iter();
        found
            .map(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).replace('\0', " ")
            })
            .collect()
    }

    /// Ids of the processes that were started for this data directory and still live.
    pub fn process_ids(&self) -> Vec<u32> {
        let marker = format!(
            "QM2_DATA={}\0",
            self.data().canonicalize().unwrap_or(self.data()).display()
        );
        let mut found = Vec::new();
        let Ok(all) = std::fs::read_dir("/proc") else {
            return found;
        };
        for process in all.flatten() {
            let Ok(pid) = process.file_name().to_string_lossy().parse() else {
                continue;
            };
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            if environment
                .windows(marker.len())
                .any(|window| window == marker.as_bytes())
            {
                found.push(pid);
            }
        }
        found
    }
}
