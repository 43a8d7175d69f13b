//! What is no HTTP.

use super::{NAMESPACE, PEER, WORKLOAD};
use crate::observe::board::{Board, Panel, Row, Unit, figure, lines, stack, table};

pub(super) fn board() -> Board {
    Board {
        name: "tcp",
        title: "TCP and databases",
        description: "Connections whose bytes the mesh carries without reading them: databases, queues, TLS of the apps' own.",
        variables: vec![NAMESPACE, WORKLOAD, PEER],
        rows: vec![
            Row {
                title: "Now",
                panels: now(),
            },
            Row {
                title: "Connections",
                panels: connections(),
            },
            Row {
                title: "Bytes",
                panels: bytes(),
            },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        figure(
            "Open",
            "Connections of apps to their proxies that are open, HTTP included.",
            Unit::Count,
            "sum(ringmail_connections_open{@, direction='outbound'})",
        ),
        figure(
            "New",
            "Opaque connections that began.",
            Unit::PerSecond,
            "sum(rate(ringmail_connections_started_total{@, direction='inbound', peer=~'$peer'}[R]))",
        )
        .empty("none"),
        figure(
            "Under way",
            "Opaque connections that began and are not over.",
            Unit::Count,
            "sum(ringmail_connections_started_total{@, direction='inbound', peer=~'$peer'}) \
             - (sum(ringmail_connections_total{@, direction='inbound', peer=~'$peer'}) or vector(0))",
        )
        .empty("none"),
        figure(
            "Mutual TLS",
            "The part of opaque connections that came over mutual TLS.",
            Unit::Share,
            "sum(rate(ringmail_connections_started_total{@, direction='inbound', peer=~'$peer', tls='mutual'}[R])) \
             / (sum(rate(ringmail_connections_started_total{@, direction='inbound', peer=~'$peer'}[R])) > 0)",
        )
        .empty("none"),
        figure(
            "Bytes",
            "In both directions, of opaque connections.",
            Unit::Traffic,
            "sum(rate(ringmail_transferred_bytes_total{@, direction='inbound', peer=~'$peer', protocol='tcp'}[R]))",
        )
        .empty("none"),
        figure(
            "Server speaks first",
            "The part of the detected connections whose client waited for the server (MySQL, SMTP): these were held up for a \
             moment. Declare their ports.",
            Unit::Share,
            "(sum(rate(ringmail_detections_total{@, by='server_first'}[R])) or vector(0)) \
             / (sum(rate(ringmail_detections_total{@}[R])) > 0)",
        )
        .empty("none"),
    ]
}

fn connections() -> Vec<Panel> {
    vec![
        table("Who is connected with whom", "Opaque connections, by caller and workload.")
            .column(
                "New",
                Unit::PerSecond,
                "sum by (peer, namespace, workload, tls) (rate(ringmail_connections_started_total{@, direction='inbound', peer=~'$peer'}[R]))",
            )
            .column(
                "Under way",
                Unit::Count,
                "sum by (peer, namespace, workload, tls) (ringmail_connections_started_total{@, direction='inbound', peer=~'$peer'}) \
                 - sum by (peer, namespace, workload, tls) (ringmail_connections_total{@, direction='inbound', peer=~'$peer'})",
            )
            .leads(
                "workload",
                &[
                    ("peer", "peer"),
                    ("namespace", "namespace"),
                    ("workload", "workload"),
                ],
            )
            .empty("none"),
        stack(
            "Ended",
            "By how: success when both sides closed it well.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (outcome) (rate(ringmail_connections_total{@, direction='inbound', peer=~'$peer'}[R]))",
            "{{outcome}}",
        )
        .empty("none"),
        stack(
            "Dialled",
            "What apps dial, by service.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (service) (rate(ringmail_connections_started_total{@, direction='outbound', peer=~'$peer'}[R]))",
            "{{service}}",
        )
        .empty("none"),
        stack(
            "What connections speak",
            "Declared by the Service's port, or detected by first_bytes or server_first.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (protocol, by) (rate(ringmail_detections_total{@}[R]))",
            "{{protocol}}, {{by}}",
        ),
        lines("Open by direction", "Connections of apps, by direction.", Unit::Count).asks(
            "sum by (direction) (ringmail_connections_open{@})",
            "{{direction}}",
        ),
    ]
}

fn bytes() -> Vec<Panel> {
    vec![
        lines(
            "By workload",
            "Bytes of opaque connections, as the called side's proxy sees them.",
            Unit::Traffic,
        )
        .asks(
            "sum by (namespace, workload, flow) (rate(ringmail_transferred_bytes_total{@, direction='inbound', peer=~'$peer', protocol='tcp'}[R]))",
            "{{namespace}}/{{workload}} {{flow}}",
        )
        .empty("none"),
        lines(
            "By service",
            "Bytes of opaque connections, as callers see them.",
            Unit::Traffic,
        )
        .asks(
            "sum by (service, flow) (rate(ringmail_transferred_bytes_total{@, direction='outbound', peer=~'$peer', protocol='tcp'}[R]))",
            "{{service}} {{flow}}",
        )
        .empty("none"),
        lines(
            "By peer",
            "Bytes of opaque connections, by who is at the other end.",
            Unit::Traffic,
        )
        .asks(
            "sum by (peer) (rate(ringmail_transferred_bytes_total{@, peer=~'$peer', protocol='tcp'}[R]))",
            "{{peer}}",
        )
        .empty("none"),
        lines(
            "Of HTTP, beside it",
            "Bytes of bodies, by protocol.",
            Unit::Traffic,
        )
        .asks(
            "sum by (protocol) (rate(ringmail_transferred_bytes_total{@, direction='inbound', peer=~'$peer'}[R]))",
            "{{protocol}}",
        ),
    ]
}
