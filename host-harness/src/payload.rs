//! Results that are too large for an envelope: kept in the data directory under their digest, and referred to.
//!
//! Never removes anything: what a ledger refers to may be looked at for as long as the ledger is.

use crate::error::{HostError, Result};
use crate::paths;
use crate::report::Report;
use qm2_core::digest::sha256_hex;
use qm2_core::envelope::PayloadRef;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Wait before content that could not be kept is written again.
pub(crate) const KEEP_AGAIN: Duration = Duration::from_secs(1);

/// Puts content into the data directory, durably, and gives the reference to it.
///
/// # Errors
/// [`HostError::Io`].
pub(crate) fn keep(data: &Path, content: &[u8]) -> Result<PayloadRef> {
    let sha256 = sha256_hex(&[content]);
    let folder = data.join(paths::PAYLOADS);
    let path = folder.join(&sha256);
    write(&folder, &path, content)
        // The name must be durable before a record refers to it, and so must the folder's. Also where the file is there: who
        // put it there may have been killed before it came to this.
        .and_then(|()| paths::sync_folder(&folder))
        .and_then(|()| paths::sync_folder(data))
        .map_err(|e| HostError::io("write", &path, e))?;
    Ok(PayloadRef {
        uri: format!("file:{}/{sha256}", paths::PAYLOADS),
        sha256,
        bytes: content.len() as u64,
    })
}

/// Moves a report's text out of it if it is longer than an envelope may carry.
///
/// # Errors
/// [`HostError::Io`].
pub(crate) fn bound(data: &Path, report: &mut Report, bytes_max: u64) -> Result<()> {
    report.bound(bytes_max, |content| keep(data, content))
}

fn write(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() == content.len() as u64) {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // The same content may be written twice at once.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{write}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_past_the_bound_is_kept_and_referred_to() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::completed("abc");
        bound(folder.path(), &mut report, 3).unwrap();
        assert_eq!(report.payload.as_deref(), Some("abc"));
        bound(folder.path(), &mut report, 2).unwrap();
        let reference = report.payload_ref.unwrap();
        assert_eq!((report.payload, reference.bytes), (None, 3));
        let path = folder
            .path()
            .join(reference.uri.strip_prefix("file:").unwrap());
        assert_eq!(fs::read(path).unwrap(), b"abc");
    }
}
