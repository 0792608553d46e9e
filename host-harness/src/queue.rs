//! A durable delivery queue: a message is on disk before it is sent, and leaves the disk after it was delivered.
//!
//! Works without coordination: a host puts its own messages in, gives the adapters that carry them out, and drains the
//! queue when it starts and now and then. What may have been sent is never sent again blindly; see [`Channel::reconcile`].
//! Many callers share one sync of the disk. One process sends from a queue; others can list it and settle dead letters,
//! see [`beside`].
//!
//! Orders nothing but by age, starts nothing by itself, and does not interpret payloads.

pub mod beside;
mod channel;
mod drain;
mod entry;
mod policy;
mod table;
mod writer;

pub use self::channel::{Channel, Channels, Doing, Reconciled, SendError, Sent};
pub(crate) use self::drain::Tried;
use self::drain::{Claims, cut};
pub use self::drain::{Drain, Summary};
pub use self::entry::{
    CHANNEL_BYTES_MAX, COORDINATION, DeadEntry, ERROR_BYTES_MAX, Enqueued, Entry, KEY_BYTES_MAX,
    NewEntry, PAYLOAD_BYTES_MAX, Place, Reason, SendState, TARGET_BYTES_MAX,
};
pub use self::policy::{RETRIES_MAX, is_permanent, wait};
use self::table::{Revived, Table};
use self::writer::{Bounds, Writer};
use crate::clock::{Clock, SystemClock};
use crate::error::{HostError, Result};
use crate::paths::{self, Owner};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Entries that a queue takes, unless its options say otherwise.
pub const ENTRIES_MAX: u64 = 1_000_000;
/// Keys of settled entries that a queue knows again, unless its options say otherwise.
pub const KEYS_REMEMBERED: u64 = 100_000;

/// A queue in a folder; cheap to clone. The last clone gives the folder back, [`DurableQueue::close`] also waits for that.
#[derive(Clone)]
pub struct DurableQueue(Arc<Inner>);

struct Inner {
    writer: Writer,
    clock: Arc<dyn Clock>,
    /// Keys of entries that somebody has in hand.
    claims: Claims,
    /// Channels that are being drained; no name stands for all.
    drains: Claims,
}

/// With what a queue is opened.
#[must_use]
pub struct Options {
    clock: Arc<dyn Clock>,
    bounds: Bounds,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            bounds: Bounds {
                entries_max: ENTRIES_MAX,
                keys_remembered: KEYS_REMEMBERED,
            },
        }
    }
}

impl Options {
    /// The wall clock and the bounds of this module.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    pub(crate) fn shared_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets how many entries it takes; a further one is refused and may be tried again later.
    pub fn entries_max(mut self, count: u64) -> Self {
        self.bounds.entries_max = count;
        self
    }

    /// Sets how many keys of settled entries it knows again, the latest ones.
    pub fn keys_remembered(mut self, count: u64) -> Self {
        self.bounds.keys_remembered = count;
        self
    }

    /// Opens the queue of a folder, and makes both where they are missing.
    ///
    /// # Errors
    /// [`HostError::Locked`] if another process sends from it, [`HostError::Data`] if the file is none or damaged,
    /// [`HostError::NewerData`] if a newer version wrote it, [`HostError::Io`] if the folder cannot be made.
    pub fn open(self, folder: &Path) -> Result<DurableQueue> {
        let folder = paths::make_data_directory(folder)?;
        let owner = Owner::take_by(&folder, paths::OUTBOX_LOCK)?;
        let writer = Writer::start(folder.join(paths::OUTBOX), owner, self.bounds)?;
        Ok(DurableQueue(Arc::new(Inner {
            writer,
            clock: self.clock,
            claims: Claims::default(),
            drains: Claims::default(),
        })))
    }
}

/// What a caller wants when its message cannot be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Then it is not sent.
    Required,
    /// Then it is sent all the same, once.
    BestEffort,
}

