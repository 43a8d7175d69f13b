//! How much of a key's tokens was spent of late, and how many of its requests were refused: sums that fade, so that nothing
//! but two numbers is kept of what was.

use std::time::{Duration, Instant};

use super::Pace;
use super::bucket::tokens;

/// How long ago is late; what was spent of a limit whose period is longer fades with that.
const LATELY: Duration = Duration::from_secs(5);

/// Of one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recent {
    spent: f64,
    refused: f64,
    at: Instant,
}

/// How often, in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    pub(super) spent: f64,
    pub(super) refused: f64,
}

impl Recent {
    /// Of a key of which nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            spent: 0.0,
            refused: 0.0,
            at: now,
        }
    }

    /// So many tokens were spent, and so many requests refused.
    pub(super) fn count(&mut self, pace: Pace, spent: u64, refused: u64, now: Instant) {
        self.fade(pace, now);
        self.spent += tokens(spent);
        self.refused += tokens(refused);
    }

    /// So many tokens are left. What is missing was spent of late, by whomever: by those whom another ledger serves, or
    /// before this one began. How long ago a burst was that is longer than that, this does not say.
    pub(super) fn learn(&mut self, pace: Pace, unspent: f64, now: Instant) {
        if pace.is_at_once() {
            return;
        }
        self.fade(pace, now);
        let most = pace.per_second() * horizon(pace).as_secs_f64();
        let missing = (pace.burst_tokens() - unspent).min(most);
        self.spent = self.spent.max(missing);
    }

    pub(super) fn rates(mut self, pace: Pace, now: Instant) -> Rates {
        self.fade(pace, now);
        Rates {
            spent: self.spent / horizon(pace).as_secs_f64(),
            refused: self.refused / LATELY.as_secs_f64(),
        }
    }

    fn fade(&mut self, pace: Pace, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.spent *= (-passed.div_duration_f64(horizon(pace))).exp();
        self.refused *= (-passed.div_duration_f64(LATELY)).exp();
    }
}

/// What a period brings is not gone before it is over.
fn horizon(pace: Pace) -> Duration {
    match pace.is_at_once() {
        true => LATELY,
        false => pace.period.max(LATELY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(tokens: u32, seconds: u64) -> Pace {
        Pace {
            tokens,
            period: Duration::from_secs(seconds),
            burst: tokens,
        }
    }

    /// Shares of what a limit lets through.
    fn share(recent: Recent, pace: Pace, now: Instant) -> f64 {
        recent.rates(pace, now).spent / pace.per_second()
    }

    #[test]
    fn what_is_spent_steadily_is_its_share_and_fades() {
        let (start, hundred) = (Instant::now(), pace(100, 1));
        let mut recent = Recent::new(start);
        let at = |tick: u32| start + Duration::from_millis(100) * tick;
        for tick in 1..=400 {
            recent.count(hundred, 7, 3, at(tick));
        }
        let found = share(recent, hundred, at(400));
        assert!((found - 0.7).abs() < 0.02, "{found}");
        let refused = recent.rates(hundred, at(400)).refused;
        assert!((refused - 30.0).abs() < 1.0, "{refused}");
        let later = recent.rates(hundred, at(700));
        assert!(later.spent < 0.5 && later.refused < 0.5, "{later:?}");
        // Clocks that go back change nothing.
        recent.count(hundred, 0, 0, start);
        assert!((share(recent, hundred, at(400)) - found).abs() < 0.001);
    }

    #[test]
    fn what_a_long_period_brings_is_seen_for_as_long() {
        let (start, hourly) = (Instant::now(), pace(10, 3600));
        let mut recent = Recent::new(start);
        recent.count(hourly, 10, 0, start);
        let soon = share(recent, hourly, start + Duration::from_secs(60));
        assert!((0.95..=1.0).contains(&soon), "{soon}");
    }

    #[test]
    fn what_others_spent_is_missing() {
        let (now, hourly, fast) = (Instant::now(), pace(10, 3600), pace(100, 1));
        let mut recent = Recent::new(now);
        recent.learn(hourly, 4.0, now);
        assert!((share(recent, hourly, now) - 0.6).abs() < 0.001);
        recent.learn(hourly, 9.0, now);
        assert!((share(recent, hourly, now) - 0.6).abs() < 0.001, "no news");

        let burst = Pace {
            burst: 100_000,
            ..fast
        };
        let mut recent = Recent::new(now);
        recent.learn(burst, 0.0, now);
        assert!((share(recent, burst, now) - 1.0).abs() < 0.001);
        let mut recent = Recent::new(now);
        recent.learn(Pace::at_once(5), 0.0, now);
        assert!(recent.rates(Pace::at_once(5), now).spent < 0.001);
    }
}
