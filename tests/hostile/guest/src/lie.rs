//! Answers that are not true.
//!
//! The ledger of the real core stays what it is, except where a lie is that there is more of it.

use crate::harm::line;
use crate::imports::event_stream;
use crate::machine::Machine;
use honest::call::{Answer, Call};
use honest::receipt::{Receipt, Rejection, RejectionCode, Remedy};

/// A record that no ledger has.
const NO_RECORD: u64 = 9_000_000_000_000_000;

type Item = Result<Receipt, Rejection>;

/// Changes an answer as the name says.
pub(crate) fn change(what: &str, machine: &mut Machine, call: &Call, answer: &mut Answer) {
    match (what, answer) {
        ("seq-unknown", answer) => name_no_record(answer),
        (
            "answers-none",
            Answer::Submit(items) | Answer::Acknowledge(items) | Answer::Notice(items),
        ) => {
            items.clear();
        }
        (
            "answers-many",
            Answer::Submit(items) | Answer::Acknowledge(items) | Answer::Notice(items),
        ) => {
            let more = vec![retry(1); 10_000];
            items.extend(more);
        }
        // Those of other inputs; every count is right.
        ("answers-shuffled", Answer::Submit(items)) => items.reverse(),
        ("retry-at-once", Answer::Submit(items)) => {
            items.iter_mut().for_each(|item| *item = retry(0))
        }
        ("retry-never", Answer::Submit(items)) => {
            items.iter_mut().for_each(|item| *item = retry(u64::MAX));
        }
        ("head-seq", Answer::Head(head) | Answer::Replay(head) | Answer::Restore(head)) => {
            head.seq += 1
        }
        ("head-hash", Answer::Head(head) | Answer::Replay(head) | Answer::Restore(head)) => {
            head.hash = "0".repeat(1_000);
        }
        ("digest-changes", Answer::StateDigest(digest)) => {
            *digest = format!("{}{digest}", machine.times);
        }
        ("more", Answer::Advance(more)) => *more = true,
        ("more-recorded", Answer::Advance(more)) => {
            *more = true;
            append_one(machine, call);
        }
        ("deadline-past", Answer::NextDeadline(at_ms)) => *at_ms = Some(0),
        ("deadline-never", Answer::NextDeadline(at_ms)) => *at_ms = Some(u64::MAX),
        ("no-json", Answer::Describe(text) | Answer::ExplainWait(text)) => {
            *text = "{\"reports\":[{\"key\":".repeat(1_000);
        }
        ("snapshot-endless", Answer::Snapshot(piece)) => {
            piece.chunk.clear();
            piece.next = Some(String::new());
        }
        ("snapshot-long", Answer::Snapshot(piece)) => {
            piece.chunk = "x".repeat(8 * 1024 * 1024);
            piece.next = Some("x".repeat(1024 * 1024));
        }
        ("snapshot-garbage", Answer::Snapshot(piece)) => piece.chunk = "garbage".into(),
        _ => {}
    }
}

/// A record that holds in the chain and that no rule allows; the real core does not know of it.
fn append_one(machine: &mut Machine, call: &Call) {
    if !matches!(call, Call::Advance { .. }) {
        return;
    }
    let head = machine
        .forged
        .get_or_insert_with(|| machine.honest.head().unwrap_or_default());
    let line = line(head, "");
    head.seq += 1;
    head.hash = line[line.len() - 66..line.len() - 2].to_owned();
    let _ = event_stream::append(&[&line]);
}

fn name_no_record(answer: &mut Answer) {
    let change = |item: &mut Item| match item {
        Ok(receipt) => receipt.seq = Some(NO_RECORD),
        Err(rejection) => rejection.seq = Some(NO_RECORD),
    };
    match answer {
        Answer::Submit(items) | Answer::Acknowledge(items) | Answer::Notice(items) => {
            items.iter_mut().for_each(change);
        }
        Answer::Verdict(item) | Answer::Answer(item) | Answer::Release(item) => change(item),
        Answer::SubmitPlan(Ok(receipt)) => receipt.created_seq = NO_RECORD,
        Answer::Claim(Ok(grant)) => grant.token = NO_RECORD,
        _ => {}
    }
}

fn retry(after_ms: u64) -> Item {
    Err(Rejection {
        next: Remedy::Retry { after_ms },
        ..Rejection::new(RejectionCode::Bound, "", "come again")
    })
}
