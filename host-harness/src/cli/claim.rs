//! `qm2 claim`, `renew` and `release`: more resources for a running step, from its own process.
//!
//! The process that runs the data directory is asked, over its socket, as the session of the step. A claim never queues; with
//! `--wait` it is tried again until it is granted. Does not decide anything.

use super::agent_env::AgentEnv;
use super::failure::Failure;
use super::guard::{region, resource};
use super::output::Output;
use super::run::{interrupts, runtime};
use super::{command, exit};
use clap::ValueEnum;
use qm2_core::claim::{ClaimRequest, Mode, Region};
use qm2_core::receipt::{GrantReceipt, Rejection, RejectionCode, Remedy};
use qm2_host::HostError;
use qm2_host::engine::{Answer, Call};
use qm2_host::socket::{self, Client};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Wait before a process that asked to be asked again is, and between the first two tries of a claim.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// Longest wait between two tries of a claim: many that wait must not keep the domain busy.
const TRY_EVERY_MAX: Duration = Duration::from_millis(100);

/// Help of `claim` after the arguments.
pub const CLAIM_HELP: &str = "\
Examples, in the script of a step:
  token=$(qm2 claim file:notes.md --wait 60) || exit 75
  qm2 guard file:notes.md --token \"$token\" -- sh write.sh
  qm2 release file:notes.md

For the process of a running step, from its QM2_* variables. Claiming again what the step holds prints the same token. The
lease ends by itself; renew, or progress of the step, begins it anew. A claim takes no place in a queue: where others wait
all the time, declare it in the plan.

Exit codes: 0 granted, 1 refused (who holds it, and when to try again), 2 usage or not the process of a step, 6 host error.";

/// Help of `renew` after the arguments.
pub const RENEW_HELP: &str = "\
Example, in the script of a step:
  qm2 renew file:notes.md

Without a resource all leases of the step. Exit codes: 0 renewed, 1 refused, 2 usage or not the process of a step, 6.";

/// Help of `release` after the arguments.
pub const RELEASE_HELP: &str = "\
Example, in the script of a step:
  qm2 release file:notes.md

What a step holds is given back at its end by itself. Exit codes: 0 given back, 1 refused, 2 usage or not the process of a
step, 6.";

