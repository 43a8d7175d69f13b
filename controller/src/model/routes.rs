//! Routes: which apply to which port, for whom, and what their authors are told.
//!
//! A route in its Service's own namespace is the producer's and applies to every caller; one elsewhere is a consumer's,
//! applies to callers of its own namespace, and takes the place of the producer's there (Gateway API, GEP-1294). What
//! a rule refers to and is not there keeps its share of the requests: they are answered 500, never sent elsewhere.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use ringmail_proto::destination::Service;
use ringmail_proto::route::{BACKENDS_MAX, MATCHES_MAX, RULES_MAX, Routes};
use ringmail_proto::workload::Protocol;

use super::services::Port;
use crate::source::Objects;
use crate::source::route::{BackendRef, ParentRef, Rank, Route};

/// What authors of routes are told (Gateway API, `RouteStatus`).
mod status;

pub use status::{Condition, ParentStatus, RouteStatus};

/// What callers dial, with the routes that apply.
#[derive(Debug, Default)]
pub(super) struct Routed {
    pub(super) services: HashMap<SocketAddr, Arc<Service>>,
    pub(super) consumers: HashMap<(SocketAddr, Arc<str>), Arc<Service>>,
    pub(super) status: Vec<RouteStatus>,
}

/// Whose callers routes apply to: a consumer's namespace, or everybody's.
type Scope<'a> = Option<&'a str>;

/// Routes by port and scope.
type Attached<'a> = BTreeMap<(usize, Scope<'a>), Vec<&'a Route>>;

/// Every address of every port, as each caller sees it.
pub(super) fn apply(objects: &Objects, ports: &[Port], problems: &mut Vec<String>) -> Routed {
    let index = Index::new(ports);
    let mut routed = Routed::default();
    let mut attached = Attached::new();
    for route in in_order(objects) {
        routed.status.push(index.attach(route, &mut attached));
    }
    for (number, port) in ports.iter().enumerate() {
        for address in &port.addresses {
            let dialled = SocketAddr::new(*address, port.number.get());
            let with = |routes: Option<&Vec<&Route>>| {
                let mut service = port.served(address.is_ipv4());
                if let Some(routes) = routes {
                    index.merge(routes, address.is_ipv4(), &mut service);
                }
                Arc::new(service)
            };
            if let Some(other) = routed
                .services
                .insert(dialled, with(attached.get(&(number, None))))
            {
                problems.push(format!(
                    "services {} and {} both have {dialled}; the latter has it",
                    other.name, port.service
                ));
            }
            let consumers = attached.range((number, Some(""))..(number + 1, None));
            for ((_, scope), routes) in consumers {
                let namespace = scope.unwrap_or_default().into();
                routed
                    .consumers
                    .insert((dialled, namespace), with(Some(routes)));
            }
        }
    }
    routed
}

/// The oldest first, then by name.
fn in_order(objects: &Objects) -> Vec<&Route> {
    let mut routes: Vec<&Route> = objects.routes().collect();
    routes.sort_by_cached_key(|route| {
        let created = route.metadata.creation_timestamp.as_ref();
        let created = created.map_or(i64::MAX, |time| time.0.as_second());
        (
            created,
            namespace(route).to_owned(),
            route.metadata.name.clone(),
        )
    });
    routes
}

fn namespace(route: &Route) -> &str {
    route.metadata.namespace.as_deref().unwrap_or("default")
}

/// Ports by service.
struct Index<'a> {
    ports: &'a [Port],
    by_service: HashMap<(&'a str, &'a str), Vec<usize>>,
}

