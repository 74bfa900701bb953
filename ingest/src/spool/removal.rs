//! What becomes of a drained segment.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::claim::{DAMAGED, create_folder};
use super::disk::{Disk, LOCK};
use crate::metrics::SPOOL_SEGMENTS_SET_ASIDE;

/// What becomes of a segment after an attempt to drain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// All of it was drained.
    Delete,
    /// A part of it is damaged: an operator gets it.
    SetAside,
    /// It could not be read.
    TryAgain,
    /// A part of it needs another version of ingest: the next run tries again.
    Leave,
}

/// Whether a segment is gone and its folder is not: somebody has deleted it.
pub(super) fn is_gone<D: Disk>(disk: &D, path: &Path) -> bool {
    let is_there = |path: &Path| disk.measure(path).map(drop);
    let gone = is_there(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    gone && is_there(&path.with_file_name(LOCK)).is_ok()
}

pub(super) fn delete<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Moves a segment to the folder of damaged ones, where an operator finds it.
pub(super) fn set_aside<D: Disk>(disk: &D, directory: &Path, segment: &Path) -> io::Result<()> {
    let damaged = directory.join(DAMAGED);
    create_folder(disk, &damaged)?;
    let name = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let name = format!("{}-{}", name(segment.parent()), name(Some(segment)));
    let mut aside = damaged.join(&name);
    // The name may be taken: a folder that was removed and made again counts from 0. No other process has
    // segments of this folder.
    for n in 1_u64.. {
        match disk.measure(&aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error),
            Ok(_) => aside = damaged.join(format!("{name}.{n}")),
        }
    }
    disk.rename(segment, &aside)?;
    SPOOL_SEGMENTS_SET_ASIDE.increment(1);
    tracing::error!(
        segment = %segment.display(),
        file = %aside.display(),
        "a segment of the spool had unreadable parts; it is kept under another name"
    );
    Ok(())
}
