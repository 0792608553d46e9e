//! `qm2 run`: submits a plan or goes on with it, shows how it goes, and prints how it ended.
//!
//! Opens the domain, waits, and closes it; what runs when is decided in the component.

use super::data::Overview;
use super::failure::Failure;
use super::output::Output;
use super::progress::Progress;
use super::{check, data, exit, status, table};
use qm2_core::config::Config;
use qm2_core::event::TerminalState;
use qm2_core::plan::Plan;
use qm2_core::receipt::Head;
use qm2_host::agents_file::AgentsFile;
use qm2_host::history::{History, StepState, word};
use qm2_host::store::Store;
use qm2_host::{Domain, DomainBuilder, HostError};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// How often a live display is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// How long the data directory may be somebody else's: who answers a question while nobody runs it owns it for a moment.
const LOCKED_FOR: Duration = Duration::from_secs(3);

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The plan, a JSON file; `-` reads it from stdin.
    plan: PathBuf,
    /// Who serves which sessions [default: qm2.toml beside the plan].
    #[arg(long, value_name = "FILE")]
    agents: Option<PathBuf>,
    /// Runs a plan again under a new id; goes on with the last such run if that has not ended.
    #[arg(long)]
    rerun: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    coordination_id: String,
    terminal: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    steps: Counts,
    head_seq: u64,
    head_hash: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    total: usize,
    completed: usize,
    failed: usize,
    timed_out: usize,
    cancelled: usize,
    skipped: usize,
}

/// Runs a plan to its end.
pub fn run(directory: &Path, arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let text = check::read_plan(&arguments.plan)?;
    let (text, plan) = read(directory, text, arguments.rerun)?;
    let agents_path = arguments
        .agents
        .clone()
        .unwrap_or_else(|| check::beside(&arguments.plan));
    let agents = AgentsFile::read(&agents_path).map_err(|error| {
        let hint = if arguments.agents.is_none() {
            "; --agents names another file"
        } else {
            ""
        };
        Failure::usage("invalid-agents", format!("{error}{hint}"))
    })?;
    let again = format!(
        "{} run {}",
        super::command(directory),
        arguments.plan.display()
    );
    let again = match &arguments.agents {
        Some(path) => format!("{again} --agents {}", path.display()),
        None => again,
    };
    let again = if arguments.rerun {
        again + " --rerun"
    } else {
        again
    };

    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let mut interrupts = interrupts()?;
        let open = || {
            let agents = Some((&agents, &*agents_path));
            builder(directory, &plan.coordination_id, agents)
        };
        let until = Instant::now() + LOCKED_FOR;
        let (domain, overview) = loop {
            let (builder, overview) = open()?;
            match builder.open().await {
                Err(HostError::Locked { .. }) if Instant::now() < until => {
                    tokio::time::sleep(FRAME).await;
                }
                opened => break (opened?, overview),
            }
        };
        let remember = async {
            if let Some(overview) = &overview {
                data::remember_overview(&domain, overview).await;
            }
            data::remember_agents(&domain, &plan.coordination_id, &agents_path).await
        };
        if let Err(failure) = remember.await {
            close(&domain, &mut interrupts, output).await;
            return Err(failure);
        }
        let known = data::open(directory)?.coordination_lines(&plan.coordination_id)?;
        let command = super::command(directory);
        let progress = Progress::new(&plan.coordination_id, &known, &command, output.is_watched());
        let watching = tokio::spawn(watch(progress, domain.subscribe(), directory.to_path_buf()));
        let interrupted = tokio::select! {
            ended = domain.run(&text) => match ended {
                Ok(_) => false,
                Err(error) => {
                    close(&domain, &mut interrupts, output).await;
                    return Err(match error {
                        // Its reason was logged when it came up.
                        HostError::Retry => Failure::host("store", not_kept(directory, &again)),
                        error => error.into(),
                    });
                }
            },
            _ = interrupts.recv() => true,
        };
        if interrupted {
            output.note("stopping: running agents are being ended; once more to stop at once");
        }
        close(&domain, &mut interrupts, output).await;
        drop(domain);
        // Ends by itself, because nobody can send any more; what it still has to show comes before the table.
        let _ = watching.await;
        Ok(!interrupted)
    })?;
    if !ended {
        let message = format!("interrupted; nothing is lost, resume with: {again}");
        return Err(Failure::new(exit::INTERRUPTED, "interrupted", message));
    }
    report(directory, &plan.coordination_id, output)
}

