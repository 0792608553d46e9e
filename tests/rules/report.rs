//! Reports to owners: R-25. What an owner is told, how often, and what happens to what it never reads.

use crate::support::*;
use qm2_core::envelope::{DeliveryMode, FailureClass, Intent, Outcome, Priority};
use serde_json::{Value, json};

const PERMANENT: FailureClass = FailureClass::Permanent;

/// Reports that a plan of one completed, one failed, one timed out and one skipped step sends.
fn reported(reports: &str) -> Vec<String> {
    let mut s = Scenario::new();
    s.plan(
        plan([
            step("done"),
            step("failed"),
            step("slow").set("timeoutMs", 5),
            step("skipped").after("failed"),
        ])
        .set("reports", reports),
    );
    s.done("done", 1, "out");
    s.fail("failed", 1, PERMANENT, "x");
    s.advance(5);
    let labels = s.labels();
    let open = s.describe("c")["reports"].clone();
    let subject = |report: &Value| {
        let key = report["key"].as_str().unwrap();
        let seq: usize = key.strip_prefix("report:").unwrap().parse().unwrap();
        assert_eq!(report["delivery"], 1);
        labels[seq - 1].clone()
    };
    open.as_array().unwrap().iter().map(subject).collect()
}

#[test]
fn r_25_the_owner_is_told_of_the_end_and_of_what_the_plan_says() {
    let end = "coordination.terminal";
    let (failed, slow) = ("step.failed failed:1", "step.timed_out slow:1");
    assert_eq!(reported("end"), [end]);
    assert_eq!(reported("failures"), [failed, slow, end]);
    let all = [
        "step.completed done:1",
        failed,
        "step.skipped skipped:1",
        slow,
        end,
    ];
    assert_eq!(reported("all"), all);
}

#[test]
fn r_25_the_report_of_the_end_says_how_it_ended() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]).set("priority", "high"));
    s.done("a", 1, "out");
    let key = format!("report:{}", s.seq("coordination.terminal"));
    let message = s.message(&key);
    assert_eq!((message.lane.as_str(), message.delivery), ("data", 1));
    assert_eq!(message.delivery_mode, DeliveryMode::AtLeastOnce);
    assert_eq!(message.priority, Priority::High);
    let envelope = &message.envelope;
    assert_eq!(envelope.intent, Intent::Report);
    assert_eq!(
        (
            envelope.source_session.as_str(),
            envelope.target_session.as_str()
        ),
        ("qm2:d", OWNER)
    );
    assert_eq!((&envelope.step_id, envelope.attempt), (&None, None));
    assert_eq!(envelope.outcome, Some(Outcome::Completed));
    let payload: Value = serde_json::from_str(envelope.payload.as_deref().unwrap()).unwrap();
    let counts = json!({"completed": 1, "failed": 0, "timedOut": 0, "cancelled": 0, "skipped": 0});
    let plan_digest = s.data("coordination.created")["planDigest"].clone();
    assert_eq!(
        payload,
        json!({"terminal": "success", "counts": counts, "planDigest": plan_digest})
    );
}

#[test]
fn r_25_the_report_of_a_step_says_how_it_ended() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]).set("reports", "all"));
    s.done("a", 1, "out");
    s.fail("b", 1, PERMANENT, "broken");
    let of = |s: &Scenario, label: &str| s.message(&format!("report:{}", s.seq(label))).clone();
    let completed = of(&s, "step.completed a:1").envelope;
    assert_eq!(
        (completed.step_id.as_deref(), completed.attempt),
        (Some("a"), Some(1))
    );
    assert_eq!(completed.payload.as_deref(), Some("out"));
    assert_eq!(completed.source_session, "agent:a");
    let failed = of(&s, "step.failed b:1").envelope;
    let (class, code) = (PERMANENT, "broken".to_owned());
    let message = "broken happened".to_owned();
    assert_eq!(
        failed.outcome,
        Some(Outcome::Failed {
            class,
            code,
            message
        })
    );
}

