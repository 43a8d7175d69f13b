//! A connection of our own app as HTTP/2 client: each of its streams becomes one of ours, in a task of its own.
//!
//! Limits: [`PREFACE_TIMEOUT`], [`GOODBYE_TIMEOUT`], those of [`limits`] and of `budget`.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::heads::Tunnel;
use super::held::{Held, Hold};
use super::metered::{Flood, Metered};
use super::{heads, limits, pump};
use crate::buffer::Buffer;
use crate::error::{Error, Reason};
use crate::http::exchange::{Exchange, both_ways};
use crate::http::h1::goodbye::linger;
use crate::http::neutral::Response;
use crate::metrics::{Direction, Protocol};
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::upstream::call::{Call, Outgoing};
use crate::upstream::retry::grpc_timeout;
use crate::upstream::{Begun, Caller, begin_http};
use crate::worker::Worker;

/// For the client's preface.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(30);
/// For our last frames, and for a client that still sends.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves the connection until the client closes it, an error ends it, or the proxy drains and it has no streams.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    caller: Caller,
    socket: &mut TcpStream,
    input: Buffer,
) -> Result<(), Error> {
    let direction = caller.direction();
    let served = streams(worker, caller, socket, input).await;
    let Err(error) = served else {
        return Ok(());
    };
    if error.reason != Reason::ClientGone {
        worker.metrics.refused(direction, error.reason);
        // Closing before all was read would destroy the GOAWAY on its way.
        let (mut from, mut to) = socket.split();
        linger(&mut from, &mut to).await;
    }
    Err(error)
}

async fn streams(
    worker: &Rc<Worker>,
    caller: Caller,
    socket: &mut TcpStream,
    input: Buffer,
) -> Result<(), Error> {
    let (mut connection, flood) = handshake(socket, input).await?;
    let mut draining = pin!(worker.drain.begun());
    let mut told = false;
    let own = Held::default();
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(|cx| poll_accept(&mut connection, &flood, cx)) => accepted,
            () = &mut draining, if !told => {
                told = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            Some(Ok((request, mut respond))) => {
                let Some(hold) = Hold::begin(&own, &worker.held) else {
                    let error = Reason::Overloaded.into();
                    worker
                        .metrics
                        .refused(caller.direction(), Reason::Overloaded);
                    refuse(&mut respond, &error, is_grpc(request.headers()));
                    continue;
                };
                let (worker, caller) = (worker.clone(), caller.clone());
                // Behind a pointer: a task by value is copied several times on its way into and out of the runtime.
                spawn_local(Box::pin(async move {
                    exchange(&worker, caller, request, respond).await;
                    drop(hold);
                }));
            }
            Some(Err(error)) => {
                if flood.is_on() {
                    connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                    let said = poll_fn(|cx| connection.poll_closed(cx));
                    // A client that floods may not read either.
                    let _ = timeout(GOODBYE_TIMEOUT, said).await;
                }
                return Err(error);
            }
            None => return Ok(()),
        }
    }
}

async fn handshake(
    socket: &mut TcpStream,
    input: Buffer,
) -> Result<(Connection<'_>, Flood), Error> {
    let socket = Metered::of_client(socket, input);
    let flood = socket.flood();
    let handshake = h2::server::Builder::new()
        .initial_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_concurrent_streams(limits::STREAMS)
        .max_concurrent_reset_streams(limits::RESETS)
        .max_send_buffer_size(limits::SEND_BUFFER_BYTES)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(socket);
    let connection = timeout(PREFACE_TIMEOUT, handshake)
        .await
        .map_err(|elapsed| Reason::ClientTimeout.because(elapsed))?
        .map_err(broken)?;
    Ok((connection, flood))
}

/// Tells a client why none of its requests is served, as far as it still listens, and ends the connection.
pub(crate) async fn refuse_all(socket: &mut TcpStream, input: Buffer, error: &Error) {
    let refusing = async {
        let (mut connection, flood) = handshake(socket, input).await?;
        while let Some(accepted) = poll_fn(|cx| poll_accept(&mut connection, &flood, cx)).await {
            let (request, mut respond) = accepted?;
            refuse(&mut respond, error, is_grpc(request.headers()));
            connection.graceful_shutdown();
        }
        Ok::<_, Error>(())
    };
    // One that asks nothing, or more and more, learns no more.
    let _ = timeout(GOODBYE_TIMEOUT, Box::pin(refusing)).await;
    let (mut from, mut to) = socket.split();
    linger(&mut from, &mut to).await;
}

fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"))
}

type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

/// The next request, unless the client floods us.
fn poll_accept(
    connection: &mut Connection<'_>,
    flood: &Flood,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Accepted, Error>>> {
    let accepted = connection.poll_accept(cx);
    if flood.is_on() {
        return Poll::Ready(Some(Err(Reason::ClientFlood.into())));
    }
    accepted.map(|accepted| accepted.map(|accepted| accepted.map_err(broken)))
}

type Connection<'a> = h2::server::Connection<Metered<&'a mut TcpStream>, Bytes>;

/// Whose fault the end of a connection is.
fn broken(error: h2::Error) -> Error {
    let calm = error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    match () {
        () if calm && error.is_library() => Reason::ClientFlood.because(error),
        () if error.is_library() => Reason::MalformedRequest.because(error),
        () => Reason::ClientGone.because(error),
    }
}

/// One request to the pod that serves it, and its response back.
async fn exchange(
    worker: &Rc<Worker>,
    caller: Caller,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let is_grpc = is_grpc(&head.headers);
    let mut neutral = Vec::with_capacity(512);
    let bodyless = body.is_end_stream();
    let destination = caller.behind(worker).await;
    let begun = async {
        let tunnel = heads::put_request(&head, &mut neutral)?;
        let timeout = head.headers.get("grpc-timeout").filter(|_| is_grpc);
        let outgoing = Outgoing {
            head: neutral,
            end: bodyless,
            protocol: Protocol::Http2,
            patience: timeout.and_then(|timeout| grpc_timeout(timeout.as_bytes())),
        };
        let destination = destination.as_ref().map_err(|error| error.reason)?;
        let begun = begin_http(worker, &caller, destination, outgoing).await?;
        Ok::<_, Error>((tunnel, begun))
    }
    .await;
    let (tunnel, call, stream) = match begun {
        Ok((tunnel, Begun::Sent(call, stream))) => (tunnel, call, stream),
        Ok((_, Begun::Answered(neutral))) => return tell(&mut respond, &neutral),
        Err(error) => {
            tracing::debug!(destination = %caller.destination, ?error, "request refused");
            worker.metrics.refused(caller.direction(), error.reason);
            refuse(&mut respond, &error, is_grpc);
            return;
        }
    };
    let traffic = match call.traffic() {
        Ok(traffic) => traffic,
        Err(error) => return refuse(&mut respond, &error, is_grpc),
    };
    let mut exchange = Exchange::begin(traffic, call.begun());
    let upload = Upload {
        body,
        bodyless,
        tunnel,
    };
    let carried = carry(&call, &stream, upload, &mut respond, &mut exchange).await;
    match carried {
        Ok(()) => exchange.finish(),
        Err(error) => {
            if caller.local.is_none() {
                worker.metrics.refused(Direction::Outbound, error.reason);
            }
            stream.fail(error.reason);
            match exchange.is_answered() {
                true => respond.send_reset(reset_code(error.reason)),
                false => refuse(&mut respond, &error, is_grpc),
            }
            exchange.fail(error.reason);
        }
    }
}

/// What the client sends behind its head, and what for.
struct Upload {
    body: RecvStream,
    bodyless: bool,
    tunnel: Tunnel,
}

/// Body up and response down at the same time.
async fn carry(
    call: &Call<'_>,
    stream: &Stream,
    upload: Upload,
    respond: &mut SendResponse<Bytes>,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let Upload {
        body,
        bodyless,
        tunnel,
    } = upload;
    let (mut sent, mut received) = (0, 0);
    let outcome = async {
        let is_unwanted = |_: &Error| stream.is_reset();
        let mut upload = pin!(pump::send_body(body, stream, Reason::ClientGone, &mut sent));
        let (opened, uploaded) = {
            let answer = pin!(answer(call, stream, &tunnel, respond, exchange));
            let both = pin!(both_ways(bodyless, is_unwanted, upload.as_mut(), answer));
            call.in_time(both).await?
        };
        let Some(Down { mut reader, mut to }) = opened else {
            return Ok(());
        };
        // Each direction of a tunnel ends on its own, and takes its time.
        let gone = Reason::ClientGone;
        let down = pin!(pump::receive_body(
            stream,
            &mut reader,
            &mut to,
            gone,
            &mut received
        ));
        match both_ways(uploaded.is_some(), is_unwanted, upload.as_mut(), down).await? {
            ((), None) => upload.await,
            ((), Some(_)) => Ok(()),
        }
    }
    .await;
    exchange.sent(sent);
    exchange.received(received);
    outcome
}

/// The direction of a tunnel that leads to the client.
struct Down {
    reader: Reader,
    to: SendStream<Bytes>,
}

/// The response, as it comes, or the tunnel that it opens. Also ends when the client resets the stream.
async fn answer(
    call: &Call<'_>,
    stream: &Stream,
    tunnel: &Tunnel,
    respond: &mut SendResponse<Bytes>,
    exchange: &mut Exchange,
) -> Result<Option<Down>, Error> {
    let gone = |error| Reason::ClientGone.because(error);
    let mut reader = Reader::default();
    let (mut to, opens) = loop {
        let heard = tokio::select! {
            biased;
            heard = call.head(stream, &mut reader, exchange) => heard?,
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return Err(Reason::ClientGone.into()),
        };
        let received = stream.receive(&mut reader).await?;
        if received.kind != Kind::Head {
            return Err(Reason::PeerProtocol.into());
        }
        let payload = call.edited(received.payload);
        let (head, fields) =
            Response::decode(&payload).map_err(|error| Reason::PeerProtocol.because(error))?;
        let response = heads::response(head.status, fields, tunnel)?;
        let end = received.end;
        exchange.answered(head.status, heard);
        let opens = head.upgrade && *tunnel != Tunnel::None;
        match response.status().as_u16() {
            100..200 if !end => respond.send_informational(response).map_err(gone)?,
            100..200 => return Err(Reason::PeerProtocol.into()),
            _ => break (respond.send_response(response, end).map_err(gone)?, opens),
        }
    };
    if opens {
        return Ok(Some(Down { reader, to }));
    }
    let mut received = 0;
    let gone = Reason::ClientGone;
    let outcome = pump::receive_body(stream, &mut reader, &mut to, gone, &mut received).await;
    exchange.received(received);
    outcome.map(|()| None)
}

/// Gives the client an answer that a route made.
fn tell(respond: &mut SendResponse<Bytes>, neutral: &[u8]) {
    let response = Response::decode(neutral)
        .map_err(|error| Reason::Internal.because(error))
        .and_then(|(head, fields)| Ok(heads::response(head.status, fields, &Tunnel::None)?));
    match response {
        // The client may be gone; then there is nobody to tell.
        Ok(response) => drop(respond.send_response(response, true)),
        Err(_) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
    }
}

/// Tells the client why: a response of our own, in gRPC's terms where gRPC is spoken.
fn refuse(respond: &mut SendResponse<Bytes>, error: &Error, is_grpc: bool) {
    let row = error.reason.row();
    let response = http::Response::builder().header("x-ringmail-reason", row.label);
    let response = match is_grpc {
        true => response
            .header("content-type", "application/grpc")
            .header("grpc-status", u16::from(row.grpc_status))
            .header("grpc-message", error.to_string()),
        false => response.status(row.status),
    };
    match response.body(()) {
        // The client may be gone; then there is nobody to tell.
        Ok(response) => drop(respond.send_response(response, true)),
        Err(_) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
    }
}

fn reset_code(reason: Reason) -> h2::Reason {
    match reason {
        Reason::ClientGone => h2::Reason::CANCEL,
        Reason::MalformedRequest => h2::Reason::PROTOCOL_ERROR,
        _ => h2::Reason::INTERNAL_ERROR,
    }
}
