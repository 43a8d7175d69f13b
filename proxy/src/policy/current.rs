//! What is in force on one worker, and its counters.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

use ringmail_proto::policy::{Action, Asked, By, Caller, Decision, Finding, Http, Mode, Verdict};

use super::Wanted;
use super::external::Asking;
use super::token::Known;
use crate::http::neutral::{Fields, Request};
use crate::metrics::Metrics;
use crate::metrics::sharded::Counter;
use crate::snapshot::Authorized;

/// What is in force.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) authorized: Arc<Authorized>,
    counters: Vec<OnceCell<Counter>>,
    /// Tokens that were good by this.
    pub(super) known: RefCell<Known>,
}

impl Current {
    pub(super) fn new(authorized: Arc<Authorized>, known: Known) -> Self {
        // For each policy, and for none, by verdict, enforced or in shadow.
        let counters = (authorized.authorizer.policies().len() + 1) * 4;
        Self {
            authorized,
            counters: (0..counters).map(|_| OnceCell::new()).collect(),
            known: known.into(),
        }
    }

    pub(super) fn decide(&self, wanted: &Wanted<'_>) -> Decision {
        self.authorized.authorizer.decide(&asked(wanted))
    }

    /// Whether a policy in force is for that port.
    pub(super) fn protects(&self, port: u16) -> bool {
        let mut policies = self.authorized.authorizer.policies().iter();
        policies.any(|policy| policy.mode == Mode::Enforce && policy.is_for(port))
    }

    /// Who else is asked; nobody, and at no cost, where no policy asks.
    pub(super) fn asking(&self, decision: Decision, wanted: &Wanted<'_>) -> Vec<Asking> {
        if !decision.may_ask {
            return Vec::new();
        }
        let authorizer = &self.authorized.authorizer;
        let asking = |at: usize| {
            let policy = authorizer.policies().get(at)?;
            let Action::External(external) = &policy.action else {
                return None;
            };
            Some(Asking {
                policy: policy.name.clone(),
                external: external.clone(),
            })
        };
        let all = authorizer.asks(&asked(wanted)).into_iter();
        all.filter_map(asking).collect()
    }

    pub(super) fn count(&self, finding: Finding, is_shadow: bool, metrics: &Metrics) {
        let policies = self.authorized.authorizer.policies();
        let policy = match finding.by {
            By::Rule { policy, .. } | By::Policy { policy } => policy,
            By::NoRule | By::Posture => policies.len(),
        };
        let is_denied = finding.verdict == Verdict::Deny;
        let at = policy * 4 + usize::from(is_denied) * 2 + usize::from(is_shadow);
        let Some(counter) = self.counters.get(at) else {
            return;
        };
        let resolve = || {
            let name = policies.get(policy).map(|policy| &*policy.name);
            metrics.authorizations(name, finding.verdict, is_shadow)
        };
        counter.get_or_init(resolve).add(1);
    }
}

/// What policies ask about.
pub(super) fn asked<'a>(wanted: &Wanted<'a>) -> Asked<'a, Fields<'a>> {
    Asked {
        caller: Caller {
            identity: wanted.client.svid.as_ref().map(|svid| &svid.id),
            address: wanted.client.address,
        },
        port: wanted.port,
        http: wanted.request.map(|request| Http {
            claims: wanted.token.map(|token| &token.claims),
            ..http(request)
        }),
    }
}

/// A request without a token.
pub(super) fn http<'a>((request, fields): (Request<'a>, Fields<'a>)) -> Http<'a, Fields<'a>> {
    Http {
        method: request.method,
        path: request.target.split('?').next().unwrap_or_default(),
        host: fields
            .first("host")
            .and_then(|host| std::str::from_utf8(host).ok()),
        fields,
        claims: None,
    }
}
