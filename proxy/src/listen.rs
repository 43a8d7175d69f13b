//! Sockets: how we listen, dial and learn where a captured connection was going.
//!
//! Every TCP connection is probed after [`KEEPALIVE`] of silence, and given up when sent bytes are not acknowledged for
//! [`USER_TIMEOUT`]: that is what finds half-open connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;

use crate::capture;
use crate::error::{Blamed, Error, Reason};
use crate::worker::Worker;

/// Silence after which the other end is probed, and between probes.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections the kernel completes while we are busy.
const BACKLOG: i32 = 4096;
/// Pause when the process is out of file descriptors: what is open goes on, and may end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on a port of `address`, or of every address. Each worker has its own socket for the same port.
pub(crate) fn bind(address: Option<IpAddr>, port: u16) -> io::Result<Vec<std::net::TcpListener>> {
    bind_both(address, Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, port)
}

/// Listens on a port of `address`, or of loopback.
pub(crate) fn bind_loopback(
    address: Option<IpAddr>,
    port: u16,
) -> io::Result<Vec<std::net::TcpListener>> {
    bind_both(address, Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, port)
}

fn bind_both(
    address: Option<IpAddr>,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    port: u16,
) -> io::Result<Vec<std::net::TcpListener>> {
    if let Some(address) = address {
        return Ok(vec![bind_one(SocketAddr::new(address, port))?]);
    }
    let mut listeners = vec![bind_one(SocketAddr::new(v4.into(), port))?];
    match bind_one(SocketAddr::new(v6.into(), port)) {
        Ok(listener) => listeners.push(listener),
        // A host without IPv6 is none the worse.
        Err(error) => tracing::info!(port, %error, "not listening on IPv6"),
    }
    Ok(listeners)
}

/// Listens on one address. Accepted sockets inherit what is set here.
pub(crate) fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_options(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Dials; the mark, if any, exempts the connection from capture.
pub(crate) async fn connect(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    set_options(&SockRef::from(&socket))?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.connect(address).await
}

fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Where a captured connection was going before it was redirected to us.
pub(crate) fn original_destination(socket: &TcpStream) -> Result<SocketAddr, Error> {
    let local = socket.local_addr().blame(Reason::ClientGone)?;
    // Without an entry in the connection table it came to us directly.
    let original = capture::original_destination(socket).blame(Reason::Loop)?;
    if original == local {
        Err(Reason::Loop.into())
    } else {
        Ok(original)
    }
}

/// Accepts until the drain is over; each connection is a task of its own. Connections that come later are refused by
/// the kernel, so that those who dial turn elsewhere.
pub(crate) async fn accept<Served>(
    worker: Rc<Worker>,
    listener: TcpListener,
    serve: impl Fn(Rc<Worker>, TcpStream) -> Served + 'static,
) where
    Served: Future<Output = Result<(), Error>> + 'static,
{
    let mut closing = pin!(worker.drain.closing());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closing => return,
        };
        match accepted {
            Ok((socket, from)) => {
                let served = serve(worker.clone(), socket);
                spawn_local(async move {
                    if let Err(error) = served.await {
                        tracing::debug!(%from, ?error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
