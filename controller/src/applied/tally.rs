//! What a replica says of its proxies, and the sum of what all say. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use ringmail_proto::identity::WorkloadName;
use ringmail_proto::limit::{Limit, denied_name as limit_name};
use ringmail_proto::policy::authentication::{Authentication, denied_name as token_name};
use ringmail_proto::policy::{Authorization, Policy};
use serde::{Deserialize, Serialize};

use super::{InForce, Proxies};
use crate::model::{Mesh, PolicyReport, RouteStatus};
use crate::source::objects::Kind;

/// What one replica says, by subjects as it knows them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    subjects: Vec<Subject>,
    proxies: Vec<Proxy>,
}

/// What is in force or not: a version of a policy, or of a route at one of its parents. A file has no generation.
type Subject = (String, Option<i64>);

/// What one proxy has in force, by places in `Said::subjects`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Proxy {
    /// `namespace/name` of its pod.
    workload: String,
    applied: Vec<usize>,
    /// Routes that it is to put in force, and has not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<usize>,
    /// What it cannot act on, or has not taken, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<(usize, String)>,
}

/// How far a subject has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Workloads whose proxies have it in force.
    pub(super) applied: BTreeSet<WorkloadName>,
    /// Those whose proxies are to have it, and do not.
    pub(super) open: BTreeSet<WorkloadName>,
    /// Those of them that say why.
    pub(super) refused: BTreeMap<WorkloadName, String>,
}

/// Of everything that a mesh has, in its order.
#[derive(Debug)]
pub(super) struct Tallies {
    pub(super) policies: Vec<Tally>,
    /// By parent.
    pub(super) routes: Vec<Vec<Tally>>,
}

/// Of the proxies that watch this replica.
pub(crate) fn say(mesh: &Mesh, proxies: &Proxies) -> Said {
    let policies = mesh.policies().iter().map(|one| one.key.to_string());
    let policies = policies.zip(0..).collect();
    let revocations = mesh.policies().iter().zip(0..);
    let revocations = revocations
        .filter(|(one, _): &(&PolicyReport, usize)| one.key.kind == Kind::IdentityRevocation);
    let revocations: Vec<usize> = revocations.map(|(_, place)| place).collect();
    let routed = routed(mesh);
    let mut said = Said {
        subjects: subjects(mesh),
        proxies: Vec::new(),
    };
    for (name, in_force) in proxies.in_force() {
        let Some(wanted) = mesh.authorization(&name) else {
            continue;
        };
        let mut proxy = Proxy {
            workload: name.to_string(),
            ..Proxy::default()
        };
        proxy.say_policies(&in_force, &wanted, &policies);
        if in_force.revocations.as_ref() == Some(mesh.revocations()) {
            proxy.applied.extend(&revocations);
        }
        proxy.say_routes(&in_force, mesh, &name.namespace, &routed);
        if !proxy.applied.is_empty() || !proxy.open.is_empty() || !proxy.refused.is_empty() {
            said.proxies.push(proxy);
        }
    }
    said
}

/// Policies, then routes by parent.
fn subjects(mesh: &Mesh) -> Vec<Subject> {
    let policies = mesh.policies().iter();
    let policies = policies.map(|one| (one.key.to_string(), one.generation));
    let routes = mesh.routes().iter().flat_map(|route| {
        let name = route.key().to_string();
        let parents = 0..route.parents.len();
        parents.map(move |parent| (format!("{name} {parent}"), route.generation))
    });
    policies.chain(routes).collect()
}

/// Subjects that are routes by where they are in force, and for whose callers.
type Routed<'a> = HashMap<SocketAddr, Vec<(usize, Option<&'a str>)>>;

fn routed(mesh: &Mesh) -> Routed<'_> {
    let mut by_address = Routed::new();
    let parents = mesh.routes().iter().flat_map(|route| &route.parents);
    for (subject, parent) in (mesh.policies().len()..).zip(parents) {
        for place in &parent.places {
            let entry = by_address.entry(place.address).or_default();
            entry.push((subject, place.callers.as_deref()));
        }
    }
    by_address
}

/// What a proxy takes or cannot act on by itself.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    Policy(&'a Policy),
    Authentication(&'a Authentication),
    Limit(&'a Limit),
}

impl Part<'_> {
    /// The object that it is of.
    fn subject(&self, name: &str) -> String {
        match self {
            Self::Policy(_) => format!("{:?} {name}", Kind::AuthorizationPolicy),
            Self::Authentication(one) => format!("{:?} {}", Kind::RequestAuthentication, one.name),
            Self::Limit(limit) => {
                let policy = limit.name.rsplit_once('/').map_or("", |(policy, _)| policy);
                format!("{:?} {policy}", Kind::RateLimitPolicy)
            }
        }
    }
}

/// By name, as proxies name them, in their order.
fn parts(told: &Authorization) -> impl Iterator<Item = (String, Part<'_>)> {
    let policies = told.policies.iter();
    let policies = policies.map(|one| (one.name.to_string(), Part::Policy(one)));
    let authentications = told.authentications.iter();
    let authentications =
        authentications.map(|one| (token_name(&one.name), Part::Authentication(one)));
    let limits = told.limits.iter();
    let limits = limits.map(|one| (limit_name(&one.name), Part::Limit(one)));
    policies.chain(authentications).chain(limits)
}

