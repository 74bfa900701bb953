//! Sends one callback in each interval, whatever became of the one before.

use std::time::Instant;

use anyhow::Context;
use http::{HeaderMap, StatusCode};
use lifecycle::Shutdown;
use opentelemetry::trace::SpanKind;
use serde_json::json;
use telemetry::milliseconds;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use trace::{Spans, Traces};

use crate::chance::Chance;
use crate::config::Config;
use crate::metrics::{CALLBACKS_SENT, Sent};

pub(crate) struct Callbacks {
    config: Config,
    chance: Chance,
    http: reqwest::Client,
}

impl Callbacks {
    /// # Errors
    /// The HTTP client cannot be set up.
    pub(crate) fn new(config: &Config, chance: Chance) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(config.callback_timeout)
            // Shorter than the receiver keeps an idle connection.
            .pool_idle_timeout(std::time::Duration::from_secs(15))
            .no_proxy()
            .build()
            .context("setting up the HTTP client")?;
        Ok(Self {
            config: config.clone(),
            chance,
            http,
        })
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
                    let body = json!({ "object_ids": self.chance.ids(&self.config) });
                    under_way.spawn(send(self.http.clone(), self.config.callback_url.clone(), body));
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
    body: &serde_json::Value,
    mut span: Spans,
) -> reqwest::Result<(StatusCode, String)> {
    let mut headers = HeaderMap::new();
    span.traces().inject(&mut headers);
    let exchange = async {
        let response = http.post(url).headers(headers).json(body).send().await?;
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

async fn send(http: reqwest::Client, url: url::Url, body: serde_json::Value) {
    let ids = body["object_ids"].as_array().map_or(0, Vec::len);
    let started = Instant::now();
    let span = Traces::begin(None, SpanKind::Client, || {
        let attributes = trace::http::Target::new(&url).attributes("POST", url.path(), "");
        ("POST".to_owned(), attributes)
    });
    let traces = span.traces();
    let result = traces.scope(post(http, url, &body, span)).await;
    let duration_ms = milliseconds(started.elapsed());
    match result {
        Ok((status, answer)) => {
            let outcome = if status.is_success() {
                Sent::Accepted
            } else {
                Sent::Refused
            };
            CALLBACKS_SENT.of(&outcome).increment(1);
            let status = status.as_u16();
            tracing::info!(ids, status, answer, duration_ms, "callback");
        }
        Err(error) => {
            CALLBACKS_SENT.of(&Sent::Failed).increment(1);
            tracing::warn!(
                ids,
                duration_ms,
                error = format!("{:#}", anyhow::Error::new(error)),
                "callback failed"
            );
        }
    }
}
