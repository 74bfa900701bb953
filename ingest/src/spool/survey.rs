//! Searches the directory for what earlier runs and other replicas have left.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::claim::{Claim, DAMAGED, numbered, remove_empty};
use super::depth::Size;
use super::disk::Disk;
use super::segment::{Segment, is_damaged, segments};

/// What this process has claimed already.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimedFolders {
    pub(super) folders: Vec<PathBuf>,
    /// The folder of which the segments with numbers below this one have not been listed yet.
    pub(super) unlisted: Option<(PathBuf, u64)>,
}

/// What a search of the directory has found.
pub(super) struct Survey<D: Disk> {
    /// The segments of the folder that had not been listed yet.
    pub(super) listed: Option<Vec<Segment>>,
    /// Folders that were free and are claimed now.
    pub(super) adopted: Vec<(Claim<D>, Vec<Segment>)>,
    /// In the folders of other replicas.
    pub(super) others: Size,
    /// In segments that were set aside.
    pub(super) damaged: Size,
}

/// Searches `directory`. A free folder is claimed if it has segments, and removed if it has none. This
/// begins only after the process has listed its own folder, so that replicas that start together each
/// get their own folder back.
///
/// # Errors
/// The directory or the own folder cannot be read. For other folders this is only logged.
pub(super) fn survey<D: Disk>(
    disk: &D,
    directory: &Path,
    claimed: &ClaimedFolders,
) -> io::Result<Survey<D>> {
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
    fn look_into(&mut self, disk: &D, folder: PathBuf, claimed: &ClaimedFolders) -> io::Result<()> {
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
                let claim = Claim::new(folder, lock);
                if found.is_empty() {
                    remove_empty(disk, claim);
                } else {
                    self.adopted.push((claim, found));
                }
            }
            // The owner has drained and removed it.
            (None, Err(error)) if error.kind() == ErrorKind::NotFound => {}
            (_, Err(error)) => return Err(error),
            (None, Ok(found)) => found
                .iter()
                .for_each(|segment| self.others.add(segment.bytes)),
        }
        Ok(())
    }
}

/// The size of the `wanted` files in a folder. Files that cannot be measured count as empty.
fn sizes<D: Disk>(disk: &D, folder: &Path, wanted: impl Fn(&Path) -> bool) -> Size {
    let mut size = Size::default();
    let paths = disk.list(folder).unwrap_or_default();
    for path in paths.iter().filter(|path| wanted(path)) {
        size.add(disk.measure(path).map_or(0, |measure| measure.bytes));
    }
    size
}
