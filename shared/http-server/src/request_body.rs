//! The body of a request. It notes on its connection when it has arrived whole.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::activity::Activity;

/// A request and its answer: its connection waits until the whole request is here, and is then busy.
#[derive(Debug)]
pub(crate) struct Exchange {
    activity: Arc<Activity>,
    arrived: AtomicBool,
    is_further: bool,
}

impl Exchange {
    /// Begins with the head of a request.
    pub(crate) fn begin(activity: Arc<Activity>, body: &Incoming) -> Arc<Self> {
        let arrived = body.is_end_stream();
        let is_further = if arrived {
            activity.request_arrived();
            false
        } else {
            activity.begin_body()
        };
        Arc::new(Self {
            activity,
            arrived: AtomicBool::new(arrived),
            is_further,
        })
    }

    /// Whether the whole request is here.
    pub(crate) fn has_arrived(&self) -> bool {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Whether another body was on its way on the same connection when this one began.
    pub(crate) fn is_further(&self) -> bool {
        self.is_further
    }

    /// Notes that the rest of the body will not be read.
    pub(crate) fn leave_body_unread(&self) {
        self.activity.leave_body_unread();
    }

    fn arrived(&self) {
        if !self.arrived.swap(true, Ordering::Relaxed) {
            self.activity.request_arrived();
            self.activity.end_body();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.has_arrived() {
            self.activity.request_answered();
        } else {
            self.activity.end_body();
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
