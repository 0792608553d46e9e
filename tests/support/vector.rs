//! Vectors: scenarios as files for every host, their one text form, and what runs them.
//!
//! The format is specified in `tests/vectors/README.md`. Knows the core's types and nothing of the tests that write the files, so
//! that the package of the core runs them as well.

use qm2_core::call::{Answer, Call};
use qm2_core::envelope::Priority;
use qm2_core::ledger::Chain;
use qm2_core::message::{HookKind, Message};
use qm2_core::receipt::{CallError, Head};
use qm2_core::staged::Staged;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the format.
const FORMAT: u32 = 1;
/// Largest integer in a vector: 2^53, one past the largest of the contract, and exact in every language.
pub const INTEGER_MAX: u64 = 1 << 53;
/// Wished size of the pieces when a run is taken out and put into a fresh instance at its end.
const SNAPSHOT_BYTES: u64 = 2_000;

/// A file: one scenario in one or more runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    pub title: String,
    pub rules: Vec<String>,
    pub runs: Vec<Run>,
}

/// One life of a domain, from an instance without records on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Its place among the runs of its scenario, from 1; those that are left out leave a gap.
    pub run: usize,
    pub steps: Vec<Step>,
    /// Absent where the instance is spent or read-only.
    pub end: Option<End>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorJson {
    format: u32,
    title: String,
    rules: Vec<String>,
    runs: Vec<RunJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunJson {
    run: usize,
    begins: Option<Begins>,
    steps: Vec<Step>,
    end: Option<End>,
}

/// The first steps are those of an earlier run.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begins {
    run: usize,
    steps: usize,
}

/// What a host does, and what must come of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Step {
    Call(Box<Called>),
    Host(HostStep),
}

/// What happens to a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostStep {
    /// Whether lines are refused from here on, until the next instance.
    RefuseAppends(bool),
    /// A new instance, into which the whole ledger is replayed.
    Restart(bool),
    /// The call is made; whatever it said is lost, and so is the instance. Then as a restart.
    Lost(Call),
}

/// A call, its answer, and what was handed out meanwhile.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Called {
    call: Call,
    answer: Option<Answer>,
    error: Option<CallError>,
    #[serde(flatten)]
    out: Out,
}

/// What was handed out, in its order within each list.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Out {
    lines: Vec<String>,
    messages: Vec<Message>,
    withdrawn: Vec<String>,
    lane_messages: Vec<LaneMessage>,
    lane_cancelled: Vec<String>,
    asks: Vec<Ask>,
    notifications: Vec<Notification>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaneMessage {
    lane: String,
    priority: Priority,
    message: Message,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Ask {
    hook_id: String,
    kind: HookKind,
    subject: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notification {
    kind: HookKind,
    subject: String,
}

/// Where a run ends.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    pub head: Head,
    pub state_digest: String,
    pub reconcile: Reconciled,
}

/// What `reconcile` hands out at the end.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    error: Option<CallError>,
    #[serde(flatten)]
    out: Out,
}

impl Called {
    pub fn new(call: &Call, answer: &Result<Answer, CallError>, staged: &Staged) -> Self {
        Self {
            call: call.clone(),
            answer: answer.as_ref().ok().cloned(),
            error: answer.as_ref().err().cloned(),
            out: Out::new(staged),
        }
    }
}

impl Reconciled {
    pub fn new(answer: &Result<Answer, CallError>, staged: &Staged) -> Self {
        Self {
            error: answer.as_ref().err().cloned(),
            out: Out::new(staged),
        }
    }
}

impl Out {
    fn new(staged: &Staged) -> Self {
        let lane_messages = staged.lane_messages.iter();
        let lane_message = |(lane, priority, message): &(String, Priority, Message)| LaneMessage {
            lane: lane.clone(),
            priority: *priority,
            message: message.clone(),
        };
        let asks = staged.asks.iter().map(|ask| Ask {
            hook_id: ask.hook_id.clone(),
            kind: ask.kind,
            subject: ask.subject.clone(),
        });
        let notifications = staged.notifications.iter();
        let notification = |(kind, subject): &(HookKind, String)| Notification {
            kind: *kind,
            subject: subject.clone(),
        };
        Self {
            lines: staged.lines.clone(),
            messages: staged.messages.clone(),
            withdrawn: staged.withdrawn.clone(),
            lane_messages: lane_messages.map(lane_message).collect(),
            lane_cancelled: staged.lane_cancelled.clone(),
            asks: asks.collect(),
            notifications: notifications.map(notification).collect(),
        }
    }
}

