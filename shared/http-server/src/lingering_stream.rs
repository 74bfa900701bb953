//! The connection below HTTP. It limits how long a head may take, and lingers at its end so that the
//! last answer arrives.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tls::server::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::either::Either;

use crate::activity::Activity;

/// What HTTP is spoken over. The state of TLS is large, and most servers have none.
pub(crate) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// How long bytes of the client are read and discarded after the last answer.
const LINGER: Duration = Duration::from_secs(1);

/// The first bytes of a connection of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream with a lingering close: after the last answer it shuts its own side down, and discards what
/// the client still sends until the client closes, or [`LINGER`] is over. If a connection is closed while
/// bytes of the client are unread, TCP resets it, and a reset can destroy an answer on its way.
pub(crate) struct LingeringStream {
    stream: Transport,
    heads: Option<HeadTimer>,
    /// Whether the last read brought bytes, so that more may be unread.
    may_have_unread: bool,
    /// Set when our side is shut down.
    linger: Option<Pin<Box<Sleep>>>,
}

/// Limits how long a head may take from its first byte on. The time-out of hyper would not do: it begins
/// when the connection becomes idle.
struct HeadTimer {
    activity: Arc<Activity>,
    timeout: Duration,
    /// Set when the head has not come whole at once.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How many bytes of the preface of HTTP/2 have come; `None` for another beginning.
    preface: Option<usize>,
}

impl LingeringStream {
    /// A connection on which each head has to arrive within `head_timeout`.
    pub(crate) fn new(stream: Transport, activity: Arc<Activity>, head_timeout: Duration) -> Self {
        let heads = HeadTimer {
            activity,
            timeout: head_timeout,
            deadline: None,
            preface: Some(0),
        };
        Self {
            stream,
            heads: Some(heads),
            may_have_unread: false,
            linger: None,
        }
    }

    /// A connection on which no request is read.
    pub(crate) fn write_only(stream: Transport) -> Self {
        Self {
            stream,
            heads: None,
            may_have_unread: true,
            linger: None,
        }
    }

    fn needs_to_linger(&self) -> bool {
        let heads = self.heads.as_ref();
        self.may_have_unread || heads.is_some_and(|heads| heads.activity.has_unread_body())
    }

    /// Reads until the client closes.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl HeadTimer {
    fn observe(&mut self, bytes: &[u8]) {
        if let Some(known) = self.preface {
            let expected = &PREFACE[known..];
            let length = bytes.len().min(expected.len());
            let so_far = bytes[..length] == expected[..length];
            self.preface = so_far.then_some(known + length);
        }
        if self.preface == Some(PREFACE.len()) {
            // From here on HTTP/2 sends bytes between requests too.
            self.activity.discard_head();
        } else if !bytes.iter().all(|byte| b"\r\n".contains(byte)) && self.activity.begin_head() {
            self.deadline = None;
        }
    }

    /// Fails when a head takes too long.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.activity.is_in_head() {
            self.deadline = None;
            return Poll::Pending;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.timeout)));
        ready!(deadline.as_mut().poll(context));
        let error = io::Error::new(io::ErrorKind::TimedOut, "the head did not arrive in time");
        Poll::Ready(Err(error))
    }
}

impl AsyncRead for LingeringStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let known = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = &buffer.filled()[known..];
        self.may_have_unread = !bytes.is_empty();
        match &mut self.heads {
            Some(heads) if read.is_pending() => heads.poll_timeout(context),
            Some(heads) if !bytes.is_empty() => {
                heads.observe(bytes);
                read
            }
            _ => read,
        }
    }
}

impl AsyncWrite for LingeringStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if !self.needs_to_linger() {
                return Poll::Ready(Ok(()));
            }
            self.linger = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        let linger = self.linger.as_mut();
        if linger.is_some_and(|linger| linger.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        self.poll_discard(context).map(Ok)
    }
}
