//! What is stored, for those who look at a data directory without owning it, also while its domain runs.
//!
//! As when a domain opens, what a snapshot covers is not replayed, and of more records than opening waits for it is not
//! verified; what is given out of it is tested by itself. Writes nothing.

use crate::engine::{Engine, Instance};
use crate::error::{HostError, Result};
use crate::opening::VERIFY_AT_ONCE;
use crate::replay;
use crate::store::Store;
use qm2_core::event::Record;
use qm2_core::ledger::Chain;
use qm2_core::receipt::Head;

/// An instance with everything that is stored, for reading calls.
///
/// # Errors
/// [`HostError::LedgerBroken`] with the first bad record; others of the store and the component.
pub fn instance(store: &dyn Store) -> Result<Instance> {
    let (replayed, refused) = replay::from_stored(&Engine::new()?, store, VERIFY_AT_ONCE)?;
    if let Some(refused) = refused {
        tracing::debug!("the whole ledger was replayed: {refused}");
    }
    Ok(replayed.instance)
}

/// The records of a coordination up to a number, each with the hash of what it says.
///
/// # Errors
/// [`HostError::LedgerBroken`] with the first that is not what was hashed, others of the store.
pub fn records(store: &dyn Store, coordination_id: &str, until_seq: u64) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut last_seq = 0;
    for line in store.coordination_lines(coordination_id)? {
        let broken = |seq, reason| HostError::LedgerBroken { seq, reason };
        let (record, prev, _) =
            Record::parse_linked(&line).map_err(|e| broken(last_seq + 1, e.to_string()))?;
        last_seq = record.seq;
        if last_seq > until_seq {
            break;
        }
        let before = Head {
            seq: last_seq.saturating_sub(1),
            hash: prev,
        };
        Chain { head: before }
            .push(&line)
            .map_err(|fault| broken(fault.seq, fault.message))?;
        records.push(record);
    }
    Ok(records)
}
