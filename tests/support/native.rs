//! The core without a component around it, called through the same [`Call`]s.
//!
//! Its host keeps what it is handed, and refuses to append where a test says so.

use qm2_core::machine::Machine;
use qm2_core::message::{HookKind, Host, Message, Refused};
use qm2_core::receipt::CallError;
use qm2_host::engine::{Answer, Call, HookRequest, Staged};

/// A machine and its host.
#[derive(Default)]
pub struct Native {
    machine: Machine,
    host: Recorder,
}

#[derive(Default)]
struct Recorder {
    staged: Staged,
    refuses: bool,
}

impl Native {
    pub fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        let (machine, host) = (&mut self.machine, &mut self.host);
        Ok(match call {
            Call::Configure { config } => {
                machine.configure(host, config)?;
                Answer::Configure
            }
            Call::SubmitPlan {
                caller,
                now_ms,
                plan,
            } => Answer::SubmitPlan(machine.submit_plan(host, caller, *now_ms, plan)?),
            Call::Submit {
                caller,
                now_ms,
                envelopes,
            } => Answer::Submit(machine.submit(host, caller, *now_ms, envelopes)?),
            Call::Acknowledge {
                caller,
                now_ms,
                keys,
            } => Answer::Acknowledge(machine.acknowledge(host, caller, *now_ms, keys)?),
            Call::Advance { now_ms } => Answer::Advance(machine.advance(host, *now_ms)?),
            Call::NextDeadline => Answer::NextDeadline(machine.next_deadline()?),
            Call::Notice { now_ms, notices } => {
                Answer::Notice(machine.notice(host, *now_ms, notices)?)
            }
            Call::Verdict {
                now_ms,
                hook_id,
                handler,
                verdict,
            } => Answer::Verdict(machine.verdict(host, *now_ms, hook_id, handler, verdict)?),
            Call::Answer {
                actor,
                now_ms,
                escalation_id,
                digest,
                verdict,
                text,
            } => Answer::Answer(machine.answer(
                host,
                actor,
                *now_ms,
                escalation_id,
                digest,
                *verdict,
                text.as_deref(),
            )?),
            Call::Arbitrate { contest, policy } => {
                Answer::Arbitrate(machine.arbitrate(contest, policy)?)
            }
            Call::Claim {
                caller,
                now_ms,
                request,
            } => Answer::Claim(machine.claim(host, caller, *now_ms, request)?),
            Call::Renew {
                caller,
                now_ms,
                coordination_id: id,
                step_id,
                attempt,
                tokens,
            } => {
                Answer::Renew(machine.renew(host, caller, *now_ms, id, step_id, *attempt, tokens)?)
            }
            Call::Release {
                caller,
                now_ms,
                coordination_id: id,
                step_id,
                attempt,
                tokens,
            } => Answer::Release(
                machine.release(host, caller, *now_ms, id, step_id, *attempt, tokens)?,
            ),
            Call::Check {
                now_ms,
                resource,
                session,
                token,
                mode,
                regions,
                base_version,
            } => Answer::Check(machine.check(
                *now_ms,
                resource,
                session,
                *token,
                *mode,
                regions,
                base_version.as_deref(),
            )?),
            Call::Describe { id } => Answer::Describe(machine.describe(id)?),
            Call::ExplainWait { id, step_id } => {
                Answer::ExplainWait(machine.explain_wait(id, step_id)?)
            }
            Call::Head => Answer::Head(machine.head()?),
            Call::Replay { lines, checked } => Answer::Replay(machine.replay(lines, *checked)?),
            Call::Snapshot { cursor, max_bytes } => {
                Answer::Snapshot(machine.snapshot(cursor.as_deref(), *max_bytes)?)
            }
            Call::Restore { chunk, last } => Answer::Restore(machine.restore(chunk, *last)?),
            Call::Reconcile => {
                machine.reconcile(host)?;
                Answer::Reconcile
            }
            Call::StateDigest => Answer::StateDigest(machine.state_digest()?),
        })
    }

    pub fn take_staged(&mut self) -> Staged {
        std::mem::take(&mut self.host.staged)
    }

    /// From here on the host does not take ledger lines.
    pub fn refuse_append(&mut self) {
        self.host.refuses = true;
    }

    /// Whether calls still do something: it is neither spent nor read-only.
    pub fn is_usable(&mut self) -> bool {
        self.machine.snapshot(None, 1).is_ok()
    }

    pub fn replay(&mut self, lines: &[String], checked: bool) {
        let replayed = self.machine.replay(lines, checked);
        replayed.expect("the ledger replays");
    }

    pub fn digest(&self) -> String {
        self.machine.state_digest().expect("there is a state")
    }
}

impl Host for Recorder {
    fn append(&mut self, lines: &[String]) -> Result<(), Refused> {
        if self.refuses {
            return Err(Refused);
        }
        self.staged.lines.extend_from_slice(lines);
        Ok(())
    }

    fn enqueue(&mut self, messages: &[Message]) -> Result<(), Refused> {
        self.staged.messages.extend_from_slice(messages);
        Ok(())
    }

    fn withdraw(&mut self, keys: &[String]) -> Result<(), Refused> {
        self.staged.withdrawn.extend_from_slice(keys);
        Ok(())
    }

    fn enqueue_in_lane(&mut self, message: &Message) -> Result<(), Refused> {
        let entry = (message.lane.clone(), message.priority, message.clone());
        self.staged.lane_messages.push(entry);
        Ok(())
    }

    fn cancel(&mut self, keys: &[String]) -> Result<(), Refused> {
        self.staged.lane_cancelled.extend_from_slice(keys);
        Ok(())
    }

    fn ask(&mut self, hook_id: &str, kind: HookKind, subject: &str) -> Result<(), Refused> {
        self.staged.asks.push(HookRequest {
            hook_id: hook_id.to_owned(),
            kind,
            subject: subject.to_owned(),
        });
        Ok(())
    }

    fn notify(&mut self, kind: HookKind, subject: &str) -> Result<(), Refused> {
        self.staged.notifications.push((kind, subject.to_owned()));
        Ok(())
    }
}
