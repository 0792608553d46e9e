//! Where a message goes: agents and people of its coordination first, then the general ones.
//!
//! Does not run agents and shows nothing to people.

use crate::agent::{Agent, AgentTable};
use crate::people::People;
use qm2_core::message::Role;
use std::collections::HashMap;

/// Who serves which sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    /// Agents of one coordination.
    pub(crate) of_coordination: HashMap<String, AgentTable>,
    /// Agents of all others. Without them the others rest: their messages are kept for a process that serves them.
    pub(crate) general: Option<AgentTable>,
    /// People of one coordination.
    pub(crate) people_of_coordination: HashMap<String, People>,
    /// People of all others. Without them the host is taken to ask people in a way of its own.
    pub(crate) general_people: Option<People>,
}

/// Where a message goes.
pub(crate) enum Route {
    To(Agent),
    Nobody,
    NotServedHere,
}

/// Where a question goes.
pub(crate) enum Asked {
    /// To a person, who sees it where the host shows questions.
    Person,
    /// To an agent, which passes it on.
    Notifier(Agent),
    /// To nobody that is known here, but others of the role can answer it.
    Others,
    /// To nobody, and nobody has the role.
    Nobody,
    NotServedHere,
}

impl Routes {
    /// Whether any session is served through a channel.
    pub(crate) fn has_channel(&self) -> bool {
        let mut tables = self.of_coordination.values().chain(&self.general);
        tables.any(AgentTable::has_channel)
    }

    /// Whether a session is served through a channel.
    pub(crate) fn is_channel(&self, coordination_id: &str, session: &str) -> bool {
        let route = self.find(coordination_id, session);
        matches!(route, Route::To(Agent::Channel(_)))
    }

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

    /// People go before agents: a glob over all sessions must not turn a worker into a notifier.
    /// The owner of a plan cannot answer its questions.
    pub(crate) fn ask(
        &self,
        coordination_id: &str,
        owner: &str,
        session: &str,
        role_min: Role,
    ) -> Asked {
        let own = self.people_of_coordination.get(coordination_id);
        let mut people = own.into_iter().chain(&self.general_people).peekable();
        let knows_people = people.peek().is_some();
        let people: Vec<&People> = people.collect();
        if people.iter().any(|people| people.role(session).is_some()) {
            return Asked::Person;
        }
        match self.find(coordination_id, session) {
            Route::To(agent) => Asked::Notifier(agent),
            Route::NotServedHere => Asked::NotServedHere,
            Route::Nobody if !knows_people => Asked::NotServedHere,
            Route::Nobody => {
                let mut can_answer = people.iter().flat_map(|people| people.with_role(role_min));
                match can_answer.any(|person| person.session != owner) {
                    true => Asked::Others,
                    false => Asked::Nobody,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::Person;

    #[test]
    fn questions_go_to_people_first_and_to_nobody_only_where_nobody_has_the_role() {
        let agents = |glob: &str| {
            let table = AgentTable::new();
            table.command_agent(glob, vec!["x".into()], ".").unwrap()
        };
        let person = Person {
            session: "user:dana".into(),
            role: Role::Operator,
        };
        let mut routes = Routes::default();
        let of = |routes: &Routes, session: &str, role: Role| match routes.ask(
            "c",
            "user:owns",
            session,
            role,
        ) {
            Asked::Person => "person",
            Asked::Notifier(_) => "notifier",
            Asked::Others => "others",
            Asked::Nobody => "nobody",
            Asked::NotServedHere => "not here",
        };
        assert_eq!(of(&routes, "user:dana", Role::User), "not here");
        // A host with agents that has said nothing about people asks them itself.
        routes.general = Some(agents("notify:*"));
        assert_eq!(of(&routes, "user:dana", Role::User), "not here");
        assert_eq!(of(&routes, "notify:chat", Role::User), "notifier");
        let owner = Person {
            session: "user:owns".into(),
            role: Role::Owner,
        };
        let people = People::new(vec![person, owner]);
        routes.people_of_coordination.insert("c".into(), people);
        routes.of_coordination.insert("c".into(), agents("*"));
        assert_eq!(of(&routes, "user:dana", Role::Owner), "person");
        routes.of_coordination.insert("c".into(), agents("agent:*"));
        assert_eq!(of(&routes, "user:eve", Role::Operator), "others");
        assert_eq!(of(&routes, "user:eve", Role::Admin), "nobody");
        routes.people_of_coordination.clear();
        routes.general_people = Some(People::default());
        assert_eq!(of(&routes, "user:eve", Role::User), "nobody");
    }
}
