//! The store in SQLite: write-ahead log, `synchronous=FULL`, one writer, any number of readers.
//!
//! A line that was damaged outside is handed on as it is, so that the hash chain can say which one it is.

use crate::error::{HostError, Result};
use crate::paths;
use crate::store::{DeadLetter, Note, Store, Transaction};
use qm2_core::digest::sha256_hex;
use qm2_core::message::Message;
use qm2_core::receipt::Head;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Marks the file as ours: "QM2" and a version of nothing.
const APPLICATION_ID: i64 = 0x514d_3200;
/// Version of the tables below.
const SCHEMA_VERSION: u64 = 1;
const SCHEMA: &str = "
CREATE TABLE ledger (seq INTEGER PRIMARY KEY, coordination_id TEXT, line TEXT NOT NULL);
CREATE INDEX ledger_of_coordination ON ledger (coordination_id, seq) WHERE coordination_id IS NOT NULL;
CREATE TABLE queue (key TEXT PRIMARY KEY, delivery INTEGER NOT NULL, message TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE note (key TEXT PRIMARY KEY, pid INTEGER NOT NULL, start_time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, letter TEXT NOT NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// A data directory's store.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
}

/// What the store must know of a line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    seq: u64,
    coordination_id: Option<String>,
}

impl SqliteStore {
    /// Opens the store of a data directory, and makes both where they are missing. Does not make this process the owner;
    /// [`crate::Domain`] does.
    ///
    /// # Errors
    /// [`HostError::Data`] if the file is not a store, [`HostError::NewerData`] if a newer version wrote it,
    /// [`HostError::Io`] if the directory cannot be made.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = paths::make_data_directory(directory)?.join(paths::STORE);
        let connection = open_for_writing(&path)?;
        Ok(Self { path, connection })
    }

    /// Opens the store of a data directory for reading, also while another process owns it.
    ///
    /// # Errors
    /// As [`SqliteStore::open`]; [`HostError::Data`] also if there is none.
    pub fn open_read_only(directory: &Path) -> Result<Self> {
        let path = directory.join(paths::STORE);
        if !path.exists() {
            let message = "holds no ledger; run a plan with this data directory first".into();
            let path = directory.to_path_buf();
            return Err(HostError::Data { path, message });
        }
        let open = |immutable: &str| {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            let connection = Connection::open_with_flags(uri(&path, immutable), flags)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok(connection)
        };
        // On a medium that cannot be written SQLite cannot make its shared memory; nobody can write there either.
        let connection = open("")
            .or_else(|e: rusqlite::Error| open("&immutable=1").map_err(|_| e))
            .map_err(|e| data_error(&path, &e))?;
        check_identity(&path, &connection)?;
        Ok(Self { path, connection })
    }

    fn select_lines(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<String>> {
        let read = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map(parameters, |row| lossy(row, 0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|e| store_error("read the ledger", &e))
    }

    /// One JSON text a row.
    fn select_json<T: for<'a> Deserialize<'a>>(
        &self,
        doing: &'static str,
        sql: &str,
    ) -> Result<Vec<T>> {
        let texts = self.select_lines(sql, []).map_err(|_| HostError::Store {
            doing,
            message: "a table cannot be read".into(),
        })?;
        texts
            .iter()
            .map(|text| {
                serde_json::from_str(text).map_err(|e| HostError::Store {
                    doing,
                    message: format!("an entry is damaged: {e}"),
                })
            })
            .collect()
    }
}

impl Store for SqliteStore {
    fn head(&self) -> Result<Head> {
        let sql = "SELECT line FROM ledger ORDER BY seq DESC LIMIT 1";
        let Some(line) = self.select_lines(sql, [])?.pop() else {
            return Ok(Head::default());
        };
        serde_json::from_str(&line).map_err(|e| HostError::Store {
            doing: "read the head of the ledger",
            message: format!("its last line is not a record: {e}"),
        })
    }

    fn lines(&self, after_seq: u64, max_count: usize) -> Result<Vec<String>> {
        let sql = "SELECT line FROM ledger WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        self.select_lines(sql, params![integer(after_seq), integer(max_count as u64)])
    }

    fn coordination_lines(&self, coordination_id: &str) -> Result<Vec<String>> {
        let sql = "SELECT line FROM ledger WHERE coordination_id = ?1 ORDER BY seq";
        self.select_lines(sql, params![coordination_id])
    }

    fn line(&self, seq: u64) -> Result<Option<String>> {
        let sql = "SELECT line FROM ledger WHERE seq = ?1";
        Ok(self.select_lines(sql, params![integer(seq)])?.pop())
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<()> {
        let failed = |e: rusqlite::Error| store_error("commit", &e);
        let sql = self.connection.transaction().map_err(failed)?;
        write_lines(&sql, &transaction.lines)?;
        write_rest(&sql, transaction).map_err(failed)?;
        sql.commit().map_err(failed)
    }

    fn reopen(&mut self) -> Result<()> {
        // The old connection may hold an open transaction; it ends with it.
        let empty = Connection::open_in_memory().map_err(|e| store_error("reopen", &e))?;
        drop(std::mem::replace(&mut self.connection, empty));
        self.connection = open_for_writing(&self.path)?;
        Ok(())
    }

    fn meta(&self, key: &str) -> Result<Option<String>> {
        self.connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
            .map_err(|e| store_error("read meta", &e))
    }

    fn set_meta(&mut self, key: &str, value: &str) -> Result<()> {
        let sql = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.connection
            .execute(sql, [key, value])
            .map(|_| ())
            .map_err(|e| store_error("write meta", &e))
    }

    fn queue(&self) -> Result<Vec<Message>> {
        self.select_json("read the queue", "SELECT message FROM queue ORDER BY key")
    }

    fn notes(&self) -> Result<Vec<Note>> {
        let read = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT key, pid, start_time FROM note ORDER BY key")?;
            let rows = statement.query_map([], |row| {
                Ok(Note {
                    key: row.get(0)?,
                    pid: row.get(1)?,
                    start_time: row.get::<_, i64>(2)?.unsigned_abs(),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(|e| store_error("read the notes", &e))
    }

    fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        self.select_json(
            "read the dead letters",
            "SELECT letter FROM dead_letter ORDER BY id",
        )
    }
}

/// Lines must follow the last one kept: anything else would be a ledger that nobody can read back.
fn write_lines(sql: &rusqlite::Transaction<'_>, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let failed = |e: rusqlite::Error| store_error("commit", &e);
    let refused = |message: String| HostError::Store {
        doing: "commit",
        message,
    };
    let last: i64 = sql
        .query_row("SELECT coalesce(max(seq), 0) FROM ledger", [], |row| {
            row.get(0)
        })
        .map_err(failed)?;
    let mut insert = sql
        .prepare_cached("INSERT INTO ledger VALUES (?1, ?2, ?3)")
        .map_err(failed)?;
    for (due, line) in (last.unsigned_abs() + 1..).zip(lines) {
        let place: Place = serde_json::from_str(line)
            .map_err(|e| refused(format!("record {due} is not a ledger line: {e}")))?;
        if place.seq != due {
            return Err(refused(format!(
                "record {} came where {due} is due",
                place.seq
            )));
        }
        insert
            .execute(params![integer(due), place.coordination_id, line])
            .map_err(failed)?;
    }
    Ok(())
}

fn write_rest(sql: &rusqlite::Transaction<'_>, transaction: &Transaction) -> rusqlite::Result<()> {
    if transaction.clear_queue {
        sql.execute("DELETE FROM queue", [])?;
    }
    for message in &transaction.enqueued {
        sql.prepare_cached(
            "INSERT INTO queue VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE
             SET delivery = excluded.delivery, message = excluded.message WHERE excluded.delivery > delivery",
        )?
        .execute(params![message.key, message.delivery, json(message)])?;
    }
    for key in &transaction.dequeued {
        sql.prepare_cached("DELETE FROM queue WHERE key = ?1")?
            .execute([key])?;
    }
    for note in &transaction.noted {
        sql.prepare_cached("INSERT OR REPLACE INTO note VALUES (?1, ?2, ?3)")?
            .execute(params![note.key, note.pid, integer(note.start_time)])?;
    }
    for key in &transaction.forgotten {
        sql.prepare_cached("DELETE FROM note WHERE key = ?1")?
            .execute([key])?;
    }
    for letter in &transaction.dead_letters {
        // The same report again is the same letter, whenever it comes.
        let digest = sha256_hex(&[json(&letter.envelope).as_bytes()]);
        sql.prepare_cached("INSERT OR IGNORE INTO dead_letter (digest, letter) VALUES (?1, ?2)")?
            .execute(params![digest, json(letter)])?;
    }
    Ok(())
}

fn open_for_writing(path: &Path) -> Result<Connection> {
    let opened = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // Also tests that the file is a database at all.
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((connection, tables))
    };
    let (mut connection, tables) = opened().map_err(|e| data_error(path, &e))?;
    let failed = |e: rusqlite::Error| data_error(path, &e);
    if tables == 0 {
        let sql = connection.transaction().map_err(failed)?;
        sql.execute_batch(SCHEMA).map_err(failed)?;
        sql.pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(failed)?;
        sql.pragma_update(None, "user_version", integer(SCHEMA_VERSION))
            .map_err(failed)?;
        sql.commit().map_err(failed)?;
    }
    check_identity(path, &connection)?;
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .map_err(failed)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    Ok(connection)
}

/// Ours, and of a version that this program knows.
fn check_identity(path: &Path, connection: &Connection) -> Result<()> {
    let pragma = |name: &str| {
        connection
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
            .map_err(|e| data_error(path, &e))
    };
    if pragma("application_id")? != APPLICATION_ID {
        let message = "is a database, but not one of qm2; name another data directory".into();
        let path = path.to_path_buf();
        return Err(HostError::Data { path, message });
    }
    let found = u64::try_from(pragma("user_version")?).unwrap_or(0);
    if found > SCHEMA_VERSION {
        let path = path.to_path_buf();
        return Err(HostError::NewerData {
            path,
            found,
            known: SCHEMA_VERSION,
        });
    }
    if found < SCHEMA_VERSION {
        let message =
            format!("has schema version {found}, which no released qm2 wrote; it is damaged");
        let path = path.to_path_buf();
        return Err(HostError::Data { path, message });
    }
    Ok(())
}

/// What opening says, with what to do about it.
fn data_error(path: &Path, error: &rusqlite::Error) -> HostError {
    let what_to_do = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not a qm2 ledger; name another data directory",
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            "it cannot be opened; check that you may read and write it and its directory"
        }
        Some(ErrorCode::DatabaseCorrupt) => "it is damaged; restore it from a copy",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it locked; end that program"
        }
        Some(ErrorCode::DiskFull) => "the disk is full",
        _ => "it cannot be used",
    };
    let message = format!("{what_to_do} ({error})");
    let path = path.to_path_buf();
    HostError::Data { path, message }
}

fn store_error(doing: &'static str, error: &rusqlite::Error) -> HostError {
    let message = error.to_string();
    HostError::Store { doing, message }
}

/// A path as SQLite's URI; every byte that means something there is escaped.
fn uri(path: &Path, options: &str) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02x}");
        }
    }
    uri + "?mode=ro" + options
}

