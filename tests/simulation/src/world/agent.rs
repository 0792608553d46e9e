//! Agents, people and owners as they are: slow, forgetful, dishonest, or gone.
//!
//! Decides what they do when something reaches them; whether and when it reaches anybody is decided in [`super`].

use super::{Event, Origin, World};
use qm2_core::call::Call;
use qm2_core::claim::{Access, ClaimRequest, Mode};
use qm2_core::envelope::{
    DeliveryMode, Envelope, FailureClass, Intent, Outcome, Priority, Question, Trace,
};
use qm2_core::message::{Caller, HookVerdict, HumanVerdict, Message, Notice, NoticeKind, Role};

/// What an agent knows of work under a key.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) session: String,
    pub(super) id: String,
    pub(super) step: String,
    pub(super) attempt: u32,
    /// It runs no more, and nobody was told.
    is_dead: bool,
    /// The last word on it.
    end: Option<Envelope>,
}

/// A caller without a role.
pub(crate) fn caller(session: &str) -> Caller {
    let (session, role) = (session.to_owned(), None);
    Caller { session, role }
}

fn with_role(session: &str, role: Role) -> Caller {
    let role = Some(role);
    Caller {
        role,
        ..caller(session)
    }
}

/// An envelope without content.
pub(crate) fn envelope(
    id: &str,
    step: Option<&str>,
    attempt: Option<u32>,
    from: &str,
    intent: Intent,
) -> Envelope {
    Envelope {
        coordination_id: id.to_owned(),
        step_id: step.map(str::to_owned),
        parent_step_id: None,
        attempt,
        source_session: from.to_owned(),
        target_session: "qm2:sim".into(),
        intent,
        priority: Priority::Normal,
        delivery_mode: DeliveryMode::AtLeastOnce,
        deadline_ms: None,
        created_at_ms: 0,
        trace: Trace::default(),
        content_type: None,
        payload: None,
        payload_ref: None,
        extensions: Vec::new(),
        outcome: None,
        reason: None,
        question: None,
        tokens: Vec::new(),
    }
}

impl Work {
    fn say(&self, intent: Intent) -> Envelope {
        envelope(
            &self.id,
            Some(&self.step),
            Some(self.attempt),
            &self.session,
            intent,
        )
    }

    fn failed(&self, class: FailureClass, code: &str) -> Envelope {
        let (code, message) = (code.to_owned(), "did not work".to_owned());
        let outcome = Outcome::Failed {
            class,
            code,
            message,
        };
        Envelope {
            outcome: Some(outcome),
            ..self.say(Intent::Report)
        }
    }

    fn completed(&self, payload: &str) -> Envelope {
        let (outcome, payload) = (Some(Outcome::Completed), Some(payload.to_owned()));
        Envelope {
            outcome,
            payload,
            ..self.say(Intent::Report)
        }
    }
}

