//! The hash chain: does each line follow the one before it?
//!
//! Does not know what records mean; whether the rules allow one is tested in `legal.rs`.

use crate::digest::sha256_hex;
use crate::event::hashed_part;
use crate::receipt::{Head, LedgerFault, LedgerFaultKind};
use serde::Deserialize;

/// A ledger that is being verified line by line.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// The last line that held.
    pub head: Head,
}

#[derive(Deserialize)]
struct Link<'a> {
    seq: u64,
    prev: &'a str,
    hash: &'a str,
}

impl Chain {
    /// Tests the next line: its number, the hash before it, and its own.
    ///
    /// # Errors
    /// Names the number that the line should have had.
    pub fn push(&mut self, line: &str) -> Result<(), LedgerFault> {
        let seq = self.head.seq + 1;
        let broken = |message: String| LedgerFault {
            seq,
            kind: LedgerFaultKind::BrokenChain,
            message,
        };
        let link: Link<'_> = serde_json::from_str(line)
            .map_err(|error| broken(format!("is not a record: {error}")))?;
        if link.seq != seq {
            return Err(broken(format!("says seq {} where {seq} is due", link.seq)));
        }
        if link.prev != self.head.hash {
            return Err(broken(
                "prev is not the hash of the record before it".into(),
            ));
        }
        let Some(parts) = hashed_part(line) else {
            return Err(broken("does not end in a hash".into()));
        };
        let hash = sha256_hex(&parts);
        if link.hash != hash {
            return Err(broken(format!(
                "hash is {}, its content has {hash}",
                link.hash
            )));
        }
        self.head = Head { seq, hash };
        Ok(())
    }
}
