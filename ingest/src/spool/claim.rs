//! Replicas share a directory of numbered folders, and lock the ones that they use. A running replica adopts
//! the folder of one that is gone.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::disk::{Disk, LOCK};

/// The folder of damaged segments.
pub(super) const DAMAGED: &str = "damaged";

/// A folder that this process has claimed.
pub(super) struct Claim<D: Disk> {
    pub(super) folder: PathBuf,
    _lock: D::Lock,
}

impl<D: Disk> Claim<D> {
    pub(super) fn new(folder: PathBuf, lock: D::Lock) -> Self {
        Self {
            folder,
            _lock: lock,
        }
    }
}

/// Claims a folder below `directory`: the first that is free, or else a new one.
pub(super) fn claim<D: Disk>(disk: &D, directory: &Path) -> io::Result<Claim<D>> {
    create_folder(disk, directory)?;
    let folders = numbered(disk, directory)?;
    let mut free = folders.iter().filter_map(|(_, folder)| lock(disk, folder));
    let claim = match free.next() {
        Some(claim) => claim,
        None => claim_new(disk, directory, &folders)?,
    };
    // The process that created it may have been killed before it synced.
    disk.sync_folder(directory)?;
    Ok(claim)
}

fn claim_new<D: Disk>(
    disk: &D,
    directory: &Path,
    taken: &[(u64, PathBuf)],
) -> io::Result<Claim<D>> {
    let free = (0..).filter(|number| taken.iter().all(|(taken, _)| taken != number));
    for number in free {
        let folder = directory.join(number.to_string());
        match disk.create_folder(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        if let Some(lock) = disk.lock(&folder)? {
            return Ok(Claim::new(folder, lock));
        }
    }
    Err(io::Error::other("every number is taken"))
}

/// A folder that cannot be locked counts as taken.
fn lock<D: Disk>(disk: &D, folder: &Path) -> Option<Claim<D>> {
    let locked = disk.lock(folder).unwrap_or_else(|error| {
        tracing::warn!(%error, "a folder of the spool cannot be claimed");
        None
    });
    locked.map(|lock| Claim::new(folder.to_owned(), lock))
}

/// The numbered folders in `directory`, in the order of their numbers.
pub(super) fn numbered<D: Disk>(disk: &D, directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = disk.list(directory)?.into_iter();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    let mut folders: Vec<_> = entries
        .filter_map(|path| Some((number(&path)?, path)))
        .collect();
    folders.sort_unstable();
    Ok(folders)
}

/// Creates a folder and its parents unless they are there. A power cut does not undo it.
pub(super) fn create_folder<D: Disk>(disk: &D, folder: &Path) -> io::Result<()> {
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let created = match disk.create_folder(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_folder(disk, parent)?;
            disk.create_folder(folder)
        }
        created => created,
    };
    match created {
        // Undo it, so that the next attempt syncs the parent again.
        Ok(()) => disk
            .sync_folder(parent)
            .inspect_err(|_| drop(disk.remove_folder(folder))),
        // The process that created it may not have synced its parent. This one may not be allowed to.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match disk.sync_folder(parent) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        },
        Err(error) => Err(error),
    }
}

/// Removes the folder if it is empty.
pub(super) fn remove_empty<D: Disk>(disk: &D, claim: Claim<D>) {
    let folder = &claim.folder;
    let is_empty = disk
        .list(folder)
        .is_ok_and(|entries| entries.iter().all(|entry| entry.ends_with(LOCK)));
    if !is_empty {
        return;
    }
    let removed = disk
        .remove(&folder.join(LOCK))
        .and_then(|()| disk.remove_folder(folder));
    if let Err(error) = removed {
        tracing::debug!(%error, "an empty folder of the spool stays");
    }
    drop(claim);
}
