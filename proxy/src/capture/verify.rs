//! Proves before the proxy runs that capture works: dials addresses that nobody has, as an app would, and must find
//! itself called with the address that was dialled.
//!
//! Blocking; takes milliseconds when all is well and `VERIFY_TIMEOUT` at most per IP version when it is not. The
//! inbound rules cannot be tried from inside a pod: they are read back.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{Error, in_force, original_destination, plan::Plan, probe};

/// How long a captured connection may take to arrive.
pub const VERIFY_TIMEOUT: Duration = Duration::from_secs(2);

/// Neighbours of the probe addresses: for these the exemption holds.
const EXEMPT_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
];

/// What was proven.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Addresses that were dialled and captured: one for each IP version that has a route.
    pub captured: Vec<SocketAddr>,
    /// Identities (`uid 1337`, `mark 7`) that were tried and not captured. One we may not take on (changing user needs
    /// `SETUID`) is missing here; its rule was still read back.
    pub exempt: Vec<String>,
}

/// Verifies `plan`; run after [`apply`](super::apply), before the proxy, as a user that is not exempt.
pub fn verify(plan: &Plan) -> Result<Verified, Error> {
    in_force(plan)?;
    let mut verified = Verified::default();
    for target in probe::targets(plan) {
        let Some(listener) = listen(target, plan.outbound.port)? else {
            continue;
        };
        verify_version(plan, &listener, target, &mut verified)?;
    }
    if verified.captured.is_empty() {
        Err(Error::NoRoute)
    } else {
        Ok(verified)
    }
}

/// Tries one IP version. The exempt dial comes first: loopback delivers in order, so when the app's connection has
/// arrived and the exempt one has not, it never will.
fn verify_version(
    plan: &Plan,
    listener: &TcpListener,
    target: SocketAddr,
    verified: &mut Verified,
) -> Result<(), Error> {
    let exempt_target = EXEMPT_ADDRESSES
        .into_iter()
        .find(|address| address.is_ipv4() == target.is_ipv4());
    let exempt_target = SocketAddr::new(
        exempt_target.expect("both versions are listed"),
        target.port(),
    );
    let app = match dial(target, None) {
        Ok(app) => app,
        Err(error) if probe::is_unroutable(&error) => return Ok(()),
        Err(source) => return Err(Error::ProbeFailed { target, source }),
    };
    expect_capture(listener, &app, target)?;

    let mut exempt_dials = Vec::new();
    for identity in identities(plan) {
        if let Some(socket) = identity.dial(exempt_target)? {
            exempt_dials.push((identity, socket));
        }
    }
    let app = dial(target, None).map_err(|source| Error::ProbeFailed { target, source })?;
    expect_capture(listener, &app, target)?;

    verified.captured.push(target);
    for (identity, _) in exempt_dials {
        let name = identity.to_string();
        if !verified.exempt.contains(&name) {
            verified.exempt.push(name);
        }
    }
    Ok(())
}

/// Waits for `app`'s connection; another one means that an exempt identity is captured.
fn expect_capture(listener: &TcpListener, app: &Socket, target: SocketAddr) -> Result<(), Error> {
    let failed = |source| Error::ProbeFailed { target, source };
    let local = app.local_addr().map_err(failed)?.as_socket();
    let deadline = Instant::now() + VERIFY_TIMEOUT;
    loop {
        match listener.accept() {
            Ok((stream, peer)) if Some(peer) == local => {
                return expect_destination(&stream, peer, target);
            }
            Ok((stream, peer)) => exempt_was_captured(&stream, peer)?,
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

fn expect_destination(
    stream: &TcpStream,
    peer: SocketAddr,
    target: SocketAddr,
) -> Result<(), Error> {
    match original_destination(stream, peer) {
        Ok(destination) if destination == target => Ok(()),
        Ok(found) => Err(Error::WrongDestination { target, found }),
        Err(source) => Err(Error::ProbeFailed { target, source }),
    }
}

/// A connection of the pod's other containers may come in between: only ours count.
fn exempt_was_captured(stream: &TcpStream, peer: SocketAddr) -> Result<(), Error> {
    match original_destination(stream, peer) {
        Ok(destination) if EXEMPT_ADDRESSES.contains(&destination.ip()) => {
            Err(Error::ExemptCaptured(destination))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// `None` where the machine has no such IP version.
fn listen(target: SocketAddr, port: u16) -> Result<Option<TcpListener>, Error> {
    let address = if target.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        IpAddr::from(Ipv6Addr::LOCALHOST)
    };
    let bound = TcpListener::bind((address, port)).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    match bound {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if probe::is_unroutable(&error) => Ok(None),
        Err(source) => Err(Error::PortTaken { port, source }),
    }
}

/// Starts a connection without waiting for it.
fn dial(target: SocketAddr, mark: Option<u32>) -> io::Result<Socket> {
    const EINPROGRESS: i32 = 115;
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM.nonblocking(),
        None,
    )?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Who is exempt.
#[derive(Debug, Clone, Copy)]
enum Identity {
    Uid(u32),
    Mark(u32),
}

fn identities(plan: &Plan) -> impl Iterator<Item = Identity> {
    plan.exempt_uid
        .map(Identity::Uid)
        .into_iter()
        .chain(plan.exempt_mark.map(Identity::Mark))
}

impl Identity {
    /// Starts a connection as this identity; `None` where we may not take it on. The user is changed on a thread that
    /// ends with the call.
    fn dial(self, target: SocketAddr) -> Result<Option<Socket>, Error> {
        let dialled = match self {
            Self::Mark(mark) => dial(target, Some(mark)),
            Self::Uid(uid) => thread::spawn(move || {
                let uid = rustix::thread::Uid::from_raw(uid);
                rustix::thread::set_thread_res_uid(uid, uid, uid)?;
                dial(target, None)
            })
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the dialling thread died"))),
        };
        match dialled {
            Ok(socket) => Ok(Some(socket)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(None)
            }
            Err(error) if probe::is_unroutable(&error) => Ok(None),
            Err(source) => Err(Error::ProbeFailed { target, source }),
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Mark(mark) => write!(f, "mark {mark}"),
        }
    }
}
