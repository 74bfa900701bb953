//! The files of the spool: segments that are appended to, and removed whole once they are drained.

use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use crate::metrics::SPOOL_SEGMENTS_SET_ASIDE;
use crate::spool::disk::{Disk, LOCK};
use crate::spool::folders::{Claim, Claimed, Size, claim, next_number, remove_empty, set_aside};
use crate::spool::segment::{Removal, Segment};

/// From this size on a segment gets no more records. After a kill -9 at most one drained segment is
/// published again.
const SEGMENT_SIZE: u64 = 1 << 20;

/// The segment that is appended to.
struct Active<D: Disk> {
    file: D::File,
    segment: Segment,
}

/// The folder of the segments that are appended to.
struct Own<D: Disk> {
    claim: Claim<D>,
    /// Whether the segments of earlier runs, which have numbers below this one, are yet to be found.
    unlisted: Option<u64>,
}

/// What is in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// What is in the folder that is appended to.
    pub own: Size,
    /// What is in folders that were adopted from others.
    pub adopted: Size,
    /// When the oldest of it was accepted.
    pub oldest: Option<SystemTime>,
}

impl Depth {
    /// Size of all that waits.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.own.bytes + self.adopted.bytes
    }

    /// How many segments wait.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.own.segments + self.adopted.segments
    }

    /// The part that a segment belongs to.
    fn part(&mut self, segment: &Segment) -> &mut Size {
        if segment.adopted {
            &mut self.adopted
        } else {
            &mut self.own
        }
    }
}

/// The segments on the disk.
pub struct Log<D: Disk> {
    disk: D,
    directory: PathBuf,
    own: Option<Own<D>>,
    adopted: Vec<Claim<D>>,
    waiting: VecDeque<Segment>,
    active: Option<Active<D>>,
    /// No segment has had it, in whichever folder.
    next_number: u64,
    depth: Depth,
    segment_size: u64,
}

impl<D: Disk> Log<D> {
    /// A log below `directory`, which is not touched until there is something to do.
    #[must_use]
    pub fn new(disk: D, directory: PathBuf) -> Self {
        Self::with_segment_size(disk, directory, SEGMENT_SIZE)
    }

    pub(super) fn with_segment_size(disk: D, directory: PathBuf, segment_size: u64) -> Self {
        Self {
            disk,
            directory,
            own: None,
            adopted: Vec::new(),
            waiting: VecDeque::new(),
            active: None,
            next_number: 0,
            depth: Depth::default(),
            segment_size,
        }
    }

    /// What is in the spool.
    #[must_use]
    pub fn depth(&self) -> Depth {
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
    /// The disk is full or fails. What was written of the records is taken back, or is read as damage
    /// later; the segment gets no more.
    pub fn append(&mut self, records: &[u8]) -> io::Result<()> {
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

    /// Writes something that nobody will miss.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn check(&mut self) -> io::Result<()> {
        let folder = self.own()?.claim.folder.clone();
        let probed = self.disk.probe(&folder);
        self.note_folder(probed)
    }

    /// The segment that is drained next, if one can be for now; further records go to another one.
    pub fn oldest(&mut self, now: Instant) -> Option<Segment> {
        if let Some(due) = self.waiting.iter().find(|segment| segment.is_due(now)) {
            return Some(due.clone());
        }
        let active = self.active.take()?;
        self.waiting.push_back(active.segment.clone());
        Some(active.segment)
    }

    /// Does with a segment that [`Log::oldest`] gave what is to be done after it was drained, or was
    /// not.
    pub fn settle(&mut self, path: &Path, removal: Removal, now: Instant) {
        let Some(at) = self.waiting.iter().position(|it| it.path() == path) else {
            return;
        };
        let segment = &mut self.waiting[at];
        let taken = match removal {
            Removal::Delete => delete(&self.disk, path),
            Removal::SetAside => put_aside(&self.disk, &self.directory, path),
            Removal::TryAgain if !is_gone(&self.disk, path) => return segment.postpone(now),
            Removal::TryAgain => Ok(()),
            Removal::Leave => return segment.leave(),
        };
        if let Err(error) = taken {
            tracing::error!(%error, "a drained segment of the spool was not removed; it is tried again");
            segment.settled = Some(removal);
            segment.postpone(now);
            return;
        }
        if let Some(segment) = self.waiting.remove(at) {
            self.depth.part(&segment).subtract(segment.bytes);
        }
    }

    /// What it has claimed, for a [`survey`](crate::spool::folders::survey).
    #[must_use]
    pub fn claimed(&self) -> Claimed {
        let own = self.own.iter();
        let unlisted = own.clone().find_map(|own| {
            let number = own.unlisted?;
            Some((own.claim.folder.clone(), number))
        });
        let claims = own.map(|own| &own.claim).chain(&self.adopted);
        Claimed {
            folders: claims.map(|claim| claim.folder.clone()).collect(),
            unlisted,
        }
    }

    /// Takes up what a survey found, and removes folders that were adopted and are drained.
    pub fn take_up(
        &mut self,
        listed: Option<Vec<Segment>>,
        adopted: Vec<(Claim<D>, Vec<Segment>)>,
    ) {
        if let (Some(_), Some(own)) = (&listed, &mut self.own) {
            own.unlisted = None;
        }
        let mut found = listed.unwrap_or_default();
        for (claim, segments) in adopted {
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
        // A folder that was gone for a while is found again.
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

    fn own(&mut self) -> io::Result<&mut Own<D>> {
        let own = match self.own.take() {
            Some(own) => own,
            None => self.claim()?,
        };
        Ok(self.own.insert(own))
    }

    fn claim(&mut self) -> io::Result<Own<D>> {
        let claim = claim(&self.disk, &self.directory)?;
        let end = next_number(&self.disk, &claim.folder)?;
        self.next_number = self.next_number.max(end);
        Ok(Own {
            claim,
            unlisted: Some(end),
        })
    }

    fn create(&mut self) -> io::Result<Active<D>> {
        let folder = self.own()?.claim.folder.clone();
        let segment = Segment::new(&folder, self.next_number);
        // Whether or not it succeeds: what is there then is not known.
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

    /// Notes how something in the own folder went. If that is gone, another one is claimed next time.
    fn note_folder<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                self.own = None;
            }
        })
    }

    /// After a failed write nothing is known of what the disk will keep of it: the segment ends before.
    fn abandon(&mut self, active: Active<D>) {
        let Active { file, segment } = active;
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

/// Whether a segment is gone and its folder is not: somebody has deleted it.
fn is_gone<D: Disk>(disk: &D, path: &Path) -> bool {
    let is_there = |path: &Path| disk.measure(path).map(drop);
    let gone = is_there(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    gone && is_there(&path.with_file_name(LOCK)).is_ok()
}

fn delete<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn put_aside<D: Disk>(disk: &D, directory: &Path, path: &Path) -> io::Result<()> {
    let file = set_aside(disk, directory, path)?;
    SPOOL_SEGMENTS_SET_ASIDE.increment(1);
    tracing::error!(
        segment = %path.display(),
        file = %file.display(),
        "a segment of the spool had unreadable parts; it is kept under another name"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
