//! Random plans under random inputs: whatever comes in, the ledger folds to the live state, every plan ends, and what is
//! final stays so.
//!
//! Looks at the core from outside only: through its calls and its ledger. The component is compared with it elsewhere.

use proptest::prelude::*;
use qm2_core::config::Config;
use qm2_core::envelope::{Envelope, FailureClass, Intent, Outcome};
use qm2_core::event::{Event, Record};
use qm2_core::ledger::Chain;
use qm2_core::machine::Machine;
use qm2_core::message::{Caller, HookKind, Host, Message, Notice, NoticeKind, Refused, Role};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A host that keeps everything.
#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    messages: Vec<Message>,
}

impl Host for Kept {
    fn append(&mut self, lines: Vec<String>) -> Result<(), Refused> {
        self.lines.extend(lines);
        Ok(())
    }
    fn enqueue(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        self.messages.extend(messages);
        Ok(())
    }
    fn withdraw(&mut self, _: Vec<String>) -> Result<(), Refused> {
        Ok(())
    }
    fn enqueue_in_lane(&mut self, message: Message) -> Result<(), Refused> {
        self.messages.push(message);
        Ok(())
    }
    fn cancel(&mut self, _: Vec<String>) -> Result<(), Refused> {
        Ok(())
    }
    fn ask(&mut self, _: &str, _: HookKind, _: &str) -> Result<(), Refused> {
        Ok(())
    }
    fn notify(&mut self, _: HookKind, _: &str) -> Result<(), Refused> {
        Ok(())
    }
}

const STEPS: usize = 6;

fn step(index: usize) -> impl Strategy<Value = Value> {
    let edges = prop::collection::btree_map(0..STEPS, 0..3_usize, 0..3);
    let flags = (
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    );
    let words = (
        0..4_usize,
        prop::bool::weighted(0.15),
        1..4_u32,
        1..60_000_u64,
    );
    (edges, flags, words).prop_map(move |(edges, (any, idempotent, required, cleanup), words)| {
        let (priority, best_effort, attempts, timeout_ms) = words;
        // Only earlier steps, so that there is no cycle.
        let depends_on: Vec<Value> = edges
            .into_iter()
            .filter(|(parent, _)| *parent < index)
            .map(|(parent, on)| json!({"stepId": format!("s{parent}"), "on": (["success", "failure", "always"][on])}))
            .collect();
        json!({
            "stepId": format!("s{index}"),
            "targetSession": format!("agent:{}", index % 3),
            "dependsOn": depends_on,
            "join": if any { "any" } else { "all" },
            "priority": (["low", "normal", "high", "critical"][priority]),
            "deliveryMode": if best_effort { "best_effort" } else { "at_least_once" },
            "maxAttempts": if best_effort { 1 } else { attempts },
            "timeoutMs": timeout_ms,
            "idempotent": idempotent,
            "required": required,
            "cleanup": cleanup,
        })
    })
}

fn plan() -> impl Strategy<Value = Value> {
    let steps: Vec<_> = (0..STEPS).map(step).collect();
    let policy = (
        0..4_u64,
        any::<bool>(),
        prop::collection::vec(0..9_000_u64, 1..3),
    );
    (steps, policy, prop::option::of(1_000..90_000_u64), 0..3_usize).prop_map(
        |(steps, (budget, fail_fast, backoff), deadline_ms, reports)| {
            let mut plan = json!({
                "coordinationId": "c",
                "objective": "random",
                "ownerSession": "owner",
                "steps": steps,
                "failurePolicy": {
                    "retryBudget": budget,
                    "timeoutPolicy": if fail_fast { "fail_fast" } else { "continue_with_partial" },
                    "backoffMs": backoff,
                },
                "reports": (["end", "failures", "all"][reports]),
            });
            if let Some(deadline_ms) = deadline_ms {
                plan["deadlineMs"] = deadline_ms.into();
            }
            plan
        },
    )
}

/// One thing that happens; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Input {
    Ack(usize, u32),
    Report(usize, u32, u8, bool),
    Notice(usize, u8),
    Cancel(Option<usize>),
    Wait(u64),
    Acknowledge(usize),
    Rebuild,
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        3 => (0..STEPS, 1..4_u32).prop_map(|(step, attempt)| Input::Ack(step, attempt)),
        6 => (0..STEPS, 1..4_u32, 0..6_u8, prop::bool::weighted(0.1)).prop_map(|(s, a, what, lie)| Input::Report(s, a, what, lie)),
        1 => (0..STEPS, 0..4_u8).prop_map(|(step, kind)| Input::Notice(step, kind)),
        1 => prop::option::of(0..STEPS).prop_map(Input::Cancel),
        4 => (0..40_000_u64).prop_map(Input::Wait),
        1 => (0..8_usize).prop_map(Input::Acknowledge),
        1 => Just(Input::Rebuild),
    ]
}

