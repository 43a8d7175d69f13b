//! What this proxy counts: the [`catalogue`] lists it, and so does the README.
//!
//! Handles are resolved when a peer is learnt ([`Metrics::traffic`]), never per request: counting one request is a
//! few uncontended atomic additions.

/// Every metric.
#[allow(unreachable_pub, reason = "the crate shows it to those who query it")]
pub mod catalogue;

/// What is counted of requests and connections, and by which labels.
pub(crate) mod traffic;

/// What is counted of all that is seldom.
mod events;

/// What is counted of records.
mod records;

/// From the catalogue to metrics.
mod register;

/// Series by their labels.
mod family;

/// Counters and histograms, sharded by worker.
pub(crate) mod sharded;

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::limit::{Limit, Scope};
use ringmail_proto::policy::{Mode, Verdict};
use ringmail_proto::process::Process;

use events::Events;
use family::{Family, Room, SERIES_MAX, Sweep, Value, name};
use register::Register;
use sharded::{Counter, Histogram, Shards};
use traffic::{Codes, Ends, Grpc, Http};

pub(crate) use records::Counts;
pub(crate) use sharded::enter_shard;
pub(crate) use traffic::{Answer, Between, Direction, Outcome, Protocol, Tls, Traffic};

/// The peer label of a connection without an identity.
pub(crate) const NO_IDENTITY: &str = "none";
/// Between two looks for series that nobody needs.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Every metric of the proxy.
pub(crate) struct Metrics {
    registry: Registry,
    families: Vec<Box<dyn Sweep>>,
    room: Arc<Room>,
    series: Gauge,
    requests_started: Family<Counter, 4>,
    requests: Family<Counter, 7>,
    latency: Family<Histogram, 6>,
    /// By direction.
    codes: [Arc<Codes>; 2],
    grpc: Family<Counter, 4>,
    connections_started: Family<Counter, 4>,
    connections: Family<Counter, 5>,
    connections_open: Family<Gauge, 1>,
    bytes: Family<Counter, 5>,
    authorizations: Family<Counter, 3>,
    rate_limits: Family<Counter, 4>,
    events: Events,
    counts: Counts,
    identity: Family<Gauge, 1>,
    /// Seconds since the Unix epoch at which our certificate begins and ends.
    pub(crate) certificate_issued: Gauge,
    pub(crate) certificate_expiry: Gauge,
    /// 1 while a control stream is up.
    pub(crate) control_connected: Gauge,
    pub(crate) ledger_up: Gauge,
    /// 1 while limits that are in use do as their `onUnavailable` says.
    pub(crate) rate_limit_fallback: Gauge,
    /// How long requests waited for tokens, those that did.
    pub(crate) rate_limit_waits: Histogram,
    /// From a request to the ledger to its answer.
    pub(crate) rate_limit_lag: Histogram,
    /// Seconds since the Unix epoch at which the controller last confirmed what is in force.
    pub(crate) control_heard: Gauge,
    /// 1 while the redirect rules are in force.
    pub(crate) capture_in_force: Gauge,
}

impl Metrics {
    /// For so many workers, and the control thread, of this workload's proxy.
    pub(crate) fn new(workers: usize, of: &WorkloadName) -> Self {
        Self::with_series(SERIES_MAX, workers, of)
    }

    fn with_series(max: usize, workers: usize, of: &WorkloadName) -> Self {
        let mut register = Register::new(of, Shards(workers + 1), max);
        let room = register.room.clone();
        register
            .gauge(&catalogue::SERIES_MAX)
            .set(max.try_into().unwrap_or(i64::MAX));
        register.add(&catalogue::OVERFLOW, room.overflows());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        register
            .registry
            .register(catalogue::BUILD.stem().0, catalogue::BUILD.help, build);
        register.registry.register_collector(Box::new(Process));
        let codes = register.family(&catalogue::RESPONSES);
        Self {
            codes: [Direction::Outbound, Direction::Inbound]
                .map(|direction| Codes::new(codes.clone(), direction)),
            series: register.gauge(&catalogue::SERIES),
            requests_started: register.family(&catalogue::REQUESTS_STARTED),
            requests: register.family(&catalogue::REQUESTS),
            latency: register.family(&catalogue::REQUEST_DURATION),
            grpc: register.family(&catalogue::GRPC_RESPONSES),
            connections_started: register.family(&catalogue::CONNECTIONS_STARTED),
            connections: register.family(&catalogue::CONNECTIONS),
            connections_open: register.family(&catalogue::CONNECTIONS_OPEN),
            bytes: register.family(&catalogue::TRANSFERRED),
            authorizations: register.family(&catalogue::AUTHORIZATIONS),
            rate_limits: register.family(&catalogue::RATE_LIMIT_DECISIONS),
            events: Events::register(&mut register),
            counts: Counts::register(&mut register),
            identity: register.family(&catalogue::IDENTITY),
            certificate_issued: register.gauge(&catalogue::CERTIFICATE_ISSUED),
            certificate_expiry: register.gauge(&catalogue::CERTIFICATE_EXPIRY),
            control_connected: register.gauge(&catalogue::CONTROL_CONNECTED),
            ledger_up: register.gauge(&catalogue::RATE_LIMIT_LEDGER_UP),
            rate_limit_fallback: register.gauge(&catalogue::RATE_LIMIT_FALLBACK),
            rate_limit_waits: register.histogram(&catalogue::RATE_LIMIT_WAITS),
            rate_limit_lag: register.histogram(&catalogue::RATE_LIMIT_LEDGER_DURATION),
            control_heard: register.gauge(&catalogue::CONTROL_HEARD),
            capture_in_force: register.gauge(&catalogue::CAPTURE_IN_FORCE),
            registry: register.registry,
            families: register.families,
            room,
        }
    }

