//! What a small configuration is made of: plans, the inputs that can happen and how often, and what an input says.
//!
//! The configurations themselves are in [`super::configuration`]; what happens when is up to [`super::search`].

use serde_json::Value;

/// One thing that can happen to a domain. Attempts are named by their keys, `coordination:step:attempt`.
#[derive(Clone, Debug)]
pub enum Input {
    /// The agent has begun.
    Ack(&'static str),
    /// It is done, with this payload.
    Done(&'static str, &'static str),
    /// It failed with this class: `retryable`, `permanent` or `unknown`.
    Failed(&'static str, &'static str),
    /// Progress of this number.
    Progress(&'static str, u64),
    /// It asks a question of this number.
    Ask(&'static str, u64),
    /// Another session says that it is done.
    Forged(&'static str),
    /// A step of this id is added under it, for this session, with this payload.
    Add(&'static str, &'static str, &'static str, &'static str),
    /// One more resource for it, with this lease.
    Claim(&'static str, &'static str, u64),
    /// Its leases begin anew.
    Renew(&'static str),
    /// It gives back what it was sent out with.
    Release(&'static str),
    /// The host says this of its message.
    UnknownTarget(&'static str),
    /// The same.
    Dropped(&'static str),
    /// The same.
    HostLost(&'static str),
    /// A session, and the role of an operator if it is not the owner, cancels a plan or a step of it.
    Cancel(&'static str, Option<&'static str>, &'static str),
    /// A person answers the question that was asked at this place, counted from 0: `approve`, `deny` or `completed`.
    Answer(usize, &'static str, &'static str),
    /// A person approves the question at this place, having been shown another one.
    StaleAnswer(usize, &'static str),
    /// The first session of a level of the question at this place cannot be reached.
    Unreachable(usize, u64),
    /// The hooks answer the request at this place: `no-opinion`, `deny` or `review`.
    Verdict(usize, &'static str),
    /// A session acknowledges all reports that it has.
    Acknowledge(&'static str),
    /// The plan at this place of the scope is submitted.
    Plan(usize),
    /// The domain is configured as at this place of the scope.
    Configure(usize),
    /// So much time passes, and nobody tells.
    Later(u64),
    /// The host's clock steps back by so much.
    Back(u64),
    /// The next deadline is reached, and something else comes in before the time is told.
    Due,
    /// The time is told without need.
    Tell,
}

/// An input of a scope.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it says.
    pub input: Input,
    /// How often it can happen.
    pub times: u8,
    /// Also before the agent has heard of the attempt.
    pub is_early: bool,
}

/// A small configuration.
#[derive(Clone, Debug)]
pub struct Scope {
    /// How it is called on the command line.
    pub name: String,
    /// The configuration of the domain at the start, then those that inputs can set.
    pub configs: Vec<Value>,
    /// All plans.
    pub plans: Vec<Value>,
    /// How many of the plans are there from the start.
    pub opening: usize,
    /// What can happen.
    pub entries: Vec<Entry>,
    /// Reports are acknowledged as soon as they are sent.
    pub is_prompt: bool,
}

impl Scope {
    /// A scope of this name with these plans, all of them there from the start.
    #[must_use]
    pub fn new(name: &str, config: Value, plans: Vec<Value>) -> Self {
        Self {
            name: name.to_owned(),
            configs: vec![config],
            opening: plans.len(),
            plans,
            entries: Vec::new(),
            is_prompt: true,
        }
    }

    /// Reports are acknowledged where an input says so, or never.
    #[must_use]
    pub fn unheard(mut self) -> Self {
        self.is_prompt = false;
        self
    }

    /// Only so many of the plans are there from the start.
    #[must_use]
    pub fn opening(mut self, count: usize) -> Self {
        self.opening = count;
        self
    }

    /// Another configuration.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.configs.push(config);
        self
    }

    /// Inputs that can happen once each.
    #[must_use]
    pub fn once(mut self, inputs: impl IntoIterator<Item = Input>) -> Self {
        for input in inputs {
            self.add(input, 1, false);
        }
        self
    }

    /// Inputs that can happen twice each: the second one repeats the first.
    #[must_use]
    pub fn twice(mut self, inputs: impl IntoIterator<Item = Input>) -> Self {
        for input in inputs {
            self.add(input, 2, false);
        }
        self
    }

    /// Inputs that can happen once each, also before the attempt that they speak of.
    #[must_use]
    pub fn early(mut self, inputs: impl IntoIterator<Item = Input>) -> Self {
        for input in inputs {
            self.add(input, 1, true);
        }
        self
    }

    fn add(&mut self, input: Input, times: u8, is_early: bool) {
        let entry = Entry {
            input,
            times,
            is_early,
        };
        self.entries.push(entry);
    }

    /// The session of a step, by the plans, or by the inputs that add it.
    #[must_use]
    pub fn session(&self, id: &str, step: &str) -> &str {
        let of = |value: &'_ Value, name: &str, wanted: &str| value[name].as_str() == Some(wanted);
        let plan = self
            .plans
            .iter()
            .find(|plan| of(plan, "coordinationId", id));
        let steps = plan.and_then(|plan| plan["steps"].as_array());
        let def = steps.and_then(|steps| steps.iter().find(|def| of(def, "stepId", step)));
        let own = def.and_then(|def| def["targetSession"].as_str());
        let added = self.entries.iter().find_map(|entry| match entry.input {
            Input::Add(_, of, session, _) if of == step => Some(session),
            _ => None,
        });
        own.or(added).unwrap_or("agent:nobody")
    }
}
