//! How long is long. A drill must not take hours, so it has the same expressions over shorter times.

/// Of a minute of what is shipped, a drill makes a second; but within these bounds, in seconds, as it is scraped once a second.
const DRILL_DIVISOR: u64 = 60;
const DRILL_RANGE: (u64, u64) = (5, 20);
const DRILL_WAIT: (u64, u64) = (1, 3);

/// Of which times rules are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tempo {
    /// As in the chart.
    Shipped,
    /// As in `scenarios::observe`.
    Drill,
}

impl Tempo {
    /// A range of an expression, or its offset.
    #[must_use]
    pub fn range(self, seconds: u64) -> String {
        text(self.scaled(seconds, DRILL_RANGE))
    }

    /// How long something must be so before it is told.
    #[must_use]
    pub fn wait(self, seconds: u64) -> String {
        text(self.scaled(seconds, DRILL_WAIT))
    }

    fn scaled(self, seconds: u64, (least, most): (u64, u64)) -> u64 {
        match self {
            Self::Shipped => seconds,
            Self::Drill if seconds == 0 => 0,
            Self::Drill => (seconds / DRILL_DIVISOR).clamp(least, most),
        }
    }
}

/// As Prometheus writes it.
fn text(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let whole = units
        .iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_short() {
        let rows = [
            (0, "0s", "0s"),
            (60, "1m", "5s"),
            (900, "15m", "15s"),
            (3 * 86_400, "3d", "20s"),
            (90, "90s", "5s"),
        ];
        for (seconds, shipped, drill) in rows {
            assert_eq!(Tempo::Shipped.range(seconds), shipped);
            assert_eq!(Tempo::Drill.range(seconds), drill);
        }
        assert_eq!(Tempo::Drill.wait(600), "3s");
    }
}