#[test]
fn r_25_a_report_is_sent_again_until_it_is_acknowledged() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.done("a", 1, "");
    let key = format!("report:{}", s.seq("coordination.terminal"));
    s.seen();
    assert_eq!(s.next_deadline(), Some(30_000));
    s.advance(30_000);
    s.expect(&[&format!("message.redelivered {key}")]);
    s.expect_out(&[&format!("{key}#2 data")]);
    assert_eq!(
        s.cause(&format!("message.redelivered {key}")),
        "coordination.terminal"
    );
    // Only its owner can.
    let refused = s.read_as("user:x", &[&key]);
    assert_eq!(refused, ["unauthorized-session key ask"]);
    s.expect(&[]);
    assert_eq!(s.read(&[&key]), ["accepted closed"]);
    s.expect(&[&format!("message.acknowledged {key}")]);
    let data = s.data(&format!("message.acknowledged {key}"));
    assert_eq!(data, json!({"key": key, "session": OWNER}));
    assert_eq!(s.read(&[&key]), ["replayed acknowledged"]);
    assert_eq!(s.next_deadline(), None);
    s.advance(9_000_000);
    s.expect(&[]);
    assert_eq!(
        s.read(&["report:99", "report:0", "c:a:1", "report:01"]),
        ["unknown-key key fix"; 4]
    );
}

#[test]
fn r_25_an_acknowledged_report_of_a_step_leaves_the_rest_alone() {
    let mut s = Scenario::new();
    s.plan(plan([step("a"), step("b")]));
    s.fail("a", 1, PERMANENT, "x");
    let key = format!("report:{}", s.seq("step.failed a:1"));
    assert_eq!(s.read(&[&key]), ["accepted open"]);
    s.done("b", 1, "");
    let last = format!("report:{}", s.seq("coordination.terminal"));
    assert_eq!(
        s.read(&[&key, &last]),
        ["replayed acknowledged", "accepted closed"]
    );
}

#[test]
fn r_25_a_report_that_nobody_reads_is_given_up_listed_and_still_acknowledged() {
    let mut s = Scenario::new();
    s.plan(plan([step("a")]));
    s.done("a", 1, "");
    let key = format!("report:{}", s.seq("coordination.terminal"));
    s.seen();
    let waits = [30_000, 5_000, 25_000, 120_000, 600_000];
    let mut at_ms = 0;
    for (wait, delivery) in waits.into_iter().zip(2..) {
        at_ms += wait;
        s.advance(at_ms - 1);
        s.expect(&[]);
        s.advance(at_ms);
        s.expect(&[&format!("message.redelivered {key}")]);
        s.expect_out(&[&format!("{key}#{delivery} data")]);
    }
    s.advance(at_ms + 599_999);
    s.expect(&[]);
    s.advance(at_ms + 600_000);
    s.expect(&[&format!("message.undelivered {key}")]);
    let data = s.data(&format!("message.undelivered {key}"));
    assert_eq!(data, json!({"key": key, "deliveries": 6}));
    // No effect on states: the coordination is closed, and lists it.
    let view = s.describe("c");
    assert_eq!(
        (&view["state"], &view["terminal"]),
        (&json!("closed"), &json!("success"))
    );
    assert_eq!(
        view["reports"],
        json!([{"key": key, "delivery": 6, "undelivered": true}])
    );
    s.restart();
    s.seen();
    assert_eq!(s.read(&[&key]), ["accepted closed"]);
    assert_eq!(s.describe("c")["reports"], json!([]));
    assert_eq!(s.read(&[&key]), ["replayed acknowledged"]);
    s.expect(&[&format!("message.acknowledged {key}")]);
}

#[test]
fn r_25_an_undelivered_report_of_a_step_does_not_touch_what_still_runs() {
    let mut s = Scenario::new();
    s.plan(plan([
        step("a"),
        step("b")
            .set("timeoutMs", 9_000_000)
            .set("ackTimeoutMs", 9_000_000),
    ]));
    s.fail("a", 1, PERMANENT, "x");
    s.advance(2_000_000);
    for _ in 0..6 {
        let next = s.next_deadline().unwrap();
        s.advance(next.min(8_000_000));
    }
    assert!(
        s.labels()
            .iter()
            .any(|label| label.starts_with("message.undelivered"))
    );
    assert_eq!(
        (s.state(), s.step_state("b")),
        ("open".into(), "dispatched".into())
    );
    assert_eq!(s.describe("c")["reports"][0]["undelivered"], true);
}
