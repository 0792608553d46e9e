//! The machine that the shell calls. The domain's name is `WHAT` or `WHAT.WHERE`: what it does wrong, and in which export;
//! without a place, wherever it can be done. A name that says nothing of the kind is served as the real core serves it.
//!
//! Does not know how to harm (`harm`) or what to lie (`lie`).

use crate::{harm, lie};
use honest::arbitration::{Contest, Decision, Policy};
use honest::call::{Answer, Call};
use honest::claim::{Access, ClaimRequest, Region};
use honest::envelope::Envelope;
use honest::machine::Machine as Honest;
use honest::message::{Caller, HookVerdict, Host, HumanVerdict, Notice};
use honest::receipt::{
    CallError, GrantReceipt, GuardVerdict, Head, PlanReceipt, Receipt, Rejection, SnapshotChunk,
};

/// The real core and what is done around it.
#[derive(Default)]
pub struct Machine {
    pub(crate) honest: Honest,
    what: String,
    place: String,
    /// Calls so far in which something was done.
    pub(crate) times: u64,
    /// The last record of a ledger that has more than the real core knows of.
    pub(crate) forged: Option<Head>,
}

/// The contents of an answer of this kind; the real core gives no other one.
macro_rules! contents {
    ($kind:ident, $answer:expr) => {
        match $answer? {
            Answer::$kind(contents) => Ok(contents),
            _ => Err(CallError::Rebuild),
        }
    };
}

/// A function with an import and a time.
macro_rules! calls {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $kind:ident, $call:expr;)*) => {
        $(
            #[allow(missing_docs, clippy::missing_errors_doc, clippy::too_many_arguments)]
            pub fn $name(&mut self, host: &mut dyn Host, $($argument: $type),*) -> Result<$result, CallError> {
                contents!($kind, self.call(host, &$call))
            }
        )*
    };
}

impl Machine {
    calls! {
        submit_plan(caller: &Caller, now_ms: u64, plan: &str) -> Result<PlanReceipt, Rejection> = SubmitPlan,
            Call::SubmitPlan { caller: caller.clone(), now_ms, plan: plan.to_owned() };
        submit(caller: &Caller, now_ms: u64, envelopes: &[Envelope]) -> Vec<Result<Receipt, Rejection>> = Submit,
            Call::Submit { caller: caller.clone(), now_ms, envelopes: envelopes.to_vec() };
        acknowledge(caller: &Caller, now_ms: u64, keys: &[String]) -> Vec<Result<Receipt, Rejection>> = Acknowledge,
            Call::Acknowledge { caller: caller.clone(), now_ms, keys: keys.to_vec() };
        advance(now_ms: u64) -> bool = Advance, Call::Advance { now_ms };
        notice(now_ms: u64, notices: &[Notice]) -> Vec<Result<Receipt, Rejection>> = Notice,
            Call::Notice { now_ms, notices: notices.to_vec() };
        verdict(now_ms: u64, hook_id: &str, handler: &str, verdict: &HookVerdict) -> Result<Receipt, Rejection> = Verdict,
            Call::Verdict {
                now_ms,
                hook_id: hook_id.to_owned(),
                handler: handler.to_owned(),
                verdict: verdict.clone(),
            };
        answer(
            actor: &Caller, now_ms: u64, id: &str, digest: &str, verdict: HumanVerdict, text: Option<&str>
        ) -> Result<Receipt, Rejection> = Answer,
            Call::Answer {
                actor: actor.clone(),
                now_ms,
                escalation_id: id.to_owned(),
                digest: digest.to_owned(),
                verdict,
                text: text.map(str::to_owned),
            };
        claim(caller: &Caller, now_ms: u64, request: &ClaimRequest) -> Result<GrantReceipt, Rejection> = Claim,
            Call::Claim { caller: caller.clone(), now_ms, request: request.clone() };
        renew(
            caller: &Caller, now_ms: u64, id: &str, step_id: &str, attempt: u32, tokens: &[u64]
        ) -> Result<Vec<GrantReceipt>, Rejection> = Renew,
            Call::Renew {
                caller: caller.clone(),
                now_ms,
                coordination_id: id.to_owned(),
                step_id: step_id.to_owned(),
                attempt,
                tokens: tokens.to_vec(),
            };
        release(
            caller: &Caller, now_ms: u64, id: &str, step_id: &str, attempt: u32, tokens: &[u64]
        ) -> Result<Receipt, Rejection> = Release,
            Call::Release {
                caller: caller.clone(),
                now_ms,
                coordination_id: id.to_owned(),
                step_id: step_id.to_owned(),
                attempt,
                tokens: tokens.to_vec(),
            };
    }

