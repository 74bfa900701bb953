//! What the spool asks of a disk. Tests have a disk that crashes and fails.

use std::fmt::{Debug, Display};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file, as its folder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) bytes: u64,
    /// When it was created; where the file system does not know that, when it was last written.
    pub(crate) since: SystemTime,
}

/// A disk. Each method returns the error of the operating system, with the path in its text.
pub(crate) trait Disk: Clone + Debug + Send + Sync + 'static {
    type File: Send + 'static;
    /// Keeps other processes from a folder until it is dropped.
    type Lock: Send + 'static;

    /// Creates a folder whose parent exists.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Returns when files and folders that were created in a folder are still there after a power cut.
    #[track_caller]
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// The files and folders in a folder, in no particular order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Removes an empty folder.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;

    /// Claims a folder. `None` if another process has it, or has just removed it.
    fn lock(&self, folder: &Path) -> io::Result<Option<Self::Lock>>;

    /// Creates a file that does not exist yet.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Writes at the end of a file.
    fn append(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;

    /// Returns when what was written to a file survives a power cut.
    #[track_caller]
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Truncates a file to `bytes` bytes.
    fn cut(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    fn measure(&self, path: &Path) -> io::Result<Measure>;

    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Moves a file to a path that does not exist.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Writes to a folder and removes what it wrote.
    fn probe(&self, folder: &Path) -> io::Result<()>;
}

/// The file whose lock claims its folder.
pub(crate) const LOCK: &str = "lock";

#[derive(Clone, Copy, Debug)]
pub(crate) struct HostDisk;

#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    /// Unlocks explicitly: a forked child may still hold a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "a folder of the spool stays locked until the process ends");
        }
    }
}

impl Disk for HostDisk {
    type File = File;
    type Lock = Lock;

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder).map_err(of(folder))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(of(folder))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).map_err(of(folder))?;
        let paths = entries.map(|entry| Ok(entry.map_err(of(folder))?.path()));
        paths.collect()
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir(folder).map_err(of(folder))
    }

    fn lock(&self, folder: &Path) -> io::Result<Option<Lock>> {
        let path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        let file = match options.append(true).create(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(of(&path)(error)),
        };
        match file.try_lock() {
            Ok(()) if is_at(&file, &path)? => Ok(Some(Lock(file))),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(of(&path)(error)),
        }
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let created = options.append(true).create_new(true).open(path);
        created.map_err(of(path))
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn measure(&self, path: &Path) -> io::Result<Measure> {
        let metadata = fs::metadata(path).map_err(of(path))?;
        let since = metadata.created().or_else(|_| metadata.modified());
        Ok(Measure {
            bytes: metadata.len(),
            since: since.unwrap_or_else(|_| SystemTime::now()),
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path).map_err(of(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(of(from))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(of(path))
    }

    fn probe(&self, folder: &Path) -> io::Result<()> {
        let path = folder.join("check");
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&[0; 4096])?;
            file.sync_data()
        });
        written
            .and_then(|()| fs::remove_file(&path))
            .map_err(of(&path))
    }
}

/// Whether the file is still at the path: another process may have locked and removed it just before.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match fs::metadata(path) {
        Ok(there) => Ok(identity(there) == identity(file.metadata().map_err(of(path))?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(of(path)(error)),
    }
}

/// Adds the path to the text of an error.
fn of(path: &Path) -> impl Fn(io::Error) -> io::Error {
    |error| named(path.display(), &error)
}

/// The same error, with a name in its text.
pub(crate) fn named(name: impl Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}
