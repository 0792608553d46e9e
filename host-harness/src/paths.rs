//! Files and folders of a data directory: their names, who may read them, and the lock that makes one process its owner.
//!
//! Does not open the store.

use crate::error::{HostError, Result};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The store.
pub(crate) const STORE: &str = "ledger.db";
/// The durable queue of messages to channels.
pub(crate) const OUTBOX: &str = "outbox.db";
/// Locked by who sends from it; holds its process id.
pub(crate) const OUTBOX_LOCK: &str = "outbox.lock";
/// Locked by the owner; holds its process id.
pub(crate) const LOCK: &str = "lock";
/// Where the owner listens.
pub(crate) const SOCKET: &str = "qm2.sock";
/// Content that is too large for a report.
pub(crate) const PAYLOADS: &str = "payloads";
/// Answers of people to running commands.
pub(crate) const ANSWERS: &str = "answers";
/// Compiled component, where the user has no cache folder.
pub(crate) const CACHE: &str = "cache";

/// Makes the data directory, for its user only, and gives its absolute path. A new one does not go away with the power:
/// its name is durable, and those of the folders above it, which may be new, too.
///
/// # Errors
/// [`HostError::Io`] if it cannot be made, [`HostError::Data`] if something else has its name.
pub(crate) fn make_data_directory(path: &Path) -> Result<PathBuf> {
    if path.exists() && !path.is_dir() {
        return Err(HostError::Data {
            path: path.to_path_buf(),
            message: "is not a directory; the data directory is a directory, name another".into(),
        });
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| HostError::io("create the data directory", path, e))?;
    let absolute = path
        .canonicalize()
        .map_err(|e| HostError::io("find the data directory", path, e))?;
    let found =
        fs::metadata(&absolute).map_err(|e| HostError::io("read the data directory", path, e))?;
    // A directory that holds something else is not ours to close.
    let is_made = [STORE, OUTBOX]
        .iter()
        .any(|name| absolute.join(name).exists());
    let is_ours = || is_made || is_empty(&absolute);
    if found.mode() & 0o077 != 0 && is_ours() {
        let _ = fs::set_permissions(&absolute, Permissions::from_mode(0o700));
    }
    // Whoever made one of them has been here before. Not only what this process has made: another may have been killed
    // between making a folder and syncing the one above.
    if !is_made {
        for folder in absolute.ancestors().skip(1) {
            sync_folder(folder).map_err(|e| HostError::io("sync", folder, e))?;
        }
    }
    Ok(absolute)
}

/// Makes the names in a folder durable. A folder that its user may not look into, or on a file system without such a sync, is
/// left to the system.
///
/// # Errors
/// What the system said.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    match synced {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
                    | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Makes a folder that only its user may write to, or says why it cannot be trusted.
///
/// # Errors
/// What the system said, or that the folder belongs to somebody else.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::Error::other("is not a folder"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write to it"));
    }
    Ok(())
}

/// Held by the one process that owns a data directory, or one thing in it; let go when dropped.
#[derive(Debug)]
pub(crate) struct Owner {
    file: File,
}

impl Owner {
    /// Takes the data directory.
    ///
    /// # Errors
    /// [`HostError::Locked`] with the owner's process id if there is one already.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        Self::take_by(directory, LOCK)
    }

    /// Takes what this lock of a folder stands for.
    ///
    /// # Errors
    /// As [`Owner::take`].
    pub(crate) fn take_by(directory: &Path, lock: &str) -> Result<Self> {
        let path = directory.join(lock);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| HostError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(HostError::Locked {
                    path: directory.to_path_buf(),
                    pid: text.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(HostError::io("lock", &path, e)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|e| HostError::io("write", &path, e))?;
        Ok(Self { file })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Closing it is not enough: a process that is being started right now still has a copy until it runs its program.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_owner_is_told_the_pid_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner::take(folder.path()).unwrap();
        match Owner::take(folder.path()) {
            Err(HostError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(owner);
        Owner::take(folder.path()).unwrap();
    }

    #[test]
    fn what_is_let_go_can_be_taken_while_a_copy_of_the_lock_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner::take(folder.path()).unwrap();
        let copy = owner.file.try_clone().unwrap();
        drop(owner);
        Owner::take(folder.path()).unwrap();
        drop(copy);
    }

    #[test]
    fn data_directory_is_for_its_user_only_and_never_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let made = make_data_directory(&folder.path().join("a/b")).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(
            make_data_directory(&file),
            Err(HostError::Data { .. })
        ));
    }
}
