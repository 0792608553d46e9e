//! `qm2 guard`: whether a grant of a resource still holds, and commands that run only while it does.
//!
//! The process that runs the data directory answers, over its socket. Without one the answer is no: a lease that nobody
//! watches protects nothing. Does not decide anything itself.

use super::agent_env;
use super::failure::Failure;
use super::output::Output;
use super::run::{interrupts, runtime};
use super::{command, exit};
use clap::ValueEnum;
use qm2_core::claim::{self, Access, Region};
use qm2_core::receipt::{CallError, GuardVerdict};
use qm2_host::HostError;
use qm2_host::engine::Answer;
use qm2_host::guard::{GuardRequest, Guarded};
use qm2_host::socket::{self, Client};
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

/// Wait before a process that asked to be asked again is.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Help after the arguments.
pub const HELP: &str = "\
Examples, in the script of a step:
  qm2 guard file:notes.md || exit 1              may the step still write it, under its token in QM2_TOKENS?
  qm2 guard file:notes.md -- cp new notes.md     writes it only while the grant lives
  qm2 guard file:a.txt --token \"$token\" -- CMD    under a token of qm2 claim
Anywhere else:
  qm2 guard file:a.txt --session agent:a --token 12 -- CMD

The session and the token are those of QM2_SESSION and QM2_TOKENS (the token of the resource, or of one that contains it)
unless they are named. Asks the process that runs the data directory; without one the answer is no. A CMD gets a process
group of its own; when the grant ends, by its lease, a release, the end of the attempt or of that process, CMD and its
children are asked to end and, half a second later, killed, before anybody else can be granted the resource. What CMD
leaves behind when it ends is ended too. With --json the stdout of CMD goes to stderr.

Exit codes: 0 allowed, 1 refused or ended early, 2 usage, 6 host error; with CMD that of CMD if it ran to its end (128 and
the signal if one ended it), 126 and 127 if it cannot be started.";

/// Arguments of `guard`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The resource, such as file:src/lib.rs.
    resource: String,
    /// Who wants to read or write it [default: QM2_SESSION].
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// The fencing token of the grant [default: that of QM2_TOKENS].
    #[arg(long, value_name = "N")]
    token: Option<u64>,
    /// What is about to be done; write needs an exclusive grant.
    #[arg(long, value_enum, default_value_t = Mode::Write)]
    mode: Mode,
    /// Which part is touched, from START up to, but without, END; may be given again. All of it if absent.
    #[arg(long, value_name = "START..END", value_parser = region)]
    region: Vec<Region>,
    /// What the grant must be based on.
    #[arg(long, value_name = "VERSION")]
    base_version: Option<String>,
    /// Runs this command while the grant lives.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What is about to be done.
#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Read,
    Write,
}

/// A region as people write it.
///
/// # Errors
/// What is wrong with it.
pub fn region(text: &str) -> Result<Region, String> {
    let bounds = text.split_once("..");
    let parsed = bounds.and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
    match parsed {
        Some((start, end)) if start < end => Ok(Region { start, end }),
        _ => Err(
            "START..END is expected, two numbers, the end after the start, such as 10..20".into(),
        ),
    }
}