/// Arguments of `claim`.
#[derive(clap::Args)]
pub struct ClaimArguments {
    /// The resource, such as file:src/lib.rs.
    resource: String,
    /// Alone, or beside other readers.
    #[arg(long, value_enum, default_value_t = ClaimMode::Exclusive)]
    mode: ClaimMode,
    /// How long it is held without progress or renewal, in milliseconds.
    #[arg(long, value_name = "N", default_value_t = 30_000)]
    lease_ms: u64,
    /// What the work is based on, such as a commit.
    #[arg(long, value_name = "VERSION")]
    base_version: Option<String>,
    /// Which part is touched, from START up to, but without, END; may be given again. All of it if absent.
    #[arg(long, value_name = "START..END", value_parser = region)]
    region: Vec<Region>,
    /// Tries again for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

/// How a resource is claimed.
#[derive(Clone, Copy, ValueEnum)]
enum ClaimMode {
    Shared,
    Exclusive,
}

/// Arguments of `renew`.
#[derive(clap::Args)]
pub struct RenewArguments {
    /// Resources that the step holds; all of them if none is named.
    resources: Vec<String>,
}

/// Arguments of `release`.
#[derive(clap::Args)]
pub struct ReleaseArguments {
    /// Resources that the step holds.
    #[arg(required_unless_present = "all")]
    resources: Vec<String>,
    /// Everything that the step holds.
    #[arg(long, conflicts_with = "resources")]
    all: bool,
}

/// Claims a resource and prints the token.
pub fn claim(directory: &Path, arguments: &ClaimArguments, output: &Output) -> Result<u8, Failure> {
    let step = AgentEnv::read("claim")?;
    let call = Call::Claim {
        caller: step.caller(),
        now_ms: 0,
        request: ClaimRequest {
            coordination_id: step.coordination_id.clone(),
            step_id: step.step_id.clone(),
            attempt: step.attempt,
            resource: resource(&arguments.resource)?,
            mode: match arguments.mode {
                ClaimMode::Shared => Mode::Shared,
                ClaimMode::Exclusive => Mode::Exclusive,
            },
            lease_ms: arguments.lease_ms,
            base_version: arguments.base_version.clone(),
            regions: arguments.region.clone(),
        },
    };
    let until = Instant::now().checked_add(Duration::from_secs(arguments.wait));
    let grant = with_owner(directory, async |client| {
        let mut wait = TRY_EVERY;
        loop {
            let granted = match ask(client, &call).await? {
                Answer::Claim(granted) => granted,
                _ => return Err(unexpected()),
            };
            match granted {
                Ok(grant) => return Ok(grant),
                Err(rejection) if rejection.code != RejectionCode::ClaimRefused => {
                    return Err(rejection.into());
                }
                Err(rejection) if until.is_some_and(|until| Instant::now() >= until) => {
                    return Err(refused(rejection));
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait = (wait * 3 / 2).min(TRY_EVERY_MAX);
        }
    })?;
    output.result(&grant, || grant.token.to_string());
    Ok(exit::SUCCESS)
}

/// Begins leases anew.
pub fn renew(directory: &Path, arguments: &RenewArguments, output: &Output) -> Result<u8, Failure> {
    let step = AgentEnv::read("renew")?;
    let grants = with_owner(directory, async |client| {
        let tokens = match arguments.resources.as_slice() {
            [] => Vec::new(),
            resources => tokens(client, &step, Some(resources)).await?,
        };
        let call = Call::Renew {
            caller: step.caller(),
            now_ms: 0,
            coordination_id: step.coordination_id.clone(),
            step_id: step.step_id.clone(),
            attempt: step.attempt,
            tokens: tokens.iter().map(|grant| grant.token).collect(),
        };
        match ask(client, &call).await? {
            Answer::Renew(renewed) => Ok(renewed?),
            _ => Err(unexpected()),
        }
    })?;
    if output.is_json() {
        output.result(&json!({"renewed": grants}), String::new);
    }
    Ok(exit::SUCCESS)
}

/// Gives resources back.
pub fn release(
    directory: &Path,
    arguments: &ReleaseArguments,
    output: &Output,
) -> Result<u8, Failure> {
    let step = AgentEnv::read("release")?;
    let released = with_owner(directory, async |client| {
        let resources = (!arguments.all).then_some(arguments.resources.as_slice());
        let grants = tokens(client, &step, resources).await?;
        if grants.is_empty() {
            return Ok(grants);
        }
        let call = Call::Release {
            caller: step.caller(),
            now_ms: 0,
            coordination_id: step.coordination_id.clone(),
            step_id: step.step_id.clone(),
            attempt: step.attempt,
            tokens: grants.iter().map(|grant| grant.token).collect(),
        };
        match ask(client, &call).await? {
            Answer::Release(released) => released?,
            _ => return Err(unexpected()),
        };
        Ok(grants)
    })?;
    // Nothing on stdout otherwise: that of a step is its result.
    if output.is_json() {
        let released = released
            .iter()
            .map(|grant| json!({"resource": grant.resource, "token": grant.token}));
        output.result(
            &json!({"released": released.collect::<Vec<_>>()}),
            String::new,
        );
    }
    Ok(exit::SUCCESS)
}

/// Connects to the process that runs the data directory, and works with it until it is done or a signal comes.
fn with_owner<T>(
    directory: &Path,
    work: impl AsyncFnOnce(&mut Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    runtime()?.block_on(async {
        let mut interrupts = interrupts()?;
        let Some(mut client) = socket::connect(directory).await else {
            let message = format!(
                "no process runs the data directory {}, so no step of it runs; `{} run PLAN` is one",
                directory.display(),
                command(directory)
            );
            return Err(Failure::new(exit::FAILED, "not-running", message));
        };
        tokio::select! {
            done = work(&mut client) => done,
            _ = interrupts.recv() => Err(Failure::new(exit::INTERRUPTED, "interrupted", "interrupted")),
        }
    })
}

/// A call, again and again while the store is away.
async fn ask(client: &mut Client, call: &Call) -> Result<Answer, Failure> {
    loop {
        match client.call(call).await {
            Err(error) if error.retryable() => tokio::time::sleep(TRY_EVERY).await,
            Err(HostError::Closed) => {
                let message =
                    "the process that ran the data directory is gone, and the step with it";
                return Err(Failure::new(exit::FAILED, "not-running", message));
            }
            answer => return Ok(answer?),
        }
    }
}

/// The grants that the step has for these resources, or all of them. Whether they are this attempt's is tested when they
/// are used.
async fn tokens(
    client: &mut Client,
    step: &AgentEnv,
    resources: Option<&[String]>,
) -> Result<Vec<GrantReceipt>, Failure> {
    let call = Call::Describe {
        id: step.coordination_id.clone(),
    };
    let Answer::Describe(json) = ask(client, &call).await? else {
        return Err(unexpected());
    };
    let described: Value = serde_json::from_str(&json).unwrap_or_default();
    let steps = described["steps"].as_array().into_iter().flatten();
    let this = steps
        .into_iter()
        .find(|one| one["stepId"] == step.step_id.as_str());
    let grants = this
        .and_then(|one| one["grants"].as_array())
        .into_iter()
        .flatten();
    let held: Vec<GrantReceipt> = grants
        .filter_map(|grant| serde_json::from_value(grant.clone()).ok())
        .collect();
    let Some(resources) = resources else {
        return Ok(held);
    };
    let mut found = Vec::new();
    for name in resources {
        let name = resource(name)?;
        match held.iter().find(|grant| grant.resource == name) {
            Some(grant) => found.push(grant.clone()),
            None => {
                let message = format!("step {} does not hold {name}", step.step_id);
                return Err(Failure::new(exit::FAILED, "not-held", message));
            }
        }
    }
    Ok(found)
}

fn unexpected() -> Failure {
    Failure::host("host", "the answer of another call; please report it")
}

/// Who holds it, and when to try again.
fn refused(rejection: Rejection) -> Failure {
    let again = match rejection.next {
        Remedy::Retry { after_ms } => {
            format!("; try again in {after_ms} ms, or let --wait SECONDS try until it is granted")
        }
        _ => String::new(),
    };
    let mut failure = Failure::from(rejection);
    failure.message += &again;
    failure
}
