//! One driver for all tests of the rules: the same inputs go through the core natively and through the component in
//! wasmtime, and after every call both must have said the same, byte for byte.
//!
//! When a scenario ends it also proves that folding its ledger gives the live state, see [`Scenario::end`], and that it is
//! the vector that other hosts are tested with, see [`record`]. Holds no rule of its own; what a rule says is in the tests.

mod asked;
mod build;
mod ledger;
mod native;
pub mod random;
pub mod record;
pub mod rule;
pub mod store;
pub mod vector;

pub use build::*;
pub use ledger::{chain_of, forge, members, reseal, types};
pub use native::Native;

use qm2_core::claim::{Access, ClaimRequest};
use qm2_core::config::Config;
use qm2_core::envelope::{Envelope, FailureClass};
use qm2_core::event::Record;
use qm2_core::message::{Caller, HookKind, HookVerdict, HumanVerdict, Message, Notice, NoticeKind};
use qm2_core::receipt::{
    CallError, GrantReceipt, GuardVerdict, PlanReceipt, Receipt, Rejection, Remedy,
};
use qm2_host::engine::{Answer, Call, Engine, HookRequest, Instance, Staged};
use record::Recording;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use vector::{Called, End, HostStep, Reconciled};

/// The compiled component, shared by all tests.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new().expect("the embedded component compiles"))
}

/// A running domain, twice, with everything that it has said so far.
pub struct Scenario {
    native: Native,
    instance: Instance,
    /// One that was made from the ledger or a snapshot meanwhile, and must go on like the live ones.
    shadow: Option<Native>,
    /// The time of the next call.
    pub now_ms: u64,
    /// The whole ledger.
    pub lines: Vec<String>,
    /// Everything handed out so far.
    sent: Vec<Message>,
    /// Every question to hooks and everything that hooks were told, in order.
    pub asks: Vec<HookRequest>,
    pub told: Vec<(HookKind, Value)>,
    /// What [`Scenario::expect`] and [`Scenario::expect_out`] have not seen yet.
    records_new: Vec<String>,
    out_new: Vec<String>,
    /// Target sessions by coordination and step.
    sessions: BTreeMap<(String, String), String>,
    finished: bool,
    /// Everything so far as a vector, where this is a test whose scenarios are kept.
    recording: Option<Recording>,
}

