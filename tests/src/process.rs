//! A process of the pipeline that is killed, stopped and started again, always the same.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::binaries;
use crate::wait::{BOUND, eventually};

/// A process that is started as an operator would. It is killed when dropped.
pub struct Process {
    name: &'static str,
    binary: &'static str,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    /// Where in the log its latest start begins.
    begin: usize,
    child: Option<Child>,
}

impl Process {
    /// A process that is yet to be started; `name` tells it from others of its binary. Its log is a
    /// file in `folder`, to which each start adds.
    #[must_use]
    pub fn new(
        name: &'static str,
        binary: &'static str,
        flags: Vec<String>,
        folder: &Path,
    ) -> Self {
        Self {
            name,
            binary,
            flags,
            environment: Vec::new(),
            log: folder.join(format!("{name}.log")),
            begin: 0,
            child: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Sets its environment from the next start on.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// Starts it. It does not run.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.begin = self.log().len();
        let mut log = OpenOptions::new();
        let log: File = log.create(true).append(true).open(&self.log).unwrap();
        let child = binaries::command(self.binary, &self.flags)
            .envs(self.environment.iter().cloned())
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log))
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Ends it by SIGKILL.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Sends SIGTERM, if it runs, and waits for its end.
    ///
    /// # Panics
    /// It had ended by itself, does not end, or ends with an exit code other than 0.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = child
            .id()
            .unwrap_or_else(|| panic!("{} ended by itself", self.name));
        let sent = Command::new("kill").arg(pid.to_string()).status().await;
        assert!(sent.unwrap().success());
        let ended = timeout(BOUND, child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not stop", self.name));
        assert_eq!(ended.unwrap().code(), Some(0), "{} on SIGTERM", self.name);
    }

    /// Its log, over all of its starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The address that it logged at its latest start, in a line with `text`.
    pub async fn address_in_log(&self, text: &str) -> SocketAddr {
        eventually(&format!("the address of {}", self.name), async || {
            let log = self.log();
            let line = log[self.begin..].lines().find(|line| line.contains(text))?;
            let (_, address) = line.split_once("address=")?;
            address.split_whitespace().next()?.parse().ok()
        })
        .await
    }
}
