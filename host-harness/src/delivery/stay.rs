//! One attempt at an agent that stays: dispatched over its stdin, heard on its stdout, to its report or its death.
//!
//! The attempt is acknowledged before the agent hears of it: after a crash of the host one without an ack was not begun.
//! Does not know how processes are kept; `stay` does.

use super::Delivery;
use super::attempt::{Admitted, until};
use crate::agent::Task;
use crate::error::HostError;
use crate::process::NotSpawned;
use crate::report::{Report, reply};
use crate::stay::{Answer, FromAgent, LINE_BYTES_MAX, Line, Staying, StayingAgent, ToAgent};
use crate::submit::Side;
use qm2_core::call::{Answer as Said, Call};
use qm2_core::claim::ClaimRequest;
use qm2_core::envelope::{Envelope, Intent};
use qm2_core::message::{Caller, Message, NoticeKind};
use qm2_core::receipt::Rejection;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// How long a cancelled agent may take to report before its process is ended.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// Wait before a process is started again for which the host had no disk, process or open file.
const START_AGAIN: Duration = Duration::from_secs(1);

/// How an attempt ended, as its agent showed.
enum Came {
    Reported(Report),
    /// The process is gone, and nobody knows what it had done.
    Died,
    /// It did not stop in time, or babbles: it is ended.
    Ended(Report),
}

/// An answer to a request of the agent that took its time.
type Late = (u64, Answer);

impl Delivery {
    pub(super) async fn run_staying(
        self: &Arc<Self>,
        message: Message,
        agent: &Arc<StayingAgent>,
        cancel: watch::Receiver<bool>,
    ) {
        let stopped = || async {
            let says = "it was cancelled before an agent was free for it";
            let report = Report::retryable("cancelled", says);
            self.report(&message.envelope, report, Side::default())
                .await;
        };
        let slot = tokio::select! {
            slot = agent.slot() => slot,
            () = until(cancel.clone()) => return stopped().await,
        };
        let Some(_slot) = slot else { return };
        let mut staying = match self.staying(agent, &message, cancel.clone()).await {
            Ok(Some(staying)) => staying,
            Ok(None) => return stopped().await,
            Err(report) => {
                self.report(&message.envelope, report, Side::default())
                    .await;
                return;
            }
        };
        if self.ack(&message.envelope, Side::default()).await != Admitted::Yes {
            agent.put_back(staying);
            return;
        }
        let came = self.converse(&message, &mut staying, cancel).await;
        match came {
            Came::Reported(report) => {
                agent.put_back(staying);
                self.report(&message.envelope, report, Side::default())
                    .await;
            }
            Came::Ended(report) => {
                // Before the report: what comes after it must find nobody at work.
                staying.end().await;
                self.report(&message.envelope, report, Side::default())
                    .await;
            }
            Came::Died => {
                staying.end().await;
                if !self.lock().closing {
                    tracing::warn!("the agent of {} died", message.key);
                    self.submitter.notice(&message.key, NoticeKind::HostLost);
                }
            }
        }
    }

