//! Why a verdict is what it is, rule by rule, for people: slower than the decision, and made of the same parts.

use std::fmt;

use super::condition::{Asked, Benefit};
use super::effort::Effort;
use super::index::Authorizer;
use super::{Action, Condition, Path, Policy, Rule, Text};

/// A rule that was looked at; or a policy without any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// By its place.
    pub policy: usize,
    /// By its place in the policy.
    pub rule: Option<usize>,
    /// Whether it holds.
    pub holds: bool,
    /// What does not hold, or what is wrong with the policy.
    pub because: Option<String>,
}

impl Authorizer {
    /// Every rule for that port, in order.
    pub fn explain<'a, F>(&self, asked: &Asked<'a, F>) -> Vec<Considered>
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let policies = self.policies().iter().enumerate();
        let here = policies.filter(|(_, policy)| policy.is_for(asked.port));
        let effort = Effort::default();
        here.flat_map(|(at, policy)| policy.consider(at, asked, &effort))
            .collect()
    }
}

impl Policy {
    fn consider<'a, F>(
        &self,
        policy: usize,
        asked: &Asked<'a, F>,
        effort: &Effort,
    ) -> Vec<Considered>
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let whole = |holds, because: String| {
            vec![Considered {
                policy,
                rule: None,
                holds,
                because: Some(because),
            }]
        };
        let rules = match (&self.rules, &self.action) {
            (Err(invalid), _) => return whole(true, format!("cannot be acted on: {invalid}")),
            (Ok(rules), Action::Deny) if rules.is_empty() => {
                return whole(true, "has no rules, and denies everything".to_owned());
            }
            (Ok(rules), Action::Allow) if rules.is_empty() => {
                return whole(false, "has no rules, and allows nothing".to_owned());
            }
            (Ok(rules), Action::External(_)) if rules.is_empty() => {
                return whole(true, "has no rules, and asks about everything".to_owned());
            }
            (Ok(rules), _) => rules,
        };
        let benefit = Benefit::of(&self.action);
        let considered = |(at, rule): (usize, &Rule)| {
            let because = rule.missing(asked, benefit, effort);
            Considered {
                policy,
                rule: Some(at),
                holds: because.is_none(),
                because,
            }
        };
        rules.iter().enumerate().map(considered).collect()
    }
}

impl Rule {
    /// The first part that does not hold.
    fn missing<'a, F>(
        &self,
        asked: &Asked<'a, F>,
        benefit: Benefit,
        effort: &Effort,
    ) -> Option<String>
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let holds = |one: &&Condition| !one.holds(asked, benefit, effort);
        let lacks = |all: &[Condition]| all.iter().find(holds).cloned();
        let none_of = |name: &str, all: &[Vec<Condition>]| {
            if all.is_empty() || all.iter().any(|one| lacks(one).is_none()) {
                return None;
            }
            Some(match all {
                [one] => format!("{name}: {}", lacks(one)?),
                all => format!("{name}: none of {}", all.len()),
            })
        };
        none_of("from", &self.from)
            .or_else(|| none_of("to", &self.to))
            .or_else(|| Some(format!("when: {}", lacks(&self.when)?)))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identities(any) => list(f, "identities", any),
            Self::Namespaces(any) => list(f, "namespaces", any),
            Self::ServiceAccounts(any) => list(f, "serviceAccounts", any),
            Self::TrustDomains(any) => list(f, "trustDomains", any),
            Self::Networks(any) => list(f, "networks", any),
            Self::Unauthenticated(wanted) => write!(f, "unauthenticated {wanted}"),
            Self::Ports(any) => list(f, "ports", any),
            Self::Methods(any) => list(f, "methods", any),
            Self::Paths(any) => list(f, "paths", any),
            Self::Hosts(any) => list(f, "hosts", any),
            Self::Header(name, any) => list(f, &format!("header {name}"), any),
            Self::Claim(name, any) => list(f, &format!("claim {}", name.join(".")), any),
            Self::Expression(expression) => f.write_str(expression.as_str()),
        }
    }
}

/// The first few are enough.
fn list(f: &mut fmt::Formatter<'_>, name: &str, any: &[impl fmt::Display]) -> fmt::Result {
    const SHOWN: usize = 4;
    f.write_str(name)?;
    for (n, one) in any.iter().take(SHOWN).enumerate() {
        write!(f, "{}{one}", if n == 0 { " " } else { ", " })?;
    }
    match any.len() > SHOWN {
        true => write!(f, " and {} more", any.len() - SHOWN),
        false => Ok(()),
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}/**"),
            Self::Template(template) => template.fmt(f),
        }
    }
}
