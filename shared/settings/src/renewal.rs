//! What is made of files, and made again when they change.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// What tells whether files have changed. A file that is replaced by another of the same age is a change too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(u64, u64, SystemTime)>>);

impl Stamp {
    /// The files as they are now.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let stamp = |file: &Path| {
            let metadata = file.metadata().ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
        };
        Self(files.into_iter().map(stamp).collect())
    }
}

/// The files that something was made of, and why newer ones are not used.
#[derive(Debug)]
pub struct Renewal {
    stamp: Stamp,
    /// It is logged once.
    refused: Option<String>,
}

impl Renewal {
    /// Of what was made of files with this stamp. The stamp is taken before they are read: a change in between
    /// is seen later.
    #[must_use]
    pub fn of(stamp: Stamp) -> Self {
        Self {
            stamp,
            refused: None,
        }
    }

    /// Makes it again, if the files have another stamp now. If that fails, logs `warning` with the reason, and
    /// tries again at the next call: the reason may have passed by then.
    pub fn renew<T, E: Display>(
        &mut self,
        stamp: Stamp,
        warning: &str,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        if stamp == self.stamp {
            self.refused = None;
            return None;
        }
        match make() {
            Ok(renewed) => {
                *self = Self::of(stamp);
                Some(renewed)
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.refused.as_ref() != Some(&error) {
                    tracing::warn!(error, "{warning}");
                    self.refused = Some(error);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let stamp = || Stamp::of([file.as_path()]);
        let missing = stamp();
        std::fs::write(&file, "one").unwrap();
        let one = stamp();
        assert_ne!(missing, one);
        assert_eq!(one, stamp());
        let new = folder.path().join("new");
        std::fs::write(&new, "two").unwrap();
        std::fs::rename(new, &file).unwrap();
        assert_ne!(one, stamp());
    }
}
