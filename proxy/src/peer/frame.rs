//! Bytes to frames and back; no socket, no state beyond one frame.
//!
//! A frame is 8 bytes of header and a payload, all numbers big-endian:
//!
//! ```text
//! stream: u32 | end: 1 bit, kind: 7 bits | length: u24 | payload
//! ```
//!
//! `end` on the last frame that this side sends on the stream. Stream 0 is the connection itself.
//! DATA is handed on in pieces, as it arrives; every other payload is handed on whole, so it is bounded by
//! [`HEAD_BYTES_MAX`].

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 8;
/// Payload of a DATA frame: small enough that streams take turns, large enough to cost little.
pub(crate) const DATA_BYTES_MAX: usize = 128 * 1024;
/// Payload of every other frame: a message head of 64 KiB, and what the neutral form adds to it.
pub(crate) const HEAD_BYTES_MAX: usize = 80 * 1024;

const END: u8 = 0x80;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The dialling side opens a stream; the payload says what for.
    Open = 1,
    /// The head of a response, informational or final.
    Head = 2,
    /// Bytes of a body, or of a TCP connection.
    Data = 3,
    /// Trailers of a body; always the end.
    Trailers = 4,
    /// The stream is over in both directions; the payload is one byte, a `Reason`, and where that was a decision of
    /// policy the eight bytes of its `DecisionId`.
    Reset = 5,
    /// The receiver took bytes: so many more may be sent (u32).
    Credit = 6,
    /// Are you there? The answer is a pong.
    Ping = 7,
    /// I am.
    Pong = 8,
    /// The sender takes no more streams after those that are on their way.
    GoAway = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Open,
            2 => Self::Head,
            3 => Self::Data,
            4 => Self::Trailers,
            5 => Self::Reset,
            6 => Self::Credit,
            7 => Self::Ping,
            8 => Self::Pong,
            9 => Self::GoAway,
            _ => return None,
        })
    }

    fn payload_max(self) -> usize {
        match self {
            Self::Data => DATA_BYTES_MAX,
            Self::Open | Self::Head | Self::Trailers => HEAD_BYTES_MAX,
            Self::Reset => 9,
            Self::Credit => 4,
            Self::Ping | Self::Pong | Self::GoAway => 0,
        }
    }
}

/// A frame, or a piece of a DATA frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) stream: u32,
    pub(crate) kind: Kind,
    /// Set on the last piece of a frame that ends its sender's direction.
    pub(crate) end: bool,
    pub(crate) payload: &'a [u8],
}

/// How the peer broke the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    #[error("a {0:?} frame of {1} bytes is too long")]
    TooLong(Kind, usize),
}

/// Appends one frame whose payload `write` makes; one that is too long for its kind is not appended.
pub(crate) fn put(
    out: &mut Vec<u8>,
    stream: u32,
    kind: Kind,
    end: bool,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&[kind as u8 | if end { END } else { 0 }, 0, 0, 0]);
    write(out);
    let length = out.len() - start - HEADER_BYTES;
    if length > kind.payload_max() {
        out.truncate(start);
        return Err(FrameError::TooLong(kind, length));
    }
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out[start + 5..start + HEADER_BYTES].copy_from_slice(&[high, middle, low]);
    Ok(())
}

/// Takes frames out of bytes that arrive in any portions.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    current: Option<Current>,
    /// The payload so far of a frame that is handed on whole and did not arrive whole.
    partial: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    stream: u32,
    kind: Kind,
    end: bool,
    left: usize,
}

impl Decoder {
    /// Hands on what `input` completes. After an error the connection is of no more use.
    pub(crate) fn decode(
        &mut self,
        mut input: &[u8],
        deliver: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        loop {
            let Some(current) = self.current else {
                match self.take_header(&mut input)? {
                    true => continue,
                    false => return Ok(()),
                }
            };
            let n = current.left.min(input.len());
            let (piece, rest) = input.split_at(n);
            let complete = n == current.left;
            if !complete && n == 0 {
                return Ok(());
            }
            input = rest;
            self.current = (!complete).then_some(Current {
                left: current.left - n,
                ..current
            });
            let Current {
                stream, kind, end, ..
            } = current;
            if kind == Kind::Data || (complete && self.partial.is_empty()) {
                deliver(Frame {
                    stream,
                    kind,
                    end: end && complete,
                    payload: piece,
                });
                continue;
            }
            self.partial.extend_from_slice(piece);
            if complete {
                deliver(Frame {
                    stream,
                    kind,
                    end,
                    payload: &self.partial,
                });
                self.partial = Vec::new();
            }
        }
    }

