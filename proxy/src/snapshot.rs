//! What the controller told us, as whole snapshots behind atomic pointers: read on every connection without a lock,
//! replaced by the control thread. What was learnt stays in force while the controller is away, however long.
//!
//! Limits: [`DESTINATIONS_MAX`] addresses, [`LOOKUP_TIMEOUT`] for one that is not known yet.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use ringmail_proto::destination::{Destination, DestinationKind};
use ringmail_proto::limit::Limit;
use ringmail_proto::policy::Authorizer;
use ringmail_proto::policy::authentication::Authentication;
use ringmail_proto::revocation::Revocations;
use ringmail_proto::svid::Svid;
use ringmail_proto::version::Version;
use ringmail_proto::workload::Workload;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::error::{Error, Reason};
use crate::tls::identity::{Identity, unix_now};

/// Addresses that are known at once, fewer than the controller's limit for one proxy. Beyond, addresses outside the mesh
/// are forgotten.
pub(crate) const DESTINATIONS_MAX: usize = 8_000;
/// How long a connection waits for the controller to say what is behind an address.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups on their way to the control thread.
const LOOKUPS_MAX: usize = 1024;

type Destinations = HashMap<SocketAddr, Arc<Destination>>;

/// Who may do what with our app, as of a state of the controller.
#[derive(Debug)]
pub(crate) struct Authorized {
    pub(crate) authorizer: Authorizer,
    /// Whose tokens are good.
    pub(crate) authentications: Vec<Authentication>,
    /// How often.
    pub(crate) limits: Vec<Limit>,
    pub(crate) version: Version,
}

/// Everything learnt so far.
#[derive(Debug)]
pub(crate) struct Snapshot {
    identity: ArcSwapOption<Identity>,
    workload: ArcSwapOption<Workload>,
    authorization: ArcSwapOption<Authorized>,
    revocations: ArcSwap<Revocations>,
    destinations: ArcSwap<Destinations>,
    changes: watch::Sender<u64>,
    lookups: mpsc::Sender<SocketAddr>,
}

impl Snapshot {
    /// Knows nothing yet; addresses that are asked for come out of the receiver.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<SocketAddr>) {
        let (lookups, wanted) = mpsc::channel(LOOKUPS_MAX);
        let snapshot = Self {
            identity: ArcSwapOption::empty(),
            workload: ArcSwapOption::empty(),
            authorization: ArcSwapOption::empty(),
            revocations: ArcSwap::default(),
            destinations: ArcSwap::default(),
            changes: watch::Sender::new(0),
            lookups,
        };
        (Arc::new(snapshot), wanted)
    }

    /// Who we are, while our certificate is valid.
    pub(crate) fn identity(&self) -> Result<Arc<Identity>, Error> {
        let identity = self.identity.load_full().ok_or(Reason::NotReady)?;
        identity.check_lifetime()?;
        Ok(identity)
    }

    /// Who we were last, valid or not.
    pub(crate) fn last_identity(&self) -> Option<Arc<Identity>> {
        self.identity.load_full()
    }

    /// Our own pod.
    pub(crate) fn workload(&self) -> Result<Arc<Workload>, Error> {
        self.workload
            .load_full()
            .ok_or_else(|| Reason::NotReady.into())
    }

    /// Who may do what with our app; none before it was learnt.
    pub(crate) fn authorization(&self) -> Option<Arc<Authorized>> {
        self.authorization.load_full()
    }

    /// Whom nobody trusts any more.
    pub(crate) fn revocations(&self) -> Arc<Revocations> {
        self.revocations.load_full()
    }

    /// Whether a certificate is revoked now.
    pub(crate) fn has_revoked(&self, svid: &Svid) -> bool {
        let revocations = self.revocations.load();
        !revocations.is_empty() && revocations.has(svid, unix_now())
    }

    /// What is behind an address; the controller is asked once and keeps us informed.
    pub(crate) async fn destination(&self, address: SocketAddr) -> Result<Arc<Destination>, Error> {
        if let Some(known) = self.destinations.load().get(&address) {
            return Ok(known.clone());
        }
        let mut changes = self.changes.subscribe();
        self.lookups
            .try_send(address)
            .map_err(|_| Reason::Overloaded)?;
        let learnt = async {
            loop {
                if let Some(known) = self.destinations.load().get(&address) {
                    return Ok(known.clone());
                }
                changes.changed().await.map_err(|_| Reason::Draining)?;
            }
        };
        timeout(LOOKUP_TIMEOUT, learnt)
            .await
            .unwrap_or_else(|_| Err(Reason::UnknownDestination.into()))
    }

    /// Somebody will ask what is behind an address: the controller is asked now, so that nobody waits for it then.
    pub(crate) fn expect(&self, address: SocketAddr) {
        if !self.knows(address) {
            // Whoever asks later asks again.
            let _ = self.lookups.try_send(address);
        }
    }

    /// Whether that is still what is behind its address.
    pub(crate) fn is_current(&self, destination: &Arc<Destination>) -> bool {
        let known = self.destinations.load();
        known
            .get(&destination.address)
            .is_some_and(|current| Arc::ptr_eq(current, destination))
    }

    /// Tells of every change of anything here.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// What the control thread does.
