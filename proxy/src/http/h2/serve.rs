//! A connection of our own app as HTTP/2 client: each of its lanes becomes one of our streams, in a task of its own.
//!
//! Limits: [`PREFACE_TIMEOUT`], [`GOODBYE_TIMEOUT`], those of `limits` and of `budget`.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::connection::{self, Place};
use super::frame::{Code, PREFACE};
use super::heads::{Request, Tunnel};
use super::held::{Held, Hold};
use super::hpack::encode;
use super::lane::Lane;
use super::lanes::{Lanes, Side};
use super::upgrade::{SWITCHING, Upgraded};
use super::{heads, pump};
use crate::buffer::{Buffer, write_all};
use crate::error::{Blamed, Error, Reason};
use crate::http::exchange::{Exchange, both_ways};
use crate::http::h1::goodbye::linger;
use crate::http::neutral::Response;
use crate::metrics::{Direction, Protocol};
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::upstream::call::{Call, Outgoing};
use crate::upstream::retry::grpc_timeout;
use crate::upstream::{Begun, Caller, begin_http, follow};
use crate::worker::Worker;

/// For the client's preface.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(30);
/// For our last frames, and for a client that still sends.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves the connection until the client closes it, an error ends it, or the proxy drains and it has no requests.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    caller: Caller,
    socket: &mut TcpStream,
    input: Buffer,
) -> Result<(), Error> {
    let direction = caller.direction();
    let served = requests(worker, caller, socket, input, None).await;
    end(worker, direction, socket, &served).await;
    served
}

/// As [`serve`], for a client that asked its first request in HTTP/1.1. It is told that it may go on in HTTP/2.
pub(crate) async fn upgraded(
    worker: &Rc<Worker>,
    caller: &Caller,
    socket: &mut TcpStream,
    input: Buffer,
    upgraded: Upgraded,
) -> Result<(), Error> {
    let told = write_all(socket, SWITCHING).await;
    told.blame(Reason::ClientGone)?;
    let served = requests(worker, caller.clone(), socket, input, Some(upgraded)).await;
    end(worker, caller.direction(), socket, &served).await;
    served
}

/// Counts how the connection ended, and closes it so that our last frames arrive.
async fn end(
    worker: &Worker,
    direction: Direction,
    socket: &mut TcpStream,
    served: &Result<(), Error>,
) {
    let reason = served.as_ref().err().map(|error| error.reason);
    if reason != Some(Reason::ClientGone) {
        if let Some(reason) = reason {
            worker.metrics.refused(direction, reason);
        }
        // Closing before all was read would destroy our last frames on their way.
        let (mut from, mut to) = socket.split();
        linger(&mut from, &mut to).await;
    }
}

async fn requests(
    worker: &Rc<Worker>,
    caller: Caller,
    socket: &mut TcpStream,
    mut input: Buffer,
    upgraded: Option<Upgraded>,
) -> Result<(), Error> {
    preface(socket, &mut input).await?;
    let (lanes, first) = match upgraded {
        Some(Upgraded { neutral, lanes }) => (lanes.0, Some(Request::upgraded(neutral))),
        None => (Lanes::new(Side::Server), None),
    };
    let (seat, own) = (worker.idlers.seat(), Held::default());
    if worker.drain.is_draining() {
        lanes.retire();
    }
    let place = Place {
        seat: &seat,
        drain: &worker.drain,
    };
    let accept = |lane: Lane, request: Request| {
        let error = match (&request.refused, Hold::begin(&own, &worker.held)) {
            (None, Some(hold)) => {
                let (worker, caller) = (worker.clone(), caller.clone());
                // Behind a pointer: a task by value is copied several times on its way into and out of the runtime.
                spawn_local(Box::pin(async move {
                    // One that was reset in the same read is nobody's any more.
                    if !lane.is_reset() {
                        exchange(&worker, caller, request, lane).await;
                    }
                    drop(hold);
                }));
                return;
            }
            (Some(error), _) => error,
            (None, None) => &Reason::Overloaded.into(),
        };
        tracing::debug!(destination = %caller.destination, ?error, "request refused");
        worker.metrics.refused(caller.direction(), error.reason);
        refuse(&lane, error, request.is_grpc);
    };
    if let Some(request) = first {
        accept(lanes.first(), request);
    }
    connection::run(socket, &lanes, input, Some(place), accept).await
}