/// Asks, and runs the command if there is one.
pub fn run(directory: &Path, arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let request = request(arguments)?;
    runtime()?.block_on(async {
        // From the beginning: a signal must never leave a command behind.
        let mut interrupts = interrupts()?;
        let Some(client) = socket::connect(directory).await else {
            return Ok(refuse(&nobody(directory), output));
        };
        if arguments.command.is_empty() {
            let verdict = check(client, directory, &request).await?;
            if !verdict.allowed {
                return Ok(refuse(&verdict, output));
            }
            output.result(&verdict, || format!("allowed: {}", verdict.reason));
            return Ok(exit::SUCCESS);
        }
        let mut command = tokio::process::Command::new(&arguments.command[0]);
        command.args(&arguments.command[1..]);
        if output.is_json() {
            command.stdout(Stdio::from(std::io::stderr()));
        }
        let mut interrupted = false;
        let interrupt = async {
            interrupts.recv().await;
            interrupted = true;
            "qm2 guard was interrupted".to_owned()
        };
        let guarded = client
            .guarded(directory, &request, command, interrupt)
            .await;
        match guarded {
            Ok(Guarded::Refused(verdict)) => Ok(refuse(&verdict, output)),
            Ok(Guarded::Stopped(reason)) => {
                let reason = format!("{reason}; the command was ended");
                stopped(&reason, output);
                Ok(if interrupted {
                    exit::INTERRUPTED
                } else {
                    exit::FAILED
                })
            }
            Ok(Guarded::Finished(status)) => {
                let code = code(status);
                if output.is_json() {
                    let reason = "the command ran to its end while the grant lived";
                    output.result(
                        &json!({"allowed": true, "reason": reason, "exitCode": code}),
                        String::new,
                    );
                }
                Ok(code)
            }
            Err(HostError::Closed) => Ok(refuse(&gone(directory), output)),
            Err(HostError::Io { source, path, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                let message = format!("{} was not found; name a program behind --", path.display());
                Err(Failure::new(127, "not-found", message))
            }
            Err(HostError::Io { source, path, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                let message = format!("{} cannot be run: {source}", path.display());
                Err(Failure::new(126, "not-executable", message))
            }
            Err(error) => Err(failure(error)),
        }
    })
}

/// What is asked: from the arguments, and where they are silent from the step's variables.
fn request(arguments: &Arguments) -> Result<GuardRequest, Failure> {
    let resource = resource(&arguments.resource)?;
    let session = match &arguments.session {
        Some(session) => session.clone(),
        None => agent_env::variable("QM2_SESSION").ok_or_else(|| {
            let message = "no session: --session names it outside of the process of a step";
            Failure::usage("usage", message)
        })?,
    };
    let token = match arguments.token {
        Some(token) => token,
        None => token(&resource)?,
    };
    Ok(GuardRequest {
        resource,
        session,
        token,
        mode: match arguments.mode {
            Mode::Read => Access::Read,
            Mode::Write => Access::Write,
        },
        regions: arguments.region.clone(),
        base_version: arguments.base_version.clone(),
    })
}

/// A resource in its normal form.
pub fn resource(text: &str) -> Result<String, Failure> {
    claim::normal_form(text)
        .map_err(|says| Failure::usage("invalid-field", format!("the resource {text:?} {says}")))
}

/// The token that the step was dispatched with for this resource, or for the smallest one that contains it.
fn token(resource: &str) -> Result<u64, Failure> {
    let Some(tokens) = agent_env::tokens()? else {
        let message = "no token: --token names it outside of the process of a step, and where a step holds more resources \
                       than a variable takes (the envelope on stdin has them all)";
        return Err(Failure::usage("usage", message));
    };
    // Of two that overlap, the shorter one contains the other.
    let within = |outer: &str| outer.len() <= resource.len() && claim::overlap(outer, resource);
    let found = tokens
        .iter()
        .filter(|(outer, _)| within(outer))
        .max_by_key(|(outer, _)| outer.len());
    found.map(|(_, token)| *token).ok_or_else(|| {
        let message = format!(
            "the step was dispatched with no token for {resource}; declare a claim on it in the plan, or take one with \
             `qm2 claim` and name it with --token"
        );
        Failure::new(exit::FAILED, "no-token", message)
    })
}

/// A plain check, again and again while the store is away.
async fn check(
    mut client: Client,
    directory: &Path,
    request: &GuardRequest,
) -> Result<GuardVerdict, Failure> {
    loop {
        match client.call(&request.call()).await {
            Ok(Answer::Check(verdict)) => return Ok(verdict),
            Ok(_) => {
                return Err(Failure::host(
                    "host",
                    "the answer of another call; please report it",
                ));
            }
            Err(HostError::Closed) => return Ok(gone(directory)),
            Err(error) if error.retryable() => tokio::time::sleep(RETRY_AFTER).await,
            Err(error) => return Err(failure(error)),
        }
    }
}

/// An error of the call in the words of this command. None of them is a yes.
fn failure(error: HostError) -> Failure {
    match error {
        HostError::Call(CallError::Bound(blame)) => Failure::usage("invalid-field", blame.message),
        error => error.into(),
    }
}

/// Nobody watches the lease.
fn nobody(directory: &Path) -> GuardVerdict {
    no(format!(
        "no process runs the data directory {}, and a grant holds only while one does; `{} run PLAN` is one",
        directory.display(),
        command(directory)
    ))
}

fn gone(directory: &Path) -> GuardVerdict {
    no(format!(
        "the process that ran the data directory {} is gone, and a grant holds only while it runs",
        directory.display()
    ))
}

fn no(reason: String) -> GuardVerdict {
    GuardVerdict {
        allowed: false,
        reason,
        expires_ms: None,
    }
}

/// A no: for programs on stdout, for people on stderr, because the stdout of a step is its result.
fn refuse(verdict: &GuardVerdict, output: &Output) -> u8 {
    if output.is_json() {
        output.result(verdict, String::new);
    } else {
        output.note(&format!("refused: {}", verdict.reason));
    }
    exit::FAILED
}

fn stopped(reason: &str, output: &Output) {
    if output.is_json() {
        output.result(&json!({"allowed": false, "reason": reason}), String::new);
    } else {
        output.note(&format!("ended: {reason}"));
    }
}

/// What a shell would make of it.
fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(exit::FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_as_people_write_them() {
        assert_eq!(region("10..20"), Ok(Region { start: 10, end: 20 }));
        for wrong in [
            "", "10", "10..", "..20", "20..10", "5..5", "a..b", "1..2..3", "-1..2",
        ] {
            assert!(region(wrong).is_err(), "{wrong}");
        }
    }
}
