//! How much a connection may ask of us that is no use to anyone: a budget of control frames, which time and useful work
//! fill again. Pure: bytes and moments in, a verdict out.
//!
//! The h2 crate answers a million pings as it answers one. Here a frame that only costs (SETTINGS, PING, PRIORITY,
//! WINDOW_UPDATE, CONTINUATION, empty DATA, anything unknown) takes one from the budget, and a RST_STREAM, whoever sent
//! it, [`RESET_COST`]: a stream that was reset has cost a request. What we send that was asked for gives back:
//! [`HEAD_GAIN`] for a head, [`DATA_GAIN`] for DATA, enough for any client that does what clients do. Limits:
//! [`FRAMES_BURST`] and [`FRAMES_PER_SECOND`].

use std::time::Instant;

/// Control frames that a connection may send at once.
const FRAMES_BURST: u32 = 2_000;
/// And in the long run, when nothing useful happens on it.
const FRAMES_PER_SECOND: u32 = 200;
/// What a reset stream costs, in frames.
const RESET_COST: u32 = 4;
/// What a head that we send is worth: a cancelled stream, its windows and a ping.
const HEAD_GAIN: u32 = 8;
/// What a DATA frame is worth: the windows of stream and connection, and a ping.
const DATA_GAIN: u32 = 3;

/// RFC 9113 section 4.1.
const HEADER_BYTES: usize = 9;
/// RFC 9113 section 3.4: what a client sends before its first frame.
const PREFACE_BYTES: usize = 24;
/// RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
/// RFC 9113 section 6.1, the flag of DATA.
const END_STREAM: u8 = 1;

/// The budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent;

/// The budget of one connection, and where in its frames both directions are.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    refilled: Instant,
    theirs: Frames,
    ours: Frames,
}

impl Budget {
    /// For a connection on which the other side is the client, and sends a preface.
    pub(super) fn of_client(now: Instant) -> Self {
        Self {
            theirs: Frames::behind(PREFACE_BYTES),
            ours: Frames::behind(0),
            ..Self::new(now)
        }
    }

    /// For a connection on which the other side is the server, and we send the preface.
    pub(super) fn of_server(now: Instant) -> Self {
        Self {
            theirs: Frames::behind(0),
            ours: Frames::behind(PREFACE_BYTES),
            ..Self::new(now)
        }
    }

    fn new(now: Instant) -> Self {
        Self {
            left: FRAMES_BURST,
            refilled: now,
            theirs: Frames::behind(0),
            ours: Frames::behind(0),
        }
    }

    /// Bytes arrived. `now` is asked for only when the budget is short.
    pub(super) fn received(
        &mut self,
        bytes: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<(), Spent> {
        let (mut cost, mut gain) = (0_u32, 0_u32);
        self.theirs.each(bytes, |frame| match frame.kind {
            DATA if frame.length > 0 => gain = gain.saturating_add(1),
            DATA if frame.flags & END_STREAM != 0 => {}
            HEADERS => {}
            RST_STREAM => cost = cost.saturating_add(RESET_COST),
            _ => cost = cost.saturating_add(1),
        });
        self.gain(gain);
        self.spend(cost, now)
    }

    /// Bytes were sent.
    pub(super) fn sent(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Spent> {
        let (mut cost, mut gain) = (0_u32, 0_u32);
        self.ours.each(bytes, |frame| match frame.kind {
            DATA => gain = gain.saturating_add(DATA_GAIN),
            HEADERS => gain = gain.saturating_add(HEAD_GAIN),
            RST_STREAM => cost = cost.saturating_add(RESET_COST),
            _ => {}
        });
        self.gain(gain);
        self.spend(cost, now)
    }

    fn gain(&mut self, gain: u32) {
        self.left = self.left.saturating_add(gain).min(FRAMES_BURST);
    }

    fn spend(&mut self, cost: u32, now: impl Fn() -> Instant) -> Result<(), Spent> {
        if self.left < cost {
            let now = now();
            let elapsed = now.saturating_duration_since(self.refilled).as_millis();
            let refill = elapsed.saturating_mul(u128::from(FRAMES_PER_SECOND)) / 1000;
            self.refilled = now;
            self.gain(u32::try_from(refill).unwrap_or(u32::MAX));
        }
        self.left = self.left.checked_sub(cost).ok_or(Spent)?;
        Ok(())
    }
}

/// A frame, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: u8,
    flags: u8,
    length: usize,
}

/// One direction's frames, whatever pieces they come in.
#[derive(Debug)]
struct Frames {
    /// Bytes to come that are no header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    filled: usize,
}

impl Frames {
    fn behind(bytes: usize) -> Self {
        Self {
            skip: bytes,
            header: [0; HEADER_BYTES],
            filled: 0,
        }
    }

