//! A request on its way to neutral form: pseudo-header fields first, which come in any order, then the others.

use std::ops::Range;

use super::section::{Bad, Section, refused};
use super::{Room, Tunnel};
use crate::error::Reason;
use crate::http::h2::limits::HEADER_LIST_BYTES;
use crate::http::neutral::{self, Version, put_field};
use crate::http::{target, websocket};

/// A request on its way to neutral form.
pub(super) struct Asking<'a> {
    pub(super) section: Section<'a>,
    pseudo: Pseudo,
    /// Known once its head has begun.
    pub(super) tunnel: Option<Tunnel>,
    has_host: bool,
    pub(super) is_grpc: bool,
    pub(super) timeout: Option<Range<usize>>,
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

impl<'a> Asking<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, room: &'a mut Room) -> Self {
        Self {
            section: Section::new(out, room),
            pseudo: Pseudo::default(),
            tunnel: None,
            has_host: false,
            is_grpc: false,
            timeout: None,
        }
    }

    /// False when no more has to be known. An answer that says what is wrong wants to know whether it is gRPC's.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> bool {
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
    pub(super) fn begin_once(&mut self) -> Result<(), Bad> {
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

    pub(super) fn finish(&mut self) -> Result<(), Bad> {
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
