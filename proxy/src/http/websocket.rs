//! WebSocket, which crosses the mesh in the shape it has in HTTP/1 (RFC 6455): a GET with `Upgrade: websocket`, and a
//! 101. Where one side speaks HTTP/2 (RFC 8441), its edge makes and checks the key that the other shape has. Pure.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::fields::list;
use super::neutral::Fields;

/// The protocol's name in `Upgrade` and in `:protocol`.
pub(crate) const NAME: &str = "websocket";
/// RFC 6455 section 11.3.1: what the client says once, to hear [`accept`] of it.
pub(crate) const KEY: &str = "sec-websocket-key";
/// RFC 6455 section 11.3.3.
pub(crate) const ACCEPT: &str = "sec-websocket-accept";
/// RFC 6455 section 1.3.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether the fields offer it.
pub(crate) fn is_offered(fields: Fields<'_>) -> bool {
    fields
        .first("upgrade")
        .is_some_and(|protocols| list(protocols).any(|p| p.eq_ignore_ascii_case(NAME.as_bytes())))
}

/// A key of 16 bytes that nobody could foresee.
pub(crate) fn key(random: [u8; 16]) -> String {
    base64(&random)
}

/// What a server makes of a key.
pub(crate) fn accept(key: &[u8]) -> String {
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC].concat()).as_ref())
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for digit in 0..4 {
            text.push(match digit > group.len() {
                true => '=',
                false => char::from(DIGITS[bits >> (18 - 6 * digit) & 63]),
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standards() {
        // RFC 6455 section 1.3.
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        // RFC 4648 section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(key([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA==");
    }
}