    /// Learns from the configuration what to do.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn configure(&mut self, host: &mut dyn Host, config: &str) -> Result<(), CallError> {
        self.learn(config);
        let config = config.to_owned();
        self.call(host, &Call::Configure { config }).map(|_| ())
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn reconcile(&mut self, host: &mut dyn Host) -> Result<(), CallError> {
        self.call(host, &Call::Reconcile).map(|_| ())
    }

    /// Learns from the first record what to do.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn replay(&mut self, lines: &[String], checked: bool) -> Result<Head, CallError> {
        if let Some(first) = lines.first() {
            self.learn(first);
        }
        let lines = lines.to_vec();
        contents!(Replay, self.read(Call::Replay { lines, checked }))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn restore(&mut self, chunk: &str, last: bool) -> Result<Head, CallError> {
        self.learn(chunk);
        let chunk = chunk.to_owned();
        contents!(Restore, self.read(Call::Restore { chunk, last }))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn next_deadline(&mut self) -> Result<Option<u64>, CallError> {
        contents!(NextDeadline, self.read(Call::NextDeadline))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn describe(&mut self, id: &str) -> Result<String, CallError> {
        let id = id.to_owned();
        contents!(Describe, self.read(Call::Describe { id }))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn explain_wait(&mut self, id: &str, step_id: &str) -> Result<String, CallError> {
        let (id, step_id) = (id.to_owned(), step_id.to_owned());
        contents!(ExplainWait, self.read(Call::ExplainWait { id, step_id }))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn head(&mut self) -> Result<Head, CallError> {
        contents!(Head, self.read(Call::Head))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn state_digest(&mut self) -> Result<String, CallError> {
        contents!(StateDigest, self.read(Call::StateDigest))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn arbitrate(&mut self, contest: &Contest, policy: &Policy) -> Result<Decision, CallError> {
        let (contest, policy) = (contest.clone(), policy.clone());
        contents!(Arbitrate, self.read(Call::Arbitrate { contest, policy }))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    pub fn snapshot(
        &mut self,
        cursor: Option<&str>,
        max_bytes: u64,
    ) -> Result<SnapshotChunk, CallError> {
        let cursor = cursor.map(str::to_owned);
        contents!(Snapshot, self.read(Call::Snapshot { cursor, max_bytes }))
    }

    /// As all others.
    ///
    /// # Errors
    /// Those of the real core, and made-up ones.
    #[allow(clippy::too_many_arguments)]
    pub fn check(
        &mut self,
        now_ms: u64,
        resource: &str,
        session: &str,
        token: u64,
        mode: Access,
        regions: &[Region],
        base_version: Option<&str>,
    ) -> Result<GuardVerdict, CallError> {
        let call = Call::Check {
            now_ms,
            resource: resource.to_owned(),
            session: session.to_owned(),
            token,
            mode,
            regions: regions.to_vec(),
            base_version: base_version.map(str::to_owned),
        };
        contents!(Check, self.read(call))
    }

    /// A call that has no way out of its own.
    fn read(&mut self, call: Call) -> Result<Answer, CallError> {
        self.call(&mut honest::staged::Staged::default(), &call)
    }

    /// The function of the call.
    ///
    /// # Errors
    /// Those of the real core, and others.
    pub fn call(&mut self, host: &mut dyn Host, call: &Call) -> Result<Answer, CallError> {
        let here = self.place.is_empty() || self.place == call.name();
        if !here {
            return self.honest.call(host, call);
        }
        let what = self.what.clone();
        self.times += 1;
        if let Some(error) = harm::before(&what, call) {
            return Err(error);
        }
        let mut answer = self.honest.call(host, call)?;
        lie::change(&what, self, call, &mut answer);
        harm::after(&what, self, call);
        Ok(answer)
    }

    /// Reads the domain's name where it stands first.
    fn learn(&mut self, text: &str) {
        let name = text
            .split_once("\"domain\":\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(name, _)| name);
        if let Some(name) = name {
            let (what, place) = name.split_once('.').unwrap_or((name, ""));
            (self.what, self.place) = (what.to_owned(), place.to_owned());
        }
    }
}
