//! The table of decisions worked out by hand: how its rows are read, and that they come out.
//!
//! The rows and their format are in `table.txt`.

use crate::{NOW, RESOURCE};
use qm2_core::arbitration::{
    Contender, ContenderOutcome, Contest, Decision, OutcomeKind, Owner, Policy, Rule,
    Strategy as Kind, arbitrate,
};
use qm2_core::claim::{Mode, Region};
use qm2_core::envelope::Priority;
use std::collections::{BTreeMap, BTreeSet};

struct Row<'a> {
    line: usize,
    cells: Vec<&'a str>,
    contest: Contest,
    policy: Policy,
}

fn rows() -> Vec<Row<'static>> {
    let text = include_str!("table.txt");
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, text)| !text.is_empty() && !text.starts_with('#'))
        .map(|(at, text)| {
            let cells: Vec<&str> = text.split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 6, "line {}: {text}", at + 1);
            Row {
                line: at + 1,
                contest: Contest {
                    resource: RESOURCE.to_owned(),
                    at_ms: NOW,
                    holders: claims(cells[2]),
                    contenders: claims(cells[3]),
                },
                policy: policy(cells[0], cells[1]),
                cells,
            }
        })
        .collect()
}

pub(crate) fn claims(cell: &str) -> Vec<Contender> {
    match cell {
        "-" => Vec::new(),
        _ => cell.split(' ').map(claim).collect(),
    }
}

/// A claim as the head of the table describes it.
pub(crate) fn claim(text: &str) -> Contender {
    let (name, mut rest) = text.split_once(':').expect(text);
    let (coordination, step) = name.split_once('/').unwrap_or(("k", name));
    let mut letters = rest.chars();
    let priority = match letters.next() {
        Some('l') => Priority::Low,
        Some('n') => Priority::Normal,
        Some('h') => Priority::High,
        Some('c') => Priority::Critical,
        _ => panic!("priority of {text}"),
    };
    let mode = match letters.next() {
        Some('s') => Mode::Shared,
        Some('x') => Mode::Exclusive,
        _ => panic!("mode of {text}"),
    };
    rest = letters.as_str();
    let mut word = || {
        let end = rest.find(['@', '[', ']', '#', '<', '~', '=']);
        let word = &rest[..end.unwrap_or(rest.len())];
        rest = &rest[word.len()..];
        let mark = rest.chars().next();
        rest = &rest[mark.map_or(0, char::len_utf8)..];
        (word, mark)
    };
    let number = |word: &str| {
        word.parse::<u64>()
            .unwrap_or_else(|_| panic!("{word} in {text}"))
    };
    let (claim_number, mut mark) = word();
    let mut claim = Contender {
        coordination_id: coordination.to_owned(),
        step_id: step.to_owned(),
        attempt: 1,
        session: step.to_owned(),
        priority,
        claim_number: number(claim_number),
        mode,
        base_version: None,
        regions: Vec::new(),
        token: None,
        expires_ms: None,
        preemptible: false,
    };
    while let Some(sort) = mark {
        let (value, next) = word();
        mark = next;
        match sort {
            '@' => claim.base_version = Some(value.to_owned()),
            '[' => {
                let pairs = value
                    .split(',')
                    .map(|pair| pair.split_once('-').expect(text));
                let region = |(start, end)| Region {
                    start: number(start),
                    end: number(end),
                };
                claim.regions = pairs.map(region).collect();
            }
            '#' => claim.token = Some(number(value)),
            '<' => claim.expires_ms = Some(number(value)),
            '~' => claim.preemptible = true,
            '=' => value.clone_into(&mut claim.session),
            _ => assert_eq!((sort, value), (']', ""), "{text}"),
        }
    }
    claim
}

fn strategy(word: &str) -> Kind {
    match word {
        "own" => Kind::OwnerWins,
        "pri" => Kind::PriorityWins,
        "mrg" => Kind::MergeIfSafe,
        "man" => Kind::ManualReview,
        _ => panic!("strategy {word}"),
    }
}

