//! Body framing as it arrives: length, chunks, or until close. Pure: bytes in, slices of them out.
//!
//! Limits: a chunk's size line has [`CHUNK_LINE_BYTES_MAX`] bytes; a trailer section fits into one buffer and has as
//! many fields as a head.

use httparse::{EMPTY_HEADER, Status};

use crate::http::fields::{Fate, fate};
use crate::http::neutral::{FIELDS_MAX, is_token, put_field};

/// A chunk's size line, extensions included.
const CHUNK_LINE_BYTES_MAX: usize = 256;

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

/// The bytes break the framing of RFC 9112 section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

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
            Self::Chunked(state) => match state.decode(input, trailers)? {
                Some(piece) => Ok(piece),
                None => {
                    let used = input.len() - after_trailers(input).map_or(0, <[u8]>::len);
                    *self = Self::None;
                    Ok(Piece { used, data: &[] })
                }
            },
        }
    }
}

impl Chunked {
    /// None at the end of the body: the trailers at the front of `input` are complete and were taken.
    fn decode<'a>(
        &mut self,
        input: &'a [u8],
        trailers: &mut Vec<u8>,
    ) -> Result<Option<Piece<'a>>, Malformed> {
        let more = Piece { used: 0, data: &[] };
        match self {
            Self::Size => {
                let Some(end) = input
                    .iter()
                    .take(CHUNK_LINE_BYTES_MAX)
                    .position(|b| *b == b'\n')
                else {
                    return if input.len() < CHUNK_LINE_BYTES_MAX {
                        Ok(Some(more))
                    } else {
                        Err(Malformed)
                    };
                };
                let size = chunk_size(&input[..end])?;
                *self = if size == 0 {
                    Self::Trailers
                } else {
                    Self::Data(size)
                };
                Ok(Some(Piece {
                    used: end + 1,
                    data: &[],
                }))
            }
            Self::Data(left) => {
                let data = front(input, *left);
                let left = *left - data.len() as u64;
                *self = if left == 0 {
                    Self::DataEnd
                } else {
                    Self::Data(left)
                };
                Ok(Some(Piece {
                    used: data.len(),
                    data,
                }))
            }
            Self::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    *self = Self::Size;
                    Ok(Some(Piece { used: 2, data: &[] }))
                }
                [] | [b'\r'] => Ok(Some(more)),
                _ => Err(Malformed),
            },
            Self::Trailers => {
                if take_trailers(input, trailers)? {
                    Ok(None)
                } else {
                    Ok(Some(more))
                }
            }
        }
    }
}

fn front(input: &[u8], left: u64) -> &[u8] {
    &input[..usize::try_from(left).map_or(input.len(), |left| left.min(input.len()))]
}

/// RFC 9112 section 7.1: hexadecimal digits, then extensions that we check and drop. The line comes without its LF.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let line = line.strip_suffix(b"\r").ok_or(Malformed)?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    let plain = |b: &u8| is_token(*b) || b";=\" \t".contains(b);
    if digits == 0 || digits > 15 || !extensions.iter().all(plain) {
        return Err(Malformed);
    }
    if !extensions.is_empty() && extensions.trim_ascii_start().first() != Some(&b';') {
        return Err(Malformed);
    }
    Ok(size
        .iter()
        .fold(0, |sum, b| sum << 4 | u64::from(hex_value(*b))))
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// Whether the whole section was there.
fn take_trailers(input: &[u8], trailers: &mut Vec<u8>) -> Result<bool, Malformed> {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(input, &mut fields) {
        Ok(Status::Complete((_, fields))) => {
            // RFC 9110 section 6.5.1: fields about framing and routing are no trailers; mesh fields are not theirs.
            for field in fields
                .iter()
                .filter(|field| fate(field.name.as_bytes()) == Fate::Forward)
            {
                put_field(trailers, field.name.as_bytes(), field.value);
            }
            Ok(true)
        }
        Ok(Status::Partial) => Ok(false),
        Err(_) => Err(Malformed),
    }
}

/// What is behind a complete trailer section.
fn after_trailers(input: &[u8]) -> Option<&[u8]> {
    let mut fields = [EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(input, &mut fields) {
        Ok(Status::Complete((n, _))) => input.get(n..),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            Err(Malformed)
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
        assert_eq!(decode(Body::length(3), &[b"ab"]), Err(Malformed));
    }

    #[test]
    fn chunks() {
        let text =
            b"3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nX-T: v\r\nContent-Length: 1\r\n\r\nnext";
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
        let rows: [&[u8]; 12] = [
            b"\r\n",
            b"x\r\n",
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"-1\r\n",
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"3 abc\r\nabc\r\n0\r\n\r\n",
            b"1000000000000000\r\n",
            b"3;\x01\r\nabc\r\n0\r\n\r\n",
            b"0\r\nX Y: z\r\n\r\n",
        ];
        for row in rows {
            assert_eq!(
                decode(Body::chunked(), &[row]),
                Err(Malformed),
                "{:?}",
                String::from_utf8_lossy(row)
            );
        }
        let endless = [b'1'; CHUNK_LINE_BYTES_MAX];
        assert_eq!(decode(Body::chunked(), &[&endless]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Body::chunked(), &[&bytes]);
        }
    }
}
