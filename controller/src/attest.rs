//! Which identity a credential proves. Never one derived from an address.
//!
//! Off Kubernetes: a join token, once; or a JWT of the configured issuer. Afterwards the certificate of the caller's
//! connection, while it is valid.

use std::io;

use ringmail_proto::Invalid;
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use ringmail_proto::pb::certify_request;
use ringmail_proto::svid::Svid;
use rustls::pki_types::UnixTime;

use crate::config::Config;
use crate::metrics::{Credential, Metrics};

/// One-time tokens.
pub mod join_token;

/// Signed tokens.
mod jwt;

/// The keys that signed tokens are verified with.
mod jwks;

/// Fetching the keys.
mod fetch;

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
    /// Tokens cannot be read.
    #[error("cannot read the state directory")]
    State(#[source] io::Error),
}

/// The credentials that are accepted here.
#[derive(Debug)]
pub(crate) struct Attestor {
    join_tokens: JoinTokens,
    verifier: Option<Verifier>,
}

/// An identity that was proven, and what is used up by using it.
#[derive(Debug)]
pub(crate) struct Proof(Option<join_token::Claim>);

impl Attestor {
    pub(crate) fn open(config: &Config, metrics: &Metrics) -> io::Result<Self> {
        let trust_domain: TrustDomain = config.trust_domain.clone();
        let verifier = config
            .jwt
            .as_ref()
            .map(|trust| Verifier::new(trust, trust_domain, metrics))
            .transpose()?;
        Ok(Self {
            join_tokens: JoinTokens::open(&config.state_dir)?,
            verifier,
        })
    }

    /// The keys to be kept fresh, when there is an issuer.
    pub(crate) fn jwks(&self) -> Option<&Jwks> {
        self.verifier.as_ref().map(Verifier::jwks)
    }

    /// Whether the caller proved that it is the pod `workload`, which runs as `expected`.
    pub(crate) async fn prove(
        &self,
        credential: Option<certify_request::Credential>,
        peer: Option<&Svid>,
        workload: &WorkloadName,
        expected: &SpiffeId,
        now: UnixTime,
    ) -> Result<Proof, Denied> {
        use certify_request::Credential::{JoinToken, Jwt};
        let (found, proof) = match credential {
            Some(JoinToken(token)) => {
                let claim = self.join_tokens.check(&token, now)?;
                (claim.identity().clone(), Proof(Some(claim)))
            }
            Some(Jwt(token)) => {
                let verifier = self.verifier.as_ref().ok_or(Denied::NoJwtIssuer)?;
                let claims = verifier.verify(&token).await?;
                claims.check_pod(workload)?;
                (claims.identity, Proof(None))
            }
            None => {
                let svid = peer.ok_or(Denied::NoCredential)?;
                if u64::try_from(svid.not_after).unwrap_or(0) <= now.as_secs() {
                    return Err(Denied::Expired);
                }
                (svid.id.clone(), Proof(None))
            }
        };
        if found == *expected {
            Ok(proof)
        } else {
            Err(Denied::WrongIdentity {
                expected: expected.clone(),
                found,
            })
        }
    }
}

impl Proof {
    /// Uses up what may be used once. Of several callers with one token exactly one succeeds.
    pub(crate) fn redeem(self) -> Result<(), Denied> {
        self.0.map_or(Ok(()), join_token::Claim::redeem)
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
