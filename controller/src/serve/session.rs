//! What one proxy knows and is to be told. Pure: requests and snapshots in, responses out; no socket, no clock.
//!
//! A session holds what it last told under each name, so what it tells next is always the newest state: a slow proxy
//! skips states, it never gets a queue of them. At most `OUTSTANDING_MAX` responses wait for an answer.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::destination::parse_destination_name;
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::pb;
use ringmail_proto::pb::resource::Resource as Kind;
use ringmail_proto::policy::Authorization;
use ringmail_proto::revocation::Revocations;
use ringmail_proto::version::Version;
use ringmail_proto::workload::Workload;

use crate::applied::Told;
use crate::model::Answer;
use crate::publish::Snapshot;

/// Responses that are not answered yet.
pub(crate) const OUTSTANDING_MAX: usize = 4;
/// Destinations of one stream.
pub(super) const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Bytes after which a response is full; its last resource may be as large as a destination gets, and proxies take that.
const RESPONSE_BYTES: usize = 1024 * 1024;
/// Resources of one response.
const RESPONSE_RESOURCES_MAX: usize = 1000;

/// Why a stream is to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("there is no pod {0}")]
    NoWorkload(WorkloadName),
    #[error("pod {0} has another service account now")]
    OtherIdentity(WorkloadName),
    #[error("subscribe.destinations: {0}")]
    Name(String),
    #[error("subscribe.destinations: a stream has at most 10000")]
    TooMany,
    #[error("nonce: was never sent, or is answered already")]
    Nonce,
}

#[derive(Debug)]
pub(super) struct Session {
    workload: WorkloadName,
    service_account: String,
    told_bundle: Option<Arc<TrustBundle>>,
    told_workload: Option<Arc<Workload>>,
    told_authorization: Option<Arc<Authorization>>,
    told_revocations: Option<Arc<Revocations>>,
    /// What was told under each name; none while the first answer is due.
    told: BTreeMap<SocketAddr, Option<Answer>>,
    /// The state that everything told is up to.
    settled: Option<Version>,
    /// Names that are new since `settled`.
    due: VecDeque<SocketAddr>,
    outstanding: VecDeque<Outstanding>,
    last_nonce: u64,
}

/// A response that is not answered yet.
#[derive(Debug)]
struct Outstanding {
    nonce: String,
    sent: Instant,
    told: Told,
}

impl Session {
    pub(super) fn new(workload: WorkloadName, service_account: String) -> Self {
        Self {
            workload,
            service_account,
            told_bundle: None,
            told_workload: None,
            told_authorization: None,
            told_revocations: None,
            told: BTreeMap::new(),
            settled: None,
            due: VecDeque::new(),
            outstanding: VecDeque::new(),
            last_nonce: 0,
        }
    }

    /// Subscribing again is answered again.
    pub(super) fn subscribe(&mut self, wire: pb::Subscription) -> Result<(), Broken> {
        for name in wire.destinations {
            let address = parse_destination_name(&name).map_err(|e| Broken::Name(e.to_string()))?;
            if self.told.insert(address, None) != Some(None) {
                self.due.push_back(address);
            }
            if self.told.len() > SUBSCRIPTIONS_MAX || self.due.len() > SUBSCRIPTIONS_MAX {
                return Err(Broken::TooMany);
            }
        }
        Ok(())
    }

    /// Returns what is not followed any more.
    pub(super) fn unsubscribe(
        &mut self,
        wire: pb::Subscription,
    ) -> Result<Vec<SocketAddr>, Broken> {
        let mut left = Vec::with_capacity(wire.destinations.len());
        for name in wire.destinations {
            let address = parse_destination_name(&name).map_err(|e| Broken::Name(e.to_string()))?;
            if self.told.remove(&address) == Some(None) {
                self.due.retain(|one| *one != address);
            }
            left.push(address);
        }
        Ok(left)
    }

    /// An ack or a nack. Returns what the response that it answers has told, as far as the proxy still wants to know, and
    /// when that was sent.
    pub(super) fn answered(&mut self, nonce: &str) -> Result<(Told, Instant), Broken> {
        let at = self.outstanding.iter().position(|one| one.nonce == nonce);
        let answered = at.and_then(|at| self.outstanding.remove(at));
        let Outstanding { mut told, sent, .. } = answered.ok_or(Broken::Nonce)?;
        told.destinations
            .retain(|(address, _)| self.told.contains_key(address));
        Ok((told, sent))
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// When the oldest response that is not answered was sent.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.outstanding.front().map(|oldest| oldest.sent)
    }

