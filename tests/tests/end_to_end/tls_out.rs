//! TLS of connections to the broker, the database, the client service and the collector of spans: whom they trust, what they
//! prove, and files that are read again.

use broker::{Headers, Queue};
use messages::{FetchChunk, ObjectId};
use tests::client::{ClientService, Reply};
use tests::processes::{Process, output};
use tests::servers::span_collector::{Manner, OTLP, SpanCollector, ZIPKIN};
use tests::tls::{Authority, Certified, Speaks, TlsProxy, replace};
use tests::wait::eventually;
use tests::world::World;

use crate::binaries::{flags, replaced};

/// A server that a process connects to.
#[derive(Clone, Copy, Debug)]
enum Server {
    Broker,
    Database,
    ClientService,
}

impl Server {
    /// Its name among the dependencies of the process.
    fn dependency(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Database => "database",
            Self::ClientService => "client service",
        }
    }

    /// Flags that name a client certificate. The database has it in its URL.
    fn identity_flags(self, certified: &Certified) -> Vec<String> {
        match self {
            Self::Broker => certified.flags("amqp"),
            Self::Database => Vec::new(),
            Self::ClientService => certified.flags("client"),
        }
    }
}

/// What a server shows, and asks for.
struct Guard<'a> {
    shown: &'a Certified,
    clients: Option<&'a Authority>,
}

