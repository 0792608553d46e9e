//! What a test of the rules did, kept as a vector: compared with the file at the end, or written where the environment
//! says `QM2_BLESS=1`.
//!
//! Only tests in `tests/rules` are kept, and there neither random runs nor runs that are too long for a file or hold
//! integers that some languages cannot.

use super::rule;
use super::vector::{self, Called, End, HostStep, INTEGER_MAX, Run, Step, Vector};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

/// Bytes of a file with one run; a longer one is left out.
const RUN_BYTES_MAX: usize = 45_000;
/// Bytes of a file with more; runs that would make it longer are left out.
const FILE_BYTES_MAX: usize = 30_000;
/// Bytes of a file around its runs, at most.
const HEAD_BYTES_MAX: usize = 500;
/// Modules whose scenarios are made up as they go.
const RANDOM: [&str; 1] = ["random"];

/// Runs of one test in this process: how many were begun, and those that ended and are kept.
#[derive(Default)]
struct Runs {
    begun: usize,
    ended: BTreeMap<usize, Run>,
}

/// By the names of their vectors.
static RUNS: Mutex<BTreeMap<String, Runs>> = Mutex::new(BTreeMap::new());

/// One run of a test that is under way.
pub struct Recording {
    /// Name of the vector.
    name: String,
    title: String,
    rules: Vec<String>,
    run: Run,
}

/// Whether files are written anew instead of compared.
pub fn is_blessing() -> bool {
    std::env::var_os("QM2_BLESS").is_some_and(|value| value == "1")
}

impl Recording {
    /// Of the test that this thread runs, if it is one whose scenarios are kept.
    pub fn begin() -> Option<Self> {
        let thread = thread::current();
        let (module, test) = thread.name()?.strip_prefix("rules::")?.split_once("::")?;
        if RANDOM.contains(&module) {
            return None;
        }
        let mut tests = rule::tests().iter();
        let found = tests.find(|known| known.module == module && known.name == test);
        let found = found.unwrap_or_else(|| panic!("{module}::{test} is not in its file"));
        let name = found.vector();
        let run = {
            let mut runs = RUNS.lock().unwrap_or_else(|e| e.into_inner());
            let of_test = runs.entry(name.clone()).or_default();
            of_test.begun += 1;
            of_test.begun
        };
        Some(Self {
            title: title(test),
            rules: found.rules.clone(),
            name,
            run: Run {
                run,
                ..Run::default()
            },
        })
    }

    pub fn call(&mut self, called: Called) {
        self.run.steps.push(Step::Call(Box::new(called)));
    }

    pub fn host(&mut self, step: HostStep) {
        self.run.steps.push(Step::Host(step));
    }

    /// The run is over: it is written, or compared with what was written.
    pub fn finish(mut self, end: Option<End>) {
        if self.run.steps.is_empty() {
            return;
        }
        self.run.end = end;
        let path = folder().join(&self.name).with_extension("json");
        if is_blessing() {
            self.write(&path);
        } else {
            self.compare(&path);
        }
    }

    fn vector(&self) -> Vector {
        Vector::new(&self.title, &self.rules)
    }

    fn write(self, path: &PathBuf) {
        let mut vector = self.vector();
        let exact = is_exact(&self.run.text());
        let mut runs = RUNS.lock().unwrap_or_else(|e| e.into_inner());
        let ended = &mut runs.entry(self.name).or_default().ended;
        let number = self.run.run;
        ended.insert(number, self.run);
        vector.runs = ended.values().cloned().collect();
        let most = match vector.runs.len() {
            1 => RUN_BYTES_MAX,
            _ => FILE_BYTES_MAX,
        };
        if !exact || vector.text().len() > most {
            ended.remove(&number);
            vector.runs.retain(|run| run.run != number);
        }
        if vector.runs.is_empty() {
            // There may be one of before.
            let _ = fs::remove_file(path);
        } else {
            fs::write(path, vector.text()).expect("the vector can be written");
        }
    }

    fn compare(&self, path: &PathBuf) {
        let stale = "if it is what the SPEC wants, QM2_BLESS=1 writes it";
        let file = fs::read_to_string(path).unwrap_or_default();
        let vector = match file.as_str() {
            "" => self.vector(),
            file => Vector::parse(file).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        };
        let text = self.run.text();
        let mut runs = vector.runs.iter();
        match runs.find(|known| known.run == self.run.run) {
            Some(known) => {
                let difference = vector::difference(&known.text(), &text);
                let (run, path) = (self.run.run, path.display());
                assert_eq!(difference, None, "run {run} of {path} is another; {stale}");
            }
            None => {
                let most = match vector.runs.len() {
                    0 => RUN_BYTES_MAX - HEAD_BYTES_MAX,
                    _ => FILE_BYTES_MAX - file.len().min(FILE_BYTES_MAX),
                };
                let left_out = text.len() > most || !is_exact(&text);
                let (run, path) = (self.run.run, path.display());
                assert!(left_out, "run {run} is not in {path}; {stale}");
            }
        }
        let known = (&vector.title, &vector.rules);
        let ours = (&self.title, &self.rules);
        assert_eq!(known, ours, "{}; {stale}", path.display());
    }
}

/// Where the vectors are.
pub fn folder() -> PathBuf {
    vector::folder(env!("CARGO_MANIFEST_DIR"))
}

/// What a name says, without the rules that it begins with.
fn title(test: &str) -> String {
    let is_rule = |word: &&str| {
        matches!(*word, "r" | "to" | "m1" | "m2" | "m3" | "m4" | "m5" | "m6")
            || word.bytes().all(|byte| byte.is_ascii_digit())
    };
    let words: Vec<&str> = test.split('_').skip_while(is_rule).collect();
    words.join(" ")
}

/// Every integer is one that each language can hold.
fn is_exact(text: &str) -> bool {
    fn of(value: &Value) -> bool {
        match value {
            Value::Number(number) => number.as_u64().is_some_and(|number| number <= INTEGER_MAX),
            Value::Array(entries) => entries.iter().all(of),
            Value::Object(members) => members.values().all(of),
            _ => true,
        }
    }
    of(&serde_json::from_str(text).expect("a run is JSON"))
}
