//! Settling: the machine does what follows from the state by itself, until nothing does.
//!
//! Says in which order it is asked what follows (M2); what does is decided in [`crate::settle`], [`crate::child`] and
//! [`crate::dispatch`].

use super::{Call, Machine};
use crate::child;
use crate::dispatch::decide_slot;
use crate::event::Name;
use crate::settle::{decide_skips, decide_stops, decide_terminal};
use crate::state::StepState;

impl Machine {
    /// Does what follows from the state by itself, until nothing does (M2).
    pub(super) fn settle(&mut self, call: &mut Call, now_ms: u64) {
        let mut dirty = std::mem::take(&mut call.dirty);
        loop {
            dirty.clear();
            std::mem::swap(&mut dirty, &mut self.state.index.dirty);
            let before = self.state.head.seq;
            // Nearly always nothing follows, and that is seen at one look.
            let stages = if self.follows_any(&dirty, now_ms) {
                3
            } else {
                0
            };
            for stage in 0..stages {
                for id in &dirty {
                    let Some(live) = self.state.live.get(id) else {
                        continue;
                    };
                    let drafts = match stage {
                        0 => decide_skips(live),
                        1 => decide_stops(live),
                        _ => child::decide_cancels(&self.state, live, now_ms),
                    };
                    for draft in drafts {
                        self.record(call, now_ms, draft);
                    }
                }
                if self.state.head.seq > before {
                    break;
                }
            }
            if self.state.head.seq > before {
                // Something moved: skips come first again, for these and for whatever they touched.
                for id in &dirty {
                    self.state.index.touch(id);
                }
                continue;
            }
            self.fill_slots(call, now_ms);
            for id in &dirty {
                let live = self.state.live.get(id);
                if let Some(draft) = live.and_then(|live| decide_terminal(live, now_ms)) {
                    self.record(call, now_ms, draft);
                }
            }
            if self.state.head.seq == before {
                break;
            }
        }
        call.dirty = dirty;
    }

    /// Whether a step is to be skipped or stopped, or a child plan cancelled.
    fn follows_any(&self, dirty: &[Name], now_ms: u64) -> bool {
        let mut live = dirty.iter().filter_map(|id| self.state.live.get(id));
        live.any(|live| {
            !decide_skips(live).is_empty()
                || !decide_stops(live).is_empty()
                || !child::decide_cancels(&self.state, live, now_ms).is_empty()
        })
    }

    /// Sends out what a free slot is there for, heads of the orders of resources included.
    fn fill_slots(&mut self, call: &mut Call, now_ms: u64) {
        for place in self.state.index.claims.take_heads() {
            self.put_up(&place);
        }
        loop {
            let last_owner = self.state.last_owner.clone();
            let Some((id, step_id)) = self.state.index.slots.pick(now_ms, last_owner.as_ref())
            else {
                return;
            };
            let coordination = self.state.coordination(&id);
            let index = coordination
                .step_index(&step_id)
                .expect("a candidate is a step");
            match decide_slot(
                &self.state,
                coordination,
                &coordination.steps[index],
                now_ms,
            ) {
                Ok(drafts) => {
                    for draft in drafts {
                        self.record(call, now_ms, draft);
                    }
                    let ended = self.state.coordination(&id).steps[index].state.is_final();
                    if ended {
                        // What follows from an end comes before anything else goes out.
                        return;
                    }
                }
                // It waits on, and is put up again when somebody leaves one of its resources.
                Err(other) => {
                    self.state.index.slots.remove(&id, &step_id);
                    if let Some(place) = other {
                        self.put_up(&place);
                    }
                }
            }
            for place in self.state.index.claims.take_heads() {
                self.put_up(&place);
            }
        }
    }

    /// Lets a waiting step try for a slot.
    fn put_up(&mut self, (id, step_id): &(Name, Name)) {
        let Some(coordination) = self.state.live.get(id) else {
            return;
        };
        let Some(index) = coordination.step_index(step_id) else {
            return;
        };
        let step = &coordination.steps[index];
        if step.state == StepState::WaitingClaim {
            let candidate = coordination.candidate(step);
            self.state.index.slots.insert(candidate);
        }
    }
}