    fn each(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER_BYTES - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER_BYTES {
                let [l0, l1, l2, kind, flags, ..] = self.header;
                let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
                found(Frame {
                    kind,
                    flags,
                    length,
                });
                self.filled = 0;
                self.skip = length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const PING: u8 = 6;
    const SETTINGS: u8 = 4;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., l0, l1, l2] = length.to_be_bytes();
        let mut bytes = vec![l0, l1, l2, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEADER_BYTES + length, 0);
        bytes
    }

    #[test]
    fn floods_end_and_time_mends() {
        for (kind, flags, length, cost) in [
            (PING, 0, 8, 1),
            (SETTINGS, 0, 0, 1),
            (2, 0, 5, 1),
            (8, 0, 4, 1),
            (9, 0, 100, 1),
            (0xfa, 0, 0, 1),
            (DATA, 0, 0, 1),
            (RST_STREAM, 0, 4, RESET_COST),
        ] {
            let begun = Instant::now();
            let mut budget = Budget::of_server(begun);
            let bytes = frame(kind, flags, length);
            let passed = (0..10_000)
                .take_while(|_| budget.received(&bytes, || begun).is_ok())
                .count();
            assert_eq!(passed, (FRAMES_BURST / cost) as usize, "kind {kind}");
            let later = begun + Duration::from_secs(1);
            let passed = (0..10_000)
                .take_while(|_| budget.received(&bytes, || later).is_ok())
                .count();
            assert_eq!(passed, (FRAMES_PER_SECOND / cost) as usize, "kind {kind}");
        }
    }

    #[test]
    fn work_pays_for_itself() {
        let begun = Instant::now();
        let mut budget = Budget::of_client(begun);
        budget
            .received(&[b' '; PREFACE_BYTES], || begun)
            .expect("the preface");
        for _ in 0..100_000 {
            // A unary call that the client ends, with a ping and two windows.
            let call = [
                frame(HEADERS, 4, 40),
                frame(DATA, END_STREAM, 0),
                frame(PING, 0, 8),
                frame(8, 0, 4),
                frame(8, 0, 4),
                frame(RST_STREAM, 0, 4),
            ];
            budget.received(&call.concat(), || begun).expect("a call");
            budget
                .sent(&frame(HEADERS, 4, 20), || begun)
                .expect("an answer");
        }
        // Requests that are reset and never answered are no work.
        let rapid = [frame(HEADERS, 5, 10), frame(RST_STREAM, 0, 4)].concat();
        let passed = (0..10_000)
            .take_while(|_| budget.received(&rapid, || begun).is_ok())
            .count();
        assert!(passed <= (FRAMES_BURST / RESET_COST) as usize, "{passed}");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(lengths in proptest::collection::vec(0_usize..300, 1..20), cut in 1_usize..50) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| frame(PING, 0, *length)).collect();
            let mut frames = Frames::behind(0);
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.each(piece, |frame| found.push(frame.length));
            }
            prop_assert_eq!(found, lengths);
        }
    }
}