pub(crate) fn policy(cell: &str, owner: &str) -> Policy {
    let (how, rest) = cell.split_once(':').unwrap_or(("", cell));
    let (word, preempt) = match rest.strip_suffix("+p") {
        Some(word) => (word, true),
        None => (rest, false),
    };
    let wanted = strategy(word);
    let other = if wanted == Kind::ManualReview {
        Kind::OwnerWins
    } else {
        Kind::ManualReview
    };
    let rule = |resource: &str, strategy| Rule {
        resource: resource.to_owned(),
        strategy,
    };
    let mut policy = Policy {
        default: wanted,
        preempt,
        ..Policy::default()
    };
    match how {
        "" => {}
        "r" => (policy.default, policy.rules) = (other, vec![rule("file:src/*", wanted)]),
        "f" => policy.rules = vec![rule("file:**", wanted), rule(RESOURCE, other)],
        "n" => policy.rules = vec![rule("file:doc/**", other)],
        "h" => policy.high_risk = vec!["file:**/lib.rs".to_owned()],
        "hr" => {
            policy.rules = vec![rule(RESOURCE, wanted)];
            policy.high_risk = vec!["queue:*".to_owned(), "file:src/**".to_owned()];
        }
        "x" => policy.high_risk = vec!["file:*".to_owned()],
        _ => panic!("policy {cell}"),
    }
    let owns = |resource: &str, session: &str| Owner {
        resource: resource.to_owned(),
        session: session.to_owned(),
    };
    if owner != "-" {
        // The first that fits counts.
        policy.owners = vec![
            owns("file:doc/**", "a"),
            owns("file:src/**", owner),
            owns("**", "a"),
        ];
    }
    policy
}

/// Stage and outcomes as the table writes them.
pub(crate) fn written(decision: &Decision) -> (String, String) {
    let one = |outcome: &ContenderOutcome| {
        let step = &outcome.step_id;
        let order = outcome.order;
        match outcome.outcome {
            OutcomeKind::Granted => format!("{step}=G{order}"),
            OutcomeKind::Waits => format!("{step}=W{order}"),
            OutcomeKind::Preempts => format!("{step}=P{order}"),
            OutcomeKind::Refused => format!("{step}=N{order}"),
            OutcomeKind::Review if order == 0 => format!("{step}=R"),
            OutcomeKind::Review => format!("{step}=R{order}"),
        }
    };
    let outcomes: Vec<String> = decision.outcomes.iter().map(one).collect();
    (decision.stage.name().to_owned(), outcomes.join(" "))
}

#[test]
fn every_row_of_the_table_is_decided_as_by_hand() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let rows = rows();
    for Row {
        line,
        cells,
        contest,
        policy,
    } in &rows
    {
        let decision = arbitrate(contest, policy);
        let (stage, outcomes) = written(&decision);
        if (stage.as_str(), outcomes.as_str()) != (cells[4], cells[5]) {
            wrong.push(format!(
                "line {line}: {} | {} | {outcomes} instead of {}",
                cells[..4].join(" | "),
                stage,
                cells[4..].join(" | ")
            ));
        }
        assert!(seen.insert(&cells[..4]), "line {line} is there twice");
        let by_rules = cells[0].starts_with('h').then_some(Kind::ManualReview);
        let word = cells[0]
            .trim_end_matches("+p")
            .rsplit(':')
            .next()
            .unwrap_or_default();
        assert_eq!(
            decision.strategy,
            by_rules.unwrap_or_else(|| strategy(word)),
            "line {line}"
        );
        assert!(!decision.reason.is_empty());
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(rows.len() >= 150, "{} rows", rows.len());
}

