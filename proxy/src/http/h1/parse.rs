//! Head text to neutral form, checked. Nothing that breaks RFC 9112 in a way another reader could read differently gets
//! past here. Pure: bytes in, neutral form and framing out.

use std::mem::MaybeUninit;

use httparse::{Error as ParseError, Header, Status};

use super::body::Body;
use crate::error::Reason;
use crate::http::fields::{Fate, fate, is_host, list};
use crate::http::neutral::{self, FIELDS_MAX, Version, put_field};

/// What the rest of an exchange needs to know of a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestHead {
    /// Bytes of text.
    pub(crate) bytes: usize,
    pub(crate) version: Version,
    pub(crate) body: Body,
    /// The client wants to send more requests on this connection.
    pub(crate) persistent: bool,
    /// The response has no body, whatever its head says.
    pub(crate) is_head: bool,
    /// The connection becomes something else if the server agrees.
    pub(crate) upgrade: bool,
    /// A CONNECT: any 2xx agrees.
    pub(crate) is_connect: bool,
}

impl RequestHead {
    /// Whether a response of that status makes the connection something else: if we asked for it, and only then.
    pub(crate) fn is_answered_by_upgrade(&self, status: u16) -> bool {
        match status {
            101 => self.upgrade && !self.is_connect,
            200..300 => self.is_connect,
            _ => false,
        }
    }
}

/// What the rest of an exchange needs to know of a response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    pub(crate) bytes: usize,
    pub(crate) status: u16,
    pub(crate) body: Body,
    /// The server takes another request on this connection.
    pub(crate) persistent: bool,
    /// The connection became something else.
    pub(crate) upgrade: bool,
}

/// What a response head depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) is_head: bool,
    pub(crate) is_connect: bool,
    pub(crate) upgrade: bool,
}

/// What the fields of a head say about its connection and its body.
#[derive(Debug, Default)]
struct Framing<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Names fields of its own that end at this hop.
    nominates: bool,
}

/// A request head as neutral form, appended to `out`. None: more bytes are needed. `data` starts with the head.
pub(crate) fn request(data: &[u8], out: &mut Vec<u8>) -> Result<Option<RequestHead>, Reason> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let bytes = match parsed.parse_with_uninit_headers(data, &mut fields) {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) => return Ok(None),
        Err(ParseError::TooManyHeaders) => return Err(Reason::HeadTooLarge),
        Err(_) => return Err(Reason::MalformedRequest),
    };
    let malformed = Reason::MalformedRequest;
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(malformed);
    };
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let framing = framing(&data[..bytes], parsed.headers, version).ok_or(malformed)?;
    let (target, host) = target_and_host(method, target, framing.host, version).ok_or(malformed)?;
    let is_connect = method == "CONNECT";
    // Upgrading is the server's choice (RFC 9110 section 7.8), and so it is ours: not with a body in the way.
    let has_body = framing.chunked || framing.content_length.is_some_and(|length| length > 0);
    let upgrade = is_connect || framing.upgrade && version == Version::Http11 && !has_body;
    neutral::Request {
        version,
        upgrade,
        method,
        target,
    }
    .encode(out);
    put_fields(parsed.headers, &framing, upgrade, host, out);
    let body = match (framing.chunked, framing.content_length) {
        (true, _) => Body::chunked(),
        (false, Some(length)) => Body::length(length),
        (false, None) => Body::None,
    };
    if is_connect && body != Body::None {
        return Err(malformed);
    }
    let persistent = match version {
        Version::Http10 => framing.keep_alive && !framing.close,
        Version::Http11 | Version::Http2 => !framing.close,
    };
    Ok(Some(RequestHead {
        bytes,
        version,
        body,
        persistent,
        is_head: method == "HEAD",
        upgrade,
        is_connect,
    }))
}

/// A response head as neutral form, appended to `out`. None: more bytes are needed.
pub(crate) fn response(
    data: &[u8],
    asked: Asked,
    out: &mut Vec<u8>,
) -> Result<Option<ResponseHead>, Reason> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let malformed = Reason::AppMalformed;
    let bytes = match parser.parse_response_with_uninit_headers(&mut parsed, data, &mut fields) {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(malformed),
    };
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(malformed);
    };
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let framing = framing(&data[..bytes], parsed.headers, version).ok_or(malformed)?;
    let upgrade = status == 101 || asked.is_connect && (200..300).contains(&status);
    if !(100..1000).contains(&status) || status == 101 && !asked.upgrade {
        return Err(malformed);
    }
    let phrase = parsed.reason.unwrap_or_default().as_bytes();
    neutral::Response {
        version,
        upgrade,
        status,
        phrase,
    }
    .encode(out);
    put_fields(parsed.headers, &framing, upgrade, None, out);
    // RFC 9112 section 6.3, in its order.
    let bodyless = asked.is_head || status < 200 || status == 204 || status == 304 || upgrade;
    let body = match (bodyless, framing.chunked, framing.content_length) {
        (true, _, _) => Body::None,
        (false, true, _) => Body::chunked(),
        (false, false, Some(length)) => Body::length(length),
        (false, false, None) => Body::UntilClose,
    };
    let persistent = body != Body::UntilClose
        && match version {
            Version::Http10 => framing.keep_alive && !framing.close,
            Version::Http11 | Version::Http2 => !framing.close,
        };
    Ok(Some(ResponseHead {
        bytes,
        status,
        body,
        persistent,
        upgrade,
    }))
}

