//! A process that runs inside the test.

use std::ffi::OsString;

use lifecycle::{Health, Shutdown};
use process::{Ask, ProcessConfig, ProcessContext};
use settings::load;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::wait::{BOUND, eventually};

/// A process that runs inside the test, on a runtime that can be killed as a whole.
pub struct Instance {
    health: Health,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
    runtime: Option<Runtime>,
}

impl Instance {
    pub(crate) fn start<C, F>(config: &C, run: impl FnOnce(C, ProcessContext) -> F) -> Self
    where
        C: ProcessConfig + Clone,
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let shutdown = Shutdown::new(config.process().shutdown_timeout);
        let context = ProcessContext::new(config.process(), shutdown).unwrap();
        let (health, shutdown) = (context.health.clone(), context.shutdown.clone());
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            health,
            shutdown,
            task: runtime.spawn(run(config.clone(), context)),
            runtime: Some(runtime),
        }
    }

    /// Whether the process says that it can do its work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.health.is_ready()
    }

    /// Waits until a dependency is down for a reason that has `reason` in it.
    pub async fn until_down(&self, dependency: &str, reason: &str) {
        eventually(reason, async || {
            let down = self.down().into_iter();
            let mut down = down.filter(|(name, why)| *name == dependency && why.contains(reason));
            down.next().map(drop)
        })
        .await;
    }

    /// What the process depends on and is down, with the reasons.
    #[must_use]
    pub fn down(&self) -> Vec<(&'static str, String)> {
        self.health.down()
    }

    /// Waits until everything that the process depends on is up.
    pub async fn ready(&mut self) {
        eventually("the process to be ready", async || {
            assert!(
                !self.task.is_finished(),
                "the process ended: {}",
                self.health.lines()
            );
            let lines = self.health.lines();
            (!lines.is_empty() && self.health.down().is_empty()).then_some(())
        })
        .await;
    }

    /// Stops the process in order.
    ///
    /// # Panics
    /// It fails, or does not end.
    pub async fn stop(&mut self) {
        self.shutdown.begin();
        tokio::time::timeout(BOUND, &mut self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Ends the process, if it has not ended, as a crash would: without a goodbye.
    pub async fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let killing = spawn_blocking(move || runtime.shutdown_timeout(BOUND));
            killing.await.unwrap();
        }
    }
}

/// Settings as the process itself would read them.
pub fn configure<C: ProcessConfig>(own: Vec<String>, flags: &[&str]) -> C {
    // Long enough to finish all work on a busy machine; a test that is about less says so.
    let own = own.into_iter().chain(["--shutdown-timeout=30s".to_owned()]);
    let flags = own.chain(flags.iter().map(|flag| (*flag).to_owned()));
    let arguments = std::iter::once(C::NAME.to_owned())
        .chain(flags)
        .map(OsString::from);
    load::<C, Ask>(C::NAME, C::ABOUT, arguments, [])
        .unwrap_or_else(|error| panic!("{error}"))
        .settings
}