struct World {
    machine: Machine,
    host: Kept,
    now_ms: u64,
}

impl World {
    fn owner() -> Caller {
        Caller {
            session: "owner".into(),
            role: None,
        }
    }

    fn envelope(
        step: usize,
        attempt: Option<u32>,
        source: &str,
        intent: Intent,
        outcome: Option<Outcome>,
    ) -> Envelope {
        let id = format!("s{step}");
        let text = json!({"coordinationId": "c", "stepId": id, "sourceSession": source, "targetSession": "owner", "intent": "ack"});
        let envelope: Envelope = serde_json::from_value(text).expect("an envelope");
        Envelope {
            attempt,
            intent,
            outcome,
            ..envelope
        }
    }

    fn submit(&mut self, caller: &str, role: Option<Role>, envelope: Envelope) {
        let caller = Caller {
            session: caller.to_owned(),
            role,
        };
        let answers = self
            .machine
            .submit(&mut self.host, &caller, self.now_ms, &[envelope]);
        assert_eq!(answers.expect("the call is within its bounds").len(), 1);
    }

    fn apply(&mut self, input: &Input) {
        match input {
            Input::Ack(step, attempt) => {
                let session = format!("agent:{}", step % 3);
                self.submit(
                    &session,
                    None,
                    Self::envelope(*step, Some(*attempt), &session, Intent::Ack, None),
                );
            }
            Input::Report(step, attempt, what, lie) => {
                let session = if *lie {
                    "agent:liar".to_owned()
                } else {
                    format!("agent:{}", step % 3)
                };
                let failed = |class| Outcome::Failed {
                    class,
                    code: "x".into(),
                    message: "did not work".into(),
                };
                let outcome = match what {
                    0 => failed(FailureClass::Retryable),
                    1 => failed(FailureClass::Permanent),
                    2 => failed(FailureClass::Unknown),
                    3 => Outcome::Progress {
                        number: u64::from(*attempt),
                    },
                    _ => Outcome::Completed,
                };
                let envelope = Self::envelope(
                    *step,
                    Some(*attempt),
                    &session,
                    Intent::Report,
                    Some(outcome),
                );
                self.submit(&session, None, envelope);
            }
            Input::Notice(step, kind) => {
                let kinds = [
                    NoticeKind::HostLost,
                    NoticeKind::UnknownTarget,
                    NoticeKind::Dropped,
                    NoticeKind::Taken,
                ];
                let attempt = self.attempt_of(*step);
                let notice = Notice {
                    key: format!("c:s{step}:{attempt}"),
                    kind: kinds[usize::from(*kind)],
                };
                let answers = self.machine.notice(&mut self.host, self.now_ms, &[notice]);
                assert_eq!(answers.expect("the call is within its bounds").len(), 1);
            }
            Input::Cancel(step) => {
                let mut envelope = Self::envelope(0, None, "owner", Intent::Cancel, None);
                envelope.step_id = step.map(|step| format!("s{step}"));
                self.submit("owner", None, envelope);
            }
            Input::Wait(wait_ms) => self.wait(*wait_ms),
            Input::Acknowledge(nth) => {
                let keys: Vec<String> = self
                    .host
                    .messages
                    .iter()
                    .map(|message| message.key.clone())
                    .collect();
                let reports: Vec<&String> = keys
                    .iter()
                    .filter(|key| key.starts_with("report:"))
                    .collect();
                if let Some(key) = reports.get(nth % reports.len().max(1)) {
                    let keys = vec![(*key).clone()];
                    let answers = self.machine.acknowledge(
                        &mut self.host,
                        &Self::owner(),
                        self.now_ms,
                        &keys,
                    );
                    assert!(answers.expect("the call is within its bounds")[0].is_ok());
                }
            }
            Input::Rebuild => self.rebuild(),
        }
    }

    fn wait(&mut self, wait_ms: u64) {
        self.now_ms += wait_ms;
        while self
            .machine
            .advance(&mut self.host, self.now_ms)
            .expect("time passes")
        {}
    }

