//! What can go wrong in the host, in words for people and in variants for programs.
//!
//! A refusal by the component's rules is an answer ([`Rejection`]), not an error of the host; it becomes one only in
//! calls that promise more than an answer, such as [`crate::Domain::run`].

use qm2_core::receipt::{CallError, Problem, Rejection};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of a call to the host.
pub type Result<T, E = HostError> = std::result::Result<T, E>;

/// Why the host could not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum HostError {
    /// A file or folder could not be used.
    Io {
        /// What was being done, such as "create the data directory".
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory holds something that is not this program's, or cannot be used.
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// The data directory is damaged, and stays so.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The data directory was written by a newer version.
    NewerData {
        /// The file.
        path: PathBuf,
        /// Schema version of the file.
        found: u64,
        /// Newest schema version that this program knows.
        known: u64,
    },
    /// Another process owns the data directory.
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The owner, where it wrote its process id.
        pid: Option<u32>,
    },
    /// The stored ledger does not verify. Nothing is repaired; the store still opens for reading.
    LedgerBroken {
        /// The first bad record.
        seq: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The domain answers reading calls only.
    ReadOnly {
        /// Why, and what to do.
        reason: String,
    },
    /// The store failed.
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the store said.
        message: String,
    },
    /// The commit of the call failed or its result is unknown. Sending the same again is safe: identities are kept.
    Retry,
    /// The whole call was refused by the component.
    Call(CallError),
    /// The input was refused by the component's rules.
    Rejected(Box<Rejection>),
    /// The plan has errors.
    InvalidPlan(Vec<Problem>),
    /// The component could not be loaded or an instance could not be made.
    Component(String),
    /// The component failed twice on this input.
    ComponentFault {
        /// The exported function.
        call: &'static str,
        /// What happened.
        message: String,
    },
    /// An agents file is wrong.
    AgentsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        message: String,
    },
    /// A glob over sessions is wrong.
    Glob {
        /// The glob.
        glob: String,
        /// What is wrong with it.
        message: String,
    },
    /// A handler of hooks is wrong.
    Hook {
        /// Its name.
        name: String,
        /// What is wrong, and what is allowed.
        message: String,
    },
    /// An entry of the durable queue is not there, or must not be put there as it is.
    Entry {
        /// Its key.
        key: String,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// This call is not for callers: the host itself makes it.
    HostOnly {
        /// The exported function.
        call: &'static str,
    },
    /// The domain was closed.
    Closed,
    /// The process that owns the data directory answered with an error that has no better form here.
    Remote {
        /// What it said.
        message: String,
        /// Whether it said that trying again can help.
        retryable: bool,
    },
}

impl HostError {
    /// Whether the same call can succeed later without anything being changed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Retry | Self::Locked { .. } | Self::Store { .. } => true,
            Self::Call(error) => matches!(error, CallError::Busy | CallError::Rebuild),
            Self::Remote { retryable, .. } => *retryable,
            _ => false,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        Self::Io {
            doing,
            path,
            source,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                doing,
                path,
                source,
            } => {
                write!(f, "could not {doing} {}: {source}", path.display())?;
                f.write_str(what_to_do(source))
            }
            Self::Data { path, message } => write!(f, "{}: {message}", path.display()),
            Self::Damaged { path, message } => write!(
                f,
                "{}: {message}; it is damaged, restore it from a copy",
                path.display()
            ),
            Self::NewerData { path, found, known } => write!(
                f,
                "{} has schema version {found}, but this program knows versions up to {known}: use a newer qm2",
                path.display()
            ),
            Self::Locked { path, pid } => {
                write!(f, "{} is in use by another process", path.display())?;
                if let Some(pid) = pid {
                    write!(f, " (pid {pid})")?;
                }
                f.write_str("; end it, or use another data directory")
            }
            Self::LedgerBroken { seq, reason } => write!(
                f,
                "the ledger is broken at record {seq}: {reason}; nothing was changed, `qm2 ledger verify` tells more"
            ),
            Self::ReadOnly { reason } => write!(f, "the domain is read-only: {reason}"),
            Self::Store { doing, message } => write!(f, "the store could not {doing}: {message}"),
            Self::Retry => f.write_str(
                "the call could not be made durable, or it is unknown whether it was; send the same again",
            ),
            Self::Call(error) => error.fmt(f),
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::InvalidPlan(problems) => {
                write!(f, "the plan has {} error(s)", problems.len())?;
                for problem in problems {
                    f.write_str("\n  ")?;
                    if let Some(step) = &problem.step_id {
                        write!(f, "step {step}: ")?;
                    }
                    write!(f, "{}: {}", problem.field, problem.message)?;
                }
                Ok(())
            }
            Self::Component(message) => write!(f, "the component could not be loaded: {message}"),
            Self::ComponentFault { call, message } => write!(
                f,
                "component-fault: the component failed twice in {call}: {message}; nothing was recorded, please report it with the ledger"
            ),
            Self::AgentsFile { path, message } => {
                write!(f, "agents file {}: {message}", path.display())
            }
            Self::Glob { glob, message } => write!(f, "session glob {glob:?}: {message}"),
            Self::Hook { name, message } => write!(f, "hook {name:?}: {message}"),
            Self::Entry { key, message } => write!(f, "queue entry {key:?}: {message}"),
            Self::HostOnly { call } => write!(f, "{call} is made by the host itself, not by callers"),
            Self::Closed => f.write_str("the domain is closed"),
            Self::Remote { message, .. } => f.write_str(message),
        }
    }
}

/// What a person can do about what the system said; nothing where that says it itself.
fn what_to_do(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on the disk and try again"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; check that you may write there, or use another place"
        }
        _ if error.raw_os_error() == Some(EIO) => {
            "; see what the system says of the disk, and try again"
        }
        _ => "",
    }
}

/// The error of a disk that is broken, for which the standard library has no name; the same number on every Unix.
const EIO: i32 = 5;

impl std::error::Error for HostError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Call(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CallError> for HostError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Rejection> for HostError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(Box::new(rejection))
    }
}
