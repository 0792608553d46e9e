//! Looking at the queue of a folder, and settling its dead letters, also while another process sends from it.
//!
//! Touches no entry that is on its way, so the process that sends need not know.

use super::Evidence;
use super::entry::{DeadEntry, Entry};
use super::table::{OUTBOX, Table, count};
use crate::error::{HostError, Result};
use crate::paths;
use crate::sqlite::file;
use rusqlite::{Connection, TransactionBehavior};
use std::path::{Path, PathBuf};

/// What lies in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// On their way, oldest first; of those of one millisecond, one that was put back comes last.
    pub entries: Vec<Entry>,
    /// Given up, oldest first.
    pub dead_letters: Vec<DeadEntry>,
}

/// Reads the queue of a folder; one that was never made is empty.
///
/// # Errors
/// [`HostError::Data`] if it is damaged, [`HostError::NewerData`] if a newer version wrote it.
pub fn read(folder: &Path) -> Result<Contents> {
    let path = folder.join(paths::OUTBOX);
    if !path.exists() {
        return Ok(Contents::default());
    }
    let mut connection = file::open_for_reading(&OUTBOX, &path)?;
    // One state of both.
    let behavior = TransactionBehavior::Deferred;
    on_tables(&path, &mut connection, behavior, "read", |table| {
        Ok(Contents {
            entries: table.entries()?,
            dead_letters: table.dead()?,
        })
    })
}

/// Puts a dead letter back; see [`super::DurableQueue::replay`].
///
/// # Errors
/// [`HostError::Entry`] as there; [`HostError::Store`] if the store failed.
pub fn replay(folder: &Path, key: &str, evidence: Evidence, now_ms: u64) -> Result<()> {
    let not_sent = evidence == Evidence::NotSent;
    let done = write(folder, key, "replay", |table| {
        table.revive(key, not_sent, now_ms)
    });
    super::revived(key, &done?)
}

/// Drops a dead letter for good.
///
/// # Errors
/// As [`replay`].
pub fn drop_dead(folder: &Path, key: &str) -> Result<()> {
    let done = write(folder, key, "drop", |table| table.drop(key));
    super::dropped(key, done?)
}

fn write<T>(
    folder: &Path,
    key: &str,
    doing: &'static str,
    work: impl FnOnce(&mut Table<'_>) -> rusqlite::Result<T>,
) -> Result<T> {
    let path: PathBuf = folder.join(paths::OUTBOX);
    if !path.exists() {
        return Err(super::unknown(key, "is no dead letter"));
    }
    let mut connection = file::open_beside(&OUTBOX, &path)?;
    let behavior = TransactionBehavior::Immediate;
    on_tables(&path, &mut connection, behavior, doing, work)
}

fn on_tables<T>(
    path: &Path,
    connection: &mut Connection,
    behavior: TransactionBehavior,
    doing: &'static str,
    work: impl FnOnce(&mut Table<'_>) -> rusqlite::Result<T>,
) -> Result<T> {
    let run = || {
        let sql = connection.transaction_with_behavior(behavior)?;
        let done = work(&mut Table {
            count: &mut count(&sql)?,
            sql: &sql,
            // One dead letter more or less does not fill it, and who sends from it says what it forgets.
            entries_max: u64::MAX,
            keys_remembered: u64::MAX,
        })?;
        sql.commit()?;
        Ok(done)
    };
    run().map_err(|e: rusqlite::Error| HostError::Store {
        doing,
        message: format!("{}: {}", path.display(), file::advice(&OUTBOX, &e)),
    })
}
