//! A disk in memory that fails, and that forgets at a power cut what was not synced.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, LOCK, Measure};

/// Where a sync is in the code.
pub(super) type Place = (&'static str, u32);

/// What the disk loses or keeps as a whole of what was written to a file.
const SECTOR: usize = 64;

/// A disk. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: StdRng,
    /// By their number; the first one is the root.
    nodes: Vec<Node>,
    /// Changes to folders that a power cut may undo, each by itself.
    unsynced: Vec<Change>,
    locked: HashSet<usize>,
    /// Share of the requests that fail.
    failing: f64,
    /// A sync that does nothing.
    disabled: Option<Place>,
    syncs: BTreeSet<Place>,
}

#[derive(Debug)]
enum Node {
    Folder {
        entries: Entries,
        synced: Entries,
    },
    File {
        content: Vec<u8>,
        /// The content before it was cut off.
        longest: Vec<u8>,
        synced: Vec<u8>,
    },
}

type Entries = BTreeMap<OsString, usize>;

/// Folders, and what a name in them stands for from now on. All of it happens, or nothing.
type Change = Vec<(usize, OsString, Option<usize>)>;

fn error(kind: ErrorKind) -> io::Error {
    io::Error::new(kind, "simulated")
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64, failing: f64, disabled: Option<Place>) -> Self {
        let root = Node::folder();
        Self(Arc::new(Mutex::new(State {
            random: StdRng::seed_from_u64(seed),
            nodes: vec![root],
            unsynced: Vec::new(),
            locked: HashSet::new(),
            failing,
            disabled,
            syncs: BTreeSet::new(),
        })))
    }

    /// From now on so large a share of the requests fails.
    pub(super) fn set_failing(&self, failing: f64) {
        self.state().failing = failing;
    }

    /// Where the syncs are that were asked for.
    pub(super) fn syncs(&self) -> BTreeSet<Place> {
        self.state().syncs.clone()
    }

    /// Forgets what was not synced, or a part of it. Nobody may hold a lock.
    pub(super) fn cut_power(&self) {
        let mut state = self.state();
        let State {
            random,
            nodes,
            unsynced,
            ..
        } = &mut *state;
        for change in unsynced.drain(..).filter(|_| random.random()) {
            sync(nodes, change);
        }
        for node in nodes {
            node.forget(random);
        }
    }

    /// Lets every request wait until what is returned is dropped.
    pub(super) fn hang(&self) -> impl Drop + '_ {
        self.state()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Does it, or fails before or after that.
    fn request<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        let (failing, before) = (state.failing, state.random.random());
        let fails = state.random.random_bool(failing);
        if fails && before {
            return Err(error(ErrorKind::Other));
        }
        let done = work(&mut state);
        if fails && done.is_ok() {
            return Err(error(ErrorKind::Other));
        }
        done
    }
}

impl Node {
    fn folder() -> Self {
        Self::Folder {
            entries: Entries::new(),
            synced: Entries::new(),
        }
    }

    fn forget(&mut self, random: &mut StdRng) {
        match self {
            Self::Folder { entries, synced } => entries.clone_from(synced),
            Self::File {
                content,
                longest,
                synced,
            } => {
                let mut left = match random.random_range(0..3) {
                    0 => synced.clone(),
                    1 => content.clone(),
                    _ => longest.clone(),
                };
                let safe = synced.len().min(left.len());
                left.truncate(random.random_range(safe..=left.len()));
                for sector in left[safe..].chunks_mut(SECTOR) {
                    if random.random_bool(0.1) {
                        sector.fill(0);
                    }
                }
                *content = left.clone();
                *longest = left.clone();
                *synced = left;
            }
        }
    }
}

fn sync(nodes: &mut [Node], change: Change) {
    for (folder, name, to) in change {
        let Node::Folder { synced, .. } = &mut nodes[folder] else {
            continue;
        };
        set(synced, name, to);
    }
}

