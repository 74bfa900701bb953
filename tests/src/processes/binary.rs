//! The binaries: how they are built, and run to their end.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use tokio::process::Command;
use tokio::time::timeout;

use crate::wait::BOUND;

/// Builds the binaries, before the time of any test counts: on a busy machine that takes longer than a
/// test may.
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

/// A command that runs a binary, with a limit as `ulimit` takes it: `-f 8`.
pub(crate) fn command(binary: &str, arguments: &[String], limit: Option<&str>) -> Command {
    const LIMITED: &str = r#"trap "" XFSZ; ulimit $0; exec "$@""#;
    let program = folder().join(binary);
    let mut command = match limit {
        None => Command::new(program),
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", LIMITED, limit]).arg(program);
            shell
        }
    };
    // The environment of the tests is not to be read as settings. Spans are for the
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
