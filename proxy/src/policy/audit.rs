//! One line for each refusal: who, what, by which rule, and under which name. Never a header's value or a query, which
//! may hold secrets.
//!
//! Limits: [`LINES_PER_SECOND`] of one worker, so that whoever is refused cannot fill the disk (what is not told is
//! counted), and [`PATH_BYTES_MAX`] of a path.

use std::cell::Cell;

use ringmail_proto::policy::{By, Finding};
use ringmail_proto::svid::Svid;

use super::Wanted;
use crate::error::{DecisionId, Reason};
use crate::metrics::NO_IDENTITY;
use crate::snapshot::Authorized;
use crate::tls::identity::Identity;

/// What marks lines of the audit among those of the log.
const TARGET: &str = "ringmail_audit";

/// Lines of one worker in a second.
const LINES_PER_SECOND: u32 = 200;
/// Of a path that is told.
const PATH_BYTES_MAX: usize = 1024;

/// How many lines there were.
#[derive(Debug, Default)]
pub(super) struct Pace {
    second: Cell<i64>,
    lines: Cell<u32>,
}

impl Pace {
    /// Whether another may be told at `now`, in seconds.
    pub(super) fn takes_line(&self, now: i64) -> bool {
        if self.second.replace(now) != now {
            self.lines.set(0);
        }
        let lines = self.lines.get();
        self.lines.set(lines.saturating_add(1));
        lines < LINES_PER_SECOND
    }
}

/// What is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal<'a> {
    pub(super) ground: Ground<'a>,
    pub(super) reason: Reason,
    pub(super) id: DecisionId,
}

/// Why.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ground<'a> {
    /// Of what was found in the policies.
    Policy(Finding),
    /// Of the request's token, which is not told.
    Token {
        /// The object that refuses it.
        object: &'a str,
        problem: &'static str,
    },
    /// Of a rate limit.
    Limit(&'a str),
    /// Of one on what our app asks of others.
    OwnLimit(&'a str),
    /// Of who was asked.
    External {
        policy: &'a str,
        /// Why there is no answer, if there is none.
        problem: Option<&'static str>,
    },
}

impl<'a> Ground<'a> {
    /// The name of what decided, if it has one.
    pub(super) fn policy(&self, authorized: &'a Authorized) -> Option<&'a str> {
        match *self {
            Self::Policy(finding) => match finding.by {
                By::Rule { policy, .. } | By::Policy { policy } => {
                    Some(&*authorized.authorizer.policies().get(policy)?.name)
                }
                By::NoRule | By::Posture => None,
            },
            Self::Token { object, .. } => Some(object),
            Self::Limit(name) | Self::OwnLimit(name) => Some(name),
            Self::External { policy, .. } => Some(policy),
        }
    }
}

pub(super) fn refused(
    authorized: &Authorized,
    wanted: &Wanted<'_>,
    server: Option<&Identity>,
    refusal: Refusal<'_>,
) {
    let name = |at: usize| Some(&*authorized.authorizer.policies().get(at)?.name);
    let (by, policy, rule, problem) = match refusal.ground {
        Ground::Policy(finding) => match finding.by {
            By::Rule { policy, rule } => ("rule", name(policy), Some(rule), None),
            By::Policy { policy } => ("policy", name(policy), None, None),
            By::NoRule => ("no_rule", None, None, None),
            By::Posture => ("posture", None, None, None),
        },
        Ground::Token { object, problem } => ("token", Some(object), None, Some(problem)),
        Ground::Limit(limit) | Ground::OwnLimit(limit) => ("limit", Some(limit), None, None),
        Ground::External { policy, problem } => ("external", Some(policy), None, problem),
    };
    let svid = wanted.client.svid.as_ref();
    let request = wanted.request.map(|(request, _)| request);
    let path = request.map(|request| request.target.split('?').next().unwrap_or_default());
    let path = path.map(|path| &path[..path.floor_char_boundary(PATH_BYTES_MAX)]);
    tracing::warn!(
        target: TARGET,
        decision = %refusal.id,
        verdict = "deny",
        reason = refusal.reason.row().label,
        by,
        policy,
        rule,
        problem,
        version = %authorized.version,
        client = svid.map_or(NO_IDENTITY, |svid| svid.id.as_str()),
        serial = svid.map(|svid| svid.serial.as_str()),
        address = %wanted.client.address,
        server = server.map(|identity| identity.svid.id.as_str()),
        port = wanted.port,
        method = request.map(|request| request.method),
        path,
        "refused by policy"
    );
}

/// What was let through though nobody answered.
pub(super) fn unanswered(wanted: &Wanted<'_>, policy: &str, problem: &'static str) {
    let svid = wanted.client.svid.as_ref();
    tracing::warn!(
        target: TARGET,
        verdict = "allow",
        by = "external",
        policy,
        problem,
        client = svid.map_or(NO_IDENTITY, |svid| svid.id.as_str()),
        serial = svid.map(|svid| svid.serial.as_str()),
        address = %wanted.client.address,
        port = wanted.port,
        "let through without an answer, as the policy has it"
    );
}

/// A client whom nobody trusts any more.
pub(super) fn revoked(svid: &Svid, wanted: &Wanted<'_>, id: DecisionId) {
    tracing::warn!(
        target: TARGET,
        decision = %id,
        verdict = "deny",
        reason = Reason::IdentityRevoked.row().label,
        by = "revocation",
        client = svid.id.as_str(),
        serial = svid.serial.as_str(),
        address = %wanted.client.address,
        port = wanted.port,
        "refused by revocation"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second() {
        let pace = Pace::default();
        let told = |now| (0..1000).filter(|_| pace.takes_line(now)).count();
        assert_eq!([told(1), told(1), told(2)], [200, 0, 200]);
    }
}
