//! One request to the handlers of a kind: one after another where they are asked, all at once where they are told.
//!
//! Does not talk to the component.

use super::printed::cut;
use super::{Hook, Subject, Work, command};
use crate::process::Context;
use qm2_core::message::HookVerdict;
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

/// Says whose word it is where nobody has a handler.
const NOBODY: &str = "qm2";

/// The verdict of all handlers, with the name of the one that decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) handler: String,
    pub(super) verdict: HookVerdict,
}

/// Asks handlers in their order, for `total` at most: the first deny, else the first review, else no opinion.
pub(super) async fn ask(
    hooks: Vec<Hook>,
    context: &Context,
    subject: &Subject,
    limit: Duration,
    total: Duration,
) -> Decided {
    let until = Instant::now() + total;
    let mut decided = Decided {
        handler: NOBODY.into(),
        verdict: HookVerdict::NoOpinion,
    };
    for hook in hooks {
        let left = until.saturating_duration_since(Instant::now());
        let own = hook.time_limit.unwrap_or(limit);
        let handler = hook.name.clone();
        let verdict = match run(hook, context, subject, own.min(left)).await {
            Ok(verdict) => verdict,
            Err(Failed::Says(says)) => HookVerdict::Deny(says),
            Err(Failed::TooLate) if own <= left => HookVerdict::Deny(too_late(own)),
            Err(Failed::TooLate) => HookVerdict::Deny(format!(
                "did not answer before the domain's hookTimeoutMs of {} was over",
                limit.as_millis()
            )),
        };
        match verdict {
            HookVerdict::Deny(mut reason) => {
                cut(&mut reason);
                let verdict = HookVerdict::Deny(reason);
                return Decided { handler, verdict };
            }
            // A person looks at it whatever the others think, as long as none of them forbids it.
            _ if decided.verdict == HookVerdict::Review => {}
            verdict => decided = Decided { handler, verdict },
        }
    }
    decided
}

/// Tells handlers, all at once, and waits for all of them.
pub(super) async fn tell(hooks: Vec<Hook>, context: &Context, subject: &Subject, limit: Duration) {
    let mut running = JoinSet::new();
    for hook in hooks {
        let (context, subject) = (context.clone(), subject.clone());
        running.spawn(async move {
            let limit = hook.time_limit.unwrap_or(limit);
            let name = hook.name.clone();
            let says = match run(hook, &context, &subject, limit).await {
                Ok(_) => return,
                Err(Failed::Says(says)) => says,
                Err(Failed::TooLate) => too_late(limit),
            };
            let kind = subject.kind.name();
            tracing::warn!("hook {name} of {kind}: {says}");
        });
    }
    while running.join_next().await.is_some() {}
}

/// Why a handler has no verdict.
enum Failed {
    /// It is itself to blame.
    Says(String),
    /// Its time was over.
    TooLate,
}

fn too_late(limit: Duration) -> String {
    format!("did not answer within {} ms", limit.as_millis())
}

/// Runs one handler with a copy of the subject. A panic or a hang stays its own.
async fn run(
    hook: Hook,
    context: &Context,
    subject: &Subject,
    limit: Duration,
) -> Result<HookVerdict, Failed> {
    let subject = subject.clone();
    let task: JoinHandle<Result<HookVerdict, String>> = match hook.work {
        Work::Command(command) => {
            let ended = command::run(&command, context, &hook.name, &subject, limit).await;
            return ended.ok_or(Failed::TooLate)?.map_err(Failed::Says);
        }
        // Called within the task: what a handler does before its first wait may panic too.
        Work::Asked(handler) => tokio::spawn(async move { handler(subject).await }),
        Work::Told(handler) => tokio::spawn(async move {
            handler(subject).await?;
            Ok(HookVerdict::NoOpinion)
        }),
    };
    let mut task = Abandoned(task);
    match timeout(limit, &mut task.0).await {
        Ok(Ok(answer)) => answer.map_err(Failed::Says),
        Ok(Err(e)) if e.is_panic() => Err(Failed::Says("panicked".into())),
        Ok(Err(_)) => Err(Failed::Says("was ended".into())),
        Err(_) => Err(Failed::TooLate),
    }
}

/// Work that nobody waits for any more ends where it next waits itself.
struct Abandoned(JoinHandle<Result<HookVerdict, String>>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abort();
    }
}
