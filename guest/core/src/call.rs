//! The exports of the component as data: one variant a function, in and out.
//!
//! The same calls reach the core natively through [`Machine::call`], and a component through its host. Holds no rule and
//! changes nothing by itself.
//!
//! Their JSON is for every language: members in camelCase, a word for a variant without a value, an object of one member
//! for one with a value, `{"ok": …}` or `{"error": …}` for an input that was taken or refused.

use crate::arbitration::{Contest, Decision, Policy};
use crate::claim::{Access, ClaimRequest, Region};
use crate::envelope::Envelope;
use crate::machine::Machine;
use crate::message::{Caller, HookVerdict, Host, HumanVerdict, Notice};
use crate::receipt::{
    CallError, GrantReceipt, GuardVerdict, Head, PlanReceipt, Receipt, Rejection, SnapshotChunk,
};
use serde::{Deserialize, Serialize};

/// A call of an exported function. `nowMs` may be left out where a host sets it from its clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "call",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Call {
    /// Sets the configuration; for the host only.
    Configure {
        /// Canonical JSON of [`crate::config::Config`].
        config: String,
    },
    /// Submits a plan.
    SubmitPlan {
        /// Must be the plan's owner.
        caller: Caller,
        /// When it came in, in milliseconds since the epoch.
        #[serde(default)]
        now_ms: u64,
        /// The plan as JSON.
        plan: String,
    },
    /// Submits envelopes.
    Submit {
        /// Who says them.
        caller: Caller,
        /// When they came in.
        #[serde(default)]
        now_ms: u64,
        /// At most 1 024.
        envelopes: Vec<Envelope>,
    },
    /// Acknowledges reports to an owner.
    Acknowledge {
        /// The owner.
        caller: Caller,
        /// When it came in.
        #[serde(default)]
        now_ms: u64,
        /// `report:SEQ`, at most 1 024.
        keys: Vec<String>,
    },
    /// Tells the time; for the host only.
    Advance {
        /// The time.
        #[serde(default)]
        now_ms: u64,
    },
    /// Asks when to tell the time next.
    NextDeadline,
    /// The host's word on messages; for the host only.
    Notice {
        /// When it became known.
        #[serde(default)]
        now_ms: u64,
        /// At most 1 024.
        notices: Vec<Notice>,
    },
    /// The answer of the hooks to a request; for the host only.
    Verdict {
        /// When it came in.
        #[serde(default)]
        now_ms: u64,
        /// Id of the request: `h` and a number.
        hook_id: String,
        /// Name of the handler that decided; 1..256 bytes.
        handler: String,
        /// What it said.
        verdict: HookVerdict,
    },
    /// A person's answer to a question.
    Answer {
        /// The person, with the role that the host knows.
        actor: Caller,
        /// When it came in.
        #[serde(default)]
        now_ms: u64,
        /// Id of the question: `e` and a number.
        escalation_id: String,
        /// Digest that was shown with the question.
        digest: String,
        /// What the person says.
        verdict: HumanVerdict,
        /// In the person's words; at most 64 KiB.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Decides a contest; reads no state.
    Arbitrate {
        /// Who wants what, and who has it.
        contest: Contest,
        /// What decides.
        policy: Policy,
    },
    /// Claims one more resource for a running step.
    Claim {
        /// The session of the step.
        caller: Caller,
        /// When it came in.
        #[serde(default)]
        now_ms: u64,
        /// What is claimed, and by which attempt.
        request: ClaimRequest,
    },
    /// Begins the leases of a running attempt anew.
    Renew {
        /// The session of the step.
        caller: Caller,
        /// When it came in.
        #[serde(default)]
        now_ms: u64,
        /// Id of the coordination.
        coordination_id: String,
        /// The step.
        step_id: String,
        /// Its current attempt.
        attempt: u32,
        /// Which leases; empty for all of them.
        #[serde(default)]
        tokens: Vec<u64>,
    },
    /// Gives grants of a running attempt back.
    Release {
        /// The session of the step.
        caller: Caller,
        /// When it came in.
        #[serde(default)]
        now_ms: u64,
        /// Id of the coordination.
        coordination_id: String,
        /// The step.
        step_id: String,
        /// Its current attempt.
        attempt: u32,
        /// Which grants.
        tokens: Vec<u64>,
    },
    /// The guard: whether a session may read or write a resource now.
    Check {
        /// The time.
        #[serde(default)]
        now_ms: u64,
        /// `kind:path`.
        resource: String,
        /// Who wants to.
        session: String,
        /// Under which grant.
        token: u64,
        /// What is about to be done.
        mode: Access,
        /// Which parts; empty for all of it.
        #[serde(default)]
        regions: Vec<Region>,
        /// What the grant must be based on, if that matters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base_version: Option<String>,
    },
    /// Describes a coordination, or the domain if the id is empty.
    Describe {
        /// Id of the coordination, or empty.
        #[serde(default)]
        id: String,
    },
    /// Asks what a step waits for.
    ExplainWait {
        /// Id of the coordination.
        id: String,
        /// The step.
        step_id: String,
    },
    /// Asks for the last record.
    Head,
    /// Applies ledger lines; for the host only.
    Replay {
        /// In order, without gaps.
        lines: Vec<String>,
        /// The host verified the chain itself.
        checked: bool,
    },
    /// Asks for a piece of the state.
    Snapshot {
        /// Where the last piece ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// Wished size of the piece in bytes.
        max_bytes: u64,
    },
    /// Takes a piece of a state in; for the host only.
    Restore {
        /// The piece.
        chunk: String,
        /// Whether it is the last one.
        last: bool,
    },
    /// Hands out again what is out; for the host only.
    Reconcile,
    /// Asks for the digest of the state.
    StateDigest,
}

