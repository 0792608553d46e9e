//! What a durable store must do for a domain: a small trait, so that another engine than SQLite fits.
//!
//! A store keeps; it does not verify the ledger and does not know what lines mean beyond their number and coordination.
//! Messages are not kept beside the ledger: `reconcile` says from it what is out.

use crate::error::Result;
use qm2_core::digest::sha256_hex;
use qm2_core::envelope::Envelope;
use qm2_core::receipt::Head;
use serde::{Deserialize, Serialize};

/// Everything that becomes durable at once: all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    /// Ledger lines, following the last one kept.
    pub lines: Vec<String>,
    /// Processes about to run.
    pub noted: Vec<Note>,
    /// Keys of processes whose end is settled.
    pub forgotten: Vec<String>,
    /// Reports that came when their coordination was closed.
    pub dead_letters: Vec<DeadLetter>,
    /// Ids of dead letters that nobody needs any more.
    pub dropped_letters: Vec<String>,
}

impl Transaction {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A command agent's process, noted before it may do anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Idempotency key of the attempt that it runs.
    pub key: String,
    /// Its process id, which is also that of its process group.
    pub pid: u32,
    /// When it started, in seconds since the epoch as the system tells it; tells a reused pid apart.
    pub start_time: u64,
}

/// A report that had no effect because its coordination was closed. Kept, and shown by `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// When it came in.
    pub at_ms: u64,
    /// The report.
    pub envelope: Envelope,
    /// The refusal, as a sentence.
    pub reason: String,
}

impl DeadLetter {
    /// What tells it from others: the digest of its envelope. The same report again is the same letter, whenever it comes.
    #[must_use]
    pub fn id(&self) -> String {
        // Contract types hold no map with keys that are not text, so this cannot fail.
        let envelope = serde_json::to_string(&self.envelope).unwrap_or_default();
        sha256_hex(&[envelope.as_bytes()])
    }
}

/// The state after a record, so that what came before need not be replayed. Never the only home of anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last record that it covers.
    pub head: Head,
    /// Pieces for `restore`, in order.
    pub chunks: Vec<String>,
    /// Digest of all that, and of the component that said it.
    pub digest: String,
}

/// What [`Store::keep_snapshot_part`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKept {
    /// A part of it; there is more to do.
    Part,
    /// All of it.
    Done,
}

impl Snapshot {
    pub(crate) fn new(component_digest: &str, head: Head, chunks: Vec<String>) -> Self {
        let digest = Self::digest(component_digest, &head, &chunks);
        Self {
            head,
            chunks,
            digest,
        }
    }

    /// Whether it is what this very component once said, whole and unchanged.
    pub(crate) fn is_sound(&self, component_digest: &str) -> bool {
        self.digest == Self::digest(component_digest, &self.head, &self.chunks)
    }

    /// Bytes of all its pieces.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.iter().map(String::len).sum()
    }

    fn digest(component: &str, head: &Head, chunks: &[String]) -> String {
        let chunks: Vec<String> = chunks
            .iter()
            .map(|chunk| sha256_hex(&[chunk.as_bytes()]))
            .collect();
        let of = format!("{component} {} {} {chunks:?}", head.seq, head.hash);
        sha256_hex(&[of.as_bytes()])
    }
}

/// A durable store with one writer.
pub trait Store: Send {
    /// The last line kept. Its hash is what the line says, unverified.
    ///
    /// # Errors
    /// The store failed.
    fn head(&self) -> Result<Head>;

    /// Lines after a number, in order, at most so many.
    ///
    /// # Errors
    /// The store failed.
    fn lines(&self, after_seq: u64, max_count: usize) -> Result<Vec<String>>;

    /// All lines of one coordination, in order.
    ///
    /// # Errors
    /// The store failed.
    fn coordination_lines(&self, coordination_id: &str) -> Result<Vec<String>>;

    /// One line.
    ///
    /// # Errors
    /// The store failed.
    fn line(&self, seq: u64) -> Result<Option<String>>;

    /// Makes everything in the transaction durable before it answers.
    ///
    /// # Errors
    /// The store failed; whether the transaction was kept is unknown until [`Store::reopen`].
    fn commit(&mut self, transaction: &Transaction) -> Result<()>;

    /// Opens the store anew after a failed commit.
    ///
    /// # Errors
    /// The store failed.
    fn reopen(&mut self) -> Result<()>;

    /// A named value.
    ///
    /// # Errors
    /// The store failed.
    fn meta(&self, key: &str) -> Result<Option<String>>;

    /// Keeps a named value.
    ///
    /// # Errors
    /// The store failed.
    fn set_meta(&mut self, key: &str, value: &str) -> Result<()>;

    /// Noted processes, by key.
    ///
    /// # Errors
    /// The store failed.
    fn notes(&self) -> Result<Vec<Note>>;

    /// Dead letters, oldest first.
    ///
    /// # Errors
    /// The store failed.
    fn dead_letters(&self) -> Result<Vec<DeadLetter>>;

    /// A second way in, for reading on another thread while this one writes. A store without one gets no snapshots.
    ///
    /// # Errors
    /// The store failed.
    fn reader(&self) -> Result<Option<Box<dyn Store>>> {
        Ok(None)
    }

    /// The snapshot that is kept, as it is.
    ///
    /// # Errors
    /// The store failed.
    fn snapshot(&self) -> Result<Option<Snapshot>> {
        Ok(None)
    }

    /// Keeps a snapshot in the place of any other, or only drops that.
    ///
    /// # Errors
    /// The store failed.
    fn set_snapshot(&mut self, _snapshot: Option<&Snapshot>) -> Result<()> {
        Ok(())
    }

    /// Keeps a snapshot as [`Store::set_snapshot`] does, but part by part, so that commits come in between: one of a large
    /// domain takes a while. Called with 0, 1, 2 and so on, until it answers that nothing is left to do. Until it is whole, the one
    /// before is the one that is kept.
    ///
    /// # Errors
    /// The store failed, or the parts before are gone.
    fn keep_snapshot_part(&mut self, snapshot: &Snapshot, _part: usize) -> Result<PartKept> {
        self.set_snapshot(Some(snapshot))?;
        Ok(PartKept::Done)
    }
}
