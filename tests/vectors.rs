//! Runs the vectors through the core itself and through the component in its sandbox, and tests that they are complete.
//!
//! Knows nothing of the tests that wrote them: whatever a vector says must come again, byte for byte.

use crate::support::{Native, engine, record, rule, vector};
use qm2_core::call::{Answer, Call};
use qm2_core::receipt::CallError;
use qm2_core::staged::Staged;
use qm2_host::engine::Instance;
use serde_json::{Value, json};

/// The component as a host runs it.
pub struct Component(Instance);

impl vector::Instance for Component {
    fn fresh() -> Self {
        Self(engine().instance().expect("an instance can be made"))
    }

    fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        let answered = self.0.call(call);
        answered.unwrap_or_else(|fault| panic!("{}: {fault}", call.name()))
    }

    fn take_staged(&mut self) -> Staged {
        self.0.take_staged()
    }

    fn refuse_appends(&mut self) {
        self.0.refuse_appends();
    }
}

/// The component through its JSON door.
struct JsonDoor(Instance);

impl vector::Instance for JsonDoor {
    fn fresh() -> Self {
        Self(engine().instance().expect("an instance can be made"))
    }

    fn call(&mut self, call: &Call) -> Result<Answer, CallError> {
        let request = json!(call).to_string();
        let answered = self.0.call_json(call.name(), &request);
        let text = answered.unwrap_or_else(|fault| panic!("{}: {fault}", call.name()));
        let mut answer: Value = serde_json::from_str(&text).expect("an answer is JSON");
        match answer.get_mut("error").map(Value::take) {
            Some(error) => Err(serde_json::from_value(error).expect(&text)),
            None => Ok(serde_json::from_value(answer).expect(&text)),
        }
    }

    fn take_staged(&mut self) -> Staged {
        self.0.take_staged()
    }

    fn refuse_appends(&mut self) {
        self.0.refuse_appends();
    }
}

fn files() -> Vec<(String, String)> {
    vector::files(&vector::folder(env!("CARGO_MANIFEST_DIR")))
}

/// What is wrong with each vector of which anything is.
fn failed<I: vector::Instance>(files: &[(String, String)]) -> Vec<String> {
    let checked = files.iter().filter_map(|(name, text)| {
        let failed = vector::check::<I>(text).err()?;
        Some(format!("{name}: {failed}"))
    });
    checked.collect()
}

