//! Every interleaving of a scope, depth first over states with equal ones merged, and what must hold in each of them.
//!
//! A call is made of two instances in every state, one of which was just rebuilt, and both must say the same; a third one
//! replays the lines; once a state a fourth one has its append refused. Which of the first two lives on is settled by the state, so
//! that rebuilds happen everywhere on all paths. What a state is merged by is in [`super::normal`].

use super::normal::{FROM, Normal};
use super::scope::Scope;
use super::situation::{Act, Move, Situation};
use crate::audit::{Audit, Done};
use crate::runner::refuse;
use crate::target::{Called, Native, Target};
use qm2_core::call::{Answer, Call};
use qm2_core::claim::Access;
use qm2_core::receipt::CallError;
use std::collections::HashMap;

/// Moves after which what has not come to its end never will.
const MOVES_MAX: usize = 200;

/// What was explored of a scope.
#[derive(Debug, Default)]
pub struct Explored {
    /// States, no two of which are the same.
    pub states: u64,
    /// Calls and steps of the clock that lead from a state to another one.
    pub transitions: u64,
    /// Of these, such as change nothing; what follows is explored without them.
    pub idle: u64,
    /// Ways from the beginning to an end, without the moves that change nothing.
    pub paths: u128,
    /// Moves of the longest of them.
    pub depth: u64,
    /// What must not be, with the moves that lead there.
    pub violation: Option<(String, Vec<Move>)>,
}

/// An empty domain that has records enough to make their numbers known by their size.
#[derive(Clone)]
pub struct Base {
    machine: Native,
    audit: Audit,
}

/// One state and all that is known around it.
struct Node {
    /// Its normal form.
    state: u128,
    live: Native,
    /// Rebuilt in this state.
    twin: Native,
    audit: Audit,
    around: Situation,
}

/// Ways from a state to an end, and the moves of the longest.
type Ways = (u128, u64);

struct Search<'a> {
    scope: &'a Scope,
    /// By normal form and what can still happen; none while a state is being explored.
    seen: HashMap<(u128, Vec<u8>), Option<Ways>>,
    explored: Explored,
    path: Vec<Move>,
}

fn require(holds: bool, says: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(says()) }
}

impl Base {
    /// Makes it.
    ///
    /// # Errors
    /// A violation.
    pub fn new() -> Result<Self, String> {
        let (machine, audit) = (Native::default(), Audit::default());
        let mut base = Self { machine, audit };
        for number in 1..FROM {
            let width = 1 + number % 2;
            let config = format!("{{\"domain\":\"sim\",\"maxInFlight\":{width}}}");
            base.call(Call::Configure { config })?;
        }
        Ok(base)
    }

    fn call(&mut self, call: Call) -> Result<Done, String> {
        let called = self.machine.call(&call, None)?;
        let done = done(call, called);
        self.audit.observe(&done)?;
        Ok(done)
    }
}

fn done(call: Call, called: Called) -> Done {
    Done {
        call,
        answer: called.answer,
        staged: called.staged,
        is_busy: called.is_busy,
    }
}

fn read(machine: &mut Native, call: &Call) -> Result<Answer, String> {
    match machine.call(call, None)?.answer {
        Some(Ok(answer)) => Ok(answer),
        other => Err(format!("{} answers {other:?}", call.name())),
    }
}

/// The whole state in one piece, or two where something is closed.
fn snapshot(machine: &mut Native) -> Result<Vec<String>, String> {
    let (mut pieces, mut cursor) = (Vec::new(), None);
    loop {
        let max_bytes = 1 << 30;
        let Answer::Snapshot(piece) = read(machine, &Call::Snapshot { cursor, max_bytes })? else {
            return Err("no snapshot".into());
        };
        pieces.push(piece.chunk);
        cursor = piece.next;
        if cursor.is_none() {
            return Ok(pieces);
        }
    }
}

fn restored(pieces: &[String]) -> Result<Native, String> {
    let mut machine = Native::default();
    for (place, chunk) in pieces.iter().enumerate() {
        let (chunk, last) = (chunk.clone(), place + 1 == pieces.len());
        read(&mut machine, &Call::Restore { chunk, last })?;
    }
    Ok(machine)
}

