//! What takes the machine's processors while something is measured: the processes of the pipeline, the
//! servers, and the load, each by the name that `/proc` has for it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Ticks of the processors in a second.
const TICKS: f64 = 100.0;

/// The processors from some moment on.
pub(crate) struct Processors {
    begun: Instant,
    ticks: BTreeMap<String, u64>,
}

/// Shares of the time that the processors had.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Shares(pub(crate) BTreeMap<String, f64>);

impl Processors {
    /// What was used before does not count.
    pub(crate) fn watch() -> Self {
        Self {
            begun: Instant::now(),
            ticks: ticks(),
        }
    }

    /// What was used since. The processes still run.
    pub(crate) fn shares(&self) -> Shares {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let available = TICKS * self.begun.elapsed().as_secs_f64() * processors as f64;
        let share = |(name, now): (String, u64)| {
            let before = self.ticks.get(&name).copied().unwrap_or(0);
            (name, now.saturating_sub(before) as f64 / available)
        };
        Shares(ticks().into_iter().map(share).collect())
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |(name, share): (&String, &f64)| format!("{name} {:.0} %", 100.0 * share);
        let shares: Vec<String> = self.0.iter().map(percent).collect();
        formatter.write_str(&shares.join(", "))
    }
}

/// Ticks that processes have used, by what they are.
fn ticks() -> BTreeMap<String, u64> {
    let own = fs::read_to_string("/proc/self/stat").unwrap();
    let (own_pid, own_name, _) = fields(&own).unwrap();
    let mut ticks = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // A process may have ended meanwhile.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((pid, name, used)) = fields(&stat) else {
            continue;
        };
        let name = match name {
            _ if pid == own_pid => "load",
            _ if name == own_name => "client service",
            "beam.smp" => "RabbitMQ",
            "postgres" => "PostgreSQL",
            "ingest" | "fetcher" | "janitor" => name,
            _ => "other",
        };
        *ticks.entry(name.to_owned()).or_default() += used;
    }
    ticks
}

/// The number of a process, its name, and the ticks that it used in user and system mode. A PostgreSQL has
/// those of the connections that ended.
fn fields(stat: &str) -> Option<(&str, &str, u64)> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let count = if name == "postgres" { 4 } else { 2 };
    let used = rest.split(' ').skip(11).take(count);
    Some((
        pid,
        name,
        used.filter_map(|ticks| ticks.parse::<u64>().ok()).sum(),
    ))
}
