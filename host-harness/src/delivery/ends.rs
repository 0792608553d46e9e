//! How coordinations ended, for those who wait for it in this process.
//!
//! Only what somebody waits for is kept, and no longer than that. Whoever comes later reads the ledger.

use super::Delivery;
use crate::line_head::LineHead;
use std::collections::HashMap;
use std::sync::Arc;

/// Who waits, by coordination, with its last record once it is there.
#[derive(Default)]
pub(super) struct Ends(HashMap<String, End>);

#[derive(Default)]
struct End {
    waiting: usize,
    line: Option<String>,
}

impl Ends {
    pub(super) fn see(&mut self, line: &str) {
        if self.0.is_empty() {
            return;
        }
        if let Some(LineHead {
            kind: "coordination.terminal",
            coordination_id: Some(id),
            ..
        }) = LineHead::of(line)
            && let Some(end) = self.0.get_mut(id)
        {
            end.line = Some(line.to_owned());
        }
    }
}

/// Keeps the end of one coordination while it lives.
pub(crate) struct AwaitedEnd {
    delivery: Arc<Delivery>,
    coordination_id: String,
}

impl Delivery {
    pub(crate) fn await_end(self: &Arc<Self>, coordination_id: &str) -> AwaitedEnd {
        let coordination_id = coordination_id.to_owned();
        let mut state = self.lock();
        let end = state.ends.0.entry(coordination_id.clone()).or_default();
        end.waiting += 1;
        AwaitedEnd {
            delivery: self.clone(),
            coordination_id,
        }
    }

    /// Reports of a coordination that were handed out in this process and are not acknowledged.
    pub(crate) fn open_reports(&self, coordination_id: &str) -> Vec<String> {
        let state = self.lock();
        let reports = state.reports.values();
        let of_it = reports.filter(|report| report.envelope.coordination_id == coordination_id);
        of_it.map(|report| report.key.clone()).collect()
    }
}

impl AwaitedEnd {
    /// The coordination.terminal record, if it became durable while somebody waited.
    pub(crate) fn line(&self) -> Option<String> {
        let state = self.delivery.lock();
        state.ends.0.get(&self.coordination_id)?.line.clone()
    }
}

impl Drop for AwaitedEnd {
    fn drop(&mut self) {
        let mut state = self.delivery.lock();
        if let Some(end) = state.ends.0.get_mut(&self.coordination_id) {
            end.waiting -= 1;
            if end.waiting == 0 {
                state.ends.0.remove(&self.coordination_id);
            }
        }
    }
}