/// A text column, whatever bytes are in it.
fn lossy(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Null => String::new(),
    })
}

/// SQLite's integers are signed; ours stay below 2^53.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Contract types hold no map with keys that are not text, so this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn line(seq: u64, coordination_id: &str) -> String {
        format!(r#"{{"v":1,"seq":{seq},"coordinationId":"{coordination_id}","hash":"{seq:064}"}}"#)
    }

    #[test]
    fn lines_come_back_in_order_and_by_coordination_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(store.head().unwrap(), Head::default());
        let lines = vec![line(1, "a"), line(2, "b"), line(3, "a")];
        store
            .commit(&Transaction {
                lines: lines.clone(),
                ..Transaction::default()
            })
            .unwrap();
        store.reopen().unwrap();
        assert_eq!(store.lines(1, 10).unwrap(), lines[1..]);
        assert_eq!(
            store.coordination_lines("a").unwrap(),
            [lines[0].clone(), lines[2].clone()]
        );
        assert_eq!(store.head().unwrap().seq, 3);
        let reader = SqliteStore::open_read_only(folder.path()).unwrap();
        assert_eq!(reader.line(2).unwrap().as_ref(), Some(&lines[1]));
        assert_eq!(reader.line(4).unwrap(), None);
    }

    #[test]
    fn lines_that_do_not_follow_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let lines = vec![line(1, "a"), line(3, "a")];
        let note = Note {
            key: "k".into(),
            pid: 1,
            start_time: 2,
        };
        let transaction = Transaction {
            lines,
            noted: vec![note.clone()],
            ..Transaction::default()
        };
        assert!(store.commit(&transaction).is_err());
        store.reopen().unwrap();
        assert_eq!(store.head().unwrap().seq, 0);
        assert!(store.notes().unwrap().is_empty());
        store
            .commit(&Transaction {
                noted: vec![note.clone()],
                ..Transaction::default()
            })
            .unwrap();
        assert_eq!(store.notes().unwrap(), [note]);
    }

    #[test]
    fn what_is_not_ours_or_newer_is_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(paths::STORE);
        fs::write(
            &path,
            "this is not a database, only some text that is long enough",
        )
        .unwrap();
        let says = SqliteStore::open(folder.path()).unwrap_err().to_string();
        assert!(says.contains("not a qm2 ledger"), "{says}");
        assert!(SqliteStore::open_read_only(folder.path()).is_err());
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            SqliteStore::open_read_only(folder.path()),
            Err(HostError::Data { .. })
        ));
        drop(SqliteStore::open(folder.path()).unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        let says = SqliteStore::open(folder.path()).unwrap_err().to_string();
        assert!(says.contains("99") && says.contains("up to 1"), "{says}");
    }
}
