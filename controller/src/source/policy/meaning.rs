//! What a policy means, checked by the code of the proxies. Nothing here makes one weaker in silence: what cannot be read
//! denies what it targets, or its whole namespace where even that cannot be read.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ringmail_proto::policy::Policy;
use ringmail_proto::{Invalid, pb};
use serde_json::Value;

use super::{
    Action, AuthorizationPolicy, GrpcMatch, Mode, Operation, PathMatch, PolicyRule, Source,
    TargetKind, TargetRef, ValueMatch, When,
};

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
    let mode = written.spec.mode;
    let targets = targets(&written.spec.target_refs);
    let external = match (&targets, written.spec.external) {
        (Ok(targets), Some(external)) if external.is_among(targets, namespace) => {
            let problem = "is among what the policy is for: name others by labels or Services";
            Err(Invalid::new("spec.external.service", problem))
        }
        (_, Some(external)) => external.wire(namespace).map(Some),
        (_, None) => Ok(None),
    };
    let is_unmeant = written.spec.action != Action::External && !matches!(external, Ok(None));
    let external = match is_unmeant {
        true => Err(Invalid::new(
            "spec.external",
            "is only for action: external",
        )),
        false => external,
    };
    let wire = |external| pb::AuthorizationPolicy {
        name: name.clone(),
        action: match written.spec.action {
            Action::Allow => pb::PolicyAction::Allow,
            Action::Deny => pb::PolicyAction::Deny,
            Action::External => pb::PolicyAction::External,
        }
        .into(),
        mode: match mode {
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
        external,
    };
    let policy = external.and_then(|external| Policy::try_from(wire(external)));
    let (targets, policy) = match (targets, policy) {
        (Ok(targets), Ok(policy)) => (targets, policy),
        (Err(invalid), _) => (everything(), broken(&name, mode, invalid)),
        (Ok(targets), Err(invalid)) => (targets, broken(&name, mode, invalid)),
    };
    Meant {
        metadata: written.metadata,
        targets,
        policy,
    }
}

/// A policy of which nothing but the name can be read, and whether it is in shadow.
pub(crate) fn unreadable(metadata: ObjectMeta, mode: Mode, invalid: Invalid) -> Meant {
    let policy = broken(&full_name(&metadata), mode, invalid);
    Meant {
        metadata,
        targets: everything(),
        policy,
    }
}

pub(in crate::source) fn everything() -> Vec<Target> {
    vec![Target {
        pods: Selected::All,
        port: None,
    }]
}

impl Mode {
    /// Of a policy's `spec` that cannot be read otherwise: what is only to be counted denies nothing.
    pub(crate) fn of_unread(spec: &Value) -> Self {
        match spec.get("mode").and_then(Value::as_str) {
            Some("shadow") => Self::Shadow,
            Some(_) | None => Self::Enforce,
        }
    }

    fn meant(self) -> ringmail_proto::policy::Mode {
        match self {
            Self::Enforce => ringmail_proto::policy::Mode::Enforce,
            Self::Shadow => ringmail_proto::policy::Mode::Shadow,
        }
    }
}

fn broken(name: &str, mode: Mode, invalid: Invalid) -> Policy {
    Policy {
        name: name.into(),
        action: ringmail_proto::policy::Action::Deny,
        mode: mode.meant(),
        ports: Vec::new(),
        rules: Err(invalid),
    }
}

/// `namespace/name`.
pub(in crate::source) fn full_name(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let name = metadata.name.as_deref().unwrap_or_default();
    format!("{namespace}/{name}")
}

pub(in crate::source) fn targets(written: &[TargetRef]) -> Result<Vec<Target>, Invalid> {
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
        pb::AuthorizationRule {
            from: self
                .from
                .into_iter()
                .map(|one| all(one.kinds(namespace)))
                .collect(),
            to: self.to.into_iter().map(|one| all(one.kinds())).collect(),
            when: self
                .when
                .map(|when| all(when.kinds()).all)
                .unwrap_or_default(),
        }
    }
}

impl When {
    fn kinds(self) -> Vec<pb::condition::Kind> {
        use pb::condition::Kind;
        let claim = |one: ValueMatch| {
            Kind::Claim(pb::ClaimCondition {
                name: one.name,
                any: texts(one.values),
            })
        };
        let claims = self.claims.into_iter().map(claim);
        claims
            .chain(self.expression.map(Kind::Expression))
            .collect()
    }
}

/// All that is given, of a policy of that namespace.
pub(in crate::source) fn conditions(
    from: Option<Source>,
    to: Option<Operation>,
    when: Option<When>,
    namespace: &str,
) -> Vec<pb::Condition> {
    let mut kinds = from.map(|from| from.kinds(namespace)).unwrap_or_default();
    kinds.extend(to.into_iter().flat_map(Operation::kinds));
    kinds.extend(when.into_iter().flat_map(When::kinds));
    all(kinds).all
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
        kinds.extend(paths(path_templates(self.paths)));
        kinds.extend(names(self.hosts).map(Kind::Hosts));
        let header = |one: ValueMatch| {
            Kind::Header(pb::HeaderCondition {
                name: one.name.to_ascii_lowercase(),
                any: texts(one.values),
            })
        };
        kinds.extend(self.headers.into_iter().map(header));
        // A call is a request for the path of its method, whatever it says its content is.
        let method = |one: GrpcMatch| pb::PathTemplate {
            kind: Some(match one.method {
                Some(method) => Path::Exact(format!("/{}/{method}", one.service)),
                None => Path::Prefix(format!("/{}", one.service)),
            }),
        };
        kinds.extend(paths(self.grpc.into_iter().map(method).collect()));
        kinds
    }
}

fn paths(any: Vec<pb::PathTemplate>) -> Option<pb::condition::Kind> {
    (!any.is_empty()).then_some(pb::condition::Kind::Paths(pb::PathSet { any }))
}

pub(in crate::source) fn path_templates(written: Vec<PathMatch>) -> Vec<pb::PathTemplate> {
    use pb::path_template::Kind;
    let kind = |one: PathMatch| match (one.exact, one.prefix, one.template) {
        (Some(path), None, None) => Some(Kind::Exact(path)),
        (None, Some(path), None) => Some(Kind::Prefix(path)),
        (None, None, Some(path)) => Some(Kind::Template(path)),
        // Refused where it is checked.
        _ => None,
    };
    let all = written.into_iter();
    all.map(|one| pb::PathTemplate { kind: kind(one) })
        .collect()
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
