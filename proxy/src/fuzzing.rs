//! Doors for fuzzers (`tests/fuzz`): bytes in, and a panic if what must always hold does not. Not part of the proxy.

use std::borrow::Cow;

use crate::detect::client_hello::{Hello, client_hello};
use crate::detect::{Verdict, detect};
use crate::http::fields::{Fate, fate};
use crate::http::h1::body::Body;
use crate::http::h1::{parse, write};
use crate::http::h2;
use crate::http::h2::heads::{self, Blocks, Tunnel};
use crate::http::neutral::{Fields, Request, Response, put_field};
use crate::http::target;
use crate::peer::frame::{self, Decoder};
use crate::peer::open::Open;

/// Prefixes of an input that are looked at one by one.
const PREFIXES_MAX: usize = 256;

/// A verdict stands, whatever follows and however the bytes arrive. So does a ClientHello.
pub fn detection(bytes: &[u8]) {
    let hello = (1..=bytes.len().min(PREFIXES_MAX))
        .map(|n| client_hello(&bytes[..n]))
        .find(|hello| *hello != Hello::More);
    if let Some(hello) = hello {
        assert_eq!(client_hello(bytes), hello, "the hello changed");
    }
    let first = (1..=bytes.len().min(PREFIXES_MAX))
        .map(|n| detect(&bytes[..n]))
        .find(|verdict| *verdict != Verdict::More);
    if let Some(first) = first {
        assert_eq!(detect(bytes), first, "the verdict changed");
    }
}

/// A request head that is taken is one to every reader: it crosses, and comes out as the same head.
pub fn request_head(bytes: &[u8]) {
    let mut neutral = Vec::new();
    let Ok(Some(head)) = parse::request(bytes, &mut neutral) else {
        return;
    };
    let mut alone = Vec::new();
    let same = parse::request(&bytes[..head.bytes], &mut alone);
    assert_eq!(
        (same.ok(), &alone),
        (Some(Some(head)), &neutral),
        "what follows matters"
    );
    let (request, fields) = Request::decode(&neutral).expect("what we make is in neutral form");
    assert_eq!(
        (request.upgrade, request.version),
        (head.upgrade, head.version)
    );
    assert_lines(
        &[request.method.as_bytes(), request.target.as_bytes()],
        fields,
    );
    assert_hop(fields, request.upgrade);
    let mut text = Vec::new();
    // Chunks to an app of HTTP/1.0, say, are refused at the end only.
    if write::request(&request, fields, !head.body.is_over(), &mut text).is_err() {
        return;
    }
    let mut again = Vec::new();
    let read = parse::request(&text, &mut again);
    let read = read.expect("what we write is well-formed");
    let read = read.expect("what we write is whole");
    assert_eq!(read.bytes, text.len(), "something is behind the head");
    assert_eq!((read.body, read.upgrade), (head.body, head.upgrade));
    assert_eq!(again, neutral, "it reads otherwise");
}

/// The same for the head of a response; its first byte says what was asked.
pub fn response_head(bytes: &[u8]) {
    let Some((flags, bytes)) = bytes.split_first() else {
        return;
    };
    let asked = parse::Asked {
        is_head: flags & 1 != 0,
        is_connect: flags & 2 != 0,
        upgrade: flags & 4 != 0,
    };
    let mut neutral = Vec::new();
    let Ok(Some(head)) = parse::response(bytes, asked, &mut neutral) else {
        return;
    };
    let mut alone = Vec::new();
    let same = parse::response(&bytes[..head.bytes], asked, &mut alone);
    assert_eq!(
        (same.ok(), &alone),
        (Some(Some(head)), &neutral),
        "what follows matters"
    );
    let (response, fields) = Response::decode(&neutral).expect("what we make is in neutral form");
    assert_eq!(
        (response.upgrade, response.status),
        (head.upgrade, head.status)
    );
    assert_lines(&[response.phrase], fields);
    assert_hop(fields, response.upgrade);
    let answer = write::Answer {
        version: crate::http::neutral::Version::Http11,
        is_head: asked.is_head,
        persistent: true,
    };
    let mut text = Vec::new();
    if write::response(&response, fields, !head.body.is_over(), answer, &mut text).is_err() {
        return;
    }
    let read = parse::response(&text, asked, &mut Vec::new());
    let read = read.expect("what we write is well-formed");
    let read = read.expect("what we write is whole");
    assert_eq!((read.bytes, read.status), (text.len(), head.status));
}

