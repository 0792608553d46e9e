//! Builds the component (`qm2-guest`) for wasm32-unknown-unknown and tells the library where it is.
//!
//! Needs no tool beside rustup's toolchain: the linker `wasm-component-ld` ships inside it. A missing target is added
//! once, and said so. Does not check what the component imports; a test does.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
/// First bytes of a component; those of a core module differ in the fifth.
const MAGIC: &[u8] = b"\0asm\x0d\0\x01\0";

fn main() {
    println!("cargo::rerun-if-env-changed=QM2_WASM_PREBUILT");
    let root = variable("CARGO_MANIFEST_DIR")
        .parent()
        .expect("the package lies in the workspace")
        .to_path_buf();
    for path in [
        "guest/src",
        "guest/core/src",
        "guest/Cargo.toml",
        "guest/core/Cargo.toml",
        "wit",
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let wasm = match env::var_os("QM2_WASM_PREBUILT") {
        Some(path) => PathBuf::from(path),
        None => {
            add_target_if_missing();
            build(&root, &variable("OUT_DIR").join("guest"))
        }
    };
    let bytes = fs::read(&wasm)
        .unwrap_or_else(|e| panic!("the component {} is not readable: {e}", wasm.display()));
    assert!(
        bytes.starts_with(MAGIC),
        "{} is not a component: it must begin with {MAGIC:?}",
        wasm.display()
    );
    println!("cargo::rerun-if-changed={}", wasm.display());
    println!("cargo::rustc-env=QM2_WASM={}", wasm.display());
}

fn variable(name: &str) -> PathBuf {
    PathBuf::from(env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}")))
}

/// Standard output of rustc, the same that compiles this workspace.
fn rustc(arguments: &[&str]) -> String {
    let rustc = variable("RUSTC");
    let output = Command::new(&rustc)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{} does not run: {e}", rustc.display()));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Where rustup's automatic installation is off, `rust-toolchain.toml` alone does not bring the target.
fn add_target_if_missing() {
    if target_is_there() {
        return;
    }
    println!(
        "cargo::warning=the target {TARGET} is not installed; running: rustup target add {TARGET}"
    );
    // Cargo passes RUSTUP_TOOLCHAIN on, so this is the toolchain that compiles here.
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .status();
    if !matches!(&added, Ok(status) if status.success()) || !target_is_there() {
        let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_default();
        let option = if toolchain.is_empty() {
            String::new()
        } else {
            format!(" --toolchain {toolchain}")
        };
        panic!(
            "the target {TARGET} is not installed and could not be added; run: rustup target add {TARGET}{option}"
        );
    }
}

fn target_is_there() -> bool {
    let folder = rustc(&["--print", "target-libdir", "--target", TARGET]);
    // A folder may stay behind when a target is removed; the library does not.
    fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// Builds the component in a target folder of its own: the outer cargo holds the lock of the usual one.
fn build(root: &Path, out: &Path) -> PathBuf {
    let status = Command::new(variable("CARGO"))
        .current_dir(root)
        .args(["build", "--locked", "--package", "qm2-guest"])
        .args(["--profile", "guest", "--target", TARGET, "--target-dir"])
        .arg(out)
        .env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
            "wasm-component-ld",
        )
        // And none of the flags meant for the host's own code.
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, out).join("\x1f"))
        .env("CARGO_INCREMENTAL", "0")
        // A shared build folder would be locked by the outer cargo.
        .env("CARGO_BUILD_BUILD_DIR", out)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER") // clippy
        .env_remove("CARGO_BUILD_RUSTC_WRAPPER")
        .env_remove("CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .status()
        .unwrap_or_else(|e| panic!("cargo does not run: {e}"));
    assert!(
        status.success(),
        "the component did not build; its errors stand above"
    );
    out.join(TARGET).join("guest/qm2_guest.wasm")
}

/// Keeps every path of this machine out of the component, so that two checkouts give the same bytes.
fn flags(root: &Path, out: &Path) -> Vec<String> {
    let home = env::var_os("HOME").or_else(|| env::var_os("USERPROFILE"));
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| PathBuf::from(home).join(".cargo")));
    let sysroot = rustc(&["--print", "sysroot"]);
    let version = rustc(&["-vV"]);
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .unwrap_or("src");
    let mut flags = Vec::new();
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    if let Some(cargo_home) = &cargo_home {
        remap(cargo_home, "/cargo");
    }
    // The standard library names itself so where its sources are not installed.
    remap(
        &Path::new(&sysroot).join("lib/rustlib/src/rust"),
        &format!("/rustc/{commit}"),
    );
    remap(root, "/qm2");
    // Last, because the last one that fits wins: this folder usually lies in the one before.
    remap(out, "/target");
    flags
}
