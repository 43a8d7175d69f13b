//! Sockets: how we listen, dial and learn where a captured connection was going.
//!
//! Every TCP connection is probed after [`KEEPALIVE`] of silence: that is what finds half-open ones. Those to other
//! proxies and to the controller are also given up when sent bytes are not acknowledged for [`USER_TIMEOUT`]. Those of
//! apps are not: Linux counts a closed window as unacknowledged, and an app may pause its reading for as long as it
//! likes; the peer wire's own windows never close, and neither do those of apps of HTTP/2 beyond our pod, which have
//! windows of their own.

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
/// Probes without an answer before the other end is gone.
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections the kernel completes while we are busy.
const BACKLOG: i32 = 4096;
/// Pause when the process is out of file descriptors: what is open goes on, and may end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on a port of `address`, or of every address. Each worker has its own socket for the same port.
pub(crate) fn bind(
    address: Option<IpAddr>,
    port: u16,
    party: Party,
) -> io::Result<Vec<std::net::TcpListener>> {
    bind_both(
        address,
        Ipv4Addr::UNSPECIFIED,
        Ipv6Addr::UNSPECIFIED,
        port,
        party,
    )
}

/// Listens on a port of `address`, or of loopback.
pub(crate) fn bind_loopback(
    address: Option<IpAddr>,
    port: u16,
) -> io::Result<Vec<std::net::TcpListener>> {
    bind_both(
        address,
        Ipv4Addr::LOCALHOST,
        Ipv6Addr::LOCALHOST,
        port,
        Party::App,
    )
}

fn bind_both(
    address: Option<IpAddr>,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    port: u16,
    party: Party,
) -> io::Result<Vec<std::net::TcpListener>> {
    if let Some(address) = address {
        return Ok(vec![bind_one(SocketAddr::new(address, port), party)?]);
    }
    let mut listeners = vec![bind_one(SocketAddr::new(v4.into(), port), party)?];
    match bind_one(SocketAddr::new(v6.into(), port), party) {
        Ok(listener) => listeners.push(listener),
        // A host without IPv6 is none the worse.
        Err(error) => tracing::info!(port, %error, "not listening on IPv6"),
    }
    Ok(listeners)
}

/// Listens on one address. Accepted sockets inherit what is set here.
pub(crate) fn bind_one(address: SocketAddr, party: Party) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_options(&SockRef::from(&socket), party)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Dials; the mark, if any, exempts the connection from capture.
pub(crate) async fn connect(
    address: SocketAddr,
    party: Party,
    mark: Option<u32>,
) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    set_options(&SockRef::from(&socket), party)?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    socket.connect(address).await
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// An application, or something outside the mesh.
    App,
    /// Another proxy, the controller, or an app beyond our pod whose protocol has windows of its own.
    Mesh,
}

fn set_options(socket: &SockRef<'_>, party: Party) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    match party {
        Party::App => Ok(()),
        Party::Mesh => socket.set_tcp_user_timeout(Some(USER_TIMEOUT)),
    }
}

/// Where a captured connection was going before it was redirected to us. One that came to us directly was going to a
/// port of ours, if the kernel knows of it at all: that is for whoever asks to look at.
pub(crate) fn original_destination(
    socket: &TcpStream,
    from: SocketAddr,
) -> Result<SocketAddr, Error> {
    // Without an entry in the connection table it came to us directly.
    capture::original_destination(socket, from).blame(Reason::Loop)
}

/// Accepts until the drain is over; each connection is a task of its own. Connections that come later are refused by
/// the kernel, so that those who dial turn elsewhere.
pub(crate) async fn accept<Served>(
    worker: Rc<Worker>,
    listener: TcpListener,
    serve: impl Fn(Rc<Worker>, TcpStream, SocketAddr) -> Served + 'static,
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
                // Behind a pointer: a task by value is copied several times on its way into and out of the runtime, and
                // a future that another one takes over and awaits has room in it twice.
                let served = Box::pin(serve(worker.clone(), socket, from));
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
