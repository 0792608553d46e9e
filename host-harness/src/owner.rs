//! Acting as the owner of a plan: submit it or take it up again, read its reports, and wait for its end.
//!
//! Does not decide anything about the plan; whoever wants to react to failures reads [`Domain::reports`] instead.

use crate::domain::Domain;
use crate::error::{HostError, Result};
use qm2_core::call::{Answer, Call};
use qm2_core::envelope::{Envelope, Intent, Priority, Trace};
use qm2_core::message::{Caller, HumanVerdict};
use qm2_core::plan::Plan;
use qm2_core::receipt::{Head, PlanReceipt, Receipt, Rejection};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a coordination ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Its id.
    pub coordination_id: String,
    /// success, partial, failed or escalated.
    pub terminal: String,
    /// Why, unless it is a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How its steps ended.
    pub counts: Counts,
    /// The last record of the ledger when everything of it was settled.
    pub head: Head,
}

/// Steps by the way they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Done.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Ended by a deadline.
    pub timed_out: u64,
    /// Ended by a cancel.
    pub cancelled: u64,
    /// Never run.
    pub skipped: u64,
}

/// Longest text of a plan that goes to the component without being read here, in bytes.
const HEADED_BYTES_MAX: usize = 1024 * 1024;

/// What is read of a plan before the component reads it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Heading {
    owner_session: String,
    coordination_id: String,
}

impl Domain {
    /// Submits a plan as its owner. The same plan again answers its present state and starts nothing.
    ///
    /// # Errors
    /// [`HostError::InvalidPlan`] with all errors; those of [`Domain::call`].
    pub async fn submit_plan(&self, plan: &str) -> Result<Result<PlanReceipt, Rejection>> {
        let Heading { owner_session, .. } = self.heading(plan)?;
        self.submit_as(&owner_session, plan).await
    }

    /// Submits a plan if it is new, else takes it up where it was left, and waits for its end. Reads and acknowledges all
    /// reports of the plan as its owner, and waits until nothing of it is at work here.
    ///
    /// # Errors
    /// [`HostError::InvalidPlan`] with all errors, [`HostError::Rejected`] if the plan is refused, [`HostError::Closed`] if
    /// the domain is closed meanwhile: then the plan can be taken up again.
    pub async fn run(&self, plan: &str) -> Result<Ended> {
        let Heading {
            owner_session: owner,
            coordination_id: id,
        } = self.heading(plan)?;
        let (owner, id) = (&*owner, &*id);
        // Before the plan is submitted, so that no report is missed.
        let awaited = self.0.delivery.await_end(id);
        let mut reports = self.0.delivery.reports(owner, Some(id));
        let receipt = self.submit_as(owner, plan).await??;
        let mut is_final = receipt.terminal.is_some();
        while !is_final {
            let Some(report) = reports.recv().await else {
                // Closed, or read-only: the same plan again is told which.
                self.submit_as(owner, plan).await??;
                return Err(HostError::Closed);
            };
            // The report without a step is that of the end; it is acknowledged with all others below.
            is_final = report.envelope.step_id.is_none();
            if !is_final {
                self.acknowledge(owner, vec![report.key.clone()]).await?;
            }
        }
        self.idle(id).await;
        if receipt.state != "closed" {
            // Of a plan that began here all reports were handed out here; others may have been given up before.
            let keys = match receipt.replayed {
                false => self.0.delivery.open_reports(id),
                true => self.open_reports(id).await?,
            };
            self.acknowledge(owner, keys).await?;
        }
        match awaited.line() {
            Some(line) => self.ended_as(id, &[line]).await,
            None => self.ended(id).await,
        }
    }

    /// Cancels a coordination, or one step of it, as this caller. Agents are told at once and have the plan's grace to end.
    ///
    /// # Errors
    /// [`HostError::Rejected`] if the caller may not, or there is nothing of that name; those of [`Domain::call`].
    pub async fn cancel(
        &self,
        caller: Caller,
        coordination_id: &str,
        step_id: Option<&str>,
        reason: Option<String>,
    ) -> Result<Receipt> {
        let envelope = cancel_envelope(&caller, coordination_id, step_id, reason);
        let envelopes = vec![envelope];
        match self
            .call(Call::Submit {
                caller,
                now_ms: 0,
                envelopes,
            })
            .await?
        {
            Answer::Submit(mut receipts) => match receipts.pop() {
                Some(receipt) => Ok(receipt?),
                None => Err(unexpected()),
            },
            _ => Err(unexpected()),
        }
    }

    /// Gives a person's answer to a question. The actor's role is this host's word; the digest is the one that was shown
    /// with the question, which another process can read as `escalations` of [`Call::Describe`].
    ///
    /// # Errors
    /// [`HostError::Rejected`] if the answer does not count, such as `not-eligible` or `stale-question`; those of
    /// [`Domain::call`].
    pub async fn answer(
        &self,
        actor: Caller,
        escalation_id: &str,
        digest: &str,
        verdict: HumanVerdict,
        text: Option<String>,
    ) -> Result<Receipt> {
        let call = Call::Answer {
            actor,
            now_ms: 0,
            escalation_id: escalation_id.to_owned(),
            digest: digest.to_owned(),
            verdict,
            text,
        };
        match self.call(call).await? {
            Answer::Answer(receipt) => Ok(receipt?),
            _ => Err(unexpected()),
        }
    }

