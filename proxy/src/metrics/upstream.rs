//! What is counted of endpoints and of trying again. Rare enough to look up its labels each time; causes are a few
//! words, peers those of the mesh.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::sharded::Shards;
use super::{Counters, Metrics};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EjectionLabels {
    peer: String,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecoveryLabels {
    peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    cause: &'static str,
    result: &'static str,
}

/// Counters of the upstream side.
pub(super) struct Upstream {
    ejections: Counters<EjectionLabels>,
    recoveries: Counters<RecoveryLabels>,
    retries: Counters<RetryLabels>,
}

impl Upstream {
    pub(super) fn register(registry: &mut Registry, shards: Shards) -> Self {
        let upstream = Self {
            ejections: Family::new_with_constructor(shards),
            recoveries: Family::new_with_constructor(shards),
            retries: Family::new_with_constructor(shards),
        };
        registry.register(
            "endpoint_ejections",
            "Endpoints that a worker asks no more, by why",
            upstream.ejections.clone(),
        );
        registry.register(
            "endpoint_recoveries",
            "Ejected endpoints that answered and were taken back",
            upstream.recoveries.clone(),
        );
        registry.register(
            "retries",
            "Requests sent again, by why, and those that the budget did not allow",
            upstream.retries.clone(),
        );
        upstream
    }
}

impl Metrics {
    /// A worker asks an endpoint no more.
    pub(crate) fn endpoint_ejected(&self, peer: &str, cause: &'static str) {
        let peer = peer.to_owned();
        let labels = EjectionLabels { peer, cause };
        self.upstream.ejections.get_or_create(&labels).add(1);
    }

    /// A worker asks an endpoint again.
    pub(crate) fn endpoint_taken_back(&self, peer: &str) {
        let peer = peer.to_owned();
        let labels = RecoveryLabels { peer };
        self.upstream.recoveries.get_or_create(&labels).add(1);
    }

    /// A request was sent again, or the budget did not allow it.
    pub(crate) fn retried(&self, cause: &'static str, result: &'static str) {
        let labels = RetryLabels { cause, result };
        self.upstream.retries.get_or_create(&labels).add(1);
    }
}
