//! Which identity a credential proves. Never one derived from an address.
//!
//! Off Kubernetes: a join token, once; or a JWT of the configured issuer. Afterwards the certificate of the caller's
//! connection, while it is valid. In a cluster: a token that the API server vouches for, bound to the pod by name and UID,
//! each time and beside a certificate too, or the key of a pod that is gone could be renewed for ever. Who shows bad tokens
//! may do so at `BAD_TOKENS` only: each costs the API server a question.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringmail_proto::Invalid;
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use ringmail_proto::pb::certify_request;
use ringmail_proto::svid::Svid;
use rustls::pki_types::UnixTime;

use crate::cluster::review::{ReviewError, Reviewer};
use crate::config::DirectoryHome;
use crate::metrics::{Credential, Metrics};
use crate::pace::{Pace, Paces};

/// Bad tokens of one payer: 20 at once, then one a second.
const BAD_TOKENS: Pace = Pace {
    burst: 20,
    refill: Duration::from_secs(1),
};

/// One-time tokens.
pub mod join_token;

/// Signed tokens.
mod jwt;

/// The keys that signed tokens are verified with.
mod jwks;

use join_token::JoinTokens;
pub(crate) use jwks::Jwks;
use jwt::Verifier;

/// Why a credential proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// Neither credential nor client certificate.
    #[error("there is neither a join token, nor a JWT, nor a client certificate")]
    NoCredential,
    /// Unknown, used up, or late.
    #[error("join token is unknown, used or expired")]
    JoinToken,
    /// No issuer is configured.
    #[error("no JWT issuer is configured here")]
    NoJwtIssuer,
    /// The token is refused.
    #[error("JWT {0}")]
    Jwt(String),
    /// The keys cannot be had.
    #[error("keys of the JWT issuer are not available")]
    Jwks,
    /// In a cluster no certificate is enough.
    #[error("a certificate is renewed beside the pod's token, and there is none")]
    NoToken,
    /// The connection has outlived its certificate.
    #[error("client certificate has expired")]
    Expired,
    /// It proves someone else.
    #[error("credential is of {found}, the pod runs as {expected}")]
    WrongIdentity {
        /// The pod's identity.
        expected: SpiffeId,
        /// What is proven.
        found: SpiffeId,
    },
    /// It proves another pod of the same identity.
    #[error("JWT is bound to pod {0}")]
    WrongPod(String),
    /// The API server did not say.
    #[error("the API server cannot be asked about tokens")]
    Review,
    /// Too many bad tokens.
    #[error("too many bad tokens; wait {0:?}")]
    TooOften(Duration),
    /// Tokens cannot be read.
    #[error("cannot read the state directory")]
    State(#[source] io::Error),
}

/// The credentials that are accepted here.
#[derive(Debug)]
pub(crate) struct Attestor {
    accepted: Accepted,
    bad_tokens: Mutex<Paces<Payer>>,
}

/// Who pays for a bad token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Payer {
    /// The pod that the token says it is of, by its UID, when we know that pod by it: strangers hardly do, so whoever
    /// shares its address with one who shows bad tokens, as pods behind a node may, pays for nobody else.
    Pod(String),
    /// Everybody else by address: it proves nothing, but every caller has one.
    Address(IpAddr),
}

/// What is accepted beside certificates.
#[derive(Debug)]
enum Accepted {
    /// Join tokens, and JWTs of an issuer.
    Local {
        join_tokens: JoinTokens,
        verifier: Option<Verifier>,
    },
    /// Tokens that the API server vouches for.
    Cluster(Reviewer),
}

/// An identity that was proven, and what is used up by using it.
#[derive(Debug)]
pub(crate) struct Proof {
    identity: SpiffeId,
    /// Of the pod that the token is bound to.
    pod_uid: Option<String>,
    claim: Option<join_token::Claim>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// Who the caller is by its connection.
    pub(crate) peer: Option<&'a Svid>,
    /// Where it calls from.
    pub(crate) address: IpAddr,
    /// The pod that it claims to be.
    pub(crate) workload: &'a WorkloadName,
    /// The UID of that pod, when it is known.
    pub(crate) pod_uid: Option<&'a str>,
    pub(crate) now: UnixTime,
}

