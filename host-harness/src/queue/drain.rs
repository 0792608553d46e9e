//! Sending: one try of one entry, and a pass over all that are due.
//!
//! | what is known of the send | what is done |
//! |---|---|
//! | nothing was sent | noted as begun, then sent |
//! | begun or unknown; the channel says it was sent | acked |
//! | begun; the channel says it was not sent | sent |
//! | unknown; the channel says it was not sent | dead letter: both cannot be |
//! | begun or unknown; cannot be found out now | a failure |
//! | begun or unknown; can never be found out | dead letter |
//!
//! A pass never sleeps until something is due; what is not due is passed over.

use super::channel::{Channel, Channels, Reconciled, SendError};
use super::entry::{COORDINATION, ERROR_BYTES_MAX, Entry, Reason, SendState};
use super::{DurableQueue, policy};
use crate::error::{HostError, Result};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a pass may do.
#[derive(Clone, Debug)]
#[must_use]
pub struct Drain {
    channel: Option<String>,
    budget: Duration,
    pacing: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            channel: None,
            budget: Duration::from_secs(60),
            pacing: Duration::from_millis(250),
        }
    }
}

impl Drain {
    /// All channels, within a minute, a quarter of a second between two sends.
    pub fn all() -> Self {
        Self::default()
    }

    /// As [`Drain::all`], of one channel.
    pub fn channel(name: impl Into<String>) -> Self {
        let channel = Some(name.into());
        Self {
            channel,
            ..Self::default()
        }
    }

    /// Sets how long it may take. What is not reached is left as it is.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Sets the pause between two entries that a channel is asked about.
    pub fn pacing(mut self, pacing: Duration) -> Self {
        self.pacing = pacing;
        self
    }
}

/// What a pass did. Entries that it did not reach, or that somebody else has in hand, are in none of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Delivered.
    pub recovered: u64,
    /// Failed, for now or for good.
    pub failed: u64,
    /// Given up, because they had failed as often as they may.
    pub skipped_max_retries: u64,
    /// Not due yet, or of a channel that is not there.
    pub deferred_backoff: u64,
}

/// What came of one try.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The recipient has it. The entry is still there, and to be acked.
    Sent,
    /// It failed and stays.
    Failed(String),
    /// It was given up.
    Dead(Reason, String),
    /// It is not due, or its channel is not there.
    Deferred,
    /// It is not there any more, or somebody else has it in hand.
    Gone,
}

/// Names that are taken; given back when what they gave is dropped.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashSet<String>>);

/// A name that is taken.
struct Claim<'a> {
    claims: &'a Claims,
    name: String,
}

impl Claims {
    fn take(&self, name: &str) -> Option<Claim<'_>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.to_owned();
        // Made only if it is ours: dropping it would free the name.
        let is_free = taken.insert(name.clone());
        is_free.then(|| Claim { claims: self, name })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let taken = &self.claims.0;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.name);
    }
}

impl DurableQueue {
    /// One pass over the entries that are due, oldest first. Nothing if such a pass is under way already.
    ///
    /// # Errors
    /// The store failed before the first entry; later failures are counted.
    pub async fn drain(&self, channels: &Channels, drain: &Drain) -> Result<Option<Summary>> {
        let name = drain.channel.as_deref().unwrap_or_default();
        let Some(_one) = self.0.drains.take(name) else {
            return Ok(None);
        };
        let mut summary = Summary::default();
        let begun_ms = self.now_ms();
        let budget_ms = u64::try_from(drain.budget.as_millis()).unwrap_or(u64::MAX);
        let mut headers = self.call("list", |table| table.headers()).await?;
        // Entries of attempts are sent by the domain, which knows whether they are still wanted.
        headers.retain(|header| {
            header.channel != COORDINATION
                && drain
                    .channel
                    .as_ref()
                    .is_none_or(|of| *of == header.channel)
        });
        let mut is_paced = false;
        for mut header in headers {
            let now_ms = self.now_ms();
            if now_ms.saturating_sub(begun_ms) >= budget_ms {
                break;
            }
            let entry = &mut header.entry;
            if entry.retry_count > 0 && entry.last_attempt_at_ms.is_none() {
                let key = header.key.clone();
                self.call("date", move |table| table.date(&key)).await?;
                entry.last_attempt_at_ms = Some(entry.enqueued_at_ms);
            }
            let is_spent = entry.retry_count >= policy::RETRIES_MAX;
            let is_over = is_spent || entry.is_late(now_ms);
            if !is_over && entry.due_ms() > now_ms {
                summary.deferred_backoff += 1;
                continue;
            }
            let channel = channels.find(&header.channel);
            if is_paced && !is_over && channel.is_some() && !drain.pacing.is_zero() {
                tokio::time::sleep(drain.pacing).await;
            }
            is_paced |= channel.is_some();
            match self.try_entry(&header.key, channel).await {
                Ok(Tried::Sent) => match self.ack(&header.key).await {
                    Ok(_) => summary.recovered += 1,
                    Err(e) => {
                        // Noted as begun, so it is asked about before it is sent again.
                        tracing::error!("{} was sent, but not acked: {e}", header.key);
                        summary.failed += 1;
                    }
                },
                Ok(Tried::Failed(_)) => summary.failed += 1,
                Ok(Tried::Dead(Reason::MaxRetries, _)) => summary.skipped_max_retries += 1,
                Ok(Tried::Dead(..)) => summary.failed += 1,
                Ok(Tried::Deferred) => summary.deferred_backoff += 1,
                Ok(Tried::Gone) => {}
                Err(e) => {
                    tracing::error!("{}: {e}", header.key);
                    match is_spent {
                        true => summary.skipped_max_retries += 1,
                        false => summary.failed += 1,
                    }
                }
            }
        }
        Ok(Some(summary))
    }

