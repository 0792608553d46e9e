//! Timers: what is awaited, and in which order what is due fires.
//!
//! A timer is not state of its own. It follows from the state of a step, a report or a coordination, and this is the
//! index over them; what happens when one fires is decided in [`crate::deadline`].

use crate::event::Name;
use crate::order::{Key, Ordered, Part};

/// What a timer is for, in the order in which those due at the same time fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerClass {
    Attempt,
    Ack,
    Hook,
    Human,
    CancelGrace,
    CleanupGrace,
    Plan,
    ClaimExpiry,
    Report,
}

impl TimerClass {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Ack => "ack",
            Self::Hook => "hook",
            Self::Human => "human",
            Self::CancelGrace => "cancel_grace",
            Self::CleanupGrace => "cleanup_grace",
            Self::Plan => "plan",
            Self::ClaimExpiry => "claim_expiry",
            Self::Report => "report",
        }
    }
}

/// One awaited time. Declared in the order in which timers fire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    pub(crate) due_ms: u64,
    pub(crate) class: TimerClass,
    pub(crate) coordination: Name,
    /// Empty where the timer is not that of a step.
    pub(crate) step: Name,
    /// The attempt, or the number of the reported record.
    pub(crate) number: u64,
}

/// An awaited time of a step, or of a coordination, without saying of which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) class: TimerClass,
    pub(crate) due_ms: u64,
    pub(crate) number: u64,
}

impl Due {
    /// As a timer of a step, or where there is none of the coordination.
    pub(crate) fn of(self, coordination: &Name, step: Option<&Name>) -> Timer {
        Timer {
            due_ms: self.due_ms,
            class: self.class,
            coordination: coordination.clone(),
            step: step.cloned().unwrap_or_else(|| Name::from("")),
            number: self.number,
        }
    }

    /// The place of that timer among others, in the declared order.
    fn key(self, coordination: &str, step: &str) -> Key {
        Key::of(&[
            Part::Number(self.due_ms),
            Part::Byte(self.class as u8),
            Part::Text(coordination),
            Part::Text(step),
            Part::Number(self.number),
        ])
    }
}

impl Timer {
    /// Its place among others, in the declared order.
    fn key(&self) -> Key {
        let due = Due {
            class: self.class,
            due_ms: self.due_ms,
            number: self.number,
        };
        due.key(&self.coordination, &self.step)
    }
}

/// All awaited times of a domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    all: Ordered<Timer>,
    /// Memory for lists of awaited times: each change of a step makes two, nearly all of them short.
    spare: [Vec<Due>; 2],
}

impl Timers {
    pub(crate) fn arm(&mut self, timer: Timer) {
        self.all.insert(&timer.key(), timer);
    }

    pub(crate) fn disarm(&mut self, timer: &Timer) {
        self.all.remove(&timer.key());
    }

    /// Two empty lists, which [`Self::rearm`] takes back.
    pub(crate) fn lists(&mut self) -> [Vec<Due>; 2] {
        std::mem::take(&mut self.spare)
    }

    /// Arms some timers of a step, or of a coordination, in the place of others; those that are among both stay as they are.
    pub(crate) fn rearm(
        &mut self,
        coordination: &Name,
        step: Option<&Name>,
        [mut before, mut after]: [Vec<Due>; 2],
    ) {
        for due in &before {
            if !after.contains(due) {
                let key = due.key(coordination, step.map_or("", |step| step));
                self.all.remove(&key);
            }
        }
        for due in &after {
            if !before.contains(due) {
                self.arm(due.of(coordination, step));
            }
        }
        before.clear();
        after.clear();
        self.spare = [before, after];
    }

    /// The timer to fire first at this time.
    pub(crate) fn first_due(&self, now_ms: u64) -> Option<&Timer> {
        self.all.first().filter(|timer| timer.due_ms <= now_ms)
    }

    /// Whether more than `count` timers are due.
    pub(crate) fn more_due_than(&self, count: usize, now_ms: u64) -> bool {
        // Nearly always nothing is due, and that is seen without counting.
        self.all.len() > count
            && self.first_due(now_ms).is_some()
            && self
                .all
                .iter()
                .nth(count)
                .is_some_and(|timer| timer.due_ms <= now_ms)
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.all.first().map(|timer| timer.due_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [TimerClass; 9] = [
        TimerClass::Attempt,
        TimerClass::Ack,
        TimerClass::Hook,
        TimerClass::Human,
        TimerClass::CancelGrace,
        TimerClass::CleanupGrace,
        TimerClass::Plan,
        TimerClass::ClaimExpiry,
        TimerClass::Report,
    ];

    fn timers() -> Vec<Timer> {
        let mut all = Vec::new();
        for due_ms in [0, 255, 256] {
            for class in CLASSES {
                for (coordination, step) in [("c", ""), ("c", "s"), ("c.1", ""), ("c1", "s")] {
                    for number in [0, 7, 300] {
                        all.push(Timer {
                            due_ms,
                            class,
                            coordination: coordination.into(),
                            step: step.into(),
                            number,
                        });
                    }
                }
            }
        }
        all
    }

    #[test]
    fn timers_fire_in_the_declared_order() {
        let mut index = Timers::default();
        for timer in timers().into_iter().rev() {
            index.arm(timer);
        }
        let mut sorted = timers();
        sorted.sort();
        assert_eq!(sorted, timers(), "the list above is in order");
        for timer in sorted {
            let first = index.first_due(u64::MAX).cloned();
            assert_eq!(first.as_ref(), Some(&timer));
            index.disarm(&timer);
        }
        assert_eq!(index.next_due_ms(), None);
    }

    #[test]
    fn names_of_classes_are_their_own() {
        let mut names: Vec<&str> = CLASSES.map(TimerClass::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CLASSES.len());
        assert_eq!(TimerClass::ClaimExpiry.name(), "claim_expiry");
    }

    #[test]
    fn more_are_due_than_a_call_may_fire() {
        let mut index = Timers::default();
        for (due_ms, step) in [(5, "a"), (5, "b"), (9, "c")] {
            index.arm(Timer {
                due_ms,
                class: TimerClass::Ack,
                coordination: "c".into(),
                step: step.into(),
                number: 1,
            });
        }
        assert!(!index.more_due_than(0, 4) && index.more_due_than(0, 5));
        assert!(index.more_due_than(1, 5) && !index.more_due_than(2, 5));
        assert!(index.more_due_than(2, 9) && !index.more_due_than(3, 9));
    }
}
