//! From the store to an instance: the chain is verified, and the instance gets a snapshot, where there is a sound one, and
//! the lines after it.
//!
//! A snapshot saves time and decides nothing: one that does not fit is dropped, and everything is replayed. Where it covers
//! more lines than are verified at once, those before it are left to [`crate::older_lines`].

use crate::engine::{Engine, Instance};
use crate::error::{HostError, Result};
use crate::repeatable::Repeatable;
use crate::store::{Snapshot, Store};
use crate::verify::broken;
use qm2_core::call::{Answer, Call};
use qm2_core::ledger::Chain;
use qm2_core::receipt::{CallError, Head, LedgerFault};
use serde::Deserialize;

/// Lines of one query and of one replay call; also bounded by their bytes.
const LINES_READ: usize = 256;
const LINES_REPLAYED_MAX: usize = 4_096;
const BYTES_REPLAYED_MAX: usize = 8 * 1024 * 1024;
/// Wished size of a piece of a snapshot.
const PIECE_BYTES: u64 = 1024 * 1024;
/// What a piece counts beside its text, so that empty ones have an end too.
const PIECE_COST_BYTES: usize = 1024;

/// An instance at the head of the ledger.
pub(crate) struct Replayed {
    pub(crate) instance: Instance,
    /// The last record; the default if there is none.
    pub(crate) head: Head,
    /// Number of the last record that its snapshot covers, and the length of that; 0 if it was made without one.
    pub(crate) snapshot: (u64, usize),
    /// What the lines that were read say of the coordinations that live.
    pub(crate) repeatable: Repeatable,
    /// What is left to verify.
    pub(crate) older: Option<Older>,
}

/// Lines that are not verified: those up to this one, and a way in to read them.
pub(crate) struct Older {
    pub(crate) until: Head,
    pub(crate) reader: Box<dyn Store>,
}

/// What ties a stored line to the one before it, unverified.
#[derive(Deserialize)]
struct Tie {
    prev: String,
}

/// A new instance with everything that is stored. Lines that a snapshot covers are verified if there are at most so many. A
/// snapshot that does not fit is dropped.
///
/// # Errors
/// [`HostError::LedgerBroken`] with the first bad record; others of the store and the component.
pub(crate) fn from_store(
    engine: &Engine,
    store: &mut dyn Store,
    verified_at_once: u64,
) -> Result<Replayed> {
    let (replayed, refused) = from_stored(engine, store, verified_at_once)?;
    if let Some(refused) = refused {
        tracing::warn!("the snapshot is dropped, and the whole ledger was replayed: {refused}");
        if let Err(e) = store.set_snapshot(None) {
            tracing::warn!("the snapshot could not be dropped: {e}");
        }
    }
    Ok(replayed)
}

/// As [`from_store`], but a snapshot that does not fit stays, and it is said why it does not.
///
/// # Errors
/// As there.
pub(crate) fn from_stored(
    engine: &Engine,
    store: &dyn Store,
    verified_at_once: u64,
) -> Result<(Replayed, Option<HostError>)> {
    let whole = || from_lines(engine, store, None, verified_at_once);
    let refused = match store.snapshot() {
        Ok(None) => return Ok((whole()?, None)),
        Ok(Some(snapshot)) => match from_lines(engine, store, Some(snapshot), verified_at_once) {
            Ok(replayed) => return Ok((replayed, None)),
            Err(e) => e,
        },
        Err(e) => e,
    };
    // Whatever is wrong: the ledger alone decides.
    Ok((whole()?, Some(refused)))
}

fn from_lines(
    engine: &Engine,
    store: &dyn Store,
    snapshot: Option<Snapshot>,
    verified_at_once: u64,
) -> Result<Replayed> {
    let mut instance = engine.instance()?;
    let bytes = snapshot.as_ref().map_or(0, Snapshot::bytes);
    let base = match snapshot {
        Some(snapshot) => restore(engine, &mut instance, store, snapshot)?,
        None => Head::default(),
    };
    let feed = |lines, head: &Head| replay(&mut instance, lines, head);
    let mut repeatable = Repeatable::default();
    let look = |line: &str| repeatable.learn(line);
    let mut older = None;
    if base.seq > verified_at_once
        && let Some(reader) = store.reader()?
    {
        let until = base.clone();
        older = Some(Older { until, reader });
    }
    let chain = Chain {
        head: older
            .as_ref()
            .map_or(Head::default(), |older| older.until.clone()),
    };
    let head = follow(store, chain, base.seq, look, feed)?;
    Ok(Replayed {
        repeatable,
        instance,
        head,
        snapshot: (base.seq, bytes),
        older,
    })
}

