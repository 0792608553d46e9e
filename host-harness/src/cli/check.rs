//! `qm2 check`: every error of a plan, with its step and field, and nothing recorded.
//!
//! The component judges the plan, in an instance of its own that is thrown away. Only what is no JSON at all is judged
//! here, because the component cannot say where in the plan the text stops making sense.

use super::failure::{Failure, sentence};
use super::output::Output;
use super::{data, exit};
use globset::Glob;
use qm2_core::config::Config;
use qm2_core::message::{Caller, Role};
use qm2_core::plan::{EscalationPolicy, Plan};
use qm2_core::receipt::{Problem, RejectionCode};
use qm2_host::agents_file::AgentsFile;
use qm2_host::engine::{Answer, Call, Engine};
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Arguments of `check`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The plan, a JSON file; `-` reads it from stdin.
    plan: PathBuf,
    /// Agents file that should serve the plan's sessions [default: qm2.toml beside the plan, if there is one].
    #[arg(long, value_name = "FILE")]
    agents: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Checks a plan.
pub fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    let text = read_plan(&arguments.plan)?;
    let mut errors = match syntax(&text) {
        Some(problem) => vec![problem],
        None => judge(&text)?,
    };
    let mut warnings = Vec::new();
    if let Some(path) = agents_path(arguments) {
        match AgentsFile::read(&path) {
            Ok(agents) if errors.is_empty() => {
                warnings = unserved(&text, &agents, &path);
                warnings.extend(unanswerable(&text, &agents, &path));
            }
            Ok(_) => {}
            Err(error) => errors.push(Problem {
                step_id: None,
                field: path.display().to_string(),
                code: "invalid-agents".into(),
                message: error.to_string(),
            }),
        }
    }
    let report = Report {
        ok: errors.is_empty(),
        errors,
        warnings,
    };
    output.result(&report, || text_of(&report, &arguments.plan));
    Ok(if report.ok {
        exit::SUCCESS
    } else {
        exit::USAGE
    })
}

/// The text of a plan file.
pub fn read_plan(path: &Path) -> Result<String, Failure> {
    let read = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        fs::read(path).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                std::io::Error::other(format!("it is not UTF-8 at byte {at}"))
            })
        })
    };
    read.map_err(|error| {
        Failure::usage(
            "unreadable-plan",
            format!("could not read the plan {}: {error}", path.display()),
        )
    })
}

/// Where a text stops being JSON: line, column, and the path of the member that it stops in.
pub fn syntax(text: &str) -> Option<Problem> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let (path, error) = match serde_path_to_error::deserialize::<_, Value>(&mut deserializer) {
        Ok(_) => (String::new(), deserializer.end().err()?),
        Err(error) => (error.path().to_string(), error.into_inner()),
    };
    // The last part is a question mark where the text breaks between two members.
    let path = path.trim_end_matches('?').trim_end_matches('.');
    let field = if path.is_empty() {
        "$".to_owned()
    } else {
        path.to_owned()
    };
    let message = format!("is not JSON: {error}");
    Some(Problem {
        step_id: None,
        field,
        code: "syntax".into(),
        message,
    })
}

/// The component's own judgement; empty where it would take the plan.
fn judge(text: &str) -> Result<Vec<Problem>, Failure> {
    let mut instance = Engine::new()?.instance()?;
    let mut config = Config::new("check");
    config.phase1.enabled = true;
    data::call(
        &mut instance,
        &Call::Configure {
            config: config.to_json(),
        },
    )?;
    // A plan without a usable owner has an error anyway, and that comes before the question who may submit it.
    let owner = serde_json::from_str(text)
        .ok()
        .and_then(|plan: Value| Some(plan.get("ownerSession")?.as_str()?.to_owned()));
    let caller = Caller {
        session: owner.unwrap_or_else(|| "check".into()),
        role: None,
    };
    let now_ms = super::run::now_ms();
    let answer = data::call(
        &mut instance,
        &Call::SubmitPlan {
            caller,
            now_ms,
            plan: text.to_owned(),
        },
    )?;
    let Answer::SubmitPlan(result) = answer else {
        return Err(Failure::host(
            "component-fault",
            "the component answered another question than submit-plan",
        ));
    };
    Ok(match result {
        Ok(_) => Vec::new(),
        Err(rejection)
            if rejection.code == RejectionCode::InvalidPlan && !rejection.problems.is_empty() =>
        {
            rejection.problems
        }
        Err(rejection) => vec![Problem {
            step_id: None,
            field: if rejection.field.is_empty() {
                "$".into()
            } else {
                rejection.field
            },
            code: rejection.code.name().into(),
            message: rejection.message,
        }],
    })
}

/// The agents file to look at; the one beside the plan only where it is there.
fn agents_path(arguments: &Arguments) -> Option<PathBuf> {
    arguments
        .agents
        .clone()
        .or_else(|| Some(beside(&arguments.plan)).filter(|path| path.exists()))
}

