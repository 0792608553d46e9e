//! The agents file: lane widths, which command serves which sessions, and which people have which role.
//!
//! Only reads; unknown members are errors, because a misspelt one would silently change who does the work. What it says becomes
//! tables of agents and hooks in `tables`.

use crate::error::{HostError, Result};
use crate::hook::{check_command, check_handler, is_asked};
pub use crate::people::{People, Person};
use crate::session_glob;
use qm2_core::id::check_session;
use qm2_core::limit::SESSION_BYTES_MAX;
use qm2_core::message::{HookKind, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What a domain waits longer for hooks than the slowest handler may take.
const HOOK_HEADROOM_MS: u64 = 1_000;

/// An agents file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsFile {
    /// How many messages are out at once.
    pub lanes: Lanes,
    /// Who serves which sessions; the first match wins.
    pub agents: Vec<AgentEntry>,
    /// Commands that are asked before something happens, or told afterwards.
    pub hooks: Vec<HookEntry>,
    /// People who may answer questions, and their roles; each session once.
    pub people: Vec<Person>,
}

/// Widths of the lanes that QM2 uses: how many messages of each are out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lanes {
    /// Steps at work; also sets the domain's `maxInFlight`. From 1.
    pub control: usize,
    /// Reports to owners. From 1.
    pub data: usize,
    /// Questions to people. From 1.
    pub escalation: usize,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            control: 4,
            data: 4,
            escalation: 1,
        }
    }
}

/// A command and the sessions that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentEntry {
    /// Glob over target sessions; `*` matches any characters.
    pub session: String,
    /// Program and arguments. It runs in the folder of this file.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// How many processes of it keep running, each taking one dispatch after another as JSON lines over stdin and stdout.
    /// Without it the command is run anew for each attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub stay: Option<u32>,
}

/// A command that handles a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookEntry {
    /// When it runs. The first two kinds are asked, the others told.
    #[schemars(with = "KindName")]
    pub kind: HookKind,
    /// Program and arguments. It runs in the folder of this file and gets the subject as JSON on stdin.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// Its name in the ledger, 1..256 bytes; the command without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// Higher ones come first; those of one priority in the order of this file.
    #[serde(default)]
    pub priority: i32,
    /// How long one run may take, in milliseconds; 15 000 without it. All handlers of one request that is asked have 15 000
    /// together, or a second more than the slowest may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: Option<u64>,
}

/// The kinds of hook, for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
enum KindName {
    /// Before an attempt takes its claims and goes out; once an attempt. Asked.
    BeforeDispatch,
    /// After a contest was found and before it is decided. Asked.
    BeforeArbitrate,
    /// A person is asked.
    EscalationRequested,
    /// A step ended.
    StepEnded,
    /// A coordination ended.
    CoordinationEnded,
    /// A message was given up.
    MessageUndelivered,
}

impl HookEntry {
    /// The name that it goes by: its own, or its command.
    pub(crate) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let mut name = self.command.join(" ").replace(char::is_control, " ");
            name.truncate(name.floor_char_boundary(SESSION_BYTES_MAX));
            name
        })
    }

    pub(crate) fn time_limit(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }

    fn check(&self) -> Result<()> {
        let name = self.name();
        check_command(&self.command)
            .and_then(|()| check_handler(&name, self.time_limit()))
            .map_err(|message| HostError::Hook { name, message })
    }
}

impl AgentEntry {
    fn check(&self) -> Result<()> {
        session_glob::check_command(&self.session, &self.command)?;
        if let Some(processes) = self.stay {
            session_glob::check_processes(&self.session, processes)?;
        }
        session_glob::matcher(&self.session).map(drop)
    }
}

impl AgentsFile {
    /// Reads an agents file.
    ///
    /// # Errors
    /// [`HostError::Io`] if it cannot be read, [`HostError::AgentsFile`] with the line if it is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).map_err(|e| HostError::io("read the agents file", path, e))?;
        Self::parse(&text).map_err(|message| HostError::AgentsFile {
            path: path.to_path_buf(),
            message,
        })
    }

    /// Reads the text of an agents file.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|e| {
            let message = e.message().to_owned();
            match e.span() {
                Some(span) => {
                    let before = &text.as_bytes()[..span.start.min(text.len())];
                    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
                    format!("line {line}: {message}")
                }
                None => message,
            }
        })?;
        let widths = [
            ("control", file.lanes.control),
            ("data", file.lanes.data),
            ("escalation", file.lanes.escalation),
        ];
        if let Some((name, _)) = widths.iter().find(|(_, width)| *width == 0) {
            return Err(format!("lanes.{name} is 0; a lane is at least 1 wide"));
        }
        if let Some((index, says)) = wrong_person(&file.people) {
            return Err(match line_of(text, "[[people]]", index) {
                Some(line) => format!("line {line}: {says}"),
                None => format!("people[{index}]: {says}"),
            });
        }
        for (index, entry) in file.hooks.iter().enumerate() {
            if let Err(e) = entry.check() {
                return Err(match line_of(text, "[[hooks]]", index) {
                    Some(line) => format!("line {line}: {e}"),
                    None => format!("hooks[{index}]: {e}"),
                });
            }
        }
        // Globs are tried here, so that a wrong one is said with the file and not at the first step.
        for entry in &file.agents {
            entry.check().map_err(|e| e.to_string())?;
        }
        Ok(file)
    }

    /// The `hookTimeoutMs` that a domain needs for its slowest handler that is asked; none where no handler has a limit.
    #[must_use]
    pub fn hook_timeout_ms(&self) -> Option<u64> {
        let asked = self.hooks.iter().filter(|entry| is_asked(entry.kind));
        let slowest = asked.filter_map(|entry| entry.timeout_ms).max();
        slowest.map(|ms| ms.saturating_add(HOOK_HEADROOM_MS))
    }

    /// Role of a session, where the file names one.
    #[must_use]
    pub fn role(&self, session: &str) -> Option<Role> {
        let person = self.people.iter().find(|person| person.session == session);
        person.map(|person| person.role)
    }

    /// Its people.
    #[must_use]
    pub fn people(&self) -> People {
        People::new(self.people.clone())
    }
}

