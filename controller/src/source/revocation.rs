//! `IdentityRevocation` as it is written, and what it means.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use ringmail_proto::Invalid;
use ringmail_proto::identity::SpiffeId;
use ringmail_proto::revocation::Serial;
use serde::{Deserialize, Serialize};

use super::policy::PolicyStatus;

/// Identities and certificates that nobody trusts any more: none is issued to them, and what they have open is cut.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ringmail.io",
    version = "v1alpha1",
    kind = "IdentityRevocation",
    category = "ringmail",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "Identities and certificates that nobody trusts any more.",
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.until"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "Applied", type_ = "string", json_path = ".status.applied")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = "size(self.identities) + size(self.serials) > 0")]
pub struct IdentityRevocationSpec {
    /// SPIFFE IDs, literally.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(min = 1, max = 2048)))]
    pub identities: Vec<String>,
    /// Serial numbers of certificates, hexadecimal.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(min = 1, max = 64)))]
    pub serials: Vec<String>,
    /// When it ends (RFC 3339): after the last of these certificates does, or when the workload is clean again.
    #[schemars(length(min = 20, max = 35))]
    pub until: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// A revocation as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Revoked {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Who.
    pub identities: Vec<SpiffeId>,
    /// Which certificates.
    pub serials: Vec<Serial>,
    /// Seconds since the Unix epoch.
    pub until: i64,
    /// What of it cannot be read; the rest is in force.
    pub broken: Option<Invalid>,
}

/// What is written, meant. When it ends has to be right; of the rest what can be read is meant.
pub(crate) fn meant(written: IdentityRevocation) -> Result<Revoked, Invalid> {
    let spec = written.spec;
    let inside = |field: &'static str| move |e: Invalid| e.inside(field);
    let until: Timestamp = spec
        .until
        .parse()
        .map_err(|_| Invalid::new("spec.until", "is no time in RFC 3339"))?;
    let mut broken = None;
    let mut unread = |e: Invalid| {
        broken.get_or_insert(e);
    };
    let identities = spec.identities.iter().map(|id| id.parse::<SpiffeId>());
    let identities = identities.filter_map(|id| {
        let id = id.map_err(inside("spec.identities"));
        id.map_err(&mut unread).ok()
    });
    let identities = identities.collect();
    let serials = spec.serials.iter().filter_map(|one| {
        let serial = Serial::parse(one).map_err(inside("spec.serials"));
        serial.map_err(&mut unread).ok()
    });
    let serials = serials.collect();
    Ok(Revoked {
        metadata: written.metadata,
        identities,
        serials,
        until: until.as_second(),
        broken,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A restart, or a version that checks more, opens nothing that was closed.
    #[test]
    fn what_cannot_be_read_keeps_nothing_else_from_being_revoked() {
        let spec = serde_json::json!({
            "identities": ["spiffe://mesh/ns/a/sa/b", "nobody"],
            "serials": ["x", "07"],
            "until": "2040-01-01T00:00:00Z",
        });
        let spec: IdentityRevocationSpec = serde_json::from_value(spec).expect("a spec");
        let one = meant(IdentityRevocation::new("r", spec)).expect("some of it");
        assert_eq!((one.identities.len(), one.serials.len()), (1, 1));
        let broken = one.broken.expect("the first").to_string();
        assert!(broken.starts_with("spec.identities"), "{broken}");
    }
}
