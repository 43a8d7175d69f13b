//! How much a connection may ask of us that is no use to anyone: a budget of control frames, which time and useful work
//! fill again. Pure: frames and moments in, a verdict out.
//!
//! A frame that only costs (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, CONTINUATION, empty DATA, anything unknown) takes
//! one from the budget (padding that may be all there is, too), and a RST_STREAM, whoever sent it, [`RESET_COST`]: a stream that was reset has cost a request.
//! What we send that was asked for gives back: [`HEAD_GAIN`] for a head, [`DATA_GAIN`] for DATA, enough for any client
//! that does what clients do. Limits: [`FRAMES_BURST`] and [`FRAMES_PER_SECOND`].

use std::time::Instant;

use super::frame::{END_STREAM, Head, Kind, PADDED};

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

/// What a DATA frame that arrives has to hold to be worth anything: a byte of it costs nobody anything.
pub(super) const USEFUL_BYTES: usize = 1024;

/// The budget of one connection.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    refilled: Instant,
    /// More was asked than there was.
    is_spent: bool,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: FRAMES_BURST,
            refilled: now,
            is_spent: false,
        }
    }

    /// Whether the other side has asked for too much.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// A frame arrived. `now` is asked for only when the budget is short.
    pub(super) fn received(&mut self, head: &Head, now: impl Fn() -> Instant) {
        match head.kind {
            Kind::Data if head.length >= USEFUL_BYTES => self.gain(1),
            Kind::Data if head.has(END_STREAM) || head.length > 0 && !head.has(PADDED) => {}
            Kind::Headers => {}
            Kind::RstStream => self.spend(RESET_COST, now),
            Kind::Data
            | Kind::Priority
            | Kind::Settings
            | Kind::PushPromise
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Continuation
            | Kind::Unknown => self.spend(1, now),
        }
    }

    /// We refuse a request: the head that says so pays for nothing, and it cost as much as one that was reset.
    pub(super) fn refused(&mut self, now: impl Fn() -> Instant) {
        self.spend(HEAD_GAIN + RESET_COST, now);
    }

    /// We reset a stream, or did not look at it.
    pub(super) fn reset(&mut self, now: impl Fn() -> Instant) {
        self.spend(RESET_COST, now);
    }

    /// We send a head.
    pub(super) fn head(&mut self) {
        self.gain(HEAD_GAIN);
    }

    /// We send so many frames of DATA.
    pub(super) fn data(&mut self, frames: usize) {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.gain(frames.saturating_mul(DATA_GAIN));
    }

    fn gain(&mut self, gain: u32) {
        self.left = self.left.saturating_add(gain).min(FRAMES_BURST);
    }

    fn spend(&mut self, cost: u32, now: impl Fn() -> Instant) {
        if self.left < cost {
            let now = now();
            let elapsed = now.saturating_duration_since(self.refilled).as_millis();
            let refill = elapsed.saturating_mul(u128::from(FRAMES_PER_SECOND)) / 1000;
            self.refilled = now;
            self.gain(u32::try_from(refill).unwrap_or(u32::MAX));
        }
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => self.is_spent = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: Kind, flags: u8, length: usize) -> Head {
        Head {
            length,
            kind,
            flags,
            stream: 1,
        }
    }

    /// How many such frames pass at that moment.
    fn passed(budget: &mut Budget, head: Head, now: Instant) -> usize {
        budget.is_spent = false;
        let passes = |_: &_| {
            budget.received(&head, || now);
            !budget.is_spent()
        };
        (0..10_000).take_while(passes).count()
    }

    #[test]
    fn floods_end_and_time_mends() {
        for (kind, length, cost) in [
            (Kind::Ping, 8, 1),
            (Kind::Settings, 0, 1),
            (Kind::Priority, 5, 1),
            (Kind::WindowUpdate, 4, 1),
            (Kind::Continuation, 100, 1),
            (Kind::Unknown, 0, 1),
            (Kind::Data, 0, 1),
            (Kind::RstStream, 4, RESET_COST),
        ] {
            let begun = Instant::now();
            let mut budget = Budget::new(begun);
            let head = frame(kind, 0, length);
            let found = passed(&mut budget, head, begun);
            assert_eq!(found, (FRAMES_BURST / cost) as usize, "{kind:?}");
            let later = begun + Duration::from_secs(1);
            let found = passed(&mut budget, head, later);
            assert_eq!(found, (FRAMES_PER_SECOND / cost) as usize, "{kind:?}");
        }
    }

    #[test]
    fn work_pays_for_itself() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        for _ in 0..100_000 {
            // A unary call that the client ends, with a ping and two windows.
            for head in [
                frame(Kind::Headers, 4, 40),
                frame(Kind::Data, END_STREAM, 0),
                frame(Kind::Ping, 0, 8),
                frame(Kind::WindowUpdate, 0, 4),
                frame(Kind::WindowUpdate, 0, 4),
                frame(Kind::RstStream, 0, 4),
            ] {
                budget.received(&head, || begun);
            }
            budget.head();
            assert!(!budget.is_spent());
        }
        // Requests that are reset and never answered are no work.
        let resets = passed(&mut budget, frame(Kind::RstStream, 0, 4), begun);
        assert!(resets <= (FRAMES_BURST / RESET_COST) as usize, "{resets}");
    }

    #[test]
    fn bytes_that_are_no_use_pay_for_nothing() {
        let begun = Instant::now();
        let resets = |data: Head| {
            let mut budget = Budget::new(begun);
            let rounds = (0..10_000).take_while(|_| {
                for _ in 0..8 {
                    budget.received(&data, || begun);
                }
                budget.received(&frame(Kind::RstStream, 0, 4), || begun);
                !budget.is_spent()
            });
            rounds.count()
        };
        let most = (FRAMES_BURST / RESET_COST) as usize;
        assert!(resets(frame(Kind::Data, 0, 1)) <= most);
        assert!(resets(frame(Kind::Data, PADDED, 200)) <= most);
        assert_eq!(resets(frame(Kind::Data, 0, USEFUL_BYTES)), 10_000);
    }
}
