//! The guard at a write boundary: whether a grant still holds, and commands that run only while it does.
//!
//! The component says whether a grant lives; this module sees to it that a command which was allowed to start is ended, with
//! its children, before the end of its grant takes effect. Whatever brings it about, the end of a grant is a ledger record:
//! an expired lease or a release. The records of a group of calls are looked through before they are committed, and until
//! the commands under the grants that end in them are gone nothing is: nobody else is granted the resource, answered, or
//! started. A renewed lease needs no word, because it has no such record.
//!
//! Whether the resource is touched only through guarded commands is up to its host.

use crate::domain::Domain;
use crate::error::{HostError, Result};
use crate::submit::{Side, Submitter};
use crate::survivor::{self, DATA_VARIABLE, GUARD_VARIABLE, Of};
use qm2_core::call::{Answer, Call};
use qm2_core::claim::{Access, Region};
use qm2_core::receipt::GuardVerdict;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::sleep;

/// How long a command whose grant ended may take to go before it is killed. Short: the domain waits for it.
const TERM_GRACE: Duration = Duration::from_millis(500);
/// How long the domain waits for whoever runs a command to end it before it does so itself.
const END_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Wait before a check is sent again after a commit failed.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What is about to be done with a resource, and under which grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuardRequest {
    /// `kind:path`; the resource of the grant or one within it.
    pub resource: String,
    /// The session that was granted it.
    pub session: String,
    /// The fencing token of the grant.
    pub token: u64,
    /// `write` needs an exclusive grant.
    pub mode: Access,
    /// Which parts; empty for all of it.
    #[serde(default)]
    pub regions: Vec<Region>,
    /// What it is based on; if given, the grant must have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_version: Option<String>,
}

impl GuardRequest {
    /// Writing all of a resource.
    #[must_use]
    pub fn write(resource: &str, session: &str, token: u64) -> Self {
        Self {
            resource: resource.to_owned(),
            session: session.to_owned(),
            token,
            mode: Access::Write,
            regions: Vec::new(),
            base_version: None,
        }
    }

    /// The call that asks the component.
    #[must_use]
    pub fn call(&self) -> Call {
        let this = self.clone();
        Call::Check {
            now_ms: 0,
            resource: this.resource,
            session: this.session,
            token: this.token,
            mode: this.mode,
            regions: this.regions,
            base_version: this.base_version,
        }
    }
}

/// What came of a guarded command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// It was not started.
    Refused(GuardVerdict),
    /// It ran to its end while the grant lived.
    Finished(ExitStatus),
    /// It was ended, because the grant ended or because it was told to; why, as a sentence.
    Stopped(String),
}

impl Domain {
    /// Asks the guard: whether this may be done now. Nothing is recorded; ask at each write.
    ///
    /// # Errors
    /// Those of [`Domain::call`]. An error is not a yes.
    pub async fn check(&self, request: &GuardRequest) -> Result<GuardVerdict> {
        check(&self.0.submitter, request).await
    }

    /// Runs a command, in a process group of its own, if the guard allows it, and only while the grant lives: when the grant
    /// ends, the command and everything that it started is asked to end and, half a second later, killed, before the
    /// domain goes on. What it leaves behind when it ends by itself is ended too.
    ///
    /// # Errors
    /// Those of [`Domain::call`]; [`HostError::Io`] if the command cannot be started.
    pub async fn guarded(&self, request: &GuardRequest, command: Command) -> Result<Guarded> {
        let (verdict, ticket) = admit(&self.0.submitter, &self.0.guards, request, None).await?;
        let Some(mut ticket) = ticket else {
            return Ok(Guarded::Refused(verdict));
        };
        let marker = ticket.marker();
        let ended = run(command, &self.0.data, &marker, ticket.stopped()).await?;
        ticket.leave();
        Ok(ended)
    }
}

/// Asks, again and again while the store is away.
async fn check(submitter: &Submitter, request: &GuardRequest) -> Result<GuardVerdict> {
    loop {
        match submitter.call(request.call(), Side::default()).await {
            Ok(Answer::Check(verdict)) => return Ok(verdict),
            Ok(_) => return Err(HostError::Component("the answer of another call".into())),
            Err(e) if e.retryable() => sleep(RETRY_AFTER).await,
            Err(e) => return Err(e),
        }
    }
}