#[test]
fn the_table_has_every_value_of_every_dimension() {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |name: String| *found.entry(name).or_default() += 1;
    for Row {
        cells,
        contest,
        policy,
        ..
    } in rows()
    {
        let strategy = policy.strategy_of(RESOURCE).name();
        let owner = policy.owner_of(RESOURCE);
        let owns = |claims: &[Contender]| claims.iter().any(|c| Some(c.session.as_str()) == owner);
        let ownership = match owner {
            None => "none",
            Some(_) if owns(&contest.contenders) => "a contender",
            Some(_) if owns(&contest.holders) => "a holder",
            Some(_) => "another",
        };
        let how = cells[0].split_once(':').map_or("default", |(how, _)| how);
        count(format!("how {how}"));
        count(format!("preempt {} {strategy}", policy.preempt));
        let mut leases: Vec<&str> = contest.holders.iter().map(lease).collect();
        if leases.is_empty() {
            leases.push("none");
        }
        for lease in leases {
            count(format!("{strategy} owner {ownership}"));
            count(format!("{strategy} lease {lease}"));
            count(format!("lease {lease} owner {ownership}"));
        }
        count(format!("contenders {}", contest.contenders.len()));
        count(format!("stage {}", cells[4]));
        for outcome in arbitrate(&contest, &policy).outcomes {
            count(format!("outcome {}", outcome.outcome.name()));
        }
        for a in &contest.contenders {
            count(format!("priority {:?} {strategy}", a.priority));
            for b in contest.contenders.iter().chain(&contest.holders) {
                count(format!("modes {:?} {:?} {strategy}", a.mode, b.mode));
                let base = match (&a.base_version, &b.base_version) {
                    (None, None) => "absent",
                    (Some(a), Some(b)) if a == b => "same",
                    (Some(_), Some(_)) => "different",
                    _ => "one only",
                };
                let regions = match (a.regions.first(), b.regions.first()) {
                    (None, None) => "absent",
                    (Some(a), Some(b)) if a.end == b.start => "touch",
                    (Some(a), Some(b)) if a.end < b.start => "apart",
                    (Some(a), Some(b)) if a != b && a.start <= b.start => "overlap",
                    (Some(_), Some(_)) => "other",
                    _ => "one only",
                };
                count(format!("{strategy} base {base}"));
                count(format!("{strategy} regions {regions}"));
            }
        }
    }
    let mut wanted: Vec<String> = Vec::new();
    let leases = [
        "none",
        "live",
        "ends now",
        "ended 1 ms ago",
        "ends in 1 ms",
        "waits",
    ];
    for strategy in [
        "owner_wins",
        "priority_wins",
        "merge_if_safe",
        "manual_review",
    ] {
        wanted.extend(["none", "a contender", "a holder"].map(|v| format!("{strategy} owner {v}")));
        wanted.extend(leases.map(|v| format!("{strategy} lease {v}")));
        wanted.extend([true, false].map(|v| format!("preempt {v} {strategy}")));
        wanted.extend(["Low", "Normal", "Critical"].map(|v| format!("priority {v} {strategy}")));
        for (a, b) in [
            ("Shared", "Shared"),
            ("Shared", "Exclusive"),
            ("Exclusive", "Exclusive"),
        ] {
            wanted.push(format!("modes {a} {b} {strategy}"));
        }
    }
    for lease in ["live", "ends now", "ends in 1 ms", "waits"] {
        wanted.extend(
            ["none", "a contender", "a holder"].map(|v| format!("lease {lease} owner {v}")),
        );
    }
    wanted.extend(
        ["absent", "same", "different", "one only"].map(|v| format!("merge_if_safe base {v}")),
    );
    wanted.extend(
        ["absent", "touch", "apart", "overlap", "one only"]
            .map(|v| format!("merge_if_safe regions {v}")),
    );
    wanted.extend(["default", "r", "f", "n", "h", "hr", "x"].map(|v| format!("how {v}")));
    wanted.extend((1..=5).map(|v| format!("contenders {v}")));
    wanted.extend(["ownership", "lease", "strategy"].map(|v| format!("stage {v}")));
    wanted.extend(["granted", "waits", "review", "preempts"].map(|v| format!("outcome {v}")));
    wanted.push("priority High priority_wins".to_owned());
    let missing: Vec<&String> = wanted
        .iter()
        .filter(|name| !found.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

fn lease(holder: &Contender) -> &'static str {
    match (holder.token, holder.expires_ms) {
        (_, Some(NOW)) => "ends now",
        (_, Some(ms)) if ms + 1 == NOW => "ended 1 ms ago",
        (_, Some(ms)) if ms == NOW + 1 => "ends in 1 ms",
        (Some(_), _) => "live",
        (None, _) => "waits",
    }
}