impl Scenario {
    /// A domain with the default configuration and the gate on, at time 0, its genesis already seen.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// As [`Scenario::new`], with another configuration.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut scenario = Self::blank();
        scenario.configure(change).expect("the configuration holds");
        scenario.seen();
        scenario
    }

    /// A domain that was never configured.
    pub fn blank() -> Self {
        let mut scenario = Self::apart();
        scenario.recording = Recording::begin();
        scenario
    }

    /// One that stands in for another and is no part of what the test does.
    fn apart() -> Self {
        Self {
            native: Native::default(),
            instance: engine().instance().expect("an instance can be made"),
            shadow: None,
            now_ms: 0,
            lines: Vec::new(),
            sent: Vec::new(),
            asks: Vec::new(),
            told: Vec::new(),
            records_new: Vec::new(),
            out_new: Vec::new(),
            sessions: BTreeMap::new(),
            finished: false,
            recording: None,
        }
    }

    // ---- calls ----

    /// Makes a call of both and compares everything that came of it.
    pub fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        let (answer, staged) = self.call_apart(call);
        if let Some(recording) = &mut self.recording {
            recording.call(Called::new(call, &answer, &staged));
        }
        self.note(staged);
        answer
    }

    /// As [`Scenario::call`], but no part of what the test does.
    fn call_apart(&mut self, call: &Call) -> (Result<Answer, CallError>, Staged) {
        let native = self.native.call(call);
        let ours = self.native.take_staged();
        let answered = self.instance.call(call);
        let component = answered.unwrap_or_else(|fault| panic!("{}: {fault}", call.name()));
        let theirs = self.instance.take_staged();
        assert_eq!(native, component, "{}: answers differ", call.name());
        assert_eq!(ours.lines, theirs.lines, "{}: lines differ", call.name());
        assert_eq!(ours, theirs, "{}: effects differ", call.name());
        if let Some(shadow) = &mut self.shadow {
            let theirs = shadow.call(call);
            // A fresh one may ask to be told the time once more often.
            let is_alike = theirs == native || matches!(call, Call::NextDeadline);
            assert!(is_alike, "{}: {theirs:?} is not {native:?}", call.name());
            assert_eq!(shadow.take_staged(), ours, "{}: the shadow", call.name());
        }
        (native, ours)
    }

    /// Sets the configuration: the default one with the gate on, changed.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), CallError> {
        let mut config = Config::new("d");
        config.phase1.enabled = true;
        change(&mut config);
        self.configure_text(&config_text(&config))
    }

    pub fn configure_text(&mut self, config: &str) -> Result<(), CallError> {
        let config = config.to_owned();
        self.call(&Call::Configure { config }).map(|_| ())
    }

    /// Submits a plan that must be taken, as its owner.
    pub fn plan(&mut self, plan: Json) -> PlanReceipt {
        self.try_plan(plan).expect("the plan is taken")
    }

    /// Submits a plan as its owner.
    pub fn try_plan(&mut self, plan: Json) -> Result<PlanReceipt, Rejection> {
        let owner = plan.text_of("ownerSession");
        let id = plan.text_of("coordinationId");
        for step in plan.0["steps"].as_array().into_iter().flatten() {
            let text = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
            let place = (id.clone(), text("stepId"));
            self.sessions.insert(place, text("targetSession"));
        }
        self.submit_plan(&owner, &plan.text())
    }

    pub fn submit_plan(&mut self, session: &str, plan: &str) -> Result<PlanReceipt, Rejection> {
        let call = Call::SubmitPlan {
            caller: caller(session),
            now_ms: self.now_ms,
            plan: plan.to_owned(),
        };
        match self.call(&call) {
            Ok(Answer::SubmitPlan(answer)) => answer,
            other => panic!("submit-plan: {other:?}"),
        }
    }

    /// Submits one envelope as its source session.
    pub fn submit(&mut self, envelope: Envelope) -> Result<Receipt, Rejection> {
        let session = envelope.source_session.clone();
        self.submit_as(caller(&session), envelope)
    }

    /// Submits one envelope as this caller.
    pub fn submit_as(&mut self, caller: Caller, envelope: Envelope) -> Result<Receipt, Rejection> {
        self.submit_all(caller, vec![envelope]).remove(0)
    }

    /// Submits envelopes in one call.
    pub fn submit_all(
        &mut self,
        caller: Caller,
        envelopes: Vec<Envelope>,
    ) -> Vec<Result<Receipt, Rejection>> {
        let before = self.lines.len() as u64;
        let call = Call::Submit {
            caller,
            now_ms: self.now_ms,
            envelopes,
        };
        match self.call(&call) {
            Ok(Answer::Submit(answers)) => {
                self.check_numbers(before, &answers);
                answers
            }
            other => panic!("submit: {other:?}"),
        }
    }

    /// Every answer of a batch as a short text; see [`brief`].
    pub fn ack(&mut self, step: &str, attempt: u32) -> String {
        let envelope = ack(step, attempt).by(&self.session("c", step));
        brief(&self.submit(envelope))
    }

    pub fn progress(&mut self, step: &str, attempt: u32, number: u64) -> String {
        let envelope = progress(step, attempt, number).by(&self.session("c", step));
        brief(&self.submit(envelope))
    }

    pub fn done(&mut self, step: &str, attempt: u32, payload: &str) -> String {
        let envelope = done(step, attempt, payload).by(&self.session("c", step));
        brief(&self.submit(envelope))
    }

    pub fn fail(&mut self, step: &str, attempt: u32, class: FailureClass, code: &str) -> String {
        let envelope = failed(step, attempt, class, code).by(&self.session("c", step));
        brief(&self.submit(envelope))
    }

    /// Cancels the plan `c` as its owner.
    pub fn cancel(&mut self) -> String {
        brief(&self.submit(cancel()))
    }

    pub fn cancel_step(&mut self, step: &str) -> String {
        brief(&self.submit(cancel_step(step)))
    }

    /// Says something about the message of an attempt of plan `c` as the host.
    pub fn notice(&mut self, step: &str, attempt: u32, kind: NoticeKind) -> String {
        let key = format!("c:{step}:{attempt}");
        brief(&self.notices(&[Notice { key, kind }])[0])
    }

    pub fn notices(&mut self, notices: &[Notice]) -> Vec<Result<Receipt, Rejection>> {
        let before = self.lines.len() as u64;
        let call = Call::Notice {
            now_ms: self.now_ms,
            notices: notices.to_vec(),
        };
        match self.call(&call) {
            Ok(Answer::Notice(answers)) => {
                self.check_numbers(before, &answers);
                answers
            }
            other => panic!("notice: {other:?}"),
        }
    }

    /// The answer of the hooks to a request.
    pub fn verdict(&mut self, hook_id: &str, handler: &str, verdict: HookVerdict) -> String {
        let call = Call::Verdict {
            now_ms: self.now_ms,
            hook_id: hook_id.to_owned(),
            handler: handler.to_owned(),
            verdict,
        };
        match self.call(&call) {
            Ok(Answer::Verdict(answer)) => brief(&answer),
            other => panic!("verdict: {other:?}"),
        }
    }

    /// A person's answer to a question.
    pub fn answer(
        &mut self,
        actor: Caller,
        escalation_id: &str,
        digest: &str,
        verdict: HumanVerdict,
        text: Option<&str>,
    ) -> String {
        let call = Call::Answer {
            actor,
            now_ms: self.now_ms,
            escalation_id: escalation_id.to_owned(),
            digest: digest.to_owned(),
            verdict,
            text: text.map(str::to_owned),
        };
        match self.call(&call) {
            Ok(Answer::Answer(answer)) => brief(&answer),
            other => panic!("answer: {other:?}"),
        }
    }

    /// An extra claim of a running step, as that step's session of plan `c`.
    pub fn claim(&mut self, request: ClaimRequest) -> Result<GrantReceipt, Rejection> {
        let session = self.session(&request.coordination_id, &request.step_id);
        self.claim_as(&session, request)
    }

    pub fn claim_as(
        &mut self,
        session: &str,
        request: ClaimRequest,
    ) -> Result<GrantReceipt, Rejection> {
        let call = Call::Claim {
            caller: caller(session),
            now_ms: self.now_ms,
            request,
        };
        match self.call(&call) {
            Ok(Answer::Claim(answer)) => answer,
            other => panic!("claim: {other:?}"),
        }
    }

    /// Begins leases of a step of plan `c` anew, as its session.
    pub fn renew(
        &mut self,
        step: &str,
        attempt: u32,
        tokens: &[u64],
    ) -> Result<Vec<GrantReceipt>, Rejection> {
        let call = Call::Renew {
            caller: caller(&self.session("c", step)),
            now_ms: self.now_ms,
            coordination_id: "c".into(),
            step_id: step.into(),
            attempt,
            tokens: tokens.to_vec(),
        };
        match self.call(&call) {
            Ok(Answer::Renew(answer)) => answer,
            other => panic!("renew: {other:?}"),
        }
    }

    /// Gives grants of a step of plan `c` back, as its session.
    pub fn release(&mut self, step: &str, attempt: u32, tokens: &[u64]) -> String {
        let call = Call::Release {
            caller: caller(&self.session("c", step)),
            now_ms: self.now_ms,
            coordination_id: "c".into(),
            step_id: step.into(),
            attempt,
            tokens: tokens.to_vec(),
        };
        match self.call(&call) {
            Ok(Answer::Release(answer)) => brief(&answer),
            other => panic!("release: {other:?}"),
        }
    }

    /// The guard at the present time, for all of a resource.
    pub fn check(
        &mut self,
        resource: &str,
        session: &str,
        token: u64,
        mode: Access,
    ) -> GuardVerdict {
        let call = Call::Check {
            now_ms: self.now_ms,
            resource: resource.to_owned(),
            session: session.to_owned(),
            token,
            mode,
            regions: Vec::new(),
            base_version: None,
        };
        match self.call(&call) {
            Ok(Answer::Check(verdict)) => verdict,
            other => panic!("check: {other:?}"),
        }
    }

    /// Acknowledges reports as their owner.
    pub fn read(&mut self, keys: &[&str]) -> Vec<String> {
        self.read_as(OWNER, keys)
    }

    pub fn read_as(&mut self, session: &str, keys: &[&str]) -> Vec<String> {
        let call = Call::Acknowledge {
            caller: caller(session),
            now_ms: self.now_ms,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        match self.call(&call) {
            Ok(Answer::Acknowledge(answers)) => answers.iter().map(brief).collect(),
            other => panic!("acknowledge: {other:?}"),
        }
    }

    /// Acknowledges every report that is open, as the owner of its coordination.
    pub fn read_all(&mut self) {
        let open: Vec<(String, String)> = self
            .sent
            .iter()
            .filter(|message| message.key.starts_with("report:"))
            .map(|message| (message.envelope.target_session.clone(), message.key.clone()))
            .collect();
        for (owner, key) in open {
            self.read_as(&owner, &[&key]);
        }
    }

    /// Sets the time and advances to it, as often as there is more.
    pub fn advance(&mut self, at_ms: u64) {
        self.now_ms = at_ms;
        while self.advance_once(at_ms) == Ok(true) {}
    }

    /// One `advance`; whether there is more.
    pub fn advance_once(&mut self, now_ms: u64) -> Result<bool, CallError> {
        match self.call(&Call::Advance { now_ms })? {
            Answer::Advance(more) => Ok(more),
            other => panic!("advance: {other:?}"),
        }
    }

    pub fn next_deadline(&mut self) -> Option<u64> {
        match self.call(&Call::NextDeadline) {
            Ok(Answer::NextDeadline(at_ms)) => at_ms,
            other => panic!("next-deadline: {other:?}"),
        }
    }

    pub fn reconcile(&mut self) {
        assert_eq!(self.call(&Call::Reconcile), Ok(Answer::Reconcile));
    }

    /// A coordination as `describe` shows it; the domain for an empty id.
    pub fn describe(&mut self, id: &str) -> Value {
        match self.call(&Call::Describe { id: id.to_owned() }) {
            Ok(Answer::Describe(text)) => serde_json::from_str(&text).expect("describe is JSON"),
            other => panic!("describe: {other:?}"),
        }
    }

    /// As [`Scenario::describe`], but only the test looks.
    fn look(&mut self, id: &str) -> Value {
        match self.call_apart(&Call::Describe { id: id.to_owned() }) {
            (Ok(Answer::Describe(text)), _) => parse(&text),
            (other, _) => panic!("describe: {other:?}"),
        }
    }

    /// State of plan `c`, or of one of its steps, as `describe` shows it.
    pub fn state(&mut self) -> String {
        let view = self.look("c");
        view["state"].as_str().unwrap_or_default().to_owned()
    }

    pub fn step_state(&mut self, step: &str) -> String {
        let view = self.look("c");
        let steps = view["steps"].as_array().expect("a live coordination");
        let found = steps.iter().find(|entry| entry["stepId"] == step);
        found.expect("the step is there")["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// What a step of plan `c` waits for.
    pub fn waits_for(&mut self, step: &str) -> Value {
        let call = Call::ExplainWait {
            id: "c".into(),
            step_id: step.into(),
        };
        match self.call(&call) {
            Ok(Answer::ExplainWait(text)) => {
                let view: Value = serde_json::from_str(&text).expect("explain-wait is JSON");
                view["waitsFor"].clone()
            }
            other => panic!("explain-wait: {other:?}"),
        }
    }

    pub fn digest(&mut self) -> String {
        match self.call(&Call::StateDigest) {
            Ok(Answer::StateDigest(digest)) => digest,
            other => panic!("state-digest: {other:?}"),
        }
    }

    /// A crash and the way back: both are made anew from the ledger and go on.
    pub fn restart(&mut self) {
        let digest = self.digest();
        self.rebuild();
        assert_eq!(self.digest(), digest, "the folded state is another one");
    }

    /// A call during which the instance is lost, with all that it said, and the way back.
    pub fn lose(&mut self, call: &Call) {
        let digest = self.digest();
        if let Some(recording) = &mut self.recording {
            recording.host(HostStep::Lost(call.clone()));
        }
        self.shadow = None;
        let _ = self.call_apart(call);
        self.replay();
        assert_eq!(self.digest(), digest, "the folded state is another one");
    }

    /// From here on the host takes no lines, until the next instance.
    pub fn refuse_appends(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.host(HostStep::RefuseAppends(true));
        }
        self.shadow = None;
        self.native.refuse_appends();
        self.instance.refuse_appends();
    }

    /// What a host does when its instance is spent: a new one is made from the ledger.
    pub fn rebuild(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.host(HostStep::Restart(true));
        }
        self.replay();
    }

    fn replay(&mut self) {
        self.shadow = None;
        self.native = Native::default();
        self.instance = engine().instance().expect("an instance can be made");
        let call = Call::Replay {
            lines: self.lines.clone(),
            checked: false,
        };
        self.call_apart(&call).0.expect("the ledger replays");
    }

    /// From here on one that was replayed from the ledger makes every call as well.
    pub fn shadow_replayed(&mut self) {
        let mut shadow = Native::default();
        shadow.replay(&self.lines, true);
        self.shadow = Some(shadow);
    }

    /// From here on one that was restored from a snapshot makes every call as well.
    pub fn shadow_restored(&mut self) {
        self.shadow = None;
        let mut shadow = Native::default();
        for call in self.restore_calls() {
            shadow.call(&call).expect("the snapshot is taken in");
        }
        self.shadow = Some(shadow);
    }

    /// The calls that bring a fresh instance into the present state.
    fn restore_calls(&mut self) -> Vec<Call> {
        let (mut calls, mut cursor, max_bytes) = (Vec::new(), None, 2_000);
        loop {
            let (answer, _) = self.call_apart(&Call::Snapshot { cursor, max_bytes });
            let Ok(Answer::Snapshot(piece)) = answer else {
                panic!("a snapshot can be taken")
            };
            let (chunk, last) = (piece.chunk, piece.next.is_none());
            calls.push(Call::Restore { chunk, last });
            cursor = piece.next;
            if last {
                return calls;
            }
        }
    }

    // ---- what came of it ----

    /// The records since the last look, as `type subject`; see [`label`].
    #[track_caller]
    pub fn expect(&mut self, labels: &[&str]) {
        assert_eq!(std::mem::take(&mut self.records_new), labels, "records");
    }

    /// What was handed out since the last look; see [`Scenario::note`] for its form.
    #[track_caller]
    pub fn expect_out(&mut self, out: &[&str]) {
        assert_eq!(std::mem::take(&mut self.out_new), out, "handed out");
    }

    /// Everything so far counts as looked at.
    pub fn seen(&mut self) {
        self.records_new.clear();
        self.out_new.clear();
    }

    /// The last record of this label.
    #[track_caller]
    pub fn record(&self, wanted: &str) -> Value {
        let records = self.lines.iter().rev().map(|line| parse(line));
        let mut found = records.filter(|record| label(record) == wanted);
        found
            .next()
            .unwrap_or_else(|| panic!("no record {wanted}; there are {:#?}", self.labels()))
    }

    /// The `data` of the last record of this label.
    #[track_caller]
    pub fn data(&self, wanted: &str) -> Value {
        self.record(wanted)["data"].clone()
    }

    /// Number of the last record of this label.
    #[track_caller]
    pub fn seq(&self, wanted: &str) -> u64 {
        self.record(wanted)["seq"].as_u64().expect("a number")
    }

    /// Label of the record that led to the last one of this label.
    #[track_caller]
    pub fn cause(&self, wanted: &str) -> String {
        let cause = self.record(wanted)["cause"].as_u64();
        let line = &self.lines[cause.expect("it has a cause") as usize - 1];
        label(&parse(line))
    }

    /// Labels of the whole ledger.
    pub fn labels(&self) -> Vec<String> {
        self.lines.iter().map(|line| label(&parse(line))).collect()
    }

    /// The last message of this key.
    #[track_caller]
    pub fn message(&self, key: &str) -> &Message {
        let found = self.sent.iter().rev().find(|message| message.key == key);
        found.unwrap_or_else(|| panic!("no message {key}"))
    }

    fn session(&self, id: &str, step: &str) -> String {
        let known = self.sessions.get(&(id.to_owned(), step.to_owned()));
        known.cloned().unwrap_or_else(|| format!("agent:{step}"))
    }

    /// Keeps what a call said. Handed out is written as `KEY#DELIVERY LANE`, with `best_effort` behind it where it went
    /// straight to a lane, `-KEY` for withdrawn from the queue, `-KEY best_effort` for withdrawn from a lane, `?ID KIND` for
    /// what hooks are asked, and `!KIND` for what they are told.
    fn note(&mut self, staged: Staged) {
        let text =
            |message: &Message| format!("{}#{} {}", message.key, message.delivery, message.lane);
        self.out_new.extend(staged.messages.iter().map(text));
        for (lane, priority, message) in &staged.lane_messages {
            assert_eq!((lane, *priority), (&message.lane, message.priority));
            self.out_new.push(format!("{} best_effort", text(message)));
        }
        let withdrawn = staged.withdrawn.iter().map(|key| format!("-{key}"));
        self.out_new.extend(withdrawn);
        let cancelled = staged.lane_cancelled.iter();
        self.out_new
            .extend(cancelled.map(|key| format!("-{key} best_effort")));
        let asks = staged.asks.iter();
        self.out_new
            .extend(asks.map(|ask| format!("?{} {}", ask.hook_id, ask.kind.name())));
        let told = staged.notifications.iter();
        self.out_new
            .extend(told.map(|(kind, _)| format!("!{}", kind.name())));
        self.asks.extend(staged.asks);
        let told = staged.notifications.into_iter();
        self.told
            .extend(told.map(|(kind, subject)| (kind, parse(&subject))));
        let labels = staged.lines.iter().map(|line| label(&parse(line)));
        self.records_new.extend(labels);
        self.sent.extend(staged.messages);
        let lanes = staged.lane_messages.into_iter();
        self.sent.extend(lanes.map(|(_, _, message)| message));
        self.lines.extend(staged.lines);
    }

    /// What took effect names the record that it wrote; what is known names an earlier one or none.
    fn check_numbers(&self, before: u64, answers: &[Result<Receipt, Rejection>]) {
        let after = self.lines.len() as u64;
        for answer in answers {
            let (seq, is_new) = match answer {
                Ok(receipt) => (
                    receipt.seq,
                    receipt.status == qm2_core::receipt::ReceiptStatus::Accepted,
                ),
                Err(rejection) => (rejection.seq, rejection.seq.is_some()),
            };
            match seq {
                Some(seq) if is_new => assert!(before < seq && seq <= after, "{answer:?}"),
                Some(seq) => assert!(seq <= after, "{answer:?}"),
                None => assert!(!is_new, "{answer:?}"),
            }
            if let Err(Rejection { seq: Some(seq), .. }) = answer {
                let record = parse(&self.lines[*seq as usize - 1]);
                assert_eq!(record["type"], "input.rejected", "{answer:?}");
            }
        }
    }

    // ---- the end ----

    /// What a scenario proves at its end: the chain holds, every line reads back to itself and has the members of SPEC section
    /// 4 in their order, and a fresh machine, a fresh component after replay and one after snapshot and restore are in the
    /// state of the live ones and hand the same out again.
    fn end(&mut self) -> End {
        self.finished = true;
        let head = chain_of(&self.lines).expect("the chain holds");
        for (index, line) in self.lines.iter().enumerate() {
            ledger::check_form(line);
            let (record, prev, _) = Record::parse_linked(line).expect("the line is a record");
            assert_eq!(&record.line(&prev).0, line, "the line reads back to itself");
            assert!(record.cause.is_none_or(|cause| cause <= index as u64));
        }
        ledger::check_causes(&self.lines);
        let (answer, _) = self.call_apart(&Call::Head);
        assert_eq!(answer, Ok(Answer::Head(head.clone())));
        let digest = self.digest_apart();
        let (reconciled, out) = self.call_apart(&Call::Reconcile);

        let mut folded = Native::default();
        folded.replay(&self.lines, true);
        assert_eq!(folded.digest(), digest, "native: the folded state");
        let mut folded = Self::apart();
        for lines in self.lines.chunks(7) {
            let (lines, checked) = (lines.to_vec(), false);
            let (replayed, _) = folded.call_apart(&Call::Replay { lines, checked });
            replayed.expect("the ledger replays");
        }
        assert_eq!(folded.digest_apart(), digest, "component: the folded state");
        folded.expect_same_again(&reconciled, &out);

        let mut restored = Self::apart();
        for call in self.restore_calls() {
            let (taken, _) = restored.call_apart(&call);
            taken.expect("the snapshot is taken in");
        }
        assert_eq!(restored.digest_apart(), digest, "the restored state");
        restored.expect_same_again(&reconciled, &out);
        End {
            head,
            state_digest: digest,
            reconcile: Reconciled::new(&reconciled, &out),
        }
    }

    fn digest_apart(&mut self) -> String {
        match self.call_apart(&Call::StateDigest) {
            (Ok(Answer::StateDigest(digest)), _) => digest,
            (other, _) => panic!("state-digest: {other:?}"),
        }
    }

    fn expect_same_again(&mut self, reconciled: &Result<Answer, CallError>, out: &Staged) {
        let (again, out_again) = self.call_apart(&Call::Reconcile);
        assert_eq!(&again, reconciled);
        assert_eq!(&out_again, out, "what is out is handed out again alike");
        self.finished = true;
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        // A scenario that failed has said so already; one that stands in for another is checked by it.
        if self.finished || std::thread::panicking() {
            return;
        }
        let end = self.native.is_usable().then(|| self.end());
        if let Some(recording) = self.recording.take() {
            recording.finish(end);
        }
    }
}

