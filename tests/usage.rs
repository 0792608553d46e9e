//! The real program against wrong input: plans, files, arguments and data directories that it cannot use, and its help.
//!
//! What it does with right input is in `cli`.

use crate::program::{Directory, one_step, plan, root};
use qm2_host::sqlite::SqliteStore;
use serde_json::{Value, json};
use std::fs;

#[test]
fn check_lists_every_error_with_step_and_field_and_records_nothing() {
    let directory = Directory::new();
    let output = directory.run(&["--json", "check", &plan("bad.json")]);
    assert_eq!(output.code, 2, "{output:?}");
    assert_eq!(output.json()["ok"], false);
    let errors = output.json()["errors"].as_array().cloned().expect("errors");
    let found: Vec<[&str; 3]> = errors
        .iter()
        .map(|error| ["stepId", "field", "code"].map(|name| error[name].as_str().unwrap_or("-")))
        .collect();
    let expected = [
        ["lonely", "steps[2].dependsOn", "unknown-dependency"],
        ["nothing-to-do-it", "steps[6].targetSession", "missing"],
        ["ring-a", "steps[0].dependsOn", "cycle"],
        ["twin", "steps[4].stepId", "duplicate-step"],
        ["wrong-type", "steps[5].timeoutMs", "wrong-type"],
    ];
    assert_eq!(found, expected);
    assert!(errors.iter().all(|error| error["message"].is_string()));
    let people = directory.run(&["check", &plan("bad.json")]);
    assert_eq!(people.code, 2);
    for [step_id, field, _] in expected {
        let says = format!("step {step_id}: {field} ");
        assert!(people.stdout.contains(&says), "{says} in {people:?}");
    }
    assert!(!directory.data().exists(), "check made a data directory");

    // run says the same and makes nothing; beside a ledger it changes nothing.
    let refused = directory.run_plan("bad.json");
    assert_eq!(
        (refused.code, refused.error_code().as_str()),
        (2, "invalid-plan")
    );
    let problems = &refused.json()["error"]["problems"];
    assert_eq!(problems.as_array().map(Vec::len), Some(expected.len()));
    assert!(!directory.data().exists(), "run made a data directory");
    assert_eq!(directory.run_plan("ends-failed.json").code, 1);
    let lines = directory.lines();
    assert_eq!(directory.run_plan("bad.json").code, 2);
    assert_eq!(directory.run(&["check", &plan("bad.json")]).code, 2);
    assert_eq!(directory.lines(), lines);
}

#[test]
fn a_syntax_error_is_told_with_line_column_and_path() {
    let directory = Directory::new();
    for command in ["check", "run"] {
        let output = directory.run(&["--json", command, &plan("syntax.json")]);
        assert_eq!(output.code, 2, "{output:?}");
        let value = output.json();
        let errors = match command {
            "check" => &value["errors"],
            _ => &value["error"]["problems"],
        };
        assert_eq!(errors.as_array().map(Vec::len), Some(1), "{value}");
        assert_eq!(errors[0]["code"], "syntax");
        assert_eq!(errors[0]["field"], "steps[1]");
        let message = errors[0]["message"].as_str().unwrap_or_default();
        assert!(message.contains("line 7 column 64"), "{message}");
    }
    let people = directory.run(&["check", &plan("syntax.json")]);
    for part in ["steps[1]", "line 7 column 64"] {
        assert!(people.stdout.contains(part), "{part} in {people:?}");
    }
    assert!(!directory.data().exists());
}

#[test]
fn files_that_are_missing_or_wrong_are_named_and_nothing_is_made() {
    let directory = Directory::new();
    let good = directory.write("plan.json", &one_step("c", "true"));
    let missing = directory
        .folder()
        .join("missing.json")
        .display()
        .to_string();
    let binary = directory.folder().join("binary.json");
    fs::write(&binary, [b'{', 0xff, b'}']).expect("a file");
    let binary = binary.display().to_string();
    let folder = directory.folder().display().to_string();
    for command in ["check", "run"] {
        for path in [&missing, &binary, &folder] {
            let output = directory.run(&["--json", command, path]);
            assert_eq!(output.code, 2, "{command} {output:?}");
            assert!(output.stdout.contains(path.as_str()), "{output:?}");
        }
    }
    // No agents file beside the plan.
    let output = directory.run(&["--json", "run", &good]);
    assert_eq!(
        (output.code, output.error_code().as_str()),
        (2, "invalid-agents")
    );
    assert!(output.stdout.contains("qm2.toml"), "{output:?}");
    // A key that does not exist, in line 2.
    let agents = directory.write("wrong.toml", "[lanes]\ncontrl = 2\n");
    for command in ["check", "run"] {
        let output = directory.run(&["--json", command, &good, "--agents", &agents]);
        assert_eq!(output.code, 2, "{output:?}");
        for part in ["invalid-agents", "wrong.toml", "line 2", "contrl"] {
            assert!(output.stdout.contains(part), "{part} in {output:?}");
        }
    }
    assert!(!directory.data().exists());
}

