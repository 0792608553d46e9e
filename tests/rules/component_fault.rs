//! an input that traps the component twice, and a timer that does. Real traps: the instance may grow to a few
//! megabytes only, and what comes in does not fit, or it may hand out a few only, and what a timer sends out does not.
//!
//! At the level of the host, since the component cannot know that it trapped.

use crate::support::*;
use qm2_core::config::Config;
use qm2_core::receipt::{Head, Rejection, RejectionCode, Remedy};
use qm2_host::agent::Task;
use qm2_host::clock::ManualClock;
use qm2_host::engine::{Answer, Call, Sandbox};
use qm2_host::{Domain, DomainBuilder, HostError};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

fn builder(data: &Path, sandbox: Sandbox, clock: &ManualClock) -> DomainBuilder {
    let mut config = Config::new("d");
    config.phase1.enabled = true;
    config.max_in_flight = 1_000;
    Domain::builder(data)
        .config(config)
        .sandbox(sandbox)
        .clock(clock.clone())
        // What is dispatched stays out.
        .agent("*", async |_: Task| std::future::pending().await)
}

async fn head(domain: &Domain) -> Head {
    match domain.call(Call::Head).await {
        Ok(Answer::Head(head)) => head,
        other => panic!("{other:?}"),
    }
}

async fn describe(domain: &Domain, id: &str) -> String {
    match domain.call(Call::Describe { id: id.into() }).await {
        Ok(Answer::Describe(view)) => view,
        other => panic!("{other:?}"),
    }
}

/// Waits until something holds; long, because the machine may be busy.
async fn until<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(120);
    tokio::time::timeout(patience, wait)
        .await
        .expect("it comes to hold");
}

fn heavy(id: &str, count: usize, on: Option<&str>) -> Json {
    let payload = "x".repeat(60 * 1024);
    let one = |n: usize| {
        // A session of its own, so that all of them can be out at once.
        let session = format!("agent:{id}:{n}");
        let step = step(&format!("h{n}"))
            .set("payload", payload.as_str())
            .set("targetSession", session);
        match on {
            Some(on) => step.on(on, "always"),
            None => step,
        }
    };
    let first = on.map(|on| {
        let session = format!("agent:{id}:{on}");
        step(on)
            .set("timeoutMs", 1_000)
            .set("targetSession", session)
    });
    let steps: Vec<Json> = first.into_iter().chain((0..count).map(one)).collect();
    plan(steps).set("coordinationId", id).set("reports", "end")
}

#[tokio::test(flavor = "multi_thread")]
async fn r_67_an_input_that_traps_twice_is_a_component_fault_and_leaves_no_record() {
    let (data, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(1));
    let sandbox = Sandbox {
        memory_bytes_max: 8 * MIB,
        ..Sandbox::default()
    };
    let domain = builder(data.path(), sandbox, &clock).open().await.unwrap();
    let before = head(&domain).await;
    let refused = domain.submit_plan(&heavy("c", 100, None).text()).await;
    let refused: Rejection = refused.unwrap().unwrap_err();
    assert_eq!(refused.code, RejectionCode::ComponentFault);
    assert_eq!(refused.next, Remedy::Ask);
    assert_eq!(head(&domain).await, before);
    // The instance was made anew and takes what fits.
    let taken = domain.submit_plan(&heavy("c", 1, None).text()).await;
    assert!(taken.unwrap().is_ok());
    domain.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r_67_a_timer_that_traps_twice_leaves_the_domain_read_only_and_says_how_to_report_it() {
    let (data, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(1));
    let sandbox = Sandbox {
        staged_bytes_max: 16 * MIB,
        ..Sandbox::default()
    };
    let domain = builder(data.path(), sandbox, &clock).open().await.unwrap();
    // Little is out now; at 1 001 all first steps time out at once, and 24 MB of messages are to go out in that call.
    for n in 0..40 {
        let plan = heavy(&format!("c{n}"), 10, Some("first"));
        let taken = domain.submit_plan(&plan.text()).await;
        assert!(taken.unwrap().is_ok());
    }
    // Each of them is created, dispatched and acknowledged.
    until(|| async { head(&domain).await.seq == 1 + 3 * 40 }).await;
    let before = head(&domain).await;
    clock.forward(1_000);
    let reason = Mutex::new(String::new());
    until(|| async {
        let (caller, now_ms, keys) = (caller(OWNER), 0, Vec::new());
        let call = Call::Acknowledge {
            caller,
            now_ms,
            keys,
        };
        match domain.call(call).await {
            Err(HostError::ReadOnly { reason: says }) => *reason.lock().unwrap() = says,
            other => assert!(other.is_ok(), "{other:?}"),
        }
        !reason.lock().unwrap().is_empty()
    })
    .await;
    let reason = reason.into_inner().unwrap();
    assert!(
        reason.contains("report it") && reason.contains("ledger export"),
        "{reason}"
    );
    // Nothing of that call was kept, and reading works.
    assert_eq!(head(&domain).await, before);
    assert!(describe(&domain, "c7").await.contains("\"state\":\"open\""));
    domain.close().await;

    // With more room the same ledger goes on where it was.
    let roomy = builder(data.path(), Sandbox::default(), &clock);
    let domain = roomy.open().await.unwrap();
    let timed_out =
        "\"stepId\":\"first\",\"targetSession\":\"agent:c7:first\",\"state\":\"timed_out\"";
    until(|| async { describe(&domain, "c7").await.contains(timed_out) }).await;
    domain.close().await;
}
