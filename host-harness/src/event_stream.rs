//! Ledger lines for whoever listens, after they are durable.
//!
//! Nothing is kept for those who come late or fall behind: the ledger has every line, and its numbers show gaps.

use std::sync::Arc;
use tokio::sync::broadcast;

/// Lines that a slow listener may be behind before it loses the oldest.
const BUFFERED_LINES: usize = 16_384;

/// Sends lines to all listeners.
#[derive(Clone, Debug)]
pub(crate) struct EventStream(broadcast::Sender<Arc<str>>);

impl EventStream {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BUFFERED_LINES))
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.0.subscribe()
    }

    pub(crate) fn publish(&self, lines: &[String]) {
        if self.0.receiver_count() == 0 {
            return;
        }
        for line in lines {
            // Fails only when nobody listens any more.
            let _ = self.0.send(Arc::from(line.as_str()));
        }
    }
}
