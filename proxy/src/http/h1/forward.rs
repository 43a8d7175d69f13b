//! One request of a peer, forwarded to our own app as server over a pooled HTTP/1 connection.
//!
//! Limits: [`CONNECT_TIMEOUT`], [`IDLE_MAX`] pooled connections per worker, each for [`IDLE_TIMEOUT`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::parse::{self, Asked, ResponseHead};
use super::pump::{Source, send_body};
use super::write::{self, Framing};
use crate::buffer::{Buffer, write_all};
use crate::error::{Blamed, Error, Reason};
use crate::http::exchange::{Exchange, both_ways, unless_reset};
use crate::http::neutral::{Fields, Request};
use crate::listen::{self, Party};
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::tcp;
use crate::worker::Worker;

/// For a connection to an app in our own pod.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections that one worker keeps to one port.
const IDLE_MAX: usize = 256;
/// Below what common servers wait (Node.js: 5 s), so that they seldom close a connection under us.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 64 * 1024;

/// Idle connections to our app, the last used on top.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    socket: TcpStream,
    since: Instant,
}

impl Apps {
    /// A connection that nobody closed, as far as we were told.
    fn take(&self, address: SocketAddr) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&address)?;
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Some(one) = connections.pop() {
            // Readable means closed, or bytes that nobody asked for.
            if one.since.elapsed() < IDLE_TIMEOUT
                && one.socket.poll_read_ready(&mut context).is_pending()
            {
                return Some(one.socket);
            }
        }
        None
    }

    fn put(&self, address: SocketAddr, socket: TcpStream) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(address).or_default();
        if connections.len() < IDLE_MAX {
            connections.push(Idle {
                socket,
                since: Instant::now(),
            });
        }
    }

    /// Closes what has been idle too long.
    pub(crate) fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(|one| one.since.elapsed() < IDLE_TIMEOUT);
            !connections.is_empty()
        });
    }
}

/// Connects to an app.
pub(crate) async fn connect(
    worker: &Worker,
    app: SocketAddr,
    party: Party,
) -> Result<TcpStream, Error> {
    match tokio::time::timeout(
        CONNECT_TIMEOUT,
        listen::connect(app, party, worker.config.socket_mark),
    )
    .await
    {
        Ok(connected) => connected.blame(Reason::AppUnreachable),
        Err(elapsed) => Err(Reason::AppUnreachable.because(elapsed)),
    }
}

/// Forwards the request that opened `stream` and sends the response back on it.
pub(crate) async fn forward(
    worker: &Worker,
    app: SocketAddr,
    head: (Request<'_>, Fields<'_>),
    stream: &Stream,
    mut reader: Reader,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let (request, fields) = head;
    let mut text = Vec::with_capacity(512);
    let bodyless = reader.is_ended();
    let framing = write::request(&request, fields, !bodyless, &mut text)?;
    let pooled = if request.upgrade {
        None
    } else {
        worker.apps.take(app)
    };
    let reused = pooled.is_some();
    let mut socket = match pooled {
        Some(socket) => socket,
        None => connect(worker, app, Party::App).await?,
    };
    let mut forwarding = Forwarding {
        request,
        stream,
        exchange,
        input: Buffer::default(),
    };
    let mut outcome = forwarding
        .exchange(&mut socket, &text, framing, &mut reader)
        .await;
    // The app closed a kept connection just as we used it: nothing was processed, so a request that may be repeated is.
    let may_repeat =
        reused && bodyless && request.is_idempotent() && !forwarding.exchange.is_answered();
    if may_repeat
        && outcome
            .as_ref()
            .is_err_and(|error| error.reason == Reason::AppGone)
    {
        socket = connect(worker, app, Party::App).await?;
        forwarding.input = Buffer::default();
        outcome = forwarding
            .exchange(&mut socket, &text, framing, &mut reader)
            .await;
    }
    if outcome? && forwarding.input.is_empty() {
        worker.apps.put(app, socket);
    }
    Ok(())
}

struct Forwarding<'a> {
    request: Request<'a>,
    stream: &'a Stream,
    exchange: &'a mut Exchange,
    input: Buffer,
}

