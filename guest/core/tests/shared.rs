//! Random plans that share resources and ask people and hooks: whatever comes in, the ledger folds to the live state, no
//! two exclusive grants overlap, and every plan ends.
//!
//! The sibling of `random.rs`, which has plans that share nothing. Looks at the core from outside only.

use proptest::prelude::*;
use qm2_core::arbitration::Contender;
use qm2_core::claim::{Access, ClaimRequest, Mode, Region, are_disjoint, overlap};
use qm2_core::config::Config;
use qm2_core::envelope::{Envelope, FailureClass, Intent, Outcome, Question};
use qm2_core::event::{Event, Record};
use qm2_core::machine::Machine;
use qm2_core::message::{
    Caller, HookKind, HookVerdict, Host, HumanVerdict, Message, Notice, NoticeKind, Refused, Role,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A host that keeps everything.
#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    messages: Vec<Message>,
    asked: Vec<String>,
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
    fn ask(&mut self, hook_id: &str, _: HookKind, _: &str) -> Result<(), Refused> {
        self.asked.push(hook_id.to_owned());
        Ok(())
    }
    fn notify(&mut self, _: HookKind, _: &str) -> Result<(), Refused> {
        Ok(())
    }
}

const STEPS: usize = 5;
const PLANS: usize = 2;
const RESOURCES: [&str; 5] = ["file:a", "file:a/b", "file:a/c", "queue:q", "file:d"];
const STRATEGIES: [&str; 4] = [
    "owner_wins",
    "priority_wins",
    "merge_if_safe",
    "manual_review",
];

fn claims() -> impl Strategy<Value = Value> {
    let one = (
        any::<bool>(),
        1..30_000_u64,
        prop::option::of(0..2_u8),
        prop::option::of(0..3_u64),
    );
    prop::collection::btree_map(0..RESOURCES.len(), one, 0..4).prop_map(|claims| {
        let claim = |(resource, (shared, lease_ms, version, region)): (usize, _)| {
            let mut claim = json!({
                "resource": RESOURCES[resource],
                "mode": if shared { "shared" } else { "exclusive" },
                "leaseMs": lease_ms,
            });
            let (version, region): (Option<u8>, Option<u64>) = (version, region);
            if let Some(version) = version {
                claim["baseVersion"] = format!("v{version}").into();
            }
            if let Some(region) = region {
                claim["regions"] = json!([{"start": region * 10, "end": region * 10 + 10}]);
            }
            claim
        };
        claims.into_iter().map(claim).collect()
    })
}

fn step(index: usize) -> impl Strategy<Value = Value> {
    let flags = (
        any::<bool>(),
        prop::bool::weighted(0.8),
        any::<bool>(),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.1),
    );
    (claims(), flags, 0..4_usize, 1..60_000_u64).prop_map(
        move |(claims, (chained, idempotent, low, best_effort, cleanup), priority, timeout_ms)| {
            let depends_on = if chained && index > 1 {
                json!([{"stepId": format!("s{}", index - 2), "on": "always"}])
            } else {
                json!([])
            };
            json!({
                "stepId": format!("s{index}"),
                "targetSession": format!("agent:{index}"),
                "dependsOn": depends_on,
                "claims": claims,
                "priority": (["low", "normal", "high", "critical"][priority]),
                "deliveryMode": if best_effort { "best_effort" } else { "at_least_once" },
                "timeoutMs": timeout_ms,
                "idempotent": idempotent && !best_effort,
                "risk": if low { "low" } else { "high" },
                "cleanup": cleanup,
            })
        },
    )
}

