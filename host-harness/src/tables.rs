//! What an agents file says, as tables of agents and hooks.
//!
//! The file was tested when it was read; an entry that a program made by hand is tested here, where the tables test theirs.

use crate::agent::AgentTable;
use crate::agents_file::{AgentsFile, HookEntry};
use crate::error::Result;
use crate::hook::{Hook, HookTable};
use std::path::Path;

impl HookEntry {
    fn hook(&self, folder: &Path) -> Hook {
        let hook = Hook::command(self.name(), self.command.clone(), folder).priority(self.priority);
        match self.time_limit() {
            Some(time_limit) => hook.time_limit(time_limit),
            None => hook,
        }
    }
}

impl AgentsFile {
    /// The table of its agents, for the folder that the file lies in.
    ///
    /// # Errors
    /// `HostError::Glob` if an entry was made by hand and is wrong.
    pub fn table(&self, folder: &Path) -> Result<AgentTable> {
        self.agents
            .iter()
            .try_fold(AgentTable::new(), |table, entry| {
                let command = entry.command.clone();
                match entry.stay {
                    Some(processes) => {
                        table.staying_agent(&entry.session, command, folder, processes)
                    }
                    None => table.command_agent(&entry.session, command, folder),
                }
            })
    }

    /// The handlers of its hooks, for the folder that the file lies in.
    ///
    /// # Errors
    /// `HostError::Hook` if an entry was made by hand and is wrong.
    pub fn hook_table(&self, folder: &Path) -> Result<HookTable> {
        self.hooks
            .iter()
            .try_fold(HookTable::new(), |table, entry| {
                table.hook(entry.kind, entry.hook(folder))
            })
    }
}
