//! How long, how often and how much is measured.

use std::time::Duration;

/// Most memory that a process is to occupy, in MiB.
pub(crate) fn memory_limit(process: &str) -> f64 {
    match process {
        "ingest" => 64.0,
        _ if process.starts_with("fetcher") => 96.0,
        "janitor" => 32.0,
        other => panic!("{other} has no limit"),
    }
}

/// Connections at which callbacks are compared with others.
pub(crate) const CONNECTIONS: usize = 64;

/// One of the two forms of a run.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    /// Its name.
    pub(crate) name: &'static str,
    /// How often what is compared is measured, in turn.
    pub(crate) rounds: usize,
    /// How long callbacks are posted, or messages published, at full speed.
    pub(crate) accepting: Duration,
    /// Numbers of connections that callbacks come on.
    pub(crate) connections: &'static [usize],
    /// Ids that are drained from a queue.
    pub(crate) drained: u32,
    /// Ids a second that are offered to the whole pipeline, in ascending order.
    pub(crate) offered: &'static [u32],
    /// How long each of them is.
    pub(crate) offering: Duration,
    /// Deletions a second.
    pub(crate) deletions: &'static [u32],
    /// How long rows are stored at each of these rates.
    pub(crate) storing: Duration,
    /// How long an idle pipeline gets a callback now and then.
    pub(crate) idling: Duration,
    /// How long a fetcher has to find out how many look-ups a client service takes at once.
    pub(crate) levelling: Duration,
    /// How long a client service is slow.
    pub(crate) slowed: Duration,
    /// Numbers of replicas of the fetcher.
    pub(crate) replicas: &'static [usize],
    /// How long what they look up is counted.
    pub(crate) counting: Duration,
    /// Ids in the queue, of which some are drained.
    pub(crate) backlog: u32,
}

impl Form {
    /// Five minutes.
    pub(crate) fn short() -> Self {
        Self {
            name: "short",
            rounds: 2,
            accepting: Duration::from_secs(2),
            connections: &[1, 64, 256],
            drained: 200_000,
            offered: &[2_000, 10_000],
            offering: Duration::from_secs(5),
            deletions: &[1_000, 20_000],
            storing: Duration::from_secs(8),
            idling: Duration::from_secs(8),
            levelling: Duration::from_secs(20),
            slowed: Duration::from_secs(10),
            replicas: &[1, 8],
            counting: Duration::from_secs(6),
            backlog: 1_000_000,
        }
    }

    /// Twenty minutes.
    pub(crate) fn full() -> Self {
        Self {
            name: "full",
            rounds: 5,
            accepting: Duration::from_secs(5),
            connections: &[1, 16, 64, 256],
            drained: 200_000,
            offered: &[1_000, 5_000, 10_000, 15_000, 20_000, 30_000, 40_000],
            offering: Duration::from_secs(15),
            deletions: &[1_000, 5_000, 20_000],
            storing: Duration::from_secs(30),
            idling: Duration::from_secs(30),
            levelling: Duration::from_mins(1),
            slowed: Duration::from_mins(1),
            replicas: &[1, 2, 4, 8],
            counting: Duration::from_secs(20),
            backlog: 10_000_000,
        }
    }
}
