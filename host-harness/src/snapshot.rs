//! Snapshots in the background: a second instance follows behind the live one, on a thread of its own and at low priority.
//!
//! The domain's loop only starts it and keeps what comes of it, between two groups of calls. Whatever fails here is logged
//! and tried again many records later; nothing depends on it.

use crate::engine::Engine;
use crate::error::HostError;
use crate::replay;
use crate::store::Store;
use crate::submit::Input;
use crate::transaction::Writer;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

/// Priority of the thread; the higher, the lower.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 19;

/// Makes a snapshot now and then; stops when dropped.
pub(crate) struct Snapshots {
    /// Records between two of them; 0 makes none.
    every: u64,
    /// Record at which the next one is made.
    due_seq: u64,
    inputs: Sender<Input>,
    thread: Option<JoinHandle<()>>,
    alive: Arc<()>,
}

impl Snapshots {
    /// Nothing is begun before [`Snapshots::look`].
    pub(crate) fn new(every: u64, snapshot_seq: u64, inputs: Sender<Input>) -> Self {
        Self {
            every,
            due_seq: snapshot_seq.saturating_add(every),
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
        if self.every == 0 || writer.head_seq() < self.due_seq || at_work {
            return;
        }
        // Set first: a failure is not repeated before as many records more.
        self.due_seq = writer.head_seq().saturating_add(self.every);
        let store = match writer.store().reader() {
            Ok(Some(store)) => store,
            Ok(None) => return,
            Err(e) => return tracing::warn!("no snapshot was made: {e}"),
        };
        let (engine, inputs) = (writer.engine().clone(), self.inputs.clone());
        let alive = Arc::downgrade(&self.alive);
        let thread = thread::Builder::new().name("qm2-snapshot".into());
        match thread.spawn(move || make(&engine, &*store, &inputs, &alive)) {
            Ok(thread) => self.thread = Some(thread),
            Err(e) => tracing::warn!("no snapshot was made: no thread for it: {e}"),
        }
    }
}

/// The thread: makes one, and has the loop keep it.
fn make(engine: &Engine, store: &dyn Store, inputs: &Sender<Input>, alive: &Weak<()>) {
    step_back();
    match replay::snapshot(engine, store, &|| alive.strong_count() > 0) {
        Ok(snapshot) => {
            // Fails only when the domain is closed.
            let _ = inputs.send(Input::Store(Box::new(move |store| {
                match store.set_snapshot(Some(&snapshot)) {
                    Ok(()) => tracing::debug!("a snapshot at record {}", snapshot.head.seq),
                    Err(e) => tracing::warn!("a snapshot was not kept: {e}"),
                }
            })));
        }
        Err(HostError::Closed) => {}
        Err(e) => tracing::warn!("no snapshot was made: {e}"),
    }
}

/// Lets the rest of the process go first. Elsewhere than on Linux niceness is that of the whole process.
pub(crate) fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(e) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!("snapshots are made at full priority: {e}");
    }
}
