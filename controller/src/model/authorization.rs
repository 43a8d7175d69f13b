//! Policies: which workload each is for, on which ports, and what their authors are told.
//!
//! A policy is for pods of its own namespace. Those that are selected alike share what they are told. No limit makes a
//! policy weaker in silence: where there are more than a proxy takes, everything is denied.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU16;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use prost::Message;
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::limit::{LIMITS_MAX, Limit, Terms};
use ringmail_proto::policy::authentication::{Authentication, Issuer};
use ringmail_proto::policy::{
    AUTHENTICATIONS_MAX, AUTHORIZATION_BYTES_MAX, Action, Authorization, Mode, POLICIES_MAX,
    Policy, Posture,
};
use ringmail_proto::workload::InboundMode;
use ringmail_proto::{Invalid, pb};

use super::Defaults;
use super::pods::{PodEntry, Pods};
use super::services::Port;
use crate::jwks::KeySets;
use crate::source::Objects;
use crate::source::authentication::MeantIssuer;
use crate::source::objects::{Key, Kind, Object};
use crate::source::policy::{Meant, Selected, Target};

/// Whom policies ask.
mod external;

/// A policy and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyReport {
    /// Which object.
    pub key: Key,
    /// Of the object itself, in a cluster: another of that name is another.
    pub uid: Box<str>,
    /// Which version of it this is about; a file has none.
    pub generation: Option<i64>,
    /// Why it denies instead of what it says, or would.
    pub broken: Option<String>,
    /// Issuers whose tokens it knows, and whose keys are not known.
    pub keyless: Vec<String>,
    /// What it is for, or would ask, and is not there.
    pub missing: Vec<String>,
    /// Pods that it is for and that it would ask, whose calls are then refused.
    pub asks_itself: Vec<WorkloadName>,
    /// Meshed pods that it is for.
    pub workloads: Arc<[WorkloadName]>,
}

/// What every workload is told, and every author.
#[derive(Debug, Default)]
pub(super) struct Authorizations {
    pub(super) by_workload: HashMap<WorkloadName, Arc<Authorization>>,
    pub(super) reports: Vec<PolicyReport>,
    /// By name.
    pub(super) limits: BTreeMap<Arc<str>, Limit>,
}

/// Ports of a pod that a policy is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum On {
    All,
    Some(BTreeSet<NonZeroU16>),
}

impl On {
    /// As they are told: none are all.
    fn ports(&self) -> Vec<NonZeroU16> {
        match self {
            Self::All => Vec::new(),
            Self::Some(ports) => ports.iter().copied().collect(),
        }
    }

    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Some(ports), Self::Some(more)) => ports.extend(more),
        }
    }
}

/// What is for a pod, by place, and for which of its ports.
type Here = Vec<(usize, On)>;

/// What is the same for all pods that are told the same: posture, and by their order what is for them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Group {
    posture: Posture,
    policies: Here,
    tokens: Here,
    limits: Here,
}

/// All that may be for a pod, by place.
struct All<'a> {
    policies: Vec<Cow<'a, Policy>>,
    authentications: Vec<Authentication>,
    limits: Vec<Limit>,
}

/// What does not come from objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) keys: &'a KeySets,
    pub(super) defaults: &'a Defaults,
}

/// What each pod is told. Those of services are as `ports` found them, and those that their selectors name.
pub(super) fn apply(
    objects: &Objects,
    pods: &Pods,
    ports: &[Port],
    given: Given<'_>,
    problems: &mut Vec<String>,
) -> Authorizations {
    let policies = in_order(objects);
    let looking = Looking {
        objects,
        pods,
        ports: by_service(ports),
    };
    let mut applied: HashMap<&WorkloadName, Here> = HashMap::new();
    let mut reports = Vec::new();
    let mut resolved = Vec::new();
    for (place, policy) in policies.iter().enumerate() {
        let (found, mut missing) = looking.targets(namespace(policy), &policy.targets);
        let (told, asks_itself) = looking.authorizer(&policy.policy, &found, &mut missing);
        resolved.push(told);
        reports.push(PolicyReport {
            missing,
            asks_itself,
            workloads: meshed(&found),
            ..report(policy)
        });
        note(&mut applied, place, found);
    }
    let (authentications, mut authenticated) =
        authentications(objects, &looking, given, problems, &mut reports);
    let (limits, mut limited) = limits(objects, &looking, &mut reports);
    let all = All {
        policies: resolved,
        authentications,
        limits,
    };
    let mut groups: HashMap<Group, Arc<Authorization>> = HashMap::new();
    let mut by_workload = HashMap::new();
    for pod in pods.all() {
        let group = Group {
            posture: posture(pod, given.defaults),
            policies: applied.remove(&pod.name).unwrap_or_default(),
            tokens: authenticated.remove(&pod.name).unwrap_or_default(),
            limits: limited.remove(&pod.name).unwrap_or_default(),
        };
        let told = groups.entry(group).or_insert_with_key(|group| {
            let told = authorization(group, &all, given.defaults);
            Arc::new(bounded(told, problems))
        });
        by_workload.insert(pod.name.clone(), told.clone());
    }
    Authorizations {
        by_workload,
        reports,
        limits: all
            .limits
            .into_iter()
            .map(|limit| (limit.name.clone(), limit))
            .collect(),
    }
}

