//! One connection that our app made, from capture to the end: where to, which protocol, then forward.
//!
//! Limits: [`SERVER_FIRST_GRACE`], and those of `detect`, for finding out what it speaks.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::destination::{Destination, DestinationKind};
use ringmail_proto::workload::{EgressMode, Protocol as Declared};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::buffer::Buffer;
use crate::detect::first::{first_bytes, in_time, server_name};
use crate::detect::{Verdict, is_http2_server};
use crate::error::{Blamed, Error, Reason};
use crate::http::neutral::Fields;
use crate::http::{h1, h2};
use crate::limits::{Admitted, leaving};
use crate::listen;
use crate::metrics::{Between, Direction, Outcome, Protocol, Tls};
use crate::peer::stream::Reader;
use crate::records::{Record, Seen};
use crate::tcp;
use crate::upstream::{Caller, Carrier, Way, open_tcp, open_tls, way};
use crate::worker::Worker;

/// How long a client may be silent before we ask the server whether it speaks first.
const SERVER_FIRST_GRACE: Duration = Duration::from_millis(5);
/// What a client is told whose server name no route is for: the alert unrecognized_name (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// For a connection to something outside the mesh.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one connection of our app `from` there to `dialled`, the address it asked for.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut socket: TcpStream,
    from: SocketAddr,
    dialled: SocketAddr,
) -> Result<(), Error> {
    let _busy = worker.drain.enter();
    let open = worker.metrics.connections_open(Direction::Outbound);
    open.inc();
    let caller = Caller {
        source: from.ip().to_canonical(),
        destination: dialled,
        local: None,
    };
    let outcome = forward(&worker, &mut socket, &caller).await;
    open.dec();
    outcome
}

async fn forward(
    worker: &Rc<Worker>,
    socket: &mut TcpStream,
    caller: &Caller,
) -> Result<(), Error> {
    let counted = |error: &Error| worker.metrics.refused(Direction::Outbound, error.reason);
    let told = |error: &Error| {
        counted(error);
        if let Some(mut record) = record(worker, caller) {
            record.refused(error);
        }
    };

    // Where to.
    let found = whereto(worker, caller).await.and_then(|found| {
        if found.0.kind == DestinationKind::External {
            leave(worker, caller.destination)?;
        }
        Ok(found)
    });
    let (destination, way) = match found {
        Ok(found) => found,
        Err(error) => {
            told(&error);
            explain(socket, &error).await;
            return Err(error);
        }
    };
    if let Way::Plain(address) = way {
        let admitted = match destination.kind {
            DestinationKind::External => Box::pin(leaving::connection(worker, caller)).await,
            DestinationKind::Service(_) => Ok(Admitted::default()),
        };
        let _admitted = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                told(&error);
                explain(socket, &error).await;
                return Err(error);
            }
        };
        let record = record(worker, caller);
        let carried = Box::pin(plain(worker, socket, address, record)).await;
        return carried.inspect_err(counted);
    }

    // What it speaks. Most of its time a connection is idle: what is done once, or seldom, is no part of what it keeps.
    let mut input = Buffer::default();
    let asking = Box::pin(protocol(worker, caller, &destination, socket, &mut input));
    let (spoken, by) = asking.await.inspect_err(told)?;
    worker.metrics.detected(spoken.protocol(), by);

    let admitted = match spoken {
        Spoken::Tls(_) | Spoken::Tcp(_) => Box::pin(leaving::connection(worker, caller)).await,
        Spoken::Http1 | Spoken::Http2 => Ok(Admitted::default()),
    };
    let _admitted = admitted.inspect_err(told)?;

    // On its way. Everything below counts its own failures.
    let opened = match spoken {
        Spoken::Http1 => return h1::serve::serve(worker, caller, socket, input).await,
        Spoken::Http2 => {
            return Box::pin(h2::serve::serve(worker, caller.clone(), socket, input)).await;
        }
        Spoken::Tls(name) => match open_tls(worker, caller, name.as_deref()).await {
            Ok(carrier) => Opened::new(carrier),
            Err(error) => {
                told(&error);
                if matches!(error.reason, Reason::NoRoute | Reason::NoBackend) {
                    // It may be gone, or not listen.
                    let _ = socket.try_write(&UNRECOGNIZED_NAME);
                }
                return Err(error);
            }
        },
        Spoken::Tcp(None) => Opened::new(open_tcp(worker, caller).await.inspect_err(told)?),
        Spoken::Tcp(Some(opened)) => opened,
    };
    opaque(worker, caller, (socket, &mut input), opened).await
}

