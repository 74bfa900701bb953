//! Sends one callback in each interval, whatever became of the one before.

use std::time::{Instant, SystemTime};

use anyhow::Context;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use lifecycle::Shutdown;
use opentelemetry::trace::SpanKind;
use reqwest::redirect::Policy;
use serde_json::json;
use telemetry::milliseconds;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use trace::{SpanSet, TraceSet};

use crate::chance::Chance;
use crate::config::Config;
use crate::metrics::{CALLBACKS_SENT, CallbackOutcome};

pub(crate) struct CallbackSender {
    config: Config,
    chance: Chance,
    http: reqwest::Client,
}

/// A callback that is ready to be sent.
struct Callback {
    /// How many it has, duplicates included.
    ids: usize,
    headers: HeaderMap,
    body: String,
}

impl CallbackSender {
    /// # Errors
    /// The HTTP client cannot be set up.
    pub(crate) fn new(config: &Config, chance: Chance) -> anyhow::Result<Self> {
        let mut http = reqwest::Client::builder()
            .timeout(config.callback_timeout)
            // Shorter than the receiver keeps an idle connection.
            .pool_idle_timeout(std::time::Duration::from_secs(15))
            .no_proxy()
            // A receiver that sends a callback elsewhere has not taken it.
            .redirect(Policy::none());
        if config.callback_url.scheme() == "https" {
            let tls = tls::Client::new(&config.trust, None).config();
            http = http.tls_backend_preconfigured(tls.context("setting up TLS")?);
        }
        let http = http.build().context("setting up the HTTP client")?;
        Ok(Self {
            config: config.clone(),
            chance,
            http,
        })
    }

    /// Makes a callback, signed where there are secrets.
    fn callback(&self) -> Callback {
        let ids = self.chance.ids(&self.config);
        let body = json!({ "object_ids": ids }).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let keys = &self.config.webhook.webhook_secrets;
        let id = HeaderValue::from(self.chance.callback_id());
        match keys.get() {
            Ok(keys) => keys.sign(&mut headers, id, SystemTime::now(), body.as_bytes()),
            Err(error) => tracing::warn!(%error, "the callback is not signed"),
        }
        Callback {
            ids: ids.len(),
            headers,
            body,
        }
    }

    /// Sends until the shut-down.
    pub(crate) async fn run(&self, shutdown: &Shutdown) {
        let mut ticks = interval(self.config.callback_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The shut-down drops, and so aborts, these requests.
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let callback = self.callback();
                    under_way.spawn(send(self.http.clone(), self.config.callback_url.clone(), callback));
                }
                Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
                () = shutdown.begun() => return,
            }
        }
    }
}

/// Posts a callback as a part of `span`.
async fn post(
    http: reqwest::Client,
    url: url::Url,
    Callback {
        mut headers, body, ..
    }: Callback,
    mut span: SpanSet,
) -> reqwest::Result<(StatusCode, String)> {
    span.traces().inject(&mut headers);
    let exchange = async {
        let response = http.post(url).headers(headers).body(body).send().await?;
        let status = response.status();
        Ok((status, response.text().await?))
    };
    let result = exchange.await;
    match &result {
        Ok((status, _)) => {
            trace::http::note_status(&mut span, *status);
            if !status.is_success() {
                span.fail(status.as_str(), status);
            }
        }
        Err(error) => span.fail("no answer", error),
    }
    result
}

async fn send(http: reqwest::Client, url: url::Url, callback: Callback) {
    let ids = callback.ids;
    let started = Instant::now();
    let span = TraceSet::begin(None, SpanKind::Client, || {
        let attributes = trace::http::Target::new(&url).attributes("POST", url.path(), "");
        ("POST".to_owned(), attributes)
    });
    let traces = span.traces();
    let result = traces.scope(post(http, url, callback, span)).await;
    let duration_ms = milliseconds(started.elapsed());
    match result {
        Ok((status, answer)) => {
            let outcome = if status.is_success() {
                CallbackOutcome::Accepted
            } else {
                CallbackOutcome::Refused
            };
            CALLBACKS_SENT.of(&outcome).increment(1);
            let status = status.as_u16();
            tracing::info!(ids, status, answer, duration_ms, "callback");
        }
        Err(error) => {
            CALLBACKS_SENT.of(&CallbackOutcome::Failed).increment(1);
            tracing::warn!(
                ids,
                duration_ms,
                error = format!("{:#}", anyhow::Error::new(error)),
                "callback failed"
            );
        }
    }
}
