//! What the audit is told of a decision: who, what, by which rule, and under which name. Never a header's value or a query,
//! which may hold secrets. Pure.
//!
//! Limit: [`PATH_BYTES_MAX`] of a path. How much is told in all is for [`crate::records`] to say.

use ringmail_proto::policy::{By, Finding};

use super::Wanted;
use crate::error::{DecisionId, Reason};
use crate::metrics::NO_IDENTITY;
use crate::records::Object;
use crate::snapshot::Authorized;
use crate::tls::identity::Identity;

/// Of a path that is told.
const PATH_BYTES_MAX: usize = 1024;

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

impl Ground<'_> {
    /// The name of what decided, if it has one.
    pub(super) fn policy<'a>(&'a self, authorized: &'a Authorized) -> Option<&'a str> {
        self.told(authorized).policy
    }

    /// What decided, the object it is in, the rule of that, and what was wrong.
    fn told<'a>(&'a self, authorized: &'a Authorized) -> Told<'a> {
        let told = |by, policy| Told {
            by,
            policy,
            rule: None,
            problem: None,
        };
        match *self {
            Ground::Policy(finding) => of_finding(finding, authorized),
            Ground::Token { object, problem } => Told {
                problem: Some(problem),
                ..told("token", Some(object))
            },
            Ground::Limit(limit) | Ground::OwnLimit(limit) => told("limit", Some(limit)),
            Ground::External { policy, problem } => Told {
                problem,
                ..told("external", Some(policy))
            },
        }
    }
}

/// A ground in words.
struct Told<'a> {
    by: &'static str,
    policy: Option<&'a str>,
    rule: Option<usize>,
    problem: Option<&'static str>,
}

impl Told<'_> {
    fn put(&self, object: &mut Object<'_>) {
        object.text("by", self.by);
        object.text_if("policy", self.policy);
        object.number_if("rule", self.rule.map(|rule| rule as u64));
        object.text_if("problem", self.problem);
    }
}

fn of_finding(finding: Finding, authorized: &Authorized) -> Told<'_> {
    let name = |at: usize| Some(&*authorized.authorizer.policies().get(at)?.name);
    let (by, policy, rule) = match finding.by {
        By::Rule { policy, rule } => ("rule", name(policy), Some(rule)),
        By::Policy { policy } => ("policy", name(policy), None),
        By::NoRule => ("no_rule", None, None),
        By::Posture => ("posture", None, None),
    };
    Told {
        by,
        policy,
        rule,
        problem: None,
    }
}

/// Who wants what of whom.
fn put(object: &mut Object<'_>, wanted: &Wanted<'_>, server: Option<&Identity>) {
    let svid = wanted.client.svid.as_ref();
    let request = wanted.request.map(|(request, _)| request);
    let path = request.map(|request| request.target.split('?').next().unwrap_or_default());
    let path = path.map(|path| &path[..path.floor_char_boundary(PATH_BYTES_MAX)]);
    object.text("client", svid.map_or(NO_IDENTITY, |svid| svid.id.as_str()));
    object.text_if("serial", svid.map(|svid| svid.serial.as_str()));
    object.display("address", wanted.client.address);
    object.text_if("server", server.map(|identity| identity.svid.id.as_str()));
    object.number("port", wanted.port);
    object.text_if("method", request.map(|request| request.method));
    object.text_if("path", path);
}

pub(super) fn refused(
    object: &mut Object<'_>,
    authorized: &Authorized,
    (wanted, server): (&Wanted<'_>, Option<&Identity>),
    refusal: Refusal<'_>,
) {
    object.text("message", "refused by policy");
    object.display("decision", refusal.id);
    object.text("verdict", "deny");
    object.text("reason", refusal.reason.row().label);
    refusal.ground.told(authorized).put(object);
    object.display("version", authorized.version);
    put(object, wanted, server);
}

/// A use of what a policy protects.
pub(super) fn used(
    object: &mut Object<'_>,
    authorized: &Authorized,
    (wanted, server): (&Wanted<'_>, Option<&Identity>),
    (finding, id): (Finding, DecisionId),
) {
    object.text("message", "allowed");
    object.display("decision", id);
    object.text("verdict", "allow");
    of_finding(finding, authorized).put(object);
    object.display("version", authorized.version);
    put(object, wanted, server);
}

/// What was let through though nobody answered.
pub(super) fn unanswered(
    object: &mut Object<'_>,
    (wanted, server): (&Wanted<'_>, Option<&Identity>),
    policy: &str,
    problem: &'static str,
) {
    object.text(
        "message",
        "let through without an answer, as the policy has it",
    );
    object.text("verdict", "allow");
    object.text("by", "external");
    object.text("policy", policy);
    object.text("problem", problem);
    put(object, wanted, server);
}

/// A client whom nobody trusts any more.
pub(super) fn revoked(
    object: &mut Object<'_>,
    (wanted, server): (&Wanted<'_>, Option<&Identity>),
    id: DecisionId,
) {
    object.text("message", "refused by revocation");
    object.display("decision", id);
    object.text("verdict", "deny");
    object.text("reason", Reason::IdentityRevoked.row().label);
    object.text("by", "revocation");
    put(object, wanted, server);
}
