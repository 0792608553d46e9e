//! What a damaged directory should say, found out without the code under test, and what it says.
//!
//! Reads through SQLite alone: whether each line is the one that was written, and where the store lists it.

use super::made::{Made, STORE, builder};
use crate::support::{engine, plan, step};
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::Store;
use qm2_host::verify::{Verified, verify};
use qm2_host::{HostError, Result};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

/// How long opening may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// What stands in a store, as SQLite alone tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stands {
    /// The lines that were written, each under its number and coordination.
    AsWritten,
    /// This is the first number whose line is another one, or missing, or too much.
    Differs(u64),
    /// This is the first number that is missing, and nothing comes after it: nobody can tell without a note of the head.
    Ends(u64),
    /// Every line is there; this is the first that is listed where it does not belong, or is not where it does.
    Misplaced(u64),
    /// It cannot be read from this number on, or not at all.
    Unreadable,
}

/// How a directory answered, for the count of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Came {
    Whole,
    FirstBad,
    Error,
}

/// What stands there when looked up number by number, and when read from one end to the other. Of a tree whose pages are
/// broken SQLite can tell two stories, and then either is an answer.
#[derive(Clone, Debug)]
pub struct Views {
    /// What the lines are, wherever they are listed.
    lines: [Stands; 2],
    /// The same, and how they are listed by coordination.
    listed: [Stands; 2],
    /// Whether SQLite finds its pages whole. Where it does not there are more stories than these two, one for each way of
    /// reading: which record is named as the first bad one is then open, but not that one is.
    holds_together: bool,
}

impl Views {
    pub fn read(data: &Path, made: &Made) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let opened = Connection::open_with_flags(data.join(STORE), flags);
        let view = |look: fn(&Connection, &Made) -> rusqlite::Result<Stands>| match &opened {
            Ok(connection) => look(connection, made).unwrap_or(Stands::Unreadable),
            Err(_) => Stands::Unreadable,
        };
        let lines = [view(Stands::look_up), view(Stands::scan)];
        let listed = lines.clone().map(|stands| match stands {
            Stands::AsWritten => view(Stands::places),
            stands => stands,
        });
        let sql = "PRAGMA quick_check(1)";
        let checked = |connection: &Connection| {
            let says = connection.query_row(sql, [], |row| row.get::<_, String>(0));
            says.is_ok_and(|says| says == "ok")
        };
        let holds_together = opened.as_ref().is_ok_and(checked);
        Self {
            lines,
            listed,
            holds_together,
        }
    }

    /// Whether an answer of who reads everything fits one of the views.
    pub fn any(&self, fits: impl Fn(&Stands) -> bool) -> bool {
        self.listed.iter().any(fits)
    }

    /// Whether a record may be named as the first bad one.
    pub fn names(&self, seq: u64) -> bool {
        !self.holds_together || self.any(|stands| stands.first_bad() == Some(seq))
    }

    /// Whether an answer of who reads only the lines does. An owner does not look how they are listed before it needs that.
    fn any_of_lines(&self, fits: impl Fn(&Stands) -> bool) -> bool {
        self.lines.iter().any(fits)
    }
}

impl Stands {
    fn scan(connection: &Connection, made: &Made) -> rusqlite::Result<Self> {
        let mut all = connection.prepare("SELECT seq, line FROM ledger ORDER BY seq")?;
        let mut rows = all.query([])?;
        for (seq, line) in (1_i64..).zip(&made.lines) {
            let Some(row) = rows.next()? else {
                return Ok(Self::Ends(seq.unsigned_abs()));
            };
            let same = matches!(row.get_ref(0)?, ValueRef::Integer(found) if found == seq)
                && matches!(row.get_ref(1)?, ValueRef::Text(text) if text == line.as_bytes());
            if !same {
                return Ok(Self::Differs(seq.unsigned_abs()));
            }
        }
        if rows.next()?.is_some() {
            return Ok(Self::Differs(made.lines.len() as u64 + 1));
        }
        Ok(Self::AsWritten)
    }

    fn look_up(connection: &Connection, made: &Made) -> rusqlite::Result<Self> {
        let mut one = connection.prepare("SELECT line FROM ledger WHERE seq = ?1")?;
        let after = |seq: i64| {
            let any = "SELECT EXISTS (SELECT 1 FROM ledger WHERE seq > ?1)";
            connection.query_row(any, [seq], |row| row.get::<_, bool>(0))
        };
        for (seq, line) in (1_i64..).zip(&made.lines) {
            let mut rows = one.query([seq])?;
            let found = match rows.next()? {
                Some(row) => {
                    Some(matches!(row.get_ref(0)?, ValueRef::Text(text) if text == line.as_bytes()))
                }
                None => None,
            };
            let number = seq.unsigned_abs();
            match found {
                Some(true) => {}
                None if !after(seq)? => return Ok(Self::Ends(number)),
                _ => return Ok(Self::Differs(number)),
            }
        }
        let last = made.lines.len();
        if after(i64::try_from(last).unwrap_or(i64::MAX))? {
            return Ok(Self::Differs(last as u64 + 1));
        }
        Ok(Self::AsWritten)
    }

    /// The first record that is not what was written where it was.
    pub fn first_bad(&self) -> Option<u64> {
        match self {
            Self::Differs(seq) | Self::Ends(seq) | Self::Misplaced(seq) => Some(*seq),
            Self::AsWritten | Self::Unreadable => None,
        }
    }

