//! Points in time as records have them, in UTC. Pure: whoever asks brings the time.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// RFC 3339, to the microsecond: `2026-11-22T17:30:00.000000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(pub SystemTime);

/// As web servers write it: `22/Nov/2026:17:30:00 +0000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApacheTime(pub SystemTime);

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = since_epoch(self.0);
        let (year, month, day) = date(elapsed);
        let (hour, minute, second) = time_of_day(elapsed);
        let micros = elapsed.subsec_micros();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

impl fmt::Display for ApacheTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = since_epoch(self.0);
        let (year, month, day) = date(elapsed);
        let (hour, minute, second) = time_of_day(elapsed);
        let month = MONTHS[usize::from(month) - 1];
        write!(
            f,
            "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000"
        )
    }
}

/// A clock before 1970 is wrong anyway.
fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn time_of_day(elapsed: Duration) -> (u64, u64, u64) {
    let seconds = elapsed.as_secs() % 86_400;
    (seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day.
fn date(elapsed: Duration) -> (u64, u8, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    // Leap years up to that one, and days from 1970 to the first day of another.
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let before = |year: u64| 365 * (year - 1970) + leaps(year - 1) - leaps(1969);
    let since_1970 = elapsed.as_secs() / 86_400;
    // No year has more days, so that this one is not too late; it is seldom too early by more than one.
    let mut year = 1970 + since_1970 / 366;
    while before(year + 1) <= since_1970 {
        year += 1;
    }
    let mut days = since_1970 - before(year);
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let rows = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (13_574_563_200, "2400-02-29T00:00:00.000000Z"),
        ];
        for (seconds, expected) in rows {
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Timestamp(at).to_string(), expected);
        }
        let at = UNIX_EPOCH + Duration::from_micros(1_767_225_599_000_042);
        assert_eq!(Timestamp(at).to_string(), "2025-12-31T23:59:59.000042Z");
        assert_eq!(ApacheTime(at).to_string(), "31/Dec/2025:23:59:59 +0000");
    }
}
