//! Opening a domain: the lock, the store, the replayed ledger, the configuration, what outlived the last process, and then
//! the loop.
//!
//! Does not repair anything: a broken ledger opens for reading only, through [`crate::sqlite::SqliteStore::open_read_only`].

use crate::agent::{AgentTable, Report, Task};
use crate::agents_file::Lanes;
use crate::answer;
use crate::clock::{Clock, SystemClock};
use crate::committer::{Keeper, Said, Sink};
use crate::delivery::Delivery;
use crate::domain::{self, Domain, Inner};
use crate::engine::{Engine, Sandbox};
use crate::error::{HostError, Result};
use crate::event_stream::EventStream;
use crate::guard::Guards;
use crate::hook::{Hook, HookKind, HookTable, Hooks, Registry};
use crate::lane::LaneSet;
use crate::ledger_lines::LedgerLines;
use crate::older_lines::OlderLines;
use crate::paths::{self, Owner};
use crate::people::People;
use crate::process::Context;
use crate::queue::{Channel, DurableQueue, Options};
use crate::route::Routes;
use crate::snapshot::Snapshots;
use crate::sqlite::SqliteStore;
use crate::store::{Note, Store};
use crate::submit::{Input, Submitter};
use crate::survivor::{self, Of};
use crate::transaction::Writer;
use qm2_core::call::{Answer, Call};
use qm2_core::config::Config;
use qm2_core::message::{Notice, NoticeKind};
use qm2_core::receipt::CallError;
use serde_json::Value;
use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Records between two snapshots, unless the builder says otherwise: replay of fewer takes a second or two.
const SNAPSHOT_EVERY: u64 = 50_000;
/// Records before a snapshot that are verified before a domain is open, unless the builder says otherwise: about a second.
pub(crate) const VERIFY_AT_ONCE: u64 = 250_000;

/// What a domain is opened with.
#[must_use]
pub struct DomainBuilder {
    directory: PathBuf,
    config: Option<Config>,
    lanes: Option<Lanes>,
    routes: Routes,
    hooks: Registry,
    clock: Arc<dyn Clock>,
    engine: Option<Engine>,
    sandbox: Sandbox,
    store: Option<Box<dyn Store>>,
    snapshot_every: u64,
    verify_at_once: u64,
    variables: Vec<(String, OsString)>,
    event_stream: Option<EventStream>,
    /// The first mistake, said when opening.
    mistake: Option<HostError>,
}

