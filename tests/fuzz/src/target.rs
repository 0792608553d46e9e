//! The targets. Each has one function, `run`, that takes bytes and panics where something does not hold.

pub mod agent_stdout;
pub mod agents_file;
pub mod door;
pub mod envelope;
pub mod ledger_line;
pub mod plan;
pub mod snapshot;
