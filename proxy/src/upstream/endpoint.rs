//! One pod's port as this worker knows it: the connections to it, how much it has to do, whether it is asked at all.
//! It outlives changes of the services it belongs to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::balance::Standing;
use super::health::{Cause, Change, Health};
use super::load::Load;
use super::peers::Peer;
use crate::error::{Blame, Reason};
use crate::limits::exhausted::Spell;
use crate::metrics::Metrics;

/// Status of what went wrong behind the server: its health is doubted.
const GATEWAY_CLASS: std::ops::RangeInclusive<u16> = 502..=504;
/// gRPC: there is no more of something, such as of a rate limit.
const GRPC_RESOURCE_EXHAUSTED: u16 = 8;
/// gRPC: the service is not there.
const GRPC_UNAVAILABLE: u16 = 14;

/// One pod's port.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) peer: Rc<Peer>,
    pub(crate) port: u16,
    load: Load,
    health: Health,
    exhausted_until: Cell<Option<Instant>>,
    exhausted: RefCell<Option<Spell>>,
    /// No service had it when it was last looked at.
    pub(super) is_deserted: Cell<bool>,
}

/// What an answer's head tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of a gRPC response that is nothing but a head.
    pub(crate) grpc_status: Option<u16>,
}

/// How an answer is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Good,
    /// It cost little because nothing was done.
    Denied,
    /// And the endpoint may not be well.
    Failed,
}

impl Answer {
    /// Somebody asks too often.
    pub(super) fn is_limited(self) -> bool {
        self.status == 429 || self.grpc_status == Some(GRPC_RESOURCE_EXHAUSTED)
    }

    fn class(self) -> Class {
        match (self.status, self.grpc_status) {
            (status, _) if GATEWAY_CLASS.contains(&status) => Class::Failed,
            (_, Some(GRPC_UNAVAILABLE)) => Class::Failed,
            (500.., _) => Class::Denied,
            _ if self.is_limited() => Class::Denied,
            (_, None | Some(_)) => Class::Good,
        }
    }
}

impl Endpoint {
    pub(super) fn new(peer: Rc<Peer>, port: u16) -> Self {
        Self {
            peer,
            port,
            load: Load::default(),
            health: Health::default(),
            exhausted_until: Cell::new(None),
            exhausted: RefCell::new(None),
            is_deserted: Cell::new(false),
        }
    }

    /// Its proxy has said that it refuses whatever we ask.
    pub(super) fn exhaust(&self, spell: Spell) {
        self.exhausted_until.set(Some(spell.shed_until));
        self.exhausted.replace(Some(spell));
    }

    fn exhausted_until(&self, now: Instant) -> Option<Instant> {
        self.exhausted_until.get().filter(|until| now < *until)
    }

    /// Why nothing is asked there at `now`.
    pub(super) fn exhausted(&self, now: Instant) -> Option<Spell> {
        self.exhausted_until(now)?;
        self.exhausted.borrow().clone()
    }

    pub(super) fn standing(&self, crowding: f64, chance: f64, now: Instant) -> Standing {
        match self.health.ejected_until() {
            None if self.peer.is_leaving(now) => Standing::Out(now),
            None => match self.exhausted_until(now) {
                None => Standing::Open(self.load.cost(crowding, chance, now)),
                Some(until) => Standing::Out(until),
            },
            Some(until) if until <= now => Standing::Due,
            Some(until) => Standing::Out(until),
        }
    }
}

/// A request or a connection on its way to an endpoint. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Try {
    endpoint: Rc<Endpoint>,
    begun: Instant,
    is_probe: bool,
    /// How it went is known.
    is_judged: Cell<bool>,
}

impl Try {
    pub(super) fn begin(endpoint: Rc<Endpoint>, is_probe: bool, now: Instant) -> Self {
        endpoint.load.begin();
        if is_probe {
            endpoint.health.probed(now, rand::random_range(0.0..1.0));
        }
        Self {
            endpoint,
            begun: now,
            is_probe,
            is_judged: Cell::new(false),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    fn took(&self, now: Instant) -> Duration {
        self.is_judged.set(true);
        now.saturating_duration_since(self.begun)
    }

    /// It was answered.
    pub(super) fn answered(&self, answer: Answer, metrics: &Metrics, now: Instant) {
        let took = self.took(now);
        match answer.class() {
            Class::Good => {
                self.endpoint.load.answered(took, now);
                self.well(metrics);
            }
            Class::Denied => {
                self.endpoint.load.failed(took, now);
                self.well(metrics);
            }
            Class::Failed => {
                self.endpoint.load.failed(took, now);
                self.unwell(Cause::Status, metrics, now);
            }
        }
    }

    /// It was not answered, or there is no connection.
    pub(super) fn failed(&self, cause: Cause, reason: Reason, metrics: &Metrics, now: Instant) {
        let row = reason.row();
        let is_endpoints_fault = match row.blame {
            Blame::Peer | Blame::App => true,
            // Said by the peer of itself.
            Blame::Us => reason != Reason::Internal,
            Blame::Client | Blame::Controller => false,
        };
        // The client's patience is its own; that this one was slow shows when the try ends. So is its silence.
        let is_ours = matches!(reason, Reason::RequestTimeout | Reason::IdleTimeout);
        if is_endpoints_fault && !is_ours {
            let took = self.took(now);
            self.endpoint.load.failed(took, now);
            self.unwell(cause, metrics, now);
        }
    }

    /// An opaque connection was opened; what becomes of it is between its ends.
    pub(super) fn opened(&self, metrics: &Metrics) {
        self.is_judged.set(true);
        self.tell(self.endpoint.health.connected(), metrics);
    }

    /// An opaque connection ended as its ends wanted it to.
    pub(super) fn closed(&self, metrics: &Metrics) {
        self.well(metrics);
    }

    fn well(&self, metrics: &Metrics) {
        self.tell(self.endpoint.health.succeeded(), metrics);
    }

    fn tell(&self, changed: Change, metrics: &Metrics) {
        if changed == Change::TakenBack {
            metrics.endpoint_taken_back(self.endpoint.peer.identity());
        }
    }

    fn unwell(&self, cause: Cause, metrics: &Metrics, now: Instant) {
        let chance = rand::random_range(0.0..1.0);
        let changed = self
            .endpoint
            .health
            .failed(cause, self.is_probe, now, chance);
        if changed == Change::Ejected {
            let peer = self.endpoint.peer.identity();
            tracing::info!(%peer, address = %self.endpoint.peer.address(), cause = cause.label(), "endpoint ejected");
            metrics.endpoint_ejected(peer, cause.label());
        }
    }
}

impl Drop for Try {
    /// Somebody did not wait for the answer: it would have taken longer than this.
    fn drop(&mut self) {
        self.endpoint.load.end();
        if !self.is_judged.get() {
            let now = Instant::now();
            self.endpoint.load.waited(self.took(now), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_refusals_are_no_good_answers() {
        let rows = [
            (200, None, Class::Good),
            (404, None, Class::Good),
            (200, Some(0), Class::Good),
            (200, Some(5), Class::Good),
            (429, None, Class::Denied),
            (500, None, Class::Denied),
            (200, Some(GRPC_RESOURCE_EXHAUSTED), Class::Denied),
            (502, None, Class::Failed),
            (503, None, Class::Failed),
            (504, Some(0), Class::Failed),
            (200, Some(GRPC_UNAVAILABLE), Class::Failed),
        ];
        for (status, grpc_status, class) in rows {
            let answer = Answer {
                status,
                grpc_status,
            };
            assert_eq!(answer.class(), class, "{answer:?}");
        }
    }
}