/// Takes the client's preface (RFC 9113 section 3.4).
async fn preface(socket: &mut TcpStream, input: &mut Buffer) -> Result<(), Error> {
    let taking = async {
        while input.data().len() < PREFACE.len() && PREFACE.starts_with(input.data()) {
            if input.fill(socket).await.blame(Reason::ClientGone)? == 0 {
                return Err(Error::from(Reason::ClientGone));
            }
        }
        Ok(())
    };
    timeout(PREFACE_TIMEOUT, taking)
        .await
        .map_err(|elapsed| Reason::ClientTimeout.because(elapsed))??;
    if !input.data().starts_with(PREFACE) {
        let rule = "the preface is none of HTTP/2 (RFC 9113 section 3.4)";
        return Err(Reason::MalformedRequest.rule(rule));
    }
    input.consume(PREFACE.len());
    Ok(())
}

/// Tells a client why none of its requests is served, as far as it still listens, and ends the connection.
pub(crate) async fn refuse_all(socket: &mut TcpStream, mut input: Buffer, error: &Error) {
    let refusing = async {
        let lanes = Lanes::new(Side::Server);
        preface(socket, &mut input).await?;
        connection::run(socket, &lanes, input, None, |lane, request| {
            refuse(&lane, error, request.is_grpc);
            lanes.retire();
        })
        .await
    };
    // One that asks nothing, or more and more, learns no more.
    let _ = timeout(GOODBYE_TIMEOUT, Box::pin(refusing)).await;
    let (mut from, mut to) = socket.split();
    linger(&mut from, &mut to).await;
}

/// One request to the pod that serves it, and its response back.
async fn exchange(worker: &Rc<Worker>, caller: Caller, request: Request, lane: Lane) {
    let patience = request.grpc_timeout().and_then(grpc_timeout);
    let Request {
        mut neutral,
        tunnel,
        is_grpc,
        bodyless,
        ..
    } = request;
    let mut record = follow(worker, &caller, Protocol::Http2, &mut neutral);
    let destination = caller.behind(worker).await;
    let begun = async {
        let outgoing = Outgoing {
            head: neutral,
            end: bodyless,
            protocol: Protocol::Http2,
            patience,
        };
        let destination = destination.as_ref().map_err(|error| error.reason)?;
        begin_http(worker, &caller, destination, outgoing, &mut record).await
    }
    .await;
    let (call, stream) = match begun {
        Ok(Begun::Sent(call, stream)) => (call, stream),
        Ok(Begun::Answered(neutral)) => return tell(&lane, &neutral),
        Err(error) => {
            tracing::debug!(destination = %caller.destination, ?error, "request refused");
            worker.metrics.refused(caller.direction(), error.reason);
            if let Some(record) = &mut record {
                record.refused(&error);
            }
            return refuse(&lane, &error, is_grpc);
        }
    };
    let traffic = match call.traffic() {
        Ok(traffic) => traffic,
        Err(error) => return refuse(&lane, &error, is_grpc),
    };
    let mut exchange = Exchange::begin(traffic, call.begun()).recorded(record);
    let asked = Asked {
        lane: &lane,
        bodyless,
        tunnel,
    };
    let carried = carry(&call, &stream, &asked, &mut exchange).await;
    match carried {
        Ok(()) => exchange.finish(),
        Err(error) => {
            if caller.local.is_none() {
                worker.metrics.refused(Direction::Outbound, error.reason);
            }
            stream.fail(error.reason);
            match exchange.is_answered() {
                true => lane.fail(reset_code(error.reason)),
                false => refuse(&lane, &error, is_grpc),
            }
            exchange.fail(&error);
        }
    }
}

/// What the client sends behind its head, and what for.
struct Asked<'a> {
    lane: &'a Lane,
    bodyless: bool,
    tunnel: Tunnel,
}

