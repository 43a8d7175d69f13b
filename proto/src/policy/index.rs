//! Finding the few rules that can hold among many: each combination of a rule's `from` and `to` is an entry, filed under
//! port, caller and path or host, as far as these are literal. What is found is checked whole, so a key says only where
//! to look; that two texts share one costs time and nothing else. A look-up does not allocate.
//!
//! Limits: [`FILINGS_MAX`] keys, beyond which entries are looked at for every request of their port.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::condition::{Asked, Benefit, Http, bare};
use super::{
    Action, Authorization, Condition, ENTRIES_MAX, Host, Mode, Path, Policy, Posture, Rule,
    Template,
};
use crate::Invalid;

/// Keys of all entries together.
const FILINGS_MAX: usize = 262_144;

/// Decides for one workload.
#[derive(Debug)]
pub struct Authorizer {
    pub(super) posture: Posture,
    pub(super) cluster_networks: Vec<ipnet::IpNet>,
    policies: Vec<Policy>,
    entries: Vec<Entry>,
    filed: HashMap<u64, Vec<u32>, BuildHasherDefault<Hashed>>,
    filings: usize,
    /// Elements of the longest prefix that anything is filed under: longer ones need no look-up.
    depth: usize,
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
}

impl Targeted {
    fn add(&mut self, policy: &Policy) {
        let allows = policy.action == Action::Allow;
        match policy.mode {
            Mode::Enforce => self.allowed |= allows,
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
        }
    }
}

