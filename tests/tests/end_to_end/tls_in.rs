//! TLS of clients: what `ingest` shows, which versions of HTTP it speaks, and a certificate that is replaced under load.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker::Queue;
use clap::Parser;
use futures::future::join_all;
use http::{StatusCode, Version};
use reqwest::{Certificate, Client, ClientBuilder};
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use tests::client::exchange;
use tests::processes::{Process, address_in, output};
use tests::tls::{Authority, Certified, replace};
use tests::wait::{BOUND, eventually};
use tests::world::World;
use tls::certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::binaries::{flags, replaced};

const CALLBACK: &str = r#"{"object_ids":[1]}"#;
const NAMES: &[&str] = &["127.0.0.1"];

/// An HTTP client that trusts this authority alone.
fn client(authority: &Authority) -> ClientBuilder {
    let certificate = Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    Client::builder()
        .no_proxy()
        .timeout(BOUND)
        .tls_certs_only([certificate])
}

async fn post(client: &Client, address: SocketAddr) -> reqwest::Result<(StatusCode, Version)> {
    let posted = client.post(format!("https://{address}/callback"));
    let answer = posted.body(CALLBACK).send().await?;
    Ok((answer.status(), answer.version()))
}

/// Starts `ingest` with a certificate; returns its address.
async fn start(world: &mut World, shown: &Certified, more: &[&str]) -> SocketAddr {
    let mut flags = shown.flags("tls");
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    world.ingest(&flags).await
}

/// The certificate that is shown at `address`.
async fn shown_at(
    authority: &Authority,
    address: SocketAddr,
) -> io::Result<CertificateDer<'static>> {
    let stream = TcpStream::connect(address).await?;
    let connector = authority.connector();
    let stream = connector.connect(address.ip().into(), stream).await?;
    let (_, session) = stream.get_ref();
    Ok(session.peer_certificates().unwrap()[0].clone())
}

