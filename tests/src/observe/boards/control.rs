//! The controller, and whether proxies follow it.

use super::shared::pods_uncovered;
use super::{NAMESPACE, WORKLOAD};
use crate::observe::board::{Bad, Board, Needs, Panel, Row, Unit, figure, lines, stack, table};

pub(super) fn board() -> Board {
    Board {
        name: "control",
        title: "Control plane",
        description: "The controller's replicas, how soon proxies follow, what was refused, and what is done in the cluster. Namespace and workload are the proxies'.",
        variables: vec![NAMESPACE, WORKLOAD],
        rows: vec![
            Row {
                title: "Now",
                panels: now(),
            },
            Row {
                title: "Proxies follow",
                panels: proxies(),
            },
            Row {
                title: "What is read",
                panels: source(),
            },
            Row {
                title: "Cluster",
                panels: cluster(),
            },
            Row {
                title: "Processes",
                panels: processes(),
            },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        figure(
            "Controllers",
            "Replicas that are scraped.",
            Unit::Count,
            "count(ringmail_controller_build_info)",
        )
        .empty("none is scraped")
        .bad(Bad::Below(1.0, 1.0)),
        figure(
            "Proxies connected",
            "To any replica.",
            Unit::Count,
            "sum(ringmail_controller_proxies_connected)",
        )
        .empty("no controller is scraped"),
        figure(
            "Meshed pods without connection",
            "Live pods with a sidecar, less proxies that are connected.",
            Unit::Count,
            "clamp_min(max(ringmail_controller_workloads_meshed) - sum(ringmail_controller_proxies_connected), 0)",
        )
        .empty("no controller is scraped")
        .bad(Bad::Above(1.0, 1.0)),
        figure(
            "Proxies behind",
            "They have left something they were told without an answer for more than 5 s.",
            Unit::Count,
            "sum(ringmail_controller_proxies_behind)",
        )
        .empty("no controller is scraped")
        .bad(Bad::Above(1.0, 1.0)),
        pods_uncovered(),
        figure(
            "Objects not in force",
            "Files and objects whose content is refused, and contradictions among the rest.",
            Unit::Count,
            "max(ringmail_controller_source_files_refused + ringmail_controller_source_objects_refused + ringmail_controller_snapshot_problems)",
        )
        .empty("no controller is scraped")
        .bad(Bad::Above(1.0, 1.0)),
    ]
}

fn proxies() -> Vec<Panel> {
    vec![
        lines(
            "Connected and meshed",
            "Proxies by controller, beside how many there should be.",
            Unit::Count,
        )
        .asks("ringmail_controller_proxies_connected", "{{instance}}")
        .asks("max(ringmail_controller_workloads_meshed)", "meshed pods"),
        lines(
            "From a change to its acknowledgement",
            "How long proxies took to put in force what they were told.",
            Unit::Seconds,
        )
        .quantiles("ringmail_controller_watch_ack_duration_seconds_bucket", ""),
        stack(
            "Responses sent",
            "changed: pushed because something is different; asked: a proxy is new, or its app calls a new address.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (cause) (rate(ringmail_controller_watch_responses_total[R]))",
            "{{cause}}",
        ),
        lines(
            "Answers",
            "Of proxies. What is refused leaves in force what was there before; `ringmail check` says which and why.",
            Unit::PerSecond,
        )
        .asks("sum(rate(ringmail_controller_watch_acks_total[R]))", "taken")
        .asks("sum(rate(ringmail_controller_watch_nacks_total[R]))", "refused")
        .asks(
            "sum(ringmail_controller_watch_responses_outstanding)",
            "outstanding",
        ),
        lines(
            "Streams that ended",
            "By reason: expired and draining come back at once; unacknowledged were too slow.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (reason) (rate(ringmail_controller_watch_stream_ends_total[R]))",
            "{{reason}}",
        )
        .empty("none ended"),
        lines(
            "Streams and connections",
            "Open now, by controller.",
            Unit::Count,
        )
        .asks("ringmail_controller_watch_streams", "{{instance}} streams")
        .asks("ringmail_controller_connections", "{{instance}} connections"),
        lines(
            "Since proxies heard of it",
            "How long ago the controller last confirmed what is in force at the proxy that has waited longest. It is confirmed when \
             something changes, so only what grows while others fall is late.",
            Unit::Seconds,
        )
        .asks(
            "max by (namespace) (time() - ringmail_control_heard_timestamp_seconds{@})",
            "{{namespace}}",
        ),
        lines(
            "Configuration at proxies",
            "What they received, taken or not.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (result) (rate(ringmail_control_updates_total{@}[R]))",
            "{{result}}",
        ),
    ]
}

fn source() -> Vec<Panel> {
    vec![
        lines(
            "State",
            "Place of the current state in its epoch, by controller: each new state adds one.",
            Unit::Count,
        )
        .asks("ringmail_controller_snapshot_sequence", "{{instance}}"),
        lines(
            "Objects",
            "Objects that are in force, and pods among them.",
            Unit::Count,
        )
        .asks("max(ringmail_controller_source_objects)", "objects")
        .asks("max(ringmail_controller_workloads)", "pods"),
        stack(
            "Certificates",
            "What was asked of the authority, by outcome.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (outcome) (rate(ringmail_controller_certify_requests_total[R]))",
            "{{outcome}}",
        ),
        lines(
            "Authority lasts",
            "The issuer's certificate, and the controllers' own.",
            Unit::Seconds,
        )
        .asks(
            "min(ringmail_controller_issuer_expiry_timestamp_seconds - time())",
            "issuer",
        )
        .asks(
            "ringmail_controller_certificate_expiry_timestamp_seconds - time()",
            "{{instance}}",
        ),
        lines(
            "Keys of token issuers",
            "Fetches, and those that failed.",
            Unit::PerSecond,
        )
        .asks(
            "sum(rate(ringmail_controller_jwks_refreshes_total[R]))",
            "all",
        )
        .asks(
            "sum(rate(ringmail_controller_jwks_failures_total[R]))",
            "failed",
        ),
    ]
}

fn cluster() -> Vec<Panel> {
    vec![
        stack(
            "Calls of the API server",
            "By webhook and answer. A pod that is denied does not start.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (webhook, outcome) (rate(ringmail_controller_webhook_requests_total[R]))",
            "{{webhook}}: {{outcome}}",
        )
        .empty("no calls")
        .needs(Needs::Cluster),
        lines(
            "Time of a call",
            "The API server gives up after the chart's webhooks.timeoutSeconds.",
            Unit::Seconds,
        )
        .asks(
            "histogram_quantile(0.99, sum by (webhook, le) (rate(ringmail_controller_webhook_duration_seconds_bucket[R])))",
            "{{webhook}}, p99",
        )
        .empty("no calls")
        .needs(Needs::Cluster),
        lines(
            "Writes",
            "Of the replica that leads, by object and outcome.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (object, outcome) (rate(ringmail_controller_writes_total[R]))",
            "{{object}}: {{outcome}}",
        )
        .empty("nothing was written")
        .needs(Needs::Cluster),
        lines(
            "Watches that broke",
            "Of objects of the cluster, by kind; what they told stays in force.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (kind) (rate(ringmail_controller_watch_failures_total[R]))",
            "{{kind}}",
        )
        .empty("none broke")
        .needs(Needs::Fault),
        lines("Leader", "Which replica writes.", Unit::Flag)
            .asks("ringmail_controller_leader", "{{instance}}"),
        lines(
            "Issuer refused",
            "Whether the issuer's Secret holds one that is not taken.",
            Unit::Flag,
        )
        .asks("ringmail_controller_issuer_refused", "{{instance}}"),
    ]
}

fn processes() -> Vec<Panel> {
    vec![
        lines("Memory of controllers", "Of each replica.", Unit::Bytes).asks(
            "process_resident_memory_bytes and on (instance) ringmail_controller_build_info",
            "{{instance}}",
        ),
        lines(
            "CPU of controllers",
            "Of each replica; 1 is a whole processor.",
            Unit::Count,
        )
        .asks(
            "rate(process_cpu_seconds_total[R]) and on (instance) ringmail_controller_build_info",
            "{{instance}}",
        ),
        lines(
            "Memory of proxies",
            "Of all together, and of the largest.",
            Unit::Bytes,
        )
        .asks(
            "sum(process_resident_memory_bytes{@} and on (instance) ringmail_build_info)",
            "all",
        )
        .asks(
            "max(process_resident_memory_bytes{@} and on (instance) ringmail_build_info)",
            "largest",
        ),
        table(
            "Versions of proxies",
            "How many run which, where: what an upgrade has not reached yet.",
        )
        .column(
            "Proxies",
            Unit::Count,
            "count by (version, namespace) (ringmail_build_info{@})",
        )
        .wide(12),
        table("Versions of controllers", "How many run which.")
            .column(
                "Controllers",
                Unit::Count,
                "count by (version) (ringmail_controller_build_info)",
            )
            .wide(12),
    ]
}
