//! What a run shows while it goes on: a live display on a terminal, plain lines elsewhere.
//!
//! Shows committed records and nothing that might still be undone. Writes to stderr only.

use super::table::{duration, first_line, time};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qm2_core::event::{Event, Record};
use qm2_core::plan::Fallback;
use qm2_host::escalation::{Escalation, Escalations, QuestionState};
use qm2_host::history::{History, StepHistory, StepState, word};
use std::collections::BTreeMap;
use std::time::Duration;

/// Waiting steps that are named; of the rest only the number is shown.
const WAITING_SHOWN: usize = 4;

/// The display of one coordination.
pub struct Progress {
    coordination_id: String,
    history: Option<History>,
    escalations: Escalations,
    /// The command line up to the command, for a person to type.
    command: String,
    display: Display,
}

enum Display {
    Lines,
    Live(Box<Live>),
}

struct Live {
    bars: MultiProgress,
    done: ProgressBar,
    waiting: ProgressBar,
    /// Steps that run or wait for a retry.
    steps: BTreeMap<String, ProgressBar>,
}

impl Progress {
    /// A display; `lines` are the records that the coordination has already, which are not shown one by one, and
    /// `command` is the command line up to the command.
    pub fn new(coordination_id: &str, lines: &[String], command: &str, is_watched: bool) -> Self {
        let history = History::fold(lines).ok().flatten();
        let display = if is_watched {
            Display::Live(Box::new(Live::new()))
        } else {
            Display::Lines
        };
        let progress = Self {
            coordination_id: coordination_id.to_owned(),
            history,
            escalations: Escalations::fold(lines),
            command: command.to_owned(),
            display,
        };
        if let Some(history) = &progress.history
            && history.terminal.is_none()
        {
            let done = history
                .steps
                .iter()
                .filter(|step| step.state.is_final())
                .count();
            progress.say(&format!(
                "{coordination_id}: resuming, {done} of {} steps have ended",
                history.steps.len()
            ));
            for one in progress.escalations.open() {
                progress.say(&format!("{}: {}", one.step_id, progress.waits(one)));
            }
        }
        progress
    }

    /// Id of the coordination that it shows.
    pub fn id(&self) -> &str {
        &self.coordination_id
    }

    /// Shows a line of the ledger.
    pub fn take(&mut self, line: &str) {
        let Ok(record) = Record::parse(line) else {
            return;
        };
        if record.coordination_id.as_deref() != Some(&self.coordination_id) {
            return;
        }
        match &mut self.history {
            Some(history) if record.seq > history.last_seq => history.apply(&record),
            Some(_) => return,
            None => self.history = History::begin(&record),
        }
        let asked = self.escalations.take(line).cloned();
        let says = match &asked {
            Some(one) => self.about_question(record.event.type_name(), one),
            None => sentence(&record),
        };
        if let Some(says) = says {
            let step = record
                .step_id
                .as_deref()
                .map(|step_id| format!("{step_id}: "))
                .unwrap_or_default();
            match &self.display {
                Display::Lines => self.say(&format!("{step}{says}")),
                // The bars show what is; only what would be gone with the next frame is kept above them.
                Display::Live(_) if asked.is_some() || is_trouble(&record.event) => {
                    self.say(&format!("{step}{says}"));
                }
                Display::Live(_) => {}
            }
        }
    }

    /// Draws the display anew; `now_ms` is the time on the wall.
    pub fn draw(&mut self, now_ms: u64) {
        if let (Display::Live(live), Some(history)) = (&mut self.display, &self.history) {
            live.draw(history, &self.escalations, now_ms);
        }
    }

    /// Takes the display away.
    pub fn end(self) {
        if let Display::Live(live) = &self.display {
            // A terminal that went away needs no clearing.
            let _ = live.bars.clear();
        }
    }

    /// What a record says of a question.
    fn about_question(&self, type_name: &str, one: &Escalation) -> Option<String> {
        let id = &one.id;
        let last = one.decisions.last();
        let last = || last.map(|last| (last.actor.as_str(), last.verdict.as_str()));
        Some(match (type_name, one.state) {
            ("human.requested", _) => self.waits(one),
            ("human.decided", QuestionState::Open) => format!(
                "{} approved {id}, {} of {}",
                last()?.0,
                one.approvals.len(),
                one.required
            ),
            ("human.decided", _) => format!("{id} is {} by {}", one.state.name(), last()?.0),
            ("human.expired", QuestionState::Open) if one.fallback == Some(Fallback::Block) => {
                format!("nobody answered {id} in time; it stays open until the plan's deadline")
            }
            ("human.expired", QuestionState::Open) => {
                format!("nobody answered {id} at level {} in time", one.level)
            }
            ("human.expired", QuestionState::Expired) => format!(
                "nobody answered {id} in time, which counts as {}",
                match one.fallback {
                    Some(Fallback::Allow) => "approved",
                    _ => "denied",
                }
            ),
            ("human.expired", QuestionState::Unanswered) => {
                format!("nobody answered {id} before the plan's deadline")
            }
            ("human.expired", _) => format!("{id} has nothing to decide any more"),
            // The request follows it at once.
            _ => return None,
        })
    }

