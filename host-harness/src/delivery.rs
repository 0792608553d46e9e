//! From committed messages to work: which agent runs what, when it is told to stop, and what is said at its end.
//!
//! Handing out never blocks and never fails. A key that is known is not started again, however often it is delivered. Does
//! not decide what a message means for its step; the component does.

mod attempt;
mod begun;
mod ends;
mod outbox;
mod question;
mod stay;

use self::begun::Begun;
use self::ends::Ends;
pub(crate) use self::question::Answers;
use self::question::Question;
use crate::agent::Agent;
use crate::contract::{ANSWER_PREFIX, QUESTION_PREFIX};
use crate::lane::{Entry, LaneSet};
use crate::process::Context;
use crate::queue::DurableQueue;
use crate::repeatable::Repeatable;
use crate::report::Report;
use crate::route::{Route, Routes};
use crate::submit::{Side, Submitter};
use qm2_core::envelope::{Envelope, Intent};
use qm2_core::message::{CANCEL_PREFIX, Message, NoticeKind, PROBE_PREFIX};
use qm2_core::staged::Staged;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// Hands out messages; one a domain.
pub(crate) struct Delivery {
    state: Mutex<State>,
    /// Number of attempts at work.
    at_work: watch::Sender<usize>,
    routes: Routes,
    context: Context,
    submitter: Submitter,
    lanes: LaneSet,
    /// Attempts on their way through channels.
    outbox: Option<DurableQueue>,
    runtime: Handle,
}

#[derive(Default)]
struct State {
    /// Set once the domain closes: nothing starts and nothing is reported any more.
    closing: bool,
    /// Set once nothing is recorded any more: who waits for reports need not.
    silent: bool,
    /// By key, so those of a coordination stand together.
    attempts: BTreeMap<String, Attempt>,
    /// Questions to people that nobody has settled.
    questions: HashMap<String, Question>,
    /// By question and level, the keys of those that did not reach anybody.
    unreached: HashMap<String, BTreeSet<String>>,
    /// Reports that their owners have not acknowledged.
    reports: BTreeMap<String, Arc<Message>>,
    /// Who reads them: by owner, and by coordination where only its reports are wanted.
    readers: HashMap<(String, Option<String>), Vec<Reader>>,
    /// How many are looked through for those who went away.
    readers_max: usize,
    /// Coordinations whose functions may begin before their ack is durable.
    repeatable: Repeatable,
    /// Functions that have begun so.
    begun: Begun,
    ends: Ends,
}

type Reader = mpsc::UnboundedSender<Arc<Message>>;

impl State {
    /// Forgets those who went away without a report that would have shown it; rarely, so that it costs nothing to speak of.
    fn forget_readers(&mut self) {
        if self.readers.len() < self.readers_max {
            return;
        }
        self.readers.retain(|_, readers| {
            readers.retain(|sender| !sender.is_closed());
            !readers.is_empty()
        });
        self.readers_max = (2 * self.readers.len()).max(64);
    }
}

/// An attempt that was handed out and whose end is not settled.
struct Attempt {
    message: Arc<Message>,
    stage: Stage,
    /// Its function has begun, and neither its ack nor its report is on its way.
    is_unsaid: bool,
    /// It is sent through a channel, or may have been.
    is_sent_out: bool,
    /// The component has ended it; what comes is late.
    ended: bool,
    cancelled: watch::Sender<bool>,
    /// What people answered to it.
    answers: watch::Sender<Answers>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Kept for a process that serves it.
    Held,
    /// In a lane.
    Waiting,
    /// At work.
    Started,
}

impl Delivery {
    pub(crate) fn new(
        routes: Routes,
        context: Context,
        submitter: Submitter,
        lanes: LaneSet,
        outbox: Option<DurableQueue>,
        runtime: Handle,
    ) -> Self {
        Self {
            state: Mutex::default(),
            at_work: watch::Sender::new(0),
            routes,
            context,
            submitter,
            lanes,
            outbox,
            runtime,
        }
    }

    /// Hands out what a commit has made durable.
    pub(crate) fn hand_out(self: &Arc<Self>, staged: Staged) {
        if !staged.lines.is_empty() {
            let mut state = self.lock();
            for line in &staged.lines {
                state.repeatable.learn(line);
                state.ends.see(line);
            }
        }
        for key in staged.withdrawn.iter().chain(&staged.lane_cancelled) {
            self.withdraw(key);
        }
        for message in staged.messages {
            self.deliver(message);
        }
        for (lane, priority, mut message) in staged.lane_messages {
            (message.lane, message.priority) = (lane, priority);
            self.deliver(message);
        }
    }

