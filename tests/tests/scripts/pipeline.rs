//! The whole pipeline on this machine's packages, as a newcomer starts it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use tests::processes::build;

use crate::sandbox::Sandbox;

/// Programs that are asked with, or for, a password.
const WATCHED: [&str; 8] = [
    "curl", "env", "setsid", "setpriv", "tee", "timeout", "psql", "flock",
];

/// Usual ports, which others have.
const USUAL: [u16; 3] = [9090, 9010, 15672];

/// A pipeline that is stopped, its data with it, whatever becomes of the test.
struct Running<'a>(&'a Sandbox);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let settings = [("ENGINE", "none")];
        let outcome = self.0.run("scripts/down --volumes", &settings);
        if !thread::panicking() {
            assert_eq!(outcome.code, Some(0), "{outcome:?}");
        }
    }
}

/// The binaries of this test run take the place of those that the scripts would build.
fn sandbox() -> Sandbox {
    build();
    let sandbox = Sandbox::new();
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    fs::create_dir(sandbox.path().join("target")).unwrap();
    symlink(folder, sandbox.path().join("target/release")).unwrap();
    for program in WATCHED {
        sandbox.watch(program);
    }
    sandbox
}

/// The arguments of every process of this machine.
fn arguments() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let read = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    read.map(|words| String::from_utf8_lossy(&words).replace('\0', " "))
        .collect()
}

/// Looks at all processes until it is told to stop; the arguments in which `password` is.
fn spy(password: &Path, stop: &Receiver<()>) -> Vec<String> {
    let mut seen = Vec::new();
    while stop.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
        if let Ok(password) = fs::read_to_string(password)
            && !password.is_empty()
        {
            seen.extend(
                arguments()
                    .into_iter()
                    .filter(|line| line.contains(&password)),
            );
        }
    }
    seen
}

#[test]
fn it_starts_behind_a_proxy_beside_others_and_tells_nobody_its_password() {
    if !Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists() {
        // Where there are containers, scripts/test installs no servers.
        return;
    }
    let sandbox = sandbox();
    let held: Vec<_> = USUAL
        .map(|port| TcpListener::bind(("127.0.0.1", port)))
        .into();
    let password = sandbox.path().join(".run/host/data/password");
    let (stop, stopped) = channel();
    let spying = {
        let password = password.clone();
        thread::spawn(move || spy(&password, &stopped))
    };
    let running = Running(&sandbox);
    // Nobody listens at port 9.
    let proxy = "http://127.0.0.1:9";
    let settings = [
        ("ENGINE", "none"),
        ("http_proxy", proxy),
        ("https_proxy", proxy),
        ("all_proxy", proxy),
        (
            "ZIPKIN_URL",
            "http://me:hidden-word@127.0.0.1:9/api/v2/spans",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://me:hidden-word@127.0.0.1:9/otlp?key=hidden-word",
        ),
        ("CLIENT_URL", "http://me:hidden-word@127.0.0.1:9"),
    ];
    let up = sandbox.run("scripts/up --detach", &settings);
    assert_eq!(up.code, Some(0), "{up:?}");
    for port in USUAL {
        assert!(up.text.contains(&format!("port {port} is taken")), "{up:?}");
    }
    assert!(up.text.contains("answered {\"accepted\":20}"), "{up:?}");
    for path in ["api/v2/spans", "otlp"] {
        let said = format!("spans go to http://***@127.0.0.1:9/{path}\n");
        assert!(up.text.contains(&said), "{up:?}");
    }
    assert!(!up.text.contains("hidden-word"), "{up:?}");
    // The broker counts its queues every few seconds, and each look takes 2 s.
    let mut looks = (0..20).map(|_| sandbox.run("scripts/status", &settings));
    let is_silent = |text: &str| text.contains("the broker does not say");
    let status = looks
        .find(|status| !is_silent(&status.text))
        .expect("the broker says what is queued");
    for row in [
        "accepted",
        "queued",
        "looked up",
        "stored",
        "deleted",
        "since",
        "state",
    ] {
        assert!(
            status.text.contains(&format!("\n{row}")) || status.text.starts_with(row),
            "{status:?}"
        );
    }
    assert!(status.text.contains("(ingest x 1)"), "{status:?}");
    assert!(
        !status.text.contains("the broker does not say"),
        "{status:?}"
    );
    let secret = fs::read_to_string(&password).unwrap();
    assert!(!arguments().iter().any(|line| line.contains("hidden-word")));
    drop(running);
    stop.send(()).unwrap();
    assert_eq!(spying.join().unwrap(), Vec::<String>::new());
    for program in WATCHED {
        let calls = sandbox.calls(program);
        assert!(!calls.contains(&secret), "{program}: {calls}");
    }
    let folder = sandbox.path().to_str().unwrap().to_owned();
    let left: Vec<_> = arguments()
        .into_iter()
        .filter(|line| line.contains(&folder))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(!sandbox.path().join(".run/host").exists());
    drop(held);
}
