//! A process of the pipeline that is killed, stopped and started again, always the same.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::binaries;
use crate::wait::{BOUND, eventually};

/// A process that is started as an operator would. It is killed when dropped.
pub struct Process {
    name: &'static str,
    binary: &'static str,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    /// Largest file that it may write, in blocks of 512 bytes.
    file_limit: Option<u32>,
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
            file_limit: None,
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

    /// Replaces the flag `--<flag>=..` from the next start on.
    pub fn set_flag(&mut self, flag: &str, value: &str) {
        let begin = format!("--{flag}=");
        self.flags.retain(|given| !given.starts_with(&begin));
        self.flags.push(begin + value);
    }

    /// Lets no file that it writes grow beyond so many blocks of 512 bytes, as on a full disk, from
    /// the next start on.
    pub fn set_file_limit(&mut self, blocks: Option<u32>) {
        self.file_limit = blocks;
    }

    /// Starts it. It does not run.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.begin = self.log().len();
        let child = binaries::command(self.binary, &self.flags, self.file_limit)
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        // By way of a pipe, since the file would be under the limit.
        tokio::spawn(keep(child.stdout.take().unwrap(), self.log.clone()));
        self.child = Some(child);
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

    /// Processor time that it has used since its latest start, to a hundredth of a second.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        const TICK: Duration = Duration::from_millis(10);
        let pid = self.child.as_ref().and_then(Child::id).expect("it runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        // User and system time are the 14th and 15th field, and the first two are cut off.
        let ticks = fields.split(' ').skip(11).take(2);
        ticks
            .map(|ticks| TICK * ticks.parse::<u32>().unwrap())
            .sum()
    }

    /// The most memory that it has occupied since its latest start, in MiB.
    #[must_use]
    pub fn peak_memory(&self) -> f64 {
        let pid = self.child.as_ref().and_then(Child::id).expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
        size.unwrap().parse::<f64>().unwrap() / 1_024.0
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

async fn keep(mut output: ChildStdout, path: PathBuf) {
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        log.write_all(&buffer[..read]).unwrap();
    }
}
