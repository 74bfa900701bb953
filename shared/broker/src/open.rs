//! Opening AMQP connections over TCP connections that this program opens. The client library cannot be made to give up a TCP
//! connection: a broker that accepts and stays silent would cost a thread and a socket for each try.

use std::io;

use async_compat::Compat;
use lapin::tcp::TLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, runtime};
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// Speaks AMQP on `stream`, encrypted if `uri` says so.
///
/// # Errors
/// The other side does not speak AMQP, or does not let the user in.
pub(crate) async fn open(
    uri: AMQPUri,
    stream: TcpStream,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let stream = Mutex::new(Some(stream));
    let connect = async move |uri: AMQPUri, _| {
        let stream = stream.lock().take();
        // The library asks for another one when the first has ended.
        let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        let plain = AsyncTcpStream::Plain(Compat::new(stream));
        Ok(match uri.scheme {
            AMQPScheme::AMQP => plain,
            AMQPScheme::AMQPS => {
                let host = &uri.authority.host;
                plain.into_tls(host, TLSConfig::default()).await?
            }
        })
    };
    Connection::connector(uri, runtime::default_runtime()?, connect, properties).await
}
