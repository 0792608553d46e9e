//! What is said at the end of an attempt: a report, and how the end of a command is read as one.
//!
//! Reads text and exit codes only; does not run anything and keeps no content (`process` and `payload` do).

use qm2_core::envelope::{Envelope, Extension, FailureClass, Intent, Outcome, PayloadRef};
use qm2_core::id::check_id;
use qm2_core::limit;
use serde::Deserialize;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Exit codes that say that no other attempt will do better: usage, data and permission errors, configuration, not
/// executable, not found.
const PERMANENT_CODES: [i32; 6] = [64, 65, 77, 78, 126, 127];

/// What an agent says at the end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Completed or failed.
    pub outcome: Outcome,
    /// Media type of the payload.
    #[serde(default)]
    pub content_type: Option<String>,
    /// The result as text. What is too large for an envelope is put into the data directory and referred to.
    #[serde(default)]
    pub payload: Option<String>,
    /// A result that is kept elsewhere.
    #[serde(default)]
    pub payload_ref: Option<PayloadRef>,
    /// Carried through untouched.
    #[serde(default)]
    pub extensions: Vec<Extension>,
}

impl Report {
    /// The work is done, with this result.
    #[must_use]
    pub fn completed(payload: impl Into<String>) -> Self {
        let payload = Some(payload.into());
        Self {
            outcome: Outcome::Completed,
            content_type: None,
            payload,
            payload_ref: None,
            extensions: Vec::new(),
        }
    }

    /// The work failed. The code must have the form of an id; a message over 1 KiB is cut.
    #[must_use]
    pub fn failed(class: FailureClass, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Self {
            outcome: Outcome::Failed {
                class,
                code,
                message,
            },
            content_type: None,
            payload: None,
            payload_ref: None,
            extensions: Vec::new(),
        }
    }

    /// A new attempt may succeed.
    #[must_use]
    pub fn retryable(code: &str, message: impl Into<String>) -> Self {
        Self::failed(FailureClass::Retryable, code, message)
    }

    /// No attempt can succeed.
    #[must_use]
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self::failed(FailureClass::Permanent, code, message)
    }

    /// What is wrong with the report that an agent made. No attempt will make a better one.
    pub(crate) fn bad(says: impl Into<String>) -> Self {
        Self::permanent("bad-report", says)
    }

    /// The work is done; its result is kept elsewhere.
    pub(crate) fn kept(reference: PayloadRef) -> Self {
        Self {
            payload: None,
            payload_ref: Some(reference),
            ..Self::completed("")
        }
    }

    /// What a command that succeeded printed: a report of its own making, or the result.
    pub(crate) fn of_output(text: String) -> Self {
        own_report(&text).unwrap_or_else(|| Self::completed(text))
    }

    /// Moves the text out where it is longer than an envelope may carry: `keep` puts it elsewhere and gives the reference.
    ///
    /// # Errors
    /// Those of `keep`.
    pub(crate) fn bound<E>(
        &mut self,
        bytes_max: u64,
        keep: impl FnOnce(&[u8]) -> Result<PayloadRef, E>,
    ) -> Result<(), E> {
        if let Some(text) = &self.payload
            && text.len() as u64 > bytes_max
            && self.payload_ref.is_none()
        {
            self.payload_ref = Some(keep(text.as_bytes())?);
            self.payload = None;
        }
        Ok(())
    }

    /// What the end of a command that did not succeed means, with the last that it wrote on stderr.
    pub(crate) fn of_failure(status: ExitStatus, stderr: &[u8]) -> Self {
        let mut says = String::from_utf8_lossy(stderr).trim_end().to_owned();
        cut_to_tail(&mut says, limit::TEXT_BYTES_MAX);
        match (status.code(), status.signal()) {
            (Some(code), _) if PERMANENT_CODES.contains(&code) => {
                Self::permanent(&format!("exit-{code}"), says)
            }
            (Some(code), _) => Self::retryable(&format!("exit-{code}"), says),
            (None, signal) => {
                Self::retryable(&format!("signal-{}", signal.unwrap_or_default()), says)
            }
        }
    }

    /// The envelope of this report, within the bounds that do not depend on what the agent had to say.
    pub(crate) fn into_envelope(mut self, execute: &Envelope) -> Envelope {
        if let Outcome::Failed { code, message, .. } = &mut self.outcome {
            if check_id(code).is_err() {
                tracing::warn!(
                    "the failure code {code:?} is not in the form of an id; reported as `failed`"
                );
                "failed".clone_into(code);
            }
            cut_to_tail(message, limit::TEXT_BYTES_MAX);
        }
        Envelope {
            outcome: Some(self.outcome),
            content_type: self.content_type,
            payload: self.payload,
            payload_ref: self.payload_ref,
            extensions: self.extensions,
            ..reply(execute, Intent::Report)
        }
    }
}

impl From<String> for Report {
    fn from(payload: String) -> Self {
        Self::completed(payload)
    }
}

impl From<&str> for Report {
    fn from(payload: &str) -> Self {
        Self::completed(payload)
    }
}

/// A JSON object with an `outcome` is a report; one that is wrong is said to be, and never taken for a result.
fn own_report(text: &str) -> Option<Report> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.as_object()?.get("outcome")?;
    let refused =
        |says: String| Report::bad(format!("the report that it printed is wrong: {says}"));
    Some(match serde_json::from_value::<Report>(value) {
        Ok(report) if matches!(report.outcome, Outcome::Progress { .. }) => {
            refused("progress is not an end".into())
        }
        Ok(report) => report,
        Err(e) => refused(e.to_string()),
    })
}

/// An envelope back to who sent this one, under its priority.
pub(crate) fn reply(execute: &Envelope, intent: Intent) -> Envelope {
    Envelope {
        coordination_id: execute.coordination_id.clone(),
        step_id: execute.step_id.clone(),
        parent_step_id: None,
        attempt: execute.attempt,
        source_session: execute.target_session.clone(),
        target_session: execute.source_session.clone(),
        intent,
        priority: execute.priority,
        delivery_mode: execute.delivery_mode,
        deadline_ms: None,
        created_at_ms: 0,
        trace: execute.trace.clone(),
        content_type: None,
        payload: None,
        payload_ref: None,
        extensions: Vec::new(),
        outcome: None,
        reason: None,
        question: None,
        tokens: Vec::new(),
    }
}

/// Keeps the last bytes of a text, from a character's beginning on.
pub(crate) fn cut_to_tail(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let from = text.ceil_char_boundary(text.len() - bytes_max);
        text.drain(..from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_its_tail_from_a_whole_character_on() {
        let mut text = "aéé".to_owned();
        cut_to_tail(&mut text, 3);
        assert_eq!(text, "é");
        cut_to_tail(&mut text, 2);
        assert_eq!(text, "é");
    }
}
