//! What was answered is found again after any crash: seeded runs of two processes on a simulated disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use messages::ObjectId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::Disk;
use super::drain::parse;
use super::log::Log;
use super::record::{SpooledCallback, frame};
use super::removal::Removal;
use super::simulation::{Place, SimulatedDisk};
use super::survey::survey;

const PROCESSES: usize = 2;
const STEPS: usize = 60;
/// Small, so that there are several.
const SEGMENT_SIZE: u64 = 200;

fn directory() -> PathBuf {
    Path::new("/spool").to_owned()
}

/// Two processes that share a directory, and what became of their callbacks.
struct World {
    disk: SimulatedDisk,
    random: StdRng,
    processes: [Option<Log<SimulatedDisk>>; PROCESSES],
    next_id: i64,
    /// What clients were told is safe.
    answered: BTreeSet<i64>,
    published: BTreeSet<i64>,
}

impl World {
    fn new(seed: u64, disabled: Option<Place>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let failing = [0.0, 0.02, 0.2][random.random_range(0..3)];
        Self {
            disk: SimulatedDisk::new(seed, failing, disabled),
            random,
            processes: [const { None }; PROCESSES],
            next_id: 0,
            answered: BTreeSet::new(),
            published: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        let process = self.random.random_range(0..PROCESSES);
        if self.processes[process].is_none() {
            self.start(process);
        }
        match self.random.random_range(0..100) {
            0..50 => self.append(process),
            50..65 => drop(self.drain(process)),
            65..80 => self.search(process),
            80..85 => drop(self.log(process).check()),
            85..95 => self.processes[process] = None,
            _ => self.cut_power(),
        }
    }

    fn start(&mut self, process: usize) {
        let mut log = Log::new(self.disk.clone(), directory());
        log.segment_size = SEGMENT_SIZE;
        self.processes[process] = Some(log);
    }

    fn log(&mut self, process: usize) -> &mut Log<SimulatedDisk> {
        self.processes[process].as_mut().unwrap()
    }

    fn append(&mut self, process: usize) {
        let count = self.random.random_range(1..4);
        let ids: Vec<i64> = (self.next_id..self.next_id + count).collect();
        self.next_id += count;
        let records: Vec<u8> = ids.iter().flat_map(|id| record(*id)).collect();
        if self.log(process).append(&records).is_ok() {
            self.answered.extend(ids);
        }
    }

    /// Drains one segment; tells whether there was one.
    fn drain(&mut self, process: usize) -> bool {
        // Late enough for whatever was postponed.
        let now = Instant::now() + Duration::from_hours(1);
        let Some(segment) = self.log(process).seal_oldest(now) else {
            return false;
        };
        let removal = match (segment.settled, self.disk.read(segment.path())) {
            (Some(removal), _) => removal,
            (None, Err(_)) => Removal::TryAgain,
            (None, Ok(bytes)) => {
                let content = parse(&segment, bytes);
                let ids = content
                    .callbacks
                    .into_iter()
                    .flat_map(|(it, _)| it.object_ids);
                self.published.extend(ids.map(|id| id.0));
                content.removal
            }
        };
        self.log(process).settle(segment.path(), removal, now);
        true
    }

    fn search(&mut self, process: usize) {
        let claimed = self.log(process).claimed();
        if let Ok(survey) = survey(&self.disk, &directory(), &claimed) {
            self.log(process).take_up(survey);
        }
    }

    fn cut_power(&mut self) {
        self.processes = [const { None }; PROCESSES];
        self.disk.cut_power();
    }

    /// A last power cut, and a run on a disk that is well again and drains everything.
    fn settle(&mut self) {
        self.cut_power();
        self.disk.set_failing(0.0);
        self.start(0);
        self.log(0).check().unwrap();
        for _ in 0..3 {
            self.search(0);
            while self.drain(0) {}
        }
    }

    /// What is wrong in the end.
    fn verdict(mut self) -> Result<(), String> {
        let lost: Vec<_> = self.answered.difference(&self.published).collect();
        if !lost.is_empty() {
            return Err(format!("lost: {lost:?}"));
        }
        if self.published.last().is_some_and(|id| *id >= self.next_id) {
            return Err("found what nobody sent".to_owned());
        }
        let left = self.log(0).depth();
        if left.segments() > 0 || left.bytes() > 0 {
            return Err(format!("not drained: {left:?}"));
        }
        let folders = self.disk.list(&directory()).unwrap();
        let others = folders.iter().filter(|folder| !folder.ends_with("damaged"));
        match others.count() {
            1 => Ok(()),
            _ => Err(format!("folders that nobody uses: {folders:?}")),
        }
    }
}

fn record(id: i64) -> Vec<u8> {
    let callback = SpooledCallback {
        object_ids: vec![ObjectId(id)],
        traceparent: None,
    };
    frame(&callback, std::time::UNIX_EPOCH).unwrap()
}

/// A run; returns the syncs that it asked for, too.
fn run(seed: u64, disabled: Option<Place>) -> (BTreeSet<Place>, Result<(), String>) {
    let mut world = World::new(seed, disabled);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    (world.disk.syncs(), world.verdict())
}

#[test]
fn every_callback_that_was_answered_is_found_after_any_crash() {
    for seed in 0..5_000 {
        let (_, verdict) = run(seed, None);
        assert_eq!(verdict, Ok(()), "seed {seed}");
    }
}

#[test]
fn each_sync_that_is_taken_away_loses_callbacks() {
    let syncs: BTreeSet<Place> = (0..200).flat_map(|seed| run(seed, None).0).collect();
    assert!(syncs.len() > 3, "{syncs:?}");
    for sync in syncs {
        let loses = |seed| {
            let (_, verdict) = run(seed, Some(sync));
            verdict.is_err_and(|error| error.starts_with("lost"))
        };
        let lost = (0..20_000).any(loses);
        assert!(lost, "nothing is lost without the sync at {sync:?}");
    }
}
