//! Header blocks to heads in neutral form and back. What breaks RFC 9113 goes no further: a block is *malformed* when
//! section 8.1.1 says that its stream is to be reset, and *refused* when its sender is owed an answer that says why.
//!
//! Limits: [`HEADER_LIST_BYTES`] as section 6.5.2 counts, and [`FIELDS_MAX`] fields.

use std::borrow::Cow;
use std::ops::Range;

use super::hpack;
use super::hpack::decode::Decoder;
use super::hpack::encode::{index, put_field as put, put_indexed, put_named};
use super::limits::HEADER_LIST_BYTES;
use crate::error::{Error, Reason};
use crate::http::fields::{Fate, fate};
use crate::http::h1::parse::content_length;
use crate::http::neutral::{self, FIELDS_MAX, Fields, Version, is_value, put_field};
use crate::http::{target, websocket};

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
        let mut asking = Asking {
            section: Section::new(&mut neutral, &mut self.room),
            pseudo: Pseudo::default(),
            tunnel: None,
            has_host: false,
            is_grpc: false,
            timeout: None,
        };
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
    }
}

/// What is wrong with a block.
#[derive(Debug)]
enum Bad {
    Malformed(Malformed),
    Refused(Error),
}

impl Bad {
    /// For blocks whose sender gets no answer.
    fn rule(&self) -> Malformed {
        match self {
            Self::Malformed(rule) => rule,
            Self::Refused(error) => error.rule.unwrap_or("there is too much of it"),
        }
    }
}

fn refused(rule: &'static str) -> Bad {
    Bad::Refused(Reason::MalformedRequest.rule(rule))
}

/// Fields on their way from a block to neutral form.
struct Section<'a> {
    out: &'a mut Vec<u8>,
    room: &'a mut Room,
    list_bytes: usize,
    /// But for pseudo-header fields.
    count: usize,
    length: Option<u64>,
    /// What was wrong first; nothing is written any more.
    bad: Option<Bad>,
}

impl<'a> Section<'a> {
    fn new(out: &'a mut Vec<u8>, room: &'a mut Room) -> Self {
        room.pseudo.clear();
        room.cookies.clear();
        Self {
            out,
            room,
            list_bytes: 0,
            count: 0,
            length: None,
            bad: None,
        }
    }

    /// Whether the field is to be looked at.
    fn counts(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.list_bytes += name.len() + value.len() + FIELD_BYTES;
        if self.list_bytes > HEADER_LIST_BYTES as usize {
            self.bad
                .get_or_insert(Bad::Refused(Reason::HeadTooLarge.into()));
        }
        self.bad.is_none()
    }

    fn malformed(&mut self, rule: Malformed) {
        self.bad.get_or_insert(Bad::Malformed(rule));
    }

    /// Begins the head of a response.
    fn status(&mut self, value: &[u8]) -> Option<u16> {
        let Some(status @ (100 | 102..)) = number(value) else {
            self.malformed("the status is none (RFC 9113 sections 8.3.2 and 8.6)");
            return None;
        };
        neutral::Response {
            version: Version::Http2,
            upgrade: false,
            status,
            phrase: b"",
        }
        .encode(self.out);
        Some(status)
    }

    /// A field that is no pseudo-header field, or should be none.
    fn field(&mut self, name: &[u8], value: &[u8]) {
        if let Err(bad) = self.put(name, value) {
            self.bad.get_or_insert(bad);
        }
    }

