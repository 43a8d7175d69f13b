//! How the proxy ends: told to, it takes no new work from where others can take it, finishes what is under way, and
//! knows when nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How often the end is looked for; a drain takes seconds, so nobody waits for this.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Tells the tasks of a worker that the proxy drains, and counts the connections under way.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    draining: watch::Receiver<bool>,
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
    draining: watch::Sender<bool>,
    busy: Arc<AtomicUsize>,
}

/// A drain and its owner.
pub(crate) fn drain() -> (Drainer, Drain) {
    let (sender, draining) = watch::channel(false);
    let busy = Arc::new(AtomicUsize::new(0));
    (
        Drainer {
            draining: sender,
            busy: busy.clone(),
        },
        Drain { draining, busy },
    )
}

impl Drainer {
    /// Tells everyone.
    pub(crate) fn begin(&self) {
        self.draining.send_replace(true);
    }

    /// Waits until nothing is under way, at most for `limit`; says how many connections were cut.
    pub(crate) async fn finish(&self, limit: Duration) -> usize {
        let over = async {
            while self.busy.load(Ordering::Relaxed) > 0 {
                sleep(LOOK_INTERVAL).await;
            }
        };
        let _ = timeout(limit, over).await;
        self.busy.load(Ordering::Relaxed)
    }
}

impl Drain {
    /// Counts a connection.
    pub(crate) fn enter(&self) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.busy.clone())
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Returns once the proxy drains.
    pub(crate) async fn begun(&self) {
        let mut draining = self.draining.clone();
        // The owner is gone only when the process ends.
        let _ = draining.wait_for(|draining| *draining).await;
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
