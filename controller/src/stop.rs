//! How tasks are told to stop: one flag that turns once. Dropping the `Stopper` stops too.

use tokio::sync::watch;

/// The end that stops.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

/// The end that is told.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

pub(crate) fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns when told to stop. May be dropped and called again at any time.
    pub(crate) async fn stopped(&mut self) {
        // An error means that the stopper is gone, which stops too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
