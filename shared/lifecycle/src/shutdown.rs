//! The one signal that tells every task of a process to stop, and how long it may take.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells tasks to stop. Clones share one signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    timeout: Duration,
}

impl Shutdown {
    /// A shut-down that has not begun. Once it begins, the process has `timeout` to end.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            token: CancellationToken::new(),
            timeout,
        }
    }

    /// A shut-down that begins at the first SIGTERM or SIGINT.
    ///
    /// # Errors
    /// The operating system refused the signal handlers.
    pub fn on_signals(timeout: Duration) -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let shutdown = Self::new(timeout);
        let begin = shutdown.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, timeout = ?begin.timeout, "stopping");
            begin.begin();
        });
        Ok(shutdown)
    }

    /// Begins the shut-down. Doing so again changes nothing.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether the shut-down has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the shut-down to begin.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// How long the process may take to end, from the signal on.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How long work in progress may take to finish before it is returned to its queue. The rest of
    /// [`Shutdown::timeout`] is for closing connections.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.timeout.mul_f64(0.7)
    }

    /// Waits until unfinished work has been dropped and the tasks that served it have to end too.
    pub async fn closing(&self) {
        self.begun().await;
        tokio::time::sleep(self.timeout.mul_f64(0.85)).await;
    }

    /// Waits `period`, or until the shut-down begins. Returns whether it waited in full.
    pub async fn sleep(&self, period: Duration) -> bool {
        tokio::select! {
            () = self.begun() => false,
            () = tokio::time::sleep(period) => true,
        }
    }
}

/// A task that must not end before the shut-down begins.
#[derive(Clone)]
pub struct VitalTask {
    name: &'static str,
    shutdown: Shutdown,
    ended: Shared<BoxFuture<'static, ()>>,
}

impl VitalTask {
    /// Starts the task.
    pub fn spawn(
        name: &'static str,
        shutdown: &Shutdown,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let task = tokio::spawn(work);
        // How it ended does not matter: a panic has been logged.
        let ended = async move { drop(task.await) }.boxed().shared();
        Self {
            name,
            shutdown: shutdown.clone(),
            ended,
        }
    }

    /// Returns only when the task has ended before the shut-down began, which is a failure.
    pub async fn failed(&self) -> anyhow::Error {
        self.ended.clone().await;
        if self.shutdown.has_begun() {
            std::future::pending::<()>().await;
        }
        anyhow::anyhow!("the {} ended before its time", self.name)
    }

    /// Waits for the task to end.
    pub async fn finished(self) {
        self.ended.await;
    }
}