/// Chunks decode to the same body in whatever portions they come; its first byte is their length.
pub fn chunked_body(bytes: &[u8]) {
    let Some((portion, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = decoded(bytes, bytes.len().max(1));
    let portions = decoded(bytes, usize::from(*portion).max(1));
    // Cut off, a body may have been malformed further on.
    if let (Some(whole), Some(portions)) = (&whole, &portions) {
        assert_eq!(whole, portions, "portions matter");
    }
    let Some(Decoded { data, trailers, .. }) = whole else {
        return;
    };
    assert!(data.len() <= bytes.len(), "a body out of nothing");
    let fields = Fields::check(&trailers).expect("what we make is in neutral form");
    assert_lines(&[], fields);
    let mut text = Vec::new();
    let mut framing = write::Framing::Chunked;
    framing.put(&data, &mut text).expect("chunks have no limit");
    framing
        .end(Some(fields), &mut text)
        .expect("chunks may end");
    let again = decoded(&text, text.len()).expect("what we write is well-formed");
    assert_eq!(
        (&again.data, &again.trailers, again.left),
        (&data, &trailers, 0)
    );
}

/// A whole body.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    trailers: Vec<u8>,
    /// Bytes behind it.
    left: usize,
}

fn decoded(bytes: &[u8], portion: usize) -> Option<Decoded> {
    let mut body = Body::chunked();
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    let (mut done, mut there) = (0, 0);
    while !body.is_over() {
        let piece = body.decode(&bytes[done..there], &mut trailers).ok()?;
        data.extend_from_slice(piece.data);
        done += piece.used;
        if piece.used == 0 && !body.is_over() {
            if there == bytes.len() {
                return None;
            }
            there = bytes.len().min(there + portion);
        }
    }
    Some(Decoded {
        data,
        trailers,
        left: bytes.len() - done,
    })
}

/// The normal form of a normal form is itself, and no other reader would change it.
pub fn normal_form(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        for normal in [target::origin(text), target::authority(text)]
            .into_iter()
            .flatten()
        {
            assert!(normal.is_ascii(), "{normal:?}");
            assert_eq!(
                normal.find(|c: char| c <= ' ' || c == '#' || c == '\x7f'),
                None
            );
        }
        if let Ok(normal) = target::origin(text) {
            assert!(
                matches!(target::origin(&normal), Ok(Cow::Borrowed(_))),
                "{normal:?}"
            );
            let path = normal.split('?').next().unwrap_or_default();
            let mut segments = path.split('/').skip(1);
            assert!(path.starts_with('/') && !path.contains("//"), "{normal:?}");
            assert!(
                segments.all(|segment| segment != "." && segment != ".."),
                "{normal:?}"
            );
        }
        if let Ok(normal) = target::authority(text) {
            assert!(target::is_normal("CONNECT", &normal), "{normal:?}");
        }
    }
    if let Ok(normal) = target::host(bytes) {
        assert!(target::is_normal_host(normal.as_bytes()), "{normal:?}");
    }
}

/// Frames are the same in whatever portions they come, and each is what it was made of; its first byte is their length.
pub fn peer_frames(bytes: &[u8]) {
    let Some((portion, bytes)) = bytes.split_first() else {
        return;
    };
    let mut whole = Vec::new();
    let ended = Decoder::default().decode(bytes, &mut |one| {
        let put = frame::put(&mut whole, one.stream, one.kind, one.end, |out| {
            out.extend_from_slice(one.payload);
        });
        assert!(put.is_ok(), "what was decoded is too large");
        let _ = Open::decode(one.payload).map(|open| {
            let mut again = Vec::new();
            open.encode(&mut again);
            assert_eq!(again, one.payload, "another opening");
        });
    });
    // The last frame of DATA may have come in part: its header says more than there is.
    let complete = complete_frames(&bytes[..whole.len().min(bytes.len())]);
    assert_eq!(bytes[..complete], whole[..complete], "another frame");
    let mut decoder = Decoder::default();
    let mut payload = Vec::new();
    let portions = bytes.chunks(usize::from(*portion).max(1));
    let in_portions = portions
        .map(|portion| decoder.decode(portion, &mut |one| payload.extend_from_slice(one.payload)))
        .find(Result::is_err)
        .unwrap_or(Ok(()));
    assert_eq!(in_portions, ended, "portions matter");
    let mut at_once = Vec::new();
    let _ = Decoder::default().decode(bytes, &mut |one| at_once.extend_from_slice(one.payload));
    assert_eq!(payload, at_once, "portions matter");
}

