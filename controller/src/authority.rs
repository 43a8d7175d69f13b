//! The certificate authority: who signs, for how long, and what a leaf says.
//!
//! Nothing of a certificate request but its public key reaches a certificate. A leaf never outlives its issuer. The
//! self-made root lasts ten years and signs an issuer of one year, which is made anew at half of its life; the chain
//! that is served always includes the issuer, so proxies that know the root need to hear nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::identity::{SpiffeId, TrustDomain};
use ringmail_proto::svid::{Role, Svid, SvidError};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::config::{Config, LEAF_LIFETIME_MIN};

/// What is taken from a certificate request.
pub mod request;

/// What a leaf says.
mod leaf;

/// The certificates and keys that sign.
mod signing;

/// Where a self-made authority is kept.
mod store;

pub use request::{LeafKey, RequestError};
use signing::Signing;
use store::Store;

/// Start of validity before the moment of issue, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// Why nothing was issued, or the authority did not open.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("cannot access {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path} {problem}")]
    Material {
        /// Which.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What this authority signs would not be accepted.
    #[error("a certificate signed by this authority would be refused")]
    Unusable(#[source] SvidError),
    /// The issuer's own life is over.
    #[error("the issuer certificate has expired or is about to")]
    Expired,
    /// The library refused.
    #[error("cannot sign")]
    Sign(#[from] rcgen::Error),
    /// No random numbers.
    #[error("the system has no random numbers")]
    Random,
}

/// A fresh leaf.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first, then the issuers without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// What the leaf says.
    pub svid: Svid,
    /// From the moment of issue to the end of validity.
    pub valid_for: Duration,
}

/// The authority of one trust domain.
#[derive(Debug)]
pub struct Authority {
    leaf_lifetime: Duration,
    bundle: Arc<TrustBundle>,
    signing: ArcSwap<Signing>,
    /// Set when the root is ours, so that issuers can be made anew. Held while one is made.
    store: Option<Mutex<Store>>,
}

impl Authority {
    /// Opens the authority that `config` names, making it when there is none yet.
    ///
    /// # Errors
    /// When files cannot be used, or a leaf signed with them would not verify.
    pub fn open(config: &Config, now: UnixTime) -> Result<Self, AuthorityError> {
        let domain = &config.trust_domain;
        let (signing, roots, store) = match &config.given_authority {
            Some(files) => {
                let (signing, roots) = signing::given(files)?;
                store::publish_roots(&config.state_dir, &roots)?;
                (signing, roots, None)
            }
            None => {
                let store = Store::open(&config.state_dir, domain, now)?;
                let signing = store.issuer(now)?;
                let roots = vec![store.root_certificate()];
                (signing, roots, Some(Mutex::new(store)))
            }
        };
        let bundle =
            TrustBundle::single(domain.clone(), roots).map_err(|e| AuthorityError::Material {
                path: "root certificate".into(),
                problem: e.to_string(),
            })?;
        let authority = Self {
            leaf_lifetime: config.leaf_lifetime,
            bundle: Arc::new(bundle),
            signing: ArcSwap::from_pointee(signing),
            store,
        };
        authority.prove(domain, now)?;
        Ok(authority)
    }

    /// Whom proxies shall trust.
    #[must_use]
    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.bundle.clone()
    }

    /// Signs a leaf for `id`.
    ///
    /// # Errors
    /// When the issuer's life is over.
    pub fn issue(
        &self,
        key: &LeafKey,
        id: &SpiffeId,
        now: UnixTime,
    ) -> Result<Issued, AuthorityError> {
        let signing = self.signing.load();
        let left = Duration::from_secs(signing.not_after.saturating_sub(now.as_secs()));
        let valid_for = self.leaf_lifetime.min(left);
        if valid_for < LEAF_LIFETIME_MIN {
            return Err(AuthorityError::Expired);
        }
        let leaf = leaf::sign(key, id, &signing, now, valid_for)?;
        let svid = Svid::read(&leaf).map_err(AuthorityError::Unusable)?;
        let chain = std::iter::once(leaf)
            .chain(signing.chain.iter().cloned())
            .collect();
        Ok(Issued {
            chain,
            svid,
            valid_for,
        })
    }

    /// Makes a new issuer when the current one is past half of its life; true when it did.
    ///
    /// # Errors
    /// When the new issuer cannot be kept; the current one stays in force.
    pub fn renew_issuer(&self, now: UnixTime) -> Result<bool, AuthorityError> {
        let Some(store) = &self.store else {
            return Ok(false);
        };
        let store = store.lock().unwrap_or_else(PoisonError::into_inner);
        let signing = store.issuer(now)?;
        let changed = signing.chain != self.signing.load().chain;
        if changed {
            self.signing.store(Arc::new(signing));
        }
        Ok(changed)
    }

    /// End of the issuer's validity, seconds since the Unix epoch.
    #[must_use]
    pub fn issuer_not_after(&self) -> u64 {
        self.signing.load().not_after
    }

    /// Signs a leaf and verifies it as a proxy would: files that do not belong together are found at the start.
    fn prove(&self, domain: &TrustDomain, now: UnixTime) -> Result<(), AuthorityError> {
        let id = SpiffeId::new(domain, "ringmail-system", "ringmail-controller").map_err(|e| {
            AuthorityError::Material {
                path: "trust domain".into(),
                problem: e.to_string(),
            }
        })?;
        let key = LeafKey::of(&rcgen::KeyPair::generate()?)?;
        let issued = self.issue(&key, &id, now)?;
        let (leaf, intermediates) = issued.chain.split_first().ok_or(AuthorityError::Expired)?;
        Svid::verify(leaf, intermediates, &self.bundle, Role::Server, now)
            .map_err(AuthorityError::Unusable)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
