//! Which row of which table is implemented, deviated from or only context, and which test shows it.
//!
//! Tests are read from the sources, so that the table cannot claim one that is not there. Does not know what a row means.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A row, as `rows.json` has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    row: String,
    status: Status,
    says: String,
    /// What is done instead, or who does it.
    #[serde(default)]
    note: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Implemented,
    Deviated,
    Context,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Implemented => "implemented",
            Self::Deviated => "deviated",
            Self::Context => "context",
        }
    }
}

/// Letters of a row, and the module whose tests show it.
const TABLES: [(&str, &str, &str); 6] = [
    ("CQ", "Lanes", "primitives/lanes.rs"),
    ("LN", "Lanes and their widths", "primitives/lanes.rs"),
    ("DQ", "Durable queue", "primitives/queue.rs"),
    ("EV", "Event stream", "primitives/events.rs"),
    ("SA", "Lifecycle of subagents", "primitives/lifecycle.rs"),
    ("H", "Hooks", "hooks.rs"),
];

fn tests_folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the workspace").join("tests")
}

/// `cq_03_fifo` is of `CQ-3`.
fn row_of(test: &str) -> Option<String> {
    let (letters, rest) = test.split_once('_')?;
    let (number, _) = rest.split_once('_')?;
    let known = ["cq", "ln", "dq", "ev", "sa", "hk", "hm"].contains(&letters);
    let number: u32 = number.parse().ok().filter(|_| number.len() == 2 && known)?;
    Some(format!("{}-{number}", letters.to_uppercase()))
}

/// Text of a module and of those below it.
fn text_of(module: &Path) -> String {
    let mut text = fs::read_to_string(module).expect("a module of tests");
    let below = fs::read_dir(module.with_extension(""))
        .into_iter()
        .flatten();
    let below = below.map(|entry| entry.expect("a module of tests").path());
    for module in below.collect::<BTreeSet<PathBuf>>() {
        text += &fs::read_to_string(module).expect("a module of tests");
    }
    text
}

/// Names of the tests of a module, by row.
fn tests_of(module: &str) -> BTreeMap<String, Vec<String>> {
    let text = text_of(&tests_folder().join(module));
    let (mut by_row, mut is_test) = (BTreeMap::<_, Vec<_>>::new(), false);
    for line in text.lines() {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let name = line.strip_prefix("async ").unwrap_or(line);
        let Some(name) = name.strip_prefix("fn ") else {
            continue;
        };
        let name = name.split('(').next().unwrap_or_default();
        if let Some(row) = row_of(name).filter(|_| is_test) {
            by_row.entry(row).or_default().push(name.to_owned());
        }
        is_test = false;
    }
    by_row
}

const HEAD: &str = "# Primitives of an agent host, row by row

What an agent host observably does, and whether QM2's harness does the same. Deviated: the harness does something else on purpose,
and the test shows that. Context: a neighbour that needs no code here. Tests of hooks are in `hooks.rs`, the others in
`primitives/`. Generated: `QM2_BLESS=1 cargo test --test primitives table::`.
";

#[test]
fn every_row_that_is_implemented_or_deviated_has_its_test_and_no_other_has_one() {
    let text = fs::read_to_string(tests_folder().join("primitives/rows.json")).expect("the rows");
    let rows: Vec<Row> = serde_json::from_str(&text).expect("rows");
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.row.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "a row is there twice");
    let (mut text, mut wrong) = (String::from(HEAD), Vec::new());
    for (letters, title, module) in TABLES {
        let mut tests = tests_of(module);
        tests.retain(|row, _| row.starts_with(letters));
        let _ = write!(
            text,
            "\n## {title}\n\n| row | says | here | test |\n|---|---|---|---|\n"
        );
        for row in rows.iter().filter(|row| row.row.starts_with(letters)) {
            let shown = tests.remove(&row.row).unwrap_or_default();
            let is_due = row.status != Status::Context;
            if is_due == shown.is_empty() {
                wrong.push(format!("{} is {}: {shown:?}", row.row, row.status.name()));
            }
            if row.status == Status::Deviated && row.note.is_empty() {
                wrong.push(format!("{} does not say what is done instead", row.row));
            }
            let here = match row.note.as_str() {
                "" => row.status.name().to_owned(),
                note => format!("{}: {note}", row.status.name()),
            };
            let shown: Vec<String> = shown.iter().map(|test| format!("`{test}`")).collect();
            let shown = shown.join("<br>");
            let _ = writeln!(text, "| {} | {} | {here} | {shown} |", row.row, row.says);
        }
        wrong.extend(tests.into_keys().map(|row| format!("{row} is no row")));
    }
    assert_eq!(wrong, [""; 0]);
    let path = tests_folder().join("PRIMITIVES.md");
    if std::env::var_os("QM2_BLESS").is_some() {
        fs::write(&path, &text).expect("the table can be written");
    }
    let file = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        file == text,
        "QM2_BLESS=1 cargo test --test primitives table:: writes {}",
        path.display()
    );
}
