//! The database file: making it, opening it, and whether it is ours.
//!
//! Does not know what the tables are for.

use crate::error::{HostError, Result};
use crate::paths;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
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
CREATE TABLE snapshot (part INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash TEXT NOT NULL, digest TEXT NOT NULL,
    chunk TEXT NOT NULL);
";

/// Opens the database for the one writer, and makes it where it is missing.
///
/// # Errors
/// [`HostError::Data`] if it is none or not ours, [`HostError::NewerData`].
pub(super) fn open_for_writing(path: &Path) -> Result<Connection> {
    // A new one is made here, for its user only; SQLite gives the files beside it the same mode. One that is there is never
    // opened past SQLite: to close it would let go of the locks of this process. Whatever is wrong SQLite says better.
    let _ = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
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
        sql.pragma_update(None, "user_version", SCHEMA_VERSION.cast_signed())
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
    make_durable(path, &connection)?;
    Ok(connection)
}

/// Makes what can be read here durable, before anybody is told of it. A process that was killed may have left a commit in the
/// log that it had not synced; and after a sync that failed the log may say what the disk does not, and the next sync of it
/// succeeds all the same. So the log is not believed: what is in it is written into the database, which is synced. SQLite
/// looks over a failed sync of the folder, so the name of a new log is made durable here, too.
fn make_durable(path: &Path, connection: &Connection) -> Result<()> {
    let sql = "PRAGMA wal_checkpoint(FULL)";
    let is_busy = connection.query_row(sql, [], |row| row.get::<_, bool>(0));
    if is_busy.map_err(|e| data_error(path, &e))? {
        let message =
            "another program has been reading an old state of it for seconds; end that program"
                .into();
        let path = path.to_path_buf();
        return Err(HostError::Data { path, message });
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    paths::sync_folder(folder).map_err(|e| HostError::io("sync", folder, e))
}

/// Opens the database for reading, also while another process writes it.
///
/// # Errors
/// As [`open_for_writing`].
pub(super) fn open_for_reading(path: &Path) -> Result<Connection> {
    let open = |immutable: &str| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri(path, immutable), flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((connection, tables))
    };
    let opened = open("").or_else(|e: rusqlite::Error| match e.sqlite_error_code() {
        // On a medium that cannot be written SQLite cannot make its shared memory; nobody can write there either.
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => open("&immutable=1").map_err(|_| e),
        // Anywhere else that would be to look past what another process is writing.
        _ => Err(e),
    });
    let (connection, tables) = opened.map_err(|e| data_error(path, &e))?;
    if tables == 0 {
        // A first run is making it, or was killed while it did.
        let message = "holds no ledger yet; run a plan with this data directory first".into();
        let path = path.to_path_buf();
        return Err(HostError::Data { path, message });
    }
    check_identity(path, &connection)?;
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
    let message = advice(error);
    let path = path.to_path_buf();
    HostError::Data { path, message }
}

/// What to do about an error of SQLite, and what it said.
pub(super) fn advice(error: &rusqlite::Error) -> String {
    let what_to_do = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not a qm2 ledger; name another data directory",
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            "it cannot be opened; check that you may read and write it and its directory"
        }
        // Also where the disk could not read a page.
        Some(ErrorCode::DatabaseCorrupt) => {
            "it is damaged, or the disk cannot read it; try again, and if it stays so restore it from a copy"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it locked; end that program"
        }
        Some(ErrorCode::DiskFull) => "the disk is full; make room on it and try again",
        Some(ErrorCode::SystemIoFailure) => {
            "the disk is full or broken; make room on it, see what the system says of it, and try again"
        }
        _ => "it cannot be used",
    };
    format!("{what_to_do} ({error})")
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
