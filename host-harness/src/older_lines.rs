//! Lines that a snapshot covers, verified behind a domain that is open already: on a thread of its own, at low priority,
//! over a second way into the store.
//!
//! Only where there are too many to wait for: see [`crate::DomainBuilder::verify_at_once`]. Finds the first line that does not
//! hold, and says so to the domain's loop. Does not look at the lines after the snapshot; the opening has.

use crate::replay::{self, Older};
use crate::snapshot::step_back;
use crate::store::Store;
use crate::submit::Input;
use qm2_core::receipt::{Head, LedgerFault};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// How long a store that cannot be read is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile whether anybody still wants to know.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Verifies them; stops when dropped.
pub(crate) struct OlderLines {
    _alive: Arc<()>,
}

impl OlderLines {
    /// Begins with the first line and goes on up to this one.
    pub(crate) fn verify(older: Older, inputs: Sender<Input>) -> Self {
        let alive = Arc::new(());
        let watched = Arc::downgrade(&alive);
        let thread = thread::Builder::new().name("qm2-verify".into());
        let body = move || follow(&*older.reader, &older.until, &inputs, &watched);
        if let Err(e) = thread.spawn(body) {
            tracing::warn!("records before the snapshot are not verified: no thread for it: {e}");
        }
        Self { _alive: alive }
    }
}

fn follow(store: &dyn Store, until: &Head, inputs: &Sender<Input>, alive: &Weak<()>) {
    step_back();
    let goes_on = || alive.strong_count() > 0;
    while goes_on() {
        match replay::verify_until(store, until, &goes_on) {
            Ok(None) => return tracing::debug!("records up to {} are verified", until.seq),
            Ok(Some(fault)) => return say(inputs, fault),
            Err(e) if goes_on() => tracing::warn!(
                "records before the snapshot could not be verified yet: {e}; trying again"
            ),
            Err(_) => return,
        }
        let mut left = AGAIN_AFTER;
        while goes_on() && !left.is_zero() {
            thread::sleep(LOOK_EVERY);
            left = left.saturating_sub(LOOK_EVERY);
        }
    }
}

fn say(inputs: &Sender<Input>, fault: LedgerFault) {
    // Fails only when the domain is closed.
    let _ = inputs.send(Input::Broken(fault));
}
