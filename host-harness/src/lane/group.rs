//! Capacity groups: lanes that share a budget, each with slots of its own in it.
//!
//! A member starts within its reservation always, and beyond it while what nobody reserved lasts. Width still bounds each.
//! Does not start anything; the lanes ask it who may.

use super::name;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a group cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupError {
    /// There is one of this name.
    Exists {
        /// The group.
        group: String,
    },
    /// Reservations are larger than the budget.
    OverBudget {
        /// The group.
        group: String,
        /// Its budget.
        budget: usize,
        /// Sum of the reservations.
        reserved: usize,
    },
    /// A lane that another task may be waiting for: its turn would wait for a budget that the waiting task keeps.
    WaitedOn {
        /// The lane.
        lane: String,
    },
    /// A lane is in a group already, or twice in this one.
    Member {
        /// The lane.
        lane: String,
    },
    /// A lane could never start anything: it has no reservation, and the others reserve everything.
    Starved {
        /// The lane.
        lane: String,
    },
}

pub(super) struct Group {
    /// Slots that nobody reserved.
    shared: usize,
    reserved: BTreeMap<Arc<str>, usize>,
    /// Slots in use beyond reservations.
    over: usize,
}

impl Group {
    pub(super) fn new(
        group: &str,
        budget: usize,
        reserved: BTreeMap<Arc<str>, usize>,
    ) -> Result<Self, GroupError> {
        let sum = reserved
            .values()
            .fold(0_usize, |sum, n| sum.saturating_add(*n));
        let Some(shared) = budget.checked_sub(sum) else {
            return Err(GroupError::OverBudget {
                group: group.to_owned(),
                budget,
                reserved: sum,
            });
        };
        for (lane, &own) in &reserved {
            let lane = lane.to_string();
            if name::may_be_waited_on(&lane) {
                return Err(GroupError::WaitedOn { lane });
            }
            if shared == 0 && own == 0 {
                return Err(GroupError::Starved { lane });
            }
        }
        Ok(Self {
            shared,
            reserved,
            over: 0,
        })
    }

    pub(super) fn members(&self) -> Vec<Arc<str>> {
        self.reserved.keys().cloned().collect()
    }

    /// Whether a lane with so many tasks may start another.
    pub(super) fn has_room(&self, lane: &str, active: usize) -> bool {
        active < self.own(lane) || self.over < self.shared
    }

    /// A lane has so many tasks now, and had so many before. True if that changes what other members may do.
    pub(super) fn count(&mut self, lane: &str, before: usize, now: usize) -> bool {
        let had_room = self.over < self.shared;
        let own = self.own(lane);
        self.over -= before.saturating_sub(own);
        self.over += now.saturating_sub(own);
        had_room != (self.over < self.shared)
    }

    fn own(&self, lane: &str) -> usize {
        self.reserved.get(lane).copied().unwrap_or(0)
    }
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { group } => write!(f, "there is a group {group} already"),
            Self::OverBudget {
                group,
                budget,
                reserved,
            } => write!(
                f,
                "group {group} has a budget of {budget}, and its lanes reserve {reserved}"
            ),
            Self::WaitedOn { lane } => write!(
                f,
                "lane {lane} cannot be in a group: a running task may be waiting for it"
            ),
            Self::Member { lane } => write!(f, "lane {lane} is in a group already"),
            Self::Starved { lane } => write!(
                f,
                "lane {lane} reserves nothing, and the others reserve the whole budget"
            ),
        }
    }
}

impl Error for GroupError {}
