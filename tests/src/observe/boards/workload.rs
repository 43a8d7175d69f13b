//! One workload, from both sides.

use super::{NAMESPACE, PEER, WORKLOAD};
use crate::observe::board::{Bad, Board, Needs, Panel, Row, Unit, figure, lines, stack, table};

pub(super) fn board() -> Board {
    Board {
        name: "workload",
        title: "Workload",
        description: "What a workload is asked and asks, what was refused and why, and how its proxies are.",
        variables: vec![NAMESPACE, WORKLOAD, PEER],
        rows: vec![
            Row {
                title: "What it is asked",
                panels: inbound(),
            },
            Row {
                title: "What it asks",
                panels: outbound(),
            },
            Row {
                title: "Refusals and handshakes",
                panels: refusals(),
            },
            Row {
                title: "Records",
                panels: records(),
            },
            Row {
                title: "Its proxies",
                panels: proxies(),
            },
        ],
    }
}

fn inbound() -> Vec<Panel> {
    vec![
        stack(
            "Requests by how they ended",
            "As the proxy beside the app saw them.",
            Unit::Requests,
        )
        .asks(
            "sum by (outcome) (rate(ringmail_requests_total{@, direction='inbound', peer=~'$peer'}[R]))",
            "{{outcome}}",
        ),
        lines(
            "Latency",
            "From a request's head to the head of the response.",
            Unit::Seconds,
        )
        .quantiles(
            "ringmail_request_duration_seconds_bucket{@, direction='inbound', peer=~'$peer'}",
            "",
        ),
        stack(
            "Responses by status",
            "HTTP status of the app's answers.",
            Unit::Requests,
        )
        .asks(
            "sum by (code) (rate(ringmail_responses_total{@, direction='inbound'}[R]))",
            "{{code}}",
        ),
        stack(
            "gRPC calls by status",
            "grpc-status of the app's answers, from their trailers; unknown: there was none.",
            Unit::Requests,
        )
        .asks(
            "sum by (grpc_status) (rate(ringmail_grpc_responses_total{@, direction='inbound', peer=~'$peer'}[R]))",
            "{{grpc_status}}",
        )
        .empty("no gRPC"),
        table(
            "Callers",
            "Who called, by the identity that they proved.",
        )
        .column(
            "Requests",
            Unit::Requests,
            "sum by (peer, protocol, tls) (rate(ringmail_requests_total{@, direction='inbound', peer=~'$peer'}[R]))",
        )
        .column(
            "Failed",
            Unit::Share,
            "sum by (peer, protocol, tls) (rate(ringmail_requests_total{@, direction='inbound', peer=~'$peer', outcome=~'server_error|broken'}[R])) \
             / sum by (peer, protocol, tls) (rate(ringmail_requests_total{@, direction='inbound', peer=~'$peer'}[R]))",
        )
        .column(
            "p99",
            Unit::Seconds,
            "histogram_quantile(0.99, sum by (peer, protocol, tls, le) (rate(ringmail_request_duration_seconds_bucket{@, direction='inbound', peer=~'$peer'}[R])))",
        )
        .leads("security", &[("peer", "peer")]),
    ]
}

fn outbound() -> Vec<Panel> {
    vec![
        stack(
            "Its requests by how they ended",
            "As the proxy beside this workload saw what it asked others.",
            Unit::Requests,
        )
        .asks(
            "sum by (outcome) (rate(ringmail_requests_total{@, direction='outbound', peer=~'$peer'}[R]))",
            "{{outcome}}",
        ),
        lines(
            "Latency of what it asks",
            "From a request's head to the head of the response, the way there and back included.",
            Unit::Seconds,
        )
        .quantiles(
            "ringmail_request_duration_seconds_bucket{@, direction='outbound', peer=~'$peer'}",
            "",
        ),
        table("Services", "What it asked which service.")
            .column(
                "Requests",
                Unit::Requests,
                "sum by (service, peer, protocol, tls) (rate(ringmail_requests_total{@, direction='outbound', peer=~'$peer'}[R]))",
            )
            .column(
                "Failed",
                Unit::Share,
                "sum by (service, peer, protocol, tls) (rate(ringmail_requests_total{@, direction='outbound', peer=~'$peer', outcome=~'server_error|broken'}[R])) \
                 / sum by (service, peer, protocol, tls) (rate(ringmail_requests_total{@, direction='outbound', peer=~'$peer'}[R]))",
            )
            .leads("route", &[("service", "service")]),
        lines(
            "Retries",
            "Requests that were sent again, by why; over_budget and nowhere were not.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (cause, result) (rate(ringmail_retries_total{@}[R]))",
            "{{cause}}, {{result}}",
        )
        .empty("no retries"),
        lines(
            "Endpoints ejected and taken back",
            "Endpoints that failed again and again are asked no more for a while.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (peer, cause) (rate(ringmail_endpoint_ejections_total{@, peer=~'$peer'}[R]))",
            "{{peer}} ejected: {{cause}}",
        )
        .asks(
            "sum by (peer) (rate(ringmail_endpoint_recoveries_total{@, peer=~'$peer'}[R]))",
            "{{peer}} back",
        )
        .empty("none was ejected"),
        lines(
            "Mirrored",
            "Copies of requests for a route's mirrors, by what became of them.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (result) (rate(ringmail_mirrored_total{@}[R]))",
            "{{result}}",
        )
        .empty("no mirrors"),
    ]
}