/// The first person whose session cannot be one, or is there already: with two roles nobody could say which counts.
fn wrong_person(people: &[Person]) -> Option<(usize, String)> {
    people.iter().enumerate().find_map(|(index, person)| {
        let session = &person.session;
        let says = match check_session(session) {
            Err(says) => format!("session {session:?} of a person {says}"),
            Ok(()) if session.contains('*') => {
                format!("session {session:?} of a person is a pattern; name each person")
            }
            Ok(()) if people[..index].iter().any(|p| p.session == *session) => {
                format!("person {session} is there twice; keep one of the two [[people]] entries")
            }
            Ok(()) => return None,
        };
        Some((index, says))
    })
}

/// The line of the n-th table of a name, from 1; none where the tables are written in another form.
fn line_of(text: &str, table: &str, index: usize) -> Option<usize> {
    let lines = text.lines().enumerate();
    let mut tables = lines.filter(|(_, line)| line.trim_start().starts_with(table));
    tables.nth(index).map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_the_specification_is_read() {
        let file = AgentsFile::parse(
            "[lanes]\ncontrol = 2\n[[agents]]\nsession = \"agent:lint:*\"\ncommand = [\"sh\", \"agents/lint.sh\"]\n\
             [[people]]\nsession = \"user:dana\"\nrole = \"operator\"\n",
        )
        .unwrap();
        assert_eq!((file.lanes.control, file.lanes.data), (2, 4));
        assert_eq!(file.role("user:dana"), Some(Role::Operator));
        assert_eq!(AgentsFile::parse("").unwrap(), AgentsFile::default());
    }

    #[test]
    fn hooks_are_read_and_named_after_their_command() {
        let file = AgentsFile::parse(
            "[[hooks]]\nkind = \"before_dispatch\"\ncommand = [\"sh\", \"hooks/check.sh\"]\npriority = -2\n\
             [[hooks]]\nkind = \"message_undelivered\"\ncommand = [\"x\"]\nname = \"page\"\ntimeoutMs = 600000\n",
        )
        .unwrap();
        assert_eq!((file.hooks[0].priority, file.hooks[1].priority), (-2, 0));
        let names: Vec<String> = file.hooks.iter().map(HookEntry::name).collect();
        assert_eq!(names, ["sh hooks/check.sh", "page"]);
        // Who is told does not hold anybody up.
        assert_eq!(file.hook_timeout_ms(), None);
        // A long command gives a name that is still one, cut between characters.
        let long = format!(
            "[[hooks]]\nkind = \"step_ended\"\ncommand = [\"{}\"]\n",
            "ä".repeat(300)
        );
        let file = AgentsFile::parse(&long).unwrap();
        assert_eq!(file.hooks[0].name(), "ä".repeat(128));
    }

    #[test]
    fn schema_names_the_kinds_that_are_read() {
        let schema = schemars::schema_for!(KindName).to_value().to_string();
        for kind in HookKind::WORDS {
            assert!(schema.contains(kind), "{kind} is not in {schema}");
        }
    }

    #[test]
    fn wrong_files_are_refused_with_the_line() {
        for (text, part) in [
            ("[lanes]\ncontrl = 2\n", "line 2"),
            ("\n[[agents]]\nsession = 3\ncommand = []\n", "line 3"),
            ("[lanes]\ncontrol = 0\n", "control is 0"),
            ("[[agents]]\nsession = \"a\"\ncommand = []\n", "empty"),
            ("[[agents]]\nsession = \"a[\"\ncommand = [\"x\"]\n", "a["),
            (
                "[[people]]\nsession = \"user:a\"\nrole = \"boss\"\n",
                "line 3",
            ),
            ("[[people]]\nsession = \"user:a\"\n", "role"),
            (
                "[[people]]\nsession = \"user a\"\nrole = \"user\"\n",
                "line 1: session \"user a\" of a person has ' '",
            ),
            (
                "[[people]]\nsession = \"user:*\"\nrole = \"user\"\n",
                "is a pattern",
            ),
            (
                "[[people]]\nsession = \"u\"\nrole = \"user\"\n\n[[people]]\nsession = \"u\"\nrole = \"owner\"\n",
                "line 5: person u is there twice",
            ),
            (
                "[[hooks]]\nkind = \"before_lunch\"\ncommand = [\"x\"]\n",
                "line 2: unknown variant `before_lunch`",
            ),
            (
                "[[hooks]]\nkind = \"step_ended\"\ncommand = []\n",
                "line 1: hook \"\": its command is empty",
            ),
            (
                "[[hooks]]\nkind = \"step_ended\"\nname = \"tell\"\ncommand = []\n",
                "line 1: hook \"tell\": its command is empty",
            ),
            (
                "[[hooks]]\nkind = \"step_ended\"\ncommand = [\"a\"]\n[[hooks]]\nkind = \"step_ended\"\n\
                 command = [\"b\"]\ntimeoutMs = 600001\n",
                "line 4: hook \"b\": its time limit is 600001 ms",
            ),
            (
                "[[hooks]]\nkind = \"step_ended\"\ncommand = [\"a\"]\ntimeout = 1\n",
                "line 4: unknown field `timeout`",
            ),
        ] {
            let says = AgentsFile::parse(text).unwrap_err();
            assert!(says.contains(part), "{says}");
        }
    }
}
