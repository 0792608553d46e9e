//! What holds for the text of the whole repository: file headers, sizes, what the core must not use, no paths of somebody's
//! machine, a test named for every rule, and that the lines which the simulator makes wrong are there.
//!
//! Looks at files only; does not know git, so it also works in an unpacked archive.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 900;
/// What is not the repository's own; in a linked worktree of git `.git` is a file.
const FOREIGN: [&str; 5] = ["target", ".git", ".qm2", "node_modules", "__pycache__"];

fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the workspace").to_owned()
}

/// Every file below a folder with its text; what is not text is read as far as it is.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if FOREIGN.contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = fs::read(&path).expect("the file is readable");
                found.push((path, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    found.sort();
    found
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = files(folder);
    files.retain(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(files.len() > 10, "the sources are not where they were");
    files
}

/// Places of a text, as `file:line`.
fn places(files: &[(PathBuf, String)], is_offence: impl Fn(&str) -> bool) -> Vec<String> {
    let mut places = Vec::new();
    for (path, text) in files {
        for (index, line) in text.lines().enumerate() {
            if is_offence(line) {
                places.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    places
}

#[test]
fn every_source_file_says_first_what_it_is_for() {
    for (path, text) in sources(&root()) {
        assert!(text.starts_with("//! "), "{} has no header", path.display());
    }
}

#[test]
fn no_source_file_is_longer_than_900_lines() {
    for (path, text) in sources(&root()) {
        let count = text.lines().count();
        assert!(count <= LINES_MAX, "{} has {count} lines", path.display());
    }
}

#[test]
fn nothing_is_left_to_do() {
    // Put together here, so that this file does not find itself.
    let offences = ["todo", "unimplemented"].map(|name| format!("{name}!"));
    let found = places(&sources(&root()), |line| {
        offences.iter().any(|offence| line.contains(offence))
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_core_uses_nothing_that_differs_from_run_to_run() {
    let offences = [
        "HashMap",
        "HashSet",
        "Instant",
        "SystemTime",
        "f32",
        "f64",
        "std::env",
        "std::fs",
        "std::thread",
    ];
    // Tests and examples are not in the component.
    let mut all = sources(&root().join("guest"));
    all.retain(|(path, _)| path.components().any(|part| part.as_os_str() == "src"));
    let found = places(&all, |line| {
        let code = line.split("//").next().unwrap_or_default();
        // Where JSON is read the number is named that is not looked at.
        let code = code.replace("fn visit_f64<E>(self, _: f64)", "");
        offences.iter().any(|offence| code.contains(offence))
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    let folders = ["root", "home", "Users", "work"].map(|folder| format!("/{folder}/"));
    let is_path = |line: &str| {
        folders.iter().any(|folder| {
            let mut rest = line.split(folder.as_str()).skip(1);
            rest.any(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    };
    assert_eq!(places(&files(&root()), is_path), [""; 0]);
}

/// The simulator makes them wrong one by one, long after the tests have run.
#[test]
fn lines_that_are_to_be_mutated_stand_in_the_core_once() {
    let text = fs::read_to_string(root().join("tests/simulation/mutations.json"));
    let text = text.expect("the mutations are readable");
    let mutations: Vec<Value> = serde_json::from_str(&text).expect("they are JSON");
    assert!(!mutations.is_empty());
    for mutation in mutations {
        let of = |member: &str| mutation[member].as_str().unwrap_or_default();
        let source = fs::read_to_string(root().join("guest/core/src").join(of("file")));
        let count = source
            .expect("the file is readable")
            .matches(of("old"))
            .count();
        assert_eq!(count, 1, "{}: {}", of("name"), of("old"));
    }
}

/// The rules of SPEC section 5.
fn rules() -> Vec<String> {
    let machine = (1..=6).map(|n| format!("m{n}"));
    let rules = (1..=67).map(|n| format!("r_{n}"));
    machine.chain(rules).collect()
}

#[test]
fn every_rule_has_a_test_that_is_named_for_it() {
    let tests = sources(&root().join("tests"));
    let without: Vec<String> = rules()
        .into_iter()
        .filter(|rule| {
            let name = format!("fn {rule}_");
            !tests.iter().any(|(_, text)| text.contains(&name))
        })
        .collect();
    assert_eq!(without, [""; 0]);
}