/// What is at `place` is for these.
fn note<'a>(
    applied: &mut HashMap<&'a WorkloadName, Here>,
    place: usize,
    found: Vec<(&'a PodEntry, On)>,
) {
    for (pod, on) in found {
        let here = applied.entry(&pod.name).or_default();
        match here.last_mut() {
            Some((last, all)) if *last == place => all.add(on),
            _ => here.push((place, on)),
        }
    }
}

/// Objects about tokens, with their keys, and what each pod has of them.
fn authentications<'a>(
    objects: &Objects,
    looking: &Looking<'a>,
    given: Given<'_>,
    problems: &mut Vec<String>,
    reports: &mut Vec<PolicyReport>,
) -> (Vec<Authentication>, HashMap<&'a WorkloadName, Here>) {
    let mut all = Vec::new();
    let mut applied = HashMap::new();
    for (place, one) in objects.authentications().enumerate() {
        let namespace = one.metadata.namespace.as_deref().unwrap_or("default");
        let (found, missing) = looking.targets(namespace, &one.targets);
        let name = &one.name;
        problems.extend(
            missing
                .iter()
                .map(|it| format!("RequestAuthentication {name}: there is no {it}")),
        );
        if let Err(invalid) = &one.issuers {
            problems.push(format!(
                "RequestAuthentication {name} refuses every request for what it targets: {invalid}"
            ));
        }
        let workloads = meshed(&found);
        note(&mut applied, place, found);
        let with_keys = |one: &MeantIssuer| match &one.remote {
            None => one.issuer.clone(),
            Some(remote) => Issuer {
                keys: given.keys.of(remote),
                keys_from: remote.uri.to_string(),
                are_keys_awaited: given.keys.awaits(remote),
                ..one.issuer.clone()
            },
        };
        let issuers = one.issuers.as_ref();
        let issuers: Result<Vec<Issuer>, Invalid> = issuers
            .map(|issuers| issuers.iter().map(with_keys).collect())
            .map_err(Clone::clone);
        let keyless = issuers.iter().flatten().filter(|one| one.keys.is_empty());
        let keyless = keyless.map(|one| one.issuer.clone()).collect();
        let broken = one.issuers.as_ref().err();
        let broken = broken.map(|invalid| format!("{invalid}; it refuses all that it is for"));
        let key = (Kind::RequestAuthentication, &one.metadata);
        reports.push(PolicyReport {
            missing,
            keyless,
            workloads,
            ..PolicyReport::of(key, broken)
        });
        all.push(Authentication {
            name: name.clone(),
            ports: Vec::new(),
            issuers,
        });
    }
    (all, applied)
}

/// Pods that have a proxy, by name.
fn meshed(found: &[(&PodEntry, On)]) -> Arc<[WorkloadName]> {
    let meshed = found.iter().filter(|(pod, _)| pod.identity.is_some());
    let names: BTreeSet<WorkloadName> = meshed.map(|(pod, _)| pod.name.clone()).collect();
    names.into_iter().collect()
}

