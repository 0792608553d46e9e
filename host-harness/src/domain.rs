//! A domain: one data directory, one component instance, one loop.
//!
//! The loop has a thread of its own, because the component and the store are synchronous. It takes all calls that wait, runs
//! them on the instance, commits once, and then answers; many at once are committed on another thread meanwhile. Everything
//! else of a domain runs on the caller's runtime. How a call becomes durable is in `transaction` and `committer`, how work
//! starts in `delivery`.

use crate::clock::Clock;
use crate::delivery::Delivery;
use crate::error::{HostError, Result};
use crate::guard::Guards;
use crate::hook::Hooks;
use crate::lane::LaneSet;
use crate::ledger_lines::LedgerLines;
use crate::opening::DomainBuilder;
use crate::queue::DurableQueue;
use crate::snapshot::Snapshots;
use crate::socket::Server;
use crate::store::Store;
use crate::submit::{Input, Side, Submitter};
use crate::survivor::{self, Of};
use crate::transaction::Writer;
use qm2_core::call::{Answer, Call};
use qm2_core::config::Config;
use qm2_core::message::Message;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Calls of one commit.
const GROUP_CALLS_MAX: usize = 256;
/// How long the loop looks for inputs before it sleeps, where it has just done something: functions in this process often
/// answer sooner than a thread that sleeps is woken.
const LINGER: Duration = Duration::from_micros(50);
/// Why guarded commands end with the domain.
const CLOSED: &str = "the domain is closed, and no grant holds without it";
/// How often a store that is away, or a timer that does not go away, is tried again.
const AWAY_RETRY: Duration = Duration::from_secs(1);

/// A running domain; cheap to clone. Without [`Domain::close`] the last clone stops it without waiting for anything.
#[derive(Clone)]
pub struct Domain(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) data: PathBuf,
    pub(crate) config: Config,
    pub(crate) submitter: Submitter,
    pub(crate) stream: LedgerLines,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) lanes: LaneSet,
    pub(crate) outbox: Option<DurableQueue>,
    pub(crate) server: Mutex<Option<Server>>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

impl Domain {
    /// Begins to open the domain of a data directory, which is made where it is missing.
    pub fn builder(directory: impl Into<PathBuf>) -> DomainBuilder {
        DomainBuilder::new(directory.into())
    }

    /// Makes a call of the component at the present time, whatever time it names, and answers when everything that the
    /// answer rests on is durable.
    ///
    /// # Errors
    /// [`HostError::Call`] if the component refused the whole call, [`HostError::Retry`] if it is unknown whether it was
    /// kept, [`HostError::HostOnly`] for calls that the domain makes itself, [`HostError::Closed`] after the end.
    pub async fn call(&self, call: Call) -> Result<Answer> {
        if call.is_host_only() {
            return Err(HostError::HostOnly { call: call.name() });
        }
        self.0.submitter.call(call, Side::default()).await
    }

    /// Ledger lines from here on, each after it is durable. A receiver that falls behind loses the oldest; the ledger has
    /// them.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.0.stream.subscribe()
    }

    /// Reports to an owner session: those not acknowledged yet, then those that come. Acknowledge them with
    /// [`Call::Acknowledge`].
    #[must_use]
    pub fn reports(&self, owner: &str) -> mpsc::UnboundedReceiver<Arc<Message>> {
        self.0.delivery.reports(owner, None)
    }

    /// Waits until no agent of a coordination is at work in this process and what they said is settled.
    pub async fn idle(&self, coordination_id: &str) {
        self.0.delivery.idle(coordination_id).await;
    }

    /// The lanes, for a host's own messages.
    #[must_use]
    pub fn lanes(&self) -> &LaneSet {
        &self.0.lanes
    }

    /// The durable queue of the data directory, for messages of a host's own too: there is one where agents are reached
    /// through channels, now or before. Attempts of steps in it are the domain's.
    #[must_use]
    pub fn queue(&self) -> Option<&DurableQueue> {
        self.0.outbox.as_ref()
    }

    /// The data directory, absolute.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0.data
    }

    /// The configuration that the domain was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Reads or writes the store between two commits.
    ///
    /// # Errors
    /// Those of the work; [`HostError::Closed`] after the end.
    pub async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, result) = oneshot::channel();
        let work = Box::new(move |store: &mut dyn Store| {
            let _ = done.send(work(store));
        });
        let inputs = &self.0.submitter.inputs;
        inputs
            .send(Input::Store(work))
            .map_err(|_| HostError::Closed)?;
        result.await.unwrap_or(Err(HostError::Closed))
    }

    /// Stops in order: agents are ended with their children, nothing is recorded as failed, and the next process that opens
    /// the data directory takes everything up again.
    pub async fn close(&self) {
        // Handlers that are asked are asked again by the next process; those that are told hear it to its end.
        self.0.hooks.begin_closing();
        self.0.delivery.close().await;
        self.0.hooks.close().await;
        drop(take(&self.0.server));
        let guards = self.0.guards.clone();
        guards.shut(CLOSED);
        // While the loop still answers, because a command that is ended may be waiting for it.
        let _ = tokio::task::spawn_blocking(move || guards.wait_for_all()).await;
        self.0.submitter.send(Input::Close);
        let thread = take(&self.0.thread);
        let data = self.0.data.clone();
        let ended = tokio::task::spawn_blocking(move || {
            // Before the lock goes with the thread: the next owner must not find them.
            if let Err(e) = survivor::end(&data, Of::Directory(&[])) {
                tracing::error!("{e}");
            }
            if let Some(thread) = thread
                && thread.join().is_err()
            {
                tracing::error!("the loop of the domain had panicked");
            }
        });
        let _ = ended.await;
        if let Some(outbox) = &self.0.outbox {
            outbox.close().await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hooks.begin_closing();
        self.delivery.begin_closing();
        // Before the lock goes with the thread: its file would be that of the next owner.
        drop(take(&self.server));
        self.guards.shut(CLOSED);
        self.submitter.send(Input::Close);
    }
}