fn set(entries: &mut Entries, name: OsString, to: Option<usize>) {
    match to {
        Some(node) => entries.insert(name, node),
        None => entries.remove(&name),
    };
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        let names = path.strip_prefix("/").unwrap().iter();
        names.into_iter().try_fold(0, |node, name| {
            let node = self.entries(node)?.get(name);
            node.copied().ok_or_else(|| error(ErrorKind::NotFound))
        })
    }

    fn entries(&self, node: usize) -> io::Result<&Entries> {
        match &self.nodes[node] {
            Node::Folder { entries, .. } => Ok(entries),
            Node::File { .. } => Err(error(ErrorKind::NotADirectory)),
        }
    }

    /// The folder that a path leads to, and the name there.
    fn place(&self, path: &Path) -> io::Result<(usize, OsString)> {
        let name = path.file_name().map(OsStr::to_owned).unwrap();
        Ok((self.find(path.parent().unwrap())?, name))
    }

    fn change(&mut self, change: Change) {
        for (folder, name, to) in &change {
            if let Node::Folder { entries, .. } = &mut self.nodes[*folder] {
                set(entries, name.clone(), *to);
            }
        }
        self.unsynced.push(change);
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (folder, name) = self.place(path)?;
        if self.entries(folder)?.contains_key(&name) {
            return Err(error(ErrorKind::AlreadyExists));
        }
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.change(vec![(folder, name, Some(node))]);
        Ok(node)
    }

    fn create_file(&mut self, path: &Path) -> io::Result<usize> {
        let file = Node::File {
            content: Vec::new(),
            longest: Vec::new(),
            synced: Vec::new(),
        };
        self.create(path, file)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        let (folder, name) = self.place(path)?;
        self.change(vec![(folder, name, None)]);
        Ok(())
    }

    fn content(&mut self, node: usize) -> io::Result<&mut Vec<u8>> {
        match &mut self.nodes[node] {
            Node::File { content, .. } => Ok(content),
            Node::Folder { .. } => Err(error(ErrorKind::IsADirectory)),
        }
    }

    /// Whether a sync there does anything.
    fn syncs(&mut self, place: &'static Location<'static>) -> bool {
        let place = (place.file(), place.line());
        self.syncs.insert(place);
        self.disabled != Some(place)
    }
}

/// A claimed folder, by the number of its file.
#[derive(Debug)]
pub(super) struct SimulatedLock(SimulatedDisk, usize);

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.0.state().locked.remove(&self.1);
    }
}

impl Disk for SimulatedDisk {
    type File = usize;
    type Lock = SimulatedLock;

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.request(|state| state.create(folder, Node::folder()).map(drop))
    }

    #[track_caller]
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let place = Location::caller();
        self.request(|state| {
            let folder = state.find(folder)?;
            if !state.syncs(place) {
                return Ok(());
            }
            let concerns = |change: &mut Change| change.iter().any(|(node, ..)| *node == folder);
            let synced: Vec<Change> = state.unsynced.extract_if(.., concerns).collect();
            for change in synced {
                sync(&mut state.nodes, change);
            }
            Ok(())
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.request(|state| {
            let entries = state.entries(state.find(folder)?)?;
            Ok(entries.keys().map(|name| folder.join(name)).collect())
        })
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        self.request(|state| {
            if state.entries(state.find(folder)?)?.is_empty() {
                state.remove(folder)
            } else {
                Err(error(ErrorKind::DirectoryNotEmpty))
            }
        })
    }

    fn lock(&self, folder: &Path) -> io::Result<Option<SimulatedLock>> {
        let node = self.request(|state| {
            let path = folder.join(LOCK);
            match (state.find(&path), state.find(folder)) {
                (Ok(node), _) => Ok(Some(node)),
                (Err(_), Err(_)) => Ok(None),
                (Err(_), Ok(_)) => state.create_file(&path).map(Some),
            }
        });
        let claimed = |node: &usize| self.state().locked.insert(*node);
        let node = node?.filter(claimed);
        Ok(node.map(|node| SimulatedLock(self.clone(), node)))
    }

    fn create(&self, path: &Path) -> io::Result<usize> {
        self.request(|state| state.create_file(path))
    }

    fn append(&self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        let part = self.state().random.random_range(0..=bytes.len());
        let append = |bytes: &[u8]| {
            let mut state = self.state();
            let Node::File {
                content, longest, ..
            } = &mut state.nodes[*file]
            else {
                return;
            };
            content.extend_from_slice(bytes);
            longest.clone_from(content);
        };
        let written = self.request(|_| Ok(()));
        append(if written.is_ok() {
            bytes
        } else {
            &bytes[..part]
        });
        written
    }

    #[track_caller]
    fn sync(&self, file: &usize) -> io::Result<()> {
        let place = Location::caller();
        self.request(|state| {
            let disabled = !state.syncs(place);
            let Node::File {
                content,
                longest,
                synced,
            } = &mut state.nodes[*file]
            else {
                return Ok(());
            };
            if !disabled {
                synced.clone_from(content);
                longest.clone_from(content);
            }
            Ok(())
        })
    }

    fn cut(&self, file: &usize, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap();
        self.request(|state| state.content(*file).map(|content| content.truncate(bytes)))
    }

    fn measure(&self, path: &Path) -> io::Result<Measure> {
        self.request(|state| {
            let node = state.find(path)?;
            let bytes = state.content(node)?.len() as u64;
            let since = UNIX_EPOCH + Duration::from_secs(node as u64);
            Ok(Measure { bytes, since })
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.request(|state| {
            let node = state.find(path)?;
            state.content(node).cloned()
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.request(|state| {
            let (node, from, to) = (state.find(from)?, state.place(from)?, state.place(to)?);
            state.change(vec![(from.0, from.1, None), (to.0, to.1, Some(node))]);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.request(|state| state.remove(path))
    }

    fn probe(&self, folder: &Path) -> io::Result<()> {
        self.request(|state| state.find(folder).map(drop))
    }
}
