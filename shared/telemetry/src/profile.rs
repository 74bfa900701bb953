//! Heap profiles (which functions allocated the memory in use) and CPU profiles of the process, in the
//! format of pprof.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::Context;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jemalloc_pprof::PROF_CTL;
use lifecycle::Shutdown;
use pprof::ProfilerGuard;
use pprof::protos::{Message, Profile};
use thiserror::Error;
use tikv_jemallocator::Jemalloc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The allocator of every binary. It records the stacks that allocate a sample of the memory. Its
/// settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Samples for each second of processor time. Not 100, so that they do not keep in step with timers.
const FREQUENCY: i32 = 99;

/// Functions of the allocator, as a regular expression. Readers of a profile hide them and what they
/// call, so that a stack ends with the function that asked for the memory.
const OF_THE_ALLOCATOR: &str = "_rjem_.*|do_rallocx";

/// Why there is no profile.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// Another profile of its kind is being taken.
    #[error("a profile of this kind is being taken already, and there is one at a time")]
    Busy,
    /// The allocator records nothing.
    #[error(
        "there are no heap profiles: the binary was built without .cargo/config.toml, or started with prof:false"
    )]
    HeapOff,
    /// The profile could not be taken.
    #[error("the profile could not be taken: {0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Which functions allocated the memory that is in use, estimated from a sample of the allocations
/// since the start.
///
/// # Errors
/// Heap profiles are off, or another one is being taken; or there is no room in the folder for
/// temporary files.
pub async fn heap() -> Result<Vec<u8>, ProfileError> {
    static TURN: Semaphore = Semaphore::const_new(1);
    let turn = TURN.try_acquire().map_err(|_| ProfileError::Busy)?;
    // Asking jemalloc for the first time is quick, writing and reading its file is not.
    let control = PROF_CTL.as_ref().ok_or(ProfileError::HeapOff)?;
    blocking(move || {
        // The work goes on when the client has hung up, and keeps its turn until its end.
        let _turn = turn;
        let zipped = control.blocking_lock().dump_pprof()?;
        zip(&without_allocator(&zipped).context("reading jemalloc's profile")?)
    })
    .await
}

fn without_allocator(zipped: &[u8]) -> anyhow::Result<Profile> {
    let mut bytes = Vec::new();
    GzDecoder::new(zipped).read_to_end(&mut bytes)?;
    let mut profile = Profile::decode(bytes.as_slice())?;
    profile.drop_frames = i64::try_from(profile.string_table.len())?;
    profile.string_table.push(OF_THE_ALLOCATOR.to_owned());
    Ok(profile)
}

/// What the process spends processor time on during `period`, or until its shut-down begins.
/// Dropping the future ends it.
///
/// # Errors
/// Another one is being taken; or there is no room in the folder for temporary files.
pub async fn cpu(period: Duration, shutdown: &Shutdown) -> Result<Vec<u8>, ProfileError> {
    static TURN: Semaphore = Semaphore::const_new(1);
    let turn = TURN.try_acquire().map_err(|_| ProfileError::Busy)?;
    let profiler = blocking(|| Profiler::start(turn)).await?;
    shutdown.sleep(period).await;
    blocking(move || profiler.report()).await
}

/// The profiler at work, until it is dropped.
struct Profiler {
    samples: ProfilerGuard<'static>,
    /// Dropped last: only then the next profile may start.
    _turn: SemaphorePermit<'static>,
}

impl Profiler {
    fn start(turn: SemaphorePermit<'static>) -> anyhow::Result<Self> {
        let samples = ProfilerGuard::new(FREQUENCY)
            .context("starting the profiler, which writes in TMPDIR or /tmp")?;
        Ok(Self {
            samples,
            _turn: turn,
        })
    }

    fn report(&self) -> anyhow::Result<Vec<u8>> {
        let report = self.samples.report().build().context("naming functions")?;
        zip(&report.pprof().context("counting samples")?)
    }
}

fn zip(profile: &Profile) -> anyhow::Result<Vec<u8>> {
    let mut zipped = GzEncoder::new(Vec::new(), Compression::default());
    zipped.write_all(&profile.encode_to_vec())?;
    Ok(zipped.finish()?)
}

/// Runs work that can take seconds (finding the names of functions) on a thread for such work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, ProfileError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.context("a panic, which the log describes")??)
}