    /// A process that waits for work, or a new one. Where the host has nothing to start it with, again and again.
    async fn staying(
        &self,
        agent: &StayingAgent,
        message: &Message,
        cancel: watch::Receiver<bool>,
    ) -> Result<Option<Staying>, Report> {
        loop {
            if let Some(staying) = agent.take().await {
                return Ok(Some(staying));
            }
            let says = |e| {
                let command = &agent.command;
                let folder = command.folder.display();
                format!("could not start {:?} in {folder}: {e}", command.command)
            };
            match agent.start(&self.context) {
                Ok(staying) => return Ok(Some(staying)),
                Err(NotSpawned::Ever(e)) => return Err(Report::permanent("spawn-failed", says(e))),
                Err(NotSpawned::Yet(e)) => {
                    tracing::error!("{}: {}; trying again", message.key, says(e));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(START_AGAIN) => {}
                () = until(cancel.clone()) => return Ok(None),
            }
        }
    }

    /// From the dispatch to the end.
    async fn converse(
        self: &Arc<Self>,
        message: &Message,
        staying: &mut Staying,
        cancel: watch::Receiver<bool>,
    ) -> Came {
        let (key, execute) = (message.key.as_str(), &message.envelope);
        let task = Task {
            key: key.to_owned(),
            delivery: message.delivery,
            envelope: execute.clone(),
            cancelled: cancel.clone(),
            answers: self.answers_to(key),
            submitter: self.submitter.clone(),
        };
        let dispatch = ToAgent::Dispatch {
            key,
            delivery: message.delivery,
            envelope: execute,
        };
        if !staying.say(&dispatch).await {
            return Came::Died;
        }
        let (late, mut answers) = mpsc::unbounded_channel::<Late>();
        let cancelled = until(cancel);
        tokio::pin!(cancelled);
        let mut end_at: Option<Instant> = None;
        loop {
            let said = tokio::select! {
                line = staying.next() => match line {
                    None => return Came::Died,
                    Some(Line::TooLong) => {
                        let says = format!("it wrote a line of more than {LINE_BYTES_MAX} bytes");
                        return Came::Ended(Report::bad(says));
                    }
                    Some(Line::Strange(says)) => Err(format!("not a line of an agent: {says}")),
                    Some(Line::Said(said)) if said.key() != key => {
                        Err(format!("{} is not the attempt in hand, {key}", said.key()))
                    }
                    Some(Line::Said(said)) => Ok(said),
                },
                Some((id, answer)) = answers.recv() => {
                    staying.say(&ToAgent::Reply { id, answer }).await;
                    continue;
                }
                () = &mut cancelled, if end_at.is_none() => {
                    end_at = Some(Instant::now() + CANCEL_GRACE);
                    staying.say(&ToAgent::Cancel { key }).await;
                    continue;
                }
                () = sleep_until(end_at.unwrap_or_else(Instant::now)), if end_at.is_some() => {
                    let says = "the agent was ended after a cancel";
                    return Came::Ended(Report::retryable("cancelled", says));
                }
            };
            let refused = match said {
                Ok(FromAgent::Report { report, .. }) => return Came::Reported(report),
                Ok(said) => self.heard(said, execute, &task, &late).await,
                Err(message) => Some(message),
            };
            if let Some(message) = refused {
                tracing::warn!("{key}: {message}");
                // Whether it hears that shows with its next line.
                staying.say(&ToAgent::Refused { message }).await;
            }
        }
    }

    /// Anything but a report. Requests are answered later, so that a question to people keeps nobody from working on;
    /// what is refused otherwise is said at once.
    async fn heard(
        self: &Arc<Self>,
        said: FromAgent,
        execute: &Envelope,
        task: &Task,
        late: &mpsc::UnboundedSender<Late>,
    ) -> Option<String> {
        let Some(id) = said.id() else {
            let settled = match said {
                FromAgent::Progress {
                    number, payload, ..
                } => task.progress(number, payload).await,
                _ => {
                    let ack = self.submitter.submit(reply(execute, Intent::Ack)).await;
                    ack.and_then(|receipt| receipt.map_err(HostError::from))
                }
            };
            return settled.err().map(|e| e.to_string());
        };
        let (this, task, late) = (self.clone(), task.clone(), late.clone());
        let execute = execute.clone();
        // Ends with its answer; nobody hears one that comes after the attempt.
        tokio::spawn(async move {
            let answer = this.answer_request(said, &execute, &task).await;
            let _ = late.send((id, answer));
        });
        None
    }

    async fn answer_request(&self, said: FromAgent, execute: &Envelope, task: &Task) -> Answer {
        let caller = Caller {
            session: execute.target_session.clone(),
            role: None,
        };
        let coordination_id = execute.coordination_id.clone();
        let step_id = execute.step_id.clone().unwrap_or_default();
        let (now_ms, attempt) = (0, execute.attempt.unwrap_or_default());
        let call = match said {
            FromAgent::Ask { number, text, .. } => {
                return answer(task.ask(number, text).await.map(Ok));
            }
            FromAgent::Claim {
                resource,
                mode,
                lease_ms,
                base_version,
                regions,
                ..
            } => Call::Claim {
                caller,
                now_ms,
                request: ClaimRequest {
                    coordination_id,
                    step_id,
                    attempt,
                    resource,
                    mode,
                    lease_ms,
                    base_version,
                    regions,
                },
            },
            FromAgent::Renew { tokens, .. } => Call::Renew {
                caller,
                now_ms,
                coordination_id,
                step_id,
                attempt,
                tokens,
            },
            FromAgent::Release { tokens, .. } => Call::Release {
                caller,
                now_ms,
                coordination_id,
                step_id,
                attempt,
                tokens,
            },
            FromAgent::Ack { .. } | FromAgent::Progress { .. } | FromAgent::Report { .. } => {
                return Answer::Ok(Value::Null);
            }
        };
        match self.submitter.call(call, Side::default()).await {
            Ok(Said::Claim(granted)) => answer(Ok(granted)),
            Ok(Said::Renew(renewed)) => answer(Ok(renewed)),
            Ok(Said::Release(released)) => answer(Ok(released)),
            Ok(_) => answer::<()>(Err(HostError::Component(
                "the answer of another call".into(),
            ))),
            Err(e) => answer::<()>(Err(e)),
        }
    }
}

/// What an agent is told of a request: what it asked for, or a word to branch on and a sentence.
fn answer<T: Serialize>(answered: Result<Result<T, Rejection>, HostError>) -> Answer {
    let rejection = match answered {
        Ok(Ok(value)) => return Answer::Ok(json!(value)),
        Ok(Err(rejection)) => rejection,
        Err(HostError::Rejected(rejection)) => *rejection,
        Err(e) => {
            let (code, message) = ("host".to_owned(), e.to_string());
            return Answer::Error { code, message };
        }
    };
    Answer::Error {
        code: rejection.code.name().to_owned(),
        message: rejection.to_string(),
    }
}
