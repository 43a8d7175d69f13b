//! What `benches/micro` counts the instructions of: decisions and codecs that are private to the proxy, behind names of
//! their own. Nothing is decided here; what goes wrong is `None` or nothing. Only there with the feature `bench`.

use ringmail_proto::destination::Service;

use crate::detect::{self, Verdict};
use crate::http::h1::{body::Body, parse, write};
use crate::http::h2::heads::{self, Blocks, Tunnel};
use crate::http::neutral::{Request, Response, Version};
use crate::http::route::{Routed, route};
use crate::peer::frame::{self, Decoder, Kind};
use crate::upstream::balance::{self, Field, Standing};

/// Whether these first bytes are taken for HTTP/1.
pub fn is_http1(bytes: &[u8]) -> bool {
    detect::detect(bytes) == Verdict::Http1
}

/// A request's text to neutral form, appended to `out`.
pub fn h1_request(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    parse::request(text, out).ok()?.map(|_| ())
}

/// A response's text to neutral form, appended to `out`.
pub fn h1_response(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let asked = parse::Asked {
        is_head: false,
        is_connect: false,
        upgrade: false,
    };
    parse::response(text, asked, out).ok()?.map(|_| ())
}

/// A request in neutral form to text, appended to `out`.
pub fn h1_request_text(neutral: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (request, fields) = Request::decode(neutral).ok()?;
    write::request(&request, fields, false, out).ok()?;
    Some(())
}

/// A response in neutral form, whose body follows, to text, appended to `out`.
pub fn h1_response_text(neutral: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (response, fields) = Response::decode(neutral).ok()?;
    let answer = write::Answer {
        version: Version::Http11,
        is_head: false,
        persistent: true,
    };
    write::response(&response, fields, true, answer, out).ok()?;
    Some(())
}

/// What one direction of a connection of HTTP/2 knows of fields.
#[derive(Debug, Default)]
pub struct H2Blocks(Blocks);

impl H2Blocks {
    /// A request's block to neutral form.
    pub fn request(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        let request = self.0.request(block).ok()?.ok()?;
        request.refused.is_none().then_some(request.neutral)
    }

    /// A response's block to neutral form, appended to `out`.
    pub fn response(&mut self, block: &[u8], out: &mut Vec<u8>) -> Option<()> {
        self.0.response(block, out).ok()?.ok().map(drop)
    }
}

/// A request in neutral form to a block, appended to `out`.
pub fn h2_request_block(neutral: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (request, fields) = Request::decode(neutral).ok()?;
    heads::put_request(&request, fields, &Tunnel::None, out).ok()
}

/// A response in neutral form to a block, appended to `out`.
pub fn h2_response_block(neutral: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (response, fields) = Response::decode(neutral).ok()?;
    heads::put_response(response.status, fields, &Tunnel::None, out).ok()
}

/// The head that a request in neutral form goes on with.
pub fn routed(service: &Service, neutral: Vec<u8>, random: u32) -> Option<Vec<u8>> {
    match route(service, neutral, random).ok()? {
        Routed::Forward(forward) => Some(forward.head),
        Routed::Answer(_) => None,
    }
}

/// Appends a frame of DATA, if it is not too large for one.
pub fn put_data(out: &mut Vec<u8>, stream: u32, data: &[u8]) -> Option<()> {
    let put = frame::put(out, stream, Kind::Data, false, |out| {
        out.extend_from_slice(data);
    });
    put.ok().map(drop)
}

/// Bytes of payload in whole frames.
pub fn frames(bytes: &[u8]) -> Option<usize> {
    let mut payload = 0;
    let decoded = Decoder::default().decode(bytes, &mut |frame| payload += frame.payload.len());
    decoded.ok().map(|()| payload)
}

/// Appends a chunk to `out`.
pub fn put_chunk(data: &[u8], out: &mut Vec<u8>) -> Option<()> {
    write::Framing::Chunked.put(data, out).ok()
}

/// Bytes of a whole body in chunks.
pub fn chunks(mut text: &[u8]) -> Option<usize> {
    let (mut body, mut trailers, mut bytes) = (Body::chunked(), Vec::new(), 0);
    while !body.is_over() {
        let piece = body.decode(text, &mut trailers).ok()?;
        if piece.used == 0 {
            return None;
        }
        bytes += piece.data.len();
        text = &text[piece.used..];
    }
    Some(bytes)
}

/// Which of endpoints of such costs is asked.
pub fn picked(costs: &[f64], random: u64) -> Option<usize> {
    let standing = |index: usize| costs.get(index).copied().map(Standing::Open);
    balance::pick(&Field::even(costs.len()), random, standing).map(|picked| picked.index)
}