/// One combination of a rule's `from` and `to`; or a whole policy, which denies whatever its ports are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) policy: u32,
    pub(super) part: Part,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// Without a rule, or none that can be evaluated.
    Whole,
    /// Indices of the rule, and of its alternatives, where it has any.
    Rule {
        rule: u32,
        from: Option<u32>,
        to: Option<u32>,
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
            depth: 0,
            http_ports: Vec::new(),
            targeted: Default::default(),
        };
        let mut policies = std::mem::take(&mut new.policies);
        for (at, policy) in policies.iter_mut().enumerate() {
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
        let callers = caller_keys(asked);
        let mut look_up = |leaf: u64| {
            for port in [ANY, u64::from(asked.port)] {
                for caller in callers {
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
            Some(http) => self.leaves(http, look_up),
        }
    }

    /// Keys of a request's host and path.
    fn leaves<F>(&self, http: &Http<'_, F>, mut look_up: impl FnMut(u64)) {
        if let Some(host) = http.host {
            look_up(text(Kind::Host, super::condition::without_port(host)));
        }
        look_up(text(Kind::Path, http.path));
        let mut prefix = Text::new(Kind::Below);
        look_up(prefix.key());
        for element in http.path.split('/').skip(1).take(self.depth) {
            prefix.add_element(element);
            look_up(prefix.key());
        }
        if http.path.contains(';') {
            let mut prefix = Text::new(Kind::Below);
            let mut whole = Text::new(Kind::Path);
            for (n, element) in http.path.split('/').skip(1).enumerate() {
                whole.add_element(bare(element));
                if n < self.depth {
                    prefix.add_element(bare(element));
                    look_up(prefix.key());
                }
            }
            look_up(whole.key());
        }
    }

    fn file_policy(&mut self, at: usize, policy: &Policy) {
        let policy_at = small(at);
        let whole = Entry {
            policy: policy_at,
            part: Part::Whole,
        };
        let rules = match &policy.rules {
            Err(_) => return self.file(policy, whole, &[]),
            Ok(rules) if rules.is_empty() && policy.action == Action::Deny => {
                return self.file(policy, whole, &[]);
            }
            Ok(rules) => rules,
        };
        for (rule_at, rule) in rules.iter().enumerate() {
            let choices = |alternatives: usize| match alternatives {
                0 => vec![None],
                n => (0..small(n)).map(Some).collect(),
            };
            for from in choices(rule.from.len()) {
                for to in choices(rule.to.len()) {
                    let part = Part::Rule {
                        rule: small(rule_at),
                        from,
                        to,
                    };
                    let conditions: Vec<&Condition> = rule.conditions(from, to).collect();
                    self.file(
                        policy,
                        Entry {
                            policy: policy_at,
                            part,
                        },
                        &conditions,
                    );
                }
            }
        }
    }

    fn file(&mut self, policy: &Policy, entry: Entry, conditions: &[&Condition]) {
        let at = small(self.entries.len());
        self.entries.push(entry);
        let needs_http = conditions.iter().any(|one| one.needs_http());
        let ports = ports(policy, conditions);
        if needs_http && policy.mode == Mode::Enforce {
            let named = ports.iter().filter_map(|port| u16::try_from(*port).ok());
            self.http_ports
                .extend(named.filter(|port| *port > 0 && policy.is_for(*port)));
        }
        let mut callers = filed_callers(conditions);
        let mut leaves = filed_leaves(conditions);
        if needs_http && policy.action == Action::Deny && leaves != [ANY] {
            leaves.push(OPAQUE);
        }
        if self.filings + ports.len() * callers.len() * leaves.len() > FILINGS_MAX {
            (callers, leaves) = (vec![ANY], vec![ANY]);
        }
        self.depth = self.depth.max(depth(conditions));
        for port in ports {
            for (caller, leaf) in callers
                .iter()
                .flat_map(|one| leaves.iter().map(move |leaf| (*one, *leaf)))
            {
                self.filings += 1;
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
    pub(super) fn conditions(
        &self,
        from: Option<u32>,
        to: Option<u32>,
    ) -> impl Iterator<Item = &Condition> {
        let chosen = |all: &'_ [Vec<Condition>], at: Option<u32>| {
            at.and_then(|at| all.get(at as usize).map(|_| at as usize))
        };
        let from = chosen(&self.from, from).map_or(&[][..], |at| &self.from[at]);
        let to = chosen(&self.to, to).map_or(&[][..], |at| &self.to[at]);
        from.iter().chain(to).chain(&self.when)
    }
}

impl Entry {
    /// Whether all of it holds, ports of its policy included.
    pub(super) fn holds<'a, F>(self, policy: &Policy, asked: &Asked<'a, F>) -> bool
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let benefit = Benefit::of(policy.action);
        policy.is_for(asked.port)
            && match (self.part, &policy.rules) {
                (Part::Whole, _) => true,
                (Part::Rule { rule, from, to }, Ok(rules)) => {
                    rules.get(rule as usize).is_some_and(|rule| {
                        rule.conditions(from, to)
                            .all(|one| one.holds(asked, benefit))
                    })
                }
                (Part::Rule { .. }, Err(_)) => false,
            }
    }
}

impl Policy {
    /// Whether it targets that port of the workload.
    #[must_use]
    pub fn is_for(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|one| one.get() == port)
    }
}

/// In place of a part that is not literal.
const ANY: u64 = 0;
/// In place of path and host, for opaque connections: entries that deny and cannot be checked there.
const OPAQUE: u64 = 1;

/// What a text is; texts of two kinds have different keys.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Identity = 2,
    ServiceAccount,
    Namespace,
    Host,
    Path,
    Below,
}

/// A text's key as it grows: FNV-1a.
#[derive(Debug, Clone, Copy)]
struct Text(u64);

impl Text {
    fn new(kind: Kind) -> Self {
        Self(0xcbf2_9ce4_8422_2325 ^ kind as u64)
    }

