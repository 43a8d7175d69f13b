//! Header blocks to heads in neutral form and back. What breaks RFC 9113 goes no further: a block is *malformed* when
//! section 8.1.1 says that its stream is to be reset, and *refused* when its sender is owed an answer that says why.
//!
//! Limits: `HEADER_LIST_BYTES` as section 6.5.2 counts, and [`FIELDS_MAX`](neutral::FIELDS_MAX) fields.

/// Fields on their way to neutral form.
mod section;

/// A request on its way there.
mod asking;

/// The way back.
mod put;

use std::ops::Range;

use super::hpack;
use super::hpack::decode::Decoder;
use crate::error::{Error, Reason};
use crate::http::neutral::{self, Fields};
use crate::http::websocket;
use asking::Asking;
pub(super) use put::{opened, put_fields, put_status};
pub(crate) use put::{put_request, put_response};
use section::{Bad, Section};

/// What a request is to become, besides an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tunnel {
    None,
    /// A CONNECT of bytes.
    Connect,
    /// With the key that the other side has to know.
    WebSocket {
        key: String,
    },
}

/// A rule of RFC 9113 whose breach ends a stream.
pub(crate) type Malformed = &'static str;

/// A client's request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its head.
    pub(crate) neutral: Vec<u8>,
    pub(crate) tunnel: Tunnel,
    pub(crate) is_grpc: bool,
    /// The head is all there is.
    pub(crate) bodyless: bool,
    /// What `Content-Length` says.
    pub(super) length: Option<u64>,
    /// Where the value of `grpc-timeout` is in the head.
    timeout: Option<Range<usize>>,
    /// Why it goes no further, if it does not; then its head is not all there.
    pub(crate) refused: Option<Error>,
}

impl Request {
    /// One that came as HTTP/1, without a body.
    pub(super) fn upgraded(neutral: Vec<u8>) -> Self {
        Self {
            neutral,
            tunnel: Tunnel::None,
            is_grpc: false,
            bodyless: true,
            length: None,
            timeout: None,
            refused: None,
        }
    }

    /// How long the client waits, as gRPC says it.
    pub(crate) fn grpc_timeout(&self) -> Option<&[u8]> {
        let timeout = self.timeout.clone().filter(|_| self.is_grpc)?;
        self.neutral.get(timeout)
    }
}

/// The head of a server's response, but for its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(super) status: u16,
    /// What `Content-Length` says.
    pub(super) length: Option<u64>,
}

/// Room for what has to be known before anything is written.
#[derive(Debug, Default)]
struct Room {
    pseudo: Vec<u8>,
    cookies: Vec<u8>,
}

/// Room for the head of most requests in neutral form.
const NEUTRAL_BYTES: usize = 512;
/// RFC 9113 section 6.5.2: what a field counts beside its bytes.
const FIELD_BYTES: usize = 32;

/// The blocks that the other side of a connection sends, each whole and in order. After an error of HPACK's the
/// connection is of no more use.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    decoder: Decoder,
    room: Room,
}

impl Blocks {
    /// A request out of its block.
    pub(crate) fn request(
        &mut self,
        block: &[u8],
    ) -> Result<Result<Request, Malformed>, hpack::Malformed> {
        let mut neutral = Vec::with_capacity(NEUTRAL_BYTES);
        let mut asking = Asking::new(&mut neutral, &mut self.room);
        self.decoder
            .decode(block, &mut |name, value| asking.field(name, value))?;
        let begun = asking.begin_once().and_then(|()| asking.finish());
        let bad = asking.section.bad.take().or(begun.err());
        let refused = match bad {
            Some(Bad::Malformed(rule)) => return Ok(Err(rule)),
            Some(Bad::Refused(error)) => Some(error),
            None => None,
        };
        let Asking {
            section,
            tunnel,
            is_grpc,
            timeout,
            ..
        } = asking;
        let length = section.length;
        Ok(Ok(Request {
            neutral,
            tunnel: tunnel.unwrap_or(Tunnel::None),
            is_grpc,
            bodyless: false,
            length,
            timeout,
            refused,
        }))
    }

    /// A response's head out of its block, appended to `out`.
    pub(crate) fn response(
        &mut self,
        block: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Result<Answer, Malformed>, hpack::Malformed> {
        let mut section = Section::new(out, &mut self.room);
        let mut status = None;
        self.decoder.decode(block, &mut |name, value| {
            if section.counts(name, value) {
                match (name, status) {
                    (b":status", None) if section.count == 0 => {
                        status = section.status(value);
                    }
                    _ => section.field(name, value),
                }
            }
            section.bad.is_none()
        })?;
        let length = section.finish().map(|()| section.length);
        Ok(match (length, status) {
            (Ok(length), Some(status)) => Ok(Answer { status, length }),
            (Ok(_), None) => Err("there is no :status (RFC 9113 section 8.3.2)"),
            (Err(bad), _) => Err(bad.rule()),
        })
    }

    /// Trailers out of their block, appended to `out`.
    pub(crate) fn trailers(
        &mut self,
        block: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Result<(), Malformed>, hpack::Malformed> {
        let mut section = Section::new(out, &mut self.room);
        self.decoder.decode(block, &mut |name, value| {
            if section.counts(name, value) {
                section.field(name, value);
            }
            section.bad.is_none()
        })?;
        Ok(section.finish().map_err(|bad| bad.rule()))
    }

    /// A block that nobody wants: it is a part of what the table is.
    pub(super) fn skip(&mut self, block: &[u8]) -> Result<(), hpack::Malformed> {
        self.decoder.decode(block, &mut |_, _| false)
    }

    /// Frees what the next block can do without.
    pub(super) fn rest(&mut self) {
        self.room = Room::default();
        self.decoder.rest();
    }
}

/// What a peer's request is to become, as an app that speaks HTTP/2 can do it. Upgrades to anything else are an offer
/// that a server may ignore (RFC 9110 section 7.8).
pub(super) fn tunnel_of(head: &neutral::Request<'_>, fields: Fields<'_>) -> Result<Tunnel, Reason> {
    if !head.upgrade {
        return Ok(Tunnel::None);
    }
    if head.method == "CONNECT" {
        return Ok(Tunnel::Connect);
    }
    if !websocket::is_offered(fields) || head.method != "GET" {
        return Ok(Tunnel::None);
    }
    let key = fields
        .first(websocket::KEY)
        .and_then(|key| str::from_utf8(key).ok());
    Ok(Tunnel::WebSocket {
        key: key.ok_or(Reason::MalformedRequest)?.to_owned(),
    })
}

#[cfg(test)]
mod tests;
