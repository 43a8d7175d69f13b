//! What a server's proxy tells its client's: for a while all that it asks there is refused, so that it refuses that itself and
//! asks again afterwards. Only of limits whose buckets tell callers apart and nothing of what they ask, and only of waits that
//! are worth it: where tokens come sooner, who asks for them is what they are leased by.
//!
//! Pure. Limits: [`WAIT_MIN`], and [`SHED_MAX`] until the server is asked again: what it says then may be another policy's.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::limit::Pace;

use super::Exceeded;

/// The shortest wait that is told.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// How long a client's proxy asks nothing.
const SHED_MAX: Duration = Duration::from_secs(1);
/// Bytes of a limit's name.
const NAME_BYTES_MAX: usize = 512;

/// As it is told: milliseconds, how many in how many seconds, and the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exhausted {
    wait: Duration,
    pace: Pace,
    limit: Arc<str>,
}

/// As a client's proxy keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Spell {
    /// Until the server is asked again.
    pub(crate) shed_until: Instant,
    until: Instant,
    pace: Pace,
    limit: Arc<str>,
}

impl Exhausted {
    /// None where the client's proxy could not tell what else is refused.
    pub(super) fn of(exceeded: &Exceeded) -> Option<Self> {
        let is_worth_it = exceeded.is_of_caller && exceeded.wait >= WAIT_MIN;
        let pace = exceeded.pace.filter(|_| is_worth_it)?;
        Some(Self {
            wait: exceeded.wait,
            pace,
            limit: exceeded.limit.clone(),
        })
    }

    /// None where it is not understood: then the server is asked.
    pub(crate) fn parse(field: &[u8]) -> Option<Self> {
        let mut parts = str::from_utf8(field).ok()?.splitn(4, ' ');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let wait = Duration::from_millis(number()?);
        let tokens = u32::try_from(number()?).ok()?;
        let period = Duration::from_secs(number()?);
        let limit = parts.next().filter(|limit| limit.len() <= NAME_BYTES_MAX)?;
        let pace = Pace {
            tokens,
            period,
            burst: tokens,
        };
        Some(Self {
            wait,
            pace,
            limit: limit.into(),
        })
    }

    /// From `now` on.
    pub(crate) fn begin(self, now: Instant) -> Spell {
        Spell {
            shed_until: now + self.wait.min(SHED_MAX),
            until: now.checked_add(self.wait).unwrap_or(now),
            pace: self.pace,
            limit: self.limit,
        }
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wait, period) = (self.wait.as_millis(), self.pace.period.as_secs());
        write!(f, "{wait} {} {period} {}", self.pace.tokens, self.limit)
    }
}

impl Spell {
    /// What a client is told meanwhile.
    pub(super) fn exceeded(&self, now: Instant) -> Exceeded {
        Exceeded {
            limit: self.limit.clone(),
            pace: Some(self.pace),
            wait: self.until.saturating_duration_since(now),
            is_of_caller: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Pace = Pace {
        tokens: 10,
        period: Duration::from_secs(60),
        burst: 10,
    };

    #[test]
    fn what_is_told_is_read_and_nothing_else() {
        let told = Exhausted {
            wait: Duration::from_millis(5980),
            pace: TEN,
            limit: "shop/calls/0".into(),
        };
        assert_eq!(told.to_string(), "5980 10 60 shop/calls/0");
        assert_eq!(
            Exhausted::parse(told.to_string().as_bytes()),
            Some(told.clone())
        );
        let long = format!("1 1 1 {}", "a".repeat(NAME_BYTES_MAX + 1));
        let huge = "99999999999999999999 1 1 shop";
        for bad in ["", "7", "7 1 1", "x 1 1 shop", "-1 1 1 shop", huge, &long] {
            assert_eq!(Exhausted::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Exhausted::parse(b"1 1 1 \xff"), None);

        let now = Instant::now();
        let spell = told.begin(now);
        assert_eq!(spell.shed_until, now + SHED_MAX, "then it is asked again");
        let later = now + Duration::from_millis(980);
        assert_eq!(spell.exceeded(later).wait, Duration::from_secs(5));
        let endless = Exhausted::parse(b"18446744073709551615 1 1 shop").expect("read");
        assert_eq!(endless.begin(now).shed_until, now + SHED_MAX);
    }

    #[test]
    fn it_is_told_where_nothing_else_could_be_let_through() {
        let exceeded = |is_of_caller, wait| Exceeded {
            limit: "shop/calls/0".into(),
            pace: Some(TEN),
            wait,
            is_of_caller,
        };
        let rows = [
            (true, WAIT_MIN, true),
            (true, WAIT_MIN - Duration::from_millis(1), false),
            (false, Duration::from_secs(60), false),
        ];
        for (is_of_caller, wait, expected) in rows {
            let told = Exhausted::of(&exceeded(is_of_caller, wait));
            assert_eq!(told.is_some(), expected, "{is_of_caller} {wait:?}");
        }
    }
}