    /// All of it as OpenMetrics text.
    pub(crate) fn render(&self) -> Result<String, std::fmt::Error> {
        self.series
            .set(self.room.used().try_into().unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Drops series of peers that are gone.
    pub(crate) fn sweep(&self, now: Instant) {
        for family in &self.families {
            family.sweep(now);
        }
    }

    /// The handles for what passes between our app and a peer.
    pub(crate) fn traffic(&self, between: &Between<'_>) -> Traffic {
        let Between { direction, .. } = between;
        let word = |word: &'static str| Value::from(word);
        let (tls, protocol) = (word(between.tls.label()), word(between.protocol.label()));
        let (peer, side) = (peer_label(between.peer), word(direction.label()));
        let [service, route] = [between.service, between.route].map(|text| match text {
            "" => word("none"),
            text => name(text),
        });
        let bytes = |flow| {
            let labels = [&side, &peer, &service, &protocol, &word(flow)];
            self.bytes.get(labels.map(Clone::clone))
        };
        let http = || {
            let ended = |outcome: Outcome| {
                let outcome = word(outcome.label());
                let labels = [&side, &peer, &service, &route, &protocol, &tls, &outcome];
                self.requests.get(labels.map(Clone::clone))
            };
            let started = [&side, &service, &route, &protocol].map(Clone::clone);
            let latency = [&side, &peer, &service, &route, &protocol, &tls].map(Clone::clone);
            Http {
                requests: Ends {
                    started: self.requests_started.get(started),
                    ended: Outcome::ALL.map(ended),
                },
                latency: self.latency.get(latency),
                codes: self.codes[*direction as usize].clone(),
                grpc: Grpc::new(&self.grpc, [&side, &peer, &service].map(Clone::clone)),
            }
        };
        let connections = || {
            let started = [&side, &peer, &service, &tls].map(Clone::clone);
            let ended = |outcome: Outcome| {
                let labels = [&side, &peer, &service, &tls, &word(outcome.label())];
                self.connections.get(labels.map(Clone::clone))
            };
            Ends {
                started: self.connections_started.get(started),
                ended: Outcome::ALL.map(ended),
            }
        };
        let is_http = between.protocol != Protocol::Tcp;
        Traffic {
            http: is_http.then(http),
            connections: (!is_http).then(connections),
            sent: bytes("sent"),
            received: bytes("received"),
        }
    }

    /// The handle for what a policy decides, or would.
    pub(crate) fn authorizations(
        &self,
        policy: Option<&str>,
        verdict: Verdict,
        is_shadow: bool,
    ) -> Counter {
        let verdict = match verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        let shadow = if is_shadow { "true" } else { "false" };
        let policy = policy.map_or("none".into(), name);
        self.authorizations
            .get([policy, verdict.into(), shadow.into()])
    }

    /// The handle for what a rate limit decides, or would.
    pub(crate) fn rate_limits(&self, limit: &Limit, outcome: &'static str) -> Counter {
        let is_local = matches!(&limit.terms, Ok(terms) if terms.scope == Scope::Local);
        let scope = if is_local { "local" } else { "global" };
        let shadow = match limit.mode {
            Mode::Enforce => "false",
            Mode::Shadow => "true",
        };
        let labels = [
            name(&limit.name),
            scope.into(),
            outcome.into(),
            shadow.into(),
        ];
        self.rate_limits.get(labels)
    }

    /// The handles for what is recorded.
    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Our certificate proves this.
    pub(crate) fn identified(&self, identity: &str) {
        self.identity.get([name(identity)]).set(1);
    }

    /// The gauge of the app's connections in one direction.
    pub(crate) fn connections_open(&self, direction: Direction) -> Gauge {
        self.connections_open.get([direction.label().into()])
    }
}

/// That there is none is no name.
fn peer_label(peer: &str) -> Value {
    match peer {
        NO_IDENTITY => NO_IDENTITY.into(),
        peer => name(peer),
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
