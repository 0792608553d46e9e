//! A coordination as a table for people.
//!
//! Knows how words and times look; what they say comes from elsewhere.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, LineStyle, Table};
pub use qm2_host::cloud_event::time;
use qm2_host::history::{History, StepHistory, StepState};
use std::io::{IsTerminal, stdout};
use std::path::Path;

/// Longest text in a cell, in characters.
const CELL_MAX: usize = 96;

/// A table with these columns, as wide as the terminal or, in a pipe, as its content.
pub fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    let under_header = LineStyle::none().fill('─').junction('─');
    table
        .load_style(NOTHING.header_separator(under_header))
        .set_header(header);
    if stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// The steps of a coordination that has ended, and what each came to.
pub fn ended(history: &History) -> String {
    let mut table = new(["step", "state", "attempts", "took", "result"]);
    for step in &history.steps {
        let attempts = if step.first_dispatched_ms.is_some() {
            step.attempt.to_string()
        } else {
            "-".into()
        };
        let took = match (step.first_dispatched_ms, step.ended_ms) {
            (Some(from), Some(to)) => duration(to.saturating_sub(from)),
            _ => "-".into(),
        };
        table.add_row([
            step.step_id.clone(),
            step.state.name().into(),
            attempts,
            took,
            says(step),
        ]);
    }
    table.trim_fmt()
}

/// What a step came to, in one short line.
fn says(step: &StepHistory) -> String {
    match (step.state, &step.message, &step.code) {
        (StepState::Completed, _, _) => first_line(step.result.as_deref().unwrap_or_default()),
        (_, Some(message), _) => first_line(message),
        (_, None, Some(code)) => code.clone(),
        (_, None, None) => String::new(),
    }
}

/// The first line that says something, cut to the width of a cell.
pub fn first_line(text: &str) -> String {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    // What a command printed may hold escape sequences; a table must not carry them to the terminal.
    let clean: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if clean.chars().count() <= CELL_MAX {
        return clean;
    }
    clean.chars().take(CELL_MAX - 1).chain(['…']).collect()
}

/// A duration in milliseconds as people say it.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Results that name a file which is there, such as the report of a join.
pub fn files(history: &History) -> Vec<(&str, &str)> {
    let is_file = |text: &str| {
        let looks =
            !text.is_empty() && text.len() < 4_096 && !text.contains('\n') && text.contains('/');
        looks && Path::new(text).is_file()
    };
    let results = history
        .steps
        .iter()
        .filter_map(|step| Some((step.step_id.as_str(), step.result.as_deref()?.trim())));
    results.filter(|(_, text)| is_file(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_one_short_clean_line() {
        assert_eq!(first_line("\n  a\u{1b}[31mb \nc"), "a [31mb");
        assert_eq!(first_line(&"x".repeat(100)).chars().count(), CELL_MAX);
        assert_eq!(first_line(""), "");
    }

    #[test]
    fn durations_grow_with_their_unit() {
        assert_eq!(
            [0, 999, 1_250, 61_000, 3_660_000].map(duration),
            ["0 ms", "999 ms", "1.2 s", "1 min 1 s", "1 h 1 min"]
        );
    }
}
