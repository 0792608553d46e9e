//! Which rule is shown by which test and kept by which function: read from the sources, so that no list has to be kept by
//! hand.
//!
//! A test shows the rules that its name begins with (`r_27_…`, `m2_…`, `r_60_m3_…`, `r_53_to_56_…`) and those that its doc comment
//! names (`R-27`). A function keeps the rules that its doc comment, or a comment in it, names. Knows no rule itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A test of the rules.
pub struct RuleTest {
    /// Its file in `tests/rules`, without extension.
    pub module: String,
    pub name: String,
    /// In the order of [`all`].
    pub rules: Vec<String>,
}

impl RuleTest {
    /// Name of its vector.
    pub fn vector(&self) -> String {
        format!("{}-{}", self.module, self.name)
    }
}

/// The rules of SPEC section 5.
pub fn all() -> Vec<String> {
    let machine = (1..=6).map(|n| format!("M{n}"));
    let rules = (1..=67).map(|n| format!("R-{n}"));
    machine.chain(rules).collect()
}

/// The workspace.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the workspace").to_owned()
}

/// Every test in `tests/rules`, in the order of its vectors.
pub fn tests() -> &'static [RuleTest] {
    static TESTS: OnceLock<Vec<RuleTest>> = OnceLock::new();
    TESTS.get_or_init(|| {
        let folder = fs::read_dir(root().join("tests/rules")).expect("the tests of the rules");
        let mut tests = Vec::new();
        for entry in folder {
            let path = entry.expect("it is readable").path();
            let module = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(&path).expect("a source is readable");
            tests.extend(tests_of(&module, &text));
        }
        tests.sort_by_key(RuleTest::vector);
        tests
    })
}

fn tests_of(module: &str, text: &str) -> Vec<RuleTest> {
    let (mut tests, mut above, mut is_test) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with("///") {
            above += line;
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else {
            if let Some(name) = fn_name(line).filter(|_| is_test) {
                let shown = [of_name(name), mentioned(&above)].concat();
                let rules = all().into_iter().filter(|rule| shown.contains(rule));
                tests.push(RuleTest {
                    module: module.to_owned(),
                    name: name.to_owned(),
                    rules: rules.collect(),
                });
            }
            (above, is_test) = (String::new(), false);
        }
    }
    tests
}

/// A function and a rule that it keeps.
pub struct Kept {
    pub rule: String,
    /// As `file::function`.
    pub function: String,
}

/// What the functions of a folder of sources keep, in the order of the files.
pub fn kept(folder: &str) -> Vec<Kept> {
    let folder = root().join(folder);
    let (mut files, mut folders) = (Vec::new(), vec![folder.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources") {
            let path = entry.expect("it is readable").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    let of = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("a source is readable");
        let inside = path.strip_prefix(&folder).expect("it is inside");
        let file = inside.with_extension("").display().to_string();
        kept_in(&file, &text)
    };
    files.iter().flat_map(of).collect()
}

fn kept_in(file: &str, text: &str) -> Vec<Kept> {
    let (mut kept, mut above): (Vec<Kept>, Vec<String>) = (Vec::new(), Vec::new());
    // The function that the line is in, and how far it is indented.
    let mut inside: Option<(String, usize)> = None;
    let mut keep = |rules: Vec<String>, name: &str| {
        let function = format!("{file}::{name}");
        for rule in rules {
            let known = kept
                .iter()
                .any(|of| of.rule == rule && of.function == function);
            if !known {
                let function = function.clone();
                kept.push(Kept { rule, function });
            }
        }
    };
    for line in text.lines() {
        let (code, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        if code.starts_with("#[cfg(test)]") {
            break;
        }
        if code.starts_with("///") {
            above.extend(mentioned(code));
        } else if let Some(name) = fn_name(code) {
            keep(std::mem::take(&mut above), name);
            // Without a body it is of a trait.
            inside = (!code.ends_with(';')).then(|| (name.to_owned(), indent));
        } else if !code.starts_with("#[") {
            above.clear();
            if let Some((name, depth)) = &inside {
                if code == "}" && indent == *depth {
                    inside = None;
                } else if let Some((_, comment)) = code.split_once("//") {
                    keep(mentioned(comment), name);
                }
            }
        }
    }
    kept
}

/// The function that a line of source begins, if it does.
pub fn fn_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let qualifiers = ["pub", "pub(crate)", "pub(super)", "const", "async"];
    let word = words.find(|word| !qualifiers.contains(word));
    let rest = (word == Some("fn")).then(|| words.next()).flatten()?;
    let end = rest.find(['(', '<']).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The rules that a name begins with.
fn of_name(name: &str) -> Vec<String> {
    let (mut rules, mut words) = (Vec::new(), name.split('_').peekable());
    let mut last = 0;
    while let Some(word) = words.next() {
        let number = |word: &&str| word.parse::<u32>().ok();
        match word {
            "r" => {
                let Some(n) = words.next().as_ref().and_then(number) else {
                    break;
                };
                rules.push(format!("R-{n}"));
                last = n;
            }
            "to" => {
                let Some(n) = words.next().as_ref().and_then(number) else {
                    break;
                };
                rules.extend((last + 1..=n).map(|n| format!("R-{n}")));
            }
            "m1" | "m2" | "m3" | "m4" | "m5" | "m6" => rules.push(word.to_uppercase()),
            _ => break,
        }
    }
    rules
}

/// The rules that a text mentions.
pub fn mentioned(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !is_part(c));
    let rules = all();
    words
        .filter_map(|word| rules.iter().find(|rule| *rule == word).cloned())
        .collect()
}

#[test]
fn rules_are_read_from_names_and_texts() {
    assert_eq!(of_name("r_27_exactly_at"), ["R-27"]);
    assert_eq!(of_name("r_60_m3_a_refused"), ["R-60", "M3"]);
    assert_eq!(of_name("r_53_to_55_the"), ["R-53", "R-54", "R-55"]);
    assert_eq!(of_name("table_r_1"), [""; 0]);
    assert_eq!(
        mentioned("as R-5, (R-53) and M3: r_6 R-99"),
        ["R-5", "R-53", "M3"]
    );
    assert_eq!(fn_name("pub(crate) fn decide<'a>("), Some("decide"));
    assert_eq!(fn_name("// fn none()"), None);
    let text = "/// R-1.\nstruct S;\n/// R-2, R-3\n#[x]\nfn f() {\n    // R-4\n}\n// R-5\n";
    let kept: Vec<String> = kept_in("m", text)
        .into_iter()
        .map(|kept| kept.rule + " " + &kept.function)
        .collect();
    assert_eq!(kept, ["R-2 m::f", "R-3 m::f", "R-4 m::f"]);
    let text = "/// Also R-9.\n#[test]\nfn r_3_x() {}\nfn r_4_helper() {}\n";
    let tests = tests_of("m", text);
    assert_eq!(
        (tests.len(), &tests[0].rules[..]),
        (1, &["R-3".to_owned(), "R-9".into()][..])
    );
}
