//! Streams that go to an app: to ours, from other proxies or from clients outside the mesh; and from ours, to an app that
//! has no sidecar.

/// Asking somebody else.
pub(crate) mod external;

use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Instant;

use ringmail_proto::workload::Protocol as Declared;
use tokio::task::spawn_local;

use crate::buffer::Buffer;
use crate::config::{STATUS_PORT, is_own_port};
use crate::drain::Busy;
use crate::error::{Error, Reason};
use crate::http::context;
use crate::http::exchange::Exchange;
use crate::http::h1::forward::connect;
use crate::http::neutral::{Fields, Request, Version};
use crate::http::{h1, h2};
use crate::inventory::Came;
use crate::limits::Admitted;
use crate::listen::Party;
use crate::metrics::{Between, Direction, NO_IDENTITY, Outcome, Protocol, Tls, Traffic};
use crate::peer::open::{Kind, Open};
use crate::peer::stream::{Reader, Stream};
use crate::policy::{Authenticated, Client, Ground, Wanted};
use crate::records::{Record, Seen};
use crate::tcp;
use crate::worker::Worker;
use external::{Check, Checked};

/// All streams of one connection: whose they are, and where they go.
#[derive(Debug)]
pub(crate) struct Session {
    from: From,
    /// Where the app is.
    address: IpAddr,
    /// The peer's certificate has ended: it opens no more streams.
    expired: Cell<bool>,
    http1: OnceCell<Rc<Traffic>>,
    http2: OnceCell<Rc<Traffic>>,
    tcp: OnceCell<Rc<Traffic>>,
}

/// Who asks.
#[derive(Debug)]
enum From {
    /// Another proxy, which proved its identity; or a client outside the mesh, without one.
    Client(Client),
    /// Our own app; it is counted where it asks, and what the other app speaks was declared to it.
    OurApp(Declared),
}

impl Session {
    /// Streams of a client to our app at `address`.
    pub(crate) fn of_client(client: Client, address: IpAddr) -> Rc<Self> {
        Self::new(From::Client(client), address)
    }

    /// Streams of our app to one at `address` that has no sidecar.
    pub(crate) fn of_our_app(address: IpAddr, declared: Declared) -> Rc<Self> {
        Self::new(From::OurApp(declared), address)
    }

    fn new(from: From, address: IpAddr) -> Rc<Self> {
        Rc::new(Self {
            from,
            address,
            expired: Cell::new(false),
            http1: OnceCell::new(),
            http2: OnceCell::new(),
            tcp: OnceCell::new(),
        })
    }

    /// No more streams are taken.
    pub(crate) fn expire(&self) {
        self.expired.set(true);
    }

    /// For logs and labels.
    fn peer(&self) -> &str {
        let svid = self.client().and_then(|client| client.svid.as_ref());
        svid.map_or(NO_IDENTITY, |svid| svid.id.as_str())
    }

    /// Whoever asks for our app, and needs leave.
    fn client(&self) -> Option<&Client> {
        match &self.from {
            From::Client(client) => Some(client),
            From::OurApp(_) => None,
        }
    }