    fn attempt_of(&self, step: usize) -> u64 {
        let text = self.machine.describe("c").expect("the plan is known");
        let view: Value = serde_json::from_str(&text).expect("describe is JSON");
        view["steps"][step]["attempt"].as_u64().unwrap_or(1)
    }

    /// The fold of the ledger and the snapshot both are the live state; goes on with the one from the snapshot.
    fn rebuild(&mut self) {
        let live = self.machine.state_digest().expect("a digest");
        let mut replayed = Machine::new();
        replayed
            .replay(&self.host.lines, false)
            .expect("the ledger holds");
        assert_eq!(
            replayed.state_digest().expect("a digest"),
            live,
            "the fold of the ledger is another state"
        );
        let mut restored = Machine::new();
        let mut cursor = None;
        loop {
            let piece = self
                .machine
                .snapshot(cursor.as_deref(), 1)
                .expect("a piece");
            restored
                .restore(&piece.chunk, piece.next.is_none())
                .expect("the piece fits");
            cursor = piece.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(
            restored.state_digest().expect("a digest"),
            live,
            "the snapshot is another state"
        );
        self.machine = restored;
        self.machine
            .reconcile(&mut self.host)
            .expect("what is out goes out again");
    }
}

/// Audits a whole ledger without the machine.
fn audit(lines: &[String], budget: u64) {
    let mut chain = Chain::default();
    let mut finals: BTreeSet<String> = BTreeSet::new();
    let mut out: BTreeMap<String, u32> = BTreeMap::new();
    let (mut retries, mut terminals) = (0, 0);
    for line in lines {
        chain.push(line).expect("the chain holds");
        let record = Record::parse(line).expect("a record");
        assert!(record.cause.is_none_or(|cause| cause < record.seq));
        let step = record.step_id.as_deref().unwrap_or_default().to_owned();
        let ends = matches!(
            record.event,
            Event::Completed(_)
                | Event::Failed(_)
                | Event::TimedOut(_)
                | Event::Cancelled(_)
                | Event::Skipped(_)
        );
        let idle = matches!(
            record.event,
            Event::InputLate(_) | Event::InputRejected(_) | Event::CancelRequested(_)
        );
        assert!(
            step.is_empty() || idle || !finals.contains(&step),
            "{step} went on after its end: {line}"
        );
        match &record.event {
            Event::Dispatched(_) => {
                assert!(
                    out.insert(step.clone(), record.attempt.unwrap_or(0))
                        .is_none(),
                    "{step} is out twice"
                );
            }
            Event::RetryScheduled(data) => {
                retries += u64::from(!data.free);
                out.remove(&step);
            }
            Event::Terminal(_) => terminals += 1,
            _ => {}
        }
        if ends {
            out.remove(&step);
            finals.insert(step);
        }
        assert!(out.len() <= 4, "more is out than the domain allows");
    }
    assert!(
        retries <= budget,
        "{retries} retries of a budget of {budget}"
    );
    assert_eq!(
        (finals.len(), terminals),
        (STEPS, 1),
        "every step and the plan end once"
    );
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_the_fold_is_the_state_and_every_plan_ends(
        plan in plan(),
        inputs in prop::collection::vec(input(), 0..60),
    ) {
        let mut world = World { machine: Machine::new(), host: Kept::default(), now_ms: 0 };
        let mut config = Config::new("random");
        config.phase1.enabled = true;
        world.machine.configure(&mut world.host, &config.to_json()).expect("the configuration holds");
        let answer = world.machine.submit_plan(&mut world.host, &World::owner(), 0, &plan.to_string());
        answer.expect("the call is within its bounds").expect("the plan is whole");
        for input in &inputs {
            world.apply(input);
            let closed = world.machine.describe("c").expect("the plan is known").contains("\"closed\"");
            if closed {
                break;
            }
        }
        // Nobody says anything any more: deadlines, budgets and redeliveries still bring it to its end.
        for _ in 0..60 {
            world.wait(30 * 60_000);
        }
        world.rebuild();
        let view = world.machine.describe("c").expect("the plan is known");
        prop_assert!(view.contains("\"closed\""), "{}", view);
        prop_assert_eq!(world.machine.next_deadline().expect("a deadline or none"), None);
        audit(&world.host.lines, plan["failurePolicy"]["retryBudget"].as_u64().unwrap_or(0));
    }
}
