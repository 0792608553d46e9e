//! Handlers of hooks: who is asked or told what, in which order, and for how long.
//!
//! Of the kinds that are asked (`before_dispatch`, `before_arbitrate`) handlers run one after another; the first deny is final
//! and ends the chain, else the first review counts, else nobody objects. An error, a panic or silence is a deny. Of the kinds
//! that are told all handlers start together, and their errors are only logged. Each handler gets a copy of its own.
//!
//! Does not decide what a verdict does to a step (the component does), and does not know when to ask: `runner` does.

mod bounds;
mod chain;
mod command;
mod printed;
mod runner;

pub use self::bounds::TIME_LIMIT_MAX;
pub(crate) use self::bounds::{check_command, check_handler, is_asked};
pub(crate) use self::runner::Hooks;
use crate::error::{HostError, Result};
use qm2_core::config::Config;
pub use qm2_core::message::{HookKind, HookVerdict};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// What a handler is asked about, or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which hook this is.
    pub kind: HookKind,
    /// Id of the request, the same when it is asked again after a restart; absent where the handler is only told.
    pub hook_id: Option<String>,
    /// Canonical JSON.
    pub json: String,
}

/// A handler that is asked.
type Asked = dyn Fn(Subject) -> Pin<Box<dyn Future<Output = Result<HookVerdict, String>> + Send>>
    + Send
    + Sync;
/// A handler that is told.
type Told =
    dyn Fn(Subject) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

#[derive(Clone)]
enum Work {
    Asked(Arc<Asked>),
    Told(Arc<Told>),
    Command(command::Command),
}

/// A handler: a name, how it ranks, how long it may take, and what it does.
#[derive(Clone)]
pub struct Hook {
    name: String,
    priority: i32,
    time_limit: Option<Duration>,
    work: Work,
}

impl Hook {
    /// A handler inside this process that is asked. The name goes into the ledger; an error counts as deny.
    pub fn asked<F, Fut, E>(name: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Subject) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HookVerdict, E>> + Send + 'static,
        E: fmt::Display,
    {
        Self::new(
            name.into(),
            Work::Asked(Arc::new(move |subject| {
                let verdict = handler(subject);
                Box::pin(async move { verdict.await.map_err(|e| e.to_string()) })
            })),
        )
    }