async fn whereto(worker: &Worker, caller: &Caller) -> Result<(Arc<Destination>, Way), Error> {
    let destination = worker.snapshot.destination(caller.destination).await?;
    let way = way(&destination.kind, caller)?;
    Ok((destination, way))
}

/// Whether a connection may leave the mesh (the namespace's `ringmail.io/egress`).
fn leave(worker: &Worker, dialled: SocketAddr) -> Result<(), Error> {
    match worker.snapshot.workload()?.egress_mode {
        EgressMode::Allow => Ok(()),
        EgressMode::Audit => {
            tracing::info!(destination = %dialled, "connection leaves the mesh");
            worker.metrics.egress_audited();
            Ok(())
        }
        EgressMode::Deny => {
            tracing::info!(destination = %dialled, "connection may not leave the mesh");
            Err(Reason::EgressDenied.into())
        }
    }
}

/// Tells a client that speaks HTTP why it is not served; any other is cut.
async fn explain(socket: &mut TcpStream, error: &Error) {
    let mut input = Buffer::default();
    match in_time(socket, &mut input).await {
        Ok(Verdict::Http1) => {
            let (mut from, mut to) = socket.split();
            h1::goodbye::refuse(&mut from, &mut to, error).await;
        }
        Ok(Verdict::Http2) => Box::pin(h2::serve::refuse_all(socket, input, error)).await,
        Ok(Verdict::Opaque | Verdict::More) | Err(_) => {}
    }
}

/// What a connection speaks.
enum Spoken {
    Http1,
    Http2,
    /// The app's own TLS, on a port with routes for it; with the server's name, if the client says one.
    Tls(Option<String>),
    /// Bytes; with the stream, if one had to be opened to find out.
    Tcp(Option<Box<Opened>>),
}

/// An opaque stream on which the server may have spoken.
struct Opened {
    carrier: Carrier,
    reader: Reader,
}

impl Opened {
    fn new(carrier: Carrier) -> Box<Self> {
        let reader = Reader::default();
        Box::new(Self { carrier, reader })
    }
}

impl Spoken {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Http1 => Protocol::Http1,
            Self::Http2 => Protocol::Http2,
            Self::Tls(_) | Self::Tcp(_) => Protocol::Tcp,
        }
    }
}

/// Declared beats detected; a server that speaks first is heard.
async fn protocol(
    worker: &Rc<Worker>,
    caller: &Caller,
    destination: &Destination,
    socket: &mut TcpStream,
    input: &mut Buffer,
) -> Result<(Spoken, &'static str), Error> {
    let (declared, routes) = match &destination.kind {
        DestinationKind::Service(service) => (service.protocol, service.routes.as_deref()),
        DestinationKind::External => (Declared::Detect, None),
    };
    if routes.is_some_and(|routes| routes.tls) {
        let named = server_name(socket, input);
        let name = worker.drain.or_draining(named).await;
        return Ok((Spoken::Tls(name.ok_or(Reason::Draining)??), "first_bytes"));
    }
    match declared {
        Declared::Http1 => {
            let spoken = http_version(worker, socket, input, Spoken::Http1).await?;
            return Ok((spoken, "declared"));
        }
        Declared::Http2 => {
            let spoken = http_version(worker, socket, input, Spoken::Http2).await?;
            return Ok((spoken, "declared"));
        }
        Declared::Tcp => return Ok((Spoken::Tcp(None), "declared")),
        Declared::Detect if routes.is_some() => return only_http(worker, socket, input).await,
        Declared::Detect => {}
    }
    if let Ok(verdict) = timeout(SERVER_FIRST_GRACE, first_bytes(socket, input)).await {
        return Ok((spoken(verdict?, None), "first_bytes"));
    }
    if !input.is_empty() {
        return Ok((spoken(in_time(socket, input).await?, None), "first_bytes"));
    }
    let carrier = open_tcp(worker, caller).await?;
    let mut reader = Reader::default();
    let server_first = tokio::select! {
        biased;
        heard = std::future::poll_fn(|cx| carrier.stream.poll_receivable(cx, &mut reader)) => {
            heard.inspect_err(|reason| carrier.broke(worker, *reason))?;
            true
        }
        filled = input.fill(socket) => { filled.blame(Reason::ClientGone)?; false }
    };
    // One of HTTP/2 may send its settings at once; its client says what it speaks all the same.
    let is_http2 = reader
        .peek()
        .is_some_and(|heard| is_http2_server(heard.payload));
    let opened = Box::new(Opened { carrier, reader });
    if server_first && !is_http2 {
        return Ok((Spoken::Tcp(Some(opened)), "server_first"));
    }
    Ok((
        spoken(in_time(socket, input).await?, Some(opened)),
        "first_bytes",
    ))
}

