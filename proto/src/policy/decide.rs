//! The verdict, and what it rests on.

use super::condition::Asked;
use super::index::{Authorizer, Entry, Made};
use super::{Action, Mode};

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
    fn of(&mut self, action: Action) -> &mut Option<(u32, Entry)> {
        match action {
            Action::Allow => &mut self.allow,
            Action::Deny => &mut self.deny,
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
        let (mut enforced, mut shadow) = (First::default(), First::default());
        self.candidates(asked, |at, entry| {
            let policy = &policies[entry.policy as usize];
            let action = match entry.made {
                Made::Whole => Action::Deny,
                Made::Rule { .. } => policy.action,
            };
            let first = match policy.mode {
                Mode::Enforce => enforced.of(action),
                Mode::Shadow => shadow.of(action),
            };
            if first.is_none_or(|(first, _)| at < first) && entry.holds(policy, asked) {
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
        }
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