/// What came of [`DurableQueue::send`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The recipient has it.
    Sent {
        /// The key of the entry.
        key: String,
    },
    /// It failed and is kept; a drain tries it again.
    Kept {
        /// The key of the entry.
        key: String,
        /// Why.
        error: String,
    },
    /// It was given up and is a dead letter.
    Dead {
        /// The key of the entry.
        key: String,
        /// Why.
        reason: Reason,
        /// What the channel said.
        error: String,
    },
    /// Its key was known; nothing was sent.
    Known(Enqueued),
    /// It could not be made durable, was sent all the same, and failed; nothing of it is kept.
    Lost {
        /// Why.
        error: String,
    },
}

impl DurableQueue {
    /// As [`Options::open`], with the defaults.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(folder.as_ref())
    }

    /// Puts an entry in, and answers when it is durable. A key that is known is a replay and changes nothing.
    ///
    /// # Errors
    /// [`HostError::Entry`] past a bound of its fields, [`HostError::Store`] if the store failed or is full (the same may be
    /// tried again), [`HostError::Closed`] after the end.
    pub async fn enqueue(&self, new: NewEntry) -> Result<Enqueued> {
        if new.channel == COORDINATION {
            let message =
                format!("the channel {COORDINATION} is for attempts of steps; name another");
            let key = new.key.unwrap_or_default();
            return Err(HostError::Entry { key, message });
        }
        self.put(new).await
    }

    /// As [`DurableQueue::enqueue`], also for the domain itself.
    pub(crate) async fn put(&self, new: NewEntry) -> Result<Enqueued> {
        new.check()?;
        let key = match &new.key {
            Some(key) => key.clone(),
            None => Uuid::new_v4().to_string(),
        };
        let now_ms = self.now_ms();
        let work = move |table: &mut Table<'_>| {
            let place = table.enqueue(&key, &new, now_ms)?;
            Ok((key, place, table.entries_max))
        };
        let (key, place, entries_max) = self.call("enqueue", work).await?;
        match place {
            Some(place) => Ok(Enqueued { key, place }),
            None => Err(HostError::Store {
                doing: "enqueue",
                message: format!(
                    "the queue is full: it has {entries_max} entries; drain it and try again"
                ),
            }),
        }
    }

    /// Says that an entry was delivered; it is gone for good. False if there is none, which is no error.
    ///
    /// # Errors
    /// The store failed.
    pub async fn ack(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.call("ack", move |table| table.ack(&key)).await
    }

    /// Counts a failure of an entry; answers how many there were.
    ///
    /// # Errors
    /// [`HostError::Entry`] if there is no such entry; the store failed.
    pub async fn fail(&self, key: &str, error: &str) -> Result<u32> {
        self.record_failure(key, error, None).await
    }

    async fn record_failure(
        &self,
        key: &str,
        error: &str,
        state: Option<SendState>,
    ) -> Result<u32> {
        let (of, error, now_ms) = (key.to_owned(), cut(error), self.now_ms());
        let fail = move |table: &mut Table<'_>| table.fail(&of, &error, state, now_ms);
        self.call("note a failure", fail)
            .await?
            .ok_or_else(|| unknown(key, "is not in the queue"))
    }

    /// Takes an entry back, also one that is yet to come or is a dead letter: from here on it is not sent. Says whether there
    /// was one. A send that is under way is not stopped.
    ///
    /// # Errors
    /// The store failed.
    pub async fn withdraw(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.call("withdraw", move |table| table.withdraw(&key))
            .await
    }

    /// One entry. One that cannot be read is not there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn entry(&self, key: &str) -> Result<Option<Entry>> {
        let key = key.to_owned();
        self.call("read", move |table| table.entry(&key)).await
    }

    /// Where a key is, without putting anything there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn place(&self, key: &str) -> Result<Place> {
        let key = key.to_owned();
        self.call("read", move |table| table.place(&key)).await
    }

    /// All entries that can be read, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn load(&self) -> Result<Vec<Entry>> {
        self.call("read", |table| table.entries()).await
    }

    /// All dead letters that can be read, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn dead_letters(&self) -> Result<Vec<DeadEntry>> {
        self.call("read", |table| table.dead()).await
    }

    /// Puts a dead letter back, as if it had never failed. What may have been sent is still reconciled before it is sent,
    /// unless somebody has made sure that it was not.
    ///
    /// # Errors
    /// [`HostError::Entry`] if there is none, its deadline has passed, or it belongs to an attempt; the store failed.
    pub async fn replay(&self, key: &str, evidence: Evidence) -> Result<()> {
        let (of, now_ms) = (key.to_owned(), self.now_ms());
        let not_sent = evidence == Evidence::NotSent;
        let revive = move |table: &mut Table<'_>| table.revive(&of, not_sent, now_ms);
        revived(key, &self.call("replay", revive).await?)
    }

    /// Drops a dead letter for good.
    ///
    /// # Errors
    /// [`HostError::Entry`] if there is none; the store failed.
    pub async fn drop_dead(&self, key: &str) -> Result<()> {
        let of = key.to_owned();
        let is_dropped = self.call("drop", move |table| table.drop(&of)).await?;
        dropped(key, is_dropped)
    }

    /// Puts an entry in and sends it at once. What fails is kept for a drain.
    ///
    /// # Errors
    /// Those of [`DurableQueue::enqueue`] under [`Policy::Required`]; the store failed before the send.
    pub async fn send(
        &self,
        new: NewEntry,
        channel: &dyn Channel,
        policy: Policy,
    ) -> Result<Delivered> {
        let enqueued = match self.enqueue(new.clone()).await {
            Err(e) if policy == Policy::BestEffort && !matches!(e, HostError::Entry { .. }) => {
                tracing::warn!("a message is sent without being kept: {e}");
                return Ok(self.send_unkept(new, channel).await);
            }
            enqueued => enqueued?,
        };
        if enqueued.place != Place::New {
            return Ok(Delivered::Known(enqueued));
        }
        let key = enqueued.key;
        Ok(match self.try_entry(&key, Some(channel)).await? {
            Tried::Sent => {
                if let Err(e) = self.ack(&key).await {
                    tracing::error!("{key} was sent, but not acked: {e}; it is asked about later");
                }
                Delivered::Sent { key }
            }
            Tried::Failed(error) => Delivered::Kept { key, error },
            Tried::Dead(reason, error) => Delivered::Dead { key, reason, error },
            // Somebody drains it just now, or has withdrawn it.
            Tried::Deferred | Tried::Gone => Delivered::Known(Enqueued {
                key,
                place: Place::Waiting,
            }),
        })
    }

    async fn send_unkept(&self, new: NewEntry, channel: &dyn Channel) -> Delivered {
        let entry = unkept(new, self.now_ms());
        match channel.send(&entry).await {
            Ok(Sent) => Delivered::Sent { key: entry.key },
            Err(e) => Delivered::Lost {
                error: e.to_string(),
            },
        }
    }

    /// Waits for what was asked before and gives the folder back. Everything after it is [`HostError::Closed`].
    pub async fn close(&self) {
        self.0.writer.close().await;
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    async fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Table<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.writer.call(doing, work).await
    }
}

