//! The database file: making it, opening it, and whether it is ours.
//!
//! Does not know what the tables are for.

use crate::error::{HostError, Result};
use crate::paths;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Longest file whose pages are all looked at before it is written. A longer one would keep its owner waiting.
const LOOKED_AT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How long another program may keep a lock before that is an error.
const PATIENCE: Duration = Duration::from_secs(5);
/// The head of a write-ahead log.
const LOG_HEAD_BYTES: u64 = 32;

/// What a database of this program is: its marks and its tables.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Marks the file as ours, and as this one of ours.
    pub(crate) application_id: i64,
    /// Version of the tables.
    pub(crate) version: u64,
    /// Statements that make them, each ended by a semicolon.
    pub(crate) schema: &'static str,
    /// Tables that may be missing, because nothing of worth is lost with them.
    pub(crate) optional: &'static [&'static str],
    /// What it is called, such as "qm2 ledger".
    pub(crate) name: &'static str,
}

/// Opens the database for the one writer, and makes it where it is missing.
///
/// # Errors
/// [`HostError::Data`] if it is none or not ours, [`HostError::Damaged`], [`HostError::NewerData`].
pub(crate) fn open_for_writing(kind: &Kind, path: &Path) -> Result<Connection> {
    let is_long = |path| fs::metadata(path).is_ok_and(|file| file.len() > LOOKED_AT_BYTES_MAX);
    let is_looked_at = !is_long(path);
    open(kind, path, is_looked_at)
}

/// Opens it anew after a commit that failed: whatever its length, damage is told from a disk that may come back.
///
/// # Errors
/// As [`open_for_writing`].
pub(crate) fn open_after_failure(kind: &Kind, path: &Path) -> Result<Connection> {
    open(kind, path, true)
}

fn open(kind: &Kind, path: &Path, is_looked_at: bool) -> Result<Connection> {
    if !path.exists() {
        // A reader leaves an empty one behind; SQLite would begin a new database and throw any other away.
        if fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
            return Err(damaged(path, "is missing, but its log is there"));
        }
        make(kind, path)?;
    }
    check_length(path)?;
    let opened = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        distrust(&connection)?;
        // Also tests that the file is a database at all.
        let _: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok(connection)
    };
    let connection = opened().map_err(|e| data_error(kind, path, &e))?;
    let failed = |e: rusqlite::Error| data_error(kind, path, &e);
    check_identity(kind, path, &connection)?;
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .map_err(failed)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    if is_looked_at {
        check_pages(kind, path, &connection)?;
    }
    make_durable(kind, path, &connection)?;
    Ok(connection)
}

/// Opens the database for a few short writes while another process may own it: nothing is made, and its log is left alone.
///
/// # Errors
/// As [`open_for_writing`], also if there is none.
pub(crate) fn open_beside(kind: &Kind, path: &Path) -> Result<Connection> {
    check_length(path)?;
    let opened = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        distrust(&connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    };
    let connection = opened().map_err(|e| data_error(kind, path, &e))?;
    check_identity(kind, path, &connection)?;
    Ok(connection)
}

