//! The verdict, and what it rests on.

use super::condition::Asked;
use super::effort::Effort;
use super::index::{Authorizer, Entry, Made};
use super::{Action, Mode, Policy};

/// May they?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They may.
    Allow,
    /// They may not.
    Deny,
}

/// A verdict, and what policies in shadow mode would have made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What is done.
    pub enforced: Finding,
    /// What would be done if policies in shadow mode were enforced; none if none targets the port.
    pub shadow: Option<Finding>,
    /// Policies may ask somebody else about it: [`Authorizer::asks`] says which. What is denied needs no asking.
    pub may_ask: bool,
}

/// A verdict and its ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// May they?
    pub verdict: Verdict,
    /// Why.
    pub by: By,
}

/// What decided. Policies and rules are told by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A rule that holds.
    Rule {
        /// Of this policy.
        policy: usize,
        /// By its place in it.
        rule: usize,
    },
    /// A policy that denies without rules, or that this version cannot act on.
    Policy {
        /// This one.
        policy: usize,
    },
    /// There are rules that allow, and none of them holds.
    NoRule,
    /// No policy speaks of it.
    Posture,
}

/// The first entry of each kind that holds.
#[derive(Debug, Clone, Copy, Default)]
struct First {
    deny: Option<(u32, Entry)>,
    allow: Option<(u32, Entry)>,
}

impl First {
    fn of(&mut self, verdict: Verdict) -> &mut Option<(u32, Entry)> {
        match verdict {
            Verdict::Allow => &mut self.allow,
            Verdict::Deny => &mut self.deny,
        }
    }

    /// The earlier of both, kind by kind.
    fn or(self, other: Self) -> Self {
        let earlier = |one: Option<(u32, Entry)>, other: Option<(u32, Entry)>| match (one, other) {
            (Some(one), Some(other)) if other.0 < one.0 => Some(other),
            (None, other) => other,
            (one, _) => one,
        };
        Self {
            deny: earlier(self.deny, other.deny),
            allow: earlier(self.allow, other.allow),
        }
    }
}

impl Authorizer {
    /// What is done with what is asked.
    pub fn decide<'a, F>(&self, asked: &Asked<'a, F>) -> Decision
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let policies = self.policies();
        let effort = Effort::default();
        let (mut enforced, mut shadow) = (First::default(), First::default());
        self.candidates(asked, |at, entry| {
            let policy = &policies[entry.policy as usize];
            let Some(verdict) = policy.verdict(asked.http.is_some()) else {
                return;
            };
            let first = match policy.mode {
                Mode::Enforce => enforced.of(verdict),
                Mode::Shadow => shadow.of(verdict),
            };
            if first.is_none_or(|(first, _)| at < first) && entry.holds(policy, asked, &effort) {
                *first = Some((at, entry));
            }
        });
        let targeted = self.targeted(asked.port);
        let without = || self.without_policy(asked);
        Decision {
            enforced: finding(enforced, targeted.allowed, without),
            shadow: targeted.in_shadow.then(|| {
                let allowed = targeted.allowed || targeted.allowed_in_shadow;
                finding(enforced.or(shadow), allowed, without)
            }),
            may_ask: targeted.external && asked.http.is_some(),
        }
    }

    /// Policies that ask somebody else about a request, by their places and in their order.
    pub fn asks<'a, F>(&self, asked: &Asked<'a, F>) -> Vec<usize>
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let policies = self.policies();
        let (effort, mut found) = (Effort::default(), Vec::new());
        self.candidates(asked, |_, entry| {
            let at = entry.policy as usize;
            let policy = &policies[at];
            if policy.asks() && !found.contains(&at) && entry.holds(policy, asked, &effort) {
                found.push(at);
            }
        });
        found.sort_unstable();
        found
    }

    fn without_policy<F>(&self, asked: &Asked<'_, F>) -> Finding {
        let caller = asked.caller;
        let may = self
            .posture
            .allows(caller.identity, caller.address, &self.cluster_networks);
        Finding {
            verdict: if may { Verdict::Allow } else { Verdict::Deny },
            by: By::Posture,
        }
    }
}

impl Policy {
    /// What follows where one of its entries holds; none where somebody else is asked.
    fn verdict(&self, is_http: bool) -> Option<Verdict> {
        match (&self.action, &self.rules) {
            (_, Err(_)) | (Action::Deny, Ok(_)) => Some(Verdict::Deny),
            (Action::Allow, Ok(_)) => Some(Verdict::Allow),
            (Action::External(_), Ok(_)) => (!is_http).then_some(Verdict::Deny),
        }
    }
}

fn finding(first: First, has_allow: bool, without: impl FnOnce() -> Finding) -> Finding {
    match (first.deny, first.allow) {
        (Some((_, entry)), _) => Finding {
            verdict: Verdict::Deny,
            by: entry.into(),
        },
        (None, Some((_, entry))) => Finding {
            verdict: Verdict::Allow,
            by: entry.into(),
        },
        (None, None) if has_allow => Finding {
            verdict: Verdict::Deny,
            by: By::NoRule,
        },
        (None, None) => without(),
    }
}

impl From<Entry> for By {
    fn from(entry: Entry) -> Self {
        let policy = entry.policy as usize;
        match entry.made {
            Made::Whole => Self::Policy { policy },
            Made::Rule { rule, .. } => Self::Rule {
                policy,
                rule: rule as usize,
            },
        }
    }
}
