//! The files of the spool: segments that are appended to, and removed whole once they are drained.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::spool::folders::{Lock, claim, sync_entry};
use crate::spool::segment::{Removal, Segment, is_aside, number, recover, segments};

/// From this size on a segment gets no more records. After a kill -9 at most one drained segment is
/// published again.
const SEGMENT_SIZE: u64 = 1 << 20;

/// The segment that is appended to.
struct Active {
    file: File,
    segment: Segment,
}

/// What is in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Callbacks that wait.
    pub callbacks: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<SystemTime>,
    /// Callbacks that were drained since the start.
    pub drained: u64,
}

/// The segments on the disk.
pub struct Log {
    folder: PathBuf,
    /// Held for as long as the log is open; the first is that of `folder`.
    _locks: Vec<Lock>,
    sealed: VecDeque<Segment>,
    active: Option<Active>,
    next_number: u64,
    drained: u64,
}

impl Log {
    /// Claims the free folders below `directory`, and finds what is in them.
    ///
    /// # Errors
    /// The folder cannot be made, locked or read.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let (folders, locks) = claim(directory)?;
        let mut paths = Vec::new();
        for folder in &folders {
            paths.append(&mut segments(folder)?);
        }
        // Across folders too: the oldest first.
        paths.sort_by_key(|path| number(path));
        let next_number = paths.last().map_or(0, |path| number(path) + 1);
        let mut log = Self {
            folder: folders.into_iter().next().unwrap_or_default(),
            _locks: locks,
            sealed: VecDeque::new(),
            active: None,
            next_number,
            drained: 0,
        };
        for path in paths.into_iter().filter(|path| !is_aside(path)) {
            match recover(path) {
                Ok(segment) => log.sealed.extend(segment),
                // It must not keep callbacks from being accepted. The next run tries again.
                Err(error) => tracing::error!(%error, "a segment of the spool cannot be read"),
            }
        }
        Ok(log)
    }

    /// What is in the spool.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let active = self.active.as_ref().map(|active| &active.segment);
        let mut depth = Depth {
            drained: self.drained,
            ..Depth::default()
        };
        for segment in self.sealed.iter().chain(active) {
            depth.bytes += segment.bytes;
            depth.callbacks += segment.callbacks;
            depth.oldest.get_or_insert(segment.oldest);
        }
        depth
    }

    /// Appends `callbacks` records, and returns when they are on the disk.
    ///
    /// # Errors
    /// The disk is full or fails. What was written of the records is taken back, or is read as a
    /// cut-off write later; the segment gets no more.
    pub fn append(&mut self, records: &[u8], callbacks: u64) -> io::Result<()> {
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.create()?,
        };
        let written = active
            .file
            .write_all(records)
            .and_then(|()| active.file.sync_data());
        if let Err(error) = written {
            self.abandon(active);
            return Err(error);
        }
        active.segment.bytes += records.len() as u64;
        active.segment.callbacks += callbacks;
        if active.segment.bytes < SEGMENT_SIZE {
            self.active = Some(active);
        } else {
            self.sealed.push_back(active.segment);
        }
        Ok(())
    }

    /// Writes something that nobody will miss.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn check(&self) -> io::Result<()> {
        let path = self.folder.join("check");
        let mut file = File::create(&path)?;
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        std::fs::remove_file(path)
    }

    /// The segment that is drained next; further records go to another one.
    pub fn oldest(&mut self) -> Option<Segment> {
        if self.sealed.is_empty() {
            self.sealed
                .extend(self.active.take().map(|active| active.segment));
        }
        self.sealed.front().cloned()
    }

    /// Removes the segment that [`Log::oldest`] gave, once it is drained. A file that cannot be removed
    /// is drained again by the next run.
    pub fn remove_oldest(&mut self, removal: Removal) {
        let Some(segment) = self.sealed.pop_front() else {
            return;
        };
        self.drained += segment.callbacks;
        if let Err(error) = segment.remove(removal) {
            tracing::error!(%error, segment = %segment.path().display(), "a drained segment was not removed");
        }
    }

    fn create(&mut self) -> io::Result<Active> {
        let segment = Segment::new(&self.folder, self.next_number);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(segment.path())?;
        self.next_number += 1;
        sync_entry(segment.path())?;
        Ok(Active { file, segment })
    }

    /// After a failed write nothing is known of what the disk will keep of it: the segment ends before.
    fn abandon(&mut self, active: Active) {
        let Active { file, segment } = active;
        let result = if segment.callbacks == 0 {
            segment.remove(Removal::Delete)
        } else {
            let cut = file.set_len(segment.bytes);
            self.sealed.push_back(segment);
            cut
        };
        if let Err(error) = result {
            tracing::debug!(%error, "what was cut off stays until the segment is drained");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::UNIX_EPOCH;

    use shared::messages::ObjectId;
    use tempfile::TempDir;

    use super::*;
    use crate::spool::record::{Records, SpooledCallback, frame};

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

    fn append(log: &mut Log, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
            log.append(&record(id), 1).unwrap();
        }
    }

    fn drained(log: &mut Log) -> Vec<i64> {
        let mut ids = Vec::new();
        while let Some(segment) = log.oldest() {
            let content = segment.read().unwrap();
            for record in Records::read(&content).readable {
                ids.extend(
                    record
                        .callback()
                        .unwrap()
                        .object_ids
                        .into_iter()
                        .map(|id| id.0),
                );
            }
            log.remove_oldest(Removal::Delete);
        }
        ids
    }

    fn last_segment(directory: &TempDir) -> PathBuf {
        let mut paths = segments(&directory.path().join("0")).unwrap();
        paths.sort();
        paths.pop().unwrap()
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_in_order() {
        let directory = TempDir::new().unwrap();
        append(&mut Log::open(directory.path()).unwrap(), 0..3);
        let mut log = Log::open(directory.path()).unwrap();
        append(&mut log, 3..5);
        assert_eq!(log.depth().callbacks, 5);
        assert_eq!(drained(&mut log), [0, 1, 2, 3, 4]);
        assert_eq!((log.depth().bytes, log.depth().drained), (0, 5));
        assert!(drained(&mut Log::open(directory.path()).unwrap()).is_empty());
    }

    #[test]
    fn what_is_appended_while_a_segment_is_drained_goes_to_another() {
        let directory = TempDir::new().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        append(&mut log, 0..2);
        assert_eq!(log.oldest().unwrap().callbacks, 2);
        append(&mut log, 2..3);
        log.remove_oldest(Removal::Delete);
        assert_eq!(drained(&mut log), [2]);
    }

    #[test]
    fn a_cut_off_write_costs_only_itself() {
        let directory = TempDir::new().unwrap();
        append(&mut Log::open(directory.path()).unwrap(), 0..3);
        let mut file = OpenOptions::new()
            .append(true)
            .open(last_segment(&directory))
            .unwrap();
        file.write_all(&record(3)[..20]).unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        append(&mut log, 4..5);
        assert_eq!(drained(&mut log), [0, 1, 2, 4]);
    }

    #[test]
    fn a_segment_in_which_nothing_is_readable_is_kept_aside() {
        let directory = TempDir::new().unwrap();
        append(&mut Log::open(directory.path()).unwrap(), 0..1);
        let segment = last_segment(&directory);
        std::fs::write(&segment, &record(0)[..5]).unwrap();
        assert_eq!(Log::open(directory.path()).unwrap().depth().callbacks, 0);
        assert!(!segment.exists() && segment.with_extension("damaged").exists());
    }

    #[test]
    fn a_segment_with_unreadable_parts_is_kept_aside() {
        let directory = TempDir::new().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        append(&mut log, 0..1);
        let segment = log.oldest().unwrap();
        log.remove_oldest(Removal::SetAside);
        assert!(segment.path().with_extension("damaged").exists());
        assert!(drained(&mut log).is_empty());
    }

    #[test]
    fn what_is_kept_aside_is_never_overwritten() {
        let directory = TempDir::new().unwrap();
        for _ in 0..2 {
            let mut log = Log::open(directory.path()).unwrap();
            append(&mut log, 0..1);
            log.oldest();
            log.remove_oldest(Removal::SetAside);
        }
        assert_eq!(segments(&directory.path().join("0")).unwrap().len(), 2);
    }

    #[test]
    fn a_segment_that_cannot_be_read_keeps_no_other_from_being_drained() {
        let directory = TempDir::new().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        let unreadable = directory.path().join("0/00000000000000000000.segment");
        std::fs::create_dir(&unreadable).unwrap();
        append(&mut Log::open(directory.path()).unwrap(), 0..1);
        assert!(drained(&mut log).is_empty());
        drop(log);
        assert_eq!(drained(&mut Log::open(directory.path()).unwrap()), [0]);
        assert!(unreadable.exists());
    }

    #[test]
    fn processes_share_a_folder_and_take_up_what_another_left() {
        let directory = TempDir::new().unwrap();
        let mut first = Log::open(directory.path()).unwrap();
        let mut second = Log::open(directory.path()).unwrap();
        append(&mut first, 0..1);
        append(&mut second, 1..2);
        drop((first, second));
        assert_eq!(drained(&mut Log::open(directory.path()).unwrap()).len(), 2);
    }

    #[test]
    fn a_segment_ends_when_it_is_large() {
        let directory = TempDir::new().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        let large = spooled((0..200_000).map(ObjectId).collect());
        log.append(&large, 1).unwrap();
        append(&mut log, 0..1);
        assert_eq!(log.oldest().unwrap().callbacks, 1);
        assert_eq!(segments(&directory.path().join("0")).unwrap().len(), 2);
    }

    /// A file that takes no write: what a full disk does to one that is open already.
    #[test]
    fn after_a_failed_write_the_segment_ends_and_what_was_there_stays() {
        let directory = TempDir::new().unwrap();
        let mut log = Log::open(directory.path()).unwrap();
        append(&mut log, 0..2);
        let read_only = File::open(last_segment(&directory)).unwrap();
        log.active.as_mut().unwrap().file = read_only;
        assert!(log.append(&record(2), 1).is_err());
        append(&mut log, 3..4);
        assert_eq!(drained(&mut log), [0, 1, 3]);
    }
}
