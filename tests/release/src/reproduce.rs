//! Whether a release can be made again: two clones of the last commit, in folders of different length, must give the same digests.
//!
//! What others wrote and this program needs is compiled once for both; everything of the repository, and all of both WebAssembly files,
//! is compiled in each. Looks at what is committed, not at changes that are not.

use crate::checkout::{Checkout, git};
use crate::dist::SUMS;
use anyhow::{Context as _, Result, bail, ensure};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Where the clones are, below a temporary folder.
const CLONES: [&str; 2] = ["a", "another place/of a different length"];

/// Makes the release in two clones and compares it. Gives the digests.
///
/// # Errors
/// A release cannot be made, or the two differ.
pub fn check(checkout: &Checkout) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let commit = git(checkout.root(), &["rev-parse", "HEAD"])?;
    let mut made = Vec::new();
    for name in CLONES {
        let clone = folder.path().join(name);
        let started = Instant::now();
        let sums = of_clone(checkout, &commit, &clone)?;
        println!("{}: {} s", clone.display(), started.elapsed().as_secs());
        made.push(sums);
    }
    let (first, second) = (&made[0], &made[1]);
    ensure!(!first.is_empty(), "no digests were made");
    if first != second {
        let pairs = first.lines().zip(second.lines());
        let differs: Vec<&str> = pairs.filter(|(a, b)| a != b).map(|(a, _)| a).collect();
        bail!("two clones give other files:\n{}", differs.join("\n"));
    }
    Ok(first.clone())
}

fn of_clone(checkout: &Checkout, commit: &str, clone: &Path) -> Result<String> {
    let text = clone.to_str().context("a folder with such a name")?;
    let source = checkout.root();
    git(source, &["clone", "--quiet", "--no-checkout", ".", text])?;
    git(clone, &["checkout", "--quiet", "--detach", commit])?;
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(clone)
        .args(["run", "--quiet", "--locked", "--manifest-path"])
        .arg(clone.join("tests/release/Cargo.toml"))
        .arg("--target-dir")
        .arg(checkout.path("target/release-tool"))
        .args(["--", "dist"])
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "no release of {}", clone.display());
    Ok(fs::read_to_string(clone.join("target/dist").join(SUMS))?)
}
