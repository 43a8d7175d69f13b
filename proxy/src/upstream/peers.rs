//! Connections to other proxies: one for all streams to a pod, dialled once however many requests wait for it, and
//! replaced when our certificate is. Another one is made when the first is full or a large flow holds it up.
//!
//! Limits: [`CONNECT_TIMEOUT`]; a peer that could not be reached is not dialled again for [`REDIAL_AFTER`];
//! [`CONNECTIONS_MAX`] to one peer, so [`STREAMS_MAX`] times as many streams; [`WAITING_MAX`] requests wait for one.
//!
//! [`STREAMS_MAX`]: crate::peer::streams::STREAMS_MAX

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::identity::SpiffeId;
use ringmail_proto::svid::Svid;
use ringmail_proto::tls::ALPN_RINGMAIL;
use ringmail_proto::workload::Protocol as Declared;
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::app::Session;
use crate::config::PEER_PORT;
use crate::error::{Error, Reason};
use crate::listen;
use crate::metrics::{Direction, NO_IDENTITY, Tls};
use crate::peer::streams::{STREAMS_MAX, Side, Streams};
use crate::peer::{connection, local};
use crate::snapshot::Snapshot;
use crate::tls::identity::Identity;
use crate::tls::stream::TlsStream;
use crate::worker::Worker;

/// For the TCP connection to a peer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A failed peer is left alone for so long, so that requests turn to others at once.
const REDIAL_AFTER: Duration = Duration::from_millis(500);
/// A peer that asked us to go is asked again after so long, if there are others.
const LEAVING: Duration = Duration::from_secs(1);
/// Connections of one worker to one peer.
const CONNECTIONS_MAX: usize = 4;
/// Requests that wait for a connection to one peer: as many as will find room on those that may yet be made.
const WAITING_MAX: usize = (CONNECTIONS_MAX - 1) * STREAMS_MAX;

/// Every peer that was dialled, by address and what it is.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_endpoint: RefCell<HashMap<(IpAddr, Is), Rc<Peer>>>,
}

/// What is at an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Is {
    /// A proxy, which must prove this identity.
    Proxy(SpiffeId),
    /// An app without a proxy, and what it was declared to speak. Its streams end in our own process.
    App(Declared),
}

/// One pod's proxy, or an app without one.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    is: Is,
    connections: RefCell<Vec<Connection>>,
    dialing: RefCell<Option<Rc<Dial>>>,
    waiting: Cell<usize>,
    failed: Cell<Option<(Instant, Reason)>>,
    /// When it was last seen to leave.
    left: Cell<Option<Instant>>,
}

/// What there is for one more stream.
#[derive(Debug)]
enum Usable {
    Now(Rc<Streams>),
    /// A connection on which much waits to be sent.
    Behind(Rc<Streams>),
    /// Another connection has to be made.
    None,
    /// And none may be.
    Full,
}

#[derive(Debug)]
struct Connection {
    streams: Rc<Streams>,
    /// Of the identity it was made with.
    generation: u64,
    /// Who answered.
    svid: Option<Svid>,
}

/// Whoever dials. Dropping it, in a panic too, tells everyone who waits.
struct Dialing {
    peer: Rc<Peer>,
    dial: Rc<Dial>,
}

impl Drop for Dialing {
    fn drop(&mut self) {
        self.peer.dialing.borrow_mut().take();
        self.dial.done.notify_waiters();
    }
}

/// Somebody who waits for a connection. Dropping it ends the wait.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn begin(count: &'a Cell<usize>) -> Result<Self, Reason> {
        if count.get() >= WAITING_MAX {
            return Err(Reason::Overloaded);
        }
        count.set(count.get() + 1);
        Ok(Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A connection being made. Everyone who needs it waits for the same.
#[derive(Debug, Default)]
struct Dial {
    done: Notify,
    outcome: Cell<Option<Result<(), Reason>>>,
}

impl Peers {
    /// Retires connections that were made with an older identity, and forgets peers without any.
    pub(crate) fn retire_before(&self, generation: u64) {
        self.by_endpoint.borrow_mut().retain(|_, peer| {
            if let Is::Proxy(_) = peer.is {
                peer.retire_before(generation);
            }
            peer.connections
                .borrow_mut()
                .retain(|one| !one.streams.is_closed());
            Rc::strong_count(peer) > 1 || !peer.connections.borrow().is_empty()
        });
    }

    /// Cuts connections to those whom nobody trusts any more.
    pub(crate) fn cut_revoked(&self, snapshot: &Snapshot) {
        for peer in self.by_endpoint.borrow().values() {
            for one in &*peer.connections.borrow() {
                if one
                    .svid
                    .as_ref()
                    .is_some_and(|svid| snapshot.has_revoked(svid))
                {
                    one.streams.close(Reason::PeerIdentity);
                }
            }
        }
    }

    /// Retires what large flows needed and is idle now, and resets streams that are idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        for peer in self.by_endpoint.borrow().values() {
            let connections = peer.connections.borrow();
            for connection in &*connections {
                connection.streams.cut_idle(now);
            }
            let live = |one: &&Connection| !one.streams.is_retired() && !one.streams.is_closed();
            let mut connections = connections.iter().filter(live);
            if connections.next().is_none_or(|one| one.streams.is_behind()) {
                continue;
            }
            for connection in connections.filter(|one| one.streams.count() == 0) {
                connection.streams.retire();
            }
        }
    }

    /// What is at `address`.
    pub(crate) fn peer(&self, address: IpAddr, is: &Is) -> Rc<Peer> {
        let mut peers = self.by_endpoint.borrow_mut();
        let peer = peers.entry((address, is.clone())).or_insert_with(|| {
            Rc::new(Peer {
                address: SocketAddr::new(address, PEER_PORT),
                is: is.clone(),
                connections: RefCell::default(),
                dialing: RefCell::default(),
                waiting: Cell::new(0),
                failed: Cell::default(),
                left: Cell::default(),
            })
        });
        peer.clone()
    }
}

