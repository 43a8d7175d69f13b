//! `AuthorizationPolicy` as it is written; the schema in the chart is made from these types. A field that this version does
//! not know is refused by name: a condition that is not understood would make a rule wider than it was meant.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What it means.
mod meaning;

/// Who else is asked.
mod external;

pub use external::{AuthorizerRef, External, IncludeBody, OnFailure};
pub use meaning::{Meant, Selected, Target};
pub(super) use meaning::{conditions, everything, full_name, path_templates, targets};
pub(crate) use meaning::{meant, unreadable};

/// Who may do what with the workloads it targets. `deny` beats `allow`; where an `allow` policy targets a port, what no
/// rule allows there is denied; elsewhere the namespace's `ringmail.io/default-policy` decides. About what is allowed by
/// then, `external` policies ask somebody else, who can only refuse.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ringmail.io",
    version = "v1alpha1",
    kind = "AuthorizationPolicy",
    namespaced,
    shortname = "authz",
    category = "ringmail",
    doc = "Who may do what with the workloads it targets.",
    status = "PolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "Applied", type_ = "string", json_path = ".status.applied"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = "(self.action == 'external') == has(self.external)")]
#[x_kube(validation = "self.action != 'external' || self.mode != 'shadow'")]
pub struct AuthorizationPolicySpec {
    /// What it is for; all of them.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What its rules do.
    pub action: Action,
    /// `shadow`: counted as it would decide, and nothing else.
    #[serde(default)]
    pub mode: Mode,
    /// Any of them. An `allow` policy without rules allows nothing, a `deny` policy without rules denies everything, and
    /// an `external` one without rules asks about everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub rules: Vec<PolicyRule>,
    /// With `external`: who is asked. A connection that is no HTTP is denied where a rule would ask about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// What a policy is for: pods of its own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = "(self.kind == 'Service') == has(self.name)")]
#[x_kube(validation = "(self.kind == 'Workload') == has(self.matchLabels)")]
pub struct TargetRef {
    /// Every pod of the namespace, those of a Service, or those with certain labels.
    pub kind: TargetKind,
    /// The Service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Labels that a workload's pods all have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// A port: of a Service as its clients dial it, else of the pods. All, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// What kind of thing a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "see TargetRef::kind")]
pub enum TargetKind {
    Namespace,
    Service,
    Workload,
}

/// What rules do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "see AuthorizationPolicySpec")]
pub enum Action {
    Allow,
    Deny,
    External,
}

/// Whether a policy is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "see AuthorizationPolicySpec")]
pub enum Mode {
    #[default]
    Enforce,
    Shadow,
}

/// Holds when one of `from`, one of `to` and all of `when` hold; what is absent holds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRule {
    /// Who asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub from: Vec<Source>,
    /// For what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub to: Vec<Operation>,
    /// And how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
}

/// Who asks: all that is given holds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// SPIFFE IDs, literally, or with `*` at the end for all that begin so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 2048)))]
    pub identities: Vec<String>,
    /// Kubernetes namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
    /// `namespace/name`, or the name of one in the policy's own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 317)))]
    pub service_accounts: Vec<String>,
    /// SPIFFE trust domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub trust_domains: Vec<String>,
    /// Networks (CIDR) that the connection comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 43)))]
    pub networks: Vec<String>,
    /// True: only callers without an identity. False: only callers with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unauthenticated: Option<bool>,
}

/// What is asked for: all that is given holds. All but ports are of HTTP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// Ports of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<u16>,
    /// HTTP methods, as they are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 64)))]
    pub methods: Vec<String>,
    /// Paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub paths: Vec<PathMatch>,
    /// Hosts without a port; `*.example.com` is every name below that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub hosts: Vec<String>,
    /// Headers, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<ValueMatch>,
    /// gRPC services and methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub grpc: Vec<GrpcMatch>,
}

/// A path, in the form in which it is decided on: one of these.
// Not a rule in CEL: for as many as there may be of these, any is beyond what the API server lets one cost.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct PathMatch {
    /// This one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^/"))]
    pub exact: Option<String>,
    /// This one and what is below it, by whole elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^/"))]
    pub prefix: Option<String>,
    /// `/orders/{id}/items`: `{id}` is any one element; `/**` at the end is any number of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^/"))]
    pub template: Option<String>,
}

/// A header or a claim.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// A header in any case; a claim, with dots where it is inside others.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Any of these, literally, or with `*` at the end for all that begin so. None: it is enough that it is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 2048)))]
    pub values: Vec<String>,
}

/// A gRPC service, or one of its methods.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// `package.Service`.
    #[schemars(length(min = 1, max = 1024))]
    pub service: String,
    /// All of them, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub method: Option<String>,
}

/// How it is asked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct When {
    /// Claims of the request's JSON web token, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub claims: Vec<ValueMatch>,
    /// CEL over the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expression: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// `Accepted` and `Applied`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<StatusCondition>,
    /// On how many proxies of how many: `118/120`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
}

/// `metav1.Condition`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "Kubernetes documents its fields")]
pub struct StatusCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