/// A port with routes speaks HTTP, and the client first, however late.
async fn only_http(
    worker: &Worker,
    socket: &mut TcpStream,
    input: &mut Buffer,
) -> Result<(Spoken, &'static str), Error> {
    match http_version(worker, socket, input, Spoken::Tcp(None)).await? {
        Spoken::Tcp(_) => Err(Reason::NotHttp.into()),
        spoken => Ok((spoken, "first_bytes")),
    }
}

/// Which version of HTTP the client speaks where HTTP is declared: what is declared is what the app speaks, and our
/// neutral form crosses versions. Bytes that are neither are for the engine of the declared one to refuse.
async fn http_version(
    worker: &Worker,
    socket: &mut TcpStream,
    input: &mut Buffer,
    declared: Spoken,
) -> Result<Spoken, Error> {
    let first = worker.drain.or_draining(first_bytes(socket, input)).await;
    let verdict = match first {
        Some(verdict) => verdict?,
        // Who comes although we drain has something to say.
        None => in_time(socket, input).await?,
    };
    Ok(match verdict {
        Verdict::Http1 => Spoken::Http1,
        Verdict::Http2 => Spoken::Http2,
        Verdict::Opaque | Verdict::More => declared,
    })
}

fn spoken(verdict: Verdict, opened: Option<Box<Opened>>) -> Spoken {
    match verdict {
        Verdict::Http1 => Spoken::Http1,
        Verdict::Http2 => Spoken::Http2,
        Verdict::Opaque | Verdict::More => Spoken::Tcp(opened),
    }
}

/// What is told of a connection, if somebody wants that.
fn record(worker: &Worker, caller: &Caller) -> Option<Record> {
    worker.records.begin(|| {
        Some(Seen::<Fields<'_>> {
            direction: Direction::Outbound,
            protocol: Protocol::Tcp,
            begun: Instant::now(),
            source: caller.source,
            destination: caller.destination,
            peer: None,
            request: None,
        })
    })
}

/// Bytes to a pod's proxy.
async fn opaque(
    worker: &Worker,
    caller: &Caller,
    (socket, input): (&mut TcpStream, &mut Buffer),
    mut opened: Box<Opened>,
) -> Result<(), Error> {
    let Opened { carrier, reader } = &mut *opened;
    let Carrier {
        stream, traffic, ..
    } = &*carrier;
    traffic.connection_started();
    let tally = tcp::Tally::new(traffic);
    let mut record = record(worker, caller);
    if let Some(record) = &mut record {
        carrier.identify(record);
    }
    let (mut from, mut to) = socket.split();
    let ends = (&mut from, &mut to);
    let outcome = tcp::with_stream(ends, input, stream, reader, &tally, Reason::ClientGone).await;
    if let Some(record) = &mut record {
        record.ended(tally.bytes(), &outcome);
    }
    match &outcome {
        Ok(()) => {
            traffic.connection(Outcome::Success);
            carrier.ended(worker);
        }
        Err(error) => {
            worker.metrics.refused(Direction::Outbound, error.reason);
            traffic.connection(Outcome::of_reason(error.reason));
            stream.fail(error.reason);
            carrier.broke(worker, error.reason);
            // A reset on one side is a reset on the other.
            let _ = socket.set_zero_linger();
        }
    }
    outcome
}

/// Bytes to where there is no proxy: outside the mesh, or our own app.
async fn plain(
    worker: &Worker,
    socket: &mut TcpStream,
    address: SocketAddr,
    mut record: Option<Record>,
) -> Result<(), Error> {
    let traffic = worker.metrics.traffic(&Between {
        direction: Direction::Outbound,
        ..Between::inbound(Tls::None, Protocol::Tcp)
    });
    traffic.connection_started();
    let tally = tcp::Tally::new(&traffic);
    let connected = timeout(
        CONNECT_TIMEOUT,
        listen::connect(address, listen::Party::App, worker.config.socket_mark),
    )
    .await;
    let outcome = match connected {
        Ok(Ok(mut other)) => {
            let blame = (Reason::ClientGone, Reason::AppGone);
            tcp::with_socket(socket, &mut Buffer::default(), &mut other, &tally, blame).await
        }
        Ok(Err(error)) => Err(Reason::AppUnreachable.because(error)),
        Err(elapsed) => Err(Reason::AppUnreachable.because(elapsed)),
    };
    if let Some(record) = &mut record {
        record.ended(tally.bytes(), &outcome);
    }
    match &outcome {
        Ok(()) => traffic.connection(Outcome::Success),
        Err(error) => {
            traffic.connection(Outcome::of_reason(error.reason));
            let _ = socket.set_zero_linger();
        }
    }
    outcome
}
