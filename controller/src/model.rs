//! What objects mean: which pod is which workload, and what answers at which address. Pure: objects in, model out.
//!
//! Fail closed: an endpoint that names a pod which does not exist, or no longer has that address, is left out rather
//! than reached in plaintext.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;
use ringmail_proto::destination::{
    Destination, DestinationKind, Endpoint, Service, Timeouts, WEIGHT_DEFAULT,
};
use ringmail_proto::identity::{TrustDomain, WorkloadName};
use ringmail_proto::limit::Limit;
use ringmail_proto::policy::{Authorization, Posture};
use ringmail_proto::revocation::{REVOKED_MAX, Revocations};
use ringmail_proto::route::Routes;
use ringmail_proto::workload::Workload;

use crate::config::Config;
use crate::jwks::KeySets;
use crate::source::Objects;
use crate::source::objects::Kind;

/// What a port was declared to speak.
mod protocol;

/// Pods: who is alive, whose address it is, who is meshed.
mod pods;

/// Services: which ports, which endpoints.
mod services;

/// Routes: which apply to which port, for whom, and what their authors are told.
mod routes;

/// Policies: which are for which workload.
mod authorization;

/// Probes of the kubelet.
mod probes;

pub use authorization::PolicyReport;
pub use pods::PodEntry;
pub use routes::{Condition, ParentStatus, RouteStatus};

/// Problems kept for the status page.
pub const PROBLEMS_MAX: usize = 1000;

/// What holds for the whole mesh, unless a namespace or a pod says otherwise.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Of every identity.
    pub trust_domain: TrustDomain,
    /// For callers that no policy speaks of.
    pub posture: Posture,
    /// What [`Posture::Cluster`] means by the cluster.
    pub cluster_networks: Vec<IpNet>,
}

impl From<&Config> for Defaults {
    fn from(config: &Config) -> Self {
        Self {
            trust_domain: config.trust_domain.clone(),
            posture: config.default_policy,
            cluster_networks: config.cluster_networks.clone(),
        }
    }
}

#[cfg(test)]
impl Defaults {
    pub(crate) fn of_tests() -> Self {
        Self {
            trust_domain: "mesh.local".parse().expect("a domain"),
            posture: Posture::default(),
            cluster_networks: Vec::new(),
        }
    }
}

/// Everything known about workloads and addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mesh {
    workloads: HashMap<WorkloadName, Arc<Workload>>,
    authorizations: HashMap<WorkloadName, Arc<Authorization>>,
    policies: Vec<PolicyReport>,
    /// Rate limits, by name.
    limits: Arc<BTreeMap<Arc<str>, Limit>>,
    revocations: Arc<Revocations>,
    /// What `services` and `consumers` are made of.
    plain: services::Plain,
    services: HashMap<SocketAddr, Arc<Dialled>>,
    /// What callers of one namespace see instead, by the routes of that namespace.
    consumers: HashMap<(SocketAddr, Arc<str>), Arc<Dialled>>,
    routes: Vec<RouteStatus>,
    pods: HashMap<IpAddr, Arc<PodEntry>>,
    meshed: HashSet<WorkloadName>,
    /// Of pods of a cluster: another of the same name is another.
    uids: HashMap<WorkloadName, Box<str>>,
    problems: Vec<String>,
}

impl Mesh {
    /// The model of `objects`, for which nothing was fetched.
    #[must_use]
    pub fn build(objects: &Objects, defaults: &Defaults) -> Self {
        Self::with_keys(objects, &KeySets::default(), defaults)
    }

    /// The model of `objects`, with what was fetched for them.
    #[must_use]
    pub fn with_keys(objects: &Objects, keys: &KeySets, defaults: &Defaults) -> Self {
        let mut problems: Vec<String> = keys.problems().cloned().collect();
        let mut pods = pods::read(objects, &defaults.trust_domain, &mut problems);
        let ports = services::read(objects, &mut pods, &mut problems);
        let routed = routes::apply(objects, &ports, &mut problems);
        let given = authorization::Given { keys, defaults };
        let authorized = authorization::apply(objects, &pods, &ports, given, &mut problems);
        let by_address = pods.by_address();
        let entries = pods.into_entries();
        let workloads: HashMap<_, _> = entries
            .iter()
            .map(|pod| (pod.name.clone(), Arc::new(pod.workload(&mut problems))))
            .collect();
        let meshed: HashSet<WorkloadName> = entries
            .iter()
            .filter(|pod| pod.identity.is_some())
            .map(|pod| pod.name.clone())
            .collect();
        let (revocations, reports) = revocations(objects, &meshed, &mut problems);
        let mut policies = authorized.reports;
        policies.extend(reports);
        problems.truncate(PROBLEMS_MAX);
        Self {
            meshed,
            uids: entries
                .iter()
                .filter_map(|pod| Some((pod.name.clone(), pod.uid.clone()?)))
                .collect(),
            workloads,
            authorizations: authorized.by_workload,
            policies,
            limits: Arc::new(authorized.limits),
            revocations: Arc::new(revocations),
            plain: routed.plain,
            services: routed.services,
            consumers: routed.consumers,
            routes: routed.status,
            pods: by_address
                .into_iter()
                .filter_map(|(ip, index)| Some((ip, entries.get(index)?.clone())))
                .collect(),
            problems,
        }
    }

