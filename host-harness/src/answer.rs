//! Answers of people on their way to a running command: a folder an attempt, one file an answer.
//!
//! Files are whole when they appear. The ledger keeps the answers; a folder goes away with its attempt, and what a killed
//! host left behind is removed when the data directory is opened again.

use crate::paths;
use qm2_core::digest::sha256_hex;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names the folder in the environment of a command agent.
pub(crate) const ANSWERS_VARIABLE: &str = "QM2_ANSWERS";

/// The folder of one attempt; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes an empty one.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn make(data: &Path, key: &str) -> io::Result<Self> {
        let path = path_of(data, key);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(Self(path))
    }

    /// Where it is, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Puts an answer into the folder of an attempt, under the id of its question; false if the attempt has none.
///
/// # Errors
/// What the system said.
pub(crate) fn put(data: &Path, key: &str, escalation_id: &str, text: &str) -> io::Result<bool> {
    let folder = path_of(data, key);
    // Names with a dot in front are not answers yet.
    let unfinished = folder.join(format!(".{escalation_id}"));
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished);
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    file.write_all(text.as_bytes())?;
    fs::rename(&unfinished, folder.join(escalation_id))?;
    Ok(true)
}

/// Removes what earlier owners of the data directory left behind; none of their attempts is at work any more.
pub(crate) fn clear(data: &Path) {
    if let Err(e) = fs::remove_dir_all(data.join(paths::ANSWERS))
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("old answers are still in {}: {e}", data.display());
    }
}

/// Keys may be longer than file names.
fn path_of(data: &Path, key: &str) -> PathBuf {
    data.join(paths::ANSWERS)
        .join(sha256_hex(&[key.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_whole_file_and_goes_with_its_attempt() {
        let data = tempfile::tempdir().unwrap();
        let long = "k".repeat(300);
        let folder = Folder::make(data.path(), &long).unwrap();
        assert!(put(data.path(), &long, "e12", "yes\n").unwrap());
        let path = folder.path().to_path_buf();
        assert_eq!(fs::read_to_string(path.join("e12")).unwrap(), "yes\n");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        assert!(!put(data.path(), "other", "e12", "yes").unwrap());
        drop(folder);
        assert!(!path.exists());
        Folder::make(data.path(), "left")
            .map(std::mem::forget)
            .unwrap();
        clear(data.path());
        assert!(!data.path().join(paths::ANSWERS).exists());
    }
}