impl<'a> Index<'a> {
    fn new(ports: &'a [Port]) -> Self {
        let mut by_service: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, port) in ports.iter().enumerate() {
            let service = (&*port.service.namespace, &*port.service.name);
            by_service.entry(service).or_default().push(index);
        }
        Self { ports, by_service }
    }

    fn ports_of<'s>(
        &'s self,
        namespace: &'s str,
        name: &'s str,
    ) -> impl Iterator<Item = (usize, &'s Port)> {
        let indices = self
            .by_service
            .get(&(namespace, name))
            .into_iter()
            .flatten();
        indices.map(|index| (*index, &self.ports[*index]))
    }

    /// Attaches a route to every port it is for.
    fn attach(&self, route: &'a Route, attached: &mut Attached<'a>) -> RouteStatus {
        let refs = self.resolve_all(route);
        let parents = route.parents.iter().map(|parent| {
            let accepted = self.attach_to(route, parent, attached);
            ParentStatus::new(parent, accepted, &refs)
        });
        RouteStatus::new(route, parents.collect())
    }

    fn attach_to(
        &self,
        route: &'a Route,
        parent: &ParentRef,
        attached: &mut Attached<'a>,
    ) -> Result<(), Condition> {
        let refused = |reason, message: String| Err(Condition::not_accepted(reason, message));
        if !parent.group.is_empty() || parent.kind != "Service" {
            let message = format!("{} is no parent here, only a Service is", parent.kind);
            return refused("InvalidKind", message);
        }
        let own = namespace(route);
        let service = (
            parent.namespace.as_deref().unwrap_or(own),
            parent.name.as_str(),
        );
        let scope = (service.0 != own).then_some(own);
        let meant = |port: &Port| {
            parent.port.is_none_or(|number| number == port.number.get())
                && (parent.section_name.is_none() || parent.section_name == port.name)
        };
        let mut ports = self
            .ports_of(service.0, service.1)
            .filter(|(_, port)| meant(port))
            .peekable();
        if ports.peek().is_none() {
            let message = format!(
                "there is no such port of Service {}/{}",
                service.0, service.1
            );
            return refused("NoMatchingParent", message);
        }
        let mut taken = Ok(());
        for (index, port) in ports {
            let others = attached.get(&(index, scope));
            let other = others
                .and_then(|others| others.first())
                .filter(|other| other.kind != route.kind);
            if port.protocol == Protocol::Tcp {
                let message = format!("port {} is declared to be no HTTP", port.number);
                taken = refused("UnsupportedProtocol", message);
            } else if let Some(other) = other {
                let message = format!(
                    "port {} has an older route of another kind: {}",
                    port.number,
                    status::full_name(other)
                );
                taken = refused("Conflicted", message);
            } else {
                attached.entry((index, scope)).or_default().push(route);
            }
        }
        taken
    }

    /// What of a route's references is not there.
    fn resolve_all(&self, route: &Route) -> Vec<Condition> {
        let refs = route.rules.iter().flat_map(|rule| &rule.refs);
        refs.filter_map(|one| self.resolve(route, one).err())
            .collect()
    }

    fn resolve(&self, route: &Route, to: &BackendRef) -> Result<usize, Condition> {
        if !to.group.is_empty() || to.kind != "Service" {
            let message = format!("{} is no backend here, only a Service is", to.kind);
            return Err(Condition::unresolved("InvalidKind", message));
        }
        let namespace = to.namespace.as_deref().unwrap_or(namespace(route));
        let mut ports = self.ports_of(namespace, &to.name);
        let found = ports.find(|(_, port)| Some(port.number.get()) == to.port);
        found.map(|(index, _)| index).ok_or_else(|| {
            let port = to.port.unwrap_or_default();
            let message = format!("there is no port {port} of Service {namespace}/{}", to.name);
            Condition::unresolved("BackendNotFound", message)
        })
    }

    /// All rules of all routes, their matches in order of precedence.
    fn merge(&self, routes: &[&Route], v4: bool, service: &mut Service) {
        let mut merged = Routes::default();
        let mut ranked: Vec<(Rank, _)> = Vec::new();
        let mut backends = Backends::default();
        for (route, rule) in routes
            .iter()
            .flat_map(|route| route.rules.iter().map(move |rule| (route, rule)))
        {
            if merged.rules.len() >= RULES_MAX || ranked.len() + rule.matches.len() > MATCHES_MAX {
                break;
            }
            let mut place = |reference: usize| {
                let port = self.resolve(route, rule.refs.get(reference)?).ok()?;
                backends.place(port)
            };
            let mut resolved = rule.rule.clone();
            for weighted in &mut resolved.backends {
                weighted.backend = weighted.backend.and_then(&mut place);
            }
            resolved.mirrors.retain_mut(|mirror| {
                let found = place(mirror.backend);
                mirror.backend = found.unwrap_or_default();
                found.is_some()
            });
            for (rank, one) in &rule.matches {
                let mut one = one.clone();
                one.rule = merged.rules.len();
                ranked.push((*rank, one));
            }
            merged.rules.push(resolved);
        }
        // Stable: the oldest route and the first rule stay in front where ranks are the same.
        ranked.sort_by_key(|(rank, _)| Reverse(*rank));
        merged.matches = ranked.into_iter().map(|(_, one)| one).collect();
        service.routes = Some(Arc::new(merged));
        let served = backends
            .ports
            .iter()
            .map(|port| Arc::new(self.ports[*port].served(v4)));
        service.backends = served.collect();
    }
}

/// Ports that rules refer to, each once.
#[derive(Default)]
struct Backends {
    ports: Vec<usize>,
}

impl Backends {
    fn place(&mut self, port: usize) -> Option<usize> {
        if let Some(place) = self.ports.iter().position(|other| *other == port) {
            return Some(place);
        }
        if self.ports.len() >= BACKENDS_MAX {
            return None;
        }
        self.ports.push(port);
        Some(self.ports.len() - 1)
    }
}

#[cfg(test)]
mod tests;