/// Two blocks of one connection of HTTP/2: what is taken is in neutral form, and as a block of ours says the same. The
/// first byte says of what, the second how long the first one is.
pub fn h2_blocks(bytes: &[u8]) {
    let Some((&[kind, length], bytes)) = bytes.split_first_chunk() else {
        return;
    };
    let (first, second) = bytes.split_at(bytes.len().min(length.into()));
    let mut blocks = Blocks::default();
    for block in [first, second] {
        let taken = match kind {
            0 => h2_request(&mut blocks, block),
            1 => h2_response(&mut blocks, block),
            _ => h2_trailers(&mut blocks, block),
        };
        if taken.is_none() {
            return;
        }
    }
}

/// None when the connection is of no more use.
fn h2_request(blocks: &mut Blocks, block: &[u8]) -> Option<()> {
    let Ok(taken) = blocks.request(block).ok()? else {
        return Some(());
    };
    if taken.refused.is_some() {
        return Some(());
    }
    let (request, fields) =
        Request::decode(&taken.neutral).expect("what we make is in neutral form");
    assert_lines(
        &[request.method.as_bytes(), request.target.as_bytes()],
        fields,
    );
    assert_hop(fields, request.upgrade);
    let mut again = Vec::new();
    heads::put_request(&request, fields, &taken.tunnel, &mut again).expect("it came as one");
    let again = Blocks::default().request(&again);
    let again = again.expect("what we write").expect("is well-formed");
    if let Tunnel::None | Tunnel::Connect = taken.tunnel {
        let (same, again) =
            Request::decode(&again.neutral).expect("what we make is in neutral form");
        // A host that was no authority had its place among the others.
        let but_host = |fields: Fields<'_>| -> Vec<(Vec<u8>, Vec<u8>)> {
            let others = fields.into_iter().filter(|(name, _)| *name != b"host");
            others
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect()
        };
        assert_eq!(same, request, "it reads otherwise");
        assert_eq!(again.first("host"), fields.first("host"));
        assert_eq!(but_host(again), but_host(fields), "it reads otherwise");
    }
    Some(())
}

fn h2_response(blocks: &mut Blocks, block: &[u8]) -> Option<()> {
    let mut neutral = Vec::new();
    if blocks.response(block, &mut neutral).ok()?.is_err() {
        return Some(());
    }
    let (response, fields) = Response::decode(&neutral).expect("what we make is in neutral form");
    assert_lines(&[response.phrase], fields);
    assert_hop(fields, false);
    let (mut again, mut block) = (Vec::new(), Vec::new());
    heads::put_response(response.status, fields, &Tunnel::None, &mut block)
        .expect("it came as one");
    let taken = Blocks::default().response(&block, &mut again);
    assert!(taken.expect("what we write").is_ok(), "it is malformed");
    assert_eq!(again, neutral, "it reads otherwise");
    Some(())
}

fn h2_trailers(blocks: &mut Blocks, block: &[u8]) -> Option<()> {
    let mut neutral = Vec::new();
    if blocks.trailers(block, &mut neutral).ok()?.is_ok() {
        let fields = Fields::check(&neutral).expect("what we make is in neutral form");
        assert_lines(&[], fields);
        assert_hop(fields, false);
    }
    Some(())
}

/// Frames of a client or of a server, to the other side, which answers some: whatever they are, it holds no more of them
/// than it said.
pub fn h2_frames(bytes: &[u8]) {
    h2::fuzzing::frames(bytes);
}