// ---- the text ----

impl Vector {
    pub fn new(title: &str, rules: &[String]) -> Self {
        Self {
            title: title.to_owned(),
            rules: rules.to_vec(),
            runs: Vec::new(),
        }
    }

    /// The one text of a vector: a JSON value a line, so that a difference shows where it is.
    pub fn text(&self) -> String {
        let mut members = Members::default();
        members.add("format", &FORMAT);
        members.add("title", &self.title);
        members.add("rules", &self.rules);
        let mut earlier = Vec::new();
        let runs = self.runs.iter().map(|run| {
            let steps: Vec<String> = run.steps.iter().map(Step::text).collect();
            let begins = Begins::of(&steps, &earlier);
            let text = run.text_from(begins, &steps);
            earlier.push((run.run, steps));
            text
        });
        members.list("runs", runs);
        members.text() + "\n"
    }

    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json: VectorJson = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if json.format != FORMAT {
            return Err(format!("format {} is not known", json.format));
        }
        let mut vector = Self::new(&json.title, &json.rules);
        for run in json.runs {
            let mut steps = match run.begins {
                None => Vec::new(),
                Some(begins) => {
                    let mut earlier = vector.runs.iter();
                    let earlier = earlier.find(|earlier| earlier.run == begins.run);
                    let steps = earlier.and_then(|earlier| earlier.steps.get(..begins.steps));
                    let missing =
                        || format!("run {} begins with steps that are not there", run.run);
                    steps.ok_or_else(missing)?.to_vec()
                }
            };
            steps.extend(run.steps);
            let (run, end) = (run.run, run.end);
            vector.runs.push(Run { run, steps, end });
        }
        Ok(vector)
    }
}

impl Begins {
    /// The earlier run that shares most of its first steps, by bytes.
    fn of(steps: &[String], earlier: &[(usize, Vec<String>)]) -> Option<Self> {
        let mut best = (0, None);
        for (run, theirs) in earlier {
            let shared = steps.iter().zip(theirs).take_while(|(a, b)| a == b);
            let (count, bytes) = shared.fold((0, 0), |(count, bytes), (step, _)| {
                (count + 1, bytes + step.len())
            });
            if bytes > best.0 {
                let begins = Self {
                    run: *run,
                    steps: count,
                };
                best = (bytes, Some(begins));
            }
        }
        best.1
    }
}

impl Run {
    /// All of it, without leaning on another run.
    pub fn text(&self) -> String {
        let steps: Vec<String> = self.steps.iter().map(Step::text).collect();
        self.text_from(None, &steps)
    }

    fn text_from(&self, begins: Option<Begins>, steps: &[String]) -> String {
        let mut members = Members::default();
        members.add("run", &self.run);
        if let Some(begins) = &begins {
            members.add("begins", begins);
        }
        let shared = begins.map_or(0, |begins| begins.steps);
        members.list("steps", steps[shared..].iter().cloned());
        if let Some(end) = &self.end {
            let mut inner = Members::default();
            inner.add("head", &end.head);
            inner.add("stateDigest", &end.state_digest);
            let mut reconcile = Members::default();
            if let Some(error) = &end.reconcile.error {
                reconcile.add("error", error);
            }
            end.reconcile.out.members(&mut reconcile);
            inner.put("reconcile", &reconcile.text());
            members.put("end", &inner.text());
        }
        members.text()
    }
}

impl Step {
    fn text(&self) -> String {
        let called = match self {
            Self::Host(step) => return json(step),
            Self::Call(called) => called,
        };
        let mut members = Members::default();
        members.add("call", &called.call);
        if let Some(answer) = &called.answer {
            members.add("answer", answer);
        }
        if let Some(error) = &called.error {
            members.add("error", error);
        }
        called.out.members(&mut members);
        members.text()
    }
}

