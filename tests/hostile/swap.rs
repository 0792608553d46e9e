//! Another component in the place of the embedded one: what is refused, what a batch loses, and that a snapshot is only for
//! the component that made it.
//!
//! The kinds of harm stand in the parent module.

use super::component;
use super::scene::{builder, engines, narrow, soon};
use crate::support::{Change as _, OWNER, caller, engine, plan, progress, step};
use qm2_core::config::Config;
use qm2_core::receipt::{RejectionCode, Remedy};
use qm2_host::agent::{AgentTable, Task};
use qm2_host::engine::{Answer, Call, Engine, Sandbox};
use qm2_host::sqlite::SqliteStore;
use qm2_host::store::Store;
use qm2_host::{Domain, HostError};
use std::path::Path;
use std::time::Duration;

#[test]
fn bytes_that_are_no_such_component_are_refused_with_a_reason() {
    let load = |bytes: &[u8]| match Engine::of_component(bytes, narrow(), None) {
        Ok(_) => panic!("{} bytes are taken for a component", bytes.len()),
        Err(HostError::Component(says)) => assert!(!says.is_empty()),
        Err(other) => panic!("{other}"),
    };
    load(b"");
    load(b"no component at all");
    // A core module, and a component without anything in it.
    load(b"\0asm\x01\0\0\0");
    load(b"\0asm\x0d\0\x01\0");
    let told = component::told();
    for part in 1..40 {
        load(&told[..told.len() * part / 40]);
    }
}

#[test]
fn an_instance_that_never_comes_to_be_is_ended_at_the_deadline() {
    let sandbox = Sandbox {
        call_deadline: Duration::from_millis(100),
        ..narrow()
    };
    let engine = Engine::of_component(component::stuck_at_start(), sandbox, None);
    let engine = engine.expect("nothing of it has run yet");
    match engine.instance() {
        Ok(_) => panic!("it came to be"),
        Err(HostError::Component(says)) => assert!(says.contains("interrupt"), "{says}"),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_loses_the_envelopes_that_trap_and_is_not_tried_for_ever() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = builder(folder.path(), "trap-on", &engines().patient)
        .agent("stays:*", async |_: Task| std::future::pending().await);
    let domain = domain.open().await.expect("it opens");
    let mut told = domain.subscribe();
    let plan = plan([step("a").set("targetSession", "stays:a")]).text();
    let taken = domain.submit_plan(&plan).await.expect("it is heard");
    taken.expect("it is taken");
    while !told
        .recv()
        .await
        .expect("a record")
        .contains("step.acknowledged")
    {}
    // Numbers of progress; those of the first list are poisoned.
    for (poisoned, faults, untried) in [(&[2_u64, 4][..], 2, 0), (&[6, 7, 8, 9, 10, 11][..], 4, 2)]
    {
        let numbers = poisoned[0] - 1..poisoned[0] + 6;
        let envelopes = numbers.map(|number| {
            let mut envelope = progress("a", 1, number).by("stays:a");
            if poisoned.contains(&number) {
                envelope.payload = Some("poison".into());
            }
            envelope
        });
        let call = Call::Submit {
            caller: caller("stays:a"),
            now_ms: 0,
            envelopes: envelopes.collect(),
        };
        let Ok(Answer::Submit(receipts)) = soon("a batch", domain.call(call)).await else {
            panic!("a batch is answered one by one");
        };
        assert_eq!(receipts.len(), 7);
        let refused: Vec<_> = receipts
            .iter()
            .filter_map(|item| item.as_ref().err())
            .collect();
        let of = |is_retry: bool| {
            let is_retry = |next: &Remedy| matches!(next, Remedy::Retry { .. }) == is_retry;
            refused.iter().filter(|one| is_retry(&one.next)).count()
        };
        assert_eq!((of(false), of(true)), (faults, untried), "{receipts:?}");
        let is_fault = |code| code == RejectionCode::ComponentFault;
        assert!(refused.iter().all(|one| is_fault(one.code)), "{receipts:?}");
        assert!(receipts[0].is_ok(), "{receipts:?}");
    }
    domain.close().await;
}

async fn digest(domain: &Domain) -> String {
    match domain.call(Call::StateDigest).await {
        Ok(Answer::StateDigest(digest)) => digest,
        other => panic!("state-digest: {other:?}"),
    }
}

/// Opens a directory that nobody serves.
async fn opened(data: &Path, engine: &Engine) -> Domain {
    let domain = builder(data, "means-well", engine).snapshot_every(0);
    let domain = domain.agents_for("nobody", AgentTable::new());
    domain.open().await.expect("it opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_goes_on_under_another_component_and_its_snapshot_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path();
    let snapshot = || {
        let store = SqliteStore::open_read_only(data).expect("a store");
        store.snapshot().expect("it is read")
    };
    let first = builder(data, "means-well", engine()).snapshot_every(1);
    let first = first.open().await.expect("it opens");
    for at in 0.. {
        let plan = plan([step("a")]).set("coordinationId", format!("c{at}"));
        let ended = first.run(&plan.text()).await.expect("it runs");
        assert_eq!(ended.terminal, "success");
        if first
            .with_store(|store| store.snapshot())
            .await
            .expect("it is read")
            .is_some()
        {
            break;
        }
        assert!(at < 10_000, "no snapshot is made");
    }
    let state = digest(&first).await;
    first.close().await;
    assert!(snapshot().is_some());
    // Its own is used.
    let again = opened(data, engine()).await;
    assert_eq!(digest(&again).await, state);
    again.close().await;
    assert!(snapshot().is_some());
    // Another's is not, and is dropped; the ledger gives the same state.
    let another = opened(data, &engines().patient).await;
    assert_eq!(digest(&another).await, state);
    another.close().await;
    assert_eq!(snapshot(), None);
    assert_ne!(
        engines().patient.component_digest(),
        engine().component_digest()
    );
}

#[test]
fn more_goes_out_again_in_one_call_than_the_engine_would_carry_over_by_itself() {
    // 128 MiB is what wasmtime lets pass in one call unless it is told otherwise.
    const PLANS: usize = 10;
    const STEPS: usize = 240;
    let mut instance = engine().instance().expect("an instance");
    let mut config = Config::new("d");
    config.phase1.enabled = true;
    config.max_in_flight = 100_000;
    let config = config.to_json();
    let mut made = |call: Call| {
        let name = call.name();
        let answer = instance
            .call(&call)
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
        answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        instance.take_staged()
    };
    made(Call::Configure { config });
    let payload = "x".repeat(60_000);
    for at in 0..PLANS {
        let step = |number: usize| {
            let step = step(&format!("s{number}")).set("payload", payload.as_str());
            step.set("targetSession", format!("agent:{at}:{number}"))
        };
        let plan = plan((0..STEPS).map(step)).set("coordinationId", format!("c{at}"));
        let staged = made(Call::SubmitPlan {
            caller: caller(OWNER),
            now_ms: 1,
            plan: plan.text(),
        });
        assert_eq!(staged.messages.len(), STEPS);
    }
    let staged = made(Call::Reconcile);
    let bytes = staged
        .messages
        .iter()
        .map(|message| message.envelope.payload.as_ref().map_or(0, String::len));
    assert!(bytes.sum::<usize>() > 128 << 20);
    assert_eq!(staged.messages.len(), PLANS * STEPS);
}
