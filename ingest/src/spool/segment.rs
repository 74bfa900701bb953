//! One file of the spool.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::spool::disk::{Disk, Measure};

const EXTENSION: &str = "segment";
/// As versions called a segment that they set aside, in the folder where it was.
const DAMAGED: &str = "damaged";

/// A file of records.
#[derive(Clone, Debug)]
pub struct Segment {
    path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was created, and so when its first callback was accepted.
    pub since: SystemTime,
    /// What is known of its end.
    pub end: End,
    /// Whether it lies in a folder that was adopted.
    pub adopted: bool,
    /// What is to become of it, if that is known and was not possible yet.
    pub settled: Option<Removal>,
    turn: Turn,
    pause: Duration,
}

/// What is known of the end of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This run has written it: behind its size there may be what a failed write left.
    Known,
    /// An earlier run has written it, and another one after it: it ends as it was answered.
    Sealed,
    /// It was the last one that its process wrote, perhaps while it was killed.
    MayBeCutOff,
}

/// When a segment is to be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Now,
    At(Instant),
    NextRun,
}

/// What becomes of a segment that was to be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// All of it was drained.
    Delete,
    /// A part of it is damaged: it is kept for an operator.
    SetAside,
    /// It could not be read for now.
    TryAgain,
    /// A part of it is for another version of ingest: the next run tries again.
    Leave,
}

impl Segment {
    /// A new one, which is empty.
    #[must_use]
    pub fn new(folder: &Path, number: u64) -> Self {
        let path = folder.join(format!("{number:020}.{EXTENSION}"));
        Self::at(path, 0, SystemTime::now(), End::Known)
    }

    fn at(path: PathBuf, bytes: u64, since: SystemTime, end: End) -> Self {
        Self {
            path,
            bytes,
            since,
            end,
            adopted: false,
            settled: None,
            turn: Turn::Now,
            pause: Duration::ZERO,
        }
    }

    /// The same in a folder that was adopted.
    #[must_use]
    pub fn adopted(self) -> Self {
        Self {
            adopted: true,
            ..self
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it lies in `folder`.
    #[must_use]
    pub fn is_in(&self, folder: &Path) -> bool {
        self.path.parent() == Some(folder)
    }

    /// Whether it is to be drained now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        match self.turn {
            Turn::Now => true,
            Turn::At(at) => at <= now,
            Turn::NextRun => false,
        }
    }

    /// Its turn comes later, and each time twice as much later.
    pub fn postpone(&mut self, now: Instant) {
        const FIRST: Duration = Duration::from_secs(1);
        const LONGEST: Duration = Duration::from_mins(5);
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        self.turn = Turn::At(now + self.pause);
    }

    /// Its turn comes when ingest is started again.
    pub fn leave(&mut self) {
        self.turn = Turn::NextRun;
    }
}

/// The paths of the segments in a folder and their numbers, in the order of these.
///
/// # Errors
/// It cannot be read.
pub fn paths<D: Disk>(disk: &D, folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let paths = disk.list(folder)?.into_iter();
    let numbered = paths.filter(|path| has_extension(path, EXTENSION));
    let mut numbered: Vec<_> = numbered.map(|path| (number(&path), path)).collect();
    numbered.sort_unstable();
    Ok(numbered)
}

/// The segments of earlier runs in a folder: those with numbers below `end`.
///
/// # Errors
/// The folder cannot be read. A segment of which nothing can be learned is found nevertheless.
pub fn segments<D: Disk>(disk: &D, folder: &Path, end: u64) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for (_, path) in paths(disk, folder)?
        .into_iter()
        .filter(|(number, _)| *number < end)
    {
        let Measure { bytes, since } = disk.measure(&path).unwrap_or(Measure {
            bytes: 0,
            since: SystemTime::now(),
        });
        segments.push(Segment::at(path, bytes, since, End::Sealed));
    }
    if let Some(last) = segments.last_mut() {
        last.end = End::MayBeCutOff;
    }
    Ok(segments)
}

/// Whether earlier versions set a segment aside under this name.
#[must_use]
pub fn is_damaged(path: &Path) -> bool {
    has_extension(path, DAMAGED)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|kind| kind == extension)
}

fn number(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.and_then(|stem| stem.parse().ok()).unwrap_or(0)
}
