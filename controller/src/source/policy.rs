//! `AuthorizationPolicy` as it is written, and what it means. The schema in the chart is made from these types, and what
//! an object means is checked by the code of the proxies.
//!
//! Nothing here makes a policy weaker in silence: a field that this version does not know is refused by name, and a policy
//! that cannot be read denies what it targets, or its whole namespace where even that cannot be read.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, KubeSchema};
use ringmail_proto::policy::Policy;
use ringmail_proto::{Invalid, pb};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may do what with the workloads it targets. `deny` beats `allow`; where an `allow` policy targets a port, what no
/// rule allows there is denied; elsewhere the namespace's `ringmail.io/default-policy` decides.
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
pub struct AuthorizationPolicySpec {
    /// What it is for; all of them.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What its rules do.
    pub action: Action,
    /// `shadow`: counted as it would decide, and nothing else.
    #[serde(default)]
    pub mode: Mode,
    /// Any of them. An `allow` policy without rules allows nothing, a `deny` policy without rules denies everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub rules: Vec<PolicyRule>,
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

/// A policy as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Meant {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What it is for, in its own namespace.
    pub targets: Vec<Target>,
    /// What it says; its ports follow from `targets`.
    pub policy: Policy,
}

/// What a policy is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which pods.
    pub pods: Selected,
    /// A port, if it is not for all.
    pub port: Option<NonZeroU16>,
}

/// Which pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// Those of the namespace.
    All,
    /// Those of a Service; a port is the Service's.
    Service(String),
    /// Those with these labels.
    Labels(BTreeMap<String, String>),
}

/// What is written, meant. What is wrong with it is kept with it, and denies.
pub(crate) fn meant(written: AuthorizationPolicy) -> Meant {
    let name = full_name(&written.metadata);
    let namespace = written.metadata.namespace.clone();
    let namespace = namespace.as_deref().unwrap_or("default");
    let targets = targets(&written.spec.target_refs);
    let wire = pb::AuthorizationPolicy {
        name: name.clone(),
        action: match written.spec.action {
            Action::Allow => pb::PolicyAction::Allow,
            Action::Deny => pb::PolicyAction::Deny,
        }
        .into(),
        mode: match written.spec.mode {
            Mode::Enforce => pb::PolicyMode::Enforce,
            Mode::Shadow => pb::PolicyMode::Shadow,
        }
        .into(),
        ports: Vec::new(),
        rules: written
            .spec
            .rules
            .into_iter()
            .map(|rule| rule.wire(namespace))
            .collect(),
    };
    let (targets, policy) = match (targets, Policy::try_from(wire)) {
        (Ok(targets), Ok(policy)) => (targets, policy),
        (Err(invalid), _) => (everything(), broken(&name, invalid)),
        (Ok(targets), Err(invalid)) => (targets, broken(&name, invalid)),
    };
    Meant {
        metadata: written.metadata,
        targets,
        policy,
    }
}

/// A policy of which nothing but the name can be read.
pub(crate) fn unreadable(metadata: ObjectMeta, invalid: Invalid) -> Meant {
    let policy = broken(&full_name(&metadata), invalid);
    Meant {
        metadata,
        targets: everything(),
        policy,
    }
}

pub(super) fn everything() -> Vec<Target> {
    vec![Target {
        pods: Selected::All,
        port: None,
    }]
}

fn broken(name: &str, invalid: Invalid) -> Policy {
    Policy {
        name: name.into(),
        action: ringmail_proto::policy::Action::Deny,
        mode: ringmail_proto::policy::Mode::Enforce,
        ports: Vec::new(),
        rules: Err(invalid),
    }
}

/// `namespace/name`.
pub(crate) fn full_name(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let name = metadata.name.as_deref().unwrap_or_default();
    format!("{namespace}/{name}")
}

pub(super) fn targets(written: &[TargetRef]) -> Result<Vec<Target>, Invalid> {
    if written.is_empty() || written.len() > 16 {
        return Err(Invalid::new("spec.targetRefs", "are none, or more than 16"));
    }
    let target = |(n, one): (usize, &TargetRef)| {
        let pods = match (one.kind, &one.name, &one.match_labels) {
            (TargetKind::Namespace, None, None) => Selected::All,
            (TargetKind::Service, Some(name), None) => Selected::Service(name.clone()),
            (TargetKind::Workload, None, Some(labels)) if !labels.is_empty() => {
                Selected::Labels(labels.clone())
            }
            _ => {
                return Err(Invalid::new(
                    format!("spec.targetRefs[{n}]"),
                    "a Service has a name, a Workload has matchLabels, and a Namespace has neither",
                ));
            }
        };
        let refused = || Invalid::new(format!("spec.targetRefs[{n}].port"), "is 0");
        let port = one
            .port
            .map(|port| NonZeroU16::new(port).ok_or_else(refused));
        Ok(Target {
            pods,
            port: port.transpose()?,
        })
    };
    written.iter().enumerate().map(target).collect()
}

