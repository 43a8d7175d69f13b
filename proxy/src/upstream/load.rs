//! How much an endpoint has to do, as far as this worker sees it: latency to the response's head, as a moving average
//! that jumps up at once and comes down slowly, times the requests under way. Pure: time comes in.
//!
//! An error is worth no less than a slow answer, however fast it came: else whoever refuses everything would be asked
//! for everything.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Time in which what was measured loses most of its weight.
const MEMORY: Duration = Duration::from_secs(5);
/// What is younger has lost nothing worth a calculation.
const FRESH: Duration = Duration::from_millis(1);
/// Differences far below this are noise.
const NOISE_MICROS: f64 = 1_000.0;
/// What an endpoint that has not answered yet is taken for, once it was asked.
const UNKNOWN_MICROS: f64 = 100_000.0;
/// The least an error is worth; each in a row is worth twice the one before, up to [`ERROR_MICROS_MAX`].
const ERROR_MICROS: f64 = 10_000.0;
const ERROR_MICROS_MAX: f64 = 1_000_000.0;
/// The most an answer is worth: who asks for what takes longer knows that it does.
const ANSWER_MICROS_MAX: f64 = 10_000_000.0;

/// Load of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Load {
    in_flight: Cell<u32>,
    average: Cell<Option<Average>>,
}

#[derive(Debug, Clone, Copy)]
struct Average {
    micros: f64,
    at: Instant,
}

impl Average {
    fn is_fresh(self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < FRESH
    }

    /// What is left of it, and how much of its weight.
    fn decayed(self, now: Instant) -> (f64, f64) {
        let age = now.saturating_duration_since(self.at);
        let weight = (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        (self.micros * weight, weight)
    }
}

impl Load {
    /// What one more request would cost here; only good for comparing. `crowding` is the part of those under way that one
    /// unit of a heavier endpoint has; that is a whole number, by `chance`.
    pub(crate) fn cost(&self, crowding: f64, chance: f64, now: Instant) -> f64 {
        let in_flight = (f64::from(self.in_flight.get()) * crowding + chance).floor();
        match self.average.get() {
            Some(average) if average.is_fresh(now) => {
                (average.micros + NOISE_MICROS) * (in_flight + 1.0)
            }
            Some(average) => (average.decayed(now).0 + NOISE_MICROS) * (in_flight + 1.0),
            // Asked at once, but not by everybody before it has answered.
            None => NOISE_MICROS.max(UNKNOWN_MICROS * in_flight),
        }
    }

    pub(crate) fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub(crate) fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// It answered after so long.
    pub(crate) fn answered(&self, after: Duration, now: Instant) {
        self.put((after.as_secs_f64() * 1e6).min(ANSWER_MICROS_MAX), now);
    }

    /// It failed after so long.
    pub(crate) fn failed(&self, after: Duration, now: Instant) {
        let before = self.average.get().map_or(0.0, |one| one.decayed(now).0);
        let worth = (before * 2.0).clamp(ERROR_MICROS, ERROR_MICROS_MAX);
        let micros = worth.max(after.as_secs_f64() * 1e6);
        self.put(micros.min(ANSWER_MICROS_MAX), now);
    }

    /// Nobody knows what it would have said after so long: worth something only if that was long, and not much, for the
    /// client of a stream on which nothing is said does not wait for an answer.
    pub(crate) fn waited(&self, so_long: Duration, now: Instant) {
        let micros = (so_long.as_secs_f64() * 1e6).min(ERROR_MICROS_MAX);
        if self
            .average
            .get()
            .is_some_and(|average| micros > average.decayed(now).0)
        {
            self.put(micros, now);
        }
    }

    fn put(&self, micros: f64, now: Instant) {
        let averaged = match self.average.get() {
            // One of many in so short a time, and no worse: they are worth one.
            Some(average) if average.is_fresh(now) && micros <= average.micros => return,
            Some(average) => {
                let (left, weight) = average.decayed(now);
                micros.max(left + micros * (1.0 - weight))
            }
            None => micros,
        };
        let average = Average {
            micros: averaged,
            at: now,
        };
        self.average.set(Some(average));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_up_and_comes_down_slowly() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let load = Load::default();
        let cost = |seconds| load.cost(1.0, 0.0, at(seconds)).round();
        let fast = Duration::from_millis(1);
        assert_eq!(cost(0), NOISE_MICROS, "asked at once");
        load.begin();
        assert_eq!(cost(0), UNKNOWN_MICROS, "but not by everybody");
        load.answered(fast, at(0));
        assert_eq!(cost(0), 2.0 * (1_000.0 + NOISE_MICROS));
        load.end();
        load.answered(Duration::from_millis(100), at(0));
        assert_eq!(cost(0), 100_000.0 + NOISE_MICROS);
        load.answered(fast, at(1));
        assert!(cost(1) > 80_000.0);
        load.answered(fast, at(120));
        assert_eq!(cost(120), 1_000.0 + NOISE_MICROS);
    }

    #[test]
    fn errors_in_a_row_cost_more_each_and_silence_costs_something() {
        let now = Instant::now();
        let load = Load::default();
        let mut before = 0.0;
        for _ in 0..6 {
            load.failed(Duration::ZERO, now);
            assert!(load.cost(1.0, 0.0, now) >= before * 1.8);
            before = load.cost(1.0, 0.0, now);
        }
        let load = Load::default();
        load.answered(Duration::from_millis(1), now);
        load.waited(Duration::from_micros(10), now);
        assert_eq!(
            load.cost(1.0, 0.0, now).round(),
            1_000.0 + NOISE_MICROS,
            "no news"
        );
        load.waited(Duration::from_secs(3600), now);
        assert_eq!(
            load.cost(1.0, 0.0, now).round(),
            ERROR_MICROS_MAX + NOISE_MICROS
        );
    }
}
