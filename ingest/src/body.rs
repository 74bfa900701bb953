//! Reads the bodies of requests within limits of size, time and memory. A slow body must neither use up the
//! memory nor keep others waiting.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use http_server::RequestBody;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::error::ApiError;

/// Memory that every body gets: far more than a callback of 200 ids needs.
const FREE: usize = 16 << 10;

/// The memory that bodies share is allotted in pieces of this size.
const PIECE: usize = 1 << 10;

pub(crate) struct BodyReader {
    limit: usize,
    timeout: Duration,
    /// One for each piece of memory.
    memory: Arc<Semaphore>,
}

impl BodyReader {
    pub(crate) fn new(config: &Config) -> Self {
        let limit = config.body_limit.bytes();
        // Enough for one body at least, so that a body of the largest size can be read.
        let memory = config.body_memory.bytes().max(limit).div_ceil(PIECE);
        Self {
            limit,
            timeout: config.body_timeout,
            memory: Arc::new(Semaphore::new(memory.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Reads a body to its end, as it is sent. The limit of its size holds after decoding too.
    ///
    /// # Errors
    /// The body is too large, too slow or broken, or the shared memory is used up.
    pub(crate) async fn read(&self, body: RequestBody) -> Result<Body, ApiError> {
        if body.size_hint().lower() > self.limit as u64 {
            return Err(ApiError::PayloadTooLarge(self.limit));
        }
        tokio::time::timeout(self.timeout, self.gather(body))
            .await
            .unwrap_or(Err(ApiError::RequestTimeout))
    }

    async fn gather(&self, mut incoming: RequestBody) -> Result<Body, ApiError> {
        let mut body = Body::empty(self.limit, Arc::clone(&self.memory));
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| ApiError::BrokenBody(cause(&error)))?;
            if let Ok(data) = frame.into_data() {
                body.append(&data)?;
            }
        }
        Ok(body)
    }
}

/// A body, or the part of it that has arrived.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    limit: usize,
    memory: Memory,
}

impl Body {
    pub(crate) fn empty(limit: usize, shared: Arc<Semaphore>) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            memory: Memory {
                shared,
                claimed: None,
            },
        }
    }

    /// The bytes, and an empty body that keeps their share of memory.
    pub(crate) fn into_bytes_and_room(mut self) -> (Vec<u8>, Self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes.reserve_exact(self.memory.size().min(self.limit));
        (bytes, self)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The body's share of memory, for what is made of the body.
    pub(crate) fn into_memory(self) -> Memory {
        self.memory
    }

    /// Adds bytes, if that is within the limits.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), ApiError> {
        let length = self.bytes.len() + data.len();
        if length > self.limit {
            return Err(ApiError::PayloadTooLarge(self.limit));
        }
        if length > self.memory.size() {
            // Doubling, because moving the bytes for each piece would cost more.
            let size = length.max(2 * self.memory.size()).min(self.limit);
            self.memory.grow(size)?;
            self.bytes.reserve_exact(size - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// A part of the memory that bodies share, given back when dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    shared: Arc<Semaphore>,
    claimed: Option<OwnedSemaphorePermit>,
}

impl Memory {
    fn size(&self) -> usize {
        let pieces = self
            .claimed
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        FREE + pieces * PIECE
    }

    fn grow(&mut self, size: usize) -> Result<(), ApiError> {
        let pieces = size.saturating_sub(self.size()).div_ceil(PIECE);
        let more = u32::try_from(pieces)
            .ok()
            .and_then(|pieces| Arc::clone(&self.shared).try_acquire_many_owned(pieces).ok())
            .ok_or(ApiError::Overloaded)?;
        match &mut self.claimed {
            Some(claimed) => claimed.merge(more),
            None => self.claimed = Some(more),
        }
        Ok(())
    }
}

/// The innermost cause of an error, which is the most specific.
fn cause(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn pieces(count: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(count))
    }

    #[test]
    fn a_small_body_takes_nothing_of_the_shared_memory() {
        let memory = pieces(0);
        let mut body = Body::empty(LIMIT, memory);
        assert_eq!(body.append(&[1; FREE]), Ok(()));
        assert_eq!(body.append(&[1]), Err(ApiError::Overloaded));
    }

    #[test]
    fn a_body_takes_at_most_twice_its_size_and_gives_it_back() {
        let memory = pieces(1_024);
        let mut body = Body::empty(LIMIT, Arc::clone(&memory));
        for arrived in (1_000..=LIMIT).step_by(1_000) {
            assert_eq!(body.append(&[b' '; 1_000]), Ok(()));
            let taken = 1_024 - memory.available_permits();
            assert!(
                taken * PIECE <= (2 * arrived).max(FREE),
                "{taken} KiB for {arrived} bytes"
            );
            assert!(
                FREE + taken * PIECE >= arrived,
                "{taken} KiB for {arrived} bytes"
            );
        }
        assert_eq!(body.bytes(), vec![b' '; LIMIT / 1_000 * 1_000]);
        let kept = body.into_memory();
        assert!(memory.available_permits() < 100);
        drop(kept);
        assert_eq!(memory.available_permits(), 1_024);
    }

    #[test]
    fn the_limit_is_that_of_the_whole_body() {
        let mut body = Body::empty(1_000, pieces(1_024));
        assert_eq!(body.append(&[0; 1_000]), Ok(()));
        assert_eq!(body.append(&[0]), Err(ApiError::PayloadTooLarge(1_000)));
    }
}