/// Answer to the [`Call`] of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The configuration is in force.
    Configure,
    /// The plan's receipt or refusal.
    #[serde(with = "one")]
    SubmitPlan(Result<PlanReceipt, Rejection>),
    /// One for each envelope.
    #[serde(with = "each")]
    Submit(Vec<Result<Receipt, Rejection>>),
    /// One for each key.
    #[serde(with = "each")]
    Acknowledge(Vec<Result<Receipt, Rejection>>),
    /// Whether more timers are due.
    Advance(bool),
    /// When to advance next, in milliseconds since the epoch.
    NextDeadline(Option<u64>),
    /// One for each notice.
    #[serde(with = "each")]
    Notice(Vec<Result<Receipt, Rejection>>),
    /// What became of the verdict.
    #[serde(with = "one")]
    Verdict(Result<Receipt, Rejection>),
    /// What became of the answer.
    #[serde(with = "one")]
    Answer(Result<Receipt, Rejection>),
    /// Who gets the resource.
    Arbitrate(Decision),
    /// The grant, or why there is none.
    #[serde(with = "one")]
    Claim(Result<GrantReceipt, Rejection>),
    /// The renewed grants.
    #[serde(with = "one")]
    Renew(Result<Vec<GrantReceipt>, Rejection>),
    /// What became of it.
    #[serde(with = "one")]
    Release(Result<Receipt, Rejection>),
    /// Allowed or not, and why.
    Check(GuardVerdict),
    /// Canonical JSON.
    Describe(String),
    /// Canonical JSON.
    ExplainWait(String),
    /// The last record.
    Head(Head),
    /// The last record applied.
    Replay(Head),
    /// The piece.
    Snapshot(SnapshotChunk),
    /// The last record that the state covers.
    Restore(Head),
    /// Everything that is out was handed out again.
    Reconcile,
    /// SHA-256 in hexadecimal.
    StateDigest(String),
}

/// What an input got, in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answered<T, E> {
    Ok(T),
    Error(E),
}

impl<T, E> From<Answered<T, E>> for Result<T, E> {
    fn from(answered: Answered<T, E>) -> Self {
        match answered {
            Answered::Ok(value) => Ok(value),
            Answered::Error(error) => Err(error),
        }
    }
}

fn answered<T, E>(result: &Result<T, E>) -> Answered<&T, &E> {
    match result {
        Ok(value) => Answered::Ok(value),
        Err(error) => Answered::Error(error),
    }
}

/// JSON of one result.
mod one {
    use super::{Answered, answered};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, E: Serialize, S: Serializer>(
        result: &Result<T, E>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        answered(result).serialize(serializer)
    }

