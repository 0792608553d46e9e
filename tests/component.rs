//! The component as it is shipped: what it imports and exports, how large it is, and that it is the same wherever it is
//! built.
//!
//! What it does is tested in `rules`.

#[path = "../host-harness/build/guest.rs"]
pub mod guest;

use crate::program::{Directory, root};
use guest::Tools;
use qm2_core::digest::sha256_hex;
use qm2_host::{COMPONENT, CORE_MODULE};
use serde_json::json;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

/// What it may have now, in bytes, so that growth is seen. 400 000 is where it has to come down to.
const BYTES_MAX: usize = 660_000;
/// What is needed to build the component; cargo looks at every member of the workspace.
const SOURCES: [&str; 12] = [
    ".cargo",
    "Cargo.lock",
    "Cargo.toml",
    "guest",
    "host-harness",
    "rust-toolchain.toml",
    "tests/hostile/guest",
    "tests/hosts/wasmtime",
    "tests/main.rs",
    "tests/program.rs",
    "wit",
    "tests/simulation",
];

#[test]
fn it_imports_the_host_interfaces_and_nothing_else() {
    let inspected = Directory::new().run(&["--json", "component", "inspect"]);
    assert_eq!(inspected.code, 0, "{inspected:?}");
    let value = inspected.json();
    let names = |name: &str| {
        let mut names: Vec<&str> = value[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str())
            .collect();
        names.sort_unstable();
        names
    };
    let imports = ["event-stream", "hooks", "lanes", "queue", "types"]
        .map(|name| format!("qm2:coordination/{name}@0.1.0"));
    assert_eq!(names("imports"), imports);
    let exports = ["arbitration", "coordination", "json", "recovery"]
        .map(|name| format!("qm2:coordination/{name}@0.1.0"));
    assert_eq!(names("exports"), exports);
    assert!(!inspected.stdout.contains("wasi"), "{inspected:?}");
    assert_eq!(value["bytes"], COMPONENT.len());
    assert_eq!(value["sha256"], json!(sha256_hex(&[COMPONENT])));
    let bytes = COMPONENT.len();
    assert!(bytes <= BYTES_MAX, "the component has {bytes} bytes");
}

#[test]
fn it_is_written_to_a_file_for_another_host() {
    let directory = Directory::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, more, content) in [
        ("qm2.wasm", None, COMPONENT),
        ("qm2-core.wasm", Some("--core"), CORE_MODULE),
    ] {
        let path = folder.path().join(name);
        let mut arguments = vec![
            "--json",
            "component",
            "export",
            path.to_str().expect("text"),
        ];
        arguments.extend(more);
        let exported = directory.run(&arguments);
        assert_eq!(exported.code, 0, "{exported:?}");
        assert_eq!(exported.json()["sha256"], json!(sha256_hex(&[content])));
        assert_eq!(fs::read(&path).expect("the file"), content);
        // What is there stays.
        let again = directory.run(&arguments);
        assert_eq!(again.code, 2, "{again:?}");
    }
}

#[test]
fn it_names_no_folder_of_the_machine_that_built_it() {
    let checkout = root();
    let homes = ["HOME", "USERPROFILE", "CARGO_HOME", "RUSTUP_HOME"];
    let mut folders: Vec<OsString> = homes.into_iter().filter_map(env::var_os).collect();
    folders.push(checkout.clone().into_os_string());
    folders.push(env!("CARGO_TARGET_TMPDIR").into());
    folders.extend(guest::cargo_home().map(|path| path.into_os_string()));
    for folder in folders {
        let text = folder.to_string_lossy();
        let text = text.trim_end_matches('/');
        // The home of nobody is the root; that is no name.
        if text.is_empty() {
            continue;
        }
        assert!(!names(text), "the component names {text}");
    }
    for part in ["/home/", "/Users/", "registry/src"] {
        assert!(!names(part), "the component names {part}");
    }
}

/// Whether a text stands in one of the artifacts.
fn names(text: &str) -> bool {
    let names = |artifact: &[u8]| {
        let mut windows = artifact.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    };
    names(COMPONENT) || names(CORE_MODULE)
}

#[test]
fn it_is_the_same_when_it_is_built_in_another_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Deeper and longer than where this one was built, and with a space.
    let elsewhere = folder
        .path()
        .join("another place/of a different length/checkout");
    for source in SOURCES {
        copy(&root().join(source), &elsewhere.join(source));
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let tools = Tools {
        cargo: &cargo,
        rustc: OsStr::new(&rustc),
    };
    let out = folder.path().join("out");
    for (artifact, embedded) in [
        (guest::COMPONENT, COMPONENT),
        (guest::CORE_MODULE, CORE_MODULE),
    ] {
        let built = guest::build(&tools, &elsewhere, &out, artifact, &[]);
        let built = fs::read(built).expect("the artifact");
        assert_eq!(
            sha256_hex(&[&built]),
            sha256_hex(&[embedded]),
            "{} built elsewhere has {} bytes, the embedded one has {}; was a source changed since this test was compiled, \
             or a prebuilt one embedded?",
            artifact.package,
            built.len(),
            embedded.len()
        );
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from)
            .expect("a folder of the checkout")
            .flatten()
        {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        let parent = to.parent().expect("a file lies in a folder");
        fs::create_dir_all(parent).expect("a folder");
        fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}
