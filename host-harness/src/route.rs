//! Which agent a message goes to: those of its coordination first, then the general ones.
//!
//! Does not run agents.

use crate::agent::{Agent, AgentTable};
use std::collections::HashMap;

/// Who serves which sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    /// Agents of one coordination.
    pub(crate) of_coordination: HashMap<String, AgentTable>,
    /// Agents of all others. Without them the others rest: their messages are kept for a process that serves them.
    pub(crate) general: Option<AgentTable>,
}

/// Where a message goes.
pub(crate) enum Route {
    To(Agent),
    Nobody,
    NotServedHere,
}

impl Routes {
    pub(crate) fn find(&self, coordination_id: &str, session: &str) -> Route {
        let own = self.of_coordination.get(coordination_id);
        if own.is_none() && self.general.is_none() {
            return Route::NotServedHere;
        }
        let tables = own.into_iter().chain(&self.general);
        match tables.flat_map(|table| table.find(session)).next() {
            Some(agent) => Route::To(agent.clone()),
            None => Route::Nobody,
        }
    }
}
