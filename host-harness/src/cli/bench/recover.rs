//! `bench recover`: plans that are half done when their process is killed, and how long a new process needs to end them all.
//!
//! Both processes are this program again, so that nothing of the first is left but what is on the disk.

use super::measure::ms;
use super::{Failure, Output, Place, Workplace, exit, plans, probed, runtime};
use clap::Args;
use qm2_host::agent::{Report, Task};
use qm2_host::event_stream::{Emitted, EventStream};
use serde::Serialize;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::{self, UnboundedSender};

/// Steps of a plan, and those that are done when the process dies.
const STEPS: usize = 4;
const DONE: usize = 2;

/// Arguments of `bench recover`.
#[derive(Args)]
pub struct Arguments {
    /// Plans that are half done.
    #[arg(long, default_value_t = 1_000)]
    plans: usize,
    #[command(flatten)]
    place: Place,
    /// What this process does; without it, it starts both.
    #[arg(long, hide = true, value_name = "DIR")]
    prepare: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "DIR")]
    resume: Option<PathBuf>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Recovered {
    plans: usize,
    /// From the start of the new process to the end of the last plan.
    recover_ms: f64,
}

/// W3.
pub fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    if let Some(data) = &arguments.prepare {
        return prepare(data, arguments.plans);
    }
    if let Some(data) = &arguments.resume {
        return resume(data, arguments.plans);
    }
    let place = Workplace::new(&arguments.place, "recover")?;
    let measure = || {
        let data = place.data("data");
        let mut prepared = Process::start("--prepare", &data, arguments.plans)?;
        prepared.wait_for("ready")?;
        prepared.kill();
        let started = Instant::now();
        let mut resumed = Process::start("--resume", &data, arguments.plans)?;
        resumed.wait_for("done")?;
        Ok(Recovered {
            plans: arguments.plans,
            recover_ms: ms(started.elapsed()),
        })
    };
    probed("recover", &place.0, output, measure, |result| {
        format!(
            "recovered      {} half-finished plans ended {} ms after the new process was started",
            result.plans, result.recover_ms
        )
    })
}

/// This program again.
struct Process(Child);

impl Process {
    fn start(what: &str, data: &Path, plans: usize) -> Result<Self, Failure> {
        let program = std::env::current_exe();
        let child = program.and_then(|program| {
            Command::new(program)
                .args(["bench", "recover", "--plans", &plans.to_string(), what])
                .arg(data)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
        });
        let failed = |error| Failure::host("io", format!("the other process: {error}"));
        Ok(Self(child.map_err(failed)?))
    }

    fn wait_for(&mut self, word: &str) -> Result<(), Failure> {
        let stdout = self.0.stdout.take();
        let lines = stdout
            .into_iter()
            .flat_map(|out| BufReader::new(out).lines());
        if lines.map_while(Result::ok).any(|line| line == word) {
            return Ok(());
        }
        let says = format!("the other process ended before it was {word}");
        Err(Failure::host("bench", says))
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Brings all plans half-way, says so, and waits to be killed.
fn prepare(data: &Path, count: usize) -> Result<u8, Failure> {
    runtime()?.block_on(async {
        let (stuck, mut stands) = mpsc::unbounded_channel();
        let agent = move |task: Task| hang_half_way(task, stuck.clone());
        let domain = plans::builder(data).agent("agent:*", agent).open().await?;
        for number in 0..count {
            domain
                .submit_plan(&plans::chain(&name(number), STEPS))
                .await??;
        }
        for _ in 0..count {
            stands.recv().await;
        }
        // The ack of the last one is on its way.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        say("ready")?;
        std::future::pending::<()>().await;
        Ok(exit::SUCCESS)
    })
}

async fn hang_half_way(task: Task, stuck: UnboundedSender<()>) -> Report {
    if task.envelope.step_id == Some(format!("s{DONE}")) {
        let _ = stuck.send(());
        std::future::pending::<()>().await;
    }
    Report::completed("")
}

/// Opens what was left and waits for every plan's end.
fn resume(data: &Path, count: usize) -> Result<u8, Failure> {
    runtime()?.block_on(async {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let seen = Arc::new(AtomicUsize::new(0));
        let stream = EventStream::default();
        stream.listen(Arc::new(move |event: &Emitted| {
            if event.data["type"] == "coordination.terminal"
                && seen.fetch_add(1, Ordering::Relaxed) + 1 == count
            {
                let _ = ended.send(());
            }
        }));
        let nothing = |_: Task| async { Report::completed("") };
        let domain = plans::builder(data)
            .agent("agent:*", nothing)
            .event_stream(stream)
            .open()
            .await?;
        ends.recv().await;
        say("done")?;
        domain.close().await;
        Ok(exit::SUCCESS)
    })
}

fn name(number: usize) -> String {
    format!("w3-{number}")
}

fn say(word: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    let said = writeln!(stdout, "{word}").and_then(|()| stdout.flush());
    said.map_err(|error| Failure::host("io", format!("stdout: {error}")))
}
