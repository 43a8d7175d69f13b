//! Services as this worker knows them: resolved once for each change of what the controller says, so that a request
//! finds its endpoints by the address of the snapshot that it holds anyway.
//!
//! Zones are preferred as Kubernetes' own proxies do it: only if every endpoint has a hint and one of them is for our
//! zone, requests stay with those that are.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringmail_proto::destination::{Destination, Endpoint as Announced, Service, Timeouts};
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::workload::Protocol;
use ringmail_proto::workload::Workload;

use super::balance::{self, Field, Standing};
use super::budget::Budget;
use super::endpoint::{Endpoint, Try};
use super::peers::{Is, Peer, Peers};
use crate::limits::exhausted::Spell;
use crate::metrics::{Between, Direction, Protocol as Spoken, Traffic};
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Where a request goes: a service, and the snapshot that it is part of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) destination: &'a Arc<Destination>,
    pub(crate) service: &'a Service,
}

/// A service, resolved.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Keeps the service where it is: it is found by its address.
    pub(super) destination: Arc<Destination>,
    /// Of the pod that calls.
    pub(super) source: IpAddr,
    /// `namespace/name`.
    name: Box<str>,
    /// As many as it has identities and routes.
    traffic: RefCell<Vec<Counted>>,
    endpoints: Vec<Share>,
    field: Field,
    pub(super) budget: Rc<Budget>,
    pub(super) timeouts: Timeouts,
}

/// The handles for what passes between our app and one identity, or several pods without one, by one route.
#[derive(Debug)]
struct Counted {
    protocol: Spoken,
    route: Box<str>,
    peer: Box<str>,
    handles: Rc<Traffic>,
}

/// An endpoint's part in one service.
#[derive(Debug)]
struct Share {
    endpoint: Rc<Endpoint>,
    /// See [`Field::crowding`].
    crowding: f64,
}

/// Endpoints of a service, by their places, that a request tried; most try one.
#[derive(Debug, Default)]
pub(super) struct Tried {
    first: Option<usize>,
    more: Vec<usize>,
}

impl Tried {
    fn contains(&self, index: usize) -> bool {
        self.first == Some(index) || self.more.contains(&index)
    }

    fn push(&mut self, index: usize) {
        match self.first {
            None => self.first = Some(index),
            Some(_) => self.more.push(index),
        }
    }
}

/// What tells an endpoint from another: a pod that took over an address is not the one that had it.
type EndpointKey = (SocketAddr, WorkloadName, Is);

/// Every service that was called, and what is known of their endpoints.
#[derive(Debug)]
pub(crate) struct Services {
    resolved: RefCell<HashMap<usize, Rc<Resolved>, BuildHasherDefault<AddressHasher>>>,
    endpoints: RefCell<HashMap<EndpointKey, Rc<Endpoint>>>,
    budgets: RefCell<HashMap<(WorkloadName, u16), Rc<Budget>>>,
    /// Our own pod, for whose zone all of this was resolved.
    workload: RefCell<Option<Arc<Workload>>>,
    dice: Cell<u64>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            resolved: RefCell::default(),
            endpoints: RefCell::default(),
            budgets: RefCell::default(),
            workload: RefCell::default(),
            dice: Cell::new(rand::random()),
        }
    }
}

impl Services {
    /// The service as this worker knows it.
    pub(super) fn resolve(
        &self,
        target: Target<'_>,
        source: IpAddr,
        snapshot: &Snapshot,
        peers: &Peers,
    ) -> Rc<Resolved> {
        let address = std::ptr::from_ref(target.service).addr();
        if let Some(known) = self.resolved.borrow().get(&address)
            && known.source == source
        {
            return known.clone();
        }
        let workload = snapshot.workload().ok();
        let zone = workload.as_ref().and_then(|own| own.zone.as_deref());
        let Service {
            endpoints,
            protocol,
            ..
        } = target.service;
        let endpoints = chosen(endpoints, *protocol, source, zone);
        let weights: Vec<u32> = endpoints.iter().map(|(one, _)| one.weight).collect();
        let field = Field::new(&weights);
        let resolved = Rc::new(Resolved {
            destination: target.destination.clone(),
            source,
            name: target.service.name.to_string().into(),
            traffic: RefCell::default(),
            endpoints: endpoints
                .into_iter()
                .map(|(one, is)| Share {
                    endpoint: self.endpoint(one, is, peers),
                    crowding: field.crowding(one.weight),
                })
                .collect(),
            field,
            timeouts: target.service.timeouts,
            budget: self.budget(target.service),
        });
        self.resolved.borrow_mut().insert(address, resolved.clone());
        resolved
    }

    fn endpoint(&self, announced: &Announced, is: Is, peers: &Peers) -> Rc<Endpoint> {
        let address = announced.address;
        let key = (address, announced.workload.clone(), is);
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints.entry(key).or_insert_with_key(|(_, _, is)| {
            Rc::new(Endpoint::new(peers.peer(address.ip(), is), address.port()))
        });
        endpoint.clone()
    }

    fn budget(&self, service: &Service) -> Rc<Budget> {
        let key = (service.name.clone(), service.port);
        let mut budgets = self.budgets.borrow_mut();
        let budget = budgets.entry(key);
        budget
            .or_insert_with(|| Rc::new(Budget::new(Instant::now())))
            .clone()
    }

