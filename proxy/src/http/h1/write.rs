//! Neutral form to text, and body framing as it leaves.
//!
//! The head may come from a hostile peer. What it could do with framing fields is refused here: one length at most,
//! and a body that is exactly as long, so nothing of it can pass for another request.

use super::parse::content_length;
use crate::error::{Error, Reason};
use crate::http::fields::{Fate, Toward, fate};
use crate::http::neutral::{Fields, Request, Response, Version};

/// Room for a chunk's size line: 16 digits and CRLF.
const CHUNK_HEAD_BYTES: usize = 18;

/// How a body is framed as it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, and the head says so.
    None,
    /// As many bytes as the head says; so many are to come.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Until the connection closes (responses to HTTP/1.0), or as it comes (upgraded).
    Raw,
}

/// Appends a request as text; says how its body has to be written.
pub(crate) fn request(
    head: &Request<'_>,
    fields: Fields<'_>,
    has_body: bool,
    out: &mut Vec<u8>,
) -> Result<Framing, Reason> {
    let version = if head.version == Version::Http10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    for part in [head.method, " ", head.target, " ", version, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let length = put_fields(fields, Toward::App, out).ok_or(Reason::PeerProtocol)?;
    let framing = match (length, has_body) {
        // With a body in the way the app and we could differ on where the tunnel begins.
        (Some(1..), _) if head.upgrade => return Err(Reason::PeerProtocol),
        _ if head.upgrade => Framing::Raw,
        _ if head.method == "CONNECT" => return Err(Reason::PeerProtocol),
        (Some(length), true) => Framing::Length(length),
        (None, true) if head.version == Version::Http10 => return Err(Reason::PeerProtocol),
        (None, true) => Framing::Chunked,
        (Some(1..), false) => return Err(Reason::PeerProtocol),
        (Some(0) | None, false) => Framing::None,
    };
    if head.upgrade && head.method != "CONNECT" {
        out.extend_from_slice(b"Connection: upgrade\r\n");
    }
    end_head(framing, out);
    Ok(framing)
}

/// What the client can be told, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// Of the request.
    pub(crate) version: Version,
    /// The request was a HEAD.
    pub(crate) is_head: bool,
    /// The connection stays open for another request, as far as the client is concerned.
    pub(crate) persistent: bool,
}

/// Appends a response as text; says how its body has to be written. [`Framing::Raw`] ends with the connection. An
/// informational one is not for a client of HTTP/1.0, which would take it for the response (RFC 9110 section 15.2).
pub(crate) fn response(
    head: &Response<'_>,
    fields: Fields<'_>,
    has_body: bool,
    answer: Answer,
    out: &mut Vec<u8>,
) -> Result<Framing, Reason> {
    if head.status < 200 && !head.upgrade && answer.version == Version::Http10 {
        return Ok(Framing::None);
    }
    let digit = |n: u16| b'0' + (n % 10).to_be_bytes()[1];
    let status = [
        digit(head.status / 100),
        digit(head.status / 10),
        digit(head.status),
    ];
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&status);
    out.push(b' ');
    match head.phrase {
        b"" if head.version == Version::Http2 => {
            out.extend_from_slice(phrase(head.status).as_bytes())
        }
        phrase => out.extend_from_slice(phrase),
    }
    out.extend_from_slice(b"\r\n");
    let length = put_fields(fields, Toward::Client, out).ok_or(Reason::PeerProtocol)?;
    let bodyless = answer.is_head || head.status < 200 || head.status == 204 || head.status == 304;
    let framing = match (length, has_body) {
        _ if head.upgrade => Framing::Raw,
        // It may end apart from its head all the same; bytes of a body are refused when they come.
        (_, true) if bodyless => Framing::None,
        (Some(length), true) => Framing::Length(length),
        (None, true) if answer.version == Version::Http10 => Framing::Raw,
        (None, true) => Framing::Chunked,
        (Some(1..), false) if !bodyless => return Err(Reason::PeerProtocol),
        (_, false) => Framing::None,
    };
    if framing == Framing::None && !bodyless && length.is_none() {
        out.extend_from_slice(b"Content-Length: 0\r\n");
    }
    let persistent = answer.persistent && framing != Framing::Raw;
    let connection = match (head.status, persistent, answer.version) {
        (101, _, _) => "Connection: upgrade\r\n",
        (100..200, _, _) => "",
        _ if head.upgrade => "",
        (_, false, _) => "Connection: close\r\n",
        (_, true, Version::Http10) => "Connection: keep-alive\r\n",
        (_, true, Version::Http11 | Version::Http2) => "",
    };
    out.extend_from_slice(connection.as_bytes());
    end_head(framing, out);
    Ok(framing)
}