    /// Whether a whole header was there.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
        let n = (HEADER_BYTES - self.header_len).min(input.len());
        self.header[self.header_len..self.header_len + n].copy_from_slice(&input[..n]);
        self.header_len += n;
        *input = &input[n..];
        if self.header_len < HEADER_BYTES {
            return Ok(false);
        }
        self.header_len = 0;
        let [s0, s1, s2, s3, flags, high, middle, low] = self.header;
        let kind = Kind::from_byte(flags & !END).ok_or(FrameError::UnknownKind(flags & !END))?;
        let left = u32::from_be_bytes([0, high, middle, low]) as usize;
        if left > kind.payload_max() {
            return Err(FrameError::TooLong(kind, left));
        }
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        self.current = Some(Current {
            stream,
            kind,
            end: flags & END != 0,
            left,
        });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        (1_u8..=4).prop_map(|byte| Kind::from_byte(byte).expect("in range"))
    }

    #[derive(Debug, Clone, PartialEq)]
    struct Whole {
        stream: u32,
        kind: Kind,
        end: bool,
        payload: Vec<u8>,
    }

    /// Everything delivered; pieces of DATA on one stream joined.
    fn decode_all(portions: &[&[u8]]) -> Result<Vec<Whole>, FrameError> {
        let mut decoder = Decoder::default();
        let mut frames: Vec<Whole> = Vec::new();
        for portion in portions {
            decoder.decode(portion, &mut |frame| {
                let Frame {
                    stream,
                    kind,
                    end,
                    payload,
                } = frame;
                match frames.last_mut() {
                    Some(last) if last.stream == stream && kind == Kind::Data => {
                        last.end = end;
                        last.payload.extend_from_slice(payload);
                    }
                    _ => frames.push(Whole {
                        stream,
                        kind,
                        end,
                        payload: payload.to_vec(),
                    }),
                }
            })?;
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_survive_any_portions(
            frames in proptest::collection::vec((kinds(), any::<bool>(), proptest::collection::vec(any::<u8>(), 1..40)), 1..8),
            cut in 1_usize..50,
        ) {
            // Streams differ from frame to frame, so that joined pieces are told apart.
            let whole = |((kind, end, payload), stream)| Whole { stream, kind, end, payload };
            let frames: Vec<_> = frames.into_iter().zip(100_u32..).map(whole).collect();
            let mut bytes = Vec::new();
            for Whole { stream, kind, end, payload } in &frames {
                let put = put(&mut bytes, *stream, *kind, *end, |out| out.extend_from_slice(payload));
                prop_assert_eq!(put, Ok(()));
            }
            let portions: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(decode_all(&portions), Ok(frames));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..20) {
            let portions: Vec<&[u8]> = bytes.chunks(cut).collect();
            let _ = decode_all(&portions);
        }
    }

    #[test]
    fn limits_are_kept() {
        let header = |kind: u8, length: u32| {
            let [_, a, b, c] = length.to_be_bytes();
            [0, 0, 0, 1, kind, a, b, c]
        };
        assert_eq!(
            decode_all(&[&header(3, 131073)]),
            Err(FrameError::TooLong(Kind::Data, 131073))
        );
        assert_eq!(
            decode_all(&[&header(7, 1)]),
            Err(FrameError::TooLong(Kind::Ping, 1))
        );
        assert_eq!(
            decode_all(&[&header(77, 0)]),
            Err(FrameError::UnknownKind(77))
        );
        for kind in [Kind::Open, Kind::Head, Kind::Trailers] {
            let mut bytes = b"before".to_vec();
            let mut put = |length| {
                put(&mut bytes, 1, kind, true, |out| {
                    out.resize(out.len() + length, 0)
                })
            };
            assert_eq!(
                put(HEAD_BYTES_MAX + 1),
                Err(FrameError::TooLong(kind, HEAD_BYTES_MAX + 1))
            );
            assert_eq!(bytes, b"before");
        }
    }
}
