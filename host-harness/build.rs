//! Builds the component (`qm2-guest`) and the core module (`qm2-module`) for wasm32-unknown-unknown and tells the library
//! where they are.
//!
//! Needs no tool beside rustup's toolchain: the linker `wasm-component-ld` ships inside it. A missing target is added
//! once, and said so. Does not check what the component imports; a test does.

#[path = "build/guest.rs"]
mod guest;

use guest::{Artifact, TARGET, Tools};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A file that was built before, the variable that names it to the library, what is built else, and its first bytes.
const ARTIFACTS: [(&str, &str, Artifact, &[u8]); 2] = [
    (
        "QM2_WASM_PREBUILT",
        "QM2_WASM",
        guest::COMPONENT,
        b"\0asm\x0d\0\x01\0",
    ),
    (
        "QM2_CORE_WASM_PREBUILT",
        "QM2_CORE_WASM",
        guest::CORE_MODULE,
        b"\0asm\x01\0\0\0",
    ),
];

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
        .to_path_buf();
    for path in [
        "guest/src",
        "guest/core/src",
        "guest/module/src",
        "guest/Cargo.toml",
        "guest/core/Cargo.toml",
        "guest/module/Cargo.toml",
        "wit",
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let mut is_target_there = false;
    for (prebuilt, tells, artifact, magic) in ARTIFACTS {
        println!("cargo::rerun-if-env-changed={prebuilt}");
        let wasm = match env::var_os(prebuilt) {
            Some(path) => PathBuf::from(path),
            None => {
                // The same tools that compile this workspace.
                let (cargo, rustc) = (variable("CARGO"), variable("RUSTC"));
                let tools = Tools {
                    cargo: &cargo,
                    rustc: &rustc,
                };
                if !is_target_there {
                    add_target_if_missing(&tools);
                    is_target_there = true;
                }
                let out = PathBuf::from(variable("OUT_DIR")).join("guest");
                guest::build(&tools, &root, &out, artifact, &[])
            }
        };
        let bytes =
            fs::read(&wasm).unwrap_or_else(|e| panic!("{} is not readable: {e}", wasm.display()));
        assert!(
            bytes.starts_with(magic),
            "{} is not what {} is: it must begin with {magic:?}",
            wasm.display(),
            artifact.package
        );
        println!("cargo::rerun-if-changed={}", wasm.display());
        println!("cargo::rustc-env={tells}={}", wasm.display());
    }
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}

/// Where rustup's automatic installation is off, `rust-toolchain.toml` alone does not bring the target.
fn add_target_if_missing(tools: &Tools<'_>) {
    if target_is_there(tools) {
        return;
    }
    println!(
        "cargo::warning=the target {TARGET} is not installed; running: rustup target add {TARGET}"
    );
    // Cargo passes RUSTUP_TOOLCHAIN on, so this is the toolchain that compiles here.
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .status();
    if !matches!(&added, Ok(status) if status.success()) || !target_is_there(tools) {
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

fn target_is_there(tools: &Tools<'_>) -> bool {
    let folder = guest::rustc(tools, &["--print", "target-libdir", "--target", TARGET]);
    // A folder may stay behind when a target is removed; the library does not.
    fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}
