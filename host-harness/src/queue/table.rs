//! The tables of the queue, and every statement on them.
//!
//! Opens no transaction and decides nothing: what is called together becomes durable together.

use super::entry::{DeadEntry, Entry, NewEntry, Place, Reason, SendState};
use crate::sqlite::file::Kind;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The outbox. The mark is "QM2Q".
pub(super) const OUTBOX: Kind = Kind {
    application_id: 0x514d_3251,
    version: 1,
    schema: "
CREATE TABLE entry (seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, channel TEXT NOT NULL, target TEXT NOT NULL,
    payload TEXT NOT NULL, enqueued_at_ms INTEGER NOT NULL, retry_count INTEGER NOT NULL, last_attempt_at_ms INTEGER,
    last_error TEXT, state TEXT NOT NULL, deadline_ms INTEGER, keyed INTEGER NOT NULL);
CREATE TABLE dead_letter (seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, channel TEXT NOT NULL, target TEXT NOT NULL,
    payload TEXT NOT NULL, enqueued_at_ms INTEGER NOT NULL, retry_count INTEGER NOT NULL, last_attempt_at_ms INTEGER,
    last_error TEXT, state TEXT NOT NULL, deadline_ms INTEGER, keyed INTEGER NOT NULL, died_at_ms INTEGER NOT NULL,
    reason TEXT NOT NULL);
CREATE TABLE settled (seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
",
    optional: &[],
    name: "qm2 outbox",
};

/// Columns of an entry, in the order in which [`entry`] reads them.
const ENTRY: &str = "key, channel, target, payload, enqueued_at_ms, retry_count, last_attempt_at_ms, last_error, state, \
                     deadline_ms";

/// What a drain must know to pass over an entry, without its payload.
pub(super) struct Header {
    pub(super) key: String,
    pub(super) channel: String,
    /// The entry without payload and error.
    pub(super) entry: Entry,
}

/// What came of putting a dead letter back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Revived {
    Yes,
    Unknown,
    /// Its deadline has passed.
    Late,
    /// It belongs to an attempt of a step.
    OfCoordination,
}

/// The tables within one transaction.
pub(super) struct Table<'a> {
    pub(super) sql: &'a Connection,
    /// Number of entries.
    pub(super) count: &'a mut u64,
    /// Bound of that.
    pub(super) entries_max: u64,
    /// How many settled keys are known.
    pub(super) keys_remembered: u64,
}

