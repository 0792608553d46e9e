//! A host with its agents and people, on a virtual clock: loses, repeats, delays and reorders what is sent, dies, comes
//! back, and has a clock that jumps.
//!
//! Everything follows from one seed. At some moment the faults end, and then everything has to come to its end. Audits
//! nothing itself; see [`crate::audit`].

mod agent;

use crate::action::{Action, Way};
use crate::plan::{self, Taste};
use crate::random::Random;
use crate::runner::{Mode, Runner, crash, refuse};
use crate::target::Maker;
use agent::Work;
pub(crate) use agent::{caller, envelope};
use qm2_core::call::{Answer, Call};
use qm2_core::message::Message;
use qm2_core::receipt::CallError;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Events after which a domain that has not come to its end never will.
const EVENTS_MAX: u64 = 60_000;
/// Tries of a caller whose call was lost with the host.
const TRIES_MAX: u32 = 6;

/// Who made a call, and so what its answer leads to.
#[derive(Clone, Debug)]
enum Origin {
    /// Somebody who tries again until it is answered.
    Caller,
    /// A step that claims one more resource.
    Claim(Box<Work>),
    /// The host, which does not wait for the answer.
    Host,
}

#[derive(Debug)]
enum Event {
    Call(Call, Origin, u32),
    Deliver(Box<Message>),
    Ask(String),
    Finish(String),
    Claim(Work),
    Child(Work),
    Cancel(String, String),
    Tick,
    Reconcile,
    ClockStep,
    Crash,
    Configure,
}

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    /// Coordinations that it had.
    pub coordinations: u64,
    /// Records of its ledger.
    pub records: u64,
    /// Times that an instance was rebuilt.
    pub rebuilds: u64,
    /// What was done, if that was to be kept.
    pub log: Vec<Action>,
    /// The durable ledger, and the lines of the call that was violated.
    pub lines: Vec<String>,
    /// How the host made things durable.
    pub mode: Mode,
    /// The violation, if there was one.
    pub violation: Option<String>,
}

struct World<'a> {
    random: Random,
    runner: Runner<'a>,
    taste: Taste,
    now_ms: u64,
    /// The host's clock stands wrong by so much.
    ahead_ms: i64,
    agenda: BTreeMap<(u64, u64), Event>,
    tie: u64,
    /// Who waits for which call of this transaction.
    waiting: Vec<(Call, Origin, u32)>,
    works: BTreeMap<String, Work>,
    /// Keys that the host has given up and that must not be started any more.
    dropped: BTreeSet<String>,
    digests: BTreeMap<String, String>,
    config: Value,
    plans: u64,
    rebuilds: u64,
    is_faulty: bool,
    tick_at_ms: Option<u64>,
    is_reconciling: bool,
}

/// Runs the domain of a seed.
#[must_use]
pub fn run(maker: &Maker, seed: u64, keeps_log: bool) -> Outcome {
    let mut random = Random::new(seed);
    let mode = random.pick(&[Mode::Transaction, Mode::Transaction, Mode::AppendFirst]);
    let taste = Taste {
        steps: random.pick(&[2, 4, 7]),
        claims: random.pick(&[0, 200, 700]),
        people: random.pick(&[0, 300, 700]),
        deaths: random.pick(&[40, 40, 40, 700]),
    };
    let config = plan::config(&mut random);
    let mut world = World {
        runner: Runner::new(maker, mode, keeps_log),
        random,
        taste,
        now_ms: 1_000_000,
        ahead_ms: 0,
        agenda: BTreeMap::new(),
        tie: 0,
        waiting: Vec::new(),
        works: BTreeMap::new(),
        dropped: BTreeSet::new(),
        digests: BTreeMap::new(),
        config,
        plans: 0,
        rebuilds: 0,
        is_faulty: true,
        tick_at_ms: None,
        is_reconciling: false,
    };
    let violation = world.live().err();
    Outcome {
        coordinations: world.runner.audit.coordinations(),
        records: world.runner.audit.records,
        rebuilds: world.rebuilds,
        log: std::mem::take(&mut world.runner.log),
        lines: std::mem::take(&mut world.runner.lines),
        mode,
        violation,
    }
}