impl Out {
    fn members(&self, members: &mut Members) {
        members.list_if("lines", &self.lines);
        members.list_if("messages", &self.messages);
        members.list_if("withdrawn", &self.withdrawn);
        members.list_if("laneMessages", &self.lane_messages);
        members.list_if("laneCancelled", &self.lane_cancelled);
        members.list_if("asks", &self.asks);
        members.list_if("notifications", &self.notifications);
    }
}

/// An object with a member a line.
#[derive(Default)]
struct Members(Vec<String>);

impl Members {
    fn put(&mut self, name: &str, json: &str) {
        self.0.push(format!("\"{name}\":{json}"));
    }

    fn add(&mut self, name: &str, value: &impl Serialize) {
        self.put(name, &json(value));
    }

    fn list(&mut self, name: &str, entries: impl Iterator<Item = String>) {
        let entries: Vec<String> = entries.collect();
        if entries.is_empty() {
            return self.put(name, "[]");
        }
        self.put(name, &format!("[\n{}\n]", entries.join(",\n")));
    }

    fn list_if<T: Serialize>(&mut self, name: &str, entries: &[T]) {
        if !entries.is_empty() {
            self.list(name, entries.iter().map(json));
        }
    }

    fn text(&self) -> String {
        format!("{{{}}}", self.0.join(",\n"))
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("it has a JSON form")
}

// ---- the files ----

/// Where the files are, seen from a package of the workspace.
pub fn folder(package: &str) -> PathBuf {
    let inside = |folder: &&Path| folder.join("tests/vectors/README.md").is_file();
    let mut above = Path::new(package).ancestors().filter(inside);
    above.next().expect("the workspace").join("tests/vectors")
}

/// Every vector: its name, its text.
pub fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).expect("the folder of vectors is readable");
    let paths = entries.map(|entry| entry.expect("it is readable").path());
    let named = paths.filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
        let text = fs::read_to_string(&path).expect("a vector is readable");
        Some((name.to_owned(), text))
    });
    let mut files: Vec<_> = named.collect();
    files.sort();
    files
}

// ---- running them ----

/// Something that takes calls: the core itself, or a component with its host.
pub trait Instance: Sized {
    /// One without records.
    fn fresh() -> Self;
    fn call(&mut self, call: &Call) -> Result<Answer, CallError>;
    /// What was handed out since the last time.
    fn take_staged(&mut self) -> Staged;
    /// From here on its host does not take ledger lines.
    fn refuse_appends(&mut self);
}

/// Runs a vector anew and compares what comes of it, byte for byte.
///
/// # Errors
/// The first line that differs.
pub fn check<I: Instance>(text: &str) -> Result<(), String> {
    let vector = Vector::parse(text)?;
    let mut again = Vector::new(&vector.title, &vector.rules);
    for run in &vector.runs {
        let ran = Runner::<I>::run(run).map_err(|says| format!("run {}: {says}", run.run))?;
        again.runs.push(ran);
    }
    match difference(text, &again.text()) {
        Some(difference) => Err(difference),
        None => Ok(()),
    }
}

/// The text of a vector of which only what the host does is given: what comes of it is written, and where each run ends.
///
/// # Errors
/// What is wrong with the text, or with a run.
pub fn blessed<I: Instance>(text: &str) -> Result<String, String> {
    let mut vector = Vector::parse(text)?;
    for run in &mut vector.runs {
        run.end = Some(End {
            head: Head::default(),
            state_digest: String::new(),
            reconcile: Reconciled::default(),
        });
        *run = Runner::<I>::run(run)?;
    }
    Ok(vector.text())
}

/// The first line in which two texts differ.
pub fn difference(wanted: &str, got: &str) -> Option<String> {
    if wanted == got {
        return None;
    }
    let (mut wanted, mut got) = (wanted.lines(), got.lines());
    for number in 1.. {
        let (wanted, got) = (wanted.next(), got.next());
        if wanted != got {
            let [wanted, got] = [wanted, got].map(|line| line.unwrap_or("the end"));
            return Some(format!("line {number}:\nwanted: {wanted}\n   got: {got}"));
        }
        if wanted.is_none() {
            break;
        }
    }
    Some("they differ in the ends of lines".into())
}

struct Runner<I> {
    instance: I,
    /// Every line that was kept, in order.
    ledger: Vec<String>,
    /// A state was taken in from a snapshot, so the lines are not the whole ledger.
    restored: bool,
}