/// What is known about the send of a dead letter that is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// What the queue knows.
    Kept,
    /// Somebody has made sure that nothing was sent.
    NotSent,
}

/// An entry for one send, of which nothing is kept.
pub(crate) fn unkept(new: NewEntry, now_ms: u64) -> Entry {
    Entry {
        key: new.key.unwrap_or_else(|| Uuid::new_v4().to_string()),
        channel: new.channel,
        target: new.target,
        payload: new.payload,
        enqueued_at_ms: now_ms,
        retry_count: 0,
        last_attempt_at_ms: None,
        last_error: None,
        state: SendState::SendStarted,
        deadline_ms: new.deadline_ms,
    }
}

fn unknown(key: &str, says: &str) -> HostError {
    HostError::Entry {
        key: key.to_owned(),
        message: says.to_owned(),
    }
}

fn revived(key: &str, revived: &Revived) -> Result<()> {
    let says = match revived {
        Revived::Yes => return Ok(()),
        Revived::Unknown => "is no dead letter",
        Revived::Late => "its deadline has passed, and it is never sent after that; drop it",
        Revived::OfCoordination => {
            "it belongs to an attempt of a step, which has ended; a retry of the step, or `qm2 run PLAN --rerun`, makes a new one"
        }
    };
    Err(unknown(key, says))
}

fn dropped(key: &str, is_dropped: bool) -> Result<()> {
    match is_dropped {
        true => Ok(()),
        false => Err(unknown(key, "is no dead letter")),
    }
}