/// What a person reads when the disk failed while the plan was handed in.
fn not_kept(directory: &Path, again: &str) -> String {
    format!(
        "{} could not keep what it was given, for the reason above; nothing is lost, put that right and resume with: {again}",
        directory.display()
    )
}

/// The plan that is to run: its text, and what it says. Everything wrong with it is found before anything is made.
fn read(directory: &Path, text: String, rerun: bool) -> Result<(String, Plan), Failure> {
    let parse = |text: &str| {
        let syntax = check::syntax(text).map(|problem| vec![problem]);
        let plan = syntax.map_or_else(|| Plan::parse(text, &config()), Err);
        plan.map_err(|problems| Failure::from(HostError::InvalidPlan(problems)))
    };
    let plan = parse(&text)?;
    if !rerun {
        return Ok((text, plan));
    }
    let id = rerun_id(directory, &plan.coordination_id)?;
    let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
    value["coordinationId"] = id.into();
    value["rerunOf"] = plan.coordination_id.into();
    let text = value.to_string();
    let plan = parse(&text)?;
    Ok((text, plan))
}

/// The id of the last rerun if that has not ended, else the next free one.
fn rerun_id(directory: &Path, id: &str) -> Result<String, Failure> {
    let mut free = 1;
    if data::exists(directory) {
        let store = data::open(directory)?;
        loop {
            let lines = store.coordination_lines(&format!("{id}.rerun-{free}"))?;
            if lines.is_empty() {
                break;
            }
            let history = History::fold(&lines).ok().flatten();
            if history.is_some_and(|history| history.terminal.is_none()) {
                break;
            }
            free += 1;
        }
    }
    Ok(format!("{id}.rerun-{free}"))
}

/// The configuration of a new data directory.
fn config() -> Config {
    let mut config = Config::new("local");
    config.phase1.enabled = true;
    config
}

/// A domain with these agents for one coordination, and for every other that has not ended those that it was last run
/// with; and what was looked through for that. Without agents, what the coordination asks for rests, and the recorded configuration stays.
pub fn builder(
    directory: &Path,
    id: &str,
    agents: Option<(&AgentsFile, &Path)>,
) -> Result<(DomainBuilder, Option<Overview>), Failure> {
    let mut builder = Domain::builder(directory);
    // Agents call `qm2 claim` and `qm2 guard`, and not everybody has the program in a folder of the search path.
    if let Ok(program) = std::env::current_exe() {
        builder = builder.agent_variable("QM2_BIN", program);
    }
    let (mut overview, mut slowest) = (None, None);
    if data::exists(directory) {
        let store = data::open(directory)?;
        let unfinished = &overview.insert(data::overview(&store)?).unfinished;
        for (other, file, path) in data::other_agents(&store, unfinished, id)? {
            slowest = slowest.max(file.hook_timeout_ms());
            builder = serve(builder, &other, &file, &path)?;
        }
    }
    let recorded = overview.as_ref().and_then(|all| all.config.clone());
    if let Some((file, path)) = agents {
        // Another host may have set the rest; only what this command needs is changed.
        let mut config = recorded.unwrap_or_else(config);
        config.phase1.enabled = true;
        // Kinds of hooks are those of the agents files: one that nobody here answers would deny every step.
        config.hooks.clear();
        let limit = Config::new("local").hook_timeout_ms;
        let slowest = slowest.max(file.hook_timeout_ms());
        config.hook_timeout_ms = slowest.map_or(limit, |slowest| slowest.max(limit));
        builder = serve(builder.config(config).lanes(file.lanes), id, file, path)?;
    } else if let Some(config) = recorded {
        builder = builder.config(config);
    }
    Ok((builder, overview))
}

/// A domain that does no work, so that it can be left at any time: steps rest, but hooks are there, because one that
/// nobody answers is a deny.
pub fn resting_builder(directory: &Path) -> Result<DomainBuilder, Failure> {
    let mut builder = Domain::builder(directory);
    let store = data::open(directory)?;
    let overview = data::overview(&store)?;
    for (id, file, path) in data::other_agents(&store, &overview.unfinished, "")? {
        builder = builder.hooks_for(&id, file.hook_table(&folder_of(&path))?);
    }
    Ok(match overview.config {
        Some(config) => builder.config(config),
        None => builder,
    })
}