fn next_deadline(machine: &mut Native) -> Result<Option<u64>, String> {
    match read(machine, &Call::NextDeadline)? {
        Answer::NextDeadline(due_ms) => Ok(due_ms),
        other => Err(format!("next-deadline answers {other:?}")),
    }
}

/// Explores a scope.
#[must_use]
pub fn explore(base: &Base, scope: &Scope) -> Explored {
    let mut search = Search {
        scope,
        seen: HashMap::new(),
        explored: Explored::default(),
        path: Vec::new(),
    };
    match search.whole(base.clone()) {
        Ok((paths, depth)) => (search.explored.paths, search.explored.depth) = (paths, depth),
        Err(says) => search.explored.violation = Some((says, search.path)),
    }
    search.explored
}

impl Search<'_> {
    fn whole(&mut self, base: Base) -> Result<Ways, String> {
        let from = base.machine.clone();
        let mut next = Next {
            live: base.machine.clone(),
            twin: base.machine,
            folded: None,
            audit: base.audit,
            around: Situation::new(self.scope),
            pieces: Vec::new(),
        };
        for call in Situation::opening(self.scope) {
            next.call(&from, call, &mut true)?;
        }
        next.pieces = snapshot(&mut next.live)?;
        let state = state(&next.pieces, &mut next.audit, &next.around);
        self.enter(next.settle(state)?)
    }

    /// A state that was not seen before, and everything that can follow from it.
    fn enter(&mut self, mut node: Node) -> Result<Ways, String> {
        self.explored.states += 1;
        require(self.path.len() < MOVES_MAX, || {
            format!("does not come to its end in {MOVES_MAX} moves")
        })?;
        let key = (node.state, node.around.left().to_vec());
        self.seen.insert(key.clone(), None);
        let due_ms = next_deadline(&mut node.live)?;
        require(due_ms == next_deadline(&mut node.twin)?, || {
            "a rebuilt instance wants to be told another time".into()
        })?;
        check_reconcile(&node)?;
        if due_ms.is_none() {
            // Whatever else could happen need not.
            node.audit.check_end()?;
        }
        let (mut paths, mut depth) = (0_u128, 0);
        // Of the first call here that records something the append is refused before it is taken.
        let mut refuses = true;
        for this in node.around.moves(self.scope, due_ms) {
            self.path.push(this);
            let (more, deep) = self.step(&node, this, due_ms, &mut refuses)?;
            self.path.pop();
            paths = paths.saturating_add(more);
            depth = depth.max(deep + u64::from(more > 0));
        }
        let found = (paths.max(1), depth);
        self.seen.insert(key, Some(found));
        Ok(found)
    }

    fn step(
        &mut self,
        from: &Node,
        this: Move,
        due_ms: Option<u64>,
        refuses: &mut bool,
    ) -> Result<Ways, String> {
        self.explored.transitions += 1;
        let mut next = Next {
            live: from.live.clone(),
            twin: from.twin.clone(),
            folded: None,
            audit: from.audit.clone(),
            around: from.around.clone(),
            pieces: Vec::new(),
        };
        let act = next.around.act(self.scope, this, due_ms);
        if let Act::Call(call) = act {
            next.call(&from.twin, call, refuses)?;
            while let Some(call) = next.around.prompt(self.scope) {
                next.call(&from.twin, call, refuses)?;
            }
        }
        next.pieces = snapshot(&mut next.live)?;
        if let Some(folded) = &mut next.folded {
            require(snapshot(folded)? == next.pieces, || {
                "the fold of the ledger is another state".into()
            })?;
        }
        let state = state(&next.pieces, &mut next.audit, &next.around);
        if state == from.state {
            // Whatever can follow can follow without it.
            self.explored.idle += 1;
            return Ok((0, 0));
        }
        let key = (state, next.around.left().to_vec());
        match self.seen.get(&key) {
            Some(Some(found)) => Ok(*found),
            Some(None) => Err("nothing moves: the same state follows from itself".into()),
            None => {
                let node = next.settle(state)?;
                self.enter(node)
            }
        }
    }
}

/// A state that is being made.
struct Next {
    live: Native,
    twin: Native,
    /// The instance that only replays; none while nothing was recorded.
    folded: Option<Native>,
    audit: Audit,
    around: Situation,
    pieces: Vec<String>,
}

