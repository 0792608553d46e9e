//! The parts of a snapshot in their table: all at once, or one by one beside those of the one before.
//!
//! One that is written part by part stands behind the others, and has its digest at its last part only; so what is not whole
//! is none yet. Does not know whether a snapshot is sound; whoever uses it does.

use super::{integer, text};
use crate::store::{PartKept, Snapshot};
use qm2_core::receipt::Head;
use rusqlite::{Connection, OptionalExtension, Result, TransactionBehavior, params};

/// Numbers of parts that one snapshot may have. The first is the one after a multiple of it.
const PARTS_MAX: i64 = 1 << 32;

const INSERT: &str = "INSERT INTO snapshot VALUES (?1, ?2, ?3, ?4, ?5)";

/// Before the first part of the snapshot that a part belongs to.
fn before(part: i64) -> i64 {
    (part - 1).div_euclid(PARTS_MAX) * PARTS_MAX
}

/// The last one that is whole.
pub(super) fn read(connection: &Connection) -> Result<Option<Snapshot>> {
    // One state of the table, whoever writes it meanwhile.
    let sql = connection.unchecked_transaction()?;
    let last = "SELECT part, seq, hash, digest FROM snapshot WHERE digest <> '' ORDER BY part DESC LIMIT 1";
    let last = sql.query_row(last, [], |row| {
        let head = Head {
            seq: row.get::<_, i64>(1)?.unsigned_abs(),
            hash: text(row, 2)?,
        };
        Ok((row.get::<_, i64>(0)?, head, text(row, 3)?))
    });
    let Some((last, head, digest)) = last.optional()? else {
        return Ok(None);
    };
    let chunks = "SELECT chunk FROM snapshot WHERE part > ?1 AND part <= ?2 AND seq = ?3 AND hash = ?4 ORDER BY part";
    let mut chunks = sql.prepare(chunks)?;
    let of_it = params![before(last), last, integer(head.seq), head.hash];
    let chunks = chunks.query_map(of_it, |row| text(row, 0))?;
    Ok(Some(Snapshot {
        head,
        chunks: chunks.collect::<Result<_>>()?,
        digest,
    }))
}

/// A snapshot in the place of all others, or none.
pub(super) fn write_all(connection: &mut Connection, snapshot: Option<&Snapshot>) -> Result<()> {
    let sql = connection.transaction()?;
    sql.execute("DELETE FROM snapshot", [])?;
    if let Some(snapshot) = snapshot {
        let (head, digest) = (&snapshot.head, &snapshot.digest);
        for (part, chunk) in (1_i64..).zip(&snapshot.chunks) {
            let row = params![part, integer(head.seq), head.hash, digest, chunk];
            sql.prepare_cached(INSERT)?.execute(row)?;
        }
    }
    sql.commit()
}

