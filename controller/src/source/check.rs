//! What every object must keep to, wherever it comes from: names, labels and annotations that we keep.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ringmail_proto::Invalid;
use ringmail_proto::identity::{NAME_BYTES_MAX, WorkloadName};

use super::annotations::Annotations;
use super::objects::{Key, Kind};

/// Bytes of one label or of one name.
const LABEL_BYTES_MAX: usize = 63;
/// Labels of one object or selector.
const LABELS_MAX: usize = 256;

/// The key of an object that keeps to it; else the field that does not.
pub(super) fn check(kind: Kind, metadata: &ObjectMeta) -> Result<Key, Invalid> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = match kind {
        Kind::Namespace | Kind::IdentityRevocation => "",
        Kind::ServiceAccount
        | Kind::Service
        | Kind::Pod
        | Kind::EndpointSlice
        | Kind::HTTPRoute
        | Kind::GRPCRoute
        | Kind::TLSRoute
        | Kind::AuthorizationPolicy
        | Kind::RequestAuthentication
        | Kind::RateLimitPolicy => metadata.namespace.as_deref().unwrap_or("default"),
    };
    let checked = match kind {
        Kind::Namespace => WorkloadName::new(name, "x").map_err(|e| Invalid {
            field: "name".into(),
            ..e
        }),
        Kind::IdentityRevocation => WorkloadName::new("x", name),
        _ => WorkloadName::new(namespace, name),
    };
    checked.map_err(|e| e.inside("metadata"))?;
    for (key, value) in metadata.labels.iter().flatten() {
        if key.len() > NAME_BYTES_MAX + 1 + LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX {
            return Err(Invalid::new("metadata.labels", "one is too long"));
        }
    }
    if metadata.labels.iter().flatten().count() > LABELS_MAX {
        return Err(Invalid::new("metadata.labels", "are more than 256"));
    }
    Annotations::read(metadata.annotations.as_ref())?;
    Ok(Key {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    })
}
