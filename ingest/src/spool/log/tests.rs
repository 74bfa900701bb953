use std::fs;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use messages::ObjectId;
use tempfile::TempDir;

use super::*;
use crate::spool::disk::{HostDisk, LOCK};
use crate::spool::drain::parse;
use crate::spool::record::{SpooledCallback, frame};
use crate::spool::survey::survey;

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
    log.take_up(survey);
}

fn append(log: &mut Log<HostDisk>, ids: impl IntoIterator<Item = i64>) {
    for id in ids {
        log.append(&record(id)).unwrap();
    }
}

/// What can be drained `after` now.
fn drained_after(log: &mut Log<HostDisk>, after: Duration) -> Vec<i64> {
    let (now, mut ids) = (Instant::now() + after, Vec::new());
    while let Some(segment) = log.seal_oldest(now) {
        let removal = match HostDisk.read(segment.path()) {
            Ok(bytes) => {
                let content = parse(&segment, bytes);
                let callbacks = content.callbacks.into_iter();
                ids.extend(callbacks.flat_map(|(it, _)| it.object_ids).map(|id| id.0));
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
    let segment = log.seal_oldest(Instant::now()).unwrap();
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
    let segment = log.seal_oldest(Instant::now()).unwrap();
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
        log.seal_oldest(Instant::now()).unwrap().bytes,
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
