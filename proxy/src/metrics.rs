//! What this proxy counts. The catalogue of names and labels is [`Metrics::new`]; the README lists the same.
//!
//! Handles are resolved when a peer is learnt ([`Metrics::traffic`]), never per request: counting one request is a
//! few uncontended atomic additions. Peers come from verified certificates and from the controller, so labels are
//! bounded by the mesh and never chosen by a client.

/// What is counted of requests and connections, and by which labels.
pub(crate) mod traffic;

/// What is counted of records.
mod records;

/// What is counted of endpoints and of trying again.
mod upstream;

/// Counters and histograms, sharded by worker.
pub(crate) mod sharded;

/// What the process uses.
mod process;

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use ringmail_proto::limit::{Limit, Scope};
use ringmail_proto::policy::{Mode, Verdict};

use crate::error::Reason;
use process::Process;
use sharded::{Counter, Histogram, Shards};
use upstream::Upstream;

pub(crate) use records::Counts;
pub(crate) use sharded::enter_shard;
pub(crate) use traffic::{Direction, Outcome, Protocol, Tls, Traffic};

/// The peer label of a connection without an identity.
pub(crate) const NO_IDENTITY: &str = "none";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    direction: &'static str,
    peer: String,
    protocol: &'static str,
    tls: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LatencyLabels {
    direction: &'static str,
    peer: String,
    protocol: &'static str,
    tls: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    direction: &'static str,
    peer: String,
    tls: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BytesLabels {
    direction: &'static str,
    peer: String,
    flow: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    direction: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RateLimitLabels {
    limit: String,
    scope: &'static str,
    outcome: &'static str,
    shadow: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AuthorizationLabels {
    policy: String,
    verdict: &'static str,
    shadow: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    policy: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    direction: &'static str,
    result: &'static str,
    group: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DetectionLabels {
    protocol: &'static str,
    by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

type Counters<Labels> = Family<Labels, Counter, Shards>;

/// Every metric of the proxy.
pub(crate) struct Metrics {
    registry: Registry,
    process: Registry,
    requests: Counters<RequestLabels>,
    latency: Family<LatencyLabels, Histogram, Shards>,
    connections: Counters<ConnectionLabels>,
    connections_open: Family<DirectionLabels, Gauge>,
    bytes: Counters<BytesLabels>,
    refusals: Counters<RefusalLabels>,
    authorizations: Counters<AuthorizationLabels>,
    rate_limits: Counters<RateLimitLabels>,
    checks: Family<CheckLabels, Histogram, Shards>,
    handshakes: Counters<HandshakeLabels>,
    handshake_latency: Family<DirectionLabels, Histogram, Shards>,
    detections: Counters<DetectionLabels>,
    egress_audited: Counter,
    counts: Counts,
    mirrored: Counters<ResultLabels>,
    upstream: Upstream,
    /// Seconds since the Unix epoch at which our certificate ends.
    pub(crate) certificate_expiry: Gauge,
    renewals: Counters<ResultLabels>,
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
    updates: Counters<ResultLabels>,
    /// 1 while the redirect rules are in force.
    pub(crate) capture_in_force: Gauge,
}

impl Metrics {
    /// The catalogue, for `workers` workers and the control thread.
    #[allow(clippy::too_many_lines, reason = "a catalogue")]
    pub(crate) fn new(workers: usize) -> Self {
        let shards = Shards(workers + 1);
        let mut registry = Registry::with_prefix("ringmail");
        macro_rules! register {
            ($metric:expr, $name:literal, $help:literal) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
            ($metric:expr, $name:literal, $unit:ident, $help:literal) => {{
                let metric = $metric;
                registry.register_with_unit($name, $help, Unit::$unit, metric.clone());
                metric
            }};
        }
        macro_rules! counters {
            ($($arguments:tt)*) => { register!(Family::new_with_constructor(shards), $($arguments)*) };
        }
        let requests = counters!("requests", "HTTP requests by how they ended");
        let latency = counters!(
            "request_duration",
            Seconds,
            "From the request's head to the response's head"
        );
        let connections = counters!("connections", "TCP connections by how they ended");
        let connections_open = register!(
            Family::default(),
            "connections_open",
            "TCP connections of the app now"
        );
        let bytes = counters!(
            "transferred",
            Bytes,
            "Bytes of bodies and of opaque connections"
        );
        let refusals = counters!(
            "refusals",
            "Requests and connections refused or broken, by reason"
        );
        let authorizations = counters!(
            "authorizations",
            "Streams judged by policy, by what decided; with shadow, by what would decide"
        );
        let rate_limits = counters!(
            "rate_limit_decisions",
            "Requests and connections that a rate limit was for; with shadow, what it would decide"
        );
        let checks = counters!(
            "authorization_check_duration",
            Seconds,
            "What external authorizers took to answer, or we to give up, by result"
        );
        let handshakes = counters!("handshakes", "TLS handshakes with other proxies");
        let handshake_latency = counters!(
            "handshake_duration",
            Seconds,
            "TLS handshakes that succeeded"
        );
        let detections = counters!(
            "detections",
            "Protocols of outbound connections, declared or detected"
        );
        let mirrored = counters!("mirrored", "Copies of requests for mirrors");
        let counts = counts(&mut registry, shards);
        let egress_audited = register!(
            MetricConstructor::<Counter>::new_metric(&shards),
            "egress_audited",
            "Connections that left the mesh where it is audited"
        );
        let upstream = Upstream::register(&mut registry, shards);
        let certificate_expiry = register!(
            Gauge::default(),
            "certificate_expiry_timestamp",
            Seconds,
            "When our certificate ends"
        );
        let renewals = counters!("certificate_renewals", "Certificates asked for");
        let control_connected = register!(
            Gauge::default(),
            "control_connected",
            "1 while the controller is reached"
        );
        let ledger_up = register!(
            Gauge::default(),
            "rate_limit_ledger_up",
            "1 while the ledger of rate limits leases; 0 also while no limit needs it"
        );
        let rate_limit_fallback = register!(
            Gauge::default(),
            "rate_limit_fallback_active",
            "1 while the ledger is away and rate limits in use do as their onUnavailable says"
        );
        let rate_limit_waits = register!(
            MetricConstructor::<Histogram>::new_metric(&shards),
            "rate_limit_wait_duration",
            Seconds,
            "How long requests waited for tokens of rate limits, those that did"
        );
        let rate_limit_lag = register!(
            MetricConstructor::<Histogram>::new_metric(&shards),
            "rate_limit_ledger_duration",
            Seconds,
            "What the ledger of rate limits took to answer"
        );
        let control_heard = register!(
            Gauge::default(),
            "control_heard_timestamp",
            Seconds,
            "When the controller last confirmed what is in force"
        );
        let updates = counters!(
            "control_updates",
            "Configuration received, by whether it was accepted"
        );
        let capture_in_force = register!(
            Gauge::default(),
            "capture_in_force",
            "1 while the redirect rules are in force"
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "This program", build);
        let mut process = Registry::default();
        process.register_collector(Box::new(Process));
        Self {
            registry,
            process,
            requests,
            latency,
            connections,
            connections_open,
            bytes,
            refusals,
            authorizations,
            rate_limits,
            checks,
            handshakes,
            handshake_latency,
            detections,
            egress_audited,
            counts,
            mirrored,
            upstream,
            certificate_expiry,
            renewals,
            control_connected,
            ledger_up,
            rate_limit_fallback,
            rate_limit_waits,
            rate_limit_lag,
            control_heard,
            updates,
            capture_in_force,
        }
    }

    /// All of it as OpenMetrics text.
    pub(crate) fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.process)?;
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// The handles for what passes between our app and `peer`.
    pub(crate) fn traffic(
        &self,
        direction: Direction,
        peer: &str,
        tls: Tls,
        protocol: Protocol,
    ) -> Traffic {
        let (direction, protocol, tls) = (direction.label(), protocol.label(), tls.label());
        let requests = |outcome| {
            let peer = peer.to_owned();
            self.requests.get_or_create_owned(&RequestLabels {
                direction,
                peer,
                protocol,
                tls,
                outcome,
            })
        };
        let connections = |outcome| {
            let peer = peer.to_owned();
            self.connections.get_or_create_owned(&ConnectionLabels {
                direction,
                peer,
                tls,
                outcome,
            })
        };
        let bytes = |flow| {
            self.bytes.get_or_create_owned(&BytesLabels {
                direction,
                peer: peer.to_owned(),
                flow,
            })
        };
        let is_http = protocol != Protocol::Tcp.label();
        let latency = LatencyLabels {
            direction,
            peer: peer.to_owned(),
            protocol,
            tls,
        };
        Traffic {
            requests: is_http.then(|| Outcome::ALL.map(|outcome| requests(outcome.label()))),
            latency: is_http.then(|| self.latency.get_or_create_owned(&latency)),
            connections: (!is_http)
                .then(|| Outcome::ALL.map(|outcome| connections(outcome.label()))),
            sent: bytes("sent"),
            received: bytes("received"),
        }
    }

    /// Something was refused or broke.
    pub(crate) fn refused(&self, direction: Direction, reason: Reason) {
        let labels = RefusalLabels {
            direction: direction.label(),
            reason: reason.row().label,
        };
        self.refusals.get_or_create(&labels).add(1);
    }

    /// The handle for what a policy decides, or would.
    pub(crate) fn authorizations(
        &self,
        policy: &str,
        verdict: Verdict,
        is_shadow: bool,
    ) -> Counter {
        self.authorizations
            .get_or_create_owned(&AuthorizationLabels {
                policy: policy.to_owned(),
                verdict: match verdict {
                    Verdict::Allow => "allow",
                    Verdict::Deny => "deny",
                },
                shadow: if is_shadow { "true" } else { "false" },
            })
    }

    /// The handle for what a rate limit decides, or would.
    pub(crate) fn rate_limits(&self, limit: &Limit, outcome: &'static str) -> Counter {
        let is_local = matches!(&limit.terms, Ok(terms) if terms.scope == Scope::Local);
        self.rate_limits.get_or_create_owned(&RateLimitLabels {
            limit: limit.name.to_string(),
            scope: if is_local { "local" } else { "global" },
            outcome,
            shadow: match limit.mode {
                Mode::Enforce => "false",
                Mode::Shadow => "true",
            },
        })
    }

    /// Somebody else was asked for a policy.
    pub(crate) fn checked(&self, policy: &str, result: &'static str, took: Duration) {
        let policy = policy.to_owned();
        let labels = CheckLabels { policy, result };
        self.checks.get_or_create(&labels).observe(took);
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
                self.handshake_latency
                    .get_or_create(&DirectionLabels { direction })
                    .observe(took);
                ("ok", group)
            }
            Err(reason) => (reason.row().label, "none"),
        };
        self.handshakes
            .get_or_create(&HandshakeLabels {
                direction,
                result,
                group,
            })
            .add(1);
    }

    /// What an outbound connection speaks, and whether that was declared.
    pub(crate) fn detected(&self, protocol: Protocol, by: &'static str) {
        self.detections
            .get_or_create(&DetectionLabels {
                protocol: protocol.label(),
                by,
            })
            .add(1);
    }

    /// A copy of a request was due.
    pub(crate) fn mirrored(&self, result: &'static str) {
        self.mirrored.get_or_create(&ResultLabels { result }).add(1);
    }

    /// The handles for what is recorded.
    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// A connection left the mesh, where that is audited.
    pub(crate) fn egress_audited(&self) {
        self.egress_audited.add(1);
    }

    /// A certificate was asked for.
    pub(crate) fn renewed(&self, result: &'static str) {
        self.renewals.get_or_create(&ResultLabels { result }).add(1);
    }

    /// Configuration came.
    pub(crate) fn updated(&self, result: &'static str) {
        self.updates.get_or_create(&ResultLabels { result }).add(1);
    }

    /// The gauge of the app's connections in one direction.
    pub(crate) fn connections_open(&self, direction: Direction) -> Gauge {
        self.connections_open.get_or_create_owned(&DirectionLabels {
            direction: direction.label(),
        })
    }
}

fn counts(registry: &mut Registry, shards: Shards) -> Counts {
    let mut counter = |name: &str, help: &str| {
        let counter = MetricConstructor::<Counter>::new_metric(&shards);
        registry.register(name, help, counter.clone());
        counter
    };
    let access_log = counter(
        "access_log_records",
        "Lines of the access log that were written",
    );
    let access_log_lost = counter(
        "access_log_lost",
        "Lines of the access log that could not be written in time",
    );
    let audit_lost = counter(
        "audit_lost",
        "Refusals and uses without a line in the audit: there were too many at once, or no room",
    );
    let audit = Counters::<VerdictLabels>::new_with_constructor(shards);
    let help = "Refusals and uses that the audit has";
    registry.register("audit_records", help, audit.clone());
    let audit = |verdict| audit.get_or_create_owned(&VerdictLabels { verdict });
    let spans = Counters::<ResultLabels>::new_with_constructor(shards);
    let help = "Spans, by whether the collector took them";
    registry.register("spans", help, spans.clone());
    let spans = |result| spans.get_or_create_owned(&ResultLabels { result });
    let lines = Counters::<ResultLabels>::new_with_constructor(shards);
    let help = "Lines of the audit that were for the collector, by whether it took them";
    registry.register("audit_exports", help, lines.clone());
    let lines = |result| lines.get_or_create_owned(&ResultLabels { result });
    Counts {
        access_log,
        access_log_lost,
        refusals: audit("deny"),
        uses: audit("allow"),
        audit_lost,
        spans_exported: spans("exported"),
        spans_lost: spans("lost"),
        lines_exported: lines("exported"),
        lines_lost: lines("lost"),
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmail_proto::pb;

    #[test]
    fn renders_what_was_counted_with_labels_escaped() {
        let metrics = Metrics::new(2);
        let traffic = metrics.traffic(
            Direction::Inbound,
            "a\"b\\c\nd",
            Tls::Mutual,
            Protocol::Http1,
        );
        traffic.request(Outcome::Success);
        enter_shard(1);
        traffic.request(Outcome::Success);
        traffic.answered(Duration::from_millis(3));
        let text = metrics.render().expect("renders");
        let row = r#"ringmail_requests_total{direction="inbound",peer="a\"b\\c\nd",protocol="http1",tls="mutual",outcome="success"} 2"#;
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("ringmail_request_duration_seconds_sum{"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_readme_lists_what_there_is() {
        let metrics = Metrics::new(1);
        for protocol in [Protocol::Http1, Protocol::Tcp] {
            metrics.traffic(Direction::Inbound, NO_IDENTITY, Tls::None, protocol);
        }
        metrics.connections_open(Direction::Inbound);
        metrics.refused(Direction::Inbound, Reason::MtlsRequired);
        metrics.handshake(Direction::Inbound, Ok(("group", Duration::ZERO)));
        metrics.authorizations("none", Verdict::Allow, false);
        metrics.checked("shop/opa", "allowed", Duration::ZERO);
        let limit = pb::RateLimit::default()
            .try_into()
            .expect("a limit without terms");
        metrics.rate_limits(&limit, "admitted");
        metrics.detected(Protocol::Tcp, "declared");
        metrics.endpoint_ejected("peer", "connect");
        metrics.endpoint_taken_back("peer");
        metrics.retried("refused", "sent");
        metrics.mirrored("sent");
        metrics.renewed("ok");
        metrics.updated("ack");
        let rendered = metrics.render().expect("renders");
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
        let end = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        Some(format!("{name}{end}"))
    }

    /// The name in a row of the README's table of the proxy.
    fn listed(line: &str) -> Option<String> {
        let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
        let is_ours = name.starts_with("ringmail_") && !name.starts_with("ringmail_controller_");
        (is_ours || name.starts_with("process_")).then(|| name.to_owned())
    }
}
