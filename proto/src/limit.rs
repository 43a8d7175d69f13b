//! How often one may ask: limits that hold over all proxies together, with no call on any request. Pure: time comes in;
//! what runs in the proxy and in the controller is what the tests run.
//!
//! A limit is a token bucket for each value of its key. The controller's ledger keeps the buckets (`bucket`) and leases
//! tokens from them (`ledger`); a proxy spends what it holds (`lease`).
//!
//! - In any window `w` at most `rate * w + burst` requests are admitted, all proxies together, whatever messages are
//!   late or lost: a lease counts against the burst until it is known to be spent.
//! - A lease holds for `LEASE_TIME` from when the last request that was heard was sent, by the proxy's clock; the
//!   ledger takes it for spent `LEDGER_TIME` after it heard that, by its own. Clocks may differ in pace by 5 %.
//! - A ledger that starts anew gives nothing away for `RESYNC_TIME`: proxies tell it what they remember. Leases of those
//!   that do not come back are what may be admitted beyond the bound, once.

use std::time::Duration;

/// One key's tokens.
pub mod bucket;

/// Where the ledger keeps buckets.
pub mod home;

/// Who gets what of what is scarce.
mod share;

/// All keys, and the sessions of the proxies.
pub mod ledger;

/// What a proxy holds.
pub mod lease;

/// How long a proxy spends leases of which it hears nothing more.
pub const LEASE_TIME: Duration = Duration::from_millis(900);
/// After how long without a word the ledger takes a session's leases for spent.
pub const LEDGER_TIME: Duration = Duration::from_millis(1000);
/// How long a new ledger listens before it leases.
pub const RESYNC_TIME: Duration = LEDGER_TIME;

/// So many tokens in each period, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Tokens that come in during a period, all the time; not 0.
    pub tokens: u32,
    /// A second, a minute, an hour or a day.
    pub period: Duration,
    /// Tokens in a full bucket; not 0.
    pub burst: u32,
}

impl Pace {
    fn per_second(self) -> f64 {
        f64::from(self.tokens) / self.period.as_secs_f64()
    }

    fn burst_tokens(self) -> f64 {
        f64::from(self.burst)
    }
}

#[cfg(test)]
mod model;
