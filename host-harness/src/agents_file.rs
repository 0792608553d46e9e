//! The agents file: lane widths, which command serves which sessions, and which people have which role.
//!
//! Only reads; unknown members are errors, because a misspelt one would silently change who does the work.

use crate::agent::AgentTable;
use crate::error::{HostError, Result};
pub use crate::lane::Lanes;
use qm2_core::message::Role;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// An agents file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsFile {
    /// How many messages are out at once.
    pub lanes: Lanes,
    /// Who serves which sessions; the first match wins.
    pub agents: Vec<AgentEntry>,
    /// People and their roles.
    pub people: Vec<Person>,
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
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Session name of the person.
    pub session: String,
    /// What the person may do.
    pub role: Role,
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
        // Globs are tried here, so that a wrong one is said with the file and not at the first step.
        file.table(Path::new(".")).map_err(|e| e.to_string())?;
        Ok(file)
    }

    /// The table of its agents, for the folder that the file lies in.
    ///
    /// # Errors
    /// [`HostError::Glob`] if an entry was made by hand and is wrong.
    pub fn table(&self, folder: &Path) -> Result<AgentTable> {
        self.agents
            .iter()
            .try_fold(AgentTable::new(), |table, entry| {
                table.command_agent(&entry.session, entry.command.clone(), folder)
            })
    }

    /// Role of a session, where the file names one.
    #[must_use]
    pub fn role(&self, session: &str) -> Option<Role> {
        let person = self.people.iter().find(|person| person.session == session);
        person.map(|person| person.role)
    }
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
    fn wrong_files_are_refused_with_the_line() {
        for (text, part) in [
            ("[lanes]\ncontrl = 2\n", "line 2"),
            ("\n[[agents]]\nsession = 3\ncommand = []\n", "line 3"),
            ("[lanes]\ncontrol = 0\n", "control is 0"),
            ("[[agents]]\nsession = \"a\"\ncommand = []\n", "empty"),
            ("[[agents]]\nsession = \"a[\"\ncommand = [\"x\"]\n", "a["),
        ] {
            let says = AgentsFile::parse(text).unwrap_err();
            assert!(says.contains(part), "{says}");
        }
    }
}
