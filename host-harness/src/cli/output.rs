//! Where results go: text or one JSON value to stdout, everything else to stderr.
//!
//! Does not know what is printed.

use super::failure::Failure;
use serde::Serialize;
use serde_json::json;
use std::io::{self, BufWriter, IsTerminal, Write};

/// The two streams of the process.
pub struct Output {
    json: bool,
}

impl Output {
    /// With or without `--json`.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether stdout is for programs.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person watches stderr.
    pub fn is_watched(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// The result of the command: `value` with `--json`, else the text.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        let result = if self.json {
            serde_json::to_string(value).unwrap_or_default()
        } else {
            text()
        };
        let result = result.trim_end();
        if !result.is_empty() {
            self.lines([result]);
        }
    }

    /// Lines to stdout. A reader that went away, as `head` does, ends the process quietly.
    pub fn lines<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) {
        let mut stdout = BufWriter::new(io::stdout().lock());
        let write = || {
            for line in lines {
                writeln!(stdout, "{}", line.as_ref())?;
            }
            stdout.flush()
        };
        if let Err(error) = write() {
            if error.kind() == io::ErrorKind::BrokenPipe {
                std::process::exit(i32::from(super::exit::SUCCESS));
            }
            eprintln!("qm2: could not write to stdout: {error}");
            std::process::exit(i32::from(super::exit::HOST));
        }
    }

    /// A line for people beside the result.
    pub fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Why the command stopped.
    pub fn failure(&self, failure: &Failure) {
        if !self.json {
            return self.note(&format!("error: {failure}"));
        }
        let mut error = json!({ "code": failure.code, "message": failure.message });
        if !failure.problems.is_empty() {
            error["problems"] = json!(failure.problems);
        }
        self.lines([json!({ "error": error }).to_string()]);
    }
}