/// Starts a process whose server speaks TLS; returns its place among what runs.
async fn start(
    world: &mut World,
    client: &ClientService,
    server: Server,
    guard: Guard<'_>,
    identity: Option<&Certified>,
    more: &[String],
) -> usize {
    let Guard { shown, clients } = guard;
    let mut flags = more.to_vec();
    flags.extend(
        identity
            .map(|identity| server.identity_flags(identity))
            .unwrap_or_default(),
    );
    match server {
        Server::Broker => {
            let url = TlsProxy::url(&world.amqp_url, Speaks::Tls, shown, clients).await;
            flags.push(format!("--amqp-url={}", url.replacen("amqp:", "amqps:", 1)));
        }
        Server::Database => {
            let url = TlsProxy::url(&world.database.url, Speaks::Postgres, shown, clients).await;
            let identity = identity.map(|Certified { certificate, key }| {
                let (certificate, key) = (certificate.display(), key.display());
                format!("&sslcert={certificate}&sslkey={key}")
            });
            let identity = identity.unwrap_or_default();
            flags.push(format!(
                "--database-url={url}?sslmode=verify-full{identity}"
            ));
        }
        Server::ClientService => {
            let upstream = client.url.strip_prefix("http://").unwrap().parse();
            let proxy = TlsProxy::start(upstream.unwrap(), Speaks::Tls, shown, clients).await;
            flags.push(format!("--client-url=https://{}", proxy.address));
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    match server {
        Server::Broker => world.start_ingest(&flags).await.1,
        Server::Database => world.start_janitor(&flags),
        Server::ClientService => {
            let fast = ["--probe-interval=50ms", "--retry-delays=50ms"];
            let started = world.start_fetcher(client, &[&fast[..], &flags].concat());
            let queue = world.broker.topology.name(Queue::Fetch);
            eventually("a consumer", async || {
                let is_there = world.broker.exists(&queue).await;
                let is_there = is_there && world.broker.consumers(Queue::Fetch).await > 0;
                is_there.then_some(())
            })
            .await;
            let chunk = FetchChunk {
                object_ids: vec![ObjectId(1)],
            };
            let headers = Headers::default();
            world.broker.publish(Queue::Fetch, &chunk, &headers).await;
            started
        }
    }
}

/// Waits until the process that was started has the server.
async fn until_up(world: &mut World, client: &ClientService, server: Server, started: usize) {
    match server {
        Server::ClientService => {
            let asked = async || (client.total() > 0).then_some(());
            eventually("a look-up", asked).await;
        }
        _ => world.running(started).ready().await,
    }
}

/// What is right, what is wrong, and the reason that is said.
async fn assert_guarded(server: Server) {
    let world = &mut World::new().await;
    let [ours, foreign] = ["ours", "foreign"].map(Authority::new);
    let right = ours.certify("server", &["127.0.0.1"]);
    let identity = ours.certify("client", &["client.example"]);
    let stranger = foreign.certify("client", &["client.example"]);
    let trust = ours.flag();
    let names = &["127.0.0.1"];
    let expired = ours.certify_until_2020("expired", names);
    let elsewhere = ours.certify("elsewhere", &["elsewhere.example"]);
    let unknown = foreign.certify("server", names);
    let clients = Some(&ours);
    for (shown, clients, identity, trust, reason) in [
        (&right, None, None, Some(&trust), None),
        (&right, None, None, None, Some("UnknownIssuer")),
        (&unknown, None, None, Some(&trust), Some("UnknownIssuer")),
        (&expired, None, None, Some(&trust), Some("expired")),
        (
            &elsewhere,
            None,
            None,
            Some(&trust),
            Some("not valid for name"),
        ),
        (&right, clients, Some(&identity), Some(&trust), None),
        (
            &right,
            clients,
            None,
            Some(&trust),
            Some("CertificateRequired"),
        ),
        (
            &right,
            clients,
            Some(&stranger),
            Some(&trust),
            Some("UnknownCA"),
        ),
    ] {
        let client = ClientService::start(|_, _| Reply::Online).await;
        let guard = Guard { shown, clients };
        let more: Vec<String> = trust.into_iter().cloned().collect();
        let started = start(world, &client, server, guard, identity, &more).await;
        match reason {
            None => until_up(world, &client, server, started).await,
            Some(reason) => {
                let running = world.running(started);
                running.until_down(server.dependency(), reason).await;
                assert_eq!(client.total(), 0);
            }
        }
        world.running(started).kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_trusted_by_its_certificate_and_sees_ours() {
    assert_guarded(Server::Broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_trusted_by_its_certificate_and_sees_ours() {
    assert_guarded(Server::Database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_service_is_trusted_by_its_certificate_and_sees_ours() {
    assert_guarded(Server::ClientService).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_again_when_they_change() {
    let world = &mut World::new().await;
    for server in [Server::Broker, Server::Database, Server::ClientService] {
        let [old, new] = ["old", "new"].map(Authority::new);
        let shown = new.certify("server", &["127.0.0.1"]);
        let client = ClientService::start(|_, _| Reply::Online).await;
        // Those of the old authority are not let in.
        let identity = old.certify("client", &["client.example"]);
        let guard = Guard {
            shown: &shown,
            clients: Some(&new),
        };
        let more = [old.flag()];
        let started = start(world, &client, server, guard, Some(&identity), &more).await;
        let running = world.running(started);
        running
            .until_down(server.dependency(), "UnknownIssuer")
            .await;
        identity.replace_by(&new.certify("client", &["client.example"]));
        old.give_way_to(&new);
        until_up(world, &client, server, started).await;
        world.running(started).kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_bad_is_the_reason_why_there_is_no_connection() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", &["127.0.0.1"]);
    let identity = authority.certify("client", &["client.example"]);
    for server in [Server::Broker, Server::Database] {
        let client = ClientService::start(|_, _| Reply::Online).await;
        let foreign = Authority::new("foreign");
        // So that it connects again and again.
        let unknown = foreign.certify("server", &["127.0.0.1"]);
        let guard = Guard {
            shown: &unknown,
            clients: None,
        };
        let good = std::fs::read(&identity.key).unwrap();
        let more = [authority.flag()];
        let started = start(world, &client, server, guard, Some(&identity), &more).await;
        let running = world.running(started);
        running
            .until_down(server.dependency(), "UnknownIssuer")
            .await;
        replace(&identity.key, b"nonsense");
        let reason = format!("{}: no private key in this file", identity.key.display());
        running.until_down(server.dependency(), &reason).await;
        replace(&identity.key, &std::fs::read(&shown.key).unwrap());
        let reason = format!("{}: it is not the key", identity.key.display());
        running.until_down(server.dependency(), &reason).await;
        running.kill().await;
        replace(&identity.key, &good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_a_collector_whose_authority_is_known_and_to_no_other() {
    let world = &mut World::new().await;
    for format in [&ZIPKIN, &OTLP] {
        let [ours, foreign] = ["ours", "foreign"].map(Authority::new);
        let shown = ours.certify("server", &["127.0.0.1"]);
        let collector = SpanCollector::with(format, Manner::Takes).await;
        let proxy = TlsProxy::start(collector.address, Speaks::Tls, &shown, None).await;
        let flag = collector.flag().replace("http://", "https://");
        let [direct, encrypted] = [collector.address, proxy.address].map(|at| at.to_string());
        let flag = flag.replace(&direct, &encrypted);
        let mut flags = flags(world, "mock-client");
        flags.extend([flag, foreign.flag()]);
        flags.push("--callback-interval=100ms".to_owned());
        let mut process = Process::started("mock-client", &flags);
        let line = process.until_logged("UnknownIssuer").await;
        assert!(line.contains("span"), "{line}");
        assert!(collector.spans().is_empty());
        foreign.give_way_to(&ours);
        eventually("spans", async || {
            (!collector.spans().is_empty()).then_some(())
        })
        .await;
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_is_refused_by_setting_file_and_reason() {
    let world = &World::new().await;
    let authority = Authority::new("ours");
    let [one, other] = ["one", "other"].map(|name| authority.certify(name, &["host.example"]));
    let (certificate, key) = (one.certificate.display(), other.key.display());
    let (client, broker) = (
        "--client-url=https://host.invalid",
        "--amqp-url=amqps://host.invalid",
    );
    for (binary, settings, said) in [
        (
            "ingest",
            vec!["--ca-file=/none/such".to_owned()],
            "CA_FILE=/none/such: No such file".to_owned(),
        ),
        (
            "ingest",
            vec![format!("--ca-file={key}")],
            format!("CA_FILE={key}: no certificate in this file"),
        ),
        (
            "ingest",
            vec![
                broker.to_owned(),
                format!("--amqp-certificate-file={certificate}"),
                format!("--amqp-key-file={key}"),
            ],
            format!("AMQP_KEY_FILE={key}: it is not the key of the certificate in {certificate}"),
        ),
        (
            "ingest",
            one.flags("amqp"),
            "AMQP_CERTIFICATE_FILE needs an AMQP_URL with amqps://".to_owned(),
        ),
        (
            "fetcher",
            vec![
                client.to_owned(),
                format!("--client-certificate-file={certificate}"),
            ],
            "CLIENT_CERTIFICATE_FILE needs CLIENT_KEY_FILE".to_owned(),
        ),
        (
            "fetcher",
            one.flags("client"),
            "CLIENT_CERTIFICATE_FILE needs a CLIENT_URL with https://".to_owned(),
        ),
        (
            "janitor",
            vec![format!("--tls-key-file={key}")],
            "TLS_KEY_FILE needs TLS_CERTIFICATE_FILE".to_owned(),
        ),
    ] {
        let output = output(binary, &replaced(flags(world, binary), &settings), &[]).await;
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{binary} {settings:?}");
        assert!(shown.contains(&said), "{said:?} is missing in: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_ca_takes_any_name_but_no_other_authority() {
    let world = &mut World::new().await;
    let [ours, foreign] = ["ours", "foreign"].map(Authority::new);
    let names = &["elsewhere.example"];
    let [right, wrong] = [&ours, &foreign].map(|authority| authority.certify("server", names));
    let roots = ours.file();
    for (shown, mode, reason) in [
        (&right, "verify-ca", None),
        (
            &right,
            "verify-full",
            Some("certificate not valid for name"),
        ),
        (&wrong, "verify-ca", Some("UnknownIssuer")),
    ] {
        let url = TlsProxy::url(&world.database.url, Speaks::Postgres, shown, None).await;
        let roots = roots.display();
        let flag = format!("--database-url={url}?sslmode={mode}&sslrootcert={roots}");
        let started = world.start_janitor(&[&flag]);
        match reason {
            None => world.running(started).ready().await,
            Some(reason) => world.running(started).until_down("database", reason).await,
        }
    }
}
