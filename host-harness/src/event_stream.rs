//! The event stream of an agent host: what runs say while they run, to whoever listens at that moment.
//!
//! Each event of a run has a number, from 1; (generation, run id, number) identifies it. Nothing is kept: an event that nobody
//! listens to is gone. What QM2 records is in the ledger, which [`crate::follow`] follows without a gap; a domain also tells
//! this stream of it ([`crate::DomainBuilder::event_stream`]), and a lost event is no lost record. Usable without QM2.

mod context;

pub use self::context::RunContext;
use self::context::Runs;
use crate::clock::{Clock, SystemClock};
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stream of events about the life of a run.
pub const LIFECYCLE: &str = "lifecycle";
/// Stream of a run's calls of tools.
pub const TOOL: &str = "tool";
/// Stream of what a run says.
pub const ASSISTANT: &str = "assistant";
/// Stream of what went wrong in a run.
pub const ERROR: &str = "error";
/// Stream of the records of QM2: the run is the coordination, `data` is the record, and its `seq` there is that of the ledger.
pub const COORDINATION: &str = "coordination";

/// What somebody says of a run. The number and the time are not the speaker's to set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The run; one without a name is a run like any other.
    pub run_id: String,
    /// [`LIFECYCLE`], [`TOOL`], [`ASSISTANT`], [`ERROR`], [`COORDINATION`], or any other name.
    pub stream: String,
    /// Session; blank or absent: that of the run's context.
    pub session_key: Option<String>,
    /// What it descends from; blank or absent: that of the run's context.
    pub lineage_id: Option<String>,
    /// Passed through.
    pub trace_id: Option<String>,
    /// Passed through.
    pub span_id: Option<String>,
    /// The generation in which the speaker began; absent: the current one.
    pub generation: Option<String>,
    /// Content.
    pub data: Value,
}

/// An event as listeners get it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Emitted {
    /// Another one after each restart and each [`EventStream::rotate`].
    pub generation: String,
    /// The run.
    pub run_id: String,
    /// From 1 in each run of a generation.
    pub seq: u64,
    /// When it was emitted, in milliseconds since the Unix epoch.
    pub ts: u64,
    /// Its stream.
    pub stream: String,
    /// The event's own session, else that of its run. Of a hidden run only on [`LIFECYCLE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
    /// On [`LIFECYCLE`], the id of the session that the run was registered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The event's own lineage, else that of its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage_id: Option<String>,
    /// The event's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The event's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Content.
    pub data: Value,
}

/// Who hears events.
pub type Listener = dyn Fn(&Emitted) + Send + Sync;

/// Names a registered listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerId(u64);

/// Hands events to listeners; clones share everything. Events of one run that several threads emit at once may reach a
/// listener in another order than that of their numbers.
#[derive(Clone)]
pub struct EventStream {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

struct State {
    generation: String,
    generations_made: u64,
    runs: Runs,
    /// In the order of registration, which is that of the ids.
    listeners: Vec<(ListenerId, Arc<Listener>)>,
    listeners_made: u64,
}

impl Default for EventStream {
    fn default() -> Self {
        Self::new(SystemClock)
    }
}

impl EventStream {
    /// A stream of a new generation without listeners.
    pub fn new(clock: impl Clock) -> Self {
        let state = State {
            generation: String::new(),
            generations_made: 0,
            runs: Runs::default(),
            listeners: Vec::new(),
            listeners_made: 0,
        };
        let stream = Self {
            state: Arc::new(Mutex::new(state)),
            clock: Arc::new(clock),
        };
        stream.rotate();
        stream
    }

