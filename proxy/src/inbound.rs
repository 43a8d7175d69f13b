//! What comes in: mutual TLS from other proxies on 15008, and on 15006 the plaintext of clients outside the mesh.

/// Plaintext that was captured: refused, unless a probe or a permissive workload.
pub(crate) mod plain;

use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringmail_proto::svid::Svid;
use ringmail_proto::tls::ALPN_RINGMAIL;
use ringmail_proto::workload::Protocol as Declared;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::buffer::Buffer;
use crate::config::is_own_port;
use crate::drain::Busy;
use crate::error::{Error, Reason};
use crate::http::exchange::Exchange;
use crate::http::h1::forward::connect;
use crate::http::neutral::{Request, Version};
use crate::http::{h1, h2};
use crate::metrics::{Direction, NO_IDENTITY, Outcome, Protocol, Tls, Traffic};
use crate::peer::connection;
use crate::peer::frame;
use crate::peer::open::{Kind, Open};
use crate::peer::stream::{Reader, Stream};
use crate::peer::streams::{Side, Streams};
use crate::tcp;
use crate::tls::identity::unix_now;
use crate::tls::stream::TlsStream;
use crate::worker::Worker;

/// A connection from another proxy: whose it is, and where its streams go.
struct Session {
    /// None: a client outside the mesh, of whom nothing is known.
    peer: Option<Svid>,
    /// The address the peer dialled: our pod's, on which the app listens.
    pod: IpAddr,
    /// The peer's certificate has ended: it opens no more streams.
    expired: Cell<bool>,
    http1: OnceCell<Rc<Traffic>>,
    http2: OnceCell<Rc<Traffic>>,
    tcp: OnceCell<Rc<Traffic>>,
}

/// Serves one connection of a peer: handshake, identity, then its streams until it ends.
pub(crate) async fn serve(worker: Rc<Worker>, socket: TcpStream) -> Result<(), Error> {
    let busy = worker.drain.enter();
    let pod = socket
        .local_addr()
        .map_err(|error| Reason::PeerGone.because(error))?
        .ip()
        .to_canonical();
    let tls = handshake(&worker, socket).await?;
    let peer = tls
        .peer()
        .map_err(|error| Reason::PeerIdentity.because(error))?;
    let left = u64::try_from(peer.not_after - unix_now()).unwrap_or(0);
    let session = Session::new(Some(peer), pod);
    let streams = Streams::new(Side::Acceptor);
    let accept = |stream, reader, payload: &[u8]| session.accept(&worker, stream, reader, payload);
    let run = connection::run(tls, streams.clone(), accept);
    let ending = say_goodbye(&worker, &session, &streams, left);
    tokio::pin!(run, ending);
    let outcome = tokio::select! {
        outcome = &mut run => outcome,
        () = &mut ending => run.await,
    };
    drop(busy);
    outcome
}

async fn handshake(worker: &Worker, socket: TcpStream) -> Result<TlsStream, Error> {
    let ourselves = worker.snapshot.identity()?;
    let stranger = worker
        .strangers
        .acquire()
        .await
        .map_err(|closed| Reason::Draining.because(closed))?;
    let begun = Instant::now();
    let tls = TlsStream::accept(socket, ourselves.server.clone()).await;
    drop(stranger);
    let outcome = tls
        .as_ref()
        .map(|tls| (tls.key_exchange(), begun.elapsed()))
        .map_err(|error| error.reason);
    worker.metrics.handshake(Direction::Inbound, outcome);
    let tls = tls.inspect_err(|error| worker.metrics.refused(Direction::Inbound, error.reason))?;
    if tls.alpn() == Some(ALPN_RINGMAIL) {
        Ok(tls)
    } else {
        Err(Reason::PeerProtocol.into())
    }
}

/// Asks the peer to move to another connection when its certificate ends or we drain. Streams that are open go on.
async fn say_goodbye(worker: &Worker, session: &Session, streams: &Streams, left: u64) {
    tokio::select! {
        () = worker.drain.begun() => {}
        () = tokio::time::sleep(Duration::from_secs(left)) => session.expired.set(true),
    }
    streams.tell_peer(frame::Kind::GoAway);
    streams.retire();
}

impl Session {
    fn new(peer: Option<Svid>, pod: IpAddr) -> Rc<Self> {
        Rc::new(Self {
            peer,
            pod,
            expired: Cell::new(false),
            http1: OnceCell::new(),
            http2: OnceCell::new(),
            tcp: OnceCell::new(),
        })
    }

    /// For logs and labels.
    fn peer(&self) -> &str {
        self.peer
            .as_ref()
            .map_or(NO_IDENTITY, |peer| peer.id.as_str())
    }

