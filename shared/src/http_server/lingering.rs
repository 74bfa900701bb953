//! Closing so that the last answer arrives. A connection that is closed while bytes of the client
//! are unread is reset, and a reset can destroy an answer that the client has not read yet.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::awaited::Client;

/// How long a client may go on sending after its last answer.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that, once we have said that no more will come, reads and forgets what the client
/// still sends, until that closes too.
pub(super) struct Lingering {
    stream: TcpStream,
    /// Says whether there is anything to wait for; none: there always is.
    client: Option<Arc<Client>>,
    /// Begins with the end of what we say.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    /// Lingers after an answer to a request whose rest was left unread.
    pub(super) fn where_unread(stream: TcpStream, client: Arc<Client>) -> Self {
        Self {
            stream,
            client: Some(client),
            deadline: None,
        }
    }

    /// Lingers in any case.
    pub(super) fn always(stream: TcpStream) -> Self {
        Self {
            stream,
            client: None,
            deadline: None,
        }
    }

    fn has_to_linger(&self) -> bool {
        let client = self.client.as_ref();
        client.is_none_or(|client| client.is_rest_unread())
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

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
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
