//! One file of the spool.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::spool::record::Records;

const EXTENSION: &str = "segment";
const DAMAGED: &str = "damaged";

/// A file of records.
#[derive(Clone, Debug)]
pub struct Segment {
    path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many callbacks it holds.
    pub callbacks: u64,
    /// When the first of them was accepted.
    pub oldest: SystemTime,
}

/// What becomes of a drained segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// All of it was drained.
    Delete,
    /// A part of it is damaged: it stays beside the segments, for an operator.
    SetAside,
    /// It, or a part of it, could not be read for now: the next run tries again.
    Leave,
}

impl Segment {
    /// A new one, which is empty.
    #[must_use]
    pub fn new(folder: &Path, number: u64) -> Self {
        Self {
            path: folder.join(format!("{number:020}.{EXTENSION}")),
            bytes: 0,
            callbacks: 0,
            oldest: SystemTime::now(),
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes, to be read as [`Records`].
    ///
    /// # Errors
    /// The disk fails.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        std::fs::read(&self.path)
    }

    /// Removes it.
    ///
    /// # Errors
    /// The disk fails, and it stays.
    pub fn remove(&self, removal: Removal) -> io::Result<()> {
        match removal {
            Removal::Delete => std::fs::remove_file(&self.path),
            Removal::SetAside => set_aside(&self.path),
            Removal::Leave => Ok(()),
        }
    }
}

fn set_aside(segment: &Path) -> io::Result<()> {
    let aside = segment.with_extension(DAMAGED);
    std::fs::rename(segment, &aside)?;
    tracing::error!(
        file = %aside.display(),
        "a segment of the spool had unreadable parts; it is kept under this name"
    );
    Ok(())
}

/// The segments in a folder, and those that were set aside.
///
/// # Errors
/// It cannot be read.
pub fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_one = |kind: &std::ffi::OsStr| kind == EXTENSION || kind == DAMAGED;
        if path.extension().is_some_and(is_one) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Whether a segment was set aside.
#[must_use]
pub fn is_aside(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == DAMAGED)
}

/// Its place in the order of all segments.
#[must_use]
pub fn number(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.and_then(|stem| stem.parse().ok()).unwrap_or(0)
}

/// Takes up a segment of an earlier run, and says what of it cannot be read. `None` if that is all of it.
///
/// # Errors
/// The disk fails.
pub fn recover(path: PathBuf) -> io::Result<Option<Segment>> {
    let content = std::fs::read(&path)?;
    let records = Records::read(&content);
    if records.torn_tail > 0 {
        tracing::warn!(
            segment = %path.display(),
            bytes = records.torn_tail,
            kept = records.readable.len(),
            "the spool ends in a write that was cut off before its callback was answered; it is dropped"
        );
    }
    if records.damaged > 0 {
        tracing::error!(
            segment = %path.display(),
            bytes = records.damaged,
            kept = records.readable.len(),
            "the spool is damaged: callbacks in these bytes cannot be read"
        );
    }
    let Some(first) = records.readable.first() else {
        if content.is_empty() {
            std::fs::remove_file(&path)?;
        } else {
            set_aside(&path)?;
        }
        return Ok(None);
    };
    let (oldest, callbacks) = (first.accepted_at, records.readable.len() as u64);
    Ok(Some(Segment {
        bytes: content.len() as u64,
        path,
        callbacks,
        oldest,
    }))
}
