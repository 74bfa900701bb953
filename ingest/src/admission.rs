//! Who may hand in callbacks, and how many: before the body is read, when it is there, and when its ids
//! are known.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use parking_lot::Mutex;
use settings::{Renewal, Secret, SecretError};
use tokio::time::sleep;
use webhook::{Keys, SignatureHeaders};

use crate::config::Config;
use crate::error::ApiError;
use crate::proxies::TrustedProxies;
use crate::sources::{RateLimiter, Source};

/// How often a file with the keys is read again.
const INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct Admission {
    secrets: Secret<Keys>,
    /// The keys as they were last read.
    keys: Mutex<Arc<Keys>>,
    /// Of the keys.
    renewal: Mutex<Renewal>,
    proxies: TrustedProxies,
    callbacks: Option<RateLimiter>,
    ids: Option<RateLimiter>,
}

/// Where a callback comes from, by its head.
#[derive(Debug)]
pub(crate) enum Head<'a> {
    /// It says that it is signed.
    Signed(SignatureHeaders<'a>),
    /// It need not be signed.
    From(IpAddr),
}

impl Admission {
    /// # Errors
    /// The file with the keys cannot be read.
    pub(crate) fn new(config: &Config) -> Result<Self, SecretError> {
        let secrets = config.webhook.webhook_secrets.clone();
        Ok(Self {
            renewal: Mutex::new(Renewal::of(secrets.stamp())),
            keys: Mutex::new(Arc::new(secrets.get()?)),
            secrets,
            proxies: config.trusted_proxies.clone(),
            callbacks: RateLimiter::new(config.source_callbacks_rate),
            ids: RateLimiter::new(config.source_ids_rate),
        })
    }

    /// Whether callbacks have to be signed.
    pub(crate) fn asks_for_signatures(&self) -> bool {
        !self.keys.lock().is_empty()
    }

    /// Reads the keys again and again, for ever, if they are in a file. While it cannot be read, the former keys
    /// hold, and the reason is logged once.
    pub(crate) async fn follow_keys(&self) {
        if !self.secrets.may_change() {
            return pending().await;
        }
        loop {
            sleep(INTERVAL).await;
            let (stamp, warning) = (self.secrets.stamp(), "the former WEBHOOK_SECRETS hold");
            let renewed = self
                .renewal
                .lock()
                .renew(stamp, warning, || self.secrets.get());
            if let Some(keys) = renewed {
                *self.keys.lock() = Arc::new(keys);
            }
        }
    }

    /// Admits the head of a callback. Nothing is read of a body that cannot be accepted.
    ///
    /// # Errors
    /// The callback cannot be signed, or its source has sent too much.
    pub(crate) fn admit_head<'a>(
        &self,
        headers: &'a HeaderMap,
        remote: IpAddr,
    ) -> Result<Head<'a>, ApiError> {
        if self.asks_for_signatures() {
            let signature = SignatureHeaders::read(headers, SystemTime::now())?;
            return Ok(Head::Signed(signature));
        }
        if self.callbacks.is_none() && self.ids.is_none() {
            return Ok(Head::From(remote));
        }
        let sender = self.proxies.sender(remote, headers);
        self.take_callback(sender.into())?;
        Ok(Head::From(sender))
    }

    /// Admits the body, as it was received, and returns its source.
    ///
    /// # Errors
    /// No key has signed the callback, or the key's holder has sent too much.
    pub(crate) fn admit_body(&self, head: &Head<'_>, body: &[u8]) -> Result<Source, ApiError> {
        match head {
            Head::From(sender) => Ok((*sender).into()),
            Head::Signed(signature) => {
                let keys = Arc::clone(&self.keys.lock());
                let source = Source::Key(signature.verify(&keys, body)?);
                self.take_callback(source)?;
                Ok(source)
            }
        }
    }

    /// Admits the ids of a callback.
    ///
    /// # Errors
    /// Their source has sent too many.
    pub(crate) fn admit_ids(&self, source: Source, ids: usize) -> Result<(), ApiError> {
        take(self.ids.as_ref(), source, ids)
    }

    fn take_callback(&self, source: Source) -> Result<(), ApiError> {
        // A source that owes ids is refused here, and the callback does not count.
        take(self.ids.as_ref(), source, 0)?;
        take(self.callbacks.as_ref(), source, 1)
    }
}

fn take(limiter: Option<&RateLimiter>, source: Source, amount: usize) -> Result<(), ApiError> {
    let taken = limiter.map_or(Ok(()), |limiter| {
        limiter.take(source, amount, Instant::now())
    });
    taken.map_err(|wait: Duration| ApiError::TooManyRequests(wait.as_secs() + 1))
}
