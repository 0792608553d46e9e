//! Signals: something said once and for all, to those who look, wait, or asked to be called.
//!
//! A signal does not know what it is used for; it may be given to any number of entries.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Said once, for good; cheap to clone. See [`super::Entry::abort_on`] and [`super::Entry::release_on`].
#[derive(Clone, Default)]
pub struct Signal(Arc<Inner>);

#[derive(Default)]
struct Inner {
    flag: Flag,
    calls: Mutex<Calls>,
}

type Call = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Calls {
    made: u64,
    due: BTreeMap<u64, Call>,
}

/// A signal without calls.
#[derive(Default)]
pub(super) struct Flag {
    raised: AtomicBool,
    told: Notify,
}

/// A call that is due; not any more once this is dropped.
pub(super) struct Due {
    signal: Signal,
    number: u64,
}

impl Signal {
    /// One that is not raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises it. Entries that wait and were to be aborted have left their lanes when this returns.
    pub fn raise(&self) {
        self.0.flag.raise();
        let due = std::mem::take(&mut self.calls().due);
        for call in due.into_values() {
            call();
        }
    }

    /// Whether it was raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.flag.is_raised()
    }

    /// Waits until it is raised.
    pub async fn raised(&self) {
        self.0.flag.raised().await;
    }

    /// Calls when it is raised. If that has happened already, never.
    pub(super) fn on_raise(&self, call: impl FnOnce() + Send + 'static) -> Due {
        let mut calls = self.calls();
        calls.made += 1;
        let number = calls.made;
        // Asked behind the lock, through which raising takes the calls away.
        if !self.is_raised() {
            calls.due.insert(number, Box::new(call));
        }
        drop(calls);
        Due {
            signal: self.clone(),
            number,
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&self.is_raised()).finish()
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        let call = self.signal.calls().due.remove(&self.number);
        // Outside the lock.
        drop(call);
    }
}

impl Flag {
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(super) async fn raised(&self) {
        let mut told = pin!(self.told.notified());
        // Enlisted before looking, so that nothing is missed between the two.
        told.as_mut().enable();
        if !self.is_raised() {
            told.await;
        }
    }
}
