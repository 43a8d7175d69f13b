//! What a contender did, beside what one bucket would have done that every request asks at once.

use std::time::Duration;

use ringmail_proto::limit::Pace;
use serde::Serialize;

/// How a figure is to be read, for the table.
pub(crate) const DEFINITION: &str = "\
ideal: what one token bucket of that rate and burst admits of the same requests as they really came, each in the middle of\n\
when it was asked and answered. over, lost: what was admitted more, or less, than that in the whole run, in percent of it.\n\
window: the most by which requests that were asked and answered within one window, of any length, are more than\n\
rate * w + burst; what is above 0 broke the limit.";

/// Percent that may be admitted more, or lost, of many; and requests, of few.
const PERCENT_MAX: f64 = 1.0;
const REQUESTS_MAX: f64 = 2.0;
/// From this many a second on, percents are what counts.
const MANY: f64 = 1000.0;

/// One request that came. Times are since the run began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) at: Duration,
    pub(crate) answered: Duration,
    pub(crate) outcome: Outcome,
    /// Whether a limit is for it.
    pub(crate) is_limited: bool,
}

impl Asked {
    /// About when a limiter saw it.
    fn middle(&self) -> Duration {
        (self.at + self.answered) / 2
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Admitted,
    Refused,
    /// Answered otherwise, or not at all.
    Failed,
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    pub(crate) asked: usize,
    pub(crate) admitted: usize,
    pub(crate) failed: usize,
    pub(crate) ideal: usize,
    pub(crate) over_percent: f64,
    pub(crate) lost_percent: f64,
    /// Requests by which the worst window is above the limit.
    pub(crate) window: f64,
    pub(crate) is_met: bool,
}

/// One token bucket.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    pub(crate) level: f64,
    at: Duration,
}

impl Bucket {
    /// A full one, of a part of a limit.
    pub(crate) fn full(pace: Pace, part: f64) -> Self {
        // A bucket for less than a token would never give one.
        let burst = (f64::from(pace.burst) * part).max(1.0);
        Self {
            rate: f64::from(pace.tokens) / pace.period.as_secs_f64() * part,
            burst,
            level: burst,
            at: Duration::ZERO,
        }
    }

    pub(crate) fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.level = (self.level + passed.as_secs_f64() * self.rate).min(self.burst);
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        self.refill(now);
        let is_there = self.level >= 1.0 - 1e-9;
        self.level -= f64::from(u8::from(is_there));
        is_there
    }
}

/// Judges a run under one limit.
pub(crate) fn judge(pace: Pace, all: &[Asked]) -> Verdict {
    let mut limited: Vec<Asked> = all.iter().filter(|one| one.is_limited).copied().collect();
    limited.sort_by_key(|one| one.at);
    let mut came: Vec<_> = limited.iter().map(Asked::middle).collect();
    came.sort_unstable();
    let mut bucket = Bucket::full(pace, 1.0);
    let ideal = came.iter().filter(|at| bucket.take(**at)).count();
    let count = |outcome| limited.iter().filter(|one| one.outcome == outcome).count();
    let admitted = count(Outcome::Admitted);
    let more = admitted as f64 - ideal as f64;
    let percent = 100.0 * more / (ideal as f64).max(1.0);
    let per_second = f64::from(pace.tokens) / pace.period.as_secs_f64();
    let is_within = match per_second >= MANY {
        true => percent.abs() <= PERCENT_MAX,
        false => more.abs() <= REQUESTS_MAX,
    };
    let failed = all.iter().filter(|one| one.outcome == Outcome::Failed);
    let failed = failed.count();
    Verdict {
        asked: limited.len(),
        admitted,
        failed,
        ideal,
        over_percent: percent.max(0.0),
        lost_percent: (-percent).max(0.0),
        window: worst_window(pace, &limited),
        is_met: is_within && failed == 0,
    }
}

/// A request was decided somewhere between when it was asked and when it was answered: only what has both within a window
/// counts there. `all` is in the order of asking.
fn worst_window(pace: Pace, all: &[Asked]) -> f64 {
    let rate = f64::from(pace.tokens) / pace.period.as_secs_f64();
    let admitted = all.iter().filter(|one| one.outcome == Outcome::Admitted);
    let admitted: Vec<_> = admitted.collect();
    // Of the window that begins with each: how many are in it, and what it may hold less than one from the run's begin.
    let mut windows: Vec<f64> = admitted
        .iter()
        .map(|one| one.at.as_secs_f64() * rate)
        .collect();
    let mut by_answer: Vec<usize> = (0..admitted.len()).collect();
    by_answer.sort_by_key(|n| admitted[*n].answered);
    let (mut worst, mut latest) = (f64::NEG_INFINITY, 0);
    for n in by_answer {
        windows[..=n].iter_mut().for_each(|window| *window += 1.0);
        latest = latest.max(n);
        let most = windows[..=latest].iter().copied().fold(0.0, f64::max);
        worst = worst.max(most - admitted[n].answered.as_secs_f64() * rate);
    }
    worst - f64::from(pace.burst)
}
