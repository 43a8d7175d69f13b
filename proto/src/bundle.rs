//! Roots of trust by trust domain. At most 64 domains of 16 roots of 8 KiB each.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::identity::TrustDomain;
use crate::{Invalid, pb};

/// Trust domains in one bundle.
pub const TRUST_DOMAINS_MAX: usize = 64;
/// Roots of one trust domain: more than one only while a root is rotated.
pub const ROOTS_MAX: usize = 16;
/// Bytes of one root certificate.
pub const ROOT_BYTES_MAX: usize = 8 * 1024;

/// Whom we trust to vouch for which trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    domains: BTreeMap<TrustDomain, Roots>,
}

#[derive(Debug, Clone)]
struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Arc<[TrustAnchor<'static>]>,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl Eq for Roots {}

impl TrustBundle {
    /// A bundle of one trust domain.
    ///
    /// # Errors
    /// When a root is no readable CA certificate, or there is none.
    pub fn single(
        domain: TrustDomain,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            domains: BTreeMap::from([(domain, Roots::new(roots)?)]),
        })
    }

    /// The roots that may vouch for `domain`; none when it is not ours to trust.
    #[must_use]
    pub fn anchors(&self, domain: &TrustDomain) -> Option<Arc<[TrustAnchor<'static>]>> {
        self.domains.get(domain).map(|roots| roots.anchors.clone())
    }

    /// The roots of `domain` as certificates.
    #[must_use]
    pub fn certificates(&self, domain: &TrustDomain) -> &[CertificateDer<'static>] {
        self.domains
            .get(domain)
            .map_or(&[], |roots| &roots.certificates)
    }
}

impl Roots {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, Invalid> {
        if certificates.is_empty() || certificates.len() > ROOTS_MAX {
            return Err(Invalid::new("roots", "are none, or more than 16"));
        }
        let anchor = |certificate: &CertificateDer<'static>| {
            if certificate.len() > ROOT_BYTES_MAX {
                return Err(Invalid::new("roots", "one is larger than 8 KiB"));
            }
            webpki::anchor_from_trusted_cert(certificate)
                .map(|anchor| anchor.to_owned())
                .map_err(|e| Invalid::new("roots", format!("one is no certificate: {e}")))
        };
        let anchors = certificates.iter().map(anchor).collect::<Result<_, _>>()?;
        Ok(Self {
            certificates,
            anchors,
        })
    }
}

impl TryFrom<pb::TrustBundle> for TrustBundle {
    type Error = Invalid;

    fn try_from(wire: pb::TrustBundle) -> Result<Self, Invalid> {
        let mut domains = BTreeMap::new();
        if wire.trust_domains.is_empty() || wire.trust_domains.len() > TRUST_DOMAINS_MAX {
            return Err(Invalid::new("trust_domains", "are none, or more than 64"));
        }
        for one in wire.trust_domains {
            let name: TrustDomain = one
                .trust_domain
                .parse()
                .map_err(|e: Invalid| e.inside("trust_domains"))?;
            let roots = one.roots.into_iter().map(CertificateDer::from).collect();
            let roots = Roots::new(roots).map_err(|e| e.inside("trust_domains"))?;
            if domains.insert(name, roots).is_some() {
                return Err(Invalid::new("trust_domains", "one is named twice"));
            }
        }
        Ok(Self { domains })
    }
}

impl From<&TrustBundle> for pb::TrustBundle {
    fn from(checked: &TrustBundle) -> Self {
        let domain = |(name, roots): (&TrustDomain, &Roots)| pb::TrustDomainRoots {
            trust_domain: name.to_string(),
            roots: roots
                .certificates
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
        };
        Self {
            trust_domains: checked.domains.iter().map(domain).collect(),
        }
    }
}
