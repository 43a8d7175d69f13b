//! Who may do what with a workload: policies as they were checked, and the decision. Pure: the proxy, the command line,
//! the admission check and the tests decide alike.
//!
//! - `deny` beats `allow`. Where an enforced `allow` policy targets a port, what no rule allows there is denied; elsewhere
//!   the `Posture` decides. About what is allowed by then, `external` policies ask somebody else, who can only refuse.
//! - An `allow` policy without rules allows nothing; a `deny` policy without rules denies everything; an `external` one
//!   without rules asks about everything.
//! - What cannot be evaluated never weakens anything: a condition that this version does not know, or an expression that
//!   fails, does not hold in a rule that allows and holds in one that denies or asks; so do conditions on HTTP where a
//!   connection is opaque. About one of these nobody can be asked: what a rule would ask about is denied.
//! - A deny rule about paths holds for `OPTIONS *` and CONNECT, one about hosts where a request has none.
//! - A header that is there several times has to match in each of its values to be allowed, and in one to be denied.
//! - A policy in shadow mode decides nothing; what it would decide together with the others is told beside the verdict.
//!
//! Limits: `POLICIES_MAX` policies, `RULES_MAX` rules a policy, `ALTERNATIVES_MAX` of `from` and of `to` in a rule,
//! `CONDITIONS_MAX` conditions in one of these, `VALUES_MAX` values a condition, `TEXT_BYTES_MAX` bytes a value, and
//! `ENTRIES_MAX` combinations of all of them and `AUTHORIZATION_BYTES_MAX` bytes for a workload.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;

use authentication::Authentication;
use external::External;

use crate::Invalid;
use crate::identity::SpiffeId;
use crate::limit::Limit;

/// The checked types as they travel.
pub(crate) mod wire;

/// Does a condition hold?
pub(crate) mod condition;

/// Conditions in CEL.
mod expression;

/// What a decision may cost.
mod effort;

/// Finding the few rules that can hold among many.
mod index;

/// The verdict.
mod decide;

/// Somebody else who is asked.
pub mod external;

/// Whose JSON web tokens are good.
pub mod authentication;

/// Why it is what it is.
mod explain;

pub use condition::{Asked, Caller, Claims, Http, claim_of};
pub use decide::{By, Decision, Finding, Verdict};
pub use effort::Effort;
pub use explain::Considered;
pub use expression::Expression;
pub use index::Authorizer;

/// Policies that target one workload.
pub const POLICIES_MAX: usize = 1024;
/// Rules of one policy.
pub const RULES_MAX: usize = 512;
/// Alternatives of `from`, and of `to`, in one rule.
pub const ALTERNATIVES_MAX: usize = 64;
/// Conditions in one alternative, and in `when`.
pub const CONDITIONS_MAX: usize = 32;
/// Values of one condition.
pub const VALUES_MAX: usize = 256;
/// Bytes of one value.
pub const TEXT_BYTES_MAX: usize = 2048;
/// Alternatives of `from` by alternatives of `to`, over all rules for one workload. What is beyond denies.
pub const ENTRIES_MAX: usize = 65_536;
/// Policies that a proxy names which it cannot act on; of what comes after the last of so many nothing is known.
pub const DENIED_MAX: usize = 32;

/// Objects about JSON web tokens that target one workload.
pub const AUTHENTICATIONS_MAX: usize = 64;

/// Bytes of all that is told of one workload.
pub const AUTHORIZATION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// All that decides who may do what with one workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorization {
    /// For those no policy speaks of.
    pub posture: Posture,
    /// What [`Posture::Cluster`] means by the cluster.
    pub cluster_networks: Vec<IpNet>,
    /// When several decide alike, the first is named.
    pub policies: Vec<Policy>,
    /// What is made of JSON web tokens.
    pub authentications: Vec<Authentication>,
    /// How often.
    pub limits: Vec<Limit>,
}