/// A response of our own.
pub(crate) fn refusal(error: &Error, answer: Answer, out: &mut Vec<u8>) {
    let row = error.reason.row();
    let body = format!("{error}\n");
    let decision = error
        .decision
        .map(|id| format!("x-ringmail-decision: {id}\r\n"))
        .unwrap_or_default();
    let challenge = error
        .reason
        .challenge()
        .map(|challenge| format!("WWW-Authenticate: {challenge}\r\n"))
        .unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nx-ringmail-reason: {}\r\n{decision}{challenge}{}\r\n",
        row.status,
        phrase(row.status),
        body.len(),
        row.label,
        match (answer.persistent, answer.version) {
            (false, _) => "Connection: close\r\n",
            (true, Version::Http10) => "Connection: keep-alive\r\n",
            (true, Version::Http11 | Version::Http2) => "",
        },
    );
    out.extend_from_slice(head.as_bytes());
    if !answer.is_head {
        out.extend_from_slice(body.as_bytes());
    }
}

impl Framing {
    /// Appends body bytes, framed. They may not be more than the head announced.
    pub(crate) fn put(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
        match self {
            Self::None if data.is_empty() => {}
            Self::None => return Err(Reason::PeerProtocol),
            Self::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(Reason::PeerProtocol)?;
                out.extend_from_slice(data);
            }
            // A chunk of no bytes would end the body.
            Self::Chunked if data.is_empty() => {}
            Self::Chunked => {
                out.reserve(data.len() + CHUNK_HEAD_BYTES + 2);
                out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Self::Raw => out.extend_from_slice(data),
        }
        Ok(())
    }

    /// Appends what ends the body. It may not be shorter than the head announced.
    pub(crate) fn end(self, trailers: Option<Fields<'_>>, out: &mut Vec<u8>) -> Result<(), Reason> {
        match self {
            Self::None | Self::Raw | Self::Length(0) => {}
            Self::Length(_) => return Err(Reason::PeerProtocol),
            Self::Chunked => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers
                    .into_iter()
                    .flatten()
                    .filter(|(name, _)| fate(name) == Fate::Forward)
                {
                    put_line(name, value, out);
                }
                out.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }
}

fn end_head(framing: Framing, out: &mut Vec<u8>) {
    if framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the fields and returns the length they announce; none where a field may not cross.
#[expect(
    clippy::option_option,
    reason = "the outer says whether the fields may cross, the inner is a field that may be absent"
)]
fn put_fields(fields: Fields<'_>, toward: Toward, out: &mut Vec<u8>) -> Option<Option<u64>> {
    let mut length = None;
    let mut host = false;
    for (name, value) in fields {
        match fate(name) {
            Fate::ContentLength if length.is_some() => return None,
            Fate::ContentLength => length = Some(content_length(value)?),
            Fate::Host if host => return None,
            Fate::Host => host = true,
            Fate::HopByHop | Fate::TransferEncoding | Fate::Connection => return None,
            Fate::Mesh if toward.is_told(name) => {}
            Fate::Mesh => continue,
            Fate::Forward | Fate::Upgrade | Fate::Te => {}
        }
        put_line(name, value, out);
    }
    Some(length)
}

