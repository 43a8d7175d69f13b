//! Every metric, by name: the catalogue. All names begin with `ringmail_controller_`; counters end in `_total`.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Their labels.
mod labels;

pub use labels::{
    Certified, CertifyLabels, Credential, ExchangeLabels, ExchangeOutcome, HandshakeLabels,
    HandshakeOutcome, LimitLabels, Reviewed, StreamEnd, StreamLabels, WatchLabels, Webhook,
    WebhookLabels, WriteLabels, WriteOutcome, Written,
};

/// Upper bounds of the buckets of an exchange's seconds: a call of a server nearby, to more than it may take.
const EXCHANGE_SECONDS: [f64; 9] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5,
];

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
    /// `certificate_expiry_timestamp_seconds`: end of the controller's own certificate.
    pub own_expiry: Gauge<u64, AtomicU64>,
    /// `certify_requests_total`.
    pub certify: Family<CertifyLabels, Counter>,
    /// `handshakes_total`.
    pub handshakes: Family<HandshakeLabels, Counter>,
    /// `connections`: open now.
    pub connections: Gauge,
    /// `watch_streams`: open now.
    pub streams: Gauge,
    /// `watch_stream_ends_total`.
    pub stream_ends: Family<StreamLabels, Counter>,
    /// `watch_responses_total`.
    pub responses: Counter,
    /// `watch_acks_total`.
    pub acks: Counter,
    /// `watch_nacks_total`.
    pub nacks: Counter,
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
            own_expiry: Default::default(),
            certify: Default::default(),
            handshakes: Default::default(),
            connections: Default::default(),
            streams: Default::default(),
            stream_ends: Default::default(),
            responses: Default::default(),
            acks: Default::default(),
            nacks: Default::default(),
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
            issuer_refused: Default::default(),
            jwks_refreshes: Default::default(),
            jwks_failures: Default::default(),
        }
    }
}

