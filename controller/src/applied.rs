//! Which proxies have which policies and routes in force: what they have acknowledged, and what that comes to.
//!
//! Each replica knows the proxies that watch it and no others; the leader asks the others what theirs have in force, and
//! sums up. What is in force is compared by what it says, never by a version: every replica counts versions of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::pb;
use ringmail_proto::policy::{Authorization, DENIED_MAX};
use ringmail_proto::revocation::Revocations;
use tokio::sync::watch;

use crate::model::Dialled;

/// What a replica says of its proxies, and the sum of what all say.
mod tally;

/// What authors of policies and routes are told.
mod conditions;

pub(crate) use conditions::{PolicyState, States, states};
pub(crate) use tally::{Said, say};

/// Characters of a proxy's reason.
const REASON_CHARS_MAX: usize = 256;

/// The proxies that watch this replica. A lock for as long as a map takes; never held where something is waited for.
#[derive(Debug)]
pub(crate) struct Proxies {
    seats: Mutex<Seats>,
    /// Seats taken so far.
    changes: watch::Sender<u64>,
    /// How many there are.
    connected: Gauge,
}

/// By pod, the number of its seat and what is in force there.
type Seats = HashMap<WorkloadName, (u64, Arc<InForce>)>;

/// What one response says that authors want to know of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// What it says of policies.
    pub(crate) authorization: Option<Arc<Authorization>>,
    /// Whom nobody is to trust.
    pub(crate) revocations: Option<Arc<Revocations>>,
    /// Addresses that are followed from now on, or have or had routes: what they have now.
    pub(crate) destinations: Vec<(SocketAddr, Option<Arc<Dialled>>)>,
}

/// What a proxy has said of its policies and its destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct InForce {
    /// What it has taken last.
    authorization: Option<Arc<Authorization>>,
    /// The same of revocations.
    revocations: Option<Arc<Revocations>>,
    /// Policies of that which it cannot act on, with its reasons.
    denied: BTreeMap<String, String>,
    /// The last one that it named, when there may be more.
    known_up_to: Option<String>,
    /// Why it has not taken what came after that.
    refused: Option<String>,
    /// The addresses that it follows.
    destinations: BTreeMap<SocketAddr, Followed>,
}

/// What is in force at an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Followed {
    /// With routes, or nothing.
    routed: Option<Arc<Dialled>>,
    /// Why the proxy has not taken what came after that.
    refused: Option<String>,
}

/// A proxy that watches. What it has in force is known until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    proxies: Arc<Proxies>,
    workload: WorkloadName,
    number: u64,
}

impl Default for Proxies {
    fn default() -> Self {
        Self {
            seats: Mutex::default(),
            changes: watch::Sender::new(0),
            connected: Gauge::default(),
        }
    }
}

impl Proxies {
    /// None yet; `connected` says how many.
    pub(crate) fn new(connected: Gauge) -> Self {
        Self {
            connected,
            ..Self::default()
        }
    }

    /// A proxy that comes again takes the place of the stream it had.
    pub(crate) fn seat(self: &Arc<Self>, workload: WorkloadName) -> Seat {
        let number = self.change(|seats, number| {
            seats.insert(workload.clone(), (number, Arc::default()));
        });
        Seat {
            proxies: self.clone(),
            workload,
            number,
        }
    }

    /// Told whenever something may be different.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn in_force(&self) -> Vec<(WorkloadName, Arc<InForce>)> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let all = seats.iter();
        all.map(|(name, (_, in_force))| (name.clone(), in_force.clone()))
            .collect()
    }

    /// The number of the change.
    fn change(&self, change: impl FnOnce(&mut Seats, u64)) -> u64 {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *self.changes.borrow() + 1;
        change(&mut seats, number);
        let connected = i64::try_from(seats.len()).unwrap_or(i64::MAX);
        self.connected.set(connected);
        self.changes.send_replace(number);
        number
    }
}

impl Told {
    fn is_empty(&self) -> bool {
        self.authorization.is_none() && self.revocations.is_none() && self.destinations.is_empty()
    }
}

impl Seat {
    /// The proxy has put `told` in force, but for policies that deny instead.
    pub(crate) fn took(&self, told: Told, denied: Vec<pb::DeniedPolicy>) {
        if told.is_empty() {
            return;
        }
        self.change(|own| {
            if let Some(authorization) = told.authorization {
                own.authorization = Some(authorization);
                own.known_up_to = denied.get(DENIED_MAX - 1).map(|last| last.name.clone());
                let denied = denied.into_iter().take(DENIED_MAX);
                own.denied = denied.map(|one| (one.name, short(&one.reason))).collect();
                own.refused = None;
            }
            if let Some(revocations) = told.revocations {
                own.revocations = Some(revocations);
            }
            for (address, routed) in told.destinations {
                let refused = None;
                let followed = Followed { routed, refused };
                own.destinations.insert(address, followed);
            }
        });
    }

    /// The proxy keeps what it had. It names one thing of several, so all of them count as refused.
    pub(crate) fn refused(&self, told: Told, reason: &str) {
        let reason = short(reason);
        if told.is_empty() {
            return;
        }
        self.change(|own| {
            if told.authorization.is_some() {
                own.refused = Some(reason.clone());
            }
            for (address, _) in told.destinations {
                own.destinations.entry(address).or_default().refused = Some(reason.clone());
            }
        });
    }

    /// The proxy follows these no more.
    pub(crate) fn left(&self, addresses: &[SocketAddr]) {
        self.change(|own| {
            for address in addresses {
                own.destinations.remove(address);
            }
        });
    }

    /// Nothing when another stream of the same pod has the seat.
    fn change(&self, change: impl FnOnce(&mut InForce)) {
        self.proxies.change(|seats, _| {
            let own = seats.get_mut(&self.workload);
            if let Some((_, own)) = own.filter(|(number, _)| *number == self.number) {
                change(Arc::make_mut(own));
            }
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.proxies.change(|seats, _| {
            if seats.get(&self.workload).map(|(number, _)| *number) == Some(self.number) {
                seats.remove(&self.workload);
            }
        });
    }
}

fn short(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