impl Table<'_> {
    fn run(&self, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.sql.prepare_cached(sql)?.execute(parameters)
    }

    /// Puts an entry in; nothing if there is no room for it.
    pub(super) fn enqueue(
        &mut self,
        key: &str,
        new: &NewEntry,
        now_ms: u64,
    ) -> rusqlite::Result<Option<Place>> {
        let keyed = new.key.is_some();
        // A random key is nowhere.
        let place = match keyed {
            true => self.place(key)?,
            false => Place::New,
        };
        if place != Place::New {
            return Ok(Some(place));
        }
        if *self.count >= self.entries_max {
            return Ok(None);
        }
        let sql = "INSERT INTO entry (key, channel, target, payload, enqueued_at_ms, retry_count, state, deadline_ms, keyed) \
                   VALUES (?1, ?2, ?3, ?4, ?5, 0, 'none', ?6, ?7)";
        let (at_ms, deadline_ms) = (integer(now_ms), new.deadline_ms.map(integer));
        let NewEntry {
            channel,
            target,
            payload,
            ..
        } = new;
        self.run(
            sql,
            params![key, channel, target, payload, at_ms, deadline_ms, keyed],
        )?;
        *self.count += 1;
        Ok(Some(Place::New))
    }

    /// Where a key is.
    pub(super) fn place(&self, key: &str) -> rusqlite::Result<Place> {
        for (place, sql) in [
            (Place::Waiting, "SELECT 1 FROM entry WHERE key = ?1"),
            (Place::Dead, "SELECT 1 FROM dead_letter WHERE key = ?1"),
            (Place::Settled, "SELECT 1 FROM settled WHERE key = ?1"),
        ] {
            if self.sql.prepare_cached(sql)?.exists([key])? {
                return Ok(place);
            }
        }
        Ok(Place::New)
    }

    /// Takes an entry away for good; false if there is none.
    pub(super) fn ack(&mut self, key: &str) -> rusqlite::Result<bool> {
        let sql = "DELETE FROM entry WHERE key = ?1 RETURNING keyed <> 0";
        self.settle(sql, key, true)
    }

    /// As [`Table::ack`], also of a dead letter, and of one that is yet to come.
    pub(super) fn withdraw(&mut self, key: &str) -> rusqlite::Result<bool> {
        let was_there = self.ack(key)? | self.drop(key)?;
        if !was_there {
            self.remember(key)?;
        }
        Ok(was_there)
    }

    /// Drops a dead letter; false if there is none.
    pub(super) fn drop(&mut self, key: &str) -> rusqlite::Result<bool> {
        let sql = "DELETE FROM dead_letter WHERE key = ?1 RETURNING keyed <> 0";
        self.settle(sql, key, false)
    }

    fn settle(&mut self, sql: &str, key: &str, is_entry: bool) -> rusqlite::Result<bool> {
        let mut statement = self.sql.prepare_cached(sql)?;
        let keyed: Option<bool> = statement.query_row([key], |row| row.get(0)).optional()?;
        drop(statement);
        if keyed == Some(true) {
            self.remember(key)?;
        }
        if is_entry && keyed.is_some() {
            *self.count = self.count.saturating_sub(1);
        }
        Ok(keyed.is_some())
    }

    fn remember(&self, key: &str) -> rusqlite::Result<()> {
        self.run("INSERT OR IGNORE INTO settled (key) VALUES (?1)", [key])?;
        let sql = "DELETE FROM settled WHERE seq <= (SELECT max(seq) FROM settled) - ?1";
        self.run(sql, [integer(self.keys_remembered)])?;
        Ok(())
    }

    /// Notes that a send is about to begin; false if the entry is gone or not what it was taken for.
    pub(super) fn start(&self, entry: &Entry) -> rusqlite::Result<bool> {
        let sql = "UPDATE entry SET state = 'send_started' WHERE key = ?1 AND state = ?2 AND retry_count = ?3";
        let as_read = params![entry.key, entry.state.name(), entry.retry_count];
        Ok(self.run(sql, as_read)? > 0)
    }

    /// Counts a failure; the number of failures, or nothing if there is no such entry.
    pub(super) fn fail(
        &self,
        key: &str,
        error: &str,
        state: Option<SendState>,
        now_ms: u64,
    ) -> rusqlite::Result<Option<u32>> {
        let sql = "UPDATE entry SET retry_count = retry_count + 1, last_error = ?2, last_attempt_at_ms = ?3, \
                   state = coalesce(?4, state) WHERE key = ?1 RETURNING retry_count";
        let state = state.map(SendState::name);
        let parameters = params![key, error, integer(now_ms), state];
        let mut statement = self.sql.prepare_cached(sql)?;
        statement.query_row(parameters, |row| row.get(0)).optional()
    }

    /// Gives an entry with retries and without an attempt time that of its enqueueing.
    pub(super) fn date(&self, key: &str) -> rusqlite::Result<()> {
        let sql = "UPDATE entry SET last_attempt_at_ms = enqueued_at_ms WHERE key = ?1 AND last_attempt_at_ms IS NULL";
        self.run(sql, [key]).map(|_| ())
    }

    /// Gives an entry up.
    pub(super) fn bury(
        &mut self,
        key: &str,
        reason: Reason,
        error: Option<&str>,
        now_ms: u64,
    ) -> rusqlite::Result<bool> {
        let sql = "INSERT OR REPLACE INTO dead_letter (key, channel, target, payload, enqueued_at_ms, retry_count, \
                   last_attempt_at_ms, last_error, state, deadline_ms, keyed, died_at_ms, reason) \
                   SELECT key, channel, target, payload, enqueued_at_ms, retry_count, last_attempt_at_ms, \
                   coalesce(?2, last_error), state, deadline_ms, keyed, ?3, ?4 FROM entry WHERE key = ?1";
        let moved = self.run(sql, params![key, error, integer(now_ms), reason.name()])? > 0;
        if moved {
            self.run("DELETE FROM entry WHERE key = ?1", [key])?;
            *self.count = self.count.saturating_sub(1);
        }
        Ok(moved)
    }

    /// Puts a dead letter back, as if it had never failed. What may have been sent is still asked about, unless somebody has
    /// made sure that it was not.
    pub(super) fn revive(
        &mut self,
        key: &str,
        not_sent: bool,
        now_ms: u64,
    ) -> rusqlite::Result<Revived> {
        let sql = "SELECT channel, deadline_ms FROM dead_letter WHERE key = ?1";
        let found = self
            .sql
            .query_row(sql, [key], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
            })
            .optional()?;
        let Some((channel, deadline_ms)) = found else {
            return Ok(Revived::Unknown);
        };
        if channel == super::COORDINATION {
            return Ok(Revived::OfCoordination);
        }
        if deadline_ms.is_some_and(|at_ms| at_ms <= integer(now_ms)) {
            return Ok(Revived::Late);
        }
        let sql = "INSERT INTO entry (key, channel, target, payload, enqueued_at_ms, retry_count, last_attempt_at_ms, \
                   last_error, state, deadline_ms, keyed) \
                   SELECT key, channel, target, payload, enqueued_at_ms, 0, NULL, last_error, \
                   CASE WHEN ?2 OR state = 'none' THEN 'none' ELSE 'send_started' END, deadline_ms, keyed \
                   FROM dead_letter WHERE key = ?1";
        self.run(sql, params![key, not_sent])?;
        self.run("DELETE FROM dead_letter WHERE key = ?1", [key])?;
        *self.count += 1;
        Ok(Revived::Yes)
    }

    /// One entry; nothing also if it cannot be read.
    pub(super) fn entry(&self, key: &str) -> rusqlite::Result<Option<Entry>> {
        let sql = format!("SELECT {ENTRY} FROM entry WHERE key = ?1");
        Ok(self.readable(&sql, [key], entry)?.pop())
    }

    /// All entries that can be read, oldest first.
    pub(super) fn entries(&self) -> rusqlite::Result<Vec<Entry>> {
        let sql = format!("SELECT {ENTRY} FROM entry ORDER BY enqueued_at_ms, seq");
        self.readable(&sql, [], entry)
    }

    /// As [`Table::entries`], without what is long.
    pub(super) fn headers(&self) -> rusqlite::Result<Vec<Header>> {
        let sql = "SELECT key, channel, '', '', enqueued_at_ms, retry_count, last_attempt_at_ms, NULL, state, deadline_ms \
                   FROM entry ORDER BY enqueued_at_ms, seq";
        let header = |row: &Row<'_>| {
            let entry = entry(row)?;
            let (key, channel) = (entry.key.clone(), entry.channel.clone());
            Ok(Header {
                key,
                channel,
                entry,
            })
        };
        self.readable(sql, [], header)
    }

    /// All dead letters that can be read, oldest first.
    pub(super) fn dead(&self) -> rusqlite::Result<Vec<DeadEntry>> {
        let sql =
            format!("SELECT {ENTRY}, died_at_ms, reason FROM dead_letter ORDER BY died_at_ms, seq");
        self.readable(&sql, [], |row| {
            Ok(DeadEntry {
                entry: entry(row)?,
                died_at_ms: number(row, 10)?,
                reason: named(row, 11, &Reason::ALL, Reason::name)?,
            })
        })
    }

    /// Rows that are what they should be. One that was damaged outside must not keep the others from being delivered.
    fn readable<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.sql.prepare_cached(sql)?;
        let mut rows = statement.query(parameters)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            match read(row) {
                Ok(one) => found.push(one),
                Err(e) => tracing::warn!("a row of the outbox cannot be read and is left out: {e}"),
            }
        }
        Ok(found)
    }
}

/// Number of entries.
pub(super) fn count(sql: &Connection) -> rusqlite::Result<u64> {
    let count = sql.query_row("SELECT count(*) FROM entry", [], |row| row.get::<_, i64>(0));
    Ok(count?.unsigned_abs())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let optional = |column| -> rusqlite::Result<Option<u64>> {
        let value: Option<i64> = row.get(column)?;
        Ok(value.map(i64::unsigned_abs))
    };
    Ok(Entry {
        key: row.get(0)?,
        channel: row.get(1)?,
        target: row.get(2)?,
        payload: row.get(3)?,
        enqueued_at_ms: number(row, 4)?,
        retry_count: row.get(5)?,
        last_attempt_at_ms: optional(6)?,
        last_error: row.get(7)?,
        state: named(row, 8, &SendState::ALL, SendState::name)?,
        deadline_ms: optional(9)?,
    })
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::unsigned_abs)
}

/// The value that a column names.
fn named<T: Copy>(
    row: &Row<'_>,
    column: usize,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    let found = all.iter().copied().find(|&one| name(one) == text);
    found.ok_or_else(|| {
        let says = format!("{text:?} is no state that this program knows");
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, says.into())
    })
}

/// SQLite's integers are signed; ours stay below 2^53.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