/// Bytes of the whole frames at the front.
fn complete_frames(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&[high, middle, low]) = bytes[at..].get(5..8).and_then(<[u8]>::first_chunk) {
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if bytes.len() < at + frame::HEADER_BYTES + length {
            break;
        }
        at += frame::HEADER_BYTES + length;
    }
    at
}

/// A head of a peer that is taken can be written as HTTP/1, and is one head there; the first byte says of what.
pub fn neutral_form(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, bytes)) => neutral_request(bytes),
        Some((1, bytes)) => neutral_response(bytes),
        Some((_, bytes)) => {
            if let Ok(fields) = Fields::check(bytes) {
                assert_lines(&[], fields);
                assert_fields_survive(fields);
            }
        }
        None => {}
    }
}

fn neutral_request(bytes: &[u8]) {
    let Ok((request, fields)) = Request::decode(bytes) else {
        return;
    };
    let mut again = Vec::new();
    request.encode(&mut again);
    assert_eq!(Request::decode(&again).map(|found| found.0), Ok(request));
    assert_fields_survive(fields);
    assert_lines(
        &[request.method.as_bytes(), request.target.as_bytes()],
        fields,
    );
    for has_body in [true, false] {
        let mut text = Vec::new();
        let Ok(framing) = write::request(&request, fields, has_body, &mut text) else {
            continue;
        };
        assert_one_head(&text);
        let Ok(Some(read)) = parse::request(&text, &mut Vec::new()) else {
            // It may have no host, or too many fields: then the app hears what is no request.
            continue;
        };
        assert_eq!(read.bytes, text.len(), "something is behind the head");
        let body = match framing {
            write::Framing::None | write::Framing::Raw => Body::None,
            write::Framing::Length(length) => Body::length(length),
            write::Framing::Chunked => Body::chunked(),
        };
        assert_eq!(read.body, body, "another body");
    }
}

fn neutral_response(bytes: &[u8]) {
    let Ok((response, fields)) = Response::decode(bytes) else {
        return;
    };
    let mut again = Vec::new();
    response.encode(&mut again);
    assert_eq!(Response::decode(&again).map(|found| found.0), Ok(response));
    assert_fields_survive(fields);
    assert_lines(&[response.phrase], fields);
    for (has_body, is_head) in [(true, false), (false, false), (false, true)] {
        let answer = write::Answer {
            version: crate::http::neutral::Version::Http11,
            is_head,
            persistent: true,
        };
        let mut text = Vec::new();
        if write::response(&response, fields, has_body, answer, &mut text).is_ok() {
            assert_one_head(&text);
        }
    }
}

/// The only empty line is the last.
fn assert_one_head(text: &[u8]) {
    let end = text.windows(4).position(|four| four == b"\r\n\r\n");
    assert_eq!(end, Some(text.len() - 4), "more than one head");
}

fn assert_fields_survive(fields: Fields<'_>) {
    let mut again = Vec::new();
    for (name, value) in fields {
        put_field(&mut again, name, value);
    }
    let survived = Fields::check(&again).expect("what we make is in neutral form");
    assert!(fields.into_iter().eq(survived), "other fields");
}

/// Nothing that ends a line, a name or a string in some language.
fn assert_lines(parts: &[&[u8]], fields: Fields<'_>) {
    let ends = |part: &[u8]| part.iter().any(|b| b"\r\n\0".contains(b));
    assert!(!parts.iter().any(|part| ends(part)), "{parts:?}");
    for (name, value) in fields {
        assert!(
            !ends(name) && !ends(value) && !name.is_empty(),
            "{name:?}: {value:?}"
        );
        assert!(!name.iter().any(|b| b": \t".contains(b)), "{name:?}");
    }
}

/// Nothing of the connection it came on.
fn assert_hop(fields: Fields<'_>, upgrade: bool) {
    for (name, value) in fields {
        let crosses = match fate(name) {
            Fate::Forward | Fate::ContentLength | Fate::Host => true,
            Fate::Upgrade => upgrade,
            Fate::Te => value == b"trailers",
            Fate::HopByHop | Fate::TransferEncoding | Fate::Connection | Fate::Mesh => false,
        };
        assert!(crosses, "{name:?} crossed");
    }
}

#[cfg(test)]
mod tests;