/// All commands that read or write a data directory.
const COMMANDS: [&[&str]; 11] = [
    &["run"],
    &["status"],
    &["status", "ends-failed"],
    &["cancel", "ends-failed"],
    &["ledger", "show"],
    &["ledger", "export"],
    &["ledger", "verify"],
    &["ledger", "why", "3"],
    &["escalations", "list"],
    &["escalations", "show", "e1"],
    &["escalations", "approve", "e1", "--as", "user:dana"],
];

#[test]
fn data_directories_that_cannot_be_read_are_a_clear_error() {
    type Damage = fn(&Directory);
    let damages: [(&str, &str, Damage); 5] = [
        ("not a qm2 ledger", "garbage", |directory| {
            fs::create_dir(directory.data()).expect("a folder");
            let text = "garbage that is long enough to be looked at";
            fs::write(directory.data().join("ledger.db"), text).expect("a file");
        }),
        ("ledger.db", "a folder in place of the store", |directory| {
            fs::create_dir_all(directory.data().join("ledger.db")).expect("a folder");
        }),
        (
            "not a directory",
            "a file in place of the folder",
            |directory| {
                fs::write(directory.data(), "x").expect("a file");
            },
        ),
        ("use a newer qm2", "a newer version", |directory| {
            drop(SqliteStore::open(&directory.data()).expect("a store"));
            directory
                .sql()
                .pragma_update(None, "user_version", 7)
                .expect("SQL");
        }),
        ("damaged", "half a store", |directory| {
            drop(SqliteStore::open(&directory.data()).expect("a store"));
            let path = directory.data().join("ledger.db");
            let bytes = fs::read(&path).expect("a store");
            for rest in ["ledger.db-wal", "ledger.db-shm"] {
                let _ = fs::remove_file(directory.data().join(rest));
            }
            fs::write(&path, &bytes[..bytes.len() / 2]).expect("a store");
        }),
    ];
    for (part, what, damage) in damages {
        let directory = Directory::new();
        damage(&directory);
        for arguments in COMMANDS {
            let plan = plan("ends-failed.json");
            let mut all = vec!["--json"];
            all.extend(arguments);
            if arguments == ["run"] {
                all.push(&plan);
            }
            let output = directory.run(&all);
            assert_eq!(output.code, 6, "{what}, {arguments:?}: {output:?}");
            let value = output.json();
            let message = value["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(part), "{what}, {arguments:?}: {message}");
            let data = directory.data().display().to_string();
            assert!(message.contains(&data), "{what}, {arguments:?}: {message}");
        }
    }
}

#[test]
fn what_is_not_there_is_named() {
    let directory = Directory::new();
    let status = directory.run(&["--json", "status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert_eq!(status.json()["coordinations"], json!([]));
    assert_eq!(directory.run(&["--json", "cancel", "c"]).code, 2);
    assert!(!directory.data().exists(), "reading made a data directory");
    assert_eq!(directory.run_plan("ends-failed.json").code, 1);
    for arguments in [
        ["status", "nothing", ""],
        ["cancel", "nothing", ""],
        ["ledger", "show", "nothing"],
        ["ledger", "export", "nothing"],
        ["ledger", "why", "999"],
    ] {
        let mut all = vec!["--json"];
        all.extend(arguments.iter().filter(|argument| !argument.is_empty()));
        let output = directory.run(&all);
        assert_eq!(output.code, 2, "{arguments:?}: {output:?}");
        assert!(output.error_code().starts_with("unknown-"), "{output:?}");
    }
}

#[test]
fn help_is_there_for_every_command_and_wrong_usage_is_exit_2() {
    let directory = Directory::new();
    let commands: [&[&str]; 20] = [
        &[],
        &["run"],
        &["check"],
        &["status"],
        &["cancel"],
        &["escalations"],
        &["escalations", "list"],
        &["escalations", "show"],
        &["escalations", "approve"],
        &["escalations", "complete"],
        &["escalate"],
        &["ledger"],
        &["ledger", "show"],
        &["ledger", "export"],
        &["ledger", "verify"],
        &["ledger", "why"],
        &["component"],
        &["component", "inspect"],
        &["schema"],
        &["schema", "plan"],
    ];
    for command in commands {
        let with = |extra: &[&str]| directory.run(&[command, extra].concat());
        let help = with(&["--help"]);
        assert_eq!(help.code, 0, "{command:?}");
        assert!(help.stdout.contains("Usage: qm2"), "{help:?}");
        let wrong = with(&["--no-such-flag"]);
        assert_eq!((wrong.code, wrong.stdout.as_str()), (2, ""), "{command:?}");
        assert!(wrong.stderr.contains("--no-such-flag"), "{wrong:?}");
        let wrong = with(&["--json", "--no-such-flag"]);
        assert_eq!(wrong.code, 2, "{command:?}");
        assert_eq!(wrong.error_code(), "usage", "{command:?}");
    }
    assert_eq!(directory.run(&["--version"]).code, 0);
    for arguments in [
        &[][..],
        &["ledger"],
        &["--json"],
        &["nonsense"],
        &["ledger", "why", "x"],
    ] {
        assert_eq!(directory.run(arguments).code, 2, "{arguments:?}");
    }
    assert!(!directory.data().exists());
}

#[test]
fn the_schema_says_what_check_says() {
    let directory = Directory::new();
    let schema = directory.run(&["schema", "plan"]);
    assert_eq!(schema.code, 0);
    let schema = schema.json();
    assert_eq!(directory.run(&["--json", "schema", "plan"]).json(), schema);
    let required = ["coordinationId", "objective", "ownerSession", "steps"];
    assert_eq!(schema["required"], json!(required));
    let step = &schema["$defs"]["Step"];
    assert_eq!(
        step["required"],
        json!(["stepId", "targetSession", "timeoutMs"])
    );
    // An absent member is left out of a plan, never null.
    assert!(!schema.to_string().contains("\"null\""), "{schema}");
    let agents = directory.run(&["schema", "agents"]).json();
    for name in ["lanes", "agents", "people"] {
        assert!(agents["properties"][name].is_object(), "{name} in {agents}");
    }

    let text = fs::read_to_string(root().join("tests/plans/qm2.toml")).expect("an agents file");
    let value: Value = toml::from_str(&text).expect("TOML");
    let mut errors = Vec::new();
    validate(&agents, &agents, &value, "$", &mut errors);
    assert_eq!(errors, [""; 0]);

    let plans = fs::read_dir(root().join("tests/plans")).expect("the plans");
    let names: Vec<String> = plans
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".json") && name != "syntax.json")
        .collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        let check = directory.run(&["--json", "check", &plan(&name)]);
        assert_eq!(check.code == 0, name != "bad.json", "{name}: {check:?}");
        let text = fs::read_to_string(plan(&name)).expect("a plan");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let mut errors = Vec::new();
        validate(&schema, &schema, &value, "$", &mut errors);
        // The other errors of that plan are between its members, which a schema cannot know.
        let expected: &[&str] = match name.as_str() {
            "bad.json" => &["$.steps[5].timeoutMs", "$.steps[6].targetSession"],
            _ => &[],
        };
        assert_eq!(errors, expected, "{name}");
    }
}

/// As much of JSON Schema as ours use: references, types, words, members.
fn validate(root: &Value, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#'));
        let target = target.unwrap_or_else(|| panic!("{reference} leads nowhere"));
        validate(root, target, value, at, errors);
    }
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema["type"].as_str().is_some_and(|wanted| wanted != is) {
        errors.push(at.to_owned());
    }
    if let Some(cases) = schema["oneOf"].as_array()
        && !cases.iter().any(|case| case["const"] == *value)
    {
        errors.push(at.to_owned());
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        validate(
            root,
            &schema["items"],
            item,
            &format!("{at}[{index}]"),
            errors,
        );
    }
    let Some(members) = value.as_object() else {
        return;
    };
    for (name, member) in members {
        match schema["properties"].get(name) {
            Some(of_member) => validate(root, of_member, member, &format!("{at}.{name}"), errors),
            None if schema["additionalProperties"] == false => errors.push(format!("{at}.{name}")),
            None => {}
        }
    }
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !members.contains_key(name) {
            errors.push(format!("{at}.{name}"));
        }
    }
}
