//! Frames of HTTP/2 (RFC 9113 sections 4 and 6): their heads, what may be said of their length and their stream, their
//! fixed payloads. Pure: no socket, no state.
//!
//! Limit: [`PAYLOAD_BYTES_MAX`], what everybody has to take and nobody may send us more than.

/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 9;
/// RFC 9113 section 6.5.2: the initial value of `SETTINGS_MAX_FRAME_SIZE`, which we leave as it is.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// RFC 9113 section 6.9.1, and the largest id of a stream.
pub(super) const WINDOW_MAX: u32 = 0x7fff_ffff;
/// RFC 9113 section 3.4.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113 section 6: what a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    RstStream = 3,
    Settings = 4,
    PushPromise = 5,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
    /// One that nobody has to know (RFC 9113 section 5.5).
    Unknown = 0xff,
}

/// Flags.
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// RFC 9113 section 6.5.2 and RFC 8441 section 3.
pub(super) mod setting {
    pub(in crate::http::h2) const TABLE: u16 = 1;
    pub(in crate::http::h2) const PUSH: u16 = 2;
    pub(in crate::http::h2) const STREAMS: u16 = 3;
    pub(in crate::http::h2) const INITIAL_WINDOW: u16 = 4;
    pub(in crate::http::h2) const FRAME: u16 = 5;
    pub(in crate::http::h2) const HEADER_LIST: u16 = 6;
    pub(in crate::http::h2) const CONNECT_PROTOCOL: u16 = 8;
}

/// RFC 9113 section 7: why a stream or a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Code {
    NoError = 0,
    ProtocolError = 1,
    InternalError = 2,
    FlowControlError = 3,
    StreamClosed = 5,
    FrameSizeError = 6,
    RefusedStream = 7,
    Cancel = 8,
    CompressionError = 9,
    EnhanceYourCalm = 11,
}

/// A rule that was broken: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub(super) struct Violation {
    pub(super) code: Code,
    pub(super) rule: &'static str,
}

impl Code {
    /// This code because of `rule`.
    pub(super) fn rule(self, rule: &'static str) -> Violation {
        Violation { code: self, rule }
    }
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the payload.
    pub(super) length: usize,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    /// The bit that is reserved is not in it.
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::RstStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Unknown,
        };
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & WINDOW_MAX,
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether a frame of its kind may have that length, and be about that stream. A PRIORITY of another length is an
    /// error of its stream only (RFC 9113 section 6.3).
    pub(super) fn check(&self) -> Result<(), Violation> {
        let of_stream = self.stream != 0;
        let (is_long_enough, is_placed) = match self.kind {
            Kind::Data | Kind::Headers | Kind::Continuation | Kind::Priority => (true, of_stream),
            Kind::RstStream => (self.length == 4, of_stream),
            Kind::Settings if self.has(ACK) => (self.length == 0, !of_stream),
            Kind::Settings => (self.length.is_multiple_of(6), !of_stream),
            Kind::Ping => (self.length == 8, !of_stream),
            Kind::GoAway => (self.length >= 8, !of_stream),
            Kind::WindowUpdate => (self.length == 4, true),
            Kind::PushPromise => {
                let rule = "nobody may push here (RFC 9113 section 8.4)";
                return Err(Code::ProtocolError.rule(rule));
            }
            Kind::Unknown => (true, true),
        };
        if !is_placed {
            let rule =
                "a frame is of a stream and should not be, or the other way (RFC 9113 section 6)";
            return Err(Code::ProtocolError.rule(rule));
        }
        if !is_long_enough || self.length > PAYLOAD_BYTES_MAX {
            let rule = "a frame has a length that its kind may not have (RFC 9113 section 4.2)";
            return Err(Code::FrameSizeError.rule(rule));
        }
        Ok(())
    }

    /// The payload without its padding (RFC 9113 section 6.1).
    pub(super) fn unpadded<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], Violation> {
        if !self.has(PADDED) {
            return Ok(payload);
        }
        let rule = "there is more padding than frame (RFC 9113 section 6.1)";
        let (padding, rest) = payload
            .split_first()
            .ok_or(Code::FrameSizeError.rule(rule))?;
        let length = rest.len().checked_sub(usize::from(*padding));
        Ok(&rest[..length.ok_or(Code::ProtocolError.rule(rule))?])
    }
}

/// The first frame, if it is all there, and what follows it. One that is too long is as good as whole: it is an error
/// whatever is in it.
pub(super) fn first(bytes: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    let head = Head::decode(head);
    match rest.split_at_checked(head.length) {
        Some((payload, rest)) => Some((head, payload, rest)),
        None if head.length > PAYLOAD_BYTES_MAX => Some((head, &[], &[])),
        None => None,
    }
}

/// The number at the front of a payload whose length was checked.
pub(super) fn number(payload: &[u8]) -> u32 {
    let bytes = payload.first_chunk().copied().unwrap_or_default();
    u32::from_be_bytes(bytes)
}

/// The settings of a frame whose length was checked.
pub(super) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    let (settings, _) = payload.as_chunks::<6>();
    settings.iter().map(|[i0, i1, v0, v1, v2, v3]| {
        let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
        (u16::from_be_bytes([*i0, *i1]), value)
    })
}

/// Appends a frame.
pub(super) fn put(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    put_head(out, kind, flags, stream, payload.len());
    out.extend_from_slice(payload);
}

fn put_head(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, length: usize) {
    debug_assert!(
        length < 1 << 24,
        "whoever sends knows what the other side takes"
    );
    let [_, l0, l1, l2] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind as u8, flags, s0, s1, s2, s3]);
}

