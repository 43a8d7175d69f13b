//! Interception: the pod's TCP connections go through the proxy, by nf_tables rules of ours in the pod's own network
//! namespace. No `nft` and no library of C: netlink messages, made here.
//!
//! - Captured: TCP of IPv4 and IPv6, out and in. Never captured: connections within the pod, the proxy's own, ports and
//!   networks that the plan skips, and what is not TCP.
//! - `apply` replaces all or nothing, in one transaction; doing it twice leaves one set. Before the proxy listens an
//!   app's connection is refused; it does not leave in plaintext.
//! - `apply`, `cleanup`, `in_force` and `verify` need `NET_ADMIN` and run in the init container.
//!   `probe::probe_outbound` needs nothing and tells the running proxy that its rules still hold.
//! - A redirected connection arrives at `127.0.0.1` or `[::1]` (outbound) or at the pod's address (inbound).

use std::{io, net::SocketAddr, os::fd::AsFd};

use socket2::SockRef;

/// What is captured, checked.
pub mod plan;

/// The plan as chains and rules.
mod ruleset;

/// The steps of a rule.
mod expression;

/// The rules in the kernel: put there, taken away, looked for.
mod table;

/// Netlink as bytes.
pub mod netlink;

/// Proof by dialling, before the proxy runs.
mod verify;

/// Proof by dialling, while the proxy runs.
pub mod probe;

pub use plan::{Network, Plan, Settings};
pub use table::{TABLE, apply, cleanup, in_force};
pub use verify::{VERIFY_TIMEOUT, Verified, verify};

/// Why connections are not captured as planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// We lack the capability.
    #[error("not permitted: the NET_ADMIN capability is needed in this network namespace")]
    NotPermitted,
    /// An object is beyond this kernel; inet nat needs Linux 5.2.
    #[error("the kernel refused {object}")]
    Refused {
        /// The table, chain or rule.
        object: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The netlink socket itself failed.
    #[error("netlink failed")]
    Netlink(#[source] io::Error),
    /// The rules are not there, or not as they should be.
    #[error("the rules are not in force: {0}")]
    NotInForce(String),
    /// A connection that should have been captured was not.
    #[error("the connection to {target} was not captured")]
    ProbeFailed {
        /// What was dialled.
        target: SocketAddr,
        /// How it ended.
        source: io::Error,
    },
    /// A captured connection does not tell where it was going.
    #[error("the connection to {target} arrived as one to {found}")]
    WrongDestination {
        /// What was dialled.
        target: SocketAddr,
        /// What the kernel says was dialled.
        found: SocketAddr,
    },
    /// The proxy's own connections would come back to it.
    #[error("the proxy's own connection to {0} was captured")]
    ExemptCaptured(SocketAddr),
    /// Somebody listens where the proxy must.
    #[error("port {port} cannot be listened on")]
    PortTaken {
        /// The outbound port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// No IP version has a route out of the pod that the plan captures.
    #[error("there is no captured route out of the pod to try")]
    NoRoute,
}

/// Where a captured connection was going (`SO_ORIGINAL_DST`) that came `from` there.
pub fn original_destination(socket: &impl AsFd, from: SocketAddr) -> io::Result<SocketAddr> {
    let socket = SockRef::from(socket);
    let original = if from.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    }?;
    original
        .as_socket()
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}
