//! The segments on the disk: appended to, and removed whole once they are drained.

use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::claim::{Claim, claim, remove_empty};
use super::depth::Depth;
use super::disk::Disk;
use super::removal::{Removal, delete, is_gone, set_aside};
use super::segment::{Segment, next_number};
use super::survey::{ClaimedFolders, Survey};

/// No more records from this size on. After a kill -9, at most one drained segment is published again.
const SEGMENT_SIZE: u64 = 1 << 20;

struct Active<D: Disk> {
    file: D::File,
    segment: Segment,
}

/// The folder of the segments that are appended to.
struct OwnFolder<D: Disk> {
    claim: Claim<D>,
    /// The segments of earlier runs, which have numbers below this one, have not been listed yet.
    unlisted: Option<u64>,
}

pub(super) struct Log<D: Disk> {
    disk: D,
    directory: PathBuf,
    own: Option<OwnFolder<D>>,
    adopted: Vec<Claim<D>>,
    waiting: VecDeque<Segment>,
    active: Option<Active<D>>,
    /// Higher than the number of any segment so far, in whichever folder.
    next_number: u64,
    depth: Depth,
    pub(super) segment_size: u64,
}

impl<D: Disk> Log<D> {
    /// A log below `directory`, which is not touched until the first write or check.
    pub(super) fn new(disk: D, directory: PathBuf) -> Self {
        Self {
            disk,
            directory,
            own: None,
            adopted: Vec::new(),
            waiting: VecDeque::new(),
            active: None,
            next_number: 0,
            depth: Depth::default(),
            segment_size: SEGMENT_SIZE,
        }
    }

    pub(super) fn depth(&self) -> Depth {
        let active = self.active.as_ref().map(|active| &active.segment);
        let oldest = self.waiting.front().or(active);
        Depth {
            oldest: oldest.map(|segment| segment.since),
            ..self.depth
        }
    }