impl PolicyRule {
    fn wire(self, namespace: &str) -> pb::AuthorizationRule {
        use pb::condition::Kind;
        let mut when = Vec::new();
        if let Some(written) = self.when {
            let claim = |one: ValueMatch| {
                Kind::Claim(pb::ClaimCondition {
                    name: one.name,
                    any: texts(one.values),
                })
            };
            when.extend(written.claims.into_iter().map(claim));
            when.extend(written.expression.map(Kind::Expression));
        }
        pb::AuthorizationRule {
            from: self
                .from
                .into_iter()
                .map(|one| all(one.kinds(namespace)))
                .collect(),
            to: self.to.into_iter().map(|one| all(one.kinds())).collect(),
            when: all(when).all,
        }
    }
}

fn all(kinds: Vec<pb::condition::Kind>) -> pb::Conditions {
    let conditions = kinds.into_iter();
    pb::Conditions {
        all: conditions
            .map(|kind| pb::Condition { kind: Some(kind) })
            .collect(),
    }
}

impl Source {
    fn kinds(self, namespace: &str) -> Vec<pb::condition::Kind> {
        use pb::condition::Kind;
        let account = |one: String| match one.contains('/') {
            true => one,
            false => format!("{namespace}/{one}"),
        };
        let mut kinds = Vec::new();
        if !self.identities.is_empty() {
            let any = texts(self.identities);
            kinds.push(Kind::Identities(pb::TextSet { any }));
        }
        let accounts = self.service_accounts.into_iter().map(account).collect();
        kinds.extend(names(self.namespaces).map(Kind::Namespaces));
        kinds.extend(names(accounts).map(Kind::ServiceAccounts));
        kinds.extend(names(self.trust_domains).map(Kind::TrustDomains));
        kinds.extend(names(self.networks).map(Kind::Networks));
        kinds.extend(self.unauthenticated.map(Kind::Unauthenticated));
        kinds
    }
}

impl Operation {
    fn kinds(self) -> Vec<pb::condition::Kind> {
        use pb::condition::Kind;
        use pb::path_template::Kind as Path;
        let mut kinds = Vec::new();
        if !self.ports.is_empty() {
            let any = self.ports.into_iter().map(u32::from).collect();
            kinds.push(Kind::Ports(pb::PortSet { any }));
        }
        kinds.extend(names(self.methods).map(Kind::Methods));
        let path = |one: PathMatch| match one {
            PathMatch {
                exact: Some(path),
                prefix: None,
                template: None,
            } => Some(Path::Exact(path)),
            PathMatch {
                exact: None,
                prefix: Some(path),
                template: None,
            } => Some(Path::Prefix(path)),
            PathMatch {
                exact: None,
                prefix: None,
                template: Some(path),
            } => Some(Path::Template(path)),
            // Refused where it is checked.
            _ => None,
        };
        kinds.extend(paths(self.paths.into_iter().map(path)));
        kinds.extend(names(self.hosts).map(Kind::Hosts));
        let header = |one: ValueMatch| {
            Kind::Header(pb::HeaderCondition {
                name: one.name.to_ascii_lowercase(),
                any: texts(one.values),
            })
        };
        kinds.extend(self.headers.into_iter().map(header));
        // A call is a request for the path of its method, whatever it says its content is.
        let method = |one: GrpcMatch| {
            Some(match one.method {
                Some(method) => Path::Exact(format!("/{}/{method}", one.service)),
                None => Path::Prefix(format!("/{}", one.service)),
            })
        };
        kinds.extend(paths(self.grpc.into_iter().map(method)));
        kinds
    }
}

fn paths(
    all: impl Iterator<Item = Option<pb::path_template::Kind>>,
) -> Option<pb::condition::Kind> {
    let any: Vec<_> = all.map(|kind| pb::PathTemplate { kind }).collect();
    (!any.is_empty()).then_some(pb::condition::Kind::Paths(pb::PathSet { any }))
}

fn names(any: Vec<String>) -> Option<pb::NameSet> {
    (!any.is_empty()).then_some(pb::NameSet { any })
}

fn texts(written: Vec<String>) -> Vec<pb::TextMatch> {
    use pb::text_match::Kind;
    let kind = |mut one: String| match one.pop() {
        Some('*') => Kind::Prefix(one),
        Some(last) => {
            one.push(last);
            Kind::Exact(one)
        }
        None => Kind::Exact(one),
    };
    let all = written.into_iter();
    all.map(|one| pb::TextMatch {
        kind: Some(kind(one)),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::revocation::IdentityRevocation;
    use kube::CustomResourceExt;

    /// The definitions in the chart are what the types say. After a change of the types, `RINGMAIL_WRITE_CRDS=1` writes them.
    #[test]
    fn the_chart_has_these_definitions() {
        for crd in [AuthorizationPolicy::crd(), IdentityRevocation::crd()] {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/ringmail/files/crds");
            let path = format!("{directory}/{}.yaml", crd.spec.names.plural);
            let definition = serde_saphyr::to_string(&crd).expect("YAML");
            if std::env::var_os("RINGMAIL_WRITE_CRDS").is_some() {
                std::fs::write(&path, &definition).expect("written");
            }
            assert_eq!(std::fs::read_to_string(&path).expect(&path), definition);
        }
    }
}
