//! Head text to neutral form, checked. Nothing that breaks RFC 9112 in a way another reader could read differently gets
//! past here. Pure: bytes in, neutral form and framing out.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use httparse::{Error as ParseError, Header, Status};

use super::body::Body;
use crate::buffer::HEAD_BYTES;
use crate::error::{Error, Reason};
use crate::http::fields::{Fate, fate, is_h2c, is_hidden_http, list};
use crate::http::neutral::{self, FIELDS_MAX, Version, put_field};
use crate::http::target;

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
    /// The client would rather go on in HTTP/2, and has nothing more to say in HTTP/1.
    pub(crate) h2c: Option<Settings>,
}

/// Where in the text the value of `HTTP2-Settings` is (RFC 7540 section 3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    start: usize,
    bytes: usize,
}

impl Settings {
    /// The value, out of the text that it was found in.
    pub(crate) fn of<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[self.start..self.start + self.bytes]
    }
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
    /// `Connection` says `upgrade`.
    upgrade: bool,
    /// `Upgrade` names a protocol.
    offers: bool,
    /// One of them is HTTP again.
    offers_http: bool,
    /// One of them is HTTP/2 in plaintext.
    offers_h2c: bool,
    /// `HTTP2-Settings`, and how many of them there are.
    settings: Option<&'a [u8]>,
    settings_count: usize,
    /// Names fields of its own that end at this hop.
    nominates: bool,
}

/// A request head as neutral form, appended to `out`. None: more bytes are needed. `data` starts with the head.
pub(crate) fn request(data: &[u8], out: &mut Vec<u8>) -> Result<Option<RequestHead>, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let bytes = match parsed.parse_with_uninit_headers(data, &mut fields) {
        // What came behind a body may be more than is read of a head.
        Ok(Status::Complete(bytes)) if bytes > HEAD_BYTES => {
            return Err(Reason::HeadTooLarge.into());
        }
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) => return Ok(None),
        Err(ParseError::TooManyHeaders) => return Err(Reason::HeadTooLarge.into()),
        Err(ParseError::Version) if names_other_version(data) => {
            return Err(Reason::HttpVersion.into());
        }
        Err(error) => return Err(Reason::MalformedRequest.rule(rule(error))),
    };
    let malformed = |rule| Reason::MalformedRequest.rule(rule);
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(malformed(START_LINE));
    };
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let framing = framing(&data[..bytes], parsed.headers, version).map_err(malformed)?;
    let (target, host) =
        target_and_host(method, target, framing.host, version).map_err(malformed)?;
    let is_connect = method == "CONNECT";
    let upgrade = is_connect || framing.may_upgrade(version);
    neutral::Request {
        version,
        upgrade,
        method,
        target: &target,
    }
    .encode(out);
    let host = host.as_ref().map(|host| host.as_bytes());
    put_fields(parsed.headers, &framing, upgrade, host, out);
    let body = match (framing.chunked, framing.content_length) {
        (true, _) => Body::chunked(),
        (false, Some(length)) => Body::length(length),
        (false, None) => Body::None,
    };
    if is_connect && body != Body::None {
        return Err(malformed("a CONNECT has a body (RFC 9110 section 9.3.6)"));
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
        h2c: framing
            .h2c(version, data)
            .filter(|_| body.is_over() && !is_connect),
    }))
}

/// A response head as neutral form, appended to `out`. None: more bytes are needed.
pub(crate) fn response(
    data: &[u8],
    asked: Asked,
    out: &mut Vec<u8>,
) -> Result<Option<ResponseHead>, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let malformed = |rule| Reason::AppMalformed.rule(rule);
    let bytes = match parser.parse_response_with_uninit_headers(&mut parsed, data, &mut fields) {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(malformed(rule(error))),
    };
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(malformed(START_LINE));
    };
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let framing = framing(&data[..bytes], parsed.headers, version).map_err(malformed)?;
    let upgrade = status == 101 || asked.is_connect && (200..300).contains(&status);
    check_status(status, asked, &framing).map_err(malformed)?;
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

/// What a status must not come with.
fn check_status(status: u16, asked: Asked, framing: &Framing<'_>) -> Result<(), &'static str> {
    if !(100..1000).contains(&status) {
        return Err("the status has not three digits from 100 on (RFC 9110 section 15)");
    }
    if status == 101 && !asked.upgrade {
        return Err("the response switches protocols and nobody asked (RFC 9110 section 15.2.2)");
    }
    if status == 101 && (!framing.offers || framing.offers_http) {
        return Err("the response switches to no protocol we offered (RFC 9110 section 7.8)");
    }
    let never_has_body = status < 200 || status == 204;
    let has_body = framing.chunked || framing.content_length.is_some_and(|length| length > 0);
    if never_has_body && has_body {
        return Err("the response frames a body that its status has not (RFC 9112 section 6.1)");
    }
    Ok(())
}

const START_LINE: &str = "the first line is none of HTTP (RFC 9112 sections 3 and 4)";

/// The rule behind a parser's error.
fn rule(error: ParseError) -> &'static str {
    match error {
        ParseError::HeaderName => {
            "a field name is no token, or is folded or apart from its colon (RFC 9112 section 5)"
        }
        ParseError::HeaderValue => {
            "a field value has a control byte or a folded line (RFC 9110 section 5.5)"
        }
        ParseError::NewLine => "a line does not end in CR LF (RFC 9112 section 2.2)",
        ParseError::Token | ParseError::Status | ParseError::Version => START_LINE,
        ParseError::TooManyHeaders => "there are more than 128 fields",
    }
}

