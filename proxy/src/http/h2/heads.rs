//! Neutral form to the `http` crate's heads and back.

use std::borrow::Cow;

use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, StatusCode, Uri};

use bytes::Bytes;

use crate::error::{Error, Reason};
use crate::http::context::REQUEST_ID;
use crate::http::fields::{Fate, fate};
use crate::http::h1::parse::content_length;
use crate::http::neutral::{self, FIELDS_MAX, Fields, Version, put_field};
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

/// A request of our app as neutral form, appended to `out`.
pub(crate) fn put_request(head: &http::request::Parts, out: &mut Vec<u8>) -> Result<Tunnel, Error> {
    let tunnel = tunnel(head)?;
    let is_websocket = matches!(tunnel, Tunnel::WebSocket { .. });
    let malformed = |rule| Reason::MalformedRequest.rule(rule);
    let length = length(&head.headers).map_err(malformed)?;
    if tunnel != Tunnel::None && length.is_some_and(|length| length > 0) {
        return Err(malformed("a CONNECT has a body (RFC 9110 section 9.3.6)"));
    }
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let host = host(authority, &head.headers).map_err(malformed)?;
    let target = match (&head.method, head.uri.path_and_query()) {
        (&Method::CONNECT, _) if !is_websocket => target::authority(authority.unwrap_or_default()),
        (&Method::OPTIONS, Some(path)) if path == "*" => Ok("*".into()),
        (_, Some(path)) => target::origin(path.as_str()),
        (_, None) => Err("there is no :path (RFC 9113 section 8.3.1)"),
    };
    neutral::Request {
        version: Version::Http2,
        upgrade: tunnel != Tunnel::None,
        method: if is_websocket {
            "GET"
        } else {
            head.method.as_str()
        },
        target: &target.map_err(malformed)?,
    }
    .encode(out);
    put_field(out, b"host", host.as_bytes());
    if let Tunnel::WebSocket { key } = &tunnel {
        put_field(out, b"upgrade", websocket::NAME.as_bytes());
        put_field(out, websocket::KEY.as_bytes(), key.as_bytes());
    }
    put_fields(&head.headers, out)?;
    Ok(tunnel)
}

/// What `Content-Length` says; once, or the other side could read something else.
fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next().map(|length| {
        content_length(length.as_bytes())
            .ok_or("Content-Length is no number (RFC 9110 section 8.6)")
    });
    if lengths.next().is_some() {
        return Err("there is more than one Content-Length (RFC 9110 section 8.6)");
    }
    length.transpose()
}

/// RFC 8441 section 4: a CONNECT with a protocol is a request like others, and may become a WebSocket; nothing else.
fn tunnel(head: &http::request::Parts) -> Result<Tunnel, Error> {
    let protocol = head.extensions.get::<Protocol>().map(Protocol::as_str);
    match protocol {
        Some(websocket::NAME) if head.headers.contains_key(websocket::KEY) => {
            let rule = "a WebSocket of HTTP/2 has no key (RFC 8441 section 5)";
            Err(Reason::MalformedRequest.rule(rule))
        }
        Some(websocket::NAME) => Ok(Tunnel::WebSocket {
            key: websocket::key(rand::random()),
        }),
        Some(_) => Err(Reason::NotImplemented.rule("only the protocol websocket (RFC 8441)")),
        None if head.method == Method::CONNECT => Ok(Tunnel::Connect),
        None => Ok(Tunnel::None),
    }
}

/// RFC 9113 section 8.3.1: the authority, or failing it `Host`; if there are both, they say the same.
fn host<'a>(
    authority: Option<&'a str>,
    headers: &'a HeaderMap,
) -> Result<Cow<'a, str>, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let field = hosts.next().map(|host| target::host(host.as_bytes()));
    if hosts.next().is_some() {
        return Err("there is more than one host (RFC 9113 section 8.3.1)");
    }
    match (authority, field) {
        (Some(authority), None) => target::host(authority.as_bytes()),
        (Some(authority), Some(field)) => {
            let authority = target::host(authority.as_bytes())?;
            if authority == field? {
                Ok(authority)
            } else {
                Err("host differs from :authority (RFC 9113 section 8.3.1)")
            }
        }
        (None, Some(field)) => field,
        (None, None) => Err("there is neither :authority nor host (RFC 9113 section 8.3.1)"),
    }
}

/// A response of our app as neutral form, appended to `out`. True when it opens the tunnel.
pub(crate) fn put_response(
    status: StatusCode,
    headers: &HeaderMap,
    tunnel: &Tunnel,
    out: &mut Vec<u8>,
) -> Result<bool, Reason> {
    length(headers).map_err(|_| Reason::AppMalformed)?;
    let upgrade = *tunnel != Tunnel::None && status.is_success();
    let status = match tunnel {
        // RFC 8441 section 5: what is 200 here is 101 in HTTP/1.
        Tunnel::WebSocket { .. } if upgrade => 101,
        _ => status.as_u16(),
    };
    neutral::Response {
        version: Version::Http2,
        upgrade,
        status,
        phrase: b"",
    }
    .encode(out);
    if let Tunnel::WebSocket { key } = tunnel
        && upgrade
    {
        let accept = websocket::accept(key.as_bytes());
        put_field(out, b"upgrade", websocket::NAME.as_bytes());
        put_field(out, websocket::ACCEPT.as_bytes(), accept.as_bytes());
    }
    put_fields(headers, out)?;
    Ok(upgrade)
}