fn plan(number: usize) -> impl Strategy<Value = Value> {
    let steps: Vec<_> = (0..STEPS).map(step).collect();
    let policy = (
        0..STRATEGIES.len(),
        0..STRATEGIES.len(),
        prop::option::of(0..STEPS),
        any::<bool>(),
        prop::bool::weighted(0.1),
    );
    let human = prop::option::weighted(
        0.7,
        (
            prop::collection::vec((0..2_usize, 1..40_000_u64), 1..3),
            1..3_u32,
            0..3_usize,
        ),
    );
    let ends = (0..3_u64, any::<bool>(), 20_000..200_000_u64);
    (steps, policy, human, ends).prop_map(move |(steps, policy, human, ends)| {
        let (default, rule, owner, preempt, risky) = policy;
        let (budget, fail_fast, deadline_ms) = ends;
        let mut plan = json!({
            "coordinationId": format!("c{number}"),
            "objective": "random",
            "ownerSession": format!("owner:{number}"),
            "steps": steps,
            "conflictPolicy": {
                "default": STRATEGIES[default],
                "rules": [{"resource": "file:a/*", "strategy": STRATEGIES[rule]}],
                "owners": owner.map(|step| json!({"resource": "file:**", "session": format!("agent:{step}")}))
                    .into_iter().collect::<Vec<_>>(),
                "highRisk": if risky { vec!["queue:*"] } else { vec![] },
                "preempt": preempt,
            },
            "failurePolicy": {
                "retryBudget": budget,
                "timeoutPolicy": if fail_fast { "fail_fast" } else { "continue_with_partial" },
                "backoffMs": [500],
            },
            "deadlineMs": deadline_ms,
        });
        if let Some((levels, required, fallback)) = human {
            let level = |(role, timeout_ms): (usize, u64)| {
                json!({"sessions": ["user:a", "user:b"], "minRole": (["operator", "admin"][role]), "timeoutMs": timeout_ms})
            };
            plan["failurePolicy"]["escalationPolicy"] = "hitl".into();
            plan["failurePolicy"]["human"] = json!({
                "levels": levels.into_iter().map(level).collect::<Vec<_>>(),
                "requiredApprovals": required,
                "fallback": (["deny", "block", "allow"][fallback]),
            });
        }
        plan
    })
}

/// One thing that happens; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Input {
    Ack(usize, usize),
    Report(usize, usize, u8),
    Escalate(usize, usize, u64),
    Answer(usize, u8, u8),
    Verdict(usize, u8),
    Claim(usize, usize, usize, bool),
    Lease(usize, usize, bool),
    Add(usize, usize, usize),
    Child(usize, usize, bool),
    Notice(usize, usize, u8),
    Unreachable(usize),
    Cancel(usize, Option<usize>),
    Wait(u64),
    Rebuild,
}

fn input() -> impl Strategy<Value = Input> {
    let (plan, step) = (0..PLANS, 0..STEPS);
    prop_oneof![
        2 => (plan.clone(), step.clone()).prop_map(|(p, s)| Input::Ack(p, s)),
        8 => (plan.clone(), step.clone(), 0..7_u8).prop_map(|(p, s, what)| Input::Report(p, s, what)),
        2 => (plan.clone(), step.clone(), 0..3_u64).prop_map(|(p, s, n)| Input::Escalate(p, s, n)),
        6 => (0..6_usize, 0..4_u8, 0..8_u8).prop_map(|(nth, who, what)| Input::Answer(nth, who, what)),
        6 => (0..6_usize, 0..6_u8).prop_map(|(nth, what)| Input::Verdict(nth, what)),
        3 => (plan.clone(), step.clone(), 0..RESOURCES.len(), any::<bool>()).prop_map(|(p, s, r, x)| Input::Claim(p, s, r, x)),
        2 => (plan.clone(), step.clone(), any::<bool>()).prop_map(|(p, s, back)| Input::Lease(p, s, back)),
        1 => (plan.clone(), step.clone(), 0..4_usize).prop_map(|(p, s, n)| Input::Add(p, s, n)),
        1 => (plan.clone(), step.clone(), any::<bool>()).prop_map(|(p, s, abandon)| Input::Child(p, s, abandon)),
        1 => (plan.clone(), step.clone(), 0..4_u8).prop_map(|(p, s, kind)| Input::Notice(p, s, kind)),
        1 => (0..6_usize).prop_map(Input::Unreachable),
        1 => (plan, prop::option::of(step)).prop_map(|(p, s)| Input::Cancel(p, s)),
        5 => (0..20_000_u64).prop_map(Input::Wait),
        1 => Just(Input::Rebuild),
    ]
}

struct World {
    machine: Machine,
    host: Kept,
    now_ms: u64,
    children: usize,
}

fn caller(session: &str, role: Option<Role>) -> Caller {
    Caller {
        session: session.to_owned(),
        role,
    }
}

impl World {
    fn view(&self, plan: &str) -> Value {
        let text = self.machine.describe(plan).expect("the plan is known");
        serde_json::from_str(&text).expect("describe is JSON")
    }

