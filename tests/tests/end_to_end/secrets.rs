//! Secrets in files: they are changed without a restart, and are shown nowhere.

use std::net::SocketAddr;

use settings::Spec;
use tempfile::TempDir;
use tests::client::{exchange, post_ids, until_ready};
use tests::processes::{Process, address_in, output};
use tests::servers::Servers;
use tests::servers::span_collector::{Manner, OTLP, SpanCollector};
use tests::wait::eventually;
use tests::world::{World, proxied};

use crate::binaries::{binaries, flags, replaced};
use crate::privileges::rabbitmqctl;

/// Passwords of characters that a URL has other uses for, with blanks around them.
const FIRST: &str = " hidden-1 p%40ss:/?#@ ü\"' ";
const SECOND: &str = "\thidden-2 p%40ss:/?#@ ü\"'  ";

/// A file with a secret.
pub(crate) struct SecretFile(TempDir);

impl SecretFile {
    pub(crate) fn new(text: &str) -> Self {
        let file = Self(TempDir::new().unwrap());
        file.write(text);
        file
    }

    pub(crate) fn name(&self) -> String {
        self.0.path().join("secret").display().to_string()
    }

    /// Replaces it as a whole.
    pub(crate) fn write(&self, text: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.name()).unwrap();
    }

    pub(crate) fn remove(&self) {
        std::fs::remove_file(self.name()).unwrap();
    }
}