impl Next {
    /// Makes a call, and checks all there is to check about it. `from` is the rebuilt instance before the move.
    fn call(&mut self, from: &Native, call: Call, refuses: &mut bool) -> Result<(), String> {
        let called = self.live.call(&call, None)?;
        let again = self.twin.call(&call, None)?;
        let same = called.answer == again.answer && called.staged == again.staged;
        require(same, || {
            format!("a rebuilt instance says\n{again:?}\nwhere the other one says\n{called:?}")
        })?;
        if let Some(Err(error)) = &called.answer {
            return Err(format!("{} answers {error}", call.name()));
        }
        if !called.staged.lines.is_empty() {
            let folded = self.folded.get_or_insert_with(|| from.clone());
            if std::mem::take(refuses) {
                check_refused(folded.clone(), &call)?;
            }
            let (lines, checked) = (called.staged.lines.clone(), true);
            read(folded, &Call::Replay { lines, checked })?;
        }
        let done = done(call, called);
        let held = held(&self.audit);
        self.audit.observe(&done)?;
        self.check_guard(held)?;
        self.around.take(&done);
        Ok(())
    }

    /// The guard lets on exactly what is held, at this time, at the last moment and at the end of each lease; also of what
    /// was held before the call.
    fn check_guard(&mut self, mut asked: Vec<Held>) -> Result<(), String> {
        asked.append(&mut held(&self.audit));
        for (token, resource, session, expires_ms) in asked {
            for now_ms in [self.around.now_ms(), expires_ms - 1, expires_ms] {
                let call = Call::Check {
                    now_ms,
                    resource: resource.clone(),
                    session: session.clone(),
                    token,
                    mode: Access::Write,
                    regions: Vec::new(),
                    base_version: None,
                };
                let called = self.live.call(&call, None)?;
                self.audit.observe(&done(call, called))?;
            }
        }
        Ok(())
    }

    /// The state is a new one: instances that are made of the ledger, or of a snapshot, are the same as the one that lives.
    fn settle(mut self, state: u128) -> Result<Node, String> {
        let mut rebuilt = match self.folded.take() {
            Some(folded) if state & 1 == 0 => folded,
            _ => restored(&self.pieces)?,
        };
        require(snapshot(&mut rebuilt)? == self.pieces, || {
            "a snapshot restores to another state".into()
        })?;
        let digest = read(&mut self.live, &Call::StateDigest)?;
        for other in [&mut self.twin, &mut rebuilt] {
            require(read(other, &Call::StateDigest)? == digest, || {
                "a rebuilt instance has another digest".into()
            })?;
        }
        Ok(Node {
            state,
            live: if state & 2 == 0 { self.live } else { self.twin },
            twin: rebuilt,
            audit: self.audit,
            around: self.around,
        })
    }
}

/// A grant: token, resource, session, and when its lease ends.
type Held = (u64, String, String, u64);

fn held(audit: &Audit) -> Vec<Held> {
    let own = |(token, resource, session, expires_ms): (u64, &str, &str, u64)| {
        (token, resource.to_owned(), session.to_owned(), expires_ms)
    };
    audit.held().map(own).collect()
}

/// The normal form of all but how often what can still happen.
fn state(pieces: &[String], audit: &mut Audit, around: &Situation) -> u128 {
    let (picture, text) = (audit.picture(), around.text());
    Normal::key(&pieces.join("\n"), &[&picture, &text], &around.digests())
}
/// An append that is refused leaves nothing behind, and the instance is spent.
fn check_refused(mut machine: Native, call: &Call) -> Result<(), String> {
    let called = machine.call(call, refuse(0))?;
    let refused = called.answer == Some(Err(CallError::LedgerUnavailable));
    require(refused && called.staged.is_empty(), || {
        format!("an append is refused, and {called:?} comes of it")
    })?;
    let spent = machine.call(&Call::Head, None)?.answer;
    require(spent == Some(Err(CallError::Rebuild)), || {
        format!("an instance whose append was refused goes on: {spent:?}")
    })
}

/// Everything that is out is handed out again, by an instance that was just rebuilt; so also what a crash right after the
/// append swallowed.
fn check_reconcile(node: &Node) -> Result<(), String> {
    let mut twin = node.twin.clone();
    let called = twin.call(&Call::Reconcile, None)?;
    node.audit.clone().observe(&done(Call::Reconcile, called))
}
