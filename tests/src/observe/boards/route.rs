//! Requests by service and route.

use super::{NAMESPACE, WORKLOAD, variable};
use crate::observe::board::{Board, Panel, Row, Unit, buckets, lines, stack, table};

pub(super) fn board() -> Board {
    Board {
        name: "route",
        title: "Route",
        description: "What services are asked, by the route that a request took, as callers see it. Namespace and workload are the callers'.",
        variables: vec![
            NAMESPACE,
            WORKLOAD,
            variable(
                "service",
                "Service",
                "ringmail_requests_total{@, direction='outbound'}",
            ),
            variable(
                "route",
                "Route",
                "ringmail_requests_total{@, direction='outbound', service=~'$service'}",
            ),
        ],
        rows: vec![
            Row {
                title: "Routes",
                panels: vec![routes()],
            },
            Row {
                title: "Over time",
                panels: over_time(),
            },
        ],
    }
}

fn routes() -> Panel {
    table(
        "Routes",
        "Each route that was taken; `none` is a service without routes, or what no route is for.",
    )
    .column(
        "Requests",
        Unit::Requests,
        "sum by (service, route) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route'}[R]))",
    )
    .column(
        "Failed",
        Unit::Share,
        "sum by (service, route) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route', outcome=~'server_error|broken'}[R])) \
         / sum by (service, route) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route'}[R]))",
    )
    .column(
        "p50",
        Unit::Seconds,
        "histogram_quantile(0.5, sum by (service, route, le) (rate(ringmail_request_duration_seconds_bucket{@, direction='outbound', service=~'$service', route=~'$route'}[R])))",
    )
    .column(
        "p99",
        Unit::Seconds,
        "histogram_quantile(0.99, sum by (service, route, le) (rate(ringmail_request_duration_seconds_bucket{@, direction='outbound', service=~'$service', route=~'$route'}[R])))",
    )
    .leads("route", &[("service", "service"), ("route", "route")])
}

fn over_time() -> Vec<Panel> {
    vec![
        stack("Requests", "By route.", Unit::Requests).asks(
            "sum by (service, route) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route'}[R]))",
            "{{service}} {{route}}",
        ),
        stack(
            "Requests by how they ended",
            "refused: by the mesh, on this side or the other.",
            Unit::Requests,
        )
        .asks(
            "sum by (outcome) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route'}[R]))",
            "{{outcome}}",
        ),
        lines(
            "Success",
            "The part of requests that neither failed nor broke off.",
            Unit::Share,
        )
        .asks(
            "1 - (sum by (service, route) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route', outcome=~'server_error|broken'}[R])) \
             or 0 * sum by (service, route) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route'}[R]))) \
             / (sum by (service, route) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route'}[R])) > 0)",
            "{{service}} {{route}}",
        ),
        lines("Latency", "Of all that is chosen together.", Unit::Seconds).quantiles(
            "ringmail_request_duration_seconds_bucket{@, direction='outbound', service=~'$service', route=~'$route'}",
            "",
        ),
        buckets(
            "Latency, all of it",
            "How many requests took how long.",
            "sum by (le) (rate(ringmail_request_duration_seconds_bucket{@, direction='outbound', service=~'$service', route=~'$route'}[R]))",
        ),
        stack(
            "gRPC calls by status",
            "By service; gRPC counts as failed by its own status.",
            Unit::Requests,
        )
        .asks(
            "sum by (service, grpc_status) (rate(ringmail_grpc_responses_total{@, direction='outbound', service=~'$service'}[R]))",
            "{{service}} {{grpc_status}}",
        )
        .empty("no gRPC"),
        stack(
            "Under way",
            "Requests that began and are not over.",
            Unit::Count,
        )
        .asks(
            "sum by (service, route) (ringmail_requests_started_total{@, direction='outbound', service=~'$service', route=~'$route'}) \
             - sum by (service, route) (ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route'})",
            "{{service}} {{route}}",
        ),
        stack(
            "By protocol",
            "As the app speaks it to its own proxy.",
            Unit::Requests,
        )
        .asks(
            "sum by (protocol) (rate(ringmail_requests_total{@, direction='outbound', service=~'$service', route=~'$route'}[R]))",
            "{{protocol}}",
        ),
    ]
}
