//! A bucket of one proxy's own, in one atomic number: when it will be full again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Pace;

/// A bucket of one proxy's own. Times are since whatever its caller counts from.
#[derive(Debug, Default)]
pub struct Local {
    full_at: AtomicU64,
}

impl Local {
    /// Spends `cost` tokens of a share in `sharers`, or says how long until there are so many. With `spends` false nothing
    /// is spent.
    pub fn take(
        &self,
        pace: Pace,
        sharers: u32,
        cost: u32,
        now: Duration,
        spends: bool,
    ) -> Result<(), Duration> {
        let (now, share) = (nanos(now), Share::of(pace, sharers));
        let cost = share.token.saturating_mul(cost.into());
        let next = |full_at: u64| {
            let next = full_at.max(now).saturating_add(cost);
            // What costs more than there ever is has the whole bucket.
            let most = now.saturating_add(share.bucket.max(cost));
            (next <= most).then_some(next)
        };
        let taken = match spends {
            true => self
                .full_at
                .try_update(Ordering::Relaxed, Ordering::Relaxed, next),
            false => {
                let full_at = self.full_at.load(Ordering::Relaxed);
                next(full_at).ok_or(full_at)
            }
        };
        taken.map(|_| ()).map_err(|full_at| {
            let there = full_at
                .saturating_add(cost)
                .saturating_sub(share.bucket.max(cost));
            Duration::from_nanos(there.saturating_sub(now))
        })
    }

    /// Nothing is left: what there was is spent elsewhere.
    pub fn empty(&self, pace: Pace, sharers: u32, now: Duration) {
        let full_at = nanos(now).saturating_add(Share::of(pace, sharers).bucket);
        self.full_at.fetch_max(full_at, Ordering::Relaxed);
    }

    /// Whether forgetting it changes nothing.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at.load(Ordering::Relaxed) <= nanos(now)
    }
}

/// A part of a limit, in nanoseconds.
struct Share {
    /// In which one token comes.
    token: u64,
    /// In which a whole bucket does.
    bucket: u64,
}

impl Share {
    fn of(pace: Pace, sharers: u32) -> Self {
        let sharers = u64::from(sharers.max(1));
        let token = nanos(pace.period).saturating_mul(sharers) / u64::from(pace.tokens);
        // The same for a share as for the whole, but never less than one token.
        let bucket = token.saturating_mul((u64::from(pace.burst) / sharers).max(1));
        Self { token, bucket }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Pace = Pace {
        tokens: 10,
        period: Duration::from_secs(1),
        burst: 20,
    };

    fn admitted(local: &Local, sharers: u32, from: u64, milliseconds: u64) -> usize {
        let times = (from..from + milliseconds).map(Duration::from_millis);
        times
            .filter(|now| local.take(TEN, sharers, 1, *now, true).is_ok())
            .count()
    }

    #[test]
    fn the_burst_then_the_rate() {
        let local = Local::default();
        assert_eq!(admitted(&local, 1, 5000, 10_000), 20 + 99);
        assert_eq!(admitted(&local, 1, 60_000, 30), 20, "full again");
    }

    #[test]
    fn a_share_is_a_part_of_both() {
        let local = Local::default();
        assert_eq!(admitted(&local, 5, 5000, 10_000), 4 + 19);
        let many = Local::default();
        assert_eq!(admitted(&many, 1000, 5000, 10_000), 1, "one token at least");
    }

    #[test]
    fn who_is_refused_knows_how_long() {
        let local = Local::default();
        let now = Duration::from_secs(5);
        assert_eq!(local.take(TEN, 1, 20, now, true), Ok(()));
        assert_eq!(
            local.take(TEN, 1, 3, now, true),
            Err(Duration::from_millis(300))
        );
        assert_eq!(
            local.take(TEN, 1, 3, now, false),
            Err(Duration::from_millis(300))
        );
        let later = now + Duration::from_millis(300);
        assert_eq!(
            local.take(TEN, 1, 3, later, false),
            Ok(()),
            "which spends nothing"
        );
        assert_eq!(local.take(TEN, 1, 3, later, true), Ok(()));
        local.empty(TEN, 1, later);
        assert!(local.take(TEN, 1, 1, later, true).is_err());
        assert!(!local.is_full(later) && local.is_full(later + Duration::from_secs(2)));
    }
}
