//! The real program in a data directory of its own, as a person or a script would use it.
//!
//! Holds no expectation; the tests do.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
        let output = self
            .command(arguments)
            .output()
            .expect("the program starts");
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts it and goes on.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program starts")
    }

    /// Command lines of the processes that were started for this data directory and still live.
    pub fn processes(&self) -> Vec<String> {
        let marker = format!(
            "QM2_DATA={}\0",
            self.data().canonicalize().unwrap_or(self.data()).display()
        );
        let mut found = Vec::new();
        let Ok(all) = std::fs::read_dir("/proc") else {
            return found;
        };
        for process in all
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            if environment
                .windows(marker.len())
                .any(|window| window == marker.as_bytes())
            {
                let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }
}
