//! The current state of everything proxies are told, versioned. One writer each for objects and for trust; readers hold
//! whole snapshots and are told when there is a newer one.

use std::io;
use std::sync::Arc;

use aws_lc_rs::rand;
use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::version::Version;
use tokio::sync::watch;

use crate::model::Mesh;

/// One state. Never changes.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its place in the order of states.
    pub version: Version,
    /// Whom proxies shall trust.
    pub bundle: Arc<TrustBundle>,
    /// Workloads and destinations.
    pub mesh: Arc<Mesh>,
}

/// The end that makes new states.
#[derive(Debug, Clone)]
pub struct Publisher(watch::Sender<Arc<Snapshot>>);

/// The end that reads them.
pub type Snapshots = watch::Receiver<Arc<Snapshot>>;

impl Publisher {
    /// The first state of a new epoch, in which there are no objects yet.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(bundle: Arc<TrustBundle>) -> io::Result<(Self, Snapshots)> {
        let mut bytes = [0; 8];
        rand::fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
        // Zero is no epoch.
        let epoch = u64::from_ne_bytes(bytes).max(1);
        let (sender, receiver) = watch::channel(Arc::new(Snapshot {
            version: Version { epoch, sequence: 1 },
            bundle,
            mesh: Arc::default(),
        }));
        Ok((Self(sender), receiver))
    }

    /// The objects changed; a model that is the same is no new state.
    pub fn mesh(&self, mut mesh: Mesh) -> Version {
        let current = self.0.borrow().mesh.clone();
        mesh.share(&current);
        if *current != mesh {
            self.next(|snapshot| snapshot.mesh = Arc::new(mesh));
        }
        self.0.borrow().version
    }

    /// Whom to trust changed; the same bundle is no new state.
    pub fn bundle(&self, bundle: Arc<TrustBundle>) {
        if self.0.borrow().bundle != bundle {
            self.next(|snapshot| snapshot.bundle = bundle);
        }
    }

    fn next(&self, change: impl FnOnce(&mut Snapshot)) {
        self.0.send_modify(|current| {
            let mut next = Snapshot::clone(current);
            next.version.sequence += 1;
            change(&mut next);
            *current = Arc::new(next);
        });
    }
}
