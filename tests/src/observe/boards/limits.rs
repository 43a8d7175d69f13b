//! What is limited.

use super::{NAMESPACE, WORKLOAD, variable};
use crate::observe::board::{Bad, Board, Needs, Panel, Row, Unit, figure, lines, stack, table};

pub(super) fn board() -> Board {
    Board {
        name: "limits",
        title: "Rate limits",
        description: "What each rate limit lets through and refuses, how near to full it is, and whether its ledger is there.",
        variables: vec![
            NAMESPACE,
            WORKLOAD,
            variable("limit", "Limit", "ringmail_rate_limit_decisions_total{@}"),
        ],
        rows: vec![
            Row {
                title: "Now",
                panels: now(),
            },
            Row {
                title: "Decisions",
                panels: decisions(),
            },
            Row {
                title: "Ledger",
                panels: ledger(),
            },
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        figure(
            "Judged",
            "Requests and connections that a limit was for.",
            Unit::PerSecond,
            "sum(rate(ringmail_rate_limit_decisions_total{@, limit=~'$limit', shadow='false'}[R]))",
        )
        .empty("no limits"),
        figure(
            "Refused",
            "The part that was refused.",
            Unit::Share,
            "(sum(rate(ringmail_rate_limit_decisions_total{@, limit=~'$limit', shadow='false', outcome='refused'}[R])) or vector(0)) \
             / (sum(rate(ringmail_rate_limit_decisions_total{@, limit=~'$limit', shadow='false'}[R])) > 0)",
        )
        .empty("no limits")
        .bad(Bad::Above(0.05, 0.5)),
        figure(
            "Fullest limit",
            "The part of what it lets through that the busiest key of the fullest limit used of late.",
            Unit::Share,
            "max(ringmail_controller_ledger_share_used{limit=~'$limit'})",
        )
        .empty("no global limits")
        .bad(Bad::Above(0.8, 1.0)),
        figure(
            "Proxies that lease",
            "Those that get tokens from the ledger.",
            Unit::Count,
            "sum(ringmail_rate_limit_ledger_up{@})",
        ),
        figure(
            "Without ledger",
            "Proxies whose limits do as onUnavailable says.",
            Unit::Count,
            "sum(ringmail_rate_limit_fallback_active{@})",
        )
        .bad(Bad::Above(1.0, 1.0)),
        figure(
            "Ledger is kept",
            "By how many controllers: by the leader in memory, or by all in Redis.",
            Unit::Count,
            "sum(ringmail_controller_ledger_home_up)",
        )
        .empty("no controller is scraped")
        .bad(Bad::Below(1.0, 1.0)),
    ]
}

fn decisions() -> Vec<Panel> {
    vec![
        stack(
            "By limit",
            "What limits decided.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (limit, outcome) (rate(ringmail_rate_limit_decisions_total{@, limit=~'$limit', shadow='false'}[R]))",
            "{{limit}}: {{outcome}}",
        ),
        stack(
            "As it would be",
            "What limits in shadow mode would decide, if they were enforced.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (limit, outcome) (rate(ringmail_rate_limit_decisions_total{@, limit=~'$limit', shadow='true'}[R]))",
            "{{limit}}: {{outcome}}",
        )
        .empty("no limit is in shadow mode"),
        lines(
            "Used",
            "The part of what a limit lets through that its busiest key used of late; at 1 it refuses.",
            Unit::Share,
        )
        .asks(
            "max by (limit) (ringmail_controller_ledger_share_used{limit=~'$limit'})",
            "{{limit}}",
        )
        .bad(Bad::Above(0.8, 1.0))
        .empty("no global limits"),
        lines(
            "Waiting for tokens",
            "How long requests waited, of those that did; 5 ms at most.",
            Unit::Seconds,
        )
        .quantiles("ringmail_rate_limit_wait_duration_seconds_bucket{@}", "")
        .empty("none waited"),
        table("Limits by workload", "Where limits decide.")
            .column(
                "Let through",
                Unit::PerSecond,
                "sum by (limit, scope, namespace, workload) (rate(ringmail_rate_limit_decisions_total{@, limit=~'$limit', shadow='false', outcome='admitted'}[R]))",
            )
            .column(
                "Refused",
                Unit::PerSecond,
                "sum by (limit, scope, namespace, workload) (rate(ringmail_rate_limit_decisions_total{@, limit=~'$limit', shadow='false', outcome='refused'}[R]))",
            )
            .leads(
                "workload",
                &[("namespace", "namespace"), ("workload", "workload")],
            )
            .empty("no limits"),
        table(
            "Who was refused",
            "By identity; a limit of a caller's own is refused at the caller's proxy where that knows it to be exhausted.",
        )
        .column(
            "Refused",
            Unit::PerSecond,
            "sum by (peer, policy, namespace, workload) (rate(ringmail_denials_total{@, reason='rate_limited'}[R]))",
        )
        .empty("nobody"),
    ]
}

fn ledger() -> Vec<Panel> {
    vec![
        lines(
            "Answers of the ledger",
            "From what a proxy says to the ledger to its answer.",
            Unit::Seconds,
        )
        .quantiles("ringmail_rate_limit_ledger_duration_seconds_bucket{@}", "")
        .empty("it is not asked"),
        lines(
            "Sessions",
            "Proxies that lease, by controller.",
            Unit::Count,
        )
        .asks("ringmail_controller_ledger_sessions", "{{instance}}"),
        lines(
            "Tokens",
            "Leased to proxies, and given back unspent.",
            Unit::PerSecond,
        )
        .asks(
            "sum(rate(ringmail_controller_ledger_tokens_leased_total[R]))",
            "leased",
        )
        .asks(
            "sum(rate(ringmail_controller_ledger_tokens_returned_total[R]))",
            "returned",
        ),
        lines(
            "Exchanges with Redis",
            "Where the ledger is kept there, by outcome.",
            Unit::PerSecond,
        )
        .asks(
            "sum by (outcome) (rate(ringmail_controller_ledger_exchanges_total[R]))",
            "{{outcome}}",
        )
        .empty("the ledger is in memory")
        .needs(Needs::Redis),
        lines("Time of an exchange with Redis", "Of each.", Unit::Seconds)
            .quantiles("ringmail_controller_ledger_exchange_seconds_bucket", "")
            .empty("the ledger is in memory")
            .needs(Needs::Redis),
    ]
}