    /// The pod of that name, when it is alive.
    #[must_use]
    pub fn workload(&self, name: &WorkloadName) -> Option<Arc<Workload>> {
        self.workloads.get(name).cloned()
    }

    /// Who may do what with the pod of that name, when it is alive.
    #[must_use]
    pub fn authorization(&self, name: &WorkloadName) -> Option<Arc<Authorization>> {
        self.authorizations.get(name).cloned()
    }

    /// A pod behind that port of the service of that name, and the port there; or the pod of that name.
    pub(crate) fn behind(&self, name: &WorkloadName, port: u16) -> Option<(WorkloadName, u16)> {
        let served = [true, false].map(|v4| self.plain.get(&(name.clone(), port, v4)));
        let mut endpoints = served.into_iter().flatten().flat_map(|one| &one.endpoints);
        match endpoints.next() {
            Some(first) => Some((first.workload.clone(), first.address.port())),
            None if self.workloads.contains_key(name) => Some((name.clone(), port)),
            None => None,
        }
    }

    /// Whom nobody trusts any more.
    #[must_use]
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// What the authors of policies are told.
    #[must_use]
    pub fn policies(&self) -> &[PolicyReport] {
        &self.policies
    }

    /// All rate limits, by name.
    #[must_use]
    pub fn limits(&self) -> &Arc<BTreeMap<Arc<str>, Limit>> {
        &self.limits
    }

    /// What answers at `address` to callers of a namespace; anything unknown is external.
    #[must_use]
    pub fn answer(&self, address: SocketAddr, caller: &Arc<str>) -> Answer {
        if let Some(service) = self.services.get(&address) {
            let own = (!self.consumers.is_empty())
                .then(|| self.consumers.get(&(address, caller.clone())))
                .flatten();
            return Answer::Service(own.unwrap_or(service).clone());
        }
        match self.pods.get(&address.ip()) {
            Some(pod) => Answer::Pod(pod.clone()),
            None => Answer::External,
        }
    }

    /// Whether callers of that namespace see routes of their own at `address`.
    pub(crate) fn has_own_routes(&self, address: SocketAddr, caller: &Arc<str>) -> bool {
        let key = (address, caller.clone());
        !self.consumers.is_empty() && self.consumers.contains_key(&key)
    }

    /// Takes from `previous` whatever is equal, so that most comparisons of old and new compare pointers.
    pub(crate) fn share(&mut self, previous: &Self) {
        for (name, workload) in &mut self.workloads {
            reuse(workload, previous.workloads.get(name));
        }
        reuse(&mut self.revocations, Some(&previous.revocations));
        // Those that share one compare it once.
        let mut known: HashMap<*const Authorization, Arc<Authorization>> = HashMap::new();
        for (name, new) in &mut self.authorizations {
            let shared = known.entry(Arc::as_ptr(new)).or_insert_with(|| {
                let mut one = new.clone();
                reuse(&mut one, previous.authorizations.get(name));
                one
            });
            new.clone_from(shared);
        }
        for (key, port) in &mut self.plain {
            reuse(port, previous.plain.get(key));
        }
        for (address, dialled) in &mut self.services {
            let previous = previous.services.get(address);
            adopt(dialled, previous, &self.plain, address.is_ipv4());
            reuse(dialled, previous);
        }
        for (key, dialled) in &mut self.consumers {
            let previous = previous.consumers.get(key);
            adopt(dialled, previous, &self.plain, key.0.is_ipv4());
            reuse(dialled, previous);
        }
        for (address, pod) in &mut self.pods {
            reuse(pod, previous.pods.get(address));
        }
    }

    /// Whether others expect a sidecar in front of that pod.
    #[must_use]
    pub fn is_meshed(&self, name: &WorkloadName) -> bool {
        self.meshed.contains(name)
    }

    /// Which pod has that name; none outside a cluster.
    #[must_use]
    pub fn pod_uid(&self, name: &WorkloadName) -> Option<&str> {
        self.uids.get(name).map(|uid| &**uid)
    }

    /// How many pods are known.
    #[must_use]
    pub fn workload_count(&self) -> usize {
        self.workloads.len()
    }

    /// How many of them have a sidecar.
    #[must_use]
    pub fn meshed_count(&self) -> usize {
        self.meshed.len()
    }

    /// How many addresses of services are known.
    #[must_use]
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// What the authors of routes are told.
    #[must_use]
    pub fn routes(&self) -> &[RouteStatus] {
        &self.routes
    }

    /// What contradicts itself in the objects, for people.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// What answers at an address; cheap to keep and to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A port of a service.
    Service(Arc<Dialled>),
    /// A pod dialled by its own address: a headless service, or directly.
    Pod(Arc<PodEntry>),
    /// Nothing that is known.
    External,
}

