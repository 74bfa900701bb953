//! The files of the spool: segments that are appended to, and removed whole once they are drained.

use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

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
    metrics::counter!("spool_segments_set_aside_total").increment(1);
    tracing::error!(
        segment = %path.display(),
        file = %file.display(),
        "a segment of the spool had unreadable parts; it is kept under another name"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::{Duration, UNIX_EPOCH};

    use shared::messages::ObjectId;
    use tempfile::TempDir;

    use super::*;
    use crate::spool::disk::HostDisk;
    use crate::spool::drain::parse;
    use crate::spool::folders::survey;
    use crate::spool::record::{SpooledCallback, frame};

    fn spooled(object_ids: Vec<ObjectId>) -> Vec<u8> {
        let callback = SpooledCallback {
            object_ids,
            traceparent: None,
        };
        frame(&callback, UNIX_EPOCH).unwrap()
    }

    fn record(id: i64) -> Vec<u8> {
        spooled(vec![ObjectId(id)])
    }

    fn open(directory: &TempDir) -> Log<HostDisk> {
        Log::new(HostDisk, directory.path().to_owned())
    }

    /// A log that has found what earlier runs left.
    fn reopen(directory: &TempDir) -> Log<HostDisk> {
        let mut log = open(directory);
        log.check().unwrap();
        search(&mut log);
        log
    }

    fn search(log: &mut Log<HostDisk>) {
        let survey = survey(&HostDisk, &log.directory, &log.claimed()).unwrap();
        log.take_up(survey.listed, survey.adopted);
    }

    fn append(log: &mut Log<HostDisk>, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
            log.append(&record(id)).unwrap();
        }
    }

    /// What can be drained `after` now.
    fn drained_after(log: &mut Log<HostDisk>, after: Duration) -> Vec<i64> {
        let (now, mut ids) = (Instant::now() + after, Vec::new());
        while let Some(segment) = log.oldest(now) {
            let removal = match HostDisk.read(segment.path()) {
                Ok(bytes) => {
                    let content = parse(&segment, bytes);
                    let callbacks = content.callbacks.into_iter();
                    ids.extend(callbacks.flat_map(|it| it.object_ids).map(|id| id.0));
                    content.removal
                }
                Err(_) => Removal::TryAgain,
            };
            log.settle(segment.path(), removal, now);
        }
        ids
    }

    fn drained(log: &mut Log<HostDisk>) -> Vec<i64> {
        drained_after(log, Duration::ZERO)
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files = HostDisk.list(folder).unwrap();
        files.retain(|file| !file.ends_with(LOCK));
        files.sort();
        files
    }

    fn last_segment(directory: &TempDir) -> PathBuf {
        files(&directory.path().join("0")).pop().unwrap()
    }

    fn damaged(directory: &TempDir) -> Vec<PathBuf> {
        files(&directory.path().join("damaged"))
    }

    /// Changes the byte that is so far from the end of a file.
    fn rot(path: &Path, from_end: usize, bits: u8) {
        let mut content = fs::read(path).unwrap();
        let at = content.len() - from_end;
        content[at] ^= bits;
        fs::write(path, content).unwrap();
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_in_order() {
        let directory = TempDir::new().unwrap();
        append(&mut open(&directory), 0..3);
        let mut log = reopen(&directory);
        append(&mut log, 3..5);
        assert_eq!(log.depth().own.segments, 2);
        assert_eq!(drained(&mut log), [0, 1, 2, 3, 4]);
        assert_eq!(log.depth(), Depth::default());
        assert!(drained(&mut reopen(&directory)).is_empty());
    }

    #[test]
    fn what_is_appended_before_the_earlier_runs_are_found_is_counted_once() {
        let directory = TempDir::new().unwrap();
        append(&mut open(&directory), 0..3);
        let mut log = open(&directory);
        append(&mut log, 3..4);
        search(&mut log);
        assert_eq!(log.depth().own.segments, 2);
        assert_eq!(drained(&mut log), [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_appended_while_a_segment_is_drained_goes_to_another() {
        let directory = TempDir::new().unwrap();
        let mut log = open(&directory);
        append(&mut log, 0..2);
        let segment = log.oldest(Instant::now()).unwrap();
        append(&mut log, 2..3);
        log.settle(segment.path(), Removal::Delete, Instant::now());
        assert_eq!(drained(&mut log), [2]);
    }

    #[test]
    fn a_cut_off_write_costs_only_itself() {
        let directory = TempDir::new().unwrap();
        append(&mut open(&directory), 0..3);
        let mut options = fs::OpenOptions::new();
        let mut file = options.append(true).open(last_segment(&directory)).unwrap();
        file.write_all(&record(3)[..20]).unwrap();
        let mut log = reopen(&directory);
        append(&mut log, 4..5);
        assert_eq!(drained(&mut log), [0, 1, 2, 4]);
        assert!(!directory.path().join("damaged").exists());
    }

    #[test]
    fn what_rotted_is_set_aside_wherever_it_is() {
        let length = record(0).len();
        for (from_end, bits) in (1..=2 * length).flat_map(|at| [(at, 1), (at, 0x80)]) {
            let directory = TempDir::new().unwrap();
            append(&mut open(&directory), 0..2);
            rot(&last_segment(&directory), from_end, bits);
            let mut log = reopen(&directory);
            let kept = i64::from(from_end > length);
            assert_eq!(drained(&mut log), [kept], "{bits} at {from_end}");
            assert_eq!(damaged(&directory).len(), 1, "{bits} at {from_end}");
            assert_eq!(log.depth(), Depth::default());
        }
    }

    #[test]
    fn an_answered_segment_that_got_shorter_is_set_aside() {
        let directory = TempDir::new().unwrap();
        let mut log = open(&directory);
        append(&mut log, 0..2);
        let segment = log.oldest(Instant::now()).unwrap();
        append(&mut log, 2..3);
        let shorter = &fs::read(segment.path()).unwrap()[..record(0).len()];
        fs::write(segment.path(), shorter).unwrap();
        assert_eq!(drained(&mut log), [0, 2]);
        assert_eq!(damaged(&directory).len(), 1);
    }

    #[test]
    fn what_is_set_aside_is_never_overwritten() {
        let directory = TempDir::new().unwrap();
        for _ in 0..3 {
            append(&mut open(&directory), 0..1);
            rot(&last_segment(&directory), 1, 1);
            assert!(drained(&mut reopen(&directory)).is_empty());
        }
        assert_eq!(damaged(&directory).len(), 3);
    }

    #[test]
    fn a_segment_that_cannot_be_read_waits_and_holds_up_no_other() {
        let directory = TempDir::new().unwrap();
        append(&mut open(&directory), 0..1);
        let (segment, elsewhere) = (last_segment(&directory), directory.path().join("moved"));
        fs::rename(&segment, &elsewhere).unwrap();
        fs::create_dir(&segment).unwrap();
        let mut log = reopen(&directory);
        append(&mut log, 1..2);
        assert_eq!(drained(&mut log), [1]);
        assert_eq!(log.depth().own.segments, 1);
        fs::remove_dir(&segment).unwrap();
        fs::rename(&elsewhere, &segment).unwrap();
        assert!(drained(&mut log).is_empty());
        assert_eq!(drained_after(&mut log, Duration::from_mins(1)), [0]);
        assert_eq!(log.depth(), Depth::default());
    }

    #[test]
    fn a_segment_that_somebody_deleted_is_not_waited_for() {
        let directory = TempDir::new().unwrap();
        append(&mut open(&directory), 0..1);
        let mut log = reopen(&directory);
        fs::remove_file(last_segment(&directory)).unwrap();
        assert!(drained(&mut log).is_empty());
        assert_eq!(log.depth(), Depth::default());
    }

    #[test]
    fn a_folder_that_is_gone_for_a_while_is_waited_for() {
        let directory = TempDir::new().unwrap();
        append(&mut open(&directory), 0..1);
        let mut log = reopen(&directory);
        let (folder, elsewhere) = (directory.path().join("0"), directory.path().join("moved"));
        fs::rename(&folder, &elsewhere).unwrap();
        assert!(log.check().is_err() && drained(&mut log).is_empty());
        fs::rename(&elsewhere, &folder).unwrap();
        append(&mut log, 1..2);
        search(&mut log);
        assert_eq!(log.depth().own.segments, 2);
        let mut ids = drained_after(&mut log, Duration::from_mins(1));
        ids.sort_unstable();
        assert_eq!(ids, [0, 1]);
    }

    #[test]
    fn what_another_process_left_is_adopted_once_it_is_gone() {
        let directory = TempDir::new().unwrap();
        let (mut first, mut second) = (open(&directory), open(&directory));
        append(&mut first, 0..1);
        append(&mut second, 1..2);
        for _ in 0..2 {
            search(&mut first);
        }
        assert_eq!(first.depth().adopted.segments, 0);
        drop(second);
        search(&mut first);
        assert_eq!(
            (first.depth().adopted.segments, drained(&mut first).len()),
            (1, 2)
        );
        search(&mut first);
        assert!(!directory.path().join("1").exists());
    }

    #[test]
    fn a_folder_behind_a_gap_is_found() {
        let directory = TempDir::new().unwrap();
        append(&mut open(&directory), 0..1);
        fs::rename(directory.path().join("0"), directory.path().join("300")).unwrap();
        fs::create_dir(directory.path().join("1")).unwrap();
        let mut log = reopen(&directory);
        search(&mut log);
        assert_eq!(drained(&mut log), [0]);
    }

    #[test]
    fn processes_that_restart_together_do_not_make_ever_more_folders() {
        let directory = TempDir::new().unwrap();
        for id in 0..300 {
            let mut logs = [open(&directory), open(&directory)];
            for log in &mut logs {
                log.append(&record(id)).unwrap();
                search(log);
            }
        }
        assert_eq!(files(directory.path()).len(), 2);
    }

    #[test]
    fn empty_folders_that_nobody_has_are_removed() {
        let directory = TempDir::new().unwrap();
        for number in 0..300 {
            fs::create_dir(directory.path().join(number.to_string())).unwrap();
        }
        search(&mut reopen(&directory));
        assert_eq!(files(directory.path()).len(), 1);
    }

    #[test]
    fn a_segment_ends_when_it_is_large() {
        let directory = TempDir::new().unwrap();
        let mut log = open(&directory);
        let large = spooled((0..200_000).map(ObjectId).collect());
        log.append(&large).unwrap();
        append(&mut log, 0..1);
        assert_eq!(
            log.oldest(Instant::now()).unwrap().bytes,
            large.len() as u64
        );
        assert_eq!(files(&directory.path().join("0")).len(), 2);
    }

    /// A file that takes no write: what a full disk does to one that is open already.
    #[test]
    fn after_a_failed_write_the_segment_ends_and_what_was_there_stays() {
        let directory = TempDir::new().unwrap();
        let mut log = open(&directory);
        append(&mut log, 0..2);
        let read_only = fs::File::open(last_segment(&directory)).unwrap();
        log.active.as_mut().unwrap().file = read_only;
        assert!(log.append(&record(2)).is_err());
        append(&mut log, 3..4);
        assert_eq!(drained(&mut log), [0, 1, 3]);
    }
}