/// Makes a new one beside its place and puts it there when it is whole: one that is there and holds nothing is damaged, and
/// not one that somebody was making.
fn make(kind: &Kind, path: &Path) -> Result<()> {
    let new = beside(path, &format!(".{}.new", std::process::id()));
    let io = |doing| {
        let new = new.clone();
        move |e| HostError::io(doing, &new, e)
    };
    // Of an earlier process that had this id.
    let _ = fs::remove_file(&new);
    // For its user only; SQLite gives the files beside it the same mode.
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    options.open(&new).map_err(io("make"))?;
    let fill = || {
        let mut connection = Connection::open(&new)?;
        let sql = connection.transaction()?;
        sql.execute_batch(kind.schema)?;
        sql.pragma_update(None, "application_id", kind.application_id)?;
        sql.pragma_update(None, "user_version", kind.version.cast_signed())?;
        sql.commit()?;
        connection.close().map_err(|(_, e)| e)
    };
    fill().map_err(|e| data_error(kind, &new, &e))?;
    // Whoever makes one owns the data directory, so nobody else has put one there meanwhile.
    fs::rename(&new, path).map_err(io("put in its place"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    paths::sync_folder(folder).map_err(|e| HostError::io("sync", folder, e))
}

/// An empty file is an empty database to SQLite, and one that was written by this program never is one.
fn check_length(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() && file.len() == 0 => Err(damaged(path, "is empty")),
        // Whatever is wrong SQLite says better.
        _ => Ok(()),
    }
}

/// To write into a page whose header lies is to write over what it holds: one changed bit can cost every record. SQLite
/// believes its pages, so it is asked to look at all of them first.
fn check_pages(kind: &Kind, path: &Path, connection: &Connection) -> Result<()> {
    let sql = "PRAGMA quick_check(1)";
    let says = connection.query_row(sql, [], |row| row.get::<_, String>(0));
    let says = says.map_err(|e| data_error(kind, path, &e))?;
    if says == "ok" {
        return Ok(());
    }
    // Above the sentence stands which database it is.
    let says = says.lines().last().unwrap_or_default();
    Err(match unread_page(says) {
        Some(e) => data_error(kind, path, &e),
        None => damaged(path, &format!("does not hold together ({says})")),
    })
}

/// A page that could not be read is no damage, unless SQLite says that it is: the disk may read it next time. It gives such
/// an error as a sentence like any other.
fn unread_page(says: &str) -> Option<rusqlite::Error> {
    let (_, code) = says.split_once("unable to get the page. error code=")?;
    let error = rusqlite::ffi::Error::new(code.trim().parse().ok()?);
    let is_damage = error.code == ErrorCode::DatabaseCorrupt;
    (!is_damage).then_some(rusqlite::Error::SqliteFailure(error, None))
}

/// Another file of the same database.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn damaged(path: &Path, says: &str) -> HostError {
    HostError::Damaged {
        path: path.to_path_buf(),
        message: says.to_owned(),
    }
}

/// Makes what can be read here durable, before anybody is told of it. A process that was killed may have left a commit in the
/// log that it had not synced; and after a sync that failed the log may say what the disk does not, and the next sync of it
/// succeeds all the same. So the log is not believed: what is in it is written into the database, which is synced, and then
/// the log on the disk is ended, too. One that lacks the last commits would else come back with the power, and hide what the
/// database has of them behind older pages. SQLite looks over a failed sync of the folder, so the name of a new log is made
/// durable here as well.
fn make_durable(kind: &Kind, path: &Path, connection: &Connection) -> Result<()> {
    let failed = |e: rusqlite::Error| data_error(kind, path, &e);
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    let since = Instant::now();
    // For some of its locks SQLite does not wait by itself.
    while connection
        .query_row(sql, [], |row| row.get::<_, bool>(0))
        .map_err(failed)?
    {
        if since.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        let message =
            "another program holds it locked, writing it or reading an old state of it; end that program"
                .into();
        let path = path.to_path_buf();
        return Err(HostError::Data { path, message });
    }
    // So that nobody else writes meanwhile. Nothing is: this only holds the lock.
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(failed)?;
    let ended = end_log(&beside(path, "-wal"));
    connection.execute_batch("ROLLBACK").map_err(failed)?;
    ended?;
    let folder = path.parent().unwrap_or(Path::new("."));
    paths::sync_folder(folder).map_err(|e| HostError::io("sync", folder, e))
}

/// Puts zeros where the head of an empty log will stand, and syncs them: without a head nothing that the disk still has of
/// the log counts. It is written and not only cut off, since to cut it off once more after a sync that failed would do nothing.
fn end_log(log: &Path) -> Result<()> {
    let end = || {
        let mut file = match OpenOptions::new().write(true).open(log) {
            // The name is gone, which is made durable next.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        // Where somebody has written since, a new head is there and durable.
        if file.metadata()?.len() <= LOG_HEAD_BYTES {
            file.write_all(&[0; LOG_HEAD_BYTES as usize])?;
        }
        file.sync_all()
    };
    end().map_err(|e| HostError::io("end", log, e))
}

/// Opens the database for reading, also while another process writes it.
///
/// # Errors
/// As [`open_for_writing`].
pub(crate) fn open_for_reading(kind: &Kind, path: &Path) -> Result<Connection> {
    let open = |immutable: &str| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri(path, immutable), flags)?;
        distrust(&connection)?;
        let _: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok(connection)
    };
    check_length(path)?;
    let opened = open("").or_else(|e: rusqlite::Error| match e.sqlite_error_code() {
        // On a medium that cannot be written SQLite cannot make its shared memory; nobody can write there either.
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => open("&immutable=1").map_err(|_| e),
        // Anywhere else that would be to look past what another process is writing.
        _ => Err(e),
    });
    let connection = opened.map_err(|e| data_error(kind, path, &e))?;
    check_identity(kind, path, &connection)?;
    Ok(connection)
}

