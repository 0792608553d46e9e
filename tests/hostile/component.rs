//! Builds the component that means harm, once a run.
//!
//! Does not load it.

use crate::component::guest::{self, Artifact, Tools};
use crate::program::root;
use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

const HOSTILE: Artifact = Artifact {
    package: "qm2-hostile",
    ..guest::COMPONENT
};

/// The one that does what the domain's name says.
pub fn told() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| build(&[]))
}

/// The one that never gets as far as its first call.
pub fn stuck_at_start() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| build(&["loops-at-start"]))
}

fn build(features: &[&str]) -> Vec<u8> {
    // Both are written to the same place.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let tools = Tools {
        cargo: &cargo,
        rustc: OsStr::new(&rustc),
    };
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile");
    let built = guest::build(&tools, &root(), &out, HOSTILE, features);
    std::fs::read(built).expect("the component")
}
