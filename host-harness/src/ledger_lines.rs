//! Ledger lines for whoever listens, after they are durable.
//!
//! Nothing is kept for those who come late or fall behind: the ledger has every line, and its numbers show gaps.

use crate::event_stream::{COORDINATION, Event, EventStream};
use serde_json::Value;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Lines that a slow listener may be behind before it loses the oldest.
const BUFFERED_LINES: usize = 16_384;

/// Sends lines to all listeners.
#[derive(Clone, Debug)]
pub(crate) struct LedgerLines(broadcast::Sender<Arc<str>>);

impl LedgerLines {
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

    /// Tells an event stream of every line, outside the loop that writes them.
    pub(crate) fn tell(&self, stream: EventStream, runtime: &Handle) {
        let mut lines = self.subscribe();
        runtime.spawn(async move {
            loop {
                match lines.recv().await {
                    Ok(line) => drop(stream.emit(event(&line))),
                    Err(RecvError::Lagged(count)) => {
                        tracing::warn!("{count} records were not told to the event stream");
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }
}

/// A record as an event of its coordination.
fn event(line: &str) -> Event {
    let data: Value = serde_json::from_str(line).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Event {
        run_id: text(&data["coordinationId"]).unwrap_or_default(),
        stream: COORDINATION.to_owned(),
        trace_id: text(&data["trace"]["runId"]),
        span_id: text(&data["trace"]["spanId"]),
        data,
        ..Event::default()
    }
}
