//! Sockets with the options the mesh wants.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Opens a listening socket; the error names the address.
pub(super) fn listen(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let open = || {
        let socket = socket_for(addr)?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(backlog)
    };
    open().map_err(|error| io::Error::new(error.kind(), format!("{addr}: {error}")))
}

/// Connects to a container of this machine.
pub(super) async fn dial_local(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket_for(addr)?.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes the kernel give the other worker up after `patience` without an
/// answer, whether bytes are under way or not.
pub(super) fn guard_peer(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(2))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(patience))
}

/// Clients may be slow, but not dead for hours.
pub(super) fn guard_client(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Makes closing this connection an error for the other end, who would
/// otherwise take what it got so far for the whole.
pub(super) fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn socket_for(addr: SocketAddr) -> io::Result<TcpSocket> {
    match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}
