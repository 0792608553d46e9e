//! Why a command could not do what it was asked: an exit code, a word for programs, a sentence for people.
//!
//! A plan that ends failed is not one of these: that is a result.

use super::exit;
use qm2_core::receipt::{CallError, Problem, Rejection, RejectionCode};
use qm2_host::HostError;
use std::fmt;

/// Why a command stopped.
#[derive(Debug)]
pub struct Failure {
    /// Exit code of the process.
    pub exit: u8,
    /// Word to branch on.
    pub code: String,
    /// What happened, where, and what to do.
    pub message: String,
    /// All errors of a refused plan.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// A failure without a list of problems.
    pub fn new(exit: u8, code: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            message: message.into(),
            problems: Vec::new(),
        }
    }

    /// Wrong arguments or input.
    pub fn usage(code: &str, message: impl Into<String>) -> Self {
        Self::new(exit::USAGE, code, message)
    }

    /// A fault of the host.
    pub fn host(code: &str, message: impl Into<String>) -> Self {
        Self::new(exit::HOST, code, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for problem in &self.problems {
            write!(f, "\n  {}", sentence(problem))?;
        }
        Ok(())
    }
}

/// A problem of a plan in one line.
pub fn sentence(problem: &Problem) -> String {
    let step = problem
        .step_id
        .as_deref()
        .map(|step_id| format!("step {step_id}: "))
        .unwrap_or_default();
    format!("{step}{} {}", problem.field, problem.message)
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let message = error.to_string();
        match error {
            HostError::Rejected(rejection) => (*rejection).into(),
            HostError::InvalidPlan(problems) => {
                let message = format!(
                    "the plan has {} error(s); nothing was recorded",
                    problems.len()
                );
                Self {
                    problems,
                    ..Self::usage("invalid-plan", message)
                }
            }
            HostError::LedgerBroken { .. } | HostError::Call(CallError::ReadOnly(_)) => {
                Self::new(exit::LEDGER_BROKEN, "ledger-broken", message)
            }
            HostError::AgentsFile { .. } | HostError::Glob { .. } | HostError::Hook { .. } => {
                Self::usage("invalid-agents", message)
            }
            HostError::Call(CallError::Unknown(_)) => Self::usage("unknown-coordination", message),
            HostError::Locked { .. } => Self::host("locked", message),
            HostError::NewerData { .. } => Self::host("newer-data", message),
            HostError::Data { .. } | HostError::Damaged { .. } => Self::host("data", message),
            HostError::Io { .. } => Self::host("io", message),
            HostError::Store { .. } => Self::host("store", message),
            HostError::ReadOnly { .. } => Self::host("read-only", message),
            HostError::Component(_) | HostError::ComponentFault { .. } => {
                Self::host("component-fault", message)
            }
            _ => Self::host("host", message),
        }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let message = rejection.to_string();
        let exit = match rejection.code {
            RejectionCode::InvalidField
            | RejectionCode::InvalidPlan
            | RejectionCode::UnknownCoordination
            | RejectionCode::UnknownStep => exit::USAGE,
            RejectionCode::ComponentFault => exit::HOST,
            _ => exit::FAILED,
        };
        Self {
            problems: rejection.problems,
            ..Self::new(exit, rejection.code.name(), message)
        }
    }
}
