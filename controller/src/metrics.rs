//! Every metric: handles of what the catalogue lists.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use ringmail_proto::catalogue::Metric as Row;
use ringmail_proto::process::Process;

/// Their names, kinds and labels.
pub mod catalogue;

/// Their labels.
mod labels;

pub use labels::{
    CallLabels, Cause, Certified, CertifyLabels, Credential, ExchangeLabels, ExchangeOutcome,
    HandshakeLabels, HandshakeOutcome, LimitLabels, ResponseLabels, Reviewed, StreamEnd,
    StreamLabels, WatchLabels, Webhook, WebhookLabels, WriteLabels, WriteOutcome, Written,
};

/// Upper bounds of the buckets of an exchange's seconds: a call of a server nearby, to more than it may take.
const EXCHANGE_SECONDS: [f64; 9] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5,
];
/// Of what proxies and the API server wait for, or we for them: from what is next door to what is cut.
const ANSWER_SECONDS: [f64; 10] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0];

/// Handles of every metric.
#[derive(Debug)]
pub struct Metrics {
    /// `source_objects`: objects in force.
    pub source_objects: Gauge,
    /// `source_files_refused`: files whose content is not in force.
    pub source_files_refused: Gauge,
    /// `snapshot_sequence`: the current state's place in its epoch.
    pub snapshot_sequence: Gauge<u64, AtomicU64>,
    /// `snapshot_problems`: contradictions in the objects.
    pub snapshot_problems: Gauge,
    /// `workloads`: live pods.
    pub workloads: Gauge,
    /// `workloads_meshed`: live pods with a sidecar.
    pub workloads_meshed: Gauge,
    /// `issuer_expiry_timestamp_seconds`: end of the issuer certificate.
    pub issuer_expiry: Gauge<u64, AtomicU64>,
    /// `certificate_issued_timestamp_seconds`: when that was made.
    pub own_issued: Gauge<u64, AtomicU64>,
    /// `certificate_expiry_timestamp_seconds`: end of the controller's own certificate.
    pub own_expiry: Gauge<u64, AtomicU64>,
    /// `certify_requests_total`.
    pub certify: Family<CertifyLabels, Counter>,
    /// `handshakes_total`.
    pub handshakes: Family<HandshakeLabels, Counter>,
    /// `connections`: open now.
    pub connections: Gauge,
    /// `proxies_connected`: as `applied::Proxies` counts them.
    pub proxies_connected: Gauge,
    /// `proxies_behind`: of those, slow to answer.
    pub proxies_behind: Gauge,
    /// `watch_streams`: open now.
    pub streams: Gauge,
    /// `watch_stream_ends_total`.
    pub stream_ends: Family<StreamLabels, Counter>,
    /// `watch_responses_total`.
    pub responses: Family<ResponseLabels, Counter>,
    /// `watch_acks_total`.
    pub acks: Counter,
    /// `watch_nacks_total`.
    pub nacks: Counter,
    /// `watch_ack_duration_seconds`.
    pub ack_duration: Histogram,
    /// `ledger_sessions`: proxies that lease tokens of rate limits.
    pub ledger_sessions: Gauge,
    /// `ledger_tokens_leased_total`.
    pub ledger_leased: Counter,
    /// `ledger_tokens_returned_total`: of those, given back unspent.
    pub ledger_returned: Counter,
    /// `ledger_share_used`: of each limit, by its busiest key.
    pub ledger_share_used: Family<LimitLabels, Gauge<f64, AtomicU64>>,
    /// `ledger_home_up`: whether the ledger is kept here.
    pub ledger_home_up: Gauge,
    /// `ledger_exchanges_total`: with the ledger's home, where that is a server.
    pub ledger_exchanges: Family<ExchangeLabels, Counter>,
    /// `ledger_exchange_seconds`.
    pub ledger_exchange_seconds: Histogram,
    /// `watch_responses_outstanding`: sent and not yet answered.
    pub outstanding: Gauge,
    /// `source_objects_refused`: objects of a cluster whose value is not in force.
    pub source_objects_refused: Gauge,
    /// `watch_failures_total`: watches of the cluster that broke.
    pub watch_failures: Family<WatchLabels, Counter>,
    /// `leader`: whether this replica writes.
    pub leader: Gauge,
    /// `pods_uncovered`: running pods that should have a sidecar and have none, as the leader counts.
    pub pods_uncovered: Gauge,
    /// `writes_total`.
    pub writes: Family<WriteLabels, Counter>,
    /// `webhook_requests_total`.
    pub webhooks: Family<WebhookLabels, Counter>,
    /// `webhook_duration_seconds`.
    pub webhook_duration: Family<CallLabels, Histogram, fn() -> Histogram>,
    /// `issuer_refused`: whether the issuer's Secret holds one that is not taken.
    pub issuer_refused: Gauge,
    /// `jwks_refreshes_total`.
    pub jwks_refreshes: Counter,
    /// `jwks_failures_total`.
    pub jwks_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            source_objects: Default::default(),
            source_files_refused: Default::default(),
            snapshot_sequence: Default::default(),
            snapshot_problems: Default::default(),
            workloads: Default::default(),
            workloads_meshed: Default::default(),
            issuer_expiry: Default::default(),
            own_issued: Default::default(),
            own_expiry: Default::default(),
            certify: Default::default(),
            handshakes: Default::default(),
            connections: Default::default(),
            proxies_connected: Default::default(),
            proxies_behind: Default::default(),
            streams: Default::default(),
            stream_ends: Default::default(),
            responses: Default::default(),
            acks: Default::default(),
            nacks: Default::default(),
            ack_duration: Histogram::new(ANSWER_SECONDS),
            ledger_sessions: Default::default(),
            ledger_leased: Default::default(),
            ledger_returned: Default::default(),
            ledger_share_used: Default::default(),
            ledger_home_up: Default::default(),
            ledger_exchanges: Default::default(),
            ledger_exchange_seconds: Histogram::new(EXCHANGE_SECONDS),
            outstanding: Default::default(),
            source_objects_refused: Default::default(),
            watch_failures: Default::default(),
            leader: Default::default(),
            pods_uncovered: Default::default(),
            writes: Default::default(),
            webhooks: Default::default(),
            webhook_duration: Family::new_with_constructor(|| Histogram::new(ANSWER_SECONDS)),
            issuer_refused: Default::default(),
            jwks_refreshes: Default::default(),
            jwks_failures: Default::default(),
        }
    }
}

