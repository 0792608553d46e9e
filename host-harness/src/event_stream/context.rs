//! What is known of runs: the context that each was registered with, and the number of its last event.
//!
//! Does not know who listens.

use super::not_blank;
use std::collections::HashMap;

/// How long a run may say nothing before it is forgotten, in milliseconds.
const IDLE_MS_MAX: u64 = 30 * 60 * 1_000;

/// What events of a run have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunContext {
    /// Its session.
    pub session_key: Option<String>,
    /// The id of that session, which changes when the session begins anew.
    pub session_id: Option<String>,
    /// What it descends from.
    pub lineage_id: Option<String>,
    /// How much it says, as the host names that.
    pub verbose_level: Option<String>,
    /// Whether it was started by a timer and not by anybody.
    pub is_heartbeat: Option<bool>,
    /// Whether others must not see its session.
    pub is_hidden: Option<bool>,
}

/// All runs.
#[derive(Default)]
pub(super) struct Runs(HashMap<String, Run>);

struct Run {
    context: Option<RunContext>,
    seq: u64,
    last_ms: u64,
}

/// What of a context goes into an event.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) session_key: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) lineage_id: Option<String>,
    pub(super) is_hidden: bool,
}

impl Runs {
    /// The number of a run's next event, and what its context adds.
    pub(super) fn next(&mut self, run_id: &str, now_ms: u64) -> (u64, Shown) {
        let run = self.run(run_id, now_ms);
        run.seq += 1;
        let shown = run.context.as_ref().map(|context| Shown {
            session_key: context.session_key.clone(),
            session_id: context.session_id.clone(),
            lineage_id: context.lineage_id.clone(),
            is_hidden: context.is_hidden == Some(true),
        });
        (run.seq, shown.unwrap_or_default())
    }

    pub(super) fn register(&mut self, run_id: &str, context: RunContext, now_ms: u64) {
        let run = self.run(run_id, now_ms);
        let Some(known) = &mut run.context else {
            run.context = Some(context);
            return;
        };
        let newer = |new: Option<String>, old: &mut Option<String>| {
            if let Some(new) = not_blank(new) {
                *old = Some(new);
            }
        };
        newer(context.session_key, &mut known.session_key);
        newer(context.session_id, &mut known.session_id);
        newer(context.verbose_level, &mut known.verbose_level);
        known.is_heartbeat = context.is_heartbeat.or(known.is_heartbeat);
        known.is_hidden = context.is_hidden.or(known.is_hidden);
    }

    pub(super) fn context(&self, run_id: &str) -> Option<RunContext> {
        self.0.get(run_id)?.context.clone()
    }

    pub(super) fn clear(&mut self, run_id: &str) {
        if let Some(run) = self.0.get_mut(run_id) {
            run.context = None;
        }
    }

    /// How many were forgotten. A clock that was set back forgets nobody.
    pub(super) fn sweep(&mut self, now_ms: u64) -> usize {
        let before = self.0.len();
        self.0
            .retain(|_, run| now_ms.saturating_sub(run.last_ms) < IDLE_MS_MAX);
        before - self.0.len()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn run(&mut self, run_id: &str, now_ms: u64) -> &mut Run {
        // Looked up first: a run that is known costs no new text.
        if !self.0.contains_key(run_id) {
            let run = Run {
                context: None,
                seq: 0,
                last_ms: now_ms,
            };
            self.0.insert(run_id.to_owned(), run);
        }
        let run = self.0.get_mut(run_id).expect("it is there");
        run.last_ms = run.last_ms.max(now_ms);
        run
    }
}
