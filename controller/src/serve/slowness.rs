//! Whether a proxy is behind: it has left something without an answer for longer than [`BEHIND_AFTER`].

use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;

/// From a response to where its proxy counts as behind.
const BEHIND_AFTER: Duration = Duration::from_secs(5);

/// One proxy's part of the gauge; dropped, it is none.
#[derive(Debug)]
pub(super) struct Slowness {
    gauge: Gauge,
    is_behind: bool,
}

impl Slowness {
    /// Of a proxy that is not behind.
    pub(super) fn new(gauge: Gauge) -> Self {
        Self {
            gauge,
            is_behind: false,
        }
    }

    /// Counts a proxy whose oldest answer is due since then, and says when it is to be seen again.
    pub(super) fn see(&mut self, since: Option<Instant>, now: Instant) -> Option<Instant> {
        let turn = since.map(|at| at + BEHIND_AFTER);
        let is_behind = turn.is_some_and(|at| now >= at);
        self.count(is_behind);
        turn.filter(|_| !is_behind)
    }

    fn count(&mut self, is_behind: bool) {
        let more = i64::from(is_behind) - i64::from(self.is_behind);
        self.gauge.inc_by(more);
        self.is_behind = is_behind;
    }
}

impl Drop for Slowness {
    fn drop(&mut self) {
        self.count(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_counts_until_it_does() {
        let gauge = Gauge::<i64>::default();
        let sent = Instant::now();
        let late = sent + BEHIND_AFTER;
        let mut one = Slowness::new(gauge.clone());
        let rows = [
            (None, sent, None, 0),
            (Some(sent), sent, Some(late), 0),
            (Some(sent), late, None, 1),
            (Some(sent), late + BEHIND_AFTER, None, 1),
            (None, late, None, 0),
            (Some(sent), late, None, 1),
        ];
        for (since, now, again, behind) in rows {
            assert_eq!((one.see(since, now), gauge.get()), (again, behind));
        }
        drop(one);
        assert_eq!(gauge.get(), 0);
    }
}
