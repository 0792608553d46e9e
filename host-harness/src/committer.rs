//! One group of calls made durable: what must be gone before, the commit, the answers, and what is handed out after it; in
//! the domain's thread, or on one beside it while the domain goes on with the next group.
//!
//! Beside it there is one commit at a time, so groups become durable and are handed out in their order. Does not know what
//! is to happen after a commit that failed; see [`crate::transaction`].

use crate::error::{HostError, Result};
use crate::guard::Guards;
use crate::repeatable::Repeatable;
use crate::store::{Store, Transaction};
use crate::submit::{Input, Reply};
use qm2_core::call::Answer;
use qm2_core::staged::Staged;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

/// What the rest of the domain gets to know.
pub(crate) enum Said {
    /// The ledger was replayed: which of its coordinations may run their attempts again.
    Replayed(Repeatable),
    /// This is durable now.
    Durable(Staged),
    /// Nothing will be recorded any more.
    ReadOnly,
}

/// Gets what a writer says, in order.
pub(crate) type Sink = Box<dyn FnMut(Said) + Send>;

/// Everything that a commit works on; in one hand at a time.
pub(crate) struct Keeper {
    pub(crate) store: Box<dyn Store>,
    pub(crate) sink: Sink,
    /// Commands that must be gone before the end of their grants is kept.
    pub(crate) guards: Arc<Guards>,
}

/// The calls that one commit covers.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) staged: Staged,
    /// What that takes in memory.
    pub(crate) bytes: usize,
    /// Everything beside the staged.
    pub(crate) transaction: Transaction,
    /// Keys of processes that were never let run and are gone: to forget them may wait for another commit.
    pub(crate) gone: Vec<String>,
    pub(crate) answers: Vec<(Reply, Result<Answer>)>,
}

impl Keeper {
    /// Makes a group durable, answers its callers, and hands out what it said. Says how many records are durable with it. If
    /// that fails nothing is handed out, and every caller is told to retry. Waits for the end of guarded commands whose
    /// grants end in it.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn commit(&mut self, mut group: Group) -> Result<u64> {
        self.guards.end_grants(&group.staged.lines);
        group.staged.drop_withdrawn();
        let mut transaction = group.make_transaction();
        if !transaction.is_empty()
            && let Err(e) = self.store.commit(&transaction)
        {
            group.send_back();
            return Err(e);
        }
        group.staged.lines = std::mem::take(&mut transaction.lines);
        for (reply, answer) in group.answers {
            // A caller that went away has its answer in the ledger.
            let _ = reply.send(answer);
        }
        let count = group.staged.lines.len() as u64;
        if !group.staged.is_empty() {
            (self.sink)(Said::Durable(group.staged));
        }
        Ok(count)
    }
}

impl Group {
    /// Whether there is more in it than what may wait.
    pub(crate) fn has_something_to_keep(&self) -> bool {
        !self.staged.is_empty() || !self.transaction.is_empty()
    }

    /// Nothing of it happened.
    pub(crate) fn send_back(self) {
        for (reply, _) in self.answers {
            let _ = reply.send(Err(HostError::Retry));
        }
    }

    /// Lines are lent to it: they go out once they are kept.
    fn make_transaction(&mut self) -> Transaction {
        let mut transaction = std::mem::take(&mut self.transaction);
        transaction.lines = std::mem::take(&mut self.staged.lines);
        transaction.forgotten.append(&mut self.gone);
        transaction
    }
}

/// The thread beside the domain's.
pub(crate) struct Beside {
    /// None only while it ends.
    groups: Option<Sender<(Keeper, Group)>>,
    done: Receiver<(Keeper, Result<u64>)>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// Starts it. After each commit it wakes the domain through its inputs.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(inputs: Sender<Input>) -> std::io::Result<Self> {
        let (groups, taken) = mpsc::channel::<(Keeper, Group)>();
        let (say, done) = mpsc::channel();
        let body = move || {
            while let Ok((mut keeper, group)) = taken.recv() {
                let result = keeper.commit(group);
                if say.send((keeper, result)).is_err() {
                    return;
                }
                // Fails only when the domain is gone.
                let _ = inputs.send(Input::Committed);
            }
        };
        let thread = thread::Builder::new()
            .name("qm2-commit".into())
            .spawn(body)?;
        Ok(Self {
            groups: Some(groups),
            done,
            thread: Some(thread),
        })
    }

    /// Begins to commit a group.
    pub(crate) fn begin(&mut self, keeper: Keeper, group: Group) {
        let sent = match &self.groups {
            Some(groups) => groups.send((keeper, group)).is_ok(),
            None => false,
        };
        if !sent {
            self.panicked();
        }
    }

    /// Waits for the end of the commit that was begun.
    pub(crate) fn wait(&mut self) -> (Keeper, Result<u64>) {
        match self.done.recv() {
            Ok(done) => done,
            Err(_) => self.panicked(),
        }
    }

    /// As [`Beside::wait`], if it has ended.
    pub(crate) fn look(&mut self) -> Option<(Keeper, Result<u64>)> {
        match self.done.try_recv() {
            Ok(done) => Some(done),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.panicked(),
        }
    }

    /// It ends by itself only where a store panics: then the domain ends as if that had been in its own thread.
    fn panicked(&mut self) -> ! {
        self.groups = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(payload)) => resume_unwind(payload),
            _ => unreachable!("it goes on as long as the domain holds it"),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.groups = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
