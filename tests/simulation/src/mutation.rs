//! Shows that the audit bites: a copy of the core in which one line at a time is wrong must be caught.
//!
//! All wrong lines are put into one copy, each behind a switch, so that it is built once; the core itself never has them.
//! Which lines, and in how many seeds each has to be found, is in `mutations.json`.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that switches one on in the copy.
const SWITCH: &str = "QM2_MUTANT";

/// One wrong line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    name: String,
    /// Below `guest/core/src`.
    file: String,
    /// Stands there exactly once.
    old: String,
    /// In its place; `MUTANT` is true when this one is switched on.
    new: String,
    /// Seeds within which it must be caught.
    seeds: u64,
}

/// Makes the copy, and shows that nothing is found without and something with each mutation.
///
/// # Errors
/// One survives, or the copy does not build.
pub fn run(root: &Path, only: Option<&str>) -> Result<()> {
    let text = fs::read_to_string(root.join("tests/simulation/mutations.json"))?;
    let mutations: Vec<Mutation> = serde_json::from_str(&text).context("mutations.json")?;
    let copy = root.join("target/mutations/copy");
    copy_tree(root, &copy)?;
    for (number, mutation) in mutations.iter().enumerate() {
        let path = copy.join("guest/core/src").join(&mutation.file);
        let source = fs::read_to_string(&path).with_context(|| mutation.file.clone())?;
        let count = source.matches(&mutation.old).count();
        ensure!(
            count == 1,
            "{}: the line stands {count} times in {}",
            mutation.name,
            mutation.file
        );
        ensure!(
            mutation.new.contains("MUTANT"),
            "{}: changes nothing",
            mutation.name
        );
        let new = mutation
            .new
            .replace("MUTANT", &format!("crate::mutant({})", number + 1));
        fs::write(&path, source.replace(&mutation.old, &new))?;
    }
    let lib = copy.join("guest/core/src/lib.rs");
    let source = fs::read_to_string(&lib)?;
    fs::write(&lib, format!("{source}{}", switch()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--offline",
            "--profile",
            "mutations",
            "-p",
            "qm2-simulation",
            "--no-default-features",
        ])
        .arg("--target-dir")
        .arg(root.join("target/mutations/build"))
        .current_dir(&copy)
        .status()?;
    ensure!(built.success(), "the copy does not build");
    let binary = root.join("target/mutations/build/mutations/qm2-simulation");
    let most = mutations
        .iter()
        .map(|mutation| mutation.seeds)
        .max()
        .unwrap_or(0)
        .min(1_000);
    let (found, says) = simulate(&binary, 0, most)?;
    ensure!(!found, "without a mutation: {says}");
    println!("nothing is found in {most} seeds of the core as it is");
    let mut survivors = 0;
    for (number, mutation) in mutations.iter().enumerate() {
        if only.is_some_and(|only| !mutation.name.contains(only)) {
            continue;
        }
        let (found, says) = simulate(&binary, number + 1, mutation.seeds)?;
        let line = says
            .lines()
            .find(|line| line.starts_with("seed "))
            .unwrap_or(&says);
        let short: String = line.chars().take(150).collect();
        if found {
            println!("caught: {}: {short}", mutation.name);
        } else {
            survivors += 1;
            println!(
                "SURVIVED {} seeds: {}: {short}",
                mutation.seeds, mutation.name
            );
        }
    }
    println!("{} mutations, {survivors} survived", mutations.len());
    if survivors > 0 {
        bail!("{survivors} mutations were not caught");
    }
    Ok(())
}

fn switch() -> String {
    format!(
        "\n/// Whether a mutation is switched on.\npub(crate) fn mutant(number: u32) -> bool {{\n    \
         static ON: std::sync::OnceLock<u32> = std::sync::OnceLock::new();\n    \
         let on = ON.get_or_init(|| std::env::var(\"{SWITCH}\").ok().and_then(|n| n.parse().ok()).unwrap_or(0));\n    \
         *on == number\n}}\n"
    )
}

/// Whether a violation is found, and what was printed.
fn simulate(binary: &Path, mutant: usize, seeds: u64) -> Result<(bool, String)> {
    let output = Command::new(binary)
        .args([
            "simulate",
            "--seed",
            "1",
            "--count",
            "100000000",
            "--component-every",
            "0",
            "--seeds",
        ])
        .arg(seeds.to_string())
        .env(SWITCH, mutant.to_string())
        .output()?;
    let says = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok((false, says)),
        Some(1) => Ok((true, says)),
        code => bail!(
            "the copy ended with {code:?}: {says}{}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// The core and this package as a workspace of their own, without the host.
fn copy_tree(root: &Path, copy: &Path) -> Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy)?;
    }
    for folder in [
        "guest/core/benches",
        "guest/core/src",
        "tests/simulation/src",
    ] {
        copy_folder(&root.join(folder), &copy.join(folder))?;
    }
    for file in ["Cargo.lock", "rust-toolchain.toml", "guest/core/Cargo.toml"] {
        fs::copy(root.join(file), copy.join(file))?;
    }
    let workspace = fs::read_to_string(root.join("Cargo.toml"))?;
    let mut trimmed = String::new();
    for line in workspace.lines() {
        let line = match line {
            line if line.starts_with("members") => {
                "members = [\"guest/core\", \"tests/simulation\"]"
            }
            line if line.starts_with("default-members") => "",
            line => line,
        };
        trimmed.push_str(line);
        trimmed.push('\n');
    }
    // Quick to build, and quick enough to run.
    trimmed.push_str(
        "\n[profile.mutations]\ninherits = \"release\"\nopt-level = 1\ncodegen-units = 16\nincremental = false\n",
    );
    fs::write(copy.join("Cargo.toml"), trimmed)?;
    let package = fs::read_to_string(root.join("tests/simulation/Cargo.toml"))?;
    let without_host = |line: &&str| !line.contains("qm2-host");
    let package = package
        .lines()
        .filter(without_host)
        .collect::<Vec<_>>()
        .join("\n");
    let package = package.replace("default = [\"component\"]", "default = []");
    fs::write(copy.join("tests/simulation/Cargo.toml"), package)?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path: PathBuf = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
