//! Looks at what the proxies of all replicas have in force, for those who write it into statuses: at every change of ours,
//! but not more often than each `PACE`; the others' changes are noticed by asking, more and more seldom where nothing is new.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::lead::Desk;
use super::peers;
use crate::applied::{States, say, states};

/// From one look to the next, however fast things change.
const PACE: Duration = Duration::from_secs(1);
/// As long as nothing new is found, others are asked more and more seldom.
const LOOK_MAX: Duration = Duration::from_secs(16);

/// What was found last.
pub(super) type Looks = watch::Receiver<Arc<States>>;

/// Looks for ever.
pub(super) async fn run(mut desk: Desk, found: watch::Sender<Arc<States>>) {
    let mut proxies = desk.proxies.changes();
    let mut wait = PACE;
    loop {
        proxies.borrow_and_update();
        let new = look(&mut desk).await;
        let is_new = found.send_if_modified(|old| {
            let is_new = **old != new;
            *old = Arc::new(new);
            is_new
        });
        wait = match is_new {
            true => PACE,
            false => (wait * 2).min(LOOK_MAX),
        };
        sleep(PACE).await;
        tokio::select! {
            Ok(()) = desk.snapshots.changed() => {}
            Ok(()) = proxies.changed() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Until there is something new.
pub(super) async fn changed(looks: &mut Looks) {
    // The other end goes only together with whoever asks.
    let _ = looks.changed().await;
}

/// What is to be said of every policy and every route now.
async fn look(desk: &mut Desk) -> States {
    let mesh = desk.snapshots.borrow_and_update().mesh.clone();
    if mesh.policies().is_empty() && mesh.routes().is_empty() {
        return States::default();
    }
    let (mut said, silent) = peers::ask(desk).await;
    said.push(say(&mesh, &desk.proxies));
    states(&mesh, &said, silent)
}
