//! File descriptors. Each connection takes one, and many systems let a process have only 1,024
//! unless it asks for more.

use rlimit::{Resource, increase_nofile_limit};

/// What is not for the connections of one server: connections to broker and database, the admin
/// port, files, and connections on their way out.
const RESERVED: u64 = 256;

/// Asks for as many file descriptors as the system lets this process have.
pub fn raise_limit() {
    if let Err(error) = increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of file descriptors could not be raised");
    }
}

/// How many of the `wanted` connections the file descriptors suffice for; logs when it is fewer.
/// Without a descriptor left a client would not even be told to come back.
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
            "fewer connections, since file descriptors are limited (ulimit -n)"
        );
    }
    wanted.min(possible)
}
