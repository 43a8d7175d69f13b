//! Which port takes which route, and what its callers see then.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use prost::Message;
use ringmail_proto::destination::{BYTES_MAX, Service};
use ringmail_proto::pb;
use ringmail_proto::workload::Protocol;

use super::set::{Set, Variant};
use super::status::{self, Condition, ParentStatus, RouteStatus};
use super::{Place, namespace};
use crate::model::Dialled;
use crate::model::services::{Plain, Port};
use crate::source::route::{BackendRef, ParentRef, Route, RouteKind};

/// Bytes around each service in a message, at most: a tag and a length.
const FRAME_BYTES: usize = 16;

/// Ports by service.
pub(super) struct Index<'a> {
    ports: &'a [Port],
    by_service: HashMap<(&'a str, &'a str), Vec<usize>>,
    /// IPv4, IPv6.
    served: Vec<[OnceCell<Served>; 2]>,
}

/// A port as one family is told it, made once for all that dial it or refer to it.
struct Served {
    service: Arc<Service>,
    bytes: OnceCell<usize>,
}

/// What became of one route.
pub(super) struct Attached<'a> {
    /// By parent: the places that took it, or why none did.
    parents: Vec<Result<Vec<Place<'a>>, Condition>>,
    /// What of its references is not there.
    unresolved: Vec<Condition>,
}

impl<'a> Index<'a> {
    pub(super) fn new(ports: &'a [Port]) -> Self {
        let mut by_service: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, port) in ports.iter().enumerate() {
            let service = (&*port.service.namespace, &*port.service.name);
            by_service.entry(service).or_default().push(index);
        }
        Self {
            ports,
            by_service,
            served: ports.iter().map(|_| Default::default()).collect(),
        }
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
    pub(super) fn attach(
        &self,
        route: &'a Route,
        sets: &mut BTreeMap<Place<'a>, Set<'a>>,
        problems: &mut Vec<String>,
    ) -> Attached<'a> {
        let (mut backends, mut unresolved) = (Vec::new(), Vec::new());
        for reference in route.rules.iter().flat_map(|rule| &rule.refs) {
            match self.resolve(route, reference) {
                Ok(port) => backends.push(port),
                Err(condition) => unresolved.push(condition),
            }
        }
        let mut offer = |place: Place<'a>| {
            let port = &self.ports[place.0];
            let taken = take(port, sets, place, route, &backends);
            taken.inspect_err(|condition| {
                if condition.reason == status::LIMIT_EXCEEDED {
                    let name = status::full_name(route);
                    problems.push(format!("route {name}: {}", condition.message));
                }
            })
        };
        let parents = route.parents.iter();
        Attached {
            parents: parents
                .map(|parent| self.attach_to(route, parent, &mut offer))
                .collect(),
            unresolved,
        }
    }

    /// The places that took the route; refused when none did.
    fn attach_to(
        &self,
        route: &'a Route,
        parent: &'a ParentRef,
        mut offer: impl FnMut(Place<'a>) -> Result<(), Condition>,
    ) -> Result<Vec<Place<'a>>, Condition> {
        if !parent.group.is_empty() || parent.kind != "Service" {
            let message = format!("{} is no parent here, only a Service is", parent.kind);
            return Err(Condition::not_accepted("InvalidKind", message));
        }
        let own = namespace(route);
        let (of, name) = (
            parent.namespace.as_deref().unwrap_or(own),
            parent.name.as_str(),
        );
        let scope = (of != own).then_some(own);
        let meant = |port: &Port| {
            parent.port.is_none_or(|number| number == port.number.get())
                && (parent.section_name.is_none() || parent.section_name == port.name)
        };
        let (mut taken, mut refused) = (Vec::new(), None);
        for (index, _) in self.ports_of(of, name).filter(|(_, port)| meant(port)) {
            match offer((index, scope)) {
                Ok(()) => taken.push((index, scope)),
                Err(condition) => refused = Some(condition),
            }
        }
        if !taken.is_empty() {
            return Ok(taken);
        }
        Err(refused.unwrap_or_else(|| {
            let message = format!("there is no such port of Service {of}/{name}");
            Condition::not_accepted("NoMatchingParent", message)
        }))
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

    /// What a set's routes come to: one that no proxy would be sent answers 500 in place of them.
    pub(super) fn variant(
        &self,
        (number, _): Place<'a>,
        set: &Set<'a>,
        problems: &mut Vec<String>,
    ) -> Variant {
        let merged = set.merged(|route, to| self.resolve(route, to).ok());
        let routes = pb::Routes::from(&*merged.routes).encoded_len();
        let bytes = [true, false].map(|v4| {
            let backends = merged.backends.iter().map(|port| self.bytes(*port, v4));
            self.bytes(number, v4) + routes + backends.sum::<usize>()
        });
        if bytes.iter().all(|bytes| *bytes <= BYTES_MAX) {
            return merged;
        }
        let port = &self.ports[number];
        problems.push(format!(
            "service {} port {}: its routes and their backends are larger than {BYTES_MAX} bytes; requests are answered 500",
            port.service, port.number
        ));
        Variant::too_large(merged.routes.tls)
    }

    fn served(&self, port: usize, v4: bool) -> &Served {
        self.served[port][usize::from(!v4)].get_or_init(|| Served {
            service: Arc::new(self.ports[port].served(v4)),
            bytes: OnceCell::new(),
        })
    }

    /// As it travels.
    fn bytes(&self, port: usize, v4: bool) -> usize {
        let served = self.served(port, v4);
        *served
            .bytes
            .get_or_init(|| pb::Service::from(&*served.service).encoded_len() + FRAME_BYTES)
    }

    pub(super) fn dialled(&self, port: usize, v4: bool, variant: Option<&Variant>) -> Dialled {
        let backends = variant.into_iter().flat_map(|variant| &variant.backends);
        Dialled {
            service: self.served(port, v4).service.clone(),
            routes: variant.map(|variant| variant.routes.clone()),
            backends: backends
                .map(|port| self.served(*port, v4).service.clone())
                .collect(),
        }
    }

    pub(super) fn into_plain(self) -> Plain {
        let families = self.served.into_iter().flat_map(|[v4, v6]| {
            let of = |v4, cell: OnceCell<Served>| Some((v4, cell.into_inner()?.service));
            [of(true, v4), of(false, v6)]
        });
        families
            .flatten()
            .map(|(v4, service)| ((service.name.clone(), service.port, v4), service))
            .collect()
    }
}