/// Asks for a command that is about to run; with the ticket it may start. `pid` is the process that will run it, where
/// that is another one.
///
/// # Errors
/// Those of the call.
pub(crate) async fn admit(
    submitter: &Submitter,
    guards: &Arc<Guards>,
    request: &GuardRequest,
    pid: Option<u32>,
) -> Result<(GuardVerdict, Option<Ticket>)> {
    // Before the check: whatever ends the grant after it finds the ticket.
    let mut ticket = guards.enter(request.token, pid);
    let verdict = check(submitter, request).await?;
    if !verdict.allowed {
        return Ok((verdict, None));
    }
    match ticket.begin() {
        Ok(()) => Ok((verdict, Some(ticket))),
        Err(reason) => Ok((refused(reason), None)),
    }
}

/// A refusal of the host's own.
pub(crate) fn refused(reason: String) -> GuardVerdict {
    GuardVerdict {
        allowed: false,
        reason,
        expires_ms: None,
    }
}

/// Runs a command to its end, or until `stopped` resolves to the reason for ending it. When this returns nothing of the
/// command runs any more.
///
/// # Errors
/// [`HostError::Io`] if it cannot be started or waited for, [`HostError::Data`] if something of it does not go.
pub(crate) async fn run(
    mut command: Command,
    data: &Path,
    marker: &str,
    stopped: impl Future<Output = String>,
) -> Result<Guarded> {
    command
        .env(GUARD_VARIABLE, marker)
        .env(DATA_VARIABLE, data)
        .process_group(0)
        .kill_on_drop(true);
    let program = PathBuf::from(command.as_std().get_program());
    let failed = |doing| {
        let program = program.clone();
        move |e| HostError::io(doing, &program, e)
    };
    let mut child = command.spawn().map_err(failed("start"))?;
    let pid = child
        .id()
        .ok_or_else(|| std::io::Error::other("it ended at once"))
        .map_err(failed("start"))?;
    let ended = tokio::select! {
        status = child.wait() => Guarded::Finished(status.map_err(failed("wait for"))?),
        reason = stopped => {
            ask_to_end(&mut child, pid, data, marker).await;
            Guarded::Stopped(reason)
        }
    };
    // Also what it left behind: that would write under no grant.
    survivor::signal_group(pid, Signal::KILL);
    let (data, marker) = (data.to_path_buf(), marker.to_owned());
    let gone = tokio::task::spawn_blocking(move || match survivor::may_have(&marker) {
        true => survivor::end(&data, Of::Guard(&marker)),
        false => Ok(()),
    });
    if matches!(ended, Guarded::Stopped(_)) {
        child.wait().await.map_err(failed("wait for"))?;
    }
    gone.await.unwrap_or(Ok(()))?;
    Ok(ended)
}