/// A port of a service as some callers see it. However many see it with routes of their own, and refer to it, its
/// endpoints are there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialled {
    /// The port, without routes.
    pub service: Arc<Service>,
    /// What is done with its HTTP requests; none: they go to its endpoints.
    pub routes: Option<Arc<Routes>>,
    /// What `routes` refer to by index.
    pub backends: Vec<Arc<Service>>,
}

impl Dialled {
    /// Whether the same becomes of a request, whatever the endpoints are.
    pub(crate) fn is_routed_as(&self, other: &Self) -> bool {
        let (own, others) = (self.backends.iter(), other.backends.iter());
        let is_same = |(own, other): (&Arc<Service>, &Arc<Service>)| {
            own.name == other.name && own.port == other.port
        };
        self.routes == other.routes
            && self.backends.len() == other.backends.len()
            && own.zip(others).all(is_same)
    }
}

impl Answer {
    /// What is done with HTTP requests there, if anything.
    pub(crate) fn routed(&self) -> Option<&Arc<Dialled>> {
        match self {
            Self::Service(dialled) => Some(dialled).filter(|one| one.routes.is_some()),
            Self::Pod(_) | Self::External => None,
        }
    }

    /// As a proxy that dials `address` is told.
    #[must_use]
    pub fn destination(&self, address: SocketAddr) -> Destination {
        let kind = match self {
            Self::Service(dialled) => DestinationKind::Service(Service {
                routes: dialled.routes.clone(),
                backends: dialled.backends.clone(),
                ..Service::clone(&dialled.service)
            }),
            Self::Pod(pod) => pod_destination(pod, address),
            Self::External => DestinationKind::External,
        };
        Destination { address, kind }
    }
}

fn pod_destination(pod: &PodEntry, address: SocketAddr) -> DestinationKind {
    let Some(port) = NonZeroU16::new(address.port()) else {
        return DestinationKind::External;
    };
    DestinationKind::Service(Service {
        name: pod.name.clone(),
        port: port.get(),
        protocol: pod.protocol(port),
        endpoints: vec![Endpoint {
            address,
            workload: pod.name.clone(),
            identity: pod.identity.clone(),
            zone_hints: Vec::new(),
            weight: WEIGHT_DEFAULT,
        }],
        routes: None,
        backends: Vec::new(),
        timeouts: Timeouts::default(),
    })
}

/// The parts of a state that is not published yet become those of `plain`, which are equal, and its routes those of
/// before if they are equal: then they are compared once and not for each who sees them.
fn adopt(
    dialled: &mut Arc<Dialled>,
    previous: Option<&Arc<Dialled>>,
    plain: &services::Plain,
    v4: bool,
) {
    let Some(dialled) = Arc::get_mut(dialled) else {
        return;
    };
    if let Some(routes) = &mut dialled.routes {
        reuse(routes, previous.and_then(|one| one.routes.as_ref()));
    }
    for part in iter::once(&mut dialled.service).chain(&mut dialled.backends) {
        if let Some(plain) = plain.get(&(part.name.clone(), part.port, v4)) {
            part.clone_from(plain);
        }
    }
}

/// All of them together, for every proxy; beyond the limit the rest is told nobody, which is said.
fn revocations(
    objects: &Objects,
    meshed: &HashSet<WorkloadName>,
    problems: &mut Vec<String>,
) -> (Revocations, Vec<PolicyReport>) {
    let mut all = Revocations::default();
    let mut reports = Vec::new();
    let everybody: BTreeSet<WorkloadName> = meshed.iter().cloned().collect();
    let everybody: Arc<[WorkloadName]> = everybody.into_iter().collect();
    let mut newest: Vec<_> = objects.revocations().collect();
    // Those that are over are still there, and must not crowd out the others.
    newest.sort_by_key(|one| std::cmp::Reverse(one.until));
    for one in newest {
        let is_too_much = all.len() + one.identities.len() + one.serials.len() > REVOKED_MAX;
        let unread = one.broken.as_ref();
        let broken = match is_too_much {
            true => Some(format!(
                "with it more than {REVOKED_MAX} would be revoked; it is NOT in force"
            )),
            false => unread.map(|invalid| format!("{invalid}; the rest of it is in force")),
        };
        let key = (Kind::IdentityRevocation, &one.metadata);
        let mut report = PolicyReport::of(key, broken);
        if let Some(broken) = &report.broken {
            problems.push(format!("{}: {broken}", report.key));
        }
        if !is_too_much {
            report.workloads = everybody.clone();
            let identities = one.identities.iter().cloned();
            identities.for_each(|id| all.add_identity(id, one.until));
            let serials = one.serials.iter().cloned();
            serials.for_each(|serial| all.add_serial(serial, one.until));
        }
        reports.push(report);
    }
    (all, reports)
}

fn reuse<T: Eq>(new: &mut Arc<T>, old: Option<&Arc<T>>) {
    if let Some(old) = old.filter(|old| **old == *new) {
        *new = old.clone();
    }
}

#[cfg(test)]
mod tests;