    /// How a coordination that has ended did so.
    ///
    /// # Errors
    /// [`HostError::Data`] if it has not ended, or its last record is not readable.
    pub async fn ended(&self, coordination_id: &str) -> Result<Ended> {
        let id = coordination_id.to_owned();
        let lines = self
            .with_store(move |store| store.coordination_lines(&id))
            .await?;
        self.ended_as(coordination_id, &lines).await
    }

    /// What lines of a coordination say about its end, and the head.
    async fn ended_as(&self, coordination_id: &str, lines: &[String]) -> Result<Ended> {
        let Answer::Head(head) = self.call(Call::Head).await? else {
            return Err(unexpected());
        };
        let data = lines.iter().rev().find_map(|line| {
            let record: Value = serde_json::from_str(line).ok()?;
            (record["type"] == "coordination.terminal").then(|| record["data"].clone())
        });
        let Some(data) = data else {
            return Err(HostError::Data {
                path: self.directory().to_path_buf(),
                message: format!("coordination {coordination_id} has not ended"),
            });
        };
        Ok(Ended {
            coordination_id: coordination_id.to_owned(),
            terminal: data["terminal"].as_str().unwrap_or_default().to_owned(),
            reason: data["reason"].as_str().map(str::to_owned),
            counts: serde_json::from_value(data["counts"].clone()).unwrap_or_default(),
            head,
        })
    }

    /// Whose a plan is and what it is called. The rest is the component's to read; but what has no heading, or is so long that
    /// it had better not get there in vain, is told here what is wrong with it.
    fn heading(&self, plan: &str) -> Result<Heading> {
        if plan.len() <= HEADED_BYTES_MAX
            && let Ok(heading) = serde_json::from_str(plan)
        {
            return Ok(heading);
        }
        let plan = Plan::parse(plan, self.config()).map_err(HostError::InvalidPlan)?;
        Ok(Heading {
            owner_session: plan.owner_session,
            coordination_id: plan.coordination_id,
        })
    }

    async fn submit_as(&self, owner: &str, plan: &str) -> Result<Result<PlanReceipt, Rejection>> {
        let caller = Caller {
            session: owner.to_owned(),
            role: None,
        };
        let plan = plan.to_owned();
        match self
            .call(Call::SubmitPlan {
                caller,
                now_ms: 0,
                plan,
            })
            .await?
        {
            Answer::SubmitPlan(Err(rejection)) if !rejection.problems.is_empty() => {
                Err(HostError::InvalidPlan(rejection.problems))
            }
            Answer::SubmitPlan(receipt) => Ok(receipt),
            _ => Err(unexpected()),
        }
    }

    /// Reports of a coordination that are not acknowledged, those given up included.
    async fn open_reports(&self, coordination_id: &str) -> Result<Vec<String>> {
        let id = coordination_id.to_owned();
        let Answer::Describe(json) = self.call(Call::Describe { id }).await? else {
            return Err(unexpected());
        };
        let described: Value = serde_json::from_str(&json).unwrap_or(Value::Null);
        let reports = described["reports"].as_array();
        let keys = reports
            .into_iter()
            .flatten()
            .filter_map(|report| report["key"].as_str());
        Ok(keys.map(str::to_owned).collect())
    }

    /// A report that was acknowledged before is fine.
    async fn acknowledge(&self, owner: &str, keys: Vec<String>) -> Result<()> {
        let batch_max = usize::try_from(self.config().limits.batch).unwrap_or(usize::MAX);
        for keys in keys.chunks(batch_max.max(1)) {
            let caller = Caller {
                session: owner.to_owned(),
                role: None,
            };
            let keys = keys.to_vec();
            let call = Call::Acknowledge {
                caller,
                now_ms: 0,
                keys,
            };
            while let Err(e) = self.call(call.clone()).await {
                if !e.retryable() {
                    return Err(e);
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

/// The envelope that cancels a coordination, or one step of it.
#[must_use]
pub fn cancel_envelope(
    caller: &Caller,
    coordination_id: &str,
    step_id: Option<&str>,
    reason: Option<String>,
) -> Envelope {
    Envelope {
        coordination_id: coordination_id.to_owned(),
        step_id: step_id.map(str::to_owned),
        parent_step_id: None,
        attempt: None,
        source_session: caller.session.clone(),
        target_session: caller.session.clone(),
        intent: Intent::Cancel,
        priority: Priority::default(),
        delivery_mode: qm2_core::envelope::DeliveryMode::default(),
        deadline_ms: None,
        created_at_ms: 0,
        trace: Trace::default(),
        content_type: None,
        payload: None,
        payload_ref: None,
        extensions: Vec::new(),
        outcome: None,
        reason,
        question: None,
        tokens: Vec::new(),
    }
}

fn unexpected() -> HostError {
    HostError::Component("it gave the answer of another call; please report it".into())
}