/// Fields that cross, appended to `out`.
pub(super) fn put_fields(headers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Reason> {
    // The host that we make is one of them.
    if headers.len() >= FIELDS_MAX {
        return Err(Reason::HeadTooLarge);
    }
    // RFC 9113 section 8.2.3: what HTTP/2 may split, HTTP/1 knows as one field.
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if !cookies.is_empty() {
        put_field(out, b"cookie", &cookies.join(&b"; "[..]));
    }
    for (name, value) in headers.iter().filter(|(name, _)| *name != COOKIE) {
        match fate(name.as_str().as_bytes()) {
            Fate::Forward | Fate::ContentLength | Fate::Te => {
                put_field(out, name.as_str().as_bytes(), value.as_bytes());
            }
            Fate::Host | Fate::Mesh => {}
            // h2 refuses these; should it not, they must not cross.
            Fate::HopByHop | Fate::TransferEncoding | Fate::Connection | Fate::Upgrade => {
                return Err(Reason::MalformedRequest);
            }
        }
    }
    Ok(())
}

/// Fields of most messages.
const FIELDS_EXPECTED: usize = 12;

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

fn uri(host: Bytes, target: Bytes) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(http::uri::Authority::from_maybe_shared(host).ok()?);
    parts.path_and_query = Some(http::uri::PathAndQuery::from_maybe_shared(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// A peer's request for our app.
pub(crate) fn request(
    head: &neutral::Request<'_>,
    fields: Fields<'_>,
    tunnel: &Tunnel,
) -> Result<http::Request<()>, Reason> {
    let host = fields.first("host").ok_or(Reason::PeerProtocol)?;
    let host = std::str::from_utf8(host).map_err(|_| Reason::PeerProtocol)?;
    // One copy of both, of which the parts are slices: h2 keeps them as they are.
    let text = Bytes::from([host, head.target].concat());
    let (host, target) = (text.slice(..host.len()), text.slice(host.len()..));
    let uri = match head.method {
        "CONNECT" => Uri::from_maybe_shared(target).map_err(|_| Reason::PeerProtocol)?,
        _ => uri(host, target).ok_or(Reason::PeerProtocol)?,
    };
    let mut request = http::Request::new(());
    *request.method_mut() =
        Method::from_bytes(head.method.as_bytes()).map_err(|_| Reason::PeerProtocol)?;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = header_map(fields)?;
    if matches!(tunnel, Tunnel::WebSocket { .. }) {
        *request.method_mut() = Method::CONNECT;
        request.headers_mut().remove(websocket::KEY);
        request
            .extensions_mut()
            .insert(Protocol::from_static(websocket::NAME));
    }
    Ok(request)
}

/// A peer's response for our app.
pub(crate) fn response(
    status: u16,
    fields: Fields<'_>,
    tunnel: &Tunnel,
) -> Result<http::Response<()>, Reason> {
    let mut response = http::Response::new(());
    *response.headers_mut() = header_map(fields)?;
    let status = match (tunnel, status) {
        (Tunnel::WebSocket { key }, 101) => {
            let accept = response.headers_mut().remove(websocket::ACCEPT);
            // RFC 6455 section 4.1.
            if accept.is_none_or(|accept| accept != websocket::accept(key.as_bytes())) {
                return Err(Reason::AppMalformed);
            }
            200
        }
        // Taken for a tunnel by the client (RFC 8441 section 5), which the app has not opened.
        (Tunnel::WebSocket { .. }, 200..300) => return Err(Reason::AppMalformed),
        (_, 101) => return Err(Reason::PeerProtocol),
        (_, status) => status,
    };
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Reason::PeerProtocol)?;
    Ok(response)
}

/// Fields as HTTP/2 wants them: lower case, without those of HTTP/1 connections. The host is the authority.
pub(super) fn header_map(fields: Fields<'_>) -> Result<HeaderMap, Reason> {
    let mut headers = HeaderMap::with_capacity(FIELDS_EXPECTED);
    for (name, value) in fields {
        match fate(name) {
            Fate::Forward | Fate::ContentLength => {}
            Fate::Te if value == b"trailers" => {
                headers.insert(TE, HeaderValue::from_static("trailers"));
                continue;
            }
            Fate::Host | Fate::Mesh | Fate::Upgrade | Fate::Te => continue,
            Fate::HopByHop | Fate::TransferEncoding | Fate::Connection => {
                return Err(Reason::PeerProtocol);
            }
        }
        let name = HeaderName::from_bytes(name).map_err(|_| Reason::PeerProtocol)?;
        let mut value = HeaderValue::from_bytes(value).map_err(|_| Reason::PeerProtocol)?;
        // No two are the same: in HPACK's table they would only push others out.
        value.set_sensitive(name == REQUEST_ID);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_others_could_read_differently() {
        let check = |request: http::request::Builder, expected: Option<Reason>| {
            let request = request.version(http::Version::HTTP_2);
            let (head, ()) = request.body(()).expect("a request").into_parts();
            let found = put_request(&head, &mut Vec::new()).map_err(|error| error.reason);
            assert_eq!(found.err(), expected, "{head:?}");
        };
        let with = |lengths: &[&str]| {
            let name = |request: http::request::Builder, length: &&str| {
                request.header(CONTENT_LENGTH, *length)
            };
            lengths
                .iter()
                .fold(http::Request::post("http://a:80/"), name)
        };
        let malformed = Some(Reason::MalformedRequest);
        check(with(&[]), None);
        check(with(&["1"]), None);
        check(with(&["1", "1"]), malformed);
        check(with(&["1, 1"]), malformed);
        let tunnel = |lengths| {
            with(lengths)
                .method("CONNECT")
                .extension(Protocol::from_static(websocket::NAME))
        };
        check(tunnel(&["0"]), None);
        check(tunnel(&["1"]), malformed);
        check(with(&["1"]).method("CONNECT"), malformed);
    }
}