    pub(super) fn deserialize<'de, T, E, D>(deserializer: D) -> Result<Result<T, E>, D::Error>
    where
        T: Deserialize<'de>,
        E: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Answered::deserialize(deserializer).map(Result::from)
    }
}

/// JSON of a list of results.
mod each {
    use super::{Answered, answered};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, E: Serialize, S: Serializer>(
        results: &[Result<T, E>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(results.iter().map(answered))
    }

    pub(super) fn deserialize<'de, T, E, D>(deserializer: D) -> Result<Vec<Result<T, E>>, D::Error>
    where
        T: Deserialize<'de>,
        E: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let each = Vec::<Answered<T, E>>::deserialize(deserializer)?;
        Ok(each.into_iter().map(Result::from).collect())
    }
}

/// Whether a function leaves the state as it is.
#[must_use]
pub fn reads(function: &str) -> bool {
    [
        "next-deadline",
        "arbitrate",
        "check",
        "describe",
        "explain-wait",
        "head",
        "snapshot",
        "state-digest",
    ]
    .contains(&function)
}

impl Call {
    /// The exported function, as the WIT names it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Configure { .. } => "configure",
            Self::SubmitPlan { .. } => "submit-plan",
            Self::Submit { .. } => "submit",
            Self::Acknowledge { .. } => "acknowledge",
            Self::Advance { .. } => "advance",
            Self::NextDeadline => "next-deadline",
            Self::Notice { .. } => "notice",
            Self::Verdict { .. } => "verdict",
            Self::Answer { .. } => "answer",
            Self::Arbitrate { .. } => "arbitrate",
            Self::Claim { .. } => "claim",
            Self::Renew { .. } => "renew",
            Self::Release { .. } => "release",
            Self::Check { .. } => "check",
            Self::Describe { .. } => "describe",
            Self::ExplainWait { .. } => "explain-wait",
            Self::Head => "head",
            Self::Replay { .. } => "replay",
            Self::Snapshot { .. } => "snapshot",
            Self::Restore { .. } => "restore",
            Self::Reconcile => "reconcile",
            Self::StateDigest => "state-digest",
        }
    }

    /// Whether only the host itself may make it on a running domain.
    #[must_use]
    pub fn is_host_only(&self) -> bool {
        matches!(
            self,
            Self::Configure { .. }
                | Self::Advance { .. }
                | Self::Notice { .. }
                | Self::Verdict { .. }
                | Self::Replay { .. }
                | Self::Restore { .. }
                | Self::Reconcile
        )
    }

    /// Whether it leaves the state as it is.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        reads(self.name())
    }

    /// Sets the time of a call that has one.
    pub fn set_now(&mut self, at_ms: u64) {
        match self {
            Self::SubmitPlan { now_ms, .. }
            | Self::Submit { now_ms, .. }
            | Self::Acknowledge { now_ms, .. }
            | Self::Advance { now_ms }
            | Self::Notice { now_ms, .. }
            | Self::Verdict { now_ms, .. }
            | Self::Answer { now_ms, .. }
            | Self::Claim { now_ms, .. }
            | Self::Renew { now_ms, .. }
            | Self::Release { now_ms, .. }
            | Self::Check { now_ms, .. } => *now_ms = at_ms,
            _ => {}
        }
    }

    /// The time of a call that has one.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        match self {
            Self::SubmitPlan { now_ms, .. }
            | Self::Submit { now_ms, .. }
            | Self::Acknowledge { now_ms, .. }
            | Self::Advance { now_ms }
            | Self::Notice { now_ms, .. }
            | Self::Verdict { now_ms, .. }
            | Self::Answer { now_ms, .. }
            | Self::Claim { now_ms, .. }
            | Self::Renew { now_ms, .. }
            | Self::Release { now_ms, .. }
            | Self::Check { now_ms, .. } => Some(*now_ms),
            _ => None,
        }
    }
}

