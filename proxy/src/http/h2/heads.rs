//! Neutral form to the `http` crate's heads and back.

use std::borrow::Cow;

use http::header::{COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, StatusCode, Uri};

use crate::error::{Error, Reason};
use crate::http::fields::{Fate, fate};
use crate::http::neutral::{self, FIELDS_MAX, Fields, Version, put_field};
use crate::http::target;

/// A request of our app as neutral form, appended to `out`.
pub(super) fn put_request(head: &http::request::Parts, out: &mut Vec<u8>) -> Result<(), Error> {
    let malformed = |rule| Reason::MalformedRequest.rule(rule);
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let host = host(authority, &head.headers).map_err(malformed)?;
    let target = match (&head.method, head.uri.path_and_query()) {
        (&Method::CONNECT, _) => target::authority(authority.unwrap_or_default()),
        (&Method::OPTIONS, Some(path)) if path == "*" => Ok("*".into()),
        (_, Some(path)) => target::origin(path.as_str()),
        (_, None) => Err("there is no :path (RFC 9113 section 8.3.1)"),
    };
    neutral::Request {
        version: Version::Http2,
        upgrade: head.method == Method::CONNECT,
        method: head.method.as_str(),
        target: &target.map_err(malformed)?,
    }
    .encode(out);
    put_field(out, b"host", host.as_bytes());
    put_fields(&head.headers, out).map_err(Error::from)
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

/// A response of our app as neutral form, appended to `out`.
pub(super) fn put_response(
    status: StatusCode,
    headers: &HeaderMap,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    neutral::Response {
        version: Version::Http2,
        upgrade: false,
        status: status.as_u16(),
        phrase: b"",
    }
    .encode(out);
    put_fields(headers, out)
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

/// A peer's request for our app.
pub(super) fn request(
    head: &neutral::Request<'_>,
    fields: Fields<'_>,
) -> Result<http::Request<()>, Reason> {
    let malformed = |_| Reason::PeerProtocol;
    let host = fields.first("host").ok_or(Reason::PeerProtocol)?;
    let host = std::str::from_utf8(host).map_err(|_| Reason::PeerProtocol)?;
    let uri = match head.method {
        "CONNECT" => Uri::builder().authority(head.target).build(),
        _ => Uri::builder()
            .scheme("http")
            .authority(host)
            .path_and_query(head.target)
            .build(),
    };
    let mut request = http::Request::new(());
    *request.method_mut() =
        Method::from_bytes(head.method.as_bytes()).map_err(|_| Reason::PeerProtocol)?;
    *request.uri_mut() = uri.map_err(malformed)?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = header_map(fields)?;
    Ok(request)
}

/// A peer's response for our app.
pub(super) fn response(status: u16, fields: Fields<'_>) -> Result<http::Response<()>, Reason> {
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Reason::PeerProtocol)?;
    *response.headers_mut() = header_map(fields)?;
    Ok(response)
}

/// Fields as HTTP/2 wants them: lower case, without those of HTTP/1 connections. The host is the authority.
pub(super) fn header_map(fields: Fields<'_>) -> Result<HeaderMap, Reason> {
    let mut headers = HeaderMap::new();
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
        let value = HeaderValue::from_bytes(value).map_err(|_| Reason::PeerProtocol)?;
        headers.append(name, value);
    }
    Ok(headers)
}
