//! Frames of one stream that wait to be read: one allocation for all of them, which the reader swaps for an empty one.
//!
//! An entry is `kind: u8 | end: u8 | length: u32 | payload`, the length in the machine's own order.

use super::frame::{Frame, Kind};

/// Bytes before the payload of an entry.
const HEADER_BYTES: usize = 6;
/// An inbox that held less than this when it was last read is cut down to it: bulk keeps its room, the rest none.
const KEPT_BYTES: usize = 4 * 1024;

/// Entries in order, read from the front.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    entries: Vec<u8>,
    read: usize,
    /// Something was added since the last [`Self::sweep`].
    used: bool,
    /// Where the last entry starts, if it is DATA that more DATA can join.
    open_data: Option<usize>,
}

/// A frame of the stream. DATA that waited is one frame, whatever frames it came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: Kind,
    /// Nothing comes after this.
    pub(crate) end: bool,
    pub(crate) payload: &'a [u8],
}

impl Inbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.read == self.entries.len()
    }

    /// Adds a frame. DATA joins the DATA before it, so that a reader that was slow takes it all at once.
    pub(crate) fn push(&mut self, frame: &Frame<'_>) {
        let start = match self.open_data {
            Some(start) if frame.kind == Kind::Data => start,
            _ => {
                let start = self.entries.len();
                self.entries.reserve(HEADER_BYTES + frame.payload.len());
                self.entries
                    .extend_from_slice(&[frame.kind as u8, 0, 0, 0, 0, 0]);
                start
            }
        };
        self.entries.extend_from_slice(frame.payload);
        self.used = true;
        let length = u32::try_from(self.entries.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
        self.entries[start + 1] = u8::from(frame.end);
        self.entries[start + 2..start + HEADER_BYTES].copy_from_slice(&length.to_ne_bytes());
        self.open_data = (frame.kind == Kind::Data).then_some(start);
    }

    /// Takes all of `other`; this one must have been read to its end.
    pub(crate) fn refill(&mut self, other: &mut Self) {
        self.clear();
        self.open_data = None;
        std::mem::swap(self, other);
        self.open_data = None;
    }

    /// Gives what room this has, all of it read, to `other`, which has nothing and waits for more.
    pub(crate) fn lend(&mut self, other: &mut Self) {
        self.clear();
        if self.entries.capacity() > other.entries.capacity() {
            std::mem::swap(&mut self.entries, &mut other.entries);
        }
        self.entries = Vec::new();
    }

    /// Frees the room of one that is empty, but for so much.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if self.is_empty() {
            self.entries.shrink_to(bytes);
        }
    }

    /// Frees the room of one that is empty and was since the last time.
    pub(crate) fn sweep(&mut self) {
        if !std::mem::take(&mut self.used) && self.is_empty() {
            *self = Self::default();
        }
    }

    fn clear(&mut self) {
        if self.entries.len() < KEPT_BYTES {
            self.entries.shrink_to(KEPT_BYTES);
        }
        self.entries.clear();
        self.read = 0;
    }

    /// The next frame, if there is one.
    pub(crate) fn next(&mut self) -> Option<Received<'_>> {
        let start = self.read;
        self.read += HEADER_BYTES + self.peek()?.payload.len();
        Self::entry(&self.entries[start..])
    }

    /// The same, and leaves it there.
    pub(crate) fn peek(&self) -> Option<Received<'_>> {
        Self::entry(&self.entries[self.read..])
    }

    fn entry(entries: &[u8]) -> Option<Received<'_>> {
        let (header, rest) = entries.split_first_chunk::<HEADER_BYTES>()?;
        let [kind, end, l0, l1, l2, l3] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let kind = match kind {
            kind if kind == Kind::Head as u8 => Kind::Head,
            kind if kind == Kind::Trailers as u8 => Kind::Trailers,
            _ => Kind::Data,
        };
        Some(Received {
            kind,
            end: end != 0,
            payload: &rest[..length],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_waited_is_one_frame() {
        let frame = |kind, end, payload| Frame {
            stream: 1,
            kind,
            end,
            payload,
        };
        let (mut shared, mut reader) = (Inbox::default(), Inbox::default());
        shared.push(&frame(Kind::Head, false, b"head"));
        shared.push(&frame(Kind::Data, false, b"ab"));
        shared.push(&frame(Kind::Data, false, b""));
        shared.push(&frame(Kind::Data, true, b"c"));
        reader.refill(&mut shared);
        assert!(shared.is_empty());
        let head = Received {
            kind: Kind::Head,
            end: false,
            payload: b"head",
        };
        assert_eq!(reader.next(), Some(head));
        assert_eq!(
            reader.next(),
            Some(Received {
                kind: Kind::Data,
                end: true,
                payload: b"abc"
            })
        );
        assert_eq!(reader.next(), None);
        shared.push(&frame(Kind::Data, false, b"not joined to what was taken"));
        reader.refill(&mut shared);
        assert_eq!(
            reader.next().map(|received| received.payload.len()),
            Some(28)
        );
    }
}