#[test]
fn every_vector_holds_in_the_core() {
    let failed = failed::<Native>(&files());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_vector_holds_in_the_component() {
    let failed = failed::<Component>(&files());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_vector_holds_through_the_json_door() {
    let failed = failed::<JsonDoor>(&files());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_json_door_refuses_what_it_does_not_know_and_goes_on() {
    let mut instance = engine().instance().expect("an instance can be made");
    for (function, request, field) in [
        ("dream", "{}", "call"),
        ("head", "{", "$"),
        ("head", r#"{"call":"advance"}"#, "call"),
        ("advance", "{}", "nowMs"),
    ] {
        let answer = instance.call_json(function, request).expect("it lives");
        let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
        assert_eq!(answer["error"]["code"], "invalid-request", "{answer}");
        assert_eq!(answer["error"]["field"], field, "{answer}");
    }
    let head = instance.call_json("head", "{}").expect("it lives");
    let zeros = "0".repeat(64);
    assert_eq!(head, format!(r#"{{"head":{{"seq":0,"hash":"{zeros}"}}}}"#));
}

// ---- a vector bites ----

/// Whatever is changed in what a vector expects, the runner finds it.
#[test]
fn a_changed_vector_is_found() {
    let name = "time_and_retry-r_27_exactly_at_the_deadline_the_timeout_wins";
    let files = files();
    let (_, text) = files.iter().find(|(file, _)| file == name).expect(name);
    assert_eq!(vector::check::<Native>(text), Ok(()));
    let lines: Vec<&str> = text.lines().collect();
    let mut changed = 0;
    for (index, line) in lines.iter().enumerate() {
        let is_given = [
            "{\"format\"",
            "\"title\"",
            "\"rules\"",
            "{\"run\"",
            "{\"call\"",
        ];
        let Some(digit) = line.rfind(|c: char| c.is_ascii_digit()) else {
            continue;
        };
        if is_given.iter().any(|given| line.starts_with(given)) {
            continue;
        }
        let other = if line[digit..].starts_with('1') {
            "2"
        } else {
            "1"
        };
        let mut line = (*line).to_owned();
        line.replace_range(digit..=digit, other);
        let mut lines = lines.clone();
        lines[index] = &line;
        let text = lines.join("\n") + "\n";
        assert!(vector::check::<Native>(&text).is_err(), "{line}");
        changed += 1;
    }
    assert!(changed > 10, "{changed}");
    // Something that is not expected, and something that is expected and does not come.
    let withdrawn = "\"withdrawn\":[\n\"c:a:1\"\n]";
    assert_eq!(text.matches(withdrawn).count(), 1);
    for other in ["\"withdrawn\":[\n\"c:a:1\",\n\"c:z:1\"\n]", "\"asks\":[]"] {
        assert!(vector::check::<Native>(&text.replace(withdrawn, other)).is_err());
    }
}

// ---- they are complete ----

/// The functions of an exported interface that are inputs: they tell the time, or set the configuration.
fn exported_inputs(wit: &str) -> Vec<String> {
    let lines = wit.lines().map(str::trim_start);
    let inputs = lines.filter_map(|line| {
        let (name, arguments) = line.split_once(": func(")?;
        let is_input = arguments.contains("now-ms: u64") || name == "configure";
        is_input.then(|| name.to_owned())
    });
    inputs.collect()
}

/// The cases of an enum or variant.
fn cases(wit: &str, name: &str) -> Vec<String> {
    let (_, rest) = wit.split_once(&format!(" {name} {{")).expect(name);
    let (body, _) = rest.split_once('}').expect("it ends");
    let lines = body.lines().map(str::trim);
    let without_docs: Vec<&str> = lines.filter(|line| !line.starts_with("//")).collect();
    let cases = without_docs.join(" ");
    let names = cases.split(',').map(|case| {
        let end = case.find('(').unwrap_or(case.len());
        case[..end].trim().to_owned()
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// Every input that the WIT knows, down to what an envelope, a notice, a verdict or an answer says.
fn inputs() -> Vec<String> {
    let wit = |file: &str| {
        let path = rule::root().join("wit").join(file);
        std::fs::read_to_string(path).expect("the contract is readable")
    };
    let types = wit("types.wit");
    let mut inputs = exported_inputs(&wit("coordination.wit"));
    inputs.extend(exported_inputs(&wit("arbitration.wit")));
    // What one of these stands for, under the name that stands before its cases.
    for (input, of, prefix) in [
        ("submit", "intent", ""),
        ("report", "outcome", "report-"),
        ("notice", "notice-kind", "notice-"),
        ("verdict", "hook-verdict", "verdict-"),
        ("answer", "human-verdict", "answer-"),
    ] {
        let at = inputs.iter().position(|known| known == input);
        inputs.remove(at.unwrap_or_else(|| panic!("{input} is no input")));
        let cases = cases(&types, of);
        inputs.extend(cases.into_iter().map(|case| format!("{prefix}{case}")));
    }
    // A cancel is of the plan or of one step.
    inputs.retain(|input| input != "cancel");
    inputs.extend(["cancel-plan".into(), "cancel-step".into()]);
    inputs
}

#[test]
fn every_input_has_a_happy_a_wrong_a_repeated_and_a_too_late_case() {
    let inputs = inputs();
    assert_eq!(inputs.len(), 27, "{inputs:?}");
    let files = files();
    let mut missing = Vec::new();
    for input in &inputs {
        for case in ["happy", "wrong", "repeated", "too_late"] {
            let test = format!("{}_{case}", input.replace('-', "_"));
            let found = rule::tests().iter().find(|known| known.name == test);
            let vector = found.map(rule::RuleTest::vector);
            if !vector.is_some_and(|vector| files.iter().any(|(name, _)| *name == vector)) {
                missing.push(test);
            }
        }
    }
    assert_eq!(missing, [""; 0]);
}

/// Who comes first decides; each of these is run with one first and with the other.
const RACES: [&str; 29] = [
    "identity-r_7_of_two_different_ends_the_first_stands",
    "time_and_retry-m1_a_cancel_and_a_report_in_one_call_take_effect_in_their_order",
    "race-r_12_race_of_unknown_target_and_ack_in_both_orders",
    "race-r_17_race_of_fail_fast_and_report_in_both_orders",
    "race-r_18_race_of_report_and_cleanup_grace_in_both_orders",
    "race-r_23_race_of_execute_and_parents_end_in_both_orders",
    "race-r_24_race_of_a_childs_end_and_its_parents_in_both_orders",
    "race-r_25_race_of_acknowledge_and_redelivery_in_both_orders",
    "race-r_26_race_of_report_and_plan_deadline_in_both_orders",
    "race-r_27_race_of_report_and_attempt_deadline_in_both_orders",
    "race-r_30_race_of_host_lost_and_report_in_both_orders",
    "race-r_31_race_of_ack_and_ack_deadline_in_both_orders",
    "race-r_37_race_of_cancel_and_report_in_both_orders",
    "race-r_37_race_of_report_and_cancel_grace_in_both_orders",
    "race-r_38_race_of_cancel_and_due_retry_in_both_orders",
    "race-r_38_race_of_cancel_and_plan_deadline_in_both_orders",
    "race-r_39_race_of_cancel_of_a_step_and_its_end_in_both_orders",
    "race-r_41_race_of_release_and_claim_in_both_orders",
    "race-r_43_race_of_two_newcomers_in_both_orders",
    "claim-r_50_race_of_release_and_newcomer_in_both_orders",
    "lease-r_51_race_of_expiry_and_end_in_both_orders",
    "lease-r_51_race_of_expiry_and_renewal_in_both_orders",
    "race-r_52_race_of_two_verdicts_in_both_orders",
    "race-r_52_race_of_verdict_and_hook_deadline_in_both_orders",
    "human-r_55_race_of_answer_and_deadline_in_both_orders",
    "human-r_55_the_first_final_answer_stands_in_both_orders",
    "race-r_59_race_of_answer_and_report_in_both_orders",
    "race-r_59_race_of_question_and_attempt_deadline_in_both_orders",
    "race-r_63_race_of_two_plans_for_the_last_slot_in_both_orders",
];

#[test]
fn every_race_is_run_in_both_orders() {
    let files = files();
    for race in RACES {
        let (_, text) = files.iter().find(|(name, _)| name == race).expect(race);
        let vector = vector::Vector::parse(text).expect(race);
        assert!(vector.runs.len() >= 2, "{race}");
    }
}

/// What simulation found: a run that was shrunk and kept, and that no test makes.
const OF_SIMULATION: &str = "seed-";

/// Their steps are given; with `QM2_BLESS=1` what comes of them is written.
#[test]
fn every_vector_of_simulation_is_in_its_form() {
    let mut found = files();
    found.retain(|(name, _)| name.starts_with(OF_SIMULATION));
    assert!(!found.is_empty(), "none is kept");
    for (name, text) in found {
        let blessed = vector::blessed::<Native>(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        if record::is_blessing() {
            let path = record::folder().join(name).with_extension("json");
            std::fs::write(path, blessed).expect("it can be written");
        } else {
            assert_eq!(vector::difference(&text, &blessed), None, "{name}");
        }
    }
}

#[test]
fn every_vector_is_of_a_test_that_is_there() {
    let of_tests: Vec<String> = rule::tests().iter().map(rule::RuleTest::vector).collect();
    let mut stale = files();
    stale.retain(|(name, _)| !of_tests.contains(name) && !name.starts_with(OF_SIMULATION));
    for (name, _) in &stale {
        assert!(record::is_blessing(), "{name} is of no test");
        let path = record::folder().join(name).with_extension("json");
        std::fs::remove_file(path).expect("it can be removed");
    }
}

/// Rule, tests and vectors, functions: the text of `tests/RULES.md`, and what is missing.
fn table() -> (String, Vec<String>) {
    let files = files();
    let has_vector = |test: &&rule::RuleTest| {
        let vector = test.vector();
        files
            .binary_search_by(|(name, _)| name.cmp(&vector))
            .is_ok()
    };
    let core = rule::kept("guest/core/src");
    let host = rule::kept("host-harness/src");
    let mut missing = Vec::new();
    let mut text = String::from(TABLE_HEAD);
    for rule in rule::all() {
        let tests = rule::tests()
            .iter()
            .filter(|test| test.rules.contains(&rule));
        let tests: Vec<&rule::RuleTest> = tests.collect();
        let shown = tests.iter().copied().filter(has_vector);
        let shown: Vec<String> = shown
            .map(|test| format!("[{}](vectors/{}.json)", test.name, test.vector()))
            .collect();
        let others = tests.iter().filter(|test| !has_vector(test));
        let others: Vec<String> = others.map(|test| test.name.clone()).collect();
        let of = |kept: &[rule::Kept], package: &str| -> Vec<String> {
            let of = kept.iter().filter(|kept| kept.rule == rule);
            of.map(|kept| format!("`{package}{}`", kept.function))
                .collect()
        };
        let functions = [of(&core, ""), of(&host, "host: ")].concat();
        for (what, list) in [("vector", &shown), ("function", &functions)] {
            if list.is_empty() {
                missing.push(format!("{rule} has no {what}"));
            }
        }
        let tests = [shown, others].concat().join("<br>");
        text += &format!("| {rule} | {} | {tests} |\n", functions.join("<br>"));
    }
    text += "\nTests of the rules without a vector: their scenarios are too large for a file, hold integers past 2^53, are random, or \
        are not told call by call.\n\n";
    for test in rule::tests().iter().filter(|test| !has_vector(test)) {
        text += &format!("- `{}::{}`\n", test.module, test.name);
    }
    (text, missing)
}

const TABLE_HEAD: &str = "# Rules, what keeps them, and what shows them

Rules are those of the SPEC. Functions are those of the core whose comments name the rule (`host:` those of the host), tests those in
`tests/rules/` whose names or comments do; a link leads to the vector that the test left. Generated:
`QM2_BLESS=1 cargo test --test qm2 rules::`, then the same with `vectors::`.

| rule | kept by | shown by |
|---|---|---|
";

#[test]
fn every_rule_has_a_test_a_vector_and_a_function() {
    let (text, missing) = table();
    assert_eq!(missing, [""; 0]);
    let path = rule::root().join("tests/RULES.md");
    if record::is_blessing() {
        std::fs::write(&path, &text).expect("the table can be written");
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = vector::difference(&file, &text);
    assert_eq!(difference, None, "QM2_BLESS=1 writes {}", path.display());
}