    fn put(&mut self, name: &[u8], value: &[u8]) -> Result<(), Bad> {
        self.count += 1;
        // The host that we make is one of them.
        if self.count >= FIELDS_MAX {
            return Err(Bad::Refused(Reason::HeadTooLarge.into()));
        }
        if name.is_empty() || !name.iter().all(|byte| is_lower_token(*byte)) {
            return Err(Bad::Malformed(
                "a field name is none, or a pseudo-header field is out of place (RFC 9113 sections 8.2.1 and 8.3)",
            ));
        }
        if !is_value(value) {
            let rule = "a field value has a control byte (RFC 9113 section 8.2.1)";
            return Err(Bad::Malformed(rule));
        }
        // RFC 9113 section 8.2.1 forbids blanks around it; HTTP/1 does not know them from its own.
        let value = value.trim_ascii();
        match fate(name) {
            // RFC 9113 section 8.2.3: what HTTP/2 may split, HTTP/1 knows as one field.
            Fate::Forward if name == b"cookie" => {
                if !self.room.cookies.is_empty() {
                    self.room.cookies.extend_from_slice(b"; ");
                }
                self.room.cookies.extend_from_slice(value);
            }
            Fate::Forward => put_field(self.out, name, value),
            Fate::ContentLength => {
                let length = content_length(value).ok_or(refused(
                    "Content-Length is no number (RFC 9110 section 8.6)",
                ))?;
                if self.length.replace(length).is_some() {
                    let rule = "there is more than one Content-Length (RFC 9110 section 8.6)";
                    return Err(refused(rule));
                }
                put_field(self.out, name, value);
            }
            Fate::Te if value == b"trailers" => put_field(self.out, name, value),
            Fate::Host | Fate::Mesh => {}
            Fate::HopByHop
            | Fate::TransferEncoding
            | Fate::Connection
            | Fate::Upgrade
            | Fate::Te => {
                let rule = "a field is about a connection of HTTP/1 (RFC 9113 section 8.2.2)";
                return Err(Bad::Malformed(rule));
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Bad> {
        if !self.room.cookies.is_empty() {
            put_field(self.out, b"cookie", &self.room.cookies);
        }
        self.bad.take().map_or(Ok(()), Err)
    }
}

/// A request on its way to neutral form.
struct Asking<'a> {
    section: Section<'a>,
    pseudo: Pseudo,
    /// Known once its head has begun.
    tunnel: Option<Tunnel>,
    has_host: bool,
    is_grpc: bool,
    timeout: Option<Range<usize>>,
}

/// Where the values of pseudo-header fields are.
#[derive(Debug, Default)]
struct Pseudo {
    method: Option<Range<usize>>,
    scheme: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    path: Option<Range<usize>>,
    /// RFC 8441 section 4.
    protocol: Option<Range<usize>>,
}

impl Asking<'_> {
    /// False when no more has to be known. An answer that says what is wrong wants to know whether it is gRPC's.
    fn field(&mut self, name: &[u8], value: &[u8]) -> bool {
        if name == b"content-type" {
            self.is_grpc = value.starts_with(b"application/grpc");
        }
        let may_count = self.section.list_bytes <= HEADER_LIST_BYTES as usize;
        if !self.section.counts(name, value) {
            return may_count;
        }
        let taken = match name.first() {
            Some(b':') => self.pseudo(name, value),
            _ => self.begin_once().and_then(|()| self.regular(name, value)),
        };
        if let Err(bad) = taken {
            self.section.bad.get_or_insert(bad);
        }
        true
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Bad> {
        let Pseudo {
            method,
            scheme,
            authority,
            path,
            protocol,
        } = &mut self.pseudo;
        let place = match name {
            b":method" => method,
            b":scheme" => scheme,
            b":authority" => authority,
            b":path" => path,
            b":protocol" => protocol,
            _ => {
                let rule = "a pseudo-header field is unknown (RFC 9113 section 8.3)";
                return Err(Bad::Malformed(rule));
            }
        };
        let text = &mut self.section.room.pseudo;
        let start = text.len();
        text.extend_from_slice(value);
        if self.tunnel.is_some() || place.replace(start..text.len()).is_some() {
            let rule = "a pseudo-header field comes late or twice (RFC 9113 section 8.3)";
            return Err(Bad::Malformed(rule));
        }
        Ok(())
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> Result<(), Bad> {
        match name {
            b"host" => self.host(value)?,
            b"grpc-timeout" => {
                self.section.put(name, value)?;
                let end = self.section.out.len();
                self.timeout = Some(end - value.trim_ascii().len()..end);
                return Ok(());
            }
            b"sec-websocket-key" if matches!(self.tunnel, Some(Tunnel::WebSocket { .. })) => {
                let rule = "a WebSocket of HTTP/2 has no key (RFC 8441 section 5)";
                return Err(refused(rule));
            }
            _ => {}
        }
        self.section.put(name, value)
    }

    /// RFC 9113 section 8.3.1: the authority, or failing it `Host`; if there are both, they say the same.
    fn host(&mut self, value: &[u8]) -> Result<(), Bad> {
        let host = target::host(value).map_err(refused)?;
        if let Some(authority) = &self.pseudo.authority {
            let authority = &self.section.room.pseudo[authority.clone()];
            if target::host(authority).map_err(refused)? != host {
                let rule = "host differs from :authority (RFC 9113 section 8.3.1)";
                return Err(refused(rule));
            }
            return Ok(());
        }
        if std::mem::replace(&mut self.has_host, true) {
            let rule = "there is more than one host (RFC 9113 section 8.3.1)";
            return Err(refused(rule));
        }
        put_field(self.section.out, b"host", host.as_bytes());
        Ok(())
    }

    /// Writes what pseudo-header fields say, once they are all there.
    fn begin_once(&mut self) -> Result<(), Bad> {
        if self.tunnel.is_some() || self.section.bad.is_some() {
            return Ok(());
        }
        let room = &self.section.room.pseudo;
        let part = |place: &Option<Range<usize>>| place.clone().map(|place| &room[place]);
        let Pseudo {
            method,
            scheme,
            authority,
            path,
            protocol,
        } = &self.pseudo;
        let method = part(method).filter(|method| is_method(method));
        let method = method.and_then(|method| str::from_utf8(method).ok());
        let method = method.ok_or(Bad::Malformed(
            "there is no method (RFC 9113 section 8.3.1)",
        ))?;
        let tunnel = tunnel(method, part(protocol))?;
        let (scheme, path) = (part(scheme), part(path));
        let is_whole = match tunnel {
            Tunnel::Connect => scheme.is_none() && path.is_none(),
            Tunnel::None | Tunnel::WebSocket { .. } => {
                scheme.is_some_and(is_scheme) && path.is_some_and(|path| !path.is_empty())
            }
        };
        if !is_whole {
            let rule =
                "pseudo-header fields are missing or too many (RFC 9113 sections 8.3.1 and 8.5)";
            return Err(Bad::Malformed(rule));
        }
        let authority = part(authority);
        let host = authority.map(target::host).transpose().map_err(refused)?;
        let text = |bytes| str::from_utf8(bytes).map_err(|_| refused("the target is not ASCII"));
        let target = match (&tunnel, path) {
            (Tunnel::Connect, _) | (_, None) => {
                target::authority(text(authority.unwrap_or_default())?)
            }
            (Tunnel::None, Some(b"*")) if method == "OPTIONS" => Ok("*".into()),
            (_, Some(path)) => target::origin(text(path)?),
        };
        let is_websocket = matches!(tunnel, Tunnel::WebSocket { .. });
        neutral::Request {
            version: Version::Http2,
            upgrade: tunnel != Tunnel::None,
            method: if is_websocket { "GET" } else { method },
            target: &target.map_err(refused)?,
        }
        .encode(self.section.out);
        if let Some(host) = host {
            put_field(self.section.out, b"host", host.as_bytes());
            self.has_host = true;
        }
        if let Tunnel::WebSocket { key } = &tunnel {
            put_field(self.section.out, b"upgrade", websocket::NAME.as_bytes());
            put_field(self.section.out, websocket::KEY.as_bytes(), key.as_bytes());
        }
        self.tunnel = Some(tunnel);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Bad> {
        self.section.finish()?;
        if !self.has_host {
            let rule = "there is neither :authority nor host (RFC 9113 section 8.3.1)";
            return Err(refused(rule));
        }
        let is_tunnel = self.tunnel.as_ref().is_some_and(|one| *one != Tunnel::None);
        if is_tunnel && self.section.length.is_some_and(|length| length > 0) {
            return Err(refused("a CONNECT has a body (RFC 9110 section 9.3.6)"));
        }
        Ok(())
    }
}

/// RFC 8441 section 4: a CONNECT with a protocol is a request like others, and may become a WebSocket; nothing else.
fn tunnel(method: &str, protocol: Option<&[u8]>) -> Result<Tunnel, Bad> {
    match (method, protocol) {
        ("CONNECT", None) => Ok(Tunnel::Connect),
        (_, None) => Ok(Tunnel::None),
        ("CONNECT", Some(protocol)) if protocol == websocket::NAME.as_bytes() => {
            Ok(Tunnel::WebSocket {
                key: websocket::key(rand::random()),
            })
        }
        ("CONNECT", Some(_)) => {
            let error = Reason::NotImplemented.rule("only the protocol websocket (RFC 8441)");
            Err(Bad::Refused(error))
        }
        (_, Some(_)) => Err(Bad::Malformed(
            "a request has a protocol and is no CONNECT (RFC 8441 section 4)",
        )),
    }
}

fn is_method(method: &[u8]) -> bool {
    !method.is_empty() && method.iter().all(|byte| neutral::is_token(*byte))
}

/// RFC 3986 section 3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_part)
}

/// RFC 9110 section 5.6.2 in lower case (RFC 9113 section 8.2.1).
fn is_lower_token(byte: u8) -> bool {
    const LOWER: [bool; 256] = {
        let mut table = [false; 256];
        let bytes = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
        let mut place = 0;
        while place < bytes.len() {
            table[bytes[place] as usize] = true;
            place += 1;
        }
        table
    };
    LOWER[usize::from(byte)]
}

/// A status.
fn number(value: &[u8]) -> Option<u16> {
    let value: &[u8; 3] = value.try_into().ok()?;
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = || {
        value
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
    };
    digits.then(number)
}

/// The head of an app's response to a request for a tunnel, with what it says to whoever asked.
pub(super) fn opened<'a>(head: &'a [u8], tunnel: &Tunnel) -> Result<Cow<'a, [u8]>, Reason> {
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
        return put_fields(fields, None, out);
    }
    put_indexed(out, index::SCHEME_HTTP);
    match head.target {
        "/" => put_indexed(out, index::PATH_ROOT),
        target => put_named(out, index::PATH, target.as_bytes()),
    }
    put_named(out, index::AUTHORITY, host);
    if !is_websocket {
        return put_fields(fields, None, out);
    }
    put(out, b":protocol", websocket::NAME.as_bytes());
    put_fields(fields, Some(websocket::KEY), out)
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
            put_fields(fields, Some(websocket::ACCEPT), out)
        }
        // Taken for a tunnel by the client (RFC 8441 section 5), which the app has not opened.
        (Tunnel::WebSocket { .. }, 200..300) => Err(Reason::AppMalformed),
        (_, 101) => Err(Reason::PeerProtocol),
        (_, status) => {
            put_status(status, out);
            put_fields(fields, None, out)
        }
    }
}

/// A status of three digits.
pub(super) fn put_status(status: u16, out: &mut Vec<u8>) {
    let known = index::STATUSES.iter().position(|known| *known == status);
    match known.and_then(|place| u8::try_from(place).ok()) {
        Some(place) => put_indexed(out, index::STATUS + place),
        None => {
            let digit = |power: u16| b'0' + (status / power % 10).to_le_bytes()[0];
            put_named(out, index::STATUS, &[digit(100), digit(10), digit(1)]);
        }
    }
}

/// Fields as HTTP/2 wants them: without those of HTTP/1 connections, and without `but`. The host is the authority.
pub(super) fn put_fields(
    fields: Fields<'_>,
    but: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    for (name, value) in fields {
        match fate(name) {
            Fate::Forward | Fate::ContentLength => {}
            Fate::Te if value == b"trailers" => {}
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

#[cfg(test)]
mod tests;
