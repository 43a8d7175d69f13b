//! How often one may ask: limits that hold over all proxies together, with no call on any request. Pure: time comes in;
//! what runs in the proxy and in the controller is what the tests run.
//!
//! A limit is a token bucket for each value of its key. The controller's ledger keeps the buckets (`bucket`) and leases
//! tokens from them (`ledger`); a proxy spends what it holds (`lease`). Of a limit on what is under way at once no token is
//! spent or comes in: whoever takes one brings it back.
//!
//! - In any window `w` at most `rate * w + burst` requests are admitted, all proxies together, whatever messages are
//!   late or lost: a lease counts against the burst until it is known to be spent.
//! - A lease holds for `LEASE_TIME` from when the last request that was heard was sent, by the proxy's clock; the
//!   ledger takes it for spent `LEDGER_TIME` after it heard that, by its own. Clocks may differ in pace by 5 %.
//! - A ledger that starts anew gives nothing away for `RESYNC_TIME`: proxies tell it what they remember. Leases of those
//!   that do not come back are what may be admitted beyond the bound, once.
//!
//! Limits: `LIMITS_MAX` limits for a workload, `MATCHES_MAX` alternatives and `KEY_PARTS_MAX` parts of a key in one,
//! `KEY_BYTES_MAX` bytes of a key; those of conditions are as for authorization.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::Invalid;
use crate::policy::{Condition, Mode, Path};

/// The checked types as they travel.
mod wire;

/// Which bucket a request is for, and what it costs.
mod key;

pub use key::{OVERFLOW, Said};

/// One key's tokens.
pub mod bucket;

/// Where the ledger keeps buckets.
pub mod home;

/// Who gets what of what is scarce.
mod share;

/// How much of a key's was used of late.
mod recent;

/// All keys, and the sessions of the proxies.
pub mod ledger;

/// How much it is good for a proxy to hold.
mod demand;

/// What a proxy holds.
pub mod lease;

/// What it says to the ledger.
pub mod session;

/// What it says of one key.
mod holding;

/// A bucket of one proxy's own.
pub mod local;

/// How long a proxy spends leases of which it hears nothing more.
pub const LEASE_TIME: Duration = Duration::from_millis(900);
/// After how long without a word the ledger takes a session's leases for spent.
pub const LEDGER_TIME: Duration = Duration::from_millis(1000);
/// How long a new ledger listens before it leases.
pub const RESYNC_TIME: Duration = LEDGER_TIME;

/// So many tokens in each period, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Tokens that come in during a period, all the time. 0: none does, and those that are taken come back.
    pub tokens: u32,
    /// A second, a minute, an hour or a day.
    pub period: Duration,
    /// Tokens in a full bucket; not 0.
    pub burst: u32,
}

/// Limits of one workload.
pub const LIMITS_MAX: usize = 256;
/// Alternatives of what a limit is for.
pub const MATCHES_MAX: usize = 64;
/// Parts of a key.
pub const KEY_PARTS_MAX: usize = 8;
/// Bytes of a key. Longer ones share one bucket.
pub const KEY_BYTES_MAX: usize = 1024;
/// Tokens in a bucket.
pub const BURST_MAX: u32 = 100_000_000;

/// One limit of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// `namespace/name` of the policy, a slash, and which of its limits: the name of its buckets.
    pub name: Arc<str>,
    /// Whether it is in force.
    pub mode: Mode,
    /// Of whom it says how often.
    pub direction: Direction,
    /// Ports of the workload that it is for; all, if there are none.
    pub ports: Vec<NonZeroU16>,
    /// What it says; or why this version cannot act on it, and refuses all that it is for.
    pub terms: Result<Terms, Invalid>,
}

/// Which way goes what a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What others ask of the workload.
    Inbound,
    /// What the workload asks of others.
    Outbound,
}

/// What a limit says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What is counted.
    pub counts: Counts,
    /// What it is for: any of these, all conditions in one; everything, if there are none.
    pub matches: Vec<Vec<Condition>>,
    /// How much.
    pub pace: Pace,
    /// A bucket for each combination of values; one, if there are none.
    pub key: Vec<KeyPart>,
    /// Tokens of a request, or where the header says nothing.
    pub cost: u32,
    /// The header that says how many tokens a request costs.
    pub cost_header: Option<String>,
    /// For whom together.
    pub scope: Scope,
    /// Without the ledger.
    pub unavailable: Unavailable,
    /// Proxies that it is for; not 0.
    pub proxies: u32,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Requests.
    Requests,
    /// Opaque connections, as they begin.
    Connections,
}

/// What buckets are told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// The caller's SPIFFE ID.
    Identity,
    /// The caller's namespace.
    Namespace,
    /// The caller's namespace and service account.
    ServiceAccount,
    /// The caller's address, as far as these prefixes go.
    Network {
        /// Of an IPv4 address.
        ipv4: u8,
        /// Of an IPv6 address.
        ipv6: u8,
    },
    /// The request's method.
    Method,
    /// The request's host, without its port.
    Host,
    /// The first of these that holds of the request's path; all others are one.
    Paths(Vec<Path>),
    /// The first value of a header.
    Header(String),
    /// A claim of the request's JSON web token.
    Claim(Vec<String>),
    /// The route that a request takes which leaves.
    Route,
}

/// For whom a limit holds together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All proxies.
    Global,
    /// Each proxy by itself.
    Local,
}

/// What becomes of requests while the ledger is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// Each proxy admits its share.
    LocalShare,
    /// All are admitted.
    Allow,
    /// None is.
    Deny,
}

/// As a proxy names a limit that it cannot act on, among policies.
#[must_use]
pub fn denied_name(limit: &str) -> String {
    format!("limit {limit}")
}

impl Pace {
    /// So many at once, however often.
    #[must_use]
    pub fn at_once(burst: u32) -> Self {
        Self {
            tokens: 0,
            period: Duration::from_secs(1),
            burst,
        }
    }

    /// Whether tokens that are taken come back.
    #[must_use]
    pub fn is_at_once(self) -> bool {
        self.tokens == 0
    }

    fn per_second(self) -> f64 {
        f64::from(self.tokens) / self.period.as_secs_f64()
    }

    fn burst_tokens(self) -> f64 {
        f64::from(self.burst)
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod at_once;

#[cfg(test)]
mod tests;