/// What becomes of a caller that no policy speaks of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Posture {
    /// Nobody may.
    Deny,
    /// Whoever has an identity may.
    #[default]
    Mesh,
    /// So may who comes from the cluster's networks.
    Cluster,
    /// Everybody may.
    Open,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// What its rules do.
    pub action: Action,
    /// Whether they do it.
    pub mode: Mode,
    /// Ports of the workload that it is for; all, if there are none.
    pub ports: Vec<NonZeroU16>,
    /// What it says; or why this version cannot act on it, and denies instead.
    pub rules: Result<Vec<Rule>, Invalid>,
}

/// What a policy's rules do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// They let through.
    Allow,
    /// They refuse.
    Deny,
    /// They say what is asked about; of requests only, and only where the policy is enforced.
    External(Arc<External>),
}

/// Whether a policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Enforce,
    /// It is only counted.
    Shadow,
}

/// One of `from`, one of `to` and all of `when`; what is empty holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Who asks.
    pub from: Vec<Vec<Condition>>,
    /// For what.
    pub to: Vec<Vec<Condition>>,
    /// And how.
    pub when: Vec<Condition>,
}

/// Something that holds of a request or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The caller's SPIFFE ID is one of these.
    Identities(Vec<Text>),
    /// The caller's namespace is one of these.
    Namespaces(Vec<String>),
    /// The caller's namespace and service account are one of these, as `namespace/name`.
    ServiceAccounts(Vec<String>),
    /// The caller's trust domain is one of these.
    TrustDomains(Vec<String>),
    /// The connection comes from one of these.
    Networks(Vec<IpNet>),
    /// The caller has no identity, or has one.
    Unauthenticated(bool),
    /// The workload's port is one of these.
    Ports(Vec<NonZeroU16>),
    /// The request's method is one of these.
    Methods(Vec<String>),
    /// The request's path is one of these.
    Paths(Vec<Path>),
    /// The request's host, without its port, is one of these.
    Hosts(Vec<Host>),
    /// A header has one of these values, or any, if there are none.
    Header(String, Vec<Text>),
    /// A claim of the request's JSON web token has one of these values, or any, if there are none.
    Claim(Vec<String>, Vec<Text>),
    /// It holds of the request.
    Expression(Expression),
}

/// Which texts, literally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// This one.
    Exact(String),
    /// What begins with it.
    Prefix(String),
}

/// Which paths, in the normal form of requests' paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// This one.
    Exact(String),
    /// This one and what is below it, by whole elements; without a slash at its end.
    Prefix(String),
    /// Element by element.
    Template(Template),
}

/// A path whose elements may vary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Each is literal, or any that is not empty.
    pub elements: Vec<Option<String>>,
    /// Whether any number of others may follow.
    pub open: bool,
}

/// Which hosts, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// This one.
    Exact(String),
    /// Every name below this one, which is kept with the dot before it.
    Below(String),
}

impl Condition {
    /// Whether it can only be told of an HTTP request.
    #[must_use]
    pub fn needs_http(&self) -> bool {
        match self {
            Self::Identities(_)
            | Self::Namespaces(_)
            | Self::ServiceAccounts(_)
            | Self::TrustDomains(_)
            | Self::Networks(_)
            | Self::Unauthenticated(_)
            | Self::Ports(_) => false,
            Self::Methods(_)
            | Self::Paths(_)
            | Self::Hosts(_)
            | Self::Header(..)
            | Self::Claim(..) => true,
            Self::Expression(expression) => expression.needs_http(),
        }
    }
}

impl Posture {
    /// Whether such a caller may.
    pub(crate) fn allows(
        self,
        identity: Option<&SpiffeId>,
        address: IpAddr,
        cluster: &[IpNet],
    ) -> bool {
        match self {
            Self::Deny => false,
            Self::Mesh => identity.is_some(),
            Self::Cluster => {
                identity.is_some() || cluster.iter().any(|network| network.contains(&address))
            }
            Self::Open => true,
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod oracle;
