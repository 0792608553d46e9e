//! A store in SQLite whose commits a test may hold up or let fail.
//!
//! Everything else is the store's own.

use qm2_core::receipt::Head;
use qm2_host::Result;
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::{DeadLetter, Note, Store, Transaction};
use std::path::Path;

/// A store, and what a commit does in the place of [`Store::commit`].
pub struct Committing<C> {
    store: SqliteStore,
    commit: C,
}

impl<C: FnMut(&mut SqliteStore, &Transaction) -> Result<()> + Send> Committing<C> {
    /// The store of a data directory.
    pub fn with(directory: &Path, commit: C) -> Self {
        let store = SqliteStore::open(directory).expect("a store");
        Self { store, commit }
    }
}

impl<C: FnMut(&mut SqliteStore, &Transaction) -> Result<()> + Send> Store for Committing<C> {
    fn commit(&mut self, transaction: &Transaction) -> Result<()> {
        (self.commit)(&mut self.store, transaction)
    }
    fn reopen(&mut self) -> Result<()> {
        self.store.reopen()
    }
    fn head(&self) -> Result<Head> {
        self.store.head()
    }
    fn lines(&self, after_seq: u64, max_count: usize) -> Result<Vec<String>> {
        self.store.lines(after_seq, max_count)
    }
    fn coordination_lines(&self, coordination_id: &str) -> Result<Vec<String>> {
        self.store.coordination_lines(coordination_id)
    }
    fn line(&self, seq: u64) -> Result<Option<String>> {
        self.store.line(seq)
    }
    fn meta(&self, key: &str) -> Result<Option<String>> {
        self.store.meta(key)
    }
    fn set_meta(&mut self, key: &str, value: &str) -> Result<()> {
        self.store.set_meta(key, value)
    }
    fn notes(&self) -> Result<Vec<Note>> {
        self.store.notes()
    }
    fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        self.store.dead_letters()
    }
}
