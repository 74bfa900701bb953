//! A listener for IPv6 and IPv4.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Listens on `address`. `[::]` is reached by IPv4 too, and means `0.0.0.0` where the host has no
/// IPv6.
///
/// # Errors
/// The address is in use, or does not belong to this machine; the error names it.
pub fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let mut listening = bind(address);
    if address.ip() == Ipv6Addr::UNSPECIFIED
        && let Err(error) = &listening
        && error.kind() != ErrorKind::AddrInUse
    {
        tracing::info!(%error, "listening by IPv4 only because there is no IPv6");
        listening = bind((Ipv4Addr::UNSPECIFIED, address.port()).into());
    }
    listening.with_context(|| format!("listening on {address}"))
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    const BACKLOG: i32 = 1_024;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Remains of the connections of an earlier process must not hold the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
