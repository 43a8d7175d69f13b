//! A connection of our own app as HTTP/2 client: each of its streams becomes one of ours, in a task of its own.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::{heads, limits, pump};
use crate::buffer::Buffer;
use crate::error::{Error, Reason};
use crate::http::exchange::{Exchange, both_ways};
use crate::http::neutral::Response;
use crate::metrics::{Direction, Protocol};
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::upstream::call::{Call, Outgoing};
use crate::upstream::retry::grpc_timeout;
use crate::upstream::{Begun, Caller, begin_http};
use crate::worker::Worker;

/// Serves the connection until the client closes it, an error ends it, or the proxy drains and it has no streams.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    caller: Caller,
    socket: &mut TcpStream,
    input: Buffer,
) -> Result<(), Error> {
    let gone = |error: h2::Error| match error.is_io() || error.is_go_away() {
        true => Reason::ClientGone.because(error),
        false => Reason::MalformedRequest.because(error),
    };
    let mut connection = h2::server::Builder::new()
        .initial_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_concurrent_streams(limits::STREAMS)
        .max_concurrent_reset_streams(limits::RESETS)
        .max_send_buffer_size(limits::SEND_BUFFER_BYTES)
        .handshake::<_, Bytes>(Replayed { socket, input })
        .await
        .map_err(gone)?;
    let mut draining = pin!(worker.drain.begun());
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = &mut draining, if !told => {
                told = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let (request, respond) = accepted.map_err(gone)?;
        let worker = worker.clone();
        spawn_local(async move { exchange(&worker, caller, request, respond).await });
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
    let is_grpc = head
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let mut neutral = Vec::with_capacity(512);
    let bodyless = body.is_end_stream();
    let destination = worker.snapshot.destination(caller.destination).await;
    let begun = async {
        heads::put_request(&head, &mut neutral)?;
        let timeout = head.headers.get("grpc-timeout").filter(|_| is_grpc);
        let outgoing = Outgoing {
            head: neutral,
            end: bodyless,
            protocol: Protocol::Http2,
            patience: timeout.and_then(|timeout| grpc_timeout(timeout.as_bytes())),
        };
        let destination = destination.as_ref().map_err(|error| error.reason)?;
        begin_http(worker, &caller, destination, outgoing).await
    }
    .await;
    let (call, stream) = match begun {
        Ok(Begun::Sent(call, stream)) => (call, stream),
        Ok(Begun::Answered(neutral)) => return tell(&mut respond, &neutral),
        Err(error) => {
            tracing::debug!(destination = %caller.destination, ?error, "request refused");
            worker.metrics.refused(Direction::Outbound, error.reason);
            refuse(&mut respond, &error, is_grpc);
            return;
        }
    };
    let traffic = match call.traffic() {
        Ok(traffic) => traffic,
        Err(error) => return refuse(&mut respond, &error, is_grpc),
    };
    let mut exchange = Exchange::begin(traffic, call.begun());
    let carried = carry(&call, &stream, body, bodyless, &mut respond, &mut exchange).await;
    match carried {
        Ok(()) => exchange.finish(),
        Err(error) => {
            worker.metrics.refused(Direction::Outbound, error.reason);
            stream.fail(error.reason);
            match exchange.is_answered() {
                true => respond.send_reset(reset_code(error.reason)),
                false => refuse(&mut respond, &error, is_grpc),
            }
            exchange.fail(error.reason);
        }
    }
}

/// Body up and response down at the same time.
async fn carry(
    call: &Call<'_>,
    stream: &Stream,
    body: RecvStream,
    bodyless: bool,
    respond: &mut SendResponse<Bytes>,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let mut sent = 0;
    let outcome = {
        let upload = pin!(pump::send_body(body, stream, Reason::ClientGone, &mut sent));
        let answer = pin!(answer(call, stream, respond, exchange));
        let both = pin!(both_ways(bodyless, upload, answer));
        call.in_time(both).await
    };
    exchange.sent(sent);
    outcome.map(|_| ())
}

/// The response, as it comes. Also ends when the client resets the stream.
async fn answer(
    call: &Call<'_>,
    stream: &Stream,
    respond: &mut SendResponse<Bytes>,
    exchange: &mut Exchange,
) -> Result<(), Error> {
    let gone = |error| Reason::ClientGone.because(error);
    let mut reader = Reader::default();
    loop {
        let heard = tokio::select! {
            biased;
            heard = call.head(stream, &mut reader, exchange) => heard?,
            _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return Err(Reason::ClientGone.into()),
        };
        let received = stream.receive(&mut reader).await?;
        if received.kind != Kind::Head {
            return Err(Reason::PeerProtocol.into());
        }
        let payload = call.edited(received.payload);
        let (head, fields) =
            Response::decode(&payload).map_err(|error| Reason::PeerProtocol.because(error))?;
        let response = heads::response(head.status, fields)?;
        let end = received.end;
        exchange.answered(head.status, heard);
        match head.status {
            // A switch of protocols does not exist in HTTP/2 (RFC 9113 section 8.6).
            101 => return Err(Reason::PeerProtocol.into()),
            100..200 if !end => respond.send_informational(response).map_err(gone)?,
            100..200 => return Err(Reason::PeerProtocol.into()),
            _ => {
                let mut to = respond.send_response(response, end).map_err(gone)?;
                let mut received = 0;
                let outcome = pump::receive_body(
                    stream,
                    &mut reader,
                    &mut to,
                    Reason::ClientGone,
                    &mut received,
                )
                .await;
                exchange.received(received);
                return outcome;
            }
        }
    }
}

/// Gives the client an answer that a route made.
fn tell(respond: &mut SendResponse<Bytes>, neutral: &[u8]) {
    let response = Response::decode(neutral)
        .map_err(|error| Reason::Internal.because(error))
        .and_then(|(head, fields)| Ok(heads::response(head.status, fields)?));
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

/// A socket of which the first bytes were read already.
struct Replayed<'a> {
    socket: &'a mut TcpStream,
    input: Buffer,
}

impl AsyncRead for Replayed<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.input.is_empty() {
            return Pin::new(&mut *self.socket).poll_read(cx, out);
        }
        let n = self.input.data().len().min(out.remaining());
        out.put_slice(&self.input.data()[..n]);
        self.input.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.socket).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.socket).poll_shutdown(cx)
    }
}
