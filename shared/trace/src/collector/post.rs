//! Requests to a collector, and what may come back.

use anyhow::Context as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use reqwest::Response;
use thiserror::Error;

use super::client::CollectorClient;
use super::destination::Destination;

/// How many bytes of an answer are read, about.
const ANSWER_LIMIT: usize = 64 << 10;

/// Sends requests to one collector.
pub(super) struct Post {
    pub(super) destination: Destination,
    pub(super) client: CollectorClient,
}

/// Why a request was not taken.
#[derive(Debug, Error)]
pub(super) enum PostError {
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Post {
    /// Sends a request, and returns the answer if the collector took it. A redirect is not followed.
    pub(super) async fn send(
        &mut self,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, PostError> {
        let url = self.destination.url().map_err(anyhow::Error::new)?;
        let url = url.context("only a restart turns traces off")?;
        let headers = self.destination.headers();
        let mut headers = headers.map_err(anyhow::Error::new)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let http = self.client.current();
        let request = http.post(url).headers(headers).body(body);
        let response = request.send().await.map_err(without_url)?;
        let status = response.status();
        // Read also if it says nothing, so that the connection can be used again.
        let answer = beginning(response).await;
        if status.is_success() {
            Ok(answer.map_err(without_url)?)
        } else {
            Err(PostError::Status(status))
        }
    }
}

/// The answer, or what it begins with if it is long.
async fn beginning(mut response: Response) -> reqwest::Result<Vec<u8>> {
    let mut read = Vec::new();
    while read.len() < ANSWER_LIMIT
        && let Some(chunk) = response.chunk().await?
    {
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

/// The error without the address, which may have credentials.
fn without_url(error: reqwest::Error) -> anyhow::Error {
    anyhow::Error::new(error.without_url())
}
