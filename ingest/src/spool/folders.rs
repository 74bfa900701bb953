//! Sharing a folder: below it are numbered ones, and a process claims every one that is free by a lock
//! on it. So several replicas can share a folder, and what a replica left that is gone is taken up by
//! the next one that starts.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Keeps others from a folder, until it is dropped.
pub struct Lock(File);

impl Drop for Lock {
    /// Closing the file would do, were there no child of this process that has yet to close its copy.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "a folder of the spool stays locked until the process ends");
        }
    }
}

/// How many processes can share a folder.
const CLAIMS: usize = 256;

/// The numbered folders below `directory` that no other process holds, with their locks, which are to be
/// kept; at least one.
///
/// # Errors
/// A folder cannot be made or locked.
pub fn claim(directory: &Path) -> io::Result<(Vec<PathBuf>, Vec<Lock>)> {
    let (mut folders, mut locks) = (Vec::new(), Vec::new());
    for number in 0..CLAIMS {
        let folder = directory.join(number.to_string());
        if !folder.exists() {
            if !folders.is_empty() {
                return Ok((folders, locks));
            }
            std::fs::create_dir_all(&folder)?;
            sync_entry(&folder)?;
            sync_entry(directory)?;
        }
        let lock = File::create(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {
                folders.push(folder);
                locks.push(Lock(lock));
            }
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    if folders.is_empty() {
        return Err(io::Error::other(format!("{CLAIMS} processes share it")));
    }
    Ok((folders, locks))
}

/// Makes sure that a file or folder that was just created is still there after a power cut.
///
/// # Errors
/// The disk fails.
pub fn sync_entry(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
