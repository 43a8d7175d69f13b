//! Routes: which apply to which port, for whom, and what their authors are told.
//!
//! A route in its Service's own namespace is the producer's and applies to every caller; one elsewhere is a consumer's,
//! applies to callers of its own namespace, and takes the place of the producer's there (Gateway API, GEP-1294). What
//! a rule refers to and is not there keeps its share of the requests: they are answered 500, never sent elsewhere.
//!
//! No limit makes a route weaker in silence. One with which a port would have more rules, matches, regular expressions
//! or backends than a proxy takes is refused whole; routes that make what a proxy is told of a port larger than
//! `BYTES_MAX` are all refused, and its requests answered 500: it may have outgrown the limit by endpoints alone, and
//! what the routes kept apart must not run together then.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::Dialled;
use super::services::{Plain, Port};
use crate::source::Objects;
use crate::source::route::Route;

/// Ports by service, and the routes that they take.
mod index;

/// The routes of one port and scope, as one.
mod set;

/// What authors of routes are told (Gateway API, `RouteStatus`).
mod status;

use index::Index;
use set::{Set, Variant};
pub use status::{Condition, ParentStatus, RouteStatus};

/// What callers dial, with the routes that apply.
#[derive(Debug, Default)]
pub(super) struct Routed {
    /// Every port that is dialled or referred to, without routes: all that follows shares these.
    pub(super) plain: Plain,
    pub(super) services: HashMap<SocketAddr, Arc<Dialled>>,
    pub(super) consumers: HashMap<(SocketAddr, Arc<str>), Arc<Dialled>>,
    pub(super) status: Vec<RouteStatus>,
}

/// Whose callers routes apply to: a consumer's namespace, or everybody's.
type Scope<'a> = Option<&'a str>;

/// A port by its index, and whose callers.
type Place<'a> = (usize, Scope<'a>);

/// Every address of every port, as each caller sees it.
pub(super) fn apply(objects: &Objects, ports: &[Port], problems: &mut Vec<String>) -> Routed {
    let index = Index::new(ports);
    let mut sets: BTreeMap<Place<'_>, Set<'_>> = BTreeMap::new();
    let attached: Vec<_> = in_order(objects)
        .into_iter()
        .map(|route| (route, index.attach(route, &mut sets, problems)))
        .collect();
    let variants: BTreeMap<Place<'_>, Variant> = sets
        .iter()
        .map(|(place, set)| (*place, index.variant(*place, set, problems)))
        .collect();
    let mut routed = Routed::default();
    for (route, attached) in attached {
        routed.status.push(attached.status(route, ports, &variants));
    }
    for (number, port) in ports.iter().enumerate() {
        for address in &port.addresses {
            let dialled = SocketAddr::new(*address, port.number.get());
            let with = |variant| Arc::new(index.dialled(number, address.is_ipv4(), variant));
            if let Some(other) = routed
                .services
                .insert(dialled, with(variants.get(&(number, None))))
            {
                problems.push(format!(
                    "services {} and {} both have {dialled}; the latter has it",
                    other.service.name, port.service
                ));
            }
            let consumers = variants.range((number, Some(""))..(number + 1, None));
            for ((_, scope), variant) in consumers {
                let namespace = scope.unwrap_or_default().into();
                routed
                    .consumers
                    .insert((dialled, namespace), with(Some(variant)));
            }
        }
    }
    routed.plain = index.into_plain();
    routed
}

/// By kind: a GRPCRoute has a port before an HTTPRoute, whatever the age. Then the oldest,
/// then by name.
fn in_order(objects: &Objects) -> Vec<&Route> {
    let mut routes: Vec<&Route> = objects.routes().collect();
    routes.sort_by_cached_key(|route| {
        let created = route.metadata.creation_timestamp.as_ref();
        let created = created.map_or(i64::MAX, |time| time.0.as_second());
        (
            Reverse(route.kind),
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

#[cfg(test)]
mod tests;