impl Asking<'_> {
    /// Who pays if the token is bad.
    fn payer(&self, token: &str) -> Payer {
        match jwt::claimed_uid(token) {
            Some(claimed) if Some(claimed.as_str()) == self.pod_uid => Payer::Pod(claimed),
            Some(_) | None => Payer::Address(self.address),
        }
    }
}

impl Attestor {
    pub(crate) fn local(
        home: &DirectoryHome,
        trust_domain: &TrustDomain,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let verifier = home
            .jwt
            .as_ref()
            .map(|trust| Verifier::new(trust, trust_domain.clone(), metrics))
            .transpose()?;
        let join_tokens = JoinTokens::open(&home.state_dir)?;
        Ok(Self::new(Accepted::Local {
            join_tokens,
            verifier,
        }))
    }

    pub(crate) fn cluster(reviewer: Reviewer) -> Self {
        Self::new(Accepted::Cluster(reviewer))
    }

    fn new(accepted: Accepted) -> Self {
        Self {
            accepted,
            bad_tokens: Mutex::new(Paces::new(BAD_TOKENS)),
        }
    }

    /// The keys to be kept fresh, when there is an issuer.
    pub(crate) fn jwks(&self) -> Option<&Jwks> {
        match &self.accepted {
            Accepted::Local { verifier, .. } => verifier.as_ref().map(Verifier::jwks),
            Accepted::Cluster(_) => None,
        }
    }

    /// Whom the caller proved to be. Whether that is who the pod runs as is for [`Proof::check`].
    pub(crate) async fn prove(
        &self,
        credential: Option<certify_request::Credential>,
        asking: Asking<'_>,
    ) -> Result<Proof, Denied> {
        use certify_request::Credential::{JoinToken, Jwt};
        match (credential, &self.accepted) {
            (Some(JoinToken(token)), Accepted::Local { join_tokens, .. }) => {
                let claim = join_tokens.check(&token, asking.now)?;
                let identity = claim.identity().clone();
                Ok(Proof {
                    claim: Some(claim),
                    ..Proof::of(identity)
                })
            }
            (Some(JoinToken(_)), Accepted::Cluster(_)) => Err(Denied::JoinToken),
            // A file that nobody refreshes may be long over, the certificate beside it is not.
            (Some(Jwt(_)), Accepted::Local { .. })
                if asking.peer.is_some_and(|svid| is_valid(svid, asking.now)) =>
            {
                renewed(asking)
            }
            (Some(Jwt(token)), Accepted::Local { verifier, .. }) => {
                let verifier = verifier.as_ref().ok_or(Denied::NoJwtIssuer)?;
                let claims = verifier.verify(&token).await?;
                claims.check_pod(asking.workload)?;
                Ok(Proof::of(claims.identity))
            }
            (Some(Jwt(token)), Accepted::Cluster(reviewer)) => {
                let proof = self.reviewed(reviewer, token, asking).await?;
                // Nobody is two.
                asking.peer.map_or(Ok(()), |svid| proof.check(&svid.id))?;
                Ok(proof)
            }
            (None, Accepted::Cluster(_)) if asking.peer.is_some() => Err(Denied::NoToken),
            (None, _) => renewed(asking),
        }
    }

