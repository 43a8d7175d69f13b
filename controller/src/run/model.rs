//! Turns objects into snapshots.

use std::sync::Arc;

use ringmail_proto::identity::TrustDomain;
use tokio::sync::{oneshot, watch};
use tracing::warn;

use crate::metrics::Metrics;
use crate::model::Mesh;
use crate::publish::Publisher;
use crate::source;
use crate::stop::Stop;

/// What that takes.
pub(super) struct Model {
    pub(super) publisher: Publisher,
    pub(super) trust_domain: TrustDomain,
    pub(super) metrics: Arc<Metrics>,
}

impl Model {
    /// Fires `first` once there is something to serve. A directory that was never readable is nothing.
    pub(super) async fn follow(
        self,
        mut source: watch::Receiver<Option<Arc<source::State>>>,
        first: oneshot::Sender<()>,
        mut stop: Stop,
    ) {
        let mut first = Some(first);
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                changed = source.changed() => if changed.is_err() {
                    return;
                },
            }
            let Some(state) = source.borrow_and_update().clone() else {
                continue;
            };
            if first.is_some() && state.unreadable.is_some() && state.objects.is_empty() {
                continue;
            }
            let domain = self.trust_domain.clone();
            let built = tokio::task::spawn_blocking(move || Mesh::build(&state.objects, &domain));
            let Ok(mesh) = built.await else {
                warn!("the objects could not be understood, the state before stays in force");
                continue;
            };
            self.publish(mesh);
            if let Some(first) = first.take() {
                // The one who waits may have been stopped.
                let _ = first.send(());
            }
        }
    }

    fn publish(&self, mesh: Mesh) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.workloads.set(count(mesh.workload_count()));
        self.metrics
            .workloads_meshed
            .set(count(mesh.meshed_count()));
        self.metrics
            .snapshot_problems
            .set(count(mesh.problems().len()));
        for problem in mesh.problems() {
            warn!("{problem}");
        }
        let version = self.publisher.mesh(mesh);
        self.metrics.snapshot_sequence.set(version.sequence);
    }
}
