//! The write-ahead log: when it is written into the database, and room in it ahead of use.
//!
//! A sync of a file that grows makes its new length durable, too, and takes half as long again as one of a file that is
//! written over. Every log grows until it is first begun anew, which for a short run is all of it. So zeros are appended to it
//! now and then, some commits ahead; the next commit makes them durable with itself. SQLite reads a log up to the first frame
//! that does not follow the one before it, so zeros end it as its end does. Does not change what SQLite has written, and does
//! not know what is kept; a log that must not be believed is ended in `file.rs`.

use super::file::beside;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, Result};
use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A page, and what stands before it in the log.
const FRAME_BYTES: u64 = 4_096 + 24;
/// Frames after which the log is written into the database and begun anew; SQLite's own default.
const FRAMES_MAX: u64 = 1_000;
/// Frames of the commits for which there shall be room.
const AHEAD: u64 = 16;
/// Frames that are appended at once; the next commit makes them durable with its own, so not too many.
const STEP: u64 = 64;

/// Takes the log of a database in hand.
///
/// # Errors
/// Those of SQLite.
pub(super) fn tend(connection: &mut Connection, database: &Path) -> Result<()> {
    let log = beside(database, "-wal");
    let mut room = Room::in_log(&log).ok();
    let after_commit = move |wal: &mut Wal, frames: c_int| {
        let frames = u64::try_from(frames).unwrap_or_default();
        if frames >= FRAMES_MAX {
            // As SQLite does it by itself: the commit stands, and the next one tries again.
            if let Err(e) = wal.checkpoint() {
                tracing::debug!("the log stays as it is: {e}");
            }
        } else if let Some(file) = &mut room
            && let Err(e) = file.make(frames)
        {
            tracing::debug!("no room in {}: {e}", log.display());
            room = None;
        }
        Ok(())
    };
    connection.wal_hook(Some(after_commit))
}

/// A log, for appending.
struct Room {
    log: File,
    /// For how many frames it is long enough. Counted, because a system that was asked for the length of a file writes its
    /// time anew with the next change of it, which the sync then has to make durable, too.
    frames: u64,
}

impl Room {
    fn in_log(path: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().append(true).open(path)?;
        let frames = log.metadata()?.len() / FRAME_BYTES;
        Ok(Self { log, frames })
    }

    /// Sees to room behind so many frames.
    fn make(&mut self, frames: u64) -> io::Result<()> {
        // A large commit makes it longer by itself.
        self.frames = self.frames.max(frames);
        if self.frames >= (frames + AHEAD).min(FRAMES_MAX) {
            return Ok(());
        }
        let count = usize::try_from(STEP * FRAME_BYTES).unwrap_or_default();
        self.log.write_all(&vec![0; count])?;
        self.frames += STEP;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A database with a table, its log tended.
    fn tended(folder: &Path) -> (Connection, PathBuf) {
        let database = folder.join("d");
        let mut connection = Connection::open(&database).unwrap();
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        assert_eq!(mode, Ok("wal".to_owned()));
        connection
            .execute_batch("PRAGMA synchronous = OFF; CREATE TABLE t (n, text)")
            .unwrap();
        tend(&mut connection, &database).unwrap();
        (connection, database)
    }

    fn insert(connection: &Connection, n: i64, bytes: usize) {
        let sql = "INSERT INTO t VALUES (?1, ?2)";
        connection.execute(sql, (n, "x".repeat(bytes))).unwrap();
    }

    fn frames(database: &Path) -> u64 {
        fs::metadata(beside(database, "-wal")).unwrap().len() / FRAME_BYTES
    }

    /// What stands in a copy, as after a crash: without the shared memory.
    fn kept(database: &Path) -> (i64, i64) {
        let copy = database.with_file_name("c");
        fs::copy(database, &copy).unwrap();
        fs::copy(beside(database, "-wal"), beside(&copy, "-wal")).unwrap();
        let connection = Connection::open(copy).unwrap();
        let says = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
        assert_eq!(says, Ok("ok".to_owned()));
        let sql = "SELECT count(*), sum(length(text)) FROM t";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        connection.query_row(sql, [], read).unwrap()
    }

    #[test]
    fn room_is_ahead_of_commits_and_ends_the_log_as_its_end_does() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, database) = tended(folder.path());
        let mut grown = 0;
        for n in 0..200 {
            let before = frames(&database);
            insert(&connection, n, 100);
            let after = frames(&database);
            grown += u64::from(after > before);
            assert!(
                after.saturating_sub(STEP) <= before.max(STEP),
                "{before} {after}"
            );
        }
        // One or two frames a commit, and seldom one that made the log longer.
        assert!((3..=8).contains(&grown), "{grown}");
        assert_eq!(kept(&database), (200, 20_000));
        drop(connection);
        let connection = Connection::open(&database).unwrap();
        let count = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
        assert_eq!(count, Ok(200));
    }

    #[test]
    fn log_is_begun_anew_as_often_as_without() {
        let folder = tempfile::tempdir().unwrap();
        let (connection, database) = tended(folder.path());
        let before = fs::metadata(&database).unwrap().len();
        for n in 0..300 {
            insert(&connection, n, 40_000);
        }
        // Eleven pages each: three times as many as the log takes.
        assert!(
            frames(&database) < FRAMES_MAX + STEP,
            "{}",
            frames(&database)
        );
        let grown = fs::metadata(&database).unwrap().len() - before;
        assert!(grown > 8_000_000, "{grown}");
        assert_eq!(kept(&database), (300, 12_000_000));
    }

    #[test]
    fn log_that_cannot_be_appended_to_is_used_without_room() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("l");
        fs::write(&log, "").unwrap();
        // Opened for reading, so that it refuses.
        let log = File::open(&log).unwrap();
        let mut room = Room { log, frames: 0 };
        assert!(room.make(0).is_err());
        let mut connection = Connection::open(folder.path().join("d")).unwrap();
        // There is no log yet.
        tend(&mut connection, &folder.path().join("d")).unwrap();
        connection.execute_batch("CREATE TABLE t (n)").unwrap();
    }
}
