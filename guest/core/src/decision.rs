//! What `decide` answers to one input: drafts to record, and what the caller gets for it.
//!
//! Holds no rule.

use crate::draft::Draft;
use crate::receipt::{Receipt, ReceiptStatus, Rejection};

/// Answer to one input, before its records have numbers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A receipt with the state after the records; its seq is that of the first of them.
    Took(ReceiptStatus),
    /// A receipt that is known already.
    Known(Receipt),
    /// A refusal; its seq is that of the record, where there is one.
    Refused(Rejection),
}

/// The decision on one input.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) answer: Answer,
}

impl Decision {
    /// It takes effect.
    pub(crate) fn accept(drafts: Vec<Draft>) -> Self {
        Self {
            drafts,
            answer: Answer::Took(ReceiptStatus::Accepted),
        }
    }

    /// It changes nothing; the receipt shows the present state.
    pub(crate) fn replay(state: &str) -> Self {
        let receipt = Receipt {
            status: ReceiptStatus::Replayed,
            seq: None,
            state: state.to_owned(),
        };
        Self {
            drafts: Vec::new(),
            answer: Answer::Known(receipt),
        }
    }

    /// It is refused, with nothing recorded.
    pub(crate) fn refuse(rejection: Rejection) -> Self {
        Self {
            drafts: Vec::new(),
            answer: Answer::Refused(rejection),
        }
    }
}
