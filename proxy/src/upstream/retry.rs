//! Whether a request that was not answered well is sent again. Pure.
//!
//! Refused unprocessed: again at once, elsewhere, whatever the method. No answer, where it may have been processed:
//! only idempotent methods (RFC 9110 section 9.2.2). A status: only if the route lists it; then whatever the method,
//! for GEP-1731 binds listed codes to none, and who lists one says that it is safe. Never a 429 that does not say when.
//! Limits: [`TRIES_MAX`], [`RETRY_AFTER_MAX`], the service's budget.

use std::time::Duration;

use crate::error::Reason;
use ringmail_proto::route::Retry;

/// Tries of one request in all, where no route allows more.
pub(crate) const TRIES_MAX: u32 = 3;
/// Tries of one request in all, whatever a route allows.
const ROUTE_TRIES_MAX: u32 = 16;
/// Who asks to be left alone for longer is: the client gets the answer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);
/// What doubling ends at.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest base that a route may ask for.
const BACKOFF_BASE_MAX: Duration = Duration::from_secs(60);

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was processed. Another connection to the same endpoint may do, or not.
    Refused { is_elsewhere: bool },
    /// Something may have been; the app that hung up is not asked the same again.
    Broken { is_elsewhere: bool },
    /// The try's time ran out.
    Late,
    /// It was answered.
    Status {
        status: u16,
        /// From the answer.
        retry_after: Option<Duration>,
    },
}

/// What a request allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Tries so far.
    pub(crate) tries: u32,
    pub(crate) is_idempotent: bool,
    /// The route's word.
    pub(crate) retry: Option<&'a Retry>,
}

/// How to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Again {
    pub(crate) cause: &'static str,
    pub(crate) after: Duration,
    /// It may add to what the service has to do.
    pub(crate) is_paid: bool,
    /// Whoever failed is not asked again.
    pub(crate) is_elsewhere: bool,
}

/// What a reset, or the end of a connection, tells about a request that was not answered; none: it is no use to repeat.
pub(crate) fn failure(reason: Reason) -> Option<Failure> {
    match reason {
        Reason::AppUnreachable
        | Reason::AppRefused
        | Reason::PeerUnreachable
        | Reason::Overloaded => Some(Failure::Refused { is_elsewhere: true }),
        Reason::PeerIdentity
        | Reason::PeerRefusedIdentity
        | Reason::NotReady
        | Reason::Draining => Some(Failure::Refused {
            is_elsewhere: false,
        }),
        Reason::PeerGone => Some(Failure::Broken {
            is_elsewhere: false,
        }),
        Reason::AppGone => Some(Failure::Broken { is_elsewhere: true }),
        Reason::BackendTimeout | Reason::ResponseHeadTimeout => Some(Failure::Late),
        _ => None,
    }
}

/// `chance` is between 0 and 1.
pub(crate) fn decide(failure: Failure, asked: Asked<'_>, chance: f64) -> Option<Again> {
    let most = asked.retry.map_or(TRIES_MAX, |retry| {
        retry.attempts.saturating_add(1).min(ROUTE_TRIES_MAX)
    });
    if asked.tries >= most {
        return None;
    }
    let listed = |status| {
        asked
            .retry
            .is_some_and(|retry| retry.statuses.contains(&status))
    };
    let (cause, least) = match failure {
        Failure::Refused { .. } => ("refused", Duration::ZERO),
        Failure::Broken { .. } if asked.is_idempotent => ("broken", Duration::ZERO),
        // Who waits for so long and then again does so because somebody said that it is worth it.
        Failure::Late if listed(504) || asked.is_idempotent && asked.retry.is_some() => {
            ("timeout", Duration::ZERO)
        }
        Failure::Status {
            status,
            retry_after,
        } if listed(status) => match retry_after {
            None if status == 429 => return None,
            Some(after) if after > RETRY_AFTER_MAX => return None,
            after => ("status", after.unwrap_or_default()),
        },
        Failure::Broken { .. } | Failure::Late | Failure::Status { .. } => return None,
    };
    let is_refused = matches!(failure, Failure::Refused { .. });
    let backoff = match asked.retry {
        Some(retry) if !is_refused => backoff(retry.backoff, asked.tries, chance),
        _ => Duration::ZERO,
    };
    Some(Again {
        cause,
        after: backoff.max(least),
        is_paid: !is_refused,
        is_elsewhere: match failure {
            Failure::Refused { is_elsewhere } | Failure::Broken { is_elsewhere } => is_elsewhere,
            Failure::Late | Failure::Status { .. } => false,
        },
    })
}

