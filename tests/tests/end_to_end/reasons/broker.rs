//! Reasons of the broker.

use tests::tls::Authority;
use tests::world::World;

use super::{HTTP, REDIS, SMTP, assert_said, encrypted, place, silent, stranger};
use crate::privileges::rabbitmqctl;

/// `ingest` with this address of the broker says what the row does.
async fn said_of(world: &World, url: &str, row: &str) {
    let flags = [
        format!("--amqp-url={url}"),
        "--broker-timeout=1s".to_owned(),
    ];
    assert_said(world, "ingest", "broker", &flags, (place(url), row)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_in_place_of_the_broker_is_recognized() {
    let world = &mut World::new().await;
    let database = place(&world.database.url).to_owned();
    let authority = Authority::new("unknown");
    let tls = encrypted(&authority).await;
    let http = "does not speak AMQP 0-9-1 but HTTP: …; name the port for AMQP";
    let other = "does not speak AMQP 0-9-1…; are host and port right?";
    let local = |port: u16| format!("127.0.0.1:{port}");
    let mut cases = vec![
        (local(stranger(HTTP, true).await), http),
        (local(stranger(HTTP, false).await), http),
        (
            local(tls),
            "does not speak AMQP 0-9-1 but TLS…; write amqps://",
        ),
        (database, other),
        (local(stranger(REDIS, true).await), other),
        (local(stranger(SMTP, false).await), other),
        (local(silent().await), other),
    ];
    cases.extend(world.management.map(|address| (address.to_string(), http)));
    for (place, row) in cases {
        said_of(world, &format!("amqp://user:hidden-word@{place}/%2f"), row).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_one_side_only_is_recognized_at_the_broker() {
    let world = &mut World::new().await;
    let broker = place(&world.amqp_url).to_owned();
    let tls = encrypted(&Authority::new("unknown")).await;
    for (place, row) in [
        (broker, "does not speak TLS but AMQP…; write amqp://"),
        (
            format!("127.0.0.1:{}", stranger(HTTP, true).await),
            "does not speak TLS…; is this the port with TLS",
        ),
        (
            place(&world.database.url).to_owned(),
            "does not speak TLS…; is this the port with TLS",
        ),
        (
            format!("localhost:{tls}"),
            "invalid peer certificate…; the host has to be a name in the certificate",
        ),
    ] {
        said_of(world, &format!("amqps://user:hidden-word@{place}/%2f"), row).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_said_to_be_away() {
    let world = &mut World::new().await;
    for (place, row) in [
        ("127.0.0.1:1", "Connection refused…; nothing listens there"),
        ("host.invalid:5672", "failed to lookup …; no such name"),
    ] {
        said_of(world, &format!("amqp://user:hidden-word@{place}/%2f"), row).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_refuses_a_user_is_said() {
    let world = &mut World::new().await;
    let (_, place) = world.amqp_url.rsplit_once('@').unwrap();
    let name = world.prefix().replace('.', "");
    let (no_rights, full) = (format!("{name}-none"), format!("{name}-full"));
    for words in [
        &["add_user", &no_rights, "hidden-word"][..],
        &["add_user", &full, "hidden-word"],
        &["set_permissions", "-p", "/", &full, ".*", ".*", ".*"],
        &["set_user_limits", &full, r#"{"max-connections": 0}"#],
    ] {
        rabbitmqctl(words).await;
    }
    let own = world.amqp_url.rsplit_once('/').unwrap().0.to_owned();
    for (url, row) in [
        (
            format!("amqp://nobody:hidden-word@{place}"),
            "Login was refused …; are AMQP_USERNAME and AMQP_PASSWORD",
        ),
        (
            format!("{own}/nowhere"),
            "vhost nowhere not found; make the virtual host",
        ),
        (
            format!("amqp://{no_rights}:hidden-word@{place}"),
            "access to vhost … refused for user …; make the virtual host",
        ),
        (
            format!("amqp://{full}:hidden-word@{place}"),
            "connection limit (…) is reached; the broker lets no further connection in",
        ),
    ] {
        said_of(world, &url, row).await;
    }
    for user in [no_rights, full] {
        rabbitmqctl(&["delete_user", &user]).await;
    }
}
