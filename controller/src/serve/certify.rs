//! `Certify`: a credential and a public key in, a certificate out. The identity is the service account of the Pod object
//! that the caller names, and the credential must prove exactly that.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringmail_proto::Invalid;
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use ringmail_proto::pb;
use ringmail_proto::pb::certificate_service_server::CertificateService;
use ringmail_proto::svid::Svid;
use rustls::pki_types::UnixTime;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::{Caller, Peer};
use crate::attest::{self, Asking, Attestor, Denied};
use crate::authority::{Authority, AuthorityError, Issued, LeafKey, RequestError};
use crate::metrics::{Certified, CertifyLabels, Metrics};
use crate::model::Mesh;
use crate::pace::{Pace, Paces};
use crate::publish::{Snapshot, Snapshots};

/// Certificates of one pod: 10 at once, then one a second. An identity has as many as it has pods, since all replicas of
/// a deployment start together.
const ISSUE: Pace = Pace {
    burst: 10,
    refill: Duration::from_secs(1),
};

/// For a pod whose token is good and which is not known yet.
const POD_WAIT: Duration = Duration::from_secs(5);

/// What issuing takes.
#[derive(Debug, Clone)]
pub(crate) struct Certificates(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    authority: Arc<Authority>,
    attestor: Arc<Attestor>,
    trust_domain: TrustDomain,
    snapshots: Snapshots,
    metrics: Arc<Metrics>,
    paces: Mutex<Paces<WorkloadName>>,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("there is no pod {0}")]
    UnknownWorkload(WorkloadName),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("{0} is revoked")]
    Revoked(SpiffeId),
    #[error("too many certificates for pod {0}; wait {1:?}")]
    TooOften(WorkloadName, Duration),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Certificates {
    pub(crate) fn new(
        authority: Arc<Authority>,
        attestor: Arc<Attestor>,
        trust_domain: TrustDomain,
        snapshots: Snapshots,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Parts {
            authority,
            attestor,
            trust_domain,
            snapshots,
            metrics,
            paces: Mutex::new(Paces::new(ISSUE)),
        }))
    }
}

#[tonic::async_trait]
impl CertificateService for Certificates {
    async fn certify(
        &self,
        request: Request<pb::CertifyRequest>,
    ) -> Result<Response<pb::CertifyResponse>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.0.clone());
        let address = request
            .extensions()
            .get::<Caller>()
            .map_or(IpAddr::from([0; 4]), |caller| caller.0);
        let request = request.into_inner();
        let credential = attest::shown(request.credential.as_ref(), peer.as_deref());
        let named = request
            .workload
            .as_ref()
            .map(|one| format!("{}/{}", one.namespace, one.name));
        let issued = self.0.issue(request, peer.as_deref(), address).await;
        let outcome = match &issued {
            Ok(_) => Certified::Issued,
            Err(refused) => refused.outcome(),
        };
        let labels = CertifyLabels {
            outcome,
            credential,
        };
        self.0.metrics.certify.get_or_create(&labels).inc();
        match issued {
            Ok(issued) => {
                info!(id = %issued.svid.id, serial = issued.svid.serial, "certificate issued");
                Ok(Response::new(self.0.response(issued)))
            }
            Err(refused) => {
                let named: String = named.unwrap_or_default().chars().take(320).collect();
                warn!(pod = named, "no certificate: {refused}");
                Err(refused.into())
            }
        }
    }
}