    fn attempt_of(&self, plan: usize, step: usize) -> u32 {
        let view = self.view(&format!("c{plan}"));
        let found = view["steps"].as_array().and_then(|steps| {
            let id = format!("s{step}");
            let step = steps.iter().find(|step| step["stepId"] == id.as_str())?;
            step["attempt"].as_u64()
        });
        found
            .and_then(|attempt| u32::try_from(attempt).ok())
            .unwrap_or(1)
    }

    fn envelope(&self, plan: usize, step: usize, intent: Intent) -> Envelope {
        let text = json!({
            "coordinationId": format!("c{plan}"), "stepId": format!("s{step}"),
            "sourceSession": format!("agent:{step}"), "targetSession": "owner", "intent": "ack",
        });
        let envelope: Envelope = serde_json::from_value(text).expect("an envelope");
        Envelope {
            attempt: Some(self.attempt_of(plan, step)),
            intent,
            ..envelope
        }
    }

    fn submit(&mut self, envelope: Envelope) {
        let caller = caller(&envelope.source_session.clone(), None);
        let answers = self
            .machine
            .submit(&mut self.host, &caller, self.now_ms, &[envelope]);
        assert_eq!(answers.expect("the call is within its bounds").len(), 1);
    }

    /// The questions that were ever asked, with their digests.
    fn questions(&self) -> Vec<(String, String)> {
        let escalated = |line: &String| match Record::parse(line).expect("a record").event {
            Event::Escalated(data) => Some((data.escalation_id, data.digest)),
            _ => None,
        };
        self.host.lines.iter().filter_map(escalated).collect()
    }

