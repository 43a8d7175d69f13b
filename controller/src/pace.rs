//! How often one may ask: token buckets, pure. Memory is bounded by `KEYS_MAX`; a bucket that is full again is
//! forgotten, which changes nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Buckets kept at once.
pub(crate) const KEYS_MAX: usize = 100_000;

/// How much, how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Tokens in a full bucket.
    pub(crate) burst: u32,
    /// Time in which one token comes back.
    pub(crate) refill: Duration,
}

/// One bucket: the instant at which it will be full again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub(crate) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes one token, or says how long until there is one.
    pub(crate) fn take(&mut self, pace: Pace, now: Instant) -> Result<(), Duration> {
        let next = self.full_at.max(now) + pace.refill;
        let excess = next.saturating_duration_since(now);
        match excess.checked_sub(pace.refill * pace.burst) {
            None | Some(Duration::ZERO) => {
                self.full_at = next;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

/// A bucket for each key.
#[derive(Debug)]
pub(crate) struct Paces<K> {
    pace: Pace,
    buckets: HashMap<K, Bucket>,
}

impl<K: Hash + Eq + Clone> Paces<K> {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            buckets: HashMap::new(),
        }
    }

    /// Whether `key` has a token left, or how long until there is one; takes none.
    pub(crate) fn wait(&self, key: &K, now: Instant) -> Result<(), Duration> {
        match self.buckets.get(key) {
            Some(bucket) => Bucket { ..*bucket }.take(self.pace, now),
            None => Ok(()),
        }
    }

    /// Takes one token of `key`, or says how long until there is one. Too many keys at once are refused.
    pub(crate) fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        if !self.buckets.contains_key(key) && self.buckets.len() >= KEYS_MAX {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
            if self.buckets.len() >= KEYS_MAX {
                return Err(self.pace.refill);
            }
        }
        self.buckets
            .entry(key.clone())
            .or_insert_with(|| Bucket::full(now))
            .take(self.pace, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_per_refill() {
        let pace = Pace {
            burst: 3,
            refill: Duration::from_secs(1),
        };
        let start = Instant::now();
        let mut paces = Paces::new(pace);
        let rows = [
            (0, "a", true),
            (0, "a", true),
            (0, "a", true),
            (0, "a", false),
            (0, "b", true),
            (900, "a", false),
            (1000, "a", true),
            (1000, "a", false),
            (60_000, "a", true),
            (60_000, "a", true),
            (60_000, "a", true),
            (60_000, "a", false),
        ];
        for (row, (at, key, admitted)) in rows.into_iter().enumerate() {
            let now = start + Duration::from_millis(at);
            assert_eq!(paces.take(&key, now).is_ok(), admitted, "row {row}");
        }
    }

    #[test]
    fn keys_are_bounded() {
        let mut paces = Paces::new(Pace {
            burst: 1,
            refill: Duration::from_secs(1),
        });
        let now = Instant::now();
        for key in 0..KEYS_MAX {
            assert!(paces.take(&key, now).is_ok());
        }
        assert!(paces.take(&KEYS_MAX, now).is_err());
        assert!(paces.take(&KEYS_MAX, now + Duration::from_secs(2)).is_ok());
        assert_eq!(paces.buckets.len(), 1);
    }
}
