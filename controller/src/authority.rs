//! The certificate authority: who signs, for how long, and what a leaf says.
//!
//! Nothing of a certificate request but its public key reaches a certificate. A leaf never outlives its issuer. The
//! self-made root lasts ten years and signs an issuer of one year, which is made anew at half of its life; the chain
//! that is served always includes the issuer, so proxies that know the root need to hear nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ringmail_proto::bundle::{ROOTS_MAX, TrustBundle};
use ringmail_proto::identity::{SpiffeId, TrustDomain};
use ringmail_proto::svid::{Role, Svid, SvidError};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tracing::warn;

use crate::config::{
    CONTROLLER_ACCOUNT, CONTROLLER_NAMESPACE, Config, DirectoryHome, LEAF_LIFETIME_MIN,
};

/// What is taken from a certificate request.
pub mod request;

/// What a leaf says.
mod leaf;

/// The certificates and keys that sign.
mod signing;

/// Where a self-made authority is kept.
mod store;

/// Roots that nobody signs under any more.
mod former;

/// A root kept elsewhere, with issuers in memory.
mod held;

use former::Former;
use held::Held;
pub use held::RootPem;
pub use request::{LeafKey, RequestError};
pub use signing::IssuerPem;
use signing::Signing;
pub(crate) use signing::to_pem;
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
    trust_domain: TrustDomain,
    leaf_lifetime: Duration,
    bundle: ArcSwap<TrustBundle>,
    signing: ArcSwap<Signing>,
    /// Of another issuer that signs from then on.
    succeeded: watch::Sender<()>,
    /// Held while the bundle is changed.
    former: Mutex<Former>,
    origin: Origin,
}

/// Where issuers come from.
#[derive(Debug)]
enum Origin {
    /// From elsewhere; somebody else renews them.
    Given,
    /// From a root of ours on disk. Held while one is made.
    Disk(Mutex<Store>),
    /// From a root of ours that is kept elsewhere.
    Memory(Mutex<Held>),
}

/// An issuer made elsewhere that is fit to take the place of the current one.
#[derive(Debug)]
pub struct Successor {
    signing: Signing,
    roots: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Opens the authority that a directory holds, making it when there is none yet.
    ///
    /// # Errors
    /// When files cannot be used, or a leaf signed with them would not verify.
    pub fn open(
        config: &Config,
        home: &DirectoryHome,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        match &home.given_authority {
            Some(files) => {
                let (signing, roots) = IssuerPem::read(files)?.open()?;
                store::publish_roots(&home.state_dir, &roots)?;
                Self::new(config, signing, roots, Origin::Given, now)
            }
            None => {
                let store = Store::open(&home.state_dir, &config.trust_domain, now)?;
                let signing = store.issuer(now)?;
                let roots = vec![store.root_certificate()];
                Self::new(config, signing, roots, Origin::Disk(Mutex::new(store)), now)
            }
        }
    }

    /// The authority of a root that is kept elsewhere; its issuers live in memory.
    ///
    /// # Errors
    /// When the root cannot be used.
    pub fn of_root(
        config: &Config,
        origin: &str,
        root: &RootPem,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let mut held = Held::open(origin, root, &config.trust_domain)?;
        let signing = held.issuer(now)?.ok_or(AuthorityError::Expired)?;
        let roots = vec![held.root_certificate()];
        let origin = Origin::Memory(Mutex::new(held));
        Self::new(config, signing, roots, origin, now)
    }

    /// The authority of an issuer that somebody else makes and renews.
    ///
    /// # Errors
    /// When it cannot be used, or a leaf signed with it would not verify.
    pub fn of_issuer(
        config: &Config,
        given: &IssuerPem,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let (signing, roots) = given.open()?;
        Self::new(config, signing, roots, Origin::Given, now)
    }

    fn new(
        config: &Config,
        signing: Signing,
        roots: Vec<CertificateDer<'static>>,
        origin: Origin,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let bundle = bundle_of(&config.trust_domain, roots)?;
        prove(&config.trust_domain, &signing, &bundle, now)?;
        Ok(Self {
            trust_domain: config.trust_domain.clone(),
            leaf_lifetime: config.leaf_lifetime,
            bundle: ArcSwap::from_pointee(bundle),
            signing: ArcSwap::from_pointee(signing),
            succeeded: watch::Sender::new(()),
            former: Mutex::default(),
            origin,
        })
    }

