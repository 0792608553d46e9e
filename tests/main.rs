//! All tests of QM2 that need the component or the program: one test binary.
//!
//! Small tests of one module stand in that module.

mod kill;
mod program;
mod rules;
mod support;
mod tidy;