impl<I: Instance> Runner<I> {
    fn run(wanted: &Run) -> Result<Run, String> {
        let mut runner = Self {
            instance: I::fresh(),
            ledger: Vec::new(),
            restored: false,
        };
        let mut run = Run {
            run: wanted.run,
            ..Run::default()
        };
        for step in &wanted.steps {
            let step = match step {
                Step::Call(called) => Step::Call(Box::new(runner.call(&called.call))),
                Step::Host(step) => {
                    runner.host(step)?;
                    Step::Host(step.clone())
                }
            };
            run.steps.push(step);
        }
        if wanted.end.is_some() {
            let end = end(&mut runner.instance)?;
            runner.again(&end)?;
            run.end = Some(end);
        }
        Ok(run)
    }

    fn call(&mut self, call: &Call) -> Called {
        let answer = self.instance.call(call);
        let staged = self.instance.take_staged();
        self.ledger.extend_from_slice(&staged.lines);
        match (call, &answer) {
            (Call::Replay { lines, .. }, Ok(_)) => self.ledger.extend_from_slice(lines),
            (Call::Restore { .. }, Ok(_)) => self.restored = true,
            _ => {}
        }
        Called::new(call, &answer, &staged)
    }

    fn host(&mut self, step: &HostStep) -> Result<(), String> {
        match step {
            HostStep::RefuseAppends(_) => {
                self.instance.refuse_appends();
                Ok(())
            }
            HostStep::Restart(_) => self.restart(),
            HostStep::Lost(call) => {
                let _ = self.instance.call(call);
                self.restart()
            }
        }
    }

    fn restart(&mut self) -> Result<(), String> {
        self.instance = replayed(&self.ledger, self.ledger.len().max(1))?;
        Ok(())
    }

    /// One made of the ledger, and one made of a snapshot, are where the live one is, and hand the same out again.
    fn again(&mut self, wanted: &End) -> Result<(), String> {
        let mut chain = Chain::default();
        for line in self.ledger.iter().filter(|_| !self.restored) {
            chain.push(line).map_err(|fault| fault.message)?;
        }
        if !self.restored {
            same("chain", &chain.head, &wanted.head)?;
            let ended = end(&mut replayed::<I>(&self.ledger, 7)?)?;
            same("replayed", &ended, wanted)?;
        }
        let mut restored = I::fresh();
        let mut cursor = None;
        loop {
            let max_bytes = SNAPSHOT_BYTES;
            let piece = match self.instance.call(&Call::Snapshot { cursor, max_bytes }) {
                Ok(Answer::Snapshot(piece)) => piece,
                other => return Err(format!("snapshot: {other:?}")),
            };
            let (chunk, last) = (piece.chunk, piece.next.is_none());
            restored
                .call(&Call::Restore { chunk, last })
                .map_err(|error| format!("restore: {error}"))?;
            cursor = piece.next;
            if last {
                break;
            }
        }
        same("restored", &end(&mut restored)?, wanted)
    }
}

/// A fresh instance that was given these lines, so many a call.
fn replayed<I: Instance>(ledger: &[String], at_once: usize) -> Result<I, String> {
    let mut instance = I::fresh();
    for lines in ledger.chunks(at_once) {
        let (lines, checked) = (lines.to_vec(), false);
        instance
            .call(&Call::Replay { lines, checked })
            .map_err(|error| format!("replay: {error}"))?;
    }
    Ok(instance)
}

/// Where an instance is, and what it has out.
fn end(instance: &mut impl Instance) -> Result<End, String> {
    let head = match instance.call(&Call::Head) {
        Ok(Answer::Head(head)) => head,
        other => return Err(format!("head: {other:?}")),
    };
    let state_digest = match instance.call(&Call::StateDigest) {
        Ok(Answer::StateDigest(digest)) => digest,
        other => return Err(format!("state-digest: {other:?}")),
    };
    let answer = instance.call(&Call::Reconcile);
    let reconcile = Reconciled::new(&answer, &instance.take_staged());
    Ok(End {
        head,
        state_digest,
        reconcile,
    })
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Result<(), String> {
    if got == wanted {
        return Ok(());
    }
    Err(format!("{what}:\nwanted: {wanted:?}\n   got: {got:?}"))
}
