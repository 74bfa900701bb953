//! The binaries as an operator starts them.

use std::fs::File;
use std::io::{PipeWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::wait::BOUND;

/// Builds the binaries. Whoever runs tests does so before the time of any of them counts: on a busy
/// machine it takes longer than a test may.
///
/// # Panics
/// They cannot be built.
pub fn build() {
    folder();
}

/// The folder of the binaries, which are built when it is first asked for.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // The test itself lies in `deps`, below the folder of its profile.
        let test = std::env::current_exe().unwrap();
        let folder = test.ancestors().nth(2).unwrap().to_owned();
        let mut build = std::process::Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--bins", "--workspace"]);
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        // Some build scripts take what cargo tells of the tests for a reason to run again.
        for (name, _) in std::env::vars_os() {
            let told = name.to_string_lossy();
            if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&name);
            }
        }
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "the binaries could not be built"
        );
        folder
    })
}

/// A command that runs a binary, no file that it writes growing beyond `file_limit` blocks of 512
/// bytes.
pub(crate) fn command(binary: &str, arguments: &[String], file_limit: Option<u32>) -> Command {
    const LIMITED: &str = r#"trap "" XFSZ; ulimit -f "$0"; exec "$@""#;
    let program = folder().join(binary);
    let mut command = match file_limit {
        None => Command::new(program),
        Some(blocks) => {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", LIMITED, &blocks.to_string()])
                .arg(program);
            shell
        }
    };
    // The environment of whoever runs the tests is not to be read as settings. Spans are for the
    // collector that a test names, and for no Zipkin that may run here.
    command
        .env_clear()
        .env("ZIPKIN_URL", "off")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a binary to its end.
pub async fn output(binary: &str, arguments: &[String], environment: &[(&str, &str)]) -> Output {
    let mut command = command(binary, arguments, None);
    timeout(BOUND, command.envs(environment.iter().copied()).output())
        .await
        .unwrap()
        .unwrap()
}

/// Runs a binary to its end, on a disk that is full for all that it logs. `None` if a signal ended it.
pub async fn exit_code_with_full_log(binary: &str, arguments: &[String]) -> Option<i32> {
    let full = || Stdio::from(File::create("/dev/full").unwrap());
    let mut command = command(binary, arguments, None);
    let running = command.stdout(full()).stderr(full()).status();
    timeout(BOUND, running).await.unwrap().unwrap().code()
}

/// Runs a binary to its end, while what it writes goes to a pipe that is full. `None` if a signal
/// ended it.
pub async fn exit_code_with_full_pipe(binary: &str, arguments: &[String]) -> Option<i32> {
    let (_reader, writer) = std::io::pipe().unwrap();
    let filling = tokio::net::unix::pipe::Sender::from_owned_fd(writer.into()).unwrap();
    filling.writable().await.unwrap();
    while filling.try_write(&[b' '; 4_096]).is_ok() {}
    // The binary is one that waits when it writes.
    let writer = filling.into_blocking_fd().unwrap();
    let mut command = command(binary, arguments, None);
    let running = command
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .status();
    let ended = timeout(BOUND, running).await;
    ended.expect("it ends in time").unwrap().code()
}

/// How many file descriptors a process may have here.
#[must_use]
pub fn descriptors() -> usize {
    http_server::connections_within_limit(usize::MAX)
}

/// The address that a log line names.
#[must_use]
pub fn address_in(line: &str) -> SocketAddr {
    let (_, address) = line.split_once("address=").unwrap();
    let address = address.split_whitespace().next().unwrap();
    address.parse().unwrap()
}

/// A binary that runs. It is killed when dropped.
pub struct Started {
    child: Child,
    log: Lines<BufReader<Receiver>>,
    /// The lines of its log that have been read.
    pub lines: Vec<String>,
}

impl Started {
    /// Starts a binary.
    #[must_use]
    pub fn new(binary: &str, arguments: &[String]) -> Self {
        Self::with_log(binary, arguments).0
    }

    /// Starts a binary, and returns the other end of its log too.
    fn with_log(binary: &str, arguments: &[String]) -> (Self, PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        let child = command(binary, arguments, None)
            .stdout(writer.try_clone().unwrap())
            .spawn()
            .unwrap();
        let reader = Receiver::from_owned_fd(reader.into()).unwrap();
        let started = Self {
            child,
            log: BufReader::new(reader).lines(),
            lines: Vec::new(),
        };
        (started, writer)
    }

    /// Starts a binary, reads its log up to a line with `text`, and from then on no more: the log is
    /// full for all that the binary writes.
    pub async fn with_full_log(binary: &str, arguments: &[String], text: &str) -> Self {
        let (mut started, mut writer) = Self::with_log(binary, arguments);
        started.until_logged(text).await;
        // It ends when the reader does.
        std::thread::spawn(move || while writer.write_all(b"full\n").is_ok() {});
        started
    }

    /// Waits for the end without reading the log; returns the exit code.
    pub async fn end_unread(&mut self) -> Option<i32> {
        let ended = timeout(BOUND, self.child.wait()).await;
        ended.expect("the process ends in time").unwrap().code()
    }

    /// Reads the log up to a line with `text`, and returns that line.
    pub async fn until_logged(&mut self, text: &str) -> String {
        let found = async {
            loop {
                let line = self.log.next_line().await.unwrap();
                let line =
                    line.unwrap_or_else(|| panic!("no {text:?} in the log {:#?}", self.lines));
                self.lines.push(line.clone());
                if line.contains(text) {
                    return line;
                }
            }
        };
        timeout(BOUND, found)
            .await
            .unwrap_or_else(|_| panic!("no {text:?} in the log in time"))
    }

    /// Memory that the process occupies, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> usize {
        let pid = self.child.id().expect("the process runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
        size.unwrap().parse().unwrap()
    }

    /// How many threads the process has.
    #[must_use]
    pub fn threads(&self) -> usize {
        let pid = self.child.id().expect("the process runs");
        std::fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .count()
    }

    /// How many file descriptors the process has open.
    #[must_use]
    pub fn open_descriptors(&self) -> usize {
        let pid = self.child.id().expect("the process runs");
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    }

    /// Sends a signal: `TERM`, `INT` or `KILL`.
    pub async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("the process runs").to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the end, reading the rest of the log; returns the exit code.
    pub async fn end(&mut self) -> Option<i32> {
        let rest = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                self.lines.push(line);
            }
            self.child.wait().await.unwrap().code()
        };
        timeout(BOUND, rest)
            .await
            .expect("the process ends in time")
    }
}
