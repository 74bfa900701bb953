//! Callbacks that are sent compressed.

use std::io::Write;
use std::net::SocketAddr;

use broker::Queue;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::{Method, StatusCode, Version};
use serde_json::json;
use tests::client::{Answer, VERSIONS, ask, exchange};
use tests::world::World;

const CALLBACK: &[u8] = br#"{"object_ids":[1,2,3]}"#;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// The callback with so many spaces that it has `size` bytes.
fn padded(size: usize) -> Vec<u8> {
    let mut body = CALLBACK.to_vec();
    body.resize(size, b' ');
    body
}

async fn post(version: Version, address: SocketAddr, coding: &str, body: Vec<u8>) -> Answer {
    let headers = [("content-encoding", coding)];
    ask(version, address, &headers, Method::POST, "/callback", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_callback_is_accepted() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    for version in VERSIONS {
        for (coding, body) in [
            ("gzip", gzip(CALLBACK)),
            ("x-gzip", gzip(CALLBACK)),
            ("GZip", gzip(CALLBACK)),
            ("deflate", zlib(CALLBACK)),
            ("identity", CALLBACK.to_vec()),
            ("", CALLBACK.to_vec()),
            ("identity , gzip,", gzip(CALLBACK)),
            // In the order in which they were applied.
            ("gzip, deflate", zlib(&gzip(CALLBACK))),
            ("deflate,gzip", gzip(&zlib(CALLBACK))),
            // As one file after the other.
            (
                "gzip",
                [gzip(&CALLBACK[..5]), gzip(&CALLBACK[5..])].concat(),
            ),
            ("gzip", gzip(&[b"\xEF\xBB\xBF", CALLBACK].concat())),
            // Larger than what a body may have without asking, and than a window of HTTP/2.
            ("gzip", gzip(&padded(900 << 10))),
        ] {
            let answer = post(version, address, coding, body).await;
            assert_eq!(
                (answer.status, &answer.body),
                (StatusCode::ACCEPTED, &json!({ "accepted": 3 })),
                "{version:?} {coding}"
            );
        }
        // A list may stand in several lines.
        let lines = [
            ("content-encoding", "gzip"),
            ("content-encoding", "deflate"),
        ];
        let body = zlib(&gzip(CALLBACK));
        let answer = ask(version, address, &lines, Method::POST, "/callback", body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_that_of_the_decoded_body_and_a_bomb_is_refused() {
    const LIMIT: usize = 64 << 10;
    let world = &mut World::new().await;
    let limit = format!("--body-limit={LIMIT}");
    let address = world
        .ingest(&[&limit, &format!("--body-memory={LIMIT}")])
        .await;
    let bomb = padded(64 << 20);
    let noise: Vec<u8> = (0..LIMIT as u64 * 2)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    for version in VERSIONS {
        for (coding, body, status) in [
            ("gzip", gzip(&padded(LIMIT)), StatusCode::ACCEPTED),
            ("deflate", zlib(&padded(LIMIT)), StatusCode::ACCEPTED),
            (
                "gzip",
                gzip(&padded(LIMIT + 1)),
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
            (
                "deflate",
                zlib(&padded(LIMIT + 1)),
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
            ("gzip", gzip(&bomb), StatusCode::PAYLOAD_TOO_LARGE),
            ("deflate", zlib(&bomb), StatusCode::PAYLOAD_TOO_LARGE),
            (
                "gzip, gzip",
                gzip(&gzip(&bomb)),
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
            // Too large as it is sent.
            ("gzip", gzip(&noise), StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let answer = post(version, address, coding, body).await;
            assert_eq!(answer.status, status, "{version:?} {coding}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_that_is_not_understood_is_named_with_those_that_are() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    for version in VERSIONS {
        for coding in [
            "br",
            "zstd",
            "compress",
            "gzip, br",
            "gzip;q=1",
            "chunked",
            "*",
            "gzip deflate",
            "gzip,gzip,gzip,gzip,gzip",
        ] {
            let answer = post(version, address, coding, gzip(CALLBACK)).await;
            assert_eq!(
                (answer.status, answer.error()),
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
                "{version:?} {coding}: {answer:?}"
            );
            assert_eq!(answer.headers["accept-encoding"], "gzip, deflate, identity");
        }
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_decode_is_refused() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let changed = |mut body: Vec<u8>, from_the_end: usize| {
        let at = body.len() - from_the_end;
        body[at] ^= 1;
        body
    };
    let cut = |mut body: Vec<u8>, by: usize| {
        body.truncate(body.len() - by);
        body
    };
    for version in VERSIONS {
        for (coding, body) in [
            ("gzip", CALLBACK.to_vec()),
            ("deflate", CALLBACK.to_vec()),
            ("gzip", vec![]),
            ("deflate", vec![]),
            ("gzip", zlib(CALLBACK)),
            ("deflate", gzip(CALLBACK)),
            ("deflate", raw_deflate(CALLBACK)),
            ("gzip, deflate", gzip(&zlib(CALLBACK))),
            // Cut off in the checksum, before it, in the data, in the header.
            ("gzip", cut(gzip(CALLBACK), 1)),
            ("gzip", cut(gzip(CALLBACK), 8)),
            ("gzip", cut(gzip(CALLBACK), 15)),
            ("gzip", gzip(CALLBACK)[..5].to_vec()),
            ("deflate", cut(zlib(CALLBACK), 1)),
            ("deflate", cut(zlib(CALLBACK), 4)),
            ("deflate", cut(zlib(CALLBACK), 10)),
            ("deflate", zlib(CALLBACK)[..1].to_vec()),
            // A checksum that is wrong, and a length.
            ("gzip", changed(gzip(CALLBACK), 8)),
            ("gzip", changed(gzip(CALLBACK), 1)),
            ("deflate", changed(zlib(CALLBACK), 1)),
            ("gzip", [gzip(CALLBACK), b"x".to_vec()].concat()),
            ("gzip", [gzip(CALLBACK), vec![0; 20]].concat()),
            ("deflate", [zlib(CALLBACK), b"x".to_vec()].concat()),
            ("deflate", [zlib(CALLBACK), zlib(b" ")].concat()),
        ] {
            let shown = format!("{version:?} {coding} {body:02x?}");
            let answer = post(version, address, coding, body).await;
            assert_eq!(
                (answer.status, answer.error()),
                (StatusCode::BAD_REQUEST, "invalid_request"),
                "{shown}: {answer:?}"
            );
            assert!(answer.message().contains("Content-Encoding"), "{answer:?}");
        }
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_coding_other_than_chunked_is_refused_and_ends_the_connection() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let chunks = |body: &[u8]| {
        let size = format!("{:x}\r\n", body.len());
        [size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
    };
    for codings in [
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
        "transfer-encoding: identity, chunked",
        "Transfer-Encoding: x-gzip ,Chunked",
        "transfer-encoding: chunked, chunked",
    ] {
        for (method, path) in [("POST", "/callback"), ("GET", "/"), ("PUT", "/nowhere")] {
            for body in [&gzip(CALLBACK)[..], CALLBACK] {
                let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{codings}\r\n\r\n");
                let request = [head.as_bytes(), &chunks(body)].concat();
                // Returns when the other side has closed.
                let answer = exchange(address, &[request.clone(), request].concat()).await;
                assert_eq!(
                    answer.matches("HTTP/1.1 ").count(),
                    1,
                    "{codings}: {answer}"
                );
                assert!(
                    answer.starts_with("HTTP/1.1 501 ")
                        && answer.contains("connection: close")
                        && answer.contains("not_implemented"),
                    "{codings}: {answer}"
                );
            }
        }
    }
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
}
