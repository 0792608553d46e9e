//! Builds the component (`qm2-guest`) for wasm32-unknown-unknown and tells the library where it is.
//!
//! Needs no tool beside rustup's toolchain: the linker `wasm-component-ld` ships inside it. A missing target is added
//! once, and said so. Does not check what the component imports; a test does.

#[path = "build/guest.rs"]
mod guest;

use guest::{TARGET, Tools};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// First bytes of a component; those of a core module differ in the fifth.
const MAGIC: &[u8] = b"\0asm\x0d\0\x01\0";

fn main() {
    println!("cargo::rerun-if-env-changed=QM2_WASM_PREBUILT");
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"))
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
            // The same tools that compile this workspace.
            let (cargo, rustc) = (variable("CARGO"), variable("RUSTC"));
            let tools = Tools {
                cargo: &cargo,
                rustc: &rustc,
            };
            add_target_if_missing(&tools);
            guest::build(
                &tools,
                &root,
                &PathBuf::from(variable("OUT_DIR")).join("guest"),
                guest::PACKAGE,
                &[],
            )
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