    /// Appends records, and returns when they are on the disk.
    ///
    /// # Errors
    /// The disk is full or fails. The part of the records that was written is cut off again, or is read as
    /// damage later. The segment gets no more records.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.create()?,
        };
        let appended = self.disk.append(&mut active.file, records);
        let written = appended.and_then(|()| self.disk.sync(&active.file));
        if let Err(error) = written {
            self.abandon(active);
            return Err(error);
        }
        let bytes = records.len() as u64;
        if active.segment.bytes == 0 {
            self.depth.own.segments += 1;
        }
        self.depth.own.bytes += bytes;
        active.segment.bytes += bytes;
        if active.segment.bytes < self.segment_size {
            self.active = Some(active);
        } else {
            self.waiting.push_back(active.segment);
        }
        Ok(())
    }

    /// Finds out whether the disk can be written.
    pub(super) fn check(&mut self) -> io::Result<()> {
        let folder = self.own_folder()?;
        let probed = self.disk.probe(&folder);
        self.note_folder(probed)
    }

    /// Seals the oldest segment that is due to be drained: further records go to another one.
    pub(super) fn seal_oldest(&mut self, now: Instant) -> Option<Segment> {
        if let Some(due) = self.waiting.iter().find(|segment| segment.is_due(now)) {
            return Some(due.clone());
        }
        let active = self.active.take()?;
        self.waiting.push_back(active.segment.clone());
        Some(active.segment)
    }

    /// Removes a drained segment, or delays it, as `removal` says.
    pub(super) fn settle(&mut self, path: &Path, removal: Removal, now: Instant) {
        let Some(at) = self.waiting.iter().position(|it| it.path() == path) else {
            return;
        };
        let segment = &mut self.waiting[at];
        let removed = match removal {
            Removal::Delete => delete(&self.disk, path),
            Removal::SetAside => set_aside(&self.disk, &self.directory, path),
            Removal::TryAgain if !is_gone(&self.disk, path) => return segment.postpone(now),
            Removal::TryAgain => Ok(()),
            Removal::Leave => return segment.leave(),
        };
        if let Err(error) = removed {
            tracing::error!(%error, "a drained segment of the spool was not removed; it is tried again");
            segment.settled = Some(removal);
            segment.postpone(now);
            return;
        }
        if let Some(segment) = self.waiting.remove(at) {
            self.depth.part(&segment).subtract(segment.bytes);
        }
    }

    pub(super) fn claimed(&self) -> ClaimedFolders {
        let own = self.own.as_ref();
        let unlisted = own.and_then(|own| Some((own.claim.folder.clone(), own.unlisted?)));
        let claims = own.map(|own| &own.claim).into_iter().chain(&self.adopted);
        ClaimedFolders {
            folders: claims.map(|claim| claim.folder.clone()).collect(),
            unlisted,
        }
    }

    /// Takes up what a survey found, and removes folders that were adopted and are drained.
    pub(super) fn take_up(&mut self, survey: Survey<D>) {
        if let (Some(_), Some(own)) = (&survey.listed, &mut self.own) {
            own.unlisted = None;
        }
        let mut found = survey.listed.unwrap_or_default();
        for (claim, segments) in survey.adopted {
            tracing::info!(
                folder = %claim.folder.display(),
                segments = segments.len(),
                "a folder of the spool was left by another process, and is adopted"
            );
            self.adopted.push(claim);
            found.extend(segments.into_iter().map(Segment::adopted));
        }
        self.add(found);
        self.release();
    }

    fn add(&mut self, found: Vec<Segment>) {
        if found.is_empty() {
            return;
        }
        // A folder that disappears for a while is found again, with segments that are known.
        let known: HashSet<PathBuf> = self.waiting.iter().map(|it| it.path().to_owned()).collect();
        for segment in found.into_iter().filter(|it| !known.contains(it.path())) {
            self.depth.part(&segment).add(segment.bytes);
            self.waiting.push_back(segment);
        }
        let waiting = self.waiting.make_contiguous();
        waiting.sort_by(|a, b| (a.since, a.path()).cmp(&(b.since, b.path())));
    }

    fn release(&mut self) {
        let is_drained = |claim: &mut Claim<D>| {
            let mut waiting = self.waiting.iter();
            !waiting.any(|segment| segment.is_in(&claim.folder))
        };
        for drained in self.adopted.extract_if(.., is_drained) {
            remove_empty(&self.disk, drained);
        }
    }

    /// The own folder, which is claimed if there is none yet.
    fn own_folder(&mut self) -> io::Result<PathBuf> {
        if let Some(own) = &self.own {
            return Ok(own.claim.folder.clone());
        }
        let claim = claim(&self.disk, &self.directory)?;
        let folder = claim.folder.clone();
        let end = next_number(&self.disk, &folder)?;
        self.next_number = self.next_number.max(end);
        self.own = Some(OwnFolder {
            claim,
            unlisted: Some(end),
        });
        Ok(folder)
    }

    fn create(&mut self) -> io::Result<Active<D>> {
        let folder = self.own_folder()?;
        let segment = Segment::new(&folder, self.next_number);
        // Even if this fails: the file may exist then.
        self.next_number += 1;
        let created = self.disk.create(segment.path());
        let file = self.note_folder(created)?;
        let active = Active { file, segment };
        match self.disk.sync_folder(&folder) {
            Ok(()) => Ok(active),
            Err(error) => {
                self.abandon(active);
                Err(error)
            }
        }
    }

    /// Notes that the own folder is gone, if the error says so. Another one is claimed next time.
    fn note_folder<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                self.own = None;
            }
        })
    }

    /// Ends a segment before a write that failed: nobody knows how much of it the disk keeps.
    fn abandon(&mut self, Active { file, segment }: Active<D>) {
        let result = if segment.bytes == 0 {
            self.disk.remove(segment.path())
        } else {
            let cut = self.disk.cut(&file, segment.bytes);
            self.waiting.push_back(segment);
            cut
        };
        if let Err(error) = result {
            tracing::debug!(%error, "what was cut off stays until the segment is drained");
        }
    }
}

#[cfg(test)]
mod tests;