/// A file may come from anywhere: nothing in it is run, and what does not fit into it is an error.
fn distrust(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    for (setting, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        connection.set_db_config(setting, value)?;
    }
    connection.pragma_update(None, "cell_size_check", true)
}

/// Ours, and of a version that this program knows.
fn check_identity(kind: &Kind, path: &Path, connection: &Connection) -> Result<()> {
    let pragma = |name: &str| {
        connection
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
            .map_err(|e| data_error(kind, path, &e))
    };
    if pragma("application_id")? != kind.application_id {
        let message = format!(
            "is a database, but not a {}; name another data directory",
            kind.name
        );
        let path = path.to_path_buf();
        return Err(HostError::Data { path, message });
    }
    let found = u64::try_from(pragma("user_version")?).unwrap_or(0);
    if found > kind.version {
        let path = path.to_path_buf();
        return Err(HostError::NewerData {
            path,
            found,
            known: kind.version,
        });
    }
    if found < kind.version {
        let message =
            format!("has schema version {found}, which no released qm2 wrote; it is damaged");
        let path = path.to_path_buf();
        return Err(HostError::Data { path, message });
    }
    let strange = strange_object(kind, connection).map_err(|e| data_error(kind, path, &e))?;
    strange.map_or(Ok(()), |says| Err(damaged(path, &says)))
}

/// The first table or index that is not as this program makes it, or is not there, or something beside them that would
/// change what is written or read. Other tables do no harm.
fn strange_object(kind: &Kind, connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut ours: BTreeMap<String, &str> = kind
        .schema
        .split(';')
        .map(str::trim)
        .filter(|sql| !sql.is_empty())
        .map(|sql| (name_in(sql).to_owned(), sql))
        .collect();
    let names: BTreeSet<String> = ours.keys().cloned().collect();
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |column| -> rusqlite::Result<Option<String>> {
            // Of another type it is none of ours.
            Ok(row.get_ref(column)?.as_str().ok().map(str::to_owned))
        };
        let (kind, name, table, sql) = (text(0)?, text(1)?, text(2)?, text(3)?);
        let name = name.unwrap_or_default();
        if let Some(due) = ours.remove(&name) {
            if sql.as_deref() != Some(due) {
                return Ok(Some(format!("its {name} is not as qm2 makes it")));
            }
            continue;
        }
        // An index that SQLite makes by itself has no statement.
        let harmless = match kind.as_deref() {
            Some("table") => true,
            Some("index") => sql.is_none() || table.is_some_and(|table| !names.contains(&table)),
            _ => false,
        };
        if !harmless {
            return Ok(Some(format!("it has a {name} that qm2 does not make")));
        }
    }
    let missing = ours
        .into_keys()
        .find(|name| !kind.optional.contains(&name.as_str()));
    Ok(missing.map(|name| format!("its {name} is missing")))
}

/// The name of what a statement of the schema makes.
fn name_in(sql: &str) -> &str {
    sql.split_whitespace().nth(2).unwrap_or_default()
}

/// What opening says, with what to do about it.
fn data_error(kind: &Kind, path: &Path, error: &rusqlite::Error) -> HostError {
    let message = advice(kind, error);
    let path = path.to_path_buf();
    HostError::Data { path, message }
}

/// What to do about an error of SQLite, and what it said.
pub(crate) fn advice(kind: &Kind, error: &rusqlite::Error) -> String {
    let what_to_do = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            return format!(
                "it is not a {}; name another data directory ({error})",
                kind.name
            );
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_that_could_not_be_read_is_damaged_only_if_sqlite_says_so() {
        let code = |text: &str| unread_page(text).and_then(|e| e.sqlite_error_code());
        let unread = "Tree 9 page 9: unable to get the page. error code=";
        assert_eq!(
            code(&format!("{unread}8458")),
            Some(ErrorCode::SystemIoFailure)
        );
        assert_eq!(code(&format!("{unread}7")), Some(ErrorCode::OutOfMemory));
        assert_eq!(code(&format!("{unread}11")), None);
        assert_eq!(
            code("Tree 2 page 2: btreeInitPage() returns error code 11"),
            None
        );
    }
}