impl Peer {
    /// From now on streams may be opened there.
    pub(super) fn add(&self, streams: Rc<Streams>, generation: u64, svid: Option<Svid>) {
        let connection = Connection {
            streams,
            generation,
            svid,
        };
        self.connections.borrow_mut().push(connection);
    }

    /// Whether it asked lately to be left alone: it drains, and takes more only for want of others.
    pub(crate) fn is_leaving(&self, now: Instant) -> bool {
        let connections = self.connections.borrow();
        let newest = connections.last();
        let dismissed = newest.filter(|one| one.streams.is_dismissed());
        if dismissed.is_some() {
            self.left.set(Some(now));
        }
        let left = self.left.get();
        left.is_some_and(|at| now.saturating_duration_since(at) < LEAVING)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn identity(&self) -> &str {
        match &self.is {
            Is::Proxy(identity) => identity.as_str(),
            Is::App(_) => NO_IDENTITY,
        }
    }

    /// Whom it must prove to be; none of an app without a proxy.
    pub(crate) fn spiffe_id(&self) -> Option<&SpiffeId> {
        match &self.is {
            Is::Proxy(identity) => Some(identity),
            Is::App(_) => None,
        }
    }

    /// A connection with room for one more stream, if there is one.
    pub(crate) fn ready(&self, worker: &Worker) -> Result<Option<Rc<Streams>>, Error> {
        if let Is::App(_) = self.is {
            return Ok(None);
        }
        let ourselves = worker.snapshot.identity()?;
        Ok(match self.usable(ourselves.generation) {
            Usable::Now(streams) => Some(streams),
            Usable::Behind(_) | Usable::None | Usable::Full => None,
        })
    }

    /// The same; waits for it to be made if there is none.
    pub(crate) async fn connection(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
    ) -> Result<Rc<Streams>, Error> {
        let identity = match &self.is {
            Is::Proxy(identity) => identity,
            Is::App(declared) => return self.pair(worker, *declared),
        };
        let ourselves = worker.snapshot.identity()?;
        loop {
            match self.usable(ourselves.generation) {
                Usable::Now(streams) => return Ok(streams),
                Usable::Behind(streams) => {
                    // Another one is for those that come later.
                    if self.failed_lately().is_none() {
                        self.begin_once(worker, &ourselves, identity);
                    }
                    return Ok(streams);
                }
                Usable::Full => return Err(Reason::Overloaded.into()),
                Usable::None => self.dial(worker, &ourselves, identity).await?,
            }
        }
    }

    /// The opening end of a pair whose streams go to the app. Where it cannot be connected to, each of them says so.
    fn pair(&self, worker: &Rc<Worker>, declared: Declared) -> Result<Rc<Streams>, Error> {
        match self.usable(0) {
            Usable::Now(streams) | Usable::Behind(streams) => Ok(streams),
            Usable::Full => Err(Reason::Overloaded.into()),
            Usable::None => {
                let session = Session::of_our_app(self.address.ip(), declared);
                let worker = worker.clone();
                let streams =
                    local::pair(Streams::new(Side::Acceptor), move |stream, reader, head| {
                        session.accept(&worker, stream, reader, head);
                    });
                self.add(streams.clone(), 0, None);
                Ok(streams)
            }
        }
    }

    fn usable(&self, generation: u64) -> Usable {
        let connections = self.connections.borrow();
        let live = |one: &&Connection| {
            one.generation == generation && !one.streams.is_retired() && !one.streams.is_closed()
        };
        let mut behind = None;
        let mut count = 0;
        for one in connections.iter().filter(live) {
            count += 1;
            match (one.streams.has_room(), one.streams.is_behind()) {
                (true, false) => return Usable::Now(one.streams.clone()),
                (true, true) => behind = behind.or(Some(&one.streams)),
                (false, _) => {}
            }
        }
        match behind {
            Some(streams) if count < CONNECTIONS_MAX => Usable::Behind(streams.clone()),
            Some(streams) => Usable::Now(streams.clone()),
            None if count < CONNECTIONS_MAX => Usable::None,
            None => Usable::Full,
        }
    }

    fn retire_before(&self, generation: u64) {
        for connection in self
            .connections
            .borrow()
            .iter()
            .filter(|one| one.generation < generation)
        {
            connection.streams.retire();
        }
    }

    /// Why the last attempt failed, if that is not long ago.
    fn failed_lately(&self) -> Option<Reason> {
        let (at, reason) = self.failed.get()?;
        (at.elapsed() < REDIAL_AFTER).then_some(reason)
    }

    /// Waits for a new connection.
    async fn dial(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        ourselves: &Arc<Identity>,
        identity: &SpiffeId,
    ) -> Result<(), Error> {
        if let Some(reason) = self.failed_lately() {
            return Err(reason.into());
        }
        let _waiting = Waiting::begin(&self.waiting)?;
        let dial = self.begin_once(worker, ourselves, identity);
        let done = dial.done.notified();
        if dial.outcome.get().is_none() {
            done.await;
        }
        dial.outcome
            .get()
            .unwrap_or(Err(Reason::Internal))
            .map_err(Error::from)
    }

    fn begin_once(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        ourselves: &Arc<Identity>,
        identity: &SpiffeId,
    ) -> Rc<Dial> {
        self.dialing
            .borrow_mut()
            .get_or_insert_with(|| self.begin(worker, ourselves, identity))
            .clone()
    }

    /// Dials in a task of its own: it goes on when the request that asked first is given up.
    fn begin(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        ourselves: &Arc<Identity>,
        identity: &SpiffeId,
    ) -> Rc<Dial> {
        let dial = Rc::new(Dial::default());
        let guard = Dialing {
            peer: self.clone(),
            dial: dial.clone(),
        };
        let (worker, ourselves, identity) = (worker.clone(), ourselves.clone(), identity.clone());
        spawn_local(async move {
            let peer = &guard.peer;
            let dialled = peer.establish(&worker, &ourselves, &identity).await;
            let result = match dialled {
                Ok(tls) => {
                    peer.failed.set(None);
                    peer.adopt(tls, ourselves.generation);
                    Ok(())
                }
                Err(error) => {
                    tracing::info!(peer = peer.identity(), address = %peer.address, ?error, "peer not reached");
                    peer.failed.set(Some((Instant::now(), error.reason)));
                    Err(error.reason)
                }
            };
            guard.dial.outcome.set(Some(result));
        });
        dial
    }

    async fn establish(
        &self,
        worker: &Worker,
        ourselves: &Identity,
        identity: &SpiffeId,
    ) -> Result<TlsStream, Error> {
        let connect = listen::connect(self.address, listen::Party::Mesh, worker.config.socket_mark);
        let socket = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(|error| blame(&error).because(error))?,
            Err(elapsed) => return Err(Reason::PeerUnreachable.because(elapsed)),
        };
        let config = ourselves.client(identity.clone(), ALPN_RINGMAIL)?;
        let begun = Instant::now();
        let tls = TlsStream::connect(socket, config).await;
        let outcome = tls
            .as_ref()
            .map(|tls| (tls.key_exchange(), begun.elapsed()))
            .map_err(|error| error.reason);
        worker.metrics.handshake(Direction::Outbound, outcome);
        let tls = tls?;
        if tls.alpn() != Some(ALPN_RINGMAIL) {
            return Err(Reason::PeerProtocol.into());
        }
        let peer = tls.peer();
        let peer = peer.map_err(|error| Reason::PeerIdentity.because(error))?;
        if worker.snapshot.has_revoked(&peer) {
            return Err(Reason::PeerIdentity.rule("it was revoked"));
        }
        Ok(tls)
    }

    /// Serves a new connection until it ends.
    fn adopt(self: &Rc<Self>, tls: TlsStream, generation: u64) {
        let streams = Streams::new(Side::Dialer);
        self.add(streams.clone(), generation, tls.peer().ok());
        let peer = self.clone();
        spawn_local(async move {
            // The wire refuses streams that the answering side opens.
            let ended = connection::run(tls, streams.clone(), |_, _, _| {}).await;
            peer.connections
                .borrow_mut()
                .retain(|one| !Rc::ptr_eq(&one.streams, &streams));
            if let Err(error) = ended {
                tracing::info!(peer = peer.identity(), address = %peer.address, ?error, "peer connection broke");
            }
        });
    }

    /// What protects what we say to it.
    pub(super) fn tls(&self) -> Tls {
        match &self.is {
            Is::Proxy(_) => Tls::Mutual,
            Is::App(_) => Tls::None,
        }
    }
}

/// Who is to blame for a connection that was not made: with nothing left of our own, no peer is.
fn blame(error: &io::Error) -> Reason {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            Reason::Overloaded
        }
        Some(_) | None => Reason::PeerUnreachable,
    }
}

#[cfg(test)]
mod tests;
