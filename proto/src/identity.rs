//! Who a workload is: SPIFFE IDs of the one form Ringmail issues, `spiffe://<trust-domain>/ns/<ns>/sa/<account>`.
//!
//! Limits: a trust domain has at most 255 bytes, a SPIFFE ID 2048 (SPIFFE-ID section 2.1), a name 253 (RFC 1123).
//! Names compare byte for byte; nothing here is ever a pattern.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Invalid, pb};

/// SPIFFE-ID section 2.1.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// SPIFFE-ID section 2.3.
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// RFC 1123, as Kubernetes applies it to object names.
pub const NAME_BYTES_MAX: usize = 253;
/// RFC 1123 label, as Kubernetes applies it to namespaces.
pub const NAMESPACE_BYTES_MAX: usize = 63;

/// The domain whose roots vouch for an identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name, without scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |problem: &str| Err(Invalid::new("trust_domain", problem));
        if text.is_empty() {
            return refuse("is empty");
        }
        if text.len() > TRUST_DOMAIN_BYTES_MAX {
            return refuse("is longer than 255 bytes");
        }
        if !text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
        {
            return refuse("may hold only a-z, 0-9, dot, dash and underscore");
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service account of a namespace of a trust domain: the identity in every certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The whole URI; the parts are ranges of it, so that an identity is one allocation.
    uri: Arc<str>,
    trust_domain_end: usize,
    namespace_end: usize,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// The identity of `service_account` in `namespace`.
    ///
    /// # Errors
    /// When a name is not one that Kubernetes would accept.
    pub fn new(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, Invalid> {
        check_namespace("namespace", namespace)?;
        check_name("service_account", service_account)?;
        let trust_domain_end = SCHEME.len() + trust_domain.as_str().len();
        Ok(Self {
            uri: format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").into(),
            trust_domain_end,
            namespace_end: trust_domain_end + "/ns/".len() + namespace.len(),
        })
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// Whose roots vouch for it.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.uri[SCHEME.len()..self.trust_domain_end].into())
    }

    /// The name of [`Self::trust_domain`].
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        &self.uri[SCHEME.len()..self.trust_domain_end]
    }

    /// The Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.uri[self.trust_domain_end + "/ns/".len()..self.namespace_end]
    }

    /// The Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.uri[self.namespace_end + "/sa/".len()..]
    }
}

impl FromStr for SpiffeId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |problem: &str| Invalid::new("spiffe_id", problem);
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(refuse("is longer than 2048 bytes"));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| refuse("does not begin with spiffe://"))?;
        let mut parts = rest.split('/');
        let mut next = || {
            parts
                .next()
                .ok_or_else(|| refuse("is not spiffe://<trust-domain>/ns/<ns>/sa/<account>"))
        };
        let (trust_domain, ns, namespace, sa, account) =
            (next()?, next()?, next()?, next()?, next()?);
        if (ns, sa, parts.next()) != ("ns", "sa", None) {
            return Err(refuse(
                "is not spiffe://<trust-domain>/ns/<ns>/sa/<account>",
            ));
        }
        Self::new(&trust_domain.parse()?, namespace, account).map_err(|e| e.inside("spiffe_id"))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

/// A pod's name in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub name: Arc<str>,
}

impl WorkloadName {
    /// A checked name.
    ///
    /// # Errors
    /// When a part is not one that Kubernetes would accept.
    pub fn new(namespace: &str, name: &str) -> Result<Self, Invalid> {
        check_namespace("namespace", namespace)?;
        check_name("name", name)?;
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| Invalid::new("workload", "is not <namespace>/<name>"))?;
        Self::new(namespace, name).map_err(|e| e.inside("workload"))
    }
}

impl TryFrom<pb::WorkloadRef> for WorkloadName {
    type Error = Invalid;

    fn try_from(wire: pb::WorkloadRef) -> Result<Self, Invalid> {
        Self::new(&wire.namespace, &wire.name)
    }
}

impl From<&WorkloadName> for pb::WorkloadRef {
    fn from(checked: &WorkloadName) -> Self {
        Self {
            namespace: checked.namespace.to_string(),
            name: checked.name.to_string(),
        }
    }
}

/// RFC 1123 label.
fn check_namespace(field: &str, text: &str) -> Result<(), Invalid> {
    if text.len() > NAMESPACE_BYTES_MAX || text.contains('.') {
        return Err(Invalid::new(
            field,
            "is not an RFC 1123 label of at most 63 characters",
        ));
    }
    check_name(field, text)
}

