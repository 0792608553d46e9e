//! The workload of the rates: the same calls for every host, as files, made by the core itself.
//!
//! Plans of steps that wait for nothing; each step is acknowledged, tells of its progress, and is reported as completed. So of
//! every three envelopes one ends a step, and its owner is told. Measures nothing.

use anyhow::{Context, Result, bail};
use qm2_core::call::{Answer, Call};
use qm2_core::config::Config;
use qm2_core::machine::Machine;
use qm2_core::message::Caller;
use qm2_core::staged::Staged;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Sizes of a batch for which there is a file.
pub const BATCHES: [usize; 2] = [1, 100];
const PLANS: usize = 10;
const STEPS: usize = 100;
const OWNER: &str = "user:owner";
const AGENT: &str = "agent:worker";

/// The calls, and where they must lead.
pub struct Workload {
    pub calls: Vec<Call>,
    pub state_digest: String,
}

/// The last line of a file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Last {
    state_digest: String,
}

impl Workload {
    /// Makes the calls with so many envelopes in one, and sees what they lead to.
    ///
    /// # Errors
    /// The core refuses one of them.
    pub fn new(batch: usize) -> Result<Self> {
        let mut config = Config::new("rate");
        config.phase1.enabled = true;
        (config.max_in_flight, config.session_in_flight) = (1_024, 1_024);
        let config = config.to_json();
        let mut calls = vec![Call::Configure { config }];
        calls.extend((0..PLANS).map(|plan| Call::SubmitPlan {
            caller: caller(OWNER),
            now_ms: 0,
            plan: plan_text(plan),
        }));
        let outcomes = [
            json!({"intent": "ack"}),
            json!({"intent": "report", "outcome": {"progress": {"number": 1}}, "payload": "half of it is done"}),
            json!({"intent": "report", "outcome": "completed", "payload": "all of it is done"}),
        ];
        let mut envelopes = Vec::new();
        for plan in 0..PLANS {
            for outcome in &outcomes {
                for step in 0..STEPS {
                    let mut envelope = json!({
                        "coordinationId": format!("plan-{plan}"), "stepId": format!("step-{step}"), "attempt": 1,
                        "sourceSession": AGENT, "targetSession": OWNER, "createdAtMs": 1,
                        "trace": {"runId": format!("run-{plan}"), "spanId": format!("span-{step}")},
                    });
                    for (name, value) in outcome.as_object().into_iter().flatten() {
                        envelope[name] = value.clone();
                    }
                    envelopes.push(serde_json::from_value(envelope)?);
                }
            }
        }
        calls.extend(envelopes.chunks(batch).map(|some| Call::Submit {
            caller: caller(AGENT),
            now_ms: 0,
            envelopes: some.to_vec(),
        }));
        let (mut machine, mut staged) = (Machine::default(), Staged::default());
        for (at_ms, call) in (1..).zip(&mut calls) {
            call.set_now(at_ms);
            let answer = machine.call(&mut staged, call);
            let is_taken = match &answer {
                Ok(Answer::Submit(receipts)) => receipts.iter().all(Result::is_ok),
                Ok(Answer::SubmitPlan(receipt)) => receipt.is_ok(),
                other => other.is_ok(),
            };
            if !is_taken {
                bail!("the core refuses a call of the workload: {answer:?}");
            }
            staged.take();
        }
        let state_digest = machine.state_digest()?;
        Ok(Self {
            calls,
            state_digest,
        })
    }

    /// Writes a call a line, and what they lead to.
    fn text(&self) -> Result<String> {
        let mut text = String::new();
        for call in &self.calls {
            text += &(serde_json::to_string(call)? + "\n");
        }
        let last = Last {
            state_digest: self.state_digest.clone(),
        };
        Ok(text + &serde_json::to_string(&last)? + "\n")
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// It is not there, or not of the form.
    pub fn read(folder: &Path, batch: usize) -> Result<Self> {
        let path = path(folder, batch);
        let named = || path.display().to_string();
        let text = fs::read_to_string(&path).with_context(named)?;
        let lines: Vec<&str> = text.lines().collect();
        let (last, calls) = lines.split_last().with_context(named)?;
        let calls: serde_json::Result<Vec<Call>> = calls
            .iter()
            .map(|line| serde_json::from_str(line))
            .collect();
        let last: Last = serde_json::from_str(last).with_context(named)?;
        Ok(Self {
            calls: calls.with_context(named)?,
            state_digest: last.state_digest,
        })
    }
}

/// Writes the file of every batch.
///
/// # Errors
/// The folder cannot be written.
pub fn write(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for batch in BATCHES {
        let text = Workload::new(batch)?.text()?;
        fs::write(path(folder, batch), text)?;
    }
    Ok(())
}

fn path(folder: &Path, batch: usize) -> PathBuf {
    folder.join(format!("batch-{batch}.jsonl"))
}

fn caller(session: &str) -> Caller {
    Caller {
        session: session.to_owned(),
        role: None,
    }
}

fn plan_text(number: usize) -> String {
    let step = |step: usize| {
        json!({
            "stepId": format!("step-{step}"), "targetSession": AGENT, "timeoutMs": 60_000,
            "payload": format!("do part {step} of it"),
        })
    };
    json!({
        "coordinationId": format!("plan-{number}"), "objective": "See how fast envelopes go in.",
        "ownerSession": OWNER, "reports": "all", "steps": (0..STEPS).map(step).collect::<Vec<_>>(),
    })
    .to_string()
}
