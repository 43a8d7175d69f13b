//! Identities, certificates, who was refused.

use super::shared::{first_certificate, mutual_tls};
use super::{NAMESPACE, PEER, WORKLOAD, variable};
use crate::observe::board::{
    Bad, Board, Needs, Panel, Row, Unit, figure, lines, spread, stack, table,
};

pub(super) fn board() -> Board {
    Board {
        name: "security",
        title: "Security",
        description: "Who is in the mesh and how long their certificates last, what comes in plaintext, what policies decide and whom they refuse.",
        variables: vec![
            NAMESPACE,
            WORKLOAD,
            PEER,
            variable("policy", "Policy", "ringmail_authorizations_total{@}"),
        ],
        rows: vec![
            Row {
                title: "Now",
                panels: now(),
            },
            Row {
                title: "Identities and certificates",
                panels: certificates(),
            },
            Row {
                title: "Policy",
                panels: policy(),
            },
            Row {
                title: "Audit",
                panels: audit(),
            },
            Row {
                title: "Plaintext and handshakes",
                panels: transport(),
            },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        mutual_tls(),
        figure(
            "Post-quantum",
            "The part of all handshakes between proxies since they began whose key exchange a quantum computer does not break \
             (X25519MLKEM768).",
            Unit::Share,
            "sum(ringmail_handshakes_total{@, result='ok', group='X25519MLKEM768'}) / sum(ringmail_handshakes_total{@, result='ok'})",
        )
        .empty("no handshakes")
        .bad(Bad::Below(0.99, 0.5)),
        first_certificate(),
        figure(
            "Oldest, of its life",
            "The part of its life that the oldest certificate has behind it; past 0.75 renewals have failed for long.",
            Unit::Share,
            "max((time() - ringmail_certificate_issued_timestamp_seconds{@}) \
             / (ringmail_certificate_expiry_timestamp_seconds{@} - ringmail_certificate_issued_timestamp_seconds{@}))",
        )
        .bad(Bad::Above(0.65, 0.75)),
        figure(
            "Issuer lasts",
            "The certificate that signs those of proxies.",
            Unit::Seconds,
            "min(ringmail_controller_issuer_expiry_timestamp_seconds - time())",
        )
        .empty("no controller is scraped")
        .bad(Bad::Below(604_800.0, 86_400.0)),
        figure(
            "Audit records lost",
            "Refusals and uses without a line in the audit since the proxies began.",
            Unit::Count,
            "sum(ringmail_audit_lost_total{@})",
        )
        .bad(Bad::Above(1.0, 1.0)),
    ]
}

fn certificates() -> Vec<Panel> {
    vec![
        spread(
            "How long certificates last",
            "The time that certificates have left: a band that goes down as they age and up as they are renewed. Whatever \
             falls out of the band below is not renewed.",
            Unit::Seconds,
            "ringmail_certificate_expiry_timestamp_seconds{@} - time()",
        ),
        lines(
            "Renewals",
            "Certificates that proxies asked for, by result.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (result) (rate(ringmail_certificate_renewals_total{@}[R]))",
            "{{result}}",
        ),
        table(
            "Identities",
            "Who calls, by the SPIFFE ID that they proved, and what they get. `none` came in plaintext.",
        )
        .column(
            "Requests",
            Unit::Requests,
            "sum by (peer, tls) (rate(ringmail_requests_total{@, direction='inbound', peer=~'$peer'}[R]))",
        )
        .column(
            "Connections",
            Unit::PerSecond,
            "sum by (peer, tls) (rate(ringmail_connections_started_total{@, direction='inbound', peer=~'$peer'}[R]))",
        )
        .column(
            "Refused",
            Unit::Requests,
            "sum by (peer, tls) (rate(ringmail_requests_total{@, direction='inbound', peer=~'$peer', outcome='refused'}[R]))",
        )
        .leads("workload", &[("peer", "peer")]),
        stack(
            "Certificates issued",
            "What the controller was asked to sign, by outcome and by what the caller showed.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (outcome, credential) (rate(ringmail_controller_certify_requests_total[R]))",
            "{{outcome}}, {{credential}}",
        ),
        lines(
            "Handshakes with the controller",
            "By outcome; anonymous callers come for their first certificate.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (outcome) (rate(ringmail_controller_handshakes_total[R]))",
            "{{outcome}}",
        ),
    ]
}

fn policy() -> Vec<Panel> {
    vec![
        table(
            "Denials by pair and policy",
            "Who was refused by whom, by which policy (none: nothing allows it) and why.",
        )
        .column(
            "Denied",
            Unit::PerSecond,
            "sum by (peer, namespace, workload, policy, reason) (rate(ringmail_denials_total{@, peer=~'$peer', policy=~'$policy', reason!='rate_limited'}[R]))",
        )
        .column(
            "Since the proxies began",
            Unit::Count,
            "sum by (peer, namespace, workload, policy, reason) (ringmail_denials_total{@, peer=~'$peer', policy=~'$policy', reason!='rate_limited'})",
        )
        .leads(
            "workload",
            &[
                ("peer", "peer"),
                ("namespace", "namespace"),
                ("workload", "workload"),
            ],
        )
        .empty("nobody was denied"),
        stack(
            "Decisions by policy",
            "Requests and connections that were judged, by the policy that decided.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (policy, verdict) (rate(ringmail_authorizations_total{@, policy=~'$policy', shadow='false'}[R]))",
            "{{policy}}: {{verdict}}",
        ),
        stack(
            "As it would be",
            "What policies in shadow mode would decide, if they were enforced. What is denied here would be refused then.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (policy, verdict) (rate(ringmail_authorizations_total{@, policy=~'$policy', shadow='true'}[R]))",
            "{{policy}}: {{verdict}}",
        )
        .empty("no policy is in shadow mode"),
        lines(
            "External authorizers",
            "How long they took to answer, by policy and result.",
            Unit::Seconds,
        )
        .asks(
            "histogram_quantile(0.99, sum by (policy, result, le) (rate(ringmail_authorization_check_duration_seconds_bucket{@, policy=~'$policy'}[R])))",
            "{{policy}}: {{result}}, p99",
        )
        .empty("no policy asks one"),
        lines(
            "Out of the mesh",
            "Connections that left it where ringmail.io/egress is audit.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (namespace, workload) (rate(ringmail_egress_audited_total{@}[R]))",
            "{{namespace}}/{{workload}}",
        ),
    ]
}

fn audit() -> Vec<Panel> {
    vec![
        lines(
            "Records",
            "Lines of the audit, refusals (deny) and uses (allow), and those that it has not.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (verdict) (rate(ringmail_audit_records_total{@}[R]))",
            "{{verdict}}",
        )
        .asks("sum(rate(ringmail_audit_lost_total{@}[R]))", "lost"),
        lines(
            "Handed to the collector",
            "Lines that it took or did not, where telemetry.otlp.audit is set.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (result) (rate(ringmail_audit_exports_total{@}[R]))",
            "{{result}}",
        )
        .empty("it is not handed on")
        .needs(Needs::Collector),
    ]
}

fn transport() -> Vec<Panel> {
    vec![
        lines(
            "Plaintext share",
            "The part of what apps got in plaintext, by workload. It is zero where ringmail.io/inbound is strict.",
            Unit::Share,
        )
        .asks(
            "sum by (namespace, workload) (rate(ringmail_requests_total{@, direction='inbound', tls='none', outcome!='refused'}[R]) \
             or rate(ringmail_connections_total{@, direction='inbound', tls='none', outcome!='refused'}[R])) \
             / sum by (namespace, workload) (rate(ringmail_requests_total{@, direction='inbound'}[R]) \
             or rate(ringmail_connections_total{@, direction='inbound'}[R]))",
            "{{namespace}}/{{workload}}",
        )
        .empty("no plaintext"),
        lines(
            "Plaintext refused",
            "Attempts to reach a strict workload in plaintext.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (namespace, workload) (rate(ringmail_refusals_total{@, direction='inbound', reason='mtls_required'}[R]))",
            "{{namespace}}/{{workload}}",
        )
        .empty("no attempts"),
        table(
            "Plaintext by client",
            "Who comes in plaintext, by address, taken or not: whom to mesh next. Each proxy tells 64 addresses apart.",
        )
        .column(
            "Now",
            Unit::PerSecond,
            "sum by (client, namespace, workload) (rate(ringmail_plaintext_total{@}[R]))",
        )
        .column(
            "Since the proxies began",
            Unit::Count,
            "sum by (client, namespace, workload) (ringmail_plaintext_total{@})",
        )
        .leads(
            "workload",
            &[("namespace", "namespace"), ("workload", "workload")],
        )
        .empty("no plaintext"),
        lines(
            "Handshakes that failed",
            "Between proxies, by reason.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (direction, result) (rate(ringmail_handshakes_total{@, result!='ok'}[R]))",
            "{{direction}}: {{result}}",
        )
        .empty("none failed"),
        stack(
            "Key exchange",
            "Of the handshakes that succeeded.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (group) (rate(ringmail_handshakes_total{@, result='ok'}[R]))",
            "{{group}}",
        ),
    ]
}