impl DomainBuilder {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            config: None,
            lanes: None,
            routes: Routes::default(),
            hooks: Registry::default(),
            clock: Arc::new(SystemClock),
            engine: None,
            sandbox: Sandbox::default(),
            store: None,
            snapshot_every: SNAPSHOT_EVERY,
            verify_at_once: VERIFY_AT_ONCE,
            variables: Vec::new(),
            event_stream: None,
            mistake: None,
        }
    }

    /// Sets the configuration. Without it the recorded one stays in force, and a new domain is named `qm2` and has its
    /// feature gate off.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Sets the lane widths; that of `control` also sets the configuration's `maxInFlight`. Without it `control` is as wide
    /// as `maxInFlight`.
    pub fn lanes(mut self, lanes: Lanes) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// Tells this stream of every record once it is durable: the run is the coordination, the stream
    /// [`crate::event_stream::COORDINATION`], `data` the record. Listeners run outside the domain's loop and cannot slow it;
    /// where they fall far behind records are left out, and their numbers show that.
    pub fn event_stream(mut self, stream: EventStream) -> Self {
        self.event_stream = Some(stream);
        self
    }

    /// Adds an in-process agent for the sessions that a glob matches; the first match wins.
    ///
    /// May begin as soon as its dispatch is durable where every step of the plan is idempotent: its report is the ack then, and
    /// after a crash before it the attempt runs again under the same key. Else its ack is durable first.
    pub fn agent<F, Fut>(self, glob: &str, agent: F) -> Self
    where
        F: Fn(Task) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Report> + Send + 'static,
    {
        self.add(|table| table.agent(glob, agent))
    }

    /// Adds a command that stays: so many processes, each taking one dispatch after another. See
    /// [`AgentTable::staying_agent`].
    pub fn staying_agent(
        self,
        glob: &str,
        command: Vec<String>,
        folder: impl Into<PathBuf>,
        processes: u32,
    ) -> Self {
        self.add(|table| table.staying_agent(glob, command, folder, processes))
    }

    /// Adds a command for the sessions that a glob matches; it runs in the given folder.
    pub fn command_agent(
        self,
        glob: &str,
        command: Vec<String>,
        folder: impl Into<PathBuf>,
    ) -> Self {
        self.add(|table| table.command_agent(glob, command, folder))
    }

    /// Adds a channel for the sessions that a glob matches: an attempt is put into the durable queue of the data directory and
    /// sent, which is its ack. Whoever has it reports its end as the session, with [`Call::Submit`]. What can never be sent,
    /// or has failed too often, ends the step for good and is a dead letter.
    pub fn channel_agent(self, glob: &str, channel: Arc<dyn Channel>) -> Self {
        self.add(|table| table.channel_agent(glob, channel))
    }

    /// Sets a variable in the environment of every command agent, beside the `QM2_*` ones of its attempt. `qm2 run` tells
    /// agents in `QM2_BIN` where the program is.
    pub fn agent_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the agents of one coordination; what they do not serve is served by the general ones. As long as only such
    /// tables are given, the steps of other coordinations rest instead of failing for want of an agent.
    pub fn agents_for(mut self, coordination_id: &str, agents: AgentTable) -> Self {
        self.routes
            .of_coordination
            .insert(coordination_id.to_owned(), agents);
        self
    }

    /// Sets the people of one coordination. A question goes to a session only if it is one of them, or an agent serves
    /// it; where nobody has the role that an answer needs, the question is said to be unreachable.
    pub fn people_for(mut self, coordination_id: &str, people: impl Into<People>) -> Self {
        self.routes
            .people_of_coordination
            .insert(coordination_id.to_owned(), people.into());
        self
    }

    /// Sets the people of all coordinations, beside those of their own. Without any, the host is taken to show questions
    /// in a way of its own, and none is unreachable.
    pub fn people(mut self, people: impl Into<People>) -> Self {
        self.routes.general_people = Some(people.into());
        self
    }

    /// Adds a handler of a hook for all coordinations. Its kind goes into the configuration by itself, which therefore must
    /// be given.
    pub fn hook(mut self, kind: HookKind, hook: Hook) -> Self {
        match std::mem::take(&mut self.hooks.general).hook(kind, hook) {
            Ok(table) => self.hooks.general = table,
            Err(e) => self.mistake = self.mistake.or(Some(e)),
        }
        self
    }

    /// Sets the handlers of one coordination; they run together with those of all. An empty table says that this process
    /// knows that the coordination has none: a request about a coordination of which it knows nothing is left unanswered,
    /// which becomes a deny in time.
    pub fn hooks_for(mut self, coordination_id: &str, hooks: HookTable) -> Self {
        self.hooks
            .of_coordination
            .insert(coordination_id.to_owned(), hooks);
        self
    }

    /// Sets the clock; the wall clock without it.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Shares an engine with other domains of this process.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Sets the bounds of the instance, unless an engine is given.
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Sets another store than the SQLite one of the data directory.
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Sets after how many new records a snapshot is made in the background, so that opening replays only what came after it;
    /// 50 000 without it, never with 0. A domain that holds much makes long ones less often.
    pub fn snapshot_every(mut self, records: u64) -> Self {
        self.snapshot_every = records;
        self
    }

    /// Sets how many records that a snapshot covers are verified before the domain is open; 250 000 without it. Where there are
    /// more the domain opens after those that follow the snapshot, and the others are verified behind it: if one does not hold
    /// the domain is read-only from then on, and says which it is. A store without a second way in is always verified first.
    pub fn verify_at_once(mut self, records: u64) -> Self {
        self.verify_at_once = records;
        self
    }

    /// Opens the domain: takes the data directory, replays the ledger, ends what outlived the last process, and takes up
    /// what was out. Must be called within a tokio runtime; agents run on it.
    ///
    /// # Errors
    /// [`HostError::Locked`] if another process owns the directory, [`HostError::LedgerBroken`] if the ledger does not
    /// verify, [`HostError::Data`], [`HostError::Damaged`] or [`HostError::NewerData`] if the store cannot be used, [`HostError::Hook`] for handlers
    /// without a configuration, and mistakes of the builder.
    pub async fn open(mut self) -> Result<Domain> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        let data = paths::make_data_directory(&self.directory)?;
        let owner = Owner::take(&data)?;
        if let (Some(config), Some(lanes)) = (&mut self.config, &self.lanes) {
            config.max_in_flight = lanes.control as u64;
        }
        let registry = std::mem::take(&mut self.hooks);
        let hook_limit = registry.register(self.config.as_mut())?;
        let (inputs, received) = mpsc::channel();
        let submitter = Submitter::new(inputs, self.clock.clone());
        let runtime = Handle::current();
        let lanes = LaneSet::new(runtime.clone());
        let widths = self.lanes.unwrap_or_default();
        lanes.set_width("control", widths.control);
        lanes.set_width("data", widths.data);
        lanes.set_width("escalation", widths.escalation);
        let stream = LedgerLines::new();
        if let Some(listening) = self.event_stream.take() {
            stream.tell(listening, &runtime);
        }
        let context = Context {
            data: data.clone(),
            work_folder: std::env::current_dir()
                .map_err(|e| HostError::io("find", "the current directory".as_ref(), e))?,
            variables: std::mem::take(&mut self.variables),
            payload_bytes_max: self
                .config
                .as_ref()
                .map_or(qm2_core::limit::PAYLOAD_BYTES_MAX, |config| {
                    config.limits.payload_bytes
                }),
        };
        let hooks = Hooks::new(
            registry,
            context.clone(),
            submitter.clone(),
            hook_limit,
            &runtime,
        );
        let routes = std::mem::take(&mut self.routes);
        let outbox = open_outbox(&data, &routes, &self.clock)?;
        let delivery = Delivery::new(
            routes,
            context,
            submitter.clone(),
            lanes.clone(),
            outbox.clone(),
            runtime,
        );
        let delivery = Arc::new(delivery);

        let (ready, opened) = oneshot::channel();
        let guards = Guards::new(&data);
        let sink = sink(
            stream.clone(),
            delivery.clone(),
            hooks.clone(),
            guards.clone(),
        );
        let outside = (sink, guards.clone());
        let width = self.lanes.is_none().then(|| lanes.clone());
        let thread = {
            let (data, submitter) = (data.clone(), submitter.clone());
            let body = move || {
                // Lives as long as the thread: who owns the directory owns the store.
                let _owner = owner;
                self.run(&data, outside, width, &received, &submitter, ready);
            };
            thread::Builder::new().name("qm2-domain".into()).spawn(body)
        };
        let thread = thread.map_err(|e| HostError::io("start a thread for", &data, e))?;
        let (config, is_handed_out) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(e)) => {
                hooks.begin_closing();
                delivery.close().await;
                // The lock goes with the thread, and a caller may open again at once.
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
                if let Some(outbox) = outbox {
                    outbox.close().await;
                }
                return Err(e);
            }
            Err(_) => {
                return Err(HostError::Component(
                    "the domain's thread panicked; please report it".into(),
                ));
            }
        };
        if is_handed_out {
            delivery.take_back_ended().await;
        }
        let inner = Arc::new(Inner {
            data,
            config,
            submitter,
            stream,
            delivery,
            hooks,
            guards,
            lanes,
            outbox,
            server: Mutex::new(None),
            thread: Mutex::new(Some(thread)),
        });
        domain::listen(&inner);
        Ok(Domain(inner))
    }

    fn add(mut self, add: impl FnOnce(AgentTable) -> Result<AgentTable>) -> Self {
        match add(self.routes.general.take().unwrap_or_default()) {
            Ok(table) => self.routes.general = Some(table),
            Err(e) => self.mistake = self.mistake.or(Some(e)),
        }
        self
    }

    /// The domain's thread.
    fn run(
        self,
        data: &std::path::Path,
        outside: (Sink, Arc<Guards>),
        width: Option<LaneSet>,
        inputs: &mpsc::Receiver<Input>,
        submitter: &Submitter,
        ready: oneshot::Sender<Result<(Config, bool)>>,
    ) {
        let every = self.snapshot_every;
        let opened = self.open_writer(data, outside, submitter);
        match opened {
            Ok((mut writer, config, is_handed_out)) => {
                if let Some(lanes) = width {
                    let width = usize::try_from(config.max_in_flight).unwrap_or(usize::MAX);
                    lanes.set_width("control", width);
                }
                if ready.send(Ok((config, is_handed_out))).is_ok() {
                    let inputs_to = submitter.inputs.clone();
                    let older = writer.take_older();
                    let _older = older.map(|older| OlderLines::verify(older, inputs_to.clone()));
                    let snapshots = Snapshots::new(every, writer.snapshot(), inputs_to);
                    domain::run(writer, snapshots, inputs, submitter);
                }
            }
            Err(e) => {
                let _ = ready.send(Err(e));
            }
        }
    }

    /// Says also whether everything that is out was handed out.
    fn open_writer(
        self,
        data: &std::path::Path,
        (sink, guards): (Sink, Arc<Guards>),
        submitter: &Submitter,
    ) -> Result<(Writer, Config, bool)> {
        let now_ms = submitter.clock.now_ms();
        let store = match self.store {
            Some(store) => store,
            None => Box::new(SqliteStore::open(data)?),
        };
        let notes = store.notes()?;
        let engine = match self.engine {
            Some(engine) => engine,
            None => Engine::with(self.sandbox, Some(&data.join(paths::CACHE)))?,
        };
        let keeper = Keeper {
            store,
            sink,
            guards,
        };
        let inputs = submitter.inputs.clone();
        let mut writer = Writer::open(engine, keeper, inputs, self.verify_at_once)?;
        let config = match self.config {
            Some(config) => Some(config),
            None => (writer.head_seq() == 0).then(|| Config::new("qm2")),
        };
        if let Some(config) = &config {
            let config = config.to_json();
            writer.run(&Call::Configure { config })?;
        }
        survivor::end(data, Of::Directory(&notes))?;
        answer::clear(data);
        say_host_lost(&mut writer, &notes, now_ms);
        writer.advance(now_ms);
        let is_handed_out = match writer.reconcile() {
            Ok(_) => true,
            // Read-only, it still answers what is read.
            Err(HostError::Call(CallError::Disabled) | HostError::ReadOnly { .. }) => false,
            Err(e) => return Err(e),
        };
        if !writer.commit() {
            return Err(HostError::Store {
                doing: "take up what was out",
                message: writer.failure().to_owned(),
            });
        }
        let config = match config {
            Some(config) => config,
            None => recorded_config(&mut writer)?,
        };
        Ok((writer, config, is_handed_out))
    }
}