/// RFC 1123 subdomain: labels of a-z, 0-9 and inner dashes, joined by dots.
fn check_name(field: &str, text: &str) -> Result<(), Invalid> {
    let label_fits = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes
                .iter()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    if text.len() <= NAME_BYTES_MAX && text.split('.').all(label_fits) {
        Ok(())
    } else {
        Err(Invalid::new(
            field,
            "is not an RFC 1123 name of at most 253 characters",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_only_our_form() {
        let check =
            |text: &str, good: bool| assert_eq!(text.parse::<SpiffeId>().is_ok(), good, "{text:?}");
        check("spiffe://mesh.local/ns/shop/sa/cart", true);
        check("spiffe://a_b-c.9/ns/shop/sa/cart.v1", true);
        check("", false);
        check("spiffe://", false);
        check("spiffe:///ns/shop/sa/cart", false);
        check("spiffe://mesh.local", false);
        check("spiffe://mesh.local/", false);
        check("SPIFFE://mesh.local/ns/shop/sa/cart", false);
        check("spiffe://Mesh.local/ns/shop/sa/cart", false);
        check("spiffe://mesh.local:80/ns/shop/sa/cart", false);
        check("spiffe://u@mesh.local/ns/shop/sa/cart", false);
        check("spiffe://mesh.local/ns/shop/sa/cart/", false);
        check("spiffe://mesh.local/ns/shop/sa/cart/x", false);
        check("spiffe://mesh.local/ns/shop/sa/cart?x=y", false);
        check("spiffe://mesh.local/ns/shop/sa/cart#x", false);
        check("spiffe://mesh.local/ns/shop/sa/../sa/cart", false);
        check("spiffe://mesh.local/ns//sa/cart", false);
        check("spiffe://mesh.local/ns/sh%6Fp/sa/cart", false);
        check("spiffe://mesh.local/ns/a.b/sa/cart", false);
        check("spiffe://mesh.local/ns/shop/sa/cart\0", false);
        check(
            &format!("spiffe://{}/ns/shop/sa/cart", "a".repeat(256)),
            false,
        );
        check(
            &format!("spiffe://mesh.local/ns/shop/sa/{}", "a".repeat(254)),
            false,
        );
    }

    #[test]
    fn parts_are_what_was_put_in() {
        let id: SpiffeId = "spiffe://mesh.local/ns/shop/sa/cart.v1"
            .parse()
            .expect("valid");
        assert_eq!(id.trust_domain().as_str(), "mesh.local");
        assert_eq!((id.namespace(), id.service_account()), ("shop", "cart.v1"));
    }

    proptest! {
        #[test]
        fn parse_and_print_agree(text in "(spiffe://)?[a-z.]{0,6}(/ns/[a-z-]{0,4})?(/sa/[a-z.-]{0,4})?\\PC{0,3}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
                let again = SpiffeId::new(&id.trust_domain(), id.namespace(), id.service_account());
                prop_assert_eq!(again, Ok(id));
            }
        }
    }

    #[test]
    fn as_long_as_may_be_and_no_longer() {
        let name = |length| "a".repeat(length);
        let rows = [
            (1, true),
            (TRUST_DOMAIN_BYTES_MAX, true),
            (TRUST_DOMAIN_BYTES_MAX + 1, false),
        ];
        for (length, expected) in rows {
            let parsed = name(length).parse::<TrustDomain>();
            assert_eq!(parsed.is_ok(), expected, "a trust domain of {length}");
        }
        let rows = [
            (NAMESPACE_BYTES_MAX, true),
            (NAMESPACE_BYTES_MAX + 1, false),
        ];
        for (length, expected) in rows {
            let parsed = WorkloadName::new(&name(length), "cart");
            assert_eq!(parsed.is_ok(), expected, "a namespace of {length}");
        }
        let long = format!(
            "spiffe://mesh.local/ns/shop/sa/{}",
            name(SPIFFE_ID_BYTES_MAX)
        );
        let refused = long.parse::<SpiffeId>().expect_err("too long");
        assert!(refused.problem.contains("2048"), "{refused}");
    }

    #[test]
    fn a_workload_is_named_alike_everywhere() {
        let name = WorkloadName::new("shop", "cart-1").expect("a name");
        assert_eq!(name.to_string(), "shop/cart-1");
        assert_eq!("shop/cart-1".parse::<WorkloadName>(), Ok(name.clone()));
        let wire = pb::WorkloadRef::from(&name);
        assert_eq!(WorkloadName::try_from(wire), Ok(name));
        assert!("shop".parse::<WorkloadName>().is_err());
    }
}
