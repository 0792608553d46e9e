//! All tests of QM2 that need the component or the program: one test binary.
//!
//! Small tests of one module stand in that module.

mod asking;
mod begun;
mod bench;
mod beside;
mod cli;
mod component;
mod contested;
mod damage;
mod escalations;
mod events;
mod fire;
mod guard;
mod hooks;
mod host;
mod hostile;
mod kill;
mod ledger;
mod outbox;
mod program;
mod releases;
mod rules;
mod runtime;
mod snapshot;
mod stay;
mod support;
mod tidy;
mod usage;
mod vectors;