impl Metrics {
    /// The registry in which all of them are.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut all = Registry::with_prefix("ringmail_controller");
        let r = &mut all;
        r.register(
            "source_objects",
            "Objects in force",
            self.source_objects.clone(),
        );
        r.register(
            "source_files_refused",
            "Source files whose content is not in force",
            self.source_files_refused.clone(),
        );
        r.register(
            "snapshot_sequence",
            "Place of the current state in its epoch",
            self.snapshot_sequence.clone(),
        );
        r.register(
            "snapshot_problems",
            "Contradictions in the objects in force",
            self.snapshot_problems.clone(),
        );
        r.register("workloads", "Live pods", self.workloads.clone());
        r.register(
            "workloads_meshed",
            "Live pods with a sidecar",
            self.workloads_meshed.clone(),
        );
        r.register(
            "issuer_expiry_timestamp_seconds",
            "End of the issuer certificate's validity",
            self.issuer_expiry.clone(),
        );
        r.register(
            "certificate_expiry_timestamp_seconds",
            "End of the controller's own certificate's validity",
            self.own_expiry.clone(),
        );
        self.register_calls(r);
        self.register_cluster(r);
        all
    }

    fn register_cluster(&self, r: &mut Registry) {
        r.register(
            "source_objects_refused",
            "Objects of the cluster whose value is not in force",
            self.source_objects_refused.clone(),
        );
        r.register(
            "watch_failures",
            "Watches of the cluster that broke",
            self.watch_failures.clone(),
        );
        r.register(
            "leader",
            "Whether this replica writes into the cluster",
            self.leader.clone(),
        );
        r.register(
            "pods_uncovered",
            "Running pods that should have a sidecar and have none, as the leader counts",
            self.pods_uncovered.clone(),
        );
        r.register("writes", "Writes into the cluster", self.writes.clone());
        r.register(
            "webhook_requests",
            "Calls of the API server",
            self.webhooks.clone(),
        );
        r.register(
            "issuer_refused",
            "Whether the issuer's Secret holds one that is not taken",
            self.issuer_refused.clone(),
        );
    }

    fn register_calls(&self, r: &mut Registry) {
        // The library adds `_total` to the names of counters.
        r.register(
            "certify_requests",
            "Certificate requests",
            self.certify.clone(),
        );
        r.register(
            "handshakes",
            "TLS handshakes of callers",
            self.handshakes.clone(),
        );
        r.register("connections", "Open connections", self.connections.clone());
        r.register("watch_streams", "Open watch streams", self.streams.clone());
        r.register(
            "watch_stream_ends",
            "Watch streams that ended or were not admitted",
            self.stream_ends.clone(),
        );
        r.register(
            "watch_responses",
            "Responses sent to proxies",
            self.responses.clone(),
        );
        r.register(
            "watch_acks",
            "Responses that proxies took",
            self.acks.clone(),
        );
        r.register(
            "watch_nacks",
            "Responses that proxies refused",
            self.nacks.clone(),
        );
        r.register(
            "watch_responses_outstanding",
            "Responses sent and not yet answered",
            self.outstanding.clone(),
        );
        self.register_ledger(r);
        r.register(
            "jwks_refreshes",
            "Fetches of the JWT issuer's keys",
            self.jwks_refreshes.clone(),
        );
        r.register(
            "jwks_failures",
            "Fetches of the JWT issuer's keys that failed",
            self.jwks_failures.clone(),
        );
    }

    fn register_ledger(&self, r: &mut Registry) {
        r.register(
            "ledger_sessions",
            "Proxies that lease tokens of rate limits",
            self.ledger_sessions.clone(),
        );
        r.register(
            "ledger_tokens_leased",
            "Tokens of rate limits leased to proxies",
            self.ledger_leased.clone(),
        );
        r.register(
            "ledger_tokens_returned",
            "Tokens of rate limits that proxies gave back unspent",
            self.ledger_returned.clone(),
        );
        r.register(
            "ledger_share_used",
            "The part of what a rate limit lets through that its busiest key used of late",
            self.ledger_share_used.clone(),
        );
        r.register(
            "ledger_home_up",
            "Whether the ledger of rate limits is kept here",
            self.ledger_home_up.clone(),
        );
        r.register(
            "ledger_exchanges",
            "Exchanges with the server that keeps the ledger",
            self.ledger_exchanges.clone(),
        );
        r.register(
            "ledger_exchange_seconds",
            "How long these took",
            self.ledger_exchange_seconds.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_what_there_is() {
        let metrics = Metrics::default();
        metrics
            .certify
            .get_or_create(&CertifyLabels {
                outcome: Certified::Issued,
                credential: Credential::None,
            })
            .inc();
        metrics
            .handshakes
            .get_or_create(&HandshakeLabels {
                outcome: HandshakeOutcome::Failed,
            })
            .inc();
        metrics
            .stream_ends
            .get_or_create(&StreamLabels {
                reason: StreamEnd::Closed,
            })
            .inc();
        metrics
            .watch_failures
            .get_or_create(&WatchLabels { kind: "Pod".into() })
            .inc();
        metrics
            .writes
            .get_or_create(&WriteLabels {
                object: Written::Label,
                outcome: WriteOutcome::Done,
            })
            .inc();
        metrics
            .webhooks
            .get_or_create(&WebhookLabels {
                webhook: Webhook::Pods,
                outcome: Reviewed::Allowed,
            })
            .inc();
        metrics
            .ledger_share_used
            .get_or_create(&LimitLabels {
                limit: "shop/calls/0".into(),
            })
            .set(0.0);
        metrics
            .ledger_exchanges
            .get_or_create(&ExchangeLabels {
                outcome: ExchangeOutcome::Done,
            })
            .inc();
        let mut rendered = String::new();
        prometheus_client::encoding::text::encode(&mut rendered, &metrics.registry())
            .expect("renders");
        let mut there: Vec<_> = rendered.lines().filter_map(family).collect();
        let readme = include_str!("../../README.md").lines();
        let mut listed: Vec<_> = readme.filter_map(listed).collect();
        there.sort_unstable();
        listed.sort_unstable();
        assert_eq!(there, listed);
    }

    /// The name of a metric from its TYPE line, as its samples have it.
    fn family(line: &str) -> Option<String> {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        let end = if kind == "counter" { "_total" } else { "" };
        Some(format!("{name}{end}"))
    }

    /// The name in a row of the README's table of the controller.
    fn listed(line: &str) -> Option<String> {
        let (name, _) = line
            .strip_prefix("| `ringmail_controller_")?
            .split_once('`')?;
        Some(format!("ringmail_controller_{name}"))
    }
}
