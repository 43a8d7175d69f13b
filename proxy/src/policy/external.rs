//! What somebody else is told of a request, and what the answer means. Both are pure; the call itself is made in
//! [`crate::app`].

/// What is told.
mod question;

/// What it means.
mod answer;

use std::net::SocketAddr;
use std::sync::Arc;

use ringmail_proto::policy::Verdict;
use ringmail_proto::policy::external::External;

use super::audit::{self, Ground};
use super::{Policies, Wanted};
use crate::error::{Error, Reason};
use crate::records::What;
use crate::tls::identity::unix_now;
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

impl Policies {
    /// Who was asked does not allow it, or does not say so.
    pub(crate) fn refused_by(
        &self,
        wanted: &Wanted<'_>,
        asking: &Asking,
        reason: Reason,
        problem: Option<&'static str>,
    ) -> Error {
        self.metrics
            .authorizations(Some(&asking.policy), Verdict::Deny, false)
            .add(1);
        let current = self.current.borrow();
        let Some(current) = current.as_ref() else {
            return reason.into();
        };
        let ground = Ground::External {
            policy: &asking.policy,
            problem,
        };
        self.refuse(current, wanted, ground, reason)
    }

    /// Who was asked allows it.
    pub(crate) fn let_by(&self, asking: &Asking) {
        self.metrics
            .authorizations(Some(&asking.policy), Verdict::Allow, false)
            .add(1);
    }

    /// Nobody answered, and the policy wants it let through all the same.
    pub(crate) fn let_unanswered(
        &self,
        wanted: &Wanted<'_>,
        asking: &Asking,
        problem: &'static str,
    ) {
        self.let_by(asking);
        let server = self.snapshot.last_identity();
        self.trail.tell(What::Unanswered, unix_now(), |object| {
            let between = (wanted, server.as_deref());
            audit::unanswered(object, between, &asking.policy, problem);
        });
    }
}
