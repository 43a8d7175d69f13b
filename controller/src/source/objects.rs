//! What a source hands over: Kubernetes objects by kind and name, whole and immutable. At most `OBJECTS_MAX`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::authentication;
use super::limit;
use super::policy::Meant;
use super::revocation::Revoked;
use super::route::Route;

/// Objects of one source.
pub const OBJECTS_MAX: usize = 100_000;

/// The kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1`.
    Namespace,
    /// `v1`.
    ServiceAccount,
    /// `v1`.
    Service,
    /// `v1`.
    Pod,
    /// `discovery.k8s.io/v1`.
    EndpointSlice,
    /// `gateway.networking.k8s.io/v1`.
    HTTPRoute,
    /// `gateway.networking.k8s.io/v1`.
    GRPCRoute,
    /// `gateway.networking.k8s.io/v1`.
    TLSRoute,
    /// `ringmail.io/v1alpha1`.
    AuthorizationPolicy,
    /// `ringmail.io/v1alpha1`.
    RequestAuthentication,
    /// `ringmail.io/v1alpha1`.
    RateLimitPolicy,
    /// `ringmail.io/v1alpha1`; of no namespace.
    IdentityRevocation,
}

impl Kind {
    /// Definitions of the mesh itself.
    pub const OURS: [Self; 4] = [
        Self::AuthorizationPolicy,
        Self::RequestAuthentication,
        Self::RateLimitPolicy,
        Self::IdentityRevocation,
    ];
    /// The routes of the Gateway API.
    pub const ROUTES: [Self; 3] = [Self::HTTPRoute, Self::GRPCRoute, Self::TLSRoute];
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a Namespace and an IdentityRevocation.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{:?} {}", self.kind, self.name),
            namespace => write!(f, "{:?} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One object; cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Arc<Namespace>),
    /// A service account.
    ServiceAccount(Arc<ServiceAccount>),
    /// A service.
    Service(Arc<Service>),
    /// A pod.
    Pod(Arc<Pod>),
    /// Endpoints of a service.
    EndpointSlice(Arc<EndpointSlice>),
    /// Rules for HTTP requests, gRPC calls or TLS connections.
    Route(Arc<Route>),
    /// Who may do what.
    Policy(Arc<Meant>),
    /// Whose tokens are good.
    Authentication(Arc<authentication::Meant>),
    /// How often.
    Limits(Arc<limit::Meant>),
    /// Whom nobody trusts.
    Revocation(Arc<Revoked>),
}

impl Object {
    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(one) => &one.metadata,
            Self::ServiceAccount(one) => &one.metadata,
            Self::Service(one) => &one.metadata,
            Self::Pod(one) => &one.metadata,
            Self::EndpointSlice(one) => &one.metadata,
            Self::Route(one) => &one.metadata,
            Self::Policy(one) => &one.metadata,
            Self::Authentication(one) => &one.metadata,
            Self::Limits(one) => &one.metadata,
            Self::Revocation(one) => &one.metadata,
        }
    }
}

/// Whole state of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    by_key: BTreeMap<Key, Object>,
}

impl Objects {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The namespace of that name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        let key = Key {
            kind: Kind::Namespace,
            namespace: "".into(),
            name: name.into(),
        };
        match self.by_key.get(&key)? {
            Object::Namespace(one) => Some(one),
            _ => None,
        }
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        let key = Key {
            kind: Kind::Service,
            namespace: namespace.into(),
            name: name.into(),
        };
        match self.by_key.get(&key)? {
            Object::Service(one) => Some(one),
            _ => None,
        }
    }

    /// The object of that name.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.by_key.get(key)
    }

    /// All namespaces, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.of(Kind::Namespace).filter_map(|one| match one {
            Object::Namespace(namespace) => Some(&**namespace),
            _ => None,
        })
    }

    /// Those of one kind; keys are in the order of their kinds.
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        let first = Key {
            kind,
            namespace: "".into(),
            name: "".into(),
        };
        let rest = self.by_key.range(first..);
        rest.take_while(move |(key, _)| key.kind == kind)
            .map(|(_, one)| one)
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.of(Kind::Pod).filter_map(|one| match one {
            Object::Pod(pod) => Some(&**pod),
            _ => None,
        })
    }

    /// All services, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.of(Kind::Service).filter_map(|one| match one {
            Object::Service(service) => Some(&**service),
            _ => None,
        })
    }

    /// All endpoint slices, by namespace and name.
    pub fn endpoint_slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.of(Kind::EndpointSlice).filter_map(|one| match one {
            Object::EndpointSlice(slice) => Some(&**slice),
            _ => None,
        })
    }

    /// All authorization policies, by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Meant> {
        self.of(Kind::AuthorizationPolicy)
            .filter_map(|one| match one {
                Object::Policy(policy) => Some(&**policy),
                _ => None,
            })
    }

    /// All that is said of tokens, by namespace and name.
    pub fn authentications(&self) -> impl Iterator<Item = &authentication::Meant> {
        self.of(Kind::RequestAuthentication)
            .filter_map(|one| match one {
                Object::Authentication(one) => Some(&**one),
                _ => None,
            })
    }

    /// All policies of rate limits, by namespace and name.
    pub fn limits(&self) -> impl Iterator<Item = &limit::Meant> {
        self.of(Kind::RateLimitPolicy).filter_map(|one| match one {
            Object::Limits(one) => Some(&**one),
            _ => None,
        })
    }

    /// All revocations, by name.
    pub fn revocations(&self) -> impl Iterator<Item = &Revoked> {
        self.of(Kind::IdentityRevocation)
            .filter_map(|one| match one {
                Object::Revocation(one) => Some(&**one),
                _ => None,
            })
    }

    /// All routes, by kind, namespace and name.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.by_key.values().filter_map(|one| match one {
            Object::Route(route) => Some(&**route),
            _ => None,
        })
    }
}

impl FromIterator<(Key, Object)> for Objects {
    fn from_iter<T: IntoIterator<Item = (Key, Object)>>(objects: T) -> Self {
        Self {
            by_key: objects.into_iter().collect(),
        }
    }
}