/// Rate limits, and what each pod has of them.
fn limits<'a>(
    objects: &Objects,
    looking: &Looking<'a>,
    reports: &mut Vec<PolicyReport>,
) -> (Vec<Limit>, HashMap<&'a WorkloadName, Here>) {
    let mut all = Vec::new();
    let mut limited = HashMap::new();
    for policy in objects.limits() {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
        let (found, missing) = looking.targets(namespace, &policy.targets);
        let workloads = meshed(&found);
        let proxies = u32::try_from(workloads.len().max(1)).unwrap_or(u32::MAX);
        for limit in &policy.limits {
            note(&mut limited, all.len(), found.clone());
            let terms = limit.terms.clone();
            all.push(Limit {
                terms: terms.map(|terms| Terms { proxies, ..terms }),
                ..limit.clone()
            });
        }
        let broken = policy.broken();
        let broken = broken.map(|invalid| format!("{invalid}; it denies what it is for"));
        let key = (Kind::RateLimitPolicy, &policy.metadata);
        reports.push(PolicyReport {
            missing,
            workloads,
            ..PolicyReport::of(key, broken)
        });
    }
    (all, limited)
}

/// What is said of the pod, of its namespace, of the mesh. Who lets plaintext in and says no more means it.
fn posture(pod: &PodEntry, defaults: &Defaults) -> Posture {
    let is_permissive = pod.annotations.inbound == Some(InboundMode::Permissive);
    let unsaid = if is_permissive {
        Posture::Open
    } else {
        defaults.posture
    };
    pod.annotations.posture.unwrap_or(unsaid)
}

fn authorization(group: &Group, all: &All<'_>, defaults: &Defaults) -> Authorization {
    let policy = |(place, on): &(usize, On)| Policy {
        ports: on.ports(),
        ..Policy::clone(&all.policies[*place])
    };
    let authentication = |(place, on): &(usize, On)| Authentication {
        ports: on.ports(),
        ..all.authentications[*place].clone()
    };
    let limit = |(place, on): &(usize, On)| Limit {
        ports: on.ports(),
        ..all.limits[*place].clone()
    };
    Authorization {
        posture: group.posture,
        cluster_networks: defaults.cluster_networks.clone(),
        policies: group.policies.iter().map(policy).collect(),
        authentications: group.tokens.iter().map(authentication).collect(),
        limits: group.limits.iter().map(limit).collect(),
    }
}

/// What a proxy can take; in place of more, a denial of everything.
fn bounded(told: Authorization, problems: &mut Vec<String>) -> Authorization {
    let is_too_much = told.policies.len() > POLICIES_MAX
        || told.authentications.len() > AUTHENTICATIONS_MAX
        || told.limits.len() > LIMITS_MAX
        || pb::Authorization::from(&told).encoded_len() > AUTHORIZATION_BYTES_MAX;
    if !is_too_much {
        return told;
    }
    let problem = format!(
        "more than {POLICIES_MAX} policies, {AUTHENTICATIONS_MAX} objects about tokens, {LIMITS_MAX} rate limits, or {AUTHORIZATION_BYTES_MAX} bytes of all, are for one workload: it denies everything"
    );
    problems.push(problem.clone());
    Authorization {
        policies: vec![Policy {
            name: "ringmail/limit".into(),
            action: Action::Deny,
            mode: Mode::Enforce,
            ports: Vec::new(),
            rules: Err(Invalid::new("policies", problem)),
        }],
        authentications: Vec::new(),
        limits: Vec::new(),
        ..told
    }
}

/// The oldest first, then by name.
fn in_order(objects: &Objects) -> Vec<&Meant> {
    let mut policies: Vec<&Meant> = objects.policies().collect();
    policies.sort_by_cached_key(|policy| {
        let created = policy.metadata.creation_timestamp.as_ref();
        let created = created.map_or(i64::MAX, |time| time.0.as_second());
        (created, policy.policy.name.clone())
    });
    policies
}

fn report(policy: &Meant) -> PolicyReport {
    let broken = policy.policy.rules.as_ref().err();
    let key = (Kind::AuthorizationPolicy, &policy.metadata);
    let broken = broken.map(|invalid| match policy.policy.mode {
        Mode::Enforce => format!("{invalid}; it denies what it is for"),
        Mode::Shadow => format!("{invalid}; it would deny what it is for"),
    });
    PolicyReport::of(key, broken)
}

