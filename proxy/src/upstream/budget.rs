//! How many retries a service can bear: a fifth of its requests, and [`RETRIES_PER_SECOND`] however few they are. What
//! was earned or is left fades within [`MEMORY`]. Pure: time comes in.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What each request earns.
const EARNED: f64 = 0.2;
/// For services of few requests.
const RETRIES_PER_SECOND: f64 = 10.0;
const MEMORY: Duration = Duration::from_secs(10);
/// How often what was earned is brought up to date.
const TICK: Duration = Duration::from_secs(1);

/// The budget of one service.
#[derive(Debug)]
pub(crate) struct Budget {
    earned: Cell<f64>,
    reserve: Cell<f64>,
    at: Cell<Instant>,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            earned: Cell::new(0.0),
            reserve: Cell::new(RETRIES_PER_SECOND * MEMORY.as_secs_f64()),
            at: Cell::new(now),
        }
    }

    /// A request was made.
    pub(crate) fn earn(&self, now: Instant) {
        self.refresh(now);
        self.earned.set(self.earned.get() + EARNED);
    }

    /// Whether a retry may be made; then it is paid for.
    pub(crate) fn spend(&self, now: Instant) -> bool {
        self.refresh(now);
        let purse = if self.earned.get() >= 1.0 {
            &self.earned
        } else {
            &self.reserve
        };
        let can = purse.get() >= 1.0;
        if can {
            purse.set(purse.get() - 1.0);
        }
        can
    }

    fn refresh(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.at.get());
        if passed < TICK {
            return;
        }
        self.at.set(now);
        let (passed, memory) = (passed.as_secs_f64(), MEMORY.as_secs_f64());
        self.earned
            .set(self.earned.get() * (1.0 - passed / memory).max(0.0));
        let most = RETRIES_PER_SECOND * memory;
        let reserve = self.reserve.get() + passed * RETRIES_PER_SECOND;
        self.reserve.set(reserve.min(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(budget: &Budget, now: Instant) -> usize {
        (0..).take_while(|_| budget.spend(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second() {
        let start = Instant::now();
        let budget = Budget::new(start);
        assert_eq!(retries(&budget, start), 100);
        for second in 1..=5 {
            let now = start + Duration::from_secs(second);
            assert_eq!(retries(&budget, now), 10, "idle");
        }
        let busy = start + Duration::from_secs(6);
        for _ in 0..1000 {
            budget.earn(busy);
        }
        let found = retries(&budget, busy);
        assert!((205..=211).contains(&found), "{found}");
        for _ in 0..1000 {
            budget.earn(busy);
        }
        let later = busy + MEMORY;
        assert_eq!(retries(&budget, later), 100, "what was earned has faded");
    }
}
