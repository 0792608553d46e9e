//! Where a host's messages part: those that carry an envelope for QM2, and all others, which pass as they are.
//!
//! An envelope stands in the member `qm2` of a JSON object. Whatever has no such member is none of QM2's business, is not
//! parsed further, and comes out as the very bytes that went in.

use qm2_core::envelope::Envelope;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt;

/// The feature gate at the place where messages come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Whether envelopes are looked for at all.
    pub is_open: bool,
}

/// What came in.
#[derive(Clone, Debug, PartialEq)]
pub enum Passed<'a> {
    /// The message, as it was.
    Untouched(&'a [u8]),
    /// An envelope, to be submitted.
    Envelope(Box<Envelope>),
}

/// A message with a member `qm2` that is no envelope. It is neither passed on nor submitted: its sender meant QM2 and must
/// hear that it was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMessage(
    /// What is wrong, and where.
    pub String,
);

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the message has a member qm2 that is no envelope: {}",
            self.0
        )
    }
}

impl std::error::Error for BadMessage {}

/// The one member that matters.
#[derive(Deserialize)]
struct Carrier<'a> {
    #[serde(borrow)]
    qm2: Option<&'a RawValue>,
}

impl Passage {
    /// Looks whether a message carries an envelope. With the gate off none does.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn pass<'a>(&self, message: &'a [u8]) -> Result<Passed<'a>, BadMessage> {
        // Most messages need no parser: a member's name stands in them as it is, or with an escape.
        let may_carry = || {
            let has = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
            has(b"qm2") || has(b"\\u")
        };
        if !self.is_open || !may_carry() {
            return Ok(Passed::Untouched(message));
        }
        match serde_json::from_slice::<Carrier>(message) {
            Ok(Carrier { qm2: Some(text) }) => serde_json::from_str(text.get())
                .map(Passed::Envelope)
                .map_err(|e| BadMessage(e.to_string())),
            // Not JSON, no object, or without that member.
            Ok(Carrier { qm2: None }) | Err(_) => Ok(Passed::Untouched(message)),
        }
    }
}
