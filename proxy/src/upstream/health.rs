//! Whether an endpoint is asked at all. Pure: time and chance come in.
//!
//! It is ejected when a connection to it cannot be made, or after [`FAILURES_MAX`] failures in a row. When its time is
//! up one real request is sent as a probe; that takes it back or doubles the time, from [`BACKOFF_MIN`] to
//! [`BACKOFF_MAX`]. Any success takes it back: where all are out, requests go to the least bad all the same.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Failures in a row.
const FAILURES_MAX: u32 = 5;
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How a request to an endpoint failed, as far as its health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// There is no connection to it.
    Connect,
    /// No answer, or a broken one.
    Broken,
    /// An answer of the gateway class: 502, 503, 504, or gRPC's UNAVAILABLE.
    Status,
}

impl Cause {
    /// For metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Status => "status",
        }
    }
}

/// Health of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: Cell<u32>,
    ejected: Cell<Option<Ejected>>,
}

#[derive(Debug, Clone, Copy)]
struct Ejected {
    until: Instant,
    backoff: Duration,
    cause: Cause,
}

/// What a failure or a success changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Ejected,
    TakenBack,
}

impl Health {
    /// When its time is up, if it is ejected.
    pub(crate) fn ejected_until(&self) -> Option<Instant> {
        self.ejected.get().map(|ejected| ejected.until)
    }

    /// A probe is on its way: the next one leaves a back-off later, should nobody hear of this one.
    pub(crate) fn probed(&self, now: Instant, chance: f64) {
        if let Some(ejected) = self.ejected.get() {
            let until = now + jittered(ejected.backoff, chance);
            self.ejected.set(Some(Ejected { until, ..ejected }));
        }
    }

    /// A stream was opened: worth something only where there had been no connection.
    pub(crate) fn connected(&self) -> Change {
        match self.ejected.get() {
            Some(ejected) if ejected.cause == Cause::Connect => self.succeeded(),
            Some(_) | None => Change::None,
        }
    }

    pub(crate) fn succeeded(&self) -> Change {
        self.failures.set(0);
        match self.ejected.take() {
            Some(_) => Change::TakenBack,
            None => Change::None,
        }
    }

    /// `chance` is between 0 and 1.
    pub(crate) fn failed(&self, cause: Cause, is_probe: bool, now: Instant, chance: f64) -> Change {
        let (backoff, change) = match self.ejected.get() {
            // What was under way, or was sent for want of a better one, tells nothing new.
            Some(_) if !is_probe => return Change::None,
            Some(ejected) => ((ejected.backoff * 2).min(BACKOFF_MAX), Change::None),
            None => {
                let failures = self.failures.get() + 1;
                self.failures.set(failures);
                if cause != Cause::Connect && failures < FAILURES_MAX {
                    return Change::None;
                }
                self.failures.set(0);
                (BACKOFF_MIN, Change::Ejected)
            }
        };
        let until = now + jittered(backoff, chance);
        self.ejected.set(Some(Ejected {
            until,
            backoff,
            cause,
        }));
        change
    }
}

/// Three quarters to five quarters of it, and never outside the bounds.
fn jittered(backoff: Duration, chance: f64) -> Duration {
    backoff
        .mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0)
        .clamp(BACKOFF_MIN, BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_failures_eject_and_probes_decide() {
        let now = Instant::now();
        let health = Health::default();
        let fail = |cause, is_probe, at| health.failed(cause, is_probe, at, 0.5);
        for _ in 1..FAILURES_MAX {
            assert_eq!(fail(Cause::Status, false, now), Change::None);
        }
        assert_eq!(health.succeeded(), Change::None);
        for _ in 1..FAILURES_MAX {
            assert_eq!(fail(Cause::Broken, false, now), Change::None);
        }
        assert_eq!(fail(Cause::Status, false, now), Change::Ejected);
        let until = health.ejected_until().expect("ejected");
        assert_eq!(until, now + BACKOFF_MIN);
        // Those that were under way do not make it worse.
        assert_eq!(fail(Cause::Broken, false, now), Change::None);
        assert_eq!(health.ejected_until(), Some(until));
        assert_eq!(health.connected(), Change::None, "that was not the trouble");
        // One probe at a time; each that fails doubles the time, up to the limit.
        let mut at = until;
        let mut expected = BACKOFF_MIN;
        for _ in 0..10 {
            health.probed(at, 0.5);
            assert!(health.ejected_until().is_some_and(|until| until > at));
            assert_eq!(fail(Cause::Connect, true, at), Change::None);
            expected = (expected * 2).min(BACKOFF_MAX);
            assert_eq!(health.ejected_until(), Some(at + expected));
            at += expected;
        }
        assert_eq!(health.connected(), Change::TakenBack, "the last cause");
        assert_eq!(health.ejected_until(), None);
    }

    #[test]
    fn who_cannot_be_connected_to_is_ejected_at_once() {
        let (health, now) = (Health::default(), Instant::now());
        assert_eq!(
            health.failed(Cause::Connect, false, now, 0.0),
            Change::Ejected
        );
    }

    #[test]
    fn jitter_stays_within_the_bounds() {
        for seconds in [1, 2, 30, 60] {
            for chance in [0.0, 0.5, 1.0] {
                let jittered = jittered(Duration::from_secs(seconds), chance);
                assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&jittered));
            }
        }
    }
}
