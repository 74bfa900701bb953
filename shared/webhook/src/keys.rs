//! The keys of signed callbacks.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use ring::hmac::{self, HMAC_SHA256};
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey};
use settings::Value;

use crate::headers::{ID, SIGNATURE, SYMMETRIC, TIMESTAMP, seconds};

/// Keys of signed callbacks; none where callbacks are not signed.
#[derive(Clone, Debug)]
pub struct Keys(pub(crate) Vec<Key>);

#[derive(Clone, Debug)]
pub(crate) enum Key {
    /// A secret of sender and receiver.
    Secret(hmac::Key),
    /// The public key of a sender.
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl Keys {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the headers that sign `body` with each secret. Without secrets there are none.
    pub fn sign(&self, headers: &mut HeaderMap, id: HeaderValue, now: SystemTime, body: &[u8]) {
        let timestamp = HeaderValue::from(seconds(now));
        let begin = begin(id.as_bytes(), timestamp.as_bytes());
        let tags = self.0.iter().filter_map(|key| match key {
            Key::Secret(secret) => Some(tag(secret, &begin, body)),
            Key::Public(_) => None,
        });
        let signatures = tags.map(|tag| format!("{SYMMETRIC}{}", STANDARD.encode(tag)));
        let signatures = signatures.collect::<Vec<_>>().join(" ");
        // Base64 is always a value.
        if let Ok(signatures) = HeaderValue::try_from(signatures)
            && !signatures.is_empty()
        {
            headers.insert(ID, id);
            headers.insert(TIMESTAMP, timestamp);
            headers.insert(SIGNATURE, signatures);
        }
    }
}

/// What is signed before the body.
pub(crate) fn begin(id: &[u8], timestamp: &[u8]) -> Vec<u8> {
    [id, timestamp, b""].join(&b'.')
}

pub(crate) fn tag(secret: &hmac::Key, begin: &[u8], body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(secret);
    context.update(begin);
    context.update(body);
    context.sign()
}

const SECRET: &str = "whsec_";
const PUBLIC: &str = "whpk_";

impl Key {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(encoded) = text.strip_prefix(SECRET) {
            let secret = decode(encoded)?;
            if !(24..=64).contains(&secret.len()) {
                return Err(format!("a secret of {} bytes, not 24 to 64", secret.len()));
            }
            return Ok(Self::Secret(hmac::Key::new(HMAC_SHA256, &secret)));
        }
        let encoded = text.strip_prefix(PUBLIC);
        let key = decode(encoded.ok_or("it begins with neither whsec_ nor whpk_")?)?;
        if key.len() != ED25519_PUBLIC_KEY_LEN {
            return Err(format!("a public key of {} bytes, not 32", key.len()));
        }
        Ok(Self::Public(UnparsedPublicKey::new(&ED25519, key)))
    }
}

/// Decoders name bytes of what they cannot decode, which may be a secret.
fn decode(encoded: &str) -> Result<Vec<u8>, String> {
    let decoded = STANDARD.decode(encoded);
    decoded.map_err(|_| "what follows its prefix is not base64".to_owned())
}

impl Value for Keys {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        let texts = raw.split(|c: char| c == ',' || c.is_whitespace());
        let texts = texts.filter(|text| !text.is_empty());
        let keys = texts.enumerate().map(|(place, text)| {
            Key::parse(text).map_err(|reason| format!("key {}: {reason}", place + 1))
        });
        let keys: Vec<Key> = keys.collect::<Result<_, _>>()?;
        // Nobody who writes this means that callbacks need not be signed.
        if keys.is_empty() && !raw.is_empty() {
            return Err("there is no key in it".to_owned());
        }
        Ok(Self(keys))
    }

    fn show(&self) -> String {
        let prefixes = self.0.iter().map(|key| match key {
            Key::Secret(_) => SECRET,
            Key::Public(_) => PUBLIC,
        });
        let masked = prefixes.map(|prefix| format!("{prefix}***"));
        masked.collect::<Vec<_>>().join(",")
    }
}