    async fn reviewed(
        &self,
        reviewer: &Reviewer,
        token: String,
        asking: Asking<'_>,
    ) -> Result<Proof, Denied> {
        let paces = || {
            let paces = self.bad_tokens.lock();
            paces.unwrap_or_else(PoisonError::into_inner)
        };
        let payer = asking.payer(&token);
        paces()
            .wait(&payer, Instant::now())
            .map_err(Denied::TooOften)?;
        let bound = match reviewer.review(token).await {
            Ok(bound) if bound.pod == *asking.workload => Ok(bound),
            Ok(bound) => Err(Denied::WrongPod(bound.pod.to_string())),
            Err(ReviewError::Refused(problem)) => Err(Denied::Jwt(problem)),
            Err(ReviewError::Unavailable) => return Err(Denied::Review),
        };
        match bound {
            Ok(bound) => Ok(Proof {
                pod_uid: Some(bound.uid),
                ..Proof::of(bound.identity)
            }),
            Err(denied) => {
                // Refusing this one says enough.
                let _ = paces().take(&payer, Instant::now());
                Err(denied)
            }
        }
    }
}

/// By the certificate before.
fn renewed(asking: Asking<'_>) -> Result<Proof, Denied> {
    let svid = asking.peer.ok_or(Denied::NoCredential)?;
    match is_valid(svid, asking.now) {
        true => Ok(Proof::of(svid.id.clone())),
        false => Err(Denied::Expired),
    }
}

fn is_valid(svid: &Svid, now: UnixTime) -> bool {
    u64::try_from(svid.not_after).unwrap_or(0) > now.as_secs()
}

impl Proof {
    fn of(identity: SpiffeId) -> Self {
        Self {
            identity,
            pod_uid: None,
            claim: None,
        }
    }

    /// The pod that the token is bound to, whatever its name.
    pub(crate) fn pod_uid(&self) -> Option<&str> {
        self.pod_uid.as_deref()
    }

    /// Whether that is who the pod runs as.
    pub(crate) fn check(&self, expected: &SpiffeId) -> Result<(), Denied> {
        if self.identity == *expected {
            return Ok(());
        }
        Err(Denied::WrongIdentity {
            expected: expected.clone(),
            found: self.identity.clone(),
        })
    }

    /// Uses up what may be used once. Of several callers with one token exactly one succeeds.
    pub(crate) fn redeem(self) -> Result<(), Denied> {
        self.claim.map_or(Ok(()), join_token::Claim::redeem)
    }
}

/// What was shown, for the metrics.
pub(crate) fn shown(
    credential: Option<&certify_request::Credential>,
    peer: Option<&Svid>,
) -> Credential {
    match (credential, peer) {
        (Some(certify_request::Credential::JoinToken(_)), _) => Credential::JoinToken,
        (Some(certify_request::Credential::Jwt(_)), _) => Credential::Jwt,
        (None, Some(_)) => Credential::Certificate,
        (None, None) => Credential::None,
    }
}

impl From<Invalid> for Denied {
    fn from(invalid: Invalid) -> Self {
        Self::Jwt(format!("claim {invalid}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_names_a_pod_that_is_known_pays_by_it() {
        let token = |claims: serde_json::Value| {
            let key = jsonwebtoken::EncodingKey::from_secret(b"anybody's");
            let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
            jsonwebtoken::encode(&header, &claims, &key).expect("signed")
        };
        let of = |uid: &str| token(json!({"kubernetes.io": {"pod": {"name": "a", "uid": uid}}}));
        let address = IpAddr::from([10, 0, 0, 1]);
        let workload = WorkloadName::new("shop", "cart-1").expect("a name");
        let rows = [
            (of("u1"), Some("u1"), Payer::Pod("u1".into())),
            (of("u1"), Some("u2"), Payer::Address(address)),
            (of("u1"), None, Payer::Address(address)),
            (token(json!({})), Some("u1"), Payer::Address(address)),
            ("e30.e30.e30".into(), Some("u1"), Payer::Address(address)),
            (String::new(), None, Payer::Address(address)),
        ];
        for (token, pod_uid, wanted) in rows {
            let asking = Asking {
                peer: None,
                address,
                workload: &workload,
                pod_uid,
                now: UnixTime::now(),
            };
            assert_eq!(asking.payer(&token), wanted, "{token} {pod_uid:?}");
        }
    }
}