/// Lets other processes in. Where that fails, as on a full disk, again and again: steps that claim and people who answer
/// have no other way.
pub(crate) fn listen(inner: &Arc<Inner>) {
    let Err(e) = inner.listen() else {
        return;
    };
    tracing::warn!("other processes cannot reach this one yet: {e}; trying again");
    let inner = Arc::downgrade(inner);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(AWAY_RETRY).await;
            match inner.upgrade().map(|inner| inner.listen()) {
                Some(Err(e)) => tracing::debug!("other processes cannot reach this one yet: {e}"),
                Some(Ok(())) => return tracing::warn!("other processes can reach this one now"),
                None => return,
            }
        }
    });
}

impl Inner {
    fn listen(&self) -> Result<()> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked behind the lock, through which closing takes the server away.
        if !self.delivery.is_closing() {
            let (submitter, guards) = (self.submitter.clone(), self.guards.clone());
            *server = Some(Server::start(&self.data, submitter, guards)?);
        }
        Ok(())
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Runs a domain until it is closed.
pub(crate) fn run(
    mut writer: Writer,
    mut snapshots: Snapshots,
    inputs: &Receiver<Input>,
    submitter: &Submitter,
) {
    let clock = &submitter.clock;
    let mut deadline_ms = writer.next_deadline();
    // Up to when timers were fired in the round before.
    let mut met_ms = None;
    let mut calls = 0;
    loop {
        snapshots.look(&mut writer);
        let sleep = match writer.is_away() {
            true => AWAY_RETRY,
            false => sleep(&**clock, deadline_ms, met_ms),
        };
        let mut next = match receive(inputs, sleep, calls > 0) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if writer.is_away() {
            writer.return_to_stored();
        }
        // Inputs that came before this moment are applied before timers that are due at it.
        let now_ms = clock.now_ms();
        calls = 0;
        while let Some(input) = next {
            match input {
                Input::Call { call, side, reply } => writer.apply(*call, side, reply),
                Input::Gone(key) => writer.gone(key),
                Input::Broken(fault) => writer.end_for_broken(fault),
                // Only to come by here.
                Input::Committed => {}
                Input::Store(work) => {
                    // It sees what came before it.
                    writer.commit();
                    work(writer.store());
                }
                Input::Close => {
                    writer.commit();
                    return;
                }
            }
            calls += 1;
            if calls >= GROUP_CALLS_MAX || writer.is_group_full() {
                break;
            }
            next = inputs.try_recv().ok();
        }
        met_ms = deadline_ms.filter(|&at_ms| at_ms <= now_ms).map(|_| now_ms);
        if met_ms.is_some() {
            writer.advance(now_ms);
        }
        if !writer.commit_in_turn() {
            // What is out after the store's return.
            writer.commit();
        }
        deadline_ms = writer.next_deadline();
    }
}

/// The next input. Who has lingered in vain sleeps.
fn receive(
    inputs: &Receiver<Input>,
    sleep: Duration,
    lingers: bool,
) -> std::result::Result<Input, RecvTimeoutError> {
    let since = Instant::now();
    while lingers && since.elapsed() < LINGER.min(sleep) {
        match inputs.try_recv() {
            Ok(input) => return Ok(input),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            // Whoever is to answer may need this very processor.
            Err(TryRecvError::Empty) => thread::yield_now(),
        }
    }
    inputs.recv_timeout(sleep)
}

/// How long to wait for inputs. A deadline that is still in the past after its timers were fired is a fault of the component,
/// and must not spin the loop.
fn sleep(clock: &dyn Clock, deadline_ms: Option<u64>, met_ms: Option<u64>) -> Duration {
    match (deadline_ms, met_ms) {
        (Some(deadline_ms), Some(met_ms)) if deadline_ms <= met_ms => AWAY_RETRY,
        _ => clock.sleep_until(deadline_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn deadline_that_stays_in_the_past_does_not_spin_the_loop() {
        let now_ms = SystemClock.now_ms();
        let past = Some(now_ms - 1_000);
        // Due for the first time: at once. Still there after that: not so soon again.
        assert!(sleep(&SystemClock, past, None) < Duration::from_millis(10));
        assert_eq!(sleep(&SystemClock, past, Some(now_ms)), AWAY_RETRY);
        let next = sleep(&SystemClock, Some(now_ms + 50), Some(now_ms));
        assert!(next < Duration::from_millis(60));
    }
}
