//! The adapters and examples of other languages as one archive, so that a release is enough to begin with.
//!
//! Holds what is tracked in the checkout, as it lies there. Tests nothing: `.ci/hosts` does.

use crate::archive::{self, Files};
use crate::checkout::Checkout;
use anyhow::{Context as _, Result, ensure};
use std::fs;

/// The folders below `tests/hosts` that users copy.
pub const HOSTS: [&str; 4] = ["browser", "cpp", "node", "python"];

/// Name of the archive.
#[must_use]
pub fn name(version: &str) -> String {
    format!("qm2-hosts-{version}.tar.xz")
}

/// The archive; everything in it lies in one folder, which is called like it.
///
/// # Errors
/// A file is not readable, or a host has none.
pub fn archive(checkout: &Checkout) -> Result<Vec<u8>> {
    archive::tar_xz(&files(checkout)?)
}

fn files(checkout: &Checkout) -> Result<Files> {
    let mut files = Files::new();
    for host in HOSTS {
        let folder = format!("tests/hosts/{host}");
        let tracked = checkout.tracked(&folder)?;
        ensure!(
            !tracked.is_empty(),
            "{folder} holds nothing that is tracked"
        );
        for path in tracked {
            let inside = path.strip_prefix("tests/hosts/").unwrap_or(&path);
            let name = format!("qm2-hosts-{}/{inside}", checkout.version);
            let bytes = fs::read(checkout.path(&path)).with_context(|| path.clone())?;
            files.insert(name, bytes);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_its_page_and_nothing_that_was_only_built() {
        let checkout = Checkout::here().expect("a checkout");
        let files = files(&checkout).expect("the hosts are readable");
        for host in HOSTS {
            let page = format!("qm2-hosts-{}/{host}/README.md", checkout.version);
            assert!(files.contains_key(&page), "{page}");
        }
        let built = |name: &&String| name.contains("node_modules") || name.contains("__pycache__");
        assert_eq!(files.keys().find(built), None);
        let archive = archive(&checkout).expect("it is packed");
        assert_eq!(archive::untar_xz(&archive).expect("it is unpacked"), files);
    }
}
