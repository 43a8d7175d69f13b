//! What happens seldom enough to look up its series each time.

use std::net::IpAddr;
use std::time::Duration;

use super::family::{Family, name};
use super::register::Register;
use super::sharded::{Counter, Histogram};
use super::traffic::{Direction, Protocol};
use super::{Metrics, catalogue, peer_label};
use crate::error::Reason;

/// Addresses of clients that are told apart.
const CLIENTS_MAX: usize = 64;

/// Counters of what happens seldom.
pub(super) struct Events {
    plaintext: Family<Counter, 1>,
    refusals: Family<Counter, 2>,
    denials: Family<Counter, 3>,
    checks: Family<Histogram, 2>,
    handshakes: Family<Counter, 3>,
    handshake_duration: Family<Histogram, 1>,
    detections: Family<Counter, 2>,
    mirrored: Family<Counter, 1>,
    ejections: Family<Counter, 2>,
    recoveries: Family<Counter, 1>,
    retries: Family<Counter, 2>,
    renewals: Family<Counter, 1>,
    updates: Family<Counter, 1>,
    egress_audited: Counter,
}

impl Events {
    pub(super) fn register(register: &mut Register) -> Self {
        Self {
            plaintext: register.few(&catalogue::PLAINTEXT, CLIENTS_MAX),
            denials: register.family(&catalogue::DENIALS),
            checks: register.family(&catalogue::CHECKS),
            refusals: register.family(&catalogue::REFUSALS),
            handshakes: register.family(&catalogue::HANDSHAKES),
            handshake_duration: register.family(&catalogue::HANDSHAKE_DURATION),
            detections: register.family(&catalogue::DETECTIONS),
            mirrored: register.family(&catalogue::MIRRORED),
            ejections: register.family(&catalogue::ENDPOINT_EJECTIONS),
            recoveries: register.family(&catalogue::ENDPOINT_RECOVERIES),
            retries: register.family(&catalogue::RETRIES),
            renewals: register.family(&catalogue::CERTIFICATE_RENEWALS),
            updates: register.family(&catalogue::CONTROL_UPDATES),
            egress_audited: register.counter(&catalogue::EGRESS_AUDITED),
        }
    }
}

impl Metrics {
    /// Somebody came in plaintext, and no probe.
    pub(crate) fn came_in_plaintext(&self, client: IpAddr) {
        let client = client.to_canonical().to_string();
        self.events.plaintext.get([client.into()]).add(1);
    }

    /// Something was refused or broke.
    pub(crate) fn refused(&self, direction: Direction, reason: Reason) {
        let labels = [direction.label().into(), reason.row().label.into()];
        self.events.refusals.get(labels).add(1);
    }

    /// A peer was refused by a policy or a limit of that name, or by none that has one.
    pub(crate) fn denied(&self, peer: &str, policy: Option<&str>, reason: Reason) {
        let policy = policy.map_or("none".into(), name);
        let labels = [peer_label(peer), policy, reason.row().label.into()];
        self.events.denials.get(labels).add(1);
    }

    /// Somebody else was asked for a policy.
    pub(crate) fn checked(&self, policy: &str, result: &'static str, took: Duration) {
        let labels = [name(policy), result.into()];
        self.events.checks.get(labels).observe(took);
    }

    /// A handshake succeeded with `group`, or failed for a reason.
    pub(crate) fn handshake(
        &self,
        direction: Direction,
        outcome: Result<(&'static str, Duration), Reason>,
    ) {
        let direction = direction.label();
        let (result, group) = match outcome {
            Ok((group, took)) => {
                let duration = self.events.handshake_duration.get([direction.into()]);
                duration.observe(took);
                ("ok", group)
            }
            Err(reason) => (reason.row().label, "none"),
        };
        let labels = [direction.into(), result.into(), group.into()];
        self.events.handshakes.get(labels).add(1);
    }

    /// What an outbound connection speaks, and whether that was declared.
    pub(crate) fn detected(&self, protocol: Protocol, by: &'static str) {
        let labels = [protocol.label().into(), by.into()];
        self.events.detections.get(labels).add(1);
    }

    /// A copy of a request was due.
    pub(crate) fn mirrored(&self, result: &'static str) {
        self.events.mirrored.get([result.into()]).add(1);
    }

    /// A worker asks an endpoint no more.
    pub(crate) fn endpoint_ejected(&self, peer: &str, cause: &'static str) {
        let labels = [peer_label(peer), cause.into()];
        self.events.ejections.get(labels).add(1);
    }

    /// A worker asks an endpoint again.
    pub(crate) fn endpoint_taken_back(&self, peer: &str) {
        self.events.recoveries.get([peer_label(peer)]).add(1);
    }

    /// A request was sent again, or the budget did not allow it.
    pub(crate) fn retried(&self, cause: &'static str, result: &'static str) {
        self.events
            .retries
            .get([cause.into(), result.into()])
            .add(1);
    }

    /// A connection left the mesh, where that is audited.
    pub(crate) fn egress_audited(&self) {
        self.events.egress_audited.add(1);
    }

    /// A certificate was asked for.
    pub(crate) fn renewed(&self, result: &'static str) {
        self.events.renewals.get([result.into()]).add(1);
    }

    /// Configuration came.
    pub(crate) fn updated(&self, result: &'static str) {
        self.events.updates.get([result.into()]).add(1);
    }
}
