//! A data directory on a disk that is watched, a journal outside of it, and the program with its load.
//!
//! Holds no expectation.

use super::disk::{self, Entry, Found};
use crate::program::{Directory, Output, root};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The plans of the load.
pub const LOAD: &str = "load";
pub const BESIDE: &str = "beside";
/// One step that works until it is let go.
pub const HOLD: &str = "hold";

/// A file of `tests/fire`.
pub fn file(name: &str) -> String {
    root().join("tests/fire").join(name).display().to_string()
}

/// A data directory and what is around it.
pub struct Site {
    pub directory: Directory,
    outside: tempfile::TempDir,
}

impl Site {
    /// Nothing is there yet.
    pub fn new() -> Self {
        Self {
            directory: Directory::new(),
            outside: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// One that goes on where another has come to, which nobody runs.
    pub fn after(template: &Self) -> Self {
        let site = Self::new();
        copy(&template.directory.data(), &site.directory.data());
        site.set_journal(&template.journal());
        site
    }

    /// The folder that is watched; the data directory is in it.
    pub fn root(&self) -> &Path {
        self.directory.folder()
    }

    fn journal_path(&self) -> PathBuf {
        self.outside.path().join("journal")
    }

    fn trace_path(&self) -> PathBuf {
        self.outside.path().join("trace")
    }

    /// Once it exists, faults are over.
    pub fn healed_path(&self) -> PathBuf {
        self.outside.path().join("healed")
    }

    /// Exists once it came to a fault.
    pub fn fired_path(&self) -> PathBuf {
        self.outside.path().join("fired")
    }

    /// A file outside.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.outside.path().join(name)
    }

    /// What the agents wrote down.
    pub fn journal(&self) -> String {
        fs::read_to_string(self.journal_path()).unwrap_or_default()
    }

    /// Ends the step that works until then.
    pub fn let_go(&self) {
        fs::write(self.outside.path().join("journal.go"), "").expect("a file outside");
    }

    /// Gives it a journal from before.
    pub fn set_journal(&self, text: &str) {
        fs::write(self.journal_path(), text).expect("the journal is written");
    }

    /// `qm2 --json run` of a plan of the load.
    pub fn run_of(&self, plan: &str) -> Command {
        let plan = file(&format!("{plan}.json"));
        self.command(&["--json", "run", &plan, "--agents", &file("load.toml")])
    }

    /// The program, leading a process group of its own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.directory.command(arguments);
        command
            .env("FIRE_JOURNAL", self.journal_path())
            .process_group(0);
        command
    }

    /// The same, with the layer between it and its files.
    pub fn watched(&self, mut command: Command) -> Command {
        let root = self.root().canonicalize().expect("the folder is there");
        command
            .env("LD_PRELOAD", disk::layer())
            .env("QM2_DISK_ROOT", root)
            .env("QM2_DISK_JOURNAL", self.journal_path())
            .env("QM2_DISK_HEALED", self.healed_path())
            .env("QM2_DISK_FIRED", self.fired_path());
        command
    }

    /// The same, with everything written down.
    pub fn traced(&self, command: Command) -> Command {
        let mut command = self.watched(command);
        command.env("QM2_DISK_TRACE", self.trace_path());
        command
    }

    /// What was written down since the place, and the next one.
    pub fn trace(&self, from: usize) -> (Vec<Entry>, usize) {
        disk::read(&self.trace_path(), from)
    }

    /// Everything in the watched folder.
    pub fn look(&self) -> Found {
        disk::look(self.root())
    }

    /// Runs it to its end.
    pub fn finish(&self, mut command: Command) -> Output {
        command.output().expect("the program starts").into()
    }

    /// Starts it, and lets nobody hear what it says.
    pub fn start(&self, command: &mut Command) -> Child {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program starts")
    }

    /// kill -9 of the host alone: its agents live on, as they do.
    pub fn kill_host(&self, run: &mut Child) {
        run.kill().expect("the program can be killed");
        run.wait().expect("the program was started here");
    }

    /// kill -9 of the host and all that it started, as when the machine goes down.
    pub fn kill(&self, run: &mut Child) {
        self.kill_host(run);
        crate::program::until("all agents are gone", || {
            let left = self.directory.process_ids();
            for pid in &left {
                let pid = i32::try_from(*pid)
                    .ok()
                    .and_then(Pid::from_raw)
                    .expect("a process id");
                // Each is in the group of its step, or is on its way there.
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            left.is_empty()
        });
    }
}

/// Data directories in which another plan was under way when its host was killed. The first is made, the others are copies of
/// it; it goes away with the test.
#[derive(Default)]
pub struct Busy(OnceLock<Site>);

impl Busy {
    /// One more.
    pub fn site(&self) -> Site {
        Site::after(self.0.get_or_init(|| {
            let site = Site::new();
            let mut run = site.start(&mut site.run_of(BESIDE));
            crate::program::until("steps are under way", || {
                site.journal().lines().count() >= 2
            });
            site.kill(&mut run);
            site
        }))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder is made");
    for entry in fs::read_dir(from)
        .expect("the folder is readable")
        .flatten()
    {
        let (kind, to) = (
            entry.file_type().expect("a kind"),
            to.join(entry.file_name()),
        );
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() && !entry.path().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), to).expect("a file is copied");
        }
    }
}
