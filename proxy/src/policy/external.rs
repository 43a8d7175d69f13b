//! What somebody else is told of a request, and what the answer means. Pure; the call itself is made in
//! [`crate::app`].

/// What is told.
mod question;

/// What it means.
mod answer;

use std::net::SocketAddr;
use std::sync::Arc;

use ringmail_proto::policy::external::External;

use super::Wanted;
pub(crate) use answer::{Answer, Denial, read};
pub(crate) use question::question;

/// A policy that asks about a request, and whom.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    /// `namespace/name` of the policy.
    pub(crate) policy: Arc<str>,
    pub(crate) external: Arc<External>,
}

impl Asking {
    /// Whether both ask the same: the answer to one is that to the other.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.policy == other.policy && self.external.service == other.external.service
    }
}

/// A request that somebody is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) wanted: &'a Wanted<'a>,
    /// Our app.
    pub(crate) app: SocketAddr,
    /// Our own SPIFFE ID.
    pub(crate) own: Option<&'a str>,
    /// All of it, if it is to be told.
    pub(crate) body: Option<&'a [u8]>,
}
