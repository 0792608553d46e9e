//! How the component is built: one command, the same wherever the checkout lies.
//!
//! Shared by the build script, by the test that builds it a second time elsewhere, and by the tests that build one that means
//! harm. Adds no target and asks no network beyond what cargo does by itself.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the guest is compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The tools that compile this workspace.
pub struct Tools<'a> {
    /// cargo.
    pub cargo: &'a OsStr,
    /// rustc.
    pub rustc: &'a OsStr,
}

/// What is built: a package, and what links it.
#[derive(Clone, Copy)]
pub struct Artifact {
    /// Name of the package.
    pub package: &'static str,
    /// A linker that ships inside the toolchain: one makes components, the other core modules.
    pub linker: &'static str,
}

/// The component that is shipped.
pub const COMPONENT: Artifact = Artifact {
    package: "qm2-guest",
    linker: "wasm-component-ld",
};

/// The same engine as a core module.
#[allow(dead_code)] // Not everyone who shares this file builds it.
pub const CORE_MODULE: Artifact = Artifact {
    package: "qm2-module",
    linker: "rust-lld",
};

/// Builds an artifact of the checkout `root` in the target folder `out`, which is its own: an outer cargo holds the lock of
/// the usual one. Gives the path of the file.
pub fn build(
    tools: &Tools<'_>,
    root: &Path,
    out: &Path,
    artifact: Artifact,
    features: &[&str],
) -> PathBuf {
    let Artifact { package, linker } = artifact;
    let status = Command::new(tools.cargo)
        .current_dir(root)
        .args(["rustc", "--locked", "--package", package])
        .args(["--features", &features.join(",")])
        .args(["--profile", "guest", "--target", TARGET, "--target-dir"])
        .arg(out)
        // Of this package alone, so that all artifacts share what they depend on.
        .args(["--", "-C", &format!("linker={linker}")])
        // And none of the flags meant for the host's own code.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags(tools, root, out).join("\x1f"),
        )
        .env("CARGO_INCREMENTAL", "0")
        // A shared build folder would be locked by the outer cargo.
        .env("CARGO_BUILD_BUILD_DIR", out)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER") // clippy
        .env_remove("CARGO_BUILD_RUSTC_WRAPPER")
        .env_remove("CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .status()
        .unwrap_or_else(|e| panic!("cargo does not run: {e}"));
    assert!(
        status.success(),
        "{package} did not build; its errors stand above"
    );
    let file = package.replace('-', "_") + ".wasm";
    out.join(TARGET).join("guest").join(file)
}

/// Standard output of rustc.
pub fn rustc(tools: &Tools<'_>, arguments: &[&str]) -> String {
    let output = Command::new(tools.rustc)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{} does not run: {e}", tools.rustc.display()));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Where cargo keeps the sources of others, if that can be told.
pub fn cargo_home() -> Option<PathBuf> {
    let home = || env::var_os("HOME").or_else(|| env::var_os("USERPROFILE"));
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| home().map(|home| PathBuf::from(home).join(".cargo")))
}

/// Keeps every path of this machine out of the component, so that two checkouts give the same bytes.
fn flags(tools: &Tools<'_>, root: &Path, out: &Path) -> Vec<String> {
    let sysroot = rustc(tools, &["--print", "sysroot"]);
    let version = rustc(tools, &["-vV"]);
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .unwrap_or("src");
    let mut flags = Vec::new();
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    if let Some(cargo_home) = cargo_home() {
        remap(&cargo_home, "/cargo");
        // Named after the registry, which may be a mirror; the sources are the same.
        for source in folders(&cargo_home.join("registry/src")) {
            remap(&source, "/cargo/registry");
        }
    }
    // The standard library names itself so where its sources are not installed.
    remap(
        &Path::new(&sysroot).join("lib/rustlib/src/rust"),
        &format!("/rustc/{commit}"),
    );
    remap(root, "/qm2");
    // Last, because the last one that fits wins: this folder usually lies in the one before.
    remap(out, "/target");
    // Calls of the small are worth their place, copies of the large are not: two thirds of the bytes, at nearly the speed.
    flags.push("-Cllvm-args=-inline-threshold=15".into());
    flags
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    folders
}