    /// What the ledger says of the coordinations that live, in the place of what was known.
    pub(crate) fn learn(&self, repeatable: Repeatable) {
        self.lock().repeatable = repeatable;
    }

    /// Reports to an owner session, of all coordinations or of one: those that wait, then those that come.
    pub(crate) fn reports(
        &self,
        owner: &str,
        coordination_id: Option<&str>,
    ) -> mpsc::UnboundedReceiver<Arc<Message>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.lock();
        for message in state.reports.values() {
            let envelope = &message.envelope;
            let is_wanted = coordination_id.is_none_or(|id| id == envelope.coordination_id);
            if envelope.target_session == owner && is_wanted {
                let _ = sender.send(message.clone());
            }
        }
        if !state.silent {
            state.forget_readers();
            let wanted = (owner.to_owned(), coordination_id.map(str::to_owned));
            state.readers.entry(wanted).or_default().push(sender);
        }
        receiver
    }

    /// Nothing more will come: the receivers of reports end.
    pub(crate) fn fall_silent(&self) {
        let mut state = self.lock();
        state.silent = true;
        state.readers.clear();
    }

    /// Waits until no attempt of a coordination is at work.
    pub(crate) async fn idle(&self, coordination_id: &str) {
        let mut at_work = self.at_work.subscribe();
        let of_coordination = || {
            // No id holds either character, and the second follows the first.
            let of_it = format!("{coordination_id}:")..format!("{coordination_id};");
            let state = self.lock();
            let mut attempts = state.attempts.range(of_it);
            attempts.any(|(_, attempt)| attempt.stage == Stage::Started)
        };
        while of_coordination() && at_work.changed().await.is_ok() {}
    }

    /// Ends everything that runs, with its children, and reports nothing: the next owner of the data directory says that
    /// it was lost, which costs no retry.
    pub(crate) async fn close(&self) {
        self.begin_closing();
        let mut at_work = self.at_work.subscribe();
        let _ = at_work.wait_for(|&count| count == 0).await;
    }

    /// The first half of [`Delivery::close`], for where nobody can wait.
    pub(crate) fn begin_closing(&self) {
        self.fall_silent();
        self.submitter.begin_closing();
        let mut state = self.lock();
        state.closing = true;
        let waiting: Vec<String> = state
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.stage != Stage::Started)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &waiting {
            state.attempts.remove(key);
        }
        for attempt in state.attempts.values() {
            attempt.cancelled.send_replace(true);
        }
        let questions = std::mem::take(&mut state.questions);
        for question in questions.values() {
            question.cancelled.send_replace(true);
        }
        drop(state);
        for key in waiting.iter().chain(questions.keys()) {
            self.lanes.drop_waiting(key);
        }
    }

    /// Whether it has begun to close.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    fn deliver(self: &Arc<Self>, message: Message) {
        if let Some(key) = message.key.strip_prefix(CANCEL_PREFIX) {
            self.cancel(key, &message.envelope);
        } else if let Some(key) = message.key.strip_prefix(PROBE_PREFIX) {
            self.answer_probe(key, &message.envelope);
        } else if message.key.starts_with(QUESTION_PREFIX) {
            self.ask(message);
        } else if message.key.starts_with(ANSWER_PREFIX) {
            self.answer(message);
        } else if message.envelope.intent == Intent::Execute {
            self.execute(message);
        } else {
            self.report_to_owner(message);
        }
    }

    /// Puts an attempt into its lane, once.
    fn execute(self: &Arc<Self>, message: Message) {
        let message = Arc::new(message);
        let (coordination_id, session) = (
            &message.envelope.coordination_id,
            &message.envelope.target_session,
        );
        let route = self.routes.find(coordination_id, session);
        let (cancelled, cancel) = watch::channel(false);
        let stage = match route {
            Route::NotServedHere => Stage::Held,
            _ => Stage::Waiting,
        };
        let mut state = self.lock();
        if state.closing {
            return;
        }
        if state.attempts.contains_key(&message.key) {
            // Whoever sends it again has not heard that it has begun.
            self.say_begun(&mut state, &message.key);
            return;
        }
        let attempt = Attempt {
            message: message.clone(),
            stage,
            is_unsaid: false,
            // One that is kept for another process may be in the queue from an earlier one.
            is_sent_out: self.outbox.is_some()
                && matches!(route, Route::To(Agent::Channel(_)) | Route::NotServedHere),
            ended: false,
            cancelled,
            answers: watch::Sender::new(Answers::default()),
        };
        state.attempts.insert(message.key.clone(), attempt);
        drop(state);
        match route {
            Route::To(agent) => {
                let (this, of) = (self.clone(), message.clone());
                self.enqueue(&of, async move {
                    this.run(message, agent, cancel).await;
                });
            }
            Route::Nobody => {
                tracing::warn!(
                    "no agent serves session {session}: {} cannot run",
                    message.key
                );
                self.submitter
                    .notice(&message.key, NoticeKind::UnknownTarget);
                self.lock().attempts.remove(&message.key);
            }
            Route::NotServedHere => {
                tracing::info!(
                    "{} waits: this process serves no agents for it",
                    message.key
                );
            }
        }
    }

    /// Puts the work of a message into its lane, where it can be dropped by its key while it waits. That steps wait is how
    /// plans are, and no reason to warn.
    fn enqueue(&self, message: &Message, work: impl Future<Output = ()> + Send + 'static) {
        let entry = Entry::of(work)
            .session(&message.envelope.target_session)
            .priority(message.priority)
            .key(&message.key)
            .warn_after(None);
        self.lanes.enqueue(&message.lane, entry).detach();
    }

    /// Tells an attempt to stop. One that has not started ends here.
    fn cancel(self: &Arc<Self>, key: &str, envelope: &Envelope) {
        let mut state = self.lock();
        let Some(attempt) = state.attempts.get_mut(key) else {
            drop(state);
            // Not at work here, so dead: there is no grace to wait for, unless it was sent elsewhere and may still end within
            // it. Without effect where the attempt has ended.
            self.lost_unless_elsewhere(key, envelope);
            return;
        };
        if attempt.stage == Stage::Started {
            attempt.cancelled.send_replace(true);
            return;
        }
        let Some(attempt) = state.attempts.remove(key) else {
            return;
        };
        drop(state);
        self.lanes.drop_waiting(key);
        if attempt.is_sent_out {
            self.take_back(key);
        }
        if attempt.ended {
            return;
        }
        let this = self.clone();
        let key = key.to_owned();
        self.runtime.spawn(async move {
            let report = Report::retryable("cancelled", "it was cancelled before it started");
            tracing::debug!("{key} was cancelled before it started");
            this.report(&attempt.message.envelope, report, Side::default())
                .await;
        });
    }

    /// The component has ended an attempt: what has not started never does.
    fn withdraw(&self, key: &str) {
        let mut state = self.lock();
        state.reports.remove(key);
        if let Some(question) = state.questions.remove(key) {
            state.unreached.remove(question::level_of(key));
            drop(state);
            question.cancelled.send_replace(true);
            self.lanes.drop_waiting(key);
            return;
        }
        let Some(attempt) = state.attempts.get_mut(key) else {
            return;
        };
        if attempt.stage == Stage::Started {
            attempt.ended = true;
            attempt.answers.send_modify(|answers| answers.ended = true);
            return;
        }
        let is_sent_out = attempt.is_sent_out;
        state.attempts.remove(key);
        drop(state);
        self.lanes.drop_waiting(key);
        if is_sent_out {
            self.take_back(key);
        }
    }

    /// What is not known here is dead: everything that an earlier process had started was ended when this one opened. What
    /// was sent through a channel lives elsewhere.
    fn answer_probe(self: &Arc<Self>, key: &str, envelope: &Envelope) {
        let is_here = self.lock().attempts.contains_key(key);
        match is_here {
            true => self.submitter.notice(key, NoticeKind::Taken),
            false => self.lost_unless_elsewhere(key, envelope),
        }
    }

    fn report_to_owner(self: &Arc<Self>, message: Message) {
        let message = Arc::new(message);
        let mut state = self.lock();
        if state.closing {
            return;
        }
        state.reports.insert(message.key.clone(), message.clone());
        drop(state);
        let this = self.clone();
        let (lane, priority) = (message.lane.clone(), message.priority);
        let work = Entry::of(async move {
            let mut state = this.lock();
            let envelope = &message.envelope;
            for of_one in [true, false] {
                let id = of_one.then(|| envelope.coordination_id.clone());
                let wanted = (envelope.target_session.clone(), id);
                let Some(readers) = state.readers.get_mut(&wanted) else {
                    continue;
                };
                readers.retain(|sender| sender.send(message.clone()).is_ok());
                if readers.is_empty() {
                    state.readers.remove(&wanted);
                }
            }
        });
        let work = work.priority(priority).warn_after(None);
        self.lanes.enqueue(&lane, work).detach();
    }

    /// Moves an attempt from its lane to work; false if it is not wanted any more.
    fn start(&self, key: &str) -> bool {
        let mut state = self.lock();
        let closing = state.closing;
        let Some(attempt) = state.attempts.get_mut(key).filter(|_| !closing) else {
            return false;
        };
        attempt.stage = Stage::Started;
        // Whoever waits, waits for fewer.
        self.at_work.send_if_modified(|count| {
            *count += 1;
            false
        });
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
