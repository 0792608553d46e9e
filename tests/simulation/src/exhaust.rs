//! Small-scope exhaustion: every interleaving of what can happen to small configurations, each state visited once.
//!
//! The seeded simulation goes far and wide by chance; this goes everywhere within a small fence. Both show everything to the
//! same model. The fence is [`configuration`]; the walk is [`search`].

pub mod configuration;
pub mod normal;
pub mod scope;
pub mod search;
pub mod situation;

use crate::action::Action;
use crate::runner::{Mode, Runner};
use crate::shrink::shrink;
use crate::target::Maker;
use scope::Scope;
use search::{Base, Explored, explore};
use situation::{Act, Move, Situation};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The walk goes as deep as the longest path.
const STACK_BYTES: usize = 256 << 20;

/// A violation with the actions that show it.
#[derive(Debug)]
pub struct Shown {
    /// What must not be.
    pub says: String,
    /// The moves, in words.
    pub moves: Vec<String>,
    /// All actions, or fewer that show it as well.
    pub actions: Vec<Action>,
    /// The actions alone show it; else only the walk does, which compares rebuilt instances.
    pub is_shrunk: bool,
}

/// Explores scopes, so many at a time, and prints a line for each in their order.
///
/// # Errors
/// The first violation.
pub fn run(maker: &Maker, scopes: &[Scope], jobs: usize) -> Result<(), Box<Shown>> {
    let begun = Instant::now();
    println!(
        "{:<26}{:>9}{:>13}{:>9}{:>15}{:>7}{:>9}{:>12}",
        "configuration",
        "states",
        "transitions",
        "idle",
        "interleavings",
        "depth",
        "seconds",
        "violations"
    );
    let next = AtomicUsize::new(0);
    let printer = Mutex::new(Printer::default());
    std::thread::scope(|threads| {
        for _ in 0..jobs.max(1) {
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            let spawned = builder.spawn_scoped(threads, || {
                let base = Base::new();
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(scope) = scopes.get(place) else {
                        return;
                    };
                    let begun = Instant::now();
                    let explored = match &base {
                        Ok(base) => explore(base, scope),
                        Err(says) => Explored {
                            violation: Some((says.clone(), Vec::new())),
                            ..Explored::default()
                        },
                    };
                    let seconds = begun.elapsed().as_secs_f64();
                    if explored.violation.is_some() {
                        next.store(scopes.len(), Ordering::Relaxed);
                    }
                    if let Ok(mut printer) = printer.lock() {
                        printer.take(scopes, place, explored, seconds);
                    }
                }
            });
            spawned.expect("a thread can be had");
        }
    });
    let printer = printer.into_inner().unwrap_or_default();
    for (place, (explored, seconds)) in &printer.waiting {
        line(&scopes[*place].name, explored, *seconds);
    }
    let seconds = begun.elapsed().as_secs_f64();
    line("total", &printer.total, seconds);
    match printer.violation {
        None => Ok(()),
        Some((place, says, path)) => Err(Box::new(show(maker, &scopes[place], says, &path))),
    }
}

/// Keeps lines in order although scopes end out of order.
#[derive(Default)]
struct Printer {
    printed: usize,
    waiting: BTreeMap<usize, (Explored, f64)>,
    total: Explored,
    violation: Option<(usize, String, Vec<Move>)>,
}

impl Printer {
    fn take(&mut self, scopes: &[Scope], place: usize, explored: Explored, seconds: f64) {
        let total = &mut self.total;
        total.states += explored.states;
        total.transitions += explored.transitions;
        total.idle += explored.idle;
        total.paths = total.paths.saturating_add(explored.paths);
        total.depth = total.depth.max(explored.depth);
        if let Some((says, path)) = &explored.violation {
            total.violation = explored.violation.clone();
            if self.violation.as_ref().is_none_or(|(of, ..)| place < *of) {
                self.violation = Some((place, says.clone(), path.clone()));
            }
        }
        self.waiting.insert(place, (explored, seconds));
        while let Some((explored, seconds)) = self.waiting.remove(&self.printed) {
            line(&scopes[self.printed].name, &explored, seconds);
            self.printed += 1;
        }
    }
}

fn line(name: &str, explored: &Explored, seconds: f64) {
    let violations = u8::from(explored.violation.is_some());
    let paths = match explored.paths {
        few if few < 10_000_000_000_000 => few.to_string(),
        many => format!("{:.3e}", many as f64),
    };
    println!(
        "{name:<26}{:>9}{:>13}{:>9}{paths:>15}{:>7}{seconds:>9.1}{violations:>12}",
        explored.states, explored.transitions, explored.idle, explored.depth
    );
}

/// A move in words.
fn words(scope: &Scope, this: Move) -> String {
    match this {
        Move::Deadline => "Deadline".into(),
        Move::Input(place) => format!("{:?}", scope.entries[place].input),
    }
}

/// Does a path again from an empty ledger, and makes it small.
fn show(maker: &Maker, scope: &Scope, says: String, path: &[Move]) -> Shown {
    let moves = path.iter().map(|this| words(scope, *this)).collect();
    let mut runner = Runner::new(maker, Mode::Transaction, true);
    let again = walk(&mut runner, scope, path).err();
    let log = std::mem::take(&mut runner.log);
    let (says, actions, is_shrunk) = match again {
        Some(again) => {
            let (actions, says) = shrink(maker, Mode::Transaction, &log, &again);
            (says, actions, true)
        }
        None => (says, log, false),
    };
    Shown {
        says,
        moves,
        actions,
        is_shrunk,
    }
}

fn walk(runner: &mut Runner<'_>, scope: &Scope, path: &[Move]) -> Result<(), String> {
    let mut around = Situation::new(scope);
    let call = |runner: &mut Runner<'_>, around: &mut Situation, call| {
        runner.act(Action::Call { call, fault: None })?;
        for done in runner.act(Action::Commit)? {
            around.take(&done);
        }
        Ok::<(), String>(())
    };
    for opening in Situation::opening(scope) {
        call(runner, &mut around, opening)?;
    }
    for this in path {
        let next = runner.read(&qm2_core::call::Call::NextDeadline)?;
        let due_ms = match next {
            qm2_core::call::Answer::NextDeadline(due_ms) => due_ms,
            _ => None,
        };
        if let Act::Call(what) = around.act(scope, *this, due_ms) {
            call(runner, &mut around, what)?;
            while let Some(prompt) = around.prompt(scope) {
                call(runner, &mut around, prompt)?;
            }
        }
    }
    Ok(())
}
