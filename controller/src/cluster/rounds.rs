//! When a writer writes: at each change; after a failure not before `RETRY`; and, however often things change, everything
//! again once in a period, for what somebody else undid.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::lead::RETRY;

/// The rounds of one writer.
pub(super) struct Rounds {
    period: Duration,
    all_again: Instant,
}

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// All that was to be written is.
    Done,
    /// Something is still to be written.
    Failed,
}

impl Rounds {
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            all_again: Instant::now() + period,
        }
    }

    /// Until the next round; true when everything is to be looked at again, written or not. A change that comes before
    /// a retry waits for it.
    pub(super) async fn next(&mut self, last: Round, changed: impl Future<Output = ()>) -> bool {
        match last {
            Round::Failed => sleep(RETRY).await,
            Round::Done => tokio::select! {
                () = changed => {}
                () = sleep_until(self.all_again) => {}
            },
        }
        self.is_due(Instant::now())
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.all_again;
        if is_due {
            self.all_again = now + self.period;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::super::lead::RESYNC;
    use super::*;

    /// Every change used to begin the period anew, so that a living cluster never saw its end.
    #[test]
    fn everything_is_looked_at_again_however_often_things_change() {
        let begun = Instant::now();
        let mut rounds = Rounds::new(RESYNC);
        let seconds = |n| begun + Duration::from_secs(n);
        // A change each second.
        let due: Vec<u64> = (1..=150).filter(|n| rounds.is_due(seconds(*n))).collect();
        assert_eq!(due.len(), 2, "{due:?}");
        assert_eq!(due[1] - due[0], RESYNC.as_secs());
    }
}
