//! Where time comes from: the wall clock, or a clock that a test moves by hand.
//!
//! The component has no clock; the domain tells it the time of every input.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest sleep between two looks at the clock, so that a wall clock that is set forward is seen.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// How long a loop may sleep before it looks again whether this time has come.
    fn sleep_until(&self, at_ms: Option<u64>) -> Duration;
}

/// The wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970; the component clamps times that go backwards.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, at_ms: Option<u64>) -> Duration {
        at_ms.map_or(LOOK_EVERY, |at_ms| {
            // One more, because `now_ms` rounds down.
            Duration::from_millis(at_ms.saturating_sub(self.now_ms()).saturating_add(1))
                .min(LOOK_EVERY)
        })
    }
}

/// A clock that stands still until it is moved; clones share their time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows this time.
    #[must_use]
    pub fn at(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Moves it forward by a duration in milliseconds; domains notice within a few milliseconds of real time.
    pub fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets it, also backwards.
    pub fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn sleep_until(&self, _at_ms: Option<u64>) -> Duration {
        Duration::from_millis(2)
    }
}
