//! What is done to a data directory: to its bytes, and to its tables through SQL.
//!
//! Everything follows from one number, so that a case that fails can be played again.

use super::made::{Made, STORE};
use rusqlite::Connection;
use std::path::Path;

/// SQLite's pages, as it makes them.
pub const PAGE: usize = 4_096;

/// Random numbers, and what is chosen by them.
pub struct Random(crate::support::random::Random);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(crate::support::random::Random::new(seed))
    }

    /// Below a bound that is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.0.below(bound as u64)).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.0.next().to_le_bytes()[0]
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// Damages bytes; what was done, in words.
pub fn bytes(random: &mut Random, bytes: &mut [u8]) -> String {
    let len = bytes.len();
    let at = match random.below(4) {
        // Where SQLite keeps what it needs most: the header, and the beginnings of pages.
        0 => random.below(100.min(len)),
        1 => (random.below(len) / PAGE * PAGE + random.below(64)).min(len - 1),
        _ => random.below(len),
    };
    let run = (1 + random.below(64)).min(len - at);
    let page = |at: usize| at / PAGE * PAGE..(at / PAGE * PAGE + PAGE).min(len);
    match random.below(9) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit of byte {at}")
        }
        2 => {
            bytes[at] = random.byte();
            format!("byte {at}")
        }
        3 => {
            bytes[at..at + run].fill_with(|| random.byte());
            format!("{run} random bytes at {at}")
        }
        4 => {
            let value = if random.below(2) == 0 { 0 } else { 0xff };
            bytes[at..at + run].fill(value);
            format!("{run} bytes of {value} at {at}")
        }
        5 => {
            bytes[page(at)].fill(0);
            format!("page of {at} is empty")
        }
        6 => {
            bytes[page(at)].fill_with(|| random.byte());
            format!("page of {at} is random")
        }
        7 => {
            let other = random.below(len);
            let (a, b) = (page(at), page(other));
            if a.len() == b.len() {
                let kept = bytes[a.clone()].to_vec();
                bytes.copy_within(b.clone(), a.start);
                bytes[b].copy_from_slice(&kept);
            }
            format!("pages of {at} and {other} are swapped")
        }
        _ => {
            let other = random.below(len);
            let run = run.min(len - other);
            bytes.copy_within(other..other + run, at.min(len - run));
            format!("{run} bytes of {other} also at {at}")
        }
    }
}

/// Changes the tables; what was done, in SQL. A statement that SQLite refuses changes nothing.
pub fn tables(random: &mut Random, made: &Made, data: &Path) -> String {
    let connection = Connection::open(data.join(STORE)).expect("the store");
    connection
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA writable_schema = ON")
        .expect("SQL");
    let sql = statement(random, made);
    let done = connection.execute_batch(&sql);
    match done {
        Ok(()) => sql,
        Err(e) => format!("{sql} (refused: {e})"),
    }
}

fn statement(random: &mut Random, made: &Made) -> String {
    let last = made.lines.len();
    let seq = 1 + random.below(last);
    let other = 1 + random.below(last);
    let value = random.of(&[
        "NULL",
        "''",
        "0",
        "-1",
        "9223372036854775807",
        "1e300",
        "x''",
        "x'00ff'",
        "zeroblob(70000)",
        "'{}'",
        "'null'",
        "'[]'",
        "'\u{0}'",
        "CAST(x'ff' AS TEXT)",
        "'{\"seq\":1}'",
        "hex(randomblob(3000))",
    ]);
    match random.below(12) {
        0 | 1 => {
            let change = random.of(&[
                "substr(line, 2)",
                "substr(line, 1, length(line) - 1)",
                "upper(line)",
                "line || ' '",
                "replace(line, '\"atMs\":1', '\"atMs\":2')",
                "replace(line, 'a', 'b')",
                "replace(line, ':', ': ')",
                "CAST(line AS BLOB)",
                "line || line",
                "substr(line, 1, 100) || char(0) || substr(line, 101)",
            ]);
            format!("UPDATE ledger SET line = {change} WHERE seq = {seq}")
        }
        2 => format!("UPDATE ledger SET line = {value} WHERE seq = {seq}"),
        3 => format!("DELETE FROM ledger WHERE seq = {seq}"),
        4 => format!("DELETE FROM ledger WHERE seq BETWEEN {seq} AND {other}"),
        5 => {
            let to = random.of(&[
                "0",
                "-7",
                "9223372036854775807",
                "-9223372036854775808",
                "seq + 1000",
            ]);
            format!("UPDATE ledger SET seq = {to} WHERE seq = {seq}")
        }
        6 => {
            let to = random.of(&["NULL", "'x'", "x'00'", "17", "'mixed'", "'open'", "''"]);
            format!("UPDATE ledger SET coordination_id = {to} WHERE seq = {seq}")
        }
        7 => format!(
            "UPDATE ledger SET line = (SELECT line FROM ledger WHERE seq = CASE ledger.seq WHEN {seq} THEN {other} ELSE \
             {seq} END) WHERE seq IN ({seq}, {other})"
        ),
        8 => {
            let to = random.of(&["0", "-3", "1000000", "(SELECT max(seq) + 1 FROM ledger)"]);
            format!(
                "INSERT INTO ledger SELECT {to}, coordination_id, line FROM ledger WHERE seq = {seq}"
            )
        }
        9 => schema(random),
        _ => beside(random, value),
    }
}