    /// The next response, when there is something to tell and the proxy keeps up.
    pub(super) fn next(
        &mut self,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<Option<pb::WatchResponse>, Broken> {
        let own = snapshot
            .mesh
            .workload(&self.workload)
            .ok_or_else(|| Broken::NoWorkload(self.workload.clone()))?;
        if own.service_account != self.service_account {
            return Err(Broken::OtherIdentity(self.workload.clone()));
        }
        if self.outstanding.len() >= OUTSTANDING_MAX {
            return Ok(None);
        }
        let mut batch = Batch::default();
        let full = self.told_bundle.is_none() || !self.due.is_empty();
        if self.told_bundle.is_none() {
            self.tell_own(snapshot, &own, &mut batch);
        } else if full {
            self.tell_due(snapshot, &mut batch);
        } else if self.settled != Some(snapshot.version) {
            self.tell_own(snapshot, &own, &mut batch);
            let all = self.tell_changed(snapshot, &mut batch);
            if all {
                self.settled = Some(snapshot.version);
            }
        }
        if batch.resources.is_empty() {
            return Ok(None);
        }
        self.last_nonce += 1;
        let nonce = self.last_nonce.to_string();
        self.outstanding.push_back(Outstanding {
            nonce: nonce.clone(),
            sent: now,
            told: batch.told,
        });
        Ok(Some(pb::WatchResponse {
            nonce,
            version: Some(snapshot.version.into()),
            full,
            resources: batch.resources,
        }))
    }

    fn tell_own(&mut self, snapshot: &Snapshot, own: &Arc<Workload>, batch: &mut Batch) {
        if self.told_bundle.as_ref() != Some(&snapshot.bundle) {
            batch.push(Kind::TrustBundle((&*snapshot.bundle).into()));
            self.told_bundle = Some(snapshot.bundle.clone());
        }
        if self.told_workload.as_ref() != Some(own) {
            batch.push(Kind::Workload((&**own).into()));
            self.told_workload = Some(own.clone());
        }
        let revocations = snapshot.mesh.revocations();
        // None too are told at first: a proxy that comes back may hold some.
        if self.told_revocations.as_ref() != Some(revocations) {
            batch.push(Kind::Revocations((&**revocations).into()));
            batch.told.revocations = Some(revocations.clone());
            self.told_revocations = Some(revocations.clone());
        }
        let authorization = snapshot.mesh.authorization(&self.workload);
        if self.told_authorization != authorization
            && let Some(authorization) = authorization
        {
            batch.push(Kind::Authorization((&*authorization).into()));
            batch.told.authorization = Some(authorization.clone());
            self.told_authorization = Some(authorization);
        }
    }

    fn tell_due(&mut self, snapshot: &Snapshot, batch: &mut Batch) {
        while !batch.is_full()
            && let Some(address) = self.due.pop_front()
        {
            let answer = snapshot.mesh.answer(address, &self.workload.namespace);
            batch.push(Kind::Destination((&answer.destination(address)).into()));
            let routed = answer.routed().cloned();
            batch.told.destinations.push((address, routed));
            self.told.insert(address, Some(answer));
        }
    }

    /// False when there is more than fits.
    fn tell_changed(&mut self, snapshot: &Snapshot, batch: &mut Batch) -> bool {
        for (address, told) in &mut self.told {
            let answer = snapshot.mesh.answer(*address, &self.workload.namespace);
            if told.as_ref() == Some(&answer) {
                continue;
            }
            if batch.is_full() {
                return false;
            }
            batch.push(Kind::Destination((&answer.destination(*address)).into()));
            let routed = answer.routed();
            if routed.is_some() || told.as_ref().and_then(Answer::routed).is_some() {
                batch.told.destinations.push((*address, routed.cloned()));
            }
            *told = Some(answer);
        }
        true
    }
}

/// The resources of one response, and their size.
#[derive(Debug, Default)]
struct Batch {
    resources: Vec<pb::Resource>,
    bytes: usize,
    told: Told,
}

impl Batch {
    fn push(&mut self, kind: Kind) {
        let resource = pb::Resource {
            resource: Some(kind),
        };
        self.bytes += resource.encoded_len();
        self.resources.push(resource);
    }

    fn is_full(&self) -> bool {
        self.bytes >= RESPONSE_BYTES || self.resources.len() >= RESPONSE_RESOURCES_MAX
    }
}

#[cfg(test)]
mod tests;
