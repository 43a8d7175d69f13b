//! Body framing as it arrives: length, chunks, or until close. Pure: bytes in, slices of them out.
//!
//! Limits: a chunk's size line has [`CHUNK_LINE_BYTES_MAX`] bytes, its size [`SIZE_DIGITS_MAX`] digits; a trailer section
//! has no more bytes ([`HEAD_BYTES`]) and fields than a head.

use httparse::{EMPTY_HEADER, Status};

use super::parse::has_bare_line_feed;
use crate::buffer::HEAD_BYTES;
use crate::http::fields::{Fate, fate};
use crate::http::neutral::{FIELDS_MAX, is_token, put_field};

/// A chunk's size line, extensions included.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Digits of a chunk's size: more would not fit into 64 bits together.
const SIZE_DIGITS_MAX: usize = 15;

/// How much body there is, and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing, or nothing more.
    None,
    /// So many bytes more.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// All that comes (responses only).
    UntilClose,
}

/// Where in the chunked coding we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// Before a size line.
    Size,
    /// In a chunk, with so many bytes to come.
    Data(u64),
    /// Before the line end behind a chunk.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
}

/// What was at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// How many bytes are done with. None of them: more are needed.
    pub(crate) used: usize,
    /// The body bytes among them.
    pub(crate) data: &'a [u8],
}

/// The bytes break this rule of RFC 9112.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

const SIZE: Malformed = Malformed("a chunk has no size in hexadecimal (RFC 9112 section 7.1)");
const EXTENSION: Malformed = Malformed("a chunk extension is malformed (RFC 9112 section 7.1.1)");
const LINE_END: Malformed =
    Malformed("a chunk's line does not end in CR LF (RFC 9112 section 7.1)");
const CHUNK_END: Malformed =
    Malformed("a chunk is not as long as its size says (RFC 9112 section 7.1)");
const TRAILER: Malformed = Malformed("a trailer is malformed (RFC 9112 section 7.1.2)");
const TRAILERS_TOO_LARGE: Malformed =
    Malformed("the trailers have more than 64 KiB (RFC 9110 section 5.4)");
const TRAILER_NAME: Malformed =
    Malformed("a trailer is about framing or routing (RFC 9110 section 6.5.1)");

impl Body {
    pub(crate) fn length(length: u64) -> Self {
        if length == 0 {
            Self::None
        } else {
            Self::Length(length)
        }
    }

    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunked::Size)
    }

    pub(crate) fn is_over(self) -> bool {
        self == Self::None
    }

    /// Takes one piece off `input`; trailers are appended to `trailers` in neutral form.
    pub(crate) fn decode<'a>(
        &mut self,
        input: &'a [u8],
        trailers: &mut Vec<u8>,
    ) -> Result<Piece<'a>, Malformed> {
        match self {
            Self::None => Ok(Piece { used: 0, data: &[] }),
            Self::UntilClose => Ok(Piece {
                used: input.len(),
                data: input,
            }),
            Self::Length(left) => {
                let data = front(input, *left);
                *self = Self::length(*left - data.len() as u64);
                Ok(Piece {
                    used: data.len(),
                    data,
                })
            }
            Self::Chunked(Chunked::Trailers) => {
                let Some(used) = take_trailers(input, trailers)? else {
                    return Ok(Piece { used: 0, data: &[] });
                };
                *self = Self::None;
                Ok(Piece { used, data: &[] })
            }
            Self::Chunked(state) => state.decode(input),
        }
    }
}

impl Chunked {
    /// Up to the trailers.
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Piece<'a>, Malformed> {
        let more = Piece { used: 0, data: &[] };
        match self {
            Self::Size => {
                let Some(end) = input
                    .iter()
                    .take(CHUNK_LINE_BYTES_MAX)
                    .position(|b| *b == b'\n')
                else {
                    return if input.len() < CHUNK_LINE_BYTES_MAX {
                        Ok(more)
                    } else {
                        Err(SIZE)
                    };
                };
                let size = chunk_size(&input[..end])?;
                *self = if size == 0 {
                    Self::Trailers
                } else {
                    Self::Data(size)
                };
                Ok(Piece {
                    used: end + 1,
                    data: &[],
                })
            }
            Self::Data(left) => {
                let data = front(input, *left);
                let left = *left - data.len() as u64;
                *self = if left == 0 {
                    Self::DataEnd
                } else {
                    Self::Data(left)
                };
                Ok(Piece {
                    used: data.len(),
                    data,
                })
            }
            Self::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    *self = Self::Size;
                    Ok(Piece { used: 2, data: &[] })
                }
                [] | [b'\r'] => Ok(more),
                _ => Err(CHUNK_END),
            },
            Self::Trailers => Ok(more),
        }
    }
}