/// Asks a command and what it started to end, and waits a moment for it.
async fn ask_to_end(child: &mut Child, pid: u32, data: &Path, marker: &str) {
    let find = || {
        let (data, marker) = (data.to_path_buf(), marker.to_owned());
        let find = move || survivor::find(&data, Of::Guard(&marker)).unwrap_or_default();
        async { tokio::task::spawn_blocking(find).await.unwrap_or_default() }
    };
    let until = Instant::now() + TERM_GRACE;
    let found = find().await;
    survivor::signal_group(pid, Signal::TERM);
    for pid in found {
        survivor::signal(pid, Signal::TERM);
    }
    while Instant::now() < until {
        if matches!(child.try_wait(), Ok(Some(_))) && find().await.is_empty() {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
    // A leader that left its group to others is ended by its own id.
    survivor::signal(pid, Signal::KILL);
}

/// The commands that run under grants of a domain, in this process and in others.
pub(crate) struct Guards {
    data: PathBuf,
    /// Before the number of a ticket: makes markers that no other domain and no other life of this one has.
    prefix: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    last: u64,
    entries: HashMap<u64, Entry>,
    /// Why nothing may start any more.
    shut: Option<String>,
}

/// A command that wants to run, or runs.
struct Entry {
    token: u64,
    /// Whether it may have started.
    running: bool,
    /// Why it is to end.
    stop: watch::Sender<Option<String>>,
    /// The process that runs it, where that is another one.
    pid: Option<u32>,
}

/// The place of one command among the guarded ones. When it is dropped the command is ended, unless it was said to have
/// ended.
pub(crate) struct Ticket {
    guards: Arc<Guards>,
    number: u64,
    stop: watch::Receiver<Option<String>>,
    running: bool,
}

impl Guards {
    pub(crate) fn new(data: &Path) -> Arc<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = since.map_or(0, |since| since.as_nanos());
        Arc::new(Self {
            data: data.to_path_buf(),
            prefix: format!("{}-{nanos}", std::process::id()),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn enter(self: &Arc<Self>, token: u64, pid: Option<u32>) -> Ticket {
        let (stop, told) = watch::channel(None);
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        let entry = Entry {
            token,
            running: false,
            stop,
            pid,
        };
        state.entries.insert(number, entry);
        Ticket {
            guards: self.clone(),
            number,
            stop: told,
            running: false,
        }
    }

    /// Ends the commands whose grants end in these ledger lines, and waits until they are gone. Call it before the lines
    /// are committed. Blocks.
    pub(crate) fn end_grants(&self, lines: &[String]) {
        if self.lock().entries.is_empty() {
            return;
        }
        let ended: HashMap<u64, String> =
            lines.iter().flat_map(|line| grants_ended(line)).collect();
        if ended.is_empty() {
            return;
        }
        self.stop(|entry| ended.get(&entry.token).cloned());
        self.wait(|entry| ended.contains_key(&entry.token));
    }

    /// Ends all commands and lets none start any more; does not wait.
    pub(crate) fn shut(&self, reason: &str) {
        self.lock().shut.get_or_insert_with(|| reason.to_owned());
        self.stop(|_| Some(reason.to_owned()));
    }

    /// Waits until no command runs any more. Blocks.
    pub(crate) fn wait_for_all(&self) {
        self.wait(|_| true);
    }

    fn stop(&self, reason: impl Fn(&Entry) -> Option<String>) {
        for entry in self.lock().entries.values() {
            if let Some(reason) = reason(entry) {
                entry.stop.send_if_modified(|known| {
                    let is_first = known.is_none();
                    known.get_or_insert(reason);
                    is_first
                });
            }
        }
    }

    /// Waits until those that run and match are gone. Whoever does not end its command in time, because it is stopped
    /// itself, is killed together with the command.
    fn wait(&self, matches: impl Fn(&Entry) -> bool) {
        let until = Instant::now() + END_WITHIN;
        let mut state = self.lock();
        loop {
            let left: Vec<(u64, Option<u32>)> = state
                .entries
                .iter()
                .filter(|(_, entry)| entry.running && matches(entry))
                .map(|(number, entry)| (*number, entry.pid))
                .collect();
            let now = Instant::now();
            if left.is_empty() {
                return;
            }
            if now < until {
                let waited = self.changed.wait_timeout(state, until - now);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            drop(state);
            for (number, pid) in &left {
                // First the one that could still start it.
                if let Some(pid) = pid.filter(|pid| *pid != std::process::id()) {
                    survivor::signal(pid, Signal::KILL);
                }
                self.end_command(*number);
            }
            state = self.lock();
            for (number, _) in left {
                state.entries.remove(&number);
            }
        }
    }

    /// Kills a command by the marker in its environment.
    fn end_command(&self, number: u64) {
        if let Err(e) = survivor::end(&self.data, Of::Guard(&self.marker(number))) {
            tracing::error!("a guarded command outlives its grant: {e}");
        }
    }

    fn marker(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn leave(&self, number: u64) {
        self.lock().entries.remove(&number);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// The command may start now, unless the grant has ended since it was checked.
    fn begin(&mut self) -> Result<(), String> {
        let mut state = self.guards.lock();
        if let Some(reason) = &state.shut {
            return Err(reason.clone());
        }
        let Some(entry) = state.entries.get_mut(&self.number) else {
            return Err("the grant has just ended".into());
        };
        if let Some(reason) = &*entry.stop.borrow() {
            return Err(reason.clone());
        }
        entry.running = true;
        self.running = true;
        Ok(())
    }

    /// What the environment of the command must have in [`GUARD_VARIABLE`].
    pub(crate) fn marker(&self) -> String {
        self.guards.marker(self.number)
    }

    /// Resolves to the reason when the command must end.
    pub(crate) fn stopped(&mut self) -> impl Future<Output = String> + use<> {
        let mut stop = self.stop.clone();
        async move {
            match stop.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                // The entry was taken away: somebody else ended the command.
                Err(_) => "the grant has ended".into(),
            }
        }
    }

    /// Nothing of the command runs any more.
    pub(crate) fn leave(mut self) {
        self.running = false;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.running {
            return self.guards.leave(self.number);
        }
        // Whoever ran it went away without a word; the domain must not go on before the command is gone.
        let (guards, number) = (self.guards.clone(), self.number);
        std::thread::spawn(move || {
            guards.end_command(number);
            guards.leave(number);
        });
    }
}

/// The tokens of the grants that end in a ledger line, and why.
fn grants_ended(line: &str) -> Vec<(u64, String)> {
    if !line.contains("\"type\":\"claim.") {
        return Vec::new();
    }
    let record: Value = serde_json::from_str(line).unwrap_or_default();
    let data = &record["data"];
    match record["type"].as_str() {
        Some("claim.expired") => {
            let resource = data["resource"].as_str().unwrap_or("the resource");
            let token = data["token"].as_u64();
            token
                .map(|token| {
                    (
                        token,
                        format!("the lease of {resource} under token {token} has expired"),
                    )
                })
                .into_iter()
                .collect()
        }
        Some("claim.released") => {
            let why = match data["reason"].as_str() {
                Some("released") => "was given back",
                Some("preempted") => "was taken away in favour of another step",
                _ => "ended with the attempt that held it",
            };
            let tokens = data["tokens"].as_array().into_iter().flatten();
            tokens
                .filter_map(Value::as_u64)
                .map(|token| (token, format!("the grant with token {token} {why}")))
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(token: u64, reason: &str) -> String {
        format!(
            r#"{{"v":1,"seq":9,"atMs":5,"type":"claim.released","data":{{"tokens":[3,{token}],"reason":"{reason}"}}}}"#
        )
    }

    #[test]
    fn ends_of_grants_are_read_from_the_ledger() {
        let ended = grants_ended(&released(7, "released"));
        assert_eq!(ended.iter().map(|one| one.0).collect::<Vec<_>>(), [3, 7]);
        assert!(ended[1].1.contains("given back"), "{ended:?}");
        let expired = r#"{"seq":9,"type":"claim.expired","data":{"token":4,"resource":"file:a"}}"#;
        let ended = grants_ended(expired);
        assert_eq!(ended[0].0, 4);
        assert!(ended[0].1.contains("file:a"), "{ended:?}");
        let renewed = r#"{"seq":9,"type":"claim.renewed","data":{"tokens":[4],"expiresMs":9}}"#;
        assert!(grants_ended(renewed).is_empty());
    }

    #[test]
    fn a_grant_that_ended_after_the_check_lets_nothing_start() {
        let folder = tempfile::tempdir().unwrap();
        let guards = Guards::new(folder.path());
        let mut ticket = guards.enter(7, None);
        // Nothing runs yet, so nothing is waited for.
        guards.end_grants(&[released(7, "ended")]);
        assert!(ticket.begin().unwrap_err().contains("attempt"));
        let mut other = guards.enter(8, None);
        guards.end_grants(&[released(7, "ended")]);
        other.begin().unwrap();
        other.leave();
        guards.shut("closing");
        let mut late = guards.enter(9, None);
        assert_eq!(late.begin().unwrap_err(), "closing");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_command_and_its_children_are_gone_before_the_end_of_the_grant_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let guards = Guards::new(folder.path());
        let mut ticket = guards.enter(7, None);
        ticket.begin().unwrap();
        let marker = ticket.marker();
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; setsid sleep 300 & sleep 300"]);
        let data = folder.path().to_path_buf();
        let running = tokio::spawn(async move {
            let ended = run(command, &data, &ticket.marker(), ticket.stopped()).await;
            ticket.leave();
            ended
        });
        while survivor::find(folder.path(), Of::Guard(&marker))
            .unwrap()
            .len()
            < 3
        {
            sleep(LOOK_EVERY).await;
        }
        let ending = guards.clone();
        tokio::task::spawn_blocking(move || ending.end_grants(&[released(7, "ended")]))
            .await
            .unwrap();
        assert!(
            survivor::find(folder.path(), Of::Guard(&marker))
                .unwrap()
                .is_empty()
        );
        assert!(matches!(running.await.unwrap(), Ok(Guarded::Stopped(_))));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_command_leaves_behind_is_ended_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "sleep 300 & env -i sleep 301 & setsid sleep 302 & exit 3",
        ]);
        let ended = run(command, folder.path(), "m-1", std::future::pending())
            .await
            .unwrap();
        assert!(matches!(ended, Guarded::Finished(status) if status.code() == Some(3)));
        assert!(
            survivor::find(folder.path(), Of::Guard("m-1"))
                .unwrap()
                .is_empty()
        );
    }
}
