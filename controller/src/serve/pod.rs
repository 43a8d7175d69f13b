//! Whether a caller is the proxy of the pod it names.

use ringmail_proto::Invalid;
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use ringmail_proto::pb;
use ringmail_proto::svid::Svid;

use crate::publish::Snapshots;

/// Why it is not.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotIts {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("there is no pod {0}")]
    UnknownWorkload(WorkloadName),
    #[error("certificate is of {found}, the pod runs as {expected}")]
    OtherIdentity {
        expected: Box<SpiffeId>,
        found: Box<SpiffeId>,
    },
}

/// The pod and its service account.
pub(super) fn named(
    workload: Option<pb::WorkloadRef>,
    peer: &Svid,
    trust_domain: &TrustDomain,
    snapshots: &Snapshots,
) -> Result<(WorkloadName, String), NotIts> {
    let named = workload.ok_or_else(|| Invalid::new("workload", "is missing"))?;
    let name = WorkloadName::try_from(named).map_err(|e| e.inside("workload"))?;
    let workload = snapshots.borrow().mesh.workload(&name);
    let workload = workload.ok_or_else(|| NotIts::UnknownWorkload(name.clone()))?;
    let account = workload.service_account.clone();
    let expected = SpiffeId::new(trust_domain, &name.namespace, &account)?;
    if peer.id != expected {
        return Err(NotIts::OtherIdentity {
            expected: expected.into(),
            found: peer.id.clone().into(),
        });
    }
    Ok((name, account))
}
