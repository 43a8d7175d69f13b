//! Finding the few rules that can hold among many: each combination of a rule's `from` and `to` is an entry, filed under
//! port, caller and path or host, as far as these are literal. What is found is checked whole, so a key says only where
//! to look; that two texts share one costs time and nothing else. A look-up does not allocate.
//!
//! Limits: `FILINGS_MAX` keys, beyond which entries are looked at for every request of their port.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::condition::{Asked, Benefit};
use super::effort::{Effort, REMEMBERED_MAX};
use super::external::EXTERNALS_MAX;
use super::{Action, Authorization, Condition, ENTRIES_MAX, Mode, Policy, Posture, Rule};
use crate::Invalid;

/// What entries are filed under.
mod key;

use key::{ANY, Hashed, OPAQUE, Part, Shapes, key};

/// Keys of all entries together.
pub(super) const FILINGS_MAX: usize = 262_144;

/// Decides for one workload.
#[derive(Debug)]
pub struct Authorizer {
    pub(super) posture: Posture,
    pub(super) cluster_networks: Vec<ipnet::IpNet>,
    policies: Vec<Policy>,
    entries: Vec<Entry>,
    filed: HashMap<u64, Vec<u32>, BuildHasherDefault<Hashed>>,
    pub(super) filings: usize,
    shapes: Shapes,
    /// Elements of the longest prefix that anything is filed under: longer ones need no look-up.
    depth: usize,
    /// Rules whose `when` is remembered.
    numbered: u8,
    /// Ports that a rule about HTTP names.
    http_ports: Vec<u16>,
    /// By policies for all ports, and by those for some.
    targeted: (Targeted, HashMap<u16, Targeted>),
}

/// What kinds of policies target a port.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Targeted {
    /// Enforced ones that allow.
    pub(super) allowed: bool,
    /// Ones in shadow mode that allow.
    pub(super) allowed_in_shadow: bool,
    /// Ones in shadow mode.
    pub(super) in_shadow: bool,
    /// Ones that ask somebody else.
    pub(super) external: bool,
}

impl Targeted {
    fn add(&mut self, policy: &Policy) {
        let allows = policy.action == Action::Allow;
        match policy.mode {
            Mode::Enforce => {
                self.allowed |= allows;
                self.external |= policy.asks();
            }
            Mode::Shadow => {
                self.in_shadow = true;
                self.allowed_in_shadow |= allows;
            }
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            allowed: self.allowed || other.allowed,
            allowed_in_shadow: self.allowed_in_shadow || other.allowed_in_shadow,
            in_shadow: self.in_shadow || other.in_shadow,
            external: self.external || other.external,
        }
    }
}

/// One combination of a rule's `from` and `to`; or a whole policy, for whatever its ports are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) policy: u32,
    pub(super) made: Made,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Made {
    /// Without a rule, or none that can be evaluated.
    Whole,
    /// Indices of the rule, and of its alternatives, where it has any.
    Rule {
        rule: u32,
        from: Option<u32>,
        to: Option<u32>,
        /// Under which its `when` is remembered, if that is worth it.
        number: Option<u8>,
    },
}

impl Authorizer {
    /// Files all entries.
    #[must_use]
    pub fn new(authorization: Authorization) -> Self {
        let mut new = Self {
            posture: authorization.posture,
            cluster_networks: authorization.cluster_networks,
            policies: authorization.policies,
            entries: Vec::new(),
            filed: HashMap::default(),
            filings: 0,
            shapes: Shapes::default(),
            depth: 0,
            numbered: 0,
            http_ports: Vec::new(),
            targeted: Default::default(),
        };
        let mut policies = std::mem::take(&mut new.policies);
        let mut externals = 0;
        for (at, policy) in policies.iter_mut().enumerate() {
            externals += usize::from(policy.asks());
            if externals > EXTERNALS_MAX && policy.asks() {
                let problem = format!("is one of more than {EXTERNALS_MAX} external ones");
                policy.rules = Err(Invalid::new("action", problem));
            }
            let count = policy
                .rules
                .as_ref()
                .map_or(0, |rules| rules.iter().map(Rule::entries).sum());
            if new.entries.len() + count > ENTRIES_MAX {
                let problem =
                    format!("with those of other policies make more than {ENTRIES_MAX} entries");
                policy.rules = Err(Invalid::new("rules", problem));
            }
            new.target(policy);
            new.file_policy(at, policy);
        }
        new.policies = policies;
        new.http_ports.sort_unstable();
        new.http_ports.dedup();
        new
    }

    /// The policies, in their order.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// For callers that no policy speaks of.
    #[must_use]
    pub fn posture(&self) -> Posture {
        self.posture
    }

    /// Whether bytes that are no HTTP are refused there: a rule about HTTP names the port.
    #[must_use]
    pub fn requires_http(&self, port: u16) -> bool {
        self.http_ports.binary_search(&port).is_ok()
    }

    /// What targets a port.
    pub(super) fn targeted(&self, port: u16) -> Targeted {
        let (everywhere, by_port) = &self.targeted;
        by_port
            .get(&port)
            .map_or(*everywhere, |here| everywhere.or(*here))
    }

    fn target(&mut self, policy: &Policy) {
        let (everywhere, by_port) = &mut self.targeted;
        if policy.ports.is_empty() {
            everywhere.add(policy);
        }
        for port in &policy.ports {
            by_port.entry(port.get()).or_default().add(policy);
        }
    }

