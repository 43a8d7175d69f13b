//! A root that is kept elsewhere (in a Secret of the cluster), and an issuer of it that lives in memory only: each replica
//! has its own, and makes the next at half of its life.

use std::fmt;

use ringmail_proto::identity::TrustDomain;
use rustls::pki_types::{CertificateDer, UnixTime};
use zeroize::Zeroizing;

use super::AuthorityError;
use super::signing::{Pair, Signing, certificates, to_pem};
use super::store::{new_issuer, new_root, past_half, signing};

/// A root as it is kept.
pub struct RootPem {
    /// Its certificate.
    pub cert: String,
    /// Its private key.
    pub key: Zeroizing<String>,
}

impl fmt::Debug for RootPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootPem").finish_non_exhaustive()
    }
}

impl RootPem {
    /// A new root.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn make(trust_domain: &TrustDomain, now: UnixTime) -> Result<Self, AuthorityError> {
        let root = new_root(trust_domain, now)?;
        Ok(Self {
            cert: to_pem(&root.certificates),
            key: Zeroizing::new(root.key.serialize_pem()),
        })
    }
}

impl RootPem {
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        certificates("root certificate", self.cert.as_bytes())
    }
}

/// A root and what it signed last.
pub(super) struct Held {
    trust_domain: TrustDomain,
    root: Pair,
    issuer: Option<(u64, u64)>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl Held {
    pub(super) fn open(
        origin: &str,
        root: &RootPem,
        trust_domain: &TrustDomain,
    ) -> Result<Self, AuthorityError> {
        Ok(Self {
            trust_domain: trust_domain.clone(),
            root: Pair::parse(origin, root.cert.as_bytes(), root.key.as_bytes())?,
            issuer: None,
        })
    }

    pub(super) fn root_certificate(&self) -> CertificateDer<'static> {
        self.root.certificates[0].clone()
    }

    /// A new issuer, when the current one is past half of its life.
    pub(super) fn issuer(&mut self, now: UnixTime) -> Result<Option<Signing>, AuthorityError> {
        if self.issuer.is_some_and(|life| !past_half(life, now)) {
            return Ok(None);
        }
        let issuer = new_issuer(&self.root, &self.trust_domain, now)?;
        self.issuer = Some(issuer.validity()?);
        signing(issuer, &self.root).map(Some)
    }
}