/// The first of the stored lines up to this one that does not hold. `goes_on` is asked now and then.
///
/// # Errors
/// [`HostError::Closed`] when it is not to go on; others of the store.
pub(crate) fn verify_until(
    store: &dyn Store,
    until: &Head,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<LedgerFault>> {
    let mut chain = Chain::default();
    while chain.head.seq < until.seq {
        if !goes_on() {
            return Err(HostError::Closed);
        }
        let due = chain.head.seq + 1;
        let count = usize::try_from(until.seq - chain.head.seq).unwrap_or(usize::MAX);
        let lines = store.lines(chain.head.seq, count.min(LINES_READ))?;
        if lines.is_empty() {
            return Ok(Some(broken(due, "is missing".into())));
        }
        for line in &lines {
            if let Err(fault) = chain.push(line) {
                return Ok(Some(fault));
            }
        }
    }
    let says = "is another one than the records after it were made on".into();
    Ok((chain.head != *until).then(|| broken(until.seq, says)))
}

/// The state of a second instance at the head of the ledger: the last snapshot and the lines after it, which this process
/// verified when it opened the store or wrote itself. `goes_on` is asked between two calls.
///
/// # Errors
/// [`HostError::Closed`] when it is not to go on; others of the store and the component.
pub(crate) fn snapshot(
    engine: &Engine,
    store: &dyn Store,
    goes_on: &dyn Fn() -> bool,
) -> Result<Snapshot> {
    let go_on = || goes_on().then_some(()).ok_or(HostError::Closed);
    let mut instance = engine.instance()?;
    let mut base = Head::default();
    if let Some(snapshot) = store.snapshot()? {
        match restore(engine, &mut instance, store, snapshot) {
            Ok(head) => base = head,
            Err(e) => {
                tracing::warn!("a snapshot is made from the first record on: {e}");
                instance = engine.instance()?;
            }
        }
    }
    let chain = Chain { head: base.clone() };
    let feed = |lines, head: &Head| {
        go_on()?;
        replay(&mut instance, lines, head)
    };
    let head = follow(store, chain, base.seq, |_| {}, feed)?;
    let mut chunks = Vec::new();
    let mut bytes = 0;
    let mut cursor = None;
    loop {
        go_on()?;
        let max_bytes = PIECE_BYTES;
        let Answer::Snapshot(piece) = call(&mut instance, &Call::Snapshot { cursor, max_bytes })?
        else {
            return Err(unexpected());
        };
        bytes += piece.chunk.len() + PIECE_COST_BYTES;
        if bytes > engine.sandbox().memory_bytes_max {
            // What came out of that memory is no longer than it, so this would go on for ever.
            return Err(HostError::Component(format!(
                "its snapshot at record {} has no end; please report it",
                head.seq
            )));
        }
        chunks.push(piece.chunk);
        cursor = piece.next;
        if cursor.is_none() {
            return Ok(Snapshot::new(engine.component_digest(), head, chunks));
        }
    }
}

/// Takes a snapshot into an empty instance.
fn restore(
    engine: &Engine,
    instance: &mut Instance,
    store: &dyn Store,
    snapshot: Snapshot,
) -> Result<Head> {
    let refused = |why: &str| HostError::Store {
        doing: "use the snapshot",
        message: format!("it was made at record {}, {why}", snapshot.head.seq),
    };
    if !snapshot.is_sound(engine.component_digest()) {
        return Err(refused("by another version of qm2, or it is damaged"));
    }
    let line = store.line(snapshot.head.seq)?.unwrap_or_default();
    // That it follows the line before it turns out when the chain is verified from the first on.
    let before = Head {
        seq: snapshot.head.seq.saturating_sub(1),
        hash: serde_json::from_str::<Tie>(&line).map_or(String::new(), |tie| tie.prev),
    };
    let mut chain = Chain { head: before };
    if chain.push(&line).is_err() || chain.head != snapshot.head {
        return Err(refused("which is another one in this ledger"));
    }
    let last = snapshot.chunks.len() - 1;
    let mut restored = Head::default();
    for (part, chunk) in snapshot.chunks.into_iter().enumerate() {
        let last = part == last;
        restored = match call(instance, &Call::Restore { chunk, last })? {
            Answer::Restore(head) => head,
            _ => return Err(unexpected()),
        };
    }
    if restored != snapshot.head {
        return Err(refused("but holds the state at another"));
    }
    Ok(restored)
}

/// Verifies the chain to the end of the store, shows every line to `look`, and gives those after `fed` to `feed`, many at a
/// time, with the last of them as the chain has it.
fn follow(
    store: &dyn Store,
    mut chain: Chain,
    fed: u64,
    mut look: impl FnMut(&str),
    mut feed: impl FnMut(Vec<String>, &Head) -> Result<()>,
) -> Result<Head> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    loop {
        let read = store.lines(chain.head.seq, LINES_READ)?;
        let at_end = read.is_empty();
        for line in read {
            chain.push(&line).map_err(|fault| HostError::LedgerBroken {
                seq: fault.seq,
                reason: fault.message,
            })?;
            look(&line);
            if chain.head.seq > fed {
                bytes += line.len();
                lines.push(line);
            }
        }
        let full = lines.len() >= LINES_REPLAYED_MAX || bytes >= BYTES_REPLAYED_MAX;
        if !lines.is_empty() && (at_end || full) {
            feed(std::mem::take(&mut lines), &chain.head)?;
            bytes = 0;
        }
        if at_end {
            return Ok(chain.head);
        }
    }
}

fn replay(instance: &mut Instance, lines: Vec<String>, head: &Head) -> Result<()> {
    let checked = true;
    match call(instance, &Call::Replay { lines, checked })? {
        Answer::Replay(said) if said == *head => Ok(()),
        Answer::Replay(said) => Err(HostError::Component(format!(
            "it says that record {} is its last after a replay up to record {}; please report it",
            said.seq, head.seq
        ))),
        _ => Err(unexpected()),
    }
}

fn call(instance: &mut Instance, call: &Call) -> Result<Answer> {
    match instance.call(call) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(CallError::ReadOnly(fault))) => Err(HostError::LedgerBroken {
            seq: fault.seq,
            reason: fault.message,
        }),
        Ok(Err(e)) => Err(HostError::Call(e)),
        Err(fault) => Err(HostError::Component(format!(
            "{} of the ledger: {fault}",
            call.name()
        ))),
    }
}

fn unexpected() -> HostError {
    HostError::Component("it gave the answer of another call; please report it".into())
}
