//! What a release of QM2 consists of, and what it has promised.
//!
//! | module | what it holds |
//! |---|---|
//! | [`checkout`] | the checkout: version, licence, revision, and building from it |
//! | [`dist`] | all files of a release |
//! | [`stamp`] | name, version, licence and revision inside the files themselves |
//! | [`sbom`] | what goes into them |
//! | [`contract`] | the WIT: as a package, as one document, and whether it keeps what an earlier one said |
//! | [`image`], [`registry`] | the component as an OCI image, and a registry that takes it and gives it back |
//! | [`hosts`] | adapters and examples of other languages |
//! | [`reproduce`] | the same files out of two clones |
//! | [`archive`], [`freeze`] | what is kept of a release, for tests of all later ones |
//!
//! Runs no component: what a later one does with the ledgers and vectors of an earlier one is tested in `tests/releases.rs`.

pub mod archive;
pub mod checkout;
pub mod contract;
pub mod dist;
pub mod freeze;
pub mod hosts;
pub mod image;
pub mod registry;
pub mod reproduce;
pub mod sbom;
pub mod stamp;

// The host's own files, for the form of what people write. The host itself brings a WebAssembly engine along.
#[path = "../../../host-harness/src/agents_file.rs"]
#[allow(dead_code, missing_docs)]
mod agents_file;
#[path = "../../../host-harness/src/error.rs"]
#[allow(dead_code, rustdoc::broken_intra_doc_links)]
mod error;
#[path = "../../../host-harness/build/guest.rs"]
#[allow(dead_code)]
mod guest;
mod hook;
#[path = "../../../host-harness/src/people.rs"]
#[allow(dead_code)]
mod people;
#[path = "../../../host-harness/src/schema.rs"]
mod schema;
#[path = "../../../host-harness/src/session_glob.rs"]
#[allow(dead_code)]
mod session_glob;

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// SHA-256 in lower-case hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
