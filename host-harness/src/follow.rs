//! Following the ledger of a data directory from any record on, without a gap and without a repeat, also while another
//! process writes it.
//!
//! Reads the store and nothing else: whoever writes never waits for a follower, however slow, and a follower that was killed
//! goes on at the number after the last that it has. Verifies the hash chain of what it reads; does not replay it.

use crate::error::{HostError, Result};
use crate::sqlite::SqliteStore;
use crate::store::Store;
use qm2_core::ledger::Chain;
use qm2_core::receipt::Head;
use std::path::Path;

/// Records read at once.
const BATCH: usize = 512;

/// Reads records in order.
pub struct Follower {
    store: Box<dyn Store>,
    chain: Chain,
}

impl Follower {
    /// Begins at a record, counted from 1, which may not be there yet; 0 is taken for 1.
    ///
    /// # Errors
    /// [`HostError::Data`] if there is nothing to follow in that directory; [`HostError::LedgerBroken`] if the record before
    /// the first is missing though later ones are there, or is none.
    pub fn open(directory: &Path, from_seq: u64) -> Result<Self> {
        Self::new(Box::new(SqliteStore::open_read_only(directory)?), from_seq)
    }

    /// As [`Follower::open`], of any store.
    ///
    /// # Errors
    /// As [`Follower::open`].
    pub fn new(store: Box<dyn Store>, from_seq: u64) -> Result<Self> {
        let before = from_seq.saturating_sub(1);
        let mut chain = Chain::default();
        if before > 0 {
            chain.head.seq = before;
            // Where it is not there yet, its hash is taken from the record after it: see `batch`.
            chain.head.hash = store
                .line(before)?
                .map_or_else(String::new, |line| hash_of(&line));
        }
        Ok(Self { store, chain })
    }

    /// The record after which this goes on.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.chain.head
    }

    /// The next records, in order and exactly as they were hashed; none where there are none yet.
    ///
    /// # Errors
    /// [`HostError::LedgerBroken`] at the first record that does not follow the one before it, or if the ledger has become
    /// shorter than what was read already; [`HostError::Store`] if it cannot be read.
    pub fn batch(&mut self) -> Result<Vec<String>> {
        let lines = self.store.lines(self.chain.head.seq, BATCH)?;
        if lines.is_empty() {
            return self.check_not_shorter().map(|()| lines);
        }
        if self.chain.head.hash.is_empty() {
            // Begun behind the end of the ledger: what lies between is passed over.
            let before = self.store.line(self.chain.head.seq)?;
            self.chain.head.hash = before.as_deref().map_or_else(String::new, hash_of);
        }
        for line in &lines {
            if let Err(fault) = self.chain.push(line) {
                return Err(HostError::LedgerBroken {
                    seq: fault.seq,
                    reason: fault.message,
                });
            }
        }
        Ok(lines)
    }

    /// Another ledger in the same place is not the one that was followed.
    fn check_not_shorter(&self) -> Result<()> {
        let Head { seq, hash } = &self.chain.head;
        if hash.is_empty() || *seq == 0 {
            return Ok(());
        }
        match self.store.line(*seq)? {
            Some(line) if hash_of(&line) == *hash => Ok(()),
            _ => Err(HostError::LedgerBroken {
                seq: *seq,
                reason: "was read before and is not there any more".into(),
            }),
        }
    }
}

/// What a line says that its hash is.
fn hash_of(line: &str) -> String {
    let rest = line.strip_suffix("\"}").unwrap_or_default();
    rest.rsplit('"').next().unwrap_or_default().to_owned()
}
