//! Bounds whose values are too large for a vector: each is met at the bound and missed one past it (R-1).
//!
//! All others are in `tests/rules`.

use qm2_core::config::Config;
use qm2_core::limit;
use qm2_core::plan::Plan;
use std::fmt::Write;

/// Code and field of every problem.
fn problems(text: &str) -> Vec<(String, String)> {
    match Plan::parse(text, &Config::new("d")) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .into_iter()
            .map(|problem| (problem.code, problem.field))
            .collect(),
    }
}

#[test]
fn a_configuration_may_have_64_kib() {
    let padded = |bytes: usize| {
        let text = r#"{"domain":"d"}"#;
        format!("{text}{}", " ".repeat(bytes - text.len()))
    };
    assert!(Config::parse(&padded(limit::CONFIG_BYTES_MAX)).is_ok());
    let refused = Config::parse(&padded(limit::CONFIG_BYTES_MAX + 1)).unwrap_err();
    assert!(
        refused.message.contains("65537 bytes; 65536 are allowed"),
        "{refused:?}"
    );
}

#[test]
fn the_text_of_a_plan_may_be_twice_as_long_as_its_canonical_form() {
    let blank = |bytes: usize| problems(&" ".repeat(bytes));
    let at = blank(limit::PLAN_TEXT_BYTES_MAX);
    assert!(!at.is_empty() && at[0].0 != "out-of-bound", "{at:?}");
    let past = blank(limit::PLAN_TEXT_BYTES_MAX + 1);
    assert_eq!(past, [("out-of-bound".to_owned(), "$".to_owned())]);
}

#[test]
fn a_plan_may_have_100_000_dependencies() {
    let with = |dependencies: usize| {
        let mut steps = String::new();
        let mut one = |id: String, on: usize| {
            let comma = if steps.is_empty() { "" } else { "," };
            let on: Vec<String> = (0..on).map(|n| format!(r#"{{"stepId":"p{n}"}}"#)).collect();
            write!(
                steps,
                r#"{comma}{{"stepId":"{id}","targetSession":"s","timeoutMs":1,"dependsOn":[{}]}}"#,
                on.join(",")
            )
            .expect("a text takes more");
        };
        let (each, mut left) = (4_000, dependencies);
        (0..each).for_each(|n| one(format!("p{n}"), 0));
        let mut n = 0;
        while left > 0 {
            let on = left.min(each);
            one(format!("c{n}"), on);
            (left, n) = (left - on, n + 1);
        }
        problems(&format!(
            r#"{{"coordinationId":"c","objective":"o","ownerSession":"u","failurePolicy":{{}},"steps":[{steps}]}}"#
        ))
    };
    assert_eq!(with(limit::PLAN_DEPENDENCIES_MAX), []);
    let past = with(limit::PLAN_DEPENDENCIES_MAX + 1);
    assert_eq!(past, [("out-of-bound".to_owned(), "steps".to_owned())]);
}
