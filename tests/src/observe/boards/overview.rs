//! Is all well, and where not?

use super::shared::{first_certificate, mutual_tls, pods_uncovered};
use super::{NAMESPACE, WORKLOAD};
use crate::observe::board::{Bad, Board, Panel, Row, Unit, buckets, figure, lines, stack, table};

pub(super) fn board() -> Board {
    Board {
        name: "overview",
        title: "Mesh overview",
        description: "Is all well, and where not? What apps were asked, as the proxies beside them saw it.",
        variables: vec![NAMESPACE, WORKLOAD],
        rows: vec![
            Row {
                title: "Now",
                panels: now(),
            },
            Row {
                title: "Golden signals",
                panels: signals(),
            },
            Row {
                title: "Where",
                panels: places(),
            },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        figure(
            "Requests",
            "HTTP requests that apps were asked, by whomever, and that are over.",
            Unit::Requests,
            "sum(rate(ringmail_requests_total{@, direction='inbound'}[R]))",
        ),
        figure(
            "Success",
            "Of these, the part that neither failed in the app (a status of 500 or more, or a gRPC status that says as much) nor \
             broke off. Refusals by policy and mistakes of clients are no failures.",
            Unit::Share,
            "1 - (sum(rate(ringmail_requests_total{@, direction='inbound', outcome=~'server_error|broken'}[R])) or vector(0)) \
             / (sum(rate(ringmail_requests_total{@, direction='inbound'}[R])) > 0)",
        )
        .empty("no requests")
        .bad(Bad::Below(0.999, 0.99)),
        figure(
            "Slowest 1 %",
            "From a request's head to the head of its response: 99 of 100 took less.",
            Unit::Seconds,
            "histogram_quantile(0.99, sum by (le) (rate(ringmail_request_duration_seconds_bucket{@, direction='inbound'}[R])))",
        )
        .empty("no requests"),
        mutual_tls(),
        figure(
            "Refused by policy",
            "Requests and connections that no policy allows or that one denies, with a bad token, or of a revoked identity.",
            Unit::PerSecond,
            "sum(rate(ringmail_denials_total{@, reason!='rate_limited'}[R])) or vector(0)",
        ),
        figure(
            "Rate limited",
            "Requests and connections that a rate limit refused.",
            Unit::PerSecond,
            "sum(rate(ringmail_rate_limit_decisions_total{@, outcome='refused', shadow='false'}[R])) or vector(0)",
        ),
        figure(
            "Proxies",
            "Proxies that are scraped.",
            Unit::Count,
            "count(ringmail_build_info{@})",
        )
        .empty("none is scraped"),
        figure(
            "Without controller",
            "Proxies that do not reach it. What they have learnt stays in force; certificates are not renewed.",
            Unit::Count,
            "count(ringmail_control_connected{@} == 0) or vector(0)",
        )
        .bad(Bad::Above(1.0, 1.0)),
        first_certificate(),
        pods_uncovered(),
        figure(
            "Limits without ledger",
            "Proxies whose rate limits do as onUnavailable says, because the ledger is away.",
            Unit::Count,
            "sum(ringmail_rate_limit_fallback_active{@})",
        )
        .bad(Bad::Above(1.0, 1.0)),
        figure(
            "Alerts",
            "Alerts of ours that fire, if the rules of the chart are loaded.",
            Unit::Count,
            "count(ALERTS{alertname=~'Ringmail.*', alertstate='firing'}) or vector(0)",
        )
        .bad(Bad::Above(1.0, 1.0)),
    ]
}

fn signals() -> Vec<Panel> {
    vec![
        stack(
            "Requests by how they ended",
            "success; client_error: a status from 400; server_error: from 500; refused: by the mesh; broken: cut off in the middle.",
            Unit::Requests,
        )
        .asks(
            "sum by (outcome) (rate(ringmail_requests_total{@, direction='inbound'}[R]))",
            "{{outcome}}",
        ),
        lines(
            "Success by namespace",
            "The part of requests that neither failed in the app nor broke off.",
            Unit::Share,
        )
        .asks(
            "1 - (sum by (namespace) (rate(ringmail_requests_total{@, direction='inbound', outcome=~'server_error|broken'}[R])) \
             or 0 * sum by (namespace) (rate(ringmail_requests_total{@, direction='inbound'}[R]))) \
             / (sum by (namespace) (rate(ringmail_requests_total{@, direction='inbound'}[R])) > 0)",
            "{{namespace}}",
        ),
        lines(
            "Latency",
            "From a request's head to the head of its response, at the proxy beside the app.",
            Unit::Seconds,
        )
        .quantiles(
            "ringmail_request_duration_seconds_bucket{@, direction='inbound'}",
            "",
        ),
        buckets(
            "Latency, all of it",
            "How many requests took how long.",
            "sum by (le) (rate(ringmail_request_duration_seconds_bucket{@, direction='inbound'}[R]))",
        ),
        lines(
            "Under way",
            "Requests that began and are not over, and opaque connections that are open: what is saturated first.",
            Unit::Count,
        )
        .asks(
            "sum(ringmail_requests_started_total{@, direction='inbound'}) - sum(ringmail_requests_total{@, direction='inbound'})",
            "requests",
        )
        .asks("sum(ringmail_connections_open{@, direction='inbound'})", "connections"),
        lines(
            "Bytes",
            "Bodies and opaque connections, as the proxies beside the apps that were called saw them.",
            Unit::Traffic,
        )
        .asks(
            "sum by (flow) (rate(ringmail_transferred_bytes_total{@, direction='inbound'}[R]))",
            "{{flow}}",
        ),
    ]
}

fn places() -> Vec<Panel> {
    vec![
        table(
            "Workloads",
            "What each was asked. A click on its name shows it alone.",
        )
        .column(
            "Requests",
            Unit::Requests,
            "sum by (namespace, workload) (rate(ringmail_requests_total{@, direction='inbound'}[R]))",
        )
        .column(
            "Failed",
            Unit::Share,
            "sum by (namespace, workload) (rate(ringmail_requests_total{@, direction='inbound', outcome=~'server_error|broken'}[R])) \
             / sum by (namespace, workload) (rate(ringmail_requests_total{@, direction='inbound'}[R]))",
        )
        .column(
            "p99",
            Unit::Seconds,
            "histogram_quantile(0.99, sum by (namespace, workload, le) (rate(ringmail_request_duration_seconds_bucket{@, direction='inbound'}[R])))",
        )
        .column(
            "In plaintext",
            Unit::Requests,
            "sum by (namespace, workload) (rate(ringmail_requests_total{@, direction='inbound', tls='none', outcome!='refused'}[R]))",
        )
        .column(
            "Refused by policy",
            Unit::PerSecond,
            "sum by (namespace, workload) (rate(ringmail_denials_total{@, reason!='rate_limited'}[R]))",
        )
        .leads(
            "workload",
            &[("namespace", "namespace"), ("workload", "workload")],
        ),
        table(
            "Who calls whom",
            "Identities of callers, and whom they called. `none` has none: it came in plaintext.",
        )
        .column(
            "Requests",
            Unit::Requests,
            "sum by (peer, namespace, workload) (rate(ringmail_requests_total{@, direction='inbound'}[R]))",
        )
        .column(
            "Failed",
            Unit::Share,
            "sum by (peer, namespace, workload) (rate(ringmail_requests_total{@, direction='inbound', outcome=~'server_error|broken'}[R])) \
             / sum by (peer, namespace, workload) (rate(ringmail_requests_total{@, direction='inbound'}[R]))",
        )
        .leads(
            "workload",
            &[
                ("peer", "peer"),
                ("namespace", "namespace"),
                ("workload", "workload"),
            ],
        ),
        table(
            "Services",
            "As their callers see them, retries and failures of the way included.",
        )
        .column(
            "Requests",
            Unit::Requests,
            "sum by (service) (rate(ringmail_requests_total{@, direction='outbound', service!='none'}[R]))",
        )
        .column(
            "Failed",
            Unit::Share,
            "sum by (service) (rate(ringmail_requests_total{@, direction='outbound', service!='none', outcome=~'server_error|broken'}[R])) \
             / sum by (service) (rate(ringmail_requests_total{@, direction='outbound', service!='none'}[R]))",
        )
        .column(
            "p99",
            Unit::Seconds,
            "histogram_quantile(0.99, sum by (service, le) (rate(ringmail_request_duration_seconds_bucket{@, direction='outbound', service!='none'}[R])))",
        )
        .leads("route", &[("service", "service")]),
    ]
}
