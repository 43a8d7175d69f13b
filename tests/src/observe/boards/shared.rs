//! Figures that stand on more than one board.

use crate::observe::board::{Bad, Panel, Unit, figure};

/// How much of what apps get is over mutual TLS.
pub(super) fn mutual_tls() -> Panel {
    figure(
        "Mutual TLS",
        "The part of requests and connections that apps got over mutual TLS. The rest came in plaintext to workloads that \
         take that (ringmail.io/inbound: permissive).",
        Unit::Share,
        "sum(rate(ringmail_requests_total{@, direction='inbound', tls='mutual'}[R]) \
         or rate(ringmail_connections_total{@, direction='inbound', tls='mutual'}[R])) \
         / (sum(rate(ringmail_requests_total{@, direction='inbound'}[R]) \
         or rate(ringmail_connections_total{@, direction='inbound'}[R])) > 0)",
    )
    .empty("no traffic")
    .bad(Bad::Below(0.999_999, 0.9))
}

/// How long all certificates last.
pub(super) fn first_certificate() -> Panel {
    figure(
        "Certificate that ends first",
        "How long the certificate lasts that ends first. Proxies renew at about half of its life; where it ends, nothing \
         is let in or out.",
        Unit::Seconds,
        "min(ringmail_certificate_expiry_timestamp_seconds{@} - time())",
    )
    .bad(Bad::Below(600.0, 60.0))
}

/// Who has no proxy.
pub(super) fn pods_uncovered() -> Panel {
    figure(
        "Pods without a sidecar",
        "Running pods that should have one and have none; `ringmail coverage` lists them.",
        Unit::Count,
        "max(ringmail_controller_pods_uncovered)",
    )
    .empty("no controller is scraped")
    .bad(Bad::Above(1.0, 1.0))
}