/// Doubles with each try; half of it to all of it, by chance.
fn backoff(base: Duration, tries: u32, chance: f64) -> Duration {
    let base = base.min(BACKOFF_BASE_MAX);
    let doubled = base.saturating_mul(1 << tries.saturating_sub(1).min(ROUTE_TRIES_MAX));
    doubled
        .min(BACKOFF_MAX.max(base))
        .mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

/// RFC 9110 section 10.2.3, but for the form that is a date: nobody's clock is asked.
pub(crate) fn retry_after(value: &[u8]) -> Option<Duration> {
    let seconds = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A gRPC deadline, as in `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Failure = Failure::Refused { is_elsewhere: true };
    const BROKEN: Failure = Failure::Broken { is_elsewhere: true };

    const fn status(status: u16, seconds: Option<u64>) -> Failure {
        let retry_after = match seconds {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => None,
        };
        Failure::Status {
            status,
            retry_after,
        }
    }

    #[test]
    fn who_is_asked_again() {
        let listed = Retry {
            attempts: 2,
            statuses: vec![429, 503],
            backoff: Duration::from_millis(100),
        };
        let never = Retry {
            attempts: 0,
            ..listed.clone()
        };
        // The failure, tries so far, whether idempotent; then whether again without a route, with it, with attempts: 0.
        let rows: &[(Failure, u32, bool, [bool; 3])] = &[
            (REFUSED, 1, false, [true, true, false]),
            (REFUSED, 3, false, [false, false, false]),
            (BROKEN, 1, true, [true, true, false]),
            (BROKEN, 1, false, [false, false, false]),
            (Failure::Late, 1, true, [false, true, false]),
            (Failure::Late, 1, false, [false, false, false]),
            (status(503, None), 1, false, [false, true, false]),
            (status(503, None), 3, true, [false, false, false]),
            (status(500, None), 1, true, [false, false, false]),
            (status(429, None), 1, true, [false, false, false]),
            (status(429, Some(1)), 1, true, [false, true, false]),
            (status(429, Some(60)), 1, true, [false, false, false]),
            (status(503, Some(60)), 1, true, [false, false, false]),
        ];
        for (failure, tries, is_idempotent, expected) in rows {
            for (retry, expected) in [None, Some(&listed), Some(&never)]
                .into_iter()
                .zip(expected)
            {
                let asked = Asked {
                    tries: *tries,
                    is_idempotent: *is_idempotent,
                    retry,
                };
                let again = decide(*failure, asked, 0.5);
                assert_eq!(again.is_some(), *expected, "{failure:?} {asked:?}");
            }
        }
    }

    #[test]
    fn backoff_doubles_and_has_an_end() {
        let base = Duration::from_millis(100);
        assert_eq!(backoff(base, 1, 1.0), base);
        assert_eq!(backoff(base, 3, 1.0), base * 4);
        assert_eq!(backoff(base, 3, 0.0), base * 2);
        assert_eq!(backoff(base, u32::MAX, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(Duration::MAX, 9, 1.0), BACKOFF_BASE_MAX);
    }

    #[test]
    fn deadlines_of_grpc() {
        let rows: &[(&[u8], Option<Duration>)] = &[
            (b"1H", Some(Duration::from_secs(3600))),
            (b"2M", Some(Duration::from_secs(120))),
            (b"3S", Some(Duration::from_secs(3))),
            (b"100m", Some(Duration::from_millis(100))),
            (b"99999999u", Some(Duration::from_micros(99_999_999))),
            (b"5n", Some(Duration::from_nanos(5))),
            (b"", None),
            (b"S", None),
            (b"123456789S", None),
            (b"-1S", None),
            (b"1s", None),
        ];
        for (text, expected) in rows {
            assert_eq!(grpc_timeout(text), *expected, "{text:?}");
        }
    }
}