/// Whether the first line is right but for a version of HTTP that is none of ours (RFC 9110 section 2.5).
fn names_other_version(data: &[u8]) -> bool {
    let line = data.trim_ascii_start();
    let end = line.iter().position(|b| b"\r\n".contains(b));
    let mut parts = line[..end.unwrap_or(line.len())].split(|b| *b == b' ');
    let (Some(_), Some(_), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    match version.strip_prefix(b"HTTP/") {
        Some(b"1.0" | b"1.1") => false,
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}

impl Framing<'_> {
    /// Upgrading is the server's choice (RFC 9110 section 7.8), and so it is ours: not with a body in the way, and not
    /// to HTTP that nobody looks at.
    fn may_upgrade(&self, version: Version) -> bool {
        let has_body = self.chunked || self.content_length.is_some_and(|length| length > 0);
        self.upgrade && self.offers && !self.offers_http && version == Version::Http11 && !has_body
    }

    /// An offer that may be taken up: there is one header field of settings, no more (RFC 7540 section 3.2.1).
    fn h2c(&self, version: Version, data: &[u8]) -> Option<Settings> {
        let is_offered = self.upgrade && self.offers_h2c && version == Version::Http11;
        let settings = self
            .settings
            .filter(|_| is_offered && self.settings_count == 1)?;
        let start = settings.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
        Some(Settings {
            start,
            bytes: settings.len(),
        })
    }

    fn read_connection(&mut self, value: &[u8]) {
        for option in list(value) {
            match () {
                () if option.eq_ignore_ascii_case(b"close") => self.close = true,
                () if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                () if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                () => self.nominates = true,
            }
        }
    }
}

/// Reads what the fields say about framing, or the rule they break.
fn framing<'a>(
    head: &[u8],
    fields: &[Header<'a>],
    version: Version,
) -> Result<Framing<'a>, &'static str> {
    if has_bare_line_feed(head) {
        return Err(rule(ParseError::NewLine));
    }
    let mut framing = Framing::default();
    for field in fields {
        match fate(field.name.as_bytes()) {
            Fate::Host if framing.host.is_some() => {
                return Err("there is more than one Host (RFC 9112 section 3.2)");
            }
            Fate::Host => framing.host = Some(field.value),
            Fate::ContentLength if framing.content_length.is_some() => {
                return Err("there is more than one Content-Length (RFC 9112 section 6.3)");
            }
            Fate::ContentLength => {
                let length = content_length(field.value);
                framing.content_length =
                    Some(length.ok_or("Content-Length is no number (RFC 9110 section 8.6)")?);
            }
            // Chunked once, alone: any other coding is one we could not forward unchanged and bounded.
            Fate::TransferEncoding
                if framing.chunked || !field.value.eq_ignore_ascii_case(b"chunked") =>
            {
                return Err("Transfer-Encoding is not chunked, once (RFC 9112 section 6.1)");
            }
            Fate::TransferEncoding => framing.chunked = true,
            Fate::Connection => framing.read_connection(field.value),
            Fate::Upgrade => {
                framing.offers |= list(field.value).next().is_some();
                framing.offers_http |= list(field.value).any(is_hidden_http);
                framing.offers_h2c |= list(field.value).any(is_h2c);
            }
            Fate::HopByHop if field.name.eq_ignore_ascii_case("http2-settings") => {
                framing.settings = Some(field.value);
                framing.settings_count += 1;
            }
            Fate::Forward | Fate::HopByHop | Fate::Te | Fate::Mesh => {}
        }
    }
    match (framing.chunked, framing.content_length) {
        (true, Some(_)) => {
            Err("there are Content-Length and Transfer-Encoding (RFC 9112 section 6.1)")
        }
        (true, None) if version == Version::Http10 => {
            Err("HTTP/1.0 has no Transfer-Encoding (RFC 9112 section 6.1)")
        }
        _ => Ok(framing),
    }
}

/// RFC 9112 section 2.2 lets a reader take a bare LF for a line's end; not every reader does.
pub(super) fn has_bare_line_feed(head: &[u8]) -> bool {
    let is_bare = |at: usize| at == 0 || head[at - 1] != b'\r';
    memchr::memchr_iter(b'\n', head).any(is_bare)
}

/// RFC 9110 section 8.6: digits, nothing else, no list.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

type TargetAndHost<'a> = (Cow<'a, str>, Option<Cow<'a, str>>);

/// The target to forward, and the authority: that of an absolute target, else of `Host` (RFC 9112 section 3.2), both in
/// normal form.
fn target_and_host<'a>(
    method: &str,
    target: &'a str,
    host: Option<&'a [u8]>,
    version: Version,
) -> Result<TargetAndHost<'a>, &'static str> {
    if host.is_none() && version == Version::Http11 {
        return Err("there is no Host (RFC 9112 section 3.2)");
    }
    let host = host.map(target::host).transpose()?;
    if method == "CONNECT" {
        return Ok((target::authority(target)?, host));
    }
    if target.starts_with('/') {
        return Ok((target::origin(target)?, host));
    }
    if target == "*" {
        return match method {
            "OPTIONS" => Ok((Cow::Borrowed(target), host)),
            _ => Err("the target is an asterisk, which only OPTIONS has (RFC 9112 section 3.2.4)"),
        };
    }
    let none = "the target is neither a path nor an HTTP URI (RFC 9112 section 3.2)";
    let (scheme, rest) = target.split_once("://").ok_or(none)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(none);
    }
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let path = match path {
        "" if method == "OPTIONS" => Cow::Borrowed("*"),
        "" => Cow::Borrowed("/"),
        // An origin form must start with a slash; such a target is rare enough to refuse.
        path => target::origin(path)?,
    };
    Ok((path, Some(target::host(authority.as_bytes())?)))
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