    /// Forgets services that changed or went, or all when we ourselves changed, and endpoints that no service has had since the last time.
    pub(crate) fn sweep(&self, snapshot: &Snapshot) {
        let workload = snapshot.workload().ok();
        let as_pointer = |one: &Option<Arc<Workload>>| one.as_ref().map(Arc::as_ptr);
        let has_moved = as_pointer(&self.workload.borrow()) != as_pointer(&workload);
        self.workload.replace(workload);
        let mut resolved = self.resolved.borrow_mut();
        resolved.retain(|_, one| !has_moved && snapshot.is_current(&one.destination));
        self.budgets
            .borrow_mut()
            .retain(|_, one| Rc::strong_count(one) > 1);
        self.endpoints.borrow_mut().retain(|_, one| {
            let is_deserted = Rc::strong_count(one) == 1;
            let was_deserted = one.is_deserted.replace(is_deserted);
            !(is_deserted && was_deserted)
        });
    }

    /// A number that nobody chose: splitmix64.
    pub(super) fn roll(&self) -> u64 {
        let next = self.dice.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.dice.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The same, of half the size.
    pub(super) fn roll_u32(&self) -> u32 {
        u32::try_from(self.roll() >> 32).unwrap_or_default()
    }
}

impl Resolved {
    /// Of a request that goes to our own app: nobody is chosen.
    pub(super) fn none(destination: Arc<Destination>, now: Instant) -> Rc<Self> {
        Rc::new(Self {
            destination,
            source: IpAddr::from([0, 0, 0, 0]),
            name: Box::default(),
            traffic: RefCell::default(),
            endpoints: Vec::new(),
            field: Field::default(),
            timeouts: Timeouts::default(),
            budget: Rc::new(Budget::new(now)),
        })
    }

    /// Why nobody is asked, if every endpoint has said that it refuses whatever we ask.
    pub(super) fn exhausted(&self, now: Instant) -> Option<Spell> {
        let first = self.endpoints.first()?.endpoint.exhausted(now)?;
        let mut others = self.endpoints[1..].iter();
        others
            .all(|one| one.endpoint.exhausted(now).is_some())
            .then_some(first)
    }

    /// The handles for what passes between our app and this peer, by such a route.
    pub(super) fn traffic(
        &self,
        worker: &Worker,
        (peer, route): (&Peer, &str),
        protocol: Spoken,
    ) -> Rc<Traffic> {
        let identity = peer.identity();
        let mut all = self.traffic.borrow_mut();
        let is = |one: &&Counted| {
            one.protocol == protocol && *one.route == *route && *one.peer == *identity
        };
        if let Some(known) = all.iter().find(is) {
            return known.handles.clone();
        }
        let handles = Rc::new(worker.metrics.traffic(&Between {
            direction: Direction::Outbound,
            peer: identity,
            service: &self.name,
            route,
            tls: peer.tls(),
            protocol,
        }));
        all.push(Counted {
            protocol,
            route: route.into(),
            peer: identity.into(),
            handles: handles.clone(),
        });
        handles
    }

    /// Begins a try with one of the endpoints that were not tried; adds it to them.
    pub(super) fn begin(&self, tried: &mut Tried, random: u64, now: Instant) -> Option<Try> {
        let chance = balance::chance(random);
        let standing = |index: usize| -> Option<Standing> {
            let is_free = !tried.contains(index);
            let share = &self.endpoints[index];
            is_free.then(|| share.endpoint.standing(share.crowding, chance, now))
        };
        let picked = balance::pick(&self.field, random, standing)?;
        tried.push(picked.index);
        let endpoint = self.endpoints[picked.index].endpoint.clone();
        Some(Try::begin(endpoint, picked.is_probe, now))
    }
}

/// The endpoints to choose from, and what they are: in our zone if that is how it is to be. Where one has a sidecar,
/// those that have none are left out: what can be under mutual TLS is. The caller's own pod is for want of others: it
/// need not cross two proxies to reach itself.
fn chosen<'a>(
    all: &'a [Announced],
    protocol: Protocol,
    source: IpAddr,
    zone: Option<&str>,
) -> Vec<(&'a Announced, Is)> {
    let (own, others): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.address.ip() == source);
    let in_mesh = others.iter().any(|one| one.identity.is_some());
    let usable = |one: &&'a Announced| match &one.identity {
        Some(identity) => Some((*one, Is::Proxy(identity.clone()))),
        None => (!in_mesh).then_some((*one, Is::App(protocol))),
    };
    if others.is_empty() {
        return own
            .into_iter()
            .map(|one| (one, Is::App(protocol)))
            .collect();
    }
    let is_near = |one: &&&Announced| {
        zone.is_some_and(|zone| one.zone_hints.iter().any(|hint| **hint == *zone))
    };
    if all.iter().all(|one| !one.zone_hints.is_empty()) {
        let near: Vec<_> = others.iter().filter(is_near).filter_map(usable).collect();
        if !near.is_empty() {
            return near;
        }
    }
    others.iter().filter_map(usable).collect()
}

/// Addresses in memory are ours to choose: a multiplication spreads them.
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests;