    /// Gives an event its number and hands it to every listener, in the order of their registration, before this returns.
    /// One that is added meanwhile hears it too; one that is removed before its turn does not. One that panics is logged,
    /// and nobody else is concerned. Nothing of an older generation is emitted; it gets no number.
    pub fn emit(&self, event: Event) -> Option<Emitted> {
        let now_ms = self.clock.now_ms();
        let emitted = {
            let mut state = self.lock();
            let generation = state.generation.clone();
            if event.generation.is_some_and(|of| of != generation) {
                return None;
            }
            let (seq, context) = state.runs.next(&event.run_id, now_ms);
            let is_lifecycle = event.stream == LIFECYCLE;
            let session_key = not_blank(event.session_key).or(context.session_key);
            Emitted {
                generation,
                run_id: event.run_id,
                seq,
                ts: now_ms,
                stream: event.stream,
                session_key: session_key.filter(|_| is_lifecycle || !context.is_hidden),
                session_id: context.session_id.filter(|_| is_lifecycle),
                lineage_id: not_blank(event.lineage_id).or(context.lineage_id),
                trace_id: event.trace_id,
                span_id: event.span_id,
                data: event.data,
            }
        };
        // Never under the lock: a listener may emit, listen and register.
        let mut last = None;
        while let Some((id, listener)) = self.listener_after(last) {
            last = Some(id);
            if catch_unwind(AssertUnwindSafe(|| listener(&emitted))).is_err() {
                tracing::error!("a listener of the event stream panicked");
            }
        }
        Some(emitted)
    }

    /// Adds a listener. The same one (the same allocation) once more is still called once an event.
    pub fn listen(&self, listener: Arc<Listener>) -> ListenerId {
        let mut state = self.lock();
        let mut known = state.listeners.iter();
        if let Some((id, _)) = known.find(|(_, known)| Arc::ptr_eq(known, &listener)) {
            return *id;
        }
        state.listeners_made += 1;
        let id = ListenerId(state.listeners_made);
        state.listeners.push((id, listener));
        id
    }

    /// Removes a listener; false if it is not there.
    pub fn unlisten(&self, id: ListenerId) -> bool {
        let mut state = self.lock();
        let at = state.listeners.iter().position(|(known, _)| *known == id);
        let removed = at.map(|at| state.listeners.remove(at));
        // Dropped outside the lock: it may hold anything.
        drop(state);
        removed.is_some()
    }

    /// Says what a run is. A blank run id is ignored. Of a run that is known already only what this brings counts: a session
    /// key and a verbosity that are not blank, a heartbeat and a visibility that are given; its lineage stays.
    pub fn register(&self, run_id: &str, context: RunContext) {
        if !run_id.trim().is_empty() {
            let now_ms = self.clock.now_ms();
            self.lock().runs.register(run_id, context, now_ms);
        }
    }

    /// What a run was registered with.
    #[must_use]
    pub fn context(&self, run_id: &str) -> Option<RunContext> {
        self.lock().runs.context(run_id)
    }

    /// Forgets what a run was registered with. Its numbers go on, so that none is given twice.
    pub fn clear(&self, run_id: &str) {
        self.lock().runs.clear(run_id);
    }

    /// Forgets runs that said nothing for half an hour; how many. One of them that speaks again begins at 1.
    pub fn sweep(&self) -> usize {
        let now_ms = self.clock.now_ms();
        self.lock().runs.sweep(now_ms)
    }

    /// How many runs are kept.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.lock().runs.len()
    }

    /// Begins a new generation, as a restart does: all runs are forgotten, and who still speaks of the old one is not heard.
    pub fn rotate(&self) -> String {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        state.generations_made += 1;
        let process = std::process::id();
        state.generation = format!("{now_ms}-{process}-{}", state.generations_made);
        state.runs = Runs::default();
        state.generation.clone()
    }

    /// The current generation.
    #[must_use]
    pub fn generation(&self) -> String {
        self.lock().generation.clone()
    }

    fn listener_after(&self, last: Option<ListenerId>) -> Option<(ListenerId, Arc<Listener>)> {
        let state = self.lock();
        let at = state
            .listeners
            .partition_point(|(id, _)| last.is_some_and(|last| *id <= last));
        state.listeners.get(at).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("EventStream")
            .field("generation", &state.generation)
            .field("runs", &state.runs.len())
            .field("listeners", &state.listeners.len())
            .finish()
    }
}

fn not_blank(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}
