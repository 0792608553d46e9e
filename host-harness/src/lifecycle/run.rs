//! Runs of subagents: when one has ended, and how.
//!
//! | phase | in between | ended |
//! |---|---|---|
//! | start | nothing is pending any more | - |
//! | error | after a grace of 15 s without a start or an end | error |
//! | end | - | ok at once |
//! | end, aborted | after the same grace | timeout |
//! | end, aborted with stop reason `abort` | - | killed at once |
//! | end, blocked | - | error at once |
//! | end, yielded | paused: not ended | - |
//! | anything after the run's deadline | - | timeout, at the deadline |
//! | kill | - | killed at once |
//!
//! Whatever comes after an end changes nothing: the first one stands.

use super::{EndedReason, Outcome, Phase, TargetKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How long a run that failed, or was aborted, may take to begin again, in milliseconds.
const GRACE_MS: u64 = 15_000;
/// How much later than its deadline a run may say that it ended in time, in milliseconds.
const DEADLINE_TOLERANCE_MS: u64 = 250;
/// Longest result that is kept of a run, in bytes.
pub const RESULT_BYTES_MAX: usize = 100 * 1024;

/// A run that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawned {
    /// Id of the run.
    pub run_id: String,
    /// Session of the subagent.
    pub child_session: String,
    /// What it is.
    pub target_kind: TargetKind,
    /// When its time is over, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
    /// Whether whoever asked waits for its result: then its hook comes after that was announced.
    pub expects_completion: bool,
    /// Whether the session stays when the run ends: then its hook comes only if it was killed.
    pub is_session_mode: bool,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Id of the run.
    pub run_id: String,
    /// Session of the subagent.
    pub child_session: String,
    /// What it is.
    pub target_kind: TargetKind,
    /// Why it ended.
    pub reason: EndedReason,
    /// What came of it.
    pub outcome: Outcome,
    /// What went wrong.
    pub error: Option<String>,
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_at_ms: u64,
    /// Its result, as it was when it was first given.
    pub result: Option<String>,
    /// Whether its result is announced to whoever asked for it; not of one that was killed.
    pub is_announced: bool,
}

/// No run has this id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRun(
    /// The id.
    pub String,
);

impl fmt::Display for UnknownRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no run {} was spawned here", self.0)
    }
}

impl std::error::Error for UnknownRun {}

/// The runs of a host.
#[derive(Debug, Default)]
pub struct Subagents {
    runs: BTreeMap<String, Run>,
    /// Pending ends, by the time at which they count.
    due: BTreeSet<(u64, String)>,
    /// Sessions whose hook was told of a kill.
    killed_sessions: BTreeSet<String>,
}

#[derive(Debug)]
struct Run {
    spawned: Spawned,
    started_at_ms: Option<u64>,
    pending: Option<Pending>,
    ended: Option<Ended>,
    result: Option<String>,
    hook: HookState,
    is_announced: bool,
}

#[derive(Clone, Debug)]
struct Pending {
    due_ms: u64,
    ended_at_ms: u64,
    outcome: Outcome,
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HookState {
    Due,
    InFlight,
    Told,
}

impl Subagents {
    /// No runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A run was begun; false if it is known already.
    pub fn spawned(&mut self, spawned: Spawned) -> bool {
        if self.runs.contains_key(&spawned.run_id) {
            return false;
        }
        if let Some(deadline_ms) = spawned.deadline_ms {
            let due_ms = deadline_ms.saturating_add(DEADLINE_TOLERANCE_MS + 1);
            self.due.insert((due_ms, spawned.run_id.clone()));
        }
        let run = Run {
            spawned,
            started_at_ms: None,
            pending: None,
            ended: None,
            result: None,
            hook: HookState::Due,
            is_announced: false,
        };
        self.runs.insert(run.spawned.run_id.clone(), run);
        true
    }

    /// A run could not be begun: it ends at once, so that its hook hears of it. None if it is known already.
    pub fn spawn_failed(&mut self, spawned: Spawned, error: String, now_ms: u64) -> Option<Ended> {
        let run_id = spawned.run_id.clone();
        if !self.spawned(spawned) {
            return None;
        }
        let reason = EndedReason::SpawnFailed;
        self.end(&run_id, reason, Outcome::Error, Some(error), now_ms)
    }

