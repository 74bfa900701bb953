//! Who may hand in callbacks: by the head of a callback, before its body is read, and by the body.

use std::time::SystemTime;

use http::HeaderMap;
use webhook::{Keys, SignatureHeaders};

use crate::config::Config;
use crate::error::ApiError;

pub(crate) struct Admission {
    keys: Keys,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            keys: config.webhook.webhook_secrets.clone(),
        }
    }

    /// Admits the head of a callback. Nothing is read of a body that cannot be accepted. `None` if
    /// callbacks need not be signed.
    ///
    /// # Errors
    /// The callback cannot be signed.
    pub(crate) fn admit_head<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<SignatureHeaders<'a>>, ApiError> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let signature = SignatureHeaders::read(headers, SystemTime::now())?;
        Ok(Some(signature))
    }

    /// Admits the body, as it was received.
    ///
    /// # Errors
    /// No key has signed the callback.
    pub(crate) fn admit_body(
        &self,
        head: Option<&SignatureHeaders<'_>>,
        body: &[u8],
    ) -> Result<(), ApiError> {
        if let Some(signature) = head {
            signature.verify(&self.keys, body)?;
        }
        Ok(())
    }
}
