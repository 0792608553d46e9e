//! What the process of a running step knows of itself: its `QM2_*` variables, read for the commands that it may call.
//!
//! Asks nobody; whether the step still runs is the component's word.

use super::failure::Failure;
use qm2_core::message::Caller;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Where the data directory is if nobody says so.
pub const DEFAULT_DATA: &str = ".qm2";

/// One attempt of a step, from the inside.
#[derive(Clone, Debug)]
pub struct AgentEnv {
    /// `QM2_COORDINATION_ID`.
    pub coordination_id: String,
    /// `QM2_STEP_ID`.
    pub step_id: String,
    /// `QM2_ATTEMPT`, from 1.
    pub attempt: u32,
    /// `QM2_SESSION`: the session that the step runs in.
    pub session: String,
}

impl AgentEnv {
    /// Reads it, for the command of this name.
    ///
    /// # Errors
    /// A usage error that names the variable that is missing or wrong.
    pub fn read(command: &str) -> Result<Self, Failure> {
        let required = |name: &str| {
            variable(name).ok_or_else(|| {
                let message = format!(
                    "{name} is not set; `qm2 {command}` is for the process of a running step, which gets the QM2_* \
                     variables from `qm2 run`"
                );
                Failure::usage("not-an-agent", message)
            })
        };
        let attempt = required("QM2_ATTEMPT")?;
        Ok(Self {
            coordination_id: required("QM2_COORDINATION_ID")?,
            step_id: required("QM2_STEP_ID")?,
            attempt: attempt.parse().map_err(|_| {
                let message =
                    format!("QM2_ATTEMPT is {attempt:?}; the number of the attempt is expected");
                Failure::usage("not-an-agent", message)
            })?,
            session: required("QM2_SESSION")?,
        })
    }

    /// The step as the component knows callers.
    pub fn caller(&self) -> Caller {
        Caller {
            session: self.session.clone(),
            role: None,
        }
    }
}

/// The data directory of a command that a step's process may call: the one that was named, else that of the step, else
/// the usual one.
pub fn directory(given: Option<&Path>) -> PathBuf {
    match (given, variable("QM2_DATA")) {
        (Some(given), _) => given.to_path_buf(),
        (None, Some(data)) => PathBuf::from(data),
        (None, None) => PathBuf::from(DEFAULT_DATA),
    }
}

/// A variable that is set to something.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `QM2_TOKENS`: the resources that the step was dispatched with, and their fencing tokens; nothing if it is not set.
///
/// # Errors
/// A usage error if it is not what `qm2 run` sets.
pub fn tokens() -> Result<Option<Vec<(String, u64)>>, Failure> {
    let Some(text) = variable("QM2_TOKENS") else {
        return Ok(None);
    };
    let wrong = || {
        let message = "QM2_TOKENS is not a JSON object of resources and tokens, as `qm2 run` sets it; name the token with \
                       --token";
        Failure::usage("not-an-agent", message)
    };
    let tokens: Map<String, Value> = serde_json::from_str(&text).map_err(|_| wrong())?;
    let tokens = tokens
        .into_iter()
        .map(|(resource, token)| Some((resource, token.as_u64()?)));
    tokens.collect::<Option<_>>().map(Some).ok_or_else(wrong)
}