    /// What a run says of itself; its end, where that is one.
    ///
    /// # Errors
    /// [`UnknownRun`].
    pub fn phase(
        &mut self,
        run_id: &str,
        phase: Phase,
        now_ms: u64,
    ) -> Result<Option<Ended>, UnknownRun> {
        let run = self.runs.get_mut(run_id);
        let run = run.ok_or_else(|| UnknownRun(run_id.to_owned()))?;
        if run.ended.is_some() {
            return Ok(None);
        }
        if let Some(deadline_ms) = run.spawned.deadline_ms
            && now_ms > deadline_ms.saturating_add(DEADLINE_TOLERANCE_MS)
        {
            return Ok(self.time_out(run_id, deadline_ms));
        }
        let (ended_at_ms, outcome, error) = match phase {
            Phase::Start { started_at } => {
                run.started_at_ms = Some(started_at);
                self.set_pending(run_id, None);
                return Ok(None);
            }
            Phase::End { yielded: true, .. } => {
                self.set_pending(run_id, None);
                return Ok(None);
            }
            Phase::End {
                ended_at,
                blocked: true,
                ..
            } => (ended_at, Outcome::Error, Some("it is blocked".to_owned())),
            Phase::End {
                ended_at,
                aborted: true,
                stop_reason,
                ..
            } => {
                if stop_reason.as_deref() == Some("abort") {
                    (ended_at, Outcome::Killed, Some("it was aborted".to_owned()))
                } else {
                    self.wait(run_id, now_ms, ended_at, Outcome::Timeout, None);
                    return Ok(None);
                }
            }
            Phase::End { ended_at, .. } => (ended_at, Outcome::Ok, None),
            Phase::Error { ended_at, error } => {
                self.wait(run_id, now_ms, ended_at, Outcome::Error, Some(error));
                return Ok(None);
            }
        };
        let reason = reason_of(outcome);
        Ok(self.end(run_id, reason, outcome, error, ended_at_ms))
    }

    /// Ends what was pending for its whole grace, however late this is called, and what is past its deadline.
    pub fn advance(&mut self, now_ms: u64) -> Vec<Ended> {
        let mut ended = Vec::new();
        while let Some((due_ms, run_id)) = self.due.first().cloned() {
            if due_ms > now_ms {
                break;
            }
            self.due.pop_first();
            let Some(run) = self.runs.get(&run_id).filter(|run| run.ended.is_none()) else {
                continue;
            };
            let deadline_ms = run.spawned.deadline_ms;
            ended.extend(match &run.pending {
                Some(pending) if pending.due_ms == due_ms => {
                    let Pending {
                        ended_at_ms,
                        outcome,
                        error,
                        ..
                    } = pending.clone();
                    self.end(&run_id, reason_of(outcome), outcome, error, ended_at_ms)
                }
                _ => deadline_ms.and_then(|deadline_ms| self.time_out(&run_id, deadline_ms)),
            });
        }
        ended
    }

    /// When [`Subagents::advance`] has something to do.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Kills a run that has not ended. Its result is not announced.
    pub fn kill(&mut self, run_id: &str, reason: Option<String>, now_ms: u64) -> Option<Ended> {
        let says = reason.unwrap_or_else(|| "killed".into());
        let killed = EndedReason::Killed;
        self.end(run_id, killed, Outcome::Error, Some(says), now_ms)
    }

    /// Kills all runs of a session that have not ended.
    pub fn kill_session(
        &mut self,
        child_session: &str,
        reason: Option<&str>,
        now_ms: u64,
    ) -> Vec<Ended> {
        let of_session = |run: &&Run| run.spawned.child_session == child_session;
        let ids = self.runs.values().filter(of_session);
        let ids: Vec<String> = ids.map(|run| run.spawned.run_id.clone()).collect();
        let reason = || reason.map(str::to_owned);
        let killed = ids.iter().filter_map(|id| self.kill(id, reason(), now_ms));
        killed.collect()
    }

    /// Keeps the result of a run, at most 100 KiB of it, from the beginning on. What is kept is never changed: later ones are
    /// not taken.
    ///
    /// # Errors
    /// [`UnknownRun`].
    pub fn freeze_result(&mut self, run_id: &str, text: &str) -> Result<&str, UnknownRun> {
        let run = self.runs.get_mut(run_id);
        let run = run.ok_or_else(|| UnknownRun(run_id.to_owned()))?;
        let cut = || text[..text.floor_char_boundary(RESULT_BYTES_MAX)].to_owned();
        let frozen = run.result.get_or_insert_with(cut);
        if let Some(ended) = run.ended.as_mut().filter(|ended| ended.result.is_none()) {
            ended.result = Some(frozen.clone());
        }
        Ok(frozen)
    }

    /// The result of a run was announced to whoever asked for it.
    pub fn announced(&mut self, run_id: &str) {
        if let Some(run) = self.runs.get_mut(run_id) {
            run.is_announced = true;
        }
    }