/// One place takes the route, or says why not.
fn take<'a>(
    port: &Port,
    sets: &mut BTreeMap<Place<'a>, Set<'a>>,
    place: Place<'a>,
    route: &'a Route,
    backends: &[usize],
) -> Result<(), Condition> {
    let unsuited = match (route.kind, port.protocol) {
        (RouteKind::Http | RouteKind::Grpc, Protocol::Tcp) => Some("no HTTP"),
        (RouteKind::Tls, Protocol::Http1 | Protocol::Http2) => Some("HTTP"),
        (_, Protocol::Detect | Protocol::Http1 | Protocol::Http2 | Protocol::Tcp) => None,
    };
    if let Some(what) = unsuited {
        let message = format!("port {} is declared to be {what}", port.number);
        return Err(Condition::not_accepted("UnsupportedProtocol", message));
    }
    // It stays, empty, even when the route is too much for it: whose route does not apply is not without routes.
    let set = sets.entry(place).or_default();
    if let Some(other) = set.first().filter(|other| other.kind != route.kind) {
        let message = format!(
            "port {} has a route of another kind: {}",
            port.number,
            status::full_name(other)
        );
        return Err(Condition::not_accepted("Conflicted", message));
    }
    set.add(route, backends).map_err(|limit| {
        let message = format!("with it port {} would have {limit}", port.number);
        Condition::not_accepted(status::LIMIT_EXCEEDED, message)
    })
}

impl Attached<'_> {
    pub(super) fn status(
        self,
        route: &Route,
        ports: &[Port],
        variants: &BTreeMap<Place<'_>, Variant>,
    ) -> RouteStatus {
        let is_in_force = |place: &&Place<'_>| {
            let variant = variants.get(place);
            variant.is_some_and(|variant| !variant.is_too_large)
        };
        let parents = route.parents.iter().zip(self.parents);
        let parents = parents.map(|(parent, taken)| {
            let accepted = taken.and_then(|places| {
                let mut in_force = places.iter().filter(is_in_force).peekable();
                if in_force.peek().is_none() {
                    let message = format!(
                        "all routes of the port and their backends are larger than {BYTES_MAX} bytes"
                    );
                    return Err(Condition::not_accepted(status::LIMIT_EXCEEDED, message));
                }
                Ok(in_force.flat_map(|place| dialled_at(*place, ports)).collect())
            });
            ParentStatus::new(parent, accepted, &self.unresolved)
        });
        RouteStatus::new(route, parents.collect())
    }
}

/// The addresses of a port, and whose callers.
fn dialled_at((port, scope): Place<'_>, ports: &[Port]) -> impl Iterator<Item = status::Place> {
    let port = &ports[port];
    let callers: Option<Arc<str>> = scope.map(Into::into);
    port.addresses.iter().map(move |address| status::Place {
        address: SocketAddr::new(*address, port.number.get()),
        callers: callers.clone(),
    })
}
