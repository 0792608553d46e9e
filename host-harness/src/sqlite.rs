//! The store in SQLite: write-ahead log, `synchronous=FULL`, one writer, any number of readers.
//!
//! A line that was damaged outside is handed on, so that the hash chain can say which one it is; one that is no text any
//! more is handed on behind a mark that no record begins with.

pub(crate) mod file;
mod log;
mod parts;

use crate::error::{HostError, Result};
use crate::line_head::LineHead;
use crate::paths;
use crate::store::{DeadLetter, Note, PartKept, Snapshot, Store, Transaction};
use qm2_core::receipt::Head;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The ledger and everything that becomes durable with it. The mark is "QM2" and a zero.
const LEDGER: file::Kind = file::Kind {
    application_id: 0x514d_3200,
    version: 1,
    schema: "
CREATE TABLE ledger (seq INTEGER PRIMARY KEY, coordination_id TEXT, line TEXT NOT NULL);
CREATE INDEX ledger_of_coordination ON ledger (coordination_id, seq) WHERE coordination_id IS NOT NULL;
CREATE TABLE note (key TEXT PRIMARY KEY, pid INTEGER NOT NULL, start_time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, letter TEXT NOT NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE snapshot (part INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash TEXT NOT NULL, digest TEXT NOT NULL,
    chunk TEXT NOT NULL);
",
    // A snapshot is never the only home of anything.
    optional: &["snapshot"],
    name: "qm2 ledger",
};

/// Before a stored line that is not UTF-8 text.
const NOT_TEXT: &str = "not UTF-8 text: ";

/// A data directory's store.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    /// None between a failed commit and the day when the file can be opened again.
    connection: Option<Connection>,
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
    /// [`HostError::Data`] if the file is not a store, [`HostError::Damaged`], [`HostError::NewerData`] if a newer version wrote it,
    /// [`HostError::Io`] if the directory cannot be made.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = paths::make_data_directory(directory)?.join(paths::STORE);
        let connection = file::open_for_writing(&LEDGER, &path)?;
        let mut store = Self {
            path,
            connection: None,
        };
        store.use_connection(connection)?;
        Ok(store)
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
        let connection = Some(file::open_for_reading(&LEDGER, &path)?);
        Ok(Self { path, connection })
    }

    fn use_connection(&mut self, mut connection: Connection) -> Result<()> {
        log::tend(&mut connection, &self.path).map_err(self.failed("open"))?;
        self.connection = Some(connection);
        Ok(())
    }

    fn connection(&self, doing: &'static str) -> Result<&Connection> {
        self.connection
            .as_ref()
            .ok_or_else(|| away(&self.path, doing))
    }

    fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> HostError + use<> {
        failed(&self.path, doing)
    }

    fn select_lines(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<String>> {
        self.select_texts("read the ledger", sql, parameters)
    }

    fn select_texts(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<String>> {
        let connection = self.connection(doing)?;
        let read = || {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(parameters, |row| text(row, 0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed(doing))
    }

    /// One JSON text a row.
    fn select_json<T: for<'a> Deserialize<'a>>(
        &self,
        doing: &'static str,
        sql: &str,
    ) -> Result<Vec<T>> {
        let texts = self.select_texts(doing, sql, [])?;
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
        let sql = "SELECT seq, line FROM ledger ORDER BY seq DESC LIMIT 1";
        let doing = "read the head of the ledger";
        let last = self
            .connection(doing)?
            .query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, text(row, 1)?)))
            .optional()
            .map_err(self.failed(doing))?;
        let Some((seq, line)) = last else {
            return Ok(Head::default());
        };
        serde_json::from_str(&line).map_err(|e| HostError::LedgerBroken {
            seq: seq.unsigned_abs(),
            reason: format!("is not a record: {e}"),
        })
    }

    fn lines(&self, after_seq: u64, max_count: usize) -> Result<Vec<String>> {
        let sql = "SELECT line FROM ledger WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        self.select_lines(sql, params![integer(after_seq), integer(max_count as u64)])
    }

    fn coordination_lines(&self, coordination_id: &str) -> Result<Vec<String>> {
        let sql = "SELECT line FROM ledger WHERE coordination_id = ?1 ORDER BY seq";
        let mut lines = self.select_lines(sql, params![coordination_id])?;
        // The column is no part of the chain: it only finds, the line itself says whose it is. With a column that was changed
        // outside a line may be missing here, but none can be passed off as another's; replay, which decides everything,
        // does not look at it, and `ledger verify` finds the change.
        lines.retain(|line| match serde_json::from_str::<Place>(line) {
            Ok(place) => place.coordination_id.as_deref() == Some(coordination_id),
            // A damaged one stays to be seen.
            Err(_) => true,
        });
        Ok(lines)
    }

    fn line(&self, seq: u64) -> Result<Option<String>> {
        let sql = "SELECT line FROM ledger WHERE seq = ?1";
        Ok(self.select_lines(sql, params![integer(seq)])?.pop())
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<()> {
        let failed = self.failed("commit");
        let Some(connection) = &mut self.connection else {
            return Err(away(&self.path, "commit"));
        };
        // Statements that are kept, and not those of the library, which SQLite would read anew each time.
        run_kept(connection, "BEGIN").map_err(&failed)?;
        let done = write_lines(connection, &transaction.lines, &failed)
            .and_then(|()| write_rest(connection, transaction).map_err(&failed))
            .and_then(|()| run_kept(connection, "COMMIT").map_err(&failed));
        if done.is_err() {
            // Where that fails, too, it ends with the connection.
            let _ = run_kept(connection, "ROLLBACK");
        }
        done
    }

    fn reopen(&mut self) -> Result<()> {
        // The old connection may hold an open transaction; it ends with it.
        self.connection = None;
        self.use_connection(file::open_after_failure(&LEDGER, &self.path)?)
    }

    fn meta(&self, key: &str) -> Result<Option<String>> {
        self.connection("read meta")?
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
            .map_err(self.failed("read meta"))
    }

    fn set_meta(&mut self, key: &str, value: &str) -> Result<()> {
        let sql = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.connection("write meta")?
            .execute(sql, [key, value])
            .map(|_| ())
            .map_err(self.failed("write meta"))
    }

    fn notes(&self) -> Result<Vec<Note>> {
        let connection = self.connection("read the notes")?;
        let read = || {
            let mut statement =
                connection.prepare_cached("SELECT key, pid, start_time FROM note ORDER BY key")?;
            let rows = statement.query_map([], |row| {
                Ok(Note {
                    key: row.get(0)?,
                    pid: row.get(1)?,
                    start_time: row.get::<_, i64>(2)?.unsigned_abs(),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(self.failed("read the notes"))
    }

    fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        self.select_json(
            "read the dead letters",
            "SELECT letter FROM dead_letter ORDER BY id",
        )
    }

    fn reader(&self) -> Result<Option<Box<dyn Store>>> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        Ok(Some(Box::new(Self::open_read_only(directory)?)))
    }

    fn snapshot(&self) -> Result<Option<Snapshot>> {
        let connection = self.connection("read the snapshot")?;
        parts::read(connection).map_err(self.failed("read the snapshot"))
    }

    fn set_snapshot(&mut self, snapshot: Option<&Snapshot>) -> Result<()> {
        let failed = self.failed("keep a snapshot");
        let Some(connection) = &mut self.connection else {
            return Err(away(&self.path, "keep a snapshot"));
        };
        parts::write_all(connection, snapshot).map_err(&failed)
    }

    fn keep_snapshot_part(&mut self, snapshot: &Snapshot, part: usize) -> Result<PartKept> {
        let failed = self.failed("keep a snapshot");
        let Some(connection) = &mut self.connection else {
            return Err(away(&self.path, "keep a snapshot"));
        };
        let kept = parts::write(connection, snapshot, part).map_err(&failed)?;
        kept.ok_or_else(|| HostError::Store {
            doing: "keep a snapshot",
            message: "its first parts were dropped meanwhile".into(),
        })
    }
}

fn run_kept(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

/// Lines must follow the last one kept: anything else would be a ledger that nobody can read back.
fn write_lines(
    sql: &Connection,
    lines: &[String],
    failed: &impl Fn(rusqlite::Error) -> HostError,
) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let refused = |message: String| HostError::Store {
        doing: "commit",
        message,
    };
    let last: i64 = sql
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM ledger")
        .and_then(|mut select| select.query_row([], |row| row.get(0)))
        .map_err(failed)?;
    let mut insert = sql
        .prepare_cached("INSERT INTO ledger VALUES (?1, ?2, ?3)")
        .map_err(failed)?;
    for (due, line) in (last.unsigned_abs() + 1..).zip(lines) {
        let place: Place;
        let (seq, coordination_id) = match LineHead::of(line) {
            Some(head) => (head.seq, head.coordination_id),
            // In another order, or none at all.
            None => {
                place = serde_json::from_str(line)
                    .map_err(|e| refused(format!("record {due} is not a ledger line: {e}")))?;
                (place.seq, place.coordination_id.as_deref())
            }
        };
        if seq != due {
            return Err(refused(format!("record {seq} came where {due} is due")));
        }
        insert
            .execute(params![integer(due), coordination_id, line])
            .map_err(failed)?;
    }
    Ok(())
}

fn write_rest(sql: &Connection, transaction: &Transaction) -> rusqlite::Result<()> {
    for note in &transaction.noted {
        sql.prepare_cached("INSERT OR REPLACE INTO note VALUES (?1, ?2, ?3)")?
            .execute(params![note.key, note.pid, integer(note.start_time)])?;
    }
    for key in &transaction.forgotten {
        sql.prepare_cached("DELETE FROM note WHERE key = ?1")?
            .execute([key])?;
    }
    for letter in &transaction.dead_letters {
        sql.prepare_cached("INSERT OR IGNORE INTO dead_letter (digest, letter) VALUES (?1, ?2)")?
            .execute(params![letter.id(), json(letter)])?;
    }
    for id in &transaction.dropped_letters {
        sql.prepare_cached("DELETE FROM dead_letter WHERE digest = ?1")?
            .execute([id])?;
    }
    Ok(())
}

/// What SQLite says, where, and what to do about it.
fn failed(path: &Path, doing: &'static str) -> impl Fn(rusqlite::Error) -> HostError + use<> {
    let path = path.to_path_buf();
    move |error| HostError::Store {
        doing,
        message: format!("{}: {}", path.display(), file::advice(&LEDGER, &error)),
    }
}

fn away(path: &Path, doing: &'static str) -> HostError {
    let message = format!(
        "{}: it could not be opened again after a commit had failed; it is tried again and again",
        path.display()
    );
    HostError::Store { doing, message }
}

/// A text column. What is not UTF-8 cannot be what was written; it is shown as far as it can be, but never as a record:
/// the replacement character of a lossy reading could be the very text that stood there.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("{NOT_TEXT}{}", String::from_utf8_lossy(bytes)),
        },
        ValueRef::Blob(bytes) => format!("{NOT_TEXT}{}", String::from_utf8_lossy(bytes)),
        other => format!("{NOT_TEXT}{other:?}"),
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

    #[test]
    fn what_would_be_run_or_is_not_whole_is_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(paths::STORE);
        let refused = |part: &str| {
            for opened in [
                SqliteStore::open(folder.path()),
                SqliteStore::open_read_only(folder.path()),
            ] {
                let says = opened.unwrap_err().to_string();
                assert!(says.contains(part) && says.contains("restore"), "{says}");
            }
        };
        let made = || {
            let _ = fs::remove_file(&path);
            drop(SqliteStore::open(folder.path()).unwrap());
        };
        for (sql, part) in [
            (
                "CREATE TRIGGER t AFTER INSERT ON ledger BEGIN DELETE FROM ledger; END",
                "it has a t that",
            ),
            ("CREATE VIEW v AS SELECT * FROM ledger", "it has a v that"),
            ("CREATE UNIQUE INDEX i ON ledger (line)", "it has a i that"),
            (
                "DROP INDEX ledger_of_coordination",
                "its ledger_of_coordination is missing",
            ),
        ] {
            made();
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            refused(part);
        }
        made();
        let sql =
            "CREATE TABLE somebodys (a); CREATE INDEX i ON somebodys (a); DROP TABLE snapshot";
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        drop(SqliteStore::open(folder.path()).unwrap());
        // Never taken for a new one.
        fs::write(&path, "").unwrap();
        refused("is empty");
        fs::remove_file(&path).unwrap();
        fs::write(path.with_file_name("ledger.db-wal"), "a log").unwrap();
        let says = SqliteStore::open(folder.path()).unwrap_err().to_string();
        assert!(says.contains("its log is there"), "{says}");
    }
}