impl Parts {
    async fn issue(
        &self,
        request: pb::CertifyRequest,
        peer: Option<&Svid>,
        address: IpAddr,
    ) -> Result<Issued, Refused> {
        let key = LeafKey::from_request(&request.certificate_signing_request)?;
        let name = request
            .workload
            .ok_or_else(|| Invalid::new("workload", "is missing"))?;
        let name = WorkloadName::try_from(name).map_err(|e| e.inside("workload"))?;
        let now = UnixTime::now();
        let known = self.snapshots.borrow().clone();
        // Nobody learns which pods exist without a credential.
        let asking = Asking {
            peer,
            address,
            workload: &name,
            pod_uid: known.mesh.pod_uid(&name),
            now,
        };
        let proof = self.attestor.prove(request.credential, asking).await?;
        let (mesh, account) = self.pod(&name, proof.pod_uid()).await?;
        let id = SpiffeId::new(&self.trust_domain, &name.namespace, &account)?;
        proof.check(&id)?;
        let revocations = mesh.revocations();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if revocations.has_identity(&id, seconds)
            || peer.is_some_and(|peer| revocations.has(peer, seconds))
        {
            return Err(Refused::Revoked(id));
        }
        self.paces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(&name, Instant::now())
            .map_err(|wait| Refused::TooOften(name.clone(), wait))?;
        proof.redeem()?;
        if !mesh.is_meshed(&name) {
            warn!(pod = %name, "its proxy gets a certificate, but without ringmail.io/inject: enabled others send it plaintext");
        }
        Ok(self.authority.issue(&key, &id, now)?)
    }

    /// The service account of the pod. One that was made just now may not be known yet: who proved to be it waits.
    async fn pod(
        &self,
        name: &WorkloadName,
        uid: Option<&str>,
    ) -> Result<(Arc<Mesh>, String), Refused> {
        let mut snapshots = self.snapshots.clone();
        let is_it = |snapshot: &Arc<Snapshot>| match uid {
            Some(uid) => snapshot.mesh.pod_uid(name) == Some(uid),
            None => true,
        };
        // An error means that we stop; what is known then decides.
        let _ = timeout(POD_WAIT, snapshots.wait_for(is_it)).await;
        let snapshot = snapshots.borrow().clone();
        let workload = snapshot.mesh.workload(name);
        let workload = workload.ok_or_else(|| Refused::UnknownWorkload(name.clone()))?;
        if !is_it(&snapshot) {
            return Err(Denied::WrongPod("of that name that is gone".into()).into());
        }
        Ok((snapshot.mesh.clone(), workload.service_account.clone()))
    }

    fn response(&self, issued: Issued) -> pb::CertifyResponse {
        let bundle = self.snapshots.borrow().bundle.clone();
        pb::CertifyResponse {
            certificate_chain: issued.chain.iter().map(|one| one.to_vec()).collect(),
            trust_bundle: Some(pb::TrustBundle::from(&*bundle)),
            valid_for_seconds: u32::try_from(issued.valid_for.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

impl Refused {
    fn outcome(&self) -> Certified {
        match self {
            Self::Invalid(_) | Self::Request(_) => Certified::Invalid,
            Self::UnknownWorkload(_) => Certified::UnknownWorkload,
            Self::Denied(Denied::Jwks | Denied::Review | Denied::State(_)) | Self::Authority(_) => {
                Certified::Failed
            }
            Self::Denied(Denied::TooOften(_)) => Certified::RateLimited,
            Self::Denied(_) | Self::Revoked(_) => Certified::Denied,
            Self::TooOften(..) => Certified::RateLimited,
        }
    }
}

/// The one table of refusals and gRPC codes.
impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::Invalid(_) | Refused::Request(_) => Self::invalid_argument(text),
            Refused::UnknownWorkload(_) => Self::not_found(text),
            Refused::Denied(denied) => match denied {
                Denied::NoCredential
                | Denied::JoinToken
                | Denied::NoJwtIssuer
                | Denied::NoToken
                | Denied::Jwt(_)
                | Denied::Expired => Self::unauthenticated(text),
                Denied::WrongIdentity { .. } | Denied::WrongPod(_) => Self::permission_denied(text),
                Denied::Jwks | Denied::Review | Denied::State(_) => Self::unavailable(text),
                Denied::TooOften(_) => Self::resource_exhausted(text),
            },
            Refused::Revoked(_) => Self::permission_denied(text),
            Refused::TooOften(..) => Self::resource_exhausted(text),
            Refused::Authority(AuthorityError::Expired) => Self::unavailable(text),
            Refused::Authority(_) => Self::internal("cannot sign"),
        }
    }
}
