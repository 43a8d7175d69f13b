//! A gRPC call of our own, to a service of the mesh: as ourselves, with mutual TLS, to one of its pods, like a request of
//! our app but without its routes. One message each way.
//!
//! Limit: [`ANSWER_BYTES_MAX`]. How long it may take is for the caller to say, who drops it then.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::call::{Call, Outgoing, Terms};
use super::{dialled, resolve};
use crate::error::{Error, Reason};
use crate::http::exchange::{Exchange, both_ways};
use crate::http::neutral::{Fields, Request, Response, Version, put_field};
use crate::metrics::Protocol;
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::worker::Worker;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// What is called.
#[derive(Debug)]
pub(crate) struct Unary<'a> {
    /// Where clients of the service dial it.
    pub(crate) address: SocketAddr,
    /// `/package.Service/Method`.
    pub(crate) path: &'a str,
    /// How long the caller waits, which the server is told.
    pub(crate) patience: Duration,
    pub(crate) message: &'a [u8],
}

/// Calls, from our pod at `source`, and returns the answer's message.
pub(crate) async fn unary(
    worker: &Rc<Worker>,
    source: IpAddr,
    asked: Unary<'_>,
) -> Result<Vec<u8>, Error> {
    let destination = worker.snapshot.destination(asked.address).await?;
    let target = dialled(&destination)?;
    let mut endpoints = target.service.endpoints.iter();
    // What a plaintext answer says, anybody could have said; and so could our own app.
    if !endpoints.any(|one| one.identity.is_some() && one.address.ip() != source) {
        return Err(Reason::NoEndpoints.rule("no other pod of the mesh serves it"));
    }
    let outgoing = Outgoing {
        head: head(&asked),
        end: false,
        protocol: Protocol::Http2,
        patience: None,
    };
    let service = (resolve(worker, source, target), Instant::now());
    let (call, stream) = Call::open(worker, service, Terms::none(), outgoing).await?;
    let mut exchange = Exchange::begin(call.traffic()?, call.begun());
    let message = framed(asked.message);
    let answered = {
        let upload = pin!(async { Ok(stream.send_all(&message, true).await?) });
        let answer = pin!(answer(&call, &stream, &mut exchange));
        both_ways(false, |_| stream.is_reset(), upload, answer).await
    };
    match answered {
        Ok((message, _)) => {
            exchange.finish();
            Ok(message)
        }
        Err(error) => {
            stream.fail(error.reason);
            exchange.fail(&error);
            Err(error)
        }
    }
}

fn head(asked: &Unary<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    Request {
        version: Version::Http2,
        upgrade: false,
        method: "POST",
        target: asked.path,
    }
    .encode(&mut head);
    let host = asked.address.to_string();
    let patience = format!("{}m", asked.patience.as_millis());
    let fields = [
        ("host", host.as_str()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-timeout", patience.as_str()),
    ];
    for (name, value) in fields {
        put_field(&mut head, name.as_bytes(), value.as_bytes());
    }
    head
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], message].concat()
}

async fn answer(
    call: &Call<'_>,
    stream: &Stream,
    exchange: &mut Exchange,
) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::default();
    loop {
        let at = call.head(stream, &mut reader, exchange).await?;
        let received = stream.receive(&mut reader).await?;
        let (response, fields) = Response::decode(received.payload)
            .map_err(|error| Reason::PeerProtocol.because(error))?;
        exchange.answered(response.status, at);
        match response.status {
            ..200 => continue,
            200 if received.end => return Err(status(fields)),
            200 => break,
            _ => return Err(Reason::AppMalformed.rule("answered with another status than 200")),
        }
    }
    let mut body = Vec::new();
    loop {
        let received = stream.receive(&mut reader).await?;
        match received.kind {
            Kind::Data if !received.end => body.extend_from_slice(received.payload),
            Kind::Trailers => {
                let trailers = Fields::check(received.payload)
                    .map_err(|error| Reason::PeerProtocol.because(error))?;
                return match trailers.first("grpc-status") {
                    Some(b"0") => unframed(body),
                    Some(_) | None => Err(status(trailers)),
                };
            }
            _ => return Err(Reason::AppMalformed.rule("answered without a gRPC status")),
        }
        if body.len() > PREFIX_BYTES + ANSWER_BYTES_MAX {
            return Err(Reason::AppMalformed.rule("answered with more than 64 KiB"));
        }
    }
}

/// Of a call that failed.
fn status(fields: Fields<'_>) -> Error {
    match fields.first("grpc-status") {
        Some(b"0") | None => Reason::AppMalformed.rule("answered without a message"),
        Some(b"4") => Reason::AppMalformed.rule("answered DEADLINE_EXCEEDED"),
        Some(b"12") => Reason::AppMalformed.rule("answered UNIMPLEMENTED"),
        Some(b"14") => Reason::AppMalformed.rule("answered UNAVAILABLE"),
        Some(_) => Reason::AppMalformed.rule("answered with an error of gRPC"),
    }
}

/// The only message of a body.
fn unframed(mut body: Vec<u8>) -> Result<Vec<u8>, Error> {
    let is_whole = body.split_first_chunk().is_some_and(
        |(&[compressed, a, b, c, d], message): (&[u8; PREFIX_BYTES], _)| {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            compressed == 0 && length == message.len()
        },
    );
    if !is_whole {
        return Err(Reason::AppMalformed.rule("answered with what is no single message"));
    }
    body.drain(..PREFIX_BYTES);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_and_nothing_else() {
        let check = |body: &[u8], expected: Option<&[u8]>| {
            let found = unframed(body.to_vec()).ok();
            assert_eq!(found.as_deref(), expected, "{body:?}");
        };
        check(&framed(b""), Some(b""));
        check(&framed(b"abc"), Some(b"abc"));
        check(b"", None);
        check(&[0, 0, 0, 0], None);
        check(&[1, 0, 0, 0, 0], None);
        check(&[0, 0, 0, 0, 2, 1], None);
        check(&[framed(b"a"), framed(b"b")].concat(), None);
    }
}
