use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use ring::signature::{Ed25519KeyPair, KeyPair};
use settings::Value;

use crate::{Keys, Refusal, SignatureHeaders};

/// The vectors of the specification's own libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const SIGNED_AT: u64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const PRIVATE_KEY: &[u8; 32] = b"TESTSIGNINGKEYDONOTUSETHISFORANY";
const ASYMMETRIC: &str =
    "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==";
/// Of another body.
const OTHER: &str = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
const OTHER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn keys(raw: &str) -> Keys {
    Keys::parse(raw).unwrap()
}

fn public_key() -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(PRIVATE_KEY).unwrap();
    format!("whpk_{}", STANDARD.encode(pair.public_key()))
}

fn headers(timestamp: &str, signature: &str) -> HeaderMap {
    let lines = [
        ("webhook-id", ID),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", signature),
    ];
    let lines = lines.into_iter();
    lines
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

fn verify(keys: &Keys, headers: &HeaderMap, body: &[u8]) -> Result<usize, Refusal> {
    SignatureHeaders::read(headers, at(SIGNED_AT))?.verify(keys, body)
}

fn verify_signature(raw: &str, signature: &str) -> Result<usize, Refusal> {
    verify(
        &keys(raw),
        &headers(&SIGNED_AT.to_string(), signature),
        BODY,
    )
}

#[test]
fn the_signatures_of_the_specification_are_valid() {
    assert_eq!(verify_signature(SECRET, SIGNATURE), Ok(0));
    assert_eq!(verify_signature(&public_key(), ASYMMETRIC), Ok(0));
}

#[test]
fn the_specification_s_example_is_signed_as_it_says() {
    let mut signed = HeaderMap::new();
    let id = HeaderValue::from_static(ID);
    keys(SECRET).sign(&mut signed, id, at(SIGNED_AT), BODY);
    assert_eq!(signed, headers(&SIGNED_AT.to_string(), SIGNATURE));
}

#[test]
fn one_valid_signature_by_any_of_the_keys_is_enough() {
    let public = public_key();
    let all = [OTHER_SECRET, SECRET, &public].join(", ");
    for (signatures, place) in [
        (SIGNATURE.to_owned(), 1),
        (ASYMMETRIC.to_owned(), 2),
        (format!("{OTHER} v2,AAAA {SIGNATURE} {OTHER}"), 1),
        (format!("{OTHER}  v1a,AAAA v1,? {ASYMMETRIC}"), 2),
    ] {
        assert_eq!(
            verify_signature(&all, &signatures),
            Ok(place),
            "{signatures}"
        );
    }
    let mut signed = HeaderMap::new();
    keys(&all).sign(
        &mut signed,
        HeaderValue::from_static("1"),
        at(SIGNED_AT),
        BODY,
    );
    for secret in [SECRET, OTHER_SECRET] {
        assert_eq!(verify(&keys(secret), &signed, BODY), Ok(0));
    }
}

#[test]
fn what_no_key_has_signed_is_refused() {
    let as_other_kind = |signature: &str| signature.replace("v1a,", "v1,");
    for (raw, signature) in [
        (SECRET, OTHER.to_owned()),
        (OTHER_SECRET, SIGNATURE.to_owned()),
        (SECRET, ASYMMETRIC.to_owned()),
        (&public_key(), SIGNATURE.to_owned()),
        (&public_key(), as_other_kind(ASYMMETRIC)),
        (SECRET, SIGNATURE.replace("v1,", "v1a,")),
        (SECRET, SIGNATURE.replace("v1,", "v2,")),
        (SECRET, SIGNATURE.replace("v1,", "")),
        (SECRET, SIGNATURE.replace(' ', ",")[..20].to_owned()),
        (SECRET, "v1,".to_owned()),
        (SECRET, "v1".to_owned()),
        (SECRET, ",".to_owned()),
        (SECRET, "v1, v1, v1,".to_owned()),
        // Those behind the fourth are not looked at.
        (SECRET, format!("{}{SIGNATURE}", "v1,AAAA ".repeat(4))),
        ("", SIGNATURE.to_owned()),
    ] {
        let verified = verify_signature(raw, &signature);
        assert_eq!(verified, Err(Refusal::Invalid), "{signature}");
    }
    let signed = headers(&SIGNED_AT.to_string(), SIGNATURE);
    for body in [&b""[..], b"{}", &BODY[1..], &[BODY, b" "].concat()] {
        assert_eq!(verify(&keys(SECRET), &signed, body), Err(Refusal::Invalid));
    }
    for (name, value) in [("webhook-id", "msg_2"), ("webhook-timestamp", "1614265331")] {
        let mut changed = signed.clone();
        changed.insert(name, HeaderValue::from_static(value));
        let verified = verify(&keys(SECRET), &changed, BODY);
        assert_eq!(verified, Err(Refusal::Invalid), "{name}");
    }
}

#[test]
fn each_header_stands_once_and_has_a_value() {
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let signed = headers(&SIGNED_AT.to_string(), SIGNATURE);
        let mut missing = signed.clone();
        missing.remove(name);
        let mut empty = signed.clone();
        empty.insert(name, HeaderValue::from_static(""));
        let mut repeated = signed.clone();
        repeated.append(name, signed[name].clone());
        for (headers, refusal) in [
            (missing, Refusal::Missing(name)),
            (empty, Refusal::Missing(name)),
            (repeated, Refusal::Repeated(name)),
        ] {
            assert_eq!(verify(&keys(SECRET), &headers, BODY), Err(refusal));
        }
    }
    let mut stops = headers(&SIGNED_AT.to_string(), SIGNATURE);
    stops.insert("webhook-id", HeaderValue::from_static("a.1"));
    assert_eq!(verify(&keys(SECRET), &stops, BODY), Err(Refusal::FullStop));
}

