use thiserror::Error;

/// Why a callback is not known to be in the spool.
#[derive(Debug, Error)]
pub(crate) enum SpoolError {
    #[error("the spool is full")]
    Full,
    /// The disk is full or fails.
    #[error("the spool cannot be written")]
    Disk,
    /// The disk does not answer.
    #[error("the spool takes too long")]
    Timeout,
    #[error("a callback could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

impl SpoolError {
    /// The kind of failure, as traces name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Disk => "disk",
            Self::Timeout => "timeout",
            Self::Encode(_) => "encode",
        }
    }
}
