//! Snapshots in the background: a second instance follows behind the live one, on a thread of its own and at low priority.
//!
//! The domain's loop only starts it and keeps what comes of it, between two groups of calls. Whatever fails here is logged
//! and tried again many records later; nothing depends on it.

use crate::engine::Engine;
use crate::error::HostError;
use crate::replay;
use crate::store::{PartKept, Snapshot, Store};
use crate::submit::Input;
use crate::transaction::Writer;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Priority of the thread; the higher, the lower.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

/// Length of a snapshot up to which it is kept in one go.
const SINGLE_BYTES: usize = 1024 * 1024;
/// Length of a snapshot up to which it is made as often as was wished.
const SHORT_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a longer one that cost about as much as replaying a record: making it, keeping it, and reading it for the next.
const RECORD_BYTES: usize = 512;

/// Makes a snapshot now and then; stops when dropped.
pub(crate) struct Snapshots {
    /// Records between two of them; 0 makes none.
    every: u64,
    /// Record at which the last one was made, or begun.
    last_seq: u64,
    /// Length of the last one.
    bytes: Arc<AtomicUsize>,
    inputs: Sender<Input>,
    thread: Option<JoinHandle<()>>,
    alive: Arc<()>,
}

impl Snapshots {
    /// With the record and the length of the last one. Nothing is begun before [`Snapshots::look`].
    pub(crate) fn new(every: u64, (last_seq, bytes): (u64, usize), inputs: Sender<Input>) -> Self {
        Self {
            every,
            last_seq,
            bytes: Arc::new(AtomicUsize::new(bytes)),
            inputs,
            thread: None,
            alive: Arc::new(()),
        }
    }

    /// Begins with the next one if it is due.
    pub(crate) fn look(&mut self, writer: &mut Writer) {
        let at_work = self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        if self.every == 0 || writer.head_seq() < self.due_seq() || at_work {
            return;
        }
        // Set first: a failure is not repeated before as many records more.
        self.last_seq = writer.head_seq();
        let store = match writer.store().reader() {
            Ok(Some(store)) => store,
            Ok(None) => return,
            Err(e) => return tracing::warn!("no snapshot was made: {e}"),
        };
        let (engine, inputs) = (writer.engine().clone(), self.inputs.clone());
        let (alive, bytes) = (Arc::downgrade(&self.alive), self.bytes.clone());
        let thread = thread::Builder::new().name("qm2-snapshot".into());
        match thread.spawn(move || make(&engine, &*store, &inputs, &bytes, &alive)) {
            Ok(thread) => self.thread = Some(thread),
            Err(e) => tracing::warn!("no snapshot was made: no thread for it: {e}"),
        }
    }

    /// Record at which the next one is made. A domain that holds much has long ones, and makes them as much less often.
    fn due_seq(&self) -> u64 {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let worth = bytes.saturating_sub(SHORT_BYTES) / RECORD_BYTES;
        self.last_seq.saturating_add(self.every.max(worth as u64))
    }
}

/// The thread: makes one, and has the loop keep it.
fn make(
    engine: &Engine,
    store: &dyn Store,
    inputs: &Sender<Input>,
    bytes: &AtomicUsize,
    alive: &Weak<()>,
) {
    step_back();
    match replay::snapshot(engine, store, &|| alive.strong_count() > 0) {
        Ok(snapshot) => {
            let last_bytes = bytes.swap(snapshot.bytes(), Ordering::Relaxed);
            let is_short = last_bytes.max(snapshot.bytes()) <= SINGLE_BYTES;
            keep(snapshot, is_short, inputs, alive);
        }
        Err(HostError::Closed) => {}
        Err(e) => tracing::warn!("no snapshot was made: {e}"),
    }
}

/// Has the loop keep it: a short one at once, a longer one part by part, and between two of them the loop has as long for
/// itself as the last one took.
fn keep(snapshot: Snapshot, is_short: bool, inputs: &Sender<Input>, alive: &Weak<()>) {
    let snapshot = Arc::new(snapshot);
    for part in 0.. {
        let (done, wait) = mpsc::channel();
        let of = snapshot.clone();
        let work = Box::new(move |store: &mut dyn Store| {
            let begun = Instant::now();
            let kept = match is_short {
                true => store.set_snapshot(Some(&of)).map(|()| PartKept::Done),
                false => store.keep_snapshot_part(&of, part),
            };
            let _ = done.send((kept, begun.elapsed()));
        });
        // Fails only when the domain is closed, as does the answer.
        let Ok((kept, took)) = inputs
            .send(Input::Store(work))
            .map_err(|_| mpsc::RecvError)
            .and_then(|()| wait.recv())
        else {
            return;
        };
        match kept {
            Ok(PartKept::Done) => {
                return tracing::debug!("a snapshot at record {}", snapshot.head.seq);
            }
            Ok(PartKept::Part) if alive.strong_count() == 0 => return,
            Ok(PartKept::Part) => thread::sleep(took),
            Err(e) => return tracing::warn!("a snapshot was not kept: {e}"),
        }
    }
}

/// Lets the rest of the process go first. Elsewhere than on Linux niceness is that of the whole process.
pub(crate) fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(e) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!("snapshots are made at full priority: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_snapshot_waits_for_as_many_records_as_it_costs() {
        let due_seq = |bytes| {
            let (inputs, _) = mpsc::channel();
            Snapshots::new(100, (7, bytes), inputs).due_seq()
        };
        assert_eq!(due_seq(0), 107);
        assert_eq!(due_seq(SHORT_BYTES + 100 * RECORD_BYTES), 107);
        assert_eq!(due_seq(SHORT_BYTES + 101 * RECORD_BYTES), 108);
        assert_eq!(due_seq(SHORT_BYTES + 300_000 * RECORD_BYTES), 300_007);
    }
}