impl Proxy {
    /// A policy of several limits is in force when all of them are.
    fn say_policies(
        &mut self,
        in_force: &InForce,
        wanted: &Authorization,
        places: &HashMap<String, usize>,
    ) {
        let taken = in_force.authorization.as_deref();
        // Mostly so, and then nothing need be compared.
        let is_same = taken.is_some_and(|taken| std::ptr::eq(taken, wanted));
        let taken: HashMap<String, Part<'_>> = taken
            .filter(|_| !is_same)
            .into_iter()
            .flat_map(parts)
            .collect();
        let mut is_known = true;
        let mut found: BTreeMap<usize, Result<bool, String>> = BTreeMap::new();
        for (name, part) in parts(wanted) {
            let is_taken = is_same || taken.get(&name).is_some_and(|taken| *taken == part);
            let one = match (is_taken, in_force.denied.get(&name)) {
                (true, Some(reason)) => Err(reason.clone()),
                (true, None) => Ok(is_known),
                (false, _) => in_force.refused.clone().map_or(Ok(false), Err),
            };
            is_known &= in_force.known_up_to.as_deref() != Some(&*name);
            let Some(place) = places.get(&part.subject(&name)).copied() else {
                continue;
            };
            let all = found.entry(place).or_insert(Ok(true));
            if let Ok(true) = all {
                *all = one;
            }
        }
        for (place, one) in found {
            match one {
                Ok(true) => self.applied.push(place),
                Ok(false) => {}
                Err(why) => self.refused.push((place, why)),
            }
        }
    }

    /// A route is in force when it is at all addresses that the proxy follows.
    fn say_routes(
        &mut self,
        in_force: &InForce,
        mesh: &Mesh,
        namespace: &Arc<str>,
        routed: &Routed<'_>,
    ) {
        let mut found: BTreeMap<usize, (bool, Option<&str>)> = BTreeMap::new();
        for (address, followed) in &in_force.destinations {
            let Some(routes) = routed.get(address) else {
                continue;
            };
            let own = mesh.has_own_routes(*address, namespace);
            let callers = own.then_some(&**namespace);
            let wanted = mesh.answer(*address, namespace);
            let taken = followed.routed.as_ref().zip(wanted.routed());
            let is_taken = taken.is_some_and(|(taken, wanted)| taken.is_routed_as(wanted));
            let why = followed.refused.as_deref().filter(|_| !is_taken);
            for (subject, _) in routes.iter().filter(|(_, whose)| *whose == callers) {
                let (is_applied, refused) = found.entry(*subject).or_insert((true, None));
                *is_applied &= is_taken;
                *refused = refused.or(why);
            }
        }
        for (subject, (is_applied, refused)) in found {
            match (is_applied, refused) {
                (true, _) => self.applied.push(subject),
                (false, None) => self.open.push(subject),
                (false, Some(why)) => self.refused.push((subject, why.to_owned())),
            }
        }
    }
}

/// What all replicas say of what this one knows of the mesh. A proxy that is known to several has in force what one of
/// them says, for it was there last.
pub(super) fn sum(mesh: &Mesh, said: &[Said]) -> Tallies {
    let subjects = subjects(mesh);
    let places: HashMap<&Subject, usize> = subjects.iter().zip(0..).collect();
    let mut tallies = vec![Tally::default(); subjects.len()];
    for one in said {
        let ours: Vec<Option<usize>> = one
            .subjects
            .iter()
            .map(|subject| places.get(subject).copied())
            .collect();
        let ours = |theirs: usize| ours.get(theirs).copied().flatten();
        for proxy in &one.proxies {
            let Ok(name) = proxy.workload.parse::<WorkloadName>() else {
                continue;
            };
            for place in proxy.applied.iter().filter_map(|place| ours(*place)) {
                tallies[place].applied.insert(name.clone());
            }
            for place in proxy.open.iter().filter_map(|place| ours(*place)) {
                tallies[place].open.insert(name.clone());
            }
            for (place, reason) in &proxy.refused {
                if let Some(place) = ours(*place) {
                    let refused = &mut tallies[place].refused;
                    refused.insert(name.clone(), reason.clone());
                }
            }
        }
    }
    let mut routes = tallies.split_off(mesh.policies().len()).into_iter();
    let policies = tallies.into_iter().zip(mesh.policies());
    Tallies {
        policies: policies.map(|(tally, report)| tally.of(report)).collect(),
        routes: mesh
            .routes()
            .iter()
            .map(|route| parents(route, &mut routes))
            .collect(),
    }
}

fn parents(route: &RouteStatus, tallies: &mut impl Iterator<Item = Tally>) -> Vec<Tally> {
    let parents = tallies.take(route.parents.len());
    parents.map(Tally::settled).collect()
}

impl Tally {
    /// How many proxies are to have it.
    pub(super) fn all(&self) -> usize {
        self.applied.len() + self.open.len()
    }

    /// Of a policy: which proxies are to have it is known here.
    fn of(mut self, report: &PolicyReport) -> Self {
        let is_meant = |name: &WorkloadName| report.workloads.binary_search(name).is_ok();
        self.applied.retain(is_meant);
        self.refused.retain(|name, _| is_meant(name));
        self.open.extend(report.workloads.iter().cloned());
        self.settled()
    }

    fn settled(mut self) -> Self {
        let Self {
            applied,
            open,
            refused,
        } = &mut self;
        refused.retain(|name, _| !applied.contains(name));
        open.extend(refused.keys().cloned());
        open.retain(|name| !applied.contains(name));
        self
    }
}