    /// A handler inside this process that is told. An error is logged under its name.
    pub fn told<F, Fut, E>(name: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Subject) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Self::new(
            name.into(),
            Work::Told(Arc::new(move |subject| {
                let done = handler(subject);
                Box::pin(async move { done.await.map_err(|e| e.to_string()) })
            })),
        )
    }

    /// A command that is asked or told, depending on the kind that it is added for. It runs in the given folder, gets the
    /// subject on stdin and `QM2_HOOK_KIND` and `QM2_HOOK_ID` in its environment.
    ///
    /// Where it is asked, it prints `{"verdict": "no_opinion"|"deny"|"review", "reason": "..."}`, or nothing, which is no
    /// opinion; an exit code other than 0 is a deny with the last line of its stderr. It and what it started are ended when
    /// its time is over.
    pub fn command(
        name: impl Into<String>,
        command: Vec<String>,
        folder: impl Into<PathBuf>,
    ) -> Self {
        let folder = folder.into();
        Self::new(
            name.into(),
            Work::Command(command::Command { command, folder }),
        )
    }

    fn new(name: String, work: Work) -> Self {
        Self {
            name,
            priority: 0,
            time_limit: None,
            work,
        }
    }

    /// Higher ones come first; 0 without it. Those of one priority keep the order in which they were added.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// How long one run may take, from 1 ms to 600 s; the domain's `hookTimeoutMs` without it. All handlers of one
    /// request that is asked have that long together, whatever their own limits are.
    #[must_use]
    pub fn time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = Some(time_limit);
        self
    }

    /// Its name, as the ledger has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it can be a handler of this kind.
    fn check(&self, kind: HookKind) -> Result<(), String> {
        if let Work::Command(command) = &self.work {
            check_command(&command.command)?;
        }
        check_handler(&self.name, self.time_limit)?;
        match &self.work {
            Work::Asked(_) if !is_asked(kind) => {
                let kind = kind.name();
                Err(format!("{kind} is told and not asked; use Hook::told"))
            }
            Work::Told(_) if is_asked(kind) => {
                let kind = kind.name();
                Err(format!("{kind} is asked and not told; use Hook::asked"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match &self.work {
            Work::Asked(_) => "asked".to_owned(),
            Work::Told(_) => "told".to_owned(),
            Work::Command(command) => command.command.join(" "),
        };
        f.debug_struct("Hook")
            .field("name", &self.name)
            .field("priority", &self.priority)
            .field("time_limit", &self.time_limit)
            .field("work", &work)
            .finish()
    }
}

/// Handlers, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct HookTable(Vec<(HookKind, Hook)>);

impl HookTable {
    /// Nobody is asked and nobody is told.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler of a kind.
    ///
    /// # Errors
    /// [`HostError::Hook`] if the name, the time limit or the command is outside its bound, or a handler that answers is
    /// added for a kind that is told, or the other way round.
    pub fn hook(mut self, kind: HookKind, hook: Hook) -> Result<Self> {
        if let Err(message) = hook.check(kind) {
            let name = hook.name;
            return Err(HostError::Hook { name, message });
        }
        self.0.push((kind, hook));
        Ok(self)
    }

    /// Whether it has no handler.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The handlers of a domain: those of everything, and those of single coordinations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    pub(crate) general: HookTable,
    pub(crate) of_coordination: HashMap<String, HookTable>,
}

impl Registry {
    fn entries(&self) -> impl Iterator<Item = &(HookKind, Hook)> {
        let own = self.of_coordination.values().flat_map(|table| &table.0);
        self.general.0.iter().chain(own)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }

    /// Puts the kinds of the handlers into a configuration. Gives how long a handler may take that has no limit of its own,
    /// and all of one request together.
    ///
    /// # Errors
    /// [`HostError::Hook`] without a configuration: a handler that is never asked would look like one that never objects.
    pub(crate) fn register(&self, config: Option<&mut Config>) -> Result<Duration> {
        let Some(config) = config else {
            return match self.entries().next() {
                Some((kind, hook)) => Err(HostError::Hook {
                    name: hook.name.clone(),
                    message: format!(
                        "the configuration has to name the kind {}; open the domain with DomainBuilder::config",
                        kind.name()
                    ),
                }),
                None => Ok(TIME_LIMIT_MAX),
            };
        };
        config.hooks.extend(self.entries().map(|(kind, _)| *kind));
        // Each once and in their own order, as the component writes them.
        config.hooks.sort_unstable();
        config.hooks.dedup();
        Ok(Duration::from_millis(config.hook_timeout_ms))
    }

    /// Handlers of a kind for a coordination in the order in which they run; none where this process has nothing to say
    /// about that coordination at all.
    fn handlers(&self, kind: HookKind, coordination_id: &str) -> Option<Vec<Hook>> {
        let own = self.of_coordination.get(coordination_id);
        if own.is_none() && self.general.is_empty() {
            return None;
        }
        let all = self
            .general
            .0
            .iter()
            .chain(own.iter().flat_map(|own| &own.0));
        let mut hooks: Vec<Hook> = all
            .filter(|(of, _)| *of == kind)
            .map(|(_, hook)| hook.clone())
            .collect();
        // Stable: those of one priority stay as they were added.
        hooks.sort_by_key(|hook| Reverse(hook.priority));
        Some(hooks)
    }
}

#[cfg(test)]
mod tests {
    use super::bounds::NAME_BYTES_MAX;
    use super::*;

    fn hook(name: &str) -> Hook {
        Hook::command(name, vec!["true".into()], ".")
    }

    #[test]
    fn handlers_that_cannot_be_are_refused() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        let ms = Duration::from_millis;
        for (kind, hook, part) in [
            (HookKind::StepEnded, hook(""), "0 bytes"),
            (HookKind::StepEnded, hook(&long), "257 bytes"),
            (HookKind::StepEnded, hook("a\nb"), "control"),
            (HookKind::StepEnded, hook("a").time_limit(ms(0)), "0 ms"),
            (
                HookKind::StepEnded,
                hook("a").time_limit(ms(600_001)),
                "600001 ms",
            ),
            (
                HookKind::StepEnded,
                Hook::command("a", Vec::new(), "."),
                "command is empty",
            ),
            (
                HookKind::StepEnded,
                Hook::asked("a", |_| async { Ok::<_, String>(HookVerdict::Review) }),
                "use Hook::told",
            ),
            (
                HookKind::BeforeDispatch,
                Hook::told("a", |_| async { Ok::<_, String>(()) }),
                "use Hook::asked",
            ),
        ] {
            let error = HookTable::new().hook(kind, hook).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let longest = hook(&long[1..]).time_limit(TIME_LIMIT_MAX);
        assert!(HookTable::new().hook(HookKind::StepEnded, longest).is_ok());
    }

    #[test]
    fn configuration_gets_every_kind_once_and_cannot_be_missing() {
        let table = |kind| HookTable::new().hook(kind, hook("h")).unwrap();
        let mut registry = Registry {
            general: table(HookKind::StepEnded),
            ..Registry::default()
        };
        let own = table(HookKind::BeforeDispatch);
        registry.of_coordination.insert("c".into(), own);
        let mut config = Config::new("d");
        for _ in 0..2 {
            let limit = registry.register(Some(&mut config)).unwrap();
            assert_eq!(limit, Duration::from_millis(config.hook_timeout_ms));
            let kinds = [HookKind::BeforeDispatch, HookKind::StepEnded];
            assert_eq!(config.hooks, kinds);
        }
        let error = registry.register(None).unwrap_err().to_string();
        assert!(error.contains("DomainBuilder::config"), "{error}");
        assert!(Registry::default().register(None).is_ok());
    }

    #[test]
    fn coordination_has_its_own_handlers_and_the_general_ones() {
        let table = |names: &[&str]| {
            names.iter().fold(HookTable::new(), |table, name| {
                table.hook(HookKind::StepEnded, hook(name)).unwrap()
            })
        };
        let names = |registry: &Registry, id: &str| {
            let handlers = registry.handlers(HookKind::StepEnded, id)?;
            Some(handlers.iter().map(|hook| hook.name.clone()).collect())
        };
        let mut registry = Registry::default();
        assert_eq!(names(&registry, "a"), None::<Vec<String>>);
        registry.of_coordination.insert("a".into(), table(&["own"]));
        registry.of_coordination.insert("b".into(), table(&[]));
        assert_eq!(names(&registry, "a"), Some(vec!["own".into()]));
        assert_eq!(names(&registry, "b"), Some(vec![]));
        assert_eq!(names(&registry, "c"), None);
        registry.general = table(&["all"]);
        assert_eq!(
            names(&registry, "a"),
            Some(vec!["all".into(), "own".into()])
        );
        assert_eq!(names(&registry, "c"), Some(vec!["all".into()]));
    }
}