fn put_line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::neutral::put_field;

    const POST: Request<'static> = Request {
        version: Version::Http11,
        upgrade: false,
        method: "POST",
        target: "/",
    };

    fn write(fields: &[(&str, &str)], has_body: bool) -> Result<(Framing, String), Reason> {
        let mut bytes = Vec::new();
        for (name, value) in fields {
            put_field(&mut bytes, name.as_bytes(), value.as_bytes());
        }
        let mut out = Vec::new();
        let framing = request(
            &POST,
            Fields::check(&bytes).expect("valid"),
            has_body,
            &mut out,
        )?;
        Ok((framing, String::from_utf8(out).expect("text")))
    }

    #[test]
    fn a_hostile_peer_cannot_smuggle() {
        for fields in [
            &[("content-length", "1"), ("content-length", "1")][..],
            &[("content-length", "1"), ("Content-Length", "2")],
            &[("content-length", "1,1")],
            &[("transfer-encoding", "chunked")],
            &[("connection", "keep-alive")],
            &[("host", "a"), ("host", "b")],
        ] {
            assert_eq!(write(fields, true), Err(Reason::PeerProtocol), "{fields:?}");
        }
        assert_eq!(
            write(&[("content-length", "1")], false),
            Err(Reason::PeerProtocol),
            "announced, never sent"
        );
        let (mut framing, _) = write(&[("content-length", "3")], true).expect("valid");
        assert_eq!(
            framing.put(b"abcd", &mut Vec::new()),
            Err(Reason::PeerProtocol),
            "longer than announced"
        );
        assert_eq!(
            framing.end(None, &mut Vec::new()),
            Err(Reason::PeerProtocol),
            "shorter than announced"
        );
    }

    #[test]
    fn bodies_are_framed_as_the_head_says() {
        let (mut framing, text) = write(&[("Host", "a")], true).expect("valid");
        assert_eq!(
            text,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let mut out = Vec::new();
        framing.put(b"", &mut out).expect("fits");
        framing.put(&[b'x'; 17], &mut out).expect("fits");
        let mut trailers = Vec::new();
        put_field(&mut trailers, b"T", b"v");
        framing
            .end(Some(Fields::check(&trailers).expect("valid")), &mut out)
            .expect("ended");
        assert_eq!(out, b"11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\nT: v\r\n\r\n");
        let (framing, text) =
            write(&[("content-length", "0"), ("X-Ringmail-Peer", "me")], false).expect("valid");
        assert_eq!(
            (framing, text.as_str()),
            (
                Framing::None,
                "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
            )
        );
    }

    #[test]
    fn responses_fit_the_client() {
        let head = |status| Response {
            version: Version::Http11,
            upgrade: false,
            status,
            phrase: b"Fine",
        };
        let answer = Answer {
            version: Version::Http11,
            is_head: false,
            persistent: true,
        };
        let none = Fields::check(b"").expect("empty");
        let check = |status, has_body, answer, expected: &str| {
            let mut out = Vec::new();
            response(&head(status), none, has_body, answer, &mut out).expect("valid");
            assert_eq!(String::from_utf8(out).expect("text"), expected);
        };
        check(
            200,
            false,
            answer,
            "HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n",
        );
        check(
            200,
            true,
            answer,
            "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        check(204, false, answer, "HTTP/1.1 204 Fine\r\n\r\n");
        check(103, false, answer, "HTTP/1.1 103 Fine\r\n\r\n");
        check(
            200,
            false,
            Answer {
                is_head: true,
                ..answer
            },
            "HTTP/1.1 200 Fine\r\n\r\n",
        );
        let old = Answer {
            version: Version::Http10,
            ..answer
        };
        check(
            200,
            true,
            old,
            "HTTP/1.1 200 Fine\r\nConnection: close\r\n\r\n",
        );
        check(
            204,
            false,
            old,
            "HTTP/1.1 204 Fine\r\nConnection: keep-alive\r\n\r\n",
        );
        check(103, false, old, "");
        check(304, true, answer, "HTTP/1.1 304 Fine\r\n\r\n");
        let framing = response(&head(304), none, true, answer, &mut Vec::new());
        let mut framing = framing.expect("valid");
        let mut out = Vec::new();
        assert_eq!(framing.put(b"", &mut out), Ok(()), "an end of its own");
        assert_eq!(framing.put(b"x", &mut out), Err(Reason::PeerProtocol));
        assert_eq!(framing.end(None, &mut out), Ok(()));
        assert!(out.is_empty());
    }
}