    /// What is waited for, until when, and how to answer it.
    fn waits(&self, one: &Escalation) -> String {
        let until = match one.deadline_ms {
            Some(due_ms) => format!("until {}", time(due_ms)),
            None => "until the plan's deadline".into(),
        };
        let level = match one.levels.len() {
            0 | 1 => String::new(),
            count => format!(", level {} of {count}", one.level),
        };
        format!(
            "waits for a person ({} or above{level}) {until}: {}; `{} escalations show {}`",
            one.role_min().name(),
            first_line(&one.question),
            self.command,
            one.id
        )
    }

    fn say(&self, text: &str) {
        match &self.display {
            Display::Lines => eprintln!("{text}"),
            Display::Live(live) => {
                let _ = live.bars.println(text);
            }
        }
    }
}

impl Live {
    fn new() -> Self {
        let bars = MultiProgress::new();
        let done = bars.add(ProgressBar::new(0));
        done.set_style(style("{bar:30.green} {pos}/{len} steps  {wide_msg}"));
        let waiting = bars.add(ProgressBar::new_spinner());
        waiting.set_style(style("  {wide_msg:.dim}"));
        Self {
            bars,
            done,
            waiting,
            steps: BTreeMap::new(),
        }
    }

    fn draw(&mut self, history: &History, escalations: &Escalations, now_ms: u64) {
        let asked: BTreeMap<&str, &Escalation> = escalations
            .open()
            .map(|one| (one.step_id.as_str(), one))
            .collect();
        let ended = history
            .steps
            .iter()
            .filter(|step| step.state.is_final())
            .count();
        self.done.set_length(history.steps.len() as u64);
        self.done.set_position(ended as u64);
        self.done.set_message(counts(history));
        for step in &history.steps {
            let asked = asked.get(step.step_id.as_str());
            if asked.is_some() || step.state.is_running() || step.state == StepState::RetryWait {
                let (bars, waiting) = (&self.bars, &self.waiting);
                let bar = self.steps.entry(step.step_id.clone()).or_insert_with(|| {
                    let bar = bars.insert_before(waiting, ProgressBar::new_spinner());
                    bar.set_style(style("{spinner:.cyan} {wide_msg}"));
                    bar.enable_steady_tick(Duration::from_millis(120));
                    bar
                });
                bar.set_message(match asked {
                    Some(one) => waits_for_person(one, now_ms),
                    None => at_work(step, now_ms),
                });
            } else if let Some(bar) = self.steps.remove(&step.step_id) {
                bar.finish_and_clear();
                self.bars.remove(&bar);
            }
        }
        self.waiting.set_message(waiting(history, &asked));
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are the three above; a wrong one would show at once as the default style.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// A step that waits for a person.
fn waits_for_person(one: &Escalation, now_ms: u64) -> String {
    let left = one
        .deadline_ms
        .map(|due_ms| format!(", {} left", duration(due_ms.saturating_sub(now_ms))));
    format!(
        "{}  waits for a person, {}{}: {}",
        one.step_id,
        one.id,
        left.unwrap_or_default(),
        first_line(&one.question)
    )
}

/// A step that runs or waits for a retry.
fn at_work(step: &StepHistory, now_ms: u64) -> String {
    let since = |from: Option<u64>| duration(now_ms.saturating_sub(from.unwrap_or(now_ms)));
    match (step.state, step.due_ms) {
        (StepState::RetryWait, Some(due_ms)) => format!(
            "{}  attempt {} in {}: {}",
            step.step_id,
            step.attempt,
            duration(due_ms.saturating_sub(now_ms)),
            first_line(step.message.as_deref().unwrap_or_default()),
        ),
        _ if step.attempt > 1 => {
            format!(
                "{}  running, attempt {}, {} since the first",
                step.step_id,
                step.attempt,
                since(step.first_dispatched_ms)
            )
        }
        _ => format!(
            "{}  running {}",
            step.step_id,
            since(step.first_dispatched_ms)
        ),
    }
}

fn counts(history: &History) -> String {
    let shown = [
        StepState::Failed,
        StepState::TimedOut,
        StepState::Cancelled,
        StepState::Skipped,
    ];
    let counts = shown
        .into_iter()
        .map(|state| (history.count(state), state.name()))
        .filter(|(count, _)| *count > 0);
    let mut texts: Vec<String> = counts
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if history.cancel_requested {
        texts.push("cancelling".to_owned());
    }
    texts.join(", ")
}

/// Steps that have not started, and why.
fn waiting(history: &History, asked: &BTreeMap<&str, &Escalation>) -> String {
    let pending: Vec<&StepHistory> = history
        .steps
        .iter()
        .filter(|step| {
            let waits = matches!(
                step.state,
                StepState::Pending | StepState::WaitingClaim | StepState::WaitingHook
            );
            waits && !asked.contains_key(&*step.step_id)
        })
        .collect();
    let why = |step: &&StepHistory| {
        let open = history.open_dependencies(step);
        match (step.state, &step.resource) {
            (StepState::WaitingClaim, Some(resource)) => {
                return format!("{} waits for {resource}", step.step_id);
            }
            (StepState::WaitingHook, _) => return format!("{} waits for a hook", step.step_id),
            _ => {}
        }
        match open.as_slice() {
            [] => format!("{} waits for a free slot", step.step_id),
            [first, second, third, ..] if open.len() > 3 => {
                format!(
                    "{} waits for {first}, {second}, {third} and {} more",
                    step.step_id,
                    open.len() - 3
                )
            }
            _ => format!("{} waits for {}", step.step_id, open.join(", ")),
        }
    };
    let mut texts: Vec<String> = pending.iter().take(WAITING_SHOWN).map(why).collect();
    if pending.len() > WAITING_SHOWN {
        texts.push(format!("{} more wait", pending.len() - WAITING_SHOWN));
    }
    texts.join("; ")
}

/// What a record says, for a person who watches; none for what only the ledger needs.
fn sentence(record: &Record) -> Option<String> {
    let attempt = record.attempt.unwrap_or(1);
    Some(match &record.event {
        Event::Created(created) => format!(
            "{}: {} steps",
            created.plan.coordination_id,
            created.plan.steps.len()
        ),
        Event::Dispatched(out) if attempt > 1 => format!(
            "started again, attempt {attempt}, by {}",
            out.target_session
        ),
        Event::Dispatched(out) => format!("started by {}", out.target_session),
        Event::Progress(progress) => {
            let text = progress
                .payload
                .as_deref()
                .map(first_line)
                .filter(|text| !text.is_empty());
            text.unwrap_or_else(|| format!("progress {}", progress.number))
        }
        Event::Completed(_) => "completed".to_owned(),
        Event::Failed(failed) => {
            format!("failed ({}): {}", failed.code, first_line(&failed.message))
        }
        Event::TimedOut(end) => {
            format!("timed out, the deadline of the {} passed", word(&end.which))
        }
        Event::Added(added) => format!("added by {}", added.source_session),
        Event::Detected(contest) => {
            let first = contest.holders.first();
            let who = first.map(|held| format!(", which {}:{} has", held.coordination_id, held.step_id));
            format!("wants {}{}", contest.resource, who.unwrap_or_default())
        }
        Event::Resolved(decision) => {
            let mine = decision.outcomes.iter();
            let mut mine = mine.filter(|one| Some(one.step_id.as_str()) == record.step_id.as_deref());
            let outcome = mine.next().map(|one| word(&one.outcome)).unwrap_or_default();
            format!("{outcome}: {}", first_line(&decision.reason))
        }
        Event::Expired(lease) => format!("its lease of {} ran out", lease.resource),
        Event::HookAnswered(answer) if answer.verdict != "no_opinion" => {
            let reason = answer.reason.as_deref().map(first_line).unwrap_or_default();
            format!("{} said {}: {reason}", answer.handler, answer.verdict)
        }
        Event::RetryScheduled(retry) => {
            let wait = duration(retry.due_ms.saturating_sub(record.at_ms));
            let what = first_line(&retry.message);
            format!(
                "attempt {attempt} failed ({}): {what}; attempt {} in {wait}",
                retry.code, retry.next_attempt
            )
        }
        Event::Cancelled(end) => format!("cancelled ({})", word(&end.by)),
        Event::Skipped(skipped) => format!("skipped ({})", word(&skipped.reason)),
        Event::Redelivered(message) => format!("nobody took it yet; delivery {}", message.delivery),
        Event::Undelivered(message) => format!("{} was not taken by the owner", message.key),
        Event::CancelRequested(cancel) => format!("cancel requested by {}", cancel.by),
        Event::Terminal(end) => {
            let reason = end
                .reason
                .as_ref()
                .map(|reason| format!(" ({})", word(reason)))
                .unwrap_or_default();
            format!("ended: {}{reason}", end.terminal.name())
        }
        Event::InputLate(late) => format!(
            "{} from {} came after its end",
            word(&late.intent),
            late.source_session
        ),
        Event::InputRejected(refused) => format!(
            "{} from {} refused: {}",
            word(&refused.intent),
            refused.source_session,
            refused.code
        ),
        Event::Genesis(_)
        | Event::Configured(_)
        | Event::Granted(_)
        | Event::Renewed(_)
        | Event::Released(_)
        | Event::HookRequested(_)
        | Event::HookAnswered(_)
        // Questions are told with everything that is known of them.
        | Event::Escalated(_)
        | Event::HumanRequested(_)
        | Event::HumanDecided(_)
        | Event::HumanExpired(_)
        | Event::Acknowledged(_)
        | Event::MessageAcknowledged(_) => return None,
    })
}

/// Whether a person should still see it when the display has moved on.
fn is_trouble(event: &Event) -> bool {
    !matches!(
        event,
        Event::Created(_)
            | Event::Dispatched(_)
            | Event::Progress(_)
            | Event::Completed(_)
            | Event::Skipped(_)
            | Event::Terminal(_)
            | Event::Added(_)
            | Event::Detected(_)
            | Event::Resolved(_)
    )
}