impl Snapshot {
    pub(crate) fn put_identity(&self, identity: Identity) {
        self.identity.store(Some(Arc::new(identity)));
        self.changed();
    }

    pub(crate) fn put_workload(&self, workload: Workload) {
        self.workload.store(Some(Arc::new(workload)));
        self.changed();
    }

    pub(crate) fn put_revocations(&self, revocations: Revocations) {
        if **self.revocations.load() != revocations {
            self.revocations.store(Arc::new(revocations));
            self.changed();
        }
    }

    pub(crate) fn put_authorization(&self, authorized: Authorized) {
        self.authorization.store(Some(Arc::new(authorized)));
        self.changed();
    }

    /// Adds what was learnt. Returns the addresses that had to be forgotten for it.
    pub(crate) fn put_destinations(&self, learnt: Vec<Destination>) -> Vec<SocketAddr> {
        let mut all = Destinations::clone(&self.destinations.load());
        let excess = (all.len() + learnt.len()).saturating_sub(DESTINATIONS_MAX);
        let external = all
            .values()
            .filter(|known| known.kind == DestinationKind::External);
        let forgotten: Vec<SocketAddr> = external.map(|known| known.address).take(excess).collect();
        for address in &forgotten {
            all.remove(address);
        }
        all.extend(learnt.into_iter().map(|one| (one.address, Arc::new(one))));
        self.destinations.store(Arc::new(all));
        self.changed();
        forgotten
    }

    /// Whether it is known what is behind an address.
    pub(crate) fn knows(&self, address: SocketAddr) -> bool {
        self.destinations.load().contains_key(&address)
    }

    /// Every address that was learnt, to subscribe to it again.
    pub(crate) fn known_addresses(&self) -> Vec<SocketAddr> {
        self.destinations.load().keys().copied().collect()
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_addresses_outside_the_mesh_are_forgotten() {
        let (snapshot, _wanted) = Snapshot::new();
        let external = |n: usize| Destination {
            address: SocketAddr::from(([10, 0, 0, 1], u16::try_from(n + 1).expect("a port"))),
            kind: DestinationKind::External,
        };
        let all = (0..DESTINATIONS_MAX).map(external).collect();
        assert!(snapshot.put_destinations(all).is_empty());
        let one_more = external(DESTINATIONS_MAX);
        let address = one_more.address;
        let forgotten = snapshot.put_destinations(vec![one_more]);
        assert_eq!(forgotten.len(), 1);
        assert!(snapshot.knows(address) && !snapshot.knows(forgotten[0]));
        assert_eq!(snapshot.known_addresses().len(), DESTINATIONS_MAX);
    }
}
