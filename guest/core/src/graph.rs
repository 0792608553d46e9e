//! The steps of a plan as a graph: duplicate ids, unknown dependencies, cycles, and two owners of one resource.
//!
//! Knows nothing of states; it is used once, while a plan is read.

use crate::arbitration::Policy;
use crate::plan::Dependency;
use crate::read::Object;
use crate::{limit, order};

/// Where each step stands in the text and what it waits for.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// Places in `nodes`, by step id; of those with one id only the first. Made by `check`.
    by_id: Vec<usize>,
    dependencies: usize,
    /// Resources that steps own, with the session and the place of the step.
    owned: Vec<(String, String, usize)>,
}

/// A step of the graph.
struct Node {
    step_id: String,
    /// Its place in the text.
    index: usize,
    waits_for: Vec<String>,
}

impl Node {
    /// Path of a member.
    fn path_of(&self, name: &str) -> String {
        format!("steps[{}].{name}", self.index)
    }
}

impl Graph {
    pub(crate) fn add(&mut self, object: &Object<'_>, step_id: &str, dependencies: &[Dependency]) {
        self.dependencies += dependencies.len();
        let mut seen: Vec<(&str, u8)> = Vec::new();
        for (index, dependency) in dependencies.iter().enumerate() {
            let member = || format!("dependsOn[{index}].stepId");
            if dependency.step_id == step_id {
                object.problem(
                    &member(),
                    "self-dependency",
                    format!("is {step_id}, the step itself"),
                );
            } else if !order::insert(&mut seen, (&dependency.step_id, dependency.on as u8)) {
                object.problem(
                    &member(),
                    "duplicate-dependency",
                    format!("is {} again", dependency.step_id),
                );
            }
        }
        let others = dependencies
            .iter()
            .map(|dependency| dependency.step_id.clone());
        let waits_for = others.filter(|other| other != step_id).collect();
        self.nodes.push(Node {
            step_id: step_id.to_owned(),
            index: object.index(),
            waits_for,
        });
    }

    /// Notes what the step that was added last owns.
    pub(crate) fn add_owned(&mut self, object: &Object<'_>, session: &str, owns: &[String]) {
        let at = self.nodes.len() - 1;
        let mut seen: Vec<&str> = Vec::new();
        for (index, resource) in owns.iter().enumerate() {
            if !order::insert(&mut seen, resource.as_str()) {
                let says = format!("is {resource} again");
                object.problem(&format!("owns[{index}]"), "duplicate-resource", says);
                continue;
            }
            let entry = (resource.clone(), session.to_owned(), at);
            self.owned.push(entry);
        }
    }

    /// no resource has two owners, whether steps or the policy name them.
    pub(crate) fn check_owners(&mut self, object: &Object<'_>, policy: &Policy) {
        let owned = order::sort(std::mem::take(&mut self.owned), |a, b| {
            (&a.0, a.2).cmp(&(&b.0, b.2))
        });
        let mut first: Option<&(String, String, usize)> = None;
        for entry in &owned {
            let (resource, session, at) = entry;
            let other = match first.filter(|(known, _, _)| known == resource) {
                Some((_, other, _)) => Some(other.as_str()),
                None => {
                    first = Some(entry);
                    policy.owner_of(resource)
                }
            };
            if let Some(other) = other.filter(|other| other != session) {
                let node = &self.nodes[*at];
                let says = format!("has {resource}, which {other} owns already");
                let field = node.path_of("owns");
                object.problem_of(&node.step_id, field, "two-owners", says);
            }
        }
    }

    /// Duplicate ids, unknown dependencies, cycles, and the bound over all steps.
    pub(crate) fn check(&mut self, object: &Object<'_>) {
        let id = |place: &usize| self.nodes[*place].step_id.as_str();
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
        self.by_id = by_id;
        if self.dependencies > limit::PLAN_DEPENDENCIES_MAX {
            let bound = limit::PLAN_DEPENDENCIES_MAX;
            let says = format!(
                "have {} dependencies together; {bound} are allowed",
                self.dependencies
            );
            object.problem("steps", "out-of-bound", says);
        }
        for node in &self.nodes {
            for other in node
                .waits_for
                .iter()
                .filter(|other| self.place(other).is_none())
            {
                let says = format!("names {other}, which is no step of the plan");
                Self::problem(object, node, "unknown-dependency", says);
            }
        }
        for cycle in self.cycles() {
            let ids: Vec<&str> = cycle
                .iter()
                .chain(cycle.first())
                .map(|at| &*self.nodes[*at].step_id)
                .collect();
            Self::problem(
                object,
                &self.nodes[cycle[0]],
                "cycle",
                format!("waits for itself: {}", ids.join(" -> ")),
            );
        }
    }

    fn problem(object: &Object<'_>, node: &Node, code: &str, says: String) {
        object.problem_of(&node.step_id, node.path_of("dependsOn"), code, says);
    }

    fn parents(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        self.nodes[at]
            .waits_for
            .iter()
            .filter_map(|other| self.place(other))
    }

    fn place(&self, step_id: &str) -> Option<usize> {
        let found = self
            .by_id
            .binary_search_by(|place| self.nodes[*place].step_id.as_str().cmp(step_id));
        found.ok().map(|at| self.by_id[at])
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
                    .min_by_key(|index| &self.nodes[cycle[*index]].step_id)
                    .unwrap_or(0);
                cycle.rotate_left(smallest);
                cycles.push(cycle);
            }
        }
        cycles
    }
}