    /// A stream was opened: serves it in a task of its own.
    pub(crate) fn accept(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        stream: Stream,
        reader: Reader,
        payload: &[u8],
    ) {
        let opened = match Open::decode(payload) {
            Some(_) if self.expired.get() => Err(Reason::PeerIdentity),
            // Not a request for the proxy itself, nor one that would come back to it; only its metrics may be asked for,
            // by a Prometheus that is in the mesh itself.
            Some(open) if self.is_ours() && is_own_port(open.port) && open.port != STATUS_PORT => {
                Err(Reason::Loop)
            }
            Some(open) if open.kind == Kind::Tcp && self.speaks_http(worker, open.port) => {
                Err(Reason::NotHttp)
            }
            Some(open) => Ok(open),
            None => Err(Reason::PeerProtocol),
        };
        let open = match opened {
            Ok(open) => open,
            Err(reason) => {
                self.refused(worker, reason);
                return stream.fail(reason);
            }
        };
        let (session, worker, busy) = (self.clone(), worker.clone(), worker.drain.enter());
        match open.kind {
            Kind::Http => {
                let (port, head) = (open.port, open.head.to_vec());
                // Behind a pointer: a task by value is copied several times on its way into and out of the runtime.
                spawn_local(Box::pin(async move {
                    session
                        .http(&worker, port, &head, stream, reader, busy)
                        .await;
                }));
            }
            Kind::Tcp => {
                let port = open.port;
                spawn_local(Box::pin(async move {
                    session.tcp(&worker, port, stream, reader, busy).await;
                }));
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
        let app = SocketAddr::new(self.address, port);
        let head = match Request::decode(head) {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(peer = %self.peer(), %error, "request refused");
                self.refused(worker, Reason::PeerProtocol);
                return stream.fail(Reason::PeerProtocol);
            }
        };
        // The app is spoken to in the version the client spoke, unless it said what it wants.
        let http2 = match self.declared(worker, port) {
            Declared::Http2 => true,
            Declared::Http1 => false,
            Declared::Detect | Declared::Tcp => head.0.version == Version::Http2,
        };
        let protocol = if http2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        let begun = Instant::now();
        let record = self.record(worker, app, (protocol, begun), Some(head));
        let traced = record.as_ref().and_then(|record| record.span());
        let traced = traced.map(|span| context::gone_on(head, span));
        let head = match traced.as_deref().map(Request::decode) {
            Some(Ok(traced)) => traced,
            Some(Err(_)) | None => head,
        };
        let exchange = Exchange::begin(self.traffic(worker, protocol), begun);
        let mut exchange = exchange.recorded(record);
        let to = (app, http2);
        let forwarded = self.forward(worker, to, head, &stream, reader, &mut exchange);
        let outcome = forwarded.await;
        self.observe(worker, port, head, &exchange, outcome.as_ref().err());
        match outcome {
            Ok(()) => exchange.finish(),
            Err(error) => {
                tracing::debug!(peer = %self.peer(), %app, ?error, "request failed");
                self.refused(worker, error.reason);
                stream.fail_as(&error);
                exchange.fail(&error);
            }
        }
    }

    /// Lets the inventory see a request of another pod.
    fn observe(
        &self,
        worker: &Worker,
        port: u16,
        head: (Request<'_>, Fields<'_>),
        exchange: &Exchange,
        error: Option<&Error>,
    ) {
        let Some(client) = self.client() else {
            return;
        };
        let answer = exchange.answer();
        worker.observer.see(exchange.begun(), || Came {
            client,
            port,
            head,
            outcome: error.map_or_else(|| Outcome::of(answer), |e| Outcome::of_reason(e.reason)),
            answer,
            is_covered: worker.policies.covers(&Wanted {
                client,
                port,
                request: Some(head),
                came: None,
                token: None,
                asking: &[],
            }),
        });
    }

    /// To the app, what its token leaves of a request, if that is allowed.
    async fn forward(
        &self,
        worker: &Rc<Worker>,
        (app, http2): (SocketAddr, bool),
        came: (Request<'_>, Fields<'_>),
        stream: &Stream,
        mut reader: Reader,
        exchange: &mut Exchange,
    ) -> Result<(), Error> {
        let wanted = |request, token| {
            self.client().map(|client| Wanted {
                client,
                port: app.port(),
                request: Some(request),
                came: Some(came),
                token,
                asking: &[],
            })
        };
        let authenticated = match wanted(came, None) {
            Some(wanted) => worker.policies.authenticate(&wanted)?,
            None => None,
        };
        let (head, token) = match &authenticated {
            Some(authenticated) => (authenticated.head(came)?, authenticated.verified()),
            None => (came, None),
        };
        if authenticated
            .as_ref()
            .is_some_and(Authenticated::guards_headers)
        {
            reader.drop_trailers();
        }
        let wanted = wanted(head, token);
        let asking = match &wanted {
            Some(wanted) => worker.policies.judge(wanted)?,
            None => Vec::new(),
        };
        let wanted = wanted.map(|wanted| Wanted {
            asking: &asking,
            ..wanted
        });
        let _admitted = match &wanted {
            None => Admitted::default(),
            Some(wanted) => match worker.limits.admit(&wanted.into(), exchange.begun()).await {
                Ok(admitted) => admitted,
                Err(exceeded) => {
                    let ground = Ground::Limit(&exceeded.limit);
                    let refused = worker.policies.exceeds(wanted, ground);
                    let refused = (&refused, &*worker.metrics);
                    return exceeded.tell(refused, head, stream, exchange).await;
                }
            },
        };
        let forward = pin!(async {
            let changed = match &wanted {
                Some(wanted) if !asking.is_empty() => {
                    let check = Check {
                        worker,
                        wanted,
                        app,
                        stream,
                    };
                    // Boxed: it is seldom, and every request would hold room for it.
                    match Box::pin(check.ask(head, &mut reader, exchange)).await? {
                        Checked::GoesOn(changed) => changed,
                        Checked::Told => return Ok(()),
                    }
                }
                Some(_) | None => None,
            };
            let changed = changed.as_deref().map(Request::decode).transpose();
            let changed = changed.map_err(|error| Reason::HeadTooLarge.because(error))?;
            let head = changed.unwrap_or(head);
            match http2 {
                true => {
                    let to = (app, self.party());
                    h2::forward::forward(worker, to, head, stream, reader, exchange).await
                }
                false => h1::forward::forward(worker, app, head, stream, reader, exchange).await,
            }
        });
        while_allowed(worker, wanted.as_ref(), forward).await
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
        let tally = tcp::Tally::new(&traffic);
        let app = SocketAddr::new(self.address, port);
        let mut record = self.record(worker, app, (Protocol::Tcp, Instant::now()), None);
        traffic.connection_started();
        let open = worker.metrics.connections_open(Direction::Inbound);
        open.inc_by(self.is_ours().into());
        let pumped = pin!(async {
            let mut socket = connect(worker, app, Party::App).await?;
            let (mut from, mut to) = socket.split();
            let mut input = Buffer::default();
            let (ends, gone) = ((&mut from, &mut to), Reason::AppGone);
            let pumped =
                tcp::with_stream(ends, &mut input, &stream, &mut reader, &tally, gone).await;
            if pumped.is_err() {
                // A reset on one side is a reset on the other.
                let _ = socket.set_zero_linger();
            }
            pumped
        });
        let wanted = self.client().map(|client| Wanted {
            client,
            port,
            request: None,
            came: None,
            token: None,
            asking: &[],
        });
        let outcome = match admit(worker, wanted.as_ref()).await {
            Ok(_admitted) => while_allowed(worker, wanted.as_ref(), pumped).await,
            Err(refused) => Err(refused),
        };
        open.dec_by(self.is_ours().into());
        if let Some(record) = &mut record {
            record.ended(tally.bytes(), &outcome);
        }
        match outcome {
            Ok(()) => traffic.connection(Outcome::Success),
            Err(error) => {
                tracing::debug!(peer = %self.peer(), port, ?error, "connection failed");
                self.refused(worker, error.reason);
                stream.fail_as(&error);
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
        let tls = match &self.from {
            From::Client(Client { svid: Some(_), .. }) => Tls::Mutual,
            From::Client(Client { svid: None, .. }) => Tls::None,
            From::OurApp(_) => return cell.get_or_init(|| Rc::new(Traffic::uncounted())).clone(),
        };
        let resolve = || {
            let metrics = &worker.metrics;
            Rc::new(metrics.traffic(&Between {
                peer: self.peer(),
                ..Between::inbound(tls, protocol)
            }))
        };
        cell.get_or_init(resolve).clone()
    }

    /// What is told of a request or a connection to our own app, if somebody wants that.
    fn record(
        &self,
        worker: &Worker,
        app: SocketAddr,
        (protocol, begun): (Protocol, Instant),
        request: Option<(Request<'_>, Fields<'_>)>,
    ) -> Option<Record> {
        let client = self.client()?;
        worker.records.begin(|| {
            Some(Seen {
                direction: Direction::Inbound,
                protocol,
                begun,
                source: client.address,
                destination: app,
                peer: client.svid.as_ref().map(|svid| &svid.id),
                request: request.map(|(request, fields)| request.asked(fields)),
            })
        })
    }

    fn refused(&self, worker: &Worker, reason: Reason) {
        if self.is_ours() {
            worker.metrics.refused(Direction::Inbound, reason);
        }
    }

    /// What the app's address is to our sockets: HTTP/2 has windows of its own, so that one beyond our pod that
    /// acknowledges nothing is gone.
    fn party(&self) -> Party {
        match self.is_ours() {
            true => Party::App,
            false => Party::Mesh,
        }
    }

    /// Whether the app is that of our own pod.
    fn is_ours(&self) -> bool {
        self.client().is_some()
    }

    /// What the app's port was declared to speak.
    fn declared(&self, worker: &Worker, port: u16) -> Declared {
        match self.from {
            From::OurApp(declared) => declared,
            From::Client(_) => worker
                .snapshot
                .workload()
                .map_or(Declared::Detect, |workload| workload.protocol(port)),
        }
    }

    /// Whether the port was declared to speak HTTP, or a policy is about that: then bytes that are none do not reach it.
    fn speaks_http(&self, worker: &Worker, port: u16) -> bool {
        let declared = self.declared(worker, port);
        let is_declared = matches!(declared, Declared::Http1 | Declared::Http2);
        is_declared || self.is_ours() && worker.policies.requires_http(port, declared)
    }
}

/// Whether an opaque connection may begin; what nobody asks leave for may.
async fn admit(worker: &Worker, wanted: Option<&Wanted<'_>>) -> Result<Admitted, Error> {
    let Some(wanted) = wanted else {
        return Ok(Admitted::default());
    };
    worker.policies.judge(wanted)?;
    let admitted = worker.limits.admit(&wanted.into(), Instant::now()).await;
    admitted.map_err(|exceeded| {
        worker
            .policies
            .exceeds(wanted, Ground::Limit(&exceeded.limit))
    })
}

/// Runs an exchange with the app, which was judged, for as long as it is allowed; what nobody asks leave for is.
async fn while_allowed(
    worker: &Worker,
    wanted: Option<&Wanted<'_>>,
    exchange: Pin<&mut impl Future<Output = Result<(), Error>>>,
) -> Result<(), Error> {
    match wanted {
        Some(wanted) => worker.policies.while_allowed(wanted, exchange).await,
        None => exchange.await,
    }
}
