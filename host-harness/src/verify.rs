//! A stored ledger verified from its first record to its last: the hash chain, a replay through the component, and where the
//! store lists each record.
//!
//! Reads and changes nothing; works on a second connection while a domain runs. That a record is what the rules allow is
//! the component's word.

use crate::engine::Engine;
use crate::engine::Instance;
use crate::error::{HostError, Result};
use crate::store::Store;
use qm2_core::call::{Answer, Call};
use qm2_core::digest::ZERO;
use qm2_core::ledger::Chain;
use qm2_core::receipt::{CallError, Head, LedgerFault, LedgerFaultKind};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Lines that are replayed at once.
const LINES_REPLAYED_MAX: usize = 512;

/// What verifying a ledger found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The last record that follows the one before it.
    pub head: Head,
    /// The first record that does not hold.
    pub fault: Option<LedgerFault>,
    /// Digest of the state after the last record, where all of them hold.
    pub state_digest: Option<String>,
}

/// Verifies the ledger of a store. `head` is the hash of a record that must be there, such as that of the last one that
/// somebody noted: without it nobody can tell a ledger whose end was cut off.
///
/// # Errors
/// [`HostError::Store`] if it cannot be read, [`HostError::ComponentFault`] and others of the component.
pub fn verify(engine: &Engine, store: &dyn Store, head: Option<&str>) -> Result<Verified> {
    let mut followed = Followed::default();
    let mut instance = engine.instance()?;
    // The empty ledger's hash stands before the first record, and so it is in every ledger: it must be the last one.
    let mut wanted = head.filter(|hash| *hash != ZERO);
    let mut fault = follow(store, &mut followed, &mut instance, &mut wanted)?.err();
    if fault.is_none() {
        fault = misplaced(store, &followed)?;
    }
    let last = followed.chain.head;
    let fault = fault.or_else(|| {
        let wanted = wanted.or(head.filter(|_| last.seq > 0 && head == Some(ZERO)))?;
        let Head { seq, hash } = &last;
        let message = format!(
            "hash {wanted} belongs to no record: the ledger ends at record {seq} with {hash}"
        );
        Some(broken(seq + 1, message))
    });
    let state_digest = match &fault {
        Some(_) => None,
        None => match call(&mut instance, &Call::StateDigest)? {
            Ok(Answer::StateDigest(digest)) => Some(digest),
            _ => None,
        },
    };
    Ok(Verified {
        head: last,
        fault,
        state_digest,
    })
}

/// What the chain has.
#[derive(Default)]
struct Followed {
    chain: Chain,
    /// Numbers of its records by coordination.
    of_coordination: BTreeMap<String, BTreeSet<u64>>,
}

/// What says where a line belongs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    seq: u64,
    coordination_id: Option<String>,
}

/// Follows the chain record by record and replays it; the inner error is the first record that does not hold. Forgets
/// `wanted` when it comes by.
fn follow(
    store: &dyn Store,
    followed: &mut Followed,
    instance: &mut Instance,
    wanted: &mut Option<&str>,
) -> Result<Result<(), LedgerFault>> {
    let mut lines = Vec::new();
    let chain = &mut followed.chain;
    loop {
        // By its number in the store, so that a number that was changed there is a record that is missing here.
        let seq = chain.head.seq + 1;
        let mut line = store.line(seq)?;
        if line.is_none() && !store.lines(seq, 1)?.is_empty() {
            // Either it was written between these two looks, or it is not there although later ones are.
            line = store.line(seq)?;
            if line.is_none() {
                let message = "is missing, but later records are there".into();
                return Ok(Err(broken(seq, message)));
            }
        }
        let fault = line.as_deref().and_then(|line| chain.push(line).err());
        if *wanted == Some(&chain.head.hash) {
            *wanted = None;
        }
        let is_end = line.is_none() || fault.is_some();
        if let Some(line) = line.filter(|_| fault.is_none()) {
            if let Ok(Place {
                seq,
                coordination_id: Some(id),
            }) = serde_json::from_str(&line)
            {
                followed.of_coordination.entry(id).or_default().insert(seq);
            }
            lines.push(line);
        }
        if lines.len() >= LINES_REPLAYED_MAX || is_end {
            // The component recomputes the hashes too: a second opinion on the chain. What it finds lies before `fault`.
            if let Err(fault) = replay(instance, std::mem::take(&mut lines))? {
                return Ok(Err(fault));
            }
        }
        if let Some(fault) = fault {
            return Ok(Err(fault));
        }
        if is_end {
            return Ok(Ok(()));
        }
    }
}

/// The first record that the store lists under another coordination or number than its own. Lines are read by coordination
/// too, and what stands beside a line in the store is in no hash.
fn misplaced(store: &dyn Store, followed: &Followed) -> Result<Option<LedgerFault>> {
    let mut bad = BTreeSet::new();
    for (id, wanted) in &followed.of_coordination {
        let mut missing = wanted.clone();
        for line in store.coordination_lines(id)? {
            // One that is no record was found by the chain, unless it stands before the first.
            let place: Option<Place> = serde_json::from_str(&line).ok();
            let seq = place.map_or(1, |place| place.seq);
            if missing.remove(&seq) {
                continue;
            }
            // What was written since the chain was followed is there under its number.
            if seq <= followed.chain.head.seq || store.line(seq)?.as_ref() != Some(&line) {
                bad.insert(seq);
            }
        }
        bad.extend(missing);
    }
    let message = "the store lists it under another number or coordination than its own";
    Ok(bad.pop_first().map(|seq| broken(seq, message.into())))
}

pub(crate) fn broken(seq: u64, message: String) -> LedgerFault {
    LedgerFault {
        seq,
        kind: LedgerFaultKind::BrokenChain,
        message,
    }
}

fn replay(instance: &mut Instance, lines: Vec<String>) -> Result<Result<(), LedgerFault>> {
    if lines.is_empty() {
        return Ok(Ok(()));
    }
    let checked = false;
    match call(instance, &Call::Replay { lines, checked })? {
        Ok(_) => Ok(Ok(())),
        Err(CallError::ReadOnly(fault)) => Ok(Err(fault)),
        Err(error) => Err(HostError::Call(error)),
    }
}

fn call(instance: &mut Instance, call: &Call) -> Result<Result<Answer, CallError>> {
    instance
        .call(call)
        .map_err(|fault| HostError::ComponentFault {
            call: call.name(),
            message: fault.to_string(),
        })
}