/// Tables and what SQLite knows of them.
fn schema(random: &mut Random) -> String {
    let table = random.of(&["ledger", "note", "dead_letter", "meta", "snapshot"]);
    let other = random.of(&["ledger", "note", "dead_letter", "meta", "snapshot"]);
    match random.below(14) {
        0 => "DROP INDEX ledger_of_coordination".into(),
        1 => format!("DROP TABLE {table}"),
        2 => format!("ALTER TABLE {table} RENAME TO {table}s"),
        3 => format!("ALTER TABLE {table} ADD COLUMN more TEXT"),
        4 => format!("UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = '{other}') WHERE name = '{table}'"),
        5 => format!("UPDATE sqlite_schema SET rootpage = {} WHERE name = '{table}'", random.below(1_000_000)),
        6 => format!("UPDATE sqlite_schema SET sql = replace(sql, 'TEXT', 'INTEGER') WHERE name = '{table}'"),
        7 => format!("UPDATE sqlite_schema SET sql = 'CREATE TABLE {table} (a, b, c)' WHERE name = '{table}'"),
        8 => format!("UPDATE sqlite_schema SET sql = 'garbage', type = 'view' WHERE name = '{table}'"),
        9 => format!("DELETE FROM sqlite_schema WHERE name = '{table}'"),
        10 => format!("DROP TABLE {table}; CREATE VIEW {table} AS SELECT 1 AS seq, 'x' AS coordination_id, 'y' AS line"),
        11 => "CREATE TRIGGER t AFTER INSERT ON ledger BEGIN UPDATE ledger SET line = 'x' WHERE seq = new.seq; END".into(),
        12 => "UPDATE sqlite_schema SET sql = replace(sql, 'IS NOT NULL', 'IS NULL') WHERE type = 'index'".into(),
        _ => {
            let pragma = random.of(&[
                "user_version = 0", "user_version = 2", "user_version = -1", "application_id = 1", "journal_mode = DELETE",
            ]);
            format!("PRAGMA {pragma}")
        }
    }
}

/// What stands beside the ledger.
fn beside(random: &mut Random, value: &str) -> String {
    let (table, column) = [
        ("snapshot", "chunk"),
        ("snapshot", "hash"),
        ("snapshot", "digest"),
        ("snapshot", "seq"),
        ("snapshot", "part"),
        ("note", "key"),
        ("note", "start_time"),
        ("dead_letter", "letter"),
        ("dead_letter", "digest"),
        ("meta", "value"),
        ("meta", "key"),
    ][random.below(11)];
    match random.below(4) {
        0 => format!("DELETE FROM {table}"),
        1 => format!("UPDATE {table} SET {column} = substr({column}, 1, length({column}) / 2)"),
        2 if table == "snapshot" => {
            "UPDATE snapshot SET chunk = replace(chunk, 'open', 'shut')".into()
        }
        // No process has that start, so none is taken for one of ours.
        2 if table == "note" => format!("UPDATE note SET pid = {value}, start_time = -5"),
        _ => format!("UPDATE {table} SET {column} = {value}"),
    }
}