    /// Entries that can hold, each at least once, in no order.
    pub(super) fn candidates<'a, F>(&self, asked: &Asked<'a, F>, mut look: impl FnMut(u32, Entry))
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        if self.entries.is_empty() {
            return;
        }
        let callers = self.shapes.callers(asked);
        let mut look_up = |leaf: Part| {
            for port in [None, Some(asked.port)] {
                for caller in callers.into_iter().flatten() {
                    if !self.shapes.has(port, caller.kind, leaf.kind) {
                        continue;
                    }
                    let found = self.filed.get(&key(port, caller, leaf));
                    for at in found.into_iter().flatten() {
                        look(*at, self.entries[*at as usize]);
                    }
                }
            }
        };
        look_up(ANY);
        match &asked.http {
            None => look_up(OPAQUE),
            Some(http) => {
                // Nor can those be checked that are about what it does not have.
                if http.host.is_none() || !http.has_path() {
                    look_up(OPAQUE);
                }
                self.shapes.leaves(http, self.depth, look_up);
            }
        }
    }

    fn file_policy(&mut self, at: usize, policy: &Policy) {
        let policy_at = small(at);
        let whole = Entry {
            policy: policy_at,
            made: Made::Whole,
        };
        let rules = match &policy.rules {
            Err(_) => return self.file(policy, whole, &[]),
            Ok(rules) if rules.is_empty() && policy.action != Action::Allow => {
                return self.file(policy, whole, &[]);
            }
            Ok(rules) => rules,
        };
        for (rule_at, rule) in rules.iter().enumerate() {
            let number = self.number(rule);
            let choices = |alternatives: usize| match alternatives {
                0 => vec![None],
                n => (0..small(n)).map(Some).collect(),
            };
            for from in choices(rule.from.len()) {
                for to in choices(rule.to.len()) {
                    let made = Made::Rule {
                        rule: small(rule_at),
                        from,
                        to,
                        number,
                    };
                    let conditions: Vec<&Condition> = rule.conditions(from, to).collect();
                    self.file(
                        policy,
                        Entry {
                            policy: policy_at,
                            made,
                        },
                        &conditions,
                    );
                }
            }
        }
    }

    /// The rule's own number, if its `when` could be come by more than once and there is a number left.
    fn number(&mut self, rule: &Rule) -> Option<u8> {
        let is_dear = |one: &Condition| matches!(one, Condition::Expression(_));
        let is_worth_it = rule.when.iter().any(is_dear) || rule.entries() > 1;
        if self.numbered >= REMEMBERED_MAX || rule.when.is_empty() || !is_worth_it {
            return None;
        }
        self.numbered += 1;
        Some(self.numbered - 1)
    }

    fn file(&mut self, policy: &Policy, entry: Entry, conditions: &[&Condition]) {
        let at = small(self.entries.len());
        self.entries.push(entry);
        let needs_http = conditions.iter().any(|one| one.needs_http());
        let mut ports = key::ports(policy, conditions);
        if needs_http && policy.mode == Mode::Enforce {
            let named = ports.iter().flatten();
            self.http_ports
                .extend(named.filter(|port| policy.is_for(**port)));
        }
        let mut callers = key::callers(conditions);
        let mut leaves = key::leaves(conditions);
        if needs_http && policy.action != Action::Allow && leaves != [ANY] {
            leaves.push(OPAQUE);
        }
        if self.filings + ports.len() * callers.len() * leaves.len() > FILINGS_MAX {
            (ports, callers, leaves) = (vec![None], vec![ANY], vec![ANY]);
        }
        self.depth = self.depth.max(key::depth(conditions));
        for port in ports {
            let places = callers
                .iter()
                .flat_map(|caller| leaves.iter().map(move |leaf| (*caller, *leaf)));
            for (caller, leaf) in places {
                self.filings += 1;
                self.shapes.add(port, caller.kind, leaf.kind);
                let under = self.filed.entry(key(port, caller, leaf)).or_default();
                if under.last() != Some(&at) {
                    under.push(at);
                }
            }
        }
    }
}

impl Rule {
    fn entries(&self) -> usize {
        self.from.len().max(1) * self.to.len().max(1)
    }

    /// What has to hold for one combination.
    fn conditions(&self, from: Option<u32>, to: Option<u32>) -> impl Iterator<Item = &Condition> {
        self.chosen(from, to).chain(&self.when)
    }

    /// The same without `when`.
    fn chosen(&self, from: Option<u32>, to: Option<u32>) -> impl Iterator<Item = &Condition> {
        let chosen = |all: &'_ [Vec<Condition>], at: Option<u32>| {
            at.and_then(|at| all.get(at as usize).map(|_| at as usize))
        };
        let from = chosen(&self.from, from).map_or(&[][..], |at| &self.from[at]);
        let to = chosen(&self.to, to).map_or(&[][..], |at| &self.to[at]);
        from.iter().chain(to)
    }
}

impl Entry {
    /// Whether all of it holds, ports of its policy included.
    pub(super) fn holds<'a, F>(self, policy: &Policy, asked: &Asked<'a, F>, effort: &Effort) -> bool
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let benefit = Benefit::of(&policy.action);
        policy.is_for(asked.port)
            && match (self.made, &policy.rules) {
                (Made::Whole, _) => true,
                (
                    Made::Rule {
                        rule,
                        from,
                        to,
                        number,
                    },
                    Ok(rules),
                ) => rules.get(rule as usize).is_some_and(|rule| {
                    let holds = |one: &Condition| one.holds(asked, benefit, effort);
                    rule.chosen(from, to).all(holds)
                        && effort.once(number, || rule.when.iter().all(holds))
                }),
                (Made::Rule { .. }, Err(_)) => false,
            }
    }
}

impl Policy {
    /// Whether it targets that port of the workload.
    #[must_use]
    pub fn is_for(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|one| one.get() == port)
    }

    /// Whether somebody else is asked.
    pub(super) fn asks(&self) -> bool {
        matches!(self.action, Action::External(_)) && self.rules.is_ok()
    }
}

/// Counts are below limits that fit.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