#[test]
fn a_timestamp_counts_for_five_minutes_both_ways() {
    let refusal = |timestamp: u64, now| {
        let headers = headers(&timestamp.to_string(), SIGNATURE);
        SignatureHeaders::read(&headers, now).err()
    };
    for (timestamp, expected) in [
        (SIGNED_AT - 300, None),
        (SIGNED_AT - 301, Some(Refusal::Old)),
        (SIGNED_AT + 300, None),
        (SIGNED_AT + 301, Some(Refusal::Ahead)),
        (0, Some(Refusal::Old)),
        (i64::MAX as u64, Some(Refusal::Ahead)),
        (u64::MAX, Some(Refusal::Ahead)),
    ] {
        assert_eq!(refusal(timestamp, at(SIGNED_AT)), expected, "{timestamp}");
    }
    // A clock that was never set.
    assert_eq!(refusal(SIGNED_AT, UNIX_EPOCH), Some(Refusal::Ahead));
    let before = UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(refusal(0, before), None);
}

#[test]
fn a_timestamp_is_digits_and_nothing_else() {
    for timestamp in [
        &i64::MIN.to_string(),
        "-1614265330",
        "+1614265330",
        "1614265330.0",
        "1614265330 1",
        "1.6e9",
        "0x60379332",
        "now",
        "-0",
        "18446744073709551616",
        &"9".repeat(1_000),
        "１６",
    ] {
        let headers = {
            let mut headers = headers("0", SIGNATURE);
            let value = HeaderValue::from_bytes(timestamp.as_bytes()).unwrap();
            headers.insert("webhook-timestamp", value);
            headers
        };
        let refused = SignatureHeaders::read(&headers, at(SIGNED_AT)).err();
        assert_eq!(refused, Some(Refusal::NoTime), "{timestamp}");
    }
}

#[test]
fn keys_are_read_in_any_number_and_shown_without_their_secrets() {
    let public = public_key();
    for (raw, shown) in [
        (String::new(), ""),
        (SECRET.to_owned(), "whsec_***"),
        (
            format!("{SECRET},{OTHER_SECRET}\n{public} "),
            "whsec_***,whsec_***,whpk_***",
        ),
    ] {
        assert_eq!(keys(&raw).show(), shown);
    }
    let debug = format!("{:?}", keys(SECRET));
    assert!(!debug.contains("MfKQ9r8G"), "{debug}");
}

#[test]
fn a_wrong_key_is_refused_by_its_place_and_not_shown() {
    for (wrong, reason) in [
        (
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "neither whsec_ nor whpk_",
        ),
        (
            "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "neither whsec_ nor whpk_",
        ),
        ("whsec_MfKQ9r8G", "a secret of 6 bytes"),
        ("whsec_", "a secret of 0 bytes"),
        ("whsec_MfKQ9r8G!", "not base64"),
        (
            "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "a public key of 24 bytes",
        ),
    ] {
        let error = Keys::parse(&format!("{SECRET},{wrong}")).unwrap_err();
        assert!(error.contains("key 2") && error.contains(reason), "{error}");
        assert!(!error.contains("MfKQ9r8G"), "{error}");
    }
    let too_long = format!("whsec_{}", STANDARD.encode([0; 65]));
    assert!(Keys::parse(&too_long).is_err());
    assert!(Keys::parse(&format!("whsec_{}", STANDARD.encode([0; 64]))).is_ok());
}

#[test]
fn separators_alone_do_not_turn_signatures_off() {
    for raw in [",", " , ", ",\n,"] {
        assert!(Keys::parse(raw).is_err(), "{raw:?}");
    }
    assert!(Keys::parse("").unwrap().is_empty());
}
