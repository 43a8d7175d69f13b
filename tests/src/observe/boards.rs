//! The dashboards, one file each: from the whole mesh to one workload, and what each part of the mesh is about.

use super::board::{Board, Variable};

/// Figures that stand on more than one of them.
mod shared;

/// Is all well, and where not?
mod overview;

/// One workload, from both sides.
mod workload;

/// Requests by service and route.
mod route;

/// Identities, certificates, who was refused.
mod security;

/// What is limited.
mod limits;

/// The controller, and whether proxies follow it.
mod control;

/// What is no HTTP.
mod tcp;

/// All of them.
#[must_use]
pub fn all() -> Vec<Board> {
    vec![
        overview::board(),
        workload::board(),
        route::board(),
        security::board(),
        limits::board(),
        control::board(),
        tcp::board(),
    ]
}

const fn variable(name: &'static str, label: &'static str, series: &'static str) -> Variable {
    Variable {
        name,
        label,
        series,
    }
}

/// Of every proxy there is.
const NAMESPACE: Variable = variable("namespace", "Namespace", "ringmail_build_info");
const WORKLOAD: Variable = variable(
    "workload",
    "Workload",
    "ringmail_build_info{namespace=~'$namespace'}",
);
/// Identities, of those who call or are called.
const PEER: Variable = variable(
    "peer",
    "Peer",
    "{__name__=~'ringmail_requests_total|ringmail_connections_total', @}",
);