/// Gives a coordination the agents, hooks and people of a file; commands run in its folder.
fn serve(
    builder: DomainBuilder,
    id: &str,
    file: &AgentsFile,
    path: &Path,
) -> Result<DomainBuilder, Failure> {
    let folder = folder_of(path);
    Ok(builder
        .agents_for(id, file.table(&folder)?)
        .hooks_for(id, file.hook_table(&folder)?)
        .people_for(id, file.people()))
}

fn folder_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// What runs the domain, its socket, timers and processes.
pub fn runtime() -> Result<Runtime, Failure> {
    let built = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    built.map_err(|error| Failure::host("io", format!("could not start the runtime: {error}")))
}

/// Tells of every signal that asks the process to end.
pub fn interrupts() -> Result<mpsc::UnboundedReceiver<()>, Failure> {
    let (tell, told) = mpsc::unbounded_channel();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let tell = tell.clone();
        let mut signals = signal(kind).map_err(|error| {
            Failure::host("io", format!("could not listen for signals: {error}"))
        })?;
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
    }
    Ok(told)
}

/// Closes the domain; another signal meanwhile ends the process at once, and the next run cleans up.
pub async fn close(domain: &Domain, interrupts: &mut mpsc::UnboundedReceiver<()>, output: &Output) {
    tokio::select! {
        () = domain.close() => {}
        _ = interrupts.recv() => {
            let message = "interrupted twice; what still runs is ended by the next run of this data directory";
            output.failure(&Failure::new(exit::INTERRUPTED, "interrupted", message));
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
    }
}

/// Shows lines as they become durable, until the domain is gone.
async fn watch(mut progress: Progress, mut lines: Receiver<Arc<str>>, directory: PathBuf) {
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Ok(line) => progress.take(&line),
                Err(RecvError::Lagged(_)) => {
                    // The ledger has what was missed; the display knows what it has seen.
                    let stored = data::open(&directory).and_then(|store| Ok(store.coordination_lines(progress.id())?));
                    for line in stored.unwrap_or_default() {
                        progress.take(&line);
                    }
                }
                Err(RecvError::Closed) => break,
            },
            _ = frames.tick() => progress.draw(now_ms()),
        }
    }
    progress.end();
}

/// The time on the wall, in milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Prints how a coordination ended, from the ledger alone: the same whenever it is asked.
fn report(directory: &Path, id: &str, output: &Output) -> Result<u8, Failure> {
    let store = data::open(directory)?;
    let head = store.head()?;
    let history = ended(&store, directory, id)?;
    let terminal = history.terminal.unwrap_or(TerminalState::Failed);
    let outcome = outcome(&history, terminal, head);
    output.result(&outcome, || {
        let how = status::ending(outcome.terminal, outcome.reason.as_deref());
        let mut text = format!(
            "{}\n{id}: {how}, ledger head {} {}",
            table::ended(&history),
            outcome.head_seq,
            outcome.head_hash
        );
        for (step_id, path) in table::files(&history) {
            text += &format!("\n{step_id}: {path}");
        }
        text
    });
    Ok(match terminal {
        TerminalState::Success => exit::SUCCESS,
        TerminalState::Partial => exit::PARTIAL,
        TerminalState::Failed => exit::FAILED,
        TerminalState::Escalated => exit::ESCALATED,
    })
}

/// A coordination as its records tell it.
pub fn ended(store: &dyn Store, directory: &Path, id: &str) -> Result<History, Failure> {
    let history = History::fold(store.coordination_lines(id)?);
    let history = history.map_err(|error| {
        Failure::new(
            exit::LEDGER_BROKEN,
            "ledger-broken",
            format!("coordination {id}: {error}"),
        )
    })?;
    history.ok_or_else(|| data::unknown(directory, id))
}

fn outcome(history: &History, terminal: TerminalState, head: Head) -> Outcome {
    Outcome {
        coordination_id: history.coordination_id.clone(),
        terminal: terminal.name(),
        reason: history.reason.as_ref().map(word),
        steps: Counts {
            total: history.steps.len(),
            completed: history.count(StepState::Completed),
            failed: history.count(StepState::Failed),
            timed_out: history.count(StepState::TimedOut),
            cancelled: history.count(StepState::Cancelled),
            skipped: history.count(StepState::Skipped),
        },
        head_seq: head.seq,
        head_hash: head.hash,
    }
}
