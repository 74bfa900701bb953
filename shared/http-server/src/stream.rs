//! The connection to a client as bytes. It limits how long a head may take, and closes so that the
//! last answer arrives.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::client::Client;

/// How long a client may go on sending after its last answer.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Once we have said that no more will come, it reads and forgets what the client still sends, until
/// that closes too. A connection that is closed while bytes of the client are unread is reset, and a
/// reset can destroy an answer that the client has not read yet.
pub(crate) struct ClientStream {
    stream: TcpStream,
    listening: Option<Listening>,
    /// The client had not finished when we last looked.
    still_sends: bool,
    /// Begins with the end of what we say.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// What is watched while a client is listened to.
struct Listening {
    client: Arc<Client>,
    head_timeout: Duration,
    /// Begins when a head does not come at once.
    head_deadline: Option<Pin<Box<Sleep>>>,
    /// How much of the preface has come, if nothing else.
    preface: Option<usize>,
}

impl ClientStream {
    /// A connection on which each head has to arrive within `head_timeout`.
    pub(crate) fn new(stream: TcpStream, client: Arc<Client>, head_timeout: Duration) -> Self {
        let listening = Listening {
            client,
            head_timeout,
            head_deadline: None,
            preface: Some(0),
        };
        Self {
            stream,
            listening: Some(listening),
            still_sends: false,
            deadline: None,
        }
    }

    /// A connection on which nothing is read.
    pub(crate) fn unheard(stream: TcpStream) -> Self {
        Self {
            stream,
            listening: None,
            still_sends: true,
            deadline: None,
        }
    }

    fn has_to_linger(&self) -> bool {
        let listening = self.listening.as_ref();
        self.still_sends || listening.is_some_and(|listening| listening.client.is_rest_unread())
    }

    /// Reads until the client closes.
    fn poll_forget(&mut self, context: &mut Context<'_>) -> Poll<()> {
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

impl Listening {
    fn hear(&mut self, bytes: &[u8]) {
        if let Some(known) = self.preface {
            let expected = &PREFACE[known..];
            let length = bytes.len().min(expected.len());
            let so_far = bytes[..length] == expected[..length];
            self.preface = so_far.then_some(known + length);
        }
        if self.preface == Some(PREFACE.len()) {
            // From here on bytes come also between requests.
            self.client.ends_head();
        } else if !bytes.iter().all(|byte| b"\r\n".contains(byte)) && self.client.begins_head() {
            self.head_deadline = None;
        }
    }

    /// Fails when a head takes too long.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.client.is_in_head() {
            self.head_deadline = None;
            return Poll::Pending;
        }
        let deadline = self
            .head_deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.head_timeout)));
        ready!(deadline.as_mut().poll(context));
        let late = io::Error::new(io::ErrorKind::TimedOut, "the head did not arrive in time");
        Poll::Ready(Err(late))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let known = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = &buffer.filled()[known..];
        self.still_sends = !bytes.is_empty();
        match &mut self.listening {
            Some(listening) if read.is_pending() => listening.poll_overdue(context),
            Some(listening) if !bytes.is_empty() => {
                listening.hear(bytes);
                read
            }
            _ => read,
        }
    }
}

impl AsyncWrite for ClientStream {
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
        if self.deadline.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if !self.has_to_linger() {
                return Poll::Ready(Ok(()));
            }
            self.deadline = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        let deadline = self.deadline.as_mut();
        if deadline.is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        self.poll_forget(context).map(Ok)
    }
}
