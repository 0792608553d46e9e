//! What a command prints: read as the report of an agent that succeeded or failed, and as the verdict of a hook.
//!
//! Must hold: whatever an agent prints, its attempt has an end in the ledger, the same once more is known, and whatever a hook
//! prints, the component takes a verdict of it. Steps are those of the host's `process`, `delivery` and `hook::chain`; what
//! they do with processes and files is not done here.

use crate::hook;
use crate::report::{Report, cut_to_tail, reply};
use crate::world::{World, caller};
use qm2_core::call::{Answer, Call};
use qm2_core::digest::sha256_hex;
use qm2_core::envelope::{Envelope, Intent, PayloadRef};
use qm2_core::limit::TEXT_BYTES_MAX;
use qm2_core::message::{HookKind, HookVerdict};
use qm2_core::receipt::{Receipt, ReceiptStatus, Rejection, RejectionCode};
use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Longest inline payload of the domain; small, so that the bound is met.
const PAYLOAD_BYTES_MAX: u64 = 512;

/// Reads the output.
///
/// # Panics
/// Where something does not hold.
pub fn run(data: &[u8]) {
    let code = i32::from(data.last().copied().unwrap_or_default());
    let failures = [
        ExitStatus::from_raw(code << 8),
        ExitStatus::from_raw(code & 0x7f),
    ];
    end(succeeded(data.to_vec()));
    for status in failures.into_iter().filter(|status| !status.success()) {
        end(Report::of_failure(status, data));
        verdict(status, data);
    }
    verdict(ExitStatus::from_raw(0), data);
}

/// As the host reads the output of an agent that succeeded.
fn succeeded(output: Vec<u8>) -> Report {
    match String::from_utf8(output) {
        Ok(text) => {
            let mut report = Report::of_output(text);
            let Ok(()) = report.bound(PAYLOAD_BYTES_MAX, |text| {
                Ok::<_, Infallible>(reference(text))
            });
            report
        }
        Err(e) => Report::kept(reference(e.as_bytes())),
    }
}

/// What the host gives for content that it has kept.
fn reference(content: &[u8]) -> PayloadRef {
    let sha256 = sha256_hex(&[content]);
    PayloadRef {
        uri: format!("file:payloads/{sha256}"),
        sha256,
        bytes: content.len() as u64,
    }
}

/// A domain in which the attempt of one step was acknowledged, and its envelope.
fn at_work() -> (World, Envelope) {
    let mut world = World::open(|config| config.limits.payload_bytes = PAYLOAD_BYTES_MAX);
    submit_plan(&mut world);
    let execute = world.attempt("c", "a").expect("the step goes out").clone();
    let ack = submit(&mut world, &reply(&execute, Intent::Ack));
    assert!(ack.is_ok(), "{ack:?}");
    (world, execute)
}

/// Says how the attempt ended, as the host does; then there is an end.
fn end(report: Report) {
    let (mut world, execute) = at_work();
    let mut envelope = report.into_envelope(&execute);
    let mut answer = submit(&mut world, &envelope);
    if let Err(refusal) = &answer {
        // Any other refusal is only logged, and nobody would ever hear of the attempt.
        assert_eq!(refusal.code, RejectionCode::InvalidField, "{refusal}");
        envelope =
            Report::bad(format!("its report was refused: {refusal}")).into_envelope(&execute);
        answer = submit(&mut world, &envelope);
    }
    match answer {
        Ok(receipt) => assert_eq!(receipt.status, ReceiptStatus::Accepted),
        Err(refusal) => panic!("{refusal}"),
    }
    let ends = ["step.completed", "step.failed", "step.retry_scheduled"];
    let ended = world.lines.iter().any(|line| {
        let mut types = ends.iter().map(|name| format!("\"type\":\"{name}\""));
        types.any(|of| line.contains(&of))
    });
    assert!(ended, "the report was taken, and the attempt has no end");
    let again = submit(&mut world, &envelope).map(|receipt| receipt.status);
    assert_eq!(again, Ok(ReceiptStatus::Replayed));
    world.replay();
}

/// As the host reads the end of a hook's command; then the step goes on, fails, or waits for a person.
fn verdict(status: ExitStatus, output: &[u8]) {
    let too_large = output.len() > hook::OUTPUT_BYTES_MAX;
    let read = hook::verdict(true, status, output, too_large, output);
    let verdict = match read.unwrap_or_else(HookVerdict::Deny) {
        HookVerdict::Deny(mut reason) => {
            hook::cut(&mut reason);
            HookVerdict::Deny(reason)
        }
        verdict => verdict,
    };
    let mut world = World::open(|config| config.hooks = vec![HookKind::BeforeDispatch]);
    submit_plan(&mut world);
    let call = Call::Verdict {
        now_ms: 0,
        hook_id: world.hook_id().to_owned(),
        handler: "hook".to_owned(),
        verdict,
    };
    match world.call(&call) {
        Ok(Answer::Verdict(Ok(receipt))) => assert_eq!(receipt.status, ReceiptStatus::Accepted),
        other => panic!("verdict: {other:?}"),
    }
    world.replay();
    // What stands on stderr goes to a log; it is cut at a character, too.
    let mut text = String::from_utf8_lossy(output).into_owned();
    cut_to_tail(&mut text, TEXT_BYTES_MAX);
    assert!(text.len() <= TEXT_BYTES_MAX);
}

fn submit_plan(world: &mut World) {
    let plan = r#"{"coordinationId":"c","objective":"o","ownerSession":"user:owner","failurePolicy":{"retryBudget":1},
        "steps":[{"stepId":"a","targetSession":"agent:a","timeoutMs":60000,"maxAttempts":2}]}"#;
    let call = Call::SubmitPlan {
        caller: caller("user:owner"),
        now_ms: 0,
        plan: plan.to_owned(),
    };
    match world.call(&call) {
        Ok(Answer::SubmitPlan(Ok(_))) => {}
        other => panic!("submit-plan: {other:?}"),
    }
}

fn submit(world: &mut World, envelope: &Envelope) -> Result<Receipt, Rejection> {
    let call = Call::Submit {
        caller: caller(&envelope.source_session),
        now_ms: 0,
        envelopes: vec![envelope.clone()],
    };
    match world.call(&call) {
        Ok(Answer::Submit(mut answers)) => answers.remove(0),
        other => panic!("submit: {other:?}"),
    }
}
