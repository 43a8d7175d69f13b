//! A client that comes in HTTP/1.1 and would rather go on in HTTP/2 (RFC 7540 section 3.2; RFC 9113 no longer asks for
//! it). What it asked becomes the first lane; its settings came with it. Pure, but for the lanes.

use std::rc::Rc;

use super::lanes::{Lanes, Side};

/// What we say when we take up an offer.
pub(super) const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n";

/// A client's request in HTTP/1.1, and the connection of HTTP/2 that it is to be answered on.
#[derive(Debug)]
pub(crate) struct Upgraded {
    /// The request's head in neutral form. It has no body.
    pub(crate) neutral: Vec<u8>,
    pub(crate) lanes: Offer,
}

/// A connection on which the client's settings are known.
#[derive(Debug)]
pub(crate) struct Offer(pub(super) Rc<Lanes>);

/// What the value of `HTTP2-Settings` offers; none when it is not as it should be: an offer may be ignored.
pub(crate) fn offer(value: &[u8]) -> Option<Offer> {
    let payload = base64url(value)?;
    let lanes = Lanes::new(Side::Server);
    lanes.assume(&payload).ok()?;
    Some(Offer(lanes))
}

/// RFC 4648 section 5, without padding.
fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for character in text {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count).to_le_bytes()[0]);
            bits &= (1 << count) - 1;
        }
    }
    // What is left is less than a byte, and nothing.
    (count < 6 && bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_in_text() {
        assert_eq!(base64url(b""), Some(vec![]));
        // RFC 7540 does not give an example; this is SETTINGS_MAX_CONCURRENT_STREAMS = 100, as curl says it.
        assert_eq!(base64url(b"AAMAAABk"), Some(vec![0, 3, 0, 0, 0, 100]));
        assert_eq!(base64url(b"-_8"), Some(vec![0xfb, 0xff]));
        for text in ["A", "AAMAAAB", "AA==", "AA+/", "AA AA", "-_9"] {
            assert_eq!(base64url(text.as_bytes()), None, "{text}");
        }
        assert!(offer(b"AAMAAABk").is_some() && offer(b"").is_some());
        // Not whole settings, and a window that no window may be.
        assert!(offer(b"AAMAAAB").is_none() && offer(b"AAQ").is_none());
        assert!(offer(b"AAT_____").is_none());
    }
}
