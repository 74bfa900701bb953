//! Opening AMQP connections over TCP connections that this program opens. The client library cannot be made to give up a TCP
//! connection: a broker that accepts and stays silent would cost a thread and a socket for each try.

use std::io;

use async_compat::Compat;
use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, runtime};
use parking_lot::Mutex;
use tls::Client;
use tokio::net::TcpStream;

/// Speaks AMQP on `stream`, encrypted by `tls` if `uri` says so.
///
/// # Errors
/// A file of `tls` cannot be used, or the other side does not speak AMQP, or does not let the user in.
pub(crate) async fn open(
    uri: AMQPUri,
    stream: TcpStream,
    tls: Client,
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
                let connector = RustlsConnector::from(tls.config()?);
                plain.into_rustls(&connector, &uri.authority.host).await?
            }
        })
    };
    Connection::connector(uri, runtime::default_runtime()?, connect, properties).await
}
