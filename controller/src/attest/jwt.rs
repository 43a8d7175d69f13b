//! Signed tokens: which identity a JWT of the configured issuer proves.
//!
//! The key decides the algorithm, the token does not: RS256, ES256 or EdDSA; everything else is refused, `none` and
//! HMAC above all. Issuer and audience are ours exactly, expiry is required.

use std::io;

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Validation, decode, decode_header};
use ringmail_proto::Invalid;
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use serde::Deserialize;

use super::Denied;
use super::jwks::Jwks;
use crate::config::JwtTrust;
use crate::metrics::Metrics;

/// Bytes of a token.
const JWT_BYTES_MAX: usize = 16 * 1024;
/// Seconds that our clock and the issuer's may differ.
const LEEWAY_SECONDS: u64 = 60;
/// Subject of a Kubernetes service account.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Verifies tokens of one issuer.
#[derive(Debug)]
pub(super) struct Verifier {
    issuer: String,
    audience: String,
    trust_domain: TrustDomain,
    jwks: Jwks,
}

/// What a good token says.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) identity: SpiffeId,
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Deserialize)]
struct Body {
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

/// What Kubernetes adds to a bound token.
#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: Option<String>,
    pod: Option<BoundPod>,
}

#[derive(Debug, Deserialize)]
struct BoundPod {
    name: String,
}

impl Verifier {
    pub(super) fn new(
        trust: &JwtTrust,
        trust_domain: TrustDomain,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        Ok(Self {
            issuer: trust.issuer.clone(),
            audience: trust.audience.clone(),
            trust_domain,
            jwks: Jwks::new(trust.jwks.clone(), metrics)?,
        })
    }

    pub(super) fn jwks(&self) -> &Jwks {
        &self.jwks
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Claims, Denied> {
        if token.len() > JWT_BYTES_MAX {
            return Err(Denied::Jwt("is larger than 16384 bytes".into()));
        }
        let header = decode_header(token).map_err(refused)?;
        let key = self.jwks.key(header.kid.as_deref(), header.alg).await?;
        if header.alg != key.algorithm {
            return Err(Denied::Jwt(format!(
                "is signed with {:?}, its key is for {:?}",
                header.alg, key.algorithm
            )));
        }
        let mut validation = Validation::new(key.algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let body = decode::<Body>(token, &key.decoding, &validation)
            .map_err(refused)?
            .claims;
        Ok(Claims {
            identity: self.identity(&body.sub)?,
            kubernetes: body.kubernetes,
        })
    }

    /// `spiffe://...` of our trust domain, or `system:serviceaccount:<namespace>:<name>`.
    fn identity(&self, subject: &str) -> Result<SpiffeId, Denied> {
        if let Some(account) = subject.strip_prefix(SERVICE_ACCOUNT) {
            let (namespace, name) = account
                .split_once(':')
                .ok_or_else(|| Invalid::new("sub", "names no service account"))?;
            return Ok(
                SpiffeId::new(&self.trust_domain, namespace, name).map_err(|e| e.inside("sub"))?
            );
        }
        let id: SpiffeId = subject.parse().map_err(|e: Invalid| e.inside("sub"))?;
        if id.trust_domain() != self.trust_domain {
            return Err(Invalid::new("sub", "is of another trust domain").into());
        }
        Ok(id)
    }
}

impl Claims {
    /// A token that is bound to a pod proves that pod only.
    pub(super) fn check_pod(&self, workload: &WorkloadName) -> Result<(), Denied> {
        let Some(bound) = &self.kubernetes else {
            return Ok(());
        };
        let namespace = bound.namespace.as_deref();
        if namespace.is_some_and(|namespace| namespace != &*workload.namespace) {
            return Err(Denied::WrongPod("of another namespace".into()));
        }
        match &bound.pod {
            Some(pod) if pod.name != *workload.name => Err(Denied::WrongPod(
                pod.name
                    .chars()
                    .take(ringmail_proto::identity::NAME_BYTES_MAX)
                    .collect(),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// The UID of the pod that a token says it is bound to. Nobody has verified a word of it.
pub(super) fn claimed_uid(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "kubernetes.io")]
        kubernetes: Bound,
    }
    #[derive(Deserialize)]
    struct Bound {
        pod: Pod,
    }
    #[derive(Deserialize)]
    struct Pod {
        uid: String,
    }
    if token.len() > JWT_BYTES_MAX {
        return None;
    }
    let said = insecure_decode_claims::<Said>(token).ok()?;
    Some(said.kubernetes.pod.uid)
}

/// The library's words name the claim or the rule, never the token.
fn refused(error: jsonwebtoken::errors::Error) -> Denied {
    Denied::Jwt(format!("is refused: {error}"))
}
