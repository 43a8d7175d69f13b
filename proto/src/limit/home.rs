//! Where buckets are kept: what the ledger orders there, and what it answers. Here are those in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Pace;
use super::bucket::Bucket;

/// The name of a bucket: the limit, and the value of its key.
pub type BucketName = (Arc<str>, Box<[u8]>);

/// What the home is asked about one bucket.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Order {
    /// Leased tokens that were spent, or have to be taken for it.
    pub spent: u64,
    /// Leased tokens that came back.
    pub returned: u64,
    /// Tokens that are out already, though they were not leased here.
    pub claimed: u64,
    /// Tokens to lease.
    pub wanted: u64,
    /// No more than so many were left, as somebody remembers.
    pub cap: Option<f64>,
    /// Tokens that were spent and are not debited yet.
    pub debit: u64,
    /// Sessions that speak of it.
    pub sharers: u32,
}

/// What the home answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Tokens that were leased.
    pub leased: u64,
    /// Tokens that are not spent.
    pub unspent: f64,
    /// Until the next whole token.
    pub wait: Duration,
    /// Sessions that speak of it, to whichever controller.
    pub sharers: u32,
}

/// Buckets in memory.
#[derive(Debug)]
pub struct Memory {
    buckets: HashMap<BucketName, Bucket>,
    opens: Instant,
}

impl Memory {
    /// No buckets yet, and nothing is leased from any before it opens: until then it is told of what was before.
    #[must_use]
    pub fn new(opens: Instant) -> Self {
        Self {
            buckets: HashMap::new(),
            opens,
        }
    }

    /// Carries out one order.
    pub fn carry_out(
        &mut self,
        name: BucketName,
        pace: Pace,
        order: &Order,
        now: Instant,
    ) -> Answer {
        let bucket = self
            .buckets
            .entry(name)
            .or_insert_with(|| Bucket::full(pace, now));
        // First of all: what was leased until now kept its room until now.
        bucket.refill(pace, now);
        bucket.spend(order.spent);
        bucket.claim(order.claimed);
        bucket.take_back(order.returned);
        if let Some(cap) = order.cap {
            bucket.cap(cap);
        }
        if order.debit > 0 {
            bucket.debit(pace, order.debit);
        }
        let is_open = now >= self.opens;
        if is_open {
            bucket.open();
        }
        let leased = bucket.lease(if is_open { order.wanted } else { 0 });
        Answer {
            leased,
            unspent: bucket.unspent(pace),
            wait: match is_open {
                true => bucket.wait(pace),
                false => self.opens.saturating_duration_since(now),
            },
            sharers: order.sharers,
        }
    }

    /// Forgets what is full again. Nobody holds a token of those.
    pub fn sweep(&mut self, now: Instant, pace: impl Fn(&str) -> Option<Pace>) {
        self.buckets.retain(|(limit, _), bucket| {
            let Some(pace) = pace(limit) else {
                return false;
            };
            bucket.refill(pace, now);
            !bucket.is_full(pace)
        });
    }
}