/// Appends a frame of settings.
pub(super) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    put_head(out, Kind::Settings, 0, 0, settings.len() * 6);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends a header block that `write` makes, in as many frames as it takes.
pub(super) fn put_block<E>(
    out: &mut Vec<u8>,
    stream: u32,
    end: bool,
    payload_max: usize,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    let flags = if end { END_STREAM } else { 0 };
    put_head(out, Kind::Headers, flags | END_HEADERS, stream, 0);
    if let Err(error) = write(out) {
        out.truncate(start);
        return Err(error);
    }
    let length = out.len() - start - HEAD_BYTES;
    if length <= payload_max {
        let [_, l0, l1, l2] = u32::try_from(length).unwrap_or(0).to_be_bytes();
        out[start..start + 3].copy_from_slice(&[l0, l1, l2]);
        return Ok(());
    }
    let block = out.split_off(start + HEAD_BYTES);
    out.truncate(start);
    let mut pieces = block.chunks(payload_max).peekable();
    let mut first = Some(flags);
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        match first.take() {
            Some(flags) => put(out, Kind::Headers, flags | last, stream, piece),
            None => put(out, Kind::Continuation, last, stream, piece),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(kind: Kind, flags: u8, stream: u32, length: usize) -> Head {
        Head {
            length,
            kind,
            flags,
            stream,
        }
    }

    #[test]
    fn lengths_and_streams() {
        let (wrong, misplaced) = (Some(Code::FrameSizeError), Some(Code::ProtocolError));
        for (head, expected) in [
            (head(Kind::Data, 0, 1, PAYLOAD_BYTES_MAX), None),
            (head(Kind::Data, 0, 1, PAYLOAD_BYTES_MAX + 1), wrong),
            (head(Kind::Data, 0, 0, 1), misplaced),
            (head(Kind::Headers, 0, 0, 1), misplaced),
            (head(Kind::Continuation, 0, 0, 1), misplaced),
            (head(Kind::Priority, 0, 1, 4), None),
            (head(Kind::Priority, 0, 0, 5), misplaced),
            (head(Kind::RstStream, 0, 1, 4), None),
            (head(Kind::RstStream, 0, 1, 5), wrong),
            (head(Kind::RstStream, 0, 0, 4), misplaced),
            (head(Kind::Settings, 0, 0, 12), None),
            (head(Kind::Settings, 0, 0, 11), wrong),
            (head(Kind::Settings, ACK, 0, 6), wrong),
            (head(Kind::Settings, 0, 1, 6), misplaced),
            (head(Kind::PushPromise, 0, 1, 6), misplaced),
            (head(Kind::Ping, 0, 0, 8), None),
            (head(Kind::Ping, 0, 0, 7), wrong),
            (head(Kind::Ping, 0, 1, 8), misplaced),
            (head(Kind::GoAway, 0, 0, 7), wrong),
            (head(Kind::GoAway, 0, 1, 8), misplaced),
            (head(Kind::WindowUpdate, 0, 0, 4), None),
            (head(Kind::WindowUpdate, 0, 1, 3), wrong),
            (head(Kind::Unknown, 0, 9, 100), None),
        ] {
            let found = head.check().map_err(|violation| violation.code);
            assert_eq!(found.err(), expected, "{head:?}");
        }
    }

    #[test]
    fn padding() {
        let check = |payload: &[u8]| {
            let head = head(Kind::Data, PADDED, 1, payload.len());
            let found = head.unpadded(payload).map(<[u8]>::len);
            found.map_err(|violation| violation.code)
        };
        assert_eq!(check(&[0]), Ok(0));
        assert_eq!(check(&[2, b'a', 0, 0]), Ok(1));
        assert_eq!(check(&[3, 0, 0, 0]), Ok(0));
        assert_eq!(check(&[3, 0, 0]), Err(Code::ProtocolError));
        assert_eq!(check(&[]), Err(Code::FrameSizeError));
    }

    proptest! {
        #[test]
        fn heads_survive(mut bytes in any::<[u8; HEAD_BYTES]>(), kind in 0_u8..10) {
            bytes[3] = kind;
            let head = Head::decode(&bytes);
            let mut again = Vec::new();
            put_head(&mut again, head.kind, head.flags, head.stream, head.length);
            let again = again.first_chunk().map(Head::decode);
            prop_assert_eq!(again, Some(head));
        }

        #[test]
        fn blocks_survive_in_pieces(length in 0_usize..100, max in 1_usize..50, end in any::<bool>()) {
            let block: Vec<u8> = (0..100).take(length).collect();
            let mut out = b"before".to_vec();
            let put = put_block(&mut out, 3, end, max, |out| {
                out.extend_from_slice(&block);
                Ok::<_, ()>(())
            });
            prop_assert_eq!(put, Ok(()));
            let (mut rest, mut found, mut kind) = (&out[6..], Vec::new(), Kind::Headers);
            while let Some((bytes, after)) = rest.split_first_chunk() {
                let head = Head::decode(bytes);
                prop_assert_eq!((head.kind, head.stream), (kind, 3));
                prop_assert_eq!(head.kind == Kind::Headers && end, head.has(END_STREAM));
                kind = Kind::Continuation;
                found.extend_from_slice(&after[..head.length]);
                rest = &after[head.length..];
                prop_assert_eq!(rest.is_empty(), head.has(END_HEADERS));
            }
            prop_assert_eq!(found, block);
        }
    }
}
