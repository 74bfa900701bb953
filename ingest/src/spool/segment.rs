//! One file of the spool. See the module `spool` for its format.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::disk::{Disk, Measure};
use super::removal::Removal;

const EXTENSION: &str = "segment";
/// The extension that earlier versions gave to a segment that they set aside in its folder.
const DAMAGED: &str = "damaged";

/// A file of records.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    path: PathBuf,
    pub(super) bytes: u64,
    /// When it was created, and so when its first callback was accepted.
    pub(super) since: SystemTime,
    /// What is known of its end.
    pub(super) end: End,
    /// Whether its folder was adopted.
    pub(super) adopted: bool,
    /// What is to become of it: it was drained, and could not be removed yet.
    pub(super) settled: Option<Removal>,
    turn: Turn,
    pause: Duration,
}

/// What is known of the end of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This run has written it. After its size there may be remains of a failed write.
    Known,
    /// An earlier run has written it and a later one: all of it was answered.
    Sealed,
    /// It was the last one of an earlier run, which may have been killed while it wrote.
    MayBeCutOff,
}

/// When a segment is to be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Now,
    At(Instant),
    NextRun,
}

impl Segment {
    pub(super) fn new(folder: &Path, number: u64) -> Self {
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

    pub(super) fn adopted(self) -> Self {
        Self {
            adopted: true,
            ..self
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_in(&self, folder: &Path) -> bool {
        self.path.parent() == Some(folder)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self.turn {
            Turn::Now => true,
            Turn::At(at) => at <= now,
            Turn::NextRun => false,
        }
    }

    /// Delays the next attempt to drain it, each time for twice as long.
    pub(super) fn postpone(&mut self, now: Instant) {
        const FIRST: Duration = Duration::from_secs(1);
        const LONGEST: Duration = Duration::from_mins(5);
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        self.turn = Turn::At(now + self.pause);
    }

    /// Leaves it to the next run.
    pub(super) fn leave(&mut self) {
        self.turn = Turn::NextRun;
    }
}

/// The numbers and paths of the segments in a folder, in the order of the numbers.
fn paths<D: Disk>(disk: &D, folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let paths = disk.list(folder)?.into_iter();
    let numbered = paths.filter(|path| has_extension(path, EXTENSION));
    let mut numbered: Vec<_> = numbered.map(|path| (number(&path), path)).collect();
    numbered.sort_unstable();
    Ok(numbered)
}

pub(super) fn next_number<D: Disk>(disk: &D, folder: &Path) -> io::Result<u64> {
    let paths = paths(disk, folder)?;
    Ok(paths.last().map_or(0, |(number, _)| number + 1))
}

/// The segments of earlier runs in a folder: those with numbers below `end`.
///
/// # Errors
/// The folder cannot be read. A segment that cannot be measured is listed nevertheless.
pub(super) fn segments<D: Disk>(disk: &D, folder: &Path, end: u64) -> io::Result<Vec<Segment>> {
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

/// Whether an earlier version set this segment aside.
pub(super) fn is_damaged(path: &Path) -> bool {
    has_extension(path, DAMAGED)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|kind| kind == extension)
}

fn number(path: &Path) -> u64 {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.and_then(|stem| stem.parse().ok()).unwrap_or(0)
}