impl Forwarding<'_> {
    /// Request up and response down at the same time. True when the connection can serve another request.
    async fn exchange(
        &mut self,
        socket: &mut TcpStream,
        text: &[u8],
        framing: Framing,
        reader: &mut Reader,
    ) -> Result<bool, Error> {
        let Self {
            request,
            stream,
            exchange,
            input,
        } = self;
        let (mut from, mut to) = socket.split();
        let mut uploaded = 0;
        let (head, upload_ended) = {
            let upload = pin!(upload(
                stream,
                reader,
                text,
                framing,
                &mut to,
                &mut uploaded
            ));
            let respond = pin!(unless_reset(
                stream,
                respond(stream, request, &mut from, input, exchange)
            ));
            let is_unwanted = |error: &Error| error.reason == Reason::AppGone;
            both_ways(false, is_unwanted, upload, respond).await?
        };
        exchange.received(uploaded);
        if head.upgrade {
            let tally = tcp::Tally::new(exchange.traffic());
            let ends = (&mut from, &mut to);
            let gone = Reason::AppGone;
            let pumped = tcp::with_stream(ends, input, stream, reader, &tally, gone).await;
            let bytes = tally.bytes();
            exchange.tunnelled(bytes);
            return pumped.map(|()| false);
        }
        if request.upgrade {
            stream.end();
        }
        Ok(head.persistent && matches!(upload_ended, Some(Ok(()))) && !request.upgrade)
    }
}

/// Writes the request: the head and what is there of the body in one write, then the rest as it comes.
async fn upload(
    stream: &Stream,
    reader: &mut Reader,
    text: &[u8],
    mut framing: Framing,
    to: &mut WriteHalf<'_>,
    uploaded: &mut usize,
) -> Result<(), Error> {
    // An upgrade sends nothing before the app agreed.
    if reader.is_ended() || framing == Framing::Raw {
        return write_all(to, text).await.blame(Reason::AppGone);
    }
    let mut out = text.to_vec();
    loop {
        // A client that waits for a 100 sends nothing before the app saw the head.
        if !poll_fn(|cx| Poll::Ready(stream.poll_receivable(cx, reader).is_ready())).await {
            write_all(to, &out).await.blame(Reason::AppGone)?;
            out.clear();
        }
        let received = stream.receive(reader).await?;
        *uploaded += received.payload.len();
        match received.kind {
            Kind::Data => framing.put(received.payload, &mut out)?,
            Kind::Trailers => {
                let trailers = Fields::check(received.payload)
                    .map_err(|error| Reason::PeerProtocol.because(error))?;
                framing.end(Some(trailers), &mut out)?;
            }
            _ => return Err(Reason::PeerProtocol.into()),
        }
        if received.end {
            if received.kind == Kind::Data {
                framing.end(None, &mut out)?;
            }
            return write_all(to, &out).await.blame(Reason::AppGone);
        }
        if out.len() >= WRITE_BYTES {
            write_all(to, &out).await.blame(Reason::AppGone)?;
            out.clear();
        }
    }
}

/// Sends the app's response on the stream as it comes.
async fn respond(
    stream: &Stream,
    request: &Request<'_>,
    from: &mut ReadHalf<'_>,
    input: &mut Buffer,
    exchange: &mut Exchange,
) -> Result<ResponseHead, Error> {
    let asked = Asked {
        is_head: request.method == "HEAD",
        is_connect: request.method == "CONNECT",
        upgrade: request.upgrade,
    };
    let mut neutral = Vec::with_capacity(256);
    let head = loop {
        let head = response_head(asked, from, input, &mut neutral).await?;
        input.consume(head.bytes);
        exchange.answered(head.status, Instant::now());
        if head.status < 200 && !head.upgrade {
            stream.send_informational(&neutral);
            continue;
        }
        let end = head.body.is_over() && !head.upgrade;
        let edited = exchange.edited(&neutral);
        stream.send_head(Kind::Head, end, |out| out.extend_from_slice(&edited));
        break head;
    };
    if !head.body.is_over() {
        let source = Source {
            gone: Reason::AppGone,
            malformed: Reason::AppMalformed,
        };
        let mut sent = 0;
        let outcome = send_body(head.body, source, from, input, stream, &mut sent).await;
        exchange.sent(sent);
        outcome?;
    }
    Ok(head)
}

async fn response_head(
    asked: Asked,
    from: &mut ReadHalf<'_>,
    input: &mut Buffer,
    neutral: &mut Vec<u8>,
) -> Result<ResponseHead, Error> {
    loop {
        if !input.is_empty() {
            neutral.clear();
            if let Some(head) = parse::response(input.data(), asked, neutral)? {
                return Ok(head);
            }
        }
        if input.is_full() {
            return Err(Reason::AppMalformed.into());
        }
        if input.fill(from).await.blame(Reason::AppGone)? == 0 {
            return Err(Reason::AppGone.into());
        }
    }
}