impl World<'_> {
    fn live(&mut self) -> Result<(), String> {
        let config = self.config.to_string();
        self.later(
            0,
            Event::Call(Call::Configure { config }, Origin::Caller, 0),
        );
        for _ in 0..self.random.within(1, 5) {
            let wait_ms = self.random.wait(20_000);
            self.new_plan(wait_ms);
        }
        for _ in 0..self.random.below(4) {
            let wait_ms = self.random.wait(60_000);
            let event = match self.random.below(8) {
                0..4 => Event::Crash,
                4..6 => Event::ClockStep,
                6 => Event::Reconcile,
                _ => Event::Configure,
            };
            self.later(wait_ms, event);
        }
        let calm_at_ms = self.now_ms + self.random.within(20_000, 400_000);
        let mut events = 0;
        while let Some(((at_ms, _), event)) = self.agenda.pop_first() {
            events += 1;
            if events > EVENTS_MAX {
                return Err(format!("does not come to its end in {EVENTS_MAX} events"));
            }
            self.now_ms = self.now_ms.max(at_ms);
            if self.now_ms >= calm_at_ms {
                self.is_faulty = false;
            }
            self.happen(event)?;
            if !self.is_faulty || self.random.chance(700) || self.agenda.is_empty() {
                self.commit()?;
            }
            if self.agenda.is_empty() {
                self.see_to_time()?;
            }
        }
        if let Err(violation) = self.runner.audit.check_end() {
            return Err(format!("{violation}{}", self.what_waits()));
        }
        self.check_memory()
    }

    fn later(&mut self, wait_ms: u64, event: Event) {
        self.tie += 1;
        self.agenda.insert((self.now_ms + wait_ms, self.tie), event);
    }

    /// What the host's clock shows.
    fn host_now(&self) -> u64 {
        self.now_ms.saturating_add_signed(self.ahead_ms)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Call(call, origin, tries) => self.call(call, origin, tries),
            Event::Deliver(message) => {
                if self.dropped.contains(&message.key) {
                    return Ok(());
                }
                self.receive(&message)
            }
            Event::Ask(hook_id) => {
                self.hook_asked(&hook_id);
                Ok(())
            }
            Event::Finish(key) => {
                self.finish(&key);
                Ok(())
            }
            Event::Claim(work) => {
                self.claim_more(&work);
                Ok(())
            }
            Event::Child(work) => {
                self.new_child(&work);
                Ok(())
            }
            Event::Cancel(id, owner) => {
                self.cancel(&id, &owner);
                Ok(())
            }
            Event::Tick => {
                self.tick_at_ms = None;
                self.call(Call::Advance { now_ms: 0 }, Origin::Host, 0)
            }
            Event::Reconcile => {
                self.is_reconciling = false;
                self.call(Call::Reconcile, Origin::Host, 0)
            }
            Event::ClockStep => {
                let by = i64::try_from(self.random.wait(30_000)).unwrap_or(0);
                self.ahead_ms += if self.random.chance(500) { by } else { -by };
                self.tick_at_ms = None;
                self.commit()
            }
            Event::Crash if self.runner.is_down => Ok(()),
            Event::Crash => {
                let lost = std::mem::take(&mut self.waiting);
                self.runner.act(Action::Crash)?;
                self.come_back(lost)
            }
            Event::Configure => {
                self.config["maxInFlight"] = self.random.within(1, 6).into();
                self.config["ackTimeoutMs"] = self.random.pick(&[400, 5_000, 30_000]).into();
                let config = self.config.to_string();
                self.later(0, Event::Tick);
                self.call(Call::Configure { config }, Origin::Caller, 0)
            }
        }
    }

    fn call(&mut self, mut call: Call, origin: Origin, tries: u32) -> Result<(), String> {
        call.set_now(self.host_now());
        self.join(&mut call);
        let fault = match self.random.below(1000) {
            _ if !self.is_faulty || call.is_reading() => None,
            0..4 => refuse(0),
            4..8 => crash(0),
            8..14 => crash(self.random.within(1, 4) as u32),
            14..22 => refuse(self.random.within(1, 4) as u32),
            _ => None,
        };
        self.waiting.push((call.clone(), origin, tries));
        let dones = self.runner.act(Action::Call { call, fault })?;
        self.take(dones)?;
        if self.runner.is_down {
            if self.runner.is_spent && self.random.chance(300) {
                // Whoever does not look answers `rebuild` here, and nothing else.
                let call = Call::Advance {
                    now_ms: self.host_now(),
                };
                self.runner.act(Action::Call { call, fault: None })?;
            }
            let lost = std::mem::take(&mut self.waiting);
            self.come_back(lost)?;
        }
        Ok(())
    }

    /// Several envelopes of one caller in one call, now and then, and the same one twice.
    fn join(&mut self, call: &mut Call) {
        let Call::Submit {
            caller, envelopes, ..
        } = call
        else {
            return;
        };
        if envelopes.len() > 1 || !self.random.chance(120) {
            return;
        }
        if self.random.chance(300) {
            envelopes.push(envelopes[0].clone());
        }
        let until = self.now_ms + 3_000;
        let joins = |event: &Event| matches!(event, Event::Call(Call::Submit { caller: other, .. }, ..) if other == caller);
        let next = self
            .agenda
            .iter()
            .find(|((at_ms, _), event)| *at_ms < until && joins(event));
        let place = next.map(|(place, _)| *place);
        if let Some(Event::Call(
            Call::Submit {
                envelopes: more, ..
            },
            ..,
        )) = place.and_then(|place| self.agenda.remove(&place))
        {
            envelopes.extend(more);
        }
    }

    fn commit(&mut self) -> Result<(), String> {
        let dones = self.runner.act(Action::Commit)?;
        self.take(dones)?;
        self.see_to_time()
    }

    /// Wakes up when the component wants to be told the time.
    fn see_to_time(&mut self) -> Result<(), String> {
        if self.runner.is_down || !self.waiting.is_empty() {
            return Ok(());
        }
        let Ok(Answer::NextDeadline(due_ms)) = self.runner.read(&Call::NextDeadline) else {
            return Ok(());
        };
        let Some(due_ms) = due_ms else {
            return Ok(());
        };
        let at_ms = due_ms
            .saturating_add_signed(-self.ahead_ms)
            .max(self.now_ms);
        if self
            .tick_at_ms
            .is_none_or(|tick_ms| at_ms < tick_ms || tick_ms < self.now_ms)
        {
            self.tick_at_ms = Some(at_ms);
            self.later(at_ms - self.now_ms, Event::Tick);
        }
        Ok(())
    }

    /// A new instance, the calls that were lost, the time, and what is out once more.
    fn come_back(&mut self, lost: Vec<(Call, Origin, u32)>) -> Result<(), String> {
        self.rebuilds += 1;
        let way = self
            .random
            .pick(&[Way::Replay, Way::ReplayChecked, Way::Snapshot]);
        self.runner.act(Action::Rebuild { way })?;
        self.tick_at_ms = None;
        for (call, origin, tries) in lost {
            self.retry(call, origin, tries);
        }
        if self.runner.lines.is_empty() {
            return Ok(());
        }
        // What is out when a host dies dies with it mostly.
        for _ in 0..3 {
            if let Some(key) = self
                .random
                .chance(300)
                .then(|| self.random_work())
                .flatten()
            {
                self.finish(&key);
            }
        }
        self.call(Call::Advance { now_ms: 0 }, Origin::Host, 0)?;
        if !self.runner.is_down {
            self.call(Call::Reconcile, Origin::Host, 0)?;
        }
        self.commit()
    }

    fn random_work(&mut self) -> Option<String> {
        let count = self.works.len() as u64;
        (count > 0).then(|| {
            let nth = self.random.below(count) as usize;
            self.works.keys().nth(nth).cloned().unwrap_or_default()
        })
    }

    /// Callers whose answer never came try again; a host asks anew anyway.
    fn retry(&mut self, call: Call, origin: Origin, tries: u32) {
        if !matches!(origin, Origin::Host) && tries < TRIES_MAX {
            let wait_ms = self.random.wait(500);
            self.later(wait_ms, Event::Call(call, origin, tries + 1));
        }
    }

    /// What became durable: answers go to who waits for them, and messages on their way.
    fn take(&mut self, dones: Vec<crate::audit::Done>) -> Result<(), String> {
        for done in dones {
            let (call, origin, tries) = self.waiting.remove(0);
            for line in &done.staged.lines {
                if line.contains("\"type\":\"coordination.escalated\"") {
                    let record: Value =
                        serde_json::from_str(line).map_err(|error| error.to_string())?;
                    let text =
                        |name: &str| record["data"][name].as_str().unwrap_or_default().to_owned();
                    self.digests.insert(text("escalationId"), text("digest"));
                }
            }
            let gone: BTreeSet<&String> = done
                .staged
                .withdrawn
                .iter()
                .chain(&done.staged.lane_cancelled)
                .collect();
            if !gone.is_empty() && self.random.chance(700) {
                self.agenda.retain(|_, event| match event {
                    Event::Deliver(message) => !gone.contains(&message.key),
                    _ => true,
                });
            }
            for message in done.staged.messages {
                self.send(message);
            }
            for (_, _, message) in done.staged.lane_messages {
                self.send(message);
            }
            for ask in done.staged.asks {
                let wait_ms = self.random.wait(50);
                self.later(wait_ms, Event::Ask(ask.hook_id));
            }
            if done.is_busy && !self.is_reconciling {
                self.is_reconciling = true;
                let wait_ms = self.random.wait(2_000);
                self.later(wait_ms, Event::Reconcile);
            }
            match done.answer {
                None => self.retry(call, origin, tries),
                Some(Err(CallError::Busy)) => {
                    self.later(0, Event::Tick);
                    self.retry(call, origin, tries);
                }
                Some(Err(CallError::Disabled)) => self.retry(call, origin, tries),
                Some(Err(error)) => return Err(format!("{} answers {error}", call.name())),
                Some(Ok(Answer::Advance(true))) => self.later(0, Event::Tick),
                Some(Ok(Answer::Claim(Ok(grant)))) => {
                    if let Origin::Claim(work) = origin {
                        self.use_grant(&work, &grant.resource, grant.token);
                    }
                }
                Some(Ok(_)) => {}
            }
        }
        Ok(())
    }

    /// The way of a message to its session.
    fn send(&mut self, message: Message) {
        let mut wait_ms = self.random.wait(60);
        if self.is_faulty {
            match self.random.below(100) {
                0..6 => return,
                6..11 => {
                    let again_ms = self.random.wait(5_000);
                    self.later(again_ms, Event::Deliver(Box::new(message.clone())));
                }
                11..14 => wait_ms = self.random.wait(90_000),
                _ => {}
            }
        }
        self.later(wait_ms, Event::Deliver(Box::new(message)));
    }

    fn new_plan(&mut self, wait_ms: u64) {
        let id = format!("c{}", self.plans);
        self.plans += 1;
        let owner = format!("owner:{}", self.random.below(3));
        let at_ms = self.host_now() + wait_ms;
        let plan = plan::plan(&mut self.random, &id, &owner, at_ms, self.taste);
        let call = Call::SubmitPlan {
            caller: caller(&owner),
            now_ms: 0,
            plan: plan.to_string(),
        };
        if self.random.chance(200) {
            let again_ms = wait_ms + self.random.wait(9_000);
            self.later(again_ms, Event::Call(call.clone(), Origin::Caller, 0));
        }
        if self.random.chance(60) {
            let mut other = plan;
            other["objective"] = "be another".into();
            let call = Call::SubmitPlan {
                caller: caller(&owner),
                now_ms: 0,
                plan: other.to_string(),
            };
            let wait_ms = wait_ms + self.random.wait(9_000);
            self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
        }
        self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
        if self.random.chance(220) {
            let wait_ms = wait_ms + self.random.wait(12_000);
            self.later(wait_ms, Event::Cancel(id, owner));
        }
    }

    fn new_child(&mut self, work: &Work) {
        let id = format!("c{}", self.plans);
        self.plans += 1;
        let now_ms = self.host_now();
        let mut plan = plan::plan(&mut self.random, &id, &work.session, now_ms, self.taste);
        let on_close = self.random.pick(&["cancel", "cancel", "abandon"]);
        plan["parent"] =
            json!({"coordinationId": work.id, "stepId": work.step, "onClose": on_close});
        let call = Call::SubmitPlan {
            caller: caller(&work.session),
            now_ms: 0,
            plan: plan.to_string(),
        };
        self.later(0, Event::Call(call, Origin::Caller, 0));
    }

    /// What the component says of every step that is not at its end.
    fn what_waits(&mut self) -> String {
        let mut says = String::new();
        for (id, step_id) in self.runner.audit.open_steps() {
            let call = Call::ExplainWait { id, step_id };
            if let Ok(Answer::ExplainWait(text)) = self.runner.read(&call) {
                says.push('\n');
                says.push_str(&text);
            }
        }
        says
    }

    /// What is closed is forgotten but for a line.
    fn check_memory(&mut self) -> Result<(), String> {
        let (mut bytes, mut cursor) = (0, None);
        loop {
            let call = Call::Snapshot {
                cursor,
                max_bytes: 1 << 20,
            };
            let Answer::Snapshot(piece) = self.runner.read(&call)? else {
                return Err("no snapshot".into());
            };
            bytes += piece.chunk.len() as u64;
            cursor = piece.next;
            if cursor.is_none() {
                break;
            }
        }
        let most = 4_000 + 900 * self.runner.audit.coordinations();
        if bytes > most {
            return Err(format!(
                "{bytes} bytes are kept of a domain in which all is over; {most} are enough"
            ));
        }
        Ok(())
    }
}
