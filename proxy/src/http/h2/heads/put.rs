//! Heads in neutral form as blocks.

use std::borrow::Cow;

use super::{NEUTRAL_BYTES, Tunnel};
use crate::error::Reason;
use crate::http::fields::{Fate, Toward, fate};
use crate::http::h2::hpack::encode::{index, put_field as put, put_indexed, put_named};
use crate::http::neutral::{self, Fields, put_field};
use crate::http::websocket;

/// A peer's request as a block for our app, appended to `out`.
pub(crate) fn put_request(
    head: &neutral::Request<'_>,
    fields: Fields<'_>,
    tunnel: &Tunnel,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let host = fields.first("host").ok_or(Reason::PeerProtocol)?;
    let is_websocket = matches!(tunnel, Tunnel::WebSocket { .. });
    match head.method {
        _ if is_websocket => put_named(out, index::METHOD, b"CONNECT"),
        "GET" => put_indexed(out, index::METHOD_GET),
        "POST" => put_indexed(out, index::METHOD_POST),
        method => put_named(out, index::METHOD, method.as_bytes()),
    }
    if head.method == "CONNECT" {
        put_named(out, index::AUTHORITY, head.target.as_bytes());
        return put_fields(fields, (Toward::App, None), out);
    }
    put_indexed(out, index::SCHEME_HTTP);
    match head.target {
        "/" => put_indexed(out, index::PATH_ROOT),
        target => put_named(out, index::PATH, target.as_bytes()),
    }
    put_named(out, index::AUTHORITY, host);
    if !is_websocket {
        return put_fields(fields, (Toward::App, None), out);
    }
    put(out, b":protocol", websocket::NAME.as_bytes());
    put_fields(fields, (Toward::App, Some(websocket::KEY)), out)
}

/// A peer's response as a block for our app, appended to `out`.
pub(crate) fn put_response(
    status: u16,
    fields: Fields<'_>,
    tunnel: &Tunnel,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    match (tunnel, status) {
        (Tunnel::WebSocket { key }, 101) => {
            let accept = fields.first(websocket::ACCEPT);
            // RFC 6455 section 4.1.
            if accept.is_none_or(|accept| accept != websocket::accept(key.as_bytes()).as_bytes()) {
                return Err(Reason::AppMalformed);
            }
            put_status(200, out);
            put_fields(fields, (Toward::Client, Some(websocket::ACCEPT)), out)
        }
        // Taken for a tunnel by the client (RFC 8441 section 5), which the app has not opened.
        (Tunnel::WebSocket { .. }, 200..300) => Err(Reason::AppMalformed),
        (_, 101) => Err(Reason::PeerProtocol),
        (_, status) => {
            put_status(status, out);
            put_fields(fields, (Toward::Client, None), out)
        }
    }
}

/// A status of three digits.
pub(in crate::http::h2) fn put_status(status: u16, out: &mut Vec<u8>) {
    let known = index::STATUSES.iter().position(|known| *known == status);
    match known.and_then(|place| u8::try_from(place).ok()) {
        Some(place) => put_indexed(out, index::STATUS + place),
        None => {
            let digit = |power: u16| b'0' + (status / power % 10).to_le_bytes()[0];
            put_named(out, index::STATUS, &[digit(100), digit(10), digit(1)]);
        }
    }
}

/// Fields as HTTP/2 wants them, for whoever reads them: without those of HTTP/1 connections, and without `but`. The host is
/// the authority.
pub(in crate::http::h2) fn put_fields(
    fields: Fields<'_>,
    (toward, but): (Toward, Option<&str>),
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    for (name, value) in fields {
        match fate(name) {
            Fate::Forward | Fate::ContentLength => {}
            Fate::Te if value == b"trailers" => {}
            Fate::Mesh if toward.is_told(name) => {}
            Fate::Host | Fate::Mesh | Fate::Upgrade | Fate::Te => continue,
            Fate::HopByHop | Fate::TransferEncoding | Fate::Connection => {
                return Err(Reason::PeerProtocol);
            }
        }
        if but.is_some_and(|but| name.eq_ignore_ascii_case(but.as_bytes())) {
            continue;
        }
        put(out, name, value);
    }
    Ok(())
}

/// The head of an app's response to a request for a tunnel, with what it says to whoever asked.
pub(in crate::http::h2) fn opened<'a>(
    head: &'a [u8],
    tunnel: &Tunnel,
) -> Result<Cow<'a, [u8]>, Reason> {
    let (response, fields) = neutral::Response::decode(head).map_err(|_| Reason::Internal)?;
    if *tunnel == Tunnel::None || !(200..300).contains(&response.status) {
        return Ok(Cow::Borrowed(head));
    }
    let mut out = Vec::with_capacity(head.len() + NEUTRAL_BYTES / 4);
    let status = match tunnel {
        // RFC 8441 section 5: what is 200 here is 101 in HTTP/1.
        Tunnel::WebSocket { .. } => 101,
        Tunnel::None | Tunnel::Connect => response.status,
    };
    neutral::Response {
        upgrade: true,
        status,
        ..response
    }
    .encode(&mut out);
    if let Tunnel::WebSocket { key } = tunnel {
        let accept = websocket::accept(key.as_bytes());
        put_field(&mut out, b"upgrade", websocket::NAME.as_bytes());
        put_field(&mut out, websocket::ACCEPT.as_bytes(), accept.as_bytes());
    }
    for (name, value) in fields {
        put_field(&mut out, name, value);
    }
    Ok(Cow::Owned(out))
}