/// Body up and response down at the same time.
async fn carry(
    call: &Call<'_>,
    stream: &Stream,
    asked: &Asked<'_>,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let &Asked { lane, bodyless, .. } = asked;
    let (mut sent, mut received) = (0, 0);
    let mut from = Reader::new(bodyless);
    let outcome = async {
        let is_unwanted = |_: &Error| stream.is_reset();
        let upload = pump::send_body(lane, &mut from, stream, &mut sent);
        let mut upload = pin!(async { upload.await.map(drop) });
        let (opened, uploaded) = {
            let answer = pin!(answer(call, stream, asked, exchange));
            let both = pin!(both_ways(bodyless, is_unwanted, upload.as_mut(), answer));
            call.in_time(both).await?
        };
        let Some(mut reader) = opened else {
            return Ok(());
        };
        // Each direction of a tunnel ends on its own, and takes its time.
        let down = pin!(pump::receive_body(stream, &mut reader, lane, &mut received));
        match both_ways(uploaded.is_some(), is_unwanted, upload.as_mut(), down).await? {
            (_, None) => upload.await,
            (_, Some(_)) => Ok(()),
        }
    }
    .await;
    exchange.sent(sent);
    exchange.received(received);
    outcome
}

/// The response, as it comes, or what comes out of the tunnel that it opens. Also ends when the client resets its
/// request.
async fn answer(
    call: &Call<'_>,
    stream: &Stream,
    Asked { lane, tunnel, .. }: &Asked<'_>,
    exchange: &mut Exchange,
) -> Result<Option<Reader>, Error> {
    let mut reader = Reader::default();
    let opens = loop {
        let heard = tokio::select! {
            biased;
            heard = call.head(stream, &mut reader, exchange) => heard?,
            reason = std::future::poll_fn(|cx| lane.poll_reset(cx)) => return Err(reason.into()),
        };
        let received = stream.receive(&mut reader).await?;
        if received.kind != Kind::Head {
            return Err(Reason::PeerProtocol.into());
        }
        let end = received.end;
        let payload = call.edited(received.payload);
        let (head, fields) =
            Response::decode(&payload).map_err(|error| Reason::PeerProtocol.because(error))?;
        let is_final = !(100..200).contains(&head.status) || head.upgrade;
        if end && !is_final {
            return Err(Reason::PeerProtocol.into());
        }
        // Informational ones are left out when the client takes none: an app may send them without end.
        if is_final || !lane.is_behind() {
            lane.send_head(end, |out| {
                heads::put_response(head.status, fields, tunnel, out)
            })?;
        }
        exchange.answered(head.status, heard);
        exchange.explained_by(fields);
        if end {
            exchange.ended_with(fields);
        }
        if is_final {
            break head.upgrade && *tunnel != Tunnel::None;
        }
    };
    if opens {
        return Ok(Some(reader));
    }
    let mut received = 0;
    let outcome = pump::receive_body(stream, &mut reader, lane, &mut received).await;
    exchange.received(received);
    exchange.ended_as(outcome?);
    Ok(None)
}

/// Gives the client an answer that a route made.
fn tell(lane: &Lane, neutral: &[u8]) {
    let told = Response::decode(neutral)
        .map_err(|_| Reason::Internal)
        .and_then(|(head, fields)| {
            lane.send_head(true, |out| {
                heads::put_response(head.status, fields, &Tunnel::None, out)
            })
        });
    if told.is_err() {
        // Unless the client is gone; then there is nobody to tell.
        lane.fail(Code::InternalError);
    }
}

/// Tells the client why: a response of our own, in gRPC's terms where gRPC is spoken.
fn refuse(lane: &Lane, error: &Error, is_grpc: bool) {
    let row = error.reason.row();
    let told = lane.send_head(true, |out| {
        let status = if is_grpc { 200 } else { row.status };
        heads::put_status(status, out);
        encode::put_field(out, b"x-ringmail-reason", row.label.as_bytes());
        if let Some(id) = error.decision {
            encode::put_field(out, b"x-ringmail-decision", id.to_string().as_bytes());
        }
        if let Some(challenge) = error.reason.challenge() {
            encode::put_field(out, b"www-authenticate", challenge.as_bytes());
        }
        if is_grpc {
            let (code, message) = (row.grpc_status.to_string(), error.to_string());
            encode::put_field(out, b"content-type", b"application/grpc");
            encode::put_field(out, b"grpc-status", code.as_bytes());
            encode::put_field(out, b"grpc-message", message.as_bytes());
        }
        Ok(())
    });
    if told.is_err() {
        // Unless the client is gone; then there is nobody to tell.
        lane.fail(Code::InternalError);
    }
}

fn reset_code(reason: Reason) -> Code {
    match reason {
        Reason::ClientGone => Code::Cancel,
        Reason::MalformedRequest => Code::ProtocolError,
        _ => Code::InternalError,
    }
}
