//! What is out: the messages that a domain would hand out if it opened now, as its ledger says.
//!
//! For those who look at a data directory, also while its domain runs. Hands nothing out and keeps nothing.

use crate::error::{HostError, Result};
use crate::reading;
use crate::store::Store;
use qm2_core::call::Call;
use qm2_core::message::Message;
use qm2_core::receipt::CallError;

/// The messages that are out, by key; none while the domain's gate is off.
///
/// # Errors
/// [`HostError::LedgerBroken`] with the first bad record; others of the store and the component.
pub fn messages(store: &dyn Store) -> Result<Vec<Message>> {
    let mut instance = reading::instance(store)?;
    let call = Call::Reconcile;
    match instance.call(&call) {
        Ok(Ok(_) | Err(CallError::Disabled)) => {}
        Ok(Err(e)) => return Err(HostError::Call(e)),
        Err(fault) => {
            let (call, message) = (call.name(), fault.to_string());
            return Err(HostError::ComponentFault { call, message });
        }
    }
    let mut messages = instance.take_staged().messages;
    messages.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(messages)
}
