//! A component that harms its host: it loops, takes memory without end, traps, calls imports with absurd arguments, breaks
//! the chain, and lies. Each time nothing of it is kept, somebody is told clearly what it did, and other domains of the
//! process finish their plans meanwhile.
//!
//! The component is `tests/hostile/guest`: the real one, and what the domain's name says. It is built once a run, in a
//! target folder of its own. What a damaged store does is in `damage`.

mod component;
mod scene;
mod swap;

use scene::{Came, Scene, engines};

/// What comes of one kind of harm.
struct Row {
    /// The name of the domain: what it does, and in which export.
    name: &'static str,
    came: Came,
}

const fn row(name: &'static str, came: Came) -> Row {
    Row { name, came }
}

/// Runs rows one after another, each beside plans of two domains that mean well.
async fn all(rows: &[Row], is_hasty: bool) {
    let engines = engines();
    let engine = match is_hasty {
        true => &engines.hasty,
        false => &engines.patient,
    };
    let scene = Scene::open(engine).await;
    for Row { name, came } in rows {
        scene.play(name, came).await;
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_never_comes_back_is_ended_at_its_deadline() {
    let rows = [
        row(
            "loop.configure",
            Came::NotOpened("longer than its deadline"),
        ),
        row(
            "loop.reconcile",
            Came::NotOpened("longer than its deadline"),
        ),
        row("loop.advance", Came::ReadOnly("longer than its deadline")),
        row(
            "loop.next-deadline",
            Came::ReadOnly("longer than its deadline"),
        ),
        row(
            "loop.submit-plan",
            Came::Refused("longer than its deadline"),
        ),
        row("loop.submit", Came::Ended("failed")),
        row("loop.describe", Came::Failed("longer than its deadline")),
        row("loop.head", Came::Failed("longer than its deadline")),
        row("loop.snapshot", Came::Ended("success")),
        row(
            "loop.replay",
            Came::NotOpenedAgain("longer than its deadline"),
        ),
    ];
    all(&rows, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_without_bounds_is_bounded() {
    let rows = [
        row("grow.submit-plan", Came::Refused("memory")),
        row("grow.advance", Came::ReadOnly("memory")),
        row("grow.describe", Came::Failed("memory")),
        row("grow.replay", Came::NotOpenedAgain("memory")),
        row(
            "recurse-wide.submit-plan",
            Came::Refused("out of bounds memory"),
        ),
        row("recurse.submit-plan", Came::Refused("stack")),
        row("recurse.advance", Came::ReadOnly("stack")),
        row("recurse.replay", Came::NotOpenedAgain("stack")),
        row(
            "say-endlessly.submit-plan",
            Came::Refused("more in one call than its host keeps"),
        ),
        row(
            "notify-endlessly.advance",
            Came::ReadOnly("more in one call than its host keeps"),
        ),
        row("lines-aliased.advance", Came::ReadOnly("too much data")),
        row(
            "messages-aliased.submit-plan",
            Came::Refused("too much data"),
        ),
        row("lines-many.advance", Came::ReadOnly("is not a record")),
        row("line-long.advance", Came::ReadOnly("bytes; ")),
        row("messages-many.submit-plan", Came::Ended("success")),
        row("withdraw-many.submit-plan", Came::Ended("success")),
        row("snapshot-endless.snapshot", Came::Ended("success")),
        row("snapshot-long.snapshot", Came::Ended("success")),
        row(
            "more.advance",
            Came::ReadOnly("none of those that were is recorded"),
        ),
        row("more-recorded.advance", Came::ReadOnly("after 10000 calls")),
        row("busy.submit-plan", Came::Refused("busy with what is due")),
        row("busy.submit", Came::Ended("failed")),
        // It records the report and says that it did not: the ledger decides.
        row("retry-at-once.submit", Came::Ended("success")),
        row("retry-never.submit", Came::Ended("success")),
        row("deadline-past.next-deadline", Came::Ended("success")),
        row("deadline-never.next-deadline", Came::Ended("success")),
        row("echo.notice", Came::Ended("failed")),
    ];
    all(&rows, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_traps_or_refuses_loses_that_input_and_no_other() {
    let rows = [
        row(
            "trap.configure",
            Came::NotOpened("failed twice in configure"),
        ),
        row(
            "trap.reconcile",
            Came::NotOpened("failed twice in reconcile"),
        ),
        row(
            "trap.advance",
            Came::ReadOnly("please report it with the output of `qm2 ledger export`"),
        ),
        row(
            "trap.next-deadline",
            Came::ReadOnly("when the next timer is due"),
        ),
        row(
            "trap.submit-plan",
            Came::Refused("not recorded, please report it"),
        ),
        row("trap.submit", Came::Ended("failed")),
        row("trap.notice", Came::Ended("failed")),
        row("trap.acknowledge", Came::Ended("success")),
        row("trap.describe", Came::Failed("failed twice in describe")),
        row("trap.head", Came::Failed("failed twice in head")),
        row("trap.state-digest", Came::Ended("success")),
        row("trap.snapshot", Came::Ended("success")),
        row("trap.replay", Came::NotOpenedAgain("replay of the ledger")),
        row(
            "rebuild.submit-plan",
            Came::Refused("died in an earlier call"),
        ),
        row(
            "unavailable.submit-plan",
            Came::Refused("died in an earlier call"),
        ),
        row("unknown.submit-plan", Came::Failed("nothing")),
        row("read-only.submit-plan", Came::Failed("says so")),
        row("read-only.replay", Came::NotOpenedAgain("says so")),
        row("busy.replay", Came::NotOpenedAgain("busy")),
    ];
    all(&rows, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_contract_does_not_allow_never_reaches_the_store() {
    let rows = [
        row("append-twice.submit-plan", Came::Refused("appended twice")),
        row(
            "effects-first.submit-plan",
            Came::Refused("after it had handed effects out"),
        ),
        row("line-not-json.advance", Came::ReadOnly("is not a record")),
        row("line-empty.advance", Came::ReadOnly("is not a record")),
        row("line-seq.advance", Came::ReadOnly("says seq")),
        row("line-prev.advance", Came::ReadOnly("prev is not the hash")),
        row("line-hash.advance", Came::ReadOnly("its content has")),
        row("line-inside.advance", Came::ReadOnly("is no record")),
        row("line-twice.advance", Came::ReadOnly("is no record")),
        row("line-newline.advance", Came::ReadOnly("is no record")),
        row("line-seq.describe", Came::Failed("which only reads")),
        row("withdraw-many.head", Came::Failed("which only reads")),
        row("hook-unregistered.state-digest", Came::Ended("success")),
        row("key-path.check", Came::Ended("success")),
        row(
            "withdraw-many.replay",
            Came::NotOpenedAgain("which only reads"),
        ),
        row("key-empty.submit-plan", Came::Refused("no known form")),
        row("key-newline.submit-plan", Came::Refused("no known form")),
        row(
            "key-nul.submit-plan",
            Came::Refused("coordinationId that has '\\u{0}'"),
        ),
        row("key-of-another.submit-plan", Came::Refused("no known form")),
        row("key-path.submit-plan", Came::Refused("no known form")),
        row("key-question.submit-plan", Came::Refused("no known form")),
        row("lane-unknown.submit-plan", Came::Refused("control is due")),
        row(
            "lane-best-effort.submit-plan",
            Came::Refused("control is due"),
        ),
        row("intent.submit-plan", Came::Refused("intent")),
        row("session.submit-plan", Came::Refused("session")),
        row("delivery-0.submit-plan", Came::Refused("delivery 0")),
        row("delivery-max.submit-plan", Came::Ended("success")),
        row(
            "deadline-max.submit-plan",
            Came::Refused("deadline past every time"),
        ),
        row("hook-unregistered.submit-plan", Came::Ended("success")),
        row("hook-id.submit-plan", Came::Refused("no such id")),
    ];
    all(&rows, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_cannot_be_true_are_not_passed_on() {
    let rows = [
        row(
            "seq-unknown.submit-plan",
            Came::Refused("names record 9000000000000000"),
        ),
        row("seq-unknown.submit", Came::Ended("failed")),
        row("answers-none.submit", Came::Ended("failed")),
        row("answers-many.submit", Came::Ended("failed")),
        row("answers-many.notice", Came::Ended("failed")),
        row("answers-none.acknowledge", Came::Ended("success")),
        row("answers-shuffled.submit", Came::Ended("success")),
        row("head-seq.head", Came::Failed("is its last")),
        row("head-hash.head", Came::Failed("is its last")),
        row(
            "head-seq.replay",
            Came::NotOpenedAgain("after a replay up to record"),
        ),
        row(
            "head-hash.replay",
            Came::NotOpenedAgain("after a replay up to record"),
        ),
        row("head-seq.restore", Came::Ended("success")),
        row("digest-changes.state-digest", Came::Ended("success")),
        row("no-json.describe", Came::Ended("success")),
        row("snapshot-garbage.snapshot", Came::Ended("success")),
    ];
    all(&rows, false).await;
}