fn front(input: &[u8], left: u64) -> &[u8] {
    &input[..usize::try_from(left).map_or(input.len(), |left| left.min(input.len()))]
}

/// RFC 9112 section 7.1: hexadecimal digits, then extensions that we check and drop. The line comes without its LF.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let line = line.strip_suffix(b"\r").ok_or(LINE_END)?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    if digits == 0 || digits > SIZE_DIGITS_MAX {
        return Err(SIZE);
    }
    check_extensions(extensions)?;
    Ok(size
        .iter()
        .fold(0, |sum, b| sum << 4 | u64::from(hex_value(*b))))
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`, and nothing behind it.
fn check_extensions(mut rest: &[u8]) -> Result<(), Malformed> {
    while !rest.is_empty() {
        rest = after(rest, b';').ok_or(EXTENSION)?;
        rest = after_token(rest).ok_or(EXTENSION)?;
        if let Some(value) = after(rest, b'=') {
            rest = match value {
                [b'"', quoted @ ..] => after_quoted(quoted),
                token => after_token(token),
            }
            .ok_or(EXTENSION)?;
        }
    }
    Ok(())
}

/// What follows `sign` and the white space around it.
fn after(input: &[u8], sign: u8) -> Option<&[u8]> {
    Some(trim_blank(trim_blank(input).strip_prefix(&[sign])?))
}

/// RFC 9110 section 5.6.3: spaces and tabs, nothing that a line could end in.
fn trim_blank(input: &[u8]) -> &[u8] {
    let blank = input.iter().take_while(|b| b" \t".contains(b)).count();
    &input[blank..]
}

fn after_token(input: &[u8]) -> Option<&[u8]> {
    let length = input.iter().take_while(|b| is_token(**b)).count();
    (length > 0).then(|| &input[length..])
}

/// What follows a string whose opening quote was taken (RFC 9110 section 5.6.4).
fn after_quoted(mut input: &[u8]) -> Option<&[u8]> {
    loop {
        input = match input {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', escaped, rest @ ..] if is_text(*escaped) => rest,
            [b'\\', ..] | [] => return None,
            [byte, rest @ ..] if is_text(*byte) => rest,
            _ => return None,
        }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// How many bytes the section has, once all of it is there.
fn take_trailers(input: &[u8], trailers: &mut Vec<u8>) -> Result<Option<usize>, Malformed> {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    let (bytes, fields) = match httparse::parse_headers(input, &mut fields) {
        Ok(Status::Complete(found)) => found,
        Ok(Status::Partial) if input.len() < HEAD_BYTES => return Ok(None),
        Ok(Status::Partial) => return Err(TRAILERS_TOO_LARGE),
        Err(_) => return Err(TRAILER),
    };
    if bytes > HEAD_BYTES {
        return Err(TRAILERS_TOO_LARGE);
    }
    if has_bare_line_feed(&input[..bytes]) {
        return Err(TRAILER);
    }
    for field in fields {
        match fate(field.name.as_bytes()) {
            Fate::Forward => put_field(trailers, field.name.as_bytes(), field.value),
            // Only a proxy of the mesh sets these.
            Fate::Mesh => {}
            Fate::HopByHop
            | Fate::ContentLength
            | Fate::Host
            | Fate::TransferEncoding
            | Fate::Connection
            | Fate::Upgrade
            | Fate::Te => return Err(TRAILER_NAME),
        }
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNFINISHED: Malformed = Malformed("more bytes are needed");

    /// Body, trailers in neutral form, and what is left over.
    type Decoded = Result<(Vec<u8>, Vec<u8>, Vec<u8>), Malformed>;

    fn decode(mut body: Body, portions: &[&[u8]]) -> Decoded {
        let (mut data, mut trailers, mut input) = (Vec::new(), Vec::new(), Vec::new());
        for portion in portions {
            input.extend_from_slice(portion);
            while !body.is_over() {
                let piece = body.decode(&input, &mut trailers)?;
                data.extend_from_slice(piece.data);
                let used = piece.used;
                input.drain(..used);
                if used == 0 {
                    break;
                }
            }
        }
        if body.is_over() {
            Ok((data, trailers, input))
        } else {
            Err(UNFINISHED)
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(
            decode(Body::length(3), &[b"ab", b"cd"]),
            Ok((b"abc".to_vec(), vec![], b"d".to_vec()))
        );
        assert_eq!(
            decode(Body::length(0), &[b"x"]),
            Ok((vec![], vec![], b"x".to_vec()))
        );
        assert_eq!(decode(Body::length(3), &[b"ab"]), Err(UNFINISHED));
    }

    #[test]
    fn chunks() {
        let text =
            b"3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nX-T: v\r\nX-Ringmail-Peer: 1\r\n\r\nnext";
        let mut trailer = Vec::new();
        put_field(&mut trailer, b"X-T", b"v");
        let expected = Ok((b"abc0123456789".to_vec(), trailer, b"next".to_vec()));
        for cut in 1..text.len() {
            let portions: Vec<&[u8]> = text.chunks(cut).collect();
            let found =
                decode(Body::chunked(), &portions).map(|(data, trailers, _)| (data, trailers));
            assert_eq!(
                found,
                expected.clone().map(|(data, trailers, _)| (data, trailers)),
                "cut {cut}"
            );
        }
        assert_eq!(decode(Body::chunked(), &[text]), expected);
    }

    #[test]
    fn broken_chunks() {
        let rows: [(&[u8], Malformed); 27] = [
            (b"\r\n", SIZE),
            (b"x\r\n", SIZE),
            (b"-1\r\n", SIZE),
            (b"+3\r\nabc\r\n0\r\n\r\n", SIZE),
            (b" 3\r\nabc\r\n0\r\n\r\n", SIZE),
            (b"1000000000000000\r\n", SIZE),
            (b"0x3\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3 \r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3 abc\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3;\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3;a=\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3;a b\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3;a=\"b\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3;a=\"\x01\"\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3;\x01\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3;a\rb\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3\r;a\r\nabc\r\n0\r\n\r\n", EXTENSION),
            (b"3\nabc\r\n0\r\n\r\n", LINE_END),
            (b"3;a\nabc\r\n0\r\n\r\n", LINE_END),
            (b"3\r\nabcd\r\n", CHUNK_END),
            (b"3\r\nabc\n0\r\n\r\n", CHUNK_END),
            (b"0\r\nX Y: z\r\n\r\n", TRAILER),
            (b"0\r\nX: y\n\r\n", TRAILER),
            (b"0\r\nX: y\r\n z\r\n\r\n", TRAILER),
            (b"0\r\nContent-Length: 1\r\n\r\n", TRAILER_NAME),
            (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", TRAILER_NAME),
            (b"0\r\nHost: b\r\n\r\n", TRAILER_NAME),
        ];
        for (row, rule) in rows {
            assert_eq!(
                decode(Body::chunked(), &[row]),
                Err(rule),
                "{:?}",
                String::from_utf8_lossy(row)
            );
        }
        let field = format!("X: {}\r\n", "y".repeat(1024));
        for end in ["", "\r\n"] {
            let large = format!("0\r\n{}{end}", field.repeat(64));
            let outcome = decode(Body::chunked(), &[large.as_bytes()]);
            assert_eq!(outcome, Err(TRAILERS_TOO_LARGE));
        }
        let endless = [b'1'; CHUNK_LINE_BYTES_MAX];
        assert_eq!(decode(Body::chunked(), &[&endless]), Err(SIZE));
        let taken: [&[u8]; 3] = [
            b"3;a\r\nabc\r\n0\r\n\r\n",
            b"3 ; a = b ;c=\"d\\\"e;\"\r\nabc\r\n0\r\n\r\n",
            b"003\r\nabc\r\n000;a\r\n\r\n",
        ];
        for row in taken {
            let data = decode(Body::chunked(), &[row]).map(|(data, ..)| data);
            assert_eq!(data.as_deref(), Ok(&b"abc"[..]));
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Body::chunked(), &[&bytes]);
        }
    }
}
