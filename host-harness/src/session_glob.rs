//! Globs over session names, and whether what they match can be served: a command, and how often it may stay.
//!
//! Does not know who serves what; `agent` does.

use crate::error::{HostError, Result};
use globset::{Glob, GlobMatcher};

/// Most processes of one agent that stays.
const PROCESSES_MAX: u32 = 64;

/// Compiles a glob. `*` matches any characters.
///
/// # Errors
/// [`HostError::Glob`].
pub(crate) fn matcher(glob: &str) -> Result<GlobMatcher> {
    let compiled = Glob::new(glob).map_err(|e| HostError::Glob {
        glob: glob.to_owned(),
        message: e.kind().to_string(),
    })?;
    Ok(compiled.compile_matcher())
}

/// Whether there is a program to run for the sessions that a glob matches.
///
/// # Errors
/// [`HostError::Glob`].
pub(crate) fn check_command(glob: &str, command: &[String]) -> Result<()> {
    if command.first().is_none_or(String::is_empty) {
        return Err(HostError::Glob {
            glob: glob.to_owned(),
            message: "its command is empty; name at least a program".into(),
        });
    }
    Ok(())
}

/// Whether so many processes of an agent may stay.
///
/// # Errors
/// [`HostError::Glob`].
pub(crate) fn check_processes(glob: &str, processes: u32) -> Result<()> {
    if (1..=PROCESSES_MAX).contains(&processes) {
        return Ok(());
    }
    Err(HostError::Glob {
        glob: glob.to_owned(),
        message: format!("{processes} processes are to stay; 1 to {PROCESSES_MAX} are allowed"),
    })
}