async fn until_shown(authority: &Authority, address: SocketAddr, certified: &Certified) {
    let new = certificates(&certified.certificate).unwrap().remove(0);
    eventually("the new certificate", async || {
        (shown_at(authority, address).await.unwrap() == new).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_chosen_by_the_client() {
    let world = &mut World::new().await;
    let [ours, foreign] = ["ours", "foreign"].map(Authority::new);
    let address = start(world, &ours.certify("server", NAMES), &[]).await;
    let either = client(&ours).build().unwrap();
    let old = client(&ours).http1_only().build().unwrap();
    for (client, version) in [(&either, Version::HTTP_2), (&old, Version::HTTP_11)] {
        for _ in 0..2 {
            let answer = post(client, address).await.unwrap();
            assert_eq!(answer, (StatusCode::ACCEPTED, version));
        }
    }
    world.broker.until_ready(Queue::Fetch, 4).await;
    let distrustful = client(&foreign).build().unwrap();
    let error = post(&distrustful, address).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_resumes_its_session() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let address = start(world, &authority.certify("server", NAMES), &[]).await;
    let connector = authority.connector();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect(address.ip().into(), stream).await;
        let mut stream = stream.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind());
        let request = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        // It fails if the server does not say goodbye.
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    }
    let expected = [HandshakeKind::Full, HandshakeKind::Resumed];
    assert_eq!(kinds, expected.map(Some));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_under_load_without_a_failed_request() {
    const CLIENTS: usize = 8;
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", NAMES);
    let address = start(world, &shown, &[]).await;
    let kept = client(&authority).build().unwrap();
    post(&kept, address).await.unwrap();
    let (is_over, accepted) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = join_all((0..CLIENTS).map(async |number| {
        // Half of them make a connection for each request.
        let idle = number % 2;
        let client = client(&authority).pool_max_idle_per_host(idle);
        let client = client.build().unwrap();
        while !is_over.load(Ordering::Relaxed) {
            let (status, _) = post(&client, address).await.unwrap();
            assert_eq!(status, StatusCode::ACCEPTED);
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let renewal = async {
        for number in 0..2 {
            let new = authority.certify(&format!("new-{number}"), NAMES);
            shown.replace_by(&new);
            until_shown(&authority, address, &new).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, renewal);
    assert!(accepted.load(Ordering::Relaxed) > CLIENTS);
    // The connection from before.
    post(&kept, address).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_that_cannot_be_used_is_said_once_and_the_old_one_stays() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", NAMES);
    let mut all = flags(world, "ingest");
    all.extend(shown.flags("tls"));
    let mut process = Process::started("ingest", &all);
    let address = process.address_in_log("accepting callbacks").await;
    let old = certificates(&shown.certificate).unwrap().remove(0);
    let other = authority.certify("other", NAMES);
    // The key of another certificate, nonsense, and nothing.
    for key in [
        Some(std::fs::read(&other.key).unwrap()),
        Some(b"nonsense".to_vec()),
        None,
    ] {
        match key {
            Some(key) => replace(&shown.key, &key),
            None => std::fs::remove_file(&shown.key).unwrap(),
        }
        let ask = async {
            loop {
                match shown_at(&authority, address).await {
                    Ok(shown) => assert_eq!(shown, old),
                    Err(error) => return error,
                }
            }
        };
        tokio::select! {
            error = ask => panic!("{error}: {}", process.log()),
            line = process.until_logged("the old one stays") => {
                assert!(line.contains(&shown.key.display().to_string()), "{line}");
            }
        }
    }
    // The files are looked at more than once meanwhile.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(shown_at(&authority, address).await.unwrap(), old);
    }
    let log = process.log();
    assert_eq!(log.matches("the old one stays").count(), 3, "{log}");
    shown.replace_by(&other);
    until_shown(&authority, address, &other).await;
    process.until_logged("was read again").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_handshake_is_let_go() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", NAMES);
    let limits = ["--header-timeout=200ms", "--idle-timeout=5m"];
    let address = start(world, &shown, &limits).await;
    for begin in [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        assert_eq!(exchange(address, begin).await, "", "{begin:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_counts_as_a_connection_and_makes_room_for_others() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", NAMES);
    let limits = ["--connections-limit=2", "--header-timeout=5m"];
    let address = start(world, &shown, &limits).await;
    let connect = async || TcpStream::connect(address).await.unwrap();
    let mut silent = [connect().await, connect().await];
    let client = client(&authority).build().unwrap();
    eventually("room for another client", async || {
        let (status, _) = post(&client, address).await.ok()?;
        (status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    // One of the two was closed.
    let [one, other] = &mut silent;
    let (mut byte, mut another) = ([0], [0]);
    let closed = async {
        tokio::select! {
            read = one.read(&mut byte) => read.unwrap(),
            read = other.read(&mut another) => read.unwrap(),
        }
    };
    assert_eq!(timeout(BOUND, closed).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_keep_nobody_out_for_long() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", NAMES);
    let limits = ["--connections-limit=2", "--header-timeout=5m"];
    let address = start(world, &shown, &limits).await;
    // As many as are served, and as many as are refused at once.
    let silent = (0..140).map(async |_| TcpStream::connect(address).await.unwrap());
    let _silent = join_all(silent).await;
    let client = client(&authority).build().unwrap();
    eventually("room for another client", async || {
        let (status, _) = post(&client, address).await.ok()?;
        (status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_a_client_is_refused_over_tls() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", NAMES);
    let address = start(world, &shown, &["--connections-limit=1"]).await;
    let old = client(&authority).http1_only();
    let old = old.pool_max_idle_per_host(0).build().unwrap();
    eventually("a refusal", async || {
        // Nobody else is let in for a second.
        let _first = TcpStream::connect(address).await.unwrap();
        let (status, _) = post(&old, address).await.ok()?;
        (status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_no_tls_is_told_so() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", NAMES);
    let address = start(world, &shown, &[]).await;
    for request in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = exchange(address, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(
            answer.ends_with("this port speaks TLS: https://\n"),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_speaks_tls_too_and_is_asked_by_the_health_check_and_by_status() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    // As certificates usually do, it names the host by which clients know it.
    let shown = authority.certify("server", &["ingest.example"]);
    let mut all = flags(world, "ingest");
    all.extend(shown.flags("tls"));
    let mut process = Process::started("ingest", &all);
    let admin = address_in(&process.until_logged("admin_address=").await);
    process
        .until_logged("dependency is up dependency=\"broker\"")
        .await;
    let answer = exchange(admin, b"GET /readyz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // The process has read its files, which are of no use to whoever asks.
    std::fs::write(&shown.certificate, "").unwrap();
    std::fs::remove_file(&shown.key).unwrap();
    all.push("--ask=/readyz".to_owned());
    let ask = replaced(all, &[format!("--admin-address={admin}")]);
    let answer = output("ingest", &ask, &[]).await;
    let shown = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    assert!(shown.contains("broker: ok"), "{shown}");
    let nowhere = ["fetcher", "janitor", "broker"].map(|name| format!("--{name}=127.0.0.1:1"));
    let words = ["status".to_owned(), "--line".to_owned()].into_iter();
    let words = words.chain([format!("--ingest={admin}")]).chain(nowhere);
    let mut shown = Vec::new();
    let arguments = status::Arguments::parse_from(words);
    status::run(&arguments, &mut shown).await.unwrap();
    let shown = String::from_utf8(shown).unwrap();
    let has_answered = !shown.contains("NO INGEST ANSWERS");
    assert!(
        has_answered && shown.contains("NO FETCHER ANSWERS"),
        "{shown}"
    );
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mock_client_calls_back_over_tls() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let shown = authority.certify("server", NAMES);
    let address = start(world, &shown, &[]).await;
    let url = format!("--callback-url=https://{address}/callback");
    let trust = authority.flag();
    world
        .mock_client(&[
            "--callback-interval=20ms",
            "--callback-ids=10",
            &url,
            &trust,
        ])
        .await;
    eventually("callbacks", async || {
        (world.broker.ready(Queue::Fetch).await >= 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_with_a_goodbye_and_not_with_a_reset() {
    let world = &mut World::new().await;
    let authority = Authority::new("ours");
    let address = start(
        world,
        &authority.certify("server", NAMES),
        &["--body-limit=1KiB"],
    )
    .await;
    let old = client(&authority).http1_only().build().unwrap();
    // The body is left unread, and the connection closed.
    let posted = old.post(format!("https://{address}/callback"));
    let answer = posted.body(vec![b' '; 1 << 20]).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let text = answer.text().await.unwrap();
    assert!(text.contains("payload_too_large"), "{text}");
}