    /// A stream was opened: serves it in a task of its own.
    fn accept(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        stream: Stream,
        reader: Reader,
        payload: &[u8],
    ) {
        let opened = match Open::decode(payload) {
            Some(_) if self.expired.get() => Err(Reason::PeerIdentity),
            // Not a request for the proxy itself, nor one that would come back to it.
            Some(open) if is_own_port(open.port) => Err(Reason::Loop),
            Some(open) if open.kind == Kind::Tcp && speaks_http(worker, open.port) => {
                Err(Reason::NotHttp)
            }
            Some(open) => Ok(open),
            None => Err(Reason::PeerProtocol),
        };
        let open = match opened {
            Ok(open) => open,
            Err(reason) => {
                worker.metrics.refused(Direction::Inbound, reason);
                return stream.fail(reason);
            }
        };
        let (session, worker, busy) = (self.clone(), worker.clone(), worker.drain.enter());
        match open.kind {
            Kind::Http => {
                let (port, head) = (open.port, open.head.to_vec());
                spawn_local(async move {
                    session
                        .http(&worker, port, &head, stream, reader, busy)
                        .await
                });
            }
            Kind::Tcp => {
                let port = open.port;
                spawn_local(async move { session.tcp(&worker, port, stream, reader, busy).await });
            }
        }
    }

    /// One HTTP exchange: decode, forward, count.
    async fn http(
        &self,
        worker: &Rc<Worker>,
        port: u16,
        head: &[u8],
        stream: Stream,
        reader: Reader,
        _busy: Busy,
    ) {
        let app = SocketAddr::new(self.pod, port);
        let head = match Request::decode(head) {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(peer = %self.peer(), %error, "request refused");
                worker
                    .metrics
                    .refused(Direction::Inbound, Reason::PeerProtocol);
                return stream.fail(Reason::PeerProtocol);
            }
        };
        let declared = worker
            .snapshot
            .workload()
            .map_or(Declared::Detect, |workload| workload.protocol(port));
        // The app is spoken to in the version the client spoke, unless it said what it wants.
        let http2 = match declared {
            Declared::Http2 => true,
            Declared::Http1 => false,
            Declared::Detect | Declared::Tcp => head.0.version == Version::Http2,
        };
        let protocol = if http2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        let mut exchange = Exchange::begin(self.traffic(worker, protocol), Instant::now());
        let forwarded = match http2 {
            true => {
                Box::pin(h2::forward::forward(
                    worker,
                    app,
                    head,
                    &stream,
                    reader,
                    &mut exchange,
                ))
                .await
            }
            false => h1::forward::forward(worker, app, head, &stream, reader, &mut exchange).await,
        };
        match forwarded {
            Ok(()) => exchange.finish(),
            Err(error) => {
                tracing::debug!(peer = %self.peer(), %app, ?error, "request failed");
                worker.metrics.refused(Direction::Inbound, error.reason);
                stream.fail(error.reason);
                exchange.fail(error.reason);
            }
        }
    }

    /// One opaque connection.
    async fn tcp(
        &self,
        worker: &Rc<Worker>,
        port: u16,
        stream: Stream,
        mut reader: Reader,
        _busy: Busy,
    ) {
        let traffic = self.traffic(worker, Protocol::Tcp);
        let open = worker.metrics.connections_open(Direction::Inbound);
        open.inc();
        let outcome = async {
            let mut socket = connect(worker, SocketAddr::new(self.pod, port)).await?;
            let (mut from, mut to) = socket.split();
            let mut input = Buffer::default();
            let ends = (&mut from, &mut to);
            let pumped = tcp::with_stream(
                ends,
                &mut input,
                &stream,
                &mut reader,
                &traffic,
                Reason::AppGone,
            )
            .await;
            if pumped.is_err() {
                // A reset on one side is a reset on the other.
                let _ = socket.set_zero_linger();
            }
            pumped
        }
        .await;
        open.dec();
        match outcome {
            Ok(()) => traffic.connection(Outcome::Success),
            Err(error) => {
                tracing::debug!(peer = %self.peer(), port, ?error, "connection failed");
                worker.metrics.refused(Direction::Inbound, error.reason);
                stream.fail(error.reason);
                traffic.connection(Outcome::of_reason(error.reason));
            }
        }
    }

    fn traffic(&self, worker: &Worker, protocol: Protocol) -> Rc<Traffic> {
        let cell = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
            Protocol::Tcp => &self.tcp,
        };
        let tls = match self.peer {
            Some(_) => Tls::Mutual,
            None => Tls::None,
        };
        let resolve = || {
            Rc::new(
                worker
                    .metrics
                    .traffic(Direction::Inbound, self.peer(), tls, protocol),
            )
        };
        cell.get_or_init(resolve).clone()
    }
}

/// Whether the port was declared to speak HTTP: then bytes that are none do not reach it.
fn speaks_http(worker: &Worker, port: u16) -> bool {
    let declared = worker
        .snapshot
        .workload()
        .map(|workload| workload.protocol(port));
    matches!(declared, Ok(Declared::Http1 | Declared::Http2))
}
