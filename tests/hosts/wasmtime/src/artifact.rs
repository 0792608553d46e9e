//! Which component and core module are run: files of a release, or those that the host embeds.
//!
//! Chosen once, before the first instance. Looks at nothing in them.

use anyhow::{Context, Result, bail};
use qm2_host::{COMPONENT, CORE_MODULE};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

static FILES: [OnceLock<Vec<u8>>; 2] = [OnceLock::new(), OnceLock::new()];

/// Takes these files instead of the embedded ones.
///
/// # Errors
/// One cannot be read.
pub fn choose(component: Option<&Path>, core: Option<&Path>) -> Result<()> {
    for (file, path) in FILES.iter().zip([component, core]) {
        let Some(path) = path else { continue };
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        if file.set(bytes).is_err() {
            bail!("the files are chosen already");
        }
    }
    Ok(())
}

/// The component.
pub fn component() -> &'static [u8] {
    FILES[0].get().map_or(COMPONENT, Vec::as_slice)
}

/// The plain core module.
pub fn core_module() -> &'static [u8] {
    FILES[1].get().map_or(CORE_MODULE, Vec::as_slice)
}
