//! The command line: arguments in, one command run, an exit code out.
//!
//! Holds no rules of coordination: those are in the component. Each command has its own file.

mod agent_env;
mod bench;
mod cancel;
mod check;
mod claim;
mod component;
mod data;
mod escalate;
mod escalations;
mod events;
mod failure;
mod guard;
mod ledger;
mod output;
mod progress;
mod question;
mod queue;
mod run;
mod schema;
mod status;
mod table;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use failure::Failure;
use output::Output;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Exit codes, one for each thing that a script may want to tell apart.
pub mod exit {
    /// Done.
    pub const SUCCESS: u8 = 0;
    /// The plan failed, or the component refused.
    pub const FAILED: u8 = 1;
    /// Wrong arguments, plan, or agents file.
    pub const USAGE: u8 = 2;
    /// Part of the plan was done.
    pub const PARTIAL: u8 = 3;
    /// Escalated to a person, and nobody answered before the plan's deadline.
    pub const ESCALATED: u8 = 4;
    /// The ledger does not verify.
    pub const LEDGER_BROKEN: u8 = 5;
    /// Disk, component, lock, or another fault of the host.
    pub const HOST: u8 = 6;
    /// Stopped by a signal; the same command goes on from there.
    pub const INTERRUPTED: u8 = 130;
}

const HELP: &str = "\
Start here:
  qm2 check plan.json                 lists every error of a plan
  qm2 run plan.json                   runs it with the agents of qm2.toml beside it; again: resumes it
  qm2 status                          what is running, and what each step waits for (also while run runs)
  qm2 events --follow                 every record as it comes; --from SEQ goes on where it was
  qm2 cancel ID                       stops a plan from another terminal
  qm2 escalations list                what waits for a person; show ID says what it is about
  qm2 escalations approve ID --as ME  answers it; a run in another terminal goes on at once
  qm2 queue list                      what is on its way, and what could not be delivered
  qm2 ledger why 17                   what led to record 17
  qm2 ledger verify --head HASH       nothing was changed, and nothing cut off since you noted HASH
  qm2 schema plan > plan.schema.json  for editors

In the script of a step:
  token=$(qm2 claim file:a.txt)                          nobody else may write it now
  qm2 guard file:a.txt --token \"$token\" -- sh write.sh  runs it only while that holds

Exit codes:
  0  success                          4    escalated to a person who did not answer
  1  failed or refused                5    the ledger is broken
  2  usage or invalid input           6    host error (disk, lock, component)
  3  partial                          130  interrupted; run the same command again to resume

