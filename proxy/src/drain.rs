//! How the proxy ends: told to, it takes no new work from where others can take it, finishes what is under way, and
//! knows when nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How often the end is looked for; a drain takes seconds, so nobody waits for this.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Whoever still comes is served, and asked to go elsewhere.
    Draining,
    /// Nothing is under way any more, and nothing new is accepted.
    Closing,
}

/// Tells the tasks of a worker that the proxy drains, and counts the connections under way.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    phase: watch::Receiver<Phase>,
    busy: Arc<AtomicUsize>,
}

/// A connection under way. Dropping it says that it is over.
#[derive(Debug)]
pub(crate) struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The owner's side.
#[derive(Debug)]
pub(crate) struct Drainer {
    phase: watch::Sender<Phase>,
    busy: Arc<AtomicUsize>,
}

/// A drain and its owner.
pub(crate) fn drain() -> (Drainer, Drain) {
    let (sender, phase) = watch::channel(Phase::Serving);
    let busy = Arc::new(AtomicUsize::new(0));
    (
        Drainer {
            phase: sender,
            busy: busy.clone(),
        },
        Drain { phase, busy },
    )
}

impl Drainer {
    /// Tells everyone.
    pub(crate) fn begin(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Waits for `linger`, in which others learn that we end and whoever has not is served, and then until nothing is
    /// under way; at most for `limit`. Says how many connections were cut.
    pub(crate) async fn finish(&self, linger: Duration, limit: Duration) -> usize {
        let over = async {
            sleep(linger).await;
            self.idle().await;
            self.phase.send_replace(Phase::Closing);
            // Until everyone has heard it; what was accepted in the last instant is finished too.
            sleep(LOOK_INTERVAL).await;
            self.idle().await;
        };
        let _ = timeout(limit, over).await;
        self.busy.load(Ordering::Relaxed)
    }

    async fn idle(&self) {
        while self.busy.load(Ordering::Relaxed) > 0 {
            sleep(LOOK_INTERVAL).await;
        }
    }
}

impl Drain {
    /// Counts a connection.
    pub(crate) fn enter(&self) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.busy.clone())
    }

    pub(crate) fn is_draining(&self) -> bool {
        // There is one way to go: any change is towards the end. Asked on every request, so without the lock.
        self.phase.has_changed().unwrap_or(true)
    }

    /// Returns once the proxy drains.
    pub(crate) async fn begun(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns once nothing is to be accepted any more.
    pub(crate) async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    async fn reached(&self, phase: Phase) {
        let mut now = self.phase.clone();
        // The owner is gone only when the process ends.
        let _ = now.wait_for(|now| *now >= phase).await;
    }

    /// The outcome, or none when the proxy drains first.
    pub(crate) async fn or_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            outcome = work => Some(outcome),
            () = self.begun() => None,
        }
    }
}