/// The queue of channels: where there are some, or where an earlier process has left one whose entries may have ended.
fn open_outbox(
    data: &std::path::Path,
    routes: &Routes,
    clock: &Arc<dyn Clock>,
) -> Result<Option<DurableQueue>> {
    if !routes.has_channel() && !data.join(paths::OUTBOX).exists() {
        return Ok(None);
    }
    let options = Options::new().shared_clock(clock.clone());
    options.open(data).map(Some)
}

/// Everything that was noted is dead now, and the component hears so.
fn say_host_lost(writer: &mut Writer, notes: &[Note], now_ms: u64) {
    for note in notes {
        let key = note.key.clone();
        let notices = vec![Notice {
            key: key.clone(),
            kind: NoticeKind::HostLost,
        }];
        match writer.run(&Call::Notice { now_ms, notices }) {
            Ok(_) => writer.forget(key),
            // With the gate off the note waits for the day when it is on.
            Err(e) => tracing::debug!("notice of {key}: {e}"),
        }
    }
}

/// The configuration that the ledger has, as far as a host needs it.
fn recorded_config(writer: &mut Writer) -> Result<Config> {
    let described = match writer.run(&Call::Describe { id: String::new() })? {
        Answer::Describe(json) => serde_json::from_str(&json).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    let mut config = Config::new(described["domain"].as_str().unwrap_or("qm2"));
    config.phase1.enabled = described["enabled"].as_bool().unwrap_or(false);
    config.max_in_flight = described["maxInFlight"]
        .as_u64()
        .unwrap_or(config.max_in_flight);
    Ok(config)
}

/// What a commit has made durable goes to listeners and to work; who waits for more when there is no more is told.
fn sink(
    stream: LedgerLines,
    delivery: Arc<Delivery>,
    hooks: Arc<Hooks>,
    guards: Arc<Guards>,
) -> Sink {
    Box::new(move |said| match said {
        Said::Replayed(repeatable) => delivery.learn(repeatable),
        Said::Durable(mut staged) => {
            stream.publish(&staged.lines);
            hooks.hand_out(&mut staged);
            delivery.hand_out(staged);
        }
        Said::ReadOnly => {
            delivery.fall_silent();
            guards.shut("the domain is read-only, and ends no lease any more");
        }
    })
}