With --json stdout carries one JSON value (JSON lines for `ledger export` and `events`), an error as
{\"error\":{\"code\",\"message\"}}; everything else goes to stderr. RUST_LOG=qm2_host=debug tells more there.";

/// Coordinates agents: runs plans of steps, retries and resumes them, and keeps a ledger that says what caused what.
#[derive(Parser)]
#[command(name = "qm2", version, after_help = HELP, max_term_width = 110)]
struct Arguments {
    /// Folder that holds the ledger and everything else of one domain [default: .qm2; in the process of a step that of
    /// the step for guard, claim, renew, release and escalate].
    #[arg(long, global = true, value_name = "DIR", env = "QM2_DATA_DIR")]
    data: Option<PathBuf>,
    /// Writes one JSON value to stdout.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a plan to its end; goes on where an earlier run stopped.
    ///
    /// A plan that has ended is not started again: the same command prints the same result. Ctrl-C ends the running
    /// agents and exits with 130; the next run resumes.
    #[command(after_help = "\
Examples:
  qm2 run plan.json                    with the agents of qm2.toml beside the plan
  qm2 run plan.json --agents ci.toml   with other agents
  qm2 run plan.json --rerun            all of it again, under a new id (ID.rerun-1, …)
  qm2 --json run plan.json | jq -r .terminal

Exit codes: 0 success, 1 failed, 2 the plan or agents file is wrong, 3 partial, 4 escalated to a person who did
not answer, 5 ledger broken, 6 host error, 130 interrupted.")]
    Run(run::Arguments),
    /// Lists every error of a plan without recording anything.
    #[command(after_help = "\
Example:
  qm2 check plan.json

Exit codes: 0 no errors, 2 errors or not readable. A session without an agent in the qm2.toml beside the plan is
a warning.")]
    Check(check::Arguments),
    /// Shows the coordinations of the data directory; of one, its steps and what each waits for.
    #[command(after_help = "\
Examples:
  qm2 status
  qm2 status repository-health

Works while another process runs the data directory. Exit codes: 0, 2 no such coordination, 5, 6.")]
    Status(status::Arguments),
    /// Cancels a coordination and waits until nothing of it runs any more.
    #[command(after_help = "\
Example:
  qm2 cancel repository-health

Running steps get a cancel message and the plan's grace to end; cleanup steps still run. Works from another terminal
while `qm2 run` runs, and without it. Exit codes: 0 nothing runs any more, 2 no such coordination, 5, 6.")]
    Cancel(cancel::Arguments),
    /// Shows what waits for a person, and takes the person's answer.
    #[command(subcommand, after_help = escalations::HELP)]
    Escalations(escalations::Command),
    /// Asks a person for the running step that calls it, and prints the answer.
    #[command(after_help = escalate::HELP)]
    Escalate(escalate::Arguments),
    /// Prints records as they come, from any number on.
    #[command(after_help = events::HELP)]
    Events(events::Arguments),
    /// Shows what is on its way and what could not be delivered, and settles the latter.
    #[command(subcommand, after_help = queue::HELP)]
    Queue(queue::Command),
    /// Shows, exports, verifies and explains the ledger.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Asks whether a grant of a resource still holds; with a command, runs it only while it does.
    #[command(after_help = guard::HELP)]
    Guard(guard::Arguments),
    /// Claims a resource for the running step that calls it, and prints the fencing token.
    #[command(after_help = claim::CLAIM_HELP)]
    Claim(claim::ClaimArguments),
    /// Begins the leases of the running step that calls it anew.
    #[command(after_help = claim::RENEW_HELP)]
    Renew(claim::RenewArguments),
    /// Gives back what the running step that calls it has claimed.
    #[command(after_help = claim::RELEASE_HELP)]
    Release(claim::ReleaseArguments),
    /// Shows what the embedded component is.
    #[command(subcommand)]
    Component(component::Command),
    /// Measures how fast this host is on this disk.
    #[command(subcommand, after_help = bench::HELP)]
    Bench(bench::Command),
    /// Prints a JSON Schema for editors.
    #[command(after_help = "\
Examples:
  qm2 schema plan > plan.schema.json
  qm2 schema agents > agents.schema.json")]
    Schema(schema::Arguments),
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let output = Output::new(arguments.json);
    log();
    match dispatch(&arguments, &output) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let code = failure.exit;
            output.failure(&failure);
            ExitCode::from(code)
        }
    }
}

fn dispatch(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let given = arguments.data.as_deref();
    let data = given.unwrap_or(Path::new(agent_env::DEFAULT_DATA));
    let of_step = || agent_env::directory(given);
    match &arguments.command {
        Command::Run(run) => run::run(data, run, output),
        Command::Check(check) => check::run(check, output),
        Command::Status(status) => status::run(data, status, output),
        Command::Cancel(cancel) => cancel::run(data, cancel, output),
        Command::Escalations(command) => escalations::run(data, command, output),
        Command::Escalate(question) => escalate::run(&of_step(), question, output),
        Command::Events(events) => events::run(data, events, output),
        Command::Queue(command) => queue::run(data, command, output),
        Command::Ledger(command) => ledger::run(data, command, output),
        Command::Guard(guard) => guard::run(&of_step(), guard, output),
        Command::Claim(claim) => claim::claim(&of_step(), claim, output),
        Command::Renew(renew) => claim::renew(&of_step(), renew, output),
        Command::Release(release) => claim::release(&of_step(), release, output),
        Command::Component(command) => component::run(command, output),
        Command::Bench(command) => bench::run(command, output),
        Command::Schema(schema) => schema::run(schema, output),
    }
}

/// The command line up to the command, for a person to type again.
fn command(data: &std::path::Path) -> String {
    if data == std::path::Path::new(".qm2") {
        "qm2".to_owned()
    } else {
        format!("qm2 --data {}", data.display())
    }
}

/// Help and version as clap prints them; a usage error also as JSON where that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let is_answer = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let json = std::env::args_os()
        .skip(1)
        .take_while(|word| word != "--")
        .any(|word| word == "--json");
    if is_answer || !json {
        // Nothing is left to do where even this cannot be written.
        let _ = error.print();
    } else {
        let text = error.to_string();
        Output::new(true).failure(&Failure::usage(
            "usage",
            text.strip_prefix("error: ").unwrap_or(&text).trim_end(),
        ));
    }
    ExitCode::from(if is_answer {
        exit::SUCCESS
    } else {
        exit::USAGE
    })
}

/// Diagnostics of the host go to stderr; only warnings, unless `RUST_LOG` says otherwise.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
}
