//! File descriptors: each connection takes one. Many systems let a process have only 1,024 unless it
//! asks for more.

use rlimit::{Resource, increase_nofile_limit};

/// Descriptors for everything but the connections of one server: broker, database, admin port, files, and
/// connections that are being closed.
const RESERVED: u64 = 256;

/// Raises the limit of file descriptors as far as the system lets this process.
pub fn raise_limit() {
    if let Err(error) = increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of file descriptors could not be raised");
    }
}

/// How many of the `wanted` connections the file descriptors allow; logs if these are fewer. Without a free
/// descriptor, a client could not even be refused.
#[must_use]
pub fn connections_within_limit(wanted: usize) -> usize {
    let Ok((limit, _)) = Resource::NOFILE.get() else {
        return wanted;
    };
    let possible = usize::try_from(limit.saturating_sub(RESERVED)).map_or(wanted, |n| n.max(1));
    if possible < wanted {
        tracing::warn!(
            wanted,
            possible,
            limit,
            "fewer connections because file descriptors are limited (ulimit -n)"
        );
    }
    wanted.min(possible)
}