/// The agents file that belongs to a plan unless another is named.
pub fn beside(plan: &Path) -> PathBuf {
    plan.parent().unwrap_or(Path::new("")).join("qm2.toml")
}

/// Steps whose session nobody serves: they would fail for good as soon as they start.
fn unserved(text: &str, agents: &AgentsFile, path: &Path) -> Vec<Problem> {
    let plan: Value = serde_json::from_str(text).unwrap_or_default();
    // Reading the file has tried its globs.
    let globs: Vec<_> = agents
        .agents
        .iter()
        .filter_map(|entry| Some(Glob::new(&entry.session).ok()?.compile_matcher()))
        .collect();
    let steps = plan["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let unserved = steps.iter().enumerate().filter_map(|(index, step)| {
        let session = step["targetSession"].as_str()?;
        if globs.iter().any(|glob| glob.is_match(session)) {
            return None;
        }
        let message = format!(
            "is {session}, which no agent of {} serves; the step would fail",
            path.display()
        );
        Some(Problem {
            step_id: step["stepId"].as_str().map(ToOwned::to_owned),
            field: format!("steps[{index}].targetSession"),
            code: "unserved-session".into(),
            message,
        })
    });
    unserved.collect()
}

/// Questions of the plan that the people of the file cannot answer, or that would not reach whom they are for.
fn unanswerable(text: &str, agents: &AgentsFile, path: &Path) -> Vec<Problem> {
    let plan: Plan = match serde_json::from_str(text) {
        Ok(plan) => plan,
        // The component takes the plan, so this does not happen.
        Err(_) => return Vec::new(),
    };
    let policy = &plan.failure_policy;
    let asks = policy.escalation_policy == EscalationPolicy::Hitl;
    let Some(human) = policy.human.as_ref().filter(|_| asks) else {
        return Vec::new();
    };
    let warning = |field: String, code: &str, message: String| Problem {
        step_id: None,
        field: format!("failurePolicy.human.{field}"),
        code: code.into(),
        message,
    };
    let globs: Vec<_> = agents
        .agents
        .iter()
        .filter_map(|entry| Some(Glob::new(&entry.session).ok()?.compile_matcher()))
        .collect();
    let people = agents.people();
    let eligible = |role_min: Role| {
        let with_role = people.with_role(role_min);
        with_role
            .filter(|person| person.session != plan.owner_session)
            .count()
    };
    let file = path.display();
    let mut warnings = Vec::new();
    for (index, level) in human.levels.iter().enumerate() {
        let role = level.min_role.name();
        if eligible(level.min_role) == 0 {
            let says = format!(
                "can be answered by nobody: {file} has no [[people]] with role {role} or above beside the plan's owner"
            );
            warnings.push(warning(
                format!("levels[{index}]"),
                "nobody-to-answer",
                says,
            ));
        }
        for (number, session) in level.sessions.iter().enumerate() {
            let is_served = globs.iter().any(|glob| glob.is_match(session));
            if people.role(session).is_none() && !is_served {
                let says = format!(
                    "is {session}, which is neither one of the [[people]] of {file} nor served by an agent of it; it is \
                     not told of questions"
                );
                let field = format!("levels[{index}].sessions[{number}]");
                warnings.push(warning(field, "unknown-person", says));
            }
        }
    }
    let lowest = human.levels.iter().map(|level| level.min_role).min();
    let most = lowest.map_or(0, eligible);
    if most > 0 && most < human.required_approvals as usize {
        let says = format!(
            "is {}, but only {most} of the [[people]] of {file} can approve; nothing would ever be approved",
            human.required_approvals
        );
        warnings.push(warning("requiredApprovals".into(), "too-few-people", says));
    }
    warnings
}

fn text_of(report: &Report, plan: &Path) -> String {
    let line = |kind: &str, problem: &Problem| format!("{kind}: {}\n", sentence(problem));
    let mut text: String = report
        .errors
        .iter()
        .map(|problem| line("error", problem))
        .collect();
    text.extend(
        report
            .warnings
            .iter()
            .map(|problem| line("warning", problem)),
    );
    text += &match report.errors.len() {
        0 => format!("{} is a plan", plan.display()),
        count => format!("{}: {count} error(s)", plan.display()),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_has_its_line_and_path() {
        let problem =
            syntax("{\"steps\": [\n {\"stepId\": \"a\"},\n {\"stepId\": \"b\" \"x\": 1}]}")
                .unwrap();
        assert_eq!(problem.field, "steps[1]");
        assert!(
            problem.message.contains("line 3 column 17"),
            "{}",
            problem.message
        );
        assert!(syntax("{}").is_none());
        assert_eq!(syntax("{} x").unwrap().field, "$");
        assert_eq!(syntax("").unwrap().field, "$");
    }
}