/// A line as JSON.
pub fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("a line is JSON")
}

/// `type step:attempt`, `type key` for what is about a report, `type id` for coordinations other than `c`, which also stand
/// before their steps.
pub fn label(record: &Value) -> String {
    let type_name = record["type"].as_str().unwrap_or_default();
    let id = record["coordinationId"].as_str().unwrap_or("c");
    let of = if id == "c" {
        String::new()
    } else {
        format!("{id}/")
    };
    if let Some(step) = record["stepId"].as_str() {
        return format!("{type_name} {of}{step}:{}", record["attempt"]);
    }
    if let Some(key) = record["data"]["key"].as_str() {
        return format!("{type_name} {of}{key}");
    }
    match id {
        "c" => type_name.to_owned(),
        _ => format!("{type_name} {id}"),
    }
}

/// `status state` of a receipt, `code field remedy` of a rejection.
pub fn brief(answer: &Result<Receipt, Rejection>) -> String {
    match answer {
        Ok(receipt) => {
            let status = serde_json::to_value(receipt.status).expect("a word");
            let status = status.as_str().unwrap_or_default().to_owned();
            format!("{status} {}", receipt.state)
        }
        Err(rejection) => brief_rejection(rejection),
    }
}

/// `code field remedy`, with `-` where no field is to blame.
pub fn brief_rejection(rejection: &Rejection) -> String {
    let next = match rejection.next {
        Remedy::Fix => "fix".to_owned(),
        Remedy::Retry { after_ms } => format!("retry({after_ms})"),
        Remedy::Stop => "stop".to_owned(),
        Remedy::Ask => "ask".to_owned(),
    };
    let field = match rejection.field.as_str() {
        "" => "-",
        field => field,
    };
    format!("{} {field} {next}", rejection.code.name())
}