    fn add(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_element(&mut self, element: &str) {
        self.add("/");
        self.add(element);
    }

    fn key(self) -> u64 {
        self.0
    }
}

fn text(kind: Kind, text: &str) -> u64 {
    let mut key = Text::new(kind);
    key.add(text);
    key.key()
}

/// Parts in order; the mixing is that of Fibonacci hashing.
fn key(port: u64, caller: u64, leaf: u64) -> u64 {
    let mix =
        |key: u64, part: u64| (key.rotate_left(23) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix(mix(mix(0, port), caller), leaf)
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key ^ (key >> 32);
    }
}

/// What may be filed for a caller. Two equal ones find the same twice, which does no harm.
fn caller_keys<F>(asked: &Asked<'_, F>) -> [u64; 4] {
    match asked.caller.identity {
        None => [ANY; 4],
        Some(id) => {
            let mut account = Text::new(Kind::ServiceAccount);
            account.add(id.namespace());
            account.add_element(id.service_account());
            [
                ANY,
                text(Kind::Identity, id.as_str()),
                account.key(),
                text(Kind::Namespace, id.namespace()),
            ]
        }
    }
}

fn ports(policy: &Policy, conditions: &[&Condition]) -> Vec<u64> {
    let condition = conditions.iter().find_map(|one| match one {
        Condition::Ports(any) => Some(any),
        _ => None,
    });
    let named = condition.unwrap_or(&policy.ports);
    if named.is_empty() && condition.is_none() {
        vec![ANY]
    } else {
        named.iter().map(|port| port.get().into()).collect()
    }
}

fn filed_callers(conditions: &[&Condition]) -> Vec<u64> {
    let keys = |one: &&Condition| match one {
        Condition::Identities(any) => {
            let exact = any.iter().map(|one| match one {
                super::Text::Exact(id) => Some(text(Kind::Identity, id)),
                super::Text::Prefix(_) => None,
            });
            exact.collect::<Option<Vec<_>>>()
        }
        Condition::ServiceAccounts(any) => Some(
            any.iter()
                .map(|one| text(Kind::ServiceAccount, one))
                .collect(),
        ),
        Condition::Namespaces(any) => {
            Some(any.iter().map(|one| text(Kind::Namespace, one)).collect())
        }
        _ => None,
    };
    conditions
        .iter()
        .find_map(keys)
        .unwrap_or_else(|| vec![ANY])
}

fn filed_leaves(conditions: &[&Condition]) -> Vec<u64> {
    let paths = conditions.iter().find_map(|one| match one {
        Condition::Paths(any) => Some(any.iter().map(path_key).collect()),
        _ => None,
    });
    let hosts = || {
        conditions.iter().find_map(|one| match one {
            Condition::Hosts(any) => any.iter().map(host_key).collect(),
            _ => None,
        })
    };
    paths.or_else(hosts).unwrap_or_else(|| vec![ANY])
}

fn path_key(path: &Path) -> u64 {
    match path {
        Path::Exact(exact) => text(Kind::Path, exact),
        Path::Prefix(prefix) => text(Kind::Below, prefix),
        Path::Template(template) => {
            let mut key = Text::new(Kind::Below);
            template
                .literal()
                .for_each(|element| key.add_element(element));
            key.key()
        }
    }
}

fn host_key(host: &Host) -> Option<u64> {
    match host {
        Host::Exact(host) => Some(text(Kind::Host, host)),
        Host::Below(_) => None,
    }
}

/// Elements of the longest prefix among them.
fn depth(conditions: &[&Condition]) -> usize {
    let paths = conditions.iter().filter_map(|one| match one {
        Condition::Paths(any) => Some(any),
        _ => None,
    });
    let elements = paths.flatten().map(|path| match path {
        Path::Exact(_) => 0,
        Path::Prefix(prefix) => prefix.matches('/').count(),
        Path::Template(template) => template.literal().count(),
    });
    elements.max().unwrap_or(0)
}

impl Template {
    /// The elements that are literal, up to the first that is not.
    fn literal(&self) -> impl Iterator<Item = &str> {
        self.elements.iter().map_while(Option::as_deref)
    }
}

/// Counts are below limits that fit.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
