//! Turns objects into snapshots.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::warn;

use crate::jwks::KeySets;
use crate::metrics::Metrics;
use crate::model::{Defaults, Mesh};
use crate::publish::Publisher;
use crate::source;
use crate::stop::Stop;

/// New problems of one state that are logged; others are counted.
const SAID_MAX: usize = 20;
/// For the first keys of issuers. Proxies that were told of some keep them in any case.
const KEYS_WAIT: Duration = Duration::from_secs(3);

/// What that takes.
pub(super) struct Model {
    pub(super) publisher: Publisher,
    pub(super) defaults: Defaults,
    pub(super) metrics: Arc<Metrics>,
    /// What was fetched for the objects.
    pub(super) keys: watch::Receiver<Arc<KeySets>>,
}

impl Model {
    /// Fires `first` once there is something to serve. A directory that was never readable is nothing.
    pub(super) async fn follow(
        mut self,
        mut source: watch::Receiver<Option<Arc<source::State>>>,
        first: oneshot::Sender<()>,
        mut stop: Stop,
    ) {
        let mut first = Some(first);
        let mut said = Vec::new();
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                changed = source.changed() => if changed.is_err() {
                    return;
                },
                // An error means that we stop.
                Ok(()) = self.keys.changed() => {}
            }
            let Some(state) = source.borrow_and_update().clone() else {
                continue;
            };
            if first.is_some() && state.unreadable.is_some() && state.objects.is_empty() {
                continue;
            }
            if first.is_some() && !self.are_keys_tried().await {
                // Its state comes again with them.
                warn!(
                    "some keys of issuers take long to fetch; tokens are judged by those that proxies know until then"
                );
            }
            let (defaults, keys) = (self.defaults.clone(), self.keys.borrow_and_update().clone());
            let build = move || Mesh::with_keys(&state.objects, &keys, &defaults);
            let built = tokio::task::spawn_blocking(build);
            let Ok(mesh) = built.await else {
                warn!("the objects could not be understood, the state before stays in force");
                continue;
            };
            self.report(mesh.problems(), &mut said);
            self.publish(mesh);
            if let Some(first) = first.take() {
                // The one who waits may have been stopped.
                let _ = first.send(());
            }
        }
    }

    /// Waits for the keys that objects name, so that a proxy that starts as well has them at once.
    async fn are_keys_tried(&self) -> bool {
        let mut keys = self.keys.clone();
        let tried = keys.wait_for(|keys| keys.is_settled());
        timeout(KEYS_WAIT, tried)
            .await
            .is_ok_and(|tried| tried.is_ok())
    }

    /// Counts all and says the new ones: most outlast many states.
    fn report(&self, problems: &[String], said: &mut Vec<String>) {
        let count = i64::try_from(problems.len()).unwrap_or(i64::MAX);
        self.metrics.snapshot_problems.set(count);
        let mut new = new_problems(said, problems);
        for problem in new.by_ref().take(SAID_MAX) {
            warn!("{problem}");
        }
        let others = new.count();
        if others > 0 {
            warn!("and {others} more problems");
        }
        problems.clone_into(said);
    }

    fn publish(&self, mesh: Mesh) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.workloads.set(count(mesh.workload_count()));
        self.metrics
            .workloads_meshed
            .set(count(mesh.meshed_count()));
        let version = self.publisher.mesh(mesh);
        self.metrics.snapshot_sequence.set(version.sequence);
    }
}

/// What was not there before.
fn new_problems<'a>(
    before: &[String],
    problems: &'a [String],
) -> impl Iterator<Item = &'a String> + use<'a> {
    let before: HashSet<String> = before.iter().cloned().collect();
    problems.iter().filter(move |one| !before.contains(*one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_new_once() {
        let list = |all: &[&str]| -> Vec<String> { all.iter().map(|one| (*one).into()).collect() };
        let rows = [
            (list(&[]), list(&["a", "b"]), list(&["a", "b"])),
            (list(&["a", "b"]), list(&["b", "a"]), list(&[])),
            (list(&["a"]), list(&["a", "c"]), list(&["c"])),
            (list(&["a"]), list(&[]), list(&[])),
        ];
        for (before, now, new) in rows {
            let found: Vec<String> = new_problems(&before, &now).cloned().collect();
            assert_eq!(found, new, "{before:?} {now:?}");
        }
    }
}
