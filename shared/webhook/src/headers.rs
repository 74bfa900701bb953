//! The headers of a signed callback, and what they are refused for.

use std::cell::LazyCell;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::keys::{Key, Keys, begin, tag};

pub(crate) const ID: &str = "webhook-id";
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
pub(crate) const SIGNATURE: &str = "webhook-signature";

/// What begins a signature by a secret (HMAC-SHA256).
pub(crate) const SYMMETRIC: &str = "v1,";

/// What begins a signature by a private key (ed25519).
const ASYMMETRIC: &str = "v1a,";

/// How far `webhook-timestamp` may be off, in seconds.
const TOLERANCE: u64 = 5 * 60;

/// Further signatures are not looked at: each costs time. A sender that changes its secret sends two.
const SIGNATURES_LIMIT: usize = 4;

/// Why a callback does not count as signed. The text helps an honest sender, and is no help to others.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The header of this name is missing or empty.
    #[error("the header {0} is missing; callbacks have to be signed as Standard Webhooks says")]
    Missing(&'static str),
    /// The header of this name stands more than once.
    #[error("the header {0} stands more than once; send it once")]
    Repeated(&'static str),
    /// Where the id ends would be uncertain.
    #[error("webhook-id has a full stop in it")]
    FullStop,
    /// It may also be negative, or have a sign.
    #[error("webhook-timestamp is not a number of seconds since 1970")]
    NoTime,
    /// The callback was signed too long ago.
    #[error("webhook-timestamp is more than 5 minutes ago; sign the callback again")]
    Old,
    /// The clock of the sender or that of the receiver is wrong.
    #[error("webhook-timestamp is more than 5 minutes ahead; check the clock")]
    Ahead,
    /// By the keys at hand.
    #[error(
        "no signature is valid; check the key, and sign id, timestamp and body as they are sent"
    )]
    Invalid,
}

/// The headers of a callback that says that it is signed, and was signed within the last minutes.
#[derive(Clone, Copy, Debug)]
pub struct SignatureHeaders<'a> {
    id: &'a [u8],
    timestamp: &'a [u8],
    signatures: &'a [u8],
}

impl<'a> SignatureHeaders<'a> {
    /// Reads them. What they say still has to be verified.
    ///
    /// # Errors
    /// No signature could be valid.
    pub fn read(headers: &'a HeaderMap, now: SystemTime) -> Result<Self, Refusal> {
        let id = single(headers, ID)?;
        let timestamp = single(headers, TIMESTAMP)?;
        let signatures = single(headers, SIGNATURE)?;
        if id.contains(&b'.') {
            return Err(Refusal::FullStop);
        }
        check_time(timestamp, now)?;
        Ok(Self {
            id,
            timestamp,
            signatures,
        })
    }

    /// Verifies that one of the keys has signed `body`, the bytes as they were received. Returns the
    /// place of that key.
    ///
    /// # Errors
    /// None of the keys has.
    pub fn verify(&self, keys: &Keys, body: &[u8]) -> Result<usize, Refusal> {
        let begin = begin(self.id, self.timestamp);
        let (symmetric, asymmetric) = (self.signatures(SYMMETRIC), self.signatures(ASYMMETRIC));
        let signed = LazyCell::new(|| [&begin, body].concat());
        let has_signed = |key: &Key| match key {
            Key::Secret(_) if symmetric.is_empty() => false,
            Key::Secret(secret) => {
                let tag = tag(secret, &begin, body);
                let is_tag = |signature: &Vec<u8>| tag.as_ref().ct_eq(signature).into();
                symmetric.iter().any(is_tag)
            }
            Key::Public(key) => {
                let is_valid = |signature: &Vec<u8>| key.verify(&signed, signature).is_ok();
                asymmetric.iter().any(is_valid)
            }
        };
        let place = keys.0.iter().position(has_signed);
        place.ok_or(Refusal::Invalid)
    }

    /// The signatures of one kind, decoded. What cannot be decoded is not valid.
    fn signatures(&self, kind: &str) -> Vec<Vec<u8>> {
        let all = self.signatures.split(|byte| *byte == b' ');
        let all = all.filter(|one| !one.is_empty()).take(SIGNATURES_LIMIT);
        let of_kind = all.filter_map(|one| one.strip_prefix(kind.as_bytes()));
        of_kind.flat_map(|one| STANDARD.decode(one)).collect()
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a [u8], Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value.as_bytes()),
        (Some(_), Some(_)) => Err(Refusal::Repeated(name)),
        _ => Err(Refusal::Missing(name)),
    }
}

fn check_time(timestamp: &[u8], now: SystemTime) -> Result<(), Refusal> {
    let digits = Some(timestamp).filter(|bytes| bytes.iter().all(u8::is_ascii_digit));
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    let timestamp: Option<u64> = digits.and_then(|digits| digits.parse().ok());
    let (timestamp, now) = (timestamp.ok_or(Refusal::NoTime)?, seconds(now));
    if now.saturating_sub(timestamp) > TOLERANCE {
        return Err(Refusal::Old);
    }
    if timestamp.saturating_sub(now) > TOLERANCE {
        return Err(Refusal::Ahead);
    }
    Ok(())
}

/// Whole seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    elapsed.as_secs()
}