    fn apply(&mut self, input: &Input) {
        match input {
            Input::Ack(plan, step) => self.submit(self.envelope(*plan, *step, Intent::Ack)),
            Input::Report(plan, step, what) => {
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
                        number: self.now_ms,
                    },
                    _ => Outcome::Completed,
                };
                let mut envelope = self.envelope(*plan, *step, Intent::Report);
                envelope.outcome = Some(outcome);
                self.submit(envelope);
            }
            Input::Escalate(plan, step, number) => {
                let mut envelope = self.envelope(*plan, *step, Intent::Escalate);
                let text = "may I?".to_owned();
                envelope.question = Some(Question {
                    number: *number,
                    text,
                });
                self.submit(envelope);
            }
            Input::Answer(nth, who, what) => {
                let questions = self.questions();
                let Some((id, digest)) = questions.iter().rev().nth(*nth) else {
                    return;
                };
                let (session, role) = [
                    ("user:a", Role::Operator),
                    ("user:b", Role::Admin),
                    ("user:c", Role::User),
                    ("owner:0", Role::Owner),
                ][usize::from(*who)];
                let verdict = match what {
                    0 => HumanVerdict::Deny,
                    1 => HumanVerdict::Completed,
                    _ => HumanVerdict::Approve,
                };
                let digest = if *what == 7 { "0" } else { digest };
                let actor = caller(session, Some(role));
                let answer = self.machine.answer(
                    &mut self.host,
                    &actor,
                    self.now_ms,
                    id,
                    digest,
                    verdict,
                    Some("words"),
                );
                let _refused_or_not = answer.expect("the call is within its bounds");
            }
            Input::Verdict(nth, what) => {
                let Some(id) = self.host.asked.iter().rev().nth(*nth).cloned() else {
                    return;
                };
                let verdict = match what {
                    0 => HookVerdict::Deny("no".into()),
                    1 => HookVerdict::Review,
                    _ => HookVerdict::NoOpinion,
                };
                let answer =
                    self.machine
                        .verdict(&mut self.host, self.now_ms, &id, "handler", &verdict);
                assert!(answer.expect("the call is within its bounds").is_ok());
            }
            Input::Claim(plan, step, resource, exclusive) => {
                let session = format!("agent:{step}");
                let request = ClaimRequest {
                    coordination_id: format!("c{plan}"),
                    step_id: format!("s{step}"),
                    attempt: self.attempt_of(*plan, *step),
                    resource: RESOURCES[*resource].into(),
                    mode: if *exclusive {
                        Mode::Exclusive
                    } else {
                        Mode::Shared
                    },
                    lease_ms: 10_000,
                    base_version: None,
                    regions: Vec::new(),
                };
                let caller = caller(&session, None);
                let answer = self
                    .machine
                    .claim(&mut self.host, &caller, self.now_ms, &request);
                if let Ok(grant) = answer.expect("the call is within its bounds") {
                    let guard = self.machine.check(
                        self.now_ms,
                        RESOURCES[*resource],
                        &session,
                        grant.token,
                        Access::Read,
                        &[],
                        None,
                    );
                    assert!(guard.expect("a verdict").allowed);
                }
            }
            Input::Lease(plan, step, back) => {
                let (id, step_id) = (format!("c{plan}"), format!("s{step}"));
                let (caller, now_ms) = (caller(&format!("agent:{step}"), None), self.now_ms);
                let attempt = self.attempt_of(*plan, *step);
                let host = &mut self.host;
                if *back {
                    let answer =
                        self.machine
                            .release(host, &caller, now_ms, &id, &step_id, attempt, &[]);
                    let _refused_or_not = answer.expect("the call is within its bounds");
                } else {
                    let answer =
                        self.machine
                            .renew(host, &caller, now_ms, &id, &step_id, attempt, &[]);
                    let _refused_or_not = answer.expect("the call is within its bounds");
                }
            }
            Input::Add(plan, step, number) => {
                let mut envelope = self.envelope(*plan, *step, Intent::Execute);
                envelope.parent_step_id = envelope.step_id.clone();
                // Between the others in the order of the ids, so that steps move up.
                envelope.step_id = Some(format!("s{step}.{number}"));
                envelope.target_session = "agent:added".into();
                envelope.attempt = Some(1);
                self.submit(envelope);
            }
            Input::Child(plan, step, abandon) => {
                let owner = format!("agent:{step}");
                let child = json!({
                    "coordinationId": format!("child{}", self.children),
                    "objective": "random", "ownerSession": owner,
                    "steps": [{"stepId": "s0", "targetSession": "agent:child", "timeoutMs": 50_000}],
                    "parent": {
                        "coordinationId": format!("c{plan}"), "stepId": format!("s{step}"),
                        "onClose": if *abandon { "abandon" } else { "cancel" },
                    },
                });
                let answer = self.machine.submit_plan(
                    &mut self.host,
                    &caller(&owner, None),
                    self.now_ms,
                    &child.to_string(),
                );
                let taken = answer.expect("the call is within its bounds").is_ok();
                self.children += usize::from(taken);
            }
            Input::Notice(plan, step, kind) => {
                let kinds = [
                    NoticeKind::HostLost,
                    NoticeKind::UnknownTarget,
                    NoticeKind::Dropped,
                    NoticeKind::Taken,
                ];
                let attempt = self.attempt_of(*plan, *step);
                self.notice(
                    format!("c{plan}:s{step}:{attempt}"),
                    kinds[usize::from(*kind)],
                );
            }
            Input::Unreachable(nth) => {
                let keys = self.host.messages.iter().rev().map(|message| &message.key);
                let key = keys
                    .filter(|key| key.starts_with("escalation:"))
                    .nth(*nth)
                    .cloned();
                if let Some(key) = key {
                    self.notice(key, NoticeKind::Unreachable);
                }
            }
            Input::Cancel(plan, step) => {
                let mut envelope = self.envelope(*plan, 0, Intent::Cancel);
                envelope.source_session = format!("owner:{plan}");
                envelope.attempt = None;
                envelope.step_id = step.map(|step| format!("s{step}"));
                self.submit(envelope);
            }
            Input::Wait(wait_ms) => self.wait(*wait_ms),
            Input::Rebuild => self.rebuild(),
        }
    }

    fn notice(&mut self, key: String, kind: NoticeKind) {
        let notice = Notice { key, kind };
        let answers = self.machine.notice(&mut self.host, self.now_ms, &[notice]);
        assert_eq!(answers.expect("the call is within its bounds").len(), 1);
    }

    fn wait(&mut self, wait_ms: u64) {
        self.now_ms += wait_ms;
        while self
            .machine
            .advance(&mut self.host, self.now_ms)
            .expect("time passes")
        {}
    }

    /// The fold of the ledger and the snapshot both are the live state; goes on with the one from the snapshot.
    fn rebuild(&mut self) {
        let live = self.machine.state_digest().expect("a digest");
        let mut replayed = Machine::new();
        replayed
            .replay(&self.host.lines, false)
            .expect("the ledger holds");
        let digest = replayed.state_digest().expect("a digest");
        assert_eq!(digest, live, "the fold of the ledger is another state");
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
        let digest = restored.state_digest().expect("a digest");
        assert_eq!(digest, live, "the snapshot is another state");
        self.machine = restored;
        self.machine
            .reconcile(&mut self.host)
            .expect("what is out goes out again");
    }
}

