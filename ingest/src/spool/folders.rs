//! Sharing a directory: below it are numbered folders, and a process claims one by a lock on it. What a
//! replica left that is gone is adopted by one that runs.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::spool::disk::{Disk, LOCK};
use crate::spool::segment::{self, Segment, is_damaged, segments};

/// Where segments with damage go.
const DAMAGED: &str = "damaged";

/// A folder that this process has claimed.
pub struct Claim<D: Disk> {
    /// Where it is.
    pub folder: PathBuf,
    /// Held for as long as the claim is.
    _lock: D::Lock,
}

/// Claims a folder below `directory`: the first one that is free, or else a new one.
///
/// # Errors
/// The disk fails.
pub fn claim<D: Disk>(disk: &D, directory: &Path) -> io::Result<Claim<D>> {
    create(disk, directory)?;
    let folders = numbered(disk, directory)?;
    // One that cannot be locked is no reason to do without.
    let mut free = folders.iter().filter_map(|(_, folder)| lock(disk, folder));
    let claim = match free.next() {
        Some(claim) => claim,
        None => claim_new(disk, directory, &folders)?,
    };
    // The process that created it may have been killed before it synced.
    disk.sync_folder(directory)?;
    Ok(claim)
}

fn claim_new<D: Disk>(
    disk: &D,
    directory: &Path,
    taken: &[(u64, PathBuf)],
) -> io::Result<Claim<D>> {
    let free = (0..).filter(|number| taken.iter().all(|(taken, _)| taken != number));
    for number in free {
        let folder = directory.join(number.to_string());
        match disk.create_folder(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        if let Some(lock) = disk.lock(&folder)? {
            return Ok(Claim {
                folder,
                _lock: lock,
            });
        }
    }
    Err(io::Error::other("every number is taken"))
}

fn lock<D: Disk>(disk: &D, folder: &Path) -> Option<Claim<D>> {
    let locked = disk.lock(folder).unwrap_or_else(|error| {
        tracing::warn!(%error, "a folder of the spool cannot be claimed");
        None
    });
    let folder = folder.to_owned();
    locked.map(|lock| Claim {
        folder,
        _lock: lock,
    })
}

/// The numbered entries of `directory`, in the order of their numbers.
fn numbered<D: Disk>(disk: &D, directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = disk.list(directory)?.into_iter();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    let mut folders: Vec<_> = entries
        .filter_map(|path| Some((number(&path)?, path)))
        .collect();
    folders.sort_unstable();
    Ok(folders)
}

/// Creates a folder, and those that it lies in, unless they are there; a power cut does not undo it.
fn create<D: Disk>(disk: &D, folder: &Path) -> io::Result<()> {
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let created = match disk.create_folder(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(disk, parent)?;
            disk.create_folder(folder)
        }
        created => created,
    };
    match created {
        // Undone, so that the next try does not take it for safe.
        Ok(()) => disk
            .sync_folder(parent)
            .inspect_err(|_| drop(disk.remove_folder(folder))),
        // The process that created it may not have synced. It may not be allowed here.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match disk.sync_folder(parent) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        },
        Err(error) => Err(error),
    }
}

/// Moves a segment to where an operator finds it, and returns its new path.
///
/// # Errors
/// The disk fails, and it stays.
pub fn set_aside<D: Disk>(disk: &D, directory: &Path, segment: &Path) -> io::Result<PathBuf> {
    let damaged = directory.join(DAMAGED);
    create(disk, &damaged)?;
    let name = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let name = format!("{}-{}", name(segment.parent()), name(Some(segment)));
    let mut aside = damaged.join(&name);
    // Numbers begin again in a folder that was removed. Nobody else has files of this folder.
    for n in 1_u64.. {
        match disk.measure(&aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error),
            Ok(_) => aside = damaged.join(format!("{name}.{n}")),
        }
    }
    disk.rename(segment, &aside)?;
    Ok(aside)
}

