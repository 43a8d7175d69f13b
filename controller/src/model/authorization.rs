//! Policies: which workload each is for, on which ports, and what their authors are told.
//!
//! A policy is for pods of its own namespace. Those that are selected alike share what they are told. No limit makes a
//! policy weaker in silence: where there are more than a proxy takes, everything is denied.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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
use crate::source::objects::{Key, Kind};
use crate::source::policy::Meant;

/// Which pods, and which of their ports, a policy is for.
mod targets;

/// Whom policies ask.
mod external;

use targets::{Looking, On};

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
    let looking = Looking::new(objects, pods, ports);
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

#[cfg(test)]
mod tests;