/// The next part of a snapshot; past its end what others have left, part by part. None where its parts before this one are
/// not there.
pub(super) fn write(
    connection: &mut Connection,
    snapshot: &Snapshot,
    part: usize,
) -> Result<Option<PartKept>> {
    let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last = "SELECT part, hash FROM snapshot ORDER BY part DESC LIMIT 1";
    let last = sql.query_row(last, [], |row| Ok((row.get(0)?, text(row, 1)?)));
    let (last, hash): (i64, _) = last.optional()?.unwrap_or_default();
    let head = &snapshot.head;
    let base = match part {
        0 if last == 0 => 0,
        0 => before(last) + PARTS_MAX,
        _ => before(last),
    };
    let written = integer(part.min(snapshot.chunks.len()) as u64);
    if part > 0 && (last != base + written || hash != head.hash) {
        return Ok(None);
    }
    let kept = match snapshot.chunks.get(part) {
        Some(chunk) => {
            let is_last = part + 1 == snapshot.chunks.len();
            let digest = if is_last { &*snapshot.digest } else { "" };
            let row = params![
                base + written + 1,
                integer(head.seq),
                head.hash,
                digest,
                chunk
            ];
            sql.prepare_cached(INSERT)?.execute(row)?;
            PartKept::Part
        }
        None => {
            let oldest =
                "DELETE FROM snapshot WHERE part = (SELECT min(part) FROM snapshot) AND part <= ?1";
            match sql.prepare_cached(oldest)?.execute([base])? {
                0 => PartKept::Done,
                _ => PartKept::Part,
            }
        }
    };
    sql.commit()?;
    Ok(Some(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        let schema = "CREATE TABLE snapshot (part INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash TEXT NOT NULL, \
                      digest TEXT NOT NULL, chunk TEXT NOT NULL)";
        connection.execute_batch(schema).unwrap();
        connection
    }

    fn snapshot(seq: u64, parts: usize) -> Snapshot {
        let head = Head {
            seq,
            hash: format!("hash of {seq}"),
        };
        let chunks = (0..parts).map(|part| format!("{part} of {seq}"));
        Snapshot::new("component", head, chunks.collect())
    }

    fn count(connection: &Connection) -> i64 {
        let sql = "SELECT count(*) FROM snapshot";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Writes it to its end; how many calls that took.
    fn write_parts(connection: &mut Connection, of: &Snapshot) -> usize {
        let mut calls = 0;
        loop {
            let kept = write(connection, of, calls)
                .unwrap()
                .expect("its parts are there");
            calls += 1;
            if kept == PartKept::Done {
                return calls;
            }
        }
    }

    #[test]
    fn one_that_is_written_part_by_part_counts_once_it_is_whole() {
        let mut connection = table();
        assert_eq!(read(&connection), Ok(None));
        let first = snapshot(1, 3);
        assert_eq!(write_parts(&mut connection, &first), 4);
        assert_eq!(read(&connection), Ok(Some(first.clone())));
        let second = snapshot(2, 2);
        assert_eq!(write(&mut connection, &second, 0), Ok(Some(PartKept::Part)));
        assert_eq!(read(&connection), Ok(Some(first)));
        assert_eq!(write(&mut connection, &second, 1), Ok(Some(PartKept::Part)));
        // While those of the first are still there.
        assert_eq!(
            (read(&connection), count(&connection)),
            (Ok(Some(second.clone())), 5)
        );
        for part in 2..5 {
            assert_eq!(
                write(&mut connection, &second, part),
                Ok(Some(PartKept::Part))
            );
            assert_eq!(read(&connection), Ok(Some(second.clone())));
        }
        assert_eq!(write(&mut connection, &second, 5), Ok(Some(PartKept::Done)));
        assert_eq!(
            (read(&connection), count(&connection)),
            (Ok(Some(second)), 2)
        );
        // All at once in its place.
        let third = snapshot(3, 2);
        write_all(&mut connection, Some(&third)).unwrap();
        assert_eq!(
            (read(&connection), count(&connection)),
            (Ok(Some(third)), 2)
        );
    }

    #[test]
    fn what_was_left_half_written_is_passed_over_and_goes_with_the_next() {
        let mut connection = table();
        let (whole, half, next) = (snapshot(1, 2), snapshot(2, 9), snapshot(3, 4));
        write_all(&mut connection, Some(&whole)).unwrap();
        for part in 0..5 {
            write(&mut connection, &half, part).unwrap();
        }
        assert_eq!(read(&connection), Ok(Some(whole)));
        // Its four parts, the seven that were left, and the end.
        assert_eq!(write_parts(&mut connection, &next), 4 + 7 + 1);
        assert_eq!((read(&connection), count(&connection)), (Ok(Some(next)), 4));
    }

    #[test]
    fn parts_whose_first_are_gone_are_not_kept() {
        let mut connection = table();
        let (first, other) = (snapshot(1, 3), snapshot(2, 3));
        write(&mut connection, &first, 0).unwrap();
        write_all(&mut connection, None).unwrap();
        assert_eq!(write(&mut connection, &first, 1), Ok(None));
        write(&mut connection, &other, 0).unwrap();
        assert_eq!(write(&mut connection, &first, 1), Ok(None));
        assert_eq!(write(&mut connection, &other, 2), Ok(None));
        assert_eq!((read(&connection), count(&connection)), (Ok(None), 1));
    }
}