/// Removes a folder with nothing in it. Another one stays.
pub fn remove_empty<D: Disk>(disk: &D, claim: Claim<D>) {
    let folder = &claim.folder;
    let is_empty = disk
        .list(folder)
        .is_ok_and(|entries| entries.iter().all(|entry| entry.ends_with(LOCK)));
    if !is_empty {
        return;
    }
    let removed = disk
        .remove(&folder.join(LOCK))
        .and_then(|()| disk.remove_folder(folder));
    if let Err(error) = removed {
        tracing::debug!(%error, "an empty folder of the spool stays");
    }
    drop(claim);
}

/// How much lies somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Size of the segments.
    pub bytes: u64,
    /// How many there are.
    pub segments: u64,
}

impl Size {
    /// Adds a segment of so many bytes.
    pub fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.segments += 1;
    }

    /// Takes a segment of so many bytes away.
    pub fn subtract(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.segments = self.segments.saturating_sub(1);
    }
}

/// What the process has claimed already.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// All of its folders.
    pub folders: Vec<PathBuf>,
    /// The one whose segments are yet to be found: those with numbers below this one.
    pub unlisted: Option<(PathBuf, u64)>,
}

/// What is below a directory.
pub struct Survey<D: Disk> {
    /// The segments of the claimed folder that were yet to be found.
    pub listed: Option<Vec<Segment>>,
    /// Folders that were free and are claimed now, with their segments.
    pub adopted: Vec<(Claim<D>, Vec<Segment>)>,
    /// What is in the folders of others.
    pub others: Size,
    /// What was set aside.
    pub damaged: Size,
}

/// Looks through `directory`. Free folders are claimed if there is something in them, and removed
/// otherwise; but not before the process knows its own, so that replicas that start together each get
/// theirs back.
///
/// # Errors
/// The directory, or the folder whose segments are yet to be found, cannot be read. Of others that is
/// logged.
pub fn survey<D: Disk>(disk: &D, directory: &Path, claimed: &Claimed) -> io::Result<Survey<D>> {
    let mut survey = Survey {
        listed: None,
        adopted: Vec::new(),
        others: Size::default(),
        damaged: sizes(disk, &directory.join(DAMAGED), |_| true),
    };
    if let Some((folder, end)) = &claimed.unlisted {
        survey.listed = Some(segments(disk, folder, *end)?);
    }
    for (_, folder) in numbered(disk, directory)? {
        if let Err(error) = survey.look_into(disk, folder, claimed) {
            tracing::error!(%error, "a folder of the spool cannot be looked into");
        }
    }
    Ok(survey)
}

impl<D: Disk> Survey<D> {
    fn look_into(&mut self, disk: &D, folder: PathBuf, claimed: &Claimed) -> io::Result<()> {
        let damaged = sizes(disk, &folder, is_damaged);
        self.damaged.bytes += damaged.bytes;
        self.damaged.segments += damaged.segments;
        if claimed.folders.contains(&folder) {
            return Ok(());
        }
        let free = match claimed.unlisted {
            Some(_) => None,
            None => disk.lock(&folder)?,
        };
        let found = segments(disk, &folder, u64::MAX);
        match (free, found) {
            (Some(lock), Ok(found)) => {
                let claim = Claim {
                    folder,
                    _lock: lock,
                };
                if found.is_empty() {
                    remove_empty(disk, claim);
                } else {
                    self.adopted.push((claim, found));
                }
            }
            // Its owner removes what it has drained.
            (None, Err(error)) if error.kind() == ErrorKind::NotFound => {}
            (_, Err(error)) => return Err(error),
            (None, Ok(found)) => found
                .iter()
                .for_each(|segment| self.others.add(segment.bytes)),
        }
        Ok(())
    }
}

/// The size of the files in a folder that are `wanted`, as far as it can be found out.
fn sizes<D: Disk>(disk: &D, folder: &Path, wanted: impl Fn(&Path) -> bool) -> Size {
    let mut size = Size::default();
    let paths = disk.list(folder).unwrap_or_default();
    for path in paths.iter().filter(|path| wanted(path)) {
        size.add(disk.measure(path).map_or(0, |measure| measure.bytes));
    }
    size
}

/// The number of the next segment in a folder.
///
/// # Errors
/// It cannot be read.
pub fn next_number<D: Disk>(disk: &D, folder: &Path) -> io::Result<u64> {
    let paths = segment::paths(disk, folder)?;
    Ok(paths.last().map_or(0, |(number, _)| number + 1))
}
