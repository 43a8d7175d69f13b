//! What the leader does: it alone writes into the cluster, each kind of object by a writer of its own.
//!
//! Writers are dropped the moment the replica leads no more, whatever they are at; each begins anew with what is there,
//! so nothing is lost when another takes over in the middle.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use ringmail_proto::identity::TrustDomain;
use tokio::sync::watch;

use super::bundle::Bundles;
use super::coverage::Coverage;
use super::events::Events;
use super::hooks::Hooks;
use super::labels::{EXEMPT, Labels};
use super::{looks, policies, status};
use crate::applied::Proxies;
use crate::metrics::{Metrics, WriteLabels, WriteOutcome, Written};
use crate::publish::Snapshots;
use crate::source::State;
use crate::stop::Stop;

/// The name under which fields are ours.
pub(super) const FIELD_MANAGER: &str = "ringmail-controller";
/// After a write that failed.
pub(super) const RETRY: Duration = Duration::from_secs(2);
/// What was written is looked after so often, for what no watch of ours sees.
pub(super) const RESYNC: Duration = Duration::from_secs(60);

/// The states that a source hands over.
pub(crate) type States = watch::Receiver<Option<Arc<State>>>;

/// What every writer needs.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) client: Client,
    /// Ours.
    pub(crate) namespace: String,
    /// Our pod.
    pub(crate) pod: String,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) states: States,
    pub(crate) snapshots: Snapshots,
    /// Those that watch this replica.
    pub(crate) proxies: Arc<Proxies>,
    /// Why the Secret of the issuer or of the root is refused, and its name.
    pub(crate) issuer_trouble: watch::Receiver<Option<String>>,
    pub(crate) issuer_secret: String,
    /// Namespaces whose pods are never injected, beside ours and the cluster's own.
    pub(crate) excluded: Arc<[String]>,
    /// Whether pods that lack a sidecar are evicted.
    pub(crate) evict: bool,
    pub(crate) metrics: Arc<Metrics>,
}

/// Writes while we lead, until told to stop.
pub(crate) async fn run(desk: Desk, mut leads: watch::Receiver<bool>, mut stop: Stop) {
    loop {
        let elected = async { leads.wait_for(|leads| *leads).await.is_ok() };
        tokio::select! {
            () = stop.stopped() => return,
            elected = elected => if !elected {
                return;
            },
        }
        desk.metrics.leader.set(1);
        let (found, looks) = watch::channel(Arc::default());
        let writers = async {
            tokio::join!(
                looks::run(desk.clone(), found),
                Bundles::new(&desk).run(),
                Hooks::new(&desk).run(),
                Labels::new(&desk).run(),
                status::run(desk.clone(), looks.clone()),
                policies::run(&desk, looks.clone()),
                Events::new(&desk).run(),
                Coverage::new(&desk).run(),
            )
        };
        tokio::select! {
            () = stop.stopped() => return,
            _ = leads.wait_for(|leads| !*leads) => {}
            _ = writers => {}
        }
        desk.metrics.leader.set(0);
        // The next leader counts.
        desk.metrics.pods_uncovered.set(0);
    }
}

impl Desk {
    /// Whether pods of that namespace are never injected.
    pub(super) fn is_exempt(&self, namespace: &str) -> bool {
        namespace == self.namespace
            || EXEMPT.contains(&namespace)
            || self.excluded.iter().any(|one| one == namespace)
    }

    /// Counts a write.
    pub(super) fn count<T>(&self, object: Written, outcome: &Result<T, kube::Error>) {
        let outcome = match outcome {
            Ok(_) => WriteOutcome::Done,
            Err(_) => WriteOutcome::Failed,
        };
        let labels = WriteLabels { object, outcome };
        self.metrics.writes.get_or_create(&labels).inc();
    }

    /// Until there are other objects, or they mean something else.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.states.changed() => {}
            Ok(()) = self.snapshots.changed() => {}
            else => std::future::pending().await,
        }
    }

    /// The roots as PEM.
    pub(super) fn roots(&self) -> String {
        let bundle = self.snapshots.borrow().bundle.clone();
        crate::authority::to_pem(bundle.certificates(&self.trust_domain))
    }
}
