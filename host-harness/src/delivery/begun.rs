//! Functions that have begun before their ack: it is said for them once they have been at work for a while.
//!
//! A function that ends quickly reports, which implies the ack and saves a record and a commit. One task looks after all of
//! them, because most end before anybody need look. Does not decide who may begin so; `repeatable` does.

use super::{Delivery, State};
use crate::report::reply;
use crate::submit::{Input, Side};
use qm2_core::call::Call;
use qm2_core::envelope::{DeliveryMode, Intent};
use qm2_core::message::{Caller, Message};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a function may be at work before its ack is said: long for one that only looks something up, and nothing to
/// who waits for an ack.
const SAID_AFTER: Duration = Duration::from_millis(20);

/// Those that began, oldest first, whether or not they are still at work.
#[derive(Default)]
pub(super) struct Begun {
    keys: VecDeque<(Instant, String)>,
    /// Somebody looks after them.
    is_watched: bool,
}

impl Delivery {
    /// Whether a function begins here and now, without an ack.
    pub(super) fn begin_unsaid(self: &Arc<Self>, message: &Message) -> bool {
        let mut state = self.lock();
        if message.delivery_mode != DeliveryMode::AtLeastOnce
            || !state.repeatable.holds(&message.envelope.coordination_id)
        {
            return false;
        }
        let Some(attempt) = state.attempts.get_mut(&message.key) else {
            return false;
        };
        attempt.is_unsaid = true;
        let begun = &mut state.begun;
        begun.keys.push_back((Instant::now(), message.key.clone()));
        if !std::mem::replace(&mut begun.is_watched, true) {
            self.runtime.spawn(self.clone().watch_begun());
        }
        true
    }

    /// Its report follows, which says everything.
    pub(super) fn end_unsaid(&self, key: &str) {
        if let Some(attempt) = self.lock().attempts.get_mut(key) {
            attempt.is_unsaid = false;
        }
    }

    /// Says the ack of a function that has begun without one. Under the lock, so that it comes before the report: after it an
    /// ack is late. Nobody waits for the answer: if it gets lost with a commit the attempt is handed out again, and said again.
    pub(super) fn say_begun(&self, state: &mut State, key: &str) {
        let closing = state.closing;
        let attempt = state.attempts.get_mut(key);
        let Some(attempt) = attempt.filter(|attempt| attempt.is_unsaid && !attempt.ended) else {
            return;
        };
        if closing {
            return;
        }
        let now_ms = self.submitter.clock.now_ms();
        let mut ack = reply(&attempt.message.envelope, Intent::Ack);
        ack.created_at_ms = now_ms;
        let caller = Caller {
            session: ack.source_session.clone(),
            role: None,
        };
        let envelopes = vec![ack];
        self.submitter.send(Input::Call {
            call: Box::new(Call::Submit {
                caller,
                now_ms,
                envelopes,
            }),
            side: Side::default(),
            reply: None,
        });
    }

    async fn watch_begun(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SAID_AFTER).await;
            let mut state = self.lock();
            let now = Instant::now();
            while let Some((_, key)) = state
                .begun
                .keys
                .pop_front_if(|(since, _)| now.duration_since(*since) >= SAID_AFTER)
            {
                self.say_begun(&mut state, &key);
            }
            if state.begun.keys.is_empty() {
                state.begun = Begun::default();
                return;
            }
        }
    }
}
