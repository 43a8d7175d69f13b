//! One key's tokens, as the ledger keeps them.
//!
//! Tokens that are leased and not known to be spent keep their room in the bucket: `level + leased <= burst`, always.
//! Whatever can be spent from some moment on is in the level or in a lease then, or is refilled later. So in any window
//! `w`, and whoever spends when, at most `rate * w + burst` is spent.

use std::time::{Duration, Instant};

use super::Pace;

/// The tokens of one key.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    level: f64,
    leased: u64,
    at: Instant,
    /// What was debited before it opened.
    told: u64,
}

impl Bucket {
    /// One that nobody has taken from for long.
    #[must_use]
    pub fn full(pace: Pace, now: Instant) -> Self {
        Self {
            level: pace.burst_tokens(),
            leased: 0,
            at: now,
            told: 0,
        }
    }

    /// What came in since, as far as there is room.
    pub fn refill(&mut self, pace: Pace, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let room = (pace.burst_tokens() - tokens(self.leased)).max(0.0);
        self.level = (self.level + pace.per_second() * passed.as_secs_f64()).min(room);
    }

    /// Leased tokens were spent, or have to be taken for spent.
    pub fn spend(&mut self, spent: u64) {
        self.leased = self.leased.saturating_sub(spent);
    }

    /// Leased tokens came back.
    pub fn take_back(&mut self, returned: u64) {
        let returned = returned.min(self.leased);
        self.leased -= returned;
        self.level += tokens(returned);
    }

    /// Leases as many whole tokens as there are, of those wanted.
    pub fn lease(&mut self, wanted: u64) -> u64 {
        let leased = wanted.min(self.whole());
        self.level -= tokens(leased);
        self.leased += leased;
        leased
    }

    /// No more than this was left: somebody remembers, and knows nothing of what others told before.
    pub fn cap(&mut self, unspent: f64) {
        let left = (unspent - tokens(self.leased)).max(0.0) - tokens(self.told);
        self.level = self.level.min(left);
    }

    /// So many were spent that were not leased here. What is owed is bounded: nobody is refused for long because of it.
    pub fn debit(&mut self, pace: Pace, spent: u64) {
        self.level = (self.level - tokens(spent)).max(-pace.burst_tokens());
        self.told = self.told.saturating_add(spent);
    }

    /// All who come in time have told.
    pub fn open(&mut self) {
        self.told = 0;
    }

    /// Tokens that nobody has spent.
    #[must_use]
    pub fn unspent(&self) -> f64 {
        self.level + tokens(self.leased)
    }

    /// Until there is a whole token more than there is.
    #[must_use]
    pub fn wait(&self, pace: Pace) -> Duration {
        let missing = 1.0 - (self.level - tokens(self.whole()));
        Duration::try_from_secs_f64(missing / pace.per_second()).unwrap_or(Duration::MAX)
    }

    /// Whether forgetting it changes nothing.
    #[must_use]
    pub fn is_full(&self, pace: Pace) -> bool {
        self.leased == 0 && self.level >= pace.burst_tokens()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole tokens, of a level that the burst bounds; one below zero is none"
    )]
    fn whole(&self) -> u64 {
        // A token is there when all but a rounding error of it is.
        (self.level + ROUNDING).max(0.0) as u64
    }
}

/// Of a token: what many small refills may lack.
const ROUNDING: f64 = 1e-6;

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, and no burst is larger"
)]
pub(super) fn tokens(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(tokens: u32, seconds: u64, burst: u32) -> Pace {
        Pace {
            tokens,
            period: Duration::from_secs(seconds),
            burst,
        }
    }

    #[test]
    fn what_is_leased_keeps_its_room() {
        let start = Instant::now();
        let ten = pace(10, 1, 10);
        let mut bucket = Bucket::full(ten, start);
        assert_eq!(bucket.lease(6), 6);
        let later = start + Duration::from_secs(60);
        bucket.refill(ten, later);
        assert_eq!(bucket.lease(10), 4, "six are out");
        bucket.spend(10);
        bucket.refill(ten, later);
        assert_eq!(bucket.lease(10), 0, "and refilled by time alone");
        bucket.refill(ten, later + Duration::from_millis(300));
        assert_eq!(bucket.lease(10), 3);
    }

    #[test]
    fn what_comes_back_is_there_at_once() {
        let start = Instant::now();
        let ten = pace(10, 60, 10);
        let mut bucket = Bucket::full(ten, start);
        assert_eq!(bucket.lease(10), 10);
        bucket.take_back(4);
        assert_eq!(bucket.lease(10), 4);
        bucket.take_back(99);
        assert!(bucket.is_full(ten), "no more comes back than was leased");
    }

    /// Whoever tells last knew the least of what the others spent.
    #[test]
    fn memories_count_alike_in_any_order() {
        let start = Instant::now();
        let ten = pace(10, 60, 10);
        let memories = [(9.0, 4), (7.0, 1), (8.0, 0)];
        for first in 0..memories.len() {
            let mut bucket = Bucket::full(ten, start);
            for n in 0..memories.len() {
                let (unspent, spent) = memories[(first + n) % memories.len()];
                bucket.cap(unspent);
                bucket.debit(ten, spent);
            }
            bucket.open();
            assert_eq!(bucket.lease(10), 2, "7 less what the others spent since");
        }
    }

    #[test]
    fn the_wait_is_for_one_token() {
        let start = Instant::now();
        let slow = pace(10, 60, 1);
        let mut bucket = Bucket::full(slow, start);
        assert_eq!(bucket.lease(1), 1);
        bucket.spend(1);
        assert_eq!(bucket.wait(slow).as_millis(), 6000);
        let early = start + Duration::from_millis(5999);
        bucket.refill(slow, early);
        assert_eq!(bucket.lease(1), 0);
        let there = early + bucket.wait(slow);
        bucket.refill(slow, there);
        assert_eq!(bucket.lease(1), 1);
    }

    #[test]
    fn a_clock_that_goes_back_refills_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let one = pace(1, 1, 1);
        let mut bucket = Bucket::full(one, start);
        assert_eq!(bucket.lease(1), 1);
        bucket.spend(1);
        bucket.refill(one, start - Duration::from_secs(5));
        bucket.refill(one, start);
        assert_eq!(bucket.lease(1), 0);
    }
}