/// Reads what the fields say about framing; none where RFC 9112 is broken.
fn framing<'a>(head: &[u8], fields: &[Header<'a>], version: Version) -> Option<Framing<'a>> {
    if has_bare_line_feed(head) {
        return None;
    }
    let mut framing = Framing::default();
    for field in fields {
        match fate(field.name.as_bytes()) {
            Fate::Host if framing.host.is_some() => return None,
            Fate::Host => framing.host = Some(field.value),
            Fate::ContentLength if framing.content_length.is_some() => return None,
            Fate::ContentLength => framing.content_length = Some(content_length(field.value)?),
            // Chunked once, alone: any other coding is one we could not forward unchanged and bounded.
            Fate::TransferEncoding
                if framing.chunked || !field.value.eq_ignore_ascii_case(b"chunked") =>
            {
                return None;
            }
            Fate::TransferEncoding => framing.chunked = true,
            Fate::Connection => {
                for option in list(field.value) {
                    match () {
                        () if option.eq_ignore_ascii_case(b"close") => framing.close = true,
                        () if option.eq_ignore_ascii_case(b"keep-alive") => {
                            framing.keep_alive = true
                        }
                        () if option.eq_ignore_ascii_case(b"upgrade") => framing.upgrade = true,
                        () => framing.nominates = true,
                    }
                }
            }
            Fate::Forward | Fate::HopByHop | Fate::Upgrade | Fate::Te | Fate::Mesh => {}
        }
    }
    let contradicts =
        framing.chunked && (framing.content_length.is_some() || version == Version::Http10);
    if contradicts { None } else { Some(framing) }
}

/// RFC 9112 section 2.2 lets a reader take a bare LF for a line's end; not every reader does.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let mut previous = b'\n';
    head.iter().any(|byte| {
        let bare = *byte == b'\n' && previous != b'\r';
        previous = *byte;
        bare
    })
}

/// RFC 9110 section 8.6: digits, nothing else, no list.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The target to forward, and the authority: that of an absolute target, else of `Host` (RFC 9112 section 3.2).
fn target_and_host<'a>(
    method: &str,
    target: &'a str,
    host: Option<&'a [u8]>,
    version: Version,
) -> Option<(&'a str, Option<&'a [u8]>)> {
    if !target.bytes().all(|b| b.is_ascii_graphic()) || target.contains('#') {
        return None;
    }
    if let Some(host) = host
        && !is_host(host)
    {
        return None;
    }
    if host.is_none() && version == Version::Http11 {
        return None;
    }
    if method == "CONNECT" {
        return is_host(target.as_bytes()).then_some((target, host));
    }
    if target.starts_with('/') {
        return Some((target, host));
    }
    if target == "*" {
        return (method == "OPTIONS").then_some((target, host));
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let path = match path {
        "" if method == "OPTIONS" => "*",
        "" => "/",
        // An origin form must start with a slash; such a target is rare enough to refuse.
        query if query.starts_with('?') => return None,
        path => path,
    };
    is_host(authority.as_bytes()).then_some((path, Some(authority.as_bytes())))
}

/// Appends the fields that cross, in their order and case.
fn put_fields(
    fields: &[Header<'_>],
    framing: &Framing<'_>,
    upgrade: bool,
    host: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    let nominated = |name: &[u8]| {
        framing.nominates
            && fields
                .iter()
                .filter(|field| fate(field.name.as_bytes()) == Fate::Connection)
                .flat_map(|field| list(field.value))
                .any(|option| option.eq_ignore_ascii_case(name))
    };
    let mut host_written = host.is_none();
    for field in fields {
        let name = field.name.as_bytes();
        match fate(name) {
            Fate::Forward if !nominated(name) => put_field(out, name, field.value),
            Fate::ContentLength => put_field(out, name, field.value),
            Fate::Host => {
                put_field(out, name, host.unwrap_or(field.value));
                host_written = true;
            }
            Fate::Upgrade if upgrade => put_field(out, name, field.value),
            Fate::Te
                if list(field.value).any(|coding| coding.eq_ignore_ascii_case(b"trailers")) =>
            {
                put_field(out, name, b"trailers");
            }
            Fate::Forward
            | Fate::HopByHop
            | Fate::TransferEncoding
            | Fate::Connection
            | Fate::Upgrade
            | Fate::Te
            | Fate::Mesh => {}
        }
    }
    if let Some(host) = host.filter(|_| !host_written) {
        put_field(out, b"Host", host);
    }
}

#[cfg(test)]
mod tests;