    /// Tries one entry once, if it is due.
    pub(crate) async fn try_entry(
        &self,
        key: &str,
        channel: Option<&dyn Channel>,
    ) -> Result<Tried> {
        let Some(_claim) = self.0.claims.take(key) else {
            return Ok(Tried::Gone);
        };
        // Read behind the claim: who had it before may have settled it.
        let Some(entry) = self.entry(key).await? else {
            return Ok(Tried::Gone);
        };
        let now_ms = self.now_ms();
        if entry.retry_count >= policy::RETRIES_MAX {
            return self.give_up(&entry, Reason::MaxRetries, None).await;
        }
        let is_late = entry.is_late(now_ms);
        if entry.state == SendState::None && is_late {
            return self.give_up(&entry, Reason::Deadline, None).await;
        }
        if !is_late && entry.due_ms() > now_ms {
            return Ok(Tried::Deferred);
        }
        let Some(channel) = channel else {
            return Ok(Tried::Deferred);
        };
        if entry.state == SendState::None {
            return self.send_entry(entry, channel).await;
        }
        match channel.reconcile(&entry).await {
            Reconciled::Sent => Ok(Tried::Sent),
            Reconciled::NotSent if entry.state == SendState::SendStarted => {
                if entry.is_late(self.now_ms()) {
                    return self.give_up(&entry, Reason::Deadline, None).await;
                }
                self.send_entry(entry, channel).await
            }
            Reconciled::NotSent => {
                let says =
                    "there is evidence that it was sent, but the channel says that it was not";
                self.give_up(&entry, Reason::Unresolved, Some(says)).await
            }
            Reconciled::Unresolved { error, .. } if entry.is_late(self.now_ms()) => {
                self.give_up(&entry, Reason::Deadline, Some(&error)).await
            }
            Reconciled::Unresolved {
                retryable: true,
                error,
            } => self.count_failure(&entry, &error, None).await,
            Reconciled::Unresolved { error, .. } => {
                self.give_up(&entry, Reason::Unresolved, Some(&error)).await
            }
        }
    }

    async fn send_entry(&self, mut entry: Entry, channel: &dyn Channel) -> Result<Tried> {
        let before = entry.clone();
        // Also the last look: what was withdrawn until here is not sent.
        if !self.call("note", move |table| table.start(&before)).await? {
            return Ok(Tried::Gone);
        }
        entry.state = SendState::SendStarted;
        // The note may have waited for a slow disk.
        if entry.is_late(self.now_ms()) {
            return self.give_up(&entry, Reason::Deadline, None).await;
        }
        let Err(error) = channel.send(&entry).await else {
            return Ok(Tried::Sent);
        };
        let says = error.message();
        if matches!(error, SendError::Permanent(_)) || policy::is_permanent(says) {
            return self.give_up(&entry, Reason::Permanent, Some(says)).await;
        }
        let state = match error {
            SendError::NotConnected(_) => SendState::None,
            SendError::PartlySent(_) => SendState::UnknownAfterSend,
            SendError::Retryable(_) | SendError::Permanent(_) => SendState::SendStarted,
        };
        self.count_failure(&entry, says, Some(state)).await
    }

    /// That a failure cannot be kept does not make it a success: the entry is noted as begun, and is asked about.
    async fn count_failure(
        &self,
        entry: &Entry,
        error: &str,
        state: Option<SendState>,
    ) -> Result<Tried> {
        let kept = self.record_failure(&entry.key, error, state).await;
        if let Err(e @ (HostError::Store { .. } | HostError::Closed)) = kept {
            tracing::error!("{}: its failure ({error}) is not kept: {e}", entry.key);
        }
        Ok(Tried::Failed(error.to_owned()))
    }

    async fn give_up(&self, entry: &Entry, reason: Reason, error: Option<&str>) -> Result<Tried> {
        let key = entry.key.clone();
        let error = error.map(cut);
        let says = error.clone().or_else(|| entry.last_error.clone());
        let now_ms = self.now_ms();
        tracing::warn!("{key} is given up: {reason}");
        let bury = move |table: &mut super::table::Table<'_>| {
            table.bury(&key, reason, error.as_deref(), now_ms)
        };
        match self.call("give up", bury).await? {
            true => Ok(Tried::Dead(reason, says.unwrap_or_default())),
            false => Ok(Tried::Gone),
        }
    }
}

/// An error as it is kept: not longer than its bound, from a whole character to a whole character.
pub(super) fn cut(error: &str) -> String {
    error[..error.floor_char_boundary(ERROR_BYTES_MAX)].to_owned()
}
