//! The body of a request, which tells when it has arrived whole.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::client::Client;

/// A request and its answer. Until the request is here, its client is waited for.
#[derive(Debug)]
pub(crate) struct Exchange {
    client: Arc<Client>,
    arrived: AtomicBool,
    further: bool,
}

impl Exchange {
    /// Begins with the head of a request.
    pub(crate) fn begin(client: Arc<Client>, body: &Incoming) -> Arc<Self> {
        let arrived = body.is_end_stream();
        let further = if arrived {
            client.request_arrived();
            false
        } else {
            client.body_awaited()
        };
        Arc::new(Self {
            client,
            arrived: AtomicBool::new(arrived),
            further,
        })
    }

    /// Whether the whole request is here.
    pub(crate) fn has_arrived(&self) -> bool {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Whether its body was not the only one awaited on the connection when it began.
    pub(crate) fn is_further(&self) -> bool {
        self.further
    }

    /// Notes that the client may go on sending, and will not be heard.
    pub(crate) fn leave_rest_unread(&self) {
        self.client.leave_rest_unread();
    }

    fn arrived(&self) {
        if !self.arrived.swap(true, Ordering::Relaxed) {
            self.client.request_arrived();
            self.client.body_ended();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.has_arrived() {
            self.client.request_answered();
        } else {
            self.client.body_ended();
        }
    }
}

/// The body of a request.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    exchange: Arc<Exchange>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, exchange: Arc<Exchange>) -> Self {
        Self { incoming, exchange }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || self.incoming.is_end_stream() {
            self.exchange.arrived();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