impl PolicyReport {
    /// Of what it targets nothing is known yet.
    pub(super) fn of((kind, metadata): (Kind, &ObjectMeta), broken: Option<String>) -> Self {
        let namespace = match kind {
            Kind::IdentityRevocation => "",
            _ => metadata.namespace.as_deref().unwrap_or("default"),
        };
        Self {
            key: Key {
                kind,
                namespace: namespace.into(),
                name: metadata.name.as_deref().unwrap_or_default().into(),
            },
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            generation: metadata.generation,
            broken,
            keyless: Vec::new(),
            missing: Vec::new(),
            asks_itself: Vec::new(),
            workloads: Arc::default(),
        }
    }
}

fn namespace(policy: &Meant) -> &str {
    policy.metadata.namespace.as_deref().unwrap_or("default")
}

fn by_service(ports: &[Port]) -> HashMap<&WorkloadName, Vec<&Port>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for port in ports {
        found.entry(&port.service).or_default().push(port);
    }
    found
}

/// Where targets are looked for.
struct Looking<'a> {
    objects: &'a Objects,
    pods: &'a Pods,
    ports: HashMap<&'a WorkloadName, Vec<&'a Port>>,
}

impl<'a> Looking<'a> {
    /// The pods a policy is for, and what it names that is not there.
    fn targets(
        &self,
        namespace: &str,
        targets: &[Target],
    ) -> (Vec<(&'a PodEntry, On)>, Vec<String>) {
        let namespace: Arc<str> = namespace.into();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for target in targets {
            let on = target
                .port
                .map_or(On::All, |port| On::Some(BTreeSet::from([port])));
            match &target.pods {
                Selected::All => {
                    let all = self.pods.all();
                    let own = all.filter(|pod| pod.name.namespace == namespace);
                    found.extend(own.map(|pod| (pod, on.clone())));
                }
                Selected::Labels(labels) => {
                    let pods = self.pods.labelled(&namespace, labels);
                    found.extend(pods.map(|pod| (pod, on.clone())));
                }
                Selected::Service(name) => {
                    if !self.service(&namespace, name, target, &mut found) {
                        let port = target.port.map(|port| format!(":{port}"));
                        let port = port.unwrap_or_default();
                        missing.push(format!("Service {namespace}/{name}{port}"));
                    }
                }
            }
        }
        (found, missing)
    }

    /// False when there is no such port. Pods behind a service's ports: those that it has now, and those that its selector names, ready or not.
    fn service(
        &self,
        namespace: &Arc<str>,
        name: &str,
        target: &Target,
        found: &mut Vec<(&'a PodEntry, On)>,
    ) -> bool {
        let key = Key {
            kind: Kind::Service,
            namespace: namespace.clone(),
            name: name.into(),
        };
        let Some(Object::Service(service)) = self.objects.get(&key) else {
            return false;
        };
        let is_meant = |number: i32| {
            target
                .port
                .is_none_or(|port| i32::from(port.get()) == number)
        };
        let Ok(full_name) = WorkloadName::new(namespace, name) else {
            return false;
        };
        let ports = self.ports.get(&full_name).into_iter().flatten();
        for port in ports.filter(|port| is_meant(port.number.get().into())) {
            for (pod, number) in port.served_by() {
                let pod = self.pods.named(pod);
                found.extend(pod.map(|pod| (pod, On::Some(BTreeSet::from([number])))));
            }
        }
        let spec = service.spec.as_ref();
        let declared = spec.and_then(|spec| spec.ports.as_deref());
        let declared = declared.into_iter().flatten();
        let mut meant = declared.filter(|port| is_meant(port.port)).peekable();
        let is_there = meant.peek().is_some();
        for port in meant {
            found.extend(self.selected(namespace, service, port));
        }
        is_there
    }

    fn selected(
        &self,
        namespace: &Arc<str>,
        service: &Service,
        port: &ServicePort,
    ) -> Vec<(&'a PodEntry, On)> {
        let spec = service.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            return Vec::new();
        };
        let number = |number: i32| u16::try_from(number).ok().and_then(NonZeroU16::new);
        let pods = self.pods.labelled(namespace, selector);
        let on = |pod: &PodEntry| match &port.target_port {
            None => number(port.port),
            Some(IntOrString::Int(own)) => number(*own),
            Some(IntOrString::String(name)) => pod.named_port(name),
        };
        pods.filter_map(|pod| Some((pod, On::Some(BTreeSet::from([on(pod)?])))))
            .collect()
    }
}

#[cfg(test)]
mod tests;
