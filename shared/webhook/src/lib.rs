//! Signed callbacks, as Standard Webhooks 1.0.0 specifies them: the header `webhook-signature` signs
//! `<webhook-id>.<webhook-timestamp>.<body>`, the body as it is sent.
//!
//! A sender signs with [`Keys::sign`]. A receiver reads the [`SignatureHeaders`] before the body, and verifies them when the
//! body is there. It need not remember each `webhook-id`, if what comes twice does no harm.

mod headers;
mod keys;
#[cfg(test)]
mod tests;

pub use headers::{Refusal, SignatureHeaders};
pub use keys::Keys;
use settings::Secret;

settings::settings! {
    /// Settings of signed callbacks.
    pub struct WebhookSettings {
        /// Keys of signed callbacks (Standard Webhooks), separated by commas or blanks:
        /// secrets (whsec_ and 24 to 64 bytes in base64) and public keys (whpk_). ingest
        /// answers 401 to a callback that none of them has signed; the mock client signs
        /// with each secret. Without keys nothing is signed.
        pub webhook_secrets: Secret<Keys> = "",
    } with {}
}
