//! Names of lanes that agent hosts have in common, how wide they are, and what a name says about its lane.
//!
//! Any other name is as good: a lane is made on first use.

/// Turns of sessions; where everything goes that names no lane.
pub const MAIN: &str = "main";
/// Scheduled runs.
pub const CRON: &str = "cron";
/// Handing out scheduled runs.
pub const CRON_DISPATCH: &str = "cron-dispatch";
/// What a scheduled run starts in its turn.
pub const CRON_NESTED: &str = "cron-nested";
/// Runs of subagents.
pub const SUBAGENT: &str = "subagent";
/// Runs that another run waits for.
pub const NESTED: &str = "nested";
/// Runs of the system's own agent.
pub const SYSTEM_AGENT: &str = "system-agent";
/// Reviews.
pub const REVIEW: &str = "review";

const SESSION_PREFIX: &str = "session:";
const NESTED_PREFIXES: [&str; 2] = ["nested:", "nested-session"];
const PROBE_PREFIXES: [&str; 2] = ["auth-probe:", "session:probe-"];

/// The lane of a session: `session:KEY`.
#[must_use]
pub fn session(key: &str) -> String {
    let key = normal(key);
    match key.starts_with(SESSION_PREFIX) {
        true => key.to_owned(),
        false => format!("{SESSION_PREFIX}{key}"),
    }
}

/// How wide a lane is where the host does not say: main 4, subagent 8, every other 1. A host may want main to follow its
/// processors instead.
#[must_use]
pub fn default_width(lane: &str) -> usize {
    match normal(lane) {
        MAIN => 4,
        SUBAGENT => 8,
        _ => 1,
    }
}

/// A name without blanks around it; a blank one is `main`.
pub(super) fn normal(lane: &str) -> &str {
    match lane.trim() {
        "" => MAIN,
        name => name,
    }
}

/// Probes try whether something works; they fail all the time and must never be held back for good.
pub(super) fn is_probe(lane: &str) -> bool {
    PROBE_PREFIXES.iter().any(|prefix| lane.starts_with(prefix))
}

/// Whether a running task may be waiting for this lane. Sharing a budget with it could then wait for ever.
pub(super) fn may_be_waited_on(lane: &str) -> bool {
    [MAIN, CRON, SUBAGENT, NESTED].contains(&lane)
        || lane.starts_with(SESSION_PREFIX)
        || NESTED_PREFIXES
            .iter()
            .any(|prefix| lane.starts_with(prefix))
}
