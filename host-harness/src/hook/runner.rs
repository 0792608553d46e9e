//! The hooks of a running domain: takes what a commit has made durable, runs the handlers beside the loop, and brings the
//! verdict back.
//!
//! A request that is running is not started twice, however often it is handed out. One that this process cannot answer is
//! left to the component, for which silence is a deny. When the domain closes, requests are dropped without an answer, and
//! the next process asks them again; what handlers are told is told to its end.

use super::{Hook, Registry, Subject, chain};
use crate::process::Context;
use crate::submit::{Input, RETRY_AFTER, Side, Submitter};
use qm2_core::call::Call;
use qm2_core::message::HookKind;
use qm2_core::staged::{HookRequest, Staged};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

/// Events that are told at once; the others wait their turn, so that the end of a wide plan does not start thousands of
/// commands.
const TOLD_AT_ONCE: usize = 8;
/// The domain's own limit runs out in the component; the handlers' ends this much before it, so that the verdict still
/// counts and names its handler: a tenth of it, this at most.
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// The handlers of a domain, and what they are at.
pub(crate) struct Hooks {
    registry: Registry,
    context: Context,
    submitter: Submitter,
    runtime: Handle,
    /// `hookTimeoutMs` of the domain.
    limit: Duration,
    state: Mutex<State>,
    told: mpsc::UnboundedSender<Event>,
    /// Events that were handed out and not told to the end.
    untold: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    closing: bool,
    /// Requests at work.
    running: HashMap<String, AbortHandle>,
}

/// What handlers are told.
struct Event {
    hooks: Vec<Hook>,
    subject: Subject,
}

impl Hooks {
    pub(crate) fn new(
        registry: Registry,
        context: Context,
        submitter: Submitter,
        limit: Duration,
        runtime: &Handle,
    ) -> Arc<Self> {
        let (told, events) = mpsc::unbounded_channel();
        let this = Arc::new(Self {
            registry,
            context,
            submitter,
            runtime: runtime.clone(),
            limit,
            state: Mutex::default(),
            told,
            untold: watch::Sender::new(0),
        });
        if !this.registry.is_empty() {
            this.runtime.spawn(tell_all(Arc::downgrade(&this), events));
        }
        this
    }

    /// Hands out what a commit has made durable.
    pub(crate) fn hand_out(self: &Arc<Self>, staged: &mut Staged) {
        for request in std::mem::take(&mut staged.asks) {
            self.ask(request, &staged.lines);
        }
        for (kind, json) in std::mem::take(&mut staged.notifications) {
            self.tell(kind, json);
        }
    }

    /// Asks the handlers of a request, unless they are being asked already.
    fn ask(self: &Arc<Self>, request: HookRequest, lines: &[String]) {
        let HookRequest {
            hook_id,
            kind,
            subject,
        } = request;
        let Some(hooks) = self.registry.handlers(kind, &coordination_of(&subject)) else {
            let kind = kind.name();
            tracing::info!("{hook_id} waits: this process has no handlers of {kind} for it");
            return;
        };
        let subject = Subject {
            kind,
            hook_id: Some(hook_id.clone()),
            json: subject,
        };
        let due_ms = lines.iter().find_map(|line| due_in(line, &hook_id));
        let mut state = self.lock();
        if state.closing || state.running.contains_key(&hook_id) {
            return;
        }
        let this = self.clone();
        let task = self.runtime.spawn(async move {
            let id = subject.hook_id.clone().unwrap_or_default();
            this.answer(hooks, subject, due_ms).await;
            this.lock().running.remove(&id);
        });
        // The lock is held: the task cannot have removed itself yet.
        state.running.insert(hook_id, task.abort_handle());
    }

    /// Runs the handlers and says what came of it, until the component has taken it.
    async fn answer(&self, hooks: Vec<Hook>, subject: Subject, due_ms: Option<u64>) {
        let hook_id = subject.hook_id.clone().unwrap_or_default();
        let due_ms = match due_ms {
            Some(due_ms) => Some(due_ms),
            None => self.recorded_due(&hook_id).await,
        };
        let limit = self.limit;
        let left = due_ms.map_or(limit, |due_ms| {
            Duration::from_millis(due_ms.saturating_sub(self.submitter.clock.now_ms()))
        });
        let total = left.saturating_sub(MARGIN_MAX.min(limit / 10));
        let decided = chain::ask(hooks, &self.context, &subject, limit, total).await;
        let call = Call::Verdict {
            now_ms: 0,
            hook_id: hook_id.clone(),
            handler: decided.handler,
            verdict: decided.verdict,
        };
        loop {
            match self.submitter.call(call.clone(), Side::default()).await {
                Err(e) if e.retryable() => tokio::time::sleep(RETRY_AFTER).await,
                // A step that ended meanwhile needs no verdict.
                answer => return tracing::debug!("verdict of {hook_id}: {answer:?}"),
            }
        }
    }

    /// Until when a request that an earlier process made may be answered: its id is the number of its record.
    async fn recorded_due(&self, hook_id: &str) -> Option<u64> {
        let seq: u64 = hook_id.strip_prefix('h')?.parse().ok()?;
        let (found, line) = oneshot::channel();
        self.submitter.send(Input::Store(Box::new(move |store| {
            let _ = found.send(store.line(seq));
        })));
        due_in(&line.await.ok()?.ok()??, hook_id)
    }

    fn tell(&self, kind: HookKind, json: String) {
        let hooks = self.registry.handlers(kind, &coordination_of(&json));
        let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) else {
            return;
        };
        let subject = Subject {
            kind,
            hook_id: None,
            json,
        };
        self.untold.send_modify(|count| *count += 1);
        if self.told.send(Event { hooks, subject }).is_err() {
            self.untold.send_modify(|count| *count -= 1);
        }
    }

    /// Drops requests, and waits until everything that handlers are told is told; their time limits bound that.
    pub(crate) async fn close(&self) {
        self.begin_closing();
        let mut untold = self.untold.subscribe();
        let _ = untold.wait_for(|&count| count == 0).await;
    }

    /// The first half of [`Hooks::close`], for where nobody can wait.
    pub(crate) fn begin_closing(&self) {
        let mut state = self.lock();
        state.closing = true;
        for (_, task) in state.running.drain() {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells handlers, event after event, some at a time; ends with the domain.
async fn tell_all(hooks: Weak<Hooks>, mut events: mpsc::UnboundedReceiver<Event>) {
    let width = Arc::new(Semaphore::new(TOLD_AT_ONCE));
    while let Some(event) = events.recv().await {
        let Ok(permit) = width.clone().acquire_owned().await else {
            return;
        };
        let Some(hooks) = hooks.upgrade() else {
            return;
        };
        tokio::spawn(async move {
            let _permit = permit;
            let Event {
                hooks: handlers,
                subject,
            } = event;
            chain::tell(handlers, &hooks.context, &subject, hooks.limit).await;
            hooks.untold.send_modify(|count| *count -= 1);
        });
    }
}

/// The coordination that a subject is about; empty where it names none.
fn coordination_of(subject: &str) -> String {
    let value: Value = serde_json::from_str(subject).unwrap_or_default();
    let id = value["coordinationId"].as_str().unwrap_or_default();
    id.to_owned()
}

/// Until when a request may be answered, if this is its record.
fn due_in(line: &str, hook_id: &str) -> Option<u64> {
    if !line.contains(r#""type":"hook.requested""#) {
        return None;
    }
    let record: Value = serde_json::from_str(line).ok()?;
    let data = &record["data"];
    (data["hookId"] == hook_id).then(|| data["dueMs"].as_u64())?
}