async fn page(admin: SocketAddr, path: &str) -> String {
    exchange(admin, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await
}

/// Waits until a line of `/readyz` begins and goes on like this.
pub(crate) async fn until_said(admin: SocketAddr, dependency: &str, said: &str) {
    eventually(&format!("{dependency}: {said}"), async || {
        let answer = page(admin, "/readyz").await;
        let mut lines = answer.lines();
        let said = |line: &str| line.starts_with(&format!("{dependency}: ")) && line.contains(said);
        lines.any(said).then_some(())
    })
    .await;
}

/// Stops a process all of whose secrets have `hidden` in them, and looks for that in what it has shown: as it
/// is, in the three forms that base64 gives it, and as a list of bytes.
pub(crate) async fn assert_kept_secrets(mut process: Process, admin: SocketAddr) {
    const FORMS: [&str; 5] = [
        "hidden",
        "aGlkZGVu",
        "hpZGRlb",
        "oaWRkZW",
        "104, 105, 100, 100, 101, 110",
    ];
    let mut shown = String::new();
    for path in ["/", "/livez", "/readyz", "/metrics"] {
        shown.push_str(&page(admin, path).await);
    }
    process.stop().await;
    shown.push_str(&process.log());
    let told = |line: &&str| FORMS.iter().any(|form| line.contains(form));
    assert_eq!(shown.lines().find(told), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_the_broker_is_changed_without_a_restart() {
    let world = &mut World::new().await;
    if !Servers::shared().unwrap().broker.can_be_killed() {
        return;
    }
    let (user, (proxy, _)) = (world.prefix(), proxied(&world.amqp_url).await);
    rabbitmqctl(&["add_user", &user, FIRST]).await;
    rabbitmqctl(&["set_permissions", "-p", "/", &user, ".*", ".*", ".*"]).await;
    let file = SecretFile::new(&format!("{FIRST}\n"));
    let login = [
        format!("--amqp-url=amqp://nobody:hidden@{}/%2f", proxy.address),
        format!("--amqp-username={user}"),
        format!("--amqp-password-file={}", file.name()),
        "--log=trace".to_owned(),
    ];
    let mut process = Process::started("ingest", &replaced(flags(world, "ingest"), &login));
    let admin = address_in(&process.until_logged("admin_address=").await);
    until_said(admin, "broker", "ok").await;
    rabbitmqctl(&["change_password", &user, SECOND]).await;
    proxy.reset();
    until_said(admin, "broker", "ACCESS_REFUSED").await;
    file.remove();
    let reason = format!("reading {}: No such file", file.name());
    until_said(admin, "broker", &reason).await;
    file.write(SECOND);
    until_said(admin, "broker", "ok").await;
    assert_kept_secrets(process, admin).await;
    rabbitmqctl(&["delete_user", &user]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_the_database_is_changed_without_a_restart() {
    let world = &mut World::new().await;
    let (proxy, url) = proxied(&world.database.url).await;
    let (_, place) = url.split_once('@').unwrap();
    let (_, role) = url.rsplit_once('/').unwrap();
    let quoted = |password: &str| format!("'{}'", password.replace('\'', "''"));
    let create = format!(
        "create role {role} superuser login password {}",
        quoted(FIRST)
    );
    world.database.client.batch_execute(&create).await.unwrap();
    let (name, password) = (
        SecretFile::new(role),
        SecretFile::new(&format!("{FIRST}\r\n")),
    );
    let login = [
        format!("--database-url=postgres://nobody:hidden@{place}"),
        format!("--database-username-file={}", name.name()),
        format!("--database-password-file={}", password.name()),
        "--log=trace".to_owned(),
    ];
    let mut process = Process::started("janitor", &replaced(flags(world, "janitor"), &login));
    let admin = address_in(&process.until_logged("admin_address=").await);
    until_said(admin, "database", "ok").await;
    let change = format!("alter role {role} password {}", quoted(SECOND));
    world.database.client.batch_execute(&change).await.unwrap();
    proxy.reset();
    until_said(admin, "database", "28P01").await;
    password.remove();
    let reason = format!("reading {}: No such file", password.name());
    until_said(admin, "database", &reason).await;
    password.write(SECOND);
    until_said(admin, "database", "ok").await;
    assert_kept_secrets(process, admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_in_the_environment_are_taken_as_they_are() {
    let world = &mut World::new().await;
    if !Servers::shared().unwrap().broker.can_be_killed() {
        return;
    }
    let url = world.database.url.clone();
    let (user, (_, place)) = (world.prefix(), url.split_once('@').unwrap());
    let (_, role) = url.rsplit_once('/').unwrap();
    rabbitmqctl(&["add_user", &user, FIRST]).await;
    rabbitmqctl(&["set_permissions", "-p", "/", &user, ".*", ".*", ".*"]).await;
    let create = format!("create role {role} superuser login");
    world.database.client.batch_execute(&create).await.unwrap();
    let (_, broker) = world.amqp_url.split_once('@').unwrap();
    let login = [
        format!("--amqp-url=amqp://nobody:hidden@{broker}"),
        format!("--amqp-username={user}"),
        format!("--database-url=postgres://nobody:hidden@{place}"),
        format!("--database-username={role}"),
    ];
    for password in [" a b ", "%40@/%", "'ü\"\\ $HOME\n", "  "] {
        rabbitmqctl(&["change_password", &user, password]).await;
        let quoted = password.replace('\'', "''").replace('\\', "\\\\");
        let change = format!("alter role {role} password e'{quoted}'");
        world.database.client.batch_execute(&change).await.unwrap();
        let mut process = Process::new("janitor", &replaced(flags(world, "janitor"), &login));
        let passwords = ["AMQP_PASSWORD", "DATABASE_PASSWORD"];
        process.set_environment(passwords.map(|name| (name.into(), password.into())).into());
        process.start();
        let admin = address_in(&process.until_logged("admin_address=").await);
        until_said(admin, "broker (consuming)", "ok").await;
        until_said(admin, "database", "ok").await;
        process.stop().await;
    }
    rabbitmqctl(&["delete_user", &user]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_address_can_be_in_a_file() {
    let world = &mut World::new().await;
    let (amqp, database) = (
        SecretFile::new(&world.amqp_url),
        SecretFile::new(&format!("{}\n", world.database.url)),
    );
    let queues = format!("--queue-prefix={}", world.prefix());
    let mut process = Process::new(
        "janitor",
        &[queues, "--admin-address=127.0.0.1:0".to_owned()],
    );
    process.set_environment(vec![
        ("AMQP_URL_FILE".to_owned(), amqp.name()),
        ("DATABASE_URL_FILE".to_owned(), database.name()),
    ]);
    process.start();
    let line = process.until_logged("starting").await;
    assert!(
        line.contains(&format!("AMQP_URL=file:{}", amqp.name())),
        "{line}"
    );
    process.until_logged("broker (consuming)").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_the_collector_that_the_file_names_now() {
    let world = &mut World::new().await;
    let (first, second) = (SpanCollector::start().await, SpanCollector::start().await);
    let url = SpanCollector::url;
    let file = SecretFile::new(&url(&first));
    let mut flags = flags(world, "ingest");
    flags.push(format!("--zipkin-url-file={}", file.name()));
    let mut process = Process::new("ingest", &flags);
    // That of the tests is off.
    process.set_environment(vec![("ZIPKIN_URL".to_owned(), String::new())]);
    process.start();
    let address = process.address_in_log("accepting callbacks").await;
    until_ready(address).await;
    for collector in [&first, &second] {
        file.write(&url(collector));
        eventually("a span", async || {
            post_ids(address, &[1]).await;
            (!collector.spans().is_empty()).then_some(())
        })
        .await;
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_spans_have_the_headers_that_the_file_has_now() {
    let world = &mut World::new().await;
    let collector = SpanCollector::with(&OTLP, Manner::Takes).await;
    let headers = |word: &str| format!("Authorization=Bearer%20hidden-{word},x-scope=a%2Cb\n");
    let file = SecretFile::new(&headers("1"));
    let flags = [
        flags(world, "ingest"),
        vec![
            collector.flag(),
            format!("--otel-exporter-otlp-headers-file={}", file.name()),
            "--log=trace".to_owned(),
        ],
    ];
    let mut process = Process::started("ingest", &flags.concat());
    let admin = address_in(&process.until_logged("admin_address=").await);
    let address = process.address_in_log("accepting callbacks").await;
    until_ready(address).await;
    for word in ["1", "2"] {
        file.write(&headers(word));
        eventually("a request with the word", async || {
            post_ids(address, &[1]).await;
            let last = collector.headers().pop()?;
            let expected = format!("Bearer hidden-{word}");
            (last["authorization"] == *expected && last["x-scope"] == "a,b").then_some(())
        })
        .await;
    }
    assert!(!collector.spans().is_empty());
    assert_kept_secrets(process, admin).await;
}

/// Asserts that each binary refuses the secrets that `flags` gives it, says `reason` of each, and shows none.
async fn assert_refused(flags: impl Fn(&Spec) -> Vec<String>, reason: impl Fn(&Spec) -> String) {
    for (binary, specs) in binaries() {
        let secrets: Vec<Spec> = specs.into_iter().filter(|spec| spec.is_secret).collect();
        assert!(!secrets.is_empty(), "{binary}");
        let given: Vec<String> = secrets.iter().flat_map(&flags).collect();
        // That of the tests is off.
        let output = output(binary, &given, &[("ZIPKIN_URL", "")]).await;
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{binary}: {shown}");
        for secret in &secrets {
            assert!(shown.contains(&reason(secret)), "{binary}: {shown}");
        }
        assert!(!shown.contains("hidden"), "{binary}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_secret_is_refused_at_the_start_with_the_reason() {
    let (empty, missing) = (SecretFile::new("\n"), SecretFile::new("hidden"));
    missing.remove();
    for (file, reason) in [
        (empty.name(), "the file is empty"),
        (missing.name(), "No such file"),
        ("/dev/zero".to_owned(), "not a regular file"),
    ] {
        assert_refused(
            |spec| vec![format!("--{}-file={file}", spec.flag())],
            |spec| format!("{}_FILE={file}: {reason}", spec.variable()),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_given_twice_is_refused() {
    let file = SecretFile::new("hidden");
    let twice = |spec: &Spec| {
        vec![
            format!("--{}=hidden", spec.flag()),
            format!("--{}-file={}", spec.flag(), file.name()),
        ]
    };
    let reason = |spec: &Spec| {
        let name = spec.variable();
        format!("{name} and {name}_FILE: both are given")
    };
    assert_refused(twice, reason).await;
}
