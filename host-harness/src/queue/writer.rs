//! The one thread that writes the outbox: it takes whatever waits, applies it in one transaction, syncs once, and then
//! answers all.
//!
//! Does not know what the jobs do.

use super::table::{OUTBOX, Table, count};
use crate::error::{HostError, Result};
use crate::paths::Owner;
use crate::sqlite::file;
use rusqlite::{Connection, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Jobs of one transaction.
const GROUP_MAX: usize = 1024;
/// How long a group that is smaller than the one before waits for those who were answered just now: far less than a sync.
const GATHER: Duration = Duration::from_micros(100);
/// Statements that stay prepared.
const STATEMENTS: usize = 64;

/// What a job needs beside the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) entries_max: u64,
    pub(super) keys_remembered: u64,
}

/// Hands jobs to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Sender<Input>,
}

enum Input {
    Job(Box<dyn Job>),
    /// The last one; told when the file and its lock are free.
    Close(oneshot::Sender<()>),
}

/// Work on the tables, and the answer to it.
trait Job: Send {
    fn doing(&self) -> &'static str;
    fn run(&mut self, table: &mut Table<'_>) -> rusqlite::Result<()>;
    /// Called once, after the commit, or with what went wrong.
    fn answer(self: Box<Self>, failure: Option<&str>);
}

struct Work<T, F> {
    doing: &'static str,
    work: Option<F>,
    done: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Work<T, F>
where
    T: Send,
    F: FnOnce(&mut Table<'_>) -> rusqlite::Result<T> + Send,
{
    fn doing(&self) -> &'static str {
        self.doing
    }

    fn run(&mut self, table: &mut Table<'_>) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.done = Some(work(table)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<&str>) {
        let answer = match (failure, self.done) {
            (None, Some(done)) => Ok(done),
            (failure, _) => Err(HostError::Store {
                doing: self.doing,
                message: failure.unwrap_or_default().to_owned(),
            }),
        };
        // Who went away has what was done in the file.
        let _ = self.reply.send(answer);
    }
}

impl Writer {
    /// Opens the file, which is made where it is missing, and starts the thread.
    pub(super) fn start(path: PathBuf, owner: Owner, bounds: Bounds) -> Result<Self> {
        let file = File::open(path, bounds)?;
        let (jobs, received) = mpsc::channel();
        let path = file.path.clone();
        let body = move || {
            let closed = file.serve(&received);
            // Whoever opens the file next finds it free.
            drop(owner);
            if let Some(closed) = closed {
                let _ = closed.send(());
            }
        };
        let started = thread::Builder::new().name("qm2-queue".into()).spawn(body);
        started.map_err(|e| HostError::io("start a thread for", &path, e))?;
        Ok(Self { jobs })
    }

    /// Does something on the tables, and answers when it is durable.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&mut Table<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = Work {
            doing,
            work: Some(work),
            done: None,
            reply,
        };
        let sent = self.jobs.send(Input::Job(Box::new(job)));
        sent.map_err(|_| HostError::Closed)?;
        answer.await.unwrap_or(Err(HostError::Closed))
    }

    /// Waits for what was asked before, and gives the file back.
    pub(super) async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.jobs.send(Input::Close(closed)).is_ok() {
            let _ = wait.await;
        }
    }
}

/// The file, in its thread.
struct File {
    path: PathBuf,
    bounds: Bounds,
    /// None after a failure, until it can be opened again: what it says then is not believed.
    connection: Option<Connection>,
    count: u64,
}

impl File {
    fn open(path: PathBuf, bounds: Bounds) -> Result<Self> {
        let (connection, count) = open(&path)?;
        Ok(Self {
            path,
            bounds,
            connection: Some(connection),
            count,
        })
    }

    /// Serves until it is closed or nobody is left who could ask.
    fn serve(mut self, inputs: &Receiver<Input>) -> Option<oneshot::Sender<()>> {
        let mut size = 1;
        while let Ok(first) = inputs.recv() {
            let mut group = Vec::with_capacity(size);
            let mut closed = take(first, &mut group);
            let until = Instant::now() + GATHER;
            while closed.is_none() && group.len() < GROUP_MAX {
                let next = match inputs.try_recv() {
                    Ok(next) => next,
                    // As many as last time will come again; one alone never waits.
                    Err(_) if group.len() < size => {
                        let left = until.saturating_duration_since(Instant::now());
                        match inputs.recv_timeout(left) {
                            Ok(next) => next,
                            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                                break;
                            }
                        }
                    }
                    Err(_) => break,
                };
                closed = take(next, &mut group);
            }
            size = group.len();
            self.commit(group);
            if closed.is_some() {
                return closed;
            }
        }
        None
    }

    fn commit(&mut self, mut group: Vec<Box<dyn Job>>) {
        let failure = self.try_commit(&mut group).err();
        if let (Some(failure), Some(job)) = (&failure, group.first()) {
            tracing::error!("the outbox could not {}: {failure}", job.doing());
            self.connection = None;
        }
        for job in group {
            job.answer(failure.as_deref());
        }
    }

    fn try_commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), String> {
        if self.connection.is_none() {
            let (connection, count) = open(&self.path).map_err(|e| e.to_string())?;
            (self.connection, self.count) = (Some(connection), count);
        }
        let Some(connection) = &mut self.connection else {
            return Err("it is closed".into());
        };
        let (path, bounds, count) = (&self.path, self.bounds, &mut self.count);
        let run = || {
            // A program beside this one may write, too; see `beside`.
            let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut table = Table {
                sql: &sql,
                count,
                entries_max: bounds.entries_max,
                keys_remembered: bounds.keys_remembered,
            };
            for job in group {
                job.run(&mut table)?;
            }
            sql.commit()
        };
        run().map_err(|e| format!("{}: {}", path.display(), file::advice(&OUTBOX, &e)))
    }
}

fn take(input: Input, group: &mut Vec<Box<dyn Job>>) -> Option<oneshot::Sender<()>> {
    match input {
        Input::Job(job) => {
            group.push(job);
            None
        }
        Input::Close(closed) => Some(closed),
    }
}

fn open(path: &Path) -> Result<(Connection, u64)> {
    let connection = file::open_for_writing(&OUTBOX, path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let count = count(&connection).map_err(|e| HostError::Data {
        path: path.to_path_buf(),
        message: file::advice(&OUTBOX, &e),
    })?;
    Ok((connection, count))
}
