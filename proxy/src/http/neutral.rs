//! The neutral form of message heads and trailers: what crosses between two proxies instead of HTTP/1 text or HPACK.
//!
//! Field sections are as in RFC 9292 (binary HTTP) section 3.6: each name and value behind its length, a variable
//! length integer of RFC 9000 section 16. Names keep their case and fields their order, for HTTP/1 on both sides.
//! The authority travels as the `Host` field and nowhere else, so there are no two that could differ.
//!
//! ```text
//! request:  version: u8 | flags: u8 | method | target | fields
//! response: version: u8 | flags: u8 | status: u16 | reason phrase | fields
//! trailers: fields
//! ```
//!
//! The sender is another proxy of the mesh, which may be hostile: decoding checks that no part holds a byte that could
//! end a line or a field in HTTP/1, and that target and host are in the normal form of `target`. Limit: [`FIELDS_MAX`].

use super::target;
use crate::records::Asked;

/// Fields of one head.
pub(crate) const FIELDS_MAX: usize = 128;
/// Fields that proxies and routes may add to it on its way.
const FIELDS_ADDED_MAX: usize = 256;

/// The HTTP version a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Http10 = 10,
    Http11 = 11,
    Http2 = 20,
}

/// Set in `flags` when the connection is to become something else (a request with `Upgrade`, a 101 response).
const UPGRADE: u8 = 1;

/// A request's head, but for its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) version: Version,
    pub(crate) upgrade: bool,
    pub(crate) method: &'a str,
    /// Origin form, asterisk form, or the authority of a CONNECT.
    pub(crate) target: &'a str,
}

/// A response's head, but for its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) version: Version,
    pub(crate) upgrade: bool,
    pub(crate) status: u16,
    pub(crate) phrase: &'a [u8],
}

/// A field section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fields<'a>(&'a [u8]);

/// The bytes are no head in neutral form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message head is not in neutral form: {0}")]
pub(crate) struct Malformed(&'static str);

impl<'a> Request<'a> {
    /// Whether it may be sent twice (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        )
    }

    /// A head that we made ourselves, which needs no check.
    pub(crate) fn of_ours(mut bytes: &'a [u8]) -> Option<(Self, Fields<'a>)> {
        let (version, upgrade) = take_preamble(&mut bytes).ok()?;
        let method = std::str::from_utf8(take_string(&mut bytes).ok()?).ok()?;
        let target = std::str::from_utf8(take_string(&mut bytes).ok()?).ok()?;
        let request = Self {
            version,
            upgrade,
            method,
            target,
        };
        Some((request, Fields(bytes)))
    }

    /// As records tell it.
    pub(crate) fn asked(self, fields: Fields<'a>) -> Asked<'a, Fields<'a>> {
        Asked {
            version: match self.version {
                Version::Http10 => "1.0",
                Version::Http11 => "1.1",
                Version::Http2 => "2",
            },
            method: self.method,
            target: self.target,
            fields,
        }
    }

    /// Appends the head; fields follow by [`put_field`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.version as u8, u8::from(self.upgrade) * UPGRADE]);
        put_string(out, self.method.as_bytes());
        put_string(out, self.target.as_bytes());
    }

    pub(crate) fn decode(mut bytes: &'a [u8]) -> Result<(Self, Fields<'a>), Malformed> {
        let (version, upgrade) = take_preamble(&mut bytes)?;
        let method = take_string(&mut bytes)?;
        let target = take_string(&mut bytes)?;
        if method.is_empty() || !method.iter().all(|b| is_token(*b)) {
            return Err(Malformed("method is no token"));
        }
        let ascii = |part| std::str::from_utf8(part).map_err(|_| Malformed("is not ASCII"));
        let (method, target) = (ascii(method)?, ascii(target)?);
        if !target::is_normal(method, target) {
            return Err(Malformed("target is not in normal form"));
        }
        let fields = Fields::check(bytes)?;
        if !fields.first("host").is_none_or(target::is_normal_host) {
            return Err(Malformed("host is not in normal form"));
        }
        let request = Self {
            version,
            upgrade,
            method,
            target,
        };
        Ok((request, fields))
    }
}