fn refusals() -> Vec<Panel> {
    vec![
        lines(
            "Refusals by reason",
            "What the proxies refused or what broke; the reasons are those of x-ringmail-reason.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (direction, reason) (rate(ringmail_refusals_total{@}[R]))",
            "{{direction}}: {{reason}}",
        )
        .empty("nothing was refused"),
        lines(
            "Handshakes",
            "TLS handshakes with other proxies, by result.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (direction, result) (rate(ringmail_handshakes_total{@}[R]))",
            "{{direction}}: {{result}}",
        ),
        lines(
            "Time of a handshake",
            "Of those that succeeded.",
            Unit::Seconds,
        )
        .quantiles("ringmail_handshake_duration_seconds_bucket{@}", ""),
        lines(
            "Protocols",
            "What connections of the app speak, and how the proxy knows.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (protocol, by) (rate(ringmail_detections_total{@}[R]))",
            "{{protocol}}, {{by}}",
        ),
    ]
}

fn records() -> Vec<Panel> {
    vec![
        lines(
            "Access log",
            "Lines that were written, and lines that were not because whoever takes them is too slow.",
            Unit::PerSecond,
        )
        .asks(
            "sum(rate(ringmail_access_log_records_total{@}[R]))",
            "written",
        )
        .asks("sum(rate(ringmail_access_log_lost_total{@}[R]))", "lost"),
        lines(
            "Spans",
            "Of traces, by whether the collector took them.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (result) (rate(ringmail_spans_total{@}[R]))",
            "{{result}}",
        )
        .empty("nothing is traced")
        .needs(Needs::Collector),
    ]
}

fn proxies() -> Vec<Panel> {
    vec![
        figure(
            "Capture in force",
            "Whether the rules that bring the pod's connections to its proxy are there, in the pod where they are not.",
            Unit::Flag,
            "min(ringmail_capture_in_force{@})",
        )
        .bad(Bad::Below(1.0, 1.0)),
        figure(
            "Controller reached",
            "By all proxies of the workload.",
            Unit::Flag,
            "min(ringmail_control_connected{@})",
        )
        .bad(Bad::Below(1.0, 1.0)),
        figure(
            "Certificate lasts",
            "The one that ends first.",
            Unit::Seconds,
            "min(ringmail_certificate_expiry_timestamp_seconds{@} - time())",
        )
        .bad(Bad::Below(600.0, 60.0)),
        figure(
            "Series in use",
            "Of those that a proxy may have for names of peers, services and the like; what is beyond is counted as overflow.",
            Unit::Share,
            "max(ringmail_metrics_series{@} / ringmail_metrics_series_max{@})",
        )
        .bad(Bad::Above(0.8, 0.95)),
        figure(
            "Files in use",
            "Open files and sockets, of those that may be, in the proxy that has most.",
            Unit::Share,
            "max((process_open_fds{@} / process_max_fds{@}) and on (instance) ringmail_build_info)",
        )
        .bad(Bad::Above(0.7, 0.9)),
        figure(
            "Oldest start",
            "How long ago the proxy started that runs longest.",
            Unit::Seconds,
            "time() - min(process_start_time_seconds{@} and on (instance) ringmail_build_info)",
        ),
        lines("Memory", "Of each proxy.", Unit::Bytes).asks(
            "process_resident_memory_bytes{@} and on (instance) ringmail_build_info",
            "{{instance}}",
        ),
        lines("CPU", "Of each proxy; 1 is a whole processor.", Unit::Count).asks(
            "rate(process_cpu_seconds_total{@}[R]) and on (instance) ringmail_build_info",
            "{{instance}}",
        ),
    ]
}