impl World<'_> {
    /// A message has reached its session.
    pub(super) fn receive(&mut self, message: &Message) -> Result<(), String> {
        let (prefix, rest) = message.key.split_once(':').unwrap_or_default();
        match prefix {
            "cancel" => self.called_back(rest),
            "probe" => self.probed(rest),
            "report" => self.told(message),
            "escalation" => self.asked(rest, &message.envelope),
            "answer" => {}
            _ => return self.take_up(message),
        }
        Ok(())
    }

    fn submit_after(&mut self, wait_ms: u64, envelope: Envelope) {
        let by = envelope.source_session.clone();
        self.submit_as(wait_ms, &by, envelope);
    }

    fn submit_as(&mut self, wait_ms: u64, by: &str, envelope: Envelope) {
        let (caller, envelopes) = (caller(by), vec![envelope]);
        let call = Call::Submit {
            caller,
            now_ms: 0,
            envelopes,
        };
        self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
    }

    fn notice_after(&mut self, wait_ms: u64, key: &str, kind: NoticeKind) {
        let notices = vec![Notice {
            key: key.to_owned(),
            kind,
        }];
        let call = Call::Notice { now_ms: 0, notices };
        self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
    }

    /// An execute: work begins, unless it did before.
    fn take_up(&mut self, message: &Message) -> Result<(), String> {
        let (key, from) = (message.key.clone(), message.envelope.target_session.clone());
        if let Some(work) = self.works.get(&key).cloned() {
            match work.end {
                Some(end) => self.submit_after(1, end),
                None if !work.is_dead => self.submit_after(1, work.say(Intent::Ack)),
                None => {}
            }
            return Ok(());
        }
        if self.random.chance(12) {
            self.notice_after(1, &key, NoticeKind::UnknownTarget);
            return Ok(());
        }
        self.runner.audit.started(&key)?;
        let work = Work {
            session: from,
            id: message.envelope.coordination_id.clone(),
            step: message.envelope.step_id.clone().unwrap_or_default(),
            attempt: message.envelope.attempt.unwrap_or_default(),
            is_dead: false,
            end: None,
        };
        self.works.insert(key.clone(), work.clone());
        let acks = self.random.chance(800);
        if acks {
            let wait_ms = self.random.wait(150);
            self.submit_after(wait_ms, work.say(Intent::Ack));
        }
        if self.random.chance(150) {
            self.lie(&work);
        }
        if self.random.chance(400) {
            self.run_on(&work);
        }
        let pace = self.random.pick(&[200, 200, 1_500, 10_000, 40_000]);
        let wait_ms = self.random.wait(pace);
        // Right at the deadline, or a moment to either side of it, is where races are.
        let deadline_ms = message.envelope.deadline_ms.unwrap_or_default();
        let left_ms = deadline_ms.saturating_sub(self.host_now());
        let wait_ms = match self.random.below(14) {
            0 => left_ms,
            1 => left_ms.saturating_sub(1),
            2 => left_ms + 1,
            _ => wait_ms,
        };
        self.later(wait_ms, Event::Finish(key));
        Ok(())
    }

    /// What an agent does between its start and its end.
    fn run_on(&mut self, work: &Work) {
        let wait_ms = self.random.wait(900);
        match self.random.below(6) {
            0 => {
                for number in 0..self.random.within(1, 3) {
                    let progress = Envelope {
                        outcome: Some(Outcome::Progress { number }),
                        payload: Some("half".into()),
                        ..work.say(Intent::Report)
                    };
                    self.submit_after(wait_ms + number * 300, progress);
                }
            }
            1 => {
                let (number, text) = (self.random.below(2), "may I?".to_owned());
                let question = Some(Question { number, text });
                self.submit_after(
                    wait_ms,
                    Envelope {
                        question,
                        ..work.say(Intent::Escalate)
                    },
                );
            }
            2 => self.later(wait_ms, Event::Claim(work.clone())),
            3 => {
                let number = self.random.below(3);
                let step = format!("{}-x{number}", work.step);
                let target_session = format!("agent:{}", self.random.below(4));
                let added = Envelope {
                    parent_step_id: Some(work.step.clone()),
                    target_session,
                    payload: Some("more".into()),
                    ..envelope(
                        &work.id,
                        Some(&step),
                        Some(1),
                        &work.session,
                        Intent::Execute,
                    )
                };
                self.submit_after(wait_ms, added);
            }
            4 => self.later(wait_ms, Event::Child(work.clone())),
            _ => {
                let call = Call::Renew {
                    caller: caller(&work.session),
                    now_ms: 0,
                    coordination_id: work.id.clone(),
                    step_id: work.step.clone(),
                    attempt: work.attempt,
                    tokens: Vec::new(),
                };
                self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
            }
        }
    }

    /// Words that are not true, or not theirs to say.
    fn lie(&mut self, work: &Work) {
        let wait_ms = self.random.wait(600);
        match self.random.below(6) {
            0 => self.submit_as(wait_ms, "agent:liar", work.completed("stolen")),
            1 => {
                let by = "agent:liar".to_owned();
                self.submit_after(
                    wait_ms,
                    Envelope {
                        source_session: by,
                        ..work.completed("false")
                    },
                );
            }
            2 => {
                let attempt = Some(work.attempt + 1);
                self.submit_after(
                    wait_ms,
                    Envelope {
                        attempt,
                        ..work.completed("from tomorrow")
                    },
                );
            }
            3 if work.attempt > 1 => {
                let attempt = Some(work.attempt - 1);
                self.submit_after(
                    wait_ms,
                    Envelope {
                        attempt,
                        ..work.completed("from yesterday")
                    },
                );
            }
            4 => {
                let more = Envelope {
                    payload: Some("other".into()),
                    ..work.say(Intent::Ack)
                };
                self.submit_after(wait_ms, more);
            }
            _ => {
                let step_id = Some("nowhere".to_owned());
                self.submit_after(
                    wait_ms,
                    Envelope {
                        step_id,
                        ..work.completed("lost")
                    },
                );
            }
        }
    }

    /// One more resource for a running step, and what is done with it.
    pub(super) fn claim_more(&mut self, work: &Work) {
        let request = ClaimRequest {
            coordination_id: work.id.clone(),
            step_id: work.step.clone(),
            attempt: work.attempt,
            resource: self.random.pick(&crate::plan::RESOURCES).to_owned(),
            mode: self.random.pick(&[Mode::Exclusive, Mode::Shared]),
            lease_ms: self.random.pick(&[200, 5_000, 60_000]),
            base_version: None,
            regions: Vec::new(),
        };
        let call = Call::Claim {
            caller: caller(&work.session),
            now_ms: 0,
            request,
        };
        self.later(
            0,
            Event::Call(call, Origin::Claim(Box::new(work.clone())), 0),
        );
    }

    /// A claim was granted: it is used, renewed, or given back.
    pub(super) fn use_grant(&mut self, work: &Work, resource: &str, token: u64) {
        let wait_ms = self.random.wait(400);
        let check = Call::Check {
            now_ms: 0,
            resource: resource.to_owned(),
            session: work.session.clone(),
            token,
            mode: self.random.pick(&[Access::Read, Access::Write]),
            regions: Vec::new(),
            base_version: None,
        };
        self.later(wait_ms, Event::Call(check, Origin::Caller, 0));
        let (caller, tokens) = (caller(&work.session), vec![token]);
        let (coordination_id, step_id, attempt) =
            (work.id.clone(), work.step.clone(), work.attempt);
        let call = match self.random.chance(500) {
            true => Call::Renew {
                caller,
                now_ms: 0,
                coordination_id,
                step_id,
                attempt,
                tokens,
            },
            false => Call::Release {
                caller,
                now_ms: 0,
                coordination_id,
                step_id,
                attempt,
                tokens,
            },
        };
        let wait_ms = wait_ms + self.random.wait(300);
        self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
    }

    /// The end of work, whatever it is.
    pub(super) fn finish(&mut self, key: &str) {
        let Some(work) = self
            .works
            .get(key)
            .filter(|work| work.end.is_none() && !work.is_dead)
            .cloned()
        else {
            return;
        };
        let dies = self.random.chance(self.taste.deaths);
        let end = match self.random.below(100) {
            _ if dies => {
                self.die(key, 1_000);
                return;
            }
            0..58 => work.completed(self.random.pick(&["{\"ok\":1}", "done", "done", ""])),
            58..70 => work.failed(FailureClass::Retryable, "again"),
            70..76 => work.failed(FailureClass::Permanent, "broken"),
            76..83 => work.failed(FailureClass::Unknown, "who-knows"),
            // It hangs.
            83..91 => return,
            // It dies, and its host finds out when it is asked.
            _ => {
                self.die(key, 0);
                return;
            }
        };
        self.end(key, end);
    }

    /// Work that will never say anything; its host may say so.
    fn die(&mut self, key: &str, told: u64) {
        if self.random.chance(told) {
            let wait_ms = self.random.wait(700);
            self.notice_after(wait_ms, key, NoticeKind::HostLost);
        }
        if let Some(work) = self.works.get_mut(key) {
            work.is_dead = true;
        }
    }

    fn end(&mut self, key: &str, end: Envelope) {
        if let Some(work) = self.works.get_mut(key) {
            work.end = Some(end.clone());
        }
        let repeats = self.random.chance(120);
        let differs = self.random.chance(50);
        self.submit_after(0, end.clone());
        let wait_ms = self.random.wait(3_000);
        if repeats {
            self.submit_after(wait_ms, end.clone());
        }
        if differs {
            let payload = Some("on second thoughts".to_owned());
            self.submit_after(wait_ms, Envelope { payload, ..end });
        }
    }

    fn called_back(&mut self, key: &str) {
        let Some(work) = self.works.get(key).cloned() else {
            return;
        };
        if let Some(end) = work.end {
            self.submit_after(1, end);
            return;
        }
        if work.is_dead {
            return;
        }
        match self.random.below(4) {
            0 => {}
            1 => self.finish(key),
            _ => {
                let end = work.failed(FailureClass::Retryable, "called-back");
                self.end(key, end);
            }
        }
    }

    /// The host is asked whether an attempt is alive. It says host-lost only of what is dead for certain.
    fn probed(&mut self, key: &str) {
        match self.works.get(key).cloned() {
            Some(Work { end: Some(end), .. }) => self.submit_after(1, end),
            Some(work) if !work.is_dead => self.notice_after(1, key, NoticeKind::Taken),
            Some(_) => self.notice_after(1, key, NoticeKind::HostLost),
            None => {
                // It never arrived, and from here on it must not.
                self.dropped.insert(key.to_owned());
                self.notice_after(1, key, NoticeKind::HostLost);
            }
        }
    }

    fn told(&mut self, message: &Message) {
        let owner = message.envelope.target_session.clone();
        let (mut by, keys) = (owner, vec![message.key.clone()]);
        if self.random.chance(120) {
            return;
        }
        if self.random.chance(40) {
            by = "user:nosy".into();
        }
        let call = Call::Acknowledge {
            caller: caller(&by),
            now_ms: 0,
            keys,
        };
        let wait_ms = self.random.wait(800);
        self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
    }

    /// A person, or whoever carries the question to one.
    fn asked(&mut self, rest: &str, envelope: &Envelope) {
        let Some((id, _)) = rest.split_once(':') else {
            return;
        };
        let Some(digest) = self.digests.get(id).cloned() else {
            return;
        };
        if self.random.chance(60) {
            let key = format!("escalation:{rest}");
            self.notice_after(1, &key, NoticeKind::Unreachable);
            return;
        }
        let people = [
            with_role("user:a", Role::Operator),
            with_role("user:b", Role::Admin),
            with_role("user:c", Role::Owner),
            with_role("user:d", Role::User),
            with_role(&envelope.source_session, Role::Owner),
        ];
        for _ in 0..self.random.below(4) {
            let actor = self.random.pick(&people);
            let verdict = match self.random.below(10) {
                0..6 => HumanVerdict::Approve,
                6..8 => HumanVerdict::Deny,
                _ => HumanVerdict::Completed,
            };
            let digest = match self.random.chance(80) {
                true => "0".repeat(64),
                false => digest.clone(),
            };
            let call = Call::Answer {
                actor,
                now_ms: 0,
                escalation_id: id.to_owned(),
                digest,
                verdict,
                text: self.random.chance(500).then(|| "as you like".to_owned()),
            };
            let wait_ms = self.random.wait(9_000);
            self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
        }
    }

    /// Hooks of the host are asked.
    pub(super) fn hook_asked(&mut self, hook_id: &str) {
        if self.random.chance(100) {
            return;
        }
        let verdict = match self.random.below(12) {
            0 => HookVerdict::Deny("no".into()),
            1 => HookVerdict::Review,
            _ => HookVerdict::NoOpinion,
        };
        let call = Call::Verdict {
            now_ms: 0,
            hook_id: hook_id.to_owned(),
            handler: "handler".into(),
            verdict,
        };
        let wait_ms = self.random.wait(200);
        let repeats = self.random.chance(80);
        if repeats {
            self.later(wait_ms + 5, Event::Call(call.clone(), Origin::Caller, 0));
        }
        self.later(wait_ms, Event::Call(call, Origin::Caller, 0));
    }

    /// Somebody wants a plan, or a step of it, to stop.
    pub(super) fn cancel(&mut self, id: &str, owner: &str) {
        let step = self
            .random
            .chance(400)
            .then(|| format!("s{}", self.random.below(6)));
        let mut cancel = envelope(id, step.as_deref(), None, owner, Intent::Cancel);
        cancel.reason = Some("changed my mind".into());
        let by = match self.random.below(10) {
            0 => caller("user:stranger"),
            1 => with_role("user:op", Role::Operator),
            _ => caller(owner),
        };
        cancel.source_session.clone_from(&by.session);
        let call = Call::Submit {
            caller: by,
            now_ms: 0,
            envelopes: vec![cancel],
        };
        if self.random.chance(200) {
            self.later(40, Event::Call(call.clone(), Origin::Caller, 0));
        }
        self.later(0, Event::Call(call, Origin::Caller, 0));
    }
}