impl Metrics {
    /// The registry in which all of them are, and what the process uses.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut all = Registry::default();
        let r = &mut all;
        enter(r, catalogue::SOURCE_OBJECTS, self.source_objects.clone());
        enter(
            r,
            catalogue::SOURCE_FILES_REFUSED,
            self.source_files_refused.clone(),
        );
        enter(
            r,
            catalogue::SOURCE_OBJECTS_REFUSED,
            self.source_objects_refused.clone(),
        );
        enter(
            r,
            catalogue::SNAPSHOT_SEQUENCE,
            self.snapshot_sequence.clone(),
        );
        enter(
            r,
            catalogue::SNAPSHOT_PROBLEMS,
            self.snapshot_problems.clone(),
        );
        enter(r, catalogue::WORKLOADS, self.workloads.clone());
        enter(
            r,
            catalogue::WORKLOADS_MESHED,
            self.workloads_meshed.clone(),
        );
        enter(r, catalogue::PODS_UNCOVERED, self.pods_uncovered.clone());
        enter(r, catalogue::ISSUER_EXPIRY, self.issuer_expiry.clone());
        enter(r, catalogue::ISSUER_REFUSED, self.issuer_refused.clone());
        enter(r, catalogue::CERTIFICATE_ISSUED, self.own_issued.clone());
        enter(r, catalogue::CERTIFICATE_EXPIRY, self.own_expiry.clone());
        self.enter_proxies(r);
        self.enter_cluster(r);
        self.enter_ledger(r);
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        enter(r, catalogue::BUILD, Info::new(version));
        all.register_collector(Box::new(Process));
        all
    }

    fn enter_proxies(&self, r: &mut Registry) {
        enter(r, catalogue::CERTIFY_REQUESTS, self.certify.clone());
        enter(r, catalogue::HANDSHAKES, self.handshakes.clone());
        enter(r, catalogue::CONNECTIONS, self.connections.clone());
        enter(
            r,
            catalogue::PROXIES_CONNECTED,
            self.proxies_connected.clone(),
        );
        enter(r, catalogue::PROXIES_BEHIND, self.proxies_behind.clone());
        enter(r, catalogue::WATCH_STREAMS, self.streams.clone());
        enter(r, catalogue::WATCH_STREAM_ENDS, self.stream_ends.clone());
        enter(r, catalogue::WATCH_RESPONSES, self.responses.clone());
        enter(r, catalogue::WATCH_ACKS, self.acks.clone());
        enter(r, catalogue::WATCH_NACKS, self.nacks.clone());
        enter(
            r,
            catalogue::WATCH_RESPONSES_OUTSTANDING,
            self.outstanding.clone(),
        );
        enter(r, catalogue::WATCH_ACK_DURATION, self.ack_duration.clone());
    }

    fn enter_cluster(&self, r: &mut Registry) {
        enter(r, catalogue::LEADER, self.leader.clone());
        enter(r, catalogue::WATCH_FAILURES, self.watch_failures.clone());
        enter(r, catalogue::WRITES, self.writes.clone());
        enter(r, catalogue::WEBHOOK_REQUESTS, self.webhooks.clone());
        enter(
            r,
            catalogue::WEBHOOK_DURATION,
            self.webhook_duration.clone(),
        );
        enter(r, catalogue::JWKS_REFRESHES, self.jwks_refreshes.clone());
        enter(r, catalogue::JWKS_FAILURES, self.jwks_failures.clone());
    }

    fn enter_ledger(&self, r: &mut Registry) {
        enter(r, catalogue::LEDGER_SESSIONS, self.ledger_sessions.clone());
        enter(
            r,
            catalogue::LEDGER_TOKENS_LEASED,
            self.ledger_leased.clone(),
        );
        enter(
            r,
            catalogue::LEDGER_TOKENS_RETURNED,
            self.ledger_returned.clone(),
        );
        enter(
            r,
            catalogue::LEDGER_SHARE_USED,
            self.ledger_share_used.clone(),
        );
        enter(r, catalogue::LEDGER_HOME_UP, self.ledger_home_up.clone());
        enter(
            r,
            catalogue::LEDGER_EXCHANGES,
            self.ledger_exchanges.clone(),
        );
        enter(
            r,
            catalogue::LEDGER_EXCHANGE_DURATION,
            self.ledger_exchange_seconds.clone(),
        );
    }
}

/// As the row has it; the library adds the end of the name again.
fn enter(all: &mut Registry, row: &Row, metric: impl Metric) {
    let (stem, unit) = row.stem();
    match unit {
        Some(unit) => all.register_with_unit(stem, row.help, Unit::Other(unit.to_owned()), metric),
        None => all.register(stem, row.help, metric),
    }
}

#[cfg(test)]
mod tests;
