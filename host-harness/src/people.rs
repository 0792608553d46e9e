//! People: who may answer questions, and with which role.
//!
//! Knows names and roles. Which answer counts is decided in the component; showing a question is the business of whoever
//! sits before the screen.

use qm2_core::message::Role;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Session name of the person; 1..256 bytes without spaces or control characters, no glob.
    pub session: String,
    /// What the person may do: `user`, `operator`, `admin` or `owner`, in rising order.
    pub role: Role,
}

/// The people of a coordination, or of a whole domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People(Vec<Person>);

impl People {
    /// These people; of two with the same session the first counts.
    #[must_use]
    pub fn new(people: Vec<Person>) -> Self {
        Self(people)
    }

    /// Role of a session, where it is one of them.
    #[must_use]
    pub fn role(&self, session: &str) -> Option<Role> {
        let person = self.0.iter().find(|person| person.session == session);
        person.map(|person| person.role)
    }

    /// Those with at least this role.
    pub fn with_role(&self, role_min: Role) -> impl Iterator<Item = &Person> {
        self.0.iter().filter(move |person| person.role >= role_min)
    }
}

impl From<Vec<Person>> for People {
    fn from(people: Vec<Person>) -> Self {
        Self::new(people)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_rise_and_unknown_sessions_have_none() {
        let person = |session: &str, role| Person {
            session: session.into(),
            role,
        };
        let people = People::new(vec![
            person("user:dana", Role::Operator),
            person("user:eve", Role::User),
        ]);
        assert_eq!(people.role("user:dana"), Some(Role::Operator));
        assert_eq!(people.role("user:nobody"), None);
        assert_eq!(people.with_role(Role::User).count(), 2);
        assert_eq!(people.with_role(Role::Operator).count(), 1);
        assert_eq!(people.with_role(Role::Admin).count(), 0);
    }
}
