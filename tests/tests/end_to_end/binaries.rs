//! The binaries as an operator meets them: their settings, their signals, their logs.

use process::ProcessConfig;
use serde_json::Value;
use settings::Spec;
use tests::processes::{Process, exit_code_with_full_log, output};
use tests::world::World;

pub(crate) fn binaries() -> [(&'static str, Vec<Spec>); 4] {
    use settings::Settings;
    [
        (ingest::Config::NAME, ingest::Config::specs()),
        (fetcher::Config::NAME, fetcher::Config::specs()),
        (janitor::Config::NAME, janitor::Config::specs()),
        (mock_client::Config::NAME, mock_client::Config::specs()),
    ]
}

/// Flags with which a binary runs in the test's world, on ports that the system chooses.
pub(crate) fn flags(world: &World, binary: &str) -> Vec<String> {
    let mut flags = vec!["--admin-address=127.0.0.1:0".to_owned()];
    match binary {
        "ingest" => {
            flags.extend(world.ingest_flags());
            flags.push("--listen-address=127.0.0.1:0".to_owned());
        }
        "mock-client" => {
            flags.push("--listen-address=127.0.0.1:0".to_owned());
            flags.push("--callback-url=http://127.0.0.1:1/".to_owned());
        }
        _ => flags.extend(world.flags()),
    }
    flags
}

/// Starts a binary, and reads its log up to its first line.
pub(crate) async fn started(world: &mut World, binary: &str, more: &[&str]) -> Process {
    if binary == "fetcher" {
        let config = tests::processes::configure::<fetcher::Config>(world.flags(), more);
        world.will_use(&fetcher::topology(&config));
    }
    let mut flags = flags(world, binary);
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let mut started = Process::started(binary, &flags);
    started.until_logged("starting").await;
    started
}

#[tokio::test(flavor = "multi_thread")]
async fn every_binary_stops_on_sigterm_and_on_sigint_with_exit_code_0() {
    let world = &mut World::new().await;
    for (binary, _) in binaries() {
        for signal in ["TERM", "INT"] {
            let mut process = started(world, binary, &[]).await;
            let up = match binary {
                "fetcher" | "janitor" => "broker (consuming)",
                "ingest" => "dependency is up dependency=\"broker\"",
                _ => "callback",
            };
            process.until_logged(up).await;
            assert_stops(process, signal).await;
        }
    }
}

/// The log, whose first line names the process, tells which one did not.
async fn assert_stops(mut process: Process, signal: &str) {
    process.signal(signal).await;
    let code = process.end().await;
    assert_eq!(code, Some(0), "on {signal}: {:#?}", process.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_binary_stops_while_nothing_is_reachable() {
    let world = &mut World::new().await;
    for (binary, _) in binaries() {
        let mut process =
            Process::started(binary, &replaced(flags(world, binary), &nowhere(binary, 1)));
        let waiting = match binary {
            "mock-client" => "callback failed",
            _ => "dependency is down",
        };
        process.until_logged(waiting).await;
        assert_stops(process, "TERM").await;
    }
}

/// As when a host is paused: connections are taken, and nothing is ever answered.
#[tokio::test(flavor = "multi_thread")]
async fn every_binary_stops_while_nothing_answers() {
    let world = &mut World::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut connections = Vec::new();
    for (binary, _) in binaries() {
        let mut flags = replaced(flags(world, binary), &nowhere(binary, port));
        flags.push("--shutdown-timeout=2s".to_owned());
        let mut process = Process::started(binary, &flags);
        process.until_logged("starting").await;
        if binary != "mock-client" {
            connections.push(silent.accept().await.unwrap());
        }
        assert_stops(process, "TERM").await;
    }
}

/// Flags that lead a binary to a port of this host in place of its servers.
fn nowhere(binary: &str, port: u16) -> Vec<String> {
    let broker = format!("--amqp-url=amqp://nobody:x@127.0.0.1:{port}/%2f");
    let database = format!("--database-url=postgres://nobody:x@127.0.0.1:{port}/none");
    match binary {
        "mock-client" => vec![],
        "ingest" => vec![broker],
        _ => vec![broker, database],
    }
}

/// `flags` with `more`, which replaces flags of the same name.
pub(crate) fn replaced(flags: Vec<String>, more: &[String]) -> Vec<String> {
    let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
    let given: Vec<String> = more.iter().map(|flag| name(flag)).collect();
    let kept = flags
        .into_iter()
        .filter(|flag| !given.contains(&name(flag)));
    kept.chain(more.iter().cloned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_all_named_and_the_exit_code_is_not_0() {
    let wrong = [
        ("ADMIN_ADDRESS", "nowhere"),
        ("SHUTDOWN_TIMEOUT", "soon"),
        ("LOG_FORMAT", "xml"),
        ("AMQP_URL", "http://user:secret@host"),
        ("DATABASE_URL", "mysql://user:secret@host"),
        ("OBJECT_TTL", "0s"),
        ("FETCH_CONCURRENCY", "0"),
        ("BODY_LIMIT", "1 furlong"),
        ("ERROR_RATIO", "2"),
        ("CALLBACK_INTERVAL", "0s"),
        ("CLIENT_URL", "http://host/?key=value"),
    ];
    for (binary, specs) in binaries() {
        let output = output(binary, &[], &wrong).await;
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{binary}: {shown}");
        for (name, _) in wrong {
            let is_setting = specs.iter().any(|spec| spec.variable() == name);
            assert_eq!(
                shown.contains(name),
                is_setting,
                "{binary}, {name}: {shown}"
            );
        }
        assert!(!shown.contains("secret"), "{binary}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_lists_every_setting() {
    for (binary, specs) in binaries() {
        let output = output(binary, &["--help".to_owned()], &[]).await;
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0));
        for spec in specs {
            let flag = format!("--{} <VALUE>", spec.flag());
            assert!(
                help.contains(&flag) && help.contains(&spec.variable()),
                "{binary}: {flag} in {help}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_masked_in_the_start_up_log() {
    let world = &mut World::new().await;
    let secrets = [
        "--amqp-url=amqp://user:hidden-word@127.0.0.1:1/%2f",
        "--database-url=postgres://user@127.0.0.1:1/none?password=hidden-word",
    ];
    let flags = replaced(flags(world, "janitor"), &secrets.map(str::to_owned));
    let mut process = Process::started("janitor", &flags);
    let line = process.until_logged("starting").await;
    assert!(
        line.contains("AMQP_URL=amqp://user:***@127.0.0.1:1/%2f"),
        "{line}"
    );
    process.signal("TERM").await;
    process.end().await;
    assert!(
        !process.lines.concat().contains("hidden-word"),
        "{:#?}",
        process.lines
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_instance_can_be_asked_whether_it_is_ready() {
    let world = &mut World::new().await;
    let mut process = started(world, "janitor", &["--log-format=json"]).await;
    let start: Value = serde_json::from_str(&process.lines[0]).unwrap();
    let address = format!(
        "--admin-address={}",
        start["admin_address"].as_str().unwrap()
    );
    process.until_logged("broker (consuming)").await;
    let ask = async |path: &str| {
        let answer = output("janitor", &[address.clone(), format!("--ask={path}")], &[]).await;
        (
            answer.status.code(),
            String::from_utf8_lossy(&answer.stdout).into_owned(),
        )
    };
    assert_eq!(ask("/livez").await, (Some(0), "ok\n".to_owned()));
    tests::wait::eventually("readiness", async || {
        (ask("/readyz").await.0 == Some(0)).then_some(())
    })
    .await;
    let (_, lines) = ask("/readyz").await;
    assert!(
        lines.contains("database: ok\n") && lines.contains("broker (consuming): ok\n"),
        "{lines}"
    );
    let (code, metrics) = ask("/metrics").await;
    assert!(code == Some(0) && metrics.contains("# TYPE "), "{metrics}");
    assert_eq!(ask("/nothing").await.0, Some(1));
    // What only the process itself reads may be wrong by now.
    let wrong = [
        ("AMQP_URL", "nowhere"),
        ("DATABASE_PASSWORD_FILE", "/none/such"),
        ("CA_FILE", "/none/such"),
        ("SWEEP_BATCH", "many"),
    ];
    let arguments = [address.clone(), "--ask=/livez".to_owned()];
    let answer = output("janitor", &arguments, &wrong).await;
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    let answer = output("janitor", &arguments[1..], &[("ADMIN_ADDRESS", "x")]).await;
    assert_eq!(answer.status.code(), Some(2), "{answer:?}");
    process.signal("TERM").await;
    assert_eq!(process.end().await, Some(0));
    assert_eq!(ask("/livez").await.0, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_binary_leaves_a_core_file_with_secrets() {
    let world = &mut World::new().await;
    for (binary, _) in binaries() {
        let process = started(world, binary, &[]).await;
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
        let mut lines = limits.lines();
        let line = lines.find(|line| line.starts_with("Max core file size"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        assert_eq!(words[4..], ["0", "0", "bytes"], "{binary}");
        assert_stops(process, "TERM").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_for_machines_are_one_json_object_a_line() {
    let world = &mut World::new().await;
    for (binary, _) in binaries() {
        let mut process = started(world, binary, &["--log-format=json"]).await;
        process.signal("TERM").await;
        assert_eq!(process.end().await, Some(0), "{:#?}", process.lines);
        for line in &process.lines {
            let line: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(
                line["timestamp"].is_string()
                    && line["level"].is_string()
                    && line["message"].is_string()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_a_clear_error() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    for (binary, _) in binaries() {
        let output = output(binary, &[format!("--admin-address={address}")], &[]).await;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{binary}");
        assert!(
            shown.contains(&address.to_string()) && shown.contains("in use"),
            "{binary}: {shown}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_ends_no_binary() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    for (binary, _) in binaries() {
        // It writes lines until it finds the address taken, which is another exit code than a panic's.
        let flags = [
            format!("--admin-address={address}"),
            "--log=trace".to_owned(),
        ];
        assert_eq!(
            exit_code_with_full_log(binary, &flags).await,
            Some(1),
            "{binary}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_with_few_file_descriptors_has_fewer_look_ups_in_flight_and_says_so() {
    let world = &mut World::new().await;
    world.will_use(&fetcher::topology(&tests::processes::configure(
        world.flags(),
        &[],
    )));
    let mut fetcher = Process::new("fetcher", &flags(world, "fetcher"));
    fetcher.set_descriptor_limit(1_024);
    fetcher.start();
    let warning = fetcher.until_logged("file descriptors are limited").await;
    assert!(
        warning.contains("wanted=16384 possible=768 limit=1024"),
        "{warning}"
    );
    fetcher.until_logged("broker (consuming)").await;
    let warnings = fetcher.lines.iter().filter(|line| line.contains("WARN"));
    assert_eq!(warnings.count(), 1, "{:#?}", fetcher.lines);
}