    /// How many lines from the first an owner that goes on must have kept; `None` where it must not go on.
    fn kept(&self, made: &Made) -> Option<usize> {
        match self {
            Self::AsWritten => Some(made.lines.len()),
            // Nobody can tell an end that was cut off.
            Self::Ends(seq) => usize::try_from(*seq - 1).ok(),
            Self::Differs(_) | Self::Misplaced(_) | Self::Unreadable => None,
        }
    }

    /// All lines are there; whether each is listed under its coordination, and there once.
    fn places(connection: &Connection, made: &Made) -> rusqlite::Result<Self> {
        let mut misplaced = BTreeSet::new();
        let ids: BTreeSet<&String> = made.of.iter().flatten().collect();
        let mut by_id = connection
            .prepare("SELECT line FROM ledger WHERE coordination_id = ?1 ORDER BY seq")?;
        for id in ids {
            let of_it = |at: &usize| made.of[*at].as_ref() == Some(id);
            let mut due: BTreeSet<usize> = (0..made.lines.len()).filter(of_it).collect();
            let mut rows = by_id.query([id])?;
            while let Some(row) = rows.next()? {
                let line = row.get_ref(0)?.as_str().unwrap_or_default();
                match made.lines.iter().position(|written| written == line) {
                    Some(at) if due.remove(&at) || !of_it(&at) => {}
                    Some(at) => {
                        misplaced.insert(at as u64 + 1);
                    }
                    None => {
                        misplaced.insert(1);
                    }
                }
            }
            misplaced.extend(due.into_iter().map(|at| at as u64 + 1));
        }
        Ok(match misplaced.first() {
            None => Self::AsWritten,
            Some(first) => Self::Misplaced(*first),
        })
    }
}

/// Reads a directory as every reading command does, and verifies it.
///
/// # Errors
/// What is wrong with the answer.
pub fn read(data: &Path, made: &Made, views: &Views) -> Result<Came, String> {
    let looked = catch_unwind(AssertUnwindSafe(|| look(data, made)));
    let verified = match looked.map_err(|_| "it panicked".to_owned())? {
        Ok(verified) => verified,
        Err(e) => return said(&e).map(|()| Came::Error),
    };
    let (fits, came) = match &verified.fault {
        None => {
            let due = (made.lines.len() as u64, Some(&made.state_digest));
            let same = (verified.head.seq, verified.state_digest.as_ref()) == due;
            let whole = views.any(|stands| *stands == Stands::AsWritten);
            (same && whole, Came::Whole)
        }
        Some(fault) => (views.names(fault.seq), Came::FirstBad),
    };
    match fits {
        true => Ok(came),
        false => Err(format!("{verified:?}, but there stands {views:?}")),
    }
}

fn look(data: &Path, made: &Made) -> Result<Verified> {
    let store = SqliteStore::open_read_only(data)?;
    // Whatever these say; that they say something is enough.
    let _ = (
        store.head(),
        store.notes(),
        store.dead_letters(),
        store.snapshot(),
    );
    let _ = (
        store.meta("agents:mixed"),
        store.coordination_lines("open"),
        store.lines(7, 20),
    );
    verify(engine(), &store, Some(&made.head_hash))
}

/// Whether an error says what is wrong.
fn said(error: &HostError) -> Result<(), String> {
    let says = error.to_string();
    match says.len() > 10 && !says.contains("panic") {
        true => Ok(()),
        false => Err(format!("it only says {says:?}")),
    }
}

/// Opens a directory as its owner and goes on with it.
///
/// # Errors
/// What is wrong with what came of it.
pub async fn own(data: &Path, made: &Made, views: &Views) -> Result<Came, String> {
    let opening = tokio::spawn(builder(data).open());
    let opened = tokio::time::timeout(PATIENCE, opening).await;
    let opened = opened.map_err(|_| "opening hangs".to_owned())?;
    let opened = opened.map_err(|e| format!("opening: {e}"))?;
    let domain = match opened {
        Ok(domain) => domain,
        // Nor does an owner look at what its snapshot stands for: it may name a later one.
        Err(HostError::LedgerBroken { seq, .. })
            if !views.holds_together
                || views.any_of_lines(
                    |stands| matches!(stands, Stands::Differs(first) if *first <= seq),
                ) =>
        {
            return Ok(Came::FirstBad);
        }
        Err(e @ HostError::LedgerBroken { .. }) => {
            return Err(format!("{e}, but there stands {views:?}"));
        }
        Err(e) => return said(&e).map(|()| Came::Error),
    };
    let work = async {
        let id = "goes-on";
        let plan = plan([step("a")]).set("coordinationId", id).text();
        let ran = domain.run(&plan).await;
        let lines = domain
            .with_store(|store| store.lines(0, usize::MAX >> 1))
            .await;
        domain.close().await;
        (ran, lines)
    };
    let worked = tokio::time::timeout(PATIENCE, work).await;
    let (ran, lines) = worked.map_err(|_| "it hangs".to_owned())?;
    if let Err(e) = &ran {
        said(e)?;
    }
    let Ok(lines) = lines else {
        return Ok(Came::Error);
    };
    // What there is must be what was written, and new records after it.
    let kept = made
        .lines
        .iter()
        .zip(&lines)
        .take_while(|(a, b)| a == b)
        .count();
    // All lines are all lines, whatever number one of them is stored under.
    let fits = |stands: &Stands| stands.kept(made).is_some_and(|due| kept >= due);
    match kept == made.lines.len() || views.any_of_lines(fits) {
        true => Ok(Came::Whole),
        false => Err(format!(
            "it goes on with {kept} of the {} lines that were written, but there stands {views:?}",
            made.lines.len()
        )),
    }
}