/// A grant that is live somewhere in a ledger.
struct Live {
    place: (String, String),
    resource: String,
    mode: Mode,
    base_version: Option<String>,
    regions: Vec<Region>,
}

/// Audits who held what, without the machine.
fn audit(lines: &[String]) {
    let mut live: BTreeMap<u64, Live> = BTreeMap::new();
    let mut last = 0;
    for line in lines {
        let record = Record::parse(line).expect("a record");
        let place = (
            record
                .coordination_id
                .as_deref()
                .unwrap_or_default()
                .to_owned(),
            record.step_id.as_deref().unwrap_or_default().to_owned(),
        );
        match record.event {
            Event::Granted(data) => {
                assert!(record.seq > last, "tokens only grow");
                last = record.seq;
                for (token, other) in &live {
                    let meets = other.place != place
                        && overlap(&other.resource, &data.resource)
                        && (other.mode == Mode::Exclusive || data.mode == Mode::Exclusive);
                    let merged = other.base_version.is_some()
                        && other.base_version == data.base_version
                        && are_disjoint(&other.regions, &data.regions);
                    assert!(
                        !meets || merged,
                        "{} is granted twice: {token} and {line}",
                        data.resource
                    );
                }
                live.insert(
                    record.seq,
                    Live {
                        place,
                        resource: data.resource,
                        mode: data.mode,
                        base_version: data.base_version,
                        regions: data.regions,
                    },
                );
            }
            Event::Released(data) => {
                for token in data.tokens {
                    assert!(live.remove(&token).is_some(), "{token} is given back twice");
                }
            }
            Event::Expired(data) => {
                assert!(
                    live.remove(&data.token).is_some(),
                    "{} ran out twice",
                    data.token
                );
            }
            Event::Detected(data) => {
                let token = |held: &Contender| held.token;
                for token in data.holders.iter().filter_map(token) {
                    assert!(
                        live.contains_key(&token),
                        "{token} is met and not held: {line}"
                    );
                }
            }
            _ => {}
        }
    }
    assert!(live.is_empty(), "something is held for ever");
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_shared_the_fold_is_the_state_and_every_plan_ends(
        first in plan(0),
        second in plan(1),
        hooks in 0..4_u8,
        domain_owner in prop::option::of(0..STEPS),
        inputs in prop::collection::vec(input(), 0..80),
    ) {
        let mut world = World { machine: Machine::new(), host: Kept::default(), now_ms: 0, children: 0 };
        let mut config = Config::new("random");
        config.phase1.enabled = true;
        if hooks & 1 > 0 {
            config.hooks.push(HookKind::BeforeDispatch);
        }
        if hooks & 2 > 0 {
            config.hooks.push(HookKind::BeforeArbitrate);
        }
        config.owners.extend(domain_owner.map(|step| qm2_core::arbitration::Owner {
            resource: "file:**".into(),
            session: format!("agent:{step}"),
        }));
        world.machine.configure(&mut world.host, &config.to_json()).expect("the configuration holds");
        for (number, plan) in [first, second].iter().enumerate() {
            let owner = caller(&format!("owner:{number}"), None);
            let answer = world.machine.submit_plan(&mut world.host, &owner, 0, &plan.to_string());
            answer.expect("the call is within its bounds").expect("the plan is whole");
        }
        for input in &inputs {
            world.apply(input);
        }
        // Nobody says anything any more: deadlines, leases and levels still bring everything to its end.
        for _ in 0..80 {
            world.wait(30 * 60_000);
        }
        world.rebuild();
        let view = world.view("");
        for entry in view["coordinations"].as_array().expect("a list") {
            prop_assert!(entry["state"] == "closed", "{}", entry);
        }
        prop_assert_eq!(world.machine.next_deadline().expect("a deadline or none"), None);
        audit(&world.host.lines);
    }
}
