//! Finding and ending processes that belong to a data directory, also those that outlived a killed host or left their
//! process group.
//!
//! A process belongs here if its environment says so, if it is a noted one that still runs, or if it descends from one of
//! those. Never touches this process itself. Blocks; call it where that is allowed.

use crate::error::{HostError, Result};
use crate::store::Note;
use rustix::process::{Signal, kill_process, kill_process_group};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

/// Names the attempt in the environment of an agent's process.
pub(crate) const KEY_VARIABLE: &str = "QM2_KEY";
/// Names a guarded command, in the environment of everything that it starts.
pub(crate) const GUARD_VARIABLE: &str = "QM2_GUARD";
/// Names the data directory, as an absolute path.
pub(crate) const DATA_VARIABLE: &str = "QM2_DATA";

/// How long killed processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Start times are whole seconds, worked out from the time of boot, which the system may correct.
const START_TOLERANCE_S: u64 = 2;

/// Which processes are meant.
#[derive(Clone, Copy)]
pub(crate) enum Of<'a> {
    /// All of the data directory, and these noted ones.
    Directory(&'a [Note]),
    /// Those of one attempt.
    Attempt(&'a str),
    /// Those of one guarded command.
    Guard(&'a str),
}

/// When a process started, in seconds since the epoch; nothing if it is gone.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new().ok()?;
    let kind = ProcessRefreshKind::nothing().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, kind);
    let process = system.process(pid).filter(|process| is_alive(process));
    process.map(sysinfo::Process::start_time)
}

/// Not one that has ended and only waits to be noticed.
fn is_alive(process: &sysinfo::Process) -> bool {
    !matches!(
        process.status(),
        ProcessStatus::Zombie | ProcessStatus::Dead
    )
}

/// Process ids that run now.
///
/// # Errors
/// [`HostError::Data`] if the system does not tell: not knowing is not the same as none.
pub(crate) fn find(data: &Path, of: Of<'_>) -> Result<Vec<u32>> {
    let mut system = System::new().map_err(|e| HostError::Data {
        path: data.to_path_buf(),
        message: format!("the processes that work there cannot be looked for: {e}"),
    })?;
    let kind = ProcessRefreshKind::nothing()
        .with_environ(UpdateKind::Always)
        .without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
    let alive = |process: &&sysinfo::Process| {
        process.pid().as_u32() != std::process::id() && is_alive(process)
    };
    let mut found: HashSet<Pid> = system
        .processes()
        .values()
        .filter(alive)
        .filter(|process| belongs(process, data, of))
        .map(sysinfo::Process::pid)
        .collect();
    // Descendants, also those that cleaned their environment.
    loop {
        let more: Vec<Pid> = system
            .processes()
            .values()
            .filter(alive)
            .filter(|process| {
                process
                    .parent()
                    .is_some_and(|parent| found.contains(&parent))
            })
            .map(sysinfo::Process::pid)
            .filter(|pid| !found.contains(pid))
            .collect();
        if more.is_empty() {
            return Ok(found.into_iter().map(Pid::as_u32).collect());
        }
        found.extend(more);
    }
}

/// Whether something may run that has this marker of a guarded command in its environment: a quick look before
/// [`end`], which looks at all that the system tells of its processes.
pub(crate) fn may_have(marker: &str) -> bool {
    let entry = format!("{GUARD_VARIABLE}={marker}");
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return true;
    };
    let environments = processes
        .flatten()
        .map(|process| process.path().join("environ"));
    let mut told = false;
    for environment in environments {
        // Those of others, and of what is no process, are not readable; that of this one is.
        if let Ok(environment) = std::fs::read(environment) {
            told = true;
            if environment
                .split(|byte| *byte == 0)
                .any(|one| one == entry.as_bytes())
            {
                return true;
            }
        }
    }
    !told
}

/// Kills them and waits until they are gone.
///
/// # Errors
/// [`HostError::Data`] with their process ids if some do not go: starting work beside them would run it twice.
pub(crate) fn end(data: &Path, of: Of<'_>) -> Result<()> {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        // Again and again, because one may start another while it is looked for.
        let found = find(data, of)?;
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            let message = format!(
                "agents of an earlier run still work there and cannot be ended (pid {found:?}); end them and try again"
            );
            let path = data.to_path_buf();
            return Err(HostError::Data { path, message });
        }
        if let Of::Directory(notes) = of {
            // A noted process that still runs also leads its group.
            for note in notes.iter().filter(|note| found.contains(&note.pid)) {
                signal_group(note.pid, Signal::KILL);
            }
        }
        for pid in found {
            signal(pid, Signal::KILL);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Sends a signal to a process; one that is gone is fine.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to a process group; one that is gone is fine.
pub(crate) fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = raw(pid) {
        let _ = kill_process_group(pid, signal);
    }
}

/// 0 and 1 would mean whole sessions or everything; they are never ours.
fn raw(pid: u32) -> Option<rustix::process::Pid> {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 1)?;
    rustix::process::Pid::from_raw(pid)
}

fn belongs(process: &sysinfo::Process, data: &Path, of: Of<'_>) -> bool {
    let is = |name: &str, wanted: Option<&[u8]>| {
        process.environ().iter().any(|entry| {
            let value = entry.as_bytes().strip_prefix(name.as_bytes());
            let value = value.and_then(|rest| rest.strip_prefix(b"="));
            value.is_some_and(|value| match wanted {
                Some(wanted) => value == wanted,
                None => !value.is_empty(),
            })
        })
    };
    let data: &OsStr = data.as_os_str();
    let of_data = || is(DATA_VARIABLE, Some(data.as_bytes()));
    match of {
        Of::Attempt(key) => is(KEY_VARIABLE, Some(key.as_bytes())) && of_data(),
        Of::Guard(marker) => is(GUARD_VARIABLE, Some(marker.as_bytes())) && of_data(),
        Of::Directory(notes) => {
            let noted = notes.iter().any(|note| {
                note.pid == process.pid().as_u32()
                    && note.start_time.abs_diff(process.start_time()) <= START_TOLERANCE_S
            });
            // A shell in which somebody set QM2_DATA by hand is not an agent: it has no key.
            noted || ((is(KEY_VARIABLE, None) || is(GUARD_VARIABLE, None)) && of_data())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn processes_of_a_directory_end_with_those_that_left_their_group() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & env -i sleep 61 & setsid sleep 62 & wait"])
            .env(KEY_VARIABLE, "c:s:1")
            .env(DATA_VARIABLE, folder.path())
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let of = Of::Attempt("c:s:1");
        while find(folder.path(), of).unwrap().len() < 4 {
            thread::sleep(LOOK_EVERY);
        }
        assert!(
            find(folder.path(), Of::Attempt("c:s:2"))
                .unwrap()
                .is_empty()
        );
        let reaper = thread::spawn(move || child.wait());
        end(folder.path(), Of::Directory(&[])).unwrap();
        assert!(find(folder.path(), of).unwrap().is_empty());
        assert!(reaper.join().unwrap().is_ok());
    }

    #[test]
    fn reused_pid_is_not_taken_for_the_noted_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let start_time = start_time(child.id()).unwrap();
        let note = |start_time| Note {
            key: "k".into(),
            pid: child.id(),
            start_time,
        };
        let (same, other) = ([note(start_time)], [note(start_time - 100)]);
        assert_eq!(
            find(folder.path(), Of::Directory(&same)).unwrap(),
            [child.id()]
        );
        assert!(
            find(folder.path(), Of::Directory(&other))
                .unwrap()
                .is_empty()
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
