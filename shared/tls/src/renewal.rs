//! What is made of files, and made again when they change.

use std::fmt::Display;

use crate::file::Stamp;

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
