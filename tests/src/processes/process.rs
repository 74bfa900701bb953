//! A binary that runs as an operator would start it.

use std::io::{PipeWriter, Write};
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::binary;
use crate::wait::BOUND;

/// A process of the pipeline, which can be killed, stopped and started again. It is killed when dropped.
pub struct Process {
    binary: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    /// A limit as `ulimit` takes it.
    limit: Option<String>,
    child: Option<Child>,
    /// Its log, over all of its starts. The sender is dropped at the end of the log.
    log: watch::Receiver<String>,
    /// Where in the log its latest start begins.
    begin: usize,
    /// Where in the log the lines end that are in `lines`.
    end: usize,
    /// The lines of its log up to that which a test has waited for last.
    pub lines: Vec<String>,
    /// Whether its log is read. Otherwise the pipe that it logs to fills up.
    is_log_read: watch::Sender<bool>,
}

impl Process {
    /// A process that is yet to be started.
    #[must_use]
    pub fn new(binary: &str, flags: &[String]) -> Self {
        Self {
            binary: binary.to_owned(),
            flags: flags.to_vec(),
            environment: Vec::new(),
            limit: None,
            child: None,
            log: watch::channel(String::new()).1,
            begin: 0,
            end: 0,
            lines: Vec::new(),
            is_log_read: watch::Sender::new(true),
        }
    }

    /// A process that was just started.
    #[must_use]
    pub fn started(binary: &str, flags: &[String]) -> Self {
        let mut process = Self::new(binary, flags);
        process.start();
        process
    }

    /// Starts a binary, reads its log up to a line with `text`, and from then on no more: the log is
    /// full for all that the binary writes.
    pub async fn with_full_log(binary: &str, flags: &[String], text: &str) -> Self {
        let mut process = Self::new(binary, flags);
        let mut writer = process.start_with_log();
        process.until_logged(text).await;
        process.stop_reading_log();
        // It ends when the reader does.
        std::thread::spawn(move || while writer.write_all(b"full\n").is_ok() {});
        process
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

    /// Limits each file that the process writes to this many blocks of 512 bytes, as on a full disk. The
    /// limit holds from the next start on.
    pub fn set_file_limit(&mut self, blocks: Option<u32>) {
        self.limit = blocks.map(|blocks| format!("-f {blocks}"));
    }

    /// Limits the files and connections that the process may have open, from the next start on.
    pub fn set_descriptor_limit(&mut self, descriptors: u32) {
        self.limit = Some(format!("-n {descriptors}"));
    }

    /// Starts it. It does not run.
    pub fn start(&mut self) {
        drop(self.start_with_log());
    }

    /// Starts it, and returns another end of its log, which others may write to.
    fn start_with_log(&mut self) -> PipeWriter {
        assert!(self.child.is_none(), "{} runs already", self.binary);
        let (reader, writer) = std::io::pipe().unwrap();
        let child = binary::command(&self.binary, &self.flags, self.limit.as_deref())
            .envs(self.environment.iter().cloned())
            .stdout(writer.try_clone().unwrap())
            .spawn();
        self.child = Some(child.unwrap());
        let so_far = self.log();
        self.begin = so_far.len();
        let (log, receiver) = watch::channel(so_far);
        self.log = receiver;
        let reader = Receiver::from_owned_fd(reader.into()).unwrap();
        tokio::spawn(read(reader, log, self.is_log_read.subscribe()));
        writer
    }

    /// Reads no more of the log, until a test waits for a line or for the end.
    pub fn stop_reading_log(&self) {
        self.is_log_read.send_replace(false);
    }

    /// Reads the log up to the next line with `text`, and returns that line.
    pub async fn until_logged(&mut self, text: &str) -> String {
        self.is_log_read.send_replace(true);
        let found = async {
            loop {
                while let Some(line) = self.next_line() {
                    if line.contains(text) {
                        return line;
                    }
                }
                let more = self.log.changed().await;
                more.unwrap_or_else(|_| panic!("no {text:?} in the log {:#?}", self.lines));
            }
        };
        let found = timeout(BOUND, found).await;
        found.unwrap_or_else(|_| panic!("no {text:?} in the log in time"))
    }

    fn next_line(&mut self) -> Option<String> {
        let log = self.log.borrow_and_update();
        let (line, _) = log[self.end..].split_once('\n')?;
        self.end += line.len() + 1;
        self.lines.push(line.to_owned());
        Some(line.to_owned())
    }

    /// The address that it logged at its latest start, in a line with `text`.
    pub async fn address_in_log(&self, text: &str) -> SocketAddr {
        let address = |log: &str| {
            let mut lines = log[self.begin..].lines();
            lines.find(|line| line.contains(text)).map(address_in)
        };
        let mut log = self.log.clone();
        let logged = timeout(BOUND, log.wait_for(|log| address(log).is_some())).await;
        let log = logged.unwrap_or_else(|_| panic!("no {text:?} in the log in time"));
        let log = log.unwrap_or_else(|_| panic!("no {text:?} in the log {}", self.log()));
        address(&log).unwrap()
    }

    /// Its log, over all of its starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Sends a signal: `TERM`, `INT` or `KILL`.
    pub async fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.await.unwrap().success());
    }

    /// Ends it by SIGKILL, if it runs.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
            self.until_log_ends().await;
        }
    }

    /// Sends SIGTERM, if it runs, and waits for its end.
    ///
    /// # Panics
    /// It had ended by itself, does not end, or ends with an exit code other than 0.
    pub async fn stop(&mut self) {
        if self.child.is_some() {
            self.signal("TERM").await;
            assert_eq!(self.end().await, Some(0), "{} on SIGTERM", self.binary);
        }
    }

    /// Waits for the end, reading the rest of the log; returns the exit code.
    pub async fn end(&mut self) -> Option<i32> {
        let code = async {
            self.until_log_ends().await;
            self.end_unread().await
        };
        let code = timeout(BOUND, code).await;
        code.unwrap_or_else(|_| panic!("{} does not end in time", self.binary))
    }

    /// Waits for the end without reading the log; returns the exit code.
    pub async fn end_unread(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("the process was started");
        let ended = timeout(BOUND, child.wait()).await;
        ended.expect("the process ends in time").unwrap().code()
    }

    async fn until_log_ends(&mut self) {
        self.is_log_read.send_replace(true);
        while self.log.changed().await.is_ok() {}
        while self.next_line().is_some() {}
    }

    /// Its number in the system.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let pid = self.child.as_ref().and_then(Child::id);
        pid.unwrap_or_else(|| panic!("{} does not run", self.binary))
    }
}

/// Appends what comes through a pipe to the log, line by line, while it is to be read.
async fn read(pipe: Receiver, log: watch::Sender<String>, mut is_read: watch::Receiver<bool>) {
    let mut lines = BufReader::new(pipe).lines();
    while is_read.wait_for(|is_read| *is_read).await.is_ok() {
        let Some(line) = lines.next_line().await.unwrap() else {
            return;
        };
        log.send_modify(|log| {
            log.push_str(&line);
            log.push('\n');
        });
    }
}

/// The address that a log line names, which is text or JSON.
#[must_use]
pub fn address_in(line: &str) -> SocketAddr {
    let (_, address) = line
        .split_once("address=")
        .or_else(|| line.split_once(r#"address":""#))
        .unwrap();
    let end = |c: char| c.is_whitespace() || c == '"';
    address.split(end).next().unwrap().parse().unwrap()
}