impl Answer {
    /// The function that answers, as the WIT names it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::SubmitPlan(_) => "submit-plan",
            Self::Submit(_) => "submit",
            Self::Acknowledge(_) => "acknowledge",
            Self::Advance(_) => "advance",
            Self::NextDeadline(_) => "next-deadline",
            Self::Notice(_) => "notice",
            Self::Verdict(_) => "verdict",
            Self::Answer(_) => "answer",
            Self::Arbitrate(_) => "arbitrate",
            Self::Claim(_) => "claim",
            Self::Renew(_) => "renew",
            Self::Release(_) => "release",
            Self::Check(_) => "check",
            Self::Describe(_) => "describe",
            Self::ExplainWait(_) => "explain-wait",
            Self::Head(_) => "head",
            Self::Replay(_) => "replay",
            Self::Snapshot(_) => "snapshot",
            Self::Restore(_) => "restore",
            Self::Reconcile => "reconcile",
            Self::StateDigest(_) => "state-digest",
        }
    }
}

impl Machine {
    /// Makes a call: the function of the same name with its arguments.
    ///
    /// # Errors
    /// Those of that function.
    pub fn call(&mut self, host: &mut dyn Host, call: &Call) -> Result<Answer, CallError> {
        Ok(match call {
            Call::Configure { config } => {
                self.configure(host, config)?;
                Answer::Configure
            }
            Call::SubmitPlan {
                caller,
                now_ms,
                plan,
            } => Answer::SubmitPlan(self.submit_plan(host, caller, *now_ms, plan)?),
            Call::Submit {
                caller,
                now_ms,
                envelopes,
            } => Answer::Submit(self.submit(host, caller, *now_ms, envelopes)?),
            Call::Acknowledge {
                caller,
                now_ms,
                keys,
            } => Answer::Acknowledge(self.acknowledge(host, caller, *now_ms, keys)?),
            Call::Advance { now_ms } => Answer::Advance(self.advance(host, *now_ms)?),
            Call::NextDeadline => Answer::NextDeadline(self.next_deadline()?),
            Call::Notice { now_ms, notices } => {
                Answer::Notice(self.notice(host, *now_ms, notices)?)
            }
            Call::Verdict {
                now_ms,
                hook_id,
                handler,
                verdict,
            } => Answer::Verdict(self.verdict(host, *now_ms, hook_id, handler, verdict)?),
            Call::Answer {
                actor,
                now_ms,
                escalation_id,
                digest,
                verdict,
                text,
            } => Answer::Answer(self.answer(
                host,
                actor,
                *now_ms,
                escalation_id,
                digest,
                *verdict,
                text.as_deref(),
            )?),
            Call::Arbitrate { contest, policy } => {
                Answer::Arbitrate(self.arbitrate(contest, policy)?)
            }
            Call::Claim {
                caller,
                now_ms,
                request,
            } => Answer::Claim(self.claim(host, caller, *now_ms, request)?),
            Call::Renew {
                caller,
                now_ms,
                coordination_id: id,
                step_id,
                attempt,
                tokens,
            } => Answer::Renew(self.renew(host, caller, *now_ms, id, step_id, *attempt, tokens)?),
            Call::Release {
                caller,
                now_ms,
                coordination_id: id,
                step_id,
                attempt,
                tokens,
            } => {
                Answer::Release(self.release(host, caller, *now_ms, id, step_id, *attempt, tokens)?)
            }
            Call::Check {
                now_ms,
                resource,
                session,
                token,
                mode,
                regions,
                base_version,
            } => Answer::Check(self.check(
                *now_ms,
                resource,
                session,
                *token,
                *mode,
                regions,
                base_version.as_deref(),
            )?),
            Call::Describe { id } => Answer::Describe(self.describe(id)?),
            Call::ExplainWait { id, step_id } => {
                Answer::ExplainWait(self.explain_wait(id, step_id)?)
            }
            Call::Head => Answer::Head(self.head()?),
            Call::Replay { lines, checked } => Answer::Replay(self.replay(lines, *checked)?),
            Call::Snapshot { cursor, max_bytes } => {
                Answer::Snapshot(self.snapshot(cursor.as_deref(), *max_bytes)?)
            }
            Call::Restore { chunk, last } => Answer::Restore(self.restore(chunk, *last)?),
            Call::Reconcile => {
                self.reconcile(host)?;
                Answer::Reconcile
            }
            Call::StateDigest => Answer::StateDigest(self.state_digest()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_answers_cross_as_one_json_line() {
        let call: Call = serde_json::from_str(r#"{"call":"describe","id":"c1"}"#).unwrap();
        assert_eq!(call, Call::Describe { id: "c1".into() });
        let answer = Answer::Describe("{}".into());
        let line = serde_json::to_string(&answer).unwrap();
        assert_eq!(line, r#"{"describe":"{}"}"#);
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer);
        assert!(serde_json::from_str::<Call>(r#"{"call":"describe","x":1}"#).is_err());
    }

    #[test]
    fn what_an_input_got_is_ok_or_error() {
        let receipt = Receipt {
            status: crate::receipt::ReceiptStatus::Accepted,
            seq: Some(3),
            state: "open".into(),
        };
        let code = crate::receipt::RejectionCode::UnknownStep;
        let refused = Rejection::new(code, "stepId", "is none");
        let answer = Answer::Submit(vec![Ok(receipt), Err(refused.clone())]);
        let line = serde_json::to_string(&answer).unwrap();
        let wanted = concat!(
            r#"{"submit":[{"ok":{"status":"accepted","seq":3,"state":"open"}},"#,
            r#"{"error":{"code":"unknown-step","field":"stepId","message":"is none","next":"fix"}}]}"#
        );
        assert_eq!(line, wanted);
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer);
        let answer = Answer::Verdict(Err(refused));
        let line = serde_json::to_string(&answer).unwrap();
        assert!(
            line.starts_with(r#"{"verdict":{"error":{"code":"#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer);
    }

    /// As a host may ask: by its JSON.
    fn call(json: &str) -> Call {
        serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"))
    }

    #[test]
    fn calls_say_what_they_are() {
        let caller = r#""caller":{"session":"s"},"nowMs":5"#;
        let of_step = r#""coordinationId":"c","stepId":"a","attempt":1"#;
        let contest = r#"{"resource":"r","atMs":5,"contenders":[],"holders":[]}"#;
        let policy =
            r#"{"default":"owner_wins","rules":[],"owners":[],"highRisk":[],"preempt":false}"#;
        // Whether only the host makes it, whether it only reads, and whether it has a time.
        let rows = [
            ("configure", r#""config":"""#.to_owned(), true, false, false),
            (
                "submit-plan",
                format!(r#"{caller},"plan":"""#),
                false,
                false,
                true,
            ),
            (
                "submit",
                format!(r#"{caller},"envelopes":[]"#),
                false,
                false,
                true,
            ),
            (
                "acknowledge",
                format!(r#"{caller},"keys":[]"#),
                false,
                false,
                true,
            ),
            ("advance", r#""nowMs":5"#.into(), true, false, true),
            ("next-deadline", String::new(), false, true, false),
            (
                "notice",
                r#""nowMs":5,"notices":[]"#.into(),
                true,
                false,
                true,
            ),
            (
                "release",
                format!(r#"{caller},{of_step},"tokens":[]"#),
                false,
                false,
                true,
            ),
            (
                "renew",
                format!(r#"{caller},{of_step},"tokens":[]"#),
                false,
                false,
                true,
            ),
            (
                "arbitrate",
                format!(r#""contest":{contest},"policy":{policy}"#),
                false,
                true,
                false,
            ),
            ("describe", r#""id":"c""#.into(), false, true, false),
            (
                "explain-wait",
                r#""id":"c","stepId":"a""#.into(),
                false,
                true,
                false,
            ),
            ("head", String::new(), false, true, false),
            (
                "replay",
                r#""lines":[],"checked":true"#.into(),
                true,
                false,
                false,
            ),
            ("snapshot", r#""maxBytes":1"#.into(), false, true, false),
            (
                "restore",
                r#""chunk":"","last":true"#.into(),
                true,
                false,
                false,
            ),
            ("reconcile", String::new(), true, false, false),
            ("state-digest", String::new(), false, true, false),
        ];
        for (name, rest, is_host_only, is_reading, has_time) in rows {
            let comma = if rest.is_empty() { "" } else { "," };
            let mut call = call(&format!(r#"{{"call":"{name}"{comma}{rest}}}"#));
            assert_eq!(call.name(), name);
            assert_eq!(
                (call.is_host_only(), call.is_reading()),
                (is_host_only, is_reading),
                "{name}"
            );
            assert_eq!(call.now(), has_time.then_some(5), "{name}");
            call.set_now(7);
            assert_eq!(call.now(), has_time.then_some(7), "{name}");
        }
    }
}
