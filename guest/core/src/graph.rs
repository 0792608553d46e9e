//! The steps of a plan as a graph: duplicate ids, unknown dependencies, cycles, and two owners of one resource.
//!
//! Knows nothing of states; it is used once, while a plan is read.

use crate::arbitration::Policy;
use crate::plan::On;
use crate::read::Object;
use crate::{limit, order};
use std::ops::Range;

/// Where each step stands in the text and what it waits for.
#[derive(Default)]
pub(crate) struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    /// What steps wait for, by name, those of one step beside each other; behind them those of the step being read.
    edges: Vec<(&'a str, On)>,
    /// The node of each edge, where there is one. Made by `check`.
    ends: Vec<Option<usize>>,
    dependencies: usize,
    /// Resources that steps own, with the session and the place of the step.
    owned: Vec<(String, &'a str, usize)>,
}

/// A step of the graph.
struct Node<'a> {
    step_id: &'a str,
    /// Its place in the text.
    index: usize,
    /// Places of its edges.
    waits_for: Range<usize>,
}

impl Node<'_> {
    /// Path of a member.
    fn path_of(&self, name: &str) -> String {
        format!("steps[{}].{name}", self.index)
    }
}

impl<'a> Graph<'a> {
    /// One with room for so many steps.
    pub(crate) fn new(steps: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(steps),
            ..Self::default()
        }
    }

    /// Notes a dependency of the step that is added next.
    pub(crate) fn waits_for(&mut self, name: &'a str, on: On) {
        self.edges.push((name, on));
    }

    /// Where the dependencies of the next step begin.
    fn first(&self) -> usize {
        self.nodes.last().map_or(0, |node| node.waits_for.end)
    }

    /// There is no such step after all.
    pub(crate) fn forget(&mut self) {
        self.edges.truncate(self.first());
    }

    pub(crate) fn add(&mut self, object: &Object<'_>, step_id: &'a str) {
        let first = self.first();
        let edges = &self.edges[first..];
        self.dependencies += edges.len();
        let mut seen: Vec<(&str, u8)> = Vec::new();
        let mut itself = false;
        for (index, (name, on)) in edges.iter().enumerate() {
            let member = || format!("dependsOn[{index}].stepId");
            if *name == step_id {
                itself = true;
                let says = format!("is {step_id}, the step itself");
                object.problem(&member(), "self-dependency", says);
            } else if edges.len() > 1 && !order::insert(&mut seen, (name, *on as u8)) {
                let says = format!("is {name} again");
                object.problem(&member(), "duplicate-dependency", says);
            }
        }
        if itself {
            let others = edges.iter().filter(|(name, _)| *name != step_id);
            let others: Vec<_> = others.copied().collect();
            self.edges.truncate(first);
            self.edges.extend(others);
        }
        self.nodes.push(Node {
            step_id,
            index: object.index(),
            waits_for: first..self.edges.len(),
        });
    }

    /// Notes what the step that was added last owns.
    pub(crate) fn add_owned(&mut self, object: &Object<'_>, session: &'a str, owns: &[String]) {
        let at = self.nodes.len() - 1;
        let mut seen: Vec<&str> = Vec::new();
        for (index, resource) in owns.iter().enumerate() {
            if !order::insert(&mut seen, resource.as_str()) {
                let says = format!("is {resource} again");
                object.problem(&format!("owns[{index}]"), "duplicate-resource", says);
                continue;
            }
            self.owned.push((resource.clone(), session, at));
        }
    }

    /// no resource has two owners, whether steps or the policy name them.
    pub(crate) fn check_owners(&mut self, object: &Object<'_>, policy: &Policy) {
        let owned = order::sort(std::mem::take(&mut self.owned), |a, b| {
            (&a.0, a.2).cmp(&(&b.0, b.2))
        });
        let mut first: Option<&(String, &str, usize)> = None;
        for entry in &owned {
            let (resource, session, at) = entry;
            let other = match first.filter(|(known, _, _)| known == resource) {
                Some((_, other, _)) => Some(*other),
                None => {
                    first = Some(entry);
                    policy.owner_of(resource)
                }
            };
            if let Some(other) = other.filter(|other| *other != *session) {
                let node = &self.nodes[*at];
                let says = format!("has {resource}, which {other} owns already");
                let field = node.path_of("owns");
                object.problem_of(node.step_id, field, "two-owners", says);
            }
        }
    }

    /// Duplicate ids, unknown dependencies, cycles, and the bound over all steps.
    pub(crate) fn check(&mut self, object: &Object<'_>) {
        let id = |place: &usize| self.nodes[*place].step_id;
        let sorted = order::sort((0..self.nodes.len()).collect(), |a, b| id(a).cmp(id(b)));
        let mut by_id: Vec<usize> = Vec::with_capacity(sorted.len());
        for place in sorted {
            match by_id.last().filter(|first| id(first) == id(&place)) {
                Some(first) => {
                    let says = format!(
                        "is {} again; the first is {}",
                        id(&place),
                        self.nodes[*first].path_of("stepId")
                    );
                    let field = self.nodes[place].path_of("stepId");
                    object.problem_of(id(&place), field, "duplicate-step", says);
                }
                None => by_id.push(place),
            }
        }
        // Of steps with one id the first is meant.
        let node = |(name, _): &(&str, On)| {
            let found = by_id.binary_search_by(|place| id(place).cmp(name));
            found.ok().map(|at| by_id[at])
        };
        self.ends = self.edges.iter().map(node).collect();
        if self.dependencies > limit::PLAN_DEPENDENCIES_MAX {
            let bound = limit::PLAN_DEPENDENCIES_MAX;
            let says = format!(
                "have {} dependencies together; {bound} are allowed",
                self.dependencies
            );
            object.problem("steps", "out-of-bound", says);
        }
        for node in &self.nodes {
            for edge in node.waits_for.clone() {
                if self.ends[edge].is_some() {
                    continue;
                }
                let other = self.edges[edge].0;
                let says = format!("names {other}, which is no step of the plan");
                Self::problem(object, node, "unknown-dependency", says);
            }
        }
        for cycle in self.cycles() {
            let ids: Vec<&str> = cycle
                .iter()
                .chain(cycle.first())
                .map(|at| self.nodes[*at].step_id)
                .collect();
            Self::problem(
                object,
                &self.nodes[cycle[0]],
                "cycle",
                format!("waits for itself: {}", ids.join(" -> ")),
            );
        }
    }

    fn problem(object: &Object<'_>, node: &Node<'_>, code: &str, says: String) {
        object.problem_of(node.step_id, node.path_of("dependsOn"), code, says);
    }

    fn parents(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        let edges = self.nodes[at].waits_for.clone();
        self.ends[edges].iter().flatten().copied()
    }

    /// One cycle for every knot of steps that wait for each other, smallest id first.
    fn cycles(&self) -> Vec<Vec<usize>> {
        let count = self.nodes.len();
        let mut waiting: Vec<usize> = vec![0; count];
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (at, waits) in waiting.iter_mut().enumerate() {
            for parent in self.parents(at) {
                children[parent].push(at);
                *waits += 1;
            }
        }
        let mut free: Vec<usize> = (0..count).filter(|at| waiting[*at] == 0).collect();
        while let Some(at) = free.pop() {
            for child in &children[at] {
                waiting[*child] -= 1;
                if waiting[*child] == 0 {
                    free.push(*child);
                }
            }
        }
        // Whoever is left waits, directly or not, for a cycle: follow the first such dependency until it repeats.
        let mut cycles = Vec::new();
        let mut seen = vec![false; count];
        for start in (0..count).filter(|at| waiting[*at] > 0) {
            let mut walk = Vec::new();
            let mut at = start;
            while !std::mem::replace(&mut seen[at], true) {
                walk.push(at);
                let next = self.parents(at).find(|parent| waiting[*parent] > 0);
                at = next.expect("who is left waits for one who is left");
            }
            if let Some(from) = walk.iter().position(|step| *step == at) {
                let mut cycle = walk.split_off(from);
                let smallest = (0..cycle.len())
                    .min_by_key(|index| self.nodes[cycle[*index]].step_id)
                    .unwrap_or(0);
                cycle.rotate_left(smallest);
                cycles.push(cycle);
            }
        }
        cycles
    }
}
