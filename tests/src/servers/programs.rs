//! Programs of others that some tests need.

use std::io::Write;
use std::path::PathBuf;

use crate::servers::variable;

/// The program, where it is installed. Debian keeps some where only root looks for programs.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = ["/usr/bin", "/usr/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(folders);
    let mut programs = folders.map(|folder| folder.join(program));
    programs.find(|program| program.is_file())
}

/// Whether a test cannot run, because the program is not installed. In CI it runs, and fails.
#[must_use]
pub fn is_missing(program: &str) -> bool {
    find(program).is_none() && may_skip(&format!("{program} is not installed"))
}

/// Says why the test of this thread cannot run, and returns whether that may be: not in CI.
#[must_use]
pub fn may_skip(reason: &str) -> bool {
    say_skipped(reason);
    variable("CI").as_deref() != Some("true")
}

/// Says why the test of this thread does not run.
pub fn say_skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    // Directly, because the harness shows the output of a test only when the test fails.
    std::io::stderr().write_all(line.as_bytes()).ok();
}
