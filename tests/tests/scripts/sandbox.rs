//! A copy of the scripts in a folder that goes with the test, and a machine as it is seen through `PATH`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What is copied, from the root of the repository.
const COPIED: [&str; 6] = [
    ".env",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    "scripts",
    "deploy",
];

/// How long a script may take, in seconds.
const BOUND: &str = "150";

/// A copy of the scripts, and programs for them.
pub(crate) struct Sandbox {
    folder: TempDir,
}

/// What became of a script.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output, then standard error.
    pub(crate) text: String,
}

impl Sandbox {
    /// With the programs of this machine, but without a container engine and with a compiler that
    /// is only called.
    pub(crate) fn new() -> Self {
        let sandbox = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        // The servers' own users have to get through.
        fs::set_permissions(sandbox.path(), Permissions::from_mode(0o755)).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut copy = Command::new("cp");
        copy.arg("-r").args(COPIED.map(|name| root.join(name)));
        assert!(copy.arg(sandbox.path()).status().unwrap().success());
        sandbox.link_programs();
        sandbox.lacks("docker");
        sandbox.lacks("docker-compose");
        sandbox.fake("cargo", "exit 0");
        sandbox
    }

    /// The root of the copy.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn bin(&self) -> PathBuf {
        self.path().join("bin")
    }

    fn link_programs(&self) {
        fs::create_dir(self.bin()).unwrap();
        for folder in ["/usr/bin", "/bin", "/usr/sbin"] {
            for file in fs::read_dir(folder).into_iter().flatten() {
                let file = file.unwrap();
                let link = self.bin().join(file.file_name());
                if fs::symlink_metadata(&link).is_err() {
                    symlink(file.path(), link).unwrap();
                }
            }
        }
    }

    /// Takes a program away.
    pub(crate) fn lacks(&self, program: &str) {
        let path = self.bin().join(program);
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(path).unwrap();
        }
    }

    /// Puts a script in the place of a program. Its calls are found by [`Sandbox::calls`].
    pub(crate) fn fake(&self, program: &str, body: &str) {
        self.lacks(program);
        let calls = self.calls_file(program);
        let record = format!("printf '%q ' \"$@\" >>{0}; echo >>{0}", calls.display());
        self.write(
            &format!("bin/{program}"),
            &format!("#!/bin/bash\n{record}\n{body}\n"),
        );
    }

    /// Has a program record its calls, and do what it does.
    pub(crate) fn watch(&self, program: &str) {
        if let Ok(real) = fs::canonicalize(self.bin().join(program)) {
            self.fake(program, &format!("exec {} \"$@\"", real.display()));
        }
    }

    /// The arguments of each call of a program that is [fake](Sandbox::fake) or
    /// [watched](Sandbox::watch), a line each.
    pub(crate) fn calls(&self, program: &str) -> String {
        fs::read_to_string(self.calls_file(program)).unwrap_or_default()
    }

    fn calls_file(&self, program: &str) -> PathBuf {
        self.path().join(format!("{program}.calls"))
    }

    /// Writes a program, by its path in the copy.
    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs a line of shell at the root of the copy, with nothing in the environment but `settings`.
    pub(crate) fn run(&self, line: &str, settings: &[(&str, &str)]) -> Outcome {
        // By its full path: the sandbox may lack it.
        let mut bounded = Command::new("/usr/bin/timeout");
        bounded.args([BOUND, "/bin/bash", "-c", line]);
        bounded.current_dir(self.path()).env_clear();
        bounded.env("PATH", self.bin()).env("HOME", self.path());
        bounded.env("LC_ALL", "C.UTF-8");
        bounded.envs(settings.iter().copied());
        let output = bounded.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            code: output.status.code(),
            text: text(&output.stdout) + &text(&output.stderr),
        }
    }
}
