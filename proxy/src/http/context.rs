//! What lets people follow a request through the mesh.
//!
//! `x-request-id` is kept where a request has one, and made where our app sends one without. Trace context (W3C
//! `traceparent`, `tracestate`) crosses as it came where we make no span: who makes none must not change it. Where we make
//! one, it is the parent of whatever follows. Pure.

use super::neutral::{Fields, Request, put_field, request_has};
use crate::records::trace::{Span, TRACEPARENT, TRACESTATE};

/// By which logs of all that a request passes can be joined.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// Gives a request's head, in neutral form, an id if it has none: a UUID of version 4 (RFC 9562 section 5.4).
pub(crate) fn identify(head: &mut Vec<u8>, roll: impl Fn() -> u64) {
    if request_has(head, REQUEST_ID) {
        return;
    }
    put_field(head, REQUEST_ID.as_bytes(), &uuid(roll(), roll()));
}

/// Puts our span in place of the one that asked, in the head of a request of our app's, in neutral form.
pub(crate) fn go_on(head: &mut Vec<u8>, span: &Span) {
    if let Some(came) = Request::of_ours(head) {
        *head = gone_on(came, span);
    }
}

/// A request's head with our span in place of the one that asked. What a trace that begins here finds of another is no
/// part of it.
pub(crate) fn gone_on((request, fields): (Request<'_>, Fields<'_>), span: &Span) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    request.encode(&mut head);
    for (name, value) in fields {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let is_old = is(TRACEPARENT) || is(TRACESTATE) && span.parent.is_none();
        if !is_old {
            put_field(&mut head, name, value);
        }
    }
    let parent = span.traceparent();
    put_field(&mut head, TRACEPARENT.as_bytes(), parent.as_bytes());
    head
}

fn uuid(high: u64, low: u64) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = u128::from(high) << 64 | u128::from(low);
    let version = 0x4_u128 << 76;
    let variant = 0b10_u128 << 62;
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | version | variant;
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    for (place, byte) in places.zip(
        bits.to_be_bytes()
            .into_iter()
            .flat_map(|b| [b >> 4, b & 15]),
    ) {
        text[place] = DIGITS[usize::from(byte)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::neutral::{Request, Version};

    fn head(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut head = Vec::new();
        Request {
            version: Version::Http11,
            upgrade: false,
            method: "GET",
            target: "/",
        }
        .encode(&mut head);
        for (name, value) in fields {
            put_field(&mut head, name.as_bytes(), value.as_bytes());
        }
        head
    }

    #[test]
    fn made_where_there_is_none_and_kept_where_there_is() {
        let known = head(&[("Host", "a"), ("X-Request-ID", "mine")]);
        let mut kept = known.clone();
        identify(&mut kept, || 0);
        assert_eq!(kept, known);

        let mut made = head(&[("Host", "a"), ("traceparent", "00-1-2-01")]);
        identify(&mut made, || u64::MAX);
        let (_, fields) = Request::decode(&made).expect("valid");
        let id = fields.first(REQUEST_ID).expect("made");
        assert_eq!(id, b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(fields.first("traceparent"), Some(&b"00-1-2-01"[..]));
    }
}
