//! Which proxies have which policies in force: what they have acknowledged, and what that comes to.
//!
//! Each replica knows the proxies that watch it and no others; the leader asks the others what theirs have in force, and
//! sums up. A policy is compared by what it says, never by a version: every replica counts versions of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ringmail_proto::identity::WorkloadName;
use ringmail_proto::pb;
use ringmail_proto::policy::{Authorization, DENIED_MAX};
use tokio::sync::watch;

/// What a replica says of its proxies, and the sum of what all say.
mod tally;

/// What authors of policies are told.
mod conditions;

pub(crate) use conditions::{PolicyState, states};
pub(crate) use tally::{Said, say};

/// Characters of a proxy's reason.
const REASON_CHARS_MAX: usize = 256;

/// The proxies that watch this replica. A lock for as long as a map takes; never held where something is waited for.
#[derive(Debug)]
pub(crate) struct Proxies {
    seats: Mutex<HashMap<WorkloadName, (u64, InForce)>>,
    /// Seats taken so far.
    changes: watch::Sender<u64>,
}

/// What a proxy has said of its policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct InForce {
    /// What it has taken last.
    authorization: Option<Arc<Authorization>>,
    /// Policies of that which it cannot act on, with its reasons.
    denied: BTreeMap<String, String>,
    /// The last one that it named, when there may be more.
    known_up_to: Option<String>,
    /// Why it has not taken what came after that.
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
        }
    }
}

impl Proxies {
    /// A proxy that comes again takes the place of the stream it had.
    pub(crate) fn seat(self: &Arc<Self>, workload: WorkloadName) -> Seat {
        let number = self.change(|seats, number| {
            seats.insert(workload.clone(), (number, InForce::default()));
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

    fn in_force(&self) -> Vec<(WorkloadName, InForce)> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let all = seats.iter();
        all.map(|(name, (_, in_force))| (name.clone(), in_force.clone()))
            .collect()
    }

    /// The number of the change.
    fn change(&self, change: impl FnOnce(&mut HashMap<WorkloadName, (u64, InForce)>, u64)) -> u64 {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *self.changes.borrow() + 1;
        change(&mut seats, number);
        self.changes.send_replace(number);
        number
    }
}

impl Seat {
    /// The proxy has put `told` in force, but for policies that deny instead.
    pub(crate) fn took(&self, told: Arc<Authorization>, denied: Vec<pb::DeniedPolicy>) {
        let known_up_to = denied.get(DENIED_MAX - 1).map(|last| last.name.clone());
        let denied = denied.into_iter().take(DENIED_MAX);
        let in_force = InForce {
            authorization: Some(told),
            denied: denied.map(|one| (one.name, short(&one.reason))).collect(),
            known_up_to,
            refused: None,
        };
        self.change(|own| *own = in_force);
    }

    /// The proxy keeps what it had.
    pub(crate) fn refused(&self, reason: &str) {
        let reason = short(reason);
        self.change(|own| own.refused = Some(reason));
    }

    /// Nothing when another stream of the same pod has the seat.
    fn change(&self, change: impl FnOnce(&mut InForce)) {
        self.proxies.change(|seats, _| {
            let own = seats.get_mut(&self.workload);
            if let Some((_, own)) = own.filter(|(number, _)| *number == self.number) {
                change(own);
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