    /// Whom proxies shall trust.
    #[must_use]
    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.bundle.load_full()
    }

    /// Checks an issuer made elsewhere, as at the start. None when it is the one in force.
    ///
    /// # Errors
    /// When it cannot be used, or a leaf signed with it would not verify; the one in force stays.
    pub fn consider(
        &self,
        given: &IssuerPem,
        now: UnixTime,
    ) -> Result<Option<Successor>, AuthorityError> {
        let (signing, roots) = given.open()?;
        prove(
            &self.trust_domain,
            &signing,
            &bundle_of(&self.trust_domain, roots.clone())?,
            now,
        )?;
        let is_same = signing.is_same(&self.signing.load()) && self.trusts(&roots);
        Ok((!is_same).then_some(Successor { signing, roots }))
    }

    /// Trusts the successor's roots beside those trusted so far; true when one is new. What was signed so far stays
    /// good: nobody drops a root while a leaf under it may live, unless there are too many such roots.
    ///
    /// # Errors
    /// When there would be too many.
    pub fn trust(&self, successor: &Successor) -> Result<bool, AuthorityError> {
        if self.trusts(&successor.roots) {
            return Ok(false);
        }
        let former = self.former();
        self.put_roots(&former, successor.roots.clone())?;
        Ok(true)
    }

    /// Trusts the roots of another authority of this mesh for as long as this process lives; true when one is new.
    ///
    /// # Errors
    /// When there would be too many.
    pub(crate) fn trust_also(&self, other: &RootPem) -> Result<bool, AuthorityError> {
        let roots = other.certificates()?;
        if self.trusts(&roots) {
            return Ok(false);
        }
        let former = self.former();
        let mut all = self.roots();
        all.extend(roots);
        self.put_roots(&former, all)?;
        Ok(true)
    }

    /// Trusts roots of formerly, as a controller that ran before has left them: a leaf under them may live. Those that
    /// are over, or for which there is no place, are left out.
    pub(crate) fn remember(&self, roots: &[CertificateDer<'static>], now: UnixTime) {
        let mut former = self.former();
        let own = self.roots();
        let mut all = own.clone();
        for root in roots.iter().filter(|root| !own.contains(root)) {
            if former.add(root, self.leaf_lifetime, now) {
                all.push(root.clone());
            }
        }
        if let Err(e) = self.put_roots(&former, all) {
            warn!("roots of formerly are not trusted any more: {e}");
        }
    }

    /// Stops trusting roots whose last leaf is over; true when there was one.
    pub(crate) fn forget(&self, now: UnixTime) -> bool {
        let former = self.former();
        let all = self.roots();
        let current = former.current(&all, now);
        let is_less = current.len() < all.len();
        if is_less && let Ok(bundle) = bundle_of(&self.trust_domain, current) {
            self.bundle.store(Arc::new(bundle));
        }
        is_less
    }

    /// These first, then all others that are trusted; when there is not place for all, without the oldest former ones.
    fn put_roots(
        &self,
        former: &Former,
        mut roots: Vec<CertificateDer<'static>>,
    ) -> Result<(), AuthorityError> {
        for root in self.roots() {
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        former.fit(&mut roots, ROOTS_MAX);
        let bundle = bundle_of(&self.trust_domain, roots)?;
        self.bundle.store(Arc::new(bundle));
        Ok(())
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.bundle.load().certificates(&self.trust_domain).to_vec()
    }

    fn former(&self) -> MutexGuard<'_, Former> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs with the successor from now on; roots that are not its own are former ones.
    pub fn succeed(&self, successor: Successor, now: UnixTime) {
        let mut former = self.former();
        for root in self.roots() {
            match successor.roots.contains(&root) {
                true => former.remove(&root),
                false => {
                    former.add(&root, self.leaf_lifetime, now);
                }
            }
        }
        drop(former);
        self.sign_with(successor.signing);
    }

    fn sign_with(&self, signing: Signing) {
        self.signing.store(Arc::new(signing));
        self.succeeded.send_replace(());
    }

    /// Tells of each issuer that takes over: what was signed by the one before is to be signed anew where its caller may
    /// have heard of the new root alone.
    #[must_use]
    pub(crate) fn successions(&self) -> watch::Receiver<()> {
        self.succeeded.subscribe()
    }

    /// Whether what is signed now is good for somebody who trusts these roots and no others.
    pub(crate) fn verifies_under(
        &self,
        roots: Vec<CertificateDer<'static>>,
        now: UnixTime,
    ) -> bool {
        bundle_of(&self.trust_domain, roots)
            .and_then(|bundle| prove(&self.trust_domain, &self.signing.load(), &bundle, now))
            .is_ok()
    }

    fn trusts(&self, roots: &[CertificateDer<'_>]) -> bool {
        let bundle = self.bundle.load();
        let known = bundle.certificates(&self.trust_domain);
        roots.iter().all(|root| known.contains(root))
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
        let valid_for = self.lifetime(&signing, now)?;
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

    fn lifetime(&self, signing: &Signing, now: UnixTime) -> Result<Duration, AuthorityError> {
        let left = Duration::from_secs(signing.not_after.saturating_sub(now.as_secs()));
        let valid_for = self.leaf_lifetime.min(left);
        if valid_for < LEAF_LIFETIME_MIN {
            return Err(AuthorityError::Expired);
        }
        Ok(valid_for)
    }

    /// Signs a leaf for a server that is known by names and not by an identity: the webhooks.
    ///
    /// # Errors
    /// When the issuer's life is over.
    pub fn issue_named(
        &self,
        key: &LeafKey,
        names: &[String],
        now: UnixTime,
    ) -> Result<(Vec<CertificateDer<'static>>, Duration), AuthorityError> {
        let signing = self.signing.load();
        let valid_for = self.lifetime(&signing, now)?;
        let leaf = leaf::sign_named(key, names, &signing, now, valid_for)?;
        let chain = std::iter::once(leaf).chain(signing.chain.iter().cloned());
        Ok((chain.collect(), valid_for))
    }

    /// Makes a new issuer when the current one is past half of its life; true when it did.
    ///
    /// # Errors
    /// When the new issuer cannot be kept; the current one stays in force.
    pub fn renew_issuer(&self, now: UnixTime) -> Result<bool, AuthorityError> {
        let fresh = match &self.origin {
            Origin::Given => None,
            Origin::Disk(store) => {
                let store = store.lock().unwrap_or_else(PoisonError::into_inner);
                let signing = store.issuer(now)?;
                let is_new = signing.chain != self.signing.load().chain;
                is_new.then_some(signing)
            }
            Origin::Memory(held) => {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                held.issuer(now)?
            }
        };
        let changed = fresh.is_some();
        if let Some(signing) = fresh {
            self.sign_with(signing);
        }
        Ok(changed)
    }

    /// End of the issuer's validity, seconds since the Unix epoch.
    #[must_use]
    pub fn issuer_not_after(&self) -> u64 {
        self.signing.load().not_after
    }
}

fn bundle_of(
    domain: &TrustDomain,
    roots: Vec<CertificateDer<'static>>,
) -> Result<TrustBundle, AuthorityError> {
    TrustBundle::single(domain.clone(), roots).map_err(|e| AuthorityError::Material {
        path: "root certificate".into(),
        problem: e.to_string(),
    })
}

/// Signs a leaf and verifies it as a proxy would: what does not belong together is found at the start.
fn prove(
    domain: &TrustDomain,
    signing: &Signing,
    bundle: &TrustBundle,
    now: UnixTime,
) -> Result<(), AuthorityError> {
    let id = SpiffeId::new(domain, CONTROLLER_NAMESPACE, CONTROLLER_ACCOUNT).map_err(|e| {
        AuthorityError::Material {
            path: "trust domain".into(),
            problem: e.to_string(),
        }
    })?;
    let key = LeafKey::of(&rcgen::KeyPair::generate()?)?;
    if signing.not_after < now.as_secs() + LEAF_LIFETIME_MIN.as_secs() {
        return Err(AuthorityError::Expired);
    }
    let leaf = leaf::sign(&key, &id, signing, now, LEAF_LIFETIME_MIN)?;
    Svid::verify(&leaf, &signing.chain, bundle, Role::Server, now)
        .map_err(AuthorityError::Unusable)?;
    Ok(())
}

#[cfg(test)]
mod tests;
