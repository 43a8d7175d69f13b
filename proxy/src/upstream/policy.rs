//! What a route says about time and about trying again. The default is what holds where no route says anything.

use std::time::Duration;

/// How one request is to be treated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// From the request's head to the end of the response, all tries included.
    pub(crate) request_timeout: Option<Duration>,
    /// The same for each single try.
    pub(crate) backend_timeout: Option<Duration>,
    /// When an answer is not good enough. Without it no status is retried; what was refused unprocessed is, and an
    /// idempotent request that was not answered.
    pub(crate) retry: Option<Retry>,
}

/// A route's word on trying again (Gateway API, `HTTPRouteRetry`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Tries beyond the first; none at all when it is 0.
    pub(crate) attempts: u32,
    /// Statuses that are retried, whatever the method.
    pub(crate) statuses: Vec<u16>,
    /// Before the first retry; doubles with each.
    pub(crate) backoff: Duration,
}