impl<'a> Response<'a> {
    /// Appends the head; fields follow by [`put_field`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.version as u8, u8::from(self.upgrade) * UPGRADE]);
        out.extend_from_slice(&self.status.to_be_bytes());
        put_string(out, self.phrase);
    }

    /// The status of a head that may yet turn out to be malformed.
    pub(crate) fn status_of(head: &[u8]) -> Option<u16> {
        let &[_, _, high, low] = head.first_chunk()?;
        Some(u16::from_be_bytes([high, low]))
    }

    pub(crate) fn decode(mut bytes: &'a [u8]) -> Result<(Self, Fields<'a>), Malformed> {
        let (version, upgrade) = take_preamble(&mut bytes)?;
        let (&[high, low], mut bytes) = bytes
            .split_first_chunk()
            .ok_or(Malformed("ends in its status"))?;
        let status = u16::from_be_bytes([high, low]);
        let phrase = take_string(&mut bytes)?;
        if !(100..1000).contains(&status) {
            return Err(Malformed("status has not three digits"));
        }
        if !is_value(phrase) {
            return Err(Malformed("reason phrase has a control byte"));
        }
        Ok((
            Self {
                version,
                upgrade,
                status,
                phrase,
            },
            Fields::check(bytes)?,
        ))
    }
}

/// Appends a field.
pub(crate) fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put_string(out, name);
    put_string(out, value);
}

impl<'a> Fields<'a> {
    /// There are none.
    pub(crate) const NONE: Fields<'static> = Fields(&[]);

    /// A field section from the wire, every field of which can be written as HTTP/1.
    pub(crate) fn check(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        let mut count = 0;
        while !rest.is_empty() {
            let name = take_string(&mut rest)?;
            let value = take_string(&mut rest)?;
            count += 1;
            if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
                return Err(Malformed("a field name is no token"));
            }
            if !is_value(value) {
                return Err(Malformed("a field value has a control byte"));
            }
        }
        if count > FIELDS_MAX + FIELDS_ADDED_MAX {
            return Err(Malformed("there are more than 384 fields"));
        }
        Ok(Self(bytes))
    }

    /// The value of the first field called `name`.
    pub(crate) fn first(self, name: &str) -> Option<&'a [u8]> {
        self.into_iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = FieldsIter<'a>;

    fn into_iter(self) -> FieldsIter<'a> {
        FieldsIter(self.0)
    }
}

/// Fields in order, as name and value.
#[derive(Debug)]
pub(crate) struct FieldsIter<'a>(&'a [u8]);

impl<'a> Iterator for FieldsIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // The section was checked when it was made; its end is the only error left.
        Some((
            take_string(&mut self.0).ok()?,
            take_string(&mut self.0).ok()?,
        ))
    }
}

/// Whether a request's head that we made has a field called `name`.
pub(crate) fn request_has(head: &[u8], name: &str) -> bool {
    let mut rest = head.get(2..).unwrap_or_default();
    let line = take_string(&mut rest).and_then(|_| take_string(&mut rest));
    line.is_ok() && Fields(rest).first(name).is_some()
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 section 5.5: visible, obs-text, space and tab; so nothing that ends a line.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    // A fold without early exit is one the compiler turns into vector instructions.
    !bytes.iter().fold(false, |bad, b| {
        bad | (*b < 0x20) & (*b != b'\t') | (*b == 0x7f)
    })
}

fn take_preamble(bytes: &mut &[u8]) -> Result<(Version, bool), Malformed> {
    let (&[version, flags], rest) = bytes
        .split_first_chunk()
        .ok_or(Malformed("ends in its first bytes"))?;
    *bytes = rest;
    let version = match version {
        10 => Version::Http10,
        11 => Version::Http11,
        20 => Version::Http2,
        _ => return Err(Malformed("its version is unknown")),
    };
    if flags & !UPGRADE != 0 {
        return Err(Malformed("a flag is unknown"));
    }
    Ok((version, flags & UPGRADE != 0))
}

fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    let length = string.len();
    debug_assert!(length < 1 << 30, "heads are bounded far below");
    match u16::try_from(length) {
        Ok(short @ 0..0x40) => out.push(short.to_be_bytes()[1]),
        Ok(medium @ 0x40..0x4000) => out.extend_from_slice(&(medium | 0x4000).to_be_bytes()),
        _ => {
            let long = u32::try_from(length).unwrap_or(u32::MAX) | 0x8000_0000;
            out.extend_from_slice(&long.to_be_bytes());
        }
    }
    out.extend_from_slice(string);
}

fn take_string<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let short = |n: &[u8]| n.iter().fold(0, |sum: usize, b| sum << 8 | usize::from(*b));
    let first = *bytes.first().ok_or(Malformed("ends in a length"))?;
    let (width, mask) = match first >> 6 {
        0 => (1, 0x3f),
        1 => (2, 0x3fff),
        2 => (4, 0x3fff_ffff),
        _ => return Err(Malformed("a length takes eight bytes")),
    };
    let (length, rest) = bytes
        .split_at_checked(width)
        .ok_or(Malformed("ends in a length"))?;
    let (string, rest) = rest
        .split_at_checked(short(length) & mask)
        .ok_or(Malformed("ends in a string"))?;
    *bytes = rest;
    Ok(string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(request: &Request<'_>, fields: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        for (name, value) in fields {
            put_field(&mut bytes, name, value);
        }
        bytes
    }

    const GET: Request<'static> = Request {
        version: Version::Http11,
        upgrade: false,
        method: "GET",
        target: "/",
    };

    #[test]
    fn case_order_and_repetition_survive() {
        let fields: [(&[u8], &[u8]); 4] = [
            (b"X-b", b"1"),
            (b"HOST", b"shop"),
            (b"x-B", b"\x80 \t2"),
            (b"empty", b""),
        ];
        let long = "/a".repeat(35_000);
        for target in ["/", &"/a".repeat(32), &long] {
            let request = Request { target, ..GET };
            let bytes = encode(&request, &fields);
            let (decoded, section) = Request::decode(&bytes).expect("valid");
            assert_eq!(decoded, request);
            assert!(section.into_iter().eq(fields));
        }
    }

    #[test]
    fn nothing_that_could_end_a_line_gets_through() {
        let check = |name: &[u8], value: &[u8]| {
            Request::decode(&encode(&GET, &[(name, value)])).map(|_| ())
        };
        assert_eq!(check(b"a", b"b"), Ok(()));
        for value in [&b"a\r\nb: c"[..], b"a\n", b"\0", b"\x7f", b"\x1b"] {
            assert!(check(b"a", value).is_err(), "{value:?}");
        }
        for name in [&b""[..], b"a b", b"a:", b"a\r\n", b"\xc3\xa4"] {
            assert!(check(name, b"b").is_err(), "{name:?}");
        }
        for target in [
            "", "/a b", "/\r\n", "/\u{e4}", "*", "a", "//", "/../a", "/%2e", "/a%2Fb", "/#",
        ] {
            assert!(
                Request::decode(&encode(&Request { target, ..GET }, &[])).is_err(),
                "{target:?}"
            );
        }
        for host in [&b""[..], b"Shop", b"shop.", b"u@shop", b"a, b"] {
            assert!(check(b"host", host).is_err(), "{host:?}");
        }
        assert!(
            Request::decode(&encode(
                &Request {
                    method: "G T",
                    ..GET
                },
                &[]
            ))
            .is_err()
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Request::decode(&bytes);
            let _ = Response::decode(&bytes);
            let _ = Fields::check(&bytes);
        }

        #[test]
        fn every_cut_is_noticed_or_harmless(cut in 0_usize..40) {
            let bytes = encode(&GET, &[(b"host", b"shop.example"), (b"accept", b"*/*")]);
            let cut = cut.min(bytes.len());
            if let Ok((request, fields)) = Request::decode(&bytes[..cut]) {
                prop_assert_eq!(request, GET);
                prop_assert!(fields.into_iter().count() <= 2);
            }
        }
    }
}
