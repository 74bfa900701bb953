//! Sending callbacks, one at each interval, whatever became of the one before.

use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use shared::shutdown::Shutdown;
use shared::telemetry::milliseconds;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::chance::Chance;
use crate::config::Config;

/// Sends callbacks.
pub struct Callbacks {
    config: Config,
    chance: Chance,
    http: reqwest::Client,
}

impl Callbacks {
    /// Sends to the address that `config` names.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(config: &Config, chance: Chance) -> anyhow::Result<Self> {
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
    pub async fn run(&self, shutdown: &Shutdown) {
        let mut ticks = interval(self.config.callback_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Dropped, and so given up, at the shut-down.
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

async fn send(http: reqwest::Client, url: url::Url, body: serde_json::Value) {
    let ids = body["object_ids"].as_array().map_or(0, Vec::len);
    let started = Instant::now();
    let result = async {
        let response = http.post(url).json(&body).send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.text().await?))
    }
    .await;
    let duration_ms = milliseconds(started.elapsed());
    match result {
        Ok((status, answer)) => {
            let success = if (200..300).contains(&status) {
                "true"
            } else {
                "false"
            };
            metrics::counter!("callbacks_sent_total", "success" => success).increment(1);
            tracing::info!(ids, status, answer, duration_ms, "callback");
        }
        Err(error) => {
            metrics::counter!("callbacks_sent_total", "success" => "false").increment(1);
            tracing::warn!(
                ids,
                duration_ms,
                error = format!("{:#}", anyhow::Error::new(error)),
                "callback failed"
            );
        }
    }
}