    /// Takes the turn of telling the hook of a run's end: none before the end, none while another one tells it, none once it
    /// was told, and none for a session that stays, unless it was killed.
    pub fn begin_hook(&mut self, run_id: &str) -> Option<Ended> {
        let run = self.runs.get_mut(run_id)?;
        let ended = run.ended.clone()?;
        let is_killed = ended.reason == EndedReason::Killed;
        let waits = ended.is_announced && run.spawned.expects_completion && !run.is_announced;
        let stays = run.spawned.is_session_mode && !is_killed;
        if run.hook != HookState::Due || waits || stays {
            return None;
        }
        if is_killed && !self.killed_sessions.insert(ended.child_session.clone()) {
            run.hook = HookState::Told;
            return None;
        }
        run.hook = HookState::InFlight;
        Some(ended)
    }

    /// What came of telling the hook: one that failed may be told again, but not of a kill.
    pub fn end_hook(&mut self, run_id: &str, succeeded: bool) {
        let run = self.runs.get_mut(run_id);
        if let Some(run) = run.filter(|run| run.hook == HookState::InFlight) {
            let ended = run.ended.as_ref();
            let is_killed = ended.is_some_and(|ended| ended.reason == EndedReason::Killed);
            run.hook = match succeeded || is_killed {
                true => HookState::Told,
                false => HookState::Due,
            };
        }
    }

    /// How a run ended, if it has.
    #[must_use]
    pub fn ended(&self, run_id: &str) -> Option<&Ended> {
        self.runs.get(run_id)?.ended.as_ref()
    }

    /// Forgets a run that has ended, and with the last one of its session that its hook was told; false while it has not.
    pub fn forget(&mut self, run_id: &str) -> bool {
        if self.ended(run_id).is_none() {
            return false;
        }
        let Some(run) = self.runs.remove(run_id) else {
            return false;
        };
        let session = &run.spawned.child_session;
        let mut others = self.runs.values();
        if !others.any(|other| other.spawned.child_session == *session) {
            self.killed_sessions.remove(session);
        }
        true
    }

    /// How many runs are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    fn wait(
        &mut self,
        run_id: &str,
        now_ms: u64,
        ended_at_ms: u64,
        outcome: Outcome,
        error: Option<String>,
    ) {
        let pending = Pending {
            due_ms: now_ms.saturating_add(GRACE_MS),
            ended_at_ms,
            outcome,
            error,
        };
        self.set_pending(run_id, Some(pending));
    }

    fn set_pending(&mut self, run_id: &str, pending: Option<Pending>) {
        let Some(run) = self.runs.get_mut(run_id) else {
            return;
        };
        if let Some(old) = run.pending.take() {
            self.due.remove(&(old.due_ms, run_id.to_owned()));
        }
        if let Some(new) = &pending {
            self.due.insert((new.due_ms, run_id.to_owned()));
        }
        run.pending = pending;
    }

    fn time_out(&mut self, run_id: &str, deadline_ms: u64) -> Option<Ended> {
        let (reason, outcome) = (EndedReason::Complete, Outcome::Timeout);
        self.end(run_id, reason, outcome, None, deadline_ms)
    }

    /// The first end stands.
    fn end(
        &mut self,
        run_id: &str,
        reason: EndedReason,
        outcome: Outcome,
        error: Option<String>,
        ended_at_ms: u64,
    ) -> Option<Ended> {
        self.set_pending(run_id, None);
        let run = self
            .runs
            .get_mut(run_id)
            .filter(|run| run.ended.is_none())?;
        if let Some(deadline_ms) = run.spawned.deadline_ms {
            let due_ms = deadline_ms.saturating_add(DEADLINE_TOLERANCE_MS + 1);
            self.due.remove(&(due_ms, run_id.to_owned()));
        }
        let ended = Ended {
            run_id: run_id.to_owned(),
            child_session: run.spawned.child_session.clone(),
            target_kind: run.spawned.target_kind,
            reason,
            outcome,
            error,
            ended_at_ms,
            result: run.result.clone(),
            is_announced: reason != EndedReason::Killed,
        };
        run.ended = Some(ended.clone());
        Some(ended)
    }
}

fn reason_of(outcome: Outcome) -> EndedReason {
    match outcome {
        Outcome::Ok | Outcome::Timeout => EndedReason::Complete,
        Outcome::Error => EndedReason::Error,
        Outcome::Killed | Outcome::Reset | Outcome::Deleted => EndedReason::Killed,
    }
}
